"""Which of the best plans becomes the best network? Successive halving over short fine-tunes.

What a candidate can do right after batch norm is re-estimated is the lowest rung: cheap, and a poor guide where plans are
close. The best climb on: each is fine-tuned at the budget for some batches, a third goes on, for longer. What the winner has
learnt on the last rung is kept.
"""

from __future__ import annotations

from typing import Any

from spear_deploy.pruning.candidates import Score, Widths
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.training.fit import Recipe

KEPT = 1 / 3


def climb(problem: Problem, seed: int) -> list[dict[str, Any]]:
    """Let the best plans climb, make the winner the best of the problem, and return a row for each plan and rung."""
    rows: list[dict[str, Any]] = []
    living = best_plans(problem, problem.settings.climbers)
    for rung, steps in enumerate(problem.settings.ladder, 1):
        if len(living) < 2:
            break
        tuned = []
        for i, score in enumerate(living):
            found = rung_score(problem, score.widths, steps, seed)
            tuned.append((found[problem.settings.objective], -i, score))
            seen = {name: found[name] for name in ("accuracy", "certainty")}
            rows.append({"rung": rung, "steps": steps, "widths": list(score.widths), **seen})
            problem.tell(f"rung {rung}", i + 1, len(living), accuracy=max(row["accuracy"] for row in rows if row["rung"] == rung))
        tuned.sort(key=lambda one: one[:2], reverse=True)
        living = [score for *_, score in tuned[: max(1, round(KEPT * len(tuned)))]]
        best = living[0]
        problem.best = ((1.0, getattr(best, problem.settings.objective), problem.predicted(best)), best)
        problem.network = problem.tuned_network(best.widths, *_terms(problem, steps, seed))
        problem.learnt.clear()
    return rows


def rung_score(problem: Problem, widths: Widths, steps: int, seed: int) -> dict[str, Any]:
    """Fine-tune a plan for some batches towards the SynOps budget, and return what validation says of it."""
    return problem.tuned(widths, *_terms(problem, steps, seed))


def _terms(problem: Problem, steps: int, seed: int) -> tuple[Recipe, int, float | None]:
    batches = max(1, len(problem.scorer.dataset.train) // 64)
    return Recipe(epochs=-(-steps // batches), steps=steps, warm_up=0.1), seed, problem.limits.get("synops")


def best_plans(problem: Problem, count: int) -> list[Score]:
    """Return the feasible plans with the highest reward, each once, and among them the first that was proposed.

    Evolution proposes one ratio for all layers first. Before fine-tuning that often looks worse than it turns out.
    """
    feasible = [row for row in problem.history if row["feasible"]]
    rows = sorted(feasible, key=lambda row: -row["reward"])
    plans = list(dict.fromkeys(tuple(row["widths"]) for row in rows))
    first = plans[:count] if not feasible or len(plans) <= count else [*plans[: count - 1], tuple(feasible[0]["widths"])]
    plans = list(dict.fromkeys(first))
    return [problem.scorer.score(widths) for widths in plans]
