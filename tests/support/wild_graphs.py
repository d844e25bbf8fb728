"""Random networks of all layers, edges and neurons for round trips.

Weights lie on a coarse binary grid and time constants are powers of two of the step, so that no sum rounds in any order.
"""

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    SpeckIF,
    SumPool,
    XyloLIF,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph

DT_S = 1e-3


def wild_graph(seed: int, numbers: str = "float") -> SNNGraph:
    """Return a random network of 1 to 8 layers; `numbers` is "float", "loihi", "speck" or "xylo"."""
    return _Wild(seed, numbers).graph()


class _Wild:
    def __init__(self, seed, numbers):
        self.rng, self.numbers = np.random.default_rng(seed), numbers
        self.integer = numbers != "float"
        self.layers, self.edges, self.shapes = [], [], {}

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def chance(self, p):
        return self.rng.random() < p

    def grid(self, *shape):
        values = self.rng.integers(-8, 9, shape)
        return values if self.integer else values.astype(self.pick(np.float32, np.float64)) / 8

    def graph(self):
        dims = int(self.rng.integers(3))
        self.shapes[INPUT] = (int(self.rng.integers(1, 5)), *(int(n) for n in self.rng.integers(3, 7, dims)))
        for n in range(int(self.rng.integers(1, 9))):
            self.add(f"l{n}")
        self.loops()
        return SNNGraph(
            layers=tuple(self.layers),
            edges=tuple(self.edges),
            input_shape=self.shapes[INPUT],
            dt_s=DT_S,
            output=self.layers[-1].name,
            metadata={"seed": int(self.rng.integers(9))},
        )

    def add(self, name):
        """Add a layer fed by one source, and by others of the same shape."""
        first = self.pick(*self.shapes) if self.chance(0.3) else list(self.shapes)[-1]
        shape = self.shapes[first]
        alike = [source for source, other in self.shapes.items() if other == shape and source != first]
        sources = [first, *(source for source in alike if self.chance(0.4))]
        synapse = self.synapse(shape)
        out = shape if synapse is None else synapse.output_shape(shape)
        norm = None if self.integer or not self.chance(0.25) else self.norm(out[0])
        neuron = self.neuron(out) if self.chance(0.75) or self.integer else None
        self.layers.append(Layer(name=name, synapse=synapse, norm=norm, neuron=neuron))
        self.edges += [Edge(source=s, target=name, delay=int(self.pick(0, 0, 0, 1, 3))) for s in sources]
        self.shapes[name] = out

    def loops(self):
        """Close cycles: by an edge alone, or through weights."""
        for layer in list(self.layers):
            entry = self.edges[[e.target for e in self.edges].index(layer.name)].source
            if layer.neuron is not None and self.chance(0.3) and self.shapes[layer.name] == self.shapes[entry]:
                self.edges.append(Edge(source=layer.name, target=layer.name, delay=int(self.pick(1, 2))))

    def synapse(self, shape):
        options = [self.dense, self.scale, lambda shape: None]
        if len(shape) > 1:
            options += [self.conv, self.conv, self.pool, lambda shape: Flatten()]
        return self.pick(*options)(shape)

    def dense(self, shape):
        out = int(self.rng.integers(1, 7))
        bias = self.grid(out) if self.chance(0.5) else None
        return Dense(weight=self.grid(out, int(np.prod(shape))), bias=bias, weight_exponent=self.exponent())

    def exponent(self):
        return int(self.pick(-2, 0, 0, 1)) if self.integer else 0

    def scale(self, shape):
        weight = self.grid(*self.pick((), shape, (shape[0], *(1 for _ in shape[1:]))))
        return Scale(weight=weight, bias=self.grid(*shape) if self.chance(0.5) else None)

    def conv(self, shape):
        dims = len(shape) - 1
        groups = int(self.pick(1, 1, shape[0]))
        out = groups * int(self.rng.integers(1, 4))
        kernel, padding, dilation = (self.rng.integers(low, high, dims) for low, high in ((1, 4), (0, 3), (1, 3)))
        padding = np.maximum(padding, (dilation * (kernel - 1) + 1 - np.array(shape[1:]) + 1) // 2)  # at least one position
        kind = Conv1d if dims == 1 else Conv2d
        return kind(
            weight=self.grid(out, shape[0] // groups, *kernel),
            bias=self.grid(out) if self.chance(0.5) else None,
            stride=tuple(int(n) for n in self.rng.integers(1, 3, dims)),
            padding=tuple(int(n) for n in padding),
            dilation=tuple(int(n) for n in dilation),
            groups=groups,
            weight_exponent=self.exponent(),
        )

    def pool(self, shape):
        kind = SumPool if self.integer else self.pick(SumPool, AvgPool)
        kernel = tuple(int(self.pick(1, min(2, n))) for n in shape[1:])
        stride = self.pick(None, tuple(1 for _ in kernel))
        return kind(kernel_size=kernel, stride=stride, padding=tuple(int(self.pick(0, 1)) for _ in kernel))

    def norm(self, channels):
        one = np.ones(channels, np.float32)
        return BatchNorm(weight=one * self.pick(1, 2), bias=self.grid(channels), mean=self.grid(channels), var=one / 4, eps=0.0)

    def spread(self, shape):
        """Return a parameter's shape: one value, one per channel, one per neuron."""
        return self.pick((), (), (shape[0], *(1 for _ in shape[1:])), shape)

    def neuron(self, shape):
        reset = str(self.pick("value", "subtract"))
        whole = self.rng.integers
        spread = self.spread(shape)
        if self.numbers == "loihi":
            return LoihiLIF(
                decay_u=whole(0, 4097, spread),
                decay_v=whole(0, 4097, self.spread(shape)),
                v_threshold=None if self.chance(0.15) else whole(1, 20, self.spread(shape)),
                bias_mantissa=whole(-99, 99, spread),
                bias_exponent=int(self.pick(-1, 0, 3)),
                v_init=whole(-99, 99, spread),
                v_reset=whole(-99, 99, spread),
                reset=reset,
                refractory_steps=int(self.pick(0, 0, 2)),
            )
        if self.numbers == "speck":
            return SpeckIF(v_threshold=whole(2, 20), v_min=whole(-40, 1), v_init=whole(-9, 9, spread), reset=reset)
        if self.numbers == "xylo":
            return XyloLIF(
                dash_mem=whole(0, 5, spread),
                dash_syn=whole(0, 5, self.spread(shape)),
                v_threshold=None if self.chance(0.15) else whole(1, 20, self.spread(shape)),
                bias=whole(-9, 9, spread),
                max_spikes=int(self.pick(1, 3, 31)),
            )
        return self.floating(spread, reset)

    def floating(self, spread, reset):
        def level(low, high):
            return self.rng.integers(low, high, spread) / 8

        def tau():
            return DT_S * 2.0 ** self.rng.integers(0, 3, spread)

        synaptic = tau()
        leak, levels = {"v_leak": level(-3, 4)}, {"v_threshold": level(4, 9), "v_reset": level(-3, 3)}
        r = {"r": 2.0 ** self.rng.integers(-1, 2, spread)}
        current = {"tau_mem_s": tau(), "tau_syn_s": synaptic, "w_in": synaptic / DT_S}
        late = {"reset": reset, "reset_delay": int(reset == "subtract" and len(self.layers) % 2)}
        make = self.pick(
            lambda: IF(**levels, **r, reset=reset),
            lambda: LIF(tau_s=tau(), **levels, **leak, **r, **late),
            lambda: CubaLIF(**current, **levels, **leak, **r, **late),
            lambda: LI(tau_s=tau(), **leak, **r),
            lambda: CubaLI(**current, **leak, **r),
        )
        return make()


def wild_spikes(graph: SNNGraph, seed: int, *, steps: int = 8, batch: int = 3):
    return np.random.default_rng(seed).random((steps, batch, *graph.input_shape)) < 0.4
