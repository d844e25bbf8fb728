"""Ways of spikes between neuron layers through layers without neurons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.layer import Layer


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
