"""How does netx (lava-dl, HDF5) say this network?

netx is a chain of integer layers. Everything it cannot say is refused by name before a byte is written; a sum pool goes
into the weights behind it, exactly. The file starts as lava-dl 0.6.0 accepts it:

    input of one axis          straight with the first dense layer
    input of C, H, W           an `input` entry with a shape and no neuron (lava-dl: the shape of what is fed in)
    a current                  an `input` layer with neurons: bias round(weight · current + bias)

Layer groups carry two entries that lava-dl passes over: `name`, and `neuron/readout` where the membrane is the output.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.netx.chain import OTHERS, Link, chain_of
from spear_deploy.interchange.netx.values import bias_values, check_loadable, check_range, loadable, neuron_values, weights_of
from spear_deploy.network import Array, Conv2d, Dense, Layer, LoihiLIF, Scale, Shape, SigmaDelta, SumPool
from spear_deploy.network.graph import SNNGraph, merge_parts
from spear_deploy.simulator import synapse_math
from spear_deploy.util.files import written_aside

MOST_DELAY = 62
LAVA_GROUPS = 127
"""lava-nc 0.10 keeps the groups of a convolution in 8 bits; with 128 it sends zeros."""


def write_netx(graph: SNNGraph, path: str | os.PathLike[str], *, round_bias: bool = False) -> list[str]:
    """Write an integer network as netx, whole or not at all.

    Args:
        graph: a chain of integer layers.
        path: the file.
        round_bias: round each bias to a multiple of 64, the only ones that netx holds, instead of refusing others.

    Returns:
        What was approximated, added, or is passed over by lava-dl's loader, one sentence each; empty when nothing was.

    Raises:
        UnsupportedError: what netx cannot say, by layer.
        FileError: the place is not writable.
    """
    import h5py

    notes: list[str] = []
    entries = entries_for(graph, notes, round_bias)
    with written_aside(path) as aside, h5py.File(aside, "w") as file:
        for n, row in enumerate(entries):
            _write(file.create_group(f"layer/{n}"), row)
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


def entries_for(graph: SNNGraph, notes: list[str], round_bias: bool = False) -> list[Entry]:
    """Return the entries that say a network; `notes` gets what the writer returns.

    Raises:
        UnsupportedError: what netx cannot say, by layer.
    """
    if not graph.is_integer:
        raise UnsupportedError("netx holds integer networks; quantise this one first")
    entries: list[Entry] = []
    for link in chain_of(merge_parts(graph)):
        entries += _of_link(link, entries, notes, round_bias, last=link.layer.name == graph.output)
    return entries


def _write(group: Any, row: Entry) -> None:
    group.create_dataset("type", (1,), "S10", [row.kind.encode()])
    group["shape"] = np.array(row.shape, np.int64)
    for key, value in row.values.items():
        group[key] = value
    for key, value in row.neuron.items():
        group[f"neuron/{key}"] = value
    if row.name:
        group["name"] = row.name


# -------------------------------------------------------------------------------------------------------------- entries


def _of_link(link: Link, before_it: list[Entry], notes: list[str], round_bias: bool, *, last: bool) -> list[Entry]:
    """Return the entries of one link: perhaps an input shape or a flatten, then the layer."""
    layer = link.layer
    neuron = _neuron_of(layer, notes, last)
    if isinstance(layer.synapse, Scale) and not before_it and not link.pools:
        return [_input_entry(layer, layer.synapse, link, neuron)]
    if isinstance(layer.neuron, SigmaDelta) and layer.neuron.takes == "values":
        raise UnsupportedError(f"layer '{layer.name}': an encoder takes the network's input, scaled, in netx; give it a Scale")
    synapse = weights_of(layer, link)
    for pool, shape in reversed(link.pools):
        synapse = through_pool(layer.name, synapse, pool, shape)
    before = _three(layer.name, link.shape)
    extra = [Entry("input", before)] if not before_it and len(link.shape) > 1 else []
    if isinstance(synapse, Dense):
        shape = synapse.output_shape(link.shape)
    else:
        shape = synapse.output_shape(before)
        shape = (shape[0], *shape[4 - len(link.shape) :])  # of the layer itself, without the axes that netx adds
    bias = bias_values(layer, shape, notes, round_bias)
    if isinstance(synapse, Dense):
        if before_it and len(before_it[-1].shape) > 1:
            extra.append(Entry("flatten", (synapse.weight.shape[1], 1, 1)))
        row = _dense_entry(layer, synapse, link, bias, notes)
    else:
        row = _conv_entry(layer, synapse, before, link, notes)
    if bias is not None:
        row.values["bias"] = bias.astype(np.float32)
    row.neuron, row.name = neuron, layer.name
    return [*extra, row]


def _neuron_of(layer: Layer, notes: list[str], last: bool) -> dict[str, Any]:
    """Return the numbers of a layer's neurons; dense weights at the end need none."""
    if layer.norm is None and isinstance(layer.neuron, (LoihiLIF, SigmaDelta)):
        return neuron_values(layer, notes)
    if layer.neuron is None and layer.norm is None and isinstance(layer.synapse, Dense) and last:
        notes.append(f"layer '{layer.name}': has no neuron; lava-dl's loader adds up its sums in one that never spikes")
        return {}
    found = "no neuron" if layer.neuron is None else f"{type(layer.neuron).__name__} neurons"
    what = f"layer '{layer.name}': has {found}, netx layers end in integer neurons of Loihi"
    raise UnsupportedError(f"{what}; give it a readout neuron, or quantise it for loihi2")


def _input_entry(layer: Layer, scale: Scale, link: Link, neuron: dict[str, Any]) -> Entry:
    values = {}
    for key, given in (("weight", scale.weight), ("bias", scale.bias)):
        if given is not None:
            number = np.unique(given)
            if number.size != 1 or number[0] != np.rint(number[0]):
                raise UnsupportedError(f"layer '{layer.name}': the input's {key} must be one whole number, netx has no other")
            values[key] = np.float32(number[0])
    plain = link.recurrent is None and not link.delay.any() and neuron.get("iDecay", 4096) == 4096 and neuron
    if isinstance(layer.neuron, SigmaDelta):
        plain = plain and layer.neuron.takes == "values"
    if not plain or layer.neuron.bias.any():  # type: ignore[union-attr]
        raise UnsupportedError(f"layer '{layer.name}': input neurons take a current without decay, delay or further bias in netx")
    shape = link.shape if len(link.shape) == 1 else _three(layer.name, link.shape)
    return Entry("input", shape, values, neuron, layer.name)


def _dense_entry(layer: Layer, synapse: Dense, link: Link, bias: Array | None, notes: list[str]) -> Entry:
    weight, values = synapse.weight, {}
    kind = "dense"
    matrices = [weight]
    if link.recurrent is not None:
        kind = "dense_rec"
        values["weight_rec"] = link.recurrent.astype(np.float32)
        matrices.append(link.recurrent)
    if not any(matrix.any() for matrix in matrices):
        weight = matrices[0] = loadable(layer, weight, bias, notes)
    for matrix in matrices:
        check_range(layer.name, matrix)
    check_loadable(layer.name, *matrices)
    if link.delay.any():
        if link.delay.max() > MOST_DELAY or (kind == "dense_rec"):
            what = f"layer '{layer.name}': delays up to {link.delay.max()} steps"
            raise UnsupportedError(f"{what}, netx holds {MOST_DELAY}, and none with recurrence; {OTHERS}")
        values["delay"] = link.delay.astype(np.int64)
    return Entry(
        kind,
        (weight.shape[0],),
        {"inFeatures": weight.shape[1], "outFeatures": weight.shape[0], "weight": weight.astype(np.float32), **values},
    )


def _conv_entry(layer: Layer, conv: Conv2d, before: Shape, link: Link, notes: list[str]) -> Entry:
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


def _three(name: str, shape: Shape) -> Shape:
    if len(shape) > 3:
        raise UnsupportedError(f"layer '{name}': {len(shape)} axes, netx has channels, height and width")
    return (shape[0], *(1 for _ in range(3 - len(shape))), *shape[1:])


# FOLDED from spear_deploy/interchange/netx/writer.py
# Which weights do what a sum pool and the weights behind it do together?
#
# The weight of a pooled position goes to every position of its window, so integers stay exact. A convolution's zeros around
# the pooled picture are zeros around the picture too, unless windows overlap or leave a rest at the edge.


def through_pool(name: str, synapse: Any, pool: SumPool, shape: Shape) -> Any:
    """Return the weights that do what a sum pool and the weights behind it do.

    Args:
        name: of the layer, for the error.
        synapse: `Dense` or `Conv2d` behind the pool.
        pool: the pool.
        shape: of what the pool takes.

    Raises:
        UnsupportedError: a convolution pads with zeros that the pool would not have made.
    """
    kernel, stride, padding = _of(pool)
    if isinstance(synapse, Dense):
        pooled = pool.output_shape(shape)
        taps = np.ones((len(synapse.weight) * shape[0], *kernel), synapse.weight.dtype)
        spread = synapse_math.scatter(
            synapse.weight.reshape(-1, *pooled[1:]),
            taps,
            (len(taps), *shape[1:]),
            stride,
            padding,
            tuple(1 for _ in kernel),
        )
        return Dense(weight=spread.reshape(len(synapse.weight), -1))
    lift = 2 - len(kernel)
    kernel, stride, padding = (1,) * lift + kernel, (1,) * lift + stride, (0,) * lift + padding
    for n, k, s, p, q in zip((1,) * lift + shape[1:], kernel, stride, padding, synapse.padding, strict=True):
        outside = (n + 2 * p - k) // s + 1
        if q and (k > s + p or s * outside - p < n):
            raise UnsupportedError(f"layer '{name}': pads behind a pool whose windows overlap or leave a rest; pad earlier")
    weight = synapse.weight
    sizes = [s * d * (m - 1) + k for k, s, d, m in zip(kernel, stride, synapse.dilation, weight.shape[2:], strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    for y, x in np.ndindex(*weight.shape[2:]):
        top, left = stride[0] * synapse.dilation[0] * y, stride[1] * synapse.dilation[1] * x
        wide[:, :, top : top + kernel[0], left : left + kernel[1]] += weight[:, :, y : y + 1, x : x + 1]
    return Conv2d(
        weight=wide,
        stride=tuple(s * t for s, t in zip(stride, synapse.stride, strict=True)),
        padding=tuple(s * q + p for s, q, p in zip(stride, synapse.padding, padding, strict=True)),
        groups=synapse.groups,
    )


def _of(pool: Any) -> tuple[Shape, Shape, Shape]:
    return pool.kernel_size, pool.stride, pool.padding
