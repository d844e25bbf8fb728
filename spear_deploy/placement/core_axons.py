"""Rows of axons on cores: which source neurons each core has, as bits.

A source neuron has one row on a core for each delay, however many of its slices read it. Sources of up to `MAX_MARKED`
neurons are marked one by one, whichever parts of them slices read; of larger ones only slices that read the same part share rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spear_deploy.network import Array
from spear_deploy.placement.axon_sets import AxonSet, mark_sources

MAX_MARKED = 1 << 14
"""Neurons of a source up to which those that a slice reads are marked one by one."""
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""Bits of a byte that are 1."""
FEW = 64
"""Cores that are looked up faster one by one than all together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AxonBits:
    """Source neurons that a slice reads, of one way.

    Attributes:
        key: sources and way, or of large sources the part of them, whose rows are shared.
        count: of source neurons.
        places: the bytes that hold a bit: int64 (bytes,).
        values: those bytes: uint8 (bytes,).
        is_all: whether it is all of the key's part; then no bits are kept.
    """

    key: object
    count: int
    places: Array
    values: Array
    is_all: bool = False


@lru_cache(maxsize=2048)  # a check places a network several times, and an adaptation many that are alike
def find_axon_bits(sets: tuple[AxonSet, ...]) -> tuple[AxonBits, ...]:
    """Return the source neurons of a slice, those of sets whose rows are shared as one."""
    grouped: dict[object, list[AxonSet]] = {}
    for axons in sets:
        key = axons.row if axons.span <= MAX_MARKED else axons.whole
        grouped.setdefault(key, []).append(axons)
    return tuple(_unite(key, members) for key, members in grouped.items())


def _unite(key: object, sets: Sequence[AxonSet]) -> AxonBits:
    if isinstance(key, AxonSet):
        full = next((axons for axons in sets if not axons.used), None)
        if full is not None:
            none = np.zeros(0, np.uint8)
            return AxonBits(key=key, count=full.count, places=none.astype(np.int64), values=none, is_all=True)
        packed = np.bitwise_or.reduce([np.frombuffer(axons.used, np.uint8) for axons in sets])
    else:
        span = max(axons.span for axons in sets)
        marks = np.zeros(span, bool)
        for axons in sets:
            marks[: axons.span] |= mark_sources(axons)
        packed = np.packbits(marks)
    places = np.flatnonzero(packed)
    return AxonBits(key=key, count=int(BITS[packed].sum(dtype=np.int64)), places=places, values=packed[places])


class AxonRows:
    """The rows of one key on each core that has some."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.bits = np.zeros((0, 0), np.uint8)
        self.has_all = np.zeros(0, bool)

    def count_had(self, axons: AxonBits, cores: Array) -> Array:
        """Count the source neurons that each core has already: int64 (cores,), of cores in rising order."""
        had = np.zeros(len(cores), np.int64)
        at, rows = self._find_rows(cores)
        if not len(rows):
            return had
        if axons.is_all:
            shared = self.bits[rows]
        else:
            inside = axons.places < self.bits.shape[1]
            shared = self.bits[rows[:, None], axons.places[inside]] & axons.values[inside]
        had[at] = np.where(self.has_all[rows], axons.count, BITS[shared].sum(axis=1, dtype=np.int64))
        return had

    def _find_rows(self, cores: Array) -> tuple[Array, Array]:
        """Return which of some cores have a row, and their rows; it looks for the fewer in the more."""
        if len(cores) < max(FEW, len(self.places)):
            found = np.array([self.places.get(core, -1) for core in cores.tolist()], np.int64)
            at = np.flatnonzero(found >= 0)
            return at, found[at]
        held = np.fromiter(self.places, np.int64, len(self.places))  # in the order of the rows
        at = np.searchsorted(cores, held).clip(max=len(cores) - 1)
        rows = np.flatnonzero(cores[at] == held)
        return at[rows], rows

    def add(self, axons: AxonBits, core: int) -> None:
        """Add the source neurons to those of a core."""
        row = self.places.setdefault(core, len(self.places))
        width = int(axons.places.max(initial=-1)) + 1
        if row >= len(self.bits) or width > self.bits.shape[1]:
            height = len(self.bits) if row < len(self.bits) else max(8, 2 * row)
            grown = np.zeros((height, max(width, self.bits.shape[1])), np.uint8)
            grown[: len(self.bits), : self.bits.shape[1]] = self.bits
            self.bits, self.has_all = grown, np.append(self.has_all, np.zeros(height - len(self.has_all), bool))
        self.bits[row, axons.places] |= axons.values
        self.has_all[row] |= axons.is_all
