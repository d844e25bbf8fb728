"""Removal of weights by magnitude per spike that arrives.

A weight w of an input whose spikes arrive n times costs n SynOps and adds w to the drive each time, so the weights of least

    |w| / √n

are removed first. A removed weight is zero, and a zero weight is no synapse (see `simulator.synops`). Layers without SynOps, such
as the first layer of an analogue input, keep all weights.

Weights are removed in rounds, with learning between them, and each round chooses anew among all weights, the removed ones at
their last values: a weight comes back where present ones have become smaller than it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import BudgetError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Array, Dense, Layer
from spear_deploy.network.graph import SNNGraph, carries_spikes
from spear_deploy.pruning.levers import rewards_zeros
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_arrivals, count_synops

MAX_SHARE = 0.995
"""Largest share of the weights of a layer that is removed at once."""
BISECTIONS = 20


def count_zero_weights(graph: SNNGraph) -> tuple[int, int]:
    """Return (weights that are zero, all weights) of dense and convolutional synapses."""
    weights = [layer.synapse.weight for layer in graph.layers if isinstance(layer.synapse, (Dense, *CONVS))]
    return sum(int(np.sum(weight == 0)) for weight in weights), sum(weight.size for weight in weights)


def zero_weight_share(graph: SNNGraph, counts: SpikeCounts, share: float) -> SNNGraph:
    """Return the network in which a share of each layer's non-zero weights is zero: those of least |w| / √(spikes that arrive).

    Args:
        graph: floating point.
        counts: of its own spikes.
        share: 0..1.
    """
    synops = count_synops(graph, counts).per_layer

    def zero_layer(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, (Dense, *CONVS)) or not synops.get(layer.name):
            return layer
        size = np.abs(synapse.weight) / np.sqrt(count_arriving_spikes(graph, layer, counts) + 1e-9)
        present = np.flatnonzero(synapse.weight)
        removed = present[np.argsort(size.ravel()[present], kind="stable")[: int(share * len(present))]]
        if not len(removed):
            return layer
        weight = synapse.weight.copy()
        weight.ravel()[removed] = 0
        return replace(layer, synapse=replace(synapse, weight=weight))

    return graph.with_layers(zero_layer)


def note_unused_weights(graph: SNNGraph, counts: SpikeCounts, profile: HardwareProfile) -> list[str]:
    """Return what removing half of the weights would save, where a chip is not known to reward it; else nothing.

    Args:
        graph: floating point.
        counts: of its own spikes.
        profile: the chip.
    """
    if rewards_zeros(profile):
        return []
    before, after = (count_synops(net, counts).total for net in (graph, zero_weight_share(graph, counts, 0.5)))
    return [
        f"weights were not removed, since chip '{profile.name}' is not known to reward zeros; half of them would be "
        f"{1 - after / max(before, 1e-12):.0%} of the counted SynOps (`--levers channels,weights`)"
    ]


def thin_to_synops(graph: SNNGraph, counts: SpikeCounts, synops: float) -> SNNGraph:
    """Return the network with the fewest zero weights that has at most so many SynOps at its present spikes.

    The same share of each layer's non-zero weights becomes zero. The thinned network spikes differently, so it is measured again.

    Args:
        graph: floating point.
        counts: of its own spikes.
        synops: per inference.

    Raises:
        BudgetError: even `MAX_SHARE` of the weights leaves more SynOps; carries what it leaves.
    """
    if count_synops(graph, counts).total <= synops:
        return graph
    best = zero_weight_share(graph, counts, MAX_SHARE)
    least = count_synops(best, counts).total
    if least > synops:
        raise BudgetError(
            f"SynOps budget {synops:.0f} is below {least:.0f}, what {1 - MAX_SHARE:.1%} of the weights cost; "
            f"raise the budget to at least {np.ceil(least):.0f}",
            min_value=least,
        )
    low, high = 0.0, MAX_SHARE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        thinner = zero_weight_share(graph, counts, middle)
        if count_synops(thinner, counts).total <= synops:
            best, high = thinner, middle
        else:
            low = middle
    return best


def fill_zero_weights(graph: SNNGraph, unthinned: SNNGraph) -> SNNGraph:
    """Return the network whose weights of zero have the values of another network of the same layers."""

    def fill_layer(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, (Dense, *CONVS)):
            return layer
        stored: Any = unthinned[layer.name].synapse
        return replace(layer, synapse=replace(synapse, weight=np.where(synapse.weight == 0, stored.weight, synapse.weight)))

    return graph.with_layers(fill_layer)


def count_arriving_spikes(graph: SNNGraph, layer: Layer, counts: SpikeCounts) -> Array:
    """Return the spikes that arrive at each weight's input, summed over positions of a kernel, with the axes of the weight.

    Dense: (1, inputs). Convolution: (outputs, inputs / groups, 1, ...), or (1, inputs, 1, ...) without groups.
    """
    synapse: Any = layer.synapse
    edges = [edge for edge in graph.edges_into(layer.name) if carries_spikes(graph, edge.source)]
    arriving = sum((count_arrivals(graph, counts, edge) for edge in edges), np.zeros(graph.input_shape_of(layer.name)))
    if isinstance(synapse, Dense):
        return arriving.reshape(1, -1)
    channels = arriving.reshape(len(arriving), -1).sum(axis=1)
    by_group = channels.reshape(synapse.groups, -1)
    rows = by_group if synapse.groups == 1 else np.repeat(by_group, len(synapse.weight) // synapse.groups, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (synapse.weight.ndim - 2))
