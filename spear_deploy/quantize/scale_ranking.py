"""Scales of a layer ranked by the rounding error that they leave.

The error of a scale is the mean of (scaled − rint(scaled))² over the different values that are not 0, in floating-point units,
summed over weights, thresholds and biases. 0 is exact at every scale: it has no say, whether it is stored or not. Most scales are
ruled out without the error:

    the points half between two integers, of all scales, cut the sorted values into segments (count n, mean m, squares S about m)
    error of a scale c   (Σ c² S + n (c m − rint(c m))²) / Σ n          up to rounding, without another look at the values

Only scales that could still be among the first are summed over all values, in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from spear_deploy.network import Array
from spear_deploy.quantize.scaled_weights import BLOCK

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""What the error from segments may be off, in squared steps of the integers: 2^-53 · 127 a value, with a wide margin."""
SUM_BLOCK = 8192
"""Values summed at a time: the buffer of numpy 1's reductions, so that a sum has the bits of `np.mean` over the whole array."""
FEW_VALUES = 512
"""Values up to which all scales are summed in one call: a loop over scales costs more than the sums."""
MIN_VALUES_PER_POINT = 4
"""Values for each point that cuts them from which segments pay."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Floating-point values and the step between the integers that may stand for them.

    Attributes:
        values: different ones, in ascending order, float64.
        step: between two integers.
    """

    values: Array
    step: float


def rank_scales(grids: Sequence[Grid], max_scale: float, factors: Array, *, count: int | None = None) -> Array:
    """Return scales in the order of the rounding error that they leave, the smallest error first; of equal ones the larger.

    Where weights, thresholds and biases are multiples of one number, and the format is fine enough, the first scale is exact.

    Args:
        grids: values and steps.
        max_scale: the largest scale that fits the format.
        factors: on `max_scale`, to try, the largest first.
        count: how many scales are wanted; all unless given.
    """
    grids = [grid for grid in map(_drop_zero, grids) if len(grid.values)]
    scales = max_scale * factors
    if count is None or count >= len(scales):
        candidates = np.arange(len(scales))
    else:
        candidates = _candidates(grids, scales, count)
    errors = sum((_rounding_errors(grid, scales[candidates]) for grid in grids), start=np.zeros(len(candidates)))
    ranked: Array = scales[candidates[np.argsort(errors, kind="stable")]]
    return ranked[:count]


def find_near_best(values: Array, scales: Array, above: float) -> Array:
    """Return the indices, in ascending order, of the scales whose error is at most `above` more than the least.

    The error is Σ (rint(scale · value) / scale − value)² here: each value counts as often as it is there.

    Args:
        values: magnitudes, sorted in place.
        scales: to choose from.
        above: far more than rounding moves a sum of errors.
    """
    values.sort()
    grid, above = Grid(values=values, step=1), above / len(values)
    errors, slack = _estimate_errors(grid, scales)
    candidates = np.flatnonzero(errors - slack <= (errors + slack).min() + above)
    exact = _rounding_errors(grid, scales[candidates])
    return candidates[exact <= exact.min() + above]


def _drop_zero(grid: Grid) -> Grid:
    """Return the grid without the value 0; where that is the first, as it is of magnitudes, nothing is copied."""
    values = grid.values
    at = int(np.searchsorted(values, 0))
    if at == len(values) or values[at] != 0:
        return grid
    return replace(grid, values=np.delete(values, at) if at else values[1:])


def _candidates(grids: Sequence[Grid], scales: Array, count: int) -> Array:
    """Return the indices of the scales that may be among the first `count`, in ascending order."""
    low, high = np.zeros(len(scales)), np.zeros(len(scales))
    for grid in grids:
        errors, slack = _estimate_errors(grid, scales)
        low += errors - slack
        high += errors + slack
    return np.flatnonzero(low <= np.sort(high)[count - 1])


def _estimate_errors(grid: Grid, scales: Array) -> tuple[Array, Array]:
    """Return the rounding error of each scale, and by how much it may be off."""
    values = grid.values
    units = scales / grid.step
    points = [np.arange(np.floor(values[0] * unit), np.ceil(values[-1] * unit)) for unit in units] if _pays(grid, units) else []
    if not points:
        return _rounding_errors(grid, scales), np.zeros(len(scales))
    cuts = np.concatenate([(whole + 0.5) / unit for whole, unit in zip(points, units, strict=True)])
    starts = np.unique(np.concatenate([np.searchsorted(values, cuts), np.arange(0, len(values), BLOCK)]))
    starts = starts[starts < len(values)]
    counts = np.diff(starts, append=len(values))
    means, squares = _moments(values, starts, counts)
    errors = np.empty(len(scales))
    for k, unit in enumerate(units):
        scaled = means * unit
        errors[k] = float((squares * unit**2 + counts * (scaled - np.rint(scaled)) ** 2).sum()) / len(values)
    return errors / units**2, (RELATIVE * errors + ABSOLUTE) / units**2


def _pays(grid: Grid, units: Array) -> bool:
    points = float((grid.values[-1] - grid.values[0]) * units.sum()) + len(units)
    return points * MIN_VALUES_PER_POINT < len(grid.values)


def _moments(values: Array, starts: Array, counts: Array) -> tuple[Array, Array]:
    """Return the mean of each segment, and the sum of squares about it; a segment lies in one block."""
    means, squares = np.empty(len(starts)), np.empty(len(starts))
    blocks = np.searchsorted(starts, np.arange(0, len(values) + BLOCK, BLOCK))
    for number, (first, last) in enumerate(pairwise(blocks)):
        part = values[number * BLOCK : (number + 1) * BLOCK]
        inside, sizes = starts[first:last] - number * BLOCK, counts[first:last]
        means[first:last] = np.add.reduceat(part, inside) / sizes
        off = part - np.repeat(means[first:last], sizes)
        off *= off
        squares[first:last] = np.add.reduceat(off, inside)
    return means, squares


def _rounding_errors(grid: Grid, scales: Array) -> Array:
    """Return the error of each scale; those of few values at once, with the bits that they have one by one."""
    if len(grid.values) > FEW_VALUES:
        return np.array([_rounding_error(grid, scale) for scale in scales])
    units = scales / grid.step
    scaled = units[:, None] * grid.values
    scaled -= np.rint(scaled)
    scaled *= scaled
    means = scaled.sum(axis=1) / len(grid.values)
    return np.array([mean * (grid.step / scale) ** 2 for mean, scale in zip(means, scales, strict=True)])


def _rounding_error(grid: Grid, scale: float) -> float:
    """Return the mean squared rounding error in floating-point units; parts of `SUM_BLOCK` values are added up in order."""
    unit, total = scale / grid.step, 0.0
    buffers = np.empty(SUM_BLOCK), np.empty(SUM_BLOCK)
    for start in range(0, len(grid.values), SUM_BLOCK):
        values = grid.values[start : start + SUM_BLOCK]
        scaled, whole = (buffer[: len(values)] for buffer in buffers)
        np.multiply(values, unit, out=scaled)
        np.rint(scaled, out=whole)
        scaled -= whole
        scaled *= scaled
        total += float(scaled.sum())
    return total / len(grid.values) * (grid.step / scale) ** 2
