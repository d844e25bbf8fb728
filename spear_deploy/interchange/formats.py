"""Reading network files by their ending, and export with proof.

`load` reads a network file by its ending. `export` writes one for another tool and proves it: before the file is put in place,
it is read back by a reader of that tool's kind and run on the same input. `certificate.json` beside it holds the result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spear_deploy.errors import FileError, UnsupportedError, did_you_mean
from spear_deploy.interchange.host_readout_file import write_host_readout
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.util.digests import hash_file
from spear_deploy.util.extras import require_packages
from spear_deploy.util.files import replace_file, require_file, write_json

if TYPE_CHECKING:
    from spear_deploy.frameworks.support_table import Support
    from spear_deploy.interchange.certificate import Format, ProofInput
    from spear_deploy.interchange.netx.lint import LintFinding
    from spear_deploy.interchange.nir.dialects import ImportAdvice
    from spear_deploy.interchange.nir.reader import Writer
    from spear_deploy.util.progress import Progress

READABLE = {".snn": "network", ".nir": "NIR", ".net": "netx", ".h5": "netx", ".hdf5": "netx"}
CERTIFICATE = "certificate.json"
ENDINGS = {"nir": (".nir",), "netx": (".net", ".h5", ".hdf5"), "onnx": (".onnx",)}
"""Endings of a format's files, the usual one first. A file may have any other that is of no format."""
CHIP_ENDINGS = {"xylo": ".npz", "speck": ".json", "pynn": ".py"}
"""Endings of files for the tools of single chips."""
BESIDE = {"xylo": (".json",), "pynn": (".npz",)}
"""Endings of the files that lie beside them."""


def load(path: str | os.PathLike[str], **options: Any) -> SNNGraph:
    """Read a network file: `.snn` (this package's format), `.nir`, or netx (`.net`, `.h5`, `.hdf5`).

    Args:
        path: the file.
        options: of the format's reader; None means its default. NIR: `dt_s`, `reset`, `source`. netx: `input_shape`.

    Raises:
        FileError: missing, empty, truncated, foreign, with an unknown ending, or an option that its format does not take.
        GraphError: its contents contradict each other.
        UnsupportedError: a part of it has no counterpart, by name.
    """
    source = require_file(path, "network file")
    ending = source.suffix.lower()
    options = {name: value for name, value in options.items() if value is not None}
    if ending == ".onnx":
        raise FileError(f"file '{source}': ONNX files are written, not read as networks; give the .snn, .nir or .net file")
    if ending in (".pt", ".pth", ".ckpt", ".safetensors"):
        raise FileError(
            f"file '{source}': holds the weights of a model, not its layers; name a function that builds the model and loads "
            "them, as in my_net:trained"
        )
    if ending == ".py":
        raise FileError(f"file '{source}': is Python; name a function in it that returns the model, as in {source.stem}:trained")
    if ending not in READABLE:
        known = ", ".join(READABLE)
        raise FileError(f"file '{source}': ending '{ending}' says no format, known are {known}{did_you_mean(ending, READABLE)}")
    for name in options:
        if name not in reader_options(source):
            raise FileError(f"file '{source}': a {READABLE[ending]} file states its own {name}; leave the option out")
    if ending == ".snn":
        from spear_deploy.interchange.snn_file import read_snn

        return read_snn(source)
    if ending == ".nir":
        from spear_deploy.interchange.nir.reader import read_nir

        return read_nir(source, **options)
    from spear_deploy.interchange.netx.reader import read_netx

    return read_netx(source, **options)


def start_ahead(name: str) -> None:
    """Start the HDF5 reader process if a file of this name needs it: it imports h5py while the caller imports other modules."""
    if Path(name).suffix.lower() in READABLE and not name.endswith(".snn"):
        from spear_deploy.util.hdf5.reader_process import start_ahead as start_reader_process

        start_reader_process()


def lint(path: str | os.PathLike[str]) -> list[LintFinding]:
    """Find what in a netx file breaks lava-dl's loader, or is loaded as something else.

    Raises:
        FileError: missing, damaged, or no netx file.
    """
    source = require_file(path, "netx file")
    if READABLE.get(source.suffix.lower()) != "netx":
        raise FileError(f"file '{source}': only netx files (.net, .h5) are for lava-dl's loader; export it to netx first")
    from spear_deploy.interchange.netx.lint import lint_netx

    return lint_netx(source)


def supported_modules() -> list[Support]:
    """Return the import status of every public module class of `norse.torch` and `torch.nn`: rows of module, status, note."""
    from spear_deploy.frameworks.support_table import norse_support

    return norse_support()


def states_steps(path: str | os.PathLike[str]) -> bool:
    """Return whether a network file states its time step and its reset, as those do that were written here."""
    return Path(path).suffix.lower() == ".snn" or _find_writer(path) != "another"


def states_answer(path: str | os.PathLike[str]) -> bool:
    """Return whether a network file states how outputs become a class; one that is written for a framework does not."""
    return Path(path).suffix.lower() == ".snn" or _find_writer(path) == "here"


def _find_writer(path: str | os.PathLike[str]) -> Writer:
    if Path(path).suffix.lower() != ".nir":
        return "another"
    from spear_deploy.interchange.nir.reader import find_writer

    return find_writer(path)


def reader_options(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the options of `load` for a file with this ending."""
    return {".nir": ("dt_s", "reset", "source"), ".snn": ()}.get(Path(path).suffix.lower(), ("input_shape",))


def export(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    *,
    to: Format,
    proof: ProofInput | None = None,
    approximations: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network for another tool, with its certificate beside it.

    Neither is put in place unless the file was written, read back and run. Differences do not stop it: they are in the
    certificate.

    Args:
        graph: the network.
        path: the file; `certificate.json` goes into the same folder.
        to: one of `certificate.FORMATS`.
        proof: input of the comparison; random unless given.
        approximations: what was approximated before, for the certificate.
        facts: further entries of the certificate.
        progress: called with the progress of writing and proving.
        options: of the format's writer. NIR: `placement`, or `framework`, for whose importer it is written. netx: `round_bias`.
            ONNX: `scan`. Xylo, PyNN: `chip`. Speck: `chip`, `cores`.

    Returns:
        The certificate; where the host integrates the outputs it names the file of what the host computes, `host_readout`, which
        is written beside it; with `framework` it has `for` and `after_import`, the lines of Python that the import asks for.

    Raises:
        UnsupportedError: the format has no form for a part of the network, by layer, before anything is written.
        FileError: the place is not writable, or the name does not end as the format's files do, or as those of another format.
        DataError: the input does not fit the network.
    """
    from spear_deploy.interchange.certificate import certify

    target = Path(path)
    check_file_name(target, to)
    write = _import_writer("dialect" if to == "nir" and "framework" in options else to)
    with replace_file(target.with_suffix(".npz") if to == "pynn" else target) as aside:
        if progress is not None:
            progress({"stage": f"write {to}", "done": 0, "of": 0})
        changed, advice = _read_advice(write(graph, aside, **options), options)
        certificate = certify(
            graph, aside, format=to, proof=proof, approximations=[*approximations, *changed],
            framework=options.get("framework"), progress=progress,
        )  # fmt: skip
        certificate |= {"file": target.name, **(facts or {}), **advice}
        certificate |= _write_beside(graph, aside, target, to, certificate)
        write_json(target.parent / CERTIFICATE, certificate)
    return certificate


def check_file_name(target: Path, to: str) -> None:
    """Refuse the name of a certificate, and the ending of another format, by which the file would be read.

    Raises:
        FileError: the name is one of these.
    """
    ending = CHIP_ENDINGS.get(to, target.suffix)
    if target.suffix != ending or (to in CHIP_ENDINGS and target.with_suffix(".json").name == CERTIFICATE):
        raise FileError(f"file '{target}': a file for {to} ends in {ending} and is not called certificate; choose another name")
    own, written = ENDINGS.get(to, (ending,)), target.suffix.lower()
    others = {**{end: f"a {name}" for end, name in READABLE.items()}, ".onnx": "an ONNX"}
    if target.name == CERTIFICATE or (written in others and written not in own):
        whose = "the certificate beside it" if target.name == CERTIFICATE else f"{others[written]} file by its ending"
        raise FileError(f"file '{target}': is {whose}, and {to} is written; choose a name that ends in {own[0]}")


def _read_advice(written: Sequence[str] | ImportAdvice, options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return what a writer approximated, and what a framework asks for after its import, for the certificate."""
    from spear_deploy.interchange.nir.dialects import ImportAdvice

    if not isinstance(written, ImportAdvice):
        return list(written), {}
    return list(written.differences), {"for": options["framework"], "after_import": list(written.statements)}


def _write_beside(graph: SNNGraph, aside: Path, target: Path, to: Format, certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a format and a readout on the host need beside the file, and return its entries of the certificate.

    Args:
        graph: the network.
        aside: the file as it was written, not yet in its place.
        target: its place; for PyNN that of the script which reads it.
        to: the format.
        certificate: of the file.
    """
    entries: dict[str, Any] = {}
    if to == "xylo":
        from spear_deploy.interchange.chip_files import describe_chip_file

        write_json(target.with_suffix(".json"), describe_chip_file(aside, to))
    if to == "pynn":
        from spear_deploy.interchange.pynn.reader import SCRIPT

        network = {**{name: certificate[name] for name in ("bytes", "sha256")}, "file": target.with_suffix(".npz").name}
        with replace_file(target) as script:
            script.write_bytes(SCRIPT.read_bytes())
            entries |= {"bytes": script.stat().st_size, "sha256": hash_file(script), "network": network}
    if has_host_readout(graph):
        entries["host_readout"] = write_host_readout(graph, target.parent)
    return entries


def _import_writer(to: Format | Literal["dialect"]) -> Any:
    if to == "dialect":
        from spear_deploy.interchange.nir.dialect_writer import write_dialect

        return write_dialect
    if to == "nir":
        from spear_deploy.interchange.nir.writer import write_nir

        return write_nir
    if to == "netx":
        from spear_deploy.interchange.netx.writer import write_netx

        return write_netx
    if to == "onnx":
        require_packages("onnx", "onnxruntime", user="export to ONNX")
        from spear_deploy.interchange.onnx.model_file import write_onnx

        return write_onnx
    if to == "xylo":
        from spear_deploy.interchange.xylo.writer import write_xylo

        return write_xylo
    if to == "speck":
        from spear_deploy.interchange.speck.document import write_speck

        return write_speck
    if to == "pynn":
        from spear_deploy.interchange.pynn.document import write_pynn

        return write_pynn
    known = ("nir", "netx", "onnx", "xylo", "speck", "pynn")
    raise UnsupportedError(f"format '{to}': expected one of {', '.join(known)}{did_you_mean(str(to), known)}")
