"""Chips within reach of an adaptation, and its cost.

A check finds what a chip lacks. Where replacements exist its rows name them, with kind and cost, so that the remedy is a command.
A network that exceeds a limit by more than `FAR` times is not brought below it by any alternative: the first plan stands for all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spear_deploy.adaptation.host import can_move_readout
from spear_deploy.adaptation.plan import Plan, follow, make_plans
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.table import find_replacements
from spear_deploy.budget.chip_ranking import Ranked
from spear_deploy.budget.core_rows import THING, BudgetRow
from spear_deploy.budget.remedies import FIXED
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.equal_values import collapse_equal_values
from spear_deploy.network.graph import SNNGraph, merge_parts
from spear_deploy.util.number_format import plural

LOG = logging.getLogger(__name__)

TOPICS: dict[str, tuple[str, ...]] = {
    "neuron_model": ("neuron", "readout"),
    "reset": ("reset", "neuron"),
    "time_constant": ("time_constant",),
    "neuron_constants": ("constants",),
    "weight_sign": ("sign",),
    "layer_kind": ("map", "kernel", "pool", "skip"),
    "delay": ("delay", "skip"),
    "input_channels": ("input",),
    "output_channels": ("outputs",),
    "integers": ("bias", "neuron", "map", "pool", "readout", "reset", "skip"),
}
"""By resource of a check, what a replacement is about."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """An adaptation that a network could undergo for a chip.

    Attributes:
        plan: the best one.
        neurons: that it adds in all; below 0 where it removes some.
        suits_host: whether the host could integrate the spikes in front of the readout, in place of the chip.
    """

    plan: Plan
    neurons: int
    suits_host: bool = False

    @property
    def within(self) -> bool:
        """Whether nothing is left that the chip lacks; limits of size may still be exceeded."""
        return not self.plan.lacking

    @property
    def fits(self) -> bool:
        """Whether the adapted network keeps all limits too, as far as they are published."""
        return self.plan.report.verdict != "does_not_fit"

    def describe(self) -> str:
        """Return in words how many parts are replaced, and how."""
        kinds = [row["kind"] for step in self.plan.steps for row in step.to_rows()]
        parts = [f"{kinds.count(kind)} {words}" for kind, words in KIND_WORDS.items() if kind in kinds]
        after = "" if self.fits else ", then pruning"
        return f"within reach: adapt ({', '.join(parts)}){after}" if self.within else ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        report = self.plan.report
        return {
            "within_reach": self.within,
            "replaced": [row for step in self.plan.steps for row in step.to_rows()],
            "missing": self.plan.lacking,
            "neurons": self.neurons,
            "verdict": report.verdict,
            "cores_used": report.cores_used,
            "cores_limit": report.cores_limit,
        }


KIND_WORDS = {"exact": "exact", "bounded": "bounded", "learnt": "to learn"}


FAR = 16
"""Times that a limit is exceeded beyond which alternatives are not compared: a stride in place of a pool saves about 4."""


def find_reach(graph: SNNGraph, profile: HardwareProfile, *, chips: int = 1, report: BudgetReport | None = None) -> Reach | None:
    """Return the best adaptation of a network to a chip.

    None where nothing is to replace, where the network holds integers, and where the planning fails: a verdict does not depend
    on it.

    Args:
        graph: the network.
        profile: the chip.
        chips: how many there are.
        report: of the network as it is; says whether alternatives are worth comparing.
    """
    if find_chip_format(graph):
        return None
    try:
        plan = _find_plan(graph, profile, chips, is_far=report is not None and _find_excess(report) > FAR)
    except Exception:
        LOG.debug("the plan of an adaptation to %s failed", profile.name, exc_info=True)
        return None
    if plan is None or not plan.steps:
        return None
    return Reach(plan=plan, neurons=plan.graph.neurons - graph.neurons, suits_host=can_move_readout(graph))


def _find_plan(graph: SNNGraph, profile: HardwareProfile, chips: int, *, is_far: bool) -> Plan | None:
    """Return the best plan, or the first one of a network that is far too large; None where that has nothing to replace."""
    if not is_far:
        return make_plans(graph, profile, chips=chips)[0]
    has_steps = next(find_replacements(merge_parts(collapse_equal_values(graph)), profile), None) is not None
    return follow(graph, profile, {}, chips=chips)[0] if has_steps else None


def _find_excess(report: BudgetReport) -> float:
    """Return how many times the limit that is exceeded most is used, of those that a smaller network keeps."""
    shares = (row.share or 0.0 for row in report.over if row.resource not in FIXED)
    return max(shares, default=0.0)


def exceeds_fixed(report: BudgetReport) -> bool:
    """Return whether a network has more inputs or outputs than the chip, which no narrower layer changes."""
    return any(row.resource in FIXED for row in report.over)


def add_reach(ranking: Sequence[Ranked], graph: SNNGraph, targets: Sequence[tuple[HardwareProfile, int]]) -> list[Ranked]:
    """Return a ranking in which each chip that does not fit says what an adaptation would replace.

    Among these, chips that would fit then come first, then those that would lack nothing.

    Args:
        ranking: of `budget.chip_ranking.rank`.
        graph: the network.
        targets: the profiles of the ranking, and how many chips of each.
    """
    placed: list[tuple[int, Ranked]] = []
    for entry in ranking:
        reach = None
        if entry.verdict == "does_not_fit":
            profile, count = targets[entry.target]
            reach = find_reach(graph, profile, chips=count, report=entry.report)
        if reach is None:
            place = 0 if entry.verdict != "does_not_fit" else 3
        else:
            entry = replace(entry, reach=reach.describe(), adaptation=reach.to_json())
            place = 3 if not reach.within else 1 if reach.fits else 2
        placed.append((place, entry))
    return [entry for _, entry in sorted(placed, key=lambda pair: pair[0])]


def name_replacements(report: BudgetReport, reach: Reach | None, *, net: str = "NET", chip: str | None = None) -> BudgetReport:
    """Return a report whose remedies name what stands in for each part that the chip lacks, and the command that does it.

    Args:
        report: of `check`.
        reach: of the same network and chip.
        net, chip: network and what follows `--chip` as in the command; the name of the profile unless given.
    """
    if reach is None or not (report.unsupported or exceeds_fixed(report)):
        return report
    offers = [step.replacement for step in reach.plan.steps]
    rows = tuple(
        _name_replacement(row, offers, suits_host=reach.suits_host)
        if row.status == "over" and (row.unit == THING or row.resource in FIXED)
        else row
        for row in report.rows
    )
    after = reach.plan.report
    limit = "" if after.cores_limit is None else f" of {after.cores_limit:,}"
    cost = f"{after.cores_used:,}{limit} cores"
    if reach.neurons:
        cost += f", {plural(abs(reach.neurons), 'neuron')} {'fewer' if reach.neurons < 0 else 'more'}"
    learns = " --data DATA" if reach.plan.learnt or (reach.within and not reach.fits) else ""  # narrower layers are learnt
    command = f"spear-deploy adapt {net} --chip {chip or report.profile}{learns} --out adapted"
    if reach.within:
        end = "" if reach.fits else "; then it has to become smaller, which the same command tries"
        note = f"adapt: `{command}` replaces what {report.profile} lacks; that takes {cost}{end}"
    else:
        note = f"adapt: `{command}` replaces a part of what {report.profile} lacks; left: {'; '.join(reach.plan.lacking[:2])}"
    return replace(report, rows=rows, notes=(*report.notes, note))


def _name_replacement(row: BudgetRow, offers: list[Replacement], *, suits_host: bool) -> BudgetRow:
    """Return a row of something that the chip lacks with the replacement among its remedies."""
    topics = TOPICS.get(row.resource, ())
    named = [offer for offer in offers if offer.topic in topics and (row.where in offer.layers or row.resource in FIXED)]
    if not named:
        return row
    words = "; ".join(f"{offer.by} ({offer.kind})" for offer in named)
    if suits_host and any(offer.topic == "readout" for offer in named):
        words += "; or with `--readout host` the host integrates the spikes in front of it (exact)"
    return replace(row, remedy=f"{row.remedy}; `adapt` puts in its place: {words}" if row.remedy else words)
