"""Room on TrueNorth's cores for an axon of each type that a source needs, and for a neuron in front of each axon.

An axon has one type and one delay, and all neurons of its core may have a synapse with it. Of a core a source needs, for each
type and delay, as many axons as the neuron there that reads most weights of the type from it (a neuron reads several through a
pool). A neuron sends to one axon: it stands on its core once for each axon that it drives, and once more where it is the
network's output. A placement counts one axon for each source. Here they are counted as the integers have them: the type of a
weight is its number among the values of its neuron in ascending order, the layers of weights one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED, Array, Dense, Flatten, Layer, Scale, Shape, Weights, write_out
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.network.spike_paths import SpikePath, find_spike_paths
from spear_deploy.placement.place import CoreSlice, Placement
from spear_deploy.placement.weight_bits import max_distinct_weights
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.quantize.palette import find_axon_types
from spear_deploy.quantize.shared_cells import sum_cells
from spear_deploy.util.number_format import join_names

Types: TypeAlias = dict[str, Array]
"""By layer of weights the type of each, -1 for those of 0; a way without weights has the name ""."""
KeptCounts: TypeAlias = dict[tuple[str, int, str, int], list[Array]]
"""By source, delay, target and type, how many weights lead from each neuron of the source to each of the target."""
MAX_PAIRS = 1 << 22
"""Pairs of neurons between two layers up to which their axons are counted."""
NOT_COUNTED = "its sources take an axon for each type of their weights; how many on each core is not counted"


@dataclass(frozen=True, kw_only=True)
class CoreRoom:
    """What lies on a core with the axons of each type.

    Attributes:
        core: pass and number.
        layers: neuron layers, in the order of the network.
        group: kind of core, or None where all are alike.
        axons: into the core.
        neurons: on the core, one in front of each axon that they drive.
        driven: axons that they drive.
    """

    core: tuple[int, int]
    layers: tuple[str, ...]
    group: int | None
    axons: int
    neurons: int
    driven: int


@dataclass(frozen=True, kw_only=True)
class CoreRooms:
    """What lies on all cores.

    Attributes:
        cores: in the order of the slices.
        copies: by neuron layer, how many times each neuron stands on its core: int64, in the layer's shape.
    """

    cores: tuple[CoreRoom, ...]
    copies: Mapping[str, Array]


def counts_axons(graph: SNNGraph, profile: HardwareProfile) -> bool:
    """Return whether a chip has types of axons, and a network the integers that they are counted of."""
    has_types = profile.connectivity.weight_palette.max_value is not None
    is_own = graph.is_integer and find_chip_format(graph) == profile.meta.family
    return has_types and is_own and profile.synapse_memory.format.value == "crossbar"


def find_crowded(graph: SNNGraph, placement: Placement, profile: HardwareProfile) -> dict[str, str]:
    """Return the layers of integer weights whose axons, or the neurons in front of them, have no room, each with the reason."""
    if not counts_axons(graph, profile):
        return {}
    try:
        paths = find_spike_paths(graph)
    except UnsupportedError:
        return {}  # a network that no chip holds
    weights = [(path, layer.name) for path in paths for layer in path.layers if isinstance(layer.synapse, WEIGHTED)]
    rooms = measure_core_rooms(graph, paths, placement, profile)
    if rooms is None:
        return dict.fromkeys((name for _, name in weights), NOT_COUNTED)
    crowded: dict[str, str] = {}
    for room in sorted(rooms.cores, key=lambda room: (-room.axons, -room.neurons)):
        if reason := find_shortage(room, profile):
            for path, name in weights:
                if path.target in room.layers or path.source in room.layers:
                    crowded.setdefault(name, reason)
    return crowded


def count_values(graph: SNNGraph, layer: str) -> int:
    """Return the distinct weights of the neuron that has most, in the layer and the others into the same neurons.

    Layers of convolutions beside dense ones are counted each by itself.
    """
    weight: Weights = graph[layer].synapse.weight  # type: ignore[union-attr]
    most = max_distinct_weights(weight)
    if graph[layer].neuron is None:
        for target in (edge.target for edge in graph.edges if edge.source == layer):
            beside = [graph[edge.source].synapse for edge in graph.edges_into(target)]
            rows = [s.weight for s in beside if isinstance(s, WEIGHTED) and s.weight.shape[:1] == weight.shape[:1]]
            if len(rows) > 1:
                together = np.concatenate([write_out(row).reshape(len(row), -1) for row in rows], axis=1)
                most = max(most, max_distinct_weights(together))
    return most


def measure_core_rooms(
    graph: SNNGraph, paths: Sequence[SpikePath], placement: Placement, profile: HardwareProfile
) -> CoreRooms | None:
    """Return what each core of a placement takes with the axons of each type; None where that is not counted.

    Args:
        graph: the network in integers.
        paths: of `find_spike_paths`.
        placement: of the network.
        profile: the chip.
    """
    types = None if placement.more_cores else find_weight_types(graph, paths, profile)
    return None if types is None else measure_rooms_by_type(graph, paths, placement, types)


def find_weight_types(graph: SNNGraph, paths: Sequence[SpikePath], profile: HardwareProfile) -> dict[str, Types] | None:
    """Return the types of the weights into each neuron layer; None where there are too many, or pairs of neurons are."""
    if any(count_pairs(graph, path) > MAX_PAIRS for path in paths):
        return None
    return _find_types(graph, paths, int(profile.connectivity.weight_palette.max_value or 0))


def measure_rooms_by_type(
    graph: SNNGraph,
    paths: Sequence[SpikePath],
    placement: Placement,
    types: Mapping[str, Types],
    kept: KeptCounts | None = None,
) -> CoreRooms:
    """Return what each core takes.

    Args:
        graph, paths, placement: those of `measure_core_rooms`.
        types: of the weights into each neuron layer.
        kept: counts of weights by source, delay, target and type, which are the same in all placements: taken from here, and
            added. None: they are counted anew, a few sources at a time.
    """
    parts: dict[tuple[int, int], list[CoreSlice]] = {}
    for part in placement.slices:
        parts.setdefault((part.run, part.core), []).append(part)
    on = _number_cores(placement, {core: number for number, core in enumerate(parts)})
    axons = np.zeros(len(parts), np.int64)
    sends = {name: np.zeros(cores.shape, np.int64) for name, cores in on.items()}
    for (source, delay), by_target in _group_paths(graph, paths).items():
        shape, here = graph.shape_of(source), np.unique(np.concatenate([on[target] for target in by_target]))
        count = np.zeros((prod(shape), len(here)), np.int64)
        for kind in range(1 + max(int(own.max(initial=-1)) for target in by_target for own in types[target].values())):
            most = np.zeros_like(count)
            for target, ways in by_target.items():
                totals: Iterable[Array] = _count_weights(shape, ways, types[target], kind)
                if kept is not None:
                    key = (source, delay, target, kind)
                    totals = kept[key] = kept.get(key) or [each.astype(np.int64) for each in totals]
                _raise_to_most(most, totals, np.searchsorted(here, on[target]))
            count += most
        axons[here] += count.sum(axis=0)
        if source != INPUT:
            sends[source] += count.sum(axis=1)
    neurons, driven, copies = np.zeros_like(axons), np.zeros_like(axons), {}
    for population in placement.populations:
        own = sends[population.name]
        stand = np.maximum(1, own + population.output)
        np.add.at(neurons, on[population.name], stand)
        np.add.at(driven, on[population.name], own)
        copies[population.name] = stand.reshape(population.shape)
    cores = tuple(
        CoreRoom(
            core=core,
            layers=tuple(dict.fromkeys(part.layer for part in members)),
            group=members[0].group,
            axons=int(axons[number]),
            neurons=int(neurons[number]),
            driven=int(driven[number]),
        )
        for number, (core, members) in enumerate(parts.items())
    )
    return CoreRooms(cores=cores, copies=copies)


def count_on_cores(placement: Placement, rooms: CoreRooms, profile: HardwareProfile) -> Placement:
    """Return a placement with the amounts of its cores, and the copies of its neurons."""
    counted = {
        room.core: {
            "axons_in": room.axons,
            "neurons": room.neurons,
            "axons_out": room.driven,
            "synapse_memory": _count_cells(room, profile),
        }
        for room in rooms.cores
    }
    return replace(placement, counted=counted, neuron_copies=rooms.copies)


def find_shortage(room: CoreRoom, profile: HardwareProfile) -> str:
    """Return what a core has too little of, as a reason; "" where it has room."""
    cells = _count_cells(room, profile)
    limits = {name: leaf.max_value for name, leaf in profile.core_limits(room.group).items()}
    needs = {"axons_in": (room.axons, "axons"), "neurons": (room.neurons, "neurons"), "synapse_memory": (cells, "cells")}
    over = [
        f"{need:,} {unit} of {limit:,}"
        for name, (need, unit) in needs.items()
        if (limit := limits[name]) is not None and need > limit
    ]
    where = f"a core of {name_layers(room.layers)} takes {join_names(over)}"
    return f"with an axon for each type of a source's weights and a neuron in front of each axon {where}" if over else ""


def count_pairs(graph: SNNGraph, path: SpikePath) -> int:
    """Return the pairs of a neuron in front of a way and one behind it."""
    return prod(graph.shape_of(path.source)) * prod(graph.shape_of(path.target))


# ------------------------------------------------------------------------------------------------------------ inside


def _count_cells(room: CoreRoom, profile: HardwareProfile) -> int:
    return room.axons * room.neurons * int(profile.synapse_memory.cells_per_weight.max_value or 1)


def _number_cores(placement: Placement, numbers: Mapping[tuple[int, int], int]) -> dict[str, Array]:
    """Return by neuron layer the number of the core of each neuron: int64 (neurons,)."""
    cores = {population.name: np.zeros(population.shape, np.int64) for population in placement.populations}
    for part in placement.slices:
        cores[part.layer][tuple(slice(*along) for along in part.box)] = numbers[part.run, part.core]
    return {name: where.reshape(-1) for name, where in cores.items()}


Way: TypeAlias = tuple[tuple[Layer, Shape], ...]
"""Layers with synapses in order, each with the shape of its input."""


def _group_paths(graph: SNNGraph, paths: Sequence[SpikePath]) -> dict[tuple[str, int], dict[str, list[Way]]]:
    """Return by source and delay on the chip, and by target, the ways between them."""
    groups: dict[tuple[str, int], dict[str, list[Way]]] = {}
    for path in paths:
        delay = graph.depths[path.target] - graph.depths[path.source] + path.delay
        way = tuple((replace_mean_by_sum(layer), graph.input_shape_of(layer.name)) for layer in path.layers)
        groups.setdefault((path.source, delay), {}).setdefault(path.target, []).append(way)
    return groups


def _find_types(graph: SNNGraph, paths: Sequence[SpikePath], palette: int) -> dict[str, Types] | None:
    """Return by neuron layer the types of the weights into it; None where they are more than there are."""
    found: dict[str, Types] = {}
    for path in paths:
        weighted = [k for k, layer in enumerate(path.layers) if isinstance(layer.synapse, WEIGHTED)]
        if len(weighted) > 1:
            return None
        first = weighted[0] if weighted else len(path.layers)
        name = path.layers[first].name if weighted else ""
        found.setdefault(path.target, {})[name] = _rank_weights(path.layers[first:]) if weighted else np.zeros(1, np.int64)
    for target, by_layer in found.items():
        numbers = _number_types(by_layer)
        if max(int(own.max(initial=-1)) for own in numbers.values()) >= palette:
            numbers = _rank_together(graph, by_layer)
        if max(int(own.max(initial=-1)) for own in numbers.values()) >= palette:
            return None
        found[target] = numbers
    return found


def _number_types(by_layer: Types) -> Types:
    """Return the types of layers of weights, those of each behind those of the layers before it."""
    numbers, first = {}, 0
    for name, own in by_layer.items():
        numbers[name] = np.where(own < 0, -1, own + first)
        first += 1 + int(own.max(initial=-1))
    return numbers


def _rank_together(graph: SNNGraph, by_layer: Types) -> Types:
    """Return as type of each weight its number among the values of all layers, if their rows are the same neurons."""
    weights: list[Array] = [write_out(graph[name].synapse.weight) for name in by_layer if name]  # type: ignore[union-attr]
    if len(weights) < len(by_layer) or len({weight.shape[:1] for weight in weights}) > 1 or not weights[0].ndim:
        return _number_types(by_layer)
    rows = np.concatenate([weight.reshape(len(weight), -1) for weight in weights], axis=1)
    types = np.split(find_axon_types(rows), np.cumsum([weight[0].size for weight in weights])[:-1], axis=1)
    return {name: own.reshape(weight.shape) for name, own, weight in zip(by_layer, types, weights, strict=True)}


def _rank_weights(layers: Sequence[Layer]) -> Array:
    """Return the types of the weights of the first layer; a neuron reads one of a `Scale` that no pool follows."""
    synapse: Any = layers[0].synapse
    if isinstance(synapse, Scale) and (
        not synapse.weight.ndim or all(isinstance(layer.synapse, Flatten) for layer in layers[1:])
    ):
        return np.where(synapse.weight == 0, -1, 0)
    return find_axon_types(write_out(synapse.weight))


def _raise_to_most(most: Array, totals: Iterable[Array], cores: Array) -> None:
    """Raise the axons of each source on each core to the weights of a type that a neuron there reads from it."""
    order = np.argsort(cores, kind="stable")
    here, starts = np.unique(cores[order], return_index=True)
    start = 0
    for total in totals:
        rows = slice(start, start + len(total))
        most[rows, here] = np.maximum(most[rows, here], np.maximum.reduceat(total[:, order], starts, axis=1).astype(np.int64))
        start += len(total)


def _count_weights(shape: Shape, ways: Sequence[Way], types: Types, kind: int) -> Iterator[Array]:
    """Yield how many weights of a type lead from some neurons of a source to each target: (sources, targets)."""
    passed: list[Way] = []
    marks: dict[str, Any] = {}
    for way in ways:
        layer = next((layer for layer, _ in way if isinstance(layer.synapse, WEIGHTED)), None)
        own = types["" if layer is None else layer.name] == kind
        if own.any():
            passed.append(way)
            if layer is not None:
                marks[layer.name] = replace(layer.synapse, weight=own.astype(np.float64), bias=None)  # type: ignore[type-var]
    if len(passed) == 1 and marks and all(isinstance(layer.synapse, (Dense, Flatten)) for layer, _ in passed[0]):
        yield from (mark.weight.T for mark in marks.values())
    elif passed:
        yield from sum_cells(shape, passed, marks)
