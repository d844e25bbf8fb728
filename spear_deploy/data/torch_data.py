"""Datasets of torch and Tonic, collected into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.dataset import Dataset
from spear_deploy.data.encoders import Encoding
from spear_deploy.data.events import Events
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
        DataError: samples that differ in shape, events without a field, or data that `load_data` refuses.
    """
    arrays: dict[str, Any] = {}
    sensor = input_shape or _find_sensor((train, test), samples)
    for which, data in (("train", train), ("test", test)):
        values, labels = [], []
        for index in range(len(data) if samples is None else min(samples, len(data))):
            sample, label = data[index]
            array = np.asarray(sample)
            values.append(array if array.dtype.names is None else _bin_frames(array, sensor, steps))
            labels.append(int(label) if np.size(label) == 1 else np.asarray(label))
        shapes = sorted({value.shape for value in values})
        if len(shapes) > 1:
            message = f"samples differ in shape, e.g. {shapes[:3]}; pad or bin them to one shape"
            raise DataError(f"data '{name}', {which} split: {message}")
        shapes = sorted({np.shape(label) for label in labels})
        if len(shapes) > 1:
            message = f"labels differ in shape, e.g. {shapes[:3]}; give one a sample, or one at each of its steps"
            raise DataError(f"data '{name}', {which} split: {message}")
        arrays |= {f"x_{which}": np.stack(values), f"y_{which}": np.array(labels)}
    return from_arrays(arrays, name=name, steps=steps, seed=seed, input_shape=input_shape, encoding=encoding)


def _bin_frames(events: Array, sensor: Shape | None, steps: int) -> Array:
    """Count Tonic's events in equal intervals: (T, 2, H, W)."""
    missing = {"x", "t", "p"} - set(events.dtype.names or ())
    if missing or sensor is None:
        raise DataError(f"events have no field {', '.join(sorted(missing)) or 'x'}; expected x, y, t (µs) and p")
    y = events["y"] if "y" in (events.dtype.names or ()) else np.zeros(len(events), np.int64)
    time_us = events["t"].astype(np.int64)
    time_s = (time_us - time_us.min(initial=np.iinfo(np.int64).max)) * 1e-6
    x, p = events["x"].astype(np.int64), events["p"].astype(np.int64)
    return Events(x=x, y=y.astype(np.int64), p=p, time_s=time_s).frames(sensor, steps)


def _find_sensor(splits: tuple[Any, ...], samples: int | None) -> Shape | None:
    """Return (2, H, W) that holds every event, or None for samples that are no events."""
    width = height = 0
    for data in splits:
        for index in range(len(data) if samples is None else min(samples, len(data))):
            events = np.asarray(data[index][0])
            if events.dtype.names is None:
                return None
            width = max(width, int(events["x"].max(initial=0)) + 1) if "x" in events.dtype.names else width
            height = max(height, int(events["y"].max(initial=0)) + 1) if "y" in events.dtype.names else max(height, 1)
    return (2, height, width)
