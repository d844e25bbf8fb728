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
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.files import written_aside
from spear_deploy.graph import SNNGraph, merge_parts
from spear_deploy.interchange.netx_chain import OTHERS, Link, chain_of, shifted
from spear_deploy.interchange.pool_folding import through_pool
from spear_deploy.layers import (
    LOIHI_UNIT,
    Array,
    Conv1d,
    Conv2d,
    Dense,
    Layer,
    LoihiLIF,
    Scale,
    Shape,
    SumPool,
)

NO_SPIKE = 131071
BIAS_LIMIT = 4096
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
        What was approximated or added, one sentence each; empty when nothing was.

    Raises:
        UnsupportedError: what netx cannot say, by layer.
        FileError: the place is not writable.
    """
    import h5py

    notes: list[str] = []
    rows = _rows(graph, notes, round_bias)
    with written_aside(path) as aside, h5py.File(aside, "w") as file:
        for n, row in enumerate(rows):
            _write_row(file.create_group(f"layer/{n}"), row)
        step_ms = graph.dt_s * 1e3
        file["simulation/Ts"] = int(step_ms) if step_ms == int(step_ms) else step_ms
        file["simulation/tSample"] = 1
    return notes


def _rows(graph: SNNGraph, notes: list[str], round_bias: bool) -> list[_Row]:
    if not graph.is_integer:
        raise UnsupportedError("netx holds integer networks; quantise this one first")
    rows: list[_Row] = []
    for link in chain_of(merge_parts(graph)):
        rows += _link_rows(link, rows, notes, round_bias)
    return rows


@dataclass
class _Row:
    """One entry of the file."""

    kind: str
    shape: Shape
    values: dict[str, Any] = field(default_factory=dict)
    neuron: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def _write_row(group: Any, row: _Row) -> None:
    group.create_dataset("type", (1,), "S10", [row.kind.encode()])
    group["shape"] = np.array(row.shape, np.int64)
    for key, value in row.values.items():
        group[key] = value
    for key, value in row.neuron.items():
        group[f"neuron/{key}"] = value
    if row.name:
        group["name"] = row.name


# -------------------------------------------------------------------------------------------------------------- rows


def _link_rows(link: Link, rows: list[_Row], notes: list[str], round_bias: bool) -> list[_Row]:
    """Return the entries of one link: perhaps an input shape or a flatten, then the layer."""
    layer = link.layer
    if layer.norm is not None or not isinstance(layer.neuron, LoihiLIF):
        raise UnsupportedError(f"layer '{layer.name}': netx layers end in integer neurons; give it a readout neuron")
    neuron = _neuron_values(layer)
    if isinstance(layer.synapse, Scale) and not rows and not link.pools:
        return [_input_row(layer, layer.synapse, link, neuron)]
    synapse = _weights(layer, link)
    for pool, shape in reversed(link.pools):
        synapse = through_pool(layer.name, synapse, pool, shape)
    before = _three(layer.name, link.shape)
    extra = [_Row("input", before)] if not rows and len(link.shape) > 1 else []
    if isinstance(synapse, Dense):
        shape = synapse.output_shape(link.shape)
    else:
        shape = synapse.output_shape(before)
        shape = (shape[0], *shape[4 - len(link.shape) :])  # of the layer itself, without the axes that netx adds
    bias = _bias(layer, shape, notes, round_bias)
    if isinstance(synapse, Dense):
        if rows and len(link.shape) > 1:
            extra.append(_Row("flatten", (synapse.weight.shape[1], 1, 1)))
        row = _dense_row(layer, synapse, link, bias, notes)
    else:
        row = _conv_row(layer, synapse, before, link, notes)
    if bias is not None:
        row.values["bias"] = bias.astype(np.float32)
    row.neuron, row.name = neuron, layer.name
    return [*extra, row]


def _weights(layer: Layer, link: Link) -> Any:
    """Return a layer's weights as dense or two-dimensional convolution, with no exponent and no bias."""
    synapse, name = layer.synapse, layer.name
    shape = link.pools[-1][0].output_shape(link.pools[-1][1]) if link.pools else link.shape
    if isinstance(synapse, (Dense, Conv1d, Conv2d)):
        if synapse.bias is not None and synapse.bias.any():
            raise UnsupportedError(f"layer '{name}': a bias on the current has no place in netx; put it on the neuron")
        values = shifted(name, synapse)
        if isinstance(synapse, Dense):
            return Dense(weight=values)
        if isinstance(synapse, Conv2d):
            return replace(synapse, weight=values, bias=None, weight_exponent=0)
        return Conv2d(
            weight=values[:, :, None],
            stride=(1, *synapse.stride),
            padding=(0, *synapse.padding),
            dilation=(1, *synapse.dilation),
            groups=synapse.groups,
        )
    if isinstance(synapse, SumPool):
        ones = np.ones((shape[0], 1, *synapse.kernel_size), np.int64)
        conv: Any = Conv2d if len(synapse.kernel_size) == 2 else Conv1d
        pooled = conv(weight=ones, stride=synapse.stride, padding=synapse.padding, groups=shape[0])
        return _weights(replace(layer, synapse=pooled), link)
    return _per_channel(name, synapse, shape)


def _per_channel(name: str, synapse: Any, shape: Shape) -> Any:
    """Return weights that pass each channel on, times a number."""
    gain = np.ones(shape, np.int64)
    if isinstance(synapse, Scale):
        if (synapse.bias is not None and synapse.bias.any()) or (synapse.weight != np.rint(synapse.weight)).any():
            raise UnsupportedError(f"layer '{name}': scales by fractions or adds to spikes; netx does so at the input only")
        gain = np.broadcast_to(synapse.weight, shape).astype(np.int64)
    elif synapse is not None:
        raise UnsupportedError(f"layer '{name}': {type(synapse).__name__} has no place in netx; use sum pooling")
    if len(shape) == 1:
        return Dense(weight=np.diag(gain))
    flat = gain.reshape(shape[0], -1)
    if (flat != flat[:, :1]).any():
        raise UnsupportedError(f"layer '{name}': weights per position have no place in netx; use one per channel")
    return Conv2d(weight=flat[:, :1].reshape(-1, 1, 1, 1), groups=shape[0])


def _input_row(layer: Layer, scale: Scale, link: Link, neuron: dict[str, Any]) -> _Row:
    values = {}
    for key, given in (("weight", scale.weight), ("bias", scale.bias)):
        if given is not None:
            number = np.unique(given)
            if number.size != 1 or number[0] != np.rint(number[0]):
                raise UnsupportedError(f"layer '{layer.name}': the input's {key} must be one whole number, netx has no other")
            values[key] = np.float32(number[0])
    plain = link.recurrent is None and not link.delay.any() and neuron["iDecay"] == 4096 and layer.neuron is not None
    if not plain or layer.neuron.bias.any():  # type: ignore[union-attr]
        raise UnsupportedError(f"layer '{layer.name}': input neurons take a current without decay, delay or further bias in netx")
    shape = link.shape if len(link.shape) == 1 else _three(layer.name, link.shape)
    return _Row("input", shape, values, neuron, layer.name)


def _dense_row(layer: Layer, synapse: Dense, link: Link, bias: Array | None, notes: list[str]) -> _Row:
    weight, values = synapse.weight, {}
    kind = "dense"
    if link.recurrent is not None:
        kind = "dense_rec"
        values["weight_rec"] = link.recurrent.astype(np.float32)
    together = weight if link.recurrent is None else np.hstack([weight, link.recurrent])
    if not together.any():
        weight = _loadable(layer, weight, bias, notes)
        together = weight
    _check_range(layer.name, together)
    if link.delay.any():
        if link.delay.max() > MOST_DELAY or (kind == "dense_rec"):
            what = f"layer '{layer.name}': delays up to {link.delay.max()} steps"
            raise UnsupportedError(f"{what}, netx holds {MOST_DELAY}, and none with recurrence; {OTHERS}")
        values["delay"] = link.delay.astype(np.int64)
    return _Row(
        kind,
        (weight.shape[0],),
        {"inFeatures": weight.shape[1], "outFeatures": weight.shape[0], "weight": weight.astype(np.float32), **values},
    )


def _conv_row(layer: Layer, conv: Conv2d, before: Shape, link: Link, notes: list[str]) -> _Row:
    if link.delay.any() or link.recurrent is not None:
        raise UnsupportedError(f"layer '{layer.name}': lava-dl passes over the delay of a convolution; delay a dense layer")
    if conv.groups > LAVA_GROUPS:
        notes.append(f"layer '{layer.name}': {conv.groups} groups; Lava 0.10 on a CPU computes at most {LAVA_GROUPS} right")
    _check_range(layer.name, conv.weight)
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
    return _Row("conv", shape, values)


# ------------------------------------------------------------------------------------------------------------ values


def _neuron_values(layer: Layer) -> dict[str, Any]:
    neuron: Any = layer.neuron
    if neuron.reset == "subtract" and neuron.v_threshold is not None:
        raise UnsupportedError(f"layer '{layer.name}': reset by subtraction has no place in netx; train with reset to zero")
    if neuron.v_init.any():
        raise UnsupportedError(f"layer '{layer.name}': starts away from 0, netx neurons start at 0; let v_leak be v_reset")
    values: dict[str, Any] = {"type": "CUBA"}
    for key, given in (("iDecay", neuron.decay_u), ("vDecay", neuron.decay_v), ("vThMant", neuron.v_threshold)):
        numbers = np.array([NO_SPIKE]) if given is None else np.unique(given)
        if numbers.size > 1:
            raise UnsupportedError(f"layer '{layer.name}': {key} differs between neurons, netx has one a layer; share it")
        values[key] = int(numbers[0])
    values |= {"refDelay": neuron.refractory_steps + 1, "gradedSpike": False}
    if neuron.v_threshold is None:
        values["readout"] = True
    return values


def _bias(layer: Layer, shape: Shape, notes: list[str], round_bias: bool) -> Array | None:
    """Return the bias in netx's unit of 64: one per channel, or one per neuron as (W, H, C); None if there is none."""
    neuron: Any = layer.neuron
    bias = neuron.bias
    if not bias.any():
        return None
    if (bias % LOIHI_UNIT).any():
        if not round_bias:
            odd = int(bias.reshape(-1)[np.argmax(bias.reshape(-1) % LOIHI_UNIT != 0)])
            raise UnsupportedError(f"layer '{layer.name}': a bias of {odd}, netx holds multiples of {LOIHI_UNIT}; allow rounding")
        notes.append(f"layer '{layer.name}': biases are rounded to multiples of {LOIHI_UNIT}")
    units = np.rint(bias / LOIHI_UNIT).astype(np.int64)
    if np.abs(units).max() >= BIAS_LIMIT:
        what = f"layer '{layer.name}': a bias of {int(np.abs(units).max())}"
        notes.append(f"{what} is beyond the 13 bits of Loihi with netx's exponent of 6; Lava on a CPU takes it")
    if len(shape) == 1 or units.size == 1 or (units.ndim == len(shape) and units.size == units.shape[0]):
        return np.broadcast_to(units.reshape(-1), shape[:1])
    full = np.broadcast_to(units, shape)
    return (full if full.ndim == 3 else full[:, None]).transpose()


def _check_range(name: str, weight: Array) -> None:
    """Refuse what Loihi's synapse does not hold: 8 bits, and a sign that costs the lowest one where signs are mixed."""
    low, high = int(weight.min()), int(weight.max())
    mixed = low < 0 <= high
    limits = (-256, 254) if mixed else (-255, 255)
    if low < limits[0] or high > limits[1]:
        raise UnsupportedError(f"layer '{name}': weights of {low}..{high}, synapses hold {limits[0]}..{limits[1]}; quantise it")
    if mixed and (low < -128 or high > 127) and (weight % 2).any():
        raise UnsupportedError(f"layer '{name}': odd weights beyond -128..127 of both signs lose their lowest bit; quantise it")


def _loadable(layer: Layer, weight: Array, bias: Array | None, notes: list[str]) -> Array:
    """Return weights that lava-dl can load instead of only zeros, with the same spikes.

    A neuron without a positive bias that gets nothing, or only inhibition, never spikes.
    """
    neuron: Any = layer.neuron
    silent = np.arange(len(weight)) if bias is None else np.flatnonzero(bias <= 0)
    if not silent.size or neuron.v_threshold is None or not neuron.decay_u.all():
        raise UnsupportedError(f"layer '{layer.name}': all weights are zero, which lava-dl cannot load; remove the layer")
    changed = weight.copy()
    changed[silent[0], 0] = -1
    where = f"layer '{layer.name}': all weights are zero, which lava-dl cannot load"
    notes.append(f"{where}; neuron {silent[0]}, always silent, got a weight of -1")
    return changed


def _three(name: str, shape: Shape) -> Shape:
    if len(shape) > 3:
        raise UnsupportedError(f"layer '{name}': {len(shape)} axes, netx has channels, height and width")
    return (shape[0], *(1 for _ in range(3 - len(shape))), *shape[1:])
