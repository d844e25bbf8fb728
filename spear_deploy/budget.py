"""Does it fit? One row for each resource and place: used, limit, status, and what to do about an overrun.

The verdict is `does_not_fit` if anything is over its limit or does not exist on the chip, `unchecked` if nothing is but a
number that is needed is not published, and `fits` otherwise. All violations are found at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy import budget_text, remedies
from spear_deploy.budget_text import plural
from spear_deploy.energy import Energy, Latency, estimate, unknown
from spear_deploy.errors import DataError
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.placement import Placement, lower_bound, place_populations
from spear_deploy.populations import Population, populations
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.remedies import Trial
from spear_deploy.simulator import SpikeCounts
from spear_deploy.support import LOOP, Unsupported, unsupported
from spear_deploy.synapse_memory import stored_bits
from spear_deploy.synops import SynOps
from spear_deploy.synops import synops as count_synops

Status: TypeAlias = Literal["ok", "tight", "over", "unchecked"]
Verdict: TypeAlias = Literal["fits", "does_not_fit", "unchecked"]
TIGHT = 0.9
"""A capacity that is used beyond this share is tight."""

CORE_RESOURCES = (
    ("neurons", "neurons", "neuron"),
    ("synapse_memory", "memory_words", "word"),
    ("axons_in", "axons_in", "axon"),
    ("axons_out", "axons_out", "axon"),
)
"""(resource, which is also the field of the profile's core; field of a core's slice; unit)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One resource at one place: of a layer, its fullest core."""

    resource: str
    where: str
    used: float | None
    limit: float | None
    unit: str
    status: Status
    remedy: str = ""

    @property
    def share(self) -> float | None:
        """Used part of the limit."""
        return None if self.used is None or not self.limit else self.used / self.limit

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "remedy": self.remedy or None}


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """The answer to "does it fit", with everything it rests on.

    Attributes:
        cores_used, cores_limit: as the chip's own tool packs; the limit is None where it is not published.
        synops: per inference, mean over samples; None without activity.
        energy, latency: of an inference.
        placement, tightest: as the vendor packs, and in as few cores as the limits allow.
        notes: what was assumed.
    """

    profile: str
    verdict: Verdict
    cores_used: int
    cores_limit: int | None
    rows: tuple[Row, ...]
    synops: float | None
    energy: Energy
    latency: Latency
    unsupported: tuple[Unsupported, ...]
    placement: Placement
    tightest: Placement
    notes: tuple[str, ...] = ()

    @property
    def latency_s(self) -> float | None:
        """Seconds of an inference, or None."""
        return self.latency.seconds

    @property
    def over(self) -> tuple[Row, ...]:
        """Rows beyond their limit."""
        return tuple(row for row in self.rows if row.status == "over")

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, under the keys of `check --json`."""
        return {
            "profile": self.profile,
            "verdict": self.verdict,
            "cores_used": self.cores_used,
            "cores_limit": self.cores_limit,
            "rows": [row.to_json() for row in self.rows],
            "synops": self.synops,
            "energy": self.energy.to_json(),
            "latency_s": self.latency_s,
            "unsupported": [finding.to_json() for finding in self.unsupported],
        }

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return budget_text.headline(self)

    def __str__(self) -> str:
        return budget_text.text(self)


def check(
    graph: SNNGraph,
    profile: HardwareProfile,
    *,
    chips: int = 1,
    synops: float | None = None,
    activity: SpikeCounts | float | None = None,
    steps: int | None = None,
    cores: int | None = None,
    energy_j: float | None = None,
    latency_s: float | None = None,
) -> BudgetReport:
    """Check a network against a chip, and against budgets of one's own.

    Args:
        graph: floating-point (checked with the profile's default weight bits) or integer (with the bits it needs).
        profile: the chip.
        chips: how many of them.
        synops: budget of synaptic operations per inference.
        activity: spike counts of a run, or a rate: spikes per step of every neuron and input.
        steps: of an inference, for a rate; the network's `metadata["steps"]`, or 1.
        cores, energy_j, latency_s: further budgets.

    Raises:
        DataError: chips, a budget, the rate or the counts make no sense.
    """
    _check_arguments(chips, synops, activity, steps, cores, energy_j, latency_s)
    found, bits = populations(graph), stored_bits(graph, profile)
    trial = remedies.trial(graph, found, bits, profile, chips)
    placement = trial.placed()
    equal = profile.packing.rule.value == "equal"
    tightest = placement if equal else place_populations(found, bits, profile, chips=chips, packing="fewest")
    findings = unsupported(graph, profile, found)
    counts, notes = _counts(graph, activity, steps)
    if counts is not None and any(finding.what == LOOP for finding in findings):
        counts, notes = None, (f"activity: not used, since SynOps of {LOOP} are not defined",)
    operations = None if counts is None else count_synops(graph, counts)
    energy, latency = unknown(profile), Latency(seconds=None, missing=("activity",))
    if counts is not None and operations is not None and found:
        energy, latency = estimate(graph, profile, placement, counts, operations)
    rows = [
        _cores_row(trial, placement, tightest, cores),
        *_budget_rows(operations, synops, energy, energy_j, latency, latency_s),
        *_layer_rows(trial, placement, bits),
    ]
    return BudgetReport(
        profile=profile.name,
        verdict=_verdict(rows, findings),
        cores_used=placement.cores_used,
        cores_limit=placement.cores_limit,
        rows=tuple(rows),
        synops=None if operations is None else operations.total,
        energy=energy,
        latency=latency,
        unsupported=findings,
        placement=placement,
        tightest=tightest,
        notes=(*notes, _packing_note(placement, tightest, lower_bound(found, bits, profile))),
    )


# ------------------------------------------------------------------------------------------------------------ activity


def _check_arguments(
    chips: int,
    synops: float | None,
    activity: SpikeCounts | float | None,
    steps: int | None,
    cores: int | None,
    energy_j: float | None,
    latency_s: float | None,
) -> None:
    for name, value, least in (("chips", chips, 1), ("steps", steps, 1), ("cores", cores, 1)):
        if value is not None and (int(value) != value or value < least):
            raise DataError(f"{name}: {value} given, expected a whole number of at least {least}")
    for name, budget in (("synops", synops), ("energy_j", energy_j), ("latency_s", latency_s)):
        if budget is not None and not (isfinite(budget) and budget >= 0):
            raise DataError(f"{name}: {budget} given, expected a budget of at least 0")
    if activity is not None and not isinstance(activity, SpikeCounts) and not (isfinite(activity) and activity >= 0):
        raise DataError(f"activity: {activity} given, expected spikes per neuron and step, at least 0")


def _counts(
    graph: SNNGraph, activity: SpikeCounts | float | None, steps: int | None
) -> tuple[SpikeCounts | None, tuple[str, ...]]:
    """Return spike counts, and in words what was assumed for them."""
    if activity is None:
        return None, ()
    if isinstance(activity, SpikeCounts):
        return activity, (f"activity: measured, {activity.samples} samples of {activity.steps} steps",)
    known = steps or int(graph.metadata.get("steps", 0))
    used = known or 1
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    sent = {name: np.full(graph.shape_of(name), activity * used) for name in names}
    note = f"activity: assumed, {activity:g} spikes per step of every neuron and input, {plural(used, 'step')} per inference"
    return SpikeCounts(sent=sent, steps=used, samples=1), (note,)


# ---------------------------------------------------------------------------------------------------------------- rows


def _verdict(rows: list[Row], findings: tuple[Unsupported, ...]) -> Verdict:
    states = {row.status for row in rows}
    if findings or "over" in states:
        return "does_not_fit"
    return "unchecked" if "unchecked" in states else "fits"


def _status(used: float | None, limit: float | None, *, capacity: bool = True) -> Status:
    if used is None or limit is None:
        return "unchecked"
    if used > limit:
        return "over"
    return "tight" if capacity and used > TIGHT * limit else "ok"


def _cores_row(trial: Trial, placement: Placement, tightest: Placement, budget: int | None) -> Row:
    limits = [n for n in (placement.cores_limit, budget) if n is not None]
    limit = min(limits) if limits else None
    status = _status(placement.cores_used, limit)
    remedy = ""
    if status == "over" and limit is not None:
        of_chip = limit == placement.cores_limit
        remedy = "; ".join(remedies.for_cores(trial, placement, limit, tightest, of_chip=of_chip)) or _nothing("cores")
    return Row(resource="cores", where="chip", used=placement.cores_used, limit=limit, unit="core", status=status, remedy=remedy)


def _budget_rows(
    operations: SynOps | None,
    synops: float | None,
    energy: Energy,
    energy_j: float | None,
    latency: Latency,
    latency_s: float | None,
) -> Iterator[Row]:
    """Yield a row for each budget that was given."""
    total = None if operations is None else operations.total
    for resource, used, limit, unit, missing in (
        ("synops", total, synops, "synop", ("activity",)),
        ("energy", energy.total, energy_j, "J", energy.missing),
        ("latency", latency.seconds, latency_s, "s", latency.missing),
    ):
        if limit is not None:
            status = _status(used, limit)
            remedy = f"not known: {', '.join(missing)}" if used is None else ""
            if status == "over" and used is not None:
                remedy = f"prune: {100 * (1 - limit / used):.1f} % has to go"
            yield Row(resource=resource, where="chip", used=used, limit=limit, unit=unit, status=status, remedy=remedy)


def _layer_rows(trial: Trial, placement: Placement, bits: dict[str, int]) -> Iterator[Row]:
    core, profile = trial.profile.core, trial.profile
    for population in trial.found:
        parts = placement.of(population.name)
        for resource, used_field, unit in CORE_RESOURCES:
            used = max(getattr(part, used_field) for part in parts)
            limit = getattr(core, resource).value
            status = _status(used, limit)
            remedy = ""
            if status == "over":
                found = remedies.for_layer(trial, placement, population.name, used_field, limit)
                remedy = "; ".join(found) or _nothing(resource.replace("_", " "))
            yield Row(resource=resource, where=population.name, used=used, limit=limit, unit=unit, status=status, remedy=remedy)
        yield from _format_rows(population, profile, bits)


def _format_rows(population: Population, profile: HardwareProfile, bits: dict[str, int]) -> Iterator[Row]:
    """Yield rows for weight widths and delays, where there are any."""
    widths = [bits[p.layer] for p in population.projections if p.layer in bits and not population.is_input_layer]
    if widths:
        most = max(profile.weights.bits.value or (0,))
        status = _status(max(widths), most, capacity=False)
        yield Row(resource="weight_bits", where=population.name, used=max(widths), limit=most, unit="bit", status=status)
    wait = max((p.wait_steps for p in population.projections), default=0)
    if wait > 0:
        limit, free = profile.weights.delay_max_steps.value, profile.weights.delay_free_steps.value
        status, remedy = _status(wait, limit, capacity=False), ""
        if status == "ok" and free is not None and wait > free:
            status = "unchecked"
            remedy = f"delays above {free} steps leave fewer neurons on a core; how many is not published"
        yield Row(resource="delay", where=population.name, used=wait, limit=limit, unit="step", status=status, remedy=remedy)


def _packing_note(placement: Placement, tightest: Placement, bound: int) -> str:
    """Say what packing leaves on the table."""
    if not bound:
        return "packing: nothing to place"
    ratio = f"{tightest.cores_used / bound:.2f} times the lower bound of {bound}"
    if tightest.cores_used == placement.cores_used:
        return f"packing: {plural(placement.cores_used, 'core')}, {ratio}"
    return f"packing: {placement.cores_used} cores as the chip's tool packs; {tightest.cores_used} at the tightest, {ratio}"


def _nothing(resource: str) -> str:
    return f"no single layer, weight width or chip count lowers {resource} enough; prune several layers"
