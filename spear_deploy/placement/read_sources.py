"""Which source neurons have a weight that is not 0 onto the neurons of a box, and onto how many boxes.

What `Projection.count_fan_out(box) > 0` says, without a look at each weight: the kernel positions of one pair of channels are the
bits of a number, and so are those through which a position reaches the box, of which a map has a few different sets. A source
neuron at a position is read where the two numbers have a bit in common:

    or over the outputs o of the box (bits of the weights of o and c)  and  bits of the position ≠ 0

Of dense weights the columns that hold one are marked, of sparse ones those that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from typing import Any

import numpy as np

from spear_deploy.network import Array, SparseMatrix
from spear_deploy.placement.axes import Axis, identity_axis
from spear_deploy.placement.projections import Projection, Range, pack_bits, sum_over_taps

MAX_TAPS = 64
"""Kernel positions that fit into a number; larger kernels are counted by their weights."""


def mark_read(p: Projection, box: Sequence[Range]) -> Array:
    """Mark the source neurons that the neurons of a box read: bool, of the source's shape."""
    if p.kind == "dense" and p.nonzero is not None:
        return _mark_columns(p, *box[0])
    if not _has_bits(p, box):
        return p.count_fan_out(box) > 0
    patterns = _find_patterns(p.axes, tuple((along,) for along in box[1:]))
    read = _is_read(p, box[0], patterns)
    for axis, counts in enumerate(patterns.counts):  # of one piece, of which each position has one set
        read = read.take(counts.argmax(axis=1), axis=1 + axis)
    return read


def count_read(p: Projection, box: Sequence[Range]) -> int:
    """Count the source neurons that the neurons of a box read."""
    if not _has_bits(p, box):
        key: object = tuple(box)
        if key not in p.read_counts:
            p.read_counts[key] = int(np.count_nonzero(mark_read(p, box)))
        return p.read_counts[key]
    patterns = _find_patterns(p.axes, tuple((along,) for along in box[1:]))
    key = (*box[0], patterns.key)
    if key not in p.read_counts:
        p.read_counts[key] = int((_is_read(p, box[0], patterns).reshape(-1, patterns.bits.size) @ patterns.positions).sum())
    return p.read_counts[key]


def count_boxes_that_read(p: Projection, pieces: Sequence[Sequence[Range]]) -> Array:
    """Count the boxes, cut along each axis into pieces, that read each source neuron: int64, of the source's shape."""
    boxes = product(*pieces)
    if not _has_bits(p, next(iter(product(*pieces)))):
        return reduce(np.add, (mark_read(p, box).astype(np.int64) for box in boxes))
    patterns = _find_patterns(p.axes, tuple(tuple(along) for along in pieces[1:]))
    read = sum(_is_read(p, piece, patterns).astype(np.int64) for piece in pieces[0])
    return sum_over_taps(np.asarray(read), patterns.counts)


# -------------------------------------------------------------------------------------------------------------- inside


@dataclass(frozen=True, kw_only=True, eq=False)
class _Patterns:
    """The different sets of kernel positions through which input positions reach pieces of an output map.

    Attributes:
        bits: of each combination of sets along the axes, uint64 (sets of axis 0, sets of axis 1).
        counts: along each axis, pieces that an input position reaches through each set: int64 (inputs, sets).
        positions: of each combination, in a row, how many pairs of an input position and a piece have it.
        key: bits and positions, which are alike for most places inside a map.
    """

    bits: Array
    counts: tuple[Array, ...]
    positions: Array
    key: bytes


def _mark_columns(p: Projection, start: int, stop: int) -> Array:
    """Mark the source neurons of which a row start..stop of dense weights holds a column that is not 0, through pools."""
    nonzero: Any = p.nonzero
    if isinstance(nonzero, SparseMatrix):
        columns = np.zeros(nonzero.shape[1], bool)
        columns[nonzero.indices[nonzero.indptr[start] : nonzero.indptr[stop]]] = True
    else:
        columns = nonzero[start:stop].any(axis=0)
    marks: Array = columns.reshape(p.source_channels, *(axis.outputs for axis in p.pool_axes))
    if all(axis == identity_axis(axis.inputs) for axis in p.pool_axes):
        return marks
    return sum_over_taps(marks.astype(np.int64), [axis.match_windows().T for axis in p.pool_axes]) > 0


def _has_bits(p: Projection, box: Sequence[Range]) -> bool:
    return p.nonzero is not None and p.kind != "dense" and len(box) == len(p.axes) + 1 and p.taps <= MAX_TAPS


def _is_read(p: Projection, outputs: Range, patterns: _Patterns) -> Array:
    """Return whether a source channel is read by a range of outputs through each combination of sets: bool (channels, *sets)."""
    bits = p.join_tap_bits(*outputs)
    read: Array = (bits.reshape(-1, *(1,) * patterns.bits.ndim) & patterns.bits) != 0
    return read


@lru_cache(maxsize=4096)
def _find_patterns(axes: tuple[Axis, ...], pieces: tuple[tuple[Range, ...], ...]) -> _Patterns:
    sets, counts = [], []
    for axis, along in zip(axes, pieces, strict=True):
        rows = np.concatenate([axis.match_outputs(*piece) for piece in along])
        found, which = np.unique(rows, axis=0, return_inverse=True)
        reached = np.zeros((axis.inputs, len(found)), np.int64)
        np.add.at(reached, (np.tile(np.arange(axis.inputs), len(along)), which.reshape(-1)), 1)
        sets.append(found)
        counts.append(reached)
    marks = np.ones((), bool)
    for found in sets:  # (sets, taps) of each axis to (*sets, *taps)
        marks = np.logical_and.outer(marks, found)
    marks = marks.transpose([*range(0, 2 * len(sets), 2), *range(1, 2 * len(sets), 2)])
    bits = pack_bits(marks.reshape(*(len(found) for found in sets), -1))
    sums = [reached.sum(axis=0) for reached in counts]
    positions = np.asarray(reduce(np.multiply.outer, sums, np.ones((), np.int64))).reshape(-1)
    return _Patterns(bits=bits, counts=tuple(counts), positions=positions, key=bits.tobytes() + positions.tobytes())
