"""What goes into a run and comes out of it, as a file?

An input file is an `.npz` with `spikes` or `current`, (T, B, *input). A recording is an `.npz` with `<layer>.spikes`,
`<layer>.v`, `<layer>.u` (T, B, *shape) in the graph's own time, `output`, and the input as `input.spikes` or `input.current`.
"""

from __future__ import annotations

import os
import zlib
from zipfile import BadZipFile, ZipFile

import numpy as np

from spear_deploy.errors import DataError, FileError
from spear_deploy.files import existing_file, written_aside
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import Array
from spear_deploy.simulator import ChipRun, InputKind, SpikeCounts, check_input, counted


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of an `.npz`. Pickled objects are refused, and so is a header that claims more than the file holds.

    Raises:
        FileError: missing, empty, truncated or foreign.
    """
    source = existing_file(path, "file of arrays (.npz)")
    try:
        with ZipFile(source) as archive:
            for member in archive.infolist():
                if member.file_size > 1100 * max(member.compress_size, 1):
                    raise FileError(
                        f"file '{source}': '{member.filename}' claims {member.file_size} bytes, more than it can hold"
                    )
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        raise FileError(
            f"file '{source}': cannot be read as .npz of plain arrays ({error}); write it with numpy.savez"
        ) from error


def read_input(path: str | os.PathLike[str], graph: SNNGraph) -> tuple[Array, InputKind]:
    """Return (input (T, B, *input), its kind) of an input file.

    Raises:
        FileError: the file cannot be read.
        DataError: it holds neither or both of `spikes` and `current`, or they do not fit the network.
    """
    arrays = read_arrays(path)
    kinds: list[InputKind] = ["spikes", "current"]
    found = [kind for kind in kinds if kind in arrays]
    if len(found) != 1:
        held = _listed(arrays)
        raise DataError(f"file '{path}': holds {held}, expected either 'spikes' or 'current', (T, B, *input)")
    try:
        return check_input(graph, arrays[found[0]], found[0]), found[0]
    except DataError as error:
        raise DataError(f"file '{path}': {error}") from None


def read_labels(path: str | os.PathLike[str], samples: int) -> Array | None:
    """Return the labels `y` (B,) of an input file, or None where it has none.

    Raises:
        DataError: they are not one whole number from 0 for each of the `samples`.
    """
    labels = read_arrays(path).get("y")
    if labels is None:
        return None
    if labels.shape != (samples,) or labels.dtype.kind not in "biuf" or (labels != np.abs(np.rint(labels))).any():
        raise DataError(
            f"file '{path}': y is {labels.dtype} {labels.shape}, expected ({samples},), one whole number from 0 for each sample"
        )
    return labels.astype(np.int64)


def write_recording(path: str | os.PathLike[str], run: ChipRun, x: Array | None = None) -> None:
    """Write what a run recorded, and its output; whole or not at all."""
    arrays: dict[str, Array] = {"output": run.output}
    if x is not None:
        arrays[f"{INPUT}.{run.counts.input_kind}"] = x
    for what in ("spikes", "v", "u"):
        arrays |= {f"{layer}.{what}": value for layer, value in getattr(run, what).items()}
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_activity(path: str | os.PathLike[str], graph: SNNGraph) -> SpikeCounts:
    """Return the spike counts of a recording of this network, or of a run of it on an input file.

    Raises:
        DataError: it is neither, or belongs to another network.
    """
    arrays = read_arrays(path)
    if "spikes" in arrays or "current" in arrays:
        from spear_deploy.simulator import simulate

        x, given = read_input(path, graph)
        return simulate(graph, x, kind=given).counts
    kind: InputKind = "current" if f"{INPUT}.current" in arrays else "spikes"
    recorded: dict[str, Array] = {}
    for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes)):
        what = kind if name == INPUT else "spikes"
        if f"{name}.{what}" not in arrays:
            raise DataError(
                f"file '{path}': has no '{name}.{what}'; record the spikes of this network with `simulate --record spikes`"
            )
        value = recorded[name] = arrays[f"{name}.{what}"]
        leading = recorded[INPUT].shape[:2]
        if value.ndim < 3 or value.shape != (*leading, *graph.shape_of(name)) or value.dtype.kind not in "biuf":
            axes = ", ".join(map(str, graph.shape_of(name)))
            raise DataError(
                f"file '{path}': '{name}.{what}' is {value.dtype} {value.shape}, expected numbers (T, B, {axes}); record it again"
            )
    recorded[INPUT] = check_input(graph, recorded[INPUT], kind)
    return counted(graph, recorded, kind)


def _listed(arrays: dict[str, Array], most: int = 4) -> str:
    names = [f"'{name}'" for name in arrays]
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join(names[:most] + more) or "nothing"
