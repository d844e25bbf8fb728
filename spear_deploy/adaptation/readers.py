"""Weighted layers that read a layer, through what holds no numbers."""

from __future__ import annotations

from spear_deploy.network import WEIGHTED, Layer
from spear_deploy.network.graph import SNNGraph


def find_readers(graph: SNNGraph, name: str) -> list[Layer] | None:
    """Return the weighted layers that read a layer, directly or through pools and flattens.

    None where something else reads it: neurons without weights, the network's output, or weights that another layer feeds too.
    """
    readers: list[Layer] = []
    for edge in graph.edges_from(name):
        layer = graph[edge.target]
        if len(graph.edges_into(layer.name)) > 1:
            return None
        if isinstance(layer.synapse, WEIGHTED):
            readers.append(layer)
            continue
        if layer.neuron is not None or layer.norm is not None or layer.name == graph.output:
            return None
        behind = find_readers(graph, layer.name)
        if behind is None:
            return None
        readers += behind
    return readers


def find_weights(graph: SNNGraph, name: str) -> list[Layer] | None:
    """Return the weighted layers whose currents drive the neurons of a layer: its own, or those that feed it and nothing else.

    None where something else drives it, or a batch norm or a pool lies between.
    """
    layer = graph[name]
    if isinstance(layer.synapse, WEIGHTED):
        return [layer]
    feeding = [graph[edge.source] for edge in graph.edges_into(name) if edge.source in {other.name for other in graph.layers}]
    is_plain = layer.synapse is None and layer.norm is None and len(feeding) == len(graph.edges_into(name))
    alone = all(
        isinstance(other.synapse, WEIGHTED) and other.neuron is None and len(graph.edges_from(other.name)) == 1
        for other in feeding
    )
    return feeding if is_plain and alone else None
