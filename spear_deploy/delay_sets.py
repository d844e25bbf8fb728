"""Which projections are one on a chip? Those that a delay of each synapse splits in a graph.

In a graph a delay belongs to an edge, on a chip to a synapse. Files with delays of single neurons or synapses are therefore
read as one `Dense` for each delay, all between the same two layers, whose non-zero weights never overlap: together they are
the weights of one list of synapses, each with its delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array, Dense
from spear_deploy.projections import Projection, Source


def joined(graph: SNNGraph, projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """Return the projections with those that share no synapse, but source and target, made one; it waits the longest delay."""
    sets: dict[tuple[object, ...], list[Projection]] = {}
    for projection in projections:
        names = tuple(source.name for source in projection.sources)
        alike = projection.kind == "dense" and isinstance(graph[projection.layer].synapse, Dense)
        key = (names, projection.front, projection.channels) if alike else (id(projection),)
        sets.setdefault(key, []).append(projection)
    found: list[Projection] = []
    for parts in sets.values():
        found += [_one(parts, graph)] if len(parts) > 1 and _apart(graph, parts) else parts
    return tuple(found)


def _apart(graph: SNNGraph, parts: Sequence[Projection]) -> bool:
    """Say whether no weight is non-zero in two of the layers."""
    taken: Array | None = None
    for part in parts:
        mask = _weight(graph, part) != 0
        if taken is not None and (taken.shape != mask.shape or bool((taken & mask).any())):
            return False
        taken = mask if taken is None else taken | mask
    return True


def _one(parts: Sequence[Projection], graph: SNNGraph) -> Projection:
    """Return the projection that holds all parts; its layer is the one with the widest range of weights."""
    sources = tuple(
        Source(
            name=each[0].name,
            wait_steps=max(source.wait_steps for source in each),
            held_steps=max(source.held_steps for source in each),
        )
        for each in zip(*(part.sources for part in parts), strict=True)
    )
    masks = [part.exists for part in parts if part.exists is not None]
    exists = np.logical_or.reduce(masks) if len(masks) == len(parts) else None
    widest = max(parts, key=lambda part: float(np.abs(_weight(graph, part)).max()))
    return replace(widest, sources=sources, signed=any(part.signed for part in parts), exists=exists)


def _weight(graph: SNNGraph, part: Projection) -> Array:
    return graph[part.layer].synapse.weight  # type: ignore[union-attr]
