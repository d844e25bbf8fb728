"""Datasets of torch and Tonic."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.errors import DataError
from tests.data.test_events import slow_frames, some_events


def test_datasets_of_torch():
    import torch

    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 2
    both = torch.utils.data.TensorDataset(x, y)
    result = data.from_torch(both, both, steps=3, input_shape=(1, 4, 4), samples=30)
    assert (len(result.test), result.kind, result.steps) == (30, "current", 3)
    assert np.allclose(result.test.x[7, 1], x[7].numpy())
    coded = data.from_torch(both, both, steps=3, input_shape=(1, 4, 4), encoding="latency")
    assert coded.kind == "spikes"


EVENT = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


def tonic_like(seed: int, label: int) -> tuple[np.ndarray, int]:
    x, y, p, t = some_events(seed, side=9)
    events = np.zeros(len(x), EVENT)
    events["x"], events["y"], events["p"], events["t"] = x, y, p, t
    return events, label


def test_datasets_of_tonic_events_are_binned():
    train = [tonic_like(seed, seed % 2) for seed in range(20)]
    result = data.from_torch(train, train[:6], steps=4)
    assert result.input_shape == (2, 9, 9) and result.kind == "spikes"
    x, y, p, t = some_events(3, side=9)
    assert np.array_equal(result.test.x[3], slow_frames(x, y, p, t, 4, 9))


def test_events_of_torch_take_the_sensor_from_the_input_shape():
    train = [tonic_like(seed, seed % 2) for seed in range(20)]
    wide = data.from_torch(train, train[:6], steps=4, input_shape=(2, 12, 16))
    assert wide.input_shape == (2, 12, 16) and wide.kind == "spikes"
    assert np.array_equal(wide.test.x[..., :9, :9], data.from_torch(train, train[:6], steps=4).test.x)


def test_events_without_a_place_or_samples_of_different_shape():
    nowhere = np.zeros(3, np.dtype([("t", int), ("p", int)]))
    with pytest.raises(DataError, match="events have no field x; expected x, y, t"):
        data.from_torch([(nowhere, 0)], [(nowhere, 0)], steps=2)
    uneven = [(np.zeros((3, 4)), 0), (np.zeros((2, 4)), 1)]
    with pytest.raises(DataError, match="train split: samples differ in shape, e.g. .*; pad or bin them to one shape"):
        data.from_torch(uneven, uneven)
