"""Update of the sigma-delta neuron, in int64 as in Lava's models."""

from __future__ import annotations

import numpy as np

from spear_deploy.network import Array, Shape, SigmaDelta
from spear_deploy.simulator.neurons.loihi import STATE_LIMIT
from spear_deploy.simulator.neurons.state import NeuronState


def start(neuron: SigmaDelta, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step: `v` is sigma, and `constants` also holds the variables `act` and `rest`."""
    zeros = np.zeros((batch, *shape), np.int64)
    exponent = neuron.spike_exponent + neuron.state_exponent
    constants: dict[str, Array] = {"bias": neuron.bias.astype(np.int64) << exponent, "act": zeros, "rest": zeros}
    if neuron.v_threshold is not None:
        constants["v_threshold"] = neuron.v_threshold.astype(np.int64) << exponent
    return NeuronState(zeros.copy(), None, constants)


def step(neuron: SigmaDelta, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return the changes sent, int64, or a copy of sigma."""
    c = state.constants
    act: Array
    if neuron.takes == "values":
        state.v = x.astype(np.int64)
        act = state.v << (neuron.spike_exponent + neuron.state_exponent)
    else:
        state.v = state.v + x
        act = state.v + c["bias"]
    state.saturations += int((np.abs(act) >= STATE_LIMIT).sum())
    if neuron.v_threshold is None:
        return state.v.copy()
    if neuron.activation == "relu" and neuron.takes == "changes":
        act = np.maximum(act, 0)
    change = act - c["act"] + c["rest"]
    sent: Array = np.abs(change) >= c["v_threshold"]
    c["act"], c["rest"] = act, np.where(sent, 0, change)
    spikes: Array = np.where(sent, change >> neuron.state_exponent, 0)
    return spikes
