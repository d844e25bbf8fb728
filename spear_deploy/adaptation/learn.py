"""Learning of adapted networks: short trials, then fine-tuning by stages.

    connections ─► learn ─► neurons ─► learn ─► biases ─► learn ─► signs ─► learn ─► values of a weight ─► learn

The thresholds of exchanged neurons are set on data first (`calibrate`). A trial is a few batches: it tells plans apart that the
chip's limits do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.adaptation.calibrate import SAMPLES, calibrate_thresholds
from spear_deploy.adaptation.few_values import FewValues
from spear_deploy.adaptation.plan import Plan, Step
from spear_deploy.adaptation.replacement import Topic
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import INPUT_FRAME, sum_inputs, sum_split
from spear_deploy.network import IF, find_max_spikes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate
from spear_deploy.training import Recipe, fit
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.progress import Progress, prefix_stage

STAGES: tuple[tuple[Topic, ...], ...] = (
    ("input", "map", "kernel", "pool"), ("neuron", "time_constant", "reset", "readout"), ("bias",), ("sign", "palette"),
)  # fmt: skip
"""Replacements that are learnt together, in this order: a network that lost all at once comes back slowly or never."""
RATE_TOPICS = ("neuron", "reset", "readout", "time_constant", "sign")
"""Replacements after which thresholds are set anew."""
FRAME_SHARE = 0.2
"""Mean number of spikes in the frame of a network without memory, as a share of the most that a neuron sends: 3 of 15."""
TRIAL_STEPS = 60
"""Batches of a trial."""
TRIAL_MARGIN = 0.005
"""Accuracy within which trials are equal: a sample of a small validation split. The plan with least to learn is taken."""


SHARE_OF_FIRST = 1 / 3
"""Share of the epochs after which learning ends where validation is as good as that of the network before."""
AS_GOOD = 0.005
"""Accuracy that may be missing for that."""
LARGER_STEPS = 3.0
"""Factor on the learning rate of the second round: a network that a short round does not bring back has far to go."""
FRAME_SPEED = 1 / 3
"""Factor on the learning rate of a network of one frame: a step changes the many spikes of its neurons more."""
MORE_EPOCHS = 3
"""Factor on the epochs, and on the batches of a trial, of a network whose neurons lose what lies above their threshold."""
SHARE_ON_FEW = 2 / 3
"""Epochs on the values of weights, where a chip has few, as a share of those before."""


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How an adapted network learns.

    Attributes:
        epochs: passes over the training split at most; see `for_plan`.
        learning_rate: the peak of the cycle.
        seed: order of the samples.
        device: of torch.
    """

    epochs: int = 24
    learning_rate: float = 7e-3
    seed: int = 0
    device: str = "cpu"

    def for_network(self, graph: SNNGraph) -> LearnSettings:
        """Return the settings for a network: smaller steps for one of one frame."""
        is_frame = bool(graph.metadata.get(INPUT_FRAME))
        return replace(self, learning_rate=FRAME_SPEED * self.learning_rate) if is_frame else self

    def for_plan(self, graph: SNNGraph) -> LearnSettings:
        """Return the settings for a network with all replacements: more epochs where neurons lose what lies above a threshold."""
        return replace(self, epochs=MORE_EPOCHS * self.epochs) if loses_excess(graph) else self

    def recipe(self, one_sign: Sequence[str] = (), *, epochs: int | None = None, steps: int | None = None) -> Recipe:
        """Return the recipe of the trainer, with all epochs or some, or the first `steps` batches.

        Args:
            one_sign: layers of which each source keeps its sign.
            epochs, steps: see there.
        """
        return Recipe(
            epochs=epochs or self.epochs,
            learning_rate=self.learning_rate,
            warm_up=0.1,
            seed=self.seed,
            steps=steps,
            device=self.device,
            interruptible=steps is None,
            keeps_signs=tuple(one_sign),
        )


def list_one_sign(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return the layers whose sources keep one sign after these steps."""
    learnt = [step.replacement for step in steps if step.replacement.kind == "learnt" and step.replacement.topic == "sign"]
    return tuple(name for replacement in learnt for name in replacement.layers)


def calibrate_plan(plan: Plan, before: SNNGraph, dataset: Dataset) -> SNNGraph:
    """Return the network of a plan, with thresholds of exchanged neurons set on training samples."""
    changed = {name for step in plan.learnt if step.replacement.topic in RATE_TOPICS for name in step.replacement.layers}
    names = [layer.name for layer in plan.graph.layers if layer.name in changed and layer.spikes]
    if not names:
        return plan.graph
    samples = dataset.train.head(SAMPLES)
    x, x_before = (np.moveaxis(sum_split(samples, each).x, 0, 1) for each in (plan.graph, before))
    rates = simulate(before, x_before, kind=dataset.kind).counts.rates()
    if len(x) < len(x_before):  # a frame: what a neuron sends has more than two values
        rates |= {name: FRAME_SHARE * (find_max_spikes(plan.graph[name].neuron) or 1) for name in names}
    return calibrate_thresholds(plan.graph, rates, names, x, dataset.kind)


def choose_plan(
    plans: Sequence[Plan], before: SNNGraph, dataset: Dataset, settings: LearnSettings, progress: Progress | None = None
) -> int:
    """Return the number of the plan that is best on validation after a short training; of equal ones that with least to learn.

    Args:
        plans: with what comes before learning alone.
        before: the trained network.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning; a trial takes `TRIAL_STEPS` batches.
        progress: is called after each epoch of a trial.
    """
    if len(plans) == 1:
        return 0
    results = []
    for number, plan in enumerate(plans):
        note = prefix_stage(progress, f"alternative {number + 1} of {len(plans)}")
        start, steps = calibrate_plan(plan, before, dataset), TRIAL_STEPS * (MORE_EPOCHS if loses_excess(plan.graph) else 1)
        recipe = settings.recipe(list_one_sign(plan.steps), steps=steps)
        trial = fit(start, sum_inputs(dataset, start), recipe, progress=note)
        assert trial.last is not None
        results.append(trial.last.accuracy)
    equal = [number for number, accuracy in enumerate(results) if accuracy >= max(results) - TRIAL_MARGIN]
    return min(equal, key=lambda number: (len(plans[number].learnt), -results[number]))


def list_stages(plan: Plan) -> list[tuple[str, ...]]:
    """Return the topics of each stage of learning, with those of the stages before it: stages that have something to learn."""
    learnt = {step.replacement.topic for step in plan.learnt}
    ends = [number for number, topics in enumerate(STAGES) if learnt & set(topics)]
    # what is exact comes with the last stage
    ends = [*ends[:-1], len(STAGES) - 1]
    return [tuple(topic for topics in STAGES[: end + 1] for topic in topics) for end in ends]


def learn(
    graph: SNNGraph,
    dataset: Dataset,
    settings: LearnSettings,
    *,
    aim: float,
    is_last: bool = True,
    one_sign: Sequence[str] = (),
    few: FewValues | None = None,
    progress: Progress | None = None,
) -> tuple[SNNGraph, int]:
    """Fine-tune an adapted network.

    A stage before the last has one short round. The last has a second one, twice as long and with steps three times as large, of
    which the better one on validation is kept; then rounds on the values of a weight, where the chip has few. A round is left out
    where the network is as good as that before, or learning was interrupted.

    Args:
        graph: the network, with calibrated thresholds.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning.
        aim: accuracy of the network before on validation.
        is_last: whether this is the last stage.
        one_sign: layers of which each source keeps its sign.
        few: values of a weight, where the chip has few.
        progress: is called after each epoch.

    Returns:
        (the best epoch by validation, the batches that were learnt from).
    """
    dataset = sum_inputs(dataset, graph)
    settings = settings.for_network(graph)
    first = max(1, round(settings.epochs * SHARE_OF_FIRST))
    rounds = [(first, 1.0), (settings.epochs - first, LARGER_STEPS)]
    batches, best = 0, evaluate(graph, dataset.val).accuracy
    for epochs, factor in rounds if is_last else rounds[:1]:
        if not epochs or best >= aim - AS_GOOD:
            break
        recipe = settings.recipe(one_sign, epochs=epochs)
        recipe = replace(recipe, learning_rate=factor * recipe.learning_rate)
        result = fit(graph, dataset, recipe, progress=progress)
        batches += result.batches
        reached = evaluate(result.graph, dataset.val).accuracy
        if reached >= best:
            graph, best = result.graph, reached
        if result.interrupted:
            break
    if few is not None and is_last:
        recipe = settings.recipe(one_sign, epochs=round(settings.epochs * SHARE_ON_FEW) or 1)
        note = prefix_stage(progress, few.describe())
        result = fit(graph, dataset, recipe, rounding=few.round_network, progress=note)
        graph, batches = result.graph, batches + result.batches
    return graph, batches


def loses_excess(graph: SNNGraph) -> bool:
    """Return whether a neuron without leak loses what lies above its threshold when it spikes.

    Its spikes answer to the smallest change of what drives it, so that it takes longer to learn.
    """
    return any(isinstance(layer.neuron, IF) and layer.neuron.reset == "value" for layer in graph.layers)
