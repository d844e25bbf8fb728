"""Ways of spikes through layers without neurons."""

import numpy as np

from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.spike_paths import carries_spikes, find_delayed_paths
from tests.support.reference import random_graph


def test_carries_spikes_through_pools_and_sums_of_spikes_only():
    graph = random_graph(0)
    assert {n: carries_spikes(graph, n) for n in ("input", "conv1", "pool", "flatten", "conv2", "out")} == {
        "input": True,
        "conv1": True,
        "pool": True,
        "flatten": True,
        "conv2": False,
        "out": False,
    }


def diamonds(count):
    """Return a chain of diamonds without neurons, one way of each a step later: 2^count ways through count + 1 delays."""
    weight = np.ones((2, 2), np.float32)
    layers = [Layer(name="first", synapse=Dense(weight=weight), neuron=IF())]
    edges, last = [Edge(source=INPUT, target="first")], "first"
    for i in range(count):
        layers += [Layer(name=f"{side}{i}") for side in "abc"]
        edges += [Edge(source=last, target=f"a{i}"), Edge(source=last, target=f"b{i}", delay=1)]
        edges += [Edge(source=f"{side}{i}", target=f"c{i}") for side in "ab"]
        last = f"c{i}"
    layers.append(Layer(name="last", synapse=Dense(weight=weight), neuron=IF()))
    return SNNGraph(layers=tuple(layers), edges=(*edges, Edge(source=last, target="last")), input_shape=(2,))


def test_ways_through_diamonds_are_counted_by_their_delay():
    paths = find_delayed_paths(diamonds(18))
    assert sorted(edge.delay for edge in paths if (edge.source, edge.target) == ("first", "last")) == list(range(1, 19))
