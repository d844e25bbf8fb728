"""Pruning for chips whose neurons differ: accuracy of the integers with and without learning with the chip's rounding.

    python -m tests.benchmarks.rounded_pruning --out results/qat --cases "nmnist, xylo_audio2, 8 bits" --budgets 50,20

Networks, chips and data are those of `qat`, trained networks too where its folder has them. Each is pruned to a share of its
SynOps with the lever of bits, and without it for as many more epochs of fine-tuning as that learnt with rounding.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

from spear_deploy.pipeline.prune import prune
from spear_deploy.training.recipe import Recipe
from tests.benchmarks.qat import CASES, prepare


def main() -> None:
    """Prune and print the accuracy on the test split, and the batches that were learnt from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default="nmnist, xylo_audio2, 8 bits", help="Of `qat`, separated by ;.")
    parser.add_argument("--budgets", default="50,20", help="Per cent of the SynOps.")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("results/qat"))
    args = parser.parse_args()
    for name, seed, budget in product(args.cases.split(";"), map(int, args.seeds.split(",")), args.budgets.split(",")):
        case = CASES[name]
        ground = prepare(case, seed, args.out)
        more = 0
        for levers in ("channels,weights,bits", "channels,weights"):
            with tempfile.TemporaryDirectory() as folder:
                facts = prune(
                    ground.trained, case.chip, ground.data, out=folder, synops=f"{budget}%", epochs=case.epochs + more, seed=seed,
                    levers=levers,
                )  # fmt: skip
            accuracy, batches = facts["accuracy"], facts["batches"]
            more = -(-batches.get("bits", 0) // Recipe(epochs=1).count_batches(len(ground.data.train)))
            print(
                f"{name}, seed {seed}, {budget} %, {levers}: trained {accuracy['dense']:.1%}, integers "
                f"{accuracy['quantised']:.1%}, {batches['all']} batches",
                flush=True,
            )


if __name__ == "__main__":
    main()
