"""Learning of an adapted network in its chip's integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.learn import SMALLER_STEPS, LearnSettings, Reached
from spear_deploy.budget.check import check
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.network import Array, Dense
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pruning.tune.rounded_learning import TOLERANCE
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.rounding import ROUNDED
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.util.number_format import percent, plural
from spear_deploy.util.progress import Progress


def learn_integers(
    inputs: CheckedInputs,
    settings: LearnSettings,
    *,
    aim: float = 0.0,
    hints: Array | None = None,
    progress: Progress | None = None,
    store: LearningStore | None = None,
) -> Reached:
    """Learn on with a chip's rounding where its integers lose accuracy, and once more with smaller steps where they miss the aim.

    Args:
        inputs: the network, with the data that it takes.
        settings: of learning.
        aim: accuracy on validation below which it learns on, whatever the integers lose.
        hints: of the trained network, see `adaptation.learn.make_hints`.
        progress: is called after each epoch.
        store: keeps how far it has learnt, see `training.fit`.

    Returns:
        The best network, the given one where nothing was better; the accuracy of its integers on validation, in floating point
        where the chip has none; and the batches of all rounds.
    """
    graph, dataset, family = inputs.network, inputs.dataset, inputs.profile.meta.family
    floating = evaluate(graph, dataset.val).accuracy

    def measure(network: SNNGraph) -> float:
        return evaluate(*inputs.deploy_integers(network, dataset.val)).accuracy

    try:
        best = Reached(graph=graph, accuracy=measure(graph) if family in FORMATS else floating)
    except (UnsupportedError, QuantizationError):  # the network has no integers of this chip
        return Reached(graph=graph, accuracy=floating)
    least, keeps_zeros = max(aim, floating - TOLERANCE), needs_zeros(graph, inputs.profile)
    for factor in (1.0, SMALLER_STEPS) if family in ROUNDED else ():
        if best.accuracy >= least:
            break
        least = aim
        recipe = replace(settings.for_network(best.graph).recipe(factor=factor), keeps_zeros=keeps_zeros)
        try:
            best = best.learn_on(
                dataset, recipe, measure=measure, keeps_equal=True, hints=hints, rounding=inputs.round_network, progress=progress,
                store=store,
            )  # fmt: skip
        except (UnsupportedError, QuantizationError):
            break
    return best


def needs_zeros(graph: SNNGraph, profile: HardwareProfile) -> bool:
    """Return whether a chip holds a network only because weights of it are zero, as in a convolution that is written out."""

    def fill(weight: Any) -> Any:
        full = np.asarray(weight)
        return np.where(full == 0, np.abs(full).max(initial=0), full)

    zeros = {
        layer.name: replace(layer, synapse=replace(synapse, weight=fill(synapse.weight)))
        for layer in graph.layers
        if isinstance(synapse := layer.synapse, Dense) and np.count_nonzero(synapse.weight) < synapse.weight.size
    }
    if not zeros or check(graph, profile, remedies=False).verdict == "does_not_fit":
        return False
    return check(graph.with_layers(zeros), profile, remedies=False).verdict == "does_not_fit"


def note_distance(accuracy: float, trained: float, allowed: float) -> list[str]:
    """Return how far a network is from the trained one on validation, where that is more than an adaptation may lose.

    >>> note_distance(0.9, 0.95, 0.01)[0].partition(":")[0]
    'on validation the adapted network is 5.0 points below the trained one, 90.0 % of 95.0 %'
    >>> note_distance(0.94, 0.95, 0.01)
    []
    """
    lost = trained - accuracy
    if lost <= allowed + 1e-9:
        return []
    most = plural(round(100 * allowed), "point")
    return [
        f"on validation the adapted network is {100 * lost:.1f} points below the trained one, {percent(accuracy, 1)} of "
        f"{percent(trained, 1)}: more than the {most} that learning aims at; more training data or more epochs "
        "(`spear-deploy adapt --epochs`) may bring it closer"
    ]
