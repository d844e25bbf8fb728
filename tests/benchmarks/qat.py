"""Benchmark of quantisation-aware learning: accuracy of a chip's integers with it, without it, and after as much learning.

    python -m tests.benchmarks.qat --out results/qat
    python -m tests.benchmarks.qat --out results/qat --docs docs/benchmarks

A row is one task, network, chip, bits and seed. The trained network is quantised as it is; after more epochs in floating point;
after as many with the chip's rounding from the first batch on, as in `adapt`; and after as many of which the second half has the
chip's rounding, as in `prune`, which rounds last, and learns faster where integers lose much: there the first half has the
chip's spikes a step, and the same two halves without rounding show what rounding alone costs. Scales are chosen on the same
training samples; all that learn have the same teacher. One JSON file a run; existing files are skipped.

Digits are rate-coded in 6 steps; the other tasks are those of `levers`. Each chip has the neurons that it can hold: Speck's
integrate, Xylo's have a current; a recurrent network is for chips that have recurrent layers, an analogue input (`kws`) for chips
that take one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.adaptation.several_spikes import match_spikes
from spear_deploy.data import Dataset, Split, digits
from spear_deploy.hardware.profile import HardwareProfile, load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, Array, CubaLI, CubaLIF, Dense, Flatten, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.preflight import CheckedInputs, grade_split
from spear_deploy.pruning.tune.rounded_learning import FASTER, MUCH, TOLERANCE, choose_speed
from spear_deploy.quantize.rounding import RoundNetwork
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit, train
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe
from spear_deploy.util.files import write_json
from tests.benchmarks.levers import LEVER_TASKS
from tests.benchmarks.search_tasks import norm, plain

PEAK = 6e-3
INTEGRATING_RATE = 3e-3
"""Learning rate of neurons that do not leak: with 1e-2 some of their networks hardly learn."""
CALIBRATION = 256
"""Training samples that scales are chosen on."""
HALVES = "halves"
"""Name of the network that learnt in two halves without rounding."""


def leaky(seed: int) -> SNNGraph:
    """Five convolutions of LIF neurons, the network of the search benchmark."""
    return plain(seed, (1, 8, 8), (12, 12, 24, 24, 32), (2, 4))


def integrate(graph: SNNGraph) -> SNNGraph:
    """Give each neuron layer neurons that integrate and subtract, for Speck; the outputs spike too."""
    return graph.with_layers(
        lambda layer: layer if layer.neuron is None else Layer(
            name=layer.name, synapse=layer.synapse, norm=layer.norm, neuron=IF(reset="subtract")
        )
    )  # fmt: skip


def integrating(seed: int) -> SNNGraph:
    """Five convolutions that integrate, on digits."""
    return integrate(leaky(seed))


def integrating_mnist(seed: int) -> SNNGraph:
    """Three convolutions that integrate, on MNIST at 14 × 14."""
    return integrate(plain(seed, (1, 14, 14), (12, 24, 32), (1, 2)))


def integrating_nmnist(seed: int) -> SNNGraph:
    """Three convolutions that integrate, on N-MNIST at 17 × 17."""
    return integrate(plain(seed, (2, 17, 17), (12, 24, 32), (1, 2)))


def perceptron(seed: int, input_shape: tuple[int, ...], tau_mem_s: float) -> SNNGraph:
    """Two hidden layers of 64 neurons with a current, for Xylo."""
    rng = np.random.default_rng(seed)
    cuba = {"tau_mem_s": tau_mem_s, "tau_syn_s": tau_mem_s / 2, "w_in": 2.0}

    def weights(outputs: int, inputs: int) -> Dense:
        bound = 1 / np.sqrt(inputs)
        return Dense(weight=rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32))

    def hidden(name: str, inputs: int) -> Layer:
        return Layer(name=name, synapse=weights(64, inputs), norm=norm(64), neuron=CubaLIF(**cuba, reset="subtract"))

    layers = (Layer(name="flat", synapse=Flatten()), hidden("hidden1", math.prod(input_shape)), hidden("hidden2", 64))
    return chain((*layers, Layer(name="readout", synapse=weights(10, 64), neuron=CubaLI(**cuba))), input_shape=input_shape)


def dense(seed: int) -> SNNGraph:
    """The perceptron on digits."""
    return perceptron(seed, (1, 8, 8), 4e-3)


def dense_mnist(seed: int) -> SNNGraph:
    """The perceptron on MNIST at 14 × 14."""
    return perceptron(seed, (1, 14, 14), 4e-3)


def dense_nmnist(seed: int) -> SNNGraph:
    """The perceptron on N-MNIST at 17 × 17."""
    return perceptron(seed, (2, 17, 17), 8e-3)


def recurrent_current(seed: int) -> SNNGraph:
    """The recurrent network of Braille with neurons that have a current and subtract."""

    def with_current(layer: Layer) -> Layer:
        if layer.neuron is None:
            return layer
        kind = CubaLI if isinstance(layer.neuron, LI) else partial(CubaLIF, reset="subtract")
        return replace(layer, neuron=kind(tau_mem_s=8e-3, tau_syn_s=4e-3, w_in=2.0))

    return LEVER_TASKS["braille27"].network(seed).with_layers(with_current)


def frames_in_six_steps(seed: int) -> Dataset:
    """Return digits, rate-coded."""
    return digits(steps=6, seed=seed)


@dataclass(frozen=True)
class Case:
    """A network by seed, its chip, the bits of its weights, its data by seed; how long and fast it trains, and epochs of more."""

    network: Callable[[int], SNNGraph]
    chip: str
    bits: int
    task: str = "digits"
    data: Callable[[int], Dataset] = frames_in_six_steps
    train_epochs: int = 12
    epochs: int = 12
    train_rate: float = 1e-2


def lever_case(
    network: Callable[[int], SNNGraph], chip: str, bits: int, task: str, epochs: int, train_epochs: int = 0, rate: float = 1e-2
) -> Case:
    """Return a case with the data of a task of `levers`, and its epochs of training where none are given."""
    found = LEVER_TASKS[task]
    return Case(network, chip, bits, task, found.data, train_epochs or found.train_epochs, epochs, rate)


CASES = {
    "loihi2, 8 bits": Case(leaky, "loihi2", 8),
    "loihi2, 4 bits": Case(leaky, "loihi2", 4),
    "loihi2, 3 bits": Case(leaky, "loihi2", 3),
    "speck2f, 8 bits": Case(integrating, "speck2f", 8, train_epochs=24, train_rate=INTEGRATING_RATE),
    "xylo_audio2, 8 bits": Case(dense, "xylo_audio2", 8),
    "mnist, speck2f, 8 bits": lever_case(integrating_mnist, "speck2f", 8, "mnist", 6, 16, INTEGRATING_RATE),
    "mnist, xylo_audio2, 8 bits": lever_case(dense_mnist, "xylo_audio2", 8, "mnist", 6),
    "nmnist, speck2f, 8 bits": lever_case(integrating_nmnist, "speck2f", 8, "nmnist", 12, 40, INTEGRATING_RATE),
    "nmnist, xylo_audio2, 8 bits": lever_case(dense_nmnist, "xylo_audio2", 8, "nmnist", 12),
    "braille27, xylo_audio2, 8 bits": lever_case(recurrent_current, "xylo_audio2", 8, "braille27", 12),
    **{
        f"{name}, loihi2, {bits} bits": lever_case(LEVER_TASKS[name].network, "loihi2", bits, name, epochs)
        for (name, epochs), bits in product({"mnist": 6, "nmnist": 12, "braille27": 12, "kws": 6}.items(), (8, 4))
    },
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """What the runs of a case and a seed start from.

    Attributes:
        case: the case.
        data, profile: its data, and the chip.
        trained: the network as it was trained.
        hints: its scores by class on the training split.
        recipe: of learning on in floating point.
    """

    case: Case
    data: Dataset
    profile: HardwareProfile
    trained: SNNGraph
    hints: Array
    recipe: Recipe

    @property
    def inputs(self) -> CheckedInputs:
        """Return the trained network on its chip."""
        return CheckedInputs(network=self.trained, profile=self.profile, chips=1, dataset=self.data)

    @cached_property
    def start(self) -> SNNGraph:
        """The trained network with the chip's spikes a step."""
        return match_spikes(self.trained, self.inputs.quantize(self.trained), self.data)

    def learn_rounded(self) -> SNNGraph:
        """Learn on for all epochs with the chip's rounding."""
        return fit(self.start, self.data, self.recipe, hints=self.hints, rounding=self.inputs.round_network).graph

    def learn_first_half(self) -> SNNGraph:
        """Learn on for half of the epochs in floating point."""
        return fit(self.start, self.data, replace(self.recipe, epochs=self.case.epochs // 2), hints=self.hints).graph

    def learn_second_half(self, near: SNNGraph, rounding: RoundNetwork | None) -> SNNGraph:
        """Learn on for the other half, at half of the learning rate, with the chip's rounding or without.

        With it, learning is as much faster as in `prune`, by what the integers lose on validation.
        """
        rate = self.recipe.learning_rate / 2
        if rounding is not None:
            rate *= choose_speed(self.run_float(near, self.data.val) - self.run_integers(near, self.data.val))
        recipe = replace(self.recipe, epochs=self.case.epochs // 2, learning_rate=rate)
        return fit(near, self.data, recipe, hints=self.hints, rounding=rounding).graph

    def run_integers(self, graph: SNNGraph, split: Split) -> float:
        """Return the accuracy of the chip's integers."""
        x = np.moveaxis(self.data.train.x[:CALIBRATION], 0, 1)
        integer = api.quantize_for_chip(graph, self.profile, calibration=x, kind=self.data.kind)
        return evaluate(integer, grade_split(integer, split)).accuracy

    def run_float(self, graph: SNNGraph, split: Split) -> float:
        """Return the accuracy in floating point."""
        return evaluate(graph, split).accuracy

    def run_both(self, graph: SNNGraph, split: Split) -> tuple[float, float]:
        """Return the accuracy of the integers, and that in floating point."""
        return self.run_integers(graph, split), self.run_float(graph, split)


def prepare(case: Case, seed: int, out: Path) -> Ground:
    """Read or make the data and the trained network of a case and a seed."""
    profile = override_facts(load_profile(case.chip), {"weights.bits": [case.bits], "weights.default_bits": case.bits})
    data, path = case.data(seed), out / "dense" / f"{case.task}-{case.network.__name__}-{seed}.snn"
    if not path.exists():
        recipe = Recipe(epochs=case.train_epochs, learning_rate=case.train_rate, seed=seed)
        write_snn(train(case.network(seed), data, recipe=recipe), path)
    trained = read_snn(path)
    recipe = Recipe(epochs=case.epochs, learning_rate=min(PEAK, case.train_rate), warm_up=0.1, seed=seed)
    hints = score_outputs(trained, data.train)
    return Ground(case=case, data=data, profile=profile, trained=trained, hints=hints, recipe=recipe)


def run(case: Case, name: str, seed: int, out: Path) -> dict[str, Any]:
    """Quantise the network as trained, and after each way to learn on."""
    ground = prepare(case, seed, out)
    data, begin = ground.data, time.perf_counter()
    near = ground.learn_first_half()
    networks = {
        "trained": ground.trained,
        "longer": fit(ground.trained, ground.data, ground.recipe, hints=ground.hints).graph,
        "rounded": ground.learn_rounded(),
        "rounded_last": ground.learn_second_half(near, ground.inputs.round_network),
    }
    networks[HALVES] = ground.learn_second_half(near, None)
    test, val = ({key: ground.run_both(graph, split) for key, graph in networks.items()} for split in (data.test, data.val))
    return {
        "case": name, "task": case.task, "seed": seed, "epochs": case.epochs, "test_samples": len(data.test),
        "integers": {key: integers for key, (integers, _) in test.items()},
        "float": {key: floating for key, (_, floating) in test.items()},
        "validation": {
            "integers": {key: integers for key, (integers, _) in val.items()},
            "float": {key: floating for key, (_, floating) in val.items()},
        },
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def compare(rows: Sequence[Mapping[str, Any]], integers: str, floating: str) -> str:
    """Return the integers of a network less another network in floating point, in points, ± the standard error."""
    differences = [100 * (row["integers"][integers] - row["float"][floating]) for row in rows]
    error = f" ± {np.std(differences, ddof=1) / np.sqrt(len(differences)):.1f}" if len(differences) > 1 else ""
    return f"{np.mean(differences):+.1f}{error}"


def compare_kept(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `compare` of what validation keeps: integers as learnt in floating point, or rounded last where these lose there.

    A dash where a run does not state validation.
    """
    if any("validation" not in row for row in rows):
        return "–"

    def keep(row: Mapping[str, Any]) -> float:
        integers, floating = row["validation"]["integers"], row["validation"]["float"]
        learns = floating["longer"] - integers["longer"] > TOLERANCE and integers["rounded_last"] > integers["longer"]
        return float(row["integers"]["rounded_last" if learns else "longer"])

    return compare([{**row, "integers": {"kept": keep(row)}} for row in rows], "kept", "longer")


def write_families(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table over the tasks of each chip, at 8 and at 4 bits."""
    lines = [
        "| chip | runs | as trained − itself | learnt on − itself | rounded − learnt on | rounded last − learnt on | "
        "− in the same halves |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    pairs = (
        ("trained", "trained"), ("longer", "longer"), ("rounded", "longer"), ("rounded_last", "longer"), ("rounded_last", HALVES),
    )  # fmt: skip
    for chip, bits in (("loihi2", 8), ("loihi2", 4), ("speck2f", 8), ("xylo_audio2", 8)):
        of = [row for row in rows if (CASES[row["case"]].chip, CASES[row["case"]].bits) == (chip, bits)]
        if of:
            texts = " | ".join(compare(of, *pair) for pair in pairs)
            lines.append(f"| {chip}, {bits} bits | {len(of)} | {texts} |")
    return lines


def write_range(seeds: Sequence[int]) -> str:
    """Return seeds in short: 0–11 where they follow one another.

    >>> write_range([0, 1, 2, 3]), write_range([0, 2])
    ('0–3', '0, 2')
    """
    follow = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}–{seeds[-1]}" if follow else ", ".join(map(str, seeds))


def write_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: accuracy of floating point and of integers, mean over the seeds."""
    lines = [
        "# Integers with and without quantisation-aware learning", "",
        f"{len(rows)} runs of `python -m tests.benchmarks.qat`, mean over seeds. Test accuracy of a chip's integers, in "
        f"per cent;",
        "in brackets that of the same network in floating point, which says little where the chip's neurons do what "
        "others cannot.",
        "[Tasks](index.md#tasks); raw data: [qat.json](qat.json).", "",
        "- *As trained*: the network is quantised as it is.",
        "- *Learnt on*: quantised after so many more *epochs* in floating point.",
        "- *Rounded*: after as many epochs with the chip's weights, biases, decays, thresholds and spikes in the forward pass.",
        "- *Rounded last*: after as many epochs, of which the second half has them. So `prune` learns, where the integers "
        "lose more",
        f"  than 0.3 points on validation, and {FASTER:.2g} times as fast where they lose more than {100 * MUCH:g}.", "",
        "The last columns are integers less a network that learnt as long in floating point, ± the standard error "
        "over seeds:",
        "*learnt on* less itself in floating point; *rounded* and *rounded last* less *learnt on*; *rounded last* "
        "less a network",
        "that learnt in the same two halves, each with a learning rate that rises and falls, so that rounding alone differs;",
        f"and *kept*: *learnt on* where its integers lose at most {100 * TOLERANCE:.1f} points on validation, else the better "
        "of it and *rounded last* there.",
        "A dash stands where runs are older: they did not record validation, and learnt at one rate.", "",
        "| task | chip | seeds | epochs | as trained | learnt on | rounded | rounded last | learnt on − itself | "
        "rounded − learnt on | rounded last − learnt on | − in the same halves | kept − learnt on |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for name, case in CASES.items():
        of = [row for row in rows if row["case"] == name]
        if not of:
            continue
        means = {
            key: tuple(100 * np.mean([row[kind][key] for row in of]) for kind in ("integers", "float"))
            for key in ("trained", "longer", "rounded", "rounded_last")
        }
        texts = [f"{integers:.1f} ({floating:.1f})" for integers, floating in means.values()]
        seeds = write_range(sorted(row["seed"] for row in of))
        pairs = (("longer", "longer"), ("rounded", "longer"), ("rounded_last", "longer"), ("rounded_last", HALVES))
        texts += [*(compare(of, *pair) for pair in pairs), compare_kept(of)]
        lines.append(f"| {case.task} | {case.chip}, {case.bits} bits | {seeds} | {case.epochs} | {' | '.join(texts)} |")
    lines += ["", *write_families(rows)]
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
