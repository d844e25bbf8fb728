"""Accuracy of an analogue chip as a distribution over chips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spear_deploy.data import Split
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.rounded_weights import draw_mismatch
from spear_deploy.training.evaluation import evaluate


def evaluate_mismatch(graph: SNNGraph, split: Split, spread: Mapping[str, float], *, chips: int = 10) -> dict[str, Any]:
    """Run a network on a split on chips whose neurons differ.

    Args:
        graph: a floating-point network, see `quantize.rounded_weights`.
        split: with labels.
        spread: see `draw_mismatch`.
        chips: how many are drawn, seeds 0, 1, ...

    Returns:
        {accuracies of the chips, mean, sd (of a chip, n − 1), same (without mismatch)}.

    Raises:
        DataError: a spread that is none.
    """
    accuracies = [evaluate(draw_mismatch(graph, spread, seed), split).accuracy for seed in range(chips)]
    sd = float(np.std(accuracies, ddof=1)) if chips > 1 else 0.0
    return {"accuracies": accuracies, "mean": float(np.mean(accuracies)), "sd": sd, "same": evaluate(graph, split).accuracy}
