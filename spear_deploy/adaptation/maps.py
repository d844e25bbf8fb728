"""Layers of maps that a chip lacks, written out as dense weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.unroll import can_unroll, list_maps, unroll_maps
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import POOLS, Conv1d, Conv2d, Dense, Scale
from spear_deploy.network.graph import SNNGraph


def find_maps(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the convolutions that the chip has in no size, and the weights per value, by dense weights."""
    kinds = profile.layers.kinds.value
    if kinds is None or "Dense" not in kinds:
        return
    if takes_lists(profile):
        kinds = tuple(kind for kind in kinds if kind in ("Dense", "Scale", "Flatten"))
    for kind, axes in ((Conv1d, 1), (Conv2d, 2)):
        convs = tuple(layer.name for layer in graph.layers if isinstance(layer.synapse, kind))
        scales = tuple(
            layer.name
            for layer in graph.layers
            if isinstance(layer.synapse, Scale) and "Scale" not in kinds and layer.name in list_maps(graph, axes)
        )
        lacking = convs if kind.__name__ not in kinds else ()
        pools = tuple(
            layer.name for layer in graph.layers if isinstance(layer.synapse, POOLS) and layer.name in list_maps(graph, axes)
        )
        lacking += pools if takes_lists(profile) and convs else ()
        if axes == 2 and "Conv2d" in kinds:
            scales = ()  # a pointwise convolution holds them
        if (lacking or scales) and can_unroll(graph, axes):
            what = " and ".join([*([kind.__name__] if lacking else []), *(["Scale"] if scales else [])])
            yield Replacement(
                layers=(*lacking, *scales), what=what, by="a Dense of the same weights, written out", kind="exact", topic="map",
                rewrite=partial(unroll_maps, axes=axes),
            )  # fmt: skip
    if "Scale" not in kinds:
        yield from _find_scales(graph)


def takes_lists(profile: HardwareProfile) -> bool:
    """Return whether a chip is a crossbar that takes event after event: a source has one row of weights, behind no pool."""
    return profile.synapse_memory.format.value == "crossbar" and profile.timing.mode.value == "async"


def _find_scales(graph: SNNGraph) -> Iterator[Replacement]:
    """Yield one weight per value of a list as a diagonal matrix."""
    for layer in graph.layers:
        shape = graph.input_shape_of(layer.name)
        if isinstance(layer.synapse, Scale) and len(shape) == 1:
            yield Replacement(
                layers=(layer.name,), what="Scale", by="a Dense with its weights on the diagonal", kind="exact", topic="map",
                rewrite=partial(_write_diagonal, name=layer.name),
            )  # fmt: skip


def _write_diagonal(graph: SNNGraph, name: str) -> SNNGraph:
    layer, shape = graph[name], graph.input_shape_of(name)
    synapse: Any = layer.synapse
    bias = None if synapse.bias is None else np.broadcast_to(synapse.bias, shape).copy()
    dense = Dense(weight=np.diag(np.broadcast_to(synapse.weight, shape)), bias=bias)
    return graph.with_layers({name: replace(layer, synapse=dense)})
