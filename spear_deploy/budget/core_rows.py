"""Rows of a check, and those of the fullest cores.

A row compares an amount with its limit, for one resource at one place. For each layer, or layers that share cores, the core
counts of which most is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.labels import name_layers
from spear_deploy.placement.axon_sets import count_union
from spear_deploy.placement.place import CoreSlice, Placement
from spear_deploy.placement.synapse_memory import count_listed_rows, count_padded_rows

Status: TypeAlias = Literal["ok", "tight", "over", "unchecked"]
CHIP = "chip"
THING = "thing"
"""Unit of the rows that count what the chip does not have: `unsupported` has the findings as well."""
TIGHT = 0.9
"""A capacity that is used beyond this share is tight."""
TOGETHER = " + "
"""Between the names of layers that share a core."""
RESOURCES = (
    ("neurons", "neurons"),
    ("synapse_memory", "synapse_memory"),
    ("neuron_memory", "neuron_memory"),
    ("bias_memory", "bias_memory"),
    ("axons_in", "axons_in"),
    ("axons_out", "axons_out"),
    ("neuron_groups", "layers"),
    ("destinations", "destinations"),
)
"""(name of the resource, key of the profile's core)."""
COUNTS = ("neuron_groups", "destinations")
"""What a chip has a few of: using all of them is not tight."""


@dataclass(frozen=True, kw_only=True)
class BudgetRow:
    """One resource at one place: of a layer (or of layers that share cores), its fullest core.

    Attributes:
        resource: name of the resource.
        where: layer, layers joined by `TOGETHER`, "input" or "chip".
        used, limit: amounts; of what a chip has or has not (a neuron model), how many things it does not have, and 0.
        unit: of both.
        status: `used` compared with `limit`.
        remedy: what removes an overrun, separated by "; ".
        detail: what exactly, in words, where a number does not say it.
    """

    resource: str
    where: str
    used: float | None
    limit: float | None
    unit: str
    status: Status
    remedy: str = ""
    detail: str = ""

    @property
    def share(self) -> float | None:
        """Used part of the limit."""
        return None if self.used is None or not self.limit else self.used / self.limit

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers it is about."""
        return tuple(self.where.split(TOGETHER))

    @property
    def place(self) -> str:
        """Where it is, for a sentence (`network.labels.name_layers`)."""
        return name_layers(self.layers, joint=TOGETHER)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        data = {**asdict(self), "remedy": self.remedy or None}
        if not self.detail:
            del data["detail"]
        return data


@dataclass(frozen=True, kw_only=True)
class CoreUse:
    """What lies on one core.

    Attributes:
        layers: in the order of the network.
        group: kind of core, or None where all are alike.
        amounts: by key of the profile's core; None where it cannot be known.
    """

    layers: tuple[str, ...]
    group: int | None
    amounts: Mapping[str, int | None]


def classify_use(used: float | None, limit: float | None, *, capacity: bool = True) -> Status:
    """Compare an amount with its limit; an unknown number is never a pass, and only a capacity can be tight."""
    if used is None or limit is None:
        return "unchecked"
    if used > limit:
        return "over"
    return "tight" if capacity and used > TIGHT * limit else "ok"


def check_limit(
    resource: str, where: str, used: float | None, leaf: Any, *, capacity: bool = True, **more: Any
) -> list[BudgetRow]:
    """Return the row of a limit of a profile, or none where the chip has no such limit."""
    if leaf.value == "unlimited":
        return []
    status = classify_use(used, leaf.value, capacity=capacity)
    return [BudgetRow(resource=resource, where=where, used=used, limit=leaf.value, unit=leaf.unit, status=status, **more)]


def measure_core_use(placement: Placement) -> list[CoreUse]:
    """Return what lies on each core, in order."""
    members_of: dict[tuple[int, int], list[int]] = {}
    for i, part in enumerate(placement.slices):
        members_of.setdefault((part.run, part.core), []).append(i)
    alone: dict[tuple[object, ...], CoreUse] = {}
    uses = []
    for core, members in members_of.items():
        if len(members) > 1 or core in placement.counted:
            use = _measure(placement, members)
            uses.append(replace(use, amounts={**use.amounts, **placement.counted.get(core, {})}))
            continue
        part = placement.slices[members[0]]
        key = (part.layer, part.group, part.copies, id(placement.items[members[0]]))  # equal slices are one object
        if key not in alone:
            alone[key] = _measure(placement, members)
        uses.append(alone[key])
    return uses


def check_cores(placement: Placement, profile: HardwareProfile) -> Iterator[BudgetRow]:
    """Yield the rows of all cores; of cores with the same layers the fullest counts."""
    by_layers: dict[str, list[CoreUse]] = {}
    for use in {id(use): use for use in measure_core_use(placement)}.values():
        by_layers.setdefault(TOGETHER.join(use.layers), []).append(use)
    limits = {group: profile.core_limits(group) for group in {use.group for uses in by_layers.values() for use in uses}}
    is_chip_memory = profile.synapse_memory.scope.value == "chip"
    for where, uses in by_layers.items():
        kinds = dict.fromkeys(profile.core_groups[use.group].name for use in uses if use.group is not None)
        detail = f"on a core of kind {', '.join(kinds)}" if kinds else ""
        for resource, key in RESOURCES:
            if not (is_chip_memory and key == "synapse_memory"):
                for row in _check_fullest(resource, where, key, uses, limits):
                    yield replace(row, detail=detail) if detail else row
    for name in placement.layers:
        cores = max(-(-part.target_cores // part.copies) for part in placement.slices_of(name))
        yield from check_limit("fan_out_cores", name, cores, profile.connectivity.fan_out_cores, capacity=False)
    if is_chip_memory and placement.slices:
        yield from _check_chip_memory(placement, profile)
    for case in placement.unplaced:
        yield BudgetRow(
            resource="cores",
            where=TOGETHER.join(case.layers),
            used=case.needed,
            limit=case.cores,
            unit="core",
            status=classify_use(case.needed, case.cores, capacity=False),
            detail=f"only {case.cores} of the chip's cores can hold any of them" if case.cores else "no core has the role for it",
        )


# ------------------------------------------------------------------------------------------------------------ inside


def _measure(placement: Placement, members: Sequence[int]) -> CoreUse:
    parts = [placement.slices[i] for i in members]
    layers = tuple(dict.fromkeys(part.layer for part in parts))
    words = [part.memory_words for part in parts]
    axon_sets = [axons for i in members for axons in placement.items[i].axons]
    axons_in = count_union(axon_sets) if axon_sets and len(parts) > 1 else sum(part.axons_in for part in parts)
    return CoreUse(
        layers=layers,
        group=parts[0].group,
        amounts={
            "neurons": sum(part.neurons * part.copies for part in parts),
            "synapse_memory": None if None in words else sum(n for n in words if n is not None),
            "neuron_memory": sum(part.neuron_words for part in parts),
            "bias_memory": sum(part.bias_words for part in parts),
            "axons_in": axons_in,
            "axons_out": sum(part.axons_out for part in parts),
            "layers": len(layers),
            "destinations": max(part.destinations for part in parts),
        },
    )


def _check_fullest(
    resource: str, where: str, key: str, uses: Sequence[CoreUse], limits: Mapping[int | None, Mapping[str, Any]]
) -> list[BudgetRow]:
    """Return the row of the core of which most is used."""

    def fullness(use: CoreUse) -> tuple[bool, float, int]:
        used, limit = use.amounts[key], limits[use.group][key].max_value
        return (used is None, 0.0 if limit is None else (used or 0) / limit, used or 0)

    fullest = max(uses, key=fullness)
    return check_limit(resource, where, fullest.amounts[key], limits[fullest.group][key], capacity=resource not in COUNTS)


def _check_chip_memory(placement: Placement, profile: HardwareProfile) -> list[BudgetRow]:
    """Return the row of a synapse memory that the cores of a chip share: of the fullest chip."""
    is_known = all(part.memory_words is not None for part in placement.slices)
    words = _sum_by_chip(placement, lambda part: part.memory_words or 0)
    rows = check_limit("synapse_memory", CHIP, words if is_known else None, profile.chip.memory_words)
    memory = profile.synapse_memory
    if memory.format.value != "sdram_rows" or not rows:
        return rows
    (row,), synapses = rows, {population.name: population.synapses for population in placement.populations}
    largest = {name: max(part.neurons for part in placement.slices_of(name)) for name in placement.layers}
    padded = {name: sum(count_padded_rows(p, largest[name], memory) for p in synapses[name]) for name in placement.layers}
    most = _sum_by_chip(placement, lambda part: padded[part.layer])
    if classify_use(most, row.limit) != "over":  # also where zeros, which a list of synapses leaves out, take more
        return [replace(row, used=min(words, most), status=classify_use(min(words, most), row.limit))]
    listed = {name for name in placement.layers if any(p.nonzero is not None for p in synapses[name])}
    least = _sum_by_chip(
        placement,
        lambda part: (
            sum(count_listed_rows(p, part.box, memory) for p in synapses[part.layer])
            if part.layer in listed
            else part.memory_words or 0
        ),
    )
    if classify_use(least, row.limit) == "over":
        return rows
    remedy = (
        f"rows of synapses take {least:,} to {most:,} words: sPyNNaker writes a matrix for each sign of weights, with rows as "
        "long as the longest, and none of the zeros of a list"
    )
    return [replace(row, status="unchecked", remedy=remedy)]


def _sum_by_chip(placement: Placement, words: Callable[[CoreSlice], int]) -> int:
    """Sum over the slices of each chip; return the largest."""
    sums: dict[tuple[int, int], int] = {}
    for part in placement.slices:
        sums[part.run, part.chip] = sums.get((part.run, part.chip), 0) + words(part)
    return max(sums.values(), default=0)
