"""What lies on the chip? Neurons, and the synapses that reach them, as sizes.

A `Population` is a layer with neurons. A `Projection` is what spikes of one or more sources meet on their way to it: the
weights between two neuron layers, whichever rows of the graph they stand in. Only sizes are kept, and where a chip counts
them which weights are not zero, so that a narrower network can be tried without slicing arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.network import CONVS, POOLS, WEIGHTED, Array, Dense, Flatten, Layer, Scale, Shape, Synapse
from spear_deploy.network.channel_groups import Coupling, coupling
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.projections import Axis, Projection, Source, Walk, joined, plain_axis

__all__ = ["Axis", "Population", "Projection", "Source", "narrowed", "plain_axis", "populations"]

SIGMA_DELTA = "SigmaDelta"


@dataclass(frozen=True, kw_only=True)
class Population:
    """A layer's neurons: (C, H, W), (C, L) or (N,), before a flatten if one follows its weights.

    Attributes:
        space: the pruning group of its channels, or "".
        readout: whether the network's output is its weighted sum, without neurons of its own.
        output: whether it is the network's output.
        biased: whether each channel (or neuron) has a bias.
    """

    name: str
    shape: Shape
    projections: tuple[Projection, ...]
    space: str = ""
    readout: bool = False
    output: bool = False
    biased: bool = False

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
    held_steps: int = 0


def populations(graph: SNNGraph, *, zeros: bool = False) -> tuple[Population, ...]:
    """Return the neuron layers of a network with their synapses, in the graph's order.

    A network whose output is a weighted sum without neurons gets a readout that holds it, as on hardware. A layer that only
    turns the input into spikes for sigma-delta layers is none: the host sends them the differences.

    Args:
        graph: the network.
        zeros: also find which weights are not zero (`Projection.exists`).
    """
    coupled = coupling(graph)
    found: list[Population] = []
    outputs = set(_output_layers(graph, graph.output, ()))
    for layer in graph.layers:
        readout = layer.neuron is None and layer.name == graph.output and _has_weights_behind(graph, layer)
        if layer.neuron is None and not readout:
            continue
        population = _population(graph, layer, readout, coupled, zeros)
        found.append(replace(population, output=layer.name in outputs))
    return _without_encoders(graph, found)


def narrowed(found: Sequence[Population], space: str, channels: int, left: int) -> tuple[Population, ...]:
    """Return the populations with `left` of the `channels` channels of a pruning group."""

    def less(n: int, here: str) -> int:
        return n * left // channels if here == space else n

    return tuple(
        replace(
            population,
            shape=(less(population.shape[0], population.space), *population.shape[1:]),
            projections=tuple(p.narrowed(space, channels, left) for p in population.projections),
        )
        for population in found
    )


# ------------------------------------------------------------------------------------------------------------ inside


def _has_weights_behind(graph: SNNGraph, layer: Layer, passed: tuple[str, ...] = ()) -> bool:
    if isinstance(layer.synapse, WEIGHTED):
        return True
    before = [graph[e.source] for e in graph.incoming(layer.name) if e.source not in (INPUT, layer.name, *passed)]
    return any(b.neuron is None and _has_weights_behind(graph, b, (*passed, layer.name)) for b in before)


def _output_layers(graph: SNNGraph, name: str, passed: tuple[str, ...]) -> Iterator[str]:
    """Find the neuron layers whose emission is the network's output, through rows that only reshape, pool or add."""
    layer = graph[name]
    if layer.neuron is not None or _has_weights_behind(graph, layer):
        yield name
    if layer.neuron is None:
        for edge in graph.incoming(name):
            if edge.source not in (INPUT, *passed) and not isinstance(layer.synapse, WEIGHTED):
                yield from _output_layers(graph, edge.source, (*passed, name))


def _without_encoders(graph: SNNGraph, found: list[Population]) -> tuple[Population, ...]:
    """Leave out the input layers that feed sigma-delta layers only: what they send comes from the host."""
    models = {layer.name: type(layer.neuron).__name__ for layer in graph.layers}
    taken = {p.name: [q.name for q in found for r in q.projections if p.name in [s.name for s in r.sources]] for p in found}
    encoders = {p.name for p in found if p.is_input_layer and taken[p.name]}
    encoders = {name for name in encoders if all(models[target] == SIGMA_DELTA for target in taken[name])}
    if not encoders:
        return tuple(found)

    def from_host(p: Projection) -> Projection:
        sources = tuple(replace(s, name=INPUT) if s.name in encoders else s for s in p.sources)
        return replace(p, sources=sources)

    return tuple(replace(p, projections=tuple(from_host(q) for q in p.projections)) for p in found if p.name not in encoders)


def _population(graph: SNNGraph, layer: Layer, readout: bool, coupled: Coupling, zeros: bool) -> Population:
    depth = graph.depths[layer.name] + readout
    grouped: dict[tuple[tuple[str, ...], int], list[_Path]] = {}
    for path in _paths(graph, layer.name, (), ()):
        wait = depth - graph.depths[path.source] + path.wait_steps - 1
        looped = graph.depths[path.source] >= depth
        path = replace(path, wait_steps=wait, held_steps=max(0, path.wait_steps - looped))
        key = (tuple(name for name, _ in path.parts), wait) if path.parts else ((path.source,), wait)
        grouped.setdefault(key, []).append(path)
    projections = joined(graph, [_projection(graph, layer.name, paths, coupled, zeros) for paths in grouped.values()])
    on_the_way = {name for paths in grouped.values() for path in paths for name, _ in path.parts}
    return Population(
        name=layer.name,
        shape=_map_shape(graph, layer, projections),
        projections=projections,
        space=coupled.out[layer.name],
        readout=readout,
        biased=any(_has_bias(graph[name]) for name in {layer.name, *on_the_way}),
    )


def _has_bias(layer: Layer) -> bool:
    """Say whether a layer adds a constant: a bias of its weights, a batch norm, an integer neuron's bias."""
    bias = getattr(layer.synapse, "bias", None)
    of_neuron = getattr(layer.neuron, "bias", None)
    return bias is not None or layer.norm is not None or (of_neuron is not None and bool(np.any(of_neuron)))


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


def _projection(graph: SNNGraph, target: str, paths: list[_Path], coupled: Coupling, zeros: bool) -> Projection:
    sources = tuple(Source(name=path.source, wait_steps=path.wait_steps, held_steps=path.held_steps) for path in paths)
    walk = Walk(graph.shape_of(paths[0].source))
    weighted = ""
    for name, synapse in paths[0].parts:
        _pass_through(walk, synapse, graph.shape_of(name), zeros, behind=bool(weighted))
        if isinstance(synapse, WEIGHTED):
            weighted = name
    synapse_of = graph[weighted].synapse if weighted else None
    mixing = [name for name, synapse in paths[0].parts if isinstance(synapse, (Dense, *CONVS))]
    across = bool(mixing) and walk.groups == 1  # else each output meets a fixed number of channels
    return Projection(
        layer=weighted or target,
        kind=walk.kind,
        sources=sources,
        channels=walk.channels,
        outputs=walk.outputs,
        groups=walk.groups,
        axes=tuple(walk.axes),
        plain=all(isinstance(synapse, (Scale, Flatten)) for _, synapse in paths[0].parts),
        input_space=coupled.out[paths[0].source],
        kernel_space=coupled.into[mixing[-1]] if across else "",
        output_space=coupled.out[target],
        kernel=walk.extent,
        kernel_channels=walk.kernel_channels,
        reads=walk.reads,
        makes=walk.makes,
        front=walk.front,
        signed=isinstance(synapse_of, WEIGHTED) and bool(synapse_of.weight.min() < 0),
        exists=walk.exists,
    )


def _pass_through(walk: Walk, synapse: Synapse, after: Shape, zeros: bool, *, behind: bool) -> None:
    """Add a synapse that gives the shape `after` to a walk."""
    if isinstance(synapse, Dense):
        walk.dense(after[0], _not_zero(synapse.weight) if zeros else None)
    elif isinstance(synapse, CONVS):
        kernel = synapse.weight.shape[2:]
        taps = [[d * j for j in range(k)] for k, d in zip(kernel, synapse.dilation, strict=True)]
        exists = _not_zero(synapse.weight) if zeros else None
        walk.conv(after, taps, synapse.stride, synapse.padding, synapse.groups, exists)
    elif isinstance(synapse, POOLS):
        windows = [list(range(k)) for k in synapse.kernel_size]
        padding = synapse.padding if isinstance(synapse.padding, tuple) else (synapse.padding,) * len(windows)
        walk.pool(after, windows, synapse.stride or synapse.kernel_size, padding, behind=behind)
    elif isinstance(synapse, Scale) and synapse.weight.size > 1 and synapse.weight.size != after[0]:
        walk.each()


def _not_zero(weight: Array) -> Array | None:
    """Say which weights exist, or None if all do."""
    found: Array = weight != 0
    return None if found.all() else found


def _map_shape(graph: SNNGraph, layer: Layer, projections: Sequence[Projection]) -> Shape:
    """Return the shape in which positions share weights: a flatten behind the weights changes nothing on the chip."""
    maps = {(p.outputs, *(axis.outputs for axis in p.axes)) for p in projections if p.kind != "dense"}
    if len(maps) == 1 and all(p.kind != "dense" for p in projections):
        return maps.pop()
    return graph.shape_of(layer.name)


# FOLDED from spear_deploy/placement/populations.py
# How many synapses reach a neuron, and how many leave it? Exactly, borders, strides and zero weights included.
#
# A convolution's counts factor into its axes, so no synapse is listed: a map of 10^8 synapses takes milliseconds. Weights of
# zero are left out where the projection says which exist.


def fan_in(projection: Projection) -> Array:
    """Count the synapses of a projection that reach each neuron: int64, (outputs, *positions) or (neurons,)."""
    if projection.kind == "one_to_one":
        return np.ones((projection.outputs, *(axis.outputs for axis in projection.axes)), np.int64)
    if projection.kind == "dense":
        if projection.exists is None:
            return np.full(projection.outputs, projection.channels, np.int64)
        each = projection.exists.sum(axis=1, dtype=np.int64)
        for axis in reversed(projection.front):
            each = each @ axis.takes().sum(axis=1)
        return each
    if projection.exists is None:
        taps = np.full((projection.outputs, *_taps(projection)), projection.channels // projection.groups, np.int64)
    else:
        taps = projection.exists.sum(axis=1, dtype=np.int64)
    return _over_axes(taps, [axis.takes() for axis in projection.axes])


def fan_out(projection: Projection) -> Array:
    """Count the synapses of a projection that leave each neuron of its source: int64, of the source's shape.

    A source in front of a pool reaches what any of its windows reaches, a target that two windows share twice at most once
    where all weights exist.
    """
    if projection.kind == "one_to_one":
        return np.ones((projection.channels, *(axis.inputs for axis in projection.axes)), np.int64)
    if projection.kind == "dense":
        count = projection.outputs
        read = (projection.source_channels, *(axis.outputs for axis in projection.front))
        exists = projection.exists
        each = np.full(read, count, np.int64) if exists is None else exists.sum(axis=0, dtype=np.int64).reshape(read)
        return np.minimum(_over_axes(each, [_windows(axis) for axis in projection.front]), count)
    groups, into, out = projection.groups, projection.channels // projection.groups, projection.outputs // projection.groups
    if projection.exists is None:
        taps = np.full((projection.channels, *_taps(projection)), out, np.int64)
    else:
        grouped = projection.exists.reshape(groups, out, into, *_taps(projection)).sum(axis=1, dtype=np.int64)
        taps = grouped.reshape(projection.channels, *_taps(projection))
    return _over_axes(taps, [axis.feeds() for axis in projection.axes])


def synapses_into(population: Population) -> Array:
    """Count the synapses that reach each neuron: int64 (neurons,)."""
    total = np.zeros(population.neurons, np.int64)
    for projection in population.projections:
        total += fan_in(projection).reshape(-1)
    return total


def synapses_out_of(name: str, targets: Sequence[Population]) -> Array:
    """Count the synapses onto some populations that leave each neuron of a population, or of the network's input."""
    found = [
        fan_out(projection).reshape(-1)
        for target in targets
        for projection in target.projections
        for source in projection.sources
        if source.name == name
    ]
    return np.sum(found, axis=0) if found else np.zeros(1, np.int64)


def _taps(projection: Projection) -> tuple[int, ...]:
    return tuple(len(axis.taps) for axis in projection.axes)


def _over_axes(taps: Array, meets: Sequence[Array]) -> Array:
    """Sum counts by tap over the taps that each position meets: (channels, *taps) to (channels, *positions)."""
    for axis, along in enumerate(meets):
        taps = np.moveaxis(np.tensordot(taps, along.astype(np.int64), axes=([1 + axis], [1])), -1, 1 + axis)
    return taps


def _windows(axis: Axis) -> Array:
    """Say which windows of a pool hold an input position: bool (inputs, windows)."""
    return np.stack([axis.reached(window, window + 1) for window in range(axis.outputs)], axis=1)
