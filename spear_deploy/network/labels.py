"""Labels of layers for tables, with kind and shape."""

from __future__ import annotations

from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.number_format import format_shape


def label_layers(graph: SNNGraph) -> dict[str, str]:
    """Return a label for each layer: its name, and where that has no letter (torch's "0", "2.1") kind and output shape too."""
    labels = {}
    for layer in graph.layers:
        part = layer.neuron if layer.synapse is None else layer.synapse
        named = part is None or any(letter.isalpha() for letter in layer.name)
        shape = format_shape(graph.shape_of(layer.name))
        labels[layer.name] = layer.name if named else f"{layer.name} {type(part).__name__} {shape}"
    return labels
