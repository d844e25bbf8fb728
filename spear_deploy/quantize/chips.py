"""Integers of TrueNorth, SpiNNaker 1, ReckOn, ODIN and Catalyst N1.

Each neuron layer gets one scale s: its stored potential is s times the floating-point one, measured from the level
(`NeuronInput.level`). With the factors of `neurons.factors` (mem = dt / tau_mem, syn = dt / tau_syn, ...) a layer becomes

    TrueNorth   W ← s · r · W, four values a neuron       leak ← s · r · b                 no decay: IF alone
    ODIN        W ← s · r · W, 3 bits                     no bias                          no decay: IF alone
    Catalyst    W ← s · r · W, 16 bits                    leak ← −s · r · b                no decay: IF alone
    ReckOn      W ← s · m · r · W / 2^shift               no bias                          keep ← 2^15 (1 − m), LI 2^7 (1 − m)
    SpiNNaker   W ← s · r · jump · W / 2^shift            v_rest ← s (v_leak + r · jump / syn · b)   keep_v ← 2^15 (1 − mem)

rounded to whole numbers of the widths that the neuron's `FORMAT` names; m is mem, for IF 0 in a decay and 1 in a
weight. The chips spike where v reaches the threshold, a network where v exceeds it: v_threshold ← ⌊s · θ⌋ + 1, θ above the level.
Where reset is by subtraction that takes away too much, so the nearest whole number is tried too.

A family is a row of `RULES`: which neurons it takes, and a function that yields its integers at the scales to try. Without data
the first is taken: that with the smallest rounding error. With data the one whose spikes differ least from the floating-point
layer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    RESET_WORDS,
    Array,
    CatalystLIF,
    CubaLI,
    CubaLIF,
    Dense,
    OdinLIF,
    ReckonLIF,
    Scale,
    SpinnakerLIF,
    Synapse,
    TrueNorthLIF,
    find_start,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.even_neurons import find_current_gain, find_initial_share
from spear_deploy.quantize.layer_error import (
    NOT_MEASURED,
    FloatRun,
    LayerDrive,
    LayerError,
    drive_layer,
    measure_layer_error,
    report_several_spikes,
)
from spear_deploy.quantize.palette import AXONS, cluster_rows, count_axons
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.weighted_inputs import (
    IntegerLayer,
    LoweringSettings,
    NeuronInput,
    assemble_network,
    build_neuron,
    collect_neuron_inputs,
    round_to_int,
    store_synapse,
)
from spear_deploy.simulator.neurons.chips import RING_BUFFER_MAX, SIGN_BITS
from spear_deploy.simulator.stepper import apply_delay
from spear_deploy.simulator.synapse_math import pack_signs, sum_by_neuron
from spear_deploy.util.number_format import plural, write_steps

TRIED_SCALES = 8
"""Scales tried on data: those with the smallest rounding error."""
CLIPPING_FACTORS = (1.15, 1.35, 1.6, 2.0)
"""Factors on the largest scale tried on data as well: a few large weights are clipped there, and all others are rounded less."""
SPINNAKER_ROOM = 2**14
"""Potential, of 2^16, that the largest input reaches: four times as much still fits s16.15."""
RECKON_ROOM = 8
"""Times one spike of every input that a ReckOn potential holds where there are no data: they add up over steps."""
CATALYST_ROOM = 16
"""Thresholds of Catalyst N1 that its numbers hold where v may fall below the reset: v may fall by 15 of them."""
PALETTE = 4
"""Weights of a TrueNorth neuron: one for each axon type."""
FLOOR = "floor"
"""What a finding names: a potential that stops at 0."""
ROUNDING = 1e-9
"""Largest rounding error of a product in float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaleChoice:
    """Integers of a layer, and what they are chosen by.

    Attributes:
        scale: stored potential over floating-point one.
        shift: that the layer's weights have in common, where the family has one.
        integers: synapses and neuron.
        findings: numbers that the format changed.
        error: on data.
    """

    scale: float
    shift: int | None = None
    integers: IntegerLayer
    findings: tuple[dict[str, Any], ...] = ()
    error: LayerError = NOT_MEASURED


Propose: TypeAlias = Callable[[NeuronInput, LoweringSettings, FloatRun | None], Iterator[ScaleChoice]]
"""Yields the integers of a layer at the scales to try."""


@dataclass(frozen=True, kw_only=True)
class FamilyRule:
    """How a chip family stores a layer.

    Attributes:
        neuron: its integer neuron.
        models: floating-point neurons that have a counterpart.
        reason, remedy: why it takes no other, and what a network has to use instead.
        propose: see `Propose`.
        input_max: spikes that an input sends in a step at most; None: any number.
        shared_shift: whether all layers but the last have one shift.
    """

    neuron: Any
    models: tuple[type, ...]
    reason: str
    remedy: str
    propose: Propose
    input_max: int | None = None
    shared_shift: bool = False


def lower(graph: SNNGraph, settings: LoweringSettings, family: str, *, float_run: FloatRun | None = None) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        settings: bits of a weight, input, headroom.
        family: of `RULES`.
        float_run: a run of `graph`, which the scales are chosen on.

    Raises:
        UnsupportedError: a neuron, a reset, a bias or signs that the chip does not have.
        QuantizationError: a time constant or threshold outside the format.
    """
    rule = RULES[family]
    facts: dict[str, Any] = {"format": family, "weight_bits": settings.weight_bits, "unit": 1}
    facts |= {"scale": {}, "offset": {}, "findings": []}
    if rule.input_max is not None:
        facts["input_events_max"] = rule.input_max
    if settings.kind == "current":
        facts["input_scale"] = settings.input_scale
    layers = collect_neuron_inputs(graph, settings.kind, settings.input_scale)
    for layer in layers:
        _check_layer(layer, rule)
        if rule.neuron.FORMAT.drive == "events":
            _check_events(graph, layer)
    chosen = _choose(layers, graph.output, rule, settings, float_run)
    for layer in layers:
        candidate = chosen[layer.name]
        facts["scale"][layer.name], facts["offset"][layer.name] = candidate.scale, layer.offset
        facts["findings"] += [*candidate.findings, *report_several_spikes(layer, candidate.error)]
    return assemble_network(graph, {name: candidate.integers for name, candidate in chosen.items()}, facts)


# ------------------------------------------------------------------------------------------------------------- choosing


def _choose(
    layers: list[NeuronInput], output: str, rule: FamilyRule, settings: LoweringSettings, float_run: FloatRun | None
) -> dict[str, ScaleChoice]:
    """Return the candidate of each layer; where layers share a shift, the shift with the smallest error of them all."""
    proposals = {layer.name: list(rule.propose(layer, settings, float_run)) for layer in layers}
    for layer in layers:
        if not proposals[layer.name]:
            raise QuantizationError(
                Refusal(
                    layer=layer.name,
                    what=f"v_threshold {float(layer.threshold.min()):g} is outside what {rule.neuron.FORMAT.chip} holds "
                    f"beside weights of {settings.weight_bits} bits",
                    remedy="raise it or bound the weights",
                )
            )
        proposals[layer.name] = _measure(layer, proposals[layer.name], float_run)
    if not rule.shared_shift:
        return {name: _pick(candidates) for name, candidates in proposals.items()}
    chosen: dict[str, ScaleChoice] = {}
    for names in ([name for name in proposals if name != output], [output] if output in proposals else []):
        by_shift = [
            [_pick([c for c in proposals[name] if c.shift == shift]) for name in names]
            for shift in range(rule.neuron.FORMAT.max_shift, -1, -1)
            if all(any(c.shift == shift for c in proposals[name]) for name in names)
        ]
        if names and not by_shift:
            raise QuantizationError(
                Refusal(
                    layer=names[-1],
                    place=f"layers {', '.join(names)}",
                    what=f"no shift that {rule.neuron.FORMAT.chip} has fits them all",
                    remedy="rescale",
                )
            )
        best = min(by_shift, key=lambda cs: (sum(c.error.clips for c in cs), sum(c.error.difference for c in cs)))
        chosen |= dict(zip(names, best, strict=True))
    return {name: chosen[name] for name in proposals}


def _pick(candidates: list[ScaleChoice]) -> ScaleChoice:
    return min(candidates, key=lambda candidate: candidate.error)


def _measure(layer: NeuronInput, candidates: list[ScaleChoice], float_run: FloatRun | None) -> list[ScaleChoice]:
    """Return the candidates with their error on data."""
    if float_run is None:
        return candidates
    drives: dict[int, LayerDrive] = {}
    measured = []
    for candidate in candidates:
        key = id(candidate.integers.synapses)  # candidates that differ in their threshold alone share the synapses
        if key not in drives:
            drives[key] = _drive(layer, candidate.integers, float_run)
        error = measure_layer_error(
            float_run,
            layer,
            drive=drives[key],
            neuron=candidate.integers.neuron,
            scale=candidate.scale,
            constants=_weights(candidate),
        )
        measured.append(replace(candidate, error=error))
    return measured


def _weights(candidate: ScaleChoice) -> Mapping[str, Array]:
    """Return what a neuron that takes spike by spike has to know: its weights, sources first."""
    if not isinstance(candidate.integers.neuron, OdinLIF):
        return {}
    (synapse,) = candidate.integers.synapses.values()
    return {"weight": np.asarray(synapse.weight, np.int64).T}  # type: ignore[union-attr]


def _drive(layer: NeuronInput, integers: IntegerLayer, float_run: FloatRun) -> LayerDrive:
    """Return what the neurons take in each step."""
    if isinstance(integers.neuron, OdinLIF):
        graph = float_run.graph
        (edge,) = graph.edges_into(_first_layer(graph, layer))
        spikes = apply_delay(float_run.emitted[edge.source], edge.delay)
        return LayerDrive(sums=spikes.reshape(*spikes.shape[:2], -1))
    synapses = integers.synapses
    if isinstance(integers.neuron, SpinnakerLIF):
        synapses = {name: pack_signs(synapse, SIGN_BITS) for name, synapse in synapses.items()}
    return drive_layer(float_run, layer, synapses=synapses, spike_by_spike=False)


def _first_layer(graph: SNNGraph, layer: NeuronInput) -> str:
    """Return the layer of weights of a neuron layer, or the flatten before it."""
    (edge,) = graph.edges_into(layer.name)
    return layer.name if edge.source == INPUT or graph[edge.source].neuron is not None else edge.source


# --------------------------------------------------------------------------------------------------------------- checks


def _check_layer(layer: NeuronInput, rule: FamilyRule) -> None:
    chip, neuron = rule.neuron.FORMAT.chip, layer.neuron
    if type(neuron) not in rule.models:
        raise UnsupportedError(Refusal(layer=layer.name, what=type(neuron).__name__, why=rule.reason, remedy=rule.remedy))
    if not layer.readout and neuron.reset not in rule.neuron.FORMAT.resets:
        resets = rule.neuron.FORMAT.resets
        how = " or ".join(RESET_WORDS[reset] for reset in resets)
        remedy = " or ".join(f"reset='{reset}'" for reset in resets)
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"reset '{neuron.reset}'",
                why=f"{chip}'s neurons reset {how}",
                remedy=f"train with {remedy}",
            )
        )
    if not layer.readout and (layer.threshold <= 0).any():
        low = float(layer.threshold.min())
        raise QuantizationError(
            Refusal(
                layer=layer.name, what=f"v_threshold lies {low:g} above the reset", why=f"{chip}'s lie above 0", remedy="raise it"
            )
        )


def _check_events(graph: SNNGraph, layer: NeuronInput) -> None:
    """Refuse what a chip cannot do that takes each spike by itself."""
    if list(layer.stored) != [layer.name] or len(graph.edges_into(layer.name)) != 1:
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"currents of {', '.join(layer.stored)} that add up",
                why="ODIN's neurons take each spike by itself from one layer",
                remedy="concatenate the layers before the weights",
            )
        )
    first = _first_layer(graph, layer)
    source = graph.edges_into(first)[0].source
    if not isinstance(layer.stored[layer.name], Dense) or (source != INPUT and graph[source].neuron is None):
        what = type(layer.stored[layer.name]).__name__
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"{what} or a pool",
                why="ODIN's crossbar takes spikes through Dense alone",
                remedy="unroll it",
            )
        )
    weight = layer.stored[layer.name].weight
    if mixed := int(((weight > 0).any(axis=0) & (weight < 0).any(axis=0)).sum()):
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"{plural(mixed, 'source')} with weights of both signs",
                why="a source on ODIN has one",
                remedy="send each twice, once for each sign",
            )
        )


def _check_no_bias(layer: NeuronInput, chip: str) -> None:
    """Refuse a bias, or a leak towards something else than the level, where a neuron has no constant input."""
    biased = [name for name, synapse in layer.stored.items() if synapse.bias is not None and np.any(synapse.bias)]
    if biased:
        raise UnsupportedError(
            Refusal(
                layer=biased[0],
                what="a bias",
                why=f"{chip}'s neurons have none",
                remedy="give it an input that spikes in every step",
            )
        )
    if "v_leak" in layer.factors and (layer.factors["v_leak"] != layer.level).any():
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what="v_leak differs from its reset",
                why=f"{chip}'s potentials fall to the reset",
                remedy="make them equal",
            )
        )


def _check_pairs(layer: NeuronInput, name: str, values: Array) -> None:
    """Refuse values that differ between the neurons 2N and 2N + 1, which share them on ReckOn."""
    flat = np.broadcast_to(values, layer.shape).reshape(-1)
    even = flat[: len(flat) // 2 * 2].reshape(-1, 2)
    if (even[:, 0] != even[:, 1]).any():
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"{name} differs inside a pair of neurons",
                why="which share it on ReckOn",
                remedy="make it equal",
            )
        )


# --------------------------------------------------------------------------- integrators: TrueNorth, ODIN and Catalyst N1


def _propose_truenorth(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    synapses = layer.multiply_synapses(layer.factors["r"])
    count = PALETTE // len(synapses)
    if not count:
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"currents of {len(synapses)} layers of weights add up",
                why=f"a TrueNorth neuron has {PALETTE} weights",
                remedy="merge the layers",
            )
        )
    own = {
        n for n, s in synapses.items() if isinstance(s, Scale) and (layer.count_summed(n) == 1 or not s.weight.ndim)
    }  # a value
    synapses = {n: s if n in own else replace(s, weight=cluster_rows(s.weight, count)) for n, s in synapses.items()}
    findings = [
        {"layer": name, "what": AXONS, "given": float(int(np.prod(s.weight.shape[1:]))), "stored": float(count_axons(s.weight))}
        for name, s in synapses.items()
        if name not in own and count_axons(s.weight) > int(np.prod(s.weight.shape[1:]))
    ]
    bias = _sum_biases(layer, synapses)
    limits = [(float(np.abs(bias).max()), 255.0)]
    for scale in _scales(layer, synapses, TrueNorthLIF, settings, limits, on_data=float_run is not None):
        rounded = _round(synapses, scale, max_stored_weight(TrueNorthLIF, settings.weight_bits))
        start = round_to_int(scale * (layer.factors["v_reset"] - layer.level))
        lowest = -(2**18 - 1)
        v_min = (
            np.maximum(round_to_int(scale * (layer.factors["v_min"] - layer.level)), lowest)
            if "v_min" in layer.factors
            else lowest
        )
        leak = round_to_int(np.clip(scale * bias, -255, 255))
        for threshold in _thresholds(layer, scale):
            values = {"v_threshold": threshold, "leak": leak, "v_min": v_min, "v_init": start, "reset": layer.neuron.reset}
            neuron = build_neuron(layer.name, lambda values=values: TrueNorthLIF(**values))  # type: ignore[misc]
            integers = IntegerLayer(synapses=rounded, neuron=neuron)
            yield ScaleChoice(scale=scale, integers=integers, findings=tuple(findings))


def _propose_odin(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    _check_no_bias(layer, "ODIN")
    synapses = layer.multiply_synapses(layer.factors["r"])
    findings = _find_floor(layer)
    for scale in _scales(layer, synapses, OdinLIF, settings, (), on_data=float_run is not None):
        rounded = _round(synapses, scale, max_stored_weight(OdinLIF, settings.weight_bits))
        for threshold in _thresholds(layer, scale):
            neuron = build_neuron(layer.name, lambda value=threshold: OdinLIF(v_threshold=value))  # type: ignore[misc]
            yield ScaleChoice(scale=scale, integers=IntegerLayer(synapses=rounded, neuron=neuron), findings=findings)


def _propose_catalyst(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    synapses = layer.multiply_synapses(layer.factors["r"])
    bias = _sum_biases(layer, synapses)
    largest = max(float(np.abs(s.weight).max()) for s in synapses.values())
    limits = CatalystLIF.FORMAT
    floor = layer.factors.get("v_min")
    stops = floor is not None and (floor == layer.level).all()
    highest = limits.thresholds[1] if stops else limits.thresholds[1] // CATALYST_ROOM
    pairs = [(largest, limits.weights[1]), (float(layer.threshold.max()), highest - 1)]
    pairs.append((float(np.abs(bias).max()), limits.weights[1]))
    scale = min([stored / value for value, stored in pairs if value], default=1.0) * settings.headroom.get(layer.name, 1.0)
    if (np.rint(scale * layer.threshold) < 1).any():
        return
    rounded = _round(synapses, scale, limits.weights[1])
    leak = -round_to_int(scale * bias)
    for threshold in _thresholds(layer, scale):
        resting = np.asarray(0 if stops else limits.thresholds[1] - int(threshold.max()))
        values = {"v_threshold": threshold, "leak": leak, "resting": resting}
        neuron = build_neuron(layer.name, lambda values=values: CatalystLIF(**values))  # type: ignore[misc]
        integers = IntegerLayer(synapses=rounded, neuron=neuron)
        yield ScaleChoice(scale=scale, integers=integers, findings=() if floor is None else _find_floor(layer))


def _find_floor(layer: NeuronInput) -> tuple[dict[str, Any], ...]:
    """Return a finding where the potential of a chip stops at 0 and that of the network does not."""
    floor = layer.factors.get("v_min")
    stops = floor is not None and (floor == layer.level).all()
    return () if stops else ({"layer": layer.name, "what": FLOOR, "given": 0, "stored": 0},)


def _sum_biases(layer: NeuronInput, synapses: Mapping[str, Any]) -> Array:
    """Return what the biases of a layer add to v in a step, behind the means on the way."""
    bias = np.zeros(())
    for name, synapse in synapses.items():
        if synapse.bias is not None:
            bias = bias + layer.broadcast_bias(name, synapse.bias)
    return bias


def _scales(
    layer: NeuronInput,
    synapses: Mapping[str, Any],
    neuron: Any,
    settings: LoweringSettings,
    limits: Any,
    *,
    on_data: bool,
    shift: int = 0,
    tried: int = TRIED_SCALES,
) -> list[float]:
    """Return the scales to try, that with the smallest rounding error first.

    Args:
        layer, synapses, settings: what is scaled.
        neuron: with the format.
        limits: further pairs (largest value, largest stored one).
        on_data: whether more than the first is wanted.
        shift: of the weights.
        tried: how many of the ranked scales are wanted on data.
    """
    if layer.name in settings.learnt_scales:
        scale, learnt_shift = settings.learnt_scales[layer.name]
        return [scale] if shift == learnt_shift else []
    max_weight, max_threshold = max_stored_weight(neuron, settings.weight_bits), neuron.FORMAT.thresholds[1]
    extreme = max(float(np.abs(s.weight).max()) for s in synapses.values())
    threshold = 0.0 if layer.readout else float(layer.threshold.max())
    pairs = [(extreme / 2**shift, max_weight), (threshold, max_threshold - 1), *limits]
    largest = min([stored / value for value, stored in pairs if value], default=1.0)
    factors = np.arange(max_weight, max(max_weight // 2, 1) - 1, -1) / max_weight
    values = [np.unique(s.weight) for s in synapses.values()]
    grids = [Grid(values=part, step=2.0**shift) for part in values]
    if not layer.readout:
        grids.append(Grid(values=np.unique(layer.threshold), step=1.0))
    ranked = list(rank_scales(grids, largest, factors, count=min(tried, len(factors)) if on_data else 1))
    others = min([stored / value for value, stored in pairs[1:] if value], default=np.inf)
    clipping = [largest * factor for factor in CLIPPING_FACTORS if on_data and largest * factor <= others]
    headroom = settings.headroom.get(layer.name, 1.0)
    scales = [float(scale * headroom) for scale in (*ranked, *clipping)]
    return scales if layer.readout else [scale for scale in scales if (np.rint(scale * layer.threshold) >= 1).all()]


def max_stored_weight(neuron: Any, weight_bits: int) -> int:
    """Return the largest stored weight; a weight of ODIN has its sign with its source."""
    bits = weight_bits if neuron is OdinLIF else weight_bits - 1
    return min(int(neuron.FORMAT.weights[1]), 2**bits - 1)


def _thresholds(layer: NeuronInput, scale: float) -> list[Array]:
    """Return the thresholds to try: the next whole numbers above, and where reset is by subtraction the nearest ones first."""
    above = round_to_int(np.floor(scale * layer.threshold + ROUNDING) + 1)
    nearest = np.maximum(round_to_int(scale * layer.threshold), 1)
    if layer.neuron.reset != "subtract" or np.array_equal(above, nearest):
        return [above]
    return [nearest, above]


def _round(synapses: Mapping[str, Any], scale: float, largest: int, shift: int = 0) -> dict[str, Synapse]:
    """Return the synapses in whole numbers, without bias."""
    return {
        name: store_synapse(
            s, weight=np.clip(np.rint(s.weight * scale / 2.0**shift), -largest, largest).astype(np.int32), exponent=shift
        )
        for name, s in synapses.items()
    }


# ------------------------------------------------------------------------------------------ decays: ReckOn and SpiNNaker


def _propose_reckon(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    _check_no_bias(layer, "ReckOn")
    mem = np.zeros(()) if isinstance(layer.neuron, IF) else layer.factors["mem"]
    gain = layer.factors["r"] * (np.ones(()) if isinstance(layer.neuron, IF) else mem)
    one = 2**7 if layer.readout else 2**15
    keep = round_to_int(one * (1 - mem))
    if not layer.readout and (keep < 7 * 2**12).any():
        steps = float((1 / mem).min())
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"tau_mem_s is {write_steps(steps, 3)}",
                why="ReckOn's neurons keep 0.875 to 1 of v in a step",
                remedy="use 8 steps or more",
            )
        )
    if not keep.all():
        raise QuantizationError(
            Refusal(
                layer=layer.name, what="tau_s is one step", why="ReckOn reads an output behind its decay, 0", remedy="lengthen it"
            )
        )
    _check_pairs(layer, "tau_s", keep)
    synapses = layer.multiply_synapses(gain)
    for shift in range(ReckonLIF.FORMAT.max_shift, -1, -1):
        for scale in _scales(layer, synapses, ReckonLIF, settings, (), on_data=float_run is not None, shift=shift, tried=2):
            rounded = _round(synapses, scale, max_stored_weight(ReckonLIF, settings.weight_bits), shift)
            is_learnt = layer.name in settings.learnt_scales
            if (
                float_run is None
                and shift
                and not is_learnt
                and _sum_of_all(layer, rounded) * RECKON_ROOM > ReckonLIF.FORMAT.v[1]
            ):
                continue
            for threshold in [None] if layer.readout else _thresholds(layer, scale):
                if threshold is not None:
                    _check_pairs(layer, "v_threshold", threshold)
                values = {"keep": keep, "v_threshold": threshold, "reset": getattr(layer.neuron, "reset", "value")}
                neuron = build_neuron(layer.name, lambda values=values: ReckonLIF(**values))  # type: ignore[misc]
                read = scale * float(np.mean(keep)) / one if layer.readout else scale  # an output is read behind its decay
                yield ScaleChoice(scale=read, shift=shift, integers=IntegerLayer(synapses=rounded, neuron=neuron))


def _propose_spinnaker(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    f, unit = layer.factors, SpinnakerLIF.FORMAT.unit
    current = isinstance(layer.neuron, (CubaLIF, CubaLI))
    syn, jump = (f["syn"], f["jump"]) if current else (np.ones(()), np.ones(()))
    initial = find_initial_share(syn) if current else np.ones(())
    synapses = layer.multiply_synapses(find_current_gain(layer.factors))
    rest = f["v_leak"] - layer.level
    for name, stored in layer.scale_synapses(np.ones(())).items():
        if stored.bias is not None:  # it reaches v behind the means on the way, whatever the current of a spike is
            rest = rest + f["r"] * jump / syn * layer.broadcast_bias(name, stored.bias)
    largest = {name: _largest_sum(layer, synapses, sign, float_run) for name, sign in (("exc", 1), ("inh", -1))}
    reach = max(largest.values()) / float(syn.min()) + float(np.abs(rest).max())
    highest = max(reach, 0.0 if layer.readout else float(layer.threshold.max()), 1e-12)
    scale = unit * SPINNAKER_ROOM / highest * settings.headroom.get(layer.name, 1.0)
    factor = 2.0**32
    constants: dict[str, Any] = {
        "keep_v": round_to_int(unit * (1 - f["mem"])),
        "keep_u": round_to_int(np.minimum(factor * (1 - syn), factor - 1)) if current else None,
        "init_u": round_to_int(np.minimum(factor * initial, factor - 1)) if current else None,
        "v_threshold": None if layer.readout else round_to_int(np.floor(scale * layer.threshold + ROUNDING) + 1),
        "v_rest": round_to_int(scale * rest),
        "v_reset": 0 if layer.readout else round_to_int(scale * (f["v_reset"] - layer.level)),
        "v_init": round_to_int(scale * (find_start(layer.neuron) - layer.level)),
    }
    shifts = {name: int(np.ceil(np.log2(max(most * scale / (RING_BUFFER_MAX - 1), 1.0)))) for name, most in largest.items()}
    rounded: dict[str, Synapse] = {}
    for name, s in synapses.items():
        exc, inh = np.maximum(s.weight, 0) * scale / 2.0 ** shifts["exc"], np.minimum(s.weight, 0) * scale / 2.0 ** shifts["inh"]
        weight = np.clip(np.rint(exc + inh), -RING_BUFFER_MAX, RING_BUFFER_MAX).astype(np.int32)
        rounded[name] = replace(s, weight=weight, bias=None)
    constants |= {"exc_shift": shifts["exc"], "inh_shift": shifts["inh"]}
    neuron = build_neuron(layer.name, lambda: SpinnakerLIF(**constants))
    yield ScaleChoice(scale=scale, integers=IntegerLayer(synapses=rounded, neuron=neuron))


def _largest_sum(layer: NeuronInput, synapses: Mapping[str, Any], sign: int, float_run: FloatRun | None) -> float:
    """Return what weights of a sign bring to a neuron in a step at most: on data, else one spike of every input."""
    parts = {name: replace(s, weight=np.maximum(sign * s.weight, 0), bias=None) for name, s in synapses.items()}
    grain = max(float(s.weight.max()) for s in parts.values()) / 2**20
    if float_run is None or not grain:
        return sum(layer.count_summed(name) * float(sum_by_neuron(s).max()) for name, s in parts.items())
    whole = {name: replace(s, weight=np.ceil(s.weight / grain).astype(np.int64)) for name, s in parts.items()}
    return float(drive_layer(float_run, layer, synapses=whole, spike_by_spike=False).sums.max()) * grain


def _sum_of_all(layer: NeuronInput, synapses: Mapping[str, Any]) -> int:
    """Return what one spike of every input brings to a neuron at most, either way."""
    return sum(
        layer.count_summed(name) * int(sum_by_neuron(replace(s, weight=abs(s.weight.astype(np.int64)))).max())
        << s.weight_exponent
        for name, s in synapses.items()
    )


RULES: dict[str, FamilyRule] = {
    "truenorth": FamilyRule(
        neuron=TrueNorthLIF,
        models=(IF,),
        reason="TrueNorth's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=_propose_truenorth,
        input_max=1,
    ),
    "spinnaker": FamilyRule(
        neuron=SpinnakerLIF,
        models=(LIF, CubaLIF, LI, CubaLI),
        reason="sPyNNaker's models leak",
        remedy="use LIF with a long time constant",
        propose=_propose_spinnaker,
    ),
    "reckon": FamilyRule(
        neuron=ReckonLIF,
        models=(IF, LIF, LI),
        reason="ReckOn's neurons have no synaptic current",
        remedy="use LIF, and LI at the output",
        propose=_propose_reckon,
        input_max=1,
        shared_shift=True,
    ),
    "odin": FamilyRule(
        neuron=OdinLIF,
        models=(IF,),
        reason="ODIN's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=_propose_odin,
    ),
    "catalyst": FamilyRule(
        neuron=CatalystLIF,
        models=(IF,),
        reason="Catalyst N1's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=_propose_catalyst,
    ),
}
"""How each family stores a layer."""
