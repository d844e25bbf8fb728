"""Is a network the chain that netx can say, and what are its links?

A link is a layer with neurons and what drives it. Sum pools and flattenings belong to the link behind them. Neurons in
which several dense layers add up are one link where those are the layer before, with delays that differ, and the neurons
themselves.
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
class Link:
    """One step of the chain: a layer with neurons and what drives it.

    Attributes:
        layer: its synapse takes what comes from the step before.
        recurrent: weights by which the layer feeds itself one step later, or None.
        delay: steps that all inputs are late, or an array that lies over the weights.
        pools: sum pools between the step before and this one, with the shape that each takes.
    """

    layer: Layer
    recurrent: Array | None
    delay: Array
    pools: tuple[tuple[SumPool, Shape], ...]
    shape: Shape


def chain_of(graph: SNNGraph) -> list[Link]:
    """Follow the network from its input, or say at which layer it is no chain."""
    links: list[Link] = []
    source, pools, late = INPUT, [], 0
    done = {INPUT}
    while True:
        following = sorted({edge.target for edge in graph.outgoing(source)} - done)
        if not following:
            break
        heads = {_head(graph, name) for name in following}
        if len(heads) > 1:
            raise UnsupportedError(f"layer '{source}': feeds {', '.join(map(repr, following))}, {CHAIN}")
        head = graph[heads.pop()]
        feeders = [e.source for e in graph.incoming(head.name) if e.source not in (source, head.name)]
        done |= {head.name, *feeders}
        if head.neuron is None and isinstance(head.synapse, (SumPool, Flatten)) and not feeders:
            edge = _only_edge(graph, head.name)
            late += edge.delay
            if isinstance(head.synapse, SumPool):
                pools.append((head.synapse, graph.input_shape_of(head.name)))
        else:
            shape = pools[0][1] if pools else graph.shape_of(source)
            link = _gathered(graph, head, feeders, source) if feeders else _direct(graph, head, source)
            links.append(replace(link, delay=link.delay + late, pools=tuple(pools), shape=shape))
            pools, late = [], 0
        source = head.name
    left = [layer.name for layer in graph.layers if layer.name not in done]
    if left or source != graph.output or pools or late or not links:
        where = left[0] if left else source
        raise UnsupportedError(f"layer '{where}': lies beside the chain or behind its last neurons, {CHAIN}")
    return links


def _head(graph: SNNGraph, name: str) -> str:
    """Return the neuron layer that a layer of weights alone adds to, together with others; else the layer itself."""
    layer, out = graph[name], graph.outgoing(name)
    alone = layer.neuron is None and isinstance(layer.synapse, Dense) and len(out) == 1
    if alone and graph[out[0].target].synapse is None and graph[out[0].target].neuron is not None:
        return out[0].target
    return name


def _only_edge(graph: SNNGraph, name: str) -> Edge:
    edges = graph.incoming(name)
    if len(edges) != 1:
        raise UnsupportedError(f"layer '{name}': {len(edges)} inputs add up, {CHAIN}")
    return edges[0]


def _direct(graph: SNNGraph, layer: Layer, source: str) -> Link:
    """Return the link of a layer that the step before feeds, and perhaps it itself through the same weights."""
    loops = [e for e in graph.incoming(layer.name) if e.source == layer.name]
    others = [e for e in graph.incoming(layer.name) if e.source != layer.name]
    if len(others) != 1 or len(loops) > 1:
        raise UnsupportedError(f"layer '{layer.name}': {len(others) + len(loops)} inputs add up, {CHAIN}")
    recurrent = None
    if loops:
        if loops[0].delay != 1 or not isinstance(layer.synapse, Dense):
            raise UnsupportedError(f"layer '{layer.name}': feeds itself {loops[0].delay} steps later, {LOOPS}")
        recurrent = shifted(layer.name, layer.synapse)
    return Link(layer, recurrent, np.array(others[0].delay), (), graph.shape_of(source))


def _gathered(graph: SNNGraph, head: Layer, feeders: list[str], source: str) -> Link:
    """Return the link of neurons that several dense layers without neurons add up in: delays that differ, and recurrence."""
    into = [e for e in graph.incoming(head.name) if e.source in (source, head.name)]
    weight: Array | None = None
    recurrent: Array | None = None
    delays = np.zeros((), np.int64)
    for name in feeders:
        layer, edge = graph[name], _only_edge(graph, name)
        delay = edge.delay + graph.outgoing(name)[0].delay
        bare = layer.neuron is None and isinstance(layer.synapse, Dense) and layer.synapse.bias is None
        alone = bare and len(graph.outgoing(name)) == 1
        if into or head.synapse is not None or not alone or edge.source not in (source, head.name):
            raise UnsupportedError(f"layer '{head.name}': several inputs add up, {CHAIN}")
        values = shifted(name, layer.synapse)
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
    if weight is None:
        raise UnsupportedError(f"layer '{head.name}': only feeds itself, {CHAIN}")
    return Link(replace(head, synapse=Dense(weight=weight)), recurrent, delays, (), graph.shape_of(source))


def shifted(name: str, synapse: Any) -> Array:
    """Return weights with their exponent in them, for netx has none."""
    weight = synapse.weight * 2.0**synapse.weight_exponent
    if (weight != np.rint(weight)).any():
        what = f"layer '{name}': its sum is shifted down by {-synapse.weight_exponent} bits"
        raise UnsupportedError(f"{what}, netx has no such shift; {OTHERS}")
    return weight.astype(np.int64)
