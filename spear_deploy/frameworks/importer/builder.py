"""Layers and edges of a traced network, as they are added."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.left_out_axis import add_axis, find_left_out_axis
from spear_deploy.frameworks.importer.symbols import ZEROS, Signal, name_module
from spear_deploy.network import LI, LIF, Array, CubaLI, CubaLIF, Dense, Layer, Shape, sends_several
from spear_deploy.network.classes import Decision
from spear_deploy.network.graph import INPUT, Edge
from spear_deploy.network.neurons import find_start
from spear_deploy.util.number_format import format_shape

DEFAULT_DT_S = 1e-3
LI_FIELDS = tuple(field.name for field in fields(LI))
CUBA_LI_FIELDS = tuple(field.name for field in fields(CubaLI))


class OnlyZerosError(UnsupportedError):
    """A layer that gets zeros in every step of a trace."""


@dataclass
class GraphBuilder:
    """The layers and edges added so far.

    Attributes:
        form: how the forward of the model deals with time.
        default_dt_s: time step in s of neurons that state none.
        steps_s: time step in s of each layer whose neuron depends on one.
        gates: layers of neurons that keep nothing: their time constant is the time step.
        late_resets: layers that subtract their threshold one step after the spike.
        notes: what was assumed of the forward, for the user.
        module_notes: what was assumed of modules, with their paths.
        origins: path of the module that each layer was added for, with ".recurrent" and the like for parts of one.
        called: path of each stateful module by its id.
        outputs: output of each layer.
        shapes: shape of each layer in the network; a signal has the shape that the forward sees, which may lack an axis.
        zeros: number of signals of zeros made so far.
        input_view: the shape that the forward gives its input, None where it takes it as it is.
        column_orders: by the name of a layer whose inputs are in another order than its module's, the sizes and the order of
            the axes of its source, as `axis_order.list_columns` takes them.
        parted: constant sizes into which the forward parts time and batch, 0 for one that is not constant, and where it does.
        missed: the source of weights that take another number of values than it gives, and that number.
        reads_sizes: whether a forward reads a size of its input.
        repeats_input: whether a forward over time repeats its input, which has no axis of time.
        fixed: layers whose weights the model fixes.
        decision: what decides of the outputs of all steps.
        potentials: layers of neurons whose potential the forward returns in place of spikes.
        sends_potential_as_spikes: whether the forward returns a potential for which the spikes of its neurons stand.
    """

    form: str = "layers"
    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    default_dt_s: float = DEFAULT_DT_S
    steps_s: dict[str, float] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)
    late_resets: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    module_notes: dict[str, list[str]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    called: dict[int, str] = field(default_factory=dict)
    outputs: dict[str, Signal] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    zeros: int = 0
    input_view: Shape | None = None
    column_orders: dict[str, tuple[Shape, tuple[int, ...]]] = field(default_factory=dict)
    parted: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    missed: tuple[str, int] | None = None
    reads_sizes: bool = False
    repeats_input: bool = False
    fixed: list[str] = field(default_factory=list)
    decision: Decision = "mean"
    sends_potential_as_spikes: bool = False
    potentials: set[str] = field(default_factory=set)

    def add_fixed(self, path: str, source: Signal, weight: Array) -> Signal:
        """Add a layer of dense weights that the model fixes."""
        output = self.add_layer(path, source, synapse=Dense(weight=weight))
        self.fixed.append(output.name)
        return output

    def add_layer(self, path: str, *sources: Signal, shape: Shape | None = None, **parts: Any) -> Signal:
        """Add a layer with edges from its sources; `shape` is that of its input where it has no source yet."""
        layer = Layer(name=self._find_free_name(path), **parts)
        if isinstance(layer.synapse, Dense) and len(sources) == 1 and len(sources[0].shape) == 1:
            self.expect(sources[0], layer.synapse.weight.shape[1])
        seen = sources[0].shape if shape is None else shape
        output, own = Signal(layer.name, layer.output_shape(seen)), self.shapes.get(sources[0].name, seen) if sources else seen
        axis = find_left_out_axis(seen, own)
        layer = layer if axis is None else add_axis(layer, axis)
        self.shapes[layer.name] = layer.output_shape(own)
        self.layers.append(layer)
        self.outputs[layer.name] = output
        self.origins[layer.name] = path
        self.edges += [Edge(source=source.name, target=layer.name, delay=source.age) for source in sources]
        return output

    def expect(self, source: Signal, count: int) -> None:
        """Remember that a signal is to have another number of values than it has, which is an error."""
        if math.prod(source.shape) != count:
            self.missed = self.missed or (source.name, count)

    def view_input(self, value: Signal, shape: Shape, place: str) -> Signal:
        """Return the input in the shape that the forward gives it, which is that of the network's input.

        Raises:
            UnsupportedError: the forward gives it another shape elsewhere.
        """
        if self.input_view not in (None, shape):
            raise UnsupportedError(
                f"{place} takes its input as {format_shape(shape)} and as {format_shape(self.input_view or ())} values; give it "
                "one shape"
            )
        self.input_view = shape
        note = (
            f"the forward gives its input of {format_shape(value.shape)} another shape: the network takes {format_shape(shape)}"
        )
        if note not in self.notes:
            self.notes.append(note)
        return replace(value, shape=shape)

    def note_parting(self, sizes: tuple[Any, ...], place: str) -> None:
        """Remember the sizes into which a forward parts time and batch.

        Raises:
            UnsupportedError: it parts them into others elsewhere.
        """
        first, second = (size if type(size) is int and size > 0 else 0 for size in sizes[:2])
        for earlier, where in self.parted:
            orders = (earlier, earlier[::-1]) if all(earlier) else (earlier,)  # the other one behind a transpose
            if all((first and a and first != a) or (second and b and second != b) for a, b in orders):
                raise UnsupportedError(
                    f"{place} parts time and batch into {_format_sizes(first, second)}, {where} into {_format_sizes(*earlier)}, "
                    "so that one of them takes the steps of a sample for several samples; part them into the same"
                )
        self.parted.append(((first, second), place))

    def make_zeros(self, shape: Shape) -> Signal:
        """Return a new signal of zeros."""
        self.zeros += 1
        return Signal(f"{ZEROS}{self.zeros}", shape)

    def note_module(self, path: str, text: str) -> None:
        """Remember an assumption about a module."""
        self.module_notes.setdefault(text, []).append(path)

    def list_notes(self) -> list[str]:
        """Return all assumptions; one about several modules is one sentence."""
        notes = [
            f"module{'s' * (len(paths) > 1)} {', '.join(map(repr, paths))}: {text}" for text, paths in self.module_notes.items()
        ]
        return [*self.notes, *notes]

    def is_spiking(self, signal: Signal) -> bool:
        """Return whether a signal is the output of spiking neurons."""
        return any(layer.name == signal.name and layer.spikes for layer in self.layers)

    def sends_several(self, signal: Signal) -> bool:
        """Return whether a signal is the output of neurons that send several spikes in a step."""
        return any(layer.name == signal.name and sends_several(layer.neuron) for layer in self.layers)

    def read_potential(self, name: str) -> Signal:
        """Return the output of a layer whose membrane potential is the output of the network.

        A leaky neuron that never resets, or never spikes, and whose spikes go nowhere, is a leaky integrator. Of all others the
        spikes are the output, with a note.

        Raises:
            UnsupportedError: neurons that never spike, and have no leak.
        """
        index, layer = next((n, layer) for n, layer in enumerate(self.layers) if layer.name == name)
        neuron: Any = layer.neuron
        is_end = not any(edge.source == name for edge in self.edges)
        never_spikes = layer.spikes and bool((np.asarray(neuron.v_threshold) >= np.finfo(np.float32).max).all())
        if never_spikes and not isinstance(neuron, (LIF, CubaLIF)):
            raise UnsupportedError(
                f"{name_module(self.origins[name])} never spikes and has no leak, and its potential is the output: it adds its "
                "input up; leave it out, and return the sum of the layer in front of it over all steps"
            )
        if isinstance(neuron, (LIF, CubaLIF)) and (never_spikes or neuron.reset == "none") and is_end:
            kind, names = (LI, LI_FIELDS) if isinstance(neuron, LIF) else (CubaLI, CUBA_LI_FIELDS)
            integrator: Any = kind(**{name: getattr(neuron, name) for name in names})
            self.layers[index] = replace(layer, neuron=integrator)
            self.potentials.add(name)
            note = f"never {'spikes' if never_spikes else 'resets'}, and its potential is the output: it is a leaky integrator"
        else:
            self.sends_potential_as_spikes = True
            note = "the forward returns its potential, which a chip does not send: its spikes are the output of the network"
        self.note_module(self.origins[name], note)
        return self.outputs[name]

    def start_at_zero(self, name: str) -> None:
        """Let the neurons of a layer start at v = 0.

        Raises:
            UnsupportedError: a leaky integrator, which starts at its leak.
        """
        index, layer = next((n, layer) for n, layer in enumerate(self.layers) if layer.name == name)
        neuron: Any = layer.neuron
        if not find_start(neuron).any():
            return
        if not layer.spikes:
            raise UnsupportedError(
                f"{name_module(self.origins[name])} starts from zeros, a leaky integrator starts at its leak, here "
                f"{float(neuron.v_leak.reshape(-1)[0]):g}; let it start from None"
            )
        self.layers[index] = replace(layer, neuron=replace(neuron, v_init=np.zeros(())))

    def check_time_step(self, dt_s: float | None) -> float:
        """Return the time step in s that all cells share; `dt_s`, if any, must be the same.

        Raises:
            UnsupportedError: the cells have different steps, or another one than `dt_s`.
        """
        if not self.steps_s:
            return self.default_dt_s if dt_s is None else dt_s
        (first, shared), *rest = self.steps_s.items()
        for name, other in rest:
            if other != shared:
                raise UnsupportedError(
                    f"cells '{first}' and '{name}' have time steps of {shared:g} and {other:g} s; give all one dt"
                )
        if dt_s is not None and dt_s != shared:
            raise UnsupportedError(f"cell '{first}' has a time step of {shared:g} s, dt_s = {dt_s:g} s was given; leave it out")
        return shared

    def list_layers(self, dt_s: float) -> list[Layer]:
        """Return the layers, for a time step in s."""
        made = []
        for layer in self.layers:
            neuron: Any = layer.neuron
            made.append(replace(layer, neuron=replace(neuron, tau_s=np.asarray(dt_s))) if layer.name in self.gates else layer)
        return made

    def list_edges(self) -> list[Edge]:
        """Return the edges without those from zeros.

        Raises:
            OnlyZerosError: a layer that nothing but zeros feeds.
        """
        edges = [edge for edge in self.edges if not edge.source.startswith(ZEROS)]
        targets = {edge.target for edge in edges}
        for edge in self.edges:
            if edge.target not in targets:
                raise OnlyZerosError(f"module '{edge.target}' gets zeros in every step; feed it or take it out")
        return edges

    def _find_free_name(self, path: str) -> str:
        base = path.replace("/", "_") or "model"
        base = f"{base}_" if base == INPUT or base.startswith(ZEROS) else base
        taken = {layer.name for layer in self.layers}
        return next(name for name in (base, *(f"{base}_{n}" for n in range(2, len(taken) + 3))) if name not in taken)


def _format_sizes(*sizes: int) -> str:
    """Return sizes in words; 0 is one that is not constant.

    >>> _format_sizes(0, 8)
    '(-1, 8)'
    """
    return f"({', '.join(str(size or -1) for size in sizes)})"
