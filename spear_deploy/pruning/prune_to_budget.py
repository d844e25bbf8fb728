"""Pruning to budgets that hold after fine-tuning, on unseen data.

    search ─► fine-tune with a penalty on SynOps ─► measure ─► above the aim? lower the target, drop channels ─┐
                     ▲                               ▲────────────────────── learn on, shorter ◄───────────────┤
                     └── a wider plan ◄──────────────────────────────────────────────────── far below the aim? ─┘
                                                  close ─► last exact adjustments

The aim is the budget less the difference that validation and test may have by chance. The measured network may be another one
than the network that learns, e.g. its integer form (`deployed`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.network import Array
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.pruning.bits_choice import (
    BitsChoice,
    can_choose_bits,
    fix_limits,
    note_kept_bits,
    note_plan_without_bits,
    note_possible_bits,
    require_bits,
)
from spear_deploy.pruning.budgets import ACTIVE, resource_name
from spear_deploy.pruning.chip_costs import ChipCosts, build_chip_costs
from spear_deploy.pruning.layer_bits import choose_layer_bits
from spear_deploy.pruning.levers import LeverStage, are_bits_alone, measure_stage, note_reward_of_zeros
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.search.choose import get_search
from spear_deploy.pruning.search.search import SearchResult
from spear_deploy.pruning.search.settings import LEVER_METHODS, RL, SearchSettings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.fine_tuning import FineTuning
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse, DeployedForm, list_budget_rows
from spear_deploy.pruning.tune.rounded_learning import (
    IntegerForm,
    RoundedLearning,
    learn_with_rounding,
    note_only_width,
    note_unused_bits,
)
from spear_deploy.pruning.tune.thin_weights import count_zero_weights, note_unused_weights
from spear_deploy.simulator import SpikeCounts
from spear_deploy.training.device import note_device
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.training.fit import Recipe
from spear_deploy.training.losses import average_outputs
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress

OVERSHOOT = 0.1
"""Relative excess over the budget that a plan may be predicted to have: fine-tuning removes it, and unused budget is lost
accuracy."""
MAX_STATED_SLACK = 0.02
"""Share of a SynOps budget that may stay unused without a note."""
BITS_CHECKPOINT = "checkpoint-bits.json"
"""Checkpoint of the choice of bits by layer, beside that of the search."""
SILENT_RATE = 1e-4
"""Spikes per neuron and step below which a layer transmits almost nothing."""


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
            "batches": {**self.batches, "all": sum(self.batches.values())},
            "fine_tune": list(self.history),
            "notes": self.notes,
            "seconds": self.seconds,
        }


def prune_to_budget(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    *,
    deployed: Sequence[DeployedForm] = (),
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    search_result: SearchResult | None = None,
    progress: Progress | None = None,
) -> PrunedResult:
    """Prune a trained network and fine-tune it so that it keeps its budgets on unseen data.

    Ctrl-C during the search ends it, fine-tuning goes on with the best plan so far; Ctrl-C during fine-tuning ends that, and
    the best network so far is adjusted to the budget.

    Args:
        graph: a trained floating-point network.
        dataset: learns from `train`, chooses and measures by `val`; of `test` only the number of samples is used. Where it has
            fewer time steps than its `full`, the given network runs on those, as teacher too, and the pruned one on its own.
        settings: budgets, method, epochs and seed. Budgets hold for the mean over the test split; shares are relative to the use
            of the given network on the same samples. `search.confidence` and `search.overshoot` are replaced.
        deployed: forms of the network that will run; the one that uses most has to keep the budgets. The network itself unless
            given. An `IntegerForm` among them is learnt for where its integers lose accuracy.
        chip: defines cores, memory, energy and latency; needed for budgets of these.
        checkpoint: of the search.
        search_result: of `search_front`, to fine-tune its plan.
        progress: is called after each evaluation and epoch, and at once with each `note` that makes this pruning doubtful.

    Raises:
        BudgetError: a budget is below the use of the narrowest network, or bits are the only lever and do not help.
    """
    begin = time.perf_counter()
    graph = graph.with_full_weights()
    monitor = BudgetMonitor(graph, dataset, settings.budgets, deployed, chip)
    notes = preflight_warnings(graph, monitor.dense_evaluation, dataset.classes)
    if progress is not None:
        for note in notes:
            progress({"stage": "doubts", "note": note, "done": 0, "of": 0})
    use = monitor.measure(graph)
    form = next((form for form in deployed if isinstance(form, IntegerForm)), None)
    if use.met and dataset.full is None:
        return _keep_channels(graph, monitor, use, settings, form, notes, progress)
    bits: BitsChoice | None = None
    given_plan = search_result is not None
    if search_result is None:
        bits, monitor, settings = _choose_bits(monitor, settings, form, checkpoint, progress)
        graph, chip = monitor.dense, monitor.chip
        settings = replace(settings, search=allow_overshoot(settings.search_settings))
        if bits is not None and bits.changed and checkpoint is not None:  # measurements of the search are those of these bits
            checkpoint = checkpoint.with_name(f"checkpoint-bits-{hash_value(bits.bits)[:8]}.json")
        search_result = _search(graph, monitor, settings, form, checkpoint, progress)
        if search_result.layer_bits is not None:
            bits = search_result.layer_bits
            monitor, settings = _state_choice(bits, monitor, settings)
            graph, chip = monitor.dense, monitor.chip
    search_end = time.perf_counter()
    tuning = FineTuning(
        search_result.graph, monitor,
        criterion=settings.search_settings.criterion, unthinned=search_result.unthinned, removal=search_result.removal,
        hints=search_result.hints, seed=settings.seed, device=settings.search_settings.device, progress=progress,
    )  # fmt: skip
    epochs = _count_left_epochs(settings, search_result.batches, len(dataset.train))
    tuning.run(epochs)
    rounded: RoundedLearning | None = None
    if form is not None and settings.learns_rounded and not tuning.interrupted:
        rounded = _learn_rounded(tuning.graph, monitor, form, settings, progress, tuning.hints)
    pruned, use = (tuning.graph, tuning.use) if rounded is None else (rounded.graph, rounded.use)
    if search_result.interrupted:
        notes.append(f"the search was interrupted after {len(search_result.history)} plans; the best of them was taken")
    if tuning.interrupted:
        notes.append(f"fine-tuning was interrupted after {len(tuning.history)} epochs; the best network so far was taken")
    notes += note_device(settings.search_settings.device)
    counts = evaluate(pruned, dataset.val).counts if settings.levers is None and "synops" in monitor.limits else None
    notes += [*tuning.note_rounding(), *tuning.notes, *([] if rounded is None else [rounded.note])]
    notes += note_only_width(settings.levers, deployed, chip)
    notes += note_possible_bits(settings, chip) if bits is None else [bits.note]
    if form is not None:
        notes += note_plan_without_bits(settings, chip) if given_plan else []
        notes += note_kept_bits(settings, monitor) if bits is None and not given_plan else []
    if rounded is None and bits is None and not tuning.interrupted:
        notes += note_unused_bits(settings.levers, deployed, chip)
    notes += [*_note_levers(search_result, pruned, chip, counts), *_note_margin(monitor, use)]
    batches = {"search": search_result.batches, "fine_tune": tuning.batches, **({"bits": rounded.batches} if rounded else {})}
    batches |= {"layer_bits": bits.batches} if bits is not None else {}
    end = time.perf_counter()
    return _summarize(
        graph,
        pruned,
        PruningPlan(kept=_renumber_channels(graph, pruned, search_result.plan)),
        monitor,
        use,
        search=search_result,
        layer_bits=bits,
        history=tuple(tuning.history),
        stages=_list_stages(graph, search_result, tuning, rounded, _measure_bits(tuning.graph, bits, form, dataset)),
        batches=batches,
        notes=notes,
        seconds={**search_result.seconds, "fine_tune": end - search_end, "prune": end - begin},
        interrupted=search_result.interrupted or tuning.interrupted,
    )


def _keep_channels(
    graph: SNNGraph, monitor: BudgetMonitor, use: BudgetUse, settings: PruneSettings, form: IntegerForm | None, notes: list[str],
    progress: Progress | None,
) -> PrunedResult:  # fmt: skip
    """Return a network that is within the budget as it is; with bits that it states it learns for them, where that helps."""
    plan = PruningPlan(kept={group.name: tuple(range(group.channels)) for group in list_prunable_groups(graph)})
    rounded: RoundedLearning | None = None
    if form is not None and settings.learns_rounded and read_layer_bits(graph):
        hints = average_outputs(graph, monitor.dataset.train)
        rounded = _learn_rounded(graph, monitor, form, settings, progress, hints)
    if rounded is None:
        notes.append("the network is within the budget as it is: nothing was changed")
        return _summarize(graph, graph, plan, monitor, use, notes=notes, search=None)
    val = monitor.dataset.val
    stages = (measure_stage("trained", graph, val), measure_stage("bits", rounded.graph, val, rounded.batches))
    notes += ["the network is within the budget with its bits: no channel was removed", rounded.note]
    return _summarize(
        graph, rounded.graph, plan, monitor, rounded.use, notes=notes, search=None, stages=stages,
        batches={"search": 0, "fine_tune": 0, "bits": rounded.batches},
    )  # fmt: skip


def _learn_rounded(
    graph: SNNGraph, monitor: BudgetMonitor, form: IntegerForm, settings: PruneSettings, progress: Progress | None, hints: Array
) -> RoundedLearning | None:  # fmt: skip
    """Learn on with the chip's rounding for a third of the epochs, where the integers lose accuracy."""
    return learn_with_rounding(
        graph, monitor, form, epochs=max(1, settings.epochs // 3), hints=hints, seed=settings.seed,
        device=settings.search_settings.device, progress=progress,
    )  # fmt: skip


def _choose_bits(
    monitor: BudgetMonitor, settings: PruneSettings, form: IntegerForm | None, checkpoint: Path | None, progress: Progress | None
) -> tuple[BitsChoice | None, BudgetMonitor, PruneSettings]:
    """Return the choice of bits by layer, and monitor and settings of the network that states them; None where it is no lever."""
    chip, graph = monitor.chip, monitor.dense
    if are_bits_alone(settings.levers):
        require_bits(monitor, settings, form)
    if chip is None or form is None or not can_choose_bits(settings, chip.profile) or settings.chosen_method == RL:
        return None, monitor, settings  # `rl` chooses them itself
    kept = None if checkpoint is None else checkpoint.with_name(BITS_CHECKPOINT)
    bits = choose_layer_bits(graph, monitor, form, chip, settings, checkpoint=kept, progress=progress)
    return bits, *((monitor, settings) if bits is None else _state_choice(bits, monitor, settings))


def _state_choice(bits: BitsChoice, monitor: BudgetMonitor, settings: PruneSettings) -> tuple[BudgetMonitor, PruneSettings]:
    """Return monitor and settings of the network that states the chosen bits, with the limits from before."""
    chip = monitor.chip
    if not bits.changed or chip is None:
        return monitor, settings
    stating, fixed = state_layer_bits(monitor.dense, bits.bits), fix_limits(settings, monitor.limits)
    costs = build_chip_costs(stating, chip.profile, chip.chips)
    return BudgetMonitor(stating, monitor.dataset, fixed.budgets, monitor.deployed, costs), fixed


def _search(
    graph: SNNGraph, monitor: BudgetMonitor, settings: PruneSettings, form: IntegerForm | None, checkpoint: Path | None,
    progress: Progress | None,
) -> SearchResult:  # fmt: skip
    """Return the plan of the method of the settings; all channels where fewer bits alone are enough."""
    enough = read_layer_bits(graph) and monitor.dataset.full is None and monitor.measure(graph).met
    if enough:
        settings = replace(settings, method="uniform", levers=None, search=None, episodes=None)
    find = get_search(settings.chosen_method)
    more = {"form": form} if settings.chosen_method == RL else {}
    return find(graph, monitor.dataset, settings, chip=monitor.chip, checkpoint=checkpoint, progress=progress, **more)


def _count_left_epochs(settings: PruneSettings, batches: int, samples: int) -> int:
    """Return the epochs of fine-tuning: those of the settings, less what the search of several levers learnt from."""
    if settings.chosen_method not in LEVER_METHODS:
        return settings.epochs
    an_epoch = Recipe(epochs=1).count_batches(samples)
    return max(1, settings.epochs - round(batches / an_epoch))


def allow_overshoot(settings: SearchSettings) -> SearchSettings:
    """Return the settings of a search whose plans may exceed the budget, since fine-tuning reduces their SynOps."""
    return replace(settings, confidence=0.0, overshoot=OVERSHOOT)


def preflight_warnings(graph: SNNGraph, evaluation: Evaluation, classes: int) -> list[str]:
    """Return a sentence for a silent layer and one for accuracy at chance, with the rates of all layers.

    Args:
        graph: the network before pruning.
        evaluation: of it on validation.
        classes: of the data.
    """
    rates = evaluation.counts.rates()
    text = ", ".join(f"{name_layers([name])} {rate:.4f}" for name, rate in rates.items())
    notes = []
    silent = [name for name, rate in rates.items() if rate < SILENT_RATE]
    if silent:
        names = ", ".join(f"'{name}'" for name in silent)
        notes.append(
            f"warning: of the given network {names} hardly spike{'s' * (len(silent) == 1)} (spikes per neuron and step: "
            f"{text}); check the scale of the input and the thresholds"
        )
    samples = len(evaluation.labels)
    chance = 1 / classes
    if evaluation.accuracy <= chance + 2 * np.sqrt(chance * (1 - chance) / samples):
        notes.append(
            f"warning: the given network is at chance, {evaluation.accuracy:.1%} of {samples} validation samples with {classes} "
            f"classes (spikes per neuron and step: {text}); train it first, or check that data and network belong together"
        )
    return notes


def _note_levers(result: SearchResult, graph: SNNGraph, chip: ChipCosts | None, counts: SpikeCounts | None) -> list[str]:
    """Return how many weights are zero where weights were removed, and whether the chip rewards that, or what that would save."""
    if result.unthinned is None and result.removal is None:
        return [] if chip is None or counts is None else note_unused_weights(graph, counts, chip.profile)
    zeros, weights = count_zero_weights(graph)
    return [f"{zeros} of {weights} weights are zero", *note_reward_of_zeros(("weights",), chip.profile if chip else None)]


def _list_stages(
    graph: SNNGraph, result: SearchResult, tuning: FineTuning, rounded: RoundedLearning | None, fewer_bits: Sequence[LeverStage]
) -> tuple[LeverStage, ...]:
    """Return the networks from trained to fine-tuned, measured on all of validation."""
    levers, dataset = result.stages, tuning.dataset
    channels = sum(group.channels for group in list_prunable_groups(graph))
    whole = sum(map(len, result.plan.kept.values())) == channels
    if not levers and result.removal is None and not (whole and not result.batches):
        levers = (measure_stage("channels", result.graph, dataset.val, result.batches),)
    fewer_steps = () if dataset.full is None else (measure_stage("steps", graph, dataset.val),)
    measured = [measure_stage(stage.name, stage.graph, dataset.val, stage.batches) for stage in levers]
    if result.removal is not None and result.removal.thinned is not None:
        measured.append(measure_stage("weights", result.removal.thinned, dataset.val, tuning.batches_of_removal))
    learnt = () if rounded is None else (measure_stage("bits", rounded.graph, dataset.val, rounded.batches),)
    return (
        measure_stage("trained", graph, dataset.trained.val),
        *fewer_steps,
        *measured,
        measure_stage("rates", tuning.graph, dataset.val, tuning.batches - tuning.batches_of_removal),
        *(learnt if rounded is None or not rounded.kept else ()),
        *fewer_bits,
        *(learnt if rounded is not None and rounded.kept else ()),
    )


def _measure_bits(tuned: SNNGraph, bits: BitsChoice | None, form: IntegerForm | None, dataset: Dataset) -> tuple[LeverStage, ...]:
    """Return the fine-tuned network on the values that its integers of fewer bits stand for; nothing without fewer bits."""
    if bits is None or not bits.changed or form is None:
        return ()
    return (measure_stage("fewer bits", form.rounding(tuned).graph, dataset.val, bits.batches),)


def _note_margin(monitor: BudgetMonitor, use: BudgetUse) -> list[str]:
    """Return a note where the margin may leave more of the budget unused than `MAX_STATED_SLACK`.

    Unseen samples may have more or fewer SynOps than the measured ones, so twice the margin may stay unused.
    """
    notes = [monitor.margin_note] if monitor.margin_note else []
    if 2 * use.margin > MAX_STATED_SLACK:
        active = {name: amount for name, amount in monitor.budgets.amounts.items() if name in ACTIVE}
        relative = all(amount.relative for amount in active.values())
        names, narrower = ", ".join(map(resource_name, active)), "" if relative else ", or a budget in per cent,"
        notes.append(
            f"the {names} budget is kept with a margin of {use.margin:.1%}, by which unseen samples may differ by chance, "
            f"so up to {2 * use.margin:.1%} of it may stay unused; more validation samples{narrower} would narrow that"
        )
    return notes


def _renumber_channels(graph: SNNGraph, pruned: SNNGraph, plan: PruningPlan) -> dict[str, tuple[int, ...]]:
    """Return the channels that are left in each group, numbered as in `graph`, which may be pruned too."""
    first = graph.metadata.get("kept_channels", {})
    kept = {}
    for name in plan.kept:
        left: Sequence[int] = pruned.metadata["kept_channels"][name]
        number = {channel: index for index, channel in enumerate(first.get(name, range(max(left) + 1)))}
        kept[name] = tuple(number[channel] for channel in left)
    return kept


def _summarize(
    graph: SNNGraph, pruned: SNNGraph, plan: PruningPlan, monitor: BudgetMonitor, use: BudgetUse, **details: Any
) -> PrunedResult:
    """Return the result; `details` are the fields that need no computation."""
    channels = {group.name: group.channels for group in list_prunable_groups(graph)}
    return PrunedResult(
        graph=pruned.with_compact_weights(),
        plan=plan,
        widths={name: [channels[name], len(kept)] for name, kept in plan.kept.items()},
        budgets=list_budget_rows(monitor.limits, use),
        synops=float(use.values["synops"] or 0.0),
        accuracy=use.evaluation.accuracy,
        margin=use.margin,
        met=use.met,
        **details,
    )
