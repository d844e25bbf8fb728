"""Thresholds at which layers spike as often as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation import calibrate
from spear_deploy.adaptation.calibrate import FACTOR_BITS, HALVINGS, WINNER_RATE, calibrate_thresholds
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate
from tests.support.drawn_networks import draw_network
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


@pytest.mark.parametrize("kept", [calibrate.MAX_KEPT, 40])
def test_a_layer_alone_gives_the_same_thresholds_as_the_whole_network(kept, monkeypatch):
    monkeypatch.setattr(calibrate, "MAX_KEPT", kept)
    layers = 0
    for seed in range(12):
        graph = draw_network(seed)
        x = np.random.default_rng(seed).random((5, 3, *graph.input_shape))
        layers += check_network(graph, x < 0.3, "spikes", seed) + check_network(graph, x.astype(np.float32), "current", seed)
    for seed in range(12):
        graph = wild_graph(seed)
        layers += check_network(graph, wild_spikes(graph, seed), "spikes", seed)
    assert layers > 40


def test_an_input_that_is_infinite_is_given_to_the_whole_network():
    graph = next(graph for graph in map(draw_network, range(100)) if graph.layers[0].spikes and len(graph.layers) > 1)
    first = graph.layers[0]
    large = replace(first.synapse, weight=np.full_like(first.synapse.weight, 3e38))
    graph = graph.with_layers({first.name: replace(first, synapse=large)})
    x = np.ones((4, 2, *graph.input_shape), bool)
    with np.errstate(all="ignore"):
        check_network(graph, x, "spikes", 0)
