"""Search of the widths of a network within its budgets.

short fine-tunes of a few plans ─► estimator ─► episodes: proposal ─► into the budget ─► measured ─► reward ─► halving
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.bits_choice import BitsChoice
from spear_deploy.pruning.budgets import TIMED
from spear_deploy.pruning.candidates import Checkpoint, Evaluator, Score
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import LeverStage
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.settings import Searcher, get_searcher
from spear_deploy.pruning.search.successive_halving import halve
from spear_deploy.pruning.search.synops_estimators import LRE, PerLayerEstimator
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.thin_weights import WeightRemoval
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best plan of a search.

    Attributes:
        method: of the search.
        plan: channels that stay.
        graph: the pruned network: batch norm re-estimated, and fine-tuned by successive halving if there were rounds.
        widths: {group: (channels before, after)}.
        score: its measurements before fine-tuning.
        predicted: its SynOps after fine-tuning, by the estimator.
        limits: by resource, as validation measures them.
        history: a row an evaluation, JSON-able.
        rounds: a row for each plan and round of successive halving.
        estimator: None where none was fitted.
        seconds: wall time, {"estimate", "search", "ladder"}; "ladder" is successive halving.
        evaluations: networks that were run, those of estimator and halving included, those of a checkpoint not.
        batches: that all plans learnt from, those of a checkpoint included.
        stages: the network after each lever; empty where channels alone were removed.
        unthinned: the network with its removed weights at their last values; None where channels alone were removed.
        removal: of weights, that fine-tuning begins with; None where none is left to do.
        hints: scores by class of the network before pruning on the training split, where the search needed them.
        layer_bits: the choice of bits by layer, where the search made one; `graph` states them.
        interrupted: whether the search was stopped early.
    """

    method: str
    plan: PruningPlan
    graph: SNNGraph
    widths: dict[str, tuple[int, int]]
    score: Score
    predicted: float
    limits: dict[str, float]
    history: tuple[dict[str, Any], ...]
    rounds: tuple[dict[str, Any], ...] = ()
    estimator: LRE | PerLayerEstimator | None = None
    seconds: dict[str, float]
    evaluations: int
    batches: int = 0
    stages: tuple[LeverStage, ...] = ()
    unthinned: SNNGraph | None = None
    removal: WeightRemoval | None = None
    hints: Array | None = None
    layer_bits: BitsChoice | None = None
    interrupted: bool = False

    @property
    def ratios(self) -> tuple[float, ...]:
        """The plan as a proposal."""
        return tuple(after / before for before, after in self.widths.values())


def search(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    *,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    evaluator: Evaluator | None = None,
    starts: Sequence[Array] = (),
    progress: Progress | None = None,
) -> SearchResult:
    """Search the widths of a network's groups within its budgets.

    Args:
        graph: a trained floating-point network.
        dataset: fine-tunes on `train`, measures on `val`, does not read `test`.
        settings: budgets, method, episodes, seed and details of the search; budgets hold after fine-tuning, as predicted.
        chip: defines cores, memory, energy and latency; needed for budgets of these.
        checkpoint: a file in which measurements are kept, so that a search that was stopped goes on.
        evaluator: of an earlier search of the same network, whose measurements are used again.
        starts: proposals to begin with.
        progress: is called after each evaluation.

    Returns:
        The best feasible plan. Ctrl-C during the episodes ends the search and keeps the best so far, unless the settings say that
        nothing is completed.

    Raises:
        BudgetError: one channel in each group already exceeds a budget; carries its use.
        DataError: data and network do not fit, or nothing can be pruned.
        FileError: the checkpoint is of another network, other data, other settings or another version.
    """
    play, clock = get_searcher(settings.chosen_method), Clock()
    with limit_threads(graph, learns=True):
        evaluator = evaluator or make_evaluator(graph, dataset, settings, chip, checkpoint)
        evaluations_before = evaluator.evaluations
        problem = _pose_problem(evaluator, settings, starts, progress)
        clock.stop("estimate")
        rounds, interrupted = _play_and_halve(play, problem, settings, clock)
        return _summarize(
            problem, settings.chosen_method, evaluations_before, rounds=tuple(rounds), seconds=clock.seconds,
            interrupted=interrupted,
        )  # fmt: skip


def _pose_problem(evaluator: Evaluator, settings: PruneSettings, starts: Sequence[Array], progress: Progress | None) -> Problem:
    """Return the problem of the search: limits that can be reached, and the estimator of SynOps, where these are limited.

    Raises:
        BudgetError: one channel in each group already exceeds a budget.
    """
    limits = settings.budgets.resolve(evaluator.dense_use())
    problem = Problem(
        evaluator, limits, settings.search_settings, seed=settings.seed, peak=settings.peak, fit=settings.budgets.fit,
        progress=progress, starts=starts, workers=settings.workers,
    )  # fmt: skip
    problem.check_reachable()
    evaluator.checkpoint.begin()
    if limits.get("synops", float("inf")) < evaluator.dense.synops.total:
        problem.fit_estimator()
    return problem


def _play_and_halve(play: Searcher, problem: Problem, settings: PruneSettings, clock: Clock) -> tuple[list[dict[str, Any]], bool]:
    """Play the episodes, then halve the best; return the rounds, and whether Ctrl-C cut them short after a first plan."""
    groups, episodes = len(problem.evaluator.groups), settings.search_settings.episodes
    try:
        play(problem.environment(), groups=groups, episodes=episodes, seed=settings.seed)
        clock.stop("search")
        problem.ensure_feasible()
        rounds = halve(problem)
        clock.stop("ladder")
        return rounds, False
    except KeyboardInterrupt:
        if problem.best is None or not settings.completes:
            raise
        problem.ensure_feasible()
        if "search" not in clock.seconds:
            clock.stop("search")
        return [], True


def _summarize(problem: Problem, method: str, evaluations_before: int, **details: Any) -> SearchResult:
    """Return the best plan; `details` are the fields that need no computation."""
    assert problem.best is not None  # a searcher plays at least one episode
    score, evaluator = problem.best[1], problem.evaluator
    names = [group.name for group in evaluator.groups]
    return SearchResult(
        method=method,
        plan=evaluator.plan(score.widths),
        graph=problem.network or evaluator.build(score.widths),
        widths=dict(zip(names, zip(evaluator.channels, score.widths, strict=True), strict=True)),
        score=score,
        predicted=problem.predict(score),
        limits=dict(problem.limits),
        history=tuple(problem.history),
        estimator=problem.estimator,
        evaluations=evaluator.evaluations - evaluations_before,
        batches=problem.batches,
        **details,
    )


class Clock:
    """Wall time of consecutive parts, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    def stop(self, part: str) -> None:
        """End a part, and begin the next one."""
        now = time.perf_counter()
        self.seconds[part], self._begin = now - self._begin, now


def make_evaluator(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
) -> Evaluator:
    """Return the evaluator of candidates for these budgets, with the measurements of the checkpoint.

    Another network, other data, another criterion or another fact of the chip make another digest of the checkpoint.
    """
    details, budgets = settings.search_settings, settings.budgets
    digest = ""
    if checkpoint is not None:
        parts = {"network": hash_network(graph), "data": hash_dataset(dataset), "criterion": details.criterion}
        digest = hash_value({**parts, "chip": hash_profile(chip.profile) if chip else None})
    return Evaluator(
        graph,
        dataset,
        criterion=details.criterion,
        chip=chip,
        timed=any(name in budgets.amounts for name in TIMED),
        checkpoint=Checkpoint(checkpoint, digest),
        device=details.device,
    )


def search_front(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    synops: Sequence[str | float],
    *,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> list[SearchResult]:
    """Search plans for several SynOps budgets at once: a Pareto front.

    All share the measurements. The first budget gets all episodes, the others half as many, which begin with the plans of the
    budgets before: channels that are important at one budget mostly are at the next.

    Args:
        graph, dataset, chip, checkpoint, progress: as in `search`.
        settings: of all searches; its other limits hold for each of them.
        synops: the budgets, as `PruneSettings.synops`.
    """
    graph = graph.with_full_weights()
    evaluator = make_evaluator(graph, dataset, replace(settings, synops=synops[0]), chip, checkpoint)
    episodes = settings.search_settings.episodes
    results: list[SearchResult] = []
    for budget in synops:
        result = search(
            graph,
            dataset,
            replace(settings, synops=budget, episodes=max(1, episodes // 2) if results else episodes),
            chip=chip,
            evaluator=evaluator,
            starts=[np.array(earlier.ratios) / max(earlier.ratios) for earlier in results[::-1]],
            progress=progress,
        )
        results.append(result)
        if result.interrupted:
            break
    return results
