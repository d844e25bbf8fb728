"""What does a neuron compute, in ONNX operators?

Each kind of neuron is a model-local function of the domain `spear.snn`, so that a tool that knows it sees a neuron, and a
tool that does not sees the operators. The order of operations is that of `spear_deploy.neurons`; integers are int64, whose
division truncates towards zero as the chip does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy import neurons
from spear_deploy.layers import IF, LI, LIF, LOIHI_UNIT, READOUTS, Array, CubaLI, CubaLIF, LoihiLIF, Neuron

DOMAIN = "spear.snn"
OPSET = 18
LIMIT = neurons.STATE_LIMIT


def function_name(neuron: Neuron) -> str:
    """Return the name of the function for a neuron, e.g. "LIF", "LIF_subtract", "LoihiLIF_refractory", "LoihiLIF_readout"."""
    name = type(neuron).__name__
    if isinstance(neuron, LoihiLIF):
        if neuron.v_threshold is None:
            return f"{name}_readout"
        name += "_refractory" if neuron.refractory_steps else ""
    return name + ("_subtract" if not isinstance(neuron, READOUTS) and neuron.reset == "subtract" else "")


def state_names(neuron: Neuron) -> list[str]:
    """Return the names of a neuron's states in the order of the function's arguments."""
    names = ["u"] if isinstance(neuron, (CubaLIF, CubaLI, LoihiLIF)) else []
    names.append("v")
    if isinstance(neuron, LoihiLIF) and neuron.refractory_steps and neuron.v_threshold is not None:
        names.append("rest")
    return names


def start_values(neuron: Neuron, dt_s: float) -> dict[str, Array]:
    """Return what the states are before the first step, in a form that spreads over the layer's shape."""
    values: dict[str, Array] = {name: np.zeros((), np.int64) for name in state_names(neuron)}
    if isinstance(neuron, LoihiLIF):
        return {**values, "v": neuron.v_init.astype(np.int64)}
    f = {name: value.astype(np.float32) for name, value in neurons.factors(neuron, dt_s).items()}
    values = {name: np.zeros((), np.float32) for name in values}
    return {**values, "v": f["v_reset"] if isinstance(neuron, IF) else f["v_leak"]}


def arguments(neuron: Neuron, dt_s: float) -> dict[str, Array]:
    """Return the constants that the function takes after input and states, by name and in order."""
    if isinstance(neuron, LoihiLIF):
        values = {
            "keep_u": 4096 - neuron.decay_u.astype(np.int64),
            "keep_v": 4096 - neuron.decay_v.astype(np.int64),
            "bias": neuron.bias,
        }
        if neuron.v_threshold is not None:
            values["threshold"] = LOIHI_UNIT * neuron.v_threshold.astype(np.int64)
            if neuron.refractory_steps:
                values["refractory"] = np.asarray(neuron.refractory_steps, np.int64)
        return values
    f = {name: value.astype(np.float32) for name, value in neurons.factors(neuron, dt_s).items()}
    names = {"r": "r", "v_leak": "v_leak", "mem": "mem", "jump": "jump", "syn": "syn"}
    if not isinstance(neuron, READOUTS):
        names["threshold"] = "v_threshold"
        if neuron.reset == "value":
            names["v_reset"] = "v_reset"
    found = {name: f[key] for name, key in names.items() if key in f and not (isinstance(neuron, IF) and name == "v_leak")}
    if "syn" in found:
        found["syn"] = -found["syn"]
    return found


def function(neuron: Neuron, dt_s: float) -> Any:
    """Return the FunctionProto for the kind of a neuron: inputs x, states, constants; outputs spikes or v, then new states."""
    body = _Body()
    if isinstance(neuron, LoihiLIF):
        outputs = _loihi(body, neuron)
    else:
        outputs = _floating(body, neuron)
    from onnx import helper

    inputs = ["x", *state_names(neuron), *arguments(neuron, dt_s)]
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_function(DOMAIN, function_name(neuron), inputs, outputs, body.nodes, opsets)
    made.doc_string = (type(neuron).__doc__ or "").split("\n\n    Other tools")[0]
    return made


class _Body:
    """The nodes of a function, written as assignments."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def put(self, output: str, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def whole(self, name: str, value: int) -> str:
        from onnx import numpy_helper

        return self.put(name, "Constant", value=numpy_helper.from_array(np.array(value, np.int64)))


def _floating(body: _Body, neuron: Neuron) -> list[str]:
    put = body.put
    cuba = isinstance(neuron, (CubaLIF, CubaLI))
    source = "x"
    if cuba:
        source = put("jumped", "Add", "u", put("jump_x", "Mul", "jump", "x"))
        put("u_next", "Add", source, put("lost", "Mul", "syn", source))
    put("current", "Mul", "r", source)
    if isinstance(neuron, IF):
        put("v_new", "Add", "v", "current")
    else:
        if isinstance(neuron, LIF):
            put("driven", "Sub", put("aim", "Add", "current", "v_leak"), "v")
        else:
            put("driven", "Add", put("leak", "Sub", "v_leak", "v"), "current")
        put("v_new", "Add", "v", put("change", "Mul", "mem", "driven"))
    if isinstance(neuron, (LI, CubaLI)):
        put("v_next", "Identity", "v_new")
        return ["v_new", *(["u_next"] if cuba else []), "v_next"]
    put("spikes", "Greater", "v_new", "threshold")
    after = "v_reset" if neuron.reset == "value" else put("lowered", "Sub", "v_new", "threshold")
    put("v_next", "Where", "spikes", after, "v_new")
    return ["spikes", *(["u_next"] if cuba else []), "v_next"]


def _loihi(body: _Body, neuron: LoihiLIF) -> list[str]:
    put, whole = body.put, body.whole
    whole("scale", 4096)
    whole("unit", LOIHI_UNIT)
    put("u_kept", "Div", put("u_scaled", "Mul", "u", "keep_u"), "scale")
    put("u_sum", "Add", "u_kept", put("input", "Mul", "x", "unit"))
    put("over", "Greater", "u_sum", whole("top", LIMIT))
    put("under", "LessOrEqual", "u_sum", whole("bottom", -LIMIT))
    whole("turn", 2 * LIMIT)
    put("u_down", "Where", "over", put("u_less", "Sub", "u_sum", "turn"), "u_sum")
    put("u_next", "Where", "under", put("u_more", "Add", "u_sum", "turn"), "u_down")
    put("v_kept", "Div", put("v_scaled", "Mul", "v", "keep_v"), "scale")
    put("v_sum", "Add", put("v_driven", "Add", "v_kept", "u_next"), "bias")
    put("v_floor", "Max", "v_sum", whole("lowest", 1 - LIMIT))
    put("v_free", "Min", "v_floor", whole("highest", LIMIT - 1))
    if neuron.v_threshold is None:
        put("v_next", "Identity", "v_free")
        return ["v_free", "u_next", "v_next"]
    v = "v_free"
    if neuron.refractory_steps:
        whole("zero_rest", 0)
        put("moving", "Equal", "rest", "zero_rest")
        v = put("v_held", "Where", "moving", "v_free", "v")
        put("waited", "Cast", put("resting", "Not", "moving"), to=7)
        put("rest_less", "Sub", "rest", "waited")
    put("spikes", "Greater", v, "threshold")
    after = whole("zero", 0) if neuron.reset == "value" else put("lowered", "Sub", v, "threshold")
    put("v_next", "Where", "spikes", after, v)
    if not neuron.refractory_steps:
        return ["spikes", "u_next", "v_next"]
    put("rest_next", "Where", "spikes", "refractory", "rest_less")
    return ["spikes", "u_next", "v_next", "rest_next"]
