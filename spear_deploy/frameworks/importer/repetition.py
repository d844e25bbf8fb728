"""An image, or what layers without neurons make of it, that a forward repeats over time by itself.

Ways to write it, with x of batch x shape, each maybe in front of `flatten(0, 1)`:

    x.unsqueeze(0).repeat(T, 1, 1, 1, 1), x[None].expand(T, -1, -1, -1, -1), x.repeat(T, 1, 1, 1, 1), torch.stack([x] * T)
    x.repeat(T, 1, 1, 1)                                                                time and batch in one axis

A network takes its input step by step, so the repetition is taken off: all that depends on no neuron is the same in every step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from spear_deploy.frameworks.importer.step_layout import Layout, get_name, get_sizes
from spear_deploy.network import Shape


@dataclass(frozen=True)
class Repetition:
    """A node that holds another one in every step.

    Attributes:
        base: the node that it repeats.
        steps: how often.
        layout: where time and batch are.
    """

    base: fx.Node
    steps: int
    layout: Layout


def find_repetition(node: fx.Node, measure: Callable[[fx.Node], Shape | None]) -> Repetition | None:
    """Return what a node repeats over time, None where it does not.

    Args:
        node: a call.
        measure: returns the shape of a tensor that has no axis of time, with the batch; None where it is not known.
    """
    if node.target is torch.stack:
        return _find_stack(node)
    name, source = get_name(node), node.args[0] if node.args else None
    if name not in ("repeat", "expand") or not isinstance(source, fx.Node) or source.meta.get("layout") is not None:
        return None
    counts, place = get_sizes(node), _find_new_axis(source)
    base: Any = source if place is None else source.args[0]
    shape = measure(base)
    if shape is None:
        return None
    merged = name == "repeat" and place is None and len(counts) == len(shape)
    if not merged and len(counts) != len(shape) + 1:
        return None
    place = place or 0
    steps, others = counts[place], [*counts[:place], *counts[place + 1 :]]
    own = [1] * len(shape) if name == "repeat" else shape
    changed = [n for n, size in zip(others, own[merged:], strict=True) if n != size and (name == "repeat" or n != -1)]
    if type(steps) is not int or steps < 2 or changed:
        return None
    return Repetition(base, steps, Layout(batch_first=place == 1, merged=merged, of_input=False))


def _find_stack(node: fx.Node) -> Repetition | None:
    """Return what a stack of the same node repeats."""
    parts: Any = node.args[0] if node.args else ()
    dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    is_same = isinstance(parts, (tuple, list)) and len(parts) > 1 and isinstance(parts[0], fx.Node) and len(set(parts)) == 1
    if not is_same or dim not in (0, 1) or parts[0].meta.get("layout") is not None:
        return None
    return Repetition(parts[0], len(parts), Layout(batch_first=dim == 1, of_input=False))


def _find_new_axis(node: fx.Node) -> int | None:
    """Return the place of an axis of one step that a node makes in front of a tensor or behind its batch, None without one."""
    if node.target is operator.getitem and node.args[1] in (None, (None, ...)):
        return 0
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None) if get_name(node) == "unsqueeze" else None
    return dim if isinstance(dim, int) and dim in (0, 1) else None


def detach_repetitions(graph: fx.Graph) -> None:
    """Let nodes that repeat another one take it alone, without the axis that was made for it."""
    for node in list(graph.nodes):
        repetition = node.meta.get("repeats")
        if repetition is None:
            continue
        sources = node.all_input_nodes
        node.op, node.target, node.args, node.kwargs = "call_method", "repeat", (repetition.base,), {}
        for source in sources:
            if source is not repetition.base and not source.users:
                graph.erase_node(source)
