"""Which weights do what a sum pool and the weights behind it do together?

The weight of a pooled position goes to every position of its window, so integers stay exact. A convolution's zeros around
the pooled picture are zeros around the picture too, unless windows overlap or leave a rest at the edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy import linear
from spear_deploy.errors import UnsupportedError
from spear_deploy.layers import Conv2d, Dense, Shape, SumPool


def through_pool(name: str, synapse: Any, pool: SumPool, shape: Shape) -> Any:
    """Return the weights that do what a sum pool and the weights behind it do.

    Args:
        name: of the layer, for the error.
        synapse: `Dense` or `Conv2d` behind the pool.
        pool: the pool.
        shape: of what the pool takes.

    Raises:
        UnsupportedError: a convolution pads with zeros that the pool would not have made.
    """
    kernel, stride, padding = _of(pool)
    if isinstance(synapse, Dense):
        pooled = pool.output_shape(shape)
        taps = np.ones((len(synapse.weight) * shape[0], *kernel), synapse.weight.dtype)
        spread = linear.scatter(
            synapse.weight.reshape(-1, *pooled[1:]),
            taps,
            (len(taps), *shape[1:]),
            stride,
            padding,
            tuple(1 for _ in kernel),
        )
        return Dense(weight=spread.reshape(len(synapse.weight), -1))
    lift = 2 - len(kernel)
    kernel, stride, padding = (1,) * lift + kernel, (1,) * lift + stride, (0,) * lift + padding
    for n, k, s, p, q in zip((1,) * lift + shape[1:], kernel, stride, padding, synapse.padding, strict=True):
        outside = (n + 2 * p - k) // s + 1
        if q and (k > s + p or s * outside - p < n):
            raise UnsupportedError(f"layer '{name}': pads behind a pool whose windows overlap or leave a rest; pad earlier")
    weight = synapse.weight
    sizes = [s * d * (m - 1) + k for k, s, d, m in zip(kernel, stride, synapse.dilation, weight.shape[2:], strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    for y, x in np.ndindex(*weight.shape[2:]):
        top, left = stride[0] * synapse.dilation[0] * y, stride[1] * synapse.dilation[1] * x
        wide[:, :, top : top + kernel[0], left : left + kernel[1]] += weight[:, :, y : y + 1, x : x + 1]
    return Conv2d(
        weight=wide,
        stride=tuple(s * t for s, t in zip(stride, synapse.stride, strict=True)),
        padding=tuple(s * q + p for s, q, p in zip(stride, synapse.padding, padding, strict=True)),
        groups=synapse.groups,
    )


def _of(pool: Any) -> tuple[Shape, Shape, Shape]:
    return pool.kernel_size, pool.stride, pool.padding
