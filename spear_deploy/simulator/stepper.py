"""Execution of a prepared network by blocks of steps.

A network advances by blocks of steps. Layers without a cycle run one after the other through all steps of a block, which turns
a synapse into one matrix product for all of its steps and samples; layers in a cycle run step by step together. Both give the
same spikes: a layer's step t needs only what its sources emitted at t or before. Values that
edges with delay still need are kept from one block to the next. `synaptic_input` computes a single layer's input from a run
whose spikes are known, for example Lava's.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import (
    CONVS,
    GRADED_NEURONS,
    POOLS,
    WEIGHTED,
    Array,
    AvgPool,
    BatchNorm,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    find_drive,
    sends_several,
)
from spear_deploy.network.chip_neurons import Drive
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import neurons, sign_sums, synapse_math
from spear_deploy.util.times import timed_layer

Places: TypeAlias = Mapping[tuple[str, str], Array]
"""Destinations of a block's values: arrays (K, B, *shape) by layer and one of "emitted", "v", "u"."""


@dataclass(frozen=True, kw_only=True)
class PreparedLayer:
    """A layer with its weights in the type of the products.

    Attributes:
        layer, shape: the layer and its output shape.
        sources: name of each source, and the delay of its edge in steps.
        weigh: synapse and norm.
        dtype: type of its output.
        memory: number of its last steps that are needed later.
        by_sign: whether its neurons or those behind it take the sums of positive and of negative weights (`sign_sums`).
    """

    layer: Layer
    shape: tuple[int, ...]
    sources: tuple[tuple[str, int], ...]
    weigh: synapse_math.Weigher
    dtype: type
    memory: int
    by_sign: bool = False

    @property
    def packs_signs(self) -> bool:
        """Whether what it emits are packed sums."""
        return self.by_sign and self.layer.neuron is None


@dataclass(frozen=True, kw_only=True)
class PreparedNetwork:
    """A network that is prepared for any number of samples: weights in the type of the products, layers in order.

    Attributes:
        groups: layers that depend on each other, sources first.
        input_shape, dt_s: of the graph.
        dtype: of states and values that are not spikes.
        input_memory: number of the input's last steps that are needed later.
    """

    groups: tuple[tuple[PreparedLayer, ...], ...]
    input_shape: tuple[int, ...]
    dt_s: float
    dtype: type
    input_memory: int

    @property
    def layers(self) -> Iterator[PreparedLayer]:
        """All layers, sources first."""
        return itertools.chain.from_iterable(self.groups)

    @property
    def largest(self) -> int:
        """Number of values of the largest layer, or of the input."""
        return max(int(np.prod(shape)) for shape in (self.input_shape, *(layer.shape for layer in self.layers)))


MAX_KEPT_WEIGHTS = 1 << 24
"""Weights up to which a network stays prepared between runs; a larger one takes memory, and little of its run to prepare."""
_prepared: dict[tuple[int, type], PreparedNetwork] = {}
"""Prepared networks by the identity of their graph, as long as that lives."""


def prepare(graph: SNNGraph, dtype: type = np.float32) -> PreparedNetwork:
    """Prepare a network, once while the graph lives; `dtype` is the type of a floating-point run.

    Raises:
        DataError: an integer network holds a mean, a batch norm, or starts outside the bits of its states.
    """
    key = (id(graph), dtype)
    if key not in _prepared:
        network = _prepare(graph, dtype)
        if graph.weights > MAX_KEPT_WEIGHTS:
            return network
        _prepared[key] = network
        weakref.finalize(graph, _prepared.pop, key, None)
    return _prepared[key]


def _prepare(graph: SNNGraph, dtype: type) -> PreparedNetwork:
    dtype = np.int64 if graph.is_integer else dtype
    memory = {name: 0 for name in (INPUT, *(layer.name for layer in graph.layers))}
    for edge in graph.edges:
        memory[edge.source] = max(memory[edge.source], edge.delay)
    prepared: dict[str, PreparedLayer] = {}
    drives = {find_drive(layer.neuron) for layer in graph.layers}
    for layer in graph.layers:
        _check_start(layer)
        sources = tuple((edge.source, edge.delay) for edge in graph.edges_into(layer.name))
        prepared[layer.name] = PreparedLayer(
            layer=layer,
            shape=graph.shape_of(layer.name),
            sources=sources,
            weigh=_make_integer_weigher(layer, drives) if graph.is_integer else _make_float_weigher(layer, dtype),
            dtype=_output_type(layer, sources, prepared, dtype),
            memory=memory[layer.name],
            by_sign="signs" in drives,
        )
    groups = tuple(tuple(prepared[layer.name] for layer in group) for group in evaluation_groups(graph))
    return PreparedNetwork(groups=groups, input_shape=graph.input_shape, dt_s=graph.dt_s, dtype=dtype, input_memory=memory[INPUT])


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

    def __init__(self, network: PreparedNetwork, batch: int) -> None:
        self.network, self.batch = network, batch
        self.states: dict[str, neurons.NeuronState] = {}
        self.kept: dict[str, Array] = {}
        """Last outputs before the block: (memory, B, *shape)."""
        self.blocks: dict[str, Array] = {}
        """Outputs of the block behind the kept ones: (memory + K, B, *shape)."""
        self.waiting: frozenset[str] = frozenset()
        """Layers that have not started yet."""
        for prepared in network.layers:
            layer = prepared.layer
            if layer.neuron is not None:
                self.states[layer.name] = neurons.start(layer.neuron, batch, prepared.shape, network.dt_s, network.dtype)
            if isinstance(layer.synapse, Dense) and find_drive(layer.neuron) == "events":
                self.states[layer.name].constants["weight"] = layer.synapse.weight.astype(np.int64).T
        self._run_early_steps()

    def _run_early_steps(self) -> None:
        """Run layers that start before the network (`XyloLIF.early_steps`), without input."""
        early = {
            p.layer.name: getattr(p.layer.neuron, "early_steps", 0) for p in self.network.layers if p.layer.neuron is not None
        }
        quiet = np.zeros((1, self.batch, *self.network.input_shape), bool)
        for step in range(max(early.values(), default=0), 0, -1):
            self.waiting = frozenset(name for name, steps in early.items() if steps < step)
            self.advance(quiet, {})
        self.waiting = frozenset()

    def advance(self, x: Array, places: Places) -> dict[str, Array]:
        """Run the steps of `x` (K, B, *input shape).

        Returns:
            Outputs (K, B, *shape) of the input and of each layer; valid until the next call.

        Raises:
            DataError: names the layer.
        """
        steps = len(x)
        self.blocks = {INPUT: self._open_block(INPUT, self.network.input_memory, steps, x.dtype.type, x.shape[2:], x)}
        for group in self.network.groups:
            for prepared in group:
                name, place = prepared.layer.name, places.get((prepared.layer.name, "emitted"))
                self.blocks[name] = self._open_block(name, prepared.memory, steps, prepared.dtype, prepared.shape, place)
            alone = len(group) == 1 and all(source != group[0].layer.name for source, _ in group[0].sources)
            for block in [slice(0, steps)] if alone else [slice(t, t + 1) for t in range(steps)]:
                for prepared in group:
                    with timed_layer(prepared.layer.name):
                        self._advance_layer(prepared, block, places)
        return {name: self._close_block(name, steps, places) for name in self.blocks}

    def _open_block(self, name: str, memory: int, steps: int, dtype: type, shape: tuple[int, ...], place: Array | None) -> Array:
        """Return the array of a source's values in this block, behind the earlier ones that are still needed."""
        if not memory and place is not None:
            return place
        full: Array = np.empty((memory + steps, self.batch, *shape), dtype)
        if memory:
            full[:memory] = self.kept[name] if name in self.kept else 0
            self.kept[name] = full[steps:]
        if name == INPUT:
            full[memory:] = place
        return full

    def _close_block(self, name: str, steps: int, places: Places) -> Array:
        """Return a source's values of this block, and copy them to their place."""
        emitted = self.blocks[name][-steps:]
        place = places.get((name, "emitted"))
        if place is not None and self.blocks[name] is not place:
            place[...] = emitted
        return emitted

    def _advance_layer(self, prepared: PreparedLayer, block: slice, places: Places) -> None:
        """Run a layer through some steps of the block."""
        layer = prepared.layer
        if layer.name in self.waiting:
            self.blocks[layer.name][prepared.memory + block.start : prepared.memory + block.stop] = 0
            return
        try:
            x = self._sum_sources(prepared, block)
            drive = prepared.weigh(x.reshape(-1, *x.shape[2:]))
            drive = drive.reshape(*x.shape[:2], *drive.shape[1:])
            emitted = self.blocks[layer.name][prepared.memory + block.start : prepared.memory + block.stop]
            if layer.neuron is None:
                emitted[...] = drive
                return
            v, u = (None if place is None else place[block] for place in (places.get((layer.name, what)) for what in ("v", "u")))
            neurons.run(layer.neuron, self.states[layer.name], drive, emitted, v, u)
        except DataError as error:
            raise DataError(f"layer '{layer.name}': {error}") from None

    def _sum_sources(self, prepared: PreparedLayer, block: slice) -> Array:
        """Sum the values that the edges into a layer deliver: (steps, B, *shape)."""
        total: Array | None = None
        arriving = []
        for source, delay in prepared.sources:
            values = self.blocks[source]
            first = (len(self.kept[source]) if source in self.kept else 0) - delay
            arriving.append(values[first + block.start : first + block.stop])
        if prepared.by_sign and len(arriving) > 1:
            sign_sums.check_sums(arriving)
        for value in arriving:
            total = value if total is None else add_values(total, value, self.network.dtype)
        assert total is not None
        return total


def add_values(a: Array, b: Array, dtype: type) -> Array:
    """Add the values of two edges in `dtype`; an analogue current among integers keeps its fractions until its `Scale` rounds."""
    if np.issubdtype(dtype, np.integer) and "f" in (a.dtype.kind, b.dtype.kind):
        dtype = np.float64
    return np.add(a, b, dtype=dtype)


def apply_batchnorm(norm: BatchNorm, y: Array) -> Array:
    """Apply batch normalisation with fixed statistics over axis 1, in the type of `y` and in torch's order."""
    spread = (-1, *(1 for _ in y.shape[2:]))
    scale = norm.weight.astype(y.dtype) / np.sqrt(norm.var.astype(y.dtype) + y.dtype.type(norm.eps))
    shift = norm.bias.astype(y.dtype) - norm.mean.astype(y.dtype) * scale
    return y * scale.reshape(spread) + shift.reshape(spread)


def _check_start(layer: Layer) -> None:
    if isinstance(layer.neuron, LoihiLIF) and (np.abs(layer.neuron.v_init) >= neurons.STATE_LIMIT).any():
        largest, v = neurons.STATE_LIMIT - 1, layer.neuron.v_init
        raise DataError(
            f"layer '{layer.name}': v_init {v.min()}..{v.max()} given, a 24-bit state holds -{largest}..{largest}; change it"
        )


def _make_float_weigher(layer: Layer, dtype: type) -> synapse_math.Weigher:
    weigh, norm = synapse_math.make_weigher(layer.synapse, dtype=dtype), layer.norm
    if norm is None:
        return lambda x: weigh(x.astype(dtype, copy=False))
    return lambda x: apply_batchnorm(norm, weigh(x.astype(dtype, copy=False)))


def _make_integer_weigher(layer: Layer, drives: Collection[Drive]) -> synapse_math.Weigher:
    """Return the product of integers; `drives` are what the network's neurons take."""
    if isinstance(layer.synapse, AvgPool) or layer.norm is not None:
        raise DataError(f"layer '{layer.name}': an integer network holds no mean and no batch norm; quantise it again")
    synapse = layer.synapse
    try:
        if isinstance(synapse, (Dense, *CONVS)):
            synapse_math.require_whole_weights(synapse)
        if "signs" in drives:
            return sign_sums.make_weigher(synapse)
    except DataError as error:
        raise DataError(f"layer '{layer.name}': {error}") from None
    if "events" in drives:
        return _make_event_passer(layer)
    weigh = synapse_math.make_weigher(synapse, integer=True)
    if isinstance(synapse, Scale):
        return weigh

    def weigh_integers(x: Array) -> Array:
        synapse_math.check_whole(x)
        return weigh(x)

    return weigh_integers


def _make_event_passer(layer: Layer) -> synapse_math.Weigher:
    """Return the function that hands spikes on to neurons that take them one by one, with their weights.

    Raises:
        DataError: other layers than dense ones in front of their own neurons, a bias, or shifted sums.
    """
    synapse, name = layer.synapse, layer.name
    if isinstance(synapse, WEIGHTED) != (layer.neuron is not None) or not isinstance(synapse, (Dense, Flatten, *POOLS, NoneType)):
        what = "neurons without weights" if layer.neuron is not None and synapse is None else type(synapse).__name__
        raise DataError(f"layer '{name}': {what}, this chip takes spike by spike: Dense in front of its own neurons")
    if isinstance(synapse, Dense) and (synapse.weight_exponent or (synapse.bias is not None and synapse.bias.any())):
        raise DataError(f"layer '{name}': a bias or a weight_exponent, this chip takes spike by spike: weights alone; drop them")
    weigh = synapse_math.make_weigher(Flatten() if isinstance(synapse, Dense) else synapse)

    def pass_on(x: Array) -> Array:
        synapse_math.check_whole(x)
        if x.dtype.kind != "b" and x.min(initial=0) < 0:
            raise DataError(f"takes spikes, {x.min():g} arrives; give whole numbers from 0")
        return weigh(x)

    return pass_on


def _output_type(layer: Layer, sources: Sequence[tuple[str, int]], prepared: Mapping[str, PreparedLayer], dtype: type) -> type:
    """Return the type of a layer's output; spikes that are only reshaped keep theirs."""
    if layer.spikes:
        return np.int64 if sends_several(layer.neuron) or isinstance(layer.neuron, GRADED_NEURONS) else bool
    only_reshapes = layer.neuron is None and layer.norm is None and isinstance(layer.synapse, (Flatten, type(None)))
    if only_reshapes and len(sources) == 1 and sources[0][0] in prepared:
        return prepared[sources[0][0]].dtype
    return dtype


# ------------------------------------------------------------------------------------------------------- a single layer


def synaptic_input(graph: SNNGraph, name: str, emitted: Mapping[str, Array]) -> Array:
    """Return the output of a layer's synapse in every step of an integer network: (T, B, *shape).

    Args:
        emitted: (T, B, *shape) of the input and of every layer with neurons before this one.

    Raises:
        DataError: analogue values reach weights that take whole numbers.
    """
    layer = graph[name]
    total: Array | None = None
    for edge in graph.edges_into(name):
        is_known = edge.source == INPUT or graph[edge.source].neuron is not None
        value = apply_delay(emitted[edge.source] if is_known else synaptic_input(graph, edge.source, emitted), edge.delay)
        total = value if total is None else add_values(total, value, np.int64)
    assert total is not None
    if not isinstance(layer.synapse, Scale):
        total = to_integers(total, name)
    steps, batch = total.shape[:2]
    flat = synapse_math.apply_synapse(layer.synapse, total.reshape(steps * batch, *total.shape[2:]), integer=True)
    return flat.reshape(steps, batch, *flat.shape[1:])


def to_integers(value: Array, name: str) -> Array:
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


def apply_delay(value: Array, delay: int) -> Array:
    """Shift (T, ...) by `delay` steps; values after the end are dropped.

    >>> apply_delay(np.array([1, 2, 3]), 1).tolist()
    [0, 1, 2]
    """
    if not delay:
        return value
    return np.concatenate([np.zeros_like(value[:delay]), value[:-delay]])[: len(value)]
