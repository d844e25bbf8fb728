"""Output neurons that never spike, driven until they do.

The class of a spiking output that is silent on all samples is never predicted, and its surrogate gradient is next to zero: the
network learns on without it. Its weights are raised alike, until it spikes about as often as the other outputs do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.data import Split
from spear_deploy.network import Array, Dense
from spear_deploy.network.classes import count_per_class
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.one_sign import list_one_sign_layers
from spear_deploy.simulator import simulate

SAMPLES = 256
"""Training samples that spikes are counted on."""
DOUBLINGS, HALVINGS = 12, 5
"""Largest factor on the first step, 2^12, and the bisection after it."""


def revive_outputs(graph: SNNGraph, split: Split) -> SNNGraph:
    """Return the network with the output neuron of every class spiking; itself where all do, or none, or outputs do not spike.

    What is added to the weights of a silent neuron is one number for all that are not zero: the smallest, to a few per cent, at
    which it spikes as often as the mean of the others. Where each source keeps one sign (`network.one_sign`), weights below 0 are
    raised to 0 at most. A neuron without such weights, without input spikes, or of a class that no sample has, stays silent.

    Args:
        graph: floating point; its output layer has dense weights.
        split: of training data; the first `SAMPLES` are used.
    """
    layer = graph[graph.output]
    if graph.is_integer or not layer.spikes or not isinstance(layer.synapse, Dense):
        return graph
    samples = split.head(SAMPLES)
    x = np.moveaxis(samples.x, 0, 1)

    def count(network: SNNGraph) -> Array:
        """Return the spikes of each output on all samples."""
        output = simulate(network, x, kind=samples.kind).output
        return np.asarray(output.reshape(-1, output.shape[-1]).sum(axis=0, dtype=np.float64))

    first = count(graph)
    silent = (first == 0) & np.isin(np.arange(len(first)) // count_per_class(graph), samples.y)
    if not silent.any() or not first.any():
        return graph
    target = first[first > 0].mean()
    weight = np.asarray(layer.synapse.weight)
    keeps_signs = layer.name in list_one_sign_layers(graph)
    size = np.sqrt((np.asarray(weight, np.float64) ** 2).mean()) / 64

    def raise_weights(shift: Array) -> SNNGraph:
        synapse: Any = layer.synapse
        raised = weight + np.where(weight != 0, shift[:, None], 0).astype(weight.dtype)
        if keeps_signs:
            raised = np.where(weight < 0, np.minimum(raised, 0), raised)
        return graph.with_layers({layer.name: replace(layer, synapse=replace(synapse, weight=raised))})

    low, high = np.zeros(len(weight)), np.where(silent, size, 0.0)
    for _ in range(DOUBLINGS):
        below = silent & (count(raise_weights(high)) < target)
        if not below.any():
            break
        low, high = np.where(below, high, low), np.where(below, 2 * high, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = count(raise_weights(middle)) < target
        low, high = np.where(silent & below, middle, low), np.where(silent & ~below, middle, high)
    return raise_weights(high)
