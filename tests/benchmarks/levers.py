"""Levers benchmark: channels, weights and recipes at equal learning, on digits.

    python -m tests.benchmarks.levers --out results/levers
    python -m tests.benchmarks.levers --out results/levers --docs docs/benchmarks

A row is one network, budget and seed. The method `recipe` runs first; every other method gets at least as many batches in all:
the epochs of its fine-tuning are raised until its own search and fine-tuning have as many. One JSON file a run; existing files
are skipped, so the command may be stopped and started again. All choices are made on validation; the test split is measured once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.settings import RECIPE
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.files import write_json
from tests.benchmarks.search import Ground

METHODS: dict[str, dict[str, Any]] = {
    "recipe": {"method": RECIPE, "levers": "channels,weights"},
    "weights": {"method": RECIPE, "levers": "weights"},
    "uniform": {"method": "uniform"},
}
EPOCHS = 5
"""Epochs of the first fine-tuning after the search of recipes."""
BATCH = 64


LIMITS = """**What this does not show.** One small network of plain convolutions, two seeds and 360 test samples: a sample is
0.3 points, and differences below about two points are chance. Recurrent and residual networks, other budgets and longer learning
are not measured here, so the default method does not follow from this table. `recipe` pays for three recipes and learns on with
one; the others spend all their batches on one. Whether a chip saves the SynOps of zero weights is said by its profile, not by
this count."""


def run(ground: Ground, name: str, budget: float, batches: int) -> dict[str, Any]:
    """Prune with a method that learns from at least so many batches in all, and measure the result on the test split."""
    an_epoch = -(-len(ground.data.train) // BATCH)
    search = {"recipe": 0, "weights": 90, "uniform": 2 * an_epoch}[name]  # batches of each method's own search
    epochs = max(EPOCHS, -(-(batches - search) // an_epoch))
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
        "recipes": [
            {key: row[key] for key in ("recipe", "accuracy", "certainty", "synops")} for row in facts["search"] if "recipe" in row
        ],
        "zeros": next((note for note in pruned.notes if note.endswith("weights are zero")), ""),
        "seconds": time.perf_counter() - begin, "notes": pruned.notes,
    }  # fmt: skip


def write_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: accuracy, SynOps and batches of each run, and the mean differences."""
    seeds = sorted({row["seed"] for row in rows})
    cells = sorted({(row["task"], -row["budget"], row["seed"]) for row in rows})
    lines = [
        "# Levers at equal learning", "",
        f"{len(rows)} runs of `python -m tests.benchmarks.levers`: digits, seeds {', '.join(map(str, seeds))}.",
        "Each seed has a network and a validation split of its own. Test accuracy, per cent; in brackets batches in all (search",
        "and fine-tuning) and the share of the SynOps budget that is used on the test split. Every method has at least as many",
        "batches as `recipe`. Raw data: [levers.json](levers.json).", "",
        "| task | budget | seed | dense | " + " | ".join(METHODS) + " |", "|---|--:|--:|--:|" + "--:|" * len(METHODS),
    ]  # fmt: skip
    found = {(row["task"], -row["budget"], row["seed"], row["method"]): row for row in rows}
    for task, budget, seed in cells:
        of = [found.get((task, budget, seed, name)) for name in METHODS]
        dense = next(row for row in of if row)["dense_accuracy"]
        texts = [
            f"{100 * row['accuracy']:.1f} ({row['batches']['all']}, {100 * row['share']:.1f} %)" if row else "" for row in of
        ]
        lines.append(f"| {task} | {-budget:g} % | {seed} | {100 * dense:.1f} | {' | '.join(texts)} |")
    whole = [cell for cell in cells if all((*cell, name) in found for name in METHODS)]
    means = [f"{100 * np.mean([found[(*cell, name)]['accuracy'] for cell in whole]):.1f}" for name in METHODS] if whole else []
    over, unused = [row for row in rows if row["share"] > 1], [100 * (1 - row["share"]) for row in rows]
    lines += [
        f"| mean |  |  |  | {' | '.join(means)} |", "",
        f"Above the budget on the test split: {len(over)} of {len(rows)} runs. Unused: median {np.median(unused):.1f} %, "
        f"at most {max(unused):.1f} %; above 2 %: {sum(value > 2 for value in unused)} runs.", "",
        "Recipe chosen (share of the budget that channels get, as an exponent: 1 channels alone, 0 weights alone): "
        + ", ".join(f"{-b:g} % seed {s}: {best_recipe(found[t, b, s, 'recipe'])}" for t, b, s in whole) + ".", "", LIMITS,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def best_recipe(row: Mapping[str, Any]) -> str:
    """Return the channels' share of the recipe that was best after the last round, as its stages show."""
    finalists = row["recipes"][3:] or row["recipes"]
    return f"{max(finalists, key=lambda recipe: recipe['certainty'])['recipe']['channels']:g}"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="digits")
    parser.add_argument("--budgets", default="20,10")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("results/levers"))
    parser.add_argument("--docs", type=Path, help="Write the raw data here, and the table into levers.md, e.g. docs/benchmarks.")
    args = parser.parse_args()
    rows = []
    for seed, task in product(map(int, args.seeds.split(",")), args.tasks.split(",")):
        ground = Ground(task, seed, args.out)
        for budget in map(float, args.budgets.split(",")):
            batches = 0
            for name in METHODS:
                path = args.out / "runs" / f"{task}-{name}-{budget:g}-{seed}.json"
                if not path.exists():
                    write_json(path, run(ground, name, budget, batches))
                rows.append(json.loads(path.read_text(encoding="utf-8")))
                batches = max(batches, rows[-1]["batches"]["all"]) if name == "recipe" else batches
                print(f"{path.name}: {rows[-1]['accuracy']:.1%}, {rows[-1]['seconds']:.0f} s", flush=True)
    text = write_tables(rows)
    print(text)
    if args.docs:
        write_json(args.docs / "levers.json", rows)
        (args.docs / "levers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
