"""Spike encodings of images, and event counts per time step.

direct      the image as a current, the same at every step
rate        spikes in proportion to the intensity, evenly spread, deterministic
bernoulli   a spike at each step with the intensity as its probability
latency     one spike, the earlier the brighter; none where the image is dark
bins        events counted in equal intervals of time
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import Array

Encoding: TypeAlias = Literal["direct", "rate", "bernoulli", "latency"]
ENCODINGS: tuple[Encoding, ...] = ("direct", "rate", "bernoulli", "latency")


def encode(intensity: Array, encoding: Encoding, steps: int, *, seed: int = 0) -> Array:
    """Add a time axis to images.

    Args:
        intensity: (N, *input); 0..1 unless the encoding is direct.
        encoding: see the module.
        steps: T.
        seed: draws the Bernoulli spikes.

    Returns:
        (N, T, *input): float32 for direct, uint8 otherwise.
    """
    if encoding == "direct":
        return np.broadcast_to(intensity[:, None].astype(np.float32), (len(intensity), steps, *intensity.shape[1:]))
    if encoding == "rate":
        return rate_code(intensity, steps)
    if encoding == "bernoulli":
        return bernoulli(intensity, steps, seed=seed)
    if encoding == "latency":
        return latency(intensity, steps)
    raise DataError(f"encoding '{encoding}': expected one of {', '.join(ENCODINGS)}")


def rate_code(intensity: Array, steps: int) -> Array:
    """Spread each intensity in 0..1 evenly over time, deterministically.

        c = floor(arange(T + 1) · x + 0.5);  spikes = c[1:] − c[:−1]

    Args:
        intensity: (N, *input).
        steps: T.

    Returns:
        (N, T, *input) uint8.

    >>> rate_code(np.array([[0.0, 0.25, 1.0]]), 4)[0].T.tolist()
    [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]]
    """
    _check_intensity(intensity, "a rate code")
    coded = np.empty((len(intensity), steps, *intensity.shape[1:]), np.uint8)
    before = np.floor(np.full(intensity.shape, 0.5))
    for t in range(steps):
        level = np.floor((t + 1) * intensity + 0.5)
        coded[:, t] = level - before
        before = level
    return coded


def bernoulli(intensity: Array, steps: int, *, seed: int = 0) -> Array:
    """Draw a spike at each step with the intensity as its probability: (N, T, *input) uint8, the same for the same seed."""
    _check_intensity(intensity, "a probability")
    rng = np.random.default_rng(seed)
    coded = np.empty((len(intensity), steps, *intensity.shape[1:]), np.uint8)
    for i, image in enumerate(intensity):
        coded[i] = rng.random((steps, *image.shape)) < image
    return coded


def latency(intensity: Array, steps: int) -> Array:
    """Send one spike at step round((1 − x) · (T − 1)), and none where x is 0: (N, T, *input) uint8.

    >>> latency(np.array([[0.0, 0.5, 1.0]]), 3)[0].T.tolist()
    [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    """
    _check_intensity(intensity, "a latency code")
    when = np.rint((1.0 - intensity) * (steps - 1)).astype(np.int64)
    time = np.arange(steps).reshape(1, -1, *(1 for _ in intensity.shape[1:]))
    return ((when[:, None] == time) & (intensity[:, None] > 0)).astype(np.uint8)


def bin_events(time_s: Array, place: Array, size: int, steps: int, *, duration_s: float) -> Array:
    """Count the events of one recording in `steps` equal intervals of `duration_s`; events outside are left out.

    Args:
        time_s: (E,) seconds from the start of the recording.
        place: (E,) flat index of the input, 0..size − 1.
        size: number of inputs.
        steps: T.
        duration_s: from the first step's start to the last one's end.

    Returns:
        (T, size) uint16; more than 65535 events of one input in a step count as 65535.

    >>> bin_events(np.array([0.0, 0.1, 0.9]), np.array([1, 1, 0]), 2, 2, duration_s=1.0).tolist()
    [[0, 2], [1, 0]]
    """
    step = np.floor(np.asarray(time_s, np.float64) * (steps / duration_s)).astype(np.int64)
    inside = (step >= 0) & (step < steps)
    flat = np.bincount(step[inside] * size + np.asarray(place, np.int64)[inside], minlength=steps * size)
    return np.minimum(flat, np.iinfo(np.uint16).max).astype(np.uint16).reshape(steps, size)


def _check_intensity(intensity: Array, what: str) -> None:
    if intensity.size and (intensity.min() < 0 or intensity.max() > 1):
        raise DataError(f"intensities: {intensity.min():g}..{intensity.max():g} given, {what} takes 0..1; rescale them")
