"""Pruning of a network to budgets, in floating point and as integers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spear_deploy.budget.check import check
from spear_deploy.budget.latency import has_step_limits
from spear_deploy.data import Dataset
from spear_deploy.data.time_steps import parse_steps
from spear_deploy.errors import BudgetError
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network.labels import label_layers
from spear_deploy.pipeline import api
from spear_deploy.pipeline.inputs import load_named, merge_options
from spear_deploy.pipeline.preflight import CheckedInputs, check_inputs, require_supported
from spear_deploy.pipeline.result import add_header, describe_run
from spear_deploy.pipeline.time_steps import add_choice, choose_input_steps
from spear_deploy.placement.weight_bits import describe_stated_bits
from spear_deploy.pruning.budgets import WRITTEN, Amount, Budgets, parse_amount, resource_name
from spear_deploy.pruning.candidates import list_unprunable
from spear_deploy.pruning.chip_costs import ChipCosts, build_chip_costs
from spear_deploy.pruning.levers import LeverStage, check_steps
from spear_deploy.pruning.prune_to_budget import BITS_CHECKPOINT, allow_overshoot, prune_to_budget
from spear_deploy.pruning.pruned_result import PrunedResult
from spear_deploy.pruning.search.choose import get_search
from spear_deploy.pruning.search.search import SearchResult, search_front
from spear_deploy.pruning.search.settings import LEVER_METHODS
from spear_deploy.pruning.settings import PruneSettings, settle_method
from spear_deploy.pruning.tune.measure import BudgetMonitor, measure_unseen
from spear_deploy.report import write_report
from spear_deploy.training.device import choose_device
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.training.learning_store import forget_learning
from spear_deploy.util.files import write_json
from spear_deploy.util.folder_lock import own_folder, require_kept
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import give_logs, map_jobs

PRUNED, SEARCH, PLAN, CHECKPOINT = "pruned.snn", "search.json", "plan.json", "checkpoint.json"
STEPS_CHECKPOINT = "checkpoint-steps.json"
FACTS, FRONT = "prune.json", "front.json"
RESULTS = (PRUNED, SEARCH, PLAN, CHECKPOINT, STEPS_CHECKPOINT, BITS_CHECKPOINT, FACTS, FRONT)
"""Files that `prune` writes, beside its pages."""


def prune(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    settings: PruneSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Prune a network to its budgets and write `pruned.snn`, `search.json`, `plan.json` and the page `prune.html`.

    Without a budget the network is made to fit the chip; a network that fits is not changed. A pruning that was stopped goes on
    from `checkpoint.json` in the same folder, and its fine-tuning from `learning-*.npz`, behind the last epoch.

    Args:
        net, chip, data, out, overrides, progress: those of `deploy`.
        command: the command line, for the page.
        settings: budgets, method, episodes, epochs, learning rate and seed.
        options: fields of `PruneSettings` by name, in place of or on top of `settings`: `synops="50%"`, `energy_uj=3.5`,
            `latency_ms`, `step_load`, `cores`, `memory` (words), `parameters`, `method="evolution"`,
            `levers="channels,weights"`, `episodes`, `epochs`, `learning_rate`, `seed`. How network and data are read: those of
            `load`, and `steps` and `encoding` of `load_data`. A range of steps, "auto" or "3..8", lets the number of time steps
            be chosen (`pruning.time_steps`).

    Returns:
        {samples, accuracy, synops, steps, budgets, met, verdict, cores_used, widths, levers, batches, not_prunable, notes, ...},
        measured on the test split; of `budgets` what the search kept to on validation, and of what depends on spikes `test`.
        `met` is whether both are within.

    Raises:
        BudgetError: a budget cannot be reached; the message names the lowest that can.
        ChipError: the chip lacks a part of the network, at any size.
        TypeError: there is no such option.
    """
    require_kept(out, RESULTS, net, data)
    net, coding, options = load_named(net, data, options)
    settings = merge_options(settings or PruneSettings(), options, "prune")
    choose_device(settings.device or "cpu")
    is_range = check_steps(settings.levers, coding.get("steps"))
    with own_folder(out) as folder:
        settings = replace(settings, workers=give_logs(settings.workers, folder))
        inputs = check_inputs(net, chip, data, seed=settings.seed, overrides=overrides, progress=progress, **coding)
        steps = parse_steps(coding["steps"]) if is_range else None
        facts = _prune_into(folder, inputs, settings, steps, progress)
        write_json(folder / FACTS, {"front": [facts], **_describe_run(command, inputs)})
        facts["files"]["report"] = write_report(folder, results=FACTS).name
        if not facts["interrupted"]:
            forget_learning(folder)
        return add_header(facts, inputs.network)


def _describe_run(command: str | None, inputs: CheckedInputs) -> dict[str, Any]:
    """Return how results were made, and of which network."""
    return {**describe_run(command), "network_digest": hash_network(inputs.network)}


def _prune_into(
    folder: Path, inputs: CheckedInputs, settings: PruneSettings, steps: Any, progress: Progress | None
) -> dict[str, Any]:
    """Do the work of `prune` in a folder that this run holds, and return its results."""
    wanted = _name_limits(settings) or f"what fits {inputs.profile.name}"
    costs = build_chip_costs(inputs.network, inputs.profile, inputs.chips)
    settings = require_fit(settings, inputs, costs)
    if progress is not None:
        progress({"stage": "evaluate", "done": 0, "of": 0})
    dense = evaluate(inputs.network, inputs.dataset.test)
    inputs, choice = choose_input_steps(inputs, steps, settings, checkpoint=folder / STEPS_CHECKPOINT, progress=progress)
    pruned = prune_to_budget(
        inputs.network, inputs.dataset, settings, deployed=inputs.forms, chip=costs, checkpoint=folder / CHECKPOINT,
        progress=progress,
    )  # fmt: skip
    pruned = add_choice(pruned, choice)
    facts = _measure_result(pruned, inputs, settings, dense, costs)
    return {**facts, "wanted": wanted, "files": _write_result(pruned, folder)}


def prune_front(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    synops: Sequence[str | float],
    *,
    out: str | os.PathLike[str],
    settings: PruneSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Prune a network to each of several SynOps budgets, and write a folder for each, `front.json` and `front.html`.

    Args:
        net, chip, data, out, overrides, progress, command: those of `prune`.
        synops: the budgets, e.g. ("70%", "50%", "35%", "20%").
        settings: of all of them; its other limits hold for each budget.
        options: those of `prune`, with one number of steps.

    Returns:
        {front: [the return value of `prune`, for each budget], files}.

    Raises:
        BudgetError: no budget is given, one that is none, or two that have one folder; or one cannot be reached.
    """
    _check_budgets(synops)
    require_kept(out, list_front_results(synops), net, data)
    net, coding, options = load_named(net, data, options)
    settings = merge_options(settings or PruneSettings(), options, "prune")
    choose_device(settings.device or "cpu")
    if check_steps(settings.levers, coding.get("steps")):
        raise BudgetError(
            f"steps '{coding['steps']}': a range is chosen from for one budget, and several are given; give one budget, or one "
            "number of steps"
        )
    with own_folder(out) as folder:
        settings = replace(settings, workers=give_logs(settings.workers, folder))
        inputs = check_inputs(net, chip, data, seed=settings.seed, overrides=overrides, progress=progress, **coding)
        rows = _prune_front_into(folder, inputs, synops, settings, progress)
        write_json(folder / FRONT, {"front": rows, **_describe_run(command, inputs)})
        files = {"front": FRONT, "report": write_report(folder, results=FRONT).name}
        for row, budget in zip(rows, synops, strict=False):
            if not row["interrupted"]:
                forget_learning(folder / _name_folder(budget))
        return add_header({"front": rows, "files": files}, inputs.network)


def _name_limits(settings: PruneSettings) -> str:
    """Return the budgets as they are stated, such as "60% SynOps, 3.5 µJ"; a share is one of a resource and has no unit.

    >>> _name_limits(PruneSettings(synops="60%", energy_uj="70%", latency_ms=3.5))
    '60% SynOps, 70% energy, 3.5 ms'
    """
    return ", ".join(
        f"{value} {resource_name(WRITTEN[name][0]) if str(value).strip().endswith('%') else WRITTEN[name][2]}"
        for name, value in settings.limits.items()
    )


def list_front_results(synops: Sequence[str | float]) -> list[str]:
    """Return the files that `prune_front` writes to these budgets, beside its page."""
    return [*RESULTS, *(f"{_name_folder(budget)}/{name}" for budget in synops for name in RESULTS)]


def _check_budgets(synops: Sequence[str | float]) -> None:
    """Check the budgets of a front, each of which has a folder.

    Raises:
        BudgetError: none is given, one is neither a number nor a share above 0, or two have the same folder.
    """
    if isinstance(synops, str) or not isinstance(synops, Sequence):
        raise BudgetError(f"budgets: {synops!r} given, expected several such as ('70%', '50%')")
    if not synops:
        raise BudgetError("budgets: none given, expected at least one such as 50%")
    for budget in synops:
        parse_amount(budget, "synops")
    folders = [_name_folder(budget) for budget in synops]
    if double := next((name for name in folders if folders.count(name) > 1), None):
        raise BudgetError(f"budgets: two would be written into the folder '{double}'; name each once, all as shares or none")


def _name_folder(budget: str | float | None) -> str:
    """Return the name of the folder of a budget."""
    return str(budget).strip().replace("%", "")


def _prune_front_into(
    folder: Path, inputs: CheckedInputs, synops: Sequence[str | float], settings: PruneSettings, progress: Progress | None
) -> list[dict[str, Any]]:
    """Do the work of `prune_front` in a folder that this run holds, and return the results of each budget."""
    costs = build_chip_costs(inputs.network, inputs.profile, inputs.chips)
    all_settings = [require_fit(replace(settings, synops=budget), inputs, costs) for budget in synops]
    dense = evaluate(inputs.network, inputs.dataset.test)
    plans: Iterable[SearchResult]
    first = all_settings[0]
    if first.chosen_method in LEVER_METHODS:  # they learn for their budget, so that budgets share nothing but the checkpoint
        plans = (
            get_search(first.chosen_method)(
                inputs.network, inputs.dataset, budget_settings, chip=costs, checkpoint=folder / CHECKPOINT, progress=progress
            )
            for budget_settings in all_settings
        )
    else:
        plans = search_front(
            inputs.network, inputs.dataset, replace(first, search=allow_overshoot(first.search_settings)), synops,
            chip=costs, checkpoint=folder / CHECKPOINT, progress=progress,
        )  # fmt: skip
    rows = []
    for budget_settings, pruned in _fine_tune_plans(inputs, all_settings, plans, costs, folder, progress):
        name = _name_folder(budget_settings.synops)
        files = {kind: f"{name}/{file}" for kind, file in _write_result(pruned, folder / name).items()}
        facts = _measure_result(pruned, inputs, budget_settings, dense, costs)
        rows.append({**facts, "wanted": _name_limits(budget_settings), "files": files})
        if pruned.interrupted:
            break
    return rows


def _fine_tune_plans(
    inputs: CheckedInputs,
    all_settings: Sequence[PruneSettings],
    plans: Iterable[SearchResult],
    costs: ChipCosts,
    folder: Path,
    progress: Progress | None,
) -> Iterator[tuple[PruneSettings, PrunedResult]]:
    """Yield each budget with its network; fewer where Ctrl-C ended the search.

    With workers the budgets learn at the same time.
    """
    workers = all_settings[0].workers
    keeps = workers is None or workers.place == "processes"  # other machines do not see the folder, or may not write there
    jobs = (
        (replace(settings, workers=None), plan, folder / _name_folder(settings.synops) / CHECKPOINT if keeps else None)
        for settings, plan in zip(all_settings, plans, strict=False)
    )  # learning alone is kept beside the checkpoint
    if workers is None:
        for job in jobs:
            yield job[0], _fine_tune_plan((inputs, costs), job, progress)
        return
    listed = list(jobs)
    names = [f"fine-tune to {settings.synops}" for settings, *_ in listed]
    results = map_jobs(
        _fine_tune_plan, listed, shared=(inputs, costs), workers=workers, names=names, stage="fine-tune", progress=progress
    )  # fmt: skip
    yield from zip((settings for settings, *_ in listed), results, strict=True)


def _fine_tune_plan(
    shared: tuple[CheckedInputs, ChipCosts],
    job: tuple[PruneSettings, SearchResult, Path | None],
    progress: Progress | None = None,
) -> PrunedResult:
    (inputs, costs), (settings, plan, checkpoint) = shared, job
    return prune_to_budget(
        inputs.network, inputs.dataset, settings, deployed=inputs.forms, chip=costs, search_result=plan,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def require_fit(settings: PruneSettings, inputs: CheckedInputs, costs: ChipCosts) -> PruneSettings:
    """Return the settings with the method for the chip, and its own limits as a budget, where pruning can make the network fit.

    Raises:
        ChipError: there is no other budget, and the chip lacks a part of the network.
    """
    settings = settle_method(settings, inputs.profile)
    if settings.limits:
        over = bool(costs.place(tuple(group.channels for group in costs.groups))[1])
        helps = over and not costs.place((1,) * len(costs.groups))[1]
        return replace(settings, fit=settings.fit or helps)
    require_supported(inputs.network, inputs.profile, inputs.chips)
    return replace(settings, fit=True, step_load=1.0 if _overloads_a_step(inputs, costs) else None)


def _overloads_a_step(inputs: CheckedInputs, costs: ChipCosts) -> bool:
    """Return whether the network has more work in a step than the chip can do in one, where that is limited."""
    if not has_step_limits(inputs.profile):
        return False
    filled = Budgets(step_load=Amount(value=1.0))
    return not BudgetMonitor(inputs.network, inputs.dataset, filled, inputs.forms, costs).measure(inputs.network).met


def _write_result(pruned: PrunedResult, folder: Path) -> dict[str, str]:
    """Write network, search and plan, and return their names."""
    write_snn(pruned.graph, folder / PRUNED)
    write_json(folder / SEARCH, pruned.to_json())
    write_json(folder / PLAN, pruned.plan.to_json())
    return {"pruned": PRUNED, "search": SEARCH, "plan": PLAN}


def _measure_result(
    pruned: PrunedResult, inputs: CheckedInputs, settings: PruneSettings, dense: Evaluation, costs: ChipCosts
) -> dict[str, Any]:  # fmt: skip
    """Run the pruned network and its integers on the test split, and return all results as plain data.

    Without integers of the chip `quantised` is None, and verdict and budgets are those in floating point.
    """
    test = inputs.dataset.test
    after = evaluate(pruned.graph, test)
    running, split = inputs.deploy_integers(pruned.graph, test) if inputs.has_integers else (pruned.graph, test)
    fixed = evaluate(running, split) if inputs.has_integers else None
    report = check(running, inputs.profile, chips=inputs.chips, activity=(fixed or after).counts)
    forms = [(pruned.graph, after), *([(running, fixed)] if fixed is not None else [])]
    tested = measure_unseen((inputs.network, dense), pruned.graph, forms, settings.budgets, costs)
    search = pruned.search
    return {
        "samples": {which: len(getattr(inputs.dataset, which)) for which in ("train", "val", "test")},
        "accuracy": {"dense": dense.accuracy, "pruned": after.accuracy, "quantised": fixed and fixed.accuracy},
        "synops": {
            "dense": dense.synops.total,
            "budget": tested["synops"]["budget"] if "synops" in tested else None,
            "achieved": after.synops.total,
            "quantised": fixed and fixed.synops.total,
        },
        "budgets": {name: {**row, **({"test": tested[name]} if name in tested else {})} for name, row in pruned.budgets.items()},
        "steps": {"trained": inputs.trained_steps, "deployed": inputs.dataset.steps},
        "met": pruned.met and all(row["met"] for row in tested.values()),
        "margin": pruned.margin,
        "chip": inputs.profile.name,
        "verdict": report.verdict,
        "cores_used": report.cores_used,
        "cores_limit": report.cores_limit,
        "widths": pruned.widths,
        "weight_bits": describe_stated_bits(pruned.graph, inputs.profile),
        "layer_bits": pruned.layer_bits.to_json() if pruned.layer_bits else None,
        "labels": label_layers(inputs.network),
        "levers": [{**stage.to_json(), **_measure_stage(stage, inputs)} for stage in pruned.stages],
        "learning_rate": pruned.learning_rate,
        "batches": pruned.to_json()["batches"],
        "not_prunable": list_unprunable(inputs.network),
        "method": search.method if search else None,
        "evaluations": search.evaluations if search else 0,
        "interrupted": pruned.interrupted,
        "seconds": pruned.seconds,
        "notes": [*inputs.dataset.notes, *pruned.notes],
    }


def _measure_stage(stage: LeverStage, inputs: CheckedInputs) -> dict[str, float]:
    """Return SynOps and accuracy of a stage of pruning on the test split."""
    dataset = inputs.dataset.trained if stage.name == "trained" else inputs.dataset
    result = evaluate(stage.graph, dataset.test)
    return {"synops": result.synops.total, "accuracy": result.accuracy}
