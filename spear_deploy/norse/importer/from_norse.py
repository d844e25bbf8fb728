"""What network is a Norse model? Any torch module of Norse cells or time layers → `SNNGraph`, exactly, or refused by name.

The model's forward is traced; every call in the trace becomes a layer, is folded, or is refused with its place. What becomes of
which module is a table: `norse_support`. A model is one of three kinds:

    one step     forward(x: (B, *shape), state=None) -> (output, state)         cells; the states must be handed back
    over time    forward(x: (T, B, *shape)) -> output                           Lift and time layers such as LIF
    loop         forward(x: (T, B, *shape)) -> output                           cells, and a loop over x[t]

Feedback by hand, an output of the step before that is used again, becomes an edge of delay 1.
"""

from __future__ import annotations

import copy
import importlib
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import FileError, GraphError, UnsupportedError, did_you_mean
from spear_deploy.network import Array, Shape
from spear_deploy.network.graph import INPUT, SNNGraph, merge_parts
from spear_deploy.norse.cells import array
from spear_deploy.norse.importer.builder import GraphBuilder
from spear_deploy.norse.importer.interpreter import interpret
from spear_deploy.norse.importer.symbols import Value
from spear_deploy.norse.importer.synapses import by
from spear_deploy.norse.importer.trace import first_line, form_of, takes_state
from spear_deploy.norse.network import NorseNetwork, to_graph


def from_norse(model: torch.nn.Module, input_shape: Sequence[int], *, dt_s: float | None = None) -> SNNGraph:
    """Return the network that a Norse model is.

    Args:
        model: of one step or over time; it is copied and read in evaluation mode.
        input_shape: without time and batch.
        dt_s: checked against the time step of the cells, which must agree; needed by none of them.

    Returns:
        Layers named after the modules, a synapse with its norm and neuron as one; a max pool of spikes is an IF neuron of the
        same step, weights behind outputs side by side are a layer for each of them. In float32 the states of every neuron are
        Norse's to the bit for equal drive; only a recurrent cell adds its two currents in another order. Weights in half
        precision become float32.

    Raises:
        UnsupportedError: a module, function or use of a state that has no exact counterpart, with its place.
        GraphError: shapes that do not meet.
    """
    if not isinstance(model, torch.nn.Module):
        raise UnsupportedError(f"a Norse model is a torch module, got {type(model).__name__}")
    if isinstance(model, NorseNetwork):
        graph = to_graph(model)
        shape = _sizes(input_shape, "from_norse")
        if graph.input_shape != shape:
            raise GraphError(f"the network takes {by(graph.input_shape)} inputs, input shape {by(shape)} was given")
        return graph
    try:
        model = copy.deepcopy(model, _computed(model)).eval()
    except RuntimeError as error:  # a tensor in the middle of a gradient, which torch does not copy
        raise UnsupportedError(f"the model cannot be copied: {first_line(error)}; build it anew and load its weights") from error
    shape = _sizes(input_shape, "from_norse")
    walk = GraphBuilder()
    out = interpret(walk, model, Value(INPUT, shape), path="", form=form_of(copy.deepcopy(model), shape)).value
    if out.name == INPUT:
        raise UnsupportedError("the model hands its input back; expected at least one layer")
    graph = SNNGraph(
        layers=tuple(walk.layers),
        edges=tuple(walk.without_zeros()),
        input_shape=shape,
        dt_s=walk.time_step(dt_s),
        output=out.name,
        metadata={"source": "norse"},
    )
    return merge_parts(graph)


def _computed(model: torch.nn.Module) -> dict[int, torch.Tensor]:
    """Return copies of tensors that modules hold as results of a computation, such as pruned weights, by id."""
    held = [value for module in model.modules() for value in vars(module).values()]
    return {id(value): value.detach().clone() for value in held if isinstance(value, torch.Tensor) and not value.is_leaf}


@torch.no_grad()
def run_norse(model: torch.nn.Module, x: Array) -> Array:
    """Run a Norse model over time in evaluation mode, from its initial state; its mode is as before afterwards.

    Args:
        model: of one step or over time.
        x: (T, B, *input).

    Returns:
        (T, B, *output).
    """
    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.zeros(()))
    spikes = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(like.device, like.dtype)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        if isinstance(model, NorseNetwork) or form_of(copy.deepcopy(model, _computed(model)), x.shape[2:]) != "step":
            return array(_first(model(spikes)))
        state, out = None, []
        for step in spikes:
            result = model(step, state) if takes_state(model) else model(step)
            state = result[1] if isinstance(result, tuple) else None
            out.append(_first(result))
        return array(torch.stack(out))
    finally:
        for module, mode in training:
            module.training = mode


def load_model(
    spec: str, input_shape: Sequence[int] | None = None, *, fallback: Callable[[], Sequence[int]] | None = None
) -> tuple[torch.nn.Module, Shape]:
    """Return the model and input shape that "package.module:function" names; the current directory is searched too.

    The function takes no arguments and returns a model or (model, input shape); a model may carry `input_shape` itself. A module
    in place of the function is taken as it is.

    Args:
        spec: "package.module:function".
        input_shape: without time and batch; goes before what the function says.
        fallback: tells the input shape where neither does, e.g. from the data at hand.

    Raises:
        FileError: no such module or function, or one that fails.
        UnsupportedError: something else than a torch module, or no input shape.
    """
    name, colon, attribute = spec.partition(":")
    if not (name and colon and attribute):
        raise FileError(f"'{spec}': expected package.module:function, such as my_net:build")
    with _current_directory():
        found = _attribute(name, attribute)
        made = found
        if callable(found) and not isinstance(found, torch.nn.Module):
            try:
                made = found()
            except (Exception, SystemExit) as error:
                raise FileError(
                    f"'{spec}' fails: {type(error).__name__}: {first_line(error)}; it is called without arguments"
                ) from error
    model, shape = made if isinstance(made, tuple) and len(made) == 2 else (made, getattr(made, "input_shape", None))
    if not isinstance(model, torch.nn.Module):
        raise UnsupportedError(f"'{spec}' gives {type(model).__name__}, expected a torch module or (torch module, input shape)")
    shape = input_shape if input_shape is not None else shape
    if shape is None and fallback is not None:
        shape = fallback()
    if shape is None:
        raise UnsupportedError(f"'{spec}' says no input shape; return (model, input_shape), or give --input-shape")
    return model, _sizes(shape, f"'{spec}'")


def _sizes(shape: Any, who: str) -> Shape:
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise UnsupportedError(f"{who}: input shape {shape!r}, expected whole numbers such as (1, 28, 28)") from None


@contextmanager
def _current_directory() -> Iterator[None]:
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _attribute(name: str, attribute: str) -> Any:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and (name + ".").startswith(error.name + ".")
        if missing:
            raise FileError(f"module '{name}': there is none here or among the installed packages") from None
        raise FileError(f"module '{name}' fails on import: {type(error).__name__}: {first_line(error)}") from error
    if not hasattr(module, attribute):
        raise FileError(f"'{name}:{attribute}': no such function in {name}{did_you_mean(attribute, vars(module))}")
    return getattr(module, attribute)


def _first(result: Any) -> torch.Tensor:
    value: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return value
