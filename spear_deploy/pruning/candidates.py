"""What does a plan cost, and what is left of the network under it?

A candidate is pruned by slicing, its batch norm re-estimated on a few batches (without that accuracy collapses and says
nothing), then measured on validation: accuracy and SynOps. Results are remembered by the number of channels kept, since
inside a group the least important channels always go first.

Before it is measured a plan has an estimate: the SynOps it would need if every neuron that stays went on spiking as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError, FileError
from spear_deploy.network import IF, Array, Layer
from spear_deploy.network.channel_groups import Group, all_groups, coupled_groups
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.importance import Criterion, importance, measured
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import cost_per_spike
from spear_deploy.training.evaluation import Evaluation, evaluate, quick_evaluate
from spear_deploy.util.files import write_json

Widths: TypeAlias = tuple[int, ...]
"""Channels that stay in each group, in the order of the layers."""
Ratios: TypeAlias = tuple[float, ...]
"""A preserve ratio for each group, in the order of the layers."""

SCORING_SAMPLES = 512
"""At most so many validation samples score a candidate."""
NORM_SAMPLES = 256
"""So many training samples re-estimate batch norm, and tell what channels are worth."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was measured of a candidate before fine-tuning.

    Attributes:
        accuracy: on validation, 0..1.
        certainty: on validation, 0..1, see `training.QuickEvaluation`.
        by_source: SynOps per inference that the spikes of each layer, and of the input, cause.
        activity: energy (J) and latency (s) where they were asked for.
    """

    widths: Widths
    accuracy: float
    certainty: float
    by_source: dict[str, float]
    activity: dict[str, float | None]

    @property
    def synops(self) -> float:
        """SynOps per inference."""
        return sum(self.by_source.values())


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

    Args:
        graph, dataset: the network, and the data whose `train` and `val` it is measured on.
        criterion: which channels of a group go first.
        chip: measures energy and latency too, if `timed`.
        checkpoint: where measurements are kept.
        device: of torch.

    Attributes:
        groups: what can be pruned.
        channels: of each group.
        worth: importance of each channel, by group.
        dense: what the network itself does on the scoring samples.
        evaluations: how many candidates were run, those of an earlier run that are taken from the checkpoint not counted.
    """

    def __init__(
        self,
        graph: SNNGraph,
        dataset: Dataset,
        *,
        criterion: Criterion = "l1",
        chip: ChipCosts | None = None,
        timed: bool = False,
        checkpoint: Checkpoint | None = None,
        device: str = "cpu",
    ) -> None:
        dataset.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
        self.graph, self.dataset, self.chip, self.device = graph, dataset, chip, device
        self.timed = timed and chip is not None
        self.groups: tuple[Group, ...] = coupled_groups(graph)
        if not self.groups:
            raise DataError(f"the network has no channels that could be removed: {'; '.join(not_prunable(graph))}")
        self.channels: Widths = tuple(group.channels for group in self.groups)
        self.split: Split = dataset.val.head(SCORING_SAMPLES)
        self.dense: Evaluation = evaluate(graph, self.split)
        self.evaluations = 0
        self.checkpoint = checkpoint or Checkpoint()
        told = measured(graph, dataset.train.head(NORM_SAMPLES), criterion)
        counts = self.dense.counts
        self.worth: tuple[Array, ...] = tuple(importance(graph, group, criterion, counts, told) for group in self.groups)
        self._order = [np.argsort(-worth, kind="stable") for worth in self.worth]
        self._numbered = _numbered(graph)
        self._norm_batches = [x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)]
        self._scores: dict[Widths, Score] = {}
        self._estimates: dict[Widths, dict[str, float]] = {}

    def plan(self, widths: Widths) -> PruningPlan:
        """Return the plan that keeps the most important channels."""
        kept = zip(self.groups, self._order, widths, strict=True)
        return PruningPlan(kept={group.name: tuple(int(k) for k in order[:width]) for group, order, width in kept})

    def estimate(self, widths: Widths) -> float:
        """Return the SynOps of a plan at the firing rates of the unpruned network."""
        return sum(self.estimate_by_source(widths).values())

    def estimate_by_source(self, widths: Widths) -> dict[str, float]:
        """Return the same by the layer whose spikes cause them."""
        if widths not in self._estimates:
            pruned = prune(self._numbered, self.plan(widths))
            self._estimates[widths] = _caused(pruned, sliced_counts(self.dense.counts, pruned))
        return self._estimates[widths]

    def sizes(self, widths: Widths) -> dict[str, float | None]:
        """Return what needs no run: parameters, and with a chip cores and memory words."""
        found: dict[str, float | None] = {"parameters": float(count_parameters(prune(self._numbered, self.plan(widths))))}
        return found if self.chip is None else {**found, **self.chip.sizes(widths)}

    def estimated_activity(self, widths: Widths) -> dict[str, float | None]:
        """Return energy and latency of a plan at the firing rates of the unpruned network."""
        assert self.chip is not None  # only asked for with a chip
        numbered = prune(self._numbered, self.plan(widths))
        return self.chip.activity(prune(self.graph, self.plan(widths)), widths, sliced_counts(self.dense.counts, numbered))

    def dense_values(self) -> dict[str, float | None]:
        """Return what the network takes as it is, by resource."""
        found = {"synops": self.dense.synops.total, **self.sizes(self.channels)}
        return found if self.chip is None else {**found, **self.chip.activity(self.graph, self.channels, self.dense.counts)}

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
            row = self.checkpoint.get(
                f"score {' '.join(map(str, widths))}{' timed' * self.timed}", lambda: self._measured(widths)
            )
            self._scores[widths] = Score(widths=widths, **row)
        return self._scores[widths]

    def _measured(self, widths: Widths) -> dict[str, Any]:
        network, graph = self._built(widths)
        self.evaluations += 1
        found = quick_evaluate(network, graph, self.split)
        row = {"accuracy": found.accuracy, "certainty": found.certainty, "by_source": found.by_source, "activity": {}}
        if self.timed and self.chip is not None:
            exact = evaluate(graph, self.split)
            activity = self.chip.activity(graph, widths, exact.counts)
            row |= {"accuracy": exact.accuracy, "by_source": _caused(graph, exact.counts), "activity": activity}
        return row

    def _built(self, widths: Widths) -> tuple[Any, SNNGraph]:
        from spear_deploy.norse.network import reestimate_batchnorm, to_graph, to_norse

        network = to_norse(prune(self.graph, self.plan(widths))).to(self.device).eval()
        reestimate_batchnorm(network, self._norm_batches)
        return network, to_graph(network)


def not_prunable(graph: SNNGraph) -> list[str]:
    """Return what cannot be pruned, and why, a sentence each."""
    return [f"'{group.name}' cannot be pruned: {group.frozen}" for group in all_groups(graph) if group.frozen]


def count_parameters(graph: SNNGraph) -> int:
    """Count weights, biases, and scale and shift of batch norms."""
    total = 0
    for layer in graph.layers:
        held = (getattr(layer.synapse, name, None) for name in ("weight", "bias"))
        total += sum(int(value.size) for value in held if value is not None)
        total += 2 * layer.norm.weight.size if layer.norm is not None else 0
    return total


def sliced_counts(counts: SpikeCounts, numbered: SNNGraph) -> SpikeCounts:
    """Return the counts of the neurons that are left in a pruned, numbered network."""
    index = {layer.name: layer.neuron.v_threshold.astype(np.int64) for layer in numbered.layers if isinstance(layer.neuron, IF)}
    sent = {name: count if name == INPUT else count.ravel()[index[name]] for name, count in counts.sent.items()}
    delivered = {
        edge: count if edge.source == INPUT else count.ravel()[index[edge.source]] for edge, count in counts.delivered.items()
    }
    return replace(counts, sent=sent, delivered=delivered)


def _numbered(graph: SNNGraph) -> SNNGraph:
    """Return the network with each neuron's number as its threshold: whatever is sliced then tells what it came from."""

    def numbered(layer: Layer) -> Layer:
        if not layer.spikes:
            return layer
        shape = graph.shape_of(layer.name)
        return replace(layer, neuron=IF(v_threshold=np.arange(np.prod(shape)).reshape(shape)))

    return graph.with_layers(numbered)


def _caused(graph: SNNGraph, counts: SpikeCounts) -> dict[str, float]:
    """Return SynOps per inference by the layer whose spikes cause them."""
    cost = cost_per_spike(graph)
    if counts.input_kind == "current":
        cost[INPUT] = np.zeros(graph.input_shape)
    return {name: float(np.vdot(counts.sent[name].astype(np.float64), price)) / counts.samples for name, price in cost.items()}


# FOLDED from spear_deploy/pruning/candidates.py
# What was measured already? A JSON file, so that a search that was stopped goes on where it was.
#
# Searchers are deterministic given the scores of their plans. So the scores are all that has to be kept: run again, a search
# is replayed from them in no time, and goes on with the first plan that was never measured.

FORMAT = 2


class Checkpoint:
    """Measurements by key, written after each new one from `begin` on. Without a path they are kept in memory alone.

    Args:
        path: of the file; it is read if it exists.
        digest: of all that the measurements depend on.

    Raises:
        FileError: the file is of another network, other data or another version, or is damaged.

    Attributes:
        found: how many measurements were read.
    """

    def __init__(self, path: Path | None = None, digest: str = "") -> None:
        self.path, self.digest = path, digest
        self._rows: dict[str, Any] = {}
        if path is not None and path.exists():
            self._rows = _read(path, digest)
        self.found = len(self._rows)
        self._writes = False

    def begin(self) -> None:
        """Write from now on: before it is known that there is something to search, nothing shall be left behind."""
        self._writes = self.path is not None

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """Return the plain data that was measured under a key, or measure and keep it."""
        if key not in self._rows:
            self._rows[key] = measure()
            if self._writes and self.path is not None:
                write_json(self.path, {"format": FORMAT, "version": version(), "of": self.digest, "measured": self._rows})
        return self._rows[key]

    def __contains__(self, key: str) -> bool:
        return key in self._rows


def version() -> str:
    """Return the version of the toolkit that measures."""
    try:
        return metadata.version("spear-deploy")
    except metadata.PackageNotFoundError:
        return "unknown"


def _read(path: Path, digest: str) -> dict[str, Any]:
    advice = "choose another folder, or remove the file to start anew"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows, of, form, made = data["measured"], data["of"], data["format"], data["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"checkpoint '{path}': cannot be read ({type(error).__name__}); {advice}") from error
    if form != FORMAT or made != version():
        raise FileError(f"checkpoint '{path}': was written by version {made}, this is {version()}; {advice}")
    if of != digest or not isinstance(rows, dict):
        raise FileError(f"checkpoint '{path}': is of another network, other data or other settings; {advice}")
    return rows
