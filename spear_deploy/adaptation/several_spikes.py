"""Several spikes a step on chips, one in the network.

A neuron of Speck or Xylo that is driven over several thresholds in a step sends as many spikes; one that sends a single spike
keeps the rest or drops it. Behind each layer the difference grows: a network of five layers may send twenty times as many spikes.
So the network gets the chip's neurons, and thresholds at which each layer spikes as often as it did before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.calibrate import SAMPLES, calibrate_thresholds
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_split
from spear_deploy.network import Layer, find_max_spikes, resets_late
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate

FINDING = "spikes_per_step"
"""What a finding of the integers names where a neuron sent several spikes in a step on data."""


def match_spikes(graph: SNNGraph, integer: SNNGraph, dataset: Dataset) -> SNNGraph:
    """Return the network with the chip's spikes a step, and the rates that it had; itself where the chip sends no more.

    Args:
        graph: a floating-point network.
        integer: its integers, chosen on data.
        dataset: whose training samples rates are measured on.
    """
    findings = integer.metadata.get("quantization", {}).get("findings", ())
    if not any(row["what"] == FINDING for row in findings):
        return graph

    def take_chip_spikes(layer: Layer) -> Layer:
        neuron: Any = layer.neuron
        if not layer.spikes or resets_late(neuron):
            return layer
        most = find_max_spikes(integer[layer.name].neuron)
        return replace(layer, neuron=replace(neuron, max_spikes=most))

    several = graph.with_layers(take_chip_spikes)
    samples = sum_split(dataset.train.head(SAMPLES), graph)
    x = np.moveaxis(samples.x, 0, 1)
    rates = simulate(graph, x, kind=dataset.kind).counts.rates()
    names = [layer.name for layer in several.layers if layer.spikes and find_max_spikes(layer.neuron) != 1]
    return calibrate_thresholds(several, rates, names, x, dataset.kind)
