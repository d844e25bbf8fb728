"""Projections: sizes of the synapses between two neuron layers, pools included.

Pools and flattens between neuron layers are no neurons of a chip: a spike's synapses reach through them, so they are part
of the projection (a k × k convolution behind a p × p pool is a convolution with k·p × k·p positions). Chips that pool by
themselves store the kernel alone, so the extent of the kernel is kept too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.network import Array, Shape, SparseMatrix, Weights, make_sparse, write_out
from spear_deploy.network.graph import INPUT
from spear_deploy.placement.axes import Axis, identity_axis

Kind: TypeAlias = Literal["dense", "conv", "one_to_one"]
Range: TypeAlias = tuple[int, int]
MAX_PAIRS = 1 << 24
"""Pairs of neurons that are listed at a time."""


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
        part: of a kernel that reads the parts of a layer that is split: the part whose channels it holds.
        pool_axes: of a dense layer: the axes of the pools in front of it.
        signed: whether a weight is below 0.
        mixed_delays: whether synapses from one neuron differ in delay.
        is_bound: whether synapses that weights of 0 stop may be counted, or in the fewest that there may be some left out.
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
    part: str = ""
    pool_axes: tuple[Axis, ...] = ()
    mixed_delays: bool = False
    is_bound: bool = False
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
            if self.passes_several:
                return self._count_dense_pairs(0, self.outputs)[0]
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
        return sum_over_taps(taps, [axis.match_inputs() for axis in self.axes])

    @cached_property
    def fan_out(self) -> Array:
        """Count the synapses that leave each neuron of its source: int64, of the source's shape, read-only.

        A source in front of a pool has the synapses of all windows that hold it; a target that two windows reach counts once.
        Where no weight is zero the array is a view of one channel.
        """
        if self.nonzero is not None:
            return self.count_fan_out(tuple((0, n) for n in (self.outputs, *(axis.outputs for axis in self.axes))))
        if self.kind == "dense":
            reached = _outer([axis.match_windows().any(axis=0) for axis in self.pool_axes])
            return np.broadcast_to(self.outputs * reached, (self.source_channels, *reached.shape))
        one = np.int64(self.outputs // self.groups) * _outer([_outputs_of_inputs(axis) for axis in self.axes])
        return np.broadcast_to(one, (self.channels, *(axis.inputs for axis in self.axes)))

    def count_fan_out(self, box: Sequence[Range]) -> Array:
        """Count the synapses that leave each neuron of its source onto the neurons of a box: int64, of the source's shape.

        Args:
            box: start and stop along each axis of (outputs, *positions), or of the neurons in a row.
        """
        if self.kind == "dense":
            (start, stop), nonzero = box[0], self.nonzero
            if nonzero is None:
                return self.fan_out // self.outputs * (stop - start)
            if self.passes_several:
                return self._count_dense_pairs(start, stop)[1]
            shape = (self.source_channels, *(axis.outputs for axis in self.pool_axes))
            windows = [axis.match_windows().T for axis in self.pool_axes]
            return sum_over_taps(nonzero[start:stop].sum(axis=0, dtype=np.int64).reshape(shape), windows)
        total: Array = np.zeros((self.channels, *(axis.inputs for axis in self.axes)), np.int64)
        for (start, stop), *ranges in self.split_box(box):
            out, into = self.outputs // self.groups, self.channels // self.groups
            firsts = np.array([start, *range((start // out + 1) * out, stop, out)])
            if self.nonzero is None:
                counts = np.diff([*firsts, stop]).reshape(-1, *(1,) * (1 + len(ranges)))
                counts = np.broadcast_to(counts, (len(firsts), into, *self.tap_counts))
            elif len(firsts) == 1:  # in a quarter of the time of `reduceat`
                counts = self.nonzero[start:stop].sum(axis=0, dtype=np.int64)
            else:
                counts = np.add.reduceat(self.nonzero[start:stop], firsts - start, axis=0, dtype=np.int64)
            channels = slice(start // out * into, (start // out + len(firsts)) * into)
            places = [axis.find_window(*along) for axis, along in zip(self.axes, ranges, strict=True)]
            matches = [axis.match_outputs(*along)[w] for axis, along, w in zip(self.axes, ranges, places, strict=True)]
            place = (channels, *places)
            total[place] += sum_over_taps(counts.reshape(-1, *self.tap_counts), matches)
        return total

    @cached_property
    def tap_bits(self) -> Array:
        """The kernel positions with weights that are not 0 as bits: uint64 (outputs, kernel channels)."""
        nonzero: Any = self.nonzero
        return pack_bits(nonzero.reshape(self.outputs, -1, self.taps))

    @cached_property
    def read_counts(self) -> dict[object, int]:
        """Counts of `read_sources.count_read`, by outputs and positions, or by box."""
        return {}

    @cached_property
    def _joined_bits(self) -> dict[Range, Array]:
        return {}

    def join_tap_bits(self, start: int, stop: int) -> Array:
        """Return the kernel positions through which each source channel reaches one of the outputs, as bits: uint64 (channels,).

        Kept by range: boxes at other positions ask again.
        """
        if (start, stop) not in self._joined_bits:
            out, into = self.outputs // self.groups, self.channels // self.groups
            bits = np.zeros((self.groups, into), np.uint64)
            for group in range(start // out, -(-stop // out)):
                bits[group] = np.bitwise_or.reduce(self.tap_bits[max(start, group * out) : min(stop, (group + 1) * out)], axis=0)
            self._joined_bits[start, stop] = bits.reshape(-1)
        return self._joined_bits[start, stop]

    def split_box(self, box: Sequence[Range]) -> Sequence[Sequence[Range]]:
        """Return a box of (outputs, *positions), or the boxes that neurons in a row make up."""
        shape = (self.outputs, *(axis.outputs for axis in self.axes))
        return [box] if len(box) == len(shape) else split_row(shape, *box[0])

    def _count_dense_pairs(self, start: int, stop: int) -> tuple[Array, Array]:
        """Count the pairs of neurons that weights of a dense layer connect, behind windows that overlap: fan-in and fan-out."""
        nonzero: Any = self.nonzero
        windows = [axis.match_windows().astype(np.float32) for axis in self.pool_axes]
        shape = (self.source_channels, *(len(window) for window in windows))
        rows = max(1, MAX_PAIRS // prod((self.source_channels, *(axis.inputs for axis in self.pool_axes))))
        fan_in, fan_out = [], np.zeros((self.source_channels, *(axis.inputs for axis in self.pool_axes)), np.int64)
        for first in range(start, stop, rows):
            part = nonzero[first : min(first + rows, stop)]
            part = write_out(part) if isinstance(part, SparseMatrix) else part
            ways = part.reshape(len(part), *shape).astype(np.float32)
            for k, window in enumerate(windows):
                ways = np.moveaxis(np.tensordot(ways, window, axes=([2 + k], [0])), -1, 2 + k)
            fan_in.append(np.count_nonzero(ways, axis=tuple(range(1, ways.ndim))))
            fan_out += np.count_nonzero(ways, axis=0)
        return np.concatenate(fan_in), fan_out

    @property
    def passes_several(self) -> bool:
        """Return whether two neurons may be connected by several weights of the layer, which pools or windows add up."""
        if self.kind == "dense":
            return any(axis.match_outputs().sum(axis=1).max() > 1 for axis in self.pool_axes)
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


def split_row(shape: Shape, start: int, stop: int) -> list[tuple[Range, ...]]:
    """Return boxes that hold the places start..stop of an array of a shape, counted in a row with the last axis fastest.

    >>> split_row((4, 3), 2, 8)
    [((0, 1), (2, 3)), ((1, 2), (0, 3)), ((2, 3), (0, 2))]
    """
    if len(shape) == 1 or start >= stop:
        return [((start, stop),)] if start < stop else []
    inner = prod(shape[1:])
    first, last = -(-start // inner), stop // inner  # rows that are whole
    whole: list[tuple[Range, ...]] = []
    if first < last:
        whole = [((first, last), *((0, n) for n in shape[1:]))]
    ends = [(start, min(stop, first * inner)), (max(start, last * inner), stop)] if first <= last else [(start, stop)]
    parts = [
        [((a // inner, a // inner + 1), *box) for box in split_row(shape[1:], a % inner, a % inner + b - a)] for a, b in ends
    ]
    return [*parts[0], *whole, *(parts[1] if len(parts) > 1 else [])]


def drop_single_positions(p: Projection) -> Projection:
    """Return a projection without the axes on which each of one position reads the only one there is."""
    left = tuple(axis for axis in p.axes if axis != identity_axis(1))
    if len(left) == len(p.axes):  # as of dense weights, which have none
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


def pack_bits(marks: Array) -> Array:
    """Return marks along the last axis, at most 64, as the bits of a number, the first one lowest: uint64."""
    packed = np.packbits(marks, axis=-1, bitorder="little")
    full = np.zeros((*packed.shape[:-1], 8), np.uint8)
    full[..., : packed.shape[-1]] = packed
    return full.view("<u8")[..., 0]


def sum_over_taps(counts: Array, matches: Sequence[Array]) -> Array:
    """Sum counts by tap over the taps of each position: (channels, *taps) to (channels, *positions)."""
    for axis, match in enumerate(matches):
        counts = np.moveaxis(np.tensordot(counts, match.astype(np.int64), axes=([1 + axis], [1])), -1, 1 + axis)
    return counts
