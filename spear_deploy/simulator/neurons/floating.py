"""Updates of floating-point neurons and of Loihi's neuron without rounding.

Floating-point neurons follow Norse's order of operations, so float32 states are equal to Norse's to the bit. `UnroundedLIF`
runs in float64.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    LOIHI_UNIT,
    READOUTS,
    Array,
    CubaLI,
    CubaLIF,
    Shape,
    UnroundedLIF,
    find_start,
    resets_late,
    sends_several,
)
from spear_deploy.simulator.neurons.state import NeuronState

TIE = 2.0**-20
"""A potential above its threshold by at most this, in units of the integer state, equals it; float64 rounds far below."""
MAX_COUNT = 2**24
"""Largest number of spikes in a step where the neuron sets no limit: float32 counts no further."""


def start(neuron: IF | LIF | CubaLIF | LI | CubaLI, batch: int, shape: Shape, dt_s: float, dtype: type) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    full = (batch, *shape)
    constants: dict[str, Array] = {name: value.astype(dtype) for name, value in factors(neuron, dt_s).items()}
    u: Array | None = np.zeros(full, dtype) if isinstance(neuron, (CubaLIF, CubaLI)) else None
    ones = frozenset(name for name, value in constants.items() if (value == 1).all())
    start: Array = find_start(neuron).astype(dtype)
    return NeuronState(np.broadcast_to(start, full).copy(), u, constants, _ones=ones)


def factors(neuron: IF | LIF | CubaLIF | LI | CubaLI, dt_s: float) -> dict[str, Array]:
    """Return the multipliers and levels of a floating-point neuron's update in float64.

    >>> {k: float(v) for k, v in factors(LIF(tau_s=0.002), 1e-3).items()}
    {'r': 1.0, 'v_leak': 0.0, 'v_threshold': 1.0, 'v_reset': 0.0, 'mem': 0.5}
    """
    names = ("r", "v_leak", "v_threshold", "v_reset")
    values = {name: np.asarray(getattr(neuron, name), np.float64) for name in names if hasattr(neuron, name)}
    if isinstance(neuron, IF) and neuron.v_min is not None:
        values["v_min"] = neuron.v_min.astype(np.float64)
    if isinstance(neuron, (LIF, LI)):
        values["mem"] = dt_s / neuron.tau_s.astype(np.float64)  # of float32, numpy's version and the shape would decide
    if isinstance(neuron, (CubaLIF, CubaLI)):
        values["mem"] = dt_s / neuron.tau_mem_s.astype(np.float64)
        values["syn"] = dt_s / neuron.tau_syn_s.astype(np.float64)
        values["jump"] = neuron.w_in * values["syn"]
    return values


def step(neuron: IF | LIF | CubaLIF | LI | CubaLI, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return spikes, or a copy of v for a readout.

    Spikes are bool, or their number as int64 where a neuron sends several in a step.
    """
    c = state.constants
    late = state.v > c["v_threshold"] if resets_late(neuron) else None
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
            if "v_min" in c:
                np.maximum(state.v, c["v_min"], out=state.v)
        elif isinstance(neuron, LI):
            state.v += c["mem"] * ((c["v_leak"] - state.v) + x)
        else:
            state.v += c["mem"] * ((x + c["v_leak"]) - state.v)
    if isinstance(neuron, READOUTS):
        return state.v.copy()
    if late is not None:
        np.subtract(state.v, c["v_threshold"], out=state.v, where=late)
    if sends_several(neuron):
        return _send_several(neuron, state.v, c)
    spikes: Array = state.v > c["v_threshold"]
    if late is not None or neuron.reset == "none":
        return spikes
    after = c["v_reset"] if neuron.reset == "value" else state.v - c["v_threshold"]
    np.copyto(state.v, after, where=spikes)
    return spikes


def _send_several(neuron: IF | LIF | CubaLIF, v: Array, c: dict[str, Array]) -> Array:
    """Reset v in place, and return the number of spikes, int64."""
    count = count_spikes(v, c["v_threshold"], neuron.max_spikes)
    if neuron.reset == "value":
        np.copyto(v, c["v_reset"], where=count > 0)
    elif neuron.reset == "subtract":
        v -= count * c["v_threshold"]
    return count.astype(np.int64)


def count_spikes(v: Array, v_threshold: Array, max_spikes: int | None) -> Array:
    """Return the number of k in 1..max_spikes with v > k · v_threshold, in the type of v; 0 where v is NaN.

    It is k or k − 1 for the k whose k · v_threshold is nearest, so that one comparison decides, and no quotient's rounding.

    >>> count_spikes(np.array([0.9, 2.5, 3.0]), np.array(1.0), None)
    array([0., 2., 2.])
    """
    most = v.dtype.type(min(max_spikes or MAX_COUNT, MAX_COUNT))  # of a plain int, numpy 1 makes float64 where it is large
    nearest = np.fmin(np.fmax(np.rint(v / v_threshold), 1), most)
    counted: Array = nearest - 1 + (v > nearest * v_threshold)
    return np.where(np.isnan(v), v.dtype.type(0), counted)


def start_unrounded(neuron: UnroundedLIF, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    full = (batch, *shape)
    constants = {name: getattr(neuron, name).astype(np.float64) for name in ("bias", "v_reset")}
    constants |= {"keep_u": 4096.0 - neuron.decay_u, "keep_v": 4096.0 - neuron.decay_v}
    if neuron.v_threshold is not None:
        constants["v_threshold"] = LOIHI_UNIT * neuron.v_threshold.astype(np.float64)
    return NeuronState(np.broadcast_to(neuron.v_init.astype(np.float64), full).copy(), np.zeros(full), constants)


def step_unrounded(neuron: UnroundedLIF, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return spikes as bool, or a copy of v for a readout."""
    c = state.constants
    assert state.u is not None
    state.u = _decay(state.u, c["keep_u"], neuron.truncates) + LOIHI_UNIT * x
    state.v = _decay(state.v, c["keep_v"], neuron.truncates) + state.u + c["bias"]
    if neuron.v_threshold is None:
        return state.v.copy()
    spikes: Array = state.v > c["v_threshold"] + TIE
    after = c["v_reset"] if neuron.reset == "value" else state.v - c["v_threshold"]
    np.copyto(state.v, after, where=spikes)
    return spikes


def _decay(x: Array, keep: Array, truncates: bool) -> Array:
    product: Array = x * keep / 4096.0  # the division is by a power of two and rounds nothing
    return np.trunc(product) if truncates else product
