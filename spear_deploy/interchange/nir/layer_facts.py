"""Order of layers, sums, scales, batch norms and missing biases, which the nodes of a NIR file do not show.

In a file nodes stand by name, a convolution has a bias always, a sum is a scale by 1, a scale with a bias is a scale and a
convolution, a batch norm behind no weights is a matrix or a convolution, and an importer without scales takes a matrix. Chips are
filled in the order of the layers, and keep memory for biases and weights. The metadata of the graph say so by layer; nodes of
weights have no metadata in versions of nir that frameworks ask for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network import CONVS, Array, BatchNorm, Dense, Layer, Scale, Shape, make_sparse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, find_heirs, merge_parts

LAYERS_KEY = "spear_layers"
"""Metadata of a graph: layers in their order, each with those of `NO_BIAS`, `NORM`, `SUM` and `SCALE`, as JSON.

The sizes of a scale are those of its factors.
"""
NO_BIAS, NORM, SCALE, SUM = "no bias", "norm", "scale", "sum"


def describe_layers(graph: SNNGraph) -> dict[str, str]:
    """Return the metadata from which `restore_layers` restores the layers of a network."""
    merged = {layer.name: layer for layer in merge_parts(graph).layers}
    rows: dict[str, dict[str, list[int]]] = {}
    for layer in graph.layers:
        sum_of_file: dict[str, list[int]] = {SUM: []} if _is_sum(layer) else {}  # a node of its own, also where it merges
        if layer.name in merged or sum_of_file:
            rows[layer.name] = {**sum_of_file, **_list_facts(merged.get(layer.name, layer))}
    return {LAYERS_KEY: json.dumps(rows)}


def _is_sum(layer: Layer) -> bool:
    return layer.synapse is None and layer.norm is None and layer.neuron is None


def _list_facts(layer: Layer) -> dict[str, list[int]]:
    synapse = layer.synapse
    if isinstance(synapse, (Dense, *CONVS)):  # their batch norm is folded into them
        return {NO_BIAS: []} if synapse.bias is None and layer.norm is None else {}
    facts: dict[str, list[int]] = {NORM: []} if layer.norm is not None else {}
    if synapse is None:
        return {SUM: [], **facts}
    return {SCALE: list(synapse.weight.shape), **facts} if isinstance(synapse, Scale) else facts


def restore_layers(graph: SNNGraph, stated: str) -> SNNGraph:
    """Return a network of merged parts, with its layers in the stated order, without biases of zeros, and with the stated parts.

    Args:
        graph: the network of the file, a layer each node.
        stated: the metadata of `LAYERS_KEY`; where a layer holds other numbers by now, it stays as it is.

    Raises:
        GraphError: the metadata are damaged.
    """
    try:
        rows = {
            name: {fact: tuple(map(int, sizes)) for fact, sizes in facts.items()} for name, facts in json.loads(stated).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise GraphError(f"metadata '{LAYERS_KEY}' is damaged ({error}); export the network again") from error
    places = {name: place for place, name in enumerate(rows)}
    graph = graph.with_layers(lambda layer: replace(layer, synapse=None) if _is_one(layer, rows) else layer)
    graph = _replace_factors(graph, {name for name, facts in rows.items() if NORM in facts}, _make_norm)
    graph = merge_parts(_replace_factors(graph, {name for name, facts in rows.items() if SCALE in facts}, _make_scale))
    parts = _Parts(graph, rows)
    for name, facts in rows.items():
        if name in parts.layers:
            _restore_layer(parts, name, facts)
    graph = parts.make_graph()
    return replace(graph, layers=tuple(sorted(graph.layers, key=lambda layer: places.get(layer.name, len(places)))))


def _is_one(layer: Layer, rows: Mapping[str, Mapping[str, Shape]]) -> bool:
    """Return whether a layer is a scale by 1 that stands for a sum."""
    return SUM in rows.get(layer.name, {}) and _is_bare_scale(layer) and bool((layer.synapse.weight == 1).all())  # type: ignore[union-attr]


def _replace_factors(graph: SNNGraph, names: Collection[str], make: Callable[[Layer, Array, Array | None], Layer]) -> SNNGraph:
    """Return the network with other parts in place of weights that only scale, of the layers that merge into the named ones."""
    heirs, changed = find_heirs(graph), {}
    for layer in graph.layers:
        if heirs[layer.name] in names and isinstance(layer.synapse, (Dense, *CONVS)) and layer.norm is None:
            factors, bias = _read_factors(layer.synapse), layer.synapse.bias
            if factors is not None:
                changed[layer.name] = make(layer, factors, bias if bias is not None and bias.any() else None)
    return graph.with_layers(changed)


def _make_norm(layer: Layer, factors: Array, bias: Array | None) -> Layer:
    gain = factors.reshape(-1)
    zeros = np.zeros_like(gain)
    norm = BatchNorm(weight=gain, bias=zeros if bias is None else bias, mean=zeros, var=np.ones_like(gain), eps=0.0)
    return replace(layer, synapse=None, norm=norm)


def _make_scale(layer: Layer, factors: Array, bias: Array | None) -> Layer:
    return replace(layer, synapse=Scale(weight=factors, bias=None if bias is None else bias.reshape(factors.shape)))


def _read_factors(synapse: Any) -> Array | None:
    """Return one factor a value, or a channel, of weights that only scale; None of others."""
    weight = synapse.weight
    if not isinstance(synapse, Dense):
        is_plain = synapse.groups == len(weight) == weight.size and set(synapse.stride) == {1} and not any(synapse.padding)
        return weight.reshape(-1, *weight.shape[2:]) if is_plain else None
    sparse = make_sparse(weight)
    rows = np.repeat(np.arange(weight.shape[0]), np.diff(sparse.indptr))
    if weight.shape[0] != weight.shape[1] or (rows != sparse.indices).any():
        return None
    diagonal = np.zeros(weight.shape[0], sparse.data.dtype)
    diagonal[rows] = sparse.data
    return diagonal


class _Parts:
    """Layers of a network that are joined with the parts in front of them, all before the network is made again."""

    def __init__(self, graph: SNNGraph, stated: Collection[str]) -> None:
        self.graph, self.stated = graph, {INPUT, *stated}
        self.layers = {layer.name: layer for layer in graph.layers}
        self.joined: dict[str, str] = {}
        self.fed_by: dict[str, list[Edge]] = {}
        for edge in graph.edges:
            self.fed_by.setdefault(edge.target, []).append(edge)
        self.readers = Counter(edge.source for edge in graph.edges)

    def find_before(self, name: str) -> Layer | None:
        """Return the layer that feeds this one alone, at once, and is none of the stated: a node written for this one."""
        edges = self.fed_by.get(name, [])
        if len(edges) != 1 or edges[0].delay or edges[0].source in self.stated:
            return None
        return self.layers[edges[0].source] if self.readers[edges[0].source] == 1 else None

    def join(self, before: Layer, layer: Layer) -> None:
        """Put a layer in place of the one of its name and of the part in front of that."""
        self.layers[layer.name] = layer
        self.joined[before.name] = layer.name
        self.fed_by[layer.name] = self.fed_by.pop(before.name, [])
        del self.layers[before.name]

    def make_graph(self) -> SNNGraph:
        """Return the network."""
        kept = (edge for edge in self.graph.edges if edge.source not in self.joined)
        edges = tuple(replace(edge, target=self.joined.get(edge.target, edge.target)) for edge in kept)
        return replace(self.graph, layers=tuple(self.layers.values()), edges=edges)


def _restore_layer(parts: _Parts, name: str, facts: Mapping[str, Shape]) -> None:
    """Join a batch norm and a scale with what they are behind, shrink factors to their sizes, and remove a bias of zeros."""
    layer, before = parts.layers[name], parts.find_before(name)
    is_bare_norm = NORM in facts and layer.norm is not None and layer.synapse is None
    if is_bare_norm and before is not None and before.neuron is None and before.norm is None:
        parts.join(before, replace(layer, synapse=before.synapse))
        layer, before = parts.layers[name], parts.find_before(name)
    synapse: Any = layer.synapse
    if SCALE in facts and isinstance(synapse, Scale):
        if before is not None and _is_bare_scale(before) and (synapse.weight == 1).all():  # its bias in a node of its own
            weight = _shrink(before.synapse.weight, facts[SCALE])  # type: ignore[union-attr]
            parts.join(before, replace(layer, synapse=replace(synapse, weight=weight)))
        else:
            parts.layers[name] = replace(layer, synapse=replace(synapse, weight=_shrink(synapse.weight, facts[SCALE])))
    if NO_BIAS in facts and isinstance(synapse, (Dense, *CONVS)) and synapse.bias is not None and not synapse.bias.any():
        parts.layers[name] = replace(layer, synapse=replace(synapse, bias=None))


def _is_bare_scale(layer: Layer) -> bool:
    return isinstance(layer.synapse, Scale) and layer.synapse.bias is None and layer.neuron is None and layer.norm is None


def _shrink(weight: Array, sizes: Shape) -> Array:
    """Return factors that repeat in these sizes, from which they were repeated; others as they are."""
    places = (*(1 for _ in range(weight.ndim - len(sizes))), *sizes)
    if len(places) != weight.ndim or any(size not in (1, full) for size, full in zip(places, weight.shape, strict=True)):
        return weight
    small = weight[tuple(slice(size) for size in places)]
    return small.reshape(sizes) if (small == weight).all() else weight
