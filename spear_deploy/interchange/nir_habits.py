"""Which edges of a nested graph does its framework not mean?

Spyx writes a recurrent layer as input → w_rec → neuron, neuron → w_rec: taken at its word the input goes through the
recurrent weights. In Spyx it goes to the neuron.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.interchange.hdf5_tree import Tree, text_of

SPYX_NEURONS = ("IF", "LIF", "CubaLIF")


def put_right(root: Tree, source: str | None, notes: list[str]) -> Tree:
    """Return a graph whose nested graphs say what their framework means; `root` stays as it is.

    Without a source nothing is changed, and a note says what looks like such a habit.
    """
    stored = root.get("nodes")
    if not isinstance(stored, dict):
        return root
    nodes = {
        name: _put_right(name, node, source, notes)
        if isinstance(node, dict) and text_of(node.get("type")) == "NIRGraph"
        else node
        for name, node in stored.items()
    }
    return {**root, "nodes": nodes}


def _put_right(name: str, graph: Tree, source: str | None, notes: list[str]) -> Tree:
    found = _through_recurrent_weights(graph)
    if found is None or source not in (None, "spyx"):
        return put_right(graph, source, notes)
    entry, weight, neuron = found
    if source is None:
        notes.append(
            f"nested graph '{name}' sends its input through the recurrent weights '{weight}', which Spyx writes and does not "
            "mean; give the source 'spyx' if it wrote the file"
        )
        return graph
    notes.append(f"nested graph '{name}': the input goes to '{neuron}', not through the recurrent weights '{weight}'")
    edges = [[entry, neuron] if (str(a), str(b)) == (entry, weight) else [a, b] for a, b in graph["edges"]]
    return {**graph, "edges": np.array(edges, object)}


def _through_recurrent_weights(graph: Tree) -> tuple[str, str, str] | None:
    """Return the names of input, weights and neuron of a graph of the pattern, or None."""
    nodes, edges = graph.get("nodes"), graph.get("edges")
    if not isinstance(nodes, dict) or not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[1] != 2:
        return None
    kinds = {name: text_of(node.get("type")) for name, node in nodes.items() if isinstance(node, dict)}
    by_kind = [
        [n for n, k in kinds.items() if k in wanted] for wanted in (("Input",), ("Linear", "Affine"), SPYX_NEURONS, ("Output",))
    ]
    if len(nodes) != 4 or any(len(names) != 1 for names in by_kind):
        return None
    entry, weight, neuron, leave = (names[0] for names in by_kind)
    pattern = {(entry, weight), (weight, neuron), (neuron, weight), (neuron, leave)}
    return (entry, weight, neuron) if {(str(a), str(b)) for a, b in edges} == pattern else None
