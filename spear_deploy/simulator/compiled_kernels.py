"""Compiled kernels: sums of the weights of events, and updates of neurons.

Imports numba, so it is imported by `kernel_choice.py` alone, once a process has work enough. Every kernel gives the
whole numbers that numpy gives (`tests/simulator/test_compiled_kernels.py`): sums are int32, states float64, and nothing rounds.
One thread each. Machine code is kept beside the compiled modules, in `__pycache__`; where Python may not write there, it is not
kept: never in the user's home.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np

IS_KEPT = not sys.dont_write_bytecode and os.access(Path(__file__).parent, os.W_OK)
"""Whether machine code is kept: where it is not, numba would take a folder in the user's cache."""
njit = functools.partial(numba.njit, cache=IS_KEPT)

TILE = 512
"""Neurons that are updated together through all steps: states and constants of 28 KiB, within the innermost cache."""
POSITIONS = 16
"""Output positions of a convolution that are summed before they are written: a cache line of int32."""


@njit()
def add_rows(weight: Any, rows: Any, count: int, total: Any) -> None:
    """Add rows of weights to their sum, eight or four in one pass.

    Args:
        weight: (R, O), whole numbers.
        rows: the first `count` are indices of rows.
        total: (O,) int32, is added to.
    """
    width = total.shape[0]
    start = 0
    while start + 8 <= count:
        a, b, c, d = weight[rows[start]], weight[rows[start + 1]], weight[rows[start + 2]], weight[rows[start + 3]]
        e, f, g, h = weight[rows[start + 4]], weight[rows[start + 5]], weight[rows[start + 6]], weight[rows[start + 7]]
        for o in range(width):
            total[o] += (a[o] + b[o]) + (c[o] + d[o]) + ((e[o] + f[o]) + (g[o] + h[o]))
        start += 8
    while start + 4 <= count:
        a, b, c, d = weight[rows[start]], weight[rows[start + 1]], weight[rows[start + 2]], weight[rows[start + 3]]
        for o in range(width):
            total[o] += a[o] + b[o] + c[o] + d[o]
        start += 4
    while start < count:
        a = weight[rows[start]]
        for o in range(width):
            total[o] += a[o]
        start += 1


@njit()
def sum_dense(x: Any, weight: Any, bias: Any, shift: int, y: Any) -> None:
    """Sum the weights of the inputs that spike: y = ((W x) << shift) + bias.

    Args:
        x: (N, I) uint8, 0 or 1.
        weight: (I, O), whole numbers.
        bias: (O,) int32.
        shift: below 0 to the right, towards minus infinity.
        y: (N, O) int32.
    """
    rows = np.empty(x.shape[1], np.int64)
    for n in range(x.shape[0]):
        count = 0
        for i in range(x.shape[1]):
            rows[count] = i
            count += x[n, i]
        total = y[n]
        total[:] = 0
        add_rows(weight, rows, count, total)
        for o in range(total.shape[0]):
            total[o] = (total[o] << shift if shift >= 0 else total[o] >> -shift) + bias[o]


@njit()
def sum_sparse(x: Any, starts: Any, outputs: Any, values: Any, bias: Any, shift: int, y: Any) -> None:
    """Sum the weights of the inputs that spike, of which only those that are not zero are stored.

    Args:
        x, bias, shift, y: see `sum_dense`.
        starts: (I + 1,), where the weights of each input begin.
        outputs, values: (number of weights,), output and value of each.
    """
    for n in range(x.shape[0]):
        total = y[n]
        total[:] = 0
        for i in range(x.shape[1]):
            if x[n, i]:
                for k in range(starts[i], starts[i + 1]):
                    total[outputs[k]] += values[k]
        for o in range(total.shape[0]):
            total[o] = (total[o] << shift if shift >= 0 else total[o] >> -shift) + bias[o]


@njit()
def list_channels(x: Any, first: int, taps: int, counts: Any, channels: Any) -> None:
    """List the channels that spike at each position of a sample.

    Args:
        x: (C, H, W) uint8, 0 or 1.
        first: first channel of the group.
        taps: what the number of a channel is multiplied by.
        counts: (H, W), takes the number of spikes.
        channels: (H, W, I + 1), takes the channels; the last place takes a write that does not count.
    """
    counts[:] = 0
    for i in range(x.shape[1]):
        for c in range(channels.shape[2] - 1):
            spikes = x[first + c, i]
            for j in range(x.shape[2]):
                channels[i, j, counts[i, j]] = c * taps
                counts[i, j] += spikes[j]


@njit()
def list_rows(row: int, channels: Any, counts: Any, geometry: Any, rows: Any, row_counts: Any) -> None:
    """List, for each input column, the weights that its spikes add in a row of output positions by the kernel's first column.

    Args:
        row: of the output positions.
        channels, counts: see `list_channels`.
        geometry: see `sum_convolution`.
        rows: (W, I · kH), takes indices of rows of the weights.
        row_counts: (W,), takes their numbers.
    """
    row_counts[:] = 0
    for k in range(geometry[0]):
        i = row * geometry[2] + k * geometry[6] - geometry[4]
        if 0 <= i < counts.shape[0]:
            for j in range(counts.shape[1]):
                first = row_counts[j]
                for e in range(counts[i, j]):
                    rows[j, first + e] = channels[i, j, e] + k * geometry[1]
                row_counts[j] = first + counts[i, j]


@njit()
def sum_convolution(x: Any, weight: Any, bias: Any, shift: int, y: Any, geometry: Any, first: Any) -> None:
    """Sum the weights of the inputs that spike, for one group of channels of a convolution.

    Args:
        x: (N, C, H, W) uint8, 0 or 1.
        weight: (I · kH · kW, O) of this group, whole numbers, inputs outermost.
        bias: (O,) int32 of this group.
        shift: see `sum_dense`.
        y: (N, channels, rows, columns) int32.
        geometry: kernel, stride, padding and dilation, two numbers each.
        first: first input and first output channel of the group.
    """
    outputs, taps = weight.shape[1], geometry[0] * geometry[1]
    inputs = weight.shape[0] // taps
    counts = np.empty(x.shape[2:], np.int64)
    channels = np.empty((x.shape[2], x.shape[3], inputs + 1), np.int32)
    rows, row_counts = np.empty((x.shape[3], inputs * geometry[0]), np.int64), np.empty(x.shape[3], np.int64)
    totals = np.empty((POSITIONS, outputs), np.int32)
    for n in range(x.shape[0]):
        list_channels(x[n], first[0], taps, counts, channels)
        for row in range(y.shape[2]):
            list_rows(row, channels, counts, geometry, rows, row_counts)
            for start in range(0, y.shape[3], POSITIONS):
                size = min(POSITIONS, y.shape[3] - start)
                totals[:] = 0
                for place in range(size):
                    for m in range(geometry[1]):
                        j = (start + place) * geometry[3] + m * geometry[7] - geometry[5]
                        if 0 <= j < x.shape[3]:
                            add_rows(weight[m:], rows[j], row_counts[j], totals[place])
                for o in range(outputs):
                    for place in range(size):
                        total = totals[place, o]
                        total = total << shift if shift >= 0 else total >> -shift
                        y[n, first[1] + o, row, start + place] = total + bias[o]


@njit()
def advance_loihi(drive: Any, emitted: Any, u: Any, v: Any, constants: Any, limits: Any, subtracts: bool) -> tuple[int, int]:
    """Advance Loihi's neurons through all steps, states in place.

    Args:
        drive: (K, B, N).
        emitted: (K, B, N) bool, takes the spikes.
        u, v: (B, N) float64.
        constants: keep_u, keep_v, bias, threshold and v_reset, (5, N) float64.
        limits: the unit of the drive, and the limit of the states.
        subtracts: whether a spike subtracts its threshold.

    Returns:
        How often u wrapped and v was clipped.
    """
    unit, limit = limits
    wraps = saturations = 0
    for b in range(u.shape[0]):
        for start in range(0, u.shape[1], TILE):
            stop = min(start + TILE, u.shape[1])
            u_, v_ = u[b, start:stop], v[b, start:stop]
            keep_u, keep_v, bias = constants[0, start:stop], constants[1, start:stop], constants[2, start:stop]
            threshold, v_reset = constants[3, start:stop], constants[4, start:stop]
            for t in range(drive.shape[0]):
                x, spikes = drive[t, b, start:stop], emitted[t, b, start:stop]
                for n in range(stop - start):
                    current = np.trunc(u_[n] * keep_u[n]) + unit * x[n]
                    over, under = current > limit, current <= -limit
                    current += (2 * limit if under else 0.0) - (2 * limit if over else 0.0)
                    wraps += over | under
                    potential = np.trunc(v_[n] * keep_v[n]) + current + bias[n]
                    saturations += abs(potential) >= limit
                    potential = min(max(potential, 1 - limit), limit - 1)
                    fires = potential > threshold[n]
                    after = potential - threshold[n] if subtracts else v_reset[n]
                    u_[n], v_[n], spikes[n] = current, after if fires else potential, fires
    return wraps, saturations
