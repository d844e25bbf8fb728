"""Writer of netx files (lava-dl, HDF5) from integer networks.

netx is a chain of integer layers. What it has no form for raises UnsupportedError by name before a byte is written; a sum pool
is folded into the weights behind it, exactly. The file starts as lava-dl 0.6.0 accepts it:

    input of one axis          directly the first dense layer
    input of C, H, W           an `input` entry with a shape and no neuron (lava-dl: the shape of its input)
    a current                  an `input` layer with neurons: bias round(weight · current + bias)

Layer groups carry two entries that lava-dl passes over: `name`, and `neuron/readout` where the membrane is the output.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.netx.chain import OTHERS, ChainLayer, find_chain
from spear_deploy.interchange.netx.values import convert_weights, encode_bias, encode_neuron
from spear_deploy.interchange.netx.weights import check_loadable, check_range, make_loadable
from spear_deploy.network import Array, Conv2d, Dense, Layer, LoihiLIF, Scale, Shape, SigmaDelta, write_out
from spear_deploy.network.graph import SNNGraph, merge_parts
from spear_deploy.util.files import replace_from_memory
from spear_deploy.util.number_format import format_shape

MAX_DELAY = 62
LAVA_GROUPS = 127
"""lava-nc 0.10 keeps the groups of a convolution in 8 bits; with 128 it sends zeros."""


def write_netx(graph: SNNGraph, path: str | os.PathLike[str], *, round_bias: bool = False) -> list[str]:
    """Write an integer network as netx, whole or not at all.

    Args:
        graph: a chain of integer layers.
        path: the file.
        round_bias: round each bias to a multiple of 64, the only ones that netx holds; else others are errors.

    Returns:
        What was approximated, added, or is passed over by lava-dl's loader, one sentence each; empty when nothing was.

    Raises:
        UnsupportedError: netx has no form for a part of the network, by layer.
        FileError: the place is not writable.
    """
    import h5py

    notes: list[str] = []
    entries = build_entries(graph, notes, round_bias)
    with replace_from_memory(path) as memory, h5py.File(memory, "w") as file:
        for n, row in enumerate(entries):
            _write_entry(file.create_group(f"layer/{n}"), row)
        step_ms = graph.dt_s * 1e3
        file["simulation/Ts"] = int(step_ms) if step_ms == int(step_ms) else step_ms
        file["simulation/tSample"] = 1
    return notes


@dataclass
class Entry:
    """One entry of the file."""

    kind: str
    shape: Shape
    values: dict[str, Any] = field(default_factory=dict)
    neuron: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def build_entries(graph: SNNGraph, notes: list[str], round_bias: bool = False) -> list[Entry]:
    """Return the entries of a network.

    Args:
        graph: a chain of integer layers.
        notes: list to which the sentences are added that `write_netx` returns.
        round_bias: see `write_netx`.

    Raises:
        UnsupportedError: netx has no form for a part of the network, by layer.
    """
    if not graph.is_integer:
        raise UnsupportedError("netx holds integer networks; quantise this one first")
    entries: list[Entry] = []
    for link in find_chain(merge_parts(graph)):
        entries += _layer_entries(graph, link, entries, notes, round_bias)
    return entries


def _write_entry(group: Any, row: Entry) -> None:
    group.create_dataset("type", (1,), "S10", [row.kind.encode()])
    group["shape"] = np.array(row.shape, np.int64)
    for key, value in row.values.items():
        group[key] = value
    for key, value in row.neuron.items():
        group[f"neuron/{key}"] = value
    if row.name:
        group["name"] = row.name


# -------------------------------------------------------------------------------------------------------------- entries


def _layer_entries(graph: SNNGraph, link: ChainLayer, earlier: list[Entry], notes: list[str], round_bias: bool) -> list[Entry]:
    """Return the entries of one layer of the chain: an input shape or a flatten where needed, then the layer."""
    layer = link.layer
    neuron = _encode_layer_neuron(graph, layer, notes)
    if isinstance(layer.synapse, Scale) and not earlier and not link.pools:
        return [_input_entry(layer, layer.synapse, link, neuron, notes)]
    if isinstance(layer.neuron, SigmaDelta) and layer.neuron.takes == "values":
        raise UnsupportedError(f"layer '{layer.name}': an encoder takes the network's input, scaled, in netx; give it a Scale")
    synapse = convert_weights(link)
    if link.pools:
        notes.append(f"layer '{layer.name}': the sum pool in front of it is written into its weights, which may be more synapses")
    elif isinstance(synapse, Dense) and not isinstance(layer.synapse, Dense):
        what = "a connection of each neuron" if layer.synapse is None else "a factor of each neuron"
        notes.append(f"layer '{layer.name}': {what} is written into its weights, a matrix whose zeros may take memory")
    before = _pad_shape(layer.name, link.shape)
    extra = [Entry("input", before)] if not earlier and len(link.shape) > 1 else []
    if extra and before != link.shape:
        notes.append(f"the input of {format_shape(link.shape)} is one of {format_shape(before)}: netx has maps of two axes")
    if isinstance(synapse, Dense):
        shape = synapse.output_shape(link.shape)
    else:
        shape = synapse.output_shape(before)
        shape = (shape[0], *shape[4 - len(link.shape) :])  # of the layer itself, without the axes that netx adds
    bias = encode_bias(layer, shape, notes, round_bias)
    if isinstance(synapse, Dense):
        if earlier and len(earlier[-1].shape) > 1:
            extra.append(Entry("flatten", (synapse.weight.shape[1], 1, 1)))
        row = _dense_entry(layer, synapse, link, bias, notes)
    else:
        row = _conv_entry(layer, synapse, before, link, notes)
    if bias is not None:
        row.values["bias"] = bias.astype(np.float32)
    row.neuron, row.name = neuron, layer.name
    return [*extra, row]


def _encode_layer_neuron(graph: SNNGraph, layer: Layer, notes: list[str]) -> dict[str, Any]:
    """Return the numbers of a layer's neurons; dense weights at the end need none."""
    if layer.norm is None and isinstance(layer.neuron, (LoihiLIF, SigmaDelta)):
        return encode_neuron(graph, layer, notes)
    if layer.neuron is None and layer.norm is None and isinstance(layer.synapse, Dense) and layer.name == graph.output:
        notes.append(f"layer '{layer.name}': has no neuron; lava-dl's loader adds up its sums in one that never spikes")
        return {}
    neurons = "no neuron" if layer.neuron is None else f"{type(layer.neuron).__name__} neurons"
    what = f"layer '{layer.name}': has {neurons}, netx layers end in integer neurons of Loihi"
    raise UnsupportedError(f"{what}; give it a readout neuron, or quantise it for loihi2")


def _input_entry(layer: Layer, scale: Scale, link: ChainLayer, neuron: dict[str, Any], notes: list[str]) -> Entry:
    values = {}
    for key, parameter in (("weight", scale.weight), ("bias", scale.bias)):
        if parameter is not None:
            number = np.unique(parameter)
            if number.size != 1 or number[0] != np.rint(number[0]):
                raise UnsupportedError(f"layer '{layer.name}': the input's {key} must be one whole number, netx has no other")
            values[key] = np.float32(number[0])
    plain = link.recurrent is None and not link.delay.any() and neuron.get("iDecay", 4096) == 4096 and neuron
    if isinstance(layer.neuron, SigmaDelta):
        plain = plain and layer.neuron.takes == "values"
    if not plain or layer.neuron.bias.any():  # type: ignore[union-attr]
        raise UnsupportedError(f"layer '{layer.name}': input neurons take a current without decay, delay or further bias in netx")
    if link.flat and len(link.shape) > 1:
        shape: Shape = (int(np.prod(link.shape)),)
        notes.append(f"the input of {format_shape(link.shape)} is one of {shape[0]}: netx flattens behind neurons alone")
    else:
        shape = link.shape if len(link.shape) == 1 else _pad_shape(layer.name, link.shape)
    return Entry("input", shape, values, neuron, layer.name)


def _dense_entry(layer: Layer, synapse: Dense, link: ChainLayer, bias: Array | None, notes: list[str]) -> Entry:
    weight, values = synapse.weight, {}
    kind = "dense"
    matrices = [weight]
    if link.recurrent is not None:
        kind = "dense_rec"
        values["weight_rec"] = write_out(link.recurrent.astype(np.float32))
        matrices.append(link.recurrent)
    if not any(matrix.any() for matrix in matrices):
        weight = matrices[0] = make_loadable(layer, weight, bias, notes)
    for matrix in matrices:
        check_range(layer.name, matrix)
    check_loadable(layer.name, *matrices)
    if link.delay.any():
        if link.delay.max() > MAX_DELAY or (kind == "dense_rec"):
            what = f"layer '{layer.name}': delays up to {link.delay.max()} steps"
            raise UnsupportedError(f"{what}, netx holds {MAX_DELAY}, and none with recurrence; {OTHERS}")
        values["delay"] = link.delay.astype(np.int64)
    return Entry(
        kind,
        (weight.shape[0],),
        {"inFeatures": weight.shape[1], "outFeatures": weight.shape[0], "weight": write_out(weight.astype(np.float32)), **values},
    )


def _conv_entry(layer: Layer, conv: Conv2d, before: Shape, link: ChainLayer, notes: list[str]) -> Entry:
    if link.delay.any() or link.recurrent is not None:
        raise UnsupportedError(f"layer '{layer.name}': lava-dl passes over the delay of a convolution; delay a dense layer")
    if conv.groups > LAVA_GROUPS:
        notes.append(f"layer '{layer.name}': {conv.groups} groups; Lava 0.10 on a CPU computes at most {LAVA_GROUPS} right")
    check_range(layer.name, conv.weight)
    shape = conv.output_shape(before)
    values = {
        "inChannels": before[0],
        "outChannels": shape[0],
        "kernelSize": np.array(conv.weight.shape[2:], np.int64),
        "stride": np.array(conv.stride, np.int64),
        "padding": np.array(conv.padding, np.int64),
        "dilation": np.array(conv.dilation, np.int64),
        "groups": conv.groups,
        "weight": conv.weight.astype(np.float32),
    }
    return Entry("conv", shape, values)


def _pad_shape(name: str, shape: Shape) -> Shape:
    if len(shape) > 3:
        raise UnsupportedError(f"layer '{name}': {len(shape)} axes, netx has channels, height and width")
    return (shape[0], *(1 for _ in range(3 - len(shape))), *shape[1:])
