"""Which step does each call in a trace belong to?

As early as what it is given allows, and as late as what takes it needs: a module that gets what was emitted one step before, for
use in this one, belongs to this one.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from spear_deploy.interchange.norse_trace import LOOP_STEPS, STEPPED, Form, Steps


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
