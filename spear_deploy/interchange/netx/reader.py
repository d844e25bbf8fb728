"""Reader of netx files (lava-dl, HDF5) as integer networks.

A list of integer layers, `layer/0`, `layer/1`, ..., in the order of the data:

    weight   (O, I) or (O, I, kH, kW[, 1]), torch's orientation        shape   (C, H, W)
    bias     what is added to v each step is 64 · bias                  delay   further steps on the way in
    input    its neurons get the bias round(weight · current + bias)   concat  joins entries by number

lava-dl flattens (C, H, W) in that order in front of a dense layer. `layers` reads each kind of entry, `neurons` its neurons.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError, did_you_mean
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.connections import ImportState
from spear_deploy.interchange.netx.layers import READERS
from spear_deploy.network import Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.hdf5.tree import Tree, read_tree

MAX_ENTRIES = 1000
MAX_LAYERS = 5000
"""An entry with delays takes a layer of the network for each of them."""
INSTEAD = {
    "convT": "use conv, or dense with its weights written out",
    "unpool": "use conv, or dense with its weights written out",
    "dense_comp": "use dense with real weights and CUBA neurons",
}


def read_netx(path: str | os.PathLike[str], *, input_shape: Shape | None = None) -> SNNGraph:
    """Read a netx file as an integer network.

    Args:
        path: the file.
        input_shape: of the input, (C, H, W); needed only where a file without an input layer starts with a strided convolution
            or a pool. A flat input may be given axes; another shape than that of the file is refused.

    Returns:
        The network; layers are called "layer0", "layer1", ... by their index in the file. `metadata["assumptions"]` lists
        what had to be assumed.

    Raises:
        FileError: missing, truncated, foreign.
        GraphError: layers contradict each other, or weights are not whole numbers.
        UnsupportedError: a layer or neuron has no counterpart, by name.
    """
    tree = read_tree(path, "netx file")
    try:
        return build_network(tree, input_shape)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


def list_entries(tree: Tree) -> dict[int, Tree]:
    """Return the entries of a netx file by number.

    Raises:
        FileError: the file holds no netx network.
        GraphError: an entry is missing, or there are too many.
    """
    rows = tree.get("layer")
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise FileError("holds no netx network; expected groups 'layer/0', 'layer/1', ...")
    if len(rows) > MAX_ENTRIES:
        raise GraphError(f"holds {len(rows)} layers, at most {MAX_ENTRIES} are read; join layers")
    missing = [str(n) for n in range(len(rows)) if str(n) not in rows]
    if missing:
        raise GraphError(f"layer {missing[0]} is missing, {len(rows)} layers are there; {entry.AGAIN}")
    return {n: dict(rows[str(n)]) for n in range(len(rows))}


def build_network(tree: Tree, input_shape: Shape | None = None) -> SNNGraph:
    """Build the network of a netx file's tree.

    Weights are removed from the tree as they are read, so that large ones are not held twice.

    Args:
        tree: the file, as `read_tree` returns it.
        input_shape: see `read_netx`.

    Raises:
        FileError, GraphError, UnsupportedError: see `read_netx`.
    """
    state = ImportState(rows=list_entries(tree), input_shape=input_shape)
    tree.pop("layer")
    for n, row in state.rows.items():
        kind = entry.read_text(row, "type") or "none"
        if kind not in READERS:
            instead = INSTEAD.get(kind, f"known are {', '.join(READERS)}{did_you_mean(kind, READERS)}")
            raise UnsupportedError(f"layer {n}: type '{kind}' has no counterpart; {instead}")
        try:
            READERS[kind](state, n, row)
        except SpearError as error:
            raise type(error)(f"layer {n}: {error}") from error
        state.emitted[n] = list(state.inputs)
        if len(state.layers) > MAX_LAYERS:
            raise GraphError(f"layer {n}: {len(state.layers)} sets of weights, one for each delay, at most {MAX_LAYERS} are read")
    if not state.layers or state.input_shape is None:
        raise GraphError(f"there is no layer behind the input; {entry.AGAIN}")
    if len(state.inputs) > 1:
        raise UnsupportedError(
            f"layer {len(state.rows) - 1}: a join at the end has no counterpart; put a layer with weights behind it"
        )
    return SNNGraph(
        layers=tuple(state.layers),
        edges=tuple(state.edges),
        input_shape=state.input_shape,
        dt_s=_read_time_step(tree, state.notes),
        output=state.inputs[0].source,
        metadata={"assumptions": state.notes},
    )


def _read_time_step(tree: Tree, notes: list[str]) -> float:
    simulation = tree.get("simulation")
    step = simulation.get("Ts") if isinstance(simulation, dict) else None
    if isinstance(step, np.ndarray) and step.size == 1 and step.dtype.kind in "iuf":
        return float(step.reshape(-1)[0]) * 1e-3
    notes.append("the file states no Ts: a step of 1 ms is taken")
    return 1e-3
