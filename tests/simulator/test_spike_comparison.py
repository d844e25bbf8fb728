"""First differences and constant shifts of two runs."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import DataError
from spear_deploy.network import IF, LI, LIF, Dense, Flatten, Layer
from spear_deploy.network.graph import chain
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from spear_deploy.simulator.spike_comparison import (
    compare_arrays,
    compare_runs,
    find_constant_shift,
    pair_layers,
    to_floating_units,
)
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds

RESETS = np.array([-1.0, -0.5, 0.5, 1.0])


def test_first_difference_is_earliest_in_time_then_sample_then_neuron():
    a = np.zeros((4, 3, 2, 2), bool)
    b = a.copy()
    b[2, 1, 1, 0] = b[2, 2, 0, 0] = b[3, 0, 0, 0] = True
    result = compare_arrays("x", a, b)
    assert (result.mismatches, result.compared) == (3, 48)
    assert result.first == {"step": 2, "sample": 1, "neuron": [1, 0]}
    assert compare_arrays("x", a, a).first is None


def test_values_have_a_largest_difference():
    a, b = np.array([[[1, 200]]], np.uint8), np.array([[[4, 100]]], np.uint8)
    result = compare_arrays("x", a, b, "v")
    assert (result.mismatches, result.largest, result.shift) == (2, 100.0, None)
    assert result.to_json()["largest"] == 100 and "largest" not in compare_arrays("x", a, b).to_json()


def test_a_flattened_layer_is_compared_in_its_flat_order():
    a = np.random.default_rng(0).random((3, 2, 2, 4)) < 0.5
    assert compare_arrays("x", a, a.reshape(3, 2, 8)).mismatches == 0


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_a_constant_shift_is_found(seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(4, 25))
    a = rng.random((steps, 2, 3)) < rng.choice([0.05, 0.4])
    shift = int(rng.integers(-9, 10))
    b = np.roll(a, shift, axis=0)
    if seed % 3 == 0:
        b[steps // 2, 1, 1] ^= True
    wanted = None
    for k in sorted(range(-8, 9), key=lambda k: (abs(k), -k)):
        if k == 0 or abs(k) > steps // 2:
            continue
        early, late = (a[:-k], b[k:]) if k > 0 else (a[-k:], b[:k])
        if early.any() and np.array_equal(early, late):
            wanted = k
            break
    assert find_constant_shift(a, b) == wanted
    result = compare_arrays("x", a, b)
    assert result.mismatches == np.count_nonzero(a != b)  # as they are
    assert result.shift == (wanted if result.mismatches else None)


def test_silence_has_no_shift():
    spikes = np.zeros((6, 1, 1), bool)
    late = spikes.copy()
    late[5] = True
    assert find_constant_shift(spikes, late) is None


def test_a_run_equals_itself_and_differs_from_its_integers():
    graph = random_graph(1)
    x = random_spikes(graph, 1, steps=20)
    run = simulate(graph, x, record=("spikes",))
    pairs = pair_layers(graph, graph)
    assert sum(layer.mismatches for layer in compare_runs(run, run, pairs)) == 0
    other = quantize(graph)
    layers = compare_runs(run, simulate(other, x, record=("spikes",)), pair_layers(graph, other))
    assert [layer.what for layer in layers][-1] == "value"


def test_states_are_compared_where_both_have_them():
    graph = random_graph(3)
    x = random_spikes(graph, 3, steps=10)
    run = simulate(graph, x, record=("spikes", "v"))
    result = compare_runs(run, run, pair_layers(graph, graph), ("v", "u"))
    assert [layer.what for layer in result[:4]] == ["spikes", "v", "spikes", "v"]
    assert not any(layer.mismatches for layer in result)


def test_potentials_of_integers_come_in_the_units_of_the_trained_network():
    """Weights, threshold and leak lie on the chip's grid: the potentials are the same numbers."""
    layers = [
        Layer(name="a", synapse=Dense(weight=np.array([[0.5, 0.25]])), neuron=IF(v_threshold=1.5, v_reset=0.25)),
        Layer(name="out", synapse=Dense(weight=np.array([[1.0]])), neuron=LI(tau_s=0.002, v_leak=0.5)),
    ]
    graph = chain(layers, input_shape=(2,))
    integer = quantize(graph)
    x = random_spikes(graph, 0, steps=12, batch=3, rate=0.7)
    wanted = simulate(graph, x, record=("spikes", "v"))
    raw = simulate(integer, x, record=("spikes", "v"))
    result = to_floating_units(integer, raw)
    np.testing.assert_allclose(result.v["a"], wanted.v["a"], atol=2 / integer.metadata["quantization"]["scale"]["a"])
    np.testing.assert_allclose(result.output, wanted.output, atol=0.02)
    np.testing.assert_array_equal(result.spikes["a"], raw.spikes["a"])
    assert raw.v["a"].dtype == np.int64
    plain = replace(integer, metadata={})
    np.testing.assert_array_equal(to_floating_units(plain, raw).output, raw.output)


def test_layers_are_paired_by_name_or_else_in_order():
    graph = random_graph(0)
    names = {layer.name: f"{layer.name}_" for layer in graph.layers}
    edges = tuple(replace(e, source=names.get(e.source, e.source), target=names[e.target]) for e in graph.edges)
    layers = tuple(replace(layer, name=names[layer.name]) for layer in graph.layers)
    other = replace(graph, layers=layers, edges=edges, output=names[graph.output])
    assert pair_layers(graph, other) == [(layer.name, names[layer.name]) for layer in graph.layers if layer.spikes]


def test_a_flattened_network_is_paired_with_one_that_is_not():
    plain = chain([Layer(name="a", neuron=IF())], input_shape=(2, 2, 2))
    flat = chain([Layer(name="b", synapse=Flatten(), neuron=IF())], input_shape=(2, 2, 2))
    assert pair_layers(plain, flat) == [("a", "b")]


def test_networks_with_different_layers_are_not_compared():
    with pytest.raises(DataError, match="only equal ones can be compared"):
        pair_layers(random_graph(0), random_graph(1))
    with pytest.raises(DataError, match=r"layer 'x': recordings of shape \(1, 1, 2\) and \(1, 1, 3\)"):
        compare_arrays("x", np.zeros((1, 1, 2)), np.zeros((1, 1, 3)))
    with pytest.raises(DataError, match=r"layer 'x': recordings of shape \(1, 2, 2\) and \(2, 1, 2\)"):
        compare_arrays("x", np.zeros((1, 2, 2)), np.zeros((2, 1, 2)))


@pytest.mark.parametrize(
    ("format", "neuron"),
    [
        ("loihi", LIF(tau_s=0.01, r=4.0, v_reset=RESETS, reset="value")),
        ("spinnaker", LIF(tau_s=0.01, r=4.0, v_reset=RESETS, reset="value")),
        ("truenorth", IF(v_reset=RESETS, reset="value")),
        ("catalyst", IF(v_reset=RESETS, reset="value")),
    ],
)
def test_potentials_of_neurons_with_resets_of_their_own_come_back_in_floating_units(format, neuron):
    """The integers hold the potential of each neuron from its own reset on."""
    layer = Layer(name="a", synapse=Dense(weight=np.full((4, 3), 0.0613)), neuron=replace(neuron, v_threshold=np.asarray(2.0)))
    graph = chain([layer], input_shape=(3,))
    x = random_spikes(graph, 0, steps=12, batch=3, rate=0.7)
    floating, integer = simulate(graph, x, record=("v",)), quantize(graph, format=format)
    raw = simulate(integer, x, record=("v",))
    assert integer.metadata["quantization"]["offset"] == {"a": pytest.approx(RESETS.tolist())}
    np.testing.assert_allclose(to_floating_units(integer, raw).v["a"], floating.v["a"], atol=0.05)
