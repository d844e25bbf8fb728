"""Rounding bounds between two float32 runs of one network.

Two runs do the same operations in the same order, except that a sum of products may add up in another order and with fused
multiply-adds. With u = 2^-24 and n products w · x to a sum:

    sum of products   gap = Σ |w| · gap_x + 2 n u / (1 − n u) · Σ |w| (|x| + gap_x)
                      0 where gap_x = 0 and every partial sum is a float32: terms are multiples of 2^q, Σ |w x| ≤ 2^(24 + q)
    other operation   gap = what the exact operation makes of its operands' gaps + 2 u · |result|; 0 where those are 0

`gap` bounds the difference of the two runs as long as their spikes are equal. The two come apart only in a tie: a spike of one
run where |v − v_threshold| ≤ gap, or of a multiple of v_threshold where a
neuron sends several spikes. Underflow is left out: a value below 2^-126 counts as exact.

Where the other run is in exact arithmetic, every operation rounds: each gap begins at `FLOOR`, so that none is 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.network import (
    CONVS,
    POOLS,
    Array,
    AvgPool,
    BatchNorm,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Scale,
    SparseMatrix,
    SumPool,
    Weights,
    find_max_spikes,
    resets_late,
    sends_several,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import neurons, synapse_math
from spear_deploy.simulator.neurons.floating import MAX_COUNT, count_spikes
from spear_deploy.simulator.stepper import PreparedLayer, prepare

BOUND = (
    "gap = sum |w| gap_x + 2 n u / (1 - n u) sum |w| (|x| + gap_x) for a sum of n products that may round, u = 2^-24, "
    "carried through norms and neurons; 0 where no sum rounds"
)
"""The bound in one line, for certificates."""

FOLDED = (
    "gap = |gain| (2 n u / (1 - n u) sum |w x|) + 8 u (|gain| sum |w x| + |bias| + |mean gain|) for a batch norm in the weights, "
    "u = 2^-24, carried through neurons; 0 where no norm was folded"
)
"""The bound where the file holds weights with a batch norm folded in."""

EXACT = (
    "gap = sum |w| gap_x + 2 n u / (1 - n u) sum |w| (|x| + gap_x) for a sum of n products, 2 u |result| for every other "
    "operation, u = 2^-24, carried through norms and neurons: float32 against real numbers"
)
"""The bound between float32 and exact arithmetic."""

Rounding: TypeAlias = Literal["order", "exact", "folded", "none"]

U = 1.01 * 2.0**-24
"""Unit roundoff of float32; the hundredth covers terms of higher order and the rounding of the bound itself."""


UNREACHED = np.finfo(np.float32).max
"""A threshold above every potential."""

FLOOR = 1e-40
"""Gap at which all values begin where the other run is exact: no float32 is that small."""


@dataclass(frozen=True)
class BoundedValue:
    """A layer's value in one step, with its bound.

    Attributes:
        value: (B, *shape), v before the reset of this step, or the value of a layer without neurons.
        gap: (B, *shape) in float64, the bound.
    """

    value: Array
    gap: Array


class SpikeGuidedRun:
    """A floating-point network that advances with known spikes: they are sent and reset the neurons in place of its own.

    Args:
        graph: a floating-point network.
        batch: number of samples.
        rounding: of what the values are bounded: "order" of the sums, all of float32 against "exact" arithmetic, batch norm
            "folded" into weights, or "none" for values alone, whose gap is 0.
    """

    def __init__(self, graph: SNNGraph, batch: int, *, rounding: Rounding = "order") -> None:
        self.graph, self.batch = graph, batch
        self.rows = {row.layer.name: row for row in prepare(graph, np.float32).layers}
        self.layers = {layer.name: _BoundedLayer(self.rows[layer.name], batch, graph.dt_s, rounding) for layer in graph.layers}
        depth = max((edge.delay for edge in graph.edges), default=0)
        delayed = {edge.source for edge in graph.edges if edge.delay}
        nothing = {name: _exact(np.zeros((batch, *graph.shape_of(name)), np.float32)) for name in delayed}
        self.past: deque[dict[str, BoundedValue]] = deque([nothing] * depth, maxlen=depth)
        """Values sent in the last steps over edges with delay, the latest first."""

    def advance(self, x: Array, spikes: Mapping[str, Array] | None = None) -> dict[str, BoundedValue]:
        """Run one step.

        Args:
            x: (B, *input shape).
            spikes: of every spiking layer, (B, *shape); those that v gives unless known.

        Returns:
            By layer, v before the reset, or the value of a layer without neurons.
        """
        sent = {INPUT: _exact(x.astype(np.float32))}
        steps: dict[str, BoundedValue] = {}
        for layer in self.graph.layers:
            name = layer.name
            sources = [self.past[delay - 1][source] if delay else sent[source] for source, delay in self.rows[name].sources]
            steps[name], fired = self.layers[name].advance(_add_inputs(sources), None if spikes is None else spikes.get(name))
            sent[name] = steps[name] if fired is None else _exact(fired.reshape(steps[name].value.shape).astype(np.float32))
        if self.past:
            self.past.appendleft({name: sent[name] for name in self.past[0]})
        return steps


def find_spikes(layer: Layer, value: Array) -> Array:
    """Return which neurons spike at a potential before the reset, or how often where a neuron sends several spikes in a step."""
    threshold = np.asarray(layer.neuron.v_threshold, np.float32)  # type: ignore[union-attr]
    if sends_several(layer.neuron):
        return count_spikes(value, threshold, find_max_spikes(layer.neuron)).astype(np.int64)
    fires: Array = value > threshold
    return fires


def find_nearest_threshold(layer: Layer, value: Array) -> Array:
    """Return the multiple of the threshold, up to max_spikes, nearest to a potential: there the number of spikes changes."""
    threshold = np.asarray(layer.neuron.v_threshold, np.float32).astype(np.float64)  # type: ignore[union-attr]
    if not sends_several(layer.neuron):
        return threshold
    most = find_max_spikes(layer.neuron) or MAX_COUNT
    nearest: Array = np.fmin(np.fmax(np.rint(value / threshold), 1), most) * threshold
    return nearest


def _exact(value: Array) -> BoundedValue:
    return BoundedValue(value, np.zeros((1,) * value.ndim))


class _BoundedLayer:
    """A layer, its state, and the gaps of that state."""

    def __init__(self, row: PreparedLayer, batch: int, dt_s: float, rounding: Rounding) -> None:
        self.row, self.rounding = row, rounding
        is_sum = rounding == "order" and isinstance(row.layer.synapse, (Dense, *CONVS))
        self.grid = _grid(row.layer.synapse.weight.astype(np.float32)) if is_sum else 0  # type: ignore[union-attr]
        self.floor = FLOOR if rounding == "exact" else 0.0
        self.gaps = {name: np.full((1,) * (len(row.shape) + 1), self.floor) for name in ("v", "u")}
        if row.layer.neuron is not None:
            self.state = neurons.start(row.layer.neuron, batch, row.shape, dt_s, np.float32)
            self.threshold = self.state.constants.get("v_threshold")
            self.state.constants["v_threshold"] = np.array(UNREACHED, np.float32)  # spikes are known: v resets by them alone
            self.late = resets_late(row.layer.neuron)
            self.pending = np.zeros((batch, *row.shape), bool)

    def advance(self, x: BoundedValue, spikes: Array | None) -> tuple[BoundedValue, Array | None]:
        """Return v before the reset, or the weighted input where there are no neurons; and the spikes of a spiking layer."""
        layer = self.row.layer
        x = replace(x, gap=x.gap + self.floor)
        value = self.row.weigh(x.value)
        gap = np.zeros((1,) * value.ndim) if self.rounding == "none" else _weigh_gap(layer, x, self.rounding, self.grid)
        drive = BoundedValue(value, gap + self.floor)  # weights of zero take away that of their input
        if layer.neuron is None:
            return drive, None
        before = (self.state.v.copy(), None if self.state.u is None else self.state.u.copy())
        neurons.step(layer.neuron, self.state, drive.value)
        if self.rounding != "none":
            self._carry(drive, *before)
        if self.late:
            self._reset(self.pending)
        step = BoundedValue(self.state.v.copy(), self.gaps["v"].copy())
        if not layer.spikes:
            return step, None
        fired = find_spikes(layer, step.value) if spikes is None else spikes.reshape(step.value.shape)
        if self.late:
            self.pending = fired
        else:
            self._reset(fired)
        return step, fired

    def _carry(self, x: BoundedValue, v: Array, u: Array | None) -> None:
        """Carry the gaps of v and u through one step; `v` and `u` are the states before it."""
        c = {name: np.abs(value.astype(np.float64)) for name, value in self.state.constants.items()}
        neuron, gap = self.row.layer.neuron, x.gap
        drive = np.abs(x.value)
        if isinstance(neuron, (CubaLIF, CubaLI)):
            assert u is not None and self.state.u is not None
            jumped = u + self.state.constants["jump"] * x.value
            product = c["jump"] * gap
            gap = _add_rounding(self.gaps["u"] + product, c["jump"] * drive, jumped)
            drive = np.abs(jumped)
            left = np.abs(1 - self.state.constants["syn"].astype(np.float64)) * gap
            self.gaps["u"] = _add_rounding(left, c["syn"] * drive, self.state.u)
        gap, drive = _add_rounding(c["r"] * gap, c["r"] * drive), c["r"] * drive
        if "mem" not in c:  # IF
            self.gaps["v"] = _add_rounding(self.gaps["v"] + gap, self.state.v)
            return
        inner = c["mem"] * (np.abs(v) + drive + c["v_leak"] + self.gaps["v"] + gap)  # bounds each of three results, times mem
        kept = np.abs(1 - self.state.constants["mem"].astype(np.float64)) * self.gaps["v"]
        self.gaps["v"] = _add_rounding(kept + c["mem"] * gap, self.state.v, inner, inner, inner)

    def _reset(self, spikes: Array) -> None:
        neuron: Any = self.row.layer.neuron
        v, gap = self.state.v, self.gaps["v"]
        if neuron.reset == "value":
            np.copyto(v, self.state.constants["v_reset"], where=spikes != 0)
            if gap.shape == v.shape:
                np.copyto(gap, self.floor, where=spikes != 0)
        elif neuron.reset == "subtract":
            np.copyto(v, v - spikes.astype(v.dtype) * self.threshold, where=spikes != 0)
            if gap.shape == v.shape:
                np.copyto(gap, _add_rounding(gap, v), where=spikes != 0)


def find_near_threshold(layer: Layer, step: BoundedValue) -> Array:
    """Return which neurons may spike in one run and not in the other: (B, *shape)."""
    value = step.value.astype(np.float64)
    near: Array = np.abs(value - find_nearest_threshold(layer, value)) <= step.gap
    return near & (step.gap > 0)


def _add_inputs(steps: list[BoundedValue]) -> BoundedValue:
    """Add the inputs of a layer, one after the other."""
    total = steps[0]
    for step in steps[1:]:
        value = total.value + step.value
        total = BoundedValue(value, _add_rounding(total.gap + step.gap, value))
    return total


def _add_rounding(gap: Array, *results: Array) -> Array:
    """Add the roundings of both runs, of results that are as large as `results` in one of them, where there is a gap."""
    size = sum(np.abs(np.asarray(result, np.float64)) for result in results)
    return np.where(gap > 0, gap + 2 * U * (size + len(results) * gap), 0.0)


def _weigh_gap(layer: Layer, x: BoundedValue, rounding: Rounding, grid: int) -> Array:
    """Return the gap behind synapse and norm."""
    synapse, norm = layer.synapse, layer.norm
    is_folded = rounding in ("folded", "exact") and norm is not None
    if synapse is None:
        gap, size = x.gap, np.abs(x.value).astype(np.float64)
    elif isinstance(synapse, Flatten):
        size = np.abs(x.value).astype(np.float64).reshape(len(x.value), -1)
        gap = np.broadcast_to(x.gap, x.value.shape).reshape(size.shape)
    elif isinstance(synapse, Scale):
        gap, size = _scale(synapse, x)
    else:
        gap, size = _sum_products(synapse, x, rounding, grid, is_folded=is_folded)
    if norm is None:
        return gap
    return _fold(norm, gap, size) if is_folded else _normalise(norm, gap, size)


def _scale(scale: Scale, x: BoundedValue) -> tuple[Array, Array]:
    weight = np.abs(scale.weight.astype(np.float64))
    size = weight * np.abs(x.value)
    whole = size if scale.bias is None else size + np.abs(scale.bias)
    return _add_rounding(weight * x.gap, size, whole), whole


def _sum_products(synapse: Any, x: BoundedValue, rounding: Rounding, grid: int, *, is_folded: bool) -> tuple[Array, Array]:
    """Return the gap of sums of products, and a bound of their magnitude; weights are multiples of 2^grid."""
    bias = None
    if isinstance(synapse, POOLS):
        count = int(np.prod(synapse.kernel_size))
        positive: Any = SumPool(kernel_size=synapse.kernel_size, stride=synapse.stride, padding=synapse.padding)
    else:
        weight, bias = synapse.weight.astype(np.float32), synapse.bias
        count = int(np.prod(weight.shape[1:]))
        if isinstance(weight, SparseMatrix):
            weight = np.abs(weight)
        else:
            np.abs(weight, out=weight)
            weight.setflags(write=False)
        positive = replace(synapse, weight=weight, bias=None)
    magnitudes = synapse_math.make_weigher(positive, dtype=np.float64 if rounding in ("order", "exact") else np.float32)
    in_float32 = 1.0 if rounding in ("order", "exact") else 1 + 2 * count * U
    total = magnitudes(np.abs(x.value).astype(np.float64)) * in_float32
    carried = magnitudes(np.broadcast_to(x.gap, x.value.shape).astype(np.float64)) * in_float32 if x.gap.any() else 0 * total
    rounds = carried > 0
    if rounding == "order":
        rounds |= total > 2.0 ** (24 + grid + _grid(x.value))
    gap = carried + np.where(rounds | is_folded, 2 * count * U / (1 - count * U) * (total + carried), 0.0)
    if isinstance(synapse, AvgPool):
        return _add_rounding(gap / count, total / count), total / count
    if bias is None:
        return gap, total
    size = total + np.abs(bias.astype(np.float64)).reshape(-1, *(1 for _ in total.shape[2:]))
    return _add_rounding(gap, size), size


def _fold(norm: BatchNorm, gap: Array, size: Array) -> Array:
    """Return the gap between a norm behind float32 sums and a norm in weights that were rounded to float32.

    gap ← |gain| gap + 8 u (|gain| (size + gap) + |bias| + |mean gain|): scale, shift, weights, bias and two results are rounded.
    """
    spread = (-1, *(1 for _ in size.shape[2:]))
    gain = np.abs(norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps))
    shift = np.abs(norm.bias.astype(np.float64)) + np.abs(norm.mean * gain)
    gain = gain.reshape(spread)
    folded: Array = gain * gap + 8 * U * (gain * (size + gap) + shift.reshape(spread))
    return folded


def _normalise(norm: BatchNorm, gap: Array, size: Array) -> Array:
    spread = (-1, *(1 for _ in gap.shape[2:]))
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    shift = np.abs(norm.bias - norm.mean * gain).reshape(spread)
    gain = np.abs(gain).reshape(spread)
    return _add_rounding(gain * gap, gain * size, gain * size + shift)


def _grid(values: Weights) -> int:
    """Return the largest q so that every value is a multiple of 2^q.

    >>> _grid(np.array([0.75, 2.0], np.float32)), _grid(np.zeros(2, np.float32))
    (-2, 127)
    """
    stored = values.data if isinstance(values, SparseMatrix) else values
    used = stored[(stored != 0) & np.isfinite(stored)]
    if not used.size:
        return 127
    mantissa, exponent = np.frexp(used.astype(np.float64))
    whole = (mantissa * 2.0**53).astype(np.int64)
    return int((exponent - 53 + np.log2((whole & -whole).astype(np.float64))).min())
