"""Weights, neurons and biases of a layer in the units of netx.

What netx has no form for raises UnsupportedError with the layer's name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.reset_words import name_resets
from spear_deploy.interchange.netx.chain import ChainLayer, apply_exponent
from spear_deploy.network import LOIHI_UNIT, Array, Conv1d, Conv2d, Dense, Layer, LoihiLIF, Scale, Shape, SigmaDelta, SumPool
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import synapse_math

NO_SPIKE = 131071
"""vThMant of a neuron that never spikes, as lava-dl writes it."""
BIAS_LIMIT = 4096
"""First bias mantissa beyond Loihi's 13 bits."""
SHARED = {
    "iDecay": "the time constant (tau) of its current",
    "vDecay": "the time constant (tau) of its membrane",
    "vThMant": "its threshold",
}
"""What one number of a netx layer stands for, by its key in the file."""


def convert_weights(link: ChainLayer) -> Dense | Conv2d:
    """Return a layer's weights as dense or two-dimensional convolution, with the sum pools before it and its exponent in them.

    Raises:
        UnsupportedError: netx has no form for the synapse.
    """
    shape = link.pools[-1][0].output_shape(link.pools[-1][1]) if link.pools else link.shape
    values = (int(np.prod(shape)),) if link.flat else shape
    synapse = _convert_synapse(link.layer.name, link.layer.synapse, values)
    for pool, shape in reversed(link.pools):
        synapse = fold_pool(link.layer.name, synapse, pool, shape)
    return synapse


def _convert_synapse(name: str, synapse: Any, shape: Shape) -> Dense | Conv2d:
    """Return a synapse behind values of a shape as dense or two-dimensional convolution, with no exponent and no bias."""
    if isinstance(synapse, (Dense, Conv1d, Conv2d)):
        if synapse.bias is not None and synapse.bias.any():
            raise UnsupportedError(f"layer '{name}': a bias on the current has no place in netx; put it on the neuron")
        values = apply_exponent(name, synapse)
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
        return _convert_synapse(name, pooled, shape)
    return _convert_scale(name, synapse, shape)


def _convert_scale(name: str, synapse: Any, shape: Shape) -> Dense | Conv2d:
    """Return weights that pass each channel on, times a number: of a `Scale`, or 1 of no synapse."""
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


def fold_pool(name: str, synapse: Dense | Conv2d, pool: SumPool, shape: Shape) -> Dense | Conv2d:
    """Return the weights that do what a sum pool and the weights behind it do.

    The weight of a pooled position goes to every position of its window, so integers stay exact. A convolution's zeros around
    the pooled picture are zeros around the picture too, unless windows overlap or leave a rest at the edge.

    Args:
        name: of the layer, for the error.
        synapse: `Dense` or `Conv2d` behind the pool.
        pool: the pool.
        shape: of the pool's input.

    Raises:
        UnsupportedError: a convolution pads with zeros that have no counterpart before the pool.
    """
    sizes: Any = pool.kernel_size, pool.stride, pool.padding
    kernel, stride, padding = sizes
    if isinstance(synapse, Dense):
        pooled = pool.output_shape(shape)
        taps = np.ones((len(synapse.weight) * shape[0], *kernel), synapse.weight.dtype)
        spread = synapse_math.scatter(
            synapse.weight.reshape(-1, *pooled[1:]),
            taps,
            (len(taps), *shape[1:]),
            stride,
            padding,
            tuple(1 for _ in kernel),
        )
        return Dense(weight=spread.reshape(len(synapse.weight), -1))
    lift = 2 - len(kernel)
    kernel, stride, padding = (1,) * lift + kernel, (1,) * lift + stride, (0,) * lift + padding
    for n, k, s, p, q in zip((1,) * lift + shape[1:], kernel, stride, padding, synapse.padding, strict=True):
        outside = (n + 2 * p - k) // s + 1
        if q and (k > s + p or s * outside - p < n):
            raise UnsupportedError(f"layer '{name}': pads behind a pool whose windows overlap or leave a rest; pad earlier")
    weight = synapse.weight
    sizes = [s * d * (m - 1) + k for k, s, d, m in zip(kernel, stride, synapse.dilation, weight.shape[2:], strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    for y, x in np.ndindex(*weight.shape[2:]):
        top, left = stride[0] * synapse.dilation[0] * y, stride[1] * synapse.dilation[1] * x
        wide[:, :, top : top + kernel[0], left : left + kernel[1]] += weight[:, :, y : y + 1, x : x + 1]
    return Conv2d(
        weight=wide,
        stride=tuple(s * t for s, t in zip(stride, synapse.stride, strict=True)),
        padding=tuple(s * q + p for s, q, p in zip(stride, synapse.padding, padding, strict=True)),
        groups=synapse.groups,
    )


# ------------------------------------------------------------------------------------------------------------- neurons


def encode_neuron(graph: SNNGraph, layer: Layer, notes: list[str]) -> dict[str, Any]:
    """Return the values of the entry's group `neuron`.

    Raises:
        UnsupportedError: netx has no form for these neurons.
    """
    neuron = layer.neuron
    if isinstance(neuron, SigmaDelta):
        return _encode_sigma_delta(layer, neuron)
    assert isinstance(neuron, LoihiLIF)
    if neuron.reset == "subtract" and neuron.v_threshold is not None:
        raise UnsupportedError(
            f"layer '{layer.name}': reset by subtraction has no place in netx; train with {name_resets(graph, ['value'])}"
        )
    if neuron.v_reset.any() and neuron.v_threshold is not None:
        raise UnsupportedError(
            f"layer '{layer.name}': is reset to a value other than 0, netx neurons go to 0; train with v_leak equal to v_reset"
        )
    if neuron.v_init.any():
        raise UnsupportedError(
            f"layer '{layer.name}': starts away from 0, netx neurons start at 0; train with v_leak equal to v_reset"
        )
    values: dict[str, Any] = {"type": "CUBA"}
    for key, parameter in (("iDecay", neuron.decay_u), ("vDecay", neuron.decay_v), ("vThMant", neuron.v_threshold)):
        values[key] = NO_SPIKE if parameter is None else _shared_value(layer, key, parameter)
    values |= {"refDelay": neuron.refractory_steps + 1, "gradedSpike": False}
    if neuron.refractory_steps and neuron.v_threshold is not None:
        notes.append(
            f"layer '{layer.name}': rests {neuron.refractory_steps} steps after a spike, written as refDelay; "
            "lava-dl's loader passes over it"
        )
    if neuron.v_threshold is None:
        values["readout"] = True
    return values


def _encode_sigma_delta(layer: Layer, neuron: SigmaDelta) -> dict[str, Any]:
    if (neuron.spike_exponent, neuron.state_exponent) != (6, 6) or neuron.activation != "relu":
        raise UnsupportedError(f"layer '{layer.name}': netx's sigma-delta neurons have exponents of 6 and a ReLU; use those")
    values: dict[str, Any] = {"type": "SDNN", "activation": "relu"}
    if neuron.v_threshold is None:
        return {**values, "vThMant": 0, "sigma_output": True}
    return {**values, "vThMant": _shared_value(layer, "vThMant", neuron.v_threshold)}


def _shared_value(layer: Layer, key: str, parameter: Array) -> int:
    values = np.unique(parameter)
    if values.size > 1:
        others = "; NIR (of the floating-point network) and ONNX hold one a neuron" if isinstance(layer.neuron, LoihiLIF) else ""
        raise UnsupportedError(
            f"layer '{layer.name}': {SHARED[key]} differs between neurons, netx holds one a layer ({key}); give all its "
            f"neurons the same{others}"
        )
    return int(values[0])


def encode_bias(layer: Layer, shape: Shape, notes: list[str], round_bias: bool) -> Array | None:
    """Return the neurons' bias, None where it is 0: one number per channel, or per neuron as (W, H, C).

    Its unit is 64, that of sigma-delta neurons 1.

    Raises:
        UnsupportedError: a bias is no multiple of 64 and `round_bias` is not set.
    """
    neuron: Any = layer.neuron
    if neuron is None or not neuron.bias.any():
        return None
    units = neuron.bias.astype(np.int64)
    if isinstance(neuron, LoihiLIF):
        units = _to_bias_units(layer.name, units, notes, round_bias)
    if len(shape) == 1 or units.size == 1 or (units.ndim == len(shape) and units.size == units.shape[0]):
        return np.broadcast_to(units.reshape(-1), shape[:1])
    full = np.broadcast_to(units, shape)
    return (full if full.ndim == 3 else full[:, None]).transpose()


def _to_bias_units(name: str, bias: Array, notes: list[str], round_bias: bool) -> Array:
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
