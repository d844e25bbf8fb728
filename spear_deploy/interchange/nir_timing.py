"""What comes a step later in the framework that wrote a NIR file than in the graph?

Late spikes: a framework that compares v before it adds the input sends each spike a step later. Every edge out of such a
neuron gets that step; then steps that all ways share are taken out (retiming), so that a chain needs no delay at all. A bias
acts from the first step on, so with one a layer that starts earlier would have had less of it: then the steps stay.

Late resets: a framework that subtracts the threshold in the next step does not let it decay. The graph subtracts at once,
v − v_threshold, and what has decayed of that by then is missing: (1 − k) · v_threshold. The neuron's own spike brings it, by an
edge of one step and a weight. Where a synaptic current lies in between, a second spike takes back what the current would keep.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from spear_deploy.graph import Edge, SNNGraph
from spear_deploy.interchange.nir_edges import Arrow
from spear_deploy.layers import LIF, Array, CubaLIF, Layer, Scale


def with_late_spikes(
    arrows: Sequence[Arrow], late: Collection[str], source: str, *, retime: bool
) -> tuple[list[Arrow], dict[str, int]]:
    """Return the edges with one step more out of each of `late`, if asked less what all ways from `source` to a node share.

    Returns:
        The edges, and by node how many steps earlier it is than in the framework. With p the shortest delay from the source,
        an edge keeps `delay + p(its source) − p(its target)` ≥ 0, and a cycle keeps its delay.
    """
    slow = [replace(a, delay=a.delay + (a.source in late)) for a in arrows]
    if not retime:
        return slow, {}
    early = _shortest(slow, source)
    kept = [replace(a, delay=a.delay + early.get(a.source, 0) - early.get(a.target, 0)) for a in slow]
    return kept, early


def _shortest(arrows: Sequence[Arrow], source: str) -> dict[str, int]:
    after: dict[str, list[Arrow]] = {}
    for arrow in arrows:
        after.setdefault(arrow.source, []).append(arrow)
    done: dict[str, int] = {}
    waiting = [(0, source)]
    while waiting:
        steps, name = heapq.heappop(waiting)
        if name in done:
            continue
        done[name] = steps
        for arrow in after.get(name, ()):
            heapq.heappush(waiting, (steps + arrow.delay, arrow.target))
    return done


def with_late_reset(graph: SNNGraph, names: Collection[str]) -> SNNGraph:
    """Return the graph in which these neurons, which subtract at once, do as if they subtracted one step later.

    v counts from then on without the part that is still to be subtracted. An IF neuron loses nothing, so nothing is added.
    """
    layers, edges = list(graph.layers), list(graph.edges)
    for layer in graph.layers:
        if layer.name not in names or not isinstance(layer.neuron, (LIF, CubaLIF)):
            continue
        for number, (wait, weight) in enumerate(_missing(layer.neuron, graph.dt_s)):
            name = f"{layer.name}.reset{number or ''}"
            while any(name == other.name for other in layers):
                name += "_"
            layers.append(Layer(name=name, synapse=Scale(weight=weight)))
            edges += [Edge(source=layer.name, target=name, delay=wait), Edge(source=name, target=layer.name)]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _missing(neuron: LIF | CubaLIF, dt_s: float) -> list[tuple[int, Array]]:
    """Return (steps, input per spike) that brings −(1 − k) · v_threshold to v in the next step, and nothing later."""
    lost = -neuron.v_threshold.astype(np.float64) / neuron.r
    if isinstance(neuron, LIF):
        return [(1, lost)]
    keep, jump = 1 - dt_s / neuron.tau_syn_s, neuron.w_in * (dt_s / neuron.tau_syn_s)
    return [(1, lost / jump), (2, -keep * lost / jump)]
