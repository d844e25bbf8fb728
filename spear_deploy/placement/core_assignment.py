"""On which core does each part of a layer lie? One a core, several on a core, or matched to cores that differ.

    alike, one a core        in order
    several on a core        first fit: the first core on which all limits are still kept, an input axon that it has already
                             counted once
    cores that differ        maximum bipartite matching of parts and cores, so that a core is found wherever there is one;
                             with several on a core first fit over the cores of the right role

What finds no core takes one that does not exist; then the check says that there are too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.placement.core_needs import UNLIMITED, AxonSet, Core


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where an item lies.

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


def seats(
    items: Sequence[Item],
    profile: HardwareProfile,
    cores: Sequence[Core],
    chips: int,
    *,
    share: bool,
    order: Sequence[int] | None = None,
) -> list[Seat]:
    """Seat the parts of a network.

    Args:
        items: in the order of the layers.
        profile: the chip.
        cores: the limits of each group, or of the only kind of core.
        chips: how many there are.
        share: whether slices of several layers may lie on one core.
        order: in which first fit takes the items; cores are numbered along the layers all the same, neighbours together.
    """
    if not profile.core_groups:
        index = _first_fit(items, cores[0], order or range(len(items))) if share else list(range(len(items)))
        return [Seat(core=core, chip=chip) for core, chip in zip(index, _chips(index, items, profile, chips), strict=True)]
    places = _places(profile, chips)
    found = _shared_places(items, cores, profile, places) if share else _matched_places(items, cores, profile, places)
    return _numbered(found, items, cores, profile)


def unmatched(items: Sequence[Item], given: Sequence[Seat], profile: HardwareProfile) -> list[int]:
    """Return the items that no core is left for, on a chip whose cores differ."""
    return [i for i, seat in enumerate(given) if profile.core_groups and seat.slot is None]


def competing(
    items: Sequence[Item], given: Sequence[Seat], profile: HardwareProfile, cores: Sequence[Core], chips: int, item: int
) -> tuple[list[int], int]:
    """Return the items that compete with one that found no core, and how many cores there are for them all.

    From the unmatched item to the cores that could hold it, to the items there, and so on: these items together have only
    those cores (Hall's condition fails).
    """
    places = _places(profile, chips)
    at = {(seat.chip, seat.slot): i for i, seat in enumerate(given) if seat.slot is not None}
    reached, wanted, waiting = {item}, set(), [item]
    while waiting:
        one = waiting.pop()
        for place in places:
            if (place.chip, place.slot) in wanted or not _may(items[one], cores[place.group], profile, place.group):
                continue
            wanted.add((place.chip, place.slot))
            other = at.get((place.chip, place.slot))
            if other is not None and other not in reached:
                reached.add(other)
                waiting.append(other)
    return sorted(reached), len(wanted)


# --------------------------------------------------------------------------------------------------- cores that are alike


def _first_fit(items: Sequence[Item], core: Core, order: Sequence[int]) -> list[int]:
    """Return a core for each item: the first that still holds it, among the last ones that were opened."""
    bins = Bins(core, items, len(items))
    place = {i: bins.put(items[i], bins.open) for i in order}
    number: dict[int, int] = {}
    return [number.setdefault(place[i], len(number)) for i in range(len(items))]


def _chips(index: Sequence[int], items: Sequence[Item], profile: HardwareProfile, chips: int) -> list[int]:
    """Return the chip of each item: cores fill chips in order, and a memory of the chip's own ends a chip before its cores do."""
    per_chip = profile.chip.usable_cores.most
    shared = profile.chip.memory_words.most if profile.synapse_memory.scope.value == "chip" else None
    if shared is None:
        return [0 if per_chip is None else core // per_chip for core in index]
    words: dict[int, int] = {}
    for core, item in zip(index, items, strict=True):
        words[core] = words.get(core, 0) + (item.needs.get("synapse_memory") or 0)
    chip, filled, taken, of_core = 0, 0, 0, {}
    for core in sorted(words):
        full = taken > 0 and filled + words[core] > shared and chip + 1 < chips
        if full or (per_chip is not None and taken == per_chip):
            chip, filled, taken = chip + 1, 0, 0
        of_core[core] = chip
        filled, taken = filled + words[core], taken + 1
    return [of_core[core] for core in index]


# --------------------------------------------------------------------------------------------------- cores that differ


def _places(profile: HardwareProfile, chips: int) -> list[_Place]:
    found = []
    for chip in range(chips):
        slot = 0
        for group, block in enumerate(profile.core_groups):
            for _ in range(block.count.most or 0):
                found.append(_Place(group=group, slot=slot, chip=chip))
                slot += 1
    return found


def _allowed(item: Item, profile: HardwareProfile, group: int) -> bool:
    """Say whether a group's role takes an item: the last layer goes to readout cores where there are any."""
    roles = [block.role.value for block in profile.core_groups]
    if item.readout and "readout" in roles:
        return roles[group] == "readout"
    return roles[group] != "readout"


def _may(item: Item, core: Core, profile: HardwareProfile, group: int) -> bool:
    if not _allowed(item, profile, group):
        return False
    return all((item.needs.get(name) or 0) <= core.limits[name] for name in (*ADDED, "axons_in", "destinations"))


def _matched_places(
    items: Sequence[Item], cores: Sequence[Core], profile: HardwareProfile, places: Sequence[_Place]
) -> list[_Place | None]:
    """Match items to cores, as many as can be; equal cores in the order of the layers."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(len(items)))
    for i, item in enumerate(items):
        fitting = {g for g in range(len(cores)) if _may(item, cores[g], profile, g)}
        graph.add_edges_from((i, len(items) + k) for k, place in enumerate(places) if place.group in fitting)
    matching = nx.bipartite.hopcroft_karp_matching(graph, top_nodes=range(len(items)))
    found = {i: places[matching[i] - len(items)] for i in range(len(items)) if i in matching}
    by_group: dict[int, list[int]] = {}
    for i in sorted(found):
        by_group.setdefault(found[i].group, []).append(i)
    for group, members in by_group.items():
        for i, place in zip(members, [place for place in places if place.group == group], strict=False):
            found[i] = place
    return [found.get(i) for i in range(len(items))]


def _shared_places(
    items: Sequence[Item], cores: Sequence[Core], profile: HardwareProfile, places: Sequence[_Place]
) -> list[_Place | None]:
    """Fill the cores of the groups that take an item, in order; a chip that cuts no layer overfills its emptiest core."""
    whole = profile.packing.rule.value == "whole"
    bins = [Bins(core, items, len(places)) for core in cores]
    found: list[_Place | None] = []
    for item in items:
        open_places = [k for k, place in enumerate(places) if _allowed(item, profile, place.group)]
        chosen = -1
        for group in dict.fromkeys(places[k].group for k in open_places):
            among = [k for k in open_places if places[k].group == group]
            chosen = bins[group].put(item, among, new=False)
            if chosen >= 0:
                break
        if chosen < 0 and whole and open_places:
            chosen = max(open_places, key=lambda k: (bins[places[k].group].left["neurons"][k], -k))
            bins[places[chosen].group].take(item, chosen)
        found.append(places[chosen] if chosen >= 0 else None)
    return found


def _numbered(
    found: Sequence[_Place | None], items: Sequence[Item], cores: Sequence[Core], profile: HardwareProfile
) -> list[Seat]:
    """Number the cores in order of use; an item without a core is held against the kind that is least too small."""
    index: dict[_Place, int] = {}
    given = []
    taken = 0
    for i, place in enumerate(found):
        if place is None:
            group = min(range(len(cores)), key=lambda g: _overrun(items[i], cores[g], profile, g))
            given.append(Seat(core=taken, group=group, chip=0))
            taken += 1
            continue
        if place not in index:
            index[place] = taken
            taken += 1
        given.append(Seat(core=index[place], group=place.group, slot=place.slot, chip=place.chip))
    return given


def _overrun(item: Item, core: Core, profile: HardwareProfile, group: int) -> tuple[bool, int, float, int]:
    """Rank a kind of core for an item that none holds: the right role, few limits exceeded, by little."""
    shares = [(item.needs.get(name) or 0) / core.limits[name] for name in (*ADDED, "axons_in") if core.limits[name] < UNLIMITED]
    over = [share for share in shares if share > 1]
    return (not _allowed(item, profile, group), len(over), max(over, default=0.0), group)


# FOLDED from spear_deploy/placement/core_assignment.py
# Which is the first core that still holds a part of a layer? Cores that fill up.

ADDED = ("neurons", "synapse_memory", "neuron_memory", "bias_memory", "axons_out")
"""Resources of a core that its slices add up to."""
MOST_OPEN = 256
"""Cores that first fit looks at; older ones that are nearly full stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A part of a layer that needs a core.

    Attributes:
        layer: its name.
        needs: by resource.
        axons: what it takes in, as sets that slices on one core share.
        readout: whether it belongs to the network's output layer.
    """

    layer: str
    needs: Mapping[str, int | None]
    axons: tuple[AxonSet, ...] = ()
    readout: bool = False


class Bins:
    """Cores that fill up; what is left of each resource is an array over cores."""

    def __init__(self, core: Core, items: Sequence[Item], most: int) -> None:
        self.left = {name: np.full(most, core.limits[name], np.int64) for name in (*ADDED, "axons_in", "layers")}
        self.least = {name: min((item.needs.get(name) or 0 for item in items), default=0) for name in ADDED}
        self.layered = core.limits["layers"] < UNLIMITED
        self.used = 0
        self.open: list[int] = []
        self.of_layer: dict[str, set[int]] = {}
        self.axons: dict[AxonSet, set[int]] = {}

    def put(self, item: Item, among: Sequence[int], *, new: bool = True) -> int:
        """Seat an item on the first of some cores that holds it, otherwise on a new one, or nowhere (-1)."""
        places = np.array(among, np.int64)
        fits = np.ones(len(places), bool)
        for name in ADDED:
            need = item.needs.get(name) or 0
            if need:
                fits &= self.left[name][places] >= need
        if self.layered:
            own = self.of_layer.get(item.layer, set())
            fits &= (self.left["layers"][places] >= 1) | np.array([place in own for place in among], bool)
        place = self._first(item, places[fits])
        if place >= 0:
            self.take(item, place)
            return place
        if not new:
            return -1
        self.take(item, self.used)
        return self.used - 1

    def _first(self, item: Item, places: Array) -> int:
        """Return the first core that has room for the axons as well, or -1."""
        room = np.flatnonzero(self.left["axons_in"][places] >= (item.needs.get("axons_in") or 0))
        found = int(places[room[0]]) if len(room) else -1
        known = {place for one in item.axons for place in self.axons.get(one, ())}
        for place in places[: room[0] if len(room) else None].tolist() if known else ():
            if place in known and self.left["axons_in"][place] >= self._new_axons(item, place):
                return int(place)
        return found

    def take(self, item: Item, place: int) -> None:
        """Seat an item on a core whether it is held there or not."""
        if place >= self.used:
            self.used = place + 1
            self.open.append(place)
        self.left["axons_in"][place] -= self._new_axons(item, place)
        for name in ADDED:
            self.left[name][place] -= item.needs.get(name) or 0
        layers = self.of_layer.setdefault(item.layer, set())
        self.left["layers"][place] -= place not in layers
        layers.add(place)
        for one in item.axons:
            self.axons.setdefault(one, set()).add(place)
        full = any(self.least[name] > 0 and self.left[name][place] < self.least[name] for name in ADDED)
        if full and place in self.open:
            self.open.remove(place)
        if len(self.open) > MOST_OPEN:
            del self.open[0]

    def _new_axons(self, item: Item, place: int) -> int:
        """Count the axons that an item adds to a core."""
        shared = sum(one.count for one in item.axons if place in self.axons.get(one, ()))
        return (item.needs.get("axons_in") or 0) - shared
