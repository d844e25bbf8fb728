"""Layers whose weights a model fixes, such as the votes of groups of neurons.

A network that was read from a model states them: `metadata["fixed_weights"]`. They do not learn, and what they read and
send keeps its channels, so that the network goes back into the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.synapses import Dense

FIXED_WEIGHTS = "fixed_weights"
"""Key of the metadata."""


def list_fixed_layers(graph: SNNGraph) -> tuple[str, ...]:
    """Return the layers that the metadata name, those with dense weights alone."""
    stated = graph.metadata.get(FIXED_WEIGHTS, ())
    names = set(filter(lambda name: isinstance(name, str), stated)) if isinstance(stated, (list, tuple)) else set()
    return tuple(layer.name for layer in graph.layers if layer.name in names and isinstance(layer.synapse, Dense))


def pass_on_fixed(graph: SNNGraph, heirs: Mapping[str, str]) -> SNNGraph:
    """Return a network in whose metadata the layers that hold the weights of fixed ones now stand in place of these.

    Args:
        graph: with the layers that hold them now.
        heirs: these layers, by the one that held the weights before; others keep their names.
    """
    stated = graph.metadata.get(FIXED_WEIGHTS)
    if not isinstance(stated, (list, tuple)) or not any(name in heirs for name in stated if isinstance(name, str)):
        return graph
    fixed = [heirs.get(name, name) if isinstance(name, str) else name for name in stated]
    return replace(graph, metadata={**graph.metadata, FIXED_WEIGHTS: fixed})
