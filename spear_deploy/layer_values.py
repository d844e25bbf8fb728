"""What does the synapse of a layer give, from what the neurons before it emitted?

The simulator goes through a network once; this asks for one layer alone: of a run whose spikes are known, be they Lava's, or
those of the floating-point network that a layer was quantised from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spear_deploy import linear
from spear_deploy.errors import DataError
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import Array, Scale
from spear_deploy.simulator import added


def value_of(graph: SNNGraph, name: str, emitted: Mapping[str, Array]) -> Array:
    """Return what a layer's synapse gives in every step: (T, B, *shape).

    Args:
        emitted: (T, B, *shape) of the input and of every layer with neurons before this one.

    Raises:
        DataError: analogue values reach weights that take whole numbers.
    """
    layer = graph[name]
    total: Array | None = None
    for edge in graph.incoming(name):
        neurons = edge.source == INPUT or graph[edge.source].neuron is not None
        value = delayed(emitted[edge.source] if neurons else value_of(graph, edge.source, emitted), edge.delay)
        total = value if total is None else added(total, value, np.int64)
    assert total is not None
    if not isinstance(layer.synapse, Scale):
        total = whole(total, name)
    steps, batch = total.shape[:2]
    flat = linear.apply(layer.synapse, total.reshape(steps * batch, *total.shape[2:]), integer=True)
    return flat.reshape(steps, batch, *flat.shape[1:])


def whole(value: Array, name: str) -> Array:
    """Return whole numbers as integers (spikes stay bool).

    Raises:
        DataError: they are not whole.
    """
    if value.dtype.kind == "b":
        return value
    try:
        linear.check_whole(value)
    except DataError as error:
        raise DataError(f"layer '{name}': {error}") from None
    return value.astype(np.int64)


def delayed(value: Array, delay: int) -> Array:
    """Shift (T, ...) by `delay` steps; what would come after the end is dropped.

    >>> delayed(np.array([1, 2, 3]), 1).tolist()
    [0, 1, 2]
    """
    if not delay:
        return value
    return np.concatenate([np.zeros_like(value[:delay]), value[:-delay]])[: len(value)]
