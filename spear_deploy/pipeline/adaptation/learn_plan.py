"""Learning of a plan by stages, then in the chip's integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spear_deploy.adaptation.few_values import FewValues, find_few_values
from spear_deploy.adaptation.learn import calibrate_plan, find_loss, learn, list_one_sign, list_stages, make_hints
from spear_deploy.adaptation.learn_anew import is_anew, learn_anew
from spear_deploy.adaptation.needs import list_needs
from spear_deploy.adaptation.plan import Plan, Step, follow
from spear_deploy.adaptation.signs import list_unmixed
from spear_deploy.budget.check import check
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_inputs
from spear_deploy.errors import GraphError
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.network import WEIGHTED, Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.one_sign import ONE_SIGN
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adaptation.task import Adapted, AdaptTask
from spear_deploy.pipeline.adaptation.trial_plans import TrialPlan
from spear_deploy.pipeline.adaptation.waterfall import Waterfall
from spear_deploy.pipeline.learn_integers import learn_integers, note_distance
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.readout_fit import fit_readout
from spear_deploy.quantize.rounding import INTEGERS_COUNT, ROUNDED, Rounding, read_rounding
from spear_deploy.training.device import note_device
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.number_format import plural


@dataclass(frozen=True, kw_only=True)
class _Teacher:
    """What learning aims at.

    Attributes:
        accuracy: of the trained network on validation.
        hints: its scores by class on the training split.
        few: the values of a weight, where the chip has few.
    """

    accuracy: float
    hints: Array
    few: FewValues | None

    @property
    def allowed(self) -> float:
        """Accuracy that may be lost."""
        return find_loss(self.few)


def learn_plan(task: AdaptTask, dataset: Dataset, trial: TrialPlan, notes: Sequence[str]) -> Adapted:
    """Learn a plan by stages, finish it with what comes after learning, and measure each step.

    Args:
        task: with the trained network and the chip.
        dataset: of the task.
        trial: the plan.
        notes: so far.
    """
    waterfall = Waterfall(task.network, dataset)
    if is_anew(trial.plan):
        return _learn_anew(task, dataset, trial.plan, notes, waterfall)
    if trial.widths:
        waterfall.add("narrower layers", trial.network, layers=tuple(trial.widths))
    teacher = _Teacher(
        accuracy=evaluate(task.network, dataset.val).accuracy,
        hints=make_hints(task.network, dataset),
        few=find_few_values(task.profile),
    )
    learnt, steps = _learn_stages(task, dataset, trial, teacher, waterfall)
    final, _ = follow(learnt, task.profile, trial.plan.options, chips=task.chips, watch=waterfall.add_replacement)
    graph = state_facts(final.graph, task.profile, adapted_to=task.profile.name)
    missing, unlearnt = tuple(list_needs(final.report, graph, task.profile)), note_lack_of_room(task, graph)
    if not missing and not unlearnt:
        graph, distance = _learn_rounded(task, dataset, graph, teacher, waterfall)
        notes = [*notes, *distance]
    return Adapted(
        graph=graph,
        rows=tuple(_list_rows(trial, (*steps, *final.steps), teacher.few)),
        waterfall=tuple(waterfall.rows),
        missing=missing,
        report=final.report,
        widths=trial.widths,
        notes=(*notes, *unlearnt, *trial.plan.failed, *final.failed, *_note_device(task, waterfall)),
    )


def _learn_stages(
    task: AdaptTask, dataset: Dataset, trial: TrialPlan, teacher: _Teacher, waterfall: Waterfall
) -> tuple[SNNGraph, list[Step]]:
    """Make the replacements stage by stage, each with thresholds set on data and learning; return the network and the steps."""
    plan, graph, steps = trial.plan, trial.network, list[Step]()
    settings, stages = task.settings.learning.for_plan(plan.graph), list_stages(plan)
    for number, topics in enumerate(stages):
        part, _ = follow(
            graph, task.profile, plan.options, chips=task.chips, defers=True, topics=topics, watch=waterfall.add_replacement
        )
        steps += part.steps
        graph = calibrate_plan(part, graph, dataset)
        if graph is not part.graph:
            waterfall.add("thresholds set on data", graph)
        if plan.learnt or trial.widths or teacher.few:
            graph, batches = learn(
                graph, dataset, settings, aim=teacher.accuracy, hints=teacher.hints, is_last=number == len(stages) - 1,
                few=teacher.few, one_sign=list_one_sign(steps), progress=task.progress, store=task.store,
            )  # fmt: skip
            if batches:
                waterfall.add_learning("learning", batches, graph)
    return graph, steps


def _learn_rounded(
    task: AdaptTask, dataset: Dataset, graph: SNNGraph, teacher: _Teacher, waterfall: Waterfall
) -> tuple[SNNGraph, list[str]]:
    """Learn on in the chip's integers, fit the host's readout to them, and note how far they are from the trained network."""
    inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=sum_inputs(dataset, graph))
    result = learn_integers(
        inputs, task.settings.learning, aim=teacher.accuracy - teacher.allowed, hints=teacher.hints, progress=task.progress,
        store=task.store,
    )  # fmt: skip
    if result.graph is not graph:
        waterfall.add_learning(f"learning with the rounding of {task.profile.name}", result.batches, result.graph)
    graph, fitted = _fit_host(replace(inputs, network=result.graph), waterfall)
    return graph, note_distance(result.accuracy if fitted is None else fitted, teacher.accuracy, teacher.allowed)


def _fit_host(inputs: CheckedInputs, waterfall: Waterfall) -> tuple[SNNGraph, float | None]:
    """Fit the host's readout to the chip's spikes.

    Returns:
        The network, and its accuracy on validation; None where it stays as it was.
    """
    fitted = fit_readout(inputs)
    if fitted is None:
        return inputs.network, None
    waterfall.add(fitted.describe(inputs.profile), fitted.graph)
    return fitted.graph, fitted.accuracy


def _learn_anew(task: AdaptTask, dataset: Dataset, plan: Plan, notes: Sequence[str], waterfall: Waterfall) -> Adapted:
    """Learn a network that replaces the trained one whole, with the chip's values from the first batch on."""
    for step in plan.steps:
        waterfall.add_replacement(step.replacement, None, plan.graph)
    few = find_few_values(task.profile)
    assert few is not None, "a network is learnt anew on few values alone"
    has_integers = task.profile.meta.family in ROUNDED

    def round_network(network: SNNGraph) -> Rounding:
        if not has_integers:
            return few.round_network(network)
        return read_rounding(network, api.quantize_for_chip(network, task.profile))

    graph, batches = learn_anew(
        plan.graph, task.network, dataset, task.settings.learning, round_network, progress=task.progress, store=task.store
    )
    waterfall.add_learning("learning", batches, graph)
    graph = state_facts(graph, task.profile, adapted_to=task.profile.name)
    inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=sum_inputs(dataset, graph))
    graph, _ = _fit_host(inputs, waterfall)
    report = check(graph, task.profile, chips=task.chips, remedies=False)
    return Adapted(
        graph=graph,
        rows=tuple(row for step in plan.steps for row in step.to_rows()),
        waterfall=tuple(waterfall.rows),
        missing=tuple(list_needs(report, graph, task.profile)),
        report=report,
        # the network learnt with spike after spike of the integers, which floating point does not have
        notes=(*notes, *([INTEGERS_COUNT] if has_integers else []), *plan.failed, *_note_device(task, waterfall)),
    )


def _note_device(task: AdaptTask, waterfall: Waterfall) -> list[str]:
    """Return a note on the device where something was learnt on another one than the processor."""
    return note_device(task.settings.device) if waterfall.batches else []


def _list_rows(trial: TrialPlan, steps: Sequence[Step], few: FewValues | None) -> list[dict[str, Any]]:
    """Return the table's rows of narrower layers, of what was replaced, and of weights of few values."""
    learnt = {"kind": "learnt", "bound": "", "neurons": 0}
    rows = [
        {"layer": name, "what": plural(before, "channel"), "by": plural(after, "channel"), **learnt}
        for name, (before, after) in trial.widths.items()
    ]
    rows += [row for step in steps for row in step.to_rows()]
    if few is not None:
        weighted = [layer.name for layer in trial.plan.graph.layers if isinstance(layer.synapse, WEIGHTED)]
        rows += [{"layer": name, "what": "weights", "by": few.describe(), **learnt} for name in weighted]
    return rows


def note_lack_of_room(task: AdaptTask, graph: SNNGraph) -> list[str]:
    """Return a note where weights are too large to be learnt with the chip's rounding, which is known."""
    if task.profile.meta.family not in ROUNDED:
        return []
    try:
        graph.require_learning_room()
    except GraphError as error:
        return [f"not learnt with the rounding of {task.profile.name}: {error}"]
    return []


def state_facts(graph: SNNGraph, profile: HardwareProfile, **facts: str) -> SNNGraph:
    """Return an adapted network with its facts: channels are numbered from 0, and sources keep one sign where the chip's do."""
    metadata: dict[str, Any] = {key: value for key, value in graph.metadata.items() if key not in ("kept_channels", ONE_SIGN)}
    if profile.weights.sign.value == "presynaptic":
        metadata[ONE_SIGN] = list(list_unmixed(graph))
    return replace(graph, metadata={**metadata, **facts})
