"""Which edges does a NIR graph have in discrete time?

Nodes that only pass on are replaced by edges, delays become whole steps, and each cycle gets the one step that closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.hdf5_tree import Tree, text_of

PASSING = ("Identity", "Delay")
"""Nodes that have no layer of their own."""


@dataclass(frozen=True)
class Arrow:
    """An edge between nodes, `delay` steps long."""

    source: str
    target: str
    delay: int = 0


def without_passing_nodes(nodes: dict[str, Tree], arrows: Iterable[Arrow], dt_s: float) -> list[Arrow]:
    """Return the edges with identities and delays folded into them; drops those nodes from `nodes`.

    Where folding would lay two equal edges on each other, which would count once, the node stays as a sum.
    """
    left = list(arrows)
    for name in [n for n, node in nodes.items() if text_of(node.get("type")) in PASSING]:
        steps = _steps(name, nodes[name], dt_s)
        before = [a for a in left if a.target == name]
        after = [a for a in left if a.source == name]
        others = [a for a in left if name not in (a.source, a.target)]
        joined = [Arrow(a.source, b.target, a.delay + steps + b.delay) for a in before for b in after]
        if any(a.source == name for a in before):
            raise GraphError(f"node '{name}': feeds itself with no layer in between; remove the edge")
        if len({*others, *joined}) == len(others) + len(joined):
            left = others + joined
            del nodes[name]
        else:
            left = others + [replace(a, delay=a.delay + steps) for a in before] + after
            nodes[name] = {**nodes[name], "type": "Sum"}
    return left


def _steps(name: str, node: Tree, dt_s: float) -> int:
    if text_of(node.get("type")) != "Delay":
        return 0
    delay = node.get("delay")
    if not isinstance(delay, np.ndarray) or delay.dtype.kind not in "iuf" or delay.size == 0 or not np.isfinite(delay).all():
        raise GraphError(f"node '{name}': delay is missing or no number; export the network again")
    values = np.unique(delay.astype(np.float64))
    if len(values) > 1:
        raise UnsupportedError(f"node '{name}': {len(values)} different delays in one node; give each its own Delay node")
    steps = values[0] / dt_s
    if steps < 0 or abs(steps - np.rint(steps)) > 1e-4 * max(1.0, steps) or steps > 1e6:
        what = f"node '{name}': a delay of {values[0]:g} s is {steps:g} steps of {dt_s:g} s"
        raise UnsupportedError(f"{what}; choose a dt that it is a multiple of")
    return int(np.rint(steps))


def close_cycles(arrows: Iterable[Arrow], source: str, stateful: set[str]) -> tuple[list[Arrow], list[Arrow]]:
    """Give each cycle without delay one step, on the edge that leaves its last neuron.

    The edge that closes a cycle is the one that a walk from the input finds to lead back. From there the step moves
    against the arrows through nodes that do nothing but lead back, to the neuron whose spikes come round: of
    lif → w_rec → lif it is lif → w_rec.

    Returns:
        All edges, and those that got a step.
    """
    left = list(arrows)
    late: list[Arrow] = []
    while (path := _cycle(left, source)) is not None:
        edge = _closing_edge(left, path, stateful)
        left.remove(edge)
        if replace(edge, delay=1) in left:
            raise UnsupportedError(f"edge '{edge.source}' -> '{edge.target}': closes a cycle twice, once by a Delay; remove one")
        left.append(replace(edge, delay=1))
        late.append(edge)
    return left, late


def _cycle(arrows: list[Arrow], source: str) -> list[str] | None:
    """Return the nodes of a cycle without delay in order, the one that the input reaches first in front; None if none."""
    after: dict[str, list[str]] = {}
    for arrow in arrows:
        after.setdefault(arrow.source, [])
        if not arrow.delay:
            after[arrow.source].append(arrow.target)
    done: set[str] = set()
    for start in (source, *sorted({a.source for a in arrows if a.delay} | set(after))):
        path, on_path, branches = [start], {start}, [iter(after.get(start, ()))]
        while path and start not in done:
            following = next(branches[-1], None)
            if following is None:
                done.add(path[-1])
                on_path.discard(path.pop())
                branches.pop()
            elif following in on_path:
                return path[path.index(following) :]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                branches.append(iter(after.get(following, ())))
    return None


def _closing_edge(arrows: list[Arrow], path: list[str], stateful: set[str]) -> Arrow:
    by_ends: Mapping[tuple[str, str], Arrow] = {(a.source, a.target): a for a in arrows if not a.delay}
    at = len(path) - 1
    target = path[0]
    while path[at] not in stateful and at > 0 and sum(a.source == path[at] for a in arrows) == 1:
        target = path[at]
        at -= 1
    if path[at] not in stateful:
        at, target = len(path) - 1, path[0]
    return by_ends[path[at], target]
