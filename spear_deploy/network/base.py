"""What do synapses, norms and neurons have in common? Frozen arrays, equality by value, whole sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spear_deploy.errors import GraphError

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Reset: TypeAlias = Literal["value", "subtract"]


def frozen(value: Any, *, what: str, integer: bool | None = None) -> Array:
    """Return a read-only array of finite (if asked, of whole) numbers; one that owns its data and is read-only is not copied."""
    kept = isinstance(value, np.ndarray) and value.flags.owndata and not value.flags.writeable
    array = value if kept else np.array(value)
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise GraphError(f"{what}: expected numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise GraphError(f"{what}: holds NaN or infinite values; retrain or repair the network")
    if integer and array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):
            raise GraphError(f"{what}: expected whole numbers; quantise the network first")
        array = array.astype(np.int64)
    array.setflags(write=False)
    return array


class Part:
    """Freeze every array field; give equality by value."""

    def _freeze(self, *, integer: bool = False) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type in _ARRAY_TYPES and value is not None:
                what = f"{type(self).__name__}.{field.name}"
                object.__setattr__(self, field.name, frozen(value, what=what, integer=integer))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]


_ARRAY_TYPES = ("Array", "Array | None")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)


def sizes(owner: object, name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    """Return one whole number for each axis."""
    found = (value,) * dims if isinstance(value, (int, np.integer)) else tuple(value)
    if len(found) != dims or any(int(s) != s or s < least for s in found):
        raise GraphError(f"{type(owner).__name__}.{name}: {value} given, expected {dims} whole numbers of at least {least}")
    return tuple(int(s) for s in found)


def check_broadcast(what: str, shape: Shape, target: Shape) -> None:
    """Refuse a shape that does not spread over another one."""
    try:
        fits = np.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        fits = False
    if not fits:
        raise GraphError(f"{what} has shape {shape}, which does not spread over {by(target)}")


def by(shape: Sequence[int]) -> str:
    """Write a shape as 2 x 8 x 8."""
    return " x ".join(str(n) for n in shape)


def check_reset(neuron: Any) -> None:
    """Refuse a reset that there is not."""
    if getattr(neuron, "reset", "value") not in ("value", "subtract"):
        raise GraphError(f"{type(neuron).__name__}.reset: '{neuron.reset}' given, expected 'value' or 'subtract'")


def check_range(neuron: Any, name: str, low: int, high: int) -> None:
    """Refuse values that a format does not hold."""
    value = getattr(neuron, name)
    if (value < low).any() or (value > high).any():
        given = f"{value.min()}..{value.max()}"
        raise GraphError(f"{type(neuron).__name__}.{name}: {given} given, the format holds {low}..{high}")
