"""Pools fused into the weights beside them, where one synapse can stand for several weights.

Behind a convolution, and where its windows overlap, a pool lets several weights lead from a source to a neuron. SpiNNaker 1 has
a word for each synapse in the row of a source: one synapse with the sum of the weights takes the least memory, a spike is
worked on in the least time, and the sum is rounded once. The integers and the PyNN script are both made of these sums.

    Conv ─► pool ─► neuron      one kernel, strides multiplied
    pool ─► Conv ─► neuron      the same
    pool ─► Dense ─► neuron     a source has the sum over the windows that hold it

What no single synapse computes stays as it is: a pool that pads behind a convolution, and a convolution that pads behind
overlapping windows, whose borders differ from the inside. There each weight is a synapse, in the integers as in the script.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Dense, Flatten, Layer, Shape
from spear_deploy.network.graph import INPUT, MAX_DELAY, Edge, SNNGraph
from spear_deploy.network.spike_paths import SpikePath, find_spike_paths
from spear_deploy.quantize.fold import fold_chained_weights, replace_mean_by_sum
from spear_deploy.quantize.fuse_weights import combine_axis, compose_synapses
from spear_deploy.quantize.shared_cells import bound_count

MAX_WEIGHTS = 1 << 24
"""Weights of the largest layer that fusing may make: 128 MiB in float64."""


def fuse_pools(graph: SNNGraph) -> SNNGraph:
    """Return the network with one weight from a source to a neuron on each way, wherever one synapse computes that exactly.

    Args:
        graph: in floating point, without batch norm, with one layer of weights on each way.

    >>> from spear_deploy.network import Conv1d, LIF, SumPool
    >>> from spear_deploy.network.graph import chain
    >>> conv = Layer(name="c", synapse=Conv1d(weight=np.array([[[1.0, 2.0]]])))
    >>> pool = Layer(name="p", synapse=SumPool(kernel_size=(2,), stride=(1,)), neuron=LIF(tau_s=0.01))
    >>> fuse_pools(chain([conv, pool], input_shape=(1, 4)))["c"].synapse.weight.tolist()
    [[[1.0, 3.0, 2.0]]]
    """
    inexact: set[tuple[str, str]] = set()
    while _has_pools(graph):
        try:
            paths = find_spike_paths(graph)
        except UnsupportedError:
            break  # a network that no chip holds
        pair = next((pair for path in paths for pair in _list_pairs(path) if pair not in inexact), None)
        if pair is None:
            break
        is_behind = isinstance(graph[pair[1]].synapse, POOLS)
        fused = _fuse_behind(graph, pair[1]) if is_behind else _fuse_before(graph, *pair)
        if fused is None:
            inexact.add(pair)
        else:
            graph = fused
    return graph


def count_unsummed(graph: SNNGraph) -> dict[str, int]:
    """Return how many synapses connect a source and a neuron at most, by neuron layer where they are several."""
    try:
        if not _has_pools(graph) or all(_bound_synapses(path) <= 1 for path in find_spike_paths(graph)):
            return {}
        fused = graph if graph.is_integer else fuse_pools(_drop_norms(fold_chained_weights(graph)))
        bounds = [(path.target, _bound_synapses(path)) for path in find_spike_paths(fused)]
    except UnsupportedError:
        return {}
    return {target: max(count for name, count in bounds if name == target) for target, count in bounds if count > 1}


# ------------------------------------------------------------------------------------------------------------ inside


def _has_pools(graph: SNNGraph) -> bool:
    """Return whether there are pools, without which ways need not be listed: there may be very many."""
    return any(isinstance(layer.synapse, POOLS) for layer in graph.layers)


def _drop_norms(graph: SNNGraph) -> SNNGraph:
    """Return a network without batch norm, which changes weights but not where they lead."""
    return graph.with_layers(lambda layer: layer if layer.norm is None else replace(layer, norm=None))


def _bound_synapses(path: SpikePath) -> int:
    return bound_count([replace_mean_by_sum(layer).synapse for layer in path.layers])


def _list_pairs(path: SpikePath) -> Iterator[tuple[str, str]]:
    """Yield (weights, pool) and (pool, weights) on a way on which several weights lead from a source to a neuron."""
    weighted = [k for k, layer in enumerate(path.layers) if isinstance(layer.synapse, WEIGHTED)]
    if len(weighted) != 1 or _bound_synapses(path) <= 1:
        return
    (k,) = weighted
    name = path.layers[k].name
    if isinstance(path.layers[k].synapse, CONVS) and len(path.layers) > k + 1:
        behind = path.layers[k + 1]
        if isinstance(behind.synapse, POOLS):
            yield name, behind.name
    before = [layer for layer in path.layers[:k] if not isinstance(layer.synapse, Flatten)]
    if before and isinstance(path.layers[k].synapse, (Dense, *CONVS)):
        yield before[-1].name, name


def _fuse_behind(graph: SNNGraph, name: str) -> SNNGraph | None:
    """Return the network with a pool in all weights whose sum it takes, or None where that is not exact."""
    pool, weights = graph[name], _find_summed_weights(graph, name)
    if weights is None or pool.norm is not None:
        return None
    fused = {layer.name: _compose(layer.synapse, pool.synapse, graph.input_shape_of(layer.name)) for layer in weights}
    if any(synapse is None for synapse in fused.values()):
        return None
    layers = [replace(layer, synapse=fused[layer.name]) if layer.name in fused else layer for layer in graph.layers]
    if pool.neuron is not None or name == graph.output:
        return replace(graph, layers=tuple(replace(layer, synapse=None) if layer.name == name else layer for layer in layers))
    passing = [(into, out) for into in graph.edges_into(name) for out in graph.edges_from(name)]
    if any(into.delay + out.delay > MAX_DELAY for into, out in passing):
        return None
    edges = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    edges += [replace(into, target=out.target, delay=into.delay + out.delay) for into, out in passing]
    return replace(graph, layers=tuple(layer for layer in layers if layer.name != name), edges=tuple(edges))


def _find_summed_weights(graph: SNNGraph, name: str) -> list[Layer] | None:
    """Return the layers of weights whose sum alone a layer takes, each of which feeds nothing else; else None."""
    found: list[Layer] = []
    for edge in graph.edges_into(name):
        if edge.source == INPUT or len(graph.edges_from(edge.source)) != 1 or edge.source == graph.output:
            return None
        layer = graph[edge.source]
        is_plain = layer.neuron is None and layer.norm is None
        if is_plain and isinstance(layer.synapse, CONVS):
            found.append(layer)
            continue
        inner = _find_summed_weights(graph, layer.name) if is_plain and layer.synapse is None else None
        if inner is None:
            return None
        found += inner
    return found


def _fuse_before(graph: SNNGraph, name: str, weights: str) -> SNNGraph | None:
    """Return the network with a pool in the weights behind it, or None where that is not exact."""
    steps, here, passed = 0, weights, []
    while here != name:  # back to the pool, over a flatten
        into = graph.edges_into(here)
        if len(into) != 1 or into[0].source == INPUT:
            return None
        steps, here = steps + into[0].delay, into[0].source
        passed.append(here)
    synapse = _compose(graph[name].synapse, graph[weights].synapse, graph.input_shape_of(name))
    is_late = any(edge.delay + steps > MAX_DELAY for edge in graph.edges_into(name))
    if synapse is None or is_late or any(graph[layer].norm is not None for layer in passed):
        return None
    edges = [edge for edge in graph.edges if edge.target != weights]
    edges += [Edge(source=edge.source, target=weights, delay=edge.delay + steps) for edge in graph.edges_into(name)]
    layers = [replace(layer, synapse=synapse) if layer.name == weights else layer for layer in graph.layers]
    for unread in passed:  # the pool and the flatten go where nothing else reads them
        if unread != graph.output and all(edge.source != unread for edge in edges):
            edges = [edge for edge in edges if edge.target != unread]
            layers = [layer for layer in layers if layer.name != unread]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _compose(first: Any, second: Any, shape: Shape) -> Any:
    """Return the synapse that computes two in a row, in float64; None where none does, or it is too large."""
    if _count_fused(first, second, shape) > MAX_WEIGHTS:
        return None
    return compose_synapses(_widen(first), _widen(second), shape)


def _widen(synapse: Any) -> Any:
    return replace(synapse, weight=synapse.weight.astype(np.float64)) if isinstance(synapse, WEIGHTED) else synapse


def _count_fused(first: Any, second: Any, shape: Shape) -> int:
    """Return how many weights the synapse has that computes a pool and weights, in one order or the other."""
    weights = second if isinstance(first, POOLS) else first
    if isinstance(weights, Dense):
        return prod(shape) * len(weights.weight)
    (size, stride, dilation), (size_behind, _, dilation_behind) = map(_find_window, (first, second))
    axes = zip(size, stride, dilation, size_behind, dilation_behind, strict=True)
    taps = [combine_axis(*axis)[0] for axis in axes]
    return weights.weight.size // prod(_find_window(weights)[0]) * prod(taps)


def _find_window(synapse: Any) -> tuple[Shape, Shape, Shape]:
    """Return size, stride and dilation of a pool or a convolution."""
    if isinstance(synapse, CONVS):
        return synapse.weight.shape[2:], synapse.stride, synapse.dilation
    return synapse.kernel_size, synapse.stride, (1,) * len(synapse.kernel_size)
