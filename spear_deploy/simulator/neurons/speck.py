"""Update of the Speck and DYNAP-CNN neuron, clipped to 16 bits.

States are int64.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.network import Array, Shape, SpeckIF
from spear_deploy.simulator.neurons.state import NeuronState


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
    low = v < c["v_min"]
    state.saturations += int(np.count_nonzero(low))
    np.copyto(v, c["v_min"], where=low)
    state.v = v
    return count
