"""Which searcher is best at equal cost, and does the budget hold? Runs everything, writes JSON and tables; resumes.

    python -m tests.benchmarks.search --tasks digits,mnist,nmnist,cifar --methods all --budgets 70,50,35,20 --seeds 0,1,2
    python -m tests.benchmarks.search --parts estimator,ladder,speed --out results
    python -m tests.benchmarks.search --parts tables --out results --docs docs/benchmarks

One JSON file a run; what exists is skipped, so the command may be stopped and started at will (`--minutes` stops it). All
choices are made on validation; the test split states results and is touched once, after the run. `uniform+40`, `random+40` and
`spear+40` are controls: fine-tuned for at least 40 batches more, as many as what climbs the default's ladder has learnt before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import BudgetError
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network.graph import SNNGraph
from spear_deploy.norse.network import to_norse
from spear_deploy.pruning.budgets import Amount, Budgets
from spear_deploy.pruning.candidates import Scorer
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.projection import project
from spear_deploy.pruning.search.settings import METHODS, settings_for
from spear_deploy.pruning.search.successive_halving import rung_score
from spear_deploy.training.evaluation import Evaluation, evaluate, quick_evaluate
from spear_deploy.training.fit import Recipe, fit, train
from spear_deploy.util.files import write_json
from tests.benchmarks.search_speed import speed
from tests.benchmarks.search_tables import write_tables
from tests.benchmarks.search_tasks import TASKS, Task

STUDY_SAMPLES = 110
"""Fine-tuned plans of the study of estimators: up to 100 to learn from, and what is left to be predicted is never learnt from."""
LADDER_PLANS, LADDER_STEPS = 18, (10, 30, 60)


def dense_network(task: Task, name: str, seed: int, data: Dataset, out: Path) -> SNNGraph:
    """Return the trained network of a task and seed, trained once."""
    path = out / "dense" / f"{name}-{seed}.snn"
    if not path.exists():
        begin = time.perf_counter()
        write_snn(train(task.network(seed), data, epochs=task.train_epochs, seed=seed), path)
        print(f"{name} seed {seed}: trained in {time.perf_counter() - begin:.0f} s", flush=True)
    return read_snn(path)


def run(
    task: Task, name: str, method: str, budget: float, seed: int, data: Dataset, dense: SNNGraph, before: Evaluation
) -> dict[str, Any]:
    """Prune to a share of the SynOps, and hold the result against the test split."""
    plain, _, more = method.partition("+")
    settings, epochs = settings_for(plain), task.tune_epochs
    epochs += -(-int(more or 0) * 64 // len(data.train))
    settings = replace(settings, episodes=min(task.episodes, settings.episodes))
    begin = time.perf_counter()
    facts = {"task": name, "method": method, "budget": budget, "seed": seed, "settings": asdict(settings)}
    try:
        found = prune_to_budget(
            dense, data, synops_budget=f"{budget}%", method=plain, seed=seed, epochs=epochs, settings=settings
        )  # fmt: skip
    except BudgetError as error:
        return {**facts, "error": str(error)}
    seconds = time.perf_counter() - begin
    after = evaluate(found.graph, data.test)
    own = found.search
    return {
        **facts,
        "dense_accuracy": before.accuracy,
        "accuracy": after.accuracy,
        "val_accuracy": found.accuracy,
        "search_accuracy": own.score.accuracy if own else None,
        "synops": after.synops.total,
        "share": after.synops.total / (budget / 100 * before.synops.total),
        "margin": found.margin,
        "met": found.met,
        "evaluations": own.evaluations if own else 0,
        "seconds": {**found.seconds, "all": seconds},
        "widths": found.widths,
        "notes": found.notes,
        "rungs": own.rungs if own else (),
        "best_by_evaluation": best_so_far(own.history if own else ()),
    }


def best_so_far(history: Any) -> list[float]:
    """Return the accuracy of the best feasible plan after each proposal."""
    best, found = 0.0, []
    for row in history:
        best = max(best, row["accuracy"] if row["feasible"] else 0.0)
        found.append(best)
    return found


# ------------------------------------------------------------------------------------------------------------ studies


def problem_for(dense: SNNGraph, data: Dataset, share: float) -> Problem:
    scorer = Scorer(dense, data)
    limits = Budgets(synops=Amount(value=share, relative=True)).limits(scorer.dense_values())
    return Problem(scorer, limits, settings_for("random"))


def study_estimator(task: Task, name: str, seed: int, data: Dataset, dense: SNNGraph, samples: int) -> dict[str, Any]:
    """Fine-tune random plans of all budgets, and keep SynOps by layer before and after."""
    problem = problem_for(dense, data, 0.5)
    rng = np.random.default_rng([7, seed])
    rows = []
    for _ in range(samples):
        ratios = rng.uniform(0.2, 1.0, len(problem.scorer.groups)).tolist()
        limit = rng.uniform(0.2, 0.9) * problem.scorer.dense.synops.total
        widths = project(ratios, problem.scorer.channels, problem.least, lambda w, s=limit: problem.scorer.estimate(w) <= s)
        before = problem.scorer.score(widths)
        after = problem.tuned(widths, Recipe(epochs=1, warm_up=0.1), seed)
        rows.append({"widths": list(widths), "before": before.by_source, "after": after["by_source"]})
    dense_by_source = problem.scorer.estimate_by_source(problem.scorer.channels)
    return {"task": name, "seed": seed, "dense": dense_by_source, "samples": rows}


def study_ladder(task: Task, name: str, seed: int, data: Dataset, dense: SNNGraph, plans: int) -> dict[str, Any]:
    """Measure random plans at 20 % on every rung, and on the test split after the full fine-tuning."""
    problem = problem_for(dense, data, 0.2)
    rng = np.random.default_rng([8, seed])
    rows = []
    for _ in range(plans):
        widths, score = problem._into_budget(tuple(rng.uniform(0.2, 1.0, len(problem.scorer.groups))))
        found = {"0": {"accuracy": score.accuracy, "certainty": score.certainty}}
        for steps in LADDER_STEPS:
            found[str(steps)] = rung_score(problem, widths, steps, seed)
        final = Recipe(epochs=task.tune_epochs + 2, warm_up=0.1)
        tuned = fit(problem.scorer.candidate(widths), data, final, seed=seed, synops_budget=problem.limits["synops"]).graph
        test = quick_evaluate(to_norse(tuned).eval(), tuned, data.test)
        found["test"] = {"accuracy": test.accuracy, "certainty": test.certainty}
        rows.append({"widths": list(widths), "rungs": found})
    return {"task": name, "seed": seed, "plans": rows}


# --------------------------------------------------------------------------------------------------------------- main


@dataclass
class Ground:
    """Data and trained network of a task and seed, made when first needed."""

    name: str
    seed: int
    out: Path

    @property
    def task(self) -> Task:
        return TASKS[self.name]

    @cached_property
    def data(self) -> Dataset:
        return self.task.data(self.seed)

    @cached_property
    def dense(self) -> SNNGraph:
        return dense_network(self.task, self.name, self.seed, self.data, self.out)

    @cached_property
    def before(self) -> Evaluation:
        return evaluate(self.dense, self.data.test)

    def run(self, method: str, budget: float) -> dict[str, Any]:
        return run(self.task, self.name, method, budget, self.seed, self.data, self.dense, self.before)

    def estimator(self, samples: int) -> dict[str, Any]:
        return study_estimator(self.task, self.name, self.seed, self.data, self.dense, samples)

    def ladder(self, plans: int) -> dict[str, Any]:
        return study_ladder(self.task, self.name, self.seed, self.data, self.dense, plans)

    def speed(self) -> dict[str, Any]:
        return {"task": self.name, **speed(self.data, self.dense)}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Path, Callable[[], dict[str, Any]]]]:
    """Yield (path, what makes it) in an order in which tables fill evenly: seed by seed."""
    parts, seeds, out = args.parts.split(","), [int(seed) for seed in args.seeds.split(",")], args.out
    methods = METHODS if args.methods == "all" else args.methods.split(",")
    for seed, name in product(seeds, args.tasks.split(",")):
        ground = Ground(name, seed, out)
        if "runs" in parts:
            for budget, method in product(map(float, args.budgets.split(",")), methods):
                yield out / "runs" / f"{name}-{method}-{budget:g}-{seed}.json", partial(ground.run, method, budget)
        if "estimator" in parts:
            yield out / "estimator" / f"{name}-{seed}.json", partial(ground.estimator, args.samples)
        if "ladder" in parts:
            yield out / "ladder" / f"{name}-{seed}.json", partial(ground.ladder, args.plans)
        if "speed" in parts and seed == seeds[0]:
            yield out / "speed" / f"{name}.json", ground.speed


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default="all")
    parser.add_argument("--budgets", default="70,50,35,20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--parts", default="runs,estimator,ladder,speed,tables")
    parser.add_argument("--samples", type=int, default=STUDY_SAMPLES)
    parser.add_argument("--plans", type=int, default=LADDER_PLANS)
    parser.add_argument("--minutes", type=float, default=1e9, help="Start no run after so many minutes.")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, help="Write tables, raw data and picture here, e.g. docs/benchmarks.")
    args = parser.parse_args()
    begin = time.monotonic()
    for path, work in jobs(args):
        if path.exists():
            continue
        if time.monotonic() - begin > 60 * args.minutes:
            print("time is up; the same command goes on from here", flush=True)
            break
        begun = time.monotonic()
        write_json(path, work())
        print(f"{path.relative_to(args.out)}: {time.monotonic() - begun:.0f} s", flush=True)
    if "tables" in args.parts.split(","):
        print(write_tables(args.out, args.docs))


if __name__ == "__main__":
    main()
