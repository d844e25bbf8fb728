"""Sparse matrices of weights, in compressed rows, behind numpy's interface.

Of a matrix (O, I) only the numbers that are not zero are stored, row by row:

    data     (N,)       the numbers
    indices  (N,)       the column of each, ascending inside a row
    indptr   (O + 1,)   row o is data[indptr[o] : indptr[o + 1]]

An absent number is a zero, and a zero is never stored: a sparse matrix and the full matrix of the same numbers are equal, and
every count of synapses gives the same for both. numpy's functions take a sparse matrix: an elementwise function that maps
zero to zero gives a sparse matrix again, and a product with `@` the full one. What needs all numbers, or a copy to write
to, gets the full matrix of up to `FULL_NUMBERS`, and is refused in one sentence on a larger one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Shape, freeze_array
from spear_deploy.util import memory

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
Axes: TypeAlias = int | tuple[int, ...] | None
_PARTS = ("data", "indices", "indptr")


@dataclass(frozen=True, eq=False, repr=False)
class SparseMatrix(np.lib.mixins.NDArrayOperatorsMixin):
    """A read-only matrix (O, I) of which only the numbers other than zero are stored; given zeros are left out.

    Raises:
        GraphError: parts that are no matrix: other lengths, columns outside of it, not in order or given twice.

    >>> matrix = make_sparse(np.array([[0.0, 2.0], [3.0, 0.0]]))
    >>> (matrix * 2).to_full().tolist(), np.count_nonzero(matrix), matrix.sum(axis=1).tolist()
    ([[0.0, 4.0], [6.0, 0.0]], 2, [2.0, 3.0])
    """

    data: Array
    indices: Array
    indptr: Array
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        for name in _PARTS:
            array = freeze_array(getattr(self, name), what=f"sparse weights, '{name}'")
            if array.ndim != 1 or (name != "data" and array.dtype.kind != "i"):
                raise GraphError(f"sparse weights, '{name}': {array.dtype} on {array.ndim} axes, expected one axis of indices")
            object.__setattr__(self, name, array)
        if problem := self._find_problem():
            raise GraphError(f"sparse weights of {self.shape[0]}x{self.shape[1]}: {problem}; use a scipy.sparse matrix")
        if not np.all(self.data):
            kept = self.with_data(self.data)
            for name in _PARTS:
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
        return sum(int(getattr(self, name).nbytes) for name in _PARTS)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise ValueError("sparse weights are neither true nor false; ask with any() or all()")

    def __repr__(self) -> str:
        return f"SparseMatrix({self.shape[0]}x{self.shape[1]}, {len(self.data)} not zero, {self.dtype})"

    @cached_property
    def rows(self) -> Array:
        """The row of each stored number."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @cached_property
    def T(self) -> SparseMatrix:
        """The transposed matrix."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.shape[1])
        return _make(self.data[order], self.rows[order], _starts(counts), (self.shape[1], self.shape[0]))

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

    def _write_out(self, use: str) -> Array:
        if self.size > FULL_NUMBERS:
            raise GraphError(
                f"sparse weights of {self.shape[0]}x{self.shape[1]}: {use} needs all numbers, at most {FULL_NUMBERS:,} are "
                "written out by themselves; write them out with to_full(), or make the layer smaller"
            )
        return self.to_full()

    def is_same(self, other: Any) -> bool:
        """Return whether another matrix, sparse or full, has the same numbers of the same type."""
        if self.shape != other.shape or self.dtype != other.dtype:
            return False
        if not isinstance(other, SparseMatrix):
            same = np.count_nonzero(other) == len(self.data)
            return same and bool(np.array_equal(other[self.rows, self.indices], self.data))
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _PARTS)

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
        matrix = self if picks[0] is ... else self._take_rows(picks[0])
        return matrix if picks[1] is ... else matrix._take_columns(picks[1])

    def _take_rows(self, rows: Any) -> SparseMatrix:
        counts = np.diff(self.indptr)[rows]
        indptr = _starts(counts)
        places = np.repeat(self.indptr[:-1][rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        return _make(self.data[places], self.indices[places], indptr, (len(counts), self.shape[1]))

    def _take_columns(self, columns: Any) -> SparseMatrix:
        if len(np.unique(columns)) != len(columns):
            return self.T._take_rows(columns).T
        places = np.full(self.shape[1], -1)
        places[columns] = np.arange(len(columns))
        moved = places[self.indices]
        kept = moved >= 0
        return _from_triplets(self.rows[kept], moved[kept], self.data[kept], (len(self), len(columns)))

    # ------------------------------------------------------------------------------------------------------- array methods

    def astype(self, dtype: Any, copy: bool = True) -> SparseMatrix:
        """Return the matrix in another type; numbers that become zero are absent."""
        return self if not copy and self.dtype == dtype else self.with_data(self.data.astype(dtype, copy=copy))

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

    def round(self, decimals: int = 0) -> SparseMatrix:
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
        return _count_nonzero(self, axis, keepdims=keepdims) > 0

    def all(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return whether all numbers are other than zero."""
        axis = _read_axis(axis)
        return _count_nonzero(self, axis, keepdims=keepdims) == (self.size if axis is None else self.shape[axis])

    def mean(self, axis: Axes = None, *, keepdims: bool = False) -> Any:
        """Return the mean of all numbers, by column (axis 0) or by row (axis 1)."""
        axis = _read_axis(axis)
        return self.sum(axis, np.float64, keepdims=keepdims) / (self.size if axis is None else self.shape[axis])

    def setflags(self, *, write: bool) -> None:
        """Do nothing but refuse: the numbers are read-only already.

        Raises:
            ValueError: they should be writeable.
        """
        if write:
            raise ValueError("sparse weights are read-only; assign the result of an operation instead")

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

    def with_data(self, data: Array) -> SparseMatrix:
        """Return the matrix with other numbers in the same places."""
        if np.all(data):
            return _make(data, self.indices, self.indptr, self.shape)
        kept = data != 0
        counts = np.concatenate([[0], np.cumsum(kept)])
        return _make(data[kept], self.indices[kept], counts[self.indptr], self.shape)


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
        return replace(_make(copies[0], copies[1], copies[2], compressed.shape).with_data(copies[0]))
    full = np.asarray(matrix)
    if full.ndim != 2:
        raise GraphError(f"sparse weights: {full.ndim} axes given, expected (outputs, inputs)")
    rows, columns = full.nonzero()
    return replace(_make(full[rows, columns], columns, _starts(np.bincount(rows, minlength=len(full))), full.shape))


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


def _make(data: Array, indices: Array, indptr: Array, shape: Shape) -> SparseMatrix:
    """Return a matrix of parts that are in order, without a look at them."""
    matrix = SparseMatrix.__new__(SparseMatrix)
    small = np.int32 if shape[1] <= np.iinfo(np.int32).max else np.int64
    parts = (data, indices.astype(small, copy=False), indptr.astype(np.int64, copy=False))
    for name, array in zip(_PARTS, parts, strict=True):
        owned = array if array.flags.owndata else array.copy()
        owned.setflags(write=False)
        object.__setattr__(matrix, name, owned)
    object.__setattr__(matrix, "shape", (int(shape[0]), int(shape[1])))
    return matrix


def _from_triplets(rows: Array, columns: Array, values: Array, shape: tuple[int, int]) -> SparseMatrix:
    keys = rows.astype(np.int64) * shape[1] + columns
    if (np.diff(keys) < 0).any():
        order = np.argsort(keys, kind="stable")
        rows, columns, values = rows[order], columns[order], values[order]
    return _make(values, columns, _starts(np.bincount(rows, minlength=shape[0])), shape)


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


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
    indptr = _starts(np.bincount(union // shape[1], minlength=shape[0]))
    joined = []
    for matrix, own in zip(matrices, keys, strict=True):
        data = np.zeros(len(union), matrix.dtype)
        data[np.searchsorted(union, own)] = matrix.data
        joined.append(_make(data, union % shape[1], indptr, shape))
    return joined[0], joined


def _multiply(a: Any, b: Any) -> Any:
    """Return a matrix product: full, or sparse if both matrices are."""
    if isinstance(a, SparseMatrix) and isinstance(b, SparseMatrix):
        return make_sparse(a.to_scipy() @ b.to_scipy())
    if isinstance(a, SparseMatrix):
        return a.to_scipy() @ b
    return (b.T.to_scipy() @ a.T).T


def _count_nonzero(matrix: SparseMatrix, axis: Axes = None, *, keepdims: bool = False) -> Any:
    axis = _read_axis(axis)
    if axis is None:
        return _keep(len(matrix.data), axis, keepdims)
    counts = np.diff(matrix.indptr) if axis == 1 else np.bincount(matrix.indices, minlength=matrix.shape[1])
    return _keep(counts, axis, keepdims)


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
    return _make(data, indices, np.concatenate([[0], *indptr]), shape)


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
        return a.shape == b.shape and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in _PARTS)
    return np.shape(b) == a.shape and a.astype(b.dtype).is_same(b)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.count_nonzero: _count_nonzero,
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
