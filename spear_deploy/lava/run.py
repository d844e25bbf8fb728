"""What does Lava make of a network? The same question, and the same answer, as `spear_deploy.simulator`.

    run_lava(graph, x, *, kind="spikes", record=(), timeout_s=None, model="reference" | "fast") -> ChipRun
    run_jobs(jobs, *, timeout_s=None, model="reference" | "fast") -> list[ChipRun]

On the command line, backend `lava` is the reference model and `lava-fast` the fast one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.lava.batches import Lowered, lower
from spear_deploy.lava.plan import plan
from spear_deploy.lava.program import Program, joined
from spear_deploy.lava.single_process import lower_whole, read_whole
from spear_deploy.lava.worker_process import run_program
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, Record, check_input, check_record, counted, neurons
from spear_deploy.simulator.stepper import value_of

LavaModel: TypeAlias = Literal["reference", "fast"]
"""Lava's own processes, a process a layer and a connection; or the whole network as one process of ours."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network on one input, as `run_lava` takes them."""

    graph: SNNGraph
    x: Array
    kind: InputKind = "spikes"
    record: frozenset[Record] = frozenset()


def run_lava(
    graph: SNNGraph,
    x: Array,
    *,
    kind: InputKind = "spikes",
    record: Iterable[Record] = (),
    timeout_s: float | None = None,
    model: LavaModel = "reference",
) -> ChipRun:
    """Run an integer network on Lava's CPU backend, in a process of its own.

    Spikes, potentials and currents are those of `spear_deploy.simulator.simulate`, value for value, and come from Lava. With
    the reference model only what is no neuron is computed here: values between the layers, and `overflows`, which Lava does
    not count (each layer is repeated alone on the spikes that Lava delivered to it).

    Args:
        graph: integer neurons of the Loihi family (`LoihiLIF`), weights of 8 bits times a power of two.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: which of "spikes", "v", "u" to keep for every layer that has them.
        timeout_s: give up after so many seconds; by default a generous multiple of the predicted time.
        model: "reference": Lava's LIF, LIFReset, Dense, Sparse, Conv and RingBuffer in their fixed-point models, one to one,
            with processes of ours where Lava has none (`worker/processes`). "fast": the whole network as one Lava process
            (`whole.py`), which takes all samples at once and many steps in each of Lava's.

    Raises:
        DataError: the input does not match the network.
        UnsupportedError: Lava has no exact counterpart; names layer, value and range. Nothing was started.
        BackendError: Lava failed; its `cause` says how. Nothing is left of it.
    """
    job = Job(graph=graph, x=x, kind=kind, record=frozenset(record))
    return run_jobs([job], timeout_s=timeout_s, model=model)[0]


def run_jobs(jobs: Sequence[Job], *, timeout_s: float | None = None, model: LavaModel = "reference") -> list[ChipRun]:
    """Run several networks one after the other in one worker, which saves the second that each start takes."""
    if model not in get_args(LavaModel):
        raise DataError(f"model '{model}': Lava runs 'reference' (its own processes) or 'fast' (one process); give one of them")
    made = [(_whole if model == "fast" else _reference)(job, f"{i}-") for i, job in enumerate(jobs)]

    def read(folder: Path) -> list[ChipRun]:
        return [read_one(folder) for _, read_one in made]

    return run_program(joined([program for program, _ in made]), read, timeout_s=timeout_s)


Made: TypeAlias = tuple[Program, Callable[[Path], ChipRun]]
"""A program, and what reads the folder in which it ran."""


def _whole(job: Job, prefix: str) -> Made:
    program = lower_whole(job.graph, job.x, kind=job.kind, record=job.record, prefix=prefix)
    return program, lambda folder: read_whole(folder, prefix, job.x, job.kind)


def _reference(job: Job, prefix: str) -> Made:
    x = check_input(job.graph, job.x, job.kind)
    check_record(job.record)
    lowered = lower(plan(job.graph), x, set(job.record), prefix=prefix)
    return lowered.program, lambda folder: _chip_run(job, x, lowered, folder)


def _chip_run(job: Job, x: Array, lowered: Lowered, folder: Path) -> ChipRun:
    """Put the recordings of all passes together and add what follows from them."""
    graph, steps = job.graph, x.shape[0]
    found: dict[tuple[str, str], Array] = {}
    for recording in lowered.recordings:
        part = recording.read(np.load(folder / recording.file, allow_pickle=False), steps, graph.shape_of(recording.layer))
        key = (recording.layer, recording.what)
        if key not in found:
            found[key] = np.empty((steps, x.shape[1], *part.shape[2:]), bool if recording.what == "spikes" else np.int64)
        found[key][:, recording.samples] = part
    emitted: dict[str, Array] = {INPUT: x}
    emitted |= {name: value for (name, what), value in found.items() if what == "spikes"}
    v = {name: value for (name, what), value in found.items() if what == "v"}
    output = _output(graph, found, emitted)
    counts = counted(graph, emitted, job.kind)
    return ChipRun(
        output=output,
        spikes={name: value for name, value in emitted.items() if name != INPUT} if "spikes" in job.record else {},
        v=v | _values(graph, emitted) if "v" in job.record else {},
        u={name: value for (name, what), value in found.items() if what == "u"},
        counts=counts,
        overflows=_overflows(graph, emitted),
    )


def _output(graph: SNNGraph, found: Mapping[tuple[str, str], Array], emitted: Mapping[str, Array]) -> Array:
    name = graph.output
    for what in ("spikes", "v", "value") if graph[name].spikes else ("v", "value"):
        if (name, what) in found:
            return found[name, what]
    return value_of(graph, name, emitted)


def _values(graph: SNNGraph, emitted: Mapping[str, Array]) -> dict[str, Array]:
    return {layer.name: value_of(graph, layer.name, emitted) for layer in graph.layers if layer.neuron is None}


def _overflows(graph: SNNGraph, emitted: Mapping[str, Array]) -> dict[str, dict[str, int]]:
    """Count wraps of u and saturations of v by repeating each layer alone on what Lava delivered to it."""
    found: dict[str, dict[str, int]] = {}
    for layer in graph.layers:
        if layer.neuron is None:
            continue
        drive = value_of(graph, layer.name, emitted)
        state = neurons.start(layer.neuron, drive.shape[1], drive.shape[2:], graph.dt_s, np.int64)
        neurons.run(layer.neuron, state, drive, np.empty(drive.shape, bool if layer.spikes else np.int64))
        if counts := neurons.overflows(layer.neuron, state):
            found[layer.name] = counts
    return found
