"""Stages of a deployment: evaluate, prune, quantise, prove, check.

A stage reads the files of the stages before it, and returns files and plain data. The proof compares every spike of every layer
between Norse, our simulator and Lava, and keeps one sample of all three for the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy import simulator
from spear_deploy.data import Split
from spear_deploy.data.labels import average_right, grade_labels, labels_each_step
from spear_deploy.errors import DataError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.backends import count_differences
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.preflight import LAVA_FAMILY, CheckedInputs, grade_split
from spear_deploy.pipeline.report_facts import describe_layers
from spear_deploy.pipeline.stage_cache import StageOutput
from spear_deploy.pipeline.time_steps import add_choice, choose_input_steps
from spear_deploy.pruning.levers import choose_levers
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.settings import LEVER_METHODS
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.simulator import ChipRun, spike_comparison
from spear_deploy.simulator.recordings import read_counts, write_counts
from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.learning_store import forget_learning
from spear_deploy.util.files import write_arrays, write_json
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import give_logs

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport

DENSE, PRUNED, QUANTISED = "dense.snn", "pruned.snn", "quantised.snn"
SEARCH, LAVA, RASTER, ACTIVITY = "search.json", "lava.json", "raster.npz", "activity.npz"
CHECKPOINT = "checkpoint-{}.json"
RASTER_RUNS = ("norse", "fixed", "lava")
"""Runs of the raster: floating point by Norse's cells, integers on our simulator, the same integers on Lava."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One deployment.

    Attributes:
        folder: for all files.
        inputs: network, chip and data.
        digest: sha256 of the data.
        settings: of the deployment.
        progress: is called during the search.
        sources: names or paths of `chip` and `data`, where they were named.
    """

    folder: Path
    inputs: CheckedInputs
    digest: str
    settings: DeploySettings
    progress: Progress | None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def test(self) -> Split:
        """The test split."""
        return self.inputs.dataset.test

    @cached_property
    def deployed(self) -> CheckedInputs:
        """The inputs with the number of time steps of the pruned network of the output folder."""
        return self.inputs.with_steps_of(self.network(PRUNED))

    def network(self, name: str) -> SNNGraph:
        """Return a network of the output folder."""
        return api.load(self.folder / name)


def evaluate_dense(task: Task) -> StageOutput:
    """Write the network, run it on the test split, and compare Norse's own cells with our simulator."""
    dense = task.inputs.network
    write_snn(dense, task.folder / DENSE)
    value = {"layers": describe_layers(dense, evaluate(dense, task.test)), "norse": compare_with_norse(dense, task.test)}
    return StageOutput(files=(DENSE,), value=value)


def prune(task: Task, mark: str) -> StageOutput:
    """Search, prune and fine-tune until the *integer* network is within the budget on validation.

    Measurements of the search are kept in a file named by `mark`, a digest of all inputs, and learning beside it: with the same
    inputs, a pruning that was stopped goes on. So Ctrl-C ends it at once: a network of half a search would not be deployed.
    """
    checkpoint = task.folder / CHECKPOINT.format(mark)
    levers = task.settings.levers
    if levers is None and task.settings.chosen_method in LEVER_METHODS:
        levers = choose_levers(task.inputs.profile)
    settings = PruneSettings(
        synops=task.settings.synops,
        method=task.settings.method,
        levers=levers,
        learning_rate=task.settings.learning_rate,
        seed=task.settings.seed,
        device=task.settings.device,
        workers=give_logs(task.settings.workers, task.folder),
        completes=False,
    )
    inputs, choice = choose_input_steps(
        replace(task.inputs, network=task.network(DENSE)), task.settings.steps_range, settings,
        checkpoint=checkpoint.with_suffix(".steps.json"), progress=task.progress,
    )  # fmt: skip
    pruned = prune_to_budget(
        inputs.network, inputs.dataset, settings, deployed=(inputs.integer_form,), checkpoint=checkpoint, progress=task.progress
    )
    pruned = add_choice(pruned, choice)
    write_snn(pruned.graph, task.folder / PRUNED)
    facts = pruned.to_json()
    write_json(task.folder / SEARCH, facts)
    forget_unfinished(task.folder)
    value = {name: facts[name] for name in ("widths", "levers", "budgets", "batches", "notes")}
    return StageOutput(files=(PRUNED, SEARCH), value=value)


def forget_unfinished(folder: Path) -> None:
    """Remove what is kept of searches and learning that are not finished."""
    for path in folder.glob(CHECKPOINT.format("*")):
        path.unlink(missing_ok=True)
    forget_learning(folder)


def quantise(task: Task) -> StageOutput:
    """Quantise the pruned network, and run both on the test split."""
    pruned, inputs = task.network(PRUNED), task.deployed
    integer, test = inputs.quantize(pruned), inputs.dataset.test
    write_snn(integer, task.folder / QUANTISED)
    floating, fixed = evaluate(pruned, test), evaluate(integer, grade_split(integer, test))
    counts = write_counts(fixed.counts, task.folder / ACTIVITY)
    value = {"pruned": describe_layers(pruned, floating), "quantised": describe_layers(integer, fixed), "counts": counts}
    return StageOutput(files=(QUANTISED, ACTIVITY), value=value)


def prove(task: Task) -> StageOutput:
    """Run the integers as Lava processes and on our simulator, and keep one sample of both and of Norse.

    Integers that Lava has no models for run on our simulator alone.
    """
    integer, test = task.network(QUANTISED), task.deployed.dataset.test
    split = grade_split(integer, test)
    ours: ChipRun
    theirs: ChipRun | None
    if task.inputs.profile.meta.family == LAVA_FAMILY:
        facts, ours, theirs = compare_with_lava(integer, split, task.settings.lava_samples)
    else:
        ours, theirs = _run_fast(integer, split.head(1)), None
        facts = {
            "samples": 0, "spikes_compared": 0, "accuracy": None, "spike_mismatches": None, "value_mismatches": None,
            "first_difference": None,
        }  # fmt: skip
    first = (facts["first_difference"] or {}).get("first") or {"sample": 0}
    write_raster(task.folder / RASTER, first["sample"], task.network(PRUNED), test, ours, theirs)
    write_json(task.folder / LAVA, facts)
    return StageOutput(files=(LAVA, RASTER), value=facts)


def check(task: Task, budget: float, counts: Mapping[str, Any]) -> BudgetReport:
    """Check the integers, with their counted activity, against the chip and the budget in SynOps per inference."""
    from spear_deploy.budget.budget_file import UserLimits
    from spear_deploy.budget.check import check as check_graph

    activity = read_counts(task.folder / ACTIVITY, dict(counts))
    limits = UserLimits(synops=budget)
    return check_graph(task.network(QUANTISED), task.inputs.profile, chips=task.inputs.chips, activity=activity, limits=limits)


def compare_with_norse(graph: SNNGraph, split: Split) -> dict[str, Any]:
    """Run samples through Norse's own cells and on our simulator, and compare every spike of every layer.

    Both sum in float32, in different orders: where a membrane meets its threshold to the last bit, they may decide
    differently. `spike_mismatches` counts such ties.
    """
    from spear_deploy.norse.run import run_on_norse

    ours = _run_fast(graph, split)
    theirs = run_on_norse(graph, np.moveaxis(split.x, 0, 1).astype(np.float32), kind=split.kind, record=("spikes",))
    layers = [spike_comparison.compare_arrays(name, spikes, theirs.spikes[name]) for name, spikes in ours.spikes.items()]
    return {
        "samples": len(split),
        "spike_mismatches": sum(layer.mismatches for layer in layers),
        "spikes_compared": sum(layer.compared for layer in layers),
    }


def compare_with_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> tuple[dict[str, Any], ChipRun, ChipRun]:
    """Run samples as Lava processes and on our simulator, and compare every spike of every layer.

    Returns:
        {samples, accuracy, spike_mismatches, value_mismatches, spikes_compared, first_difference}, our run and Lava's.

    Raises:
        DataError: there is no sample.
        BackendError: Lava failed.
    """
    part = split if samples is None else split.head(samples)
    if not len(part):
        raise DataError("there is no test sample to run on Lava; give at least one")
    ours = _run_fast(integer, part)
    theirs = api.simulate(integer, np.moveaxis(part.x, 0, 1), kind=part.kind, backend="lava", record=("spikes",))
    accuracy = average_right(grade_labels(decide(theirs.output, integer), part.y))
    return {"samples": len(part), "accuracy": accuracy, **count_differences(ours, theirs)}, ours, theirs


def _run_fast(graph: SNNGraph, split: Split) -> ChipRun:
    """Run a split on our simulator and record its spikes."""
    return simulator.simulate(graph, np.moveaxis(split.x, 0, 1), kind=split.kind, record=("spikes",))


def write_raster(path: Path, sample: int, floating: SNNGraph, split: Split, ours: ChipRun, theirs: ChipRun | None) -> None:
    """Write the spikes of one sample: `<layer>.<run>` (T, *shape) of each layer that the networks share; `sample`, `y`.

    Args:
        path: the `.npz`.
        sample: its index in the split.
        floating: the network before quantisation; runs here by Norse's cells.
        split: in the form that `floating` takes.
        ours, theirs: the first samples of the split, as integers on our simulator and on Lava (None: not run), with spikes.
    """
    from spear_deploy.norse.run import run_on_norse

    x = np.moveaxis(split.take(np.array([sample])).x, 0, 1).astype(np.float32)
    norse = run_on_norse(floating, x, kind=split.kind, record=("spikes",))
    arrays: dict[str, Array] = {"sample": np.array(sample)}
    if not labels_each_step(split.y):
        arrays["y"] = np.array(split.y[sample])
    for name, spikes in ours.spikes.items():
        if name in norse.spikes and norse.spikes[name][:, 0].size == spikes[:, sample].size:
            runs = [norse.spikes[name][:, 0], spikes[:, sample]]
            runs += [] if theirs is None else [theirs.spikes[name][:, sample]]
            arrays |= {f"{name}.{run}": sent for run, sent in zip(RASTER_RUNS, runs, strict=False)}
    write_arrays(path, arrays)
