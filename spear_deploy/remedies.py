"""What would make it fit? Each remedy is found by placing the changed network again, not by a formula.

Widths and weight bits are tried on populations (sizes, no weights), so a trial takes milliseconds. A remedy is offered only
if the trial shows that the violation is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeAlias

from spear_deploy.graph import SNNGraph
from spear_deploy.placement import Placement, place_populations
from spear_deploy.populations import Population, narrowed
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.pruning import Group, coupled_groups
from spear_deploy.synapse_memory import Box

Goal: TypeAlias = Callable[[Placement], bool]
MOST_GROUPS = 6
"""Pruning groups that are tried, those with the most cores first: each costs a bisection."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network that can be tried narrower or with fewer weight bits."""

    found: tuple[Population, ...]
    weight_bits: Mapping[str, int]
    profile: HardwareProfile
    chips: int
    groups: tuple[Group, ...]
    known: dict[Any, tuple[Box, ...]] = field(default_factory=dict, repr=False)

    def placed(self, found: Sequence[Population] | None = None, most_bits: int = 64, chips: int | None = None) -> Placement:
        """Place the network with changes."""
        bits = {name: min(width, most_bits) for name, width in self.weight_bits.items()}
        populations = self.found if found is None else found
        return place_populations(populations, bits, self.profile, chips=chips or self.chips, known=self.known)


def trial(
    graph: SNNGraph, found: tuple[Population, ...], weight_bits: Mapping[str, int], profile: HardwareProfile, chips: int
) -> Trial:
    """Return the trial of a network."""
    return Trial(found=found, weight_bits=weight_bits, profile=profile, chips=chips, groups=coupled_groups(graph))


def for_cores(base: Trial, placement: Placement, limit: int, tightest: Placement, *, of_chip: bool) -> list[str]:
    """Return what brings the cores down to a limit; `of_chip` says that more chips raise it."""

    def goal(candidate: Placement) -> bool:
        return candidate.cores_used <= limit

    remedies = [*_fewer_bits(base, goal), *_narrower(base, placement, goal, base.groups)]
    if tightest.cores_used <= limit:
        remedies.append(f"the tightest packing takes {tightest.cores_used} cores: place the layers by hand")
    if of_chip:
        per_chip = limit // base.chips
        chips = ceil(placement.cores_used / per_chip)
        if base.placed(chips=chips).cores_used <= per_chip * chips:
            remedies.append(f"{chips} chips instead of {base.chips}")
    return remedies


def for_layer(base: Trial, placement: Placement, layer: str, used: str, limit: int) -> list[str]:
    """Return what brings a resource (`used`: a field of a core's slice) of a layer's cores down to its limit."""

    def goal(candidate: Placement) -> bool:
        return max(getattr(part, used) for part in candidate.of(layer)) <= limit

    population = next(p for p in base.found if p.name == layer)
    near = {population.space, *(p.input_space for p in population.projections)}
    near |= {p.output_space for q in base.found for p in q.projections if layer in [s.name for s in p.sources]}
    groups = tuple(group for group in base.groups if group.name in near)
    narrower = list(_narrower(base, placement, goal, groups)) or list(_fewer_inputs(base, goal, population))
    return [*(_fewer_bits(base, goal) if used == "memory_words" else ()), *narrower]


def _fewer_bits(base: Trial, goal: Goal) -> Iterator[str]:
    widest = max(base.weight_bits.values(), default=0)
    widths = sorted(bits for bits in base.profile.weight_bits if 1 < bits < widest)
    if not widths or not goal(base.placed(most_bits=widths[0])):
        return
    yield f"weights of {next(bits for bits in reversed(widths) if goal(base.placed(most_bits=bits)))} bits"


def _narrower(base: Trial, placement: Placement, goal: Goal, groups: Sequence[Group]) -> Iterator[str]:
    """Offer the group of which the least share has to go."""
    best: tuple[float, str] | None = None
    for group in sorted(groups, key=lambda g: -_cores_of(placement, base.found, g))[:MOST_GROUPS]:
        left = _most_left(base, goal, group)
        if left is not None:
            dropped = group.channels - left
            text = f"drop {dropped} of {group.channels} channels of {_shown(group)}"
            best = min(best or (2.0, ""), (dropped / group.channels, text))
    if best is not None:
        yield best[1]


def _fewer_inputs(base: Trial, goal: Goal, population: Population) -> Iterator[str]:
    """Offer a dense layer with fewer inputs, where no pruning group holds them (the network's own input)."""
    dense = [p for p in population.projections if p.kind == "dense"]
    if not dense:
        return
    widest = max(dense, key=lambda p: p.channels)

    def met(inputs: int) -> bool:
        thinner = replace(
            population,
            projections=tuple(replace(p, channels=inputs) if p is widest else p for p in population.projections),
        )
        return goal(base.placed([thinner if p is population else p for p in base.found]))

    left = _most(widest.channels - 1, met)
    if left is not None:
        yield f"{widest.channels - left} of {widest.channels} inputs fewer"


def _most_left(base: Trial, goal: Goal, group: Group) -> int | None:
    """Return the most channels of a group with which the goal is met, by bisection, or None."""

    def met(left: int) -> bool:
        return goal(base.placed(narrowed(base.found, group.name, group.channels, left)))

    return _most(group.channels - 1, met)


def _most(limit: int, met: Callable[[int], bool]) -> int | None:
    """Return the largest number in 1..limit that meets a goal, by bisection, or None."""
    low, high = 1, limit
    if high < 1 or not met(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if met(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _cores_of(placement: Placement, found: Sequence[Population], group: Group) -> int:
    return sum(
        len(placement.of(p.name))
        for p in found
        if p.space == group.name or any(q.input_space == group.name for q in p.projections)
    )


def _shown(group: Group) -> str:
    return " + ".join(f"'{name}'" for name in group.producers)
