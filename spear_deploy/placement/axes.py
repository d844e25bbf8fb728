"""Axes: along each spatial axis of a map, which input positions an output position reads, through pools and kernels.

Behind each other, windows of pools and kernels are one set of taps: counts of synapses factor into the axes, so that none is
listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from spear_deploy.network import Array


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis of a convolution, with the pools before and behind it.

    Output position o takes the input positions `o · stride + tap − padding` in 0..used − 1. `used` is less than `inputs` where
    the last positions fill no whole window of a pool. `overlaps` where a tap stands for several: windows of pools and kernels
    behind each other reach one position on several ways. `cut` are the pairs (output position, tap) whose ways all lead through
    the padding of a map in between, which holds nothing: a window that hangs over the edge of a convolution's map.
    """

    inputs: int
    outputs: int
    used: int
    taps: tuple[int, ...] = (0,)
    stride: int = 1
    padding: int = 0
    overlaps: bool = False
    cut: tuple[tuple[int, int], ...] = ()

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs, self.used, self.taps, self.stride, self.padding, self.cut))

    def __hash__(self) -> int:
        return self._hash

    def compose(self, outputs: int, taps: Sequence[int], stride: int, padding: int, *, fewest: bool = False) -> Axis:
        """Return the axis followed by another one; `fewest` also cuts the pairs of which some ways lead through the padding."""
        composed = {a + b * self.stride for a in self.taps for b in taps}
        axis = Axis(
            inputs=self.inputs,
            outputs=outputs,
            used=min(self.used, (self.outputs - 1) * self.stride + max(self.taps) - self.padding + 1),
            taps=tuple(sorted(composed)),
            stride=self.stride * stride,
            padding=self.padding + padding * self.stride,
            overlaps=self.overlaps or len(composed) < len(self.taps) * len(taps),
        )
        return replace(axis, cut=self._find_cut(axis, taps, stride, padding, fewest)) if padding or self.cut else axis

    def _find_cut(self, whole: Axis, taps: Sequence[int], stride: int, padding: int, fewest: bool) -> tuple[tuple[int, int], ...]:
        """Return the pairs of a composed axis that no way through a position of this one connects, or not each way."""
        own, connected = self.match_inputs(), np.zeros((whole.outputs, len(whole.taps)), bool)
        missing = np.zeros_like(connected)
        column = {tap: k for k, tap in enumerate(whole.taps)}
        for b in taps:
            between = np.arange(whole.outputs) * stride + b - padding
            inside = np.flatnonzero((between >= 0) & (between < self.outputs))
            columns = np.array([column[a + b * self.stride] for a in self.taps])
            ways = np.zeros((whole.outputs, len(columns)), bool)
            ways[inside] = own[between[inside]]
            connected[:, columns] |= ways
            missing[:, columns] |= ~ways
        cut = missing if fewest else ~connected
        return tuple((int(output), whole.taps[k]) for output, k in np.argwhere(whole.match_inputs() & cut))

    def mark_inputs(self, start: int, stop: int) -> Array:
        """Mark the input positions that the output positions start..stop read: bool (inputs,)."""
        return _mark_inputs(self, start, stop)

    def find_window(self, start: int, stop: int) -> slice:
        """Return the range of input positions in which those lie that the output positions start..stop read."""
        first = max(0, start * self.stride - self.padding + self.taps[0])
        return slice(first, max(first, min(self.used, (stop - 1) * self.stride - self.padding + self.taps[-1] + 1)))

    def match_windows(self) -> Array:
        """Mark the input positions that each output position reads: bool (outputs, inputs)."""
        return np.stack([self.mark_inputs(output, output + 1) for output in range(self.outputs)])

    def match_inputs(self, start: int = 0, stop: int | None = None) -> Array:
        """Mark the taps through which the output positions start..stop read an input: bool (outputs, taps)."""
        positions = self._find_positions(start, self.outputs if stop is None else stop)
        marks: Array = (positions >= 0) & (positions < self.used)
        for output, tap in self.cut:
            if start <= output < start + len(marks):
                marks[output - start, self.taps.index(tap)] = False
        return marks

    def match_outputs(self, start: int = 0, stop: int | None = None) -> Array:
        """Mark the taps through which an input position reaches the output positions start..stop: bool (inputs, taps)."""
        offset = np.arange(self.inputs)[:, None] + self.padding - np.array(self.taps)
        outputs = offset // self.stride
        marks = (offset % self.stride == 0) & (outputs >= start) & (outputs < (self.outputs if stop is None else stop))
        marks[self.used :] = False
        for output, tap in self.cut:
            marks[output * self.stride + tap - self.padding, self.taps.index(tap)] = False
        return marks

    def _find_positions(self, start: int, stop: int) -> Array:
        """Return the input position of each tap, also those outside the map: int64 (outputs, taps)."""
        return np.arange(start, stop)[:, None] * self.stride + np.array(self.taps) - self.padding


def identity_axis(n: int) -> Axis:
    """Return the axis on which each output position reads the input at the same position."""
    return Axis(inputs=n, outputs=n, used=n)


@lru_cache(maxsize=4096)
def _mark_inputs(axis: Axis, start: int, stop: int) -> Array:
    """Return `mark_inputs`, which cannot be written to; a network's slices have few different ranges."""
    marks = np.zeros(axis.inputs, bool)
    marks[axis._find_positions(start, stop)[axis.match_inputs(start, stop)]] = True
    marks.flags.writeable = False
    return marks


@lru_cache(maxsize=65536)
def count_inputs(axis: Axis, start: int, stop: int) -> int:
    """Count the input positions that the output positions start..stop read."""
    return int(axis.mark_inputs(start, stop).sum())


@lru_cache(maxsize=65536)
def count_pairs(axis: Axis, start: int, stop: int) -> int:
    """Count the pairs of an output position in start..stop and an input position that it reads."""
    return int(axis.match_inputs(start, stop).sum())
