"""Deployment of a trained network: prune, quantise, prove, check, export, report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BudgetError, SpearError
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.lava.schedule import schedule_on_chip
from spear_deploy.network.classes import describe_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.adapt_stage import adapt_for_deployment, note_adaptation, read_adaptation
from spear_deploy.pipeline.adaptation.results import ADAPTED, TRAINED
from spear_deploy.pipeline.adaptation.results import FACTS as ADAPTATION
from spear_deploy.pipeline.deployment import Deployment, DeploySettings
from spear_deploy.pipeline.export_stage import (
    MADE_OF,
    describe_simulator,
    explain_refusal,
    export,
    list_missing_simulators,
    list_paths,
    list_vendor_failures,
)
from spear_deploy.pipeline.inputs import load_named, merge_options
from spear_deploy.pipeline.preflight import LAVA_FAMILY, check_inputs, check_proofs, require_deployment
from spear_deploy.pipeline.provenance import collect_provenance
from spear_deploy.pipeline.report_facts import describe_cores
from spear_deploy.pipeline.stage_cache import Advice, CachedStage, StageCache
from spear_deploy.pipeline.stages import Task
from spear_deploy.pipeline.time_steps import keep_taken
from spear_deploy.placement.weight_bits import describe_stated_bits
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.pruning.levers import parse_levers
from spear_deploy.pruning.settings import PruneSettings, settle_method
from spear_deploy.report import write_report
from spear_deploy.report.tables import list_lava_failures
from spear_deploy.training.device import choose_device
from spear_deploy.util.digests import hash_code, hash_value
from spear_deploy.util.files import write_json
from spear_deploy.util.folder_lock import own_folder, require_kept
from spear_deploy.util.number_format import plural
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport

CHECK, LAYERS, CORES, PROVENANCE = "check.json", "layers.json", "cores.json", "provenance.json"
DEPLOYMENT, REPORT = "deployment.json", "report.html"
RESULTS = (
    stages.PRUNED, stages.QUANTISED, stages.RASTER, stages.ACTIVITY, ADAPTED,
    *(path for to in MADE_OF for path in list_paths(to).values()),
)  # fmt: skip
"""Networks and arrays that `deploy` makes; `dense.snn` and `trained.snn` hold the given network, and may be given again."""


def deploy(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    settings: DeploySettings | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Deployment:
    """Prune a network to a SynOps budget, quantise it for a chip, prove it on Lava, check it and export it.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
        chip: name or file of a profile, or a `HardwareProfile`.
        data: a built-in name, a file, or a `Dataset`.
        out: folder for the files; made if missing. Stages of an earlier run with the same inputs are taken from it, other
            files of an earlier run are replaced.
        settings: budget, method, seed and more.
        progress: is called when a stage begins, and during the search.
        options: fields of `DeploySettings` by name, in place of or on top of `settings`: `synops="50%"`, `method="evolution"`,
            `levers="channels,weights"`, `learning_rate=1e-3`, `seed=0`, `lava_samples=50`, `overrides={"core.neurons": 16}`,
            `steps`, `encoding`, `fresh=True`, `command`. How the network is read: those of `load`.

    Returns:
        `accuracy` and `synops` at each stage, `lava` (spikes that differ), `report` of `check`, `files` by kind, `failures` and
        `notes`.

    Raises:
        SpearError: the first stage that cannot go on; files of finished stages stay.
        TypeError: there is no such option.
    """
    require_kept(out, RESULTS, net, data)
    net, coding, options = load_named(net, data, options)
    settings = merge_options(settings or DeploySettings(), {**options, **coding}, "deploy")
    settings = replace(settings, device=choose_device(settings.device))
    with own_folder(out):
        return run_stages(open_cache(out, settings, progress), net, chip, data, settings)


def open_cache(out: str | os.PathLike[str], settings: DeploySettings, progress: Progress | None) -> StageCache:
    """Return the cache of stages in the output folder; where all stages run again, no search and no learning is left in it."""
    if settings.fresh:
        stages.forget_unfinished(Path(out))
    advice = make_advice(settings.command, fresh=settings.fresh)
    return StageCache(Path(out), fresh=settings.fresh, advice=advice, progress=progress)


def run_stages(
    cache: StageCache,
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    settings: DeploySettings,
) -> Deployment:
    """Run all stages of a deployment through the cache; arguments are those of `deploy`."""
    with cache.explain_stop():
        with cache.explain_errors():
            require_deployment(api.profile(chip, settings.overrides))
            net = adapt_for_deployment(cache, net, chip, data, settings)
            inputs = check_inputs(
                net, chip, data, seed=settings.seed, overrides=settings.overrides,
                steps=settings.steps, encoding=settings.encoding, progress=cache.progress,
            )  # fmt: skip
            check_proofs(inputs.network, inputs.profile)
            if settings.steps_range is not None:
                keep_taken(inputs, settings.steps_range)  # refuses a range of which the chip takes no samples
            if cache.progress is not None and (refusal := explain_refusal(inputs)):
                cache.progress({"stage": "checks", "note": refusal, "done": 0, "of": 0})
            wanted = PruneSettings(synops=settings.synops, method=settings.method, levers=settings.levers)
            settings = replace(settings, method=settle_method(wanted, inputs.profile).method)
        named = {"chip": chip, "data": data}
        task = Task(
            folder=cache.folder, inputs=inputs, digest=hash_dataset(inputs.dataset), settings=settings, progress=cache.progress,
            sources={name: os.fspath(value) for name, value in named.items() if isinstance(value, str | os.PathLike)},
        )  # fmt: skip
        done, budget = _run_until_proof(cache, task)
        report = cache.run_always("check", lambda: stages.check(task, budget, done["quantise"].value["counts"]))
        exported = {
            **_stage_inputs(task, done, "prune", "quantise"),
            "chip": hash_profile(inputs.profile), **describe_simulator(inputs.profile),
        }  # fmt: skip
        done["export"] = cache.run("export", exported, lambda: export(task))
        result = summarize(cache, task, {name: stage.value for name, stage in done.items()}, budget, report)
        _write_results(cache, task, done, result)
        return result


def make_advice(command: str | None, *, fresh: bool = False) -> Advice:
    """Return the function that names the command that goes on after an error.

    It is the same command, without `--fresh`, which begins anew, and with a budget that can be reached if that was the error.
    """

    def advice(error: SpearError | None) -> str:
        if command is None:
            return "the same call without `fresh`" if fresh else "the same call"
        least = error.min_value if isinstance(error, BudgetError) else None
        without = re.sub(r"\s--fresh(?=\s|$)", "", command)
        return f"`{without if least is None else _replace_budget(without, ceil(least))}`"

    return advice


def _replace_budget(command: str, synops: int) -> str:
    """Return a command line with another `--synops`.

    >>> _replace_budget("spear-deploy demo --synops 5% --out d", 900)
    'spear-deploy demo --out d --synops 900'
    """
    without = re.sub(r"\s--synops(=|\s+)\S+", "", command)
    return f"{without} --synops {synops}"


def _run_until_proof(cache: StageCache, task: Task) -> tuple[dict[str, CachedStage], float]:
    """Return the stages up to the proof, and the budget in SynOps per inference on the test split."""
    settings = task.settings
    chip = hash_profile(task.inputs.profile)
    done: dict[str, CachedStage] = {}
    common = {"network": hash_network(task.inputs.network), "data": task.digest}
    done["evaluate"] = cache.run("evaluate", common, lambda: stages.evaluate_dense(task))
    budget = parse_amount(settings.synops, "synops").resolve(done["evaluate"].value["layers"]["synops"])
    searched = {
        **common, "chip": chip, "budget": budget, "synops": str(settings.synops),
        "method": settings.chosen_method, "seed": settings.seed,
    }  # fmt: skip
    if settings.levers is not None:
        searched["levers"] = parse_levers(settings.levers)
    if settings.learning_rate is not None:
        searched["learning_rate"] = settings.learning_rate
    if settings.steps_range is not None:
        searched["steps"] = str(settings.steps)
    if settings.device != "cpu":
        searched["device"] = settings.device
    mark = hash_value({**searched, "code": hash_code()})[:16]
    done["prune"] = cache.run("prune", searched, lambda: stages.prune(task, mark))
    quantised = {**_stage_inputs(task, done, "prune"), "chip": chip}
    done["quantise"] = cache.run("quantise", quantised, lambda: stages.quantise(task))
    proven = {**_stage_inputs(task, done, "prune", "quantise"), "samples": settings.lava_samples}
    done["lava"] = cache.run("lava", proven, lambda: stages.prove(task))
    return done, budget


def _stage_inputs(task: Task, done: Mapping[str, CachedStage], *names: str) -> dict[str, Any]:
    """Return the digests of the networks of earlier stages, and of the data."""
    networks = {file: digest for name in names for file, digest in done[name].files.items() if file.endswith(".snn")}
    return {"networks": networks, "data": task.digest}


def _note_late_answers(integer: SNNGraph) -> list[str]:
    """Return when the outputs that answer are there, where a class is that of a single step."""
    later = schedule_on_chip(integer)["later_steps"] if read_decision(integer) in ("last", "each") else None
    if not later:
        return []
    return [
        "every connection takes a step on the chip: the outputs of a step, which decide, are there "
        f"{plural(later, 'step')} after its input"
    ]


def summarize(cache: StageCache, task: Task, done: Mapping[str, Any], budget: float, report: BudgetReport) -> Deployment:
    """Return the results of all stages, from the plain data of each."""
    evaluated, quantised, lava, exported = (done[name] for name in ("evaluate", "quantise", "lava", "export"))
    dense, pruned, fixed = evaluated["layers"], quantised["pruned"], quantised["quantised"]
    profile = task.inputs.profile
    adaptation = read_adaptation(task.folder)
    notes = [note_adaptation(adaptation)] if adaptation else []
    notes += [*task.inputs.dataset.notes, *describe_classes(task.network(stages.QUANTISED))]
    notes += [*done["prune"]["notes"], *exported["notes"], *list_missing_simulators(exported["vendor"])]
    failures = [*list_lava_failures(lava), *exported["failures"], *list_vendor_failures(exported["vendor"])]
    if profile.meta.family == LAVA_FAMILY:
        notes += _note_late_answers(task.network(stages.QUANTISED))
    else:
        notes.append(f"Lava's models hold Loihi's integers; those of {profile.name} ran on our simulator alone")
    if fixed["synops"] > budget:
        notes.append(f"SynOps on the test split are {fixed['synops']:,.0f}, above the budget of {budget:,.0f}")
    files = {
        "dense": stages.DENSE, "pruned": stages.PRUNED, "search": stages.SEARCH, "quantised": stages.QUANTISED,
        "activity": stages.ACTIVITY, "recording": stages.LAVA, "raster": stages.RASTER, "check": CHECK, **exported["files"],
        "layers": LAYERS, "cores": CORES, "provenance": PROVENANCE, "deployment": DEPLOYMENT, "report": REPORT,
        **({"trained": TRAINED, "adapted": ADAPTED, "adaptation": ADAPTATION} if adaptation else {}),
    }  # fmt: skip
    return Deployment(
        chip=profile.name,
        seed=task.settings.seed,
        accuracy={
            "dense": dense["accuracy"],
            "pruned": pruned["accuracy"],
            "quantised": fixed["accuracy"],
            "lava": lava["accuracy"],
        },
        floating_point_counts=task.inputs.floating_point_counts,
        synops={"dense": dense["synops"], "budget": budget, "achieved": fixed["synops"]},
        steps={"trained": dense["steps"], "deployed": fixed["steps"]},
        norse=evaluated["norse"],
        lava={name: value for name, value in lava.items() if name != "accuracy"},
        report=report,
        widths=done["prune"]["widths"],
        weight_bits=describe_stated_bits(task.network(stages.PRUNED), profile),
        levers=done["prune"].get("levers", []),
        budgets=done["prune"].get("budgets", {}),
        files=files,
        seconds=cache.seconds,
        failures=failures,
        notes=notes,
        resumed=tuple(cache.resumed),
        network=task.inputs.network,
    )


def describe_results(task: Task, done: Mapping[str, Any], result: Deployment) -> dict[str, Any]:
    """Return the content of the JSON files that hold the results, by name."""
    report, quantised = result.report, done["quantise"]
    latency = report.latency.to_json()
    return {
        CHECK: {**report.to_json(), "headline": result.headline, "latency": latency},
        LAYERS: {"dense": done["evaluate"]["layers"], "pruned": quantised["pruned"], "quantised": quantised["quantised"]},
        CORES: describe_cores(report.placement, task.inputs.profile, report.work),
        DEPLOYMENT: result.to_json(),
    }


def _write_results(cache: StageCache, task: Task, done: Mapping[str, CachedStage], result: Deployment) -> None:
    """Write the results, their provenance, and the page that shows them."""
    folder, settings, inputs = task.folder, task.settings, task.inputs
    for name, value in describe_results(task, {name: stage.value for name, stage in done.items()}, result).items():
        write_json(folder / name, value)
    options = {
        "chip": inputs.profile.name, "chips": inputs.chips, "synops": str(settings.synops), "method": settings.chosen_method,
        "learning_rate": settings.learning_rate, "seed": settings.seed, "steps": settings.steps, "encoding": settings.encoding,
        "readout": settings.readout, "lava_samples": settings.lava_samples, "overrides": sorted(settings.overrides or {}),
        "sources": dict(task.sources),
    }  # fmt: skip
    facts = collect_provenance(
        command=settings.command,
        options=options,
        network=task.network(stages.DENSE),
        task=task,
        files=[name for name in result.files.values() if name not in (PROVENANCE, REPORT)],
    )
    write_json(folder / PROVENANCE, facts)
    cache.report_stage("report")
    with cache.explain_errors():
        write_report(folder, results=DEPLOYMENT)
    cache.conclude((CHECK, LAYERS, CORES, DEPLOYMENT, PROVENANCE, REPORT))
