"""Verification of results: all stages computed again from networks, data and chip."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.data.labels import average_right, grade_labels
from spear_deploy.errors import DataError
from spear_deploy.interchange.formats import CERTIFICATE
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.adapt_stage import read_adaptation
from spear_deploy.pipeline.adaptation.results import ADAPTED, TRAINED
from spear_deploy.pipeline.adaptation.results import FACTS as ADAPTATION
from spear_deploy.pipeline.deploy import PROVENANCE, REPORT, describe_results, make_advice, summarize
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.export_stage import export, keep_vendor_runs, list_unrepeated_runs
from spear_deploy.pipeline.preflight import LAVA_FAMILY, check_inputs, grade_split
from spear_deploy.pipeline.provenance import collect_provenance
from spear_deploy.pipeline.stage_cache import STAGES, StageCache, read_stages
from spear_deploy.pipeline.stages import Task
from spear_deploy.pipeline.verification.adaptation import DerivedAdaptation, derive_adaptation
from spear_deploy.pipeline.verification.pruning import DerivedPruning, derive_pruning, recover_pruning
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.simulator import spike_comparison
from spear_deploy.simulator.run import decide
from spear_deploy.util.digests import hash_file
from spear_deploy.util.files import read_arrays, rename_in_errors, require_file
from spear_deploy.util.progress import Progress
from spear_deploy.util.temporary_folder import open_temporary_folder

LAVA_SAMPLES = 4
"""Samples that run on Lava again, unless all do."""
OF_THIS_MACHINE = ("made", "command", "options", "versions", "code", "machine")
"""Keys of provenance.json about the run itself; the digest of the file holds them."""


class UnnamedDataError(DataError):
    """The data of a deployment has no name by which it could be loaded."""


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What a deployment's folder should hold.

    Attributes:
        files: content of the JSON files by name.
        arrays: of the `.npz` files, by name and key.
        digests: sha256 of files that are the same on every machine, by name.
        lava_samples: samples that ran on Lava.
        pruning: of search.json.
        adaptation: of adapt.json; None where nothing was adapted.
        stages: plain data of the stages, by name.
        notes: sentences on what could not be derived.
    """

    files: dict[str, Any]
    arrays: dict[str, dict[str, Any]]
    digests: dict[str, str]
    lava_samples: int
    pruning: DerivedPruning
    adaptation: DerivedAdaptation | None
    stages: dict[str, Any]
    notes: list[str]


def derive(
    folder: Path,
    *,
    settings: DeploySettings,
    data: str | os.PathLike[str] | Dataset | None,
    chip: api.Chip,
    full: bool,
    progress: Progress | None = None,
) -> Derived:
    """Compute all results from the networks of a folder, the data and the chip.

    Raises:
        SpearError: one of them cannot be read, or they do not go together.
    """
    if data is None:
        raise UnnamedDataError(f"folder '{folder}': does not name its data, which was an object; give it with --data")
    inputs = check_inputs(
        folder / stages.DENSE, chip, data, seed=settings.seed, overrides=settings.overrides or None, steps=settings.steps,
        encoding=settings.encoding,
    )  # fmt: skip
    with open_temporary_folder("verify") as place, rename_in_errors(place, folder):
        adapts = bool(read_adaptation(folder))
        for file in (stages.DENSE, stages.PRUNED, *((TRAINED, ADAPTED, ADAPTATION) if adapts else ())):
            shutil.copyfile(require_file(folder / file, "file of a deployment"), place / file)
        task = Task(
            folder=place, inputs=inputs, digest=hash_dataset(inputs.dataset), settings=settings, progress=progress
        )  # fmt: skip
        cache = StageCache(place, fresh=True, advice=make_advice(None), progress=progress)
        pruning = derive_pruning(task)
        done = _run_stages(cache, task, folder, {"widths": pruning.uses[0]["widths"], **recover_pruning(folder)}, full=full)
        samples = done["lava"]["samples"] if full else min(LAVA_SAMPLES, done["lava"]["samples"])
        return Derived(
            files=_derive_files(cache, task, done, folder),
            arrays={path: read_arrays(place / path) for path in (stages.ACTIVITY, stages.RASTER)},
            digests=_hash_networks(place, done["export"]["files"].values(), adapts=adapts),
            lava_samples=samples,
            pruning=pruning,
            adaptation=derive_adaptation(place, task, data) if adapts else None,
            stages=_as_json({name: value for name, value in done.items() if name != "prune"}),
            notes=list_unrepeated_runs(done["export"]["vendor"]),
        )


def _run_stages(cache: StageCache, task: Task, folder: Path, pruned: Mapping[str, Any], *, full: bool) -> dict[str, Any]:
    """Return the results of the stages of a deployment by name; `pruned` are those of pruning, which is not repeated."""
    done: dict[str, Any] = {}
    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("evaluate", lambda: stages.evaluate_dense(task).value),
        ("prune", lambda: dict(pruned)),
        ("quantise", lambda: stages.quantise(task).value),
        ("lava", lambda: _prove(task, full)),
        ("export", lambda: _export(task, folder)),
    )
    for stage, work in steps:
        cache.report_stage(stage)
        done[stage] = work()
    return done


def _export(task: Task, folder: Path) -> dict[str, Any]:
    """Return the plain data of the export; whether a maker's simulator ran depends on what is installed."""
    value = dict(export(task).value)
    stage = read_stages(folder / STAGES)[0].get("export")
    stated = stage.value.get("vendor") if stage is not None and isinstance(stage.value, dict) else None
    return {**value, "vendor": keep_vendor_runs(value["vendor"], stated)}


def _derive_files(cache: StageCache, task: Task, done: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the JSON files of a deployment as plain data, by name; of the folder they state which files exist."""
    budget = parse_amount(task.settings.synops, "synops").resolve(done["evaluate"]["layers"]["synops"])
    report = stages.check(task, budget, done["quantise"]["counts"])
    result = summarize(cache, task, done, budget, report)
    exported = [path for path in done["export"]["files"].values() if _is_certificate(path)]
    files: dict[str, Any] = _as_json(describe_results(task, done, result))
    files |= {stages.LAVA: done["lava"], **{path: json.loads((task.folder / path).read_text()) for path in exported}}
    facts = collect_provenance(
        command=None, options={}, network=task.network(stages.DENSE), task=replace(task, folder=folder),
        files=[path for path in result.files.values() if path not in (PROVENANCE, REPORT) and _is_readable(folder / path)],
    )  # fmt: skip
    return files | {PROVENANCE: {key: value for key, value in _as_json(facts).items() if key not in OF_THIS_MACHINE}}


def _hash_networks(place: Path, exported: Iterable[str], *, adapts: bool) -> dict[str, str]:
    """Return the digests of the networks of a deployment and of the files that it was exported to."""
    networks = (stages.DENSE, stages.PRUNED, stages.QUANTISED, *exported)
    digests = {path: hash_file(place / path) for path in networks if not _is_certificate(path)}
    return digests | ({ADAPTED: digests[stages.DENSE]} if adapts else {})  # what was adapted is what is pruned


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _is_certificate(path: str) -> bool:
    return path.endswith(CERTIFICATE)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _prove(task: Task, full: bool) -> dict[str, Any]:
    """Return the facts of lava.json, and write the raster.

    All but the number of different spikes follow from our simulator; those are counted on Lava, for a few samples or for all.
    """
    if full or task.inputs.profile.meta.family != LAVA_FAMILY:
        return dict(stages.prove(task).value)
    integer, test = task.network(stages.QUANTISED), task.deployed.dataset.test
    split = grade_split(integer, test)
    part = split if task.settings.lava_samples is None else split.head(task.settings.lava_samples)
    facts, ours, theirs = stages.compare_with_lava(integer, split, min(LAVA_SAMPLES, len(part)))
    first = (facts["first_difference"] or {}).get("first") or {"sample": 0}
    stages.write_raster(task.folder / stages.RASTER, first["sample"], task.network(stages.PRUNED), test, ours, theirs)
    run = api.simulate(integer, np.moveaxis(part.x, 0, 1), kind=part.kind, record=("spikes",))
    compared = spike_comparison.compare_runs(run, run, [(name, name) for name in run.spikes])
    return {
        **facts,
        "samples": len(part),
        "accuracy": average_right(grade_labels(decide(run.output, integer), part.y)),
        "spikes_compared": sum(layer.compared for layer in compared if layer.what == "spikes"),
    }
