"""Neurons of chip families weight by weight, in loops over single neurons and Python's unbounded integers."""

from __future__ import annotations

import numpy as np

from spear_deploy.network import CatalystLIF, Dense, Layer, OdinLIF, ReckonLIF, SpinnakerLIF, TrueNorthLIF
from spear_deploy.network.graph import INPUT, Edge, SNNGraph


def run_network(graph: SNNGraph, x):
    """Run dense layers and sums, neuron by neuron; return the spikes (T, B, neurons) and potentials of each neuron layer."""
    steps, batch = x.shape[:2]
    found = {name: [] for name in ("spikes", "v")}
    names = [layer.name for layer in graph.layers if layer.neuron is not None]
    for sample in range(batch):
        state = {name: [{} for _ in range(graph.shape_of(name)[0])] for name in names}
        history: list[dict] = []
        for t in range(steps):
            sent = {INPUT: [int(n) for n in x[t, sample]]}
            history.append(sent)
            arriving: dict[str, list[list[int]]] = {}
            for layer in graph.layers:
                arriving[layer.name] = _list_weights(graph, layer, history, arriving)
                if layer.neuron is not None:
                    pairs = zip(state[layer.name], arriving[layer.name], range(graph.shape_of(layer.name)[0]), strict=True)
                    sent[layer.name] = [STEPS[type(layer.neuron)](layer.neuron, cell, weights, j) for cell, weights, j in pairs]
            found["spikes"].append({name: sent[name] for name in names})
            found["v"].append({name: [cell["v"] for cell in state[name]] for name in names})
    return [
        {name: np.array([row[name] for row in rows]).reshape(batch, steps, -1).swapaxes(0, 1) for name in names}
        for rows in found.values()
    ]


def _list_weights(graph, layer, history, arriving):
    """Return the weights that reach each neuron in a step, one for each spike, sources in order."""
    size = graph.shape_of(layer.name)[0]
    lists: list[list[int]] = [[] for _ in range(size)]
    counts = [0] * graph.input_shape_of(layer.name)[0]
    for edge in graph.edges_into(layer.name):
        if edge.source in arriving and graph[edge.source].neuron is None:
            for j, weights in enumerate(arriving[edge.source]):
                lists[j] += weights
        elif len(history) > edge.delay:
            counts = [n + m for n, m in zip(counts, history[-1 - edge.delay].get(edge.source, counts), strict=True)]
    if isinstance(layer.synapse, Dense):
        for i, times in enumerate(counts):
            for j in range(size):
                lists[j] += [int(layer.synapse.weight[j, i])] * times
    return lists


def _at(array, j):
    return int(np.broadcast_to(array, (j + 1,))[j] if np.size(array) == 1 else array.reshape(-1)[j])


def step_truenorth(neuron, cell, weights, j):
    """Cassidy et al. 2013, deterministic, in the paper's letters."""
    v = cell.get("v", _at(neuron.v_init, j))
    alpha, beta, r = _at(neuron.v_threshold, j), -_at(neuron.v_min, j), _at(neuron.v_reset, j)
    gamma, kappa = ("value", "subtract", "none").index(neuron.reset), 1 - neuron.bounces
    for weight in weights:
        v += weight
    v += _at(neuron.leak, j)
    v = max(-(2**19), min(2**19 - 1, v))
    spike = v >= alpha
    if spike:
        v = [r, v - alpha, v][gamma]
    elif v < -beta:
        v = -beta if kappa else [-r, v + beta, v][gamma]
    cell["v"] = v
    return int(spike)


def step_spinnaker(neuron, cell, weights, j):
    """sPyNNaker: synapses.c adds up, synapse_types_*.h shape, neuron_model_lif_impl.h updates."""
    v = cell.get("v", _at(neuron.v_init, j))
    buffers = [0, 0]
    for weight in weights:
        sign = int(weight < 0)
        buffers[sign] = min(buffers[sign] + abs(weight), 0xFFFF)
    currents = cell.setdefault("u", [0, 0])
    for sign, shift in enumerate((neuron.exc_shift, neuron.inh_shift)):
        arriving = buffers[sign] << shift
        currents[sign] += arriving if neuron.init_u is None else (arriving * _at(neuron.init_u, j)) >> 32
    alpha = currents[0] - currents[1] + _at(neuron.v_rest, j)
    product = _at(neuron.keep_v, j) * (alpha - v)
    rounded = (product >> 15) + ((product >> 14) & 1)
    v = alpha - rounded
    spike = neuron.v_threshold is not None and v >= _at(neuron.v_threshold, j)
    cell["v"] = _at(neuron.v_reset, j) if spike else v
    cell["u"] = [0, 0] if neuron.keep_u is None else [(u * _at(neuron.keep_u, j)) >> 32 for u in currents]
    return cell["v"] if neuron.v_threshold is None else int(spike)


def step_reckon(neuron, cell, weights, j):
    """ReckOn's srnn.v: neur_u_next, neur_u_spk, neur_u_step and oneur_u."""
    v = cell.get("v", 0) + sum(weights)
    v = max(-(2**15), min(2**15 - 1, v))
    if neuron.v_threshold is None:
        cell["v"] = (v * _at(neuron.keep, j)) // 2**7
        return cell["v"]
    spike = v >= _at(neuron.v_threshold, j)
    fallen = (v * _at(neuron.keep, j)) // 2**15
    cell["v"] = fallen if not spike else 0 if neuron.reset == "value" else fallen - _at(neuron.v_threshold, j)
    return int(spike)


def step_odin(neuron, cell, weights, j):
    """ODIN's lif_neuron_state.v, event after event."""
    v, spikes = cell.get("v", 0), 0
    for weight in weights:
        v = min(v + weight, 255) if weight >= 0 else max(v + weight, 0)
        if v >= _at(neuron.v_threshold, j):
            v, spikes = 0, spikes + 1
    cell["v"] = max(v - _at(neuron.leak, j), 0)
    return spikes


def step_catalyst(neuron, cell, weights, j):
    """Catalyst N1's scalable_core_v2.v, S_DELIVER_ACC and S_UPDATE_CALC; sums that stay in 24 bits."""
    resting, leak, total = _at(neuron.resting, j), _at(neuron.leak, j), 0
    stored = cell.get("stored", resting)
    for weight in weights:
        total += weight
    if stored + total - leak >= _at(neuron.v_threshold, j) + resting:
        spike, stored = 1, resting
    elif stored + total > leak:
        spike, stored = 0, stored + total - leak
    else:
        spike, stored = 0, resting
    cell["stored"], cell["v"] = stored, stored - resting
    return spike


STEPS = {
    TrueNorthLIF: step_truenorth, SpinnakerLIF: step_spinnaker, ReckonLIF: step_reckon, OdinLIF: step_odin,
    CatalystLIF: step_catalyst,
}  # fmt: skip


def random_neuron(kind, rng, size, *, readout=False):
    """Return a random integer neuron of a kind for `size` neurons whose inputs are weights of `random_network`."""
    each = (size,) if rng.random() < 0.5 else (1,)
    if kind is TrueNorthLIF:
        return TrueNorthLIF(
            v_threshold=rng.integers(50, 400, each),
            leak=rng.integers(-20, 21, each),
            v_min=-rng.integers(0, 300, each),
            v_reset=rng.integers(-40, 40, each),
            v_init=rng.integers(-40, 40, each),
            reset=str(rng.choice(["value", "subtract", "none"])),
            bounces=int(rng.integers(2)),
        )
    if kind is ReckonLIF:
        if readout:
            return ReckonLIF(keep=rng.integers(100, 129), v_threshold=None)
        reset = str(rng.choice(["value", "subtract"]))
        return ReckonLIF(keep=rng.integers(28672, 32769, each), v_threshold=rng.integers(30, 200, each), reset=reset)
    if kind is OdinLIF:
        return OdinLIF(v_threshold=rng.integers(3, 25, each), leak=rng.integers(0, 4, each))
    if kind is CatalystLIF:
        threshold = rng.integers(2000, 16000, each)
        resting = rng.integers(0, 16000, each) * int(rng.integers(2))
        return CatalystLIF(v_threshold=threshold, leak=rng.integers(-3000, 3000, each), resting=resting)
    current = rng.random() < 0.6
    factor = (lambda: rng.integers(2**30, 2**32, each)) if current else (lambda: None)
    return SpinnakerLIF(
        keep_v=rng.integers(20000, 32769, each),
        v_threshold=None if readout else rng.integers(1000, 90000, each),
        keep_u=factor(),
        init_u=factor(),
        v_rest=rng.integers(-20000, 40000, each),
        v_reset=rng.integers(-50000, 1000, each),
        v_init=rng.integers(-50000, 50000, each),
        exc_shift=int(rng.integers(0, 7)),
        inh_shift=int(rng.integers(0, 7)),
    )


def random_network(kind, seed):
    """Return two dense layers and an output; with a skip and feedback where currents may add up."""
    rng = np.random.default_rng(seed)
    low, high = kind.FORMAT.weights
    large = min(high, 30_000)
    sizes = [int(n) for n in rng.integers(2, 9, 4)]

    def weights(targets, sources):
        return rng.integers(max(low, -large), large + 1, (targets, sources)) * (rng.random((targets, sources)) < 0.7)

    layers = [
        Layer(name="a", synapse=Dense(weight=weights(sizes[1], sizes[0])), neuron=random_neuron(kind, rng, sizes[1])),
        Layer(name="into_b", synapse=Dense(weight=weights(sizes[2], sizes[1]))),
        Layer(name="skip", synapse=Dense(weight=weights(sizes[2], sizes[0]))),
        Layer(name="back", synapse=Dense(weight=weights(sizes[2], sizes[2]))),
        Layer(name="b", neuron=random_neuron(kind, rng, sizes[2])),
        Layer(
            name="out",
            synapse=Dense(weight=weights(sizes[3], sizes[2])),
            neuron=random_neuron(kind, rng, sizes[3], readout=rng.random() < 0.5),
        ),
    ]
    pairs = [("input", "a"), ("a", "into_b"), ("into_b", "b"), ("input", "skip"), ("skip", "b"), ("back", "b"), ("b", "out")]
    edges = [Edge(source=s, target=t) for s, t in pairs]
    edges.append(Edge(source="b", target="back", delay=int(rng.integers(1, 3))))
    if kind is OdinLIF:
        layers = [layers[0], Layer(name="b", synapse=layers[1].synapse, neuron=layers[4].neuron), layers[5]]
        edges = [Edge(source=s, target=t) for s, t in (("input", "a"), ("a", "b"), ("b", "out"))]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(sizes[0],), output="out")
