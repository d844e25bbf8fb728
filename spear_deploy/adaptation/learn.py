"""Learning of an adapted network: short trials of alternatives, then fine-tuning.

The thresholds of exchanged neurons are set on data first (`calibrate`). A trial is a few batches: it tells plans apart that the
chip's limits do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.adaptation.calibrate import calibrate_thresholds
from spear_deploy.adaptation.few_values import FewValues
from spear_deploy.adaptation.plan import Plan
from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training import Recipe, fit
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.progress import Progress, prefix_stage

RATE_TOPICS = ("neuron", "reset", "readout", "time_constant")
"""Replacements after which thresholds are set anew."""
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
SHARE_ON_FEW = 2 / 3
"""Epochs on the values of weights, where a chip has few, as a share of those before."""


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How an adapted network learns.

    Attributes:
        epochs: passes over the training split at most.
        learning_rate: the peak of the cycle.
        seed: order of the samples.
        device: of torch.
    """

    epochs: int = 24
    learning_rate: float = 7e-3
    seed: int = 0
    device: str = "cpu"

    def recipe(self, plan: Plan, *, epochs: int | None = None, steps: int | None = None) -> Recipe:
        """Return the recipe of the trainer for a plan, with all epochs or some, or the first `steps` batches."""
        return Recipe(
            epochs=epochs or self.epochs,
            learning_rate=self.learning_rate,
            warm_up=0.1,
            seed=self.seed,
            steps=steps,
            device=self.device,
            interruptible=steps is None,
            keeps_signs=tuple(
                name for step in plan.learnt if step.replacement.topic == "sign" for name in step.replacement.layers
            ),
        )


def calibrate_plan(plan: Plan, before: SNNGraph, dataset: Dataset) -> SNNGraph:
    """Return the network of a plan, with thresholds of exchanged neurons set on training samples."""
    changed = {name for step in plan.learnt if step.replacement.topic in RATE_TOPICS for name in step.replacement.layers}
    names = [layer.name for layer in plan.graph.layers if layer.name in changed and layer.spikes]
    x = np.moveaxis(dataset.train.x[:64], 0, 1)
    return calibrate_thresholds(plan.graph, before, names, x, dataset.kind) if names else plan.graph


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
        trial = fit(calibrate_plan(plan, before, dataset), dataset, settings.recipe(plan, steps=TRIAL_STEPS), progress=note)
        assert trial.last is not None
        results.append(trial.last.accuracy)
    equal = [number for number, accuracy in enumerate(results) if accuracy >= max(results) - TRIAL_MARGIN]
    return min(equal, key=lambda number: (len(plans[number].learnt), -results[number]))


def learn(
    plan: Plan,
    graph: SNNGraph,
    dataset: Dataset,
    settings: LearnSettings,
    *,
    aim: float,
    few: FewValues | None = None,
    progress: Progress | None = None,
) -> tuple[SNNGraph, int]:
    """Fine-tune the network of a plan in one or two rounds, and then on the values of its weights where the chip has few.

    The second round, twice as long as the first and with steps three times as large, is left out where the first is as good as
    the network before, or interrupted. Of both the better one on validation is kept.

    Args:
        plan: what was replaced.
        graph: its network, with calibrated thresholds.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning.
        aim: accuracy of the network before on validation.
        few: values of a weight, where the chip has few; the network then learns on these values for two thirds as long again.
        progress: is called after each epoch.

    Returns:
        (the best epoch by validation, the batches that were learnt from).
    """
    first = max(1, round(settings.epochs * SHARE_OF_FIRST))
    batches, best = 0, -1.0
    for epochs, factor in ((first, 1.0), (settings.epochs - first, LARGER_STEPS)):
        if not epochs:
            break
        recipe = settings.recipe(plan, epochs=epochs)
        result = fit(graph, dataset, replace(recipe, learning_rate=factor * recipe.learning_rate), progress=progress)
        batches += result.batches
        reached = evaluate(result.graph, dataset.val).accuracy
        if reached >= best:
            graph, best = result.graph, reached
        if result.interrupted or reached >= aim - AS_GOOD:
            break
    if few is not None:
        recipe = settings.recipe(plan, epochs=round(settings.epochs * SHARE_ON_FEW) or 1)
        result = fit(graph, dataset, recipe, rounding=few.round_network, progress=prefix_stage(progress, few.describe()))
        graph, batches = result.graph, batches + result.batches
    return graph, batches
