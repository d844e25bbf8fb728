"""Learning of an adapted network: short trials of alternatives, then fine-tuning.

The thresholds of exchanged neurons are set on data first (`calibrate`). A trial is a few batches: it tells plans apart that the
chip's limits do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.adaptation.calibrate import calibrate_thresholds
from spear_deploy.adaptation.plan import Plan
from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training import Fit, Recipe, fit
from spear_deploy.util.progress import Progress, prefix_stage

RATE_TOPICS = ("neuron", "reset", "readout", "time_constant")
"""Replacements after which thresholds are set anew."""
TRIAL_STEPS = 40
"""Batches of a trial."""


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How an adapted network learns.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the peak of the cycle.
        seed: order of the samples.
        device: of torch.
    """

    epochs: int = 12
    learning_rate: float = 7e-3
    seed: int = 0
    device: str = "cpu"

    def recipe(self, plan: Plan, *, steps: int | None = None) -> Recipe:
        """Return the recipe of the trainer for a plan, with all batches or the first `steps`."""
        return Recipe(
            epochs=self.epochs,
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
) -> Plan:
    """Return the best plan: by rank, and where several are equal there, by validation after a short training.

    Args:
        plans: of `make_plans`, with what comes before learning alone.
        before: the trained network.
        dataset: learns from `train`, chooses by `val`.
        settings: of learning; a trial takes `TRIAL_STEPS` batches.
        progress: is called after each epoch of a trial.
    """
    equal = [plan for plan in plans if plan.rank == plans[0].rank]
    if len(equal) == 1:
        return equal[0]
    results = []
    for number, plan in enumerate(equal):
        note = prefix_stage(progress, f"alternative {number + 1} of {len(equal)}")
        trial = fit(calibrate_plan(plan, before, dataset), dataset, settings.recipe(plan, steps=TRIAL_STEPS), progress=note)
        assert trial.last is not None
        results.append((trial.last.accuracy, trial.last.certainty))
    return equal[results.index(max(results))]


def learn(plan: Plan, graph: SNNGraph, dataset: Dataset, settings: LearnSettings, progress: Progress | None = None) -> Fit:
    """Fine-tune the network of a plan, with calibrated thresholds, and return the best epoch by validation."""
    return fit(graph, dataset, settings.recipe(plan), progress=progress)
