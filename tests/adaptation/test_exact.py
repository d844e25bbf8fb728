"""Exact replacements change no spike: random networks, 20 each by default and 300 behind `-m slow`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.adaptation.kernels import find_kernels
from spear_deploy.adaptation.maps import find_maps
from spear_deploy.adaptation.neurons import find_models, find_time_constants
from spear_deploy.adaptation.pools import find_pools
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.signs import find_signs
from spear_deploy.hardware.profile import HardwareProfile, load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, CubaLI, CubaLIF, Dense, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.adaptation.random_networks import (
    DT_S,
    count_differing_spikes,
    eighths,
    random_conv,
    random_map_network,
    random_neuron,
    random_norm,
    random_pool,
)
from tests.support.seeds import seeds

SEEDS = seeds(8, 300)
EVERY = "[Dense, Conv1d, Conv2d, Scale, SumPool, AvgPool, Flatten]"


def chip(**facts: Any) -> HardwareProfile:
    """Return a chip without limits, with these facts (a dot as two underscores)."""
    return override_facts(load_profile("generic45nm"), {key.replace("__", "."): value for key, value in facts.items()})


def replace_all(graph: SNNGraph, find: Callable[[SNNGraph], Any], kinds: tuple[str, ...] = ("exact",)) -> tuple[SNNGraph, int]:
    """Make all replacements of a rule, one after the other; return the network and their number."""
    for made in range(100):
        offer: Replacement | None = next((offer for offer in find(graph) if offer.kind in kinds), None)
        if offer is None:
            return graph, made
        graph = offer.rewrite(graph)
    raise AssertionError("a replacement leaves what it was for")


def kinds_of(graph: SNNGraph) -> set[str]:
    return {type(layer.synapse).__name__ for layer in graph.layers if layer.synapse is not None}


@pytest.mark.parametrize("seed", SEEDS)
def test_convolutions_written_out_as_dense_weights(seed):
    lists = chip(layers__kinds="[Dense, Scale, Flatten]")
    for axes in (1, 2):
        graph = random_map_network(seed, axes=axes)
        adapted, made = replace_all(graph, lambda g: find_maps(g, lists))
        assert made and kinds_of(adapted) <= {"Dense", "Scale", "Flatten"}
        assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_scales_on_the_diagonal(seed):
    lists = chip(layers__kinds="[Dense, Flatten]")
    graph = random_map_network(seed)
    adapted, made = replace_all(graph, lambda g: find_maps(g, lists))
    assert made and kinds_of(adapted) <= {"Dense", "Flatten"}
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_means_become_sums(seed):
    graph = random_map_network(seed, plain=True)
    sums = chip(layers__kinds="[Dense, Conv1d, Conv2d, Scale, SumPool, Flatten]")
    adapted, made = replace_all(graph, lambda g: find_pools(g, sums))
    assert made == sum(type(layer.synapse).__name__ == "AvgPool" for layer in graph.layers) and "AvgPool" not in kinds_of(adapted)
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_pools_multiplied_into_the_weights_behind(seed):
    graph = random_map_network(seed, norms=bool(seed % 2))
    none = chip(layers__kinds="[Dense, Conv1d, Conv2d, Scale, Flatten]")
    adapted, _ = replace_all(graph, lambda g: find_pools(g, none))
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pool_that_feeds_its_own_neurons_becomes_a_convolution_of_ones(seed):
    rng = np.random.default_rng(seed)
    axes = 1 + seed % 2
    shape = (2, *(int(rng.integers(4, 7)) for _ in range(axes)))
    pool = random_pool(rng, axes)
    layer = Layer(name="pool", synapse=pool, neuron=random_neuron(rng, pool.output_shape(shape)))
    graph = chain([layer], input_shape=shape, dt_s=DT_S)
    adapted, made = replace_all(graph, lambda g: find_pools(g, chip(layers__kinds="[Dense, Conv1d, Conv2d, Flatten]")))
    assert made == 1 and kinds_of(adapted) <= {"Conv1d", "Conv2d"}
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_zeros_between_taps_and_between_groups(seed):
    graph = random_map_network(seed)
    plain = chip(layers__conv_groups_max=1, layers__conv_dilation_max=1)
    adapted, _ = replace_all(graph, lambda g: find_kernels(g, plain))
    assert all(max(getattr(layer.synapse, "dilation", (1,))) == 1 for layer in adapted.layers)
    assert all(getattr(layer.synapse, "groups", 1) == 1 for layer in adapted.layers)
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_zeros_around_kernels(seed):
    graph = random_map_network(seed, plain=True)
    square = chip(layers__conv_kernel_square=True)
    adapted, made = replace_all(graph, lambda g: find_kernels(g, square))
    lopsided = [layer for layer in graph.layers if len(set(getattr(layer.synapse, "weight", np.zeros(1)).shape[2:])) > 1]
    assert made == sum(abs(np.subtract(*layer.synapse.weight.shape[2:])) % 2 == 0 for layer in lopsided)
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("written_for", [(2, 1, 1), (2, 4, 5)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_weight_per_channel_becomes_a_pointwise_convolution(seed, written_for):
    """Also where it is written for each position; where positions differ it does not."""
    rng = np.random.default_rng(seed)
    shape = (2, 4, 5)
    weight, bias = (np.broadcast_to(eighths(rng, (2, 1, 1)), written_for).copy() for _ in range(2))
    scale = Scale(weight=weight, bias=bias if seed % 2 else None)
    graph = chain([Layer(name="scale", synapse=scale, neuron=random_neuron(rng, shape))], input_shape=shape, dt_s=DT_S)
    adapted, made = replace_all(graph, lambda g: find_kernels(g, chip(layers__kinds="[Dense, Conv2d, Flatten]")))
    assert made == 1 and kinds_of(adapted) == {"Conv2d"}
    assert count_differing_spikes(graph, adapted, seed) == 0
    if written_for == shape:
        weight[1, 2, 3] += 1
        uneven = graph.with_layers({"scale": replace(graph["scale"], synapse=Scale(weight=weight))})
        assert not list(find_kernels(uneven, chip(layers__kinds="[Dense, Conv2d, Flatten]")))


@pytest.mark.parametrize("seed", SEEDS)
def test_neurons_without_a_current_get_one_of_a_step(seed):
    graph = random_map_network(seed, models=(LIF,))
    cuba = chip(neuron__models="[CubaLIF, CubaLI]")
    adapted, made = replace_all(graph, lambda g: find_models(g, cuba))
    assert made == 2 and {type(layer.neuron) for layer in adapted.layers if layer.neuron} == {CubaLIF, CubaLI}
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_current_of_a_step_is_left_out(seed):
    graph, _ = replace_all(
        random_map_network(seed, models=(LIF,)), lambda g: find_models(g, chip(neuron__models="[CubaLIF, CubaLI]"))
    )
    adapted, made = replace_all(graph, lambda g: find_models(g, chip(neuron__models="[LIF, LI]")))
    assert made == 2 and {type(layer.neuron) for layer in adapted.layers if layer.neuron} == {LIF, LI}
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_sources_of_both_signs_stand_twice(seed):
    graph = random_map_network(seed, plain=True)
    dale = chip(weights__sign="presynaptic")
    adapted, made = replace_all(graph, lambda g: find_signs(g, dale))
    assert made >= 1 and not list(find_signs(adapted, dale))  # in one network of 300 a single layer mixes signs
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_loop_reads_its_own_neurons_twice(seed):
    rng = np.random.default_rng(seed)
    hidden = int(rng.integers(2, 6))
    first = eighths(rng, (hidden, 3))
    layers = (
        Layer(name="in", synapse=Dense(weight=np.abs(first) if seed % 2 else first)),
        Layer(name="loop", synapse=Dense(weight=eighths(rng, (hidden, hidden)))),
        Layer(name="hidden", neuron=random_neuron(rng, (hidden,))),
        Layer(name="out", synapse=Dense(weight=eighths(rng, (2, hidden))), neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0), ("hidden", "out", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(3,), dt_s=DT_S)
    dale = chip(weights__sign="presynaptic")
    adapted, made = replace_all(graph, lambda g: find_signs(g, dale))
    assert (made or hidden == 2) and not list(find_signs(adapted, dale))  # of two neurons no source may mix signs
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_integrator_with_the_longest_time_constant_stays_within_its_bound(seed):
    """Without spikes v loses at most 1/tau of itself a step: after T steps it is off by T / tau of the largest v, at most."""
    rng = np.random.default_rng(seed)
    inputs, outputs, steps = int(rng.integers(2, 6)), int(rng.integers(1, 5)), int(rng.integers(2, 40))
    neuron = IF(r=0.25 + rng.integers(0, 8) / 8, v_threshold=1e6, reset=("value", "subtract")[seed % 2])
    graph = chain(
        [Layer(name="fc", synapse=Dense(weight=eighths(rng, (outputs, inputs))), neuron=neuron)], input_shape=(inputs,), dt_s=DT_S
    )
    longest = float(2 ** rng.integers(6, 13))
    adapted, made = replace_all(
        graph, lambda g: find_models(g, chip(neuron__models="[LIF, LI]", neuron__tau_max_steps=longest)), kinds=("bounded",)
    )
    assert made == 1 and isinstance(adapted["fc"].neuron, LIF)
    x = (rng.random((steps, 3, inputs)) < 0.5).astype(np.float32)
    before, after = (simulate(each, x, record=("v",)).v["fc"].astype(np.float64) for each in (graph, adapted))
    largest = np.abs(before).max(initial=0)
    assert np.abs(before - after).max() <= steps / longest * largest * 1.001 + 1e-4
    assert largest == 0 or (before != after).any()


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_spikes_that_a_pool_sends_to_neurons_get_weights_of_1(seed):
    """As on a core that has one kernel: a pool between spiking layers, and a batch norm between them."""
    rng = np.random.default_rng(seed)
    pool, shape = random_pool(rng, 2, (SumPool,)), (2, 6, 6)
    first = Layer(name="a", synapse=random_conv(rng, shape, plain=True), neuron=random_neuron(rng, (1, 1, 1), (IF,)))
    maps = first.output_shape(shape)
    second = Layer(name="b", synapse=pool, norm=random_norm(rng, maps[0]), neuron=random_neuron(rng, (1, 1, 1), (IF,)))
    graph = chain([first, second], input_shape=shape, dt_s=DT_S)
    lists = chip(layers__kinds="[Dense, Conv2d, SumPool, AvgPool, Flatten]")
    adapted, made = replace_all(graph, lambda g: [*find_maps(g, lists), *find_kernels(g, lists)])
    assert made >= 1 and kinds_of(adapted) == {"Conv2d", "SumPool"}
    assert count_differing_spikes(graph, adapted, seed) == 0


def weightless_maps(seed: int, shape: tuple[int, ...]) -> SNNGraph:
    """Return neurons on a map that take spikes through no weights, their own of a step before among them, and a readout."""
    rng = np.random.default_rng(seed)
    ones = (1,) * len(shape)
    first = Layer(name="a", neuron=random_neuron(rng, ones, (IF,)))
    layers = [first, Layer(name="out", synapse=Dense(weight=eighths(rng, (3, int(np.prod(shape))))), neuron=IF())]
    edges = [Edge(source=INPUT, target="a"), Edge(source="a", target="a", delay=1), Edge(source="a", target="out")]
    return SNNGraph(layers=layers, edges=edges, input_shape=shape, output="out", dt_s=DT_S)


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_spikes_without_weights_on_maps_get_dense_weights_where_the_chip_has_no_others(seed):
    graph = weightless_maps(seed, ((2, 3, 4), (3, 5))[seed % 2])
    adapted, made = replace_all(graph, lambda g: find_maps(g, chip(layers__kinds="[Dense, Flatten]")))
    assert made and kinds_of(adapted) == {"Dense", "Flatten"} and adapted["a"].synapse is None
    assert count_differing_spikes(graph, adapted, seed) == 0


def test_spikes_without_weights_on_large_maps_are_not_written_out():
    largest = chip(layers__kinds="[Dense, Flatten]")
    offers = [list(find_maps(weightless_maps(0, (1, 64, side)), largest)) for side in (64, 65)]
    assert [len(found) for found in offers] == [1, 0]


def test_a_diagonal_of_a_long_list_is_not_written_out():
    lists = chip(layers__kinds="[Dense, Flatten]")
    graphs = (chain([Layer(name="a", synapse=Scale(weight=np.ones(n)), neuron=IF())], input_shape=(n,)) for n in (4096, 4097))
    assert [len(list(find_maps(graph, lists))) for graph in graphs] == [1, 0]


def test_time_constants_of_a_file_are_those_of_the_chip():
    """A file holds 24 bits of them, which is no other time constant; others are written with the digits that differ."""
    xylo, rng = load_profile("xylo_audio3"), np.random.default_rng(0)

    def rewrites(steps):
        neuron = CubaLIF(tau_mem_s=np.float32(steps * DT_S), tau_syn_s=np.float32(4 * DT_S))
        layer = Layer(name="a", synapse=Dense(weight=eighths(rng, (2, 2))), neuron=neuron)
        return [(made.what, made.by) for made in find_time_constants(chain([layer], input_shape=(2,), dt_s=DT_S), xylo)]

    assert rewrites(2) == [] and rewrites(8) == []
    assert rewrites(3) == [("membrane time constant of 3 steps", "4 steps")]
    assert rewrites(2.0001) == [("membrane time constant of 2.0001 steps", "2 steps")]
    assert rewrites(np.array([3, 1.1e12])) == [("membrane time constant of 3 to unlimited steps", "4 to 32,768 steps")]
