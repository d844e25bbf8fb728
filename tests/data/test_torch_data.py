"""Datasets of torch and Tonic."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from spear_deploy import data
from spear_deploy.data import from_arrays, from_torch, load_data
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


class Items:
    """Items of a dataset, made by a function of their number."""

    def __init__(self, make, count=30):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(index)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([])


SPIKES = (np.random.default_rng(0).random((30, 8, 12)) < 0.4).astype(np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: (SPIKES[n], n % 6 + 0.7), "train split: labels are floating-point numbers, expected whole numbers from 0"),
        (lambda n: (SPIKES[n], torch.tensor(n % 6 + 0.5)), "labels are floating-point numbers, expected whole numbers from 0"),
        (
            lambda n: (SPIKES[n], "abc"[n % 3]),
            "data 'torch', train split: a label is 'a', expected a whole number from 0; number",
        ),
        (lambda n: (SPIKES[n], [[0], [1, 2]]), r"a label is \[\[0\], \[1, 2\]\], expected a whole number from 0"),
        (lambda n: (SPIKES[n], None), "a label is None, expected a whole number from 0; number the classes"),
        (
            lambda n: {"x": SPIKES[n], "y": 0},
            r"an item is dict, expected \(sample, label\); give a dataset that returns these two",
        ),
        (lambda n: (SPIKES[n], 0, n), r"an item is 3 values, expected \(sample, label\)"),
    ],
)
def test_items_that_are_no_samples_with_classes_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        from_torch(Items(make), Items(make))


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor, lambda label: torch.tensor(float(label))])
def test_whole_numbers_are_labels_in_any_type(kind):
    read = from_torch(Items(lambda n: (SPIKES[n], kind(n % 3))), Items(lambda n: (SPIKES[n], kind(n % 3))))
    assert read.test.y.dtype == np.int64 and read.test.y.tolist() == [n % 3 for n in range(30)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Items(lambda n: (SPIKES[n], 0), 0), "data 'torch', train split: there is no sample; give at least one of each class"),
        (Stream(), r"train split: Stream has no length and items; give a dataset whose items are \(sample, label\)"),
        (5, "train split: int has no length and items"),
        (torch.utils.data.DataLoader(Items(lambda n: (SPIKES[n], 0))), "DataLoader gives batches in .*; give its .dataset"),
    ],
)
def test_what_is_no_dataset_with_a_length_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        from_torch(data, data)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.bfloat16(),
        lambda x: x.half(),
        lambda x: x.to_sparse(),
        lambda x: x.clone().requires_grad_(),
    ],
)
def test_tensors_that_numpy_does_not_take_are_read(convert):
    def make(n):
        return convert(torch.tensor(SPIKES[n]).float()), n % 6

    plain = from_torch(Items(lambda n: (SPIKES[n], n % 6)), Items(lambda n: (SPIKES[n], n % 6)))
    data = from_torch(Items(make), Items(make))
    np.testing.assert_array_equal(data.test.x, plain.test.x)
    whole = convert(torch.tensor(SPIKES).float())
    again = from_arrays({"x_train": whole, "y_train": np.arange(30) % 6, "x_test": whole, "y_test": np.arange(30) % 6}, name="a")
    np.testing.assert_array_equal(again.test.x, plain.test.x)


def make_events(polarity=lambda p: p, time=lambda t: t, kind="<i8"):
    rng = np.random.default_rng(3)
    events = np.zeros(50, np.dtype([("x", "<i2"), ("y", "<i2"), ("t", kind), ("p", "<i2")]))
    events["x"], events["y"], events["p"] = rng.integers(0, 5, 50), rng.integers(0, 5, 50), polarity(rng.integers(0, 2, 50))
    events["t"] = time(np.sort(rng.integers(0, 900_000, 50)))
    return events


@pytest.mark.parametrize(
    "events",
    [
        make_events(polarity=lambda p: 2 * p - 1),
        make_events(kind="<f8"),
        make_events(time=lambda t: t / 1e6, kind="<f8"),
    ],
    ids=("polarities -1 and 1", "floating microseconds", "seconds"),
)
def test_events_of_other_polarities_and_units_of_time_are_the_same(events):
    plain, data = (from_torch(*[Items(lambda n, e=e: (e, n % 3), 12)] * 2) for e in (make_events(), events))
    assert plain.test.x.any(axis=(0, 2, 3, 4)).all()
    np.testing.assert_array_equal(data.test.x, plain.test.x)


def test_other_polarities_are_refused():
    events = make_events(polarity=lambda p: p + 1)
    with pytest.raises(DataError, match=r"train split: events have the polarities \[1, 2\], expected 0 and 1, or -1 and 1"):
        from_torch(Items(lambda n: (events, 0)), Items(lambda n: (events, 0)))


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: (d, d), lambda d: torch.utils.data.random_split(d, [10, 20])])
def test_a_function_that_returns_datasets_of_torch_is_refused_with_what_to_return(wrap, monkeypatch):
    dataset = torch.utils.data.TensorDataset(torch.tensor(SPIKES), torch.arange(30) % 6)
    module = ModuleType("datasets_of_torch")
    module.load = lambda: wrap(dataset)
    monkeypatch.setitem(sys.modules, "datasets_of_torch", module)
    with pytest.raises(DataError, match=r"data 'datasets_of_torch:load': .* of torch; return from_torch\(train, test\)"):
        load_data("datasets_of_torch:load")
