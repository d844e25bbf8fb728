"""Layers written otherwise: weights, norms and neurons of other units or shapes that compute what they did before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import (
    CONVS,
    POOLS,
    AvgPool,
    Conv1d,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    Scale,
    SumPool,
    array_parameters,
    write_out,
)
from spear_deploy.network.graph import Edge, SNNGraph, unused_name
from tests.support.rewrites import Rewritten, Rng

FACTORS = (0.25, 0.5, 2.0, 8.0)
POTENTIALS = ("r", "v_threshold", "v_reset", "v_leak", "v_init", "v_min")
"""Parameters of a neuron in the unit of its potential."""


def _multiply(values: Any, factor: float) -> Any:
    """Return an array, or None, times a power of two."""
    return None if values is None else np.asarray(values * np.asarray(factor, np.result_type(values, np.float32)))


def _has_plain_weights(layer: Layer, kinds: tuple[type, ...] = (Dense, *CONVS)) -> bool:
    return isinstance(layer.synapse, kinds) and layer.norm is None


def change_units(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with the potentials of spiking neurons in other units."""

    def change(layer: Layer) -> Layer:
        neuron: Any = layer.neuron
        if not layer.spikes:
            return layer
        factor = float(rng.choice(FACTORS))
        values = {name: _multiply(getattr(neuron, name), factor) for name in POTENTIALS if hasattr(neuron, name)}
        return replace(layer, neuron=replace(neuron, **values))

    return Rewritten(graph.with_layers(change))


def move_gain(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with factors moved from r into the weights, and from r into w_in."""

    def change(layer: Layer) -> Layer:
        neuron, synapse = layer.neuron, layer.synapse
        factor = float(rng.choice(FACTORS))
        if neuron is None:
            return layer
        if hasattr(neuron, "w_in") and rng.integers(2):
            w_in = _multiply(neuron.w_in, factor)
            return replace(layer, neuron=replace(neuron, r=_multiply(neuron.r, 1 / factor), w_in=w_in))  # type: ignore[call-arg]
        if not _has_plain_weights(layer, (Dense, *CONVS, Scale)):
            return layer
        weights: Any = replace(synapse, weight=synapse.weight * np.float32(factor), bias=_multiply(synapse.bias, factor))  # type: ignore[union-attr, type-var, call-arg]
        return replace(layer, synapse=weights, neuron=replace(neuron, r=_multiply(neuron.r, 1 / factor)))  # type: ignore[call-arg, union-attr]

    return Rewritten(graph.with_layers(change))


def write_each_value(graph: SNNGraph, rng: Rng) -> Rewritten:
    """Return the network with one value for all neurons written as one a channel or one a neuron; of a `Scale` too."""

    def change(layer: Layer) -> Layer:
        shape, by_neuron = graph.shape_of(layer.name), bool(rng.integers(2))
        by_channel = (shape[0], *(1 for _ in shape[1:]))

        def spread(values: Any) -> Any:
            fits = not by_neuron and values.shape in ((), by_channel)
            return np.broadcast_to(values, by_channel if fits else shape).copy()

        neuron, synapse = layer.neuron, layer.synapse
        if neuron is not None:
            values: Any = {name: spread(value) for name, value in array_parameters(neuron).items()}
            neuron = replace(neuron, **values)
        if isinstance(synapse, Scale):
            bias = None if synapse.bias is None else spread(synapse.bias)
            synapse = replace(synapse, weight=spread(synapse.weight), bias=bias)
        return replace(layer, neuron=neuron, synapse=synapse)

    return Rewritten(graph.with_layers(change))


def fold_norms(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with each batch norm behind weights multiplied into them."""
    changes = {}
    for layer in graph.layers:
        if layer.norm is None or not isinstance(layer.synapse, (Dense, *CONVS)):
            continue
        norm, synapse = layer.norm, layer.synapse
        gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
        bias = norm.bias - norm.mean * gain + (0 if synapse.bias is None else synapse.bias * gain)
        weight = write_out(synapse.weight) * gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:]))
        changes[layer.name] = replace(layer, synapse=replace(synapse, weight=weight, bias=bias), norm=None)
    return Rewritten(graph.with_layers(changes)) if changes else None


def split_delay(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with the delay of an edge over two edges, a sum between them."""
    edges = [edge for edge in graph.edges if edge.delay > 1]
    if not edges:
        return None
    edge, name = edges[rng.integers(len(edges))], unused_name("between", {layer.name for layer in graph.layers})
    first = int(rng.integers(1, edge.delay))
    ways = Edge(source=edge.source, target=name, delay=first), Edge(source=name, target=edge.target, delay=edge.delay - first)
    others = [other for other in graph.edges if other != edge]
    return Rewritten(replace(graph, layers=(*graph.layers, Layer(name=name)), edges=(*others, *ways), output=graph.output))


def permute_channels(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with the channels of a layer that weights alone read in another order."""

    def mixes(layer: Layer) -> bool:
        return isinstance(layer.synapse, (Dense, *CONVS)) and getattr(layer.synapse, "groups", 1) == 1

    def is_free(layer: Layer) -> bool:
        readers = [graph[edge.target] for edge in graph.edges_from(layer.name)]
        alone = all(mixes(reader) and len(graph.edges_into(reader.name)) == 1 and reader is not layer for reader in readers)
        return mixes(layer) and layer.neuron is not None and layer.name != graph.output and bool(readers) and alone

    layers = [layer for layer in graph.layers if is_free(layer)]
    if not layers:
        return None
    layer = layers[rng.integers(len(layers))]
    channels = graph.shape_of(layer.name)[0]
    order = rng.permutation(channels)

    def reorder(part: Any) -> Any:
        arrays = {name: np.asarray(write_out(part.weight)) if name == "weight" else value for name, value in vars(part).items()}
        arrays = {name: v[order] for name, v in arrays.items() if isinstance(v, np.ndarray) and v.shape[:1] == (channels,)}
        return replace(part, **arrays)

    norm = None if layer.norm is None else reorder(layer.norm)
    changes = {layer.name: replace(layer, synapse=reorder(layer.synapse), norm=norm, neuron=reorder(layer.neuron))}
    for edge in graph.edges_from(layer.name):
        reader: Any = graph[edge.target]
        weight = np.asarray(write_out(reader.synapse.weight))
        by_channel = weight.reshape(len(weight), channels, -1)[:, order].reshape(weight.shape)
        changes[reader.name] = replace(reader, synapse=replace(reader.synapse, weight=by_channel))
    return Rewritten(graph.with_layers(changes), order={layer.name: order})


def _add_up(graph: SNNGraph, layer: Layer, synapses: list[Any], edges: list[tuple[Edge, ...]]) -> Rewritten:
    """Return the network with several layers of weights in place of one, each fed by its edges; their currents add up."""
    names = {other.name for other in graph.layers}
    parts, ways = [], [edge for edge in graph.edges if edge.target != layer.name]
    for synapse, into in zip(synapses, edges, strict=True):
        name = unused_name(f"{layer.name}_part", names)
        names.add(name)
        parts.append(Layer(name=name, synapse=synapse))
        ways += [*(replace(edge, target=name) for edge in into), Edge(source=name, target=layer.name)]
    place = graph.layers.index(layer)
    layers = (*graph.layers[:place], *parts, replace(layer, synapse=None), *graph.layers[place + 1 :])
    return Rewritten(replace(graph, layers=layers, edges=tuple(ways), output=graph.output))


def split_weights(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with weights in two layers, each with zeros for half of the outputs, or of the inputs."""
    layers = [layer for layer in graph.layers if _has_plain_weights(layer)]
    if not layers:
        return None
    layer, axis = layers[rng.integers(len(layers))], int(rng.integers(2))
    synapse: Any = layer.synapse
    weight = np.asarray(write_out(synapse.weight))
    shape = [1] * weight.ndim
    shape[axis] = weight.shape[axis]
    is_first = (np.arange(weight.shape[axis]) < weight.shape[axis] // 2).reshape(shape)
    halves = [replace(synapse, weight=weight * is_first), replace(synapse, weight=weight * ~is_first, bias=None)]
    return _add_up(graph, layer, halves, [graph.edges_into(layer.name)] * 2)


def copy_weights(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with a copy of a layer's weights for each of its edges; the first copy has the bias."""
    layers = [layer for layer in graph.layers if _has_plain_weights(layer) and len(graph.edges_into(layer.name)) > 1]
    if not layers:
        return None
    layer = layers[rng.integers(len(layers))]
    edges = graph.edges_into(layer.name)
    synapse: Any = layer.synapse
    copies = [replace(synapse, bias=None if n else synapse.bias) for n in range(len(edges))]
    return _add_up(graph, layer, copies, [(edge,) for edge in edges])


def add_height(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return a network on signals (C, L) as one on maps (C, 1, L); None of other networks."""
    if len(graph.input_shape) != 2:
        return None

    def lift(values: Any) -> Any:
        return values[:, None] if values is not None and values.ndim == 2 else values

    def change(layer: Layer) -> Layer:
        synapse, neuron = layer.synapse, layer.neuron
        if isinstance(synapse, Conv1d):
            sizes: Any = {n: (least, *getattr(synapse, n)) for n, least in (("stride", 1), ("padding", 0), ("dilation", 1))}
            synapse = Conv2d(weight=synapse.weight[:, :, None], bias=synapse.bias, groups=synapse.groups, **sizes)
        elif isinstance(synapse, POOLS):
            sizes = {n: (least, *getattr(synapse, n)) for n, least in (("kernel_size", 1), ("stride", 1), ("padding", 0))}
            synapse = (AvgPool if isinstance(synapse, AvgPool) else SumPool)(**sizes)
        elif isinstance(synapse, Scale):
            synapse = replace(synapse, weight=lift(synapse.weight), bias=lift(synapse.bias))
        if neuron is not None:
            values: Any = {name: lift(value) for name, value in array_parameters(neuron).items()}
            neuron = replace(neuron, **values)
        return replace(layer, synapse=synapse, neuron=neuron)

    channels, length = graph.input_shape
    return Rewritten(replace(graph, layers=tuple(map(change, graph.layers)), input_shape=(channels, 1, length)))


def transpose_maps(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return a network on maps (C, H, W) as one on (C, W, H); None of other networks, and of those that flatten a map."""
    if len(graph.input_shape) != 3:
        return None
    if any(isinstance(layer.synapse, Flatten) and len(graph.input_shape_of(layer.name)) == 3 for layer in graph.layers):
        return None

    def turn(values: Any) -> Any:
        return values.swapaxes(-1, -2) if values is not None and values.ndim > 2 else values

    def change(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        neuron, shape = layer.neuron, graph.input_shape_of(layer.name)
        if isinstance(synapse, Dense) and len(shape) == 3:
            order = np.arange(np.prod(shape)).reshape(shape).swapaxes(1, 2).ravel()
            synapse = replace(synapse, weight=write_out(synapse.weight)[:, order])
        sizes = {n: getattr(synapse, n)[::-1] for n in ("kernel_size", "stride", "padding", "dilation") if hasattr(synapse, n)}
        values = {name: turn(getattr(synapse, name)) for name in ("weight", "bias") if hasattr(synapse, name)}
        synapse = None if synapse is None else replace(synapse, **sizes, **values)
        if neuron is not None:
            parameters: Any = {name: turn(value) for name, value in array_parameters(neuron).items()}
            neuron = replace(neuron, **parameters)
        return replace(layer, synapse=synapse, neuron=neuron)

    channels, height, width = graph.input_shape
    turned = replace(graph, layers=tuple(map(change, graph.layers)), input_shape=(channels, width, height))
    return Rewritten(turned, is_transposed=True)


LAYER_REWRITES: dict[str, Callable[[SNNGraph, Rng], Rewritten | None]] = {
    "units": change_units,
    "gain": move_gain,
    "each value": write_each_value,
    "norm": fold_norms,
    "delay": split_delay,
    "permuted": permute_channels,
    "split": split_weights,
    "copies": copy_weights,
    "height": add_height,
    "transposed": transpose_maps,
}
"""By name; all leave spikes and SynOps as they are, and all but `copies` channels, since copies do not add up their inputs."""
SAME_LAYER_NEEDS = ("units", "gain", "each value", "norm", "delay")
"""Rewrites after which a chip needs the same, and has the same integers."""
