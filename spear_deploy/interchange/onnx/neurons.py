"""Neurons as ONNX functions.

Each kind of neuron is a model-local function of the domain `spear.snn`: a tool that knows the domain sees a neuron, other tools
see the operators. The order of operations is that of `spear_deploy.simulator.neurons`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.interchange.onnx import chip_neurons, integer_neurons
from spear_deploy.interchange.onnx.integer_neurons import INT64, FunctionBody
from spear_deploy.network import (
    FLOAT_NEURONS,
    IF,
    LI,
    LIF,
    READOUTS,
    Array,
    CatalystLIF,
    CubaLI,
    CubaLIF,
    LoihiLIF,
    Neuron,
    ReckonLIF,
    SpeckIF,
    TrueNorthLIF,
    XyloLIF,
    emits_spikes,
    find_max_spikes,
    find_start,
    is_bounded,
    resets_late,
    sends_several,
)
from spear_deploy.simulator import neurons
from spear_deploy.simulator.neurons.floating import MAX_COUNT

DOMAIN = "spear.snn"
OPSET = 18
FLOAT = 1
INTEGER_NEURONS = (LoihiLIF, SpeckIF, XyloLIF, TrueNorthLIF, ReckonLIF, CatalystLIF)
KINDS = (*FLOAT_NEURONS, *INTEGER_NEURONS)
"""The kinds of neuron that have a function."""


def function_name(neuron: Any) -> str:
    """Return the name of the function for a neuron, e.g. "LIF", "LIF_subtract_late", "IF_subtract_several"."""
    name = type(neuron).__name__
    if isinstance(neuron, INTEGER_NEURONS) and neuron.v_threshold is None:
        return f"{name}_readout"
    if isinstance(neuron, LoihiLIF) and neuron.refractory_steps:
        name += "_refractory"
    always = (*READOUTS, XyloLIF)  # kinds with one way to reset, or none
    reset = "value" if isinstance(neuron, always) else neuron.reset
    name += {"value": "", "subtract": "_subtract", "none": "_keep"}[reset]
    name += "_bouncing" * getattr(neuron, "bounces", 0)
    several = isinstance(neuron, FLOAT_NEURONS) and sends_several(neuron)
    return name + "_late" * resets_late(neuron) + "_bounded" * is_bounded(neuron) + "_several" * several


def state_names(neuron: Neuron) -> list[str]:
    """Return the names of a neuron's states in the order of the function's arguments."""
    names = ["u"] if neurons.has_current(neuron) else []
    names.append("v")
    if isinstance(neuron, LoihiLIF) and neuron.refractory_steps and neuron.v_threshold is not None:
        names.append("rest")
    return names


def start_values(neuron: Neuron, dt_s: float) -> dict[str, Array]:
    """Return the states before the first step, in a form that broadcasts to the layer's shape."""
    if isinstance(neuron, INTEGER_NEURONS):
        whole: dict[str, Array] = {name: np.zeros((), np.int64) for name in state_names(neuron)}
        return {**whole, "v": np.asarray(getattr(neuron, "v_init", 0), np.int64)}
    values: dict[str, Array] = {name: np.zeros((), np.float32) for name in state_names(neuron)}
    return {**values, "v": find_start(neuron).astype(np.float32)}


def _float32_factors(neuron: Any, dt_s: float) -> dict[str, Array]:
    return {name: value.astype(np.float32) for name, value in neurons.factors(neuron, dt_s).items()}


def list_arguments(neuron: Neuron, dt_s: float) -> dict[str, Array]:
    """Return the constants that the function takes after input and states, by name and in order."""
    if isinstance(neuron, chip_neurons.KINDS):
        return chip_neurons.list_arguments(neuron)
    if isinstance(neuron, INTEGER_NEURONS):
        return integer_neurons.list_arguments(neuron)
    f = _float32_factors(neuron, dt_s)
    names = {"r": "r", "v_leak": "v_leak", "mem": "mem", "jump": "jump", "syn": "syn"}
    if emits_spikes(neuron):
        names["threshold"] = "v_threshold"
        if neuron.reset == "value":  # type: ignore[union-attr]
            names["v_reset"] = "v_reset"
        if is_bounded(neuron):
            names["v_min"] = "v_min"
        if sends_several(neuron):
            f["most"] = np.asarray(min(find_max_spikes(neuron) or MAX_COUNT, MAX_COUNT), np.float32)
            names["most"] = "most"
    values = {name: f[key] for name, key in names.items() if key in f and not (isinstance(neuron, IF) and name == "v_leak")}
    if "syn" in values:
        values["syn"] = -values["syn"]
    return values


def build_function(neuron: Neuron, dt_s: float) -> Any:
    """Return the FunctionProto for the kind of a neuron: inputs x, states, constants; outputs spikes or v, then new states."""
    from onnx import helper

    body = FunctionBody()
    if isinstance(neuron, LoihiLIF):
        outputs = integer_neurons.write_loihi(body, neuron)
    elif isinstance(neuron, SpeckIF):
        outputs = integer_neurons.write_speck(body, neuron)
    elif isinstance(neuron, XyloLIF):
        outputs = integer_neurons.write_xylo(body, neuron)
    elif isinstance(neuron, chip_neurons.KINDS):
        outputs = chip_neurons.WRITERS[type(neuron)](body, neuron)
    else:
        outputs = _write_float_neuron(body, neuron)
    inputs = ["x", *state_names(neuron), *list_arguments(neuron, dt_s)]
    opsets = [helper.make_opsetid("", OPSET)]
    function = helper.make_function(DOMAIN, function_name(neuron), inputs, outputs, body.nodes, opsets)
    function.doc_string = (type(neuron).__doc__ or "").split("\n\n    Other tools")[0]
    return function


def max_spikes_per_step(neuron: Neuron | None, largest_input: float) -> float:
    """Return the largest number of spikes that a neuron sends in one step, from the largest sum of its input."""
    if isinstance(neuron, SpeckIF):
        return (2.0**15 + largest_input) / float(neuron.v_threshold.min())
    return float(find_max_spikes(neuron) or MAX_COUNT)


def _write_float_neuron(body: FunctionBody, neuron: Any) -> list[str]:
    put, late = body.put, resets_late(neuron)
    cuba = isinstance(neuron, (CubaLIF, CubaLI))
    source = "x"
    if cuba:
        source = put("jumped", "Add", "u", put("jump_x", "Mul", "jump", "x"))
        put("u_next", "Add", source, put("lost", "Mul", "syn", source))
    put("current", "Mul", "r", source)
    updated = "v_kept" if late else "v_new"
    if isinstance(neuron, IF):
        put("v_free" if is_bounded(neuron) else updated, "Add", "v", "current")
        if is_bounded(neuron):
            put(updated, "Max", "v_free", "v_min")
    else:
        if isinstance(neuron, LIF):
            put("driven", "Sub", put("aim", "Add", "current", "v_leak"), "v")
        else:
            put("driven", "Add", put("leak", "Sub", "v_leak", "v"), "current")
        put(updated, "Add", "v", put("change", "Mul", "mem", "driven"))
    if isinstance(neuron, (LI, CubaLI)):
        put("v_next", "Identity", "v_new")
        return ["v_new", *(["u_next"] if cuba else []), "v_next"]
    if late:
        put("pending", "Greater", "v", "threshold")
        put("v_new", "Where", "pending", put("lowered", "Sub", updated, "threshold"), updated)
    if sends_several(neuron):
        return [_count_spikes(body, neuron), *(["u_next"] if cuba else []), "v_next"]
    put("spikes", "Greater", "v_new", "threshold")
    if late or neuron.reset == "none":
        put("v_next", "Identity", "v_new")
        return ["spikes", *(["u_next"] if cuba else []), "v_next"]
    after = "v_reset" if neuron.reset == "value" else put("lowered", "Sub", "v_new", "threshold")
    put("v_next", "Where", "spikes", after, "v_new")
    return ["spikes", *(["u_next"] if cuba else []), "v_next"]


def _count_spikes(body: FunctionBody, neuron: Any) -> str:
    """Write the number of spikes and the reset of a neuron that sends several; return the name of the number, int64."""
    put = body.put
    put("one", "Cast", body.whole("whole_one", 1), to=FLOAT)
    rounded = put("rounded", "Round", put("ratio", "Div", "v_new", "threshold"))
    put("nearest", "Min", put("from_one", "Max", rounded, "one"), "most")
    reached = put("reached", "Greater", "v_new", put("level", "Mul", "nearest", "threshold"))
    counted = put("counted", "Add", put("below", "Sub", "nearest", "one"), put("last", "Cast", reached, to=FLOAT))
    none = put("none", "Cast", body.whole("zero", 0), to=FLOAT)
    count = put("count", "Where", put("undefined", "IsNaN", "v_new"), none, counted)  # no count of NaN is a whole number
    put("spikes", "Cast", count, to=INT64)
    if neuron.reset == "subtract":
        put("v_next", "Sub", "v_new", put("lowered", "Mul", count, "threshold"))
    elif neuron.reset == "value":
        put("sent", "Greater", "spikes", "zero")
        put("v_next", "Where", "sent", "v_reset", "v_new")
    else:
        put("v_next", "Identity", "v_new")
    return "spikes"
