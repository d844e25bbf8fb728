"""Random valid networks through every command that reads one: sentences of ours or results, nothing else.

    python -m tests.reliability.wild --blocks 0-50            # 100 networks a block; a block takes minutes
    python -m tests.reliability.wild --family rich --blocks 0-10

Of the family "wild" half of the networks are floating point, the others the integers of a chip; every fifth is a chain, which all
file formats hold. The family "rich" has what that one lacks (`tests/support/rich_graphs.py`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import spear_deploy as sd
from spear_deploy.errors import SpearError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LIF, CubaLIF, Dense, Layer, Neuron
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from tests.reliability.campaign import options, run_blocks
from tests.support.rich_graphs import rich_graph
from tests.support.wild_graphs import wild_graph, wild_spikes

NUMBERS = ("float", "float", "float", "loihi", "speck", "xylo")
"""Half of the networks are floating point: those alone are quantised, explained and pruned."""
CHAIN_STEP = 5
"""Every so many-th network is a chain."""
CHAINS = ("float", "loihi", "xylo", "speck")
EXPLAINED = ("loihi2", "xylo_audio2", "speck2f")
EXPORTS = {"nir": "nir", "netx": "net", "onnx": "onnx", "xylo": "npz", "speck": "json"}
"""Formats, and the suffix of a file."""
STEPS, SAMPLES, RECORDINGS, BLOCK = 4, 2, 60, 100
FIRST_SEED, FIRST_RICH_SEED = 1000, 1_000_000
"""First seed of the blocks of each family; seeds from the second on are rich networks."""
OWN, FOREIGN = "simulate --chip of its integers", "simulate --chip of another's integers"
"""Runs of a quantised network: on a chip of its family always, on others never. `simulate --chip` alone is of floating point."""
LEAST = {
    "count": 1.0, "simulate": 1.0, "check": 1.0, "rank": 1.0, "simulate --chip": 0.1, OWN: 1.0,
    "explain": 0.06, "prune": 0.15, "export nir": 0.25, "export netx": 0.08, "export onnx": 0.85, "export xylo": 0.03,
    "export speck": 0.03, "export xylo --force": 0.06, "export speck --force": 0.06,
}  # fmt: skip
"""Shares of the calls of a command that must give a result; all others are refused with a sentence."""


@dataclass(frozen=True)
class Extent:
    """How much of the suite a network goes through.

    Attributes:
        chips: that each network meets, in turn; 0: all of them.
        ranked: every so many-th network is ranked, on all chips where `chips` is 0, else on the same.
        pruned: every so many-th floating-point network is pruned in one round.
    """

    chips: int = 2
    ranked: int = 10
    pruned: int = 50


ALL = Extent(chips=0, ranked=1, pruned=1)


@dataclass
class Outcome:
    """Results and refusals by command, verdicts by chip, and what went wrong."""

    results: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    chips: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def shares(self) -> dict[str, float]:
        """Return the share of each command's calls that gave a result."""
        names = {*self.results, *self.refusals}
        return {name: self.results[name] / (self.results[name] + self.refusals[name]) for name in sorted(names)}

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"results": self.results, "refusals": self.refusals, "chips": self.chips, "wrong": self.wrong}


def random_chain(seed: int) -> SNNGraph:
    """Return a chain of 1 to 4 dense layers with neurons: of all formats, Loihi's integers, or what Xylo or Speck hold."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, rng.integers(2, 6))
    kind = CHAINS[seed // CHAIN_STEP % len(CHAINS)]
    current = {"tau_mem_s": 2e-3, "tau_syn_s": 4e-3, "w_in": 4.0}
    neurons: tuple[Neuron, ...] = (IF(v_reset=0.0), LIF(tau_s=2e-3), CubaLIF(**current))
    if kind == "xylo":
        sizes, neurons = rng.integers(2, 9, rng.integers(3, 6)), (CubaLIF(**current, reset="subtract"),)
    if kind == "speck":
        neurons = (IF(reset="subtract"),)
    layers = [
        Layer(name=f"l{n}", synapse=Dense(weight=rng.normal(size=(b, a)).astype(np.float32)), neuron=rng.choice(neurons))
        for n, (a, b) in enumerate(pairwise(int(size) for size in sizes))
    ]
    graph = chain(layers, input_shape=(int(sizes[0]),))
    return quantize(graph) if kind == "loihi" else graph


def random_network(seed: int) -> tuple[SNNGraph, str]:
    """Return the network of a seed and its kind of numbers."""
    if seed >= FIRST_RICH_SEED:
        return rich_graph(seed - FIRST_RICH_SEED)
    numbers = NUMBERS[seed % len(NUMBERS)]
    return (random_chain(seed), "chain") if seed % CHAIN_STEP == CHAIN_STEP - 1 else (wild_graph(seed, numbers), numbers)


def commands(seed: int, graph: SNNGraph, folder: Path, extent: Extent) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield the commands on a network: name, chip or format, call."""
    x = wild_spikes(graph, seed, steps=STEPS, batch=SAMPLES)
    known = list_profiles()
    chips = known if not extent.chips else [known[(seed * extent.chips + k) % len(known)] for k in range(extent.chips)]
    yield "count", "", lambda: api.count(graph, x)
    yield "simulate", "", lambda: sd.simulate(graph, x, record=("spikes", "v", "u"))
    for chip in chips:
        yield "check", chip, lambda chip=chip: sd.check(graph, chip, activity=0.1)
        held = find_chip_format(graph)
        name = "simulate --chip" if held is None else OWN if held == load_profile(chip).meta.family else FOREIGN
        yield name, chip, lambda chip=chip: sd.simulate(graph, x, chip=chip)
    if seed % extent.ranked == 0:
        yield "rank", "", lambda: sd.rank(graph, chips, activity=0.1, sort="energy")
    for chip in EXPLAINED if not graph.is_integer else ():
        yield "explain", chip, lambda chip=chip: api.explain(graph, chip, x)
    for to, suffix in EXPORTS.items():
        yield f"export {to}", "", lambda to=to, suffix=suffix: sd.export(graph, folder / f"a.{suffix}", to=to, x=x)
    for to in ("xylo", "speck") if not graph.is_integer else ():
        path = folder / f"a.{EXPORTS[to]}"
        yield f"export {to} --force", "", lambda to=to, path=path: sd.export(graph, path, to=to, x=x, force=True)
    if not graph.is_integer and seed % extent.pruned == (CHAIN_STEP - 1) % extent.pruned:
        yield "prune", "loihi2", lambda: prune_once(seed, graph, folder)


def prune_once(seed: int, graph: SNNGraph, folder: Path) -> Any:
    """Prune a network in one round to 80 % of its SynOps, on random recordings."""
    x = np.moveaxis(wild_spikes(graph, seed, steps=STEPS, batch=RECORDINGS), 0, 1).astype(np.uint8)
    np.savez(folder / "data.npz", x=x, y=np.arange(RECORDINGS) % 2)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return sd.prune(graph, "loihi2", folder / "data.npz", out=out, synops="80%", method="uniform", episodes=1, epochs=1)


def run_wild(seeds: range, folder: Path, extent: Extent = Extent()) -> Outcome:
    """Return what the networks of the seeds came to."""
    outcome = Outcome()
    for seed in seeds:
        graph, numbers = random_network(seed)
        for name, where, call in commands(seed, graph, folder, extent):
            place = f"{seed} {numbers} {name} {where}".strip()
            try:
                result = call()
            except SpearError as error:
                outcome.refusals[name] += 1
                if "\n" in str(error) or not str(error):
                    outcome.wrong.append(f"{place}: no sentence: {error!r}")
            except Exception as error:
                outcome.wrong.append(f"{place}: {type(error).__name__}: {error}")
            else:
                outcome.results[name] += 1
                if name == FOREIGN:
                    outcome.wrong.append(f"{place}: ran")
                outcome.chips.update([where] if name == "check" else [])
                if name.startswith("export") and result["mismatches"] and not _is_early_bias(result):
                    outcome.wrong.append(f"{place}: {result['mismatches']} mismatches")
    return outcome


def _is_early_bias(certificate: dict[str, Any]) -> bool:
    """Return whether an export differs by what Xylo does and its certificate says: biases act before a layer's first input."""
    stated = any("acts from the chip's first step on" in text for text in certificate["approximations"])
    return stated and certificate["first_difference"] is not None


def run_block(block: str) -> dict[str, Any]:
    """Return the record of a block of networks."""
    *family, number = block.split()
    first = (FIRST_RICH_SEED if family else FIRST_SEED) + BLOCK * int(number)
    with tempfile.TemporaryDirectory() as folder:
        return run_wild(range(first, first + BLOCK), Path(folder), ALL).to_json()


def main() -> None:
    """Run a range of blocks."""
    parser = options(__doc__)
    parser.add_argument("--blocks", default="0-50", help="first and last + 1, e.g. 10-20")
    parser.add_argument("--family", choices=("wild", "rich"), default="wild", help="of networks")
    arguments = parser.parse_args()
    first, last = (int(number) for number in arguments.blocks.split("-"))
    prefix = "rich " if arguments.family == "rich" else ""
    run_blocks("wild", [f"{prefix}{n:03d}" for n in range(first, last)], run_block, record=arguments.record)


if __name__ == "__main__":
    main()
