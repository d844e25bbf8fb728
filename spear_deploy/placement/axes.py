"""Axes: along each spatial axis of a map, which input positions an output position reads, through pools and kernels.

Behind each other, windows of pools and kernels are one set of taps: counts of synapses factor into the axes, so that none is
listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from spear_deploy.network import Array


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
