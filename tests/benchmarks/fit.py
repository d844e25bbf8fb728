"""Fit benchmark: networks that do not fit their chip, made to fit by the default and by uniform widths.

    python -m tests.benchmarks.fit --out results/fit
    python -m tests.benchmarks.fit --out results/fit --docs docs/benchmarks

Each network has one layer or two that the chip cannot hold. `prune --chip X` without any budget makes it fit. The default runs
first; `uniform` gets as many epochs of fine-tuning as bring it to at least as many batches in all, search included. One JSON file
a row; existing files are skipped, so the command may be stopped and started again. Test accuracy, of the chip's integers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.budget.check import check
from spear_deploy.data import Dataset, Split, digits
from spear_deploy.data.input_sums import sum_windows
from spear_deploy.errors import SpearError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, Conv2d, Dense, Layer, Neuron
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.pipeline.prune import PRUNED, prune
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Recipe
from spear_deploy.util.files import write_json
from tests.benchmarks.search_tasks import Net, norm

BATCH = 64
MIN_TRAINED = 0.5
"""Accuracy of a trained network below which its rows say nothing about pruning."""
METHODS: dict[str, str | None] = {"default": None, "uniform": "uniform"}


@dataclass(frozen=True)
class Case:
    """A network that does not fit a chip, and its data."""

    chip: str
    why: str
    network: Callable[[int], SNNGraph]
    data: Callable[[int], Dataset]
    train_epochs: int = 20
    epochs: int = 6


def convolutions(seed: int, widths: tuple[int, int], neuron: Neuron, stride: int) -> SNNGraph:
    """Two convolutions with batch norm and a dense output, of the same neurons."""
    net, side = Net(seed, (1, 8, 8)), 8
    after, channels = INPUT, 1
    for name, width in zip(("conv1", "conv2"), widths, strict=True):
        synapse = Conv2d(weight=2 * net.uniform(width, channels, 3, 3), padding=(1, 1), stride=(stride, stride))
        after = net.add(name, after, synapse=synapse, norm=norm(width), neuron=neuron)
        channels, side = width, -(-side // stride)
    out = net.add("out", after, synapse=Dense(weight=2 * net.uniform(10, channels * side * side)), neuron=neuron)
    return SNNGraph(layers=tuple(net.layers), edges=tuple(net.edges), input_shape=(1, 8, 8), output=out)


def perceptron(seed: int, sizes: Sequence[int], neuron: Neuron) -> SNNGraph:
    """Dense layers of the same neurons."""
    net, after = Net(seed, (sizes[0],)), INPUT
    for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        after = net.add(f"fc{number}", after, synapse=Dense(weight=2 * net.uniform(outputs, inputs)), neuron=neuron)
    return SNNGraph(layers=tuple(net.layers), edges=tuple(net.edges), input_shape=(sizes[0],), output=after)


def recurrent(seed: int, inputs: int, hidden: int, neuron: Neuron) -> SNNGraph:
    """One recurrent layer and a readout."""
    net = Net(seed, (inputs,))
    net.add("in", INPUT, synapse=Dense(weight=2 * net.uniform(hidden, inputs)))
    net.layers.append(Layer(name="loop", synapse=Dense(weight=net.uniform(hidden, hidden) / 2)))
    net.edges.append(Edge(source="hidden", target="loop", delay=1))
    net.add("hidden", ("in", "loop"), neuron=neuron)
    out = net.add("out", "hidden", synapse=Dense(weight=net.uniform(10, hidden)), neuron=LI(tau_s=8e-3))
    return SNNGraph(layers=tuple(net.layers), edges=tuple(net.edges), input_shape=(inputs,), output=out)


def change(dataset: Dataset, edit: Callable[[Split], Split], classes: int = 10) -> Dataset:
    """Return a dataset with each split edited."""
    train, val, test = (edit(split) for split in (dataset.train, dataset.val, dataset.test))
    return Dataset(name=dataset.name, train=train, val=val, test=test, classes=classes)


def flat(seed: int) -> Dataset:
    """Digits with 64 inputs in a row."""
    return change(digits(steps=6, seed=seed), lambda split: replace(split, x=split.x.reshape(*split.x.shape[:2], 64)))


def summed(seed: int, steps: int, classes: int) -> Dataset:
    """Digits of some classes, the spikes of 2 × 2 pixels summed: 16 inputs."""

    def edit(split: Split) -> Split:
        kept = split.take(np.flatnonzero(split.y < classes))
        return replace(kept, x=sum_windows(kept.x, (2, 2)).reshape(*kept.x.shape[:2], 16))

    return change(digits(steps=steps, seed=seed), edit, classes)


CASES = {
    "speck": Case(
        "speck2f", "kernels of a layer in powers of two",
        lambda seed: convolutions(seed, (48, 160), IF(reset="subtract"), 2), lambda seed: digits(steps=6, seed=seed),
    ),
    "xylo": Case(
        "xylo_audio2", "64 targets of a neuron",
        lambda seed: perceptron(seed, (16, 160, 128, 8), LIF(tau_s=4e-3, reset="subtract")), lambda seed: summed(seed, 8, 8),
    ),
    "loihi1": Case(
        "loihi1", "4,096 axons into a core",
        lambda seed: convolutions(seed, (16, 96), LIF(tau_s=2e-3), 1), lambda seed: digits(steps=4, seed=seed),
    ),
    "truenorth": Case(
        "truenorth", "256 axons and neurons of a core", lambda seed: perceptron(seed, (64, 160, 384, 10), IF()), flat,
    ),
    "recurrent": Case(
        "reckon", "256 recurrent neurons", lambda seed: recurrent(seed, 64, 320, LIF(tau_s=8e-3)), flat,
    ),
}  # fmt: skip


def run(name: str, seed: int, method: str, batches: int, out_folder: Path) -> dict[str, Any]:
    """Make a network fit, and return what was measured on the test split; `batches` is the least that it learns from."""
    network, dataset = train_case(name, seed, out_folder)
    kept = out_folder / "trained" / f"{name}-{seed}-{method}.snn"
    case = CASES[name]
    an_epoch = -(-len(dataset.train) // BATCH)
    epochs = max(case.epochs, -(-batches // an_epoch))
    row: dict[str, Any] = {"task": name, "chip": case.chip, "seed": seed, "method": method, "epochs": epochs, "why": case.why}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        try:
            facts = prune(network, case.chip, dataset, out=out, method=METHODS[method], epochs=epochs, seed=seed)
            shutil.copyfile(Path(out) / PRUNED, kept)
        except SpearError as error:
            return {**row, "error": str(error), "fits": False, "seconds": time.perf_counter() - begin}
    names = ("accuracy", "widths", "batches", "cores_used", "verdict", "notes", "synops", "method")
    values = {name: facts[name] for name in names if name != "method"}
    return {
        **row, **values, "searched": facts["method"], "fits": facts["verdict"] != "does_not_fit",
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def train_case(name: str, seed: int, out: Path) -> tuple[SNNGraph, Dataset]:
    """Return the trained network, which does not fit, and its data; it is kept in the folder."""
    from spear_deploy.interchange.snn_file import read_snn, write_snn

    case, path = CASES[name], out / "trained" / f"{name}-{seed}.snn"
    dataset = case.data(seed)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_snn(fit(case.network(seed), dataset, Recipe(epochs=case.train_epochs, seed=seed)).graph, path)
    network = read_snn(path)
    report = check(network, load_profile(case.chip))
    assert report.verdict == "does_not_fit", f"{name} fits {case.chip}"
    return network, dataset


def write_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: each network before and after, by the default and by uniform widths."""
    found = {(row["task"], row["seed"], row["method"]): row for row in rows}
    cells = sorted({(row["task"], row["seed"]) for row in rows}, key=lambda cell: (list(CASES).index(cell[0]), cell[1]))
    lines = [
        "# Networks that do not fit", "",
        f"{len(rows)} runs of `python -m tests.benchmarks.fit`: `prune --chip X` without a budget, so that the limits of the",
        "chip are the budget. Networks for digits. Test accuracy in per cent, as trained in floating point, and as",
        "the chip's integers after pruning; in brackets the batches learnt from, search included. *Default*: without `--method`.",
        "*Uniform*: one ratio for all layers, with at least as many batches. Raw data: [fit.json](fit.json).", "",
        "| network, chip | what it exceeds | seed | trained | default | uniform | widths, default | widths, uniform |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]  # fmt: skip
    leads = []
    for task, seed in cells:
        pair = [found.get((task, seed, method)) for method in METHODS]
        first = next(row for row in pair if row)
        trained = next((100 * row["accuracy"]["dense"] for row in pair if row and "accuracy" in row), float("nan"))
        texts = [_describe(row) for row in pair]
        widths = [", ".join(f"{a}→{b}" for a, b in row["widths"].values()) if row and row["fits"] else "" for row in pair]
        lines.append(
            f"| {task}, {first['chip']} | {first['why']} | {seed} | {trained:.1f} | {' | '.join(texts)} | {' | '.join(widths)} |"
        )
        if all(row and row["fits"] for row in pair) and trained >= 100 * MIN_TRAINED:
            leads.append(100 * (pair[0]["accuracy"]["quantised"] - pair[1]["accuracy"]["quantised"]))  # type: ignore[index]
    for method in METHODS:
        of = [row for row in rows if row["method"] == method]
        lines += ["", f"`{method}` makes {sum(row['fits'] for row in of)} of {len(of)} fit."]
    if len(leads) > 1:
        error = np.std(leads, ddof=1) / np.sqrt(len(leads))
        chance = ", which may be chance" if abs(np.mean(leads)) < 2 * error else ""
        lead = f"{np.mean(leads):.1f} ± {error:.1f} points ({min(leads):.1f} to {max(leads):.1f}){chance}"
        lines += ["", f"The default is ahead by {lead}; mean over rows and its standard error."]
    hardly = [f"{row['task']} with seed {row['seed']}" for row in rows if row.get("accuracy", {}).get("dense", 1) < MIN_TRAINED]
    if hardly:
        names = ", ".join(dict.fromkeys(hardly))
        lines += ["", f"Not counted among the leads, since the trained network is hardly better than chance: {names}."]
    return "\n".join(lines) + "\n"


def _describe(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['accuracy']['quantised']:.1f} ({row['batches']['all']})" if row["fits"] else "does not fit"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--tasks", default=",".join(CASES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("results/fit"))
    parser.add_argument("--docs", type=Path, help="Write the raw data here, and the table into fit.md, e.g. docs/benchmarks.")
    args = parser.parse_args()
    for seed, task in product(map(int, args.seeds.split(",")), args.tasks.split(",")):
        batches = 0
        for method in METHODS:
            path = args.out / "runs" / f"{task}-{method}-{seed}.json"
            if not path.exists():
                write_json(path, run(task, seed, method, batches, args.out))
            row = json.loads(path.read_text(encoding="utf-8"))
            batches = row.get("batches", {}).get("all", 0)
            shown = f"{row['accuracy']['quantised']:.1%}" if "accuracy" in row else row["error"]
            print(f"{path.name}: {shown}, fits {row['fits']}, {row['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((args.out / "runs").glob("*.json"))]
    text = write_tables(rows)
    print(text)
    if args.docs:
        write_json(args.docs / "fit.json", rows)
        (args.docs / "fit.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
