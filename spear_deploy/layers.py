"""What can a layer be made of?

A layer is up to three parts in a row, each of which may be absent:

    sum of what its edges bring ─► synapse ─► norm ─► neuron ─► spikes (or, without a neuron, the value itself)

Axes: `C H W` channels and pixels, `I` inputs, `O` outputs; weights `(O, I)` or `(O, I / groups, kH, kW)` in torch's
orientation. Neuron parameters are scalars or arrays that broadcast to the layer's output shape, e.g. `(O, 1, 1)`.
Names are those of NIR, with the unit where there is one. Everything here is data: frozen, numpy only, arrays read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spear_deploy.errors import GraphError

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Reset: TypeAlias = Literal["value", "subtract"]

LOIHI_UNIT = 64
"""Loihi aligns thresholds and synaptic input 6 bits up: a stored integer state is 64 times the mantissa's unit."""


def _frozen(value: Any, *, what: str, integer: bool | None = None) -> Array:
    array = np.array(value)
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise GraphError(f"{what}: expected numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise GraphError(f"{what}: holds NaN or infinite values; retrain or repair the network")
    if integer and array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):
            raise GraphError(f"{what}: expected whole numbers; quantise the network first")
        array = array.astype(np.int64)
    array.setflags(write=False)
    return array


class _Part:
    """Freeze every array field; give equality by value."""

    def _freeze(self, *, integer: bool = False) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type in _ARRAY_TYPES and value is not None:
                what = f"{type(self).__name__}.{field.name}"
                object.__setattr__(self, field.name, _frozen(value, what=what, integer=integer))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]


_ARRAY_TYPES = ("Array", "Array | None")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)


def _sizes(owner: object, name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    sizes = (value,) * dims if isinstance(value, (int, np.integer)) else tuple(value)
    if len(sizes) != dims or any(int(s) != s or s < least for s in sizes):
        raise GraphError(f"{type(owner).__name__}.{name}: {value} given, expected {dims} whole numbers of at least {least}")
    return tuple(int(s) for s in sizes)


# --------------------------------------------------------------------------------------------------------- synapses


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(_Part):
    """Fully connected: `y = W x + b`. An input of shape (C, H, W) is flattened in that order.

    Attributes:
        weight: (O, I).
        bias: (O,) or None.
        weight_exponent: integer networks only: the sum is shifted by it, `(W x) << e` (or `>> -e`, towards minus infinity).
    """

    weight: Array
    bias: Array | None = None
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        self._freeze()
        _check_bias(self, dims=2)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (O,)."""
        if int(np.prod(input_shape)) != self.weight.shape[1]:
            raise GraphError(f"Dense takes {self.weight.shape[1]} inputs, got {_by(input_shape)}")
        return (self.weight.shape[0],)


class _Conv(_Part):
    weight: Array
    bias: Array | None
    stride: Any
    padding: Any
    dilation: Any
    groups: int

    def _check(self, dims: int) -> None:
        self._freeze()
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            object.__setattr__(self, name, _sizes(self, name, getattr(self, name), dims, least))
        _check_bias(self, dims=dims + 2)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise GraphError(
                f"{type(self).__name__}: {self.weight.shape[0]} output channels in {self.groups} groups do not divide"
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (O, ...) after stride, padding and dilation."""
        kernel = self.weight.shape[2:]
        channels = self.weight.shape[1] * self.groups
        name = type(self).__name__
        if len(input_shape) != len(kernel) + 1 or input_shape[0] != channels:
            raise GraphError(f"{name} takes {channels} channels and {len(kernel)} axes of positions, got {_by(input_shape)}")
        sizes = _conv_sizes(input_shape[1:], kernel, self.stride, self.padding, self.dilation)
        if min(sizes) < 1:
            raise GraphError(f"{name}: kernel {_by(kernel)} does not fit an input of {_by(input_shape)}; nothing would come out")
        return (self.weight.shape[0], *sizes)


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
class Scale(_Part):
    """One weight per input, no mixing: `y = w * x + b`. `weight` and `bias` broadcast to the input shape."""

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
                _check_broadcast(f"Scale.{name}", value.shape, input_shape)
        return input_shape


class _Pool(_Part):
    kernel_size: Any
    stride: Any
    padding: Any

    def __post_init__(self) -> None:
        dims = 2 if isinstance(self.kernel_size, (int, np.integer)) else len(self.kernel_size)
        stride = self.kernel_size if self.stride is None else self.stride
        object.__setattr__(self, "kernel_size", _sizes(self, "kernel_size", self.kernel_size, dims, 1))
        object.__setattr__(self, "stride", _sizes(self, "stride", stride, dims, 1))
        object.__setattr__(self, "padding", _sizes(self, "padding", self.padding, dims, 0))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, ...) after pooling; positions that fill no whole window are dropped, as in torch."""
        if len(input_shape) != len(self.kernel_size) + 1:
            raise GraphError(f"{type(self).__name__} takes channels and {len(self.kernel_size)} axes, got {_by(input_shape)}")
        sizes = _conv_sizes(input_shape[1:], self.kernel_size, self.stride, self.padding, (1,) * len(self.kernel_size))
        if min(sizes) < 1:
            raise GraphError(f"{type(self).__name__}: window {_by(self.kernel_size)} does not fit an input of {_by(input_shape)}")
        return (input_shape[0], *sizes)


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
class Flatten(_Part):
    """Reshape (C, H, W) to (C * H * W,) in that order."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (number of inputs,)."""
        return (int(np.prod(input_shape)),)


Synapse: TypeAlias = Dense | Conv1d | Conv2d | Scale | SumPool | AvgPool | Flatten
WEIGHTED = (Dense, Conv1d, Conv2d, Scale)
CONVS = (Conv1d, Conv2d)
POOLS = (SumPool, AvgPool)


# -------------------------------------------------------------------------------------------------------------- norm


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm(_Part):
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


# ----------------------------------------------------------------------------------------------------------- neurons


@dataclass(frozen=True, kw_only=True, eq=False)
class IF(_Part):
    """Integrate and fire. Starts at `v_reset`.

    v ← v + r · x                  no time step in it
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    r: Array = 1.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LIF(_Part):
    """Leaky integrate and fire without a synaptic current; Norse calls it LIFBox. Starts at `v_leak`.

    v ← v + dt_s / tau_s · ((r · x + v_leak) − v)          in this order of operations
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    tau_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubaLIF(_Part):
    """Leaky integrate and fire with a synaptic current; Norse calls it LIF. Starts at u = 0, `v_leak`.

    Norse's order: jump, membrane, current decay.

    u ← u + w_in · dt_s / tau_syn_s · x                    Norse itself has w_in = tau_syn_s / dt_s: a jump by x
    v ← v + dt_s / tau_mem_s · ((v_leak − v) + r · u)
    u ← u − dt_s / tau_syn_s · u                           u is recorded after this line
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    tau_mem_s: Array
    tau_syn_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LI(_Part):
    """Leaky integrator, the usual readout: a membrane which never spikes; its output is v. Starts at `v_leak`.

    v ← v + dt_s / tau_s · ((v_leak − v) + r · x)          in this order of operations
    """

    tau_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubaLI(_Part):
    """Leaky integrator with a synaptic current: the membrane of `CubaLIF`, which never spikes; its output is v."""

    tau_mem_s: Array
    tau_syn_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoihiLIF(_Part):
    """The integer neuron of the Loihi family, bit for bit. Starts at u = 0, v = `v_init`. All values are integers.

    u ← trunc(u · (4096 − decay_u) / 4096) + 64 · x                      wraps beyond ±2^23
    v ← trunc(v · (4096 − decay_v) / 4096) + u + bias                    saturates at ±(2^23 − 1)
    bias = bias_mantissa · 2^bias_exponent                               unshifted; netx and nx files mean 64 · bias
    spike where v > 64 · v_threshold, then v ← 0 ("value") or v − 64 · v_threshold ("subtract")

    Other tools' names: netx `iDecay` = decay_u, `vDecay` = decay_v, `vThMant` = v_threshold; Lava `du` = decay_u − 1,
    `dv` = decay_v. `v_threshold=None` is a readout that never spikes: its output is v.
    After a spike v rests for `refractory_steps` steps (u goes on), as in Lava's LIFRefractory.
    """

    decay_u: Array
    decay_v: Array
    v_threshold: Array | None
    bias_mantissa: Array = 0  # type: ignore[assignment]
    bias_exponent: int = 0
    v_init: Array = 0  # type: ignore[assignment]
    reset: Reset = "value"
    refractory_steps: int = 0

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        _check_reset(self)
        for name in ("decay_u", "decay_v"):
            value = getattr(self, name)
            if (value < 0).any() or (value > 4096).any():
                raise GraphError(f"LoihiLIF.{name}: {value.min()}..{value.max()} given, the format holds 0..4096")
        if self.v_threshold is not None and ((self.v_threshold < 0).any() or (self.v_threshold >= 2**17).any()):
            low, high = self.v_threshold.min(), self.v_threshold.max()
            raise GraphError(f"LoihiLIF.v_threshold: {low}..{high} given, the format holds 0..131071")
        if self.refractory_steps < 0:
            raise GraphError(f"LoihiLIF.refractory_steps: {self.refractory_steps} given, expected 0 or more")

    @property
    def bias(self) -> Array:
        """What is added to v each step: int64."""
        mantissa = self.bias_mantissa.astype(np.int64)
        return mantissa << self.bias_exponent if self.bias_exponent >= 0 else mantissa >> -self.bias_exponent


Neuron: TypeAlias = IF | LIF | CubaLIF | LI | CubaLI | LoihiLIF
FLOAT_NEURONS = (IF, LIF, CubaLIF, LI, CubaLI)
READOUTS = (LI, CubaLI)


def spikes(neuron: Neuron | None) -> bool:
    """Say whether a neuron emits spikes (a readout emits its membrane potential)."""
    if isinstance(neuron, LoihiLIF):
        return neuron.v_threshold is not None
    return neuron is not None and not isinstance(neuron, READOUTS)


# ------------------------------------------------------------------------------------------------------------- layer


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of a network: what its edges bring, weighted, normalised, and turned into spikes."""

    name: str
    synapse: Synapse | None = None
    norm: BatchNorm | None = None
    neuron: Neuron | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name == "input" or "/" in self.name:
            raise GraphError(f"layer '{self.name}': a name is not empty, not 'input' and has no '/'; rename the layer")

    @property
    def spikes(self) -> bool:
        """Whether the layer emits spikes."""
        return spikes(self.neuron)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of what the layer emits, and check that norm and neuron match it."""
        try:
            shape = input_shape if self.synapse is None else self.synapse.output_shape(input_shape)
            if self.norm is not None and self.norm.weight.shape != shape[:1]:
                raise GraphError(f"BatchNorm has {self.norm.weight.shape[0]} channels, its input {_by(shape)}")
            if self.neuron is not None:
                for name, value in parameters(self.neuron).items():
                    _check_broadcast(f"{type(self.neuron).__name__}.{name}", value.shape, shape)
        except GraphError as error:
            raise GraphError(f"layer '{self.name}': {error}") from None
        return shape


def parameters(neuron: Neuron) -> dict[str, Array]:
    """Return the array parameters of a neuron by name."""
    values = {f.name: getattr(neuron, f.name) for f in fields(neuron)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _check_neuron(neuron: Any) -> None:
    neuron._freeze()
    _check_reset(neuron)
    for name, value in parameters(neuron).items():
        # below 0 a state grows instead of fading: learnt files of others hold that, so it can be read and run
        if name.startswith("tau") and (value == 0).any():
            raise GraphError(f"{type(neuron).__name__}.{name}: holds 0 s, a time constant is above 0 s; an IF neuron has none")


def _check_reset(neuron: Any) -> None:
    if getattr(neuron, "reset", "value") not in ("value", "subtract"):
        raise GraphError(f"{type(neuron).__name__}.reset: '{neuron.reset}' given, expected 'value' or 'subtract'")


def _check_bias(synapse: Any, dims: int) -> None:
    name = type(synapse).__name__
    if synapse.weight.ndim != dims or 0 in synapse.weight.shape:
        raise GraphError(f"{name}.weight: shape {synapse.weight.shape} given, expected {dims} axes, none of them empty")
    if synapse.bias is not None and synapse.bias.shape != synapse.weight.shape[:1]:
        raise GraphError(f"{name}.bias: shape {synapse.bias.shape} given, expected {synapse.weight.shape[:1]}")


def _check_broadcast(what: str, shape: Shape, target: Shape) -> None:
    try:
        fits = np.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        fits = False
    if not fits:
        raise GraphError(f"{what} has shape {shape}, which does not spread over {_by(target)}")


def _conv_sizes(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
