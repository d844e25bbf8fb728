"""ONNX files of networks: writing, and running with onnxruntime.

    step file    inputs x and states; outputs `output`, `<layer>.spikes` of every spiking layer, and the new states
    scan file    the same over a whole sequence: one Scan node around the step

    <layer>.v, <layer>.u, <layer>.rest     a neuron's states, (N, *shape); the new ones end in `_next`
    <source>.past                          values that a source sent in the last steps, (N, steps, *shape), latest first,
                                           for edges with delay and recurrent ones
    metadata spear_deploy.*                dt_s, states with shape and starting value, layers, the largest exact input

Integer networks are exact: states in int64, sums of products in floating point where no sum can round. Floating-point
networks run in float32 in the simulator's order of operations, except that a sum of products may add up in another order;
`float_bounds` bounds the effect.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import DataError, FileError
from spear_deploy.interchange.onnx import neurons
from spear_deploy.interchange.onnx.model_check import IR_VERSION, META, check_model
from spear_deploy.interchange.onnx.step import DOUBLE, FLOAT, INT64, StepGraph
from spear_deploy.network import Array, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.files import read_bytes, replace_file

FLOAT_NOTE = (
    "float32 sums of n products may add up in another order, which moves each by up to about 2 n · 2^-24 of the sum of "
    "magnitudes; a spike may differ where v is within the bound of its threshold"
)


def write_onnx(graph: SNNGraph, path: str | os.PathLike[str], *, scan: bool = False) -> list[str]:
    """Write a network as an ONNX step graph, or as a scan over a sequence; whole or not at all.

    Returns:
        What may differ, one sentence each; empty for an integer network, which is exact.

    Raises:
        UnsupportedError: an integer sum is not exact in onnxruntime's convolution, by layer; or a neuron has no function.
        FileError: the place is not writable.
    """
    import onnx

    draft = StepGraph(graph)
    for layer in graph.layers:
        draft.add_layer(layer)
    draft.add_past()
    model = _build_scan_model(draft) if scan else _build_step_model(draft)
    onnx.checker.check_model(model, full_check=True)
    with replace_file(path) as aside:
        aside.write_bytes(model.SerializeToString())
    return [] if graph.is_integer else [FLOAT_NOTE]


# ------------------------------------------------------------------------------------------------------------- models


def _build_step_model(draft: StepGraph) -> Any:
    from onnx import helper

    inputs = [
        _describe_tensor("x", draft.input_type, draft.graph.input_shape),
        *(_describe_state(s, s["name"]) for s in draft.states),
    ]
    outputs = [_describe_tensor(o.name, o.type, o.shape) for o in draft.outputs]
    outputs += [_describe_state(s, s["next"]) for s in draft.states]
    return _build_model(draft, helper.make_graph(draft.nodes, "step", inputs, outputs, draft.initializers), "step")


def _build_scan_model(draft: StepGraph) -> Any:
    """Return the model over a sequence; the weights stay with the outer graph, where the body finds them by name."""
    from onnx import helper

    x = _describe_tensor("x", draft.input_type, draft.graph.input_shape)
    body_in = [*(_describe_state(s, s["name"]) for s in draft.states), x]
    body_out = [_describe_state(s, s["next"]) for s in draft.states]
    body_out += [_describe_tensor(o.name, o.type, o.shape) for o in draft.outputs]
    body = helper.make_graph(draft.nodes, "step", body_in, body_out)
    first, last = ([f"{s['name']}_{end}" for s in draft.states] for end in ("init", "final"))
    sequences = [f"{o.name}_seq" for o in draft.outputs]
    node = helper.make_node("Scan", [*first, "x_seq"], [*last, *sequences], body=body, num_scan_inputs=1)
    inputs = [_describe_tensor("x_seq", draft.input_type, draft.graph.input_shape, time=True)]
    inputs += [_describe_state(s, name) for s, name in zip(draft.states, first, strict=True)]
    outputs = [_describe_tensor(n, o.type, o.shape, time=True) for n, o in zip(sequences, draft.outputs, strict=True)]
    outputs += [_describe_state(s, name) for s, name in zip(draft.states, last, strict=True)]
    return _build_model(draft, helper.make_graph([node], "sequence", inputs, outputs, draft.initializers), "scan")


def _build_model(draft: StepGraph, graph: Any, form: str) -> Any:
    from onnx import helper

    opsets = [helper.make_opsetid("", neurons.OPSET), helper.make_opsetid(neurons.DOMAIN, 1)]
    functions = list(draft.functions.values())
    fields = {"functions": functions, "ir_version": IR_VERSION, "producer_name": "spear_deploy"}
    model = helper.make_model(graph, opset_imports=opsets, **fields)
    facts = {
        "form": form,
        "dt_s": draft.graph.dt_s,
        "integer": draft.graph.is_integer,
        "input_shape": list(draft.graph.input_shape),
        "states": draft.states,
        "layers": [layer.name for layer in draft.graph.layers],
        "input_limit": draft.input_limit if draft.graph.is_integer else None,
    }
    helper.set_model_props(model, {META + key: json.dumps(value) for key, value in facts.items()})
    return model


def _describe_tensor(name: str, kind: int, shape: Shape, *, time: bool = False) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, [*(["T"] if time else []), "N", *shape])


def _describe_state(state: dict[str, Any], name: str) -> Any:
    return _describe_tensor(name, state["type"], tuple(state["shape"]))


# --------------------------------------------------------------------------------------------------------------- run


def run_onnx(path: str | os.PathLike[str], x: Array) -> dict[str, Array]:
    """Run a file that `write_onnx` wrote with onnxruntime, without its optimiser.

    Args:
        path: a step or scan file.
        x: (T, B, *input shape).

    Returns:
        "output" and "<layer>.spikes", (T, B, *shape) each.

    Raises:
        FileError: missing, damaged, or not written by `write_onnx`.
        DataError: the input does not fit.
    """
    source, data = Path(path), read_bytes(path, "ONNX file")
    facts = check_model(source, data)
    session = _open_session(source, data)
    x = np.asarray(x)
    shape = tuple(facts["input_shape"])
    if x.ndim < 2 or x.shape[2:] != shape or 0 in x.shape:
        raise DataError(f"input has shape {x.shape}, the network takes {('T', 'B', *shape)}; check the axes")
    limit = facts["input_limit"]
    if limit is not None and np.abs(x.astype(np.float64)).max() > limit:
        raise DataError(f"input of up to {np.abs(x).max():g}, sums are exact up to {limit:g}; scale it down")
    x = x.astype(np.float64 if facts["integer"] else np.float32)
    states: dict[str, Array] = {}
    for state in facts["states"]:
        start = np.asarray(state["start"], {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64}[state["type"]])
        states[state["name"]] = np.broadcast_to(start, (x.shape[1], *state["shape"])).copy()
    names = [output.name for output in session.get_outputs()]
    if facts["form"] == "scan":
        inputs = {"x_seq": x, **{f"{name}_init": value for name, value in states.items()}}
        results = _run_session(source, session, names, inputs)
        return {name.removesuffix("_seq"): value for name, value in results.items() if name.endswith("_seq")}
    state_of = {s["next"]: s["name"] for s in facts["states"]}
    steps: dict[str, list[Array]] = {name: [] for name in names if name not in state_of}
    for value in x:
        results = _run_session(source, session, names, {"x": value, **states})
        states = {state_of[name]: results[name] for name in state_of}
        for name, values in steps.items():
            values.append(results[name])
    return {name: np.stack(values) for name, values in steps.items()}


def import_onnxruntime() -> Any:
    """Return the module onnxruntime; nothing in this package imports it otherwise.

    Its telemetry client starts with the import: it writes a device id and an event store into the user's cache folder and
    looks up its host. Only this variable, set before the import, keeps it from starting; child processes inherit it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _open_session(source: Path, data: bytes) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise _runtime_error(source, "load", error) from error


def _run_session(source: Path, session: Any, names: list[str], inputs: dict[str, Array]) -> dict[str, Array]:
    try:
        return dict(zip(names, session.run(names, inputs), strict=True))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise _runtime_error(source, "run", error) from error


def _runtime_error(source: Path, action: str, error: Exception) -> FileError:
    reason = str(error).split("\n")[0][:160]
    return FileError(f"file '{source}': onnxruntime does not {action} it ({reason}); export it again")
