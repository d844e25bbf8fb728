"""Axes of a signal in another order: positions in front of channels.

A network keeps channels in front. What a forward flattens in another order is a permutation of the columns of the weights behind
it, and of the values of a batch norm before them. A linear layer on channels behind positions is a convolution with a kernel of
one position.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.symbols import Moved, Reordered, Signal, describe, name_module
from spear_deploy.network import Array, BatchNorm, Conv1d, Conv2d, Dense, Flatten, Shape, Synapse, write_out
from spear_deploy.util.number_format import format_shape

KEEP_CHANNELS_IN_FRONT = (
    "keep channels in front of positions; flatten, a batch norm behind it and Linear alone take another order"
)


def read_order(name: str, axes: tuple[Any, ...], count: int) -> tuple[int, ...] | None:
    """Return which axis stands at each place behind `permute`, `transpose` or `movedim`, None where the arguments do not say so.

    >>> read_order("permute", (0, 2, 3, 1), 4), read_order("transpose", (1, -1), 4), read_order("movedim", (1, -1), 4)
    ((0, 2, 3, 1), (0, 3, 2, 1), (0, 2, 3, 1))
    """
    if not all(isinstance(axis, int) and -count <= axis < count for axis in axes):
        return None
    places = [axis % count for axis in axes]
    if name == "permute":
        return tuple(places) if sorted(places) == list(range(count)) else None
    if len(places) != 2:
        return None
    order = list(range(count))
    if name in ("movedim", "moveaxis"):
        order.insert(places[1], order.pop(places[0]))
    else:
        order[places[0]], order[places[1]] = places[1], places[0]
    return tuple(order)


def reorder(value: Signal | Reordered, order: tuple[int, ...]) -> Signal | Reordered:
    """Return a signal whose axes are those of another one in this order; in their own order it is the signal itself."""
    if order == tuple(range(len(order))):
        return value
    held = value if isinstance(value, Reordered) else Reordered(value, value.shape, order=tuple(range(len(value.shape))))
    made = replace(held, order=tuple(held.order[place] for place in order))
    return made.signal if list(made.order) == sorted(made.order) else made


def list_columns(axes: Shape, order: tuple[int, ...]) -> Array:
    """Return the place in its own order of each value of a signal that is flattened in another order of its axes.

    >>> list_columns((2, 3), (1, 0))
    array([0, 3, 1, 4, 2, 5])
    """
    places: Array = np.arange(int(np.prod(axes))).reshape(axes).transpose(order).ravel()
    return places


def take_columns(part: Dense | BatchNorm, places: Array) -> Dense | BatchNorm:
    """Return the weights, or the norm of a flat signal, with these of their inputs in this order."""
    if isinstance(part, Dense):
        return replace(part, weight=part.weight[:, places])
    return replace(part, **{name: getattr(part, name)[places] for name in ("weight", "bias", "mean", "var")})


def add_reordered(builder: GraphBuilder, path: str, x: Reordered, part: Synapse | BatchNorm | None) -> Signal | Reordered:
    """Add a layer behind a signal in another order of its axes: a flatten, a batch norm behind it, or a linear layer's weights.

    Args:
        builder: takes the layer.
        path: of the module.
        x: the signal.
        part: the counterpart of the module, None where it changes nothing.

    Raises:
        UnsupportedError: any other part, or more than two axes of positions.
    """
    if part is None:
        return x
    if isinstance(part, Flatten) and not x.is_flat:
        return replace(x, signal=builder.add_layer(path, x.signal, synapse=part), is_flat=True)
    if isinstance(part, (Dense, BatchNorm)) and x.is_flat:
        own = take_columns(part, np.argsort(list_columns(x.axes, x.order)))
        is_norm = isinstance(own, BatchNorm)
        made = builder.add_layer(path, x.signal, norm=own) if is_norm else builder.add_layer(path, x.signal, synapse=own)
        builder.column_orders[made.name] = (x.axes, x.order)
        return replace(x, signal=made) if is_norm else made
    if isinstance(part, Dense):
        return _add_at_each_position(builder, path, x, part)
    raise make_refusal(x, path)


def make_refusal(x: Reordered, path: str) -> UnsupportedError:
    """Return the error for a module or function that gets axes in another order than a network has them."""
    return UnsupportedError(f"{name_module(path)} gets {describe(x)}; {KEEP_CHANNELS_IN_FRONT}")


def read_moved(module: torch.nn.Module, x: Moved, path: str, folded: tuple[type, ...]) -> torch.nn.Module:
    """Return the module that computes the same on channels behind time and batch as one on channels between them.

    Raises:
        UnsupportedError: it is no batch norm of torch, no convolution of one step, and none of those that change nothing.
    """
    is_norm = isinstance(module, torch.nn.BatchNorm1d) and type(module).forward is torch.nn.BatchNorm1d.forward
    if isinstance(module, torch.nn.Conv1d) and type(module).forward is torch.nn.Conv1d.forward and _is_pointwise(module):
        outputs, inputs, _ = module.weight.shape
        linear: Any = torch.nn.Linear(inputs, outputs, bias=module.bias is not None, device="meta")
        linear.weight = torch.nn.Parameter(module.weight[:, :, 0].detach(), requires_grad=False)
        linear.bias = module.bias
        return linear
    if not is_norm and not isinstance(module, folded):
        raise UnsupportedError(
            f"{name_module(path)} is {type(module).__name__} on {describe(x)}, where it would act along time; give it time and "
            "batch in front, a batch norm or a Conv1d of kernel_size=1 and groups=1 alone takes them so"
        )
    return module


def _is_pointwise(module: torch.nn.Conv1d) -> bool:
    """Return whether a convolution takes one place alone, for each of its outputs."""
    return (
        module.kernel_size == (1,) and module.stride == (1,) and module.padding in ((0,), "same", "valid") and module.groups == 1
    )


def takes_last_axis(module: torch.nn.Module, x: Reordered) -> bool:
    """Return whether a module is a linear layer on the channels of a signal, which are its last axis of several."""
    return isinstance(module, torch.nn.Linear) and not x.is_flat and x.order[-1] == 0 and module.in_features == x.axes[0]


def _add_at_each_position(builder: GraphBuilder, path: str, x: Reordered, part: Dense) -> Reordered:
    """Add a convolution with a kernel of one position: a linear layer on the channels."""
    dims = len(x.axes) - 1
    if dims > 2:
        raise UnsupportedError(
            f"{name_module(path)} is Linear on {format_shape(x.shape)} values; expected one or two axes of positions"
        )
    weight = write_out(part.weight)
    kind: Any = Conv1d if dims == 1 else Conv2d
    conv = kind(weight=weight.reshape(*weight.shape, *(1 for _ in range(dims))), bias=part.bias)
    made = builder.add_layer(path, x.signal, synapse=conv)
    return Reordered(made, made.shape, x.order)
