"""Weights that read spikes beside means of spikes, by weights of their own for each.

exact    weights of spikes and of means of spikes, added up   → a layer of weights for each, whose currents add up

A mean of n spikes is counted as their sum in the integers of a chip, and 1 / n is part of the weights that read it. Where a block
adds its input to its output, and a pool lies behind some of them, the same weights would read values of several n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, unused_name
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.network.spike_paths import find_loops_without_neurons
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.fold import fold_batchnorm, mean_factor
from spear_deploy.util.number_format import plural


def find_mixed_means(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield several layers of weights where one reads spikes and means of spikes, on chips whose integers are known."""
    if profile.meta.family not in FORMATS or find_loops_without_neurons(graph):  # no chip has such a loop
        return
    folded = _fold(graph)
    for layer in folded.layers:
        count = len(_list_factors(folded, layer.name))
        if isinstance(layer.synapse, WEIGHTED) and count > 1 and (layer.neuron is not None or layer.name != folded.output):
            yield Replacement(
                layers=(layer.name,), what="adds spikes and means of spikes", by=f"{plural(count, 'layer')} of weights, added up",
                kind="exact", topic="skip", rewrite=partial(_part_weights, name=layer.name),
            )  # fmt: skip


def _fold(graph: SNNGraph) -> SNNGraph:
    return fold_batchnorm(graph) if any(layer.norm is not None for layer in graph.layers) else graph


def _list_factors(graph: SNNGraph, name: str) -> list[float]:
    """Return the factors that means give to the spikes which a layer reads, the largest first."""
    factors: set[float] = set()
    for edge in graph.edges_into(name):
        factors |= set(_list_sent(graph, edge.source))
    return sorted(factors, reverse=True)


def _list_sent(graph: SNNGraph, name: str) -> list[float]:
    """Return the factors of what a layer, or the input, sends."""
    if _ends_way(graph, name):
        return [1.0]
    return [factor * mean_factor(graph[name].synapse) for factor in _list_factors(graph, name)]


def _ends_way(graph: SNNGraph, name: str) -> bool:
    return name == INPUT or graph[name].neuron is not None or isinstance(graph[name].synapse, WEIGHTED)


@dataclass
class _Copies:
    """Copies of the pools on the way to weights, one for each factor."""

    graph: SNNGraph
    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    made: dict[tuple[str, float], str] = field(default_factory=dict)

    def add(self, layer: Layer, of: str, factor: float, own: float = 1.0) -> str:
        """Add a copy of the layer `of`, which reads what has the factor once its own is multiplied, and return its name."""
        taken = {each.name for each in (*self.graph.layers, *self.layers)}
        copy = replace(layer, name=unused_name(f"{of}.part", taken))
        self.layers.append(copy)
        for edge in self.graph.edges_into(of):
            for sent in _list_sent(self.graph, edge.source):
                if sent * own == factor:
                    self.edges.append(replace(edge, source=self._take(edge.source, sent), target=copy.name))
        return copy.name

    def _take(self, name: str, factor: float) -> str:
        """Return the layer that sends the part of a layer's output which has a factor."""
        if _ends_way(self.graph, name) or len(_list_factors(self.graph, name)) == 1:
            return name
        if (name, factor) not in self.made:
            self.made[name, factor] = self.add(self.graph[name], name, factor, mean_factor(self.graph[name].synapse))
        return self.made[name, factor]


def _part_weights(graph: SNNGraph, *, name: str) -> SNNGraph:
    """Return the network in which a layer of weights is one for each factor of what it reads, of the bits that it states."""
    graph, bits = _fold(graph), read_layer_bits(graph)
    layer, copies, synapse = graph[name], _Copies(graph), graph[name].synapse
    parts = []
    for n, factor in enumerate(_list_factors(graph, name)):
        weights: Any = synapse if n == 0 else replace(synapse, bias=None)  # type: ignore[type-var]
        parts.append(copies.add(Layer(name=name, synapse=weights), name, factor))
    ends = [Edge(source=part, target=name) for part in parts]
    if layer.neuron is None:
        ends = [replace(edge, source=part) for edge in graph.edges_from(name) for part in parts]
    rest = tuple(edge for edge in graph.edges if edge.target != name and not (layer.neuron is None and edge.source == name))
    kept = [replace(layer, synapse=None)] if layer.neuron is not None else []
    layers = (*(each for each in graph.layers if each.name != name), *kept, *copies.layers)
    parted = _drop_unread(layers, (*rest, *copies.edges, *ends), graph)
    if name not in bits:
        return parted
    others = {other: of for other, of in read_layer_bits(parted).items() if isinstance(parted[other].synapse, WEIGHTED)}
    return state_layer_bits(parted, others | dict.fromkeys(parts, bits[name]))


def _drop_unread(layers: tuple[Layer, ...], edges: tuple[Edge, ...], graph: SNNGraph) -> SNNGraph:
    """Return the network without pools that nothing reads any more."""
    while True:
        read = {edge.source for edge in edges} | {graph.output}
        if all(layer.name in read for layer in layers):
            return replace(graph, layers=layers, edges=edges)
        layers = tuple(layer for layer in layers if layer.name in read)
        edges = tuple(edge for edge in edges if edge.target in {layer.name for layer in layers})
