"""What did each step of the lowering cost? Decisions, spikes and the first of them that differs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.findings import Finding, of_change, of_numbers, of_quantiser, of_run
from spear_deploy.quantize.explain.first_difference import (
    TIME_CONSTANT_STEPS,
    Distance,
    FirstDifference,
    Recorded,
    distance,
    first_difference,
)
from spear_deploy.quantize.explain.numbers import Numbers, numbers_of
from spear_deploy.quantize.explain.stages import Step, steps
from spear_deploy.simulator import ChipRun, InputKind, check_input, simulate
from spear_deploy.simulator.run import decide
from spear_deploy.util.progress import Progress

ORDER = "contributions depend on the order of the steps, which is as listed; they add up to the whole difference"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one step changed against the step before it, and where the network stands after it.

    Attributes:
        step, what: name and sentence of the change.
        changed: whether the step changes network or input at all; if not, nothing was run.
        accuracy: share of right decisions after the step, or None without labels.
        accuracy_change: against the step before; these add up to the whole.
        agreement: share of samples whose decision is that of the trained network.
        decisions_changed: samples whose decision this step changed.
        output_error: root mean square of the output's difference from the trained network's, over that of the latter; None where
            the output is a potential in units of the chip that are not known.
        layers: by layer, the distance of its spikes from those of the step before.
        since_start: by layer, the distance of its spikes from the trained network's.
        first: by layer whose spikes this step changed, the first that differs and why.
    """

    step: str
    what: str
    changed: bool
    accuracy: float | None
    accuracy_change: float | None
    agreement: float
    decisions_changed: int
    output_error: float | None
    layers: Mapping[str, Distance]
    since_start: Mapping[str, Distance]
    first: Mapping[str, FirstDifference]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        layers = {
            name: {
                **found.to_json(),
                "since_start": self.since_start[name].to_json(),
                "first": self.first[name].to_json() if name in self.first else None,
            }
            for name, found in self.layers.items()
        }
        shown = ("step", "what", "changed", "accuracy", "accuracy_change", "agreement", "decisions_changed", "output_error")
        return {**{name: getattr(self, name) for name in shown}, "layers": layers}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The whole way from the trained network to the chip's integers.

    Attributes:
        costs: by step, in order.
        numbers: by layer, the scale and what rounding did to weights, decays, thresholds and biases.
        findings: what a person should know.
        alignment: steps by which the chip's output is later, and the edges that need a delay of their own so that all meets.
        samples, steps: of the input.
    """

    costs: Sequence[Cost]
    numbers: Mapping[str, Numbers]
    findings: Sequence[Finding]
    alignment: Mapping[str, Any]
    samples: int
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "order": ORDER,
            "steps": [cost.to_json() for cost in self.costs],
            "numbers": {name: found.to_json() for name, found in self.numbers.items()},
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
    """Run every network between a trained one and its integers, and say what each change cost.

    Args:
        graph: the floating-point network as stored.
        integer: what the quantiser made of it.
        x: (T, B, *input), as the trained network takes it.
        kind: of `x`.
        labels: (B,) if known.
        alignment: what the chip's delivery one step later takes, see `lava.schedule.alignment`.
        progress: is told which step runs.

    Raises:
        UnsupportedError: the network holds integers already.
        DataError: the input or the labels do not fit.
    """
    if graph.is_integer:
        raise UnsupportedError("the network holds integers already; give the floating-point network that it was made of")
    x = check_input(graph, x, kind)
    if labels is not None and len(labels) != x.shape[1]:
        raise DataError(f"{len(labels)} labels for {x.shape[1]} samples; give one label a sample")
    chain = steps(graph, integer, x, kind)
    costs: list[Cost] = []
    start = before = last = _ran(chain[0], kind)
    for n, step in enumerate(chain):
        if progress is not None:
            progress({"stage": f"explain: {step.name}", "done": n, "of": len(chain)})
        last = _ran(step, kind) if n and step.changed else last
        costs.append(_cost(step, start, before, last, labels, costs))
        before = last
    numbers = numbers_of(chain)
    changes = of_change(graph, start.run.counts, last.run.counts)
    findings = [*of_quantiser(integer), *of_numbers(numbers), *changes, *of_run(integer, last.run)]
    return Explanation(
        costs=costs,
        numbers=numbers,
        findings=findings,
        alignment=dict(alignment or {}),
        samples=x.shape[1],
        steps=x.shape[0],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ran:
    run: ChipRun
    recorded: Recorded
    output: Array | None


def _ran(step: Step, kind: InputKind) -> _Ran:
    run = simulate(step.graph, step.x, kind=kind, record=("spikes",), dtype=step.dtype)
    recorded = Recorded(graph=step.graph, x=step.x, kind=kind, dtype=step.dtype, spikes=run.spikes, units=step.units)
    name = step.graph.output
    output: Array | None = run.output
    if not step.graph[name].spikes and name in step.units:
        factor, level = step.units[name]
        output = run.output / factor + level
    elif not step.graph[name].spikes and step.graph.is_integer:
        output = None
    return _Ran(run=run, recorded=recorded, output=output)


def _cost(step: Step, start: _Ran, before: _Ran, now: _Ran, labels: Array | None, earlier: Sequence[Cost]) -> Cost:
    decided, at_start, previous = decide(now.run.output), decide(start.run.output), decide(before.run.output)
    accuracy = None if labels is None else float(np.mean(decided == labels))
    change = None if accuracy is None else accuracy - (earlier[-1].accuracy or 0.0) if earlier else 0.0
    common = [name for name in start.recorded.spikes if name in now.recorded.spikes]
    found = {name: first_difference(name, before.recorded, now.recorded) for name in common}
    return Cost(
        step=step.name,
        what=step.what,
        changed=step.changed,
        accuracy=accuracy,
        accuracy_change=None if labels is None else change,
        agreement=float(np.mean(decided == at_start)),
        decisions_changed=int(np.count_nonzero(decided != previous)),
        output_error=_relative(now.output, start.output),
        layers={name: distance(before.recorded.spikes[name], now.recorded.spikes[name]) for name in common},
        since_start={name: distance(start.recorded.spikes[name], now.recorded.spikes[name]) for name in common},
        first={name: first for name, first in found.items() if first is not None},
    )


def _relative(value: Array | None, reference: Array | None) -> float | None:
    if value is None or reference is None:
        return None
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(np.subtract(value, reference, dtype=np.float64)))))
    return error / size if size else error
