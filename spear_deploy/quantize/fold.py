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
from spear_deploy.network.graph import Edge, SNNGraph, merge_parts, unused_name
from spear_deploy.quantize.fuse_weights import emits_current, find_chained_weights, fuse_weights


def fold_chained_weights(graph: SNNGraph) -> SNNGraph:
    """Return the network as a chip's integers are made of it, where weights follow weights: with their product.

    A network without such weights stays as it is, and so do weights that do not fold.
    """
    if find_chained_weights(graph):
        with suppress(UnsupportedError):
            return fold_batchnorm(graph)
    return graph


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

    graph = _split_weightless_from_norm(merge_parts(graph))
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
    """Add weights of 1 wherever spikes reach a neuron layer through no weighted layer."""
    layers: list[Layer] = []
    edges = list(graph.edges)
    for layer in graph.layers:
        if layer.neuron is None or isinstance(layer.synapse, WEIGHTED):
            layers.append(layer)
            continue
        if isinstance(layer.synapse, (*POOLS, Flatten)) or len(graph.edges_into(layer.name)) == 1:
            layer, extra = _split_identity(graph, layer)
            if extra is not None:
                layers.append(extra)
                edges = [replace(e, target=extra.name) if e.target == layer.name else e for e in edges]
                edges.append(Edge(source=extra.name, target=layer.name))
            layers.append(layer)
            continue
        for edge in graph.edges_into(layer.name):
            if emits_current(graph, edge.source):
                continue
            identity = Layer(name=f"{edge.source}_to_{layer.name}", synapse=_unit_scale(graph.shape_of(edge.source)))
            layers.append(identity)
            edges.remove(edge)
            edges += [replace(edge, target=identity.name), Edge(source=identity.name, target=layer.name)]
        layers.append(layer)
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _split_identity(graph: SNNGraph, layer: Layer) -> tuple[Layer, Layer | None]:
    """Return a layer with weights of 1 before its neurons, and a layer for the pool or flatten that it had, or None."""
    source = graph.edges_into(layer.name)[0].source
    if all(emits_current(graph, e.source) for e in graph.edges_into(layer.name)):
        return layer, None
    if isinstance(layer.synapse, (*POOLS, Flatten)):
        extra = Layer(name=f"{layer.name}_{_name_part(layer.synapse)}", synapse=layer.synapse)
        return replace(layer, synapse=_unit_scale(graph.shape_of(layer.name))), extra
    return replace(layer, synapse=_unit_scale(graph.shape_of(source))), None


def _unit_scale(shape: tuple[int, ...]) -> Scale:
    return Scale(weight=np.ones((shape[0], *(1 for _ in shape[1:]))))
