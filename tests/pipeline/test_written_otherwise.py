"""The same network written otherwise: the same spikes, SynOps, channels, verdict and integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, SpearError
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network.channel_groups import list_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize import FORMATS, quantize
from spear_deploy.quantize.fold import fold_chained_weights
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops
from tests.interchange.test_nir_roundtrip import scattered_graph
from tests.support.rewrites import REWRITES, SAME_NEEDS, Rewritten
from tests.support.rewritten_layers import LAYER_REWRITES, SAME_LAYER_NEEDS
from tests.support.seeds import few_first
from tests.support.varied_networks import KINDS, vary_network
from tests.support.wild_graphs import wild_graph

PROFILES = {name: load_profile(name) for name in list_profiles()}
ALL, SAME = {**REWRITES, **LAYER_REWRITES}, (*SAME_NEEDS, *SAME_LAYER_NEEDS)


def draw(seed: int) -> SNNGraph:
    """Return a network: varied, with edges of all kinds, or with layers of all kinds."""
    kind = list(KINDS)[seed // 3 % len(KINDS)]
    graph: SNNGraph = (lambda: vary_network(seed, kind), lambda: scattered_graph(seed), lambda: wild_graph(seed))[seed % 3]()
    return graph


def run(written: Rewritten, x: np.ndarray) -> dict[str, Any]:
    """Return spikes by layer as it was called, SynOps, and the channels of each group."""
    graph = written.graph
    with np.errstate(all="ignore"):
        result = simulate(graph, written.turn_input(x), record=("spikes",), dtype=np.float64)
    seen: dict[str, Any] = {written.name(name): written.turn_back(name, spikes) for name, spikes in result.spikes.items()}
    try:
        seen["SynOps"] = np.float64(count_synops(graph, result.counts).total)
    except SpearError:
        seen["SynOps"] = "a loop without neurons"
    seen["channels"] = sorted((group.channels, bool(group.frozen)) for group in list_groups(graph))
    return seen


def run_integers(written: Rewritten, x: np.ndarray, family: Any) -> Any:
    """Return the spikes of a family's integers by layer as it was called, or the class of the error that refuses them."""
    try:
        integer = quantize(written.graph, format=family)
    except SpearError as error:
        return type(error).__name__
    spikes = simulate(integer, written.turn_input(x), record=("spikes",)).spikes
    return {written.name(name): written.turn_back(name, array) for name, array in spikes.items()}


def judge(graph: SNNGraph, chip: str) -> tuple[str, int, int]:
    """Return the verdict, the cores, and how many things the chip lacks."""
    report = check(fold_chained_weights(graph), PROFILES[chip], remedies=False)
    return report.verdict, report.cores_used, len(report.unsupported)


def count_equal(seeds: range) -> dict[str, int]:
    """Return by rewrite how many networks were the same."""
    counts = dict.fromkeys(ALL, 0)
    for seed in seeds:
        chip, family = list(PROFILES)[seed % len(PROFILES)], FORMATS[seed % len(FORMATS)]
        try:
            graph = draw(seed)
            x = (np.random.default_rng(seed).random((8, 2, *graph.input_shape)) < 0.5).astype(np.float32)
            before = run(Rewritten(graph), x)
        except (GraphError, SpearError):  # no network, or one whose numbers overflow
            continue
        needs, integers = judge(graph, chip), run_integers(Rewritten(graph), x, family)
        for name, rewrite in ALL.items():
            written = rewrite(graph, np.random.default_rng(seed))
            if written is None:
                continue
            where = f"{seed} {name} {chip} {family}"
            after = run(written, x)
            if name == "copies":  # an input that was added to channels keeps them no longer
                after["channels"] = before["channels"]
            np.testing.assert_equal(after, before, err_msg=where)
            if name in SAME:
                same = 1 if name in ("rename", "reorder") else 3  # cores fill and weights fold in the order of the layers
                assert judge(written.graph, chip)[:same] == needs[:same], where
                np.testing.assert_equal(run_integers(written, x, family), integers, err_msg=where)
            counts[name] += 1
    return counts


@pytest.mark.parametrize("seeds", few_first([range(7000, 7020), range(7020, 7065)], 1))
def test_networks_written_otherwise_are_the_same_networks(seeds: range) -> None:
    counts = count_equal(seeds)
    assert min(counts.values()) >= 2, counts


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_networks_written_otherwise_are_the_same_networks() -> None:
    counts = count_equal(range(8000, 8800))
    assert min(counts.values()) >= 80, counts
