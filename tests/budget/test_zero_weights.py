"""Weights of zero: SynOps, energy and memory by chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.zero_weights import fill_zero_weights
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.placement.place import place
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.simulator import SpikeCounts

ODIN, XYLO, LOIHI2 = (load_profile(name) for name in ("odin", "xylo_audio2", "loihi2"))


def sparse_net(zeros: int) -> SNNGraph:
    """8 → 8 → 4, dense, with so many weights of zero in the first layer."""
    weight = np.ones((8, 8), np.float32)
    weight.flat[1 : 1 + zeros] = 0
    layers = (Layer(name="a", synapse=Dense(weight=weight), neuron=IF(reset="subtract")),
              Layer(name="b", synapse=Dense(weight=np.ones((4, 8), np.float32)), neuron=IF(reset="subtract")))  # fmt: skip
    return chain(layers, input_shape=(8,))


def test_a_chip_that_skips_no_zeros_works_on_them() -> None:
    """One spike a neuron: 64 + 32 synapses, 10 of them zero; ODIN's 12.7 pJ are paid for all 96."""
    report = check(sparse_net(10), ODIN, activity=1.0)
    assert (report.synops, report.chip_synops) == (86, 96)
    assert report.energy.total == pytest.approx(96 * 12.7e-12)
    assert report.work.synops.sum() == 96
    assert "zeros" in str(report) and "10 change nothing" in " ".join(str(report).split())
    assert check(sparse_net(0), ODIN, activity=1.0).energy.total == report.energy.total


def test_a_chip_that_skips_zeros_and_one_of_which_it_is_not_published() -> None:
    assert check(sparse_net(10), XYLO, activity=1.0).chip_synops == 86
    report = check(sparse_net(10), LOIHI2, activity=1.0)
    assert report.chip_synops is None and report.energy.effective_ops.synops == report.synops == 86


def test_count_and_pruner_use_the_same_fact() -> None:
    x = np.ones((1, 2, 8), bool)
    count = api.count(sparse_net(10), x, chip="odin")
    assert count.chip_synops == count.synops_total + 10
    counts = [api.count(sparse_net(10), x, chip=chip) for chip in ("xylo_audio2", "loihi2", None)]
    assert [count.chip_synops for count in counts] == [counts[0].synops_total, None, None]
    assert counts[0].neuron_ops == 12
    sent = {INPUT: np.ones(8), "a": np.ones(8), "b": np.ones(4)}
    costs = build_chip_costs(sparse_net(10), ODIN)
    energy = costs.activity(sparse_net(10), (8,), SpikeCounts(sent=sent, steps=1, samples=1))["energy_j"]
    assert energy == pytest.approx(96 * 12.7e-12)


@pytest.mark.parametrize("name", list_profiles())
def test_zeros_inside_a_layer_cost_memory_as_the_profile_says(name: str) -> None:
    profile = load_profile(name)
    full, sparse = (place(sparse_net(zeros), profile).slices_of("a") for zeros in (0, 10))
    words = [[part.memory_words for part in parts] for parts in (full, sparse)]
    if profile.weights.zero_memory.value is None:
        assert words[0] == [None] * len(full)
    else:
        assert (words[0] == words[1]) is profile.weights.zero_memory.value


def test_filled_networks() -> None:
    net = sparse_net(0)
    assert fill_zero_weights(net, ODIN) is net and fill_zero_weights(sparse_net(3), LOIHI2).layers[0].synapse.weight.min() == 0
    conv = np.array([[[[0, 2], [3, 0]]]], np.int64)
    graph = chain((Layer(name="c", synapse=Conv2d(weight=conv), neuron=IF()),), input_shape=(1, 4, 4))
    assert fill_zero_weights(graph, ODIN).layers[0].synapse.weight.tolist() == [[[[1, 1], [1, 1]]]]


def test_delays_written_as_layers_side_by_side_keep_their_zeros() -> None:
    """Two layers of which each holds the synapses of one delay: the zeros of the one are the synapses of the other."""
    early, late = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    early[:2], late[2:] = 1, 1
    graph = SNNGraph(
        layers=(Layer(name="d0", synapse=Dense(weight=early)), Layer(name="d1", synapse=Dense(weight=late)),
                Layer(name="out", neuron=IF())),
        edges=(Edge(source=INPUT, target="d0"), Edge(source=INPUT, target="d1", delay=1),
               Edge(source="d0", target="out"), Edge(source="d1", target="out")),
        input_shape=(4,),
    )  # fmt: skip
    assert fill_zero_weights(graph, ODIN) is graph
    alone = replace(graph, layers=(graph.layers[0], graph.layers[2]), edges=(graph.edges[0], graph.edges[2]))
    assert fill_zero_weights(alone, ODIN).layers[0].synapse.weight.all()
