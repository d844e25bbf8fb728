"""Branches of spikes into a layer that adds up currents, and one layer of weights in their place.

exact    layers of weights that read the same neurons   → one layer of weights: their kernels, or matrices, add up
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.kernels import join_groups, spread_taps
from spear_deploy.network import CONVS, WEIGHTED, Conv1d, Conv2d, Dense, Shape
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, merge_parts


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch of spikes into a layer of neurons: from a layer of neurons, through weights or none."""

    source: str
    weights: str = ""


def list_branches(graph: SNNGraph, name: str) -> list[Branch]:
    """Return the branches into a layer that adds up currents; none where one of them is not a plain one without delay."""
    layer, branches = graph[name], list[Branch]()
    if layer.neuron is None or layer.synapse is not None or len(graph.edges_into(name)) < 2:
        return []
    for edge in graph.edges_into(name):
        if edge.delay or edge.source == INPUT:
            return []
        feeds = graph[edge.source]
        if feeds.neuron is not None:
            branches.append(Branch(source=edge.source))
            continue
        into = graph.edges_into(feeds.name)
        is_plain = isinstance(feeds.synapse, WEIGHTED) and len(into) == 1 and len(graph.edges_from(feeds.name)) == 1
        if not is_plain or into[0].delay or into[0].source == INPUT or not graph[into[0].source].spikes:
            return []
        branches.append(Branch(source=into[0].source, weights=feeds.name))
    return branches


def merge_branches(graph: SNNGraph, name: str) -> SNNGraph | None:
    """Return the network in which one layer of weights drives a layer, in place of several that read the same neurons."""
    branches = list_branches(graph, name)
    shape = graph.shape_of(branches[0].source)
    parts = [as_full_weights(graph[branch.weights].synapse if branch.weights else None, shape) for branch in branches]
    if any(part is None for part in parts):
        return None
    merged = parts[0]
    for part in parts[1:]:
        merged = _add_synapses(merged, part)
        if merged is None:
            return None
    if merged.output_shape(shape) != graph.input_shape_of(name):
        return None
    gone = {branch.weights for branch in branches}
    layers = [replace(layer, synapse=merged) if layer.name == name else layer for layer in graph.layers if layer.name not in gone]
    edges = [edge for edge in graph.edges if edge.target != name and edge.target not in gone]
    return merge_parts(replace(graph, layers=tuple(layers), edges=(*edges, Edge(source=branches[0].source, target=name))))


def as_full_weights(synapse: Any, shape: Shape) -> Any:
    """Return weights as a matrix, or as a convolution without groups; None where positions of a map differ."""
    if isinstance(synapse, CONVS):
        return _trim(join_groups(spread_taps(synapse)), shape)
    if isinstance(synapse, Dense):
        return replace(synapse, weight=np.asarray(synapse.weight)) if len(shape) == 1 else None
    weight = np.ones(1, np.float32) if synapse is None else synapse.weight
    bias = None if synapse is None or synapse.bias is None else synapse.bias
    parts = [part for part in (weight, bias) if part is not None]
    axes = len(shape) - 1
    try:
        values = [np.broadcast_to(part, shape) for part in parts]
    except ValueError:
        return None
    if any((np.ptp(value.reshape(shape[0], -1), axis=1) > 0).any() for value in values):
        return None
    column = [value.reshape(shape[0], -1)[:, 0] for value in values]
    full, shift = np.diag(column[0]), column[1] if bias is not None else None
    if not axes:
        return Dense(weight=full, bias=shift)
    kind: Any = Conv1d if axes == 1 else Conv2d
    return kind(weight=full.reshape(*full.shape, *(1,) * axes), bias=shift)


def _trim(synapse: Any, shape: Shape) -> Any:
    """Return a convolution without the zeros around its kernel; itself where that would move or add outputs."""
    taps = np.argwhere(np.abs(synapse.weight).max(axis=(0, 1)))
    if not len(taps):
        return synapse
    first, last = taps.min(axis=0), taps.max(axis=0) + 1
    padding = tuple(int(pad - start) for pad, start in zip(synapse.padding, first, strict=True))
    if min(padding) < 0:
        return synapse
    where = (slice(None), slice(None), *(slice(start, end) for start, end in zip(first, last, strict=True)))
    trimmed = replace(synapse, weight=synapse.weight[where], padding=padding)
    return trimmed if trimmed.output_shape(shape) == synapse.output_shape(shape) else synapse


def _add_synapses(one: Any, other: Any) -> Any:
    """Return weights whose sums are those of both, kernels aligned at the positions that they read; None where strides differ."""
    if type(one) is not type(other):
        return None
    dtype = np.result_type(one.weight.dtype, other.weight.dtype)
    biases = [part.bias for part in (one, other) if part.bias is not None]
    bias = None if not biases else sum(biases[1:], biases[0])
    if isinstance(one, Dense):
        return replace(one, weight=one.weight + other.weight, bias=bias)
    if one.stride != other.stride:
        return None
    axes = range(one.weight.ndim - 2)
    front = tuple(max(one.padding[axis], other.padding[axis]) for axis in axes)
    sizes = tuple(front[axis] + max(part.weight.shape[2 + axis] - part.padding[axis] for part in (one, other)) for axis in axes)
    total = np.zeros((*one.weight.shape[:2], *sizes), dtype)
    for part in (one, other):
        starts = [front[axis] - part.padding[axis] for axis in axes]
        where = tuple(slice(start, start + size) for start, size in zip(starts, part.weight.shape[2:], strict=True))
        total[(slice(None), slice(None)) + where] += part.weight  # noqa: RUF005
    return replace(one, weight=total, bias=bias, padding=front)
