"""Check of ONNX files before onnxruntime runs them.

onnxruntime trusts its files: a damaged one can state a size that the file does not hold, an operator that allocates any amount,
or a path outside. So a file is parsed first, which costs memory in proportion to its bytes. `onnx.checker` checks structure,
types and shapes. Checked here is what it accepts (onnx 1.17): tensors shorter than their shape, operators and versions that
`write_onnx` does not write, states that are not those of the metadata, and more than `MAX_VALUES_PER_BYTE` values in a step for
a byte of the file.
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
    "Add And Cast Concat Constant Conv Div Equal Flatten Gather Greater Identity IsNaN LessOrEqual MatMul Max Min Mod Mul Neg "
    "Not Round Scan Slice Sub Unsqueeze Where".split()
)
"""Operators that `write_onnx` writes beside the neurons, which are functions in the file. None but Conv adds to a size."""

_BYTES = {1: 4, 7: 8, 9: 1, 11: 8}
"""Bytes of an element, by ONNX's number of its type: float, int64, bool, double."""


class _ForeignContent(Exception):
    """A part of the file that `write_onnx` does not write."""


def check_model(source: Path, data: bytes) -> dict[str, Any]:
    """Check that a model may be run, and return the facts in its metadata.

    Args:
        source: the file, for errors.
        data: its bytes.

    Returns:
        The values of FACTS by name.

    Raises:
        FileError: damaged, or not written by `write_onnx`.
    """
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError and its kin have no public base
        raise FileError(f"file '{source}': is not a complete ONNX file ({_first_line(error)}); export it again") from error
    if not any(str(entry.key).startswith(META) for entry in model.metadata_props):
        raise FileError(f"file '{source}': has no metadata of spear-deploy, run it by its own tool or export it again")
    try:
        facts = _read_facts(model)
        _check_operators(model)
        for tensor in _all_tensors(model):
            _check_tensor(tensor)
        _check_states(model, facts, len(data))
        onnx.checker.check_model(model, full_check=True)
    except (_ForeignContent, ValueError, TypeError, KeyError, AttributeError, RecursionError, UnicodeDecodeError) as error:
        raise _damage_error(source, error) from error
    except Exception as error:  # onnx's checker and shape inference raise exceptions of their own
        if type(error).__module__.startswith(("onnx", "google")):
            raise _damage_error(source, error) from error
        raise
    return facts


def _damage_error(source: Path, error: Exception) -> FileError:
    return FileError(f"file '{source}': is not what write_onnx writes ({_first_line(error)}); export it again")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:160]


def _read_facts(model: Any) -> dict[str, Any]:
    stored = {entry.key: entry.value for entry in model.metadata_props}
    missing = [META + key for key in FACTS if META + key not in stored]
    if missing:
        raise _ForeignContent(f"'{missing[0]}' is missing in the metadata")
    facts = {key: json.loads(stored[META + key]) for key in FACTS}
    if not (facts["input_limit"] is None or isinstance(facts["input_limit"], (int, float))):
        raise _ForeignContent("an input limit that is no number")
    return facts


def _check_operators(model: Any) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if model.ir_version != IR_VERSION or opsets != {"": OPSET, DOMAIN: 1}:
        raise _ForeignContent(f"IR {model.ir_version} and operator sets {opsets}")
    functions = {function.name for function in model.functions}
    for node in _all_nodes(model):
        known = node.op_type in functions if node.domain == DOMAIN else not node.domain and node.op_type in OPERATORS
        if not known:
            raise _ForeignContent(f"operator '{node.op_type}' of domain '{node.domain}'")


def _all_nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of graph, functions and bodies."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]


def _all_tensors(model: Any) -> Iterator[Any]:
    """Yield the tensors that graph, functions and bodies hold."""
    yield from model.graph.initializer
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            yield from attribute.g.initializer
            if attribute.HasField("t"):
                yield attribute.t


def _check_tensor(tensor: Any) -> None:
    size = _BYTES.get(tensor.data_type)
    if size is None or tensor.data_location or tensor.external_data:
        raise _ForeignContent(f"tensor '{tensor.name}' of type {tensor.data_type} or outside of the file")
    if min(tensor.dims, default=1) < 0 or math.prod(tensor.dims) * size != len(tensor.raw_data):
        raise _ForeignContent(f"tensor '{tensor.name}' of shape {list(tensor.dims)} in {len(tensor.raw_data)} bytes")


def _check_states(model: Any, facts: dict[str, Any], size: int) -> None:
    """Check that the states in the metadata are those of the graph, and that a file of `size` bytes may have that many values."""
    end, end_next, x, time = {"step": ("", "_next", "x", []), "scan": ("_init", "_final", "x_seq", ["T"])}[facts["form"]]
    inputs: dict[str, list[Any]] = {x: [*time, "N", *facts["input_shape"]]}
    outputs = {f"output{'_seq' if time else ''}"}
    for state in facts["states"]:
        name, shape = state["name"], state["shape"]
        inputs[f"{name}{end}"] = ["N", *shape]
        outputs.add(f"{name}{end_next}")
        start = np.asarray(state["start"])
        if state["next"] != f"{name}_next" or state["type"] not in _BYTES or start.dtype.kind not in "if":
            raise _ForeignContent(f"state '{name}' with another start or successor")
        if np.broadcast_shapes(start.shape, tuple(shape)) != tuple(shape):
            raise _ForeignContent(f"state '{name}' whose start has another shape")
    if {value.name: _read_shape(value) for value in model.graph.input} != inputs:
        raise _ForeignContent("inputs of the graph that are not those of its metadata")
    if not outputs <= {value.name for value in model.graph.output}:
        raise _ForeignContent("outputs of the graph that are not those of its metadata")
    values = sum(math.prod(n for n in _read_shape(v) if isinstance(n, int)) for v in (*model.graph.input, *model.graph.output))
    if values > size * MAX_VALUES_PER_BYTE:
        raise _ForeignContent(f"{values} values in a step for {size} bytes")


def _read_shape(value: Any) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    shape: list[int | str] = [d.dim_param or d.dim_value for d in dims]
    if any(isinstance(n, int) and n < 1 for n in shape):
        raise _ForeignContent(f"'{value.name}' of shape {shape}")
    return shape
