"""SynOps by other tools' rules on a stride-2 convolution."""

import numpy as np
import pytest

from spear_deploy.network import IF, Conv2d, Dense, Flatten, Layer, Scale
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_by_rules, count_synops
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds
from tests.support.wild_graphs import wild_graph, wild_spikes


def test_rules_of_a_strided_convolution_with_zero_weights():
    weight = np.ones((4, 2, 3, 3))
    weight[:2] = 0
    layer = Layer(name="conv", synapse=Conv2d(weight=weight, stride=(2, 2)), neuron=IF())
    graph = chain([layer], input_shape=(2, 5, 5))
    run = simulate(graph, np.ones((1, 1, 2, 5, 5), bool))
    rules = count_by_rules(graph, run.counts)
    assert rules == {
        "exact": 2 * 2 * 9 * 4,
        "all_weights": 4 * 2 * 9 * 4,
        "kernel": 50 * 4 * 9,
        "mean_rate": 4 * 2 * 9 * 4,
    }


def test_rules_agree_on_a_dense_layer_without_zeros():
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((4, 3))), neuron=IF())], input_shape=(3,))
    run = simulate(graph, np.array([[[1, 0, 1]]]))
    assert set(count_by_rules(graph, run.counts).values()) == {8.0}


@pytest.mark.parametrize("seed", range(6))
def test_exact_is_the_count_itself(seed):
    graph = random_graph(seed)
    counts = simulate(graph, random_spikes(graph, seed)).counts
    rules = count_by_rules(graph, counts)
    assert rules["exact"] == pytest.approx(count_synops(graph, counts).total)
    assert rules["all_weights"] >= rules["exact"]


@pytest.mark.parametrize("kind", ["spikes", "current"])
@pytest.mark.parametrize("seed", seeds(6, 30))
def test_exact_is_the_count_itself_on_networks_of_all_layers(seed, kind):
    graph = wild_graph(seed)
    counts = simulate(graph, wild_spikes(graph, seed), kind=kind).counts
    assert count_by_rules(graph, counts)["exact"] == pytest.approx(count_synops(graph, counts).total)


def test_weights_of_zero_of_a_scale_are_no_synapses():
    graph = chain([Layer(name="s", synapse=Scale(weight=[1.0, 0.0, 2.0]), neuron=IF())], input_shape=(3,))
    run = simulate(graph, np.ones((1, 1, 3), bool))
    assert count_by_rules(graph, run.counts) == {"exact": 2, "all_weights": 3, "kernel": 3, "mean_rate": 3}


def test_an_analogue_input_is_left_out_also_where_it_is_reshaped_first():
    dense = Layer(name="fc", synapse=Dense(weight=np.ones((4, 3))), neuron=IF())
    for layers in ([dense], [Layer(name="flat", synapse=Flatten()), dense]):
        graph = chain(layers, input_shape=(3,))
        run = simulate(graph, np.ones((1, 1, 3)), kind="current")
        assert set(count_by_rules(graph, run.counts).values()) == {0.0}
