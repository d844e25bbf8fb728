"""What do weights become when lava-dl loads them?

lava-dl 0.6.0 shifts the weights of a dense layer up until they fill 8 bits, and tells Lava how many bits to keep:

    signs       inhibitory: all below 0; excitatory: none below 0; else mixed
    up          ⌊log2(scale)⌋ (+ 1 if mixed), scale = 255 / max, −256 / min, or the smaller of 127 / max and −128 / min
    kept        8 − up − (zeros at the end of all weights, at most 8) (+ 1 if mixed)

Lava then finds the signs anew, a layer without a positive weight being inhibitory, clips to −256..255 (0..255 without signs),
and cuts the lowest 8 − kept (+ 1 if mixed) bits. Most layers come through as they are. Not so:

    all weights 0                            scale is infinite: the loader fails
    a largest weight beyond 255              without negative ones: all weights become 0
    0 and odd weights from −129 down only    the cut has the wrong sign: all become 0
    0 and −128, or −2^k, only                one bit too few is kept: they become half of themselves, or 0
    odd weights beyond −128..127             of both signs: 9 bits are kept, which Lava's models hold and a chip does not

A convolution's weights are taken as they are.
"""

from __future__ import annotations

import math

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.layers import Array

CHUNK_VALUES = 1 << 16
"""Weights looked at together: they stay in cache, and are little next to a layer of 10^8."""
WIDEST = 1 << 20
BITS = 8
MOST = 2**31 - 1
ROUNDING = 1e-4
"""How far from a whole number a stored weight may lie and still mean it."""


def whole_weights(value: Array, key: str) -> Array:
    """Return stored weights as int32, in little more memory than that.

    Raises:
        GraphError: NaN, fractions, or beyond 32 bits.
    """
    flat = value.reshape(-1)
    whole = np.empty(flat.shape, np.int32)
    for start in range(0, flat.size, CHUNK_VALUES):
        part, place = flat[start : start + CHUNK_VALUES], whole[start : start + CHUNK_VALUES]
        with np.errstate(invalid="ignore"):
            np.copyto(place, part, casting="unsafe")
        if not np.array_equal(place, part):
            place[:] = _rounded(part, key)
    whole.shape = value.shape
    whole.setflags(write=False)  # so that a layer takes it as it is
    return whole


def _rounded(part: Array, key: str) -> Array:
    """Return stored weights that are not exactly whole as whole ones, or say why they are none."""
    if not np.isfinite(part).all():
        raise GraphError(f"'{key}' holds NaN or infinite values; retrain or repair the network")
    rounded: Array = np.rint(part)
    far = np.abs(part - rounded) > ROUNDING
    if far.any():
        raise GraphError(f"'{key}' holds {part[far][0]:g}, expected whole numbers of the chip; export the quantised network")
    wide = np.abs(rounded.astype(np.float64)) > MOST
    if wide.any():
        raise GraphError(f"'{key}' holds {part[wide][0]:g}, expected whole numbers of 32 bits; export the quantised network")
    return rounded


def levels(weight: Array) -> Array:
    """Return the distinct values of whole weights, rising: int64; only the ends where they span more than 2^20."""
    low, high = int(weight.min()), int(weight.max())
    if high - low >= WIDEST:
        return np.array([low, high], np.int64)
    found = np.zeros(high - low + 1, bool)
    flat = weight.reshape(-1)
    for start in range(0, flat.size, CHUNK_VALUES):
        found[flat[start : start + CHUNK_VALUES].astype(np.int64) - low] = True
    return np.flatnonzero(found) + low


def as_loaded(own: Array, together: Array | None = None) -> Array | None:
    """Return what dense weights count once lava-dl has loaded them, for each of their distinct values; None if it fails.

    Args:
        own: the distinct values of a matrix, whole numbers.
        together: of all matrices of the layer that are shifted together: `weight` and `weight_rec`.

    >>> as_loaded(np.array([-3, 0, 127])), as_loaded(np.array([-128, 0])), as_loaded(np.array([0]))
    (array([ -3.,   0., 127.]), array([-64.,   0.]), None)
    """
    own = np.asarray(own, np.int64)
    together = _clipped(own if together is None else np.asarray(together, np.int64))
    if not together.any():
        return None
    up, kept = _shift(together)
    own = np.clip(own, together.min(), together.max())
    shifted = own << up if up >= 0 else np.zeros_like(own)
    return _in_the_synapse(shifted, kept) / 2.0**up


def bits_kept(together: Array) -> int:
    """Return how many bits a weight lava-dl asks Lava to keep of weights that are shifted together; a chip holds 8.

    >>> bits_kept(np.array([-3, 127])), bits_kept(np.array([-3, 201]))
    (8, 9)
    """
    together = _clipped(np.asarray(together, np.int64))
    return _shift(together)[1] if together.any() else 0


def _clipped(together: Array) -> Array:
    low, high = int(together.min()), int(together.max())
    beyond = (high > 254 and low < 0) or (low < -256 and high > 0)
    return np.clip(together, -256, 254) if beyond else together


def _shift(together: Array) -> tuple[int, int]:
    """Return by how many bits weights are shifted up, and how many are kept."""
    low, high = int(together.min()), int(together.max())
    mixed = not (high < 0 or low >= 0)
    if mixed:
        scale = min(127 / high if high > 0 else math.inf, 128 / -low)
    else:
        scale = 256 / -low if high < 0 else 255 / high
    up = math.floor(math.log2(scale)) + mixed
    return up, BITS - up - (_zeros_at_the_end(together) - mixed)


def _zeros_at_the_end(values: Array) -> int:
    joined = int(np.bitwise_or.reduce(np.abs(values)))
    return min(BITS, (joined & -joined).bit_length() - 1)


def _in_the_synapse(weight: Array, kept: int) -> Array:
    """Return weights as Lava's fixed-point synapse holds them."""
    inhibitory, mixed = int(weight.max()) <= 0 and int(weight.min()) < 0, int(weight.min()) < 0 < int(weight.max())
    weight = np.clip(-weight if inhibitory else weight, -(1 << BITS) if mixed else 0, (1 << BITS) - 1)
    cut = BITS - kept + mixed
    weight = (weight >> cut) << cut if 0 <= cut < 32 else np.zeros_like(weight)
    return -weight if inhibitory else weight
