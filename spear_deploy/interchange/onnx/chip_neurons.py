"""Integer neurons of TrueNorth, ReckOn and Catalyst N1 in ONNX operators.

Their spikes are those where v reaches the threshold: not (threshold > v).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.interchange.onnx.integer_neurons import FunctionBody
from spear_deploy.network import Array, CatalystLIF, ReckonLIF, TrueNorthLIF
from spear_deploy.simulator.neurons.chips import CATALYST_SUMS


def _clip(body: FunctionBody, output: str, value: str, limits: tuple[int, int]) -> str:
    low, high = body.whole(f"{output}_low", limits[0]), body.whole(f"{output}_high", limits[1])
    return body.put(output, "Min", body.put(f"{output}_floor", "Max", value, low), high)


def write_truenorth(body: FunctionBody, neuron: TrueNorthLIF) -> list[str]:
    """Write the update of a `TrueNorthLIF`; return the names of output and new state."""
    put = body.put
    v = _clip(body, "v_free", put("v_led", "Add", put("v_sum", "Add", "v", "x"), "leak"), neuron.FORMAT.v)
    silent = put("silent", "Greater", "threshold", v)
    put("spikes", "Not", silent)
    under = put("under", "And", silent, put("below", "Greater", "v_min", v))
    up, down = v, v
    if neuron.reset == "value":
        up, down = "v_reset", put("bounced", "Neg", "v_reset")
    elif neuron.reset == "subtract":
        up, down = put("lowered", "Sub", v, "threshold"), put("raised", "Sub", v, "v_min")
    put("v_held", "Where", under, down if neuron.bounces else "v_min", v)
    put("v_next", "Where", "spikes", up, "v_held")
    return ["spikes", "v_next"]


def write_reckon(body: FunctionBody, neuron: ReckonLIF) -> list[str]:
    """Write the update of a `ReckonLIF`; return the names of output and new state."""
    put, is_readout = body.put, neuron.v_threshold is None
    v = _clip(body, "v_free", put("v_sum", "Add", "v", "x"), neuron.FORMAT.v)
    power = body.whole("power", 1 << (7 if is_readout else 15))
    product = put("product", "Mul", v, "keep")
    fallen = put("fallen", "Div", put("rounded", "Sub", product, put("rest", "Mod", product, power)), power)
    if is_readout:
        put("v_next", "Identity", fallen)
        return [put("sent", "Identity", fallen), "v_next"]
    put("spikes", "Not", put("silent", "Greater", "threshold", v))
    after = body.whole("zero", 0) if neuron.reset == "value" else put("lowered", "Sub", fallen, "threshold")
    put("v_next", "Where", "spikes", after, fallen)
    return ["spikes", "v_next"]


def write_catalyst(body: FunctionBody, neuron: CatalystLIF) -> list[str]:
    """Write the update of a `CatalystLIF`; return the names of output and new state."""
    put = body.put
    arriving = _clip(body, "arriving", "x", CATALYST_SUMS)
    v = put("v_free", "Sub", put("v_sum", "Add", "v", arriving), "leak")
    put("spikes", "Not", put("silent", "Greater", "threshold", v))
    zero = body.whole("zero", 0)
    held = put("v_held", "Where", put("above_rest", "Greater", v, "rest"), v, zero)
    put("v_next", "Where", "spikes", zero, held)
    return ["spikes", "v_next"]


KINDS = (TrueNorthLIF, ReckonLIF, CatalystLIF)
WRITERS: dict[type, Any] = {TrueNorthLIF: write_truenorth, ReckonLIF: write_reckon, CatalystLIF: write_catalyst}
"""The function that writes each neuron's update."""


def list_arguments(neuron: TrueNorthLIF | ReckonLIF | CatalystLIF) -> dict[str, Array]:
    """Return the constants that the function takes after input and states, by name and in order."""
    values = {} if neuron.v_threshold is None else {"threshold": neuron.v_threshold}
    if isinstance(neuron, TrueNorthLIF):
        values |= {"leak": neuron.leak, "v_min": neuron.v_min} | ({"v_reset": neuron.v_reset} if neuron.reset == "value" else {})
    elif isinstance(neuron, ReckonLIF):
        values |= {"keep": neuron.keep}
    else:
        values |= {"leak": neuron.leak, "rest": -neuron.resting.astype(np.int64)}
    return {name: np.asarray(value, np.int64) for name, value in values.items()}
