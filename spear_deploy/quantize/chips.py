"""Quantization for TrueNorth, SpiNNaker 1, ReckOn, ODIN and Catalyst N1.

A family is a row of `RULES`: which neurons it takes, and a function that yields its integers (`integrate_and_fire`,
`leaky_integrators`) at the scales to try, of which `chip_scales` takes one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.frameworks.reset_words import name_resets
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    RESET_WORDS,
    CatalystLIF,
    CubaLI,
    CubaLIF,
    Dense,
    OdinLIF,
    ReckonLIF,
    SpinnakerLIF,
    TrueNorthLIF,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.chip_scales import FamilyRule, choose_scales, find_first_layer
from spear_deploy.quantize.integer_layers import assemble_network
from spear_deploy.quantize.integrate_and_fire import propose_catalyst, propose_odin, propose_truenorth
from spear_deploy.quantize.layer_error import FloatRun, report_several_spikes
from spear_deploy.quantize.leaky_integrators import propose_reckon, propose_spinnaker
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs
from spear_deploy.util.number_format import plural


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
    layers = collect_neuron_inputs(graph, settings.kind, settings.input_scale, family=family)
    for layer in layers:
        _check_layer(graph, layer, rule)
        if rule.neuron.FORMAT.drive == "events":
            _check_events(graph, layer)
        if not rule.has_bias:
            _check_no_bias(layer, rule.neuron.FORMAT.chip)
    chosen = choose_scales(layers, graph.output, rule, settings, float_run)
    for layer in layers:
        candidate = chosen[layer.name]
        facts["scale"][layer.name], facts["offset"][layer.name] = candidate.scale, layer.offset
        facts["findings"] += [*candidate.findings, *report_several_spikes(layer, candidate.error)]
    return assemble_network(graph, {name: candidate.integers for name, candidate in chosen.items()}, facts)


def _check_layer(graph: SNNGraph, layer: NeuronInput, rule: FamilyRule) -> None:
    chip, neuron = rule.neuron.FORMAT.chip, layer.neuron
    if type(neuron) not in rule.models:
        raise UnsupportedError(Refusal(layer=layer.name, what=type(neuron).__name__, why=rule.reason, remedy=rule.remedy))
    if not layer.readout and neuron.reset not in rule.neuron.FORMAT.resets:
        resets = rule.neuron.FORMAT.resets
        how = " or ".join(RESET_WORDS[reset] for reset in resets)
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"reset '{neuron.reset}'",
                why=f"{chip}'s neurons reset {how}",
                remedy=f"train with {name_resets(graph, resets)}",
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
    first = find_first_layer(graph, layer)
    source = graph.edges_into(first)[0].source
    if not isinstance(layer.stored[layer.name], Dense) or (source != INPUT and graph[source].neuron is None):
        what = type(layer.stored[layer.name]).__name__
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"{what} or a pool",
                why="ODIN's crossbar takes spikes through Dense alone",
                remedy="unroll it, as `adapt` does",
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


RULES: dict[str, FamilyRule] = {
    "truenorth": FamilyRule(
        neuron=TrueNorthLIF,
        models=(IF,),
        reason="TrueNorth's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=propose_truenorth,
        input_max=1,
    ),
    "spinnaker": FamilyRule(
        neuron=SpinnakerLIF,
        models=(LIF, CubaLIF, LI, CubaLI),
        reason="sPyNNaker's models leak",
        remedy="use LIF with a long time constant",
        propose=propose_spinnaker,
    ),
    "reckon": FamilyRule(
        neuron=ReckonLIF,
        models=(IF, LIF, LI),
        reason="ReckOn's neurons have no synaptic current",
        remedy="use LIF, and LI at the output",
        propose=propose_reckon,
        has_bias=False,
        input_max=1,
        shared_shift=True,
    ),
    "odin": FamilyRule(
        neuron=OdinLIF,
        models=(IF,),
        reason="ODIN's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=propose_odin,
        has_bias=False,
    ),
    "catalyst": FamilyRule(
        neuron=CatalystLIF,
        models=(IF,),
        reason="Catalyst N1's neurons add and spike, their leak is a constant",
        remedy="use IF",
        propose=propose_catalyst,
    ),
}
"""How each family stores a layer."""
