"""Update of the Loihi neuron, equal to Lava's bit-accurate models.

States are whole numbers in float64, in which every step of the update is exact: a 24-bit state times a 12-bit factor takes 36
of 53 bits, dividing by 4096 changes the exponent alone, and `trunc` rounds towards zero as the chip does. So an update is a few
vector instructions, where int64 needs a sign, a magnitude and a shift. Neurons are updated in tiles that stay in cache while
all steps pass over them, and the 24-bit limits are checked only as often as the largest input could bring a state there.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import LOIHI_UNIT, Array, LoihiLIF, Shape
from spear_deploy.simulator import kernel_choice
from spear_deploy.simulator.neurons.state import NeuronState

STATE_LIMIT = 1 << 23
"""24-bit signed state: u wraps beyond it, v saturates one below it."""

MAX_ARRIVING = 1 << 34
"""Largest sum that may arrive in one step: 64 times as much, times a 12-bit factor, is still exact."""

MANY_STEPS = 1 << 62

TILE_VALUES = 1 << 14
"""Neurons updated together: states, input and scratch of 128 KiB each, within a core's cache."""

FEW_VALUES = 1 << 11
"""Neurons up to which calls take longer than what they compute."""

Constant: TypeAlias = Any
"""A float where all neurons share a value, else an array that spreads over (samples, neurons)."""


def start(neuron: LoihiLIF, batch: int, shape: Shape) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    full = (batch, *shape)
    constants = {
        "keep_u": (4096 - neuron.decay_u.astype(np.float64)) / 4096,
        "keep_v": (4096 - neuron.decay_v.astype(np.float64)) / 4096,
        "bias": neuron.bias.astype(np.float64),
        "v_reset": neuron.v_reset.astype(np.float64),
    }
    if neuron.v_threshold is not None:
        constants["v_threshold"] = LOIHI_UNIT * neuron.v_threshold.astype(np.float64)
    rest = np.zeros(full, np.int64) if neuron.refractory_steps else None
    v = np.broadcast_to(neuron.v_init.astype(np.float64), full).copy()
    return NeuronState(v, np.zeros(full), {name: _spread_constant(value, shape) for name, value in constants.items()}, rest)


def step(neuron: LoihiLIF, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place; return spikes as bool, or a copy of v for a readout."""
    emitted = np.empty((1, *state.v.shape), np.int64 if neuron.v_threshold is None else bool)
    run(neuron, state, x[None], emitted)
    return emitted[0]


def run(
    neuron: LoihiLIF, state: NeuronState, drive: Array, emitted: Array, v: Array | None = None, u: Array | None = None
) -> None:
    """Advance as many steps as `drive` holds, in place.

    Args:
        drive: (K, B, *shape), whole numbers of any type.
        emitted: (K, B, *shape), takes the spikes, or the v of a readout.
        v, u: (K, B, *shape), take the states after each step.

    Raises:
        DataError: more arrives than exact sums hold.
    """
    steps, batch = drive.shape[:2]
    if not steps:
        return
    kernels = kernel_choice.find_kernels(drive.size)
    if kernels is not None and v is None and u is None and neuron.v_threshold is not None and not neuron.refractory_steps:
        _run_compiled(kernels, neuron, state, drive, emitted)
        return
    arrays = [None if array is None else array.reshape(steps, batch, -1) for array in (drive, emitted, v, u)]
    size = state.v[0].size
    columns = min(size, TILE_VALUES)
    rows = max(1, TILE_VALUES // columns)
    for row in range(0, batch, rows):
        for column in range(0, size, columns):
            tile = (slice(row, row + rows), slice(column, column + columns))
            steps_of_tile: Any = (slice(None), *tile)
            _run_tile(neuron, state, tile, *(None if array is None else array[steps_of_tile] for array in arrays))


def _run_compiled(kernels: ModuleType, neuron: LoihiLIF, state: NeuronState, drive: Array, emitted: Array) -> None:
    """Advance spiking neurons without rest, whose states are not recorded, through all steps."""
    assert state.u is not None
    steps, batch = drive.shape[:2]
    if drive.dtype not in (np.int32, np.float32):
        drive = drive.astype(np.float64, copy=False)
    drive = np.ascontiguousarray(drive).reshape(steps, batch, -1)
    if drive.dtype != np.int32:
        _check_arriving(_magnitude(drive))
    names = ("keep_u", "keep_v", "bias", "v_threshold", "v_reset")
    constants = np.empty((len(names), drive.shape[2]))
    for row, name in zip(constants, names, strict=True):
        row[:] = state.constants[name]
    spikes = np.ascontiguousarray(emitted).reshape(drive.shape)
    u, v = state.u.reshape(batch, -1), state.v.reshape(batch, -1)
    limits = (float(LOIHI_UNIT), float(STATE_LIMIT))
    wraps, saturations = kernels.advance_loihi(drive, spikes, u, v, constants, limits, neuron.reset == "subtract")
    state.wraps += wraps
    state.saturations += saturations
    if not emitted.flags.c_contiguous:
        emitted[...] = spikes.reshape(emitted.shape)


def _check_arriving(largest: float) -> None:
    if largest >= MAX_ARRIVING:
        raise DataError(f"{largest:.0f} arrives in one step, exact sums hold {MAX_ARRIVING}; scale weights or input down")


def _run_tile(neuron: LoihiLIF, state: NeuronState, tile: tuple[slice, slice], *arrays: Array | None) -> None:
    """Advance the neurons of a tile through all steps; `arrays` are drive, emitted, v and u of the tile."""
    drive, emitted, recorded_v, recorded_u = arrays
    assert drive is not None and emitted is not None and state.u is not None
    batch = len(state.v)
    views = state.u.reshape(batch, -1)[tile], state.v.reshape(batch, -1)[tile]
    both = np.stack(views) if views[0].size <= FEW_VALUES else views
    u, v = both
    c = _slice_constants(state, tile[1], v.shape)
    rest = None if state.rest is None else state.rest.reshape(batch, -1)[tile]
    arriving = np.multiply(drive, LOIHI_UNIT, dtype=np.float64)
    largest = _magnitude(arriving)
    _check_arriving(largest / LOIHI_UNIT)
    gain = _bound_magnitude(_magnitude(u), float(np.max(c["keep_u"])), largest, len(drive)) + float(np.abs(c["bias"]).max())
    v_reset = float(np.abs(c["v_reset"]).max())
    check_u_at, check_v_at = _count_safe_steps(_magnitude(u), largest), _count_safe_steps(max(_magnitude(v), v_reset), gain)
    biased = bool(np.any(c["bias"]))
    decay, fire = _make_decay(both, c), _make_fire(neuron, v, rest, c)
    for t, x in enumerate(arriving):
        before = v if rest is None else v.copy()
        decay()
        u += x
        if t >= check_u_at:
            state.wraps += _wrap(u)
            check_u_at = t + 1 + _count_safe_steps(_magnitude(u), largest)
        v += u
        if biased:
            v += c["bias"]
        if t >= check_v_at:
            state.saturations += _saturate(v, None if rest is None else rest == 0)
        if rest is not None:
            np.copyto(v, before, where=rest > 0)
        fire(emitted[t])
        if t >= check_v_at:
            check_v_at = t + 1 + _count_safe_steps(max(_magnitude(v), v_reset), gain)
        if recorded_v is not None:
            recorded_v[t] = v
        if recorded_u is not None:
            recorded_u[t] = u
    if both is not views:
        for view, values in zip(views, both, strict=True):
            view[...] = values


def _spread_constant(value: Array, shape: Shape) -> Constant:
    """Return a float where all values are equal, else (neurons,)."""
    first = value.reshape(-1)[0]
    return float(first) if (value == first).all() else np.broadcast_to(value, shape).reshape(-1)


def _slice_constants(state: NeuronState, columns: slice, shape: Shape) -> dict[str, Constant]:
    """Return the constants of a tile; of a small one with a value for each of its neurons.

    In a small tile the time is that of the calls, and numpy takes as long to make an array of a float as to compute.
    """
    c = {name: value[columns] if isinstance(value, np.ndarray) else value for name, value in state.constants.items()}
    if int(np.prod(shape)) <= FEW_VALUES:
        c = {name: value if _equals(value, 0.0, 1.0) else np.full(shape, value) for name, value in c.items()}
    return c


def _equals(constant: Constant, *values: float) -> bool:
    return isinstance(constant, float) and constant in values


def _make_decay(both: Array | tuple[Array, Array], c: dict[str, Constant]) -> Callable[[], None]:
    """Return the function that decays u and v by a step: state ← trunc(state · keep); keep is a multiple of 1/4096."""
    keeps = [c["keep_u"], c["keep_v"]]
    zeroed = [state for state, keep in zip(both, keeps, strict=True) if _equals(keep, 0.0)]
    parts = [(state, keep) for state, keep in zip(both, keeps, strict=True) if not _equals(keep, 0.0, 1.0)]
    if len(parts) == 2 and isinstance(both, np.ndarray):
        parts = [(both, np.stack([np.broadcast_to(keep, both[0].shape) for keep in keeps]))]

    def decay() -> None:
        for state in zeroed:
            state.fill(0)
        for state, keep in parts:
            np.multiply(state, keep, state)
            np.trunc(state, state)

    return decay


def _make_fire(neuron: LoihiLIF, v: Array, rest: Array | None, c: dict[str, Constant]) -> Callable[[Array], None]:
    """Return the function that sets spikes where v is above the threshold, and v ← v_reset or v − threshold there.

    For a readout it copies v instead. Many neurons are reset by arithmetic, since masks take longer the more of them spike.
    """
    if neuron.v_threshold is None:
        return lambda emitted: np.copyto(emitted, v, casting="unsafe")
    threshold, v_reset = c["v_threshold"], c["v_reset"]
    quiet, few = np.empty(v.shape, bool), v.size <= FEW_VALUES
    resets_to_0 = _equals(v_reset, 0.0)

    def fire(spikes: Array) -> None:
        np.less_equal(v, threshold, quiet)
        np.logical_not(quiet, spikes)
        if neuron.reset == "subtract":
            np.subtract(v, spikes * threshold, v)
        elif few:
            np.putmask(v, spikes, v_reset)
        else:
            np.multiply(v, quiet, v)
            if not resets_to_0:
                np.add(v, spikes * v_reset, v)
        if rest is not None:
            np.subtract(rest, rest > 0, rest)
            np.copyto(rest, neuron.refractory_steps, where=spikes)

    return fire


def _magnitude(x: Array) -> float:
    return max(float(x.max()), -float(x.min()))


def _bound_magnitude(held: float, keep: float, gain: float, steps: int) -> float:
    """Bound |x| under x ← keep · x + gain: it grows by at most `gain` a step, from below not beyond gain / (1 − keep)."""
    linear = held + steps * gain
    return linear if keep == 1 else min(linear, max(held, gain / (1 - keep)))


def _count_safe_steps(held: float, gain: float) -> int:
    """Return for how many steps a state of magnitude `held` that grows by at most `gain` a step stays within 24 bits."""
    if held >= STATE_LIMIT:
        return 0
    return int((STATE_LIMIT - 1 - held) // gain) if gain else MANY_STEPS


def _wrap(u: Array) -> int:
    """Wrap u into 24 bits, and return how often that was needed."""
    if _magnitude(u) < STATE_LIMIT:
        return 0
    over, under = u > STATE_LIMIT, u <= -STATE_LIMIT
    u -= 2 * STATE_LIMIT * over
    u += 2 * STATE_LIMIT * under
    return int(np.count_nonzero(over)) + int(np.count_nonzero(under))


def _saturate(v: Array, moving: Array | None) -> int:
    """Clip v to 24 bits, and return how often that changed the v of a neuron that does not rest."""
    if _magnitude(v) < STATE_LIMIT:
        return 0
    beyond = np.abs(v) >= STATE_LIMIT
    np.clip(v, 1 - STATE_LIMIT, STATE_LIMIT - 1, out=v)
    return int(np.count_nonzero(beyond if moving is None else beyond & moving))
