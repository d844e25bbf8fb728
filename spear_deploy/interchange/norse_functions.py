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
from spear_deploy.interchange.norse_modules import by, flatten_of, synapse_of
from spear_deploy.interchange.norse_trace import Leading, Pair, Sizes, State, Thing, Value, describe, where
from spear_deploy.layers import Scale

if TYPE_CHECKING:
    from spear_deploy.interchange.norse_walk import Frame


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

    def add(self, *sources: Value, suffix: str = "", **parts: Any) -> Value:
        """Add a layer named after module and function."""
        path = ".".join(part for part in (self.owner, self.name, suffix) if part)
        return self.frame.walk.add(path, *sources, **parts)


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
        if isinstance(thing, Value) and thing.past:
            raise UnsupportedError(
                f"{place.where} uses {describe(thing)} in '{name}'; feed spikes back by LIFRecurrentCell or RecurrentSequential"
            )
    if target not in _MAKE or not any(isinstance(thing, Value) for thing in args):
        hint = next((why for word, why in _HINTS.items() if word in name), "use a module that has one")
        raise UnsupportedError(f"{place.where} calls '{name}', which has no counterpart here: {hint}")
    try:
        inspect.signature(_MAKE[target]).bind(place, *args, **kwargs)
    except TypeError:
        raise UnsupportedError(
            f"{place.where} calls '{name}' with arguments that have no counterpart here: {kwargs or args[1:]}"
        ) from None
    key = (owner, name, args, tuple(kwargs.items()))
    return frame.once(key, lambda: _MAKE[target](place, *args, **kwargs))


_HINTS = {
    "max_pool": "the maximum of spikes is not linear; use AvgPool2d",
    "boolean_dispatch": "the maximum of spikes is not linear; use AvgPool2d",
    "cat": "add the branches",
    "stack": "return every step as it comes",
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
    if isinstance(thing, Value) and name == "shape":
        return Sizes(thing)
    raise UnsupportedError(f"{place.where} reads '.{name}' of {describe(thing)}, which has no counterpart here; keep to modules")


def _size(place: _Place, value: Thing, axis: int | None = None) -> Thing:
    return Sizes(value) if axis is None else _item(place, Sizes(value), axis)


def _same(place: _Place, value: Thing, *args: Thing, **kwargs: Thing) -> Thing:
    return value


# --------------------------------------------------------------------------------------------------------- arithmetic


def _add(place: _Place, a: Thing, b: Thing) -> Value:
    if not (isinstance(a, Value) and isinstance(b, Value)):
        raise UnsupportedError(f"{place.where} adds {describe(a)} and {describe(b)}; expected the outputs of two modules")
    if a.shape != b.shape:
        raise UnsupportedError(f"{place.where} adds {by(a.shape)} and {by(b.shape)} values; expected equal shapes")
    return _times(place, a, 2.0) if a.name == b.name else place.add(a, b)


def _subtract(place: _Place, a: Thing, b: Thing) -> Value:
    return _add(place, a, _times(place, b, -1.0, suffix="minus") if isinstance(b, Value) else b)


def _multiply(place: _Place, a: Thing, b: Thing) -> Value:
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    return _times(place, value, factor)


def _divide(place: _Place, a: Thing, b: Thing) -> Value:
    if not isinstance(b, (int, float)) or b == 0:
        raise UnsupportedError(f"{place.where} divides {describe(a)} by {describe(b)}; expected a number that is not 0")
    return _times(place, a, 1 / b)


def _negative(place: _Place, value: Value) -> Value:
    return _times(place, value, -1.0)


def _times(place: _Place, value: Value, factor: Thing, suffix: str = "") -> Value:
    if not isinstance(factor, (int, float)):
        raise UnsupportedError(f"{place.where} multiplies {describe(value)} by {describe(factor)}; expected a number")
    return place.add(value, suffix=suffix, synapse=Scale(weight=np.array(factor, np.float32)))


# ----------------------------------------------------------------------------------------------------- shape and pools


def _flatten(place: _Place, value: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    part = flatten_of(value.shape, start_dim, end_dim, place.where, axes_before=place.frame.axes_before)
    return value if part is None else place.add(value, synapse=part)


def _reshape(place: _Place, value: Value, *sizes: Thing) -> Value:
    """Understand view and reshape where they flatten."""
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    before = place.frame.axes_before
    leading, rest = wanted[:before], wanted[before:]
    count = int(np.prod(value.shape))
    kept = all(size == Leading(axis) or size == -1 for axis, size in enumerate(leading))
    if not kept or rest not in ((-1,), (count,)) or wanted.count(-1) > 1:
        raise UnsupportedError(f"{place.where} reshapes {by(value.shape)} values; only flattening them all has a counterpart")
    return _flatten(place, value, before)


def _pool(kind: Callable[..., torch.nn.Module]) -> Callable[..., Value]:
    def pool(place: _Place, value: Value, *args: Any, **kwargs: Any) -> Value:
        part = synapse_of(kind(*args, **kwargs), value.shape, place.where, axes_before=place.frame.axes_before)
        return place.add(value, synapse=part)

    return pool


def _dropout(place: _Place, value: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    if training:
        raise UnsupportedError(f"{place.where} drops values in evaluation too; call '{place.name}' with training=self.training")
    return value


def _relu(place: _Place, value: Value, inplace: bool = False) -> Value:
    if not place.frame.walk.spikes(value):
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
}

_MAKE: dict[Any, Callable[..., Value]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), _divide),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), _negative),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), _relu),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    functional.alpha_dropout: _dropout,
    functional.avg_pool1d: _pool(torch.nn.AvgPool1d),
    functional.avg_pool2d: _pool(torch.nn.AvgPool2d),
    functional.adaptive_avg_pool1d: _pool(torch.nn.AdaptiveAvgPool1d),
    functional.adaptive_avg_pool2d: _pool(torch.nn.AdaptiveAvgPool2d),
}
