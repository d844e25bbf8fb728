"""Thresholds at which layers spike as often as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation import calibrate
from spear_deploy.adaptation.calibrate import FACTOR_BITS, HALVINGS, WINNER_RATE, calibrate_thresholds
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.classes import OUTPUTS_PER_CLASS
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.drawn_networks import draw_network
from tests.support.seeds import few_first
from tests.support.wild_graphs import wild_graph, wild_spikes


def scale_threshold(graph: SNNGraph, name: str, exponent: float) -> SNNGraph:
    neuron = graph[name].neuron
    level = neuron.v_reset if neuron.reset == "value" else 0.0
    threshold = level + 2.0**exponent * (neuron.v_threshold - level)
    return graph.with_layers({name: replace(graph[name], neuron=replace(neuron, v_threshold=threshold))})


def calibrate_slowly(graph, rates, names, x, kind):
    """Run the whole network for each threshold that is tried."""
    for name in names:
        low, high = -FACTOR_BITS, FACTOR_BITS
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            run = simulate(scale_threshold(graph, name, middle), x, kind=kind)
            if name in rates:
                above = run.counts.rates()[name] > rates[name]
            else:
                mean = run.output.reshape(*run.output.shape[:2], -1).mean(axis=0, dtype=np.float64)
                above = mean.max(axis=1).mean() > WINNER_RATE
            low, high = (middle, high) if above else (low, middle)
        graph = scale_threshold(graph, name, (low + high) / 2)
    return graph


def check_network(graph: SNNGraph, x: np.ndarray, kind: str, seed: int) -> int:
    names = [layer.name for layer in graph.layers if layer.spikes]
    rng = np.random.default_rng(seed)
    rates = {name: float(rng.uniform(0, 0.4)) for name in names if name != graph.output}
    assert calibrate_thresholds(graph, rates, names, x, kind) == calibrate_slowly(graph, rates, names, x, kind)
    return len(names)


@pytest.mark.parametrize("first", few_first([0, 4, 8], 1))
@pytest.mark.parametrize("kept", [calibrate.MAX_KEPT, 40])
def test_a_layer_alone_gives_the_same_thresholds_as_the_whole_network(kept, first, monkeypatch):
    monkeypatch.setattr(calibrate, "MAX_KEPT", kept)
    layers = 0
    for seed in range(first, first + 4):
        graph = draw_network(seed)
        x = np.random.default_rng(seed).random((5, 3, *graph.input_shape))
        layers += check_network(graph, x < 0.3, "spikes", seed) + check_network(graph, x.astype(np.float32), "current", seed)
        graph = wild_graph(seed)
        layers += check_network(graph, wild_spikes(graph, seed), "spikes", seed)
    assert layers > 10


def test_an_input_that_is_infinite_is_given_to_the_whole_network():
    graph = next(graph for graph in map(draw_network, range(100)) if graph.layers[0].spikes and len(graph.layers) > 1)
    first = graph.layers[0]
    large = replace(first.synapse, weight=np.full_like(first.synapse.weight, 3e38))
    graph = graph.with_layers({first.name: replace(first, synapse=large)})
    x = np.ones((4, 2, *graph.input_shape), bool)
    with np.errstate(all="ignore"):
        check_network(graph, x, "spikes", 0)


def make_network(outputs: int = 4, per_class: int | None = None) -> SNNGraph:
    """Return two layers of neurons that integrate, the second with so many outputs a class."""
    rng = np.random.default_rng(2)
    layers = [
        Layer(name="hidden", synapse=Dense(weight=rng.uniform(0, 1, (20, 8))), neuron=IF(v_threshold=np.full(20, 2.0))),
        Layer(name="out", synapse=Dense(weight=rng.uniform(0, 1, (outputs, 20))), neuron=IF(v_threshold=np.full(outputs, 3.0))),
    ]
    metadata = {} if per_class is None else {OUTPUTS_PER_CLASS: per_class}
    return replace(chain(layers, input_shape=(8,)), metadata=metadata)


def draw_input(samples: int, share: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((40, samples, 8)) < share


def test_a_network_with_the_rates_of_itself_keeps_them_at_thresholds_up_to_its_own():
    """The rate at the first threshold that is tried is that before; where others below it give the same, one of them is kept."""
    graph, x = make_network(), draw_input(6)
    rates = {"hidden": simulate(graph, x).counts.rates()["hidden"]}
    after = calibrate_thresholds(graph, rates, ["hidden"], x, "spikes")
    assert after == calibrate_slowly(graph, rates, ["hidden"], x, "spikes")
    assert (after["hidden"].neuron.v_threshold < graph["hidden"].neuron.v_threshold).all()


def test_the_first_64_samples_are_measured():
    """The 64th and those behind it spike, those before do not."""
    graph, x = make_network(), np.zeros((40, 70, 8), bool)
    x[:, 63:] = True
    whole, *parts = (
        calibrate_thresholds(graph, {"hidden": 0.005}, ["hidden", "out"], part, "spikes")
        for part in (x, x[:, :64], x[:, :63], x[:, 1:])
    )
    assert [part == whole for part in parts] == [True, False, False]
    assert whole != calibrate_slowly(graph, {"hidden": 0.005}, ["hidden", "out"], x, "spikes")


@pytest.mark.parametrize("per_class", [None, 3])
def test_the_class_whose_outputs_spike_most_does_so_in_half_of_the_steps(per_class):
    graph, x = make_network(12, per_class), draw_input(6)
    run = simulate(calibrate_thresholds(graph, {}, ["out"], x, "spikes"), x)
    outputs = run.output.mean(axis=0).reshape(6, -1, per_class or 1).mean(axis=2)
    assert outputs.max(axis=1).mean() == pytest.approx(0.5, abs=0.04)


def test_thresholds_are_told_apart_to_4_per_cent_from_a_sixteenth_to_sixteen_times():
    """More spikes are wanted than the lowest of them gives, and none where the highest still leaves some."""
    graph, x = make_network(), draw_input(6)
    assert simulate(scale_threshold(graph, "hidden", 4.0), x).counts.rates()["hidden"] > 0
    for rate, bound in ((0.0, 16.0), (1.0, 1 / 16)):
        after = calibrate_thresholds(graph, {"hidden": rate}, ["hidden"], x, "spikes")
        factor = after["hidden"].neuron.v_threshold[0] / 2.0
        assert 1.02 < max(factor / bound, bound / factor) < 1.025
