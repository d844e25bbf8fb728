"""Input shape of a model, where its modules determine it.

A linear layer in front takes one axis of its width. Behind convolutions the first linear layer decides: the model is traced on an
input that does not fit, and each square is sent through the layers in front of it, by their shapes alone. A single one that fits
is the input. Pools round down, so often several fit: then the one that common data have, where it is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.frameworks.detect import find_framework
from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.forward_code import copy_model
from spear_deploy.frameworks.importer.interpreter import interpret
from spear_deploy.frameworks.importer.symbols import Signal
from spear_deploy.frameworks.importer.trace import detect_form
from spear_deploy.network import Shape
from spear_deploy.network.graph import INPUT
from spear_deploy.util.number_format import format_shape

INERT = (torch.nn.Flatten, torch.nn.Identity, torch.nn.Dropout)
"""Modules that keep the number of values."""
PROBES = (97, 193)
"""Sizes of the inputs on which a model is traced: few models take one of them, and only those of any size take both."""
MAX_SIZE = 512
DATA: dict[Shape, str] = {
    (1, 28, 28): "MNIST",
    (2, 34, 34): "N-MNIST",
    (2, 128, 128): "DVS128",
    (3, 32, 32): "CIFAR-10",
    (3, 224, 224): "ImageNet",
}
"""Shapes of common data, whose names stand in the note."""
CONVOLUTIONS = {torch.nn.Conv1d: 1, torch.nn.Conv2d: 2}
"""Convolutions by their axes of positions."""


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """The input shape of a model.

    Attributes:
        shape: without time and batch.
        note: what was assumed, for the user; None where a module states the shape.
    """

    shape: Shape
    note: str | None = None


class NoInputShapeError(UnsupportedError):
    """The modules of a model determine no input shape."""


def find_input_shape(model: torch.nn.Module) -> InputShape:
    """Return the input shape that the modules of a model determine.

    Raises:
        NoInputShapeError: none or several; the message is the reason alone.
        UnsupportedError: a part of the model that no input shape makes readable.
    """
    width = find_input_width(model, behind=(*INERT, *_list_neurons(model)))
    if width is not None:
        return InputShape(shape=(width,))
    first: Any = next((leaf for leaf in _list_leaves(model) if isinstance(leaf, (*CONVOLUTIONS, torch.nn.Linear))), None)
    dims = next((dims for kind, dims in CONVOLUTIONS.items() if isinstance(first, kind)), None)
    if first is None or dims is None:
        raise NoInputShapeError("it begins with neither a linear layer nor a convolution")
    builder, source, count = _trace_to_linear(model, int(first.in_channels), dims)
    shapes = [(int(first.in_channels), *(size,) * dims) for size in range(1, MAX_SIZE + 1)]
    fitting = [shape for shape in shapes if _count_values(builder, shape, source) == count]
    square = "square" if dims == 2 else "length"
    if len(fitting) == 1:
        why = f"the only {square} of which the first linear layer gets its {count} values"
        return InputShape(shape=fitting[0], note=_note(fitting[0], why))
    if not fitting:
        raise NoInputShapeError(f"no {square} of an input gives the {count} values that its first linear layer takes")
    listed = f"{format_shape(fitting[0])} to {format_shape(fitting[-1])}"
    known = {shape: name for shape, name in DATA.items() if shape in fitting}
    if len(known) != 1:
        raise NoInputShapeError(f"inputs of {listed} fit its layers")
    ((shape, name),) = known.items()
    return InputShape(shape=shape, note=_note(shape, f"as {name} has them, of {listed} that fit its layers"))


def _note(shape: Shape, why: str) -> str:
    return f"no input shape is given: inputs of {format_shape(shape)} are taken, {why}; --input-shape overrules"


def find_input_width(model: torch.nn.Module, *, behind: tuple[type, ...]) -> int | None:
    """Return the inputs of the linear layer or recurrent cell in front of a model, `behind` modules of some kinds, or None."""
    leaves: list[Any] = [module for module in _list_leaves(model) if not isinstance(module, behind)]
    first, second = (*leaves[:2], None, None)[:2]
    if isinstance(first, torch.nn.BatchNorm1d) and getattr(second, "in_features", None) == first.num_features:
        first = second  # a norm of one axis, which the linear layer takes whole
    if isinstance(first, torch.nn.Linear):
        return first.in_features
    if type(first).__name__ == "LinearTorch":
        return int(first.size_in)
    width = getattr(first, "input_size", None)  # of a recurrent cell with weights of its own
    return int(width) if isinstance(width, (int, torch.Tensor)) else None


def _list_neurons(model: torch.nn.Module) -> tuple[type, ...]:
    """Return the classes of neurons without weights, which a model may declare in front of the layers that feed them."""
    framework = find_framework(model)
    parameters = torch.nn.Module.parameters
    neurons = [leaf for leaf in _list_leaves(model) if framework.has_state(leaf)]
    return tuple({type(leaf) for leaf in neurons if all(value.ndim < 2 for value in parameters(leaf))})


def _list_leaves(model: torch.nn.Module) -> Iterator[Any]:
    """Return the modules that hold no others, as declared; a layer that computes its weights is one."""
    parts = list(torch.nn.Module.children(model))  # Rockpool's modules have others under this name
    if not parts or isinstance(model, (*CONVOLUTIONS, torch.nn.Linear)):
        yield model
        return
    for part in parts:
        yield from _list_leaves(part)


def _trace_to_linear(model: torch.nn.Module, channels: int, dims: int) -> tuple[GraphBuilder, str, int]:
    """Return the layers in front of the first linear layer, the name of the last of them, and how many values it is to give.

    Raises:
        NoInputShapeError: every size fits, or another part takes one that it does not tell.
        UnsupportedError: a part of the model that no input shape makes readable.
    """
    framework = find_framework(model)
    model, errors = framework.prepare(copy_model(model).eval()), []
    for size in PROBES:
        shape = (channels, *(size,) * dims)
        builder = GraphBuilder(default_dt_s=framework.dt_s)
        try:
            form = detect_form(model, shape, framework)
            interpret(copy_model(model), Signal(INPUT, shape), path="", form=form, builder=builder, framework=framework)
        except (GraphError, UnsupportedError) as error:
            if builder.missed is not None:
                return builder, *builder.missed
            if isinstance(error, GraphError):
                raise NoInputShapeError(f"{error} for an input of {format_shape(shape)}") from error
            errors.append(error)
    if len(errors) == len(PROBES) and len({str(error) for error in errors}) == 1:
        raise errors[0]
    if errors:  # it depends on the size
        reason = str(errors[0]).partition(";")[0]
        raise NoInputShapeError(f"{reason} for an input of {format_shape((channels, *(PROBES[0],) * dims))}") from errors[0]
    raise NoInputShapeError("its layers take any size")


def _count_values(builder: GraphBuilder, shape: Shape, end: str) -> int | None:
    """Return how many values the layer `end` gives for an input, None where that does not fit the layers before it."""
    shapes = {INPUT: shape}
    sources: dict[str, str] = {}
    for edge in builder.edges:
        sources.setdefault(edge.target, edge.source)
    try:
        for layer in builder.layers:
            given = shapes.get(sources.get(layer.name, ""))
            if given is not None:
                shapes[layer.name] = layer.output_shape(given)
            if layer.name == end:
                break
    except GraphError:
        return None
    return math.prod(shapes[end]) if end in shapes else None
