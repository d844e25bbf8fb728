"""Which channels are worth keeping?

    l1         Σ |weight| over everything that makes the channel, batch norm's scale included
    bn_scale   |weight| of its batch norms
    rate       spikes that it sends                                                    needs spike counts
    membrane   mean |membrane potential| of its neurons (SCA, arXiv 2406.01072)         needs potentials
    taylor     |Σ gradient · spike|, what the loss would change by without it, to first order (arXiv 1611.06440)
                                                                                       needs that product
    index      the first are best

What needs a run of the network is measured elsewhere (`search.evidence`) and handed in as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.data import Split
from spear_deploy.errors import GraphError
from spear_deploy.network import CONVS, Array, Dense, Layer
from spear_deploy.network.channel_groups import Group, Spaces, coupled_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE

Criterion: TypeAlias = Literal["l1", "bn_scale", "rate", "membrane", "taylor", "index"]
CRITERIA: tuple[Criterion, ...] = ("l1", "bn_scale", "rate", "membrane", "taylor", "index")
MEASURED = ("membrane", "taylor")
"""Criteria that need evidence."""


def importance(
    graph: SNNGraph,
    group: Group,
    criterion: Criterion = "l1",
    counts: SpikeCounts | None = None,
    evidence: Mapping[str, Array] | None = None,
) -> Array:
    """Score each channel of a group; more is more worth keeping.

    Args:
        graph, group: whose channels.
        criterion: see the module.
        counts: of a run, for "rate".
        evidence: by spiking layer an array whose first axis are its channels (or neurons), for "membrane" and "taylor".

    Returns:
        (channels,) float64.

    Raises:
        GraphError: the criterion is unknown, or what it needs was not given.
    """
    if criterion not in CRITERIA:
        raise GraphError(f"importance '{criterion}': expected one of {', '.join(CRITERIA)}")
    if criterion == "index":
        return -np.arange(group.channels, dtype=np.float64)
    measured = _measured(criterion, counts, evidence)
    score = np.zeros(group.channels)
    spaces = Spaces(graph)
    space = spaces.find(spaces.out[group.name].space)
    for layer in graph.layers:
        if spaces.find(spaces.out[layer.name].space) != space:
            continue
        if measured is not None and layer.spikes:
            score += measured[layer.name].reshape(group.channels, -1).sum(axis=1)
        elif criterion == "bn_scale" and layer.norm is not None:
            score += np.abs(layer.norm.weight)
        elif criterion == "l1" and layer.name in group.producers:
            score += _l1(graph, layer)
    return score


def _measured(
    criterion: Criterion, counts: SpikeCounts | None, evidence: Mapping[str, Array] | None
) -> Mapping[str, Array] | None:
    """Return the arrays that a criterion adds up, by layer, or None where weights tell it."""
    if criterion == "rate":
        if counts is None:
            raise GraphError("importance 'rate' needs spike counts; run the network on data first")
        return counts.sent
    if criterion in MEASURED:
        if evidence is None:
            raise GraphError(f"importance '{criterion}' needs evidence of a run; measure it with search.evidence first")
        return evidence
    return None


def _l1(graph: SNNGraph, layer: Layer) -> Array:
    assert isinstance(layer.synapse, (Dense, *CONVS))
    rows: Array = np.abs(layer.synapse.weight.astype(np.float64)).reshape(len(layer.synapse.weight), -1).sum(axis=1)
    norm = layer.norm or next((graph[e.target].norm for e in graph.outgoing(layer.name) if graph[e.target].synapse is None), None)
    return rows if norm is None else rows * np.abs(norm.weight) / np.sqrt(norm.var + norm.eps)


def plan_by_importance(
    graph: SNNGraph,
    widths: Mapping[str, int],
    criterion: Criterion = "l1",
    counts: SpikeCounts | None = None,
    evidence: Mapping[str, Array] | None = None,
) -> PruningPlan:
    """Keep the `widths[group]` most important channels of each group (at least one, at most all)."""
    kept = {}
    for group in coupled_groups(graph):
        if group.name in widths:
            width = min(max(int(widths[group.name]), 1), group.channels)
            order = np.argsort(-importance(graph, group, criterion, counts, evidence), kind="stable")
            kept[group.name] = tuple(int(k) for k in order[:width])
    return PruningPlan(kept=kept)


# FOLDED from spear_deploy/pruning/importance.py
# What does a run say about the channels of a network? Arrays for `pruning.importance`, by layer.


def measured(graph: SNNGraph, split: Split, criterion: Criterion) -> dict[str, Array] | None:
    """Return the evidence that a criterion needs, None if it needs none."""
    if criterion == "membrane":
        return membrane_potential(graph, split)
    return taylor(graph, split) if criterion == "taylor" else None


def membrane_potential(graph: SNNGraph, split: Split) -> dict[str, Array]:
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


def taylor(graph: SNNGraph, split: Split) -> dict[str, Array]:
    """Return what the loss would change by without each channel, to first order, by spiking layer: (channels,).

        mean over samples of |Σ over steps and positions of gradient · spike|

    The gradient is that of cross-entropy through surrogate gradients (Molchanov et al., arXiv 1611.06440, for spikes).
    """
    import torch

    from spear_deploy.norse.network import to_norse

    network = to_norse(graph).eval()
    total: dict[str, Array] = {}
    for x, y in split.batches(BATCH):
        output, spikes = network(x, record=True)
        logits = LOGIT_SCALE * output.flatten(2).mean(0)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.array(y)), reduction="sum")
        gradients = torch.autograd.grad(loss, list(spikes.values()), allow_unused=True)
        for (name, spike), gradient in zip(spikes.items(), gradients, strict=True):
            effect = torch.zeros_like(spike) if gradient is None else spike * gradient
            by_channel = effect.detach().sum(0).flatten(2).sum(2) if effect.ndim > 3 else effect.detach().sum(0)
            total[name] = total.get(name, 0.0) + by_channel.abs().double().sum(0).numpy()
    return {name: value / max(len(split), 1) for name, value in total.items()}
