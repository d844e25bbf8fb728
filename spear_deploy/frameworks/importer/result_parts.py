"""Parts of a symbol that a forward takes: steps, channels, states, shapes and sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.decoding import (
    DECODE,
    MaximumAndPlaces,
    get_shape,
    take_last,
)
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.shapes import unsqueeze
from spear_deploy.frameworks.importer.symbols import (
    BatchFirst,
    Channels,
    Concat,
    Decoded,
    OutputAndState,
    Signal,
    State,
    Statistic,
    StepInputs,
    Symbol,
    SymbolShape,
    describe,
    shifted_by,
)
from spear_deploy.network.graph import INPUT
from spear_deploy.util.number_format import format_shape

NEW_AXES: tuple[Any, ...] = (None, (slice(None), None))
"""Indices that put an axis of one value in front of a tensor, or behind its first axis."""
MAX_RESULTS = 4
"""A module with a state returns its output and up to three parts of its state."""


def get_item(call: FunctionCall, symbol: Symbol, index: Any) -> Symbol:
    """Return what an index takes of a symbol: a part of a result, a step, channels, or sizes of a shape."""
    if isinstance(symbol, OutputAndState) and isinstance(index, int) and 0 <= index < MAX_RESULTS:
        taken = symbol.parts[index - 1 : index]
        return symbol.output if index == 0 else symbol.state.take(*taken) if taken else symbol.state
    if isinstance(symbol, State):
        return symbol.take(symbol.parts[index]) if isinstance(index, int) and index < len(symbol.parts) else symbol
    if (last := take_last(call, symbol, index)) is not None:
        return last
    if isinstance(symbol, dict) or (isinstance(symbol, tuple) and isinstance(index, (int, slice))):
        return symbol[index]
    if isinstance(symbol, (Signal, Concat)) and index in NEW_AXES:
        return unsqueeze(call, symbol, NEW_AXES.index(index))
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
    raise UnsupportedError(
        f"{call.place} takes [{_format_index(index)}] of {describe(symbol)}; {_say_expected(symbol, index, call.axes_before)}"
    )


def _say_expected(symbol: Symbol, index: Any, axes_before: int) -> str:
    """Return what to take in place of what an index takes."""
    leading = (index if isinstance(index, tuple) else (index,))[:axes_before]
    is_input = isinstance(symbol, StepInputs) or (isinstance(symbol, Signal) and symbol.name == INPUT)
    takes_step = len(leading) == axes_before == 2 and leading[0] == slice(None) and leading[1] != slice(None)
    if is_input and takes_step and isinstance(symbol, Signal):
        steps = "x[:, t]" if isinstance(leading[1], int) else "x[:, t:t+1]"
        return f"its modules run over time: give them all steps at once, in place of a loop over {steps}"
    if isinstance(symbol, Signal) and any(isinstance(part, slice) and part != slice(None) for part in leading):
        return "take one step after the other, x[t] or x[:, t], or give the modules all steps and samples at once"
    slices = [part for part in (index if isinstance(index, tuple) else ()) if isinstance(part, slice)]
    if any(part.step not in (None, 1) for part in slices):
        return "take channels that lie side by side"
    if is_input and any(part != slice(None) for part in slices):
        if isinstance(symbol, StepInputs):
            return "take channels of x[t] in the loop"
        return f"its shape here is {format_shape(symbol.shape)}; give another input shape, or take channels that it has"
    if is_input and isinstance(index, tuple) and isinstance(index[-1], int):
        return "let time be its first axis, x[t], or its second, x[:, t]"
    return "return all steps, channels and positions"


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


def split_channels(
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


def get_attribute(call: FunctionCall, symbol: Symbol, name: str, *default: Symbol) -> Symbol:
    """Return a part of a state, the places of a maximum, or a shape."""
    if isinstance(symbol, State):
        return symbol.take(name)
    if isinstance(symbol, MaximumAndPlaces) and name in symbol._fields:
        return getattr(symbol, name)
    if name == "shape" and (shape := get_shape(call, symbol)) is not None:
        return shape
    if isinstance(symbol, (tuple, BatchFirst, Decoded)):
        raise UnsupportedError(
            f"{call.place} reads '.{name}' of the outputs of all steps, which has no counterpart here: {DECODE}"
        )
    raise UnsupportedError(f"{call.place} reads '.{name}' of {describe(symbol)}, which has no counterpart here; keep to modules")


def get_size(call: FunctionCall, value: Symbol, axis: int | None = None) -> Symbol:
    """Return the shape of a symbol, or the size of one axis."""
    shape = get_shape(call, value)
    if shape is None:
        raise UnsupportedError(f"{call.place} takes the size of {describe(value)}; take that of the input")
    return shape if axis is None else shape.sizes[axis]


def take_values(call: FunctionCall, value: Symbol) -> Statistic:
    """Return the numbers of a signal, which a forward takes for a log: they go into no layer."""
    return Statistic()


def pass_on(call: FunctionCall, value: Symbol, *args: Symbol, **kwargs: Symbol) -> Symbol:
    """Return the symbol that a function does not change."""
    return value
