"""Last exact adjustments of a network that is close to its budget.

Three adjustments, from fine to coarse, each by measurements:

    thresholds    all spiking layers' thresholds by one factor, then those of one layer after the other: more or fewer spikes,
                  both ways
    weights       the smallest weights per SynOp that they cause become zero: a zero weight is no synapse; removed ones come back
    channels      one by one, least importance per SynOp first; batch norm is re-estimated, and learning should follow
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.network import Layer, sends_several
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.candidates import NORM_SAMPLES
from spear_deploy.pruning.importance import score_channels
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.pruning.tune.thin_weights import fill_zero_weights, order_weights, zero_weight_share
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import synops_per_spike
from spear_deploy.training.evaluation import evaluate

RelativeUse: TypeAlias = Callable[[SNNGraph], float]
"""Use of the budget, value / aim: 1 is exactly met."""

SPAN = 0.2
"""Largest relative change of the thresholds, up or down."""
WEIGHTS_SPAN = 0.12
"""Largest share of the weights of a layer that becomes zero."""
RESTORED_SPAN = 0.25
"""Largest share of the present weights that come back."""
CLOSE = 0.002
"""Relative distance below the aim that is exact enough."""
TRIES = 14


def multiply_thresholds(graph: SNNGraph, factor: float, names: Collection[str] | None = None) -> SNNGraph:
    """Return the network with every threshold that costs SynOps moved away from (or to) its resting potential by a factor.

    Args:
        graph: floating point.
        factor: 1 changes nothing, less makes more spikes.
        names: of the layers that are changed; all unless given.
    """
    cost = synops_per_spike(graph)

    def move_threshold(layer: Layer) -> Layer:
        if not layer.spikes or not cost[layer.name].any() or (names is not None and layer.name not in names):
            return layer
        neuron: Any = layer.neuron
        rest = 0.0 if sends_several(neuron) else getattr(neuron, "v_leak", 0.0)  # thresholds of several spikes lie above 0
        threshold = neuron.v_threshold + (factor - 1) * np.abs(neuron.v_threshold - rest)
        return replace(layer, neuron=replace(neuron, v_threshold=threshold.astype(neuron.v_threshold.dtype)))

    return graph.with_layers(move_threshold)


def scale_thresholds(graph: SNNGraph, relative_use: RelativeUse) -> SNNGraph:
    """Return the network whose thresholds, moved by one factor, bring its use closest to 1 from below.

    A neuron that spikes alike in all samples makes the use jump, so that one factor may end far below 1. Then the thresholds of
    one layer after the other are lowered too. If no factor within the span brings the use below 1, the one with the lowest use.
    """
    graph, use = _scale_layers(graph, relative_use, None)
    for layer in graph.layers:
        if use > 1 or use >= 1 - CLOSE:
            break
        if layer.spikes:
            graph, use = _scale_layers(graph, relative_use, (layer.name,), use)
    return graph


def _scale_layers(
    graph: SNNGraph, relative_use: RelativeUse, names: Collection[str] | None, use: float | None = None
) -> tuple[SNNGraph, float]:
    """Return the network with the thresholds of some layers, or all, moved by the best factor, and its use."""
    use = relative_use(graph) if use is None else use
    if 1 - CLOSE <= use <= 1:
        return graph, use
    low, high = (1.0, 1 + SPAN) if use > 1 else (1 - SPAN, 1.0)
    uses = {1.0: use}
    for _ in range(TRIES):
        factor = _interpolate_factor(uses, low, high)
        use = relative_use(multiply_thresholds(graph, factor, names))
        uses[factor] = use
        if 1 - CLOSE <= use <= 1:
            break
        low, high = (factor, high) if use > 1 else (low, factor)
        if high - low < 1e-4:
            break
    below = {factor: use for factor, use in uses.items() if use <= 1}
    best = max(below, key=lambda factor: below[factor]) if below else min(uses, key=lambda factor: uses[factor])
    return (graph if best == 1.0 else multiply_thresholds(graph, best, names)), uses[best]


def _interpolate_factor(uses: dict[float, float], low: float, high: float) -> float:
    """Return the factor at which a line through both bounds is just below 1, at least a tenth within the bounds.

    A bound that was not measured yet is returned itself, the outer one first.
    """
    if low in uses and high in uses and uses[low] != uses[high]:
        factor = low + (1 - CLOSE / 2 - uses[low]) * (high - low) / (uses[high] - uses[low])
        edge = 0.1 * (high - low)
        return float(min(max(factor, low + edge), high - edge))
    if high not in uses and low in uses and low == 1.0:
        return high
    return low if low not in uses else (low + high) / 2


def zero_weights(graph: SNNGraph, counts: SpikeCounts, relative_use: RelativeUse) -> SNNGraph:
    """Return the network whose smallest weights per SynOp are zero, as many as bring its use below 1.

    Args:
        graph: floating point.
        counts: of its own spikes; they give the SynOps of a weight.
        relative_use: of the budget.
    """
    if relative_use(graph) <= 1:
        return graph
    low, high = 0.0, WEIGHTS_SPAN
    best = zero_weight_share(graph, counts, high)
    if relative_use(best) > 1:
        return best
    for _ in range(TRIES):
        middle = (low + high) / 2
        other = zero_weight_share(graph, counts, middle)
        use = relative_use(other)
        low, high = (middle, high) if use > 1 else (low, middle)
        if use <= 1:
            best = other
            if use >= 1 - CLOSE:
                break
    return best


def restore_weights(graph: SNNGraph, unthinned: SNNGraph, counts: SpikeCounts, relative_use: RelativeUse) -> SNNGraph:
    """Return the network with as many of its removed weights back as bring its use closest to 1 from below.

    Args:
        graph: floating point.
        unthinned: the same network with its removed weights at their last values.
        counts: of the spikes of `graph`; they give the SynOps of a weight.
        relative_use: of the budget.
    """
    use = relative_use(graph)
    if use >= 1 - CLOSE:
        return graph
    whole = fill_zero_weights(graph, unthinned)
    removed = order_weights(whole, counts).only_zeros_of(graph)
    best, low, high = graph, 0, int(RESTORED_SPAN * removed.present)
    while high - low > 1:
        middle = (low + high) // 2
        other = removed.zero_first(whole, len(removed.order) - middle)
        measured = relative_use(other)
        low, high = (low, middle) if measured > 1 else (middle, high)
        if use < measured <= 1:
            best, use = other, measured
        if 1 - CLOSE <= measured <= 1:
            break
    return best


def drop_channels(graph: SNNGraph, dataset: Dataset, excess: float) -> SNNGraph:
    """Remove channels one by one, lowest importance per SynOp first, until the relative `excess` over an aim is gone.

    Of 1 + `excess` times the aim, 1 at most is left. Batch norm is re-estimated. Where each group is down to one channel, the
    network is returned as it is.
    """
    start = synops = evaluate(graph, dataset.val.head(NORM_SAMPLES)).synops.total
    while synops > start / (1 + excess):
        options = []
        for group in list_prunable_groups(graph):
            if group.channels > 1:
                scores = score_channels(graph, group)
                order = np.argsort(scores, kind="stable")
                plan = PruningPlan(kept={group.name: tuple(int(k) for k in order[1:])})
                smaller = _reestimate_norms(prune(graph, plan), dataset)
                left = evaluate(smaller, dataset.val.head(NORM_SAMPLES)).synops.total
                options.append((scores[order[0]] / scores.sum() / max(synops - left, 1e-12), left, smaller))
        if not options:
            return graph
        _, synops, graph = min(options, key=lambda option: option[0])
    return graph


def _reestimate_norms(graph: SNNGraph, dataset: Dataset) -> SNNGraph:
    from spear_deploy.norse.network import reestimate_batchnorm, to_graph, to_norse

    network = to_norse(graph).eval()
    reestimate_batchnorm(network, (x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)))
    return to_graph(network)
