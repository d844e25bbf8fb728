"""Source neurons with an axon into a core, and the rows that slices share.

On a crossbar a source neuron has one row, which all slices on the core share. Where several ways lead from it into one layer
each has a row of its own, but on chips with one weight from a neuron to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from spear_deploy.network import Array
from spear_deploy.placement.axes import Axis, identity_axis
from spear_deploy.placement.projections import Projection
from spear_deploy.placement.read_sources import mark_read
from spear_deploy.placement.synapse_memory import Box

ONE_POSITION = identity_axis(1)


@dataclass(frozen=True, kw_only=True)
class AxonSet:
    """Source neurons with an axon into a core on which slices share rows: a box of the source layer.

    Attributes:
        sources: names of the source layers.
        channels: range of their channels.
        ranges: along each axis of positions the output positions start..stop that read them.
        count: axons.
        way: number among the ways from these sources into a layer with that delay, each of which has rows of its own.
        delay_steps: of their spikes: one row serves only slices that take them in the same step.
        used: which neurons of the sources have a weight into the box that is not 0, as bits; empty where all of the ranges have.
        whole_count: axons where all have.
    """

    sources: tuple[str, ...]
    channels: tuple[int, int]
    ranges: tuple[tuple[Axis, int, int], ...]
    count: int
    way: int = 0
    delay_steps: int = 0
    used: bytes = b""
    whole_count: int = 0

    @property
    def row(self) -> tuple[tuple[str, ...], int, int]:
        """What sets that share rows have in common."""
        return self.sources, self.delay_steps, self.way

    @cached_property
    def whole(self) -> AxonSet:
        """The same sources where all have a weight that is not 0."""
        return replace(self, count=self.whole_count, used=b"", whole_count=0) if self.used else self

    @cached_property
    def span(self) -> int:
        """Neurons of the sources, up to the last of its channels."""
        return self.channels[1] * prod(axis.inputs for axis, _, _ in self.ranges)

    @cached_property
    def _hash(self) -> int:
        return hash((self.channels, self.count, *((start, stop) for _, start, stop in self.ranges)))

    def __hash__(self) -> int:
        """Return a hash of the numbers: the same in every process, and kept, since each slice is looked up by it."""
        return self._hash


def find_axon_set(
    p: Projection, box: Box, count: int, way: int = 0, *, skips_zeros: bool = False, delay_steps: int = 0
) -> AxonSet:
    """Return the source neurons that reach a box on one of their ways into the layer.

    Args:
        p: the way.
        box: of the layer.
        count: that of `Core.count_rows`.
        way: number of the way.
        skips_zeros: whether a source whose weights into the box are all 0 takes no row.
        delay_steps: of the way.
    """
    sources = tuple(sorted(source.name for source in p.sources))
    channels: tuple[int, int] = (0, p.channels)
    ranges: tuple[tuple[Axis, int, int], ...]
    used, whole_count = b"", 0
    if p.kind == "dense":
        channels, ranges = (0, p.source_channels), tuple((axis, 0, axis.outputs) for axis in p.pool_axes)
        whole_count = p.channels if skips_zeros and count < p.channels else 0
    elif skips_zeros or is_in_row(p, box):
        ranges = tuple((identity_axis(axis.inputs), 0, axis.inputs) for axis in p.axes)
        whole_count = p.channels * prod(axis.inputs for axis in p.axes)
    else:
        into, out = p.channels // p.groups, p.outputs // p.groups
        channels = (box[0][0] // out * into, ((box[0][1] - 1) // out + 1) * into)
        ranges = tuple((axis, *along) for axis, along in zip(p.axes, box[1:], strict=True))
    if whole_count:
        used = np.packbits(mark_read(p, box).reshape(-1)).tobytes()
    ranges = tuple(along for along in ranges if along[0] != ONE_POSITION)
    return AxonSet(
        sources=sources,
        channels=channels,
        ranges=ranges,
        count=count,
        way=way,
        delay_steps=delay_steps,
        used=used,
        whole_count=whole_count,
    )


def is_in_row(p: Projection, extent: Sequence[Any]) -> bool:
    """Return whether the neurons of a shape or a box stand in a row, though a convolution gives them places on a map."""
    return p.kind != "dense" and len(extent) != len(p.axes) + 1


def count_union(sets: Iterable[AxonSet]) -> int:
    """Count the axon rows of a core on which several slices lie: the row of a source neuron is shared."""
    by_row: dict[tuple[tuple[str, ...], int, int], dict[AxonSet, None]] = {}
    for axons in sets:
        by_row.setdefault(axons.row, {})[axons] = None
    return sum(next(iter(group)).count if len(group) == 1 else _count_marked(list(group)) for group in by_row.values())


def mark_sources(axons: AxonSet) -> Array:
    """Mark the source neurons that have an axon, in a row up to the last of the channels: bool (span,)."""
    marks: Array = np.zeros(axons.channels[1], bool)
    marks[slice(*axons.channels)] = True
    for axis, start, stop in axons.ranges:
        marks = marks[..., None] & axis.mark_inputs(start, stop)
    marks = marks.reshape(-1)
    if axons.used:
        marks = marks & np.unpackbits(np.frombuffer(axons.used, np.uint8), count=len(marks)).astype(bool)
    return marks


def _count_marked(sets: Sequence[AxonSet]) -> int:
    """Count the source neurons in the union of boxes of one layer, whose axes of one position some sets may lack."""
    union = np.zeros(max(axons.span for axons in sets), bool)
    for axons in sets:
        union[: axons.span] |= mark_sources(axons)
    return int(union.sum())
