"""Integer neurons in ONNX operators.

States are int64, whose division truncates towards zero as the chips do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.network import LOIHI_UNIT, Array, LoihiLIF, SpeckIF, XyloLIF
from spear_deploy.simulator.neurons import STATE_LIMIT as LIMIT

INT64 = 7
LOW, HIGH = -(1 << 15), (1 << 15) - 1
"""The 16-bit states of Xylo."""


class FunctionBody:
    """The nodes of a function, written as assignments."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def put(self, output: str, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def whole(self, name: str, value: int) -> str:
        """Add an int64 constant and return its name."""
        from onnx import numpy_helper

        return self.put(name, "Constant", value=numpy_helper.from_array(np.array(value, np.int64)))


def write_loihi(body: FunctionBody, neuron: LoihiLIF) -> list[str]:
    """Write the update of a `LoihiLIF`; return the names of output and new states."""
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
        put("waited", "Cast", put("resting", "Not", "moving"), to=INT64)
        put("rest_less", "Sub", "rest", "waited")
    put("spikes", "Greater", v, "threshold")
    after = "v_reset" if neuron.reset == "value" else put("lowered", "Sub", v, "threshold")
    put("v_next", "Where", "spikes", after, v)
    if not neuron.refractory_steps:
        return ["spikes", "u_next", "v_next"]
    put("rest_next", "Where", "spikes", "refractory", "rest_less")
    return ["spikes", "u_next", "v_next", "rest_next"]


def write_speck(body: FunctionBody, neuron: SpeckIF) -> list[str]:
    """Write the update of a `SpeckIF`; return the names of output and new state."""
    put = body.put
    put("v_sum", "Add", "v", "x")
    put("count", "Div", put("v_above", "Max", "v_sum", body.whole("zero", 0)), "threshold")
    if neuron.reset == "subtract":
        put("v_after", "Sub", "v_sum", put("lowered", "Mul", "count", "threshold"))
    else:
        put("v_after", "Where", put("sent", "Greater", "count", "zero"), "zero", "v_sum")
    put("v_next", "Max", "v_after", "v_min")
    return ["count", "v_next"]


def write_xylo(body: FunctionBody, neuron: XyloLIF) -> list[str]:
    """Write the update of a `XyloLIF`; return the names of output and new states."""
    put, whole = body.put, body.whole
    for name, value in (("low", LOW), ("high", HIGH), ("zero", 0), ("one", 1)):
        whole(name, value)

    def clip(output: str, value: str) -> str:
        return put(output, "Min", put(f"{output}_floor", "Max", value, "low"), "high")

    def fall(state: str, power: str) -> str:
        rounded = put(f"{power}_rounded", "Sub", state, put(f"{power}_rest", "Mod", state, power))
        shifted = put(f"{power}_shifted", "Div", rounded, power)
        stuck = put(f"{power}_stuck", "Equal", shifted, "zero")
        least = put(f"{power}_least", "And", stuck, put(f"{power}_above", "Greater", state, "zero"))
        return put(f"{power}_fall", "Where", least, "one", shifted)

    u = clip("u_clipped", put("u_sum", "Add", "u", "x"))
    put("u_next", "Sub", u, fall(u, "power_syn"))
    rise = put("rise", "Neg", fall("v", "power_mem"))
    put("rise_16", "Where", put("wraps", "Greater", rise, "high"), "low", rise)
    change = clip("driven", put("drive", "Add", "u_next", "rise_16"))
    change = clip("change", put("biased", "Add", change, "bias"))
    v = clip("v_free", put("v_sum", "Add", "v", change))
    if neuron.v_threshold is None:
        put("v_next", "Where", put("is_highest", "Equal", v, "high"), "zero", v)
        return [put("sent", "Identity", "v_next"), "u_next", "v_next"]
    put("wanted", "Div", put("v_above", "Max", v, "zero"), "threshold")
    put("count", "Min", "wanted", "most")
    put("v_next", "Sub", v, put("lowered", "Mul", "count", "threshold"))
    return ["count", "u_next", "v_next"]


def list_arguments(neuron: LoihiLIF | SpeckIF | XyloLIF) -> dict[str, Array]:
    """Return the constants that the function takes after input and states, by name and in order."""

    def whole(value: Any) -> Array:
        return np.asarray(value, np.int64)

    if isinstance(neuron, SpeckIF):
        return {"threshold": whole(neuron.v_threshold), "v_min": whole(neuron.v_min)}
    if isinstance(neuron, XyloLIF):
        one = np.ones((), np.int64)
        values = {"power_syn": one << neuron.dash_syn, "power_mem": one << neuron.dash_mem, "bias": whole(neuron.bias)}
        if neuron.v_threshold is not None:
            values |= {"threshold": whole(neuron.v_threshold), "most": whole(neuron.max_spikes)}
        return values
    values = {"keep_u": 4096 - whole(neuron.decay_u), "keep_v": 4096 - whole(neuron.decay_v), "bias": whole(neuron.bias)}
    if neuron.v_threshold is not None:
        values["threshold"] = LOIHI_UNIT * whole(neuron.v_threshold)
        if neuron.reset == "value":
            values["v_reset"] = whole(neuron.v_reset)
        if neuron.refractory_steps:
            values["refractory"] = whole(neuron.refractory_steps)
    return values
