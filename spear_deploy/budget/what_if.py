"""Check of a changed network by its sizes alone.

A change is narrower layers, fewer weight bits, more chips or split layers. Populations hold sizes (and which weights are not
zero), so a changed network is placed in milliseconds without its weights. `WhatIf.evaluate` returns the placement and all rows
that depend on it, the same that the check reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

from spear_deploy.budget.axon_cuts import fit_axons
from spear_deploy.budget.axon_room import counts_axons
from spear_deploy.budget.connection_rows import check_connections
from spear_deploy.budget.core_rows import CHIP, RESOURCES, BudgetRow, check_cores, classify_use
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.channel_groups import ChannelGroup, couple_channels
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.core_needs import Cuts
from spear_deploy.placement.place import Placement, count_cores, place_populations
from spear_deploy.placement.populations import Population, narrow_populations
from spear_deploy.placement.projections import Projection, select_nonzero

MAX_PLACED_CORES = 8_000
"""Cores that all placements of a network may take together: a network of a thousand cores is placed eight times."""
PLACED = ("cores", "fan_out_cores", *(resource for resource, _ in RESOURCES))
"""Resources whose rows need a placement."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a network: widths by group of channels, the most bits of a weight, chips, parts of a layer."""

    widths: tuple[tuple[str, int], ...] = ()
    max_weight_bits: int = 64
    chips: int | None = None
    parts: tuple[str, int] | None = None


UNCHANGED = Change()


@dataclass(frozen=True, kw_only=True)
class WhatIfResult:
    """The placement of a changed network and its rows; `core_rows` are those that chips of the same kind do not change."""

    placement: Placement
    core_rows: tuple[BudgetRow, ...]
    rows: tuple[BudgetRow, ...]


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """A network that can be checked with changes; results are kept.

    Attributes:
        populations, weight_bits, profile, chips: the network on its chip.
        groups: groups of channels that may be pruned.
        edge: the group of the network's input channels (`ChannelCoupling.edge`).
        inputs: number of the network's inputs.
        max_cores: the user's limit of cores, or None.
        cuts: of populations that were split before, see `place_populations`.
    """

    populations: tuple[Population, ...]
    weight_bits: Mapping[str, int]
    profile: HardwareProfile
    chips: int
    groups: tuple[ChannelGroup, ...]
    edge: ChannelGroup
    inputs: int
    max_cores: int | None = None
    cuts: dict[Any, Cuts] = field(default_factory=dict, repr=False)
    _connections: dict[Change, list[BudgetRow]] = field(default_factory=dict, repr=False)
    _results: dict[Change, WhatIfResult] = field(default_factory=dict, repr=False)
    _placed_cores: dict[Change, int] = field(default_factory=dict, repr=False)

    @property
    def is_exhausted(self) -> bool:
        """Whether the placements took so many cores that no further one is worth its time."""
        return sum(self._placed_cores.values()) > MAX_PLACED_CORES

    def evaluate(self, change: Change = UNCHANGED) -> WhatIfResult:
        """Place the network with a change, and check every limit that depends on sizes."""
        if change not in self._results:
            placement = self._add_chips(change)
            if placement is None:
                chips = change.chips or self.chips
                placement = place_populations(
                    self._apply(change), self._limit_bits(change), self.profile, chips=chips, cache=self.cuts
                )
                self._placed_cores[change] = placement.cores_in_all
                core_rows = tuple(check_cores(placement, self.profile))
            else:
                core_rows = self.evaluate().core_rows
            rows = (check_core_count(placement, self.max_cores, self.profile), *core_rows, *self._check_connections(change))
            self._results[change] = WhatIfResult(placement=placement, core_rows=core_rows, rows=rows)
        return self._results[change]

    def take_placement(self, placement: Placement) -> None:
        """Take another placement of the network as it is."""
        core_rows = tuple(check_cores(placement, self.profile))
        rows = (check_core_count(placement, self.max_cores, self.profile), *core_rows, *self._check_connections(UNCHANGED))
        self._results[UNCHANGED] = WhatIfResult(placement=placement, core_rows=core_rows, rows=rows)

    def count_cores(self, change: Change) -> int:
        """Return the cores that the network takes with a change, passes added up; it is placed only where that decides."""
        if change not in self._results and change not in self._placed_cores and self._add_chips(change) is None:
            chips = change.chips or self.chips
            cores = count_cores(self._apply(change), self._limit_bits(change), self.profile, chips=chips, cache=self.cuts)
            if cores is not None:
                self._placed_cores[change] = cores
        if change in self._placed_cores:
            return self._placed_cores[change]
        return self.evaluate(change).placement.cores_in_all

    def removes(self, change: Change, row: BudgetRow) -> bool:
        """Return whether with a change nothing is over in the resource and layers of a row that was."""
        if (row.resource, row.where) == ("cores", CHIP) and not self.profile.chip.multi_pass.value:
            limit = find_core_limit(self.profile.cores_limit(change.chips or self.chips), self.max_cores)
            return limit is None or self.count_cores(change) <= limit
        is_placed = row.resource in PLACED and row.where != INPUT
        layers = set(row.layers)
        return not any(
            other.status == "over"
            and other.resource == row.resource
            and (other.where == row.where or bool(layers & {name.split("[")[0] for name in other.layers}))
            for other in (self.evaluate(change).rows if is_placed else self._check_connections(change))
        )

    def _limit_bits(self, change: Change) -> dict[str, int]:
        return {name: min(width, change.max_weight_bits) for name, width in self.weight_bits.items()}

    def _add_chips(self, change: Change) -> Placement | None:
        """Return the placement on more chips that are all alike, for which nothing has to be placed again."""
        profile = self.profile
        is_tied = profile.core_groups or profile.chip.multi_pass.value or profile.synapse_memory.scope.value == "chip"
        if change.chips is None or replace(change, chips=None) != UNCHANGED or is_tied or UNCHANGED not in self._results:
            return None
        return replace(self.evaluate().placement, chips=change.chips, cores_limit=profile.cores_limit(change.chips))

    def _check_connections(self, change: Change) -> list[BudgetRow]:
        """Return the rows that need no placement."""
        if change not in self._connections:
            left = dict(change.widths).get(self.edge.name, self.edge.channels)
            inputs = self.inputs * left // self.edge.channels
            chips = change.chips or self.chips
            self._connections[change] = list(check_connections(self._apply(change), self.profile, chips=chips, inputs=inputs))
        return self._connections[change]

    def _apply(self, change: Change) -> tuple[Population, ...]:
        populations = self.populations
        channels = {group.name: group.channels for group in (*self.groups, self.edge)}
        for name, left in change.widths:
            populations = narrow_populations(populations, name, channels[name], left)
        return populations if change.parts is None else split_layer(populations, *change.parts)


def build_what_if(
    graph: SNNGraph,
    populations: tuple[Population, ...],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    *,
    chips: int,
    max_cores: int | None = None,
) -> WhatIf:
    """Prepare a network on a chip for changes."""
    coupled = couple_channels(graph)
    return WhatIf(
        populations=populations,
        weight_bits=weight_bits,
        profile=profile,
        chips=chips,
        groups=coupled.prunable,
        edge=coupled.edge,
        inputs=prod(graph.input_shape),
        max_cores=max_cores,
    )


def place_axons(graph: SNNGraph, what_if: WhatIf, *, max_cores: int | None = None) -> Placement:
    """Return the placement of a network; where a chip has axons of types they are counted, and layers cut finer that lack room.

    Args:
        graph: the network.
        what_if: the same network on its chip, which takes the placement.
        max_cores: that finer cuts may take.
    """
    placed = what_if.evaluate()
    if not counts_axons(graph, what_if.profile) or any(row.status == "over" for row in placed.rows):
        return placed.placement
    finer = fit_axons(graph, placed.placement, what_if.weight_bits, what_if.profile, max_cores=max_cores)
    if finer is not None:
        what_if.take_placement(finer)
    return what_if.evaluate().placement


def find_core_limit(*limits: int | None) -> int | None:
    """Return the smallest limit that is known, or None."""
    return min((limit for limit in limits if limit is not None), default=None)


def check_core_count(placement: Placement, max_cores: int | None, profile: HardwareProfile) -> BudgetRow:
    """Return the row of the chip's cores (of the pass that takes most), or of the user's limit if that is smaller.

    Using all of the cores that differ from each other is not tight.
    """
    limit = find_core_limit(placement.cores_limit, max_cores)
    used = placement.cores_used
    is_unlimited = limit is None and profile.chip.usable_cores.value == "unlimited"
    is_capacity = max_cores is not None or not profile.core_groups
    status = "ok" if is_unlimited else classify_use(used, limit, capacity=is_capacity)
    detail = "too many to lay out: the rows of cores are those of cores full of neurons" if placement.more_cores else ""
    return BudgetRow(resource="cores", where=CHIP, used=used, limit=limit, unit="core", status=status, detail=detail)


# ------------------------------------------------------------------------------------------------------------ split layers


def split_layer(populations: Sequence[Population], layer: str, parts: int) -> tuple[Population, ...]:
    """Return the populations with a layer as several layers side by side, each with some of its channels."""
    result: list[Population] = []
    channels = next(population.shape[0] for population in populations if population.name == layer)
    for population in populations:
        if population.name != layer:
            projections, merged = (
                tuple(q for p in of for q in _split_reader(p, layer, channels, parts))
                for of in (population.projections, population.merged)
            )
            result.append(replace(population, projections=projections, merged=merged))
            continue
        for k, (a, b) in enumerate(pairwise(channels * k // parts for k in range(parts + 1))):
            projections, merged = (
                tuple(_select_outputs(p, a, b, channels) for p in of) for of in (population.projections, population.merged)
            )
            shape = (b - a, *population.shape[1:])
            result.append(replace(population, name=f"{layer}[{k}]", shape=shape, projections=projections, merged=merged))
    return tuple(result)


def _select_outputs(p: Projection, a: int, b: int, channels: int) -> Projection:
    """Return a projection onto channels a..b of its target."""
    per = p.outputs // channels
    return replace(
        p, outputs=per * (b - a), nonzero=select_nonzero(p.nonzero, (a * per, b * per), (0, p.kernel_channels), p.kernel_channels)
    )


def _split_reader(p: Projection, layer: str, channels: int, parts: int) -> list[Projection]:
    """Return the projections from the parts of a layer in place of one that reads the layer."""
    if layer not in [source.name for source in p.sources]:
        return [p]
    per = p.kernel_channels // channels
    projections = []
    for k, (a, b) in enumerate(pairwise(per * (channels * k // parts) for k in range(parts + 1))):
        sources = tuple(replace(s, name=f"{layer}[{k}]") if s.name == layer else s for s in p.sources)
        nonzero = select_nonzero(p.nonzero, (0, p.outputs), (a, b), p.kernel_channels)
        inputs = p.channels * (b - a) // p.kernel_channels
        maps = None if p.map_channels is None else p.map_channels * (b - a) // p.kernel_channels
        part = replace(p, sources=sources, channels=inputs, map_channels=maps, kernel_channels=b - a, nonzero=nonzero)
        projections.append(replace(part, part=f"{p.part}{layer}[{k}]"))
    return projections
