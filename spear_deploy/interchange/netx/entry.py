"""Numbers, sizes and names of one entry of a netx file.

Values are read as lava-dl reads them. Where its loader would fail but the meaning is clear, they are read with a note of what
was assumed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx.weights import round_weights
from spear_deploy.network import Array, Shape
from spear_deploy.util.hdf5.tree import Tree, decode_integers, decode_text

AGAIN = "export the network again"
MAX_DELAY = 62
MIN_WEIGHT, MAX_WEIGHT = -256, 255
MAX_NEURONS = 2**31
"""More neurons than this in one layer are beyond any system of chips."""


def read_text(row: Tree, key: str) -> str | None:
    """Return stored text, also where it was stored as the numbers of its letters; None if it is no text."""
    value = row.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and 0 < value.size <= 32:
        letters = value.reshape(-1)
        if (letters >= 32).all() and (letters < 127).all():
            return bytes(letters.astype(np.uint8)).decode("ascii").strip()
    stored = decode_text(value)
    return None if stored is None else stored.strip("\0 ")


def read_numbers(row: Tree, key: str) -> Array:
    """Return stored numbers.

    Raises:
        GraphError: missing, empty, or NaN.
    """
    value = row.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size == 0:
        raise GraphError(f"'{key}' is missing or holds no numbers; {AGAIN}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise GraphError(f"'{key}' holds NaN or infinite values; retrain or repair the network")
    return value


def read_integers(row: Tree, key: str) -> Array:
    """Return stored whole numbers as int64.

    Raises:
        GraphError: missing, a fraction, or beyond 2^31.
    """
    value = read_numbers(row, key)
    wrong = (value != np.rint(value)) | (np.abs(value.astype(np.float64)) > 2**31)
    if wrong.any():
        raise GraphError(f"'{key}' holds {value[wrong][0]:g}, expected whole numbers of the chip; export the quantised network")
    return value.astype(np.int64)


def check_sizes(value: Any, key: str, minimum: int) -> tuple[int, ...]:
    """Return stored sizes, whole numbers of at least `minimum`."""
    sizes = decode_integers(value)
    if not sizes or min(sizes) < minimum:
        raise GraphError(f"'{key}' is missing or no whole number from {minimum}; {AGAIN}")
    return sizes


def read_shape(row: Tree) -> Shape:
    """Return the shape that an entry states, (C, H, W) or fewer axes."""
    shape = check_sizes(row.get("shape"), "shape", 1)
    count = math.prod(shape)
    if count > MAX_NEURONS:
        raise GraphError(f"'shape' of {shape} is {count} neurons, at most {MAX_NEURONS} are read; {AGAIN}")
    return shape


def expand_pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Return sizes along height and width from one or two numbers."""
    if len(sizes) > 2 and any(n != sizes[1] for n in sizes[2:]):
        raise GraphError(f"sizes {sizes}, expected one or two numbers; {AGAIN}")
    return (sizes[0], sizes[0] if len(sizes) == 1 else sizes[1])


def read_geometry(row: Tree, notes: list[str], name: str, **defaults: int) -> dict[str, Any]:
    """Return stride, padding, dilation and groups, those of `defaults` where the entry states none."""
    values = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **defaults}
    missing = [key for key in values if key not in row and key not in defaults]
    if missing:
        notes.append(f"'{name}': states no {', '.join(missing)}: {', '.join(str(values[key]) for key in missing)} is taken")
    sizes = {key: check_sizes(row.get(key, np.array(value)), key, min(value, 1)) for key, value in values.items()}
    groups = sizes.pop("groups")[0]
    return {**{key: expand_pair(value) for key, value in sizes.items()}, "groups": groups}


def read_weights(row: Tree, key: str, notes: list[str], name: str) -> Array:
    """Return stored weights as int32, in the shape in which they are stored."""
    if isinstance(row.get(key), dict):
        raise UnsupportedError("complex weights have no counterpart; train with real weights and CUBA neurons")
    stored = row.get(key)
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf" or stored.size == 0:
        raise GraphError(f"'{key}' is missing or holds no numbers; {AGAIN}")
    weight = round_weights(stored, key)
    low, high = int(weight.min()), int(weight.max())
    if low < MIN_WEIGHT or high > MAX_WEIGHT:
        notes.append(f"'{name}': weights of {low}..{high} are kept; lava-dl would clip them to {MIN_WEIGHT}..{MAX_WEIGHT}")
    return weight


def orient_dense(weight: Array, outputs: int, notes: list[str], name: str) -> Array:
    """Return dense weights as (O, I), transposed where they are stored as (I, O)."""
    if weight.ndim == 2 and weight.shape[0] != outputs and weight.shape[1] == outputs:
        notes.append(
            f"'{name}': weights of shape {weight.shape} for {outputs} neurons are taken as (inputs, outputs), transposed"
        )
        return np.ascontiguousarray(weight.T)
    if weight.size % outputs:
        raise GraphError(f"{weight.size} weights for {outputs} neurons do not divide; {AGAIN}")
    if weight.ndim > 1 and weight.shape[0] != outputs:
        raise GraphError(f"weights of shape {weight.shape} for {outputs} neurons, expected (outputs, inputs); {AGAIN}")
    return _reshape_in_place(weight, (outputs, weight.size // outputs))


def _reshape_in_place(weight: Array, shape: Shape) -> Array:
    """Give newly read weights another shape, in place: a layer would copy a view."""
    weight.shape = shape
    return weight


def orient_kernel(row: Tree, weight: Array, notes: list[str], name: str) -> Array:
    """Return a kernel as (O, I, kH, kW), transposed where the sizes that the entry states require it."""
    if weight.ndim < 4 or any(n != 1 for n in weight.shape[4:]):
        raise GraphError(f"kernel of shape {weight.shape}, expected (O, I, kH, kW) or (O, I, kH, kW, 1); export it again")
    weight = _reshape_in_place(weight, weight.shape[:4])
    order = find_kernel_order(row, weight.shape)
    if order == (0, 1, 2, 3):
        return weight
    notes.append(f"'{name}': a kernel of shape {weight.shape} is taken transposed, as its channels and sizes say")
    return np.ascontiguousarray(weight.transpose(order))


ORDERS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 3, 2, 1), (0, 3, 1, 2), (3, 2, 0, 1), (3, 2, 1, 0), (1, 0, 2, 3))
"""Orders of a kernel's axes: none; width first; Lava's; channels last; TensorFlow's two; swapped channels."""


def find_kernel_order(row: Tree, shape: Shape) -> tuple[int, ...]:
    """Return the first order of axes in which a kernel has the channels and sizes that its entry states."""
    outputs, inputs = (decode_integers(row.get(key)) for key in ("outChannels", "inChannels"))
    size, shaped = decode_integers(row.get("kernelSize")), decode_integers(row.get("shape"))
    groups = (decode_integers(row.get("groups")) or (1,))[0]
    expected = (
        (outputs or shaped or (None,))[0],
        inputs[0] // max(groups, 1) if inputs else None,
        *(size if size and len(size) == 2 else (None, None)),
    )
    for order in ORDERS:
        transposed = tuple(shape[axis] for axis in order)
        if all(want is None or want == n for want, n in zip(expected, transposed, strict=True)):
            return order
    return ORDERS[0]


def spread_over_neurons(value: Array, shape: Shape, key: str, *, flipped: bool = False) -> Array:
    """Return a parameter that broadcasts to (C, H, W): one number, one per channel, or one per neuron.

    Args:
        value: the stored numbers.
        shape: of the neurons.
        key: of the entry, for the error.
        flipped: whether numbers per neuron may lie as (W, H, C), as lava-dl stores them.
    """
    if value.size == 1:
        return value.reshape(())
    if value.size == shape[0]:
        return value.reshape(-1, *(1 for _ in shape[1:]))
    if flipped and value.shape == shape[::-1]:
        return value.transpose()
    if value.shape == shape:
        return value
    raise GraphError(f"'{key}' of shape {value.shape} for neurons of shape {shape}; {AGAIN}")


def read_exponent(row: Tree, notes: list[str], name: str) -> int:
    """Return the exponent of an entry's weights (`wgtExp`), which lava-dl's loader passes over."""
    stored = row.get("neuron")
    value = decode_integers(stored.get("wgtExp")) if isinstance(stored, dict) else None
    if not value or not value[0]:
        return 0
    if abs(value[0]) > 7:
        raise GraphError(f"'wgtExp' of {value[0]}, the format holds -8..7; {AGAIN}")
    notes.append(f"'{name}': weights count 2^{value[0]} times (wgtExp); lava-dl's reader passes over it")
    return value[0]


def read_delays(row: Tree, shape: Shape, notes: list[str], name: str) -> Array:
    """Return the delay in steps: one number for all, or an array that broadcasts to weights of this shape."""
    if "delay" not in row:
        return np.zeros((), np.int64)
    delays = np.floor(read_numbers(row, "delay"))
    if delays.min() < 0:
        raise GraphError(f"a delay of {delays.min():g} steps, expected 0..{MAX_DELAY}; {AGAIN}")
    if delays.max() > MAX_DELAY:
        notes.append(f"'{name}': delays of up to {delays.max():g} steps are cut to {MAX_DELAY}, as lava-dl does")
        delays = np.minimum(delays, MAX_DELAY)
    steps = delays.astype(np.int64)
    if (steps == steps.reshape(-1)[0]).all():
        return steps.reshape(-1)[0]
    rest = tuple(1 for _ in shape[1:])
    if steps.ndim == 1 and steps.size == shape[0]:
        notes.append(f"'{name}': a delay per neuron acts on all its inputs, as in lava-dl's netx")
        return steps.reshape(-1, *rest)
    if steps.ndim == 1 and steps.size == shape[1]:
        return steps.reshape(1, -1, *rest[1:])
    if steps.shape == shape:
        return steps
    raise GraphError(f"delays of shape {steps.shape} for weights of shape {shape}; {AGAIN}")
