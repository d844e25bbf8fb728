"""Facts of a network that NIR has no field for.

They go into the metadata, which other readers ignore: of the graph the time step, the steps that close cycles, the order of the
layers (`layer_facts`) and the network's metadata as JSON; of a node (the last one of its layer) the kind of reset, whether it
comes one step late, the lower bound of v, where v starts and how many spikes it sends in a step, the cores that hold it, bits of
its weights, which channels of the network before pruning are left, and of a convolution the pool that it stands for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.interchange.nir.layer_facts import describe_layers
from spear_deploy.network import WEIGHTED, Layer, find_max_spikes, resets_late
from spear_deploy.network.graph import SNNGraph

if TYPE_CHECKING:
    from spear_deploy.placement.place import Placement

DT_KEY = "dt_s"
NETWORK_DT_KEY = "network_dt_s"
"""Time step of the network in s, where the importer that a file is written for takes another and makes the same steps of it."""
RESET_KEY = "reset"
RESET_DELAY_KEY = "reset_delay"
V_MIN_KEY = "v_min"
V_INIT_KEY = "v_init"
MAX_SPIKES_KEY = "max_spikes"
"""Largest number of spikes in a step, where it is not 1; 0 where there is no limit."""
POOL_KEY = "pool"
"""Class of the pool over one axis that a convolution stands for, since NIR has none."""
EDGES_KEY = "closing_edges"
FACTS_KEY = "spear_deploy"
PROFILE_KEY = "spear_profile"
CORES_KEY = "spear_cores"
CORE_NEURONS_KEY = "spear_core_neurons"
BITS_KEY = "spear_weight_bits"
KEPT_KEY = "spear_kept_channels"


def make_graph_metadata(graph: SNNGraph, placement: Placement | None) -> dict[str, Any]:
    """Return the metadata of the graph.

    Raises:
        GraphError: the graph's own metadata is no JSON.
    """
    try:
        facts = {DT_KEY: float(graph.dt_s), FACTS_KEY: json.dumps(dict(graph.metadata), allow_nan=False)}
        facts |= describe_layers(graph)
    except (TypeError, ValueError) as error:
        raise GraphError(f"metadata of the network cannot be written as JSON ({error}); remove what is no plain data") from error
    return facts if placement is None else {**facts, PROFILE_KEY: placement.profile}


def make_reset_metadata(neuron: Any) -> dict[str, Any]:
    """Return the metadata of a spiking neuron's node: kind of reset, delay, and spikes in a step where they are not 1."""
    facts: dict[str, Any] = {RESET_KEY: neuron.reset}
    if resets_late(neuron):
        facts[RESET_DELAY_KEY] = 1
    if (most := find_max_spikes(neuron)) != 1:
        facts[MAX_SPIKES_KEY] = most or 0
    return facts


def make_layer_metadata(graph: SNNGraph, layer: Layer, placement: Placement | None) -> dict[str, Any]:
    """Return the metadata of a layer's node: remaining channels, bits of integer weights, cores with their neurons."""
    facts: dict[str, Any] = {}
    kept = graph.metadata.get("kept_channels", {}).get(layer.name)
    if kept is not None:
        facts[KEPT_KEY] = np.asarray(kept, np.int64)
    if graph.is_integer and isinstance(layer.synapse, WEIGHTED):
        low, high = int(layer.synapse.weight.min()), int(layer.synapse.weight.max())
        facts[BITS_KEY] = 1 + max(high, -low - 1, 0).bit_length()
    if placement is not None and layer.name in placement.layers:
        slices = placement.slices_of(layer.name)
        facts[CORES_KEY] = np.array([part.core for part in slices], np.int64)
        facts[CORE_NEURONS_KEY] = np.array([part.neurons for part in slices], np.int64)
    return facts
