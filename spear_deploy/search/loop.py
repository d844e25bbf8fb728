"""Which plan is best within the budget? Sample, estimate, search, keep the best.

    short fine-tunes of a few plans ─► LRE ─► episodes: proposal ─► projected into the budget ─► measured ─► reward

A plan is feasible where the upper bound of its SynOps after fine-tuning, by LRE, is within the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import BudgetError, did_you_mean
from spear_deploy.graph import SNNGraph
from spear_deploy.pruning import Criterion, PruningPlan
from spear_deploy.search.estimator import LRE, fit_lre
from spear_deploy.search.projection import floors, project
from spear_deploy.search.reward import DEFAULT_TAR, TAR
from spear_deploy.search.score import Ratios, Score, Scorer, Trial, Widths
from spear_deploy.training import Progress, Recipe, fit, threads_for

if TYPE_CHECKING:
    from spear_deploy.search.environment import PruningEnv

Constraint = Callable[[SNNGraph], float]
"""By how much, relatively, a candidate exceeds other limits of the chip; 0 where it fits."""
Searcher = Callable[..., None]
"""(env, groups=, episodes=, seed=): plays episodes of the environment."""

METHODS = ("spear", "td3", "sac", "random", "uniform")
LEVELS = (0.7, 1.2)
"""The plans that the estimator is fitted from lie between these multiples of the budget before fine-tuning."""
CORRECTIONS = 3
"""So many times a plan is scaled again after its measured SynOps differ from the estimate."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search.

    Attributes:
        episodes: proposals.
        floor: least ratio of a group; without one, budgets make bottlenecks that no fine-tuning widens.
        criterion: which channels of a group go first.
        tar: form of the reward, one of `reward.TAR`.
        lre_samples: plans that are fine-tuned to fit the estimator.
        lre_epochs: epochs of each of these fine-tunes.
        confidence: of the upper bound that has to be within the budget; 0 takes the prediction itself.
        reach: relative excess over the budget that a plan may be predicted to have, since what follows will take it down.
    """

    episodes: int = 60
    floor: float = 0.2
    criterion: Criterion = "l1"
    tar: str = DEFAULT_TAR
    lre_samples: int = 6
    lre_epochs: int = 3
    confidence: float = 0.8
    reach: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best plan that was found.

    Attributes:
        plan: channels that stay.
        graph: the pruned network, batch norm re-estimated, not fine-tuned.
        widths: {group: (channels before, after)}.
        score: what was measured of it before fine-tuning.
        predicted: its SynOps after fine-tuning, by LRE.
        history: a row an evaluation, JSON-able.
        lre: the estimator, None where the budget holds without pruning.
        seconds: wall time, {"estimate", "search"}.
        evaluations: networks that were measured, those of the estimator included.
        interrupted: whether the search was stopped early.
    """

    method: str
    plan: PruningPlan
    graph: SNNGraph
    widths: dict[str, tuple[int, int]]
    score: Score
    predicted: float
    history: tuple[dict[str, Any], ...]
    lre: LRE | None
    seconds: dict[str, float]
    evaluations: int
    interrupted: bool = False


def search(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    synops_budget: float,
    method: str = "spear",
    episodes: int | None = None,
    seed: int = 0,
    settings: SearchSettings | None = None,
    constraint: Constraint | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search the widths of a network's groups under a SynOps budget.

    Args:
        graph: a trained floating-point network.
        dataset: fine-tunes on `train`, measures on `val`, does not look at `test`.
        synops_budget: SynOps per inference after fine-tuning.
        method: "spear" (DDPG), "td3", "sac", "random" or "uniform".
        episodes: overrides that of `settings`.
        seed: of everything random; the same seed gives the same plan.
        settings: see `SearchSettings`.
        constraint: further limits, seen by the reward; a plan that exceeds them is not feasible.
        progress: is told after each evaluation.

    Returns:
        The best feasible plan. Ctrl-C during the episodes ends the search and keeps the best so far.

    Raises:
        BudgetError: not even one channel in each group costs less; carries what that needs.
        DataError: data and network do not fit, or nothing can be pruned.
    """
    settings = settings or SearchSettings()
    run = _searcher(method)
    if not (np.isfinite(synops_budget) and synops_budget > 0):
        raise BudgetError(f"synops budget {synops_budget}: expected a number above 0")
    begin = time.perf_counter()
    with threads_for(graph):
        scorer = Scorer(graph, dataset, criterion=settings.criterion)
        problem = _Problem(scorer, synops_budget, settings, constraint, progress)
        problem.check_reachable()
        if scorer.dense.synops.total > synops_budget:
            problem.fit_estimator(seed)
        begun = time.perf_counter()
        interrupted = problem.play(run, episodes or settings.episodes, seed)
    seconds = {"estimate": begun - begin, "search": time.perf_counter() - begun}
    return problem.result(method, seconds, interrupted)


def _searcher(method: str) -> Searcher:
    """Return the function that plays the episodes."""
    if method not in METHODS:
        raise BudgetError(f"method '{method}': expected one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    from spear_deploy.search import baselines

    if method in ("uniform", "random"):
        return baselines.uniform if method == "uniform" else baselines.at_random

    def run(env: PruningEnv, **how: int) -> None:
        from spear_deploy.search.agents import learn

        learn(env, agent="ddpg" if method == "spear" else method, **how)  # type: ignore[arg-type]

    return run


@dataclass
class _Problem:
    """One search: what is allowed, what was tried, what was best."""

    scorer: Scorer
    budget: float
    settings: SearchSettings
    constraint: Constraint | None
    progress: Progress | None
    lre: LRE | None = None
    episodes: int = 0
    drift: float = 1.0
    best: tuple[tuple[float, ...], Score] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    _penalties: dict[Widths, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.least: Widths = floors(self.scorer.channels, self.settings.floor)
        self.limit = self.budget * (1 + self.settings.reach)

    def check_reachable(self) -> None:
        """Measure the narrowest networks; give up the floors where only that reaches the budget."""
        if self.scorer.score(self.least).synops <= self.budget:
            return
        self.least = (1,) * len(self.scorer.groups)
        synops = self.scorer.score(self.least).synops
        if synops > self.budget:
            raise BudgetError(
                f"synops budget {self.budget:.0f} is below {synops:.0f}, what this network costs with one channel left in every "
                f"layer; raise the budget to at least {np.ceil(synops):.0f}",
                least=synops,
            )

    def fit_estimator(self, seed: int) -> None:
        """Fine-tune a few plans around the budget for a short time, and fit the line."""
        rng = np.random.default_rng([2, seed])
        recipe = Recipe(epochs=self.settings.lre_epochs, warm_up=0.1)
        count = self.settings.lre_samples
        pairs, drifts = [], []
        for i, level in enumerate(np.linspace(*LEVELS, count)):
            ratios = rng.uniform(self.settings.floor, 1.0, len(self.scorer.groups))
            widths = self._projected(ratios, self.budget * level)
            before = self.scorer.score(widths).synops
            after = fit(self.scorer.candidate(widths), self.scorer.dataset, recipe, seed=seed).history[-1]
            pairs.append((before, after["synops"]))
            drifts.append(before / max(self.scorer.estimate(widths), 1e-12))
            self.drift = float(np.mean(drifts))
            self._tell("estimate", i + 1, count, before=before, after=after["synops"], accuracy=after["accuracy"])
        self.lre = fit_lre(pairs)

    def environment(self) -> PruningEnv:
        """Return the environment whose plans are judged here."""
        from spear_deploy.search.environment import PruningEnv, static_features

        dense, channels = self.scorer.dense.synops.total, self.scorer.channels

        def cost(ratios: Ratios) -> float:
            widths = tuple(max(1, round(r * n)) for r, n in zip(ratios, channels, strict=True))
            return self.scorer.estimate(widths) / dense

        features = static_features(self.scorer.graph, self.scorer.groups)
        return PruningEnv(features, self.scorer.shares(), cost, self.judge, floor=self.settings.floor)

    def play(self, run: Searcher, episodes: int, seed: int) -> bool:
        """Let a searcher play; say whether it was interrupted, with at least one plan found."""
        self.episodes = episodes
        try:
            run(self.environment(), groups=len(self.scorer.groups), episodes=episodes, seed=seed)
        except KeyboardInterrupt:
            if self.best is None:
                raise
            return True
        return False

    def judge(self, ratios: Ratios) -> Trial:
        """Project a proposal into the budget, measure it, and say what it is worth."""
        drift = self.drift
        for _ in range(1 + CORRECTIONS):
            widths = self._projected(ratios, self.limit, drift)
            score = self.scorer.score(widths)
            if self._upper(score.synops) <= self.limit or widths == self.least:
                break
            drift = max(drift, score.synops / max(self.scorer.estimate(widths), 1e-12)) * 1.005
        predicted = self._predicted(score.synops)
        penalty = self._penalty(widths)
        dense = self.scorer.dense.synops.total
        reward = TAR[self.settings.tar](score.accuracy, self._upper(score.synops), self.limit, dense) - penalty
        feasible = self._upper(score.synops) <= self.limit and penalty == 0
        rank = (float(feasible), reward, predicted)
        if self.best is None or rank > self.best[0]:
            self.best = (rank, score)
        facts = {
            "widths": list(widths),
            "accuracy": score.accuracy,
            "synops": score.synops,
            "predicted": predicted,
            "reward": reward,
            "feasible": feasible,
        }
        self.history.append({"episode": len(self.history) + 1, "proposed": list(ratios), **facts})
        best = self.best[1]
        self._tell("search", len(self.history), self.episodes, accuracy=best.accuracy, synops=self._predicted(best.synops))
        executed = tuple(w / n for w, n in zip(widths, self.scorer.channels, strict=True))
        return Trial(executed=executed, reward=reward, facts=facts)

    def _projected(self, ratios: Any, limit: float, drift: float | None = None) -> Widths:
        """Scale a proposal to the largest plan whose upper bound, by estimate and drift, is within `limit`."""
        factor = self.drift if drift is None else drift
        return project(
            ratios, self.scorer.channels, self.least, lambda widths: self._upper(factor * self.scorer.estimate(widths)) <= limit
        )

    def _predicted(self, before: float) -> float:
        return before if self.lre is None else self.lre.predict(before)

    def _upper(self, before: float) -> float:
        if self.lre is None or not self.settings.confidence:
            return self._predicted(before)
        return self.lre.upper(before, self.settings.confidence)

    def _penalty(self, widths: Widths) -> float:
        if self.constraint is None:
            return 0.0
        if widths not in self._penalties:
            self._penalties[widths] = max(0.0, float(self.constraint(self.scorer.candidate(widths))))
        return self._penalties[widths]

    def _tell(self, stage: str, done: int, of: int, **facts: float) -> None:
        if self.progress is not None:
            self.progress({"stage": stage, "done": done, "of": of, **facts})

    def result(self, method: str, seconds: Mapping[str, float], interrupted: bool) -> SearchResult:
        """Return the best."""
        assert self.best is not None  # a searcher plays at least one episode
        rank, score = self.best
        if not rank[0]:
            raise BudgetError(
                f"synops budget {self.budget:.0f}: none of {len(self.history)} plans was within it and the chip's limits, "
                f"the best is predicted at {self._predicted(score.synops):.0f}; raise the budget or search longer",
                least=self._predicted(score.synops),
            )
        names = [group.name for group in self.scorer.groups]
        pairs = zip(self.scorer.channels, score.widths, strict=True)
        return SearchResult(
            method=method,
            plan=self.scorer.plan(score.widths),
            graph=self.scorer.candidate(score.widths),
            widths=dict(zip(names, pairs, strict=True)),
            score=score,
            predicted=self._predicted(score.synops),
            history=tuple(self.history),
            lre=self.lre,
            seconds=dict(seconds),
            evaluations=self.scorer.evaluations,
            interrupted=interrupted,
        )
