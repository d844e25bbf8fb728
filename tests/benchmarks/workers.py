"""Time of candidate fine-tuning without workers, with one and with two.

    python -m tests.benchmarks.workers --out DIR    # about two minutes on two idle cores

Six plans of the demo's network are fine-tuned twice: by the first map the workers start, by the second they are there. Each
number of workers runs in a separate process, in turns. It writes `workers.json` and `workers.md`: wall time, CPU time of all
processes, and how much faster two workers are than one. Beside other work the wall times say little; the CPU time still shows
what workers cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset, digits
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.workers import Workers, map_jobs

PLANS, EPOCHS, REPEATS = 6, 2, 2
PLACES = ("none", "1", "2")


def fine_tune(dataset: Dataset, item: tuple[SNNGraph, int]) -> float:
    """Fine-tune a network and return its accuracy on validation."""
    from spear_deploy.training.fit import fit
    from spear_deploy.training.recipe import Recipe

    graph, seed = item
    tuned = fit(graph, dataset, Recipe(epochs=EPOCHS, seed=seed))
    assert tuned.last is not None
    return tuned.last.accuracy


@lru_cache
def make_task() -> tuple[Dataset, list[tuple[SNNGraph, int]]]:
    """Return the data and the networks that are fine-tuned."""
    from spear_deploy.pipeline.demo import digits_network

    return digits(), [(digits_network(seed), seed) for seed in range(PLANS)]


def measure(place: str) -> dict[str, Any]:
    """Fine-tune all plans twice in this process and its workers; seconds of wall time, and of the jobs by themselves."""
    import torch

    torch.set_num_threads(1)
    dataset, items = make_task()
    workers = None if place == "none" else Workers(count=int(place))
    rows: list[dict[str, Any]] = []
    walls, accuracies = [], []
    for _ in range(2):
        begin = time.perf_counter()
        accuracies.append(map_jobs(fine_tune, items, shared=dataset, workers=workers, progress=rows.append))
        walls.append(time.perf_counter() - begin)
    assert accuracies[0] == accuracies[1]
    return {"workers": place, "first_s": walls[0], "second_s": walls[1], "accuracies": accuracies[0],
            "jobs_s": [row.get("seconds") for row in rows]}  # fmt: skip


def measure_apart(place: str) -> dict[str, Any]:
    """Measure in a process of its own, and add the CPU seconds of it and of its workers."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.workers", "--case", place]
    before = os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(done.stdout.splitlines()[-1]), "cpu_s": cpu}


def write_table(runs: list[dict[str, Any]]) -> str:
    """Return the page: medians by number of workers, and two workers against one."""
    middle = {
        place: {key: float(np.median([run[key] for run in runs if run["workers"] == place])) for key in KEYS}
        for place in PLACES
        if any(run["workers"] == place for run in runs)
    }
    lines = [
        "# Candidate evaluation on workers",
        "",
        f"Made by `python -m tests.benchmarks.workers`: {PLANS} fine-tunes of {EPOCHS} epochs of the demo's network; medians in",
        "seconds.",
        "",
        "| workers | first map, wall | second map, wall | CPU of all processes |",
        "|---|--:|--:|--:|",
    ]
    lines += [f"| {place} | " + " | ".join(f"{row[key]:.1f}" for key in KEYS) + " |" for place, row in middle.items()]
    if "1" in middle and "2" in middle:
        gains = [middle["1"][key] / middle["2"][key] for key in KEYS[:2]]
        lines += ["", f"Two workers against one: {gains[0]:.2f} times as fast with their start, {gains[1]:.2f} without."]
    equal = all(run["accuracies"] == runs[0]["accuracies"] for run in runs)
    lines += ["", f"Results are {'the same' if equal else '**not the same**'} in all runs."]
    return "\n".join(lines) + "\n"


KEYS = ("first_s", "second_s", "cpu_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--case", choices=PLACES, help="one number of workers in this process; prints its JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for place in PLACES * arguments.repeats:
        runs.append({**measure_apart(place), "load": os.getloadavg()[0]})
        print({key: value for key, value in runs[-1].items() if key != "accuracies"}, file=sys.stderr, flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    (arguments.out / "workers.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")
    (arguments.out / "workers.md").write_text(write_table(runs))
    print(write_table(runs))


if __name__ == "__main__":
    main()
