"""Order of layers, sums, scales and missing biases, which the nodes of a NIR file do not show.

In a file nodes stand by name, a convolution has a bias always, a sum is a scale by 1, a scale with a bias is a scale and a
convolution, and an importer without scales takes a matrix. Chips are filled in the order of the layers, and keep memory for
biases and weights. The metadata of the graph say so by layer; nodes of weights have no metadata in versions of nir that
frameworks ask for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network import CONVS, Array, Dense, Layer, Scale, Shape, make_sparse
from spear_deploy.network.graph import INPUT, SNNGraph, merge_parts

LAYERS_KEY = "spear_layers"
"""Metadata of a graph: layers in their order, each with `NO_BIAS`, `SUM` or `SCALE` and the sizes of its factors, as JSON."""
NO_BIAS, SCALE, SUM = "no bias", "scale", "sum"


def describe_layers(graph: SNNGraph) -> dict[str, str]:
    """Return the metadata from which `restore_layers` restores the layers of a network."""
    return {LAYERS_KEY: json.dumps({layer.name: _list_facts(layer) for layer in merge_parts(graph).layers})}


def _list_facts(layer: Layer) -> dict[str, list[int]]:
    synapse = layer.synapse
    if synapse is None:
        return {SUM: []} if layer.neuron is None and layer.norm is None else {}
    if isinstance(synapse, Scale):
        return {SCALE: list(synapse.weight.shape)}
    return {NO_BIAS: []} if isinstance(synapse, (Dense, *CONVS)) and synapse.bias is None and layer.norm is None else {}


def restore_layers(graph: SNNGraph, stated: str) -> SNNGraph:
    """Return a network with its layers in the stated order, without biases of zeros, and with sums and scales.

    Args:
        graph: the network of the file.
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
    graph = graph.with_layers(lambda layer: _restore_layer(layer, rows.get(layer.name, {})))
    for name, facts in rows.items():
        if SCALE in facts:
            graph = _restore_scale(graph, name, facts[SCALE], rows)
    return replace(graph, layers=tuple(sorted(graph.layers, key=lambda layer: places.get(layer.name, len(places)))))


def _restore_layer(layer: Layer, facts: Mapping[str, Shape]) -> Layer:
    synapse: Any = layer.synapse
    if SUM in facts and isinstance(synapse, Scale) and synapse.bias is None and (synapse.weight == 1).all():
        return replace(layer, synapse=None)
    if not isinstance(synapse, (Dense, *CONVS)):
        return layer
    bias = None if synapse.bias is None or not synapse.bias.any() else synapse.bias
    if SCALE in facts and (factors := _read_factors(synapse)) is not None:
        scale = Scale(weight=factors, bias=None if bias is None else bias.reshape(factors.shape))
        return replace(layer, synapse=scale)
    return replace(layer, synapse=replace(synapse, bias=bias)) if NO_BIAS in facts else layer


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


def _restore_scale(graph: SNNGraph, name: str, sizes: Shape, stated: Collection[str]) -> SNNGraph:
    """Return the network with a scale whose factors have these sizes, joined with the one in front if it is the bias of that."""
    layer = next((layer for layer in graph.layers if layer.name == name), None)
    if layer is None or not isinstance(layer.synapse, Scale):
        return graph
    synapse, into = layer.synapse, graph.edges_into(name)
    before = graph[into[0].source] if len(into) == 1 and not into[0].delay and into[0].source not in (INPUT, *stated) else None
    if before is None or not _is_bare_scale(before) or len(graph.edges_from(before.name)) > 1 or (synapse.weight != 1).any():
        return graph.with_layers({name: replace(layer, synapse=replace(synapse, weight=_shrink(synapse.weight, sizes)))})
    weight = _shrink(before.synapse.weight, sizes)  # type: ignore[union-attr]
    joined = replace(layer, synapse=replace(synapse, weight=weight))
    layers = tuple(joined if one.name == name else one for one in graph.layers if one.name != before.name)
    kept = tuple(edge for edge in graph.edges if edge.source != before.name)
    edges = tuple(replace(edge, target=name) if edge.target == before.name else edge for edge in kept)
    return replace(graph, layers=layers, edges=edges)


def _is_bare_scale(layer: Layer) -> bool:
    return isinstance(layer.synapse, Scale) and layer.synapse.bias is None and layer.neuron is None and layer.norm is None


def _shrink(weight: Array, sizes: Shape) -> Array:
    """Return factors that repeat in these sizes, from which they were repeated; others as they are."""
    places = (*(1 for _ in range(weight.ndim - len(sizes))), *sizes)
    if len(places) != weight.ndim or any(size not in (1, full) for size, full in zip(places, weight.shape, strict=True)):
        return weight
    small = weight[tuple(slice(size) for size in places)]
    return small.reshape(sizes) if (small == weight).all() else weight
