"""Labels of layers for tables, with kind and shape."""

from __future__ import annotations

import numpy as np

from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import IF
from spear_deploy.network.synapses import SumPool
from spear_deploy.util.number_format import format_shape


def label_layers(graph: SNNGraph) -> dict[str, str]:
    """Return a label for each layer: its name, and where that has no letter (torch's "0", "2.1") kind and output shape too."""
    labels = {}
    for layer in graph.layers:
        named = not name_kind(layer) or any(letter.isalpha() for letter in layer.name)
        shape = format_shape(graph.shape_of(layer.name))
        labels[layer.name] = layer.name if named else f"{layer.name} {name_kind(layer)} {shape}"
    return labels


def name_kind(layer: Layer) -> str:
    """Return the kind of a layer's synapse as frameworks call it, else that of its neuron; "" where it has neither."""
    if _pools_spikes(layer):
        return "MaxPool"
    part = layer.neuron if layer.synapse is None else layer.synapse
    return "" if part is None else type(part).__name__


def _pools_spikes(layer: Layer) -> bool:
    """Return whether a layer is a max pool of spikes: an IF that spikes in the same step where its window holds a spike."""
    neuron = layer.neuron
    return (
        isinstance(layer.synapse, SumPool)
        and isinstance(neuron, IF)
        and neuron.reset == "value"
        and bool(np.all((neuron.v_threshold >= 0) & (neuron.v_threshold < 1)))
        and not np.any(neuron.v_reset)
    )
