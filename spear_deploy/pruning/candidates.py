"""Candidates of a search: estimate, evaluation and checkpoint.

A candidate is pruned by slicing, its batch norm re-estimated on a few batches (without that accuracy collapses), then measured
on validation: accuracy and SynOps. Results are kept by the number of channels of each group, since inside a group the least
important channels always go first.

Before the measurement a plan has an estimate: its SynOps if every neuron that stays spikes as in the unpruned network.

Searchers are deterministic given the scores of their plans. So a checkpoint holds the scores alone: run again, a search is
replayed from them in no time, and goes on with the first plan that was not measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError, FileError
from spear_deploy.network import IF, Array, Layer
from spear_deploy.network.channel_groups import ChannelGroup, list_groups, list_prunable_groups
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pruning.chip_costs import ChipCosts, Placed, measure_sizes
from spear_deploy.pruning.importance import Criterion, channel_statistics, score_channels
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_synops, synops_per_spike
from spear_deploy.training.evaluation import Evaluation, evaluate, quick_evaluate
from spear_deploy.util.digests import hash_value
from spear_deploy.util.files import write_json
from spear_deploy.util.printable import escape_hidden

Widths: TypeAlias = tuple[int, ...]
"""Channels that stay in each group, in the order of the layers."""
Ratios: TypeAlias = tuple[float, ...]
"""A preserve ratio for each group, in the order of the layers."""

SCORING_SAMPLES = 512
"""Maximum of validation samples that a candidate is measured on."""
NORM_SAMPLES = 256
"""Training samples that re-estimate batch norm and measure the importance of channels."""
FORMAT = 2
"""Version of the checkpoint file."""
MEASURED_PLANS = ("score ", "tune ")
"""Beginnings of the keys of measured plans."""
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Amount: TypeAlias = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Measurements of a candidate before fine-tuning.

    Attributes:
        widths: channels of each group.
        accuracy: on validation, 0..1.
        certainty: on validation, 0..1, see `training.QuickEvaluation`.
        by_source: SynOps per inference that the spikes of each layer, and of the input, cause.
        activity: energy (J) and latency (s), where the budgets need them.
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
class ProposalResult:
    """Result of a proposal.

    Attributes:
        executed: the ratios that were evaluated; a proposal over the budget is scaled down first.
        reward: of these ratios.
    """

    executed: Ratios
    reward: float


class Evaluator:
    """Measures candidates of one network, and keeps the results.

    Args:
        graph: the unpruned network.
        dataset: candidates are measured on its `val`; `train` re-estimates batch norm.
        criterion: importance by which the channels of a group are removed.
        chip: gives cores and memory, and if `timed` energy and latency.
        timed: whether energy and latency are measured.
        checkpoint: where measurements are kept.
        device: of torch.

    Attributes:
        groups: the groups that can be pruned.
        channels: of each group.
        channel_scores: importance of each channel, by group.
        dense: the unpruned network on the scoring samples.
        evaluations: number of candidates that were run, without those read from the checkpoint.
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
        dataset.check(graph.input_shape, count_classes(graph), read_decision(graph))
        self.graph, self.dataset, self.chip, self.device = graph, dataset, chip, device
        self.timed = timed and chip is not None
        self.groups: tuple[ChannelGroup, ...] = list_prunable_groups(graph)
        if not self.groups:
            reasons = "; ".join(list_unprunable(graph)) or "no layer is dense or a convolution"
            raise DataError(f"the network has no channels that could be removed: {reasons}")
        self.channels: Widths = tuple(group.channels for group in self.groups)
        self.split: Split = dataset.val.head(SCORING_SAMPLES)
        self.dense: Evaluation = evaluate(graph, self.split)
        self.evaluations = 0
        self.checkpoint = checkpoint or Checkpoint()
        statistics = channel_statistics(graph, dataset.train.head(NORM_SAMPLES), criterion)
        self.channel_scores: tuple[Array, ...] = tuple(
            score_channels(graph, group, criterion, self.dense.counts, statistics) for group in self.groups
        )
        self._order = [np.argsort(-scores, kind="stable") for scores in self.channel_scores]
        self._numbered = _number_neurons(graph)
        self._norm_batches = [x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)]
        self._scores: dict[Widths, Score] = {}
        self._estimates: dict[Widths, dict[str, float]] = {}
        self._placed: dict[Widths, Placed] = {}

    def with_chip(self, chip: ChipCosts) -> Evaluator:
        """Return an evaluator of the same network with other costs on a chip; both share what they measure."""
        other = copy.copy(self)
        other.chip, other._placed = chip, {}
        return other

    def plan(self, widths: Widths) -> PruningPlan:
        """Return the plan that keeps the most important channels of each group."""
        kept = zip(self.groups, self._order, widths, strict=True)
        return PruningPlan(kept={group.name: tuple(int(k) for k in order[:width]) for group, order, width in kept})

    def estimate(self, widths: Widths) -> float:
        """Return the SynOps of a plan at the firing rates of the unpruned network."""
        return sum(self.estimate_by_source(widths).values())

    def estimate_by_source(self, widths: Widths) -> dict[str, float]:
        """Return `estimate` by the layer whose spikes cause the SynOps."""
        if widths not in self._estimates:
            pruned = prune(self._numbered, self.plan(widths))
            self._estimates[widths] = _sum_synops_by_source(pruned, slice_counts(self.dense.counts, pruned))
        return self._estimates[widths]

    def estimate_by_layer(self, widths: Widths) -> dict[str, float]:
        """Return `estimate` by the layer that the spikes arrive at."""
        pruned = prune(self._numbered, self.plan(widths))
        return count_synops(pruned, slice_counts(self.dense.counts, pruned)).per_layer

    def sizes(self, widths: Widths) -> dict[str, float | None]:
        """Return parameters, and with a chip cores and memory words: all that needs no run."""
        sizes: dict[str, float | None] = {"parameters": float(count_parameters(prune(self._numbered, self.plan(widths))))}
        return sizes if self.chip is None else {**sizes, **measure_sizes(self.place(widths)[0])}

    def place(self, widths: Widths) -> Placed:
        """Return the placement of a plan on the chip with the rows that are over their limit, by its weights where they count."""
        assert self.chip is not None  # its callers have one
        if widths not in self._placed:
            if self.chip.counts_types:
                self._placed[widths] = self.chip.place_weights(prune(self.graph, self.plan(widths)))
            else:
                graph = prune(self.graph, self.plan(widths)) if self.chip.knows_zeros else None
                self._placed[widths] = self.chip.place(widths, graph)
        return self._placed[widths]

    def estimated_activity(self, widths: Widths) -> dict[str, float | None]:
        """Return energy and latency of a plan at the firing rates of the unpruned network."""
        assert self.chip is not None  # budgets of energy and latency need one
        numbered = prune(self._numbered, self.plan(widths))
        return self.chip.activity(prune(self.graph, self.plan(widths)), widths, slice_counts(self.dense.counts, numbered))

    def dense_use(self) -> dict[str, float | None]:
        """Return the use of the unpruned network by resource, on all time steps that it was trained on."""
        dense = self.dense if self.dataset.full is None else evaluate(self.graph, self.dataset.full.val.head(SCORING_SAMPLES))
        use = {"synops": dense.synops.total, **self.sizes(self.channels)}
        return use if self.chip is None else {**use, **self.chip.activity(self.graph, self.channels, dense.counts)}

    def synops_shares(self) -> tuple[float, ...]:
        """Return the share of the SynOps that arrive at the layers of each group."""
        per_layer, total = self.dense.synops.per_layer, max(self.dense.synops.total, 1e-12)
        return tuple(sum(per_layer.get(name, 0.0) for name in group.producers) / total for group in self.groups)

    def build(self, widths: Widths, source: SNNGraph | None = None) -> SNNGraph:
        """Return the pruned network with its batch norm re-estimated, of another source than the unpruned network if given."""
        return self._build(widths, source)[1]

    def score(self, widths: Widths) -> Score:
        """Return the measurements of a candidate; it runs once."""
        if widths not in self._scores:
            row = self.checkpoint.get(f"score {' '.join(map(str, widths))}{' timed' * self.timed}", lambda: self._measure(widths))
            self._scores[widths] = Score(widths=widths, **row)
        return self._scores[widths]

    def _measure(self, widths: Widths) -> dict[str, Any]:
        network, graph = self._build(widths)
        self.evaluations += 1
        quick = quick_evaluate(network, graph, self.split)
        row = {"accuracy": quick.accuracy, "certainty": quick.certainty, "by_source": quick.by_source, "activity": {}}
        if self.timed and self.chip is not None:
            exact = evaluate(graph, self.split)
            activity = self.chip.activity(graph, widths, exact.counts)
            row |= {"accuracy": exact.accuracy, "by_source": _sum_synops_by_source(graph, exact.counts), "activity": activity}
        return row

    def _build(self, widths: Widths, source: SNNGraph | None = None) -> tuple[Any, SNNGraph]:
        from spear_deploy.norse.network import reestimate_batchnorm, to_graph, to_norse

        network = to_norse(prune(self.graph if source is None else source, self.plan(widths))).to(self.device).eval()
        reestimate_batchnorm(network, self._norm_batches)
        return network, to_graph(network)


def list_unprunable(graph: SNNGraph) -> list[str]:
    """Return a sentence for each group that cannot be pruned, with the reason."""
    return [f"'{group.name}' cannot be pruned: {group.frozen}" for group in list_groups(graph) if group.frozen]


def count_parameters(graph: SNNGraph) -> int:
    """Count weights, biases, and scale and shift of batch norms."""
    total = 0
    for layer in graph.layers:
        arrays = (getattr(layer.synapse, name, None) for name in ("weight", "bias"))
        total += sum(int(array.size) for array in arrays if array is not None)
        total += 2 * layer.norm.weight.size if layer.norm is not None else 0
    return total


def slice_counts(counts: SpikeCounts, numbered: SNNGraph) -> SpikeCounts:
    """Return the counts of the neurons that are left in a pruned network of `_number_neurons`."""
    index = {layer.name: layer.neuron.v_threshold.astype(np.int64) for layer in numbered.layers if isinstance(layer.neuron, IF)}
    sent = {name: count if name == INPUT else count.ravel()[index[name]] for name, count in counts.sent.items()}
    delivered = {
        edge: count if edge.source == INPUT else count.ravel()[index[edge.source]] for edge, count in counts.delivered.items()
    }
    return replace(counts, sent=sent, delivered=delivered)


def _number_neurons(graph: SNNGraph) -> SNNGraph:
    """Return the network with each neuron's number as its threshold, so that a sliced network shows which neurons are left."""

    def number_layer(layer: Layer) -> Layer:
        if not layer.spikes:
            return layer
        shape = graph.shape_of(layer.name)
        return replace(layer, neuron=IF(v_threshold=np.arange(np.prod(shape)).reshape(shape)))

    return graph.with_layers(number_layer)


def _sum_synops_by_source(graph: SNNGraph, counts: SpikeCounts) -> dict[str, float]:
    """Return SynOps per inference by the layer whose spikes cause them."""
    cost = synops_per_spike(graph)
    if counts.input_kind == "current":
        cost[INPUT] = np.zeros(graph.input_shape)
    return {name: float(np.vdot(counts.sent[name].astype(np.float64), price)) / counts.samples for name, price in cost.items()}


class Checkpoint:
    """Measurements by key, written to a JSON file after each new one. Without a path they are kept in memory alone.

    Args:
        path: of the file; it is read if it exists.
        digest: of everything that the measurements depend on.

    Raises:
        FileError: the file is of another network, other data or another version, or is damaged.
    """

    def __init__(self, path: Path | None = None, digest: str = "") -> None:
        self.path, self.digest = path, digest
        self._rows: dict[str, Any] = {}
        if path is not None and path.exists():
            self._rows = _read_checkpoint(path, digest)
        self._writes = False

    def begin(self) -> None:
        """Write from now on. Before this call nothing is written, so that an impossible search leaves no file."""
        self._writes = self.path is not None

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """Return the plain data under a key; measure and keep it if it is not there yet."""
        if key not in self._rows:
            self._rows[key] = measure()
            if self._writes and self.path is not None:
                content = {"format": FORMAT, "version": tool_version(), "of": self.digest, "measured": self._rows}
                write_json(self.path, {**content, "digest": hash_value(content)})
        return self._rows[key]

    @property
    def rows(self) -> dict[str, Any]:
        """A copy of the measurements by key."""
        return dict(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writes": False}  # a copy in another process does not write the file

    def __contains__(self, key: str) -> bool:
        return key in self._rows


def tool_version() -> str:
    """Return the version of this package."""
    try:
        return metadata.version("spear-deploy")
    except metadata.PackageNotFoundError:
        return "unknown"


def _read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    advice = "choose another folder, or remove the file to start anew"
    try:
        data = _CheckpointFile.model_validate_json(path.read_bytes())
        content = data.model_dump(exclude={"digest"})
        edited = data.digest is not None and data.digest != hash_value(content)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"checkpoint '{path}': cannot be read ({type(error).__name__}); {advice}") from error
    if data.format != FORMAT or data.version != tool_version():
        written_by = escape_hidden(data.version)
        raise FileError(f"checkpoint '{path}': was written by version {written_by}, this is {tool_version()}; {advice}")
    if data.of != digest:
        raise FileError(f"checkpoint '{path}': is of another network, other data or other settings; {advice}")
    if edited:
        raise FileError(f"checkpoint '{path}': was changed after it was written; {advice}")
    for key, row in data.measured.items():
        try:
            if key.startswith(MEASURED_PLANS):
                _MeasuredPlan.model_validate(row)
        except ValidationError as error:
            what = error.errors()[0]
            place = ".".join(map(str, what["loc"]))
            raise FileError(f"checkpoint '{path}', '{escape_hidden(key)}' {place}: {what['msg'].lower()}; {advice}") from error
    return data.measured


class _CheckpointFile(BaseModel):
    """The content of a checkpoint; a release before the digest wrote none."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: int
    version: str
    of: str
    measured: dict[str, Any]
    digest: str | None = None


class _MeasuredPlan(BaseModel):
    """Measurements of a plan before or after fine-tuning."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    accuracy: Share
    certainty: Share
    by_source: dict[str, Amount]
    activity: dict[str, Amount | None] = {}
