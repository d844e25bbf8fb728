"""Comparison of two runs: mismatches, first difference, constant shift.

The first difference is that of the earliest step, then sample, then neuron. Values are compared exactly. Two tools often
differ by a convention alone: the second spikes a constant number of steps later. Mismatches are counted without any shift; the
shift under which they would vanish is reported with them, never applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import LOIHI_UNIT, Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator.run import ChipRun, Record

MAX_SHIFT = 8
"""Largest constant shift that is searched for, in steps."""


@dataclass(frozen=True, kw_only=True)
class LayerDifference:
    """How one layer differs between two runs.

    Attributes:
        layer: its name in the first network.
        mismatches: values that differ.
        compared: values compared.
        first: {step, sample, neuron} of the first difference, or None.
        what: "spikes", "v", "u", or "value" of an output that does not spike.
        shift: steps by which the second run is later, if under that shift no spike differs; else None.
        largest: the largest difference of values; None for spikes.
    """

    layer: str
    mismatches: int
    compared: int
    first: dict[str, Any] | None
    what: str = "spikes"
    shift: int | None = None
    largest: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        names = ("layer", "mismatches", "first", "compared", "what", "shift")
        data = {name: getattr(self, name) for name in names}
        return data if self.largest is None else {**data, "largest": self.largest}


def compare_arrays(layer: str, a: Array, b: Array, what: str = "spikes") -> LayerDifference:
    """Compare two recordings (T, B, *shape) of one layer; those of a flattened layer in its flat order.

    Raises:
        DataError: their shapes differ.
    """
    if a.shape != b.shape and (a.shape[:2] != b.shape[:2] or a.size != b.size):
        raise DataError(f"layer '{layer}': recordings of shape {a.shape} and {b.shape} cannot be compared; record the same run")
    b = b.reshape(a.shape)
    different = np.asarray(a != b)
    count = int(np.count_nonzero(different))
    first = None
    if count:
        t, sample, *neuron = (int(n) for n in np.unravel_index(int(different.argmax()), different.shape))
        first = {"step": t, "sample": sample, "neuron": neuron}
    difference = LayerDifference(layer=layer, mismatches=count, compared=int(different.size), first=first, what=what)
    if what != "spikes":
        return replace(difference, largest=float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0)))
    return replace(difference, shift=find_constant_shift(a, b)) if count else difference


def find_constant_shift(a: Array, b: Array, max_shift: int = MAX_SHIFT) -> int | None:
    """Return the number of steps by which `b` (T, ...) is later than `a`, if that is all that differs.

    Steps that a shift moves over the ends are not compared; all others are, at least half of the steps with one spike.

    >>> spikes = np.array([0, 1, 0, 0, 1, 0, 0, 0], bool)
    >>> find_constant_shift(spikes, np.roll(spikes, 2)), find_constant_shift(spikes, ~spikes)
    (2, None)
    """
    steps = len(a)
    flat_a, flat_b = a.reshape(steps, -1), b.reshape(steps, -1)
    sums = np.count_nonzero(flat_a, axis=1), np.count_nonzero(flat_b, axis=1)  # a cheap first check
    for distance in range(1, min(max_shift, steps // 2) + 1):
        for shift in (distance, -distance):
            early, late = slice(max(-shift, 0), steps - max(shift, 0)), slice(max(shift, 0), steps - max(-shift, 0))
            if not sums[0][early].any() or not np.array_equal(sums[0][early], sums[1][late]):
                continue
            if np.array_equal(flat_a[early], flat_b[late]):
                return shift
    return None


def compare_runs(
    a: ChipRun, b: ChipRun, pairs: Iterable[tuple[str, str]], states: Iterable[Record] = ()
) -> list[LayerDifference]:
    """Compare spikes layer by layer, states where both have them, and the output by value where it does not spike."""
    differences: list[LayerDifference] = []
    for name_a, name_b in pairs:
        differences.append(compare_arrays(name_a, a.spikes[name_a], b.spikes[name_b]))
        for state in states:
            recorded_a, recorded_b = getattr(a, state), getattr(b, state)
            if name_a in recorded_a and name_b in recorded_b:
                differences.append(compare_arrays(name_a, recorded_a[name_a], recorded_b[name_b], state))
    if a.output.dtype.kind != "b" or b.output.dtype.kind != "b":
        differences.append(compare_arrays("output", a.output, b.output, "value"))
    return differences


def to_floating_units(graph: SNNGraph, run: ChipRun) -> ChipRun:
    """Return a run of an integer network with potentials and output in the units of the network it was quantised from.

    A potential becomes v / (unit · scale) + offset, with both by layer from the network's metadata. Layers without a scale stay.
    """
    facts = graph.metadata.get("quantization", {})
    scales, offsets, unit = facts.get("scale", {}), facts.get("offset", {}), facts.get("unit", LOIHI_UNIT)

    def convert(name: str, value: Array) -> Array:
        if name not in scales:
            return value
        return np.asarray(value / (unit * scales[name]) + np.asarray(offsets.get(name, 0.0)))

    v = {name: convert(name, value) for name, value in run.v.items()}
    output = run.output if graph[graph.output].spikes else convert(graph.output, run.output)
    return replace(run, v=v, output=output)


def pair_layers(a: SNNGraph, b: SNNGraph) -> list[tuple[str, str]]:
    """Pair the spiking layers of two networks: by name where all names agree, else in their order.

    Raises:
        DataError: the networks do not have the same spiking layers.
    """
    neurons_a, neurons_b = _count_neurons(a), _count_neurons(b)
    if neurons_a == neurons_b:
        return [(name, name) for name in neurons_a]
    if list(neurons_a.values()) != list(neurons_b.values()):
        raise DataError(
            f"the networks have spiking layers {_quote_layers(a, neurons_a)} and {_quote_layers(b, neurons_b)}; "
            "only equal ones can be compared, e.g. a network and its integers"
        )
    return list(zip(neurons_a, neurons_b, strict=True))


def _count_neurons(graph: SNNGraph) -> dict[str, int]:
    """Return the number of neurons of each spiking layer, in the order of the layers."""
    return {layer.name: int(np.prod(graph.shape_of(layer.name))) for layer in graph.layers if layer.spikes}


def _quote_layers(graph: SNNGraph, names: Iterable[str]) -> str:
    return "[" + ", ".join(f"{name} {'x'.join(map(str, graph.shape_of(name)))}" for name in names) + "]"
