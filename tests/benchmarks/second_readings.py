"""Integers and counts beside those of other implementations: how many spikes were compared, and how many differ.

    python -m tests.benchmarks.second_readings [--page docs/second_readings.md] [NAME…]

Each row runs networks here and in software by others, in an environment of its own; a row whose software is not there is named
and left out. With `--page` the table of the page is written anew; with names, only their rows are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from spear_deploy.data import load_data
from spear_deploy.interchange.pynn.reader import PYTHON
from spear_deploy.network import CubaLIF, Dense, Flatten, Layer, LoihiLIF
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from spear_deploy.training.fit import train
from tests.interchange import test_pynn_file, test_speck_file, test_xylo_file
from tests.interchange.test_vendor_simulators import XYLO_CHIPS
from tests.support import snn_mlir_networks
from tests.support.framework_environments import NotInstalled, find_tools, install

SUPPORT = Path(__file__).parents[1] / "support"
PAGE = Path(__file__).parents[2] / "docs" / "second_readings.md"
MADE = ("<!-- second readings -->", "<!-- end of second readings -->")
EMULATED, COUNTED, IN_ONNX, COMPILED = 24, 60, 20, 24
"""Random networks of a row."""
MLIR_TOOLS = ("snn-opt", "mlir-opt", "mlir-translate", "llc", "gcc")


@dataclass(frozen=True)
class Reading:
    """A row of the table.

    Attributes:
        what: the numbers that are read a second time.
        by: by whom.
        networks: how many.
        spikes: that they send here, or SynOps that are counted.
        differ: how many values differ.
        unit: of `spikes`.
    """

    what: str
    by: str
    networks: int
    spikes: int
    differ: int
    unit: str = "spikes"

    def row(self) -> str:
        """Return the row."""
        return f"| {self.what} | {self.by} | {self.networks} | {self.spikes:,} {self.unit} | {self.differ} |"


# ------------------------------------------------------------------------------------------------------------ networks


def random_loihi(seed: int) -> tuple[SNNGraph, Any]:
    """Return three layers of 8-bit weights, of which every other feeds itself, and their input (T, 1, inputs)."""
    rng = np.random.default_rng(seed)
    sizes, layers, edges, before = rng.integers(4, 24, 4), [], [], INPUT
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        numbers = {"decay_u": rng.integers(1, 4097), "decay_v": rng.integers(0, 2000), "v_threshold": rng.integers(60, 600)}
        layers += [
            Layer(name=f"into{k}", synapse=Dense(weight=2 * rng.integers(-100, 128, (b, a)))),
            Layer(name=f"l{k}", neuron=LoihiLIF(**numbers)),
        ]
        edges += [Edge(source=before, target=f"into{k}"), Edge(source=f"into{k}", target=f"l{k}")]
        if (seed + k) % 2:
            layers.append(Layer(name=f"loop{k}", synapse=Dense(weight=2 * rng.integers(-60, 61, (b, b)))))
            edges += [Edge(source=f"l{k}", target=f"loop{k}", delay=1), Edge(source=f"loop{k}", target=f"l{k}")]
        before = f"l{k}"
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(int(sizes[0]),), output=before)
    return graph, rng.random((80, 1, sizes[0])) < 0.3


def trained_loihi() -> tuple[SNNGraph, Any]:
    """Return integers of a network trained on the digits, and 12 of them one after the other."""
    rng, data = np.random.default_rng(0), load_data("digits")
    layers = [Layer(name="flat", synapse=Flatten())]
    for k, (a, b) in enumerate(((64, 40), (40, 10))):
        neuron = CubaLIF(tau_mem_s=0.008, tau_syn_s=0.002, w_in=2.0)
        layers.append(Layer(name=f"l{k}", synapse=Dense(weight=rng.normal(size=(b, a)) / np.sqrt(a)), neuron=neuron))
    graph = train(chain(layers, input_shape=(1, 8, 8)), data, epochs=2)
    integer = quantize(graph, calibration=np.moveaxis(data.train.x[:40], 0, 1))
    x = np.concatenate(list(np.moveaxis(data.test.x[:12], 0, 1).transpose(1, 0, 2, 3, 4)))[:, None]
    return integer, x.astype(bool)


# ---------------------------------------------------------------------------------------------------------------- rows


def read_by_emulator(name: str, title: str) -> Callable[[Path], list[Reading]]:
    """Return a row of an emulator of Loihi 1."""

    def read(folder: Path) -> list[Reading]:
        python, environment = install(name, folder)
        networks = [*(random_loihi(seed) for seed in range(EMULATED)), trained_loihi()]
        jobs: dict[str, Any] = {}
        for n, (graph, x) in enumerate(networks):
            jobs[f"{n}.x"] = x[:, 0].reshape(len(x), -1)
            for k, layer in enumerate(_list_neurons(graph)):
                neuron: Any = layer.neuron
                loops = [other.synapse.weight for other in graph.layers if other.name == f"loop{k}"]  # type: ignore[union-attr]
                jobs[f"{n}.weights{k}"] = (layer if layer.synapse else graph[f"into{k}"]).synapse.weight  # type: ignore[union-attr]
                jobs[f"{n}.loop{k}"] = loops[0] if loops else np.zeros((0, 0), int)
                jobs[f"{n}.numbers{k}"] = np.array([int(neuron.decay_u), int(neuron.decay_v), int(neuron.v_threshold)])
        np.savez(folder / "jobs.npz", **jobs)
        script = [python, "-W", "ignore", SUPPORT / "loihi_emulators.py", name, folder / "jobs.npz", folder / "spikes.npz"]
        subprocess.run(script, env=environment, check=True, capture_output=True, timeout=900)
        spikes, differ = 0, 0
        with np.load(folder / "spikes.npz") as theirs:
            for n, (graph, x) in enumerate(networks):
                run = simulate(graph, x, record=("spikes",))
                for k, layer in enumerate(_list_neurons(graph)):
                    ours = run.spikes[layer.name][:, 0]
                    spikes += int(ours.sum())
                    differ += int((ours != theirs[f"{n}.spikes{k}"]).sum())
        return [Reading("integers of the Loihi family: spikes", title, len(networks), spikes, differ)]

    return read


def read_by_vendor(chip: str, environment_name: str) -> Callable[[Path], list[Reading]]:
    """Return the row of files exported for a chip, which its maker's simulator runs."""

    def read(folder: Path) -> list[Reading]:
        python, environment = install(environment_name, folder)
        command = [python, "-W", "ignore", "-m", "tests.support.vendor_exports", folder / "row.json", chip]
        subprocess.run(command, env=environment, cwd=SUPPORT.parents[1], check=True, capture_output=True, timeout=1700)
        row = json.loads((folder / "row.json").read_text())
        return [Reading(f"file for {chip}: spikes, readouts", row["simulator"], row["networks"], row["spikes"], row["differ"])]

    return read


def read_by_neurobench(folder: Path) -> list[Reading]:
    """Have NeuroBench's harness count the SynOps of random snnTorch networks."""
    python, environment = install("neurobench", folder)
    command = [python, SUPPORT / "neurobench_networks.py", folder, str(COUNTED)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600)
    results = json.loads(done.stdout.splitlines()[-1])
    synops, differ = 0.0, 0
    for n, theirs in enumerate(results):
        graph = api.load(folder / f"{n}.nir", source="snntorch")
        with np.load(folder / f"{n}.npz") as file:
            ours = api.count(graph, file["spikes"])
        synops += ours.synops_total
        differ += (ours.synops_total, ours.macs_first_layer) != (theirs["Effective_ACs"], theirs["Effective_MACs"])
    by = "NeuroBench 2.3.0, its harness"
    return [Reading("SynOps and MACs of snnTorch networks", by, len(results), round(synops), differ, "SynOps")]


def read_by_brian2(folder: Path) -> list[Reading]:
    """Have Brian2 run exported PyNN scripts of random networks and one trained on the digits."""
    python, _ = install("pynn", folder)
    networks = [test_pynn_file.random_network(seed) for seed in test_pynn_file.SEEDS]
    jobs = [
        *((graph, test_pynn_file.spikes(graph, seed)) for seed, graph in enumerate(networks)),
        test_pynn_file.trained_digits(),
    ]
    spikes, differ = 0, 0
    with mock.patch.dict(os.environ, {PYTHON: str(python), "PYTHONPATH": ""}):
        for graph, x in jobs:
            vendor = api.export(graph, folder / "net.py", to="pynn", x=x)["vendor"]
            differ += vendor["mismatches"] + sum(row["ties"] for row in vendor["layers"])
            spikes += sum(row.get("spikes", 0) for row in vendor["layers"])
    return [Reading("PyNN script for spinnaker1: spikes, readouts", vendor["simulator"], len(jobs), spikes, differ)]


def read_by_snn_mlir(folder: Path) -> list[Reading]:
    """Have snn-mlir quantise, lower and compile random networks, and run its driver."""
    networks = {
        "ReckOn: spikes, readouts, as C": snn_mlir_networks.random_reckon,
        "the Loihi family: spikes, readouts, as C": snn_mlir_networks.random_loihi,
    }
    tools = find_tools(MLIR_TOOLS, variable="SPEAR_TEST_MLIR")
    compiler = subprocess.run(["llc", "--version"], env=os.environ | tools, check=True, capture_output=True, text=True).stdout
    version = re.findall(r"LLVM version (\S+)", compiler)[0]
    rows = []
    for what, make in networks.items():
        jobs = [make(seed) for seed in range(COMPILED)]
        spikes, differ = 0, 0
        for (graph, x), theirs in zip(jobs, run_in_snn_mlir(jobs, folder), strict=True):
            run = simulate(graph, x, record=("spikes", "v"))
            for layer, there in zip(_list_neurons(graph), theirs, strict=True):
                is_readout = layer.neuron.v_threshold is None  # type: ignore[union-attr]
                ours = (run.v if is_readout else run.spikes)[layer.name][:, 0].reshape(len(x), -1)
                spikes += 0 if is_readout else int(ours.sum())
                differ += int((ours != (snn_mlir_networks.to_readout(layer.neuron, there) if is_readout else there)).sum())
        rows.append(Reading(f"integers of {what}", f"snn-mlir 1.0.0, LLVM {version}, gcc", len(jobs), spikes, differ))
    return rows


def run_in_snn_mlir(jobs: list[tuple[SNNGraph, Any]], folder: Path) -> list[list[Any]]:
    """Return what each neuron layer of each network puts out, (T, neurons), as snn-mlir computes it."""
    tools = find_tools(MLIR_TOOLS, variable="SPEAR_TEST_MLIR")
    python, environment = install("snn_mlir", folder)
    (folder / "jobs.json").write_text(json.dumps([snn_mlir_networks.to_job(graph, x) for graph, x in jobs]))
    script = [python, "-W", "ignore", SUPPORT / "snn_mlir_runs.py", folder / "jobs.json", folder / "out.npz"]
    subprocess.run(script, env=environment | tools | {"CC": "gcc"}, check=True, capture_output=True, timeout=900)
    with np.load(folder / "out.npz") as out:
        return [[out[f"{n}.{k}"] for k in range(len(_list_neurons(graph)))] for n, (graph, _) in enumerate(jobs)]


def read_by_onnxruntime(folder: Path) -> list[Reading]:
    """Have onnxruntime run the integers of three families."""
    import onnxruntime

    rows = []
    for family, make in (
        ("loihi", lambda seed: random_loihi(seed)[0]),
        ("speck", test_speck_file.random_network),
        ("xylo", test_xylo_file.random_float_network),
    ):
        spikes, differ = 0, 0
        for seed in range(IN_ONNX):
            graph = make(seed)
            integer = graph if graph.is_integer else quantize(graph, format=family)  # type: ignore[arg-type]
            x = np.random.default_rng(seed).random((40, 2, *integer.input_shape)) < 0.3
            differ += api.export(integer, folder / "net.onnx", to="onnx", x=x)["mismatches"]
            sent = simulate(integer, x).counts.sent
            spikes += sum(int(np.sum(count)) for name, count in sent.items() if name != INPUT)
        rows.append(
            Reading(
                f"integers of the {family} family, as ONNX", f"onnxruntime {onnxruntime.__version__}", IN_ONNX, spikes, differ
            )
        )
    return rows


READERS: dict[str, Callable[[Path], list[Reading]]] = {
    "nengo-loihi": read_by_emulator("nengo_loihi", "nengo-loihi 1.1.0, its emulator"),
    "brian2-loihi": read_by_emulator("brian2_loihi", "Brian2Loihi 0.5.2"),
    **{f"xylosim:{chip}": read_by_vendor(chip, "xylo") for chip in XYLO_CHIPS},
    "sinabs": read_by_vendor("speck2f", "sinabs"),
    "brian2": read_by_brian2,
    "neurobench": read_by_neurobench,
    "snn-mlir": read_by_snn_mlir,
    "onnxruntime": read_by_onnxruntime,
}
"""By name, the rows of a software."""


def read_all(names: list[str]) -> tuple[list[Reading], list[str]]:
    """Return the rows, and a sentence for each software that is not there."""
    rows: list[Reading] = []
    skipped = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows += READERS[name](Path(folder))
            except NotInstalled as reason:
                skipped.append(f"{name}: not installed ({reason})")
    return rows, skipped


def write_table(rows: list[Reading], page: Path, *, keep: bool = False) -> None:
    """Put the rows into the page.

    Args:
        rows: of the table.
        page: with the two marks.
        keep: rows of the page on other numbers stay, behind these.
    """
    text = page.read_text(encoding="utf-8")
    start, end = (re.escape(mark) for mark in MADE)
    lines = {tuple(line.split(" | ")[:2]): line for line in (row.row() for row in rows)}
    if keep:
        before = re.findall(r"^\| .*", text.partition(MADE[0])[2].partition(MADE[1])[0], re.MULTILINE)[1:]
        lines |= {key: line for line in before if (key := tuple(line.split(" | ")[:2])) not in lines}
    head = "| numbers | read by | networks | compared | differ |\n|---|---|--:|--:|--:|\n"
    table = MADE[0] + "\n" + head + "\n".join(sorted(lines.values())) + "\n" + MADE[1]
    page.write_text(re.sub(f"{start}.*?{end}", lambda _: table, text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(READERS)}")
    parser.add_argument("--page", type=Path, help="page that gets the table")
    options = parser.parse_args()
    rows, skipped = read_all(options.names or list(READERS))
    print(*(row.row() for row in rows), *(f"skipped {text}" for text in skipped), sep="\n")
    if options.page is not None:
        write_table(rows, options.page, keep=bool(options.names))


def _list_neurons(graph: SNNGraph) -> list[Layer]:
    return [layer for layer in graph.layers if layer.neuron is not None]


if __name__ == "__main__":
    main()
