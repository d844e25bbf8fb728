"""Learning of candidates for a few batches: its rates and its recipe."""

from __future__ import annotations

from typing import Any

from spear_deploy.training.recipe import Recipe

PEAK, ROUNDED_PEAK = 1e-2, 3e-3
"""Learning rate of the first short learning of a network, and of one with the chip's rounding behind it."""
OVERSHOOT = 1.1
"""SynOps that a candidate learns towards, relative to the budget: fine-tuning lowers the rest."""


def make_short_recipe(batches: int, samples: int, *, peak: float = PEAK, **details: Any) -> Recipe:
    """Return a recipe that ends after some batches, a tenth of which warm up.

    Args:
        batches: to learn from.
        samples: of the training split.
        peak: learning rate.
        details: other fields of `Recipe`.

    >>> make_short_recipe(90, 1149).epochs, make_short_recipe(90, 1149).count_batches(1149)
    (6, 90)
    """
    epochs = -(-batches // max(1, samples // Recipe.batch_size))
    return Recipe(epochs=epochs, steps=batches, learning_rate=peak, warm_up=0.1, **details)
