"""Digests of content: equal for what is equal, another for each change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

from spear_deploy.network import BatchNorm
from spear_deploy.network.sparse_matrix import make_sparse
from spear_deploy.util.digests import hash_content
from tests.support.reference import random_graph
from tests.support.rich_graphs import rich_graph


@dataclass(frozen=True)
class Point:
    x: float
    y: object = None


@dataclass(frozen=True)
class Other:
    x: float
    y: object = None


def test_each_change_of_content_is_another_digest():
    array = np.arange(6.0)
    values = [
        None, 0, 1, 1.0, True, "1", "", [], {}, [1, 2], [[1], 2], [1, [2]], {"a": 1}, {"a": [1]}, {1: "a"}, {"a": 1, "b": None},
        array, array.astype(np.float32), array.reshape(2, 3), array.reshape(3, 2), array + 1e-15, np.zeros(0), np.zeros((0, 2)),
        Point(1.0), Point(1.0, 2), Point(1.0, "2"), Other(1.0), -0.0, float("nan"), float("inf"), "é", [None], ["a", "b"], ["ab"],
    ]  # fmt: skip
    assert len({hash_content(value) for value in values}) == len(values)


def test_equal_content_has_one_digest_whatever_holds_it():
    array = np.arange(6).reshape(2, 3)
    assert hash_content((1, 2)) == hash_content([1, np.int64(2)])
    assert hash_content({"a": 1, ("b", "c"): 2}) == hash_content(MappingProxyType({("b", "c"): 2, "a": 1}))
    assert (
        hash_content(array)
        == hash_content(np.asfortranarray(array))
        == hash_content(np.arange(12).reshape(2, 6)[:, :3] * 0 + array)
    )


def test_networks_have_a_digest_by_each_of_their_arrays():
    graphs = [*(random_graph(seed) for seed in range(8)), *(rich_graph(seed)[0] for seed in range(8))]
    assert len({hash_content(graph) for graph in graphs}) == len(graphs)
    assert [hash_content(random_graph(seed)) for seed in range(8)] == [hash_content(graph) for graph in graphs[:8]]
    norm = BatchNorm(weight=np.ones(3), bias=np.zeros(3), mean=np.zeros(3), var=np.ones(3))
    assert hash_content(norm) != hash_content(replace(norm, eps=1e-4))
    matrices = [make_sparse(np.eye(3)), make_sparse(2 * np.eye(3)), make_sparse(np.eye(3)[::-1])]
    assert len({hash_content(matrix) for matrix in matrices}) == 3


@pytest.mark.parametrize("value, kind", [(partial(print), "partial"), ([{"a": {1, 2}}], "set"), (Point, "type")])
def test_content_that_is_not_known_is_refused(value, kind):
    with pytest.raises(TypeError, match=f"digest: the content of a {kind} is not known; give numbers, text, arrays or data"):
        hash_content(value)
