"""Tensors of all steps in a trace: where their axes of time and batch are.

Stateless layers often run on time and batch in one axis, `x.flatten(0, 1)`, and `view(T, B, ...)` parts them again. In a forward
with a loop, what acts on all steps at once is the same call in every step, and `expand_steps` writes it so. Axes are only taken
to be time and batch where their sizes say so; an order that would mix samples with steps is refused.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, run_stepwise
from spear_deploy.frameworks.importer.symbols import MERGED, name_module
from spear_deploy.frameworks.importer.synapses import FOLDED
from spear_deploy.frameworks.importer.traced_model import TracedModel, list_nodes

RESHAPES = ("view", "reshape")
SWAPS = ("transpose", "swapaxes", "swapdims", "permute")
CATS = ("cat", "concat", "concatenate")
SAME_FOR_EVERY_STEP = (
    "add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div", "neg", "relu", "dropout", "linear",
    "contiguous", "float", "clone", "detach", "detach_", "to",
)  # fmt: skip
"""Names of functions that act on each value, or on the last axis alone."""


class LayoutError(UnsupportedError):
    """A forward that merges time and batch in a way that has no counterpart, or does not part them again."""


class StepCountError(LayoutError):
    """A forward that makes another number of steps than its loop takes."""


@dataclass(frozen=True)
class Layout:
    """The axes of time and batch of a tensor of all steps.

    Attributes:
        batch_first: whether the batch is in front of time.
        merged: whether both are one axis.
        of_input: whether it was made from the input of the model alone.
        is_certain: whether the forward names both axes, beside a view whose sizes fit.
    """

    batch_first: bool
    merged: bool = False
    of_input: bool = field(default=True, compare=False)
    is_certain: bool = field(default=True, compare=False)


class TracedSize(int):
    """The size of the batch or time axis, or of both in one: a number to count with, recognised where it is an argument."""

    axis: int
    is_time: bool
    power = 1

    def __new__(cls, size: int, axis: int, *, is_time: bool = False) -> TracedSize:
        """Make the size of axis `axis`, counted without time in a forward that loops over it."""
        new = super().__new__(cls, size)
        new.axis, new.is_time = axis, is_time
        return new

    def __truediv__(self, other: Any) -> Any:
        return _compute(self, super().__truediv__(other))

    def __rtruediv__(self, other: Any) -> Any:
        return _compute(self, super().__rtruediv__(other), power=-1 if other == 1 else 0)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, TracedSize) and MERGED not in (self.axis, other.axis) and self.axis != other.axis:
            return TracedSize(int(self) * int(other), MERGED)
        if isinstance(other, (list, tuple)):
            return int(self) * other  # places for as many outputs
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


# ------------------------------------------------------------------------------------------------------------- layouts


def get_name(node: fx.Node) -> str:
    """Return the name of a function or method without the underscores of its variants."""
    return (node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")).strip("_")


def get_sizes(node: fx.Node) -> tuple[Any, ...]:
    """Return the sizes of a view or reshape, or the order of a permute."""
    rest = node.args[1:] or tuple(node.kwargs.values())
    return tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else tuple(rest)


def _place(node: fx.Node, path: str | None = None) -> str:
    """Return the module whose forward makes a call, or another one, for errors."""
    return name_module((node.meta["owner"] if path is None else path).removeprefix("model").strip("."))


def find_layout(node: fx.Node, module: Any, framework: Framework, shape: Any, *, is_layers: bool) -> Layout | None:
    """Return where the result of a call has its axes of time and batch, None where it is no tensor of all steps.

    Args:
        node: the call.
        module: the module that it calls, if it does.
        framework: the conventions of its modules.
        shape: of the first argument without time and batch; None where it is not known.
        is_layers: whether the model is one of layers over time, which all keep both axes.

    Raises:
        LayoutError: neurons that get time and batch in one axis, or a view that mixes samples with steps.
    """
    name = get_name(node)
    if node.target is torch.stack:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        parts = node.args[0] if node.args else ()
        is_layout = isinstance(parts, (tuple, list)) and len(parts) > 1 and all(isinstance(part, fx.Node) for part in parts)
        return Layout(batch_first=bool(dim == 1), of_input=False) if is_layout and dim in (0, 1) else None
    layouts = {other.meta["layout"] for other in node.all_input_nodes if other.meta.get("layout")}
    if len(layouts) != 1 or name in ("getattr", "size", "dim", "unbind") or node.op == "output":
        return None
    (layout,) = layouts
    layout = replace(
        layout, of_input=all(other.meta["layout"].of_input for other in node.all_input_nodes if other.meta.get("layout"))
    )
    if name in RESHAPES:
        return _find_reshaped(node, layout, shape)
    if layout.merged:
        if module is not None and framework.has_state(module) and not framework.takes_merged(module):
            if not layout.is_certain:
                return None
            raise LayoutError(
                f"{_place(node, str(node.target))} gets time and batch in one axis, where a neuron would "
                "take samples for steps; part them first, with view(T, B, ...) or unflatten(0, (T, B))"
            )
        if name == "unflatten":
            return _find_reshaped(node, layout, shape)
        return layout
    if is_layers and (module is not None or node.target is run_stepwise or _is_output(node)):
        return layout
    if is_layers and (name in CATS or node.target is operator.getitem):
        return None  # its symbol knows
    return _find_of_steps(node, module, layout)


def _is_output(node: fx.Node) -> bool:
    """Return whether a node takes the output of a module that returns its state beside it."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and source.op == "call_module" and node.args[1:] == (0,)


def _find_of_steps(node: fx.Node, module: Any, layout: Layout) -> Layout | None:
    """Return the layout of what a call makes of a tensor with an axis of time and one of the batch."""
    name = get_name(node)
    if name == "flatten" and read_flatten(node)[0] == 0:
        return replace(layout, merged=True) if read_flatten(node)[1] == 1 else None
    if name == "flatten":
        return layout if read_flatten(node)[0] >= 2 else None
    if name in SWAPS and _keeps_leading(node):
        return layout
    if name in CATS:
        return layout if _puts_side_by_side(node) else None
    if node.target is operator.getitem:
        return layout if _read_slices(node) is not None else None
    if name in SWAPS:
        order = get_sizes(node)
        is_swap = order[:2] == (1, 0) and order[2:] == tuple(range(2, len(order)))
        return replace(layout, batch_first=not layout.batch_first) if is_swap or set(order) == {0, 1} else None
    if isinstance(module, torch.nn.Flatten):
        return layout if module.start_dim >= 2 else None
    if isinstance(module, (torch.nn.Linear, torch.nn.ReLU, *FOLDED)) or (module is None and name in SAME_FOR_EVERY_STEP):
        return layout
    is_weighed = name == "matmul" and isinstance(node.args[0], fx.Node) and node.args[0].meta.get("layout") is not None
    return (
        layout if is_weighed and not any(isinstance(arg, fx.Node) and arg.meta.get("layout") for arg in node.args[1:]) else None
    )


def _read_cat(node: fx.Node) -> tuple[Any, Any]:
    """Return the tensors that a cat puts side by side, and the axis."""
    given = dict(zip(("tensors", "dim"), node.args, strict=False)) | dict(node.kwargs)
    return given.get("tensors", ()), given.get("dim", given.get("axis", 0))


def _puts_side_by_side(node: fx.Node) -> bool:
    """Return whether a cat puts tensors of all steps side by side along an axis of their values: in every step the same."""
    parts, dim = _read_cat(node)
    are_of_steps = all(isinstance(part, fx.Node) and part.meta.get("layout") for part in parts)
    return are_of_steps and isinstance(dim, int) and (dim >= 2 or dim == -1)


def _read_slices(node: fx.Node) -> tuple[Any, ...] | None:
    """Return the index that takes in every step what slices behind time and batch take of all steps; None of another index."""
    index: Any = node.args[1]
    if not isinstance(index, tuple) or len(index) < 2 or not all(part is ... or isinstance(part, slice) for part in index):
        return None
    if index[0] is ... and len(index) == 2:
        return index
    return index[1:] if len(index) > 2 and index[:2] == (slice(None), slice(None)) and ... not in index else None


def _keeps_leading(node: fx.Node) -> bool:
    """Return whether an exchange of axes leaves time and batch where they are."""
    order = get_sizes(node)
    if get_name(node) == "permute":
        return order[:2] == (0, 1)
    return len(order) == 2 and all(isinstance(axis, int) and axis >= 2 for axis in order)


def read_flatten(node: fx.Node) -> tuple[int, int]:
    """Return the first and the last axis of a flatten."""
    given: dict[str, Any] = {**dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)), **node.kwargs}
    return int(given.get("start_dim", 0)), int(given.get("end_dim", -1))


def _find_reshaped(node: fx.Node, layout: Layout, shape: Any) -> Layout | None:
    """Return the layout behind a view, reshape or unflatten, None where its sizes do not say which axes are time and batch.

    Raises:
        LayoutError: batch and time in the other order than they have.
    """
    sizes = _get_split(node) if get_name(node) == "unflatten" else get_sizes(node)
    first, second = (sizes[0], sizes[1] if len(sizes) > 1 else None) if sizes else (None, None)
    before, after = (_is_batch, _is_steps) if layout.batch_first else (_is_steps, _is_batch)
    if (after(first) and not before(first)) or (before(second) and second is not None):
        order = ("time", "batch") if layout.batch_first else ("batch", "time")
        raise LayoutError(
            f"{_place(node)} parts one axis into ({order[0]}, {order[1]}), which holds ({order[1]}, {order[0]}) and so mixes "
            "samples with steps; part it in the order in which it was merged, and exchange both by transpose(0, 1)"
        )
    if before(first) or after(second):
        return replace(layout, merged=False)
    if getattr(first, "axis", None) == MERGED or get_name(node) == "unflatten":
        return replace(layout, merged=get_name(node) != "unflatten")
    if shape is None or not all(isinstance(size, int) for size in sizes):
        return None
    count = math.prod(shape)
    if math.prod(sizes[1:]) == count and -1 not in sizes[1:]:
        return replace(layout, merged=True, is_certain=layout.merged and layout.is_certain)
    return replace(layout, merged=False) if len(sizes) > 1 and math.prod(sizes[2:]) == count and -1 not in sizes[2:] else None


def _get_split(node: fx.Node) -> tuple[Any, ...]:
    """Return the sizes into which an unflatten parts the first axis."""
    given = dict(zip(("dim", "sizes"), node.args[1:], strict=False)) | dict(node.kwargs)
    sizes: Any = given.get("sizes", ())
    return tuple(sizes) if given.get("dim") == 0 and isinstance(sizes, (tuple, list)) else ()


def _is_steps(size: Any) -> bool:
    return isinstance(size, TracedSize) and size.is_time


def _is_batch(size: Any) -> bool:
    return isinstance(size, TracedSize) and not size.is_time and size.axis != MERGED


# ----------------------------------------------------------------------------------------------------------- expansion


def expand_steps(traced: TracedModel, graph: fx.Graph, samples: int) -> None:
    """Replace each call on a tensor of all steps by the same call in every step.

    Args:
        traced: the model.
        graph: its trace, which is changed.
        samples: number of samples in the trace.

    Raises:
        LayoutError: time and batch in one axis that nothing parts, or as many steps as the loop does not take.
    """
    expanded: dict[fx.Node, list[fx.Node]] = {}
    for node in list(graph.nodes):
        layout = node.meta.get("layout")
        if node.target is operator.getitem and node.args[0] in expanded and isinstance(node.args[1], int):
            source: Any = node.args[0]
            if not source.meta["layout"].merged and 0 <= node.args[1] < traced.steps:
                node.replace_all_uses_with(expanded[source][node.args[1]])
                graph.erase_node(node)
                continue
        if layout is None:
            continue
        if node.op == "placeholder":
            expanded[node] = _take_steps(graph, node, traced.steps)
        elif "repeats" in node.meta:
            expanded[node] = [node.meta["repeats"].base] * traced.steps
            _check_steps(traced, node, node.meta["repeats"].steps)
        elif node.target is torch.stack and not any(other in expanded for other in node.all_input_nodes):
            parts: Any = node.args[0]
            if len(parts) == traced.steps:
                expanded[node] = list(parts)
        elif any(other in expanded for other in node.all_input_nodes):
            with graph.inserting_before(node):
                expanded[node] = [_copy_for_step(traced, graph, node, t, expanded, samples) for t in range(traced.steps)]
    _remove_whole(traced, graph, expanded)


def _take_steps(graph: fx.Graph, node: fx.Node, steps: int) -> list[fx.Node]:
    """Return the input of every step."""
    after = list(graph.nodes)[sum(other.op == "placeholder" for other in graph.nodes)]
    with graph.inserting_before(after):
        taken = [graph.call_function(operator.getitem, (node, t)) for t in range(steps)]
    for other in taken:
        other.meta["owner"] = ""
    return taken


def _copy_for_step(
    traced: TracedModel, graph: fx.Graph, node: fx.Node, t: int, expanded: dict[fx.Node, list[fx.Node]], samples: int
) -> fx.Node:
    """Return a call on all steps as one of a step, or its input where it only moves time and batch."""
    name, layout = get_name(node), node.meta["layout"]
    source: Any = node.args[0]
    inputs = expanded.get(source, []) if isinstance(source, fx.Node) else []
    module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    if name in RESHAPES:
        sizes = get_sizes(node)
        _check_steps(traced, node, get_named_steps(node))
        rest = sizes[1 if layout.merged else 2 :]
        new = graph.call_method("reshape", (inputs[t], TracedSize(samples, 0), *rest))
    elif name == "unflatten" and source.meta["layout"].merged and not layout.merged:
        _check_steps(traced, node, get_named_steps(node))
        return inputs[t]
    elif name == "flatten" and not source.meta["layout"].merged:
        start, end = read_flatten(node)
        if start == 0:
            return inputs[t]
        new = graph.call_method("flatten", (inputs[t], start - 1, end - (end > 0)))
    elif name in SWAPS and not source.meta["layout"].merged:
        if not _keeps_leading(node):
            return inputs[t]
        order = get_sizes(node)[name == "permute" :]
        new = graph.call_method(name, (inputs[t], *(axis - (axis > 0) for axis in order)))
    elif name in CATS and not layout.merged:
        parts, dim = _read_cat(node)
        new = graph.call_function(torch.cat, (tuple(expanded[part][t] for part in parts), dim - (dim > 0)))
    elif node.target is operator.getitem and not source.meta["layout"].merged:
        new = graph.call_function(operator.getitem, (inputs[t], _read_slices(node)))
    elif isinstance(module, torch.nn.Flatten) and not source.meta["layout"].merged:
        new = graph.call_method("flatten", (inputs[t], module.start_dim - 1, module.end_dim - (module.end_dim > 0)))
    else:
        new = graph.node_copy(node, lambda other: expanded[other][t] if other in expanded else other)
    new.meta = {key: value for key, value in node.meta.items() if key == "owner"}
    return new


def get_named_steps(node: fx.Node) -> int | None:
    """Return the number of steps that a view or unflatten names as a constant, None where it names none."""
    layout: Layout | None = node.meta.get("layout")
    sizes = get_sizes(node) if get_name(node) in RESHAPES else _get_split(node) if get_name(node) == "unflatten" else ()
    if layout is None or layout.merged or len(sizes) < 2:
        return None
    size = sizes[1] if layout.batch_first else sizes[0]
    return size if type(size) is int and size > 0 else None


def count_traced_steps(node: fx.Node, steps: int) -> int:
    """Return how many steps a tensor has in a trace on an input of `steps` steps."""
    if "repeats" in node.meta:
        return int(node.meta["repeats"].steps)
    if (named := get_named_steps(node)) is not None:
        return named
    if node.target is torch.stack and isinstance(node.args[0], (tuple, list)):
        return len(node.args[0])
    source = next((other for other in node.all_input_nodes if other.meta.get("layout")), None)
    return steps if source is None else count_traced_steps(source, steps)


def reshape_example(node: fx.Node, value: torch.Tensor, leading: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor of the shape that a view or unflatten gives, with the sizes of time and batch that a trace has."""
    source: Any = node.args[0]
    inner = value.shape[2 - source.meta["layout"].merged :]
    if get_name(node) in RESHAPES:
        inner = value.new_empty(inner).reshape(get_sizes(node)[len(leading) :]).shape
    return value.new_empty((*leading, *inner))


def _check_steps(traced: TracedModel, node: fx.Node, steps: int | None) -> None:
    """Refuse a number of steps that a loop does not take."""
    if steps not in (None, traced.steps):
        raise StepCountError(
            f"{_place(node)} makes {steps} steps of its values, and the loop takes {traced.steps}; take the same number"
        )


def _remove_whole(traced: TracedModel, graph: fx.Graph, expanded: dict[fx.Node, list[fx.Node]]) -> None:
    """Remove what was expanded; what is still used, or returned, becomes the stack of all steps."""
    returned = {node for part in traced.states for node in list_nodes(part)}
    for node, parts in reversed(list(expanded.items())):
        if node.op == "placeholder":
            for part in parts:
                if not part.users:
                    graph.erase_node(part)
        elif not node.users and node not in returned:
            graph.erase_node(node)
        elif node.meta["layout"].merged:
            raise LayoutError(
                f"{_place(node)} uses time and batch in one axis where each step is needed; part them first, with "
                "view(T, B, ...) or unflatten(0, (T, B))"
            )
        elif node.target is not torch.stack:
            node.op, node.target, node.kwargs = "call_function", torch.stack, {}
            node.args = (tuple(parts), int(node.meta["layout"].batch_first))
