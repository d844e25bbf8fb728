"""Constants of neurons and of `Scale` without the axes along which they are equal.

A file may write one threshold out for each neuron. What a chip has and needs is judged by values, not by how they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spear_deploy.network.base import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import array_parameters
from spear_deploy.network.synapses import WEIGHTED, Scale


def collapse_equal_values(graph: SNNGraph) -> SNNGraph:
    """Return the same network with one value where all are equal, and one a channel, row or column where it has equal ones.

    A bias of zeros goes. The network itself is returned where nothing is written out.
    """
    changes = {layer.name: collapsed for layer in graph.layers if (collapsed := _collapse_layer(layer)) is not layer}
    return graph.with_layers(changes) if changes else graph


def collapse(values: Array) -> Array:
    """Return values with size 1 along each axis on which they are equal; one value for all has no axes.

    >>> import numpy as np
    >>> collapse(np.ones((2, 3, 3))).shape, collapse(np.arange(2).repeat(9).reshape(2, 3, 3)).shape
    ((), (2, 1, 1))
    """
    for axis, stride in enumerate(values.strides):
        first = values[(slice(None),) * axis + (slice(1),)]
        if first.shape != values.shape and (stride == 0 or (values == first).all()):
            values = first
    return values.reshape(()) if values.size == 1 and values.ndim else values


def _collapse_layer(layer: Layer) -> Layer:
    parts: dict[str, Any] = {"neuron": layer.neuron, "synapse": layer.synapse}
    if layer.neuron is not None:
        parts["neuron"] = _replace_changed(layer.neuron, array_parameters(layer.neuron))
    if isinstance(layer.synapse, Scale):
        parts["synapse"] = _replace_changed(layer.synapse, {"weight": layer.synapse.weight, "bias": layer.synapse.bias})
    if isinstance(layer.synapse, WEIGHTED) and layer.synapse.bias is not None and not layer.synapse.bias.any():
        parts["synapse"] = replace(parts["synapse"], bias=None)
    changes = {name: part for name, part in parts.items() if part is not getattr(layer, name)}
    return replace(layer, **changes) if changes else layer


def _replace_changed(part: Any, arrays: Mapping[str, Array | None]) -> Any:
    """Return a part with its arrays collapsed, or the part itself where none changes."""
    collapsed = {name: values if values is None else collapse(values) for name, values in arrays.items()}
    changes = {name: values for name, values in collapsed.items() if values is not arrays[name]}
    return replace(part, **changes) if changes else part
