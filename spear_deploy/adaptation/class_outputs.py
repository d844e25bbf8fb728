"""One output a class in place of several, where a chip has fewer outputs than a network.

exact    outputs that do not spike (LI, CubaLI, a weighted sum)  → one a class, with the mean of their weights and biases
exact    outputs that spike  → hidden neurons, and behind them a weighted sum of the spikes of each class

The host adds up the outputs of a class (`network.classes`) in any case: the chip forms the same sum by weights. In each step the
sum of a class is the same, and so is what any decision makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Dense, Layer
from spear_deploy.network.classes import count_per_class, state_outputs_per_class
from spear_deploy.network.graph import Edge, SNNGraph, unused_name
from spear_deploy.network.host_readout import join_outputs

VOTES = "votes"
"""Name of the layer that adds up the spikes of a class."""


def find_class_outputs(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield one output a class, where the chip has too few outputs for several and enough for one."""
    per_class, limit = count_per_class(graph), profile.connectivity.output_channels.max_value
    outputs = int(np.prod(graph.shape_of(graph.output)))
    if per_class == 1 or limit is None or not outputs // per_class <= limit < outputs:
        return
    layer, what = graph[graph.output], f"{per_class} outputs a class"
    if layer.spikes:
        by, rewrite = "the sum of their spikes, one output a class", partial(_add_votes, per_class=per_class)
    elif _can_join(graph, per_class):
        by, rewrite = "one output a class, with the mean of their weights", partial(_join, per_class=per_class)
    else:
        return
    yield Replacement(layers=(layer.name,), what=what, by=by, kind="exact", topic="outputs", rewrite=rewrite)


def _can_join(graph: SNNGraph, per_class: int) -> bool:
    """Return whether outputs that do not spike are of dense weights, feed nothing and integrate alike."""
    synapse = graph[graph.output].synapse
    is_plain = isinstance(synapse, Dense) and isinstance(synapse.weight, np.ndarray)
    if not is_plain or graph.edges_from(graph.output) or len(graph.shape_of(graph.output)) > 1:
        return False
    try:
        join_outputs(graph, per_class)
    except UnsupportedError:
        return False
    return True


def _join(graph: SNNGraph, *, per_class: int) -> SNNGraph:
    return state_outputs_per_class(join_outputs(graph, per_class), 1)


def _add_votes(graph: SNNGraph, *, per_class: int) -> SNNGraph:
    """Return the network that ends in a weighted sum of the spikes of each class.

    The weight is the power of two next to 1 / `per_class`: sums are exact, so that classes that tie still tie.
    """
    outputs, source = int(np.prod(graph.shape_of(graph.output))), graph.output
    name = unused_name(VOTES, [layer.name for layer in graph.layers])
    weight = np.kron(np.eye(outputs // per_class), np.full((1, per_class), 2.0 ** -round(np.log2(per_class))))
    votes = Layer(name=name, synapse=Dense(weight=weight.astype(np.float32)))
    return replace(
        graph, layers=(*graph.layers, votes), edges=(*graph.edges, Edge(source=source, target=name)), output=name,
        metadata=state_outputs_per_class(graph, 1).metadata,
    )  # fmt: skip
