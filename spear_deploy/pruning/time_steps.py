"""Choice of a network's number of time steps, by short learning.

For each candidate the network is cut to the SynOps budget and learns, all for the same number of batches:

    SynOps of n steps ─► uniform widths ─► weights removed while it learns, towards the budget ─► accuracy on validation

Fewer steps take their part of the budget first, channels and weights the rest. The teacher is the trained network on all its
steps. What is learnt here is dropped: the search and fine-tuning begin anew on the chosen number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BudgetError
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import LEVERS_LEAVE, refuse_budget
from spear_deploy.pruning.candidates import SCORING_SAMPLES, Checkpoint, Evaluator
from spear_deploy.pruning.levers import LEVERS, parse_levers
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.search.recipe_builder import choose_kept_synops
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.short_learning import OVERSHOOT, make_short_recipe
from spear_deploy.pruning.tune.thin_weights import MAX_SHARE, WeightRemoval, zero_weight_share
from spear_deploy.simulator.synops import count_synops
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.digests import hash_value
from spear_deploy.util.number_format import number
from spear_deploy.util.progress import Progress

BATCHES = 90
"""Batches that each candidate learns from."""
NEAR = 1.25
"""Largest SynOps, relative to the budget, at which a candidate's accuracy counts: one that is far from it kept too much."""


@dataclass(frozen=True, kw_only=True)
class StepsChoice:
    """The chosen number of time steps.

    Attributes:
        steps: that the network runs on.
        rows: a row a candidate: steps, SynOps, accuracy and certainty on validation after its batches.
        left_out: a sentence on numbers that were no candidates; empty where all were.
    """

    steps: int
    rows: tuple[dict[str, Any], ...] = ()
    left_out: str = ""

    @property
    def batches(self) -> int:
        """Batches that all candidates learnt from."""
        return sum(row["batches"] for row in self.rows)

    @property
    def notes(self) -> list[str]:
        """A sentence on the candidates, where there was a choice, and one on what was left out."""
        notes = [self.left_out] if self.left_out else []
        if not self.rows:
            return notes
        texts = ", ".join(f"{row['steps']} steps {row['accuracy']:.1%}" for row in self.rows)
        batches = self.rows[0]["batches"]
        return [f"{self.steps} time steps were chosen: after {batches} batches each, on validation, {texts}", *notes]


def choose_steps(
    graph: SNNGraph,
    datasets: Mapping[int, Callable[[], Dataset]],
    settings: PruneSettings,
    *,
    batches: int | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> StepsChoice:
    """Let a network learn on each number of steps for a short time, and return the most accurate, of equals the most certain.

    Args:
        graph: a trained floating-point network.
        datasets: by number of steps what gives the data, with `full`; the most steps are those it was trained on.
        settings: SynOps budget, levers and seed.
        batches: that each candidate learns from; `BATCHES` unless given.
        checkpoint: a file in which measurements are kept.
        progress: is called after each candidate.

    Raises:
        BudgetError: there is no SynOps budget, or all levers together do not reach it; carries the lowest SynOps that they leave.
    """
    if settings.synops is None:
        raise BudgetError("steps: they are chosen by a SynOps budget, and none is given; name one, e.g. --synops 20%")
    numbers, batches = sorted(datasets, reverse=True), BATCHES if batches is None else batches
    whole = datasets[numbers[0]]().trained
    amount = settings.budgets.synops
    assert amount is not None  # it is given
    limit = amount.resolve(evaluate(graph, whole.val.head(SCORING_SAMPLES)).synops.total)
    if len(numbers) == 1 or evaluate(graph, whole.val).synops.total <= limit:
        return StepsChoice(steps=numbers[0])
    levers = LEVERS if settings.levers is None else parse_levers(settings.levers)
    check_reachable(graph, datasets[numbers[-1]](), limit, levers)
    digest = "" if checkpoint is None else hash_value([hash_network(graph), hash_dataset(whole), list(levers)])
    kept = Checkpoint(checkpoint, digest)
    kept.begin()
    hints: list[Array] = []
    rows = []
    for done, steps in enumerate(numbers, 1):
        key = f"steps {steps} budget {limit!r} batches {batches} seed {settings.seed}{settings.rate_key}"

        def learn(steps: int = steps) -> dict[str, Any]:
            if not hints:
                hints.append(score_outputs(graph, whole.train))
            return _learn(graph, datasets[steps](), limit, levers, settings, hints[0], batches)

        rows.append({"steps": steps, **kept.get(key, learn)})
        if progress is not None:
            best = max(row["accuracy"] for row in rows)
            progress({"stage": "steps", "done": done, "of": len(numbers), "accuracy": best})
    best_row = max(rows, key=lambda row: (row["synops"] <= NEAR * limit, row["accuracy"], row["certainty"], -row["steps"]))
    return StepsChoice(steps=best_row["steps"], rows=tuple(rows))


def check_reachable(graph: SNNGraph, dataset: Dataset, limit: float, levers: Sequence[str]) -> None:
    """Check that the levers together can reach a SynOps budget on the fewest time steps.

    Args:
        graph: the trained network.
        dataset: of the fewest time steps.
        limit: SynOps per inference.
        levers: names of levers.

    Raises:
        BudgetError: they leave more; carries the lowest SynOps, and names what each lever leaves.
    """
    evaluator = Evaluator(graph, dataset)
    left = {f"{dataset.steps} time steps": evaluator.dense.synops.total}
    network, measured = graph, evaluator.dense
    if "channels" in levers:
        network = evaluator.build((1,) * len(evaluator.groups))
        measured = evaluate(network, evaluator.split)
        left["and one channel in every layer"] = measured.synops.total
    if "weights" in levers:
        thin = zero_weight_share(network, measured.counts, MAX_SHARE)
        left[f"and {1 - MAX_SHARE:.1%} of the weights"] = count_synops(thin, measured.counts).total
    least = min(left.values())
    if least > limit:
        text = ", ".join(f"{lever} {number(np.ceil(synops))}" for lever, synops in left.items())
        raise refuse_budget("synops", limit, least, "the levers can leave", f"{LEVERS_LEAVE}{text}")


def _learn(
    graph: SNNGraph, dataset: Dataset, limit: float, levers: Sequence[str], settings: PruneSettings, hints: Array, batches: int
) -> dict[str, Any]:
    """Cut a network to a SynOps budget, let it learn on a number of steps, and return what it measures."""
    with limit_threads(graph, learns=True):
        evaluator = Evaluator(graph, dataset, device=settings.search_settings.device)
        dense = evaluator.dense.synops.total
        share = 0.0 if "channels" not in levers else 0.5 if "weights" in levers else 1.0
        target = max(dense * min(1.0, limit / max(dense, 1e-12)) ** share, OVERSHOOT * limit)
        ones = (1,) * len(evaluator.groups)
        widths = project_ratios(ones, evaluator.channels, ones, lambda widths: evaluator.estimate(widths) <= target)
        by_source = evaluator.estimate_by_source(widths)
        left = limit / max(sum(by_source.values()), 1e-12)
        removal = None
        if "weights" in levers and left < 1:
            removal = WeightRemoval(evaluator.split, choose_kept_synops(left, by_source))
        recipe = make_short_recipe(
            batches, len(dataset.train), peak=settings.peak, seed=settings.seed, synops_budget=OVERSHOOT * limit,
            keeps_zeros=True, device=settings.search_settings.device,
        )  # fmt: skip
        tuned = fit(evaluator.build(widths), dataset, recipe, hints=hints, remove=removal)
    assert tuned.last is not None  # it was not interrupted
    last = tuned.last
    return {"synops": last.synops, "accuracy": last.accuracy, "certainty": last.certainty, "batches": tuned.batches}
