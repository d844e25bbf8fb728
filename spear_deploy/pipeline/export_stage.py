"""Export of a deployment: NIR, ONNX and the file of the chip's own tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.interchange.certificate import REFUSED_FORMATS, Format, ProofInput
from spear_deploy.interchange.chip_files import SIMULATORS, explain_no_simulator, has_simulator
from spear_deploy.interchange.formats import BESIDE, CERTIFICATE, CHIP_ENDINGS, ENDINGS
from spear_deploy.pipeline import api
from spear_deploy.pipeline.api.files import require_exportable
from spear_deploy.pipeline.preflight import LAVA_FAMILY, CheckedInputs, grade_split
from spear_deploy.pipeline.stage_cache import StageOutput
from spear_deploy.pipeline.stages import PRUNED, QUANTISED, Task

if TYPE_CHECKING:
    from spear_deploy.hardware.schema import HardwareProfile

SAMPLES = 16
"""Test samples that an exported file is proven with."""
MADE_OF: dict[Format, str] = {
    "nir": PRUNED, "netx": QUANTISED, "onnx": QUANTISED, "xylo": QUANTISED, "speck": QUANTISED, "pynn": PRUNED,
}  # fmt: skip
"""By format of a file, the network that is written into it."""
OWN_FORMATS: tuple[Format, ...] = tuple(to for to in MADE_OF if to in CHIP_ENDINGS)
"""Formats of the tools of single chips."""


def list_paths(to: Format) -> dict[str, str]:
    """Return the files of a format by kind, relative to the folder of a deployment; that which is loaded comes first.

    >>> list_paths("xylo")
    {'xylo': 'xylo/network.npz', 'xylo_json': 'xylo/network.json'}
    """
    ending = CHIP_ENDINGS[to] if to in CHIP_ENDINGS else ENDINGS[to][0]
    beside = {f"{to}_{other[1:]}": f"{to}/network{other}" for other in BESIDE.get(to, ())}
    return {to: f"{to}/network{ending}", **beside}


def choose_own_format(profile: HardwareProfile) -> Format | None:
    """Return the format that the chip's own tool loads, of Loihi netx; None where none is written here.

    >>> [choose_own_format(api.profile(name)) for name in ("loihi2", "xylo_audio3", "odin")]
    ['netx', 'xylo', None]
    """
    if profile.meta.family == LAVA_FAMILY:
        return "netx"
    name = api.choose_format(profile)[0]
    return next((to for to in OWN_FORMATS if to == name), None)


def describe_simulator(profile: HardwareProfile) -> dict[str, Any]:
    """Return whether the maker's simulator of the chip's files is installed: with it they are proven anew."""
    own = choose_own_format(profile)
    return {"simulator": has_simulator(own)} if own in SIMULATORS else {}


def export(task: Task) -> StageOutput:
    """Write NIR of the floating-point network, ONNX of the integers and what the chip's own tool loads, with certificates.

    The value is {files: relative to the folder, notes: a sentence for each format that cannot hold the network, failures: a
    sentence for each file that differs when it is read back, vendor: by format of a chip's own tool the values that differ when
    the maker's simulator runs the file, None where that is not installed}.
    """
    profile = task.inputs.profile
    own = choose_own_format(profile)
    value: dict[str, Any] = {"files": {}, "notes": [], "failures": [], "vendor": {}}
    if own is None:
        value["notes"].append(explain_no_own_file(profile))
    for to in MADE_OF:
        if to not in ("nir", own, "onnx"):
            continue
        try:
            certificate = _write(task, to)
        except UnsupportedError as error:
            value["notes"].append(f"no {to} file: {error}")
            continue
        if certificate["mismatches"]:
            value["failures"].append(f"the {to} file differs in {certificate['mismatches']:,} values when it is read back")
        value["files"] |= list_paths(to) | {f"{to}_certificate": f"{to}/{CERTIFICATE}"}
        if "host_readout" in certificate:
            value["files"][f"{to}_host_readout"] = f"{to}/{certificate['host_readout']}"
        if "vendor" in certificate:
            value["vendor"][to] = certificate["vendor"]["mismatches"]
    return StageOutput(files=tuple(value["files"].values()), value=value)


def _write(task: Task, to: Format) -> dict[str, Any]:
    """Write and prove one file on the first test samples, and return its certificate.

    Raises:
        UnsupportedError: the format cannot hold the network, the chip does not, or PyNN's sources cannot send the samples.
    """
    graph, samples = task.network(MADE_OF[to]), task.deployed.dataset.test.head(SAMPLES)
    split = grade_split(graph, samples) if graph.is_integer else samples
    chip = task.inputs.profile if to in OWN_FORMATS else None
    path, x = task.folder / list_paths(to)[to], np.moveaxis(split.x, 0, 1)
    try:
        return api.export(graph, path, to=to, x=x, kind=task.inputs.dataset.kind, chip=chip)
    except DataError as error:
        if to != "pynn":
            raise
        raise UnsupportedError(str(error)) from error


def explain_refusal(inputs: CheckedInputs) -> str:
    """Return why a network as it is has no file for the chip's own tool, in words; empty where it has one.

    That it does not fit is left out, since pruning changes that.
    """
    own = choose_own_format(inputs.profile)
    if own is None:
        return explain_no_own_file(inputs.profile)
    try:
        _require_form(inputs, own)
    except (UnsupportedError, DataError) as error:
        return f"no {own} file can be written of the network as it is: {error}"
    return ""


def _require_form(inputs: CheckedInputs, own: Format) -> None:
    """Build what a file of a chip's own tool would hold, without writing it.

    Raises:
        UnsupportedError: the format cannot hold the network.
        DataError: PyNN's sources cannot send the samples.
    """
    from spear_deploy.interchange.netx.writer import build_entries
    from spear_deploy.interchange.pynn.document import limit_spikes, require_neurons_of_pynn
    from spear_deploy.interchange.speck import document as speck
    from spear_deploy.interchange.xylo.arrays import build_arrays
    from spear_deploy.interchange.xylo.writer import ALL_READ

    graph, chip, samples = inputs.network, inputs.profile, inputs.dataset.test.head(SAMPLES)
    if own in OWN_FORMATS:
        require_exportable(graph, own, chip, ProofInput(x=samples.x, kind=samples.kind))
    if own == "pynn":
        require_neurons_of_pynn(limit_spikes(graph)[0])
        return
    integer = inputs.quantize(graph)
    if own == "netx":
        build_entries(integer, [])
    elif own == "speck":
        speck.build_document(integer, chip=chip.name, cores={})
    else:
        build_arrays(integer, all_read=chip.name in ALL_READ)


def explain_no_own_file(profile: HardwareProfile) -> str:
    """Return that this package writes no file for a tool of the chip, and what holds its integers."""
    refused = REFUSED_FORMATS.get(profile.meta.family)
    why = f": {refused}" if refused else f"; {QUANTISED} holds its integers"
    return f"no file of a tool of {profile.name} is written here{why}"


def list_own_kinds(to: Format) -> tuple[str, ...]:
    """Return the kinds of all files of a chip's own tool, with their certificate.

    >>> list_own_kinds("pynn")
    ('pynn', 'pynn_npz', 'pynn_certificate')
    """
    return (*list_paths(to), f"{to}_certificate")


def is_about_missing_file(note: str) -> bool:
    """Return whether a note of a deployment says that a file was not written, or that its maker's simulator did not run it.

    >>> [is_about_missing_file(note) for note in ("no speck file: the network does not fit", "SynOps are above the budget")]
    [True, False]
    """
    starts = (*(f"no {to} file: " for to in MADE_OF), *(f"{list_paths(to)[to]}: " for to in OWN_FORMATS))
    return note.startswith(("no file of a tool of ", *starts))


def list_missing_simulators(vendor: Mapping[str, int | None]) -> list[str]:
    """Return for each file of a chip's own tool that the maker's simulator did not run why, and what to do."""
    return [f"{list_paths(to)[to]}: {explain_no_simulator(to)}" for to, differ in _known(vendor) if differ is None]


def list_vendor_failures(vendor: Mapping[str, int | None]) -> list[str]:
    """Return a sentence for each file of a chip's own tool that the maker's simulator runs otherwise."""
    return [
        f"the {to} file differs in {differ:,} values when {SIMULATORS[to]} runs it" for to, differ in _known(vendor) if differ
    ]  # fmt: skip


def keep_vendor_runs(derived: Mapping[str, int | None], stated: Any) -> dict[str, int | None]:
    """Return the runs by makers' simulators of a verification; where only one of both ran a file, what is stated.

    A run that finds a difference is kept, also where the deployment had none.

    Args:
        derived: of the verification.
        stated: of the deployment, perhaps damaged.
    """
    known = stated if isinstance(stated, dict) else {}

    def choose(to: str, differ: int | None) -> int | None:
        other = known.get(to)
        is_alone = type(other) is int if differ is None else differ == 0 and to in known and other is None
        return other if is_alone else differ

    return {to: choose(to, differ) for to, differ in derived.items()}


def list_unrepeated_runs(vendor: Mapping[str, int | None]) -> list[str]:
    """Return a sentence for each file that the maker's simulator ran for the deployment and cannot run here."""
    return [
        f"{list_paths(to)[to]}: its run by {SIMULATORS[to]}, which is not installed here, is held by digests alone"
        for to, differ in _known(vendor)
        if differ is not None and not has_simulator(to)
    ]


def _known(vendor: Mapping[str, int | None]) -> list[tuple[Any, int | None]]:
    return [(to, differ) for to, differ in vendor.items() if to in SIMULATORS]
