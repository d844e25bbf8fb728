"""Bits of stored weights and biases."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, WEIGHTED, Array, ChipNeuron, Scale, SparseMatrix, Weights
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits

SIGNED_LIMIT = 128
"""A signed weight of a list is scaled up to fill -128..127 before its bits are counted."""

MAX_BIAS_EXPONENT = 7

CHUNK_WEIGHTS = 1 << 20
"""Weights that are read together: 8 MB, so that a layer of 10^8 weights needs no copy."""


def stored_bits(graph: SNNGraph, profile: HardwareProfile) -> dict[str, int]:
    """Return the bits of a stored weight by weighted layer.

    Integer networks: what their weights need; floating-point networks: what they state for a layer, else the profile's default.
    """
    default, widths = int(profile.weights.default_bits.value or 0), profile.weights.bits.value or ()
    stated = {name: profile.store_bits(width) for name, width in read_layer_bits(graph).items()}
    bits = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED):
            if not graph.is_integer:
                bits[layer.name] = stated.get(layer.name, default)
            elif isinstance(layer.synapse, CONVS):
                bits[layer.name] = min(kernel_bits(layer.synapse.weight), max(widths))
                if layer.name in stated:  # with a shared exponent, as the format of a list has one
                    bits[layer.name] = min(bits[layer.name], max(stated[layer.name], signed_bits(layer.synapse.weight)))
            else:
                need = measure_width(graph, layer.synapse)
                bits[layer.name] = min((w for w in widths if w >= need), default=need)
    return bits


def describe_stated_bits(graph: SNNGraph, profile: HardwareProfile) -> dict[str, Any]:
    """Return as plain data {default: bits of a weight, layers: bits of those that a network states others for, as stored}.

    >>> from spear_deploy.hardware.profile import load_profile
    >>> from spear_deploy.network import Dense, Layer
    >>> from spear_deploy.network.graph import chain
    >>> fc = Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))))
    >>> graph = chain([fc], input_shape=(3,), metadata={"layer_bits": {"fc": 4}})
    >>> describe_stated_bits(graph, load_profile("loihi2"))
    {'default': 8, 'layers': {'fc': 4}}
    """
    default = profile.weights.default_bits.value
    stored = {name: profile.store_bits(width) for name, width in read_layer_bits(graph).items()}
    return {"default": default, "layers": {name: width for name, width in stored.items() if width != (default or 0)}}


def list_bits(weight: Weights) -> int:
    """Return the bits of a list's weights: netx's `num_weight_bits`.

    The weights are scaled up by the largest power of two that keeps them within -128..127 (signed; a list of one sign has
    twice the range), and the zeros at the end of all of them are not stored. One bit of a signed list is the sign.

    >>> list_bits(np.array([[-6, 4], [2, 6]])), list_bits(np.array([[0, 255]])), list_bits(np.array([[-178, 192]]))
    (3, 8, 8)
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return 1
    mixed = low < 0 <= high
    if mixed:
        scale = min((SIGNED_LIMIT - 1) / high if high else np.inf, SIGNED_LIMIT / -low)
    else:
        scale = (2 * SIGNED_LIMIT - 1) / high if high > 0 else 2 * SIGNED_LIMIT / -low
    scale_bits = int(np.floor(log2(scale))) + mixed
    return max(1, 8 - scale_bits - (_trailing_zeros(weight) - mixed))


def measure_width(graph: SNNGraph, synapse: Any) -> int:
    """Return the bits of a layer's weights as the chip of an integer network stores them: Loihi's lists, or plain numbers.

    A `Scale`, which has no exponent of its own, holds the shift that weights have in common on some chips; it is not stored.

    >>> from spear_deploy.network import Dense, Layer, OdinLIF
    >>> from spear_deploy.network.graph import chain
    >>> layer = Layer(name="fc", synapse=Dense(weight=np.array([[7, -6]])), neuron=OdinLIF(v_threshold=9))
    >>> measure_width(chain([layer], input_shape=(2,)), layer.synapse)
    3
    """
    weight: Weights = synapse.weight
    formats = [layer.neuron.FORMAT for layer in graph.layers if isinstance(layer.neuron, ChipNeuron)]
    if not formats:
        return list_bits(weight)
    shift = min(_trailing_zeros(weight), formats[0].max_shift) if isinstance(synapse, Scale) else 0
    return max((int(np.abs(weight.astype(np.int64)).max()) >> shift).bit_length(), 1) + int(formats[0].sign_bit)


def bias_bits(bias: Array) -> int:
    """Return the bits of the widest mantissa, its sign among them, of biases that are mantissa · 2^(0..7).

    >>> bias_bits(np.array([4095, -4096])), bias_bits(np.array([5000, 4097 * 128])), bias_bits(np.array(4097))
    (13, 14, 14)
    """
    mantissa = np.atleast_1d(np.asarray(bias, np.int64))
    for _ in range(MAX_BIAS_EXPONENT):
        mantissa = np.where(mantissa % 2 == 0, mantissa // 2, mantissa)
    return 1 + int(np.where(mantissa < 0, ~mantissa, mantissa).max()).bit_length()


def kernel_bits(weight: Array) -> int:
    """Return the bits of a convolution's weights: a sign and the magnitude, up to a power of two.

    >>> kernel_bits(np.array([-8, 8])), kernel_bits(np.array([-10, 8]))
    (4, 5)
    """
    largest = max(abs(int(weight.min())), abs(int(weight.max())))
    return 1 + (ceil(log2(largest)) if largest > 1 else 1)


def signed_bits(weight: Array) -> int:
    """Return the bits of weights with a sign, less the power of two that they have in common, up to 2^8.

    >>> signed_bits(np.array([-96, 32])), signed_bits(np.array([-96, 33])), signed_bits(np.array([0]))
    (3, 8, 1)
    """
    return 1 + (int(np.abs(weight.astype(np.int64)).max()) >> _trailing_zeros(weight)).bit_length()


def count_mixed_sign_inputs(weight: Weights) -> int:
    """Count the inputs whose weights have both signs, (O, I) or (O, I / groups, *kernel).

    >>> count_mixed_sign_inputs(np.array([[1, -1, 0], [2, 3, 4]]))
    1
    """
    if weight.ndim < 2:
        return 0
    if isinstance(weight, SparseMatrix):
        return int(((weight > 0).any(axis=0) & (weight < 0).any(axis=0)).sum())
    rows = weight.reshape(len(weight), -1)
    high = low = rows[0]
    step = max(1, CHUNK_WEIGHTS // 16 // rows.shape[1])  # inputs that soon have both signs end it early
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        high, low = np.maximum(high, part.max(axis=0)), np.minimum(low, part.min(axis=0))
        mixed = (high.reshape(weight.shape[1], -1) > 0).any(axis=1) & (low.reshape(weight.shape[1], -1) < 0).any(axis=1)
        if mixed.all():
            break
    return int(mixed.sum())


def max_distinct_weights(weight: Weights) -> int:
    """Return the largest number of distinct non-zero weights of an output (a row, a kernel).

    >>> max_distinct_weights(np.array([[1, 1, 0], [2, 3, 4]]))
    3
    """
    if isinstance(weight, SparseMatrix):
        order = np.lexsort((weight.data, weight.rows))
        rows, values = weight.rows[order], weight.data[order]
        first = np.append(True, (rows[1:] != rows[:-1]) | (values[1:] != values[:-1]))[: len(rows)]
        return int(np.bincount(rows[first], minlength=1).max())
    rows = weight.reshape(len(weight), -1)
    largest, step = 0, max(1, CHUNK_WEIGHTS // rows.shape[1])
    for start in range(0, len(rows), step):
        part = np.sort(rows[start : start + step], axis=1)
        first = np.ones(part.shape, bool)
        first[:, 1:] = part[:, 1:] != part[:, :-1]
        largest = max(largest, int((first & (part != 0)).sum(axis=1).max()))
    return largest


# ------------------------------------------------------------------------------------------------------------ inside


def _trailing_zeros(weight: Weights) -> int:
    """Count the zero bits at the end of all weights, at most 8."""
    union, flat = 256, weight.data if isinstance(weight, SparseMatrix) else weight.reshape(-1)
    for start in range(0, flat.size, CHUNK_WEIGHTS):
        if union & 1:
            break
        part = np.abs(flat[start : start + CHUNK_WEIGHTS].astype(np.int64))
        union |= int(np.bitwise_or.reduce(part))
    return (union & -union).bit_length() - 1
