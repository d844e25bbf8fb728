"""Which core holds what? Layers cut into slices, one slice a core, with the memory and the axons that each needs.

Two packings: `vendor` splits as the chip's own tool does (this is what a verdict is about), `fewest` splits into as few
cores as the limits allow (what is left to gain by placing by hand). The rules are in `splitting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

from spear_deploy.cores import Core, targets_by_source
from spear_deploy.graph import SNNGraph
from spear_deploy.populations import Population, populations
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.splitting import PackingName, split, with_axons_out
from spear_deploy.synapse_memory import Box, size, stored_bits


@dataclass(frozen=True, kw_only=True)
class CoreSlice:
    """The part of a layer that lies on one core.

    Attributes:
        core: index of the core, from 0; chips are filled in order.
        layer: name of the layer with the neurons.
        box: start and stop along each axis of the layer's shape.
    """

    core: int
    layer: str
    box: Box
    neurons: int
    memory_words: int
    axons_in: int
    axons_out: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A network on cores."""

    profile: str
    packing: PackingName
    slices: tuple[CoreSlice, ...]
    chips: int
    cores_limit: int | None
    populations: tuple[Population, ...]

    @property
    def cores_used(self) -> int:
        """Number of cores."""
        return len(self.slices)

    @property
    def chips_used(self) -> int:
        """Number of chips that the cores fill."""
        per_chip = None if self.cores_limit is None else self.cores_limit // self.chips
        return 1 if per_chip is None else max(1, ceil(self.cores_used / per_chip))

    @cached_property
    def _by_layer(self) -> dict[str, tuple[CoreSlice, ...]]:
        found: dict[str, list[CoreSlice]] = {}
        for part in self.slices:
            found.setdefault(part.layer, []).append(part)
        return {name: tuple(parts) for name, parts in found.items()}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with neurons, in the graph's order."""
        return tuple(self._by_layer)

    def of(self, layer: str) -> tuple[CoreSlice, ...]:
        """Return the slices of a layer."""
        return self._by_layer[layer]


def place(graph: SNNGraph, profile: HardwareProfile, *, chips: int = 1, packing: PackingName = "vendor") -> Placement:
    """Place a network on the cores of a chip.

    Never fails: what does not fit takes more cores than there are, or overfills one, and the budget check says so.
    """
    return place_populations(populations(graph), stored_bits(graph, profile), profile, chips=chips, packing=packing)


def place_populations(
    found: Sequence[Population],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    chips: int = 1,
    packing: PackingName = "vendor",
    known: dict[Any, tuple[Box, ...]] | None = None,
) -> Placement:
    """Place populations; the form in which a narrower or coarser network is tried without its weights.

    `known` remembers how populations were split, so that a network that differs in one layer is split again only there.
    """
    core = Core(profile, weight_bits)
    known = {} if known is None else known
    boxes = {}
    for population in found:
        key = (population, packing, *(weight_bits.get(p.layer) for p in population.projections))
        if key not in known:
            known[key] = tuple(split(population, core, packing))
        boxes[population.name] = list(known[key])
    targets = targets_by_source(found)
    for population in reversed(found):
        boxes[population.name] = with_axons_out(population, core, boxes, targets)
    slices: list[CoreSlice] = []
    for population in found:
        for box in boxes[population.name]:
            slices.append(
                CoreSlice(
                    core=len(slices),
                    layer=population.name,
                    box=box,
                    neurons=size(box),
                    memory_words=core.words(population, box),
                    axons_in=core.axons_into(population, box),
                    axons_out=core.axons_from(population, box, boxes, targets),
                )
            )
    return Placement(
        profile=profile.name,
        packing=packing,
        slices=tuple(slices),
        chips=chips,
        cores_limit=profile.cores_limit(chips),
        populations=tuple(found),
    )


def lower_bound(found: Sequence[Population], weight_bits: Mapping[str, int], profile: HardwareProfile) -> int:
    """Return a number of cores that no split goes below: by neurons, and by the bits of weights that nothing shares."""
    core = Core(profile, weight_bits)
    default = int(profile.weights.default_bits.value or 0)
    memory_bits = core.memory * int(profile.synapse_memory.word_bits.value or 1)
    total = 0
    for population in found:
        bits = sum(
            p.channels * p.outputs * weight_bits.get(p.layer, default) for p in population.projections if p.kind == "dense"
        )
        total += max(1, -(-population.neurons // core.neurons), -(-bits // memory_bits))
    return total
