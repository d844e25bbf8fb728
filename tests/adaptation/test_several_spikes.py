"""Networks of single spikes on chips that send several in a step."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.adaptation.several_spikes import match_spikes
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.training.test_fit import toy_data


def driven(gain: float):
    """A hidden layer that is driven over its threshold several times a step at a gain above 1."""
    rng = np.random.default_rng(1)
    neuron = IF(reset="subtract")
    layers = (
        Layer(name="hidden", synapse=Dense(weight=gain * rng.uniform(0.2, 1.0, (8, 6)).astype(np.float32)), neuron=neuron),
        Layer(name="out", synapse=Dense(weight=rng.uniform(0.05, 0.1, (2, 8)).astype(np.float32)), neuron=neuron),
    )
    return chain(layers, input_shape=(6,))


def test_the_chips_rates_become_those_of_the_network():
    data = toy_data()
    x = np.moveaxis(data.train.x[:64], 0, 1)
    graph = driven(2.0)
    integer = quantize(graph, format="speck", calibration=x)
    before, on_chip = (simulate(each, x, record=("spikes",)).spikes["hidden"] for each in (graph, integer))
    assert on_chip.mean() > 1.5 * before.mean() and on_chip.max() > 1
    matched = match_spikes(graph, integer, data)
    assert matched["hidden"].neuron.max_spikes is None and matched["hidden"].neuron.v_threshold > 1
    after = simulate(quantize(matched, format="speck", calibration=x), x, record=("spikes",)).spikes["hidden"]
    assert after.mean() == pytest.approx(before.mean(), rel=0.1)


def test_a_network_that_the_chip_sends_no_more_for_stays():
    data = toy_data()
    x = np.moveaxis(data.train.x[:64], 0, 1)
    graph = driven(0.05)
    assert match_spikes(graph, quantize(graph, format="speck", calibration=x), data) is graph
    assert match_spikes(graph, quantize(graph, format="truenorth", calibration=x), data) is graph
