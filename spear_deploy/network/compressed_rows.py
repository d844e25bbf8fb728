"""Matrices in compressed rows: sizes, forms, parts, sums and extremes.

Of a matrix (O, I) only the numbers that are not zero are stored, row by row:

    data     (N,)       the numbers
    indices  (N,)       the column of each, ascending inside a row
    indptr   (O + 1,)   row o is data[indptr[o] : indptr[o + 1]]

An absent number is a zero, and a zero is never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Shape, freeze_array
from spear_deploy.util import memory
from spear_deploy.util.number_format import name_values

Axes: TypeAlias = int | tuple[int, ...] | None
M = TypeVar("M", bound="CompressedRows")
PARTS = ("data", "indices", "indptr")


@dataclass(frozen=True, eq=False, repr=False)
class CompressedRows:
    """A read-only matrix (O, I) of which only the numbers other than zero are stored; given zeros are left out.

    Raises:
        GraphError: parts that are no matrix: other lengths, columns outside of it, not in order or given twice.
    """

    data: Array
    indices: Array
    indptr: Array
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        for name in PARTS:
            array = freeze_array(getattr(self, name), what=f"sparse weights, '{name}'")
            if array.ndim != 1 or (name != "data" and array.dtype.kind != "i"):
                what = f"{name_values(array.dtype.kind)} on {array.ndim} axes"
                raise GraphError(f"sparse weights, '{name}': {what}, expected one axis of indices")
            object.__setattr__(self, name, array)
        if problem := self._find_problem():
            raise GraphError(f"sparse weights of {self.shape[0]}x{self.shape[1]}: {problem}; use a scipy.sparse matrix")
        if not np.all(self.data):
            kept = self.with_data(self.data)
            for name in PARTS:
                object.__setattr__(self, name, getattr(kept, name))

    def _find_problem(self) -> str:
        """Return why the parts are no matrix, or ""."""
        outputs, inputs = self.shape
        if len(self.indptr) != outputs + 1 or self.indptr[0] != 0 or self.indptr[-1] != len(self.data):
            return f"{len(self.indptr)} row starts, expected {outputs + 1} from 0 to {len(self.data)}"
        if len(self.indices) != len(self.data) or (np.diff(self.indptr) < 0).any():
            return f"{len(self.indices)} columns for {len(self.data)} numbers, or row starts that fall"
        if len(self.data) and not (0 <= self.indices.min() and self.indices.max() < inputs):
            return f"columns {self.indices.min()}..{self.indices.max()}, expected 0..{inputs - 1}"
        falls = np.diff(self.indices) <= 0
        starts = self.indptr[1:-1]
        falls[starts[(starts > 0) & (starts < len(self.data))] - 1] = False
        if falls.any():
            return "columns out of order or given twice inside a row"
        return ""

    # ------------------------------------------------------------------------------------------------ sizes and forms

    ndim = 2

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return self.data.dtype

    @property
    def size(self) -> int:
        """Numbers of the matrix, absent ones included."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return sum(int(getattr(self, name).nbytes) for name in PARTS)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]}x{self.shape[1]}, {len(self.data)} not zero, {self.dtype})"

    @cached_property
    def rows(self) -> Array:
        """The row of each stored number."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @cached_property
    def T(self: M) -> M:
        """The transposed matrix."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.shape[1])
        return self.make(self.data[order], self.rows[order], find_starts(counts), (self.shape[1], self.shape[0]))

    @classmethod
    def make(cls: type[M], data: Array, indices: Array, indptr: Array, shape: Shape) -> M:
        """Return a matrix of parts that are in order, without a look at them."""
        matrix = cls.__new__(cls)
        small = np.int32 if shape[1] <= np.iinfo(np.int32).max else np.int64
        parts = (data, indices.astype(small, copy=False), indptr.astype(np.int64, copy=False))
        for name, array in zip(PARTS, parts, strict=True):
            owned = array if array.flags.owndata else array.copy()
            owned.setflags(write=False)
            object.__setattr__(matrix, name, owned)
        object.__setattr__(matrix, "shape", (int(shape[0]), int(shape[1])))
        return matrix

    @classmethod
    def make_of_triplets(cls: type[M], rows: Array, columns: Array, values: Array, shape: tuple[int, int]) -> M:
        """Return a matrix of numbers with their rows and columns, in any order."""
        keys = rows.astype(np.int64) * shape[1] + columns
        if (np.diff(keys) < 0).any():
            order = np.argsort(keys, kind="stable")
            rows, columns, values = rows[order], columns[order], values[order]
        return cls.make(values, columns, find_starts(np.bincount(rows, minlength=shape[0])), shape)

    def to_full(self, *, copies: int = 1) -> Array:
        """Return the full matrix, a numpy array that may be written to.

        Args:
            copies: of the full matrix that will lie in memory at once.

        Raises:
            GraphError: they do not fit the free memory.
        """
        self.require_room(copies)
        full = np.zeros(self.shape, self.dtype)
        full[self.rows, self.indices] = self.data
        return full

    def require_room(self, copies: int = 1) -> None:
        """Refuse what `to_full` would, without writing anything out.

        Raises:
            GraphError: so many copies of the full matrix do not fit the free memory.
        """
        need, free = copies * self.size * self.dtype.itemsize, memory.free_bytes()
        if need > free:
            times = f" {copies} times" if copies > 1 else ""
            raise GraphError(
                f"sparse weights of {self.shape[0]}x{self.shape[1]}: written out{times} they take {need / 1e9:.3g} GB, "
                f"{free / 1e9:.3g} GB of memory are free; a .snn file keeps them sparse"
            )

    def to_scipy(self) -> Any:
        """Return a `scipy.sparse.csr_array` that shares the numbers."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), shape=self.shape)

    def is_same(self, other: Any) -> bool:
        """Return whether another matrix, sparse or full, has the same numbers of the same type."""
        if self.shape != other.shape or self.dtype != other.dtype:
            return False
        if not isinstance(other, CompressedRows):
            same = np.count_nonzero(other) == len(self.data)
            return same and bool(np.array_equal(other[self.rows, self.indices], self.data))
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in PARTS)

    # ---------------------------------------------------------------------------------------------------- rows and columns

    def take_rows(self: M, rows: Any) -> M:
        """Return the rows of these indices, in their order."""
        counts = np.diff(self.indptr)[rows]
        indptr = find_starts(counts)
        places = np.repeat(self.indptr[:-1][rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        return self.make(self.data[places], self.indices[places], indptr, (len(counts), self.shape[1]))

    def take_columns(self: M, columns: Any) -> M:
        """Return the columns of these indices, in their order."""
        if len(np.unique(columns)) != len(columns):
            return self.T.take_rows(columns).T
        places = np.full(self.shape[1], -1)
        places[columns] = np.arange(len(columns))
        moved = places[self.indices]
        kept = moved >= 0
        return self.make_of_triplets(self.rows[kept], moved[kept], self.data[kept], (len(self), len(columns)))

    # ------------------------------------------------------------------------------------------------------ sums and extremes

    def astype(self: M, dtype: Any, copy: bool = True) -> M:
        """Return the matrix in another type; numbers that become zero are absent."""
        return self if not copy and self.dtype == dtype else self.with_data(self.data.astype(dtype, copy=copy))

    def count_nonzero(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return how many numbers are other than zero: of all, by column (axis 0) or by row (axis 1)."""
        axis = _read_axis(axis)
        if axis is None:
            return _keep(len(self.data), axis, keepdims)
        counts = np.diff(self.indptr) if axis == 1 else np.bincount(self.indices, minlength=self.shape[1])
        return _keep(counts, axis, keepdims)

    def round(self: M, decimals: int = 0) -> M:
        """Return the rounded numbers."""
        return self.with_data(self.data.round(decimals))

    def nonzero(self) -> tuple[Array, Array]:
        """Return rows and columns of the stored numbers."""
        return self.rows, self.indices

    def sum(self, axis: Axes = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        """Return the sum of all numbers, by column (axis 0) or by row (axis 1)."""
        kind = self.data[:0].sum(dtype=dtype).dtype
        axis = _read_axis(axis)
        if axis is None:
            return _keep(self.data.sum(dtype=dtype), axis, keepdims)
        if axis == 1:
            return _keep(self._reduce_rows(np.add, self.data.astype(kind, copy=False)), axis, keepdims)
        total = np.bincount(self.indices, minlength=self.shape[1], weights=None if self.dtype == bool else self.data)
        return _keep(total.astype(kind), axis, keepdims)

    def sum_products(self, factors: Array) -> Array:
        """Return the sum of the numbers of each row times the factors (I,) of their columns."""
        return self._reduce_rows(np.add, self.data * factors[self.indices])

    def max(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return the largest number, by column (axis 0) or by row (axis 1); absent ones count as zero."""
        return _keep(self._extreme(np.maximum, _read_axis(axis)), _read_axis(axis), keepdims)

    def min(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return the smallest number, by column (axis 0) or by row (axis 1); absent ones count as zero."""
        return _keep(self._extreme(np.minimum, _read_axis(axis)), _read_axis(axis), keepdims)

    def any(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return whether any number is other than zero."""
        return self.count_nonzero(axis, keepdims=keepdims) > 0

    def all(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return whether all numbers are other than zero."""
        axis = _read_axis(axis)
        return self.count_nonzero(axis, keepdims=keepdims) == (self.size if axis is None else self.shape[axis])

    def mean(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return the mean of all numbers, by column (axis 0) or by row (axis 1)."""
        axis = _read_axis(axis)
        return self.sum(axis, np.float64, keepdims=keepdims) / (self.size if axis is None else self.shape[axis])

    def _extreme(self, function: Any, axis: int | None) -> Any:
        if axis is None:
            values = self.data if len(self.data) == self.size else np.append(self.data, self.dtype.type(0))
            return function.reduce(values)
        if axis == 0:
            return self.T._extreme(function, 1)
        result = self._reduce_rows(function, self.data)
        holes = np.diff(self.indptr) < self.shape[1]
        result[holes] = function(result[holes], self.dtype.type(0))
        return result

    def _reduce_rows(self, function: Any, values: Array) -> Array:
        result = np.zeros(len(self), values.dtype)
        filled = np.diff(self.indptr) > 0
        if filled.any():
            result[filled] = function.reduceat(values, self.indptr[:-1][filled])
        return result

    def with_data(self: M, data: Array) -> M:
        """Return the matrix with other numbers in the same places."""
        if np.all(data):
            return self.make(data, self.indices, self.indptr, self.shape)
        kept = data != 0
        counts = np.concatenate([[0], np.cumsum(kept)])
        return self.make(data[kept], self.indices[kept], counts[self.indptr], self.shape)


def find_starts(counts: Array) -> Array:
    """Return where rows of these lengths start, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _read_axis(axis: Axes) -> int | None:
    """Return an axis as 0, 1, or None for both.

    Raises:
        ValueError: there is no such axis.
    """
    axes = (0, 1) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if not axes or not all(-2 <= one < 2 for one in axes):
        raise ValueError(f"sparse weights have no axis {axis}; they have the axes 0 and 1")
    known = {one % 2 for one in axes}
    return None if len(known) == 2 else known.pop()


def _keep(result: Any, axis: int | None, keepdims: bool) -> Any:
    if not keepdims:
        return result
    return np.asarray(result).reshape(1, 1) if axis is None else np.expand_dims(result, axis)
