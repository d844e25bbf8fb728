"""Projections as they come from a graph: the layers on a path from neurons to neurons are composed into one.

In a graph a delay belongs to an edge, on a chip to a synapse. Files with delays of single neurons or synapses are therefore
read as one `Dense` for each delay, all between the same two layers, whose non-zero weights never overlap: together they are
the weights of one list of synapses, each with its delay. `merge_delay_splits` makes them one projection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import gcd, prod
from typing import cast

import numpy as np

from spear_deploy.network import Array, AvgPool, Conv1d, Conv2d, Dense, Shape, SparseMatrix, SumPool, Weights
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.axes import Axis, count_inputs, identity_axis
from spear_deploy.placement.projections import Kind, Projection, SpikeSource, unite_nonzero


class ProjectionBuilder:
    """Composes the synapses on a path into one projection: sizes, and which weights are not zero.

    Attributes:
        kernel_axes: axes of the last convolution and of the pools behind it.
        mixing: how many weights that mix channels were added; which of them are not zero is kept of the first alone.
        passing: which values in front of those weights a weight of 0 does not stop: bool, or None where none does.
        fewest_axes: `axes` without the pairs of positions of which a weight of 0 may leave no way.
        is_bound: whether synapses that a weight of 0 stops may be counted, or with `fewest` some left out.
    """

    def __init__(self, shape: Shape, *, fewest: bool = False) -> None:
        self.join = np.all if fewest else np.any
        self.fewest, self.is_bound = fewest, False
        self.kind: Kind = "conv"
        self.channels = self.outputs = self.groups = shape[0]
        self.axes = [identity_axis(n) for n in shape[1:]]
        self.fewest_axes = list(self.axes)
        self.kernel_axes = [identity_axis(n) for n in shape[1:]]
        self.kernel_channels = 1
        self.map_channels: int | None = None
        self.pool_axes: tuple[Axis, ...] = ()
        self.nonzero: Weights | None = None
        self.kernel: Shape | None = None
        self.mixing = 0
        self.passing: Array | None = None
        self.input_map: Shape = ()
        self.output_map: Shape = ()

    def add_dense(self, outputs: int, nonzero: Weights | None) -> None:
        """Add all-to-all weights."""
        positions = [count_inputs(axis, 0, axis.outputs) for axis in self.axes]
        self.kernel, self.kernel_channels = tuple(axis.outputs for axis in self.axes), self.outputs
        if self.kind != "dense":
            self.pool_axes, self.map_channels = tuple(self.axes), self.channels
            self.channels *= int(np.prod(positions, dtype=np.int64))  # 0 where windows lie in the padding alone
        self.kind, self.outputs, self.groups, self.axes, self.fewest_axes = "dense", outputs, 1, [], []
        known = None if self.mixing else nonzero
        self.nonzero = known if known is None or isinstance(known, SparseMatrix) else known.reshape(outputs, -1, *self.kernel)
        if self.passing is not None:
            passing, self.passing = self.passing, None
            if isinstance(self.nonzero, SparseMatrix):
                self.nonzero = self.nonzero * passing.reshape(1, -1)
            else:
                self._mask_nonzero(passing[None])
        self.mixing += 1

    def add_conv(self, synapse: Conv1d | Conv2d, after: Shape, nonzero: Array | None) -> None:
        """Add a convolution that gives the shape `after`."""
        before, stride, padding = self.axes, synapse.stride, synapse.padding
        taps = [[d * j for j in range(k)] for k, d in zip(synapse.weight.shape[2:], synapse.dilation, strict=True)]
        self._add_windows(after, taps, stride, padding)
        self.kernel_axes = _compose_axes([identity_axis(axis.outputs) for axis in before], after, taps, stride, padding)
        self.input_map, self.output_map = tuple(axis.outputs for axis in before), tuple(after[1:])
        self.kernel_channels = self.outputs // synapse.groups
        # of groups behind groups those are left whose borders both have: all that a group of both can read
        self.outputs, self.groups = after[0], gcd(self.groups, synapse.groups)
        self.kind, self.nonzero = "conv", None
        if nonzero is not None and not self.mixing:
            offsets = [
                [[a + b * axis.stride for a in axis.taps] for b in along] for axis, along in zip(before, taps, strict=True)
            ]
            self.nonzero = _spread_taps(nonzero, offsets, [axis.taps for axis in self.axes])
        self.mixing += 1
        if self.passing is not None:  # a channel of which some values pass is read whole
            values = self.passing.reshape(self.groups, -1, prod(self.passing.shape[1:]))
            channels, self.passing = self._join_places(values, axis=2), None
            self._mask_nonzero(np.repeat(channels, self.outputs // self.groups, axis=0))

    def add_scale(self, weight: Array, after: Shape, *, zeros: bool) -> None:
        """Add a weight for each value of the shape `after`; behind weights that mix channels it is part of those.

        It is one for each neuron where it differs inside a channel, also of a map that is flattened.
        """
        by_channel = np.broadcast_to(weight, after).reshape(self.outputs, -1)
        if not self.mixing and (by_channel != by_channel[:, :1]).any():
            self.kind = "one_to_one"
        if not zeros or by_channel.all():
            return
        if self.mixing:
            self._mask_nonzero(self._join_places(by_channel != 0, axis=1)[:, None])
        else:
            passing = (by_channel != 0).reshape(self.outputs, *(axis.outputs for axis in self.axes))
            self.passing = passing if self.passing is None else self.passing & passing

    def finish(self) -> None:
        """Leave out the neurons that a weight of 0 in front of them stops: those of whole channels."""
        if self.passing is not None:
            passing, self.passing = self._join_places(self.passing.reshape(self.outputs, -1), axis=1), None
            self._mask_nonzero(passing[:, None])
        if self.nonzero is not None and self.axes != self.fewest_axes:
            self.is_bound = True
            self.axes = self.fewest_axes if self.fewest else self.axes

    def _join_places(self, passing: Array, axis: int) -> Array:
        """Return which channels pass of whose places some do: all of them, or with `fewest` none."""
        joined: Array = self.join(passing, axis=axis)
        self.is_bound = self.is_bound or not np.array_equal(passing.any(axis=axis), passing.all(axis=axis))
        return joined

    def _add_windows(self, after: Shape, taps: list[list[int]], stride: Shape, padding: Shape) -> None:
        self.axes = _compose_axes(self.axes, after, taps, stride, padding)
        self.fewest_axes = _compose_axes(self.fewest_axes, after, taps, stride, padding, fewest=True)

    def _mask_nonzero(self, mask: Array) -> None:
        """Leave out weights: a mask of (outputs, kernel channels), or with positions; 1 stands for all."""
        if self.mixing > 1:
            return
        positions = self.kernel if self.kind == "dense" else tuple(len(axis.taps) for axis in self.axes)
        shape = (self.outputs, self.kernel_channels, *(positions or ()))
        if isinstance(self.nonzero, SparseMatrix):
            self.nonzero = self.nonzero * mask
            return
        mask = np.broadcast_to(mask.reshape(*mask.shape, *(1,) * (len(shape) - mask.ndim)), shape)
        self.nonzero = mask if self.nonzero is None else self.nonzero & mask

    def add_pool(self, synapse: SumPool | AvgPool, after: Shape, *, behind_weights: bool) -> None:
        """Add a pool that gives the shape `after`, in front of the weights or behind them."""
        before = self.axes
        if self.passing is not None:  # a channel of which some values pass is read whole
            whole = self._join_places(self.passing.reshape(len(self.passing), -1), axis=1)
            self.passing = np.broadcast_to(whole.reshape(-1, *(1,) * (len(after) - 1)), after)
        windows = [list(range(k)) for k in synapse.kernel_size]
        stride, padding = cast("tuple[Shape, Shape]", (synapse.stride, synapse.padding))  # a pool has both along each axis
        self._add_windows(after, windows, stride, padding)
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


def _compose_axes(
    axes: Sequence[Axis], after: Shape, taps: list[list[int]], stride: Shape, padding: Shape, *, fewest: bool = False
) -> list[Axis]:
    steps = zip(axes, after[1:], taps, stride, padding, strict=True)
    return [axis.compose(n, t, s, p, fewest=fewest) for axis, n, t, s, p in steps]


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
        disjoint = len(parts) > 1 and share_no_synapse([_weight(graph, part) for part in parts])
        merged += [_merge(parts, graph)] if disjoint else parts
    return tuple(merged)


def share_no_synapse(weights: Iterable[Weights]) -> bool:
    """Return whether no weight is non-zero in two matrices, (outputs, inputs) each; no where their shapes differ."""
    union: Weights | None = None
    for weight in weights:
        mask = weight != 0
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
