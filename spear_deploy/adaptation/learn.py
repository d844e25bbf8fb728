"""Learning of adapted networks: short trials, then fine-tuning by stages.

    connections ─► learn ─► neurons ─► learn ─► biases ─► learn ─► signs ─► learn ─► values of a weight ─► learn

The thresholds of exchanged neurons are set on data first (`calibrate`). A trial is a few batches: it tells plans apart that the
chip's limits do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.calibrate import SAMPLES, calibrate_thresholds
from spear_deploy.adaptation.few_values import FewValues
from spear_deploy.adaptation.plan import Plan, Step
from spear_deploy.adaptation.replacement import Topic
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import INPUT_FRAME, sum_inputs, sum_split
from spear_deploy.data.labels import NO_LABEL
from spear_deploy.network import IF, Array, find_max_spikes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate
from spear_deploy.training import Recipe, fit
from spear_deploy.training.evaluation import LOGIT_SCALE, evaluate
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.losses import score_outputs
from spear_deploy.util.progress import Progress, prefix_stage
from spear_deploy.util.workers import Workers, map_jobs

STAGES: tuple[tuple[Topic, ...], ...] = (
    ("input", "outputs", "delay", "map", "kernel", "pool"), ("neuron", "time_constant", "constants", "reset", "readout"),
    ("bias",), ("sign", "palette"),
)  # fmt: skip
"""Replacements that are learnt together, in this order: a network that lost all at once comes back slowly or never."""
RATE_TOPICS = ("neuron", "reset", "readout", "time_constant", "constants", "sign")
"""Replacements after which thresholds are set anew."""
FRAME_SHARE = 0.2
"""Mean number of spikes in the frame of a network without memory, as a share of the most that a neuron sends: 3 of 15."""
TRIAL_STEPS = 60
"""Batches of a trial."""
TRIAL_MARGIN = 0.005
"""Accuracy within which trials are equal: a sample of a small validation split. The plan with least to learn is taken."""


HINT_FACTORS = tuple(2.0 ** (exponent / 2) for exponent in range(-40, 41))
"""Factors on the outputs of a teacher that are tried."""
LOSS, LOSS_ON_FEW = 0.01, 0.02
"""Accuracy that learning may lose, and with weights of few values or of up to four bits."""
FEW_LEVELS = 7
"""Levels of each sign of weights of four bits."""
SHARE_OF_FIRST = 1 / 3
"""Share of the epochs after which learning ends where validation is as good as that of the network before."""
AS_GOOD = 0.005
"""Accuracy that may be missing for that."""
FAR = 0.05
"""Accuracy that is missing after the first round from which a network has far to go."""
LARGER_STEPS, SMALLER_STEPS = 3.0, 1 / 3
"""Factors on the learning rate of the second round: of a network that has far to go, and of one that is close."""
FRAME_SPEED = 1 / 3
"""Factor on the learning rate of a network of one frame: a step changes the many spikes of its neurons more."""
MORE_EPOCHS = 3
"""Factor on the epochs, and on the batches of a trial, of a network whose neurons lose what lies above their threshold."""
MORE_ROUNDS = 2
"""Rounds after the first, while validation is below what may be lost."""
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

    def recipe(
        self, one_sign: Sequence[str] = (), *, epochs: int | None = None, steps: int | None = None, factor: float = 1.0
    ) -> Recipe:
        """Return the recipe of the trainer, with all epochs or some, or the first `steps` batches.

        Args:
            one_sign: layers of which each source keeps its sign.
            epochs, steps: see there.
            factor: on the learning rate.
        """
        return Recipe(
            epochs=epochs or self.epochs,
            learning_rate=factor * self.learning_rate,
            warm_up=0.1,
            seed=self.seed,
            steps=steps,
            device=self.device,
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
    plans: Sequence[Plan],
    before: SNNGraph,
    dataset: Dataset,
    settings: LearnSettings,
    *,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> int:
    """Return the number of the plan that is best on validation after a short training; of equal ones that with least to learn.

    Args:
        plans: with what comes before learning alone.
        before: the trained network.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning; a trial takes `TRIAL_STEPS` batches.
        workers: where trials learn at the same time; None: one after the other in this process.
        progress: is called after each trial, and after each epoch of one in this process.
    """
    if len(plans) == 1:
        return 0
    trials = _Trials(
        plans=tuple(plans), before=before, dataset=dataset, settings=settings, progress=progress if workers is None else None
    )
    names = [trials.name(number) for number in range(len(plans))]
    results = map_jobs(
        _try_plan, range(len(plans)), shared=trials, workers=workers, names=names, stage="alternatives", progress=progress
    )
    equal = [number for number, accuracy in enumerate(results) if accuracy >= max(results) - TRIAL_MARGIN]
    return min(equal, key=lambda number: (len(plans[number].learnt), -results[number]))


@dataclass(frozen=True, kw_only=True)
class _Trials:
    """What all trials of a choice read: the arguments of `choose_plan`."""

    plans: tuple[Plan, ...]
    before: SNNGraph
    dataset: Dataset
    settings: LearnSettings
    progress: Progress | None

    def name(self, number: int) -> str:
        """Return the name of a trial in progress and logs."""
        return f"alternative {number + 1} of {len(self.plans)}"


def _try_plan(trials: _Trials, number: int) -> float:
    """Return the accuracy of a plan on validation after a short training."""
    plan = trials.plans[number]
    steps = TRIAL_STEPS * (MORE_EPOCHS if loses_excess(plan.graph) else 1)
    start = calibrate_plan(plan, trials.before, trials.dataset)
    recipe = trials.settings.recipe(list_one_sign(plan.steps), steps=steps)
    note = prefix_stage(trials.progress, trials.name(number))
    trial = fit(start, sum_inputs(trials.dataset, start), recipe, progress=note)
    assert trial.last is not None
    return trial.last.accuracy


def list_stages(plan: Plan) -> list[tuple[str, ...]]:
    """Return the topics of each stage of learning, with those of the stages before it: stages that have something to learn."""
    learnt = {step.replacement.topic for step in plan.learnt}
    ends = [number for number, topics in enumerate(STAGES) if learnt & set(topics)]
    # what is exact comes with the last stage
    ends = [*ends[:-1], len(STAGES) - 1]
    return [tuple(topic for topics in STAGES[: end + 1] for topic in topics) for end in ends]


def find_loss(few: FewValues | None) -> float:
    """Return the accuracy that learning may lose where a chip has few values of a weight, or many."""
    return LOSS if few is None or few.levels > FEW_LEVELS else LOSS_ON_FEW


def make_hints(network: SNNGraph, dataset: Dataset) -> Array:
    """Return what a trained network teaches: its scores on the training split (`network.classes`), a value a class, float32.

    They are scaled so that their cross-entropy on validation is smallest: how large the outputs of a network from elsewhere are
    says nothing, and too small ones would teach that all classes are alike.
    """
    labelled = dataset.val.y != NO_LABEL
    outputs, y = score_outputs(network, dataset.val)[labelled].astype(np.float64), dataset.val.y[labelled]

    def cross_entropy(factor: float) -> float:
        logits = LOGIT_SCALE * factor * outputs
        logits -= logits.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))

    best = min(HINT_FACTORS, key=cross_entropy)
    return np.asarray(best * score_outputs(network, dataset.train), np.float32)


def learn(
    graph: SNNGraph,
    dataset: Dataset,
    settings: LearnSettings,
    *,
    aim: float,
    hints: Array | None = None,
    is_last: bool = True,
    one_sign: Sequence[str] = (),
    few: FewValues | None = None,
    progress: Progress | None = None,
    store: LearningStore | None = None,
) -> tuple[SNNGraph, int]:
    """Fine-tune an adapted network.

    A stage before the last has one short round. The last has a longer one after it, and another where more is still missing
    than may be lost: with larger steps where much is missing, else with smaller ones; the best network is kept. Where the chip
    has few values of a weight, a round on these follows, and one with smaller steps where more is missing than may be lost.
    Learning ends where the network is as good as that before.

    Args:
        graph: the network, with calibrated thresholds.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning.
        aim: accuracy of the network before on validation.
        hints: of that network, see `make_hints`; None: labels alone.
        is_last: whether this is the last stage.
        one_sign: layers of which each source keeps its sign.
        few: values of a weight, where the chip has few.
        progress: is called after each epoch.
        store: keeps how far it has learnt, see `training.fit`.

    Returns:
        (the best epoch by validation, the batches that were learnt from).
    """
    dataset = sum_inputs(dataset, graph)
    settings = settings.for_network(graph)
    first = max(1, round(settings.epochs * SHARE_OF_FIRST))
    best = Reached(graph=graph, accuracy=evaluate(graph, dataset.val).accuracy)
    factor, epochs = 1.0, first
    for number in range(1 + MORE_ROUNDS if is_last else 1):
        if not epochs or best.accuracy >= aim - (AS_GOOD if number < MORE_ROUNDS else find_loss(few)):
            break
        recipe = settings.recipe(one_sign, epochs=epochs, factor=factor)
        best = best.learn_on(dataset, recipe, hints=hints, progress=progress, store=store)
        factor, epochs = LARGER_STEPS if best.accuracy < aim - FAR else SMALLER_STEPS, settings.epochs - first
    if few is None or not is_last:
        return best.graph, best.batches
    note, epochs = prefix_stage(progress, few.describe()), round(settings.epochs * SHARE_ON_FEW) or 1
    best = replace(best, accuracy=-1.0)  # that of other values of the weights
    for factor in (1.0, SMALLER_STEPS):
        recipe = settings.recipe(one_sign, epochs=epochs, factor=factor)
        best = best.learn_on(dataset, recipe, hints=hints, rounding=few.round_network, progress=note, store=store)
        if best.accuracy >= aim - find_loss(few):
            break
    return best.graph, best.batches


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The best network of some rounds of learning.

    Attributes:
        graph: the network.
        accuracy: on validation.
        batches: of all rounds.
    """

    graph: SNNGraph
    accuracy: float
    batches: int = 0

    def learn_on(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        measure: Callable[[SNNGraph], float] | None = None,
        keeps_equal: bool = False,
        **options: Any,
    ) -> Reached:
        """Return what another round leads to.

        Args:
            dataset, recipe, options: of `fit`.
            measure: accuracy of a network; None: its own on validation.
            keeps_equal: of equal networks the one from before is kept, else the later one.
        """
        result = fit(self.graph, dataset, recipe, **options)
        accuracy = evaluate(result.graph, dataset.val).accuracy if measure is None else measure(result.graph)
        is_better = accuracy > self.accuracy if keeps_equal else accuracy >= self.accuracy
        return Reached(
            graph=result.graph if is_better else self.graph,
            accuracy=max(accuracy, self.accuracy),
            batches=self.batches + result.batches,
        )


def loses_excess(graph: SNNGraph) -> bool:
    """Return whether a neuron without leak loses what lies above its threshold when it spikes.

    Its spikes answer to the smallest change of what drives it, so that it takes longer to learn.
    """
    return any(isinstance(layer.neuron, IF) and layer.neuron.reset == "value" for layer in graph.layers)
