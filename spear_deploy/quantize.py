"""Which integers go on the chip? Weights, thresholds, decays and biases in the Loihi family's formats.

Each neuron layer gets one scale s: its integer membrane potential is 64 · s times the floating-point one, measured from
the reset level. With the factors of `neurons.factors` (mem = dt / tau_mem, ...) a layer becomes

    weight       W ← s · g · W       g = r (IF), mem · r (LIF), jump · mem · r (CubaLIF); `weight_bits` and a sign
    v_threshold  ← round(s · (v_threshold − level))
    decay_v      ← round(4096 · mem);  decay_u ← round(4096 · syn), or 4096 where there is no current
    bias         ← 64 · round(s · (mem · (v_leak − level) + g · b));  with a current, g · b goes into u instead
    level        = v_reset, or 0 where reset subtracts the threshold, or v_leak for a readout

A mean over a window becomes a sum, and the weights behind it take the factor. Stored weights are even numbers of −256..254:
Loihi keeps 8 bits and a sign for a list of mixed signs by dropping the lowest. A bias is a multiple of 64, the unit of the
weights, although the chip could hold finer ones: netx files cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy import neurons
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.graph import INPUT, Edge, SNNGraph, merge_parts
from spear_deploy.layers import (
    FLOAT_NEURONS,
    IF,
    LOIHI_UNIT,
    POOLS,
    READOUTS,
    WEIGHTED,
    Array,
    AvgPool,
    BatchNorm,
    CubaLI,
    CubaLIF,
    Layer,
    LoihiLIF,
    Scale,
    SumPool,
    Synapse,
)
from spear_deploy.simulator import InputKind, simulate

MAX_THRESHOLD = 2**17 - 1
MAX_BIAS_MANTISSA = 2**12 - 1
MAX_BIAS_EXPONENT = 7
BIAS_EXPONENT = 6
GRADED_BITS = 8
"""An analogue input is sent as graded spikes of this many bits, and the weights behind it are shifted back by as many."""


def quantize(
    graph: SNNGraph,
    *,
    weight_bits: int = 8,
    calibration: Array | None = None,
    kind: InputKind = "spikes",
    headroom: Mapping[str, float] | None = None,
) -> SNNGraph:
    """Return the integer network for a chip of the Loihi family.

    Args:
        graph: a floating-point network; batch norm is folded.
        weight_bits: bits of a signed weight, 2..8.
        calibration: input (T, B, *input) on which no 24-bit state may overflow: the scale of a layer where one does is
            halved until none does.
        kind: of `calibration` and of the input the network will get; a "current" is sent as graded spikes,
            `round(metadata["input_scale"] · x)`, see `graded`.
        headroom: by layer, a factor in 0..1 on the scale that the format would allow.

    The scales are in `metadata["quantization"]`: a readout's floating-point value is v / (64 · scale) + offset.

    Raises:
        UnsupportedError: what has no integer counterpart, by layer.
        QuantizationError: a value outside its format, by layer.
    """
    if not 2 <= weight_bits <= 8:
        raise QuantizationError(f"weight_bits: {weight_bits} given, the format holds 2..8")
    if graph.is_integer:
        return graph
    room = dict(headroom or {})
    while True:
        integer = _lowered(fold_batchnorm(graph), weight_bits, kind, _input_scale(calibration, kind), room)
        if calibration is None:
            return integer
        overflows = simulate(integer, graded(integer, calibration, kind), kind=kind).overflows
        if not overflows:
            return integer
        for name in overflows:
            room[name] = room.get(name, 1.0) / 2
            if room[name] < 2**-6:
                raise QuantizationError(
                    f"layer '{name}': its 24-bit state overflows at every scale tried; check its weights and bias"
                )


def graded(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return an input in the form that an integer network takes: spikes as they are, a current as graded spikes.

    A network that has an input layer of its own (netx) takes the current itself.
    """
    scale = graph.metadata.get("quantization", {}).get("input_scale")
    return x if kind == "spikes" or scale is None else np.rint(np.asarray(x, np.float64) * scale).astype(np.int64)


def fold_batchnorm(graph: SNNGraph) -> SNNGraph:
    """Return the network without batch norm: its scale and shift are in the weights and biases before it, in float64."""

    def folded(layer: Layer) -> Layer:
        if layer.norm is None:
            return layer
        gain, shift = _norm_gain_shift(layer.norm)
        return replace(layer, synapse=_scaled(_as_weighted(graph, layer), gain, shift), norm=None)

    graph = merge_parts(graph)
    for layer in graph.layers:
        if layer.norm is not None and isinstance(layer.synapse, POOLS):
            raise UnsupportedError(
                f"layer '{layer.name}': batch norm follows a pool; put the norm before the pool, or a weight between"
            )
    return graph.with_layers(folded)


def _norm_gain_shift(norm: BatchNorm) -> tuple[Array, Array]:
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    return gain, norm.bias - norm.mean * gain


def _as_weighted(graph: SNNGraph, layer: Layer) -> Any:
    """Return the weighted synapse of a layer; an identity gets one weight per channel."""
    if isinstance(layer.synapse, WEIGHTED):
        return layer.synapse
    shape = graph.input_shape_of(layer.name)
    return Scale(weight=np.ones((shape[0], *(1 for _ in shape[1:]))))


def _scaled(synapse: Any, gain: Array, shift: Array | None = None) -> Any:
    """Return `gain · (W x + b) + shift`, gain and shift per output channel."""
    axes = (-1, *(1 for _ in synapse.weight.shape[1:])) if gain.ndim else ()
    weight = synapse.weight.astype(np.float64) * gain.reshape(axes)
    bias = (
        None
        if synapse.bias is None
        else np.asarray(synapse.bias, np.float64) * (gain.reshape(axes) if isinstance(synapse, Scale) else gain)
    )
    if shift is not None:
        spread = shift.reshape(axes) if isinstance(synapse, Scale) else shift
        bias = spread if bias is None else bias + spread
        bias = np.broadcast_to(bias, weight.shape if isinstance(synapse, Scale) else weight.shape[:1])
    return replace(synapse, weight=weight, bias=bias)


# ------------------------------------------------------------------------------------------------------- the lowering


def _lowered(graph: SNNGraph, bits: int, kind: InputKind, input_scale: float, room: Mapping[str, float]) -> SNNGraph:
    graph = _with_weights_everywhere(graph)
    layers = {layer.name: layer for layer in graph.layers}
    scales: dict[str, float] = {}
    offsets: dict[str, float] = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, AvgPool):
            pool = layer.synapse
            layers[layer.name] = replace(
                layers[layer.name], synapse=SumPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding)
            )
    for layer in graph.layers:
        if layer.neuron is not None:
            target = _Target(graph, layer, kind, input_scale)
            scale = target.scale(bits) * room.get(layer.name, 1.0)
            layers.update(target.integer_layers(layers, scale, bits))
            scales[layer.name], offsets[layer.name] = scale, float(np.mean(target.offset))
    _check_all_lowered(layers)
    facts: dict[str, Any] = {"weight_bits": bits, "scale": scales, "offset": offsets}
    if kind == "current":
        facts["input_scale"] = input_scale
    return graph.with_layers(layers, metadata={**graph.metadata, "quantization": facts})


def _with_weights_everywhere(graph: SNNGraph) -> SNNGraph:
    """Give every path of spikes into a neuron exactly one weighted layer."""
    layers: list[Layer] = []
    edges = list(graph.edges)
    for layer in graph.layers:
        if layer.neuron is None or isinstance(layer.synapse, WEIGHTED):
            layers.append(layer)
            continue
        if isinstance(layer.synapse, POOLS) or len(graph.incoming(layer.name)) == 1:
            layer, extra = _split_identity(graph, layer)
            if extra is not None:
                layers.append(extra)
                edges = [replace(e, target=extra.name) if e.target == layer.name else e for e in edges]
                edges.append(Edge(source=extra.name, target=layer.name))
            layers.append(layer)
            continue
        for edge in graph.incoming(layer.name):
            if _weights_behind(graph, edge.source):
                continue
            identity = Layer(name=f"{edge.source}_to_{layer.name}", synapse=_unit(graph.shape_of(edge.source)))
            layers.append(identity)
            edges.remove(edge)
            edges += [replace(edge, target=identity.name), Edge(source=identity.name, target=layer.name)]
        layers.append(layer)
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _split_identity(graph: SNNGraph, layer: Layer) -> tuple[Layer, Layer | None]:
    source = graph.incoming(layer.name)[0].source
    if all(_weights_behind(graph, e.source) for e in graph.incoming(layer.name)):
        return layer, None
    if isinstance(layer.synapse, POOLS):
        extra = Layer(name=f"{layer.name}_pool", synapse=layer.synapse)
        return replace(layer, synapse=_unit(graph.shape_of(layer.name))), extra
    return replace(layer, synapse=_unit(graph.shape_of(source))), None


def _unit(shape: tuple[int, ...]) -> Scale:
    return Scale(weight=np.ones((shape[0], *(1 for _ in shape[1:]))))


def _weights_behind(graph: SNNGraph, name: str) -> bool:
    """Say whether what a layer emits is a current: it comes from weights with no neuron after them."""
    if name == INPUT or graph[name].neuron is not None:
        return False
    if isinstance(graph[name].synapse, WEIGHTED):
        return True
    return any(_weights_behind(graph, edge.source) for edge in graph.incoming(name))


class _Target:
    """One neuron layer and the weighted layers that drive it, on their way to integers."""

    def __init__(self, graph: SNNGraph, layer: Layer, kind: InputKind, input_scale: float) -> None:
        self.graph, self.layer, self.kind, self.input_scale = graph, layer, kind, input_scale
        neuron = layer.neuron
        if not isinstance(neuron, FLOAT_NEURONS):
            raise UnsupportedError(f"layer '{layer.name}': {type(neuron).__name__} has no integer counterpart here")
        self.neuron = neuron
        self.f = neurons.factors(neuron, graph.dt_s)
        self.current = isinstance(neuron, (CubaLIF, CubaLI))
        self.mem = self.f.get("mem", np.zeros(()))
        self.gain = self.f["r"] * (1 if isinstance(neuron, IF) else self.mem) * self.f.get("jump", np.ones(()))
        for decay in (self.mem, self.f.get("syn", np.zeros(()))):
            if (decay > 1).any():
                raise QuantizationError(f"layer '{layer.name}': a time constant is below the time step; choose a smaller dt")
            if (decay < 0).any():
                raise QuantizationError(f"layer '{layer.name}': a time constant is below 0, its state grows; no chip does that")
        self.offset = self._level()
        self.drives = self._driving_layers()

    def _level(self) -> Array:
        if isinstance(self.neuron, READOUTS):
            return self.f["v_leak"]
        return self.f["v_reset"] if self.neuron.reset == "value" else np.zeros(())

    def _driving_layers(self) -> dict[str, float]:
        """Find the weighted layers whose sums reach the neuron, and the factor that means on the way put on them."""
        found: dict[str, float] = {}

        def behind(name: str, factor: float) -> None:
            layer = self.graph[name]
            if isinstance(layer.synapse, WEIGHTED):
                for edge in self.graph.incoming(name):
                    if _weights_behind(self.graph, edge.source):
                        raise UnsupportedError(
                            f"layers '{edge.source}' -> '{name}': two weighted layers with no neuron between them; merge them"
                        )
                found[name] = factor * self._spike_factor(name)
                return
            for edge in self.graph.incoming(name):
                behind(edge.source, factor * _mean_factor(layer.synapse))

        behind(self.layer.name, 1.0)
        return found

    def _spike_factor(self, name: str) -> float:
        """Return the factor of the means between the spiking neurons and a weighted layer: one for all its edges."""

        def before(source: str) -> float:
            if source == INPUT:
                return 1 / self.input_scale if self.kind == "current" else 1.0
            layer = self.graph[source]
            if layer.neuron is not None:
                if not layer.spikes:
                    raise UnsupportedError(
                        f"layers '{source}' -> '{name}': a readout's value feeds a layer; let a spiking neuron do it"
                    )
                return 1.0
            factors = {before(e.source) for e in self.graph.incoming(source)}
            return self._single(factors, source) * _mean_factor(layer.synapse)

        return self._single({before(e.source) for e in self.graph.incoming(name)}, name)

    def _single(self, factors: set[float], name: str) -> float:
        if len(factors) != 1:
            raise UnsupportedError(
                f"layer '{name}': adds spikes and means of spikes; give each its own weights, then add the currents"
            )
        return factors.pop()

    def _gain_for(self, synapse: Any, name: str) -> Array:
        """Return the gain per output channel; a gain that differs inside a channel has no place in shared weights."""
        gain = np.asarray(self.gain, np.float64)
        shape = self.graph.shape_of(self.layer.name)
        if gain.ndim < len(shape) or gain.size == gain.shape[0]:
            return gain.reshape(-1) if gain.size > 1 else gain.reshape(())
        if isinstance(synapse, Scale):
            return gain
        raise UnsupportedError(
            f"layer '{name}': time constants or r differ inside a channel, whose weights are shared; use one per channel"
        )

    def _graded(self, name: str) -> bool:
        return self.kind == "current" and any(_from_input(self.graph, e.source) for e in self.graph.incoming(name))

    def _float_weights(self) -> dict[str, Any]:
        """Return the effective synapses in float64: gain, means and input scale are in them."""
        found = {}
        for name, factor in self.drives.items():
            synapse = self.graph[name].synapse
            effective = _scaled(synapse, self._gain_for(synapse, name))
            shift = 2.0**GRADED_BITS if self._graded(name) else 1.0
            found[name] = replace(effective, weight=effective.weight * (factor * shift))
        return found

    def _float_bias(self) -> Array:
        """Return what is added to v per step, in units of v: leak, and the synapses' bias where there is no current."""
        bias = self.mem * (self.f["v_leak"] - self.offset) if "v_leak" in self.f else np.zeros(())
        if not self.current:
            for synapse in self._float_weights().values():
                if synapse.bias is not None:
                    spread = () if isinstance(synapse, Scale) else tuple(1 for _ in self.graph.shape_of(self.layer.name)[1:])
                    bias = bias + (synapse.bias if isinstance(synapse, Scale) else synapse.bias.reshape(-1, *spread))
        return np.asarray(bias, np.float64)

    def scale(self, bits: int) -> float:
        """Return the scale with the least rounding error among those that use at least half of the weight format.

        Weights, threshold and bias that lie on a common grid are met exactly where the format is fine enough.
        """
        weights = np.unique(np.concatenate([np.abs(s.weight).ravel() for s in self._float_weights().values()]))
        step, limit = _weight_format(bits)
        others = [limits for limits in (self._threshold_limit(), self._bias_limit()) if limits]
        largest = float(weights[-1])
        most = min([step * limit / largest if largest else 1.0, *others])
        if not largest:
            return most
        shrink = np.arange(limit, limit // 2, -1) / limit
        levels = np.zeros(1) if isinstance(self.neuron, READOUTS) else np.unique(self.f["v_threshold"] - self.offset)
        errors = [_rounding(weights, most * f, step) + _rounding(levels, most * f, 1) for f in shrink]
        return float(most * shrink[int(np.argmin(errors))])

    def _threshold_limit(self) -> float | None:
        if isinstance(self.neuron, READOUTS):
            return None
        threshold = self.f["v_threshold"] - self.offset
        if (threshold < 0).any():
            raise QuantizationError(
                f"layer '{self.layer.name}': v_threshold is below v_reset, the neuron would never rest; check them"
            )
        return MAX_THRESHOLD / float(threshold.max()) if threshold.max() > 0 else None

    def _bias_limit(self) -> float | None:
        bias = float(np.abs(self._float_bias()).max())
        return MAX_BIAS_MANTISSA * 2**MAX_BIAS_EXPONENT / (LOIHI_UNIT * bias) if bias else None

    def integer_layers(self, layers: Mapping[str, Layer], scale: float, bits: int) -> dict[str, Layer]:
        """Return the integer forms of the neuron layer and of the layers that drive it."""
        changed = dict(layers)
        for name, synapse in self._float_weights().items():
            earlier: Any = changed[name].synapse
            if earlier.weight.dtype.kind == "i":
                raise UnsupportedError(
                    f"layer '{name}': its current feeds several neuron layers; give each its own copy of the weights"
                )
            bias = None
            if synapse.bias is not None and self.current:
                bias = np.rint(synapse.bias * scale).astype(np.int64)
            changed[name] = replace(changed[name], synapse=self._integer_synapse(name, synapse, scale, bits, bias))
        changed[self.layer.name] = replace(changed[self.layer.name], neuron=self._integer_neuron(scale))
        return {name: layer for name, layer in changed.items() if layer is not layers[name]}

    def _integer_synapse(self, name: str, synapse: Any, scale: float, bits: int, bias: Array | None) -> Synapse:
        step, limit = _weight_format(bits)
        weight = (step * np.clip(np.rint(synapse.weight * scale / step), -limit, limit)).astype(np.int32)
        graded_input = self._graded(name)
        changed: Synapse = replace(synapse, weight=weight, bias=bias, weight_exponent=-GRADED_BITS if graded_input else 0)
        return changed

    def _integer_neuron(self, scale: float) -> LoihiLIF:
        readout = isinstance(self.neuron, READOUTS)
        bias = scale * self._float_bias()
        exponent = BIAS_EXPONENT if np.abs(np.rint(bias)).max() <= MAX_BIAS_MANTISSA else MAX_BIAS_EXPONENT
        start = np.zeros(()) if isinstance(self.neuron, IF) else self.f["v_leak"] - self.offset
        if isinstance(self.neuron, IF):
            start = self.f["v_reset"] - self.offset
        return LoihiLIF(
            decay_u=np.rint(4096 * self.f["syn"]).astype(np.int64) if self.current else np.array(4096),
            decay_v=np.rint(4096 * self.mem).astype(np.int64),
            v_threshold=None if readout else np.rint(scale * (self.f["v_threshold"] - self.offset)).astype(np.int64),
            bias_mantissa=np.rint(bias * LOIHI_UNIT / 2**exponent).astype(np.int64),
            bias_exponent=exponent,
            v_init=np.rint(LOIHI_UNIT * scale * start).astype(np.int64),
            reset=getattr(self.neuron, "reset", "value"),
        )


def _weight_format(bits: int) -> tuple[int, int]:
    """Return (step between stored weights, largest multiple of it): 8 bits store -254, -252, ..., 254."""
    return 2 ** (9 - bits), 2 ** (bits - 1) - 1


def _rounding(values: Array, scale: float, step: int) -> float:
    """Return the mean squared rounding error in floating-point units."""
    scaled = values * (scale / step)
    return float(np.mean((scaled - np.rint(scaled)) ** 2)) * (step / scale) ** 2


def _mean_factor(synapse: Synapse | None) -> float:
    return 1 / float(np.prod(synapse.kernel_size)) if isinstance(synapse, AvgPool) else 1.0


def _from_input(graph: SNNGraph, name: str) -> bool:
    return name == INPUT or (graph[name].neuron is None and any(_from_input(graph, e.source) for e in graph.incoming(name)))


def _input_scale(calibration: Array | None, kind: InputKind) -> float:
    if kind == "spikes":
        return 1.0
    largest = 1.0 if calibration is None else float(np.abs(calibration).max())
    return (2**GRADED_BITS - 1) / largest if largest else 1.0


def _check_all_lowered(layers: Mapping[str, Layer]) -> None:
    for layer in layers.values():
        if isinstance(layer.synapse, WEIGHTED) and layer.synapse.weight.dtype.kind == "f":
            raise UnsupportedError(
                f"layer '{layer.name}': weights whose sums no neuron takes; give the network a readout (LI) at its end"
            )
