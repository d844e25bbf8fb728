"""Weights of zero: SynOps, energy and memory by chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.zero_weights import fill_zero_weights
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, LIF, Conv2d, Dense, Layer, Scale
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import place
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_synops

ODIN, XYLO, LOIHI2, SPINNAKER1, RECKON = map(load_profile, ("odin", "xylo_audio2", "loihi2", "spinnaker1", "reckon"))


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


def beside_net(weights: dict[str, np.ndarray], delays: tuple[int, ...] = (0, 1, 2)) -> SNNGraph:
    """Layers of dense weights side by side from the input to neurons `out`."""
    beside = tuple(Layer(name=name, synapse=Dense(weight=weight.astype(np.float32))) for name, weight in weights.items())
    out = Layer(name="out", neuron=LIF(tau_s=4e-3))
    edges = [Edge(source=INPUT, target=name, delay=delay) for name, delay in zip(weights, delays, strict=False)]
    edges += [Edge(source=name, target="out") for name in weights]
    inputs = next(iter(weights.values())).shape[1]
    return SNNGraph(layers=(*beside, out), edges=tuple(edges), input_shape=(inputs,), dt_s=1e-3)


def spikes_of(graph: SNNGraph, number: float) -> SpikeCounts:
    sent = {INPUT: np.full(graph.input_shape, number), "out": np.zeros(graph.shape_of("out"))}
    return SpikeCounts(sent=sent, steps=1, samples=1)


def test_zeros_of_layers_side_by_side_that_overlap_are_worked_on_in_each() -> None:
    """Two lists of 10 inputs to 7 neurons, 45 weights each that are not 0, some of the same pairs: 140 synapses, not 90."""
    weights = {name: np.ones((7, 10)) for name in ("d0", "d1")}
    weights["d0"].flat[:25], weights["d1"].flat[20:45] = 0, 0
    graph = beside_net(weights)
    report = check(graph, SPINNAKER1, activity=1.0)
    assert (report.synops, report.chip_synops) == (90, 140)
    assert report.work.synops.sum() == 140


def test_layers_side_by_side_that_share_no_synapse_are_one_list() -> None:
    """Two layers of which each holds the synapses of one delay, and zeros that belong to neither: 16 pairs of neurons."""
    early, late = np.zeros((4, 4)), np.zeros((4, 4))
    early[:2, 1:], late[2:] = 1, 1
    graph = beside_net({"late": late, "early": early}, delays=(3, 1))
    filled = fill_zero_weights(graph, SPINNAKER1)
    assert filled["early"].synapse.weight.all() and not filled["late"].synapse.weight.any()
    report = check(graph, SPINNAKER1, activity=1.0)
    assert (report.synops, report.chip_synops, report.work.synops.sum()) == (14, 16, 16)
    assert fill_zero_weights(beside_net({"early": early}), SPINNAKER1)["early"].synapse.weight.all()


def test_a_chip_with_one_weight_for_a_pair_works_on_it_once() -> None:
    """ReckOn adds both layers in 70 cells, also of pairs that both connect; a way of another kind beside it stays as it is."""
    weights = {name: np.ones((7, 10)) for name in ("d0", "d1")}
    weights["d0"].flat[:25] = 0
    assert count_synops(fill_zero_weights(beside_net(weights), RECKON), spikes_of(beside_net(weights), 2)).total == 140
    square = beside_net({"d0": np.eye(5)})
    skip = Layer(name="skip", synapse=Scale(weight=np.array([1, 0, 1, 0, 1], np.float32)))
    edges = (*square.edges, Edge(source=INPUT, target="skip"), Edge(source="skip", target="out"))
    mixed = replace(square, layers=(square.layers[0], skip, square.layers[1]), edges=edges)
    assert fill_zero_weights(mixed, RECKON) is mixed
    assert count_synops(fill_zero_weights(mixed, SPINNAKER1), spikes_of(mixed, 1)).total == 25 + 5


@pytest.mark.parametrize("chip", ["spinnaker1", "reckon"])
@pytest.mark.parametrize("seed", range(6))
def test_synops_on_zeros_are_those_of_the_rows_that_are_placed(seed: int, chip: str) -> None:
    """A loop over the rows of each placed list: a spike is worked on once for each neuron of the row."""
    rng, profile = np.random.default_rng(seed), load_profile(chip)
    owner = rng.integers(0, 4, (5, 6))  # 3: of no layer
    weights = {f"d{k}": np.where(owner == k, 1.0, 0.0) for k in range(3)}
    if seed % 2:
        weights["d1"][owner == 0] = 2.0
    graph = beside_net(weights, delays=(0, 0, 0))
    counts = spikes_of(graph, 1)
    counts.sent[INPUT][:] = rng.integers(0, 9, 6)
    expected = 0.0
    for population in find_chip_populations(graph, profile):
        for projection in population.synapses:
            for _ in projection.sources:
                expected += sum(counts.sent[INPUT][i] for i in range(6) for _ in range(projection.outputs))
    assert count_synops(fill_zero_weights(graph, profile), counts).total == expected
