"""Which numbers does netx hold for a layer, and does lava-dl load them as they are?

Everything that netx cannot say is refused by the layer's name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.netx_chain import Link, shifted
from spear_deploy.interchange.netx_weights import as_loaded, levels
from spear_deploy.layers import LOIHI_UNIT, Array, Conv1d, Conv2d, Dense, Layer, LoihiLIF, Scale, Shape, SigmaDelta, SumPool

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
