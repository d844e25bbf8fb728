"""Whole networks synapse by synapse and neuron by neuron, in Python's numbers; SynOps by following each spike."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import partial
from math import prod

import numpy as np

from spear_deploy.network import (
    CONVS,
    GRADED_NEURONS,
    IF,
    LI,
    LIF,
    POOLS,
    WEIGHTED,
    AvgPool,
    CubaLI,
    CubaLIF,
    Dense,
    LoihiLIF,
    Scale,
    SigmaDelta,
    SpeckIF,
    SpinnakerLIF,
    XyloLIF,
    write_out,
)
from spear_deploy.network.graph import INPUT
from tests.support import chip_reference


def list_synapses(synapse, shape, out_shape):
    """Return (input, output, weight) of every synapse, inputs and outputs counted flat."""
    size = prod(shape)
    if isinstance(synapse, Dense):
        weight = write_out(synapse.weight)
        return [(i, o, weight[o, i]) for o, i in itertools.product(range(len(weight)), range(size))]
    if isinstance(synapse, Scale):
        return [(i, i, w) for i, w in enumerate(np.broadcast_to(synapse.weight, shape).reshape(-1))]
    if not isinstance(synapse, (*CONVS, *POOLS)):
        return [(i, i, 1) for i in range(size)]
    is_pool = isinstance(synapse, POOLS)
    kernel = synapse.kernel_size if is_pool else synapse.weight.shape[2:]
    dilation = (1,) * len(kernel) if is_pool else synapse.dilation
    axes = zip(shape[1:], out_shape[1:], kernel, synapse.stride, synapse.padding, dilation, strict=True)
    taken = [
        [(o, k, o * s - p + k * d) for o in range(outputs) for k in range(taps) if 0 <= o * s - p + k * d < n]
        for n, outputs, taps, s, p, d in axes
    ]
    rows = []
    for places in itertools.product(*taken):
        here, tap, there = zip(*places, strict=True)
        for source, target, weight in _list_channels(synapse, shape[0], out_shape[0], tap):
            i, o = np.ravel_multi_index((source, *there), shape), np.ravel_multi_index((target, *here), out_shape)
            rows.append((int(i), int(o), weight))
    return rows


def _list_channels(synapse, inputs, outputs, tap):
    if isinstance(synapse, POOLS):
        weight = 1 / prod(synapse.kernel_size) if isinstance(synapse, AvgPool) else 1
        return [(c, c, weight) for c in range(inputs)]
    into, out = inputs // synapse.groups, outputs // synapse.groups
    return [(o // out * into + i, o, synapse.weight[(o, i, *tap)]) for o in range(outputs) for i in range(into)]


class SlowNetwork:
    """A network with the list of its synapses."""

    def __init__(self, graph):
        self.graph, self.synapses = graph, {}
        for layer in graph.layers:
            rows = list_synapses(layer.synapse, graph.input_shape_of(layer.name), graph.shape_of(layer.name))
            self.synapses[layer.name] = rows
        self.by_sign = any(isinstance(layer.neuron, SpinnakerLIF) for layer in graph.layers)

    def run(self, x):
        """Return what each layer emits, and the potentials of its neurons: (T, B, *shape) by layer."""
        emitted, potentials = defaultdict(list), defaultdict(list)
        for sample in np.moveaxis(x, 1, 0):
            sent, v = self._run_sample(sample)
            for found, values in ((emitted, sent), (potentials, v)):
                for name, steps in values.items():
                    found[name].append(np.array(steps).reshape(len(x), *self.graph.shape_of(name)))
        return [{name: np.stack(values, axis=1) for name, values in found.items()} for found in (emitted, potentials)]

    def _run_sample(self, sample):
        sent, potentials = defaultdict(list), defaultdict(list)
        cells = {layer.name: [{} for _ in range(prod(self.graph.shape_of(layer.name)))] for layer in self.graph.layers}
        for step in sample:
            sent[INPUT].append([number.item() for number in step.reshape(-1) * 1])
            for layer in self.graph.layers:
                x = self._add_up(layer, sent)
                if layer.neuron is None:
                    sent[layer.name].append(x)
                    continue
                update = find_update(layer.neuron, self.graph.shape_of(layer.name), self.graph.dt_s)
                sent[layer.name].append(
                    [update(cell, value, j) for j, (cell, value) in enumerate(zip(cells[layer.name], x, strict=True))]
                )
                potentials[layer.name].append([cell["v"] for cell in cells[layer.name]])
        return sent, potentials

    def _add_up(self, layer, sent):
        """Return what reaches each neuron, or leaves each place of a layer without neurons; by sign a list of weights."""
        shape, time = self.graph.shape_of(layer.name), len(sent[INPUT])
        x = [0] * prod(self.graph.input_shape_of(layer.name))
        for edge in self.graph.edges_into(layer.name):
            if time > edge.delay:
                x = [a + b for a, b in zip(x, sent[edge.source][time - 1 - edge.delay], strict=True)]
        lists = [[] for _ in range(prod(shape))]
        for i, o, weight in self.synapses[layer.name]:
            lists[o].append(getattr(weight, "item", lambda weight=weight: weight)() * x[i])
        bias, exponent = getattr(layer.synapse, "bias", None), getattr(layer.synapse, "weight_exponent", 0)
        if bias is not None:
            bias = bias if isinstance(layer.synapse, Scale) else bias.reshape(-1, *(1 for _ in shape[1:]))
            bias = np.broadcast_to(bias, shape).reshape(-1).tolist()
        if self.by_sign:
            return [[*weights, *([bias[o]] if bias else [])] for o, weights in enumerate(lists)]
        sums = [sum(weights) for weights in lists]
        sums = [n << exponent if exponent > 0 else n >> -exponent for n in sums] if exponent else sums
        sums = [a + b for a, b in zip(sums, bias, strict=True)] if bias else sums
        return _normalise(layer.norm, np.array(sums).reshape(shape)) if layer.norm else sums

    def count_synops(self, emitted):
        """Return the SynOps of each layer, mean over samples: each spike is followed to every synapse that is not zero."""
        counts = {layer.name: 0 for layer in self.graph.layers if self._has_synapses(layer)}
        fan_out = {name: defaultdict(list) for name in self.synapses}
        for name, rows in self.synapses.items():
            for i, o, weight in rows:
                if weight != 0:
                    fan_out[name][i].append(o)
        waiting = []
        for name in (INPUT, *(layer.name for layer in self.graph.layers if layer.spikes)):
            graded = name != INPUT and isinstance(self.graph[name].neuron, GRADED_NEURONS)
            spikes = emitted[name].reshape(*emitted[name].shape[:2], -1).astype(int)
            for t, i in np.argwhere(spikes.any(axis=1)):
                waiting.append((name, int(t), int(i), int((spikes[t, :, i] != 0).sum() if graded else spikes[t, :, i].sum())))
        steps, samples = emitted[INPUT].shape[:2]
        while waiting:
            name, t, i, times = waiting.pop()
            for edge in self.graph.edges_from(name):
                if t + edge.delay < steps:
                    targets = fan_out[edge.target][i]
                    if edge.target in counts:
                        counts[edge.target] += times * len(targets)
                    elif self._carries_spikes(edge.target):
                        waiting += [(edge.target, t + edge.delay, o, times) for o in targets]
        return {name: count / samples for name, count in counts.items()}

    def _has_synapses(self, layer):
        """Also where spikes are added to values, each by a synapse of weight one."""
        if isinstance(layer.synapse, WEIGHTED) or layer.norm is not None or layer.neuron is not None:
            return True
        kinds = [self._carries_spikes(edge.source, (layer.name,)) for edge in self.graph.edges_into(layer.name)]
        return any(kinds) and not all(kinds)

    def _carries_spikes(self, name, passed=()):
        if name == INPUT or name in passed:
            return True
        layer = self.graph[name]
        if isinstance(layer.synapse, WEIGHTED) or layer.norm is not None or layer.neuron is not None:
            return layer.neuron is not None and layer.spikes
        return all(self._carries_spikes(edge.source, (*passed, name)) for edge in self.graph.edges_into(name))


def _normalise(norm, y):
    scale, shift, mean, var = (a.reshape(-1, *(1 for _ in y.shape[1:])) for a in (norm.weight, norm.bias, norm.mean, norm.var))
    return ((y - mean) / np.sqrt(var + norm.eps) * scale + shift).reshape(-1).tolist()


# ------------------------------------------------------------------------------------------------------------- neurons


def find_update(neuron, shape, dt_s):
    """Return the function that advances one neuron, (state, input, place) to what it emits."""
    at = partial(_at, neuron, shape)
    if type(neuron) in chip_reference.STEPS:
        step = chip_reference.STEPS[type(neuron)]
        spread = {name: np.broadcast_to(value, shape).reshape(-1) for name, value in vars(neuron).items() if _is_array(value)}
        flat = type("Flat", (), {**vars(neuron), **spread})
        return lambda cell, x, j: step(flat, cell, x if isinstance(x, list) else [x], j)
    return partial(UPDATES.get(type(neuron), partial(_step_float, dt_s=dt_s)), neuron, at)


def _is_array(value):
    return isinstance(value, np.ndarray)


def _at(neuron, shape, name, j):
    return np.broadcast_to(getattr(neuron, name), shape).reshape(-1)[j].item()


def _divide(a, b):
    return abs(a) // b * (1 if a >= 0 else -1)


def _step_loihi(neuron, at, cell, x, j):
    limit, v = 2**23, cell.get("v", at("v_init", j))
    u = _divide(cell.get("u", 0) * (4096 - at("decay_u", j)), 4096) + 64 * x
    cell["u"] = u = u - 2 * limit if u > limit else u + 2 * limit if u <= -limit else u
    mantissa, exponent = at("bias_mantissa", j), neuron.bias_exponent
    bias = mantissa << exponent if exponent >= 0 else mantissa >> -exponent
    if cell.get("rest", 0):
        cell["rest"] -= 1
    else:
        v = min(max(_divide(v * (4096 - at("decay_v", j)), 4096) + u + bias, 1 - limit), limit - 1)
    spike = neuron.v_threshold is not None and v > 64 * at("v_threshold", j)
    if spike:
        v = at("v_reset", j) if neuron.reset == "value" else v - 64 * at("v_threshold", j)
        cell["rest"] = neuron.refractory_steps
    cell["v"] = v
    return v if neuron.v_threshold is None else int(spike)


def _step_speck(neuron, at, cell, x, j):
    v, threshold = cell.get("v", at("v_init", j)) + x, at("v_threshold", 0)
    count = max(v, 0) // threshold
    v = v - count * threshold if neuron.reset == "subtract" or not count else 0
    cell["v"] = max(v, at("v_min", 0))
    return count


def _step_xylo(neuron, at, cell, x, j):
    def clip(value):
        return min(max(value, -(2**15)), 2**15 - 1)

    def fall(value, dash):
        return 1 if value > 0 and value >> dash == 0 else value >> dash

    u = clip(cell.get("u", 0) + x)
    cell["u"] = u = u - fall(u, at("dash_syn", j))
    before = cell.get("v", 0)
    v = clip(before + clip(clip(u - fall(before, at("dash_mem", j))) + at("bias", j)))
    threshold = 2**15 - 1 if neuron.v_threshold is None else at("v_threshold", j)
    count = min(max(v, 0) // threshold, neuron.max_spikes)
    cell["v"] = v - count * threshold
    return cell["v"] if neuron.v_threshold is None else count


def _step_sigma_delta(neuron, at, cell, x, j):
    one = 1 << (neuron.spike_exponent + neuron.state_exponent)
    cell["v"] = x if neuron.takes == "values" else cell.get("v", 0) + x
    if neuron.v_threshold is None:
        return cell["v"]
    act = x * one if neuron.takes == "values" else cell["v"] + at("bias", j) * one
    act = max(act, 0) if neuron.activation == "relu" and neuron.takes == "changes" else act
    change = act - cell.get("act", 0) + cell.get("rest", 0)
    sends = abs(change) >= at("v_threshold", j) * one
    cell["act"], cell["rest"] = act, 0 if sends else change
    return change >> neuron.state_exponent if sends else 0


def _step_float(neuron, at, cell, x, j, *, dt_s):
    """Floating-point neurons as their docstrings state them."""
    start = "v_reset" if isinstance(neuron, IF) else "v_leak" if getattr(neuron, "v_init", None) is None else "v_init"
    before = v = cell.get("v", float(at(start, j)))
    if isinstance(neuron, IF):
        v = v + at("r", j) * x
        v = v if neuron.v_min is None else max(v, at("v_min", j))
    elif isinstance(neuron, (LI, LIF)):
        v = v + dt_s / at("tau_s", j) * ((at("r", j) * x + at("v_leak", j)) - v)
    else:
        assert isinstance(neuron, (CubaLI, CubaLIF))
        u = cell.get("u", 0.0) + at("w_in", j) * dt_s / at("tau_syn_s", j) * x
        v = v + dt_s / at("tau_mem_s", j) * ((at("v_leak", j) - v) + at("r", j) * u)
        cell["u"] = u - dt_s / at("tau_syn_s", j) * u
    if isinstance(neuron, (LI, CubaLI)):
        cell["v"] = v
        return v
    threshold = at("v_threshold", j)
    if getattr(neuron, "reset_delay", 0):
        cell["v"] = v = v - threshold * (before > threshold)
        return int(v > threshold)
    count = 0
    while v > (count + 1) * threshold and count != neuron.max_spikes:
        count += 1
    if count:
        v = {"value": at("v_reset", j), "subtract": v - count * threshold, "none": v}[neuron.reset]
    cell["v"] = v
    return count


UPDATES = {LoihiLIF: _step_loihi, SpeckIF: _step_speck, XyloLIF: _step_xylo, SigmaDelta: _step_sigma_delta}
