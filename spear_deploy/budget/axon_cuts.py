"""Cuts of layers with which TrueNorth's cores have room for all axons, and cores that the pieces share.

Fewer neurons on a core read fewer types of a source, and need fewer axons; where fewer lie on a core their copies have room. So
layers are halved until each piece has room on a core of its own, and pieces then share cores by what is counted of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from spear_deploy.budget.axon_room import (
    CoreRooms,
    KeptCounts,
    count_on_cores,
    count_pairs,
    find_shortage,
    find_weight_types,
    measure_core_rooms,
    measure_rooms_by_type,
)
from spear_deploy.budget.core_rows import check_cores
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.spike_paths import find_spike_paths
from spear_deploy.placement.core_needs import Cuts
from spear_deploy.placement.place import Placement, place_populations, share_counted_cores
from spear_deploy.placement.populations import Population
from spear_deploy.placement.splitting import cut_evenly

MAX_ROUNDS = 24
"""Times that layers are halved in search of room."""
MAX_SEARCHED_PAIRS = 1 << 19
"""Pairs of neurons up to which layers are halved, each time with a count of all axons."""


def fit_axons(
    graph: SNNGraph,
    placement: Placement,
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    max_cores: int | None = None,
) -> Placement | None:
    """Return a placement whose cores have room for all axons, layers cut finer where they need it; None where none is found.

    The amounts of its cores are those with the axons of all types.

    Args:
        graph: the network in integers.
        placement: of the network.
        weight_bits: of a stored weight, by layer.
        profile: the chip.
        max_cores: that the placement may take.
    """
    try:
        paths = find_spike_paths(graph)
    except UnsupportedError:
        return None
    types = None if placement.more_cores else find_weight_types(graph, paths, profile)
    if types is None:
        return None
    pairs, most = sum(count_pairs(graph, path) for path in paths), math.inf if max_cores is None else max_cores
    kept: KeptCounts | None = None if pairs > MAX_SEARCHED_PAIRS else {}

    def count(candidate: Placement) -> tuple[Placement, set[str]]:
        """Return a placement with the amounts of its cores, and the layers on cores without room."""
        rooms = measure_rooms_by_type(graph, paths, candidate, types, kept)
        counted = count_on_cores(candidate, rooms, profile)
        return counted, _find_crowded_layers(rooms, counted, profile)

    def pack(cuts: Mapping[str, Cuts]) -> tuple[Placement | None, set[str]]:
        """Return the pieces of layers on as few cores as first fit needs, None where one has no room on a core of its own."""
        alone, crowded = count(_place_cuts(placement, weight_bits, _forbid_sharing(profile), cuts))
        if crowded:
            return None, crowded
        packed, without_room = count(share_counted_cores(alone, weight_bits, profile))
        return alone if without_room else packed, set()

    cuts, candidate = {p.name: _read_cuts(p, placement) for p in placement.populations}, placement
    for _ in range(MAX_ROUNDS):
        shared, crowded = count(candidate)
        if pairs > MAX_SEARCHED_PAIRS or (candidate is placement and not crowded):
            return shared if not crowded and shared.cores_used <= most else None
        found = [] if crowded else [shared]
        packed, crowded = pack(cuts)
        found += [] if packed is None else [packed]
        if found:
            best = min(found, key=lambda one: one.cores_used)
            return best if best.cores_used <= most else None
        finer = {p.name: _halve(cuts[p.name], p.shape) if p.name in crowded else cuts[p.name] for p in placement.populations}
        if finer == cuts or shared.cores_used > most:
            return None
        cuts, candidate = finer, _place_cuts(placement, weight_bits, profile, finer)
    return None


def count_axons(graph: SNNGraph, placement: Placement, profile: HardwareProfile) -> Placement | None:
    """Return a placement with the amounts of its cores; None where one has no room, or where axons are not counted."""
    rooms = measure_core_rooms(graph, find_spike_paths(graph), placement, profile)
    return None if rooms is None or _find_crowded_layers(rooms, placement, profile) else count_on_cores(placement, rooms, profile)


# ------------------------------------------------------------------------------------------------------------ inside


def _find_crowded_layers(rooms: CoreRooms, placement: Placement, profile: HardwareProfile) -> set[str]:
    """Return the neuron layers on cores without room for axons or neurons, or all where another limit is over.

    Args:
        rooms: of the cores.
        placement: with what is counted on them.
        profile: the chip.
    """
    crowded = {name for room in rooms.cores if find_shortage(room, profile) for name in room.layers}
    if not crowded and any(row.status == "over" for row in check_cores(placement, profile)):
        return set(placement.layers)
    return crowded


def _place_cuts(
    placement: Placement, weight_bits: Mapping[str, int], profile: HardwareProfile, cuts: Mapping[str, Cuts]
) -> Placement:
    return place_populations(placement.populations, weight_bits, profile, chips=placement.chips, own_cuts=cuts)


def _read_cuts(population: Population, placement: Placement) -> Cuts:
    boxes = [part.box for part in placement.slices_of(population.name)]
    return tuple(tuple(sorted({box[k] for box in boxes})) for k in range(len(population.shape)))


def _halve(cuts: Cuts, shape: Shape) -> Cuts:
    """Return cuts whose pieces are half as long, along the axis on which they are longest."""
    extent = [max(stop - start for start, stop in along) for along in cuts]
    longest = extent.index(max(extent))
    extent[longest] = -(-extent[longest] // 2)
    return cut_evenly(shape, extent)


def _forbid_sharing(profile: HardwareProfile) -> HardwareProfile:
    share = profile.packing.share_cores.model_copy(update={"value": False})
    return profile.model_copy(update={"packing": profile.packing.model_copy(update={"share_cores": share})})
