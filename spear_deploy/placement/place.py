"""Placement of a network on the cores of a chip.

Three packings: `vendor` splits as the chip's tool does (the verdict of a check is about this one), `fewest` splits into as few
cores as the limits allow (what placing by hand can gain), `balanced` cuts further where a core has most work. The rules are in
`splitting`, `leveling` and `core_assignment`. `lower_bound` is a number of cores that no placement goes below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.core_assignment import (
    CoreAssignment,
    CoreSupply,
    Slice,
    assign_cores,
    competing_for_cores,
    unplaced_items,
)
from spear_deploy.placement.core_needs import UNLIMITED, Core, Cuts
from spear_deploy.placement.populations import Population, count_synapses_into
from spear_deploy.placement.splitting import PackingName, SplitNetwork
from spear_deploy.placement.synapse_memory import Box, ceil_div, count_neurons
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.util.times import timed_stage

ZEROS_LEFT_OUT = ("word_per_weight", "crossbar")
"""Formats in which weights of 0 decide what lies on a core."""
MAX_PACKED = 10_000
"""Slices that are packed in several orders; a larger network is packed in one order only."""


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
class Unplaced:
    """Layers that compete for too few cores of the kinds that can hold them."""

    layers: tuple[str, ...]
    needed: int
    cores: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A network on cores.

    Attributes:
        slices: in the order of the layers.
        items: the same slices with their needs, for what slices share on a core.
        cores_limit: of all chips; None where it is unlimited or not published.
        runs: passes that the network takes; 1 on a chip without passes.
        unplaced: layers without enough cores, on a chip whose cores differ.
        more_cores: cores beyond those of the slices, of a network that is far too large to be cut to the end.
        counted: by pass and core, amounts that are counted weight by weight, in place of those of its slices.
        neuron_copies: where they are counted so, by layer how many times each neuron stands on its core: int64, of its shape.
    """

    profile: str
    packing: PackingName
    slices: tuple[CoreSlice, ...]
    chips: int
    cores_limit: int | None
    populations: tuple[Population, ...]
    items: tuple[Slice, ...] = ()
    runs: int = 1
    unplaced: tuple[Unplaced, ...] = ()
    more_cores: int = 0
    counted: Mapping[tuple[int, int], Mapping[str, int]] = field(default_factory=dict, repr=False)
    neuron_copies: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

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
        chips = 1 + max((part.chip for part in self.slices), default=0)
        if not self.more_cores or not self.cores_limit:
            return chips
        return max(chips, ceil_div(self.cores_used * self.chips, self.cores_limit))

    @cached_property
    def _by_run(self) -> dict[int, list[CoreSlice]]:
        by_run: dict[int, list[CoreSlice]] = {}
        for part in self.slices:
            by_run.setdefault(part.run, []).append(part)
        return by_run

    @cached_property
    def _by_layer(self) -> dict[str, tuple[CoreSlice, ...]]:
        by_layer: dict[str, list[CoreSlice]] = {}
        for part in self.slices:
            by_layer.setdefault(part.layer, []).append(part)
        return {name: tuple(parts) for name, parts in by_layer.items()}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with neurons, in the graph's order."""
        return tuple(self._by_layer)

    def slices_of(self, layer: str) -> tuple[CoreSlice, ...]:
        """Return the slices of a layer."""
        return self._by_layer[layer]

    def copies_on_core(self, part: CoreSlice) -> Array:
        """Return how many times each neuron of a slice stands on its core: int64, in the shape of its box."""
        if self.neuron_copies:
            return self.neuron_copies[part.layer][tuple(slice(*along) for along in part.box)]
        return np.broadcast_to(part.copies, [stop - start for start, stop in part.box])


def place(graph: SNNGraph, profile: HardwareProfile, *, chips: int = 1, packing: PackingName = "vendor") -> Placement:
    """Place a network on the cores of a chip.

    Never fails: what does not fit takes more cores than there are, or overfills one, and the budget check reports it.
    """
    populations = find_chip_populations(graph, profile, zeros=profile.synapse_memory.format.value in ZEROS_LEFT_OUT)
    return place_populations(populations, stored_bits(graph, profile), profile, chips=chips, packing=packing)


def place_populations(
    populations: Sequence[Population],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    chips: int = 1,
    packing: PackingName = "vendor",
    cache: dict[Any, Cuts] | None = None,
    own_cuts: Mapping[str, Cuts] | None = None,
) -> Placement:
    """Place populations; the form in which a narrower or coarser network is checked without its weights.

    They are placed by their depth, and of one depth the largest first: a file may name layers side by side in any order.
    `cache` keeps the cuts of populations, so that of a network that differs in one layer only that layer is split again.
    `own_cuts` are taken for the layers they name, in place of those of the packing.
    """
    with timed_stage("place"):
        ordered = sorted(populations, key=_measure_place)
        return _place_populations(ordered, weight_bits, profile, chips, packing, {} if cache is None else cache, own_cuts)


def _place_populations(
    populations: Sequence[Population],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    chips: int,
    packing: PackingName,
    cache: dict[Any, Cuts],
    own_cuts: Mapping[str, Cuts] | None,
) -> Placement:
    share = bool(profile.packing.share_cores.value)
    supply = CoreSupply(profile=profile, cores=_list_cores(profile, weight_bits), chips=chips, share=share)
    split = SplitNetwork(populations, supply.cores, packing, cache, chips, own_cuts)
    best = _place_slices(split, supply)
    if packing == "fewest" and profile.packing.rule.value != "whole" and (share or can_share_cores(profile)):
        orders = split.list_orders()
        for order in orders[1:] if share else orders:  # the first is that of the layers, in which cores are shared already
            other = _place_slices(split, replace(supply, share=True), order)
            best = min(best, other, key=lambda p: (_count_waiting(p), p.cores_in_all, -_count_local_neurons(split, p)))
    return best


def count_cores(
    populations: Sequence[Population],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    chips: int = 1,
    cache: dict[Any, Cuts] | None = None,
) -> int | None:
    """Return the cores of `place_populations` where each holds one slice: their number needs no assignment; None elsewhere."""
    if profile.packing.share_cores.value or profile.core_groups or profile.chip.multi_pass.value:
        return None
    cores = _list_cores(profile, weight_bits)
    return SplitNetwork(populations, cores, "vendor", {} if cache is None else cache, chips).total_boxes


def place_in_fewest_cores(
    placement: Placement, weight_bits: Mapping[str, int], profile: HardwareProfile, *, cache: dict[Any, Cuts] | None = None
) -> Placement:
    """Place a network in as few cores as the limits allow; return `placement` where there is nothing to gain."""
    rule, sharing = profile.packing.rule.value, bool(profile.packing.share_cores.value) or can_share_cores(profile)
    if rule == "whole" or (rule == "equal" and not sharing) or len(placement.slices) > MAX_PACKED:
        return placement
    return place_populations(placement.populations, weight_bits, profile, chips=placement.chips, packing="fewest", cache=cache)


def share_counted_cores(placement: Placement, weight_bits: Mapping[str, int], profile: HardwareProfile) -> Placement:
    """Return a placement of one slice a core with its slices on shared cores, by what is counted of each, the largest first."""
    items = [
        replace(item, needs={**item.needs, **placement.counted[part.run, part.core]}, axons=())
        for item, part in zip(placement.items, placement.slices, strict=True)
    ]
    supply = CoreSupply(profile=profile, cores=_list_cores(profile, weight_bits), chips=placement.chips, share=True)
    order = sorted(range(len(items)), key=lambda n: (-items[n].amount("neurons"), -items[n].amount("axons_in")))
    slices = tuple(
        replace(part, core=assignment.core, group=assignment.group, slot=assignment.slot, chip=assignment.chip)
        for part, assignment in zip(placement.slices, assign_cores(items, supply, order=order), strict=True)
    )
    return replace(placement, slices=slices, counted={}, neuron_copies={})


def can_share_cores(profile: HardwareProfile) -> bool:
    """Return whether several layers may lie on a core, though the chip's tool places one layer per core."""
    layers = profile.core.layers.value
    return layers == "unlimited" or (isinstance(layers, int) and layers > 1)


def lower_bound(populations: Sequence[Population], weight_bits: Mapping[str, int], profile: HardwareProfile) -> int:
    """Return a number of cores that no split goes below: by neurons, and by the bits of weights that nothing shares.

    Where layers may share a core their needs add up before they are rounded to cores: ceil(Σ need / limit), the largest over
    the resources; elsewhere each layer takes at least one core: Σ max(1, ceil(need / limit)). A chip that cuts no layer needs a
    core for each, or one of each role where they share them.
    """
    if profile.packing.rule.value == "whole":
        has_roles = {group.role.value for group in profile.core_groups} == {"hidden", "readout"}
        roles = {has_roles and population.output for population in populations}
        return len(roles if profile.packing.share_cores.value else populations)
    cores = _list_cores(profile, weight_bits)
    max_neurons, max_words = max(core.neurons for core in cores), max(core.memory for core in cores)
    if profile.synapse_memory.scope.value == "chip":
        max_words = UNLIMITED
    needs = [(population.neurons, _min_words(population, cores[0])) for population in populations]
    if bool(profile.packing.share_cores.value) or can_share_cores(profile):
        max_layers = min(core.limits["layers"] for core in cores)
        neurons, words = sum(n for n, _ in needs), sum(w for _, w in needs)
        return max(ceil_div(neurons, max_neurons), ceil_div(words, max_words), ceil_div(len(needs), max_layers))
    return sum(max(1, ceil_div(n, max_neurons), ceil_div(w, max_words)) for n, w in needs)


# ------------------------------------------------------------------------------------------------------------ inside


def _list_cores(profile: HardwareProfile, weight_bits: Mapping[str, int]) -> tuple[Core, ...]:
    """Return the limits of each group of cores, or of the only kind."""
    groups = range(len(profile.core_groups))
    return tuple(Core(profile, weight_bits, group) for group in groups) or (Core(profile, weight_bits),)


def _measure_place(population: Population) -> tuple[Any, ...]:
    """Return what orders populations: depth and sizes, whatever they are called."""
    sizes = sorted((-p.channels * p.taps, -p.outputs, p.kind, p.kernel, len(p.sources)) for p in population.projections)
    return population.depth, -population.neurons, population.shape, population.output, sizes


def _place_slices(split: SplitNetwork, supply: CoreSupply, order: Sequence[int] | None = None) -> Placement:
    """Assign the boxes to cores, in several passes where the chip has them and needs them."""
    items, profile = split.items, supply.profile
    limit = profile.cores_limit(supply.chips)
    multi_pass = bool(profile.chip.multi_pass.value) and limit is not None
    runs = _split_into_runs(items, supply) if multi_pass else [list(range(len(items)))]
    slices: dict[int, CoreSlice] = {}
    unplaced: list[Unplaced] = []
    for run, members in enumerate(runs):
        run_items = [items[i] for i in members]
        assignments = assign_cores(run_items, supply, order=None if multi_pass else order)
        unplaced += _find_unplaced(run_items, assignments, supply)
        for i, assignment in zip(members, assignments, strict=True):
            slices[i] = _core_slice(split, i, assignment, run)
    return Placement(
        profile=profile.name,
        packing=split.packing,
        slices=tuple(slices[i] for i in range(len(items))),
        chips=supply.chips,
        cores_limit=limit,
        populations=split.populations,
        items=tuple(items),
        runs=max(1, len(runs)),
        unplaced=tuple(unplaced),
        more_cores=split.total_boxes - len(items),
    )


def _core_slice(split: SplitNetwork, index: int, assignment: CoreAssignment, run: int) -> CoreSlice:
    item, (population, box) = split.items[index], split.boxes[index]
    return CoreSlice(
        core=assignment.core,
        layer=population.name,
        box=box,
        neurons=count_neurons(box),
        memory_words=item.needs["synapse_memory"],
        axons_in=item.amount("axons_in"),
        axons_out=item.amount("axons_out"),
        neuron_words=item.amount("neuron_memory"),
        bias_words=item.amount("bias_memory"),
        destinations=item.amount("destinations"),
        target_cores=split.target_cores[population.name],
        copies=split.copies[population.name],
        group=assignment.group,
        slot=assignment.slot,
        chip=assignment.chip,
        run=run,
    )


def _split_into_runs(items: Sequence[Slice], supply: CoreSupply) -> list[list[int]]:
    """Put layers into passes in order: as many into each as there are cores for."""
    by_layer: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        by_layer.setdefault(item.layer, []).append(i)
    runs: list[list[int]] = []
    for members in by_layer.values():
        if runs and _fit_one_run([items[i] for i in runs[-1] + members], supply):
            runs[-1] = runs[-1] + members
        else:
            runs.append(members)
    return runs or [[]]


def _fit_one_run(items: Sequence[Slice], supply: CoreSupply) -> bool:
    limit = supply.profile.cores_limit(supply.chips)
    if not supply.share and len(items) > (limit or len(items)):
        return False
    assignments = assign_cores(items, supply)
    cores = len({assignment.core for assignment in assignments})
    return cores <= (limit or cores) and not unplaced_items(assignments, supply.profile)


def _find_unplaced(items: Sequence[Slice], assignments: Sequence[CoreAssignment], supply: CoreSupply) -> list[Unplaced]:
    """Return the sets of layers that no core is left for, with those that hold the cores.

    Where a core holds several slices, one more core is needed for each slice that found none.
    """
    sets: dict[tuple[int, ...], int] = {}
    waiting = unplaced_items(assignments, supply.profile)
    for i in waiting:
        if any(i in members for members in sets):
            continue
        members, cores = competing_for_cores(items, assignments, supply, i)
        if cores or not any(supply.allows(items[i], group) for group in range(len(supply.cores))):
            sets[tuple(members)] = cores
    return [
        Unplaced(
            layers=tuple(dict.fromkeys(items[i].layer for i in members)),
            needed=cores + len({*members} & {*waiting}) if supply.share else len(members),
            cores=cores,
        )
        for members, cores in sets.items()
    ]


def _count_waiting(placement: Placement) -> int:
    """Count the slices that no core is left for."""
    return sum(case.needed - case.cores for case in placement.unplaced)


def _count_local_neurons(split: SplitNetwork, placement: Placement) -> int:
    """Count the neurons whose spikes need not leave their core: of slices that lie with a slice of a layer they feed."""
    layers_on: dict[tuple[int, int], set[str]] = {}
    for part in placement.slices:
        layers_on.setdefault((part.run, part.core), set()).add(part.layer)
    targets = {name: {target.name for target, _ in pairs} for name, pairs in split.targets.items()}
    return sum(part.neurons for part in placement.slices if targets.get(part.layer, set()) & layers_on[part.run, part.core])


def _min_words(population: Population, core: Core) -> int:
    """Return the words that the synapses of a layer take at least, however it is cut."""
    memory = core.profile.synapse_memory
    if memory.format.value in ("crossbar", "word_per_weight"):
        return count_synapses_into(population).total if not population.is_input_layer else 0
    if memory.format.value not in ("list_words", "list_blocks"):
        return 0
    default = int(core.profile.weights.default_bits.value or 0)
    bits = sum(
        p.channels * p.outputs * core.weight_bits.get(p.layer, default) for p in population.projections if p.kind == "dense"
    )
    return ceil_div(bits, memory.word_bits.max_value or 1)
