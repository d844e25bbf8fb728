"""Ways of spikes through layers without neurons."""

import numpy as np
import pytest

from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.spike_paths import carries_spikes, find_delayed_paths, find_loops_without_neurons, find_spike_sources
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


def draw_loops(seed):
    """Return a small graph in which layers without neurons feed each other over delays, also in loops."""
    rng = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(int(rng.integers(4, 8)))]
    neurons = {"l0", *(name for name in names[1:] if rng.random() < 0.25)}
    layers = tuple(Layer(name=name, neuron=IF() if name in neurons else None) for name in names)
    edges = [Edge(source=INPUT, target="l0"), *(Edge(source="l0", target=name) for name in names[1:] if rng.random() < 0.3)]
    edges += [Edge(source=names[i], target=names[i + 1], delay=int(rng.integers(0, 2))) for i in range(len(names) - 1)]
    for source in names:
        for target in names:
            if rng.random() < 0.25:
                edges.append(Edge(source=source, target=target, delay=int(rng.integers(1, 3))))
    return SNNGraph(layers=layers, edges=tuple(edges), input_shape=(2,), output="l0")


def walk_simple_ways(graph, name, delay=0, path=()):
    """Yield the sources of all ways back that pass no layer without neurons twice, each way by itself."""
    for edge in graph.edges_into(name):
        if edge.source == INPUT:
            continue
        if graph[edge.source].neuron is not None:
            yield edge.source, delay + edge.delay
        elif edge.source not in (*path, name):
            yield from walk_simple_ways(graph, edge.source, delay + edge.delay, (*path, name))


@pytest.mark.parametrize("block", range(10))
def test_sources_of_spikes_are_those_of_all_ways_one_by_one(block):
    loops = 0
    for seed in range(100 * block, 100 * block + 100):
        graph = draw_loops(seed)
        loops += bool(find_loops_without_neurons(graph))
        for layer in graph.layers:
            sources = find_spike_sources(graph, layer.name)
            assert sorted(sources) == sorted(set(walk_simple_ways(graph, layer.name))), (seed, layer.name)
    assert loops > 20


def test_sources_behind_a_loop_and_behind_a_second_way_of_the_same_delay_are_both_found():
    """'b' is reached from 'n' at a delay of 2 through the loop of 'a', and beside it: 's' lies behind 'a', after the second."""
    pairs = [("s", "a", 0), ("a", "b", 1), ("b", "a", 1), ("a", "n", 1), ("b", "m", 1), ("m", "n", 1), ("s", "n", 0)]
    layers = [Layer(name="s", neuron=IF()), *(Layer(name=name) for name in "abm"), Layer(name="n", neuron=IF())]
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in [(INPUT, "s", 0), *pairs]]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2,), output="n")
    assert sorted(find_spike_sources(graph, "n")) == [("s", 0), ("s", 1), ("s", 3)]


def test_sources_of_spikes_through_diamonds_are_counted_by_their_delay():
    assert sorted(find_spike_sources(diamonds(18), "last")) == [("first", delay) for delay in range(19)]
