"""What network does a NIR file describe?

NIR is continuous in time and says nothing about time steps or the kind of reset, so reading takes both from the caller,
from our own facts in the file's metadata, or from the field's custom, and `metadata["assumptions"]` says which.

    LIF      v ← v + dt/tau ((v_leak − v) + r x)               forward Euler
    CubaLIF  I ← I + dt/tau_syn (−I + w_in x), then v with the new I: with u = I after its decay this is the graph's
             CubaLIF, u ← (1 − dt/tau_syn) u_before + w_in dt/tau_syn x, which is Norse's order
    IF       v ← v + r x                                       no dt
    a cycle is closed by one step: what the last neuron in it sends arrives a step later
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError, did_you_mean
from spear_deploy.graph import INPUT, Edge, SNNGraph, merge_parts
from spear_deploy.interchange import nir_nodes
from spear_deploy.interchange.hdf5_tree import Tree, read_tree, text_of
from spear_deploy.interchange.nir_edges import Arrow, close_cycles, without_passing_nodes
from spear_deploy.interchange.nir_writer import (
    DT_KEY,
    EDGES_KEY,
    FACTS_KEY,
    RESET_KEY,
    write_nir,
)
from spear_deploy.layers import Layer, Reset, parameters

__all__ = ["read_nir", "write_nir"]

DEFAULT_DT_S = 1e-4
MOST_NODES = 2000


def read_nir(path: str | os.PathLike[str], *, dt_s: float | None = None, reset: Reset | None = None) -> SNNGraph:
    """Read a NIR file of any framework and version.

    Args:
        path: the file.
        dt_s: the time step; None takes the one the file states (ours do), else 1e-4 s.
        reset: "value" or "subtract" for all neurons; None takes the one the file states (ours do), else "value".

    Returns:
        The network; a weighted node and the neuron behind it are one layer, named after the neuron.

    Raises:
        FileError: missing, truncated, foreign.
        GraphError: nodes or edges that contradict each other, NaN.
        UnsupportedError: a node that the simulator cannot represent, by name.
    """
    tree = read_tree(path, "NIR file")
    try:
        return _network(tree, dt_s, reset)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


def _network(tree: Tree, dt_s: float | None, reset: Reset | None) -> SNNGraph:
    root = tree.get("node")
    if not isinstance(root, dict) or text_of(root.get("type")) != "NIRGraph":
        raise FileError("holds no NIR graph; expected a group 'node' of type NIRGraph")
    if reset not in (None, "value", "subtract"):
        raise GraphError(f"reset: '{reset}' given, expected 'value' or 'subtract'")
    notes: list[str] = []
    metadata = _metadata(root)
    dt = _time_step(metadata, dt_s, notes)
    nodes, arrows = flat_nodes(root)
    if len(nodes) > MOST_NODES:
        raise UnsupportedError(f"{len(nodes)} nodes in one network, {MOST_NODES} are supported; split it")
    source, sink = _ends(nodes, arrows, notes)
    arrows = _with_stated_delays(arrows, metadata)
    arrows = without_passing_nodes(nodes, arrows, dt)
    stateful = {name for name, node in nodes.items() if text_of(node.get("type")) in nir_nodes.NEURONS}
    arrows, late = close_cycles(arrows, source, stateful)
    notes += [f"the cycle through '{a.source}' -> '{a.target}' is closed by one step on that edge" for a in late]
    graph = _graph(nodes, arrows, source, sink, dt, notes)
    graph = _with_neurons(graph, nodes, reset, notes)
    facts = _facts(metadata)
    assumptions = [*facts.pop("assumptions", []), *notes]
    try:
        return merge_parts(replace(graph, metadata={**facts, "assumptions": assumptions}))
    except RecursionError as error:
        raise UnsupportedError(f"{len(nodes)} nodes in one network are more than can be merged into layers; split it") from error


# -------------------------------------------------------------------------------------------------- nodes and edges


def flat_nodes(root: Tree, prefix: str = "") -> tuple[dict[str, Tree], list[Arrow]]:
    """Return all nodes by name and all edges, with nested graphs laid out flat as 'outer.inner'.

    Edges into a nested graph go to its Input node, edges out of it leave from its Output node; both stay as nodes that
    pass on what they get.
    """
    stored = root.get("nodes")
    if not isinstance(stored, dict) or not stored:
        raise GraphError(f"graph '{prefix.rstrip('.') or 'node'}' holds no nodes; export the network again")
    nodes: dict[str, Tree] = {}
    arrows: list[Arrow] = []
    enter: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in stored.items():
        kind = text_of(node.get("type")) if isinstance(node, dict) else None
        if kind is None:
            raise GraphError(f"node '{prefix}{name}' states no type; export the network again")
        full = f"{prefix}{name}"
        if kind != "NIRGraph":
            nodes[full] = node
            enter[name] = leave[name] = full
            continue
        inner, inner_arrows = flat_nodes(node, f"{full}.")
        nodes.update(inner)
        arrows += inner_arrows
        for ends, end in ((enter, "Input"), (leave, "Output")):
            found = [f"{full}.{n}" for n, t in node["nodes"].items() if text_of(t["type"]) == end]
            if len(found) != 1:
                raise UnsupportedError(f"nested graph '{full}' has {len(found)} {end} nodes, expected one; join them")
            ends[name] = found[0]
            nodes[found[0]] = {**inner[found[0]], "type": "Identity"}
    for a, b in _edge_names(root, prefix):
        for end in (a, b):
            if end not in stored:
                raise GraphError(f"edge '{a}' -> '{b}': there is no node '{prefix}{end}'{did_you_mean(end, stored)}")
        arrows.append(Arrow(leave[a], enter[b]))
    return nodes, arrows


def _edge_names(root: Tree, prefix: str) -> list[tuple[str, str]]:
    stored = root.get("edges")
    if not isinstance(stored, np.ndarray) or (stored.size and (stored.ndim != 2 or stored.shape[1] != 2)):
        raise GraphError(f"graph '{prefix.rstrip('.') or 'node'}': edges are missing or no pairs; export the network again")
    pairs = [(str(a), str(b)) for a, b in stored.reshape(-1, 2)]
    for pair in pairs:
        if pairs.count(pair) > 1:
            raise GraphError(f"edge '{pair[0]}' -> '{pair[1]}' is there {pairs.count(pair)} times; remove all but one")
    return pairs


def _ends(nodes: dict[str, Tree], arrows: list[Arrow], notes: list[str]) -> tuple[str, str]:
    """Return the names of the only input and output node; old files may lack them."""
    ends = []
    for kind, inside in (("Input", "target"), ("Output", "source")):
        found = [name for name, node in nodes.items() if text_of(node.get("type")) == kind]
        if len(found) > 1:
            names = ", ".join(f"'{name}'" for name in sorted(found))
            raise UnsupportedError(f"{len(found)} {kind} nodes ({names}), one is supported; join them")
        if not found:
            joined = {getattr(arrow, inside) for arrow in arrows}
            free = [name for name in nodes if name not in joined]
            if len(free) != 1:
                raise GraphError(f"there is no {kind} node and {len(free)} nodes could be it; add an {kind} node")
            name = _unused(kind.lower(), nodes)
            shape = nir_nodes.input_shape(nodes[free[0]]) if kind == "Input" else None
            if kind == "Input" and shape is None:
                raise GraphError(f"there is no Input node and '{free[0]}' does not tell its shape; add an Input node")
            nodes[name] = {"type": kind, "shape": np.array(shape or ())}
            arrows.append(Arrow(name, free[0]) if kind == "Input" else Arrow(free[0], name))
            notes.append(f"the file has no {kind} node: it is taken to be at '{free[0]}'")
            found = [name]
        ends.append(found[0])
    return ends[0], ends[1]


def _unused(name: str, used: Mapping[str, Any]) -> str:
    while name in used:
        name += "_"
    return name


# ------------------------------------------------------------------------------------------------------------- graph


def _graph(nodes: Mapping[str, Tree], arrows: list[Arrow], source: str, sink: str, dt_s: float, notes: list[str]) -> SNNGraph:
    """Return the network with neurons that have no parameters yet: their shapes follow from it."""
    into_sink = [arrow for arrow in arrows if arrow.target == sink]
    direct = len(into_sink) == 1 and not into_sink[0].delay and into_sink[0].source != source
    drop = {source, *([sink] if direct else [])}
    rename = {name: _layer_name(name, nodes) for name in nodes}
    followers = {name: [nodes[a.target] for a in arrows if a.source == name] for name in nodes}
    layers = [
        nir_nodes.layer(rename[name], node, followers[name], notes)
        for name, node in nodes.items()
        if name not in drop and (name == sink or text_of(node.get("type")) not in nir_nodes.PASSING)
    ]
    edges = [
        Edge(source=INPUT if a.source == source else rename[a.source], target=rename[a.target], delay=a.delay)
        for a in arrows
        if a.target not in drop
    ]
    shape = nir_nodes.sizes(nodes[source].get("shape"), "node 'input'.shape", least=1)
    output = rename[into_sink[0].source] if direct else rename[sink]
    _check_reached(layers, edges)
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, dt_s=dt_s, output=output)
    for name, node in nodes.items():
        if name not in drop and "input_shape" in node:
            nir_nodes.check_input_shape(rename[name], node, graph.input_shape_of(rename[name]))
    return graph


def _layer_name(name: str, nodes: Mapping[str, Tree]) -> str:
    return name if name != INPUT else _unused("input_", nodes)


def _check_reached(layers: list[Layer], edges: list[Edge]) -> None:
    fed = {edge.target for edge in edges}
    for layer in layers:
        if layer.name not in fed:
            raise GraphError(f"node '{layer.name}': nothing feeds it; add an edge to it or remove it")


def _with_neurons(graph: SNNGraph, nodes: Mapping[str, Tree], reset: Reset | None, notes: list[str]) -> SNNGraph:
    """Fill in the neurons, now that the shape of each is known."""
    by_name = {_layer_name(name, nodes): node for name, node in nodes.items()}
    layers = {}
    unstated = False
    for layer in graph.layers:
        node = by_name[layer.name]
        if text_of(node.get("type")) not in nir_nodes.NEURONS:
            continue
        stated = text_of(_metadata(node).get(RESET_KEY))
        unstated |= reset is None and stated is None and "v_threshold" in node
        kind: Reset = "subtract" if (reset or stated) == "subtract" else "value"
        neuron = nir_nodes.neuron(layer.name, node, graph.shape_of(layer.name), kind, notes)
        if any(name.startswith("tau") and (value < 0).any() for name, value in parameters(neuron).items()):
            notes.append(f"node '{layer.name}' has negative time constants: its state grows instead of decaying")
        layers[layer.name] = replace(layer, neuron=neuron)
    if unstated:
        notes.append("NIR states no kind of reset: neurons are set to v_reset")
    return graph.with_layers(layers)


# ---------------------------------------------------------------------------------------------------------- metadata


def _metadata(node: Tree) -> Tree:
    stored = node.get("metadata")
    return stored if isinstance(stored, dict) else {}


def _time_step(metadata: Tree, given: float | None, notes: list[str]) -> float:
    stated = metadata.get(DT_KEY)
    if given is not None:
        return float(given)
    if isinstance(stated, np.ndarray) and stated.size == 1 and stated.dtype.kind in "iuf":
        return float(stated.reshape(-1)[0])
    notes.append(f"NIR has no time step: {DEFAULT_DT_S:g} s is taken")
    return DEFAULT_DT_S


def _with_stated_delays(arrows: list[Arrow], metadata: Tree) -> list[Arrow]:
    """Add the delays that our own files state for edges that close a cycle."""
    try:
        stated = {(str(a), str(b)): int(d) for a, b, d in json.loads(text_of(metadata.get(EDGES_KEY)) or "[]")}
    except (ValueError, TypeError, RecursionError) as error:
        raise GraphError(f"metadata '{EDGES_KEY}' is damaged ({error}); export the network again") from error
    return [replace(a, delay=a.delay + stated.get((a.source, a.target), 0)) for a in arrows]


def _facts(metadata: Tree) -> dict[str, Any]:
    """Return the graph's own metadata, which our files carry as JSON."""
    try:
        facts = json.loads(text_of(metadata.get(FACTS_KEY)) or "{}")
    except (ValueError, RecursionError) as error:
        raise GraphError(f"metadata '{FACTS_KEY}' is damaged ({error}); export the network again") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("assumptions", []), list):
        raise GraphError(f"metadata '{FACTS_KEY}' is no dictionary; export the network again")
    return facts
