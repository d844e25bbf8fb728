"""Zeros of the shape of what a module gives, with which a forward starts: `zeros_like(self.fc(x[0]))`.

The call in front of the first step is none of its steps. It gives a shape alone, so that the zeros stand in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from spear_deploy.frameworks.importer.step_layout import get_name

ZEROS = ("zeros_like", "zeros", "new_zeros")


def make_zeros_constant(root: torch.nn.Module, graph: fx.Graph, run: Callable[[fx.Node], Any], kept: set[fx.Node]) -> None:
    """Replace zeros of the shape of a call that serves nothing else by a tensor, and remove the call.

    Args:
        root: of the trace, which gets the tensors.
        graph: the trace, which is changed.
        run: returns a tensor of the shape that a node has, None where it does not run.
        kept: nodes that the forward holds or returns.
    """
    zeros = [node for node in graph.nodes if node.op != "placeholder" and get_name(node) in ZEROS]
    idle = _find_idle(graph, set(zeros), kept)
    for number, node in enumerate(zeros):
        sources = set(node.all_input_nodes)
        value = run(node) if sources and sources <= idle and _holds_module(sources) else None
        if isinstance(value, torch.Tensor):
            name = f"_tensor_constant_zeros_{number}"
            setattr(root, name, torch.zeros(tuple(value.shape)))
            node.op, node.target, node.args, node.kwargs = "get_attr", name, (), {}
    for node in reversed(list(graph.nodes)):
        if node in idle and not node.users:
            graph.erase_node(node)


def _find_idle(graph: fx.Graph, zeros: set[fx.Node], kept: set[fx.Node]) -> set[fx.Node]:
    """Return the calls of which zeros alone take anything, directly or through others."""
    idle: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and node.users and node not in kept | zeros:
            if all(user in idle or user in zeros for user in node.users):
                idle.add(node)
    return idle


def _holds_module(nodes: set[fx.Node]) -> bool:
    """Return whether nodes call a module, directly or through others."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        node = waiting.pop()
        if node.op == "call_module":
            return True
        new = [source for source in node.all_input_nodes if source not in found]
        found.update(new)
        waiting += new
    return False
