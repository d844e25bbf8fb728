"""How are the datasets of torch and Tonic used? Their samples are collected into arrays, once."""

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
    encoding: Encoding = "direct",
    sensor: Shape | None = None,
    samples: int | None = None,
    seed: int = 0,
    input_shape: Shape | None = None,
) -> Dataset:
    """Return the dataset of two `torch.utils.data.Dataset`s, those of Tonic included.

    Args:
        train, test: anything with a length whose items are (sample, label): a tensor or array, or Tonic's structured events
            with fields x, y, t (µs) and p, which are counted in `steps` equal stretches.
        name: for messages.
        steps, encoding, seed, input_shape: as in `load_data`.
        sensor: (2, H, W) of events; the furthest event tells unless given.
        samples: how many of each to take, from the first.
    """
    arrays: dict[str, Any] = {}
    for which, data in (("train", train), ("test", test)):
        x, y = _collected(data, which, name, steps, sensor or _sensor((train, test), samples), samples)
        arrays |= {f"x_{which}": x, f"y_{which}": y}
    return from_arrays(arrays, name=name, steps=steps, seed=seed, input_shape=input_shape, encoding=encoding)


def _collected(data: Any, which: str, name: str, steps: int, sensor: Shape | None, samples: int | None) -> tuple[Array, Array]:
    count = len(data) if samples is None else min(samples, len(data))
    values, labels = [], []
    for i in range(count):
        sample, label = data[i]
        array = np.asarray(sample)
        values.append(array if array.dtype.names is None else _frames(array, sensor, steps))
        labels.append(int(label))
    if len({value.shape for value in values}) > 1:
        shapes = sorted({value.shape for value in values})[:3]
        raise DataError(f"data '{name}', {which} split: samples differ in shape, e.g. {shapes}; pad or bin them to one shape")
    return np.stack(values), np.array(labels)


def _frames(events: Array, sensor: Shape | None, steps: int) -> Array:
    missing = {"x", "t", "p"} - set(events.dtype.names or ())
    if missing or sensor is None:
        raise DataError(f"events have no field {', '.join(sorted(missing)) or 'x'}; expected x, y, t (µs) and p")
    y = events["y"] if "y" in (events.dtype.names or ()) else np.zeros(len(events), np.int64)
    time_us = events["t"].astype(np.int64)
    time_s = (time_us - time_us.min(initial=np.iinfo(np.int64).max)) * 1e-6
    found = Events(x=events["x"].astype(np.int64), y=y.astype(np.int64), p=events["p"].astype(np.int64), time_s=time_s)
    return found.frames(sensor, steps)


def _sensor(parts: tuple[Any, ...], samples: int | None) -> Shape | None:
    """Return (2, H, W) that holds every event, or None for samples that are no events."""
    width = height = 0
    for data in parts:
        for i in range(len(data) if samples is None else min(samples, len(data))):
            events = np.asarray(data[i][0])
            if events.dtype.names is None:
                return None
            width = max(width, int(events["x"].max(initial=0)) + 1) if "x" in events.dtype.names else width
            height = max(height, int(events["y"].max(initial=0)) + 1) if "y" in events.dtype.names else max(height, 1)
    return (2, height, width)
