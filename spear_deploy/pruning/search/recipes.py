"""Search of recipes (shares of channels, weights, rates) by Optuna's successive halving.

A recipe (`recipe_builder`) gives channels the share c of the budget as an exponent, weights the share w of what is left, and the
price on SynOps the rest. c = 1 are uniform widths alone, c = 0 all channels, c = 1/2 half widths and half weights.

Half widths and half weights alone is what is taken by default, and learnt by fine-tuning, in one cycle of the learning rate. Of
several recipes each learns for some batches; a recipe goes on to the next round where it is among the better half of those that
came as far (asynchronous successive halving, arXiv 1810.05934, Optuna's `SuccessiveHalvingPruner`), and what the best has learnt
goes on. The first recipes are fixed, `FIRST`; later ones are proposed by TPE. What all have learnt is taken off fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import BudgetError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.candidates import Score, Widths
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import Lever, LeverStage, choose_levers, measure_stage, parse_levers
from spear_deploy.pruning.search.recipe_builder import LATER_PEAK, MIN_BATCHES, WEIGHT_SHARE, RecipeBuilder
from spear_deploy.pruning.search.search import Clock, SearchResult, make_evaluator
from spear_deploy.pruning.search.settings import RECIPE
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.short_learning import PEAK
from spear_deploy.pruning.tune.thin_weights import fill_zero_weights
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.extras import require_packages
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import map_jobs


@dataclass(frozen=True)
class Shares:
    """What the levers get of a budget.

    Attributes:
        channels: share of the budget that channels get, as an exponent.
        weights: share of what channels leave that weights get; the price on SynOps gets the rest.
    """

    channels: float
    weights: float = WEIGHT_SHARE


FIRST = (Shares(0.5), Shares(0.0), Shares(1.0))
"""Recipes of both levers in the order in which they are tried."""
WEIGHT_SHARES = (0.3, 0.9)
"""Bounds of the weights' share in later recipes."""
ROUND_UNITS = (1, 1, 2)
"""Batches of the rounds, in units of which all recipes together take `SEARCH_SHARE` of the learning, where only the first goes on
from the first round."""
REDUCTION = 2
"""One of so many recipes goes on from a round."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe after some rounds of learning.

    Attributes:
        shares: of the budget.
        widths: channels of each group.
        stages: the network after each lever; the last one is the present.
        score: of the present network.
        batches: that were learnt from in all.
        unthinned: the present network with its removed weights at their last values; None where channels alone were removed.
    """

    shares: Shares
    widths: Widths
    stages: tuple[LeverStage, ...]
    score: Score
    batches: int
    unthinned: SNNGraph | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as plain data."""
        return {
            "widths": list(self.widths),
            "accuracy": self.score.accuracy,
            "certainty": self.score.certainty,
            "by_source": self.score.by_source,
            "batches": self.batches,
        }


def search_recipes(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    *,
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Learn each recipe for a short time, and return the best with what it has learnt.

    Args:
        graph, dataset, settings, chip, checkpoint, progress: as in `search`; `settings.epochs` are those of search and
            fine-tuning together. Without a SynOps budget weights are removed only where the chip's own limits have to hold,
            since otherwise nothing says how many have to go.

    Returns:
        The best of the recipes that learnt longest, by the objective on validation. Ctrl-C ends the search and keeps the best
        recipe so far.

    Raises:
        BudgetError: no recipe reaches the budgets; carries the lowest SynOps that one does.
        DataError: data and network do not fit, or nothing can be pruned.
        FileError: the checkpoint is of another network, other data, other settings or another version.
        MissingPackageError: several recipes are asked for, and Optuna is not installed.
    """
    clock = Clock()
    with limit_threads(graph, learns=True):
        evaluator = make_evaluator(graph, dataset, settings, chip, checkpoint)
        limits = settings.budgets.resolve(evaluator.dense_use())
        work = _Recipes(RecipeBuilder(evaluator, settings, limits, score_outputs(graph, dataset.trained.train)))
        first = _choose_first(work.builder, chip)
        work.builder.check_reachable([shares.channels for shares in first])
        clock.stop("estimate")
        result = _choose_recipe(work, first[0]) if len(first) == 1 else _learn_recipes(work, first, progress)
        clock.stop("search")
    return replace(result, seconds=clock.seconds)


def _choose_first(builder: RecipeBuilder, chip: ChipCosts | None) -> tuple[Shares, ...]:
    """Return the recipes that the search begins with; the only one where nothing says how many weights have to go."""
    settings = builder.settings
    levers = choose_levers(chip.profile if chip else None) if settings.levers is None else parse_levers(settings.levers)
    by_weights = "synops" in builder.limits or builder.fits_by_weights
    count = settings.search_settings.episodes if "synops" in builder.limits else 1
    return choose_recipes(levers if by_weights else ("channels",), count)


def _learn_recipes(work: _Recipes, first: tuple[Shares, ...], progress: Progress | None) -> SearchResult:
    """Return the best of several recipes, after successive halving of what they have learnt."""
    require_packages("optuna", user=f"method '{RECIPE}' with several recipes")
    interrupted = _halve(work, first, progress)
    winner = work.learn(*work.best)  # learnt again where only the checkpoint has its measurements
    return replace(
        _describe_plan(work, winner.widths, winner.score, winner.stages[-1].graph),
        rounds=tuple(work.rounds),
        batches=work.batches,
        stages=winner.stages,
        unthinned=winner.unthinned,
        interrupted=interrupted,
    )


def _choose_recipe(work: _Recipes, shares: Shares) -> SearchResult:
    """Return the only recipe, before any learning; fine-tuning removes its weights."""
    builder, evaluator = work.builder, work.builder.evaluator
    if builder.fits_by_weights:
        widths, removal = builder.choose_fit(shares.channels)
    else:
        widths = builder.choose_widths(shares.channels)
        removal = builder.make_removal(shares.channels, widths, shares.weights)
    narrowed = shares.channels > 0 and (widths != evaluator.channels or removal is None)
    score = evaluator.score(widths)
    evaluator.checkpoint.begin()
    row = {"widths": list(widths), "accuracy": score.accuracy, "certainty": score.certainty, "by_source": score.by_source}
    work.add_rows(shares, 1, 0, row)
    result = _describe_plan(work, widths, score, evaluator.build(widths))
    stages = (measure_stage("channels", result.graph, evaluator.split),) if narrowed else ()
    return replace(result, stages=stages, removal=removal)


def _describe_plan(work: _Recipes, widths: Widths, score: Score, network: SNNGraph) -> SearchResult:
    """Return a plan of widths and its network as the result of the search."""
    builder, evaluator = work.builder, work.builder.evaluator
    return SearchResult(
        method=RECIPE,
        plan=evaluator.plan(widths),
        graph=network,
        widths=builder.list_widths(widths),
        score=score,
        predicted=score.synops,
        limits=dict(builder.limits),
        history=tuple(work.history),
        seconds={},
        evaluations=evaluator.evaluations,
        hints=builder.hints,
    )


def choose_recipes(levers: Sequence[Lever], count: int) -> tuple[Shares, ...]:
    """Return the first of so many recipes of these levers, those that are not proposed by the search.

    >>> [shares.channels for shares in choose_recipes(("channels", "weights"), 2)]
    [0.5, 0.0]
    >>> choose_recipes(("weights",), 3), choose_recipes(("channels",), 3)
    ((Shares(channels=0.0, weights=0.6),), (Shares(channels=1.0, weights=0.6),))
    """
    first = FIRST[:count] if "weights" in levers else (Shares(1.0),)
    return first if "channels" in levers else (Shares(0.0),)


def _halve(work: _Recipes, first: tuple[Shares, ...], progress: Progress | None) -> bool:
    """Learn the recipes, each for as many rounds as the pruner lets it, and return whether Ctrl-C ended it.

    Raises:
        BudgetError: no recipe reaches the budgets.
    """
    from spear_deploy.pruning.search.optuna_samplers import create_recipe_study

    settings, rounds, errors = work.builder.settings, work.choose_rounds(), []
    count = settings.search_settings.episodes
    try:
        with create_recipe_study(settings.seed, REDUCTION, [vars(shares) for shares in first], WEIGHT_SHARES) as study:
            work.learn_ahead(first, progress)
            for index in range(count):
                trial = study.ask()
                shares = Shares(**study.suggest(trial))
                try:
                    for number, steps in enumerate(rounds, 1):
                        row = work.measure(shares, number)
                        work.add_rows(shares, number, steps, row)
                        if not study.goes_on(trial, number, float(row[settings.search_settings.objective])):
                            break
                except BudgetError as error:
                    errors.append(error)
                study.end(trial)
                if progress is not None and work.history:
                    accuracy = max(row["accuracy"] for row in work.history)
                    progress({"stage": "recipes", "accuracy": accuracy, "done": index + 1, "of": count})
    except KeyboardInterrupt:
        if not work.measured or not settings.completes:
            raise
        return True
    if not work.measured:
        raise min(errors, key=lambda error: error.min_value or np.inf)
    return False


@dataclass
class _Recipes:
    """The recipes of one search, and what they have learnt.

    Attributes:
        builder: of the network before pruning.
        learnt: candidates by recipe and round, of this process.
        measured: measurements by recipe and round, those of the checkpoint included.
        history, rounds: rows of `SearchResult`.
    """

    builder: RecipeBuilder
    learnt: dict[tuple[Shares, int], Candidate] = field(default_factory=dict)
    measured: dict[tuple[Shares, int], dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def batches(self) -> int:
        """Batches that all recipes learnt from."""
        last = {shares: row["batches"] for (shares, _), row in sorted(self.measured.items(), key=lambda pair: pair[0][1])}
        return sum(last.values())

    @property
    def best(self) -> tuple[Shares, int]:
        """The best recipe of those that learnt longest, and the number of its rounds; of equals the first."""
        objective = self.builder.settings.search_settings.objective
        return max(self.measured, key=lambda key: (key[1], self.measured[key][objective]))

    def choose_rounds(self) -> tuple[int, ...]:
        """Return the batches of each round, those of the settings or `ROUND_UNITS` of the search's share of the learning."""
        settings = self.builder.settings.search_settings
        unit = self.builder.count_search_batches() // (settings.episodes + sum(ROUND_UNITS) - 1)
        return settings.rounds or tuple(max(MIN_BATCHES, unit) * units for units in ROUND_UNITS)

    def measure(self, shares: Shares, number: int) -> dict[str, Any]:
        """Return the measurements of a recipe after a round, from the checkpoint where it has them."""
        checkpoint = self.builder.evaluator.checkpoint
        row: dict[str, Any] = checkpoint.get(self._key(shares, number), lambda: self.learn(shares, number).to_json())
        checkpoint.begin()  # not before a recipe has reached the budgets
        self.measured[shares, number] = row
        return row

    def _key(self, shares: Shares, number: int) -> str:
        """Return the key of a recipe after a round in the checkpoint."""
        settings = self.builder.settings
        limits = " ".join(f"{name}={value!r}" for name, value in self.builder.limits.items())
        rounds = " ".join(map(str, self.choose_rounds()[:number]))
        parts = f"{shares.channels} {shares.weights} rounds {rounds} seed {settings.seed} fit {settings.fit} {limits}"
        return f"recipe {parts}{settings.rate_key}"

    def learn_ahead(self, recipes: Sequence[Shares], progress: Progress | None) -> None:
        """Let the workers learn the first round of recipes that `measure` will ask for; each is kept when it is done."""
        evaluator, settings = self.builder.evaluator, self.builder.settings
        missing = [shares for shares in recipes if self._key(shares, 1) not in evaluator.checkpoint]
        if settings.workers is None or not missing:
            return

        def keep(index: int, result: tuple[dict[tuple[Shares, int], Candidate], int]) -> None:
            learnt, evaluations = result
            self.learnt |= learnt
            evaluator.evaluations += evaluations
            if learnt:
                evaluator.checkpoint.get(self._key(missing[index], 1), lambda: self.learn(missing[index], 1).to_json())
                evaluator.checkpoint.begin()

        alone = _Recipes(replace(self.builder, settings=replace(settings, workers=None)))
        names = [f"recipe with channels {shares.channels:g}" for shares in missing]
        map_jobs(
            _learn_recipe, missing, shared=alone, workers=settings.workers, names=names, stage="recipes", keep=keep,
            progress=progress,
        )  # fmt: skip

    def add_rows(self, shares: Shares, number: int, steps: int, row: dict[str, Any]) -> None:
        """Add a recipe's measurements to the history and to the rounds."""
        values = {"widths": row["widths"], "accuracy": row["accuracy"], "certainty": row["certainty"]}
        recipe = {"channels": shares.channels, "weights": 1 - shares.channels, "of_weights": shares.weights}
        synops = sum(row["by_source"].values())
        channels = self.builder.evaluator.channels
        ratios = [width / before for width, before in zip(row["widths"], channels, strict=True)]
        reward = row[self.builder.settings.search_settings.objective]
        number_of = len(self.history) + 1
        self.history.append(
            {"episode": number_of, "proposed": ratios, **values, "synops": synops, "predicted": synops, "reward": reward,
             "feasible": True, "recipe": recipe}
        )  # fmt: skip
        self.rounds.append({"rung": number, "steps": steps, **values, "recipe": recipe})

    def learn(self, shares: Shares, number: int) -> Candidate:
        """Return a recipe after a round; it learns once in a process."""
        if (shares, number) not in self.learnt:
            self.learnt[shares, number] = (
                self._start(shares) if number == 1 else self._continue(self.learn(shares, number - 1), number)
            )
        return self.learnt[shares, number]

    def _start(self, shares: Shares) -> Candidate:
        """Narrow the network, and let it learn while its weights are removed."""
        builder, split = self.builder, self.builder.evaluator.split
        widths = builder.choose_widths(shares.channels)
        graph = builder.evaluator.build(widths)
        removal = builder.make_removal(shares.channels, widths, shares.weights)
        stages = [measure_stage("channels", graph, split)] if shares.channels > 0 else []
        tuned, score = builder.learn(graph, widths, self.choose_rounds()[0], PEAK, remove=removal)
        name = "channels" if removal is None else "weights"
        stages = [*(stages if removal else []), measure_stage(name, tuned.graph, split, tuned.batches)]
        unthinned = None if removal is None else fill_zero_weights(tuned.graph, removal.unthinned or tuned.graph)
        return Candidate(
            shares=shares, widths=widths, stages=tuple(stages), score=score, batches=tuned.batches, unthinned=unthinned
        )

    def _continue(self, candidate: Candidate, number: int) -> Candidate:
        """Learn on, with the zeros held."""
        steps, last = self.choose_rounds()[number - 1], candidate.stages[-1]
        before = candidate.unthinned
        tuned, score = self.builder.learn(
            last.graph, candidate.widths, steps, LATER_PEAK, seed=self.builder.settings.seed + number - 1,
        )  # fmt: skip
        stage = measure_stage(last.name, tuned.graph, self.builder.evaluator.split, last.batches + tuned.batches)
        return replace(
            candidate, stages=(*candidate.stages[:-1], stage), score=score, batches=candidate.batches + tuned.batches,
            unthinned=before and fill_zero_weights(tuned.graph, before),
        )  # fmt: skip


def _learn_recipe(work: _Recipes, shares: Shares) -> tuple[dict[tuple[Shares, int], Candidate], int]:
    """Return what a worker learns for a recipe, and the networks that it measured; nothing where the budgets are out of reach."""
    evaluator = work.builder.evaluator
    before, evaluations = set(work.learnt), evaluator.evaluations
    try:
        with limit_threads(evaluator.graph, learns=True):
            work.learn(shares, 1)
    except BudgetError:
        return {}, 0  # `measure` says why
    learnt = {key: candidate for key, candidate in work.learnt.items() if key not in before}
    return learnt, evaluator.evaluations - evaluations
