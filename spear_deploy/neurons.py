"""What does a neuron do in one step?

`start` makes the state of a layer, `step` advances it in place and returns what the layer emits. Floating-point neurons
run in Norse's order of operations, so that float32 states are equal to Norse's to the bit; `LoihiLIF` runs in int64 and
is equal to Lava's bit-accurate models.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spear_deploy.layers import IF, LI, LIF, LOIHI_UNIT, READOUTS, Array, CubaLI, CubaLIF, LoihiLIF, Neuron, Shape

STATE_LIMIT = 1 << 23
"""24-bit signed state: u wraps beyond it, v saturates one below it."""


@dataclass
class NeuronState:
    """The state of one layer and the constants of its update.

    Attributes:
        v, u: membrane potential and synaptic current, (B, *shape); u is None where the neuron has none.
        constants: the factors of the update equation, rounded once to the type of the state.
        rest: steps for which v rests (refractory neurons), or None.
        wraps, saturations: how often a 24-bit u wrapped and a 24-bit v was clipped.
    """

    v: Array
    u: Array | None
    constants: dict[str, Array]
    rest: Array | None = None
    wraps: int = 0
    saturations: int = 0
    _ones: frozenset[str] = field(default_factory=frozenset)


def start(neuron: Neuron, batch: int, shape: Shape, dt_s: float, dtype: type = np.float32) -> NeuronState:
    """Return the state before the first step, for a batch of neurons of the given shape."""
    full = (batch, *shape)
    if isinstance(neuron, LoihiLIF):
        v = np.broadcast_to(neuron.v_init.astype(np.int64), full).copy()
        constants = {
            "keep_u": 4096 - neuron.decay_u.astype(np.int64),
            "keep_v": 4096 - neuron.decay_v.astype(np.int64),
            "bias": neuron.bias,
        }
        if neuron.v_threshold is not None:
            constants["v_threshold"] = LOIHI_UNIT * neuron.v_threshold.astype(np.int64)
        rest = np.zeros(full, np.int64) if neuron.refractory_steps else None
        return NeuronState(v, np.zeros(full, np.int64), constants, rest)
    constants = {name: value.astype(dtype) for name, value in factors(neuron, dt_s).items()}
    initial = constants["v_reset"] if isinstance(neuron, IF) else constants["v_leak"]
    u: Array | None = np.zeros(full, dtype) if isinstance(neuron, (CubaLIF, CubaLI)) else None
    ones = frozenset(name for name, value in constants.items() if (value == 1).all())
    return NeuronState(np.broadcast_to(initial, full).copy(), u, constants, _ones=ones)


def factors(neuron: Neuron, dt_s: float) -> dict[str, Array]:
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


def step(neuron: Neuron, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place.

    Returns:
        Spikes as bool, or a copy of v for a readout.
    """
    if isinstance(neuron, LoihiLIF):
        return _step_loihi(neuron, state, x)
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


def _step_loihi(neuron: LoihiLIF, state: NeuronState, x: Array) -> Array:
    c = state.constants
    assert state.u is not None
    u = _decayed(state.u, c["keep_u"]) + LOIHI_UNIT * x
    over, under = u > STATE_LIMIT, u <= -STATE_LIMIT
    state.wraps += int(np.count_nonzero(over)) + int(np.count_nonzero(under))
    u -= 2 * STATE_LIMIT * over
    u += 2 * STATE_LIMIT * under
    state.u = u
    v = _decayed(state.v, c["keep_v"]) + u + c["bias"]
    clipped = np.clip(v, 1 - STATE_LIMIT, STATE_LIMIT - 1)
    moving = None
    if state.rest is not None:
        moving = state.rest == 0
        clipped = np.where(moving, clipped, state.v)
        state.rest -= ~moving
    state.saturations += int(np.count_nonzero((clipped != v) if moving is None else (clipped != v) & moving))
    state.v = clipped
    if neuron.v_threshold is None:
        return clipped.copy()
    spikes = clipped > c["v_threshold"]
    after = 0 if neuron.reset == "value" else clipped - c["v_threshold"]
    np.copyto(clipped, after, where=spikes)
    if state.rest is not None:
        np.copyto(state.rest, neuron.refractory_steps, where=spikes)
    return spikes


def _decayed(x: Array, keep: Array) -> Array:
    """Return trunc(x · keep / 4096): towards zero, as the chip does."""
    product = x * keep
    return np.sign(product) * (np.abs(product) >> 12)
