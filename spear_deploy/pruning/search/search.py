"""Which plan is best within the budgets? Sample, estimate, search, climb, keep the best.

short fine-tunes of a few plans ─► estimator ─► episodes: proposal ─► into the budget ─► measured ─► reward ─► ladder
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import Amount, Budgets, amount
from spear_deploy.pruning.candidates import Checkpoint, Score, Scorer
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.settings import DEFAULT_METHOD, SearchSettings, known_method, searcher, settings_for
from spear_deploy.pruning.search.successive_halving import climb
from spear_deploy.pruning.search.synops_estimators import LRE, Drift
from spear_deploy.training.fit import threads_for
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best plan that was found.

    Attributes:
        plan: channels that stay.
        graph: the pruned network: batch norm re-estimated, and what it learnt on the ladder if it climbed one.
        widths: {group: (channels before, after)}.
        score: what was measured of it before fine-tuning.
        predicted: its SynOps after fine-tuning, by the estimator.
        limits: by resource, as validation measures them.
        history: a row an evaluation, JSON-able.
        rungs: a row for each plan and rung of the ladder.
        estimator: None where none was fitted.
        seconds: wall time, {"estimate", "search", "ladder"}.
        evaluations: networks that were run, those of estimator and ladder included, those of a checkpoint not.
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
    rungs: tuple[dict[str, Any], ...]
    estimator: LRE | Drift | None
    seconds: dict[str, float]
    evaluations: int
    interrupted: bool = False

    @property
    def ratios(self) -> tuple[float, ...]:
        """The plan as a proposal."""
        return tuple(after / before for before, after in self.widths.values())


def search(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    synops_budget: str | float | None = None,
    budgets: Budgets | None = None,
    method: str = DEFAULT_METHOD,
    episodes: int | None = None,
    seed: int = 0,
    settings: SearchSettings | None = None,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    scorer: Scorer | None = None,
    starts: Sequence[Array] = (),
    progress: Progress | None = None,
) -> SearchResult:
    """Search the widths of a network's groups under budgets.

    Args:
        graph: a trained floating-point network.
        dataset: fine-tunes on `train`, measures on `val`, does not look at `test`.
        synops_budget: SynOps per inference after fine-tuning, or a share such as "50%"; short for `budgets`.
        budgets: several limits at once.
        method: one of `METHODS`.
        episodes: overrides that of `settings`.
        seed: of everything random; the same seed gives the same plan.
        settings: those of the method unless given.
        chip: what gives cores, memory, energy and latency a meaning.
        checkpoint: a file in which measurements are kept, so that a search that was stopped goes on.
        scorer: of an earlier search of the same network, whose measurements are used again.
        starts: proposals to begin with.
        progress: is told after each evaluation.

    Returns:
        The best feasible plan. Ctrl-C during the episodes ends the search and keeps the best so far.

    Raises:
        BudgetError: not even one channel in each group costs less; carries what that needs.
        DataError: data and network do not fit, or nothing can be pruned.
        FileError: the checkpoint is of another network.
    """
    run = searcher(known_method(method))
    settings = settings or settings_for(method)
    budgets = budgets or Budgets(synops=_synops(synops_budget))
    begin = time.perf_counter()
    with threads_for(graph):
        scorer = scorer or scorer_for(graph, dataset, settings, budgets, chip, checkpoint)
        known = scorer.evaluations
        limits = budgets.limits(scorer.dense_values())
        problem = Problem(scorer, limits, settings, fit=budgets.fit, progress=progress, starts=starts)
        problem.check_reachable()
        scorer.checkpoint.begin()
        if limits.get("synops", float("inf")) < scorer.dense.synops.total:
            problem.fit_estimator(seed)
        seconds = {"estimate": time.perf_counter() - begin}
        rungs: list[dict[str, Any]] = []
        problem.episodes = episodes or settings.episodes
        interrupted = True
        try:
            run(problem.environment(), groups=len(scorer.groups), episodes=problem.episodes, seed=seed)
            seconds["search"] = time.perf_counter() - begin - seconds["estimate"]
            problem.settle()
            rungs = climb(problem, seed)
            seconds["ladder"] = time.perf_counter() - begin - sum(seconds.values())
            interrupted = False
        except KeyboardInterrupt:
            if problem.best is None:
                raise
            problem.settle()
            seconds.setdefault("search", time.perf_counter() - begin - seconds["estimate"])
        return _result(problem, method, rungs, seconds, scorer.evaluations - known, interrupted)


def scorer_for(
    graph: SNNGraph,
    dataset: Dataset,
    settings: SearchSettings,
    budgets: Budgets,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
) -> Scorer:
    """Return what measures candidates for these budgets, reading what a checkpoint holds."""
    timed = budgets.energy_j is not None or budgets.latency_s is not None
    kept = Checkpoint(checkpoint, "" if checkpoint is None else _digest(graph, dataset, settings, chip))
    return Scorer(
        graph, dataset, criterion=settings.criterion, chip=chip, timed=timed, checkpoint=kept, device=settings.device
    )  # fmt: skip


def _digest(graph: SNNGraph, dataset: Dataset, settings: SearchSettings, chip: ChipCosts | None) -> str:
    """Return the digest of all that a measurement depends on: another fact of the chip is another chip."""
    given = {"network": hash_network(graph), "data": hash_dataset(dataset), "criterion": settings.criterion}
    return hash_value({**given, "chip": hash_profile(chip.profile) if chip else None})


def search_front(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    budgets: Sequence[Budgets],
    method: str = DEFAULT_METHOD,
    episodes: int | None = None,
    seed: int = 0,
    settings: SearchSettings | None = None,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> list[SearchResult]:
    """Serve several budgets with one search: a Pareto front.

    All share the measurements. The first budget gets all episodes, each further one half as many, which begin with the
    plans found so far: what is important at one budget mostly is at the next.
    """
    settings = settings or settings_for(method)
    timed = next((b for b in budgets if b.energy_j or b.latency_s), budgets[0])
    scorer = scorer_for(graph, dataset, settings, timed, chip, checkpoint)
    found: list[SearchResult] = []
    for each in budgets:
        count = episodes or settings.episodes
        found.append(
            search(
                graph, dataset, budgets=each, method=method, episodes=count if not found else max(1, count // 2), seed=seed,
                settings=replace(settings, episodes=count), scorer=scorer, progress=progress,
                starts=[_array(one.ratios) for one in found[::-1]],
            )
        )  # fmt: skip
        if found[-1].interrupted:
            break
    return found


def _array(ratios: tuple[float, ...]) -> Array:
    import numpy as np

    return np.array(ratios) / max(ratios)


def _synops(wanted: str | float | None) -> Amount | None:
    return None if wanted is None else amount(wanted, "synops")


def _result(
    problem: Problem,
    method: str,
    rungs: list[dict[str, Any]],
    seconds: dict[str, float],
    evaluations: int,
    interrupted: bool,
) -> SearchResult:
    assert problem.best is not None  # a searcher plays at least one episode
    score, scorer = problem.best[1], problem.scorer
    pairs = zip(scorer.channels, score.widths, strict=True)
    return SearchResult(
        method=method,
        plan=scorer.plan(score.widths),
        graph=problem.network or scorer.candidate(score.widths),
        widths=dict(zip([group.name for group in scorer.groups], pairs, strict=True)),
        score=score,
        predicted=problem.predicted(score),
        limits=dict(problem.limits),
        history=tuple(problem.history),
        rungs=tuple(rungs),
        estimator=problem.estimator,
        seconds=seconds,
        evaluations=evaluations,
        interrupted=interrupted,
    )
