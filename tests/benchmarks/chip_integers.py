"""Accuracy of networks in the integers of each chip that takes them as they are.

Three dense networks of 64 hidden neurons are trained on digits: IF with one reset and the other, and LIF with an LI readout. Each
chip's integers are chosen on training samples and measured on the test split, beside floating point in the same run. Nothing is
adapted or learnt again, so the table shows what rounding alone costs. With `--out` each network and seed has a JSON file;
existing ones are skipped, so the command may be stopped and started again, and `--networks` runs a part of it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np

from spear_deploy.data import load_data
from spear_deploy.network import IF, LI, LIF, Dense, Flatten, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from spear_deploy.util.files import write_json

HIDDEN = 64
CHIPS = {
    "IF, subtract": ("truenorth", "speck2f", "spinnaker2", "loihi2"),
    "IF, value": ("truenorth", "speck2f", "spinnaker2", "loihi2"),
    "LIF, LI readout": ("reckon", "spinnaker1", "loihi2"),
}
"""By network, the chips that have its neurons."""


def dense_network(name: str, seed: int) -> SNNGraph:
    """Return an untrained network of `CHIPS`."""
    rng = np.random.default_rng(seed)
    reset = "subtract" if name == "IF, subtract" else "value"
    leaks = name.startswith("LIF")
    hidden = LIF(tau_s=0.01, r=10.0) if leaks else IF(reset=reset)
    output = LI(tau_s=0.01, r=10.0) if leaks else IF(reset=reset)
    layers = [
        Layer(name="flatten", synapse=Flatten()),
        Layer(name="hidden", synapse=Dense(weight=0.4 * rng.normal(size=(HIDDEN, 64))), neuron=hidden),
        Layer(name="output", synapse=Dense(weight=0.4 * rng.normal(size=(10, HIDDEN))), neuron=output),
    ]
    return chain(layers, input_shape=(1, 8, 8), dt_s=1e-3)


def measure(name: str, seed: int, epochs: int) -> list[dict]:
    """Train a network, and return a row for floating point and for each chip."""
    data = load_data("digits")
    trained = train(dense_network(name, seed), data, epochs=epochs, seed=seed)
    x, test = np.moveaxis(data.train.x[:256], 0, 1), np.moveaxis(data.test.x, 0, 1)
    rows = [{"network": name, "seed": seed, "chip": "floating point", "accuracy": evaluate(trained, data.test).accuracy}]
    for chip in CHIPS[name]:
        start = time.perf_counter()
        integer = api.quantize_for_chip(trained, chip, calibration=x)
        seconds = time.perf_counter() - start
        overflows = sum(sum(counts.values()) for counts in simulate(integer, test).overflows.values())
        accuracy = evaluate(integer, data.test).accuracy
        rows.append(
            {"network": name, "seed": seed, "chip": chip, "accuracy": accuracy, "overflows": overflows, "seconds": seconds}
        )
    return rows


def read_or_measure(name: str, seed: int, epochs: int, folder: Path | None) -> list[dict]:
    """Return the rows of a network and a seed: from its file where there is one, else measured and written."""
    if folder is None:
        return measure(name, seed, epochs)
    words = re.sub(r"[^a-z]+", "-", name.lower())
    path = folder / f"rows-{words}-{seed}-{epochs}.json"
    if not path.exists():
        write_json(path, measure(name, seed, epochs))
    return json.loads(path.read_text(encoding="utf-8"))


def to_table(rows: list[dict]) -> str:
    """Return the rows as a table: mean and largest distance over seeds."""
    lines = ["| network | chip | accuracy | against floating point | overflows |", "|---|---|--:|--:|--:|"]
    for name, chip in dict.fromkeys((row["network"], row["chip"]) for row in rows):
        same = [row for row in rows if (row["network"], row["chip"]) == (name, chip)]
        floats = {row["seed"]: row["accuracy"] for row in rows if row["network"] == name and row["chip"] == "floating point"}
        change = np.mean([row["accuracy"] - floats[row["seed"]] for row in same]) * 100
        accuracy = np.mean([row["accuracy"] for row in same])
        overflows = "–" if chip == "floating point" else f"{sum(row['overflows'] for row in same):,}"
        against = "" if chip == "floating point" else f"{change:+.1f} points"
        lines.append(f"| {name} | {chip} | {accuracy:.1%} | {against} | {overflows} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print; write the rows and the table where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--networks", nargs="+", choices=list(CHIPS), default=list(CHIPS))
    parser.add_argument(
        "--out", type=Path, help="folder for a JSON file a network and seed, chip_integers.json and chip_integers.md"
    )
    options = parser.parse_args()
    rows = [
        row
        for name in options.networks
        for seed in range(options.seeds)
        for row in read_or_measure(name, seed, options.epochs, options.out)
    ]
    table = to_table(rows)
    print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "chip_integers.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        command = f"python -m tests.benchmarks.chip_integers --seeds {options.seeds} --epochs {options.epochs}"
        text = f"# Integers of the chips, nothing adapted\n\n`{command}`; digits, 64 hidden neurons, 8 steps.\n\n{table}\n"
        (options.out / "chip_integers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
