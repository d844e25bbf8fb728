"""What does each stage of the path do? Files of the stages before it in, files and plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spear_deploy import simulator
from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.preflight import LAVA_FAMILY, graded_split, integers
from spear_deploy.pipeline.prune import within_budget
from spear_deploy.pipeline.report_facts import layer_facts
from spear_deploy.pipeline.stage_cache import Outcome
from spear_deploy.simulator import ChipRun, spike_comparison
from spear_deploy.simulator.recordings import read_counts, write_counts
from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.files import write_json, written_aside
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.hardware.profile import HardwareProfile


FORMATS: tuple[tuple[Literal["nir", "netx", "onnx"], str], ...] = (("nir", "nir"), ("netx", "net"), ("onnx", "onnx"))
DENSE, PRUNED, QUANTISED = "dense.snn", "pruned.snn", "quantised.snn"
SEARCH, LAVA, RASTER, ACTIVITY = "search.json", "lava.json", "raster.npz", "activity.npz"
CHECKPOINT = "checkpoint-{}.json"
SAMPLES = 16
"""Test samples that an exported file is proven with."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is deployed where, and how.

    Attributes:
        folder: where files go.
        target, chips: the profile, and how many chips there are.
        dataset, digest: all splits, and the sha256 of them.
        method, seed, lava_samples: see `deploy`.
        progress: is told what is being done.
    """

    folder: Path
    target: HardwareProfile
    chips: int
    dataset: Dataset
    digest: str
    method: str
    seed: int
    lava_samples: int | None
    progress: Progress | None

    def network(self, name: str) -> SNNGraph:
        """Return a network of the output folder."""
        return api.load(self.folder / name)


def measure(task: Task, dense: SNNGraph) -> Outcome:
    """Write the given network, run it on the test split, and run Norse's own cells against our simulator."""
    write_snn(dense, task.folder / DENSE)
    found = evaluate(dense, task.dataset.test)
    value = {"layers": layer_facts(dense, found), "norse": run_on_norse(dense, task.dataset.test)}
    return Outcome(files=(DENSE,), value=value)


def search(task: Task, synops: str | float, mark: str) -> Outcome:
    """Search, prune and fine-tune; a search that was cut short by hand is used, but not finished.

    What it measures is kept on the way, in a file named by `mark`, a digest of all that goes in: with the same inputs, a search
    that was stopped goes on where it was.
    """
    checkpoint = task.folder / CHECKPOINT.format(mark)
    pruned = within_budget(
        task.network(DENSE), task.dataset, synops, task.method, task.seed, task.target, task.progress, checkpoint
    )
    write_snn(pruned.graph, task.folder / PRUNED)
    told = pruned.to_json()
    write_json(task.folder / SEARCH, told)
    value = {"widths": told["widths"], "notes": told["notes"]}
    if not told["interrupted"]:
        for left in task.folder.glob(CHECKPOINT.format("*")):
            left.unlink()
    return Outcome(files=(PRUNED, SEARCH), value=value, whole=not told["interrupted"])


def quantise(task: Task) -> Outcome:
    """Make the integers, and run them and the network that they were made of on the test split."""
    pruned = task.network(PRUNED)
    integer = integers(pruned, task.target, task.dataset)
    write_snn(integer, task.folder / QUANTISED)
    floating, fixed = evaluate(pruned, task.dataset.test), evaluate(integer, graded_split(integer, task.dataset.test))
    counts = write_counts(fixed.counts, task.folder / ACTIVITY)
    value = {"pruned": layer_facts(pruned, floating), "quantised": layer_facts(integer, fixed), "counts": counts}
    return Outcome(files=(QUANTISED, ACTIVITY), value=value)


def prove(task: Task) -> Outcome:
    """Run the integers as Lava processes and on our simulator, and keep one sample of both and of Norse.

    Integers that Lava has no models for run on our simulator alone: what Lava would say stays open.
    """
    integer, test = task.network(QUANTISED), task.dataset.test
    part = graded_split(integer, test)
    if task.target.meta.family == LAVA_FAMILY:
        facts, ours, theirs = against_lava(integer, part, task.lava_samples)
    else:
        (facts, ours), theirs = without_lava(integer, part.head(1)), None
    first = (facts["first_difference"] or {}).get("first") or {"sample": 0}
    write_raster(task.folder / RASTER, first["sample"], task.network(PRUNED), test, ours, theirs)
    write_json(task.folder / LAVA, facts)
    return Outcome(files=(LAVA, RASTER), value=facts)


def check(task: Task, budget: float, counts: Mapping[str, Any]) -> BudgetReport:
    """Hold the integers, with the activity that was counted, against the chip and the budget."""
    from spear_deploy.budget.check import check as check_graph

    activity = read_counts(task.folder / ACTIVITY, dict(counts))
    return check_graph(task.network(QUANTISED), task.target, chips=task.chips, synops=budget, activity=activity)


def export(task: Task) -> Outcome:
    """Write NIR of the floating-point network, netx and ONNX of the integers, each with its certificate.

    The value is {files: relative to the folder, notes: a sentence on each format that cannot hold the network}.
    """
    pruned, integer = task.network(PRUNED), task.network(QUANTISED)
    ints = np.moveaxis(graded_split(integer, task.dataset.test.head(SAMPLES)).x, 0, 1)
    floats = np.moveaxis(task.dataset.test.head(SAMPLES).x, 0, 1)
    files: dict[str, str] = {}
    notes: list[str] = []
    for to, suffix in FORMATS:
        path = task.folder / to / f"network.{suffix}"
        graph, proof = (pruned, floats) if to == "nir" else (integer, ints)
        try:
            certificate = api.export(graph, path, to=to, x=proof, kind=task.dataset.kind)
        except UnsupportedError as error:
            notes.append(f"no {to} file: {error}")
            continue
        if certificate["mismatches"]:
            notes.append(f"{to} file: {certificate['mismatches']} values differ when it is read back; see its certificate")
        files[to] = path.relative_to(task.folder).as_posix()
        files[f"{to}_certificate"] = (path.parent / "certificate.json").relative_to(task.folder).as_posix()
    return Outcome(files=tuple(files.values()), value={"files": files, "notes": notes})


# FOLDED from spear_deploy/pipeline/stages.py
# Do Norse, our simulator and Lava spike alike? Every spike of every layer compared, and one sample kept to be looked at.

SIDES = ("norse", "fixed", "lava")
"""Floating point by Norse's cells, integers on our simulator, the same integers on Lava."""


def run_on_norse(graph: SNNGraph, split: Split) -> dict[str, Any]:
    """Run samples through Norse's own cells and on our simulator, and compare every spike of every layer.

    Both sum in float32, in different orders: where a membrane meets its threshold to the last bit, they may decide
    differently. Such ties are what `spike_mismatches` counts.
    """
    from spear_deploy.norse.run import run_on_norse as run

    x = np.moveaxis(split.x, 0, 1)
    ours = simulator.simulate(graph, x, kind=split.kind, record=("spikes",))
    theirs = run(graph, x.astype(np.float32), kind=split.kind, record=("spikes",))
    found = [spike_comparison.compare_arrays(name, spikes, theirs.spikes[name]) for name, spikes in ours.spikes.items()]
    return {
        "samples": len(split),
        "spike_mismatches": sum(layer.mismatches for layer in found),
        "spikes_compared": sum(layer.compared for layer in found),
    }


def run_on_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> dict[str, Any]:
    """Run samples as Lava processes and on our simulator, and compare every spike of every layer.

    Returns:
        {samples, accuracy, spike_mismatches, value_mismatches, spikes_compared, first_difference}.

    Raises:
        DataError: there is no sample.
        BackendError: Lava failed.
    """
    return against_lava(integer, split, samples)[0]


def against_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> tuple[dict[str, Any], ChipRun, ChipRun]:
    """Return what `run_on_lava` returns, our run and Lava's."""
    part = split if samples is None else split.head(samples)
    if not len(part):
        raise DataError("there is no test sample to run on Lava; give at least one")
    x = np.moveaxis(part.x, 0, 1)
    ours = simulator.simulate(integer, x, kind=part.kind, record=("spikes",))
    theirs = api.simulate(integer, x, kind=part.kind, backend="lava", record=("spikes",))
    found = spike_comparison.compare_runs(ours, theirs, [(name, name) for name in ours.spikes])
    first = next((layer.to_json() for layer in found if layer.mismatches), None)
    facts = {
        "samples": len(part),
        "accuracy": float(np.mean(decide(theirs.output) == part.y)),
        "spike_mismatches": sum(layer.mismatches for layer in found if layer.what == "spikes"),
        "value_mismatches": sum(layer.mismatches for layer in found if layer.what == "value"),
        "spikes_compared": sum(layer.compared for layer in found if layer.what == "spikes"),
        "first_difference": first,
    }
    return facts, ours, theirs


def without_lava(integer: SNNGraph, split: Split) -> tuple[dict[str, Any], ChipRun]:
    """Return what `against_lava` returns, but for a Lava run that there is not."""
    nothing = {"accuracy": None, "spike_mismatches": None, "value_mismatches": None, "first_difference": None}
    ours = simulator.simulate(integer, np.moveaxis(split.x, 0, 1), kind=split.kind, record=("spikes",))
    return {"samples": 0, "spikes_compared": 0, **nothing}, ours


def write_raster(path: Path, sample: int, floating: SNNGraph, split: Split, ours: ChipRun, theirs: ChipRun | None) -> None:
    """Write the spikes of one sample: `<layer>.<side>` (T, *shape) of each layer that the networks have in common, `sample`, `y`.

    Args:
        path: the `.npz`.
        sample: its index in the split.
        floating: the network that the integers were made of; runs here by Norse's cells.
        split: in the form that `floating` takes.
        ours, theirs: integers on our simulator and on Lava (None: they did not run there), spikes recorded, the first samples
            of the split.
    """
    from spear_deploy.norse.run import run_on_norse as run

    x = np.moveaxis(split.take(np.array([sample])).x, 0, 1).astype(np.float32)
    norse = run(floating, x, kind=split.kind, record=("spikes",))
    arrays: dict[str, Array] = {"sample": np.array(sample), "y": np.array(split.y[sample])}
    for name, spikes in ours.spikes.items():
        if name in norse.spikes and norse.spikes[name][:, 0].size == spikes[:, sample].size:
            sides = [norse.spikes[name][:, 0], spikes[:, sample]]
            sides += [] if theirs is None else [theirs.spikes[name][:, sample]]
            arrays |= {f"{name}.{side}": kept for side, kept in zip(SIDES, sides, strict=False)}
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **arrays)
