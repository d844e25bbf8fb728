"""Weights times the factors of their layer, computed in blocks.

A network of 10⁸ float32 weights takes 0.4 GB, its float64 products would take 0.8 GB each. So the products exist a block at a
time: for their extremes, for their values in order, and for the integers that they round to. Of sparse weights only those that
are stored are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import Array, Scale, SparseMatrix, Weights

BLOCK = 1 << 15
"""Values of a block: 256 KiB in float64, which stay in a core's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledSynapse:
    """A synapse whose weights take factors when they are read.

    Attributes:
        synapse: with the stored weights, of any type.
        factors: the weights are multiplied by them in this order, in float64; each broadcasts to the weights.
        bias: of the scaled synapse, or None.
    """

    synapse: Any
    factors: tuple[Array, ...]
    bias: Array | None

    @property
    def weight(self) -> Weights:
        """All products, float64."""
        weight: Weights = self.synapse.weight.astype(np.float64)
        for factor in self.factors:
            weight = weight * factor
        return weight

    def multiply(self) -> Any:
        """Return the synapse with the products as its weights."""
        return replace(self.synapse, weight=self.weight, bias=self.bias)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield the products in order, flattened: where a block lies, and its values in float64, free to be overwritten.

        Sparse weights: the products of the stored ones, which are not zero.
        """
        stored = self.synapse.weight
        if isinstance(stored, SparseMatrix):
            yield from self._sparse_blocks(stored)
            return
        if isinstance(self.synapse, Scale) or not stored.size:  # the factors may have more axes than the weights
            whole = self.weight.ravel()
            yield slice(0, whole.size), whole
            return
        rows = stored.reshape(len(stored), -1)
        factors = [factor.reshape(-1) for factor in self.factors]
        width = rows.shape[1]
        height = max(1, BLOCK // width)
        for top in range(0, len(rows), height):
            for left in range(0, width, BLOCK):
                part = rows[top : top + height, left : left + BLOCK].astype(np.float64)
                for factor in factors:
                    part *= factor if factor.size == 1 else factor[top : top + height, None]
                start = top * width + left
                yield slice(start, start + part.size), part.reshape(-1)

    def _sparse_blocks(self, stored: SparseMatrix) -> Iterator[tuple[slice, Array]]:
        factors = [factor.reshape(-1) for factor in self.factors]
        for start in range(0, len(stored.data), BLOCK):
            place = slice(start, min(start + BLOCK, len(stored.data)))
            part = stored.data[place].astype(np.float64)
            for factor in factors:
                part *= factor if factor.size == 1 else factor[stored.rows[place]]
            yield place, part

    @property
    def sizes(self) -> tuple[int, int]:
        """Products that `blocks` yields, and whether (1 or 0) there are absent ones besides, which are zero."""
        weight = self.weight if isinstance(self.synapse, Scale) else self.synapse.weight
        if isinstance(weight, SparseMatrix):
            return len(weight.data), int(not weight.all())
        return int(weight.size), 0

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest product."""
        pairs = [(float(part.min()), float(part.max())) for _, part in self.blocks()] + [(0.0, 0.0)] * self.sizes[1]
        return min(low for low, _ in pairs), max(high for _, high in pairs)

    def round(self, scale: float, *, step: float = 1, low: float, high: float) -> Weights:
        """Return step · clip(rint(product · scale / step), low, high), int32, read-only; sparse weights stay sparse."""
        stored = self.synapse.weight
        shape = self.weight.shape if isinstance(self.synapse, Scale) else stored.shape
        rounded = np.empty(len(stored.data) if isinstance(stored, SparseMatrix) else shape, np.int32)
        flat = rounded.reshape(-1)
        for place, part in self.blocks():
            part *= scale
            part /= step
            np.rint(part, out=part)
            np.clip(part, low, high, out=part)
            part *= step
            flat[place] = part
        if isinstance(stored, SparseMatrix):
            return stored.with_data(rounded)
        rounded.setflags(write=False)
        return rounded


def sort_values(synapses: Sequence[ScaledSynapse], *, magnitudes: bool = False) -> Array:
    """Return the different products of several synapses in ascending order, or the different magnitudes of products."""
    sizes = [synapse.sizes for synapse in synapses]
    values = np.empty(sum(stored + absent for stored, absent in sizes))
    start = 0
    for synapse, (stored, absent) in zip(synapses, sizes, strict=True):
        into = values[start : start + stored]
        for place, part in synapse.blocks():
            into[place] = np.abs(part, out=part) if magnitudes else part
        start += stored + absent
        values[start - absent : start] = 0
    return keep_distinct(values)


def keep_distinct(values: Array) -> Array:
    """Sort a flat array in place, move its different values to the front, and return a view of these."""
    values.sort()
    kept = 0
    last = np.nan
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK].copy()
        differs = np.empty(len(part), bool)
        differs[0] = part[0] != last
        np.not_equal(part[1:], part[:-1], out=differs[1:])
        last = part[-1]
        part = part[differs]
        values[kept : kept + len(part)] = part
        kept += len(part)
    return values[:kept]
