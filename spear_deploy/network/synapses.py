"""Synapses (dense, convolution, scale, pool, flatten) and batch norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Part, Shape, Weights, axis_sizes, check_broadcast, freeze_array
from spear_deploy.network.sparse_matrix import SparseMatrix, is_scipy, make_sparse
from spear_deploy.util.number_format import format_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(Part):
    """Fully connected: `y = W x + b`. An input of shape (C, H, W) is flattened in that order.

    Attributes:
        weight: (O, I); an array, or a `SparseMatrix` of the weights other than zero, which a matrix of scipy.sparse becomes.
        bias: (O,) or None.
        weight_exponent: integer networks only: the sum is shifted by it, `(W x) << e` (or `>> -e`, towards minus infinity).
    """

    weight: Weights
    bias: Array | None = None
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.weight, SparseMatrix) or is_scipy(self.weight):
            object.__setattr__(self, "weight", make_sparse(self.weight))
            freeze_array(self.weight.data, what="Dense.weight")
        else:
            object.__setattr__(self, "weight", freeze_array(self.weight, what="Dense.weight"))
        self._freeze()
        _check_bias(self, dims=2)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (O,)."""
        if int(np.prod(input_shape)) != self.weight.shape[1]:
            raise GraphError(f"Dense takes {self.weight.shape[1]} inputs, got {format_shape(input_shape)}")
        return (self.weight.shape[0],)


class _Conv(Part):
    weight: Array
    bias: Array | None
    stride: Any
    padding: Any
    dilation: Any
    groups: int

    def _check(self, dims: int) -> None:
        self._freeze()
        for name, minimum in (("stride", 1), ("padding", 0), ("dilation", 1)):
            sizes = axis_sizes(self, name, value=getattr(self, name), dims=dims, minimum=minimum)
            object.__setattr__(self, name, sizes)
        _check_bias(self, dims=dims + 2)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise GraphError(
                f"{type(self).__name__}: {self.weight.shape[0]} output channels in {self.groups} groups do not divide"
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (O, ...) after stride, padding and dilation."""
        kernel = self.weight.shape[2:]
        channels = self.weight.shape[1] * self.groups
        name, size = type(self).__name__, format_shape(input_shape)
        if len(input_shape) != len(kernel) + 1 or input_shape[0] != channels:
            raise GraphError(
                f"{name} takes {channels} channels and {len(kernel)} axes of positions, got {format_shape(input_shape)}"
            )
        extent = _conv_sizes(input_shape[1:], kernel, self.stride, self.padding, self.dilation)
        if min(extent) < 1:
            raise GraphError(f"{name}: kernel {format_shape(kernel)} does not fit an input of {size}; the output would be empty")
        return (self.weight.shape[0], *extent)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv1d(_Conv):
    """Cross-correlation over one axis, as in torch. `weight` is (O, I / groups, k)."""

    weight: Array
    bias: Array | None = None
    stride: tuple[int] = (1,)
    padding: tuple[int] = (0,)
    dilation: tuple[int] = (1,)
    groups: int = 1
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        self._check(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(_Conv):
    """Cross-correlation over two axes, as in torch. `weight` is (O, I / groups, kH, kW)."""

    weight: Array
    bias: Array | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        self._check(2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Part):
    """One weight per input: `y = w * x + b`. `weight` and `bias` broadcast to the input shape."""

    weight: Array
    bias: Array | None = None
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        self._freeze()

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        for name in ("weight", "bias"):
            value = getattr(self, name)
            if value is not None:
                check_broadcast(f"Scale.{name}", value.shape, input_shape)
        return input_shape


class _Pool(Part):
    kernel_size: Any
    stride: Any
    padding: Any

    def __post_init__(self) -> None:
        dims = 2 if isinstance(self.kernel_size, (int, np.integer)) else len(self.kernel_size)
        stride = self.kernel_size if self.stride is None else self.stride
        for name, value, minimum in (("kernel_size", self.kernel_size, 1), ("stride", stride, 1), ("padding", self.padding, 0)):
            object.__setattr__(self, name, axis_sizes(self, name, value=value, dims=dims, minimum=minimum))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, ...) after pooling; positions that fill no whole window are dropped, as in torch."""
        name, size = type(self).__name__, format_shape(input_shape)
        if len(input_shape) != len(self.kernel_size) + 1:
            raise GraphError(f"{name} takes channels and {len(self.kernel_size)} axes, got {size}")
        extent = _conv_sizes(input_shape[1:], self.kernel_size, self.stride, self.padding, (1,) * len(self.kernel_size))
        if min(extent) < 1:
            raise GraphError(f"{name}: window {format_shape(self.kernel_size)} does not fit an input of {size}")
        return (input_shape[0], *extent)


@dataclass(frozen=True, kw_only=True, eq=False)
class SumPool(_Pool):
    """Sum over windows; zeros are added at the border. One or two axes, by the length of `kernel_size`."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    padding: tuple[int, ...] | int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool(_Pool):
    """Mean over windows; padded zeros count in the mean (torch's `count_include_pad=True`)."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    padding: tuple[int, ...] | int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Part):
    """Reshape (C, H, W) to (C * H * W,) in that order."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (number of inputs,)."""
        return (int(np.prod(input_shape)),)


Synapse: TypeAlias = Dense | Conv1d | Conv2d | Scale | SumPool | AvgPool | Flatten
WEIGHTED = (Dense, Conv1d, Conv2d, Scale)
CONVS = (Conv1d, Conv2d)
POOLS = (SumPool, AvgPool)


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm(Part):
    """Batch normalisation with fixed statistics: `(x - mean) / sqrt(var + eps) * weight + bias`, each (C,).

    Kept unfolded, since pruning re-estimates the statistics; quantisation folds it.
    """

    weight: Array
    bias: Array
    mean: Array
    var: Array
    eps: float = 1e-5

    def __post_init__(self) -> None:
        self._freeze()
        shapes = {self.weight.shape, self.bias.shape, self.mean.shape, self.var.shape}
        if len(shapes) != 1 or self.weight.ndim != 1:
            raise GraphError(f"BatchNorm: weight, bias, mean and var have shapes {sorted(shapes)}, expected one (C,) for all")
        if (self.var < 0).any():
            raise GraphError("BatchNorm.var: holds negative values, expected variances")


def _check_bias(synapse: Any, dims: int) -> None:
    name = type(synapse).__name__
    if synapse.weight.ndim != dims or 0 in synapse.weight.shape:
        raise GraphError(f"{name}.weight: shape {synapse.weight.shape} given, expected {dims} axes, none of them empty")
    if synapse.bias is not None and synapse.bias.shape != synapse.weight.shape[:1]:
        raise GraphError(f"{name}.bias: shape {synapse.bias.shape} given, expected {synapse.weight.shape[:1]}")


def _conv_sizes(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
