"""Weight shift and scale of Xylo layers.

The states want large numbers, since a shift by `dash` rounds, and below 2^dash decays by 1 a step; but they clip at 16 bits.
Without data the shift is the largest at which one spike of every input fits; with data the one with the smallest error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal
from spear_deploy.network import Array, Dense, Neuron, Synapse, XyloLIF
from spear_deploy.quantize.integer_layers import IntegerLayer, build_neuron, round_to_int
from spear_deploy.quantize.layer_error import NOT_MEASURED, FloatRun, LayerError, drive_layer, measure_layer_error
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.shared_cells import holds_shared_cells, limit_shared_cells
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput

MAX_STATE = 2**15 - 1
ROUNDING = 1e-9
"""Largest rounding error of a product in float64."""
MAX_SHIFT = 7
"""Shifts that keep an 8-bit weight within 16 bits, with a bit to spare."""
TRIED_SCALES = 3
"""Scales tried on data for each shift: those with the smallest rounding error."""
HALVINGS = 6
"""Of the largest scale, where it clips on data even without a shift."""
GAINS = (1.0, 1.1, 0.9, 1.2, 0.8, 1.35, 0.7, 1.5)
"""Factors on weights against threshold tried on data where the chip's time constants are not the layer's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnscaledLayer:
    """A layer on its way to Xylo before its scale is chosen.

    Attributes:
        layer: the floating-point layer.
        dash_mem, dash_syn: shifts in place of the time constants.
        synapses, bias: as they drive v, float64.
        max_spikes: of a neuron in a step.
        findings: numbers that these shifts changed.
    """

    layer: NeuronInput
    dash_mem: Array
    dash_syn: Array
    synapses: Mapping[str, Any]
    bias: Array
    max_spikes: int
    findings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class XyloCandidate:
    """Integers of a layer, and what they are chosen by.

    Attributes:
        scale, shift: of the potential, and of the weights.
        gain: factor on the weights against threshold and bias.
        integers: synapses and neuron.
        error: on data.
    """

    scale: float
    shift: int
    gain: float
    integers: IntegerLayer
    error: LayerError


def choose_scales(
    group: Sequence[UnscaledLayer], settings: LoweringSettings, float_run: FloatRun | None
) -> Sequence[XyloCandidate]:
    """Choose the shift that a group of layers has in common, and the scale of each layer.

    Those that the layers learnt with, where the chip still holds all weights at them.

    Raises:
        QuantizationError: a threshold that rounds to 0 at every shift.
    """
    if group and all(unscaled.layer.name in settings.learnt_scales for unscaled in group):
        learnt = [settings.learnt_scales[unscaled.layer.name] for unscaled in group]
        stored = [
            _choose_gain(unscaled, scale, shift, settings.max_weight, (1.0,), None)
            for unscaled, (scale, shift) in zip(group, learnt, strict=True)
        ]
        if all(map(_holds_shared_cells, group, stored)):
            return stored
    possible: list[list[XyloCandidate]] = []
    for shift in reversed(range(MAX_SHIFT + 1)):
        candidates = [_choose_scale(unscaled, settings, shift, None) for unscaled in group]
        if shift == MAX_SHIFT:
            _check_thresholds(group, candidates, settings.weight_bits)
        if all(candidate is not None for candidate in candidates):
            possible.append([candidate for candidate in candidates if candidate is not None])
    min_weight = 2 ** (settings.weight_bits - 2)
    roomy = [candidates for candidates in possible if all(_has_room(candidate, min_weight) for candidate in candidates)]
    first = (roomy or possible[-1:])[0]
    if float_run is None:
        return first
    measured = []
    for common_shift in sorted(possible, key=lambda choices: choices is not first):
        on_data = [_choose_scale(u, settings, c.shift, float_run) for u, c in zip(group, common_shift, strict=True)]
        measured.append([candidate for candidate in on_data if candidate is not None])
    return min(measured, key=lambda choices: (sum(c.error.clips for c in choices), sum(c.error.difference for c in choices)))


def _check_thresholds(group: Sequence[UnscaledLayer], candidates: Sequence[XyloCandidate | None], weight_bits: int) -> None:
    for unscaled, candidate in zip(group, candidates, strict=True):
        if candidate is None:
            threshold = float(unscaled.layer.threshold.min())
            raise QuantizationError(
                Refusal(
                    layer=unscaled.layer.name,
                    what=f"v_threshold {threshold:g} rounds to 0 where its weights take {weight_bits} bits"
                    f"{unscaled.layer.beside_bias}",
                    why=f"Xylo holds 1..{MAX_STATE}",
                    remedy="raise it or bound the weights" + " and the bias" * bool(unscaled.layer.beside_bias),
                )
            )


def _has_room(candidate: XyloCandidate, min_weight: int) -> bool:
    """Say whether weights use their bits, and states theirs without clipping.

    Some stored weight is at least `min_weight`, one spike of every input keeps the current within 16 bits, and the threshold lies
    in the lower half.
    """
    neuron = candidate.integers.neuron
    assert isinstance(neuron, XyloLIF)
    stored = [np.abs(s.weight.astype(np.int64)) for s in candidate.integers.synapses.values() if isinstance(s, Dense)]
    sums = sum(weight.sum(axis=1) << candidate.shift for weight in stored)
    threshold = 0 if neuron.v_threshold is None else int(neuron.v_threshold.max())
    uses_bits = max(int(weight.max()) for weight in stored) >= min_weight
    return bool(uses_bits and np.max(sums) <= MAX_STATE and threshold <= MAX_STATE // 2)


def _choose_scale(
    unscaled: UnscaledLayer, settings: LoweringSettings, shift: int, float_run: FloatRun | None
) -> XyloCandidate | None:
    """Return the scale of a layer at a shift with the smallest error: in spikes on data, else in rounding.

    None where a threshold rounds to 0 at every scale.
    """
    layer, max_weight = unscaled.layer, settings.max_weight
    scales = _scales_to_try(unscaled, max_weight, shift, on_data=float_run is not None) * settings.headroom.get(layer.name, 1.0)
    if not layer.readout:
        scales = scales[[bool((np.rint(scale / max(GAINS) * layer.threshold) >= 1).all()) for scale in scales]]
    best: XyloCandidate | None = None
    for number, scale in enumerate(scales):
        if best is not None and (float_run is None or (number >= TRIED_SCALES and not best.error.clips)):
            break
        candidate = _choose_gain(unscaled, float(scale), shift, max_weight, (1.0,), float_run)
        best = candidate if best is None or candidate.error < best.error else best
    if best is None or float_run is None or layer.readout or not unscaled.findings:
        return best
    return _choose_gain(unscaled, best.scale, shift, max_weight, GAINS, float_run)


def _choose_gain(
    unscaled: UnscaledLayer, scale: float, shift: int, max_weight: int, gains: Sequence[float], float_run: FloatRun | None
) -> XyloCandidate:
    """Return the integers at a scale, with the gain that has the smallest error on data; without data with the first gain."""
    synapses = _integer_synapses(unscaled, scale, shift, max_weight)
    neurons = [_integer_neuron(unscaled, scale, gain) for gain in gains]
    if float_run is None:
        errors = [NOT_MEASURED for _ in neurons]
    else:
        drive = drive_layer(float_run, unscaled.layer, synapses=synapses)
        errors = [measure_layer_error(float_run, unscaled.layer, drive=drive, neuron=neuron, scale=scale) for neuron in neurons]
    best = min(range(len(gains)), key=lambda n: errors[n])
    integers = IntegerLayer(synapses=synapses, neuron=neurons[best])
    return XyloCandidate(scale=scale, shift=shift, gain=gains[best], integers=integers, error=errors[best])


def _scales_to_try(unscaled: UnscaledLayer, max_weight: int, shift: int, *, on_data: bool) -> Array:
    """Return the scales that fit weights, threshold and bias, those with the smallest rounding error first.

    Without data the range of a readout is not known: it must hold a spike of every input in every step. On data halves of the
    largest scale follow, for states that clip even without a shift.
    """
    weights = [synapse.weight for synapse in unscaled.synapses.values()]
    readout = unscaled.layer.readout
    thresholds = np.zeros(1) if readout else unscaled.layer.threshold
    largest = max(float(np.abs(weight).max()) for weight in weights)
    potential = _max_potential(unscaled) if readout and not on_data else np.zeros(1)
    limits = [MAX_STATE / float(v.max()) for v in (np.abs(thresholds), np.abs(unscaled.bias), potential) if v.max() > 0]
    shared = limit_shared_cells(unscaled.layer.shared, unscaled.synapses)
    limits += [2.0**shift * stored / value for value, stored in shared if value]
    max_scale = min([*limits, max_weight * 2.0**shift / largest if largest else np.inf])
    max_scale = max_scale if np.isfinite(max_scale) else 1.0
    factors = np.arange(max_weight, max_weight // 2, -1) / max_weight
    grids = [Grid(values=np.unique(weight), step=2.0**shift) for weight in weights]
    ranked = rank_scales([*grids, Grid(values=np.unique(thresholds), step=1.0)], max_scale, factors)
    if not on_data or shift:
        return ranked
    return np.concatenate([ranked[:TRIED_SCALES], max_scale * 2.0 ** -np.arange(1, HALVINGS)])


def _holds_shared_cells(unscaled: UnscaledLayer, candidate: XyloCandidate) -> bool:
    """Return whether the weights that the chip adds up to one fit it; each may have grown while it was learnt."""
    return holds_shared_cells(unscaled.layer.shared, candidate.integers.synapses, candidate.shift)


def _max_potential(unscaled: UnscaledLayer) -> Array:
    """Return how far v goes where all exciting or all inhibiting inputs send a spike in every step: (neurons,)."""
    total: Array = np.zeros(1)
    for sign in (1, -1):
        per_step: Array = np.maximum(sign * unscaled.bias, 0)
        for synapse in unscaled.synapses.values():
            per_step = per_step + np.maximum(sign * synapse.weight, 0).sum(axis=1) * (2.0**unscaled.dash_syn - 1)
        total = np.maximum(total, per_step * 2.0**unscaled.dash_mem)
    return total


def _integer_synapses(unscaled: UnscaledLayer, scale: float, shift: int, max_weight: int) -> dict[str, Synapse]:
    synapses: dict[str, Synapse] = {}
    for name, synapse in unscaled.synapses.items():
        weight = np.clip(np.rint(synapse.weight * scale / 2.0**shift), -max_weight - 1, max_weight).astype(np.int32)
        synapses[name] = replace(synapse, weight=weight, bias=None, weight_exponent=shift)
    return synapses


def _integer_neuron(unscaled: UnscaledLayer, scale: float, gain: float) -> Neuron:
    """Return the integer neuron; a gain on the weights is a lower threshold and bias."""
    layer = unscaled.layer
    threshold = None if layer.readout else np.floor(scale / gain * layer.threshold + ROUNDING) + 1
    return build_neuron(
        layer.name,
        lambda: XyloLIF(
            dash_mem=unscaled.dash_mem,
            dash_syn=unscaled.dash_syn,
            v_threshold=None if threshold is None else round_to_int(np.minimum(threshold, MAX_STATE)),
            bias=round_to_int(np.clip(scale / gain * unscaled.bias, -MAX_STATE - 1, MAX_STATE)),
            max_spikes=unscaled.max_spikes,
        ),
    )
