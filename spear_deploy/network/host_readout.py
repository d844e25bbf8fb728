"""Readout on the host: layers behind the spikes that leave a chip.

The chip's network ends in the layer whose spikes leave it. What lies behind, dense weights and a leaky integrator, and pools in
front of them if there are any, stands in `metadata["host_readout"]`, exact to the bit. For learning both are joined to one
network again, which states the names of the host's layers in `metadata["host_layers"]`.

    conv ──► spikes ──► │ chip │ ──► spikes ──► pool ──► weights ──► LI ──► class
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, SpearError, UnsupportedError
from spear_deploy.network.base import Array, Shape
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain, merge_parts, unused_name
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import LI, READOUTS, CubaLI
from spear_deploy.network.sparse_matrix import SparseMatrix, write_out
from spear_deploy.network.synapses import POOLS, AvgPool, BatchNorm, Dense, Flatten, SumPool
from spear_deploy.util.number_format import join_names

HOST_READOUT = "host_readout"
"""Key of the metadata: {input_shape, layers}."""
HOST_LAYERS = "host_layers"
"""Key of the metadata of a joined network: names of the layers that are not on the chip."""
KINDS: dict[str, type] = {kind.__name__: kind for kind in (AvgPool, SumPool, Flatten, Dense, BatchNorm, LI, CubaLI)}
"""Parts that the host computes."""
PARTS = ("synapse", "norm", "neuron")


def has_host_readout(graph: SNNGraph) -> bool:
    """Return whether the host integrates the outputs of a network."""
    return graph.metadata.get(HOST_READOUT) is not None


def read_host_readout(graph: SNNGraph) -> SNNGraph | None:
    """Return the host's layers as a network of their own, which takes the spikes of the outputs; None where there are none.

    Raises:
        GraphError: the metadata hold something else, e.g. of a file that was edited.
    """
    stated = graph.metadata.get(HOST_READOUT)
    if stated is None:
        return None
    try:
        layers = [_decode_layer(row) for row in stated["layers"]]
        host = chain(layers, input_shape=tuple(int(n) for n in stated["input_shape"]), dt_s=graph.dt_s)
        outputs = int(np.prod(graph.shape_of(graph.output)))
        if int(np.prod(host.input_shape)) != outputs:
            raise GraphError(f"takes {int(np.prod(host.input_shape))} outputs, the network has {outputs}")
    except (SpearError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"metadata '{HOST_READOUT}': is damaged ({error}); adapt the network again") from error
    return host


def move_to_host(graph: SNNGraph) -> SNNGraph:
    """Return the network that ends in the spikes which its readout takes; the host integrates them from then on.

    Raises:
        UnsupportedError: the network does not end in a dense readout of the spikes of one layer.
    """
    if has_host_readout(graph):
        raise UnsupportedError(
            "readout by the host: the host integrates the outputs of this network already; leave out `--readout host`"
        )
    graph = merge_parts(graph)
    return _split(graph, _find_host_layers(graph))


def _find_host_layers(graph: SNNGraph) -> list[str]:
    """Return the names of the readout and of the pools in front of it, in the order of the network."""
    layer = graph[graph.output]
    if layer.spikes:
        raise UnsupportedError(
            f"readout by the host: output '{layer.name}' sends spikes, which the host counts in any case; leave out "
            "`--readout host`"
        )
    integrates = layer.neuron is None or isinstance(layer.neuron, READOUTS)
    if graph.is_integer or not isinstance(layer.synapse, Dense) or not integrates:
        raise UnsupportedError(
            f"readout by the host: output '{layer.name}' is no dense readout in floating point (Dense, with LI, CubaLI or no "
            "neuron); keep it on the chip"
        )
    if readers := [edge.target for edge in graph.edges_from(layer.name)]:
        raise UnsupportedError(
            f"readout by the host: what '{layer.name}' integrates returns to {_quote(readers)}, and a host is too slow for that; "
            "keep it on the chip"
        )
    names = [layer.name]
    while True:
        into = graph.edges_into(names[0])
        if len(into) > 1:
            raise UnsupportedError(
                f"readout by the host: '{names[0]}' reads several layers, {_quote([edge.source for edge in into])}, and the host "
                "takes the spikes of one; keep it on the chip"
            )
        if into[0].delay:
            raise UnsupportedError(
                f"readout by the host: '{names[0]}' reads '{into[0].source}' with a delay, and the host takes spikes as they "
                "come; keep it on the chip"
            )
        source = into[0].source
        if source == INPUT:
            raise UnsupportedError(f"readout by the host: '{names[0]}' reads the input, so that no neuron is left for the chip")
        before = graph[source]
        if before.spikes:
            return names
        is_pool = isinstance(before.synapse, (*POOLS, Flatten)) and before.norm is None and before.neuron is None
        if not is_pool or len(graph.edges_from(source)) > 1:
            raise UnsupportedError(
                f"readout by the host: '{names[0]}' reads '{source}', whose real numbers do not leave a chip; keep it on the chip"
            )
        names.insert(0, source)


def join_readout(graph: SNNGraph) -> SNNGraph:
    """Return one network of the chip's layers and the host's, for learning; others unchanged.

    Pools of the host are multiplied into its weights where the chip's outputs have lost their positions.
    """
    host = read_host_readout(graph)
    if host is None:
        return graph
    layers = host.layers
    if graph.shape_of(graph.output) != host.input_shape:
        weight, bias = merge_weights(host)
        layers = (replace(layers[-1], synapse=Dense(weight=weight, bias=bias), norm=None),)
    names = [graph.output]
    for layer in layers:
        names.append(unused_name(layer.name, [*names, *(each.name for each in graph.layers)]))
    renamed = [replace(layer, name=name) for layer, name in zip(layers, names[1:], strict=True)]
    edges = [Edge(source=a, target=b) for a, b in pairwise(names)]
    metadata = {key: value for key, value in graph.metadata.items() if key != HOST_READOUT}
    return replace(
        graph,
        layers=(*graph.layers, *renamed),
        edges=(*graph.edges, *edges),
        output=names[-1],
        metadata={**metadata, HOST_LAYERS: names[1:]},
    )


def split_readout(graph: SNNGraph) -> SNNGraph:
    """Return the chip's part of a joined network, with the readout in its metadata; others unchanged."""
    return _split(graph, list_host_layers(graph)) if list_host_layers(graph) else graph


def list_host_layers(graph: SNNGraph) -> list[str]:
    """Return the layers of a joined network that are not on the chip, in order; those that a rewrite removed are left out."""
    known = {layer.name for layer in graph.layers}
    return [name for name in graph.metadata.get(HOST_LAYERS, ()) if name in known]


def change_joined(change: Callable[[SNNGraph], SNNGraph]) -> Callable[[SNNGraph], SNNGraph]:
    """Return a change of networks that is made with the host's layers at the end."""
    return lambda graph: split_readout(change(join_readout(graph)))


def merge_weights(host: SNNGraph) -> tuple[Array, Array]:
    """Return pools, weights and batch norm of a host's readout as one matrix (classes, outputs) and a bias (classes,)."""
    *pools, last = host.layers
    weight, bias = _merge_norm(last)
    dtype = weight.dtype
    for layer in reversed(pools):
        if isinstance(layer.synapse, POOLS):
            weight = _spread_weights(weight, layer.synapse, host.input_shape_of(layer.name), host.shape_of(layer.name))
    return np.asarray(weight, dtype), bias


def _merge_norm(layer: Layer) -> tuple[Array, Array]:
    """Return weights and batch norm of a dense layer as one matrix and a bias, of the type of the weights."""
    synapse: Any = layer.synapse
    weight = np.asarray(write_out(synapse.weight))
    bias = np.zeros(len(weight), weight.dtype) if synapse.bias is None else synapse.bias
    if layer.norm is not None:
        gain = layer.norm.weight / np.sqrt(layer.norm.var + layer.norm.eps)
        weight, bias = weight * gain[:, None], (bias - layer.norm.mean) * gain + layer.norm.bias
    return np.asarray(weight, synapse.weight.dtype), np.asarray(bias, synapse.weight.dtype)


def join_outputs(graph: SNNGraph, per_class: int) -> SNNGraph:
    """Return a network whose readout has one output in place of `per_class` neighbouring ones: their mean, by mean weights.

    Raises:
        UnsupportedError: the outputs of a class differ in what they integrate with.
    """
    layer = graph[graph.output]
    if per_class == 1 or layer.spikes or not isinstance(layer.synapse, Dense):
        return graph
    neuron: Any = layer.neuron
    values = {} if neuron is None else {field.name: getattr(neuron, field.name) for field in fields(neuron)}
    groups = {name: np.reshape(value, (-1, per_class)) for name, value in values.items() if np.size(value) > 1}
    for name, value in groups.items():
        if (value != value[:, :1]).any():
            raise UnsupportedError(
                f"readout by the host: the outputs of a class of '{layer.name}' differ in {name}, so that their mean is no "
                "output; keep it on the chip"
            )
    one = None if neuron is None else replace(neuron, **{name: value[:, 0] for name, value in groups.items()})
    weight, bias = (part.reshape(-1, per_class, *part.shape[1:]).mean(axis=1) for part in _merge_norm(layer))
    return graph.with_layers({layer.name: replace(layer, synapse=Dense(weight=weight, bias=bias), norm=None, neuron=one)})


def replace_weights(graph: SNNGraph, weight: Array, bias: Array) -> SNNGraph:
    """Return the network with other weights of the host's readout, which takes outputs without pools from then on."""
    host = read_host_readout(graph)
    assert host is not None, "there is a readout to change"
    last = replace(host.layers[-1], synapse=Dense(weight=weight, bias=bias), norm=None)
    return replace(graph, metadata={**graph.metadata, HOST_READOUT: _encode([last], (weight.shape[1],))})


def state_readout(graph: SNNGraph, layer: Layer) -> SNNGraph:
    """Return a network whose outputs a host takes with one layer of dense weights."""
    outputs = int(np.prod(graph.shape_of(graph.output)))
    return replace(graph, metadata={**graph.metadata, HOST_READOUT: _encode([layer], (outputs,))})


def _split(graph: SNNGraph, names: list[str]) -> SNNGraph:
    """Return the network without the layers of the host, which stand in its metadata."""
    source = graph.edges_into(names[0])[0].source
    host = _encode([graph[name] for name in names], graph.shape_of(source))
    metadata = {key: value for key, value in graph.metadata.items() if key != HOST_LAYERS}
    return replace(
        graph,
        layers=tuple(layer for layer in graph.layers if layer.name not in names),
        edges=tuple(edge for edge in graph.edges if edge.target not in names),
        output=source,
        metadata={**metadata, HOST_READOUT: host},
    )


def _spread_weights(weight: Array, pool: Any, before: Shape, after: Shape) -> Array:
    """Return weights (O, values behind a pool) as those of the values in front of it, (O, values)."""
    maps, both = weight.reshape(len(weight), *after), (slice(None), slice(None))
    padded = [size + 2 * pad for size, pad in zip(before[1:], pool.padding, strict=True)]
    spread = np.zeros((len(weight), before[0], *padded), np.float64)
    for place in np.ndindex(*after[1:]):
        window = tuple(slice(i * s, i * s + k) for i, s, k in zip(place, pool.stride, pool.kernel_size, strict=True))
        spread[both + window] += maps[both + place].reshape(*maps.shape[:2], *(1 for _ in place))
    inside = tuple(slice(pad, pad + size) for size, pad in zip(before[1:], pool.padding, strict=True))
    factor = 1 / float(np.prod(pool.kernel_size)) if isinstance(pool, AvgPool) else 1.0
    return (factor * spread[both + inside]).reshape(len(weight), -1)


def _quote(names: list[str]) -> str:
    return join_names([repr(name) for name in names])


# ---------------------------------------------------------------------------------------------------------- as JSON


def _encode(layers: list[Layer], input_shape: Shape) -> dict[str, Any]:
    return {"input_shape": [int(n) for n in input_shape], "layers": [_encode_layer(layer) for layer in layers]}


def _encode_layer(layer: Layer) -> dict[str, Any]:
    parts = {part: getattr(layer, part) for part in PARTS}
    return {"name": layer.name, **{part: _encode_part(value) for part, value in parts.items() if value is not None}}


def _encode_part(part: Any) -> dict[str, Any]:
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {"kind": type(part).__name__, **{name: _encode_value(value) for name, value in values.items() if value is not None}}


def _encode_value(value: Any) -> Any:
    """Return an array as its bytes, so that it is the same to the bit; sizes as numbers."""
    if isinstance(value, SparseMatrix):
        value = write_out(value)
    if isinstance(value, np.ndarray):
        bits = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return {"type": value.dtype.name, "shape": list(value.shape), "base64": base64.b64encode(bits).decode()}
    return [int(n) for n in value] if isinstance(value, tuple) else value


def _decode_layer(row: Mapping[str, Any]) -> Layer:
    parts = {part: _decode_part(row[part]) for part in PARTS if part in row}
    return Layer(name=row["name"], **parts)


def _decode_part(row: Mapping[str, Any]) -> Any:
    return KINDS[row["kind"]](**{name: _decode_value(value) for name, value in row.items() if name != "kind"})


def _decode_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value["type"] not in ("float32", "float64"):
            raise ValueError(f"numbers of type {value['type']!r}, expected float32 or float64")
        try:
            bits = base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from None
        kind = np.dtype(value["type"]).newbyteorder("<")
        return np.frombuffer(bits, kind).reshape(value["shape"]).astype(value["type"])
    return tuple(value) if isinstance(value, list) else value
