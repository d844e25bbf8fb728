"""What does a neuron do in one step, and in many?

`start` makes the state of a layer, `step` advances it in place and returns what the layer emits, `run` does so for all steps
of a block. Each number format has a module: floating point, and the integers of a chip family.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from spear_deploy.network import (
    INTEGER_NEURONS,
    Array,
    CubaLI,
    CubaLIF,
    LoihiLIF,
    Neuron,
    Shape,
    SigmaDelta,
    SpeckIF,
    UnroundedLIF,
    XyloLIF,
)
from spear_deploy.simulator.neurons import floating, loihi, sigma_delta, speck, unrounded, xylo
from spear_deploy.simulator.neurons.floating import factors
from spear_deploy.simulator.neurons.loihi import STATE_LIMIT
from spear_deploy.simulator.neurons.state import NeuronState

__all__ = ["STATE_LIMIT", "NeuronState", "factors", "has_current", "overflows", "run", "start", "step"]


FORMATS: dict[type, ModuleType] = {
    LoihiLIF: loihi,
    SpeckIF: speck,
    XyloLIF: xylo,
    UnroundedLIF: unrounded,
    SigmaDelta: sigma_delta,
}
"""The module of each neuron that is not of floating point."""


def start(neuron: Neuron, batch: int, shape: Shape, dt_s: float, dtype: type = np.float32) -> NeuronState:
    """Return the state before the first step, for a batch of neurons of the given shape."""
    own = FORMATS.get(type(neuron))
    if own is None:
        return floating.start(neuron, batch, shape, dt_s, dtype)  # type: ignore[arg-type]  # what is in no table
    state: NeuronState = own.start(neuron, batch, shape)
    return state


def step(neuron: Neuron, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place.

    Returns:
        Spikes as bool, their number as int64 (Speck, Xylo), graded ones as int64 (sigma-delta), or a copy of v for a readout.
    """
    emitted: Array = FORMATS.get(type(neuron), floating).step(neuron, state, x)
    return emitted


def run(neuron: Neuron, state: NeuronState, drive: Array, emitted: Array, v: Array | None = None, u: Array | None = None) -> None:
    """Advance as many steps as `drive` holds, in place.

    Args:
        drive: (K, B, *shape); whole numbers, of any type, where the neuron is integer.
        emitted: (K, B, *shape), takes what the layer emits.
        v, u: (K, B, *shape), take the states after each step.
    """
    if isinstance(neuron, LoihiLIF):
        loihi.run(neuron, state, drive, emitted, v, u)
        return
    if isinstance(neuron, INTEGER_NEURONS):
        drive = drive.astype(np.int64, copy=False)
    for t, x in enumerate(drive):
        emitted[t] = step(neuron, state, x)
        if v is not None:
            v[t] = state.v
        if u is not None:
            u[t] = state.u


def has_current(neuron: Neuron) -> bool:
    """Say whether a neuron has a synaptic current u besides its membrane potential."""
    return isinstance(neuron, (CubaLIF, CubaLI, LoihiLIF, XyloLIF, UnroundedLIF))


def overflows(neuron: Neuron, state: NeuronState) -> dict[str, int]:
    """Return how often each integer state left its bits, by what happens there; nothing where none did."""
    if isinstance(neuron, SpeckIF):
        found = {"v_saturated": state.saturations}
    elif isinstance(neuron, SigmaDelta):
        found = {"v_beyond_24_bits": state.saturations}
    elif isinstance(neuron, XyloLIF):
        found = {"u_saturated": state.u_saturations, "v_saturated": state.saturations}
    else:
        found = {"u_wrapped": state.wraps, "v_saturated": state.saturations}
    return found if any(found.values()) else {}
