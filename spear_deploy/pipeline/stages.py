"""What does each stage of the path do? Files of the stages before it in, files and plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spear_deploy import verbs
from spear_deploy.data import Dataset
from spear_deploy.errors import UnsupportedError
from spear_deploy.files import write_json
from spear_deploy.graph import SNNGraph
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pipeline.counts_file import read_counts, write_counts
from spear_deploy.pipeline.layer_facts import layer_facts
from spear_deploy.pipeline.ledger import Outcome
from spear_deploy.pipeline.proofs import against_lava, run_on_norse, without_lava, write_raster
from spear_deploy.pipeline.pruning import within_budget
from spear_deploy.pipeline.start import LAVA_FAMILY, graded_split, integers
from spear_deploy.progress import Progress
from spear_deploy.training import evaluate

if TYPE_CHECKING:
    from spear_deploy.budget import BudgetReport
    from spear_deploy.profile import HardwareProfile

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
        return verbs.load(self.folder / name)


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
    from spear_deploy.budget import check as check_graph

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
            certificate = verbs.export(graph, path, to=to, x=proof, kind=task.dataset.kind)
        except UnsupportedError as error:
            notes.append(f"no {to} file: {error}")
            continue
        if certificate["mismatches"]:
            notes.append(f"{to} file: {certificate['mismatches']} values differ when it is read back; see its certificate")
        files[to] = path.relative_to(task.folder).as_posix()
        files[f"{to}_certificate"] = (path.parent / "certificate.json").relative_to(task.folder).as_posix()
    return Outcome(files=tuple(files.values()), value={"files": files, "notes": notes})
