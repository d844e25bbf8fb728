"""How a network learns, and what comes of it, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.hardware.fields import quote_value
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE, QuickEvaluation

MAX_EPOCHS = 1_000_000_000
REMOVALS = 8
REMOVAL_START, REMOVAL_END = 0.15, 0.45
"""Shares of the batches between which weights are removed: before the first the network has learnt, after the last it recovers
while the learning rate falls."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn: AdamW, one cycle of the learning rate, cross-entropy on the scores (`network.classes.score_classes`).

    Attributes:
        epochs: passes over the training split.
        learning_rate: the peak of the cycle. The default is for outputs that are potentials. Where the outputs are neurons that
            spike, and subtract on reset, a lower one as 3e-3 learns more steadily in few epochs.
        warm_up: share of the steps in which the learning rate rises.
        label_smoothing: share of the target spread over all classes; it keeps margins moderate, and moderate margins survive
            coarse weights better.
        logit_scale: factor of the scores before cross-entropy; smaller for outputs that send several spikes a step.
        batch_size: samples a step.
        weight_decay: of AdamW.
        surrogate: gradient of a spike, one of Norse's.
        steps: batches in all; ends before `epochs` are over, for a short look at what a network can become.
        seed: order of the samples. The same seed gives the same weights on the same machine and number of threads.
        synops_budget: SynOps per inference that the penalty leads to; None: no penalty.
        dual: dual variable of the penalty at the start.
        interruptible: Ctrl-C ends learning and returns the best epoch so far, instead of being passed on.
        revives_outputs: output neurons that never spike are driven first until they do.
        keeps_zeros: weights that are zero at the start stay zero; otherwise they learn as all others do.
        keeps_signs: names of layers of which each source keeps one sign, that of the larger sum of its weights at the start; a
            weight that would get the other sign stays 0 for that batch. Those that the network states (`network.one_sign`) too.
        device: of torch.
        precision: of sums while it learns, "float32" or "bfloat16" (torch's autocast; neurons stay float32); None: bfloat16 on
            CUDA devices that have it. Measurements are always in float32.
    """

    epochs: int
    learning_rate: float = 1e-2
    warm_up: float = 0.3
    label_smoothing: float = 0.1
    logit_scale: float = LOGIT_SCALE
    batch_size: int = BATCH
    weight_decay: float = 1e-2
    surrogate: str = "triangle"
    steps: int | None = None
    seed: int = 0
    synops_budget: float | None = None
    dual: float = 0.0
    interruptible: bool = False
    revives_outputs: bool = True
    keeps_zeros: bool = False
    keeps_signs: tuple[str, ...] = ()
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise DataError(
                f"recipe: {self.epochs} epochs, batches of {self.batch_size}, learning rate {self.learning_rate:g} given; "
                "expected at least 1, at least 2 (batch norm needs two samples), and more than 0"
            )
        if self.epochs > MAX_EPOCHS:
            raise DataError(f"recipe: {quote_value(self.epochs)} epochs given, expected at most {MAX_EPOCHS}; give fewer")
        if self.steps is not None and self.steps < 1:
            raise DataError(f"recipe: {self.steps} steps given, expected at least 1, or None for whole epochs")

    def count_batches(self, samples: int) -> int:
        """Return the number of batches of the whole training, for a split of so many samples."""
        batches = max(1, self.epochs * -(-samples // self.batch_size))
        return batches if self.steps is None else min(batches, self.steps)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of learning.

    Attributes:
        graph: the network of the best epoch by validation among the last third, in which the learning rate is low; within
            the budget, if any of them was.
        history: a row an epoch: loss, validation accuracy and SynOps, and the dual variable of the SynOps penalty.
        last: the last epoch on validation; None if learning was stopped before the first epoch was over.
        dual: dual variable of the SynOps penalty at the end.
        batches: that were learnt from.
        interrupted: whether Ctrl-C ended it early; `graph` is then the best epoch so far, or the start.
    """

    graph: SNNGraph
    history: tuple[dict[str, float], ...]
    last: QuickEvaluation | None = None
    dual: float = 0.0
    batches: int = 0
    interrupted: bool = False


def schedule_removals(steps: int) -> dict[int, float]:
    """Return the batches after which weights are removed, with the share of the removals that are then done.

    >>> schedule_removals(4), list(schedule_removals(1000))[::7]
    ({1: 0.75, 2: 1.0}, [150, 450])
    """
    shares = [(i + 1) / REMOVALS for i in range(REMOVALS)]
    steps_at = np.linspace(REMOVAL_START, REMOVAL_END, REMOVALS) * steps
    return {max(1, round(step)): share for step, share in zip(steps_at, shares, strict=True)}
