"""Networks as chains of layers with neurons, the form of netx.

A chain layer is a layer with neurons and the weights that drive it. Sum pools and flattenings belong to the chain layer behind
them. Neurons in which several dense layers add up are one chain layer where the dense layers come from the chain layer before,
with delays that differ, and from the neurons themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Array, Dense, Flatten, Layer, Shape, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph

OTHERS = "export to ONNX"
CHAIN = f"netx is a chain of layers with neurons; {OTHERS}"
LOOPS = f"netx does so once, through dense weights, 1 step later; {OTHERS}"


@dataclass(frozen=True)
class ChainLayer:
    """A layer with neurons and the weights that drive it.

    Attributes:
        layer: its synapse takes what the chain layer before sends.
        recurrent: (O, O), weights from the layer to itself, one step later; or None.
        delay: of all inputs, in steps: one number, or an array that broadcasts to the weights.
        pools: sum pools between the chain layer before and this one, each with the shape of its input.
        shape: of the input, before the pools and the flatten.
        flat: whether a flatten lies behind the pools.
    """

    layer: Layer
    recurrent: Array | None
    delay: Array
    pools: tuple[tuple[SumPool, Shape], ...]
    shape: Shape
    flat: bool = False


def find_chain(graph: SNNGraph) -> list[ChainLayer]:
    """Follow the network from its input and return its chain layers.

    Raises:
        UnsupportedError: the network is no chain, by the layer where it ceases to be one.
    """
    links: list[ChainLayer] = []
    source, pools, late, flat = INPUT, [], 0, False
    shape = graph.input_shape
    done = {INPUT}
    while True:
        following = sorted({edge.target for edge in graph.edges_from(source)} - done)
        if not following:
            break
        heads = {_head(graph, name) for name in following}
        if len(heads) > 1:
            raise UnsupportedError(f"layer '{source}': feeds {', '.join(map(repr, following))}, {CHAIN}")
        head = graph[heads.pop()]
        feeders = [e.source for e in graph.edges_into(head.name) if e.source not in (source, head.name)]
        done |= {head.name, *feeders}
        if head.neuron is None and isinstance(head.synapse, (SumPool, Flatten)) and not feeders:
            edge = _only_edge(graph, head.name)
            late += edge.delay
            flat |= isinstance(head.synapse, Flatten)
            if isinstance(head.synapse, SumPool):
                pools.append((head.synapse, graph.input_shape_of(head.name)))
        else:
            link = _merge_parallel_weights(graph, head, feeders, source) if feeders else _direct_layer(graph, head, source)
            links.append(replace(link, delay=link.delay + late, pools=tuple(pools), shape=shape, flat=flat))
            pools, late, flat = [], 0, False
            shape = graph.shape_of(head.name)
        source = head.name
    left = [layer.name for layer in graph.layers if layer.name not in done]
    if left or source != graph.output or pools or late or not links:
        where = left[0] if left else source
        raise UnsupportedError(f"layer '{where}': lies beside the chain or behind its last neurons, {CHAIN}")
    return links


def _head(graph: SNNGraph, name: str) -> str:
    """Return the neuron layer to which a dense layer without neurons adds; else the layer itself."""
    layer, out = graph[name], graph.edges_from(name)
    alone = layer.neuron is None and isinstance(layer.synapse, Dense) and len(out) == 1
    if alone and graph[out[0].target].synapse is None and graph[out[0].target].neuron is not None:
        return out[0].target
    return name


def _only_edge(graph: SNNGraph, name: str) -> Edge:
    edges = graph.edges_into(name)
    if len(edges) != 1:
        raise UnsupportedError(f"layer '{name}': {len(edges)} inputs add up, {CHAIN}")
    return edges[0]


def _direct_layer(graph: SNNGraph, layer: Layer, source: str) -> ChainLayer:
    """Return the chain layer with one input, and perhaps spikes of its own through the same weights."""
    loops = [e for e in graph.edges_into(layer.name) if e.source == layer.name]
    others = [e for e in graph.edges_into(layer.name) if e.source != layer.name]
    if len(others) != 1 or len(loops) > 1:
        raise UnsupportedError(f"layer '{layer.name}': {len(others) + len(loops)} inputs add up, {CHAIN}")
    recurrent = None
    if loops:
        if loops[0].delay != 1 or not isinstance(layer.synapse, Dense):
            raise UnsupportedError(f"layer '{layer.name}': feeds itself {loops[0].delay} steps later, {LOOPS}")
        recurrent = apply_exponent(layer.name, layer.synapse)
    return ChainLayer(layer, recurrent, np.array(others[0].delay), (), graph.shape_of(source))


def _merge_parallel_weights(graph: SNNGraph, head: Layer, feeders: list[str], source: str) -> ChainLayer:
    """Return the chain layer of neurons in which several dense layers add up: delays that differ, and recurrence."""
    into = [e for e in graph.edges_into(head.name) if e.source in (source, head.name)]
    weight: Array | None = None
    recurrent: Array | None = None
    delays = np.zeros((), np.int64)
    for name in feeders:
        layer, edge = graph[name], _only_edge(graph, name)
        delay = edge.delay + graph.edges_from(name)[0].delay
        bare = layer.neuron is None and isinstance(layer.synapse, Dense) and layer.synapse.bias is None
        alone = bare and len(graph.edges_from(name)) == 1
        if into or head.synapse is not None or not alone or edge.source not in (source, head.name):
            raise UnsupportedError(f"layer '{head.name}': several inputs add up, {CHAIN}")
        values = apply_exponent(name, layer.synapse)
        if edge.source == head.name:
            if delay != 1 or recurrent is not None:
                raise UnsupportedError(f"layer '{head.name}': feeds itself {delay} steps later, {LOOPS}")
            recurrent = values
        elif weight is None:
            weight, delays = values, np.array(delay)
        else:
            if ((weight != 0) & (values != 0)).any():
                raise UnsupportedError(f"layer '{head.name}': one synapse has two delays, netx has one a synapse; drop one")
            delays = np.where(values != 0, delay, np.broadcast_to(delays, weight.shape))
            weight = weight + values
    assert weight is not None  # a layer that only feeds itself is no graph
    return ChainLayer(replace(head, synapse=Dense(weight=weight)), recurrent, delays, (), graph.shape_of(source))


def apply_exponent(name: str, synapse: Any) -> Array:
    """Return weight · 2^weight_exponent as int64: netx has no exponent.

    Raises:
        UnsupportedError: the result is not whole.
    """
    weight = synapse.weight * 2.0**synapse.weight_exponent
    if (weight != np.rint(weight)).any():
        what = f"layer '{name}': its sum is shifted down by {-synapse.weight_exponent} bits"
        raise UnsupportedError(f"{what}, netx has no such shift; {OTHERS}")
    return weight.astype(np.int64)
