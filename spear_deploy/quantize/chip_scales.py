"""Scales of the chips' integers: those that are tried for a layer, and the choice among them.

Each neuron layer gets one scale s: its stored potential is s times the floating-point one, measured from the level
(`NeuronInput.level`). The chips spike where v reaches the threshold, a network where v exceeds it: v_threshold ← ⌊s · θ⌋ + 1,
θ above the level. Where reset is by subtraction that takes away too much, so the nearest whole number is tried too.

Without data the first scale is taken: that with the smallest rounding error. With data the one whose spikes differ least from the
floating-point layer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal
from spear_deploy.network import Array, OdinLIF, SpinnakerLIF, Synapse
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.integer_layers import IntegerLayer, round_to_int, store_synapse
from spear_deploy.quantize.layer_error import NOT_MEASURED, FloatRun, LayerDrive, LayerError, drive_layer, measure_layer_error
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.shared_cells import holds_shared_cells, limit_shared_cells
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput
from spear_deploy.simulator.sign_sums import pack_signs
from spear_deploy.simulator.stepper import apply_delay

TRIED_SCALES = 8
"""Scales tried on data: those with the smallest rounding error."""
CLIPPING_FACTORS = (1.15, 1.35, 1.6, 2.0)
"""Factors on the largest scale tried on data as well: a few large weights are clipped there, and all others are rounded less."""
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
        has_bias: whether its neurons have a constant input.
        input_max: spikes that an input sends in a step at most; None: any number.
        shared_shift: whether all layers but the last have one shift.
    """

    neuron: Any
    models: tuple[type, ...]
    reason: str
    remedy: str
    propose: Propose
    has_bias: bool = True
    input_max: int | None = None
    shared_shift: bool = False


def choose_scales(
    layers: list[NeuronInput], output: str, rule: FamilyRule, settings: LoweringSettings, float_run: FloatRun | None
) -> dict[str, ScaleChoice]:
    """Return the candidate of each layer; where layers share a shift, the shift with the smallest error of them all.

    Scales that the layers learnt with are taken where the chip still holds all weights at them.
    """
    proposals = _propose_held(layers, rule, settings, float_run)
    if settings.learnt_scales and any(layer.shared and not proposals[layer.name] for layer in layers):
        proposals = _propose_held(layers, rule, replace(settings, learnt_scales={}), float_run)
    for layer in layers:
        if not proposals[layer.name]:
            raise QuantizationError(
                Refusal(
                    layer=layer.name,
                    what=f"v_threshold {float(layer.threshold.min()):g} is outside what {rule.neuron.FORMAT.chip} holds "
                    f"beside weights of {settings.weight_bits} bits{layer.beside_bias}",
                    remedy="raise it or bound the weights" + " and the bias" * bool(layer.beside_bias),
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


def _propose_held(
    layers: list[NeuronInput], rule: FamilyRule, settings: LoweringSettings, float_run: FloatRun | None
) -> dict[str, list[ScaleChoice]]:
    """Return the candidates of each layer whose weights fit the cells in which several of them add up."""

    def holds(layer: NeuronInput, choice: ScaleChoice) -> bool:
        return holds_shared_cells(layer.shared, choice.integers.synapses, choice.shift or 0)

    return {layer.name: [c for c in rule.propose(layer, settings, float_run) if holds(layer, c)] for layer in layers}


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
        (edge,) = graph.edges_into(find_first_layer(graph, layer))
        spikes = apply_delay(float_run.emitted[edge.source], edge.delay)
        return LayerDrive(sums=spikes.reshape(*spikes.shape[:2], -1))
    synapses = integers.synapses
    if isinstance(integers.neuron, SpinnakerLIF):
        synapses = {name: pack_signs(synapse) for name, synapse in synapses.items()}
    return drive_layer(float_run, layer, synapses=synapses, spike_by_spike=False)


def find_first_layer(graph: SNNGraph, layer: NeuronInput) -> str:
    """Return the layer of weights of a neuron layer, or the flatten before it."""
    (edge,) = graph.edges_into(layer.name)
    return layer.name if edge.source == INPUT or graph[edge.source].neuron is not None else edge.source


def list_scales(
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
    shared = limit_shared_cells(layer.shared, synapses)
    pairs = [(extreme / 2**shift, max_weight), (threshold, max_threshold - 1), *limits]
    pairs += [(value / 2**shift, stored) for value, stored in shared]
    largest = min([stored / value for value, stored in pairs if value], default=1.0)
    factors = np.arange(max_weight, max(max_weight // 2, 1) - 1, -1) / max_weight
    grids = [Grid(values=np.unique(s.weight), step=2.0**shift) for s in synapses.values()]
    if not layer.readout:
        grids.append(Grid(values=np.unique(layer.threshold), step=1.0))
    ranked = list(rank_scales(grids, largest, factors, count=min(tried, len(factors)) if on_data else 1))
    others = min([stored / value for value, stored in pairs[1:] if value], default=np.inf)
    clipping = [largest * factor for factor in CLIPPING_FACTORS if on_data and largest * factor <= others]
    headroom = settings.headroom.get(layer.name, 1.0)
    scales = [float(scale * headroom) for scale in (*ranked, *clipping)]
    return scales if layer.readout else [scale for scale in scales if (np.rint(scale * layer.threshold) >= 1).all()]


def list_thresholds(layer: NeuronInput, scale: float) -> list[Array]:
    """Return the thresholds to try: the next whole numbers above, and where reset is by subtraction the nearest ones first."""
    above = round_to_int(np.floor(scale * layer.threshold + ROUNDING) + 1)
    nearest = np.maximum(round_to_int(scale * layer.threshold), 1)
    if layer.neuron.reset != "subtract" or np.array_equal(above, nearest):
        return [above]
    return [nearest, above]


def round_synapses(synapses: Mapping[str, Any], scale: float, largest: int, shift: int = 0) -> dict[str, Synapse]:
    """Return the synapses in whole numbers, without bias."""
    return {
        name: store_synapse(
            s, weight=np.clip(np.rint(s.weight * scale / 2.0**shift), -largest, largest).astype(np.int32), exponent=shift
        )
        for name, s in synapses.items()
    }


def max_stored_weight(neuron: Any, weight_bits: int) -> int:
    """Return the largest stored weight; a weight of ODIN has its sign with its source."""
    bits = weight_bits if neuron is OdinLIF else weight_bits - 1
    return min(int(neuron.FORMAT.weights[1]), 2**bits - 1)
