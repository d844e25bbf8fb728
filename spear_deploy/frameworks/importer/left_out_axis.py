"""Layers whose forward leaves out an axis of one position: `squeeze`, or a mean over one of two axes.

A network keeps the axis: a convolution over one axis becomes one over two, with a kernel of length 1 along the axis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import POOLS, Conv1d, Conv2d, Layer, Scale, Shape
from spear_deploy.network.neurons import array_parameters


def find_left_out_axis(seen: Shape, own: Shape) -> int | None:
    """Return the axis that a shape has and the shape that a forward sees of it has not, None where they agree.

    >>> find_left_out_axis((3, 6), (3, 6, 1)), find_left_out_axis((3, 6), (3, 6)), find_left_out_axis((3,), (3, 1, 1))
    (2, None, None)
    """
    axes = [axis for axis in range(1, len(own)) if own[axis] == 1 and own[:axis] + own[axis + 1 :] == seen]
    return axes[-1] if axes else None


def add_axis(layer: Layer, axis: int) -> Layer:
    """Return a layer over one axis of positions as one that has another axis, of one position, at `axis` of its shape."""
    synapse: Any = layer.synapse
    if isinstance(synapse, Conv1d):
        sizes = {"stride": 1, "padding": 0, "dilation": 1}
        weight = np.expand_dims(synapse.weight, axis + 1)
        spread: Any = {name: _insert(getattr(synapse, name), axis, size) for name, size in sizes.items()}
        synapse = Conv2d(weight=weight, bias=synapse.bias, groups=synapse.groups, **spread)
    elif isinstance(synapse, POOLS):
        sizes = {"kernel_size": 1, "stride": 1, "padding": 0}
        synapse = replace(synapse, **{name: _insert(getattr(synapse, name), axis, size) for name, size in sizes.items()})
    elif isinstance(synapse, Scale):
        synapse = replace(synapse, weight=_expand(synapse.weight, axis), bias=_expand(synapse.bias, axis))
    neuron: Any = layer.neuron
    if neuron is not None:
        neuron = replace(neuron, **{name: _expand(value, axis) for name, value in array_parameters(neuron).items()})
    return replace(layer, synapse=synapse, neuron=neuron)


def _insert(sizes: Any, axis: int, size: int) -> tuple[int, ...]:
    """Return the sizes of the axes of positions with one more."""
    return (*sizes[: axis - 1], size, *sizes[axis - 1 :])


def _expand(value: Any, axis: int) -> Any:
    """Return an array that spreads over channels and one axis of positions as one that spreads over the further axis too."""
    if value is None or value.ndim < 2:
        return value[:, None] if value is not None and value.ndim and axis == 2 else value
    return np.expand_dims(value, axis)
