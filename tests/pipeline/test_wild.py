"""Random valid networks through every command that reads one: sentences of ours or results, nothing else.

100 networks by default, 5,000 with `-m slow`. Each count has a least number that must go through, so that a command that refuses
everything fails the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.errors import SpearError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.network import IF, LIF, CubaLIF, Dense, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from tests.support.wild_graphs import wild_graph, wild_spikes

NUMBERS = ("float", "float", "float", "loihi", "speck", "xylo")
"""Half of the networks are floating point: those alone are quantised and explained."""
CHIPS_A_NETWORK = 3
STEPS, SAMPLES = 4, 2


def random_chain(seed: int) -> SNNGraph:
    """Return a chain of 1 to 4 dense layers with neurons, as all file formats hold."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, rng.integers(2, 6))
    neurons = (IF(v_reset=0.0), LIF(tau_s=2e-3), CubaLIF(tau_mem_s=2e-3, tau_syn_s=4e-3, w_in=4.0))
    layers = [
        Layer(name=f"l{n}", synapse=Dense(weight=rng.normal(size=(b, a)).astype(np.float32)), neuron=neurons[rng.integers(3)])
        for n, (a, b) in enumerate(pairwise(int(size) for size in sizes))
    ]
    graph = chain(layers, input_shape=(int(sizes[0]),))
    return quantize(graph) if seed % 2 else graph


def commands(seed: int, graph: SNNGraph, folder: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the commands on a network, three chips in turn each."""
    x = wild_spikes(graph, seed, steps=STEPS, batch=SAMPLES)
    chips = list_profiles()
    yield "count", lambda: api.count(graph, x)
    yield "simulate", lambda: sd.simulate(graph, x, record=("spikes", "v", "u"))
    for k in range(CHIPS_A_NETWORK):
        chip = chips[(seed * CHIPS_A_NETWORK + k) % len(chips)]
        yield "check", lambda chip=chip: sd.check(graph, chip, activity=0.1)
        yield "simulate --chip", lambda chip=chip: sd.simulate(graph, x, chip=chip)
    for chip in ("loihi2", "xylo_audio2", "speck2f") if not graph.is_integer else ():
        yield "explain", lambda chip=chip: api.explain(graph, chip, x)
    for to, suffix in (("nir", "nir"), ("netx", "net"), ("onnx", "onnx")):
        yield f"export {to}", lambda to=to, suffix=suffix: sd.export(graph, folder / f"a.{suffix}", to=to, x=x)


def run_wild(seeds: range, folder: Any) -> tuple[Counter[str], Counter[str], list[str]]:
    """Return (results, refusals) by command, and what went wrong."""
    results: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in seeds:
        numbers = NUMBERS[seed % len(NUMBERS)]
        graph = random_chain(seed) if seed % 5 == 4 else wild_graph(seed, numbers)
        for name, work in commands(seed, graph, folder):
            try:
                outcome = work()
            except SpearError as error:
                refusals[name] += 1
                if "\n" in str(error) or not str(error):
                    wrong.append(f"{seed} {numbers} {name}: no sentence: {error!r}")
            except Exception as error:
                wrong.append(f"{seed} {numbers} {name}: {type(error).__name__}: {error}")
            else:
                results[name] += 1
                if name.startswith("export") and outcome["mismatches"]:
                    wrong.append(f"{seed} {numbers} {name}: {outcome['mismatches']} mismatches")
    return results, refusals, wrong


LEAST = {
    "count": 1.0, "simulate": 1.0, "check": 1.0, "simulate --chip": 0.35, "explain": 0.06, "export nir": 0.25,
    "export netx": 0.12, "export onnx": 0.85,
}  # fmt: skip
"""Shares of the calls of a command that must give a result; all others are refused with a sentence."""


def check_shares(results: Counter[str], refusals: Counter[str], wrong: list[str]) -> None:
    assert not wrong, "\n".join(wrong[:20])
    shares = {name: results[name] / (results[name] + refusals[name]) for name in LEAST}
    assert all(shares[name] >= least for name, least in LEAST.items()), shares


def test_100_random_networks_go_through_all_commands(tmp_path):
    check_shares(*run_wild(range(100), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("block", range(50))
def test_5000_random_networks_go_through_all_commands(tmp_path, block):
    check_shares(*run_wild(range(1000 + 100 * block, 1100 + 100 * block), tmp_path))


@pytest.mark.slow
def test_random_networks_are_ranked_and_pruned(tmp_path):
    """One round of pruning on 40 networks, and all chips ranked for 40: at least 10 are pruned."""
    pruned = 0
    for seed in range(40):
        graph = wild_graph(seed)
        assert len(sd.rank(graph)) == len(list_profiles())
        x = np.moveaxis(wild_spikes(graph, seed, steps=STEPS, batch=60), 0, 1).astype(np.uint8)
        np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 2)
        options = {"synops": "80%", "method": "uniform", "episodes": 1, "epochs": 1}
        try:
            sd.prune(graph, "loihi2", tmp_path / "data.npz", out=tmp_path / f"out{seed}", **options)
            pruned += 1
        except SpearError:
            continue
    assert pruned >= 10
