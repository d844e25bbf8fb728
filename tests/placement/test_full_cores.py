"""A core that is exactly full holds its layer; one more neuron takes another core."""

import numpy as np
import pytest

from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.placement.place import place
from tests.support.chips import small_chip


def net(inputs: int, outputs: int):
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((outputs, inputs), np.float32)), neuron=IF())
    return chain([layer], input_shape=(inputs,))


def slices(inputs: int, outputs: int, **limits: int) -> int:
    return len(place(net(inputs, outputs), small_chip("loihi1", **limits)).slices_of("fc"))


@pytest.mark.parametrize("neurons", [1, 2, 7, 64])
def test_neurons(neurons: int) -> None:
    assert slices(3, neurons, core__neurons=neurons) == 1
    assert slices(3, neurons + 1, core__neurons=neurons) == 2
    assert slices(3, 2 * neurons, core__neurons=neurons) == 2
    assert slices(3, 2 * neurons + 1, core__neurons=neurons) == 3


@pytest.mark.parametrize("inputs", [2, 9, 40])
def test_axons(inputs: int) -> None:
    assert slices(inputs, 4, core__axons_in=inputs) == 1
    assert not place(net(inputs, 4), small_chip("loihi1", core__axons_in=inputs)).more_cores
