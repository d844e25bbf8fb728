"""Where do two runs differ first?

Spikes are equal or the first difference is named: earliest step, then sample, then neuron. Values are compared exactly.
Two tools often differ by a convention alone: the second spikes a constant number of steps later. Differences are counted
as they are; the shift under which they would vanish is named beside them, never applied.
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

LONGEST_SHIFT = 8
"""Steps up to which a constant shift is looked for."""


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
        shown = ("layer", "mismatches", "first", "compared", "what", "shift")
        found = {name: getattr(self, name) for name in shown}
        return found if self.largest is None else {**found, "largest": self.largest}


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
    found = LayerDifference(layer=layer, mismatches=count, compared=int(different.size), first=first, what=what)
    if what != "spikes":
        return replace(found, largest=float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0)))
    return replace(found, shift=constant_shift(a, b)) if count else found


def constant_shift(a: Array, b: Array, longest: int = LONGEST_SHIFT) -> int | None:
    """Return the number of steps by which `b` (T, ...) is later than `a`, if that is all that differs.

    What a shift moves over the ends is not compared; of what remains, at least half of the steps and one spike, all is.

    >>> spikes = np.array([0, 1, 0, 0, 1, 0, 0, 0], bool)
    >>> constant_shift(spikes, np.roll(spikes, 2)), constant_shift(spikes, ~spikes)
    (2, None)
    """
    steps = len(a)
    flat_a, flat_b = a.reshape(steps, -1), b.reshape(steps, -1)
    sums = np.count_nonzero(flat_a, axis=1), np.count_nonzero(flat_b, axis=1)  # a cheap first sight
    for distance in range(1, min(longest, steps // 2) + 1):
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
    found: list[LayerDifference] = []
    for one, other in pairs:
        found.append(compare_arrays(one, a.spikes[one], b.spikes[other]))
        for state in states:
            recorded = getattr(a, state), getattr(b, state)
            if one in recorded[0] and other in recorded[1]:
                found.append(compare_arrays(one, recorded[0][one], recorded[1][other], state))
    if a.output.dtype.kind != "b" or b.output.dtype.kind != "b":
        found.append(compare_arrays("output", a.output, b.output, "value"))
    return found


def in_floating_units(graph: SNNGraph, run: ChipRun) -> ChipRun:
    """Return a run of an integer network with potentials and output in the units of the network it was quantised from.

    A potential becomes v / (unit · scale) + offset, by what the network's metadata say. Layers without a scale stay.
    """
    facts = graph.metadata.get("quantization", {})
    scales, offsets, unit = facts.get("scale", {}), facts.get("offset", {}), facts.get("unit", LOIHI_UNIT)

    def converted(name: str, value: Array) -> Array:
        if name not in scales or (name == graph.output and graph[name].spikes):
            return value
        return np.asarray(value / (unit * scales[name]) + offsets.get(name, 0.0))

    v = {name: converted(name, value) for name, value in run.v.items()}
    return replace(run, v=v, output=converted(graph.output, run.output))


def paired_layers(a: SNNGraph, b: SNNGraph) -> list[tuple[str, str]]:
    """Pair the spiking layers of two networks: by name where all names agree, else in their order.

    Raises:
        DataError: the networks do not have the same spiking layers.
    """
    one = [layer.name for layer in a.layers if layer.spikes]
    other = [layer.name for layer in b.layers if layer.spikes]
    if sorted(one) == sorted(other) and all(_neurons(a, name) == _neurons(b, name) for name in one):
        return [(name, name) for name in one]
    if [_neurons(a, name) for name in one] != [_neurons(b, name) for name in other]:
        raise DataError(
            f"the networks have spiking layers {_listed(a, one)} and {_listed(b, other)}; only equal ones can be compared"
        )
    return list(zip(one, other, strict=True))


def _neurons(graph: SNNGraph, name: str) -> int:
    return int(np.prod(graph.shape_of(name)))


def _listed(graph: SNNGraph, names: list[str]) -> str:
    return "[" + ", ".join(f"{name} {'x'.join(map(str, graph.shape_of(name)))}" for name in names) + "]"
