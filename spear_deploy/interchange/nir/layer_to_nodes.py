"""NIR nodes from a layer.

batch norm behind weights                           folded into them in float64, then rounded to float32
a pool of one axis, a scale and shift per channel,  depthwise convolutions, since NIR has none of them; of inputs of one axis
another batch norm                                  a matrix
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.nir.metadata import POOL_KEY, V_INIT_KEY, V_MIN_KEY, make_reset_metadata
from spear_deploy.network import (
    CONVS,
    FLOAT_NEURONS,
    IF,
    LI,
    LIF,
    POOLS,
    Array,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Shape,
    SumPool,
    Synapse,
    Weights,
    write_out,
)
from spear_deploy.network.graph import SNNGraph


def make_nodes(graph: SNNGraph, layer: Layer, notes: list[str]) -> list[tuple[str, Any]]:
    """Return the nodes of a layer in order, each with the suffix of its name."""
    shape, output = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
    parts: list[tuple[str, Any]] = []
    synapse, norm = layer.synapse, layer.norm
    if norm is not None:
        is_folded = isinstance(synapse, (Dense, *CONVS))
        what = "folded into the weights" if is_folded else "written as a factor and a shift per channel"
        notes.append(f"layer '{layer.name}': batch norm is {what} and rounded to float32")
        if is_folded:
            synapse, norm = fold_norm(synapse, norm), None
    if isinstance(synapse, Dense) and len(shape) > 1:
        parts.append(("flatten", _make_flatten(shape)))
    if synapse is not None:
        parts += [(f"synapse{n or ''}", node) for n, node in enumerate(_make_synapse_nodes(layer.name, synapse, shape))]
    if norm is not None:
        parts.append(("norm", _make_channel_affine(layer.name, *_compute_gain_shift(norm), output)))
    if layer.neuron is not None:
        parts.append(("neuron", _make_neuron(layer, output)))
    return parts or [("sum", _make_scale(np.ones(shape)))]


def _make_synapse_nodes(name: str, synapse: Synapse, shape: Shape) -> Iterable[Any]:
    import nir

    if isinstance(synapse, Dense):
        weight = _to_float32(synapse.weight)
        return [nir.Linear(weight=weight) if synapse.bias is None else nir.Affine(weight=weight, bias=_to_float32(synapse.bias))]
    if isinstance(synapse, CONVS):
        return [_make_conv(synapse, shape)]
    if isinstance(synapse, Flatten):
        return [_make_flatten(shape)]
    if isinstance(synapse, POOLS):
        return [_make_pool(synapse, shape)]
    nodes = [_make_scale(np.broadcast_to(_to_float32(synapse.weight), shape))]
    if synapse.bias is not None:
        shift = np.broadcast_to(synapse.bias, shape)
        per_channel = shift.reshape(shape[0], -1)
        if (per_channel != per_channel[:, :1]).any():
            raise UnsupportedError(f"layer '{name}': a bias per position has no place in NIR; use one per channel")
        nodes.append(_make_channel_affine(name, np.ones(shape[0]), per_channel[:, 0], shape))
    return nodes


def _make_conv(conv: Any, shape: Shape) -> Any:
    import nir

    bias = np.zeros(conv.weight.shape[0], np.float32) if conv.bias is None else _to_float32(conv.bias)
    if isinstance(conv, Conv1d):
        return nir.Conv1d(
            input_shape=int(shape[1]),
            weight=_to_float32(conv.weight),
            stride=int(conv.stride[0]),
            padding=int(conv.padding[0]),
            dilation=int(conv.dilation[0]),
            groups=int(conv.groups),
            bias=bias,
        )
    return nir.Conv2d(
        input_shape=tuple(int(n) for n in shape[1:]),
        weight=_to_float32(conv.weight),
        stride=tuple(conv.stride),
        padding=tuple(conv.padding),
        dilation=tuple(conv.dilation),
        groups=int(conv.groups),
        bias=bias,
    )


def _make_pool(pool: Any, shape: Shape) -> Any:
    """NIR pools over two axes only; over one axis it is a depthwise convolution, whose metadata name the pool."""
    import nir

    if len(pool.kernel_size) == 1:
        weight = np.ones((shape[0], 1, *pool.kernel_size)) / (pool.kernel_size[0] if isinstance(pool, AvgPool) else 1)
        node = _make_conv(Conv1d(weight=weight, stride=pool.stride, padding=pool.padding, groups=shape[0]), shape)
        node.metadata[POOL_KEY] = type(pool).__name__
        return node
    kind = nir.SumPool2d if isinstance(pool, SumPool) else nir.AvgPool2d
    return kind(kernel_size=np.array(pool.kernel_size), stride=np.array(pool.stride), padding=np.array(pool.padding))


def _make_channel_affine(name: str, gain: Array, shift: Array, shape: Shape) -> Any:
    """Return `gain · x + shift` per channel: NIR has no such node, a depthwise 1 × 1 convolution is one."""
    import nir

    if len(shape) == 1:
        return nir.Affine(weight=_to_float32(np.diag(gain)), bias=_to_float32(shift))
    if len(shape) > 3:
        raise UnsupportedError(f"layer '{name}': a scale and shift of {len(shape)} axes has no place in NIR; fold it")
    kind: Any = Conv1d if len(shape) == 2 else Conv2d
    return _make_conv(kind(weight=np.asarray(gain).reshape(-1, *(1 for _ in shape)), bias=shift, groups=shape[0]), shape)


def _make_scale(values: Array) -> Any:
    import nir

    return nir.Scale(scale=_to_float32(values))


def _make_flatten(shape: Shape) -> Any:
    import nir

    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _make_neuron(layer: Layer, shape: Shape) -> Any:
    import nir

    neuron = layer.neuron
    if not isinstance(neuron, FLOAT_NEURONS):
        raise UnsupportedError(f"layer '{layer.name}': {type(neuron).__name__} has no counterpart in NIR; export another neuron")
    values = {"r": neuron.r}
    if isinstance(neuron, (LIF, LI)):
        values |= {"tau": neuron.tau_s, "v_leak": neuron.v_leak}
    if isinstance(neuron, (CubaLIF, CubaLI)):
        values |= {"tau_mem": neuron.tau_mem_s, "tau_syn": neuron.tau_syn_s, "v_leak": neuron.v_leak, "w_in": neuron.w_in}
    metadata: dict[str, Any] = {}
    if isinstance(neuron, (IF, LIF, CubaLIF)):
        values |= {"v_threshold": neuron.v_threshold, "v_reset": neuron.v_reset}
        metadata = make_reset_metadata(neuron)
    if isinstance(neuron, IF) and neuron.v_min is not None:
        metadata[V_MIN_KEY] = _broadcast_parameter(neuron.v_min, shape)
    if getattr(neuron, "v_init", None) is not None:
        metadata[V_INIT_KEY] = _broadcast_parameter(neuron.v_init, shape)  # type: ignore[union-attr, arg-type]
    kind = getattr(nir, type(neuron).__name__)
    return kind(**{name: _broadcast_parameter(value, shape) for name, value in values.items()}, metadata=metadata)


def _broadcast_parameter(value: Array, shape: Shape) -> Array:
    """Return a parameter in full shape: float32, or float64 where float32 would change it."""
    exact = value.astype(np.float64)
    short = exact.astype(np.float32)
    return np.broadcast_to(short if (short == exact).all() else exact, shape).copy()


def _to_float32(value: Weights) -> Array:
    return np.ascontiguousarray(write_out(value.astype(np.float32, copy=False)))


def fold_norm(synapse: Any, norm: BatchNorm) -> Any:
    """Return the weights with the batch norm behind them folded in, in float64: w · gain, b · gain + shift."""
    gain, shift = _compute_gain_shift(norm)
    bias = shift if synapse.bias is None else synapse.bias.astype(np.float64) * gain + shift
    weight = synapse.weight.astype(np.float64) * gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:]))
    return replace(synapse, weight=weight, bias=bias)


def _compute_gain_shift(norm: BatchNorm) -> tuple[Array, Array]:
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    return gain, norm.bias.astype(np.float64) - norm.mean.astype(np.float64) * gain
