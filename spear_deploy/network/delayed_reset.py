"""Resets one step late, in the same step, or none.

snnTorch and Spyx subtract the threshold in the step after the spike, so that it does not decay. That is a property of the neuron
(`reset_delay` of `LIF` and `CubaLIF`), no synapse: it counts no SynOps and lies on no core.

Files of former versions have a loop instead: the network subtracts at once, v − v_threshold, and what has decayed of that one
step later is missing, (1 − k) · v_threshold. The neuron's own spike brings it, by an edge of one step and a weight. Where a
synaptic current lies in between, a second spike takes back what the current would keep.

A neuron without a reset has `reset="none"`: it spikes in every step in which v is above the threshold. In former files its spike
gives back k · v_threshold by such a loop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

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


@np.errstate(divide="ignore", invalid="ignore")  # no loop reaches a membrane whose r is 0: no weight is infinite
def fold_reset_loops(graph: SNNGraph) -> SNNGraph:
    """Return the network with resets as the neurons' property in place of the loops by which former versions stored them.

    A loop is known by its numbers: a `Scale` from the neuron to itself with the weight that a late reset takes, or that which
    gives back what a reset took, to float32.
    """
    layers, edges = list(graph.layers), list(graph.edges)
    for layer in graph.layers:
        neuron = layer.neuron
        if not isinstance(neuron, (IF, LIF, CubaLIF)) or neuron.reset != "subtract" or resets_late(neuron):
            continue
        for change, current in _list_looped_resets(graph, neuron):
            loops = [_find_loop(graph, layer.name, delay, weight) for delay, weight in _loop_weights(graph, neuron, current)]
            names = [name for name in loops if name is not None]
            if len(names) == len(loops):
                layers = [other for other in layers if other.name not in names]
                layers[layers.index(layer)] = replace(layer, neuron=replace(neuron, **change))
                edges = [edge for edge in edges if edge.source not in names and edge.target not in names]
                break
    return graph if len(layers) == len(graph.layers) else replace(graph, layers=tuple(layers), edges=tuple(edges))


def _list_looped_resets(graph: SNNGraph, neuron: IF | LIF | CubaLIF) -> list[tuple[dict[str, Any], Array]]:
    """Return the resets that a loop may stand for, with the current that it adds after a spike: (changed fields, current)."""
    v_threshold = neuron.v_threshold.astype(np.float64)
    if isinstance(neuron, IF):
        return [({"reset": "none"}, v_threshold / neuron.r)]
    rate = graph.dt_s / (neuron.tau_s if isinstance(neuron, LIF) else neuron.tau_mem_s)
    return [({"reset_delay": 1}, -v_threshold / neuron.r), ({"reset": "none"}, (1 - rate) * v_threshold / (rate * neuron.r))]


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


def _loop_weights(graph: SNNGraph, neuron: IF | LIF | CubaLIF, current: Array) -> list[tuple[int, Array]]:
    """Return (delay, weight) of the loops through which a spike adds a current to the neuron's membrane in the next step."""
    if not isinstance(neuron, CubaLIF):
        return [(1, current)]
    rate = graph.dt_s / neuron.tau_syn_s
    jump = neuron.w_in * rate
    return [(1, current / jump), (2, -(1 - rate) * current / jump)]
