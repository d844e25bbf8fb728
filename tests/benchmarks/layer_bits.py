"""Bits by layer benchmark: a budget of memory, or cores with too little, by fewer bits and channels or by channels alone.

    python -m tests.benchmarks.layer_bits --out results/layer_bits
    python -m tests.benchmarks.layer_bits --out results/layer_bits --docs docs/benchmarks

A perceptron of 64-256-256-10 integrators on digits, for Loihi 1, whose weights have 8 bits by default. `channels,bits` runs
first; `channels` alone, by the default search, gets as many epochs of fine-tuning as bring it to at least as many batches in all,
search and candidates of bits included. In the rows `3 cores` each layer has a core whose synapse memory is half of what the
largest layer needs with 8 bits. One JSON file a row; existing files are skipped. Test accuracy of the chip's integers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.budget.check import check
from spear_deploy.data import Dataset
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.prune import prune
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.training.fit import Recipe, fit
from spear_deploy.util.files import write_json
from tests.benchmarks.fit import BATCH, flat, perceptron

CHIP, EPOCHS, CORES = "loihi1", 6, "3 cores"
BUDGETS = ("20%", "10%", "5%", CORES)
LEVERS = ("channels,bits", "channels")


def train_network(seed: int, out: Path) -> tuple[SNNGraph, Dataset]:
    """Return the trained network, kept in the folder, and its data."""
    dataset, path = flat(seed), out / "trained" / f"{seed}.snn"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        network = perceptron(seed, (64, 256, 256, 10), IF(reset="value"))
        write_snn(fit(network, dataset, Recipe(epochs=20, seed=seed)).graph, path)
    return read_snn(path), dataset


def take_cores(graph: SNNGraph) -> HardwareProfile:
    """Return Loihi 1 with a core for each layer, of half of the memory that the largest layer needs."""
    profile = load_profile(CHIP)
    costs = build_chip_costs(graph, profile)
    slices = costs.place(tuple(group.channels for group in costs.groups))[0].slices
    most = max(part.memory_words or 0 for part in slices)
    return override_facts(profile, {"core.synapse_memory": most // 2, "chip.cores": 3, "chip.usable_cores": 3})


def run(budget: str, seed: int, levers: str, batches: int, out_folder: Path) -> dict[str, Any]:
    """Prune to a budget, and return what was measured; `batches` is the least that it learns from."""
    network, dataset = train_network(seed, out_folder)
    an_epoch = -(-len(dataset.train) // BATCH)
    epochs, begin = EPOCHS, time.perf_counter()
    options: dict[str, Any] = {"levers": levers, "seed": seed}
    chip: Any = CHIP
    if budget == CORES:
        chip = take_cores(network)
        assert check(network, chip).verdict == "does_not_fit"
    else:
        options["memory"] = budget
    while True:
        with tempfile.TemporaryDirectory() as out:
            facts = prune(network, chip, dataset, out=out, epochs=epochs, **options)
        missing = batches - facts["batches"]["all"]
        if missing <= 0:
            break
        epochs += -(-missing // an_epoch)
    names = ("accuracy", "widths", "batches", "verdict", "notes", "budgets", "layer_bits", "met")
    return {
        "budget": budget, "seed": seed, "levers": levers, "epochs": epochs, **{name: facts[name] for name in names},
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def write_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: each budget by fewer bits and channels, and by channels alone."""
    found = {(row["budget"], row["seed"], row["levers"]): row for row in rows}
    lines = [
        "# Bits by layer", "",
        f"{len(rows)} runs of `python -m tests.benchmarks.layer_bits`: a perceptron of 64-256-256-10 on digits, to a share of",
        "its words of synapse memory on Loihi 1, or to three cores with half of the memory that the largest layer needs. Test",
        "accuracy in per cent of the chip's integers; in brackets the batches learnt from: `channels` has at least as many.",
        "Raw data: [layer_bits.json](layer_bits.json).", "",
        "| memory | seed | trained | channels, bits | channels | bits in place of 8 | channels, with bits | channels, alone |",
        "|---|--:|--:|--:|--:|---|---|---|",
    ]  # fmt: skip
    leads = []
    for budget, seed in sorted({(row["budget"], row["seed"]) for row in rows}, key=lambda c: (BUDGETS.index(c[0]), c[1])):
        pair = [found.get((budget, seed, levers)) for levers in LEVERS]
        if pair[0] is None or pair[1] is None:
            continue
        both, alone = pair
        accuracy = [100 * row["accuracy"]["quantised"] for row in (both, alone)]
        leads.append(accuracy[0] - accuracy[1])
        bits = ", ".join(f"{name} {n}" for name, n in both["layer_bits"]["bits"].items()) if both["layer_bits"] else ""
        widths = [", ".join(f"{a}→{b}" for a, b in row["widths"].values()) for row in (both, alone)]
        texts = [f"{value:.1f} ({row['batches']['all']})" for value, row in zip(accuracy, (both, alone), strict=True)]
        lines.append(
            f"| {budget} | {seed} | {100 * both['accuracy']['dense']:.1f} | {' | '.join(texts)} | {bits or 'all 8'} "
            f"| {' | '.join(widths)} |"
        )
    if len(leads) > 1:
        error = np.std(leads, ddof=1) / np.sqrt(len(leads))
        lines += [
            "",
            f"`channels,bits` ahead by {np.mean(leads):.1f} ± {error:.1f} points ({min(leads):.1f} to {max(leads):.1f}).",
        ]
        fits = [sum(row["verdict"] != "does_not_fit" and row["met"] for row in rows if row["levers"] == each) for each in LEVERS]
        lines.append(f"Within their limits are {fits[0]} and {fits[1]} of {len(rows) // 2}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--budgets", default=",".join(BUDGETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("results/layer_bits"))
    parser.add_argument("--docs", type=Path, help="Write raw data and table here, e.g. docs/benchmarks.")
    args = parser.parse_args()
    for seed, budget in product(map(int, args.seeds.split(",")), args.budgets.split(",")):
        batches = 0
        for levers in LEVERS:
            path = args.out / "runs" / f"{budget.replace(' ', '-')}-{levers.replace(',', '-')}-{seed}.json"
            if not path.exists():
                write_json(path, run(budget, seed, levers, batches, args.out))
            row = json.loads(path.read_text(encoding="utf-8"))
            batches = row["batches"]["all"]
            print(f"{path.name}: {row['accuracy']['quantised']:.1%}, {row['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((args.out / "runs").glob("*.json"))]
    text = write_tables(rows)
    print(text)
    if args.docs:
        write_json(args.docs / "layer_bits.json", rows)
        (args.docs / "layer_bits.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
