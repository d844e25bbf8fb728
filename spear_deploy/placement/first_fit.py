"""Which is the first core that still holds a part of a layer? Cores that fill up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.layers import Array
from spear_deploy.placement.axon_sets import AxonSet
from spear_deploy.placement.cores import UNLIMITED, Core

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
