"""Weights of a neuron clustered to a few values.

A TrueNorth neuron has four weights, one for each type of axon; a synapse is there or not. A source whose synapses have several
types needs an axon for each, and a neuron in front of each axon. The four are a neuron's over all layers of weights into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spear_deploy.network import Array, SparseMatrix, Weights

AXONS = "axons"
"""What a finding names: axons of several types that sources take."""
ROUNDS = 30
"""Steps of k-means; on a line they settle in far fewer."""


def cluster_together(weights: Sequence[Weights], count: int) -> list[Weights]:
    """Return several layers of weights into the same neurons, with at most `count` values beside 0 in each row over all layers.

    Values are k-means centres of the row, with 0 as a further centre that stays; rows with no more values stay as they are. Where
    centres of each layer by itself, `count` over the number of layers, miss the weights of a row less, they are taken.

    Args:
        weights: of each layer, (O, ...): a row for each output neuron or channel.
        count: values beside 0, at least 1.

    >>> (alone,) = cluster_together([np.array([[1.0, 1.1, 0.0, -2.0]])], 2)
    >>> alone.round(2).tolist()
    [[1.05, 1.05, 0.0, -2.0]]
    >>> first, second = cluster_together([np.array([[1.0, 2.0]]), np.array([[2.0, 3.0, 3.5]])], 3)
    >>> first.tolist(), second.tolist()
    ([[1.0, 2.0]], [[2.0, 3.25, 3.25]])
    """
    rows_by_layer = [_list_rows(weight) for weight in weights]
    for rows in zip(*rows_by_layer, strict=True):
        if len(np.setdiff1d(np.concatenate(rows), 0)) > count:
            for row, values in zip(rows, _cluster_row(rows, count), strict=True):
                row[:] = values
    return [_join_rows(weight, rows) for weight, rows in zip(weights, rows_by_layer, strict=True)]


def _list_rows(weight: Weights) -> list[Array]:
    """Return copies of the rows, of sparse weights of what is stored."""
    if isinstance(weight, SparseMatrix):
        return [weight.data[start:stop].astype(np.float64) for start, stop in pairwise(weight.indptr)]
    return list(weight.reshape(len(weight), -1).astype(np.float64))


def _join_rows(weight: Weights, rows: Sequence[Array]) -> Weights:
    """Return the weights with other values; a matrix of no rows stays."""
    values = np.concatenate([np.zeros(0), *rows])
    return weight.with_data(values) if isinstance(weight, SparseMatrix) else values.reshape(weight.shape)


def _cluster_row(rows: Sequence[Array], count: int) -> list[Array]:
    """Return what the parts of a row become: with common centres, or each with its own if that misses them less."""
    ends = np.cumsum([len(row) for row in rows])[:-1]
    together = np.split(_cluster(np.concatenate(rows), count), ends)
    if len(rows) == 1:
        return together
    apart = [_cluster(row, count // len(rows)) for row in rows]
    return min(together, apart, key=lambda found: sum(float(((a - b) ** 2).sum()) for a, b in zip(found, rows, strict=True)))


def _cluster(values: Array, count: int) -> Array:
    """Return each value's centre: k-means from quantiles, one centre fixed at 0. Zeros are no synapses: they move no centre."""
    result = np.zeros_like(values)
    is_synapse = values != 0
    values = values[is_synapse]
    if len(np.unique(values)) <= count:
        result[is_synapse] = values
        return result
    centres = np.append(np.quantile(values, (np.arange(count) + 0.5) / count), 0.0)
    nearest = np.full(len(values), -1)
    for _ in range(ROUNDS):
        before, nearest = nearest, np.abs(values[:, None] - centres).argmin(axis=1)
        if np.array_equal(before, nearest):
            break
        for k in range(count):
            if (nearest == k).any():
                centres[k] = values[nearest == k].mean()
    result[is_synapse] = centres[nearest]
    return result


def count_axons(weight: Weights) -> int:
    """Count the axons of a crossbar: for each source the types that its synapses have, a neuron's values in ascending order."""
    if isinstance(weight, SparseMatrix):
        kinds = [np.unique(weight.data[start:stop], return_inverse=True)[1] for start, stop in pairwise(weight.indptr)]
        return len(np.unique(weight.indices.astype(np.int64) * weight.shape[1] + np.concatenate(kinds)))
    types = find_axon_types(weight)
    rows = types.reshape(len(types), -1)
    return sum(len(np.setdiff1d(rows[:, source], -1)) for source in range(rows.shape[1]))


def find_axon_types(weight: Array) -> Array:
    """Return the type of the axon of each weight: its number among the values of its neuron in ascending order, -1 for 0."""
    rows = weight.reshape(len(weight), -1)
    types = np.empty(rows.shape, np.int64)
    for row, values in enumerate(rows):
        types[row] = np.where(values == 0, -1, np.searchsorted(np.setdiff1d(values, 0), values))
    return types.reshape(weight.shape)
