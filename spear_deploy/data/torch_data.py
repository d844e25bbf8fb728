"""Datasets of torch and Tonic, collected into arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.dataset import Dataset
from spear_deploy.data.encoders import Encoding
from spear_deploy.data.events import Events
from spear_deploy.data.labels import to_plain
from spear_deploy.errors import DataError
from spear_deploy.network import Array, Shape


def from_torch(
    train: Any,
    test: Any,
    *,
    name: str = "torch",
    steps: int = 8,
    encoding: Encoding | None = None,
    samples: int | None = None,
    seed: int = 0,
    input_shape: Shape | None = None,
) -> Dataset:
    """Return the dataset of two `torch.utils.data.Dataset`s, those of Tonic included.

    Args:
        train, test: anything with a length whose items are (sample, label), or a label for each step: a tensor or array, or
            Tonic's structured events with fields x, y, t (µs) and p, which are counted in `steps` equal intervals.
        name: for messages.
        steps, encoding, seed: as in `load_data`.
        samples: number of samples to take from the start of each; all by default.
        input_shape: as in `load_data`; of events the sensor's (2, H, W), by default the smallest that holds all events.

    Raises:
        DataError: a loader of batches, items that are no (sample, label), samples that differ in shape, events without a field,
            or data that `load_data` refuses.
    """
    arrays: dict[str, Any] = {}
    splits = {f"data '{name}', {which} split": data for which, data in (("train", train), ("test", test))}
    sensor = input_shape or _find_sensor(splits, samples)
    for (where, data), which in zip(splits.items(), ("train", "test"), strict=True):
        values, labels = [], []
        for value, label in _read_items(data, samples, where):
            values.append(_bin_frames(value, sensor, steps, where) if value.dtype.names else value)
            labels.append(_read_label(label, where))
        shapes = sorted({value.shape for value in values})
        if len(shapes) > 1:
            raise DataError(f"{where}: samples differ in shape, e.g. {shapes[:3]}; pad or bin them to one shape")
        shapes = sorted({np.shape(label) for label in labels})
        if len(shapes) > 1:
            raise DataError(f"{where}: labels differ in shape, e.g. {shapes[:3]}; give one a sample, or one at each of its steps")
        arrays |= {f"x_{which}": np.stack(values), f"y_{which}": np.array(labels)}
    return from_arrays(arrays, name=name, steps=steps, seed=seed, input_shape=input_shape, encoding=encoding)


def _read_items(data: Any, samples: int | None, where: str) -> Iterator[tuple[Array, Any]]:
    """Return the samples of a dataset as arrays, with their labels, one after another.

    Raises:
        DataError: no dataset with a length, or one without samples, or items that are no (sample, label).
    """
    if hasattr(data, "batch_sampler") and hasattr(data, "dataset"):
        raise DataError(f"{where}: {type(data).__name__} gives batches in an order of its own; give its .dataset")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise DataError(f"{where}: {type(data).__name__} has no length and items; give a dataset whose items are (sample, label)")
    count = len(data) if samples is None else min(samples, len(data))
    if not count:
        raise DataError(f"{where}: there is no sample; give at least one of each class")
    for item in (data[index] for index in range(count)):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            what = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
            raise DataError(f"{where}: an item is {what}, expected (sample, label); give a dataset that returns these two")
        yield np.asarray(to_plain(item[0])), to_plain(item[1])


def _read_label(label: Any, where: str) -> Any:
    """Return a label: a whole number, or an array with one at each step.

    Raises:
        DataError: text, nothing, or lists within a list.
    """
    try:
        array = np.asarray(label)
    except ValueError:  # a list of lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: a label is {label!r}, expected a whole number from 0; number the classes")
    if array.size != 1:
        return array
    number = array.reshape(()).item()
    return int(number) if float(number).is_integer() else number


def _bin_frames(events: Array, sensor: Shape | None, steps: int, where: str) -> Array:
    """Count Tonic's events in equal intervals of a recording's own length: (T, 2, H, W).

    Raises:
        DataError: no field x, t or p, or polarities that are neither 0 and 1 nor −1 and 1.
    """
    missing = {"x", "t", "p"} - set(events.dtype.names or ())
    if missing or sensor is None:
        raise DataError(f"events have no field {', '.join(sorted(missing)) or 'x'}; expected x, y, t (µs) and p")
    y = events["y"] if "y" in (events.dtype.names or ()) else np.zeros(len(events), np.int64)
    time = events["t"].astype(np.float64 if events["t"].dtype.kind == "f" else np.int64)
    time_s = (time - (time.min() if len(time) else 0)) * 1e-6
    x, p = events["x"].astype(np.int64), events["p"].astype(np.int64)
    if not np.isin(p, (-1, 0, 1)).all() or (-1 in p and 0 in p):
        raise DataError(f"{where}: events have the polarities {np.unique(p)[:4].tolist()}, expected 0 and 1, or -1 and 1")
    return Events(x=x, y=y.astype(np.int64), p=np.maximum(p, 0), time_s=time_s).frames(sensor, steps)


def _find_sensor(splits: Mapping[str, Any], samples: int | None) -> Shape | None:
    """Return (2, H, W) that holds every event, or None for samples that are no events."""
    width = height = 0
    for where, data in splits.items():
        for events, _ in _read_items(data, samples, where):
            if events.dtype.names is None:
                return None
            width = max(width, int(events["x"].max(initial=0)) + 1) if "x" in events.dtype.names else width
            height = max(height, int(events["y"].max(initial=0)) + 1) if "y" in events.dtype.names else max(height, 1)
    return (2, height, width)
