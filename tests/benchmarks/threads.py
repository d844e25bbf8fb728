"""Time of learning and simulation with one thread and with two.

    python -m tests.benchmarks.threads --out DIR    # about two minutes; beside other work is where it matters

A network of 16,394 neurons learns a few batches, and integers of 3 × 1024 neurons are simulated, each in a process of
its own, in turns. It writes `threads.json` and `threads.md`: medians of wall time and of CPU time. The command line lets threads
of OpenMP sleep (`OMP_WAIT_POLICY=PASSIVE`), unless its environment says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.network import IF, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.graph import chain

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SIDES: dict[str, dict[str, str]] = {
    "one": dict.fromkeys(THREADS, "1"),
    "two": dict.fromkeys(THREADS, "2") | {"OMP_WAIT_POLICY": "PASSIVE"},
    "two, spinning": dict.fromkeys(THREADS, "2") | {"OMP_WAIT_POLICY": "ACTIVE"},
}
CASES = ("learning", "simulation")
REPEATS = 3


def make_learning() -> Callable[[], object]:
    """Return the learning of four batches by a network of 16,394 neurons."""
    from spear_deploy.training import Recipe, fit

    rng = np.random.default_rng(0)

    def draw(samples: int) -> Split:
        return Split(x=(rng.random((samples, 4, 2, 32, 32)) < 0.1).astype(np.uint8), y=np.arange(samples) % 10)

    kernel, weight = rng.normal(0, 0.3, (16, 2, 3, 3)), rng.normal(0, 0.02, (10, 16384))
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=kernel.astype(np.float32), padding=1), neuron=IF(v_threshold=1)),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=weight.astype(np.float32)), neuron=IF(v_threshold=1)),
    ]
    graph = chain(layers, input_shape=(2, 32, 32))
    dataset = Dataset(name="drawn", train=draw(256), val=draw(16), test=draw(16), classes=10)
    return lambda: fit(graph, dataset, Recipe(epochs=1, steps=4))


def make_simulation() -> Callable[[], object]:
    """Return the simulation of 3 × 1024 neurons, in numpy."""
    from spear_deploy.simulator import kernel_choice, simulate
    from tests.benchmarks.simulation_frameworks import make_row

    kernel_choice._loaded[:] = [None]
    graph, x = make_row("3 × 1024 dense", 32)
    return lambda: simulate(graph, x)


def measure(case: str) -> dict[str, float]:
    """Run a case three times in this process; medians of seconds."""
    run = make_learning() if case == "learning" else make_simulation()
    run()
    walls, cpus = [], []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": median(walls), "cpu_s": median(cpus)}


def measure_apart(case: str, side: str) -> dict[str, object]:
    """Run a case in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.threads", "--case", case]
    done = subprocess.run(command, env=os.environ | SIDES[side], capture_output=True, text=True, check=True)
    return {"case": case, "threads": side, "load": os.getloadavg()[0], **json.loads(done.stdout.splitlines()[-1])}


def write_table(runs: list[dict]) -> str:
    """Return the page: medians by case and threads, and times as long as with one thread."""
    lines = [
        "# Threads",
        "",
        f"Made by `python -m tests.benchmarks.threads`; medians of {REPEATS} processes in turns, beside other work (load "
        f"{min(run['load'] for run in runs):.1f} to {max(run['load'] for run in runs):.1f} on {os.cpu_count()} cores).",
        "",
        "| case | threads | wall, s | CPU, s | wall, times one thread |",
        "|---|---|--:|--:|--:|",
    ]
    for case in CASES:
        walls = {}
        for side in SIDES:
            own = [run for run in runs if (run["case"], run["threads"]) == (case, side)]
            walls[side], cpu = (median(run[key] for run in own) for key in ("wall_s", "cpu_s"))
            lines.append(f"| {case} | {side} | {walls[side]:.2f} | {cpu:.2f} | {walls[side] / walls['one']:.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--case", choices=CASES, help="one case in this process; prints its JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for _ in range(REPEATS):
        for case in CASES:
            for side in SIDES:
                runs.append(measure_apart(case, side))
                print(runs[-1], file=sys.stderr, flush=True)
    (arguments.out / "threads.json").write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    (arguments.out / "threads.md").write_text(write_table(runs))
    print(write_table(runs))


if __name__ == "__main__":
    main()
