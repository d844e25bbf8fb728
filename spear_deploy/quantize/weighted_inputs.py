"""What drives a layer of neurons, in floating point, and how do its integers come back into the network?

A target is a neuron layer with the weighted layers whose sums reach it. What lies between carries no numbers: pools, sums,
reshapes. Means over windows become sums there, and their factors go into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError, QuantizationError, UnsupportedError
from spear_deploy.network import FLOAT_NEURONS, READOUTS, WEIGHTED, Array, Layer, Neuron, Scale, Synapse
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fold import mean_factor, scaled, summed, weights_behind
from spear_deploy.simulator import InputKind, neurons

Lowered: TypeAlias = tuple[dict[str, Synapse], Neuron]
"""The integer synapses by layer, and the integer neuron, of one target."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A neuron layer on its way to integers.

    Attributes:
        name, neuron, shape: of the layer.
        f: the factors of its update (`neurons.factors`), float64.
        synapses: by layer, the weighted synapses that drive it, float64. Means on the way and the scale of an analogue input
            are in the weights.
        made: by layer, the shape of what its weights make; a flatten may lie between it and the neurons.
        behind: by layer, the factor of the means between it and the neuron, which a bias has to take too.
        graded: those that take an analogue input.
    """

    name: str
    neuron: Any
    shape: tuple[int, ...]
    f: Mapping[str, Array]
    synapses: Mapping[str, Any]
    made: Mapping[str, tuple[int, ...]]
    behind: Mapping[str, float]
    graded: frozenset[str]

    @property
    def readout(self) -> bool:
        """Whether its output is the membrane potential."""
        return isinstance(self.neuron, READOUTS)

    @property
    def level(self) -> Array:
        """The potential that is 0 in integers: of the reset, of the leak for a readout, 0 where reset subtracts."""
        if self.readout:
            return self.f["v_leak"]
        return self.f["v_reset"] if self.neuron.reset == "value" else np.zeros(())

    @property
    def threshold(self) -> Array:
        """How far the threshold lies above the level; of spiking neurons."""
        return self.f["v_threshold"] - self.level

    def gained(self, gain: Array) -> dict[str, Any]:
        """Return the synapses with what a unit of input does to the potential: one factor, or one per output channel.

        Raises:
            UnsupportedError: the gain differs inside a channel, whose weights are shared.
        """
        return {name: scaled(synapse, self._at_weights(name, gain, synapse)) for name, synapse in self.synapses.items()}

    def _at_weights(self, name: str, gain: Array, synapse: Any) -> Array:
        """Return a gain of the neurons as one of the weights: one number, one per channel, or of a `Scale` one per value."""
        gain = np.asarray(gain, np.float64)
        if gain.size == 1:
            return gain.reshape(())
        made = self.made[name]
        if len(made) == len(self.shape) and isinstance(synapse, Scale):
            return gain  # it spreads over the neurons, as the weights do
        if isinstance(synapse, Scale) and gain.size == np.prod(made):
            return gain.reshape(made)
        each = np.broadcast_to(gain, self.shape).reshape(made[0], -1)
        if (each == each[:, :1]).all():
            return each[:, 0].reshape(-1, *(1 for _ in made[1:])) if isinstance(synapse, Scale) else each[:, 0]
        raise UnsupportedError(
            f"layer '{name}': time constants, thresholds or r differ inside a channel, whose weights are shared; "
            "use one per channel"
        )

    def spread(self, name: str, synapse: Any) -> Array:
        """Return the bias of a layer's weights so that it broadcasts to the neurons."""
        made = self.made[name]
        bias: Array = synapse.bias
        bias = bias if isinstance(synapse, Scale) else bias.reshape(-1, *(1 for _ in made[1:]))
        if len(made) == len(self.shape):
            return bias
        each = np.broadcast_to(bias, made).reshape(made[0], -1)  # a flatten keeps a channel's values together
        size = int(np.prod(self.shape))
        return each.reshape(self.shape) if each.size == size else np.repeat(each[:, 0], size // made[0])


def targets(graph: SNNGraph, kind: InputKind, input_scale: float) -> list[Target]:
    """Return every neuron layer of a network with one weighted layer on each way into it (`fold.with_weights_everywhere`).

    Args:
        graph: a floating-point network without batch norm.
        kind: of the network's input.
        input_scale: what an analogue input is multiplied with before it is sent; its weights take the inverse.

    Raises:
        UnsupportedError: weights behind weights, a readout that feeds a layer, spikes added to means of spikes.
        QuantizationError: a time constant below the time step, or below 0.
    """
    return [_target(graph, layer, kind, input_scale) for layer in graph.layers if layer.neuron is not None]


def _target(graph: SNNGraph, layer: Layer, kind: InputKind, input_scale: float) -> Target:
    if not isinstance(layer.neuron, FLOAT_NEURONS):
        raise UnsupportedError(f"layer '{layer.name}': {type(layer.neuron).__name__} has no integer counterpart here")
    f = neurons.factors(layer.neuron, graph.dt_s)
    for decay in (f.get("mem", np.zeros(())), f.get("syn", np.zeros(()))):
        if (decay > 1).any():
            raise QuantizationError(f"layer '{layer.name}': a time constant is below the time step; choose a smaller dt")
        if (decay < 0).any():
            raise QuantizationError(f"layer '{layer.name}': a time constant is below 0, its state grows; no chip does that")
    behind = _driving_layers(graph, layer.name)
    synapses: dict[str, Any] = {}
    for name, factor in behind.items():
        synapse: Any = graph[name].synapse
        before = _spike_factor(graph, name, 1 / input_scale if kind == "current" else 1.0)
        synapses[name] = replace(synapse, weight=synapse.weight.astype(np.float64) * (factor * before))
    graded = {name for name in behind if kind == "current" and any(_from_input(graph, e.source) for e in graph.incoming(name))}
    return Target(
        name=layer.name,
        neuron=layer.neuron,
        shape=graph.shape_of(layer.name),
        f=f,
        synapses=synapses,
        made={name: graph.shape_of(name) for name in behind},
        behind=behind,
        graded=frozenset(graded),
    )


def _driving_layers(graph: SNNGraph, target: str) -> dict[str, float]:
    """Find the weighted layers whose sums reach the neuron, and the factor that means on the way put on them."""
    found: dict[str, float] = {}

    def behind(name: str, factor: float) -> None:
        layer = graph[name]
        if isinstance(layer.synapse, WEIGHTED):
            for edge in graph.incoming(name):
                if weights_behind(graph, edge.source):
                    raise UnsupportedError(
                        f"layers '{edge.source}' -> '{name}': two weighted layers with no neuron between them; merge them"
                    )
            found[name] = factor
            return
        for edge in graph.incoming(name):
            behind(edge.source, factor * mean_factor(layer.synapse))

    behind(target, 1.0)
    return found


def _spike_factor(graph: SNNGraph, name: str, of_input: float) -> float:
    """Return the factor of the means between the spiking neurons and a weighted layer: one for all its edges."""

    def before(source: str) -> float:
        if source == INPUT:
            return of_input
        layer = graph[source]
        if layer.neuron is not None:
            if not layer.spikes:
                raise UnsupportedError(
                    f"layers '{source}' -> '{name}': a readout's value feeds a layer; let a spiking neuron do it"
                )
            return 1.0
        return _single({before(e.source) for e in graph.incoming(source)}, source) * mean_factor(layer.synapse)

    return _single({before(e.source) for e in graph.incoming(name)}, name)


def _single(factors: set[float], name: str) -> float:
    if len(factors) != 1:
        raise UnsupportedError(
            f"layer '{name}': adds spikes and means of spikes; give each its own weights, then add the currents"
        )
    return factors.pop()


def _from_input(graph: SNNGraph, name: str) -> bool:
    return name == INPUT or (graph[name].neuron is None and any(_from_input(graph, e.source) for e in graph.incoming(name)))


# ------------------------------------------------------------------------------------------------------- and back again


def assembled(graph: SNNGraph, lowered: Mapping[str, Lowered], facts: Mapping[str, Any]) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: what the targets were found in.
        lowered: by target, its integers.
        facts: go into `metadata["quantization"]`.

    Raises:
        UnsupportedError: weights that drive two targets, or none.
    """
    layers = {layer.name: summed(layer) for layer in graph.layers}
    taken: set[str] = set()
    for target, (synapses, neuron) in lowered.items():
        for name, synapse in synapses.items():
            if name in taken:
                raise UnsupportedError(
                    f"layer '{name}': its current feeds several neuron layers; give each its own copy of the weights"
                )
            taken.add(name)
            layers[name] = replace(layers[name], synapse=synapse)
        layers[target] = replace(layers[target], neuron=neuron)
    for layer in layers.values():
        if isinstance(layer.synapse, WEIGHTED) and layer.name not in taken:
            raise UnsupportedError(
                f"layer '{layer.name}': weights whose sums no neuron takes; give the network a readout (LI) at its end"
            )
    return graph.with_layers(layers, metadata={**graph.metadata, "quantization": dict(facts)})


def whole(array: Array) -> Array:
    """Return the nearest whole numbers, int64."""
    return np.rint(array).astype(np.int64)


def made(name: str, make: Callable[[], Neuron]) -> Neuron:
    """Make an integer neuron; what its format does not hold is told with the layer's name.

    Raises:
        QuantizationError: a value outside the format.
    """
    try:
        return make()
    except GraphError as error:
        raise QuantizationError(f"layer '{name}': {error}; rescale the layer") from None


def ranked_scales(values: Iterable[tuple[Array, float]], most: float, shrink: Array) -> Array:
    """Order scales by the rounding error they leave, the least first; of equal ones the larger.

    Weights, thresholds and biases that lie on a common grid are met exactly where the format is fine enough.

    Args:
        values: pairs of floating-point values and the step between integers that may stand for them.
        most: the largest scale that fits the format.
        shrink: factors on it to try, the largest first.
    """
    pairs = [(np.unique(array), step) for array, step in values]
    errors = [sum(_rounding(array, most * factor, step) for array, step in pairs) for factor in shrink]
    return most * shrink[np.argsort(errors, kind="stable")]


def _rounding(values: Array, scale: float, step: float) -> float:
    """Return the mean squared rounding error in floating-point units."""
    scaled_values = values * (scale / step)
    return float(np.mean((scaled_values - np.rint(scaled_values)) ** 2)) * (step / scale) ** 2
