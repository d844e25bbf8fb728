"""NIR files from networks.

Times are in seconds, every parameter is an array of the neurons' full shape. What NIR has no field for goes into the metadata,
which other readers ignore: the time step, the kind of reset, the step that closes a cycle, and the network's metadata.

    a layer "fc" with weights and a neuron     nodes "fc.synapse" → "fc"
    batch norm                                 folded into the weights in float64, then rounded to float32
    an edge with delay                         a Delay node; in a cycle one step less, since closing it takes one
    integer neurons                            `integers`: only where floating point computes exactly the same
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.nir.integers import convert_to_float, describe_integers
from spear_deploy.interchange.nir.layer_to_nodes import make_nodes
from spear_deploy.interchange.nir.metadata import EDGES_KEY, make_graph_metadata, make_layer_metadata
from spear_deploy.network import CONVS, POOLS, Conv1d, Conv2d, Dense, Scale
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.util.files import replace_from_memory

if TYPE_CHECKING:
    from spear_deploy.placement.place import Placement


def write_nir(graph: SNNGraph, path: str | os.PathLike[str], *, placement: Placement | None = None) -> list[str]:
    """Write a network as NIR, whole or not at all.

    Args:
        graph: the network.
        path: the file.
        placement: the cores of each layer, written into the metadata of the nodes.

    Returns:
        What was approximated, a sentence each; empty when nothing was.

    Raises:
        UnsupportedError: a layer that NIR cannot express, by name.
        GraphError: metadata that is no JSON.
        FileError: the folder is not writable.
    """
    import nir

    notes: list[str] = []
    draft = _make_draft(convert_to_float(graph), notes)
    draft.metadata |= {**make_graph_metadata(graph, placement), **describe_integers(graph)}
    for layer in graph.layers:
        draft.nodes[layer.name].metadata.update(make_layer_metadata(graph, layer, placement))
    # nir infers shapes with square kernels and one group; elsewhere it would refuse a correct graph
    built = nir.NIRGraph(draft.nodes, draft.edges, metadata=draft.metadata, type_check=can_type_check(graph))
    with replace_from_memory(path) as memory:
        nir.write(memory, built)
    return notes


def can_type_check(graph: SNNGraph) -> bool:
    """Return whether nir's type check accepts the network: it assumes square kernels and one group."""
    for layer in graph.layers:
        synapse = layer.synapse
        if isinstance(synapse, Conv2d) and (synapse.weight.shape[2] != synapse.weight.shape[3] or synapse.groups > 1):
            return False
        if isinstance(synapse, Conv1d) and synapse.groups > 1:
            return False
        if isinstance(synapse, POOLS) and len(synapse.kernel_size) == 1:
            return False
        if layer.norm is not None and not isinstance(synapse, (Dense, *CONVS)):
            return False
        if isinstance(synapse, Scale) and synapse.bias is not None:
            return False
    return True


@dataclass
class _Draft:
    """A NIR graph under construction."""

    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, node: Any) -> str:
        while name in self.nodes:
            name += "_"
        self.nodes[name] = node
        return name


def _make_draft(graph: SNNGraph, notes: list[str]) -> _Draft:
    import nir

    for layer in graph.layers:
        if not graph.edges_from(layer.name) and layer.name != graph.output:
            raise UnsupportedError(
                f"layer '{layer.name}': feeds nothing and is not the output; NIR would take it for an output, remove it"
            )
    draft = _Draft()
    draft.add(INPUT, nir.Input(input_type={"input": np.array(graph.input_shape)}))
    first, last = {}, {INPUT: INPUT}
    for layer in graph.layers:
        draft.nodes[layer.name] = None
    for layer in graph.layers:
        parts = make_nodes(graph, layer, notes)
        names = [draft.add(f"{layer.name}.{label}", node) for label, node in parts[:-1]]
        draft.nodes[layer.name] = parts[-1][1]
        names.append(layer.name)
        draft.edges += list(itertools.pairwise(names))
        first[layer.name], last[layer.name] = names[0], names[-1]
    closing = _find_closing_edges(graph)
    stated = [_connect(draft, graph, edge, first, last, closing=edge in closing) for edge in graph.edges]
    output = draft.add("output", nir.Output(output_type={"output": np.array(graph.shape_of(graph.output))}))
    draft.edges.append((graph.output, output))
    draft.metadata[EDGES_KEY] = json.dumps([item for item in stated if item])
    return draft


# ------------------------------------------------------------------------------------------------------------- edges


def _find_closing_edges(graph: SNNGraph) -> set[Edge]:
    """Return the delayed edges of which a NIR reader adds one step itself: those in a cycle, beside no edge without delay."""
    import networkx

    view = networkx.DiGraph([(edge.source, edge.target) for edge in graph.edges])
    place = {name: n for n, part in enumerate(networkx.strongly_connected_components(view)) for name in part}
    plain = {(edge.source, edge.target) for edge in graph.edges if not edge.delay}
    closing = set()
    for edge in sorted(graph.edges):
        if edge.delay and place[edge.source] == place[edge.target]:
            ends = (edge.source, edge.target)
            if edge.delay > 1 or ends not in plain:
                closing.add(edge)
                plain |= {ends} if edge.delay == 1 else set()
    return closing


def _connect(
    draft: _Draft, graph: SNNGraph, edge: Edge, first: dict[str, str], last: dict[str, str], *, closing: bool
) -> list[Any] | None:
    """Add the nodes and edges of an edge; return the [source, target, delay] that the metadata must state, if any."""
    import nir

    source, target = last[edge.source], first[edge.target]
    steps = edge.delay - closing
    after = target
    if steps:
        delay = nir.Delay(delay=np.full(graph.shape_of(edge.source), steps * graph.dt_s))
        after = draft.add(f"{source}.delay{edge.delay}", delay)
        draft.edges.append((after, target))
    draft.edges.append((source, after))
    return [source, after, 1] if closing else None
