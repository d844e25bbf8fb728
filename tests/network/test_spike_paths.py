"""Ways of spikes through layers without neurons."""

from itertools import groupby

import networkx as nx
import numpy as np
import pytest

from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.spike_paths import carries_spikes, find_delayed_paths, find_loops_without_neurons, find_spike_sources
from tests.support.reference import random_graph
from tests.support.seeds import seeds


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


def walk_simple_ways(name, steps, path=(), delays=()):
    """Yield the layers and delays of all ways that pass no layer twice, each by itself; `steps` are those that pass spikes on."""
    yield (*path, name), delays
    if name in steps:
        for after, delay in steps[name]:
            if after not in (*path, name):
                yield from walk_simple_ways(after, steps, (*path, name), (*delays, delay))


def list_ends(starts, steps):
    """Return the layers and delays behind (layer, delay): of all simple ways those that cross each loop by the shortest way."""
    view = nx.DiGraph([(name, after) for name in steps for after, _ in steps[name]])
    loop_of = {name: frozenset(loop) for loop in nx.strongly_connected_components(view) for name in loop}
    ends, all_ends = set(), set()
    for start, first in starts:
        ways = list(walk_simple_ways(start, steps))
        for names, delays in ways:
            all_ends.add((names[-1], first + sum(delays)))
            loops = [loop_of.get(name, name) for name in names]
            stretches = [list(part) for _, part in groupby(range(len(names)), loops.__getitem__)]
            spans = [(part[0], part[-1]) for part in stretches]
            if all(sum(delays[i:j]) == shortest(names[i], names[j], loop_of, steps) for i, j in spans):
                ends.add((names[-1], first + sum(delays)))
    return ends, all_ends


def shortest(start, end, loop_of, steps):
    """Return the delay of the shortest way within a loop, by trying all."""
    loop = loop_of.get(start, {start})
    inside = {name: [(after, delay) for after, delay in steps[name] if after in loop] for name in loop if name in steps}
    return min(sum(delays) for names, delays in walk_simple_ways(start, inside) if names[-1] == end)


@pytest.mark.parametrize("block", seeds(3, 10))
def test_sources_of_spikes_are_those_of_all_ways_one_by_one(block):
    """A loop is crossed by the shortest way; the shortest delay from each source is that of all ways."""
    loops = 0
    for seed in range(100 * block, 100 * block + 100):
        graph = draw_loops(seed)
        loops += bool(find_loops_without_neurons(graph))
        plain = {layer.name for layer in graph.layers if layer.neuron is None}
        steps = {name: [(e.source, e.delay) for e in graph.edges_into(name) if e.source != INPUT] for name in plain}
        for layer in graph.layers:
            into = [(e.source, e.delay) for e in graph.edges_into(layer.name) if e.source != INPUT]
            starts = into if layer.neuron is not None else [(layer.name, 0)]
            ends, all_ends = ({end for end in each if end[0] not in plain} for each in list_ends(starts, steps))
            sources = find_spike_sources(graph, layer.name)
            assert sorted(sources) == sorted(ends) and ends <= all_ends, (seed, layer.name)
            for name in {name for name, _ in all_ends}:
                assert min(d for n, d in ends if n == name) == min(d for n, d in all_ends if n == name), (seed, layer.name)
            if not find_loops_without_neurons(graph):
                assert ends == all_ends
    assert loops > 20


@pytest.mark.parametrize("block", range(4))
def test_delayed_paths_are_those_of_all_ways_one_by_one(block):
    for seed in range(50 * block, 50 * block + 50):
        graph = draw_loops(seed)
        steps = {
            layer.name: [(e.target, e.delay) for e in graph.edges_from(layer.name)]
            for layer in graph.layers
            if layer.neuron is None and carries_spikes(graph, layer.name)
        }
        expected = set()
        for source in (INPUT, *(layer.name for layer in graph.layers if layer.spikes)):
            ends, _ = list_ends([(e.target, e.delay) for e in graph.edges_from(source)], steps)
            expected |= {Edge(source=source, target=end, delay=delay) for end, delay in ends if delay}
        assert find_delayed_paths(graph) == sorted(expected), seed


def test_a_mesh_of_loops_takes_no_time_for_each_of_its_ways():
    """40 layers without neurons that all feed each other have more ways than can be followed."""
    names = [f"m{i}" for i in range(40)]
    edges = [Edge(source=INPUT, target="n"), Edge(source="n", target="m0"), Edge(source="m39", target="n", delay=1)]
    edges += [Edge(source=a, target=b, delay=int(a >= b) + 1) for a in names for b in names]
    layers = [Layer(name="n", neuron=IF()), *(Layer(name=name) for name in names)]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2,), output="n")
    assert find_spike_sources(graph, "n") == [("n", 2)]
    paths = find_delayed_paths(graph)
    assert {(e.source, e.target) for e in paths} == {("n", name) for name in ["n", *names]} - {("n", "m0")}


def test_sources_behind_a_loop_and_behind_a_second_way_of_the_same_delay_are_both_found():
    """'b' is reached from 'n' at a delay of 2 through the loop of 'a', and beside it: 's' lies behind 'a', after the second."""
    pairs = [("s", "a", 0), ("a", "b", 1), ("b", "a", 1), ("a", "n", 1), ("b", "m", 1), ("m", "n", 1), ("s", "n", 0)]
    layers = [Layer(name="s", neuron=IF()), *(Layer(name=name) for name in "abm"), Layer(name="n", neuron=IF())]
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in [(INPUT, "s", 0), *pairs]]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2,), output="n")
    assert sorted(find_spike_sources(graph, "n")) == [("s", 0), ("s", 1), ("s", 3)]


def test_sources_of_spikes_through_diamonds_are_counted_by_their_delay():
    assert sorted(find_spike_sources(diamonds(18), "last")) == [("first", delay) for delay in range(19)]
