"""What does a model's forward do? Its first steps, traced by torch.fx up to the modules that mean something.

One step shows what feeds what. The second, which starts from what the first hands back, shows whether every neuron gets its own
state again: a model that drops a state runs, but its neurons start anew in every step. A forward takes one of three forms:

    step     forward(x: (B, *shape), state=None) -> (output, state)     cells; traced twice
    layers   forward(x: (T, B, *shape)) -> output                       Lift and time layers such as LIF; traced once
    loop     the same, with cells, and a loop over x written by hand    traced once, on LOOP_STEPS steps
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Shape
from spear_deploy.norse.cells import CELLS, TIMED, norse
from spear_deploy.norse.importer.symbols import where
from spear_deploy.norse.importer.synapses import PLAIN

STEPPED = (norse.LILinearCell, norse.RecurrentSequential, *{kind.__bases__[0] for kind in CELLS})
"""Modules that compute one step and have a state."""
OVER_TIME = (norse.Lift, norse.LConv2d, *{kind.__bases__[0] for kind in TIMED})
"""Modules whose first axis is time."""

Form: TypeAlias = Literal["step", "layers", "loop"]
LOOP_STEPS = 4
"""Steps on which a loop is traced: what differs from one step to the next does so within the first few."""
BATCH = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def form_of(model: torch.nn.Module, shape: Shape) -> Form:
    """Say how a model's forward deals with time; modules within a Lift run step by step.

    The model must be a copy: a forward may keep what it was traced with.

    Raises:
        UnsupportedError: modules of one step and over time beside each other.
    """
    if _over_time(model):
        return "layers"
    try:
        trace(model, shape, "", "step")
    except Loops:
        return "loop"
    except UnsupportedError:
        return "step"
    return "step"


def _over_time(model: torch.nn.Module) -> bool:
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


class Axis(int):
    """The size of the batch or time axis: a number to count with, which is known again as an argument."""

    axis: int

    def __new__(cls, size: int, axis: int) -> Axis:
        """Make the size of axis `axis`, counted without time in a forward that loops over it."""
        new = super().__new__(cls, size)
        new.axis = axis
        return new


class Loops(Exception):
    """A forward takes its input apart step by step."""


class _Unclear(Exception):
    """What a forward returns or takes cannot be understood."""


class _Input(fx.Proxy):
    """The model's input, which knows its shape."""

    tracer: Tracer

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape, as a tensor has it."""
        batch, form = Axis(BATCH, 0), self.tracer.form
        front = {"step": (batch,), "layers": (Axis(LOOP_STEPS, 0), Axis(BATCH, 1)), "loop": (Axis(LOOP_STEPS, -1), batch)}
        return (*front[form], *self.tracer.shape)

    ndim = property(lambda self: len(self.shape))
    device = property(lambda self: torch.device("cpu"))
    dtype = property(lambda self: torch.float32)

    def size(self, axis: int | None = None) -> Any:
        """Return the shape or one of its sizes."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[t] for t in range(len(self))])

    def unbind(self, dim: int = 0) -> tuple[Any, ...]:
        """Return the input of every step."""
        if dim:
            raise _Unclear(f"it takes its input apart along axis {dim}, expected time in front")
        return tuple(self)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if self.tracer.form == "layers" or not isinstance(parts[0], int):
            return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})
        if self.tracer.form == "step":
            raise Loops
        if not 0 <= parts[0] < LOOP_STEPS or any(part not in (..., slice(None)) for part in parts[1:]):
            raise _Unclear(f"it takes x[{index}], expected x[t] of every step in turn")
        return self.tracer.create_proxy("call_function", operator.getitem, (self, int(parts[0])), {})


class Steps(torch.nn.Module):
    """A model's first two steps, or its one pass over time.

    Attributes:
        handed_back: what the first and the second step returned beside their outputs.
    """

    def __init__(self, model: torch.nn.Module, form: Form, pick: int | None = None) -> None:
        super().__init__()
        self.model, self.form, self.pick = model, form, pick
        self.handed_back: list[Any] = []

    def forward(self, x: Any, later: Any) -> Any:
        """Return the outputs of both steps, or of the pass."""
        defaults = [None if p.default is p.empty else p.default for p in _arguments(self.model)[1:]]
        first = self._split(self.model(x, *defaults))
        if self.form != "step":
            return first
        if self.handed_back[0] is None or not takes_state(self.model):
            second = self.model(later, *defaults)
        else:
            second = self.model(later, self.handed_back[0], *defaults[1:])
        return first, self._split(second)

    def _split(self, result: Any) -> Any:
        """Return the output, and keep what was returned beside it."""
        if isinstance(result, fx.Proxy) and result.node.op == "call_module":
            if isinstance(self.get_submodule(str(result.node.target)), STEPPED):
                pair: Any = result
                result = (pair[0], pair[1])  # a forward that ends in a cell's own (output, state)
        if not isinstance(result, tuple):
            self.handed_back.append(None)
            return result
        if len(result) != 2:
            raise _Unclear(f"it returns {len(result)} values, expected one output, or (output, state)")
        out, state = result
        self.handed_back.append(state)
        return out if self.pick is None else out[self.pick]

    def kept(self) -> list[Any]:
        """Return what modules keep in attributes of their own, in lists and the like too: symbols of the trace."""
        return [value for module in self.model.modules() for value in vars(module).values()]


class Tracer(fx.Tracer):
    """Traces through containers and user modules, up to the modules that mean something."""

    def __init__(self, form: Form, shape: Shape) -> None:
        super().__init__()
        self.form, self.shape = form, shape
        self.owners: list[str] = []

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a symbol; that of an input knows its shape."""
        return _Input(node, self) if node.op == "placeholder" else fx.Proxy(node, self)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Stop at torch's and Norse's modules, and at classes derived from them that keep the forward."""
        if isinstance(m, norse.SequentialState):
            return False
        known = (*PLAIN, *OVER_TIME, *STEPPED)
        inherited = any(isinstance(m, kind) and type(m).forward is kind.forward for kind in known)
        of_norse = type(m).__module__.startswith("norse.torch.module")
        return inherited or of_norse or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Remember which module the operations inside belong to."""
        self.owners.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.owners.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Note the owner on the node."""
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self.owners[-1] if self.owners else ""
        return node


def trace(model: torch.nn.Module, shape: Shape, path: str, form: Form, *, pick: int | None = None) -> tuple[Steps, fx.Graph]:
    """Trace a model.

    Args:
        model: what to trace.
        shape: of its input, without time and batch.
        path: its place, for errors.
        form: how it deals with time.
        pick: which of a list of outputs counts.

    Raises:
        UnsupportedError: the forward does with symbolic values what only numbers can do.
        Loops: a forward of one step indexes its first axis.
    """
    steps = Steps(model, form, pick)
    try:
        return steps, Tracer(form, shape).trace(steps)
    except Loops:
        raise
    except _Unclear as error:
        raise UnsupportedError(f"{where(path)}: {error}; return what is needed beside it in another way") from None
    except Exception as error:  # whatever a user's forward raises when it meets a symbolic value
        raise UnsupportedError(
            f"{where(path)}: its forward cannot be traced ({type(error).__name__}: {first_line(error)}); write it for one step, "
            "forward(x, state=None) -> (output, state), or as a loop over x[t], without branches on values"
        ) from error


# FOLDED from spear_deploy/norse/importer/trace.py
# Which step does each call in a trace belong to?
#
# As early as what it is given allows, and as late as what takes it needs: a module that gets what was emitted one step before, for
# use in this one, belongs to this one.


def steps_of(steps: Steps, graph: fx.Graph, form: Form) -> dict[fx.Node, int]:
    """Return the step of every node."""
    if form == "layers":
        return dict.fromkeys(graph.nodes, 0)
    early: dict[fx.Node, int | None] = {}
    for node in graph.nodes:
        early[node] = _own_step(node, form)
        if early[node] is None:
            early[node] = max((step for step in map(early.get, node.all_input_nodes) if step is not None), default=None)
    late: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        step = early[node]
        takers = [late[taker] for taker in node.users]
        shown = any(taker.op == "output" or _gathers(taker) for taker in node.users)
        if node.op == "output":
            step = (LOOP_STEPS if form == "loop" else 2) - 1
        elif step is None:
            step = min(takers, default=0)
        elif takers and not shown and not _emits(steps, node):
            step = max(step, min(takers))
        late[node] = step
    return late


def _own_step(node: fx.Node, form: Form) -> int | None:
    if node.op == "placeholder":
        return {"x": 0, "later": 1}[str(node.target)] if form == "step" else None
    if form == "loop" and node.target is operator.getitem and _is_input(node.args[0]) and isinstance(node.args[1], int):
        return node.args[1]
    return None


def _is_input(arg: Any) -> bool:
    return isinstance(arg, fx.Node) and arg.op == "placeholder"


def _gathers(node: fx.Node) -> bool:
    """Say whether a node takes the outputs of all steps together."""
    return getattr(node.target, "__name__", str(node.target)) in ("stack", "__setitem__")


def _emits(steps: Steps, node: fx.Node) -> bool:
    """Say whether a node is what a neuron or the input gives: it is of the step that it is made in."""
    if node.op == "placeholder" or node.target is operator.getitem:
        return True
    return node.op == "call_module" and isinstance(steps.get_submodule(str(node.target)), STEPPED)
