"""Import state of a netx file, and weights connected to joined inputs.

An entry takes a list of inputs, joined along the channels. Weights behind a join are cut into one part for each input, weights
with several delays into one for each delay; the parts add up in the neurons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.entry import AGAIN
from spear_deploy.interchange.netx.neurons import read_neuron
from spear_deploy.network import Array, Conv2d, Dense, Layer, Shape
from spear_deploy.network.graph import INPUT, Edge
from spear_deploy.util.hdf5.tree import Tree
from spear_deploy.util.number_format import format_shape

MAX_DERIVED = 1 << 22
"""Limit for weights that follow from a few numbers in the file (pools, averages, joined groups)."""


@dataclass(frozen=True)
class Input:
    """One input of an entry: the layer that sends, its shape, and the delay in steps."""

    source: str
    shape: Shape
    delay: int = 0


@dataclass
class ImportState:
    """The network as far as it has been read.

    Attributes:
        rows: the entries of the file, by number.
        input_shape: of the network's input; None until an entry states it.
        inputs: of the next entry, joined along the channels.
        emitted: what each entry sends, by number.
        layers, edges: of the network.
        notes: what was assumed, one sentence each.
    """

    rows: dict[int, Tree]
    input_shape: Shape | None
    inputs: list[Input] = field(default_factory=list)
    emitted: dict[int, list[Input]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begin(self, shape: Shape) -> None:
        """Set the network's input shape, unless it is set already.

        Raises:
            GraphError: another one was given.
        """
        if self.inputs:
            return
        if self.input_shape not in (None, shape):
            stated, given = format_shape(shape), format_shape(self.input_shape or ())
            raise GraphError(f"the file takes an input of {stated}, input_shape {given} given; leave the option out")
        self.input_shape = shape
        self.inputs = [Input(INPUT, shape)]

    def shape(self) -> Shape:
        """Return the shape of all inputs joined."""
        first = self.inputs[0].shape
        return (sum(incoming.shape[0] for incoming in self.inputs), *first[1:])

    def add(self, layer: Layer, shape: Shape) -> None:
        """Add a layer behind the only input."""
        (incoming,) = self.inputs
        self.edges.append(Edge(source=incoming.source, target=layer.name, delay=incoming.delay))
        self.layers.append(layer)
        self.inputs = [Input(layer.name, shape)]


def check_weight_count(name: str, count: int) -> None:
    """Raise GraphError where more weights would follow from sizes alone than MAX_DERIVED."""
    if count > MAX_DERIVED:
        raise GraphError(f"'{name}': stands for {count} weights, at most {MAX_DERIVED} are made from sizes alone; {AGAIN}")


@dataclass(frozen=True)
class _Part:
    """Weights from one input."""

    label: str
    incoming: Input
    weight: Array
    geometry: dict[str, Any]
    delays: Array


def add_weights(
    state: ImportState,
    name: str,
    *,
    row: Tree,
    weight: Array,
    geometry: dict[str, Any] | None = None,
    recurrent: Array | None = None,
) -> None:
    """Add a layer with weights: one layer, or several that add up where inputs are joined, delays differ or it feeds itself.

    Args:
        state: gets the layers and edges.
        name: of the layer.
        row: the entry.
        weight: (O, I), or (O, I, kH, kW) with `geometry`.
        geometry: stride, padding, dilation and groups of a convolution.
        recurrent: (O, O), weights from the layer to itself, one step later.

    Raises:
        GraphError: shapes that contradict each other.
        UnsupportedError: delays that have no counterpart.
    """
    geometry = geometry or {}
    shape = _make_synapse(weight, geometry).output_shape(state.shape())
    _check_shape(state, name, entry.read_shape(row), shape)
    neuron = read_neuron(row, shape, state.notes, name)
    exponent = entry.read_exponent(row, state.notes, name)
    delays = entry.read_delays(row, weight.shape, state.notes, name)
    if geometry and delays.any():
        state.notes.append(f"'{name}': its delay acts; lava-dl's loader passes over the delay of a convolution")
    bias = None if neuron is not None or "bias" not in row else entry.read_integers(row, "bias").reshape(-1)
    parts = _cut_by_input(state, name, weight, geometry, delays)
    if recurrent is not None:
        parts.append(_Part(f"{name}.recurrent", Input(name, shape, 1), recurrent, {}, _delays_to_itself(delays, weight.shape)))
    if len(parts) == 1 and delays.size == 1:
        synapse = replace(_make_synapse(weight, geometry), weight_exponent=exponent, bias=bias)
        state.inputs = [replace(parts[0].incoming, delay=parts[0].incoming.delay + int(delays))]
        state.add(Layer(name=name, synapse=synapse, neuron=neuron), shape)
        return
    if neuron is None and (delays.size > 1 or bias is not None):
        raise UnsupportedError("delays that differ need a neuron, and a bias behind a join too; add neurons to the layer")
    for part in parts:
        _add_part(state, name, part, exponent)
    state.layers.append(Layer(name=name, neuron=neuron))
    state.inputs = [Input(name, shape)]


def _make_synapse(weight: Array, geometry: dict[str, Any]) -> Dense | Conv2d:
    return Conv2d(weight=weight, **geometry) if geometry else Dense(weight=weight)


def _check_shape(state: ImportState, name: str, stated: Shape, shape: Shape) -> None:
    full = len(stated) == len(shape) == 3
    if int(np.prod(stated, dtype=np.int64)) != int(np.prod(shape, dtype=np.int64)) or (
        full and stated != shape and stated != shape[::-1]
    ):
        raise GraphError(f"states a shape of {stated}, its weights give {shape}; {AGAIN}")
    if full and stated != shape:
        state.notes.append(f"'{name}': states its shape of {shape} the other way round")


def _cut_by_input(state: ImportState, name: str, weight: Array, geometry: dict[str, Any], delays: Array) -> list[_Part]:
    """Cut weights along their inputs, one part for each input of the entry."""
    if len(state.inputs) == 1:
        return [_Part(f"{name}.input", state.inputs[0], weight, geometry, delays)]
    if geometry and geometry["groups"] > 1:
        check_weight_count(name, weight.size * geometry["groups"])
        weight, geometry = _expand_groups(weight, geometry["groups"]), {**geometry, "groups": 1}
    parts, start = [], 0
    for k, incoming in enumerate(state.inputs):
        width = incoming.shape[0] if geometry else int(np.prod(incoming.shape, dtype=np.int64))
        columns = slice(start, start + width)
        part_delays = delays[:, columns] if delays.ndim > 1 and delays.shape[1] > 1 else delays
        parts.append(_Part(f"{name}.{k}.{incoming.source}", incoming, weight[:, columns], geometry, part_delays))
        start += width
    return parts


def _delays_to_itself(delays: Array, shape: Shape) -> Array:
    """Return the delays of a layer's spikes to itself: those of its neurons, or the one of all."""
    if delays.size == 1 or delays.shape[1] == 1:
        return delays
    raise UnsupportedError(
        f"delays that differ by input, on {shape[1]} inputs, leave open what delays its own spikes; give one a neuron"
    )


def _expand_groups(weight: Array, groups: int) -> Array:
    """Return the kernel (O, I, ...) of one group that computes what a grouped kernel does."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    wide = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
        wide[rows, columns] = weight[rows]
    return wide


def _add_part(state: ImportState, target: str, part: _Part, exponent: int) -> None:
    """Add the weights of a part, as one layer for each delay among them."""
    spread = np.broadcast_to(part.delays, part.weight.shape)
    for delay in np.unique(part.delays):
        label = part.label if part.delays.size == 1 else f"{part.label}.delay{delay}"
        weight = part.weight if part.delays.size == 1 else np.where(spread == delay, part.weight, 0)
        state.layers.append(Layer(name=label, synapse=replace(_make_synapse(weight, part.geometry), weight_exponent=exponent)))
        state.edges += [
            Edge(source=part.incoming.source, target=label, delay=part.incoming.delay + int(delay)),
            Edge(source=label, target=target),
        ]
