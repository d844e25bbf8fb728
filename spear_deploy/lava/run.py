"""Runs of integer networks on Lava's CPU backend.

The spikes, potentials and currents are those of `spear_deploy.simulator`, value for value.

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
from spear_deploy.lava.batches import lower_in_passes
from spear_deploy.lava.builder import Recording
from spear_deploy.lava.plan import plan_network
from spear_deploy.lava.program import Program, join_programs
from spear_deploy.lava.single_process import lower_to_single_process, read_single_process
from spear_deploy.lava.worker_process import run_program
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, Record, check_input, check_record, count_spikes, neurons
from spear_deploy.simulator.stepper import synaptic_input

LavaModel: TypeAlias = Literal["reference", "fast"]
"""A Lava process for each layer and connection; or the whole network as one process of ours."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network on one input; fields as the parameters of `run_lava`."""

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
    the reference model only the values between the layers are computed here, and `overflows`, which Lava does not count (each
    layer is repeated alone on the spikes that Lava delivered to it).

    Args:
        graph: integer neurons of the Loihi family (`LoihiLIF`), weights of 8 bits times a power of two.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: which of "spikes", "v", "u" to keep for every layer that has them.
        timeout_s: give up after so many seconds; by default a generous multiple of the predicted time.
        model: "reference": Lava's LIF, LIFReset, Dense, Sparse, Conv and RingBuffer in their fixed-point models, one to one,
            with our processes where Lava has none (`worker/processes`). "fast": the whole network as one Lava process
            (`single_process`), which takes all samples at once and many steps in each of Lava's.

    Raises:
        DataError: the input does not match the network.
        UnsupportedError: Lava has no exact counterpart; names layer, value and range. No process was started.
        BackendError: Lava failed; its `cause` says how. All its processes, files and memory are removed.
    """
    job = Job(graph=graph, x=x, kind=kind, record=frozenset(record))
    return run_jobs([job], timeout_s=timeout_s, model=model)[0]


def run_jobs(jobs: Sequence[Job], *, timeout_s: float | None = None, model: LavaModel = "reference") -> list[ChipRun]:
    """Run several networks one after the other in one worker, which saves the second that each start takes."""
    if model not in get_args(LavaModel):
        raise DataError(f"model '{model}': Lava runs 'reference' (its own processes) or 'fast' (one process); give one of them")
    prepare = _prepare_fast if model == "fast" else _prepare_reference
    prepared = [prepare(job, f"{i}-") for i, job in enumerate(jobs)]

    def read(folder: Path) -> list[ChipRun]:
        return [read_run(folder) for _, read_run in prepared]

    return run_program(join_programs([program for program, _ in prepared]), read, timeout_s=timeout_s)


PreparedJob: TypeAlias = tuple[Program, Callable[[Path], ChipRun]]
"""A program, and the function that reads its results from its folder."""


def _prepare_fast(job: Job, prefix: str) -> PreparedJob:
    program = lower_to_single_process(job.graph, job.x, kind=job.kind, record=job.record, prefix=prefix)
    return program, lambda folder: read_single_process(folder, prefix, job.x, job.kind)


def _prepare_reference(job: Job, prefix: str) -> PreparedJob:
    x = check_input(job.graph, job.x, job.kind)
    check_record(job.record)
    recorded = lower_in_passes(plan_network(job.graph), x, set(job.record), prefix=prefix)
    return recorded.program, lambda folder: _read_chip_run(job, x, recorded.recordings, folder)


def _read_chip_run(job: Job, x: Array, recordings: Iterable[Recording], folder: Path) -> ChipRun:
    """Join the recordings of all passes, and compute counts, values between layers and overflows from them."""
    graph, steps = job.graph, x.shape[0]
    recorded: dict[tuple[str, str], Array] = {}
    for recording in recordings:
        part = recording.read(np.load(folder / recording.file, allow_pickle=False), steps, graph.shape_of(recording.layer))
        key = (recording.layer, recording.what)
        if key not in recorded:
            recorded[key] = np.empty((steps, x.shape[1], *part.shape[2:]), bool if recording.what == "spikes" else np.int64)
        recorded[key][:, recording.samples] = part
    emitted: dict[str, Array] = {INPUT: x}
    emitted |= {name: value for (name, what), value in recorded.items() if what == "spikes"}
    v = {name: value for (name, what), value in recorded.items() if what == "v"}
    between = {layer.name: synaptic_input(graph, layer.name, emitted) for layer in graph.layers if layer.neuron is None}
    return ChipRun(
        output=_output(graph, recorded, emitted),
        spikes={name: value for name, value in emitted.items() if name != INPUT} if "spikes" in job.record else {},
        v=v | between if "v" in job.record else {},
        u={name: value for (name, what), value in recorded.items() if what == "u"},
        counts=count_spikes(graph, emitted, job.kind),
        overflows=_count_overflows(graph, emitted),
    )


def _output(graph: SNNGraph, recorded: Mapping[tuple[str, str], Array], emitted: Mapping[str, Array]) -> Array:
    """Return the recorded output, or that of a layer without neurons whose sources the network's input alone reaches."""
    name = graph.output
    for what in ("spikes", "v", "value") if graph[name].spikes else ("v", "value"):
        if (name, what) in recorded:
            return recorded[name, what]
    return synaptic_input(graph, name, emitted)


def _count_overflows(graph: SNNGraph, emitted: Mapping[str, Array]) -> dict[str, dict[str, int]]:
    """Count wraps of u and saturations of v by repeating each layer alone on what Lava delivered to it."""
    overflows: dict[str, dict[str, int]] = {}
    for layer in graph.layers:
        if layer.neuron is None:
            continue
        drive = synaptic_input(graph, layer.name, emitted)
        state = neurons.start(layer.neuron, drive.shape[1], drive.shape[2:], graph.dt_s, np.int64)
        neurons.run(layer.neuron, state, drive, np.empty(drive.shape, bool if layer.spikes else np.int64))
        if counts := neurons.count_overflows(layer.neuron, state):
            overflows[layer.name] = counts
    return overflows
