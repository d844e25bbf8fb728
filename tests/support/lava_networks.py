"""Random integer networks for Lava, and the comparison of runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.plan import plan_network
from spear_deploy.lava.run import Job
from spear_deploy.network import Conv1d, Conv2d, Dense, Flatten, Layer, LoihiLIF, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.simulator import simulate


class _Network:
    """Grows a network row by row; `populations` are the rows that emit spikes, by shape."""

    def __init__(self, rng):
        self.rng = rng
        self.layers, self.edges = [], []
        self.shapes = {}
        self.populations = []
        self.entry = "input"
        self.heavy = self.chance(0.2)  # weights so large that u wraps

    def chance(self, share):
        return self.rng.random() < share

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def add(self, shape, sources, *, synapse=None, neuron=None, name=None):
        name = name or f"row{len(self.layers)}"
        self.layers.append(Layer(name=name, synapse=synapse, neuron=neuron))
        self.edges += [Edge(source=s, target=name, delay=d) for s, d in sources]
        self.shapes[name] = self.layers[-1].output_shape(shape)
        if neuron is not None and neuron.v_threshold is not None:
            self.populations.append(name)
        return name

    # ------------------------------------------------------------------------------------------------------- the parts

    def weights(self, *shape):
        rng = self.rng
        kind = self.pick("mixed", "mixed", "mixed", "even", "positive", "negative", "wide", "sparse")
        if self.heavy:
            return rng.integers(-128, 128, shape) << 6
        if kind == "even":
            return 2 * rng.integers(-128, 128, shape)
        if kind == "positive":
            return rng.integers(0, 256, shape)
        if kind == "negative":
            return rng.integers(-255, 1, shape)
        if kind == "wide":
            return rng.integers(-128, 128, shape) << int(rng.integers(1, 4))
        return rng.integers(-128, 128, shape) * (rng.random(shape) < (0.2 if kind == "sparse" else 1.0))

    def exponent(self):
        return 0 if self.heavy else self.pick(0, 0, 0, 1, 2)

    def bias(self, n):
        return self.rng.integers(-3000, 3000, n) if self.chance(0.3) else None

    def neuron(self, shape, *, readout=False):
        rng = self.rng

        def spread(low, high):
            sizes = self.pick((), (shape[0],) + (1,) * (len(shape) - 1), shape)
            return rng.integers(low, high, sizes)

        saturating = self.chance(0.15)  # potential, bias and threshold near the top of the format
        start = spread(-(2**23) + 1, 2**23) if saturating else spread(-40_000, 40_000)
        slow = self.heavy or self.chance(0.3)
        plain = {
            "decay_u": spread(1, 300) if slow else self.pick(np.array(4096), spread(1, 4097)),
            "decay_v": spread(0, 300) if slow else self.pick(np.array(0), spread(0, 4096)),
            "v_threshold": None if readout else (spread(100_000, 2**17) if saturating or self.heavy else spread(0, 900)),
            "bias_mantissa": spread(3000, 4096) if saturating else spread(-300, 300) if self.chance(0.6) else 0,
            "bias_exponent": 7 if saturating else int(rng.integers(0, 8)),
            "v_init": start if self.chance(0.6 if saturating else 0.1) else 0,
        }
        return LoihiLIF(**plain | (self.beyond_lif(spread) if self.chance(0.3) else {}))

    def beyond_lif(self, spread):
        """Return what Lava's own LIF lacks: other resets, a rest, a current that stays."""
        more = {"reset": self.pick("value", "subtract"), "refractory_steps": self.pick(0, 0, 1, 3)}
        if self.chance(0.5):
            more["v_reset"] = spread(-20_000, 20_000)
        if self.chance(0.2):
            more["decay_u"] = spread(0, 2)
        return more

    def synapse(self, shape):
        """Return a weighted synapse for inputs of this shape."""
        rng = self.rng
        exponent = self.exponent()
        if len(shape) == 3 and self.chance(0.75):
            kernel, stride, padding, dilation = (tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in _GEOMETRY)
            groups = self.pick(1, shape[0])
            outputs = groups * int(rng.integers(1, 3))
            weight = self.weights(outputs, shape[0] // groups, *kernel)
            conv = Conv2d(
                weight=weight,
                bias=self.bias(outputs),
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                weight_exponent=exponent,
            )
            if all(n + 2 * p >= d * (k - 1) + 1 for n, k, p, d in zip(shape[1:], kernel, padding, dilation, strict=True)):
                return conv
        if len(shape) == 2 and shape[1] >= 3:
            return Conv1d(weight=self.weights(2, shape[0], 3), padding=1, bias=self.bias(2), weight_exponent=exponent)
        if self.chance(0.1):
            return Scale(weight=self.weights(*shape), bias=self.bias(shape))
        n = int(rng.integers(1, 9))
        return Dense(weight=self.weights(n, int(np.prod(shape))), bias=self.bias(n), weight_exponent=exponent)

    # ------------------------------------------------------------------------------------------------------ the stages

    def stage(self, delays, *, readout=False):
        """Add a population: rows without neurons, weights, neurons, and further edges into it."""
        shape, rows = self.entrance(delays)
        synapse = self.synapse(shape)
        for other in self.populations:
            if other not in dict(rows) and self.shapes[other] == shape and self.chance(0.4):
                rows.append((other, self.delay(delays)))  # several edges into one synapse
        rounding = len(rows) == 1 and rows[0][0] not in self.unspiking() and not isinstance(synapse, Scale) and self.chance(0.15)
        if rounding:
            synapse = replace(synapse, weight_exponent=-int(self.rng.integers(1, 4)))
        out = synapse.output_shape(shape)
        if self.chance(0.5):
            name = self.add(shape, rows, synapse=synapse, neuron=self.neuron(out, readout=readout))
            if delays and out == shape and not rounding and not readout and self.chance(0.4):
                self.edges.append(Edge(source=name, target=name, delay=int(self.rng.integers(1, 4))))
            return name
        return self.summed(out, [(self.add(shape, rows, synapse=synapse), 0)], delays, readout)

    def entrance(self, delays):
        """Choose a source, perhaps behind a pool or a flatten: its shape and the edge that brings it."""
        source = self.pick(self.entry, *self.populations[-2:], *self.populations[-1:])
        shape = self.shapes[source]
        rows = [(source, self.delay(delays))]
        if len(shape) == 3 and min(shape[1:]) >= 2 and not self.heavy and self.chance(0.3):
            pool = SumPool(kernel_size=2, stride=self.pick(1, 2), padding=self.pick(0, 1))
            rows = [(self.add(shape, rows, synapse=pool), self.delay(delays))]
        elif self.chance(0.15):
            rows = [(self.add(shape, rows, synapse=Flatten()), 0)]
        return self.shapes[rows[0][0]], rows

    def summed(self, out, rows, delays, readout):
        """Add neurons in which currents of several synapses, and spikes without weight, add up; perhaps their own too."""
        for other in self.populations:
            if self.shapes[other] == out and self.chance(0.5):
                rows.append((other, self.delay(delays)))
            elif len(out) == 1 and self.chance(0.3):
                synapse = Dense(weight=self.weights(*out, int(np.prod(self.shapes[other]))))
                rows.append((self.add(self.shapes[other], [(other, self.delay(delays))], synapse=synapse), 0))
        name = self.add(out, rows, neuron=self.neuron(out, readout=readout))
        if delays and not readout and self.chance(0.4):
            delay = int(self.rng.integers(1, 4))
            if len(out) == 1:
                row = self.add(out, [(name, delay)], synapse=Dense(weight=self.weights(*out, *out)))
                self.edges.append(Edge(source=row, target=name))
            else:
                self.edges.append(Edge(source=name, target=name, delay=delay))
        return name

    def unspiking(self):
        return {layer.name for layer in self.layers if layer.neuron is None}

    def delay(self, delays):
        return int(self.rng.integers(0, 5)) if delays and self.chance(0.3) else 0


_GEOMETRY = ((1, 4), (1, 3), (0, 3), (1, 3))  # kernel, stride, padding, dilation


def random_job(seed):
    """Return a network, an input, and everything to be recorded; None for a network that is rightly refused.

    That is a loop that no hardware with a step for each connection can run, or sums of heavy weights beyond the format.
    """
    rng = np.random.default_rng(seed)
    net = _Network(rng)
    delays = net.chance(0.5)
    shape = net.pick((5,), (2, 5, 4), (1, 6, 6), (2, 7))
    net.shapes["input"] = shape
    steps, batch = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    kind = net.pick("spikes", "spikes", "current")
    if kind == "spikes":
        x = rng.random((steps, batch, *shape)) < 0.4 if net.chance(0.6) else rng.integers(0, 5, (steps, batch, *shape))
    else:
        x = rng.integers(-6, 7, (steps, batch, *shape))
    if net.chance(0.25):  # an input layer as netx has it
        x = rng.normal(0, 2, (steps, batch, *shape))
        kind = "current"
        scale = Scale(weight=rng.normal(0, 30, net.pick((), shape)), bias=rng.normal(0, 30))
        if net.chance(0.7):
            net.add(shape, [("input", 0)], synapse=scale, neuron=net.neuron(shape), name="encoder")
        else:
            net.add(shape, [("input", 0)], synapse=scale, name="scale")
            net.add(shape, [("scale", 0)], neuron=net.neuron(shape), name="encoder")
        net.entry = "encoder"
    stages = int(rng.integers(1, 5))
    for _ in range(stages):
        net.stage(delays)
    if delays and len(net.populations) > 1 and net.chance(0.4):
        late, early = net.populations[-1], net.populations[0]
        row = next(layer for layer in net.layers if layer.name == early)
        if row.synapse is None and net.shapes[early] == net.shapes[late]:
            net.edges.append(Edge(source=late, target=early, delay=int(rng.integers(1, 6))))
    output = ""
    if net.chance(0.3):
        output = net.stage(delays, readout=True)
    elif net.chance(0.3):
        last = net.populations[-1]
        output = net.add(net.shapes[last], [(last, 0)], synapse=net.synapse(net.shapes[last]), name="value")
    graph = SNNGraph(layers=tuple(net.layers), edges=tuple(net.edges), input_shape=shape, output=output)
    try:
        plan_network(graph)
    except UnsupportedError as error:
        assert "cycle" in str(error) or "exponent is above" in str(error), error
        return None
    return Job(graph=graph, x=x, kind=kind, record=frozenset({"spikes", "v", "u"}))


def random_jobs(first, n):
    """Return `n` networks, from seed `first` on."""
    result, seed = [], first
    while len(result) < n:
        job = random_job(seed)
        result += [job] if job else []
        seed += 1
    return result


def simulated(job):
    return simulate(job.graph, job.x, kind=job.kind, record=job.record)


def differences(run, expected):
    """Name everything in which two runs differ."""
    result = []
    for what in ("spikes", "v", "u"):
        a, b = getattr(run, what), getattr(expected, what)
        if sorted(a) != sorted(b):
            result.append(f"{what}: {sorted(a)} and {sorted(b)}")
        common = [name for name in b if name in a]
        result += [f"{what} of {name}: {_count(a[name], b[name])}" for name in common if not np.array_equal(a[name], b[name])]
    if not np.array_equal(run.output, expected.output):
        result.append(f"output: {_count(run.output, expected.output)}")
    for name, sent in expected.counts.sent.items():
        if not np.array_equal(run.counts.sent[name], sent):
            result.append(f"spikes sent by {name}")
    for edge, delivered in expected.counts.delivered.items():
        if not np.array_equal(run.counts.delivered[edge], delivered):
            result.append(f"spikes delivered by {edge}")
    if run.counts.sent.keys() != expected.counts.sent.keys() or run.counts.delivered.keys() != expected.counts.delivered.keys():
        result.append("what was counted")
    if run.overflows != expected.overflows:
        result.append(f"overflows: {run.overflows} and {expected.overflows}")
    return result


def _count(a, b):
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    where = np.argwhere(a != b)
    return f"{len(where)} of {a.size}, first at {tuple(where[0])}: {a[tuple(where[0])]} and {b[tuple(where[0])]}"
