"""Sparse weights give the numbers of the full matrix, and refuse what would write out a large one."""

import copy
import operator
import pickle

import numpy as np
import pytest
from scipy import sparse

from spear_deploy.errors import GraphError
from spear_deploy.network import Conv1d, Dense, SparseMatrix, make_sparse, sparse_matrix, store_compactly, write_out
from spear_deploy.util import memory

SHAPE = (6, 9)


@pytest.fixture
def full():
    rng = np.random.default_rng(0)
    full = np.where(rng.random(SHAPE) < 0.3, rng.integers(-9, 9, SHAPE), 0).astype(float)
    full[2], full[:, 3] = 0, 0
    return full


def marks(rows):
    return np.arange(SHAPE[0]) < rows


PARTS = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 2]), "shape": (1, 3)}

KEPT = {
    "scaled": lambda w: w * 2,
    "negative": operator.neg,
    "by row": lambda w: w * np.arange(1.0, 7)[:, None],
    "by column": lambda w: w / np.arange(1, 10),
    "by all": lambda w: w * np.arange(54.0).reshape(SHAPE),
    "float32": lambda w: np.float32(2) * w.astype(np.float32),
    "magnitude": np.abs,
    "rounded": lambda w: np.rint(w * 0.3),
    "decimals": lambda w: np.round(w * 0.37, 1),
    "marks": lambda w: w != 0,
    "positive": lambda w: w > 0,
    "sum of two": lambda w: w + w * (w > 3),
    "parts by sign": lambda w: np.maximum(w, 0) + np.minimum(w, 0),
    "either": lambda w: np.logical_or(w > 0, w < -3),
    "limits": lambda w: np.clip(w, -2, 3),
    "one limit": lambda w: w.clip(-1),
    "whole": lambda w: w.astype(np.int32),
    "shifted": lambda w: w.astype(np.int64) << 2,
    "transposed": lambda w: w.T,
    "rows": lambda w: w[1:4],
    "every other row": lambda w: w[::2],
    "listed rows": lambda w: w[[3, 1, 1]],
    "marked rows": lambda w: w[marks(3)],
    "columns": lambda w: w[:, 2:5],
    "listed columns": lambda w: w[:, [5, 0]],
    "a column twice": lambda w: w[:, [5, 5]],
    "rows and columns": lambda w: w[2:5, 1:3],
    "own shape": lambda w: w.reshape(6, -1),
    "product of two": lambda w: w @ w.T,
    "below each other": lambda w: np.concatenate([w, w * 2]),
    "side by side": lambda w: np.concatenate([np.maximum(w, 0), w], axis=1),
    "chosen": lambda w: np.where(w > 2, w, 0),
    "pickled": lambda w: pickle.loads(pickle.dumps(w)),
    "copied": copy.deepcopy,
}
"""What gives a sparse matrix again."""

OTHERS = {
    "one": lambda w: w + 1,
    "zeros": lambda w: w == 0,
    "power": lambda w: 2.0**w,
    "sum": np.sum,
    "sum of columns": lambda w: w.sum(axis=0),
    "sum of rows": lambda w: w.sum(axis=1),
    "marks of columns": lambda w: (w != 0).sum(axis=0),
    "marks of rows": lambda w: (w != 0).sum(axis=1),
    "mean": np.mean,
    "mean of rows": lambda w: w.mean(axis=1),
    "largest": np.max,
    "largest of a full one": lambda w: np.maximum(w, 1)[:, :3].max(),
    "smallest of columns": lambda w: w.min(axis=0),
    "largest of rows": lambda w: w.max(axis=1),
    "largest of nothing": lambda w: (w * 0).max(axis=0),
    "values": np.unique,
    "values and places": lambda w: np.unique(w, return_counts=True)[1],
    "counts": np.count_nonzero,
    "counts of columns": lambda w: np.count_nonzero(w, axis=0),
    "counts of rows": lambda w: np.count_nonzero(w, axis=1, keepdims=True),
    "any": np.any,
    "any of columns": lambda w: w.any(axis=0),
    "all": np.all,
    "all of rows": lambda w: w.all(axis=1),
    "product": lambda w: np.ones((3, 9)) @ w.T,
    "product with a column": lambda w: w @ np.arange(9.0),
    "row": lambda w: w[2],
    "last row": lambda w: w[-1],
    "number": lambda w: w[1, 2],
    "chosen numbers": lambda w: w[w > 0],
    "flat": lambda w: w.ravel(),
    "other shape": lambda w: w.reshape(2, 27),
    "choice": lambda w: np.where(w > 0, w, 1),
    "below a full one": lambda w: np.concatenate([w, np.ones((1, 9))]),
    "chosen by a full one": lambda w: np.where(np.ones(SHAPE, bool), w, 0),
    "sum kept": lambda w: w.sum(axis=(0,), keepdims=True),
    "sum of both": lambda w: w.sum(axis=(0, 1), keepdims=True),
    "largest kept": lambda w: w.max(axis=-1, keepdims=True),
    "smallest kept": lambda w: np.min(w, axis=-2, keepdims=True),
    "all kept": lambda w: np.all(w, axis=0, keepdims=True),
    "mean kept": lambda w: np.mean(w, axis=0, keepdims=True),
    "reduced": np.add.reduce,
    "list": lambda w: np.array(w.tolist()),
    "rows in turn": lambda w: np.stack(list(w)),
    "places": lambda w: np.stack(np.nonzero(w)),
    "sizes": lambda w: np.array([np.ndim(w), np.size(w), *np.shape(w), len(w)]),
}
"""What gives other arrays."""


@pytest.mark.parametrize("name", [*KEPT, *OTHERS])
def test_functions_give_the_numbers_of_the_full_matrix(name, full):
    function = (KEPT | OTHERS)[name]
    result, expected = function(make_sparse(full)), np.asarray(function(full))
    assert isinstance(result, SparseMatrix) == (name in KEPT)
    result = write_out(result)
    assert np.array_equal(result, expected)
    assert result.dtype == expected.dtype


def test_columns_have_factors(full):
    factors = np.arange(9) - 3
    assert np.array_equal(make_sparse(full).sum_products(factors), full @ factors)


def test_zeros_are_never_stored(full):
    matrix = make_sparse(full)
    assert len((matrix * 0).data) == 0
    assert np.array_equal(np.rint(matrix * 0.1).data, np.rint(full * 0.1)[np.rint(full * 0.1) != 0])
    assert SparseMatrix(**(PARTS | {"data": np.array([0.0, 2.0])})).is_same(np.array([[0.0, 2.0, 0.0]]))
    given = sparse.csr_array((np.array([1.0, 0.0, 2.0]), np.array([1, 2, 0]), np.array([0, 2, 3])), shape=(2, 3))
    assert make_sparse(given).is_same(given.toarray())
    assert given.data.flags.writeable
    assert len(given.data) == 3  # the given one is as it was


def test_scipy_matrices_become_sparse_weights(full):
    for kind in (sparse.csr_array, sparse.coo_matrix, sparse.csc_array):
        dense = Dense(weight=kind(full))
        assert isinstance(dense.weight, SparseMatrix)
        assert dense == Dense(weight=full)
    twice = sparse.coo_array((np.array([1.0, 2.0]), (np.array([0, 0]), np.array([1, 1]))), shape=(2, 2))
    assert make_sparse(twice).to_full().tolist() == [[0, 3], [0, 0]]


def test_sparse_and_full_layers_are_equal_by_value(full):
    assert Dense(weight=make_sparse(full)) == Dense(weight=full)
    assert Dense(weight=full) == Dense(weight=make_sparse(full))
    assert Dense(weight=make_sparse(full)) != Dense(weight=full * 2)
    assert Dense(weight=make_sparse(full)) != Dense(weight=make_sparse(full * 2))
    assert Dense(weight=make_sparse(full)) != Dense(weight=make_sparse(full.astype(np.float32)))
    assert np.array_equal(make_sparse(full), full)
    assert np.array_equal(make_sparse(full), make_sparse(full))
    assert "6x9" in repr(make_sparse(full))


def test_large_matrices_with_few_numbers_are_stored_sparse(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 100)
    few, many = np.eye(11), np.ones((11, 11))
    assert isinstance(store_compactly(few), SparseMatrix)
    assert store_compactly(many) is many
    assert store_compactly(few[:9, :9]).shape == (9, 9)
    assert isinstance(store_compactly(few[:9, :9]), np.ndarray)
    assert isinstance(store_compactly(sparse.csr_array(few[:2])), SparseMatrix)


def test_what_needs_all_numbers_of_a_large_matrix_is_refused(monkeypatch, full):
    matrix = make_sparse(full)
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 53)
    for function in (lambda w: w + 1, np.asarray, np.cumsum, lambda w: w.ravel(), lambda w: w.reshape(-1), lambda w: w[w > 0]):
        with pytest.raises(GraphError, match=r"6x9: .* needs all numbers, at most 53 are written out .* with to_full"):
            function(matrix)
    assert matrix.to_full().shape == SHAPE
    monkeypatch.setattr(memory, "free_bytes", lambda: 100)
    with pytest.raises(GraphError, match=r"written out they take .* GB of memory are free; a .snn file keeps them sparse"):
        matrix.to_full()
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 * full.nbytes)
    assert matrix.to_full(copies=2).shape == SHAPE
    with pytest.raises(GraphError, match=r"written out 3 times they take .* GB of memory are free"):
        write_out(matrix, copies=3)


def test_sparse_weights_are_read_only(full):
    matrix = make_sparse(full)
    with pytest.raises(ValueError, match="read-only"):
        matrix *= 2
    matrix.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        matrix.setflags(write=True)
    with pytest.raises(ValueError, match="have no axis 2; they have the axes 0 and 1"):
        matrix.sum(axis=2)
    with pytest.raises(TypeError, match="item assignment"):
        matrix[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        matrix.data[0] = 1
    with pytest.raises(AttributeError, match="SparseMatrix has no 'weights'"):
        _ = matrix.weights
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(matrix)
    with pytest.raises(IndexError):
        matrix[6]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"indptr": np.array([0, 1])}, "2 row starts, expected 2 from 0 to 2"),
        ({"indptr": np.array([0, 3, 2]), "shape": (2, 3)}, "row starts that fall"),
        ({"indices": np.array([0])}, "1 columns for 2 numbers"),
        ({"indices": np.array([0, 3])}, "columns 0..3, expected 0..2"),
        ({"indices": np.array([1, 0])}, "columns out of order or given twice"),
        ({"indices": np.array([1, 1])}, "columns out of order or given twice"),
        ({"data": np.array([1.0, np.nan])}, "'data': holds NaN"),
        ({"indices": np.array([0.0, 1.0])}, "'indices': floating-point numbers on 1 axes"),
    ],
)
def test_parts_that_are_no_matrix_are_refused(parts, message):
    assert SparseMatrix(**PARTS).to_full().tolist() == [[1, 1, 0]]
    with pytest.raises(GraphError, match=message):
        SparseMatrix(**(PARTS | parts))


def test_a_refusal_names_the_size_and_what_to_use():
    with pytest.raises(GraphError, match=r"sparse weights of 1x3: 1 columns for 2 numbers, or .*; use a scipy.sparse matrix"):
        SparseMatrix(**(PARTS | {"indices": np.array([0])}))


def test_what_has_not_two_axes_is_refused():
    with pytest.raises(GraphError, match="3 axes given, expected"):
        make_sparse(np.ones((1, 1, 1)))
    with pytest.raises(GraphError, match="1 axes given, expected"):
        make_sparse(sparse.coo_array(np.ones(3)))
    with np.errstate(over="ignore"), pytest.raises(GraphError, match="holds NaN or infinite"):
        Dense(weight=make_sparse(np.eye(2)) / 1e-320)
    with pytest.raises(GraphError, match="shape .* given, expected 3 axes"):
        Conv1d(weight=make_sparse(np.eye(2)))
