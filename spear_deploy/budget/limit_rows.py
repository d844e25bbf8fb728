"""Rows of the limits that depend on activity: those of the user, and the work of a step."""

from __future__ import annotations

from collections.abc import Iterator

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.core_rows import CHIP, BudgetRow, classify_use
from spear_deploy.budget.energy import Energy
from spear_deploy.budget.intervals import Interval
from spear_deploy.budget.latency import Latency, StepLoad


def check_limits_of_user(
    limits: UserLimits, synops: float | None, energy: Energy, latency: Latency, *, is_fixed: bool
) -> Iterator[BudgetRow]:
    """Yield a row per limit of the user that depends on activity; an interval decides where it lies on one side of the limit.

    Args:
        limits: those of the user.
        synops, energy, latency: of an inference, as far as they are known.
        is_fixed: whether a step takes its time, whatever is done in it.
    """
    for resource, used, bounds, limit, unit, missing in (
        ("synops", synops, None, limits.synops, "synop", ("activity",)),
        ("energy", energy.total, energy.interval, limits.energy_j, "J", energy.unstated or energy.missing),
        ("latency", latency.seconds, latency.interval, limits.latency_s, "s", latency.missing),
    ):
        if limit is not None:
            detail = ""
            if used is None and bounds is not None:
                used, detail = _decide_by_interval(bounds, limit, unit)
            status = classify_use(used, limit)
            remedy = (detail or f"not known: {', '.join(missing)}") if used is None else ""
            if status == "over" and used is not None:
                share = f"{100 * (1 - limit / used):.1f} %"
                remedy = f"prune: {share} has to go"
                if resource == "latency" and is_fixed:
                    remedy = f"{share} of the steps have to go: run fewer, use fewer layers, or set a shorter step"
            yield BudgetRow(
                resource=resource, where=CHIP, used=used, limit=limit, unit=unit, status=status, remedy=remedy, detail=detail
            )


def check_load(load: StepLoad) -> BudgetRow:
    """Return the row of the work of a step, in the worst case where the activity is not known."""
    used, detail, remedy = load.used, "", ""
    if used is None:
        used, detail = load.worst, "if every neuron and input spiked at every step, as often as it can"
    status = classify_use(used, load.limit)
    if status == "over":
        remedy = f"prune: {100 * (1 - load.limit / used):.1f} % of the work of a step has to go, or give a step more time"
    return BudgetRow(
        resource=load.resource,
        where=load.where,
        used=used,
        limit=load.limit,
        unit=load.unit,
        status=status,
        remedy=remedy,
        detail=detail,
    )


# -------------------------------------------------------------------------------------------------------------- inside


def _decide_by_interval(bounds: Interval, limit: float, unit: str) -> tuple[float | None, str]:
    """Return the end of an interval that decides against a limit, or None where the limit lies inside; and the interval."""
    words = f"{bounds.write(unit)}, {bounds.evidence}"
    if bounds.low > limit:
        return bounds.low, f"lower end of {words}"
    if bounds.upper <= limit:
        return bounds.high, f"upper end of {words}"
    return None, f"the limit lies within {words}"
