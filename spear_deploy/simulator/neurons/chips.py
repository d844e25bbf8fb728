"""Updates of neurons with a `ChipFormat`, in clipped int64.

The neurons' docstrings have the equations; this module has one function for each, and what they share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.network import (
    Array,
    CatalystLIF,
    ChipNeuron,
    OdinLIF,
    ReckonLIF,
    Shape,
    SpinnakerLIF,
    TrueNorthLIF,
    array_parameters,
)
from spear_deploy.simulator.kernel_choice import find_kernels
from spear_deploy.simulator.neurons.state import NeuronState
from spear_deploy.simulator.sign_sums import split_signs

RING_BUFFER_MAX = 2**16 - 1
"""sPyNNaker adds up the weights of a sign that arrive in a step in 16 bits."""
CATALYST_SUMS = (-(2**23), 2**23 - 1)
"""Catalyst N1 adds up the weights that arrive in a step in 24 bits."""
EVENT_WORK = 8
"""Updates of numpy that one event at one neuron of ODIN takes."""


def start(neuron: ChipNeuron, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    full = (batch, *shape)
    constants = {name: value.astype(np.int64) for name, value in array_parameters(neuron).items()}  # type: ignore[arg-type]
    v = np.broadcast_to(constants.get("v_init", np.zeros((), np.int64)), full).copy()
    if isinstance(neuron, SpinnakerLIF):
        constants |= {"exc": np.zeros(full, np.int64), "inh": np.zeros(full, np.int64)}
    return NeuronState(v, np.zeros(full, np.int64) if isinstance(neuron, SpinnakerLIF) else None, constants)


def step(neuron: ChipNeuron, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x`, in place; return spikes as bool, their number for ODIN, or v for a readout.

    Args:
        neuron, state: the layer.
        x: (B, *shape) sums of weights, packed by sign for SpiNNaker; for ODIN (B, inputs), the spikes of each source.
    """
    update = UPDATES[type(neuron)]
    emitted: Array = update(neuron, state, x)
    return emitted


def _clip(neuron: ChipNeuron, state: NeuronState, v: Array) -> Array:
    """Return v within its bits, and count what was beyond."""
    low, high = neuron.FORMAT.v
    state.saturations += int(np.count_nonzero((v < low) | (v > high)))
    return np.clip(v, low, high)


def _step_truenorth(neuron: TrueNorthLIF, state: NeuronState, x: Array) -> Array:
    c = state.constants
    v = _clip(neuron, state, state.v + x + c["leak"])
    spikes: Array = v >= c["v_threshold"]
    below = ~spikes & (v < c["v_min"])
    up, down = {"value": (c["v_reset"], -c["v_reset"]), "subtract": (v - c["v_threshold"], v - c["v_min"]), "none": (v, v)}[
        neuron.reset
    ]
    state.v = np.where(spikes, up, np.where(below, down if neuron.bounces else c["v_min"], v))
    return spikes


def _step_spinnaker(neuron: SpinnakerLIF, state: NeuronState, x: Array) -> Array:
    c, signs = state.constants, dict(zip(("exc", "inh"), split_signs(x), strict=True))
    for name, shift in (("exc", neuron.exc_shift), ("inh", neuron.inh_shift)):
        state.u_saturations += int(np.count_nonzero(signs[name] > RING_BUFFER_MAX))
        arriving = np.minimum(signs[name], RING_BUFFER_MAX) << shift
        c[name] = arriving if neuron.keep_u is None else c[name] + _multiply_fraction(arriving, c["init_u"])
    target = c["exc"] - c["inh"] + c["v_rest"]
    state.v = _clip(neuron, state, target - (((target - state.v) * c["keep_v"] + 2**14) >> 15))
    emitted = state.v.copy() if neuron.v_threshold is None else state.v >= c["v_threshold"]
    if neuron.v_threshold is not None:
        state.v = np.where(emitted, c["v_reset"], state.v)
    for name in signs:
        c[name] = np.zeros_like(c[name]) if neuron.keep_u is None else _multiply_fraction(c[name], c["keep_u"])
    state.u = c["exc"] - c["inh"]
    return emitted


def _multiply_fraction(a: Array, factor: Array) -> Array:
    """Return ⌊a · factor / 2^32⌋ of numbers from 0 to 2^42, whose product may need more than 63 bits."""
    return (a >> 16) * factor + ((a & 0xFFFF) * factor >> 16) >> 16


def _step_reckon(neuron: ReckonLIF, state: NeuronState, x: Array) -> Array:
    c, v = state.constants, _clip(neuron, state, state.v + x)
    if neuron.v_threshold is None:
        state.v = v * c["keep"] >> 7
        return state.v.copy()
    spikes: Array = v >= c["v_threshold"]
    fallen = v * c["keep"] >> 15
    state.v = np.where(spikes, 0 if neuron.reset == "value" else fallen - c["v_threshold"], fallen)
    return spikes


def _step_odin(neuron: OdinLIF, state: NeuronState, x: Array) -> Array:
    c, v, (low, high) = state.constants, state.v.copy(), neuron.FORMAT.v
    sent = np.zeros(v.shape, np.int64)
    flat = v.reshape(len(v), -1)
    threshold = np.broadcast_to(c["v_threshold"], v.shape[1:]).reshape(-1)
    counted = sent.reshape(len(v), -1)
    kernels = find_kernels(EVENT_WORK * int(np.count_nonzero(x)) * flat.shape[1])
    if kernels is not None and isinstance(c["weight"], np.ndarray):  # rows of a sparse matrix are read one by one below
        kernels.send_events(x, c["weight"], threshold, (low, high), flat, counted)
    else:
        _send_events(x, c["weight"], threshold, (low, high), flat, counted)
    state.v = np.maximum(v - c["leak"], low)
    return sent


def _send_events(x: Array, weight: Array, threshold: Array, limits: tuple[int, int], v: Array, counts: Array) -> None:
    """Send the spikes of a step one after another, as the compiled kernel of this name does."""
    for source in np.flatnonzero(x.any(axis=0)):
        times = x[:, source].astype(np.int64)
        for n in range(int(times.max())):
            rows = np.flatnonzero(times > n)
            moved = np.clip(v[rows] + weight[source], *limits)
            fires = moved >= threshold
            v[rows] = np.where(fires, 0, moved)
            counts[rows] += fires


def _step_catalyst(neuron: CatalystLIF, state: NeuronState, x: Array) -> Array:
    c, (low, high) = state.constants, CATALYST_SUMS
    state.saturations += int(np.count_nonzero((x < low) | (x > high)))
    v = state.v + np.clip(x, low, high) - c["leak"]
    spikes: Array = v >= c["v_threshold"]
    below = ~spikes & (v <= -c["resting"])
    state.saturations += int(np.count_nonzero(below & (c["resting"] > 0)))
    state.v = np.where(spikes | below, 0, v)
    return spikes


UPDATES: dict[type, Any] = {
    TrueNorthLIF: _step_truenorth,
    SpinnakerLIF: _step_spinnaker,
    ReckonLIF: _step_reckon,
    OdinLIF: _step_odin,
    CatalystLIF: _step_catalyst,
}
"""The function that advances each neuron by a step."""
