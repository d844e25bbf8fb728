"""Comparison of a file's run with its network's, by layer and step.

Spikes are compared one by one, and so are the values of a readout. Both must be equal, except where a file's floating-point
arithmetic differs from the network's; `onnx.float_bounds` states by how much, and

    a value differs     where the two are further apart than the bound
    a spike differs     where v is further from the threshold than the bound; nearer it is a tie, counted apart

There are three such cases. onnxruntime adds sums up in another order, and runs freely: after a tie the two runs of that sample go
different ways, and its later steps and layers are not compared. PyNN's neurons run in float64, freely too. A NIR file holds
weights with the batch norm folded in; its network is simulated with the spikes of the first run in place of its own, so that
everything is compared after a tie too.

No more than one step of each layer is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.interchange.onnx.float_bounds import (
    BoundedValue,
    Rounding,
    SpikeGuidedRun,
    find_near_threshold,
    find_nearest_threshold,
    find_spikes,
)
from spear_deploy.network import Array, Layer
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.progress import Progress

VALUE_TOLERANCE = 1e-5
"""Of the largest magnitude in a layer so far: caps the bound, whose worst case grows with n far beyond what rounding does."""

EQUAL = "every spike and every value of a readout must be equal"
NOT_FURTHER = f"neither further off than {VALUE_TOLERANCE:g} of the largest magnitude in the layer so far"
WITHIN_BOUND = (
    "every spike must be equal unless v is within the bound of its threshold (a tie), every value of a readout equal within the "
    f"bound, and {NOT_FURTHER}; after a tie the rest of that sample is not compared"
)
FOLDED_WITHIN_BOUND = (
    "every spike must be equal unless v is within the bound of its threshold (a tie), every value of a readout equal within the "
    f"bound, and {NOT_FURTHER}; the file's neurons are reset by the network's spikes, so that everything is compared after a tie"
)


@dataclass
class LayerComparison:
    """Counts of one layer's comparison, over the steps so far.

    Attributes:
        layer, what: its name, and "spikes" or "values".
        compared, after_ties: values compared, and left out after a tie.
        largest_bound: of values that were compared.
        ours, theirs: spikes of the network and of the file.
        largest_difference: of values; infinite where one is.
        ties, tie_distance: spikes that differ within the bound, and the largest distance of their v from the threshold.
        mismatches, first: differences, and the first of them.
    """

    layer: str
    what: str
    compared: int = 0
    after_ties: int = 0
    largest_bound: float = 0.0
    ours: int = 0
    theirs: int = 0
    largest_difference: float = 0.0
    ties: int = 0
    tie_distance: float = 0.0
    mismatches: int = 0
    first: dict[str, Any] | None = field(default=None)

    def add(self, step: int, ours: Array, theirs: Array, bound: StepBound | None) -> None:
        """Add a step: the values of both runs, (B, neurons), and what may differ."""
        included = np.ones(ours.shape, bool) if bound is None else np.broadcast_to(~bound.after[:, None], ours.shape)
        compared = int(included.sum())
        self.compared, self.after_ties = self.compared + compared, self.after_ties + ours.size - compared
        if bound is not None:
            self.largest_bound = max(self.largest_bound, float(bound.gap.max(where=included & np.isfinite(bound.gap), initial=0)))
        if self.what == "spikes":
            fired = theirs != 0 if ours.dtype == bool else theirs
            different = ours != fired
            self.ours, self.theirs = self.ours + int(ours.sum()), self.theirs + int(fired.sum())
            if bound is not None and bound.ties.any():
                different &= ~bound.ties
                self.ties += int(bound.ties.sum())
                self.tie_distance = max(self.tie_distance, float(bound.distance[bound.ties].max()))
        else:
            distance = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
            different = ~(distance <= (0 if bound is None else bound.gap))
            largest = float(distance[included].max(initial=0)) if np.isfinite(distance).all() else np.inf
            self.largest_difference = max(self.largest_difference, largest)
        different &= included
        self.mismatches += int(different.sum())
        if self.first is None and different.any():
            sample, neuron = (int(n) for n in np.argwhere(different)[0])
            self.first = {"layer": self.layer, "step": step, "sample": sample, "neuron": neuron}

    def to_row(self) -> dict[str, Any]:
        """Return it as plain data."""
        row: dict[str, Any] = {"layer": self.layer, "what": self.what, "compared": self.compared, "after_ties": self.after_ties}
        row["largest_bound"] = self.largest_bound
        if self.what == "spikes":
            row["spikes"], row["spikes_in_file"] = self.ours, self.theirs
            row["tie_distance"] = self.tie_distance if self.ties else None
        else:
            row["largest_difference"] = self.largest_difference if np.isfinite(self.largest_difference) else None
        row["ties"], row["mismatches"], row["first_difference"] = self.ties, self.mismatches, self.first
        return row


@dataclass(frozen=True)
class StepBound:
    """What rounding may do to one layer in one step.

    Attributes:
        gap: (B, neurons), how far values may be apart.
        ties: (B, neurons) bool, spikes that differ with v within the gap of the threshold.
        distance: (B, neurons), of v from the threshold; zeros where the layer does not spike.
        after: (B,) bool, the sample had a tie before.
    """

    gap: Array
    ties: Array
    distance: Array
    after: Array


def split_steps(values: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Yield the values of each step, (B, *shape) by layer, of arrays (T, B, *shape)."""
    for t in range(len(next(iter(values.values()), ()))):
        yield {name: np.asarray(value[t]) for name, value in values.items()}


def compare_layers(
    graph: SNNGraph,
    expected: Iterable[Mapping[str, Array]],
    read_back: Iterable[Mapping[str, Array]],
    *,
    rounded_input: Array | None,
    rounding: Rounding = "order",
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare the layers that both runs have, neurons counted flat in the order C, H, W.

    Args:
        graph: the network.
        expected: its run, step by step, (B, *shape) by layer; bool where spikes are compared.
        read_back: the file's run, by the same names.
        rounded_input: (T, B, *input shape) where the file's sums may add up in another order; None asks for equality.
        rounding: "exact" where the file's run does not round.

    Returns:
        A row for each layer in both: `layer`, `what` ("spikes" or "values"), the number of values `compared` and those
        `after_ties`, `largest_bound`, spikes on both sides and the `tie_distance`, or the `largest_difference` of values,
        `ties`, `mismatches`, `first_difference` (None, or layer, step, sample, neuron). And the layers that the file does not
        give.

    Raises:
        DataError: a layer has another number of neurons in the file.
    """
    rows: dict[str, LayerComparison] = {}
    missing: list[str] = []
    bounds: _FreeRunBounds | None = None
    for t, (mine, file) in enumerate(zip(expected, read_back, strict=True)):
        if t == 0:
            rows = {name: _open_row(graph, name, mine[name], file[name]) for name in mine if name in file}
            missing = [name for name in mine if name not in file]
            bounds = None if rounded_input is None else _FreeRunBounds(graph, len(next(iter(mine.values()))), rounding)
        ours, theirs = (
            {name: np.asarray(values[name]).reshape(len(values[name]), -1) for name in rows} for values in (mine, file)
        )
        step_bounds: Mapping[str, StepBound] = {}
        if bounds is not None and rounded_input is not None:
            step_bounds = bounds.advance(rounded_input[t], mine, theirs)
        for name, row in rows.items():
            row.add(t, ours[name], theirs[name], step_bounds.get(name))
    return [row.to_row() for row in rows.values()], missing


def compare_folded(
    graph: SNNGraph, read_back: SNNGraph, x: Array, *, progress: Progress | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare a floating-point network with one that holds its batch norms folded into weights.

    The network runs freely, the other with its spikes: in each step both have the same inputs and resets.

    Args:
        graph: the network.
        read_back: the network of the file; spiking layers and the output have the names of the first.
        x: (T, B, *input shape).
        progress: called after each step.

    Returns:
        As `compare_layers`.

    Raises:
        DataError: a layer has another number of neurons in the file.
    """
    batch = x.shape[1]
    first, second = SpikeGuidedRun(graph, batch, rounding="folded"), SpikeGuidedRun(read_back, batch, rounding="none")
    names = [layer.name for layer in graph.layers if layer.neuron is not None or layer.name == graph.output]
    in_file = {layer.name for layer in read_back.layers}
    compared = [name for name in names if name in in_file]
    rows: dict[str, LayerComparison] = {}
    largest = dict.fromkeys(compared, 0.0)
    nothing_left_out = np.zeros(batch, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for t, x_step in enumerate(x):
            mine = first.advance(x_step)
            spikes = {layer.name: find_spikes(layer, mine[layer.name].value) for layer in graph.layers if layer.spikes}
            file = second.advance(x_step.reshape(batch, *read_back.input_shape), spikes)
            for name in compared:
                layer, other = graph[name], read_back[name]
                fired = find_spikes(other, file[name].value) if layer.spikes else file[name].value
                ours = spikes[name] if layer.spikes else mine[name].value
                if t == 0:
                    rows[name] = _open_row(graph, name, ours, fired)
                ours, fired = ours.reshape(batch, -1), fired.reshape(batch, -1)
                largest[name] = max(largest[name], float(np.abs(mine[name].value).max()))
                bound = _bound_step(layer, mine[name], fired, ours, largest[name], nothing_left_out)
                rows[name].add(t, ours, fired, bound)
            if progress is not None:
                progress({"stage": "simulate", "done": t + 1, "of": len(x)})
    return [row.to_row() for row in rows.values()], [name for name in names if name not in in_file]


def _open_row(graph: SNNGraph, name: str, ours: Array, theirs: Array) -> LayerComparison:
    here, there = (int(np.prod(np.shape(value)[1:])) for value in (ours, theirs))
    if here != there:
        raise DataError(f"layer '{name}': {here} neurons in the network, {there} in the file; report this as a defect")
    is_spikes = np.asarray(ours).dtype == bool or (graph[name].spikes and not graph.is_integer)
    return LayerComparison(layer=name, what="spikes" if is_spikes else "values")


class _FreeRunBounds:
    """Bounds of each layer and step, of a file that runs with its own spikes."""

    def __init__(self, graph: SNNGraph, batch: int, rounding: Rounding) -> None:
        self.graph, self.run = graph, SpikeGuidedRun(graph, batch, rounding=rounding)
        self.apart = np.zeros(batch, bool)
        self.largest: dict[str, float] = {}

    def advance(self, x: Array, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, StepBound]:
        """Return the bounds of one step, and note the samples whose runs come apart in it."""
        spikes = {layer.name: ours[layer.name] for layer in self.graph.layers if layer.spikes}
        bounds: dict[str, StepBound] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for name, step in self.run.advance(x, spikes).items():
                if name not in theirs:
                    continue
                self.largest[name] = max(self.largest.get(name, 0.0), float(np.abs(step.value).max()))
                mine = np.asarray(ours[name]).reshape(theirs[name].shape)
                bounds[name] = _bound_step(self.graph[name], step, theirs[name], mine, self.largest[name], self.apart)
                self.apart = self.apart | bounds[name].ties.any(axis=1)
        return bounds


def _bound_step(layer: Layer, step: BoundedValue, theirs: Array, ours: Array, largest: float, apart: Array) -> StepBound:
    """Return the bound of a layer's values and its ties, (B, neurons), held to a share of the largest magnitude."""
    gap = np.broadcast_to(np.minimum(step.gap, VALUE_TOLERANCE * largest), step.value.shape)
    flat_gap, zeros = gap.reshape(ours.shape), np.zeros(ours.shape)
    if not layer.spikes:
        return StepBound(gap=flat_gap, ties=zeros.astype(bool), distance=zeros, after=apart)
    near = find_near_threshold(layer, BoundedValue(step.value, gap)).reshape(ours.shape)
    value = step.value.astype(np.float64)
    distance = np.abs(value - find_nearest_threshold(layer, value)).reshape(ours.shape)
    ties = (ours != (theirs != 0 if ours.dtype == bool else theirs)) & near & ~apart[:, None]
    return StepBound(gap=flat_gap, ties=ties, distance=distance, after=apart)
