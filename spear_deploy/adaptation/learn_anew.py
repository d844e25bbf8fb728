"""Learning of a network that replaced another one whole, in the chip's integers.

The weights are random, the trained network is the teacher: each training sample has its label and the teacher's scores.
"""

from __future__ import annotations

from spear_deploy.adaptation.crossbar import ANEW
from spear_deploy.adaptation.learn import LearnSettings
from spear_deploy.adaptation.plan import Plan
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_inputs
from spear_deploy.network import Dense
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.quantize.rounding import RoundNetwork
from spear_deploy.training import Recipe, fit
from spear_deploy.training.evaluation import LOGIT_SCALE as POTENTIALS
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.losses import score_outputs
from spear_deploy.util.progress import Progress

EPOCHS = 2.5
"""Passes over the training split, as a multiple of those of a network that keeps its weights."""
BATCH_SIZE = 32
LOGIT_SCALE = 5.0
"""Outputs send several spikes a step: half of the scale of potentials."""


def is_anew(plan: Plan) -> bool:
    """Return whether a plan replaces the network whole."""
    return any(step.replacement.option == ANEW for step in plan.steps)


def learn_anew(
    graph: SNNGraph,
    teacher: SNNGraph,
    dataset: Dataset,
    settings: LearnSettings,
    rounding: RoundNetwork,
    progress: Progress | None = None,
    store: LearningStore | None = None,
) -> tuple[SNNGraph, int]:
    """Return the best epoch on validation, and the batches that were learnt from.

    Args:
        graph: with first weights, of which each source keeps the sign.
        teacher: the trained network.
        dataset: of the teacher's input.
        settings: epochs of a network that keeps its weights, learning rate, seed and device.
        rounding: of the chip.
        progress: is called after each epoch.
        store: keeps how far it has learnt, see `training.fit`.
    """
    recipe = Recipe(
        epochs=max(1, round(EPOCHS * settings.epochs)),
        learning_rate=settings.learning_rate,
        warm_up=0.1,
        logit_scale=POTENTIALS if has_host_readout(graph) else LOGIT_SCALE,
        batch_size=BATCH_SIZE,
        seed=settings.seed,
        revives_outputs=False,  # random weights spike, and stay those that the chip stores
        keeps_signs=tuple(layer.name for layer in graph.layers if isinstance(layer.synapse, Dense)),
        device=settings.device,
    )
    hints = score_outputs(teacher, dataset.train)
    result = fit(graph, sum_inputs(dataset, graph), recipe, hints=hints, rounding=rounding, progress=progress, store=store)
    return result.graph, result.batches
