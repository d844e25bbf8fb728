"""Verification of a deployment: every figure derived again from its files.

Nothing that the folder states is believed. From the dense and the pruned network, the data and the chip all results are computed
again, by the functions that computed them first, into a temporary folder; then each file is compared with the derived one:

    digests         of all files (provenance.json), of the stages (stages.json), of network, data and chip
    figures         deployment.json, layers.json, check.json, cores.json: equal, value by value
    spikes          activity.npz and raster.npz, array by array; on Lava for a few samples, or all
    exports         the file of each format, of the chip's own tool too, and its certificate without versions and makers' runs
    search          search.json: widths, kept channels, use of the budget, first and last lever
    adaptation      adapt.json: accuracies, verdict, cores, energy, widths, first and last step
    stages          stages.json: the plain data of each stage
    page            report.html, rendered again from the files

Not derived, since what it was measured on is not kept: wall times; in search.json method, plans, rungs, estimator, epochs,
learning rate, evaluations and notes; levers and steps between the first and the last; where `trained.snn` came from. Digests hold
these alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spear_deploy.data import Dataset
from spear_deploy.errors import BackendError, FileError, MissingPackageError, SpearError
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.pipeline import api
from spear_deploy.pipeline.deploy import PROVENANCE
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.stages import DENSE
from spear_deploy.pipeline.verification.failures import Failures
from spear_deploy.pipeline.verification.files import compare_files
from spear_deploy.pipeline.verification.results import Derived, UnnamedDataError, derive
from spear_deploy.report.folder import NEEDED, read_json, read_network_digest, require_finished
from spear_deploy.util.number_format import plural
from spear_deploy.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `verify`.

    Attributes:
        folder: that was verified.
        checked: number of values and files that were compared.
        lava_samples: samples that ran on Lava again.
        failures: [{file, where, stated, derived, sentence}]: what does not hold.
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

    def __repr__(self) -> str:
        """Return one line without the failures, for notebooks and lists."""
        result = "all hold" if self.holds else f"{plural(len(self.failures), 'difference')}"
        return f"Verification('{self.folder}': {plural(self.checked, 'value')} compared, {result})"

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
        FileError: the folder holds no deployment, or the provenance is damaged, which names data and chip.
        DataError: the data is not named in the folder.
        SpearError: chip or data cannot be loaded, a package is missing, or Lava fails: nothing is known of the deployment.
    """
    place = require_finished(folder)
    provenance = read_json(place / PROVENANCE, NEEDED["provenance"])
    settings, sources = read_settings(provenance)
    problem = ""
    derived: Derived | None = None
    chosen_data = sources.get("data") if data is None else data
    chosen_chip = sources.get("chip", provenance["options"]["chip"]) if chip is None else chip
    try:
        derived = derive(place, settings=settings, data=chosen_data, chip=chosen_chip, full=full, progress=progress)
    except (UnnamedDataError, MissingPackageError, BackendError):
        raise
    except SpearError as error:
        with _ask_for("chip", "--chip", chip is None):
            api.resolve_chip(chosen_chip, settings.overrides or None)
        if read_network_digest(place) == _hash_network_file(place / DENSE):  # else it is the network that does not go with them
            assert chosen_data is not None  # its lack is an `UnnamedDataError`
            with _ask_for("data", "--data", data is None):
                _require_data(place / DENSE, chosen_data, settings)
        problem = str(error)
    return compare_with_derived(place, derived, problem)


@contextmanager
def _ask_for(what: str, option: str, is_named_by_folder: bool) -> Iterator[None]:
    """Add to an error about an input that the folder names the option that gives it: its place may be of another machine."""
    try:
        yield
    except SpearError as error:
        if is_named_by_folder:
            error.args = (f"{error}; or give the {what} of the deployment with {option}",)
        raise


def _require_data(network: Path, data: str | os.PathLike[str] | Dataset, settings: DeploySettings) -> None:
    """Check that the data can be loaded and go with the network of the deployment."""
    graph = api.load(network)
    dataset = api.data(data, graph, seed=settings.seed, steps=settings.steps, encoding=settings.encoding)
    dataset.check(graph.input_shape, count_classes(graph), read_decision(graph))


def _hash_network_file(path: Path) -> str | None:
    """Return the digest of a network; None where it cannot be read."""
    try:
        return hash_network(api.load(path))
    except SpearError:
        return None


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


def compare_with_derived(folder: Path, derived: Derived | None, problem: str = "") -> Verification:
    """Return what in a folder differs from the derived results, and from its own digests.

    Args:
        folder: of the deployment.
        derived: the results; None where they could not be derived.
        problem: why. It stands behind the files that are damaged, of which one may be the cause.
    """
    failures = Failures()
    notes = compare_files(folder, derived, failures)
    if problem:
        failures.add(str(folder), "inputs", "can be read and run", problem, f"cannot be read and run: {problem}")
    return Verification(
        folder=folder,
        checked=failures.checked,
        lava_samples=0 if derived is None else derived.lava_samples,
        failures=tuple(failures.rows),
        notes=tuple(notes),
    )
