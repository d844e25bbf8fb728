"""Which numbers does netx hold for a layer, and does lava-dl load them as they are?

Everything that netx cannot say is refused by the layer's name.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx.chain import Link, shifted
from spear_deploy.network import LOIHI_UNIT, Array, Conv1d, Conv2d, Dense, Layer, LoihiLIF, Scale, Shape, SigmaDelta, SumPool

NO_SPIKE = 131071
BIAS_LIMIT = 4096
QUIET_WEIGHT = -3
"""Inhibits a silent neuron, and comes through lava-dl's loader among zeros, as -1 and -2 do not."""


def weights_of(layer: Layer, link: Link) -> Any:
    """Return a layer's weights as dense or two-dimensional convolution, with no exponent and no bias."""
    synapse, name = layer.synapse, layer.name
    shape = link.pools[-1][0].output_shape(link.pools[-1][1]) if link.pools else link.shape
    if isinstance(synapse, (Dense, Conv1d, Conv2d)):
        if synapse.bias is not None and synapse.bias.any():
            raise UnsupportedError(f"layer '{name}': a bias on the current has no place in netx; put it on the neuron")
        values = shifted(name, synapse)
        if isinstance(synapse, Dense):
            return Dense(weight=values)
        if isinstance(synapse, Conv2d):
            return replace(synapse, weight=values, bias=None, weight_exponent=0)
        return Conv2d(
            weight=values[:, :, None],
            stride=(1, *synapse.stride),
            padding=(0, *synapse.padding),
            dilation=(1, *synapse.dilation),
            groups=synapse.groups,
        )
    if isinstance(synapse, SumPool):
        ones = np.ones((shape[0], 1, *synapse.kernel_size), np.int64)
        conv: Any = Conv2d if len(synapse.kernel_size) == 2 else Conv1d
        pooled = conv(weight=ones, stride=synapse.stride, padding=synapse.padding, groups=shape[0])
        return weights_of(replace(layer, synapse=pooled), link)
    return _per_channel(name, synapse, shape)


def _per_channel(name: str, synapse: Any, shape: Shape) -> Any:
    """Return weights that pass each channel on, times a number."""
    gain = np.ones(shape, np.int64)
    if isinstance(synapse, Scale):
        if (synapse.bias is not None and synapse.bias.any()) or (synapse.weight != np.rint(synapse.weight)).any():
            raise UnsupportedError(f"layer '{name}': scales by fractions or adds to spikes; netx does so at the input only")
        gain = np.broadcast_to(synapse.weight, shape).astype(np.int64)
    elif synapse is not None:
        raise UnsupportedError(f"layer '{name}': {type(synapse).__name__} has no place in netx; use sum pooling")
    if len(shape) == 1:
        return Dense(weight=np.diag(gain))
    flat = gain.reshape(shape[0], -1)
    if (flat != flat[:, :1]).any():
        raise UnsupportedError(f"layer '{name}': weights per position have no place in netx; use one per channel")
    return Conv2d(weight=flat[:, :1].reshape(-1, 1, 1, 1), groups=shape[0])


# ------------------------------------------------------------------------------------------------------------- neurons


def neuron_values(layer: Layer, notes: list[str]) -> dict[str, Any]:
    """Return what stands in the group `neuron`."""
    neuron = layer.neuron
    if isinstance(neuron, SigmaDelta):
        return _sigma_delta(layer, neuron)
    assert isinstance(neuron, LoihiLIF)
    if neuron.reset == "subtract" and neuron.v_threshold is not None:
        raise UnsupportedError(f"layer '{layer.name}': reset by subtraction has no place in netx; train with reset to zero")
    if neuron.v_reset.any() and neuron.v_threshold is not None:
        raise UnsupportedError(
            f"layer '{layer.name}': is reset to a value other than 0, netx neurons go to 0; let v_leak be v_reset"
        )
    if neuron.v_init.any():
        raise UnsupportedError(f"layer '{layer.name}': starts away from 0, netx neurons start at 0; let v_leak be v_reset")
    values: dict[str, Any] = {"type": "CUBA"}
    for key, given in (("iDecay", neuron.decay_u), ("vDecay", neuron.decay_v), ("vThMant", neuron.v_threshold)):
        values[key] = NO_SPIKE if given is None else _shared(layer, key, given)
    values |= {"refDelay": neuron.refractory_steps + 1, "gradedSpike": False}
    if neuron.refractory_steps and neuron.v_threshold is not None:
        notes.append(
            f"layer '{layer.name}': rests {neuron.refractory_steps} steps after a spike, written as refDelay; "
            "lava-dl's loader passes over it"
        )
    if neuron.v_threshold is None:
        values["readout"] = True
    return values


def _sigma_delta(layer: Layer, neuron: SigmaDelta) -> dict[str, Any]:
    if (neuron.spike_exponent, neuron.state_exponent) != (6, 6) or neuron.activation != "relu":
        raise UnsupportedError(f"layer '{layer.name}': netx's sigma-delta neurons have exponents of 6 and a ReLU; use those")
    values: dict[str, Any] = {"type": "SDNN", "activation": "relu"}
    if neuron.v_threshold is None:
        return {**values, "vThMant": 0, "sigma_output": True}
    return {**values, "vThMant": _shared(layer, "vThMant", neuron.v_threshold)}


def _shared(layer: Layer, key: str, given: Array) -> int:
    found = np.unique(given)
    if found.size > 1:
        raise UnsupportedError(f"layer '{layer.name}': {key} differs between neurons, netx has one a layer; share it")
    return int(found[0])


def bias_values(layer: Layer, shape: Shape, notes: list[str], round_bias: bool) -> Array | None:
    """Return the bias in netx's unit (64, or sigma-delta's one): one per channel, or one per neuron as (W, H, C); or None."""
    neuron: Any = layer.neuron
    if neuron is None or not neuron.bias.any():
        return None
    units = neuron.bias.astype(np.int64)
    if isinstance(neuron, LoihiLIF):
        units = _in_units(layer.name, units, notes, round_bias)
    if len(shape) == 1 or units.size == 1 or (units.ndim == len(shape) and units.size == units.shape[0]):
        return np.broadcast_to(units.reshape(-1), shape[:1])
    full = np.broadcast_to(units, shape)
    return (full if full.ndim == 3 else full[:, None]).transpose()


def _in_units(name: str, bias: Array, notes: list[str], round_bias: bool) -> Array:
    if (bias % LOIHI_UNIT).any():
        if not round_bias:
            odd = int(bias.reshape(-1)[np.argmax(bias.reshape(-1) % LOIHI_UNIT != 0)])
            raise UnsupportedError(f"layer '{name}': a bias of {odd}, netx holds multiples of {LOIHI_UNIT}; allow rounding")
        notes.append(f"layer '{name}': biases are rounded to multiples of {LOIHI_UNIT}")
    units = np.rint(bias / LOIHI_UNIT).astype(np.int64)
    if np.abs(units).max() >= BIAS_LIMIT:
        what = f"layer '{name}': a bias of {int(np.abs(units).max())}"
        notes.append(f"{what} is beyond the 13 bits of Loihi with netx's exponent of 6; Lava on a CPU takes it")
    return units


# ------------------------------------------------------------------------------------------------------------- weights


def check_range(name: str, weight: Array) -> None:
    """Refuse what Loihi's synapse does not hold: 8 bits, and a sign that costs the lowest one where signs are mixed."""
    low, high = int(weight.min()), int(weight.max())
    mixed = low < 0 <= high
    limits = (-256, 254) if mixed else (-255, 255)
    if low < limits[0] or high > limits[1]:
        raise UnsupportedError(f"layer '{name}': weights of {low}..{high}, synapses hold {limits[0]}..{limits[1]}; quantise it")
    if mixed and (low < -128 or high > 127) and (weight % 2).any():
        raise UnsupportedError(f"layer '{name}': odd weights beyond -128..127 of both signs lose their lowest bit; quantise it")


def check_loadable(name: str, *matrices: Array) -> None:
    """Refuse dense weights that lava-dl changes as it loads them; those of a layer are loaded together."""
    own = [levels(matrix) for matrix in matrices]
    together = np.unique(np.concatenate(own))
    for found in own:
        loaded = as_loaded(found, together)
        if loaded is None or (loaded != found).any():
            worst = int(np.argmax(loaded != found)) if loaded is not None else 0
            becomes = "nothing" if loaded is None else f"{loaded[worst]:g}"
            what = f"layer '{name}': a weight of {found[worst]} among {together[0]}..{together[-1]}"
            raise UnsupportedError(f"{what} becomes {becomes} when lava-dl loads it; quantise it to fewer bits")


def loadable(layer: Layer, weight: Array, bias: Array | None, notes: list[str]) -> Array:
    """Return weights that lava-dl can load instead of only zeros, with the same spikes.

    A neuron without a positive bias that gets nothing, or only inhibition, never spikes.
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


# FOLDED from spear_deploy/interchange/netx/values.py
# What do weights become when lava-dl loads them?
#
# lava-dl 0.6.0 shifts the weights of a dense layer up until they fill 8 bits, and tells Lava how many bits to keep:
#
#     signs       inhibitory: all below 0; excitatory: none below 0; else mixed
#     up          ⌊log2(scale)⌋ (+ 1 if mixed), scale = 255 / max, −256 / min, or the smaller of 127 / max and −128 / min
#     kept        8 − up − (zeros at the end of all weights, at most 8) (+ 1 if mixed)
#
# Lava then finds the signs anew, a layer without a positive weight being inhibitory, clips to −256..255 (0..255 without signs),
# and cuts the lowest 8 − kept (+ 1 if mixed) bits. Most layers come through as they are. Not so:
#
#     all weights 0                            scale is infinite: the loader fails
#     a largest weight beyond 255              without negative ones: all weights become 0
#     0 and odd weights from −129 down only    the cut has the wrong sign: all become 0
#     0 and −128, or −2^k, only                one bit too few is kept: they become half of themselves, or 0
#     odd weights beyond −128..127             of both signs: 9 bits are kept, which Lava's models hold and a chip does not
#
# A convolution's weights are taken as they are.

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
