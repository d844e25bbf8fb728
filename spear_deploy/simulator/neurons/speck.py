"""Update of the Speck and DYNAP-CNN neuron, clipped at its lower bound.

States are int64.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.network import Array, Shape, SpeckIF
from spear_deploy.simulator.neurons.state import NeuronState

LOW = -(1 << 15)
"""Lowest value of a 16-bit state: only a v below it has overflowed, a higher bound is the neuron's own."""


def start(neuron: SpeckIF, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    v = np.broadcast_to(neuron.v_init.astype(np.int64), (batch, *shape)).copy()
    constants = {"v_threshold": neuron.v_threshold.astype(np.int64), "v_min": neuron.v_min.astype(np.int64)}
    return NeuronState(v, None, constants)


def step(neuron: SpeckIF, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return the number of spikes, int64."""
    c = state.constants
    v: Array = state.v + x
    count: Array = np.maximum(v, 0) // c["v_threshold"]
    v = v - (count * c["v_threshold"] if neuron.reset == "subtract" else v * (count > 0))
    state.saturations += int(np.count_nonzero(v < LOW))
    state.v = np.maximum(v, c["v_min"])
    return count
