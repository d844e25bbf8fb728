"""Integers of Speck and DYNAP-CNN.

Each neuron layer gets one scale s: its 16-bit membrane potential is s times the floating-point one, measured from the level
(`NeuronInput.level`).

    weight       W ← round(s · r · W), 8 bits with a sign
    bias         b ← round(s · r · b), 8 bits with a sign; the chip adds it at the ticks of a slow clock, here once a step
    v_threshold  ← round(s · (v_threshold − level)), or the next whole number above it; 1..32767
    v_min        ← round(s · (v_min − level)); −v_threshold where the network has none, as sinabs sets it in a network that it
                 reads (`min_v_mem`)

The chip spikes where v reaches the threshold, a network where v exceeds it: for whole numbers the next number above is the same.
It is taken where reset is to a value. Where it is by subtraction it would take away too much, so it is taken only where v can
meet the threshold exactly, since weights and threshold are multiples of one number; with data, the one with the smallest error.

A layer has one threshold: where channels have different thresholds, their weights are divided by them instead. A mean over a
window becomes a sum, and the weights behind it take the factor. A dense layer stays one here; on the chip it is a convolution
whose kernel is the whole map, which computes the same. This is how sinabs scales a layer (`discretize_conv_spike`); in addition
s is chosen so that rounding, or with data the spikes, have the smallest error.

The chip's neurons only integrate: neurons that leak are refused. They send as many spikes a step as they are driven to, while
the floating-point ones send one at most and keep the rest: data that drive a layer so hard make the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.network import IF, Array, SpeckIF, Synapse
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.integer_layers import V_MIN, IntegerLayer, assemble_network, build_neuron, round_to_int
from spear_deploy.quantize.layer_error import (
    NOT_MEASURED,
    FloatRun,
    LayerError,
    drive_layer,
    measure_layer_error,
    report_several_spikes,
)
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.scaled_weights import BLOCK, ScaledSynapse, keep_distinct, sort_values
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs

MAX_THRESHOLD = 2**15 - 1
INPUT_LEVELS = 15
"""An analogue input is sent as up to this many events a step: the chip sets no limit, but each event takes time."""
TRIED_SCALES = 12
"""Scales tried on data: those with the smallest rounding error."""
ROUNDING = 1e-9
"""Largest rounding error of a product in float64."""
NOTABLE_CHANGE = 0.02
"""Share by which a threshold may be rounded without a finding."""

ScaledIntegers: TypeAlias = tuple[float, IntegerLayer, LayerError]
"""A scale, the integers at it, and their error on data."""


def lower(graph: SNNGraph, settings: LoweringSettings, *, float_run: FloatRun | None = None) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        settings: bits of a weight (up to 8), input, headroom.
        float_run: a run of `graph`, which the scales are chosen on.

    Raises:
        UnsupportedError: a neuron that leaks or does not spike.
        QuantizationError: a threshold outside the format.
    """
    integers: dict[str, IntegerLayer] = {}
    facts: dict[str, Any] = {"format": "speck", "weight_bits": settings.weight_bits, "unit": 1}
    facts |= {"scale": {}, "offset": {}, "findings": []}
    if settings.kind == "current":
        facts["input_scale"] = settings.input_scale
    for layer in collect_neuron_inputs(graph, settings.kind, settings.input_scale):
        scale, integers[layer.name], error = _choose_integers(layer, settings, float_run)
        if _weight_divisor(layer).size == 1:
            facts["scale"][layer.name], facts["offset"][layer.name] = scale, layer.offset
        facts["findings"] += _report_threshold(layer, integers[layer.name], scale) + report_several_spikes(layer, error)
    return assemble_network(graph, integers, facts)


def _weight_divisor(layer: NeuronInput) -> Array:
    """Return what weights and potentials are divided by: 1, or the thresholds where a layer has several.

    Raises:
        UnsupportedError: not an IF neuron.
        QuantizationError: a threshold that is not above the level.
    """
    if not isinstance(layer.neuron, IF):
        model = type(layer.neuron).__name__
        reason = "does not spike" if layer.readout else "leaks"
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"{model} {reason}",
                why="Speck's neurons integrate and fire",
                remedy="use IF (a constant leak is a bias)",
            )
        )
    if (layer.threshold <= 0).any():
        low = float(layer.threshold.min())
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"v_threshold lies {low:g} above the reset",
                why="Speck's thresholds are above 0",
                remedy="raise it",
            )
        )
    return np.ones(()) if np.ptp(layer.threshold) == 0 else layer.threshold


def _choose_integers(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> ScaledIntegers:
    """Return the integers at the scale with the smallest error: in spikes on data, else in rounding."""
    divisor = _weight_divisor(layer)
    synapses = layer.scale_synapses(layer.factors["r"] / divisor)
    threshold = float((layer.threshold / divisor).max())
    max_weight = settings.max_weight
    biases = [s.bias * layer.bias_factors[name] for name, s in synapses.items() if s.bias is not None]
    extremes = [*(s.extremes() for s in synapses.values()), *((float(bias.min()), float(bias.max())) for bias in biases)]
    max_scale = min([MAX_THRESHOLD / threshold, *(_weight_limit(*pair, max_weight) for pair in extremes)])
    factors = np.arange(max_weight, max_weight // 2, -1) / max_weight
    headroom = settings.headroom.get(layer.name, 1.0)
    factors = factors[np.rint(max_scale * factors * headroom * threshold) >= 1]
    if not len(factors):
        largest = max(abs(extreme) for pair in extremes for extreme in pair)
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"v_threshold {threshold:g} rounds to 0 beside weights and bias up to {largest:g} of "
                f"{settings.weight_bits} bits",
                why=f"Speck holds 1..{MAX_THRESHOLD}",
                remedy="raise it or bound the weights",
            )
        )
    if layer.name in settings.learnt_scales:
        scale, _ = settings.learnt_scales[layer.name]
        return scale, _integers_at(layer, synapses, max_weight, scale)[0], NOT_MEASURED
    values = [*(sort_values([s]) for s in synapses.values()), *(keep_distinct(bias.copy().ravel()) for bias in biases)]
    grids = [Grid(values=part, step=1.0) for part in (*values, np.array([threshold]))]
    scales = rank_scales(grids, max_scale, factors, count=1 if float_run is None else TRIED_SCALES) * headroom
    del values, grids
    if float_run is None:
        return float(scales[0]), _integers_at(layer, synapses, max_weight, scales[0])[0], NOT_MEASURED
    measured: list[ScaledIntegers] = []
    for scale in scales:
        candidates = _integers_at(layer, synapses, max_weight, scale)
        drive = drive_layer(float_run, layer, synapses=candidates[0].synapses, spike_by_spike=False)
        for integers in candidates:
            error = measure_layer_error(float_run, layer, drive=drive, neuron=integers.neuron, scale=scale)
            measured.append((float(scale), integers, error))
    return min(measured, key=lambda candidate: candidate[2])


def _weight_limit(low: float, high: float, max_weight: int) -> float:
    """Return the largest scale at which values of low..high fit −max_weight − 1..max_weight."""
    bounds = ((max_weight, high), (-max_weight - 1, low))
    return float(min([bound / extreme for bound, extreme in bounds if bound * extreme > 0], default=np.inf))


def _integers_at(layer: NeuronInput, synapses: Mapping[str, ScaledSynapse], max_weight: int, scale: float) -> list[IntegerLayer]:
    """Return the integers at a scale, with one or two thresholds: the better one first, as far as is known without data."""
    divisor = _weight_divisor(layer)
    rounded: dict[str, Synapse] = {}
    for name, synapse in synapses.items():
        weight = synapse.round(scale, low=-max_weight - 1, high=max_weight)
        bias = None
        if synapse.bias is not None:
            bias = round_to_int(np.clip(np.rint(synapse.bias * scale * layer.bias_factors[name]), -max_weight - 1, max_weight))
        rounded[name] = replace(synapse.synapse, weight=weight, bias=bias)
    start = round_to_int(scale * (layer.factors["v_reset"] - layer.level) / divisor)
    threshold = scale * float((layer.threshold / divisor).max())
    nearest, above = round(threshold), min(int(np.floor(threshold + ROUNDING)) + 1, MAX_THRESHOLD)
    if layer.neuron.reset == "value":
        thresholds = [above]
    else:
        is_met = abs(threshold - nearest) < ROUNDING and nearest % _common_divisor(rounded, start) == 0
        thresholds = [above, nearest] if is_met else [nearest, above]

    bound = _lower_bound(layer, divisor, scale)

    def build(threshold: int) -> SpeckIF:
        v_min = -threshold if bound is None else max(bound, -MAX_THRESHOLD - 1)
        return SpeckIF(v_threshold=np.array(threshold), v_min=np.array(v_min), v_init=start, reset=layer.neuron.reset)

    neurons = [build_neuron(layer.name, partial(build, threshold)) for threshold in dict.fromkeys(thresholds)]
    return [IntegerLayer(synapses=rounded, neuron=neuron) for neuron in neurons]


def _lower_bound(layer: NeuronInput, divisor: Array, scale: float) -> int | None:
    """Return the lower bound of v as an integer, the lowest of the layer's, or None where it has none."""
    if "v_min" not in layer.factors:
        return None
    return round(scale * float(((layer.factors["v_min"] - layer.level) / divisor).min()))


def _common_divisor(synapses: Mapping[str, Any], start: Array) -> int:
    """Return the largest number of which all that can be added to v is a multiple."""
    arrays = [start, *(array for s in synapses.values() for array in (s.bias, s.weight) if array is not None)]
    divisor = 0
    for array in arrays:
        flat = array.reshape(-1)
        for begin in range(0, flat.size, BLOCK):
            divisor = int(np.gcd.reduce(np.abs(flat[begin : begin + BLOCK]), initial=divisor))
            if divisor == 1:
                return 1
    return divisor or 1


def _report_threshold(layer: NeuronInput, integers: IntegerLayer, scale: float) -> list[dict[str, Any]]:
    """Return findings where rounding changed the threshold or the lower bound by more than `NOTABLE_CHANGE`."""
    neuron = integers.neuron
    assert isinstance(neuron, SpeckIF)
    trained = float((layer.threshold / _weight_divisor(layer)).max())
    pairs = {"v_threshold": (trained, float(neuron.v_threshold) / scale)}
    if "v_min" in layer.factors:  # one number a core: the lowest of the layer's
        bounds = (layer.factors["v_min"] - layer.level) / _weight_divisor(layer)
        stored = float(neuron.v_min) / scale
        pairs[V_MIN] = (max(float(bounds.min()), float(bounds.max()), key=lambda bound: abs(bound - stored)), stored)
    return [
        {"layer": layer.name, "what": what, "given": given, "stored": stored}
        for what, (given, stored) in pairs.items()
        if abs(stored - given) > NOTABLE_CHANGE * abs(given)
    ]
