"""Inputs that the host sums over windows or steps, or sends twice.

A chip with few input channels takes the sum over a window of pixels as so many events of one channel. A network that was
adapted so has the window's size by axis in `metadata["input_sums"]`, and in `metadata["input_sums_max"]` the largest sum where a
channel takes fewer events in a step; data of the original size are summed as they are read.

A chip that keeps nothing between inputs takes all steps as one frame. A network that was adapted so has the largest value of the
frame in `metadata["input_frame"]`; data of several steps are summed over them as they are read.

A chip on which all weights of a source have one sign takes each input on two neighbouring addresses: one excites, one inhibits. A
network that was adapted so has the shape of the input that is sent twice in `metadata["input_twice"]`; data of that shape become
a list of twice as many values as they are read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spear_deploy.data.dataset import Dataset, Split
from spear_deploy.network import Array, Shape
from spear_deploy.network.graph import SNNGraph

INPUT_SUMS = "input_sums"
"""Key of the metadata."""
INPUT_SUMS_MAX = "input_sums_max"
"""Key of the largest sum."""
INPUT_FRAME = "input_frame"
"""Key of the largest value of a frame."""
INPUT_TWICE = "input_twice"
"""Key of the shape of an input that is sent twice."""


def sum_windows(x: Array, window: Shape) -> Array:
    """Return the sums over windows of the last axes, (..., H, W) to (..., H / h, W / w); each axis is a multiple of its window.

    >>> sum_windows(np.array([[1, 2, 3, 4]], np.uint8), (2,)).tolist()
    [[3, 7]]
    """
    lead = x.ndim - len(window)
    shape, sums = list(x.shape[:lead]), []
    for size, width in zip(x.shape[lead:], window, strict=True):
        shape += [size // width, width]
        sums.append(len(shape) - 1)
    total = x.reshape(shape).sum(axis=tuple(sums))
    return total.astype(x.dtype) if np.issubdtype(x.dtype, np.floating) else total


def original_shape(graph: SNNGraph) -> Shape:
    """Return the shape of an input before the host sums over windows or sends it twice; that of the network where it does not."""
    window, shape = graph.metadata.get(INPUT_SUMS), tuple(graph.metadata.get(INPUT_TWICE, graph.input_shape))
    if not window:
        return shape
    lead = len(shape) - len(window)
    return (*shape[:lead], *(n * w for n, w in zip(shape[lead:], window, strict=True)))


def send_twice(x: Array) -> Array:
    """Return each input on two neighbouring addresses, (N, T, *input) to (N, T, 2 · inputs).

    >>> send_twice(np.array([[[[1, 0], [0, 1]]]])).tolist()
    [[[1, 1, 0, 0, 0, 0, 1, 1]]]
    """
    return np.repeat(x.reshape(*x.shape[:2], -1), 2, axis=-1)


def sum_steps(x: Array, largest: int) -> Array:
    """Return the sums over time, (N, T, ...) to (N, 1, ...); of spikes at most `largest`, to scale where there are more steps.

    >>> sum_steps(np.array([[[1], [0], [1]]], np.uint8), 15).tolist()
    [[[2]]]
    >>> sum_steps(np.ones((1, 30, 1), np.uint8), 15).tolist()
    [[[15]]]
    """
    steps = x.shape[1]
    total = x.sum(axis=1, keepdims=True, dtype=x.dtype if np.issubdtype(x.dtype, np.floating) else np.int64)
    if np.issubdtype(x.dtype, np.floating) and (total != np.rint(total)).any():
        return total
    scaled = np.rint(total * (largest / steps)) if steps > largest else total
    return np.minimum(scaled, largest).astype(x.dtype)


def takes_other_input(graph: SNNGraph) -> bool:
    """Return whether a network was adapted so that it takes its data summed, as one frame, or twice."""
    return any(graph.metadata.get(key) for key in (INPUT_SUMS, INPUT_FRAME, INPUT_TWICE))


def sum_inputs(dataset: Dataset, graph: SNNGraph) -> Dataset:
    """Return data of the original size with the sums that a network takes; others, and those of other networks, unchanged."""
    if not takes_other_input(graph):
        return dataset
    train, val, test = (sum_split(split, graph) for split in (dataset.train, dataset.val, dataset.test))
    return replace(dataset, train=train, val=val, test=test)


def sum_split(split: Split, graph: SNNGraph) -> Split:
    """Return one split as `sum_inputs` does."""
    window, largest, x = graph.metadata.get(INPUT_SUMS), graph.metadata.get(INPUT_FRAME), split.x
    if window and tuple(x.shape[2:]) == original_shape(graph):
        x = sum_windows(x, tuple(window))
        most = graph.metadata.get(INPUT_SUMS_MAX)
        x = x if most is None else np.minimum(x, most).astype(x.dtype)
    if largest and x.shape[1] > 1:
        x = sum_steps(x, int(largest))
    twice = graph.metadata.get(INPUT_TWICE)
    if twice and tuple(x.shape[2:]) == tuple(twice):
        x = send_twice(x)
    return split if x is split.x else replace(split, x=x)
