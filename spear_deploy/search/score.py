"""What does a plan cost, and what is left of the network under it?

A candidate is pruned by slicing, its batch norm re-estimated on a few batches (without that accuracy collapses and says
nothing), then measured on validation: accuracy and SynOps. Results are remembered by the number of channels kept, since
inside a group the least important channels always go first.

Before it is measured a plan has an estimate: the SynOps it would need if every neuron that stays went on spiking as before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import IF, Layer
from spear_deploy.pruning import Criterion, Group, PruningPlan, coupled_groups, importance, prune
from spear_deploy.simulator import SpikeCounts
from spear_deploy.synops import synops
from spear_deploy.training import Evaluation, evaluate, quick_evaluate

Widths: TypeAlias = tuple[int, ...]
"""Channels that stay in each group, in the order of the layers."""
Ratios: TypeAlias = tuple[float, ...]
"""A preserve ratio for each group, in the order of the layers."""

SCORING_SAMPLES = 512
"""At most so many validation samples score a candidate."""
NORM_SAMPLES = 256
"""So many training samples re-estimate batch norm."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was measured of a candidate before fine-tuning: accuracy 0..1 and SynOps per inference on validation."""

    widths: Widths
    accuracy: float
    synops: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of a proposal.

    Attributes:
        executed: the ratios that were evaluated; a proposal over the budget is scaled down first.
        reward: what they are worth.
        facts: JSON-able details.
    """

    executed: Ratios
    reward: float
    facts: dict[str, Any]


class Scorer:
    """Measures candidates of one network, and remembers.

    Attributes:
        groups: what can be pruned.
        channels: of each group.
        dense: what the network itself does on the scoring samples.
        evaluations: how many candidates were run.
    """

    def __init__(self, graph: SNNGraph, dataset: Dataset, *, criterion: Criterion = "l1") -> None:
        dataset.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
        self.graph, self.dataset = graph, dataset
        self.groups: tuple[Group, ...] = coupled_groups(graph)
        if not self.groups:
            raise DataError("the network has no channels that could be removed: every group is its input or its output")
        self.channels: Widths = tuple(group.channels for group in self.groups)
        self.split: Split = dataset.val.head(SCORING_SAMPLES)
        self.dense: Evaluation = evaluate(graph, self.split)
        self.evaluations = 0
        counts = self.dense.counts
        self._order = [np.argsort(-importance(graph, group, criterion, counts), kind="stable") for group in self.groups]
        self._numbered = _numbered(graph)
        self._norm_batches = [x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)]
        self._scores: dict[Widths, Score] = {}
        self._estimates: dict[Widths, float] = {}

    def plan(self, widths: Widths) -> PruningPlan:
        """Return the plan that keeps the most important channels."""
        kept = zip(self.groups, self._order, widths, strict=True)
        return PruningPlan(kept={group.name: tuple(int(k) for k in order[:width]) for group, order, width in kept})

    def estimate(self, widths: Widths) -> float:
        """Return the SynOps of a plan at the firing rates of the unpruned network."""
        if widths not in self._estimates:
            pruned = prune(self._numbered, self.plan(widths))
            self._estimates[widths] = synops(pruned, _sliced(self.dense.counts, pruned)).total
        return self._estimates[widths]

    def shares(self) -> tuple[float, ...]:
        """Return the share of the SynOps that arrive at the layers of each group."""
        per_layer, total = self.dense.synops.per_layer, max(self.dense.synops.total, 1e-12)
        return tuple(sum(per_layer.get(name, 0.0) for name in group.producers) / total for group in self.groups)

    def candidate(self, widths: Widths) -> SNNGraph:
        """Return the pruned network with its batch norm re-estimated."""
        return self._built(widths)[1]

    def score(self, widths: Widths) -> Score:
        """Measure a candidate, or remember."""
        if widths not in self._scores:
            network, graph = self._built(widths)
            found = quick_evaluate(network, graph, self.split)
            self._scores[widths] = Score(widths=widths, **found)
            self.evaluations += 1
        return self._scores[widths]

    def _built(self, widths: Widths) -> tuple[Any, SNNGraph]:
        from spear_deploy.interchange.norse_network import reestimate_batchnorm, to_graph, to_norse

        network = to_norse(prune(self.graph, self.plan(widths))).eval()
        reestimate_batchnorm(network, self._norm_batches)
        return network, to_graph(network)


def _numbered(graph: SNNGraph) -> SNNGraph:
    """Return the network with each neuron's number as its threshold: whatever is sliced then tells what it came from."""

    def numbered(layer: Layer) -> Layer:
        if not layer.spikes:
            return layer
        shape = graph.shape_of(layer.name)
        return replace(layer, neuron=IF(v_threshold=np.arange(np.prod(shape)).reshape(shape)))

    return graph.with_layers(numbered)


def _sliced(counts: SpikeCounts, numbered: SNNGraph) -> SpikeCounts:
    """Return the counts of the neurons that are left in a pruned, numbered network."""
    index = {layer.name: layer.neuron.v_threshold.astype(np.int64) for layer in numbered.layers if isinstance(layer.neuron, IF)}
    sent = {name: count if name == INPUT else count.ravel()[index[name]] for name, count in counts.sent.items()}
    delivered = {
        edge: count if edge.source == INPUT else count.ravel()[index[edge.source]] for edge, count in counts.delivered.items()
    }
    return replace(counts, sent=sent, delivered=delivered)
