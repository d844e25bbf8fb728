"""Skips as relay channels, layers of weights that become one: random networks, 20 each by default and 300 behind `-m slow`."""

from typing import Any

import numpy as np
import pytest

from spear_deploy.adaptation.maps import find_maps
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.adaptation.skips import find_skips
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, Conv1d, Conv2d, Dense, Layer, Scale
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from tests.adaptation.random_networks import DT_S, count_differing_spikes, eighths, random_norm
from tests.support.seeds import seeds

SEEDS = seeds(8, 300)
GENERIC = load_profile("generic45nm")
LAYER_BY_LAYER = override_facts(GENERIC, {"weights.delay_max_steps": 0, "timing.mode": "fixed_tick"})
ONE_LAYER_OF_WEIGHTS = override_facts(GENERIC, {"layers.kernels_into_layer": 1, "timing.mode": "async"})


def random_neuron(rng: np.random.Generator, channels: int, axes: int, *, most: int | None) -> Any:
    """Return a neuron that can relay spikes, with a threshold for all or one per channel; without memory if it sends several."""
    shape = [(), (channels, *(1,) * axes)][rng.integers(2)]
    threshold, reset = 0.5 + rng.integers(1, 8, shape) / 4, ("value", "subtract")[rng.integers(2)]
    if most != 1:
        return LIF(tau_s=DT_S, v_threshold=threshold, reset=reset, max_spikes=most)
    if rng.integers(2):
        return IF(v_threshold=threshold, reset=reset)
    return LIF(tau_s=DT_S * 2.0 ** rng.integers(0, 3), r=2.0 ** rng.integers(0, 3), v_threshold=threshold, reset=reset)


def random_skip(seed: int, axes: int, *, most: int | None = 1, size: int = 0) -> SNNGraph:
    """Return a stem, one to three layers, and a skip over them: the spikes as they are, a weight per channel, or weights.

    Args:
        seed: of all numbers.
        axes: of a map, 0 for lists.
        most: spikes that a neuron sends in a step at most.
        size: of a map, 0 for a random one along each axis.
    """
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 4))
    shape = (channels, *(size or int(rng.integers(5, 8)) for _ in range(axes)))
    jumped = int(rng.integers(1, 4))
    stride = int(rng.integers(1, 3)) if axes else 1
    layers, edges = [Layer(name="stem", synapse=Scale(weight=np.ones(1)), neuron=IF(v_threshold=0.5))], []
    if most != 1:
        strong = Scale(weight=np.asarray([float(rng.integers(1, 5))]))
        layers = [Layer(name="stem", synapse=strong, neuron=LIF(tau_s=DT_S, v_threshold=0.75, max_spikes=most))]

    def weights(inputs: int, outputs: int, stride: int, kernel: int) -> Any:
        bias = eighths(rng, outputs) if rng.integers(2) else None
        if not axes:
            return Dense(weight=eighths(rng, (outputs, inputs)), bias=bias)
        kind: Any = (Conv1d, Conv2d)[axes - 1]
        full = eighths(rng, (outputs, inputs, *(kernel,) * axes))
        return kind(weight=full, bias=bias, stride=(stride,) * axes, padding=(kernel // 2,) * axes)

    source, width = "stem", channels
    for number in range(jumped):
        after = int(rng.integers(1, 4))
        synapse = weights(width, after, stride if not number else 1, 3)
        neuron, norm = random_neuron(rng, after, axes, most=most), random_norm(rng, after)
        layers.append(Layer(name=f"a{number}", synapse=synapse, norm=norm, neuron=neuron))
        edges.append(Edge(source=source, target=f"a{number}"))
        source, width = f"a{number}", after
    kind = rng.integers(3) if stride == 1 else 2
    outputs = channels if kind < 2 else int(rng.integers(1, 4))
    layers.append(Layer(name="b", synapse=weights(width, outputs, 1, 3), norm=random_norm(rng, outputs)))
    edges += [Edge(source=source, target="b"), Edge(source="b", target="sum")]
    if kind == 0:
        edges.append(Edge(source="stem", target="sum"))
    else:
        per_channel = Scale(weight=eighths(rng, (channels, *(1,) * axes)))
        synapse = per_channel if kind == 1 else weights(channels, outputs, stride, 1 if stride > 1 else 3)
        layers.append(Layer(name="skip", synapse=synapse))
        edges += [Edge(source="stem", target="skip"), Edge(source="skip", target="sum")]
    layers.append(Layer(name="sum", neuron=random_neuron(rng, outputs, axes, most=most)))
    size = outputs * int(np.prod([-(-n // stride) for n in shape[1:]], dtype=int))
    layers.append(Layer(name="out", synapse=Dense(weight=eighths(rng, (3, size))), neuron=LI(tau_s=DT_S * 2)))
    edges = [Edge(source=INPUT, target="stem"), *edges, Edge(source="sum", target="out")]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, dt_s=DT_S, output="out")


def replace_skips(graph: SNNGraph, chip: Any) -> tuple[SNNGraph, list[str]]:
    """Make all replacements; return the network and their kinds."""
    kinds = []
    while (offer := next(find_skips(graph, chip), None)) is not None:
        graph = offer.rewrite(graph)
        kinds.append(offer.kind)
    return graph, kinds


@pytest.mark.parametrize("axes", [0, 1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_relays_pass_on_the_spikes_of_a_skip(seed, axes):
    graph = random_skip(seed, axes)
    adapted, kinds = replace_skips(graph, LAYER_BY_LAYER)
    assert kinds and adapted.neurons > graph.neurons
    assert not [row for row in check(adapted, LAYER_BY_LAYER, remedies=False).unsupported if row.resource == "delay"]
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("axes", [0, 1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_residual_block_becomes_a_chain(seed, axes):
    graph = random_skip(seed, axes)
    adapted, kinds = replace_skips(graph, ONE_LAYER_OF_WEIGHTS)
    assert len(kinds) >= 2 and all(len(adapted.edges_into(layer.name)) == 1 for layer in adapted.layers)
    assert not check(adapted, ONE_LAYER_OF_WEIGHTS, remedies=False).unsupported
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("most", [15, None])
@pytest.mark.parametrize("seed", SEEDS)
def test_relays_without_memory_pass_on_several_spikes_a_step(seed, most):
    graph = random_skip(seed, seed % 3, most=most)
    adapted, kinds = replace_skips(graph, ONE_LAYER_OF_WEIGHTS)
    assert set(kinds) == {"exact"} and all(len(adapted.edges_into(layer.name)) == 1 for layer in adapted.layers)
    assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_without_weights_get_weights_of_one(seed):
    graph = random_skip(seed, 0)
    dense_alone = override_facts(GENERIC, {"layers.kinds": ["Dense", "Flatten"]})
    adapted, made = graph, 0
    while (offer := next(find_maps(adapted, dense_alone), None)) is not None:
        assert offer.kind == "exact"
        adapted, made = offer.rewrite(adapted), made + 1
    assert made and all(isinstance(layer.synapse, (Dense, type(None))) for layer in adapted.layers)
    assert all(graph[edge.source].neuron is None for edge in adapted.edges_into("sum") if edge.source in ("b", "skip"))
    assert all(adapted[edge.source].neuron is None for edge in adapted.edges_into("sum"))
    assert count_differing_spikes(graph, adapted, seed) == 0


def test_what_integrates_and_subtracts_is_bounded_and_says_for_how_many_spikes():
    graph = random_skip(1, 0)
    graph = graph.with_layers(lambda layer: layer if layer.name != "a0" else Layer(
        name="a0", synapse=layer.synapse, neuron=IF(reset="subtract")))  # fmt: skip
    offer = next(find_skips(graph, ONE_LAYER_OF_WEIGHTS))
    assert (offer.kind, offer.bound) == ("bounded", "a neuron sends 64 spikes at most")


@pytest.mark.parametrize("neuron", [
    IF(reset="none"), LIF(tau_s=0.002, v_leak=0.25), LIF(tau_s=0.002, v_reset=0.25), LIF(tau_s=0.002, v_init=0.5),
    LIF(tau_s=0.002, reset="subtract", reset_delay=1),
])  # fmt: skip
def test_neurons_that_do_not_rest_at_zero_are_no_relays(neuron):
    graph = random_skip(2, 0)
    graph = graph.with_layers(lambda layer: layer if not layer.name.startswith("a") else Layer(
        name=layer.name, synapse=layer.synapse, neuron=neuron))  # fmt: skip
    assert not list(find_skips(graph, ONE_LAYER_OF_WEIGHTS))


def test_a_loop_is_no_skip():
    layers = (
        Layer(name="in", synapse=Dense(weight=np.eye(2))),
        Layer(name="loop", synapse=Dense(weight=np.eye(2))),
        Layer(name="hidden", neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,), dt_s=DT_S, output="hidden")
    assert not list(find_skips(graph, ONE_LAYER_OF_WEIGHTS)) and not list(find_skips(graph, LAYER_BY_LAYER))


@pytest.mark.parametrize("chip", ["speck2f", "akd1000", "reckon", "xylo_audio3", "brainscales2"])
def test_plans_of_real_chips_leave_nothing_of_a_skip_lacking(chip):
    graph = random_skip(5, 2, size=6)
    profile = override_facts(load_profile(chip), {"connectivity.input_channels": "unlimited"})
    best = make_plans(graph, profile)[0]
    assert best.lacking == [] and best.steps
    assert {step.replacement.topic for step in best.steps} & {"skip", "map"}
