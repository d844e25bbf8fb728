"""Comparison of a file's run with its network's, layer by layer.

Spikes are compared one by one, and so are the values of a readout. Both must be equal, except in floating-point networks that
onnxruntime runs: there sums may round in another order, `onnx.float_bounds` states by how much, and

    a value differs     where the two are further apart than the bound
    a spike differs     where v is further from the threshold than the bound; nearer it is a tie, counted apart
    after a tie         the two runs of that sample go different ways: its later steps and layers are not compared
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.interchange.onnx.float_bounds import bound_steps, find_near_threshold
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph

VALUE_TOLERANCE = 1e-5
"""Of the largest magnitude in a layer so far: caps the bound, whose worst case grows with n far beyond what rounding does."""

EQUAL = "every spike and every value of a readout must be equal"
WITHIN_BOUND = (
    "every spike must be equal unless v is within the bound of its threshold (a tie), every value of a readout equal within the "
    f"bound, and neither further off than {VALUE_TOLERANCE:g} of the largest magnitude in the layer so far; after a tie the rest "
    "of that sample is not compared"
)


@dataclass(frozen=True)
class RoundingBounds:
    """Bounds of what rounding does to one layer.

    Attributes:
        gap: (T, B, neurons), how far values may be apart.
        ties: (T, B, neurons) bool, spikes that differ with v within the gap of the threshold.
        after: (T, B) bool, the sample had a tie before.
    """

    gap: Array
    ties: Array
    after: Array


def compare_layers(
    graph: SNNGraph, expected: Mapping[str, Array], read_back: Mapping[str, Array], *, rounded_input: Array | None
) -> list[dict[str, Any]]:
    """Compare the layers that both runs have, neurons counted flat in the order C, H, W.

    Args:
        graph: the network.
        expected: its run, by layer, (T, B, *shape) each; bool where spikes are compared.
        read_back: the file's run, by the same names.
        rounded_input: (T, B, *input shape) where the file's sums may round in another order; None asks for equality.

    Returns:
        A row for each layer in both: `layer`, `what` ("spikes" or "values"), the number of values `compared` and those
        `after_ties`, `largest_bound`, spikes on both sides or the `largest_difference` of values, `ties`, `mismatches`,
        `first_difference` (None, or layer, step, sample, neuron).

    Raises:
        DataError: a layer has another number of neurons in the file.
    """
    names = [name for name in expected if name in read_back]
    ours = {name: _flatten_neurons(expected[name]) for name in names}
    theirs = {name: _flatten_neurons(read_back[name]) for name in names}
    for name in names:
        here, there = ours[name].shape[2], theirs[name].shape[2]
        if here != there:
            raise DataError(f"layer '{name}': {here} neurons in the network, {there} in the file; report this as a defect")
    bounds = {name: _zero_bounds(ours[name].shape) for name in names}
    if rounded_input is not None:
        spikes = {layer.name: expected[layer.name] for layer in graph.layers if layer.spikes}
        _fill_bounds(graph, rounded_input, spikes, theirs, bounds)
    return [_compare_layer(name, ours[name], theirs[name], bounds[name]) for name in names]


def _flatten_neurons(values: Array) -> Array:
    return np.asarray(values).reshape(*values.shape[:2], -1)


def _zero_bounds(shape: tuple[int, ...]) -> RoundingBounds:
    return RoundingBounds(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape[:2], bool))


def _fill_bounds(
    graph: SNNGraph, x: Array, spikes: dict[str, Array], theirs: dict[str, Array], bounds: dict[str, RoundingBounds]
) -> None:
    """Fill in the bounds of each layer, step by step, and where the runs come apart in ties."""
    samples = x.shape[1]
    apart = np.zeros(samples, bool)
    largest = dict.fromkeys(bounds, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for t, steps in enumerate(bound_steps(graph, x, spikes)):
            for name, step in steps.items():
                if name not in bounds:
                    continue
                largest[name] = max(largest[name], float(np.abs(step.value).max()))
                step = replace(step, gap=np.minimum(step.gap, VALUE_TOLERANCE * largest[name]))
                bound = bounds[name]
                bound.gap[t] = step.gap.reshape(samples, -1)
                bound.after[t] = apart
                if name in spikes:
                    differ = spikes[name][t].reshape(samples, -1) != (theirs[name][t] != 0)
                    near = find_near_threshold(graph[name], step).reshape(samples, -1)
                    bound.ties[t] = differ & near & ~apart[:, None]
                    apart = apart | bound.ties[t].any(axis=1)


def _compare_layer(name: str, ours: Array, theirs: Array, bounds: RoundingBounds) -> dict[str, Any]:
    compared = np.broadcast_to(~bounds.after[..., None], ours.shape)
    spikes = ours.dtype == bool
    row: dict[str, Any] = {"layer": name, "what": "spikes" if spikes else "values", "compared": int(compared.sum())}
    row["after_ties"] = int(ours.size - compared.sum())
    row["largest_bound"] = float(bounds.gap.max(where=compared & np.isfinite(bounds.gap), initial=0))
    if spikes:
        different = (ours != (theirs != 0)) & ~bounds.ties
        row["spikes"], row["spikes_in_file"] = int(ours.sum()), int((theirs != 0).sum())
    else:
        distance = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        different = ~(distance <= bounds.gap)
        row["largest_difference"] = float(distance[compared].max(initial=0)) if np.isfinite(distance).all() else None
    different &= compared
    row["ties"], row["mismatches"] = int(bounds.ties.sum()), int(different.sum())
    row["first_difference"] = None
    if different.any():
        step, sample, neuron = (int(n) for n in np.argwhere(different)[0])
        row["first_difference"] = {"layer": name, "step": step, "sample": sample, "neuron": neuron}
    return row
