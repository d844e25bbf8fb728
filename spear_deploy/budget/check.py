"""Does it fit? One row for each resource and place: used, limit, status, and what to do about an overrun.

The verdict is `does_not_fit` if anything is over its limit or does not exist on the chip, `unchecked` if nothing is but a
number that is needed is not published, and `fits` otherwise. All violations are found at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

from spear_deploy.budget.activity import resolve_activity
from spear_deploy.budget.connection_rows import check_layer_kinds, needs_nonzero_weights
from spear_deploy.budget.core_rows import CHIP, BudgetRow, classify_use
from spear_deploy.budget.energy import Energy, estimate_energy, unknown_energy
from spear_deploy.budget.latency import Latency, StepLoad, find_step_loads
from spear_deploy.budget.remedies import find_remedies
from spear_deploy.budget.report import BudgetReport, Verdict
from spear_deploy.budget.unsupported import LOOP, Unsupported, find_unsupported
from spear_deploy.budget.what_if import WhatIf, build_what_if
from spear_deploy.errors import DataError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import Placement, lower_bound, place_in_fewest_cores
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import SynOps, count_synops
from spear_deploy.util.number_format import plural


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
    found, bits = find_populations(graph, zeros=needs_nonzero_weights(profile)), stored_bits(graph, profile)
    base = build_what_if(graph, found, bits, profile, chips, cores)
    outcome = base.evaluate()
    placement = outcome.placement
    fewest = place_in_fewest_cores(placement, bits, profile, cache=base.known)
    findings = find_unsupported(graph, profile, found)
    counts, notes = resolve_activity(graph, activity, steps)
    if counts is not None and _loops(findings):
        counts, notes = None, (f"activity: not used, since SynOps of {LOOP} are not defined",)
    operations = None if counts is None else count_synops(graph, counts)
    energy, latency = unknown_energy(profile), Latency(seconds=None, missing=("activity",))
    if counts is not None and operations is not None and found:
        energy, latency = estimate_energy(graph, profile, placement, counts, operations)
    pace_of_step = () if _loops(findings) else tuple(find_step_loads(graph, profile, placement, counts))
    rows = [
        *(_with_remedy(base, row, fewest) for row in outcome.rows),
        *_budget_rows(operations, synops, energy, energy_j, latency, latency_s),
        *(_pace_row(pace) for pace in pace_of_step if _told(pace)),
        *check_layer_kinds(graph, profile, found, bits, findings),
    ]
    order = {name: i for i, name in enumerate((CHIP, INPUT, *(layer.name for layer in graph.layers)))}
    rows.sort(key=lambda row: order[row.layers[0]])
    bound = lower_bound(found, bits, profile)
    several = bool(profile.chip.multi_pass.value)
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
        fewest_cores=fewest,
        passes=placement.runs if several else None,
        bound=bound,
        notes=(*notes, *(_pace_note(pace) for pace in pace_of_step if not _told(pace)), _packing_note(placement, fewest, bound)),
    )


# -------------------------------------------------------------------------------------------------------------- inside


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


def _verdict(rows: list[BudgetRow], findings: tuple[Unsupported, ...]) -> Verdict:
    states = {row.status for row in rows}
    if findings or "over" in states:
        return "does_not_fit"
    return "unchecked" if "unchecked" in states else "fits"


def _with_remedy(base: WhatIf, row: BudgetRow, fewest: Placement) -> BudgetRow:
    return replace(row, remedy=find_remedies(base, row, fewest)) if row.status == "over" else row


def _budget_rows(
    operations: SynOps | None,
    synops: float | None,
    energy: Energy,
    energy_j: float | None,
    latency: Latency,
    latency_s: float | None,
) -> Iterator[BudgetRow]:
    """Yield a row for each budget that was given."""
    total = None if operations is None else operations.total
    for resource, used, limit, unit, missing in (
        ("synops", total, synops, "synop", ("activity",)),
        ("energy", energy.total, energy_j, "J", energy.missing),
        ("latency", latency.seconds, latency_s, "s", latency.missing),
    ):
        if limit is not None:
            status = classify_use(used, limit)
            remedy = f"not known: {', '.join(missing)}" if used is None else ""
            if status == "over" and used is not None:
                remedy = f"prune: {100 * (1 - limit / used):.1f} % has to go"
            yield BudgetRow(resource=resource, where=CHIP, used=used, limit=limit, unit=unit, status=status, remedy=remedy)


def _loops(findings: tuple[Unsupported, ...]) -> bool:
    return any(finding.what == LOOP for finding in findings)


def _told(pace: StepLoad) -> bool:
    """Say whether the pace is known: from the activity, or since not even the worst case is too much."""
    return pace.used is not None or pace.worst <= pace.limit


def _pace_row(pace: StepLoad) -> BudgetRow:
    """Say whether a step's work is done within the step."""
    used, detail = pace.used, ""
    if used is None:
        used, detail = pace.worst, "if every neuron and input spiked at every step"
    status, remedy = classify_use(used, pace.limit), ""
    if status == "over":
        remedy = f"prune: {100 * (1 - pace.limit / used):.1f} % of the work of a step has to go; or give a step more time"
    limit, unit = pace.limit, pace.unit
    return BudgetRow(
        resource=pace.resource, where=pace.where, used=used, limit=limit, unit=unit, status=status, remedy=remedy, detail=detail
    )


def _pace_note(pace: StepLoad) -> str:
    return (
        f"pace: give the activity to know whether a step's work is done in time; if all spiked at every step it would be "
        f"{pace.worst:,.0f} {pace.unit} of {pace.limit:,.0f}"
    )


def _packing_note(placement: Placement, fewest: Placement, bound: int) -> str:
    """Say what packing leaves on the table."""
    if not bound:
        return "packing: nothing to place"
    ratio = f"{fewest.cores_in_all / bound:.2f} times the lower bound of {bound}"
    if fewest.cores_in_all == placement.cores_in_all:
        return f"packing: {plural(placement.cores_in_all, 'core')}, {ratio}"
    return f"packing: {placement.cores_in_all} cores as the chip's tool packs; {fewest.cores_in_all} at the tightest, {ratio}"
