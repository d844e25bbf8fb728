"""The whole path in one function: trained network in; pruned, integer, proven and exported network out.

    dense ─► search + fine-tune ─► integers ─► Lava ─► verdict ─► files

Every choice is made on the training and validation splits. The test split is used to state results: the SynOps of the
dense network there define what a budget in per cent means, and the finished network is held against that budget there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spear_deploy import comparison, simulator, verbs
from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.errors import BudgetError, DataError, UnsupportedError
from spear_deploy.files import write_json
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.quantize import graded
from spear_deploy.training import Evaluation, decide, digits_network, evaluate, train

if TYPE_CHECKING:
    from spear_deploy.budget import BudgetReport
    from spear_deploy.profile import HardwareProfile
    from spear_deploy.search import PrunedResult

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What came out of the whole path.

    Attributes:
        chip: name of the profile.
        accuracy: {dense, pruned, quantised, lava}, shares of the test split; `lava` of the samples that ran there.
        synops: {dense, budget, achieved} per inference on the test split; achieved by the integer network.
        norse: {samples, spike_mismatches, spikes_compared}: Norse's cells against our simulator, on the dense network.
        lava: {samples, spike_mismatches, value_mismatches, first_difference}: Lava against our simulator.
        report: the verdict.
        widths: {group: [channels before, after]}.
        files: what was written, relative to the output folder.
        seconds: wall time by stage.
        notes: sentences on what was assumed or could not be met.
    """

    chip: str
    accuracy: dict[str, float]
    synops: dict[str, float]
    norse: dict[str, Any]
    lava: dict[str, Any]
    report: BudgetReport
    widths: dict[str, list[int]]
    files: dict[str, str]
    seconds: dict[str, float]
    seed: int
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the verdict's own numbers at the top."""
        report = self.report.to_json()
        return {
            "chip": self.chip,
            "seed": self.seed,
            "accuracy": self.accuracy,
            "synops": self.synops,
            "norse": self.norse,
            "lava": self.lava,
            "verdict": report["verdict"],
            "cores_used": report["cores_used"],
            "cores_limit": report["cores_limit"],
            "energy": report["energy"],
            "latency_s": report["latency_s"],
            "widths": self.widths,
            "files": self.files,
            "seconds": self.seconds,
            "notes": self.notes,
        }


class _Clock:
    """Wall seconds by stage."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress({"stage": name, "done": 0, "of": 0})
        begin = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begin, 3)


def demo(
    *,
    chip: verbs.Chip = "loihi2",
    out: str | os.PathLike[str] = "demo",
    seed: int = 0,
    synops: str | float = "50%",
    progress: Progress | None = None,
) -> Deployment:
    """Train a small convolutional network on scikit-learn's digits and take it through the whole path."""
    clock = _Clock(progress)
    with clock.stage("train"):
        dataset = load_data("digits", seed=seed)
        dense = train(digits_network(seed), dataset, seed=seed, progress=progress)
    return deploy(dense, chip, dataset, out=out, synops=synops, seed=seed, progress=progress, _seconds=clock.seconds)


def deploy(
    net: verbs.Net,
    chip: verbs.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: str | float = "50%",
    method: str = "spear",
    seed: int = 0,
    lava_samples: int | None = None,
    progress: Progress | None = None,
    _seconds: dict[str, float] | None = None,
) -> Deployment:
    """Prune a network to a SynOps budget, quantise it for a chip, prove it on Lava, check it and export it.

    Args:
        net, chip: see `verbs`.
        data: a built-in name, a file, or a `Dataset`.
        out: folder for the files; made if missing. Files of an earlier run are replaced, each as a whole.
        synops: "50%" of the dense network's SynOps on the test split, or SynOps per inference.
        method: the searcher.
        seed: of everything random.
        lava_samples: how many test samples run on Lava; all unless given.
        progress: is told what is being done.

    Raises:
        SpearError: whatever cannot go on, in one sentence; files of finished stages stay.
    """
    from spear_deploy.lava_backend.plan import plan

    clock = _Clock(progress)
    clock.seconds |= _seconds or {}
    folder = Path(out)
    target, dense, dataset = _checked_start(net, chip, data, synops, seed)
    plan(verbs.for_chip(dense, target))  # what Lava cannot run is said now
    files: dict[str, str] = {}

    with clock.stage("evaluate"):
        dense_test = evaluate(dense, dataset.test)
        norse = run_on_norse(dense, dataset.test)
        budget = budget_from(synops, dense_test.synops.total)
        files["dense"] = _save(dense, folder, "dense.snn")
    with clock.stage("prune"):
        pruned = _pruned(dense, dataset, budget, method, seed, target, progress)
        files["pruned"] = _save(pruned.graph, folder, "pruned.snn")
        files["search"] = "search.json"
        write_json(folder / "search.json", pruned.to_json())
    with clock.stage("quantise"):
        integer = integers(pruned.graph, target, dataset)
        files["quantised"] = _save(integer, folder, "quantised.snn")
        test = graded_split(integer, dataset.test)
        float_test, integer_test = evaluate(pruned.graph, dataset.test), evaluate(integer, test)
    with clock.stage("lava"):
        lava = run_on_lava(integer, test, lava_samples)
        files["recording"] = "lava.json"
        write_json(folder / "lava.json", lava)
    with clock.stage("check"):
        from spear_deploy.budget import check

        report = check(integer, target, synops=budget, activity=integer_test.counts)
        files["check"] = "check.json"
        write_json(folder / "check.json", report.to_json())
    with clock.stage("export"):
        exported, refused = export_all(pruned.graph, integer, folder, dataset.test, test)
        files |= exported

    notes = [*pruned.notes, *refused]
    if integer_test.synops.total > budget:
        notes.append(f"SynOps on the test split are {integer_test.synops.total:.0f}, above the budget of {budget:.0f}")
    result = Deployment(
        chip=target.name,
        seed=seed,
        accuracy={
            "dense": dense_test.accuracy,
            "pruned": float_test.accuracy,
            "quantised": integer_test.accuracy,
            "lava": lava["accuracy"],
        },
        synops={"dense": dense_test.synops.total, "budget": budget, "achieved": integer_test.synops.total},
        norse=norse,
        lava={name: value for name, value in lava.items() if name != "accuracy"},
        report=report,
        widths=pruned.widths,
        files={**files, "deployment": "deployment.json"},
        seconds=clock.seconds,
        notes=notes,
    )
    write_json(folder / "deployment.json", result.to_json())
    return result


def prune(
    net: verbs.Net,
    chip: verbs.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: str | float = "50%",
    method: str = "spear",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prune a network to a SynOps budget and write `pruned.snn`, `search.json` and `plan.json`.

    Arguments are those of `deploy`.

    Returns:
        {accuracy, synops, widths, files, notes}, measured on the test split.
    """
    folder = Path(out)
    target, dense, dataset = _checked_start(net, chip, data, synops, seed)
    before = evaluate(dense, dataset.test)
    budget = budget_from(synops, before.synops.total)
    pruned = _pruned(dense, dataset, budget, method, seed, target, progress)
    after = evaluate(pruned.graph, dataset.test)
    files = {"pruned": _save(pruned.graph, folder, "pruned.snn"), "search": "search.json", "plan": "plan.json"}
    write_json(folder / "search.json", pruned.to_json())
    write_json(folder / "plan.json", pruned.plan.to_json())
    return {
        "accuracy": {"dense": before.accuracy, "pruned": after.accuracy},
        "synops": {"dense": before.synops.total, "budget": budget, "achieved": after.synops.total},
        "widths": pruned.widths,
        "files": files,
        "notes": pruned.notes,
    }


def _checked_start(
    net: verbs.Net, chip: verbs.Chip, data: str | os.PathLike[str] | Dataset, synops: str | float, seed: int
) -> tuple[HardwareProfile, SNNGraph, Dataset]:
    """Return profile, network and data, after whatever can be wrong with them has been found: before hours are spent."""
    budget_from(synops, 1.0)
    target, dense = verbs.profile(chip), verbs.load(net)
    if dense.is_integer:
        raise UnsupportedError(
            "an integer network can be neither searched nor fine-tuned; give the floating-point network it was made of"
        )
    dataset = load_data(data, seed=seed, input_shape=dense.input_shape)
    dataset.check(dense.input_shape, int(np.prod(dense.shape_of(dense.output))))
    verbs.for_chip(dense, target)
    return target, dense, dataset


def budget_from(wanted: str | float, dense: float) -> float:
    """Return SynOps per inference for "50%", "1200" or a number.

    >>> budget_from("50%", 1000.0), budget_from("300", 1000.0)
    (500.0, 300.0)
    """
    text = str(wanted).strip()
    try:
        value = float(text.removesuffix("%")) * (dense / 100 if text.endswith("%") else 1)
    except ValueError:
        raise BudgetError(f"synops budget '{wanted}': expected a number of SynOps or a share such as 50%") from None
    if not (np.isfinite(value) and value > 0):
        raise BudgetError(f"synops budget '{wanted}': expected more than 0")
    return value


def _pruned(
    dense: SNNGraph, dataset: Dataset, budget: float, method: str, seed: int, target: Any, progress: Progress | None
) -> PrunedResult:
    """Prune until the *integer* network is within the budget on validation: that is what will run."""
    from spear_deploy.search import prune_to_budget

    def measure(graph: SNNGraph) -> Evaluation:
        integer = integers(graph, target, dataset)
        return evaluate(integer, graded_split(integer, dataset.val))

    return prune_to_budget(dense, dataset, synops_budget=budget, method=method, seed=seed, measure=measure, progress=progress)


def integers(graph: SNNGraph, target: verbs.Chip, dataset: Dataset) -> SNNGraph:
    """Return the integer network; the training split says which scales overflow no state."""
    x = np.moveaxis(dataset.train.x[:256], 0, 1)
    return verbs.for_chip(graph, target, calibration=x, kind=dataset.kind)


def graded_split(integer: SNNGraph, split: Split) -> Split:
    """Return a split in the form that the integer network takes."""
    return Split(x=graded(integer, split.x, split.kind), y=split.y, kind=split.kind)


def run_on_norse(graph: SNNGraph, split: Split) -> dict[str, Any]:
    """Run samples through Norse's own cells and on our simulator, and compare every spike of every layer.

    Both sum in float32, in different orders: where a membrane meets its threshold to the last bit, they may decide
    differently. Such ties are what `spike_mismatches` counts.
    """
    import torch

    from spear_deploy.interchange.norse_network import to_norse

    x = np.moveaxis(split.x, 0, 1)
    ours = simulator.simulate(graph, x, kind=split.kind, record=("spikes",))
    with torch.no_grad():
        _, theirs = to_norse(graph).eval()(torch.from_numpy(x.astype(np.float32)), record=True)
    found = [comparison.compare_arrays(name, spikes, theirs[name].numpy() > 0) for name, spikes in ours.spikes.items()]
    return {
        "samples": len(split),
        "spike_mismatches": sum(layer.mismatches for layer in found),
        "spikes_compared": sum(layer.compared for layer in found),
    }


def run_on_lava(integer: SNNGraph, split: Split, samples: int | None = None) -> dict[str, Any]:
    """Run samples as Lava processes and on our simulator, and compare every spike of every layer."""
    part = split if samples is None else split.head(samples)
    if not len(part):
        raise DataError("there is no test sample to run on Lava; give at least one")
    x = np.moveaxis(part.x, 0, 1)
    ours = simulator.simulate(integer, x, kind=part.kind, record=("spikes",))
    theirs = verbs.simulate(integer, x, kind=part.kind, backend="lava", record=("spikes",))
    found = comparison.compare_runs(ours, theirs, [(name, name) for name in ours.spikes])
    first = next((layer.to_json() for layer in found if layer.mismatches), None)
    return {
        "samples": len(part),
        "accuracy": float(np.mean(decide(theirs.output) == part.y)),
        "spike_mismatches": sum(layer.mismatches for layer in found if layer.what == "spikes"),
        "value_mismatches": sum(layer.mismatches for layer in found if layer.what == "value"),
        "spikes_compared": sum(layer.compared for layer in found if layer.what == "spikes"),
        "first_difference": first,
    }


def export_all(
    pruned: SNNGraph, integer: SNNGraph, folder: Path, float_split: Split, integer_split: Split
) -> tuple[dict[str, str], list[str]]:
    """Write NIR of the floating-point network, netx and ONNX of the integers, each with its certificate.

    Returns:
        (the files, relative to the folder; a sentence on each format that cannot hold the network, of which there is none).
    """
    x = np.moveaxis(float_split.x[:16], 0, 1)
    ints = np.moveaxis(integer_split.x[:16], 0, 1)
    files: dict[str, str] = {}
    refused: list[str] = []
    exports: tuple[tuple[Literal["nir", "netx", "onnx"], str, SNNGraph, Array], ...] = (
        ("nir", "nir", pruned, x),
        ("netx", "net", integer, ints),
        ("onnx", "onnx", integer, ints),
    )
    for to, suffix, graph, proof in exports:
        path = folder / to / f"network.{suffix}"
        try:
            certificate = verbs.export(graph, path, to=to, x=proof, kind=float_split.kind)
        except UnsupportedError as error:
            refused.append(f"no {to} file: {error}")
            continue
        if certificate["mismatches"]:
            refused.append(f"{to} file: {certificate['mismatches']} values differ when it is read back; see its certificate")
        files[to] = str(path.relative_to(folder))
        files[f"{to}_certificate"] = str((path.parent / "certificate.json").relative_to(folder))
    return files, refused


def _save(graph: SNNGraph, folder: Path, name: str) -> str:
    from spear_deploy.interchange.snn_file import write_snn

    write_snn(graph, folder / name)
    return name
