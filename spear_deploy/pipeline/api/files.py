"""Files for other tools: written, proven and examined."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from spear_deploy.errors import ChipError, DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.pipeline.api.fits import check
from spear_deploy.pipeline.api.runs import compare
from spear_deploy.pipeline.inputs import (
    NETWORK_OPTIONS,
    Chip,
    Net,
    check_options,
    load,
    profile,
    quantize_for_chip,
    split_options,
)
from spear_deploy.simulator import InputKind
from spear_deploy.util.number_format import plural, unit_noun
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.hardware.schema import HardwareProfile
    from spear_deploy.interchange.certificate import ProofInput
    from spear_deploy.interchange.netx.lint import LintFinding
    from spear_deploy.placement.place import Placement

CHIPS_OF_FORMATS = {"xylo": "xylo_audio2", "speck": "speck2f", "pynn": "spinnaker1"}
"""By format of a chip's own tool, the chip where none is named."""
INTEGERS_OF_FORMATS = {"xylo": "XyloLIF", "speck": "SpeckIF"}
"""By format of a file of integers, the neurons that it holds."""
FAMILIES_OF_FORMATS = {"xylo": "xylo", "speck": "speck", "pynn": "spinnaker"}
"""By format of a chip's own tool, the family of its chips."""


def choose_format(chip: Chip) -> tuple[str, str, Literal["integers", "adapted"]]:
    """Return the format of the file that a chip's own tool loads, NIR where there is none, its ending, and what it is made of.

    >>> choose_format("speck2f"), choose_format("loihi2")
    (('speck', '.json', 'integers'), ('nir', '.nir', 'adapted'))
    """
    from spear_deploy.interchange.formats import CHIP_ENDINGS, ENDINGS

    family = profile(chip).meta.family
    to = next((name for name, of in FAMILIES_OF_FORMATS.items() if of == family), None)
    if to is None:
        return "nir", ENDINGS["nir"][0], "adapted"
    return to, CHIP_ENDINGS[to], "integers" if to in INTEGERS_OF_FORMATS else "adapted"


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """Findings in a netx file.

    Attributes:
        file: as given.
        findings: in the order of the file.
    """

    file: str
    findings: tuple[LintFinding, ...]

    def __repr__(self) -> str:
        """Return one line without the findings, for notebooks and lists."""
        loads = "loads" if self.loads else "does not load"
        return f"LintReport('{self.file}': {loads} in lava-dl, {plural(len(self.findings), 'finding')})"

    @property
    def loads(self) -> bool:
        """Whether lava-dl's loader can read the file."""
        return not any(finding.breaks for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"file": self.file, "loads": self.loads, "findings": [finding.to_json() for finding in self.findings]}


def lint(path: str | os.PathLike[str]) -> LintReport:
    """Find everything in a netx file that breaks lava-dl's loader.

    Raises:
        FileError: the file cannot be read, or is of another format.
    """
    from spear_deploy import interchange

    return LintReport(file=os.fspath(path), findings=tuple(interchange.lint(path)))


def export(
    net: Net,
    path: str | os.PathLike[str],
    *,
    to: Literal["nir", "netx", "onnx", "xylo", "speck", "pynn"],
    x: Array | None = None,
    kind: InputKind = "spikes",
    chip: Chip | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network for other tools, read it back with an independent reader, run both, and return the certificate.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
            netx, Xylo and Speck hold integers only: a floating-point network is quantised for `chip`
            first. PyNN takes floating-point networks alone.
        path: the file; `certificate.json` is written beside it, and for PyNN the `.npz` that the script reads.
        to: "nir", "netx", "onnx", "xylo", "speck" or "pynn".
        x: the input of the proof, (T, B, *input); random input unless given.
        kind: of `x`.
        chip: netx: whose integers, loihi2 unless given. Xylo, Speck, PyNN: the chip, xylo_audio2, speck2f or spinnaker1 unless
            given. NIR: whose cores go into the metadata, none unless given.
        progress: is called with the progress of writing and proving.
        options: `seed` of the random input (0); for ONNX `scan`: one node over a whole sequence in place of a step with states in
            and out; for NIR `framework`, for whose own importer the file is written ("snntorch", "spikingjelly", "sinabs",
            "rockpool", "norse"; the certificate's `after_import` is what to run there); for Xylo, Speck and PyNN `force`: write a
            network that does not fit, with what breaks in the certificate; and those of `load`.

    Returns:
        The certificate: `mismatches`, `first_difference` (None where all is equal), `reader`, `file`, `approximations`, ...
        (`interchange.certificate.certify`).

    Raises:
        UnsupportedError: the format or the framework has no form for a part of the network, by layer; `scan` for another format
            than ONNX, `framework` for another than NIR, a chip for ONNX; a network that does not fit the chip of a Xylo, Speck or
            PyNN file, or integers of another chip.
        TypeError: there is no such option.
    """
    from spear_deploy import interchange
    from spear_deploy.interchange.certificate import ProofInput

    check_options(options, ("seed", "scan", "force", "framework", *NETWORK_OPTIONS), "export")
    _refuse_options(to, chip, options)
    reading, options = split_options(options, NETWORK_OPTIONS)
    graph, proof = load(net, **reading), ProofInput(x=x, kind=kind, seed=options.get("seed", 0))
    details: dict[str, Any] = {name: options[name] for name in ("scan", "framework") if options.get(name)}
    if to == "xylo" or to == "speck" or to == "pynn":
        return _export_to_chip(graph, path, to, chip or CHIPS_OF_FORMATS[to], proof, progress, force=bool(options.get("force")))
    if to == "netx":
        graph, proof, details["approximations"] = _quantize_for_netx(graph, proof, chip)
    if to == "nir" and chip is not None:
        details["placement"] = _place_own_numbers(graph, chip)
    return interchange.export(graph, path, to=to, proof=proof, progress=progress, **details)


def _refuse_options(to: str, chip: Chip | None, options: Mapping[str, Any]) -> None:
    """Refuse a format that is not written, and options that have no effect on a format."""
    from spear_deploy.interchange.certificate import REFUSED_FORMATS

    if to in REFUSED_FORMATS:
        raise UnsupportedError(f"export to {to}: {REFUSED_FORMATS[to]}")
    if options.get("scan") and to != "onnx":
        raise UnsupportedError(f"export to {to}: scan is a form of ONNX alone; leave it out")
    if to == "onnx" and chip is not None:
        raise UnsupportedError(
            "export to onnx: an ONNX file is of no chip; leave the chip out, or give the quantised network to write its integers"
        )
    if options.get("framework") and (to != "nir" or chip is not None):
        what = f"its importer reads NIR, not {to}" if to != "nir" else "its importer knows no cores of a chip"
        raise UnsupportedError(f"export for {options['framework']}: {what}; write NIR without a chip")


def _quantize_for_netx(graph: SNNGraph, proof: ProofInput, chip: Chip | None) -> tuple[SNNGraph, ProofInput, list[str]]:
    """Return the integers of a Loihi chip, their own where the network has them, the input of their proof, and approximations.

    Raises:
        UnsupportedError: the network has integers of Loihi, and the chip is another one.
    """
    if find_chip_format(graph) != "loihi":
        return _quantize_for_file(graph, proof, chip or "loihi2")
    if chip is not None and (target := profile(chip)).meta.family != "loihi":
        raise UnsupportedError(
            f"export to netx: the network is quantised for loihi, numbers of {target.name} differ; name a loihi chip"
        )
    return graph, proof, []


def _place_own_numbers(graph: SNNGraph, chip: Chip) -> Placement:
    """Return the cores of a chip for the metadata of a NIR file; a network of another chip's integers is refused."""
    from spear_deploy.placement.place import place
    from spear_deploy.quantize.for_chip import require_own_numbers

    target = profile(chip)
    require_own_numbers(graph, target)
    return place(graph, target)


def _export_to_chip(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    to: Literal["xylo", "speck", "pynn"],
    chip: Chip,
    proof: ProofInput,
    progress: Progress | None,
    *,
    force: bool,
) -> dict[str, Any]:
    """Check a network against a chip, and write and prove what the chip's own tool loads: integers, for PyNN real numbers.

    Raises:
        UnsupportedError: the network does not fit, it holds integers of another chip, or the chip is of another family.
        DataError: the input has spikes that the chip's tool cannot send.
    """
    from spear_deploy import interchange

    target = profile(chip)
    require_exportable(graph, to, target, proof)
    report = check(graph, target)
    breaks = _list_breaks(report)
    if breaks and not force:
        adapts = any(note.startswith("adapt: ") and "` replaces what " in note for note in report.notes)
        raise ChipError(
            f"export to {to}: the network does not fit {target.name} ({'; '.join(breaks)}); make it fit, as check says, or force "
            "the export",
            adapting=f"NET --chip {target.name} --data DATA" if adapts else "",
        )
    approximations: list[str] = []
    if to == "pynn":
        from spear_deploy.interchange.pynn.document import limit_spikes

        approximations = [_note_rounding(graph, proof, target)]
        graph, sentences = limit_spikes(graph)
        approximations += sentences
    elif not graph.is_integer:
        graph, proof, approximations = _quantize_for_file(graph, proof, target)
    notes = [note.partition(": ")[2] for note in report.notes if note.startswith(("approximation: ", "pool: "))]
    approximations = [*approximations, *notes, *(f"does not fit {target.name}: {problem}" for problem in breaks)]
    details = {"cores": {part.layer: part.slot for part in report.placement.slices}} if to == "speck" else {}
    return interchange.export(
        graph, path, to=to, proof=proof, progress=progress, approximations=approximations,
        facts={"chip": target.name, "does_not_fit": breaks}, chip=target.name, **details,
    )  # fmt: skip


def require_exportable(graph: SNNGraph, to: str, target: HardwareProfile, proof: ProofInput) -> None:
    """Check that chip, network and input are of the kind that a chip's own tool takes, whatever the network's size.

    Raises:
        UnsupportedError: a chip of another family, integers of another chip, or integers or a current for PyNN.
        DataError: several spikes of an input in a step, for PyNN.
    """
    if target.meta.family != FAMILIES_OF_FORMATS[to]:
        raise UnsupportedError(
            f"export to {to}: profile '{target.name}' is of the {target.meta.family} family; name a "
            f"{FAMILIES_OF_FORMATS[to]} chip"
        )
    if to == "pynn" and (graph.is_integer or proof.kind == "current"):
        what = "the network holds integers" if graph.is_integer else "the input is a current"
        raise UnsupportedError(
            f"export to pynn: {what}, sPyNNaker takes real numbers, which it rounds itself, and spikes; give the floating-point "
            "network and its spikes"
        )
    if to == "pynn" and proof.x is not None and (proof.x > 1).any():
        raise DataError("export to pynn: several spikes of an input in a step, PyNN's sources send one; give an input of 0 and 1")
    if (held := find_chip_format(graph)) not in (None, FAMILIES_OF_FORMATS[to]):
        raise UnsupportedError(
            f"export to {to}: the network is quantised for {held}, numbers of {target.name} differ; give the floating-point "
            "network that it was made of"
        )


def _list_breaks(report: BudgetReport) -> list[str]:
    """Return in words each limit that a network exceeds, and each part that the chip lacks."""
    over = [row for row in report.rows if row.status == "over" and not (row.limit == 0 and report.unsupported)]
    exceeded = [
        f"{row.place}: {row.resource.replace('_', ' ')} {row.used or 0:,.0f} of {row.limit or 0:,.0f} "
        f"{unit_noun(row.unit, row.limit)}"
        for row in over
    ]
    return [*exceeded, *(f"{name_layers([finding.layer])}: {finding.what}: {finding.why}" for finding in report.unsupported)]


def _note_rounding(graph: SNNGraph, proof: ProofInput, chip: Chip) -> str:
    """Return a sentence on how far a chip's integers are from a network that its tool rounds."""
    _, _, (note,) = _quantize_for_file(graph, proof, chip)
    return note.replace("the integers are written", "real numbers are written, which the chip rounds; rounded as `simulate` does")


def _quantize_for_file(graph: SNNGraph, proof: ProofInput, chip: Chip) -> tuple[SNNGraph, ProofInput, list[str]]:
    """Return the integers of a network, the input of their proof, and a sentence on their distance from the network."""
    from spear_deploy.interchange.certificate import draw_input

    proof = draw_input(graph, proof)
    x, kind = proof.x, proof.kind
    assert x is not None
    integer = quantize_for_chip(graph, chip, calibration=x, kind=kind)
    if kind == "current":
        from spear_deploy.quantize import quantize_input

        note = "the integers are written, not the floating-point network; 'compare' says how far they differ"
        return integer, replace(proof, x=quantize_input(integer, x, kind)), [note]
    different = sum(row.mismatches for row in compare(graph, integer, x, kind=kind) if row.what == "spikes")
    note = f"the integers are written: {different} spikes differ from those of the floating-point network on this input"
    return integer, proof, [note]
