"""Loss of a training batch: labels, teacher and SynOps penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spear_deploy.data import Split
from spear_deploy.network import Array
from spear_deploy.network.classes import score_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import read_on_host
from spear_deploy.training.entropy import cross_entropy
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE
from spear_deploy.training.synops_penalty import SynOpsPenalty
from spear_deploy.training.threads import limit_threads

if TYPE_CHECKING:
    import torch

    from spear_deploy.norse.network import NorseNetwork

HINT_WEIGHT = 0.5
"""Share of the teacher in the loss; the rest is the share of the labels."""
HINT_TEMPERATURE = 2.0


def batch_losses(
    network: NorseNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    hint: torch.Tensor | None,
    smoothing: float,
    penalty: SynOpsPenalty | None,
    logit_scale: float = LOGIT_SCALE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (total loss, cross-entropy alone) of a batch.

    Args:
        network: in training mode.
        x: (T, B, *input).
        y: (B,) labels, or (B, T), see `data.labels`.
        hint: (B, classes), or (B, T, classes), scores of the teacher (`network.classes`), or None.
        smoothing: share of the target spread over all classes.
        penalty: adds the cost of SynOps, or None.
        logit_scale: factor of the network's scores; the teacher's is `LOGIT_SCALE`.
    """
    output, spikes = network(x, record=True)
    scores = score_classes(output, network.graph)
    entropy = cross_entropy(logit_scale * scores, y, label_smoothing=smoothing)
    total = entropy if hint is None else (1 - HINT_WEIGHT) * entropy + HINT_WEIGHT * distillation_loss(scores, hint, logit_scale)
    return (total if penalty is None else total + penalty.loss(x, spikes)), entropy


def distillation_loss(scores: torch.Tensor, hint: torch.Tensor, logit_scale: float = LOGIT_SCALE) -> torch.Tensor:
    """Return the distillation loss of Hinton, Vinyals and Dean (arXiv 1503.02531): T² · KL of the softened outputs."""
    import torch

    student = torch.nn.functional.log_softmax(logit_scale / HINT_TEMPERATURE * scores.flatten(0, -2), dim=1)
    teacher = torch.nn.functional.log_softmax(LOGIT_SCALE / HINT_TEMPERATURE * hint.flatten(0, -2), dim=1)
    return torch.nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * HINT_TEMPERATURE**2


def score_outputs(graph: SNNGraph, split: Split) -> Array:
    """Run a network on a split and return what decides (`network.classes.score_classes`), float32 by sample."""
    scores = []
    with limit_threads(graph):
        for x, _ in split.batches(BATCH):
            output = read_on_host(graph, simulate(graph, x, kind=split.kind).output)
            scores.append(score_classes(output.astype(np.float32, copy=False), graph))
    return np.concatenate(scores)
