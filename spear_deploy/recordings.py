"""What goes into a run and comes out of it, as a file?

An input file is an `.npz` with `spikes` or `current`, (T, B, *input). A recording is an `.npz` with `<layer>.spikes`,
`<layer>.v`, `<layer>.u` (T, B, *shape) in the graph's own time, `output`, and the spikes of the input as `input.spikes`.
"""

from __future__ import annotations

import os
from zipfile import BadZipFile, ZipFile

import numpy as np

from spear_deploy.errors import DataError, FileError
from spear_deploy.files import existing_file, written_aside
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import Array
from spear_deploy.simulator import ChipRun, InputKind, SpikeCounts, check_input


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
    except (BadZipFile, EOFError, OSError, ValueError, KeyError, NotImplementedError) as error:
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
        held = ", ".join(f"'{name}'" for name in arrays) or "nothing"
        raise DataError(f"file '{path}': holds {held}, expected either 'spikes' or 'current', (T, B, *input)")
    try:
        return check_input(graph, arrays[found[0]], found[0]), found[0]
    except DataError as error:
        raise DataError(f"file '{path}': {error}") from None


def write_recording(path: str | os.PathLike[str], run: ChipRun, x: Array | None = None) -> None:
    """Write what a run recorded, and its output; whole or not at all."""
    arrays: dict[str, Array] = {"output": run.output}
    if x is not None and run.counts.input_kind == "spikes":
        arrays["input.spikes"] = x
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

        x, kind = read_input(path, graph)
        return simulate(graph, x, kind=kind).counts
    sent: dict[str, Array] = {}
    steps = samples = 0
    for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes)):
        recorded = arrays.get(f"{name}.spikes")
        if recorded is None:
            raise DataError(
                f"file '{path}': has no '{name}.spikes'; record the spikes of this network with `simulate --record spikes`"
            )
        if recorded.shape[2:] != graph.shape_of(name) or recorded.ndim < 3:
            raise DataError(
                f"file '{path}': '{name}.spikes' has shape {recorded.shape}, expected (T, B, *{graph.shape_of(name)})"
            )
        steps, samples = recorded.shape[:2]
        sent[name] = recorded.sum(axis=(0, 1), dtype=np.int64)
    delivered = {
        edge: arrays[f"{edge.source}.spikes"][: max(steps - edge.delay, 0)].sum(axis=(0, 1), dtype=np.int64)
        for edge in graph.edges
        if edge.delay and edge.source in sent
    }
    return SpikeCounts(sent=sent, delivered=delivered, steps=steps, samples=samples)
