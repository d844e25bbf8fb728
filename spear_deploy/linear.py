"""What does a synapse compute, and whom does one spike reach?

Everything works on batches (N, *shape) and is exact for integers: products run in the smallest floating-point type in
which no sum can round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from spear_deploy.layers import (
    CONVS,
    POOLS,
    Array,
    AvgPool,
    Dense,
    Flatten,
    Scale,
    Shape,
    Synapse,
)

CHUNK_VALUES = 1 << 22
"""Values unrolled at a time by a convolution: 16 MB in float32, within a core's share of cache and memory."""


def apply(synapse: Synapse | None, x: Array, *, integer: bool = False, input_bound: float = 1.0) -> Array:
    """Return what a synapse makes of a batch.

    Args:
        synapse: None passes the input on.
        x: (N, *input_shape).
        integer: weights are whole numbers, and so is the input unless the synapse is a `Scale`, whose result is rounded:
            the result is int64, exact, `((W x) << weight_exponent) + b`.
        input_bound: the largest magnitude in `x`; decides the type in which integer sums are exact.

    Returns:
        (N, *output_shape), in the type of `x`, or int64.

    >>> apply(Dense(weight=np.array([[1.0, 2.0]])), np.array([[3.0, 4.0]])).tolist()
    [[11.0]]
    """
    if synapse is None:
        return x
    if isinstance(synapse, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(synapse, POOLS):
        return _pooled(synapse, x)
    if not integer:
        y = _weighted(synapse, x, synapse.weight.astype(x.dtype))
        return y if synapse.bias is None else y + _over_channels(synapse.bias.astype(x.dtype), y.ndim, synapse)
    dtype = _exact_dtype(synapse, input_bound)
    bias = 0 if synapse.bias is None else synapse.bias
    if isinstance(synapse, Scale):
        return np.rint(x * synapse.weight.astype(np.float64) + bias).astype(np.int64)
    y = np.rint(_weighted(synapse, x.astype(dtype), synapse.weight.astype(dtype))).astype(np.int64)
    e = synapse.weight_exponent
    return _over_channels(bias, y.ndim) + (y << e if e >= 0 else y >> -e)


def fan_out(synapse: Synapse | None, input_shape: Shape) -> Array:
    """Count the existing (non-zero) synapses that leave each input: int64, of the input's shape.

    >>> fan_out(Dense(weight=np.array([[1.0, 0.0], [2.0, 3.0]])), (2,)).tolist()
    [2, 1]
    """
    if synapse is None:
        return np.ones(input_shape, np.int64)
    if isinstance(synapse, Dense):
        return np.count_nonzero(synapse.weight, axis=0).reshape(input_shape)
    if isinstance(synapse, Scale):
        return np.broadcast_to(synapse.weight != 0, input_shape).astype(np.int64)
    if isinstance(synapse, CONVS):
        o, i = synapse.weight.shape[:2]
        per_group = np.count_nonzero(
            synapse.weight.reshape(synapse.groups, o // synapse.groups, i, *synapse.weight.shape[2:]), axis=1
        )
        taps = per_group.reshape(synapse.groups * i, *synapse.weight.shape[2:])
        output = synapse.output_shape(input_shape)[1:]
        return scatter(np.ones((1, *output), np.int64), taps, input_shape, synapse.stride, synapse.padding, synapse.dilation)
    raise TypeError(f"{type(synapse).__name__} has no synapses of its own")


def scatter(y: Array, taps: Array, input_shape: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """Spread values at output positions back over input positions, one channel at a time: a transposed depthwise convolution.

    Args:
        y: (C or 1, *output positions).
        taps: (C, *kernel).
        input_shape: (C, *positions).
    """
    padded = [n + 2 * p for n, p in zip(input_shape[1:], padding, strict=True)]
    out = np.zeros((input_shape[0], *padded), np.result_type(y, taps))
    for k in np.ndindex(*taps.shape[1:]):
        steps = zip(k, dilation, stride, y.shape[1:], strict=True)
        place: Any = (slice(None), *(slice(d * j, d * j + s * (m - 1) + 1, s) for j, d, s, m in steps))
        tap: Any = (slice(None), *k)
        out[place] += y * taps[tap].reshape(-1, *(1 for _ in padded))
    inner: Any = (slice(None), *(slice(p, p + n) for p, n in zip(padding, input_shape[1:], strict=True)))
    return out[inner]


def _exact_dtype(synapse: Any, input_bound: float) -> type:
    weight = np.abs(synapse.weight.astype(np.float64))
    largest = (weight.max() if isinstance(synapse, Scale) else weight.reshape(len(weight), -1).sum(axis=1).max()) * input_bound
    return np.float32 if largest < 2**24 else np.float64


def _weighted(synapse: Synapse, x: Array, weight: Array) -> Array:
    if isinstance(synapse, Dense):
        return x.reshape(len(x), -1) @ weight.T
    if isinstance(synapse, Scale):
        return x * weight
    return _convolved(synapse, x, weight)


def _over_channels(bias: Array | int, ndim: int, synapse: Synapse | None = None) -> Array:
    bias = np.asarray(bias)
    return bias if isinstance(synapse, Scale) or bias.ndim == 0 else bias.reshape(-1, *(1 for _ in range(ndim - 2)))


def _windows(x: Array, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """Return a view (N, C, *output positions, *kernel) of a padded batch."""
    if any(padding):
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view: Array = sliding_window_view(x, spans, axis=tuple(range(2, 2 + len(kernel))))  # type: ignore[call-overload]
    positions = tuple(slice(None, None, s) for s in stride)
    taps = tuple(slice(None, None, d) for d in dilation)
    index = (slice(None), slice(None), *positions, *taps)
    return view[index]


def _convolved(conv: Any, x: Array, weight: Array) -> Array:
    kernel, dims = weight.shape[2:], weight.ndim - 2
    windows = _windows(x, kernel, conv.stride, conv.padding, conv.dilation)
    n, positions = len(x), windows.shape[2 : 2 + dims]
    groups, o, i = conv.groups, weight.shape[0] // conv.groups, weight.shape[1]
    filters = weight.reshape(groups, o, -1)
    y = np.empty((n, groups, o, int(np.prod(positions))), np.result_type(x, weight))
    # (N, g, I, *positions, *kernel) -> (N, g, I, *kernel, *positions), so that a group is one matrix product
    windows = windows.reshape(n, groups, i, *windows.shape[2:])
    order = (0, 1, 2, *range(3 + dims, 3 + 2 * dims), *range(3, 3 + dims))
    step = max(1, CHUNK_VALUES // max(1, int(np.prod(windows.shape[1:]))))
    for start in range(0, n, step):
        part = windows[start : start + step].transpose(order)
        columns = part.reshape(len(part), groups, filters.shape[2], -1)
        np.matmul(filters, columns, out=y[start : start + step])
    return y.reshape(n, groups * o, *positions)


def _pooled(pool: Any, x: Array) -> Array:
    dims = len(pool.kernel_size)
    windows = _windows(x, pool.kernel_size, pool.stride, pool.padding, (1,) * dims)
    dtype = np.int64 if x.dtype.kind in "biu" else x.dtype
    y = windows.sum(axis=tuple(range(2 + dims, 2 + 2 * dims)), dtype=dtype)
    if isinstance(pool, AvgPool):
        y = y / np.array(np.prod(pool.kernel_size), x.dtype)
    return y
