"""Sparse matrices of weights, in compressed rows, behind numpy's interface.

An absent number is a zero, and a zero is never stored (`compressed_rows`): a sparse matrix and the full matrix of the same
numbers are equal, and every count of synapses gives the same for both. numpy's functions take a sparse matrix: an elementwise
function that maps zero to zero gives a sparse matrix again, and a product with `@` the full one. What needs all numbers, or a
copy to write to, gets the full matrix of up to `FULL_NUMBERS`, and is refused in one sentence on a larger one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array
from spear_deploy.network.compressed_rows import PARTS, CompressedRows, find_starts

FULL_NUMBERS = 1 << 24
"""Numbers up to which a matrix is written out where a function needs all of them: 128 MiB in float64."""
SPARSE_NUMBERS = 1 << 20
"""Numbers of a matrix from which `store_compactly` stores it sparse."""
FILE_COPIES = 5
"""Copies of the full matrix in memory while a file that knows no sparse weights is written, read back and proven."""
LEARNING_COPIES = 8
"""Copies of the full matrix while it learns: weights, gradient, two moments, teacher, and the networks before and after."""
SPARSE_DENSITY = 0.1
"""Share of numbers that are not zero below which `store_compactly` stores a matrix sparse."""


@dataclass(frozen=True, eq=False, repr=False)
class SparseMatrix(CompressedRows, np.lib.mixins.NDArrayOperatorsMixin):
    """A matrix in compressed rows that numpy's functions take.

    >>> matrix = make_sparse(np.array([[0.0, 2.0], [3.0, 0.0]]))
    >>> (matrix * 2).to_full().tolist(), np.count_nonzero(matrix), matrix.sum(axis=1).tolist()
    ([[0.0, 4.0], [6.0, 0.0]], 2, [2.0, 3.0])
    """

    def __bool__(self) -> bool:
        raise ValueError("sparse weights are neither true nor false; ask with any() or all()")

    def _write_out(self, use: str) -> Array:
        if self.size > FULL_NUMBERS:
            raise GraphError(
                f"sparse weights of {self.shape[0]}x{self.shape[1]}: {use} needs all numbers, at most {FULL_NUMBERS:,} are "
                "written out by themselves; write them out with to_full(), or make the layer smaller"
            )
        return self.to_full()

    # ------------------------------------------------------------------------------------------------------ numpy's protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        full = self._write_out("numpy.asarray")
        return full if dtype is None else full.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(target, SparseMatrix) for target in options.get("out") or ()):
            raise ValueError("sparse weights are read-only; assign the result of an operation instead")
        if ufunc is np.matmul and method == "__call__" and not options:
            return _multiply(*inputs)
        if method == "__call__" and ufunc.nout == 1 and not options:
            result = _map(ufunc, inputs)
            if result is not None:
                return result
        full = [x._write_out(f"numpy.{ufunc.__name__}") if isinstance(x, SparseMatrix) else x for x in inputs]
        return getattr(ufunc, method)(*full, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in _FUNCTIONS and (isinstance(args[0], SparseMatrix) or function in (np.concatenate, np.where)):
            return _FUNCTIONS[function](*args, **kwargs)

        def fill(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(fill(part) for part in value)
            return value._write_out(f"numpy.{function.__name__}") if isinstance(value, SparseMatrix) else value

        return function(*fill(args), **{name: fill(value) for name, value in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"SparseMatrix has no '{name}'")
        return getattr(self._write_out(f"'{name}'"), name)

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Return one row in full, or the chosen rows and columns as a sparse matrix: slices, lists of indices, or marks."""
        chosen = key if isinstance(key, tuple) else (key,)
        if len(chosen) == 1 and isinstance(key, (int, np.integer)):
            row = operator.index(key) % len(self) if -len(self) <= key < len(self) else operator.index(key)
            part = slice(self.indptr[row], self.indptr[row + 1])
            full = np.zeros(self.shape[1], self.dtype)
            full[self.indices[part]] = self.data[part]
            return full
        picks = [_pick(part, size) for part, size in zip((*chosen, slice(None))[:2], self.shape, strict=True)]
        lists = sum(not isinstance(part, slice) for part in chosen)
        if len(chosen) > 2 or lists > 1 or any(pick is None for pick in picks):
            return self._write_out("this index")[key]
        matrix = self if picks[0] is ... else self.take_rows(picks[0])
        return matrix if picks[1] is ... else matrix.take_columns(picks[1])

    # ------------------------------------------------------------------------------------------------------- array methods

    def reshape(self, *shape: Any) -> Any:
        """Return the matrix itself if the shape is its own, else a full array."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        known = [size for size in sizes if size != -1]
        if len(sizes) == 2 and sizes[0] in (-1, self.shape[0]) and sizes[1] in (-1, self.shape[1]) and known:
            return self
        return self._write_out("a reshape").reshape(sizes)

    def clip(self, low: Any = None, high: Any = None) -> Any:
        """Return the numbers within two limits."""
        result: Any = self if low is None else np.maximum(self, low)
        return result if high is None else np.minimum(result, high)

    def setflags(self, *, write: bool) -> None:
        """Do nothing but refuse: the numbers are read-only already.

        Raises:
            ValueError: they should be writeable.
        """
        if write:
            raise ValueError("sparse weights are read-only; assign the result of an operation instead")


def make_sparse(matrix: Any) -> SparseMatrix:
    """Return a matrix (numpy, scipy.sparse, or sparse already) as a sparse one.

    Raises:
        GraphError: it has not two axes, or holds NaN or infinite numbers.
    """
    if isinstance(matrix, SparseMatrix):
        return matrix
    if is_scipy(matrix):
        compressed = matrix.tocsr()
        if compressed.ndim != 2:
            raise GraphError(f"sparse weights: {compressed.ndim} axes given, expected (outputs, inputs)")
        if not compressed.has_canonical_format:
            compressed = compressed.copy()
            compressed.sum_duplicates()
        copies = [np.array(part) for part in (compressed.data, compressed.indices, compressed.indptr)]
        return replace(SparseMatrix.make(copies[0], copies[1], copies[2], compressed.shape).with_data(copies[0]))
    full = np.asarray(matrix)
    if full.ndim != 2:
        raise GraphError(f"sparse weights: {full.ndim} axes given, expected (outputs, inputs)")
    rows, columns = full.nonzero()
    return replace(
        SparseMatrix.make(full[rows, columns], columns, find_starts(np.bincount(rows, minlength=len(full))), full.shape)
    )


def store_compactly(matrix: Any) -> Any:
    """Return a matrix as a sparse one if it is large (`SPARSE_NUMBERS`) and mostly zero (`SPARSE_DENSITY`), else itself."""
    if isinstance(matrix, SparseMatrix) or is_scipy(matrix):
        return make_sparse(matrix)
    if matrix.ndim != 2 or matrix.size < SPARSE_NUMBERS or np.count_nonzero(matrix) >= SPARSE_DENSITY * matrix.size:
        return matrix
    return make_sparse(matrix)


def is_scipy(matrix: Any) -> bool:
    """Return whether a matrix is one of scipy.sparse, which is not imported for it."""
    return hasattr(matrix, "tocsr") and hasattr(matrix, "nnz")


def write_out(matrix: Any, *, copies: int = FILE_COPIES) -> Array:
    """Return a matrix as numpy's, a sparse one written out if so many copies of it fit the free memory.

    Raises:
        GraphError: it does not fit the free memory.
    """
    return matrix.to_full(copies=copies) if isinstance(matrix, SparseMatrix) else np.asarray(matrix)


# ----------------------------------------------------------------------------------------------------------------- inside


def _pick(part: Any, size: int) -> Any:
    """Return the indices that a part of an index chooses; `...` for all, None where it is of another kind."""
    if isinstance(part, slice):
        return ... if part == slice(None) else np.arange(size)[part]
    array = np.asarray(part)
    if array.ndim != 1 or array.dtype.kind not in "bi":
        return None
    return np.arange(size)[array]


def _map(ufunc: Any, inputs: tuple[Any, ...]) -> SparseMatrix | None:
    """Apply an elementwise function to the stored numbers; None where it does not map zero to zero."""
    matrices = [x for x in inputs if isinstance(x, SparseMatrix)]
    first = matrices[0]
    arrays = [x if isinstance(x, (SparseMatrix, int, float, bool)) else np.asarray(x) for x in inputs]
    if any(isinstance(x, np.ndarray) and not _reaches(x.shape, first.shape) for x in arrays):
        return None
    if any(matrix.shape != first.shape for matrix in matrices):
        return None
    with np.errstate(all="ignore"):
        of_zero = ufunc(*(x.dtype.type(0) if isinstance(x, SparseMatrix) else x for x in arrays))
    if not np.all(of_zero == 0):
        return None
    if any(not np.array_equal(m.indptr, first.indptr) or not np.array_equal(m.indices, first.indices) for m in matrices[1:]):
        first, matrices = _join(matrices)
    values = iter(matrices)
    picked = [
        next(values).data if isinstance(x, SparseMatrix) else _at(x, first) if isinstance(x, np.ndarray) and x.ndim else x
        for x in arrays
    ]
    return first.with_data(np.asarray(ufunc(*picked)))


def _reaches(shape: tuple[int, ...], target: tuple[int, int]) -> bool:
    """Return whether a shape broadcasts to that of a matrix, which it leaves as it is."""
    return len(shape) <= 2 and all(n in (1, size) for n, size in zip(shape[::-1], target[::-1], strict=False))


def _at(array: Array, matrix: SparseMatrix) -> Array:
    """Return the numbers of an array that broadcasts to a matrix at the matrix's stored places."""
    wide = array.reshape((1,) * (2 - array.ndim) + array.shape)
    rows = matrix.rows if wide.shape[0] > 1 else 0
    columns = matrix.indices if wide.shape[1] > 1 else 0
    return wide[rows, columns] if wide.size > 1 else wide.reshape(())


def _join(matrices: list[SparseMatrix]) -> tuple[SparseMatrix, list[SparseMatrix]]:
    """Return matrices that store a number wherever one of them does, zeros included: only for use inside a function."""
    shape = matrices[0].shape
    keys = [matrix.rows.astype(np.int64) * shape[1] + matrix.indices for matrix in matrices]
    union = np.unique(np.concatenate(keys))
    indptr = find_starts(np.bincount(union // shape[1], minlength=shape[0]))
    joined = []
    for matrix, own in zip(matrices, keys, strict=True):
        data = np.zeros(len(union), matrix.dtype)
        data[np.searchsorted(union, own)] = matrix.data
        joined.append(SparseMatrix.make(data, union % shape[1], indptr, shape))
    return joined[0], joined


def _multiply(a: Any, b: Any) -> Any:
    """Return a matrix product: full, or sparse if both matrices are."""
    if isinstance(a, SparseMatrix) and isinstance(b, SparseMatrix):
        return make_sparse(a.to_scipy() @ b.to_scipy())
    if isinstance(a, SparseMatrix):
        return a.to_scipy() @ b
    return (b.T.to_scipy() @ a.T).T


def _concatenate(matrices: Any, axis: int = 0) -> Any:
    """Return sparse matrices below each other or side by side, a full one where another is among them."""
    if axis is None or not all(isinstance(matrix, SparseMatrix) for matrix in matrices):
        return np.concatenate([write_out(matrix) for matrix in matrices], axis=axis)
    if axis % 2:
        return _concatenate([matrix.T for matrix in matrices]).T
    starts = np.cumsum([0, *(len(matrix.data) for matrix in matrices)])
    indptr = [matrix.indptr[1:] + start for matrix, start in zip(matrices, starts[:-1], strict=True)]
    data, indices = (np.concatenate([getattr(matrix, name) for matrix in matrices]) for name in ("data", "indices"))
    shape = (sum(len(matrix) for matrix in matrices), matrices[0].shape[1])
    return SparseMatrix.make(data, indices, np.concatenate([[0], *indptr]), shape)


def _where(condition: SparseMatrix, x: Any, y: Any) -> Any:
    if isinstance(condition, SparseMatrix) and isinstance(x, SparseMatrix) and np.ndim(y) == 0 and y == 0:
        return (condition != 0) * x
    return np.where(*(part._write_out("numpy.where") if isinstance(part, SparseMatrix) else part for part in (condition, x, y)))


def _unique(matrix: SparseMatrix, **options: Any) -> Array:
    if options:
        return np.unique(matrix._write_out("numpy.unique"), **options)
    values = matrix.data if len(matrix.data) == matrix.size else np.append(matrix.data, matrix.dtype.type(0))
    return np.unique(values)


def _is_equal(a: SparseMatrix, b: Any) -> bool:
    if isinstance(b, SparseMatrix):
        return a.shape == b.shape and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in PARTS)
    return np.shape(b) == a.shape and a.astype(b.dtype).is_same(b)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.count_nonzero: SparseMatrix.count_nonzero,
    np.unique: _unique,
    np.array_equal: _is_equal,
    np.clip: SparseMatrix.clip,
    np.round: SparseMatrix.round,
    np.around: SparseMatrix.round,
    np.sum: SparseMatrix.sum,
    np.max: SparseMatrix.max,
    np.amax: SparseMatrix.max,
    np.min: SparseMatrix.min,
    np.amin: SparseMatrix.min,
    np.any: SparseMatrix.any,
    np.all: SparseMatrix.all,
    np.mean: SparseMatrix.mean,
    np.nonzero: SparseMatrix.nonzero,
    np.transpose: lambda matrix: matrix.T,
    np.shape: lambda matrix: matrix.shape,
    np.ndim: lambda matrix: matrix.ndim,
    np.size: lambda matrix: matrix.size,
    np.concatenate: _concatenate,
    np.where: _where,
}
"""numpy's functions of a sparse matrix that do not need all its numbers."""
