"""A core that is exactly full holds its layer; one more neuron takes another core."""

import numpy as np
import pytest

from spear_deploy.network import IF, Conv2d, Dense, Flatten, Layer
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


@pytest.mark.parametrize("axons", [3, 5, 16])
def test_channels_of_maps_of_one_position_are_cut_for_their_output_axons(axons: int) -> None:
    """16 channels that each send one axon to the one core behind."""
    layers = [
        Layer(name="map", synapse=Conv2d(weight=np.ones((16, 1, 4, 4), np.float32)), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=np.ones((2, 16), np.float32)), neuron=IF()),
    ]
    placed = place(chain(layers, input_shape=(1, 4, 4)), small_chip("loihi1", core__axons_out=axons))
    parts = placed.slices_of("map")
    assert all(part.axons_out <= axons for part in parts) and sum(part.neurons for part in parts) == 16
    assert len(parts) == {3: 8, 5: 4, 16: 1}[axons]
