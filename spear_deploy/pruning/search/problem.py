"""Evaluation of proposals within the budgets, and the best plan.

A plan is feasible where the upper bound of its SynOps after fine-tuning, its energy and latency as measured, its cores,
memory and parameters are all within their limits, and, with `fit`, the chip holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.errors import BudgetError
from spear_deploy.network import Array
from spear_deploy.pruning import chip_costs
from spear_deploy.pruning.budgets import ACTIVE, TIMED, format_amount, refuse_budget, resource_name
from spear_deploy.pruning.candidates import Evaluator, ProposalResult, Ratios, Score, Widths
from spear_deploy.pruning.search.projection import compute_min_widths, fill_ratios, project_ratios
from spear_deploy.pruning.search.rewards import TAR
from spear_deploy.pruning.search.settings import SearchSettings
from spear_deploy.pruning.search.synops_estimators import LRE, PerLayerEstimator, fit_lre, fit_per_layer
from spear_deploy.pruning.short_learning import PEAK
from spear_deploy.pruning.tune.fit_weights import can_remove
from spear_deploy.pruning.tune.thin_weights import thin_most
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Fit, Recipe
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.number_format import number
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import Workers, map_jobs

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.network.graph import SNNGraph
    from spear_deploy.pruning.search.environment import PruningEnv

LEVELS = (0.7, 1.2)
"""The plans that the estimator is fitted from lie between these multiples of the budget before fine-tuning."""
CORRECTIONS = 3
"""Maximum of times that a plan is scaled again after its measured SynOps differ from the estimate."""
TARGET_SHARE = 0.5
"""Share of the overshoot that a proposal is scaled to: most are then within it when they are measured, without correction."""
EXACT = 1 + 1e-9
"""Use of a limit up to which it holds, rounding included."""


@dataclass
class Problem:
    """One search: its limits, the evaluated proposals and the best plan.

    Attributes:
        evaluator: measures candidates.
        limits: by resource, in its unit; those of activity as validation measures it.
        settings: of the search.
        seed: of the plans of the estimator, and of every fine-tune.
        peak: of the learning rate of every fine-tune.
        fit: whether the chip's own limits hold too.
        progress: is called after each evaluation.
        starts: proposals to begin with.
        workers: where plans are measured and learn at the same time; None: in this process.
        estimator: of the SynOps after fine-tuning; None where none was fitted.
        rate_drift: measured SynOps relative to the estimate at the rates of the unpruned network, mean of the estimator's plans.
        best: (rank, score) of the best plan so far.
        history: a row an evaluation.
        tuned_networks: networks that were fine-tuned in this process, by key of their measurement.
        network: the best plan's after successive halving; None without.
        batches: that were learnt from, those whose measurements a checkpoint holds included.
        min_widths: fewest channels of each group.
        scaled_target: use of a limit of activity that proposals are scaled to.
    """

    evaluator: Evaluator
    limits: Mapping[str, float]
    settings: SearchSettings
    seed: int = 0
    peak: float = PEAK
    fit: bool = False
    progress: Progress | None = None
    starts: Sequence[Array] = ()
    workers: Workers | None = None
    estimator: LRE | PerLayerEstimator | None = None
    rate_drift: float = 1.0
    best: tuple[tuple[float, ...], Score] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    tuned_networks: dict[str, SNNGraph] = field(default_factory=dict)
    network: SNNGraph | None = None
    batches: int = 0

    def __post_init__(self) -> None:
        self.min_widths = compute_min_widths(self.evaluator.channels, self.settings.floor)
        self.scaled_target = 1 + TARGET_SHARE * self.settings.overshoot

    def check_reachable(self) -> None:
        """Measure the narrowest networks, and lower the floors where only that reaches the budgets.

        Raises:
            BudgetError: one channel in each group already exceeds a budget; carries its use.
        """
        share = self.settings.floor
        while self._measure_use(self.min_widths) > EXACT and max(self.min_widths) > 1:
            share /= 2
            self.min_widths = compute_min_widths(self.evaluator.channels, share)
        if self._measure_use(self.min_widths) <= EXACT:
            return
        score, over = self.evaluator.score(self.min_widths), self._rows_over(self.min_widths)
        values = self._values(score, score.synops)
        for name, limit in self.limits.items():
            value = values[name]
            if value is not None and value > limit * EXACT:
                what = f"this network costs with one channel left in every layer{self._describe_narrow()}"
                raise refuse_budget(name, limit, value, what, self._describe_other_levers() if name == "synops" else "")
        chip = self.evaluator.chip.profile.name if self.evaluator.chip else ""
        raise BudgetError(
            f"chip '{chip}': this network does not fit with one channel left in every layer ({chip_costs.describe_rows(over)}); "
            f"{self._advise_weights(over)}take a larger chip, or several"
        )

    def _advise_weights(self, over: Sequence[BudgetRow]) -> str:
        """Return the advice to remove weights too, where the chip counts no zeros in what the narrowest network exceeds."""
        chip = self.evaluator.chip
        helps = chip is not None and all(can_remove(row, chip.profile) for row in over)
        return "remove weights too (`--levers channels,weights`), or " if helps else ""

    def _describe_narrow(self) -> str:
        """Return which layers have one channel before pruning, in words."""
        names = [f"'{group.name}'" for group in self.evaluator.groups if group.channels == 1]
        return f" ({', '.join(names)} cannot go narrower)" if names else ""

    def _describe_other_levers(self) -> str:
        """Return the SynOps that weights would leave too, as the end of a sentence."""
        narrow = self.evaluator.build(self.min_widths)
        least = thin_most(narrow, evaluate(narrow, self.evaluator.split))
        fewer = ", and fewer time steps less (`--steps auto` of prune and deploy)" if self.evaluator.dataset.steps > 1 else ""
        return f"; removing weights too would leave {number(np.ceil(least))} (`--levers channels,weights`){fewer}"

    def fit_estimator(self) -> None:
        """Fine-tune a few plans around the SynOps budget for a short time, and fit the estimator."""
        if "synops" not in self.limits or not self.settings.samples:
            return
        rng = np.random.default_rng([2, self.seed])
        recipe = self.make_recipe(epochs=self.settings.sample_epochs)
        samples, drifts, plans = [], [], []
        for level in np.linspace(*LEVELS, self.settings.samples):
            ratios = rng.uniform(self.settings.floor, 1.0, len(self.evaluator.groups)).tolist()
            widths = self._scale_to_synops(ratios, level * self.limits["synops"])
            drifts.append(self.evaluator.score(widths).synops / max(self.evaluator.estimate(widths), 1e-12))
            self.rate_drift = float(np.mean(drifts))
            plans.append(widths)
        self.tune_ahead(plans, recipe, "estimate")
        for i, widths in enumerate(plans):
            before, after = self.evaluator.score(widths), self.tune(widths, recipe)
            samples.append((before.by_source, after["by_source"]))
            values = {"before": before.synops, "after": sum(after["by_source"].values()), "accuracy": after["accuracy"]}
            self.report_progress("estimate", i + 1, self.settings.samples, **values)
        if self.settings.estimator == "lre":
            self.estimator = fit_lre([(sum(before.values()), sum(after.values())) for before, after in samples])
        else:
            self.estimator = fit_per_layer(samples, self.evaluator.estimate_by_source(self.evaluator.channels))

    def _scale_to_synops(self, ratios: Sequence[float], synops: float) -> Widths:
        """Scale ratios to the largest plan of at most so many SynOps, by estimate."""

        def fits(widths: Widths) -> bool:
            return self.rate_drift * self.evaluator.estimate(widths) <= synops

        return project_ratios(ratios, self.evaluator.channels, self.min_widths, fits)

    def make_recipe(self, *, epochs: int, steps: int | None = None, synops_budget: float | None = None) -> Recipe:
        """Return the recipe of a short fine-tune, in which weights of zero stay zero, as in `tune.fine_tuning`."""
        return Recipe(
            epochs=epochs, steps=steps, learning_rate=self.peak, warm_up=0.1, seed=self.seed, synops_budget=synops_budget,
            keeps_zeros=True, device=self.settings.device,
        )  # fmt: skip

    def tune(self, widths: Widths, recipe: Recipe) -> dict[str, Any]:
        """Fine-tune a plan, once, and return accuracy, certainty and SynOps by source on validation."""
        self.batches += recipe.count_batches(len(self.evaluator.dataset.train))
        measured: dict[str, Any] = self.evaluator.checkpoint.get(_key(widths, recipe), lambda: self._tune(widths, recipe))
        return measured

    def tuned_network(self, widths: Widths, recipe: Recipe) -> SNNGraph:
        """Return the network that `tune` measured; if only a checkpoint holds its measurements, it is fine-tuned again."""
        key = _key(widths, recipe)
        if key not in self.tuned_networks:
            self._tune(widths, recipe)
        return self.tuned_networks[key]

    def tune_ahead(self, plans: Sequence[Widths], recipe: Recipe, stage: str) -> None:
        """Fine-tune, on the workers, the plans that `tune` will ask for; each is kept when it is done."""
        missing = [widths for widths in dict.fromkeys(plans) if _key(widths, recipe) not in self.evaluator.checkpoint]
        if self.workers is None or not missing:
            return

        def keep(index: int, tuned: Fit) -> None:
            widths = missing[index]
            self.evaluator.checkpoint.get(_key(widths, recipe), lambda: self._keep(widths, recipe, tuned))

        jobs = [(self.evaluator.build(widths), recipe) for widths in missing]
        names = [f"{stage}: fine-tune {' '.join(map(str, widths))}" for widths in missing]
        map_jobs(
            _fit_plan, jobs, shared=self.evaluator.dataset, workers=self.workers, names=names, stage=stage, keep=keep,
            progress=self.progress,
        )  # fmt: skip

    def measure_ahead(self, proposals: Sequence[Ratios]) -> None:
        """Measure, on the workers, the plans that `evaluate` will ask for; they depend on the proposals alone."""
        if self.workers is None or not self.settings.projects or len(proposals) < 2:
            return
        alone = replace(self, progress=None, workers=None, history=[], tuned_networks={}, network=None)
        measured = map_jobs(
            _measure_proposal, list(proposals), shared=alone, workers=self.workers, stage="search", progress=self.progress,
            names=[f"proposal {i + 1}" for i in range(len(proposals))],
        )  # fmt: skip
        for rows in measured:
            for key, row in rows.items():
                if key not in self.evaluator.checkpoint:
                    self.evaluator.evaluations += 1
                    self.evaluator.checkpoint.get(key, lambda row=row: row)  # type: ignore[misc]

    def _tune(self, widths: Widths, recipe: Recipe) -> dict[str, Any]:
        return self._keep(widths, recipe, fit(self.evaluator.build(widths), self.evaluator.dataset, recipe))

    def _keep(self, widths: Widths, recipe: Recipe, tuned: Fit) -> dict[str, Any]:
        assert tuned.last is not None  # it was not interrupted
        self.evaluator.evaluations += 1
        self.tuned_networks[_key(widths, recipe)] = tuned.graph
        return {"accuracy": tuned.last.accuracy, "certainty": tuned.last.certainty, "by_source": tuned.last.by_source}

    def environment(self) -> PruningEnv:
        """Return the environment whose proposals are evaluated here."""
        from spear_deploy.pruning.search.environment import PruningEnv, SearchHints, compute_static_features

        dense = max(self.evaluator.dense.synops.total, 1e-12)
        hints = SearchHints(
            channel_scores=self.evaluator.channel_scores,
            affordable=lambda ratios: self._fits(self._round_ratios(ratios), self.rate_drift),
            starts=tuple(self.starts),
            projects=self.settings.projects,
            measure_ahead=self.measure_ahead,
        )
        return PruningEnv(
            compute_static_features(self.evaluator.graph, self.evaluator.groups),
            self.evaluator.synops_shares(),
            lambda ratios: self.evaluator.estimate(self._round_ratios(ratios)) / dense,
            self.evaluate,
            floor=self.settings.floor,
            hints=hints,
        )

    def evaluate(self, ratios: Ratios) -> ProposalResult:
        """Bring a proposal into the budgets, measure it, and return its reward."""
        if self.settings.projects:
            widths, score = self.scale_into_budget(ratios)
        else:
            widths = tuple(max(w, low) for w, low in zip(self._round_ratios(ratios), self.min_widths, strict=True))
            score = self.evaluator.score(widths)
        use = self._bound_use(score)
        feasible = use <= EXACT
        dense = max(self.evaluator.dense.synops.total / self.limits["synops"], 1.0) if "synops" in self.limits else 1.0
        value: float = getattr(score, self.settings.objective)
        reward = value if feasible else TAR[self.settings.tar](value, use, 1.0, dense)
        predicted = self.predict(score)
        rank = (float(feasible), reward, predicted)
        if self.best is None or rank > self.best[0]:
            self.best = (rank, score)
        row = {
            "episode": len(self.history) + 1,
            "proposed": list(ratios),
            "widths": list(widths),
            "accuracy": score.accuracy,
            "certainty": score.certainty,
            "synops": score.synops,
            "predicted": predicted,
            "reward": reward,
            "feasible": feasible,
        }
        self.history.append(row)
        best = self.best[1]
        self.report_progress(
            "search", len(self.history), self.settings.episodes, accuracy=best.accuracy, synops=self.predict(best)
        )
        return ProposalResult(executed=self._to_ratios(widths), reward=reward)

    def ensure_feasible(self) -> None:
        """Scale the best plan into the budget, if no plan was feasible.

        Raises:
            BudgetError: the scaled plan is not within the budgets either.
        """
        assert self.best is not None  # a searcher plays at least one episode
        if self.best[0][0]:
            return
        _, score = self.scale_into_budget(self._to_ratios(self.best[1].widths))
        use = self._bound_use(score)
        self.best = ((float(use <= EXACT), getattr(score, self.settings.objective), self.predict(score)), score)
        if use > EXACT:
            texts = [f"{resource_name(name)} {format_amount(name, limit)}" for name, limit in self.limits.items()]
            limits = ", ".join(texts) or "the chip's limits"
            count = len(self.history)
            tried = "the only plan was not" if count == 1 else f"none of {count} plans was"
            more = " or evaluate more plans (`spear-deploy prune --episodes`)" if count > 1 else ""  # uniform widths have one
            raise BudgetError(
                f"{tried} within the budget ({limits}), the best exceeds it by {use - 1:.1%}; raise the budget{more}",
                min_value=self.predict(score),
            )

    def predict(self, score: Score) -> float:
        """Return the expected SynOps after fine-tuning."""
        if isinstance(self.estimator, PerLayerEstimator):
            return self.estimator.predict(score.by_source)
        return score.synops if self.estimator is None else self.estimator.predict(score.synops)

    def predict_upper(self, by_source: Mapping[str, float]) -> float:
        """Return the upper bound of the SynOps after fine-tuning; it has to be within the budget."""
        total, confidence = sum(by_source.values()), self.settings.confidence
        if isinstance(self.estimator, PerLayerEstimator):
            return self.estimator.upper(by_source, confidence) if confidence else self.estimator.predict(by_source)
        if self.estimator is None:
            return total
        return self.estimator.upper(total, confidence) if confidence else self.estimator.predict(total)

    def report_progress(self, stage: str, done: int, of: int, **values: float) -> None:
        """Call `progress` with plain facts."""
        if self.progress is not None:
            self.progress({"stage": stage, "done": done, "of": of, **values})

    @property
    def _fills(self) -> bool:
        """Whether groups grow on after the first one is at a limit: only limits of size concern single groups."""
        return self.settings.fills and (self.fit or any(name not in ACTIVE for name in self.limits))

    def scale_into_budget(self, ratios: Ratios) -> tuple[Widths, Score]:
        """Scale a proposal to the largest plan whose upper bound, by estimate and drift, is within every limit; measure it."""
        drift = self.rate_drift
        for _ in range(1 + CORRECTIONS):
            widths = self.scale_to_limits(ratios, drift)
            score = self.evaluator.score(widths)
            use = self._bound_use(score)
            if use <= EXACT or widths == self.min_widths:
                break
            measured = score.synops / max(self.evaluator.estimate(widths), 1e-12)
            drift = max(drift * use, measured) * 1.005
        return widths, score

    def scale_to_limits(self, ratios: Ratios, drift: float = 1.0) -> Widths:
        """Return the largest plan in the proportions of ratios that is within every limit by estimate; not measured.

        Args:
            ratios: of the groups; only their proportions matter.
            drift: measured SynOps relative to the estimate.
        """
        project = fill_ratios if self._fills else project_ratios
        return project(ratios, self.evaluator.channels, self.min_widths, lambda widths: self._fits(widths, drift))

    def scale_down(self, ratios: Ratios) -> Widths:
        """Return the widths of ratios, scaled down where they exceed a limit by estimate; not measured."""
        widths = self._round_ratios(ratios)
        if self._fits(widths, self.rate_drift):
            return widths
        return project_ratios(
            ratios, self.evaluator.channels, self.min_widths, lambda widths: self._fits(widths, self.rate_drift)
        )

    def _round_ratios(self, ratios: Ratios) -> Widths:
        return tuple(max(1, round(r * n)) for r, n in zip(ratios, self.evaluator.channels, strict=True))

    def _to_ratios(self, widths: Widths) -> Ratios:
        return tuple(w / n for w, n in zip(widths, self.evaluator.channels, strict=True))

    def _fits(self, widths: Widths, drift: float) -> bool:
        """Return whether a plan is within the limits by estimate."""
        if "synops" in self.limits:
            expected = {name: drift * value for name, value in self.evaluator.estimate_by_source(widths).items()}
            if self.predict_upper(expected) > self.limits["synops"] * self.scaled_target:
                return False
        sizes = {name: limit for name, limit in self.limits.items() if name not in ACTIVE}
        if sizes and chip_costs.max_use(self.evaluator.sizes(widths), sizes) > EXACT:
            return False
        target = self.scaled_target / drift
        timed = {name: limit * target for name, limit in self.limits.items() if name in TIMED}
        if timed and chip_costs.max_use(self.evaluator.estimated_activity(widths), timed) > 1:
            return False
        return not self._rows_over(widths)

    def _measure_use(self, widths: Widths) -> float:
        """Return the largest use of a limit before fine-tuning."""
        score = self.evaluator.score(widths)
        use = chip_costs.max_use(self._values(score, score.synops), self.limits)
        return max(use, 2.0 if self._rows_over(widths) else 0.0)

    def _bound_use(self, score: Score) -> float:
        """Return the largest use of a limit, measured or by its upper bound; a plan may overshoot limits of activity."""
        allowed = 1 + self.settings.overshoot
        limits = {name: limit * (allowed if name in ACTIVE else 1.0) for name, limit in self.limits.items()}
        over = self._rows_over(score.widths)
        chip_use = max((row.used / row.limit for row in over if row.used and row.limit), default=2.0 if over else 0.0)
        return max(chip_costs.max_use(self._values(score, self.predict_upper(score.by_source)), limits), chip_use)

    def _values(self, score: Score, synops: float) -> dict[str, float | None]:
        return {"synops": synops, **score.activity, **self.evaluator.sizes(score.widths)}

    def _rows_over(self, widths: Widths) -> tuple[BudgetRow, ...]:
        """Return the rows of the chip's own limits that a plan exceeds, none without `fit`."""
        return self.evaluator.place(widths)[1] if self.fit and self.evaluator.chip is not None else ()


def _key(widths: Widths, recipe: Recipe) -> str:
    """Return the key of a fine-tune in the checkpoint."""
    rate = "" if recipe.learning_rate == PEAK else f" rate {recipe.learning_rate!r}"
    return f"tune {' '.join(map(str, widths))} {recipe.epochs} {recipe.steps} {recipe.seed} {recipe.synops_budget}{rate}"


def _fit_plan(dataset: Dataset, job: tuple[SNNGraph, Recipe]) -> Fit:
    graph, recipe = job
    return fit(graph, dataset, recipe)


def _measure_proposal(problem: Problem, ratios: Ratios) -> dict[str, Any]:
    """Return what a worker measures for a proposal, by key of the checkpoint."""
    before = problem.evaluator.checkpoint.rows
    with limit_threads(problem.evaluator.graph, learns=True):
        problem.scale_into_budget(ratios)
    return {key: row for key, row in problem.evaluator.checkpoint.rows.items() if key not in before}
