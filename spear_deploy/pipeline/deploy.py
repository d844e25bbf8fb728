"""How does a trained network become files for a chip, in one call that goes on where it stopped?"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BudgetError, SpearError
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.deployment import Deployment
from spear_deploy.pipeline.preflight import LAVA_FAMILY, check_on_lava, checked_start
from spear_deploy.pipeline.provenance import provenance
from spear_deploy.pipeline.report_facts import core_facts
from spear_deploy.pipeline.stage_cache import Advice, Finished, Ledger
from spear_deploy.pipeline.stages import Task
from spear_deploy.pruning.budgets import budget_from
from spear_deploy.util.digests import hash_code, hash_value
from spear_deploy.util.files import write_json
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport

CHECK, LAYERS, CORES, PROVENANCE = "check.json", "layers.json", "cores.json", "provenance.json"
DEPLOYMENT, REPORT = "deployment.json", "report.html"


def deploy(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: str | float = "50%",
    method: str | None = None,
    seed: int = 0,
    lava_samples: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    fresh: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Prune a network to a SynOps budget, quantise it for a chip, prove it on Lava, check it and export it.

    Args:
        net, chip: see `verbs`.
        data: a built-in name, a file, or a `Dataset`.
        out: folder for the files; made if missing. Stages of an earlier run with the same inputs are taken from it, other
            files of an earlier run are replaced, each as a whole.
        synops: "50%" of the dense network's SynOps on the test split, or SynOps per inference.
        method: the searcher, `search.DEFAULT_METHOD` unless given.
        seed: of everything random.
        lava_samples: how many test samples run on Lava; all unless given.
        overrides: facts of the profile that the user knows better, by dotted key.
        fresh: do all stages again, whatever the folder holds.
        command: the command line, if one made the call: told in the report and in what to do after an error.
        progress: is told what is being done.

    Raises:
        SpearError: whatever cannot go on, in one sentence; files of finished stages stay.
    """
    ledger = Ledger(Path(out), fresh=fresh, advice=advice_for(command), progress=progress)
    return with_ledger(
        ledger, net, chip, data, synops=synops, method=method, seed=seed, lava_samples=lava_samples, overrides=overrides,
        command=command,
    )  # fmt: skip


def with_ledger(
    ledger: Ledger,
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    synops: str | float,
    method: str | None,
    seed: int,
    lava_samples: int | None,
    overrides: Mapping[str, Any] | None,
    command: str | None,
) -> Deployment:
    """Go the path, each stage through the ledger; arguments are those of `deploy`."""
    from spear_deploy.pruning.search.settings import DEFAULT_METHOD

    method = method or DEFAULT_METHOD
    with ledger.kept():
        target, chips, dense, dataset = checked_start(net, chip, data, synops, seed, overrides)
        check_on_lava(dense, target)
    task = Task(
        folder=ledger.folder, target=target, chips=chips, dataset=dataset, digest=hash_dataset(dataset), method=method,
        seed=seed, lava_samples=lava_samples, progress=ledger.progress,
    )  # fmt: skip
    found, budget = _finished(ledger, task, dense, synops)
    report = ledger.timed("check", lambda: stages.check(task, budget, found["quantise"].value["counts"]))
    found["export"] = ledger.run("export", _same(task, found, "prune", "quantise"), lambda: stages.export(task))
    result = _result(ledger, task, found, budget, report)
    options = {"chip": target.name, "chips": chips, "synops": str(synops), "method": method, "seed": seed}
    options |= {"lava_samples": lava_samples, "overrides": sorted(overrides or {})}
    _write(ledger, task, result, found, options, command)
    return result


def advice_for(command: str | None) -> Advice:
    """Return what says how to go on: the command again, with a budget that can be reached if that was what failed."""

    def advice(error: SpearError | None) -> str:
        if command is None:
            return "the same call"
        least = error.least if isinstance(error, BudgetError) else None
        return f"`{command if least is None else _with_budget(command, ceil(least))}`"

    return advice


def _with_budget(command: str, synops: int) -> str:
    """Return a command line with another `--synops`.

    >>> _with_budget("spear-deploy demo --synops 5% --out d", 900)
    'spear-deploy demo --out d --synops 900'
    """
    without = re.sub(r"\s--synops(=|\s+)\S+", "", command)
    return f"{without} --synops {synops}"


# ------------------------------------------------------------------------------------------------------------ inside


def _finished(ledger: Ledger, task: Task, dense: SNNGraph, synops: str | float) -> tuple[dict[str, Finished], float]:
    """Return the stages up to the proof, and the budget in SynOps per inference."""
    chip = hash_profile(task.target)
    found: dict[str, Finished] = {}
    given = {"network": hash_network(dense), "data": task.digest}
    found["evaluate"] = ledger.run("evaluate", given, lambda: stages.measure(task, dense))
    budget = budget_from(synops, found["evaluate"].value["layers"]["synops"])
    searched = {**given, "chip": chip, "budget": budget, "synops": str(synops), "method": task.method, "seed": task.seed}
    mark = hash_value({**searched, "code": hash_code()})[:16]
    found["prune"] = ledger.run("prune", searched, lambda: stages.search(task, synops, mark))
    found["quantise"] = ledger.run("quantise", {**_same(task, found, "prune"), "chip": chip}, lambda: stages.quantise(task))
    proven = {**_same(task, found, "prune", "quantise"), "samples": task.lava_samples}
    found["lava"] = ledger.run("lava", proven, lambda: stages.prove(task))
    return found, budget


def _same(task: Task, found: Mapping[str, Finished], *names: str) -> dict[str, Any]:
    """Return what goes into a stage: the networks of earlier ones, and the data."""
    networks = {file: digest for name in names for file, digest in found[name].files.items() if file.endswith(".snn")}
    return {"networks": networks, "data": task.digest}


def _result(ledger: Ledger, task: Task, found: Mapping[str, Finished], budget: float, report: BudgetReport) -> Deployment:
    dense, pruned, fixed = (
        found["evaluate"].value["layers"],
        found["quantise"].value["pruned"],
        found["quantise"].value["quantised"],
    )
    lava, exported = found["lava"].value, found["export"].value
    notes = [*found["prune"].value["notes"], *exported["notes"]]
    if task.target.meta.family != LAVA_FAMILY:
        notes.append(f"Lava's models hold Loihi's integers; those of {task.target.name} ran on our simulator alone")
    if fixed["synops"] > budget:
        notes.append(f"SynOps on the test split are {fixed['synops']:.0f}, above the budget of {budget:.0f}")
    files = {
        "dense": stages.DENSE, "pruned": stages.PRUNED, "search": stages.SEARCH, "quantised": stages.QUANTISED,
        "activity": stages.ACTIVITY, "recording": stages.LAVA, "raster": stages.RASTER, "check": CHECK, **exported["files"],
        "layers": LAYERS, "cores": CORES, "provenance": PROVENANCE, "deployment": DEPLOYMENT, "report": REPORT,
    }  # fmt: skip
    return Deployment(
        chip=task.target.name,
        seed=task.seed,
        accuracy={
            "dense": dense["accuracy"],
            "pruned": pruned["accuracy"],
            "quantised": fixed["accuracy"],
            "lava": lava["accuracy"],
        },
        synops={"dense": dense["synops"], "budget": budget, "achieved": fixed["synops"]},
        norse=found["evaluate"].value["norse"],
        lava={name: value for name, value in lava.items() if name != "accuracy"},
        report=report,
        widths=found["prune"].value["widths"],
        files=files,
        seconds=ledger.seconds,
        notes=notes,
        resumed=tuple(ledger.resumed),
    )


def _write(
    ledger: Ledger,
    task: Task,
    result: Deployment,
    found: Mapping[str, Finished],
    options: Mapping[str, Any],
    command: str | None,
) -> None:
    """Write what states the results, and the page that shows them."""
    from spear_deploy.report import write_report

    folder, report = task.folder, result.report
    quantised = found["quantise"].value
    latency = {"seconds": report.latency.seconds, "missing": list(report.latency.missing), "how": report.latency.how}
    further = {"headline": report.headline, "notes": list(report.notes), "latency": latency}
    write_json(folder / CHECK, {**report.to_json(), **further})
    written = {
        LAYERS: {"dense": found["evaluate"].value["layers"], "pruned": quantised["pruned"], "quantised": quantised["quantised"]},
        CORES: core_facts(report.placement, task.target),
        DEPLOYMENT: result.to_json(),
    }
    for name, value in written.items():
        write_json(folder / name, value)
    proven = [name for name in result.files.values() if name not in (PROVENANCE, REPORT)]
    where_from = provenance(
        command=command, options=options, network=task.network(stages.DENSE), task=task, files=proven
    )  # fmt: skip
    write_json(folder / PROVENANCE, where_from)
    ledger.tell("report")
    with ledger.kept():
        write_report(folder)
    ledger.conclude((CHECK, LAYERS, CORES, DEPLOYMENT, PROVENANCE, REPORT))
