"""Does an exported file do what the network does?

The written file is read back by a reader of its own kind and run on the same input as the network. The certificate says
with what, and what differed first.

    nir     read by nir, its nodes interpreted by `read_nir` and simulated
    netx    read by h5py, its layers interpreted by `read_netx` and simulated
    onnx    run by onnxruntime, without our simulator

Spikes are compared one by one, and so are the values of a readout. Both must be equal, except in floating-point networks that
onnxruntime runs: there sums may round in another order, `float_bounds` states by how much, and

    a value differs     where the two are further apart than the bound
    a spike differs     where v is further from the threshold than the bound; nearer it is a tie, counted apart
    after a tie         the two runs of that sample go different ways: its later steps and layers are not compared
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.errors import DataError, UnsupportedError, did_you_mean
from spear_deploy.interchange.onnx.float_bounds import BOUND, bounded_steps, near_threshold
from spear_deploy.network import Array, Scale
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, check_input, simulate
from spear_deploy.util.files import existing_file
from spear_deploy.util.progress import Progress, part_of

Format: TypeAlias = Literal["nir", "netx", "onnx"]
FORMATS: tuple[Format, ...] = ("nir", "netx", "onnx")

EQUAL = "every spike and every value of a readout must be equal"
WITHIN_BOUND = (
    "every spike must be equal unless v is within the bound of its threshold (a tie), every value of a readout equal within the "
    "bound; after a tie the rest of that sample is not compared"
)

DEFAULT_STEPS = 32
DEFAULT_SAMPLES = 4


def certify(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    format: Format,
    x: Array | None = None,
    kind: InputKind = "spikes",
    *,
    seed: int = 0,
    approximations: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a written file with the network it was made from.

    Args:
        graph: the network.
        path: the file.
        format: "nir", "netx" or "onnx".
        x: (T, B, *input shape); None takes random input.
        kind: of `x`.
        seed: draws random input.
        approximations: what was approximated on the way into the file.
        progress: is told how far the two runs are.

    Returns:
        A JSON-able dictionary: `reader`, `input`, `mismatches`, `first_difference` (None, or layer, step, sample, neuron),
        `ties`, `compared` (the rule, in a sentence), `bound` (None where equality is asked for), `layers` (each with the
        number of values `compared` and those `after_ties`, spikes on both sides or the largest difference of values, its
        `largest_bound`, `ties`, `mismatches` and `first_difference`), `not_compared`, `approximations`, `assumptions` (of the
        network's own import and of the read-back), `versions`, `file`, `sha256`, `bytes`.

    Raises:
        FileError: the file does not read back.
        DataError: the input does not fit the network.
        UnsupportedError: an unknown format.
    """
    if format not in FORMATS:
        raise UnsupportedError(f"format '{format}': expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    source = existing_file(path, f"{format} file")
    drawn = None
    if x is None:
        (x, kind), drawn = default_input(graph, seed), seed
    x = check_input(graph, x, kind)
    run = simulate(graph, x, kind=kind, record=("spikes", "v"), progress=part_of(progress, "the network"))
    expected = _compared(graph, run)
    reader, found, assumed = _read_back(graph, source, format, x, kind, part_of(progress, "as read back"))
    _check_shapes(expected, found)
    rounded = format == "onnx" and not graph.is_integer
    ranges = _bounded(graph, x, expected, found) if rounded else {}
    rows = [_row(name, values, found[name], ranges.get(name)) for name, values in expected.items() if name in found]
    unseen = [name for name in expected if name not in found]
    differences = [row["first_difference"] for row in rows if row["first_difference"]]
    first = min(differences, key=lambda d: (d["step"], d["sample"])) if differences else None
    return {
        "format": format,
        "file": source.name,
        "bytes": source.stat().st_size,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "reader": reader,
        "input": {
            "kind": kind,
            "steps": int(x.shape[0]),
            "samples": int(x.shape[1]),
            "shape": [int(n) for n in x.shape[2:]],
            "random_seed": drawn,
            "sha256": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
        },
        "mismatches": sum(row["mismatches"] for row in rows),
        "first_difference": first,
        "ties": sum(row["ties"] for row in rows),
        "compared": WITHIN_BOUND if rounded else EQUAL,
        "bound": BOUND if rounded else None,
        "layers": rows,
        "not_compared": unseen,
        "approximations": list(approximations),
        "assumptions": list(dict.fromkeys([*graph.metadata.get("assumptions", []), *assumed])),
        "versions": _versions(format),
    }


def default_input(graph: SNNGraph, seed: int = 0) -> tuple[Array, InputKind]:
    """Return random input and its kind: spikes at rates of 0 to 1 by sample, or a current into a netx input layer."""
    rng = np.random.default_rng(seed)
    shape = (DEFAULT_STEPS, DEFAULT_SAMPLES, *graph.input_shape)
    first = [graph[edge.target] for edge in graph.outgoing(INPUT)]
    if graph.is_integer and any(isinstance(layer.synapse, Scale) for layer in first):
        return rng.random(shape), "current"
    rates = rng.random((1, DEFAULT_SAMPLES, *(1 for _ in graph.input_shape)))
    return rng.random(shape) < rates, "spikes"


# -------------------------------------------------------------------------------------------------------- both sides


def _compared(graph: SNNGraph, run: ChipRun) -> dict[str, Array]:
    """Return what is compared, by layer: spikes, and the value of a readout or of the output."""
    values = dict(run.spikes)
    for layer in graph.layers:
        if layer.neuron is not None and not layer.spikes:
            values[layer.name] = run.v[layer.name]
    values.setdefault(graph.output, run.output)
    return values


def _read_back(
    graph: SNNGraph, source: Path, format: Format, x: Array, kind: InputKind, progress: Progress | None
) -> tuple[str, dict[str, Array], list[str]]:
    """Return who read the file, what its network did by the layer names of the original, and what the reader assumed."""
    if format == "onnx":
        from spear_deploy.interchange.onnx.model_file import run_onnx

        if progress is not None:
            progress({"stage": "onnxruntime", "done": 0, "of": 0})
        results = run_onnx(source, x)
        found = {name.removesuffix(".spikes"): value for name, value in results.items() if name.endswith(".spikes")}
        return f"onnxruntime {_version('onnxruntime')}", {**found, graph.output: results["output"]}, []
    again, reader = _read_nir(graph, source) if format == "nir" else _read_netx(source)
    run = simulate(again, _fitting(again, x), kind=kind, record=("spikes", "v"), progress=progress)
    found = _compared(again, run)
    if again.output != graph.output:
        found[graph.output] = found.pop(again.output)
    return reader, found, list(again.metadata.get("assumptions", []))


def _read_nir(graph: SNNGraph, source: Path) -> tuple[SNNGraph, str]:
    import nir

    from spear_deploy.interchange.nir.reader import read_nir
    from spear_deploy.interchange.nir.writer import typable

    nir.read(source, type_check=typable(graph))
    how = "" if typable(graph) else ", without its type check, which takes kernels as square and groups as one"
    return read_nir(source), f"nir {_version('nir')}{how}; nodes interpreted by spear-deploy {_version('spear-deploy')}"


def _read_netx(source: Path) -> tuple[SNNGraph, str]:
    from spear_deploy.interchange.netx.reader import read_netx

    return read_netx(source), f"h5py {_version('h5py')}; layers interpreted by spear-deploy {_version('spear-deploy')}"


def _fitting(again: SNNGraph, x: Array) -> Array:
    """Return the input in the shape that the read network takes, which may have axes of length one more or less."""
    if int(np.prod(again.input_shape)) != int(np.prod(x.shape[2:])):
        raise DataError(f"the file takes {again.input_shape}, the network {x.shape[2:]}; report this as a defect")
    return x.reshape(*x.shape[:2], *again.input_shape)


# -------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Bounds:
    """What rounding may do to one layer.

    Attributes:
        gap: (T, B, neurons), how far values may be apart.
        ties: (T, B, neurons) bool, spikes that differ with v within the gap of the threshold.
        after: (T, B) bool, the sample had a tie before.
    """

    gap: Array
    ties: Array
    after: Array


def _bounded(graph: SNNGraph, x: Array, expected: dict[str, Array], found: dict[str, Array]) -> dict[str, Bounds]:
    """Return the bounds of each compared layer, and where the runs come apart in ties."""
    steps, samples = x.shape[:2]
    bounds: dict[str, Bounds] = {}
    for name in (name for name in expected if name in found):
        full = _flat(expected[name]).shape
        bounds[name] = Bounds(np.zeros(full), np.zeros(full, bool), np.zeros((steps, samples), bool))
    apart = np.zeros(samples, bool)
    spikes = {layer.name: expected[layer.name] for layer in graph.layers if layer.spikes}
    with np.errstate(over="ignore", invalid="ignore"):
        for t, layers in enumerate(bounded_steps(graph, x, spikes)):
            for name, step in layers.items():
                if name not in bounds:
                    continue
                here = bounds[name]
                here.gap[t] = step.gap.reshape(samples, -1)
                here.after[t] = apart
                if graph[name].spikes:
                    differ = _flat(expected[name])[t] != (_flat(found[name])[t] != 0)
                    near = near_threshold(graph[name], step).reshape(samples, -1)
                    here.ties[t] = differ & near & ~apart[:, None]
                    apart = apart | here.ties[t].any(axis=1)
    return bounds


def _flat(values: Array) -> Array:
    return np.asarray(values).reshape(*values.shape[:2], -1)


def _check_shapes(expected: dict[str, Array], found: dict[str, Array]) -> None:
    for name in (name for name in expected if name in found):
        here, there = (_flat(values).shape[2] for values in (expected[name], found[name]))
        if here != there:
            what = f"layer '{name}': {here} neurons in the network, {there} in the file"
            raise DataError(f"{what}; report this as a defect")


def _row(name: str, expected: Array, found: Array, bounds: Bounds | None) -> dict[str, Any]:
    """Compare one layer; neurons are counted flat, in the order C, H, W."""
    a, b = _flat(expected), _flat(found)
    bounds = bounds or Bounds(np.zeros(a.shape), np.zeros(a.shape, bool), np.zeros(a.shape[:2], bool))
    compared = np.broadcast_to(~bounds.after[..., None], a.shape)
    spikes = a.dtype == bool
    row: dict[str, Any] = {"layer": name, "what": "spikes" if spikes else "values", "compared": int(compared.sum())}
    row["after_ties"] = int(a.size - compared.sum())
    row["largest_bound"] = float(bounds.gap.max(where=compared & np.isfinite(bounds.gap), initial=0))
    if spikes:
        different = (a != (b != 0)) & ~bounds.ties
        row["spikes"], row["spikes_in_file"] = int(a.sum()), int((b != 0).sum())
    else:
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        different = ~(gap <= bounds.gap)
        row["largest_difference"] = float(gap[compared].max(initial=0)) if np.isfinite(gap).all() else None
    different &= compared
    row["ties"], row["mismatches"] = int(bounds.ties.sum()), int(different.sum())
    row["first_difference"] = None
    if different.any():
        step, sample, neuron = (int(n) for n in np.argwhere(different)[0])
        row["first_difference"] = {"layer": name, "step": step, "sample": sample, "neuron": neuron}
    return row


def _versions(format: Format) -> dict[str, str]:
    used = {"nir": ("nir", "h5py"), "netx": ("h5py",), "onnx": ("onnx", "onnxruntime")}[format]
    return {"python": platform.python_version(), **{name: _version(name) for name in ("spear-deploy", "numpy", *used)}}


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
