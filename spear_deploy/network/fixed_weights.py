"""Layers whose weights a model fixes, such as the votes of groups of neurons.

A network that was read from a model states them: `metadata["fixed_weights"]`. They do not learn, and what they read keeps its
channels, so that the network goes back into the model.
"""

from __future__ import annotations

from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.synapses import Dense

FIXED_WEIGHTS = "fixed_weights"
"""Key of the metadata."""


def list_fixed_layers(graph: SNNGraph) -> tuple[str, ...]:
    """Return the layers that the metadata name, those with dense weights alone."""
    stated = graph.metadata.get(FIXED_WEIGHTS, ())
    names = set(filter(lambda name: isinstance(name, str), stated)) if isinstance(stated, (list, tuple)) else set()
    return tuple(layer.name for layer in graph.layers if layer.name in names and isinstance(layer.synapse, Dense))
