"""What does one entry of a netx file say: which numbers, sizes and names?

Values are taken as lava-dl takes them where it does; where it could not, but what is meant is clear, they are taken with a
note of what was assumed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.hdf5.tree import Tree, text_of, whole_numbers
from spear_deploy.interchange.netx.values import whole_weights
from spear_deploy.network import Array, Shape

AGAIN = "export the network again"
MOST_DELAY = 62
WEIGHTS = (-256, 255)
MOST_VALUES = 2**31
"""More neurons than this in one layer are beyond any system of chips."""


def text(row: Tree, key: str) -> str | None:
    """Return a stored name, also where it was stored as numbers of its letters; None if it is none."""
    value = row.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and 0 < value.size <= 32:
        letters = value.reshape(-1)
        if (letters >= 32).all() and (letters < 127).all():
            return bytes(letters.astype(np.uint8)).decode("ascii").strip()
    found = text_of(value)
    return None if found is None else found.strip("\0 ")


def numbers(row: Tree, key: str) -> Array:
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


def whole(row: Tree, key: str) -> Array:
    """Return stored whole numbers as int64."""
    value = numbers(row, key)
    wrong = (value != np.rint(value)) | (np.abs(value.astype(np.float64)) > 2**31)
    if wrong.any():
        raise GraphError(f"'{key}' holds {value[wrong][0]:g}, expected whole numbers of the chip; export the quantised network")
    return value.astype(np.int64)


def sizes(value: Any, key: str, least: int) -> tuple[int, ...]:
    """Return stored sizes, each a whole number of at least `least`."""
    found = whole_numbers(value)
    if not found or min(found) < least:
        raise GraphError(f"'{key}' is missing or no whole number from {least}; {AGAIN}")
    return found


def stated_shape(row: Tree) -> Shape:
    """Return the shape that an entry states, (C, H, W) or fewer axes."""
    shape = sizes(row.get("shape"), "shape", 1)
    count = 1
    for n in shape:
        count *= n
    if count > MOST_VALUES:
        raise GraphError(f"'shape' of {shape} is {count} neurons, at most {MOST_VALUES} are read; {AGAIN}")
    return shape


def pair(found: tuple[int, ...]) -> tuple[int, int]:
    """Return sizes along height and width."""
    if len(found) > 2 and any(n != found[1] for n in found[2:]):
        raise GraphError(f"sizes {found}, expected one or two numbers; {AGAIN}")
    return (found[0], found[0] if len(found) == 1 else found[1])


def geometry(row: Tree, notes: list[str], name: str, **defaults: int) -> dict[str, Any]:
    """Return stride, padding, dilation and groups, those of `defaults` where the entry states none."""
    known = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **defaults}
    missing = [key for key in known if key not in row and key not in defaults]
    if missing:
        notes.append(f"'{name}': states no {', '.join(missing)}: {', '.join(str(known[key]) for key in missing)} is taken")
    found: dict[str, Any] = {
        key: pair(sizes(row.get(key, np.array(known[key])), key, min(known[key], 1))) for key in ("stride", "padding", "dilation")
    }
    return {**found, "groups": sizes(row.get("groups", np.array(known["groups"])), "groups", 1)[0]}


def weights(row: Tree, key: str, notes: list[str], name: str) -> Array:
    """Return stored weights as int32, in the shape in which they are stored; the entry lets go of them."""
    if isinstance(row.get(key), dict):
        raise UnsupportedError("complex weights have no counterpart; train with real weights and CUBA neurons")
    stored = row.get(key)
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf" or stored.size == 0:
        raise GraphError(f"'{key}' is missing or holds no numbers; {AGAIN}")
    weight = whole_weights(stored, key)
    low, high = int(weight.min()), int(weight.max())
    if low < WEIGHTS[0] or high > WEIGHTS[1]:
        notes.append(f"'{name}': weights of {low}..{high} are kept; lava-dl would clip them to {WEIGHTS[0]}..{WEIGHTS[1]}")
    return weight


def rows_of(weight: Array, outputs: int, notes: list[str], name: str) -> Array:
    """Return dense weights as (O, I), turned over where they are stored as (I, O)."""
    if weight.ndim == 2 and weight.shape[0] != outputs and weight.shape[1] == outputs:
        notes.append(
            f"'{name}': weights of shape {weight.shape} for {outputs} neurons are taken as (inputs, outputs), transposed"
        )
        return np.ascontiguousarray(weight.T)
    if weight.size % outputs:
        raise GraphError(f"{weight.size} weights for {outputs} neurons do not divide; {AGAIN}")
    if weight.ndim > 1 and weight.shape[0] != outputs:
        raise GraphError(f"weights of shape {weight.shape} for {outputs} neurons, expected (outputs, inputs); {AGAIN}")
    return _shaped(weight, (outputs, weight.size // outputs))


def _shaped(weight: Array, shape: Shape) -> Array:
    """Give fresh weights another shape, in place: a view would be copied by the layer that takes it."""
    weight.shape = shape
    return weight


def kernel(row: Tree, weight: Array, notes: list[str], name: str) -> Array:
    """Return a kernel as (O, I, kH, kW), turned over where the sizes that the entry states say so."""
    if weight.ndim < 4 or any(n != 1 for n in weight.shape[4:]):
        raise GraphError(f"kernel of shape {weight.shape}, expected (O, I, kH, kW) or (O, I, kH, kW, 1); export it again")
    weight = _shaped(weight, weight.shape[:4])
    order = kernel_order(row, weight.shape)
    if order == (0, 1, 2, 3):
        return weight
    notes.append(f"'{name}': a kernel of shape {weight.shape} is taken transposed, as its channels and sizes say")
    return np.ascontiguousarray(weight.transpose(order))


ORDERS = ((0, 1, 2, 3), (0, 1, 3, 2), (0, 3, 2, 1), (0, 3, 1, 2), (3, 2, 0, 1), (3, 2, 1, 0), (1, 0, 2, 3))
"""How the axes of a kernel may have been turned: none; width first; Lava's; channels last; TensorFlow's; swapped channels."""


def kernel_order(row: Tree, shape: Shape) -> tuple[int, ...]:
    """Return the first order of axes in which a kernel has the channels and sizes that its entry states."""
    outputs, inputs = (whole_numbers(row.get(key)) for key in ("outChannels", "inChannels"))
    stated, shaped = whole_numbers(row.get("kernelSize")), whole_numbers(row.get("shape"))
    groups = (whole_numbers(row.get("groups")) or (1,))[0]
    expected = (
        (outputs or shaped or (None,))[0],
        inputs[0] // max(groups, 1) if inputs else None,
        *(stated if stated and len(stated) == 2 else (None, None)),
    )
    for order in ORDERS:
        turned = tuple(shape[axis] for axis in order)
        if all(want is None or want == n for want, n in zip(expected, turned, strict=True)):
            return order
    return ORDERS[0]


def per_neuron(value: Array, shape: Shape, key: str, *, flipped: bool = False) -> Array:
    """Return a parameter that spreads over (C, H, W): one number, one per channel, or one per neuron (lava-dl: W, H, C)."""
    if value.size == 1:
        return value.reshape(())
    if value.size == shape[0]:
        return value.reshape(-1, *(1 for _ in shape[1:]))
    if flipped and value.shape == shape[::-1]:
        return value.transpose()
    if value.shape == shape:
        return value
    raise GraphError(f"'{key}' of shape {value.shape} for neurons of shape {shape}; {AGAIN}")


def exponent(row: Tree, notes: list[str], name: str) -> int:
    """Return the exponent of an entry's weights, which only older tools of lava-dl's authors mean."""
    stored = row.get("neuron")
    value = whole_numbers(stored.get("wgtExp")) if isinstance(stored, dict) else None
    if not value or not value[0]:
        return 0
    if abs(value[0]) > 7:
        raise GraphError(f"'wgtExp' of {value[0]}, the format holds -8..7; {AGAIN}")
    notes.append(f"'{name}': weights count 2^{value[0]} times (wgtExp); lava-dl's reader passes over it")
    return value[0]


def delays(row: Tree, shape: Shape, notes: list[str], name: str) -> Array:
    """Return the delay in steps: one number for all, or an array that lies over weights of this shape."""
    if "delay" not in row:
        return np.zeros((), np.int64)
    found = np.floor(numbers(row, "delay"))
    if found.min() < 0:
        raise GraphError(f"a delay of {found.min():g} steps, expected 0..{MOST_DELAY}; {AGAIN}")
    if found.max() > MOST_DELAY:
        notes.append(f"'{name}': delays of up to {found.max():g} steps are cut to {MOST_DELAY}, as lava-dl does")
        found = np.minimum(found, MOST_DELAY)
    steps = found.astype(np.int64)
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
