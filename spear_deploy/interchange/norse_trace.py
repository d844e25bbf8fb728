"""What does a model's forward do? Its first two steps, traced by torch.fx up to the modules that mean something.

One step shows what feeds what. The second, which starts from what the first hands back, shows whether every neuron gets its own
state again: a model that drops a state runs, but its neurons start anew in every step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.norse_cells import CELLS, TIMED, norse
from spear_deploy.interchange.norse_modules import PLAIN
from spear_deploy.layers import Shape

STEPPED = (norse.LILinearCell, norse.RecurrentSequential, *{kind.__bases__[0] for kind in CELLS})
"""Modules that compute one step and have a state."""
OVER_TIME = (norse.Lift, norse.LConv2d, *{kind.__bases__[0] for kind in TIMED})
"""Modules whose first axis is time."""


@dataclass(frozen=True)
class Value:
    """What a layer emits; `past` in the step before."""

    name: str
    shape: Shape
    past: bool = False


@dataclass(frozen=True)
class State:
    """States of neurons; `past` as they were after the step before."""

    of: frozenset[str] = frozenset()
    past: bool = False


@dataclass(frozen=True)
class Pair:
    """What a stateful module returns."""

    value: Value
    state: State


@dataclass(frozen=True)
class Sizes:
    """The shape of a value as a tensor has it: (steps,) batch, *shape."""

    value: Value


@dataclass(frozen=True)
class Leading:
    """The size of the batch or time axis."""

    axis: int


Thing: TypeAlias = Any
"""One of the above, a tuple or dictionary of them, or a constant."""


def describe(thing: Thing) -> str:
    """Say what a thing in a trace is."""
    if isinstance(thing, Value):
        return f"the output of '{thing.name}'" + (" one step before" if thing.past else "")
    kinds = ((State, "the state of a neuron"), (Pair, "(output, state)"), ((Sizes, Leading), "a shape"), (dict, "a dictionary"))
    found = next((text for kind, text in kinds if isinstance(thing, kind)), None)
    return found or (f"{len(thing)} values" if isinstance(thing, tuple) else f"the constant {thing!r}")


def one_value(given: Thing, place: str) -> Value:
    """Return the output of a layer in this step, or say what is there in its place."""
    if isinstance(given, Value) and not given.past:
        return given
    if isinstance(given, (Pair, tuple)):
        raise UnsupportedError(
            f"{place} gets (output, state) of the module before it; use SequentialState in place of Sequential"
        )
    if isinstance(given, Value):
        raise UnsupportedError(f"{place} gets {describe(given)}; feed spikes back by LIFRecurrentCell or RecurrentSequential")
    raise UnsupportedError(f"{place} gets {describe(given)}, expected the output of a module")


def where(path: str) -> str:
    """Name a place in the model."""
    return f"module '{path}'" if path else "the model"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_timed(model: torch.nn.Module) -> bool:
    """Say whether a model runs over time, by the modules in it; those within a Lift run step by step.

    Raises:
        UnsupportedError: modules of both kinds beside each other.
    """
    found: dict[bool, str] = {}

    def look(module: torch.nn.Module, path: str) -> None:
        if isinstance(module, (*OVER_TIME, *STEPPED)):
            found.setdefault(isinstance(module, OVER_TIME), f"'{path}' ({type(module).__name__})")
        if not isinstance(module, norse.Lift):
            for name, child in module.named_children():
                look(child, f"{path}.{name}" if path else name)

    look(model, "")
    if len(found) == 2:
        raise UnsupportedError(f"module {found[True]} runs over time, module {found[False]} one step; use one kind, or Lift")
    return True in found


def takes_state(model: torch.nn.Module) -> bool:
    """Say whether a model's forward takes something beside its input."""
    return len(_arguments(model)) > 1


def _arguments(model: torch.nn.Module) -> list[inspect.Parameter]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


class Steps(torch.nn.Module):
    """A model's first two steps, or its one pass over time.

    Attributes:
        handed_back: what the first step returned beside its output.
    """

    def __init__(self, model: torch.nn.Module, tracer: Tracer, *, timed: bool, pick: int | None = None) -> None:
        super().__init__()
        self.model, self.timed, self.pick = model, timed, pick
        self.handed_back: Any = None
        self.__dict__["tracer"] = tracer

    def forward(self, x: Any, later: Any) -> Any:
        """Return the outputs of both steps, or of the pass."""
        defaults = [None if p.default is p.empty else p.default for p in _arguments(self.model)[1:]]
        first, self.handed_back = self._split(self.model(x, *defaults))
        if self.timed:
            return first
        self.__dict__["tracer"].step = 1
        if self.handed_back is None or not takes_state(self.model):
            second = self.model(later, *defaults)
        else:
            second = self.model(later, self.handed_back, *defaults[1:])
        return first, self._split(second)[0]

    def _split(self, result: Any) -> tuple[Any, Any]:
        if isinstance(result, fx.Proxy) and result.node.op == "call_module":
            if isinstance(self.get_submodule(str(result.node.target)), STEPPED):
                pair: Any = result
                result = (pair[0], pair[1])  # a forward that ends in a cell's own (output, state)
        if not isinstance(result, tuple):
            return result, None
        if len(result) != 2:
            raise _Unclear(f"it returns {len(result)} values, expected one output, or (output, state)")
        out, state = result
        return (out if self.pick is None else out[self.pick]), state


class _Unclear(Exception):
    """What a forward returns cannot be understood."""


class Tracer(fx.Tracer):
    """Traces through containers and user modules, up to the modules that mean something."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: list[str] = []
        self.step = 0

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Stop at torch's and Norse's modules, and at classes derived from them that keep the forward."""
        if isinstance(m, norse.SequentialState):
            return False
        known = (*PLAIN, *OVER_TIME, *STEPPED)
        inherited = any(isinstance(m, kind) and type(m).forward is kind.forward for kind in known)
        of_norse = type(m).__module__.startswith("norse.torch.module")
        return inherited or of_norse or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Remember which module the operations inside belong to."""
        self.owners.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.owners.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Note owner and step on the node."""
        node = super().create_node(*args, **kwargs)
        node.meta.update(owner=self.owners[-1] if self.owners else "", step=self.step)
        return node


def trace(model: torch.nn.Module, path: str, *, timed: bool, pick: int | None = None) -> tuple[Steps, fx.Graph]:
    """Trace a model.

    Args:
        model: what to trace.
        path: its place, for errors.
        timed: one pass over time in place of two steps.
        pick: which of a list of outputs counts.

    Raises:
        UnsupportedError: the forward does with symbolic values what only numbers can do.
    """
    tracer = Tracer()
    steps = Steps(model, tracer, timed=timed, pick=pick)
    try:
        return steps, tracer.trace(steps)
    except _Unclear as error:
        raise UnsupportedError(f"{where(path)}: {error}; return what is needed beside it in another way") from None
    except Exception as error:  # whatever a user's forward raises when it meets a symbolic value
        raise UnsupportedError(
            f"{where(path)}: its forward cannot be traced ({type(error).__name__}: {first_line(error)}); write it for one step, "
            "forward(x, state=None) -> (output, state), without loops over time and branches on values"
        ) from error
