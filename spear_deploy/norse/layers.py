"""Layers of a network as torch modules, and trained modules as layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import (
    CONVS,
    FLOAT_NEURONS,
    POOLS,
    Array,
    AvgPool,
    BatchNorm,
    Dense,
    Flatten,
    Layer,
    Scale,
    Shape,
    SparseMatrix,
    Synapse,
    Weights,
    store_compactly,
    write_out,
)
from spear_deploy.network.graph import SNNGraph
from spear_deploy.norse.cells import NeuronModule

Tensor = torch.Tensor


class NorseLayer(torch.nn.Module):
    """One layer: synapse and norm over a batch, neuron over time."""

    def __init__(self, graph: SNNGraph, layer: Layer, surrogate: str, alpha: float) -> None:
        super().__init__()
        shape = graph.shape_of(layer.name)
        self.flatten = isinstance(layer.synapse, Dense) and len(graph.input_shape_of(layer.name)) > 1
        self.synapse = _make_synapse(layer.synapse)
        self.norm = None if layer.norm is None else _make_norm(layer.norm, len(shape))
        self.neuron: Any = None
        self.by_event = False  # whether the neurons take spike after spike besides their sum
        if layer.neuron is not None:
            assert isinstance(layer.neuron, FLOAT_NEURONS)  # integers are refused with the graph
            self.neuron = NeuronModule(layer.neuron, shape, graph.dt_s, surrogate=surrogate, alpha=alpha)

    def weigh(self, x: Tensor) -> Tensor:
        """Pass a batch (N, *input shape) through synapse and norm."""
        x = x.flatten(1) if self.flatten else x
        for part in (self.synapse, self.norm):
            x = x if part is None else part(x)
        return x.float() if x.dtype is torch.bfloat16 else x  # autocast: sums in bfloat16, neurons in float32

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer for an input (T, B, *input shape); up to the neuron, time is part of the batch.

        An input that `share_equal_steps` stores once for all steps is weighed once.
        """
        if x.stride(0) == 0 and not (self.norm is not None and self.norm.training):
            once = self.weigh(x[0])
            drive = once.expand(len(x), *once.shape)
        else:
            flat = self.weigh(x.flatten(0, 1))
            drive = flat.reshape(*x.shape[:2], *flat.shape[1:])
        if self.neuron is None:
            return drive
        output: Tensor = self.neuron(drive) if not self.by_event else self.neuron.send_events(drive, x)
        return output


def share_equal_steps(x: Tensor) -> Tensor:
    """Return (T, B, ...) as a view of its first step where all steps are equal, as with an image."""
    return x[:1].expand_as(x) if len(x) > 1 and torch.equal(x[1:], x[:1].expand_as(x[1:])) else x


def _to_array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def read_layer(layer: Layer, module: NorseLayer) -> Layer:
    """Return a layer with the present weights and statistics of its module."""
    synapse, norm = layer.synapse, layer.norm
    if isinstance(synapse, (Dense, Scale, *CONVS)):
        trained: Any = module.synapse
        weight = _to_array(trained.weight)
        synapse = replace(
            synapse,
            weight=store_compactly(weight) if isinstance(synapse.weight, SparseMatrix) else weight,
            bias=None if trained.bias is None else _to_array(trained.bias),
        )
    if norm is not None:
        trained = module.norm
        norm = replace(
            norm,
            weight=_to_array(trained.weight),
            bias=_to_array(trained.bias),
            mean=_to_array(trained.running_mean),
            var=_to_array(trained.running_var),
        )
    return replace(layer, synapse=synapse, norm=norm)


# ------------------------------------------------------------------------------------------------------------ modules


class ScaleModule(torch.nn.Module):
    """One weight per input: `w * x + b`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.bias = None if bias is None else torch.nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale a batch (N, *shape)."""
        y = x * self.weight
        return y if self.bias is None else y + self.bias


class SumPoolModule(torch.nn.Module):
    """Sum over windows of one or two axes."""

    def __init__(self, kernel_size: Shape, stride: Shape) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pool a batch (N, C, *positions)."""
        if len(self.kernel_size) == 2:
            return torch.nn.functional.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)
        row = torch.nn.functional.avg_pool2d(x.unsqueeze(2), (1, *self.kernel_size), (1, *self.stride), divisor_override=1)
        return row.squeeze(2)


def _to_tensor(array: Weights) -> Tensor:
    return torch.from_numpy(np.array(write_out(array), np.float32))


def _make_synapse(synapse: Synapse | None) -> torch.nn.Module | None:
    if synapse is None:
        return None
    if getattr(synapse, "weight_exponent", 0):
        raise UnsupportedError(f"{type(synapse).__name__}: a weight exponent is for integer networks; fold it into the weight")
    if isinstance(synapse, Flatten):
        return torch.nn.Flatten()
    if isinstance(synapse, POOLS):
        return _make_pool(synapse)
    if isinstance(synapse, Scale):
        return ScaleModule(_to_tensor(synapse.weight), None if synapse.bias is None else _to_tensor(synapse.bias))
    module = _make_weights(synapse)
    with torch.no_grad():
        module.weight.copy_(_to_tensor(synapse.weight))
        if synapse.bias is not None:
            module.bias.copy_(_to_tensor(synapse.bias))
    return module


def _make_weights(synapse: Any) -> Any:
    """Return the torch module of a dense or convolutional synapse, its values not yet set.

    The values that torch draws are not used, and its random numbers go on as if there were none. `torch.nn.utils.skip_init`
    draws none, but loads a large part of torch for it, for up to a second.
    """
    with torch.random.fork_rng(devices=()):
        if isinstance(synapse, Dense):
            outputs, inputs = synapse.weight.shape
            return torch.nn.Linear(inputs, outputs, bias=synapse.bias is not None)
        kind: Any = torch.nn.Conv1d if synapse.weight.ndim == 3 else torch.nn.Conv2d
        return kind(
            synapse.weight.shape[1] * synapse.groups,
            synapse.weight.shape[0],
            synapse.weight.shape[2:],
            stride=synapse.stride,
            padding=synapse.padding,
            dilation=synapse.dilation,
            groups=synapse.groups,
            bias=synapse.bias is not None,
        )


def _make_pool(pool: Any) -> torch.nn.Module:
    dims = len(pool.kernel_size)
    if isinstance(pool, AvgPool):
        kind: Any = torch.nn.AvgPool1d if dims == 1 else torch.nn.AvgPool2d
        module: torch.nn.Module = kind(pool.kernel_size, pool.stride)
    else:
        module = SumPoolModule(pool.kernel_size, pool.stride)
    if not any(pool.padding):
        return module
    # padded apart: torch's own padding is limited to half a window
    border = tuple(p for axis in reversed(pool.padding) for p in (axis, axis))
    pad = torch.nn.ConstantPad1d(border, 0.0) if dims == 1 else torch.nn.ZeroPad2d(border)
    return torch.nn.Sequential(pad, module)


def _make_norm(norm: BatchNorm, axes: int) -> torch.nn.Module:
    kind = torch.nn.BatchNorm2d if axes == 3 else torch.nn.BatchNorm1d
    module = kind(norm.weight.shape[0], eps=norm.eps)
    values = {"weight": norm.weight, "bias": norm.bias, "running_mean": norm.mean, "running_var": norm.var}
    module.load_state_dict({name: _to_tensor(value) for name, value in values.items()}, strict=False)
    return module
