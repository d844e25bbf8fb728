"""Weights of chips whose states are no integers: SpiNNaker 2 and BrainScaleS-2.

py-spinnaker2 stores weights of 8 bits and computes in float32; BrainScaleS-2 has weights of 6 bits and analogue neurons. So only
the weights are rounded, by one scale s for all that reach a neuron layer:

    W ← round(s · W) / s,  |round(s · W)| ≤ 127 (SpiNNaker 2) or 63 (BrainScaleS-2)

and the network stays one of floating-point neurons. Neither maker publishes the order of operations to the bit, and an analogue
neuron has none, so that spikes of such a network are those of the trained one with these weights, never the chip's own. What the
circuits of BrainScaleS-2 differ from each other `draw_mismatch` draws at random, for a spread that the user states: no open
document that was read gives one for calibrated spiking neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import DataError, Refusal, UnsupportedError
from spear_deploy.network import IF, LIF, WEIGHTED, CubaLI, CubaLIF, Layer
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.integer_layers import require_neurons
from spear_deploy.quantize.layer_error import FloatRun
from spear_deploy.quantize.scale_ranking import Grid, rank_scales
from spear_deploy.quantize.shared_cells import holds_shared_cells, limit_shared_cells
from spear_deploy.quantize.weight_levels import report_levels
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs


@dataclass(frozen=True, kw_only=True)
class RoundedRule:
    """What a chip with rounded weights takes.

    Attributes:
        chip: what people call it.
        models: neurons that it has.
        sign_bit: whether the sign is one of the weight's bits.
        states: what its states are.
    """

    chip: str
    models: tuple[type, ...]
    sign_bit: bool
    states: str


RULES = {
    "spinnaker2": RoundedRule(chip="SpiNNaker 2", models=(IF, LIF, CubaLIF), sign_bit=True, states="float32"),
    "brainscales": RoundedRule(chip="BrainScaleS-2", models=(CubaLIF, CubaLI), sign_bit=False, states="analogue"),
}
"""Chips with rounded weights."""


def lower(graph: SNNGraph, settings: LoweringSettings, family: str, *, float_run: FloatRun | None = None) -> SNNGraph:
    """Return the network with the chip's weights; `metadata["quantization"]` has the scale of each neuron layer.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        settings: bits of a weight.
        family: of `RULES`.
        float_run: not used: the scale is that of the smallest rounding error.

    Raises:
        UnsupportedError: a neuron that the chip does not have, or weights that drive none.
    """
    rule = RULES[family]
    largest = max_weight(family, settings.weight_bits)
    layers: dict[str, Layer] = {}
    scales: dict[str, float] = {}
    findings: list[dict[str, Any]] = []
    for layer in collect_neuron_inputs(graph, settings.kind, 1.0, family=family):
        if type(layer.neuron) not in rule.models:
            names = ", ".join(model.__name__ for model in rule.models)
            raise UnsupportedError(
                Refusal(
                    layer=layer.name, what=type(layer.neuron).__name__, why=f"{rule.chip} has {names}", remedy="use one of them"
                )
            )
        scales[layer.name] = scale = _choose_scale(layer, largest, settings)
        for name, synapse in layer.stored.items():
            whole = np.rint(synapse.weight * scale)
            findings += report_levels(name, synapse, replace(synapse, weight=whole), settings.weight_bits + (not rule.sign_bit))
            layers[name] = replace(graph[name], synapse=replace(synapse, weight=whole / scale))
    require_neurons(graph, layers)
    facts = {"format": family, "weight_bits": settings.weight_bits, "scale": scales, "states": rule.states, "input_events_max": 1}
    facts |= {"findings": findings} if findings else {}
    return graph.with_layers(layers, metadata={**graph.metadata, "quantization": facts})


def _choose_scale(layer: NeuronInput, largest: int, settings: LoweringSettings) -> float:
    """Return the scale that a layer learnt with, where its cells hold the sums at it, or that with the smallest error."""
    values = np.unique(np.concatenate([np.unique(s.weight.astype(np.float64)) for s in layer.stored.values()]))
    pairs = [(float(np.abs(values).max()), largest), *limit_shared_cells(layer.shared, layer.stored)]
    if layer.name in settings.learnt_scales:
        scale, _ = settings.learnt_scales[layer.name]
        whole = {name: replace(s, weight=np.rint(s.weight * scale), bias=None) for name, s in layer.stored.items()}
        if holds_shared_cells(layer.shared, whole):
            return scale
    limits = [stored / value for value, stored in pairs if value]
    if not limits:
        return 1.0
    factors = np.arange(largest, largest // 2, -1) / largest
    return float(rank_scales([Grid(values=values, step=1.0)], min(limits), factors, count=1)[0])


def max_weight(family: str, weight_bits: int) -> int:
    """Return the largest stored weight of a family of `RULES`."""
    return int(2 ** (weight_bits - RULES[family].sign_bit) - 1)


def draw_mismatch(graph: SNNGraph, spread: Mapping[str, float], seed: int) -> SNNGraph:
    """Return the network as one chip might be: parameters of each neuron, and each weight, times 1 + spread · N(0, 1).

    Args:
        graph: a floating-point network.
        spread: by one of "weight", "tau_mem_s", "tau_syn_s", "tau_s" and "v_threshold", the relative standard deviation.
        seed: of the chip.

    Raises:
        DataError: another name, or a spread that is not between 0 and 0.5.
    """
    known = ("weight", "tau_mem_s", "tau_syn_s", "tau_s", "v_threshold")
    for name, size in spread.items():
        if name not in known or not 0 <= size <= 0.5:
            raise DataError(f"spread '{name}': {size:g} given, expected 0..0.5 for {', '.join(known)}")
    rng = np.random.default_rng(seed)

    def draw(value: Any, shape: tuple[int, ...], size: float) -> Any:
        return np.asarray(value, np.float64) * np.maximum(1 + size * rng.standard_normal(shape), 0.05)

    def vary(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        neuron: Any = layer.neuron
        if isinstance(synapse, WEIGHTED) and spread.get("weight"):
            synapse = replace(synapse, weight=draw(synapse.weight, synapse.weight.shape, spread["weight"]))
        changed = {name: draw(getattr(neuron, name), graph.shape_of(layer.name), spread[name])
                   for name in known[1:] if spread.get(name) and hasattr(neuron, name)}  # fmt: skip
        return replace(layer, synapse=synapse, neuron=replace(neuron, **changed) if changed else neuron)

    return graph.with_layers(vary)
