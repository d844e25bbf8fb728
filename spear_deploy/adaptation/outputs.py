"""Several output neurons a class where a readout becomes spikes.

A readout tells classes apart by real numbers; an output neuron by the spikes that it counts, at most one a step on most chips. Of
few steps two classes often count the same. Copies of the output neurons, each with weights of another size, spike at other values
of what drives them: their sum, which the host forms, is a finer count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array, Dense, array_parameters
from spear_deploy.network.classes import OUTPUTS_PER_CLASS, count_per_class
from spear_deploy.network.graph import SNNGraph

SEVERAL, ONE = "several a class", "one a class"
"""Alternatives of a readout that becomes spikes."""
COPIES = 4
"""Output neurons a class."""
SHARE = 1 / 32
"""Part of a chip's neurons that the copies may take: hidden neurons are worth more where there are few."""
SPREAD = 2.0
"""Ratio of the weights of the largest copy to those of the smallest, were there one more."""


def can_copy(graph: SNNGraph, profile: HardwareProfile) -> bool:
    """Return whether a chip has room for `COPIES` output neurons a class of a network that ends in dense weights."""
    layer, shape = graph[graph.output], graph.shape_of(graph.output)
    is_plain = isinstance(layer.synapse, Dense) and layer.norm is None
    if not is_plain or len(shape) > 1 or graph.edges_from(graph.output) or count_per_class(graph) > 1:
        return False
    (outputs,) = shape
    limits = [profile.connectivity.output_channels.max_value, profile.layers.channels_max.max_value]
    if any(limit is not None and COPIES * outputs > limit for limit in limits):
        return False
    cores, neurons = profile.chip.usable_cores.max_value, profile.core.neurons.max_value
    return cores is None or neurons is None or (COPIES - 1) * outputs <= SHARE * cores * neurons


def copy_outputs(graph: SNNGraph) -> SNNGraph:
    """Return the network with `COPIES` output neurons a class, which `network.classes` adds up.

    The weights of copy i are `SPREAD` to the power of (i + 1/2) / `COPIES` − 1/2 times those before.
    """
    layer = graph[graph.output]
    synapse: Any = layer.synapse
    (outputs,) = graph.shape_of(graph.output)
    factors = np.tile(SPREAD ** ((np.arange(COPIES) + 0.5) / COPIES - 0.5), outputs)
    weight = synapse.weight[np.repeat(np.arange(outputs), COPIES)]
    changes: dict[str, Any] = {"weight": (weight * factors[:, None]).astype(weight.dtype)}
    if synapse.bias is not None:
        bias = np.repeat(synapse.bias, COPIES)
        changes["bias"] = (bias * factors).astype(bias.dtype)
    neuron: Any = layer.neuron
    parameters = array_parameters(neuron)
    own: dict[str, Array] = {name: np.repeat(value, COPIES) for name, value in parameters.items() if value.shape == (outputs,)}
    copied = replace(layer, synapse=replace(synapse, **changes), neuron=replace(neuron, **own))
    return graph.with_layers({layer.name: copied}, metadata={**graph.metadata, OUTPUTS_PER_CLASS: COPIES})
