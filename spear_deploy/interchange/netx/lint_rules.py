"""What in one entry of a netx file would lava-dl's loader not take, or take for something else?

Each rule was measured with lava-dl 0.6.0 on lava-nc 0.10.0; what it names fails when the file is loaded or run, or, where it
does not `break`, comes out otherwise than written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from spear_deploy.errors import SpearError
from spear_deploy.interchange.hdf5.tree import Tree, text_of, whole_numbers
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.lint_numbers import (
    Flaw,
    bias_flaws,
    delay_flaws,
    described,
    loading_flaws,
    neuron_flaws,
    weight_flaws,
)
from spear_deploy.interchange.netx.values import levels, whole_weights
from spear_deploy.network import Array, Conv2d, Shape

NOT_LOADED = ("pool", "average", "concat", "convT", "unpool")
LOADED = ("input", "conv", "flatten", "dense", "dense_rec")
INT8 = 127


@dataclass
class Loader:
    """What lava-dl's loader knows when it comes to an entry.

    Attributes:
        shape: what the entry before emits, (C, H, W) or (n,); None where nothing says so.
        flatten: whether a flatten entry came since.
        blocks: how many entries with neurons there were.
    """

    shape: Shape | None = None
    flatten: bool = False
    blocks: int = 0
    names: dict[int, Shape] = field(default_factory=dict)


def flaws(row: Tree, loader: Loader) -> Iterator[Flaw]:
    """Yield what is wrong with an entry, and tell the loader what it emits."""
    kind = entry.text(row, "type")
    if not isinstance(row.get("type"), str) and text_of(row.get("type")) is None:
        yield Flaw(
            rule="type-not-text",
            what=f"`type` is {described(row.get('type'))}",
            why="the loader decodes it as text and fails",
            repair="store the type as bytes, e.g. b'dense'",
        )
    if kind is None:
        return
    yield from _shape(row, kind)
    if kind in NOT_LOADED:
        yield Flaw(
            rule="not-implemented",
            what=f"`type` is '{kind}'",
            why="the format documents it, lava-dl 0.6.0 raises NotImplementedError",
            repair="write a pool as a convolution with one group a channel; leave averages and joins out of the file",
        )
    elif kind not in LOADED:
        yield Flaw(
            rule="unknown-type",
            what=f"`type` is '{kind}'",
            why="lava-dl passes over entries that it does not know, so the layer is lost",
            repair=f"use one of {', '.join(LOADED)}",
        )
    elif kind == "input":
        yield from _input(row)
    elif kind == "conv":
        yield from _conv(row, loader)
    elif kind != "flatten":
        yield from _dense(row, loader, recurrent=kind == "dense_rec")
    _advance(row, kind, loader)


def _advance(row: Tree, kind: str, loader: Loader) -> None:
    shape = stated(row)
    if kind == "flatten":
        loader.flatten = True
        return
    loader.flatten = False
    if shape:
        loader.shape = (int(np.prod(shape, dtype=np.int64)),) if kind.startswith("dense") else shape
    loader.blocks += kind != "input" or "neuron" in row


# -------------------------------------------------------------------------------------------------------------- shapes


def stated(row: Tree) -> Shape | None:
    """Return the shape that an entry states, None where it states none that can be."""
    shape = whole_numbers(row.get("shape"))
    return shape if shape and min(shape) > 0 and math.prod(shape) <= entry.MOST_VALUES else None


def _shape(row: Tree, kind: str) -> Iterator[Flaw]:
    value = row.get("shape")
    needed = {"input": (1, 2, 3), "conv": (3,)}.get(kind)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        why = "the loader takes whole numbers of it and fails"
        yield Flaw(rule="shape-dtype", what=f"`shape` is {described(value)}", why=why, repair="store (C, H, W) as integers")
    elif stated(row) is None:
        why = "no layer has so many neurons"
        yield Flaw(rule="shape-range", what=f"`shape` is {value.tolist()}", why=why, repair="store (C, H, W), each from 1")
    elif needed and (value.ndim != 1 or value.size not in needed):
        yield Flaw(
            rule="scalar-shape" if value.ndim == 0 else "shape-axes",
            what=f"`shape` is {value.tolist()}",
            why=f"the loader turns the axes of {kind} entries around, which one number has not"
            if value.ndim == 0
            else f"the loader takes {' or '.join(map(str, needed))} axes of it",
            repair="store (C, H, W) as an array" if kind == "conv" else "store the shape as an array",
        )


def _input(row: Tree) -> Iterator[Flaw]:
    if not isinstance(row.get("neuron"), dict):
        return
    yield from neuron_flaws(row, is_input=True)
    for key in ("weight", "bias"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            why = "the loader needs a number there and fails"
            yield Flaw(rule="input-transform", what=f"`{key}` is {described(value)}", why=why, repair="store a whole number")
            continue
        why = "the loader makes one whole number of it and fails" if value.size != 1 else "the loader cuts fractions off"
        what = f"`{key}` holds {value.size} numbers" if value.size != 1 else f"`{key}` is {float(value.reshape(-1)[0]):g}"
        if value.size != 1 or (value != np.rint(value)).any():
            yield Flaw(rule="input-transform", what=what, why=why, repair="store one whole number for all")


def _sizes(row: Tree) -> Iterator[Flaw]:
    for key in ("stride", "padding", "dilation", "groups"):
        value, one = row.get(key), key == "groups"
        if value is None:
            what = "whole number" if one else "pair of whole numbers"
            yield Flaw(
                rule="missing-key", what=f"`{key}` is missing", why="the loader needs it and fails", repair=f"store a {what}"
            )
        elif not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            why = "the loader prints it as a whole number and fails"
            yield Flaw(rule="size-dtype", what=f"`{key}` is {described(value)}", why=why, repair="store it as integers")
        elif value.ndim and (one or value.shape != (2,)):
            fine = "a scalar" if one else "a scalar or two numbers"
            why = f"the loader takes {fine} and fails"
            yield Flaw(rule="size-shape", what=f"`{key}` has shape {value.shape}", why=why, repair=f"store {fine}")
        elif value.size and int(value.max()) > INT8:
            why = "Lava keeps it in 8 bits and computes something else"
            yield Flaw(rule="size-8-bit", what=f"`{key}` is {int(value.max())}", why=why, repair="split the layer", breaks=False)


# --------------------------------------------------------------------------------------------------------------- layers


def _conv(row: Tree, loader: Loader) -> Iterator[Flaw]:
    if not isinstance(row.get("neuron"), dict):
        why = "the loader needs neurons in a convolution"
        yield Flaw(rule="missing-key", what="`neuron` is missing", why=why, repair="store the neurons' numbers")
    else:
        yield from neuron_flaws(row)
    if loader.shape is None:
        why = "the loader cannot tell the input's size"
        yield Flaw(rule="missing-input", what="no input shape comes before", why=why, repair="begin with an `input` entry")
    yield from _sizes(row)
    yield from bias_flaws(row)
    found = list(weight_flaws(row, "weight"))
    yield from found
    if "delay" in row:
        why = "the loader passes over the delay of a convolution"
        yield Flaw(rule="conv-delay", what="`delay` is stored", why=why, repair="delay a dense layer instead", breaks=False)
    if found:
        return
    weight = row["weight"]
    if weight.ndim < 4 or any(n != 1 for n in weight.shape[4:]):
        why = "the loader takes (O, I, kH, kW) and fails"
        yield Flaw(rule="kernel-shape", what=f"`weight` has shape {weight.shape}", why=why, repair="store (O, I, kH, kW)")
        return
    yield from _conv_shapes(row, weight.shape[:4], loader)
    yield from _channel_bias(row)
    low, high = (int(n) for n in levels(whole_weights(weight, "weight"))[[0, -1]])
    if low < -256 or high > 255:
        why = "a synapse holds 8 bits: the chip does not take them (Lava on a CPU does)"
        yield Flaw(rule="weight-range", what=f"weights of {low}..{high}", why=why, repair="quantise to 8 bits")


def _conv_shapes(row: Tree, shape: Shape, loader: Loader) -> Iterator[Flaw]:
    order = entry.kernel_order(row, shape)
    if order != (0, 1, 2, 3):
        said = [f"`{key}` {np.asarray(row[key]).tolist()}" for key in ("outChannels", "inChannels", "kernelSize") if key in row]
        yield Flaw(
            rule="transposed-kernel",
            what=f"`weight` has shape {shape}, but {', '.join(said)}",
            why="the loader takes the axes as (O, I, kH, kW), so another kernel comes out",
            repair=f"store weight.transpose{order}",
        )
        return
    if loader.shape is None:
        return
    if len(loader.shape) != 3:
        what, why = f"a convolution follows a shape of {loader.shape}", "Lava's convolution takes (C, H, W) and fails"
        yield Flaw(rule="shapes-do-not-chain", what=what, why=why, repair="export the network again")
        return
    try:
        notes: list[str] = []
        geometry = entry.geometry(row, notes, "")
        conv = Conv2d(weight=np.broadcast_to(np.int8(0), shape), **geometry)
        gives, states = conv.output_shape(loader.shape), stated(row)
    except SpearError as error:
        yield Flaw(rule="shapes-do-not-chain", what=str(error), why="the loader fails", repair="export the network again")
        return
    if states and gives != states:
        why = "the loader compares the two and fails"
        yield Flaw(
            rule="shapes-do-not-chain", what=f"`shape` is {states}, the weights give {gives}", why=why, repair=f"store {gives}"
        )


def _channel_bias(row: Tree) -> Iterator[Flaw]:
    bias, shape = row.get("bias"), stated(row)
    if not isinstance(bias, np.ndarray) or not shape or len(shape) != 3:
        return
    if bias.shape != shape[::-1] and (bias.ndim == 0 or bias.shape[0] != shape[0]):
        yield Flaw(
            rule="scalar-bias" if bias.size == 1 else "bias-shape",
            what=f"`bias` has shape {bias.shape}",
            why="the loader takes one a channel, or one a neuron as (W, H, C), and fails",
            repair=f"store {shape[0]} numbers",
        )


def _dense(row: Tree, loader: Loader, *, recurrent: bool) -> Iterator[Flaw]:
    yield from neuron_flaws(row)
    yield from bias_flaws(row)
    keys = ("weight", "weight_rec") if recurrent else ("weight",)
    found = [flaw for key in keys for flaw in weight_flaws(row, key)]
    yield from found
    if "delay" in row:
        yield from delay_flaws(row, recurrent)
    shape = stated(row)
    if found or not shape:
        return
    outputs = int(np.prod(shape, dtype=np.int64))
    for key in keys:
        yield from _matrix(row[key], key, outputs, loader.shape if key == "weight" else (outputs,))
    if loader.shape and len(loader.shape) > 1 and not loader.flatten and loader.blocks:
        why = "the loader connects the two as they are and fails"
        what = f"a dense entry follows one of shape {loader.shape}"
        yield Flaw(rule="missing-flatten", what=what, why=why, repair="put a `flatten` entry between them")
    yield from loading_flaws([whole_weights(row[key], key) for key in keys])
    bias = row.get("bias")
    if isinstance(bias, np.ndarray) and bias.size not in (1, outputs):
        why = "Lava spreads it over the neurons and fails"
        yield Flaw(rule="bias-shape", what=f"`bias` has shape {bias.shape}", why=why, repair=f"store {outputs} numbers")


def _matrix(weight: Array, key: str, outputs: int, before: Shape | None) -> Iterator[Flaw]:
    inputs = None if before is None else int(np.prod(before, dtype=np.int64))
    if weight.ndim not in (1, 2):
        why = "Lava takes a matrix and fails"
        yield Flaw(rule="weight-shape", what=f"`{key}` has shape {weight.shape}", why=why, repair="store (O, I)")
    elif weight.ndim == 2 and weight.shape[0] != outputs:
        turned = weight.shape[1] == outputs
        yield Flaw(
            rule="transposed-weight" if turned else "shapes-do-not-chain",
            what=f"`{key}` has shape {weight.shape} for {outputs} neurons",
            why="the loader takes it as (O, I) and fails",
            repair=f"store {key}.T" if turned else "export the network again",
        )
    elif weight.size % outputs or (inputs is not None and weight.size // outputs != inputs):
        what = f"`{key}` takes {weight.size / outputs:g} inputs, {inputs} come"
        why = "the loader connects the two and fails"
        yield Flaw(rule="shapes-do-not-chain", what=what, why=why, repair="export the network again")
