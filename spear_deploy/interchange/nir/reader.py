"""What network does a NIR file describe?

NIR is continuous in time and says nothing about time steps or the kind of reset, so reading takes both from the caller, from
our own facts in the file's metadata, from the framework that wrote it (`nir_sources`), or from the field's custom, and
`metadata["assumptions"]` says which.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.interchange.hdf5.tree import Tree, decode_text, read_tree
from spear_deploy.interchange.nir import frameworks
from spear_deploy.interchange.nir import nodes as node_readers
from spear_deploy.interchange.nir.edges import Arrow, close_cycles, spell_out, without_passing_nodes
from spear_deploy.interchange.nir.frameworks import with_late_reset, with_late_spikes
from spear_deploy.interchange.nir.layout import ends, flat_nodes, input_shape, kind_of, metadata_of, put_right, unused
from spear_deploy.interchange.nir.metadata import DT_KEY, EDGES_KEY, FACTS_KEY, RESET_KEY
from spear_deploy.interchange.nir.neurons import NEURONS, SPIKING, Fields, fields_of, make, spread
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import Layer, Reset, array_parameters
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, merge_parts

__all__ = ["read_nir", "write_nir"]

DEFAULT_DT_S = 1e-4
MOST_NODES = 2000


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What the caller says about a file."""

    dt_s: float | None
    reset: Reset | None
    source: str | None

    @property
    def habits(self) -> frameworks.Source:
        return frameworks.source_of(self.source)


def read_nir(
    path: str | os.PathLike[str], *, dt_s: float | None = None, reset: Reset | None = None, source: str | None = None
) -> SNNGraph:
    """Read a NIR file of any framework and version.

    Args:
        path: the file.
        dt_s: the time step; None takes the one the file states (ours do), else that of the source, else 1e-4 s.
        reset: "value" or "subtract" for all neurons; None takes the one the file states (ours do), else that of the source,
            else "value".
        source: the framework that wrote the file, one of `frameworks.SOURCES`; None takes NIR's own equations.

    Returns:
        The network; a weighted node and the neuron behind it are one layer, named after the neuron.

    Raises:
        FileError: missing, truncated, foreign.
        GraphError: nodes or edges that contradict each other, NaN.
        UnsupportedError: a node that the simulator cannot represent, by name; an unknown source.
    """
    told = _Told(dt_s=dt_s, reset=reset, source=source)
    if reset not in (None, "value", "subtract"):
        raise GraphError(f"reset: '{reset}' given, expected 'value' or 'subtract'")
    if dt_s is not None and not (np.isfinite(dt_s) and dt_s > 0):
        raise GraphError(f"dt_s: {dt_s} given, a time step is above 0 s")
    frameworks.source_of(source)
    tree = read_tree(path, "NIR file")
    try:
        return _network(tree, told)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


def _network(tree: Tree, told: _Told) -> SNNGraph:
    root = tree.get("node")
    if not isinstance(root, dict) or kind_of(root) != "NIRGraph":
        raise FileError("holds no NIR graph; expected a group 'node' of type NIRGraph")
    notes: list[str] = []
    metadata = metadata_of(root)
    if told.source is not None and FACTS_KEY in metadata:
        raise UnsupportedError(f"source '{told.source}': the file was written by spear-deploy and says so; leave it out")
    nodes, arrows = flat_nodes(put_right(root, told.source, notes))
    if len(nodes) > MOST_NODES:
        raise UnsupportedError(f"{len(nodes)} nodes in one network, {MOST_NODES} are supported; split it")
    neurons = {name: fields_of(name, node, notes) for name, node in nodes.items() if kind_of(node) in NEURONS}
    dt_s = _time_step(metadata, told, neurons, notes)
    source, sink = ends(nodes, arrows, notes)
    nodes[source] = {**nodes[source], "shape": np.array(input_shape(nodes, arrows, source, notes))}
    arrows = spell_out(nodes, _with_stated_delays(arrows, metadata), dt_s, notes)
    arrows = without_passing_nodes(nodes, arrows, dt_s)
    arrows = _timed(nodes, arrows, source, sink, told, notes)
    graph = _graph(nodes, arrows, source, sink, dt_s, notes)
    graph = _with_neurons(graph, nodes, neurons, told, notes, ours=FACTS_KEY in metadata)
    facts = _facts(metadata)
    assumptions = list(dict.fromkeys([*facts.pop("assumptions", []), *notes]))
    return merge_parts(replace(graph, metadata={**facts, "assumptions": assumptions}))


def _timed(nodes: dict[str, Tree], arrows: list[Arrow], source: str, sink: str, told: _Told, notes: list[str]) -> list[Arrow]:
    """Return the edges with the steps that the framework has and the file does not say."""
    late = {name for name, node in nodes.items() if kind_of(node) in told.habits.late_spikes}
    if late:
        biases = [node["bias"] for node in nodes.values() if isinstance(node.get("bias"), np.ndarray)]
        biased = any(bias.dtype.kind not in "biuf" or bias.any() for bias in biases)
        arrows, early = with_late_spikes(arrows, late, source, retime=not biased)
        how = f"the output comes {early[sink]} steps earlier here" if early.get(sink) else "edges have that step here"
        notes.append(f"{told.source} sends each spike a step late: {how}")
    stateful = {name for name, node in nodes.items() if kind_of(node) in NEURONS}
    arrows, closing = close_cycles(arrows, source, stateful)
    notes += [f"the cycle through '{a.source}' -> '{a.target}' is closed by one step on that edge" for a in closing]
    return arrows


# ------------------------------------------------------------------------------------------------------------- graph


def _graph(nodes: Mapping[str, Tree], arrows: list[Arrow], source: str, sink: str, dt_s: float, notes: list[str]) -> SNNGraph:
    """Return the network with neurons that have no parameters yet: their shapes follow from it."""
    into_sink = [arrow for arrow in arrows if arrow.target == sink]
    direct = len(into_sink) == 1 and not into_sink[0].delay and into_sink[0].source != source
    drop = {source, *([sink] if direct else [])}
    rename = {name: _layer_name(name, nodes) for name in nodes}
    layers = []
    for name, node in nodes.items():
        if name not in drop:
            behind = node_readers.flatten_followers(name, nodes, arrows) if kind_of(node) == "Flatten" else []
            layers.append(node_readers.layer(rename[name], node, behind, notes))
    edges = [
        Edge(source=INPUT if a.source == source else rename[a.source], target=rename[a.target], delay=a.delay)
        for a in arrows
        if a.target not in drop
    ]
    output = rename[into_sink[0].source] if direct else rename[sink]
    _check_reached(layers, edges)
    shape = tuple(int(n) for n in nodes[source]["shape"])
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, dt_s=dt_s, output=output)
    for name, node in nodes.items():
        if name not in drop and "input_shape" in node:
            node_readers.check_input_shape(rename[name], node, graph.input_shape_of(rename[name]))
    return graph


def _layer_name(name: str, nodes: Mapping[str, Tree]) -> str:
    return name if name != INPUT else unused("input_", nodes)


def _check_reached(layers: list[Layer], edges: list[Edge]) -> None:
    fed = {edge.target for edge in edges}
    for layer in layers:
        if layer.name not in fed:
            raise GraphError(f"node '{layer.name}': nothing feeds it; add an edge to it or remove it")


def _with_neurons(
    graph: SNNGraph, nodes: Mapping[str, Tree], neurons: Mapping[str, Fields], told: _Told, notes: list[str], *, ours: bool
) -> SNNGraph:
    """Fill in the neurons, now that the shape of each is known."""
    layers, late, run, unstated = {}, set(), [], False
    for name, fields in neurons.items():
        kind, shown = kind_of(nodes[name]), _layer_name(name, nodes)
        stated = decode_text(metadata_of(nodes[name]).get(RESET_KEY))
        reset: Reset = "subtract" if (told.reset or stated or told.habits.reset) == "subtract" else "value"
        unstated |= kind in SPIKING and kind != "Threshold" and not (told.reset or stated or told.source)
        if reset == "subtract" and not (told.reset or stated) and kind in told.habits.late_reset:
            late.add(shown)
        smallest = spread(shown, fields, graph.shape_of(shown), notes)
        meant = frameworks.as_meant(told.source, kind, smallest, graph.dt_s, notes)
        run.append((name, kind, meant))
        made = make(shown, kind, meant, reset=reset, dt_s=graph.dt_s)
        if any(name.startswith("tau") and (value < 0).any() for name, value in array_parameters(made).items()):
            notes.append(f"node '{shown}' has negative time constants: its state grows instead of decaying")
        layers[shown] = replace(graph[shown], neuron=made)
    if unstated:
        notes.append("NIR states no kind of reset: neurons are set to v_reset")
    if told.source is not None:
        said = told.habits.told if told.reset else (*told.habits.reset_told, *told.habits.told)
        notes += [f"{told.source} {text}" for text in said]
    elif not ours:
        notes += frameworks.doubts(run, graph.dt_s)
    return with_late_reset(graph.with_layers(layers), late)


# ---------------------------------------------------------------------------------------------------------- metadata


def _time_step(metadata: Tree, told: _Told, neurons: Mapping[str, Fields], notes: list[str]) -> float:
    if told.dt_s is not None:
        return float(told.dt_s)
    stored = metadata.get(DT_KEY)
    if isinstance(stored, np.ndarray) and stored.size == 1 and stored.dtype.kind in "iuf":
        return float(stored.reshape(-1)[0])
    found = frameworks.time_step(told.source, None, neurons.items())
    if found is not None:
        notes.append(f"the time step is {found:g} s, as {told.source} writes its files")
        return found
    notes.append(f"NIR has no time step: {DEFAULT_DT_S:g} s is taken")
    return DEFAULT_DT_S


def _with_stated_delays(arrows: list[Arrow], metadata: Tree) -> list[Arrow]:
    """Add the delays that our own files state for edges that close a cycle."""
    try:
        stated = {(str(a), str(b)): int(d) for a, b, d in json.loads(decode_text(metadata.get(EDGES_KEY)) or "[]")}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise GraphError(f"metadata '{EDGES_KEY}' is damaged ({error}); export the network again") from error
    if any(not 0 <= steps <= 10**6 for steps in stated.values()):
        raise GraphError(f"metadata '{EDGES_KEY}' states a delay outside 0..1000000 steps; export the network again")
    return [replace(a, delay=a.delay + stated.get((a.source, a.target), 0)) for a in arrows]


def _facts(metadata: Tree) -> dict[str, Any]:
    """Return the graph's own metadata, which our files carry as JSON."""
    try:
        facts = json.loads(decode_text(metadata.get(FACTS_KEY)) or "{}")
    except (ValueError, RecursionError) as error:
        raise GraphError(f"metadata '{FACTS_KEY}' is damaged ({error}); export the network again") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("assumptions", []), list):
        raise GraphError(f"metadata '{FACTS_KEY}' is no dictionary; export the network again")
    if not all(isinstance(text, str) for text in facts.get("assumptions", [])):
        raise GraphError(f"metadata '{FACTS_KEY}' holds assumptions that are no sentences; export the network again")
    return facts
