"""Lint rules for the layout and sizes of a netx entry.

Each rule was measured with lava-dl 0.6.0 on lava-nc 0.10.0. What it names fails when the file is loaded or run; a flaw that does
not `break` is loaded differently from what is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spear_deploy.errors import SpearError
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.lint_numbers import (
    Flaw,
    check_bias,
    check_delays,
    check_loading,
    check_neurons,
    check_weights,
    describe_value,
)
from spear_deploy.interchange.netx.weights import distinct_values, round_weights
from spear_deploy.network import Array, Conv2d, Shape
from spear_deploy.util.hdf5.tree import Tree, decode_integers, decode_text

NOT_LOADED = ("pool", "average", "concat", "convT", "unpool")
LOADED = ("input", "conv", "flatten", "dense", "dense_rec")
INT8 = 127


@dataclass
class Loader:
    """State of lava-dl's loader before an entry.

    Attributes:
        shape: what the entry before emits, (C, H, W) or (n,); None where it is not known.
        flatten: whether the entry before is a flatten.
        blocks: number of entries with neurons so far.
    """

    shape: Shape | None = None
    flatten: bool = False
    blocks: int = 0


def check_entry(row: Tree, loader: Loader) -> Iterator[Flaw]:
    """Yield the flaws of an entry, and advance the loader behind it."""
    kind = entry.read_text(row, "type")
    if not isinstance(row.get("type"), str) and decode_text(row.get("type")) is None:
        yield Flaw(
            rule="type-not-text",
            what=f"`type` is {describe_value(row.get('type'))}",
            why="the loader decodes it as text and fails",
            repair="store the type as bytes, e.g. b'dense'",
        )
    if kind is None:
        return
    yield from _check_shape(row, kind)
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
        yield from _check_input(row)
    elif kind == "conv":
        yield from _check_conv(row, loader)
    elif kind != "flatten":
        yield from _check_dense(row, loader, recurrent=kind == "dense_rec")
    _advance_loader(row, kind, loader)


def _advance_loader(row: Tree, kind: str, loader: Loader) -> None:
    shape = read_valid_shape(row)
    if kind == "flatten":
        loader.flatten = True
        return
    loader.flatten = False
    if shape:
        loader.shape = (int(np.prod(shape, dtype=np.int64)),) if kind.startswith("dense") else shape
    loader.blocks += kind != "input" or "neuron" in row


# -------------------------------------------------------------------------------------------------------------- shapes


def read_valid_shape(row: Tree) -> Shape | None:
    """Return the shape that an entry states; None where it is missing or impossible."""
    shape = decode_integers(row.get("shape"))
    return shape if shape and min(shape) > 0 and math.prod(shape) <= entry.MAX_NEURONS else None


def _check_shape(row: Tree, kind: str) -> Iterator[Flaw]:
    value = row.get("shape")
    needed = {"input": (1, 2, 3), "conv": (3,)}.get(kind)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        why = "the loader takes whole numbers of it and fails"
        yield Flaw(rule="shape-dtype", what=f"`shape` is {describe_value(value)}", why=why, repair="store (C, H, W) as integers")
    elif read_valid_shape(row) is None:
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


def _check_input(row: Tree) -> Iterator[Flaw]:
    if not isinstance(row.get("neuron"), dict):
        return
    yield from check_neurons(row, is_input=True)
    for key in ("weight", "bias"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            why = "the loader needs a number there and fails"
            yield Flaw(rule="input-transform", what=f"`{key}` is {describe_value(value)}", why=why, repair="store a whole number")
            continue
        why = "the loader makes one whole number of it and fails" if value.size != 1 else "the loader cuts fractions off"
        what = f"`{key}` holds {value.size} numbers" if value.size != 1 else f"`{key}` is {float(value.reshape(-1)[0]):g}"
        if value.size != 1 or (value != np.rint(value)).any():
            yield Flaw(rule="input-transform", what=what, why=why, repair="store one whole number for all")


def _check_sizes(row: Tree) -> Iterator[Flaw]:
    for key in ("stride", "padding", "dilation", "groups"):
        value, is_scalar = row.get(key), key == "groups"
        if value is None:
            what = "whole number" if is_scalar else "pair of whole numbers"
            yield Flaw(
                rule="missing-key", what=f"`{key}` is missing", why="the loader needs it and fails", repair=f"store a {what}"
            )
        elif not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            why = "the loader prints it as a whole number and fails"
            yield Flaw(rule="size-dtype", what=f"`{key}` is {describe_value(value)}", why=why, repair="store it as integers")
        elif value.ndim and (is_scalar or value.shape != (2,)):
            valid = "a scalar" if is_scalar else "a scalar or two numbers"
            why = f"the loader takes {valid} and fails"
            yield Flaw(rule="size-shape", what=f"`{key}` has shape {value.shape}", why=why, repair=f"store {valid}")
        elif value.size and int(value.max()) > INT8:
            why = "Lava keeps it in 8 bits and computes something else"
            yield Flaw(rule="size-8-bit", what=f"`{key}` is {int(value.max())}", why=why, repair="split the layer", breaks=False)


# --------------------------------------------------------------------------------------------------------------- layers


def _check_conv(row: Tree, loader: Loader) -> Iterator[Flaw]:
    if not isinstance(row.get("neuron"), dict):
        why = "the loader needs neurons in a convolution"
        yield Flaw(rule="missing-key", what="`neuron` is missing", why=why, repair="store the neurons' numbers")
    else:
        yield from check_neurons(row)
    if loader.shape is None:
        why = "the loader cannot tell the input's size"
        yield Flaw(rule="missing-input", what="no input shape comes before", why=why, repair="begin with an `input` entry")
    yield from _check_sizes(row)
    yield from check_bias(row)
    weight_flaws = list(check_weights(row, "weight"))
    yield from weight_flaws
    if "delay" in row:
        why = "the loader passes over the delay of a convolution"
        yield Flaw(rule="conv-delay", what="`delay` is stored", why=why, repair="delay a dense layer instead", breaks=False)
    if weight_flaws:
        return
    weight = row["weight"]
    if weight.ndim < 4 or any(n != 1 for n in weight.shape[4:]):
        why = "the loader takes (O, I, kH, kW) and fails"
        yield Flaw(rule="kernel-shape", what=f"`weight` has shape {weight.shape}", why=why, repair="store (O, I, kH, kW)")
        return
    yield from _check_conv_shapes(row, weight.shape[:4], loader)
    yield from _check_channel_bias(row)
    low, high = (int(n) for n in distinct_values(round_weights(weight, "weight"))[[0, -1]])
    if low < -256 or high > 255:
        why = "a synapse holds 8 bits: the chip does not take them (Lava on a CPU does)"
        yield Flaw(rule="weight-range", what=f"weights of {low}..{high}", why=why, repair="quantise to 8 bits")


def _check_conv_shapes(row: Tree, shape: Shape, loader: Loader) -> Iterator[Flaw]:
    order = entry.find_kernel_order(row, shape)
    if order != (0, 1, 2, 3):
        sizes = [f"`{key}` {np.asarray(row[key]).tolist()}" for key in ("outChannels", "inChannels", "kernelSize") if key in row]
        yield Flaw(
            rule="transposed-kernel",
            what=f"`weight` has shape {shape}, but {', '.join(sizes)}",
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
        geometry = entry.read_geometry(row, notes, "")
        conv = Conv2d(weight=np.broadcast_to(np.int8(0), shape), **geometry)
        computed, stated = conv.output_shape(loader.shape), read_valid_shape(row)
    except SpearError as error:
        yield Flaw(rule="shapes-do-not-chain", what=str(error), why="the loader fails", repair="export the network again")
        return
    if stated and computed != stated:
        why = "the loader compares the two and fails"
        yield Flaw(
            rule="shapes-do-not-chain",
            what=f"`shape` is {stated}, the weights give {computed}",
            why=why,
            repair=f"store {computed}",
        )


def _check_channel_bias(row: Tree) -> Iterator[Flaw]:
    bias, shape = row.get("bias"), read_valid_shape(row)
    if not isinstance(bias, np.ndarray) or not shape or len(shape) != 3:
        return
    if bias.shape != shape[::-1] and (bias.ndim == 0 or bias.shape[0] != shape[0]):
        yield Flaw(
            rule="scalar-bias" if bias.size == 1 else "bias-shape",
            what=f"`bias` has shape {bias.shape}",
            why="the loader takes one a channel, or one a neuron as (W, H, C), and fails",
            repair=f"store {shape[0]} numbers",
        )


def _check_dense(row: Tree, loader: Loader, *, recurrent: bool) -> Iterator[Flaw]:
    yield from check_neurons(row)
    yield from check_bias(row)
    keys = ("weight", "weight_rec") if recurrent else ("weight",)
    weight_flaws = [flaw for key in keys for flaw in check_weights(row, key)]
    yield from weight_flaws
    if "delay" in row:
        yield from check_delays(row, recurrent)
    shape = read_valid_shape(row)
    if weight_flaws or not shape:
        return
    outputs = int(np.prod(shape, dtype=np.int64))
    for key in keys:
        yield from _check_matrix(row[key], key, outputs, loader.shape if key == "weight" else (outputs,))
    if loader.shape and len(loader.shape) > 1 and not loader.flatten and loader.blocks:
        why = "the loader connects the two as they are and fails"
        what = f"a dense entry follows one of shape {loader.shape}"
        yield Flaw(rule="missing-flatten", what=what, why=why, repair="put a `flatten` entry between them")
    yield from check_loading([round_weights(row[key], key) for key in keys])
    bias = row.get("bias")
    if isinstance(bias, np.ndarray) and bias.size not in (1, outputs):
        why = "Lava spreads it over the neurons and fails"
        yield Flaw(rule="bias-shape", what=f"`bias` has shape {bias.shape}", why=why, repair=f"store {outputs} numbers")


def _check_matrix(weight: Array, key: str, outputs: int, before: Shape | None) -> Iterator[Flaw]:
    inputs = None if before is None else int(np.prod(before, dtype=np.int64))
    if weight.ndim not in (1, 2):
        why = "Lava takes a matrix and fails"
        yield Flaw(rule="weight-shape", what=f"`{key}` has shape {weight.shape}", why=why, repair="store (O, I)")
    elif weight.ndim == 2 and weight.shape[0] != outputs:
        transposed = weight.shape[1] == outputs
        yield Flaw(
            rule="transposed-weight" if transposed else "shapes-do-not-chain",
            what=f"`{key}` has shape {weight.shape} for {outputs} neurons",
            why="the loader takes it as (O, I) and fails",
            repair=f"store {key}.T" if transposed else "export the network again",
        )
    elif weight.size % outputs or (inputs is not None and weight.size // outputs != inputs):
        what = f"`{key}` takes {weight.size / outputs:g} inputs, {inputs} come"
        why = "the loader connects the two and fails"
        yield Flaw(rule="shapes-do-not-chain", what=what, why=why, repair="export the network again")
