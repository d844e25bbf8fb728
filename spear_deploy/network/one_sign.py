"""Layers of weights whose sources keep one sign each.

On chips whose sources have one sign a network that was adapted states its layers: `metadata["one_sign"]`. All learning keeps the
signs, which no later step could replace.
"""

from __future__ import annotations

from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.synapses import CONVS, Dense

ONE_SIGN = "one_sign"
"""Key of the metadata."""


def list_one_sign_layers(graph: SNNGraph) -> tuple[str, ...]:
    """Return the layers that the metadata name, those with weights of sources alone."""
    stated = graph.metadata.get(ONE_SIGN, ())
    names = set(filter(lambda name: isinstance(name, str), stated)) if isinstance(stated, (list, tuple)) else set()
    return tuple(layer.name for layer in graph.layers if layer.name in names and isinstance(layer.synapse, (Dense, *CONVS)))
