"""Weights of spikes beside means of spikes, each by weights of their own: random networks, 20 by default, 300 with `-m slow`."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.mixed_means import find_mixed_means
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, Dense, Layer, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.adaptation.random_networks import DT_S, count_differing_spikes, eighths, random_norm
from tests.support.seeds import seeds

SEEDS = seeds(8, 300)
LOIHI = load_profile("loihi2")
POOL = {"kernel_size": (2, 2), "stride": (2, 2)}


def blocks(seed: int) -> SNNGraph:
    """Return two blocks that add their input to their output, with a pool behind each, and weights that read what is left.

    The weights have neurons of their own, or are currents of a layer of neurons with a bias, a batch norm and a delay.
    """
    rng = np.random.default_rng(seed)
    channels, kind = int(rng.integers(1, 4)), rng.integers(3)

    def conv(outputs: int) -> Conv2d:
        return Conv2d(weight=eighths(rng, (outputs, channels, 3, 3)), padding=(1, 1))

    def neuron() -> LIF | IF:
        threshold = 0.5 + rng.integers(1, 8) / 4
        return IF(v_threshold=threshold) if rng.integers(2) else LIF(tau_s=DT_S * 2, v_threshold=threshold)

    stem = replace(conv(channels), weight=eighths(rng, (channels, 1, 3, 3), low=-2))
    layers = [
        Layer(name="stem", synapse=stem, neuron=IF(v_threshold=0.5)),
        Layer(name="a", synapse=conv(channels), neuron=neuron()),
        Layer(name="pool1", synapse=AvgPool(**POOL)),
        Layer(name="b", synapse=conv(channels), norm=random_norm(rng, channels), neuron=neuron()),
        Layer(name="pool2", synapse=(AvgPool, SumPool)[rng.integers(2)](**POOL)),
    ]
    edges = [
        (INPUT, "stem"),
        ("stem", "a"),
        ("stem", "pool1"),
        ("a", "pool1"),
        ("pool1", "b"),
        ("pool1", "pool2"),
        ("b", "pool2"),
    ]
    size = channels * 4
    if kind:
        weights = Dense(weight=eighths(rng, (5, size)), bias=eighths(rng, 5) if rng.integers(2) else None)
        norm = random_norm(rng, 5)
        layers.append(Layer(name="w", synapse=weights, norm=norm, neuron=neuron() if kind == 1 else None))
        layers += [Layer(name="n", neuron=neuron())] if kind == 2 else []
        edges += [("pool2", "w"), *([("w", "n")] if kind == 2 else [])]
        size = 5
    source = ("pool2", "w", "n")[kind]
    layers.append(Layer(name="out", synapse=Dense(weight=eighths(rng, (3, size))), neuron=LI(tau_s=DT_S * 2)))
    edges.append((source, "out"))
    delay = int(rng.integers(2))
    return SNNGraph(
        layers=tuple(layers),
        edges=tuple(Edge(source=a, target=b, delay=delay if (a, b) == ("pool1", "pool2") else 0) for a, b in edges),
        input_shape=(1, 8, 8),
        dt_s=DT_S,
        output="out",
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_and_means_get_weights_of_their_own_and_no_spike_changes(seed):
    graph = blocks(seed)
    offer = next(find_mixed_means(graph, LOIHI))
    assert (offer.kind, offer.what, offer.by) == ("exact", "adds spikes and means of spikes", "2 layers of weights, added up")
    parted = offer.rewrite(graph)
    assert not list(find_mixed_means(parted, LOIHI)) and parted.input_shape == graph.input_shape
    assert parted.neurons == graph.neurons and parted.output == graph.output
    assert count_differing_spikes(graph, parted, seed) == 0
    x = np.random.default_rng(seed).integers(0, 2, (9, 3, 1, 8, 8))
    np.testing.assert_array_equal(simulate(parted, x).output, simulate(graph, x).output)
    read = {edge.source for edge in parted.edges}
    assert all(layer.name in read or layer.name == "out" for layer in parted.layers)


def test_a_plan_makes_integers_of_what_had_none():
    graph = blocks(3)
    with pytest.raises(UnsupportedError, match="adds spikes and means of spikes"):
        quantize(graph)
    (plan, *_) = make_plans(graph, LOIHI)
    assert [step.replacement.what for step in plan.steps] == ["adds spikes and means of spikes"] and not plan.lacking
    integers = quantize(plan.graph)
    x = np.random.default_rng(1).integers(0, 2, (12, 20, 1, 8, 8))
    ours, theirs = simulate(plan.graph, x).output, simulate(integers, x).output.astype(float)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_the_layers_of_weights_have_the_bits_that_the_one_before_states(seed):
    """They had those of the chip: the integers took more memory than the network states."""
    graph = state_layer_bits(blocks(seed), {"w": 4, "a": 6})
    (offer,) = find_mixed_means(graph, LOIHI)
    parted = offer.rewrite(graph)
    assert read_layer_bits(parted) == {"a": 6, "w.part": 4, "w.part_2": 4}
    largest = {layer.name: np.abs(layer.synapse.weight).max() for layer in quantize(parted).layers if layer.name.startswith("w.")}
    assert set(largest) == {"w.part", "w.part_2"} and max(largest.values()) <= 7 * 32  # 4 bits with sign, the low ones zero


def test_means_of_one_size_and_chips_without_integers_need_no_other_weights():
    graph = blocks(3)
    assert not list(find_mixed_means(graph, load_profile("generic45nm")))
    same = replace(graph, edges=tuple(edge for edge in graph.edges if (edge.source, edge.target) != ("b", "pool2")))
    assert not list(find_mixed_means(replace(same, layers=tuple(x for x in same.layers if x.name != "b"), edges=tuple(
        edge for edge in same.edges if edge.target != "b")), LOIHI))  # fmt: skip


def test_a_loop_without_neurons_has_no_plan_and_no_exception():
    weight = np.ones((2, 2, 1, 1))
    layers = (
        Layer(name="a", synapse=Conv2d(weight=weight), neuron=IF()),
        Layer(name="sum"),
        Layer(name="pool", synapse=AvgPool(kernel_size=(1, 1))),
        Layer(name="b", synapse=Conv2d(weight=weight), neuron=IF()),
    )
    ways = [(INPUT, "a", 0), ("a", "sum", 0), ("sum", "pool", 0), ("pool", "sum", 1), ("sum", "b", 0)]
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in ways)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2, 4, 4), dt_s=DT_S, output="b")
    assert not [*find_mixed_means(graph, LOIHI)]
    assert any("a loop without neurons" in lacking for lacking in make_plans(graph, LOIHI)[0].lacking)
