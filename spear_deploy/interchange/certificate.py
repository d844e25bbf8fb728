"""Certificates of exported files, read back and run beside their network.

The written file is read back by a reader of its own kind and run on the same input as the network. The certificate names reader,
input and versions, and the first difference of each layer:

    nir     read by nir, its nodes interpreted by `read_nir` and simulated
    netx    read by h5py, its layers interpreted by `read_netx` and simulated
    onnx    run by onnxruntime, without our simulator
    xylo    its arrays run by a reader of their own, and by xylosim where it is installed
    speck   its layers run by a reader of their own, and by sinabs where it is installed
    pynn    its populations run by a reader of their own, and its script in Brian2 where that is installed

`comparison` states what counts as a difference.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import DataError, UnsupportedError, did_you_mean
from spear_deploy.interchange.chip_files import SIMULATORS, explain_no_simulator, run_chip_file
from spear_deploy.interchange.comparison import (
    EQUAL,
    FOLDED_WITHIN_BOUND,
    WITHIN_BOUND,
    compare_folded,
    compare_layers,
    split_steps,
)
from spear_deploy.interchange.onnx.float_bounds import BOUND, EXACT, FOLDED
from spear_deploy.interchange.pynn.reader import name_brian2
from spear_deploy.network import Array, Scale
from spear_deploy.network.classes import describe_classes
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.layer_error import count_products
from spear_deploy.simulator import InputKind, check_input
from spear_deploy.simulator.stepper import Stepper, prepare
from spear_deploy.util.digests import hash_file
from spear_deploy.util.files import require_file
from spear_deploy.util.progress import Progress, prefix_stage

Format: TypeAlias = Literal["nir", "netx", "onnx", "xylo", "speck", "pynn"]
FORMATS: tuple[Format, ...] = get_args(Format)
REFUSED_FORMATS = {
    "akida": "Akida's neurons keep no potential from one time step to the next, each step is a frame computed anew; IF and LIF "
    "neurons do; export to another format, docs/vendor_agreement.md measures the difference"
}
"""Files that are not written, by name: what differs on the chip."""

DEFAULT_STEPS = 32
DEFAULT_SAMPLES = 4
MIN_STEPS = 8
MAX_PRODUCTS = 1e10
"""Multiplications of a run on random input; a larger network is run on fewer samples, then on fewer steps."""
BLOCK_VALUES = 1 << 20
"""Values of all layers that a proof holds at a time, if one step has no more."""


@dataclass(frozen=True, kw_only=True)
class ProofInput:
    """Input on which a file and its network are compared.

    Attributes:
        x: (T, B, *input shape), or None for random input of 32 steps and 4 samples, fewer of a large network.
        kind: "spikes" or "current", of `x`.
        seed: of random input.
        drawn: whether `x` is random input of `seed`; `draw_input` states it.
    """

    x: Array | None = None
    kind: InputKind = "spikes"
    seed: int = 0
    drawn: bool = False


def certify(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    *,
    format: Format,
    proof: ProofInput | None = None,
    approximations: Sequence[str] = (),
    framework: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a written file with the network it was made from.

    Args:
        graph: the network.
        path: the file.
        format: one of `FORMATS`.
        proof: input of the comparison; random unless given.
        approximations: what was approximated on the way into the file.
        framework: for whose importer a NIR file was written; its shapes may be those that the importer takes.
        progress: called with the progress of the two runs.

    Returns:
        A JSON-able dictionary: `reader`, `input`, `mismatches`, `first_difference` (None, or layer, step, sample, neuron),
        `ties`, `tie_distance` (the largest distance from the threshold of a tie, or None), `compared` (the rule, in a sentence),
        `bound` (None where equality is asked for), `layers` (the rows of `comparison.compare_layers`), `vendor` (Xylo, Speck: the
        same rows by the chip maker's simulator; PyNN: by Brian2), `not_compared`, `approximations`, `assumptions` (of the
        network's own import and of the read-back), `versions`, `file`, `sha256`, `bytes`.

    Raises:
        FileError: the file does not read back.
        DataError: the input does not fit the network, or the file's shapes are not the network's.
        UnsupportedError: an unknown format.
    """
    if format not in FORMATS:
        raise UnsupportedError(f"format '{format}': expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    source = require_file(path, f"{format} file")
    proof = draw_input(graph, proof or ProofInput())
    assert proof.x is not None
    x, kind = check_input(graph, proof.x, proof.kind), proof.kind
    if format == "nir" and not graph.is_integer and any(layer.norm is not None for layer in graph.layers):
        beside = _run_folded(graph, source, x, framework, progress)
    else:
        beside = _run_beside(graph, source, format, x, kind, framework, progress)
    assumptions = dict.fromkeys([*graph.metadata.get("assumptions", []), *beside.assumptions])
    described = [text for text in describe_classes(graph) if not any(str(note).endswith(text) for note in assumptions)]
    return {
        **_describe_file(source, format),
        "reader": beside.reader,
        "input": _describe_input(x, kind, random_seed=proof.seed if proof.drawn else None),
        **_add_up(beside.rows),
        "compared": beside.rule,
        "bound": beside.bound,
        "layers": beside.rows,
        **({"vendor": _run_vendor(graph, source, format, x, kind)} if format in SIMULATORS else {}),
        "not_compared": beside.missing,
        "approximations": list(approximations),
        "assumptions": [*assumptions, *described],
        "versions": _versions(format),
    }


def _describe_file(source: Path, format: Format) -> dict[str, Any]:
    return {"format": format, "file": source.name, "bytes": source.stat().st_size, "sha256": hash_file(source)}


def draw_input(graph: SNNGraph, proof: ProofInput) -> ProofInput:
    """Return the input of a proof with its values: those that it has, else random ones of its seed."""
    if proof.x is not None:
        return proof
    x, kind = default_input(graph, proof.seed)
    return replace(proof, x=x, kind=kind, drawn=True)


def default_input(graph: SNNGraph, seed: int = 0) -> tuple[Array, InputKind]:
    """Return random input and its kind: spikes at rates of 0 to 1 by sample, or a current where netx input layers alone take it.

    There are 32 steps of 4 samples; of a network for which that is more than `MAX_PRODUCTS`, fewer samples and then fewer steps.
    """
    rng = np.random.default_rng(seed)
    products = max(count_products(graph), 1)
    samples = int(np.clip(MAX_PRODUCTS // (products * DEFAULT_STEPS), 1, DEFAULT_SAMPLES))
    steps = int(np.clip(MAX_PRODUCTS // (products * samples), MIN_STEPS, DEFAULT_STEPS))
    shape = (steps, samples, *graph.input_shape)
    first = [graph[edge.target] for edge in graph.edges_from(INPUT)]
    if graph.is_integer and first and all(isinstance(layer.synapse, Scale) for layer in first):
        return rng.random(shape), "current"
    rates = rng.random((1, samples, *(1 for _ in graph.input_shape)))
    x = np.empty(shape, bool)
    for step in x:  # one step at a time: random numbers take eight bytes each
        step[...] = rng.random(shape[1:]) < rates[0]
    return x, "spikes"


def run_steps(graph: SNNGraph, x: Array, kind: InputKind, progress: Progress | None = None) -> Iterator[dict[str, Array]]:
    """Run a network and yield the compared values of each step, (B, *shape) by layer; they hold until the next one.

    They are spikes, v of a readout, and the value of an output without neurons.
    """
    x = check_input(graph, x, kind)
    network = prepare(graph)
    steps, batch = x.shape[:2]
    stepper = Stepper(network, batch)
    readouts = [layer.name for layer in graph.layers if layer.neuron is not None and not layer.spikes]
    spiking = [layer.name for layer in graph.layers if layer.spikes]
    values = batch * sum(int(np.prod(prepared.shape)) for prepared in network.layers)
    size = int(np.clip(BLOCK_VALUES // values, 1, steps))
    for start in range(0, steps, size):
        block = x[start : start + size]
        v: dict[str, Array] = {n: np.empty((len(block), batch, *graph.shape_of(n)), network.dtype) for n in readouts}
        emitted = stepper.advance(block, {(name, "v"): place for name, place in v.items()})
        for t in range(len(block)):
            step = {name: emitted[name][t] for name in spiking} | {name: place[t] for name, place in v.items()}
            step.setdefault(graph.output, emitted[graph.output][t])
            yield step
        if progress is not None:
            progress({"stage": "simulate", "done": start + len(block), "of": steps})


# --------------------------------------------------------------------------------------------------------- the file's run


@dataclass(frozen=True, kw_only=True)
class _RunBeside:
    """A file's run compared with its network's.

    Attributes:
        reader: of the file, with its version.
        rows: of `comparison.compare_layers`.
        missing: what was not compared.
        rule: that they were compared by, in a sentence.
        bound: of a difference, in words; None where equality is asked for.
        assumptions: of the reader.
    """

    reader: str
    rows: list[dict[str, Any]]
    missing: list[str]
    rule: str
    bound: str | None
    assumptions: list[str]


def _run_folded(graph: SNNGraph, source: Path, x: Array, framework: str | None, progress: Progress | None) -> _RunBeside:
    """Compare a NIR file whose weights hold the network's batch norm: it is run with the network's spikes."""
    read_back, reader = _read_nir(graph, source, framework)
    _check_input_size(read_back, x)
    rows, missing = compare_folded(graph, _rename_output(read_back, graph.output), x, progress=progress)
    assumptions = list(read_back.metadata.get("assumptions", []))
    return _RunBeside(
        reader=reader, rows=rows, missing=missing, rule=FOLDED_WITHIN_BOUND, bound=FOLDED, assumptions=assumptions
    )  # fmt: skip


def _run_beside(
    graph: SNNGraph, source: Path, format: Format, x: Array, kind: InputKind, framework: str | None, progress: Progress | None
) -> _RunBeside:
    """Compare a file and its network, each run freely: spikes are equal, or within a bound where the file's reader rounds."""
    is_pynn, rounds = format == "pynn", format == "pynn" or (format == "onnx" and not graph.is_integer)
    reader, values, assumptions = _run_file(graph, source, format, x, kind, prefix_stage(progress, "as read back"), framework)
    steps = run_steps(graph, x, kind, prefix_stage(progress, "the network"))
    rows, missing = compare_layers(
        graph, steps, values, rounded_input=x if rounds else None, rounding="exact" if is_pynn else "order"
    )
    return _RunBeside(
        reader=reader,
        rows=rows,
        missing=missing,
        rule=WITHIN_BOUND if rounds else EQUAL,
        bound=EXACT if is_pynn else BOUND if rounds else None,
        assumptions=assumptions,
    )


def _describe_input(x: Array, kind: InputKind, *, random_seed: int | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "steps": int(x.shape[0]),
        "samples": int(x.shape[1]),
        "shape": [int(n) for n in x.shape[2:]],
        "random_seed": random_seed,
        "sha256": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
    }


def _add_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of all layers, and the first difference among them."""
    differences = [row["first_difference"] for row in rows if row["first_difference"]]
    return {
        "mismatches": sum(row["mismatches"] for row in rows),
        "first_difference": min(differences, key=lambda d: (d["step"], d["sample"]), default=None),
        "ties": sum(row["ties"] for row in rows),
        "tie_distance": max((row["tie_distance"] for row in rows if row.get("tie_distance") is not None), default=None),
    }


def _run_file(
    graph: SNNGraph,
    source: Path,
    format: Format,
    x: Array,
    kind: InputKind,
    progress: Progress | None,
    framework: str | None,
) -> tuple[str, Iterable[Mapping[str, Array]], list[str]]:
    """Return the reader's name, the values of its run by the network's layer names, and what the reader assumed."""
    if format == "onnx":
        from spear_deploy.interchange.onnx.model_file import run_onnx

        if progress is not None:
            progress({"stage": "onnxruntime", "done": 0, "of": 0})
        results = run_onnx(source, x)
        values = {name.removesuffix(".spikes"): value for name, value in results.items() if name.endswith(".spikes")}
        return f"onnxruntime {_version('onnxruntime')}", split_steps({**values, graph.output: results["output"]}), []
    if format == "xylo" or format == "speck" or format == "pynn":
        values = run_chip_file(source, format, x, output=graph.output) or {}
        return f"spear-deploy {_version('spear-deploy')}, a reader of the file alone", split_steps(values), []
    read_back, reader = _read_nir(graph, source, framework) if format == "nir" else _read_netx(source)
    _check_input_size(read_back, x)
    x = x.reshape(*x.shape[:2], *read_back.input_shape)  # axes of length 1 may have come or gone
    steps = run_steps(read_back, x, kind, progress)
    renamed = ({graph.output if n == read_back.output else n: value for n, value in step.items()} for step in steps)
    return reader, renamed, list(read_back.metadata.get("assumptions", []))


def _check_input_size(read_back: SNNGraph, x: Array) -> None:
    if int(np.prod(read_back.input_shape)) != int(np.prod(x.shape[2:])):
        raise DataError(f"the file takes {read_back.input_shape}, the network {x.shape[2:]}; report this as a defect")


def _rename_output(graph: SNNGraph, name: str) -> SNNGraph:
    """Return the network with another name of its output layer."""
    old = graph.output
    if old == name:
        return graph
    edges = tuple(
        replace(e, source=name if e.source == old else e.source, target=name if e.target == old else e.target)
        for e in graph.edges
    )
    layers = tuple(replace(layer, name=name) if layer.name == old else layer for layer in graph.layers)
    return replace(graph, layers=layers, edges=edges, output=name)


def _run_vendor(graph: SNNGraph, source: Path, format: Format, x: Array, kind: InputKind) -> dict[str, Any]:
    """Return the comparison with the maker's simulator or PyNN's back end, or that it is not installed."""
    assert format == "xylo" or format == "speck" or format == "pynn"
    values = run_chip_file(source, format, x, output=graph.output, simulator=True)
    name = SIMULATORS[format]
    if values is None:
        return {"simulator": None, "mismatches": None, "note": explain_no_simulator(format)}
    rounded_input = x if format == "pynn" else None
    rows, _ = compare_layers(graph, run_steps(graph, x, kind), split_steps(values), rounded_input=rounded_input, rounding="exact")
    version = name_brian2() if format == "pynn" else f"{name} {_version(name)}"
    return {"simulator": version, "mismatches": sum(row["mismatches"] for row in rows), "layers": rows}


def _read_nir(graph: SNNGraph, source: Path, framework: str | None) -> tuple[SNNGraph, str]:
    import nir

    from spear_deploy.interchange.nir.reader import read_nir
    from spear_deploy.interchange.nir.writer import can_type_check

    has_types = framework is None and can_type_check(graph)
    nir.read(source, type_check=has_types)
    how = "" if has_types or framework else ", without its type check, which takes kernels as square and groups as one"
    read_back = read_nir(source, integers=False)  # the real numbers of the nodes, which are all that other readers see
    return read_back, f"nir {_version('nir')}{how}; nodes interpreted by spear-deploy {_version('spear-deploy')}"


def _read_netx(source: Path) -> tuple[SNNGraph, str]:
    from spear_deploy.interchange.netx.reader import read_netx

    return read_netx(source), f"h5py {_version('h5py')}; layers interpreted by spear-deploy {_version('spear-deploy')}"


def _versions(format: Format) -> dict[str, str]:
    packages = {"nir": ("nir", "h5py"), "netx": ("h5py",), "onnx": ("onnx", "onnxruntime")}.get(format, ())
    return {"python": platform.python_version(), **{name: _version(name) for name in ("spear-deploy", "numpy", *packages)}}


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
