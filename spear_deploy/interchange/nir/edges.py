"""Edges of a NIR graph in discrete time.

Nodes that only pass values on are replaced by edges, delays become whole steps, and each cycle gets the one step that closes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.graph import MAX_DELAY
from spear_deploy.util.hdf5.tree import Tree, decode_text

PASS_THROUGH = ("Identity", "Delay")
"""Nodes that have no layer of their own."""

MAX_DELAYS = 64
"""Different delays in one node: each becomes a layer that passes only its neurons."""
MAX_JOINED_EDGES = 10_000
"""Edges that take the place of one node."""


@dataclass(frozen=True)
class Arrow:
    """An edge between NIR nodes, `delay` steps long."""

    source: str
    target: str
    delay: int = 0


def expand_nodes(nodes: dict[str, Tree], arrows: Iterable[Arrow], dt_s: float, notes: list[str]) -> list[Arrow]:
    """Replace, in `nodes`, each node that is no single layer by equivalent nodes; return the edges.

    I              a sum that feeds itself one step later, behind a Scale by r
    Delay          with different delays: for each a Scale that passes only its neurons, behind an edge of that delay
    """
    remaining = list(arrows)
    for name in list(nodes):
        kind = decode_text(nodes[name].get("type"))
        if kind == "I":
            remaining = _expand_integrator(name, nodes, remaining, notes)
        elif kind == "Delay":
            steps = _read_delay(name, nodes[name], dt_s)
            if len(np.unique(steps)) > 1:
                remaining = _split_delay(name, nodes, remaining, steps, notes)
    return remaining


def _expand_integrator(name: str, nodes: dict[str, Tree], arrows: list[Arrow], notes: list[str]) -> list[Arrow]:
    notes.append(f"node '{name}': an I node adds r · input each step, without dt, as an IF node does")
    scale = find_free_name(f"{name}.r", nodes)
    nodes[scale] = {"type": "Scale", "scale": nodes[name].get("r", np.float32(1))}
    nodes[name] = {**nodes[name], "type": "Sum"}
    moved = [replace(a, target=scale) if a.target == name else a for a in arrows]
    return [*moved, Arrow(scale, name), Arrow(name, name, 1)]


def _split_delay(name: str, nodes: dict[str, Tree], arrows: list[Arrow], steps: Array, notes: list[str]) -> list[Arrow]:
    different = np.unique(steps)
    if len(different) > MAX_DELAYS:
        raise UnsupportedError(f"node '{name}': {len(different)} different delays in one node, {MAX_DELAYS} are supported")
    notes.append(f"node '{name}': its {len(different)} different delays are {len(different)} layers that add up")
    before = [a for a in arrows if a.target == name]
    remaining = [a for a in arrows if a.target != name]
    for delay in different:
        part = find_free_name(f"{name}.{delay}", nodes)
        nodes[part] = {"type": "Scale", "scale": (steps == delay).astype(np.float32)}
        remaining += [replace(a, target=part, delay=a.delay + int(delay)) for a in before] + [Arrow(part, name)]
    nodes[name] = {**nodes[name], "type": "Sum"}
    return remaining


def find_free_name(name: str, used: Mapping[str, Tree]) -> str:
    """Return a node name that is not used yet."""
    while name in used:
        name += "_"
    return name


def fold_pass_through_nodes(nodes: dict[str, Tree], arrows: Iterable[Arrow], dt_s: float) -> list[Arrow]:
    """Return the edges with identities and delays folded into them; removes those nodes from `nodes`.

    Where folding would make two equal edges, which would count once, the node stays as a sum.
    """
    remaining = list(arrows)
    for name in [n for n, node in nodes.items() if decode_text(node.get("type")) in PASS_THROUGH]:
        steps = int(_read_delay(name, nodes[name], dt_s).reshape(-1)[0]) if decode_text(nodes[name].get("type")) == "Delay" else 0
        before = [a for a in remaining if a.target == name]
        after = [a for a in remaining if a.source == name]
        if len(before) * len(after) > MAX_JOINED_EDGES:
            raise UnsupportedError(
                f"node '{name}': joins {len(before)} edges to {len(after)}, which is more than is supported; split it"
            )
        others = [a for a in remaining if name not in (a.source, a.target)]
        joined = [Arrow(a.source, b.target, a.delay + steps + b.delay) for a in before for b in after]
        if any(a.source == name for a in before):
            raise GraphError(f"node '{name}': feeds itself with no layer in between; remove the edge")
        if len({*others, *joined}) == len(others) + len(joined):
            remaining = others + joined
            del nodes[name]
        else:
            remaining = others + [replace(a, delay=a.delay + steps) for a in before] + after
            nodes[name] = {**nodes[name], "type": "Sum"}
    return remaining


def _read_delay(name: str, node: Tree, dt_s: float) -> Array:
    """Return the delay of each neuron in whole steps."""
    delay = node.get("delay")
    if not isinstance(delay, np.ndarray) or delay.dtype.kind not in "iuf" or delay.size == 0 or not np.isfinite(delay).all():
        raise GraphError(f"node '{name}': delay is missing or no number; export the network again")
    steps = delay.astype(np.float64) / dt_s
    wrong = (steps < 0) | (np.abs(steps - np.rint(steps)) > 1e-4 * np.maximum(1.0, steps)) | (steps > MAX_DELAY)
    if wrong.any():
        first = steps[wrong].reshape(-1)[0]
        what = f"node '{name}': a delay of {first * dt_s:g} s is {first:g} steps of {dt_s:g} s"
        if first < 0:
            raise UnsupportedError(f"{what}, expected 0 s or more; export the network again")
        longer = f"one with which it is at most {MAX_DELAY:,}" if first > MAX_DELAY else "one that it is a multiple of"
        raise UnsupportedError(f"{what}; choose another time step (dt_s), {longer}")
    return np.rint(steps).astype(np.int64)


def close_cycles(arrows: Iterable[Arrow], source: str, stateful: set[str]) -> tuple[list[Arrow], list[Arrow]]:
    """Give each cycle without delay one step, on the edge that leaves its last neuron.

    The edge that closes a cycle is the one that leads back on a walk from the input. From there the step moves against the
    edges, through nodes with no other output, to the neuron whose spikes are fed back: of lif → w_rec → lif it is
    lif → w_rec.

    Returns:
        All edges, and those that got a step.
    """
    arrows = list(arrows)
    after: dict[str, list[str]] = {name: [] for arrow in arrows for name in (arrow.source, arrow.target)}
    for arrow in arrows:
        if not arrow.delay:
            after[arrow.source].append(arrow.target)
    leaving = Counter(arrow.source for arrow in arrows)
    starts = (source, *sorted({a.source for a in arrows}))
    late = [Arrow(*ends) for ends in _find_closing_edges(after, starts, leaving, stateful)]
    delayed = {(a.source, a.target) for a in arrows if a.delay == 1}
    for edge in late:
        if (edge.source, edge.target) in delayed:
            raise UnsupportedError(f"edge '{edge.source}' -> '{edge.target}': closes a cycle twice, once by a Delay; remove one")
    closing = set(late)
    return [a for a in arrows if a not in closing] + [replace(a, delay=1) for a in late], late


def _find_closing_edges(
    after: Mapping[str, Sequence[str]], starts: Iterable[str], leaving: Mapping[str, int], stateful: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield the edge that closes each cycle, on a depth-first walk that leaves these edges out.

    Where that is an edge of the path, the walk goes back to it and on without it.
    """
    done: set[str] = set()
    for start in starts:
        path, at_depth, branches = [start], {start: 0}, [iter(after.get(start, ()))]
        while path and start not in done:
            following = next(branches[-1], None)
            if following is None:
                done.add(path[-1])
                del at_depth[path.pop()]
                branches.pop()
            elif following in at_depth:
                at = _find_closing_index(path, at_depth[following], leaving, stateful)
                yield path[at], (following if at == len(path) - 1 else path[at + 1])
                for name in path[at + 1 :]:
                    del at_depth[name]
                del path[at + 1 :], branches[at + 1 :]
            elif following not in done:
                at_depth[following] = len(path)
                path.append(following)
                branches.append(iter(after.get(following, ())))


def _find_closing_index(path: Sequence[str], first: int, leaving: Mapping[str, int], stateful: set[str]) -> int:
    """Return where on the path the edge begins that closes the cycle from `first` to the end of it."""
    at = len(path) - 1
    while path[at] not in stateful and at > first and leaving[path[at]] == 1:
        at -= 1
    return at if path[at] in stateful else len(path) - 1
