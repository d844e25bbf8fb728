"""ONNX nodes of one step of a network.

Layer by layer, in the simulator's order of operations. Integers are int64; their products add up in floating point where
no sum can round, for onnxruntime's convolution has no integers. The bounds of those sums are followed through the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.onnx import neurons as onnx_neurons
from spear_deploy.network import POOLS, Array, AvgPool, Dense, Flatten, Layer, Scale, Shape, Synapse, sends_several, write_out
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator.neurons import STATE_LIMIT
from spear_deploy.simulator.stepper import Stepper, prepare

FLOAT, DOUBLE, INT64, BOOL = 1, 11, 7, 9
"""ONNX's numbers for element types."""
EXACT_FLOAT = 2.0**24
EXACT_DOUBLE = 2.0**53


@dataclass(frozen=True)
class BoundedTensor:
    """A tensor in the graph.

    Attributes:
        name: in the graph.
        type: ONNX's number of the element type.
        shape: without batch.
        bound: its largest magnitude where the network's input is at most 1.
        per_input: the part of the bound that grows in proportion to the network's input.
    """

    name: str
    type: int
    shape: Shape
    bound: float
    per_input: float = 0.0


@dataclass
class StepGraph:
    """The nodes, states and outputs of one step, added layer by layer."""

    graph: SNNGraph
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    functions: dict[str, Any] = field(default_factory=dict)
    states: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[BoundedTensor] = field(default_factory=list)
    emitted: dict[str, BoundedTensor] = field(default_factory=dict)
    input_limit: float = EXACT_FLOAT - 1
    starts: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = INT64 if self.graph.is_integer else FLOAT
        self.input_type = DOUBLE if self.graph.is_integer else FLOAT
        self.starts = _find_early_starts(self.graph)
        self.emitted[INPUT] = BoundedTensor("x", self.input_type, self.graph.input_shape, 1.0, 1.0)
        self.depths = {
            name: max((e.delay for e in self.graph.edges_from(name)), default=0)
            for name in (INPUT, *(layer.name for layer in self.graph.layers))
        }
        for name, depth in self.depths.items():
            if depth:
                kind = self.input_type if name == INPUT else self.number
                zero = np.zeros((), np.int64 if kind == INT64 else np.float32)
                self.add_state(f"{name}.past", kind, (depth, *self.graph.shape_of(name)), zero)

    def put(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def const(self, name: str, value: Array) -> str:
        """Add an initializer and return its name."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def cast(self, value: BoundedTensor, kind: int) -> str:
        """Return the name of a tensor in another type."""
        return value.name if value.type == kind else self.put("Cast", value.name, to=kind)

    def add_state(self, name: str, kind: int, shape: Shape, start: Array) -> None:
        """Declare a state, its new value being `<name>_next`."""
        start = self.starts.get(name, start)
        self.states.append(
            {"name": name, "next": f"{name}_next", "type": kind, "shape": list(shape), "start": np.asarray(start).tolist()}
        )

    # --------------------------------------------------------------------------------------------------------- layers

    def add_layer(self, layer: Layer) -> None:
        """Add the nodes of one layer and its output."""
        name, shape = layer.name, self.graph.shape_of(layer.name)
        value = self._add_synapse(layer, self._add_inputs(layer))
        if layer.neuron is not None:
            value = self._add_neuron(layer, value)
        if name == self.graph.output:
            kind = self._sent_type(layer) if layer.spikes else value.type
            source = f"{name}.spikes" if layer.spikes else value.name
            self.outputs.insert(0, BoundedTensor(self.put("Identity", source, output="output"), kind, shape, value.bound))
        self.emitted[name] = value

    def _add_inputs(self, layer: Layer) -> BoundedTensor:
        """Add the sum of a layer's inputs."""
        kind = DOUBLE if self.graph.is_integer and isinstance(layer.synapse, Scale) else self.number
        values = [self._read_source(edge.source, edge.delay) for edge in self.graph.edges_into(layer.name)]
        total = self.cast(values[0], kind)
        for value in values[1:]:
            total = self.put("Add", total, self.cast(value, kind))
        shape = self.graph.input_shape_of(layer.name)
        return BoundedTensor(total, kind, shape, sum(v.bound for v in values), sum(v.per_input for v in values))

    def _read_source(self, source: str, delay: int) -> BoundedTensor:
        if not delay:
            return self.emitted[source]
        kind = self.input_type if source == INPUT else self.number
        index = self.const(f"delay{len(self.initializers)}", np.array(delay - 1, np.int64))
        name = self.put("Gather", f"{source}.past", index, axis=1)
        return BoundedTensor(name, kind, self.graph.shape_of(source), self._bound_of(source), float(source == INPUT))

    def _bound_of(self, source: str) -> float:
        """Return the largest magnitude that a source sends; infinite for a value that a loop of sums sends back."""
        if source in self.emitted:
            return self.emitted[source].bound
        layer = self.graph[source]
        if layer.spikes:
            return onnx_neurons.max_spikes_per_step(layer.neuron, np.inf)
        return float(STATE_LIMIT) if layer.neuron is not None else np.inf

    def _add_synapse(self, layer: Layer, x: BoundedTensor) -> BoundedTensor:
        """Add synapse and norm of a layer."""
        synapse, shape, name = layer.synapse, self.graph.shape_of(layer.name), layer.name
        if synapse is None:
            y = x
        elif isinstance(synapse, Flatten):
            y = replace(x, name=self.put("Flatten", x.name, axis=1), shape=shape)
        elif self.graph.is_integer:
            y = self._add_integer_synapse(name, synapse, x, shape)
        else:
            y = BoundedTensor(self._add_float_synapse(name, synapse, x, shape), FLOAT, shape, np.inf)
        if layer.norm is None:
            return y
        norm = layer.norm  # in float32, as the simulator computes it
        gain = norm.weight.astype(np.float32) / np.sqrt(norm.var.astype(np.float32) + np.float32(norm.eps))
        shift = norm.bias.astype(np.float32) - norm.mean.astype(np.float32) * gain
        scaled = self.put("Mul", y.name, self.const(f"{name}/gain", _spread_over_channels(gain, shape)))
        moved = self.put("Add", scaled, self.const(f"{name}/shift", _spread_over_channels(shift, shape)))
        return BoundedTensor(moved, FLOAT, shape, np.inf)

    def _add_products(self, name: str, synapse: Any, x: str, dtype: type, shape_before: Shape) -> str:
        """Add the sum of products of a synapse, in a floating-point type."""
        if isinstance(synapse, Dense):
            flat = x if len(shape_before) == 1 else self.put("Flatten", x, axis=1)
            return self.put("MatMul", flat, self.const(f"{name}/weight", write_out(synapse.weight.astype(dtype)).T))
        if isinstance(synapse, POOLS):
            weight: Array = np.ones((shape_before[0], 1, *synapse.kernel_size), dtype)
            geometry: dict[str, Any] = {"group": shape_before[0], "strides": synapse.stride}
        else:
            weight = synapse.weight.astype(dtype)
            geometry = {"group": synapse.groups, "strides": synapse.stride, "dilations": synapse.dilation}
        geometry["pads"] = (*synapse.padding, *synapse.padding)
        return self.put("Conv", x, self.const(f"{name}/weight", weight), kernel_shape=weight.shape[2:], **geometry)

    def _add_float_synapse(self, name: str, synapse: Synapse, x: BoundedTensor, shape: Shape) -> str:
        if isinstance(synapse, Scale):
            y = self.put("Mul", x.name, self.const(f"{name}/weight", synapse.weight.astype(np.float32)))
        else:
            y = self._add_products(name, synapse, x.name, np.float32, x.shape)
        if isinstance(synapse, AvgPool):
            return self.put("Div", y, self.const(f"{name}/count", np.array(np.prod(synapse.kernel_size), np.float32)))
        bias = getattr(synapse, "bias", None)
        if bias is None:
            return y
        spread = bias if isinstance(synapse, Scale) else _spread_over_channels(bias, shape)
        return self.put("Add", y, self.const(f"{name}/bias", spread.astype(np.float32)))

    def _add_integer_synapse(self, name: str, synapse: Synapse, x: BoundedTensor, shape: Shape) -> BoundedTensor:
        if isinstance(synapse, AvgPool):
            raise UnsupportedError(f"layer '{name}': an integer network holds no mean; quantise it again")
        if isinstance(synapse, Scale):
            return self._add_integer_scale(name, synapse, x, shape)
        gain = _largest_sum(synapse)
        dtype = self._choose_exact_type(name, synapse, gain, x)
        kind = FLOAT if dtype is np.float32 else DOUBLE
        y = self.put("Cast", self._add_products(name, synapse, self.cast(x, kind), dtype, x.shape), to=INT64)
        value = BoundedTensor(y, INT64, shape, gain * x.bound, gain * x.per_input)
        return value if isinstance(synapse, POOLS) else self._add_exponent(name, synapse, value)

    def _add_integer_scale(self, name: str, synapse: Scale, x: BoundedTensor, shape: Shape) -> BoundedTensor:
        y = self.put("Mul", x.name, self.const(f"{name}/weight", synapse.weight.astype(np.float64)))
        bound = float(np.abs(synapse.weight).max()) * x.bound + 1
        if synapse.bias is not None:
            y = self.put("Add", y, self.const(f"{name}/bias", synapse.bias.astype(np.float64)))
            bound += float(np.abs(synapse.bias).max())
        per_input = float(np.abs(synapse.weight).max()) * x.per_input
        return BoundedTensor(self.put("Cast", self.put("Round", y), to=INT64), INT64, shape, bound, per_input)

    def _choose_exact_type(self, name: str, synapse: Synapse, gain: float, x: BoundedTensor) -> type:
        """Choose the type in which no sum rounds, for a dense layer float64 too, and note the largest input it takes."""
        for dtype, limit in ((np.float32, EXACT_FLOAT), (np.float64, EXACT_DOUBLE)):
            if gain * x.bound < limit and (dtype is np.float32 or isinstance(synapse, Dense)):
                if gain and x.per_input:
                    rest = x.bound - x.per_input
                    self.input_limit = min(self.input_limit, float(np.floor(((limit - 1) / gain - rest) / x.per_input)))
                return dtype
        size = f"2^{int(np.ceil(np.log2(gain * x.bound)))}" if np.isfinite(gain * x.bound) else "any size"
        what = f"layer '{name}': sums of up to {size}"
        raise UnsupportedError(f"{what}, onnxruntime is exact below 2^24, dense layers below 2^53; use fewer inputs")

    def _add_exponent(self, name: str, synapse: Any, value: BoundedTensor) -> BoundedTensor:
        """Shift the sum by the weights' exponent, towards minus infinity, and add the bias."""
        y, scale = value.name, 2.0**synapse.weight_exponent
        factor = np.array(2 ** abs(synapse.weight_exponent), np.int64)
        if synapse.weight_exponent > 0:
            y = self.put("Mul", y, self.const(f"{name}/exponent", factor))
        elif synapse.weight_exponent < 0:
            divisor = self.const(f"{name}/exponent", factor)
            y = self.put("Div", self.put("Sub", y, self.put("Mod", y, divisor)), divisor)
        bound = value.bound * scale + (synapse.weight_exponent < 0)
        if synapse.bias is not None:
            y = self.put("Add", y, self.const(f"{name}/bias", _spread_over_channels(synapse.bias, value.shape).astype(np.int64)))
            bound += float(np.abs(synapse.bias).max())
        return BoundedTensor(y, INT64, value.shape, bound, value.per_input * scale)

    def _add_neuron(self, layer: Layer, x: BoundedTensor) -> BoundedTensor:
        """Call the neuron's function; declare its states and outputs."""
        from onnx import helper

        neuron, name, shape = layer.neuron, layer.name, self.graph.shape_of(layer.name)
        assert neuron is not None
        if not isinstance(neuron, onnx_neurons.KINDS):
            known = ", ".join(kind.__name__ for kind in onnx_neurons.KINDS)
            raise UnsupportedError(f"layer '{name}': {type(neuron).__name__} has no ONNX function yet, expected {known}")
        function = onnx_neurons.function_name(neuron)
        if function not in self.functions:
            self.functions[function] = onnx_neurons.build_function(neuron, self.graph.dt_s)
        starts = onnx_neurons.start_values(neuron, self.graph.dt_s)
        names = [f"{name}.{state}" for state in starts]
        for state, start in zip(names, starts.values(), strict=True):
            self.add_state(state, self.number, shape, start)
        constants = [
            self.const(f"{name}/neuron/{key}", value)
            for key, value in onnx_neurons.list_arguments(neuron, self.graph.dt_s).items()
        ]
        output = f"{name}.spikes" if layer.spikes else f"{name}.value"
        inputs = [self.cast(x, self.number), *names, *constants]
        outputs = [output, *(f"{state}_next" for state in names)]
        self.nodes.append(helper.make_node(function, inputs, outputs, domain=onnx_neurons.DOMAIN, name=name))
        if not layer.spikes:
            return BoundedTensor(output, self.number, shape, float(STATE_LIMIT) if self.graph.is_integer else np.inf)
        kind, max_spikes = self._sent_type(layer), onnx_neurons.max_spikes_per_step(neuron, x.bound)
        self.outputs.append(BoundedTensor(output, kind, shape, max_spikes))
        per_input = (
            onnx_neurons.max_spikes_per_step(neuron, x.bound + x.per_input) - max_spikes if np.isfinite(max_spikes) else 0.0
        )
        return BoundedTensor(
            output if kind == self.number else self.put("Cast", output, to=self.number), self.number, shape, max_spikes, per_input
        )

    def _sent_type(self, layer: Layer) -> int:
        """Return the type of a layer's spikes: their number where there can be several in a step."""
        return INT64 if sends_several(layer.neuron) else BOOL

    def add_past(self) -> None:
        """Add the shift of past values by one step, for the edges with delay."""
        for source, depth in self.depths.items():
            if not depth:
                continue
            axis = self.const(f"{source}/axis", np.array([1], np.int64))
            latest = self.put("Unsqueeze", self.emitted[source].name, axis)
            if self.emitted[source].type != (self.input_type if source == INPUT else self.number):
                latest = self.put("Cast", latest, to=self.number)
            if depth == 1:
                self.put("Identity", latest, output=f"{source}.past_next")
                continue
            start, end = (self.const(f"{source}/{k}", np.array([v], np.int64)) for k, v in (("first", 0), ("last", depth - 1)))
            older = self.put("Slice", f"{source}.past", start, end, axis)
            self.put("Concat", latest, older, output=f"{source}.past_next", axis=1)


def _find_early_starts(graph: SNNGraph) -> dict[str, Array]:
    """Return the states in which layers that started early (`XyloLIF.early_steps`) meet the network's first step, by state."""
    if not any(getattr(layer.neuron, "early_steps", 0) for layer in graph.layers):
        return {}
    stepper = Stepper(prepare(graph), 1)
    starts = {f"{name}.past": kept[::-1, 0].astype(np.int64) for name, kept in stepper.kept.items()}
    for name, state in stepper.states.items():
        starts |= {f"{name}.{what}": value[0] for what, value in (("v", state.v), ("u", state.u)) if value is not None}
    return starts


def _largest_sum(synapse: Any) -> float:
    if isinstance(synapse, POOLS):
        return float(np.prod(synapse.kernel_size))
    return float(np.abs(synapse.weight.astype(np.float64)).reshape(len(synapse.weight), -1).sum(axis=1).max())


def _spread_over_channels(value: Array, shape: Shape) -> Array:
    return value.reshape(-1, *(1 for _ in shape[1:]))
