"""Decoding of a network's outputs at the end of a forward: means, sums and maxima over time, and what follows them.

The network gives its output in every step, so decoding is taken off, and a note says so. A mean over time commutes with a linear
layer: fc(mean of x[t]) = mean of fc(x[t]), which is then a layer of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_part
from spear_deploy.frameworks.importer.symbols import BatchFirst, Concat, Decoded, Signal, Symbol, describe
from spear_deploy.frameworks.importer.synapses import to_flatten, to_synapse
from spear_deploy.frameworks.importer.trace import LOOPS

DECODE = "return the outputs of all steps, and decode after the network"


class MaximumAndPlaces(NamedTuple):
    """What torch.max over an axis returns."""

    values: Symbol
    indices: Symbol


def stack(call: FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0) -> Symbol:
    """Keep the outputs of a loop's steps in order."""
    if call.context.form not in (*LOOPS, "repeat") or dim not in (0, 1):
        raise UnsupportedError(f"{call.place} stacks outputs along axis {dim}; stack all steps of a loop along axis 0 or 1")
    return BatchFirst(tensors) if dim else tensors


def transpose(call: FunctionCall, value: Symbol, *axes: Any) -> Symbol:
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


def decode(how: str) -> Callable[..., Symbol]:
    """Return the function that takes the mean, sum or maximum of the outputs of all steps, or a mean over positions."""

    def function(
        call: FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None
    ) -> Symbol:
        axes = axis if dim is None else dim
        axes = axes if isinstance(axes, tuple) else (axes,)
        is_signal = isinstance(value, (Signal, Concat))
        is_whole = isinstance(value, (tuple, BatchFirst)) or (is_signal and call.context.form == "layers")
        time_axis = {tuple: 0, BatchFirst: 1}.get(type(value), call.context.framework.time_axis)
        if is_whole and axes == (time_axis,) and not keepdim:
            return Decoded(value.outputs if isinstance(value, BatchFirst) else value, how, is_mean=how == "mean")
        if how == "mean" and is_signal and _are_positions(axes, value, call.axes_before):
            key = (call.owner, "mean", value, keepdim)
            return call.context.unrolled.make_once(key, lambda key: _average_positions(call, *key[2:]))
        raise UnsupportedError(f"{call.place} calls '{call.name}', which has no counterpart here: {DECODE}")

    return function


def _are_positions(axes: tuple[Any, ...], value: Signal | Concat, axes_before: int) -> bool:
    """Return whether axes are all those of a signal's positions."""
    count, first = axes_before + len(value.shape), axes_before + 1
    return (
        first < count
        and all(isinstance(axis, int) for axis in axes)
        and {axis % count for axis in axes} == {*range(first, count)}
    )


def _average_positions(call: FunctionCall, value: Signal | Concat, keepdim: bool) -> Signal | Concat:
    kind: Any = torch.nn.AdaptiveAvgPool1d if len(value.shape) == 2 else torch.nn.AdaptiveAvgPool2d
    pool = to_synapse(kind(1), value.shape, call.place, axes_before=1, hint="")
    averaged = add_part(call.context, call.make_path(), value, pool)
    return averaged if keepdim else flatten_all(call, averaged)


def flatten_all(call: FunctionCall, value: Signal | Concat) -> Signal | Concat:
    """Add a layer that puts all values of a signal into one axis."""
    part = to_flatten(value.shape, call.axes_before, -1, call.place, axes_before=call.axes_before)
    return add_part(call.context, call.make_path(), value, part)


def take_maximum(call: FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Symbol:
    """Return the maximum over time, and the steps that have it."""
    maximum = decode("maximum")(call, value, dim, keepdim, axis=axis)
    return MaximumAndPlaces(maximum, replace(maximum, how="step of the maximum"))


def classify(call: FunctionCall, value: Symbol, *args: Any, **kwargs: Any) -> Symbol:
    """Return decoded outputs behind a softmax or the choice of a class.

    Raises:
        UnsupportedError: values that are not decoded over time.
    """
    if not isinstance(value, Decoded):
        what = "the outputs of all steps" if isinstance(value, (tuple, BatchFirst)) else describe(value)
        raise UnsupportedError(f"{call.place} calls '{call.name}' on {what}, which has no counterpart here: {DECODE}")
    return Decoded(value.outputs, f"{call.name} of the {value.how}")
