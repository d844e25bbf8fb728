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
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, simulate

SAMPLES = 64
"""Samples that rates are measured on."""
HALVINGS = 7
"""Steps of the bisection: factors are told apart to 4 %."""
FACTOR_BITS = 4.0
"""Factors between 2^-4 and 2^4 are tried."""
WINNER_RATE = 0.5
"""Rate that the output neuron that spikes most is set to."""


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
        low, high = -FACTOR_BITS, FACTOR_BITS
        for _ in range(HALVINGS):
            exponent = (low + high) / 2
            run = simulate(_scale_threshold(graph, name, 2.0**exponent), x, kind=kind)
            rate = run.counts.rates()[name] if target is not None else _winner_rate(run, count_per_class(graph))
            low, high = (exponent, high) if rate > (WINNER_RATE if target is None else target) else (low, exponent)
        graph = _scale_threshold(graph, name, 2.0 ** ((low + high) / 2))
    return graph


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
