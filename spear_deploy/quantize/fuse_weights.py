"""Which weights act on each other's sums? Two maps with no neuron between them are one, and a chip holds only the one.

    Linear ─► LIFRecurrentCell(input weights)       W = W2 · W1,  b = W2 · b1 + b2
    Conv ─► pool ─► 1 x 1 Conv ─► neuron            one kernel, strides multiplied
    several such ways into one layer                a layer of weights for each, whose currents add up

What is merged is equal in exact arithmetic: the products are formed in float64. So in floating point a current differs from that
of the network before by the rounding of its own sum, no more. What is not exact stays as it is: a convolution that pads with
zeros behind other weights than a pointwise convolution without bias (its border sees no bias, and no positions beyond the first
one's), weights behind a bias that comes late, and loops that hold no neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import POOLS, WEIGHTED, Array, AvgPool, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, Shape, Synapse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, free_name
from spear_deploy.simulator import synapse_math

MAX_WEIGHTS = 1 << 26
"""The largest matrix that merging may make: 512 MiB in float64."""

CHUNK = 256
"""Inputs whose weights are unrolled at a time."""


def merge_weights(graph: SNNGraph) -> SNNGraph:
    """Return the network with one map between neurons wherever that is exact.

    An integer network stays as it is, and so do layers with batch norm, which is folded before.

    >>> from spear_deploy.network.graph import chain
    >>> from spear_deploy.network import IF
    >>> first = Layer(name="a", synapse=Dense(weight=np.array([[2.0], [1.0]])))
    >>> second = Layer(name="b", synapse=Dense(weight=np.array([[3.0, 1.0]])), neuron=IF())
    >>> merge_weights(chain([first, second], input_shape=(1,)))["b"].synapse.weight.tolist()
    [[7.0]]
    """
    left: set[Edge] = set()
    while not graph.is_integer:
        edge = next((edge for edge in chained_weights(graph) if edge not in left), None)
        if edge is None:
            break
        merged = _merged(graph, edge)
        if merged is None:
            left.add(edge)
        else:
            graph = merged
    return graph


def chained_weights(graph: SNNGraph) -> list[Edge]:
    """Return the edges over which a current, what weights give and no neuron took, reaches weights again."""
    targets = (edge for edge in graph.edges if isinstance(graph[edge.target].synapse, WEIGHTED))
    return [edge for edge in targets if _is_current(graph, edge.source, frozenset())]


def _is_current(graph: SNNGraph, name: str, passed: frozenset[str]) -> bool:
    if name == INPUT or graph[name].neuron is not None or name in passed:
        return False
    if isinstance(graph[name].synapse, WEIGHTED) or graph[name].norm is not None:
        return True
    return any(_is_current(graph, edge.source, passed | {name}) for edge in graph.incoming(name))


def _merged(graph: SNNGraph, edge: Edge) -> SNNGraph | None:
    """Return the network with the map before an edge taken into the one behind it, or None where that is not exact."""
    first, second = graph[edge.source], graph[edge.target]
    late_bias = edge.delay and getattr(first.synapse, "bias", None) is not None
    if late_bias or first.norm is not None or _in_loop(graph, first.name):
        return None
    if len(graph.incoming(second.name)) > 1:
        return _split(graph, second)
    synapse = composed(first.synapse, second.synapse, graph.input_shape_of(first.name))
    if synapse is None:
        return None
    edges = [e for e in graph.edges if e != edge]
    edges += [replace(e, target=second.name, delay=e.delay + edge.delay) for e in graph.incoming(first.name)]
    needed = first.name == graph.output or any(e.source == first.name for e in edges)
    layers = [
        replace(layer, synapse=synapse) if layer is second else layer for layer in graph.layers if needed or layer is not first
    ]
    return replace(graph, layers=tuple(layers), edges=tuple(e for e in edges if needed or first.name not in (e.source, e.target)))


def _in_loop(graph: SNNGraph, name: str) -> bool:
    """Say whether a layer reaches itself through layers without neurons."""
    seen: set[str] = set()
    waiting = [edge.target for edge in graph.outgoing(name)]
    while waiting:
        here = waiting.pop()
        if here == name:
            return True
        if here not in seen and graph[here].neuron is None:
            seen.add(here)
            waiting += [edge.target for edge in graph.outgoing(here)]
    return False


def _split(graph: SNNGraph, layer: Layer) -> SNNGraph | None:
    """Give every edge into a layer a copy of its weights; their currents add up in the layer, the bias comes with the first."""
    synapse: Any = layer.synapse
    taken = {other.name for other in graph.layers}
    copies: list[Layer] = []
    edges = [e for e in graph.edges if e.target != layer.name]
    for edge in graph.incoming(layer.name):
        base = f"{layer.name}.{edge.source}"
        name = free_name(base, taken)
        taken.add(name)
        copies.append(Layer(name=name, synapse=replace(synapse, bias=None if copies else synapse.bias)))
        edges += [replace(edge, target=name), Edge(source=name, target=layer.name)]
    layers = [other for other in graph.layers if other is not layer]
    return replace(graph, layers=(*layers, *copies, replace(layer, synapse=None)), edges=tuple(edges))


# ----------------------------------------------------------------------------------------------------------- the maps


def composed(first: Synapse | None, second: Synapse | None, shape: Shape) -> Synapse | None:
    """Return the one map that two are, for inputs of the given shape; None where no single synapse is.

    The result is in the type that both weights have together.
    """
    if first is None or second is None:
        return first if second is None else second
    types = [part.weight.dtype for part in (first, second) if isinstance(part, WEIGHTED)]
    if not types:
        return None  # nothing to take the other in
    dtype = np.result_type(*types)
    middle = first.output_shape(shape)
    if isinstance(second, Dense) or isinstance(first, Dense):
        made: Any = _dense(first, second, shape, middle)
    elif isinstance(first, Scale) and isinstance(second, Scale):
        factor = second.weight.astype(np.float64)
        made = Scale(weight=first.weight * factor, bias=_sum(None if first.bias is None else first.bias * factor, second.bias))
    else:
        made = _convolution(first, second, shape, middle)
    if made is None:
        return None
    bias = None if made.bias is None else np.asarray(made.bias).astype(dtype)
    result: Synapse = replace(made, weight=made.weight.astype(dtype), bias=bias)
    return result


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b


def _dense(first: Any, second: Any, shape: Shape, middle: Shape) -> Dense | None:
    """Multiply the matrices; whatever is not one is unrolled, some inputs at a time."""
    inputs, outputs = int(np.prod(shape)), int(np.prod(second.output_shape(middle)))
    if len(second.output_shape(middle)) > 1 or inputs * outputs > MAX_WEIGHTS:
        return None
    bare_first, bare_second = (replace(p, bias=None) if isinstance(p, WEIGHTED) else p for p in (first, second))
    weight = np.empty((outputs, inputs))
    for start in range(0, inputs, CHUNK):
        unit = np.eye(min(CHUNK, inputs - start), inputs, start).reshape(-1, *shape)
        weight[:, start : start + len(unit)] = synapse_math.apply(bare_second, synapse_math.apply(bare_first, unit)).T
    nothing = synapse_math.apply(second, synapse_math.apply(first, np.zeros((1, *shape))))[0]
    biased = any(getattr(part, "bias", None) is not None for part in (first, second))
    return Dense(weight=weight, bias=nothing if biased else None)


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

    def ungrouped(self) -> _Kernel:
        """Return it with a zero for every pair of channels that are in different groups."""
        o, i = self.weight.shape[0] // self.groups, self.weight.shape[1]
        full = np.zeros((self.weight.shape[0], i * self.groups, *self.sizes))
        for g in range(self.groups):
            full[g * o : (g + 1) * o, g * i : (g + 1) * i] = self.weight[g * o : (g + 1) * o]
        return replace(self, weight=full, groups=1)


def _kernel(synapse: Any, shape: Shape) -> _Kernel | None:
    dims, channels = len(shape) - 1, shape[0]
    ones, zeros = (1,) * dims, (0,) * dims
    if isinstance(synapse, POOLS):
        value = 1 / np.prod(synapse.kernel_size) if isinstance(synapse, AvgPool) else 1.0
        weight = np.full((channels, 1, *synapse.kernel_size), value)
        strides: Any = synapse.stride
        return _Kernel(weight=weight, bias=None, stride=strides, padding=synapse.padding, dilation=ones, groups=channels)  # type: ignore[arg-type]
    if isinstance(synapse, Scale):
        parts = [synapse.weight, *([] if synapse.bias is None else [synapse.bias])]
        if any(np.broadcast_shapes(part.shape, (1,) * len(shape))[1:] != ones for part in parts):
            return None  # it differs between positions
        weight = np.broadcast_to(synapse.weight, (channels, *ones)).astype(np.float64)[:, None]
        bias = None if synapse.bias is None else np.broadcast_to(synapse.bias, (channels, *ones)).reshape(-1)
        return _Kernel(weight=weight, bias=bias, stride=ones, padding=zeros, dilation=ones, groups=channels)
    if isinstance(synapse, (Conv1d, Conv2d)):
        names = ("bias", "stride", "padding", "dilation", "groups")
        return _Kernel(weight=synapse.weight.astype(np.float64), **{name: getattr(synapse, name) for name in names})
    return None


def _convolution(first: Synapse, second: Synapse, shape: Shape, middle: Shape) -> Synapse | None:
    """Return the convolution that two are: kernels convolved, strides multiplied."""
    dims = len(shape) - 1
    a, b = (None, None) if isinstance(first, Flatten) or dims not in (1, 2) else (_kernel(first, shape), _kernel(second, middle))
    if a is None or b is None:
        return None
    pointwise = set(a.sizes) == {1} and not any(a.padding)
    if any(b.padding) and not (pointwise and a.bias is None):
        return None
    groups = b.groups if a.depthwise else a.groups if b.depthwise else 1
    if not (a.depthwise or b.depthwise):
        a, b = a.ungrouped(), b.ungrouped()
    geometry = [_axis(*axis) for axis in zip(a.sizes, a.stride, a.dilation, b.sizes, b.dilation, strict=True)]
    weight = _kernels_convolved(a, b, groups, geometry)
    late = None if a.bias is None else _through(b, a.bias)
    padding = tuple(p + s * q for p, s, q in zip(a.padding, a.stride, b.padding, strict=True))
    kind: Any = Conv1d if dims == 1 else Conv2d
    made: Synapse = kind(
        weight=weight,
        bias=_sum(late, b.bias),
        stride=tuple(s * t for s, t in zip(a.stride, b.stride, strict=True)),
        padding=padding,
        dilation=tuple(step for _, step in geometry),
        groups=groups,
    )
    return made


def _axis(size: int, stride: int, dilation: int, size_behind: int, dilation_behind: int) -> tuple[int, int]:
    """Return (taps, distance between them) of two kernels along one axis: every place that both together reach."""
    step = stride * dilation_behind
    if size == 1:
        return size_behind, step
    if size_behind == 1:
        return size, dilation
    return step * (size_behind - 1) + dilation * (size - 1) + 1, 1


def _kernels_convolved(a: _Kernel, b: _Kernel, groups: int, geometry: list[tuple[int, int]]) -> Array:
    """Sum over the channels between for every pair of taps."""
    between = a.weight.shape[0]
    inputs = a.weight.shape[1] * a.groups
    outputs = b.weight.shape[0]
    weight = np.zeros((outputs, inputs // groups, *(taps for taps, _ in geometry)))
    for k in np.ndindex(*b.sizes):
        for j in np.ndindex(*a.sizes):
            reach = zip(k, j, a.stride, a.dilation, b.dilation, geometry, strict=True)
            place = tuple((s * e * m + d * n) // step for m, n, s, d, e, (_, step) in reach)
            tap_a, tap_b = a.weight[_at(j)], b.weight[_at(k)]
            if a.depthwise:  # the channel between is the input: (outputs, inputs of a group) times one weight an input
                per_input = tap_a[:, 0].reshape(b.groups, 1, -1)
                block = (tap_b.reshape(b.groups, outputs // b.groups, -1) * per_input).reshape(outputs, -1)
            elif b.depthwise:  # the channel between is the output
                block = tap_b.reshape(between, 1) * tap_a
            else:
                block = tap_b @ tap_a
            weight[_at(place)] += block
    return weight


def _at(place: tuple[int, ...]) -> Any:
    """Return the index of one tap, of all channels."""
    return (slice(None), slice(None), *place)


def _through(b: _Kernel, bias: Array) -> Array:
    """Return what a kernel makes of a constant per channel."""
    total = b.weight.reshape(b.groups, b.weight.shape[0] // b.groups, b.weight.shape[1], -1).sum(axis=-1)
    passed: Array = np.einsum("goi,gi->go", total, bias.astype(np.float64).reshape(b.groups, -1))
    return passed.reshape(-1)
