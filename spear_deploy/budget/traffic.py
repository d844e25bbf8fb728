"""SynOps of each core, messages between cores, and hops.

All numbers come from counted spikes: a spike goes once to each core that holds a synapse list for it. Where zeros take no list
(a crossbar's row, Xylo's and Catalyst's words) none goes to a core onto whose neurons all weights of its neuron are 0. Slices on
one core take a spike together; a crossbar is sent one for each row of the neuron, a chip with axons of layers one for each way
into a layer. Cores are filled in order, tile by tile, one row of the mesh to the right and the next one back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Array, Dense, Flatten, SparseMatrix, SumPool
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.spike_paths import carries_spikes
from spear_deploy.placement.axes import identity_axis
from spear_deploy.placement.axon_sets import is_in_row
from spear_deploy.placement.core_needs import Core
from spear_deploy.placement.place import CoreSlice, Placement
from spear_deploy.placement.populations import Population
from spear_deploy.placement.projections import Projection
from spear_deploy.placement.read_sources import mark_read
from spear_deploy.placement.splitting import number_ways
from spear_deploy.placement.synapse_memory import Box
from spear_deploy.simulator import SpikeCounts, synapse_math
from spear_deploy.simulator.synops import has_synapses, split_arrivals

CHUNK_WEIGHTS = 1 << 21
"""Weights of a dense layer that are read together when its SynOps are spread over its neurons."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Work of the cores and messages between them in one inference, mean over samples.

    Attributes:
        core_synops: SynOps of each core, those of all copies of its neurons.
        slice_synops: the same of each slice of a layer, by layer.
        copied_synops: SynOps of the copies beyond one of each neuron (`Placement.copies_on_core`), which no network counts.
        macs: multiplications by an analogue input onto all neurons and their copies.
        messages: spikes times the cores each is sent to; the network's input comes from outside and is not in it.
        core_messages: messages into each core; those from outside included.
        arrivals: spikes that each slice of a layer takes, by (layer, number of its projection); those from outside included. Of
            several ways that the chip adds up in one row the first takes a spike.
        hops_ew, hops_ns: tiles that messages cross, or None where the mesh is not known.
        longest_ew, longest_ns: of any message.
    """

    core_synops: Array
    copied_synops: float
    macs: float
    slice_synops: Mapping[str, Array]
    arrivals: Mapping[tuple[str, int], Array]
    messages: float
    core_messages: Array
    hops_ew: float | None
    hops_ns: float | None
    longest_ew: int = 0
    longest_ns: int = 0


def count_traffic(graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts) -> Traffic:
    """Count the SynOps of each core and the messages between cores."""
    mesh = _mesh(profile, placement)
    core_synops, core_messages = np.zeros(placement.cores_used), np.zeros(placement.cores_used)
    messages, ew, ns, longest = 0.0, 0.0, 0.0, [0, 0]
    by_name = {population.name: population for population in placement.populations}
    slice_synops, arrivals, copied_synops, macs = {}, {}, 0.0, 0.0
    for population in placement.populations:
        parts = placement.slices_of(population.name)
        received = _synops_onto(graph, population.name, counts).reshape(population.shape) / counts.samples
        sums = [(received[_slices(part.box)], placement.copies_on_core(part)) for part in parts]
        slice_synops[population.name] = np.array([(values * copies).sum() for values, copies in sums])
        copied_synops += float(sum((values * (copies - 1)).sum() for values, copies in sums))
        np.add.at(core_synops, [part.core for part in parts], slice_synops[population.name])
        if counts.input_kind == "current":
            products = _synops_onto(graph, population.name, counts, of_values=True).reshape(population.shape) / counts.samples
            macs += float(sum((products[_slices(part.box)] * placement.copies_on_core(part)).sum() for part in parts))
    taken = _TakenSpikes(profile, placement)
    for population, index, projection in taken.ways:
        parts = placement.slices_of(population.name)
        into = arrivals[population.name, index] = np.zeros(len(parts))
        for source in projection.sources:
            if source.name not in counts.sent:
                continue
            is_input = source.name == INPUT
            shape = counts.sent[INPUT].shape if is_input else by_name[source.name].shape
            sent = counts.sent[source.name].reshape(shape) / counts.samples
            origins = () if is_input else placement.slices_of(source.name)
            # without a mesh only the sum over them counts
            boxes = [_whole(sent)] if is_input or mesh is None else [part.box for part in origins]
            arrived, between = taken.count(population, index, source.name, sent, boxes)
            into += arrived
            np.add.at(core_messages, [part.core for part in parts], between.sum(axis=0))
            if is_input:
                continue
            messages += float(between.sum())
            if mesh is not None:
                here, there = [p.core for p in origins], [p.core for p in parts]
                apart = np.abs(mesh[here][:, None] - mesh[there][None])
                ew += float((between * apart[..., 0]).sum())
                ns += float((between * apart[..., 1]).sum())
                used = apart[between > 0]
                longest = [max(longest[i], int(used[:, i].max(initial=0))) for i in (0, 1)]
    known = mesh is not None
    return Traffic(
        core_synops=core_synops,
        copied_synops=copied_synops,
        macs=macs,
        slice_synops=slice_synops,
        arrivals=arrivals,
        messages=messages,
        core_messages=core_messages,
        hops_ew=ew if known else None,
        hops_ns=ns if known else None,
        longest_ew=longest[0],
        longest_ns=longest[1],
    )


def count_neuron_synops(graph: SNNGraph, placement: Placement, counts: SpikeCounts) -> dict[str, Array]:
    """Count the SynOps onto each neuron in an inference, mean over samples: by layer, of its shape."""
    return {
        population.name: _synops_onto(graph, population.name, counts).reshape(population.shape) / counts.samples
        for population in placement.populations
    }


def _mesh(profile: HardwareProfile, placement: Placement) -> Array | None:
    """Return the tile (column, row) of each core, or None where the mesh or the way between chips is not published."""
    shape = profile.topology
    sizes = (shape.cores_per_tile, shape.mesh_columns, shape.mesh_rows)
    if any(size.value is None for size in sizes) or placement.chips_used > 1:
        return None
    per_tile, columns, rows = (size.max_value or max(1, placement.cores_used) for size in sizes)  # unlimited: room for all
    tiles = np.arange(placement.cores_used) // per_tile
    if len(tiles) and tiles[-1] >= columns * rows:
        return None
    row, column = np.divmod(tiles, columns)
    return np.stack([np.where(row % 2, columns - 1 - column, column), row], axis=1)


def _synops_onto(
    graph: SNNGraph, name: str, counts: SpikeCounts, passed: tuple[str, ...] = (), *, of_values: bool = False
) -> Array:
    """Count the SynOps onto each neuron of a layer, those of the weighted layers in front of it included.

    Args:
        passed: layers behind it, to which a loop without neurons leads back.
        of_values: count the products of an analogue input instead.
    """
    layer = graph[name]
    total: Array = np.zeros(graph.shape_of(name))
    if has_synapses(graph, layer):
        for edge in graph.edges_into(name):
            if carries_spikes(graph, edge.source):
                sent = split_arrivals(graph, counts, edge)[int(of_values)]
                if sent is None:
                    continue
                arrived = _pool_values(layer.synapse, sent.astype(np.float64))
                total = total + _meet_weights(layer.synapse, arrived, graph.shape_of(name))
    if isinstance(layer.synapse, WEIGHTED):
        return total
    for edge in graph.edges_into(name):
        if edge.source not in (INPUT, name, *passed) and graph[edge.source].neuron is None:
            onto = _synops_onto(graph, edge.source, counts, (*passed, name), of_values=of_values)
            total = total + _pool_values(layer.synapse, onto)
    return total


def _pool_values(synapse: Any, values: Array) -> Array:
    if isinstance(synapse, POOLS):
        pool = SumPool(kernel_size=synapse.kernel_size, stride=synapse.stride, padding=synapse.padding)
        return synapse_math.apply_synapse(pool, values[None])[0]
    return values.reshape(-1) if isinstance(synapse, Flatten) else values


def _meet_weights(synapse: Any, arrived: Array, shape: tuple[int, ...]) -> Array:
    """Return how many of the spikes that arrive meet a non-zero weight of each target."""
    if isinstance(synapse, Dense):
        flat, weight = arrived.reshape(-1), synapse.weight
        if not isinstance(weight, SparseMatrix) and not any(weight.strides):
            return np.full(shape, flat.sum() * int(weight[0, 0] != 0))
        if flat.size and (flat == flat[0]).all():  # an assumed rate: one product, which no order of adding rounds
            return (flat[0] * np.count_nonzero(weight, axis=1)).reshape(shape)
        if isinstance(weight, SparseMatrix):
            return np.asarray((weight != 0).astype(np.float64) @ flat).reshape(shape)
        rows = max(1, CHUNK_WEIGHTS // weight.shape[1])
        products = [(weight[i : i + rows] != 0).astype(np.float64) @ flat for i in range(0, len(weight), rows)]
        return np.concatenate(products).reshape(shape)
    if isinstance(synapse, CONVS):
        mask = replace(synapse, weight=(synapse.weight != 0).astype(np.float64), bias=None, weight_exponent=0)
        return synapse_math.apply_synapse(mask, arrived[None])[0]
    if isinstance(synapse, WEIGHTED):
        return arrived * (np.broadcast_to(synapse.weight, shape) != 0)
    return arrived.reshape(shape)


class _TakenSpikes:
    """Which spikes each slice takes, and which of them come to its core for no slice before it.

    Attributes:
        ways: (population, number of the projection, projection), in the order of the network.
    """

    def __init__(self, profile: HardwareProfile, placement: Placement) -> None:
        self.core, self.placement = Core(profile, {}), placement
        self.ways = [(population, i, p) for population in placement.populations for i, p in enumerate(population.projections)]
        self.rows = {population.name: self._name_rows(population) for population in placement.populations}
        self.takers = Counter(
            self._find_row(population, index, source.name, part)
            for population, index, projection in self.ways
            for source in projection.sources
            for part in placement.slices_of(population.name)
        )
        self.had: dict[Hashable, Array] = {}

    def count(self, population: Population, index: int, source: str, sent: Array, sources: Sequence[Box]) -> tuple[Array, Array]:
        """Count the spikes of a source that each slice takes, (slices,), and those sent to each, (sources, slices).

        Args:
            population, index: the way into the slices.
            source: of the way.
            sent: its spikes, of its shape.
            sources: its slices.
        """
        p, parts = population.projections[index], self.placement.slices_of(population.name)
        rows = [self._find_row(population, index, source, part) for part in parts]
        skips_zeros = p.nonzero is not None and (self.core.is_crossbar or self.core.skips_zeros)
        is_listed = skips_zeros or (self.core.rule is None and is_in_row(p, population.shape))
        if not is_listed and all(self.takers[row] == 1 for row in rows):
            between = _count_sent(p, sent, sources, [part.box for part in parts])
            return between.sum(axis=0), between
        owners = np.zeros(sent.shape, np.int64)
        for number, box in enumerate(sources):
            owners[_slices(box)] = number
        p = p if skips_zeros else replace(p, nonzero=None)
        arrived, between = np.zeros(len(parts)), np.zeros((len(sources), len(parts)))
        for number, (part, row) in enumerate(zip(parts, rows, strict=True)):
            marks = mark_read(p, part.box).reshape(sent.shape)
            if self.core.adds_ways:  # several ways into a slice have one row, which is read once
                marks = self._drop_had((source, population.name, number), marks)
            arrived[number] = sent[marks].sum()
            if self.takers[row] > 1:
                marks = self._drop_had(row, marks)
            between[:, number] = np.bincount(owners[marks], sent[marks], len(sources))
        return arrived, between

    def _drop_had(self, key: Hashable, marks: Array) -> Array:
        """Return the marks of spikes that did not come before to what a key names, and add them to those that did."""
        had = self.had.get(key, np.zeros_like(marks))
        self.had[key] = had | marks
        return marks & ~had

    def _name_rows(self, population: Population) -> list[Hashable]:
        """Return for each way into a population what its slices have in common with others for which a spike comes once."""
        ways, core = population.projections, self.core
        if core.rule is not None:
            return [(population.name, index) for index in range(len(ways))]
        if core.adds_ways or not core.is_crossbar:
            return [None] * len(ways)
        return [*zip(number_ways(ways, population.shape, core), map(core.find_delay, ways), strict=True)]

    def _find_row(self, population: Population, index: int, source: str, part: CoreSlice) -> Hashable:
        return source, self.rows[population.name][index], part.run, part.core


def _count_sent(p: Projection, sent: Array, sources: Sequence[Box], targets: Sequence[Box]) -> Array:
    """Count the spikes that each source slice sends to each target slice, weights of 0 included: (sources, targets)."""
    is_spatial = p.kind != "dense" and len(targets[0]) == len(p.axes) + 1
    if is_spatial and sent.ndim == len(targets[0]) > 1:
        return _count_taken(p, sent, sources, targets)
    whole = replace(p, nonzero=None)
    if is_spatial:
        taken = [sent * (whole.count_fan_out(box) > 0).reshape(sent.shape) for box in targets]
        return np.array([[values[_slices(box)].sum() for values in taken] for box in sources])
    reached = sent * (whole.fan_out > 0).reshape(sent.shape)
    totals = np.array([reached[_slices(box)].sum() for box in sources])
    return np.repeat(totals[:, None], len(targets), axis=1)


def _count_taken(p: Projection, sent: Array, sources: Sequence[Box], targets: Sequence[Box]) -> Array:
    """Count the spikes of each source tile that each target tile takes: those at the positions its kernels meet."""
    if sent.ndim == 2:
        p, sent = replace(p, axes=(identity_axis(1), *p.axes)), sent[:, None]
        sources, targets = ([(box[0], (0, 1), *box[1:]) for box in boxes] for boxes in (sources, targets))
    ranges = [sorted({box[i] for box in targets}) for i in (0, 1, 2)]
    places = [{along: k for k, along in enumerate(part)} for part in ranges]
    row, column = (np.array([places[i][box[i]] for box in targets]) for i in (1, 2))
    marks = [np.array([p.axes[i].mark_inputs(*along) for along in ranges[i + 1]], float) for i in (0, 1)]
    by_channels: dict[tuple[int, int], list[int]] = {}
    for i, box in enumerate(targets):
        by_channels.setdefault(_channels_taken(p, box[0]), []).append(i)
    result = np.zeros((len(sources), len(targets)))
    for a, box in enumerate(sources):
        rows, columns = (mark[:, slice(*along)] for mark, along in zip(marks, box[1:], strict=True))
        for (first, last), members in by_channels.items():
            channels = (max(box[0][0], first), max(min(box[0][1], last), max(box[0][0], first)))
            grid = rows @ sent[_slices((channels, *box[1:]))].sum(axis=0) @ columns.T
            result[a, members] = grid[row[members], column[members]]
    return result


def _channels_taken(p: Projection, outputs: tuple[int, int]) -> tuple[int, int]:
    """Return the range of input channels whose groups make some output channels."""
    into, out = p.channels // p.groups, p.outputs // p.groups
    return outputs[0] // out * into, ((outputs[1] - 1) // out + 1) * into


def _whole(values: Array) -> Box:
    return tuple((0, n) for n in values.shape)


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*along) for along in box)
