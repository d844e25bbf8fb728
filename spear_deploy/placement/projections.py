"""Projections: sizes of the synapses between two neuron layers, pools included.

Pools and flattens between neuron layers are no neurons of a chip: a spike's synapses reach through them, so they are part
of the projection (a k × k convolution behind a p × p pool is a convolution with k·p × k·p positions). Chips that pool by
themselves store the kernel alone, so the extent of the kernel is kept too.

In a graph a delay belongs to an edge, on a chip to a synapse. Files with delays of single neurons or synapses are therefore
read as one `Dense` for each delay, all between the same two layers, whose non-zero weights never overlap: together they are
the weights of one list of synapses, each with its delay. `merge_delay_splits` makes them one projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.network import Array, AvgPool, Conv1d, Conv2d, Dense, Shape, SparseMatrix, SumPool, Weights, make_sparse
from spear_deploy.network.graph import INPUT, SNNGraph

Kind: TypeAlias = Literal["dense", "conv", "one_to_one"]
Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis of a convolution, with the pools before and behind it.

    Output position o takes the input positions `o · stride + tap − padding` in 0..used − 1. `used` is less than `inputs` where
    the last positions fill no whole window of a pool. `overlaps` where a tap stands for several: windows of pools and kernels
    behind each other reach one position on several ways.
    """

    inputs: int
    outputs: int
    used: int
    taps: tuple[int, ...] = (0,)
    stride: int = 1
    padding: int = 0
    overlaps: bool = False

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs, self.used, self.taps, self.stride, self.padding))

    def __hash__(self) -> int:
        return self._hash

    def compose(self, outputs: int, taps: Sequence[int], stride: int, padding: int) -> Axis:
        """Return the axis followed by another one."""
        composed = {a + b * self.stride for a in self.taps for b in taps}
        return Axis(
            inputs=self.inputs,
            outputs=outputs,
            used=min(self.used, (self.outputs - 1) * self.stride + max(self.taps) - self.padding + 1),
            taps=tuple(sorted(composed)),
            stride=self.stride * stride,
            padding=self.padding + padding * self.stride,
            overlaps=self.overlaps or len(composed) < len(self.taps) * len(taps),
        )

    def mark_inputs(self, start: int, stop: int) -> Array:
        """Mark the input positions that the output positions start..stop read: bool (inputs,)."""
        positions = (np.arange(start, stop)[:, None] * self.stride + np.array(self.taps) - self.padding).ravel()
        marks = np.zeros(self.inputs, bool)
        marks[positions[(positions >= 0) & (positions < self.used)]] = True
        return marks

    def match_inputs(self) -> Array:
        """Mark the taps through which an output position reads an input: bool (outputs, taps)."""
        positions = np.arange(self.outputs)[:, None] * self.stride + np.array(self.taps) - self.padding
        return (positions >= 0) & (positions < self.used)

    def match_outputs(self) -> Array:
        """Mark the taps through which an input position reaches an output: bool (inputs, taps)."""
        offset = np.arange(self.inputs)[:, None] + self.padding - np.array(self.taps)
        outputs = offset // self.stride
        marks = (offset % self.stride == 0) & (outputs >= 0) & (outputs < self.outputs)
        marks[self.used :] = False
        return marks


def identity_axis(n: int) -> Axis:
    """Return the axis on which each output position reads the input at the same position."""
    return Axis(inputs=n, outputs=n, used=n)


@lru_cache(maxsize=65536)
def count_inputs(axis: Axis, start: int, stop: int) -> int:
    """Count the input positions that the output positions start..stop read."""
    return int(axis.mark_inputs(start, stop).sum())


@lru_cache(maxsize=65536)
def count_pairs(axis: Axis, start: int, stop: int) -> int:
    """Count the pairs of an output position in start..stop and an input position that it reads."""
    return int(axis.match_inputs()[start:stop].sum())


@dataclass(frozen=True, kw_only=True)
class SpikeSource:
    """A population (or `INPUT`) whose spikes enter a projection.

    Attributes:
        delay_steps: delay on a chip with steps, beyond the one step that each layer takes.
        async_delay_steps: delay on a chip without steps, where only a loop takes one.
    """

    name: str
    delay_steps: int
    async_delay_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Synapses between neuron layers.

    Attributes:
        layer: the layer that holds the weights.
        kind: "dense": each input has weights to all targets; "conv": weights shared over positions; "one_to_one": one
            weight for each target, whose sources are a window where a pool stands beside the weights.
        sources: populations whose spikes arrive.
        channels: input channels of a convolution; inputs of a dense layer, counted in front of its pools.
        outputs: output channels, or neurons.
        groups: of a convolution.
        axes: spatial axes of a convolution.
        is_elementwise: whether the path holds nothing but one weight per channel or neuron.
        input_group, kernel_group, output_group: the groups of coupled channels (`channel_groups.Group`) of `channels`,
            `kernel_channels` and `outputs`, or "".
        kernel: extent of the weights without the pools in front: taps along each axis of a convolution, positions
            of the map that a dense layer reads.
        kernel_channels: input channels of the kernel that one output reads.
        input_map, output_map: positions of the map in front of the weights and of the map behind them, pools left out.
        map_channels: of a dense layer: the channels of its sources, which it reads at positions; None where each input is one.
        pool_axes: of a dense layer: the axes of the pools in front of it.
        signed: whether a weight is below 0.
        mixed_delays: whether synapses from one neuron differ in delay.
        synapses_per_pair: synapses that connect two neurons at most, on a chip where some sums of weights are not one synapse.
        nonzero: which weights are not zero, bool (outputs, kernel channels, *taps or *positions), or a `SparseMatrix`
            (outputs, kernel channels · positions); None where all are, or where zeros do not matter.
    """

    layer: str
    kind: Kind
    sources: tuple[SpikeSource, ...]
    channels: int
    outputs: int
    groups: int = 1
    axes: tuple[Axis, ...] = ()
    is_elementwise: bool = False
    input_group: str = ""
    kernel_group: str = ""
    output_group: str = ""
    kernel: Shape = ()
    kernel_channels: int = 1
    input_map: Shape = ()
    output_map: Shape = ()
    map_channels: int | None = None
    pool_axes: tuple[Axis, ...] = ()
    mixed_delays: bool = False
    synapses_per_pair: int = 1
    signed: bool = field(default=True, compare=False)
    nonzero: Weights | None = field(default=None, compare=False, repr=False)

    @property
    def delay_steps(self) -> int:
        """Longest delay of a source."""
        return max((source.delay_steps for source in self.sources), default=0)

    @cached_property
    def taps(self) -> int:
        """Kernel positions."""
        return int(np.prod([len(axis.taps) for axis in self.axes], dtype=np.int64))

    @property
    def source_channels(self) -> int:
        """Channels of the sources."""
        return self.channels if self.map_channels is None else self.map_channels

    @property
    def tap_counts(self) -> tuple[int, ...]:
        """Kernel positions along each axis."""
        return tuple(len(axis.taps) for axis in self.axes)

    @cached_property
    def fan_in(self) -> Array:
        """Count the synapses that reach each neuron: int64, (outputs, *positions) or (neurons,), read-only.

        Where no weight is zero all channels are alike, and the array is a view of one of them.
        """
        positions = tuple(axis.outputs for axis in self.axes)
        if self.kind == "dense":
            if self.nonzero is None:
                return np.broadcast_to(np.int64(self.channels), (self.outputs,))
            if isinstance(self.nonzero, SparseMatrix):
                reads = _outer([axis.match_inputs().sum(axis=1) for axis in self.pool_axes]).reshape(-1)
                return self.nonzero.astype(np.int64).sum_products(np.tile(reads, self.nonzero.shape[1] // len(reads)))
            counts = self.nonzero.sum(axis=1, dtype=np.int64)
            for axis in reversed(self.pool_axes):
                counts = counts @ axis.match_inputs().sum(axis=1)
            return counts
        if self.nonzero is None:
            one = np.int64(self.channels // self.groups) * _outer([_inputs_of_outputs(axis) for axis in self.axes])
            return np.broadcast_to(one, (self.outputs, *positions))
        taps = self.nonzero.sum(axis=1, dtype=np.int64)
        return _sum_over_taps(taps, [axis.match_inputs() for axis in self.axes])

    @cached_property
    def fan_out(self) -> Array:
        """Count the synapses that leave each neuron of its source: int64, of the source's shape, read-only.

        A source in front of a pool has the synapses of all windows that hold it; where no weight is zero, a target that two
        windows reach counts once, and the array is a view of one channel.
        """
        positions = tuple(axis.inputs for axis in self.axes)
        if self.kind == "dense":
            outputs, nonzero, axes = self.outputs, self.nonzero, self.pool_axes
            windows = [
                np.stack([axis.mark_inputs(window, window + 1) for window in range(axis.outputs)], axis=1) for axis in axes
            ]
            shape = (self.source_channels, *(axis.outputs for axis in axes))
            if nonzero is None:
                one = np.minimum(outputs * _outer([window.sum(axis=1) for window in windows]), outputs)
                return np.broadcast_to(one, (shape[0], *one.shape))
            return np.minimum(_sum_over_taps(nonzero.sum(axis=0, dtype=np.int64).reshape(shape), windows), outputs)
        groups, into, out = self.groups, self.channels // self.groups, self.outputs // self.groups
        if self.nonzero is None:
            one = np.int64(out) * _outer([_outputs_of_inputs(axis) for axis in self.axes])
            return np.broadcast_to(one, (self.channels, *positions))
        grouped = self.nonzero.reshape(groups, out, into, *self.tap_counts).sum(axis=1, dtype=np.int64)
        taps = grouped.reshape(self.channels, *self.tap_counts)
        return _sum_over_taps(taps, [axis.match_outputs() for axis in self.axes])

    @property
    def passes_several(self) -> bool:
        """Return whether two neurons may be connected by several weights of the layer, which pools or windows add up."""
        if self.kind == "dense":
            return any(max(axis.match_outputs().sum(axis=1), default=0) > 1 for axis in self.pool_axes)
        return any(axis.overlaps for axis in self.axes)

    @property
    def from_input(self) -> bool:
        """Whether only the network's input arrives."""
        return all(source.name == INPUT for source in self.sources)

    def narrow(self, group: str, channels: int, left: int) -> Projection:
        """Return the projection with the first `left` of the `channels` channels of a group of coupled channels."""
        if group not in (self.input_group, self.kernel_group, self.output_group):
            return self

        def scale(n: int, own_group: str) -> int:
            return n * left // channels if own_group == group else n

        outputs, into = scale(self.outputs, self.output_group), scale(self.kernel_channels, self.kernel_group)
        return replace(
            self,
            channels=scale(self.channels, self.input_group),
            outputs=outputs,
            groups=outputs if self.groups == self.outputs else self.groups,
            kernel_channels=into,
            map_channels=None if self.map_channels is None else scale(self.map_channels, self.input_group),
            nonzero=select_nonzero(self.nonzero, (0, outputs), (0, into), self.kernel_channels),
        )


def unite_nonzero(parts: Sequence[Projection]) -> Weights | None:
    """Return which weights are not zero in a part (`Projection.nonzero`); the union is sparse where a mask is."""
    masks = [part.nonzero for part in parts if part.nonzero is not None]
    if len(masks) < len(parts):
        return None
    if any(isinstance(mask, SparseMatrix) for mask in masks):  # which has rows and columns alone
        masks = [mask if isinstance(mask, SparseMatrix) else make_sparse(mask.reshape(len(mask), -1)) for mask in masks]
    return reduce(np.logical_or, masks)


def select_nonzero(nonzero: Weights | None, outputs: Range, into: Range, channels: int) -> Weights | None:
    """Return which weights are not zero (`Projection.nonzero`) of a range of outputs and a range of the kernel's channels."""
    if isinstance(nonzero, SparseMatrix):
        positions = nonzero.shape[1] // channels
        into = into[0] * positions, into[1] * positions
    return None if nonzero is None else nonzero[slice(*outputs), slice(*into)]


def drop_single_positions(p: Projection) -> Projection:
    """Return a projection without the axes on which each of one position reads the only one there is."""
    left = tuple(axis for axis in p.axes if axis != identity_axis(1))
    if p.kind == "dense" or len(left) == len(p.axes):
        return p
    nonzero = p.nonzero if p.nonzero is None else p.nonzero.reshape(*p.nonzero.shape[:2], *(len(axis.taps) for axis in left))
    return replace(p, axes=left, nonzero=nonzero)


@lru_cache(maxsize=4096)
def _inputs_of_outputs(axis: Axis) -> Array:
    """Count the taps through which each output position reads an input."""
    counts: Array = axis.match_inputs().sum(axis=1)
    return counts


@lru_cache(maxsize=4096)
def _outputs_of_inputs(axis: Axis) -> Array:
    """Count the taps through which each input position reaches an output."""
    counts: Array = axis.match_outputs().sum(axis=1)
    return counts


def _outer(factors: Sequence[Array]) -> Array:
    """Return the products of factors along each axis: int64, one axis for each."""
    product: Array = np.ones((), np.int64)
    for factor in factors:
        product = np.multiply.outer(product, factor)
    return product


def _sum_over_taps(counts: Array, matches: Sequence[Array]) -> Array:
    """Sum counts by tap over the taps of each position: (channels, *taps) to (channels, *positions)."""
    for axis, match in enumerate(matches):
        counts = np.moveaxis(np.tensordot(counts, match.astype(np.int64), axes=([1 + axis], [1])), -1, 1 + axis)
    return counts


# ---------------------------------------------------------------------------------------------- projections from synapses


class ProjectionBuilder:
    """Composes the synapses on a path into one projection: sizes, and which weights are not zero.

    Attributes:
        kernel_axes: axes of the last convolution and of the pools behind it.
        is_mixed: whether weights that mix channels were added.
    """

    def __init__(self, shape: Shape) -> None:
        self.kind: Kind = "conv"
        self.channels = self.outputs = self.groups = shape[0]
        self.axes = [identity_axis(n) for n in shape[1:]]
        self.kernel_axes = [identity_axis(n) for n in shape[1:]]
        self.kernel_channels = 1
        self.map_channels: int | None = None
        self.pool_axes: tuple[Axis, ...] = ()
        self.nonzero: Weights | None = None
        self.kernel: Shape | None = None
        self.is_mixed = False
        self.input_map: Shape = ()
        self.output_map: Shape = ()

    def add_dense(self, outputs: int, nonzero: Weights | None) -> None:
        """Add all-to-all weights."""
        positions = [count_inputs(axis, 0, axis.outputs) for axis in self.axes]
        self.kernel, self.kernel_channels = tuple(axis.outputs for axis in self.axes), self.outputs
        if self.kind != "dense":
            self.pool_axes, self.map_channels = tuple(self.axes), self.channels
            self.channels *= int(np.prod(positions, dtype=np.int64))  # 0 where windows lie in the padding alone
        self.kind, self.outputs, self.groups, self.axes = "dense", outputs, 1, []
        known = None if self.is_mixed else nonzero
        self.nonzero = known if known is None or isinstance(known, SparseMatrix) else known.reshape(outputs, -1, *self.kernel)
        self.is_mixed = True

    def add_conv(self, synapse: Conv1d | Conv2d, after: Shape, nonzero: Array | None) -> None:
        """Add a convolution that gives the shape `after`."""
        before, stride, padding = self.axes, synapse.stride, synapse.padding
        taps = [[d * j for j in range(k)] for k, d in zip(synapse.weight.shape[2:], synapse.dilation, strict=True)]
        self.axes = _compose_axes(before, after, taps, stride, padding)
        self.kernel_axes = _compose_axes([identity_axis(axis.outputs) for axis in before], after, taps, stride, padding)
        self.input_map, self.output_map = tuple(axis.outputs for axis in before), tuple(after[1:])
        self.kernel_channels = self.outputs // synapse.groups
        self.outputs, self.groups = after[0], synapse.groups
        self.kind, self.nonzero = "conv", None
        if nonzero is not None and not self.is_mixed:
            offsets = [
                [[a + b * axis.stride for a in axis.taps] for b in along] for axis, along in zip(before, taps, strict=True)
            ]
            self.nonzero = _spread_taps(nonzero, offsets, [axis.taps for axis in self.axes])
        self.is_mixed = True

    def add_scale(self, weight: Array, after: Shape) -> None:
        """Add a weight for each value of the shape `after`; behind weights that mix channels it is part of those.

        It is one for each neuron where it differs inside a channel, also of a map that is flattened.
        """
        by_channel = np.broadcast_to(weight, after).reshape(self.outputs, -1)
        if not self.is_mixed and (by_channel != by_channel[:, :1]).any():
            self.kind = "one_to_one"

    def add_pool(self, synapse: SumPool | AvgPool, after: Shape, *, behind_weights: bool) -> None:
        """Add a pool that gives the shape `after`, in front of the weights or behind them."""
        before = self.axes
        windows = [list(range(k)) for k in synapse.kernel_size]
        stride = synapse.stride or synapse.kernel_size
        padding = synapse.padding if isinstance(synapse.padding, tuple) else (synapse.padding,) * len(windows)
        self.axes = _compose_axes(before, after, windows, stride, padding)
        if behind_weights:
            self.kernel_axes = _compose_axes(self.kernel_axes, after, windows, stride, padding)
        if self.nonzero is not None:
            offsets = [
                [[a + b * axis.stride for b in along] for a in axis.taps] for axis, along in zip(before, windows, strict=True)
            ]
            self.nonzero = _spread_taps(self.nonzero, offsets, [axis.taps for axis in self.axes])

    @property
    def extent(self) -> Shape:
        """Extent of the weights without the pools in front."""
        return tuple(len(axis.taps) for axis in self.kernel_axes) if self.kernel is None else self.kernel


def _compose_axes(axes: Sequence[Axis], after: Shape, taps: list[list[int]], stride: Shape, padding: Shape) -> list[Axis]:
    return [axis.compose(n, t, s, p) for axis, n, t, s, p in zip(axes, after[1:], taps, stride, padding, strict=True)]


def _spread_taps(nonzero: Array, offsets: list[list[list[int]]], taps: list[tuple[int, ...]]) -> Array:
    """Return the non-zero weights at the composed `taps`: the k-th tap of an axis lies at all of its `offsets[k]`."""
    for axis, (axis_offsets, composed) in enumerate(zip(offsets, taps, strict=True)):
        if axis_offsets == [[tap] for tap in composed]:
            continue  # in place: masks of large weights are not copied
        moved = np.moveaxis(nonzero, 2 + axis, 0)
        spread = np.zeros((len(composed), *moved.shape[1:]), bool)
        for k, positions in enumerate(axis_offsets):
            for position in positions:
                spread[composed.index(position)] |= moved[k]
        nonzero = np.moveaxis(spread, 0, 2 + axis)
    return nonzero


# ------------------------------------------------------------------------------------------------------------- delays


def merge_delay_splits(graph: SNNGraph, projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """Merge dense projections between the same two layers that share no synapse; the result has the longest delay."""
    sets: dict[tuple[object, ...], list[Projection]] = {}
    for projection in projections:
        names = tuple(source.name for source in projection.sources)
        is_dense = projection.kind == "dense" and isinstance(graph[projection.layer].synapse, Dense)
        key = (names, projection.pool_axes, projection.channels) if is_dense else (id(projection),)
        sets.setdefault(key, []).append(projection)
    merged: list[Projection] = []
    for parts in sets.values():
        merged += [_merge(parts, graph)] if len(parts) > 1 and _are_disjoint(graph, parts) else parts
    return tuple(merged)


def _are_disjoint(graph: SNNGraph, parts: Sequence[Projection]) -> bool:
    """Return whether no weight is non-zero in two of the layers."""
    union: Weights | None = None
    for part in parts:
        mask = _weight(graph, part) != 0
        if union is not None and (union.shape != mask.shape or bool((union & mask).any())):
            return False
        union = mask if union is None else union | mask
    return True


def _merge(parts: Sequence[Projection], graph: SNNGraph) -> Projection:
    """Return the projection that holds all parts; its layer is the one with the widest range of weights."""
    sources = tuple(
        SpikeSource(
            name=same[0].name,
            delay_steps=max(source.delay_steps for source in same),
            async_delay_steps=max(source.async_delay_steps for source in same),
        )
        for same in zip(*(part.sources for part in parts), strict=True)
    )
    nonzero = unite_nonzero(parts)
    widest = max(parts, key=lambda part: float(np.abs(_weight(graph, part)).max()))
    signed, mixed = any(part.signed for part in parts), _has_mixed_delays(parts, graph)
    return replace(widest, sources=sources, signed=signed, nonzero=nonzero, mixed_delays=mixed)


def _has_mixed_delays(parts: Sequence[Projection], graph: SNNGraph) -> bool:
    """Return whether a neuron has weights that are not zero in parts of different delays."""
    reading: dict[tuple[SpikeSource, ...], Array] = {}
    for part in parts:
        columns = (_weight(graph, part) != 0).any(axis=0)
        reading[part.sources] = reading.get(part.sources, False) | columns
    return bool((np.sum(list(reading.values()), axis=0) > 1).any())


def _weight(graph: SNNGraph, part: Projection) -> Weights:
    return graph[part.layer].synapse.weight  # type: ignore[union-attr]
