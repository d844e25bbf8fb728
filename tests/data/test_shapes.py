"""Samples that differ from the network's input only by flattening or axes of length 1 are taken."""

import numpy as np
import pytest

from spear_deploy.data import load_data
from spear_deploy.errors import DataError
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.simulator.recordings import read_input

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 28, 28)).astype(np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [((28, 28), (784,)), ((1, 28, 28), (784,)), ((784,), (1, 28, 28)), ((28, 28), (1, 28, 28)), ((28, 28, 1), (1, 28, 28))],
)
def test_images_and_flat_inputs_meet(samples, wanted, tmp_path):
    np.savez(tmp_path / "images.npz", x=IMAGES.reshape(-1, *samples), y=LABELS)
    data = load_data(tmp_path / "images.npz", input_shape=wanted, steps=3, encoding="rate")
    np.savez(tmp_path / "flat.npz", x=IMAGES.reshape(-1, 784), y=LABELS)
    flat = load_data(tmp_path / "flat.npz", steps=3, encoding="rate")
    assert data.input_shape == wanted and data.steps == 3 and data.kind == "spikes"
    assert np.array_equal(data.test.x.reshape(flat.test.x.shape), flat.test.x) and flat.test.x.any()


def test_images_with_time_stay_in_order(tmp_path):
    spikes = (RNG.random((40, 5, 4, 6)) < 0.5).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x_train=spikes, y_train=LABELS, x_test=spikes, y_test=LABELS)
    data = load_data(tmp_path / "a.npz", input_shape=(24,))
    assert np.array_equal(data.test.x, spikes.reshape(40, 5, 24)) and data.kind == "spikes"


def test_a_dataset_of_a_function_meets_a_flat_input(tmp_path):
    digits = load_data("digits", steps=2)
    flat = load_data(digits, input_shape=(64,))
    assert flat.input_shape == (64,) and np.array_equal(flat.val.x, digits.val.x.reshape(-1, 2, 64))
    assert load_data("digits", steps=2, input_shape=(64,), encoding="direct").kind == "current"


def test_colour_images_with_channels_last_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 8, 8, 3), np.float32), y=LABELS)
    with pytest.raises(DataError, match="the network takes .N, T, 3 x 8 x 8. or"):
        load_data(tmp_path / "a.npz", input_shape=(3, 8, 8))


def test_an_input_file_of_images_meets_a_flat_network(tmp_path):
    network = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 24))), neuron=IF())], input_shape=(24,))
    spikes = (RNG.random((5, 2, 4, 6)) < 0.5).astype(np.uint8)
    np.savez(tmp_path / "in.npz", spikes=spikes)
    x, kind = read_input(tmp_path / "in.npz", network)
    assert kind == "spikes" and np.array_equal(x, spikes.reshape(5, 2, 24))
