"""A model's first steps, traced by torch.fx down to known modules.

One step shows which call feeds which. The second, which starts from the states that the first returns, shows whether every
neuron gets its state back: a model that drops a state runs, but its neurons start anew in every step. A forward takes one of
these forms:

    step        forward(x: (B, *shape), state=None) -> (output, state)  cells; traced twice
    layers      forward(x: (T, B, *shape)) -> output                    layers over time; traced once
    loop        the same, with cells, and a loop over x by hand         traced once, on LOOP_STEPS steps or as many as it takes
    batch_loop  forward(x: (B, T, *shape)) -> output                    the same, over x[:, t] or after a transpose
    repeat      forward(x: (B, *shape)) -> outputs of all steps         a loop that feeds the same x in every step; traced once
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Form, Framework, run_stepwise
from spear_deploy.frameworks.importer.forward_code import LOOP_STEPS, copy_model, count_steps, list_arguments, summarize_error
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.synapses import PLAIN
from spear_deploy.frameworks.importer.traced_model import (
    LOOPS,
    TracedModel,
    UnclearForward,
    UnclearForwardError,
    collect_sums,
    count_calls,
)
from spear_deploy.network import Shape


@dataclass(frozen=True)
class Counts:
    """Samples of a traced input, and steps beyond those that a forward needs; what a forward reads must not depend on them."""

    samples: int = 2
    further_steps: int = 0


COUNTS, OTHER_COUNTS = Counts(), Counts(samples=3, further_steps=1)


def detect_form(model: torch.nn.Module, shape: Shape, framework: Framework) -> Form:
    """Return how a model's forward deals with time; modules within a lift run step by step.

    Copies of the model are traced, since a forward may keep symbols of the trace.

    Raises:
        UnsupportedError: modules of one step and over time beside each other.
    """
    if _runs_over_time(model, framework):
        return "layers"
    try:
        traced, graph = trace(copy_model(model), shape, path="", form="step", framework=framework)
    except LoopsOverTime:
        return _find_loop(model, shape, framework) or "loop"
    except UnsupportedError as error:
        is_unclear = isinstance(error, UnclearForwardError) and framework.loops_inside
        return _find_loop(model, shape, framework) or ("repeat" if is_unclear else "step")
    if any(node.target is run_stepwise for node in graph.nodes):
        return "layers"
    if traced.takes_columns and (form := _find_loop(model, shape, framework)) is not None:
        return form
    # both steps of a forward of one step call a module twice
    return "repeat" if framework.loops_inside and max(count_calls(traced, graph).values(), default=0) > 2 else "step"


def _find_loop(model: torch.nn.Module, shape: Shape, framework: Framework) -> Form | None:
    """Return the form of a forward that takes its input step by step, None where it does not."""
    forms: tuple[Form, ...] = ("loop", "batch_loop")
    for form in forms:
        try:
            traced, _ = trace(copy_model(model), shape, path="", form=form, framework=framework)
        except UnsupportedError:
            continue
        if traced.taken:
            return form
    return None


def _runs_over_time(model: torch.nn.Module, framework: Framework) -> bool:
    first: dict[bool, str] = {}

    def search(module: torch.nn.Module, path: str) -> None:
        if framework.has_state(module):
            first.setdefault(framework.is_over_time(module), f"'{path}' ({type(module).__name__})")
        if not isinstance(module, framework.lifts):
            for name, child in module.named_children():
                search(child, f"{path}.{name}" if path else name)

    search(model, "")
    if len(first) == 2:
        raise UnsupportedError(f"module {first[True]} runs over time, module {first[False]} one step; {framework.hint_time}")
    return True in first


# ------------------------------------------------------------------------------------------------------------- tracing


class LoopsOverTime(Exception):
    """A forward indexes its input step by step."""


class TracedSize(int):
    """The size of the batch or time axis: a number to count with, recognised as such when it is an argument."""

    axis: int
    power = 1

    def __new__(cls, size: int, axis: int) -> TracedSize:
        """Make the size of axis `axis`, counted without time in a forward that loops over it."""
        new = super().__new__(cls, size)
        new.axis = axis
        return new

    def __truediv__(self, other: Any) -> Any:
        return _compute(self, super().__truediv__(other))

    def __rtruediv__(self, other: Any) -> Any:
        return _compute(self, super().__rtruediv__(other), power=-1 if other == 1 else 0)

    def __mul__(self, other: Any) -> Any:
        return _compute(self, super().__mul__(other) if isinstance(other, int) else float(self) * other)

    __rmul__ = __mul__


class TracedRatio(float):
    """A number computed from the size of the batch or time axis, which is another one on other data."""

    axis: int
    power: int

    def __new__(cls, value: float, axis: int, power: int) -> TracedRatio:
        """Make a number; `power` is 1 for the size itself, -1 for one over it, 0 for any other."""
        new = super().__new__(cls, value)
        new.axis, new.power = axis, power
        return new

    def __truediv__(self, other: Any) -> Any:
        return _compute(self, super().__truediv__(other))

    def __rtruediv__(self, other: Any) -> Any:
        return _compute(self, super().__rtruediv__(other), power=-1 if other == 1 and self.power == 1 else 0)

    def __mul__(self, other: Any) -> Any:
        return _compute(self, super().__mul__(other))

    __rmul__ = __mul__


def _compute(origin: TracedSize | TracedRatio, result: Any, power: int = 0) -> Any:
    """Mark a fraction as computed from a size; whole numbers, with which a forward counts, stay."""
    return TracedRatio(result, origin.axis, power) if type(result) is float else result


class _Input(fx.Proxy):
    """The model's input, with its shape.

    Attributes:
        batch_first: whether the axis of time of a forward that loops is the second.
    """

    tracer: Tracer

    def __init__(self, node: fx.Node, tracer: Tracer, *, batch_first: bool) -> None:
        super().__init__(node, tracer)
        self.batch_first = batch_first

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape, as a tensor has it."""
        self.tracer.reads_sizes = True
        return self._get_shape()

    def _get_shape(self) -> tuple[int, ...]:
        batch, form, time_axis = TracedSize(self.tracer.counts.samples, 0), self.tracer.form, self.tracer.framework.time_axis
        whole = [TracedSize(self.tracer.counts.samples, 1 - time_axis)]
        whole.insert(time_axis, TracedSize(self.tracer.steps, time_axis))
        steps = TracedSize(self.tracer.steps, -1)
        looped = (batch, steps) if self.batch_first else (steps, batch)
        before = {"step": (batch,), "repeat": (batch,), "layers": whole}
        return (*before.get(form, looped), *self.tracer.shape)

    ndim = property(lambda self: len(self._get_shape()))
    device = property(lambda self: torch.device("cpu"))
    dtype = property(lambda self: torch.float32)

    def size(self, axis: int | None = None) -> Any:
        """Return the shape or one of its sizes."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Return the number of axes."""
        return len(self._get_shape())

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[t] for t in range(self._get_shape()[0])])

    def unbind(self, dim: int = 0) -> tuple[Any, ...]:
        """Return the input of every step."""
        if dim != int(self.batch_first):
            raise UnclearForward(f"it takes its input apart along axis {dim}, expected time in front")
        return tuple(self[:, t] if self.batch_first else self[t] for t in range(self._get_shape()[dim]))

    def permute(self, *axes: Any) -> Any:
        """Exchange time and batch; other orders have no counterpart."""
        order = tuple(axes[0]) if len(axes) == 1 else axes
        if order[:2] == (1, 0) and order[2:] == tuple(range(2, len(order))):
            return self._swap()
        return self.tracer.create_proxy("call_method", "permute", (self, *axes), {})

    def transpose(self, dim0: int, dim1: int) -> Any:
        """Exchange time and batch; other axes have no counterpart."""
        if {dim0, dim1} == {0, 1}:
            return self._swap()
        return self.tracer.create_proxy("call_method", "transpose", (self, dim0, dim1), {})

    swapaxes = swapdims = transpose

    def _swap(self) -> Any:
        """Return the input with time and batch exchanged."""
        form = self.tracer.form
        if form == "step":
            raise LoopsOverTime
        if form == "repeat":
            return self.tracer.create_proxy("call_method", "transpose", (self, 0, 1), {})
        return _Input(self.node, self.tracer, batch_first=form in LOOPS and not self.batch_first)

    @classmethod
    def __torch_function__(cls, orig_method: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Exchange axes as the method does; all else is traced."""
        name = getattr(orig_method, "__name__", "")
        if name in ("permute", "transpose", "swapaxes", "swapdims") and args and isinstance(args[0], cls):
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        return super().__torch_function__(orig_method, types, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        form = self.tracer.form
        is_column = len(parts) > 1 and isinstance(parts[0], slice) and parts[0] == slice(None) and isinstance(parts[1], int)
        if form == "step" and isinstance(parts[0], int):
            raise LoopsOverTime
        if form in LOOPS and (is_column if self.batch_first else isinstance(parts[0], int)):
            step, *rest = parts[1:] if self.batch_first else parts
            if step < 0 or any(part is not ... and not isinstance(part, slice) for part in rest):
                raise UnclearForward(f"it takes x[{index}], expected x[t] of every step in turn")
            self.tracer.taken.add(int(step))
            taken: Any = self.tracer.create_proxy("call_function", operator.getitem, (self, int(step)), {})
            picks = any(part not in (..., slice(None)) for part in rest)
            return taken[(slice(None), *rest) if self.batch_first else tuple(rest)] if picks else taken
        self.tracer.takes_columns |= is_column
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})


class Tracer(fx.Tracer):
    """Traces through containers and user modules, down to the modules of torch and of the framework."""

    def __init__(self, form: Form, shape: Shape, framework: Framework, counts: Counts) -> None:
        super().__init__()
        self.form, self.shape, self.framework, self.counts = form, shape, framework, counts
        self.reads_sizes = False
        self.known = (*PLAIN, *framework.plain, *framework.synapses, *framework.over_time, *framework.stepped)
        self.owners: list[str] = []
        self.taken: set[int] = set()
        self.takes_columns = False
        self.steps = LOOP_STEPS

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a symbol; that of an input has its shape."""
        return _Input(node, self, batch_first=self.form == "batch_loop") if node.op == "placeholder" else fx.Proxy(node, self)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Stop at modules of torch and of the framework, and at classes derived from them that keep the forward."""
        if isinstance(m, self.framework.containers):
            return False
        inherits_forward = any(isinstance(m, kind) and type(m).forward is kind.forward for kind in self.known)
        return inherits_forward or self.framework.is_own(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Remember which module the operations inside belong to; a slice of a Sequential is no module of the model itself."""
        if type(m) is torch.nn.Sequential and all(m is not other for other in self.root.modules()):
            return forward(*args, **kwargs)
        self.owners.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.owners.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Write the owner into the node's metadata."""
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self.owners[-1] if self.owners else ""
        return node


def trace(
    model: torch.nn.Module,
    shape: Shape,
    *,
    path: str,
    form: Form,
    framework: Framework,
    output_index: int | None = None,
    counts: Counts = COUNTS,
) -> tuple[TracedModel, fx.Graph]:
    """Trace a model.

    Args:
        model: the model.
        shape: of its input, without time and batch.
        path: its place, for errors.
        form: how it deals with time.
        framework: the conventions of its modules.
        output_index: which of a list of outputs counts.
        counts: samples and further steps of the input.

    Raises:
        UnsupportedError: the forward does with symbols what only numbers can do.
        LoopsOverTime: a forward of one step indexes its first axis.
    """
    traced, tracer = TracedModel(model, form, framework, output_index), Tracer(form, shape, framework, counts)
    steps = traced.steps if form == "step" or form == "layers" else count_steps(model)
    tracer.steps = traced.steps = steps + (counts.further_steps if form in LOOPS else 0)
    kept = {key: value.clone() for key, value in _list_tensors(model, tracer)}
    needed = [argument.name for argument in list_arguments(model) if argument.default is argument.empty]
    try:
        with framework.tracing():
            graph = tracer.trace(traced)
        traced.taken, traced.takes_columns, traced.reads_sizes = tracer.taken, tracer.takes_columns, tracer.reads_sizes
        if form in LOOPS and traced.taken:
            traced.steps = len(traced.taken)
            if traced.steps < 2 or traced.taken != set(range(traced.steps)):
                raise UnclearForward(f"it takes the steps {sorted(traced.taken)} of x, expected x[t] of every step in turn")
    except LoopsOverTime:
        raise
    except UnclearForward as error:
        raise UnclearForwardError(f"{name_module(path)}: {error}; return what is needed beside it in another way") from None
    except Exception as error:  # a user's forward may raise anything when it meets a symbol
        if len(needed) > 1 and form != "step" and "NoneType" in str(error):
            raise UnsupportedError(
                f"{name_module(path)}: its forward takes {len(needed)} inputs ({', '.join(needed)}), a network here has one; put "
                "them side by side as channels of one input, or deploy the part behind each input by itself"
            ) from error
        export = f", or export it: {framework.hint_export}" if framework.hint_export else ""
        raise UnsupportedError(
            f"{name_module(path)}: its forward cannot be traced ({type(error).__name__}: {summarize_error(error)}); write it for "
            f"one step, forward(x, state=None) -> (output, state), or as a loop over x[t], without branches on values{export}"
        ) from error
    _check_tensors(model, tracer, kept, path)
    if form == "repeat":
        traced.steps = max(count_calls(traced, graph).values(), default=1)
    if form in (*LOOPS, "repeat"):
        collect_sums(traced, graph)
    return traced, graph


def _list_tensors(model: torch.nn.Module, tracer: Tracer) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
    """Return the buffers and further tensors of the modules that a trace goes through, which a forward may change."""
    for path, module in torch.nn.Module.named_modules(model):
        if tracer.is_leaf_module(module, path) and module is not model:
            continue
        for name, value in (*module._buffers.items(), *vars(module).items()):
            if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
                yield (path, name), value.detach()


def _check_tensors(model: torch.nn.Module, tracer: Tracer, kept: dict[tuple[str, str], torch.Tensor], place: str) -> None:
    """Refuse a forward that changes a tensor of its modules, which it would read in the next step.

    Raises:
        UnsupportedError: it changes one.
    """
    for key, value in _list_tensors(model, tracer):
        if key in kept and not torch.equal(kept[key], value):
            path = ".".join(part for part in (place, key[0]) if part)
            raise UnsupportedError(
                f"{name_module(path)}: its forward changes the tensor '{key[1]}', a state that no neuron here has; use "
                f"{tracer.framework.example}, or feed an output of the step before back"
            )
