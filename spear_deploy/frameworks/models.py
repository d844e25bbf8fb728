"""Networks from torch models of Norse, snnTorch, SpikingJelly, sinabs or Rockpool.

The model's forward is traced; each call becomes a layer, changes nothing, or is refused with its place. `support_table` lists the
modules of Norse and torch; a file of this folder per framework holds its conventions. A model is of one of five kinds:

    one step     forward(x: (B, *shape), state=None) -> (output, state)         cells; a state is handed back, or kept inside
    over time    forward(x: (T, B, *shape)) -> output                           modules over time, such as Norse's LIF
    loop         forward(x: (T, B, *shape)) -> output                           cells, and a loop over x[t]
    batch loop   forward(x: (B, T, *shape)) -> output                           the same over x[:, t], or after a transpose
    repeat       forward(x: (B, *shape)) -> outputs of all steps                cells, and a loop that feeds x in every step

Layers without state may run on time and batch in one axis, x.flatten(0, 1), in all forms that have both. Feedback by hand, an
output of steps before that is used again, becomes an edge of that delay.
"""

from __future__ import annotations

import importlib
import math
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import FileError, GraphError, UnsupportedError, did_you_mean, summarize_error
from spear_deploy.frameworks.detect import find_framework
from spear_deploy.frameworks.importer.forward_code import copy_model, takes_state
from spear_deploy.frameworks.importer.import_model import add_assumption, import_model
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.synapses import to_array
from spear_deploy.frameworks.importer.trace import detect_form
from spear_deploy.frameworks.input_shape import NoInputShapeError, find_input_shape, find_input_width
from spear_deploy.network import Array, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.number_format import format_shape, plural

MAX_DIFFERENCE = 200
"""Characters of what weights and a model differ in, in a message."""


def read_model(
    model: torch.nn.Module, input_shape: Sequence[int] | None = None, *, dt_s: float | None = None, place: str = "the model"
) -> SNNGraph:
    """Return the network of a model.

    Args:
        model: of one step or over time; it is copied and read in evaluation mode.
        input_shape: without time and batch; None where the modules determine it (`input_shape`).
        dt_s: the time step in s; where the modules state one, it must agree and may be left out.
        place: the model, for the error that its input shape is not known.

    Returns:
        Layers named after the modules, a synapse with its norm and neuron as one; a max pool of spikes is an IF neuron of the
        same step, weights behind concatenated outputs are a layer for each of them. In float32 the states of every neuron are
        Norse's to the bit for equal input; only a recurrent cell adds its two currents in another order. Those of other
        frameworks agree up to rounding, and so do spikes except where a membrane meets its threshold within it. Weights in half
        precision become float32.

    Raises:
        UnsupportedError: a module, function or use of a state that has no exact counterpart, with its place.
        GraphError: shapes that do not meet.
    """
    if type(model).__name__ == "ExportedProgram" or _is_exported(model):
        raise UnsupportedError("the model is what torch.export made, operations in place of modules; give the module itself")
    if not isinstance(model, torch.nn.Module):
        raise UnsupportedError(f"a model is a torch module, got {type(model).__name__}")
    for path, module in torch.nn.Module.named_modules(model):
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedError(
                f"{name_module(path)} is TorchScript, whose forward cannot be read; give what it was made from"
            )
    if not _is_built_here(model):
        framework = find_framework(model)
        if input_shape is None:
            return _read_without_shape(model, dt_s=dt_s, place=place)
        return import_model(model, _parse_shape(input_shape, "read_model"), framework=framework, dt_s=dt_s)
    from spear_deploy.norse.network import NorseNetwork, to_graph

    assert isinstance(model, NorseNetwork)
    graph = to_graph(model)
    shape = graph.input_shape if input_shape is None else _parse_shape(input_shape, "read_model")
    if graph.input_shape != shape:
        raise GraphError(
            f"the network takes {format_shape(graph.input_shape)} inputs, input shape {format_shape(shape)} was given"
        )
    return graph


def _is_exported(model: Any) -> bool:
    """Return whether a model is the module of an exported program, whose forward calls operators of ATen."""
    is_graph = isinstance(model, torch.fx.GraphModule)
    return is_graph and any(isinstance(node.target, torch._ops.OpOverload) for node in model.graph.nodes)


def _read_without_shape(model: torch.nn.Module, *, dt_s: float | None, place: str) -> SNNGraph:
    """Return the network of a model with the input shape that its modules determine.

    Raises:
        UnsupportedError: they determine none.
    """
    try:
        given = find_input_shape(model)
    except NoInputShapeError as error:
        raise UnsupportedError(
            f"{place} states no input shape: {error}; return (model, input_shape), or give --input-shape (input_shape), "
            "without time and batch"
        ) from error
    graph = read_model(model, given.shape, dt_s=dt_s)
    return graph if given.note is None else add_assumption(graph, given.note)


def _is_built_here(model: torch.nn.Module) -> bool:
    """Return whether a model is a `NorseNetwork`, without an import of Norse, which only such a network needs."""
    module = sys.modules.get("spear_deploy.norse.network")
    return module is not None and isinstance(model, module.NorseNetwork)


@torch.no_grad()
def run_model(model: torch.nn.Module, x: Array) -> Array:
    """Run a Norse model over time in evaluation mode, from its initial state; its mode is as before afterwards.

    Args:
        model: of one step or over time.
        x: (T, B, *input).

    Returns:
        (T, B, *output).
    """
    from spear_deploy.frameworks.norse import NORSE

    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.zeros(()))
    spikes = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(like.device, like.dtype)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        form = "layers" if _is_built_here(model) else detect_form(copy_model(model), x.shape[2:], NORSE)
        if form == "batch_loop":
            raise UnsupportedError("the model takes batch in front of time; run the network that `load` reads from it")
        if form == "repeat":
            raise UnsupportedError(
                "the model feeds one input in all its steps, which have no input of their own; run the network that `load` reads "
                "from it"
            )
        if form != "step":
            return to_array(_get_output(model(spikes)))
        state, out = None, []
        for step in spikes:
            result = model(step, state) if takes_state(model) else model(step)
            state = result[1] if isinstance(result, tuple) else None
            out.append(_get_output(result))
        return to_array(torch.stack(out))
    finally:
        for module, mode in training:
            module.training = mode


def load_model(
    spec: str, input_shape: Sequence[int] | None = None, *, fallback: Callable[[], Sequence[int]] | None = None
) -> tuple[torch.nn.Module, Shape | None]:
    """Return the model that "package.module:function" names and its input shape, None where it states none.

    The current directory is searched too.

    The function takes no arguments and returns a model or (model, input shape); a model may carry `input_shape` itself. A module
    in place of the function is taken as it is.

    Args:
        spec: "package.module:function".
        input_shape: without time and batch; it takes precedence over the function's.
        fallback: returns the input shape if there is none so far, e.g. that of the data. A linear layer at the beginning takes
            it as one axis.

    Raises:
        FileError: no such module or function, or one that fails.
        UnsupportedError: no torch module, or an input shape that is none.
    """
    name, colon, attribute = spec.partition(":")
    if not (name and colon and attribute):
        raise FileError(f"'{spec}': expected package.module:function, such as my_net:build")
    if name.endswith(".py") or "/" in name or os.sep in name:
        folder, module = os.path.split(name.removesuffix(".py"))
        there = f", in the folder '{folder}'" if folder not in ("", ".") else ""
        raise FileError(
            f"'{spec}': a module has neither path nor ending; name it as Python imports it, {module}:{attribute}{there}"
        )
    with _search_current_directory():
        result = _import_attribute(name, attribute)
        if callable(result) and not isinstance(result, torch.nn.Module):
            try:
                result = result()
            except (Exception, SystemExit) as error:
                raise FileError(f"'{spec}' fails: {_describe_failure(error)}") from error
    model, shape = result if isinstance(result, tuple) and len(result) == 2 else (result, getattr(result, "input_shape", None))
    if not isinstance(model, torch.nn.Module):
        is_weights = isinstance(model, Mapping) and all(isinstance(value, torch.Tensor) for value in model.values()) and model
        what = "weights by name, a state_dict" if is_weights else type(model).__name__
        how = "; build the module there, and load them by load_state_dict" if is_weights else ""
        raise UnsupportedError(f"'{spec}' gives {what}, expected a torch module or (torch module, input shape){how}")
    shape = input_shape if input_shape is not None else shape
    if shape is None and fallback is not None:
        shape = fit_input_shape(model, tuple(fallback()))
    return model, None if shape is None else _parse_shape(shape, f"'{spec}'")


def _describe_failure(error: BaseException) -> str:
    """Return why a function that makes a model fails, and what to do."""
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
        more = f" and {plural(len(lines) - 2, 'more difference')}" if len(lines) > 2 else ""
        what = shorten(" ".join(lines[1:2]), MAX_DIFFERENCE, placeholder=" ...")
        return f"the weights are not those of this model: {what}{more}; build it with the sizes of the training"
    advice = "it is called without arguments" if isinstance(error, TypeError) else "correct it, or the files that it reads"
    return f"{summarize_error(error)}; {advice}"


def read_named(
    spec: str,
    input_shape: Sequence[int] | None = None,
    *,
    fallback: Callable[[], Sequence[int]] | None = None,
    dt_s: float | None = None,
) -> SNNGraph:
    """Return the network of the model that "package.module:function" names; arguments and errors are of the two functions above.

    A class in place of the function has a note, since nobody may have trained what it makes.
    """
    model, shape = load_model(spec, input_shape, fallback=fallback)
    graph = read_model(model, shape, dt_s=dt_s, place=f"'{spec}'")
    name, _, attribute = spec.partition(":")
    if not isinstance(getattr(sys.modules.get(name), attribute, None), type):
        return graph
    note = f"the model is made by calling the class {attribute}: its weights are as initialised, unless the class loads trained "
    return add_assumption(graph, f"{note}ones; name a function that returns it with trained weights")


def fit_input_shape(model: torch.nn.Module, shape: Shape) -> Shape:
    """Return the shape in which a model takes samples of a shape: one axis where it begins with a linear layer of that width."""
    width = find_input_width(model, behind=())
    return (width,) if width is not None and math.prod(shape) == width else shape


def _parse_shape(shape: Any, origin: str) -> Shape:
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise UnsupportedError(f"{origin}: input shape {shape!r}, expected whole numbers such as (1, 28, 28)") from None


@contextmanager
def _search_current_directory() -> Iterator[None]:
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _import_attribute(name: str, attribute: str) -> Any:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and (name + ".").startswith(error.name + ".")
        if missing:
            raise FileError(
                f"module '{name}': there is none here or among the installed packages; check its name, or change to its folder"
            ) from None
        raise FileError(f"module '{name}' fails on import: {summarize_error(error)}") from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module)) or "; name one that returns the network"
        raise FileError(f"'{name}:{attribute}': no such function in {name}{hint}")
    return getattr(module, attribute)


def _get_output(result: Any) -> torch.Tensor:
    value: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return value
