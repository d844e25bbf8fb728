"""What happens on the chip? The whole network on a batch, in the graph's own time.

Layers without a cycle run one after the other over all steps at once, which turns a synapse into one matrix product for
all steps and samples; layers in a cycle run step by step together. Both give the same spikes: a layer's step t needs
only what its sources emitted at t or before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy import linear, neurons
from spear_deploy.errors import DataError
from spear_deploy.graph import INPUT, Edge, SNNGraph, delayed_paths
from spear_deploy.layers import Array, AvgPool, BatchNorm, Layer, LoihiLIF, Scale

InputKind: TypeAlias = Literal["spikes", "current"]
Record: TypeAlias = Literal["spikes", "v", "u"]


@dataclass(frozen=True, kw_only=True)
class SpikeCounts:
    """How many spikes each neuron sent, and each edge delivered, summed over steps and samples.

    Attributes:
        sent: by layer (and `INPUT`): (*shape), int64; for an analogue input the number of non-zero values.
        delivered: by edge with delay (see `graph.delayed_paths`): spikes of the last `delay` steps arrive after the end and
            are not in it.
        steps, samples: what was summed over.
        input_kind: "spikes" or "current".
    """

    sent: dict[str, Array]
    delivered: dict[Edge, Array] = field(default_factory=dict)
    steps: int
    samples: int
    input_kind: InputKind = "spikes"

    def arriving(self, edge: Edge) -> Array:
        """Return the spikes that an edge delivered, int64."""
        return self.delivered.get(edge, self.sent[edge.source]) if edge.delay else self.sent[edge.source]

    def rates(self) -> dict[str, float]:
        """Return spikes per neuron and step by layer, a share in 0..1 for neurons that spike once a step."""
        scale = self.steps * self.samples
        return {name: float(count.mean()) / scale if scale else 0.0 for name, count in self.sent.items() if name != INPUT}

    def __add__(self, other: SpikeCounts) -> SpikeCounts:
        if (self.steps, self.input_kind) != (other.steps, other.input_kind):
            raise DataError(f"spike counts over {self.steps} and {other.steps} steps cannot be added; use one number of steps")
        return SpikeCounts(
            sent={name: count + other.sent[name] for name, count in self.sent.items()},
            delivered={edge: count + other.delivered[edge] for edge, count in self.delivered.items()},
            steps=self.steps,
            samples=self.samples + other.samples,
            input_kind=self.input_kind,
        )


@dataclass(frozen=True, kw_only=True)
class ChipRun:
    """What a run gave.

    Attributes:
        output: (T, B, *output shape): spikes as bool, or the value of a layer that does not spike.
        spikes, v, u: recordings by layer, (T, B, *shape), aligned to the graph's own time; v and u after reset and decay.
        counts: spikes of every layer.
        overflows: by layer, how often a 24-bit u wrapped or v saturated; only layers where it happened.
    """

    output: Array
    spikes: dict[str, Array]
    v: dict[str, Array]
    u: dict[str, Array]
    counts: SpikeCounts
    overflows: dict[str, dict[str, int]]


def simulate(
    graph: SNNGraph,
    x: Array,
    *,
    kind: InputKind = "spikes",
    record: Iterable[Record] = (),
    dtype: type = np.float32,
) -> ChipRun:
    """Run a network.

    Args:
        graph: a floating-point network runs in `dtype`, an integer network in integers.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: which of "spikes", "v", "u" to keep for every layer that has them; a layer without a neuron keeps its
            value as "v".
        dtype: type of a floating-point run.

    Raises:
        DataError: shape, NaN, or spikes that are not whole numbers from 0.
    """
    x = check_input(graph, x, kind)
    check_record(record := tuple(record))
    run = _Simulation(graph, x, kind, set(record), dtype)
    for group in evaluation_groups(graph):
        run.advance(group)
    return run.result()


def check_input(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return the input as an array, or say what is wrong with it."""
    x = np.asarray(x)
    if kind not in ("spikes", "current"):
        raise DataError(f"kind '{kind}': an input is 'spikes' or 'current'; give one of them")
    if x.ndim != len(graph.input_shape) + 2 or x.shape[2:] != graph.input_shape or 0 in x.shape:
        expected = ", ".join(map(str, ("T", "B", *graph.input_shape)))
        raise DataError(f"input has shape {x.shape}, the network takes ({expected}); check the axes")
    if x.dtype.kind not in "biuf":
        raise DataError(f"input holds {x.dtype} values, expected numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("input holds NaN or infinite values; remove them")
    if kind == "spikes" and x.dtype.kind != "b" and ((x < 0).any() or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise DataError("spikes are whole numbers from 0; give analogue values as 'current'")
    return x


def check_record(record: Iterable[str]) -> None:
    """Refuse to record what there is not."""
    for what in record:
        if what not in ("spikes", "v", "u"):
            raise DataError(f"record '{what}': what can be recorded is 'spikes', 'v' and 'u'; give some of them")


class _Simulation:
    """State of one run: what each layer emitted so far, over all steps."""

    def __init__(self, graph: SNNGraph, x: Array, kind: InputKind, record: set[Record], dtype: type) -> None:
        self.graph, self.kind, self.record = graph, kind, record
        self.dtype = np.int64 if graph.is_integer else dtype
        self.steps, self.batch = x.shape[:2]
        self.emitted: dict[str, Array] = {INPUT: x}
        self.spikes: dict[str, Array] = {}
        self.v: dict[str, Array] = {}
        self.u: dict[str, Array] = {}
        self.overflows: dict[str, dict[str, int]] = {}

    def advance(self, group: Sequence[Layer]) -> None:
        """Run layers that depend on each other through all steps."""
        if len(group) == 1 and all(edge.source != group[0].name for edge in self.graph.incoming(group[0].name)):
            layer = group[0]
            drive = self._drive(layer, self._arriving(layer))
            self._emit(layer, drive)
        else:
            self._advance_cycle(group)

    def _arriving(self, layer: Layer) -> Array:
        """Sum what the edges of a layer bring, over all steps: (T, B, *shape)."""
        total: Array | None = None
        for edge in self.graph.incoming(layer.name):
            value = self.emitted[edge.source]
            if edge.delay:
                value = np.concatenate([np.zeros_like(value[: edge.delay]), value[: -edge.delay]])[: self.steps]
            total = value if total is None else added(total, value, self.dtype)
        assert total is not None
        return total

    def _drive(self, layer: Layer, x: Array) -> Array:
        """Return the input of the neuron: (T, B, *output shape)."""
        flat = self._weighted(layer, x.reshape(self.steps * self.batch, *x.shape[2:]))
        return flat.reshape(self.steps, self.batch, *flat.shape[1:])

    def _weighted(self, layer: Layer, x: Array) -> Array:
        """Pass a batch (N, *shape) through synapse and norm."""
        if not self.graph.is_integer:
            y = linear.apply(layer.synapse, x.astype(self.dtype, copy=False))
            return y if layer.norm is None else normalised(layer.norm, y)
        if isinstance(layer.synapse, AvgPool) or layer.norm is not None:
            raise DataError(f"layer '{layer.name}': an integer network holds no mean and no batch norm; quantise it again")
        if x.dtype.kind == "f" and not isinstance(layer.synapse, Scale) and (x != np.rint(x)).any():
            raise DataError(f"layer '{layer.name}': takes whole numbers, the given current is not; scale and round it")
        bound = 1.0 if x.dtype.kind == "b" else float(np.abs(x).max(initial=1))
        return linear.apply(layer.synapse, x if x.dtype.kind in "bf" else x.astype(np.int64), integer=True, input_bound=bound)

    def _emit(self, layer: Layer, drive: Array) -> None:
        """Run the neuron of a layer over all steps and keep what it emits."""
        shape = self.graph.shape_of(layer.name)
        if layer.neuron is None:
            self.emitted[layer.name] = drive
            if "v" in self.record:
                self.v[layer.name] = drive
            return
        state = neurons.start(layer.neuron, self.batch, shape, self.graph.dt_s, self.dtype)
        emitted = self._allocate(layer)
        for t in range(self.steps):
            emitted[t] = neurons.step(layer.neuron, state, drive[t])
            self._keep_state(layer, state, t)
        self._note_overflows(layer, state)

    def _allocate(self, layer: Layer) -> Array:
        full = (self.steps, self.batch, *self.graph.shape_of(layer.name))
        emitted: Array = np.empty(full, bool if layer.spikes else self.dtype)
        self.emitted[layer.name] = emitted
        if layer.neuron is not None:
            if layer.spikes and "spikes" in self.record:
                self.spikes[layer.name] = emitted
            if "v" in self.record:
                self.v[layer.name] = np.empty(full, self.dtype)
            if "u" in self.record and (isinstance(layer.neuron, LoihiLIF) or hasattr(layer.neuron, "tau_syn_s")):
                self.u[layer.name] = np.empty(full, self.dtype)
        elif "v" in self.record:
            self.v[layer.name] = emitted
        return emitted

    def _keep_state(self, layer: Layer, state: neurons.NeuronState, t: int) -> None:
        if layer.name in self.v:
            self.v[layer.name][t] = state.v
        if layer.name in self.u:
            self.u[layer.name][t] = state.u

    def _note_overflows(self, layer: Layer, state: neurons.NeuronState) -> None:
        if state.wraps or state.saturations:
            self.overflows[layer.name] = {"u_wrapped": state.wraps, "v_saturated": state.saturations}

    def _advance_cycle(self, group: Sequence[Layer]) -> None:
        """Run the layers of a cycle together, step by step; what comes from outside is already there for all steps."""
        states: dict[str, neurons.NeuronState] = {}
        for layer in group:
            self._allocate(layer)
            if layer.neuron is not None:
                shape = self.graph.shape_of(layer.name)
                states[layer.name] = neurons.start(layer.neuron, self.batch, shape, self.graph.dt_s, self.dtype)
        for t in range(self.steps):
            for layer in group:
                total: Array | None = None
                for edge in self.graph.incoming(layer.name):
                    value = self.emitted[edge.source]
                    value = value[t - edge.delay] if t >= edge.delay else np.zeros_like(value[0])
                    total = value if total is None else added(total, value, self.dtype)
                assert total is not None
                drive = self._weighted(layer, total)
                if layer.neuron is None:
                    self.emitted[layer.name][t] = drive
                else:
                    self.emitted[layer.name][t] = neurons.step(layer.neuron, states[layer.name], drive)
                    self._keep_state(layer, states[layer.name], t)
        for layer in group:
            if layer.name in states:
                self._note_overflows(layer, states[layer.name])

    def result(self) -> ChipRun:
        counts = counted(self.graph, self.emitted, self.kind)
        output = self.emitted[self.graph.output]
        return ChipRun(output=output, spikes=self.spikes, v=self.v, u=self.u, counts=counts, overflows=self.overflows)


def counted(graph: SNNGraph, emitted: Mapping[str, Array], kind: InputKind = "spikes") -> SpikeCounts:
    """Count the spikes of a run from what its input and its spiking layers emitted, (T, B, *shape) each."""
    steps, samples = emitted[INPUT].shape[:2]

    def total(name: str, until: int = steps) -> Array:
        value = emitted[name][: max(until, 0)]
        value = value != 0 if name == INPUT and kind == "current" else value
        return value.sum(axis=(0, 1), dtype=np.int64)

    sent = {name: total(name) for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes))}
    delivered = {edge: total(edge.source, steps - edge.delay) for edge in delayed_paths(graph)}
    return SpikeCounts(sent=sent, delivered=delivered, steps=steps, samples=samples, input_kind=kind)


def normalised(norm: BatchNorm, y: Array) -> Array:
    """Apply batch normalisation with fixed statistics over axis 1, in the type of `y` and in torch's order."""
    spread = (-1, *(1 for _ in y.shape[2:]))
    scale = norm.weight.astype(y.dtype) / np.sqrt(norm.var.astype(y.dtype) + y.dtype.type(norm.eps))
    shift = norm.bias.astype(y.dtype) - norm.mean.astype(y.dtype) * scale
    return y * scale.reshape(spread) + shift.reshape(spread)


def added(a: Array, b: Array, dtype: type) -> Array:
    """Add what two edges bring in `dtype`; an analogue current among integers keeps its fractions until its `Scale` rounds."""
    if np.issubdtype(dtype, np.integer) and "f" in (a.dtype.kind, b.dtype.kind):
        dtype = np.float64
    return a.astype(dtype) + b.astype(dtype)


def evaluation_groups(graph: SNNGraph) -> list[list[Layer]]:
    """Split the layers into cycles and single layers, sources first."""
    if not any(edge.delay for edge in graph.edges):
        return [[layer] for layer in graph.layers]
    import networkx

    order = {layer.name: i for i, layer in enumerate(graph.layers)}
    view = networkx.DiGraph([(edge.source, edge.target) for edge in graph.edges if edge.source != INPUT])
    view.add_nodes_from(order)
    condensed = networkx.condensation(view)
    groups = [sorted(condensed.nodes[n]["members"], key=order.__getitem__) for n in networkx.topological_sort(condensed)]
    return [[graph[name] for name in group] for group in groups]
