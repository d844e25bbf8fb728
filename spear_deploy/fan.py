"""How many synapses reach a neuron, and how many leave it? Exactly, borders, strides and zero weights included.

A convolution's counts factor into its axes, so no synapse is listed: a map of 10^8 synapses takes milliseconds. Weights of
zero are left out where the projection says which exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spear_deploy.layers import Array
from spear_deploy.populations import Population
from spear_deploy.projections import Axis, Projection


def fan_in(projection: Projection) -> Array:
    """Count the synapses of a projection that reach each neuron: int64, (outputs, *positions) or (neurons,)."""
    if projection.kind == "one_to_one":
        return np.ones((projection.outputs, *(axis.outputs for axis in projection.axes)), np.int64)
    if projection.kind == "dense":
        if projection.exists is None:
            return np.full(projection.outputs, projection.channels, np.int64)
        each = projection.exists.sum(axis=1, dtype=np.int64)
        for axis in reversed(projection.front):
            each = each @ axis.takes().sum(axis=1)
        return each
    if projection.exists is None:
        taps = np.full((projection.outputs, *_taps(projection)), projection.channels // projection.groups, np.int64)
    else:
        taps = projection.exists.sum(axis=1, dtype=np.int64)
    return _over_axes(taps, [axis.takes() for axis in projection.axes])


def fan_out(projection: Projection) -> Array:
    """Count the synapses of a projection that leave each neuron of its source: int64, of the source's shape.

    A source in front of a pool reaches what any of its windows reaches, a target that two windows share twice at most once
    where all weights exist.
    """
    if projection.kind == "one_to_one":
        return np.ones((projection.channels, *(axis.inputs for axis in projection.axes)), np.int64)
    if projection.kind == "dense":
        count = projection.outputs
        read = (projection.source_channels, *(axis.outputs for axis in projection.front))
        exists = projection.exists
        each = np.full(read, count, np.int64) if exists is None else exists.sum(axis=0, dtype=np.int64).reshape(read)
        return np.minimum(_over_axes(each, [_windows(axis) for axis in projection.front]), count)
    groups, into, out = projection.groups, projection.channels // projection.groups, projection.outputs // projection.groups
    if projection.exists is None:
        taps = np.full((projection.channels, *_taps(projection)), out, np.int64)
    else:
        grouped = projection.exists.reshape(groups, out, into, *_taps(projection)).sum(axis=1, dtype=np.int64)
        taps = grouped.reshape(projection.channels, *_taps(projection))
    return _over_axes(taps, [axis.feeds() for axis in projection.axes])


def synapses_into(population: Population) -> Array:
    """Count the synapses that reach each neuron: int64 (neurons,)."""
    total = np.zeros(population.neurons, np.int64)
    for projection in population.projections:
        total += fan_in(projection).reshape(-1)
    return total


def synapses_out_of(name: str, targets: Sequence[Population]) -> Array:
    """Count the synapses onto some populations that leave each neuron of a population, or of the network's input."""
    found = [
        fan_out(projection).reshape(-1)
        for target in targets
        for projection in target.projections
        for source in projection.sources
        if source.name == name
    ]
    return np.sum(found, axis=0) if found else np.zeros(1, np.int64)


def _taps(projection: Projection) -> tuple[int, ...]:
    return tuple(len(axis.taps) for axis in projection.axes)


def _over_axes(taps: Array, meets: Sequence[Array]) -> Array:
    """Sum counts by tap over the taps that each position meets: (channels, *taps) to (channels, *positions)."""
    for axis, along in enumerate(meets):
        taps = np.moveaxis(np.tensordot(taps, along.astype(np.int64), axes=([1 + axis], [1])), -1, 1 + axis)
    return taps


def _windows(axis: Axis) -> Array:
    """Say which windows of a pool hold an input position: bool (inputs, windows)."""
    return np.stack([axis.reached(window, window + 1) for window in range(axis.outputs)], axis=1)
