"""Spiking network as a graph of layers and edges with delays.

`SNNGraph` is the representation that all stages share: importers return it, pruning and quantisation map it to another one,
and simulators and exporters take it. It is immutable and numpy only.

    input ──► layer ──► layer ──► output          an edge delivers what its source emits in the same step
                │  ▲                              an edge with delay d delivers what was emitted d steps ago
                └──┘                              a cycle is closed by an edge of delay 1 or more
    Several edges into a layer add up before its synapse; currents of several synapses add up in a layer that has only
    a neuron. Residual sums, skips and recurrence need no other element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.errors import GraphError, did_you_mean
from spear_deploy.network import (
    INTEGER_NEURONS,
    WEIGHTED,
    Dense,
    Flatten,
    Layer,
    Shape,
    SumPool,
    Weights,
    store_compactly,
    write_out,
)
from spear_deploy.network.sparse_matrix import LEARNING_COPIES, SparseMatrix
from spear_deploy.util.number_format import format_shape

if TYPE_CHECKING:
    import networkx

INPUT = "input"
"""The name of the network's input as the source of an edge."""
MAX_DELAY = 1 << 16
"""Longest delay of an edge in steps: a simulator keeps as many steps of its source. Chips have 62 at most."""
MAX_LAYERS, MAX_EDGES = 10_000, 20_000
"""Numbers of layers and edges beyond those of any network for a chip."""


@dataclass(frozen=True, kw_only=True, order=True)
class Edge:
    """`source` feeds `target`, `delay` steps later (0: in the same step)."""

    source: str
    target: str
    delay: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.delay <= MAX_DELAY or int(self.delay) != self.delay:
            steps = f"a whole number of steps from 0 to {MAX_DELAY}"
            raise GraphError(f"edge '{self.source}' -> '{self.target}': delay {self.delay}, expected {steps}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SNNGraph:
    """A spiking network.

    Attributes:
        layers: sorted by the edges without delay; the constructor takes any order.
        edges: connections between layers; `INPUT` is the source of the network's input.
        input_shape: without time and batch, e.g. (1, 8, 8).
        dt_s: the time step in seconds.
        output: the layer whose emission is the network's output; by default the last layer.
        metadata: JSON-able facts that travel with the network (assumptions of an import, kept channels, scales).

    Raises:
        GraphError: unknown names, a cycle without delay, shapes that do not match, NaN.
    """

    layers: tuple[Layer, ...]
    edges: tuple[Edge, ...]
    input_shape: Shape
    dt_s: float = 1e-3
    output: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "input_shape", tuple(int(n) for n in self.input_shape))
        if not self.input_shape or min(self.input_shape) < 1:
            raise GraphError(f"input shape {self.input_shape}: expected at least one axis, each of at least 1")
        if not (np.isfinite(self.dt_s) and self.dt_s > 0):
            raise GraphError(f"dt_s: {self.dt_s} given, a time step is above 0 s")
        if not self.layers:
            raise GraphError("the network has no layer; expected at least one")
        if len(self.layers) > MAX_LAYERS or len(self.edges) > MAX_EDGES:
            size = f"{len(self.layers)} layers and {len(self.edges)} edges"
            raise GraphError(f"the network has {size}, at most {MAX_LAYERS} and {MAX_EDGES}; merge layers, or split the network")
        names = [layer.name for layer in self.layers]
        for name, uses in Counter(names).items():
            if uses > 1:
                raise GraphError(f"layer '{name}': the name is used {uses} times; rename all but one")
        self._check_edges(names)
        set_field(self, "edges", tuple(sorted(set(self.edges))))
        set_field(self, "layers", self._sort_layers())
        set_field(self, "output", self.output or self.layers[-1].name)
        if self.output not in names:
            raise GraphError(f"output '{self.output}': no such layer{did_you_mean(self.output, names)}")
        formats = {type(n) if isinstance(n, INTEGER_NEURONS) else float for n in (layer.neuron for layer in self.layers) if n}
        if float in formats and len(formats) > 1:
            raise GraphError("integer and floating-point neurons are mixed; quantise the whole network or none of it")
        if len(formats) > 1:
            names_of_formats = " and ".join(sorted(kind.__name__ for kind in formats))
            raise GraphError(f"integers of several chips are mixed ({names_of_formats}); quantise the network for one chip")
        set_field(self, "_shapes", self._infer_shapes())

    def _check_edges(self, names: list[str]) -> None:
        known = set(names)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in known and not (end == INPUT and end == edge.source):
                    hint = did_you_mean(end, names)
                    raise GraphError(f"edge '{edge.source}' -> '{edge.target}': there is no layer '{end}'{hint}")
        targets = {edge.target for edge in self.edges}
        for name in names:
            if name not in targets:
                raise GraphError(f"layer '{name}': nothing feeds it; add an edge to it or remove it")

    def _sort_layers(self) -> tuple[Layer, ...]:
        """Order by the edges without delay; otherwise keep their order."""
        places = {layer.name: place for place, layer in enumerate(self.layers)}
        sources = [{e.source for e in self.edges_into(layer.name) if not e.delay} - {INPUT} for layer in self.layers]
        left = [len(names) for names in sources]
        ready = [place for place, count in enumerate(left) if not count]
        order: list[Layer] = []
        while ready:
            layer = self.layers[heappop(ready)]
            order.append(layer)
            for target in {e.target for e in self.edges_from(layer.name) if not e.delay}:
                left[places[target]] -= 1
                if not left[places[target]]:
                    heappush(ready, places[target])
        if len(order) < len(self.layers):
            names = ", ".join(f"'{layer.name}'" for layer in self.layers if left[places[layer.name]])
            raise GraphError(f"layers {names}: they feed each other within one step; close the cycle with an edge of delay 1")
        return tuple(order)

    def _infer_shapes(self) -> dict[str, tuple[Shape, Shape]]:
        """Return (input shape, output shape) by layer; sources over delayed edges may come later in the order."""
        places = {layer.name: place for place, layer in enumerate(self.layers)}
        shapes: dict[str, tuple[Shape, Shape]] = {}
        emitted: dict[str, Shape] = {INPUT: self.input_shape}
        ready = sorted({places[edge.target] for edge in self.edges_from(INPUT)})
        queued = set(ready)
        while ready:
            layer = self.layers[heappop(ready)]
            source = next(edge.source for edge in self.edges_into(layer.name) if edge.source in emitted)
            emitted[layer.name] = layer.output_shape(emitted[source])
            shapes[layer.name] = (emitted[source], emitted[layer.name])
            for place in {places[edge.target] for edge in self.edges_from(layer.name)} - queued:
                queued.add(place)
                heappush(ready, place)
        for layer in self.layers:
            if layer.name not in shapes:
                raise GraphError(f"layer '{layer.name}': the network's input does not reach it; connect or remove it")
        for edge in self.edges:
            if emitted[edge.source] != shapes[edge.target][0]:
                raise GraphError(
                    f"layers '{edge.source}' -> '{edge.target}': {format_shape(emitted[edge.source])} outputs meet "
                    f"{format_shape(shapes[edge.target][0])} inputs; check what lies between them"
                )
        return shapes

    # ------------------------------------------------------------------------------------------------------- reading

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def __getitem__(self, name: str) -> Layer:
        """Return the layer called `name`."""
        if name not in self._by_name:
            raise GraphError(f"layer '{name}': there is no such layer{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    @cached_property
    def _edges_by_end(self) -> tuple[dict[str, tuple[Edge, ...]], dict[str, tuple[Edge, ...]]]:
        by_source: dict[str, list[Edge]] = {}
        by_target: dict[str, list[Edge]] = {}
        for edge in self.edges:
            by_source.setdefault(edge.source, []).append(edge)
            by_target.setdefault(edge.target, []).append(edge)
        return {k: tuple(v) for k, v in by_source.items()}, {k: tuple(v) for k, v in by_target.items()}

    def edges_into(self, name: str) -> tuple[Edge, ...]:
        """Return the edges into a layer."""
        return self._edges_by_end[1].get(name, ())

    def edges_from(self, name: str) -> tuple[Edge, ...]:
        """Return the edges out of a layer, or out of `INPUT`."""
        return self._edges_by_end[0].get(name, ())

    def input_shape_of(self, name: str) -> Shape:
        """Return the shape of a layer's input."""
        shapes: dict[str, tuple[Shape, Shape]] = self._shapes  # type: ignore[attr-defined]
        return shapes[name][0]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of what a layer emits (or of the input)."""
        shapes: dict[str, tuple[Shape, Shape]] = self._shapes  # type: ignore[attr-defined]
        return self.input_shape if name == INPUT else shapes[name][1]

    @cached_property
    def is_integer(self) -> bool:
        """Whether the neurons are a chip's integers."""
        return any(isinstance(layer.neuron, INTEGER_NEURONS) for layer in self.layers)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Return by layer how many steps later it acts on hardware that delivers one step later per connection.

        These are the neuron layers on the longest path from the input to and including the layer, less the delays on it (a
        weighted layer without a neuron is a connection of the neuron that follows, not a step of its own). A loop with fewer
        steps of delay than neuron layers, which such hardware cannot run, counts without its edges of delay.
        """
        depths = self._solve_depths(self.edges)
        if depths is None:
            depths = self._solve_depths([e for e in self.edges if not e.delay or not self.leads_to(e.target, e.source)])
        assert depths is not None, "the edges without delay are sorted"
        return depths

    def _solve_depths(self, edges: Iterable[Edge]) -> dict[str, int] | None:
        """Return the smallest depths at which nothing arrives too late; None where a loop has none."""
        into: dict[str, list[Edge]] = {layer.name: [] for layer in self.layers}
        for edge in edges:
            into[edge.target].append(edge)
        depths = {INPUT: 0, **dict.fromkeys(into, 0)}
        for _ in range(2 + sum(edge.delay > 0 for each in into.values() for edge in each)):  # a path takes each at most once
            before = dict(depths)
            for layer in self.layers:
                reached = max([0, *(depths[edge.source] - edge.delay for edge in into[layer.name])])
                depths[layer.name] = reached + (layer.neuron is not None)
            if depths == before:
                return depths
        return None

    def leads_to(self, start: str, end: str) -> bool:
        """Return whether what leaves a layer reaches another, or the two are one."""
        waiting, seen = [start], {start}
        while waiting:
            here = waiting.pop()
            if here == end:
                return True
            after = {edge.target for edge in self.edges_from(here)} - seen
            seen |= after
            waiting += after
        return False

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(int(np.prod(self.shape_of(layer.name))) for layer in self.layers if layer.neuron is not None)

    @property
    def weights(self) -> int:
        """Number of stored weights, zeros included."""
        return sum(layer.synapse.weight.size for layer in self.layers if isinstance(layer.synapse, WEIGHTED))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SNNGraph):
            return NotImplemented
        names = ("layers", "edges", "input_shape", "dt_s", "output")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return one line without weights, for notebooks and lists."""
        return f"SNNGraph({str(self).replace(chr(10), '; ')})"

    def __str__(self) -> str:
        lines = [f"input {format_shape(self.input_shape)}, dt {self.dt_s:g} s"]
        for layer in self.layers:
            parts = [type(p).__name__ for p in (layer.synapse, layer.norm, layer.neuron) if p is not None]
            sources = ", ".join(e.source + (f" (delay {e.delay})" if e.delay else "") for e in self.edges_into(layer.name))
            lines.append(f"{layer.name}: {sources} -> {' + '.join(parts) or 'sum'} -> {format_shape(self.shape_of(layer.name))}")
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------------ changing

    def with_layers(self, layers: Mapping[str, Layer] | Callable[[Layer], Layer], **changes: Any) -> SNNGraph:
        """Return the graph with layers exchanged by name, or mapped by a function (names must stay)."""
        change = layers if callable(layers) else lambda layer: layers.get(layer.name, layer)
        return replace(self, layers=tuple(change(layer) for layer in self.layers), **changes)

    def with_full_weights(self) -> SNNGraph:
        """Return the graph with sparse weights written out, for learning.

        Raises:
            GraphError: they do not fit the free memory as often as learning needs them.
        """
        self.require_learning_room()
        return self._with_weights(partial(write_out, copies=LEARNING_COPIES))

    def require_learning_room(self) -> None:
        """Refuse a network whose sparse weights, written out for learning, do not fit the free memory; nothing is written out.

        Raises:
            GraphError: names the layer.
        """
        for layer in self.layers:
            if isinstance(layer.synapse, Dense) and isinstance(layer.synapse.weight, SparseMatrix):
                try:
                    layer.synapse.weight.require_room(LEARNING_COPIES)
                except GraphError as error:
                    raise GraphError(f"layer '{layer.name}': learning with {error}") from None

    def with_compact_weights(self) -> SNNGraph:
        """Return the graph with large weights sparse where few of them are not zero; see `store_compactly`."""
        return self._with_weights(store_compactly)

    def _with_weights(self, change: Callable[[Weights], Weights]) -> SNNGraph:
        changes = {}
        for layer in self.layers:
            if isinstance(layer.synapse, Dense) and (weight := change(layer.synapse.weight)) is not layer.synapse.weight:
                changes[layer.name] = replace(layer, synapse=replace(layer.synapse, weight=weight))
        return self.with_layers(changes) if changes else self

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Return a networkx view: nodes carry `layer` and `shape`, edges carry `delay`."""
        import networkx

        view = networkx.MultiDiGraph(input_shape=self.input_shape, dt_s=self.dt_s, output=self.output)
        view.add_node(INPUT, layer=None, shape=self.input_shape)
        for layer in self.layers:
            view.add_node(layer.name, layer=layer, shape=self.shape_of(layer.name))
        for edge in self.edges:
            view.add_edge(edge.source, edge.target, delay=edge.delay)
        return view


def chain(
    layers: Iterable[Layer], *, input_shape: Shape, dt_s: float = 1e-3, metadata: Mapping[str, Any] | None = None
) -> SNNGraph:
    """Return the graph in which each layer feeds the next.

    >>> from spear_deploy.network import Dense, IF
    >>> print(chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,)))
    input 3, dt 0.001 s
    fc: input -> Dense + IF -> 2
    """
    layers = tuple(layers)
    names = [INPUT, *(layer.name for layer in layers)]
    edges = tuple(Edge(source=a, target=b) for a, b in pairwise(names))
    return SNNGraph(layers=layers, edges=edges, input_shape=input_shape, dt_s=dt_s, metadata=metadata or {})


def unused_name(base: str, taken: Collection[str]) -> str:
    """Return a name for a new layer: `base`, or `base_2`, `base_3`, ... where it is taken."""
    return next(name for name in (base, *(f"{base}_{k}" for k in range(2, len(taken) + 3))) if name not in taken)


def merge_parts(graph: SNNGraph) -> SNNGraph:
    """Return the same network with fewer layers: a synapse, its norm and its neuron become one layer, named after the neuron.

    Two layers merge where the first has no neuron, feeds only the second without delay, and the second has no part
    that the first would come after. A `Flatten` in front of a `Dense` goes, since `Dense` flattens.
    """
    return _merge_layers(graph)[0]


def find_heirs(graph: SNNGraph) -> dict[str, str]:
    """Return, for each layer of a network, the layer of `merge_parts` that holds its parts."""
    heirs = _merge_layers(graph)[1]
    return {layer.name: heirs.get(layer.name, layer.name) for layer in graph.layers}


def _merge_layers(graph: SNNGraph) -> tuple[SNNGraph, dict[str, str]]:
    layers = {layer.name: layer for layer in graph.layers}
    heirs: dict[str, str] = {}
    for name in [layer.name for layer in graph.layers]:
        out = graph.edges_from(name)
        if layers[name].neuron is not None or len(out) != 1 or out[0].delay or name == graph.output:
            continue
        after = out[0].target
        merged = _merge_pair(layers[name], layers[after]) if len(graph.edges_into(after)) == 1 else None
        if merged is not None:
            heirs[name], layers[after] = after, merged
            del layers[name]
    for name in reversed(heirs):  # an heir has its own heir, which comes later
        heirs[name] = heirs.get(heirs[name], heirs[name])
    edges = tuple(replace(e, target=heirs.get(e.target, e.target)) for e in graph.edges if e.source not in heirs)
    return replace(graph, layers=tuple(layers.values()), edges=edges) if heirs else graph, heirs


def _merge_pair(first: Layer, second: Layer) -> Layer | None:
    synapse, norm = first.synapse, first.norm
    if isinstance(synapse, Flatten) and norm is None and second.synapse is not None:
        return second if type(second.synapse).__name__ == "Dense" else None
    if second.synapse is not None:
        return second if synapse is None and norm is None else None
    if norm is not None and second.norm is not None:
        return None
    if isinstance(synapse, SumPool) and second.norm is not None:
        return None
    return Layer(name=second.name, synapse=synapse, norm=norm or second.norm, neuron=second.neuron)
