"""What does each layer emit in the next few steps?

A network advances by blocks of steps. Layers without a cycle run one after the other through all steps of a block, which turns
a synapse into one matrix product for all of its steps and samples; layers in a cycle run step by step together. Both give the
same spikes: a layer's step t needs only what its sources emitted at t or before. What edges with delay still need is kept from
one block to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import COUNTING_NEURONS, GRADED_NEURONS, Array, AvgPool, BatchNorm, Flatten, Layer, LoihiLIF, Scale
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import neurons, synapse_math

Places: TypeAlias = Mapping[tuple[str, str], Array]
"""Where a block's values go: arrays (K, B, *shape) by layer and one of "emitted", "v", "u"."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer, made ready to run.

    Attributes:
        layer, shape: and what it emits.
        sources: who feeds it, how many steps later.
        weigh: synapse and norm.
        dtype: of what it emits.
        memory: how many of its last steps are needed later.
    """

    layer: Layer
    shape: tuple[int, ...]
    sources: tuple[tuple[str, int], ...]
    weigh: synapse_math.Weigher
    dtype: type
    memory: int


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A network, made ready to run any number of samples: weights in the type of the products, layers in order.

    Attributes:
        graph: the network.
        groups: layers that depend on each other, sources first.
        dtype: of states and values that are not spikes.
        input_memory: how many of the input's last steps are needed later.
    """

    graph: SNNGraph
    groups: tuple[tuple[Row, ...], ...]
    dtype: type
    input_memory: int

    @property
    def rows(self) -> Iterator[Row]:
        """All layers, sources first."""
        return itertools.chain.from_iterable(self.groups)

    @property
    def largest(self) -> int:
        """Number of values of the largest layer, or of the input."""
        return max(int(np.prod(shape)) for shape in (self.graph.input_shape, *(row.shape for row in self.rows)))


def ready(graph: SNNGraph, dtype: type = np.float32) -> Ready:
    """Prepare a network; `dtype` is the type of a floating-point run.

    Raises:
        DataError: an integer network holds what is no whole number, or starts outside its states' bits.
    """
    dtype = np.int64 if graph.is_integer else dtype
    memory = {name: 0 for name in (INPUT, *(layer.name for layer in graph.layers))}
    for edge in graph.edges:
        memory[edge.source] = max(memory[edge.source], edge.delay)
    rows: dict[str, Row] = {}
    for layer in graph.layers:
        _check_start(layer)
        sources = tuple((edge.source, edge.delay) for edge in graph.incoming(layer.name))
        rows[layer.name] = Row(
            layer=layer,
            shape=graph.shape_of(layer.name),
            sources=sources,
            weigh=_integer_weigher(layer) if graph.is_integer else _weigher(layer, dtype),
            dtype=_emits(layer, sources, rows, dtype),
            memory=memory[layer.name],
        )
    groups = tuple(tuple(rows[layer.name] for layer in group) for group in evaluation_groups(graph))
    return Ready(graph=graph, groups=groups, dtype=dtype, input_memory=memory[INPUT])


def evaluation_groups(graph: SNNGraph) -> list[list[Layer]]:
    """Split the layers into cycles and single layers, sources first."""
    if not any(edge.delay for edge in graph.edges):
        return [[layer] for layer in graph.layers]
    import networkx

    order = {layer.name: i for i, layer in enumerate(graph.layers)}
    view = networkx.DiGraph([(edge.source, edge.target) for edge in graph.edges if edge.source != INPUT])
    view.add_nodes_from(order)
    condensed = networkx.condensation(view)
    groups = [sorted(condensed.nodes[n]["members"], key=order.__getitem__) for n in networkx.topological_sort(condensed)]
    return [[graph[name] for name in group] for group in groups]


class Stepper:
    """The state of a network and of one batch of samples, between two blocks of steps."""

    def __init__(self, network: Ready, batch: int) -> None:
        self.network, self.batch = network, batch
        self.states: dict[str, neurons.NeuronState] = {}
        self.kept: dict[str, Array] = {}
        """What was emitted before the block: (memory, B, *shape)."""
        self.blocks: dict[str, Array] = {}
        """What is emitted in the block, behind what was kept: (memory + K, B, *shape)."""
        graph = network.graph
        for row in network.rows:
            if row.layer.neuron is not None:
                self.states[row.layer.name] = neurons.start(row.layer.neuron, batch, row.shape, graph.dt_s, network.dtype)

    def advance(self, x: Array, places: Places) -> dict[str, Array]:
        """Run the steps of `x` (K, B, *input shape).

        Returns:
            (K, B, *shape) of the input and of what each layer emitted; valid until the next call.

        Raises:
            DataError: names the layer.
        """
        steps = len(x)
        self.blocks = {INPUT: self._opened(INPUT, self.network.input_memory, steps, x.dtype.type, x.shape[2:], x)}
        for group in self.network.groups:
            for row in group:
                place = places.get((row.layer.name, "emitted"))
                self.blocks[row.layer.name] = self._opened(row.layer.name, row.memory, steps, row.dtype, row.shape, place)
            alone = len(group) == 1 and all(source != group[0].layer.name for source, _ in group[0].sources)
            for block in [slice(0, steps)] if alone else [slice(t, t + 1) for t in range(steps)]:
                for row in group:
                    self._advance(row, block, places)
        return {name: self._closed(name, steps, places) for name in self.blocks}

    def _opened(self, name: str, memory: int, steps: int, dtype: type, shape: tuple[int, ...], given: Array | None) -> Array:
        """Return where a source's values of this block lie, behind those that are still needed."""
        if not memory and given is not None:
            return given
        full: Array = np.empty((memory + steps, self.batch, *shape), dtype)
        if memory:
            full[:memory] = self.kept[name] if name in self.kept else 0
            self.kept[name] = full[steps:]
        if name == INPUT:
            full[memory:] = given
        return full

    def _closed(self, name: str, steps: int, places: Places) -> Array:
        """Return a source's values of this block, and put them where they are wanted."""
        emitted = self.blocks[name][-steps:]
        place = places.get((name, "emitted"))
        if place is not None and self.blocks[name] is not place:
            place[...] = emitted
        return emitted

    def _advance(self, row: Row, block: slice, places: Places) -> None:
        """Run a layer through some steps of the block."""
        layer = row.layer
        arriving = self._arriving(row, block)
        try:
            drive = row.weigh(arriving.reshape(-1, *arriving.shape[2:]))
            drive = drive.reshape(*arriving.shape[:2], *row.shape)
            emitted = self.blocks[layer.name][row.memory + block.start : row.memory + block.stop]
            if layer.neuron is None:
                emitted[...] = drive
                return
            v, u = (None if place is None else place[block] for place in (places.get((layer.name, what)) for what in ("v", "u")))
            neurons.run(layer.neuron, self.states[layer.name], drive, emitted, v, u)
        except DataError as error:
            raise DataError(f"layer '{layer.name}': {error}") from None

    def _arriving(self, row: Row, block: slice) -> Array:
        """Sum what the edges of a layer bring: (steps, B, *shape)."""
        total: Array | None = None
        for source, delay in row.sources:
            values = self.blocks[source]
            first = self._memory(source) - delay
            value = values[first + block.start : first + block.stop]
            total = value if total is None else added(total, value, self.network.dtype)
        assert total is not None
        return total

    def _memory(self, name: str) -> int:
        return len(self.kept[name]) if name in self.kept else 0


def added(a: Array, b: Array, dtype: type) -> Array:
    """Add what two edges bring in `dtype`; an analogue current among integers keeps its fractions until its `Scale` rounds."""
    if np.issubdtype(dtype, np.integer) and "f" in (a.dtype.kind, b.dtype.kind):
        dtype = np.float64
    return np.add(a, b, dtype=dtype)


def normalised(norm: BatchNorm, y: Array) -> Array:
    """Apply batch normalisation with fixed statistics over axis 1, in the type of `y` and in torch's order."""
    spread = (-1, *(1 for _ in y.shape[2:]))
    scale = norm.weight.astype(y.dtype) / np.sqrt(norm.var.astype(y.dtype) + y.dtype.type(norm.eps))
    shift = norm.bias.astype(y.dtype) - norm.mean.astype(y.dtype) * scale
    return y * scale.reshape(spread) + shift.reshape(spread)


def _check_start(layer: Layer) -> None:
    if isinstance(layer.neuron, LoihiLIF) and (np.abs(layer.neuron.v_init) >= neurons.STATE_LIMIT).any():
        most, found = neurons.STATE_LIMIT - 1, layer.neuron.v_init
        raise DataError(
            f"layer '{layer.name}': v_init {found.min()}..{found.max()} given, a 24-bit state holds -{most}..{most}; change it"
        )


def _weigher(layer: Layer, dtype: type) -> synapse_math.Weigher:
    weigh, norm = synapse_math.weigher(layer.synapse, dtype=dtype), layer.norm
    if norm is None:
        return lambda x: weigh(x.astype(dtype, copy=False))
    return lambda x: normalised(norm, weigh(x.astype(dtype, copy=False)))


def _integer_weigher(layer: Layer) -> synapse_math.Weigher:
    if isinstance(layer.synapse, AvgPool) or layer.norm is not None:
        raise DataError(f"layer '{layer.name}': an integer network holds no mean and no batch norm; quantise it again")
    weigh = synapse_math.weigher(layer.synapse, integer=True)
    if isinstance(layer.synapse, Scale):
        return weigh

    def of_whole_numbers(x: Array) -> Array:
        synapse_math.check_whole(x)
        return weigh(x)

    return of_whole_numbers


def _emits(layer: Layer, sources: Sequence[tuple[str, int]], rows: Mapping[str, Row], dtype: type) -> type:
    """Return the type of what a layer emits; spikes that are only reshaped stay what they are."""
    if layer.spikes:
        return np.int64 if isinstance(layer.neuron, (*COUNTING_NEURONS, *GRADED_NEURONS)) else bool
    passes = layer.neuron is None and layer.norm is None and isinstance(layer.synapse, (Flatten, type(None)))
    if passes and len(sources) == 1 and sources[0][0] in rows:
        return rows[sources[0][0]].dtype
    return dtype


# FOLDED from spear_deploy/simulator/stepper.py
# What does the synapse of a layer give, from what the neurons before it emitted?
#
# The simulator goes through a network once; this asks for one layer alone: of a run whose spikes are known, be they Lava's, or
# those of the floating-point network that a layer was quantised from.


def value_of(graph: SNNGraph, name: str, emitted: Mapping[str, Array]) -> Array:
    """Return what a layer's synapse gives in every step: (T, B, *shape).

    Args:
        emitted: (T, B, *shape) of the input and of every layer with neurons before this one.

    Raises:
        DataError: analogue values reach weights that take whole numbers.
    """
    layer = graph[name]
    total: Array | None = None
    for edge in graph.incoming(name):
        neurons = edge.source == INPUT or graph[edge.source].neuron is not None
        value = delayed(emitted[edge.source] if neurons else value_of(graph, edge.source, emitted), edge.delay)
        total = value if total is None else added(total, value, np.int64)
    assert total is not None
    if not isinstance(layer.synapse, Scale):
        total = whole(total, name)
    steps, batch = total.shape[:2]
    flat = synapse_math.apply(layer.synapse, total.reshape(steps * batch, *total.shape[2:]), integer=True)
    return flat.reshape(steps, batch, *flat.shape[1:])


def whole(value: Array, name: str) -> Array:
    """Return whole numbers as integers (spikes stay bool).

    Raises:
        DataError: they are not whole.
    """
    if value.dtype.kind == "b":
        return value
    try:
        synapse_math.check_whole(value)
    except DataError as error:
        raise DataError(f"layer '{name}': {error}") from None
    return value.astype(np.int64)


def delayed(value: Array, delay: int) -> Array:
    """Shift (T, ...) by `delay` steps; what would come after the end is dropped.

    >>> delayed(np.array([1, 2, 3]), 1).tolist()
    [0, 1, 2]
    """
    if not delay:
        return value
    return np.concatenate([np.zeros_like(value[:delay]), value[:-delay]])[: len(value)]
