"""Layers from functions and tensor methods in a model's forward."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    classify,
    decode,
    scale_decoded,
    stack,
    take_maximum,
    transpose,
)
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_stateless, all_spikes
from spear_deploy.frameworks.importer.result_parts import get_attribute, get_item, get_size, pass_on, split_channels, take_values
from spear_deploy.frameworks.importer.shapes import (
    concatenate,
    flatten,
    new_zeros,
    parts_axes,
    repeat,
    reshape,
    squeeze,
    squeeze_row,
    unflatten,
    unsqueeze,
    zeros_like,
)
from spear_deploy.frameworks.importer.symbols import (
    AxisSize,
    Concat,
    Decoded,
    Merged,
    Moved,
    OneStep,
    OutputAndState,
    Reordered,
    Signal,
    State,
    Statistic,
    Still,
    Symbol,
    TensorValue,
    describe,
    list_signals,
)
from spear_deploy.frameworks.importer.voting import is_row, pool_row


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
    if any(isinstance(symbol, Statistic) for symbol in merged):
        return _call_on_statistics(call, merged)
    if isinstance(target, type) and issubclass(target, tuple):  # a state built from its parts
        return (*args, *kwargs.values())
    if args and target in _ON_ROWS and is_row(args[0]):
        _check_arguments(call, _ON_ROWS[target], args, kwargs)
        return _ON_ROWS[target](call, *args, **kwargs)
    if target in _ACCESS and not isinstance(next(iter(args), None), TensorValue):
        _check_arguments(call, _ACCESS[target], args, kwargs)
        if _ACCESS[target] in (unsqueeze, repeat, split_channels, transpose, zeros_like):
            _check_states(call, name, args)
        return _ACCESS[target](call, *args, **kwargs)
    if name.strip("_") in SCALINGS and any(isinstance(symbol, Decoded) for symbol in args):
        return scale_decoded(call, *args, **kwargs)
    if any(isinstance(symbol, TensorValue) for symbol in (*args, *kwargs.values())) and is_constant((*args, *kwargs.values())):
        return compute_tensor(call, target, args, kwargs)
    if call.name in (*SCALINGS, "add", "sub") and args and all(isinstance(symbol, (int, float, AxisSize)) for symbol in args):
        return compute_size(call, *args)
    _check_states(call, name, args)
    if target not in _MAKE or not list_signals((args, kwargs)):
        hint = DECODE if any(isinstance(symbol, Decoded) for symbol in args) else "use a module that has one"
        hint = next((hint for word, hint in _HINTS.items() if word in name), hint)
        raise UnsupportedError(
            f"{call.place} calls '{name}', which has no counterpart here: {hint.format(neuron=context.framework.example)}"
        )
    make = _MAKE[target]
    _check_arguments(call, make, args, kwargs)
    args = _prepare_arguments(call, make, args)
    kind = "add" if make is add else "sub" if make is subtract else name
    return context.unrolled.make_once((owner, kind, args, kwargs), lambda key: make(call, *key[2], **key[3]))


def _check_states(call: FunctionCall, name: str, args: tuple[Symbol, ...]) -> None:
    for symbol in args:
        if isinstance(symbol, (State, OutputAndState)):
            raise UnsupportedError(f"{call.place} computes with {describe(symbol)} by '{name}'; hand states on as they are")


def _call_on_statistics(call: FunctionCall, symbols: list[Symbol]) -> Statistic:
    """Return a number made of numbers that are taken over samples.

    Raises:
        UnsupportedError: it changes what goes on to a layer.
    """
    if not all(isinstance(symbol, (Statistic, AxisSize)) or is_constant(symbol) for symbol in symbols):
        raise UnsupportedError(
            f"{call.place} calls '{call.name}' with a number taken over samples, which differs between batches; calculate with a "
            "constant, or normalise the data before the network"
        )
    return Statistic()


def _prepare_arguments(call: FunctionCall, make: Any, args: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    """Return arguments as signals of their own, zeros for the number 0 in a sum.

    Raises:
        UnsupportedError: axes in another order, of which the function has no counterpart.
    """
    args = tuple(call.join_channels(symbol) for symbol in args)
    for symbol in args:
        if isinstance(symbol, Moved):
            raise UnsupportedError(f"{call.place} calls '{call.name}' on {describe(symbol)}; put time and batch in front first")
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


_HINTS = {
    "einsum": "multiply by weights with functional.linear(x, weight) or x @ weight.T",
    "boolean_dispatch": "a maximum that returns its places too has none; leave them out",
    "mean": DECODE,
    "sum": DECODE,
    "stack": "stack the outputs of all steps along axis 0, or use cat",
    "relu": "it acts on values that are not spikes; use a cell such as {neuron}",
    **dict.fromkeys(
        ("rand", "bernoulli", "poisson"), "it draws numbers; encode the data before the network, as --encoding bernoulli does"
    ),
    "clamp": "it is not linear; bound and encode the data before the network",
}


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
        if parts_axes(call, value, sizes):
            call.context.builder.note_parting(sizes, call.place)
            return value.signal if call.name == "unflatten" else reshape(call, value.signal, AxisSize(0), AxisSize(1), *sizes[2:])
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


def _call_as_module(kind: Callable[..., torch.nn.Module]) -> Callable[..., Signal | Concat]:
    def function(call: FunctionCall, input: Signal | Concat, *args: Any, **kwargs: Any) -> Signal | Concat:
        return add_stateless(call.context, kind(*args, **kwargs), call.make_path(), input)

    return function


def _pool_as_module(kind: Callable[..., torch.nn.Module]) -> Callable[..., Symbol]:
    def function(call: FunctionCall, input: OneStep | Decoded, *args: Any, **kwargs: Any) -> Symbol:
        return pool_row(call.context, kind(*args, **kwargs), call.make_path(), input)

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


def _pad(call: FunctionCall, input: Signal | Concat, pad: Any, mode: str = "constant", value: Any = None) -> Signal | Concat:
    """Add functional.pad with zeros."""
    axes = len(input.shape) - 1
    ends = (*pad, *(0,) * (2 * axes - len(pad)))
    if mode != "constant" or value not in (None, 0) or axes not in (1, 2) or len(ends) != 2 * axes:
        raise UnsupportedError(f"{call.place} calls 'pad' by {pad} with '{mode}'; pad positions with zeros, over one or two axes")
    kind: Any = torch.nn.ZeroPad1d if axes == 1 else torch.nn.ZeroPad2d
    return add_stateless(call.context, kind(ends), call.make_path(), input)


def _normalise(
    call: FunctionCall,
    input: Signal | Concat,
    running_mean: Symbol,
    running_var: Symbol,
    weight: Symbol = None,
    bias: Symbol = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Symbol:
    """Add the norm of functional.batch_norm."""
    tensors = [
        symbol.tensor if isinstance(symbol, TensorValue) else symbol for symbol in (running_mean, running_var, weight, bias)
    ]
    if training or tensors[0] is None or tensors[1] is None:
        raise UnsupportedError(f"{call.place} normalises by each batch; set track_running_stats=True, and call it in evaluation")
    kind: Any = torch.nn.BatchNorm2d if len(input.shape) == 3 else torch.nn.BatchNorm1d
    norm = kind(len(tensors[0]), eps=eps)
    norm.running_mean, norm.running_var = tensors[:2]
    norm.weight, norm.bias = (None if t is None else torch.nn.Parameter(t, requires_grad=False) for t in tensors[2:])
    return add_stateless(call.context, norm, call.make_path(), input)


_ACCESS: dict[Any, Callable[..., Symbol]] = {
    operator.getitem: get_item,
    getattr: get_attribute,
    "size": get_size,
    "contiguous": pass_on,
    "clone": pass_on,
    "detach": pass_on,
    "detach_": pass_on,
    "float": pass_on,
    "to": pass_on,
    "cpu": pass_on,
    "cuda": pass_on,
    "numpy": take_values,
    "tolist": take_values,
    **dict.fromkeys(("mean", torch.mean), decode("mean")),
    **dict.fromkeys(("sum", torch.sum), decode("sum")),
    **dict.fromkeys(("amax", torch.amax), decode("maximum")),
    **dict.fromkeys(("max", torch.max), take_maximum),
    **dict.fromkeys(
        (functional.softmax, functional.log_softmax, "softmax", "log_softmax", torch.softmax, torch.log_softmax), classify
    ),
    **dict.fromkeys(("argmax", torch.argmax), classify),
    **dict.fromkeys(("unsqueeze", torch.unsqueeze), unsqueeze),
    **dict.fromkeys(("repeat", "expand"), repeat),
    **dict.fromkeys((torch.split, "split", torch.functional.split, torch.chunk, "chunk"), split_channels),
    torch.zeros_like: zeros_like,
    "new_zeros": new_zeros,
    torch.stack: stack,
    **dict.fromkeys(("permute", torch.permute, "transpose", torch.transpose, "swapaxes", torch.swapaxes), transpose),
    **dict.fromkeys(("movedim", torch.movedim, "moveaxis", torch.moveaxis, "swapdims", torch.swapdims), transpose),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), concatenate),
}

_ON_ROWS: dict[Any, Callable[..., Symbol]] = {
    functional.avg_pool1d: _pool_as_module(torch.nn.AvgPool1d),
    functional.adaptive_avg_pool1d: _pool_as_module(torch.nn.AdaptiveAvgPool1d),
    **dict.fromkeys(("squeeze", torch.squeeze), squeeze_row),
}
"""Functions on neurons that stand on an axis of their own."""

TAKE_ANY_ORDER = (flatten, reshape, _relu, _dropout, linear)
"""Functions on signals whose axes are in another order than a network has them."""

_MAKE: dict[Any, Callable[..., Symbol]] = {
    **MAKERS,
    **dict.fromkeys((torch.flatten, "flatten"), flatten),
    **dict.fromkeys((torch.squeeze, "squeeze"), squeeze),
    **dict.fromkeys(("view", "reshape"), reshape),
    **dict.fromkeys(("unflatten", torch.unflatten), unflatten),
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), _relu),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    functional.alpha_dropout: _dropout,
    functional.pad: _pad,
    functional.batch_norm: _normalise,
    functional.avg_pool1d: _call_as_module(torch.nn.AvgPool1d),
    functional.avg_pool2d: _call_as_module(torch.nn.AvgPool2d),
    functional.adaptive_avg_pool1d: _call_as_module(torch.nn.AdaptiveAvgPool1d),
    functional.adaptive_avg_pool2d: _call_as_module(torch.nn.AdaptiveAvgPool2d),
    **dict.fromkeys((functional.max_pool1d, torch.max_pool1d), _call_as_module(torch.nn.MaxPool1d)),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _call_as_module(torch.nn.MaxPool2d)),
    functional.adaptive_max_pool1d: _call_as_module(torch.nn.AdaptiveMaxPool1d),
    functional.adaptive_max_pool2d: _call_as_module(torch.nn.AdaptiveMaxPool2d),
}
