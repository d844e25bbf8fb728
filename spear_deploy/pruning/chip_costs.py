"""What does a plan take on the chip? Cores, memory, energy and time, without building the network where sizes are enough.

A plan narrows the populations of the network (`populations.narrowed`), which are placed again: so the steps of the
hardware, a core more for a channel more, are seen by the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spear_deploy.budget.connection_rows import counts_zeros
from spear_deploy.budget.core_rows import Row
from spear_deploy.budget.energy import estimate
from spear_deploy.budget.what_if import Change, Trial, trial
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.channel_groups import Group, coupled_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import populations
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import synops


@dataclass(frozen=True, kw_only=True)
class ChipCosts:
    """A network on a chip, narrowed at will.

    Attributes:
        profile, chips: where it goes.
        groups: what can be narrowed, in the order in which widths are given.
    """

    profile: HardwareProfile
    chips: int
    groups: tuple[Group, ...]
    base: Trial
    _known: dict[tuple[int, ...], tuple[Placement, tuple[Row, ...]]] = field(default_factory=dict, repr=False)

    def placed(self, widths: tuple[int, ...]) -> tuple[Placement, tuple[Row, ...]]:
        """Return the placement of a plan, and the rows that are over their limit."""
        if widths not in self._known:
            pairs = zip(self.groups, widths, strict=True)
            change = Change(widths=tuple((group.name, width) for group, width in pairs if width < group.channels))
            outcome = self.base.outcome(change)
            self._known[widths] = (outcome.placement, tuple(row for row in outcome.rows if row.status == "over"))
        return self._known[widths]

    def sizes(self, widths: tuple[int, ...]) -> dict[str, float | None]:
        """Return cores and memory words of a plan; None where the chip's memory format is not public."""
        placement, _ = self.placed(widths)
        memory = [part.memory_words for part in placement.slices]
        known = [word for word in memory if word is not None]
        return {"cores": float(placement.cores_used), "memory_words": float(sum(known)) if len(known) == len(memory) else None}

    def activity(self, graph: SNNGraph, widths: tuple[int, ...], counts: SpikeCounts) -> dict[str, float | None]:
        """Return energy (J) and latency (s) of an inference of a pruned network; None where a number is missing."""
        placement, _ = self.placed(widths)
        energy, latency = estimate(graph, self.profile, placement, counts, synops(graph, counts))
        return {"energy_j": energy.total, "latency_s": latency.seconds}


def on_chip(graph: SNNGraph, profile: HardwareProfile, chips: int = 1) -> ChipCosts:
    """Return the costs of a network, floating point or integer, on a chip."""
    found = populations(graph, zeros=counts_zeros(profile))
    base = trial(graph, found, stored_bits(graph, profile), profile, chips)
    return ChipCosts(profile=profile, chips=chips, groups=coupled_groups(graph), base=base)


def told(over: tuple[Row, ...]) -> str:
    """Return the rows in words, the first three of them.

    >>> row = Row(resource="cores", where="chip", used=9, limit=4, unit="core", status="over")
    >>> told((row,))
    'cores 9 of 4 (chip)'
    """
    texts = [f"{row.resource.replace('_', ' ')} {row.used:g} of {row.limit:g} ({row.where})" for row in over[:3]]
    return "; ".join(texts) + (f"; {len(over) - 3} more" if len(over) > 3 else "")


def excess(values: Mapping[str, float | None], limits: Mapping[str, float]) -> float:
    """Return the largest value relative to its limit, 0 without limits.

    >>> excess({"cores": 6.0, "synops": 100.0}, {"cores": 4.0, "synops": 200.0})
    1.5
    """
    return max((value / limit for name, limit in limits.items() if (value := values.get(name)) is not None), default=0.0)
