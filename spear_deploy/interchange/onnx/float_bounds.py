"""Rounding bounds between two float32 runs of one network.

Two runs do the same operations in the same order, except that a sum of products may add up in another order and with fused
multiply-adds. With u = 2^-24 and n products w · x to a sum:

    sum of products   gap = Σ |w| · gap_x + 2 n u / (1 − n u) · Σ |w| (|x| + gap_x)
                      0 where gap_x = 0 and every partial sum is a float32: terms are multiples of 2^q, Σ |w x| ≤ 2^(24 + q)
    other operation   gap = what the exact operation makes of its operands' gaps + 2 u · |result|; 0 where those are 0

`gap` bounds the difference of the two runs as long as their spikes are equal. The two come apart only in a tie: a spike of one
run where |v − v_threshold| ≤ gap. Underflow is left out: a value below 2^-126 counts as exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import POOLS, Array, AvgPool, BatchNorm, CubaLI, CubaLIF, Flatten, Layer, Scale, SumPool, resets_late
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import neurons, synapse_math
from spear_deploy.simulator.stepper import PreparedLayer, prepare

BOUND = (
    "gap = sum |w| gap_x + 2 n u / (1 - n u) sum |w| (|x| + gap_x) for a sum of n products that may round, u = 2^-24, "
    "carried through norms and neurons; 0 where no sum rounds"
)
"""The bound in one line, for certificates."""

U = 1.01 * 2.0**-24
"""Unit roundoff of float32; the hundredth covers terms of higher order and the rounding of the bound itself."""


@dataclass(frozen=True)
class BoundedValue:
    """A layer's value in one step, with its bound.

    Attributes:
        value: (B, *shape), v before the reset of this step, or the value of a layer without neurons.
        gap: (B, *shape) in float64, the bound.
    """

    value: Array
    gap: Array


def bound_steps(graph: SNNGraph, x: Array, spikes: Mapping[str, Array]) -> Iterator[dict[str, BoundedValue]]:
    """Run a floating-point network with known spikes and yield, step by step, the layers' values and bounds.

    Args:
        graph: a floating-point network.
        x: (T, B, *input shape).
        spikes: of every spiking layer, (T, B, *shape). They are sent and reset the neurons in place of those that v gives.
    """
    rows = {row.layer.name: row for row in prepare(graph, np.float32).layers}
    layers = {layer.name: _BoundedLayer(rows[layer.name], x.shape[1], graph.dt_s) for layer in graph.layers}
    depth = max((edge.delay for edge in graph.edges), default=0)
    zeros = {name: np.zeros((x.shape[1], *graph.shape_of(name)), np.float32) for name in (INPUT, *rows)}
    past = [{name: BoundedValue(value, value.astype(np.float64)) for name, value in zeros.items()}] * depth
    """Values sent in the last steps, the latest first."""
    for t, x_step in enumerate(x.astype(np.float32)):
        sent = {INPUT: BoundedValue(x_step, np.zeros(x_step.shape))}
        steps: dict[str, BoundedValue] = {}
        for layer in graph.layers:
            name = layer.name
            sources = [past[delay - 1][source] if delay else sent[source] for source, delay in rows[name].sources]
            fired = spikes[name][t] if layer.spikes else None
            steps[name] = layers[name].advance(_add_inputs(sources), fired)
            sent[name] = steps[name] if fired is None else BoundedValue(fired.astype(np.float32), np.zeros(fired.shape))
        past = [sent, *past][:depth]
        yield steps


class _BoundedLayer:
    """A layer, its state, and the gaps of that state."""

    def __init__(self, row: PreparedLayer, batch: int, dt_s: float) -> None:
        self.row = row
        self.gaps = {name: np.zeros((batch, *row.shape)) for name in ("v", "u")}
        if row.layer.neuron is not None:
            self.state = neurons.start(row.layer.neuron, batch, row.shape, dt_s, np.float32)
            self.threshold = self.state.constants.get("v_threshold")
            self.state.constants["v_threshold"] = np.array(np.inf, np.float32)  # spikes are known: v resets by them alone
            self.late = resets_late(row.layer.neuron)
            self.pending = np.zeros((batch, *row.shape), bool)

    def advance(self, x: BoundedValue, spikes: Array | None) -> BoundedValue:
        """Return v before the reset, or the weighted input where there are no neurons."""
        drive = BoundedValue(self.row.weigh(x.value), _weigh_gap(self.row.layer, x))
        if self.row.layer.neuron is None:
            return drive
        before = (self.state.v.copy(), None if self.state.u is None else self.state.u.copy())
        neurons.step(self.row.layer.neuron, self.state, drive.value)
        self._carry(drive, *before)
        if self.late:
            self._reset(self.pending)
        step = BoundedValue(self.state.v.copy(), self.gaps["v"].copy())
        if spikes is not None and self.late:
            self.pending = spikes
        elif spikes is not None:
            self._reset(spikes)
        return step

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
            np.copyto(v, self.state.constants["v_reset"], where=spikes)
            np.copyto(gap, 0.0, where=spikes)
        else:
            np.copyto(v, v - self.threshold, where=spikes)
            np.copyto(gap, _add_rounding(gap, v), where=spikes)


def find_near_threshold(layer: Layer, step: BoundedValue) -> Array:
    """Return which neurons may spike in one run and not in the other: (B, *shape)."""
    threshold = np.asarray(layer.neuron.v_threshold, np.float32)  # type: ignore[union-attr]
    near: Array = np.abs(step.value.astype(np.float64) - threshold) <= step.gap
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


def _weigh_gap(layer: Layer, x: BoundedValue) -> Array:
    """Return the gap behind synapse and norm."""
    synapse, norm = layer.synapse, layer.norm
    if synapse is None:
        gap, size = x.gap, np.abs(x.value).astype(np.float64)
    elif isinstance(synapse, Flatten):
        gap, size = (a.reshape(len(a), -1) for a in (x.gap, np.abs(x.value).astype(np.float64)))
    else:
        gap, size = _scale(synapse, x) if isinstance(synapse, Scale) else _sum_products(synapse, x)
    return gap if norm is None else _normalise(norm, gap, size)


def _scale(scale: Scale, x: BoundedValue) -> tuple[Array, Array]:
    weight = np.abs(scale.weight.astype(np.float64))
    size = weight * np.abs(x.value)
    whole = size if scale.bias is None else size + np.abs(scale.bias)
    return _add_rounding(weight * x.gap, size, whole), whole


def _sum_products(synapse: Any, x: BoundedValue) -> tuple[Array, Array]:
    """Return the gap of sums of products, and a bound of their magnitude."""
    bias = None
    if isinstance(synapse, POOLS):
        count, grid = int(np.prod(synapse.kernel_size)), 0
        positive: Any = SumPool(kernel_size=synapse.kernel_size, stride=synapse.stride, padding=synapse.padding)
    else:
        weight, bias = synapse.weight.astype(np.float32), synapse.bias
        count, grid = int(np.prod(weight.shape[1:])), _grid(weight)
        positive = replace(synapse, weight=np.abs(weight), bias=None)
    weigh = synapse_math.make_weigher(positive, dtype=np.float64)
    total, carried = weigh(np.abs(x.value).astype(np.float64)), weigh(x.gap)
    rounds = (carried > 0) | (total > 2.0 ** (24 + grid + _grid(x.value)))
    gap = carried + np.where(rounds, 2 * count * U / (1 - count * U) * (total + carried), 0.0)
    if isinstance(synapse, AvgPool):
        return _add_rounding(gap / count, total / count), total / count
    if bias is None:
        return gap, total
    size = total + np.abs(bias.astype(np.float64)).reshape(-1, *(1 for _ in total.shape[2:]))
    return _add_rounding(gap, size), size


def _normalise(norm: BatchNorm, gap: Array, size: Array) -> Array:
    spread = (-1, *(1 for _ in gap.shape[2:]))
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    shift = np.abs(norm.bias - norm.mean * gain).reshape(spread)
    gain = np.abs(gain).reshape(spread)
    return _add_rounding(gain * gap, gain * size, gain * size + shift)


def _grid(values: Array) -> int:
    """Return the largest q so that every value is a multiple of 2^q.

    >>> _grid(np.array([0.75, 2.0], np.float32)), _grid(np.zeros(2, np.float32))
    (-2, 127)
    """
    used = values[(values != 0) & np.isfinite(values)]
    if not used.size:
        return 127
    mantissa, exponent = np.frexp(used.astype(np.float64))
    whole = (mantissa * 2.0**53).astype(np.int64)
    return int((exponent - 53 + np.log2((whole & -whole).astype(np.float64))).min())
