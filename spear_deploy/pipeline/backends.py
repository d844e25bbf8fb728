"""Backends that run a network: our simulator, Lava, Norse."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy import simulator
from spear_deploy.errors import DataError, did_you_mean
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.inputs import Chip, Net, import_models, load_for, quantize_for_chip
from spear_deploy.simulator import ChipRun, InputKind, Record
from spear_deploy.simulator.spike_comparison import compare_runs
from spear_deploy.util.extras import require_packages
from spear_deploy.util.progress import Progress

LAVA_BACKENDS = ("lava", "lava-fast")
Backend: TypeAlias = Literal["fast", "lava", "lava-fast", "norse"]
BACKENDS: tuple[Backend, ...] = ("fast", "lava", "lava-fast", "norse")


def list_lava_packages() -> tuple[str, ...]:
    """Return the packages that a run on Lava needs here; lava-nc may be in the Python that the worker is set to."""
    from spear_deploy.lava.worker_process import PYTHON_VARIABLE

    return ("scipy", *(() if os.environ.get(PYTHON_VARIABLE) else ("lava",)))


@dataclass(frozen=True, kw_only=True)
class BackendChoice:
    """A network and the backend that runs it.

    Attributes:
        net: see `pipeline.inputs`.
        graph: `net` when it is loaded already, with options.
        backend: "fast" (our simulator); "lava" (Lava's own processes in a guarded worker) or "lava-fast" (the whole network as
            one Lava process), both for integer networks; "norse" (Norse's own cells), for floating-point networks.
        chip: run the integers of this chip instead of the network as stored.
    """

    net: Net
    graph: SNNGraph | None = None
    backend: Backend = "fast"
    chip: Chip | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            known = ", ".join(f"'{name}'" for name in BACKENDS)
            raise DataError(f"backend '{self.backend}': expected one of {known}{did_you_mean(str(self.backend), BACKENDS)}")

    def require_packages(self) -> None:
        """Check that the packages of the backend are installed.

        Raises:
            MissingPackageError: one is not.
        """
        if self.backend == "norse":
            require_packages("torch", "norse", user="backend 'norse'")
        elif self.backend in LAVA_BACKENDS:
            require_packages(*list_lava_packages(), user=f"backend '{self.backend}'")

    def load(self, x: Array) -> SNNGraph:
        """Load the network as it is stored, for an input (T, B, *input)."""
        return load_for(self.net, x) if self.graph is None else self.graph

    def _load_norse_forward(self, graph: SNNGraph) -> Callable[[Array], Array] | None:
        """Return the forward over time of the Norse model of the network, None where it was read from something else."""
        if isinstance(self.net, SNNGraph) or graph.metadata.get("source") != "norse":
            return None
        model = self.net
        if isinstance(model, (str, os.PathLike)):
            if ":" not in os.fspath(model) or Path(model).exists():
                return None
            model = import_models(os.fspath(model)).load_model(os.fspath(model), graph.input_shape)[0]
        return partial(import_models("a torch model").run_model, model)

    def lower(self, x: Array, kind: InputKind = "spikes") -> tuple[SNNGraph, Array]:
        """Return the network as stored or as the chip's integers, and the input (T, B, *input) in the form that it takes."""
        graph = self.load(x)
        x = simulator.check_input(graph, x, kind)
        if self.chip is None:
            return graph, x
        from spear_deploy.quantize import quantize_input

        graph = quantize_for_chip(graph, self.chip, calibration=x, kind=kind)
        return graph, quantize_input(graph, x, kind)

    def run(
        self,
        graph: SNNGraph,
        x: Array,
        kind: InputKind,
        record: tuple[Record, ...],
        timeout_s: float | None,
        progress: Progress | None = None,
    ) -> ChipRun:
        """Run `graph`, as stored or as integers, on an input in the form that it takes."""
        self.require_packages()
        if progress is not None and self.backend != "fast":
            progress({"stage": "Norse's cells" if self.backend == "norse" else "Lava", "done": 0, "of": 0})
        if self.backend == "norse":
            from spear_deploy.norse.run import run_on_norse

            return run_on_norse(graph, x, kind=kind, record=record, forward=self._load_norse_forward(graph))
        if self.backend == "fast":
            return simulator.simulate(graph, x, kind=kind, record=record, progress=progress)
        from spear_deploy.lava.run import run_lava

        if self.backend == "lava-fast":
            return run_lava(graph, x, kind=kind, record=record, timeout_s=timeout_s, model="fast")
        return run_lava(graph, x, kind=kind, record=record, timeout_s=timeout_s)


def count_differences(ours: ChipRun, theirs: ChipRun) -> dict[str, Any]:
    """Compare two runs of one network that both record spikes.

    Returns:
        {spike_mismatches, value_mismatches (of an output that does not spike), spikes_compared, first_difference}.
    """
    layers = compare_runs(ours, theirs, [(name, name) for name in ours.spikes])
    return {
        "spike_mismatches": sum(layer.mismatches for layer in layers if layer.what == "spikes"),
        "value_mismatches": sum(layer.mismatches for layer in layers if layer.what == "value"),
        "spikes_compared": sum(layer.compared for layer in layers if layer.what == "spikes"),
        "first_difference": next((layer.to_json() for layer in layers if layer.mismatches), None),
    }


def prove_on_simulator(graph: SNNGraph, x: Array, kind: InputKind, theirs: ChipRun) -> dict[str, Any]:
    """Repeat a run of Lava that recorded spikes on the simulator; return `count_differences` and the samples."""
    ours = simulator.simulate(graph, x, kind=kind, record=("spikes",))
    return {"samples": int(np.shape(x)[1]), **count_differences(ours, theirs)}
