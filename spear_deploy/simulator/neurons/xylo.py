"""Update of the Xylo neuron, in int64 clipped to 16 bits."""

from __future__ import annotations

import numpy as np

from spear_deploy.network import Array, Shape, XyloLIF
from spear_deploy.simulator.neurons.state import NeuronState

LOW, HIGH = -(1 << 15), (1 << 15) - 1


def start(neuron: XyloLIF, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    full = (batch, *shape)
    names = ("dash_mem", "dash_syn", "bias", "v_threshold")
    constants = {name: getattr(neuron, name).astype(np.int64) for name in names if getattr(neuron, name) is not None}
    return NeuronState(np.zeros(full, np.int64), np.zeros(full, np.int64), constants)


def step(neuron: XyloLIF, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return the number of spikes, int64, or v for a readout."""
    c = state.constants
    assert state.u is not None
    u = state.u + x
    clipped = np.clip(u, LOW, HIGH)
    state.u_saturations += int(np.count_nonzero(clipped != u))
    u = state.u = clipped - _fall(clipped, c["dash_syn"])
    rise = -_fall(state.v, c["dash_mem"])
    rise = np.where(rise > HIGH, LOW, rise)  # −(−2^15), which occurs with dash = 0 only, wraps to −2^15 as in xylosim
    change = np.clip(np.clip(u + rise, LOW, HIGH) + c["bias"], LOW, HIGH)
    v = state.v + change
    clipped = np.clip(v, LOW, HIGH)
    state.saturations += int(np.count_nonzero(clipped != v))
    state.v = clipped
    if neuron.v_threshold is None:
        state.v = np.where(clipped == HIGH, 0, clipped)
        return state.v.copy()
    count: Array = np.minimum(np.maximum(clipped, 0) // c["v_threshold"], neuron.max_spikes)
    state.v = clipped - count * c["v_threshold"]
    return count


def _fall(a: Array, dash: Array) -> Array:
    """Return by how much a state decays: a >> dash, at least 1 where a is positive."""
    fall = a >> dash
    return fall + ((fall == 0) & (a > 0))
