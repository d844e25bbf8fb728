"""Successive halving of the best plans over short fine-tunes.

The score right after batch norm is re-estimated is cheap, and a poor guide where plans are close. So the best plans, the
finalists, are fine-tuned at the budget for some batches; a third of them goes on to the next round, for more batches. What the
winner has learnt in the last round is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from spear_deploy.pruning.candidates import Score, Widths
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.training.recipe import Recipe

KEPT_SHARE = 1 / 3
T = TypeVar("T")


def halve(problem: Problem) -> list[dict[str, Any]]:
    """Halve the best plans round by round, make the winner the best of the problem, and return a row for each plan and round."""
    rows: list[dict[str, Any]] = []
    finalists = choose_finalists(problem, problem.settings.finalists)
    objective = problem.settings.objective
    for number, steps in enumerate(problem.settings.rounds, 1):
        if len(finalists) < 2:
            break
        ranked: list[tuple[float, Score]] = []
        problem.tune_ahead([score.widths for score in finalists], _make_recipe(problem, steps), f"halving, round {number}")
        for i, score in enumerate(finalists):
            measured = tune_finalist(problem, score.widths, steps)
            ranked.append((measured[objective], score))
            values = {name: measured[name] for name in ("accuracy", "certainty")}
            rows.append({"rung": number, "steps": steps, "widths": list(score.widths), **values})
            best_accuracy = max(row["accuracy"] for row in rows if row["rung"] == number)
            problem.report_progress(f"halving, round {number}", i + 1, len(finalists), accuracy=best_accuracy)
        finalists = keep_best(ranked)
        winner = finalists[0]
        problem.best = ((1.0, getattr(winner, objective), problem.predict(winner)), winner)
        problem.network = problem.tuned_network(winner.widths, _make_recipe(problem, steps))
        problem.tuned_networks.clear()
    return rows


def keep_best(ranked: Sequence[tuple[float, T]], share: float = KEPT_SHARE) -> list[T]:
    """Return a share of the candidates, those with the highest values, the best first, at least one; of equals the first.

    >>> keep_best([(0.5, "a"), (0.9, "b"), (0.9, "c"), (0.1, "d")])
    ['b']
    """
    best = sorted(ranked, key=lambda pair: -pair[0])
    return [candidate for _, candidate in best[: max(1, round(share * len(best)))]]


def tune_finalist(problem: Problem, widths: Widths, steps: int) -> dict[str, Any]:
    """Fine-tune a plan for some batches towards the SynOps budget, and return its measurements on validation."""
    return problem.tune(widths, _make_recipe(problem, steps))


def _make_recipe(problem: Problem, steps: int) -> Recipe:
    batches = max(1, len(problem.evaluator.dataset.train) // 64)
    return problem.make_recipe(epochs=-(-steps // batches), steps=steps, synops_budget=problem.limits.get("synops"))


def choose_finalists(problem: Problem, count: int) -> list[Score]:
    """Return the feasible plans with the highest reward, without repeats, and among them the first that was proposed.

    Evolution proposes one ratio for all layers first. Before fine-tuning that plan often looks worse than it becomes.
    """
    feasible = [row for row in problem.history if row["feasible"]]
    rows = sorted(feasible, key=lambda row: -row["reward"])
    plans = list(dict.fromkeys(tuple(row["widths"]) for row in rows))
    first = plans[:count] if not feasible or len(plans) <= count else [*plans[: count - 1], tuple(feasible[0]["widths"])]
    return [problem.evaluator.score(widths) for widths in dict.fromkeys(first)]
