"""May this ONNX file be run? Only what `write_onnx` could have written is handed to onnxruntime.

onnxruntime trusts its files: a damaged one can name a size that the file does not hold, an operator that allocates what it
likes, or a path outside. So a file is parsed first, which costs memory in proportion to its bytes, and refused unless every
tensor lies in the file with as many bytes as its shape says, every operator is one that we write, the shapes follow from each
other, and a step holds at most `MAX_VALUES_PER_BYTE` values for a byte of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError
from spear_deploy.interchange.onnx.neurons import DOMAIN, OPSET
from spear_deploy.interchange.snn_file import MAX_VALUES_PER_BYTE

IR_VERSION = 10
META = "spear_deploy."
FACTS = ("form", "integer", "input_shape", "states", "input_limit")
OPERATORS = frozenset(
    "Add And Cast Concat Constant Conv Div Equal Flatten Gather Greater Identity LessOrEqual MatMul Max Min Mod Mul Neg Not "
    "Round Scan Slice Sub Unsqueeze Where".split()
)
"""What `write_onnx` writes beside the neurons, which are functions in the file; none makes a size of its own but Conv."""

_BYTES = {1: 4, 7: 8, 9: 1, 11: 8}
"""Bytes of an element, by ONNX's number of its type: float, int64, bool, double."""


class _Foreign(Exception):
    """What a file holds that we do not write."""


def checked_model(source: Path, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a model that may be run, and the facts in its metadata.

    Raises:
        FileError: damaged, or written by something else.
    """
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError and its kin have no public base
        raise FileError(f"file '{source}': is not a complete ONNX file ({_line(error)}); export it again") from error
    try:
        if not any(str(entry.key).startswith(META) for entry in model.metadata_props):
            raise FileError(f"file '{source}': has no metadata of ours, run it by its own tool or export it again")
        facts = {key: _fact(model, key) for key in FACTS}
        _check_versions(model)
        for node in _nodes(model):
            _check_node(node, {function.name for function in model.functions})
        for tensor in _tensors(model):
            _check_tensor(tensor)
        if not (facts["input_limit"] is None or isinstance(facts["input_limit"], (int, float))):
            raise _Foreign("an input limit that is no number")
        _check_states(model, facts, len(data))
        onnx.checker.check_model(model, full_check=True)
    except FileError:
        raise
    except (_Foreign, ValueError, TypeError, KeyError, AttributeError, RecursionError, UnicodeDecodeError) as error:
        raise _damaged(source, error) from error
    except Exception as error:  # onnx's checker and shape inference raise exceptions of their own
        if type(error).__module__.startswith(("onnx", "google")):
            raise _damaged(source, error) from error
        raise
    return data, facts


def _damaged(source: Path, error: Exception) -> FileError:
    return FileError(f"file '{source}': is not what write_onnx writes ({_line(error)}); export it again")


def _line(error: BaseException) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:160]


def _fact(model: Any, key: str) -> Any:
    values = [entry.value for entry in model.metadata_props if entry.key == META + key]
    if len(values) != 1:
        raise _Foreign(f"'{META}{key}' is there {len(values)} times in the metadata")
    return json.loads(values[0])


def _check_versions(model: Any) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if model.ir_version != IR_VERSION or opsets != {"": OPSET, DOMAIN: 1}:
        raise _Foreign(f"IR {model.ir_version} and operator sets {opsets}")


def _nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of graph, functions and bodies."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]


def _check_node(node: Any, functions: set[str]) -> None:
    known = node.op_type in functions if node.domain == DOMAIN else not node.domain and node.op_type in OPERATORS
    if not known:
        raise _Foreign(f"operator '{node.op_type}' of domain '{node.domain}'")


def _tensors(model: Any) -> Iterator[Any]:
    """Yield the tensors that graph, functions and bodies hold."""
    yield from model.graph.initializer
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            yield from attribute.g.initializer
            if attribute.HasField("t"):
                yield attribute.t


def _check_tensor(tensor: Any) -> None:
    size = _BYTES.get(tensor.data_type)
    if size is None or tensor.data_location or tensor.external_data:
        raise _Foreign(f"tensor '{tensor.name}' of type {tensor.data_type} or outside of the file")
    if min(tensor.dims, default=1) < 0 or math.prod(tensor.dims) * size != len(tensor.raw_data):
        raise _Foreign(f"tensor '{tensor.name}' of shape {list(tensor.dims)} in {len(tensor.raw_data)} bytes")


def _check_states(model: Any, facts: dict[str, Any], size: int) -> None:
    """Check that the states in the metadata are those of the graph, and not too many values for the file."""
    end, end_next, x, time = {"step": ("", "_next", "x", []), "scan": ("_init", "_final", "x_seq", ["T"])}[facts["form"]]
    taken: dict[str, list[Any]] = {x: [*time, "N", *facts["input_shape"]]}
    given = set()
    for state in facts["states"]:
        name, shape = state["name"], state["shape"]
        taken[f"{name}{end}"] = ["N", *shape]
        given.add(f"{name}{end_next}")
        start = np.asarray(state["start"])
        if state["next"] != f"{name}_next" or state["type"] not in _BYTES or start.dtype.kind not in "if":
            raise _Foreign(f"state '{name}' that starts and goes on in another way")
        if np.broadcast_shapes(start.shape, tuple(shape)) != tuple(shape):
            raise _Foreign(f"state '{name}' that does not start in its shape")
    if {value.name: _shape(value) for value in model.graph.input} != taken:
        raise _Foreign("inputs of the graph that are not those of its metadata")
    if not {f"output{'_seq' if time else ''}", *given} <= {value.name for value in model.graph.output}:
        raise _Foreign("outputs of the graph that are not those of its metadata")
    values = sum(math.prod(n for n in _shape(v) if isinstance(n, int)) for v in (*model.graph.input, *model.graph.output))
    if values > size * MAX_VALUES_PER_BYTE:
        raise _Foreign(f"{values} values in a step for {size} bytes")


def _shape(value: Any) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    shape: list[int | str] = [d.dim_param or d.dim_value for d in dims]
    if any(isinstance(n, int) and n < 1 for n in shape):
        raise _Foreign(f"'{value.name}' of shape {shape}")
    return shape
