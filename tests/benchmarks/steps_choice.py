"""Choice of the number of time steps: how many batches a candidate has to learn from.

    python -m tests.benchmarks.steps_choice --out results/steps_choice

The shipped network of digits at a share of its SynOps. For each number of batches all candidates of `--steps auto` learn as in
`pruning.time_steps`: as long as an episode of the method `rl` does (25 batches: a quarter of those of 40 epochs, in 8 episodes),
as long as the choice does, and three times as long. One JSON file a case; existing files are skipped. Printed for each candidate:
accuracy on validation and, in brackets, its SynOps over the least of all candidates.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from itertools import product
from pathlib import Path

from spear_deploy.data import Dataset
from spear_deploy.data.time_steps import StepsRange, choose_candidates
from spear_deploy.pipeline.preflight import CheckedInputs, check_inputs
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.time_steps import BATCHES, choose_steps
from spear_deploy.util.files import write_json

CHIP, NET = "loihi2", "digits"
EPISODE = 25
LENGTHS = (EPISODE, BATCHES, 3 * BATCHES)


def _read(inputs: CheckedInputs, steps: int) -> Dataset:
    return inputs.with_steps(steps).dataset


def main() -> None:
    """Run what is missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--budgets", default="20%,10%")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("results/steps_choice"))
    args = parser.parse_args()
    for budget, seed, batches in product(args.budgets.split(","), map(int, args.seeds.split(",")), LENGTHS):
        path = args.out / f"{budget}-{seed}-{batches}.json"
        if not path.exists():
            inputs = check_inputs(NET, CHIP, NET, seed=seed)
            numbers = choose_candidates(StepsRange(), inputs.list_steps(), inputs.dataset.steps)
            choice = choose_steps(
                inputs.network, {number: partial(_read, inputs, number) for number in numbers},
                PruneSettings(synops=budget, levers="channels,weights,steps", seed=seed), batches=batches,
            )  # fmt: skip
            write_json(path, {"steps": choice.steps, "rows": list(choice.rows)})
        found = json.loads(path.read_text(encoding="utf-8"))
        least = min(row["synops"] for row in found["rows"])
        texts = [f"{row['steps']}: {row['accuracy']:.1%} ({row['synops'] / least:.2f})" for row in found["rows"]]
        print(f"{budget}, seed {seed}, {batches} batches: {found['steps']} steps; {', '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
