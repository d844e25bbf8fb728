"""Integer networks, put together from the integers of their neuron layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, QuantizationError, Refusal, UnsupportedError
from spear_deploy.network import WEIGHTED, Array, Layer, Neuron, Scale, Synapse, find_max_spikes, resets_late
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.quantize.weight_levels import report_levels

RESET_DELAY = "reset_delay"
V_MIN = "v_min"
MAX_SPIKES = "max_spikes"
"""What findings name: a reset one step late, a lower bound of v, several spikes in a step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerLayer:
    """The integers of one neuron layer.

    Attributes:
        synapses: by layer, the integer synapses that drive the neurons.
        neuron: the integer neuron.
    """

    synapses: Mapping[str, Synapse]
    neuron: Neuron


def assemble_network(graph: SNNGraph, integers: Mapping[str, IntegerLayer], facts: Mapping[str, Any]) -> SNNGraph:
    """Return the integer network, with a finding where the chips reset in the step of the spike and the network one step later,
    where they send fewer spikes in a step, and where few levels of a layer's weights are left, or none.

    Args:
        graph: the floating-point network.
        integers: by neuron layer.
        facts: for `metadata["quantization"]`.

    Raises:
        UnsupportedError: weights that drive two neuron layers, or none.
    """
    layers = {layer.name: replace_mean_by_sum(layer) for layer in graph.layers}
    replaced: dict[str, None] = {}
    for target, integer in integers.items():
        for name, synapse in integer.synapses.items():
            if name in replaced:
                raise UnsupportedError(
                    Refusal(
                        layer=name, what="its current feeds several neuron layers", remedy="give each its own copy of the weights"
                    )
                )
            replaced[name] = None
            layers[name] = replace(layers[name], synapse=synapse)
        layers[target] = replace(layers[target], neuron=integer.neuron)
    require_neurons(graph, replaced)
    moved = [
        {"layer": name, "what": RESET_DELAY, "given": 1, "stored": 0} for name in integers if resets_late(graph[name].neuron)
    ]
    moved += [_report_max_spikes(name, graph[name], layers[name]) for name in integers if _sends_fewer(graph[name], layers[name])]
    for integer in integers.values():
        sign_apart = not getattr(getattr(integer.neuron, "FORMAT", None), "sign_bit", True)
        for name, synapse in integer.synapses.items():
            bits = facts.get("layer_bits", {}).get(name, facts["weight_bits"]) + sign_apart
            moved += report_levels(name, graph[name].synapse, synapse, bits)
    facts = {**facts, **({"findings": [*facts.get("findings", ()), *moved]} if moved else {})}
    return graph.with_layers(layers, metadata={**graph.metadata, "quantization": facts})


def require_neurons(graph: SNNGraph, taken: Collection[str]) -> None:
    """Raise unless neurons take the currents of all weights.

    Args:
        graph: the network.
        taken: names of the layers of weights that drive neurons.

    Raises:
        UnsupportedError: there are others.
    """
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED) and layer.name not in taken:
            raise UnsupportedError(
                Refusal(
                    layer=layer.name,
                    what="weights whose sums no neuron takes",
                    remedy="end the network in a readout (LI) or in neurons that spike",
                )
            )


def _sends_fewer(layer: Layer, integer: Layer) -> bool:
    """Return whether a layer's integers send fewer spikes in a step than the layer may."""
    most, stored = find_max_spikes(layer.neuron), find_max_spikes(integer.neuron)
    return layer.spikes and stored is not None and (most is None or most > stored)


def limit_spikes(graph: SNNGraph, integer: SNNGraph) -> SNNGraph:
    """Return the network whose neurons send no more spikes in a step than those of its integers; itself where none did."""
    fewer = {layer.name for layer in graph.layers if layer.neuron is not None and _sends_fewer(layer, integer[layer.name])}

    def limit(layer: Layer) -> Layer:
        if layer.name not in fewer:
            return layer
        neuron: Any = layer.neuron
        return replace(layer, neuron=replace(neuron, max_spikes=find_max_spikes(integer[layer.name].neuron)))

    return graph.with_layers(limit) if fewer else graph


def _report_max_spikes(name: str, layer: Layer, integer: Layer) -> dict[str, Any]:
    """Return a finding about the largest number of spikes in a step; `given` is None where there is no limit."""
    return {
        "layer": name,
        "what": MAX_SPIKES,
        "given": find_max_spikes(layer.neuron),
        "stored": find_max_spikes(integer.neuron),
    }


def store_synapse(synapse: Any, *, weight: Any, bias: Array | None = None, exponent: int = 0) -> Synapse:
    """Return a synapse with whole numbers; a `Scale`, which has no exponent of its own, holds the shifted ones."""
    if isinstance(synapse, Scale) and exponent:
        weight, exponent = np.asarray(weight, np.float64) * 2.0**exponent, 0
    stored: Synapse = replace(synapse, weight=weight, bias=bias, weight_exponent=exponent)
    return stored


def build_neuron(name: str, build: Callable[[], Neuron]) -> Neuron:
    """Build an integer neuron; an error about its format names the layer.

    Raises:
        QuantizationError: a value outside the format.
    """
    try:
        return build()
    except GraphError as error:
        raise QuantizationError(Refusal(layer=name, what=str(error), remedy="rescale the layer")) from None


def round_to_int(array: Array) -> Array:
    """Return the nearest whole numbers, int64."""
    return np.rint(array).astype(np.int64)
