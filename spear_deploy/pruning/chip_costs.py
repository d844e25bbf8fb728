"""Cores, memory, energy and latency of a plan on a chip.

Cores and memory need sizes alone, without building the pruned network, unless the chip counts which weights are 0, or
has axons of types by weights.

A plan narrows the populations of the network (`narrow_populations`), which are placed again. So the search sees
the steps of the hardware: one channel more may take one core more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow, measure_core_use
from spear_deploy.budget.energy import estimate_energy
from spear_deploy.budget.intervals import upper_end
from spear_deploy.budget.latency import find_step_loads, has_step_limits
from spear_deploy.budget.remote_rows import check_remote_synapses
from spear_deploy.budget.what_if import Change, WhatIf, WhatIfResult, build_what_if, place_axons
from spear_deploy.budget.zero_weights import fill_zero_weights
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.channel_groups import ChannelGroup, list_prunable_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import Placement
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.quantize.for_chip import ask_integers
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_synops
from spear_deploy.util.number_format import quantity

Placed: TypeAlias = tuple[Placement, tuple[BudgetRow, ...]]
"""A placement, and the rows that are over their limit."""


@dataclass(frozen=True, kw_only=True)
class ChipCosts:
    """Costs of a network on a chip at any widths.

    Attributes:
        profile: the chip.
        chips: how many there are.
        groups: the groups that can be narrowed, in the order of `widths`.
        base: the placed network before pruning.
    """

    profile: HardwareProfile
    chips: int
    groups: tuple[ChannelGroup, ...]
    base: WhatIf
    _placed: dict[tuple[int, ...], Placed] = field(default_factory=dict, repr=False)

    @cached_property
    def knows_zeros(self) -> bool:
        """Whether there are weights of 0, and the chip counts which they are."""
        return any(p.nonzero is not None for population in self.base.populations for p in population.projections)

    def place(self, widths: tuple[int, ...], graph: SNNGraph | None = None) -> Placed:
        """Place a plan, and return the placement with the rows that are over their limit.

        Args:
            widths: channels that each group keeps.
            graph: the pruned network. Its weights of 0 count where the chip counts those; a plan narrows to the first channels,
                whose zeros need not be those of the channels that are kept.
        """
        is_narrow = any(width < group.channels for group, width in zip(self.groups, widths, strict=True))
        if graph is not None and is_narrow and self.knows_zeros:
            return self._place_network(graph)
        if widths not in self._placed:
            pairs = zip(self.groups, widths, strict=True)
            change = Change(widths=tuple((group.name, width) for group, width in pairs if width < group.channels))
            self._placed[widths] = _list_over(self.base.evaluate(change), self.profile)
        return self._placed[widths]

    @property
    def counts_types(self) -> bool:
        """Whether axons have types by the values of weights (TrueNorth), so that sizes alone leave the cores of a plan open."""
        return self.profile.connectivity.weight_palette.max_value is not None

    def place_weights(self, graph: SNNGraph) -> Placed:
        """Place a pruned network with the cores and copies of its integers, rounded without data; as it is where it has none."""
        integer = graph if graph.is_integer else ask_integers(graph, self.profile)
        costs = build_chip_costs(integer if isinstance(integer, SNNGraph) else graph, self.profile, self.chips)
        return costs.place(tuple(group.channels for group in costs.groups))

    def with_bits(self, bits: Mapping[str, int]) -> ChipCosts:
        """Return the costs of the network with other bits of its weights, by layer."""
        kept = {name: dict[Any, Any]() for name in ("_connections", "_results", "_placed_cores")}
        base = replace(self.base, weight_bits={**self.base.weight_bits, **bits}, **kept)  # type: ignore[arg-type]
        return replace(self, base=base, _placed={})

    def sizes(self, widths: tuple[int, ...]) -> dict[str, float | None]:
        """Return cores and memory words of a plan; None where the chip's memory format is not public."""
        return measure_sizes(self.place(widths)[0])

    def activity(self, graph: SNNGraph, widths: tuple[int, ...], counts: SpikeCounts) -> dict[str, float | None]:
        """Return energy (J) and latency (s) of an inference of a pruned network; None where a number is missing.

        On a chip that has a limit of its work in a step also `step_load`, the mean work relative to the limit.

        Where only an interval is known it is the upper end, so that a budget that is met is met for certain.
        """
        placement, _ = self.place(widths, graph)
        worked = fill_zero_weights(graph, self.profile)
        energy, latency = estimate_energy(worked, self.profile, placement, counts, count_synops(worked, counts))
        use = {"energy_j": upper_end(energy.total, energy.interval), "latency_s": upper_end(latency.seconds, latency.interval)}
        if not has_step_limits(self.profile):
            return use
        loads = find_step_loads(worked, self.profile, placement, counts)
        return {**use, "step_load": max((load.used / load.limit for load in loads if load.used is not None), default=None)}

    def _place_network(self, graph: SNNGraph) -> Placed:
        populations = find_chip_populations(graph, self.profile)
        kept = {name: dict[Any, Any]() for name in ("cuts", "_connections", "_results", "_placed_cores")}
        placed = replace(self.base, populations=populations, **kept).evaluate()  # type: ignore[arg-type]
        return _list_over(placed, self.profile)


def build_chip_costs(graph: SNNGraph, profile: HardwareProfile, chips: int = 1) -> ChipCosts:
    """Place a network, floating point or integer, on a chip, and return its costs.

    TrueNorth's integers are cut as their axons of each type need it, also beyond the cores that there are.
    """
    populations = find_chip_populations(graph, profile)
    base = build_what_if(graph, populations, stored_bits(graph, profile), profile, chips=chips)
    place_axons(graph, base)
    return ChipCosts(profile=profile, chips=chips, groups=list_prunable_groups(graph), base=base)


def build_measured_costs(graph: SNNGraph, profile: HardwareProfile, chips: int = 1) -> ChipCosts:
    """Place a network that is measured, and return its costs: those of a check.

    In floating point on TrueNorth it takes the cores and copies of its integers, rounded without data.
    """
    costs = build_chip_costs(graph, profile, chips)
    if profile.connectivity.weight_palette.max_value is not None and not graph.is_integer:
        placement = check(graph, profile, chips=chips, remedies=False).placement
        if placement.counted:
            costs.base.take_placement(placement)
    return costs


def measure_sizes(placement: Placement) -> dict[str, float | None]:
    """Return cores and memory words of a placement; None where the chip's memory format is not public."""
    memory = (
        [use.amounts["synapse_memory"] for use in measure_core_use(placement)]
        if placement.counted
        else [part.memory_words for part in placement.slices]
    )
    words = None if None in memory else float(sum(memory))  # type: ignore[arg-type]
    return {"cores": float(placement.cores_used), "memory_words": words}


def _list_over(result: WhatIfResult, profile: HardwareProfile) -> Placed:
    rows = (*result.rows, *check_remote_synapses(result.placement, profile))
    return result.placement, tuple(row for row in rows if row.status == "over")


def describe_rows(over: tuple[BudgetRow, ...]) -> str:
    """Return the first three rows as a sentence part.

    >>> row = BudgetRow(resource="cores", where="chip", used=9, limit=4, unit="core", status="over")
    >>> describe_rows((row,)), describe_rows((replace(row, used=131072, limit=16384),))
    ('cores 9 of 4 (chip)', 'cores 131,072 of 16,384 (chip)')
    """
    texts = [
        f"{row.resource.replace('_', ' ')} {quantity(row.used, row.unit)} of {quantity(row.limit, row.unit)} ({row.place})"
        for row in over[:3]
    ]
    return "; ".join(texts) + (f"; {len(over) - 3} more" if len(over) > 3 else "")


def max_use(values: Mapping[str, float | None], limits: Mapping[str, float]) -> float:
    """Return the largest use of a limit, value / limit; 0 without limits.

    >>> max_use({"cores": 6.0, "synops": 100.0}, {"cores": 4.0, "synops": 200.0})
    1.5
    """
    return max((value / limit for name, limit in limits.items() if (value := values.get(name)) is not None), default=0.0)
