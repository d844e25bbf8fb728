"""Integers of the Loihi family.

Each neuron layer gets one scale s: its integer membrane potential is 64 · s times the floating-point one, measured from
the level (`NeuronInput.level`). With the factors of `neurons.factors` (mem = dt / tau_mem, ...) a layer becomes

    weight       W ← s · g · W       g = r (IF), mem · r (LIF), jump · mem · r (CubaLIF); `weight_bits` and a sign, by layer too
    v_threshold  ← round(s · (v_threshold − level))
    decay_v      ← round(4096 · mem);  decay_u ← round(4096 · syn), or 4096 where there is no current
    bias         ← 64 · round(s · (mem · (v_leak − level) + g · b));  with a current, g · b goes into u instead

Stored weights are even numbers of −256..254: Loihi keeps 8 bits and a sign for a list of mixed signs by dropping the lowest.
A bias is a multiple of 64, the unit of the weights, although the chip could hold finer ones: netx files cannot, and finer ones
leave 3 % fewer spikes that differ.

An analogue input is sent as graded spikes of 8 bits, and the sums of the weights behind it are shifted down, by 8 bits where
there are no data. A shift by less leaves more of each sum, in a state of 24 bits that must not overflow: on data the shift with
the smallest error is taken. (Adding half a unit to what is shifted down helps less, and drives neurons that get no input.)

A readout does not spike, so that nothing but its leak bounds what biases add to v. Without data its scale is at most that at
which the biases alone take half of the state; where that would leave too little of the weights, a finding says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal
from spear_deploy.network import IF, LOIHI_UNIT, Array, CubaLI, CubaLIF, LoihiLIF, Scale, Synapse, find_start
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.integer_layers import V_MIN, IntegerLayer, assemble_network, round_to_int, store_synapse
from spear_deploy.quantize.layer_error import NOT_MEASURED, FloatRun, LayerError, drive_layer, measure_layer_error
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.scaled_weights import ScaledSynapse, sort_values
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs
from spear_deploy.simulator.neurons import STATE_LIMIT
from spear_deploy.simulator.synapse_math import sum_by_neuron

MAX_THRESHOLD = 2**17 - 1
MAX_BIAS_MANTISSA = 2**12 - 1
MAX_BIAS_EXPONENT = 7
BIAS_EXPONENT = 6
GRADED_BITS = 8
"""An analogue input is sent as graded spikes of this many bits, and the weights behind it are shifted back by at most as many."""
MAX_GRADED = 2**GRADED_BITS - 1
MAX_GRADED_SUM = 2**24
"""What graded spikes, all at their largest, may bring in a step: half of what Lava's 32-bit numbers hold."""
TRIED_SCALES = 3
"""Scales tried on data: those with the smallest rounding error."""
CLIPPING_FACTORS = (1.1, 1.25, 1.5, 2.0)
"""Factors on the largest scale tried on data as well: a few large weights are clipped there, and all others are rounded less."""
MIN_LEVELS = 4
"""Steps that the largest weight keeps where biases of a readout lower its scale without data, or half of those it has."""
BIAS_SHARE = 0.5
"""Of the state of a readout, what biases may take without data; the rest is for spikes."""
BIAS_SATURATES = "bias_saturates"
"""What a finding names: a potential of a readout that biases alone lead beyond its state."""


@dataclass(frozen=True, kw_only=True)
class LoihiCandidate:
    """Integers of a layer, and what they are chosen by.

    Attributes:
        scale, shift: s, and the bits by which sums of graded spikes are shifted down.
        headroom: the scale over the one that the format would allow, at most 1.
        integers: synapses and neuron.
        error: on data.
    """

    scale: float
    shift: int
    headroom: float
    integers: IntegerLayer
    error: LayerError


def lower(
    graph: SNNGraph,
    settings: LoweringSettings,
    *,
    max_scales: Mapping[str, float] | None = None,
    float_run: FloatRun | None = None,
) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        settings: bits of a weight, by layer too, input, headroom.
        max_scales: by layer, the largest scale at which its state does not overflow, where that is known.
        float_run: a run of `graph`, which shifts and scales are chosen on.
    """
    chosen: dict[str, LoihiCandidate] = {}
    offsets: dict[str, Any] = {}
    layers = collect_neuron_inputs(graph, settings.kind, settings.input_scale)
    for layer in layers:
        chosen[layer.name] = _choose_candidate(layer, settings, (max_scales or {}).get(layer.name, np.inf), float_run)
        offsets[layer.name] = layer.offset
    facts: dict[str, Any] = {"format": "loihi", "weight_bits": settings.weight_bits, "unit": LOIHI_UNIT}
    facts["scale"] = {name: candidate.scale for name, candidate in chosen.items()}
    facts |= {"offset": offsets, "headroom": {name: candidate.headroom for name, candidate in chosen.items()}}
    if settings.layer_bits:
        facts["layer_bits"] = dict(settings.layer_bits)
    if settings.kind == "current":
        facts["input_scale"] = settings.input_scale
    findings = _report_bounds(graph, facts["scale"])
    findings += _report_saturation(layers, facts["scale"]) if float_run is None else []
    if findings:
        facts["findings"] = findings
    return assemble_network(graph, {name: candidate.integers for name, candidate in chosen.items()}, facts)


def _choose_candidate(
    layer: NeuronInput, settings: LoweringSettings, max_scale: float, float_run: FloatRun | None
) -> LoihiCandidate:
    """Return the integers with the smallest error: in spikes on data, else in rounding."""
    if layer.name in settings.learnt_scales:
        scale, shift = settings.learnt_scales[layer.name]
        integers = IntegerLayer(synapses=_integer_synapses(layer, scale, shift, settings), neuron=_integer_neuron(layer, scale))
        return LoihiCandidate(scale=scale, shift=shift, headroom=1.0, integers=integers, error=NOT_MEASURED)
    best: LoihiCandidate | None = None
    is_graded = any(not isinstance(layer.stored[name], Scale) for name in layer.analogue)  # a Scale of the input is the host's
    for shift in range(GRADED_BITS, 0, -1) if is_graded and float_run is not None else (GRADED_BITS,):
        candidate = next(_candidates(layer, settings, shift, max_scale, float_run))
        if best is not None and (candidate.scale <= best.scale or _graded_sum(layer, candidate) > MAX_GRADED_SUM):
            break
        if best is None or candidate.error < best.error:
            best = candidate
        if candidate.error.clips:
            break
    assert best is not None
    if float_run is None:
        return best
    return min(_candidates(layer, settings, best.shift, max_scale, float_run), key=lambda candidate: candidate.error)


def _candidates(
    layer: NeuronInput, settings: LoweringSettings, shift: int, max_scale: float, float_run: FloatRun | None
) -> Iterator[LoihiCandidate]:
    """Yield the integers at the scales with the smallest rounding error, that one first."""
    headroom, scales = _scales_to_try(layer, settings, shift, max_scale, on_data=float_run is not None)
    for scale in scales:
        integers = IntegerLayer(synapses=_integer_synapses(layer, scale, shift, settings), neuron=_integer_neuron(layer, scale))
        error = NOT_MEASURED
        if float_run is not None:
            drive = drive_layer(float_run, layer, synapses=integers.synapses, spike_by_spike=False)
            error = measure_layer_error(float_run, layer, drive=drive, neuron=integers.neuron, scale=LOIHI_UNIT * scale)
        yield LoihiCandidate(scale=float(scale), shift=shift, headroom=headroom, integers=integers, error=error)


def _graded_sum(layer: NeuronInput, candidate: LoihiCandidate) -> float:
    """Return what graded spikes, all at their largest, bring to a neuron in a step, as if no convolution or pool had borders."""
    synapses: Mapping[str, Any] = candidate.integers.synapses
    graded = {name: s for name, s in synapses.items() if s.weight_exponent}
    sums = sum(
        layer.count_summed(name) * float(sum_by_neuron(replace(s, weight=abs(s.weight))).max()) for name, s in graded.items()
    )
    return sums * MAX_GRADED / 2.0**candidate.shift


def _has_current(layer: NeuronInput) -> bool:
    return isinstance(layer.neuron, (CubaLIF, CubaLI))


def _mem(layer: NeuronInput) -> Array:
    return layer.factors.get("mem", np.zeros(()))


def _float_synapses(layer: NeuronInput, shift: int) -> dict[str, ScaledSynapse]:
    """Return the effective synapses: gain and the shift of graded input are in them."""
    f = layer.factors
    unit = np.ones(()) if isinstance(layer.neuron, IF) else _mem(layer)
    synapses = layer.scale_synapses(f["r"] * unit * f.get("jump", np.ones(())))
    graded = np.asarray(2.0**shift)
    return {n: replace(s, factors=(*s.factors, graded)) if n in layer.analogue else s for n, s in synapses.items()}


def _float_bias(layer: NeuronInput) -> Array:
    """Return what is added to v per step, in units of v: leak, and the synapses' bias where there is no current."""
    f = layer.factors
    bias = _mem(layer) * (f["v_leak"] - layer.level) if "v_leak" in f else np.zeros(())
    if not _has_current(layer):
        for name, synapse in _float_synapses(layer, 0).items():
            if synapse.bias is not None:
                bias = bias + layer.broadcast_bias(name, synapse.bias)
    return np.asarray(bias, np.float64)


def _scales_to_try(
    layer: NeuronInput, settings: LoweringSettings, shift: int, max_scale: float, *, on_data: bool
) -> tuple[float, Array]:
    """Return what is taken of the largest scale that the format allows, at most 1, and the scales to try.

    These use at least half of the weight format and have the smallest rounding error, that one first; on data some that clip the
    largest weights follow.
    """
    by_bits: dict[int, list[ScaledSynapse]] = {}
    for name, synapse in _float_synapses(layer, shift).items():
        by_bits.setdefault(settings.bits_of(name), []).append(synapse)
    known = (_threshold_limit(layer), _bias_limit(layer), _start_limit(layer), _current_limit(layer))
    other_limits = min((limit for limit in known if limit), default=np.inf)
    limits, least = [], [0.0]
    for bits, synapses in by_bits.items():
        (step, most), largest = weight_format(bits), max(abs(end) for synapse in synapses for end in synapse.extremes())
        limits += [step * most / largest] if largest else []
        least += [step * min(MIN_LEVELS, (most + 1) // 2) / largest] if largest else []
    allowed = min([*limits, other_limits])
    if not limits:  # weights of zero take any scale: a power of two, so that binary fractions stay exact
        allowed = 2.0 ** np.floor(np.log2(other_limits)) if np.isfinite(other_limits) else 1.0
    fits = None if on_data else _potential_limit(layer)
    if fits is not None and fits >= max(least):
        max_scale = min(max_scale, max(BIAS_SHARE * fits, *least))
    headroom = min(settings.headroom.get(layer.name, 1.0), max_scale / allowed)
    first = min(allowed * settings.headroom.get(layer.name, 1.0), max_scale)
    if not limits:
        return headroom, np.array([first])
    thresholds = np.zeros(1) if layer.readout else layer.threshold
    _, max_weight = weight_format(max(by_bits))
    factors = np.arange(max_weight, max_weight // 2, -1) / max_weight
    grids = [
        Grid(values=sort_values(synapses, magnitudes=True), step=weight_format(bits)[0]) for bits, synapses in by_bits.items()
    ]
    grids.append(Grid(values=np.unique(thresholds), step=1))
    ranked = rank_scales(grids, first, factors, count=TRIED_SCALES if on_data else 1)
    clipping = [first * factor for factor in CLIPPING_FACTORS if on_data and first * factor <= min(other_limits, max_scale)]
    return headroom, np.append(ranked, clipping)


def _threshold_limit(layer: NeuronInput) -> float | None:
    """Return the largest scale at which the threshold fits its format, or None where every scale does."""
    if layer.readout:
        return None
    if (layer.threshold < 0).any():
        raise QuantizationError(
            Refusal(layer=layer.name, what="v_threshold is below v_reset", why="the neuron would never rest", remedy="check them")
        )
    return MAX_THRESHOLD / float(layer.threshold.max()) if layer.threshold.max() > 0 else None


def _bias_limit(layer: NeuronInput) -> float | None:
    """Return the largest scale at which the bias fits its format, or None where every scale does."""
    bias = float(np.abs(_float_bias(layer)).max())
    return MAX_BIAS_MANTISSA * 2**MAX_BIAS_EXPONENT / (LOIHI_UNIT * bias) if bias else None


def _current_limit(layer: NeuronInput) -> float | None:
    """Return the largest scale at which the current that biases alone lead to fits the state, or None where every scale does."""
    if not _has_current(layer):
        return None
    biases = {n: np.abs(s.bias).max() * layer.bias_factors[n] for n, s in _float_synapses(layer, 0).items() if s.bias is not None}
    summed = {name: layer.count_summed(name) for name in biases}  # how often pools add a bias up
    largest = sum(summed[name] * float(bias) for name, bias in biases.items())
    steady = float(_stored_leak(layer, "syn").min()) * (STATE_LIMIT - 1) / LOIHI_UNIT  # a bias of this leads to the limit
    # A rounded bias is at most 1 more than before, and at most twice as large.
    return max(steady - sum(summed.values()), steady / 2) / largest if largest else None


def _potential_limit(layer: NeuronInput) -> float | None:
    """Return the largest scale at which the potential of a readout that biases alone lead to fits the state.

    None where every scale does, and of neurons that spike.
    """
    if not layer.readout:
        return None
    bias = _float_bias(layer)
    if _has_current(layer):
        at_once = replace(layer, delays=dict.fromkeys(layer.delays, 0))  # a delay changes when a bias arrives, not how much
        for name, synapse in _float_synapses(layer, 0).items():
            if synapse.bias is not None:
                bias = bias + at_once.broadcast_bias(name, synapse.bias) / _stored_leak(layer, "syn")
    largest = float(np.abs(bias / _stored_leak(layer, "mem")).max())
    return (STATE_LIMIT - 1) / (LOIHI_UNIT * largest) if largest else None


def _stored_leak(layer: NeuronInput, state: str) -> Array:
    """Return what a state loses in a step, as stored; one that is stored as 0 is that of the network."""
    decay = round_to_int(4096 * layer.factors[state]) / 4096
    return np.where(decay > 0, decay, layer.factors[state])


def _start_limit(layer: NeuronInput) -> float | None:
    """Return the largest scale at which the potential at the start fits the state, or None where every scale does."""
    start = float(np.abs(find_start(layer.neuron) - layer.level).max())
    return (STATE_LIMIT - 1) / (LOIHI_UNIT * start) if start else None


def _integer_synapses(layer: NeuronInput, scale: float, shift: int, settings: LoweringSettings) -> dict[str, Synapse]:
    synapses: dict[str, Synapse] = {}
    for name, synapse in _float_synapses(layer, shift).items():
        step, max_weight = weight_format(settings.bits_of(name))
        bias = None
        if synapse.bias is not None and _has_current(layer):
            bias = round_to_int(synapse.bias * (scale * layer.bias_factors[name]))
        weight = synapse.round(scale, step=step, low=-max_weight, high=max_weight)
        exponent = -shift if name in layer.analogue else 0
        synapses[name] = store_synapse(synapse.synapse, weight=weight, bias=bias, exponent=exponent)
    return synapses


def _integer_neuron(layer: NeuronInput, scale: float) -> LoihiLIF:
    f = layer.factors
    bias = scale * _float_bias(layer)
    exponent = BIAS_EXPONENT if np.abs(np.rint(bias)).max() <= MAX_BIAS_MANTISSA else MAX_BIAS_EXPONENT
    start = find_start(layer.neuron) - layer.level
    return LoihiLIF(
        decay_u=round_to_int(4096 * f["syn"]) if _has_current(layer) else np.array(4096),
        decay_v=round_to_int(4096 * _mem(layer)),
        v_threshold=None if layer.readout else round_to_int(scale * layer.threshold),
        bias_mantissa=round_to_int(bias * LOIHI_UNIT / 2**exponent),
        bias_exponent=exponent,
        v_init=round_to_int(LOIHI_UNIT * scale * start),
        reset=getattr(layer.neuron, "reset", "value"),
    )


def _report_bounds(graph: SNNGraph, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a finding per layer whose lower bound of v has no counterpart: the state ends at −2^23 alone."""
    bounds = {layer.name: layer.neuron.v_min for layer in graph.layers if isinstance(layer.neuron, IF)}
    return [
        {"layer": name, "what": V_MIN, "given": float(bound.min()), "stored": -(2.0**23) / (LOIHI_UNIT * scales[name])}
        for name, bound in bounds.items()
        if bound is not None
    ]


def _report_saturation(layers: Sequence[NeuronInput], scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a finding per readout whose biases alone lead v beyond its state: how far, in multiples of the state."""
    limits = {layer.name: _potential_limit(layer) for layer in layers}
    return [
        {"layer": name, "what": BIAS_SATURATES, "given": scales[name] / limit, "stored": 1.0}
        for name, limit in limits.items()
        if limit is not None and scales[name] > limit
    ]


def weight_format(bits: int) -> tuple[int, int]:
    """Return (step between stored weights, largest multiple of it): 8 bits store -254, -252, ..., 254."""
    return 2 ** (9 - bits), 2 ** (bits - 1) - 1
