"""Search of recipes: shares of the budget for channels and weights.

A budget b (SynOps, relative to the trained network's) is a product of what the levers leave. A recipe gives channels the share
c and weights the share w, as exponents:

    channels   b^c          uniform widths
    weights    b^w          weights of least magnitude per spike that arrives become zero, several times while the network learns
    rates      b^(1−c−w)    the price on SynOps, by the end of the same learning

Of what channels leave, weights take `WEIGHT_SHARE`, the price the rest. c = 1 are uniform widths alone, c = 0 all channels,
c = 1/2 half widths and half weights. This one alone is taken by default, and learnt by fine-tuning, in one cycle of the learning
rate: what a search of recipes learns is lost but for one of them. Of several recipes each learns for the same number of
batches, and successive halving keeps the best, with what it has learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import BudgetError
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.candidates import Evaluator, Score, Widths
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import Lever, LeverStage, choose_levers, measure_stage, parse_levers
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.search import Clock, SearchResult, make_evaluator
from spear_deploy.pruning.search.settings import RECIPE
from spear_deploy.pruning.search.successive_halving import keep_best
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.thin_weights import MAX_SHARE, WeightRemoval, fill_zero_weights, zero_weight_share
from spear_deploy.simulator.synops import count_synops
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.training.fit import Fit, Recipe, fit, limit_threads
from spear_deploy.training.losses import average_outputs
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import map_jobs

CHANNEL_SHARES = (0.5, 0.0, 1.0)
"""Shares of the budget, as exponents, that channels get in the recipes of both levers, in the order in which they are tried."""
KEPT_SHARE = 2 / 3
"""Share of the recipes that goes on from a round: two of three, of which one is best after the next."""
WEIGHT_SHARE = 0.6
"""Share of the exponent that channels leave which weights take. The rest is left to firing rates, which the price lowers in any
case; where they alone have to fall, accuracy is lost."""
OVERSHOOT = 1.1
"""SynOps of a short learning, relative to the budget: fine-tuning lowers the rest."""
PEAK, LATER_PEAK = 1e-2, 5e-3
"""Learning rate of the first short learning of a recipe, and of those that learn on."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe after some rounds of learning.

    Attributes:
        channels: share of the budget that channels get, as an exponent; weights get the rest.
        widths: channels of each group.
        stages: the network after each lever; the last one is the present.
        score: of the present network.
        batches: that were learnt from in all.
        unthinned: the present network with its removed weights at their last values; None where channels alone were removed.
    """

    channels: float
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
        graph, dataset, settings, chip, checkpoint, progress: as in `search`. Without a SynOps budget channels alone are removed,
            since only SynOps say how many weights have to go.

    Returns:
        The best recipe by the objective on validation. Ctrl-C ends the search and keeps the best recipe so far.

    Raises:
        BudgetError: no recipe reaches the budgets; carries the lowest SynOps that one does.
        DataError: data and network do not fit, or nothing can be pruned.
        FileError: the checkpoint is of another network, other data, other settings or another version.
    """
    clock = Clock()
    with limit_threads(graph):
        evaluator = make_evaluator(graph, dataset, settings, chip, checkpoint)
        evaluations_before = evaluator.evaluations
        hints = average_outputs(graph, dataset.trained.train)
        work = _Work(evaluator, settings, settings.budgets.resolve(evaluator.dense_use()), hints)
        levers = choose_levers(chip.profile if chip else None) if settings.levers is None else parse_levers(settings.levers)
        shares = choose_shares(levers if "synops" in work.limits else ("channels",), settings.search_settings.episodes)
        work.check_reachable(shares)
        clock.stop("estimate")
        if len(shares) == 1:
            return _choose_recipe(work, shares[0], clock)
        best, interrupted = _halve(work, shares, progress)
        winner = work.learn(best, 1)  # learnt again where only the checkpoint has its measurements
        for number in range(2, len(settings.search_settings.rounds) + 1):
            if (best, number) in work.measured:
                winner = work.learn(best, number)
        clock.stop("search")
    return SearchResult(
        method=RECIPE,
        plan=evaluator.plan(winner.widths),
        graph=winner.stages[-1].graph,
        widths=work.list_widths(winner.widths),
        score=winner.score,
        predicted=winner.score.synops,
        limits=dict(work.limits),
        history=tuple(work.history),
        rounds=tuple(work.rounds),
        estimator=None,
        seconds=clock.seconds,
        evaluations=evaluator.evaluations - evaluations_before,
        batches=work.batches,
        stages=winner.stages,
        unthinned=winner.unthinned,
        hints=work.hints,
        interrupted=interrupted,
    )


def _choose_recipe(work: _Work, share: float, clock: Clock) -> SearchResult:
    """Return the only recipe, before any learning; fine-tuning removes its weights."""
    evaluator = work.evaluator
    evaluations = evaluator.evaluations
    widths = work.choose_widths(share)
    score, network = evaluator.score(widths), evaluator.build(widths)
    evaluator.checkpoint.begin()
    row = {"widths": list(widths), "accuracy": score.accuracy, "certainty": score.certainty, "by_source": score.by_source}
    work.add_rows(share, 1, 0, row)
    clock.stop("search")
    return SearchResult(
        method=RECIPE,
        plan=evaluator.plan(widths),
        graph=network,
        widths=work.list_widths(widths),
        score=score,
        predicted=score.synops,
        limits=dict(work.limits),
        history=tuple(work.history),
        rounds=(),
        estimator=None,
        seconds=clock.seconds,
        evaluations=evaluator.evaluations - evaluations,
        stages=(measure_stage("channels", network, evaluator.split),) if share > 0 else (),
        removal=work.make_removal(share, widths),
        hints=work.hints,
    )


def choose_shares(levers: Sequence[Lever], recipes: int) -> tuple[float, ...]:
    """Return the shares of the budget that channels get in so many recipes of these levers.

    >>> choose_shares(("channels", "weights"), 1), choose_shares(("channels", "weights"), 3)
    ((0.5,), (0.5, 0.0, 1.0))
    >>> choose_shares(("weights",), 3), choose_shares(("channels",), 3)
    ((0.0,), (1.0,))
    """
    shares = CHANNEL_SHARES[:recipes] if "weights" in levers else (1.0,)
    return shares if "channels" in levers else (0.0,)


def _halve(work: _Work, shares: tuple[float, ...], progress: Progress | None) -> tuple[float, bool]:
    """Learn the recipes round by round, and return the share of the best and whether Ctrl-C ended it.

    Raises:
        BudgetError: no recipe reaches the budgets.
    """
    candidates, errors = list(shares), []
    ranked: list[tuple[float, float]] = []
    objective = work.settings.search_settings.objective
    interrupted = False
    for number, steps in enumerate(work.settings.search_settings.rounds, 1):
        ranked = []
        try:
            work.learn_ahead(candidates, number, progress)
            for index, share in enumerate(candidates):
                try:
                    row = work.measure(share, number)
                except BudgetError as error:
                    errors.append(error)
                    continue
                work.add_rows(share, number, steps, row)
                ranked.append((float(row[objective]), share))
                if progress is not None:
                    facts = {"accuracy": max(row["accuracy"] for row in work.history), "done": index + 1, "of": len(candidates)}
                    progress({"stage": f"recipes, round {number}", **facts})
        except KeyboardInterrupt:
            if not ranked:
                raise
            interrupted = True
        if not ranked:
            raise min(errors, key=lambda error: error.min_value or np.inf)
        candidates = keep_best(ranked, KEPT_SHARE)
        if interrupted or len(candidates) == 1:
            break
    return candidates[0], interrupted


def _thin_most(graph: SNNGraph, measured: Evaluation) -> float:
    """Return the SynOps of a network without most of its weights, at its present spikes."""
    return count_synops(zero_weight_share(graph, measured.counts, MAX_SHARE), measured.counts).total


@dataclass
class _Work:
    """The recipes of one search, and what they have learnt.

    Attributes:
        evaluator: of the network before pruning.
        settings: of pruning.
        limits: by resource, in its unit.
        hints: mean outputs of the network before pruning on the training split.
        learnt: candidates by share and round, of this process.
        measured: batches by share and round, those of the checkpoint included.
        history, rounds: rows of `SearchResult`.
    """

    evaluator: Evaluator
    settings: PruneSettings
    limits: dict[str, float]
    hints: Array
    learnt: dict[tuple[float, int], Candidate] = field(default_factory=dict)
    measured: dict[tuple[float, int], int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def batches(self) -> int:
        """Batches that all recipes learnt from."""
        return sum(
            max(count for (of, _), count in self.measured.items() if of == share) for share in {of for of, _ in self.measured}
        )

    def measure(self, share: float, number: int) -> dict[str, Any]:
        """Return the measurements of a recipe after a round, from the checkpoint where it has them."""
        key = self._key(share, number)
        row: dict[str, Any] = self.evaluator.checkpoint.get(key, lambda: self.learn(share, number).to_json())
        self.evaluator.checkpoint.begin()  # not before a recipe has reached the budgets
        self.measured[share, number] = row["batches"]
        return row

    def _key(self, share: float, number: int) -> str:
        """Return the key of a recipe after a round in the checkpoint."""
        rounds = self.settings.search_settings.rounds[:number]
        limits = " ".join(f"{name}={value!r}" for name, value in self.limits.items())
        return f"recipe {share} rounds {' '.join(map(str, rounds))} seed {self.settings.seed} fit {self.settings.fit} {limits}"

    def learn_ahead(self, shares: Sequence[float], number: int, progress: Progress | None) -> None:
        """Let the workers learn the recipes of a round that `measure` will ask for; each is kept when it is done."""
        missing = [share for share in shares if self._key(share, number) not in self.evaluator.checkpoint]
        if self.settings.workers is None or not missing:
            return

        def keep(index: int, result: tuple[dict[tuple[float, int], Candidate], int]) -> None:
            learnt, evaluations = result
            self.learnt |= learnt
            self.evaluator.evaluations += evaluations
            if learnt:
                self.measure(missing[index], number)

        alone = replace(self, settings=replace(self.settings, workers=None), history=[], rounds=[])
        names = [f"round {number}: recipe with channels {share:g}" for share in missing]
        map_jobs(
            _learn_recipe, [(share, number) for share in missing], shared=alone, workers=self.settings.workers, names=names,
            stage=f"recipes, round {number}", keep=keep, progress=progress,
        )  # fmt: skip

    def add_rows(self, share: float, number: int, steps: int, row: dict[str, Any]) -> None:
        """Add a recipe's measurements to the history and to the rounds."""
        values = {"widths": row["widths"], "accuracy": row["accuracy"], "certainty": row["certainty"]}
        recipe = {"channels": share, "weights": 1 - share}
        synops = sum(row["by_source"].values())
        ratios = [width / channels for width, channels in zip(row["widths"], self.evaluator.channels, strict=True)]
        reward = row[self.settings.search_settings.objective]
        number_of = len(self.history) + 1
        self.history.append(
            {"episode": number_of, "proposed": ratios, **values, "synops": synops, "predicted": synops, "reward": reward,
             "feasible": True, "recipe": recipe}
        )  # fmt: skip
        self.rounds.append({"rung": number, "steps": steps, **values, "recipe": recipe})

    def learn(self, share: float, number: int) -> Candidate:
        """Return a recipe after a round; it learns once in a process."""
        if (share, number) not in self.learnt:
            self.learnt[share, number] = (
                self._start(share) if number == 1 else self._continue(self.learn(share, number - 1), number)
            )
        return self.learnt[share, number]

    def _start(self, share: float) -> Candidate:
        """Narrow the network, and let it learn while its weights are removed."""
        widths = self.choose_widths(share)
        graph = self.evaluator.build(widths)
        removal = self.make_removal(share, widths)
        stages = [measure_stage("channels", graph, self.evaluator.split)] if share > 0 else []
        steps = self.settings.search_settings.rounds[0]
        tuned, score = self._fit(graph, widths, steps, PEAK, remove=removal)
        name = "channels" if removal is None else "weights"
        stages = [*(stages if removal else []), measure_stage(name, tuned.graph, self.evaluator.split, tuned.batches)]
        unthinned = None if removal is None else fill_zero_weights(tuned.graph, removal.unthinned or tuned.graph)
        return Candidate(
            channels=share, widths=widths, stages=tuple(stages), score=score, batches=tuned.batches, unthinned=unthinned
        )

    def _continue(self, candidate: Candidate, number: int) -> Candidate:
        """Learn on, with the zeros held."""
        steps, last = self.settings.search_settings.rounds[number - 1], candidate.stages[-1]
        before = candidate.unthinned
        tuned, score = self._fit(last.graph, candidate.widths, steps, LATER_PEAK, keeps_zeros=before is not None)
        stage = measure_stage(last.name, tuned.graph, self.evaluator.split, last.batches + tuned.batches)
        return replace(
            candidate, stages=(*candidate.stages[:-1], stage), score=score, batches=candidate.batches + tuned.batches,
            unthinned=before and fill_zero_weights(tuned.graph, before),
        )  # fmt: skip

    def _synops_after_channels(self, share: float) -> float | None:
        """Return the SynOps that channels are narrowed to: dense · (budget / dense)^share, at least `OVERSHOOT` budgets."""
        if "synops" not in self.limits:
            return None
        dense = self.evaluator.dense.synops.total
        return float(max(dense * (self.limits["synops"] / dense) ** share, OVERSHOOT * self.limits["synops"]))

    def check_reachable(self, shares: Sequence[float]) -> None:
        """Check that the levers of the recipes together can reach the SynOps budget.

        Raises:
            BudgetError: they leave more; carries the lowest SynOps, and names what each lever leaves.
        """
        if "synops" not in self.limits or max(shares) == 1 == min(shares):
            return  # of channels alone the widths say it
        evaluator = self.evaluator
        narrow = evaluator.build((1,) * len(evaluator.groups))
        narrowest = evaluate(narrow, evaluator.split)
        left = {
            "one channel in every layer": narrowest.synops.total,
            f"{1 - MAX_SHARE:.1%} of the weights": _thin_most(evaluator.graph, evaluator.dense),
            "both": _thin_most(narrow, narrowest),
        }
        names = list(left) if max(shares) > 0 else [list(left)[1]]
        least, limit = min(left[name] for name in names), self.limits["synops"]
        if least > limit:
            text = ", ".join(f"{lever} {np.ceil(synops):.0f}" for lever, synops in left.items())
            raise BudgetError(
                f"SynOps budget {limit:.0f} is below {least:.0f}, what the levers can leave; raise the budget to at least "
                f"{np.ceil(least):.0f}; SynOps that the levers leave at the least, before learning: {text}",
                min_value=least,
            )

    def make_removal(self, share: float, widths: Widths) -> WeightRemoval | None:
        """Return the removal of weights of a recipe; None where channels are enough.

        Weights get their share of what is left to remove at these widths, by estimate.
        """
        if share == 1 or "synops" not in self.limits:
            return None
        left = self.limits["synops"] / max(self.evaluator.estimate(widths), 1e-12)
        return None if left >= 1 else WeightRemoval(self.evaluator.split, max(left**WEIGHT_SHARE, 1 - MAX_SHARE))

    def list_widths(self, widths: Widths) -> dict[str, tuple[int, int]]:
        """Return {group: (channels before, after)}."""
        names = [group.name for group in self.evaluator.groups]
        return dict(zip(names, zip(self.evaluator.channels, widths, strict=True), strict=True))

    def choose_widths(self, share: float) -> Widths:
        """Return uniform widths within the channels' share of the SynOps, and within all limits of size.

        Raises:
            BudgetError: one channel in each group exceeds them.
        """
        limits = {name: value for name, value in self.limits.items() if name != "synops"}
        target = self._synops_after_channels(share)
        if share > 0 and target is not None:
            limits["synops"] = target
        if not limits and not self.settings.fit:
            return self.evaluator.channels
        details = replace(self.settings.search_settings, overshoot=0.0, confidence=0.0)
        problem = Problem(self.evaluator, limits, details, seed=self.settings.seed, fit=self.settings.budgets.fit)
        problem.check_reachable()
        widths, _ = problem.scale_into_budget(tuple(1.0 for _ in self.evaluator.groups))
        return widths

    def _fit(
        self, graph: SNNGraph, widths: Widths, steps: int, peak: float, *,
        keeps_zeros: bool = False, remove: WeightRemoval | None = None,
    ) -> tuple[Fit, Score]:  # fmt: skip
        """Learn for some batches towards the SynOps budget, and return what was learnt, and its score."""
        train = len(self.evaluator.dataset.train)
        recipe = Recipe(
            epochs=-(-max(steps, 1) // max(1, train // 64)), steps=max(steps, 1), learning_rate=peak, warm_up=0.1,
            seed=self.settings.seed, synops_budget=OVERSHOOT * self.limits["synops"] if "synops" in self.limits else None,
            keeps_zeros=keeps_zeros, device=self.settings.search_settings.device,
        )  # fmt: skip
        tuned = fit(graph, self.evaluator.dataset, recipe, hints=self.hints, remove=remove)
        assert tuned.last is not None  # it was not interrupted
        self.evaluator.evaluations += 1
        score = Score(
            widths=widths,
            accuracy=tuned.last.accuracy,
            certainty=tuned.last.certainty,
            by_source=tuned.last.by_source,
            activity={},
        )
        return tuned, score


def _learn_recipe(work: _Work, job: tuple[float, int]) -> tuple[dict[tuple[float, int], Candidate], int]:
    """Return what a worker learns for a recipe, and the networks that it measured; nothing where the budgets are out of reach."""
    share, number = job
    before, evaluations = set(work.learnt), work.evaluator.evaluations
    try:
        with limit_threads(work.evaluator.graph):
            work.learn(share, number)
    except BudgetError:
        return {}, 0  # `measure` says why
    learnt = {key: candidate for key, candidate in work.learnt.items() if key not in before}
    return learnt, work.evaluator.evaluations - evaluations
