"""Verification of a deployment: every figure derived again from its files.

Nothing that the folder states is believed. From the dense and the pruned network, the data and the chip all results are computed
again, by the functions that computed them first, into a temporary folder; then each file is compared with the derived one:

    digests         of all files (provenance.json), of the stages (stages.json), of network, data and chip
    figures         deployment.json, layers.json, check.json, cores.json: equal, value by value
    spikes          activity.npz and raster.npz, array by array; on Lava for a few samples, or all
    exports         the file of each format, and its certificate without versions
    page            report.html, rendered again from the files

A wall time cannot be derived: it is held by the digest of its file alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import DataError, FileError, SpearError
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.adapt import ADAPTED, TRAINED, read_adaptation
from spear_deploy.pipeline.adapt import FACTS as ADAPTATION
from spear_deploy.pipeline.deploy import (
    DEPLOYMENT,
    PROVENANCE,
    REPORT,
    describe_results,
    make_advice,
    summarize,
)
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.preflight import LAVA_FAMILY, check_inputs, grade_split
from spear_deploy.pipeline.provenance import collect_provenance
from spear_deploy.pipeline.stage_cache import RESULT, STAGES, StageCache, read_stages
from spear_deploy.pipeline.stages import Task
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.report.folder import read_folder
from spear_deploy.report.page import render_deployment
from spear_deploy.simulator import spike_comparison
from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.digests import hash_code, hash_file
from spear_deploy.util.files import read_arrays, rename_in_errors, require_file
from spear_deploy.util.progress import Progress
from spear_deploy.util.temporary_folder import open_temporary_folder

if TYPE_CHECKING:
    from spear_deploy.network.graph import SNNGraph

LAVA_SAMPLES = 4
"""Samples that run on Lava again, unless all do."""
MAX_FAILURES = 100
NOT_DERIVED = ("seconds",)
"""Keys of deployment.json that no function of its inputs gives."""
ADDED_LATER = ("steps",)
"""Keys of deployment.json that earlier releases did not write."""
OF_THIS_MACHINE = ("made", "command", "options", "versions", "code", "machine")
"""Keys of provenance.json about the run itself; the digest of the file holds them."""
OF_VERSIONS = ("reader", "versions", "vendor")
"""Keys of a certificate that change with the installed packages."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `verify`.

    Attributes:
        folder: that was verified.
        checked: number of values and files that were compared.
        lava_samples: samples that ran on Lava again.
        failures: [{file, where, stated, derived}]: what does not hold.
        notes: what could not be verified, and why.
    """

    folder: Path
    checked: int
    lava_samples: int
    failures: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "folder": str(self.folder),
            "holds": self.holds,
            "checked": self.checked,
            "lava_samples": self.lava_samples,
            "failures": list(self.failures),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What a deployment's folder should hold.

    Attributes:
        files: content of the JSON files by name.
        arrays: of the `.npz` files, by name and key.
        digests: sha256 of files that are the same on every machine, by name.
        lava_samples: samples that ran on Lava.
    """

    files: dict[str, Any]
    arrays: dict[str, dict[str, Any]]
    digests: dict[str, str]
    lava_samples: int


def verify(
    folder: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset | None = None,
    chip: api.Chip | None = None,
    full: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Derive every figure of a deployment again and compare it with what its folder states.

    Args:
        folder: where `deploy` or `demo` wrote.
        data, chip: by default those that provenance.json names; where the deployment was made from objects, give them.
        full: run all samples on Lava that the deployment ran there, not only a few.
        progress: is called when a part begins.

    Raises:
        FileError: the folder holds no deployment.
        DataError: the data is not named in the folder.
    """
    place = Path(folder)
    evidence = read_folder(place)
    settings, sources = read_settings(evidence.provenance)
    failures = _Failures()
    derived: Derived | None = None
    data = sources.get("data") if data is None else data
    chip = sources.get("chip", evidence.provenance["options"]["chip"]) if chip is None else chip
    try:
        derived = derive(place, settings=settings, data=data, chip=chip, full=full, progress=progress)
    except SpearError as error:
        if isinstance(error, _Unnamed):
            raise
        failures.add(str(place), "inputs", "can be read and run", str(error))
    return compare_with_derived(place, derived, failures)


class _Unnamed(DataError):
    """The data of a deployment has no name by which it could be loaded."""


class _Failures:
    """Failures and the number of comparisons."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.checked = 0

    def add(self, file: str, where: str, stated: Any, derived: Any) -> None:
        """Add a failure."""
        if len(self.rows) < MAX_FAILURES:
            self.rows.append({"file": file, "where": where, "stated": _short(stated), "derived": _short(derived)})

    def compare(self, file: str, stated: Any, derived: Any, where: str = "") -> None:
        """Compare plain data, leaf by leaf."""
        if isinstance(stated, dict) and isinstance(derived, dict):
            for key in [*derived, *(key for key in stated if key not in derived)]:
                name = f"{where}.{key}" if where else str(key)
                if key not in stated or key not in derived:
                    self.add(file, name, stated.get(key, "missing"), derived.get(key, "missing"))
                else:
                    self.compare(file, stated[key], derived[key], name)
        elif isinstance(stated, list) and isinstance(derived, list) and len(stated) == len(derived):
            for index, pair in enumerate(zip(stated, derived, strict=True)):
                self.compare(file, *pair, f"{where}[{index}]")
        else:
            self.checked += 1
            if type(stated) is not type(derived) or not _equal(stated, derived):
                self.add(file, where, stated, derived)


def _equal(stated: Any, derived: Any) -> bool:
    """Compare two leaves; float sums may round in another order on another processor."""
    return math.isclose(stated, derived, rel_tol=1e-9) if isinstance(stated, float) else bool(stated == derived)


def _short(value: Any) -> Any:
    """Return a value as it is printed: numbers and short texts whole, longer ones cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def read_settings(provenance: Mapping[str, Any]) -> tuple[DeploySettings, dict[str, str]]:
    """Return the settings of a deployment and the names of its chip and data.

    Raises:
        FileError: provenance.json holds none that can be.
    """
    try:
        options = provenance["options"]
        facts = {row["key"]: row["value"] for row in provenance["chip"]["facts"]}
        settings = DeploySettings(
            synops=str(options["synops"]), method=options["method"], seed=int(options["seed"]),
            lava_samples=options["lava_samples"], steps=options.get("steps"), encoding=options.get("encoding"),
            overrides={key: facts.get(key) for key in options["overrides"]},
        )  # fmt: skip
        sources = {str(name): str(value) for name, value in options.get("sources", {}).items()}
        if "data" not in sources and provenance["data"]["name"] == "digits":
            sources["data"] = "digits"
        return settings, sources
    except (KeyError, TypeError, ValueError, AttributeError, SpearError) as error:
        raise FileError(f"file '{PROVENANCE}': its options are damaged ({error}); run the deployment again") from error


# ------------------------------------------------------------------------------------------------------------ derivation


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
        raise _Unnamed(f"folder '{folder}': does not name its data, which was an object; give it with --data")
    inputs = check_inputs(
        folder / stages.DENSE, chip, data, seed=settings.seed, overrides=settings.overrides or None, steps=settings.steps,
        encoding=settings.encoding,
    )  # fmt: skip
    with open_temporary_folder("verify") as place, rename_in_errors(place, folder):
        adaptation = (TRAINED, ADAPTED, ADAPTATION) if read_adaptation(folder) else ()
        for file in (stages.DENSE, stages.PRUNED, *adaptation):
            shutil.copyfile(require_file(folder / file, "file of a deployment"), place / file)
        task = Task(
            folder=place, inputs=inputs, digest=hash_dataset(inputs.dataset), settings=settings, progress=progress
        )  # fmt: skip
        cache = StageCache(place, fresh=True, advice=make_advice(None), progress=progress)
        done: dict[str, Any] = {}
        steps: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("evaluate", lambda: stages.evaluate_dense(task).value),
            ("prune", lambda: _measure_pruning(folder, task)),
            ("quantise", lambda: stages.quantise(task).value),
            ("lava", lambda: _prove(task, full)),
            ("export", lambda: stages.export(task).value),
        )
        for stage, work in steps:
            cache.report_stage(stage)
            done[stage] = work()
        budget = parse_amount(settings.synops, "synops").resolve(done["evaluate"]["layers"]["synops"])
        report = stages.check(task, budget, done["quantise"]["counts"])
        result = summarize(cache, task, done, budget, report)
        files = _as_json(describe_results(task, done, result))
        exported = done["export"]["files"].values()
        files |= {
            stages.LAVA: done["lava"],
            **{path: json.loads((place / path).read_text()) for path in exported if _is_json(path)},
        }
        if adaptation:
            files[ADAPTATION] = _derive_adaptation(place, task, data)
        networks = (stages.DENSE, stages.PRUNED, stages.QUANTISED, *exported)
        digests = {path: hash_file(place / path) for path in networks if not _is_json(path)}
        if adaptation:  # what was adapted is what is pruned
            digests[ADAPTED] = digests[stages.DENSE]
        facts = collect_provenance(
            command=None, options={}, network=task.network(stages.DENSE), task=replace(task, folder=folder),
            files=[path for path in result.files.values() if path not in (PROVENANCE, REPORT) and (folder / path).is_file()],
        )  # fmt: skip
        files[PROVENANCE] = {key: value for key, value in _as_json(facts).items() if key not in OF_THIS_MACHINE}
        arrays = {path: read_arrays(place / path) for path in (stages.ACTIVITY, stages.RASTER)}
        samples = done["lava"]["samples"] if full else min(LAVA_SAMPLES, done["lava"]["samples"])
        return Derived(files=files, arrays=arrays, digests=digests, lava_samples=samples)


def _is_json(path: str) -> bool:
    return path.endswith(".json")


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


class _Search(BaseModel):
    """What search.json must hold of the results of a deployment."""

    levers: list[dict[str, Any]] = []
    notes: list[str] = []


def read_pruning(folder: Path) -> dict[str, Any]:
    """Return levers and notes of the search, whose networks are not kept.

    Raises:
        FileError: the file is damaged.
    """
    path = folder / stages.SEARCH
    try:
        return _Search.model_validate_json(require_file(path, "file of a deployment").read_bytes()).model_dump()
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise FileError(f"file '{path}': is damaged ({why}); run the deployment again with --fresh") from error


def _measure_pruning(folder: Path, task: Task) -> dict[str, Any]:
    """Return the widths, from the networks themselves, beside what the search noted."""
    return {"widths": measure_widths(task.network(stages.DENSE), task.network(stages.PRUNED)), **read_pruning(folder)}


def _derive_adaptation(place: Path, task: Task, data: str | os.PathLike[str] | Dataset) -> dict[str, Any]:
    """Return what was replaced, with the accuracies of the trained network and of the one that was deployed."""
    facts = read_adaptation(place)
    assert facts is not None
    trained, test, settings = api.load(place / TRAINED), task.test, task.settings
    if trained.input_shape != task.inputs.network.input_shape:  # the host sums what the deployed network takes
        test = api.data(data, trained, seed=settings.seed, steps=settings.steps, encoding=settings.encoding).test
    accuracy = {
        "trained": evaluate(trained, test).accuracy,
        "adapted": evaluate(api.load(place / stages.DENSE), task.test).accuracy,
    }
    return {**facts, "accuracy": {**facts["accuracy"], **accuracy}}


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
        "accuracy": float(np.mean(decide(run.output) == part.y)),
        "spikes_compared": sum(layer.compared for layer in compared if layer.what == "spikes"),
    }


# ------------------------------------------------------------------------------------------------------------ comparison


def compare_with_derived(folder: Path, derived: Derived | None, failures: _Failures | None = None) -> Verification:
    """Return what in a folder differs from the derived results, and from its own digests."""
    failures, notes = failures or _Failures(), []
    _check_digests(folder, failures)
    same_code = json.loads((folder / PROVENANCE).read_text(encoding="utf-8")).get("code") == hash_code()
    if not same_code:
        notes.append("the deployment was written by other code: its page is held by its digest alone")
    if derived is not None:
        for name, content in derived.files.items():
            _compare_json(folder, name, content, failures)
        for name, arrays in derived.arrays.items():
            _compare_arrays(folder, name, arrays, failures)
        for name, digest in derived.digests.items():
            failures.checked += 1
            if not (folder / name).is_file() or hash_file(folder / name) != digest:
                failures.add(name, "content", "differs", "another file is derived")
    if same_code:
        _compare_page(folder, failures)
    return Verification(
        folder=folder,
        checked=failures.checked,
        lava_samples=0 if derived is None else derived.lava_samples,
        failures=tuple(failures.rows),
        notes=tuple(notes),
    )


def _check_digests(folder: Path, failures: _Failures) -> None:
    """Compare every file with the digests that provenance.json and stages.json state."""
    provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    known, edited = read_stages(folder / STAGES)
    for name in edited:
        failures.add(STAGES, name, "its digest", "another digest")
    if RESULT not in known and not edited:
        failures.add(STAGES, RESULT, "missing or damaged", "digests of the results")
    digests = provenance["sha256"]
    if not isinstance(digests, dict):
        failures.add(PROVENANCE, "sha256", digests, "a digest for each file")
        digests = {}
    stated = [(PROVENANCE, name, digest) for name, digest in digests.items()]
    stated += [(STAGES, file, digest) for stage in known.values() for file, digest in stage.files.items()]
    for holder, name, digest in stated:
        failures.checked += 1
        actual = _hash_if_there(folder / name)
        if actual != digest:
            failures.add(name, f"digest in {holder}", digest, actual)
    deployment = json.loads((folder / DEPLOYMENT).read_text(encoding="utf-8"))
    seconds = deployment.get("seconds")
    sane = isinstance(seconds, dict) and all(isinstance(s, int | float) and math.isfinite(s) and s >= 0 for s in seconds.values())
    for name, stage in known.items():
        if name != RESULT and not (sane and seconds.get(name) == stage.seconds):
            failures.add(DEPLOYMENT, f"seconds.{name}", seconds.get(name) if sane else seconds, stage.seconds)


def _hash_if_there(path: Path) -> str:
    try:
        return hash_file(path) if path.is_file() else "missing"
    except OSError as error:  # a name that no file can have, or one that must not be read
        return f"unreadable ({error.strerror})"


def _compare_json(folder: Path, name: str, derived: Any, failures: _Failures) -> None:
    try:
        stated = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        failures.add(name, "", f"cannot be read ({type(error).__name__})", "a JSON file")
        return
    left_out: tuple[str, ...] = ()
    if name == DEPLOYMENT:
        left_out = (*NOT_DERIVED, *(key for key in ADDED_LATER if isinstance(stated, dict) and key not in stated))
    elif name == PROVENANCE:
        left_out = OF_THIS_MACHINE
    elif name.endswith("certificate.json"):
        left_out = OF_VERSIONS
    if isinstance(stated, dict):
        stated, derived = ({k: v for k, v in value.items() if k not in left_out} for value in (stated, derived))
    failures.compare(name, stated, derived)


def _compare_arrays(folder: Path, name: str, derived: Mapping[str, Any], failures: _Failures) -> None:
    try:
        stated = read_arrays(folder / name)
    except FileError as error:
        failures.add(name, "", str(error), "a file of arrays")
        return
    for key in sorted({*stated, *derived}):
        failures.checked += 1
        if key not in stated or key not in derived:
            failures.add(name, key, "missing" if key not in stated else "there", "missing" if key not in derived else "there")
        elif stated[key].shape != derived[key].shape or not np.array_equal(stated[key], derived[key]):
            failures.add(name, key, *_first_difference(stated[key], derived[key]))


def _first_difference(stated: Any, derived: Any) -> Iterator[str]:
    if stated.shape != derived.shape:
        return iter((f"shape {stated.shape}", f"shape {derived.shape}"))
    place = tuple(int(n) for n in np.argwhere(stated != derived)[0])
    return iter((f"{stated[place]} at {place}", f"{derived[place]} at {place}"))


def _compare_page(folder: Path, failures: _Failures) -> None:
    """Render the page from the files again and compare it."""
    failures.checked += 1
    try:
        text = render_deployment(read_folder(folder))
        stated = (folder / REPORT).read_text(encoding="utf-8")
    except (SpearError, OSError, ValueError) as error:
        failures.add(REPORT, "", "a page of these files", str(error))
        return
    if text != stated:
        lines = enumerate(zip(stated.splitlines(), text.splitlines(), strict=False), 1)
        number, (ours, theirs) = next(((n, pair) for n, pair in lines if pair[0] != pair[1]), (0, ("more or fewer lines", "")))
        failures.add(REPORT, f"line {number}", ours.strip(), theirs.strip())
