"""Layers from functions and tensor methods in a model's forward."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.modules import add_part, add_stateless, all_spikes, join
from spear_deploy.frameworks.importer.symbols import (
    AxisSize,
    BatchFirst,
    Concat,
    Decoded,
    OutputAndState,
    RepeatedInput,
    Signal,
    State,
    StepInputs,
    Symbol,
    SymbolShape,
    describe,
    list_signals,
    name_module,
    shifted_by,
)
from spear_deploy.frameworks.importer.synapses import to_flatten
from spear_deploy.frameworks.importer.trace import LOOPS
from spear_deploy.network import Scale
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
    call = _FunctionCall(context, owner, name.strip("_"))
    if "assert" in name:
        return None
    if isinstance(target, type) and issubclass(target, tuple):  # a state built from its parts
        return (*args, *kwargs.values())
    if target in _ACCESS:
        return _ACCESS[target](call, *args, **kwargs)
    for symbol in args:
        if isinstance(symbol, (State, OutputAndState)):
            raise UnsupportedError(f"{call.place} computes with {describe(symbol)} by '{name}'; hand states on as they are")
    if target not in _MAKE or not list_signals((args, kwargs)):
        hint = next((hint for word, hint in _HINTS.items() if word in name), "use a module that has one")
        raise UnsupportedError(
            f"{call.place} calls '{name}', which has no counterpart here: {hint.format(neuron=context.framework.example)}"
        )
    make = _MAKE[target]
    try:
        inspect.signature(make).bind(call, *args, **kwargs)
    except TypeError:
        raise UnsupportedError(
            f"{call.place} calls '{name}' with arguments that have no counterpart here: {kwargs or args[1:]}"
        ) from None
    if make is _add:
        args = tuple(call.replace_zero(symbol, args) for symbol in args)
    kind = "add" if make is _add else "sub" if make is _subtract else name
    return context.unrolled.make_once((owner, kind, args, kwargs), lambda key: make(call, *key[2], **key[3]))


@dataclass(frozen=True)
class _FunctionCall:
    """A call of a function: its context, the path of the module that makes it, the function's name."""

    context: TraceContext
    owner: str
    name: str

    @property
    def place(self) -> str:
        """The module, for errors."""
        return name_module(self.owner)

    @property
    def axes_before(self) -> int:
        """Axes in front of a neuron's."""
        return self.context.axes_before

    def note(self, text: str) -> None:
        """Remember an assumption for the user."""
        if text not in self.context.builder.notes:
            self.context.builder.notes.append(text)

    def make_path(self, suffix: str = "") -> str:
        """Name a layer after module and function."""
        return ".".join(part for part in (self.owner, self.name, suffix) if part)

    def add_layer(self, *sources: Signal | Concat, suffix: str = "", **parts: Any) -> Signal:
        """Add a layer named after module and function."""
        path = self.make_path(suffix)
        return self.context.builder.add_layer(path, *(join(self.context, source, path) for source in sources), **parts)

    def replace_zero(self, symbol: Symbol, args: tuple[Symbol, ...]) -> Symbol:
        """Return a signal of zeros, shaped as the first signal of `args`, in place of the number 0."""
        signals = [other for other in args if isinstance(other, (Signal, Concat))]
        is_zero = isinstance(symbol, (int, float)) and symbol == 0
        return self.context.builder.make_zeros(signals[0].shape) if is_zero and signals else symbol


MAX_RESULTS = 4
"""A module with a state returns its output and up to three parts of its state."""

_HINTS = {
    "boolean_dispatch": "a maximum that returns its places too has none; leave them out",
    "mean": "return the outputs of all steps, and decode after the network",
    "sum": "return the outputs of all steps, and decode after the network",
    "softmax": "return the outputs of all steps, and decode after the network",
    "stack": "stack the outputs of all steps along axis 0, or use cat",
    "relu": "it acts on values that are not spikes; use a cell such as {neuron}",
}


# ------------------------------------------------------------------------------------------- parts of results and shapes


def _get_item(call: _FunctionCall, symbol: Symbol, index: Any) -> Symbol:
    if isinstance(symbol, OutputAndState) and isinstance(index, int) and 0 <= index < MAX_RESULTS:
        return symbol.output if index == 0 else symbol.state
    if isinstance(symbol, State):
        return symbol
    if isinstance(symbol, (tuple, dict)):
        return symbol[index]
    if isinstance(symbol, StepInputs) and isinstance(index, int):
        age = call.context.unrolled.step - index
        if age < 0:
            raise UnsupportedError(
                f"{call.place} takes the input of step {index} in step {call.context.unrolled.step}; take x[t] in step t"
            )
        return shifted_by(symbol.signal, age)
    if isinstance(symbol, SymbolShape) and isinstance(index, int):
        before = call.axes_before
        index %= before + len(symbol.signal.shape)
        return AxisSize(index) if index < before else symbol.signal.shape[index - before]
    raise UnsupportedError(
        f"{call.place} takes [{_format_index(index)}] of {describe(symbol)}; return all steps, channels and positions"
    )


def _format_index(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ", ".join("..." if part is ... else ":" if part == slice(None) else str(part) for part in parts)


def _get_attribute(call: _FunctionCall, symbol: Symbol, name: str, *default: Symbol) -> Symbol:
    if isinstance(symbol, State):
        return symbol
    if isinstance(symbol, (Signal, Concat)) and name == "shape":
        return SymbolShape(symbol)
    raise UnsupportedError(f"{call.place} reads '.{name}' of {describe(symbol)}, which has no counterpart here; keep to modules")


def _get_size(call: _FunctionCall, value: Symbol, axis: int | None = None) -> Symbol:
    return SymbolShape(value) if axis is None else _get_item(call, SymbolShape(value), axis)


def _pass_on(call: _FunctionCall, value: Symbol, *args: Symbol, **kwargs: Symbol) -> Symbol:
    return value


# --------------------------------------------------------------------------------------------------------- arithmetic


def _add(call: _FunctionCall, a: Symbol, b: Symbol) -> Signal:
    if not (isinstance(a, (Signal, Concat)) and isinstance(b, (Signal, Concat))):
        raise UnsupportedError(f"{call.place} adds {describe(a)} and {describe(b)}; expected the outputs of two modules")
    if a.shape != b.shape:
        raise UnsupportedError(
            f"{call.place} adds {format_shape(a.shape)} and {format_shape(b.shape)} values; expected equal shapes"
        )
    return _scale(call, a, 2.0) if a == b else call.add_layer(a, b)


def _subtract(call: _FunctionCall, a: Symbol, b: Symbol) -> Signal:
    return _add(call, a, _scale(call, b, -1.0, suffix="minus") if isinstance(b, (Signal, Concat)) else b)


def _multiply(call: _FunctionCall, a: Symbol, b: Symbol) -> Signal:
    value, factor = (a, b) if isinstance(a, (Signal, Concat)) else (b, a)
    return _scale(call, value, factor)


def _divide(call: _FunctionCall, a: Symbol, b: Symbol) -> Signal:
    if not isinstance(b, (int, float)) or b == 0:
        raise UnsupportedError(f"{call.place} divides {describe(a)} by {describe(b)}; expected a number that is not 0")
    return _scale(call, a, 1 / b)


def _scale(call: _FunctionCall, value: Symbol, factor: Symbol, suffix: str = "") -> Signal:
    if not isinstance(factor, (int, float)):
        raise UnsupportedError(f"{call.place} multiplies {describe(value)} by {describe(factor)}; expected a number")
    return call.add_layer(value, suffix=suffix, synapse=Scale(weight=np.array(factor, np.float32)))


# ----------------------------------------------------------------------------------------------------- shape and pools


def _flatten(call: _FunctionCall, value: Signal | Concat, start_dim: int = 0, end_dim: int = -1) -> Signal | Concat:
    part = to_flatten(value.shape, start_dim, end_dim, call.place, axes_before=call.axes_before)
    return add_part(call.context, call.make_path(), value, part)


def _cat(call: _FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0, axis: int | None = None) -> Signal | Concat:
    """Concatenate signals along their channels."""
    dim = dim if axis is None else axis
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


def _zeros_like(call: _FunctionCall, value: Signal, *args: Symbol, **kwargs: Symbol) -> Signal:
    return call.context.builder.make_zeros(value.shape)


def _new_zeros(call: _FunctionCall, value: Symbol, *sizes: Symbol, **kwargs: Symbol) -> Symbol:
    """Return zeros of batch x a shape."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = call.axes_before
    if not all(isinstance(n, int) for n in wanted[before:]) or not all(isinstance(n, AxisSize) for n in wanted[:before]):
        raise UnsupportedError(f"{call.place} makes zeros of another shape than batch x a layer's; start from zeros_like(...)")
    return call.context.builder.make_zeros(wanted[before:])


def _stack(call: _FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0) -> Symbol:
    """Keep the outputs of a loop's steps in order."""
    if call.context.form not in (*LOOPS, "repeat") or dim not in (0, 1):
        raise UnsupportedError(f"{call.place} stacks outputs along axis {dim}; stack all steps of a loop along axis 0 or 1")
    return BatchFirst(tensors) if dim else tensors


def _transpose(call: _FunctionCall, value: Symbol, *axes: Any) -> Symbol:
    """Exchange time and batch of the outputs of all steps."""
    order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    is_swap = set(order) == {0, 1} if call.name != "permute" else order == (1, 0, *range(2, len(order)))
    if is_swap and isinstance(value, BatchFirst):
        return value.outputs
    if is_swap and isinstance(value, tuple):
        return BatchFirst(value)
    if is_swap and isinstance(value, (Signal, Concat)) and call.context.form == "layers":
        return value
    raise UnsupportedError(
        f"{call.place} calls '{call.name}', which has no counterpart here: only time and batch of all steps can be exchanged"
    )


def _decode(how: str) -> Callable[..., Symbol]:
    """Return the function that averages or sums the outputs of all steps over time."""

    def function(call: _FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, axis: int | None = None) -> Symbol:
        axes = axis if dim is None else dim
        axes = axes[0] if isinstance(axes, tuple) and len(axes) == 1 else axes
        is_whole = isinstance(value, (tuple, BatchFirst)) or (
            isinstance(value, (Signal, Concat)) and call.context.form == "layers"
        )
        time_axis = {tuple: 0, BatchFirst: 1}.get(type(value), call.context.framework.time_axis)
        if not is_whole or axes != time_axis or keepdim:
            raise UnsupportedError(f"{call.place} calls '{call.name}', which has no counterpart here: {_HINTS['mean']}")
        return Decoded(value.outputs if isinstance(value, BatchFirst) else value, how)

    return function


def _unsqueeze(call: _FunctionCall, value: Symbol, dim: int = 0) -> Symbol:
    """Put a time axis before the input, which `repeat` or `expand` then fills with the same input in every step."""
    if (
        call.context.form != "layers"
        or dim != call.context.framework.time_axis
        or value != Signal(INPUT, getattr(value, "shape", ()))
    ):
        raise UnsupportedError(
            f"{call.place} calls 'unsqueeze', which has no counterpart here: keep to one axis of channels in front"
        )
    return RepeatedInput(value)


def _repeat(call: _FunctionCall, value: Symbol, *sizes: Symbol) -> Symbol:
    counts = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes)
    time_axis = call.context.framework.time_axis
    others = [n for axis, n in enumerate(counts) if axis != time_axis]
    if not isinstance(value, RepeatedInput) or any(n not in (1, -1) and not isinstance(n, AxisSize) for n in others):
        raise UnsupportedError(
            f"{call.place} calls '{call.name}', which has no counterpart here: repeat the input over time alone"
        )
    call.note("the forward feeds the same input in every step: the network takes it step by step")
    return value.signal


def _reshape(call: _FunctionCall, value: Signal | Concat, *sizes: Symbol) -> Signal | Concat:
    """Flatten by view or reshape; any other shape is refused."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = call.axes_before
    leading, rest = wanted[:before], wanted[before:]
    count = int(np.prod(value.shape))
    if before == 1 and len(sizes) == 2 and isinstance(leading[0], int) and leading[0] > 0 and rest in ((-1,), (count,)):
        call.note(f"{call.place} takes {leading[0]} in {call.name}({leading[0]}, ...) to be the number of samples")
        leading = (AxisSize(0),)
    kept = all(size == AxisSize(axis) or size == -1 for axis, size in enumerate(leading))
    if kept and isinstance(value, Signal) and len(rest) == 1 and isinstance(rest[0], int) and rest[0] > 0:
        call.context.builder.expect(value, rest[0])
    if not kept or rest not in ((-1,), (count,)) or wanted.count(-1) > 1:
        raise UnsupportedError(
            f"{call.place} reshapes {format_shape(value.shape)} values; only flattening them all has a counterpart"
        )
    return _flatten(call, value, before)


def _call_as_module(kind: Callable[..., torch.nn.Module]) -> Callable[..., Signal | Concat]:
    def function(call: _FunctionCall, input: Signal | Concat, *args: Any, **kwargs: Any) -> Signal | Concat:
        return add_stateless(call.context, kind(*args, **kwargs), call.make_path(), input)

    return function


def _dropout(call: _FunctionCall, value: Signal, p: float = 0.5, training: bool = True, inplace: bool = False) -> Signal:
    if training:
        raise UnsupportedError(f"{call.place} drops values in evaluation too; call '{call.name}' with training=self.training")
    return value


def _relu(call: _FunctionCall, value: Signal, inplace: bool = False) -> Signal:
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
    **dict.fromkeys(("mean", torch.mean), _decode("mean")),
    **dict.fromkeys(("sum", torch.sum), _decode("sum")),
    **dict.fromkeys(("unsqueeze", torch.unsqueeze), _unsqueeze),
    **dict.fromkeys(("repeat", "expand"), _repeat),
    torch.zeros_like: _zeros_like,
    "new_zeros": _new_zeros,
    torch.stack: _stack,
    **dict.fromkeys(("permute", torch.permute, "transpose", torch.transpose, "swapaxes", torch.swapaxes), _transpose),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
}

_MAKE: dict[Any, Callable[..., Signal | Concat]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), _divide),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), lambda call, value: _scale(call, value, -1.0)),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
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
