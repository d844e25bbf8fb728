"""Shapes in a forward: flattening, views, axes of one position, zeros, and signals side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.decoding import (
    leave_out,
    stack,
)
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_part
from spear_deploy.frameworks.importer.symbols import (
    MERGED,
    AxisSize,
    BatchFirst,
    Concat,
    Decoded,
    Grouped,
    Merged,
    OneStep,
    Signal,
    Symbol,
    TimeLast,
    describe,
    list_signals,
    map_decoded,
)
from spear_deploy.frameworks.importer.synapses import to_flatten
from spear_deploy.network.graph import INPUT
from spear_deploy.util.number_format import format_shape


def parts_axes(call: FunctionCall, value: Merged, sizes: tuple[Symbol, ...]) -> bool:
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
    return Merged(reshape(step, value, AxisSize(0), *rest))


def flatten(call: FunctionCall, value: Signal | Concat, start_dim: int = 0, end_dim: int = -1) -> Signal | Concat | Merged:
    """Flatten all axes behind the batch, or put time and batch into one axis."""
    if call.axes_before == 2 and (start_dim, end_dim) == (0, 1):
        return Merged(value)
    part = to_flatten(value.shape, start_dim, end_dim, call.place, axes_before=call.axes_before)
    return add_part(call.context, call.make_path(), value, part)


def unflatten(call: FunctionCall, value: Signal | Concat, dim: int, sizes: tuple[Symbol, ...]) -> Symbol:
    """Part one axis of a signal behind the batch as a view does."""
    axes = [*map(AxisSize, range(call.axes_before)), *value.shape] if isinstance(value, (Signal, Concat)) else []
    dim %= max(len(axes), 1)
    if dim < call.axes_before:
        what = "the outputs of all steps" if isinstance(value, tuple) else f"axis {dim} of {describe(value)}"
        raise UnsupportedError(f"{call.place} calls 'unflatten' on {what}; part axes of the output of a step behind the batch")
    return reshape(call, value, *axes[:dim], *(_complete(sizes, value.shape[dim - call.axes_before]) or sizes), *axes[dim + 1 :])


def squeeze(call: FunctionCall, value: Signal | Concat, dim: int | tuple[int, ...] | None = None) -> Signal | Concat:
    """Leave axes of one position out; a signal that has no other positions becomes one axis of channels."""
    count, first = call.axes_before + len(value.shape), call.axes_before + 1
    axes = range(count) if dim is None else [axis % count for axis in (dim if isinstance(dim, tuple) else (dim,))]
    if any(axis < first for axis in axes) and (dim is not None or value.shape[0] == 1):
        raise UnsupportedError(f"{call.place} calls 'squeeze' on axis {dim}; leave out axes of positions alone, from {first} on")
    return leave_out(call, value, [axis - call.axes_before for axis in axes])


def squeeze_row(call: FunctionCall, value: OneStep | Decoded, dim: int | None = None) -> Symbol:
    """Return a row of neurons, samples x 1 x neurons, without its axis of one value."""
    if dim not in (None, 1, -2):
        raise UnsupportedError(f"{call.place} calls 'squeeze' on axis {dim} of samples x 1 x neurons; leave out axis 1")
    return map_decoded(value, call.place, lambda row: row.output) if isinstance(value, Decoded) else value.output


def _list_steps(symbol: Symbol, dim: int) -> tuple[Symbol, ...]:
    """Return the outputs of the steps that a symbol has along an axis: of one step, or of those that were put together before."""
    if isinstance(symbol, OneStep):
        return (symbol.output,) if symbol.axis == dim else ()
    if isinstance(symbol, BatchFirst) and not isinstance(symbol, TimeLast) and dim == 1:
        return symbol.outputs
    return symbol if isinstance(symbol, tuple) and dim == 0 and list_signals(symbol) else ()


def concatenate(call: FunctionCall, tensors: tuple[Symbol, ...], dim: int = 0, axis: int | None = None) -> Symbol:
    """Concatenate signals along their channels, or the outputs of all steps along time."""
    dim = dim if axis is None else axis
    steps = [_list_steps(symbol, dim) for symbol in tensors]
    if steps and all(steps):
        return stack(call, tuple(output for outputs in steps for output in outputs), dim)
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


def zeros_like(call: FunctionCall, value: Signal, *args: Symbol, **kwargs: Symbol) -> Signal:
    """Return zeros of the shape of a signal.

    Raises:
        UnsupportedError: a value of which a network has no counterpart in a step, such as the input of all steps.
    """
    if not hasattr(value, "shape"):
        raise UnsupportedError(
            f"{call.place} makes zeros like {describe(value)}, expected the output of a module; append the outputs of all steps "
            "to a list, and stack it"
        )
    return call.context.builder.make_zeros(value.shape)


def new_zeros(call: FunctionCall, value: Symbol, *sizes: Symbol, **kwargs: Symbol) -> Symbol:
    """Return zeros of batch x a shape."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = call.axes_before
    if not all(isinstance(n, int) for n in wanted[before:]) or not all(isinstance(n, AxisSize) for n in wanted[:before]):
        raise UnsupportedError(
            f"{call.place} makes zeros of another shape than batch x a layer's; start from zeros_like(...), or append the "
            "outputs of all steps to a list, and stack it"
        )
    return call.context.builder.make_zeros(wanted[before:])


def unsqueeze(call: FunctionCall, value: Symbol, dim: int = 0) -> Symbol:
    """Put an axis of one value before the output of one step or of neurons, or one of one position into the input."""
    if isinstance(value, Decoded) and dim in (1, -2):
        return map_decoded(value, call.place, lambda output: OneStep(output, 1))
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


def repeat(call: FunctionCall, value: Symbol, *sizes: Symbol) -> Symbol:
    """Refuse what `repetition` has not taken off."""
    raise UnsupportedError(f"{call.place} calls '{call.name}', which has no counterpart here: repeat the input over time alone")


def _complete(sizes: tuple[Symbol, ...], count: int) -> Any:
    """Return sizes of axes with the one that is -1 worked out, None where they do not hold that many values."""
    if not all(isinstance(size, int) and size != 0 for size in sizes):
        return None
    known = int(np.prod([size for size in sizes if size > 0]))
    whole = tuple(count // known if size < 0 else size for size in sizes)
    return whole if int(np.prod(whole)) == count else None


def reshape(call: FunctionCall, value: Signal | Concat, *sizes: Symbol) -> Signal | Concat | Grouped | Merged:
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
    return flatten(call, value, before)
