"""What does Lava make of a network? The same question, and the same answer, as `spear_deploy.simulator`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_deploy import neurons
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.lava_backend.guarded_worker import run_program
from spear_deploy.lava_backend.passes import Lowered, lower
from spear_deploy.lava_backend.plan import plan
from spear_deploy.lava_backend.program import joined
from spear_deploy.lava_backend.values import value_of
from spear_deploy.layers import Array
from spear_deploy.simulator import ChipRun, InputKind, Record, check_input, counted


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network on one input, as `run_lava` takes them."""

    graph: SNNGraph
    x: Array
    kind: InputKind = "spikes"
    record: frozenset[Record] = frozenset()


def run_lava(
    graph: SNNGraph, x: Array, *, kind: InputKind = "spikes", record: Iterable[Record] = (), timeout_s: float | None = None
) -> ChipRun:
    """Run an integer network as Lava's own processes on Lava's CPU backend.

    Spikes, potentials and currents are those of `spear_deploy.simulator.simulate`, value for value. They come from Lava:
    LIF and LIFReset, Dense and Sparse with their delays, RingBuffer, in Lava's fixed-point models. Only what is no neuron is
    computed here: values between the layers, and `overflows`, which Lava does not count (each layer is repeated alone on
    the spikes that Lava delivered to it).

    Args:
        graph: integer neurons (`LoihiLIF`), reset to a value of 0, no refractory steps, weights of 8 bits.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: which of "spikes", "v", "u" to keep for every layer that has them.
        timeout_s: give up after so many seconds; by default a generous multiple of the predicted time.

    Raises:
        DataError: the input does not match the network.
        UnsupportedError: Lava has no exact counterpart; names layer, value and range. Nothing was started.
        BackendError: Lava failed; its `cause` says how. Nothing is left of it.
    """
    return run_jobs([Job(graph=graph, x=x, kind=kind, record=frozenset(record))], timeout_s=timeout_s)[0]


def run_jobs(jobs: Sequence[Job], *, timeout_s: float | None = None) -> list[ChipRun]:
    """Run several networks one after the other in one worker, which saves the second that each start takes."""
    inputs = [check_input(job.graph, job.x, job.kind) for job in jobs]
    lowered = [
        lower(plan(job.graph), x, set(job.record), prefix=f"{i}-") for i, (job, x) in enumerate(zip(jobs, inputs, strict=True))
    ]

    def read(folder: Path) -> list[ChipRun]:
        return [_chip_run(job, x, low, folder) for job, x, low in zip(jobs, inputs, lowered, strict=True)]

    return run_program(joined([low.program for low in lowered]), read, timeout_s=timeout_s)


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
        for each in drive:
            neurons.step(layer.neuron, state, each)
        if state.wraps or state.saturations:
            found[layer.name] = {"u_wrapped": state.wraps, "v_saturated": state.saturations}
    return found
