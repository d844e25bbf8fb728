"""Plans among which a short training decides, narrowed until they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from spear_deploy.adaptation.plan import Plan, follow
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.adaptation.task import AdaptTask
from spear_deploy.pruning.candidates import Widths
from spear_deploy.pruning.importance import plan_by_importance
from spear_deploy.pruning.plan import prune
from spear_deploy.pruning.search.projection import fill_ratios

MAX_CANDIDATES = 3
"""Plans that learn for a short time, the best by rank."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """A plan that may be learnt.

    Attributes:
        network: that it starts from, narrower where the chip is too small for it otherwise.
        plan: without what comes after learning.
        widths: channels before and after, by group that became narrower.
    """

    network: SNNGraph
    plan: Plan
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def list_trial_plans(task: AdaptTask, plans: Sequence[Plan]) -> list[TrialPlan]:
    """Return the plans among which a short training decides: the first, if it has nothing to learn; else the first that fit.

    A plan that lacks nothing but is too large is narrowed until it fits; where none fits, the first stays as it is.
    """
    best = plans[0]
    fits = best.report.verdict != "does_not_fit"
    if best.lacking or (fits and not best.learnt):
        return [_make_trial_plan(task, task.network, best)]
    candidates = []
    for plan in [plan for plan in plans if not plan.lacking][:MAX_CANDIDATES]:
        if plan.report.verdict != "does_not_fit":
            candidates.append(_make_trial_plan(task, task.network, plan))
        elif task.settings.narrows and (narrowed := _narrow_to_fit(task, plan)) is not None:
            candidates.append(_make_trial_plan(task, narrowed, plan))
    return candidates or [_make_trial_plan(task, task.network, best)]


def _make_trial_plan(task: AdaptTask, network: SNNGraph, plan: Plan) -> TrialPlan:
    deferred, _ = follow(network, task.profile, plan.options, chips=task.chips, defers=True)
    before, after = ({group.name: group.channels for group in list_prunable_groups(graph)} for graph in (task.network, network))
    widths = {name: (channels, after[name]) for name, channels in before.items() if after[name] < channels}
    return TrialPlan(network=network, plan=deferred, widths=widths)


def _narrow_to_fit(task: AdaptTask, plan: Plan) -> SNNGraph | None:
    """Return the widest network with which a plan fits: one share of all widths, then what it leaves; None where none fits."""
    groups = {group.name: group.channels for group in list_prunable_groups(task.network)}
    if not groups:
        return None

    def narrow(widths: Widths) -> SNNGraph:
        return prune(task.network, plan_by_importance(task.network, dict(zip(groups, widths, strict=True))))

    @cache
    def fits(widths: Widths) -> bool:
        report = follow(narrow(widths), task.profile, plan.options, chips=task.chips)[0].report
        return report.verdict != "does_not_fit"

    channels, narrowest = tuple(groups.values()), (1,) * len(groups)
    widths = fill_ratios((1.0,) * len(groups), channels, narrowest, fits)
    return narrow(widths) if fits(widths) else None
