"""NIR files for the importer of one framework.

A file holds what that importer reads and nothing else: no delays, no scales, weights with batch norm folded in
(`dialect_network`), neurons that step there as the network's (`dialect_neurons`), recurrent weights in the form that it takes,
and a sum of layers as edges into the node behind it. What differs after the import, or has to be set by hand, is returned.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, NoReturn

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.reset_words import name_one_spike, name_resets
from spear_deploy.interchange.nir.dialect_network import find_recurrent_layers, prepare_network
from spear_deploy.interchange.nir.dialect_neurons import WrittenNeuron
from spear_deploy.interchange.nir.dialects import DIALECT_KEY, KIND_KEY, LAYER_KEY, Dialect, ImportAdvice, get_dialect
from spear_deploy.interchange.nir.integers import convert_to_float, describe_integers
from spear_deploy.interchange.nir.layer_facts import describe_layers
from spear_deploy.interchange.nir.metadata import (
    DT_KEY,
    FACTS_KEY,
    NETWORK_DT_KEY,
    V_MIN_KEY,
    make_reset_metadata,
)
from spear_deploy.interchange.nir.reader import read_nir_graph
from spear_deploy.network import (
    CONVS,
    IF,
    LI,
    LIF,
    Array,
    AvgPool,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Reset,
    Scale,
    Shape,
    SumPool,
    write_out,
)
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.quantize.akida import FORMAT as AKIDA
from spear_deploy.util.files import replace_from_memory

OTHER_UNITS = "its membrane is in other units there, which its spikes do not show"
FOLDED = "batch norm is folded into the weights and rounded to float32"


def write_dialect(graph: SNNGraph, path: str | os.PathLike[str], *, framework: str) -> ImportAdvice:
    """Write a network as the NIR file that a framework's own importer reads, whole or not at all.

    Args:
        graph: the network.
        path: the file.
        framework: one of `dialects.DIALECTS`.

    Raises:
        UnsupportedError: an unknown framework, or a layer that its importer cannot read, by name.
        FileError: the folder is not writable.
    """
    import nir

    built, advice = make_dialect_graph(graph, framework)
    with replace_from_memory(path) as memory:
        nir.write(memory, built)
        if not get_dialect(framework).states_reset:
            _remove_field(memory, "v_reset")
    return advice


def make_dialect_graph(graph: SNNGraph, framework: str) -> tuple[Any, ImportAdvice]:
    """Return the `nir.NIRGraph` for a framework's importer, and what to know of the import; raises as `write_dialect`."""
    dialect = get_dialect(framework)
    draft = _DialectDraft(graph=prepare_network(convert_to_float(graph), dialect), dialect=dialect)
    draft.differences[FOLDED] += [layer.name for layer in graph.layers if layer.norm is not None]
    draft.add_all()
    built = draft.build(framework)
    if graph.is_integer:
        _state_integers(graph, built, draft)
    else:
        built.metadata |= _make_quantization_facts(graph, draft)
    return built, draft.advise()


def _state_integers(graph: SNNGraph, built: Any, draft: _DialectDraft) -> None:
    """Add the metadata from which integers are made again, or where that fails the difference that they are lost."""
    facts = describe_integers(graph)
    if quantization := graph.metadata.get("quantization"):
        facts[FACTS_KEY] = json.dumps({"quantization": quantization})
    built.metadata |= facts
    if find_chip_format(read_nir_graph(built)) is None:
        for name in facts:
            del built.metadata[name]
        draft.differences[f"its numbers are not those of {find_chip_format(graph)}, for which the network is quantised"] += [
            layer.name for layer in graph.layers if layer.neuron is not None
        ]


def _make_quantization_facts(graph: SNNGraph, draft: _DialectDraft) -> dict[str, str]:
    """Return the metadata that name the chip whose numbers a network holds, where real numbers do not show it.

    Without them it would be read as a network that is not quantised, and be rounded again. That is right, and one of the
    differences, where the file has other weights than the network, or other units, and the chip (Akida) whole ones.
    """
    if (held := find_chip_format(graph)) is None:
        return {}
    changed = [layer.name for layer in graph.layers if draft.graph[layer.name].synapse is not layer.synapse]
    if held == AKIDA:
        changed += [name for name in draft.differences.get(OTHER_UNITS, ()) if name not in changed]
    if changed:
        draft.differences[f"its numbers are no longer those of {held}, for which the network is quantised"] += changed
        return {}
    return {FACTS_KEY: json.dumps({"quantization": graph.metadata["quantization"]})}


def _remove_field(file_in_memory: BytesIO, name: str) -> None:
    """Remove a field of all nodes from a file: versions of nir that do not know it refuse the file."""
    import h5py

    with h5py.File(file_in_memory, "r+") as file:
        places: list[str] = []
        file.visit(lambda place: places.append(place) if place.rpartition("/")[2] == name else None)
        for place in places:
            del file[place]


# ------------------------------------------------------------------------------------------------------------ nodes


@dataclass
class _DialectDraft:
    """The nodes and edges of a file under construction."""

    graph: SNNGraph
    dialect: Dialect
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    settings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add_all(self) -> None:
        """Add all layers and edges."""
        import nir

        graph, loops = self.graph, find_recurrent_layers(self.graph)
        self._check_edges(loops)
        self.nodes[INPUT] = nir.Input(input_type={"input": np.array(graph.input_shape)})
        first: dict[str, str] = {}
        last: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
        recurrent = set(loops.values())
        for layer in graph.layers:
            if layer.name in recurrent:
                continue
            parts = [*self._make_synapse(layer), *self._make_neuron(layer, loops.get(layer.name))]
            sources = tuple(
                name for edge in graph.edges_into(layer.name) if edge.source not in recurrent for name in last[edge.source]
            )
            if len(set(sources)) < len(sources):
                self._refuse(layer.name, "gets the same spikes twice, edges in a file count once; double its weights")
            if not parts:
                last[layer.name] = sources
                continue
            names = [f"{layer.name}.{label}" if n < len(parts) - 1 else layer.name for n, (label, _) in enumerate(parts)]
            self.nodes |= {self._check_name(name): node for name, (_, node) in zip(names, parts, strict=True)}
            self.edges += [(source, names[0]) for source in sources] + list(itertools.pairwise(names))
            first[layer.name], last[layer.name] = names[0], (names[-1],)
            self._close_loop(layer, loops.get(layer.name))
        if len(last[graph.output]) > 1 or last[graph.output] == (INPUT,):
            self._refuse(graph.output, "adds outputs up behind the last node; end the network in neurons")
        self.nodes["output"] = nir.Output(output_type={"output": np.array(graph.shape_of(graph.output))})
        self.edges.append((last[graph.output][0], "output"))
        if self.dialect.ordered:
            self._order_edges()

    def build(self, framework: str) -> Any:
        """Return the graph."""
        import nir

        dt_s = float(self.graph.dt_s)
        metadata: dict[str, Any] = {
            DIALECT_KEY: framework,
            DT_KEY: self.dialect.dt_s or dt_s,
            **describe_layers(self.graph),
        }
        if metadata[DT_KEY] != dt_s:
            metadata[NETWORK_DT_KEY] = dt_s
        return nir.NIRGraph(self.nodes, self.edges, metadata=metadata, type_check=False)

    def advise(self) -> ImportAdvice:
        """Return what differs and what is to be set."""
        differences = [
            f"layer{'s' * (len(names) > 1)} {', '.join(map(repr, names))}: {text}"
            for text, names in self.differences.items()
            if names
        ]
        lines = []
        for statement, names in self.settings.items():
            places = [f"{name.replace('.', '_')}{self.dialect.module}" for name in names]
            lines.append(f"for m in map(net.get_submodule, {places!r}): {statement}")
        needed = [self.dialect.imports] if any(name in " ".join(lines) for name in _list_names(self.dialect.imports)) else []
        return ImportAdvice(differences=tuple(differences), statements=(*needed, *lines))

    def _check_edges(self, loops: Mapping[str, str]) -> None:
        graph, title = self.graph, self.dialect.title
        for neuron, recurrent in loops.items():
            if self.dialect.recurrence is None:
                self._refuse(neuron, "has recurrent weights, which the importer cannot run; use weights_into")
            if self.dialect.recurrence == "nested" and not isinstance(graph[recurrent].synapse, (Dense, Scale)):
                self._refuse(neuron, "has recurrent weights that are not dense; train with a dense matrix")
        closing = {Edge(source=neuron, target=recurrent, delay=1) for neuron, recurrent in loops.items()}
        for edge in graph.edges:
            if edge.delay and edge not in closing:
                raise UnsupportedError(
                    f"edge '{edge.source}' -> '{edge.target}': {edge.delay} steps of delay have no place in {title}'s NIR, which "
                    "feeds back only the spikes of a layer through weights to itself; train without it"
                )
        for layer in graph.layers:
            if not graph.edges_from(layer.name) and layer.name != graph.output:
                self._refuse(layer.name, "feeds nothing and is not the output; remove it")

    def _refuse(self, name: str, why: str, resets: Sequence[Reset] = (), *, one_spike: bool = False) -> NoReturn:
        setting = name_one_spike(self.graph) if one_spike else name_resets(self.graph, resets)
        remedy = f"; train with {setting}" if setting else ""
        raise UnsupportedError(f"layer '{name}', for {self.dialect.title}: {why}{remedy}")

    def _check_name(self, name: str) -> str:
        clean = name.replace(".", "_")
        if clean in {other.replace(".", "_") for other in (*self.nodes, "output")}:
            self._refuse(name, f"its name is '{clean}' there, as that of another node; rename the layer")
        return name

    # -------------------------------------------------------------------------------------------------- parts of a layer

    def _make_synapse(self, layer: Layer) -> list[tuple[str, Any]]:
        import nir

        synapse, shape = layer.synapse, self.graph.input_shape_of(layer.name)
        if isinstance(synapse, Scale) and len(shape) == 1:
            synapse = Dense(weight=np.diag(np.broadcast_to(synapse.weight, shape)), bias=_spread(synapse.bias, shape))
        if synapse is None or (isinstance(synapse, Flatten) and len(shape) == 1):
            return []
        kind = type(synapse).__name__
        if kind not in self.dialect.synapses:
            self._refuse(
                layer.name, f"{kind} has no place in its importer, which reads {', '.join(sorted(self.dialect.synapses))}"
            )
        if isinstance(synapse, Dense):
            return [*self._make_flatten(layer, shape), ("synapse", self._make_dense(synapse))]
        if isinstance(synapse, CONVS):
            return [("synapse", self._make_conv(layer, synapse, shape))]
        if isinstance(synapse, Flatten):
            return self._make_flatten(layer, shape)
        assert isinstance(synapse, (SumPool, AvgPool))
        if len(synapse.kernel_size) == 1:
            self._refuse(layer.name, "pools over one axis, NIR over two; train with two axes")
        if isinstance(synapse, SumPool) and np.any(synapse.padding):
            self._refuse(layer.name, "pads the sums of a pool, which the importer leaves out; pool without padding")
        made = nir.SumPool2d if isinstance(synapse, SumPool) else nir.AvgPool2d
        sizes = {name: np.array(getattr(synapse, name)) for name in ("kernel_size", "stride", "padding")}
        return [("synapse", made(**sizes))]

    def _make_flatten(self, layer: Layer, shape: Shape) -> list[tuple[str, Any]]:
        """Return a Flatten by axes from the end, which importers with and without an axis for the batch take alike."""
        import nir

        if len(shape) == 1:
            return []
        if "Flatten" not in self.dialect.synapses:
            self._refuse(layer.name, "Flatten has no place in its importer; give the network inputs of one axis")
        return [("flatten", nir.Flatten(input_type={"input": np.array(shape)}, start_dim=-len(shape), end_dim=-1))]

    def _make_dense(self, synapse: Dense) -> Any:
        import nir

        weight = write_out(synapse.weight.astype(np.float32))
        if synapse.bias is None and self.dialect.title != "sinabs":  # which has no Linear
            return nir.Linear(weight=weight)
        return nir.Affine(weight=weight, bias=_spread(synapse.bias, weight.shape[:1], default=0.0))

    def _make_conv(self, layer: Layer, conv: Conv1d | Conv2d, shape: Shape) -> Any:
        import nir

        if conv.groups != 1:
            self._refuse(
                layer.name, f"is a convolution in {conv.groups} groups, its importer reads one group; train with groups=1"
            )
        sizes = {name: getattr(conv, name) for name in ("stride", "padding", "dilation")}
        where: Any = tuple(shape[1:])
        if isinstance(conv, Conv1d):
            sizes, where = {name: int(value[0]) for name, value in sizes.items()}, int(shape[1])
        kind = nir.Conv1d if isinstance(conv, Conv1d) else nir.Conv2d
        bias = _spread(conv.bias, conv.weight.shape[:1], default=0.0)
        return kind(input_shape=where, weight=conv.weight.astype(np.float32), groups=1, bias=bias, **sizes)

    def _make_neuron(self, layer: Layer, recurrent: str | None) -> list[tuple[str, Any]]:
        import nir

        if layer.neuron is None:
            return []
        if not isinstance(layer.neuron, (IF, LIF, CubaLIF, LI, CubaLI)):
            self._refuse(layer.name, f"{type(layer.neuron).__name__} has no counterpart in NIR; export another neuron")
        dt_s, shape = float(self.graph.dt_s), self.graph.shape_of(layer.name)
        written = self.dialect.write_neuron(layer.neuron, dt_s, partial(self._refuse, layer.name))
        for statement in written.settings:
            self.settings[statement].append(layer.name)
        for text in written.differences:
            self.differences[text].append(layer.name)
        if np.ptp(written.gain) or np.ravel(written.gain)[0] != 1:
            self.differences[OTHER_UNITS].append(layer.name)
        metadata: dict[str, Any] = {}
        if isinstance(layer.neuron, (IF, LIF, CubaLIF)):
            metadata = make_reset_metadata(layer.neuron)
        if written.v_min is not None:
            metadata[V_MIN_KEY] = _spread(written.v_min, shape, exact=True)
        if written.kind != type(layer.neuron).__name__:
            metadata[KIND_KEY] = type(layer.neuron).__name__
        fields = self._spread_fields(layer, written, shape)
        node = getattr(nir, written.kind)(**fields, metadata=metadata)
        if recurrent and self.dialect.recurrence == "nested":
            node = self._nest(layer, node, recurrent)
        return [("neuron", node)]

    def _spread_fields(self, layer: Layer, written: WrittenNeuron, shape: Shape) -> dict[str, Array]:
        """Return the fields of a neuron in full shape; of an image as one number where the importer takes one axis alone."""
        if written.kind not in self.dialect.on_one_axis or len(shape) == 1:
            return {name: _spread(value, shape, exact=True) for name, value in written.fields.items()}
        for name, value in written.fields.items():
            if np.ptp(value):
                self._refuse(layer.name, f"{name} differs between neurons of an image, the importer takes one a layer; share it")
        return {name: _spread(np.ravel(value)[0], (1,), exact=True) for name, value in written.fields.items()}

    # ------------------------------------------------------------------------------------------------------- recurrence

    def _nest(self, layer: Layer, node: Any, recurrent: str) -> Any:
        """Return a graph of a neuron and its recurrent weights."""
        import nir

        shape = np.array(self.graph.shape_of(layer.name))
        node.metadata[LAYER_KEY] = layer.name
        ((_, weights),) = self._make_synapse(self.graph[recurrent])
        nodes = {
            "input": nir.Input(input_type={"input": shape}),
            "lif": node,
            "w_rec": weights,
            "output": nir.Output(output_type={"output": shape}),
        }
        edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        return nir.NIRGraph(nodes, edges, type_check=False)

    def _close_loop(self, layer: Layer, recurrent: str | None) -> None:
        """Add recurrent weights as nodes of their own."""
        import nir

        if recurrent is None or self.dialect.recurrence == "nested":
            return
        parts = self._make_synapse(self.graph[recurrent])
        if len(parts) > 1:
            self._refuse(recurrent, "flattens what it feeds back; train with recurrent weights on one axis")
        shape = self.graph.shape_of(layer.name)
        names = [self._check_name(recurrent)]
        self.nodes[recurrent] = parts[0][1]
        if self.dialect.recurrence == "flatten":
            names.append(self._check_name(f"{recurrent}.same"))
            self.nodes[names[1]] = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=-1, end_dim=-1)
        chain = [layer.name, *names, layer.name]
        self.edges += list(itertools.pairwise(chain))

    # ------------------------------------------------------------------------------------------------------------ order

    def _order_edges(self) -> None:
        """Order the edges so that a depth-first walk from the input runs every node behind those that feed it.

        Raises:
            UnsupportedError: no order does that.
        """
        after: dict[str, list[str]] = defaultdict(list)
        for source, target in self.edges:
            after[source].append(target)
        depth: dict[str, int] = {}
        for name in reversed(list(self.nodes)):  # layers are sorted by their edges
            depth[name] = 1 + max((depth.get(target, 0) for target in after[name]), default=0)
        loops = find_recurrent_layers(self.graph)
        inner = set(loops.values())
        self.edges.sort(key=lambda edge: (edge[1] not in inner, -depth[edge[1]]))
        after.clear()
        for source, target in self.edges:
            after[source].append(target)
        place = {name: n for n, name in enumerate(_walk_depth_first(INPUT, after))}
        for source, target in self.edges:
            if place[source] > place[target] and source not in inner:
                self._refuse(target, f"adds up ways of which its importer runs '{source}' after it; train without that branch")


def _walk_depth_first(start: str, after: Mapping[str, list[str]]) -> list[str]:
    order, seen = [], set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            order.append(name)
            waiting += reversed(after.get(name, []))
    return order


def _spread(value: Any, shape: Shape, *, default: float | None = None, exact: bool = False) -> Any:
    """Return a parameter in full shape: float32, or with `exact` float64 where float32 would change it."""
    if value is None:
        return None if default is None else np.full(shape, default, np.float32)
    array: Array = np.asarray(value)
    short = array.astype(np.float32)
    is_same = not exact or bool((short == array).all())
    return np.broadcast_to(short if is_same else array.astype(np.float64), shape).copy()


def _list_names(line: str) -> list[str]:
    """Return the names that a line of Python imports."""
    return [name.strip() for name in line.partition(" import ")[2].split(",") if name.strip()]
