"""Tensors that a forward changes in place and takes again: `spikes.mul_(mask)`, or `x += y` where another name has x too.

A symbol of a trace stands for what its call returned: what takes it behind a change would be read with the values before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.step_layout import get_name
from spear_deploy.frameworks.importer.symbols import name_module

CHANGES = "changes"
"""Where a node notes the node that an operator such as `+=` changes."""
OPERATORS = {"add": "+=", "sub": "-=", "mul": "*=", "truediv": "/="}
KEEP_VALUES = ("relu_", "dropout_", "alpha_dropout_", "feature_dropout_", "detach_", "requires_grad_")
"""Of spikes, and in evaluation; what does change by them is refused where it is read."""
VIEWS = (
    "getitem", "view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "swapdims", "permute", "movedim", "squeeze",
    "unsqueeze", "select", "narrow", "expand", "unbind", "chunk", "split", "detach", "contiguous", "to", "float", "dropout",
)  # fmt: skip
VIEWING = (torch.nn.Flatten, torch.nn.Identity, torch.nn.modules.dropout._DropoutNd)
TAKE_NO_VALUES = ("size", "dim", "getattr", "len", "zeros_like", "new_zeros", "zeros")


def find_change(root: torch.nn.Module, graph: fx.Graph, held: set[fx.Node], has_state: Callable[[Any], bool]) -> fx.Node | None:
    """Return the first call that changes a tensor in place which is taken behind it, None where there is none.

    Args:
        root: of the trace.
        graph: the trace.
        held: nodes that the forward keeps.
        has_state: whether a module holds neurons, the spikes of which a recurrent one takes in its next step.
    """
    changes = [(node, changed) for node in graph.nodes if (changed := _find_changed(node)) is not None]
    if not changes:
        return None
    modules = dict(root.named_modules(remove_duplicate=False))
    places = {node: place for place, node in enumerate(graph.nodes)}
    shared: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        shared.setdefault(_list_views(node, modules)[-1], []).append(node)
    for node, changed in changes:
        views = _list_views(changed, modules)
        if _is_fed_back(views[-1], modules, has_state):
            return node
        current = {node}  # which have the new values
        for other in shared[views[-1]]:
            if any(view in current for view in _list_views(other, modules)):
                current.add(other)
            elif not _are_apart(views, _list_views(other, modules)):
                later = [user for user in other.users if places[user] > places[node] and not _is_view(user, modules)]
                if other in held or any(get_name(user) not in TAKE_NO_VALUES for user in later):
                    return node
    return None


def make_refusal(node: fx.Node, path: str) -> UnsupportedError:
    """Return the error for a call that changes what is taken behind it, of a model at a place."""
    owner = ".".join(part for part in (path, node.meta["owner"].removeprefix("model").strip(".")) if part)
    name = OPERATORS[get_name(node)] if CHANGES in node.meta else getattr(node.target, "__name__", node.target)
    return UnsupportedError(
        f"{name_module(owner)} changes by '{name}' a tensor in place that is taken again behind it; give the result a name of "
        "its own, as in y = x * mask"
    )


def _find_changed(node: fx.Node) -> fx.Node | None:
    """Return the node whose tensor a call changes, None of a call that changes none, or no values."""
    if CHANGES in node.meta:
        changed = node.meta[CHANGES]
    else:
        name = getattr(node.target, "__name__", str(node.target)) if node.op in ("call_method", "call_function") else ""
        is_own = name.endswith("_") and not name.startswith("_") and name not in KEEP_VALUES
        changed = node.args[0] if is_own and node.args else None
    return changed if isinstance(changed, fx.Node) and changed.op != "get_attr" else None


def _is_view(node: fx.Node, modules: dict[str, Any]) -> bool:
    """Return whether a call may return the memory of its first argument; a part of what neurons return is none of a tensor."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], VIEWING)
    if not node.args or not isinstance(node.args[0], fx.Node) or get_name(node) not in VIEWS:
        return False
    return get_name(node) != "getitem" or node.args[0].op != "call_module" or _returns_tensor(modules[str(node.args[0].target)])


def _returns_tensor(module: Any) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.")


def _list_views(node: fx.Node, modules: dict[str, Any]) -> list[fx.Node]:
    """Return a node and those that it is a view of, one after the other."""
    views = [node]
    while _is_view(views[-1], modules) and isinstance(source := views[-1].args[0], fx.Node):
        views.append(source)
    return views


def _are_apart(first: list[fx.Node], second: list[fx.Node]) -> bool:
    """Return whether two chains of views take other parts of one tensor, such as two steps."""
    own = {view.args[0]: view for view in first[:-1] if get_name(view) == "getitem"}
    for view in second[:-1]:
        if get_name(view) == "getitem" and (other := own.get(view.args[0])) is not None and other is not view:
            pairs = zip(_list_places(other.args[1]), _list_places(view.args[1]), strict=False)
            return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    return False


def _list_places(index: Any) -> Iterator[Any]:
    """Return the parts of an index up to one that may stand for several axes."""
    for part in index if isinstance(index, tuple) else (index,):
        if part is ... or part is None:
            return
        yield part


def _is_fed_back(node: fx.Node, modules: dict[str, Any], has_state: Callable[[Any], bool]) -> bool:
    """Return whether a tensor is the spikes of neurons that take them in their next step."""
    source = node.args[0] if get_name(node) == "getitem" and node.args else node
    if not isinstance(source, fx.Node) or source.op != "call_module":
        return False
    module = modules[str(source.target)]
    names = (name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(), *module.named_children()))
    return has_state(module) and any("rec" in name for name in names)
