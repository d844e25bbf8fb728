"""Decoding of a network's outputs at the end of a forward: means, sums and maxima over time, and what follows them.

The network gives its output in every step, so decoding is taken off, and a note says so. A mean over time commutes with a linear
layer: fc(mean of x[t]) = mean of fc(x[t]), which is then a layer of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.axis_order import KEEP_CHANNELS_IN_FRONT, read_order, reorder
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_part, add_stateless
from spear_deploy.frameworks.importer.symbols import (
    MERGED,
    STEPS,
    AxisSize,
    BatchFirst,
    Channels,
    Concat,
    Decoded,
    Grouped,
    Merged,
    Moved,
    Reordered,
    Signal,
    State,
    Statistic,
    Still,
    Symbol,
    SymbolShape,
    TimeLast,
    describe,
    list_signals,
    map_decoded,
)
from spear_deploy.frameworks.importer.synapses import to_flatten
from spear_deploy.frameworks.importer.traced_model import LOOPS
from spear_deploy.network import AvgPool, SumPool
from spear_deploy.network.classes import Decision

MAX_AXES = 3
"""Channels and up to two axes of positions, over which a pool acts."""
DECODE = "return the outputs of all steps, and decode after the network"
EACH = "class of each step"
"""What a forward returns that takes the largest output of each step."""


class MaximumAndPlaces(NamedTuple):
    """What torch.max over an axis returns."""

    values: Symbol
    indices: Symbol


def stack(call: FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0) -> Symbol:
    """Keep the outputs of a loop's steps in order."""
    shape = get_shape(call, tensors)
    is_last = shape is not None and dim in (-1, len(shape.sizes) - 1)
    if call.context.form not in (*LOOPS, "repeat") or not (dim in (0, 1) or is_last):
        raise UnsupportedError(
            f"{call.place} stacks outputs along axis {dim}; stack all steps of a loop along axis 0 or 1, or behind all others"
        )
    return tensors if not dim else TimeLast(tensors) if is_last else BatchFirst(tensors)


def transpose(call: FunctionCall, value: Symbol, *axes: Any) -> Symbol:
    """Exchange time and batch of the outputs of all steps, or put the axes of a signal into another order."""
    order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    if isinstance(value, (Signal, Moved)) and (moved := _move_time(call, value, order)) is not None:
        return moved
    is_swap = set(order) == {0, 1} if call.name != "permute" else order == (1, 0, *range(2, len(order)))
    if is_swap and isinstance(value, BatchFirst) and not isinstance(value, TimeLast):
        return value.outputs
    if is_swap and isinstance(value, tuple):
        return BatchFirst(value)
    if is_swap and isinstance(value, (Signal, Concat)) and call.context.form == "layers":
        return value
    if isinstance(value, (Signal, Reordered, Channels)):
        return _reorder_axes(call, value, order)
    raise UnsupportedError(
        f"{call.place} calls '{call.name}', which has no counterpart here: only time and batch of all steps can be exchanged"
        + (f"; {KEEP_CHANNELS_IN_FRONT}" if list_signals(value) else "")
    )


def _move_time(call: FunctionCall, value: Signal | Moved, axes: tuple[Any, ...]) -> Signal | Moved | None:
    """Return a signal of one axis with its channels between time and batch, or put back behind both; None of any other order.

    As `fc(x).transpose(1, 2)` has them, for a batch norm, which takes channels as its second axis.
    """
    own = value.order if isinstance(value, Moved) else (0, 1, 2)
    signal = value.signal if isinstance(value, Moved) else value
    order = read_order(call.name, axes, 3) if call.context.form == "layers" and len(signal.shape) == 1 else None
    made = tuple(own[place] for place in order) if order is not None else ()
    if made[:2] == (0, 1) or (isinstance(value, Moved) and made[:2] == (1, 0)):
        return signal
    return Moved(signal, made) if made[1:2] == (2,) else None


def _reorder_axes(call: FunctionCall, value: Signal | Reordered | Channels, axes: tuple[Any, ...]) -> Signal | Reordered:
    """Return a signal with its channels and positions in another order; samples, and steps, stay apart.

    Raises:
        UnsupportedError: an order that is none, or that moves the batch or time.
    """
    before = call.axes_before
    order = read_order(call.name, axes, before + len(value.shape))
    leading = set(order[:before]) if order is not None else set()
    if order is None or leading != set(range(before)):
        listed = ", ".join(map(str, axes))
        raise UnsupportedError(
            f"{call.place} calls '{call.name}({listed})', which moves the batch or time; only the axes behind them can be put "
            "into another order"
        )
    return reorder(call.join_channels(value), tuple(axis - before for axis in order[before:]))


def decode(how: str) -> Callable[..., Symbol]:
    """Return the function that takes the mean, sum or maximum of the outputs of all steps, or over positions."""

    def function(
        call: FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None
    ) -> Symbol:
        axes = axis if dim is None else dim
        axes = axes if isinstance(axes, tuple) else (axes,)
        if _is_time(call, value, axes) and not keepdim:
            kind: Any = how if how in ("mean", "sum") else "other"
            return Decoded(value.outputs if isinstance(value, BatchFirst) else value, how, kind)
        if (outputs := _list_grouped(value)) and how in ("mean", "sum") and not keepdim and len(axes) == 1:
            return _add_groups_of_steps(call, how, outputs, *axes, wrap=type(value))
        if isinstance(value, Grouped) and how in ("mean", "sum") and not keepdim and len(axes) == 1:
            return call.context.unrolled.make_once(
                (call.owner, how, value, axes), lambda key: _add_groups(call, how, key[2], *key[3])
            )
        if isinstance(value, (Signal, Concat)) and (positions := _list_positions(axes, value, call.axes_before)):
            key = (call.owner, how, value, positions, keepdim)
            return call.context.unrolled.make_once(key, lambda key: _reduce_positions(call, how, *key[2:]))
        if axes == (None,) and (isinstance(value, State) or list_signals(value)):
            return Statistic()
        raise UnsupportedError(f"{call.place} calls '{call.name}', which has no counterpart here: {DECODE}")

    return function


def read_decision(decoded: Decoded) -> Decision | None:
    """Return what decides for a class where a forward decodes its outputs, None where it is no value of theirs."""
    if "step of" in decoded.how:
        return None
    if decoded.how == EACH:
        return "each"
    taken = decoded.how.rpartition(" of the ")[2]
    return "maximum" if taken == "maximum" else "last" if taken == "last" else "mean"


def _add_groups(call: FunctionCall, how: str, value: Grouped, axis: Any) -> Signal:
    """Add weights of 1, or of one over their number, which add up the groups of a signal along one of their two axes."""
    along = axis % (call.axes_before + 2) - call.axes_before if isinstance(axis, int) else -1
    if along not in (0, 1):
        raise UnsupportedError(f"{call.place} calls '{call.name}' along axis {axis}, which has no counterpart here: {DECODE}")
    rows, columns = np.divmod(np.arange(value.sizes[0] * value.sizes[1]), value.sizes[1])
    kept, size = (columns, value.sizes[0]) if along == 0 else (rows, value.sizes[1])
    weight = (kept == np.arange(value.sizes[1 - along])[:, None]) / (size if how == "mean" else 1)
    return call.context.builder.add_fixed(call.make_path(), value.signal, weight.astype(np.float32))


def _list_grouped(value: Symbol) -> tuple[Symbol, ...]:
    """Return the outputs of all steps, where all of them are groups; none of any other symbol."""
    outputs = value.outputs if type(value) is BatchFirst else value if type(value) is tuple else ()
    return outputs if all(isinstance(output, Grouped) for output in outputs) else ()


def _add_groups_of_steps(call: FunctionCall, how: str, outputs: tuple[Symbol, ...], axis: Any, *, wrap: type) -> Symbol:
    """Add up the groups of the outputs of all steps, whose axes stand behind time and batch."""
    along = axis - 1 if isinstance(axis, int) and axis > 1 else axis
    made = map_decoded(Decoded(outputs, how), call.place, lambda output: _add_groups(call, how, output, along)).outputs
    return BatchFirst(made) if wrap is BatchFirst else made


def _is_time(call: FunctionCall, value: Symbol, axes: tuple[Any, ...]) -> bool:
    """Return whether axes are that of time alone, of the outputs of all steps."""
    shape = get_shape(call, value)
    if shape is None or not all(isinstance(axis, int) for axis in axes):
        return False
    return [axis % len(shape.sizes) for axis in axes] == [n for n, size in enumerate(shape.sizes) if is_steps(call, size)]


def is_steps(call: FunctionCall, size: Symbol) -> bool:
    """Return whether a symbol is the number of steps."""
    return size == AxisSize(call.context.framework.time_axis if call.context.form == "layers" else STEPS)


def get_shape(call: FunctionCall, value: Symbol) -> SymbolShape | None:
    """Return the shape of a signal or of the outputs of all steps, None of any other symbol."""
    steps, batch = AxisSize(STEPS), AxisSize(0)
    if isinstance(value, Decoded):
        inner = get_shape(call, value.outputs)
        return inner and SymbolShape(tuple(size for size in inner.before if not is_steps(call, size)), inner.shape)
    if isinstance(value, Merged):
        return SymbolShape((AxisSize(1 - call.context.framework.time_axis if isinstance(value, Still) else MERGED),), value.shape)
    if isinstance(value, (Signal, Concat, Reordered)):
        return SymbolShape(tuple(map(AxisSize, range(call.axes_before))), value.shape)
    outputs = value.outputs if isinstance(value, BatchFirst) else value if isinstance(value, tuple) else ()
    if not outputs:
        return None
    last = outputs[-1]
    if isinstance(last, State) and len(last.layers) == 1:
        (name,) = last.layers
        last = call.context.builder.outputs[name]
    inner = get_shape(call, last) if isinstance(last, (Signal, Concat)) else None
    if isinstance(value, TimeLast):
        return inner and SymbolShape((batch,), inner.shape, (steps,))
    before = (batch, steps) if isinstance(value, BatchFirst) else (steps, batch)
    return inner and SymbolShape(before, inner.shape)


def _list_positions(axes: tuple[Any, ...], value: Signal | Concat, axes_before: int) -> tuple[int, ...]:
    """Return axes as axes of a signal's shape, if they are axes of its positions alone; none otherwise."""
    count = axes_before + len(value.shape)
    if not all(isinstance(axis, int) for axis in axes):
        return ()
    positions = tuple(sorted(axis % count - axes_before for axis in axes))
    return positions if min(positions, default=0) > 0 and len(value.shape) <= MAX_AXES else ()


def _reduce_positions(
    call: FunctionCall, how: str, value: Signal | Concat, positions: tuple[int, ...], keepdim: bool
) -> Signal | Concat:
    """Add a pool over all positions along some axes."""
    kernel = tuple(n if axis in positions else 1 for axis, n in enumerate(value.shape[1:], start=1))
    if how == "maximum":
        pool = (torch.nn.MaxPool1d if len(kernel) == 1 else torch.nn.MaxPool2d)(kernel)
        pooled = add_stateless(call.context, pool, call.make_path(), value)
    else:
        pooled = add_part(call.context, call.make_path(), value, (AvgPool if how == "mean" else SumPool)(kernel_size=kernel))
    return pooled if keepdim else leave_out(call, pooled, positions)


def leave_out(call: FunctionCall, value: Signal | Concat, axes: Sequence[int]) -> Signal | Concat:
    """Leave out those of a signal's axes of positions that have one position; where none is left, one axis of channels is."""
    kept = tuple(n for axis, n in enumerate(value.shape) if axis == 0 or axis not in axes or n != 1)
    if kept == value.shape:
        return value
    if len(kept) == 1:
        part = to_flatten(value.shape, call.axes_before, -1, call.place, axes_before=call.axes_before)
        return add_part(call.context, call.make_path(), value, part)
    if isinstance(value, Concat):
        return Concat(tuple(replace(signal, shape=(signal.shape[0], *kept[1:])) for signal in value.parts))
    return replace(value, shape=kept)


def take_maximum(call: FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Symbol:
    """Return the maximum over time or positions, and the places that have it."""
    maximum = decode("maximum")(call, value, dim, keepdim, axis=axis)
    if not isinstance(maximum, Decoded):
        return MaximumAndPlaces(maximum, None)
    return MaximumAndPlaces(maximum, replace(maximum, how="step of the maximum"))


def take_last(call: FunctionCall, value: Symbol, index: Any) -> Symbol | None:
    """Return the outputs of the last step where an index takes them, or the output of one step; None where it takes others."""
    shape = get_shape(call, value)
    parts = index if isinstance(index, tuple) else (index,)
    place = next((n for n, part in enumerate(parts) if isinstance(part, int)), None)
    others = [part for n, part in enumerate(parts) if n != place]
    if shape is None or place is None:
        return None
    axis = len(shape.sizes) - len(parts) + place if ... in parts[:place] else place
    if axis >= len(shape.sizes) or not is_steps(call, shape.sizes[axis]):
        return None
    if any(part is not ... and part != slice(None) for part in others):
        return None
    if parts[place] == -1:
        return Decoded(value.outputs if isinstance(value, BatchFirst) else value, "last", "last")
    outputs = value.outputs if isinstance(value, BatchFirst) else value
    return outputs[parts[place]] if isinstance(outputs, tuple) and parts[place] < len(outputs) else None


def classify(call: FunctionCall, value: Symbol, *args: Any, **kwargs: Any) -> Symbol:
    """Return decoded outputs behind a softmax or the choice of a class, which may also be that of each step.

    Raises:
        UnsupportedError: values that are not decoded over time.
    """
    if call.name == "argmax" and _is_class_axis(call, value, *args, **kwargs):
        return Decoded(value.outputs if isinstance(value, BatchFirst) else value, EACH)
    if isinstance(value, Signal) and call.context.unrolled.is_constant and call.context.form != "layers":
        return Decoded(value, f"{call.name} of the last")  # of a call that the last step alone has
    if not isinstance(value, Decoded):
        what = "the outputs of all steps" if isinstance(value, (tuple, BatchFirst)) else describe(value)
        raise UnsupportedError(f"{call.place} calls '{call.name}' on {what}, which has no counterpart here: {DECODE}")
    return Decoded(value.outputs, f"{call.name} of the {value.how}")


def _is_class_axis(call: FunctionCall, value: Symbol, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> bool:
    """Return whether an axis of the outputs of all steps is that of the classes."""
    shape, dim = get_shape(call, value), axis if dim is None else dim
    if shape is None or isinstance(value, Decoded) or len(shape.shape) != 1 or not isinstance(dim, int) or keepdim:
        return False
    in_steps = any(is_steps(call, size) for size in shape.sizes)
    return in_steps and -len(shape.sizes) <= dim < len(shape.sizes) and dim % len(shape.sizes) == len(shape.before)


def scale_decoded(call: FunctionCall, a: Symbol, b: Symbol) -> Decoded:
    """Return decoded outputs, of which a factor is a part: a sum over time divided by the number of steps is the mean.

    Raises:
        UnsupportedError: a factor that is no number, or with which another class would have the largest value.
    """
    value, factor = (a, b) if isinstance(a, Decoded) else (b, a)
    divides = "div" in call.name
    if not isinstance(factor, (int, float, AxisSize)) or (value is b and divides):
        raise UnsupportedError(
            f"{call.place} calculates with {describe(value)} and {describe(factor)}, expected a number; {DECODE}"
        )
    if isinstance(factor, (int, float)) and not factor > 0:
        verb = "divides" if divides else "multiplies"
        raise UnsupportedError(
            f"{call.place} {verb} the {value.how} of all steps by {factor:g}, expected a number above 0, which leaves the class "
            "with the largest value as it is; leave it out, or give the layer in front the opposite weights"
        )
    if value.how == "sum" and call.context.form == "repeat" and isinstance(value.outputs, tuple):
        steps = len(value.outputs)  # the forward fixes their number
        if factor == steps if divides else factor == 1 / steps:
            return Decoded(value.outputs, "mean", "mean")
    one_over = replace(factor, power=1) if isinstance(factor, AxisSize) and factor.power == (1 if divides else -1) else None
    if value.how == "sum" and is_steps(call, one_over):
        return Decoded(value.outputs, "mean", "mean")
    return replace(value, kind="sum" if value.kind in ("mean", "sum", "last") else "other")
