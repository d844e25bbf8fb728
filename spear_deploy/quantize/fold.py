"""Batch norm and means folded into weights, exactly.

Every pass returns a network that computes the same function in exact arithmetic; products are formed in float64.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import POOLS, WEIGHTED, Array, AvgPool, BatchNorm, Flatten, Layer, Scale, SumPool, Synapse
from spear_deploy.network.graph import MAX_DELAY, Edge, SNNGraph, merge_parts, unused_name
from spear_deploy.quantize.fuse_weights import emits_current, find_chained_weights, fuse_weights


def fold_chained_weights(graph: SNNGraph) -> SNNGraph:
    """Return the network as a chip's integers are made of it, where weights follow weights, or a batch norm follows none.

    Other networks stay as they are but for layers that hand on what they take, and so do weights that do not fold.
    """
    graph = drop_identities(graph)
    if find_chained_weights(graph) or _has_lone_norms(graph):
        with suppress(UnsupportedError):
            return fold_batchnorm(graph)
    return graph


def _has_lone_norms(graph: SNNGraph) -> bool:
    """Return whether a batch norm without weights in its layer is weights itself: behind currents, or without neurons behind it.

    One of spikes that neurons take is counted as what reaches them, and keeps its layer.
    """
    graph = merge_parts(graph)

    def follows_currents(layer: Layer) -> bool:
        return any(emits_current(graph, edge.source) for edge in graph.edges_into(layer.name))

    lone = (layer for layer in graph.layers if layer.norm is not None and not isinstance(layer.synapse, WEIGHTED))
    return any(layer.neuron is None or follows_currents(layer) for layer in lone)


def drop_identities(graph: SNNGraph) -> SNNGraph:
    """Return the network without layers that hand on what one layer sends: pools of one position, reshapes to the same shape.

    A chip need not have such a pool, and spikes behind it are those in front of it. Where several layers meet in one, or it is
    the second way between two layers, a sum stays, and neurons stay without the pool. The network's output stays as it is.

    >>> from spear_deploy.network import IF
    >>> from spear_deploy.network.graph import chain
    >>> pool, neuron = Layer(name="pool", synapse=AvgPool(kernel_size=(1, 1))), Layer(name="n", neuron=IF())
    >>> print(drop_identities(chain([pool, neuron], input_shape=(2, 3, 3))))
    input 2 x 3 x 3, dt 0.001 s
    n: input -> IF -> 2 x 3 x 3
    """
    for layer in graph.layers:
        if layer.name == graph.output or not _is_identity(graph, layer):
            continue
        into, out = graph.edges_into(layer.name), graph.edges_from(layer.name)
        first = into[0]
        joined = [replace(edge, source=first.source, delay=min(first.delay + edge.delay, MAX_DELAY)) for edge in out]
        is_late = any(first.delay + edge.delay > MAX_DELAY for edge in out)
        is_twice = bool(set(joined) & set(graph.edges))  # one edge would count once
        is_loop = any(edge.source == edge.target and graph[edge.target].neuron is None for edge in joined)
        if layer.norm is not None or layer.neuron is not None or len(into) > 1 or is_late or is_twice or is_loop:
            graph = graph.with_layers({layer.name: replace(layer, synapse=None)}) if layer.synapse is not None else graph
            continue
        edges = [edge for edge in graph.edges if layer.name not in (edge.source, edge.target)]
        layers = tuple(other for other in graph.layers if other is not layer)
        graph = replace(graph, layers=layers, edges=tuple([*edges, *joined]))
    return graph


def _is_identity(graph: SNNGraph, layer: Layer) -> bool:
    """Return whether what a layer's norm and neurons take is what reaches it: through no weights, each value by itself."""
    synapse = layer.synapse
    if isinstance(synapse, POOLS):
        alone = {*synapse.kernel_size, *synapse.stride} == {1} and not np.any(synapse.padding)  # type: ignore[misc]
        return bool(alone)
    return synapse is None or (isinstance(synapse, Flatten) and len(graph.input_shape_of(layer.name)) == 1)


def fold_batchnorm(graph: SNNGraph) -> SNNGraph:
    """Return the network without batch norm: its scale and shift are in the weights and biases before it, in float64.

    A norm behind a flatten becomes one weight for each value, one behind a pool a weight for each channel. Two weighted layers
    that then follow each other without neurons between them become one (`fuse_weights`).
    """

    def fold(layer: Layer) -> Layer:
        if layer.norm is None:
            return layer
        gain, shift = _norm_gain_shift(layer.norm)
        synapse = _weighted_synapse(graph, layer)
        if isinstance(synapse, Scale):  # its weights may differ inside a channel; those of the norm do not
            axes = (-1, *(1 for _ in graph.input_shape_of(layer.name)[1:]))
            gain, shift = gain.reshape(axes), shift.reshape(axes)
        return replace(layer, synapse=_scale_synapse(synapse, gain, shift), norm=None)

    graph = _split_weightless_from_norm(merge_parts(drop_identities(graph)))
    return merge_parts(fuse_weights(graph.with_layers(fold)))


def _split_weightless_from_norm(graph: SNNGraph) -> SNNGraph:
    """Put each flatten and each pool with a norm behind it into a separate layer."""
    normed = (layer for layer in graph.layers if layer.norm is not None)
    moved: dict[str, Synapse] = {layer.name: layer.synapse for layer in normed if isinstance(layer.synapse, (Flatten, *POOLS))}
    if not moved:
        return graph
    names = {layer.name for layer in graph.layers}
    parts = {name: unused_name(f"{name}_{_name_part(synapse)}", names) for name, synapse in sorted(moved.items())}
    layers = [Layer(name=part, synapse=moved[name]) for name, part in parts.items()]
    layers += [replace(layer, synapse=None) if layer.name in moved else layer for layer in graph.layers]
    edges = [replace(edge, target=parts.get(edge.target, edge.target)) for edge in graph.edges]
    edges += [Edge(source=part, target=name) for name, part in parts.items()]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _name_part(synapse: Synapse) -> str:
    """Return what the name of a layer ends in that holds a flatten or a pool alone."""
    return "flatten" if isinstance(synapse, Flatten) else "pool"


def _norm_gain_shift(norm: BatchNorm) -> tuple[Array, Array]:
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    return gain, norm.bias - norm.mean * gain


def _weighted_synapse(graph: SNNGraph, layer: Layer) -> Any:
    """Return the weighted synapse of a layer; an identity becomes one weight of 1 per channel."""
    return layer.synapse if isinstance(layer.synapse, WEIGHTED) else _unit_scale(graph.input_shape_of(layer.name))


def _scale_synapse(synapse: Any, gain: Array, shift: Array) -> Any:
    """Return `gain · (W x + b) + shift`: both per output channel, or of a `Scale` in a shape that broadcasts to its input."""
    weight_gain = gain if isinstance(synapse, Scale) else gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:]))
    weight = synapse.weight.astype(np.float64) * weight_gain
    bias = shift if synapse.bias is None else np.asarray(synapse.bias, np.float64) * gain + shift
    shape = np.broadcast_shapes(weight.shape, bias.shape) if isinstance(synapse, Scale) else bias.shape
    return replace(synapse, weight=weight, bias=np.broadcast_to(bias, shape))


def mean_factor(synapse: Synapse | None) -> float:
    """Return the output of a synapse over the sum of its window: 1 / window size for a mean, else 1."""
    return 1 / float(np.prod(synapse.kernel_size)) if isinstance(synapse, AvgPool) else 1.0


def replace_mean_by_sum(layer: Layer) -> Layer:
    """Return a layer with a sum over the window in place of the mean; other layers stay."""
    pool = layer.synapse
    if not isinstance(pool, AvgPool):
        return layer
    return replace(layer, synapse=SumPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding))


def add_missing_weights(graph: SNNGraph) -> SNNGraph:
    """Add weights of 1 wherever spikes reach a neuron layer through no weighted layer, or are added to currents on the way."""
    layers: list[Layer] = []
    edges = list(graph.edges)
    names = {layer.name for layer in graph.layers}
    for layer in graph.layers:
        into = graph.edges_into(layer.name)
        spikes = [] if isinstance(layer.synapse, WEIGHTED) else [e for e in into if not emits_current(graph, e.source)]
        has_own = isinstance(layer.synapse, (*POOLS, Flatten)) or len(into) == 1
        if layer.neuron is not None and spikes and has_own and len(spikes) == len(into):
            layer, extra = _split_identity(graph, layer)
            if extra is not None:
                layers.append(extra)
                edges = [replace(e, target=extra.name) if e.target == layer.name else e for e in edges]
                edges.append(Edge(source=extra.name, target=layer.name))
        elif layer.neuron is not None or len(spikes) < len(into):
            for edge in spikes:
                name = unused_name(f"{edge.source}_to_{layer.name}", names)
                names.add(name)
                layers.append(Layer(name=name, synapse=_unit_scale(graph.shape_of(edge.source))))
                edges.remove(edge)
                edges += [replace(edge, target=name), Edge(source=name, target=layer.name)]
        layers.append(layer)
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _split_identity(graph: SNNGraph, layer: Layer) -> tuple[Layer, Layer | None]:
    """Return a layer with weights of 1 before its neurons, and a layer for the pool or flatten that it had, or None."""
    if isinstance(layer.synapse, (*POOLS, Flatten)):
        extra = Layer(name=f"{layer.name}_{_name_part(layer.synapse)}", synapse=layer.synapse)
        return replace(layer, synapse=_unit_scale(graph.shape_of(layer.name))), extra
    return replace(layer, synapse=_unit_scale(graph.input_shape_of(layer.name))), None


def _unit_scale(shape: tuple[int, ...]) -> Scale:
    return Scale(weight=np.ones((shape[0], *(1 for _ in shape[1:]))))
