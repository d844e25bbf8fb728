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
from dataclasses import replace
from pathlib import Path

from spear_deploy.data import Dataset
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.pruning.bits_choice import BitsChoice, can_choose_bits, fix_limits, require_bits
from spear_deploy.pruning.chip_costs import ChipCosts, build_chip_costs
from spear_deploy.pruning.layer_bits import choose_layer_bits
from spear_deploy.pruning.levers import are_bits_alone
from spear_deploy.pruning.notes import note_pruning, preflight_warnings
from spear_deploy.pruning.pruned_result import PrunedResult, summarize_tuned, summarize_unpruned
from spear_deploy.pruning.pruning_task import PlannedPruning, PruneTask, TunedPruning
from spear_deploy.pruning.search.choose import get_search
from spear_deploy.pruning.search.search import SearchResult
from spear_deploy.pruning.search.settings import LEVER_METHODS, RL, SearchSettings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.fine_tuning import FineTuning
from spear_deploy.pruning.tune.measure import BudgetMonitor, DeployedForm
from spear_deploy.pruning.tune.rounded_learning import RoundedLearning, learn_with_rounding
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress

MAX_EXCESS = 0.1
"""Relative excess over the budget that a plan may be predicted to have: fine-tuning removes it, and unused budget is lost
accuracy."""
BITS_CHECKPOINT = "checkpoint-bits.json"
"""Checkpoint of the choice of bits by layer, beside that of the search."""


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
    the best network so far is adjusted to the budget. With `settings.completes` off, Ctrl-C is raised in both.

    Args:
        graph: a trained floating-point network.
        dataset: learns from `train`, chooses and measures by `val`; of `test` only the number of samples is used. Where it has
            fewer time steps than its `full`, the given network runs on those, as teacher too, and the pruned one on its own.
        settings: budgets, method, epochs and seed. Budgets hold for the mean over the test split; shares are relative to the use
            of the given network on the same samples. `search.confidence` and `search.overshoot` are replaced.
        deployed: forms of the network that will run; the one that uses most has to keep the budgets. The network itself unless
            given. An `IntegerForm` among them is learnt for where its integers lose accuracy.
        chip: defines cores, memory, energy and latency; needed for budgets of these.
        checkpoint: of the search. Files beside it keep how far fine-tuning has learnt: the same pruning goes on behind its
            last epoch; who writes the result removes them (`training.learning_store.forget_learning`).
        search_result: of `search_front`, to fine-tune its plan.
        progress: is called after each evaluation and epoch, and at once with each `note` that makes this pruning doubtful.

    Raises:
        BudgetError: a budget is below the use of the narrowest network, or bits are the only lever and do not help.
    """
    begin = time.perf_counter()
    with limit_threads(graph, learns=True):
        monitor = BudgetMonitor(graph.with_full_weights(), dataset, settings.budgets, deployed, chip)
        store = None if checkpoint is None else LearningStore(checkpoint.parent, progress)
        task = PruneTask(monitor=monitor, settings=settings, checkpoint=checkpoint, progress=progress, store=store)
        doubts = _show_doubts(task)
        use = monitor.measure(task.graph)
        if use.met and dataset.full is None:
            return summarize_unpruned(task, use, _learn_stated_bits(task), doubts)
        planned = _plan(task) if search_result is None else PlannedPruning(task=task, search=search_result, is_given=True)
        planned_at = time.perf_counter()
        tuned = _tune(planned)
        notes = [*doubts, *note_pruning(tuned)]
        end = time.perf_counter()
        seconds = {**planned.search.seconds, "fine_tune": end - planned_at, "prune": end - begin}
        return summarize_tuned(tuned, notes, seconds)


def _show_doubts(task: PruneTask) -> list[str]:
    """Return what makes a pruning of this network doubtful, and show it before the work begins."""
    notes = preflight_warnings(task.graph, task.monitor.dense_evaluation, task.dataset.classes)
    if task.progress is not None:
        for note in notes:
            task.progress({"stage": "doubts", "note": note, "done": 0, "of": 0})
    return notes


# ---------------------------------------------------------------------------------------------------------- the plan


def _plan(task: PruneTask) -> PlannedPruning:
    """Choose the channels that stay: bits by layer first, where they are a lever, then the search."""
    task, bits = _choose_bits(task)
    settings, checkpoint = task.settings, task.checkpoint
    if bits is not None and bits.changed and checkpoint is not None:  # measurements of the search are those of these bits
        checkpoint = checkpoint.with_name(f"checkpoint-bits-{hash_value(bits.bits)[:8]}.json")
    settings = replace(settings, search=allow_overshoot(settings.search_settings))
    task = replace(task, settings=settings, checkpoint=checkpoint)
    result = _search(task)
    if result.layer_bits is not None:
        task, bits = _state_bits(task, result.layer_bits), result.layer_bits
    return PlannedPruning(task=task, search=result, bits=bits)


def _choose_bits(task: PruneTask) -> tuple[PruneTask, BitsChoice | None]:
    """Choose bits by layer, and return the task with the network that states them; None where they are no lever."""
    chip, form, settings = task.chip, task.form, task.settings
    if are_bits_alone(settings.levers):
        require_bits(task.monitor, settings, form)
    if chip is None or form is None or not can_choose_bits(settings, chip.profile) or settings.chosen_method == RL:
        return task, None  # `rl` chooses them itself
    kept = None if task.checkpoint is None else task.checkpoint.with_name(BITS_CHECKPOINT)
    bits = choose_layer_bits(task.graph, task.monitor, form, chip, settings, checkpoint=kept, progress=task.progress)
    return (task, None) if bits is None else (_state_bits(task, bits), bits)


def _state_bits(task: PruneTask, bits: BitsChoice) -> PruneTask:
    """Return the task with the network that states the chosen bits, and with the limits from before."""
    chip, monitor = task.chip, task.monitor
    if not bits.changed or chip is None:
        return task
    stating, settings = state_layer_bits(task.graph, bits.bits), fix_limits(task.settings, monitor.limits)
    costs = build_chip_costs(stating, chip.profile, chip.chips)
    monitor = BudgetMonitor(stating, task.dataset, settings.budgets, monitor.deployed, costs)
    return replace(task, monitor=monitor, settings=settings)


def _search(task: PruneTask) -> SearchResult:
    """Return the plan of the method of the settings; all channels where fewer bits alone are enough."""
    graph, settings = task.graph, task.settings
    if read_layer_bits(graph) and task.dataset.full is None and task.monitor.measure(graph).met:
        settings = replace(settings, method="uniform", levers=None, search=None, episodes=None)
    find = get_search(settings.chosen_method)
    more = {"form": task.form} if settings.chosen_method == RL else {}
    return find(graph, task.dataset, settings, chip=task.chip, checkpoint=task.checkpoint, progress=task.progress, **more)


def allow_overshoot(settings: SearchSettings) -> SearchSettings:
    """Return the settings of a search whose plans may exceed the budget, since fine-tuning reduces their SynOps."""
    return replace(settings, confidence=0.0, overshoot=MAX_EXCESS)


# ----------------------------------------------------------------------------------------------------------- learning


def _tune(planned: PlannedPruning) -> TunedPruning:
    """Let the planned network learn to keep its budgets, in floating point, then with the chip's rounding where that helps."""
    task, search, settings = planned.task, planned.search, planned.task.settings
    tuning = FineTuning(
        search.graph, task.monitor,
        criterion=settings.search_settings.criterion, unthinned=search.unthinned, removal=search.removal,
        hints=search.hints, rate_scale=settings.rate_scale, seed=settings.seed, device=settings.search_settings.device,
        completes=settings.completes, progress=task.progress, store=task.store,
    )  # fmt: skip
    tuning.run(_count_left_epochs(settings, search.batches, len(task.dataset.train)))
    rounded = None if tuning.interrupted else _learn_rounded(task, tuning.graph, tuning.hints, tuning.dual)
    return TunedPruning(planned=planned, tuning=tuning, rounded=rounded)


def _count_left_epochs(settings: PruneSettings, batches: int, samples: int) -> int:
    """Return the epochs of fine-tuning: those of the settings, less what the search of several levers learnt from."""
    if settings.chosen_method not in LEVER_METHODS:
        return settings.epochs
    an_epoch = Recipe(epochs=1).count_batches(samples)
    return max(1, settings.epochs - round(batches / an_epoch))


def _learn_stated_bits(task: PruneTask) -> RoundedLearning | None:
    """Let a network that states bits by layer learn with their rounding; None where it states none, or loses nothing."""
    if task.form is None or not task.settings.learns_rounded or not read_layer_bits(task.graph):
        return None
    return _learn_rounded(task, task.graph, score_outputs(task.graph, task.dataset.train))


def _learn_rounded(task: PruneTask, graph: SNNGraph, hints: Array, dual: float = 0.0) -> RoundedLearning | None:
    """Let a network learn with the chip's rounding, a third of the epochs a cycle; None where its integers lose no accuracy."""
    settings = task.settings
    if task.form is None or not settings.learns_rounded:
        return None
    return learn_with_rounding(
        graph, task.monitor, task.form, epochs=max(1, settings.epochs // 3), hints=hints, dual=dual,
        rate_scale=settings.rate_scale, seed=settings.seed, device=settings.search_settings.device, completes=settings.completes,
        progress=task.progress, store=task.store,
    )  # fmt: skip
