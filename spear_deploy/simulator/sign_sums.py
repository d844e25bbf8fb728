"""Sums of positive and of negative weights apart, packed into one number.

Weights of a neuron arrive as positive + 2^SIGN_BITS · negative, so that one product gives the sums of both signs. Each has to
stay below 2^SIGN_BITS, whatever adds up on its way to the neuron; what could go beyond is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import POOLS, WEIGHTED, Array
from spear_deploy.simulator import synapse_math

SIGN_BITS = 26
"""Bits of the sum of a sign: both sums fit the 2^53 up to which products are exact."""
MAX_SIGN_SUM = (1 << SIGN_BITS) - 1


def pack_signs(synapse: Any) -> Any:
    """Return an integer synapse whose weights and bias are their positive part + 2^SIGN_BITS · their negative part.

    Raises:
        DataError: a sum of one spike of every input needs more bits, sums are shifted, or a weight is no whole number.
    """
    synapse_math.require_whole_weights(synapse)
    if synapse.weight_exponent:
        raise DataError(f"weight_exponent {synapse.weight_exponent}, sums by sign take 0; shift the weights themselves")
    _require_bits(_sum_magnitudes(synapse) + _find_largest_bias(synapse), "weights of a neuron add up to")
    weight, bias = _pack(synapse.weight), None if synapse.bias is None else _pack(synapse.bias)
    return replace(synapse, weight=weight, bias=bias)


def split_signs(packed: Array) -> tuple[Array, Array]:
    """Return the sums of positive and of negative weights.

    >>> [part.tolist() for part in split_signs(np.array([3 + (5 << SIGN_BITS)]))]
    [[3], [5]]
    """
    return packed & MAX_SIGN_SUM, packed >> SIGN_BITS


def make_weigher(synapse: Any) -> synapse_math.Weigher:
    """Return the function that passes spikes, or packed sums, through a synapse to packed sums.

    Its function raises `DataError` where a value is below 0, or a sum could need more bits.
    """
    if not isinstance(synapse, WEIGHTED):
        return _make_plain_weigher(synapse)
    packed = pack_signs(synapse)
    weigh = synapse_math.make_weigher(packed, integer=True)
    without_bias = weigh if packed.bias is None else synapse_math.make_weigher(replace(packed, bias=None), integer=True)
    largest, offset = _sum_magnitudes(synapse), _find_largest_bias(synapse)

    def weigh_signs(x: Array) -> Array:
        if x.dtype.kind == "b":
            return weigh(x)
        check_sums([x], factor=largest, offset=offset)
        positive, negative = split_signs(x.astype(np.int64, copy=False))
        y = weigh(positive).astype(np.int64)
        if not negative.any():
            return y
        there, back = split_signs(without_bias(negative).astype(np.int64))  # a negative weight of a negative one is positive
        return y + back + (there << SIGN_BITS)

    return weigh_signs


def check_sums(values: Sequence[Array], *, factor: int = 1, offset: int = 0) -> None:
    """Refuse spikes or packed sums whose total, or `factor` times their largest, could need more bits.

    Raises:
        DataError: a value below 0 or not whole, or a sum beyond its bits.
    """
    most = 0
    for value in values:
        if value.dtype.kind == "b" or not value.size:
            most += 1
            continue
        if (lowest := value.min()) < 0:
            raise DataError(f"takes spikes and sums of weights, {lowest:g} arrives; this chip adds up weights by sign")
        synapse_math.check_whole(value)
        positive, negative = split_signs(value.astype(np.int64, copy=False))
        most += int(positive.max()) + int(negative.max())
    _require_bits(factor * most + offset, "weights of a step add up to as many as")


def _make_plain_weigher(synapse: Any) -> synapse_math.Weigher:
    """Return the function of a layer that pools, reshapes or passes on; a window's values add up."""
    weigh = synapse_math.make_weigher(synapse)
    taps = prod(synapse.kernel_size) if isinstance(synapse, POOLS) else 1

    def pass_on(x: Array) -> Array:
        check_sums([x], factor=taps)
        return weigh(x)

    return pass_on


def _pack(values: Any) -> Any:
    whole = values.astype(np.int64)
    return np.maximum(whole, 0) + (np.maximum(-whole, 0) << SIGN_BITS)


def _sum_magnitudes(synapse: Any) -> int:
    """Return the largest sum of the magnitudes of a neuron's weights."""
    return int(synapse_math.sum_by_neuron(replace(synapse, weight=abs(synapse.weight.astype(np.int64)))).max())


def _find_largest_bias(synapse: Any) -> int:
    return 0 if synapse.bias is None else int(np.abs(synapse.bias).max())


def _require_bits(total: int, what: str) -> None:
    if total > MAX_SIGN_SUM:
        raise DataError(f"{what} {total}, sums by sign hold {MAX_SIGN_SUM}; scale them down")
