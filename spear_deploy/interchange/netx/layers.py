"""Entries of a netx file, each kind read as network layers.

An entry takes what the entry before it emits; a `concat` entry also what the entries do that it lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.connections import ImportState, Input, add_weights, check_weight_count
from spear_deploy.interchange.netx.entry import AGAIN
from spear_deploy.interchange.netx.neurons import read_neuron
from spear_deploy.network import Array, Flatten, Layer, LoihiLIF, Scale, Shape
from spear_deploy.network.graph import Edge
from spear_deploy.util.hdf5.tree import Tree, decode_integers

DEFAULT_INPUT_WEIGHT = 64


def layer_name(state: ImportState, n: int) -> str:
    """Return the name of the layer that an entry becomes."""
    return entry.read_text(state.rows[n], "name") or f"layer{n}"


# ------------------------------------------------------------------------------------------------------------- entries


def _read_input(state: ImportState, n: int, row: Tree) -> None:
    if state.layers:
        raise UnsupportedError("an input layer behind others has no counterpart; one in front is supported")
    shape, name = entry.read_shape(row), layer_name(state, n)
    state.inputs = []
    state.begin(shape)
    neuron = read_neuron(row, shape, state.notes, name, is_input=True)
    if neuron is None:
        return
    weight, bias = (
        entry.spread_over_neurons(entry.read_numbers(row, key), shape, key) if key in row else None for key in ("weight", "bias")
    )
    cut = [f"{key} {_first_fraction(value):g}" for key, value in (("weight", weight), ("bias", bias)) if _first_fraction(value)]
    if cut:
        state.notes.append(f"'{name}': {' and '.join(cut)} of the input are kept; lava-dl cuts fractions off")
    scale = Scale(weight=np.array(float(DEFAULT_INPUT_WEIGHT)) if weight is None else weight, bias=bias)
    # the current is a bias, so it does not fade; lava-dl ignores iDecay here
    if isinstance(neuron, LoihiLIF):
        neuron = replace(neuron, decay_u=np.array(4096))
    state.add(Layer(name=name, synapse=scale, neuron=neuron), shape)


def _first_fraction(value: Array | None) -> float:
    """Return the first number that is not whole; 0 if all are."""
    fractions = [] if value is None else value[value != np.rint(value)]
    return float(fractions[0]) if len(fractions) else 0.0


def _begin_flat(state: ImportState, size: int) -> None:
    """Set the input shape of a network that flattens its input; a given one of as many values keeps its axes."""
    given = state.input_shape
    state.begin(given if given is not None and math.prod(given) == size else (size,))


def _read_dense(state: ImportState, n: int, row: Tree) -> None:
    name, outputs = layer_name(state, n), int(np.prod(entry.read_shape(row), dtype=np.int64))
    weight = entry.orient_dense(entry.read_weights(row, "weight", state.notes, name), outputs, state.notes, name)
    _begin_flat(state, weight.shape[1])
    recurrent = None
    if entry.read_text(row, "type") == "dense_rec":
        recurrent = entry.orient_dense(entry.read_weights(row, "weight_rec", state.notes, name), outputs, state.notes, name)
        if recurrent.shape != (outputs, outputs):
            raise GraphError(f"recurrent weights of shape {recurrent.shape} for {outputs} neurons; export it again")
    row.pop("weight", None)
    add_weights(state, name, row=row, weight=weight, recurrent=recurrent)


def _read_conv(state: ImportState, n: int, row: Tree) -> None:
    name = layer_name(state, n)
    weight = entry.orient_kernel(row, entry.read_weights(row, "weight", state.notes, name), state.notes, name)
    row.pop("weight", None)
    geometry = entry.read_geometry(row, state.notes, name)
    if not state.inputs:
        state.begin(state.input_shape or _infer_input_shape(weight, geometry, entry.read_shape(row)))
    add_weights(state, name, row=row, weight=weight, geometry=geometry)


def _read_pool(state: ImportState, n: int, row: Tree) -> None:
    """Read a pool: a convolution of each channel with one kernel, with neurons like other layers."""
    name = layer_name(state, n)
    if not state.inputs:
        if state.input_shape is None:
            raise UnsupportedError("a pool in front leaves the input shape open; give input_shape")
        state.begin(state.input_shape)
    if "weight" in row:
        kernel = entry.orient_kernel({}, entry.read_weights(row, "weight", state.notes, name), state.notes, name)
    else:
        window = entry.expand_pair(entry.check_sizes(row.get("kernelSize"), "kernelSize", 1))
        check_weight_count(name, window[0] * window[1])
        kernel = np.ones((1, 1, *window), np.int32)
    channels = state.shape()[0]
    if kernel.shape[:2] == (1, 1):
        check_weight_count(name, channels * kernel.size)
        kernel = np.repeat(kernel, channels, axis=0)
    if kernel.shape[:2] != (channels, 1):
        raise GraphError(
            f"a pool's kernel of shape {kernel.shape} for {channels} channels, expected one, or one a channel; {AGAIN}"
        )
    if "stride" not in row:
        state.notes.append(f"'{name}': states no stride: its window is taken")
        row = {**row, "stride": np.array(kernel.shape[2:])}
    geometry = {**entry.read_geometry(row, state.notes, name, groups=channels), "groups": channels}
    add_weights(state, name, row=row, weight=kernel, geometry=geometry)


def _read_flatten(state: ImportState, n: int, row: Tree) -> None:
    """Read a flatten entry; a dense layer behind it needs none, for it flattens in the same order."""
    _begin_flat(state, math.prod(entry.read_shape(row)))
    following = entry.read_text(state.rows.get(n + 1, {}), "type")
    joins = [row for row in state.rows.values() if entry.read_text(row, "type") == "concat"]
    joined_elsewhere = any(n in (decode_integers(row.get("layers")) or ()) for row in joins)
    if following in ("dense", "dense_rec", "average", "flatten") and not joined_elsewhere:
        return
    inputs = []
    for k, incoming in enumerate(state.inputs):
        layer = Layer(name=layer_name(state, n) + (f".{k}" if len(state.inputs) > 1 else ""), synapse=Flatten())
        state.layers.append(layer)
        state.edges.append(Edge(source=incoming.source, target=layer.name, delay=incoming.delay))
        inputs.append(Input(layer.name, layer.output_shape(incoming.shape)))
    state.inputs = inputs


def _read_average(state: ImportState, n: int, row: Tree) -> None:
    """Read an average as a sum, which is the same up to a factor: integers hold no mean."""
    name = layer_name(state, n)
    groups = int(np.prod(entry.read_shape(row), dtype=np.int64))
    count = int(np.prod(state.shape(), dtype=np.int64)) if state.inputs else 0
    if not count or count % groups:
        raise GraphError(f"averages {count} neurons into {groups}, which do not divide; {AGAIN}")
    check_weight_count(name, count * groups)
    state.notes.append(f"'{name}' sums {count // groups} neurons into one instead of averaging them")
    weight = np.repeat(np.eye(groups, dtype=np.int32), count // groups, axis=1)
    add_weights(state, name, row={"shape": np.array([groups])}, weight=weight)


def _read_concat(state: ImportState, n: int, row: Tree) -> None:
    """Join what the entry before emits with what the listed ones do: earlier ones in this step, later ones one step later."""
    name = layer_name(state, n)
    if not state.inputs:
        raise UnsupportedError("a concat entry in front joins nothing; put it behind the layers that it joins")
    for other in entry.check_sizes(row.get("layers"), "layers", 0):
        if other not in state.rows or other == n:
            raise GraphError(f"joins entry {other}, there are entries 0..{len(state.rows) - 1} besides itself; {AGAIN}")
        if other > n:
            state.inputs.append(Input(layer_name(state, other), entry.read_shape(state.rows[other]), 1))
        elif other != n - 1:  # the entry before is always joined
            state.inputs += state.emitted[other]
    shapes = [incoming.shape for incoming in state.inputs]
    if len({shape[1:] for shape in shapes}) > 1:
        raise GraphError(f"joins {', '.join(map(str, shapes))}, which differ in more than their channels; {AGAIN}")
    stated = entry.read_shape(row)
    if int(np.prod(stated, dtype=np.int64)) != int(np.prod(state.shape(), dtype=np.int64)):
        raise GraphError(f"states a shape of {stated}, it joins {', '.join(map(str, shapes))}; {AGAIN}")
    joined = ", ".join(f"'{incoming.source}'" + (" one step later" if incoming.delay else "") for incoming in state.inputs)
    state.notes.append(f"'{name}' joins {joined} along the channels, in this order")


READERS: dict[str, Callable[[ImportState, int, Tree], None]] = {
    "input": _read_input,
    "dense": _read_dense,
    "dense_rec": _read_dense,
    "conv": _read_conv,
    "pool": _read_pool,
    "flatten": _read_flatten,
    "average": _read_average,
    "concat": _read_concat,
}


def _infer_input_shape(weight: Array, geometry: dict[str, Any], output: Shape) -> Shape:
    """Return the input shape of a convolution that is the first layer."""
    if len(output) != 3 or any(s != 1 for s in geometry["stride"]):
        raise UnsupportedError("a strided convolution in front leaves the input shape open; give input_shape")
    kernel, padding, dilation = weight.shape[2:], geometry["padding"], geometry["dilation"]
    sizes = (n + d * (k - 1) - 2 * p for n, k, p, d in zip(output[1:], kernel, padding, dilation, strict=True))
    return (weight.shape[1] * geometry["groups"], *sizes)
