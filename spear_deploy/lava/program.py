"""Program of the worker process: arrays and rows, no code.

A program is a list of passes. A pass is one network of Lava processes and the number of steps that it runs:

    processes     rows {kind, name, ...}: source, dense, sparse, lif, port_recorder, state_recorder; or one, the whole network
    connections   pairs (name, name); (name.variable, name) for a state_recorder
    pauses        rows {step, set: [[process, variable, array], ...]}: after that many steps variables are set

On disk it is `program.json`, `arrays.npz` and a `.snn` file for each whole network; no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph

SECONDS_PER_MESSAGE = 50e-6
"""Measured for lava-nc 0.10.0: a step takes about 50 µs times (2 · processes + channels)."""
SECONDS_PER_SYNAPSE = 2e-9
SECONDS_TO_START = 1.5
SECONDS_PER_PROCESS = 0.05

PAGE_BYTES = 4096
CHANNEL_SIZES = (8, 4, 2)
"""Messages that a channel holds, best first. Two suffice, since all processes advance step by step together."""
LAVA_PROCESSES = 3
"""The worker, Lava's runtime service and its shared-memory manager."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One network of Lava processes, its steps, and the variables that are set between them."""

    steps: int
    processes: tuple[Mapping[str, Any], ...]
    connections: tuple[tuple[str, str], ...]
    pauses: tuple[Mapping[str, Any], ...] = ()

    @property
    def os_processes(self) -> int:
        """Number of operating-system processes that run at a time."""
        return len(self.processes) + LAVA_PROCESSES

    @property
    def seconds(self) -> float:
        """Predicted time, in seconds."""
        synapses = sum(row.get("synapses", 0) for row in self.processes)
        messages = 2 * len(self.processes) + len(self.connections)
        per_step = SECONDS_PER_MESSAGE * messages + SECONDS_PER_SYNAPSE * synapses
        per_step += sum(row.get("seconds_per_step", 0.0) for row in self.processes)
        return SECONDS_PER_PROCESS * len(self.processes) + self.steps * per_step

    def shared_bytes(self, channel_size: int) -> int:
        """Return the shared memory in bytes: each channel holds `channel_size` messages, in whole pages."""
        sizes = {row["name"]: row["size"] for row in self.processes}
        data = [sizes[source if source in sizes else source.rsplit(".", 1)[0]] for source, _ in self.connections]
        control = 2 * len(self.processes) + 2
        return (
            sum(_count_pages(8 * n * channel_size) for n in data) * PAGE_BYTES
            + control * _count_pages(8 * channel_size) * PAGE_BYTES
        )


def split_into_components(whole: Pass) -> tuple[Pass, ...]:
    """Split a pass into its connected parts: Lava starts only the processes that are connected with the one it runs.

    Parts without a recorder are dropped, since their results are not read.
    """
    group = {row["name"]: row["name"] for row in whole.processes}

    def root(name: str) -> str:
        name = name if name in group else name.rsplit(".", 1)[0]
        while group[name] != name:
            name = group[name]
        return name

    for source, target in whole.connections:
        group[root(source)] = root(target)
    recorded = sorted({root(row["name"]) for row in whole.processes if row["kind"].endswith("recorder")})
    parts = []
    for name in recorded:
        pauses = [{**pause, "set": [row for row in pause["set"] if root(row[0]) == name]} for pause in whole.pauses]
        parts.append(
            Pass(
                steps=whole.steps,
                processes=tuple(row for row in whole.processes if root(row["name"]) == name),
                connections=tuple(pair for pair in whole.connections if root(pair[1]) == name),
                pauses=tuple(pause for pause in pauses if pause["set"]),
            )
        )
    return tuple(parts)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one worker runs, pass by pass.

    Attributes:
        passes: in order.
        arrays: by key.
        networks: by the name of their file.
    """

    passes: tuple[Pass, ...]
    arrays: Mapping[str, Array]
    networks: Mapping[str, SNNGraph] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Predicted time, in seconds."""
        return SECONDS_TO_START + sum(run.seconds for run in self.passes)

    def channel_size(self, free_bytes: int) -> int | None:
        """Return the channel size that fits half of the free shared memory, or None."""
        for size in CHANNEL_SIZES:
            if all(run.shared_bytes(size) <= free_bytes // 2 for run in self.passes):
                return size
        return None

    def save(self, folder: Path, channel_size: int) -> None:
        """Write `program.json`, `arrays.npz` and the networks."""
        from spear_deploy.interchange.snn_file import write_snn

        np.savez(folder / "arrays.npz", **self.arrays)
        for name, graph in self.networks.items():
            write_snn(graph, folder / name)
        rows = [
            {
                "steps": run.steps,
                "processes": [dict(row) for row in run.processes],
                "connections": [list(pair) for pair in run.connections],
                "pauses": [dict(row) for row in run.pauses],
            }
            for run in self.passes
        ]
        text = json.dumps({"channel_size": channel_size, "passes": rows})
        (folder / "program.json").write_text(text, encoding="utf-8")


def join_programs(programs: Sequence[Program]) -> Program:
    """Return one program that runs the passes of several; their arrays and files must have different names."""
    arrays: dict[str, Array] = {}
    networks: dict[str, SNNGraph] = {}
    for program in programs:
        arrays |= program.arrays
        networks |= program.networks
    return Program(passes=tuple(run for program in programs for run in program.passes), arrays=arrays, networks=networks)


def _count_pages(n_bytes: int) -> int:
    return -(-n_bytes // PAGE_BYTES)
