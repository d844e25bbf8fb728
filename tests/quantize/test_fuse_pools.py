"""Pools fused into weights: the same sums and biases reach each neuron, by one weight from a source wherever that is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.interchange.pynn.document import _find_bias
from spear_deploy.network import LIF, BatchNorm, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, MAX_DELAY, Edge, SNNGraph, chain
from spear_deploy.network.spike_paths import find_spike_paths
from spear_deploy.quantize import fuse_pools as module
from spear_deploy.quantize.fuse_pools import count_unsummed, fuse_pools
from spear_deploy.quantize.shared_cells import sum_cells
from tests.interchange.test_pynn_integers import random_network
from tests.support.seeds import seeds

POOL = SumPool(kernel_size=(2,), stride=(1,))


def neuron(name: str, synapse: Any = None) -> Layer:
    return Layer(name=name, synapse=synapse, neuron=LIF(tau_s=0.02))


def sum_weights(graph: SNNGraph) -> dict[tuple[str, str, int], Any]:
    """Return the sum of the weights between all neurons, by source, target and delay."""
    sums: dict[tuple[str, str, int], Any] = {}
    for path in find_spike_paths(graph):
        way = tuple((layer, graph.input_shape_of(layer.name)) for layer in path.layers)
        total = np.concatenate(list(sum_cells(graph.shape_of(path.source), [way], {})))
        key = (path.source, path.target, path.delay)
        sums[key] = sums.get(key, 0) + total
    return sums


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_the_sums_of_weights_and_biases_stay(seed: int) -> None:
    graph = random_network(seed)
    fused = fuse_pools(graph)
    before, after = sum_weights(graph), sum_weights(fused)
    assert before.keys() == after.keys()
    for key, total in before.items():
        np.testing.assert_allclose(after[key], total, rtol=0, atol=1e-12 * np.abs(total).max())
    for name in ("p", "o"):
        np.testing.assert_allclose(_find_bias(fused, name), _find_bias(graph, name), rtol=1e-6, atol=1e-6)
        assert fused[name].neuron is graph[name].neuron


def test_a_pool_in_front_of_dense_weights_goes_with_its_flatten_and_delays_add_up() -> None:
    layers = (neuron("a", Conv1d(weight=np.ones((1, 1, 1)))), Layer(name="p", synapse=POOL), Layer(name="f", synapse=Flatten()))
    dense = neuron("o", Dense(weight=np.array([[1.0, 2.0, 4.0]])))
    edges = tuple(
        Edge(source=source, target=target, delay=delay)
        for source, target, delay in ((INPUT, "a", 0), ("a", "p", 1), ("p", "f", 2), ("f", "o", 3))
    )
    fused = fuse_pools(SNNGraph(layers=(*layers, dense), edges=edges, input_shape=(1, 4), output="o"))
    assert [layer.name for layer in fused.layers] == ["a", "o"]
    assert fused["o"].synapse.weight.tolist() == [[1.0, 3.0, 6.0, 4.0]]  # type: ignore[union-attr]
    assert fused.edges_into("o") == (Edge(source="a", target="o", delay=6),)


@pytest.mark.parametrize(("delay", "stays"), [(MAX_DELAY // 2, False), (MAX_DELAY // 2 + 1, True)])
@pytest.mark.parametrize("is_behind", [False, True])
def test_a_pool_stays_where_no_edge_holds_the_delays_of_both_sides(delay: int, stays: bool, is_behind: bool) -> None:
    conv, pool = Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 2)))), Layer(name="p", synapse=POOL)
    first, second = (conv, pool) if is_behind else (pool, conv)
    layers = (neuron("a", Conv1d(weight=np.ones((1, 1, 1)))), first, second, neuron("n"))
    # the edges on both sides of the pool become one
    late = {(first.name, second.name), (second.name, "n") if is_behind else ("a", first.name)}
    ends = ((INPUT, "a"), ("a", first.name), (first.name, second.name), (second.name, "n"))
    edges = tuple(Edge(source=pair[0], target=pair[1], delay=delay if pair in late else 0) for pair in ends)
    fused = fuse_pools(SNNGraph(layers=layers, edges=edges, input_shape=(1, 6), output="n"))
    assert ("p" in [layer.name for layer in fused.layers]) == stays
    if not stays:
        assert sum(edge.delay for edge in fused.edges) == MAX_DELAY


@pytest.mark.parametrize(("dilation", "stride", "expected"), [(2, 2, [1, 3, 2]), (2, 1, [1, 1, 2, 2]), (4, 2, [1, 1, 2, 2])])
def test_a_kernel_of_two_has_no_places_that_no_weight_reaches(dilation: int, stride: int, expected: list[int]) -> None:
    """Taps lie as far apart as the steps of both have in common."""
    conv = Conv1d(weight=np.array([[[1.0, 2.0]]]), dilation=dilation, stride=stride)
    graph = chain([Layer(name="c", synapse=conv), neuron("p", POOL)], input_shape=(1, 24))
    fused: Any = fuse_pools(graph)["c"].synapse
    distance = 1 if stride == 1 else 2
    assert (fused.weight.tolist(), fused.dilation, fused.stride) == ([[expected]], (distance,), (stride,))


def test_a_pool_that_others_read_stays_for_them() -> None:
    layers = (Layer(name="p", synapse=POOL), neuron("a", Conv1d(weight=np.ones((1, 1, 2)))), neuron("b"))
    edges = (Edge(source=INPUT, target="p"), Edge(source="p", target="a"), Edge(source="p", target="b"))
    fused = fuse_pools(SNNGraph(layers=layers, edges=edges, input_shape=(1, 6), output="a"))
    assert {layer.name for layer in fused.layers} == {"p", "a", "b"}
    assert fused.edges_into("a") == (Edge(source=INPUT, target="a"),) and fused["b"] is layers[2]


def test_a_layer_whose_spikes_are_added_to_weights_in_front_of_a_pool_keeps_the_pool() -> None:
    layers = (
        Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 3)), padding=1)),
        Layer(name="s"),
        neuron("p", SumPool(kernel_size=(2,), stride=(2,))),
    )
    edges = (
        Edge(source=INPUT, target="c"),
        Edge(source="c", target="s"),
        Edge(source=INPUT, target="s"),
        Edge(source="s", target="p"),
    )
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1, 8), output="p")
    assert fuse_pools(graph) is graph and count_unsummed(graph) == {"p": 2}


def test_weights_that_would_be_too_many_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of 3 behind which a pool of 2 x 2 strides by 2 becomes one of 4 x 4, 16 weights between two channels."""
    conv = Conv2d(weight=np.ones((2, 3, 3, 3)))
    graph = chain([Layer(name="c", synapse=conv), neuron("p", SumPool(kernel_size=(2, 2)))], input_shape=(3, 8, 8))
    dense = chain(
        [Layer(name="p", synapse=POOL), Layer(name="f", synapse=Flatten()), neuron("o", Dense(weight=np.ones((5, 7))))],
        input_shape=(1, 8),
    )
    for network, weights, name in ((graph, 2 * 3 * 16, "c"), (dense, 5 * 8, "o")):
        monkeypatch.setattr(module, "MAX_WEIGHTS", weights)
        assert fuse_pools(network)[name].synapse.weight.size == weights  # type: ignore[union-attr]
        monkeypatch.setattr(module, "MAX_WEIGHTS", weights - 1)
        assert fuse_pools(network) is network


def test_synapses_between_two_neurons_are_counted_where_no_weight_has_their_sum() -> None:
    plain, padded = Conv1d(weight=np.ones((1, 1, 3))), Conv1d(weight=np.ones((1, 1, 3)), padding=1)

    def count(*synapses: Any) -> dict[str, int]:
        *first, last = synapses
        layers = [Layer(name=f"l{k}", synapse=synapse) for k, synapse in enumerate(first)]
        return count_unsummed(chain([*layers, neuron("n", last)], input_shape=(1, 12)))

    assert count(plain, POOL) == count(POOL, plain) == count(padded, POOL) == {}
    assert count(SumPool(kernel_size=(2,)), padded) == {}
    assert count(POOL, padded) == {"n": 2} and count(POOL, POOL) == {"n": 2}
    assert count(padded, SumPool(kernel_size=(2,), stride=(1,), padding=(1,))) == {"n": 2}


# ------------------------------------------------------------------------------------------------- parts by themselves


def connect(layers: list[Layer], *ends: tuple[str, str], inputs: tuple[int, ...] = (1, 6)) -> SNNGraph:
    edges = tuple(Edge(source=source, target=target) for source, target in ends)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=inputs, output=layers[-1].name)


def conv(name: str, neuron: Any = None, norm: Any = None) -> Layer:
    return Layer(name=name, synapse=Conv1d(weight=np.ones((1, 1, 1))), neuron=neuron, norm=norm)


ONES = np.ones(1)
NORM = BatchNorm(weight=2 * ONES, bias=ONES, mean=ONES, var=ONES)


def test_norms_go_and_other_layers_stay() -> None:
    graph = chain([conv("a", norm=NORM), conv("b")], input_shape=(1, 6))
    bare = module._drop_norms(graph)
    assert [layer.norm for layer in bare.layers] == [None, None] and bare["b"] is graph["b"]


def test_convolutions_whose_sum_a_pool_takes_are_found_over_sums_alone() -> None:
    """Not over neurons, a norm or other weights on the way, nor with neurons or a norm of their own."""
    ends = (INPUT, "a"), (INPUT, "b"), ("a", "sum"), ("b", "sum"), ("sum", "p")

    def find(a: Layer, between: Layer) -> list[str] | None:
        pool = neuron("p", POOL)
        found = module._find_summed_weights(connect([a, conv("b"), between, pool], *ends), "p")
        return None if found is None else [layer.name for layer in found]

    plain, spiking = Layer(name="sum"), LIF(tau_s=0.02)
    assert find(conv("a"), plain) == ["a", "b"]
    scale = Layer(name="sum", synapse=Scale(weight=np.array(2.0)))
    for between in (scale, Layer(name="sum", neuron=spiking), Layer(name="sum", norm=NORM)):
        assert find(conv("a"), between) is None
    assert find(conv("a", neuron=spiking), plain) is find(conv("a", norm=NORM), plain) is None


def test_a_pool_stays_in_front_of_weights_that_read_something_else_too() -> None:
    layers = [neuron("a", Conv1d(weight=np.ones((1, 1, 2)))), neuron("b", Conv1d(weight=np.ones((1, 1, 3))))]
    layers += [Layer(name="p", synapse=POOL), neuron("o", Dense(weight=np.ones((2, 4))))]
    ends = (INPUT, "a"), (INPUT, "b"), ("a", "p"), ("p", "o"), ("b", "o")
    assert module._fuse_before(connect(layers, *ends), "p", "o") is None


def list_pairs(*layers: Layer) -> list[tuple[str, str]]:
    graph = chain([*layers, neuron("end")], input_shape=(1, 6))
    return [pair for path in find_spike_paths(graph) for pair in module._list_pairs(path)]


def test_pools_and_weights_are_pairs_where_several_weights_lead_to_a_neuron() -> None:
    wide, flat = Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 2)))), Layer(name="f", synapse=Flatten())
    pool, plain = Layer(name="p", synapse=POOL), Layer(name="p", synapse=SumPool(kernel_size=(2,)))
    assert list_pairs(wide, pool, flat) == [("c", "p")] and list_pairs(pool, wide, flat) == [("p", "c")]
    assert list_pairs(pool, wide) == [("p", "c")]
    assert list_pairs(plain, conv("c")) == list_pairs(conv("c")) == []
    assert list_pairs(pool, flat, Layer(name="d", synapse=Dense(weight=np.ones((2, 5))))) == [("p", "d")]
    assert list_pairs(plain, flat, Layer(name="d", synapse=Dense(weight=np.ones((2, 3))))) == []
