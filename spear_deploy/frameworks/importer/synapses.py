"""Synapses and norms from torch modules without state.

Every function takes `place`, the module's place in the model ("module 'features.3'"), for its errors. Shapes are without time
and batch; `axes_before` counts the axes in front of them when the module runs: 1 for the batch, 2 for time and batch.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework
from spear_deploy.network import (
    Array,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Flatten,
    Shape,
    SumPool,
    Synapse,
    Weights,
    make_sparse,
    store_compactly,
)
from spear_deploy.util.number_format import format_shape

nn = torch.nn

CONVS = (nn.Conv1d, nn.Conv2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
NORM_AXES = {nn.BatchNorm1d: (1, 2), nn.BatchNorm2d: (3,)}
POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.LPPool1d, nn.LPPool2d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
"""The maximum over a window: of spikes, whether it holds one."""
FOLDED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
PLAIN = (nn.Linear, *CONVS, *TRANSPOSED, *PADS, *NORMS, *POOLS, *MAX_POOLS, *FOLDED, nn.Flatten)
"""Modules without state that have a counterpart; a subclass counts if it keeps the forward of its base."""

QUANTIZED = ("torch.ao.", "torch.nn.quantized", "torch.nn.qat", "torch.nn.intrinsic", "torch.nn.quantizable")
"""Packages of torch whose modules hold rounded weights, under the names of those that do not."""
REASONS = {
    "AdaptiveMaxPool MaxPool": (
        "a maximum is understood of the spikes of neurons alone, this one is not linear; put it behind the cell, or train with "
        "AvgPool2d"
    ),
    "FractionalMaxPool LPPool3d MaxUnpool": "its windows are not those of a pool that a chip has; train with AvgPool2d",
    "CrossMapLRN GroupNorm InstanceNorm LayerNorm LocalResponseNorm RMSNorm": (
        "it normalises by each input; train with BatchNorm2d"
    ),
    "Lazy": "its sizes are not known yet; run the model once",
    "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish PReLU RReLU ReLU SELU SiLU "
    "Sigmoid Softmax Softmin Softplus Softshrink Softsign Tanh Threshold": "it does not spike; use a cell such as {neuron}",
    "MultiheadAttention Transformer": "it multiplies values with each other; use weights and cells",
    "Bilinear CosineSimilarity PairwiseDistance": "it multiplies values with each other; use Linear",
    "Embedding": "it looks numbers up; encode the data before the network",
    "Upsample Upsampling PixelShuffle PixelUnshuffle ChannelShuffle Fold Unfold": (
        "it moves values between positions; use a Conv2d, or positions of the size that the next layer needs"
    ),
    "Unflatten": (
        "a layer's positions come from its synapse, so that it is read on the network's input alone; give the network its input "
        "in that shape"
    ),
    "Loss": "it trains the network; leave it out of the model",
    "CircularPad ConstantPad ReflectionPad ReplicationPad ZeroPad": "pad with zeros, over one or two axes",
    "AdaptiveAvgPool3d AvgPool3d BatchNorm3d Conv3d ConvTranspose3d": "a chip has positions over one or two axes; use Conv2d",
}
"""Why a module is refused, by the beginning of its class name; the longest beginning decides. {neuron} is a cell to use."""


def make_refusal(module: nn.Module, place: str, framework: Framework) -> UnsupportedError:
    """Return the error for a module without a counterpart: its place, its class, the reason, what to use instead."""
    name, package = type(module).__name__, type(module).__module__
    if package.startswith(QUANTIZED):
        package = package.partition(".modules")[0]
        return UnsupportedError(
            f"{place} is {name} of {package}, which rounds its weights; give the model as it was in floating point, which is "
            "rounded to the integers of the chip"
        )
    known = (*PLAIN, *framework.plain)
    if type(module) not in known and name in {kind.__name__ for kind in known}:
        name = f"{name} of {package}"
    reason = explain_refusal(type(module).__name__, framework)
    return UnsupportedError(f"{place} is {name}, which has no spiking counterpart here: {reason}")


def explain_refusal(name: str, framework: Framework) -> str:
    """Return why a class of this name is refused, and what to use instead."""
    reasons = {**REASONS, **framework.reasons}
    matches = [(len(start), text) for starts, text in reasons.items() for start in starts.split() if name.startswith(start)]
    if not matches and "Loss" in name:
        return REASONS["Loss"]
    text = max(matches)[1] if matches else f"supported are {framework.supported}"
    return text.format(neuron=framework.example)


def to_array(value: Any) -> Array:
    """Return a tensor or number as numpy: float64 stays, everything else becomes float32.

    Raises:
        UnsupportedError: a tensor without values, on the device "meta", or one that the forward computes from its input.
    """
    _check_constant(value)
    tensor = torch.as_tensor(value).detach()
    if tensor.is_meta:
        raise UnsupportedError("a tensor of the model lies on the device 'meta' and holds no values; load the weights first")
    tensor = tensor.cpu()
    return tensor.numpy().copy() if tensor.dtype == torch.float64 else tensor.float().numpy().copy()


def _check_constant(value: Any) -> None:
    if isinstance(value, fx.Proxy):
        raise UnsupportedError("a parameter of the model is computed from its input; compute it from parameters alone")


def _to_weights(value: torch.Tensor) -> Weights:
    """Return the weights of a linear layer: sparse where the tensor is, or where it is large and mostly zero."""
    _check_constant(value)
    if value.layout == torch.strided:
        return store_compactly(to_array(value))
    from scipy.sparse import coo_array

    stored = value.detach().to_sparse().coalesce().cpu()
    return make_sparse(coo_array((to_array(stored.values()), stored.indices().numpy()), shape=tuple(value.shape)))


def _to_bias(value: Any) -> Array | None:
    return None if value is None else to_array(value)


def to_synapse(module: nn.Module, shape: Shape, place: str, *, axes_before: int, hint: str) -> Synapse | BatchNorm | None:
    """Return the counterpart of a module without state; of a max pool the sum over its windows.

    Args:
        module: one of `PLAIN`.
        shape: of its input.
        place: the module's place, for errors.
        axes_before: axes in front of `shape` when it runs: 1 for the batch, 2 where time is beside it.
        hint: how the module takes time beside the batch.

    Returns:
        A synapse, a norm, or None where the module changes nothing.
    """
    if isinstance(module, FOLDED):
        return None
    if isinstance(module, nn.Flatten):
        return to_flatten(shape, module.start_dim, module.end_dim, place, axes_before=axes_before)
    if isinstance(module, nn.Linear):
        if len(shape) != 1:
            count, width = math.prod(shape), int(module.in_features)
            raise UnsupportedError(
                f"{place} is Linear on the last axis of {format_shape(shape)} inputs; put a Flatten in front of it"
                if width in (count, shape[-1])
                else f"{place} takes {width} values, its input of {format_shape(shape)} has {count}; check the shapes"
            )
        return Dense(weight=_to_weights(module.weight), bias=_to_bias(module.bias))
    if axes_before != 1:
        raise UnsupportedError(f"{place} is {type(module).__name__} on time x batch x {format_shape(shape)}; {hint}")
    if isinstance(module, CONVS):
        _check_axes(module, shape, len(module.kernel_size) + 1, place)
        return _convert_conv(module, place)
    if isinstance(module, TRANSPOSED):
        _check_axes(module, shape, len(module.kernel_size) + 1, place)
        return _convert_transposed_conv(module, place)
    if isinstance(module, PADS):
        return _convert_pad(module, shape, place)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        axes = next((axes for kind, axes in NORM_AXES.items() if isinstance(module, kind)), (1, 2, 3))
        _check_axes(module, shape, axes, place)
        return _convert_norm(module, place)
    return _convert_pool(module, shape, place)


def to_flatten(shape: Shape, start: int, end: int, place: str, *, axes_before: int) -> Flatten | None:
    """Return a `Flatten` of all axes of a neuron layer, None where there is one axis anyway."""
    axes = len(shape) + axes_before
    start, end = start % axes, end % axes
    if start == end:
        return None
    if (start, end) != (axes_before, axes - 1):
        raise UnsupportedError(
            f"{place} flattens axes {start} to {end} of {axes}; expected all from {axes_before} on, which keeps samples apart"
        )
    return Flatten()


def _check_axes(module: nn.Module, shape: Shape, axes: int | tuple[int, ...], place: str) -> None:
    if len(shape) not in ((axes,) if isinstance(axes, int) else axes):
        raise UnsupportedError(
            f"{place} is {type(module).__name__} on {format_shape(shape)} inputs; check the axes in front of it"
        )


def _convert_conv(module: nn.Conv1d | nn.Conv2d, place: str) -> Synapse:
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"{place} pads by '{module.padding_mode}'; train with padding_mode='zeros'")
    weight = to_array(module.weight)
    padding = module.padding
    if isinstance(padding, str):
        weight, padding = _convert_named_padding(weight, padding, module.dilation, place)
    kind = Conv1d if isinstance(module, nn.Conv1d) else Conv2d
    return kind(
        weight=weight,
        bias=_to_bias(module.bias),
        stride=module.stride,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


def _convert_transposed_conv(module: Any, place: str) -> Synapse:
    """Return a transposed convolution of stride 1: a convolution with the kernel turned round, channels exchanged."""
    if set(module.stride) != {1}:
        raise UnsupportedError(
            f"{place} is {type(module).__name__} of stride {format_shape(module.stride)}, expected 1; use Conv2d"
        )
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    padding = tuple(r - p for r, p in zip(reach, module.padding, strict=True))
    if min(padding) < 0:
        raise UnsupportedError(
            f"{place} cuts off {format_shape(module.padding)} positions, more than its kernel adds; use Conv2d"
        )
    weight = to_array(module.weight)  # (I, O / groups, *kernel)
    inputs, outputs, kernel = module.in_channels // module.groups, weight.shape[1], weight.shape[2:]
    turned = np.flip(weight, tuple(range(2, weight.ndim))).reshape(module.groups, inputs, outputs, *kernel)
    weight = np.ascontiguousarray(np.swapaxes(turned, 1, 2).reshape(-1, inputs, *kernel))
    kind: Any = Conv1d if len(kernel) == 1 else Conv2d
    made: Synapse = kind(
        weight=weight, bias=_to_bias(module.bias), padding=padding, dilation=module.dilation, groups=module.groups
    )
    return made


def _convert_pad(module: Any, shape: Shape, place: str) -> Synapse:
    """Return padding with zeros: a convolution that passes every channel on, its kernel longer where the two ends differ."""
    dims = len(module.padding) // 2
    _check_axes(module, shape, dims + 1, place)
    ends = list(zip(module.padding[::2], module.padding[1::2], strict=True))[::-1]  # torch counts from the last axis
    if getattr(module, "value", 0) != 0 or min(n for end in ends for n in end) < 0:
        raise UnsupportedError(f"{place} pads by {tuple(module.padding)} with {getattr(module, 'value', 0)}; pad with zeros")
    padding = tuple(max(end) for end in ends)
    weight = np.zeros((shape[0], 1, *(2 * p - sum(end) + 1 for p, end in zip(padding, ends, strict=True))), np.float32)
    tap: Any = (slice(None), 0, *(p - end[0] for p, end in zip(padding, ends, strict=True)))
    weight[tap] = 1
    kind: Any = Conv1d if dims == 1 else Conv2d
    made: Synapse = kind(weight=weight, padding=padding, groups=shape[0])
    return made


def _convert_named_padding(weight: Array, padding: str, dilation: Shape, place: str) -> tuple[Array, Shape]:
    """Return (weight, symmetric padding) of "same" or "valid".

    Torch pads an even kernel by one more on the far side; a row of zeros in front of the kernel makes that symmetric.
    """
    sizes = weight.shape[2:]
    if padding == "valid":
        return weight, tuple(0 for _ in sizes)
    front = []
    for size, step in zip(sizes, dilation, strict=True):
        odd = step * (size - 1) % 2
        if odd and step != 1:
            raise UnsupportedError(
                f"{place} pads an even kernel of dilation {step} unevenly; use an odd kernel or a padding number"
            )
        front.append(odd)
    weight = np.pad(weight, [(0, 0), (0, 0), *((n, 0) for n in front)])
    return weight, tuple(step * (size - 1) // 2 for size, step in zip(weight.shape[2:], dilation, strict=True))


def _convert_norm(module: Any, place: str) -> BatchNorm:
    if module.running_mean is None:
        raise UnsupportedError(f"{place} is {type(module).__name__} without running statistics; set track_running_stats=True")
    ones, zeros = np.ones(module.num_features, np.float32), np.zeros(module.num_features, np.float32)
    return BatchNorm(
        weight=ones if module.weight is None else to_array(module.weight),
        bias=zeros if module.bias is None else to_array(module.bias),
        mean=to_array(module.running_mean),
        var=to_array(module.running_var),
        eps=float(module.eps),
    )


def _convert_pool(module: Any, shape: Shape, place: str) -> Synapse:
    name = type(module).__name__
    dims = 2 if name.endswith("2d") else 1
    _check_axes(module, shape, dims + 1, place)
    is_max = isinstance(module, MAX_POOLS)
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)):
        target = _per_axis(module.output_size, dims)
        out = tuple(n if size is None else size for size, n in zip(target, shape[1:], strict=True))
        if not is_max and set(shape[1:]) == {1} and max(out) > 1:
            return _repeat_value(shape[0], out)
        windows = [_find_windows(n, size) for size, n in zip(out, shape[1:], strict=True)]
        if any(window is None for window in windows):
            raise UnsupportedError(
                f"{place} pools {format_shape(shape[1:])} to {format_shape(out)} by uneven windows; use sizes that divide"
            )
        kernel, stride = zip(*(window for window in windows if window is not None), strict=True)
        return (SumPool if is_max else AvgPool)(kernel_size=kernel, stride=stride)
    if is_max and (module.return_indices or set(_per_axis(module.dilation, dims)) != {1}):
        raise UnsupportedError(f"{place} is {name} with dilation or return_indices; leave them out")
    divisor: int | None = 1
    kernel = _per_axis(module.kernel_size, dims)
    stride = _per_axis(module.stride or module.kernel_size, dims)
    if isinstance(module, (nn.LPPool1d, nn.LPPool2d)):
        if float(module.norm_type) != 1:
            raise UnsupportedError(f"{place} pools by the norm {module.norm_type}, which is not linear; use 1 or AvgPool{dims}d")
        padding = (0,) * dims
    elif is_max:
        padding = _per_axis(module.padding, dims)
    else:
        padding, divisor = _per_axis(module.padding, dims), getattr(module, "divisor_override", None)
        if any(padding) and not module.count_include_pad:
            raise UnsupportedError(f"{place} leaves the padding out of the mean; set count_include_pad=True")
    sizes = list(zip(shape[1:], kernel, stride, padding, strict=True))
    if module.ceil_mode and any((n + 2 * p - k) % s for n, k, s, p in sizes):
        if is_max:
            return _sum_past_border(shape, kernel, stride, padding)
        raise UnsupportedError(f"{place} pools windows that reach over the border; set ceil_mode=False")
    if divisor not in (None, 1, int(np.prod(kernel))):
        raise UnsupportedError(f"{place} divides by {divisor}; expected 1 or the size of the window")
    return (SumPool if divisor == 1 else AvgPool)(kernel_size=kernel, stride=stride, padding=padding)


def _sum_past_border(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Synapse:
    """Return the sum over windows of which the last reach over the far border: a convolution with zeros in front of its kernel.

    A window begins within the input or the padding in front of it, as torch has it.
    """
    further = []
    for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True):
        count = -(-(n + 2 * p - k) // s) + 1
        count -= (count - 1) * s >= n + p
        further.append(max((count - 1) * s + k - (n + 2 * p), 0))
    ones = np.ones((shape[0], 1, *kernel), np.float32)
    weight = np.pad(ones, [(0, 0), (0, 0), *((more, 0) for more in further)])
    around = tuple(p + more for p, more in zip(padding, further, strict=True))
    kind: Any = Conv1d if len(kernel) == 1 else Conv2d
    made: Synapse = kind(weight=weight, stride=stride, padding=around, groups=shape[0])
    return made


def _find_windows(n: int, size: int) -> tuple[int, int] | None:
    """Return (length, stride) of the windows of an adaptive pool from n positions to `size`, None where they are uneven.

    Window i holds the positions from floor(i · n / size) to before ceil((i + 1) · n / size), as torch has it.

    >>> _find_windows(6, 2), _find_windows(5, 2), _find_windows(4, 3), _find_windows(5, 3)
    ((3, 3), (3, 2), (2, 1), None)
    """
    starts = [i * n // size for i in range(size)]
    ends = [-(-(i + 1) * n // size) for i in range(size)]
    lengths = {end - start for start, end in zip(starts, ends, strict=True)}
    strides = {after - before for before, after in pairwise(starts)}
    if len(lengths) > 1 or len(strides) > 1 or strides == {0}:
        return None
    length = min(lengths)
    return length, min(strides, default=length)


def _repeat_value(channels: int, out: Shape) -> Synapse:
    """Return an adaptive average from one position to several: a convolution that passes the value to each of them."""
    kind: Any = Conv1d if len(out) == 1 else Conv2d
    padding = tuple(size - 1 for size in out)
    made: Synapse = kind(weight=np.ones((channels, 1, *out), np.float32), padding=padding, groups=channels)
    return made


def _per_axis(value: Any, dims: int) -> Any:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
