"""Bits of a stored weight by layer, as a network states them.

A chip whose layers may have different widths stores a layer's weights with the bits that the network states for it, and those
of all other layers with its default. They stand in the network's metadata, so that files keep them.
"""

from __future__ import annotations

from collections.abc import Mapping

from spear_deploy.errors import GraphError, did_you_mean
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.synapses import WEIGHTED

LAYER_BITS = "layer_bits"
"""Key of the metadata: bits by the name of a layer with weights."""
BITS = (2, 32)
"""Smallest and largest width that a network may state: a sign and at least one bit."""


def read_layer_bits(graph: SNNGraph) -> dict[str, int]:
    """Return the bits that a network states, by layer; layers that it no longer has are left out.

    Raises:
        GraphError: the metadata holds something else, e.g. of a file that was edited.
    """
    stated = graph.metadata.get(LAYER_BITS, {})
    if not isinstance(stated, Mapping):
        raise GraphError(f"metadata '{LAYER_BITS}': {type(stated).__name__} given, expected bits by layer; remove the key")
    for name, bits in stated.items():
        if type(bits) is not int or not BITS[0] <= bits <= BITS[1]:
            raise GraphError(
                f"metadata '{LAYER_BITS}', layer '{name}': {bits!r} given, expected a whole number of bits from {BITS[0]} to "
                f"{BITS[1]}; correct the number or remove the key"
            )
    return {layer.name: stated[layer.name] for layer in graph.layers if layer.name in stated}


def state_layer_bits(graph: SNNGraph, bits: Mapping[str, int]) -> SNNGraph:
    """Return a network that states bits by layer in place of those that it stated; itself where it stated none and gets none.

    Raises:
        GraphError: there is no such layer with weights, or a width is no number of bits.

    >>> import numpy as np
    >>> from spear_deploy.network import Dense, Layer
    >>> from spear_deploy.network.graph import chain
    >>> graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))))], input_shape=(3,))
    >>> read_layer_bits(state_layer_bits(graph, {"fc": 4}))
    {'fc': 4}
    """
    if not bits and LAYER_BITS not in graph.metadata:
        return graph
    weighted = [layer.name for layer in graph.layers if isinstance(layer.synapse, WEIGHTED)]
    for name in bits:
        if name not in weighted:
            raise GraphError(
                f"bits: there is no layer '{name}' with weights; expected some of {', '.join(weighted)}"
                f"{did_you_mean(name, weighted)}"
            )
    rest = {key: value for key, value in graph.metadata.items() if key != LAYER_BITS}
    stated = graph.with_layers({}, metadata={**rest, **({LAYER_BITS: dict(bits)} if bits else {})})
    read_layer_bits(stated)
    return stated
