"""Importance of channels, by weights or by a run of the network.

l1         Σ |weight| over all weights that make the channel, batch norm's scale included
bn_scale   |weight| of its batch norms
rate       spikes that it sends                                                    needs spike counts
membrane   mean |membrane potential| of its neurons (SCA, arXiv 2406.01072)         needs `channel_statistics`
taylor     |Σ gradient · spike|, the change of the loss without the channel, to first order (arXiv 1611.06440)
                                                                                   needs `channel_statistics`
index      the first are best
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.data import Split
from spear_deploy.errors import GraphError
from spear_deploy.network import CONVS, Array, Dense, Layer
from spear_deploy.network.channel_groups import ChannelGroup, Spaces, list_prunable_groups
from spear_deploy.network.classes import score_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import join_readout
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.training.entropy import cross_entropy
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE

Criterion: TypeAlias = Literal["l1", "bn_scale", "rate", "membrane", "taylor", "index"]
CRITERIA: tuple[Criterion, ...] = ("l1", "bn_scale", "rate", "membrane", "taylor", "index")
STATISTICAL = ("membrane", "taylor")
"""Criteria that need `channel_statistics`."""


def score_channels(
    graph: SNNGraph,
    group: ChannelGroup,
    criterion: Criterion = "l1",
    counts: SpikeCounts | None = None,
    statistics: Mapping[str, Array] | None = None,
) -> Array:
    """Score each channel of a group; channels with a high score are kept.

    Args:
        graph: the network.
        group: of coupled channels.
        criterion: see the module.
        counts: of a run, for "rate".
        statistics: by spiking layer an array (channels or neurons, ...), for "membrane" and "taylor".

    Returns:
        (channels,) float64.

    Raises:
        GraphError: the criterion is unknown, or the counts or statistics that it needs are missing.
    """
    if criterion not in CRITERIA:
        raise GraphError(f"importance '{criterion}': expected one of {', '.join(CRITERIA)}")
    if criterion == "index":
        return -np.arange(group.channels, dtype=np.float64)
    added: Mapping[str, Array] | None = statistics if criterion in STATISTICAL else None
    if criterion == "rate":
        if counts is None:
            raise GraphError("importance 'rate' needs spike counts; run the network on data first")
        added = counts.sent
    if criterion in STATISTICAL and statistics is None:
        raise GraphError(f"importance '{criterion}' needs evidence of a run; measure it with channel_statistics first")
    score = np.zeros(group.channels)
    spaces = Spaces(graph)
    space = spaces.find(spaces.out[group.name].space)
    for layer in graph.layers:
        if spaces.find(spaces.out[layer.name].space) != space:
            continue
        if added is not None and layer.spikes:
            score += added[layer.name].reshape(group.channels, -1).sum(axis=1)
        elif criterion == "bn_scale" and layer.norm is not None:
            score += np.abs(layer.norm.weight)
        elif criterion == "l1" and layer.name in group.producers:
            score += _sum_weights(graph, layer)
    return score


def _sum_weights(graph: SNNGraph, layer: Layer) -> Array:
    """Return Σ |weight| of each output channel, times |scale| / σ of its batch norm: (channels,)."""
    assert isinstance(layer.synapse, (Dense, *CONVS))
    rows: Array = np.abs(layer.synapse.weight.astype(np.float64)).reshape(len(layer.synapse.weight), -1).sum(axis=1)
    targets = [graph[edge.target] for edge in graph.edges_from(layer.name)]
    norm = layer.norm or next((target.norm for target in targets if target.synapse is None), None)
    return rows if norm is None else rows * np.abs(norm.weight) / np.sqrt(norm.var + norm.eps)


def plan_by_importance(
    graph: SNNGraph,
    widths: Mapping[str, int],
    criterion: Criterion = "l1",
    counts: SpikeCounts | None = None,
    statistics: Mapping[str, Array] | None = None,
) -> PruningPlan:
    """Keep the `widths[group]` most important channels of each group (at least one, at most all)."""
    kept = {}
    for group in list_prunable_groups(graph):
        if group.name in widths:
            width = min(max(int(widths[group.name]), 1), group.channels)
            order = np.argsort(-score_channels(graph, group, criterion, counts, statistics), kind="stable")
            kept[group.name] = tuple(int(k) for k in order[:width])
    return PruningPlan(kept=kept)


def channel_statistics(graph: SNNGraph, split: Split, criterion: Criterion) -> dict[str, Array] | None:
    """Run a network on a split and return the arrays by layer that a criterion needs, None if it needs none."""
    if criterion == "membrane":
        return mean_membrane_potential(graph, split)
    return taylor_scores(graph, split) if criterion == "taylor" else None


def mean_membrane_potential(graph: SNNGraph, split: Split) -> dict[str, Array]:
    """Return the mean |v| of each neuron over steps and samples, v after reset, by spiking layer: (*shape).

    SCA's criterion (arXiv 2406.01072).
    """
    names = [layer.name for layer in graph.layers if layer.spikes]
    total = {name: np.zeros(graph.shape_of(name)) for name in names}
    steps = 0
    for x, _ in split.batches(BATCH):
        run = simulate(graph, x, kind=split.kind, record=["v"])
        steps += x.shape[0] * x.shape[1]
        for name in names:
            total[name] += np.abs(run.v[name]).sum(axis=(0, 1), dtype=np.float64)
    return {name: value / max(steps, 1) for name, value in total.items()}


def taylor_scores(graph: SNNGraph, split: Split) -> dict[str, Array]:
    """Return the first-order change of the loss without each channel, by spiking layer: (channels,).

        mean over samples of |Σ over steps and positions of gradient · spike|

    The gradient is that of cross-entropy through surrogate gradients (Molchanov et al., arXiv 1611.06440, for spikes).
    """
    import torch

    from spear_deploy.norse.network import to_norse

    network = to_norse(join_readout(graph)).eval()
    total: dict[str, Array] = {}
    for x, y in split.batches(BATCH):
        output, spikes = network(x, record=True)
        logits = LOGIT_SCALE * score_classes(output, graph)
        loss = cross_entropy(logits, torch.from_numpy(np.array(y)), reduction="sum")
        gradients = torch.autograd.grad(loss, list(spikes.values()), allow_unused=True)
        for (name, spike), gradient in zip(spikes.items(), gradients, strict=True):
            effect = torch.zeros_like(spike) if gradient is None else spike * gradient
            channels = effect.detach().sum(0).flatten(2).sum(2) if effect.ndim > 3 else effect.detach().sum(0)
            total[name] = total.get(name, 0.0) + channels.abs().double().sum(0).numpy()
    return {name: value / max(len(split), 1) for name, value in total.items()}
