"""Constrained reinforcement learning over all levers, around a recipe.

    maximise  certainty(plan)   subject to   u_i(plan) ≤ 1        u_i = use of budget i / budget i, measured

An episode is a plan: a width, a density and bits for each layer (`lever_environment`). Its network learns for some batches and
is measured, and its value is the Lagrangian; afterwards each multiplier takes a step of dual ascent:

    L(plan; λ) = certainty − Σ λ_i (u_i − 1)
    λ_i ← max(0, λ_i + RATE · (u_i − 1))          λ_i = 0 at the start

So no penalty has to be set by hand: a multiplier grows for as long as its budget is exceeded (dual ascent of constrained Markov
decision processes: Altman 1999; Tessler et al., arXiv 1805.11074). The multipliers are of all budgets that depend on spikes;
budgets of size, and the chip's own limits, are known before anything learns, and plans are scaled into them.

Bits are part of a plan where a limit of memory or cores is exceeded and layers of the chip may differ (`lever_bits`). Fewer of
them leave room for more channels: without a budget that depends on spikes, the widths of a plan grow or shrink, in their
proportions, to the largest within the limits at its bits. An episode then spends a third of its batches, the last ones, on
learning with the chip's rounding, after which certainty is measured: so it holds what few bits cost. What these batches learnt
is bound to one width of weights and has no batch norm, and does not go on to the next episode.

The first episode is the recipe. What an episode has learnt is kept: its weights go back into the whole network, from which the
next plan is cut. So later plans have learnt longer, and the best is the plan whose Lagrangian, at the last multipliers, lies
highest above the line through the Lagrangians of all episodes; the agent's rewards are these distances, at the multipliers of
the time (`rl_agents.LagrangianReplay`). All episodes together learn from a share of the batches, `SEARCH_SHARE`, that is taken
off fine-tuning. Fine-tuning then begins with the best plan's channels and all their weights at their last values, and removes
weights in one cycle of the learning rate, as after a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE
from spear_deploy.pruning.candidates import Score
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import choose_levers, measure_stage, parse_levers
from spear_deploy.pruning.plan import restore_channels
from spear_deploy.pruning.search.lever_bits import PlanBits, choose_plan_bits
from spear_deploy.pruning.search.lever_plan import Actions, LeverPlan, LeverSpace, list_layers, remove_trend
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.recipe_builder import LATER_PEAK, MIN_BATCHES, RecipeBuilder
from spear_deploy.pruning.search.search import Clock, SearchResult, make_evaluator
from spear_deploy.pruning.search.settings import RL
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.short_learning import OVERSHOOT, PEAK, ROUNDED_PEAK
from spear_deploy.pruning.tune.measure import BudgetMonitor
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.pruning.tune.thin_weights import LayerWeightRemoval, fill_zero_weights, list_densities
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.digests import hash_value
from spear_deploy.util.extras import require_packages
from spear_deploy.util.progress import Progress

RATE = 1.0
"""Step of a multiplier: at 10 % above its budget it grows by 0.1, so that each 10 % cost 0.01 more of certainty."""
SHARE = 0.5
"""Share of the budget, as an exponent, that channels get in the recipe."""
ROUNDED_SHARE = 1 / 3
"""Share of an episode's batches that learn with the chip's rounding where bits are searched."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A plan that has learnt.

    Attributes:
        key: of its measurements, a digest of all that they depend on.
        plan: widths, densities and bits.
        before: the episode whose weights it began with; None: the network before pruning.
        number: of the episode, from 0.
        row: measurements: accuracy, certainty, SynOps by source, use of each budget that depends on spikes, dual.
    """

    key: str
    plan: LeverPlan
    before: Episode | None
    number: int
    row: Mapping[str, Any]

    @property
    def feasible(self) -> bool:
        """Whether fine-tuning can be expected to hold all budgets."""
        return max(self.row["use"].values(), default=0.0) <= OVERSHOOT

    def value(self, multipliers: Mapping[str, float], objective: str) -> float:
        """Return the Lagrangian."""
        return float(self.row[objective] - sum(price * (self.row["use"][name] - 1.0) for name, price in multipliers.items()))


def search_levers(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    *,
    chip: ChipCosts | None = None,
    form: IntegerForm | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search widths, densities and bits of all layers by constrained reinforcement learning.

    Args:
        graph, dataset, settings, chip, checkpoint, progress: as in `search`; `settings.epochs` are those of search and
            fine-tuning together. Without a SynOps budget, or without the lever, no weights are removed.
        form: the chip's integers; without them bits by layer are not searched.

    Returns:
        The best plan with what it has learnt, and the removal of its weights. Ctrl-C ends the search and keeps the best so far.

    Raises:
        BudgetError: the budgets are below what the levers can leave; carries the lowest SynOps that they can.
        DataError: data and network do not fit, or nothing can be pruned.
        FileError: the checkpoint is of another network, other data, other settings or another version.
        MissingPackageError: Stable-Baselines3 is not installed.
    """
    require_packages("stable_baselines3", user=f"method '{RL}'")
    clock = Clock()
    with limit_threads(graph, learns=True):
        work = _prepare_episodes(graph, dataset, settings, chip, form, checkpoint, progress)
        clock.stop("estimate")
        interrupted = _play_all(work)
        best = work.choose_best()
        result = _summarize(work, best, interrupted)
        clock.stop("search")
    return replace(result, seconds=clock.seconds)


def _prepare_episodes(
    graph: SNNGraph,
    dataset: Dataset,
    settings: PruneSettings,
    chip: ChipCosts | None,
    form: IntegerForm | None,
    checkpoint: Path | None,
    progress: Progress | None,
) -> _Episodes:
    """Return the episodes of a search before the first one; arguments are those of `search_levers`.

    Raises:
        BudgetError: the budgets are below what the levers can leave.
    """
    evaluator = make_evaluator(graph, dataset, settings, chip, checkpoint)
    limits = settings.budgets.resolve(evaluator.dense_use())
    builder = RecipeBuilder(evaluator, settings, limits, score_outputs(graph, dataset.trained.train))
    monitor = BudgetMonitor(graph, dataset, settings.budgets, (), chip)
    bits = choose_plan_bits(builder, form)
    work = _Episodes(builder, _choose_space(builder, chip, bits), monitor, progress, bits)
    evaluator.checkpoint.begin()
    return work


def _play_all(work: _Episodes) -> bool:
    """Play all episodes, and return whether Ctrl-C cut them short after the first."""
    from spear_deploy.pruning.search.lever_environment import LeverEnv
    from spear_deploy.pruning.search.rl_agents import refine_policy

    env = LeverEnv(work.space, work.play, lambda: list(work.multipliers.values()))
    try:
        refine_policy(env, episodes=work.episodes, seed=work.builder.settings.seed)
    except KeyboardInterrupt:
        if not work.played or not work.builder.settings.completes:
            raise
        return True
    return False


def _summarize(work: _Episodes, best: Episode, interrupted: bool) -> SearchResult:
    """Return the best plan with what it has learnt, and the removal of its weights."""
    builder, evaluator, densities = work.builder, work.builder.evaluator, best.plan.densities
    network = work.cut(best.plan)
    return SearchResult(
        method=RL,
        plan=evaluator.plan(best.plan.widths),
        graph=network,
        widths=builder.list_widths(best.plan.widths),
        score=_to_score(best),
        predicted=sum(best.row["by_source"].values()),
        limits=dict(builder.limits),
        history=tuple(work.history),
        seconds={},
        evaluations=evaluator.evaluations,
        batches=work.batches,
        stages=(measure_stage("channels", network, evaluator.split, work.batches),),
        removal=LayerWeightRemoval(evaluator.split, densities=densities) if min(densities.values(), default=1) < 1 else None,
        hints=builder.hints,
        layer_bits=None if work.bits is None else work.bits.describe(best.plan.bits, len(work.played)),
        interrupted=interrupted,
    )


def _to_score(episode: Episode) -> Score:
    row = episode.row
    return Score(
        widths=episode.plan.widths, accuracy=row["accuracy"], certainty=row["certainty"], by_source=dict(row["by_source"]),
        activity={},
    )  # fmt: skip


def _choose_space(builder: RecipeBuilder, chip: ChipCosts | None, bits: PlanBits | None) -> LeverSpace:
    """Return the plans around the half-and-half recipe, for the levers of the settings or those that the chip rewards.

    Raises:
        BudgetError: the budgets are below what the levers can leave.
    """
    evaluator, named = builder.evaluator, builder.settings.levers
    levers = choose_levers(chip.profile if chip else None) if named is None else parse_levers(named)
    thins = "weights" in levers and "synops" in builder.limits
    share = 1.0 if not thins else SHARE if "channels" in levers else 0.0
    builder.check_reachable((share,))
    if bits is not None:
        builder = builder.with_chip(bits.limits.place(bits.recipe))
    widths = builder.choose_widths(share)
    removal, densities = builder.make_removal(share, widths), {}
    if thins:
        network = evaluator.build(widths)
        thinned = network if removal is None else removal(network, 1.0)
        priced = evaluator.dense.synops.per_layer
        densities = {name: density for name, density in list_densities(thinned).items() if priced.get(name)}
    has = {"width": "channels" in levers, "density": thins, "bits": bits is not None}
    options = {} if bits is None else bits.options
    layers = list_layers(evaluator, densities, options)
    if not has["width"]:
        layers = tuple(name for name in layers if name in densities)
    return LeverSpace(
        evaluator=evaluator,
        recipe=LeverPlan(widths=widths, densities=densities, bits={} if bits is None else bits.recipe),
        layers=layers,
        levers=tuple(name for name, there in has.items() if there),
        bits=options,
    )  # fmt: skip


@dataclass
class _Episodes:
    """The episodes of one search.

    Attributes:
        builder: of the network before pruning.
        space: the plans.
        monitor: measures the budgets.
        progress: is called after each episode.
        bits: that plans may have; None where they are no lever.
        multipliers: by budget that depends on spikes.
        played: the episodes so far.
        history: rows of `SearchResult`.
        batches: that all episodes learnt from, those of a checkpoint included.
        learnt: the whole network with what an episode has learnt, by its key, of this process.
    """

    builder: RecipeBuilder
    space: LeverSpace
    monitor: BudgetMonitor
    progress: Progress | None
    bits: PlanBits | None = None
    multipliers: dict[str, float] = field(default_factory=dict)
    played: list[Episode] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    batches: int = 0
    learnt: dict[str, SNNGraph] = field(default_factory=dict)
    _sizes: dict[tuple[tuple[str, int], ...], Problem | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit, space = self.builder.limits.get("synops"), self.space
        self.target = None if limit is None else max(OVERSHOOT * limit, space.estimate(space.recipe))
        self.multipliers = {name: 0.0 for name in self.builder.limits if name in ACTIVE}
        self._find_sizes(space.recipe.bits)  # raises before the first episode where nothing is within the limits
        self.objective = self.builder.settings.search_settings.objective
        self.episodes = self.builder.settings.search_settings.episodes
        share = self.builder.count_search_batches() // self.episodes
        self.rounded_steps = 0 if self.bits is None else max(MIN_BATCHES, round(ROUNDED_SHARE * share))
        self.steps = max(MIN_BATCHES, share - self.rounded_steps)

    def play(self, actions: Actions) -> tuple[float, list[float]]:
        """Let a plan learn, measure it, and take a step of dual ascent.

        Returns:
            Its Lagrangian, and its objective and use of each budget with a multiplier.
        """
        episode = self._measure(self._scale_into_sizes(self.space.make_plan(actions)))
        value = episode.value(self.multipliers, self.objective)
        self.played.append(episode)
        self.batches += self.steps + self.rounded_steps
        self._add_row(episode, value)
        for name, use in episode.row["use"].items():
            self.multipliers[name] = max(0.0, self.multipliers[name] + RATE * (use - 1.0))
        if self.progress is not None:
            best = max(row["accuracy"] for row in self.history)
            self.progress({"stage": "episodes", "accuracy": best, "done": len(self.history), "of": self.episodes})
        return value, [episode.row[self.objective], *(episode.row["use"][name] for name in self.multipliers)]

    def choose_best(self) -> Episode:
        """Return the episode whose Lagrangian, at the last multipliers, is highest above the trend of learning."""
        values = np.array([episode.value(self.multipliers, self.objective) for episode in self.played])
        return self.played[int(np.argmax(remove_trend(values)))]

    def cut(self, plan: LeverPlan) -> SNNGraph:
        """Return the channels of a plan, with all their weights as the last episode left them."""
        return self.builder.evaluator.build(plan.widths, self._state_bits(self._get_weights(self.played[-1]), plan))

    def _scale_into_sizes(self, plan: LeverPlan) -> LeverPlan:
        """Return the plan with its widths scaled into the limits that do not depend on spikes, at its bits."""
        if self.bits is not None:
            plan = replace(plan, bits=self.bits.keep_reachable(plan.bits))
        sizes = self._find_sizes(plan.bits)
        if sizes is None:
            return plan
        channels = self.builder.evaluator.channels
        ratios = tuple(width / n for width, n in zip(plan.widths, channels, strict=True))
        fills = self.bits is not None and not self.multipliers and "width" in self.space.levers
        return replace(plan, widths=sizes.scale_to_limits(ratios) if fills else sizes.scale_down(ratios))

    def _find_sizes(self, bits: Mapping[str, int]) -> Problem | None:
        """Return the problem of finding widths within the limits that do not depend on spikes; None without such limits.

        Raises:
            BudgetError: one channel in each group exceeds them.
        """
        key = tuple(bits.items())
        if key not in self._sizes:
            limits = {name: limit for name, limit in self.builder.limits.items() if name not in ACTIVE}
            builder = self.builder if self.bits is None else self.builder.with_chip(self.bits.limits.place(bits))
            sizes = builder.make_problem(limits) if limits or builder.settings.fit else None
            if sizes is not None:
                sizes.check_reachable()  # lowers the floors
            self._sizes[key] = sizes
        return self._sizes[key]

    def _state_bits(self, graph: SNNGraph, plan: LeverPlan) -> SNNGraph:
        return graph if self.bits is None else self.bits.state(graph, plan.bits)

    def _measure(self, plan: LeverPlan) -> Episode:
        """Return a plan with its measurements, from the checkpoint where it has them."""
        before, builder = self.played[-1] if self.played else None, self.builder
        depends = {
            "before": before.key if before else "", "widths": list(plan.widths), "densities": dict(plan.densities),
            "batches": self.steps, "seed": builder.settings.seed, "limits": builder.limits, "fit": builder.settings.fit,
            **({} if self.bits is None else {"bits": dict(plan.bits), "rounded": self.rounded_steps}),
            **({"rate": builder.settings.peak} if builder.settings.rate_key else {}),
        }  # fmt: skip
        episode = Episode(key=f"rl {hash_value(depends)}", plan=plan, before=before, number=len(self.played), row={})
        row: dict[str, Any] = builder.evaluator.checkpoint.get(episode.key, lambda: self._learn(episode))
        return replace(episode, row=row)

    def _get_weights(self, episode: Episode | None) -> SNNGraph:
        """Return the whole network with what an episode has learnt; it learns again where a checkpoint has measurements alone."""
        if episode is None:
            return self.builder.evaluator.graph
        if episode.key not in self.learnt:
            self._learn(episode)
        return self.learnt[episode.key]

    def _learn(self, episode: Episode) -> dict[str, Any]:
        """Let a plan learn while its weights are removed, keep what it has learnt, and return its measurements."""
        evaluator, plan, before = self.builder.evaluator, episode.plan, episode.before
        source = self._get_weights(before)
        removal = LayerWeightRemoval(evaluator.split, densities=plan.densities) if plan.densities else None
        tuned, score = self.builder.learn(
            evaluator.build(plan.widths, self._state_bits(source, plan)), plan.widths, self.steps, LATER_PEAK if before else PEAK,
            target=self.target,
            seed=self.builder.settings.seed + episode.number, dual=before.row["dual"] if before else 0.0, remove=removal,
        )  # fmt: skip
        rounded = score
        if self.bits is not None:
            _, rounded = self.builder.learn(
                tuned.graph, plan.widths, self.rounded_steps, ROUNDED_PEAK, target=self.target,
                seed=self.builder.settings.seed + episode.number, dual=tuned.dual,
                rounding=self.bits.limits.form.rounding,
            )  # fmt: skip
        whole = tuned.graph if removal is None else fill_zero_weights(tuned.graph, removal.unthinned or tuned.graph)
        self.learnt[episode.key] = restore_channels(source, evaluator.plan(plan.widths), whole)
        values = self.monitor.measure(tuned.graph).values
        use = {name: float(values[name] or 0.0) / self.builder.limits[name] for name in self.multipliers}
        return {
            "accuracy": rounded.accuracy, "certainty": rounded.certainty, "by_source": score.by_source, "use": use,
            "dual": tuned.dual,
        }  # fmt: skip

    def _add_row(self, episode: Episode, value: float) -> None:
        row, channels = episode.row, self.builder.evaluator.channels
        synops = sum(row["by_source"].values())
        self.history.append(
            {
                "episode": len(self.history) + 1,
                "proposed": [width / n for width, n in zip(episode.plan.widths, channels, strict=True)],
                "widths": list(episode.plan.widths),
                "densities": dict(episode.plan.densities),
                **({} if self.bits is None else {"bits": dict(episode.plan.bits)}),
                "accuracy": row["accuracy"],
                "certainty": row["certainty"],
                "synops": synops,
                "predicted": synops,
                "reward": value,
                "feasible": episode.feasible,
                "use": dict(row["use"]),
                "multipliers": dict(self.multipliers),
            }
        )
