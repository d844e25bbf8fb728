"""Removal of batch norm, of means, and of neurons without weights, before integers.

All of it is exact in float64: the function of the network stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import POOLS, WEIGHTED, Array, AvgPool, BatchNorm, Flatten, Layer, Scale, SumPool, Synapse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, free_name, merge_parts
from spear_deploy.quantize.fuse_weights import merge_weights


def fold_batchnorm(graph: SNNGraph) -> SNNGraph:
    """Return the network without batch norm: its scale and shift are in the weights and biases before it, in float64.

    A norm behind a flatten becomes one weight for each value. Weights that then follow upon weights become one map
    (`merge_weights`).

    Raises:
        UnsupportedError: a norm follows a pool.
    """

    def folded(layer: Layer) -> Layer:
        if layer.norm is None:
            return layer
        gain, shift = _norm_gain_shift(layer.norm)
        synapse = _as_weighted(graph, layer)
        if isinstance(synapse, Scale):  # its weights may spread over channels; the norm's do not
            axes = (-1, *(1 for _ in graph.input_shape_of(layer.name)[1:]))
            gain, shift = gain.reshape(axes), shift.reshape(axes)
        return replace(layer, synapse=scaled(synapse, gain, shift), norm=None)

    graph = _apart_from_flatten(merge_parts(graph))
    for layer in graph.layers:
        if layer.norm is not None and isinstance(layer.synapse, POOLS):
            raise UnsupportedError(
                f"layer '{layer.name}': batch norm follows a pool; put the norm before the pool, or a weight between"
            )
    return merge_parts(merge_weights(graph.with_layers(folded)))


def _apart_from_flatten(graph: SNNGraph) -> SNNGraph:
    """Give each flatten with a norm behind it a layer of its own."""
    joint = {layer.name for layer in graph.layers if layer.norm is not None and isinstance(layer.synapse, Flatten)}
    if not joint:
        return graph
    taken = {layer.name for layer in graph.layers}
    alone = {name: free_name(f"{name}_flatten", taken) for name in sorted(joint)}
    layers = [Layer(name=name, synapse=Flatten()) for name in alone.values()]
    layers += [replace(layer, synapse=None) if layer.name in joint else layer for layer in graph.layers]
    edges = [replace(edge, target=alone.get(edge.target, edge.target)) for edge in graph.edges]
    edges += [Edge(source=flatten, target=name) for name, flatten in alone.items()]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _norm_gain_shift(norm: BatchNorm) -> tuple[Array, Array]:
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    return gain, norm.bias - norm.mean * gain


def _as_weighted(graph: SNNGraph, layer: Layer) -> Any:
    """Return the weighted synapse of a layer; an identity gets one weight per channel."""
    return layer.synapse if isinstance(layer.synapse, WEIGHTED) else _unit(graph.input_shape_of(layer.name))


def scaled(synapse: Any, gain: Array, shift: Array | None = None) -> Any:
    """Return `gain · (W x + b) + shift`: both per output channel, of a `Scale` in a shape that spreads over its input."""
    spread = gain if isinstance(synapse, Scale) or not gain.ndim else gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:]))
    weight = synapse.weight.astype(np.float64) * spread
    bias = None if synapse.bias is None else np.asarray(synapse.bias, np.float64) * gain
    if shift is not None:
        bias = shift if bias is None else bias + shift
    if bias is not None:
        shape = np.broadcast_shapes(weight.shape, bias.shape) if isinstance(synapse, Scale) else weight.shape[:1]
        bias = np.broadcast_to(bias, shape)
    return replace(synapse, weight=weight, bias=bias)


def mean_factor(synapse: Synapse | None) -> float:
    """Return what a sum over the window must be multiplied with to be what the synapse gives."""
    return 1 / float(np.prod(synapse.kernel_size)) if isinstance(synapse, AvgPool) else 1.0


def summed(layer: Layer) -> Layer:
    """Return a layer whose mean over a window is a sum; others stay."""
    pool = layer.synapse
    if not isinstance(pool, AvgPool):
        return layer
    return replace(layer, synapse=SumPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding))


def with_weights_everywhere(graph: SNNGraph) -> SNNGraph:
    """Give every path of spikes into a neuron exactly one weighted layer."""
    layers: list[Layer] = []
    edges = list(graph.edges)
    for layer in graph.layers:
        if layer.neuron is None or isinstance(layer.synapse, WEIGHTED):
            layers.append(layer)
            continue
        if isinstance(layer.synapse, (*POOLS, Flatten)) or len(graph.incoming(layer.name)) == 1:
            layer, extra = _split_identity(graph, layer)
            if extra is not None:
                layers.append(extra)
                edges = [replace(e, target=extra.name) if e.target == layer.name else e for e in edges]
                edges.append(Edge(source=extra.name, target=layer.name))
            layers.append(layer)
            continue
        for edge in graph.incoming(layer.name):
            if weights_behind(graph, edge.source):
                continue
            identity = Layer(name=f"{edge.source}_to_{layer.name}", synapse=_unit(graph.shape_of(edge.source)))
            layers.append(identity)
            edges.remove(edge)
            edges += [replace(edge, target=identity.name), Edge(source=identity.name, target=layer.name)]
        layers.append(layer)
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _split_identity(graph: SNNGraph, layer: Layer) -> tuple[Layer, Layer | None]:
    source = graph.incoming(layer.name)[0].source
    if all(weights_behind(graph, e.source) for e in graph.incoming(layer.name)):
        return layer, None
    if isinstance(layer.synapse, (*POOLS, Flatten)):
        what = "flatten" if isinstance(layer.synapse, Flatten) else "pool"
        extra = Layer(name=f"{layer.name}_{what}", synapse=layer.synapse)
        return replace(layer, synapse=_unit(graph.shape_of(layer.name))), extra
    return replace(layer, synapse=_unit(graph.shape_of(source))), None


def _unit(shape: tuple[int, ...]) -> Scale:
    return Scale(weight=np.ones((shape[0], *(1 for _ in shape[1:]))))


def weights_behind(graph: SNNGraph, name: str) -> bool:
    """Say whether what a layer emits is a current: it comes from weights with no neuron after them."""
    if name == INPUT or graph[name].neuron is not None:
        return False
    if isinstance(graph[name].synapse, WEIGHTED):
        return True
    return any(weights_behind(graph, edge.source) for edge in graph.incoming(name))
