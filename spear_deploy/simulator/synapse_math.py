"""Products of synapses with a batch, and the fan-out of inputs.

Everything works on batches (N, *shape) and is exact for integers: products run in the smallest floating-point type in
which no sum can round, so that integers go through BLAS: float32 below 2^24, float64 below 2^53.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from spear_deploy.errors import DataError
from spear_deploy.network import CONVS, POOLS, Array, AvgPool, Dense, Flatten, Scale, Shape, SparseMatrix, Synapse, Weights
from spear_deploy.simulator import event_sums

CHUNK_VALUES = 1 << 20
"""Values unrolled at a time by a convolution: 4 MB in float32, about a core's share of the cache."""

Weigher: TypeAlias = Callable[[Array], Array]
"""Passes a batch (N, *input_shape) through a synapse: (N, *output_shape)."""


def apply_synapse(synapse: Synapse | None, x: Array, *, integer: bool = False) -> Array:
    """Pass a batch through a synapse.

    Args:
        synapse: None passes the input on.
        x: (N, *input_shape).
        integer: weights are whole numbers, and so is the input unless the synapse is a `Scale`, whose result is rounded:
            the result is int64, exact, `((W x) << weight_exponent) + b`.

    Returns:
        (N, *output_shape), in the type of `x`, or int64.

    Raises:
        DataError: integer sums beyond 2^53.

    >>> apply_synapse(Dense(weight=np.array([[1.0, 2.0]])), np.array([[3.0, 4.0]])).tolist()
    [[11.0]]
    """
    y = make_weigher(synapse, integer=integer, dtype=x.dtype.type)(x)
    return y.astype(np.int64) if integer and synapse is not None and not isinstance(synapse, (Flatten, *POOLS)) else y


def make_weigher(synapse: Synapse | None, *, integer: bool = False, dtype: type = np.float32) -> Weigher:
    """Return the function that passes a batch through a synapse; weights are converted once.

    Sums of integers are whole numbers in int32, float32 or float64, not int64.

    Args:
        synapse, integer: see `apply_synapse`.
        dtype: type of the input where it is not integer.
    """
    if synapse is None:
        return lambda x: x
    if isinstance(synapse, Flatten):
        return lambda x: x.reshape(len(x), -1)
    if isinstance(synapse, POOLS):
        return lambda x: _pool(synapse, x)
    if integer:
        return _make_integer_scaler(synapse) if isinstance(synapse, Scale) else _make_integer_weigher(synapse)
    weight: Weights = synapse.weight.astype(dtype, copy=False)
    bias: Array | None = None if synapse.bias is None else synapse.bias.astype(dtype)
    if isinstance(synapse, Scale):
        return lambda x: x * weight if bias is None else x * weight + bias
    product = _make_product(synapse, weight)
    if bias is None:
        return product
    channel_bias = _align_bias(bias, synapse)
    return lambda x: product(x) + channel_bias


def sum_by_neuron(synapse: Any) -> Array:
    """Return what one spike of every input brings to each output neuron or channel; of a `Scale` to each value."""
    weight = synapse.weight
    return np.asarray(weight) if isinstance(synapse, Scale) else np.asarray(weight.reshape(len(weight), -1).sum(axis=1))


def check_whole(x: Array) -> None:
    """Refuse values that integer weights cannot take.

    Raises:
        DataError: the first value that is no whole number, and the range of all.
    """
    if x.dtype.kind == "f" and (fraction := x != np.rint(x)).any():
        value, low, high = x[fraction][0], x.min(), x.max()
        raise DataError(
            f"takes whole numbers, the given current is not ({value:.4g}, of {low:.4g}..{high:.4g}); scale and round it"
        )


def require_whole_weights(synapse: Any) -> None:
    """Refuse weights and biases with fractions, which states of integers would lose.

    Raises:
        DataError: the first such number.
    """
    for what, values in (("weight", synapse.weight), ("bias", synapse.bias)):
        stored = values.data if isinstance(values, SparseMatrix) else values
        if stored is not None and stored.dtype.kind == "f" and (fraction := stored != np.rint(stored)).any():
            raise DataError(f"{what} {stored[fraction][0]:.4g} is no whole number, as integers of a chip are; quantise it again")


def _make_integer_scaler(scale: Scale) -> Weigher:
    weight = scale.weight.astype(np.float64)
    bias = np.zeros(()) if scale.bias is None else scale.bias.astype(np.float64)
    reach, offset = float(np.abs(weight).max()), float(np.abs(bias).max())

    def weigh(x: Array) -> Array:
        low, high = _find_range(x)
        _require_exact(reach * max(high, -low) + offset)
        return np.rint(x * weight + bias)

    return weigh


def _make_integer_weigher(synapse: Any) -> Weigher:
    """Return the product of integers: each batch in the smallest type in which no sum, shifted or with the bias, can round."""
    reach = event_sums.find_reach(synapse.weight)
    e = synapse.weight_exponent
    factor = 2.0**e
    offset = 0.0 if synapse.bias is None else float(np.abs(synapse.bias).max())
    products: dict[type, Weigher] = {}
    by_events: list[Weigher | None] = []
    bias = None if synapse.bias is None else _align_bias(synapse.bias.astype(np.float64), synapse)

    def weigh(x: Array) -> Array:
        low, high = _find_range(x)
        if low == 0.0 and high <= 1.0 and (event_weigher := event_sums.find_event_weigher(by_events, synapse, x)):
            return event_weigher(x)
        bound = reach * max(high, -low)
        bound = max(bound, bound * factor + offset)
        dtype: type = np.float32 if bound < 2**24 else np.float64
        _require_exact(bound)
        if dtype not in products:
            products[dtype] = _make_product(synapse, synapse.weight.astype(dtype))
        y = products[dtype](x.astype(dtype, copy=False))
        if e:
            y *= dtype(factor)
            if e < 0:
                np.floor(y, out=y)
        if bias is not None:
            y += bias.astype(dtype, copy=False)
        return y

    return weigh


def _find_range(x: Array) -> tuple[float, float]:
    """Return the lowest and the highest value, 0 included."""
    return (0.0, 1.0) if x.dtype.kind == "b" else (float(x.min(initial=0)), float(x.max(initial=0)))


def _require_exact(bound: float) -> None:
    """Refuse sums that could round.

    Raises:
        DataError: names how large they could be.
    """
    if bound >= 2**53:
        raise DataError(f"sums of up to {bound:.3g} are not exact, whole numbers up to 2^53 are; scale weights or input down")


def _make_product(synapse: Any, weight: Weights) -> Weigher:
    """Return the product with weights of the input's own type."""
    if isinstance(synapse, Dense):
        if isinstance(weight, SparseMatrix):
            rows = weight.to_scipy()
            return lambda x: np.ascontiguousarray((rows @ x.reshape(len(x), -1).T).T)
        transposed = weight.T
        return lambda x: x.reshape(len(x), -1) @ transposed
    return lambda x: _convolve(synapse, x, weight)


def fan_out(synapse: Synapse | None, input_shape: Shape) -> Array:
    """Count the existing (non-zero) synapses that leave each input: int64, of the input's shape.

    >>> fan_out(Dense(weight=np.array([[1.0, 0.0], [2.0, 3.0]])), (2,)).tolist()
    [2, 1]
    """
    if synapse is None:
        return np.ones(input_shape, np.int64)
    if isinstance(synapse, Dense):
        if not isinstance(synapse.weight, SparseMatrix) and not any(synapse.weight.strides):  # one weight for all
            return np.full(input_shape, len(synapse.weight) * int(synapse.weight[0, 0] != 0), np.int64)
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
    raise TypeError(f"{type(synapse).__name__} has no synapses")


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


def _align_bias(bias: Array, synapse: Any) -> Array:
    return bias.reshape(-1, *(1 for _ in range(synapse.weight.ndim - 2)))


def _windows(x: Array, kernel: Shape, stride: Shape, padding: Shape) -> Array:
    """Return a view (N, C, *output positions, *kernel) of a batch after padding."""
    padded = _pad(x, padding)
    view: Array = sliding_window_view(padded, kernel, axis=tuple(range(2, 2 + len(kernel))))  # type: ignore[call-overload]
    places: Any = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
    return view[places]


def _convolve(conv: Any, x: Array, weight: Array) -> Array:
    """Convolve by one matrix product a group: the taps of each output position are copied into a column first."""
    kernel = weight.shape[2:]
    groups, o, i = conv.groups, weight.shape[0] // conv.groups, weight.shape[1]
    if o == i == 1:
        return _convolve_by_channel(conv, x, weight)
    positions = conv.output_shape(x.shape[1:])[1:]
    filters = np.moveaxis(weight, 1, -1).reshape(groups, o, -1)  # (g, o, *kernel, I)
    y = np.empty((len(x), groups, o, int(np.prod(positions))), weight.dtype)
    step = max(1, CHUNK_VALUES // (groups * filters.shape[2] * y.shape[3]))
    columns = np.empty((min(step, len(x)), groups, *kernel, i, *positions), weight.dtype)
    for start in range(0, len(x), step):
        part = _pad(x[start : start + step], conv.padding)
        used = columns[: len(part)]
        for tap in np.ndindex(*kernel):
            place: Any = (slice(None), slice(None), *tap)
            used[place] = _view_tap(part, conv, tap, positions).reshape(len(part), groups, i, *positions)
        np.matmul(filters, used.reshape(len(part), groups, filters.shape[2], -1), out=y[start : start + step])
    return y.reshape(len(x), groups * o, *positions)


def _convolve_by_channel(conv: Any, x: Array, weight: Array) -> Array:
    """Convolve each channel with its own kernel, tap by tap: copying into a matrix would take longer."""
    positions = conv.output_shape(x.shape[1:])[1:]
    padded = _pad(x, conv.padding)
    y = np.zeros((len(x), len(weight), *positions), weight.dtype)
    for tap in np.ndindex(*weight.shape[2:]):
        at_tap: Any = (slice(None), 0, *tap)
        y += _view_tap(padded, conv, tap, positions) * weight[at_tap].reshape(-1, *(1 for _ in positions))
    return y


def _pad(x: Array, padding: Shape) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding))) if any(padding) else x


def _view_tap(padded: Array, conv: Any, tap: Shape, positions: Shape) -> Array:
    """Return a view (N, C, *positions) of the inputs that a tap of the kernel multiplies at each output position."""
    axes = zip(tap, conv.dilation, conv.stride, positions, strict=True)
    place: Any = (..., *(slice(d * k, d * k + s * (n - 1) + 1, s) for k, d, s, n in axes))
    return padded[place]


def _pool(pool: Any, x: Array) -> Array:
    """Add up windows tap by tap, the order of torch: sums of real values are Norse's to the bit; numpy's has others."""
    windows = _windows(x, pool.kernel_size, pool.stride, pool.padding)
    y: Array = np.zeros(windows.shape[: x.ndim], np.int64 if x.dtype.kind in "biu" else x.dtype)
    for tap in np.ndindex(*pool.kernel_size):
        at_tap: Any = (..., *tap)
        np.add(y, windows[at_tap], out=y, dtype=y.dtype, casting="unsafe")
    if isinstance(pool, AvgPool):
        y = y / np.array(np.prod(pool.kernel_size), x.dtype)
    return y
