"""Weights of both signs where a chip's sources have one.

exact    a neuron with weights of both signs  → two equal neurons, one for each sign
         an input with weights of both signs  → sent on two addresses, one for each sign
learnt   the sign of the larger part of its weights; weights of the other sign are 0 and stay so
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.maps import takes_lists
from spear_deploy.adaptation.readers import find_readers, find_weights
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, WEIGHTED, Array, Dense, Layer, array_parameters
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, unused_name
from spear_deploy.placement.weight_bits import count_mixed_sign_inputs
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.util.number_format import plural

TWICE, LEARNT = "twice", "one sign"


def find_signs(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers whose sources have weights of both signs, where a source of the chip has one."""
    if profile.weights.sign.value != "presynaptic":
        return
    folded = _fold(graph)
    for layer in folded.layers:
        synapse: Any = layer.synapse
        if not isinstance(synapse, (Dense, *CONVS)) or not (mixed := count_mixed_sign_inputs(synapse.weight)):
            continue
        what = f"{plural(mixed, 'source')} with weights of both signs"
        source = _only_source(folded, layer.name)
        if (source == INPUT and not takes_lists(profile)) or (source not in (None, INPUT) and can_double(folded, str(source))):
            by = "each input sent on two addresses" if source == INPUT else f"the neurons of '{source}' twice"
            yield Replacement(
                layers=(layer.name,), what=what, by=f"{by}, one for each sign", kind="exact", topic="sign", option=TWICE,
                rewrite=partial(split_signs, name=layer.name),
            )  # fmt: skip
        yield Replacement(
            layers=(layer.name,), what=what, by="one sign a source", kind="learnt", topic="sign", option=LEARNT,
            rewrite=partial(keep_larger_sign, name=layer.name),
        )  # fmt: skip


def _fold(graph: SNNGraph) -> SNNGraph:
    """Return the network without batch norm, whose gain may turn signs."""
    return fold_batchnorm(graph) if any(layer.norm is not None for layer in graph.layers) else graph


def _only_source(graph: SNNGraph, name: str) -> str | None:
    """Return the one layer of neurons (or the input) whose spikes reach a layer, None where there are several."""
    edges = graph.edges_into(name)
    if len(edges) != 1:
        return None
    source = edges[0].source
    if source == INPUT or graph[source].neuron is not None:
        return source
    return None if isinstance(graph[source].synapse, WEIGHTED) else _only_source(graph, source)


def can_double(graph: SNNGraph, name: str) -> bool:
    """Return whether the neurons of a layer can stand twice: only weights read them, and nothing else feeds those."""
    touched = (find_weights(graph, name), find_readers(graph, name))
    layers = [layer for part in touched for layer in part or ()]
    is_plain = all(isinstance(s, (Dense, *CONVS)) and getattr(s, "groups", 1) == 1 for s in (layer.synapse for layer in layers))
    return is_plain and None not in touched and name != graph.output


def split_signs(graph: SNNGraph, name: str) -> SNNGraph:
    """Return the network in which each source of a layer has weights of one sign: it stands, or is sent, twice.

    All other readers of the same neurons get both, with their weights split in the same way.
    """
    graph = _fold(graph)
    source = _only_source(graph, name)
    assert source is not None, "a rewrite that was offered is possible"
    return _send_twice(graph, name) if source == INPUT else _double(graph, source)


def _send_twice(graph: SNNGraph, name: str) -> SNNGraph:
    """Return the network with two layers of weights in place of one, for positive and for negative weights, that add up."""
    layer = graph[name]
    synapse: Any = layer.synapse
    taken = {other.name for other in graph.layers}
    names = [unused_name(f"{name}.{sign}", taken) for sign in ("excites", "inhibits")]
    parts = [
        Layer(name=names[0], synapse=replace(synapse, weight=np.maximum(synapse.weight, 0))),
        Layer(name=names[1], synapse=replace(synapse, weight=np.minimum(synapse.weight, 0), bias=None)),
    ]
    edges = [edge for edge in graph.edges if edge.target != name]
    edges += [replace(edge, target=part) for edge in graph.edges_into(name) for part in names]
    edges += [Edge(source=part, target=name) for part in names]
    layers = [replace(other, synapse=None) if other is layer else other for other in graph.layers]
    return replace(graph, layers=(*parts, *layers), edges=tuple(edges))


def _double(graph: SNNGraph, source: str) -> SNNGraph:
    """Return the network with each channel of a layer twice: the first half excites what reads it, the second inhibits."""
    readers, weights = find_readers(graph, source), find_weights(graph, source)
    assert readers is not None and weights is not None, "a rewrite that was offered is possible"
    changes = {reader.name: replace(reader, synapse=_split_inputs(reader.synapse)) for reader in readers}
    for layer in weights:
        changes[layer.name] = _double_outputs(changes.get(layer.name, layer))  # it may read itself
    shape, neurons = graph.shape_of(source), changes.get(source, graph[source])
    changes[source] = replace(neurons, neuron=_repeat_parameters(neurons.neuron, shape[0], len(shape)))
    return graph.with_layers(changes)


def _double_outputs(layer: Layer) -> Layer:
    synapse: Any = layer.synapse
    bias = None if synapse.bias is None else np.concatenate([synapse.bias] * 2)
    return replace(layer, synapse=replace(synapse, weight=_freeze(np.concatenate([synapse.weight] * 2)), bias=bias))


def _split_inputs(synapse: Any) -> Any:
    """Return weights of twice the inputs: the positive ones, then the negative ones."""
    weight = synapse.weight
    return replace(synapse, weight=_freeze(np.concatenate([np.maximum(weight, 0), np.minimum(weight, 0)], axis=1)))


def _freeze(weight: Array) -> Array:
    """Return new weights read-only, so that a layer takes them without a copy."""
    weight.setflags(write=False)
    return weight


def _repeat_parameters(neuron: Any, channels: int, dims: int) -> Any:
    """Return a neuron whose parameters per channel stand twice."""
    changes: dict[str, Array] = {}
    for name, value in array_parameters(neuron).items():
        if value.ndim == dims and value.shape[0] == channels and channels > 1:
            changes[name] = np.concatenate([value] * 2)
    return replace(neuron, **changes) if changes else neuron


def keep_larger_sign(graph: SNNGraph, name: str) -> SNNGraph:
    """Return the network in which each source of a layer keeps the weights of one sign, that of their larger sum."""
    graph = _fold(graph)
    layer = graph[name]
    synapse: Any = layer.synapse
    signs = source_signs(synapse.weight)
    weight = np.where(synapse.weight * signs > 0, synapse.weight, 0).astype(synapse.weight.dtype)
    return graph.with_layers({name: replace(layer, synapse=replace(synapse, weight=weight))})


def list_unmixed(graph: SNNGraph) -> tuple[str, ...]:
    """Return the layers of weights of which each source has one sign."""
    layers: list[Any] = [layer for layer in graph.layers if isinstance(layer.synapse, (Dense, *CONVS))]
    return tuple(layer.name for layer in layers if not count_mixed_sign_inputs(layer.synapse.weight))


def source_signs(weight: Array) -> Array:
    """Return the sign of each source of weights (O, I) or (O, I, *kernel): that of its larger sum, in a shape that broadcasts.

    >>> source_signs(np.array([[1.0, -2.0], [-0.5, 1.0]])).tolist()
    [[1.0, -1.0]]
    """
    axes = (0, *range(2, weight.ndim))
    total = weight.sum(axis=axes, keepdims=True)
    return np.where(total < 0, -1.0, 1.0)
