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

    They may feed it through layers that add up currents and hold nothing. None where something else drives it, or a batch norm or
    a pool lies between.
    """
    layer = graph[name]
    if isinstance(layer.synapse, WEIGHTED):
        return [layer]
    if layer.synapse is not None or layer.norm is not None:
        return None
    names, weights = {other.name for other in graph.layers}, list[Layer]()
    for edge in graph.edges_into(name):
        feeds = graph[edge.source] if edge.source in names else None
        if feeds is None or feeds.neuron is not None or len(graph.edges_from(feeds.name)) > 1:
            return None
        behind = find_weights(graph, feeds.name)
        if behind is None:
            return None
        weights += behind
    return weights
