"""Later steps of a forward of one step, each compared with the one before.

By a counter, a list or an iterator that it keeps, a forward may compute something else in a later step. A count that no output
depends on, such as one for a log, changes nothing. The first two steps are compared where they are read as layers.
"""

from __future__ import annotations

import operator
from bisect import bisect
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.step_layout import get_name
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.traced_model import TracedModel

FILLED = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "size")
"""Functions of the shape of a tensor alone."""


def check_later_steps(traced: TracedModel, graph: fx.Graph, place: str) -> None:
    """Refuse a forward of one step whose outputs, or what its neurons take, come about in another way in a later step.

    Args:
        traced: the model, with the places in the graph at which its steps begin.
        graph: its steps.
        place: the model's path, for errors.

    Raises:
        UnsupportedError: a step from the third on differs from the one before.
    """
    steps = {node: bisect(traced.starts, n) for n, node in enumerate(graph.nodes)}
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    steps |= {node: n for n, node in enumerate(inputs)}
    (end,) = (node for node in graph.nodes if node.op == "output")
    outputs: Any = end.args[0]
    calls: list[list[fx.Node]] = [[] for _ in range(max(steps.values()) + 1)]
    for node in graph.nodes:
        if traced.has_state(node):
            calls[steps[node]].append(node)
    compared: set[tuple[fx.Node, fx.Node]] = set()
    for step in range(2, len(outputs)):
        later, earlier = (outputs[step], calls[step]), (outputs[step - 1], calls[step - 1])
        if not _are_alike(later, earlier, traced, steps, compared):
            raise UnsupportedError(f"{name_module(place)} runs in another way in a later step; let every step compute the same")


def _are_alike(
    later: Any, earlier: Any, traced: TracedModel, steps: dict[fx.Node, int], compared: set[tuple[fx.Node, fx.Node]]
) -> bool:
    """Return whether values of a step come about as those of the step before; `compared` holds the nodes that are known to."""
    waiting = [(later, earlier)]
    while waiting:
        mine, theirs = waiting.pop()
        if isinstance(mine, fx.Node) and isinstance(theirs, fx.Node):
            if (mine, theirs) in compared or (mine is theirs and _is_constant(mine, traced)):
                continue
            compared.add((mine, theirs))
            if mine.op == theirs.op == "get_attr":
                if not _hold_the_same(traced, mine, theirs):
                    return False
                continue
            if steps[mine] != steps[theirs] + 1 or mine.op != theirs.op:
                return False
            if mine.op == "placeholder":
                continue
            if mine.target != theirs.target:
                return False
            if not steps[theirs] and traced.has_state(mine):
                continue  # the second step's neurons take something else than the first one's: a state
            mine, theirs = _list_taken(mine), _list_taken(theirs)
        mine_held: list[fx.Node] = []
        their_held: list[fx.Node] = []
        if fx.map_arg(mine, mine_held.append) != fx.map_arg(theirs, their_held.append) or len(mine_held) != len(their_held):
            return False
        waiting += zip(mine_held, their_held, strict=True)
    return True


def _list_taken(node: fx.Node) -> tuple[Any, ...]:
    """Return what a call takes, with what the forward has set of its module."""
    return node.args, node.kwargs, node.meta.get("settings", {})


def _is_constant(node: fx.Node, traced: TracedModel) -> bool:
    """Return whether a node depends on no step's values, as zeros of the shape of the first input do."""
    waiting = [node]
    while waiting:
        link = waiting.pop()
        if link.op == "placeholder" or traced.has_state(link):
            return False
        if get_name(link) not in FILLED:
            waiting += link.all_input_nodes
    return True


def _hold_the_same(traced: TracedModel, mine: fx.Node, theirs: fx.Node) -> bool:
    """Return whether two nodes read equal tensors, such as one that each step makes anew."""
    first, second = (operator.attrgetter(str(node.target))(traced) for node in (mine, theirs))
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first is second or (first.dtype == second.dtype and torch.equal(first, second))
    return first is second
