"""Network files of this package (`.snn`), read, written and hashed.

A `.snn` file is an npz archive without compression and without pickle:

    header.npy                          JSON text as bytes: kinds, names, sizes, edges, metadata, and the place of each array
    layers.<n>.<part>.<field>.npy       every array in its own type, e.g. layers.0.synapse.weight
    layers.<n>.synapse.weight.<part>    data, indices and indptr of sparse weights (`network.SparseMatrix`), of version 2

A file takes version 2 only where it has sparse weights, so that earlier releases read all others.
The same graph always gives the same bytes. `numpy.load(path)["layers.0.synapse.weight"]` works without this package.
Loops by which earlier releases stored resets one step late become `reset_delay` on reading.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, get_args

import numpy as np

from spear_deploy import network as kinds
from spear_deploy.errors import FileError, GraphError, SpearError, did_you_mean
from spear_deploy.network import Array, Layer, SparseMatrix
from spear_deploy.network.delayed_reset import fold_reset_loops
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.metadata import check_metadata
from spear_deploy.util.digests import hash_open_file
from spear_deploy.util.files import replace_file, require_file
from spear_deploy.util.temporary_folder import make_file_error

FORMAT = "spear-deploy network"
VERSIONS = (1, 2)
"""Of files without and with sparse weights."""
HEADER = "header"

_npy: Any = np.lib.format

LATER_FIELDS = {
    ("reset_delay", "int"): 0,
    ("v_min", "Array | None"): None,
    ("max_spikes", "int | None"): 1,
    ("v_init", "Array | None"): None,
    ("early_steps", "int"): 0,
}
"""Fields of a name and type that earlier releases do not have, with their default, at which they are not written."""

SPARSE_PARTS = ("data", "indices", "indptr")
BLOCK_BYTES = 1 << 20
"""Bytes that are read at a time."""
MAX_VALUES_PER_BYTE = 1 << 14
"""Values that a layer may emit for a byte of the file. A convolution emits more values than it has weights, within reason."""

PARTS: dict[str, dict[str, type]] = {
    "synapse": {kind.__name__: kind for kind in get_args(kinds.Synapse)},
    "norm": {kinds.BatchNorm.__name__: kinds.BatchNorm},
    "neuron": {kind.__name__: kind for kind in get_args(kinds.Neuron)},
}


def write_snn(graph: SNNGraph, path: str | os.PathLike[str]) -> None:
    """Write a network, whole or not at all.

    Raises:
        GraphError: the metadata is not JSON.
        FileError: the place is not writable.
    """
    arrays = _encode_network(graph)
    with replace_file(path) as aside:
        _write_archive(arrays, aside)


def _encode_network(graph: SNNGraph) -> dict[str, Array]:
    """Return the members of the archive, the header first."""
    arrays: dict[str, Array] = {}
    header = {
        "format": FORMAT,
        "version": VERSIONS[any(_has_sparse_weights(layer) for layer in graph.layers)],
        "input_shape": list(graph.input_shape),
        "dt_s": float(graph.dt_s),
        "output": graph.output,
        "layers": [_encode_layer(layer, f"layers.{n}", arrays) for n, layer in enumerate(graph.layers)],
        "edges": [{"source": e.source, "target": e.target, "delay": int(e.delay)} for e in graph.edges],
        "metadata": dict(graph.metadata),
    }
    try:
        text = json.dumps(header, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError(f"metadata: is not JSON ({error}); keep to text, numbers, lists and dictionaries") from error
    return {HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}


def _has_sparse_weights(layer: Layer) -> bool:
    return isinstance(getattr(layer.synapse, "weight", None), SparseMatrix)


def _write_archive(arrays: Mapping[str, Array], file: Path | IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            _write_array(archive, name, np.ascontiguousarray(array).reshape(array.shape))


def read_snn(path: str | os.PathLike[str]) -> SNNGraph:
    """Read a network.

    Raises:
        FileError: missing, empty, truncated, foreign, of an unknown version, or contradicted by its own header.
        GraphError: its contents are no network (NaN, shapes that do not fit).
    """
    source = require_file(path, "network file (.snn)")
    arrays, size = _read_arrays(source)
    header = _read_header(source, arrays.pop(HEADER, None))
    try:
        rows = [_decode_layer(row, arrays, f"file '{source}', layer {n}") for n, row in enumerate(header["layers"])]
        edges = [
            Edge(source=str(e["source"]), target=str(e["target"]), delay=_check_integer(e["delay"])) for e in header["edges"]
        ]
        metadata = header["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError("metadata is not a dictionary")
        graph = SNNGraph(
            layers=tuple(rows),
            edges=tuple(edges),
            input_shape=tuple(_check_integer(n) for n in header["input_shape"]),
            dt_s=float(header["dt_s"]),
            output=str(header["output"]),
            metadata=metadata,
        )
        _check_extent(graph, source, size)
        check_metadata(graph)
        return fold_reset_loops(graph)
    except SpearError as error:
        message = str(error)
        raise type(error)(message if str(source) in message else f"file '{source}': {message}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise FileError(f"file '{source}': the header is damaged ({type(error).__name__}: {error}); write it again") from error


def hash_network(graph: SNNGraph) -> str:
    """Return the sha256 of the `.snn` file that holds a network: the same network always gives the same bytes.

    The file has no name, so that a killed process leaves none.

    Raises:
        FileError: the folder for temporary files takes no file of this size.
    """
    arrays = _encode_network(graph)
    try:
        with tempfile.TemporaryFile() as file:
            _write_archive(arrays, file)
            file.seek(0)
            return hash_open_file(file)
    except OSError as error:
        raise make_file_error("the network cannot be written", error) from error


def _check_extent(graph: SNNGraph, source: Path, size: int) -> None:
    """Raise FileError where a layer has more values than a file of this size may hold."""
    max_values = size * MAX_VALUES_PER_BYTE
    for name in (INPUT, *(layer.name for layer in graph.layers)):
        values = math.prod(graph.shape_of(name))
        if values > max_values:
            raise FileError(f"file '{source}': '{name}' has {values} values, at most {max_values} fit its size; write it again")


# ----------------------------------------------------------------------------------------------------------- archive


def _read_arrays(source: Path) -> tuple[dict[str, Array], int]:
    """Read all members and the size of the file; no array may be larger than its bytes there, nor all of them than the file."""
    try:
        size = source.stat().st_size
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > size or any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise FileError(f"file '{source}': declares more than it holds; write it again")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}, size
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        SyntaxError,
        TokenError,
        OverflowError,
        NotImplementedError,
        MemoryError,
    ) as error:
        raise FileError(f"file '{source}': is not a complete .snn file ({_first_line(error)}); write it again") from error


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    """Write an array in blocks, since a layer may fill most of the memory."""
    header = io.BytesIO()
    _npy.write_array_header_1_0(header, _npy.header_data_from_array_1_0(array))
    member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    member.file_size = header.tell() + array.nbytes  # decides whether its sizes take 64 bits
    with archive.open(member, "w") as stream:
        _npy.write_array(stream, array, allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read an array in blocks into memory of its own, which a layer takes without a copy."""
    with archive.open(member) as stream:
        version = _npy.read_magic(stream)
        read = {(1, 0): _npy.read_array_header_1_0, (2, 0): _npy.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"npy version {version}")
        shape, fortran, dtype = read[version](stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"array of {dtype}")
        left = member.file_size - stream.tell()
        if math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"array of shape {shape} in {left} bytes")
        array = np.empty(shape, dtype, order="F" if fortran else "C")
        flat = (array.T if fortran else array).reshape(-1).view(np.uint8)
        for start in range(0, left, BLOCK_BYTES):
            block = stream.read(min(BLOCK_BYTES, left - start))
            if len(block) < min(BLOCK_BYTES, left - start):
                raise ValueError(f"array of shape {shape} ends after {start + len(block)} bytes")
            flat[start : start + len(block)] = np.frombuffer(block, np.uint8)
    array.setflags(write=False)
    return array


def _read_header(source: Path, stored: Array | None) -> dict[str, Any]:
    def refuse_constant(name: str) -> float:
        raise ValueError(f"{name} in the header")

    if stored is None:
        raise FileError(f"file '{source}': is a zip archive without a network header, expected a .snn file")
    try:
        header = json.loads(stored.tobytes().decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"file '{source}': the header is damaged ({_first_line(error)}); write it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FileError(f"file '{source}': is not a '{FORMAT}', expected a .snn file")
    if header.get("version") not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise FileError(f"file '{source}': version {header.get('version')}, this release reads {known}; update spear-deploy")
    return header


def _first_line(error: BaseException) -> str:
    return (str(error).split("\n")[0] or type(error).__name__)[:120]


# ------------------------------------------------------------------------------------------------------------ layers


def _encode_layer(layer: Layer, place: str, arrays: dict[str, Array]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": layer.name}
    for part in PARTS:
        value = getattr(layer, part)
        if value is not None:
            row[part] = _encode_part(value, f"{place}.{part}", arrays)
    return row


def _encode_part(value: Any, place: str, arrays: dict[str, Array]) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": type(value).__name__}
    for field in fields(value):
        item = getattr(value, field.name)
        added = (field.name, field.type)
        if added in LATER_FIELDS and not isinstance(item, np.ndarray) and item == LATER_FIELDS[added]:
            continue
        if isinstance(item, np.ndarray):
            key = f"{place}.{field.name}"
            arrays[key] = item
            row[field.name] = {"array": key}
        elif isinstance(item, SparseMatrix):
            keys = {name: f"{place}.{field.name}.{name}" for name in SPARSE_PARTS}
            arrays.update({key: getattr(item, name) for name, key in keys.items()})
            row[field.name] = {"sparse": keys, "shape": list(item.shape)}
        else:
            row[field.name] = list(item) if isinstance(item, tuple) else item
    return row


def _decode_layer(row: Mapping[str, Any], arrays: Mapping[str, Array], where: str) -> Layer:
    unknown = sorted(set(row) - {"name", *PARTS})
    if unknown:
        raise FileError(f"{where}: unknown part '{unknown[0]}'; update spear-deploy")
    name = str(row["name"])
    try:
        parts = {part: _decode_part(part, row[part], arrays, where) for part in PARTS if part in row}
    except GraphError as error:
        raise GraphError(f"{where} ('{name}'): {error}") from error
    return Layer(name=name, **parts)


def _decode_part(part: str, row: Mapping[str, Any], arrays: Mapping[str, Array], where: str) -> Any:
    kind = PARTS[part].get(row["kind"])
    if kind is None:
        hint = did_you_mean(str(row["kind"]), PARTS[part])
        raise FileError(f"{where}: unknown {part} '{row['kind']}'{hint or '; update spear-deploy'}")
    types = {field.name: str(field.type) for field in fields(kind)}
    unknown = sorted(set(row) - {"kind", *types})
    if unknown:
        raise FileError(f"{where}: {row['kind']} has no '{unknown[0]}'; update spear-deploy")
    return kind(**{name: _decode_value(item, types[name], arrays, where) for name, item in row.items() if name != "kind"})


def _decode_value(item: Any, expected: str, arrays: Mapping[str, Array], where: str) -> Any:
    """Return a field's value, of the type that its annotation names."""
    if item is None and "None" in expected:
        return None
    if expected == "Weights" and "sparse" in item:
        outputs, inputs = (_check_integer(n) for n in item["shape"])
        parts = {name: _take_array(item["sparse"][name], arrays, where) for name in SPARSE_PARTS}
        return SparseMatrix(**parts, shape=(outputs, inputs))
    if expected.startswith(("Array", "Weights")):
        return _take_array(item["array"], arrays, where)
    if expected.startswith("tuple"):
        return tuple(_check_integer(n) for n in item)
    if expected.startswith("int"):
        return _check_integer(item)
    return float(item) if expected == "float" else str(item)


def _take_array(key: str, arrays: Mapping[str, Array], where: str) -> Array:
    if key not in arrays:
        raise FileError(f"{where}: array '{key}' is missing; write the file again")
    return arrays[key]


def _check_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} where a whole number belongs")
    return value
