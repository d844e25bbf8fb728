"""Nodes and edges of a NIR file, nested graphs flattened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.interchange.nir.edges import Arrow, find_free_name
from spear_deploy.interchange.nir.neurons import NEURONS
from spear_deploy.network import Shape
from spear_deploy.util.hdf5.tree import Tree, decode_integers, decode_text

SHAPE_KEYS = {"Input": ("shape", "input_type", "input_shape"), "Output": ("shape", "output_type", "output_shape")}
"""Fields in which versions of NIR keep the shape of an input or output: an array, or a group with one array in it."""

JOINING = {
    "Input": "give the network one input that holds the values of all, such as further channels",
    "Output": "export the network with one of its heads, or with a layer behind all of them",
}
"""What to do about several inputs or outputs."""

MAX_INPUTS = 2**31
MAX_EDGES = 20_000


def read_kind(node: Tree) -> str:
    """Return the type that a node states, or an empty string."""
    return decode_text(node.get("type")) or ""


def read_metadata(node: Tree) -> Tree:
    """Return the metadata of a node or graph, which NIR's own fields do not cover."""
    stored = node.get("metadata")
    return stored if isinstance(stored, dict) else {}


def flatten_graphs(root: Tree, prefix: str = "") -> tuple[dict[str, Tree], list[Arrow]]:
    """Return all nodes by name and all edges; nodes of nested graphs are named 'outer.inner'.

    Edges into a nested graph go to its Input node, edges out of it leave from its Output node; both stay as Identity nodes.
    """
    stored = root.get("nodes")
    if not isinstance(stored, dict) or not stored:
        raise GraphError(f"graph '{prefix.rstrip('.') or 'node'}' holds no nodes; export the network again")
    nodes: dict[str, Tree] = {}
    arrows: list[Arrow] = []
    enter: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in stored.items():
        full = f"{prefix}{name}"
        if not isinstance(node, dict) or not read_kind(node):
            raise GraphError(f"node '{full}' states no type; export the network again")
        inner, inner_arrows = flatten_graphs(node, f"{full}.") if read_kind(node) == "NIRGraph" else ({full: node}, [])
        for clash in inner.keys() & nodes.keys():
            raise GraphError(f"node '{clash}' is there twice once nested graphs are laid out flat; rename one")
        nodes.update(inner)
        arrows += inner_arrows
        enter[name] = leave[name] = full
        if read_kind(node) == "NIRGraph":
            enter[name], leave[name] = (_open_end(node, full, nodes, end) for end in ("Input", "Output"))
    for a, b in _read_edges(root, prefix):
        for end in (a, b):
            if end not in stored:
                raise GraphError(f"edge '{a}' -> '{b}': there is no node '{prefix}{end}'{did_you_mean(end, stored)}")
        arrows.append(Arrow(leave[a], enter[b]))
    return nodes, arrows


def _open_end(graph: Tree, name: str, nodes: dict[str, Tree], end: str) -> str:
    """Return the only input or output node of a nested graph, and make it an Identity."""
    names = [f"{name}.{n}" for n, node in graph["nodes"].items() if read_kind(node) == end]
    if len(names) != 1:
        raise UnsupportedError(f"nested graph '{name}' has {len(names)} {end} nodes, expected one; join them")
    nodes[names[0]] = {**nodes[names[0]], "type": "Identity"}
    return names[0]


def _read_edges(root: Tree, prefix: str) -> list[tuple[str, str]]:
    stored = root.get("edges")
    if not isinstance(stored, np.ndarray) or (stored.size and (stored.ndim != 2 or stored.shape[1] != 2)):
        raise GraphError(f"graph '{prefix.rstrip('.') or 'node'}': edges are missing or no pairs; export the network again")
    if len(stored) > MAX_EDGES:
        raise UnsupportedError(f"{len(stored)} edges in one graph, {MAX_EDGES} are supported; split it")
    pairs = [(str(a), str(b)) for a, b in stored.reshape(-1, 2)]
    for pair, count in Counter(pairs).items():
        if count > 1:
            raise GraphError(f"edge '{pair[0]}' -> '{pair[1]}' is there {count} times; remove all but one")
    return pairs


def find_ends(nodes: dict[str, Tree], arrows: list[Arrow], notes: list[str]) -> tuple[str, str]:
    """Return the names of the input and the output node; adds the ones that an old file lacks.

    Of several outputs the one that all others feed is the network's, as of a module's forward; the others are removed.
    """
    ends = []
    for kind, inside in (("Input", "target"), ("Output", "source")):
        names = [name for name, node in nodes.items() if read_kind(node) == kind]
        if len(names) > 1 and kind == "Output":
            names = _keep_last_output(names, nodes, arrows, notes)
        if len(names) > 1:
            listed = ", ".join(f"'{name}'" for name in sorted(names))
            raise UnsupportedError(f"{len(names)} {kind} nodes ({listed}), one is supported; {JOINING[kind]}")
        if not names:
            joined = {getattr(arrow, inside) for arrow in arrows}
            free = [name for name in nodes if name not in joined]
            if len(free) != 1:
                raise GraphError(f"there is no {kind} node and {len(free)} nodes could be it; add an {kind} node")
            names = [find_free_name(kind.lower(), nodes)]
            nodes[names[0]] = {"type": kind}
            arrows.append(Arrow(names[0], free[0]) if kind == "Input" else Arrow(free[0], names[0]))
            notes.append(f"the file has no {kind} node: it is taken to be at '{free[0]}'")
        ends.append(names[0])
    return ends[0], ends[1]


def _keep_last_output(names: list[str], nodes: dict[str, Tree], arrows: list[Arrow], notes: list[str]) -> list[str]:
    """Return the output that what feeds the others feeds too, and remove those; all of them where it is none or several."""
    sources: dict[str, set[str]] = {}
    for arrow in arrows:
        sources.setdefault(arrow.target, set()).add(arrow.source)
    heads = {name: sources.get(name, set()) for name in names}
    last = [name for name in names if all(heads[other] <= _list_feeding(name, sources) for other in names)]
    if len(last) != 1 or not all(heads.values()) or any(arrow.source in heads for arrow in arrows):
        return names
    for name in set(names) - set(last):
        del nodes[name]
    arrows[:] = [arrow for arrow in arrows if arrow.target in nodes]
    notes.append(f"the file has {len(names)} Output nodes: that of '{last[0]}' is the network's, which the others feed")
    return last


def _list_feeding(name: str, sources: Mapping[str, set[str]]) -> set[str]:
    """Return the nodes that feed a node, directly or through others."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        new = sources.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def find_input_shape(nodes: Mapping[str, Tree], arrows: list[Arrow], source: str, notes: list[str]) -> Shape:
    """Return the shape of the network's input, as stated or as the first node behind it takes."""
    stated = [nodes[source].get(key) for key in SHAPE_KEYS["Input"]]
    values = [next(iter(value.values()), None) if isinstance(value, dict) else value for value in stated]
    stored = next((value for value in values if value is not None), None)
    if stored is not None:
        shape = decode_integers(stored)
        if not shape or min(shape) < 1:
            raise GraphError(f"node '{source}'.shape: expected whole numbers from 1; export the network again")
        if math.prod(shape) > MAX_INPUTS:
            raise UnsupportedError(f"node '{source}': {math.prod(shape)} inputs, {MAX_INPUTS} are supported; check its shape")
        return shape
    for name in (arrow.target for arrow in arrows if arrow.source == source):
        shape = _read_shape_taken(nodes[name])
        if shape is not None:
            notes.append(f"node '{source}' states no shape: {shape} is taken, which node '{name}' takes")
            return shape
        raise GraphError(f"node '{source}' states no shape and '{name}' does not tell its own; add an Input node with a shape")
    raise GraphError(f"node '{source}' feeds nothing; add an edge from it")


def leave_out_batch(shape: Shape, nodes: Mapping[str, Tree], arrows: list[Arrow], source: str, notes: list[str]) -> Shape:
    """Return an input shape without axes of one value in front of what weights behind it take: the batch, or batch and time.

    A framework writes them where the sample that it exports with has them (Rockpool).
    """
    readers = [nodes[arrow.target] for arrow in arrows if arrow.source == source]
    taken = {_read_shape_taken(node) if read_kind(node) in ("Affine", "Linear") else None for node in readers}
    if len(shape) > 1 and taken == {shape[-1:]} and math.prod(shape[:-1]) == 1:
        what = "first axis is taken to be the batch" if len(shape) == 2 else "axes of one value are taken to be time and batch"
        notes.append(f"node '{source}' states {shape}: its {what}")
        return shape[-1:]
    return shape


def _read_shape_taken(node: Tree) -> Shape | None:
    """Return the input shape of a node, None where its fields alone do not state it."""
    kind = read_kind(node)
    weight = node.get("weight")
    if kind in ("Affine", "Linear"):
        return (weight.shape[1],) if isinstance(weight, np.ndarray) and weight.ndim == 2 else None
    if kind in ("Conv1d", "Conv2d") and isinstance(weight, np.ndarray) and weight.ndim > 2:
        positions = decode_integers(node.get("input_shape"))
        groups = decode_integers(node.get("groups", np.array(1))) or (1,)
        return None if not positions else (weight.shape[1] * groups[0], *positions)
    if kind == "Flatten":
        return decode_integers(node.get("input_type")) or None
    fields = ("r", "v_threshold", "v_leak", "threshold") if kind in (*NEURONS, "I") else ("scale", "delay")
    shapes = [node[field].shape for field in fields if isinstance(node.get(field), np.ndarray) and node[field].ndim]
    return shapes[0] if shapes else None


# --------------------------------------------------------------------------------------------------- Spyx's recurrent layers

SPYX_NEURONS = ("IF", "LIF", "CubaLIF")


def fix_spyx_recurrence(root: Tree, source: str | None, notes: list[str]) -> Tree:
    """Return a graph in which Spyx's recurrent layers get their input at the neuron; `root` is not changed.

    Spyx writes a recurrent layer as input → w_rec → neuron, neuron → w_rec, with the input through the recurrent weights. In
    Spyx it goes to the neuron. Without a source nothing is changed, and a note names the nested graph.

    Args:
        root: a graph, with nested ones.
        source: the framework that wrote the file.
        notes: collects what is changed or looks like Spyx.
    """
    stored = root.get("nodes")
    if not isinstance(stored, dict):
        return root
    nodes = {
        name: _fix_nested_graph(name, node, source, notes) if isinstance(node, dict) and read_kind(node) == "NIRGraph" else node
        for name, node in stored.items()
    }
    return {**root, "nodes": nodes}


def _fix_nested_graph(name: str, graph: Tree, source: str | None, notes: list[str]) -> Tree:
    match = _match_spyx_recurrence(graph)
    if match is None or source not in (None, "spyx"):
        return fix_spyx_recurrence(graph, source, notes)
    entry, weight, neuron = match
    if source is None:
        notes.append(
            f"nested graph '{name}' sends its input through the recurrent weights '{weight}', which Spyx writes and does not "
            "mean; give the source 'spyx' if it wrote the file"
        )
        return graph
    notes.append(f"nested graph '{name}': the input goes to '{neuron}', not through the recurrent weights '{weight}'")
    edges = [[entry, neuron] if (str(a), str(b)) == (entry, weight) else [a, b] for a, b in graph["edges"]]
    return {**graph, "edges": np.array(edges, object)}


def _match_spyx_recurrence(graph: Tree) -> tuple[str, str, str] | None:
    """Return the names of input, weights and neuron of a graph of Spyx's pattern, None for any other."""
    nodes, edges = graph.get("nodes"), graph.get("edges")
    if not isinstance(nodes, dict) or not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[1] != 2:
        return None
    kinds = {name: read_kind(node) for name, node in nodes.items() if isinstance(node, dict)}
    roles = (("Input",), ("Linear", "Affine"), SPYX_NEURONS, ("Output",))
    matches = [[name for name, kind in kinds.items() if kind in role] for role in roles]
    if len(nodes) != 4 or any(len(names) != 1 for names in matches):
        return None
    entry, weight, neuron, leave = (names[0] for names in matches)
    pattern = {(entry, weight), (weight, neuron), (neuron, weight), (neuron, leave)}
    return (entry, weight, neuron) if {(str(a), str(b)) for a, b in edges} == pattern else None
