"""Which layers of a network does an entry of a netx file become?

An entry takes what the one before it emits, a `concat` entry also what entries further away do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.hdf5.tree import Tree, whole_numbers
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.connections import Chain, Feed, add_weighted, check_derived
from spear_deploy.interchange.netx.entry import AGAIN
from spear_deploy.interchange.netx.neurons import read_neuron
from spear_deploy.network import Array, Flatten, Layer, LoihiLIF, Scale, Shape
from spear_deploy.network.graph import Edge

DEFAULT_INPUT_WEIGHT = 64


def name_of(chain: Chain, n: int) -> str:
    """Return the name of the layer that an entry becomes."""
    return entry.text(chain.rows[n], "name") or f"layer{n}"


# ------------------------------------------------------------------------------------------------------------- entries


def _input(chain: Chain, n: int, row: Tree) -> None:
    if chain.layers:
        raise UnsupportedError("an input layer behind others has no counterpart; one in front is supported")
    shape, name = entry.stated_shape(row), name_of(chain, n)
    chain.feeds = []
    chain.begin(shape)
    neuron = read_neuron(row, shape, chain.notes, name, is_input=True)
    if neuron is None:
        return
    weight, bias = (entry.per_neuron(entry.numbers(row, key), shape, key) if key in row else None for key in ("weight", "bias"))
    cut = [f"{key} {_fraction(value):g}" for key, value in (("weight", weight), ("bias", bias)) if _fraction(value)]
    if cut:
        chain.notes.append(f"'{name}': {' and '.join(cut)} of the input are kept; lava-dl cuts fractions off")
    scale = Scale(weight=np.array(float(DEFAULT_INPUT_WEIGHT)) if weight is None else weight, bias=bias)
    # the current is a bias, so it does not fade; lava-dl ignores iDecay here
    still = replace(neuron, decay_u=np.array(4096)) if isinstance(neuron, LoihiLIF) else neuron
    chain.add(Layer(name=name, synapse=scale, neuron=still), shape)


def _fraction(value: Array | None) -> float:
    """Return the first number that is not whole, 0 where there is none."""
    wrong = [] if value is None else value[value != np.rint(value)]
    return float(wrong[0]) if len(wrong) else 0.0


def _dense(chain: Chain, n: int, row: Tree) -> None:
    name, outputs = name_of(chain, n), int(np.prod(entry.stated_shape(row), dtype=np.int64))
    weight = entry.rows_of(entry.weights(row, "weight", chain.notes, name), outputs, chain.notes, name)
    chain.begin((weight.shape[1],))
    recurrent = None
    if entry.text(row, "type") == "dense_rec":
        recurrent = entry.rows_of(entry.weights(row, "weight_rec", chain.notes, name), outputs, chain.notes, name)
        if recurrent.shape != (outputs, outputs):
            raise GraphError(f"recurrent weights of shape {recurrent.shape} for {outputs} neurons; export it again")
    row.pop("weight", None)
    add_weighted(chain, name, row, weight, {}, recurrent)


def _conv(chain: Chain, n: int, row: Tree) -> None:
    name = name_of(chain, n)
    weight = entry.kernel(row, entry.weights(row, "weight", chain.notes, name), chain.notes, name)
    row.pop("weight", None)
    geometry = entry.geometry(row, chain.notes, name)
    if not chain.feeds:
        chain.begin(chain.input_shape or _shape_before(weight, geometry, entry.stated_shape(row)))
    add_weighted(chain, name, row, weight, geometry, None)


def _pool(chain: Chain, n: int, row: Tree) -> None:
    """A pool is a convolution of each channel with one kernel; its neurons are like others."""
    name = name_of(chain, n)
    if not chain.feeds:
        if chain.input_shape is None:
            raise UnsupportedError("a pool in front tells no input shape; give input_shape")
        chain.begin(chain.input_shape)
    if "weight" in row:
        kernel = entry.kernel({}, entry.weights(row, "weight", chain.notes, name), chain.notes, name)
    else:
        found = entry.pair(entry.sizes(row.get("kernelSize"), "kernelSize", 1))
        check_derived(name, found[0] * found[1])
        kernel = np.ones((1, 1, *found), np.int32)
    channels = chain.shape()[0]
    if kernel.shape[:2] == (1, 1):
        check_derived(name, channels * kernel.size)
        kernel = np.repeat(kernel, channels, axis=0)
    if kernel.shape[:2] != (channels, 1):
        raise GraphError(
            f"a pool's kernel of shape {kernel.shape} for {channels} channels, expected one, or one a channel; {AGAIN}"
        )
    if "stride" not in row:
        chain.notes.append(f"'{name}': states no stride: its window is taken")
        row = {**row, "stride": np.array(kernel.shape[2:])}
    geometry = {**entry.geometry(row, chain.notes, name, groups=channels), "groups": channels}
    add_weighted(chain, name, row, kernel, geometry, None)


def _flatten(chain: Chain, n: int, row: Tree) -> None:
    """A dense layer flattens by itself, in the same order."""
    chain.begin(chain.input_shape or entry.stated_shape(row))
    following = entry.text(chain.rows.get(n + 1, {}), "type")
    if following in ("dense", "dense_rec", "average", "flatten") and n not in _joined_elsewhere(chain):
        return
    feeds = []
    for k, feed in enumerate(chain.feeds):
        layer = Layer(name=name_of(chain, n) + (f".{k}" if len(chain.feeds) > 1 else ""), synapse=Flatten())
        chain.layers.append(layer)
        chain.edges.append(Edge(source=feed.source, target=layer.name, delay=feed.delay))
        feeds.append(Feed(layer.name, layer.output_shape(feed.shape)))
    chain.feeds = feeds


def _joined_elsewhere(chain: Chain) -> set[int]:
    """Return the numbers of the entries that a `concat` entry lists."""
    rows = [row for row in chain.rows.values() if entry.text(row, "type") == "concat"]
    return {other for row in rows for other in whole_numbers(row.get("layers")) or ()}


def _average(chain: Chain, n: int, row: Tree) -> None:
    """Integers hold no mean: the sum is the same up to a factor."""
    name = name_of(chain, n)
    groups = int(np.prod(entry.stated_shape(row), dtype=np.int64))
    count = int(np.prod(chain.shape(), dtype=np.int64)) if chain.feeds else 0
    if not count or count % groups:
        raise GraphError(f"averages {count} neurons into {groups}, which do not divide; {AGAIN}")
    check_derived(name, count * groups)
    chain.notes.append(f"'{name}' sums {count // groups} neurons into one instead of averaging them")
    weight = np.repeat(np.eye(groups, dtype=np.int32), count // groups, axis=1)
    add_weighted(chain, name, {"shape": np.array([groups])}, weight, {}, None)


def _concat(chain: Chain, n: int, row: Tree) -> None:
    """Join what the entry before emits with what the listed ones do: earlier ones in this step, later ones in the next."""
    name = name_of(chain, n)
    if not chain.feeds:
        raise UnsupportedError("a concat entry in front joins nothing; put it behind the layers that it joins")
    for other in entry.sizes(row.get("layers"), "layers", 0):
        if other not in chain.rows or other == n:
            raise GraphError(f"joins entry {other}, there are entries 0..{len(chain.rows) - 1} besides itself; {AGAIN}")
        if other > n:
            chain.feeds.append(Feed(name_of(chain, other), entry.stated_shape(chain.rows[other]), 1))
        elif other != n - 1:  # the entry before is always joined
            chain.feeds += chain.emitted[other]
    shapes = [feed.shape for feed in chain.feeds]
    if len({shape[1:] for shape in shapes}) > 1:
        raise GraphError(f"joins {', '.join(map(str, shapes))}, which differ in more than their channels; {AGAIN}")
    stated = entry.stated_shape(row)
    if int(np.prod(stated, dtype=np.int64)) != int(np.prod(chain.shape(), dtype=np.int64)):
        raise GraphError(f"states a shape of {stated}, it joins {', '.join(map(str, shapes))}; {AGAIN}")
    joined = ", ".join(f"'{feed.source}'" + (" one step later" if feed.delay else "") for feed in chain.feeds)
    chain.notes.append(f"'{name}' joins {joined} along the channels, in this order")


READERS: dict[str, Callable[[Chain, int, Tree], None]] = {
    "input": _input,
    "dense": _dense,
    "dense_rec": _dense,
    "conv": _conv,
    "pool": _pool,
    "flatten": _flatten,
    "average": _average,
    "concat": _concat,
}


def _shape_before(weight: Array, geometry: dict[str, Any], output: Shape) -> Shape:
    """Return the input shape of a convolution that is the first layer."""
    if len(output) != 3 or any(s != 1 for s in geometry["stride"]):
        raise UnsupportedError("a strided convolution in front tells no input shape; give input_shape")
    kernel, padding, dilation = weight.shape[2:], geometry["padding"], geometry["dilation"]
    found = [n + d * (k - 1) - 2 * p for n, k, p, d in zip(output[1:], kernel, padding, dilation, strict=True)]
    return (weight.shape[1] * geometry["groups"], *found)
