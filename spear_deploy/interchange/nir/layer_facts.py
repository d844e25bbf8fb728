"""Order of layers, scales and missing biases, which the nodes of a NIR file do not show.

In a file nodes stand by name, a convolution has a bias always, and an importer without scales takes a matrix. Chips are filled in
the order of the layers, and keep memory for biases and weights. The metadata of the graph say so by layer; nodes of weights have
no metadata in versions of nir that frameworks ask for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network import CONVS, Dense, Layer, Scale, make_sparse
from spear_deploy.network.graph import SNNGraph, merge_parts

LAYERS_KEY = "spear_layers"
"""Metadata of a graph: layers in their order, each with a list of `NO_BIAS` and `SCALE` where they hold, as JSON."""
NO_BIAS, SCALE = "no bias", "scale"


def describe_layers(graph: SNNGraph) -> dict[str, str]:
    """Return the metadata from which `restore_layers` restores the layers of a network."""
    return {LAYERS_KEY: json.dumps({layer.name: _list_facts(layer) for layer in merge_parts(graph).layers})}


def _list_facts(layer: Layer) -> list[str]:
    if isinstance(layer.synapse, Scale):
        return [SCALE]
    has_none = isinstance(layer.synapse, (Dense, *CONVS)) and layer.synapse.bias is None and layer.norm is None
    return [NO_BIAS] if has_none else []


def restore_layers(graph: SNNGraph, stated: str) -> SNNGraph:
    """Return a network with its layers in the stated order, without biases of zeros, and with scales in place of matrices.

    Args:
        graph: the network of the file.
        stated: the metadata of `LAYERS_KEY`; where a layer holds other numbers by now, it stays as it is.

    Raises:
        GraphError: the metadata are damaged.
    """
    try:
        rows = {str(name): set(facts) for name, facts in json.loads(stated).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise GraphError(f"metadata '{LAYERS_KEY}' is damaged ({error}); export the network again") from error
    places = {name: place for place, name in enumerate(rows)}
    restored = graph.with_layers(lambda layer: _restore_layer(layer, rows.get(layer.name, set())))
    return replace(restored, layers=tuple(sorted(restored.layers, key=lambda layer: places.get(layer.name, len(places)))))


def _restore_layer(layer: Layer, facts: set[Any]) -> Layer:
    synapse = layer.synapse
    if not isinstance(synapse, (Dense, *CONVS)):
        return layer
    bias = synapse.bias
    if SCALE in facts and isinstance(synapse, Dense) and (factors := _read_diagonal(synapse.weight)) is not None:
        return replace(layer, synapse=Scale(weight=factors, bias=bias if bias is not None and bias.any() else None))
    if NO_BIAS in facts and bias is not None and not bias.any():
        return replace(layer, synapse=replace(synapse, bias=None))
    return layer


def _read_diagonal(weight: Any) -> Any:
    """Return the diagonal of a square matrix that is zero elsewhere, None of any other."""
    sparse = make_sparse(weight)
    rows = np.repeat(np.arange(weight.shape[0]), np.diff(sparse.indptr))
    if weight.shape[0] != weight.shape[1] or (rows != sparse.indices).any():
        return None
    diagonal = np.zeros(weight.shape[0], sparse.data.dtype)
    diagonal[rows] = sparse.data
    return diagonal
