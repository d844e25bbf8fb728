"""Whole numbers of Akida 1.0.

A layer keeps nothing between inputs: of its potential p = Σ W · x, a filter with threshold h and step a sends

    n = min(⌈(p − h) / a⌉, 15), or none where p ≤ h            akida's `threshold` and `act_step`

A neuron with a time constant of one step sends the largest n ≤ max_spikes with r · (W · x + b) + v_leak > n · θ. That is the same
with one scale s a layer:

    W ← round(s · r · W), 4 bits with a sign      a ← round(s · θ)      h ← a − round(s · r · b) − round(s · v_leak)

A readout is a layer without activation, whose potential the host reads; what its bias adds the host adds. The network stays one
of LIF and LI neurons, whose numbers are whole and small enough for float32, so that it computes what the chip computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.network import LI, LIF, Array, SparseMatrix
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.neurons import SAME_TAU
from spear_deploy.quantize.integer_layers import IntegerLayer, assemble_network
from spear_deploy.quantize.layer_error import FloatRun
from spear_deploy.quantize.scale_ranking import find_near_best
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs

FORMAT = "akida"
MAX_SPIKES = 15
"""The largest activation: four bits."""
MAX_INPUT = 15
"""The largest input: four bits, but for images that enter an InputConvolutional."""
MAX_THRESHOLD = 2**19 - 1
"""Thresholds have 20 bits, and a sign one of them: h lies below 0 where a bias is large."""


def lower(graph: SNNGraph, settings: LoweringSettings, *, float_run: FloatRun | None = None) -> SNNGraph:
    """Return the network with whole numbers; `metadata["quantization"]` has the scale of each neuron layer.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        settings: bits of a weight, by layer too.
        float_run: not used: the scale is that of the smallest rounding error.

    Raises:
        UnsupportedError: a neuron that keeps a potential, or currents that add up.
        QuantizationError: a threshold that rounds to 0 or has more bits than the chip's.
    """
    integers: dict[str, IntegerLayer] = {}
    scales: dict[str, float] = {}
    layers = tuple(collect_neuron_inputs(graph, settings.kind, settings.input_scale))
    _check_potentials(layers)
    for layer in layers:
        _check_layer(layer)
        largest = max_weight(settings.bits_of(next(iter(layer.stored))))
        scales[layer.name] = _choose_scale(layer, largest)
        integers[layer.name] = _round_layer(layer, scales[layer.name], largest)
    facts: dict[str, Any] = {"format": FORMAT, "weight_bits": settings.weight_bits, "unit": 1, "scale": scales}
    facts |= {"offset": dict.fromkeys(scales, 0.0), "input_events_max": MAX_INPUT, "states": "whole numbers"}
    if settings.layer_bits:
        facts["layer_bits"] = dict(settings.layer_bits)
    if settings.kind == "current":
        facts["input_scale"] = settings.input_scale
    return assemble_network(graph, integers, facts)


def max_weight(bits: int) -> int:
    """Return the largest stored weight: 7 of 4 bits."""
    return int(2 ** (bits - 1)) - 1


def _check_potentials(layers: Iterable[NeuronInput]) -> None:
    """Check that no neuron keeps a potential; all layers of those that do are named, since each of them is replaced."""
    refusals = [
        Refusal(
            layer=layer.name,
            what=f"{type(layer.neuron).__name__} keeps a potential from one step to the next",
            why="Akida's neurons keep none",
            remedy="use LIF or LI with tau_s of one time step",
        )
        for layer in layers
        if _keeps_potential(layer)
    ]
    if refusals:
        raise UnsupportedError(replace(refusals[0], others=tuple(refusals[1:])))


def _keeps_potential(layer: NeuronInput) -> bool:
    is_kept = not isinstance(layer.neuron, (LIF, LI)) or (np.abs(layer.factors["mem"] - 1) > SAME_TAU).any()
    return bool(is_kept or getattr(layer.neuron, "reset_delay", 0))


def _check_layer(layer: NeuronInput) -> None:
    neuron = layer.neuron
    if not layer.readout and (neuron.max_spikes is None or neuron.max_spikes > MAX_SPIKES):
        most = "any number of" if neuron.max_spikes is None else neuron.max_spikes
        raise UnsupportedError(
            Refusal(
                layer=layer.name, what=f"{most} spikes a step", why=f"Akida sends up to {MAX_SPIKES}", remedy="set max_spikes"
            )
        )
    if len(layer.stored) > 1:
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"currents of {', '.join(layer.stored)} that add up",
                why="Akida adds none",
                remedy="merge them",
            )
        )
    if not layer.shares_gain(layer.factors["v_leak"]):
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what="v_leak differs inside a channel",
                why="a filter of Akida has one",
                remedy="use one per channel",
            )
        )
    if not layer.readout and (layer.factors["v_threshold"] <= 0).any():
        low = float(layer.factors["v_threshold"].min())
        raise QuantizationError(
            Refusal(layer=layer.name, what=f"v_threshold {low:g}", why="a step of Akida lies above 0", remedy="raise it")
        )


def _choose_scale(layer: NeuronInput, largest: int) -> float:
    """Return the scale at which weights are rounded least; of equal ones the largest, where the threshold is rounded least."""
    (weight,) = (synapse.weight for synapse in layer.multiply_synapses(layer.factors["r"]).values())
    values = weight.data if isinstance(weight, SparseMatrix) else weight[weight != 0]  # zeros have no error
    if not len(values):
        return 1.0
    scales = np.arange(1, 16 * largest + 1) / (16 * float(np.abs(values).max()))  # the largest weight rounds to `largest` at most
    near = find_near_best(np.abs(values), scales, 1e-9 * float((values**2).sum()))
    return float(scales[near[-1]])


def _round_layer(layer: NeuronInput, scale: float, largest: int) -> IntegerLayer:
    """Return the whole numbers of a layer."""
    ((name, synapse),) = layer.multiply_synapses(layer.factors["r"]).items()
    weight = np.clip(np.rint(scale * synapse.weight), -largest, largest)
    bias = None if synapse.bias is None else np.rint(scale * synapse.bias * layer.bias_factors[name])
    stored = replace(synapse, weight=weight.astype(np.float32), bias=None if bias is None else bias.astype(np.float32))
    neuron = _round_neuron(layer, scale)
    if isinstance(neuron, LIF):
        _check_thresholds(layer, neuron, np.zeros(()) if bias is None else _sum_bias(layer, name, bias))
    return IntegerLayer(synapses={name: stored}, neuron=neuron)


def _sum_bias(layer: NeuronInput, name: str, bias: Array) -> Array:
    """Return what rounded biases bring to the neurons, behind the sums of pools; a delay changes when, not how much."""
    at_once = replace(layer, delays=dict.fromkeys(layer.delays, 0))
    return at_once.broadcast_bias(name, bias / layer.bias_factors[name])


def _check_thresholds(layer: NeuronInput, neuron: LIF, bias: Array) -> None:
    """Refuse thresholds h that have more bits than the chip's."""
    threshold = neuron.v_threshold - bias - neuron.v_leak
    largest = float(threshold.flat[np.abs(threshold).argmax()])
    if abs(largest) > MAX_THRESHOLD:
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"a threshold less bias and leak of {largest:,.0f} beside weights of 4 bits",
                why=f"Akida holds -{MAX_THRESHOLD:,}..{MAX_THRESHOLD:,}",
                remedy="bring bias and v_leak closer to 0",
            )
        )


def _round_neuron(layer: NeuronInput, scale: float) -> LIF | LI:
    neuron = layer.neuron
    one_step, leak = np.asarray(neuron.tau_s), np.rint(scale * layer.factors["v_leak"]).astype(np.float32)
    if layer.readout:
        return LI(tau_s=one_step, v_leak=leak)
    threshold = np.maximum(np.rint(scale * layer.factors["v_threshold"]), 1)
    if (threshold > MAX_THRESHOLD).any():
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"a threshold of {threshold.max():,.0f} beside weights of 4 bits",
                why=f"Akida holds 1..{MAX_THRESHOLD:,}",
                remedy="lower it",
            )
        )
    return LIF(tau_s=one_step, v_leak=leak, v_threshold=threshold.astype(np.float32), max_spikes=neuron.max_spikes)
