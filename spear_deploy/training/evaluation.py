"""Accuracy and SynOps of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spear_deploy.data import Split
from spear_deploy.data.labels import NO_LABEL, average_right, grade_labels, require_decision
from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.classes import count_classes, read_decision, score_classes
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.simulator.run import choose_classes, decide, read_on_host
from spear_deploy.simulator.synops import SynOps, count_synops, synops_per_spike
from spear_deploy.training.entropy import cross_entropy
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.times import timed_stage

if TYPE_CHECKING:
    from spear_deploy.norse.network import NorseNetwork

BATCH = 64
"""Samples at a time; larger batches leave the cache and are slower."""
QUICK_BATCH = 256
LOGIT_SCALE = 10.0
"""Factor of the mean output before cross-entropy: membrane potentials alone are too small for confident probabilities."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of a network on a split.

    Attributes:
        accuracy: share of right decisions, 0..1.
        right: (N,) how right each sample was decided (`data.labels.grade_labels`); their mean is the accuracy.
        synops: exact, mean per inference.
        counts: spikes of every layer, summed over the split.
        synops_per_sample: (N,) float64.
        labels: (N,) or (N, T) classes that the network decided for.
    """

    accuracy: float
    right: Array
    synops: SynOps
    counts: SpikeCounts
    synops_per_sample: Array
    labels: Array


def evaluate(graph: SNNGraph, split: Split) -> Evaluation:
    """Run a network, floating point or integer, on a split.

    Raises:
        DataError: the samples do not fit the network, or labels are out of range or of another kind than what is decided.
    """
    classes = count_classes(graph)
    if split.y.max(initial=0) >= classes:
        raise DataError(f"labels go up to {split.y.max()}, the network has outputs 0..{classes - 1}; check the labels")
    require_decision("the split", split.y, read_decision(graph))
    cost = synops_per_spike(graph)
    if split.kind == "current":
        cost[INPUT] = np.zeros(graph.input_shape)
    decisions, per_sample, counts = [], [], None
    for x, _ in split.batches(BATCH):
        with limit_threads(graph):
            run = simulate(graph, x, kind=split.kind, record=["spikes"])
        decisions.append(decide(run.output, graph))
        spikes = {INPUT: x, **run.spikes}
        # spikes (T, B, *shape) · cost (*shape) → (B,)
        sent = {name: spikes[name].sum(axis=0, dtype=np.float64).reshape(x.shape[1], -1) for name in cost}
        per_sample.append(sum(sent[name] @ cost[name].ravel() for name in cost))
        counts = run.counts if counts is None else counts + run.counts
    if counts is None:
        raise DataError("the split is empty; give it at least one sample")
    labels = np.concatenate(decisions)
    right = grade_labels(labels, split.y)
    return Evaluation(
        accuracy=average_right(right),
        right=right,
        synops=count_synops(graph, counts),
        counts=counts,
        synops_per_sample=np.concatenate(per_sample),
        labels=labels,
    )


@dataclass(frozen=True, kw_only=True)
class QuickEvaluation:
    """Results of a candidate on a split, from one run of its Norse network.

    Attributes:
        accuracy: share of right decisions, 0..1.
        by_source: SynOps per inference that the spikes of each layer (and of the input) cause.
        certainty: exp(−cross-entropy), the geometric mean of the probability of the right labels, 0..1. On a few hundred
            samples accuracy moves in steps; certainty still separates candidates of equal accuracy.
    """

    accuracy: float
    by_source: dict[str, float]
    certainty: float

    @property
    def synops(self) -> float:
        """SynOps per inference."""
        return sum(self.by_source.values())


def quick_evaluate(network: NorseNetwork, graph: SNNGraph, split: Split) -> QuickEvaluation:
    """Run a Norse network on a split and return accuracy, certainty and SynOps.

    Two to three times faster than `evaluate`, for searches with many candidates. torch rounds sums in another order, which may
    move a spike.

    Args:
        network: in evaluation mode, on any device.
        graph: the same network as a graph, with its current weights.
        split: the samples.
    """
    import torch

    cost = synops_per_spike(graph)
    if split.kind == "current":
        del cost[INPUT]
    is_on_host = has_host_readout(graph)
    correct, labelled, entropy, caused = 0, 0, 0.0, dict.fromkeys(cost, 0.0)
    with torch.no_grad():
        for x, y in split.batches(QUICK_BATCH):
            with timed_stage("measure candidates"):
                output, spikes = network(x, record=True)
            if is_on_host:
                output = torch.from_numpy(read_on_host(graph, output.cpu().numpy()))
            correct += int((choose_classes(output.cpu().numpy(), graph) == y).sum())  # no decision is `NO_LABEL`
            labelled += int((y != NO_LABEL).sum())
            logits = LOGIT_SCALE * score_classes(output, graph)
            entropy += float(cross_entropy(logits, torch.from_numpy(y).to(logits.device), reduction="sum"))
            sent = {name: value.sum(dim=(0, 1)).double().cpu().numpy() for name, value in spikes.items()}
            if INPUT in cost:
                sent[INPUT] = x.sum(axis=(0, 1), dtype=np.float64)
            for name, price in cost.items():
                caused[name] += float(np.vdot(sent[name], price))
    return QuickEvaluation(
        accuracy=correct / labelled,
        by_source={name: total / len(split) for name, total in caused.items()},
        certainty=float(np.exp(-entropy / labelled)),
    )
