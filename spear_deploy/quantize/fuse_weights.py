"""Two weighted layers without neurons between them, fused into one.

A chip holds only one weighted layer on each way into its neurons.

    Linear ─► LIFRecurrentCell(input weights)       W = W2 · W1,  b = W2 · b1 + b2
    Conv ─► pool ─► 1 x 1 Conv ─► neuron            one kernel, strides multiplied
    Scale ─► pool or flatten ─► weights             the Scale behind the pool, in the weights
    Scale ─► pool ─► neuron                         the Scale behind the pool
    several such ways into one layer                a layer of weights for each, whose currents add up

The fused map is equal in exact arithmetic: the products are formed in float64. In floating point a current differs from that of
the network before by the rounding of its sum, no more. What is not exact stays as it is: a convolution that pads with zeros
behind other weights than a pointwise convolution without bias (its border gets no bias, and no positions beyond the border of
the first), weights behind a bias that arrives with delay, and loops without neurons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np

from spear_deploy.errors import Refusal, UnsupportedError
from spear_deploy.network import POOLS, WEIGHTED, Array, AvgPool, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, Shape, Synapse
from spear_deploy.network.fixed_weights import pass_on_fixed
from spear_deploy.network.graph import INPUT, MAX_DELAY, Edge, SNNGraph, unused_name
from spear_deploy.simulator import synapse_math

MAX_WEIGHTS = 1 << 26
"""The largest matrix that fusing may make: 512 MiB in float64."""

MAX_GROWTH = 4
"""Layers that fusing may make of one: k diamonds in a row have 2^k ways through them, and each becomes a layer."""

CHUNK = 256
"""Inputs whose weights are unrolled at a time."""

FEW = 16
"""Values of a column up to which a product of matrices takes each by itself."""


def fuse_weights(graph: SNNGraph) -> SNNGraph:
    """Return the network with one weighted layer between neurons wherever that is exact.

    An integer network stays as it is, and so do layers with batch norm, which is folded before.

    >>> from spear_deploy.network.graph import chain
    >>> from spear_deploy.network import IF
    >>> first = Layer(name="a", synapse=Dense(weight=np.array([[2.0], [1.0]])))
    >>> second = Layer(name="b", synapse=Dense(weight=np.array([[3.0, 1.0]])), neuron=IF())
    >>> fuse_weights(chain([first, second], input_shape=(1,)))["b"].synapse.weight.tolist()
    [[7.0]]
    """
    inexact: set[Edge] = set()
    max_layers = MAX_GROWTH * len(graph.layers)
    while not graph.is_integer:
        if len(graph.layers) > max_layers:
            raise UnsupportedError(
                Refusal(
                    place="weights without neurons between them",
                    what=f"fused, they make more than {max_layers} layers, {MAX_GROWTH} for each",
                    why="since many ways lead through them",
                    remedy="put a neuron where ways meet",
                )
            )
        edge = next((edge for edge in find_chained_weights(graph) if edge not in inexact), None)
        if edge is None:
            moved = _move_scale_to_neurons(graph)
            if moved is None:
                break
            graph = moved
            continue
        fused = _fuse_over_edge(graph, edge) or _move_scale_over_pool(graph, edge)
        if fused is None:
            inexact.add(edge)
        else:
            graph = fused
    return graph


def find_chained_weights(graph: SNNGraph) -> list[Edge]:
    """Return the edges over which the current of a weighted layer, not yet names by a neuron, reaches weights again."""
    into_weights = (edge for edge in graph.edges if isinstance(graph[edge.target].synapse, WEIGHTED))
    return [edge for edge in into_weights if emits_current(graph, edge.source)]


def emits_current(graph: SNNGraph, name: str) -> bool:
    """Say whether a layer emits a current: the output of weights that no neuron has taken yet is among what reaches it."""
    waiting, seen = [name], {name}
    while waiting:
        here = waiting.pop()
        if here == INPUT or graph[here].neuron is not None:
            continue
        if isinstance(graph[here].synapse, WEIGHTED) or graph[here].norm is not None:
            return True
        before = {edge.source for edge in graph.edges_into(here)} - seen
        seen |= before
        waiting += before
    return False


def _fuse_over_edge(graph: SNNGraph, edge: Edge) -> SNNGraph | None:
    """Return the network with the weights before an edge fused into those behind it, or None where that is not exact."""
    first, second = graph[edge.source], graph[edge.target]
    delayed_bias = edge.delay and _find_bias(first.synapse) is not None
    if delayed_bias or first.norm is not None or _in_loop(graph, first.name):
        return None
    if len(graph.edges_into(second.name)) > 1:
        return _split_by_edge(graph, second)
    synapse = compose_synapses(first.synapse, second.synapse, graph.input_shape_of(first.name))
    if synapse is None:
        return None
    edges = [e for e in graph.edges if e != edge]
    edges += [replace(e, target=second.name, delay=e.delay + edge.delay) for e in graph.edges_into(first.name)]
    needed = first.name == graph.output or any(e.source == first.name for e in edges)
    layers = [
        replace(layer, synapse=synapse) if layer is second else layer for layer in graph.layers if needed or layer is not first
    ]
    kept = tuple(e for e in edges if needed or first.name not in (e.source, e.target))
    fused = replace(graph, layers=tuple(layers), edges=kept)
    return pass_on_fixed(fused, {first.name: second.name}) if isinstance(second.synapse, Scale) and not needed else fused


def _move_scale_over_pool(graph: SNNGraph, edge: Edge) -> SNNGraph | None:
    """Return the network with a `Scale` behind a pool or flatten that lies between it and the weights behind an edge.

    It then meets these weights. A factor on a channel is one on the sums and means of its windows; a flatten takes any. None
    where there is no such `Scale`, or where that is not exact.
    """
    behind = graph[edge.source]
    while isinstance(behind.synapse, (*POOLS, Flatten)) and behind.norm is None and behind.name != graph.output:
        into = graph.edges_into(behind.name)
        if len(into) != 1 or into[0].source == INPUT:
            return None
        scale = graph[into[0].source]
        if isinstance(scale.synapse, Scale):
            moved = None if scale.norm is not None or _in_loop(graph, scale.name) else _pass_scale(graph, scale, behind)
            return None if moved is None else _swap(graph, into[0], moved)
        if scale.neuron is not None:
            return None
        behind = scale
    return None


def _move_scale_to_neurons(graph: SNNGraph) -> SNNGraph | None:
    """Return the network with a `Scale` in front of a pool between the pool and its neurons; None where there is none to move.

    Weights of 1 that neurons behind a pool get lie there too, so that both are rounded alike.
    """
    for layer in graph.layers:
        into = graph.edges_into(layer.name)
        has_way = len(into) == 1 and into[0].source != INPUT
        if not has_way or not isinstance(layer.synapse, POOLS) or layer.neuron is None or layer.norm is not None:
            continue
        scale = graph[into[0].source]
        is_plain = isinstance(scale.synapse, Scale) and scale.neuron is None and scale.norm is None
        moved = _pass_scale(graph, scale, layer) if is_plain and not _in_loop(graph, scale.name) else None
        if moved is None:
            continue
        pool = Layer(name=unused_name(f"{layer.name}_pool", {other.name for other in graph.layers}), synapse=layer.synapse)
        edges = [edge for edge in graph.edges if edge != into[0]]
        edges += [replace(into[0], target=pool.name), Edge(source=pool.name, target=layer.name)]
        layers = [replace(other, synapse=None) if other is layer else other for other in graph.layers]
        parted = replace(graph, layers=(*layers, pool), edges=tuple(edges))
        swapped = _swap(parted, replace(into[0], target=pool.name), moved)
        if swapped is not None:
            return swapped
    return None


def _pass_scale(graph: SNNGraph, scale: Layer, behind: Layer) -> Scale | None:
    """Return the `Scale` that does behind a pool or flatten what one does before it, or None where none does."""
    synapse: Any = scale.synapse
    if _find_bias(synapse) is not None:  # a pool takes it as often as a window has positions, a delay at another time
        return None
    shape = graph.shape_of(scale.name)
    if isinstance(behind.synapse, Flatten):
        return Scale(weight=np.broadcast_to(synapse.weight, shape).reshape(-1).copy())
    weight = drop_positions(synapse.weight, len(shape))
    return None if weight is None else Scale(weight=weight.copy())


def _find_bias(synapse: Synapse | None) -> Array | None:
    """Return the bias of a synapse; None where it has none, or zeros, which add nothing in any step."""
    bias: Array | None = getattr(synapse, "bias", None)
    return bias if bias is not None and bias.any() else None


def drop_positions(values: Array, axes: int) -> Array | None:
    """Return values of maps of some axes as one a channel, (C, 1, 1) or (1, 1, 1); None where they differ between positions."""
    values = np.broadcast_to(values, np.broadcast_shapes(values.shape, (1,) * axes))
    at: Any = (slice(None), *(slice(1),) * (axes - 1))
    first = values[at]
    return first if (values == first).all() else None


def _swap(graph: SNNGraph, between: Edge, moved: Scale) -> SNNGraph | None:
    """Return the network whose layer behind an edge reads what the layer before it read, with a `Scale` behind that layer."""
    first, second = between.source, between.target
    if any(e.delay + between.delay > MAX_DELAY for e in graph.edges_into(first)):
        return None
    into = [replace(e, target=second, delay=e.delay + between.delay) for e in graph.edges_into(first)]
    is_needed = first == graph.output or len(graph.edges_from(first)) > 1
    name = unused_name(first, {layer.name for layer in graph.layers}) if is_needed else first
    edges = [e for e in graph.edges if e != between and (is_needed or e.target != first)]
    edges = [replace(e, source=name) if e.source == second else e for e in edges]
    layers = [layer for layer in graph.layers if is_needed or layer.name != first]
    place = [layer.name for layer in layers].index(second) + 1
    layers.insert(place, Layer(name=name, synapse=moved))
    return replace(graph, layers=tuple(layers), edges=tuple([*edges, *into, Edge(source=second, target=name)]))


def _in_loop(graph: SNNGraph, name: str) -> bool:
    """Say whether a layer reaches itself through layers without neurons."""
    visited: set[str] = set()
    waiting = [edge.target for edge in graph.edges_from(name)]
    while waiting:
        here = waiting.pop()
        if here == name:
            return True
        if here not in visited and graph[here].neuron is None:
            visited.add(here)
            waiting += [edge.target for edge in graph.edges_from(here)]
    return False


def _split_by_edge(graph: SNNGraph, layer: Layer) -> SNNGraph | None:
    """Give every edge into a layer a copy of its weights; their currents add up in the layer, the first copy has the bias."""
    synapse: Any = layer.synapse
    names = {other.name for other in graph.layers}
    copies: list[Layer] = []
    edges = [e for e in graph.edges if e.target != layer.name]
    for edge in graph.edges_into(layer.name):
        base = f"{layer.name}.{edge.source}"
        name = unused_name(base, names)
        names.add(name)
        copies.append(Layer(name=name, synapse=replace(synapse, bias=None if copies else synapse.bias)))
        edges += [replace(edge, target=name), Edge(source=name, target=layer.name)]
    layers = [other for other in graph.layers if other is not layer]
    return replace(graph, layers=(*layers, *copies, replace(layer, synapse=None)), edges=tuple(edges))


# ------------------------------------------------------------------------------------------------------ fused synapses


def compose_synapses(first: Synapse | None, second: Synapse | None, shape: Shape) -> Synapse | None:
    """Return the synapse that computes two in a row for inputs of a shape, or None where no single synapse does.

    The weights are of numpy's common type of both.
    """
    if first is None or second is None:
        return first if second is None else second
    types = [part.weight.dtype for part in (first, second) if isinstance(part, WEIGHTED)]
    if not types:
        return None
    dtype = np.result_type(*types)
    middle = first.output_shape(shape)
    if isinstance(second, Dense) or isinstance(first, Dense):
        fused: Any = _compose_dense(first, second, shape, middle)
    elif isinstance(first, Scale) and isinstance(second, Scale):
        factor = second.weight.astype(np.float64)
        bias = None if first.bias is None else first.bias * factor
        fused = Scale(weight=first.weight * factor, bias=_add_biases(bias, second.bias))
    else:
        fused = _compose_convolutions(first, second, shape, middle)
    if fused is None:
        return None
    bias = None if fused.bias is None else np.asarray(fused.bias).astype(dtype)
    weight = fused.weight.astype(dtype, copy=False)
    if isinstance(weight, np.ndarray):
        weight.setflags(write=False)  # so that the layer takes it without a copy
    result: Synapse = replace(fused, weight=weight, bias=bias)
    return result


def _add_biases(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b


def _compose_dense(first: Any, second: Any, shape: Shape, middle: Shape) -> Dense | None:
    """Multiply the matrices; a synapse of another kind is unrolled, `CHUNK` inputs at a time, a plain pool by repetition."""
    inputs, outputs = int(np.prod(shape)), int(np.prod(second.output_shape(middle)))
    if inputs * outputs > MAX_WEIGHTS:
        return None
    if isinstance(first, POOLS) and isinstance(second, Dense) and _is_plain_pool(first):
        return replace(second, weight=_repeat_over_windows(first, second.weight, shape, middle))
    if all(isinstance(part, Dense) and isinstance(part.weight, np.ndarray) for part in (first, second)):
        weight = _multiply(second.weight, first.weight)
    else:
        weight = _unroll_both(first, second, shape, outputs)
    weight.setflags(write=False)
    if all(getattr(part, "bias", None) is None for part in (first, second)):
        return Dense(weight=weight)
    constant = synapse_math.apply_synapse(second, synapse_math.apply_synapse(first, np.zeros((1, *shape))))[0]
    return Dense(weight=weight, bias=constant)


def _unroll_both(first: Any, second: Any, shape: Shape, outputs: int) -> Array:
    """Return the matrix (outputs, inputs) of two synapses in a row: what both make of one input at a time."""
    inputs = int(np.prod(shape))
    bare_first, bare_second = (replace(p, bias=None) if isinstance(p, WEIGHTED) else p for p in (first, second))
    weight = np.empty((outputs, inputs))
    for start in range(0, inputs, CHUNK):
        unit = np.eye(min(CHUNK, inputs - start), inputs, start).reshape(-1, *shape)
        response = synapse_math.apply_synapse(bare_second, synapse_math.apply_synapse(bare_first, unit))
        weight[:, start : start + len(unit)] = response.T
    return weight


def _multiply(second: Array, first: Array) -> Array:
    """Return second · first in float64. Where a column of the first has few values, as in a pool written out, by these alone."""
    values = np.count_nonzero(first, axis=0)
    if values.max(initial=0) > FEW:
        return np.matmul(second.astype(np.float64, copy=False), first.astype(np.float64, copy=False))
    columns, rows = np.nonzero(first.T)
    number = np.arange(len(columns)) - np.repeat(np.cumsum(values) - values, values)  # of the value in its column
    weight = np.zeros((len(second), first.shape[1]))
    for k in range(values.max(initial=0)):
        source, factor = np.zeros(first.shape[1], np.intp), np.zeros(first.shape[1])
        of, to = rows[number == k], columns[number == k]
        source[to], factor[to] = of, first[of, to]
        for start in range(0, len(second), CHUNK):
            part = slice(start, start + CHUNK)
            weight[part] += np.take(second[part], source, axis=1) * factor
    return weight


def _is_plain_pool(pool: Any) -> bool:
    """Return whether the windows of a pool neither overlap nor reach over the border."""
    return pool.stride == pool.kernel_size and not any(pool.padding)


def _repeat_over_windows(pool: Any, weight: Array, shape: Shape, middle: Shape) -> Array:
    """Return dense weights (O, inputs) for what a plain pool reads: each input of a window has the weight of its sum or mean."""
    value = 1 / np.prod(pool.kernel_size) if isinstance(pool, AvgPool) else 1.0
    maps = (weight.astype(np.float64) * value).reshape(-1, *middle)
    for axis, (size, total) in enumerate(zip(pool.kernel_size, shape[1:], strict=True), start=2):
        maps = np.repeat(maps, size, axis=axis)
        left = total - maps.shape[axis]  # positions that fill no whole window are read by none
        maps = np.pad(maps, [(0, left if k == axis else 0) for k in range(maps.ndim)])
    return maps.reshape(len(weight), -1)


@dataclass(frozen=True, kw_only=True)
class _Kernel:
    """A convolution, a pool, or one weight per channel, as a convolution in float64."""

    weight: Array
    bias: Array | None
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @property
    def sizes(self) -> Shape:
        return self.weight.shape[2:]

    @property
    def depthwise(self) -> bool:
        return self.weight.shape[1] == 1 and self.weight.shape[0] == self.groups

    def expand_groups(self) -> _Kernel:
        """Return it with a zero for every pair of channels that are in different groups."""
        o, i = self.weight.shape[0] // self.groups, self.weight.shape[1]
        full = np.zeros((self.weight.shape[0], i * self.groups, *self.sizes))
        for g in range(self.groups):
            full[g * o : (g + 1) * o, g * i : (g + 1) * i] = self.weight[g * o : (g + 1) * o]
        return replace(self, weight=full, groups=1)


def _as_kernel(synapse: Any, shape: Shape) -> _Kernel | None:
    """Return a synapse as a convolution, or None where it is none: its weights differ between positions."""
    dims, channels = len(shape) - 1, shape[0]
    ones, zeros = (1,) * dims, (0,) * dims
    if isinstance(synapse, POOLS):
        value = 1 / np.prod(synapse.kernel_size) if isinstance(synapse, AvgPool) else 1.0
        weight = np.full((channels, 1, *synapse.kernel_size), value)
        strides: Any = synapse.stride
        return _Kernel(weight=weight, bias=None, stride=strides, padding=synapse.padding, dilation=ones, groups=channels)  # type: ignore[arg-type]
    bias: Any = _find_bias(synapse)
    if isinstance(synapse, Scale):
        factor = drop_positions(synapse.weight, len(shape))
        bias = bias if bias is None else drop_positions(bias, len(shape))
        if factor is None or (bias is None and _find_bias(synapse) is not None):
            return None
        weight = np.broadcast_to(factor, (channels, *ones)).astype(np.float64)[:, None]
        bias = bias if bias is None else np.broadcast_to(bias, (channels, *ones)).reshape(-1)
        return _Kernel(weight=weight, bias=bias, stride=ones, padding=zeros, dilation=ones, groups=channels)
    if isinstance(synapse, (Conv1d, Conv2d)):
        names = ("stride", "padding", "dilation", "groups")
        return _Kernel(weight=synapse.weight.astype(np.float64), bias=bias, **{name: getattr(synapse, name) for name in names})
    return None


def _compose_convolutions(first: Synapse, second: Synapse, shape: Shape, middle: Shape) -> Synapse | None:
    """Return the convolution that computes two in a row: kernels convolved, strides multiplied."""
    a, b = _as_kernel(first, shape), _as_kernel(second, middle)
    if a is None or b is None:
        return None
    pointwise = set(a.sizes) == {1} and not any(a.padding)
    if any(b.padding) and not (pointwise and a.bias is None):
        return None
    groups = b.groups if a.depthwise else a.groups if b.depthwise else 1
    if not (a.depthwise or b.depthwise):
        a, b = a.expand_groups(), b.expand_groups()
    geometry = [combine_axis(*axis) for axis in zip(a.sizes, a.stride, a.dilation, b.sizes, b.dilation, strict=True)]
    weight = _convolve_kernels(a, b, groups, geometry)
    passed_bias = None
    if a.bias is not None:  # a constant per channel, through the second kernel
        total = b.weight.reshape(b.groups, b.weight.shape[0] // b.groups, b.weight.shape[1], -1).sum(axis=-1)
        passed_bias = np.einsum("goi,gi->go", total, a.bias.astype(np.float64).reshape(b.groups, -1)).reshape(-1)
    padding = tuple(p + s * q for p, s, q in zip(a.padding, a.stride, b.padding, strict=True))
    kind: Any = Conv1d if len(shape) == 2 else Conv2d
    fused: Synapse = kind(
        weight=weight,
        bias=_add_biases(passed_bias, b.bias),
        stride=tuple(s * t for s, t in zip(a.stride, b.stride, strict=True)),
        padding=padding,
        dilation=tuple(step for _, step in geometry),
        groups=groups,
    )
    return fused


def combine_axis(size: int, stride: int, dilation: int, size_behind: int, dilation_behind: int) -> tuple[int, int]:
    """Return (taps, distance between them) along one axis of two kernels in a row: every position that they reach."""
    step = stride * dilation_behind
    if size == 1:
        return size_behind, step
    if size_behind == 1:
        return size, dilation
    distance = gcd(step, dilation)
    return (step * (size_behind - 1) + dilation * (size - 1)) // distance + 1, distance


def _convolve_kernels(a: _Kernel, b: _Kernel, groups: int, geometry: list[tuple[int, int]]) -> Array:
    """Return the kernel of two in a row: for every pair of taps the sum over the channels between."""
    between = a.weight.shape[0]
    inputs = a.weight.shape[1] * a.groups
    outputs = b.weight.shape[0]
    weight = np.zeros((outputs, inputs // groups, *(taps for taps, _ in geometry)))
    for k in np.ndindex(*b.sizes):
        for j in np.ndindex(*a.sizes):
            axes = zip(k, j, a.stride, a.dilation, b.dilation, geometry, strict=True)
            place = tuple((s * e * m + d * n) // step for m, n, s, d, e, (_, step) in axes)
            tap_a, tap_b = a.weight[_tap_index(j)], b.weight[_tap_index(k)]
            if a.depthwise:  # the channel between is the input: (outputs, inputs of a group) times one weight an input
                per_input = tap_a[:, 0].reshape(b.groups, 1, -1)
                block = (tap_b.reshape(b.groups, outputs // b.groups, -1) * per_input).reshape(outputs, -1)
            elif b.depthwise:  # the channel between is the output
                block = tap_b.reshape(between, 1) * tap_a
            else:
                block = tap_b @ tap_a
            weight[_tap_index(place)] += block
    return weight


def _tap_index(place: tuple[int, ...]) -> Any:
    """Return the index of one tap, of all channels."""
    return (slice(None), slice(None), *place)
