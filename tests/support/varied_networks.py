"""Random networks with one part at the edge of what chips hold: thresholds, weights, delays, heads, geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from spear_deploy.network import CONVS, Dense, Flatten, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from tests.support.drawn_networks import draw_network

Rng = np.random.Generator


def vary_network(seed: int, kind: str) -> SNNGraph:
    """Return a random network with one part changed, see `KINDS`.

    Raises:
        GraphError: no network has that part: padding that leaves no position, a threshold that is none.
    """
    return KINDS[kind](draw_network(seed), np.random.default_rng(seed))


def _change_neurons(field: str, values: tuple[Any, ...], *, is_factor: bool = False) -> Callable[[SNNGraph, Rng], SNNGraph]:
    """Return a function that sets a parameter of all neurons that have it to one of the values, or multiplies it."""

    def change(graph: SNNGraph, rng: Rng) -> SNNGraph:
        def each(layer: Layer) -> Layer:
            neuron: Any = layer.neuron
            if not hasattr(neuron, field):
                return layer
            value = values[rng.integers(len(values))]
            value = np.asarray(getattr(neuron, field) * value) if is_factor else value
            return replace(layer, neuron=replace(neuron, **{field: value if field == "max_spikes" else np.asarray(value)}))

        return graph.with_layers(each)

    return change


def _fill_bits(graph: SNNGraph, rng: Rng) -> SNNGraph:
    """Return weights of whole numbers whose largest is that of a width, or one more, and thresholds of the same size."""

    def each(layer: Layer) -> Layer:
        synapse, neuron = layer.synapse, layer.neuron
        if not isinstance(synapse, (Dense, *CONVS)):
            return layer
        largest = int(rng.choice([7, 8, 127, 128, 255]))
        weight = rng.integers(-largest, largest + 1, synapse.weight.shape).astype(np.float32)
        weight.flat[0], weight.flat[-1] = -largest, largest
        if hasattr(neuron, "v_threshold"):
            neuron = replace(neuron, v_threshold=np.asarray(float(largest)))  # type: ignore[call-arg, type-var]
        return replace(layer, synapse=replace(synapse, weight=weight), neuron=neuron)

    return graph.with_layers(each)


def _change_weights(make: Callable[[Any, Rng], dict[str, Any]]) -> Callable[[SNNGraph, Rng], SNNGraph]:
    """Return a function that replaces fields of all dense layers and convolutions."""

    def change(graph: SNNGraph, rng: Rng) -> SNNGraph:
        def each(layer: Layer) -> Layer:
            synapse: Any = layer.synapse
            if not isinstance(synapse, (Dense, *CONVS)):
                return layer
            return replace(layer, synapse=replace(synapse, **make(synapse, rng)))

        return graph.with_layers(each)

    return change


def _delay(graph: SNNGraph, rng: Rng) -> SNNGraph:
    """Return the network with up to three steps of delay on any edge; loops keep one."""
    return replace(graph, edges=tuple(replace(e, delay=max(int(rng.integers(4)), min(e.delay, 1))) for e in graph.edges))


def _add_head(graph: SNNGraph, rng: Rng) -> SNNGraph:
    """Return the network with a second layer of weights from the input to its first list of neurons, if it begins with one."""
    first = next((layer for layer in graph.layers if layer.neuron is not None), None)
    if first is None or len(graph.shape_of(first.name)) != 1:
        return graph
    layers, edges = list(graph.layers), list(graph.edges)
    place = layers.index(first)
    if first.synapse is not None:
        layers[place : place + 1] = [Layer(name="own", synapse=first.synapse), replace(first, synapse=None)]
        edges = [replace(edge, target="own") if edge.target == first.name else edge for edge in edges]
        edges.append(Edge(source="own", target=first.name))
    flatten = [Layer(name="flat", synapse=Flatten())] if len(graph.input_shape) > 1 else []
    weight = rng.normal(size=(*graph.shape_of(first.name), int(np.prod(graph.input_shape)))).astype(np.float32)
    head = [*flatten, Layer(name="head", synapse=Dense(weight=weight))]
    names = [INPUT, *(layer.name for layer in head), first.name]
    edges += [Edge(source=a, target=b, delay=int(a == INPUT and rng.integers(2))) for a, b in pairwise(names)]
    return replace(graph, layers=tuple([*layers[:place], *head, *layers[place:]]), edges=tuple(edges))


def _change_geometry(graph: SNNGraph, rng: Rng) -> SNNGraph:
    """Return the first convolution and its neurons with other padding, strides and dilation; the network if there is none."""
    first = next((layer for layer in graph.layers if isinstance(layer.synapse, CONVS) and layer.neuron is not None), None)
    if first is None:
        return graph
    synapse: Any = first.synapse
    axes = synapse.weight.ndim - 2
    padding, stride, dilation = (tuple(map(int, rng.integers(low, high, axes))) for low, high in ((0, 4), (1, 3), (1, 3)))
    neuron: Any = first.neuron
    values = {name: np.asarray(np.mean(value)) for name, value in vars(neuron).items() if isinstance(value, np.ndarray)}
    synapse = replace(synapse, padding=padding, stride=stride, dilation=dilation)
    layer = replace(first, synapse=synapse, neuron=replace(neuron, **values))
    return chain([layer], input_shape=graph.input_shape_of(first.name), dt_s=graph.dt_s)


KINDS: dict[str, Callable[[SNNGraph, Rng], SNNGraph]] = {
    "thresholds": _change_neurons("v_threshold", (0.0, 1e-12, 1e-6, 1e6, 1e12, -1.0), is_factor=True),
    "leaks": _change_neurons("v_leak", (-5.0, -0.5, 3.0)),
    "resistances": _change_neurons("r", (-1.0, 0.0, 1e-9, 1e3)),
    "starts": _change_neurons("v_init", (-3.0, 0.4, 0.99, 50.0)),
    "several spikes": _change_neurons("max_spikes", (1, 2, 15, 31, None)),
    "full bits": _fill_bits,
    "no weights": _change_weights(lambda synapse, _: {"weight": np.zeros_like(synapse.weight)}),
    "biases": _change_weights(
        lambda synapse, rng: {"bias": (rng.normal(size=len(synapse.weight)) * rng.choice([1e-6, 1, 1e3])).astype(np.float32)}
    ),
    "delays": _delay,
    "heads": _add_head,
    "geometry": _change_geometry,
    "as drawn": lambda graph, _: graph,
}
"""By kind what changes; numbers below, at and beyond what a chip's integers hold."""
