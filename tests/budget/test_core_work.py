"""Work of each core against counts by neuron."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_work import measure_core_work, weigh_update
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, Dense, Layer, make_sparse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.placement.place import place
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_synops
from tests.support.chips import dense_net, matrix_onto, previous, random_net, small_chip
from tests.support.seeds import seeds

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")


def work_of(graph: SNNGraph, chip, counts: SpikeCounts):
    placement = place(graph, chip)
    traffic = count_traffic(graph, chip, placement, counts)
    return measure_core_work(chip, placement, traffic, counts.steps, stored_bits(graph, chip)), placement


def random_counts(graph: SNNGraph, seed: int) -> SpikeCounts:
    rng = np.random.default_rng(seed)
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    return SpikeCounts(sent={name: rng.integers(0, 13, graph.shape_of(name)) for name in names}, steps=4, samples=3)


def test_a_dense_network_by_hand() -> None:
    """3 → 4 → 2 on Loihi 2, 5 steps: 6 spikes into fc1, 7 into fc2; a list of 4 targets of 20 bits takes 2 words, of 2 one."""
    sent = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 0, 1, 2]), "fc2": np.array([5, 5])}
    work, _ = work_of(dense_net(3, 4, 2), LOIHI2, SpikeCounts(sent=sent, steps=5, samples=1))
    assert work.synops.tolist() == [24 / 5, 14 / 5] and work.updates.tolist() == [4, 2]
    assert work.messages_in.tolist() == [6 / 5, 7 / 5]
    assert work.memory_reads.tolist() == [6 * 2 / 5, 7 * 1 / 5]
    assert work.weight == 8.4 / 3.5 and work.fullest == 0 and work.layers == ("fc1",)
    mean = (24 / 5 + 14 / 5 + 2.4 * 6) / 2
    assert work.times_mean == pytest.approx((24 / 5 + 2.4 * 4) / mean)
    assert work.to_json() == {"core": 0, "layers": ["fc1"], **work.of_core(0), "times_mean": work.times_mean}


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_messages_into_a_core_are_those_of_every_source_neuron(seed: int) -> None:
    """A spike, of the input too, comes once to each slice that holds one of its targets."""
    rng = np.random.default_rng(seed)
    net, counts = random_net(rng), random_counts(random_net(np.random.default_rng(seed)), seed)
    chip = small_chip("loihi1", core__neurons=int(rng.integers(4, 40)), core__synapse_memory=10**6)
    work, placement = work_of(net, chip, counts)
    messages = np.zeros(placement.cores_used)
    for population in placement.populations:
        source = previous(net, population.name)
        exists = matrix_onto(net, source, population.name).reshape(*population.shape, -1)
        for part in placement.slices_of(population.name):
            taken = exists[tuple(slice(*along) for along in part.box)].reshape(part.neurons, -1).any(axis=0)
            messages[part.core] += counts.sent[source].ravel()[taken].sum() / counts.samples / counts.steps
    np.testing.assert_allclose(work.messages_in, messages)


def test_a_rate_costs_a_sparse_layer_what_it_costs_a_full_one() -> None:
    """0.1 spikes over 7,815 synapses are 781.5, whatever the order of adding, and the whole report is the same text."""
    weight = np.zeros((89, 295))
    weight.flat[np.random.default_rng(0).permutation(weight.size)[:7815]] = 1.0
    nets = [
        chain([Layer(name="a", synapse=Dense(weight=w), neuron=IF())], input_shape=(295,)) for w in (weight, make_sparse(weight))
    ]
    for chip in (LOIHI1, LOIHI2, load_profile("truenorth")):
        full, sparse = (check(net, chip, activity=0.1) for net in nets)
        assert full.synops == 781.5
        assert full.to_json() == sparse.to_json() and str(full) == str(sparse)


def test_more_spikes_than_float32_counts_one_by_one() -> None:
    """2^24 + 1 spikes of one input beside none of the other: float32 would lose one."""
    sent = {INPUT: np.array([(1 << 24) + 1, 0]), "fc1": np.zeros(3, int)}
    net, counts = dense_net(2, 3), SpikeCounts(sent=sent, steps=1 << 25, samples=1)
    traffic = count_traffic(net, LOIHI2, place(net, LOIHI2), counts)
    assert traffic.core_synops.sum() == 3 * ((1 << 24) + 1) == count_synops(net, counts).total


def test_a_crossbar_reads_a_row_a_message() -> None:
    chip = load_profile("truenorth")
    counts = random_counts(dense_net(6, 8, 4), 0)
    work, placement = work_of(dense_net(6, 8, 4), chip, counts)
    reads = np.zeros(placement.cores_used)
    for part in placement.slices:
        source = {"fc1": INPUT, "fc2": "fc1"}[part.layer]
        reads[part.core] += counts.sent[source].sum() / 12 * part.neurons
    np.testing.assert_allclose(work.memory_reads, reads)


@pytest.mark.parametrize(("name", "words"), [("truenorth", 13 * 2), ("catalyst_n1", 12 + 14), ("spinnaker1", 2 * 10 * (3 + 2))])
def test_words_of_weights_of_0_are_read_where_they_are_stored(name: str, words: int) -> None:
    """4 neurons of 1, 2, 3 and 4 spikes feed two cores of 2: one has no weights of the last, the other none of the first two."""
    weight = np.ones((4, 4))
    weight[:2, 3], weight[2:, :2] = 0, 0
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(4,))
    counts = SpikeCounts(sent={INPUT: np.array([1, 2, 3, 4]), "a": np.zeros(4)}, steps=1, samples=1)
    assert work_of(graph, small_chip(name, core__neurons=2), counts)[0].memory_reads.sum() == words


@pytest.mark.parametrize(("name", "words"), [("reckon", 4 * 6), ("truenorth", 4 * (3 + 5))])
def test_a_row_that_two_ways_share_is_read_once(name: str, words: int) -> None:
    """3 neurons of 1, 2 and 3 spikes: one way leads from the first two to 4 neurons, one from the last two to the same."""
    first, second = np.ones((4, 3)), np.ones((4, 3))
    first[:, 2] = second[:, 0] = 0
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((3, 1))), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=first)),
        Layer(name="c", synapse=Dense(weight=second)),
        Layer(name="d", neuron=IF()),
    ]
    edges = [Edge(source=s, target=t) for s, t in ((INPUT, "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"))]
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1,), output="d")
    sent = {INPUT: np.zeros(1), "a": np.array([1, 2, 3]), "d": np.zeros(4)}
    assert work_of(graph, load_profile(name), SpikeCounts(sent=sent, steps=1, samples=1))[0].memory_reads.sum() == words


@pytest.mark.parametrize(("name", "weight"), [("loihi1", 8.4 / 3.5), ("loihi2", 8.4 / 3.5), ("speck2f", 1.0)])
def test_an_update_counts_by_time_or_as_a_synop(name: str, weight: float) -> None:
    assert weigh_update(load_profile(name)) == weight


def test_an_update_counts_as_the_maker_states_where_no_time_is_known() -> None:
    chip = small_chip("loihi2", timing__synop_ns_range=None)
    assert weigh_update(chip) == 10


@pytest.mark.parametrize("name", list_profiles())
def test_every_chip_names_its_fullest_core(name: str) -> None:
    report = check(random_net(np.random.default_rng(3)), load_profile(name), activity=0.2, steps=3)
    fullest = report.to_json()["fullest_core"]
    assert set(fullest["layers"]) <= set(report.placement.layers) and fullest["times_mean"] >= 1
    assert (fullest["memory_reads"] is None) == (load_profile(name).synapse_memory.format.value is None)
    assert f"core {fullest['core']} (" in report.work.sentence and "work " in str(report)


def test_without_activity_there_is_no_work() -> None:
    assert check(dense_net(3, 4), LOIHI2).to_json()["fullest_core"] is None
