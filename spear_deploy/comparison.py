"""Where do two runs differ first?

Spikes are equal or the first difference is named: earliest step, then sample, then neuron. Readouts are compared by
value, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.simulator import ChipRun


@dataclass(frozen=True, kw_only=True)
class LayerDifference:
    """How one layer differs between two runs.

    Attributes:
        layer: its name in the first network.
        mismatches: values that differ.
        compared: values compared.
        first: {step, sample, neuron} of the first difference, or None.
        what: "spikes" or "value".
    """

    layer: str
    mismatches: int
    compared: int
    first: dict[str, Any] | None
    what: str = "spikes"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "layer": self.layer,
            "mismatches": self.mismatches,
            "first": self.first,
            "compared": self.compared,
            "what": self.what,
        }


def compare_arrays(layer: str, a: Array, b: Array, what: str = "spikes") -> LayerDifference:
    """Compare two recordings (T, B, *shape) of one layer.

    Raises:
        DataError: their shapes differ.
    """
    if a.shape != b.shape:
        raise DataError(f"layer '{layer}': recordings of shape {a.shape} and {b.shape} cannot be compared; record the same run")
    different = np.asarray(a != b)
    count = int(np.count_nonzero(different))
    first = None
    if count:
        t, sample, *neuron = (int(n) for n in np.unravel_index(int(different.argmax()), different.shape))
        first = {"step": t, "sample": sample, "neuron": neuron}
    return LayerDifference(layer=layer, mismatches=count, compared=int(different.size), first=first, what=what)


def compare_runs(a: ChipRun, b: ChipRun, pairs: list[tuple[str, str]]) -> list[LayerDifference]:
    """Compare spikes layer by layer, and the output by value where it does not spike."""
    found = [compare_arrays(one, a.spikes[one], b.spikes[other]) for one, other in pairs]
    if a.output.dtype.kind != "b" or b.output.dtype.kind != "b":
        found.append(compare_arrays("output", a.output, b.output, "value"))
    return found


def paired_layers(a: SNNGraph, b: SNNGraph) -> list[tuple[str, str]]:
    """Pair the spiking layers of two networks: by name where all names agree, else in their order.

    Raises:
        DataError: the networks do not have the same spiking layers.
    """
    one = [layer.name for layer in a.layers if layer.spikes]
    other = [layer.name for layer in b.layers if layer.spikes]
    if sorted(one) == sorted(other):
        return [(name, name) for name in one]
    shapes = [[graph.shape_of(name) for name in names] for graph, names in ((a, one), (b, other))]
    if [np.prod(s) for s in shapes[0]] != [np.prod(s) for s in shapes[1]]:
        raise DataError(
            f"the networks have spiking layers {_listed(a, one)} and {_listed(b, other)}; only equal ones can be compared"
        )
    return list(zip(one, other, strict=True))


def _listed(graph: SNNGraph, names: list[str]) -> str:
    return "[" + ", ".join(f"{name} {'x'.join(map(str, graph.shape_of(name)))}" for name in names) + "]"
