"""How is learnt: which optimiser, how long, and from whom?"""

from __future__ import annotations

from dataclasses import dataclass

from spear_deploy.errors import DataError
from spear_deploy.training.evaluation import BATCH


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn: AdamW, one cycle of the learning rate, cross-entropy on the mean of the output over time.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the peak of the cycle.
        warm_up: share of the steps in which the learning rate rises.
        label_smoothing: share of the target spread over all classes; it keeps margins moderate, which also survives
            coarse weights better.
        batch_size, weight_decay: as usual.
        surrogate: gradient of a spike, one of Norse's.
        steps: batches in all; ends before `epochs` are over, for a short look at what a network can become.
    """

    epochs: int
    learning_rate: float = 1e-2
    warm_up: float = 0.3
    label_smoothing: float = 0.1
    batch_size: int = BATCH
    weight_decay: float = 1e-2
    surrogate: str = "triangle"
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise DataError(
                f"recipe: {self.epochs} epochs, batches of {self.batch_size}, learning rate {self.learning_rate:g} given; "
                "expected at least 1, at least 2 (batch norm needs two samples), and more than 0"
            )
        if self.steps is not None and self.steps < 1:
            raise DataError(f"recipe: {self.steps} steps given, expected at least 1, or None for whole epochs")

    def batches(self, samples: int) -> int:
        """Return how many batches are learnt from in all."""
        whole = max(1, self.epochs * -(-samples // self.batch_size))
        return whole if self.steps is None else min(whole, self.steps)
