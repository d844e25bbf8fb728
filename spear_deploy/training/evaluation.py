"""How many decisions are right, and how many SynOps did they take?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spear_deploy.data import Split
from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.simulator.run import decide
from spear_deploy.simulator.synops import SynOps, cost_per_spike, synops

if TYPE_CHECKING:
    from spear_deploy.norse.network import NorseNetwork

BATCH = 64
"""Samples at a time; larger batches leave the cache and are slower."""
QUICK_BATCH = 256
LOGIT_SCALE = 10.0
"""Cross-entropy sees 10 times the mean of the readout: membrane potentials are too small to be sure with."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network made of a split.

    Attributes:
        accuracy: share of right decisions, 0..1.
        synops: exact, mean per inference.
        counts: spikes of every layer, summed over the split.
        synops_per_sample: (N,) float64.
        labels: (N,) decisions.
    """

    accuracy: float
    synops: SynOps
    counts: SpikeCounts
    synops_per_sample: Array
    labels: Array


def evaluate(graph: SNNGraph, split: Split) -> Evaluation:
    """Run a network, floating point or integer, on a split.

    Raises:
        DataError: the samples do not fit the network, or labels are out of range.
    """
    outputs = int(np.prod(graph.shape_of(graph.output)))
    if split.y.max(initial=0) >= outputs:
        raise DataError(f"labels go up to {split.y.max()}, the network has outputs 0..{outputs - 1}; check the labels")
    cost = cost_per_spike(graph)
    if split.kind == "current":
        cost[INPUT] = np.zeros(graph.input_shape)
    labels, per_sample, counts = [], [], None
    for x, _ in split.batches(BATCH):
        run = simulate(graph, x, kind=split.kind, record=["spikes"])
        labels.append(decide(run.output))
        spikes = {INPUT: x, **run.spikes}
        per_sample.append(sum(_per_sample(spikes[name], cost[name]) for name in cost))
        counts = run.counts if counts is None else counts + run.counts
    if counts is None:
        raise DataError("the split is empty; give it at least one sample")
    decided = np.concatenate(labels)
    return Evaluation(
        accuracy=float(np.mean(decided == split.y)),
        synops=synops(graph, counts),
        counts=counts,
        synops_per_sample=np.concatenate(per_sample),
        labels=decided,
    )


def _per_sample(spikes: Array, cost: Array) -> Array:
    """Price the spikes (T, B, *shape) of one layer: (B,)."""
    return spikes.sum(axis=0, dtype=np.float64).reshape(spikes.shape[1], -1) @ cost.ravel()


@dataclass(frozen=True, kw_only=True)
class QuickEvaluation:
    """What a candidate made of a split.

    Attributes:
        accuracy: share of right decisions, 0..1.
        by_source: SynOps per inference that the spikes of each layer (and of the input) cause.
        certainty: exp(−cross-entropy), the geometric mean of the probability that the right labels get, 0..1. On a few hundred
            samples accuracy moves in steps that hide what this one still tells apart.
    """

    accuracy: float
    by_source: dict[str, float]
    certainty: float

    @property
    def synops(self) -> float:
        """SynOps per inference."""
        return sum(self.by_source.values())


def quick_evaluate(network: NorseNetwork, graph: SNNGraph, split: Split) -> QuickEvaluation:
    """Return accuracy, certainty and SynOps on a split by the Norse network in evaluation mode, where candidates are many.

    Two to three times faster than `evaluate`; a sum that rounds otherwise in torch may move a spike.

    Args:
        network: in evaluation mode, on any device.
        graph: the graph that it computes now.
        split: the samples.
    """
    import torch

    cost = cost_per_spike(graph)
    if split.kind == "current":
        del cost[INPUT]
    right, entropy, caused = 0, 0.0, dict.fromkeys(cost, 0.0)
    with torch.no_grad():
        for x, y in split.batches(QUICK_BATCH):
            output, spikes = network(x, record=True)
            right += int((decide(output.cpu().numpy()) == y).sum())
            logits = LOGIT_SCALE * output.flatten(2).mean(0)
            entropy += float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).to(logits.device), reduction="sum"))
            sent = {name: value.sum(dim=(0, 1)).double().cpu().numpy() for name, value in spikes.items()}
            if INPUT in cost:
                sent[INPUT] = x.sum(axis=(0, 1), dtype=np.float64)
            for name, price in cost.items():
                caused[name] += float(np.vdot(sent[name], price))
    return QuickEvaluation(
        accuracy=right / len(split),
        by_source={name: total / len(split) for name, total in caused.items()},
        certainty=float(np.exp(-entropy / len(split))),
    )
