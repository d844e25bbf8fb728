"""Runs on an input file, recorded, proven and explained, as one result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adapt_stage import find_adaptation
from spear_deploy.pipeline.backends import LAVA_BACKENDS, prove_on_simulator
from spear_deploy.pipeline.inputs import DATA_OPTIONS
from spear_deploy.report.tables import list_lava_failures
from spear_deploy.simulator.recordings import read_input, read_labels, write_recording
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.network import Array
    from spear_deploy.network.graph import SNNGraph
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.quantize.explain.findings import Finding
    from spear_deploy.simulator import InputKind, Record


NOTE_SCALES = (
    "the scales of the integers are chosen on this input, so that a sample may get others in another file; `deploy` chooses them "
    "on training samples, and its quantised.snn keeps them"
)
"""Of integers that are made here, of a network in floating point."""


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What is run, and what is kept.

    Attributes:
        input_file: an `.npz` with spikes or current (T, B, *input), and labels `y`, (B,) or (B, T), if known.
        backend: one of `backends.BACKENDS`.
        chip: run the integers of this chip.
        overrides: facts of its profile to replace, by dotted key.
        explain: measure what each step to the integers costs.
        data, samples, steps, encoding, seed: data that are explained in place of the input file, how many samples of the test
            split, and how they are read.
        record: which of "spikes", "v", "u" to keep.
        timeout_s: time limit of a Lava run in s.
        out: file of the recording.
    """

    input_file: str | None = None
    backend: api.Backend = "fast"
    chip: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    explain: bool = False
    data: str | None = None
    samples: int | None = None
    steps: int | None = None
    encoding: str | None = None
    seed: int = 0
    record: tuple[Record, ...] = ("spikes",)
    timeout_s: float | None = None
    out: str | None = None


def simulate_file(
    net: api.Net, graph: SNNGraph, settings: SimulationSettings, progress: Progress | None = None
) -> tuple[dict[str, Any], Explanation | None]:
    """Run a network on an input file, and explain the steps to a chip's integers if that is asked.

    Args:
        net: as named; the backend Norse runs the model itself.
        graph: the same, loaded.
        settings: of the run.
        progress: is called during the runs.

    Returns:
        ({out, backend, chip, steps, samples, spikes, rates, overflows, lava, explain, notes, adaptation, overrides, findings,
        failures}, without the keys of what was not asked; the explanation or None). `failures` are sentences on spikes of Lava
        that differ, `notes` those on the data and on scales that the input file sets; `adaptation` is what was replaced before,
        where the network is that of an output folder of `adapt` or `deploy`.
    """
    target = None if settings.chip is None else api.profile(settings.chip, settings.overrides or None)
    facts: dict[str, Any] = {}
    findings: list[Finding] = []
    x: Array | None = None
    kind: InputKind = "spikes"
    if settings.input_file is not None:
        x, kind = read_input(settings.input_file, graph)
        facts = {"out": settings.out, "backend": settings.backend, "chip": settings.chip}
        facts |= {"notes": [NOTE_SCALES]} if target is not None and find_chip_format(graph) is None else {}
        if settings.out is not None or not settings.explain:
            side = api.BackendChoice(net=net, graph=graph, backend=settings.backend, chip=target)
            run_facts, findings = _run(side, x, kind, settings, progress)
            facts |= run_facts
    explanation = None
    if settings.explain:
        assert target is not None, "the caller names the chip that is explained"
        dataset = _read_data(graph, settings)
        explanation = _explain(graph, target, x, kind, settings, dataset, progress)
        facts |= {"chip": settings.chip, "explain": explanation.to_json()}
        facts |= {"notes": [*facts.get("notes", ()), *dataset.notes]} if dataset is not None else {}
        if (adaptation := find_adaptation(net, graph, target.name)) is not None:
            facts["adaptation"] = adaptation
        findings = [*explanation.findings, *(finding for finding in findings if finding not in explanation.findings)]
    if settings.overrides:
        facts["overrides"] = dict(settings.overrides)
    facts["findings"] = [finding.to_json() for finding in findings]
    facts.setdefault("failures", [])
    return facts, explanation


def _run(
    side: api.BackendChoice, x: Array, kind: InputKind, settings: SimulationSettings, progress: Progress | None
) -> tuple[dict[str, Any], list[Finding]]:
    """Run and record; a run on Lava is repeated on the simulator."""
    lowered, lowered_x = side.lower(x, kind)
    on_lava = side.backend in LAVA_BACKENDS
    kept: tuple[Record, ...] = settings.record
    if on_lava and "spikes" not in kept:
        kept = (*kept, "spikes")
    run = side.run(lowered, lowered_x, kind, kept, settings.timeout_s, progress)
    facts, findings = api.summarize_run(lowered, run)
    if on_lava:
        facts["lava"] = prove_on_simulator(lowered, lowered_x, kind, run)
        facts["failures"] = list_lava_failures(facts["lava"])
        run = run if "spikes" in settings.record else replace(run, spikes={})
    if settings.out is not None:
        write_recording(settings.out, run, lowered_x)
    return facts, findings


def _read_data(graph: SNNGraph, settings: SimulationSettings) -> Dataset | None:
    """Return the data that are explained; None where the input file is."""
    if settings.data is None:
        return None
    return api.data(settings.data, graph, **{name: getattr(settings, name) for name in (*DATA_OPTIONS, "seed")})


def _explain(
    graph: SNNGraph,
    chip: api.Chip,
    x: Array | None,
    kind: InputKind,
    settings: SimulationSettings,
    dataset: Dataset | None,
    progress: Progress | None,
) -> Explanation:
    if dataset is not None:
        return api.explain(graph, chip, dataset, samples=settings.samples, progress=progress)
    assert x is not None and settings.input_file is not None, "the caller names data or an input"
    labels = read_labels(settings.input_file, x.shape[1], x.shape[0])
    return api.explain(graph, chip, x, kind=kind, labels=labels, progress=progress)
