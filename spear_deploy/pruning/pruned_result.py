"""Result of pruning to budgets: network, plan, use, stages, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.bits_choice import BitsChoice
from spear_deploy.pruning.levers import LeverStage, measure_stage
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.pruning_task import PruneTask, TunedPruning
from spear_deploy.pruning.search.search import SearchResult
from spear_deploy.pruning.tune.measure import BudgetUse, list_budget_rows
from spear_deploy.pruning.tune.rounded_learning import RoundedLearning


@dataclass(frozen=True, kw_only=True)
class PrunedResult:
    """A network that is pruned and fine-tuned to budgets.

    Attributes:
        graph: the network.
        plan: channels that stay, numbered as in the network before pruning.
        widths: {group: [channels before, after]}.
        budgets: by resource its budget, aim (the budget less its margin), use, whether the aim is met, and `measured_on`:
            "validation", or "validation and training" where training samples narrow the margin.
        synops: on validation, or by the ratio of training and validation samples together, where these narrow the margin and have
            more (see `BudgetMonitor.measure_with_training`).
        accuracy: on validation, 0..1.
        margin: relative, of what depends on spikes.
        met: whether all budgets hold with their margin, and the chip's own limits where they are part of the budgets.
        search: its result; None where the network was within the budgets without pruning.
        layer_bits: the choice of layers whose weights get fewer bits than the chip's default; None where it was none.
        history: a row an epoch of fine-tuning.
        stages: the network before pruning, after each lever, and after fine-tuning, which changes firing rates by learning,
            thresholds and last zeros ("rates"), with the rounding of fewer bits by layer ("fewer bits") where some were chosen,
            and after learning with the chip's rounding ("bits") where that was tried; empty where nothing was changed.
        batches: that were learnt from, {"search", "fine_tune"}, "bits" where the network learnt with the chip's rounding, and
            "layer_bits" where candidates of bits by layer did.
        learning_rate: the peak of fine-tuning.
        notes: sentences on what was assumed or could not be met.
        seconds: wall time by part.
        interrupted: whether search or fine-tuning was cut short.
    """

    graph: SNNGraph
    plan: PruningPlan
    widths: dict[str, list[int]]
    budgets: dict[str, dict[str, Any]]
    synops: float
    accuracy: float
    margin: float
    met: bool
    search: SearchResult | None
    layer_bits: BitsChoice | None = None
    history: tuple[dict[str, Any], ...] = ()
    stages: tuple[LeverStage, ...] = ()
    batches: dict[str, int] = field(default_factory=dict)
    learning_rate: float
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def budget(self) -> float | None:
        """SynOps per inference on validation."""
        return self.budgets["synops"]["budget"] if "synops" in self.budgets else None

    @property
    def aim(self) -> float | None:
        """The SynOps budget less its margin, per inference on validation."""
        return self.budgets["synops"]["aim"] if "synops" in self.budgets else None

    @property
    def unused(self) -> float | None:
        """Share of the SynOps budget that is not used."""
        return None if self.budget is None else 1 - self.synops / self.budget

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as plain data."""
        result = self.search
        estimator = result.estimator if result else None
        return {
            "budget": self.budget,
            "aim": self.aim,
            "synops": self.synops,
            "unused": self.unused,
            "met": self.met,
            "margin": self.margin,
            "budgets": self.budgets,
            "accuracy": self.accuracy,
            "widths": self.widths,
            "plan": self.plan.to_json(),
            "layer_bits": None if self.layer_bits is None else self.layer_bits.to_json(),
            "method": result.method if result else None,
            "evaluations": result.evaluations if result else 0,
            "interrupted": self.interrupted,
            "lre": None if estimator is None else {"kind": estimator.kind, **estimator.to_json()},
            "search": list(result.history) if result else [],
            "rungs": list(result.rounds) if result else [],
            "levers": [stage.to_json() for stage in self.stages],
            "learning_rate": self.learning_rate,
            "batches": {**self.batches, "all": sum(self.batches.values())},
            "fine_tune": list(self.history),
            "notes": self.notes,
            "seconds": self.seconds,
        }


def summarize_tuned(tuned: TunedPruning, notes: list[str], seconds: dict[str, float]) -> PrunedResult:
    """Return the result of a pruning, its stages measured on validation.

    Args:
        tuned: the network.
        notes: sentences.
        seconds: wall time by part.
    """
    planned = tuned.planned
    kept = _renumber_channels(planned.task.graph, tuned.graph, planned.search.plan)
    return _summarize(
        planned.task, PruningPlan(kept=kept), tuned.graph, tuned.use,
        search=planned.search, layer_bits=planned.bits, history=tuple(tuned.tuning.history), stages=_list_stages(tuned),
        batches=tuned.batches, notes=notes, seconds=seconds, interrupted=tuned.interrupted,
    )  # fmt: skip


def summarize_unpruned(task: PruneTask, use: BudgetUse, rounded: RoundedLearning | None, notes: list[str]) -> PrunedResult:
    """Return the result where the network is within its budgets with all channels.

    Args:
        task: with the network.
        use: of its budgets.
        rounded: learning with the chip's rounding; None where it was not tried.
        notes: sentences.
    """
    plan = PruningPlan(kept={group.name: tuple(range(group.channels)) for group in list_prunable_groups(task.graph)})
    holds = "is within the budget" if task.settings.budgets.amounts else "fits the chip"
    if rounded is None:
        notes = [*notes, f"the network {holds} as it is: nothing was changed"]
        return _summarize(task, plan, task.graph, use, search=None, notes=notes)
    val = task.dataset.val
    return _summarize(
        task, plan, rounded.graph, rounded.use, search=None,
        stages=(measure_stage("trained", task.graph, val), measure_stage("bits", rounded.graph, val, rounded.batches)),
        batches={"search": 0, "fine_tune": 0, "bits": rounded.batches},
        notes=[*notes, f"the network {holds} with its bits: no channel was removed", rounded.note],
        interrupted=rounded.interrupted,
    )  # fmt: skip


def _summarize(task: PruneTask, plan: PruningPlan, pruned: SNNGraph, use: BudgetUse, **details: Any) -> PrunedResult:
    """Return the result; `details` are the fields that need no computation."""
    channels = {group.name: group.channels for group in list_prunable_groups(task.graph)}
    return PrunedResult(
        graph=pruned.with_compact_weights(),
        plan=plan,
        widths={name: [channels[name], len(kept)] for name, kept in plan.kept.items()},
        budgets=list_budget_rows(task.monitor.limits, use),
        synops=float(use.values["synops"] or 0.0),
        accuracy=use.evaluation.accuracy,
        margin=use.margin,
        met=use.met,
        learning_rate=task.settings.peak,
        **details,
    )


def _renumber_channels(graph: SNNGraph, pruned: SNNGraph, plan: PruningPlan) -> dict[str, tuple[int, ...]]:
    """Return the channels that are left in each group, numbered as in `graph`, which may be pruned too."""
    first = graph.metadata.get("kept_channels", {})
    kept = {}
    for name in plan.kept:
        left: Sequence[int] = pruned.metadata["kept_channels"][name]
        number = {channel: index for index, channel in enumerate(first.get(name, range(max(left) + 1)))}
        kept[name] = tuple(number[channel] for channel in left)
    return kept


def _list_stages(tuned: TunedPruning) -> tuple[LeverStage, ...]:
    """Return the networks from trained to fine-tuned, measured on all of validation."""
    tuning, rounded, val = tuned.tuning, tuned.rounded, tuned.tuning.dataset.val
    learnt = () if rounded is None else (measure_stage("bits", rounded.graph, val, rounded.batches),)
    is_kept = rounded is not None and rounded.kept
    return (
        measure_stage("trained", tuned.planned.task.graph, tuning.dataset.trained.val),
        *_list_planned_stages(tuned),
        measure_stage("rates", tuning.graph, val, tuning.batches - tuning.batches_of_removal),
        *(() if is_kept else learnt),
        *_list_rounded_stages(tuned),
        *(learnt if is_kept else ()),
    )


def _list_planned_stages(tuned: TunedPruning) -> tuple[LeverStage, ...]:
    """Return the network with fewer time steps, and with the channels and weights of the plan."""
    graph, search, dataset = tuned.planned.task.graph, tuned.planned.search, tuned.tuning.dataset
    channels = sum(group.channels for group in list_prunable_groups(graph))
    whole = sum(map(len, search.plan.kept.values())) == channels
    levers: Sequence[LeverStage] = search.stages
    if not levers and search.removal is None and not (whole and not search.batches):
        levers = (measure_stage("channels", search.graph, dataset.val, search.batches),)
    fewer_steps = [] if dataset.full is None else [measure_stage("steps", graph, dataset.val)]
    measured = [measure_stage(stage.name, stage.graph, dataset.val, stage.batches) for stage in levers]
    if search.removal is not None and search.removal.thinned is not None:
        measured.append(measure_stage("weights", search.removal.thinned, dataset.val, tuned.tuning.batches_of_removal))
    return (*fewer_steps, *measured)


def _list_rounded_stages(tuned: TunedPruning) -> tuple[LeverStage, ...]:
    """Return the fine-tuned network on the values that its integers of fewer bits stand for; nothing without fewer bits."""
    bits, form = tuned.planned.bits, tuned.planned.task.form
    if bits is None or not bits.changed or form is None:
        return ()
    return (measure_stage("fewer bits", form.rounding(tuned.tuning.graph).graph, tuned.tuning.dataset.val, bits.batches),)
