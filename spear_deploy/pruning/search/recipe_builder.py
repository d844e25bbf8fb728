"""Recipes: widths and weights for a share of the budget each.

A budget b (SynOps, relative to the trained network's) is a product of what the levers leave. A recipe gives channels the share
c as an exponent, weights a share of what is left, and the price on SynOps the rest:

    channels   b^c             uniform widths
    weights    b^(w (1−c))     weights of least magnitude per spike that arrives become zero while the network learns
    rates      b^((1−w)(1−c))  the price on SynOps, by the end of the same learning

Without a budget of SynOps a network has to fit a chip. Where that stores and counts no weight of zero, channels are narrowed by
the share c of what they alone would have to lose, as an exponent too, and weights are removed until the chip holds the rest; c is
the first of `FIT_SHARES` for which that is enough.

No price lowers the spikes of the input, so weights also take the rates' share of the SynOps that the input causes
(`choose_kept_synops`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spear_deploy.errors import BudgetError
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, LEVERS_LEAVE, refuse_budget
from spear_deploy.pruning.candidates import Evaluator, Score, Widths
from spear_deploy.pruning.chip_costs import ChipCosts, describe_rows, max_use
from spear_deploy.pruning.plan import prune
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.short_learning import OVERSHOOT, make_short_recipe
from spear_deploy.pruning.tune.fit_weights import ChipWeightRemoval, find_cuts
from spear_deploy.pruning.tune.thin_weights import MAX_SHARE, WeightRemoval, thin_most
from spear_deploy.quantize.rounding import RoundNetwork
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Fit, Recipe
from spear_deploy.util.number_format import number

WEIGHT_SHARE = 0.6
"""Share of the exponent that channels leave which weights take. The rest is left to firing rates, which the price lowers in any
case; where they alone have to fall, accuracy is lost."""
FIT_SHARES = ((0.0, 0.25), (0.5, 0.0), (0.75, 0.0))
"""Shares of what channels alone would lose which they lose where weights are removed too, to fit a chip, each with the least
share of its weights that a layer has to keep. Limits of synapses say nothing of channels, so weights alone come first; where too
few of them would stay, channels go half way, as for SynOps."""
LATER_PEAK = 5e-3
"""Learning rate of a network that learns on after its first short learning."""
SEARCH_SHARE = 0.25
"""Share of all batches that a search learns from, taken off fine-tuning."""
MIN_BATCHES = 4
"""Of a short learning."""


@dataclass
class RecipeBuilder:
    """Builds recipes of one network for one budget, and lets networks learn for a short time.

    Attributes:
        evaluator: of the network before pruning.
        settings: of pruning.
        limits: by resource, in its unit.
        hints: scores by class of the network before pruning on the training split.
    """

    evaluator: Evaluator
    settings: PruneSettings
    limits: dict[str, float]
    hints: Array

    def with_chip(self, chip: ChipCosts) -> RecipeBuilder:
        """Return the builder of the same network with other costs on the chip, e.g. with fewer bits."""
        return replace(self, evaluator=self.evaluator.with_chip(chip))

    def count_search_batches(self) -> int:
        """Return the batches that a search may learn from: `SEARCH_SHARE` of those of the whole fine-tuning."""
        return round(SEARCH_SHARE * Recipe(epochs=self.settings.epochs).count_batches(len(self.evaluator.dataset.train)))

    @cached_property
    def narrowest(self) -> tuple[SNNGraph, Evaluation]:
        """The network with one channel in each group, and its run on validation."""
        narrow = self.evaluator.build((1,) * len(self.evaluator.groups))
        return narrow, evaluate(narrow, self.evaluator.split)

    def check_reachable(self, shares: Sequence[float]) -> None:
        """Check that the levers of the recipes together can reach the SynOps budget.

        Raises:
            BudgetError: they leave more; carries the lowest SynOps, and names what each lever leaves.
        """
        if "synops" not in self.limits or max(shares) == 1 == min(shares):
            return  # of channels alone the widths say it
        evaluator = self.evaluator
        narrow, narrowest = self.narrowest
        left = {
            "one channel in every layer": narrowest.synops.total,
            f"{1 - MAX_SHARE:.1%} of the weights": thin_most(evaluator.graph, evaluator.dense),
            "both": thin_most(narrow, narrowest),
        }
        names = list(left) if max(shares) > 0 else [list(left)[1]]
        least, limit = min(left[name] for name in names), self.limits["synops"]
        if least > limit:
            text = ", ".join(f"{lever} {number(np.ceil(synops))}" for lever, synops in left.items())
            raise refuse_budget("synops", limit, least, "the levers can leave", f"{LEVERS_LEAVE}{text}")

    def choose_widths(self, share: float) -> Widths:
        """Return uniform widths within the channels' share of the SynOps, and within all limits of size.

        Where layers cannot go that narrow they are as narrow as they can be, and weights take the rest.

        Raises:
            BudgetError: one channel in each group exceeds them.
        """
        limits = {name: value for name, value in self.limits.items() if name != "synops"}
        target = self._synops_after_channels(share)
        if share > 0 and target is not None:
            limits["synops"] = target if share == 1 else max(target, self.narrowest[1].synops.total)
        if not limits and not self.settings.fit:
            return self.evaluator.channels
        problem = self.make_problem(limits)
        problem.check_reachable()
        widths, _ = problem.scale_into_budget(tuple(1.0 for _ in self.evaluator.groups))
        return widths

    def choose_fit(self, share: float) -> tuple[Widths, WeightRemoval | None]:
        """Return widths with which the chip holds the network, and the removal of weights that this needs besides.

        Args:
            share: 0 narrows no channels, 1 removes no weights.

        Raises:
            BudgetError: neither channels nor both make the network fit.
        """
        evaluator, error = self.evaluator, None
        alone: Widths = (1,) * len(evaluator.groups)
        try:
            alone = self.choose_widths(1.0)
        except BudgetError as failed:
            error = failed
        last = () if error is None else ((1.0, 0.0),)
        for each, least in {0.0: ((0.0, 0.0),), 1.0: ()}.get(share, (*FIT_SHARES, *last)):
            pairs = zip(evaluator.channels, alone, strict=True)
            widths = tuple(max(1, round(whole ** (1 - each) * narrow**each)) for whole, narrow in pairs)
            removal = self._remove_to_fit(widths, least)
            if removal is not None:
                return widths, removal
        if share == 0:
            raise BudgetError(
                "levers: weights alone do not make this network fit the chip; name channels too (`--levers channels,weights`)"
            )
        chip = evaluator.chip
        if error is not None and share < 1 and chip is not None and (over := evaluator.place(alone)[1]):
            raise BudgetError(
                f"chip '{chip.profile.name}': neither fewer channels nor fewer weights make this network fit; with one channel "
                f"left in every layer it exceeds {describe_rows(over)}; take a larger chip, or several"
            )
        if error is not None:
            raise error
        return alone, None

    def _remove_to_fit(self, widths: Widths, least: float) -> WeightRemoval | None:
        """Return the removal of weights with which the chip holds a plan, and layers keep a share of them; None without one."""
        evaluator = self.evaluator
        if self.limits and max_use(evaluator.sizes(widths), self.limits) > 1:
            return None
        assert evaluator.chip is not None  # the network has to fit it
        cuts = find_cuts(prune(evaluator.graph, evaluator.plan(widths)), evaluator.chip)
        if not cuts or min(cut.kept for cut in cuts) < least:
            return None
        return ChipWeightRemoval(evaluator.split, chip=evaluator.chip, cuts=cuts)

    @property
    def fits_by_weights(self) -> bool:
        """Whether weights may be removed for the chip's own limits: no budget of activity has them removed for itself."""
        active = {name for name in self.limits if name in ACTIVE and name != "step_load"}
        return self.settings.budgets.fit and self.evaluator.chip is not None and not active

    def make_problem(self, limits: dict[str, float]) -> Problem:
        """Return the problem of finding widths within limits, which hold exactly."""
        details = replace(self.settings.search_settings, overshoot=0.0, confidence=0.0)
        return Problem(self.evaluator, limits, details, seed=self.settings.seed, fit=self.settings.budgets.fit)

    def _synops_after_channels(self, share: float) -> float | None:
        """Return the SynOps that channels are narrowed to: dense · (budget / dense)^share, at least `OVERSHOOT` budgets."""
        if "synops" not in self.limits:
            return None
        dense = self.evaluator.dense.synops.total
        return float(max(dense * (self.limits["synops"] / dense) ** share, OVERSHOOT * self.limits["synops"]))

    def make_removal(self, share: float, widths: Widths, weights: float = WEIGHT_SHARE) -> WeightRemoval | None:
        """Return the removal of weights of a recipe; None where channels are enough.

        Args:
            share: that channels get.
            widths: of the recipe.
            weights: share that weights get of what is left to remove at these widths, by estimate.
        """
        if share == 1 or "synops" not in self.limits:
            return None
        by_source = self.evaluator.estimate_by_source(widths)
        left = self.limits["synops"] / max(sum(by_source.values()), 1e-12)
        return None if left >= 1 else WeightRemoval(self.evaluator.split, choose_kept_synops(left, by_source, weights))

    def list_widths(self, widths: Widths) -> dict[str, tuple[int, int]]:
        """Return {group: (channels before, after)}."""
        names = [group.name for group in self.evaluator.groups]
        return dict(zip(names, zip(self.evaluator.channels, widths, strict=True), strict=True))

    def learn(
        self, graph: SNNGraph, widths: Widths, steps: int, peak: float, *,
        target: float | None = None, seed: int | None = None, dual: float = 0.0,
        remove: WeightRemoval | None = None, rounding: RoundNetwork | None = None,
    ) -> tuple[Fit, Score]:  # fmt: skip
        """Learn for some batches towards the SynOps budget, and return what was learnt, and its score.

        Args:
            graph: the start.
            widths: its channels, by group.
            steps: batches.
            peak: learning rate, which that of the settings scales.
            target: SynOps per inference; the budget and `OVERSHOOT` unless given.
            seed: order of the samples; that of the settings unless given.
            dual: of the price on SynOps at the start.
            remove: removes weights meanwhile.
            rounding: of the chip's integers, which the network learns with.
        """
        train, settings = len(self.evaluator.dataset.train), self.settings
        recipe = make_short_recipe(
            max(steps, 1), train, peak=settings.rate_scale * peak, seed=settings.seed if seed is None else seed, dual=dual,
            keeps_zeros=True,
            synops_budget=OVERSHOOT * self.limits["synops"] if target is None and "synops" in self.limits else target,
            device=settings.search_settings.device,
        )  # fmt: skip
        tuned = fit(graph, self.evaluator.dataset, recipe, hints=self.hints, rounding=rounding, remove=remove)
        assert tuned.last is not None  # it was not interrupted
        self.evaluator.evaluations += 1
        last = tuned.last
        score = Score(
            widths=widths, accuracy=last.accuracy, certainty=last.certainty, by_source=last.by_source, activity={}
        )  # fmt: skip
        return tuned, score


def choose_kept_synops(left: float, by_source: Mapping[str, float], weights: float = WEIGHT_SHARE) -> float:
    """Return the share of the SynOps that weights keep at unchanged spikes, so that rates can do the rest.

    Of the SynOps S, neurons cause the share f and the spikes of the input 1 − f. Removal of weights leaves the share k of both.
    Lower firing rates leave the share r = left^(1 − weights) of what neurons cause, and all of what the input causes:

        left · S = k · ((1 − f) + f · r) · S        so        k = left / ((1 − f) + f · left^(1 − weights))

    Where neurons cause all, k = left^weights. Where the input causes all, k = left.

    Args:
        left: what weights and rates leave together, relative to S, above 0 and below 1.
        by_source: the SynOps S by the layer whose spikes cause them, `INPUT` among them, before weights are removed.
        weights: share of the exponent that weights get.

    Returns:
        k, at least 1 − `MAX_SHARE`.

    >>> round(choose_kept_synops(0.25, {"hidden": 8.0}, 0.5), 3), round(choose_kept_synops(0.25, {"input": 8.0}, 0.5), 3)
    (0.5, 0.25)
    >>> round(choose_kept_synops(0.25, {"input": 4.0, "hidden": 4.0}, 0.5), 3)
    0.333
    """
    by_neurons = sum(synops for source, synops in by_source.items() if source != INPUT) / sum(by_source.values())
    return max(left / (1 - by_neurons + by_neurons * left ** (1 - weights)), 1 - MAX_SHARE)
