"""Frozen arrays, equality by value and checks shared by all layer parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spear_deploy.errors import GraphError
from spear_deploy.util.number_format import format_shape, name_values

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = Any
"""An `Array`, or a `SparseMatrix`, which numpy's functions take in its place."""
Shape: TypeAlias = tuple[int, ...]
Reset: TypeAlias = Literal["value", "subtract", "none"]
RESET_WORDS: dict[str, str] = {"value": "to a value", "subtract": "by subtraction", "none": "not at all"}
"""How neurons reset, for a sentence."""
MAX_FLOAT = float(np.finfo(np.float32).max)
"""Largest number of a network: ONNX, NIR and torch hold float32."""
BLOCK_NUMBERS = 1 << 20
"""Numbers that are looked at together."""


def freeze_array(value: Any, *, what: str, integer: bool | None = None) -> Array:
    """Return a read-only array of finite numbers; it is not copied if it owns its data and is read-only already.

    Args:
        value: numbers.
        what: their name in messages.
        integer: whether they must be whole; they become int64.

    Raises:
        GraphError: no numbers, NaN, infinite or beyond float32, or not whole.
    """
    is_frozen = isinstance(value, np.ndarray) and value.flags.owndata and not value.flags.writeable
    if isinstance(value, np.ndarray) and value.size > 1 and not any(value.strides):  # one number for all takes no more memory
        array: Array = np.broadcast_to(np.array(value[(0,) * value.ndim]), value.shape)
    else:
        array = value if is_frozen else np.array(value)
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise GraphError(f"{what}: expected numbers, got {name_values(array.dtype.kind)}")
    if array.dtype.kind == "f" and not _are_finite(array):
        raise GraphError(f"{what}: holds NaN or infinite values; retrain or repair the network")
    if array.dtype == np.float64 and array.size and max(array.max(), -array.min()) > MAX_FLOAT:
        largest = max(array.max(), -array.min())
        raise GraphError(f"{what}: holds {largest:.3g}, beyond {MAX_FLOAT:.3g} of float32; retrain or repair the network")
    if integer and array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):
            raise GraphError(f"{what}: expected whole numbers; quantise the network first")
        array = array.astype(np.int64)
    array.setflags(write=False)
    return array


def _are_finite(array: Array) -> bool:
    """Return whether all numbers are finite, without a mask as large as a layer."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.T.reshape(-1)
    return all(np.isfinite(flat[start : start + BLOCK_NUMBERS]).all() for start in range(0, flat.size, BLOCK_NUMBERS))


class Part:
    """A part of a layer: its array fields are read-only, and equality is by value."""

    def _freeze(self, *, integer: bool = False) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type in _ARRAY_TYPES and value is not None:
                what = f"{type(self).__name__}.{field.name}"
                object.__setattr__(self, field.name, freeze_array(value, what=what, integer=integer))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return all(_is_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


_ARRAY_TYPES = ("Array", "Array | None")


def _is_same(a: Any, b: Any) -> bool:
    for matrix, other in ((a, b), (b, a)):
        if hasattr(matrix, "is_same") and hasattr(other, "dtype"):  # a sparse matrix and the full one are equal
            return bool(matrix.is_same(other))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    return type(a) is type(b) and bool(a == b)


def axis_sizes(owner: object, name: str, *, value: int | Sequence[int], dims: int, minimum: int) -> tuple[int, ...]:
    """Return one whole number for each axis; a single number holds for all.

    Raises:
        GraphError: another number of axes, or a size that is not whole or below `minimum`.
    """
    sizes = (value,) * dims if isinstance(value, (int, np.integer)) else tuple(value)
    if len(sizes) != dims or any(int(size) != size or size < minimum for size in sizes):
        raise GraphError(f"{type(owner).__name__}.{name}: {value} given, expected {dims} whole numbers of at least {minimum}")
    return tuple(int(size) for size in sizes)


def check_broadcast(what: str, shape: Shape, target: Shape) -> None:
    """Refuse a shape that does not broadcast to another one.

    Raises:
        GraphError: names both.
    """
    try:
        fits = np.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        fits = False
    if not fits:
        raise GraphError(f"{what} has shape {shape}, which does not broadcast to {format_shape(target)}")


def check_reset(neuron: Any, known: tuple[Reset, ...] = ("value", "subtract")) -> None:
    """Refuse a reset that these neurons do not have."""
    if getattr(neuron, "reset", "value") not in known:
        expected = " or ".join(map(repr, known))
        raise GraphError(f"{type(neuron).__name__}.reset: '{neuron.reset}' given, expected {expected}")


def check_range(neuron: Any, name: str, low: int, high: int) -> None:
    """Refuse values outside `low`..`high`, the range of an integer format."""
    value = getattr(neuron, name)
    if (value < low).any() or (value > high).any():
        values = f"{value.min()}..{value.max()}"
        raise GraphError(f"{type(neuron).__name__}.{name}: {values} given, the format holds {low}..{high}")
