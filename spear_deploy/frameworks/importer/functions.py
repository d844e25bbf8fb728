"""Layers from functions and tensor methods in a model's forward."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.arithmetic import (
    MAKERS,
    SCALINGS,
    add,
    compute_size,
    compute_tensor,
    is_constant,
    linear,
    subtract,
)
from spear_deploy.frameworks.importer.axis_order import make_refusal as make_order_refusal
from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.decoding import (
    DECODE,
    MaximumAndPlaces,
    classify,
    decode,
    get_shape,
    leave_out,
    scale_decoded,
    stack,
    take_last,
    take_maximum,
    transpose,
)
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_part, add_stateless, all_spikes
from spear_deploy.frameworks.importer.symbols import (
    MERGED,
    AxisSize,
    BatchFirst,
    Channels,
    Concat,
    Decoded,
    Grouped,
    Merged,
    OneStep,
    OutputAndState,
    Reordered,
    Signal,
    State,
    StepInputs,
    Still,
    Symbol,
    SymbolShape,
    TensorValue,
    describe,
    list_signals,
    shifted_by,
)
from spear_deploy.frameworks.importer.synapses import to_flatten
from spear_deploy.network.graph import INPUT
from spear_deploy.util.number_format import format_shape


def call_function(context: TraceContext, target: Any, owner: str, args: tuple[Symbol, ...], kwargs: dict[str, Symbol]) -> Symbol:
    """Return the result of a function (an object) or of a tensor method (its name).

    Args:
        context: of the call.
        target: the function, or the name of the method.
        owner: path of the module whose forward calls it.
        args: its arguments.
        kwargs: its arguments by name.

    Raises:
        UnsupportedError: it has no counterpart.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    call = FunctionCall(context, owner, name.strip("_"))
    if "assert" in name:
        return None
    merged = [symbol for symbol in (*args, *kwargs.values()) for symbol in (symbol if type(symbol) is tuple else (symbol,))]
    if any(isinstance(symbol, Merged) for symbol in merged) and name not in ("getattr", "size"):
        return _call_on_merged(call, target, args, kwargs)
    if isinstance(target, type) and issubclass(target, tuple):  # a state built from its parts
        return (*args, *kwargs.values())
    if target in _ACCESS and not isinstance(next(iter(args), None), TensorValue):
        _check_arguments(call, _ACCESS[target], args, kwargs)
        return _ACCESS[target](call, *args, **kwargs)
    if name.strip("_") in SCALINGS and any(isinstance(symbol, Decoded) for symbol in args):
        return scale_decoded(call, *args, **kwargs)
    if any(isinstance(symbol, TensorValue) for symbol in (*args, *kwargs.values())) and is_constant((*args, *kwargs.values())):
        return compute_tensor(call, target, args, kwargs)
    if call.name in (*SCALINGS, "add", "sub") and args and all(isinstance(symbol, (int, float, AxisSize)) for symbol in args):
        return compute_size(call, *args)
    for symbol in args:
        if isinstance(symbol, (State, OutputAndState)):
            raise UnsupportedError(f"{call.place} computes with {describe(symbol)} by '{name}'; hand states on as they are")
    if target not in _MAKE or not list_signals((args, kwargs)):
        hint = next((hint for word, hint in _HINTS.items() if word in name), "use a module that has one")
        raise UnsupportedError(
            f"{call.place} calls '{name}', which has no counterpart here: {hint.format(neuron=context.framework.example)}"
        )
    make = _MAKE[target]
    _check_arguments(call, make, args, kwargs)
    args = _prepare_arguments(call, make, args)
    kind = "add" if make is add else "sub" if make is subtract else name
    return context.unrolled.make_once((owner, kind, args, kwargs), lambda key: make(call, *key[2], **key[3]))


def _prepare_arguments(call: FunctionCall, make: Any, args: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    """Return arguments as signals of their own, zeros for the number 0 in a sum.

    Raises:
        UnsupportedError: axes in another order, of which the function has no counterpart.
    """
    args = tuple(call.join_channels(symbol) for symbol in args)
    for symbol in args:
        if isinstance(symbol, Reordered) and make not in TAKE_ANY_ORDER:
            raise make_order_refusal(symbol, call.owner)
    return tuple(call.replace_zero(symbol, args) for symbol in args) if make is add else args


def _check_arguments(call: FunctionCall, function: Any, args: tuple[Symbol, ...], kwargs: dict[str, Symbol]) -> None:
    try:
        inspect.signature(function).bind(call, *args, **kwargs)
    except TypeError:
        stated = {"": args[1:]} if not kwargs else {f"{name}=": (value,) for name, value in kwargs.items()}
        what = ", ".join(f"{name}{describe(value).removeprefix('the constant ')}" for name in stated for value in stated[name])
        raise UnsupportedError(
            f"{call.place} calls '{call.name}' with arguments that have no counterpart here: {what}; leave them out"
        ) from None


MAX_RESULTS = 4
"""A module with a state returns its output and up to three parts of its state."""

_HINTS = {
    "boolean_dispatch": "a maximum that returns its places too has none; leave them out",
    "mean": DECODE,
    "sum": DECODE,
    "stack": "stack the outputs of all steps along axis 0, or use cat",
    "relu": "it acts on values that are not spikes; use a cell such as {neuron}",
}


# ------------------------------------------------------------------------------------------- parts of results and shapes


def _get_item(call: FunctionCall, symbol: Symbol, index: Any) -> Symbol:
    if isinstance(symbol, OutputAndState) and isinstance(index, int) and 0 <= index < MAX_RESULTS:
        return symbol.output if index == 0 else symbol.state
    if isinstance(symbol, State):
        return symbol
    if (last := take_last(call, symbol, index)) is not None:
        return last
    if isinstance(symbol, dict) or (isinstance(symbol, tuple) and isinstance(index, (int, slice))):
        return symbol[index]
    if isinstance(symbol, StepInputs) and isinstance(index, int):
        age = call.context.unrolled.step - index
        if age < 0:
            raise UnsupportedError(
                f"{call.place} takes the input of step {index} in step {call.context.unrolled.step}; take x[t] in step t"
            )
        return shifted_by(symbol.signal, age)
    if isinstance(symbol, SymbolShape) and isinstance(index, (int, slice)):
        return symbol.sizes[index]
    if isinstance(symbol, Signal) and (picked := _pick_channels(symbol, index, call.axes_before)) is not None:
        return picked
    is_input = isinstance(symbol, StepInputs) or (isinstance(symbol, Signal) and symbol.name == INPUT)
    slices = [part for part in (index if isinstance(index, tuple) else ()) if isinstance(part, slice)]
    if any(part.step not in (None, 1) for part in slices):
        expected = "take channels that lie side by side"
    elif is_input and any(part != slice(None) for part in slices):
        expected = f"its shape here is {format_shape(symbol.shape)}; give another input shape, or take channels that it has"
    elif is_input and isinstance(index, tuple) and isinstance(index[-1], int):
        expected = "let time be its first axis, x[t], or its second, x[:, t]"
    else:
        expected = "return all steps, channels and positions"
    raise UnsupportedError(f"{call.place} takes [{_format_index(index)}] of {describe(symbol)}; {expected}")


def _pick_channels(signal: Signal, index: Any, axes_before: int) -> Channels | None:
    """Return the channels that an index takes of a signal; None where it takes anything else."""
    parts, count = list(index) if isinstance(index, tuple) else [index], axes_before + len(signal.shape)
    if ... in parts:
        where = parts.index(...)
        parts[where : where + 1] = [slice(None)] * (count - len(parts) + 1)
    others = [part for axis, part in enumerate(parts) if axis != axes_before]
    if len(parts) <= axes_before or not isinstance(parts[axes_before], slice) or any(part != slice(None) for part in others):
        return None
    try:
        start, stop, step = parts[axes_before].indices(signal.shape[0])
    except TypeError:
        return None
    return Channels(signal, start, stop) if step == 1 and start < stop else None


def _split(
    call: FunctionCall, value: Symbol, size: Any = None, dim: int = 0, *, split_size: Any = None, chunks: Any = None
) -> tuple[Channels, ...]:
    """Return parts of the channels: of `split` by the size of each or of all, of `chunk` by their number."""
    size = next((number for number in (size, split_size, chunks) if number is not None), None)
    if not isinstance(value, Signal) or dim % (call.axes_before + len(value.shape)) != call.axes_before:
        raise UnsupportedError(
            f"{call.place} splits {describe(value)} along axis {dim}; only channels, axis {call.axes_before}, can be"
        )
    if not all(isinstance(number, int) and number > 0 for number in (size if isinstance(size, tuple) else (size,))):
        raise UnsupportedError(f"{call.place} calls '{call.name}' by {describe(size)}; expected whole numbers from 1 on")
    channels = value.shape[0]
    length = -(-channels // size) if call.name == "chunk" else size
    starts = np.cumsum([0, *size]).tolist() if isinstance(size, tuple) else [*range(0, channels, length), channels]
    if starts[-1] != channels:
        raise UnsupportedError(f"{call.place} splits {channels} channels into {starts[-1]}; give the input another shape")
    return tuple(Channels(value, start, stop) for start, stop in pairwise(starts))


def _format_index(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ", ".join("..." if part is ... else _format_slice(part) if isinstance(part, slice) else str(part) for part in parts)


def _format_slice(part: slice) -> str:
    start, stop, step = ("" if number is None else str(number) for number in (part.start, part.stop, part.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _get_attribute(call: FunctionCall, symbol: Symbol, name: str, *default: Symbol) -> Symbol:
    if isinstance(symbol, State):
        return symbol
    if isinstance(symbol, MaximumAndPlaces) and name in symbol._fields:
        return getattr(symbol, name)
    if name == "shape" and (shape := get_shape(call, symbol)) is not None:
        return shape
    if isinstance(symbol, (tuple, BatchFirst, Decoded)):
        raise UnsupportedError(
            f"{call.place} reads '.{name}' of the outputs of all steps, which has no counterpart here: {DECODE}"
        )
    raise UnsupportedError(f"{call.place} reads '.{name}' of {describe(symbol)}, which has no counterpart here; keep to modules")


def _get_size(call: FunctionCall, value: Symbol, axis: int | None = None) -> Symbol:
    shape = get_shape(call, value)
    if shape is None:
        raise UnsupportedError(f"{call.place} takes the size of {describe(value)}; take that of the input")
    return shape if axis is None else shape.sizes[axis]


def _pass_on(call: FunctionCall, value: Symbol, *args: Symbol, **kwargs: Symbol) -> Symbol:
    return value


# ----------------------------------------------------------------------------------------------------- shape and pools


def _call_on_merged(call: FunctionCall, target: Any, args: tuple[Symbol, ...], kwargs: dict[str, Symbol]) -> Symbol:
    """Return the result of a function on time and batch in one axis, or on what is repeated: that on each step; or part both."""

    def strip(symbol: Symbol) -> Symbol:
        return tuple(map(strip, symbol)) if type(symbol) is tuple else symbol.signal if isinstance(symbol, Merged) else symbol

    value = args[0]
    if isinstance(value, Merged) and call.name in ("view", "reshape", "unflatten"):
        rest = (*args[1:], *kwargs.values())
        sizes = rest[-1] if isinstance(rest[-1], tuple) else rest
        if call.name == "unflatten" and rest[0] != 0:
            sizes = ()
        if _parts_axes(call, value, sizes):
            return (
                value.signal if call.name == "unflatten" else _reshape(call, value.signal, AxisSize(0), AxisSize(1), *sizes[2:])
            )
        if sizes and isinstance(sizes[0], AxisSize):
            args = (value, AxisSize(0), *sizes[1:])
    inner = replace(call.context, form="step")
    result = call_function(inner, target, call.owner, strip(args), {key: strip(arg) for key, arg in kwargs.items()})
    merged = [symbol for symbol in (*args, *kwargs.values()) for symbol in (symbol if type(symbol) is tuple else (symbol,))]
    stills = [isinstance(symbol, Still) for symbol in merged if list_signals(symbol)]
    if any(stills) and not all(stills):
        raise UnsupportedError(
            f"{call.place} calls '{call.name}' on a tensor without an axis of time and one with it; repeat the first over time"
        )
    return Still(result) if any(stills) else Merged(result)


def _parts_axes(call: FunctionCall, value: Merged, sizes: tuple[Symbol, ...]) -> bool:
    """Return whether sizes part time and batch, in the order that they have."""
    if len(sizes) < 2:
        return False
    if sizes[0] == AxisSize(1) or sizes[1] == AxisSize(0):
        raise UnsupportedError(
            f"{call.place} parts time and batch in the other order than they have, which mixes samples with steps; part them in "
            "the order in which they were merged"
        )
    if sizes[0] == AxisSize(0) or sizes[1] == AxisSize(1) or call.name == "unflatten":
        return True
    rest = sizes[2:]
    fits = all(isinstance(size, int) and size > 0 for size in rest) and int(np.prod(rest)) == int(np.prod(value.shape))
    return fits and all(isinstance(size, int) for size in sizes[:2]) and sizes[1:] != tuple(value.shape)


def _merge_axes(call: FunctionCall, value: Signal | Concat, wanted: tuple[Symbol, ...]) -> Merged | None:
    """Return a signal over time with time and batch in one axis, where a view makes one of them."""
    rest = wanted[1:]
    if call.axes_before != 2 or not wanted or any(isinstance(size, AxisSize) for size in rest):
        return None
    fits = -1 not in rest and len(rest) > 0 and int(np.prod(rest)) == int(np.prod(value.shape))
    if wanted[0] != AxisSize(MERGED) and not (isinstance(wanted[0], int) and fits):
        return None
    step = FunctionCall(replace(call.context, form="step"), call.owner, call.name)
    return Merged(_reshape(step, value, AxisSize(0), *rest))


def _flatten(call: FunctionCall, value: Signal | Concat, start_dim: int = 0, end_dim: int = -1) -> Signal | Concat | Merged:
    if call.axes_before == 2 and (start_dim, end_dim) == (0, 1):
        return Merged(value)
    part = to_flatten(value.shape, start_dim, end_dim, call.place, axes_before=call.axes_before)
    return add_part(call.context, call.make_path(), value, part)


def _squeeze(call: FunctionCall, value: Signal | Concat, dim: int | tuple[int, ...] | None = None) -> Signal | Concat:
    """Leave axes of one position out; a signal that has no other positions becomes one axis of channels."""
    count, first = call.axes_before + len(value.shape), call.axes_before + 1
    axes = range(count) if dim is None else [axis % count for axis in (dim if isinstance(dim, tuple) else (dim,))]
    if any(axis < first for axis in axes) and (dim is not None or value.shape[0] == 1):
        raise UnsupportedError(f"{call.place} calls 'squeeze' on axis {dim}; leave out axes of positions alone, from {first} on")
    return leave_out(call, value, [axis - call.axes_before for axis in axes])


def _cat(call: FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0, axis: int | None = None) -> Symbol:
    """Concatenate signals along their channels, or the outputs of all steps along time."""
    dim = dim if axis is None else axis
    if tensors and all(isinstance(symbol, OneStep) and symbol.axis == dim for symbol in tensors):
        return stack(call, tuple(symbol.output for symbol in tensors), dim)
    tensors = tuple(call.join_channels(symbol) for symbol in tensors)
    if not all(isinstance(symbol, (Signal, Concat)) for symbol in tensors):
        what = next(describe(symbol) for symbol in tensors if not isinstance(symbol, (Signal, Concat)))
        raise UnsupportedError(f"{call.place} puts {what} beside others; expected the outputs of modules")
    before, shapes = call.axes_before, {symbol.shape[1:] for symbol in tensors}
    if len(shapes) > 1 or dim % (before + 1 + len(next(iter(shapes)))) != before:
        listed = ", ".join(format_shape(symbol.shape) for symbol in tensors)
        raise UnsupportedError(
            f"{call.place} puts {listed} values side by side along axis {dim}; only channels, axis {before}, can be"
        )
    parts = tuple(list_signals(tensors))
    return Concat(parts) if len(parts) > 1 else parts[0]


def _zeros_like(call: FunctionCall, value: Signal, *args: Symbol, **kwargs: Symbol) -> Signal:
    return call.context.builder.make_zeros(value.shape)


def _new_zeros(call: FunctionCall, value: Symbol, *sizes: Symbol, **kwargs: Symbol) -> Symbol:
    """Return zeros of batch x a shape."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = call.axes_before
    if not all(isinstance(n, int) for n in wanted[before:]) or not all(isinstance(n, AxisSize) for n in wanted[:before]):
        raise UnsupportedError(f"{call.place} makes zeros of another shape than batch x a layer's; start from zeros_like(...)")
    return call.context.builder.make_zeros(wanted[before:])


def _unsqueeze(call: FunctionCall, value: Symbol, dim: int = 0) -> Symbol:
    """Put a time axis before the output of one step, or an axis of one position into the input."""
    if call.context.form != "layers" and isinstance(value, (Signal, Concat)):
        dim %= len(value.shape) + 2
        if isinstance(value, Signal) and value.name == INPUT and dim >= 1:
            return call.context.builder.view_input(value, (*value.shape[: dim - 1], 1, *value.shape[dim - 1 :]), call.place)
        if dim <= 1:
            return OneStep(value, dim)
    raise UnsupportedError(
        f"{call.place} calls 'unsqueeze', which has no counterpart here: keep to one axis of channels in front; an input of one "
        "step is repeated over time alone, x.unsqueeze(0).repeat(T, 1, ...)"
    )


def _repeat(call: FunctionCall, value: Symbol, *sizes: Symbol) -> Symbol:
    """Refuse what `repetition` has not taken off."""
    raise UnsupportedError(f"{call.place} calls '{call.name}', which has no counterpart here: repeat the input over time alone")


def _complete(sizes: tuple[Symbol, ...], count: int) -> Any:
    """Return sizes of axes with the one that is -1 worked out, None where they do not hold that many values."""
    if not all(isinstance(size, int) and size != 0 for size in sizes):
        return None
    known = int(np.prod([size for size in sizes if size > 0]))
    whole = tuple(count // known if size < 0 else size for size in sizes)
    return whole if int(np.prod(whole)) == count else None


def _reshape(call: FunctionCall, value: Signal | Concat, *sizes: Symbol) -> Signal | Concat | Grouped | Merged:
    """Flatten by view or reshape, give the input another shape, or make groups to be added up; any other shape is refused."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = call.axes_before
    if (merged := _merge_axes(call, value, wanted)) is not None:
        return merged
    leading, rest = wanted[:before], wanted[before:]
    count = int(np.prod(value.shape))
    if before == 1 and len(sizes) == 2 and isinstance(leading[0], int) and leading[0] > 0 and rest in ((-1,), (count,)):
        call.note(f"{call.place} takes {leading[0]} in {call.name}({leading[0]}, ...) to be the number of samples")
        leading = (AxisSize(0),)
    kept = all(size == AxisSize(axis) or size == -1 for axis, size in enumerate(leading))
    if kept and wanted.count(-1) <= 1 and (shape := _complete(rest, count)) is not None and len(shape) > 1:
        if shape == value.shape:
            return value
        if isinstance(value, Signal) and value.name == INPUT and call.context.form != "layers":
            return call.context.builder.view_input(value, shape, call.place)
        if isinstance(value, Signal) and len(value.shape) == 1 and len(shape) == 2:
            return Grouped(value, shape)
    if kept and isinstance(value, Signal) and len(rest) == 1 and isinstance(rest[0], int) and rest[0] > 0:
        call.context.builder.expect(value, rest[0])
    if not kept or rest not in ((-1,), (count,)) or wanted.count(-1) > 1:
        raise UnsupportedError(
            f"{call.place} reshapes {format_shape(value.shape)} values; only flattening them all has a counterpart"
        )
    return _flatten(call, value, before)


def _call_as_module(kind: Callable[..., torch.nn.Module]) -> Callable[..., Signal | Concat]:
    def function(call: FunctionCall, input: Signal | Concat, *args: Any, **kwargs: Any) -> Signal | Concat:
        return add_stateless(call.context, kind(*args, **kwargs), call.make_path(), input)

    return function


def _dropout(call: FunctionCall, value: Signal, p: float = 0.5, training: bool = True, inplace: bool = False) -> Signal:
    if training:
        raise UnsupportedError(f"{call.place} drops values in evaluation too; call '{call.name}' with training=self.training")
    return value


def _relu(call: FunctionCall, value: Signal, inplace: bool = False) -> Signal:
    if not all_spikes(call.context, value):
        raise UnsupportedError(
            f"{call.place} calls 'relu' on values that are not spikes; use a cell such as {call.context.framework.example}"
        )
    return value


_ACCESS: dict[Any, Callable[..., Symbol]] = {
    operator.getitem: _get_item,
    getattr: _get_attribute,
    "size": _get_size,
    "contiguous": _pass_on,
    "clone": _pass_on,
    "detach": _pass_on,
    "float": _pass_on,
    "to": _pass_on,
    **dict.fromkeys(("mean", torch.mean), decode("mean")),
    **dict.fromkeys(("sum", torch.sum), decode("sum")),
    **dict.fromkeys(("amax", torch.amax), decode("maximum")),
    **dict.fromkeys(("max", torch.max), take_maximum),
    **dict.fromkeys(
        (functional.softmax, functional.log_softmax, "softmax", "log_softmax", torch.softmax, torch.log_softmax), classify
    ),
    **dict.fromkeys(("argmax", torch.argmax), classify),
    **dict.fromkeys(("unsqueeze", torch.unsqueeze), _unsqueeze),
    **dict.fromkeys(("repeat", "expand"), _repeat),
    **dict.fromkeys((torch.split, "split", torch.functional.split, torch.chunk, "chunk"), _split),
    torch.zeros_like: _zeros_like,
    "new_zeros": _new_zeros,
    torch.stack: stack,
    **dict.fromkeys(("permute", torch.permute, "transpose", torch.transpose, "swapaxes", torch.swapaxes), transpose),
    **dict.fromkeys(("movedim", torch.movedim, "moveaxis", torch.moveaxis, "swapdims", torch.swapdims), transpose),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
}

TAKE_ANY_ORDER = (_flatten, _reshape, _relu, _dropout, linear)
"""Functions on signals whose axes are in another order than a network has them."""

_MAKE: dict[Any, Callable[..., Symbol]] = {
    **MAKERS,
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys((torch.squeeze, "squeeze"), _squeeze),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), _relu),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    functional.alpha_dropout: _dropout,
    functional.avg_pool1d: _call_as_module(torch.nn.AvgPool1d),
    functional.avg_pool2d: _call_as_module(torch.nn.AvgPool2d),
    functional.adaptive_avg_pool1d: _call_as_module(torch.nn.AdaptiveAvgPool1d),
    functional.adaptive_avg_pool2d: _call_as_module(torch.nn.AdaptiveAvgPool2d),
    **dict.fromkeys((functional.max_pool1d, torch.max_pool1d), _call_as_module(torch.nn.MaxPool1d)),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _call_as_module(torch.nn.MaxPool2d)),
    functional.adaptive_max_pool1d: _call_as_module(torch.nn.AdaptiveMaxPool1d),
    functional.adaptive_max_pool2d: _call_as_module(torch.nn.AdaptiveMaxPool2d),
}
