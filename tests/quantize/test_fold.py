"""Weights behind weights and norms without weights, folded for a check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.network import IF, BatchNorm, Conv1d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.quantize.fold import fold_batchnorm, fold_chained_weights
from spear_deploy.simulator import simulate


def norm(channels: int) -> BatchNorm:
    values = np.arange(1.0, channels + 1)
    return BatchNorm(weight=values, bias=values / 4, mean=values / 2, var=values**2, eps=0.0)


def conv(name: str = "c", **parts: Any) -> Layer:
    return Layer(name=name, synapse=Conv1d(weight=np.arange(1.0, 5).reshape(2, 2, 1)), **parts)


def run_both(graph: SNNGraph, folded: SNNGraph) -> None:
    x = (np.random.default_rng(0).random((10, 2, *graph.input_shape)) < 0.5).astype(np.float64)
    outputs = [simulate(each, x, dtype=np.float64).output for each in (graph, folded)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-12)


@pytest.mark.parametrize(
    "layers",
    [
        [conv(norm=norm(2), neuron=IF())],
        [conv(norm=norm(2))],
        [conv(neuron=IF()), Layer(name="n", norm=norm(2), neuron=IF())],
        [conv(neuron=IF()), Layer(name="p", synapse=SumPool(kernel_size=(2,)))],
    ],
)
def test_norms_of_weights_and_of_spikes_that_neurons_take_stay(layers: list[Layer]) -> None:
    graph = chain(layers, input_shape=(2, 4))
    assert fold_chained_weights(graph) is graph


def test_a_norm_without_weights_and_neurons_becomes_weights() -> None:
    graph = chain([conv(neuron=IF()), Layer(name="n", norm=norm(2))], input_shape=(2, 4))
    folded = fold_chained_weights(graph)
    assert isinstance(folded["n"].synapse, Scale) and folded["n"].norm is None and folded["c"].synapse == graph["c"].synapse
    run_both(graph, folded)


def test_a_norm_of_a_sum_of_currents_goes_into_their_weights() -> None:
    layers = [conv("a"), conv("b"), Layer(name="n", norm=norm(2), neuron=IF())]
    ends = (INPUT, "a"), (INPUT, "b"), ("a", "n"), ("b", "n")
    graph = SNNGraph(layers=layers, edges=[Edge(source=x, target=y) for x, y in ends], input_shape=(2, 4))
    folded = fold_chained_weights(graph)
    assert folded["n"].norm is None and folded["n"].synapse is None
    run_both(graph, folded)


def test_weights_behind_weights_without_a_norm_become_one_layer() -> None:
    dense = Layer(name="d", synapse=Dense(weight=np.arange(24.0).reshape(3, 8)), neuron=IF())
    graph = chain([conv(), Layer(name="f", synapse=Flatten()), dense], input_shape=(2, 4))
    folded = fold_chained_weights(graph)
    assert [layer.name for layer in folded.layers] == ["d"]
    run_both(graph, folded)


@pytest.mark.parametrize("weight", [2.0, np.arange(1.0, 3).reshape(2, 1, 1), np.arange(24.0).reshape(2, 3, 4)])
@pytest.mark.parametrize("bias", [None, np.arange(24.0).reshape(2, 3, 4)])
def test_a_norm_is_folded_into_weights_one_to_one_by_channel(weight: Any, bias: Any) -> None:
    scale = Layer(name="s", synapse=Scale(weight=np.asarray(weight), bias=bias), norm=norm(2))
    graph = chain([scale], input_shape=(2, 3, 4))
    folded = fold_batchnorm(graph)
    assert folded["s"].norm is None
    run_both(graph, folded)
