"""Weights of zero that cost a chip operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED, Dense, Layer
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.compose_projections import share_no_synapse
from spear_deploy.quantize.shared_cells import ONE_CELL


def fill_zero_weights(graph: SNNGraph, profile: HardwareProfile) -> SNNGraph:
    """Return the network whose SynOps are those that the chip works on: where it skips no zeros, layers with zeros hold ones.

    Layers of dense weights that lie side by side between the same layers and share no synapse are one list of synapses with
    delays of their own, which is worked on when its spike arrives: the one that spikes reach first holds ones, the others zeros.
    So are all of them on a chip with one weight from a neuron to another, where ways that differ in kind stay as they are
    (`docs/limits.md`). Without a published fact zeros cost nothing.
    """
    if not profile.weights.zero_synops.value:
        return graph
    places: dict[object, list[Layer]] = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED):
            places.setdefault(_place(graph, layer), []).append(layer)
    one_cell, filled = profile.meta.family in ONE_CELL, dict[str, Layer]()
    for beside in places.values():
        if len(beside) > 1 and _are_one_list(beside, one_cell=one_cell):
            first = min(beside, key=lambda layer: min(edge.delay for edge in graph.edges_into(layer.name)))
            filled |= {layer.name: _fill(layer, int(layer is first)) for layer in beside}
        elif len(beside) == 1 or not one_cell:
            filled |= {layer.name: _fill(layer, 1) for layer in beside if not _has_all(layer)}
    return graph.with_layers(filled) if filled else graph


def _place(graph: SNNGraph, layer: Layer) -> tuple[frozenset[str], frozenset[str]]:
    """Return the layers before and behind a layer."""
    before = frozenset(edge.source for edge in graph.edges_into(layer.name))
    behind = frozenset(edge.target for edge in graph.edges_from(layer.name))
    return before, behind if layer.neuron is None else frozenset((layer.name,))


def _are_one_list(layers: Sequence[Layer], *, one_cell: bool) -> bool:
    """Return whether a chip holds one synapse for each pair of neurons, whichever of the layers connect them."""
    synapses: list[Any] = [layer.synapse for layer in layers]
    are_dense = all(isinstance(synapse, Dense) for synapse in synapses)
    return are_dense and (one_cell or share_no_synapse([synapse.weight for synapse in synapses]))


def _has_all(layer: Layer) -> bool:
    synapse: Any = layer.synapse
    return bool(np.all(synapse.weight))


def _fill(layer: Layer, number: int) -> Layer:
    synapse: Any = layer.synapse
    weight = np.broadcast_to(np.int8(number), synapse.weight.shape)  # one byte for all, since only their number counts
    return replace(layer, synapse=replace(synapse, weight=weight))
