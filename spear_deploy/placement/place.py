"""Which core holds what? Layers cut into slices on cores, with the memory and the axons that each needs.

Two packings: `vendor` splits as the chip's own tool does (this is what a verdict is about), `fewest` splits into as few
cores as the limits allow (what is left to gain by placing by hand). The rules are in `splitting` and `seating`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.core_assignment import Item, Seat, competing, seats, unmatched
from spear_deploy.placement.core_needs import UNLIMITED, Core, Cuts
from spear_deploy.placement.populations import Population, populations, synapses_into
from spear_deploy.placement.splitting import PackingName, Parts
from spear_deploy.placement.synapse_memory import Box, size
from spear_deploy.placement.weight_bits import stored_bits

MOST_PACKED = 10_000
"""Slices that are packed in several orders; of a network that large one order must do."""


@dataclass(frozen=True, kw_only=True)
class CoreSlice:
    """The part of a layer that lies on one core.

    Attributes:
        core: index of the core, from 0, in order of use; of a network that runs in several passes, within its pass.
        layer: name of the layer with the neurons.
        box: start and stop along each axis of the layer's shape.
        neurons: of the network; each stands on the core `copies` times.
        memory_words: synapse memory, None where the chip's format is not public.
        axons_in, axons_out, neuron_words, bias_words, destinations: what the slice needs.
        target_cores: cores that a neuron's spikes go to, at most.
        copies: how often a neuron stands there, where a neuron's spikes can go to few cores only.
        group, slot: kind of core and its number on the chip as the profile counts them; None where all are alike.
        chip, run: of several chips and passes, from 0.
    """

    core: int
    layer: str
    box: Box
    neurons: int
    memory_words: int | None
    axons_in: int
    axons_out: int
    neuron_words: int = 0
    bias_words: int = 0
    destinations: int = 0
    target_cores: int = 0
    copies: int = 1
    group: int | None = None
    slot: int | None = None
    chip: int = 0
    run: int = 0


@dataclass(frozen=True, kw_only=True)
class Stranded:
    """Layers that compete for too few cores of the kinds that can hold them."""

    layers: tuple[str, ...]
    needed: int
    cores: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A network on cores.

    Attributes:
        slices: in the order of the layers.
        items: the same as `seating` sees them, for what slices share on a core.
        cores_limit: of all chips; None where it is unlimited or not published.
        runs: passes that the network takes; 1 on a chip that has none.
        stranded: what found no core, on a chip whose cores differ.
        more_cores: cores that it takes beyond those of the slices, of a network that is far too large to be cut to the end.
    """

    profile: str
    packing: PackingName
    slices: tuple[CoreSlice, ...]
    chips: int
    cores_limit: int | None
    populations: tuple[Population, ...]
    items: tuple[Item, ...] = ()
    runs: int = 1
    stranded: tuple[Stranded, ...] = ()
    more_cores: int = 0

    @cached_property
    def cores_used(self) -> int:
        """Number of cores; of several passes, of the one that takes most."""
        return self.more_cores + max((len({part.core for part in parts}) for parts in self._by_run.values()), default=0)

    @cached_property
    def cores_in_all(self) -> int:
        """Number of cores, passes added up."""
        return self.more_cores + sum(len({part.core for part in parts}) for parts in self._by_run.values())

    @property
    def chips_used(self) -> int:
        """Number of chips that the cores fill."""
        filled = 1 + max((part.chip for part in self.slices), default=0)
        if not self.more_cores or not self.cores_limit:
            return filled
        return max(filled, -(-self.cores_used * self.chips // self.cores_limit))

    @cached_property
    def _by_run(self) -> dict[int, list[CoreSlice]]:
        found: dict[int, list[CoreSlice]] = {}
        for part in self.slices:
            found.setdefault(part.run, []).append(part)
        return found

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
    zeros = profile.synapse_memory.format.value == "word_per_weight"
    return place_populations(populations(graph, zeros=zeros), stored_bits(graph, profile), profile, chips=chips, packing=packing)


def place_populations(
    found: Sequence[Population],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    chips: int = 1,
    packing: PackingName = "vendor",
    known: dict[Any, Cuts] | None = None,
) -> Placement:
    """Place populations; the form in which a narrower or coarser network is tried without its weights.

    `known` remembers how populations were split, so that a network that differs in one layer is split again only there.
    """
    groups = range(len(profile.core_groups))
    cores = [Core(profile, weight_bits, group) for group in groups] or [Core(profile, weight_bits)]
    share = bool(profile.packing.share_cores.value)
    parts = Parts(found, cores, packing, {} if known is None else known, chips)
    best = _seated(parts, parts.items, profile, cores, chips, share=share)
    if packing == "fewest" and profile.packing.rule.value != "whole" and (share or may_share(profile)):
        for order in parts.orders():
            other = _seated(parts, parts.items, profile, cores, chips, share=True, order=order)
            best = min(best, other, key=lambda p: (len(p.stranded), p.cores_in_all, -_together(parts, p)))
    return best


def _together(parts: Parts, placement: Placement) -> int:
    """Count the neurons whose spikes need not leave their core: of slices that lie with a slice of a layer they feed."""
    on: dict[tuple[int, int], set[str]] = {}
    for part in placement.slices:
        on.setdefault((part.run, part.core), set()).add(part.layer)
    fed = {name: {target.name for target, _ in found} for name, found in parts.targets.items()}
    return sum(part.neurons for part in placement.slices if fed.get(part.layer, set()) & on[part.run, part.core])


def tightest(
    placement: Placement, weight_bits: Mapping[str, int], profile: HardwareProfile, *, known: dict[Any, Cuts] | None = None
) -> Placement:
    """Return the placement in as few cores as the limits allow; the given one where there is nothing to gain."""
    rule, sharing = profile.packing.rule.value, bool(profile.packing.share_cores.value) or may_share(profile)
    if rule == "whole" or (rule == "equal" and not sharing) or len(placement.slices) > MOST_PACKED:
        return placement
    found, chips = placement.populations, placement.chips
    return place_populations(found, weight_bits, profile, chips=chips, packing="fewest", known=known)


def may_share(profile: HardwareProfile) -> bool:
    """Say whether several layers may lie on a core, though the chip's tool gives each its own."""
    layers = profile.core.layers.value
    return layers == "unlimited" or (isinstance(layers, int) and layers > 1)


# ------------------------------------------------------------------------------------------------------------ inside


def _seated(
    parts: Parts,
    items: list[Item],
    profile: HardwareProfile,
    cores: Sequence[Core],
    chips: int,
    *,
    share: bool,
    order: Sequence[int] | None = None,
) -> Placement:
    """Seat the boxes, in several passes where the chip has them and needs them."""
    limit = profile.cores_limit(chips)
    several = bool(profile.chip.multi_pass.value) and limit is not None
    runs = _runs(items, profile, cores, chips, share=share) if several else [list(range(len(items)))]
    slices: dict[int, CoreSlice] = {}
    stranded: list[Stranded] = []
    for run, members in enumerate(runs):
        together = [items[i] for i in members]
        given = seats(together, profile, cores, chips, share=share, order=None if several else order)
        stranded += _stranded(together, given, profile, cores, chips)
        for i, seat in zip(members, given, strict=True):
            slices[i] = _slice(parts, items[i], i, seat, run)
    return Placement(
        profile=profile.name,
        packing=parts.packing,
        slices=tuple(slices[i] for i in range(len(items))),
        chips=chips,
        cores_limit=limit,
        populations=parts.found,
        items=tuple(items),
        runs=max(1, len(runs)),
        stranded=tuple(stranded),
        more_cores=parts.boxes_in_all - len(items),
    )


def _slice(parts: Parts, item: Item, index: int, seat: Seat, run: int) -> CoreSlice:
    population, box = parts.boxes[index]
    return CoreSlice(
        core=seat.core,
        layer=population.name,
        box=box,
        neurons=size(box),
        memory_words=item.needs["synapse_memory"],
        axons_in=item.needs["axons_in"] or 0,
        axons_out=item.needs["axons_out"] or 0,
        neuron_words=item.needs["neuron_memory"] or 0,
        bias_words=item.needs["bias_memory"] or 0,
        destinations=item.needs["destinations"] or 0,
        target_cores=parts.target_cores[population.name],
        copies=parts.copies[population.name],
        group=seat.group,
        slot=seat.slot,
        chip=seat.chip,
        run=run,
    )


def _runs(items: Sequence[Item], profile: HardwareProfile, cores: Sequence[Core], chips: int, *, share: bool) -> list[list[int]]:
    """Put layers into passes in order: as many into each as there are cores for."""
    by_layer: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        by_layer.setdefault(item.layer, []).append(i)
    runs: list[list[int]] = []
    for members in by_layer.values():
        if runs and _enough(runs[-1] + members, items, profile, cores, chips, share=share):
            runs[-1] = runs[-1] + members
        else:
            runs.append(members)
    return runs or [[]]


def _enough(
    members: Sequence[int], items: Sequence[Item], profile: HardwareProfile, cores: Sequence[Core], chips: int, *, share: bool
) -> bool:
    together = [items[i] for i in members]
    if not share and len(together) > (profile.cores_limit(chips) or len(together)):
        return False
    given = seats(together, profile, cores, chips, share=share)
    used = len({seat.core for seat in given})
    return used <= (profile.cores_limit(chips) or used) and not unmatched(together, given, profile)


def _stranded(
    items: Sequence[Item], given: Sequence[Seat], profile: HardwareProfile, cores: Sequence[Core], chips: int
) -> list[Stranded]:
    """Name the layers that no core is left for, each set of them once, with those that hold the cores."""
    found: dict[tuple[int, ...], int] = {}
    for i in unmatched(items, given, profile):
        if any(i in members for members in found):
            continue
        members, places = competing(items, given, profile, cores, chips, i)
        if places:
            found[tuple(members)] = places
    return [
        Stranded(layers=tuple(dict.fromkeys(items[i].layer for i in members)), needed=len(members), cores=places)
        for members, places in found.items()
    ]


# FOLDED from spear_deploy/placement/place.py
# Which number of cores does no placement go below? For the ratio that says how good a placement is.


def lower_bound(found: Sequence[Population], weight_bits: Mapping[str, int], profile: HardwareProfile) -> int:
    """Return a number of cores that no split goes below: by neurons, and by the bits of weights that nothing shares.

    Where layers may share a core their needs add up before they are rounded to cores: ceil(Σ need / limit), the largest over
    the resources; elsewhere each layer takes at least one core: Σ max(1, ceil(need / limit)). A chip that cuts no layer needs a
    core for each, or one of each role where they share them.
    """
    if profile.packing.rule.value == "whole":
        own = any(group.role.value == "readout" for group in profile.core_groups)
        kinds = {own and population.output for population in found}
        return len(kinds if profile.packing.share_cores.value else found)
    groups = range(len(profile.core_groups))
    cores = [Core(profile, weight_bits, group) for group in groups] or [Core(profile, weight_bits)]
    neurons, words = max(core.neurons for core in cores), max(core.memory for core in cores)
    if profile.synapse_memory.scope.value == "chip":
        words = UNLIMITED
    needs = [(population.neurons, _least_words(population, cores[0])) for population in found]
    if bool(profile.packing.share_cores.value) or may_share(profile):
        most = min(core.limits["layers"] for core in cores)
        total = (sum(n for n, _ in needs), sum(w for _, w in needs), len(needs))
        return max(_ceil(total[0], neurons), _ceil(total[1], words), _ceil(total[2], most))
    return sum(max(1, _ceil(n, neurons), _ceil(w, words)) for n, w in needs)


def _least_words(population: Population, core: Core) -> int:
    """Return the words that the synapses of a layer take at least, however it is cut."""
    memory = core.profile.synapse_memory
    if memory.format.value in ("crossbar", "word_per_weight"):
        return int(synapses_into(population).sum(dtype=np.int64)) if not population.is_input_layer else 0
    if memory.format.value not in ("list_words", "list_blocks"):
        return 0
    default = int(core.profile.weights.default_bits.value or 0)
    bits = sum(
        p.channels * p.outputs * core.weight_bits.get(p.layer, default) for p in population.projections if p.kind == "dense"
    )
    return _ceil(bits, memory.word_bits.most or 1)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
