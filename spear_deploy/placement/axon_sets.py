"""Which axons do slices on one core share? A source neuron has one row of a crossbar, whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.layers import Array
from spear_deploy.projections import Axis, Projection, plain_axis
from spear_deploy.synapse_memory import Box, axons_of


@dataclass(frozen=True, kw_only=True)
class AxonSet:
    """Source neurons that have an axon into a core of which slices share the rows: a box of their layer.

    Attributes:
        sources: their layers.
        channels: range of their channels.
        ranges: along each axis of positions which output positions take them.
        count: axons.
    """

    sources: tuple[str, ...]
    channels: tuple[int, int]
    ranges: tuple[tuple[Axis, int, int], ...]
    count: int


def axon_set(p: Projection, box: Box) -> AxonSet:
    """Return the source neurons that reach a box."""
    sources = tuple(sorted(source.name for source in p.sources))
    channels: tuple[int, int] = (0, p.channels)
    ranges: tuple[tuple[Axis, int, int], ...] = tuple((axis, 0, axis.outputs) for axis in p.axes)
    if p.kind == "dense":
        channels, ranges = (0, p.source_channels), tuple((axis, 0, axis.outputs) for axis in p.front)
    elif len(box) == len(p.axes) + 1:
        into, out = p.channels // p.groups, p.outputs // p.groups
        channels = (box[0][0] // out * into, ((box[0][1] - 1) // out + 1) * into)
        axes = [plain_axis(axis.inputs) for axis in p.axes] if p.kind == "one_to_one" else p.axes
        ranges = tuple((axis, *along) for axis, along in zip(axes, box[1:], strict=True))
    return AxonSet(sources=sources, channels=channels, ranges=ranges, count=axons_of(p, box))


def union_count(sets: Sequence[AxonSet]) -> int:
    """Count the axon rows of a core on which several slices lie: a source neuron's row is shared."""
    by_sources: dict[tuple[str, ...], list[AxonSet]] = {}
    for one in dict.fromkeys(sets):
        by_sources.setdefault(one.sources, []).append(one)
    total = 0
    for together in by_sources.values():
        total += together[0].count if len(together) == 1 else _union(together)
    return total


def _union(sets: Sequence[AxonSet]) -> int:
    """Count source neurons that are in any of some boxes of one layer."""
    most = max(one.channels[1] for one in sets)
    seen = np.zeros((most, *(axis.inputs for axis, _, _ in sets[0].ranges)), bool)
    for one in sets:
        inside: Array = np.zeros(most, bool)
        inside[slice(*one.channels)] = True
        for axis, start, stop in one.ranges:
            inside = inside[..., None] & axis.reached(start, stop)
        seen |= inside
    return int(seen.sum())
