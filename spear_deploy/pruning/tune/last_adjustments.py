"""How does a network that is close to its budget meet it exactly?

Three knobs, from fine to coarse, each turned on what is measured:

    thresholds    all spiking layers' thresholds by one factor: more or fewer spikes, both ways
    weights       the smallest weights per SynOp that they cause become zero: a zero weight is no synapse
    channels      one by one, least importance per SynOp first; batch norm is re-estimated, and learning should follow
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.network import WEIGHTED, Array, Layer
from spear_deploy.network.channel_groups import coupled_groups
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pruning.candidates import NORM_SAMPLES
from spear_deploy.pruning.importance import importance
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.simulator.synops import cost_per_spike
from spear_deploy.training.evaluation import evaluate

Value = Callable[[SNNGraph], float]
"""What is used relative to what may be used: 1 is exactly met."""

SPAN = 0.2
"""Thresholds move by at most this factor, up or down."""
WEIGHTS_SPAN = 0.12
"""At most this share of the weights of a layer becomes zero."""
CLOSE = 0.003
"""Within 0.3 % below its aim a network is exact enough."""
TRIES = 14


def with_thresholds(graph: SNNGraph, factor: float) -> SNNGraph:
    """Return the network with every threshold that costs SynOps moved away from (or to) its resting potential by a factor."""
    cost = cost_per_spike(graph)

    def moved(layer: Layer) -> Layer:
        if not layer.spikes or not cost[layer.name].any():
            return layer
        neuron: Any = layer.neuron
        rest = getattr(neuron, "v_leak", 0.0)
        threshold = neuron.v_threshold + (factor - 1) * np.abs(neuron.v_threshold - rest)
        return replace(layer, neuron=replace(neuron, v_threshold=threshold.astype(neuron.v_threshold.dtype)))

    return graph.with_layers(moved)


def by_thresholds(graph: SNNGraph, value: Value) -> SNNGraph:
    """Return the network whose thresholds, moved by one factor, bring it closest to 1 from below.

    If none within the span brings it below 1, the one with the lowest value.
    """
    found: list[tuple[float, float]] = [(value(graph), 1.0)]
    if 1 - CLOSE <= found[0][0] <= 1:
        return graph
    low, high = (1.0, 1 + SPAN) if found[0][0] > 1 else (1 - SPAN, 1.0)
    ends = {1.0: found[0][0]}
    for _ in range(TRIES):
        factor = _guess(ends, low, high)
        now = value(with_thresholds(graph, factor))
        ends[factor] = now
        found.append((now, factor))
        if 1 - CLOSE <= now <= 1:
            break
        low, high = (factor, high) if now > 1 else (low, factor)
        if high - low < 1e-4:
            break
    below = [one for one in found if one[0] <= 1]
    best = max(below, key=lambda one: one[0]) if below else min(found, key=lambda one: one[0])
    return graph if best[1] == 1.0 else with_thresholds(graph, best[1])


def _guess(ends: dict[float, float], low: float, high: float) -> float:
    """Return the factor at which a line through the nearest two values is just below 1, at least a tenth within the bounds."""
    if low in ends and high in ends and ends[low] != ends[high]:
        factor = low + (1 - CLOSE / 2 - ends[low]) * (high - low) / (ends[high] - ends[low])
        edge = 0.1 * (high - low)
        return float(min(max(factor, low + edge), high - edge))
    return high if high not in ends and low in ends and low == 1.0 else low if low not in ends else (low + high) / 2


def by_weights(graph: SNNGraph, counts: dict[str, Array], value: Value) -> SNNGraph:
    """Return the network whose smallest weights per SynOp are zero, as many as it takes to come below 1.

    Args:
        graph: floating point.
        counts: spikes by layer and `INPUT`, (*shape), which say what a weight costs.
        value: what is used relative to what may be used.
    """
    if value(graph) <= 1:
        return graph
    low, high = 0.0, WEIGHTS_SPAN
    best = without_weights(graph, counts, high)
    if value(best) > 1:
        return best
    for _ in range(TRIES):
        middle = (low + high) / 2
        other = without_weights(graph, counts, middle)
        now = value(other)
        low, high = (middle, high) if now > 1 else (low, middle)
        if now <= 1:
            best = other
            if now >= 1 - CLOSE:
                break
    return best


def without_weights(graph: SNNGraph, counts: dict[str, Array], share: float) -> SNNGraph:
    """Return the network in which a share of each layer's weights is zero, those that matter least for what they cost."""

    def thinned(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, WEIGHTED) or synapse.weight.ndim < 2:
            return layer
        arriving = _arriving(graph, layer, counts)
        size = np.abs(synapse.weight) / np.sqrt(arriving + 1e-9).reshape(1, -1, *(1,) * (synapse.weight.ndim - 2))
        least = np.sort(size[synapse.weight != 0].ravel())[: int(share * np.count_nonzero(synapse.weight))]
        if not len(least):
            return layer
        return replace(layer, synapse=replace(synapse, weight=np.where(size <= least[-1], 0, synapse.weight)))

    return graph.with_layers(thinned)


def _arriving(graph: SNNGraph, layer: Layer, counts: dict[str, Array]) -> Array:
    """Return the spikes that arrive by input channel of a layer's weights, all alike where they cannot be told apart."""
    synapse: Any = layer.synapse
    inputs = synapse.weight.shape[1]
    sources = [edge.source for edge in graph.incoming(layer.name)]
    if len(sources) == 1 and (sources[0] == INPUT or sources[0] in counts):
        sent = counts[sources[0]].astype(np.float64)
        if sent.shape[0] % inputs == 0 and sent.size >= inputs:
            return np.asarray(sent.reshape(inputs, -1).sum(axis=1) if sent.shape[0] == inputs else np.ones(inputs))
        if sent.size == inputs:
            return np.asarray(sent.ravel())
    return np.ones(inputs)


def by_channels(graph: SNNGraph, dataset: Dataset, excess: float) -> SNNGraph:
    """Remove channels one by one, least importance per SynOp first, until at least the relative `excess` is gone.

    Batch norm is re-estimated. Where each group is down to one channel, the network is returned as it is.
    """
    start = now = evaluate(graph, dataset.val.head(NORM_SAMPLES)).synops.total
    while now > start * (1 - excess):
        options = []
        for group in coupled_groups(graph):
            if group.channels > 1:
                worth = importance(graph, group)
                order = np.argsort(worth, kind="stable")
                smaller = _renormalised(prune(graph, PruningPlan(kept={group.name: tuple(int(k) for k in order[1:])})), dataset)
                cost = evaluate(smaller, dataset.val.head(NORM_SAMPLES)).synops.total
                options.append((worth[order[0]] / worth.sum() / max(now - cost, 1e-12), cost, smaller))
        if not options:
            return graph
        _, now, graph = min(options, key=lambda option: option[0])
    return graph


def _renormalised(graph: SNNGraph, dataset: Dataset) -> SNNGraph:
    from spear_deploy.norse.network import reestimate_batchnorm, to_graph, to_norse

    network = to_norse(graph).eval()
    reestimate_batchnorm(network, (x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)))
    return to_graph(network)
