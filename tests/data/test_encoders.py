"""Rate, Bernoulli and latency encodings, and event bins."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.data import load_data
from spear_deploy.errors import DataError


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_bernoulli_spikes_are_as_many_as_the_intensity_on_average_and_repeat_with_the_seed(steps):
    image = np.tile(np.linspace(0, 1, 5), (400, 1))
    once, again = (data.bernoulli(image, steps, seed=3) for _ in range(2))
    assert np.array_equal(once, again) and not np.array_equal(once, data.bernoulli(image, steps, seed=4))
    assert np.abs(once.mean(axis=(0, 1)) - image[0]).max() < 5 * 0.5 / np.sqrt(400 * steps)
    assert once[..., 0].max() == 0 and once[..., -1].min() == 1


def test_latency_is_one_spike_the_earlier_the_brighter():
    image = np.array([[0.0, 0.1, 0.5, 0.9, 1.0]])
    coded = data.latency(image, 11)
    assert coded.sum(axis=1).tolist() == [[0, 1, 1, 1, 1]]
    assert coded[0, :, 1:].argmax(axis=0).tolist() == [9, 5, 1, 0]


@pytest.mark.parametrize("encoding", ["rate", "bernoulli", "latency"])
def test_an_encoding_refuses_intensities_beyond_1(encoding):
    with pytest.raises(DataError, match=r"intensities: 0..2 given, .* takes 0..1; rescale them"):
        data.encode(np.array([[0.0, 2.0]]), encoding, 4)


def test_unknown_encoding():
    with pytest.raises(
        DataError, match="encoding 'ratee': expected one of direct, rate, bernoulli, latency; did you mean 'rate'"
    ):
        load_data("digits", encoding="ratee")
    with pytest.raises(DataError, match="encoding 'x': expected one of direct"):
        data.encode(np.zeros((1, 1)), "x", 4)


@pytest.mark.parametrize("seed", range(5))
def test_bins_hold_each_event_once(seed):
    rng = np.random.default_rng(seed)
    time, place = rng.random(200) * 1.2, rng.integers(0, 7, 200)
    expected = np.zeros((5, 7), int)
    for t, p in zip(time, place, strict=True):
        if t < 1.0:
            expected[int(t / 0.2), p] += 1
    assert np.array_equal(data.bin_events(time, place, 7, 5, duration_s=1.0), expected)
