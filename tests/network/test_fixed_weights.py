"""Layers whose weights a model fixes: they do not learn, lose no weight, and what they read and send keeps its channels."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import load_data
from spear_deploy.network import LIF, Dense, Flatten, Layer, Scale
from spear_deploy.network.channel_groups import list_groups, list_prunable_groups
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS, list_fixed_layers, pass_on_fixed
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pruning.tune.thin_weights import order_weights, thin_layers
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.simulator import simulate

VOTES = np.kron(np.eye(10), np.full((1, 3), 1 / 3)).astype(np.float32)


def voting(**metadata) -> SNNGraph:
    """Three neurons vote for each of ten classes."""
    rng, neuron = np.random.default_rng(0), LIF(tau_s=2e-3, r=2.0)
    layers = [
        Layer(name="flat", synapse=Flatten()),
        Layer(name="a", synapse=Dense(weight=rng.normal(0, 0.4, (20, 64)).astype(np.float32)), neuron=neuron),
        Layer(name="b", synapse=Dense(weight=rng.normal(0, 0.4, (30, 20)).astype(np.float32)), neuron=neuron),
        Layer(name="vote", synapse=Dense(weight=VOTES)),
    ]
    return chain(layers, input_shape=(1, 8, 8), metadata={FIXED_WEIGHTS: ["vote"], **metadata})


def test_the_metadata_name_layers_of_dense_weights():
    assert list_fixed_layers(voting()) == ("vote",)
    for stated in ((), "vote", None, ["flat", "c", 3]):
        assert list_fixed_layers(voting(**{FIXED_WEIGHTS: stated})) == ()


def test_what_a_layer_of_fixed_weights_reads_keeps_its_channels():
    assert [group.name for group in list_prunable_groups(voting())] == ["a"]
    (why,) = (group.frozen for group in list_groups(voting()) if group.name == "b")
    assert why == "layer 'vote' has fixed weights, which go back into the model as they are"
    assert [group.name for group in list_prunable_groups(voting(**{FIXED_WEIGHTS: []}))] == ["a", "b"]


def test_fixed_weights_in_front_of_other_layers_keep_the_channels_that_they_send():
    graph = voting()
    behind = Layer(name="c", synapse=Dense(weight=np.ones((4, 10), np.float32)))
    longer = replace(graph, layers=(*graph.layers, behind), edges=(*graph.edges, Edge(source="vote", target="c")), output="c")
    assert [group.name for group in list_prunable_groups(longer)] == ["a"]
    assert {group.name for group in list_groups(longer) if "fixed weights" in group.frozen} == {"b", "vote"}


def test_fixed_weights_are_not_removed():
    graph = voting()
    counts = simulate(graph, np.random.default_rng(1).random((10, 4, 1, 8, 8)) < 0.4).counts
    assert set(order_weights(graph, counts).starts) == {"a", "b"}
    thinned = thin_layers(graph, {"b": 0.5, "vote": 0.5})
    assert thinned["vote"] == graph["vote"] and np.mean(thinned["b"].synapse.weight != 0) == 0.5


def test_votes_with_a_factor_behind_them_stay_fixed_where_both_become_one_layer():
    """Learning with the rounding of a chip changed them, since the layer of both was named after the factor."""
    graph = voting()
    scale = Layer(name="times", synapse=Scale(weight=np.full(1, 10.0)))
    longer = replace(
        graph, layers=(*graph.layers, scale), edges=(*graph.edges, Edge(source="vote", target="times")), output="times"
    )
    folded = fold_batchnorm(longer)
    assert list_fixed_layers(longer) == ("vote",) and list_fixed_layers(folded) == ("times",)
    np.testing.assert_allclose(folded["times"].synapse.weight, 10 * VOTES)


def test_votes_that_become_part_of_weights_which_learn_are_fixed_no_more():
    graph = voting()
    behind = Layer(name="c", synapse=Dense(weight=np.ones((4, 10), np.float32)))
    longer = replace(graph, layers=(*graph.layers, behind), edges=(*graph.edges, Edge(source="vote", target="c")), output="c")
    folded = fold_batchnorm(longer)
    assert [layer.name for layer in folded.layers] == ["a", "b", "c"] and list_fixed_layers(folded) == ()


def test_votes_that_are_also_read_without_the_factor_behind_them_keep_their_name():
    graph = voting()
    layers = (*graph.layers, Layer(name="times", synapse=Scale(weight=np.full(1, 10.0))), Layer(name="sum"))
    edges = [Edge(source=s, target=t) for s, t in (("vote", "times"), ("vote", "sum"), ("times", "sum"))]
    folded = fold_batchnorm(replace(graph, layers=layers, edges=(*graph.edges, *edges), output="sum"))
    assert list_fixed_layers(folded) == ("vote",)


def test_names_that_are_passed_on_leave_others_and_odd_metadata_alone():
    graph = voting()
    assert pass_on_fixed(graph, {"a": "b"}) is graph
    for stated in (None, "vote", [3]):
        odd = voting(**{FIXED_WEIGHTS: stated})
        assert pass_on_fixed(odd, {"vote": "a"}) is odd
    assert list_fixed_layers(pass_on_fixed(voting(**{FIXED_WEIGHTS: ["vote", 3]}), {"vote": "a"})) == ("a",)


@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_weights_do_not_learn(fixed):
    pytest.importorskip("torch")
    from spear_deploy.training import train

    learnt = train(voting(**({} if fixed else {FIXED_WEIGHTS: []})), load_data("digits", steps=4), epochs=1)
    assert np.array_equal(learnt["vote"].synapse.weight, VOTES) == fixed
    assert not np.array_equal(learnt["b"].synapse.weight, voting()["b"].synapse.weight)
