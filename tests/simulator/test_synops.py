"""SynOps equal the enumeration of spikes and existing synapses."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from spear_deploy.errors import DataError
from spear_deploy.network import IF, AvgPool, BatchNorm, Conv2d, Dense, Flatten, Layer, SumPool
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain, merge_parts
from spear_deploy.network.spike_paths import find_delayed_paths
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.quantize import fold_batchnorm, quantize
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.simulator.synops import count_by_rules, count_synops, synops_per_spike
from tests.simulator.test_synapse_math import random_conv
from tests.support import reference
from tests.support.seeds import seeds
from tests.support.single_synapses import draw_graph
from tests.support.wild_graphs import wild_graph


def test_the_worked_example():
    weight = np.ones((4, 3))
    counts = SpikeCounts(sent={"input": np.array([2, 0, 1]), "fc": np.zeros(4, int)}, steps=2, samples=1)
    graph = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(3,))
    assert count_synops(graph, counts).total == 12
    weight[0, 0] = 0
    graph = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(3,))
    assert count_synops(graph, counts).per_layer == {"fc": 10}


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_convolution_equals_enumeration(seed):
    conv, shape = random_conv(seed)
    graph = chain([Layer(name="conv", synapse=conv, neuron=IF())], input_shape=shape)
    x = np.random.default_rng(seed).integers(0, 3, (4, 2, *shape))
    run = simulate(graph, x)
    assert count_synops(graph, run.counts).total == reference.conv2d_synops(conv, x.sum(axis=(0, 1))) / 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["float", "integer"])
def test_whole_networks_equal_delivery_by_delivery(seed, kind):  # noqa: C901
    """Follow each spike by itself: what it changes behind every synapse, by sending it alone through the layer."""
    graph = reference.random_graph(seed, kind=kind)
    x = reference.random_spikes(graph, seed, steps=4, batch=1)
    run = simulate(graph, x, record=("spikes",))
    spikes = {"input": x, **run.spikes}
    result = count_synops(graph, run.counts).per_layer

    def reached(source, index, layer):
        """Count the synapses behind `layer` that one spike at `index` of `source` uses."""
        unit = np.zeros((1, *graph.shape_of(source)))
        unit[0][index] = 1
        value = unit
        for name in path(source, layer):
            value = reference_pool(graph[name], value)
        synapse = graph[layer].synapse
        if synapse is None:
            return int(value.sum())
        if isinstance(synapse, Dense):
            return int((value.reshape(-1) @ (synapse.weight != 0).T).sum())
        return sum(int(value[0][at]) * synapses for at, synapses in targets(layer, value.shape[1:]).items())

    @cache
    def targets(layer, shape):
        """Count the synapses of each input of a convolution, one by one."""
        return Counter(at for at, _, weight in reference.conv2d_synapses(graph[layer].synapse, shape) if weight != 0)

    def path(source, layer):
        names, at = [], layer
        while True:
            before = next(e.source for e in graph.edges_into(at))
            if before == source or graph[before].neuron is not None:
                return names[::-1]
            names.append(before)
            at = before

    def origins(name):
        for edge in graph.edges_into(name):
            if edge.source == "input" or graph[edge.source].neuron is not None:
                yield edge.source, edge.delay
            elif type(graph[edge.source].synapse).__name__ in ("SumPool", "AvgPool", "Flatten"):
                yield from origins(edge.source)

    for name, got in result.items():
        wanted = 0
        for source, delay in origins(name):
            sent = spikes[source][: 4 - delay, 0]
            for index in np.ndindex(*graph.shape_of(source)):
                wanted += int(sent[(slice(None), *index)].sum()) * (
                    reached(source, index, name) if sent[(slice(None), *index)].any() else 0
                )
        assert got == wanted, name


def reference_pool(layer, value):
    if type(layer.synapse).__name__ == "Flatten":
        return value.reshape(1, -1)
    _, c, h, w = value.shape
    return value[:, :, : h // 2 * 2, : w // 2 * 2].reshape(1, c, h // 2, 2, w // 2, 2).sum(axis=(3, 5))


def test_analogue_input_is_macs_not_synops():
    graph = chain(
        [
            Layer(name="a", synapse=Dense(weight=np.ones((4, 3))), neuron=IF()),
            Layer(name="b", synapse=Dense(weight=np.ones((2, 4))), neuron=IF()),
        ],
        input_shape=(3,),
    )
    run = simulate(graph, np.full((5, 2, 3), 0.5), kind="current")
    result = count_synops(graph, run.counts)
    assert result.macs_first_layer == 5 * 3 * 4
    assert result.per_layer["a"] == 0
    assert result.total == result.per_layer["b"] == run.counts.sent["a"].sum() * 2 / 2 > 0


def test_averaging_costs_what_the_spike_reaches_behind_it():
    layers = [
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="fc", synapse=Dense(weight=np.ones((5, 1))), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(1, 3, 3))
    run = simulate(graph, np.ones((1, 1, 1, 3, 3), bool))
    assert count_synops(graph, run.counts).per_layer == {"fc": 4 * 5}


def test_a_spike_straight_into_a_neuron_is_one_synapse():
    layers = (Layer(name="a", neuron=IF(v_threshold=0.5)), Layer(name="b", neuron=IF()))
    graph = SNNGraph(
        layers=layers, edges=(Edge(source="input", target="a"), Edge(source="a", target="b", delay=1)), input_shape=(2,)
    )
    result = count_synops(graph, simulate(graph, np.ones((3, 1, 2), bool)).counts)
    assert result.per_layer == {"a": 6, "b": 4}


@pytest.mark.parametrize("seed", range(6))
def test_quantising_and_pruning_nothing_keeps_the_count(seed):
    graph = reference.random_graph(seed)
    counts = simulate(graph, reference.random_spikes(graph, seed)).counts
    whole = PruningPlan(kept={g.name: tuple(range(g.channels)) for g in list_prunable_groups(graph)})
    assert count_synops(prune(graph, whole), counts) == count_synops(graph, counts)
    integer = quantize(graph)
    same = SpikeCounts(
        sent=counts.sent,
        delivered={
            e: counts.delivered[old]
            for e in integer.edges
            if e.delay
            for old in graph.edges
            if (old.source, old.delay) == (e.source, e.delay)
        },
        steps=counts.steps,
        samples=counts.samples,
    )
    assert count_synops(integer, same).total <= count_synops(graph, counts).total


@pytest.mark.parametrize("synapse", [None, Flatten(), AvgPool(kernel_size=(2, 2)), SumPool(kernel_size=(2, 2))])
@pytest.mark.parametrize("delay", [0, 2])
def test_a_norm_behind_no_weights_is_one_weight_a_channel_wherever_it_stands(synapse, delay):
    """In the layer of the neurons, in a layer of its own, and folded, it costs the same; alone it cost nothing."""
    values = np.array([0.5, 2.0]) if not isinstance(synapse, Flatten) else np.linspace(0.5, 2, 32)
    norm = BatchNorm(weight=values, bias=values, mean=values, var=values)
    edges = [Edge(source="input", target="first", delay=delay)]
    together = SNNGraph(layers=[Layer(name="first", synapse=synapse, norm=norm, neuron=IF())], edges=edges, input_shape=(2, 4, 4))
    apart = SNNGraph(
        layers=[Layer(name="first", synapse=synapse, norm=norm), Layer(name="if", neuron=IF())],
        edges=[*edges, Edge(source="first", target="if")],
        input_shape=(2, 4, 4),
    )
    x = np.random.default_rng(0).random((6, 2, 2, 4, 4)) < 0.5
    expected = x[: 6 - delay].sum() / 2
    for graph in (together, apart, fold_batchnorm(together), fold_batchnorm(apart)):
        assert count_synops(graph, simulate(graph, x).counts).total == expected
        assert (synops_per_spike(graph)["input"] == 1).all()


def test_counts_of_another_network_are_refused():
    graph = reference.random_graph(0)
    counts = simulate(graph, reference.random_spikes(graph, 0)).counts
    small = prune(graph, PruningPlan(kept={"fc": (0,)}))
    with pytest.raises(DataError, match="layer 'fc': spike counts of shape"):
        count_synops(small, counts)
    with pytest.raises(DataError, match="layer 'n': the spike counts do not have it"):
        count_synops(chain([Layer(name="n", neuron=IF())], input_shape=graph.input_shape), counts)


def test_spikes_that_meet_values_over_a_delay_are_values():
    """The sum of values of a step ago and of spikes is no spikes, with or without the delay; a spike into it is one synapse."""
    layers = (
        Layer(name="a", synapse=Dense(weight=np.ones((2, 3))), neuron=IF()),
        Layer(name="value", synapse=Dense(weight=np.ones((2, 3)))),
        Layer(name="sum"),
        Layer(name="b", synapse=Dense(weight=np.ones((4, 2))), neuron=IF()),
    )
    x = np.ones((5, 1, 3), bool)
    for delay in (0, 1):
        edges = [("input", "a", 0), ("input", "value", 0), ("a", "sum", 0), ("value", "sum", delay), ("sum", "b", 0)]
        graph = SNNGraph(
            layers=layers, edges=tuple(Edge(source=s, target=t, delay=d) for s, t, d in edges), input_shape=(3,), output="b"
        )
        assert count_synops(graph, simulate(graph, x).counts).per_layer == {"a": 30, "value": 30, "sum": 10, "b": 0}


@pytest.mark.parametrize("reads", [IF(), None])
def test_spikes_into_a_sum_with_values_count_as_those_into_its_neurons(reads):
    """Neurons in a layer of their own behind the sum; a second reader of the sum takes values, which no spike reaches."""
    neurons, more = Layer(name="neurons", neuron=IF()), () if reads is None else (Layer(name="other", neuron=reads),)
    layers = (Layer(name="weighted", synapse=Dense(weight=np.ones((3, 3)))), Layer(name="sum"), neurons, *more)
    edges = [
        ("input", "weighted"),
        ("weighted", "sum"),
        ("input", "sum"),
        ("sum", "neurons"),
        *(("sum", part.name) for part in more),
    ]
    edges = tuple(Edge(source=source, target=target) for source, target in edges)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(3,), output="neurons")
    counts = simulate(graph, np.ones((2, 1, 3), bool)).counts
    result = count_synops(graph, counts)
    assert (result.total, result.per_layer["weighted"], result.per_layer["sum"]) == (18 + 6, 18, 6)
    assert count_by_rules(graph, counts)["exact"] == 24 and synops_per_spike(graph)["input"].tolist() == [4, 4, 4]
    if reads is None:
        assert count_synops(merge_parts(graph), counts).total == 24


@pytest.mark.parametrize("seed", seeds(8, 1000))
def test_networks_written_in_fewer_layers_have_the_same_synops(seed):
    rng = np.random.default_rng(seed)
    graph = draw_graph(rng)
    sent = {name: rng.integers(0, 9, graph.shape_of(name)) for name in (INPUT, *(x.name for x in graph.layers if x.spikes))}
    counts = SpikeCounts(sent=sent, steps=9, samples=1)
    assert count_synops(merge_parts(graph), counts).total == count_synops(graph, counts).total


def test_a_loop_without_a_neuron_has_no_count():
    pairs = [("input", "a", 0), ("a", "b", 0), ("b", "a", 1), ("b", "n", 0)]
    layers = (Layer(name="a"), Layer(name="b"), Layer(name="n", synapse=Dense(weight=np.ones((1, 2))), neuron=IF()))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,))
    with pytest.raises(DataError, match="layer 'b': lies in a loop without a neuron"):
        count_synops(graph, simulate(graph, np.ones((2, 1, 2), bool)).counts)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("behind", ["conv3", "pool", "fc", "flatten"])
def test_spikes_delayed_behind_a_pool_count_only_if_they_arrive(seed, behind):
    """One step of delay costs what the same network costs without it on all steps but the last."""
    graph = reference.random_graph(seed)
    layers = {layer.name: layer for layer in graph.layers}
    chosen = ("conv1", "pool", "conv3", "flatten", "fc")
    sources = dict(zip(chosen, ("input", *chosen[:-1]), strict=True))
    late = {edge_target: int(edge_target == behind) for edge_target in chosen}
    short = SNNGraph(
        layers=tuple(layers[name] for name in chosen),
        edges=tuple(Edge(source=sources[name], target=name, delay=late[name]) for name in chosen),
        input_shape=graph.input_shape,
    )
    plain = replace(short, edges=tuple(replace(edge, delay=0) for edge in short.edges))
    x = reference.random_spikes(graph, seed, steps=6)
    found = count_synops(short, simulate(short, x).counts).per_layer
    whole, cut = (count_synops(plain, simulate(plain, part).counts).per_layer for part in (x, x[:-1]))
    first_late = chosen.index({"pool": "conv3", "flatten": "fc"}.get(behind, behind))
    for n, name in enumerate(chosen):
        if name in found and n <= first_late:
            assert found[name] == (cut if n == first_late else whole)[name]
    assert find_delayed_paths(plain) == [] and all(way.delay == 1 for way in find_delayed_paths(short))


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_the_cost_of_a_spike_adds_up_to_the_synops(seed):
    """On random networks with pools, sums, loops and layers without neurons; every spike arrives."""
    graph, rng = wild_graph(seed, "float"), np.random.default_rng(seed)
    cost = synops_per_spike(graph)
    assert cost.keys() == {"input", *(layer.name for layer in graph.layers if layer.spikes)}
    sent = {name: rng.integers(0, 9, graph.shape_of(name)) for name in cost}
    total = count_synops(graph, SpikeCounts(sent=sent, steps=9, samples=2)).total
    assert sum(float(np.vdot(sent[name], cost[name])) for name in cost) / 2 == pytest.approx(total)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_kernel_rule_counts_the_weights_of_one_group(groups):
    """Each spike of a convolution: outputs · kernel positions / groups."""
    conv = Conv2d(weight=np.ones((4, 4 // groups, 3, 2)), groups=groups)
    graph = chain([Layer(name="conv", synapse=conv, neuron=IF())], input_shape=(4, 5, 5))
    sent = {"input": np.full((4, 5, 5), 2), "conv": np.zeros((4, 3, 4), int)}
    assert count_by_rules(graph, SpikeCounts(sent=sent, steps=2, samples=1))["kernel"] == 200 * 4 * 6 / groups


@pytest.mark.parametrize("is_written_out", [False, True])
def test_an_analogue_input_beside_spikes_counts_apart_however_the_sum_is_written(is_written_out):
    """Three values and three spikes meet two weights each."""
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((3, 3))), neuron=IF()), Layer(name="sum")]
    layers.append(Layer(name="w", synapse=Dense(weight=np.ones((2, 3))), neuron=IF()))
    ends = [("input", "a"), ("a", "sum"), ("input", "sum"), ("sum", "w")]
    if not is_written_out:
        del layers[1]
        ends = [("input", "a"), ("a", "w"), ("input", "w")]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(Edge(source=s, target=t) for s, t in ends), input_shape=(3,))
    counts = simulate(graph, np.full((1, 1, 3), 2.0), kind="current").counts
    result = count_synops(graph, counts)
    assert (result.total, result.per_layer["w"], result.macs_first_layer) == (6, 6, 9 + 6)
    assert count_by_rules(graph, counts)["exact"] == 6


@pytest.mark.parametrize("is_written_out", [False, True])
def test_an_analogue_input_and_spikes_that_arrive_late_count_apart(is_written_out):
    """In 3 steps 2 times 3 values and once 3 spikes arrive; what would arrive after the end does not."""
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((3, 3))), neuron=IF()), Layer(name="sum")]
    layers.append(Layer(name="w", synapse=Dense(weight=np.ones((2, 3))), neuron=IF()))
    ends = [("input", "a", 0), ("a", "sum", 2), ("input", "sum", 1), ("sum", "w", 0)]
    if not is_written_out:
        del layers[1]
        ends = [("input", "a", 0), ("a", "w", 2), ("input", "w", 1)]
    edges = tuple(Edge(source=s, target=t, delay=delay) for s, t, delay in ends)
    graph = SNNGraph(layers=tuple(layers), edges=edges, input_shape=(3,))
    result = count_synops(graph, simulate(graph, np.full((3, 1, 3), 2.0), kind="current").counts)
    assert (result.total, result.per_layer["w"], result.macs_first_layer) == (6, 6, 27 + 12)
