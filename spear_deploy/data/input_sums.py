"""Sums over windows of neighbouring inputs, which the host forms.

A chip with few input channels takes the sum over a window of pixels as so many events of one channel. A network that was
adapted so has the window's size by axis in `metadata["input_sums"]`; data of the original size are summed as they are read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spear_deploy.data.dataset import Dataset, Split
from spear_deploy.network import Array, Shape
from spear_deploy.network.graph import SNNGraph

INPUT_SUMS = "input_sums"
"""Key of the metadata."""


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
    """Return the shape of an input before the host sums over windows; that of the network where it does not."""
    window = graph.metadata.get(INPUT_SUMS)
    if not window:
        return graph.input_shape
    lead = len(graph.input_shape) - len(window)
    return (*graph.input_shape[:lead], *(n * w for n, w in zip(graph.input_shape[lead:], window, strict=True)))


def sum_inputs(dataset: Dataset, graph: SNNGraph) -> Dataset:
    """Return data of the original size with the sums that a network takes; others, and those of other networks, unchanged."""
    if not graph.metadata.get(INPUT_SUMS):
        return dataset
    train, val, test = (sum_split(split, graph) for split in (dataset.train, dataset.val, dataset.test))
    return replace(dataset, train=train, val=val, test=test)


def sum_split(split: Split, graph: SNNGraph) -> Split:
    """Return one split as `sum_inputs` does."""
    window = graph.metadata.get(INPUT_SUMS)
    if not window or tuple(split.x.shape[2:]) != original_shape(graph):
        return split
    return replace(split, x=sum_windows(split.x, tuple(window)))
