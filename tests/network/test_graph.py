"""Topology, shapes and merged layers of the graph."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import load_data
from spear_deploy.errors import GraphError
from spear_deploy.network import (
    IF,
    LI,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    SparseMatrix,
    make_sparse,
    sparse_matrix,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain, merge_parts
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes


def graph_of(*pairs, layers=None, **more):
    names = sorted({t for _, t, *_ in pairs})
    layers = layers or tuple(Layer(name=n, synapse=Dense(weight=np.eye(2)), neuron=IF()) for n in names)
    edges = tuple(Edge(source=s, target=t, delay=d[0] if d else 0) for s, t, *d in pairs)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=(2,), **more)


def test_layers_are_sorted_and_depths_count_neuron_layers():
    graph = graph_of(("input", "c"), ("c", "a"), ("a", "b"), ("c", "b"))
    assert [layer.name for layer in graph.layers] == ["c", "a", "b"]
    assert graph.depths == {"input": 0, "c": 1, "a": 2, "b": 3}
    assert graph.output == "b"
    assert graph.shape_of("b") == (2,) and graph.neurons == 6 and graph.weights == 12


def test_depths_are_less_by_the_delays_on_the_way():
    late = graph_of(("input", "a"), ("a", "b"), ("b", "c", 1), ("c", "d", 3))
    assert late.depths == {"input": 0, "a": 1, "b": 2, "c": 2, "d": 1}
    around = graph_of(("input", "a"), ("a", "b"), ("b", "c", 1), ("c", "a", 2))  # three layers, three steps of delay
    assert around.depths == {"input": 0, "a": 1, "b": 2, "c": 2}
    behind = graph_of(("input", "a"), ("a", "b"), ("b", "a", 1), ("b", "c", 1))  # a loop that is too fast for a step per layer
    assert behind.depths == {"input": 0, "a": 1, "b": 2, "c": 2}


def test_networkx_view_holds_layers_and_delays():
    view = graph_of(("input", "a"), ("a", "b"), ("b", "a", 1)).to_networkx()
    assert view.nodes["a"]["shape"] == (2,)
    assert view.edges["b", "a", 0]["delay"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: graph_of(("input", "a"), ("a", "b"), ("b", "a")), "layers 'a', 'b': they feed each other within one step"),
        (
            lambda: graph_of(("input", "aa"), ("aab", "aa"), layers=[Layer(name="aa")]),
            r"there is no layer 'aab'; did you mean 'aa'\?",
        ),
        (lambda: graph_of(("input", "a"), layers=[Layer(name="a"), Layer(name="b")]), "layer 'b': nothing feeds it"),
        (lambda: graph_of(("input", "a"), layers=[Layer(name="a"), Layer(name="a")]), "layer 'a': the name is used 2 times"),
        (lambda: graph_of(("input", "a"), ("b", "c", 1), ("c", "b")), "layer '[bc]': the network's input does not reach it"),
        (lambda: graph_of(("input", "a"), output="x"), "output 'x': no such layer"),
        (lambda: graph_of(("input", "a"), dt_s=0.0), "dt_s: 0.0 given, a time step is above 0 s"),
        (lambda: SNNGraph(layers=(), edges=(), input_shape=(2,)), "the network has no layer"),
        (lambda: chain([Layer(name="a")], input_shape=()), r"input shape \(\): expected at least one axis"),
        (lambda: Edge(source="a", target="b", delay=-1), "delay -1, expected a whole number of steps from 0"),
        (lambda: graph_of(("input", "a"))["b"], "layer 'b': there is no such layer"),
    ],
)
def test_contradictions_are_named(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_shapes_that_meet_in_a_sum_must_agree():
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((3, 2)))), Layer(name="b", neuron=IF())]
    with pytest.raises(GraphError, match=r"layers 'input' -> 'b': 2 outputs meet 3 inputs"):
        SNNGraph(
            layers=tuple(layers),
            edges=(Edge(source="a", target="b"), Edge(source="input", target="a"), Edge(source="input", target="b")),
            input_shape=(2,),
        )


def test_integers_and_floats_do_not_mix():
    integer = random_graph(0, kind="integer")
    mixed = {"out": replace(integer["out"], neuron=LI(tau_s=0.1))}
    with pytest.raises(GraphError, match="integer and floating-point neurons are mixed"):
        integer.with_layers(mixed)


def test_merging_parts_keeps_the_outputs_and_names_layers_after_their_neurons():
    norm = BatchNorm(weight=np.ones(2), bias=np.zeros(2), mean=np.zeros(2), var=np.ones(2))
    parts = [
        Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 1, 1)) * 0.7)),
        Layer(name="norm", norm=norm),
        Layer(name="lif", neuron=IF()),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=np.full((2, 8), 0.3))),
        Layer(name="li", neuron=LI(tau_s=0.01)),
    ]
    graph = chain(parts, input_shape=(1, 4, 4))
    merged = merge_parts(graph)
    assert [layer.name for layer in merged.layers] == ["lif", "pool", "li"]
    x = random_spikes(graph, 0)
    np.testing.assert_array_equal(simulate(merged, x).output, simulate(graph, x).output)


@pytest.mark.parametrize("seed", range(10))
def test_merging_random_networks_keeps_the_function(seed):
    graph = random_graph(seed)
    x = random_spikes(graph, seed)
    np.testing.assert_array_equal(simulate(merge_parts(graph), x).output, simulate(graph, x).output)


@pytest.mark.parametrize("delay", [-1, 0.5, 10**9, 2**62])
def test_a_delay_out_of_range_is_refused(delay):
    with pytest.raises(GraphError, match=r"edge 'a' -> 'b': delay .*, expected a whole number of steps from 0 to 65536"):
        Edge(source="a", target="b", delay=delay)


def test_networks_beyond_all_sizes_are_refused():
    layer = Layer(name="a", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(10**6, 10**6)), neuron=IF())
    with pytest.raises(GraphError, match="layer 'a': emits 1 x 2000002 x 2000002 values, at most 2147483648; check its padding"):
        chain([layer], input_shape=(1, 4, 4))
    threshold = np.ones((1, 4, 4))  # one for each neuron of the right size: the padding is named, not the neurons
    wide = Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(2**40, 1))
    with pytest.raises(GraphError, match="1 x 2199023255554 x 4 values, at most .* check its padding of 1099511627776 x 1"):
        chain([Layer(name="a", synapse=wide, neuron=IF(v_threshold=threshold))], input_shape=(1, 4, 4))
    with pytest.raises(GraphError, match="the network has 10001 layers and 10001 edges, at most 10000 and 20000; merge layers"):
        chain([Layer(name=f"l{i}", neuron=IF()) for i in range(10_001)], input_shape=(2,))


def test_sparse_weights_are_written_out_and_stored_sparse_again(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 100)
    layers = [
        Layer(name=name, synapse=Dense(weight=w)) for name, w in (("few", make_sparse(np.eye(12))), ("many", np.ones((12, 12))))
    ]
    graph = chain([*layers, Layer(name="n", neuron=IF())], input_shape=(12,))
    full = graph.with_full_weights()
    assert isinstance(full["few"].synapse.weight, np.ndarray)
    assert full == graph
    assert full.with_full_weights() is full
    again = full.with_compact_weights()
    assert isinstance(again["few"].synapse.weight, SparseMatrix)
    assert again["many"] is full["many"]
    assert again.weights == full.weights == 288


def test_a_notebook_shows_a_line_without_arrays_for_networks_data_and_runs():
    graph = shipped_network("digits")
    digits = load_data("digits")
    run = simulate(graph, np.moveaxis(digits.test.x[:2], 0, 1), record=("spikes", "v"))
    assert repr(graph) == (
        "SNNGraph(input 1 x 8 x 8, dt 0.001 s; conv1: input -> Conv2d + BatchNorm + LIF -> 16 x 8 x 8; "
        "pool1: conv1 -> AvgPool -> 16 x 4 x 4; conv2: pool1 -> Conv2d + BatchNorm + LIF -> 32 x 4 x 4; "
        "pool2: conv2 -> AvgPool -> 32 x 2 x 2; readout: pool2 -> Dense + LI -> 10)"
    )
    assert repr(digits) == "Dataset('digits': train 1221, val 216, test 360 samples, 8 steps of 1 x 8 x 8, spikes, 10 classes)"
    assert repr(digits.test) == "Split(x 360 x 8 x 1 x 8 x 8 spikes, y 360 labels)"
    assert repr(run) == "ChipRun(output 8 x 2 x 10; spikes of conv1, conv2; v of conv1, conv2, readout, pool1, pool2)"
    assert repr(simulate(graph, np.zeros((1, 1, 1, 8, 8)))) == "ChipRun(output 1 x 1 x 10; nothing recorded)"
