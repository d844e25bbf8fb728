"""Neuron layers with the weights that drive them, in floats and integers.

Between the weights and the neurons lie only pools, sums and reshapes, which hold no numbers. A mean over a window becomes a sum
there, and its factor goes into the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.network import (
    FLOAT_NEURONS,
    POOLS,
    READOUTS,
    WEIGHTED,
    Array,
    AvgPool,
    Layer,
    Scale,
    Synapse,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fold import mean_factor
from spear_deploy.quantize.fuse_weights import emits_current
from spear_deploy.quantize.scaled_weights import ScaledSynapse
from spear_deploy.quantize.shared_cells import SharedCells, find_shared_cells
from spear_deploy.simulator import InputKind, neurons
from spear_deploy.simulator.synapse_math import apply_synapse
from spear_deploy.util.number_format import plural

SAME_GAIN = 1e-6
"""Relative difference below which two gains are one: they are products of parameters in float32, each rounded by up to 6e-8."""


@dataclass(frozen=True, kw_only=True)
class LoweringSettings:
    """How a floating-point network becomes integers.

    Attributes:
        weight_bits: bits of a signed weight, 2..8.
        kind: of the network's input.
        input_scale: factor on a current before it is sent as graded spikes or events; 1 for spikes.
        headroom: by layer, a factor in 0..1 on the scale that the format would allow; 1 where a layer is not named.
        max_spikes: spikes that a hidden neuron sends in a step at most; Xylo only.
        input_events: events that an input channel takes in a step at most; Xylo only.
        learnt_scales: by neuron layer, the scale and the shift of the weights that the network learnt with; no others are tried.
        layer_bits: bits by layer of weights that have fewer than `weight_bits`; Loihi and Akida only.
    """

    weight_bits: int
    kind: InputKind
    input_scale: float = 1.0
    headroom: Mapping[str, float] = field(default_factory=dict)
    max_spikes: int = 31
    input_events: int = 15
    learnt_scales: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    layer_bits: Mapping[str, int] = field(default_factory=dict)

    def bits_of(self, layer: str) -> int:
        """Return the bits of the weights of a layer."""
        return self.layer_bits.get(layer, self.weight_bits)

    @property
    def max_weight(self) -> int:
        """The largest whole number of `weight_bits` bits with a sign: 127 for 8."""
        return int(2 ** (self.weight_bits - 1)) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronInput:
    """A floating-point neuron layer and the weighted layers whose sums reach it.

    Attributes:
        name, neuron, shape: of the neuron layer.
        factors: of the neuron's update (`neurons.factors`), float64.
        stored: by layer, the weighted synapses of the network.
        weight_factors: by layer, the factor that the weights have yet to take: of means on the way, and of an analogue input.
        synapse_shapes: by layer, the output shape of its weights; a flatten may lie between it and the neurons.
        bias_factors: by layer, the factor of the means between its weights and the neurons, which its bias has to take too.
        delays: by layer, the steps that the longest way between its weights and the neurons takes.
        analogue: the layers that take an analogue input.
        ways: by layer, the pools and reshapes on each way from its weights to the neurons, in this order.
        shared: the ways on which a cell of the chip holds several weights.
    """

    name: str
    neuron: Any
    shape: tuple[int, ...]
    factors: Mapping[str, Array]
    stored: Mapping[str, Any]
    weight_factors: Mapping[str, float]
    synapse_shapes: Mapping[str, tuple[int, ...]]
    bias_factors: Mapping[str, float]
    delays: Mapping[str, int]
    analogue: frozenset[str]
    ways: Mapping[str, tuple[tuple[Synapse, ...], ...]]
    shared: tuple[SharedCells, ...] = ()

    @property
    def readout(self) -> bool:
        """Whether its output is the membrane potential."""
        return isinstance(self.neuron, READOUTS)

    @property
    def level(self) -> Array:
        """The potential that is 0 in integers: of the reset, 0 where reset subtracts; of the leak for a readout.

        The values of a readout are compared with each other: where their leaks differ all have the mean as their 0, and the
        difference is a constant input.
        """
        if self.readout:
            leak = self.factors["v_leak"]
            return leak if np.ptp(leak) == 0 else np.asarray(leak.mean())
        return self.factors["v_reset"] if self.neuron.reset == "value" else np.zeros(())

    @property
    def offset(self) -> Any:
        """The level as plain data: one number, or lists in the shape of the neuron's parameters where it differs."""
        return float(np.mean(self.level)) if np.ptp(self.level) == 0 else self.level.tolist()

    @property
    def threshold(self) -> Array:
        """Threshold of spiking neurons, measured from the level."""
        return self.factors["v_threshold"] - self.level

    @property
    def beside_bias(self) -> str:
        """The words " with a bias of up to ..." for a sentence on a threshold that does not fit, where a bias is above it."""
        bias = max((float(np.abs(s.bias).max()) for s in self.stored.values() if s.bias is not None), default=0.0)
        return f" with a bias of up to {bias:g}" if bias > float(self.threshold.min()) else ""

    @property
    def synapses(self) -> dict[str, Any]:
        """The synapses with their factors in the weights, float64."""
        factors = self.weight_factors
        return {name: replace(s, weight=s.weight.astype(np.float64) * factors[name]) for name, s in self.stored.items()}

    def multiply_synapses(self, gain: Array) -> dict[str, Any]:
        """Return the synapses times a gain of the neurons, with float64 weights; see `scale_synapses`."""
        return {name: scaled.multiply() for name, scaled in self.scale_synapses(gain).items()}

    def scale_synapses(self, gain: Array) -> dict[str, ScaledSynapse]:
        """Return the synapses times a gain of the neurons: one number, or one per neuron. Products are formed when they are read.

        Raises:
            UnsupportedError: the gain differs inside a channel, whose weights are shared.
        """
        scaled: dict[str, ScaledSynapse] = {}
        for name, synapse in self.stored.items():
            bias_gain = self._weight_gain(name, gain, synapse)
            axes = bias_gain.ndim and not isinstance(synapse, Scale)
            weight_gain = bias_gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:])) if axes else bias_gain
            bias = None if synapse.bias is None else np.asarray(synapse.bias, np.float64) * bias_gain
            if bias is not None:
                scale_shape = np.broadcast_shapes(synapse.weight.shape, weight_gain.shape)
                shape = np.broadcast_shapes(scale_shape, bias.shape) if isinstance(synapse, Scale) else synapse.weight.shape[:1]
                bias = np.broadcast_to(bias, shape)
            factors = (np.asarray(self.weight_factors[name]), weight_gain)
            scaled[name] = ScaledSynapse(synapse=synapse, factors=factors, bias=bias)
        return scaled

    def shares_gain(self, gain: Array) -> bool:
        """Return whether the weights can hold a gain of the neurons: it is one number, or one for each of their channels."""
        return all(self._find_weight_gain(name, gain, synapse) is not None for name, synapse in self.stored.items())

    def _weight_gain(self, name: str, gain: Array, synapse: Any) -> Array:
        """Return a gain of the neurons as one of the weights: one number, one per channel, or of a `Scale` one per value."""
        found = self._find_weight_gain(name, gain, synapse)
        if found is None:
            raise UnsupportedError(
                Refusal(
                    layer=name,
                    what="time constants, thresholds or r differ inside a channel",
                    why="whose weights are shared",
                    remedy="use one per channel",
                )
            )
        return found

    def _find_weight_gain(self, name: str, gain: Array, synapse: Any) -> Array | None:
        gain = np.asarray(gain, np.float64)
        if gain.size == 1:
            return gain.reshape(())
        shape = self.synapse_shapes[name]
        if shape == self.shape and isinstance(synapse, Scale):
            return gain  # it broadcasts to the neurons, as the weights do
        if isinstance(synapse, Scale) and gain.size == np.prod(shape):
            return gain.reshape(shape)
        per_channel = np.broadcast_to(gain, self.shape).reshape(shape[0], -1)
        if not np.allclose(per_channel, per_channel[:, :1], rtol=SAME_GAIN, atol=0):
            return None
        gain = per_channel[:, 0]
        return gain.reshape(-1, *(1 for _ in shape[1:])) if isinstance(synapse, Scale) else gain

    def broadcast_bias(self, name: str, bias: Array) -> Array:
        """Return what a bias of a layer's weights brings to the neurons, in a shape that broadcasts to them.

        Sums over a window take it as often as they have values, those at a padded border less often.

        Raises:
            UnsupportedError: it arrives with delay, and the chip's neurons hold it from the first step.
        """
        if self.delays[name] and np.any(bias):
            raise UnsupportedError(
                Refusal(
                    layer=name,
                    what=f"its bias reaches '{self.name}' {plural(self.delays[name], 'step')} late",
                    why="the chip's neurons hold it from the first step",
                    remedy="delay the edges into its weights instead",
                )
            )
        values, pools = self._align_bias(name, bias), self._list_pools(name)
        is_kept = all(isinstance(pool, AvgPool) and not np.any(pool.padding) for pool in pools) and _is_one_by_channel(values)
        if len(self.ways[name]) == 1 and (is_kept or not pools):
            return self._spread_channels(name, values)
        whole = np.broadcast_to(values, self.synapse_shapes[name])[None].astype(np.float64)
        brought: Array = np.asarray(sum(_pass_on(way, whole) for way in self.ways[name]))[0]
        return brought

    def find_bias_sources(self, name: str, bias: Array) -> tuple[Array, Array] | None:
        """Return which value of a bias reaches each neuron, and how often; None where several values do."""
        number = self._align_bias(name, np.arange(bias.size).reshape(bias.shape))
        if self._list_pools(name) and not _is_one_by_channel(number):
            return None
        return self._spread_channels(name, number), self.broadcast_bias(name, np.ones(bias.shape))

    def _align_bias(self, name: str, bias: Array) -> Array:
        """Return a bias in a shape that broadcasts to the output of its weights."""
        is_aligned = isinstance(self.stored[name], Scale)
        return bias if is_aligned else bias.reshape(-1, *(1 for _ in self.synapse_shapes[name][1:]))

    def _list_pools(self, name: str) -> list[Any]:
        return [synapse for way in self.ways[name] for synapse in way if isinstance(synapse, POOLS)]

    def count_summed(self, name: str) -> int:
        """Return how many outputs of a layer's weights a neuron adds up at most: those in the windows of pools behind them."""
        return sum(int(np.prod([n for s in way if isinstance(s, POOLS) for n in s.kernel_size])) for way in self.ways[name])

    def _spread_channels(self, name: str, values: Array) -> Array:
        """Return values of channels, or of the positions of a map, in a shape that broadcasts to the neurons."""
        shape = self.synapse_shapes[name]
        if len(shape) == len(self.shape):
            return values
        per_channel = np.broadcast_to(values, shape).reshape(shape[0], -1)  # a flatten keeps a channel's values together
        size = int(np.prod(self.shape))
        return per_channel.reshape(self.shape) if per_channel.size == size else np.repeat(per_channel[:, 0], size // shape[0])


def _is_one_by_channel(values: Array) -> bool:
    return all(n == 1 for n in values.shape[1:])


def _pass_on(way: Sequence[Synapse], values: Array) -> Array:
    for synapse in way:
        values = apply_synapse(synapse, values)
    return values


def collect_neuron_inputs(graph: SNNGraph, kind: InputKind, input_scale: float, *, family: str = "") -> list[NeuronInput]:
    """Return every neuron layer of a network with exactly one weighted layer on each way into it (`fold.add_missing_weights`).

    Args:
        graph: a floating-point network without batch norm.
        kind: of the network's input.
        input_scale: factor on an analogue input before it is sent; the weights that take it are divided by it.
        family: of a chip in whose cells several weights may add up.

    Raises:
        UnsupportedError: weights behind weights, a readout that feeds a layer, spikes added to means of spikes.
        QuantizationError: a time constant below the time step, or below 0.
    """
    inputs = [_collect_neuron_input(graph, layer, kind, input_scale) for layer in graph.layers if layer.neuron is not None]
    shared = find_shared_cells(graph, family)
    return [replace(each, shared=shared[each.name]) if each.name in shared else each for each in inputs]


def _collect_neuron_input(graph: SNNGraph, layer: Layer, kind: InputKind, input_scale: float) -> NeuronInput:
    if not isinstance(layer.neuron, FLOAT_NEURONS):
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"{type(layer.neuron).__name__} has no integer counterpart here",
                remedy=f"use {', '.join(model.__name__ for model in FLOAT_NEURONS)}",
            )
        )
    factors = neurons.factors(layer.neuron, graph.dt_s)
    for decay in (factors.get("mem", np.zeros(())), factors.get("syn", np.zeros(()))):
        if (decay > 1).any():
            raise QuantizationError(
                Refusal(layer=layer.name, what="a time constant is below the time step", remedy="choose a smaller dt")
            )
        if (decay < 0).any():
            raise QuantizationError(
                Refusal(layer=layer.name, what="a time constant is below 0", why="its state grows", remedy="no chip does that")
            )
    bias_factors, ways, delays = _find_driving_layers(graph, layer.name)
    input_factor = 1 / input_scale if kind == "current" else 1.0
    weight_factors = {name: factor * _spike_factor(graph, name, input_factor) for name, factor in bias_factors.items()}
    return NeuronInput(
        name=layer.name,
        neuron=layer.neuron,
        shape=graph.shape_of(layer.name),
        factors=factors,
        stored={name: graph[name].synapse for name in bias_factors},
        weight_factors=weight_factors,
        synapse_shapes={name: graph.shape_of(name) for name in bias_factors},
        bias_factors=bias_factors,
        delays=delays,
        analogue=frozenset(name for name in bias_factors if kind == "current" and _takes_input(graph, name)),
        ways=ways,
    )


def _find_driving_layers(
    graph: SNNGraph, name: str
) -> tuple[dict[str, float], dict[str, tuple[tuple[Synapse, ...], ...]], dict[str, int]]:
    """Return the factor of the means, the ways and the longest delay, by weighted layer whose sums reach a neuron layer."""
    driving: dict[str, float] = {}
    ways: dict[str, tuple[tuple[Synapse, ...], ...]] = {}
    delays: dict[str, int] = {}

    def search(name: str, factor: float, way: tuple[Synapse, ...], delay: int) -> None:
        layer = graph[name]
        if isinstance(layer.synapse, WEIGHTED):
            for edge in graph.edges_into(name):
                if emits_current(graph, edge.source):
                    raise UnsupportedError(
                        Refusal(
                            layer=name,
                            place=f"layers '{edge.source}' -> '{name}'",
                            what="two weighted layers with no neuron between them",
                            remedy="merge them",
                        )
                    )
            driving[name] = factor
            ways[name] = (*ways.get(name, ()), way)
            delays[name] = max(delay, delays.get(name, 0))
            return
        further = way if layer.synapse is None else (layer.synapse, *way)
        for edge in graph.edges_into(name):
            search(edge.source, factor * mean_factor(layer.synapse), further, delay + edge.delay)

    search(name, 1.0, (), 0)
    return driving, ways, delays


def _spike_factor(graph: SNNGraph, name: str, input_factor: float) -> float:
    """Return the factor of the means between the spiking neurons and a weighted layer, the same for all its edges."""

    def factor_of(source: str) -> float:
        if source == INPUT:
            return input_factor
        layer = graph[source]
        if layer.neuron is not None:
            if not layer.spikes:
                raise UnsupportedError(
                    Refusal(
                        layer=name,
                        place=f"layers '{source}' -> '{name}'",
                        what="a readout's value feeds a layer",
                        remedy="let a spiking neuron do it",
                    )
                )
            return 1.0
        return common_factor(source) * mean_factor(layer.synapse)

    def common_factor(target: str) -> float:
        factors = {factor_of(edge.source) for edge in graph.edges_into(target)}
        if len(factors) != 1:
            raise UnsupportedError(
                Refusal(
                    layer=target,
                    what="adds spikes and means of spikes",
                    remedy="give each its own weights, then add the currents",
                )
            )
        return factors.pop()

    return common_factor(name)


def _takes_input(graph: SNNGraph, name: str) -> bool:
    """Say whether the network's input reaches a layer through no neurons."""
    sources = [edge.source for edge in graph.edges_into(name)]
    return any(s == INPUT or (graph[s].neuron is None and _takes_input(graph, s)) for s in sources)
