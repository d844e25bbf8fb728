"""Steps at which layers act where every connection takes one step.

A synapse process of Lava sends what it received a step ago, so every connection takes exactly one step; a neuron process
and a recorder take none. Layer l does at Lava's step t + offset(l) what it does in the graph at t. A spike that `source`
sends at graph step t leaves at t + offset(source), arrives one step and the synapse's own delay D later, and is due at
graph step t + g (g: the delay of the graph's edge), which `target` reaches at t + g + offset(target). So

    D = offset(target) − offset(source) + g − 1          must not be negative

With g = 0 along a path the offsets grow by one a layer. The longest path decides, and a skip waits for it. A
recurrent edge of delay 1 from a layer to itself has D = 0. A cycle of n connections whose graph delays add up to less than
n steps has no solution: hardware that takes a step for each connection cannot run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.spike_paths import find_spike_sources, reads_input


@dataclass(frozen=True, kw_only=True, order=True)
class Connection:
    """Spikes of `source` reach the neurons of `target` through one connection, `delay` graph steps later."""

    source: str
    target: str
    delay: int


def solve_offsets(min_offsets: Mapping[str, int], connections: Iterable[Connection]) -> dict[str, int]:
    """Return the smallest offset of each layer, in steps, under which no connection needs a negative delay.

    Args:
        min_offsets: the earliest step of each layer: 1 where a connection delivers the network's input, else 0.
        connections: between layers.

    Raises:
        UnsupportedError: a cycle is faster than its connections.

    >>> connections = [Connection(source=a, target=b, delay=0) for a, b in ("ab", "bc", "ac")]
    >>> offset = solve_offsets({"a": 1, "b": 0, "c": 0}, connections)
    >>> offset, extra_delay(connections[2], offset)
    ({'a': 1, 'b': 2, 'c': 3}, 1)
    """
    offset = dict(min_offsets)
    connections = sorted(connections)
    for _ in range(len(offset) + 1):
        late = [connection for connection in connections if extra_delay(connection, offset) < 0]
        if not late:
            return offset
        for connection in late:
            offset[connection.target] = max(offset[connection.target], offset[connection.source] + 1 - connection.delay)
    connection = late[0]
    raise UnsupportedError(
        f"edge '{connection.source}' -> '{connection.target}': closes a cycle with fewer steps of delay than it has connections; "
        "Lava and the chip take one step for each, so give the edge more delay"
    )


def extra_delay(connection: Connection, offset: Mapping[str, int]) -> int:
    """Return D, the steps that the synapse of a connection waits beyond its one step."""
    return offset[connection.target] - offset[connection.source] + connection.delay - 1


def schedule_on_chip(graph: SNNGraph) -> dict[str, Any]:
    """Return the delays with which a chip, where every connection takes one step, computes the same spikes as the network.

    Returns:
        `later_steps`: by how many steps the output acts later, None where a loop is too fast for the chip. `delays`: by
        connection, "source -> target", the steps that its synapse waits beyond its one step; those of 0 are left out.
        `problem`: the loop, in a sentence, or None.
    """
    names = [layer.name for layer in graph.layers if layer.neuron is not None]
    connections = [Connection(source=s, target=name, delay=d) for name in names for s, d in set(find_spike_sources(graph, name))]
    min_offsets = {name: int(reads_input(graph, name)) for name in names}
    try:
        offset = solve_offsets(min_offsets, connections)
    except UnsupportedError as error:
        return {"later_steps": None, "delays": {}, "problem": str(error)}
    delays = {f"{c.source} -> {c.target}": extra_delay(c, offset) for c in sorted(connections)}
    last = graph[graph.output]
    outputs = [last.name] if last.neuron is not None else [source for source, _ in find_spike_sources(graph, last.name)]
    later = max((offset[source] for source in outputs), default=0)
    return {"later_steps": later, "delays": {name: delay for name, delay in delays.items() if delay}, "problem": None}
