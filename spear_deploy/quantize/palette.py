"""Weights of a neuron clustered to a few values.

A TrueNorth neuron has four weights, one for each type of axon; a synapse is there or not. A source whose synapses have several
types needs an axon for each, and a neuron in front of each axon.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from spear_deploy.network import Array, SparseMatrix, Weights

AXONS = "axons"
"""What a finding names: axons of several types that sources take."""
ROUNDS = 30
"""Steps of k-means; on a line they settle in far fewer."""


def cluster_rows(weight: Weights, count: int) -> Weights:
    """Return the weights with at most `count` different values beside 0 in each row (output neuron or channel).

    Values are k-means centres of the row, with 0 as a further centre that stays; rows with no more values stay as they are.

    Args:
        weight: (O, ...).
        count: values beside 0, at least 1.

    >>> cluster_rows(np.array([[1.0, 1.1, 0.0, -2.0]]), 2).round(2).tolist()
    [[1.05, 1.05, 0.0, -2.0]]
    """
    if isinstance(weight, SparseMatrix):
        return _cluster_sparse(weight.astype(np.float64), count)
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    clustered = rows.copy()
    for row in np.flatnonzero([len(np.setdiff1d(values, 0)) > count for values in rows]):
        clustered[row] = _cluster(rows[row], count)
    return clustered.reshape(weight.shape)


def _cluster_sparse(weight: SparseMatrix, count: int) -> SparseMatrix:
    data = weight.data.copy()
    for start, stop in pairwise(weight.indptr):
        if len(np.setdiff1d(data[start:stop], 0)) > count:
            data[start:stop] = _cluster(data[start:stop], count)
    return weight.with_data(data)


def _cluster(values: Array, count: int) -> Array:
    """Return each value's centre: k-means from quantiles, one centre fixed at 0. Zeros are no synapses: they move no centre."""
    result = np.zeros_like(values)
    is_synapse = values != 0
    values = values[is_synapse]
    centres = np.append(np.quantile(values, (np.arange(count) + 0.5) / count), 0.0)
    nearest = np.zeros(len(values), int)
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
