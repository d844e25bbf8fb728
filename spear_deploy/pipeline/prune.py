"""Which smaller network keeps its budgets, in floating point and as the integers of the chip?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.data import Dataset, Split
from spear_deploy.errors import BudgetError, UnsupportedError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.preflight import checked_start, graded_split, integers
from spear_deploy.report import write_report
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.util.files import write_json
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.hardware.profile import HardwareProfile
    from spear_deploy.pruning.budgets import Budgets
    from spear_deploy.pruning.chip_costs import ChipCosts
    from spear_deploy.pruning.prune_to_budget import PrunedResult
    from spear_deploy.pruning.tune.measure import Deployed


PRUNED, SEARCH, PLAN, CHECKPOINT = "pruned.snn", "search.json", "plan.json", "checkpoint.json"
FACTS = "prune.json"
ENOUGH = "100%"

UNITS = {"synops": "SynOps", "energy_uj": "µJ", "latency_ms": "ms", "memory": "words"}
"""What a person's budgets are counted in, where that is not their name."""


def prune(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: str | float | None = None,
    energy_uj: str | float | None = None,
    latency_ms: str | float | None = None,
    cores: str | float | None = None,
    memory: str | float | None = None,
    parameters: str | float | None = None,
    method: str | None = None,
    episodes: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prune a network to its budgets and write `pruned.snn`, `search.json`, `plan.json` and the page `prune.html`.

    Without a budget the network is made to fit the chip; one that fits is not changed. A search that was stopped goes on from
    `checkpoint.json` in the same folder.

    Args:
        net, chip, data, out, seed, overrides, progress: those of `deploy`.
        synops, energy_uj, latency_ms, cores, memory, parameters: limits, as numbers (SynOps, µJ and ms of an inference, cores,
            words of synapse memory in all, weights and biases) or as shares of what the given network takes ("50%").
        method, episodes, epochs: the searcher, its proposals, and epochs of the first fine-tuning.

    Returns:
        {accuracy, synops, budgets, verdict, cores_used, widths, not_prunable, files, notes, ...}, measured on the test split.

    Raises:
        BudgetError: a budget cannot be reached; says what can.
        UnsupportedError: the chip lacks what the network needs, whatever its size.
    """
    wanted = {
        "synops": synops, "energy_uj": energy_uj, "latency_ms": latency_ms, "cores": cores, "memory": memory,
        "parameters": parameters,
    }  # fmt: skip
    folder = Path(out)
    target, chips, dense, dataset = checked_start(net, chip, data, ENOUGH if synops is None else synops, seed, overrides)
    costs, budgets = budgets_for(dense, target, chips, wanted)
    before = evaluate(dense, dataset.test)
    pruned = within_budgets(
        dense, dataset, budgets, method=method, seed=seed, costs=costs, progress=progress, episodes=episodes, epochs=epochs,
        checkpoint=folder / CHECKPOINT, deployed=both(target, dataset),
    )  # fmt: skip
    facts = facts_of(pruned, dense, dataset, budgets, target, chips, before)
    write_snn(pruned.graph, folder / PRUNED)
    write_json(folder / SEARCH, pruned.to_json())
    write_json(folder / PLAN, pruned.plan.to_json())
    files = {"pruned": PRUNED, "search": SEARCH, "plan": PLAN}
    given = (
        ", ".join(f"{value} {UNITS.get(name, name)}" for name, value in wanted.items() if value is not None)
        or f"what fits {target.name}"
    )
    write_json(folder / FACTS, {"front": [{**facts, "wanted": given, "files": files}]})
    return {**facts, "files": {**files, "report": write_report(folder).name}}


def budgets_for(
    dense: SNNGraph, target: HardwareProfile, chips: int, wanted: Mapping[str, str | float | None]
) -> tuple[ChipCosts, Budgets]:
    """Return what a person wants as budgets; that the chip holds the network is one of them where pruning can help.

    Raises:
        BudgetError: an amount is none.
        UnsupportedError: nothing is wanted but that the network fits, and the chip lacks what it needs.
    """
    from spear_deploy.pruning.budgets import Amount, Budgets, amount
    from spear_deploy.pruning.chip_costs import on_chip

    costs = on_chip(dense, target, chips)
    units = {
        "energy_uj": ("energy_j", "energy", 1e-6),
        "latency_ms": ("latency_s", "latency", 1e-3),
        "memory": ("memory_words", "memory", 1.0),
    }
    given: dict[str, Amount] = {}
    for name, value in wanted.items():
        if value is not None:
            resource, words, unit = units.get(name, (name, name, 1.0))
            given[resource] = amount(value, words, unit=unit)
    if given:
        over = bool(costs.placed(tuple(group.channels for group in costs.groups))[1])
        helps = over and not costs.placed((1,) * len(costs.groups))[1]
        return costs, Budgets(**given, fit=helps)
    _check_supported(dense, target, chips)
    return costs, Budgets(fit=True)


def both(target: api.Chip, dataset: Dataset) -> tuple[Deployed, ...]:
    """Return the forms of a network that are held to the budgets: floating point, and the integers of the chip."""
    from spear_deploy.pruning.tune.measure import itself

    return (itself, as_integers(target, dataset))


def as_integers(target: api.Chip, dataset: Dataset) -> Deployed:
    """Return what makes the chip's integers of a network."""

    def deployed(graph: SNNGraph, split: Split) -> tuple[SNNGraph, Split]:
        integer = integers(graph, target, dataset)
        return integer, graded_split(integer, split)

    return deployed


def within_budget(
    dense: SNNGraph,
    dataset: Dataset,
    synops: str | float,
    method: str | None,
    seed: int,
    target: HardwareProfile,
    progress: Progress | None,
    checkpoint: Path | None = None,
) -> PrunedResult:
    """Prune until the *integer* network is within a SynOps budget on validation: that is what will run.

    A share is that of the dense network on the same samples.
    """
    from spear_deploy.pruning.budgets import Budgets, amount

    budgets = Budgets(synops=amount(synops, "synops"))
    deployed = (as_integers(target, dataset),)
    return within_budgets(
        dense, dataset, budgets, method=method, seed=seed, progress=progress, deployed=deployed, checkpoint=checkpoint
    )


def within_budgets(
    dense: SNNGraph,
    dataset: Dataset,
    budgets: Budgets,
    *,
    method: str | None,
    seed: int,
    progress: Progress | None,
    deployed: tuple[Deployed, ...],
    costs: ChipCosts | None = None,
    episodes: int | None = None,
    epochs: int | None = None,
    checkpoint: Path | None = None,
) -> PrunedResult:
    """Prune until all forms of a network that count are within the budgets on validation."""
    from spear_deploy.pruning.prune_to_budget import prune_to_budget
    from spear_deploy.pruning.search.settings import DEFAULT_METHOD

    return prune_to_budget(
        dense, dataset, budgets=budgets, method=method or DEFAULT_METHOD, seed=seed, episodes=episodes, epochs=epochs,
        deployed=deployed, chip=costs, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def facts_of(
    pruned: PrunedResult,
    dense: SNNGraph,
    dataset: Dataset,
    budgets: Budgets,
    target: HardwareProfile,
    chips: int,
    before: Evaluation,
) -> dict[str, Any]:
    """Return what came out, measured on the test split, as plain data."""
    from spear_deploy.budget.check import check
    from spear_deploy.pruning.candidates import not_prunable

    after = evaluate(pruned.graph, dataset.test)
    integer, split = as_integers(target, dataset)(pruned.graph, dataset.test)
    fixed = evaluate(integer, split)
    report = check(integer, target, chips=chips, activity=fixed.counts)
    limit = None if budgets.synops is None else budgets.synops.of(before.synops.total)
    return {
        "accuracy": {"dense": before.accuracy, "pruned": after.accuracy, "quantised": fixed.accuracy},
        "synops": {
            "dense": before.synops.total,
            "budget": limit,
            "achieved": after.synops.total,
            "quantised": fixed.synops.total,
        },
        "budgets": pruned.budgets,
        "met": pruned.met and (limit is None or max(after.synops.total, fixed.synops.total) <= limit),
        "margin": pruned.margin,
        "chip": target.name,
        "verdict": report.verdict,
        "cores_used": report.cores_used,
        "cores_limit": report.cores_limit,
        "widths": pruned.widths,
        "not_prunable": not_prunable(dense),
        "method": pruned.search.method if pruned.search else None,
        "evaluations": pruned.search.evaluations if pruned.search else 0,
        "interrupted": pruned.interrupted,
        "seconds": pruned.seconds,
        "notes": pruned.notes,
    }


def _check_supported(dense: SNNGraph, target: HardwareProfile, chips: int) -> None:
    from spear_deploy.budget.check import check

    lacking = check(dense, target, chips=chips).unsupported
    if lacking:
        told = "; ".join(f"layer '{one.layer}': {one.what}, {one.why}" for one in lacking[:3])
        raise UnsupportedError(f"chip '{target.name}' lacks what this network needs, and pruning does not help: {told}")


# FOLDED from spear_deploy/pipeline/prune.py
# Which smaller networks keep each of several SynOps budgets, found by one search?

FRONT = "front.json"


def prune_front(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: Sequence[str | float],
    method: str | None = None,
    episodes: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **limits: str | float | None,
) -> dict[str, Any]:
    """Prune a network to each of several SynOps budgets, and write a folder for each, `front.json` and `front.html`.

    Args:
        synops: the budgets, e.g. ("70%", "50%", "35%", "20%").
        limits: further ones, that hold for all; the other arguments are those of `prune`.

    Returns:
        {front: [what `prune` returns, for each budget], files}.
    """
    from spear_deploy.pruning.budgets import amount
    from spear_deploy.pruning.prune_to_budget import for_tuning, prune_to_budget
    from spear_deploy.pruning.search.search import search_front
    from spear_deploy.pruning.search.settings import DEFAULT_METHOD

    if not synops:
        raise BudgetError("budgets: none given, expected at least one such as 50%")
    folder = Path(out)
    target, chips, dense, dataset = checked_start(net, chip, data, synops[0], seed, overrides)
    costs, base = budgets_for(dense, target, chips, {"synops": synops[0], **limits})
    each = [replace(base, synops=amount(wanted, "synops")) for wanted in synops]
    before = evaluate(dense, dataset.test)
    method = method or DEFAULT_METHOD
    plans = search_front(
        dense, dataset, budgets=each, method=method, settings=for_tuning(method), episodes=episodes, seed=seed, chip=costs,
        checkpoint=folder / CHECKPOINT, progress=progress,
    )  # fmt: skip
    rows = []
    for wanted, budgets, found in zip(synops, each, plans, strict=False):  # fewer plans where Ctrl-C ended the search
        name = str(wanted).strip().replace("%", "")
        pruned = prune_to_budget(
            dense, dataset, budgets=budgets, seed=seed, deployed=both(target, dataset), chip=costs, found=found, epochs=epochs,
            progress=progress,
        )  # fmt: skip
        files = {"pruned": f"{name}/{PRUNED}", "search": f"{name}/{SEARCH}", "plan": f"{name}/{PLAN}"}
        write_snn(pruned.graph, folder / files["pruned"])
        write_json(folder / files["search"], pruned.to_json())
        write_json(folder / files["plan"], pruned.plan.to_json())
        rows.append({**facts_of(pruned, dense, dataset, budgets, target, chips, before), "wanted": str(wanted), "files": files})
        if pruned.interrupted:
            break
    write_json(folder / FRONT, {"front": rows})
    return {"front": rows, "files": {"front": FRONT, "report": write_report(folder).name}}
