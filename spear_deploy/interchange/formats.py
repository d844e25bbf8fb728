"""How do others read our networks, and we theirs?

`load` reads a network file by its ending, `export` writes one for another tool and proves it: the file is read back by a
reader of that tool's kind and run on the same input before it is put in place, and `certificate.json` beside it says how
that went.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.errors import FileError, UnsupportedError, did_you_mean
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.files import existing_file, write_json, written_aside

if TYPE_CHECKING:
    from spear_deploy.interchange.certificate import Format
    from spear_deploy.interchange.netx.lint import Finding
    from spear_deploy.network import Array
    from spear_deploy.norse.support_table import Support
    from spear_deploy.simulator import InputKind
    from spear_deploy.util.progress import Progress

READABLE = {".snn": "network", ".nir": "NIR", ".net": "netx", ".h5": "netx", ".hdf5": "netx"}
CERTIFICATE = "certificate.json"


def load(path: str | os.PathLike[str], **options: Any) -> SNNGraph:
    """Read a network file: `.snn` our own, `.nir`, `.net` or `.h5` netx.

    Args:
        path: the file.
        options: of the format's reader; those that are None are as if not given. NIR: `dt_s`, `reset`,
            `source`. netx: `input_shape`.

    Raises:
        FileError: missing, empty, truncated, foreign, with an ending that says no format, or an option it does not take.
        GraphError: what it holds contradicts itself.
        UnsupportedError: what it holds has no counterpart, by name.
    """
    source = existing_file(path, "network file")
    ending = source.suffix.lower()
    given = {name: value for name, value in options.items() if value is not None}
    if ending == ".onnx":
        raise FileError(f"file '{source}': ONNX files are written, not read as networks; give the .snn, .nir or .net file")
    if ending not in READABLE:
        known = ", ".join(READABLE)
        raise FileError(f"file '{source}': ending '{ending}' says no format, known are {known}{did_you_mean(ending, READABLE)}")
    for name in given:
        if name not in options_of(source):
            raise FileError(f"file '{source}': a {READABLE[ending]} file states its own {name}; leave the option out")
    if ending == ".snn":
        from spear_deploy.interchange.snn_file import read_snn

        return read_snn(source)
    if ending == ".nir":
        from spear_deploy.interchange.nir.reader import read_nir

        return read_nir(source, **given)
    from spear_deploy.interchange.netx.reader import read_netx

    return read_netx(source, **given)


def start_ahead(name: str) -> None:
    """Start what will read a file of this name in another process: it imports h5py while the caller imports its own needs."""
    if Path(name).suffix.lower() in READABLE and not name.endswith(".snn"):
        from spear_deploy.interchange.hdf5.reader_process import start_ahead as start

        start()


def lint(path: str | os.PathLike[str]) -> list[Finding]:
    """Say what in a netx file would break lava-dl's loader, or be taken for something else.

    Raises:
        FileError: missing, damaged, or no netx file.
    """
    source = existing_file(path, "netx file")
    if READABLE.get(source.suffix.lower()) != "netx":
        raise FileError(f"file '{source}': only netx files (.net, .h5) are for lava-dl's loader; export it to netx first")
    from spear_deploy.interchange.netx.lint import lint_netx

    return lint_netx(source)


def supported_modules() -> list[Support]:
    """Return what becomes of every public module class of `norse.torch` and `torch.nn`: (module, status, note) each."""
    from spear_deploy.norse.support_table import norse_support

    return norse_support()


def options_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the options that the reader of a file with this ending takes."""
    return {".nir": ("dt_s", "reset", "source"), ".snn": ()}.get(Path(path).suffix.lower(), ("input_shape",))


def export(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    *,
    to: Format,
    x: Array | None = None,
    kind: InputKind = "spikes",
    seed: int = 0,
    approximations: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network for another tool, with its certificate beside it.

    Neither is put in place unless the file was written, read back and run. Differences do not stop it: they are in the
    certificate.

    Args:
        graph: the network.
        path: the file; `certificate.json` goes into the same folder.
        to: "nir", "netx" or "onnx".
        x: (T, B, *input shape), the input of the comparison; None takes random input.
        kind: of `x`.
        seed: draws random input.
        approximations: what was approximated before, for the certificate.
        progress: is told what is done of writing and proving.
        options: of the format's writer. NIR: `placement`. netx: `round_bias`. ONNX: `scan`.

    Returns:
        The certificate.

    Raises:
        UnsupportedError: what the format cannot say, by layer, before anything is written.
        FileError: the place is not writable.
        DataError: the input does not fit the network.
    """
    from spear_deploy.interchange.certificate import certify

    target = Path(path)
    write = _writer(to)
    with written_aside(target) as aside:
        if progress is not None:
            progress({"stage": f"write {to}", "done": 0, "of": 0})
        found = [*approximations, *write(graph, aside, **options)]
        certificate = certify(graph, aside, to, x, kind, seed=seed, approximations=found, progress=progress)
        certificate["file"] = target.name
        write_json(target.parent / CERTIFICATE, certificate)
    return certificate


def _writer(to: Format) -> Any:
    if to == "nir":
        from spear_deploy.interchange.nir.writer import write_nir

        return write_nir
    if to == "netx":
        from spear_deploy.interchange.netx.writer import write_netx

        return write_netx
    if to == "onnx":
        from spear_deploy.interchange.onnx.model_file import write_onnx

        return write_onnx
    known = ("nir", "netx", "onnx")
    raise UnsupportedError(f"format '{to}': expected one of {', '.join(known)}{did_you_mean(str(to), known)}")
