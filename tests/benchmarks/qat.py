"""Benchmark of quantisation-aware learning: accuracy of a chip's integers with it, without it, and after as much learning.

    python -m tests.benchmarks.qat --out results/qat
    python -m tests.benchmarks.qat --out results/qat --docs docs/benchmarks

A row is one task, network, chip, bits and seed. The trained network is quantised as it is; after more epochs in floating point;
and after as many of which the second half has the chip's rounding, as in `adapt` and `prune`, which round last. The first half
has the chip's spikes a step. Scales are chosen on the same training samples; the two that learn have the same teacher. One JSON
file a run; existing files are skipped.

Digits are rate-coded in 6 steps; the other tasks are those of `levers`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.adaptation.several_spikes import match_spikes
from spear_deploy.data import Dataset, digits
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, CubaLI, CubaLIF, Dense, Flatten, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.preflight import CheckedInputs, grade_split
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import Recipe, fit, train
from spear_deploy.training.losses import average_outputs
from spear_deploy.util.files import write_json
from tests.benchmarks.levers import LEVER_TASKS
from tests.benchmarks.search_tasks import norm, plain

PEAK = 6e-3
CALIBRATION = 256
"""Training samples that scales are chosen on."""


def leaky(seed: int) -> SNNGraph:
    """Five convolutions of LIF neurons, the network of the search benchmark."""
    return plain(seed, (1, 8, 8), (12, 12, 24, 24, 32), (2, 4))


def integrating(seed: int) -> SNNGraph:
    """The same with neurons that integrate and subtract, for Speck; its outputs spike."""
    graph = leaky(seed)
    return graph.with_layers(
        lambda layer: layer if layer.neuron is None else Layer(
            name=layer.name, synapse=layer.synapse, norm=layer.norm, neuron=IF(reset="subtract")
        )
    )  # fmt: skip


def dense(seed: int) -> SNNGraph:
    """Two hidden layers of neurons with a current, for Xylo."""
    rng = np.random.default_rng(seed)
    cuba = {"tau_mem_s": 4e-3, "tau_syn_s": 2e-3, "w_in": 2.0}

    def weights(outputs: int, inputs: int) -> Dense:
        bound = 1 / np.sqrt(inputs)
        return Dense(weight=rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32))

    def hidden(name: str, inputs: int) -> Layer:
        return Layer(name=name, synapse=weights(64, inputs), norm=norm(64), neuron=CubaLIF(**cuba, reset="subtract"))

    layers = (Layer(name="flat", synapse=Flatten()), hidden("hidden1", 64), hidden("hidden2", 64))
    return chain((*layers, Layer(name="readout", synapse=weights(10, 64), neuron=CubaLI(**cuba))), input_shape=(1, 8, 8))


def frames_in_six_steps(seed: int) -> Dataset:
    """Return digits, rate-coded."""
    return digits(steps=6, seed=seed)


@dataclass(frozen=True)
class Case:
    """A network by seed, the chip that takes it, the bits of its weights, its data by seed; epochs of training and of more."""

    network: Callable[[int], SNNGraph]
    chip: str
    bits: int
    task: str = "digits"
    data: Callable[[int], Dataset] = frames_in_six_steps
    train_epochs: int = 12
    epochs: int = 12


CASES = {
    "loihi2, 8 bits": Case(leaky, "loihi2", 8),
    "loihi2, 4 bits": Case(leaky, "loihi2", 4),
    "loihi2, 3 bits": Case(leaky, "loihi2", 3),
    "speck2f, 8 bits": Case(integrating, "speck2f", 8),
    "xylo_audio2, 8 bits": Case(dense, "xylo_audio2", 8),
    **{
        f"{name}, loihi2, {bits} bits": Case(
            LEVER_TASKS[name].network, "loihi2", bits, name, LEVER_TASKS[name].data, LEVER_TASKS[name].train_epochs, epochs
        )
        for (name, epochs), bits in product({"mnist": 6, "nmnist": 12, "braille27": 12, "kws": 6}.items(), (8, 4))
    },
}


def run(case: Case, name: str, seed: int, out: Path) -> dict[str, Any]:
    """Quantise, learn on and quantise, learn on with rounding and quantise."""
    profile = override_facts(load_profile(case.chip), {"weights.bits": [case.bits], "weights.default_bits": case.bits})
    data, path = case.data(seed), out / "dense" / f"{case.task}-{case.network.__name__}-{seed}.snn"
    if not path.exists():
        write_snn(train(case.network(seed), data, epochs=case.train_epochs, seed=seed), path)
    trained = read_snn(path)
    x = np.moveaxis(data.train.x[:CALIBRATION], 0, 1)

    def run_integers(graph: SNNGraph) -> float:
        integer = api.quantize_for_chip(graph, profile, calibration=x, kind=data.kind)
        return evaluate(integer, grade_split(integer, data.test)).accuracy

    begin = time.perf_counter()
    hints = average_outputs(trained, data.train)
    recipe = Recipe(epochs=case.epochs, learning_rate=PEAK, warm_up=0.1, seed=seed)
    longer = fit(trained, data, recipe, hints=hints).graph
    inputs = CheckedInputs(network=trained, profile=profile, chips=1, dataset=data)
    start = match_spikes(trained, inputs.quantize(trained), data)
    half = replace(recipe, epochs=case.epochs // 2)
    near = fit(start, data, half, hints=hints).graph
    half = replace(half, learning_rate=PEAK / 2)
    aware = fit(near, data, half, hints=hints, rounding=inputs.round_network).graph
    networks = {"trained": trained, "longer": longer, "aware": aware}
    return {
        "case": name, "task": case.task, "seed": seed, "epochs": case.epochs, "test_samples": len(data.test),
        "float": {key: evaluate(graph, data.test).accuracy for key, graph in networks.items()},
        "integers": {key: run_integers(graph) for key, graph in networks.items()},
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def write_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: accuracy of floating point and of integers, mean over the seeds."""
    lines = [
        "# Integers with and without quantisation-aware learning", "",
        f"{len(rows)} runs of `python -m tests.benchmarks.qat`, mean over seeds. Test accuracy, per cent. *As trained*: the",
        "network is quantised as it is. *Learnt on*: after more epochs in floating point. *With rounding*: after as many, of",
        "which the second half has the chip's weights, biases, decays and thresholds, and the spikes of its neurons. In brackets",
        "the network in floating point. The last column compares the integers with the network that learnt as long in floating",
        "point, ± the standard error over seeds. Raw data: [qat.json](qat.json).", "",
        "| task | chip | seeds | epochs | as trained | learnt on | with rounding | with rounding − floating point learnt on |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for name, case in CASES.items():
        of = [row for row in rows if row["case"] == name]
        if not of:
            continue
        means = {
            key: tuple(100 * np.mean([row[kind][key] for row in of]) for kind in ("integers", "float"))
            for key in ("trained", "longer", "aware")
        }
        texts = [f"{integers:.1f} ({floating:.1f})" for integers, floating in means.values()]
        differences = [100 * (row["integers"]["aware"] - row["float"]["longer"]) for row in of]
        error = f" ± {np.std(differences, ddof=1) / np.sqrt(len(differences)):.1f}" if len(differences) > 1 else ""
        seeds = ", ".join(str(row["seed"]) for row in sorted(of, key=lambda row: row["seed"]))
        lines.append(
            f"| {case.task} | {case.chip}, {case.bits} bits | {seeds} | {case.epochs} | {' | '.join(texts)} | "
            f"{np.mean(differences):+.1f}{error} |"
        )
    sizes = {CASES[row["case"]].task: row["test_samples"] for row in rows if "test_samples" in row}
    samples = ", ".join(f"{100 / size:.2g} of {task}" for task, size in sizes.items())
    lines += ["", f"A test sample is so many points: {samples}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--cases", default=";".join(CASES), help="Separated by ;.")
    parser.add_argument("--out", type=Path, default=Path("results/qat"))
    parser.add_argument("--docs", type=Path, help="Write qat.json and qat.md here, e.g. docs/benchmarks.")
    args = parser.parse_args()
    for seed, name in product(map(int, args.seeds.split(",")), args.cases.split(";")):
        path = args.out / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
        if not path.exists():
            write_json(path, run(CASES[name], name, seed, args.out))
        row = json.loads(path.read_text(encoding="utf-8"))
        print(path.name, row["float"], row["integers"], f"{row['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((args.out / "runs").glob("*.json"))]
    text = write_table(rows)
    print(text)
    if args.docs:
        write_json(args.docs / "qat.json", rows)
        (args.docs / "qat.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
