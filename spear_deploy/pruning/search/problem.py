"""What is a proposal worth? Brought into the budgets, measured, rewarded; and the best so far.

A plan is feasible where the upper bound of its SynOps after fine-tuning, its energy and latency as measured, its cores,
memory and parameters are all within their limits, and the chip holds it if that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.errors import BudgetError
from spear_deploy.network import Array
from spear_deploy.pruning import chip_costs
from spear_deploy.pruning.budgets import ACTIVE, shown, words
from spear_deploy.pruning.candidates import Ratios, Score, Scorer, Trial, Widths
from spear_deploy.pruning.search.environment import TAR
from spear_deploy.pruning.search.projection import floors, project
from spear_deploy.pruning.search.settings import SearchSettings
from spear_deploy.pruning.search.synops_estimators import LRE, Drift, fit_drift, fit_lre
from spear_deploy.training.fit import Recipe, fit
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.network.graph import SNNGraph
    from spear_deploy.pruning.search.environment import PruningEnv

LEVELS = (0.7, 1.2)
"""The plans that the estimator is fitted from lie between these multiples of the budget before fine-tuning."""
CORRECTIONS = 3
"""So many times a plan is scaled again after its measured SynOps differ from the estimate."""
AIMED = 0.5
"""A proposal is scaled to this part of the reach: most are then within it when they are measured, and need no correction."""
EXACT = 1 + 1e-9


@dataclass
class Problem:
    """One search: what is allowed, what was tried, what was best.

    Attributes:
        limits: by resource, those of activity as validation measures it.
        fit: whether the chip's own limits hold too.
        starts: proposals to begin with.
        learnt: networks that were fine-tuned in this process, by key of their measurement.
        network: the best plan's as the ladder left it; None where it did not climb.
    """

    scorer: Scorer
    limits: Mapping[str, float]
    settings: SearchSettings
    fit: bool = False
    progress: Progress | None = None
    starts: Sequence[Array] = ()
    estimator: LRE | Drift | None = None
    episodes: int = 0
    drift: float = 1.0
    best: tuple[tuple[float, ...], Score] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    learnt: dict[str, SNNGraph] = field(default_factory=dict)
    network: SNNGraph | None = None

    def __post_init__(self) -> None:
        self.reach, self.aimed = 1 + self.settings.reach, 1 + AIMED * self.settings.reach
        self.least = floors(self.scorer.channels, self.settings.floor)

    # ------------------------------------------------------------------------------------------------------- reachable

    def check_reachable(self) -> None:
        """Measure the narrowest networks; lower the floors where only that reaches the budgets.

        Raises:
            BudgetError: not even one channel in each group is within a budget; carries what that takes.
        """
        share = self.settings.floor
        while self._excess_before(self.least) > EXACT and max(self.least) > 1:
            share /= 2
            self.least = floors(self.scorer.channels, share)
        if self._excess_before(self.least) <= EXACT:
            return
        score, over = self.scorer.score(self.least), self._over_chip(self.least)
        values = self._values(score, score.synops)
        for name, limit in self.limits.items():
            value = values[name]
            if value is not None and value > limit * EXACT:
                raise BudgetError(
                    f"{words(name)} budget {shown(name, limit)} is below {shown(name, value)}, what this network costs with "
                    f"one channel left in every layer; raise the budget to at least {shown(name, value, up=True)}",
                    least=value,
                )
        chip = self.scorer.chip.profile.name if self.scorer.chip else ""
        raise BudgetError(
            f"chip '{chip}': this network does not fit with one channel left in every layer ({chip_costs.told(over)}); take a "
            "larger chip, or several"
        )

    def _excess_before(self, widths: Widths) -> float:
        score = self.scorer.score(widths)
        over = self._over_chip(widths)
        return max(chip_costs.excess(self._values(score, score.synops), self.limits), 2.0 if over else 0.0)

    # ------------------------------------------------------------------------------------------------------- estimator

    def fit_estimator(self, seed: int) -> None:
        """Fine-tune a few plans around the SynOps budget for a short time, and fit the estimator."""
        if "synops" not in self.limits or not self.settings.samples:
            return
        rng = np.random.default_rng([2, seed])
        pairs, drifts = [], []
        for i, level in enumerate(np.linspace(*LEVELS, self.settings.samples)):
            ratios = rng.uniform(self.settings.floor, 1.0, len(self.scorer.groups)).tolist()
            widths = self._near(ratios, level * self.limits["synops"])
            before = self.scorer.score(widths)
            after = self.tuned(widths, Recipe(epochs=self.settings.sample_epochs, warm_up=0.1), seed)
            pairs.append((before.by_source, after["by_source"]))
            drifts.append(before.synops / max(self.scorer.estimate(widths), 1e-12))
            self.drift = float(np.mean(drifts))
            told = {"before": before.synops, "after": sum(after["by_source"].values()), "accuracy": after["accuracy"]}
            self.tell("estimate", i + 1, self.settings.samples, **told)
        if self.settings.estimator == "lre":
            self.estimator = fit_lre([(sum(before.values()), sum(after.values())) for before, after in pairs])
        else:
            self.estimator = fit_drift(pairs, self.scorer.estimate_by_source(self.scorer.channels))

    def _near(self, ratios: Sequence[float], synops: float) -> Widths:
        """Scale ratios to the largest plan of at most so many SynOps, by estimate."""
        return project(
            ratios, self.scorer.channels, self.least, lambda widths: self.drift * self.scorer.estimate(widths) <= synops
        )

    def tuned(self, widths: Widths, recipe: Recipe, seed: int, target: float | None = None) -> dict[str, Any]:
        """Fine-tune a plan, and return accuracy, certainty and SynOps by source on validation; or remember."""
        found: dict[str, Any] = self.scorer.checkpoint.get(
            _key(widths, recipe, seed, target), lambda: self._tune(widths, recipe, seed, target)
        )
        return found

    def tuned_network(self, widths: Widths, recipe: Recipe, seed: int, target: float | None = None) -> SNNGraph:
        """Return the network that `tuned` measured; one that only a checkpoint remembers is fine-tuned again."""
        key = _key(widths, recipe, seed, target)
        if key not in self.learnt:
            self._tune(widths, recipe, seed, target)
        return self.learnt[key]

    def _tune(self, widths: Widths, recipe: Recipe, seed: int, target: float | None) -> dict[str, Any]:
        candidate, device = self.scorer.candidate(widths), self.settings.device
        found = fit(candidate, self.scorer.dataset, recipe, seed=seed, synops_budget=target, device=device)
        assert found.last is not None  # it was not interrupted
        self.scorer.evaluations += 1
        self.learnt[_key(widths, recipe, seed, target)] = found.graph
        return {"accuracy": found.last.accuracy, "certainty": found.last.certainty, "by_source": found.last.by_source}

    # --------------------------------------------------------------------------------------------------------- judging

    def environment(self) -> PruningEnv:
        """Return the environment whose plans are judged here."""
        from spear_deploy.pruning.search.environment import PruningEnv, static_features

        dense = max(self.scorer.dense.synops.total, 1e-12)
        return PruningEnv(
            static_features(self.scorer.graph, self.scorer.groups),
            self.scorer.shares(),
            lambda ratios: self.scorer.estimate(self._rounded(ratios)) / dense,
            self.judge,
            floor=self.settings.floor,
            worth=self.scorer.worth,
            affordable=lambda ratios: self._fits(self._rounded(ratios), self.drift),
            starts=self.starts,
            projects=self.settings.projects,
        )

    def judge(self, ratios: Ratios) -> Trial:
        """Bring a proposal into the budgets, measure it, and say what it is worth."""
        widths, score = self._into_budget(ratios) if self.settings.projects else self._as_proposed(ratios)
        over = self._excess(score)
        feasible = over <= EXACT
        dense = max(self.scorer.dense.synops.total / self.limits["synops"], 1.0) if "synops" in self.limits else 1.0
        worth: float = getattr(score, self.settings.objective)
        reward = worth if feasible else TAR[self.settings.tar](worth, over, 1.0, dense)
        predicted = self.predicted(score)
        self._offer((float(feasible), reward, predicted), score)
        facts = {
            "widths": list(widths),
            "accuracy": score.accuracy,
            "certainty": score.certainty,
            "synops": score.synops,
            "predicted": predicted,
            "reward": reward,
            "feasible": feasible,
        }
        self.history.append({"episode": len(self.history) + 1, "proposed": list(ratios), **facts})
        assert self.best is not None  # just offered
        best = self.best[1]
        self.tell("search", len(self.history), self.episodes, accuracy=best.accuracy, synops=self.predicted(best))
        executed = tuple(w / n for w, n in zip(widths, self.scorer.channels, strict=True))
        return Trial(executed=executed, reward=reward, facts=facts)

    def settle(self) -> None:
        """Make sure that the best plan is feasible: where none was, the best is scaled into the budget.

        Raises:
            BudgetError: that is not within the budgets either.
        """
        assert self.best is not None  # a searcher plays at least one episode
        if self.best[0][0]:
            return
        ratios = tuple(w / n for w, n in zip(self.best[1].widths, self.scorer.channels, strict=True))
        _, score = self._into_budget(ratios)
        over = self._excess(score)
        self.best = ((float(over <= EXACT), getattr(score, self.settings.objective), self.predicted(score)), score)
        if over > EXACT:
            limits = (
                ", ".join(f"{words(name)} {shown(name, limit)}" for name, limit in self.limits.items()) or "the chip's limits"
            )
            raise BudgetError(
                f"none of {len(self.history)} plans was within the budget ({limits}), the best exceeds it by {over - 1:.1%}; "
                "raise the budget or search longer",
                least=self.predicted(score),
            )

    def predicted(self, score: Score) -> float:
        """Return the expected SynOps after fine-tuning."""
        if isinstance(self.estimator, Drift):
            return self.estimator.predict(score.by_source)
        return score.synops if self.estimator is None else self.estimator.predict(score.synops)

    def upper(self, by_source: Mapping[str, float]) -> float:
        """Return the bound on the SynOps after fine-tuning that has to be within the budget."""
        total, confidence = sum(by_source.values()), self.settings.confidence
        if isinstance(self.estimator, Drift):
            return self.estimator.upper(by_source, confidence) if confidence else self.estimator.predict(by_source)
        if self.estimator is None:
            return total
        return self.estimator.upper(total, confidence) if confidence else self.estimator.predict(total)

    def tell(self, stage: str, done: int, of: int, **facts: float) -> None:
        """Tell progress."""
        if self.progress is not None:
            self.progress({"stage": stage, "done": done, "of": of, **facts})

    # ---------------------------------------------------------------------------------------------------------- inside

    def _offer(self, rank: tuple[float, ...], score: Score) -> None:
        if self.best is None or rank > self.best[0]:
            self.best = (rank, score)

    def _rounded(self, ratios: Ratios) -> Widths:
        return tuple(max(1, round(r * n)) for r, n in zip(ratios, self.scorer.channels, strict=True))

    def _as_proposed(self, ratios: Ratios) -> tuple[Widths, Score]:
        widths = tuple(max(w, low) for w, low in zip(self._rounded(ratios), self.least, strict=True))
        return widths, self.scorer.score(widths)

    def _into_budget(self, ratios: Ratios) -> tuple[Widths, Score]:
        """Scale a proposal to the largest plan whose upper bound, by estimate and drift, is within every limit."""
        drift = self.drift
        for _ in range(1 + CORRECTIONS):
            widths = project(ratios, self.scorer.channels, self.least, lambda widths: self._fits(widths, drift))  # noqa: B023
            score = self.scorer.score(widths)
            over = self._excess(score)
            if over <= EXACT or widths == self.least:
                break
            measured = score.synops / max(self.scorer.estimate(widths), 1e-12)
            drift = max(drift * over, measured) * 1.005
        return widths, score

    def _fits(self, widths: Widths, drift: float) -> bool:
        """Say whether a plan is within the limits by estimate."""
        if "synops" in self.limits:
            expected = {name: drift * value for name, value in self.scorer.estimate_by_source(widths).items()}
            if self.upper(expected) > self.limits["synops"] * self.aimed:
                return False
        sizes = {name: limit for name, limit in self.limits.items() if name not in ACTIVE}
        if sizes and chip_costs.excess(self.scorer.sizes(widths), sizes) > EXACT:
            return False
        timed = {name: limit * self.aimed / drift for name, limit in self.limits.items() if name in ("energy_j", "latency_s")}
        if timed and chip_costs.excess(self.scorer.estimated_activity(widths), timed) > 1:
            return False
        return not self._over_chip(widths)

    def _excess(self, score: Score) -> float:
        """Return the largest value, measured or bounded, relative to its limit."""
        limits = {name: limit * (self.reach if name in ACTIVE else 1.0) for name, limit in self.limits.items()}
        over = self._over_chip(score.widths)
        beyond = max((row.used / row.limit for row in over if row.used and row.limit), default=2.0 if over else 0.0)
        return max(chip_costs.excess(self._values(score, self.upper(score.by_source)), limits), beyond)

    def _values(self, score: Score, synops: float) -> dict[str, float | None]:
        return {"synops": synops, **score.activity, **self.scorer.sizes(score.widths)}

    def _over_chip(self, widths: Widths) -> tuple[Any, ...]:
        return self.scorer.chip.placed(widths)[1] if self.fit and self.scorer.chip is not None else ()


def _key(widths: Widths, recipe: Recipe, seed: int, target: float | None) -> str:
    return f"tune {' '.join(map(str, widths))} {recipe.epochs} {recipe.steps} {seed} {target}"
