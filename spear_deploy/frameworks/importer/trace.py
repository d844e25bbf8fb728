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

import copy
import dis
import inspect
import operator
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Form, Framework, run_stepwise
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.synapses import PLAIN
from spear_deploy.network import Shape

LOOP_STEPS = 4
"""Steps on which a loop is traced that asks for their number: any difference between steps shows within the first few."""
MAX_COMPARED = 62
"""Steps beyond these are not traced, though a forward names them."""
LOOPS = ("loop", "batch_loop")
"""Forms of a forward with a loop over its input."""
BATCH = 2


def copy_model(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model; results of a computation, such as pruned weights, and sparse tensors keep their values."""
    model = unwrap_compiled(model)
    attributes: list[Any] = []
    for _, module in torch.nn.Module.named_modules(model):
        for value in vars(module).values():
            attributes += value.values() if isinstance(value, dict) else [value]
    tensors = [value for value in attributes if isinstance(value, torch.Tensor)]
    known: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    sparse = [tensor for tensor in tensors if tensor.is_leaf and tensor.layout != torch.strided]  # torch copies no sparse ones
    known |= {id(tensor): torch.nn.Parameter(tensor.detach().clone(), tensor.requires_grad) for tensor in sparse}
    try:
        return _unwrap_inner(copy.deepcopy(model, dict(known)))
    except (AttributeError, TypeError):  # a class that copies itself, and fails, as sinabs' recurrent layers do
        for _, module in torch.nn.Module.named_modules(model):
            kind: Any = type(module)
            if hasattr(kind, "__deepcopy__"):
                known[id(module)] = kind.__new__(kind)
        for _, module in torch.nn.Module.named_modules(model):
            if id(module) in known:
                vars(known[id(module)]).update(copy.deepcopy(vars(module), known))
        return copy.deepcopy(model, known)


def unwrap_compiled(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model that torch.compile stands for; any other as it is."""
    original: torch.nn.Module = getattr(model, "_orig_mod", model) if type(model).__name__ == "OptimizedModule" else model
    return original


def _unwrap_inner(model: torch.nn.Module) -> torch.nn.Module:
    """Put the modules that torch.compile stands for in their places."""
    for _, module in list(torch.nn.Module.named_modules(model)):
        for name, inner in list(module._modules.items()):
            if inner is not None:
                module._modules[name] = unwrap_compiled(inner)
    return model


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
        is_unclear = isinstance(error, _UnclearForwardError) and framework.loops_inside
        return _find_loop(model, shape, framework) or ("repeat" if is_unclear else "step")
    if any(node.target is run_stepwise for node in graph.nodes):
        return "layers"
    if traced.takes_columns and (form := _find_loop(model, shape, framework)) is not None:
        return form
    # both steps of a forward of one step call a module twice
    return "repeat" if framework.loops_inside and max(_count_calls(traced, graph).values(), default=0) > 2 else "step"


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


def _count_calls(traced: TracedModel, graph: fx.Graph) -> dict[str, int]:
    """Return the number of calls of each module of one step that has a state."""
    return dict(Counter(str(node.target) for node in graph.nodes if traced.is_stepped(node)))


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


def takes_state(model: torch.nn.Module) -> bool:
    """Return whether a model's forward takes another argument beside its input."""
    return len(_list_arguments(model)) > 1


def _list_arguments(model: torch.nn.Module) -> list[inspect.Parameter]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def list_unused_arguments(model: torch.nn.Module) -> list[str]:
    """Return the arguments without default beside the input that a model's forward never reads."""
    code = getattr(inspect.unwrap(getattr(model.forward, "__func__", model.forward)), "__code__", None)
    if code is None:
        return []
    read: set[Any] = set()
    for step in dis.get_instructions(code):
        if step.opname.startswith(("LOAD_", "STORE_FAST_LOAD")):
            read |= set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
    read |= {name for inner in code.co_consts if inspect.iscode(inner) for name in inner.co_freevars}
    arguments = _list_arguments(model)[1:]
    return [argument.name for argument in arguments if argument.default is argument.empty and argument.name not in read]


def summarize_error(error: BaseException) -> str:
    """Return the first line of an error's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# ------------------------------------------------------------------------------------------------------------- tracing


class LoopsOverTime(Exception):
    """A forward indexes its input step by step."""


class _UnclearForward(Exception):
    """A forward takes or returns something that has no meaning here."""


class _UnclearForwardError(UnsupportedError):
    """The same, with its place."""


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
        batch, form, time_axis = TracedSize(BATCH, 0), self.tracer.form, self.tracer.framework.time_axis
        whole = [TracedSize(BATCH, 1 - time_axis)]
        whole.insert(time_axis, TracedSize(self.tracer.steps, time_axis))
        steps = TracedSize(self.tracer.steps, -1)
        looped = (batch, steps) if self.batch_first else (steps, batch)
        before = {"step": (batch,), "repeat": (batch,), "layers": whole}
        return (*before.get(form, looped), *self.tracer.shape)

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
        if dim != int(self.batch_first):
            raise _UnclearForward(f"it takes its input apart along axis {dim}, expected time in front")
        return tuple(self[:, t] if self.batch_first else self[t] for t in range(len(self.shape) and int(self.shape[dim])))

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
                raise _UnclearForward(f"it takes x[{index}], expected x[t] of every step in turn")
            self.tracer.taken.add(int(step))
            taken: Any = self.tracer.create_proxy("call_function", operator.getitem, (self, int(step)), {})
            picks = any(part not in (..., slice(None)) for part in rest)
            return taken[(slice(None), *rest) if self.batch_first else tuple(rest)] if picks else taken
        self.tracer.takes_columns |= is_column
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})


class TracedModel(torch.nn.Module):
    """A model's first two steps, or its one pass over time.

    Attributes:
        output_index: which of a list of outputs counts; None where there is one output.
        states: what each step returned beside its output.
        steps: number of steps traced.
        taken: the steps of the input that a loop takes.
        takes_columns: whether the forward takes x[:, t] of its input.
    """

    def __init__(self, model: torch.nn.Module, form: Form, framework: Framework, output_index: int | None) -> None:
        super().__init__()
        self.model, self.form, self.framework, self.output_index = model, form, framework, output_index
        self.states: list[Any] = []
        self.steps = {"step": 2, "layers": 1}.get(form, LOOP_STEPS)
        self.taken: set[int] = set()
        self.takes_columns = False

    def forward(self, x: Any, later: Any) -> Any:
        """Return the outputs of both steps, or of the pass."""
        defaults = [None if p.default is p.empty else p.default for p in _list_arguments(self.model)[1:]]
        first = self._split_output(self.model(x, *defaults))
        if self.form != "step":
            return first
        if self.states[0] is None or not takes_state(self.model):
            second = self.model(later, *defaults)
        elif len(defaults) > 1 and isinstance(self.states[0], tuple) and len(self.states[0]) == len(defaults):
            second = self.model(later, *self.states[0])
        else:
            second = self.model(later, self.states[0], *defaults[1:])
        return first, self._split_output(second)

    def is_stepped(self, node: fx.Node) -> bool:
        """Return whether a node calls a module of one step that has a state."""
        return node.op == "call_module" and self.framework.is_stepped(self.get_submodule(str(node.target)))

    def _hands_state(self, node: fx.Node) -> bool:
        return self.is_stepped(node) and self.framework.hands_state(self.get_submodule(str(node.target)))

    def list_attributes(self) -> list[Any]:
        """Return all attributes of all modules, symbols of the trace among them."""
        return [value for module in self.model.modules() for value in vars(module).values()]

    def _split_output(self, result: Any) -> Any:
        """Return the output, and keep what was returned beside it."""
        if isinstance(result, fx.Proxy) and self._hands_state(result.node):
            pair: Any = result
            result = (pair[0], pair[1])  # a forward that ends in a cell's (output, state)
        if isinstance(result, dict):
            result = tuple(result.values())
        if not isinstance(result, tuple):
            self.states.append(None)
            return result
        if len(result) > 2 and self.form != "step":
            result = (result[0], result[1:])  # outputs of all steps, with more beside them
        if len(result) > 2 and len(result) == len(_list_arguments(self.model)):
            result = (result[0], result[1:])  # forward(x, state, state, ...) -> (output, state, state, ...)
        if len(result) != 2:
            raise _UnclearForward(f"it returns {len(result)} values, expected one output, or (output, state)")
        output, state = result
        self.states.append(state)
        return output if self.output_index is None else output[self.output_index]


class Tracer(fx.Tracer):
    """Traces through containers and user modules, down to the modules of torch and of the framework."""

    def __init__(self, form: Form, shape: Shape, framework: Framework) -> None:
        super().__init__()
        self.form, self.shape, self.framework = form, shape, framework
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
    model: torch.nn.Module, shape: Shape, *, path: str, form: Form, framework: Framework, output_index: int | None = None
) -> tuple[TracedModel, fx.Graph]:
    """Trace a model.

    Args:
        model: the model.
        shape: of its input, without time and batch.
        path: its place, for errors.
        form: how it deals with time.
        framework: the conventions of its modules.
        output_index: which of a list of outputs counts.

    Raises:
        UnsupportedError: the forward does with symbols what only numbers can do.
        LoopsOverTime: a forward of one step indexes its first axis.
    """
    traced, tracer = TracedModel(model, form, framework, output_index), Tracer(form, shape, framework)
    tracer.steps = traced.steps = traced.steps if form == "step" or form == "layers" else count_steps(model)
    kept = {key: value.clone() for key, value in _list_tensors(model, tracer)}
    needed = [argument.name for argument in _list_arguments(model) if argument.default is argument.empty]
    try:
        with framework.tracing():
            graph = tracer.trace(traced)
        traced.taken, traced.takes_columns = tracer.taken, tracer.takes_columns
        if form in LOOPS and traced.taken:
            traced.steps = len(traced.taken)
            if traced.steps < 2 or traced.taken != set(range(traced.steps)):
                raise _UnclearForward(f"it takes the steps {sorted(traced.taken)} of x, expected x[t] of every step in turn")
    except LoopsOverTime:
        raise
    except _UnclearForward as error:
        raise _UnclearForwardError(f"{name_module(path)}: {error}; return what is needed beside it in another way") from None
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
        traced.steps = max(_count_calls(traced, graph).values(), default=1)
    if form in (*LOOPS, "repeat"):
        _collect_sums(traced, graph)
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


def count_steps(model: torch.nn.Module) -> int:
    """Return the number of steps to trace a loop on: more than any number that a forward compares the number of a step with."""
    numbers = [LOOP_STEPS - 2]
    for _, module in torch.nn.Module.named_modules(model):
        code = getattr(getattr(type(module), "forward", None), "__code__", None)
        if code is None or not _compares_steps(code):
            continue
        named = (vars(module).get(name) for name in code.co_names)
        numbers += [n for n in (*code.co_consts, *named) if type(n) is int and n <= MAX_COMPARED]
    return max(numbers) + 2


def _compares_steps(code: Any) -> bool:
    """Return whether code compares the variable of a loop, or calculates with it, beside taking it for an index."""
    steps = list(dis.get_instructions(code))
    stores = [after.argval for step, after in pairwise(steps) if step.opname == "FOR_ITER" and after.opname.startswith("STORE")]
    stores += [
        step.argval
        for n, step in enumerate(steps)
        if step.opname.startswith("STORE") and any(before.opname == "UNPACK_SEQUENCE" for before in steps[max(n - 2, 0) : n])
    ]
    names = {name for stored in stores for name in (stored if isinstance(stored, tuple) else (stored,))}
    for n, step in enumerate(steps):
        loaded = set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
        if step.opname.startswith("LOAD") and loaded & names:
            if any(after.opname in ("COMPARE_OP", "BINARY_MODULO") or after.argrepr == "%" for after in steps[n + 1 : n + 5]):
                return True
    return False


def _collect_sums(traced: TracedModel, graph: fx.Graph) -> None:
    """Replace what a loop adds up over all steps, `total = total + spikes`, by the sum of the stacked terms."""
    if traced.steps < 2:
        return
    steps = _find_earliest_steps(traced, graph)
    zeros = {node for node in graph.nodes if _is_zero(traced, node)}
    for node in list(graph.nodes):
        chain, terms = _list_terms(node, traced.steps - 1, steps, zeros)
        if not terms or any(len(link.users) != 1 for link in chain[1:]):
            continue
        if len({(term.op, str(term.target)) for term in terms}) > 1:
            continue  # terms of one step, or feedback
        with graph.inserting_before(node):
            stacked = graph.call_function(torch.stack, (tuple(terms),))
            total = graph.call_function(torch.sum, (stacked, 0))
        stacked.meta["owner"] = total.meta["owner"] = node.meta["owner"]
        node.replace_all_uses_with(total)
        for link in chain:
            graph.erase_node(link)


def _list_terms(
    node: Any, step: int, steps: dict[fx.Node, int | None], zeros: set[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the additions of a sum over steps that ends in a node, and its terms from the first step on; none if it is none."""
    if not isinstance(node, fx.Node) or steps.get(node) != step:
        return [], []
    is_sum = _is_addition(node) and len(node.args) == 2
    if step == 0:
        start = [arg for arg in node.args if isinstance(arg, fx.Node) and arg not in zeros] if is_sum else [node]
        has_zero = any(arg in zeros if isinstance(arg, fx.Node) else arg == 0 for arg in node.args)
        if is_sum and has_zero and len(start) == 1:
            return [node], start
        return [], [node]
    for rest, term in (node.args, node.args[::-1]) if is_sum and step else ():
        if isinstance(term, fx.Node) and steps.get(term) == step:
            chain, terms = _list_terms(rest, step - 1, steps, zeros)
            if terms:
                return [node, *chain], [*terms, term]
    return [], []


def _is_zero(traced: TracedModel, node: fx.Node) -> bool:
    """Return whether a node is a tensor of zeros."""
    if node.op != "get_attr":
        return node.op in ("call_function", "call_method") and node.target in (torch.zeros_like, "new_zeros")
    value: Any = traced
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return isinstance(value, torch.Tensor) and not value.detach().cpu().numpy().any()


def _is_addition(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in ADDITIONS


PLACED = (operator.getitem, torch.unsqueeze, "unsqueeze")
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


def find_last_nodes(traced: TracedModel, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes between the last step's neurons and the output of a loop that returns that step's alone.

    They are calls that other steps have not, such as a linear layer behind the loop.
    """
    if traced.form not in (*LOOPS, "repeat"):
        return set()
    early, calls = _find_earliest_steps(traced, graph), Counter((node.op, str(node.target)) for node in graph.nodes)
    (end,) = (node for node in graph.nodes if node.op == "output")
    node: Any = end.args[0]
    node = node[0] if isinstance(node, tuple) and node else node
    last: set[fx.Node] = set()
    while (
        isinstance(node, fx.Node)
        and early[node] == traced.steps - 1
        and node.op in ("call_module", "call_function", "call_method")
    ):
        takes = node.all_input_nodes
        if len(takes) != 1 or traced.is_stepped(node) or calls[node.op, str(node.target)] >= traced.steps:
            break
        last.add(node)
        node = takes[0]
    return last


def find_constant_nodes(traced: TracedModel, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes of a forward that repeats its input which depend on no neuron: they are the same in every step."""
    constant: set[fx.Node] = set()
    if traced.form == "repeat":
        for node in graph.nodes:
            if node.op != "output" and not traced.is_stepped(node) and all(other in constant for other in node.all_input_nodes):
                constant.add(node)
    return constant


# ------------------------------------------------------------------------------------------------------ steps of nodes


def assign_steps(traced: TracedModel, graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the step of every node: as early as its inputs allow, and as late as its users need.

    A module that gets an output of the step before, for use in the present one, belongs to the present one.
    """
    if traced.form == "layers":
        return dict.fromkeys(graph.nodes, 0)
    early = _find_earliest_steps(traced, graph)
    late: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        step = early[node]
        users = [late[user] for user in node.users]
        names = {user.op if user.op == "output" else getattr(user.target, "__name__", str(user.target)) for user in node.users}
        is_output = bool(names & {"output", "stack", "__setitem__"})  # a stack or a buffer takes the outputs of all steps
        # the output of neurons and the input belong to the step that they are made in, and what gets an axis of time there
        is_fixed = node.op == "placeholder" or node.target in PLACED or traced.is_stepped(node)
        if node.op == "output":
            step = traced.steps - 1
        elif step is None:
            step = min(users, default=0)
        elif users and not is_output and not is_fixed:
            step = max(step, min(users))
        late[node] = step
    return late


def _find_earliest_steps(traced: TracedModel, graph: fx.Graph) -> dict[fx.Node, int | None]:
    """Return the first step in which the inputs of each node are there, None where no step is."""
    early: dict[fx.Node, int | None] = {}
    calls: Counter[str] = Counter()
    total = _count_calls(traced, graph)
    for node in graph.nodes:
        early[node] = _read_step(node, traced.form)
        if traced.form != "step" and traced.is_stepped(node):
            if traced.form == "repeat" or total[str(node.target)] == traced.steps:
                early[node] = calls[str(node.target)]  # its first call is the first step
            calls[str(node.target)] += 1
        before = [step for step in map(early.get, node.all_input_nodes) if step is not None]
        if early[node] is None or traced.form in LOOPS:
            before += [step for step in (early[node],) if step is not None]
            early[node] = max(before, default=None)
    return early


def _read_step(node: fx.Node, form: Form) -> int | None:
    """Return the step that an input belongs to, None for any other node."""
    if node.op == "placeholder":
        return {"x": 0, "later": 1}[str(node.target)] if form == "step" else 0 if form == "repeat" else None
    if form in LOOPS and node.target is operator.getitem:
        source, index = node.args[:2]
        if isinstance(source, fx.Node) and source.op == "placeholder" and isinstance(index, int):
            return index
    return None
