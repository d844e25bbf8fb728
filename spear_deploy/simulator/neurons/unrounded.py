"""What would a neuron of the Loihi family do in one step if the chip did not round? In float64."""

from __future__ import annotations

import numpy as np

from spear_deploy.network import LOIHI_UNIT, Array, Shape, UnroundedLIF
from spear_deploy.simulator.neurons.state import NeuronState

TIE = 2.0**-20
"""Up to this, in units of the integer state, a potential meets its threshold and does not exceed it; float64 rounds far below."""


def start(neuron: UnroundedLIF, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, for a batch of neurons of the given shape."""
    full = (batch, *shape)
    constants = {name: getattr(neuron, name).astype(np.float64) for name in ("bias", "v_reset")}
    constants |= {"keep_u": 4096.0 - neuron.decay_u, "keep_v": 4096.0 - neuron.decay_v}
    if neuron.v_threshold is not None:
        constants["v_threshold"] = LOIHI_UNIT * neuron.v_threshold.astype(np.float64)
    return NeuronState(np.broadcast_to(neuron.v_init.astype(np.float64), full).copy(), np.zeros(full), constants)


def step(neuron: UnroundedLIF, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return spikes as bool, or a copy of v for a readout."""
    c = state.constants
    assert state.u is not None
    state.u = _decayed(state.u, c["keep_u"], neuron.truncates) + LOIHI_UNIT * x
    state.v = _decayed(state.v, c["keep_v"], neuron.truncates) + state.u + c["bias"]
    if neuron.v_threshold is None:
        return state.v.copy()
    spikes: Array = state.v > c["v_threshold"] + TIE
    after = c["v_reset"] if neuron.reset == "value" else state.v - c["v_threshold"]
    np.copyto(state.v, after, where=spikes)
    return spikes


def _decayed(x: Array, keep: Array, truncates: bool) -> Array:
    product: Array = x * keep / 4096.0  # the division is by a power of two and rounds nothing
    return np.trunc(product) if truncates else product
