"""Whole weights of netx, and their change by lava-dl's loader.

lava-dl 0.6.0 shifts the weights of a dense layer up until they fill 8 bits, and tells Lava how many bits to keep:

    signs       inhibitory: all below 0; excitatory: none below 0; else mixed
    up          ⌊log2(scale)⌋ (+ 1 if mixed), scale = 255 / max, −256 / min, or the smaller of 127 / max and −128 / min
    kept        8 − up − (zeros at the end of all weights, at most 8) (+ 1 if mixed)

Lava then determines the signs again, a layer without a positive weight being inhibitory, clips to −256..255 (0..255 without
signs), and cuts the lowest 8 − kept (+ 1 if mixed) bits. Most layers are loaded unchanged. Not so:

    all weights 0                            scale is infinite: the loader fails
    a largest weight beyond 255              without negative ones: all weights become 0
    0 and odd weights from −129 down only    the cut has the wrong sign: all become 0
    0 and −128, or −2^k, only                one bit too few is kept: they become half of themselves, or 0
    odd weights beyond −128..127             of both signs: 9 bits are kept, which Lava's models hold and a chip does not

The weights of a convolution are loaded unchanged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.network import Array, Layer, LoihiLIF, SparseMatrix, Weights

CHUNK_VALUES = 1 << 16
"""Weights handled at a time: they stay in cache, and add little memory to a layer of 10^8."""
MAX_SPAN = 1 << 20
BITS = 8
MAX_INT32 = 2**31 - 1
ROUNDING = 1e-4
"""Largest distance of a stored weight from the whole number that it stands for."""


QUIET_WEIGHT = -3
"""Inhibits a silent neuron, and is loaded unchanged among zeros; -1 and -2 are not."""


def round_weights(value: Array, key: str) -> Array:
    """Return stored weights as int32, with little memory beyond the result.

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
            place[:] = _round_chunk(part, key)
    whole.shape = value.shape
    whole.setflags(write=False)  # so that a layer takes it as it is
    return whole


def _round_chunk(part: Array, key: str) -> Array:
    """Return weights that are not exactly whole rounded to whole ones; GraphError if one is too far from whole."""
    if not np.isfinite(part).all():
        raise GraphError(f"'{key}' holds NaN or infinite values; retrain or repair the network")
    rounded: Array = np.rint(part)
    far = np.abs(part - rounded) > ROUNDING
    if far.any():
        raise GraphError(f"'{key}' holds {part[far][0]:g}, expected whole numbers of the chip; export the quantised network")
    wide = np.abs(rounded.astype(np.float64)) > MAX_INT32
    if wide.any():
        raise GraphError(f"'{key}' holds {part[wide][0]:g}, expected whole numbers of 32 bits; export the quantised network")
    return rounded


def distinct_values(weight: Weights) -> Array:
    """Return the distinct values of whole weights, rising, int64; only the two ends where they span more than 2^20."""
    low, high = int(weight.min()), int(weight.max())
    if high - low >= MAX_SPAN:
        return np.array([low, high], np.int64)
    if isinstance(weight, SparseMatrix):
        return np.unique(weight).astype(np.int64)
    occurs = np.zeros(high - low + 1, bool)
    flat = weight.reshape(-1)
    for start in range(0, flat.size, CHUNK_VALUES):
        occurs[flat[start : start + CHUNK_VALUES].astype(np.int64) - low] = True
    return np.flatnonzero(occurs) + low


def simulate_loading(own: Array, together: Array | None = None) -> Array | None:
    """Return the values of dense weights after loading by lava-dl, for their distinct values; None if its loader fails.

    Args:
        own: the distinct values of a matrix, whole numbers.
        together: of all matrices of the layer that are shifted together: `weight` and `weight_rec`.

    >>> simulate_loading(np.array([-3, 0, 127])), simulate_loading(np.array([-128, 0])), simulate_loading(np.array([0]))
    (array([ -3.,   0., 127.]), array([-64.,   0.]), None)
    """
    own = np.asarray(own, np.int64)
    together = _clip_like_loader(own if together is None else np.asarray(together, np.int64))
    if not together.any():
        return None
    up, kept = _find_shift(together)
    own = np.clip(own, together.min(), together.max())
    shifted = own << up if up >= 0 else np.zeros_like(own)
    return _store_in_synapse(shifted, kept) / 2.0**up


def count_kept_bits(together: Array) -> int:
    """Return the number of bits that lava-dl tells Lava to keep of weights that are shifted together; a chip holds 8.

    >>> count_kept_bits(np.array([-3, 127])), count_kept_bits(np.array([-3, 201]))
    (8, 9)
    """
    together = _clip_like_loader(np.asarray(together, np.int64))
    return _find_shift(together)[1] if together.any() else 0


def _clip_like_loader(together: Array) -> Array:
    low, high = int(together.min()), int(together.max())
    beyond = (high > 254 and low < 0) or (low < -256 and high > 0)
    return np.clip(together, -256, 254) if beyond else together


def _find_shift(together: Array) -> tuple[int, int]:
    """Return the number of bits by which weights are shifted up, and the number of bits kept."""
    low, high = int(together.min()), int(together.max())
    mixed = not (high < 0 or low >= 0)
    if mixed:
        scale = min(127 / high if high > 0 else math.inf, 128 / -low)
    else:
        scale = 256 / -low if high < 0 else 255 / high
    up = math.floor(math.log2(scale)) + mixed
    joined = int(np.bitwise_or.reduce(np.abs(together)))
    trailing_zeros = min(BITS, (joined & -joined).bit_length() - 1)
    return up, BITS - up - (trailing_zeros - mixed)


def _store_in_synapse(weight: Array, kept: int) -> Array:
    """Return weights as Lava's fixed-point synapse holds them."""
    inhibitory, mixed = int(weight.max()) <= 0 and int(weight.min()) < 0, int(weight.min()) < 0 < int(weight.max())
    weight = np.clip(-weight if inhibitory else weight, -(1 << BITS) if mixed else 0, (1 << BITS) - 1)
    cut = BITS - kept + mixed
    weight = (weight >> cut) << cut if 0 <= cut < 32 else np.zeros_like(weight)
    return -weight if inhibitory else weight


# ------------------------------------------------------------------------------------------------- weights to be written


def check_range(name: str, weight: Array) -> None:
    """Raise UnsupportedError for weights that Loihi's synapse cannot hold: 8 bits, of which mixed signs cost the lowest."""
    low, high = int(weight.min()), int(weight.max())
    mixed = low < 0 <= high
    limits = (-256, 254) if mixed else (-255, 255)
    if low < limits[0] or high > limits[1]:
        raise UnsupportedError(f"layer '{name}': weights of {low}..{high}, synapses hold {limits[0]}..{limits[1]}; quantise it")
    if mixed and (low < -128 or high > 127) and (weight % 2).any():
        raise UnsupportedError(f"layer '{name}': odd weights beyond -128..127 of both signs lose their lowest bit; quantise it")


def check_loadable(name: str, *matrices: Array) -> None:
    """Raise UnsupportedError for dense weights that lava-dl changes as it loads them; a layer's matrices are loaded together."""
    own = [distinct_values(matrix) for matrix in matrices]
    together = np.unique(np.concatenate(own))
    for values in own:
        loaded = simulate_loading(values, together)
        if loaded is None or (loaded != values).any():
            first = int(np.argmax(loaded != values)) if loaded is not None else 0
            becomes = "nothing" if loaded is None else f"{loaded[first]:g}"
            what = f"layer '{name}': a weight of {values[first]} among {together[0]}..{together[-1]}"
            raise UnsupportedError(f"{what} becomes {becomes} when lava-dl loads it; quantise it to fewer bits")


def make_loadable(layer: Layer, weight: Array, bias: Array | None, notes: list[str]) -> Array:
    """Return weights that lava-dl can load in place of only zeros, with the same spikes.

    A neuron without a positive bias that gets no input, or only inhibition, never spikes.

    Raises:
        UnsupportedError: no neuron of the layer is certain to be silent.
    """
    neuron: Any = layer.neuron
    silent = np.arange(len(weight)) if bias is None else np.flatnonzero(bias <= 0)
    decays = isinstance(neuron, LoihiLIF) and neuron.v_threshold is not None and neuron.decay_u.all()
    if not silent.size or not decays:
        raise UnsupportedError(f"layer '{layer.name}': all weights are zero, which lava-dl cannot load; remove the layer")
    changed = weight.copy()
    changed[silent[0], 0] = QUIET_WEIGHT
    where = f"layer '{layer.name}': all weights are zero, which lava-dl cannot load"
    notes.append(f"{where}; neuron {silent[0]}, always silent, got a weight of {QUIET_WEIGHT}")
    return changed
