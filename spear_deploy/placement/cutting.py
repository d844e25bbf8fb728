"""Into which boxes do the layers of a network fall, and what does each need?"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from spear_deploy.placement.cores import UNLIMITED, Core, Cuts, Target, copies_for, targets_by_source
from spear_deploy.placement.first_fit import Item
from spear_deploy.placement.splitting import PackingName, by_neurons, split, with_axons_out
from spear_deploy.populations import Population
from spear_deploy.synapse_memory import Box

ROUNDS = 6
"""How often layers are cut again because the cores of their targets changed: loops settle within a few."""
MOST_BOXES = 20_000
"""Boxes that are looked at one by one, if the chips at hand have no more cores."""


class Parts:
    """Layers cut into boxes, and what each box needs.

    A network that takes far more cores than there are is not cut to the end: `boxes_in_all` says into how many boxes it falls,
    the boxes themselves hold as many neurons as a core, whatever else they need.
    """

    def __init__(
        self, found: Sequence[Population], cores: Sequence[Core], packing: PackingName, known: dict[Any, Cuts], chips: int
    ) -> None:
        self.found, self.cores, self.packing, self.known = tuple(found), cores, packing, known
        self.targets: dict[str, list[Target]] = targets_by_source(found)
        self.cuts, self.copies = self._cut()
        self.boxes_in_all = sum(prod(len(along) for along in cuts) for cuts in self.cuts.values())
        core = cores[0]
        self.hopeless = self.boxes_in_all > max(MOST_BOXES, core.profile.cores_limit(chips) or 0)
        if self.hopeless:
            least = sum(population.neurons for population in found) // MOST_BOXES + 1
            self.cuts = {p.name: by_neurons(p, max(least, min(core.neurons, p.neurons))) for p in found}
            self.copies = dict.fromkeys(self.copies, 1)
        self.target_cores = {p.name: core.target_cores(p, self.cuts, self.targets) for p in found}
        self.boxes: list[tuple[Population, Box]] = []
        self.items = self._items()

    def _cut(self) -> tuple[dict[str, Cuts], dict[str, int]]:
        """Cut the layers, last ones first: how many cores a neuron's spikes go to decides how often it stands on its own."""
        cuts: dict[str, Cuts] = {}
        copies: dict[str, int] = {}
        copied = self.cores[0].profile.synapse_memory.format.value == "crossbar"
        limited = self.cores[0].most_targets if copied else UNLIMITED
        for _ in range(ROUNDS):
            before = dict(cuts)
            for population in reversed(self.found):
                copies[population.name] = copies_for(self.cores[0].target_cores(population, cuts, self.targets), limited)
                cuts[population.name] = self._split(population, copies[population.name])
            for population in reversed(self.found):
                core = self._core_for(population)
                cuts[population.name] = with_axons_out(population, core, cuts, self.targets)
            if cuts == before or len(copies) == sum(copies.values()):
                break
        return cuts, copies

    def _split(self, population: Population, copies: int) -> Cuts:
        core = self._core_for(population)
        bits = tuple(core.weight_bits.get(p.layer) for p in population.projections)
        divided = core.profile.packing.rule.value == "divide"
        key = (population, self.packing if divided else "", copies, *bits)
        if key not in self.known:
            self.known[key] = split(population, core, self.packing, copies)
        return self.known[key]

    def _core_for(self, population: Population) -> Core:
        """Return the kind of core by which a layer is cut: the one that takes it in the fewest pieces."""
        if len(self.cores) == 1 or self.cores[0].profile.packing.rule.value == "whole":
            return self.cores[0]

        def pieces(core: Core) -> int:
            return prod(len(along) for along in split(population, core, self.packing))

        return min(self.cores, key=pieces)

    def _items(self) -> list[Item]:
        """Return what has to be seated, and note the boxes."""
        core, found = self.cores[0], []
        for population in self.found:
            cuts = self.cuts[population.name]
            out = core.axons_from(population, self.cuts, self.targets).transpose().reshape(-1).tolist()
            destinations = len({target.name for target, _ in self.targets.get(population.name, ())})
            boxes = core.needs_of_all(population, cuts, self.copies[population.name])
            for axons_out, (box, needs) in zip(out, boxes, strict=True):
                needs = {**needs, "axons_out": axons_out, "destinations": destinations}
                axons = () if core.rule is not None else tuple(core.axon_sets(population, box))
                found.append(Item(layer=population.name, needs=needs, axons=axons, readout=population.output))
                self.boxes.append((population, box))
        return found

    def orders(self) -> list[list[int]]:
        """Return orders in which first fit may do better than in that of the layers: by the share of a core, large ones first."""
        limits = self.cores[0].limits
        items = self.items

        def share(i: int) -> float:
            return max((items[i].needs.get(name) or 0) / limits[name] for name in limits if name != "layers")

        indices = list(range(len(items)))
        return [indices, sorted(indices, key=lambda i: (-share(i), i))]
