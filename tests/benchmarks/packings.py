"""Fullest core of the vendor's packing, of the balanced one and of random ones, on five networks.

    python -m tests.benchmarks.packings [--page docs/semantics.md]

Random packings cut each layer into as many parts along each axis as the balanced packing does, at random places: what the choice
of places gains beyond the number of cores. 20 a network; their best and median are stated.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from spear_deploy.budget.check import check
from spear_deploy.budget.core_work import measure_core_work
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import LIF, Conv2d, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.placement.place import Placement, place_populations
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.simulator import SpikeCounts, simulate

MADE = ("<!-- packings -->", "<!-- end of packings -->")
CHIP, RANDOM, STEPS = "loihi2", 20, 16
HEAD = (
    "| network | cores: vendor, balanced | fullest core: vendor | balanced | random, best | random, median "
    "| time balanced, of vendor's |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def list_networks() -> dict[str, tuple[SNNGraph, SpikeCounts]]:
    """Return five networks with the spikes of a run."""
    rng = np.random.default_rng(0)

    def dense(name: str, out: int, inputs: int) -> Layer:
        return Layer(
            name=name, synapse=Dense(weight=rng.normal(0.05, 2 / np.sqrt(inputs), (out, inputs))), neuron=LIF(tau_s=0.004)
        )

    def conv(name: str, out: int, inputs: int, stride: int = 1) -> Layer:
        weight = rng.normal(0.02, 1 / np.sqrt(9 * inputs), (out, inputs, 3, 3))
        return Layer(name=name, synapse=Conv2d(weight=weight, stride=(stride,) * 2, padding=(1, 1)), neuron=LIF(tau_s=0.004))

    def pool(name: str) -> Layer:
        return Layer(name=name, synapse=SumPool(kernel_size=(2, 2)))

    graphs = {
        "digits (ships)": api.load("digits"),
        "dense 784-512-256-10": chain([dense("a", 512, 784), dense("b", 256, 512), dense("c", 10, 256)], input_shape=(784,)),
        "dense 64-1024-16": chain([dense("a", 1024, 64), dense("b", 16, 1024)], input_shape=(64,)),
        "conv 32x32, 2 pools": chain(
            [conv("a", 16, 2), pool("p"), conv("b", 32, 16), pool("q"), Layer(name="f", synapse=Flatten()), dense("c", 10, 2048)],
            input_shape=(2, 32, 32),
        ),
        "conv 16x16, strided": chain(
            [conv("a", 8, 1), conv("b", 32, 8, stride=2), Layer(name="f", synapse=Flatten()), dense("c", 10, 2048)],
            input_shape=(1, 16, 16),
        ),
    }
    result = {}
    for name, graph in graphs.items():
        x = np.random.default_rng(1).random((STEPS, 2, *graph.input_shape)) < 0.15
        x[:, :, ..., : max(1, graph.input_shape[-1] // 4)] = False  # a quiet edge, as pictures have
        result[name] = graph, simulate(graph, x).counts
    return result


def measure(graph: SNNGraph, counts: SpikeCounts) -> dict[str, Any]:
    """Return cores and work of the fullest core under each packing."""
    profile = load_profile(CHIP)
    report = check(graph, profile, activity=counts)
    assert report.work is not None
    row: dict[str, Any] = {"vendor": float(report.work.load.max()), "cores": [report.placement.cores_used]}
    levelled = report.balanced
    if levelled is None:
        return row
    bits = stored_bits(graph, profile)
    loads = []
    for seed in range(RANDOM):
        cuts = cut_at_random(levelled.placement, np.random.default_rng(seed))
        other = place_populations(levelled.placement.populations, bits, profile, chips=1, own_cuts=cuts)
        traffic = count_traffic(graph, profile, other, counts)
        loads.append(float(measure_core_work(profile, other, traffic, counts.steps, bits).load.max()))
    row |= {"balanced": float(levelled.work.load.max()), "best": min(loads), "median": median(loads)}
    row["cores"].append(levelled.placement.cores_used)
    before, after = report.latency.interval, levelled.latency.interval
    if before is not None and after is not None and before.high and after.high:
        row["time"] = after.high / before.high
    return row


def cut_at_random(placement: Placement, rng: np.random.Generator) -> Mapping[str, Any]:
    """Return as many cuts along each axis of each layer as a placement has, at random places."""
    result = {}
    for name in placement.layers:
        boxes = [part.box for part in placement.slices_of(name)]
        along = []
        for axis in range(len(boxes[0])):
            parts = sorted({box[axis] for box in boxes})
            stop = parts[-1][1]
            inner = sorted(int(n) for n in rng.choice(np.arange(1, stop), len(parts) - 1, replace=False))
            ends = [0, *inner, stop]
            along.append(tuple(itertools.pairwise(ends)))
        result[name] = tuple(along)
    return result


def make_table() -> str:
    """Return the table."""
    lines = [HEAD]
    for name, (graph, counts) in list_networks().items():
        row = measure(graph, counts)
        cells = [f"{row[key]:,.0f}" if key in row else "-" for key in ("vendor", "balanced", "best", "median")]
        time = f"{row['time']:.0%}" if "time" in row else "-"
        lines.append(f"| {name} | {', '.join(map(str, row['cores']))} | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="page that gets the table")
    options = parser.parse_args()
    table = make_table()
    print(table)
    if options.page is not None:
        start, end = (re.escape(mark) for mark in MADE)
        made = f"{MADE[0]}\n{table}\n{MADE[1]}"
        text = options.page.read_text(encoding="utf-8")
        options.page.write_text(re.sub(f"{start}.*?{end}", lambda _: made, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
