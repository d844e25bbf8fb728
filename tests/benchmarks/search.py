"""Search benchmark: accuracy at equal SynOps, budgets and cost of all methods.

    python -m tests.benchmarks.search --tasks digits,mnist,nmnist,cifar --methods all --budgets 70,50,35,20 --seeds 0,1,2
    python -m tests.benchmarks.search --parts estimator,ladder,speed --out results
    python -m tests.benchmarks.search --parts tables --out results --docs docs/benchmarks

One JSON file a run; existing files are skipped, so the command may be stopped and started again (`--minutes` stops it). All
choices are made on validation; the test split is measured once, after the run. `uniform+40`, `random+40` and `spear+40` are
controls: fine-tuned for at least 40 batches more, as many as the finalists of the default's successive halving.
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
from spear_deploy.pruning.candidates import Evaluator
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.search.settings import METHODS, default_settings
from spear_deploy.pruning.search.successive_halving import tune_finalist
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.evaluation import Evaluation, evaluate, quick_evaluate
from spear_deploy.training.fit import fit, train
from spear_deploy.util.files import write_json
from tests.benchmarks.search_speed import speed
from tests.benchmarks.search_tables import write_tables
from tests.benchmarks.search_tasks import TASKS, Task

STUDY_SAMPLES = 110
"""Fine-tuned plans of the study of estimators: up to 100 to fit from, the others to predict."""
HALVING_PLANS, HALVING_STEPS = 18, (10, 30, 60)


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
    """Prune to a share of the SynOps (%), and measure the result on the test split."""
    plain, _, more = method.partition("+")
    details, epochs = default_settings(plain), task.tune_epochs
    epochs += -(-int(more or 0) * 64 // len(data.train))
    details = replace(details, episodes=min(task.episodes, details.episodes))
    settings = PruneSettings(synops=f"{budget}%", method=plain, seed=seed, epochs=epochs, search=details)
    begin = time.perf_counter()
    facts = {"task": name, "method": method, "budget": budget, "seed": seed, "settings": asdict(details)}
    try:
        pruned = prune_to_budget(dense, data, settings)
    except BudgetError as error:
        return {**facts, "error": str(error)}
    seconds = time.perf_counter() - begin
    after = evaluate(pruned.graph, data.test)
    search = pruned.search
    return {
        **facts,
        "dense_accuracy": before.accuracy,
        "accuracy": after.accuracy,
        "val_accuracy": pruned.accuracy,
        "search_accuracy": search.score.accuracy if search else None,
        "synops": after.synops.total,
        "share": after.synops.total / (budget / 100 * before.synops.total),
        "margin": pruned.margin,
        "met": pruned.met,
        "evaluations": search.evaluations if search else 0,
        "seconds": {**pruned.seconds, "all": seconds},
        "widths": pruned.widths,
        "notes": pruned.notes,
        "rungs": search.rounds if search else (),
        "best_by_evaluation": best_so_far(search.history if search else ()),
    }


def best_so_far(history: Any) -> list[float]:
    """Return the accuracy of the best feasible plan after each proposal."""
    best, accuracies = 0.0, []
    for row in history:
        best = max(best, row["accuracy"] if row["feasible"] else 0.0)
        accuracies.append(best)
    return accuracies


# ------------------------------------------------------------------------------------------------------------ studies


def make_problem(dense: SNNGraph, data: Dataset, share: float, seed: int) -> Problem:
    evaluator = Evaluator(dense, data)
    limits = Budgets(synops=Amount(value=share, relative=True)).resolve(evaluator.dense_use())
    return Problem(evaluator, limits, default_settings("random"), seed=seed)


def study_estimator(task: Task, name: str, seed: int, data: Dataset, dense: SNNGraph, samples: int) -> dict[str, Any]:
    """Fine-tune random plans of all budgets, and keep SynOps by layer before and after."""
    problem = make_problem(dense, data, 0.5, seed)
    evaluator, rng = problem.evaluator, np.random.default_rng([7, seed])
    rows = []
    for _ in range(samples):
        ratios = rng.uniform(0.2, 1.0, len(evaluator.groups)).tolist()
        limit = rng.uniform(0.2, 0.9) * evaluator.dense.synops.total
        widths = project_ratios(ratios, evaluator.channels, problem.min_widths, lambda w, s=limit: evaluator.estimate(w) <= s)
        before = evaluator.score(widths)
        after = problem.tune(widths, problem.make_recipe(epochs=1))
        rows.append({"widths": list(widths), "before": before.by_source, "after": after["by_source"]})
    dense_by_source = evaluator.estimate_by_source(evaluator.channels)
    return {"task": name, "seed": seed, "dense": dense_by_source, "samples": rows}


def study_halving(task: Task, name: str, seed: int, data: Dataset, dense: SNNGraph, plans: int) -> dict[str, Any]:
    """Measure random plans at 20 % in every round of halving, and on the test split after the full fine-tuning."""
    problem = make_problem(dense, data, 0.2, seed)
    rng = np.random.default_rng([8, seed])
    rows = []
    for _ in range(plans):
        widths, score = problem.scale_into_budget(tuple(rng.uniform(0.2, 1.0, len(problem.evaluator.groups))))
        rungs = {"0": {"accuracy": score.accuracy, "certainty": score.certainty}}
        for steps in HALVING_STEPS:
            rungs[str(steps)] = tune_finalist(problem, widths, steps)
        final = problem.make_recipe(epochs=task.tune_epochs + 2, synops_budget=problem.limits["synops"])
        tuned = fit(problem.evaluator.build(widths), data, final).graph
        test = quick_evaluate(to_norse(tuned).eval(), tuned, data.test)
        rungs["test"] = {"accuracy": test.accuracy, "certainty": test.certainty}
        rows.append({"widths": list(widths), "rungs": rungs})
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

    def halving(self, plans: int) -> dict[str, Any]:
        return study_halving(self.task, self.name, self.seed, self.data, self.dense, plans)

    def speed(self) -> dict[str, Any]:
        return {"task": self.name, **speed(self.data, self.dense)}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Path, Callable[[], dict[str, Any]]]]:
    """Yield (path, function that returns its content), seed by seed, so that tables fill evenly."""
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
            yield out / "ladder" / f"{name}-{seed}.json", partial(ground.halving, args.plans)
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
    parser.add_argument("--plans", type=int, default=HALVING_PLANS)
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
