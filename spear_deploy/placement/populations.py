"""Populations of neurons with their projections, fan-in and fan-out.

A `Population` is a layer with neurons. A `Projection` holds the synapses from one or more sources to it: the weights between
two neuron layers, whichever layers of the graph hold them. Only sizes are kept, and where a chip counts them which weights
are not zero, so that a narrower network can be checked without slicing arrays.

Fan-in and fan-out are exact: borders, strides and zero weights included. The counts of a convolution factor into its axes, so
no synapse is listed: a map of 10^8 synapses takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import islice

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Array, Dense, Flatten, Layer, Scale, Shape, Synapse, Weights
from spear_deploy.network.channel_groups import ChannelCoupling, couple_channels
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.spike_paths import find_loops_without_neurons
from spear_deploy.placement.compose_projections import ProjectionBuilder, merge_delay_splits
from spear_deploy.placement.projections import Projection, SpikeSource, drop_single_positions

SIGMA_DELTA = "SigmaDelta"


@dataclass(frozen=True, kw_only=True)
class Population:
    """A layer's neurons: (C, H, W), (C, L) or (N,), before a flatten if one follows its weights.

    Attributes:
        projections: the synapses of the network.
        merged: on chips with one weight from a neuron to another, its projections with the ways from each source as one
            (`chip_populations`); () where each way stays as it is.
        channel_group: the group of coupled channels (`channel_groups.Group`) that its channels belong to, or "".
        readout: whether it stands for a weighted sum at the network's output, a layer without neurons in the graph.
        output: whether it is the network's output.
        biased: whether each channel (or neuron) has a bias.
        depth: steps after the input at which it acts (`SNNGraph.depths`).
    """

    name: str
    shape: Shape
    projections: tuple[Projection, ...]
    channel_group: str = ""
    readout: bool = False
    output: bool = False
    biased: bool = False
    merged: tuple[Projection, ...] = ()
    depth: int = 0

    @property
    def synapses(self) -> tuple[Projection, ...]:
        """The projections by which synapses are counted: of two ways between two neurons one, where the chip adds them."""
        return self.merged or self.projections

    @cached_property
    def without_zeros(self) -> Population:
        """The same neurons where no weight is 0: no box needs more."""
        projections, merged = (tuple(replace(p, nonzero=None) for p in held) for held in (self.projections, self.merged))
        return replace(self, projections=projections, merged=merged)

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_map(self) -> bool:
        """Whether positions share weights, so that a core takes a tile of the map."""
        return len(self.shape) > 1 and all(p.kind != "dense" for p in self.projections)

    @cached_property
    def is_input_layer(self) -> bool:
        """Whether it only converts the network's input to spikes (netx's layer of type `input`)."""
        return all(p.from_input and p.is_elementwise for p in self.projections)


@dataclass(frozen=True, kw_only=True)
class _Path:
    """A path from a source to a population.

    Attributes:
        synapses: (layer, synapse) from the source to the population.
    """

    source: str
    delay_steps: int
    synapses: tuple[tuple[str, Synapse], ...]
    async_delay_steps: int = 0


MAX_WAYS = 4096
"""Ways from neurons to a layer through layers without neurons: k diamonds in a row make 2^k."""


def find_populations(graph: SNNGraph, *, zeros: bool = False, fewest: bool = False) -> tuple[Population, ...]:
    """Return the neuron layers of a network with their synapses, in the graph's order.

    A network whose output is a weighted sum without neurons gets a readout that holds it, as on hardware. A layer that only
    converts the input to spikes of sigma-delta layers is no population: the host sends the differences.

    Args:
        graph: the network.
        zeros: also find which weights are not zero (`Projection.nonzero`).
        fewest: the fewest synapses that there may be, where those that weights of 0 stop are not counted one by one: of a map
            with zeros at some places, of a kernel with zeros that pads behind windows that overlap.
    """
    coupled = couple_channels(graph)
    populations: list[Population] = []
    outputs = set(_output_layers(graph, graph.output, ()))
    ways = _Ways(graph)
    for layer in graph.layers:
        readout = layer.name == graph.output and ends_in_weighted_sum(graph)
        if layer.neuron is None and not readout:
            continue
        population = _population(graph, layer, readout, coupled, ways, zeros=zeros, fewest=fewest)
        populations.append(replace(population, output=layer.name in outputs))
    return _drop_encoders(graph, populations)


def ends_in_weighted_sum(graph: SNNGraph) -> bool:
    """Return whether a network's output is a weighted sum that no neuron takes."""
    layer = graph[graph.output]
    return layer.neuron is None and _has_weights_behind(graph, layer)


def narrow_populations(populations: Sequence[Population], group: str, channels: int, left: int) -> tuple[Population, ...]:
    """Return the populations with `left` of the `channels` channels of a group of coupled channels."""

    def narrow(population: Population) -> Population:
        projections = tuple(p.narrow(group, channels, left) for p in population.projections)
        merged = tuple(p.narrow(group, channels, left) for p in population.merged)
        if population.channel_group == group:
            shape = (population.shape[0] * left // channels, *population.shape[1:])
            return replace(population, shape=shape, projections=projections, merged=merged)
        same = all(a is b for a, b in zip((*projections, *merged), (*population.projections, *population.merged), strict=True))
        return population if same else replace(population, projections=projections, merged=merged)

    return tuple(narrow(population) for population in populations)


def _has_weights_behind(graph: SNNGraph, layer: Layer, passed: tuple[str, ...] = ()) -> bool:
    if isinstance(layer.synapse, WEIGHTED):
        return True
    before = [graph[e.source] for e in graph.edges_into(layer.name) if e.source not in (INPUT, layer.name, *passed)]
    return any(b.neuron is None and _has_weights_behind(graph, b, (*passed, layer.name)) for b in before)


def _output_layers(graph: SNNGraph, name: str, passed: tuple[str, ...]) -> Iterator[str]:
    """Find the neuron layers whose emission is the network's output, through rows that only reshape, pool or add."""
    layer = graph[name]
    if layer.neuron is not None or _has_weights_behind(graph, layer):
        yield name
    if layer.neuron is None:
        for edge in graph.edges_into(name):
            if edge.source not in (INPUT, *passed) and not isinstance(layer.synapse, WEIGHTED):
                yield from _output_layers(graph, edge.source, (*passed, name))


def _drop_encoders(graph: SNNGraph, populations: list[Population]) -> tuple[Population, ...]:
    """Drop the input layers that feed sigma-delta layers only: the host computes their output."""
    models = {layer.name: type(layer.neuron).__name__ for layer in graph.layers}
    input_layers = [p.name for p in populations if p.is_input_layer]
    targets = {
        name: [q.name for q in populations for r in q.projections if name in [s.name for s in r.sources]] for name in input_layers
    }
    encoders = {name for name in input_layers if targets[name]}
    encoders = {name for name in encoders if all(models[target] == SIGMA_DELTA for target in targets[name])}
    if not encoders:
        return tuple(populations)

    def from_host(p: Projection) -> Projection:
        sources = tuple(replace(s, name=INPUT) if s.name in encoders else s for s in p.sources)
        return replace(p, sources=sources)

    return tuple(
        replace(p, projections=tuple(from_host(q) for q in p.projections)) for p in populations if p.name not in encoders
    )


def _population(
    graph: SNNGraph, layer: Layer, readout: bool, coupled: ChannelCoupling, ways: _Ways, *, zeros: bool, fewest: bool
) -> Population:
    depth = graph.depths[layer.name] + readout
    grouped: dict[tuple[tuple[str, ...], int], list[_Path]] = {}
    for path in ways.find(layer.name):
        delay = depth - graph.depths[path.source] + path.delay_steps - 1
        is_loop = graph.depths[path.source] >= depth and graph.leads_to(layer.name, path.source)
        path = replace(path, delay_steps=delay, async_delay_steps=max(0, path.delay_steps - is_loop))
        key = (tuple(name for name, _ in path.synapses) or (path.source,), delay)
        grouped.setdefault(key, []).append(path)
    built = [_projection(graph, layer.name, paths, coupled, zeros=zeros, fewest=fewest) for paths in grouped.values()]
    projections = _match_axes(merge_delay_splits(graph, built))
    passed = {name for paths in grouped.values() for path in paths for name, _ in path.synapses}
    return Population(
        name=layer.name,
        shape=_map_shape(graph, layer, projections),
        projections=projections,
        channel_group=coupled.out[layer.name],
        readout=readout,
        biased=any(_has_bias(graph[name]) for name in {layer.name, *passed}),
        depth=depth,
    )


def _has_bias(layer: Layer) -> bool:
    """Return whether a layer adds a constant: a bias of its weights, a batch norm, an integer neuron's bias."""
    neuron_bias = getattr(layer.neuron, "bias", None)
    has_neuron_bias = neuron_bias is not None and bool(np.any(neuron_bias))
    return getattr(layer.synapse, "bias", None) is not None or layer.norm is not None or has_neuron_bias


class _Ways:
    """The ways to layers from the neurons (or the input) whose spikes arrive, through layers without neurons.

    They are counted before any is listed, and the list of a layer without neurons is made once for all layers that it feeds.
    """

    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.has_loops = bool(find_loops_without_neurons(graph))
        self.counts: dict[str, int] = {}
        self.lists: dict[str, tuple[_Path, ...]] = {}
        for name in () if self.has_loops else self._order():
            self.counts[name] = sum(self._count(edge.source) for edge in graph.edges_into(name))
            if graph[name].neuron is None and self.counts[name] <= MAX_WAYS:
                self.lists[name] = tuple(self._extend(name))

    def find(self, name: str) -> list[_Path]:
        """Return the ways to a layer.

        Raises:
            UnsupportedError: there are more than `MAX_WAYS`.
        """
        if self.has_loops:
            ways = list(islice(self._follow(name, (), ()), MAX_WAYS + 1))
            count = len(ways)
        else:
            count = self.counts[name]
            ways = [] if count > MAX_WAYS else list(self.lists[name] if name in self.lists else self._extend(name))
        if count > MAX_WAYS:
            raise UnsupportedError(
                f"layer '{name}': more than {MAX_WAYS} ways lead to it through layers without neurons; put a neuron where "
                "ways meet"
            )
        return ways

    def _order(self) -> Iterable[str]:
        """Return the layers, each behind those without neurons that feed it: over a delay these may stand later in the graph."""
        feeding = {
            layer.name: [edge.source for edge in self.graph.edges_into(layer.name) if not self._starts(edge.source)]
            for layer in self.graph.layers
        }
        return TopologicalSorter(feeding).static_order()

    def _starts(self, name: str) -> bool:
        """Return whether ways begin at a source of an edge."""
        return name == INPUT or self.graph[name].neuron is not None

    def _count(self, source: str) -> int:
        return 1 if self._starts(source) else self.counts[source]

    def _extend(self, name: str) -> Iterator[_Path]:
        """Return the ways to a layer, made of those to the layers without neurons that feed it."""
        synapse = self.graph[name].synapse
        last = () if synapse is None else ((name, synapse),)
        for edge in self.graph.edges_into(name):
            if self._starts(edge.source):
                yield _Path(source=edge.source, delay_steps=edge.delay, synapses=last)
                continue
            for path in self.lists[edge.source]:
                yield _Path(source=path.source, delay_steps=path.delay_steps + edge.delay, synapses=path.synapses + last)

    def _follow(self, name: str, behind: tuple[tuple[str, Synapse], ...], passed: tuple[str, ...]) -> Iterator[_Path]:
        """Follow the edges back; a loop without neurons is followed once."""
        synapse = self.graph[name].synapse
        synapses = behind if synapse is None else ((name, synapse), *behind)
        for edge in self.graph.edges_into(name):
            if self._starts(edge.source):
                yield _Path(source=edge.source, delay_steps=edge.delay, synapses=synapses)
            elif edge.source not in passed:
                for path in self._follow(edge.source, synapses, (*passed, name)):
                    yield replace(path, delay_steps=path.delay_steps + edge.delay)


def _projection(
    graph: SNNGraph, target: str, paths: list[_Path], coupled: ChannelCoupling, *, zeros: bool, fewest: bool
) -> Projection:
    sources = tuple(
        SpikeSource(name=path.source, delay_steps=path.delay_steps, async_delay_steps=path.async_delay_steps) for path in paths
    )
    synapses = paths[0].synapses
    builder = ProjectionBuilder(graph.shape_of(paths[0].source), fewest=fewest)
    weighted = ""
    for name, synapse in synapses:
        _add_synapse(builder, synapse, graph.shape_of(name), zeros, behind_weights=bool(weighted))
        if isinstance(synapse, WEIGHTED):
            weighted = name
    builder.finish()
    weights = graph[weighted].synapse if weighted else None
    mixing = [name for name, synapse in synapses if isinstance(synapse, (Dense, *CONVS))]
    mixes_all = bool(mixing) and getattr(graph[mixing[-1]].synapse, "groups", 1) == 1  # else it reads a fixed number of channels
    return Projection(
        layer=weighted or target,
        kind=builder.kind,
        sources=sources,
        channels=builder.channels,
        outputs=builder.outputs,
        groups=builder.groups,
        axes=tuple(builder.axes),
        is_elementwise=all(isinstance(synapse, (Scale, Flatten)) for _, synapse in synapses),
        input_group=coupled.out[paths[0].source],
        kernel_group=coupled.into[mixing[-1]] if mixes_all else "",
        output_group=coupled.out[target],
        kernel=builder.extent,
        kernel_channels=builder.kernel_channels,
        input_map=builder.input_map,
        output_map=builder.output_map,
        map_channels=builder.map_channels,
        pool_axes=builder.pool_axes,
        is_bound=builder.is_bound,
        signed=isinstance(weights, WEIGHTED) and bool(weights.weight.min() < 0),
        nonzero=builder.nonzero,
    )


def _add_synapse(builder: ProjectionBuilder, synapse: Synapse, after: Shape, zeros: bool, *, behind_weights: bool) -> None:
    """Add a synapse that gives the shape `after` to a builder."""
    if isinstance(synapse, Dense):
        builder.add_dense(after[0], _nonzero(synapse.weight) if zeros else None)
    elif isinstance(synapse, CONVS):
        builder.add_conv(synapse, after, _nonzero(synapse.weight) if zeros else None)
    elif isinstance(synapse, POOLS):
        builder.add_pool(synapse, after, behind_weights=behind_weights)
    elif isinstance(synapse, Scale):
        builder.add_scale(synapse.weight, after, zeros=zeros)


def _nonzero(weight: Weights) -> Weights | None:
    """Return which weights are not zero, or None if none is zero."""
    nonzero: Weights = weight != 0
    return None if nonzero.all() else nonzero


def _match_axes(projections: tuple[Projection, ...]) -> tuple[Projection, ...]:
    """Return projections without axes of one position, where others into the same neurons have none.

    A map of one position is a list, whose weights one to one are stored as such.
    """
    ranks = {len(p.axes) if p.kind != "dense" else 0 for p in projections}
    return projections if len(ranks) == 1 else tuple(drop_single_positions(p) for p in projections)


def _map_shape(graph: SNNGraph, layer: Layer, projections: Sequence[Projection]) -> Shape:
    """Return the shape in which positions share weights: a flatten behind the weights changes nothing on the chip."""
    maps = {(p.outputs, *(axis.outputs for axis in p.axes)) for p in projections if p.kind != "dense"}
    if len(maps) == 1 and all(p.kind != "dense" for p in projections):
        return maps.pop()
    return graph.shape_of(layer.name)


# ------------------------------------------------------------------------------------------------------ fan-in and fan-out


@dataclass(frozen=True, kw_only=True)
class SynapseCounts:
    """Synapses of the neurons of a population: `counts` int64, each of which holds for `alike` neurons."""

    counts: Array
    alike: int = 1

    @property
    def largest(self) -> int:
        """The synapses of the neuron that has most."""
        return int(self.counts.max())

    @property
    def total(self) -> int:
        """The synapses of all neurons."""
        return int(self.counts.sum(dtype=np.int64)) * self.alike

    @property
    def connected(self) -> int:
        """Number of neurons with at least one synapse."""
        return int(np.count_nonzero(self.counts)) * self.alike


def add_counts(parts: Sequence[Array], factors: Sequence[int] = ()) -> SynapseCounts:
    """Add counts of the same neurons (`Projection.fan_in`, `fan_out`), each times its factor; equal channels are added once."""
    factors = factors or [1] * len(parts)
    if not parts:
        return SynapseCounts(counts=np.zeros(1, np.int64))
    if len({part.shape for part in parts}) == 1 and not any(part.strides[0] for part in parts):
        once = [part[0] * np.int64(factor) for part, factor in zip(parts, factors, strict=True)]
        return SynapseCounts(counts=np.asarray(sum(once[1:], once[0])), alike=len(parts[0]))
    total = parts[0].reshape(-1) * factors[0]
    for part, factor in zip(parts[1:], factors[1:], strict=True):
        total = total + part.reshape(-1) * factor
    return SynapseCounts(counts=total)


def count_synapses_into(population: Population) -> SynapseCounts:
    """Count the synapses that reach each neuron."""
    return add_counts([projection.fan_in for projection in population.synapses])


def count_synapses_out_of(name: str, targets: Sequence[Population]) -> SynapseCounts:
    """Count the synapses from each neuron of a population (or of the network's input) onto `targets`."""
    return add_counts(
        [
            projection.fan_out
            for target in targets
            for projection in target.synapses
            for source in projection.sources
            if source.name == name
        ]
    )
