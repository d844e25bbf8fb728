"""Weights of zero that cost a chip operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED, Layer
from spear_deploy.network.graph import SNNGraph


def fill_zero_weights(graph: SNNGraph, profile: HardwareProfile) -> SNNGraph:
    """Return the network whose SynOps are those that the chip works on: where it skips no zeros, layers with zeros hold ones.

    Layers that lie side by side between the same layers are one list of synapses with delays of its own; their zeros are the
    synapses of the other layers and stay; zeros of all of them are not counted (`docs/limits.md`). Without a published fact zeros
    cost nothing.
    """
    if not profile.weights.zero_synops.value:
        return graph
    places = Counter(_place(graph, layer) for layer in graph.layers if isinstance(layer.synapse, WEIGHTED))
    layers = tuple(_fill(layer) if places[_place(graph, layer)] == 1 else layer for layer in graph.layers)
    return graph if all(a is b for a, b in zip(layers, graph.layers, strict=True)) else replace(graph, layers=layers)


def _place(graph: SNNGraph, layer: Layer) -> tuple[frozenset[str], frozenset[str]]:
    """Return the layers before and behind a layer."""
    before = frozenset(edge.source for edge in graph.edges_into(layer.name))
    behind = frozenset(edge.target for edge in graph.edges_from(layer.name))
    return before, behind if layer.neuron is None else frozenset((layer.name,))


def _fill(layer: Layer) -> Layer:
    synapse = layer.synapse
    if not isinstance(synapse, WEIGHTED) or np.all(synapse.weight):
        return layer
    weight = np.broadcast_to(np.int8(1), synapse.weight.shape)  # one byte for all, since only their number counts
    return replace(layer, synapse=replace(synapse, weight=weight))
