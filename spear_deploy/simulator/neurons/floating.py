"""What does a floating-point neuron do in one step? What Norse does, in Norse's order of operations.

So float32 states are equal to Norse's to the bit.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.network import IF, LI, LIF, READOUTS, Array, CubaLI, CubaLIF, Shape
from spear_deploy.simulator.neurons.state import NeuronState


def start(neuron: IF | LIF | CubaLIF | LI | CubaLI, batch: int, shape: Shape, dt_s: float, dtype: type) -> NeuronState:
    """Return the state before the first step, for a batch of neurons of the given shape."""
    full = (batch, *shape)
    constants: dict[str, Array] = {name: value.astype(dtype) for name, value in factors(neuron, dt_s).items()}
    initial = constants["v_reset"] if isinstance(neuron, IF) else constants["v_leak"]
    u: Array | None = np.zeros(full, dtype) if isinstance(neuron, (CubaLIF, CubaLI)) else None
    ones = frozenset(name for name, value in constants.items() if (value == 1).all())
    return NeuronState(np.broadcast_to(initial, full).copy(), u, constants, _ones=ones)


def factors(neuron: IF | LIF | CubaLIF | LI | CubaLI, dt_s: float) -> dict[str, Array]:
    """Return the multipliers and levels of a floating-point neuron's update in float64.

    >>> {k: float(v) for k, v in factors(LIF(tau_s=0.002), 1e-3).items()}
    {'r': 1.0, 'v_leak': 0.0, 'v_threshold': 1.0, 'v_reset': 0.0, 'mem': 0.5}
    """
    names = ("r", "v_leak", "v_threshold", "v_reset")
    values = {name: np.asarray(getattr(neuron, name), np.float64) for name in names if hasattr(neuron, name)}
    if isinstance(neuron, (LIF, LI)):
        values["mem"] = dt_s / neuron.tau_s
    if isinstance(neuron, (CubaLIF, CubaLI)):
        values["mem"] = dt_s / neuron.tau_mem_s
        values["syn"] = dt_s / neuron.tau_syn_s
        values["jump"] = neuron.w_in * (dt_s / neuron.tau_syn_s)
    return values


def step(neuron: IF | LIF | CubaLIF | LI | CubaLI, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return spikes as bool, or a copy of v for a readout."""
    c = state.constants
    if isinstance(neuron, (CubaLIF, CubaLI)):
        assert state.u is not None
        state.u += x if "jump" in state._ones else c["jump"] * x
        current = state.u if "r" in state._ones else c["r"] * state.u
        state.v += c["mem"] * ((c["v_leak"] - state.v) + current)
        state.u += -c["syn"] * state.u
    else:
        x = x if "r" in state._ones else c["r"] * x
        if isinstance(neuron, IF):
            state.v += x
        elif isinstance(neuron, LI):
            state.v += c["mem"] * ((c["v_leak"] - state.v) + x)
        else:
            state.v += c["mem"] * ((x + c["v_leak"]) - state.v)
    if isinstance(neuron, READOUTS):
        return state.v.copy()
    spikes = state.v > c["v_threshold"]
    after = c["v_reset"] if neuron.reset == "value" else state.v - c["v_threshold"]
    np.copyto(state.v, after, where=spikes)
    return spikes
