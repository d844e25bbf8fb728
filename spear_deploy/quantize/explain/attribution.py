"""Cost of each stage from the trained network to the chip's integers.

A cost is given in decisions, output, and spikes by layer, with the first spike that differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.data.labels import average_right, check_labels, grade_labels, require_decision
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.findings import (
    Finding,
    find_changed_parameters,
    find_changed_rules,
    find_in_run,
    find_rate_changes,
    find_rounding_errors,
)
from spear_deploy.quantize.explain.first_difference import (
    TIME_CONSTANT_STEPS,
    FirstDifference,
    RecordedRun,
    SpikeDistance,
    find_first_difference,
    spike_distance,
)
from spear_deploy.quantize.explain.rounding import LayerRounding, measure_rounding
from spear_deploy.quantize.explain.stages import Stage, build_stages
from spear_deploy.simulator import ChipRun, InputKind, check_input, simulate
from spear_deploy.simulator.run import decide
from spear_deploy.util.progress import Progress

ORDER_NOTE = "contributions depend on the order of the steps, which is as listed; they add up to the whole difference"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage changed against the stage before it, and the network after it against the trained one.

    Attributes:
        step, what: name of the stage, and its change in a sentence.
        changed: whether the stage changes network or input at all; if not, nothing was run.
        accuracy: share of right decisions after the stage, or None without labels.
        accuracy_change: against the stage before; these add up to the whole difference.
        agreement: share of samples whose decision is that of the trained network.
        decisions_changed: samples, or steps where each is decided, whose decision this stage changed.
        output_error: root mean square of the output's difference from the trained network's, over that of the latter; None where
            the output is a potential in units of the chip whose scale is not known.
        layers: by layer, the distance of its spikes from those of the stage before.
        since_start: by layer, the distance of its spikes from the trained network's.
        first: by layer whose spikes this stage changed, the first that differs and why.
    """

    step: str
    what: str
    changed: bool
    accuracy: float | None
    accuracy_change: float | None
    agreement: float
    decisions_changed: int
    output_error: float | None
    layers: Mapping[str, SpikeDistance]
    since_start: Mapping[str, SpikeDistance]
    first: Mapping[str, FirstDifference]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        layers = {
            name: {
                **spikes.to_json(),
                "since_start": self.since_start[name].to_json(),
                "first": self.first[name].to_json() if name in self.first else None,
            }
            for name, spikes in self.layers.items()
        }
        keys = ("step", "what", "changed", "accuracy", "accuracy_change", "agreement", "decisions_changed", "output_error")
        return {**{name: getattr(self, name) for name in keys}, "layers": layers}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All stages from the trained network to the chip's integers.

    Attributes:
        costs: by stage, in order.
        rounding: by layer, the scale and what rounding did to weights, decays, thresholds and biases.
        findings: sentences for the user.
        alignment: steps by which the chip's output is later, and extra delays of its edges (`lava.schedule.schedule_on_chip`).
        samples, steps: of the input.
    """

    costs: Sequence[StageCost]
    rounding: Mapping[str, LayerRounding]
    findings: Sequence[Finding]
    alignment: Mapping[str, Any]
    samples: int
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "order": ORDER_NOTE,
            "steps": [cost.to_json() for cost in self.costs],
            "numbers": {name: layer.to_json() for name, layer in self.rounding.items()},
            "alignment": dict(self.alignment),
            "samples": self.samples,
            "time_steps": self.steps,
            "van_rossum_time_constant_steps": TIME_CONSTANT_STEPS,
        }


def explain(
    graph: SNNGraph,
    integer: SNNGraph,
    x: Array,
    *,
    kind: InputKind = "spikes",
    labels: Array | None = None,
    alignment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Run every network between a trained one and its integers, and return what each change cost.

    Args:
        graph: the floating-point network as stored.
        integer: the same network quantized.
        x: (T, B, *input), as the trained network takes it.
        kind: of `x`.
        labels: (B,) if known, or (B, T) where each step has one.
        alignment: delays of the chip, see `lava.schedule.schedule_on_chip`.
        progress: gets the name of each stage before it runs.

    Raises:
        UnsupportedError: the network is quantised already.
        DataError: the input or the labels do not fit.
    """
    if find_chip_format(graph):
        raise UnsupportedError("the network is quantised already; give the floating-point network that it was made of")
    x = check_input(graph, x, kind)
    labels = None if labels is None else _check_labels(graph, labels, x)
    chain = build_stages(graph, integer, x, kind)
    costs: list[StageCost] = []
    start = before = last = _run_stage(chain[0], kind)
    for n, stage in enumerate(chain):
        if progress is not None:
            progress({"stage": f"explain: {stage.name}", "done": n, "of": len(chain)})
        last = _run_stage(stage, kind) if n and stage.changed else last
        costs.append(_attribute_cost(stage, start, before, last, labels, costs))
        before = last
    rounding = measure_rounding(chain)
    changes = find_rate_changes(graph, start.run.counts, last.run.counts)
    parameters = [
        *find_changed_rules(integer, explained=True),
        *find_changed_parameters(integer),
        *find_rounding_errors(rounding),
    ]
    findings = [*parameters, *changes, *find_in_run(integer, last.run)]
    return Explanation(
        costs=costs,
        rounding=rounding,
        findings=findings,
        alignment=dict(alignment or {}),
        samples=x.shape[1],
        steps=x.shape[0],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _StageRun:
    """A stage as it ran; `output` in the units of the trained network, or None where these are not known."""

    run: ChipRun
    recorded: RecordedRun
    output: Array | None


def _run_stage(stage: Stage, kind: InputKind) -> _StageRun:
    run = simulate(stage.graph, stage.x, kind=kind, record=("spikes",), dtype=stage.dtype)
    recorded = RecordedRun(graph=stage.graph, x=stage.x, kind=kind, dtype=stage.dtype, spikes=run.spikes, units=stage.units)
    name = stage.graph.output
    output: Array | None = run.output
    if not stage.graph[name].spikes and name in stage.units:
        factor, level = stage.units[name]
        output = run.output / factor + level
    elif not stage.graph[name].spikes and stage.graph.is_integer:
        output = None
    return _StageRun(run=run, recorded=recorded, output=output)


def _check_labels(graph: SNNGraph, labels: Array, x: Array) -> Array:
    if len(labels) != x.shape[1]:
        raise DataError(f"{len(labels)} labels for {x.shape[1]} samples; give one label a sample")
    labels = check_labels(labels, "the input", len(x))
    if (largest := labels.max()) >= (classes := count_classes(graph)):
        raise DataError(f"labels go up to {largest}, the network has outputs 0..{classes - 1}; check the labels")
    require_decision("the input", labels, read_decision(graph))
    return labels


def _attribute_cost(
    stage: Stage, start: _StageRun, before: _StageRun, now: _StageRun, labels: Array | None, earlier: Sequence[StageCost]
) -> StageCost:
    decided, at_start, previous = (decide(each.run.output, stage.graph) for each in (now, start, before))
    accuracy = None if labels is None else average_right(grade_labels(decided, labels))
    change = None if accuracy is None else accuracy - (earlier[-1].accuracy or 0.0) if earlier else 0.0
    common = [name for name in start.recorded.spikes if name in now.recorded.spikes]
    differences = {name: find_first_difference(name, before.recorded, now.recorded) for name in common}
    return StageCost(
        step=stage.name,
        what=stage.what,
        changed=stage.changed,
        accuracy=accuracy,
        accuracy_change=None if labels is None else change,
        agreement=float(np.mean(decided == at_start)),
        decisions_changed=int(np.count_nonzero(decided != previous)),
        output_error=_relative_error(now.output, start.output),
        layers={name: spike_distance(before.recorded.spikes[name], now.recorded.spikes[name]) for name in common},
        since_start={name: spike_distance(start.recorded.spikes[name], now.recorded.spikes[name]) for name in common},
        first={name: first for name, first in differences.items() if first is not None},
    )


def _relative_error(value: Array | None, reference: Array | None) -> float | None:
    """Return the root mean square of the difference over that of the reference."""
    if value is None or reference is None:
        return None
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(np.subtract(value, reference, dtype=np.float64)))))
    return error / size if size else error
