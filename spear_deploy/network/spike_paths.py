"""Ways of spikes between neuron layers through layers without neurons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.synapses import WEIGHTED


@dataclass(frozen=True, kw_only=True)
class SpikePath:
    """A way from a source of spikes to a neuron layer.

    Attributes:
        source: a neuron layer, or `INPUT`.
        target: the neuron layer.
        delay: steps of all edges together.
        layers: with synapses on the way, in order, the target's own included.
    """

    source: str
    target: str
    delay: int
    layers: tuple[Layer, ...]


def find_spike_paths(graph: SNNGraph) -> list[SpikePath]:
    """Return every way from the input or a neuron layer to the next neuron layer.

    Raises:
        UnsupportedError: a loop without neurons, or a value (not spikes) that feeds a layer.
    """
    return [path for layer in graph.layers if layer.neuron is not None for path in _walk_back(graph, layer.name, ())]


def find_offsets(graph: SNNGraph, paths: list[SpikePath], *, input_steps: int, chip: str) -> dict[str, int]:
    """Return by how many steps each neuron layer acts later on a chip on which spikes between layers take a step.

    offset(target) = offset(source) + 1 − delay, and `input_steps` − delay where the network's input arrives.

    Args:
        graph: the network.
        paths: of `find_spike_paths`.
        input_steps: steps that the chip takes to deliver an input.
        chip: family name, for the message.

    Raises:
        UnsupportedError: two ways into a layer that ask for different steps, or for a step before the first.
    """
    offsets: dict[str, int] = {}
    pending = list(paths)
    while pending:
        ready = [path for path in pending if path.source == INPUT or path.source in offsets]
        for path in ready:
            source = input_steps - 1 if path.source == INPUT else offsets[path.source]
            offset = source + 1 - path.delay
            known = offsets.setdefault(path.target, offset)
            if known != offset or offset < 0:
                raise UnsupportedError(
                    f"layer '{path.target}': spikes from '{path.source}' would have to wait or come early; every connection of "
                    f"{chip} takes one step, so give edges that skip or return another delay"
                )
        pending = [path for path in pending if path not in ready]
        if not ready:
            raise UnsupportedError(f"layer '{pending[0].target}': no spikes of the input reach it; connect or remove it")
    return {layer.name: offsets[layer.name] for layer in graph.layers if layer.neuron is not None}


def _walk_back(graph: SNNGraph, name: str, passed: tuple[str, ...]) -> Iterator[SpikePath]:
    layer = graph[name]
    own = () if layer.synapse is None else (layer,)
    for edge in graph.edges_into(name):
        if edge.source in (name, *passed) and graph[edge.source].neuron is None:
            raise UnsupportedError(f"layer '{name}': a loop without neurons; a chip keeps state in neurons only, put one into it")
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            if edge.source != INPUT and not graph[edge.source].spikes:
                raise UnsupportedError(f"layer '{name}': the readout '{edge.source}' feeds it; let a spiking neuron feed it")
            yield SpikePath(source=edge.source, target=name, delay=edge.delay, layers=own)
        else:
            for path in _walk_back(graph, edge.source, (*passed, name)):
                yield replace(path, target=name, delay=path.delay + edge.delay, layers=(*path.layers, *own))


# ------------------------------------------------------------------------------------------- sources of spikes and delays


def carries_spikes(graph: SNNGraph, name: str) -> bool:
    """Return whether a layer emits spikes, possibly summed, pooled or reshaped on the way.

    The network's input counts as spikes; averaging does not change what is delivered, only its weight. A sum of spikes and
    values is values, also where the values arrive over a delay.
    """
    seen = {INPUT}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        layer = graph[current]
        if layer.neuron is not None:
            if not layer.spikes:
                return False
        elif isinstance(layer.synapse, WEIGHTED) or layer.norm is not None:
            return False
        else:
            waiting += [edge.source for edge in graph.edges_into(current)]
    return True


def find_delayed_paths(graph: SNNGraph) -> list[Edge]:
    """Return the paths with delay from `INPUT` and from neurons, through layers that only pool, add or reshape.

    A path is returned as an edge from the layer that makes the spikes to the layer at which they arrive, with the delay of
    the whole path; paths without delay are left out. From layer to layer of a loop that has no neuron the shortest ways count.
    """
    if not any(edge.delay for edge in graph.edges):
        return []
    passing = {layer.name for layer in graph.layers if layer.neuron is None and carries_spikes(graph, layer.name)}
    steps = _Steps({name: [(e.target, e.delay) for e in graph.edges_from(name)] for name in passing})
    paths = set()
    for source in (INPUT, *(layer.name for layer in graph.layers if layer.spikes)):
        starts = [(edge.target, edge.delay) for edge in graph.edges_from(source)]
        paths |= {Edge(source=source, target=end, delay=delay) for end, delay in steps.walk(starts) if delay}
    return sorted(paths)


def find_loops_without_neurons(graph: SNNGraph, among: Collection[str] | None = None) -> set[str]:
    """Return the layers without neuron that reach themselves through layers without neurons, all or those `among` a part."""
    names = (layer.name for layer in graph.layers) if among is None else among
    plain = {name for name in names if graph[name].neuron is None}
    following = {name: {edge.target for edge in graph.edges_from(name)} & plain for name in plain}
    while ends := {name for name, targets in following.items() if not targets}:
        following = {name: targets - ends for name, targets in following.items() if name not in ends}
    return set(following)


def find_spike_sources(graph: SNNGraph, name: str) -> list[tuple[str, int]]:
    """Return (neuron layer, steps of delay) of all spikes that reach a layer, directly or through layers without neurons.

    From layer to layer of a loop that has no neuron the shortest ways count.
    """
    passing = {name, *_find_plain_layers_before(graph, name)}
    before = {layer: [(e.source, e.delay) for e in graph.edges_into(layer) if e.source != INPUT] for layer in passing}
    starts = [(name, 0)] if graph[name].neuron is None else before.pop(name)
    return [(source, delay) for source, delay in _Steps(before).walk(starts) if graph[source].neuron is not None]


class _Steps:
    """Steps from layers that pass spikes on to the next layers, each with its delay; all other layers are ends."""

    def __init__(self, following: Mapping[str, list[tuple[str, int]]]) -> None:
        self.following = following
        self.loops = _find_loops(following)
        self.within: dict[str, dict[str, int]] = {}

    def walk(self, starts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return the layers that are reached, each once for each delay, as many ways lead through a chain of diamonds."""
        passed: set[tuple[str, int]] = set()
        reached: dict[tuple[str, int], None] = {}
        waiting = list(starts)[::-1]
        while waiting:
            state = here, delay = waiting.pop()
            if state in passed:
                continue
            passed.add(state)
            loop = self.loops.get(here, frozenset())
            behind: list[tuple[str, int]] = []
            for layer, within in self._cross(here):
                reached[layer, delay + within] = None
                behind += [(end, delay + within + d) for end, d in self.following.get(layer, ()) if end not in loop]
            waiting += reversed(behind)
        return list(reached)

    def _cross(self, here: str) -> Iterable[tuple[str, int]]:
        """Return the layers of the loops that a layer lies in, itself first, with the delay of the shortest way to each."""
        if here not in self.loops:
            return ((here, 0),)
        if here not in self.within:
            nearest: dict[str, int] = {}
            waiting = [(0, here)]
            while waiting:
                delay, layer = heappop(waiting)
                if layer not in nearest:
                    nearest[layer] = delay
                    for end, d in self.following[layer]:
                        if end in self.loops[here]:
                            heappush(waiting, (delay + d, end))
            self.within[here] = nearest
        return self.within[here].items()


def _find_loops(following: Mapping[str, list[tuple[str, int]]]) -> dict[str, frozenset[str]]:
    """Return by layer that reaches itself the layers that it reaches and that reach it."""
    ends = {name: {end for end, _ in after if end in following} for name, after in following.items()}
    while last := {name for name, after in ends.items() if not after}:
        ends = {name: after - last for name, after in ends.items() if name not in last}
    if not ends:
        return {}  # as nearly all networks
    import networkx

    components = networkx.strongly_connected_components(networkx.DiGraph(ends))
    return {name: loop for loop in map(frozenset, components) for name in loop if len(loop) > 1 or name in ends[name]}


def reads_input(graph: SNNGraph, name: str) -> bool:
    """Say whether the network's input reaches a layer, directly or through layers without neurons."""
    before = {name, *_find_plain_layers_before(graph, name)}
    return any(edge.source == INPUT for layer in before for edge in graph.edges_into(layer))


def _find_plain_layers_before(graph: SNNGraph, name: str) -> set[str]:
    """Return the layers without neurons from which a layer is reached through none but such."""
    waiting, before = [name], set[str]()
    while waiting:
        sources = {edge.source for edge in graph.edges_into(waiting.pop())} - {INPUT, *before}
        plain = {source for source in sources if graph[source].neuron is None}
        before |= plain
        waiting += plain
    return before
