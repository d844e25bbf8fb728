"""Learning with Norse's cells and with compiled loops, in turns, in one process.

    python -m tests.benchmarks.learning_speed --tasks digits,nmnist,kws,braille27

Each learns from the same batches (20 by default) and has to end with the same weights; times are of the processor, the least of
three runs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from spear_deploy.network.graph import SNNGraph
from spear_deploy.norse import compiled_cells, fused_cells
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Recipe
from tests.benchmarks.levers import LEVER_TASKS

RUNS = 3


def learn(loops: Any, graph: SNNGraph, data: Any, batches: int) -> tuple[float, SNNGraph]:
    """Return (processor seconds, what was learnt)."""
    fused_cells._loaded[:] = [loops]
    begin = time.process_time()
    learnt = fit(graph, data, Recipe(epochs=10**6, steps=batches)).graph
    return time.process_time() - begin, learnt


def compare(task: str, batches: int) -> tuple[float, float]:
    """Return the seconds of Norse's steps and of compiled loops.

    Raises:
        AssertionError: they end with different weights.
    """
    data, graph = LEVER_TASKS[task].data(0), LEVER_TASKS[task].network(0)
    learn(compiled_cells, graph, data, 1)  # compiles
    runs = [[learn(loops, graph, data, batches) for loops in (None, compiled_cells)] for _ in range(RUNS)]
    for (_, norse), (_, compiled) in runs:
        for one, other in zip(norse.layers, compiled.layers, strict=True):
            if hasattr(one.synapse, "weight"):
                np.testing.assert_array_equal(one.synapse.weight, other.synapse.weight)
    return min(norse[0] for norse, _ in runs), min(compiled[0] for _, compiled in runs)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="digits,nmnist,kws,braille27")
    parser.add_argument("--batches", type=int, default=20)
    args = parser.parse_args()
    print("| task | Norse's steps, s | compiled, s | ratio |\n|---|--:|--:|--:|")
    for task in args.tasks.split(","):
        norse, compiled = compare(task, args.batches)
        print(f"| {task} | {norse:.2f} | {compiled:.2f} | {norse / compiled:.2f} |", flush=True)


if __name__ == "__main__":
    main()
