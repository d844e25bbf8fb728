"""What lies on the chip? Neurons, and the synapses that reach them, as sizes.

A `Population` is a layer with neurons. A `Projection` is what spikes of one or more sources meet on their way to it: the
weights between two neuron layers, whichever rows of the graph they stand in. Pools and flattens between them are no
neurons of a chip of the Loihi family: a spike's synapse list reaches through them, so they are part of the projection
(a k × k convolution behind a p × p pool is a convolution with k·p × k·p positions). Only sizes are kept, no weights, so
that a narrower network can be tried without slicing arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import CONVS, POOLS, WEIGHTED, Array, Dense, Flatten, Layer, Scale, Shape, Synapse
from spear_deploy.pruning import all_groups

Kind: TypeAlias = Literal["dense", "conv", "one_to_one"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis of a convolution, with the pools before and behind it.

    Output position o takes the input positions `o · stride + tap − padding` in 0..used − 1. `used` is less than `inputs` where
    the last positions fill no whole window of a pool.
    """

    inputs: int
    outputs: int
    used: int
    taps: tuple[int, ...] = (0,)
    stride: int = 1
    padding: int = 0

    def then(self, outputs: int, taps: Sequence[int], stride: int, padding: int) -> Axis:
        """Return the axis followed by another one."""
        joined = sorted({a + b * self.stride for a in self.taps for b in taps})
        return Axis(
            inputs=self.inputs,
            outputs=outputs,
            used=min(self.used, (self.outputs - 1) * self.stride + max(self.taps) - self.padding + 1),
            taps=tuple(joined),
            stride=self.stride * stride,
            padding=self.padding + padding * self.stride,
        )

    def reached(self, start: int, stop: int) -> Array:
        """Say which input positions the output positions start..stop take: bool (inputs,)."""
        positions = (np.arange(start, stop)[:, None] * self.stride + np.array(self.taps) - self.padding).ravel()
        found = np.zeros(self.inputs, bool)
        found[positions[(positions >= 0) & (positions < self.used)]] = True
        return found


def plain_axis(n: int) -> Axis:
    """Return the axis on which each position takes itself."""
    return Axis(inputs=n, outputs=n, used=n)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A population (or `INPUT`) whose spikes take a projection, and how many steps they wait beyond the chip's own one."""

    name: str
    wait_steps: int


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Synapses between neuron layers.

    Attributes:
        layer: the layer that holds the weights.
        kind: "dense": each input its own weights to all targets; "conv": weights shared over positions; "one_to_one": one
            weight for each target.
        sources: whose spikes arrive.
        channels: input channels of a convolution; inputs of a dense layer, those in front of a pool included.
        outputs: output channels, or neurons.
        groups: of a convolution.
        axes: spatial axes of a convolution.
        plain: whether nothing but one weight per channel or neuron lies on the way.
        input_space, output_space: the pruning groups whose channels these are, or "".
    """

    layer: str
    kind: Kind
    sources: tuple[Source, ...]
    channels: int
    outputs: int
    groups: int = 1
    axes: tuple[Axis, ...] = ()
    plain: bool = False
    input_space: str = ""
    output_space: str = ""

    @property
    def wait_steps(self) -> int:
        """Longest wait of a spike."""
        return max((source.wait_steps for source in self.sources), default=0)

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return int(np.prod([len(axis.taps) for axis in self.axes], dtype=np.int64))

    @property
    def from_input(self) -> bool:
        """Whether only the network's input arrives."""
        return all(source.name == INPUT for source in self.sources)


@dataclass(frozen=True, kw_only=True)
class Population:
    """A layer's neurons: (C, H, W), (C, L) or (N,), before a flatten if one follows its weights."""

    name: str
    shape: Shape
    projections: tuple[Projection, ...]
    space: str = ""
    readout: bool = False

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_map(self) -> bool:
        """Whether positions share weights, so that a core takes a tile of the map."""
        return len(self.shape) > 1 and all(p.kind != "dense" for p in self.projections)

    @property
    def is_input_layer(self) -> bool:
        """Whether it only turns the network's input into spikes (netx's layer of type `input`)."""
        return all(p.from_input and p.plain for p in self.projections)


@dataclass(frozen=True, kw_only=True)
class _Path:
    """From a source to a population: the synapses on the way, in the order a spike meets them."""

    source: str
    wait_steps: int
    parts: tuple[tuple[str, Synapse], ...]


def populations(graph: SNNGraph) -> tuple[Population, ...]:
    """Return the neuron layers of a network with their synapses, in the graph's order.

    A network whose output is a weighted sum without neurons gets a readout that holds it, as on hardware.
    """
    groups = all_groups(graph)
    names = {layer: group.name for group in groups for layer in group.producers}
    input_names = {layer: group.name for group in groups for layer in group.consumers}
    found: list[Population] = []
    known: dict[str, str] = {}
    for layer in graph.layers:
        readout = layer.neuron is None and layer.name == graph.output and _has_weights_behind(graph, layer)
        if layer.neuron is None and not readout:
            continue
        population = _population(graph, layer, readout, names, input_names, known)
        known[layer.name] = population.space
        found.append(population)
    return tuple(found)


def narrowed(found: Sequence[Population], space: str, channels: int, left: int) -> tuple[Population, ...]:
    """Return the populations with `left` of the `channels` channels of a pruning group."""

    def less(n: int, here: str) -> int:
        return n * left // channels if here == space else n

    def thinner(p: Projection) -> Projection:
        depthwise = p.kind == "conv" and p.groups > 1 and p.groups == p.outputs
        outputs = less(p.outputs, p.output_space)
        return replace(p, channels=less(p.channels, p.input_space), outputs=outputs, groups=outputs if depthwise else p.groups)

    return tuple(
        replace(
            population,
            shape=(less(population.shape[0], population.space), *population.shape[1:]),
            projections=tuple(thinner(p) for p in population.projections),
        )
        for population in found
    )


# ------------------------------------------------------------------------------------------------------------ inside


def _has_weights_behind(graph: SNNGraph, layer: Layer, passed: tuple[str, ...] = ()) -> bool:
    if isinstance(layer.synapse, WEIGHTED):
        return True
    before = [graph[e.source] for e in graph.incoming(layer.name) if e.source not in (INPUT, layer.name, *passed)]
    return any(b.neuron is None and _has_weights_behind(graph, b, (*passed, layer.name)) for b in before)


def _population(
    graph: SNNGraph, layer: Layer, readout: bool, names: dict[str, str], input_names: dict[str, str], known: dict[str, str]
) -> Population:
    depth = graph.depths[layer.name] + readout
    grouped: dict[tuple[tuple[str, ...], int], list[_Path]] = {}
    for path in _paths(graph, layer.name, (), ()):
        wait = depth - graph.depths[path.source] + path.wait_steps - 1
        path = replace(path, wait_steps=wait)
        key = (tuple(name for name, _ in path.parts), wait) if path.parts else ((path.source,), wait)
        grouped.setdefault(key, []).append(path)
    projections = tuple(_projection(graph, layer.name, paths, names, input_names, known) for paths in grouped.values())
    shape = _map_shape(graph, layer, projections)
    space = next((p.output_space for p in projections if p.output_space), "")
    return Population(name=layer.name, shape=shape, projections=projections, space=space, readout=readout)


def _paths(graph: SNNGraph, name: str, behind: tuple[tuple[str, Synapse], ...], passed: tuple[str, ...]) -> Iterator[_Path]:
    """Follow the edges back to the neurons (or the input) whose spikes arrive; a loop without neurons is followed once."""
    synapse = graph[name].synapse
    parts = behind if synapse is None else ((name, synapse), *behind)
    for edge in graph.incoming(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            yield _Path(source=edge.source, wait_steps=edge.delay, parts=parts)
        elif edge.source not in passed:
            for path in _paths(graph, edge.source, parts, (*passed, name)):
                yield replace(path, wait_steps=path.wait_steps + edge.delay)


def _projection(
    graph: SNNGraph, target: str, paths: list[_Path], names: dict[str, str], input_names: dict[str, str], known: dict[str, str]
) -> Projection:
    sources = tuple(Source(name=path.source, wait_steps=path.wait_steps) for path in paths)
    source_shape = graph.shape_of(paths[0].source)
    own_space = known.get(paths[0].source, "")
    walk = _Walk(source_shape)
    weighted = ""
    for name, synapse in paths[0].parts:
        walk.pass_through(synapse, graph.input_shape_of(name), graph.shape_of(name))
        if isinstance(synapse, WEIGHTED):
            weighted = name
    mixes = bool(weighted) and not isinstance(graph[weighted].synapse, Scale)
    return Projection(
        layer=weighted or target,
        kind=walk.kind,
        sources=sources,
        channels=walk.channels,
        outputs=walk.outputs,
        groups=walk.groups,
        axes=tuple(walk.axes),
        plain=all(isinstance(synapse, (Scale, Flatten)) for _, synapse in paths[0].parts),
        input_space=input_names.get(weighted, "") if mixes else own_space,
        output_space=names.get(weighted, "") if mixes else own_space,
    )


class _Walk:
    """Joins the synapses on a path into one."""

    def __init__(self, shape: Shape) -> None:
        self.kind: Kind = "conv"
        self.channels = self.outputs = self.groups = shape[0]
        self.axes = [plain_axis(n) for n in shape[1:]]

    def pass_through(self, synapse: Synapse, before: Shape, after: Shape) -> None:
        """Add a synapse that takes `before` and gives `after`."""
        if isinstance(synapse, Flatten):
            return
        if isinstance(synapse, Dense):
            positions = [int(axis.reached(0, axis.outputs).sum()) for axis in self.axes]
            self.channels *= int(np.prod(positions, dtype=np.int64))
            self.kind, self.outputs, self.groups, self.axes = "dense", after[0], 1, []
        elif isinstance(synapse, CONVS):
            kernel = synapse.weight.shape[2:]
            taps = [[d * j for j in range(k)] for k, d in zip(kernel, synapse.dilation, strict=True)]
            self._extend(after, taps, synapse.stride, synapse.padding)
            self.outputs, self.groups = after[0], synapse.groups
        elif isinstance(synapse, POOLS):
            windows = [list(range(k)) for k in synapse.kernel_size]
            padding = synapse.padding if isinstance(synapse.padding, tuple) else (synapse.padding,) * len(windows)
            self._extend(after, windows, synapse.stride or synapse.kernel_size, padding)
        elif isinstance(synapse, Scale) and synapse.weight.size > 1 and synapse.weight.size != before[0]:
            self.kind = "one_to_one"

    def _extend(self, after: Shape, taps: list[list[int]], stride: Shape, padding: Shape) -> None:
        self.axes = [axis.then(n, t, s, p) for axis, n, t, s, p in zip(self.axes, after[1:], taps, stride, padding, strict=True)]


def _map_shape(graph: SNNGraph, layer: Layer, projections: Sequence[Projection]) -> Shape:
    """Return the shape in which positions share weights: a flatten behind the weights changes nothing on the chip."""
    maps = {(p.outputs, *(axis.outputs for axis in p.axes)) for p in projections if p.kind != "dense"}
    if len(maps) == 1 and all(p.kind != "dense" for p in projections):
        return maps.pop()
    return graph.shape_of(layer.name)
