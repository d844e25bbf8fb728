"""Slices assigned to cores in order, by first fit or by matching.

    alike, one a core        in order
    several on a core        first fit: the first core on which all limits are still kept; an axon that two slices share
                             counts once
    cores that differ        maximum bipartite matching (Hopcroft-Karp) of slices and cores, so that a core is found wherever
                             one exists; with several on a core first fit over the cores of the right role

A slice for which no core is left takes one beyond those of the chip; then the check reports too few cores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.placement.axon_sets import AxonSet
from spear_deploy.placement.core_axons import AxonRows, find_axon_bits
from spear_deploy.placement.core_needs import UNLIMITED, Core

ADDED = ("neurons", "synapse_memory", "neuron_memory", "bias_memory", "axons_out")
"""Resources of a core that its slices add up to."""
COLUMNS = (*ADDED, "axons_in", "layers")
"""Resources of which cores have room left; axons may be shared, a layer counts once a core."""
MAX_OPEN = 256
"""Cores that first fit looks at; older ones that are nearly full stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a layer that needs a core.

    Attributes:
        layer: its name.
        needs: amounts by resource; None where the chip's format is not public.
        axons: its source neurons, as sets that slices on one core share.
        readout: whether it belongs to the network's output layer.
    """

    layer: str
    needs: Mapping[str, int | None]
    axons: tuple[AxonSet, ...] = ()
    readout: bool = False

    def amount(self, resource: str) -> int:
        """Return what it needs of a resource, 0 where that is not known."""
        return self.needs.get(resource) or 0


@dataclass(frozen=True, kw_only=True)
class CoreSupply:
    """The cores that slices are assigned to.

    Attributes:
        profile: the chip.
        cores: the limits of each group of cores, or of the only kind.
        chips: number of chips.
        share: whether slices of several layers may lie on one core.
    """

    profile: HardwareProfile
    cores: tuple[Core, ...]
    chips: int
    share: bool

    def allows(self, item: Slice, group: int) -> bool:
        """Return whether a group's role takes an item: `readout` the last layer, `hidden` the others, any other role both."""
        return self.profile.core_groups[group].role.value != ("hidden" if item.readout else "readout")

    def fits(self, item: Slice, group: int) -> bool:
        """Return whether an empty core of a group takes an item."""
        limits = self.cores[group].limits
        return self.allows(item, group) and all(
            item.amount(name) <= limits[name] for name in (*ADDED, "axons_in", "destinations")
        )

    def list_places(self) -> list[_Place]:
        """Return every core of all chips with groups, in the order of the profile."""
        places = []
        for chip in range(self.chips):
            slot = 0
            for group, block in enumerate(self.profile.core_groups):
                for _ in range(block.count.max_value or 0):
                    places.append(_Place(group=group, slot=slot, chip=chip))
                    slot += 1
        return places


@dataclass(frozen=True, kw_only=True)
class CoreAssignment:
    """The core of a slice.

    Attributes:
        core: index in order of use, from 0.
        group: index of the core's group, or None where all are alike.
        slot: the core's number on the chip as the profile counts, or None if it does not exist or all are alike.
        chip: index of the chip.
    """

    core: int
    group: int | None = None
    slot: int | None = None
    chip: int = 0


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A core of a chip with groups."""

    group: int
    slot: int
    chip: int


def assign_cores(items: Sequence[Slice], supply: CoreSupply, *, order: Sequence[int] | None = None) -> list[CoreAssignment]:
    """Assign the slices of a network to cores.

    Args:
        items: slices in the order of the layers.
        supply: the cores.
        order: in which first fit takes the items; cores are numbered along the layers all the same, neighbours together.
    """
    if not supply.profile.core_groups:
        index = list(range(len(items)))
        if supply.share:
            index = _first_fit(items, supply.cores[0], order or index)
        chips = _assign_chips(index, items, supply)
        return [CoreAssignment(core=core, chip=chip) for core, chip in zip(index, chips, strict=True)]
    return _number_cores(_fill_places(items, supply) if supply.share else _match_places(items, supply), items, supply)


def unplaced_items(assignments: Sequence[CoreAssignment], profile: HardwareProfile) -> list[int]:
    """Return the items that no core is left for, on a chip whose cores differ."""
    return [i for i, assignment in enumerate(assignments) if profile.core_groups and assignment.slot is None]


def competing_for_cores(
    items: Sequence[Slice], assignments: Sequence[CoreAssignment], supply: CoreSupply, item: int
) -> tuple[list[int], int]:
    """Return the items that compete with an unplaced one, and how many cores there are for them all.

    From the unplaced item to the cores that could hold it, to the items there and those that wait for them, and so on: these
    items together have only those cores (Hall's condition fails).
    """
    places = supply.list_places()
    occupant = {(a.chip, a.slot): i for i, a in enumerate(assignments) if a.slot is not None}
    waiting = unplaced_items(assignments, supply.profile)
    competitors, cores, groups, queue = {item}, set[tuple[int, int]](), set[int](), [item]
    while queue:
        current = items[queue.pop()]
        for place in places:
            core = (place.chip, place.slot)
            if core in cores or not supply.fits(current, place.group):
                continue
            if place.group not in groups:
                groups.add(place.group)
                rivals = [i for i in waiting if i not in competitors and supply.fits(items[i], place.group)]
                competitors.update(rivals)
                queue += rivals
            cores.add(core)
            other = occupant.get(core)
            if other is not None and other not in competitors:
                competitors.add(other)
                queue.append(other)
    return sorted(competitors), len(cores)


class CoreBins:
    """Cores that fill up; what is left of each resource is a row a core."""

    def __init__(self, core: Core, items: Sequence[Slice], max_cores: int) -> None:
        self.left = np.tile(np.array([core.limits[name] for name in COLUMNS], np.int64), (max_cores, 1))
        self.min_needs = np.array([min((item.amount(name) for item in items), default=0) for name in ADDED], np.int64)
        self.has_layer_limit = core.limits["layers"] < UNLIMITED
        self.used = 0
        self.open: list[int] = []
        self.cores_of_layer: dict[str, set[int]] = {}
        self.rows: dict[object, AxonRows] = {}
        self.needs = {id(item): np.array([item.amount(name) for name in ADDED], np.int64) for item in items}
        sets = {tuple(map(id, item.axons)): item.axons for item in items}
        bits = {key: find_axon_bits(axons) for key, axons in sets.items()}
        self.axons = {id(item): bits[tuple(map(id, item.axons))] for item in items}
        self.first_cores: dict[int, int] = {}

    def put_first(self, item: Slice) -> int:
        """Place an item on the first open core that holds it, otherwise on a new one.

        A core that did not hold an item does not hold its equal either: what is left of it only gets less, and an axon that it
        gained took the room that it saves.
        """
        start = bisect_left(self.open, self.first_cores.get(id(item), 0))
        self.first_cores[id(item)] = core = self.put(item, self.open[start:])
        return core

    def put(self, item: Slice, candidates: Sequence[int], *, new: bool = True) -> int:
        """Place an item on the first of the candidate cores that holds it, otherwise on a new one, or nowhere (-1)."""
        core = self._find_core(item, np.array(candidates, np.int64)) if candidates else -1
        if core < 0 and new:
            core = self.used
        if core >= 0:
            self.take(item, core)
        return core

    def _find_core(self, item: Slice, cores: Array) -> int:
        """Return the first core that holds an item, or -1."""
        need, left = self.needs[id(item)], self.left[cores]
        fits = ((left[:, :-2] >= need) | (need == 0)).all(axis=1)
        if self.has_layer_limit:
            own = self.cores_of_layer.get(item.layer, set())
            fits &= (left[:, -1] >= 1) | np.array([core in own for core in cores.tolist()], bool)
        if not fits.any():
            return -1
        cores, axons_left = cores[fits], left[fits, -2]
        # behind the first core that has room though it shares no axon, none is looked at
        sure = np.flatnonzero(axons_left >= item.amount("axons_in"))
        cores, axons_left = (values[: sure[0] + 1] if len(sure) else values for values in (cores, axons_left))
        room = np.flatnonzero(axons_left >= self._count_new_axons(item, cores))
        return int(cores[room[0]]) if len(room) else -1

    def take(self, item: Slice, core: int) -> None:
        """Place an item on a core, whether the core has room or not."""
        new_axons = item.amount("axons_in")
        if core >= self.used:
            self.used = core + 1
            self.open.append(core)
        else:
            new_axons = self._count_new_axons(item, np.array([core], np.int64))[0]
        left, cores = self.left[core], self.cores_of_layer.setdefault(item.layer, set())
        left[:-2] -= self.needs[id(item)]
        left[-2] -= new_axons
        left[-1] -= core not in cores
        cores.add(core)
        for axons in self.axons[id(item)]:
            self.rows.setdefault(axons.key, AxonRows()).add(axons, core)
        is_full = bool(((self.min_needs > 0) & (left[:-2] < self.min_needs)).any())
        if is_full and core in self.open:
            self.open.remove(core)
        if len(self.open) > MAX_OPEN:
            del self.open[0]

    def _count_new_axons(self, item: Slice, cores: Array) -> Array:
        """Count the axons that an item adds to each of some cores, in rising order: int64 (cores,)."""
        new = np.full(len(cores), item.amount("axons_in"), np.int64)
        for axons in self.axons[id(item)]:
            if axons.key in self.rows:
                new -= self.rows[axons.key].count_had(axons, cores)
        return new


# --------------------------------------------------------------------------------------------------- cores that are alike


def _first_fit(items: Sequence[Slice], core: Core, order: Sequence[int]) -> list[int]:
    """Return a core for each item: the first that still holds it, among the last ones that were opened."""
    bins = CoreBins(core, items, len(items))
    cores = {i: bins.put_first(items[i]) for i in order}
    number: dict[int, int] = {}
    return [number.setdefault(cores[i], len(number)) for i in range(len(items))]


def _assign_chips(index: Sequence[int], items: Sequence[Slice], supply: CoreSupply) -> list[int]:
    """Return the chip of each item: cores fill chips in order; a memory shared by a chip's cores may end the chip earlier."""
    profile = supply.profile
    per_chip = profile.chip.usable_cores.max_value
    shared_words = profile.chip.memory_words.max_value if profile.synapse_memory.scope.value == "chip" else None
    if shared_words is None:
        return [0 if per_chip is None else core // per_chip for core in index]
    words: dict[int, int] = {}
    for core, item in zip(index, items, strict=True):
        words[core] = words.get(core, 0) + item.amount("synapse_memory")
    chip, chip_words, chip_cores, chip_of_core = 0, 0, 0, {}
    for core in sorted(words):
        is_full = chip_cores > 0 and chip_words + words[core] > shared_words and chip + 1 < supply.chips
        if is_full or (per_chip is not None and chip_cores == per_chip):
            chip, chip_words, chip_cores = chip + 1, 0, 0
        chip_of_core[core] = chip
        chip_words, chip_cores = chip_words + words[core], chip_cores + 1
    return [chip_of_core[core] for core in index]


# --------------------------------------------------------------------------------------------------- cores that differ


def _match_places(items: Sequence[Slice], supply: CoreSupply) -> list[_Place | None]:
    """Match items to cores, as many as can be; equal cores in the order of the layers."""
    import networkx as nx

    places = supply.list_places()
    graph = nx.Graph()
    graph.add_nodes_from(range(len(items)))
    for i, item in enumerate(items):
        groups = {group for group in range(len(supply.cores)) if supply.fits(item, group)}
        graph.add_edges_from((i, len(items) + k) for k, place in enumerate(places) if place.group in groups)
    matching = nx.bipartite.hopcroft_karp_matching(graph, top_nodes=range(len(items)))
    matched = {i: places[matching[i] - len(items)] for i in range(len(items)) if i in matching}
    by_group: dict[int, list[int]] = {}
    for i in sorted(matched):
        by_group.setdefault(matched[i].group, []).append(i)
    for group, members in by_group.items():
        for i, place in zip(members, [place for place in places if place.group == group], strict=False):
            matched[i] = place
    return [matched.get(i) for i in range(len(items))]


def _fill_places(items: Sequence[Slice], supply: CoreSupply) -> list[_Place | None]:
    """Fill the cores of the groups that take an item, in order; where that leaves items over, those that few cores hold first."""
    chosen = _fill_in_order(items, supply, range(len(items)))
    if None not in chosen:
        return chosen
    places = supply.list_places()
    holds = [sum(supply.fits(item, place.group) for place in places) for item in items]
    again = _fill_in_order(items, supply, sorted(range(len(items)), key=lambda i: holds[i]))
    return min(chosen, again, key=lambda found: found.count(None))


def _fill_in_order(items: Sequence[Slice], supply: CoreSupply, order: Sequence[int]) -> list[_Place | None]:
    """Put items on the first core that still holds them; a chip that cuts no layer overfills its emptiest core."""
    places = supply.list_places()
    bins = [CoreBins(core, items, len(places)) for core in supply.cores]
    chosen: list[_Place | None] = [None] * len(items)
    for i in order:
        item = items[i]
        allowed = [k for k, place in enumerate(places) if supply.allows(item, place.group)]
        index = -1
        for group in dict.fromkeys(places[k].group for k in allowed):
            index = bins[group].put(item, [k for k in allowed if places[k].group == group], new=False)
            if index >= 0:
                break
        if index < 0 and supply.profile.packing.rule.value == "whole" and allowed:
            index = max(allowed, key=lambda k: (bins[places[k].group].left[k, 0], -k))
            bins[places[index].group].take(item, index)
        chosen[i] = places[index] if index >= 0 else None
    return chosen


def _number_cores(places: Sequence[_Place | None], items: Sequence[Slice], supply: CoreSupply) -> list[CoreAssignment]:
    """Number the cores in order of use; an item without a core is compared with the kind that is least too small."""
    index: dict[_Place, int] = {}
    assignments = []
    used = 0
    for item, place in zip(items, places, strict=True):
        if place is None:
            *_, group = min(_rank_overrun(item, supply, group) for group in range(len(supply.cores)))
            assignments.append(CoreAssignment(core=used, group=group, chip=0))
            used += 1
            continue
        if place not in index:
            index[place] = used
            used += 1
        assignments.append(CoreAssignment(core=index[place], group=place.group, slot=place.slot, chip=place.chip))
    return assignments


def _rank_overrun(item: Slice, supply: CoreSupply, group: int) -> tuple[bool, int, float, int]:
    """Rank a kind of core for an item that none holds: the right role, few limits exceeded, by little."""
    limits = supply.cores[group].limits
    shares = [item.amount(name) / limits[name] for name in (*ADDED, "axons_in") if limits[name] < UNLIMITED]
    over = [share for share in shares if share > 1]
    return (not supply.allows(item, group), len(over), max(over, default=0.0), group)
