"""Files of input, recordings and spike counts.

An input file is an `.npz` with `spikes` or `current`, (T, B, *input). A recording is an `.npz` with `<layer>.spikes`,
`<layer>.v`, `<layer>.u` (T, B, *shape) in the graph's own time, `output`, and the input as `input.spikes` or `input.current`.
A file of spike counts, such as `activity.npz` of a deployment, is an `.npz` with `sent.<n>` and `delivered.<n>`; `counts` says as
JSON which layer and which edge number n is, and of how many steps and samples. An older file has that beside it alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np

from spear_deploy.errors import DataError, SpearError
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.spike_paths import find_delayed_paths
from spear_deploy.simulator.run import MAX_SPIKES, ChipRun, InputKind, SpikeCounts, check_input, count_spikes, simulate
from spear_deploy.util.arguments import require_whole_number
from spear_deploy.util.files import read_arrays, write_arrays
from spear_deploy.util.number_format import name_values
from spear_deploy.util.shapes import can_reshape

MAX_QUOTED_NAMES = 4
"""Names of arrays that a message quotes."""
COUNTED = "counts"
"""Array of a file of spike counts that holds, as JSON, what the others are of."""
MAX_LABEL = 1 << 31
"""Label up to which numbers are read; those of int64 would wrap."""


def read_input(path: str | os.PathLike[str], graph: SNNGraph) -> tuple[Array, InputKind]:
    """Return (input (T, B, *input), its kind) of an input file.

    Raises:
        FileError: the file cannot be read.
        DataError: it holds neither or both of `spikes` and `current`, or they do not fit the network.
    """
    arrays = read_arrays(path)
    kinds: list[InputKind] = ["spikes", "current"]
    present = [kind for kind in kinds if kind in arrays]
    if len(present) != 1:
        names = [f"'{name}'" for name in arrays]
        rest = [f"{len(names) - MAX_QUOTED_NAMES} more"] if len(names) > MAX_QUOTED_NAMES else []
        contents = ", ".join(names[:MAX_QUOTED_NAMES] + rest) or "nothing"
        raise DataError(
            f"file '{path}': holds {contents}, expected either 'spikes' or 'current'; save one of them, (T, B, *input)"
        )
    x = arrays[present[0]]
    if x.ndim > 2 and x.shape[2:] != graph.input_shape and can_reshape(x.shape[2:], graph.input_shape):
        x = x.reshape(*x.shape[:2], *graph.input_shape)
    try:
        return check_input(graph, x, present[0]), present[0]
    except DataError as error:
        raise DataError(f"file '{path}': {error}") from None


def read_labels(path: str | os.PathLike[str], samples: int, steps: int) -> Array | None:
    """Return the labels `y` of an input file, (B,) or (B, T), or None where it has none.

    Raises:
        DataError: they are not one whole number from 0 for each of the `samples`, or for each of their `steps`, there with -1 for
            none, or are too large.
    """
    labels = read_arrays(path).get("y")
    if labels is None:
        return None
    shapes = ((samples,), (samples, steps))
    known = labels[labels != -1] if labels.shape == shapes[1] else labels
    if labels.shape not in shapes or labels.dtype.kind not in "biuf" or (known != np.abs(np.rint(known))).any():
        raise DataError(
            f"file '{path}': y holds {name_values(labels.dtype.kind)} of shape {labels.shape}, expected ({samples},), one whole "
            f"number from 0 for each sample, or ({samples}, {steps}), one for each step"
        )
    if (largest := known.max(initial=0)) > MAX_LABEL:
        raise DataError(f"file '{path}': y goes up to {largest:.3g}, expected numbers of classes; check the labels")
    return labels.astype(np.int64)


def write_recording(path: str | os.PathLike[str], run: ChipRun, x: Array | None = None) -> None:
    """Write the recordings of a run and its output, whole or not at all."""
    arrays: dict[str, Array] = {"output": run.output}
    if x is not None:
        arrays[f"{INPUT}.{run.counts.input_kind}"] = x
    for what in ("spikes", "v", "u"):
        arrays |= {f"{layer}.{what}": value for layer, value in getattr(run, what).items()}
    write_arrays(path, arrays)


def read_activity(path: str | os.PathLike[str], graph: SNNGraph) -> SpikeCounts:
    """Return the spike counts of a recording of this network, of a run of it on an input file, or of a file of spike counts.

    Raises:
        DataError: it is none of these, or belongs to another network.
    """
    arrays = read_arrays(path)
    if COUNTED in arrays or "sent.0" in arrays:
        return _read_counts_of(graph, path, arrays)
    if "spikes" in arrays or "current" in arrays:
        x, input_kind = read_input(path, graph)
        return simulate(graph, x, kind=input_kind).counts
    kind: InputKind = "current" if f"{INPUT}.current" in arrays else "spikes"
    recorded: dict[str, Array] = {}
    for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes)):
        what = kind if name == INPUT else "spikes"
        if f"{name}.{what}" not in arrays:
            beside = " of a recording, and no 'spikes' or 'current' of an input" if name == INPUT else ""
            raise DataError(
                f"file '{path}': has no '{name}.{what}'{beside}; "
                "record the spikes of this network with `simulate --record spikes`"
            )
        value = recorded[name] = arrays[f"{name}.{what}"]
        leading = recorded[INPUT].shape[:2]
        if value.ndim < 3 or value.shape != (*leading, *graph.shape_of(name)) or value.dtype.kind not in "biuf":
            axes = ", ".join(map(str, graph.shape_of(name)))
            raise DataError(
                f"file '{path}': '{name}.{what}' holds {name_values(value.dtype.kind)} of shape {value.shape}, expected numbers "
                f"of shape (T, B, {axes}); record it again"
            )
        if name != INPUT and not ((value >= 0).all() and value.sum(dtype=np.float64) <= MAX_SPIKES):
            raise DataError(f"file '{path}': '{name}.{what}' holds negative numbers of spikes, or more than can be counted")
    recorded[INPUT] = check_input(graph, recorded[INPUT], kind)
    return count_spikes(graph, recorded, kind)


def write_counts(counts: SpikeCounts, path: Path) -> dict[str, Any]:
    """Write the counts, whole or not at all, and return what the file says of its arrays as plain data."""
    arrays = {f"sent.{n}": array for n, array in enumerate(counts.sent.values())}
    arrays |= {f"delivered.{n}": array for n, array in enumerate(counts.delivered.values())}
    facts = {
        "sent": list(counts.sent),
        "delivered": [[edge.source, edge.target, edge.delay] for edge in counts.delivered],
        "steps": counts.steps,
        "samples": counts.samples,
        "input_kind": counts.input_kind,
    }
    write_arrays(path, {**arrays, COUNTED: np.array(json.dumps(facts))})
    return facts


def read_counts(path: Path, facts: dict[str, Any]) -> SpikeCounts:
    """Return the counts that `write_counts` wrote.

    Args:
        path: the file.
        facts: that `write_counts` returned; a file of an earlier release does not hold them.

    Raises:
        FileError: the file is missing, truncated or foreign.
    """
    return _name_counts(read_arrays(path), facts)


def _name_counts(arrays: dict[str, Array], facts: dict[str, Any]) -> SpikeCounts:
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in facts["delivered"]]
    return SpikeCounts(
        sent={name: arrays[f"sent.{n}"] for n, name in enumerate(facts["sent"])},
        delivered={edge: arrays[f"delivered.{n}"] for n, edge in enumerate(edges)},
        steps=facts["steps"],
        samples=facts["samples"],
        input_kind=facts["input_kind"],
    )


def _read_counts_of(graph: SNNGraph, path: str | os.PathLike[str], arrays: dict[str, Array]) -> SpikeCounts:
    """Return the spike counts of a file, which have to be those of a network.

    Raises:
        DataError: they are not, do not name their layers, or are damaged.
    """
    if COUNTED not in arrays:
        raise DataError(
            f"file '{path}': holds spike counts without the names of layers, as earlier releases wrote them; deploy again with "
            "--fresh, or record the network with `simulate --record spikes`"
        )
    try:
        counts = _name_counts(arrays, json.loads(str(arrays[COUNTED])))
        require_whole_number("steps", counts.steps)
        require_whole_number("samples", counts.samples)
    except (ValueError, KeyError, TypeError, RecursionError, SpearError) as error:
        raise DataError(f"file '{path}': its spike counts are damaged ({error}); deploy again with --fresh") from error
    names = [INPUT, *(layer.name for layer in graph.layers if layer.spikes)]
    shapes: dict[Any, Any] = {name: graph.shape_of(name) for name in names}
    shapes |= {edge: graph.shape_of(edge.source) for edge in find_delayed_paths(graph)}
    counted: dict[Any, Array] = {**counts.sent, **counts.delivered}
    for key in (*shapes, *counted):
        if key not in shapes or key not in counted or counted[key].shape != shapes[key]:
            name = key.source if isinstance(key, Edge) else key
            raise DataError(
                f"file '{path}': its spike counts are not of this network, by '{name}'; give the one that was counted, which is "
                "quantised.snn of a deployment"
            )
    for value in counted.values():
        if value.dtype.kind not in "iu" or not ((value >= 0).all() and value.sum(dtype=np.float64) <= MAX_SPIKES):
            raise DataError(f"file '{path}': its spike counts are no whole numbers from 0, or more than can be counted")
    if counts.input_kind not in get_args(InputKind):
        raise DataError(f"file '{path}': its spike counts are of an input '{counts.input_kind}', expected 'spikes' or 'current'")
    return counts
