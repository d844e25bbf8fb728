"""Plans among which a short training decides, narrowed until they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from spear_deploy.adaptation.plan import Plan, follow
from spear_deploy.budget.check import check
from spear_deploy.budget.latency import has_step_limits
from spear_deploy.data.input_sums import sum_split
from spear_deploy.network import Dense, Layer
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pipeline.adaptation.task import AdaptTask
from spear_deploy.pruning.candidates import Widths
from spear_deploy.pruning.importance import plan_by_importance
from spear_deploy.pruning.plan import prune
from spear_deploy.pruning.search.projection import fill_ratios
from spear_deploy.simulator import SpikeCounts
from spear_deploy.training.evaluation import evaluate

MAX_CANDIDATES = 3
"""Plans that learn for a short time, the best by rank."""
MOST_FOR_STEPS = 0.5
"""Share of the channels that a limit of what a chip does in a step may take beyond its room."""
SAMPLES = 64
"""Training samples from which the activity of narrower networks is estimated, where the chip limits what it does in a step."""
RISE = 3.0
"""Times as often as those before that neurons of a narrower network are expected to spike: with 4 x 4 sums of MNIST it is 2.8."""


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
    """Return the widest network with which a plan fits: one share of all widths, then what it leaves; None where none fits.

    Where the chip limits what it does in a step, the network is as narrow as the expected spikes ask for, unless that takes more
    than `MOST_FOR_STEPS` of its channels: the fewer neurons there are, the more often they spike.
    """
    groups = {group.name: group.channels for group in list_prunable_groups(task.network)}
    channels, narrowest = tuple(groups.values()), (1,) * len(groups)

    def narrow(widths: Widths) -> SNNGraph:
        return prune(task.network, plan_by_importance(task.network, dict(zip(groups, widths, strict=True))))

    def adapt(widths: Widths) -> Plan:
        return follow(narrow(widths), task.profile, plan.options, chips=task.chips)[0]

    @cache  # of the answers: the networks would fill the memory
    def has_room(widths: Widths) -> bool:
        return widths != channels and adapt(widths).report.verdict != "does_not_fit"

    if not groups or not has_room(narrowest):
        return None
    widths = fill_ratios((1.0,) * len(groups), channels, narrowest, has_room)
    rates = _measure_rates(task)
    if rates is None:
        return narrow(widths)

    @cache
    def has_time(widths: Widths) -> bool:
        graph = adapt(widths).graph
        activity, filled = _expect_activity(task, graph, rates), graph.with_layers(_fill_zeros)
        return check(filled, task.profile, chips=task.chips, activity=activity, remedies=False).verdict != "does_not_fit"

    fewer = fill_ratios((1.0,) * len(groups), widths, narrowest, lambda widths: has_room(widths) and has_time(widths))
    return narrow(fewer if has_time(fewer) and sum(fewer) >= (1 - MOST_FOR_STEPS) * sum(widths) else widths)


def _measure_rates(task: AdaptTask) -> dict[str, float] | None:
    """Return the expected spikes of a neuron in an inference, by layer of the trained network; None where nothing limits them."""
    if task.dataset is None or not has_step_limits(task.profile):
        return None
    samples = task.dataset.train.head(SAMPLES)
    counts = evaluate(task.network, samples).counts
    most = task.profile.neuron.max_spikes_per_step.max_value
    limit = np.inf if most is None else most * counts.steps
    spiking = [layer.name for layer in task.network.layers if layer.spikes]
    return {name: min(RISE * float(counts.sent[name].mean()) / counts.samples, limit) for name in spiking}


def _expect_activity(task: AdaptTask, graph: SNNGraph, rates: Mapping[str, float]) -> SpikeCounts:
    """Return the activity that an adapted network will have: that of its input, and the expected rates of its neurons."""
    assert task.dataset is not None
    samples = sum_split(task.dataset.train.head(SAMPLES), graph)
    events = samples.x if samples.kind == "spikes" else samples.x != 0  # as counts of an analogue input are
    mean = float(np.mean(list(rates.values()) or [0.0]))
    sent = {
        layer.name: np.full(graph.shape_of(layer.name), rates.get(layer.name, mean)) for layer in graph.layers if layer.spikes
    }
    sent[INPUT] = np.asarray(events, np.float64).sum(axis=(0, 1)) / len(samples)
    return SpikeCounts(sent=sent, steps=samples.x.shape[1], samples=1, input_kind=samples.kind)


def _fill_zeros(layer: Layer) -> Layer:
    """Return a layer without weights of zero: learning fills those of a convolution that is written out."""
    synapse = layer.synapse
    return replace(layer, synapse=replace(synapse, weight=np.ones(synapse.weight.shape))) if isinstance(synapse, Dense) else layer
