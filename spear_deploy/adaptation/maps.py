"""Layers of maps, and weights of 1, that a chip lacks, as dense weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.unroll import MAX_WEIGHTS, can_unroll, list_maps, unroll_maps
from spear_deploy.budget.geometry import WEIGHTLESS
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import POOLS, Conv1d, Conv2d, Dense, Scale, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm


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
        yield from _find_identities(graph, profile)
        yield from _find_scales(graph)


def takes_lists(profile: HardwareProfile) -> bool:
    """Return whether a chip is a crossbar that takes event after event: a source has one row of weights, behind no pool."""
    return profile.synapse_memory.format.value == "crossbar" and profile.timing.mode.value == "async"


def _find_identities(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the spikes that reach neurons through no weights, which a chip stores as weights: a skip that adds spikes.

    They become a weight per value first, which a rule for these replaces in turn.
    """
    kernels = profile.layers.kernels_into_layer.max_value
    if kernels is not None and any(
        layer.neuron is not None and layer.synapse is None and len(graph.edges_into(layer.name)) > kernels
        for layer in graph.layers
    ):
        return  # they become part of the weights that they meet (`skips`)
    written = _write_identities(graph)
    before = {layer.name: layer.synapse for layer in graph.layers}
    scales = (layer.name for layer in written.layers if isinstance(layer.synapse, Scale))
    added = [name for name in scales if not isinstance(before.get(name), Scale)]
    if added and all(_can_hold_scale(written, profile, written.input_shape_of(name)) for name in added):
        readers = dict.fromkeys(name if name in before else written.edges_from(name)[0].target for name in added)
        yield Replacement(
            layers=tuple(readers), what=WEIGHTLESS, by="weights of 1", kind="exact", topic="map",
            rewrite=_write_identities,
        )  # fmt: skip


def _can_hold_scale(graph: SNNGraph, profile: HardwareProfile, shape: Shape) -> bool:
    """Return whether a chip without `Scale` holds one for a shape: of a list, as a pointwise convolution, or unrolled."""
    kinds = profile.layers.kinds.value or ()
    if len(shape) == 1 or "Conv2d" in kinds:
        return True
    return "Dense" in kinds and int(np.prod(shape)) ** 2 <= MAX_WEIGHTS and can_unroll(graph, len(shape) - 1)


def _write_identities(graph: SNNGraph) -> SNNGraph:
    folded = fold_batchnorm(graph) if any(layer.norm is not None for layer in graph.layers) else graph
    return add_missing_weights(folded)


def _find_scales(graph: SNNGraph) -> Iterator[Replacement]:
    """Yield one weight per value of a list as a diagonal matrix, unless that is too large to be written out."""
    for layer in graph.layers:
        shape = graph.input_shape_of(layer.name)
        if isinstance(layer.synapse, Scale) and len(shape) == 1 and shape[0] ** 2 <= MAX_WEIGHTS:
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
