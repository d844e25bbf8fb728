"""Notes of a pruning: doubts, assumptions, budgets that could not be met."""

from __future__ import annotations

import numpy as np

from spear_deploy.network.classes import COUNTED_BY_MEAN, count_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.network.labels import name_layers
from spear_deploy.pruning.bits_choice import note_kept_bits, note_plan_without_bits, note_possible_bits
from spear_deploy.pruning.budgets import ACTIVE, resource_name
from spear_deploy.pruning.chip_costs import max_use
from spear_deploy.pruning.levers import note_reward_of_zeros
from spear_deploy.pruning.pruning_task import PlannedPruning, TunedPruning
from spear_deploy.pruning.tune.margins import accuracy_error
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse
from spear_deploy.pruning.tune.rounded_learning import note_only_width, note_unused_bits
from spear_deploy.pruning.tune.thin_weights import count_zero_weights, note_unused_weights
from spear_deploy.training.device import note_device
from spear_deploy.training.evaluation import Evaluation, evaluate

MAX_STATED_SLACK = 0.02
"""Share of a SynOps budget that may stay unused without a note."""
MAX_LEFT_OVER = 0.05
"""Share of a SynOps budget that may stay unused beyond twice its margin without a note."""
FULL = 0.9
"""Share of a limit of size from which on it may be the reason why SynOps are left over."""
SILENT_RATE = 1e-4
"""Spikes per neuron and step below which a layer transmits almost nothing."""


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
    if _is_at_chance(evaluation, classes):
        notes.append(
            f"warning: the given network is at chance, {_write_accuracy(evaluation, classes)} (spikes per neuron and step: "
            f"{text}); train it first, or check that data and network belong together{_explain_decision(graph, classes)}"
        )
    return notes


def _explain_decision(graph: SNNGraph, classes: int) -> str:
    """Return in which way a network may decide that its accuracy here does not count."""
    reasons = ""
    if any(COUNTED_BY_MEAN in str(text) for text in graph.metadata.get("assumptions", ())):
        reasons += "; its forward does not decide by the mean over the steps, as is done here: train it so"
    outputs = int(np.prod(graph.shape_of(graph.output)))
    if count_classes(graph) > classes and outputs % classes == 0 and not has_host_readout(graph):
        group = outputs // classes
        reasons += (
            f"; it has {outputs} outputs for {classes} classes: where groups of {group} neurons stand for a class together, the "
            f"first {group} for class 0, state --outputs-per-class {group} (outputs_per_class={group})"
        )
    return reasons


def _is_at_chance(evaluation: Evaluation, classes: int) -> bool:
    """Return whether an accuracy is within two standard errors of that of a guess."""
    chance = 1 / classes
    error = np.sqrt(chance * (1 - chance) / len(evaluation.labels))
    if evaluation.labels.ndim > 1:  # of steps, many in a sample
        error = accuracy_error(evaluation.right)
    return bool(evaluation.accuracy <= chance + 2 * error)


def _write_accuracy(evaluation: Evaluation, classes: int) -> str:
    steps = "the labelled steps of " if evaluation.labels.ndim > 1 else ""
    return f"{evaluation.accuracy:.1%} of {steps}{len(evaluation.labels)} validation samples with {classes} classes"


def warn_of_loss(before: Evaluation, after: Evaluation, classes: int) -> list[str]:
    """Return a sentence where a network that was above chance is at chance when it is pruned.

    Args:
        before, after: of the network before and after pruning on validation.
        classes: of the data.
    """
    if _is_at_chance(before, classes) or not _is_at_chance(after, classes):
        return []
    return [
        f"warning: the pruned network is at chance, {_write_accuracy(after, classes)}, {before.accuracy:.1%} before; its "
        "budget is too small for what it has to learn, or the method does not suit it: ask for more, or name another method"
    ]


def note_pruning(tuned: TunedPruning) -> list[str]:
    """Return a sentence on each thing that was cut short, learnt, chosen or left undone, in this order."""
    planned, tuning, rounded = tuned.planned, tuned.tuning, tuned.rounded
    return [
        *_note_interruptions(tuned),
        *note_device(planned.task.settings.search_settings.device),
        *tuning.note_rounding(),
        *tuning.notes,
        *([] if rounded is None else [rounded.note]),
        *_note_bits(tuned),
        *_note_zero_weights(planned, tuned.graph),
        *_note_margin(planned.task.monitor, tuned.use),
        *([] if tuning.explains_unused or tuned.interrupted else note_unused(planned.task.monitor, tuned.use)),
        *warn_of_loss(planned.task.monitor.dense_evaluation, tuned.use.evaluation, planned.task.dataset.classes),
    ]


def _note_interruptions(tuned: TunedPruning) -> list[str]:
    search, tuning, notes = tuned.planned.search, tuned.tuning, []
    if search.interrupted:
        notes.append(f"the search was interrupted after {len(search.history)} plans; the best of them was taken")
    if tuning.interrupted:
        notes.append(f"fine-tuning was interrupted after {len(tuning.history)} epochs; the best network so far was taken")
    if tuned.rounded is not None and tuned.rounded.interrupted:
        notes.append("learning with the chip's rounding was interrupted; the best network so far was taken")
    return notes


def _note_bits(tuned: TunedPruning) -> list[str]:
    """Return what was chosen for bits by layer, or why nothing was."""
    planned, task = tuned.planned, tuned.planned.task
    settings, chip, bits = task.settings, task.chip, planned.bits
    notes = note_only_width(settings.levers, task.monitor.deployed, chip)
    notes += note_possible_bits(settings, chip) if bits is None else [bits.note]
    if task.form is not None and planned.is_given:
        notes += note_plan_without_bits(settings, chip)
    elif task.form is not None and bits is None:
        notes += note_kept_bits(settings, task.monitor)
    if tuned.rounded is None and bits is None and not tuned.tuning.interrupted:
        notes += note_unused_bits(settings.levers, task.monitor.deployed, chip)
    return notes


def _note_zero_weights(planned: PlannedPruning, pruned: SNNGraph) -> list[str]:
    """Return how many weights are zero where weights were removed, and whether the chip rewards that, or what that would save."""
    task, chip = planned.task, planned.task.chip
    if planned.search.unthinned is not None or planned.search.removal is not None:
        zeros, weights = count_zero_weights(pruned)
        return [f"{zeros:,} of {weights:,} weights are zero", *note_reward_of_zeros(("weights",), chip.profile if chip else None)]
    if chip is None or task.settings.levers is not None or "synops" not in task.monitor.limits:
        return []
    return note_unused_weights(pruned, evaluate(pruned, task.dataset.val).counts, chip.profile)


def _note_margin(monitor: BudgetMonitor, use: BudgetUse) -> list[str]:
    """Return a note where the margin may leave more of the budget unused than `MAX_STATED_SLACK`.

    Unseen samples may have more or fewer SynOps than the measured ones, so twice the margin may stay unused. A budget that could
    not be held has a note of its own.
    """
    notes = [monitor.margin_note] if monitor.margin_note else []
    group = monitor.dataset.val.group
    if group is not None and use.measured_on == "validation" and use.margin and len(np.unique(group)) < 2:
        notes.append(
            f"the {len(group):,} validation samples are of one group, so nothing shows how much other groups differ: the margin "
            f"of the budget is the largest, {use.margin:.0%}; give validation samples of two groups or more"
        )
    elif use.met and 2 * use.margin > MAX_STATED_SLACK:
        active = {name: amount for name, amount in monitor.budgets.amounts.items() if name in ACTIVE}
        relative = all(amount.relative for amount in active.values())
        names, narrower = ", ".join(map(resource_name, active)), "" if relative else ", or a budget in per cent,"
        unit = "samples" if group is None else "groups"
        notes.append(
            f"the {names} budget is kept with a margin of {use.margin:.1%}, by which unseen {unit} may differ by chance, "
            f"so up to {2 * use.margin:.1%} of it may stay unused; more validation {unit}{narrower} would narrow that"
        )
    return notes


def note_unused(monitor: BudgetMonitor, use: BudgetUse) -> list[str]:
    """Return a note where more than `MAX_LEFT_OVER` of the budget is unused beyond twice its margin, as `_note_margin` states it.

    No note where a budget is missed, or where a limit of size is used up to `FULL`: more spikes may need a larger network.
    """
    limits = {name: limit for name, limit in monitor.limits.items() if name in ACTIVE}
    sizes = {name: limit for name, limit in monitor.limits.items() if name not in ACTIVE}
    unused = 1 - max_use(use.values, limits)
    if not limits or not use.met or unused <= 2 * use.margin + MAX_LEFT_OVER or (sizes and max_use(use.values, sizes) >= FULL):
        return []
    names = ", ".join(map(resource_name, limits))
    return [f"{unused:.1%} of the {names} budget is left over, more than its margin; fine-tune longer, or name another method"]
