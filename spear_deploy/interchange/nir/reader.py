"""Networks from NIR files of any framework.

NIR is continuous in time and states neither a time step nor the kind of reset. Both come from the caller, from the metadata of
files that spear-deploy wrote, from the framework that wrote the file (`frameworks`), or from a default;
`metadata["assumptions"]` lists which.

    LIF      v ← v + dt/tau ((v_leak − v) + r x)               forward Euler
    CubaLIF  I ← I + dt/tau_syn (−I + w_in x), then v with the new I: with u = I after its decay this is the graph's
             CubaLIF, u ← (1 − dt/tau_syn) u_before + w_in dt/tau_syn x, which is Norse's order
    IF       v ← v + r x                                       no dt
    a cycle is closed by one step: the spikes of the last neuron in it arrive a step later
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.interchange.nir.dialects import DIALECT_KEY, DIALECTS, KIND_KEY, LAYER_KEY
from spear_deploy.interchange.nir.edges import Arrow, close_cycles, expand_nodes, find_free_name, fold_pass_through_nodes
from spear_deploy.interchange.nir.fingerprints import find_origin
from spear_deploy.interchange.nir.frameworks import (
    PLAIN,
    Conventions,
    convert_parameters,
    delay_spikes,
    get_conventions,
    list_doubts,
)
from spear_deploy.interchange.nir.integers import INTEGERS_KEY, restore_integers
from spear_deploy.interchange.nir.layer_facts import LAYERS_KEY, restore_layers
from spear_deploy.interchange.nir.layout import (
    find_ends,
    find_input_shape,
    fix_spyx_recurrence,
    flatten_graphs,
    leave_out_batch,
    read_kind,
    read_metadata,
)
from spear_deploy.interchange.nir.metadata import (
    DT_KEY,
    EDGES_KEY,
    FACTS_KEY,
    MAX_SPIKES_KEY,
    NETWORK_DT_KEY,
    RESET_DELAY_KEY,
    RESET_KEY,
    V_INIT_KEY,
    V_MIN_KEY,
)
from spear_deploy.interchange.nir.neurons import (
    NEURONS,
    SPIKING,
    Fields,
    make_neuron,
    read_numbers,
    read_parameters,
    shrink_parameters,
)
from spear_deploy.interchange.nir.nodes import check_input_shape, list_flatten_followers, make_layer
from spear_deploy.network import Layer, Reset, array_parameters
from spear_deploy.network.chip_format import FORMAT_OF_NEURONS
from spear_deploy.network.delayed_reset import delay_resets, fold_reset_loops
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, merge_parts
from spear_deploy.network.metadata import check_metadata
from spear_deploy.util.hdf5.tree import Tree, decode_text, read_tree

DEFAULT_DT_S = 1e-4
RESETS: tuple[Reset, ...] = get_args(Reset)
MAX_NODES = 2000


Writer: TypeAlias = Literal["here", "here for a framework", "another"]
"""Who wrote a file: spear-deploy, whose files state time step, reset and what decides for a class; spear-deploy for the importer
of a framework, which state the first two; or another tool."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of a reader: time step in s, reset, framework; None where the file or a default decides.

    `dialect` is the framework for whose importer spear-deploy wrote the file, if any; `integers` whether integers are made of
    real numbers that were written for them.
    """

    dt_s: float | None = None
    reset: Reset | None = None
    source: str | None = None
    dialect: str | None = None
    integers: bool = True

    @property
    def conventions(self) -> Conventions:
        return get_conventions(self.source) if self.dialect is None else DIALECTS[self.dialect].conventions


def read_nir(
    path: str | os.PathLike[str],
    *,
    dt_s: float | None = None,
    reset: Reset | None = None,
    source: str | None = None,
    integers: bool = True,
) -> SNNGraph:
    """Read a NIR file of any framework and version.

    Args:
        path: the file.
        dt_s: the time step; None takes the one the file states (ours do), else that of the source, else 1e-4 s.
        reset: "value", "subtract" or "none" for all neurons; None takes the one the file states (ours do), else that of the
            source, else "value".
        source: the framework that wrote the file, one of `frameworks.FRAMEWORKS`, or "nir" for NIR's own equations; None takes
            the framework whose traces the file bears (`fingerprints`), else NIR's own equations.
        integers: whether a network that was written from a chip's integers is read as these; the nodes hold real numbers.

    Returns:
        The network; a weighted node and the neuron behind it are one layer, named after the neuron.

    Raises:
        FileError: missing, truncated, foreign.
        GraphError: nodes or edges that contradict each other, NaN.
        UnsupportedError: a node that the simulator cannot represent, by name; an unknown source.
    """
    options = replace(_check_options(dt_s, reset, source), integers=integers)
    tree = read_tree(path, "NIR file")
    try:
        return _make_network(tree, options)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


def find_writer(path: str | os.PathLike[str]) -> Writer:
    """Return who wrote a NIR file; "another" too where it cannot be read, which its reader says."""
    try:
        stamp = os.stat(path)
        return _find_writer(os.fspath(path), stamp.st_mtime_ns, stamp.st_size)
    except (OSError, SpearError):
        return "another"


@lru_cache(maxsize=8)
def _find_writer(path: str, *stamp: int) -> Writer:
    root = read_tree(path, "NIR file").get("node")
    metadata = read_metadata(root) if isinstance(root, dict) else {}
    if decode_text(metadata.get(DIALECT_KEY)) in DIALECTS:
        return "here for a framework"
    return "here" if FACTS_KEY in metadata else "another"


def read_nir_graph(graph: Any, *, dt_s: float | None = None, reset: str | None = None, source: str | None = None) -> SNNGraph:
    """Read a `nir.NIRGraph`, as `read_nir` reads the file that it would be written to."""
    return _make_network({"node": _to_tree(graph.to_dict())}, _check_options(dt_s, reset, source))


def _to_tree(value: Any) -> Any:
    """Return an entry of a graph's dictionary in the form in which files are read: numbers as arrays, without None."""
    if isinstance(value, Mapping):
        return {str(name): _to_tree(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, str):
        return value
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    return array.astype(object) if array.dtype.kind in "US" else array


def _check_options(dt_s: float | None, reset: str | None, source: str | None) -> _Options:
    options = _Options(dt_s=dt_s, reset=reset, source=source)  # type: ignore[arg-type]  # checked below
    if reset not in (None, *RESETS):
        raise GraphError(f"reset: '{reset}' given, expected {' or '.join(map(repr, RESETS))}")
    if dt_s is not None and not (np.isfinite(dt_s) and dt_s > 0):
        raise GraphError(f"dt_s: {dt_s} given, a time step is above 0 s")
    get_conventions(source)
    return options


def _make_network(tree: Tree, options: _Options) -> SNNGraph:
    root = tree.get("node")
    if not isinstance(root, dict) or read_kind(root) != "NIRGraph":
        raise FileError("holds no NIR graph; expected a group 'node' of type NIRGraph")
    notes: list[str] = []
    metadata = read_metadata(root)
    dialect = decode_text(metadata.get(DIALECT_KEY))
    is_ours = FACTS_KEY in metadata or dialect in DIALECTS
    if options.source is not None and is_ours:
        raise UnsupportedError(f"source '{options.source}': the file was written by spear-deploy and needs none; leave it out")
    nodes, arrows = flatten_graphs(fix_spyx_recurrence(root, options.source, notes))
    if len(nodes) > MAX_NODES:
        raise UnsupportedError(f"{len(nodes)} nodes in one network, {MAX_NODES} are supported; split it")
    neurons = {name: read_parameters(name, node, notes) for name, node in nodes.items() if read_kind(node) in NEURONS}
    if dialect in DIALECTS:
        options = replace(options, dialect=dialect)
        notes.append(f"the file was written for {DIALECTS[dialect].title}'s importer, and is read as that reads it")
    elif options.source is None and not is_ours:
        origin = find_origin(nodes, neurons)
        options = replace(options, source=origin.source)
        notes += [origin.note] if origin.note else []
    dt_s = _choose_time_step(metadata, options, neurons, notes)
    source, sink = find_ends(nodes, arrows, notes)
    shape = find_input_shape(nodes, arrows, source, notes)
    shape = shape if is_ours else leave_out_batch(shape, nodes, arrows, source, notes)
    nodes[source] = {**nodes[source], "shape": np.array(shape)}
    arrows = expand_nodes(nodes, _add_stated_delays(arrows, metadata), dt_s, notes)
    arrows = fold_pass_through_nodes(nodes, arrows, dt_s)
    arrows = _add_framework_steps(nodes, arrows, source, sink, options, notes)
    graph = _make_graph(nodes, arrows, source, sink, dt_s, notes)
    graph = _add_neurons(graph, nodes, neurons, options, notes, ours=is_ours)
    facts = _read_facts(metadata)
    assumptions = list(dict.fromkeys([*facts.pop("assumptions", []), *notes]))
    graph = replace(graph, metadata={**facts, "assumptions": assumptions})
    stated = decode_text(metadata.get(LAYERS_KEY))
    merged = merge_parts(graph) if stated is None else restore_layers(graph, stated)
    restored = _restore_integers(merged, metadata) if options.integers else merged
    check_metadata(restored)
    return restored if options.dt_s is not None else _restore_time_step(restored, metadata)


def _add_framework_steps(
    nodes: dict[str, Tree], arrows: list[Arrow], source: str, sink: str, options: _Options, notes: list[str]
) -> list[Arrow]:
    """Return the edges with the steps of delay that the framework has and the file does not state."""
    late = {name for name, node in nodes.items() if read_kind(node) in options.conventions.late_spikes}
    if late:
        biases = [node["bias"] for node in nodes.values() if isinstance(node.get("bias"), np.ndarray)]
        biased = any(bias.dtype.kind not in "biuf" or bias.any() for bias in biases)
        arrows, early = delay_spikes(arrows, late, source, retime=not biased)
        how = f"the output comes {early[sink]} steps earlier here" if early.get(sink) else "edges have that step here"
        notes.append(f"{options.source} sends each spike a step late: {how}")
    stateful = {name for name, node in nodes.items() if read_kind(node) in NEURONS}
    arrows, closing = close_cycles(arrows, source, stateful)
    notes += [f"the cycle through '{a.source}' -> '{a.target}' is closed by one step on that edge" for a in closing]
    return arrows


# ------------------------------------------------------------------------------------------------------------- graph


def _make_graph(
    nodes: Mapping[str, Tree], arrows: list[Arrow], source: str, sink: str, dt_s: float, notes: list[str]
) -> SNNGraph:
    """Return the network without its neurons: their shapes, and so their parameters, follow from it."""
    into_sink = [arrow for arrow in arrows if arrow.target == sink]
    direct = len(into_sink) == 1 and not into_sink[0].delay and into_sink[0].source != source
    drop = {source, *([sink] if direct else [])}
    rename = {name: _make_layer_name(name, nodes) for name in nodes}
    layers = []
    for name, node in nodes.items():
        if name not in drop:
            behind = list_flatten_followers(name, nodes, arrows) if read_kind(node) == "Flatten" else []
            layers.append(make_layer(rename[name], node, behind, notes))
    edges = [
        Edge(source=INPUT if a.source == source else rename[a.source], target=rename[a.target], delay=a.delay)
        for a in arrows
        if a.target not in drop
    ]
    output = rename[into_sink[0].source] if direct else rename[sink]
    targets = {edge.target for edge in edges}
    for layer in layers:
        if layer.name not in targets:
            raise GraphError(f"node '{layer.name}': nothing feeds it; add an edge to it or remove it")
    shape = tuple(int(n) for n in nodes[source]["shape"])
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, dt_s=dt_s, output=output)
    for name, node in nodes.items():
        if name not in drop and "input_shape" in node:
            check_input_shape(rename[name], node, graph.input_shape_of(rename[name]))
    return graph


def _make_layer_name(name: str, nodes: Mapping[str, Tree]) -> str:
    stated = decode_text(read_metadata(nodes[name]).get(LAYER_KEY))
    if stated and stated != INPUT and stated not in nodes:
        return stated
    return name if name != INPUT else find_free_name("input_", nodes)


def _read_max_spikes(name: str, metadata: Tree) -> int | None:
    """Return the largest number of spikes in a step that a node states, None where there is no limit."""
    if MAX_SPIKES_KEY not in metadata:
        return 1
    stated = float(read_numbers(name, metadata, MAX_SPIKES_KEY).reshape(-1)[0])
    if stated != int(stated) or stated < 0:
        raise GraphError(f"node '{name}': {MAX_SPIKES_KEY} is {stated:g}, expected a whole number from 0; export it again")
    return int(stated) or None


def _add_neurons(
    graph: SNNGraph, nodes: Mapping[str, Tree], neurons: Mapping[str, Fields], options: _Options, notes: list[str], *, ours: bool
) -> SNNGraph:
    """Fill in the neurons, now that the shape of each is known."""
    layers, late, run, is_unstated = {}, set(), [], False
    conventions = options.conventions
    for name, fields in neurons.items():
        kind, layer = read_kind(nodes[name]), _make_layer_name(name, nodes)
        metadata = read_metadata(nodes[name])
        stated = decode_text(metadata.get(RESET_KEY))
        named = options.reset or stated or conventions.reset
        reset: Reset = next((known for known in RESETS if known == named), "value")
        is_unstated |= kind in SPIKING and kind != "Threshold" and not (options.reset or stated or options.source)
        comes_late = np.array_equal(metadata.get(RESET_DELAY_KEY, 0), 1) if stated else kind in conventions.late_reset
        if reset == "subtract" and comes_late and not options.reset:
            late.add(layer)
        if kind == "LIF" and decode_text(metadata.get(KIND_KEY)) == "IF":  # for an importer without IF
            kind, fields = "IF", {"r": np.ones(()), **{key: fields[key] for key in ("v_threshold", "v_reset")}}
        if kind == "IF" and stated and V_MIN_KEY in metadata:
            fields = {**fields, V_MIN_KEY: read_numbers(name, metadata, V_MIN_KEY)}
        if kind in ("LIF", "CubaLIF") and stated and V_INIT_KEY in metadata:
            fields = {**fields, V_INIT_KEY: read_numbers(name, metadata, V_INIT_KEY)}
        smallest = shrink_parameters(layer, fields, graph.shape_of(layer), notes)
        converted = convert_parameters(conventions, kind, smallest, graph.dt_s, notes)
        run.append((name, converted))
        most = _read_max_spikes(name, metadata) if stated else conventions.max_spikes
        neuron = make_neuron(layer, kind, converted, reset=reset, max_spikes=most, dt_s=graph.dt_s)
        if any(name.startswith("tau") and (value < 0).any() for name, value in array_parameters(neuron).items()):
            notes.append(f"node '{layer}' has negative time constants: its state grows instead of decaying")
        layers[layer] = replace(graph[layer], neuron=neuron)
    if is_unstated:
        notes.append("NIR states no kind of reset: neurons are set to v_reset")
    if options.source not in (None, PLAIN):
        texts = conventions.notes if options.reset else (*conventions.reset_notes, *conventions.notes)
        notes += [f"{options.source} {text}" for text in texts]
    elif not ours:
        notes += list_doubts(run, graph.dt_s)
    graph = delay_resets(graph.with_layers(layers), late)
    return fold_reset_loops(graph) if ours else graph


# ---------------------------------------------------------------------------------------------------------- metadata


def _choose_time_step(metadata: Tree, options: _Options, neurons: Mapping[str, Fields], notes: list[str]) -> float:
    if options.dt_s is not None:
        return float(options.dt_s)
    stored = metadata.get(DT_KEY)
    if isinstance(stored, np.ndarray) and stored.size == 1 and stored.dtype.kind in "iuf":
        return float(stored.reshape(-1)[0])
    conventions = options.conventions
    dt_s = conventions.dt_s if conventions.infer_dt_s is None else conventions.infer_dt_s(neurons.items())
    if dt_s is not None:
        notes.append(f"the time step is {dt_s:g} s, as {options.source} writes its files")
        return dt_s
    notes.append(f"NIR has no time step: {DEFAULT_DT_S:g} s is taken")
    return DEFAULT_DT_S


def _restore_time_step(graph: SNNGraph, metadata: Tree) -> SNNGraph:
    """Return the network with its own time step, where a file is written for an importer that takes another; steps stay equal."""
    stored = metadata.get(NETWORK_DT_KEY)
    if not (isinstance(stored, np.ndarray) and stored.size == 1 and stored.dtype.kind in "iuf"):
        return graph
    dt_s = float(stored.reshape(-1)[0])
    if not (np.isfinite(dt_s) and dt_s > 0):
        raise GraphError(f"metadata '{NETWORK_DT_KEY}' is {dt_s:g}, a time step is above 0 s; export the network again")

    def scale(layer: Layer) -> Layer:
        if layer.neuron is None:
            return layer
        taus = {name: value for name, value in array_parameters(layer.neuron).items() if name.startswith("tau")}
        changed: dict[str, Any] = {name: value.astype(np.float64) * (dt_s / graph.dt_s) for name, value in taus.items()}
        return replace(layer, neuron=replace(layer.neuron, **changed))

    return replace(graph.with_layers(scale), dt_s=dt_s)


def _add_stated_delays(arrows: list[Arrow], metadata: Tree) -> list[Arrow]:
    """Add the delays that files of spear-deploy state for edges that close a cycle."""
    try:
        stated = {(str(a), str(b)): int(d) for a, b, d in json.loads(decode_text(metadata.get(EDGES_KEY)) or "[]")}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise GraphError(f"metadata '{EDGES_KEY}' is damaged ({error}); export the network again") from error
    if any(not 0 <= steps <= 10**6 for steps in stated.values()):
        raise GraphError(f"metadata '{EDGES_KEY}' states a delay outside 0..1000000 steps; export the network again")
    return [replace(a, delay=a.delay + stated.get((a.source, a.target), 0)) for a in arrows]


def _restore_integers(graph: SNNGraph, metadata: Tree) -> SNNGraph:
    """Return the integers that the network was written from, or, where it does not hold them, say that it is not quantised."""
    stated = decode_text(metadata.get(INTEGERS_KEY))
    quantization = graph.metadata.get("quantization", {})
    if stated is None and quantization.get("format") not in FORMAT_OF_NEURONS.values():
        return graph
    changed = None
    if stated is not None:
        graph, changed = restore_integers(graph, stated)
        if changed is None:
            return graph
    where = "the file does not state its integers" if changed is None else f"layer '{changed}' holds other numbers now"
    note = f"the network was quantised for {quantization.get('format', 'loihi')}, {where}: it is read as not quantised"
    facts = {key: value for key, value in graph.metadata.items() if key != "quantization"}
    return replace(graph, metadata={**facts, "assumptions": [*facts["assumptions"], note]})


def _read_facts(metadata: Tree) -> dict[str, Any]:
    """Return the metadata of the network, which files of spear-deploy hold as JSON."""
    try:
        facts = json.loads(decode_text(metadata.get(FACTS_KEY)) or "{}")
    except (ValueError, RecursionError) as error:
        raise GraphError(f"metadata '{FACTS_KEY}' is damaged ({error}); export the network again") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("assumptions", []), list):
        raise GraphError(f"metadata '{FACTS_KEY}' is no dictionary; export the network again")
    if not all(isinstance(text, str) for text in facts.get("assumptions", [])):
        raise GraphError(f"metadata '{FACTS_KEY}' holds assumptions that are no sentences; export the network again")
    if not isinstance(facts.get("quantization", {}), dict):
        raise GraphError(f"metadata '{FACTS_KEY}' holds a quantization that is no dictionary; export the network again")
    return facts
