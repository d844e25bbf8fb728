"""Channel groups; a pruned network spikes like the masked one."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.network import CONVS, IF, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.channel_groups import list_groups, list_prunable_groups
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.sparse_matrix import SparseMatrix, make_sparse
from spear_deploy.pruning.importance import plan_by_importance, score_channels
from spear_deploy.pruning.plan import PruningPlan, prune, restore_channels
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds


def masked(graph: SNNGraph, plan: PruningPlan) -> SNNGraph:
    """Silence the removed channels: whoever reads them has a zero weight there. Independent of how `prune` finds them."""
    groups = {group.name: group for group in list_groups(graph)}
    gone = {}
    for name, kept in plan.kept.items():
        for consumer in groups[name].consumers:
            gone[consumer] = sorted(set(range(groups[name].channels)) - set(kept))

    def silence(layer: Layer) -> Layer:
        if layer.name not in gone or (isinstance(layer.synapse, CONVS) and layer.synapse.groups > 1):
            return layer
        weight = np.array(layer.synapse.weight)
        source = graph.edges_into(layer.name)[0].source
        channels = graph.shape_of(source)[0] if source != "flatten" else graph.shape_of("conv3")[0]
        weight.reshape(len(weight), channels, -1)[:, gone[layer.name]] = 0
        return replace(layer, synapse=replace(layer.synapse, weight=weight))

    return graph.with_layers(silence)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_pruned_network_learns_comes_back_and_what_it_lost_stays(seed, sparse):
    """Weights, biases and norms; sparse weights stay sparse."""

    def thin_out(layer: Layer) -> Layer:
        if not isinstance(layer.synapse, Dense):
            return layer
        weight = np.where(np.random.default_rng(seed).random(layer.synapse.weight.shape) < 0.5, layer.synapse.weight, 0)
        return replace(layer, synapse=replace(layer.synapse, weight=make_sparse(weight) if sparse else weight))

    def learn(layer: Layer) -> Layer:
        changed = {}
        for part in ("synapse", "norm"):
            held = getattr(layer, part)
            arrays = {name: getattr(held, name, None) for name in ("weight", "bias", "mean", "var")}
            if learnt := {name: 3 * array for name, array in arrays.items() if array is not None}:
                changed[part] = replace(held, **learnt)
        return replace(layer, **changed)

    graph = random_graph(seed).with_layers(thin_out)
    groups = list_prunable_groups(graph)
    plan = PruningPlan(kept={group.name: tuple(range(0, group.channels, 2)) for group in groups})
    small = prune(graph, plan)
    back = restore_channels(graph, plan, small.with_layers(learn))
    assert prune(back, plan) == small.with_layers(learn) and groups
    assert restore_channels(graph, plan, small) == graph
    for before, after in zip(graph.layers, back.layers, strict=True):
        if isinstance(before.synapse, Dense):
            assert isinstance(after.synapse.weight, SparseMatrix) is sparse


@pytest.mark.parametrize("kind", ["float", "integer"])
@pytest.mark.parametrize("seed", seeds(6, 25))
def test_pruned_network_spikes_like_the_masked_one(seed, kind):
    graph = random_graph(seed, kind=kind)
    rng = np.random.default_rng(seed)
    kept = {}
    for group in list_prunable_groups(graph):
        width = int(rng.integers(1, group.channels + 1))
        kept[group.name] = tuple(rng.choice(group.channels, width, replace=False))
    plan = PruningPlan(kept=kept)
    x = random_spikes(graph, seed)
    small, silent = (
        simulate(prune(graph, plan), x, record=("spikes", "v")),
        simulate(masked(graph, plan), x, record=("spikes", "v")),
    )
    np.testing.assert_array_equal(small.output, silent.output)
    for group in list_prunable_groups(graph):
        for name in group.producers:
            for small_array, silent_array in ((small.spikes, silent.spikes), (small.v, silent.v)):
                if name in small_array:
                    np.testing.assert_array_equal(small_array[name], silent_array[name][:, :, list(plan.kept[group.name])])


def test_random_networks_spike_and_have_the_expected_groups():
    rates = [simulate(random_graph(s), random_spikes(random_graph(s), s)).counts.rates() for s in range(25)]
    assert sum(min(r.values()) > 0 for r in rates) > 15
    groups = {g.name: g for g in list_prunable_groups(random_graph(0))}
    assert set(groups) == {"conv1", "conv3", "fc"}
    assert groups["conv1"].producers == ("conv1", "depthwise", "conv2")


def test_output_and_grouped_convolutions_are_frozen_with_the_reason():
    layers = [
        Layer(name="a", synapse=Conv2d(weight=np.ones((4, 2, 1, 1))), neuron=IF()),
        Layer(name="b", synapse=Conv2d(weight=np.ones((4, 2, 1, 1)), groups=2), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(2, 3, 3))
    assert list_prunable_groups(graph) == ()
    assert [group.frozen for group in list_groups(graph)] == ["layer 'b' is a convolution in 2 groups"] * 2


def test_kept_channels_are_numbered_as_in_the_first_network():
    graph = random_graph(0)
    once = prune(graph, PruningPlan(kept={"fc": (1, 3, 4, 5)}))
    twice = prune(once, PruningPlan(kept={"fc": (0, 2)}))
    assert twice.metadata["kept_channels"] == {"fc": [1, 4]}
    assert "kept_channels" not in graph.metadata


def test_importance_orders_by_weight_and_plan_keeps_the_best():
    weight = np.array([[1.0, 0.0], [3.0, 3.0], [0.0, 2.0]])
    layers = [
        Layer(name="a", synapse=Dense(weight=weight), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=np.ones((1, 3))), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(2,))
    (group,) = list_prunable_groups(graph)
    assert score_channels(graph, group).tolist() == [1, 6, 2]
    assert plan_by_importance(graph, {"a": 2}).kept == {"a": (1, 2)}
    counts = simulate(graph, np.ones((3, 1, 2), bool)).counts
    assert score_channels(graph, group, "rate", counts).tolist() == counts.sent["a"].tolist()


def test_wrong_plans_are_refused():
    graph = random_graph(0)
    with pytest.raises(GraphError, match=r"no group 'con1'; did you mean 'conv1'\?"):
        prune(graph, PruningPlan(kept={"con1": (0,)}))
    with pytest.raises(GraphError, match="group 'fc': no channel would be left; keep at least 1 of 6"):
        prune(graph, PruningPlan(kept={"fc": ()}))
    with pytest.raises(GraphError, match=r"group 'fc': channels 0..6, expected distinct 0..5"):
        prune(graph, PruningPlan(kept={"fc": (0, 6)}))
    with pytest.raises(UnsupportedError, match="group 'out': cannot be pruned, since it is the network's output"):
        prune(graph, PruningPlan(kept={"out": (0,)}))
    with pytest.raises(GraphError, match="importance 'rate' needs spike counts"):
        score_channels(graph, list_prunable_groups(graph)[0], "rate")


def test_layers_that_are_only_tied_to_input_or_output_are_not_called_so():
    dense = Dense(weight=np.ones((3, 3)))
    layers = (Layer(name="i", synapse=dense), Layer(name="r", synapse=dense), Layer(name="o", neuron=IF()))
    ways = ((INPUT, "i", 0), ("i", "o", 0), ("o", "r", 0), ("r", "o", 1))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in ways)
    recurrent = SNNGraph(layers=layers, edges=edges, input_shape=(3,), output="o")
    assert [(group.name, group.frozen) for group in list_groups(recurrent)] == [
        ("i", "its channels are tied to those of the network's output, 'o'")
    ]
    depthwise = Conv2d(weight=np.ones((2, 1, 1, 1)), groups=2)
    layers = [Layer(name="d", synapse=depthwise, neuron=IF()), Layer(name="f", synapse=Flatten())]
    layers += [Layer(name="w", synapse=Dense(weight=np.ones((3, 8)))), Layer(name="n", neuron=IF())]
    assert [(group.name, group.frozen) for group in list_groups(chain(layers, input_shape=(2, 2, 2)))] == [
        ("d", "its channels are tied to those of the network's input"),
        ("w", "it is the network's output"),
    ]


def test_channels_that_do_not_line_up_are_frozen():
    layers = [
        Layer(name="a", synapse=Conv2d(weight=np.ones((2, 1, 1, 1))), neuron=IF()),
        Layer(name="flat", synapse=Dense(weight=np.ones((8, 8))), neuron=IF()),
        Layer(name="add", synapse=Dense(weight=np.ones((1, 8))), neuron=IF()),
    ]
    layers.insert(1, Layer(name="f", synapse=Flatten()))
    pairs = [("input", "a"), ("a", "f"), ("f", "flat"), ("flat", "add"), ("f", "add")]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(1, 2, 2))
    assert {g.name for g in list_prunable_groups(graph)} == set()
    assert "do not line up" in list_groups(graph)[0].frozen


def test_a_group_that_cannot_be_pruned_may_be_kept_whole():
    graph = random_graph(0)
    frozen = next(group for group in list_groups(graph) if group.frozen)
    whole = prune(graph, PruningPlan(kept={frozen.name: tuple(range(frozen.channels))}))
    x = random_spikes(graph, 0)
    np.testing.assert_array_equal(simulate(whole, x).output, simulate(graph, x).output)
    with pytest.raises(UnsupportedError, match=f"group '{frozen.name}': cannot be pruned, since {frozen.frozen}"):
        prune(graph, PruningPlan(kept={frozen.name: tuple(range(frozen.channels - 1))}))


def test_dense_weights_on_a_map_lose_the_positions_of_a_channel() -> None:
    """Without a flatten between: the weights of a channel are those of all its positions, 3 x 2 here."""
    rng = np.random.default_rng(0)
    conv = Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(4, 1, 2, 2))), neuron=IF())
    weight = rng.normal(size=(3, 24))
    graph = chain([conv, Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(1, 4, 3))
    left = prune(graph, PruningPlan(kept={"conv": (0, 2)}))
    np.testing.assert_array_equal(left["fc"].synapse.weight, weight.reshape(3, 4, 6)[:, [0, 2]].reshape(3, 12))
