"""Verification of search.json: widths, channels, budget, first and last lever.

The searched networks are not kept, so what was measured of them cannot be derived: method, plans, rungs, estimator, epochs,
learning rate, numbers of batches and evaluations, notes, seconds, and the levers between the first and the last. They are held by
the digest of the file, and must agree with one another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from spear_deploy.errors import DataError, FileError
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.pipeline import stages
from spear_deploy.pipeline.stage_cache import STAGES, read_stages
from spear_deploy.pipeline.verification.failures import Failures, read_stated
from spear_deploy.pruning.levers import measure_stage
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse, list_budget_rows
from spear_deploy.util.files import read_bytes

if TYPE_CHECKING:
    from spear_deploy.network.graph import SNNGraph
    from spear_deploy.pipeline.stages import Task

LAST_LEVERS = ("rates", "bits")
"""Levers whose network is the pruned one."""
OF_CODE = ("aim", "margin", "met", "synops", "unused", "budgets")
"""Values that follow from how large a margin the code keeps; other code may keep another."""


@dataclass(frozen=True, kw_only=True)
class DerivedPruning:
    """What search.json should hold.

    Attributes:
        method: that the deployment states; where it pruned nothing, search.json names none.
        uses: values by key, measured on validation alone, and with training samples: the pruning took one of both.
        levers: first and last row of the waterfall, and that of fewer time steps, by lever; empty where nothing was changed.
    """

    method: str
    uses: tuple[dict[str, Any], ...]
    levers: dict[str, dict[str, Any]]


class _Search(BaseModel):
    """What search.json must hold of the results of a deployment."""

    levers: list[dict[str, Any]] = []
    budgets: dict[str, Any] = {}
    notes: list[str] = []


def read_pruning(folder: Path) -> dict[str, Any]:
    """Return levers, budgets and notes of the search, whose networks are not kept.

    Raises:
        FileError: the file is damaged.
    """
    path = folder / stages.SEARCH
    try:
        return _Search.model_validate_json(read_bytes(path, "file of a deployment")).model_dump()
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise FileError(f"file '{path}': is damaged ({why}); run the deployment again with --fresh") from error


def recover_pruning(folder: Path) -> dict[str, Any]:
    """Return what `read_pruning` does; where search.json is damaged, what stages.json keeps of it, else nothing."""
    try:
        return read_pruning(folder)
    except FileError:
        stage = read_stages(folder / STAGES)[0].get("prune")
    try:
        return _Search.model_validate(stage.value if stage is not None else {}).model_dump()
    except ValidationError:
        return _Search().model_dump()


def derive_pruning(task: Task) -> DerivedPruning:
    """Measure the networks before and after pruning as the search did.

    Raises:
        DataError: they are not of one network.
    """
    inputs, pruned = (
        replace(task, inputs=replace(task.inputs, network=task.network(stages.DENSE))).deployed,
        task.network(stages.PRUNED),
    )
    dense, dataset, settings = inputs.network, inputs.dataset, task.settings
    budgets = PruneSettings(synops=settings.synops, method=settings.method, levers=settings.levers).budgets
    monitor = BudgetMonitor(dense, dataset, budgets, (inputs.integer_form,))
    is_changed = pruned.layers != dense.layers
    measured: Sequence[BudgetUse] = (monitor.measure(pruned),)
    levers: dict[str, dict[str, Any]] = {}
    if is_changed or dataset.full is not None:
        measured = (*measured, monitor.measure_with_training(pruned))
        rows = [measure_stage("trained", dense, dataset.trained.val)]
        rows += [] if dataset.full is None else [measure_stage("steps", dense, dataset.val)]
        rows.append(measure_stage("last", pruned, dataset.val))
        levers = {row.name: {"synops": row.synops, "accuracy": row.accuracy} for row in rows}
    widths, plan = measure_widths(dense, pruned), list_kept_channels(dense, pruned)
    uses = tuple({**_describe_use(monitor, use), "widths": widths, "plan": plan, "interrupted": False} for use in measured)
    return DerivedPruning(method=settings.chosen_method, uses=json.loads(json.dumps(uses)), levers=levers)


def _describe_use(monitor: BudgetMonitor, use: BudgetUse) -> dict[str, Any]:
    rows = list_budget_rows(monitor.limits, use)
    budget, synops = monitor.limits["synops"], float(use.values["synops"] or 0.0)
    return {
        "budget": budget, "aim": use.aims["synops"], "synops": synops, "unused": 1 - synops / budget, "met": use.met,
        "margin": use.margin, "budgets": rows, "accuracy": use.evaluation.accuracy,
    }  # fmt: skip


def measure_widths(dense: SNNGraph, pruned: SNNGraph) -> dict[str, list[int]]:
    """Return {group: [channels before, after]} of the groups that pruning may narrow.

    Raises:
        DataError: the pruned network lacks a layer of the dense one.
    """
    widths = {}
    names = {layer.name for layer in pruned.layers}
    for group in list_prunable_groups(dense):
        producer = next((name for name in group.producers if name in names), None)
        if producer is None:
            raise DataError(f"group '{group.name}': the pruned network has none of its layers; it is of another network")
        share = group.channels / dense.shape_of(producer)[0]
        widths[group.name] = [group.channels, round(pruned.shape_of(producer)[0] * share)]
    return widths


def list_kept_channels(dense: SNNGraph, pruned: SNNGraph) -> dict[str, list[int]]:
    """Return the channels that are left in each group, numbered as in `dense`, which may be pruned too."""
    first, left = (graph.metadata.get("kept_channels", {}) for graph in (dense, pruned))
    kept = {}
    for group in list_prunable_groups(dense):
        numbers = list(first.get(group.name, range(group.channels)))
        place = {channel: index for index, channel in enumerate(numbers)}
        kept[group.name] = [place.get(channel, -1) for channel in left.get(group.name, numbers)]
    return kept


def compare_pruning(folder: Path, derived: DerivedPruning, failures: Failures, *, same_code: bool) -> None:
    """Compare search.json with the derived values, and its other rows with one another."""
    try:
        stated = read_stated(folder / stages.SEARCH)
    except (FileError, ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict):
        failures.add(stages.SEARCH, "", "cannot be read", "a JSON file", "is missing or damaged")
        return
    left_out = ("budgets",) if same_code else OF_CODE
    later = () if same_code else tuple(derived.uses[0])
    trials = [Failures(same_words=failures.same_words) for _ in derived.uses]
    for trial, use in zip(trials, derived.uses, strict=True):
        trial.compare_keys(
            stages.SEARCH, stated, {key: value for key, value in use.items() if key not in left_out}, later=later
        )  # fmt: skip
        if same_code:
            budgets = stated.get("budgets")
            row = budgets.get("synops") if isinstance(budgets, dict) else None
            trial.compare_keys(stages.SEARCH, row, use["budgets"]["synops"], "budgets.synops")
    failures.extend(min(trials, key=lambda trial: len(trial.rows)))
    if same_code:
        for key, value in (
            ("method", derived.method if stated.get("method") is not None else None),
            ("batches", _add_up(stated)),
        ):
            failures.compare(stages.SEARCH, stated.get(key), value, key)
        _compare_levers(stated.get("levers"), derived, failures)


def _add_up(stated: dict[str, Any]) -> Any:
    """Return batches whose sum is that of the parts."""
    batches = stated.get("batches")
    if not isinstance(batches, dict) or not all(type(count) is int for count in batches.values()):
        return {"all": "the sum of the parts"}
    return {**batches, "all": sum(count for name, count in batches.items() if name != "all")}


def _compare_levers(rows: Any, derived: DerivedPruning, failures: Failures) -> None:
    """Compare the first row, that of fewer steps and the last."""
    names = [row.get("lever") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
    expected = ["trained", *(name for name in derived.levers if name == "steps")] if derived.levers else []
    if names[: len(expected)] != expected or (derived.levers and names[-1] not in LAST_LEVERS) or (names and not derived.levers):
        failures.add(stages.SEARCH, "levers", names, [*expected, *(["...", " or ".join(LAST_LEVERS)] if derived.levers else [])])
        return
    for index, name in [*enumerate(expected), *([(len(names) - 1, "last")] if derived.levers else [])]:
        failures.compare_keys(stages.SEARCH, rows[index], derived.levers[name], f"levers[{index}]")
