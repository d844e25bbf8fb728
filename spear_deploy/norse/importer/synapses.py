"""What is one torch module without state in a graph's terms: a synapse, a norm, nothing at all, or refused?

Every function takes `where`, the module's place in the model ("module 'features.3'"), for its errors. Shapes are without time
and batch; `axes_before` counts what is in front of them when the module runs: 1 for the batch, 2 for time and batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Array, AvgPool, BatchNorm, Conv1d, Conv2d, Dense, Flatten, Shape, SumPool, Synapse
from spear_deploy.norse.cells import array, norse

nn = torch.nn

CONVS = (nn.Conv1d, nn.Conv2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.LPPool1d, nn.LPPool2d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
"""The maximum over a window: of spikes it tells whether there is one."""
FOLDED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
PLAIN = (nn.Linear, *CONVS, *TRANSPOSED, *PADS, *NORMS, *POOLS, *MAX_POOLS, *FOLDED, nn.Flatten, norse.LConv2d)
"""Modules without state that have a counterpart; a subclass counts if it keeps the forward of its base."""

SUPPORTED = (
    "Linear, Conv1d, Conv2d, LConv2d, BatchNorm1d, BatchNorm2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool, LPPool of norm 1, "
    "MaxPool of spikes, ZeroPad, Flatten, Dropout, Identity, LIFCell, LIFBoxCell, IAFCell, LICell, LIBoxCell, LILinearCell, "
    "LIFRecurrentCell, LIF, IAF, LI, LIFRecurrent, Lift, SequentialState, RecurrentSequential, Sequential, sums, torch.cat"
)

REASONS = {
    "AdaptiveMaxPool MaxPool": (
        "a maximum is understood of the spikes of neurons alone, this one is not linear; put it behind the cell, or train with "
        "AvgPool2d"
    ),
    "FractionalMaxPool LPPool3d MaxUnpool": "its windows are not those of a pool that a chip has; train with AvgPool2d",
    "CrossMapLRN GroupNorm InstanceNorm LayerNorm LocalResponseNorm RMSNorm": (
        "it normalises by each input; train with BatchNorm2d"
    ),
    "SyncBatchNorm": "convert it to BatchNorm1d or BatchNorm2d",
    "Lazy": "its sizes are not known yet; run the model once",
    "GRU LSTM RNN": "it does not spike; use LIFRecurrentCell",
    "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish PReLU RReLU ReLU SELU SiLU "
    "Sigmoid Softmax Softmin Softplus Softshrink Softsign Tanh Threshold": "it does not spike; use a cell such as LIFBoxCell",
    "MultiheadAttention Transformer": "it multiplies values with each other; use weights and cells",
    "Bilinear CosineSimilarity PairwiseDistance": "it multiplies values with each other; use Linear",
    "Embedding": "it looks numbers up; encode the data before the network",
    "Upsample Upsampling PixelShuffle PixelUnshuffle ChannelShuffle Fold Unfold": (
        "it moves values between positions; use a Conv2d, or positions of the size that the next layer needs"
    ),
    "Unflatten": "a layer's positions come from its synapse; give the network its input in that shape",
    "Loss": "it trains the network; leave it out of the model",
    "LIFAdEx LIFCorrelation LSNN": "its threshold, current or weights adapt; use LIFCell",
    "LIFEx": "its membrane is exponential; use LIFCell",
    "LIFMCRefrac LIFRefrac": "it has a refractory period; use LIFCell",
    "CobaLIF Izhikevich LIFMC": "its membrane is not that of a leaky integrator; use LIFCell",
    "CircularPad ConstantPad ReflectionPad ReplicationPad ZeroPad": "pad with zeros, over one or two axes",
    "AdaptiveAvgPool3d AvgPool3d BatchNorm3d Conv3d ConvTranspose3d": "a chip has positions over one or two axes; use Conv2d",
    "ConstantCurrentLIFEncoder PoissonEncoder PopulationEncoder SignedPoissonEncoder SpikeLatency": (
        "it makes the network's input; encode the data before the network"
    ),
    "DataParallel DistributedDataParallel": "it spreads a model over devices; give its .module",
    "SpikesToTimesDecoder": "it reads the network's output; decode after the network",
    "ParameterizedSpatial SampledSpatial SpatialReceptiveField TemporalReceptiveField": (
        "it makes its weights as it runs; put a Conv2d with these weights there"
    ),
}
"""Why a module is refused, by how its class name starts; the longest start decides."""


def refusal(module: nn.Module, where: str) -> UnsupportedError:
    """Return the error for a module without a counterpart: its place, its class, the reason, what is supported."""
    name = type(module).__name__
    return UnsupportedError(f"{where} is {name}, which has no spiking counterpart here: {reason(name)}")


def reason(name: str) -> str:
    """Return why a class of this name is refused, and what to use in its place."""
    fitting = [(len(start), why) for starts, why in REASONS.items() for start in starts.split() if name.startswith(start)]
    if not fitting and "Loss" in name:
        return REASONS["Loss"]
    return max(fitting)[1] if fitting else f"supported are {SUPPORTED}"


def by(shape: Shape) -> str:
    """Return "C x H x W"."""
    return " x ".join(str(n) for n in shape)


def _maybe(value: Any) -> Array | None:
    return None if value is None else array(value)


# ---------------------------------------------------------------------------------------------------- without state


def synapse_of(module: nn.Module, shape: Shape, where: str, *, axes_before: int) -> Synapse | BatchNorm | None:
    """Return what a module without state is; a max pool is the sum over its windows, which its neurons tell from none.

    Args:
        module: one of `PLAIN`.
        shape: of its input.
        where: its place, for errors.
        axes_before: axes in front of `shape` when it runs: 1 for the batch, 2 where time is in front of it.

    Returns:
        A synapse, a norm, or None where the module changes nothing.
    """
    if isinstance(module, FOLDED):
        return None
    if isinstance(module, nn.Flatten):
        return flatten_of(shape, module.start_dim, module.end_dim, where, axes_before=axes_before)
    if isinstance(module, nn.Linear):
        if len(shape) != 1:
            raise UnsupportedError(f"{where} is Linear on the last axis of {by(shape)} inputs; put a Flatten in front of it")
        return Dense(weight=array(module.weight), bias=_maybe(module.bias))
    if isinstance(module, norse.LConv2d):
        return _over_time_conv(module, where, axes_before)
    if axes_before != 1:
        raise UnsupportedError(f"{where} is {type(module).__name__} on time x batch x {by(shape)}; wrap it in Lift")
    if isinstance(module, CONVS):
        _check_axes(module, shape, len(module.kernel_size) + 1, where)
        return _conv(module, where)
    if isinstance(module, TRANSPOSED):
        _check_axes(module, shape, len(module.kernel_size) + 1, where)
        return _transposed(module, where)
    if isinstance(module, PADS):
        return _pad(module, shape, where)
    if isinstance(module, NORMS):
        _check_axes(module, shape, 3, where) if isinstance(module, nn.BatchNorm2d) else _check_axes(module, shape, (1, 2), where)
        return _norm(module, where)
    return _pool(module, shape, where)


def flatten_of(shape: Shape, start: int, end: int, where: str, *, axes_before: int) -> Flatten | None:
    """Return a `Flatten` of all axes of a neuron layer, None where there is one axis anyway."""
    axes = len(shape) + axes_before
    start, end = start % axes, end % axes
    if start == end:
        return None
    if (start, end) != (axes_before, axes - 1):
        raise UnsupportedError(
            f"{where} flattens axes {start} to {end} of {axes}; expected all from {axes_before} on, which keeps samples apart"
        )
    return Flatten()


def _check_axes(module: nn.Module, shape: Shape, axes: int | tuple[int, ...], where: str) -> None:
    if len(shape) not in ((axes,) if isinstance(axes, int) else axes):
        raise UnsupportedError(f"{where} is {type(module).__name__} on {by(shape)} inputs; check the axes in front of it")


def _conv(module: nn.Conv1d | nn.Conv2d, where: str) -> Synapse:
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"{where} pads by '{module.padding_mode}'; train with padding_mode='zeros'")
    weight = array(module.weight)
    padding = module.padding
    if isinstance(padding, str):
        weight, padding = _string_padding(weight, padding, module.dilation, where)
    kind = Conv1d if isinstance(module, nn.Conv1d) else Conv2d
    return kind(
        weight=weight,
        bias=_maybe(module.bias),
        stride=module.stride,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


def _transposed(module: Any, where: str) -> Synapse:
    """Return a transposed convolution of stride 1: a convolution with the kernel turned round, channels exchanged."""
    if set(module.stride) != {1}:
        raise UnsupportedError(f"{where} is {type(module).__name__} of stride {by(module.stride)}, expected 1; use Conv2d")
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    padding = tuple(r - p for r, p in zip(reach, module.padding, strict=True))
    if min(padding) < 0:
        raise UnsupportedError(f"{where} cuts off {by(module.padding)} positions, more than its kernel adds; use Conv2d")
    weight = array(module.weight)  # (I, O / groups, *kernel)
    inputs, outputs, kernel = module.in_channels // module.groups, weight.shape[1], weight.shape[2:]
    turned = np.flip(weight, tuple(range(2, weight.ndim))).reshape(module.groups, inputs, outputs, *kernel)
    weight = np.ascontiguousarray(np.swapaxes(turned, 1, 2).reshape(-1, inputs, *kernel))
    kind: Any = Conv1d if len(kernel) == 1 else Conv2d
    made: Synapse = kind(weight=weight, bias=_maybe(module.bias), padding=padding, dilation=module.dilation, groups=module.groups)
    return made


def _pad(module: Any, shape: Shape, where: str) -> Synapse:
    """Return padding with zeros: a convolution that passes every channel on, its kernel longer where the two ends differ."""
    dims = len(module.padding) // 2
    _check_axes(module, shape, dims + 1, where)
    ends = list(zip(module.padding[::2], module.padding[1::2], strict=True))[::-1]  # torch counts from the last axis
    if getattr(module, "value", 0) != 0 or min(n for end in ends for n in end) < 0:
        raise UnsupportedError(f"{where} pads by {tuple(module.padding)} with {getattr(module, 'value', 0)}; pad with zeros")
    padding = tuple(max(end) for end in ends)
    weight = np.zeros((shape[0], 1, *(2 * p - sum(end) + 1 for p, end in zip(padding, ends, strict=True))), np.float32)
    tap: Any = (slice(None), 0, *(p - end[0] for p, end in zip(padding, ends, strict=True)))
    weight[tap] = 1
    kind: Any = Conv1d if dims == 1 else Conv2d
    made: Synapse = kind(weight=weight, padding=padding, groups=shape[0])
    return made


def _string_padding(weight: Array, padding: str, dilation: Shape, where: str) -> tuple[Array, Shape]:
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
                f"{where} pads an even kernel of dilation {step} unevenly; use an odd kernel or a padding number"
            )
        front.append(odd)
    weight = np.pad(weight, [(0, 0), (0, 0), *((n, 0) for n in front)])
    return weight, tuple(step * (size - 1) // 2 for size, step in zip(weight.shape[2:], dilation, strict=True))


def _over_time_conv(module: Any, where: str, axes_before: int) -> Synapse:
    if axes_before != 2:
        raise UnsupportedError(f"{where} is LConv2d, which runs on time x batch; use Conv2d in a model of one step")
    return Conv2d(
        weight=array(module.weight)[..., 0],
        stride=module.stride[:2],
        padding=module.padding[:2],
        dilation=module.dilation[:2],
        groups=module.groups,
    )


def _norm(module: Any, where: str) -> BatchNorm:
    if module.running_mean is None:
        raise UnsupportedError(f"{where} is {type(module).__name__} without running statistics; set track_running_stats=True")
    ones, zeros = np.ones(module.num_features, np.float32), np.zeros(module.num_features, np.float32)
    return BatchNorm(
        weight=ones if module.weight is None else array(module.weight),
        bias=zeros if module.bias is None else array(module.bias),
        mean=array(module.running_mean),
        var=array(module.running_var),
        eps=float(module.eps),
    )


def _pool(module: Any, shape: Shape, where: str) -> Synapse:
    name = type(module).__name__
    dims = 2 if name.endswith("2d") else 1
    _check_axes(module, shape, dims + 1, where)
    largest = isinstance(module, MAX_POOLS)
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)):
        target = _pair(module.output_size, dims)
        out = tuple(n if size is None else size for size, n in zip(target, shape[1:], strict=True))
        if any(n % size for size, n in zip(out, shape[1:], strict=True)):
            raise UnsupportedError(f"{where} pools {by(shape[1:])} to {by(out)} by uneven windows; use sizes that divide")
        return (SumPool if largest else AvgPool)(kernel_size=tuple(n // s for s, n in zip(out, shape[1:], strict=True)))
    if largest and (module.return_indices or set(_pair(module.dilation, dims)) != {1}):
        raise UnsupportedError(f"{where} is {name} with dilation or return_indices; leave them out")
    divisor: int | None = 1
    kernel = _pair(module.kernel_size, dims)
    stride = _pair(module.stride or module.kernel_size, dims)
    if isinstance(module, (nn.LPPool1d, nn.LPPool2d)):
        if float(module.norm_type) != 1:
            raise UnsupportedError(f"{where} pools by the norm {module.norm_type}, which is not linear; use 1 or AvgPool{dims}d")
        padding = (0,) * dims
    elif largest:
        padding = _pair(module.padding, dims)
    else:
        padding, divisor = _pair(module.padding, dims), getattr(module, "divisor_override", None)
        if any(padding) and not module.count_include_pad:
            raise UnsupportedError(f"{where} leaves the padding out of the mean; set count_include_pad=True")
    sizes = zip(shape[1:], kernel, stride, padding, strict=True)
    if module.ceil_mode and any((n + 2 * p - k) % s for n, k, s, p in sizes):
        raise UnsupportedError(f"{where} pools windows that reach over the border; set ceil_mode=False")
    if divisor not in (None, 1, int(np.prod(kernel))):
        raise UnsupportedError(f"{where} divides by {divisor}; expected 1 or the size of the window")
    return (SumPool if divisor == 1 else AvgPool)(kernel_size=kernel, stride=stride, padding=padding)


def _pair(value: Any, dims: int) -> Any:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
