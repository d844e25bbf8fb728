"""Check of a changed network: widths, weight bits, chips, splits; no weights needed.

Populations hold sizes (and which weights exist), so a trial takes milliseconds. Every trial is a placement and all the rows
that depend on it, the same that the check itself reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

from spear_deploy.budget.connection_rows import check_connections
from spear_deploy.budget.core_rows import CHIP, RESOURCES, BudgetRow, check_cores, classify_use
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.channel_groups import ChannelGroup, couple_channels
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.core_needs import Cuts
from spear_deploy.placement.place import Placement, place_populations
from spear_deploy.placement.populations import Population, narrow_populations
from spear_deploy.placement.projections import Projection

MAX_WORK = 8_000
"""Slices that trials may place in all: a network of a thousand cores is tried eight times."""


PLACED = ("cores", "fan_out_cores", *(resource for resource, _ in RESOURCES))
"""Resources that a placement tells; the others need none."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is different: widths by group of channels, the most bits of a weight, chips, parts of a layer."""

    widths: tuple[tuple[str, int], ...] = ()
    max_weight_bits: int = 64
    chips: int | None = None
    parts: tuple[str, int] | None = None


UNCHANGED = Change()


@dataclass(frozen=True, kw_only=True)
class WhatIfResult:
    """A placement and its rows."""

    placement: Placement
    rows: tuple[BudgetRow, ...]


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """A network that can be tried otherwise.

    Attributes:
        groups: channels that may be pruned.
        edge: the channels of the network's input (`Coupling.edge`).
        inputs: of the network.
        cores: the user's budget of cores, or None.
    """

    found: tuple[Population, ...]
    weight_bits: Mapping[str, int]
    profile: HardwareProfile
    chips: int
    groups: tuple[ChannelGroup, ...]
    edge: ChannelGroup
    inputs: int
    cores: int | None = None
    known: dict[Any, Cuts] = field(default_factory=dict, repr=False)
    counted: dict[Change, list[BudgetRow]] = field(default_factory=dict, repr=False)
    tried: dict[Change, WhatIfResult] = field(default_factory=dict, repr=False)
    spent: list[int] = field(default_factory=list, repr=False)

    @property
    def exhausted(self) -> bool:
        """Whether enough was tried."""
        return sum(self.spent) > MAX_WORK

    def evaluate(self, change: Change = UNCHANGED) -> WhatIfResult:
        """Place the network with a change, and hold it against every limit that depends on sizes."""
        if change not in self.tried:
            bits = {name: min(width, change.max_weight_bits) for name, width in self.weight_bits.items()}
            placement = self._with_chips(change)
            if placement is None:
                chips = change.chips or self.chips
                placement = place_populations(self._changed(change), bits, self.profile, chips=chips, cache=self.known)
                self.spent.append(placement.cores_in_all)
            rows = (
                check_core_count(placement, self.cores, self.profile),
                *check_cores(placement, self.profile),
                *self.connections(change),
            )
            self.tried[change] = WhatIfResult(placement=placement, rows=rows)
        return self.tried[change]

    def _with_chips(self, change: Change) -> Placement | None:
        """Return the placement on more chips that are all alike, for which nothing has to be placed again."""
        profile = self.profile
        tied = profile.core_groups or profile.chip.multi_pass.value or profile.synapse_memory.scope.value == "chip"
        if change.chips is None or replace(change, chips=None) != UNCHANGED or tied or UNCHANGED not in self.tried:
            return None
        return replace(self.evaluate().placement, chips=change.chips, cores_limit=profile.cores_limit(change.chips))

    def connections(self, change: Change) -> list[BudgetRow]:
        """Return the rows that no placement is needed for."""
        if change not in self.counted:
            left = dict(change.widths).get(self.edge.name, self.edge.channels)
            inputs = self.inputs * left // self.edge.channels
            found = self._changed(change)
            self.counted[change] = list(check_connections(found, self.profile, change.chips or self.chips, inputs))
        return self.counted[change]

    def met(self, change: Change, row: BudgetRow) -> bool:
        """Say whether under a change nothing is over in a resource where a row was."""
        placed = row.resource in PLACED and row.where != INPUT
        here = set(row.layers)
        return not any(
            other.status == "over"
            and other.resource == row.resource
            and (other.where == row.where or bool(here & {name.split("[")[0] for name in other.layers}))
            for other in (self.evaluate(change).rows if placed else self.connections(change))
        )

    def _changed(self, change: Change) -> tuple[Population, ...]:
        found = self.found
        channels = {group.name: group.channels for group in (*self.groups, self.edge)}
        for name, left in change.widths:
            found = narrow_populations(found, name, channels[name], left)
        return found if change.parts is None else in_parts(found, *change.parts)


def build_what_if(
    graph: SNNGraph,
    found: tuple[Population, ...],
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    chips: int,
    cores: int | None = None,
) -> WhatIf:
    """Return the trial of a network."""
    inputs = prod(graph.input_shape)
    coupled = couple_channels(graph)
    return WhatIf(
        found=found,
        weight_bits=weight_bits,
        profile=profile,
        chips=chips,
        groups=coupled.prunable,
        edge=coupled.edge,
        inputs=inputs,
        cores=cores,
    )


def check_core_count(placement: Placement, budget: int | None, profile: HardwareProfile) -> BudgetRow:
    """Return the row of the chip's cores (of the pass that takes most), or of a budget if that is smaller.

    Cores that differ are there to be used, all of them if need be: that is not tight.
    """
    limits = [n for n in (placement.cores_limit, budget) if n is not None]
    limit = min(limits) if limits else None
    used = placement.cores_used
    unlimited = limit is None and profile.chip.usable_cores.value == "unlimited"
    fixed = bool(profile.core_groups) and budget is None
    status = "ok" if unlimited else classify_use(used, limit, capacity=not fixed)
    detail = "too many to lay out: the rows of cores are those of cores full of neurons" if placement.more_cores else ""
    return BudgetRow(resource="cores", where=CHIP, used=used, limit=limit, unit="core", status=status, detail=detail)


def in_parts(found: Sequence[Population], layer: str, parts: int) -> tuple[Population, ...]:
    """Return the populations with a layer as several layers side by side, each with some of its channels."""
    result: list[Population] = []
    channels = next(population.shape[0] for population in found if population.name == layer)
    for population in found:
        if population.name != layer:
            result.append(_reading_parts(population, layer, channels, parts))
            continue
        for k, (a, b) in enumerate(pairwise(channels * k // parts for k in range(parts + 1))):
            projections = tuple(_giving(p, a, b, channels) for p in population.projections)
            part = replace(population, name=f"{layer}[{k}]", shape=(b - a, *population.shape[1:]), projections=projections)
            result.append(part)
    return tuple(result)


def _giving(p: Projection, a: int, b: int, channels: int) -> Projection:
    """Return a projection onto a range of channels of its target."""
    per = p.outputs // channels
    return replace(p, outputs=per * (b - a), nonzero=None if p.nonzero is None else p.nonzero[a * per : b * per])


def _reading(p: Projection, a: int, b: int) -> Projection:
    """Return a projection that reads a range of channels of its source."""
    nonzero = None if p.nonzero is None else p.nonzero[:, a:b]
    return replace(p, channels=p.channels * (b - a) // p.kernel_channels, kernel_channels=b - a, nonzero=nonzero)


def _reading_parts(population: Population, layer: str, channels: int, parts: int) -> Population:
    """Let a population read the parts of a layer instead of the layer."""
    projections: list[Projection] = []
    for p in population.projections:
        if layer not in [s.name for s in p.sources]:
            projections.append(p)
            continue
        per = p.kernel_channels // channels
        for k, (a, b) in enumerate(pairwise(per * (channels * k // parts) for k in range(parts + 1))):
            sources = tuple(replace(s, name=f"{layer}[{k}]") if s.name == layer else s for s in p.sources)
            projections.append(replace(_reading(p, a, b), sources=sources))
    return replace(population, projections=tuple(projections))
