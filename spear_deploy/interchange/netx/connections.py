"""How do weights take what one or more entries of a netx file emit?

What an entry takes is a list of feeds, joined along the channels. Weights behind a join are cut into one part for each feed,
weights with several delays into one for each delay; the parts add up in the neurons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.hdf5.tree import Tree
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.entry import AGAIN
from spear_deploy.interchange.netx.neurons import read_neuron
from spear_deploy.network import Array, Conv2d, Dense, Layer, Shape
from spear_deploy.network.graph import INPUT, Edge

MOST_DERIVED = 1 << 22
"""Weights that stand in no file, but follow from a few numbers in it (pools, averages, joined groups)."""


@dataclass(frozen=True)
class Feed:
    """What an entry emits: the layer it became, the shape, and how many steps late it arrives."""

    source: str
    shape: Shape
    delay: int = 0


@dataclass
class Chain:
    """The network on its way: what has been read, and what comes out of it so far."""

    rows: dict[int, Tree]
    input_shape: Shape | None
    feeds: list[Feed] = field(default_factory=list)
    emitted: dict[int, list[Feed]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begin(self, shape: Shape) -> None:
        """Say what the network takes, if nothing has said so yet."""
        if not self.feeds:
            self.input_shape = shape
            self.feeds = [Feed(INPUT, shape)]

    def shape(self) -> Shape:
        """Return the shape of all feeds together."""
        first = self.feeds[0].shape
        return (sum(feed.shape[0] for feed in self.feeds), *first[1:])

    def add(self, layer: Layer, shape: Shape) -> None:
        """Put a layer behind the only feed."""
        (feed,) = self.feeds
        self.edges.append(Edge(source=feed.source, target=layer.name, delay=feed.delay))
        self.layers.append(layer)
        self.feeds = [Feed(layer.name, shape)]


def check_derived(name: str, count: int) -> None:
    """Refuse to make more weights from sizes than is sensible."""
    if count > MOST_DERIVED:
        raise GraphError(f"'{name}': stands for {count} weights, at most {MOST_DERIVED} are made from sizes alone; {AGAIN}")


@dataclass(frozen=True)
class _Part:
    """Weights from one source."""

    label: str
    feed: Feed
    weight: Array
    geometry: dict[str, Any]
    delays: Array


def add_weighted(chain: Chain, name: str, row: Tree, weight: Array, geometry: dict[str, Any], recurrent: Array | None) -> None:
    """Add a layer with weights: one row, or several that add up where feeds are joined, delays differ or it feeds itself."""
    shape = _synapse(weight, geometry).output_shape(chain.shape())
    _check_shape(chain, name, entry.stated_shape(row), shape)
    neuron = read_neuron(row, shape, chain.notes, name)
    exponent = entry.exponent(row, chain.notes, name)
    delays = entry.delays(row, weight.shape, chain.notes, name)
    if geometry and delays.any():
        chain.notes.append(f"'{name}': its delay acts; lava-dl's loader passes over the delay of a convolution")
    bias = None if neuron is not None or "bias" not in row else entry.whole(row, "bias").reshape(-1)
    parts = _parts(chain, name, weight, geometry, delays)
    if recurrent is not None:
        own = _own_delays(delays, weight.shape)
        parts.append(_Part(f"{name}.recurrent", Feed(name, shape, 1), recurrent, {}, own))
    if len(parts) == 1 and delays.size == 1:
        synapse = replace(_synapse(weight, geometry), weight_exponent=exponent, bias=bias)
        chain.feeds = [replace(parts[0].feed, delay=parts[0].feed.delay + int(delays))]
        chain.add(Layer(name=name, synapse=synapse, neuron=neuron), shape)
        return
    if neuron is None and (delays.size > 1 or bias is not None):
        raise UnsupportedError("delays that differ need a neuron, and a bias behind a join too; give the layer one of its own")
    for part in parts:
        _add_part(chain, name, part, exponent)
    chain.layers.append(Layer(name=name, neuron=neuron))
    chain.feeds = [Feed(name, shape)]


def _synapse(weight: Array, geometry: dict[str, Any]) -> Dense | Conv2d:
    return Conv2d(weight=weight, **geometry) if geometry else Dense(weight=weight)


def _check_shape(chain: Chain, name: str, stated: Shape, shape: Shape) -> None:
    full = len(stated) == len(shape) == 3
    if int(np.prod(stated, dtype=np.int64)) != int(np.prod(shape, dtype=np.int64)) or (
        full and stated != shape and stated != shape[::-1]
    ):
        raise GraphError(f"states a shape of {stated}, its weights give {shape}; {AGAIN}")
    if full and stated != shape:
        chain.notes.append(f"'{name}': states its shape of {shape} the other way round")


def _parts(chain: Chain, name: str, weight: Array, geometry: dict[str, Any], delays: Array) -> list[_Part]:
    """Cut weights along their inputs, one part for each feed."""
    if len(chain.feeds) == 1:
        return [_Part(f"{name}.input", chain.feeds[0], weight, geometry, delays)]
    if geometry and geometry["groups"] > 1:
        check_derived(name, weight.size * geometry["groups"])
        weight, geometry = _ungrouped(weight, geometry["groups"]), {**geometry, "groups": 1}
    parts, at = [], 0
    for k, feed in enumerate(chain.feeds):
        width = feed.shape[0] if geometry else int(np.prod(feed.shape, dtype=np.int64))
        own = delays[:, at : at + width] if delays.ndim > 1 and delays.shape[1] > 1 else delays
        parts.append(_Part(f"{name}.{k}.{feed.source}", feed, weight[:, at : at + width], geometry, own))
        at += width
    return parts


def _own_delays(delays: Array, shape: Shape) -> Array:
    """Return the delays of a layer's own spikes: those of its neurons, or the one of all."""
    if delays.size == 1 or delays.shape[1] == 1:
        return delays
    raise UnsupportedError(
        f"delays that differ by input, on {shape[1]} inputs, leave open what delays its own spikes; give one a neuron"
    )


def _ungrouped(weight: Array, groups: int) -> Array:
    """Return the kernel (O, I, ...) that does without groups what a grouped one does."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    wide = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
        wide[rows, columns] = weight[rows]
    return wide


def _add_part(chain: Chain, target: str, part: _Part, exponent: int) -> None:
    """Add the weights of a part, as one layer for each delay among them."""
    spread = np.broadcast_to(part.delays, part.weight.shape)
    for delay in np.unique(part.delays):
        label = part.label if part.delays.size == 1 else f"{part.label}.delay{delay}"
        chosen = part.weight if part.delays.size == 1 else np.where(spread == delay, part.weight, 0)
        chain.layers.append(Layer(name=label, synapse=replace(_synapse(chosen, part.geometry), weight_exponent=exponent)))
        chain.edges += [
            Edge(source=part.feed.source, target=label, delay=part.feed.delay + int(delay)),
            Edge(source=label, target=target),
        ]
