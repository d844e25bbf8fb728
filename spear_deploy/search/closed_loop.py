"""How does the budget hold after fine-tuning, on data that nobody has seen?

    search ─► fine-tune with a price on SynOps ─► measure on validation ─► above the aim? lower the target, or trim ─┐
                                                      ▲──────────────────────────────────────────────────────────────┘

The aim is the budget less what validation and test may differ by chance. What is measured may be another network than
the one that learns, e.g. its integer form: `measure` says what counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.pruning import PruningPlan, coupled_groups, importance, prune
from spear_deploy.search.loop import Constraint, SearchResult, SearchSettings, search
from spear_deploy.search.score import NORM_SAMPLES
from spear_deploy.training import Evaluation, Progress, Recipe, evaluate, fit

Measure = Callable[[SNNGraph], Evaluation]
"""Runs what will be deployed of a floating-point network on the validation split."""

REACH = 0.1
"""A plan may be predicted 10 % above the budget: fine-tuning takes that down, and unused budget is lost accuracy."""
SIGMAS = 2.0
"""Margin in standard errors of the difference between the means of two splits."""
SLACK = 0.005
"""The target of learning lies below the aim by what epochs differ from each other."""
ROUNDS = 4
"""Times that learning is taken up again, each for a third of the epochs; from the third on, channels are trimmed first."""


@dataclass(frozen=True, kw_only=True)
class PrunedResult:
    """A network that is pruned and fine-tuned to a budget.

    Attributes:
        graph: the network.
        plan: channels that stay, in the numbering of the given network.
        widths: {group: [channels before, after]}.
        budget: SynOps per inference.
        aim: the budget less its margin; what validation was held to.
        synops: measured on validation.
        accuracy: on validation, 0..1.
        met: whether `synops <= aim`.
        search: how the plan was found; None where the network was within the budget as it was.
        history: a row an epoch of fine-tuning.
        notes: sentences on what was assumed or could not be met.
        seconds: wall time by part.
    """

    graph: SNNGraph
    plan: PruningPlan
    widths: dict[str, list[int]]
    budget: float
    aim: float
    synops: float
    accuracy: float
    search: SearchResult | None
    history: tuple[dict[str, Any], ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the budget holds with its margin."""
        return self.synops <= self.aim

    @property
    def unused(self) -> float:
        """Share of the budget that is not used."""
        return 1 - self.synops / self.budget

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as plain data."""
        found = self.search
        return {
            "budget": self.budget,
            "aim": self.aim,
            "synops": self.synops,
            "unused": self.unused,
            "met": self.met,
            "accuracy": self.accuracy,
            "widths": self.widths,
            "plan": self.plan.to_json(),
            "method": found.method if found else None,
            "evaluations": found.evaluations if found else 0,
            "interrupted": found.interrupted if found else False,
            "lre": found.lre.to_json() if found and found.lre else None,
            "search": list(found.history) if found else [],
            "fine_tune": list(self.history),
            "notes": self.notes,
            "seconds": self.seconds,
        }


def prune_to_budget(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    synops_budget: float,
    method: str = "spear",
    episodes: int | None = None,
    epochs: int = 40,
    seed: int = 0,
    settings: SearchSettings | None = None,
    measure: Measure | None = None,
    constraint: Constraint | None = None,
    progress: Progress | None = None,
) -> PrunedResult:
    """Prune a trained network and fine-tune it so that it keeps a SynOps budget on unseen data.

    Args:
        graph: a trained floating-point network.
        dataset: learns from `train`, chooses and measures by `val`; of `test` only the number of samples is used.
        synops_budget: SynOps per inference that the mean over the test split must not exceed.
        method, episodes, settings, constraint: of the search; `settings.reach` is set to what the closed loop takes down.
        epochs: of the first fine-tuning; up to four thirds more are added while the budget does not hold.
        seed: of everything random.
        measure: runs what counts on the validation split; the network itself unless given.
        progress: is told after each evaluation and epoch.

    Raises:
        BudgetError: the budget is below what the narrowest network needs.
    """
    measure = measure or (lambda network: evaluate(network, dataset.val))
    begin = time.perf_counter()
    before = measure(graph)
    aim = synops_budget * (1 - margin(before, dataset.val.y, len(dataset.test)))
    sizes = {group.name: group.channels for group in coupled_groups(graph)}
    if before.synops.total <= aim:
        whole = PruningPlan(kept={name: tuple(range(n)) for name, n in sizes.items()})
        return _result(graph, whole, sizes, synops_budget, aim, before, None, notes=["the network is within the budget as it is"])
    settings = SearchSettings(**{**asdict(settings or SearchSettings()), "confidence": 0.0, "reach": REACH})
    found = search(
        graph,
        dataset,
        synops_budget=synops_budget,
        method=method,
        episodes=episodes,
        seed=seed,
        settings=settings,
        constraint=constraint,
        progress=progress,
    )
    tuning = _Tuning(found.graph, graph, dataset, aim, measure, seed, progress)
    begun = time.perf_counter()
    tuning.run(epochs)
    seconds = {**found.seconds, "fine_tune": time.perf_counter() - begun, "prune": time.perf_counter() - begin}
    plan = PruningPlan(kept=_kept_of(graph, tuning.graph, found.plan))
    told: dict[str, Any] = {"history": tuning.history, "notes": tuning.notes, "seconds": seconds}
    return _result(tuning.graph, plan, sizes, synops_budget, aim, tuning.measured, found, **told)


def margin(evaluation: Evaluation, labels: Array, unseen: int) -> float:
    """Return how much, relatively, the mean SynOps of `unseen` samples may exceed those measured, by chance.

        margin = 2 · spread within classes / mean · sqrt(1 / measured + 1 / unseen)

    Splits have their classes in equal shares, so that differences between classes do not count.
    """
    per_sample = evaluation.synops_per_sample
    within = sum(float(np.sum((per_sample[labels == c] - per_sample[labels == c].mean()) ** 2)) for c in np.unique(labels))
    spread = np.sqrt(within / max(len(labels) - len(np.unique(labels)), 1))
    mean = max(float(per_sample.mean()), 1e-12)
    return float(min(0.5, SIGMAS * spread / mean * np.sqrt(1 / len(labels) + 1 / unseen)))


class _Tuning:
    """Fine-tuning until what counts is within the aim."""

    def __init__(
        self,
        graph: SNNGraph,
        teacher: SNNGraph,
        dataset: Dataset,
        aim: float,
        measure: Measure,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.graph, self.teacher = graph, teacher
        self.dataset, self.aim, self.measure = dataset, aim, measure
        self.seed, self.progress = seed, progress
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.measured: Evaluation

    def run(self, epochs: int) -> None:
        """Learn; while the aim is missed, lower the target by the excess, later trim, and learn on for a shorter time.

        What is measured may cost some per cent more or less than what learns: the first target allows for that.
        """
        itself = evaluate(self.graph, self.dataset.val).synops.total
        target = self.aim * (1 - SLACK) * itself / max(self.measure(self.graph).synops.total, 1e-12)
        dual = self._learn(epochs, target, 0.0, peak=1e-2)
        for turn in range(ROUNDS):
            excess = self.measured.synops.total / self.aim
            if excess <= 1:
                return
            target /= excess * (1 + SLACK)
            if turn >= ROUNDS // 2:
                self.graph = trimmed(self.graph, self.dataset, excess - 1)
            dual = self._learn(max(1, -(-epochs // 3)), target, dual, peak=3e-3)
        if self.measured.synops.total > self.aim:
            self.notes.append(
                f"the budget could not be held with its margin: {self.measured.synops.total:.0f} SynOps on validation, aimed at "
                f"{self.aim:.0f}; fine-tune longer or start from a narrower network"
            )

    def _learn(self, epochs: int, target: float, dual: float, peak: float) -> float:
        recipe = Recipe(epochs=epochs, learning_rate=peak, warm_up=0.1)
        told = self._told("fine-tune")
        budget: dict[str, Any] = {"synops_budget": target, "dual": dual}
        tuned = fit(self.graph, self.dataset, recipe, seed=self.seed, teacher=self.teacher, progress=told, **budget)
        self.graph, self.measured = tuned.graph, self.measure(tuned.graph)
        self.history += [{**row, "target": target} for row in tuned.history]
        return tuned.dual

    def _told(self, stage: str) -> Progress | None:
        tell = self.progress
        return None if tell is None else lambda facts: tell({**facts, "stage": stage})


def trimmed(graph: SNNGraph, dataset: Dataset, excess: float) -> SNNGraph:
    """Remove channels one by one, least importance per SynOp first, until at least the relative `excess` is gone.

    Batch norm is re-estimated. Where each group is down to one channel, the network is returned as it is.
    """
    from spear_deploy.interchange.norse_network import reestimate_batchnorm, to_graph, to_norse

    start = evaluate(graph, dataset.val.head(NORM_SAMPLES)).synops.total
    now = start
    while now > start * (1 - excess):
        options = []
        for group in coupled_groups(graph):
            if group.channels > 1:
                worth = importance(graph, group)
                order = np.argsort(worth, kind="stable")
                smaller = prune(graph, PruningPlan(kept={group.name: tuple(int(k) for k in order[1:])}))
                network = to_norse(smaller).eval()
                reestimate_batchnorm(network, (x for x, _ in dataset.train.head(NORM_SAMPLES).batches(64)))
                smaller = to_graph(network)
                cost = evaluate(smaller, dataset.val.head(NORM_SAMPLES)).synops.total
                options.append((worth[order[0]] / worth.sum() / max(now - cost, 1e-12), cost, smaller))
        if not options:
            return graph
        _, now, graph = min(options, key=lambda option: option[0])
    return graph


def _kept_of(graph: SNNGraph, pruned: SNNGraph, plan: PruningPlan) -> dict[str, tuple[int, ...]]:
    """Return what is left of each group, in the numbering of `graph`, which may be pruned itself."""
    first = graph.metadata.get("kept_channels", {})
    kept = {}
    for name in plan.kept:
        left = pruned.metadata["kept_channels"][name]
        number = {channel: index for index, channel in enumerate(first.get(name, range(max(left) + 1)))}
        kept[name] = tuple(number[channel] for channel in left)
    return kept


def _result(
    graph: SNNGraph,
    plan: PruningPlan,
    sizes: dict[str, int],
    budget: float,
    aim: float,
    measured: Evaluation,
    found: SearchResult | None,
    *,
    history: list[dict[str, Any]] | None = None,
    notes: list[str] | None = None,
    seconds: dict[str, float] | None = None,
) -> PrunedResult:
    return PrunedResult(
        graph=graph,
        plan=plan,
        widths={name: [sizes[name], len(channels)] for name, channels in plan.kept.items()},
        budget=budget,
        aim=aim,
        synops=measured.synops.total,
        accuracy=measured.accuracy,
        search=found,
        history=tuple(history or ()),
        notes=notes or [],
        seconds=seconds or {},
    )
