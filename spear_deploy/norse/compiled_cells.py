"""Compiled loops over the steps of a layer's neurons, and their gradient.

Imports numba, so it is imported by `fused_cells.py` alone. Every loop has the operations of Norse's cells in float32, in the
order in which torch computes them and their gradients: outputs and gradients are equal to the bit
(`tests/norse/test_fused_cells.py`). What a step needs stays in the innermost cache, where torch passes over memory some twenty
times. One thread.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.network import Array
from spear_deploy.simulator.compiled_kernels import njit

TILE = 512
"""Neurons that are taken through all steps together."""
ONE, ZERO = np.float32(1), np.float32(0)
BOX, INTEGRATES, HAS_CURRENT, SPIKES = 1, 2, 4, 8
"""Parts of a cell, as bits: a leak added to the input first, no leak at all, a synaptic current, a threshold."""
VALUE, SUBTRACT, LATE, NONE = range(4)


@njit
def run_steps(  # type: ignore[no-untyped-def]
    drive, start, rate, decay, leak, level, reset_level, parts, reset, out, held
) -> None:
    """Run all steps from v = `start`, the synaptic current 0.

    Args:
        drive: (T, B, n) float32, the input of the cells.
        start, rate, decay: (n,) float32: v before the first step, dt/tau of the membrane, −dt/tau of the synapse.
        leak, level, reset_level: (n,) float32: leak, threshold and reset potential.
        parts, reset: which cell, see the module.
        out: (T, B, n), gets spikes or potentials.
        held: (T, B, n), gets v before the reset, which the gradient needs; of no steps where none is needed.
    """
    steps, batch, neurons = drive.shape
    scratch = np.empty((4, TILE), np.float32)
    for b in range(batch):
        for first in range(0, neurons, TILE):
            last = min(first + TILE, neurons)
            size = last - first
            v, current, total, fresh = scratch[0][:size], scratch[1][:size], scratch[2][:size], scratch[3][:size]
            mem, syn, rest = rate[first:last], decay[first:last], leak[first:last]
            bound, back = level[first:last], reset_level[first:last]
            v[:] = start[first:last]
            current[:] = ZERO
            for t in range(steps):
                x, sent = drive[t, b, first:last], out[t, b, first:last]
                if parts & HAS_CURRENT:
                    _add_current(x, syn, current, total)
                else:
                    total[:] = x
                _charge(v, total, mem, rest, parts, fresh)
                if not parts & SPIKES:
                    v[:] = fresh
                    sent[:] = fresh
                    continue
                if reset == LATE:
                    _subtract_pending(v, bound, fresh)
                for k in range(len(v)):
                    sent[k] = ONE if fresh[k] - bound[k] > ZERO else ZERO
                if len(held):
                    held[t, b, first:last] = fresh
                _reset(sent, fresh, bound, back, reset, v)


@njit
def _add_current(x, syn, current, total) -> None:  # type: ignore[no-untyped-def]
    for k in range(len(x)):
        total[k] = current[k] + x[k]
        current[k] = total[k] + syn[k] * total[k]


@njit
def _charge(v, total, mem, rest, parts, fresh) -> None:  # type: ignore[no-untyped-def]
    if parts & INTEGRATES:
        for k in range(len(v)):
            fresh[k] = v[k] + total[k]
    elif parts & BOX:
        for k in range(len(v)):
            fresh[k] = v[k] + mem[k] * (total[k] + rest[k] - v[k])
    else:
        for k in range(len(v)):
            fresh[k] = v[k] + mem[k] * ((rest[k] - v[k]) + total[k])


@njit
def _subtract_pending(v, bound, fresh) -> None:  # type: ignore[no-untyped-def]
    for k in range(len(v)):
        pending = ONE if v[k] > bound[k] else ZERO
        fresh[k] = fresh[k] - pending * bound[k]


@njit
def _reset(sent, fresh, bound, back, reset, v) -> None:  # type: ignore[no-untyped-def]
    if reset == VALUE:
        for k in range(len(v)):
            v[k] = (ONE - sent[k]) * fresh[k] + sent[k] * back[k]
    elif reset == SUBTRACT:
        for k in range(len(v)):
            v[k] = (ONE - sent[k]) * fresh[k] + sent[k] * (fresh[k] - bound[k])
    else:
        v[:] = fresh


@njit
def pass_gradient(  # type: ignore[no-untyped-def]
    given, out, held, rate, decay, level, reset_level, alpha, parts, reset, passed
) -> None:
    """Compute the gradient of the drive, with the triangle in place of a spike's: alpha · max(0, 1 − |v − threshold|).

    Args:
        given: (T, B, n) float32, the gradient of what the cells emit.
        out, held: as `run_steps` left them.
        rate, decay, level, reset_level, parts, reset: as there.
        alpha: factor of the surrogate gradient.
        passed: (T, B, n), gets the gradient of the drive.
    """
    steps, batch, neurons = given.shape
    scratch = np.empty((3, TILE), np.float32)
    for b in range(batch):
        for first in range(0, neurons, TILE):
            last = min(first + TILE, neurons)
            size = last - first
            # the gradient of v is after − drained
            after, drained, current = scratch[0][:size], scratch[1][:size], scratch[2][:size]
            mem, syn = rate[first:last], decay[first:last]
            bound, back = level[first:last], reset_level[first:last]
            scratch[:] = ZERO
            for t in range(steps - 1, -1, -1):
                e, gradient = given[t, b, first:last], passed[t, b, first:last]
                if parts & SPIKES:
                    _pass_spikes(e, out[t, b, first:last], held[t, b, first:last], bound, back, alpha, reset, drained, after)
                else:
                    for k in range(len(e)):
                        after[k] = (e[k] + after[k]) - drained[k]
                if parts & INTEGRATES:
                    gradient[:] = after
                else:
                    for k in range(len(e)):
                        drained[k] = after[k] * mem[k]
                    gradient[:] = drained
                if parts & HAS_CURRENT:
                    for k in range(len(e)):
                        current[k] = (current[k] + current[k] * syn[k]) + gradient[k]
                    gradient[:] = current


@njit
def _pass_spikes(e, sent, v, bound, back, alpha, reset, drained, after) -> None:  # type: ignore[no-untyped-def]
    """Take the gradient of v before a step's charge, `after`, from that of v after its reset, after − drained."""
    if reset == VALUE:
        for k in range(len(e)):
            g = after[k] - drained[k]
            spike = (e[k] + g * back[k]) - g * v[k]
            after[k] = g * (ONE - sent[k]) + spike * alpha * max(ONE - abs(v[k] - bound[k]), ZERO)
    elif reset == SUBTRACT:
        for k in range(len(e)):
            g = after[k] - drained[k]
            spike = (e[k] + g * (v[k] - bound[k])) - g * v[k]
            kept = g * sent[k] + g * (ONE - sent[k])
            after[k] = kept + spike * alpha * max(ONE - abs(v[k] - bound[k]), ZERO)
    else:
        for k in range(len(e)):
            after[k] = (after[k] - drained[k]) + e[k] * alpha * max(ONE - abs(v[k] - bound[k]), ZERO)


def make_row(values: Array, shape: tuple[int, ...]) -> Array:
    """Return a parameter of a cell for each neuron, (n,) float32."""
    return np.array(np.broadcast_to(values, shape), np.float32).reshape(-1)
