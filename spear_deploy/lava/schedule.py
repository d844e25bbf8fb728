"""When does each layer act on Lava's clock?

A synapse process of Lava sends what it received a step ago, so every connection takes exactly one step; a neuron process
and a recorder take none. Let layer l do at Lava's step t + offset(l) what the graph has it do at t. A spike that `source`
sends at graph step t leaves at t + offset(source), arrives one step and the synapse's own delay D later, and is due at
graph step t + g (g: the delay of the graph's edge), which `target` reaches at t + g + offset(target). So

    D = offset(target) − offset(source) + g − 1          must not be negative

With g = 0 along a path the offsets grow by one a layer, the longest path decides, and a skip gets the delay it lacks; a
recurrent edge of delay 1 from a layer to itself has D = 0. A cycle of n connections whose graph delays add up to less than
n steps has no solution: hardware that takes a step for each connection cannot run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.first_difference import reads_input, spike_sources


@dataclass(frozen=True, kw_only=True, order=True)
class Link:
    """Spikes of `source` reach the neurons of `target` through one connection, `delay` graph steps later."""

    source: str
    target: str
    delay: int


def offsets(least: Mapping[str, int], links: Iterable[Link]) -> dict[str, int]:
    """Return the least offset of each layer under which no link needs a negative delay.

    Args:
        least: the earliest step of each layer: 1 where a connection brings the network's input, else 0.
        links: between layers.

    Raises:
        UnsupportedError: a cycle is faster than its connections.

    >>> links = [Link(source=a, target=b, delay=0) for a, b in ("ab", "bc", "ac")]
    >>> found = offsets({"a": 1, "b": 0, "c": 0}, links)
    >>> found, extra_delay(links[2], found)
    ({'a': 1, 'b': 2, 'c': 3}, 1)
    """
    found = dict(least)
    links = sorted(links)
    for _ in range(len(found) + 1):
        late = [link for link in links if extra_delay(link, found) < 0]
        if not late:
            return found
        for link in late:
            found[link.target] = max(found[link.target], found[link.source] + 1 - link.delay)
    link = late[0]
    raise UnsupportedError(
        f"edge '{link.source}' -> '{link.target}': closes a cycle with fewer steps of delay than it has connections; "
        "Lava and the chip take one step for each, so give the edge more delay"
    )


def extra_delay(link: Link, offset: Mapping[str, int]) -> int:
    """Return D, the delay that the synapse of a link has to add to its one step."""
    return offset[link.target] - offset[link.source] + link.delay - 1


def alignment(graph: SNNGraph) -> dict[str, Any]:
    """Say what it takes that every connection of the chip delivers one step later.

    In the network's own time nothing changes by it: all layers see the same spikes.

    Returns:
        `later_steps`: how many steps later the output acts, None where a loop is too fast for the chip. `delays`: by connection,
        the steps that its synapse has to wait beyond its own one, so that what meets in the network meets on the chip.
        `problem`: the loop, in a sentence, or None.
    """
    names = [layer.name for layer in graph.layers if layer.neuron is not None]
    links = [Link(source=s, target=name, delay=d) for name in names for s, d in set(spike_sources(graph, name))]
    least = {name: int(reads_input(graph, name)) for name in names}
    try:
        found = offsets(least, links)
    except UnsupportedError as error:
        return {"later_steps": None, "delays": {}, "problem": str(error)}
    delays = {f"{link.source} -> {link.target}": extra_delay(link, found) for link in sorted(links)}
    later = max((found[s] for s, _ in _at_output(graph)), default=0)
    return {"later_steps": later, "delays": {name: d for name, d in delays.items() if d}, "problem": None}


def _at_output(graph: SNNGraph) -> list[tuple[str, int]]:
    last = graph[graph.output]
    return [(last.name, 0)] if last.neuron is not None else list(spike_sources(graph, last.name))
