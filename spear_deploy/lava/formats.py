"""Weights and neuron parameters in the numbers of Lava's fixed-point models.

Lava's Dense and Sparse clip weights and cut low bits off without a warning. These they leave unchanged:

    one sign      0..255 or −255..0                       any whole number
    mixed signs   −256..254                               even numbers: the sign takes a bit

times two to the power of an exponent that all weights of a connection share, −8..7. So odd weights of mixed sign are
doubled, with an exponent that is one less; the sums are the same to the bit. Weights that do not fit are split into several
such connections where they come from fusing pools and sums, and refused where the layer itself holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import WEIGHTED, Array, Layer, LoihiLIF, Shape, SparseMatrix

MAX_WEIGHT_EXPONENT = 7
MIN_WEIGHT_EXPONENT = -8
BIAS_LIMITS = (-4096, 4095)
MAX_BIAS_EXPONENT = 7
UNREACHED_THRESHOLD = 1 << 17
"""A threshold one above the format: 64 · 2^17 = 2^23 is more than v, which saturates at 2^23 − 1, can reach."""

MAX_INPUT = (1 << 25) - (1 << 20)
"""Largest input of a neuron in one step: 64 times as much, and then v and a bias, stay within Lava's 32-bit numbers."""

MAX_SUM = 1 << 29
"""Largest sum of a connection before its exponent is applied: twice as much, for odd weights, stays within 32 bits."""

DIGIT = 128


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One connection in Lava's numbers: it returns `(weights · s) · 2^exponent`, rounded down."""

    weights: Any
    exponent: int


def split_into_planes(matrix: Any, shift: int = 0) -> list[Plane]:
    """Split an integer matrix into the fewest connections whose sum is exactly `(matrix · s) >> shift`.

    Args:
        matrix: scipy csr of int64.
        shift: bits by which the sum is shifted down; above 0, the matrix has to fit one connection.

    Raises:
        UnsupportedError: it does not fit.
    """
    matrix = matrix.copy()
    matrix.eliminate_zeros()
    if not matrix.nnz:
        return []
    whole = _fit_plane(matrix, shift)
    if whole is not None:
        return [whole]
    if shift:
        raise UnsupportedError(
            f"weights {_range(matrix.data)}, which do not fit 8 bits and cannot be split since their sum is rounded"
        )
    split: list[Plane] = []
    exponent = 0
    while matrix.nnz:
        low = matrix.copy()
        low.data = (matrix.data + DIGIT // 2) % DIGIT - DIGIT // 2
        matrix.data = (matrix.data - low.data) // DIGIT
        for part in (matrix, low):
            part.eliminate_zeros()
        plane = _fit_plane(low, -exponent) if low.nnz else None
        if low.nnz and plane is None:
            raise UnsupportedError(f"weights {_range(low.data)} times 2^{exponent}: the exponent is above {MAX_WEIGHT_EXPONENT}")
        split += [plane] if plane else []
        exponent += 7
    return split


def _fit_plane(matrix: Any, shift: int) -> Plane | None:
    """Return the matrix as one connection with the smallest exponent, or None."""
    low, high = int(matrix.data.min()), int(matrix.data.max())
    common = int(np.bitwise_or.reduce(matrix.data))
    for k in range((common & -common).bit_length()):
        low_k, high_k = low >> k, high >> k
        mixed = low_k < 0 < high_k
        exponent = k - shift - mixed
        if exponent > MAX_WEIGHT_EXPONENT:
            return None
        if exponent < MIN_WEIGHT_EXPONENT:
            continue
        if (mixed and low_k >= -128 and high_k <= 127) or (not mixed and low_k >= -255 and high_k <= 255):
            weights = matrix.copy()
            weights.data = (weights.data >> k << mixed).astype(np.int32)
            return Plane(weights=weights, exponent=exponent)
    return None


def check_weights(layer: Layer) -> None:
    """Refuse weights of a layer that no 8-bit synapse can hold.

    Raises:
        UnsupportedError: names the layer and the range.
    """
    synapse = layer.synapse
    if not isinstance(synapse, WEIGHTED):
        return
    weight = synapse.weight.data if isinstance(synapse.weight, SparseMatrix) else synapse.weight
    if weight.dtype.kind == "f" and (weight != np.rint(weight)).any():
        raise UnsupportedError(
            f"layer '{layer.name}': weights {_range(weight)} are not whole numbers; quantise the network first"
        )
    from scipy.sparse import csr_matrix

    flat = csr_matrix(weight.reshape(1, -1).astype(np.int64))
    flat.eliminate_zeros()
    if flat.nnz and _fit_plane(flat, 0) is None:
        raise UnsupportedError(
            f"layer '{layer.name}': weights {_range(weight)} do not fit an 8-bit synapse (-128..127, or 0..255 of one sign, "
            f"times a power of two up to 2^{MAX_WEIGHT_EXPONENT}); quantise to 8 bits"
        )


def split_into_digits(constant: Array) -> tuple[Array, Array]:
    """Split constants into signed digits to base 128, each of which fits an 8-bit weight.

    Returns:
        Digits (neurons, places) and the value of each place: `digits @ places` is the constant.

    >>> weights, places = split_into_digits(np.array([1, -200]))
    >>> weights.tolist(), places.tolist()
    ([[1, 0], [56, -2]], [1, 128])
    """
    weights: list[Array] = []
    rest = np.asarray(constant, np.int64)
    while rest.any() or not weights:
        low = (rest + DIGIT // 2) % DIGIT - DIGIT // 2
        rest = (rest - low) // DIGIT
        weights.append(low)
    return np.stack(weights, axis=1), DIGIT ** np.arange(len(weights), dtype=np.int64)


# ------------------------------------------------------------------------------------------------------------- neurons


def to_lava_parameters(layer: Layer, shape: Shape) -> dict[str, Array]:
    """Return Lava's names and numbers for a layer's neurons: 0-d arrays where all are equal, else (neurons,).

    Among them `v_reset`, which only our process `CompleteLIF` takes (see `needs_complete_lif`).

    Raises:
        UnsupportedError: a value is outside the format.
    """
    neuron = layer.neuron
    assert isinstance(neuron, LoihiLIF)
    if (np.abs(neuron.v_init) >= 1 << 23).any():
        raise UnsupportedError(
            f"layer '{layer.name}': v_init {_range(neuron.v_init)} given, a 24-bit state holds -8388607..8388607; change it"
        )
    mantissa, exponent = _split_bias(layer, neuron.bias)
    threshold = np.int64(UNREACHED_THRESHOLD) if neuron.v_threshold is None else neuron.v_threshold.astype(np.int64)
    values = {
        "du": neuron.decay_u - 1,
        "dv": neuron.decay_v,
        "vth": threshold,
        "bias_mant": mantissa,
        "bias_exp": exponent,
        "v": neuron.v_init,
        "v_reset": neuron.v_reset,
    }
    arrays = {name: np.asarray(value, np.int64) for name, value in values.items()}
    return {
        name: value.reshape(()) if value.size == 1 else np.broadcast_to(value, shape).reshape(-1)
        for name, value in arrays.items()
    }


def needs_complete_lif(neuron: LoihiLIF) -> bool:
    """Say whether Lava's LIF and LIFReset lack what these neurons do, so that our process `CompleteLIF` takes their place.

    Lava resets to 0, has LIFRefractory in floating point only, and adds 1 to `du`, which cannot give a decay of 0.
    """
    resets = neuron.v_threshold is not None and (neuron.reset == "subtract" or bool(neuron.v_reset.any()))
    rests = neuron.v_threshold is not None and neuron.refractory_steps > 0
    return resets or rests or bool((neuron.decay_u == 0).any())


def _split_bias(layer: Layer, bias: Array) -> tuple[Array, Array]:
    """Split a bias into a 13-bit mantissa and the smallest exponent."""
    bias = np.asarray(bias, np.int64)
    mantissa, exponent = bias.copy(), np.zeros_like(bias)
    for _ in range(MAX_BIAS_EXPONENT):
        wide = (mantissa < BIAS_LIMITS[0]) | (mantissa > BIAS_LIMITS[1])
        halve = wide & (mantissa % 2 == 0)
        mantissa, exponent = np.where(halve, mantissa // 2, mantissa), exponent + halve
    if ((mantissa < BIAS_LIMITS[0]) | (mantissa > BIAS_LIMITS[1])).any():
        raise UnsupportedError(
            f"layer '{layer.name}': bias {_range(bias)} is no 13-bit number (-4096..4095) times a power of two up to "
            f"2^{MAX_BIAS_EXPONENT}; round it to fewer bits"
        )
    return mantissa, exponent


def _range(value: Array) -> str:
    return f"{value.min()}..{value.max()}"
