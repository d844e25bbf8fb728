"""Resets one step late, in the same step, or none.

snnTorch and Spyx subtract the threshold in the step after the spike, so that it does not decay. That is a property of the neuron
(`reset_delay` of `LIF` and `CubaLIF`), no synapse: it counts no SynOps and lies on no core.

Files of former versions have a loop instead: the network subtracts at once, v − v_threshold, and what has decayed of that one
step later is missing, (1 − k) · v_threshold. The neuron's own spike brings it, by an edge of one step and a weight. Where a
synaptic current lies in between, a second spike takes back what the current would keep.

A neuron without a reset keeps its v: the spike gives back k · v_threshold by such a loop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from spear_deploy.network.base import Array
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import IF, LIF, CubaLIF, resets_late
from spear_deploy.network.synapses import Scale

FLOAT32_ERROR = 1e-6
"""Relative error that a weight has at most after float32 in a file and float64 in a formula."""


def delay_resets(graph: SNNGraph, names: Collection[str]) -> SNNGraph:
    """Return the network in which these neurons subtract their threshold one step later, undecayed.

    An IF neuron does not decay: its spikes are the same with a reset in the same step, which it keeps.
    """
    return _change_delays(graph, names, 1)


def reset_in_same_step(graph: SNNGraph) -> SNNGraph:
    """Return the network in which all neurons reset in the step of their spike, as chips do: other spikes where v decays."""
    return _change_delays(graph, [layer.name for layer in graph.layers if resets_late(layer.neuron)], 0)


def _change_delays(graph: SNNGraph, names: Collection[str], delay: int) -> SNNGraph:
    def change(layer: Layer) -> Layer:
        if layer.name not in names or not isinstance(layer.neuron, (LIF, CubaLIF)):
            return layer
        return replace(layer, neuron=replace(layer.neuron, reset_delay=delay))

    return graph.with_layers(change) if names else graph


def fold_reset_loops(graph: SNNGraph) -> SNNGraph:
    """Return the network with `reset_delay` in place of the loops by which former versions stored resets one step late.

    A loop is known by its numbers: a `Scale` from the neuron to itself with the weight that a late reset takes, to float32.
    """
    layers, edges = list(graph.layers), list(graph.edges)
    for layer in graph.layers:
        neuron = layer.neuron
        if not isinstance(neuron, (LIF, CubaLIF)) or neuron.reset != "subtract" or neuron.reset_delay:
            continue
        lost = -neuron.v_threshold.astype(np.float64) / neuron.r
        loops = [_find_loop(graph, layer.name, delay, weight) for delay, weight in _loop_weights(graph, neuron, lost)]
        names = [name for name in loops if name is not None]
        if len(names) == len(loops):
            layers = [other for other in layers if other.name not in names]
            layers[layers.index(layer)] = replace(layer, neuron=replace(neuron, reset_delay=1))
            edges = [edge for edge in edges if edge.source not in names and edge.target not in names]
    return graph if len(layers) == len(graph.layers) else replace(graph, layers=tuple(layers), edges=tuple(edges))


def _find_loop(graph: SNNGraph, name: str, delay: int, weight: Array) -> str | None:
    """Return the `Scale` with this weight through which a layer feeds itself after these steps, or None."""
    for edge in graph.edges_from(name):
        layer = graph[edge.target]
        loop = ((Edge(source=name, target=layer.name, delay=delay),), (Edge(source=layer.name, target=name),))
        is_loop = (
            loop == (graph.edges_into(layer.name), graph.edges_from(layer.name)) and layer.neuron is None and layer.norm is None
        )
        if is_loop and isinstance(layer.synapse, Scale) and layer.synapse.bias is None:
            stored, wanted = (np.broadcast_to(values, graph.shape_of(name)) for values in (layer.synapse.weight, weight))
            if np.allclose(stored, wanted, rtol=FLOAT32_ERROR, atol=0):
                return edge.target
    return None


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


def _loop_weights(graph: SNNGraph, neuron: IF | LIF | CubaLIF, current: Array) -> list[tuple[int, Array]]:
    """Return (delay, weight) of the loops through which a spike adds a current to the neuron's membrane in the next step."""
    if not isinstance(neuron, CubaLIF):
        return [(1, current)]
    rate = graph.dt_s / neuron.tau_syn_s
    jump = neuron.w_in * rate
    return [(1, current / jump), (2, -(1 - rate) * current / jump)]


def _feed_back(graph: SNNGraph, layer: Layer, current: Array) -> SNNGraph:
    """Return the network in which each spike of a layer adds a current to its own membrane in the next step."""
    assert isinstance(layer.neuron, (IF, LIF, CubaLIF))
    layers, edges = list(graph.layers), list(graph.edges)
    for number, (delay, weight) in enumerate(_loop_weights(graph, layer.neuron, current)):
        name = f"{layer.name}.reset{number or ''}"
        while any(name == other.name for other in layers):
            name += "_"
        layers.append(Layer(name=name, synapse=Scale(weight=weight)))
        edges += [Edge(source=layer.name, target=name, delay=delay), Edge(source=name, target=layer.name)]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))
