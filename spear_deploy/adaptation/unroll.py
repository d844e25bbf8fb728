"""Maps unrolled to lists: convolutions and pools as dense weights, exactly.

A chip that connects neurons by lists or a crossbar has no positions. Every layer of a map becomes one of C · H · W neurons, in
that order, each synapse the matrix of its weights; pools that lie between weights are multiplied into those behind them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np

from spear_deploy.network import CONVS, POOLS, Array, AvgPool, Dense, Flatten, Layer, Scale, Shape
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, merge_parts, unused_name
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.quantize.fuse_weights import fuse_weights

MAX_WEIGHTS = 1 << 24
"""The largest matrix that is written out: 128 MiB in float64, far beyond the memory of any core."""


def list_maps(graph: SNNGraph, axes: int) -> tuple[str, ...]:
    """Return the layers that take or emit maps of channels and so many axes."""
    return tuple(
        layer.name
        for layer in graph.layers
        if axes + 1 in (len(graph.input_shape_of(layer.name)), len(graph.shape_of(layer.name)))
    )


def can_unroll(graph: SNNGraph, axes: int) -> bool:
    """Return whether no matrix that unrolling makes is larger than `MAX_WEIGHTS`."""
    unrolled = (graph[name] for name in list_maps(graph, axes))
    return all(
        int(np.prod(graph.input_shape_of(layer.name))) * int(np.prod(graph.shape_of(layer.name))) <= MAX_WEIGHTS
        for layer in unrolled
        if isinstance(layer.synapse, (*CONVS, *POOLS))
    )


def unroll_maps(graph: SNNGraph, axes: int) -> SNNGraph:
    """Return the network with lists in place of maps of so many axes: the same spikes, in the order C · H · W.

    Batch norm is folded first, since the positions of a channel no longer share their statistics.

    >>> from spear_deploy.network import IF, Conv1d
    >>> from spear_deploy.network.graph import chain
    >>> conv = Layer(name="c", synapse=Conv1d(weight=np.array([[[1.0, 2.0]]])), neuron=IF())
    >>> unroll_maps(chain([conv], input_shape=(1, 3)), 1)["c"].synapse.weight.tolist()
    [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    graph = fold_batchnorm(graph)
    names = set(list_maps(graph, axes))
    layers = [_unroll_layer(graph, layer) if layer.name in names else layer for layer in graph.layers]
    edges = list(graph.edges)
    if len(graph.input_shape) == axes + 1 and any(edge.source == INPUT for edge in edges):
        flat = unused_name("input_flatten", {layer.name for layer in layers})
        layers.insert(0, Layer(name=flat, synapse=Flatten()))
        edges = [replace(edge, source=flat) if edge.source == INPUT else edge for edge in edges]
        edges.append(Edge(source=INPUT, target=flat))
    return merge_parts(_drop_flattens(fuse_weights(replace(graph, layers=tuple(layers), edges=tuple(edges)))))


def _unroll_layer(graph: SNNGraph, layer: Layer) -> Layer:
    before, after = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
    synapse: Any = layer.synapse
    if isinstance(synapse, (*CONVS, *POOLS)):
        synapse = unroll_synapse(synapse, before)
    elif isinstance(synapse, Scale):
        bias = None if synapse.bias is None else np.broadcast_to(synapse.bias, before).reshape(-1)
        synapse = replace(synapse, weight=np.broadcast_to(synapse.weight, before).reshape(-1), bias=bias)
    return replace(layer, synapse=synapse, neuron=flatten_parameters(layer.neuron, after))


def unroll_synapse(synapse: Any, shape: Shape) -> Dense:
    """Return the dense weights of a convolution or a pool for inputs of a shape, in the type of its weights."""
    after = synapse.output_shape(shape)
    bias, kernel, groups = getattr(synapse, "bias", None), _kernel_of(synapse, shape[0]), getattr(synapse, "groups", shape[0])
    outputs, inputs = kernel.shape[0] // groups, shape[0] // groups
    weight = np.zeros((*after, *shape), kernel.dtype)
    for tap in product(*(range(size) for size in kernel.shape[2:])):
        pairs = [_pair_positions(synapse, axis, at, before=shape[1 + axis], after=after[1 + axis]) for axis, at in enumerate(tap)]
        to, of = (np.ix_(*positions) for positions in zip(*pairs, strict=True))
        for g in range(groups):
            rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
            where: tuple[Any, ...] = (rows, *to, columns, *of)
            at: tuple[Any, ...] = (rows, slice(None), *tap)
            weight[where] = kernel[at]
    dense = weight.reshape(int(np.prod(after)), -1)
    dense.setflags(write=False)
    return Dense(weight=dense, bias=None if bias is None else np.repeat(bias, len(dense) // len(bias)))


def _kernel_of(synapse: Any, channels: int) -> Array:
    """Return the weights of a convolution, or those of a pool: for each channel ones, or the factor of the mean."""
    if isinstance(synapse, CONVS):
        weight: Array = synapse.weight
        return weight
    value = 1 / float(np.prod(synapse.kernel_size)) if isinstance(synapse, AvgPool) else 1.0
    return np.full((channels, 1, *synapse.kernel_size), value)


def _pair_positions(synapse: Any, axis: int, tap: int, *, before: int, after: int) -> tuple[Array, Array]:
    """Return the positions of outputs along an axis whose tap lies within the input, and those of the input that it reads."""
    to = np.arange(after)
    of = to * synapse.stride[axis] + tap * getattr(synapse, "dilation", (1,) * (axis + 1))[axis] - synapse.padding[axis]
    inside = (of >= 0) & (of < before)
    return to[inside], of[inside]


def flatten_parameters(neuron: Any, shape: Shape) -> Any:
    """Return a neuron whose parameters per channel or position are one per neuron of the flattened shape."""
    if neuron is None:
        return None
    changes: dict[str, Array] = {}
    for field in fields(neuron):
        value = getattr(neuron, field.name)
        if isinstance(value, np.ndarray) and value.ndim:
            changes[field.name] = np.broadcast_to(value, shape).reshape(-1).copy()
    return replace(neuron, **changes) if changes else neuron


def _drop_flattens(graph: SNNGraph) -> SNNGraph:
    """Remove each flatten of a list, which changes nothing, unless it is the output."""
    for layer in graph.layers:
        passive = isinstance(layer.synapse, Flatten) and layer.norm is None and layer.neuron is None
        if not passive or layer.name == graph.output or len(graph.input_shape_of(layer.name)) > 1:
            continue
        into, out = graph.edges_into(layer.name), graph.edges_from(layer.name)
        edges = [edge for edge in graph.edges if layer.name not in (edge.source, edge.target)]
        edges += [Edge(source=a.source, target=b.target, delay=a.delay + b.delay) for a in into for b in out]
        if len(set(edges)) == len(edges):  # two equal edges would count once
            graph = replace(graph, layers=tuple(other for other in graph.layers if other is not layer), edges=tuple(edges))
    return graph
