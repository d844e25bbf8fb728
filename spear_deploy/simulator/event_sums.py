"""Sums of integer weights over the inputs that spike.

Where few inputs spike, adding up their weights takes a fraction of the time of a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.network import Array, Dense, SparseMatrix, Weights
from spear_deploy.simulator.kernel_choice import find_kernels

MAX_ACTIVITY = 0.3
"""Share of inputs that spike up to which events are faster than matrix products."""
MIN_OUTPUTS = 8
"""Outputs of an input from which adding its weights fills vector instructions."""

MIN_ROWS = 16
"""Rows of weights whose sums int16 has to hold; larger weights are added up in int32."""
REGISTER_BYTES = 32
"""Bytes of weights that are added at once (`compiled_kernels.REGISTER`)."""

MAX_DENSITY = 1 / 16
"""Share of weights that are not zero up to which only those are stored: adding single weights takes 16 times as long as rows."""
BLOCK_WEIGHTS = 1 << 20
"""Weights that are looked at together: temporary arrays of some megabytes for layers of any size."""

EventWeigher: TypeAlias = Callable[[Array], Array]
"""Passes spikes (N, *input shape), each 0 or 1, through a synapse: int32."""


def find_event_weigher(known: list[EventWeigher | None], synapse: Any, x: Array) -> EventWeigher | None:
    """Return the event-driven sums of a synapse if they are available and faster for these spikes, else None.

    Args:
        known: empty at first; keeps what was made for the synapse.
        synapse: a `Dense` or convolution of whole numbers.
        x: (N, *input shape), each 0 or 1.
    """
    if find_kernels(len(x) * len(synapse.weight)) is None or np.count_nonzero(x) > MAX_ACTIVITY * x.size:
        return None
    if not known:
        known.append(make_event_weigher(synapse))
    return known[0]


def make_event_weigher(synapse: Any) -> EventWeigher | None:
    """Return the event-driven sums of a synapse; None where int32 cannot hold them, or an input has few outputs."""
    kernels = find_kernels()
    outputs = len(synapse.weight) if isinstance(synapse, Dense) else len(synapse.weight) // synapse.groups
    dtype = _find_type(synapse)
    if kernels is None or dtype is None or outputs < MIN_OUTPUTS:
        return None
    bias = np.zeros(len(synapse.weight), np.int32) if synapse.bias is None else synapse.bias.astype(np.int32)
    shift = synapse.weight_exponent
    is_sparse = isinstance(synapse.weight, SparseMatrix)
    if is_sparse or (isinstance(synapse, Dense) and np.count_nonzero(synapse.weight) <= MAX_DENSITY * synapse.weight.size):
        starts, places, values = list_weights(synapse.weight)
        values = values.astype(dtype)

        def weigh_sparse(x: Array) -> Array:
            y = np.empty((len(x), len(bias)), np.int32)
            kernels.sum_sparse(_as_bytes(x).reshape(len(x), -1), starts, places, values, bias, shift, y)
            return y

        return weigh_sparse
    if isinstance(synapse, Dense):
        rows, limit = _pad_rows(synapse.weight.T.astype(dtype))

        def weigh_dense(x: Array) -> Array:
            y = np.empty((len(x), len(bias)), np.int32)
            kernels.sum_dense(_as_bytes(x).reshape(len(x), -1), rows, limit, bias, shift, y)
            return y

        return weigh_dense
    groups = synapse.groups
    dims = synapse.weight.ndim - 2
    kernel, stride, padding, dilation = (
        (*(unit,) * (2 - dims), *sizes)
        for unit, sizes in ((1, synapse.weight.shape[2:]), (1, synapse.stride), (0, synapse.padding), (1, synapse.dilation))
    )
    geometry = np.array([*kernel, *stride, *padding, *dilation], np.int64)
    inputs = synapse.weight.shape[1]
    taps = np.moveaxis(synapse.weight.astype(dtype).reshape(groups, outputs, -1), 1, 2)  # (g, I · taps, O)
    parts = [(*_pad_rows(taps[g]), bias[g * outputs : (g + 1) * outputs]) for g in range(groups)]

    def weigh_convolution(x: Array) -> Array:
        shape = synapse.output_shape(x.shape[1:])
        y = np.empty((len(x), shape[0], *(1,) * (2 - dims), *shape[1:]), np.int32)
        x4 = _as_bytes(x).reshape(*x.shape[:2], *(1,) * (2 - dims), *x.shape[2:])
        for g, (weight, limit, part) in enumerate(parts):
            kernels.sum_convolution(x4, weight, limit, part, shift, y, geometry, np.array([g * inputs, g * outputs], np.int64))
        return y.reshape(len(x), *shape)

    return weigh_convolution


def list_weights(weight: Weights) -> tuple[Array, Array, Array]:
    """Return the weights that are not zero, input by input: where those of each input begin, (I + 1,), outputs, and values.

    >>> [part.tolist() for part in list_weights(np.array([[0, 5], [7, 8]]))]
    [[0, 1, 3], [1, 0, 1], [7, 5, 8]]
    """
    if isinstance(weight, SparseMatrix):
        return weight.T.indptr, weight.T.indices.astype(np.int32), weight.T.data
    outputs, inputs = weight.nonzero()
    order = np.argsort(inputs, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(inputs, minlength=weight.shape[1]))])
    return starts, outputs[order].astype(np.int32), weight[outputs[order], inputs[order]]


def find_reach(weight: Weights) -> float:
    """Return the largest sum of the magnitudes of an output's weights.

    >>> find_reach(np.array([[1, -2], [0, 1]]))
    3.0
    """
    if isinstance(weight, SparseMatrix):
        return float(np.abs(weight).sum(axis=1, dtype=np.float64).max())
    step = max(1, BLOCK_WEIGHTS * len(weight) // weight.size)
    blocks = (weight[start : start + step].reshape(min(step, len(weight) - start), -1) for start in range(0, len(weight), step))
    return max(float(np.abs(block).sum(axis=1, dtype=np.float64).max()) for block in blocks)


def _find_type(synapse: Any) -> type | None:
    """Return the smallest type of the weights, or None where a sum may leave int32."""
    largest = max(float(synapse.weight.max()), -float(synapse.weight.min()))
    reach = find_reach(synapse.weight)
    offset = 0.0 if synapse.bias is None else float(np.abs(synapse.bias).max())
    if max(reach, reach * 2.0**synapse.weight_exponent) + offset >= 2**31 or abs(synapse.weight_exponent) > 31:
        return None
    return np.int16 if largest * MIN_ROWS < 2**15 else np.int32


def _pad_rows(weight: Array) -> tuple[Array, int]:
    """Return weights (R, O) with zeros up to whole registers, and the number of rows whose sum their type holds."""
    missing = -weight.shape[1] % (REGISTER_BYTES // weight.itemsize)
    largest = max(1, int(weight.max()), -int(weight.min()))
    return np.ascontiguousarray(np.pad(weight, ((0, 0), (0, missing)))), max(1, int(np.iinfo(weight.dtype).max) // largest)


def _as_bytes(x: Array) -> Array:
    return np.ascontiguousarray(x).view(np.uint8) if x.dtype.kind == "b" else np.ascontiguousarray(x, np.uint8)
