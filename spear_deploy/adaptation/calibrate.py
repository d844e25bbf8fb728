"""Thresholds of replaced neurons, for as many spikes as before.

A neuron of another model is driven alike but does not spike alike. Its layer keeps one factor on all thresholds: the one at which
the mean rate of the layer is that of the network before. Output neurons that replace a readout have no rate before; theirs is set
so that the one that spikes most does so in half of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import Array
from spear_deploy.network.classes import average_classes, count_per_class
from spear_deploy.network.graph import INPUT, SNNGraph, chain
from spear_deploy.simulator import ChipRun, InputKind, simulate

SAMPLES = 64
"""Samples that rates are measured on."""
HALVINGS = 7
"""Steps of the bisection: factors are told apart to 4 %."""
FACTOR_BITS = 4.0
"""Factors between 2^-4 and 2^4 are tried."""
WINNER_RATE = 0.5
"""Rate that the output neuron that spikes most is set to."""
MAX_KEPT = 1 << 26
"""Values up to which the input of a layer's neurons is kept, 256 MB; a larger one is computed again for each threshold."""


def calibrate_thresholds(
    graph: SNNGraph, rates: Mapping[str, float], names: Sequence[str], x: Array, kind: InputKind
) -> SNNGraph:
    """Return the network with thresholds of some layers at which they spike as often as in the network before.

    Args:
        graph: the network with exchanged neurons.
        rates: spikes a neuron and step in the network before, by layer; a layer without one is an output.
        names: layers of spiking neurons, in the order of the graph.
        x: (T, B, *input); the first `SAMPLES` are used.
        kind: of `x`.
    """
    x = x[:, :SAMPLES]
    for name in names:
        target = rates.get(name)
        wanted = WINNER_RATE if target is None else target
        part, given, given_kind = _take_neurons(graph, name, x, kind)
        low, high = -FACTOR_BITS, FACTOR_BITS
        for _ in range(HALVINGS):
            exponent = (low + high) / 2
            run = simulate(_scale_threshold(part, name, 2.0**exponent), given, kind=given_kind)
            rate = run.counts.rates()[name] if target is not None else _winner_rate(run, count_per_class(graph))
            low, high = (exponent, high) if rate > wanted else (low, exponent)
        graph = _scale_threshold(graph, name, 2.0 ** ((low + high) / 2))
    return graph


def _take_neurons(graph: SNNGraph, name: str, x: Array, kind: InputKind) -> tuple[SNNGraph, Array, InputKind]:
    """Return the smallest network in which a layer spikes as in the whole one, and the input of that network.

    These are the layer's neurons alone, driven by what its weights make of a run: so weights are applied once, and not for each
    threshold. Where its spikes come back to it, it is the network up to this layer.
    """
    before = _cut_behind(graph, name)
    size = int(np.prod(graph.shape_of(name))) * x.shape[0] * x.shape[1]
    if any(graph.leads_to(edge.target, name) for edge in graph.edges_from(name)) or size > MAX_KEPT:
        return before, x, kind
    layer = graph[name]
    drive = simulate(before.with_layers({name: replace(layer, neuron=None)}), x, kind=kind).output
    if not np.isfinite(drive).all():
        return before, x, kind
    alone = chain([replace(layer, synapse=None, norm=None)], input_shape=graph.shape_of(name), dt_s=graph.dt_s)
    return alone, drive, "current"


def _cut_behind(graph: SNNGraph, name: str) -> SNNGraph:
    """Return the network that ends in a layer: this one, and all that lead to it."""
    kept = {layer.name for layer in graph.layers if graph.leads_to(layer.name, name)}
    edges = tuple(edge for edge in graph.edges if edge.target in kept and edge.source in {INPUT, *kept})
    layers = tuple(layer for layer in graph.layers if layer.name in kept)
    return replace(graph, layers=layers, edges=edges, output=name, metadata={})


def _winner_rate(run: ChipRun, per_class: int) -> float:
    """Return the spikes a step of the class whose output neurons spike most, mean over these and over samples."""
    output = run.output.reshape(*run.output.shape[:2], -1).mean(axis=0, dtype=np.float64)
    return float(average_classes(output, per_class).max(axis=1).mean())


def _scale_threshold(graph: SNNGraph, name: str, factor: float) -> SNNGraph:
    """Return the network with thresholds of a layer times a factor, measured from its reset."""
    layer = graph[name]
    neuron: Any = layer.neuron
    level = neuron.v_reset if neuron.reset == "value" else 0.0
    return graph.with_layers(
        {name: replace(layer, neuron=replace(neuron, v_threshold=level + factor * (neuron.v_threshold - level)))}
    )
