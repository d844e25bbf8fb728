"""Networks rewritten for the importer of a framework.

batch norm                           folded into the weights
average pool where there is none     a sum pool; the weights behind it, or the threshold, take the factor
bias of recurrent weights            goes to the weights from the layer before
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.nir.dialects import Dialect
from spear_deploy.interchange.nir.layer_to_nodes import fold_norm
from spear_deploy.network import CONVS, IF, LIF, WEIGHTED, AvgPool, CubaLIF, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, SNNGraph


def prepare_network(graph: SNNGraph, dialect: Dialect) -> SNNGraph:
    """Return the network without batch norms, average pools that the importer lacks, and biases of recurrent weights."""
    graph = graph.with_layers(lambda layer: _fold_norm(layer, dialect))
    if "AvgPool" not in dialect.synapses:
        for layer in graph.layers:
            if isinstance(layer.synapse, AvgPool):
                graph = _sum_in_place_of_mean(graph, layer, dialect)
    for neuron, recurrent in find_recurrent_layers(graph).items():
        graph = _move_recurrent_bias(graph, neuron, recurrent, dialect)
    return graph


def _fold_norm(layer: Layer, dialect: Dialect) -> Layer:
    if layer.norm is None:
        return layer
    if not isinstance(layer.synapse, (Dense, *CONVS)):
        raise UnsupportedError(
            f"layer '{layer.name}': a batch norm without weights in front has no place in {dialect.title}'s NIR"
        )
    folded = fold_norm(layer.synapse, layer.norm)
    short = {name: getattr(folded, name).astype(np.float32) for name in ("weight", "bias")}
    return replace(layer, synapse=replace(folded, **short), norm=None)


def _sum_in_place_of_mean(graph: SNNGraph, layer: Layer, dialect: Dialect) -> SNNGraph:
    """Return the network with a sum pool in place of an average pool; what takes its values gets the factor."""
    pool = layer.synapse
    assert isinstance(pool, AvgPool)
    factor = 1 / float(np.prod(pool.kernel_size))
    changed = replace(layer, synapse=SumPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding))
    if isinstance(layer.neuron, (IF, LIF, CubaLIF)):
        return graph.with_layers({layer.name: replace(changed, neuron=replace(layer.neuron, r=layer.neuron.r * factor))})
    layers = {layer.name: changed}
    waiting = [layer.name]
    while waiting:
        name = waiting.pop()
        if name == graph.output or layer.neuron is not None:
            _refuse_mean(layer, dialect)
        for edge in graph.edges_from(name):
            behind = graph[edge.target]
            if len(graph.edges_into(behind.name)) > 1 or not isinstance(behind.synapse, (Dense, *CONVS, Flatten)):
                _refuse_mean(layer, dialect)
            if isinstance(behind.synapse, (Dense, *CONVS)):
                weight = (behind.synapse.weight * factor).astype(behind.synapse.weight.dtype)
                layers[behind.name] = replace(behind, synapse=replace(behind.synapse, weight=weight))
            else:
                waiting.append(behind.name)
    return graph.with_layers(layers)


def _refuse_mean(layer: Layer, dialect: Dialect) -> NoReturn:
    raise UnsupportedError(
        f"layer '{layer.name}': {dialect.title}'s importer has no average pool, and nothing behind it can take its factor; use a "
        "SumPool"
    )


def find_recurrent_layers(graph: SNNGraph) -> dict[str, str]:
    """Return the layer of recurrent weights of each neuron layer that has one: it gets its spikes one step late."""
    loops = {}
    for layer in graph.layers:
        into, out = graph.edges_into(layer.name), graph.edges_from(layer.name)
        is_plain = layer.neuron is None and layer.norm is None and isinstance(layer.synapse, WEIGHTED)
        if (
            is_plain
            and len(into) == len(out) == 1
            and into[0].delay == 1
            and not out[0].delay
            and into[0].source == out[0].target
        ):
            if graph[into[0].source].synapse is None and into[0].source not in loops:
                loops[into[0].source] = layer.name
    return loops


def _move_recurrent_bias(graph: SNNGraph, neuron: str, recurrent: str, dialect: Dialect) -> SNNGraph:
    """Return the network with the bias of recurrent weights at the weights before: an importer's first step has no feedback."""
    synapse: Any = graph[recurrent].synapse
    if synapse.bias is None:
        return graph
    for edge in graph.edges_into(neuron):
        before = graph[edge.source] if edge.source not in (INPUT, recurrent) else None
        if before is None or before.neuron is not None or len(graph.edges_from(before.name)) > 1:
            continue
        if isinstance(before.synapse, (Dense, *CONVS)) and before.name != graph.output:
            bias = synapse.bias if before.synapse.bias is None else before.synapse.bias + synapse.bias
            moved = replace(before, synapse=replace(before.synapse, bias=bias))
            kept = replace(graph[recurrent], synapse=replace(synapse, bias=None))
            return graph.with_layers({before.name: moved, recurrent: kept})
    raise UnsupportedError(
        f"layer '{recurrent}': a bias of recurrent weights has no place in {dialect.title}'s NIR, and no weights before "
        f"'{neuron}' can take it; train without it"
    )
