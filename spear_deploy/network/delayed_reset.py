"""Neurons whose spike resets them one step later, or not at all.

A framework that subtracts the threshold in the next step does not let it decay. The network subtracts at once,
v − v_threshold, and what has decayed of that one step later is missing: (1 − k) · v_threshold. The neuron's own spike brings it,
by an edge of one step and a weight. Where a synaptic current lies in between, a second spike takes back what the current would
keep.

A neuron without a reset keeps its v: the spike gives back k · v_threshold in the same way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from spear_deploy.network.base import Array
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import IF, LIF, CubaLIF
from spear_deploy.network.synapses import Scale


def delay_resets(graph: SNNGraph, names: Collection[str]) -> SNNGraph:
    """Return the network in which these neurons act as if they subtracted their threshold one step later.

    Their v does not contain the part that is still to be subtracted. An IF neuron does not decay, so nothing is added to it.
    """
    for layer in graph.layers:
        if layer.name in names and isinstance(layer.neuron, (LIF, CubaLIF)):
            lost = -layer.neuron.v_threshold.astype(np.float64) / layer.neuron.r
            graph = _feed_back(graph, layer, lost)
    return graph


def cancel_resets(graph: SNNGraph, names: Collection[str]) -> SNNGraph:
    """Return the network in which these neurons, which subtract their threshold, act as if they had no reset."""
    for layer in graph.layers:
        neuron = layer.neuron
        if layer.name in names and isinstance(neuron, (IF, LIF, CubaLIF)):
            v_threshold = neuron.v_threshold.astype(np.float64)
            if isinstance(neuron, IF):
                graph = _feed_back(graph, layer, v_threshold / neuron.r)
            else:
                rate = graph.dt_s / (neuron.tau_s if isinstance(neuron, LIF) else neuron.tau_mem_s)
                graph = _feed_back(graph, layer, (1 - rate) * v_threshold / (rate * neuron.r))
    return graph


def _feed_back(graph: SNNGraph, layer: Layer, current: Array) -> SNNGraph:
    """Return the network in which each spike of a layer adds a current to its own membrane in the next step."""
    layers, edges = list(graph.layers), list(graph.edges)
    weights = [(1, current)]
    if isinstance(layer.neuron, CubaLIF):
        rate = graph.dt_s / layer.neuron.tau_syn_s
        jump = layer.neuron.w_in * rate
        weights = [(1, current / jump), (2, -(1 - rate) * current / jump)]
    for number, (delay, weight) in enumerate(weights):
        name = f"{layer.name}.reset{number or ''}"
        while any(name == other.name for other in layers):
            name += "_"
        layers.append(Layer(name=name, synapse=Scale(weight=weight)))
        edges += [Edge(source=layer.name, target=name, delay=delay), Edge(source=name, target=layer.name)]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))
