"""Delays beyond those of a chip.

learnt   a delay  → the longest that the chip has, often none

A delay of a loop stays: what comes back in the same step is another network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.budget.unsupported import list_extra_delays
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.placement.populations import find_populations
from spear_deploy.util.number_format import plural


def find_delays(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the longest delay of the chip in place of longer ones, where spikes would wait for longer than it holds them."""
    limit = profile.weights.delay_max_steps.max_value
    if limit is None or not (longer := _list_longer(graph, int(limit))):
        return
    populations = find_populations(graph)
    if all(delay <= limit for population in populations for _, delay in list_extra_delays(population, profile)):
        return
    longest = max(edge.delay for edge in longer)
    yield Replacement(
        layers=tuple(dict.fromkeys(edge.target for edge in longer)),
        what=f"a delay of {'up to ' * (len(longer) > 1)}{plural(longest, 'step')}",
        by=f"{plural(int(limit), 'step')} at most" if limit else "none",
        kind="learnt",
        topic="delay",
        rewrite=partial(shorten_delays, limit=int(limit)),
    )


def shorten_delays(graph: SNNGraph, *, limit: int) -> SNNGraph:
    """Return the network with no delay above a limit but those of loops."""
    longer = set(_list_longer(graph, limit))
    edges = [replace(edge, delay=limit) if edge in longer else edge for edge in graph.edges]
    return replace(graph, edges=tuple(dict.fromkeys(edges)))


def _list_longer(graph: SNNGraph, limit: int) -> list[Edge]:
    return [edge for edge in graph.edges if edge.delay > limit and not graph.leads_to(edge.target, edge.source)]
