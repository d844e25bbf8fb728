"""What is a function or tensor method in a model's forward: a layer, nothing at all, or refused?"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Scale
from spear_deploy.norse.importer import modules as norse_calls
from spear_deploy.norse.importer.symbols import (
    Concat,
    Leading,
    Pair,
    Sequence,
    Sizes,
    State,
    Thing,
    Value,
    aged,
    describe,
    values_in,
    where,
)
from spear_deploy.norse.importer.synapses import by, flatten_of

if TYPE_CHECKING:
    from spear_deploy.norse.importer.interpreter import Frame


@dataclass(frozen=True)
class _Place:
    """Where a function is called: in which frame, by which module, under which name."""

    frame: Frame
    owner: str
    name: str

    @property
    def where(self) -> str:
        """For errors."""
        return where(self.owner)

    def path(self, suffix: str = "") -> str:
        """Name a layer after module and function."""
        return ".".join(part for part in (self.owner, self.name, suffix) if part)

    def add(self, *sources: Value | Concat, suffix: str = "", **parts: Any) -> Value:
        """Add a layer named after module and function."""
        path = self.path(suffix)
        return self.frame.walk.add(path, *(norse_calls.joined(self.frame, source, path) for source in sources), **parts)

    def zero_like(self, things: tuple[Thing, ...], thing: Thing) -> Thing:
        """Return zeros in the shape of the value among `things`, in the place of the number 0."""
        values = [other for other in things if isinstance(other, (Value, Concat))]
        return self.frame.walk.zero(values[0].shape) if values else thing


def call(frame: Frame, target: Any, owner: str, args: tuple[Thing, ...], kwargs: dict[str, Thing]) -> Thing:
    """Return what a function (an object) or a tensor method (its name) gives.

    Raises:
        UnsupportedError: it has no counterpart.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    place = _Place(frame, owner, name.strip("_"))
    if "assert" in name:
        return None
    if isinstance(target, type) and issubclass(target, tuple):  # a state put together anew
        return (*args, *kwargs.values())
    if target in _ACCESS:
        return _ACCESS[target](place, *args, **kwargs)
    for thing in args:
        if isinstance(thing, (State, Pair)):
            raise UnsupportedError(f"{place.where} computes with {describe(thing)} by '{name}'; hand states on as they are")
    if target not in _MAKE or not values_in((args, kwargs)):
        hint = next((why for word, why in _HINTS.items() if word in name), "use a module that has one")
        raise UnsupportedError(f"{place.where} calls '{name}', which has no counterpart here: {hint}")
    make = _MAKE[target]
    try:
        inspect.signature(make).bind(place, *args, **kwargs)
    except TypeError:
        raise UnsupportedError(
            f"{place.where} calls '{name}' with arguments that have no counterpart here: {kwargs or args[1:]}"
        ) from None
    args = tuple(place.zero_like(args, thing) if make is _add and _is_zero(thing) else thing for thing in args)
    kind = "add" if make is _add else "sub" if make is _subtract else name
    return frame.replay.once((owner, kind, args, kwargs), lambda key: make(place, *key[2], **key[3]))


def _is_zero(thing: Thing) -> bool:
    return isinstance(thing, (int, float)) and thing == 0


_HINTS = {
    "boolean_dispatch": "a maximum that returns its places too has none; leave them out",
    "mean": "return the outputs of all steps, and decode after the network",
    "sum": "return the outputs of all steps, and decode after the network",
    "softmax": "return the outputs of all steps, and decode after the network",
    "stack": "stack the outputs of all steps along axis 0, or use cat",
    "relu": "it acts on values that are not spikes; use a cell such as LIFBoxCell",
}


# ------------------------------------------------------------------------------------------- parts of pairs and shapes


def _item(place: _Place, thing: Thing, index: Any) -> Thing:
    if isinstance(thing, Pair) and index in (0, 1):
        return thing.value if index == 0 else thing.state
    if isinstance(thing, State):
        return thing
    if isinstance(thing, (tuple, dict)):
        return thing[index]
    if isinstance(thing, Sequence) and isinstance(index, int):
        age = place.frame.step - index
        if age < 0:
            raise UnsupportedError(
                f"{place.where} takes the input of step {index} in step {place.frame.step}; take x[t] in step t"
            )
        return aged(thing.value, age)
    if isinstance(thing, Sizes) and isinstance(index, int):
        before = place.frame.axes_before
        index %= before + len(thing.value.shape)
        return Leading(index) if index < before else thing.value.shape[index - before]
    raise UnsupportedError(
        f"{place.where} takes [{_index(index)}] of {describe(thing)}; return all steps, channels and positions"
    )


def _index(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ", ".join("..." if part is ... else ":" if part == slice(None) else str(part) for part in parts)


def _attribute(place: _Place, thing: Thing, name: str, *default: Thing) -> Thing:
    if isinstance(thing, State):
        return thing
    if isinstance(thing, (Value, Concat)) and name == "shape":
        return Sizes(thing)
    raise UnsupportedError(f"{place.where} reads '.{name}' of {describe(thing)}, which has no counterpart here; keep to modules")


def _size(place: _Place, value: Thing, axis: int | None = None) -> Thing:
    return Sizes(value) if axis is None else _item(place, Sizes(value), axis)


def _same(place: _Place, value: Thing, *args: Thing, **kwargs: Thing) -> Thing:
    return value


# --------------------------------------------------------------------------------------------------------- arithmetic


def _add(place: _Place, a: Thing, b: Thing) -> Value:
    if not (isinstance(a, (Value, Concat)) and isinstance(b, (Value, Concat))):
        raise UnsupportedError(f"{place.where} adds {describe(a)} and {describe(b)}; expected the outputs of two modules")
    if a.shape != b.shape:
        raise UnsupportedError(f"{place.where} adds {by(a.shape)} and {by(b.shape)} values; expected equal shapes")
    return _times(place, a, 2.0) if a == b else place.add(a, b)


def _subtract(place: _Place, a: Thing, b: Thing) -> Value:
    return _add(place, a, _times(place, b, -1.0, suffix="minus") if isinstance(b, (Value, Concat)) else b)


def _multiply(place: _Place, a: Thing, b: Thing) -> Value:
    value, factor = (a, b) if isinstance(a, (Value, Concat)) else (b, a)
    return _times(place, value, factor)


def _divide(place: _Place, a: Thing, b: Thing) -> Value:
    if not isinstance(b, (int, float)) or b == 0:
        raise UnsupportedError(f"{place.where} divides {describe(a)} by {describe(b)}; expected a number that is not 0")
    return _times(place, a, 1 / b)


def _times(place: _Place, value: Thing, factor: Thing, suffix: str = "") -> Value:
    if not isinstance(factor, (int, float)):
        raise UnsupportedError(f"{place.where} multiplies {describe(value)} by {describe(factor)}; expected a number")
    return place.add(value, suffix=suffix, synapse=Scale(weight=np.array(factor, np.float32)))


# ----------------------------------------------------------------------------------------------------- shape and pools


def _flatten(place: _Place, value: Value | Concat, start_dim: int = 0, end_dim: int = -1) -> Value | Concat:
    part = flatten_of(value.shape, start_dim, end_dim, place.where, axes_before=place.frame.axes_before)
    return norse_calls.placed(place.frame, place.path(), value, part)


def _cat(place: _Place, tensors: tuple[Thing, ...], dim: int = 0, axis: int | None = None) -> Value | Concat:
    """Put values side by side along their channels."""
    dim = dim if axis is None else axis
    if not all(isinstance(thing, (Value, Concat)) for thing in tensors):
        what = next(describe(thing) for thing in tensors if not isinstance(thing, (Value, Concat)))
        raise UnsupportedError(f"{place.where} puts {what} beside others; expected the outputs of modules")
    before, shapes = place.frame.axes_before, {thing.shape[1:] for thing in tensors}
    if len(shapes) > 1 or dim % (before + 1 + len(next(iter(shapes)))) != before:
        found = ", ".join(by(thing.shape) for thing in tensors)
        raise UnsupportedError(
            f"{place.where} puts {found} values side by side along axis {dim}; only channels, axis {before}, can be"
        )
    parts = tuple(values_in(tensors))
    return Concat(parts) if len(parts) > 1 else parts[0]


def _zeros_like(place: _Place, value: Value, *args: Thing, **kwargs: Thing) -> Value:
    return place.frame.walk.zero(value.shape)


def _new_zeros(place: _Place, value: Thing, *sizes: Thing, **kwargs: Thing) -> Thing:
    """Return zeros of batch x a shape."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = place.frame.axes_before
    if not all(isinstance(n, int) for n in wanted[before:]) or not all(isinstance(n, Leading) for n in wanted[:before]):
        raise UnsupportedError(f"{place.where} makes zeros of another shape than batch x a layer's; start from zeros_like(...)")
    return place.frame.walk.zero(wanted[before:])


def _stack(place: _Place, tensors: tuple[Thing, ...], dim: int = 0) -> Thing:
    """Keep the outputs of a loop's steps in order."""
    if place.frame.form != "loop" or dim != 0:
        raise UnsupportedError(f"{place.where} stacks outputs along axis {dim}; stack all steps of a loop along axis 0")
    return tensors


def _reshape(place: _Place, value: Value | Concat, *sizes: Thing) -> Value | Concat:
    """Understand view and reshape where they flatten."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = place.frame.axes_before
    leading, rest = wanted[:before], wanted[before:]
    count = int(np.prod(value.shape))
    kept = all(size == Leading(axis) or size == -1 for axis, size in enumerate(leading))
    if not kept or rest not in ((-1,), (count,)) or wanted.count(-1) > 1:
        raise UnsupportedError(f"{place.where} reshapes {by(value.shape)} values; only flattening them all has a counterpart")
    return _flatten(place, value, before)


def _as_module(kind: Callable[..., torch.nn.Module]) -> Callable[..., Value | Concat]:
    def function(place: _Place, input: Value | Concat, *args: Any, **kwargs: Any) -> Value | Concat:
        return norse_calls.plain(place.frame, kind(*args, **kwargs), place.path(), input)

    return function


def _dropout(place: _Place, value: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    if training:
        raise UnsupportedError(f"{place.where} drops values in evaluation too; call '{place.name}' with training=self.training")
    return value


def _relu(place: _Place, value: Value, inplace: bool = False) -> Value:
    if not norse_calls.all_spikes(place.frame, value):
        raise UnsupportedError(f"{place.where} calls 'relu' on values that are not spikes; use a cell such as LIFBoxCell")
    return value


_ACCESS: dict[Any, Callable[..., Thing]] = {
    operator.getitem: _item,
    getattr: _attribute,
    "size": _size,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
    "float": _same,
    "to": _same,
    torch.zeros_like: _zeros_like,
    "new_zeros": _new_zeros,
    torch.stack: _stack,
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
}

_MAKE: dict[Any, Callable[..., Value | Concat]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), _divide),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), lambda place, value: _times(place, value, -1.0)),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), _relu),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    functional.alpha_dropout: _dropout,
    functional.avg_pool1d: _as_module(torch.nn.AvgPool1d),
    functional.avg_pool2d: _as_module(torch.nn.AvgPool2d),
    functional.adaptive_avg_pool1d: _as_module(torch.nn.AdaptiveAvgPool1d),
    functional.adaptive_avg_pool2d: _as_module(torch.nn.AdaptiveAvgPool2d),
    **dict.fromkeys((functional.max_pool1d, torch.max_pool1d), _as_module(torch.nn.MaxPool1d)),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _as_module(torch.nn.MaxPool2d)),
    functional.adaptive_max_pool1d: _as_module(torch.nn.AdaptiveMaxPool1d),
    functional.adaptive_max_pool2d: _as_module(torch.nn.AdaptiveMaxPool2d),
}
