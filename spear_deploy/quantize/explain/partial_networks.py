"""Trained networks with some of their numbers as a chip stores them.

Each change can so be run alone, in floating point, before the states become integers too. Loihi: the trained network in the
units of the chip (`quantize.loihi`), where it computes the same spikes, and every number stands beside the integer that it
becomes. All others: stored numbers in the units of the trained network, where a stored potential v is v / scale + level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LOIHI_UNIT,
    Array,
    CatalystLIF,
    CubaLI,
    CubaLIF,
    Layer,
    LoihiLIF,
    ReckonLIF,
    SpinnakerLIF,
    TrueNorthLIF,
    UnroundedLIF,
    XyloLIF,
    find_start,
)
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.quantize.weighted_inputs import NeuronInput, collect_neuron_inputs
from spear_deploy.simulator import InputKind, neurons


def find_units(neuron_inputs: Iterable[NeuronInput], integer: SNNGraph) -> dict[str, tuple[float, Array]]:
    """Return (unit · scale, level) by neuron layer: an integer potential v is v / (unit · scale) + level in trained units."""
    facts = integer.metadata.get("quantization", {})
    scales = facts.get("scale", {})
    unit = float(facts.get("unit", LOIHI_UNIT))
    return {entry.name: (unit * scales[entry.name], entry.level) for entry in neuron_inputs if entry.name in scales}


def stored_input_scale(integer: SNNGraph) -> float:
    """Return the factor on a current before it is sent; 1 where it is sent as it is."""
    return float(integer.metadata.get("quantization", {}).get("input_scale", 1.0))


# --------------------------------------------------------------------------------------------------------------- Loihi


def is_loihi(integer: SNNGraph) -> bool:
    """Say whether a network is integers of the Loihi family whose scales are known."""
    scales = integer.metadata.get("quantization", {}).get("scale", {})
    layers: list[Layer] = [layer for layer in integer.layers if layer.neuron is not None]
    return all(isinstance(layer.neuron, LoihiLIF) and layer.name in scales for layer in layers)


def replace_means_by_sums(graph: SNNGraph, kind: InputKind) -> SNNGraph:
    """Return a floating-point network with sums over windows in place of means; the weights around them take the factor.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        kind: of its input.
    """
    layers = {layer.name: replace_mean_by_sum(layer) for layer in graph.layers}
    for neuron_input in collect_neuron_inputs(graph, kind, 1.0):
        for name, synapse in neuron_input.synapses.items():
            layers[name] = replace(layers[name], synapse=_multiply_bias(neuron_input, name, synapse))
    return graph.with_layers(layers)


def scale_to_chip(graph: SNNGraph, integer: SNNGraph, kind: InputKind) -> SNNGraph:
    """Return a floating-point network in the units of the integers that it became, without rounding.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        integer: of the Loihi family, with its scales in the metadata.
        kind: of its input.
    """
    layers = {layer.name: replace_mean_by_sum(layer) for layer in graph.layers}
    for neuron_input in collect_neuron_inputs(graph, kind, stored_input_scale(integer)):
        f = neuron_input.factors
        scale = float(integer.metadata["quantization"]["scale"][neuron_input.name])
        gain = np.asarray(f["r"] * f.get("mem", 1.0) * f.get("jump", 1.0), np.float64)  # of a unit of input on the potential
        for name, synapse in neuron_input.multiply_synapses(gain * scale).items():
            layers[name] = replace(layers[name], synapse=_multiply_bias(neuron_input, name, synapse))
        layers[neuron_input.name] = replace(layers[neuron_input.name], neuron=_unrounded_neuron(neuron_input, scale))
    return graph.with_layers(layers)


def _multiply_bias(neuron_input: NeuronInput, name: str, synapse: Any) -> Any:
    """Return a synapse whose bias takes the factor of the means behind it, as its weights do."""
    if synapse.bias is None:
        return synapse
    return replace(synapse, bias=np.asarray(synapse.bias, np.float64) * neuron_input.bias_factors[name])


def _unrounded_neuron(neuron_input: NeuronInput, scale: float) -> UnroundedLIF:
    f, level, unit = neuron_input.factors, neuron_input.level, LOIHI_UNIT * scale
    mem = f.get("mem", np.zeros(()))
    start = find_start(neuron_input.neuron)
    return UnroundedLIF(
        decay_u=4096 * f["syn"] if "syn" in f else np.array(4096.0),
        decay_v=4096 * mem,
        v_threshold=None if neuron_input.readout else scale * neuron_input.threshold,
        bias=unit * mem * (f["v_leak"] - level) if "v_leak" in f else np.zeros(()),
        v_init=unit * (start - level),
        v_reset=np.zeros(()) if neuron_input.readout else unit * (f["v_reset"] - level),
        reset=getattr(neuron_input.neuron, "reset", "value"),
    )


# --------------------------------------------------------------------------------------------------------- other chips


def has_scale_per_layer(graph: SNNGraph, integer: SNNGraph, kind: InputKind) -> bool:
    """Say whether each layer has one scale: on Speck a layer with different thresholds by channel has none."""
    scales = integer.metadata.get("quantization", {}).get("scale", {})
    return all(entry.name in scales for entry in collect_neuron_inputs(graph, kind, stored_input_scale(integer)))


def substitute_stored_numbers(
    graph: SNNGraph,
    integer: SNNGraph,
    kind: InputKind,
    *,
    thresholds: bool = False,
    biases: bool = False,
    decays: bool = False,
) -> SNNGraph:
    """Return the floating-point network with the weights that the chip stores, and with more of its numbers on request.

    Args:
        graph: the trained network, see `weighted_inputs.collect_neuron_inputs`.
        integer: the same network for a chip other than Loihi, with its scales in the metadata.
        kind: of its input.
        thresholds, biases, decays: whether these too are the stored ones. With the decays comes Xylo's neuron, whose input
            always passes through a current.
    """
    layers = {layer.name: layer for layer in graph.layers}
    for neuron_input in collect_neuron_inputs(graph, kind, stored_input_scale(integer)):
        scale = float(integer.metadata["quantization"]["scale"][neuron_input.name])
        stored = _StoredLayer(trained=neuron_input, integer=integer, scale=scale)
        neuron = stored.neuron_with_decays(graph.dt_s) if decays else neuron_input.neuron
        if thresholds and not neuron_input.readout:
            neuron = replace(neuron, v_threshold=neuron_input.level + stored.neuron.v_threshold / scale)
        layers[neuron_input.name] = replace(layers[neuron_input.name], neuron=neuron)
        factors = neurons.factors(neuron, graph.dt_s)
        for name, synapse in stored.synapses_in_trained_units(graph, factors, biases=biases).items():
            layers[name] = replace(layers[name], synapse=synapse)
    return graph.with_layers(layers)


@dataclass(frozen=True, kw_only=True)
class _StoredLayer:
    """One neuron layer, as trained and as stored.

    Attributes:
        trained: the floating-point layer.
        integer: the integer network.
        scale: of the layer.
    """

    trained: NeuronInput
    integer: SNNGraph
    scale: float

    @property
    def neuron(self) -> Any:
        """The integer neuron."""
        return self.integer[self.trained.name].neuron

    def neuron_with_decays(self, dt_s: float) -> Any:
        """Return the neuron with the chip's decays in place of its time constants; chips that only integrate have none."""
        trained = self.trained.neuron
        if isinstance(self.neuron, SpinnakerLIF):
            times = {"tau_mem_s" if hasattr(trained, "tau_mem_s") else "tau_s": dt_s / (1 - self.neuron.keep_v / 2**15)}
            if self.neuron.keep_u is not None:
                times["tau_syn_s"] = dt_s / (1 - self.neuron.keep_u / 2**32)
            return replace(trained, **times)
        if isinstance(self.neuron, ReckonLIF) and not isinstance(trained, IF):
            return replace(trained, tau_s=dt_s / (1 - self.neuron.keep / (2**7 if self.neuron.v_threshold is None else 2**15)))
        if not isinstance(self.neuron, XyloLIF):
            return trained
        mem, syn = dt_s * 2.0**self.neuron.dash_mem, dt_s * 2.0**self.neuron.dash_syn
        constants = {"tau_mem_s": mem, "tau_syn_s": syn, "w_in": 2.0**self.neuron.dash_syn, "v_leak": trained.v_leak}
        if isinstance(trained, (LI, CubaLI)):
            return CubaLI(**constants)
        spiking = {name: getattr(trained, name) for name in ("v_threshold", "v_reset", "reset", "max_spikes")}
        return CubaLIF(**constants, **spiking, v_init=getattr(trained, "v_init", None))

    def synapses_in_trained_units(self, graph: SNNGraph, f: Mapping[str, Array], *, biases: bool) -> dict[str, Any]:
        """Return the synapses with the stored weights, in the units of the trained network.

        Args:
            graph: the trained network.
            f: factors of the neuron that they drive.
            biases: whether the biases are the stored ones too.
        """
        synapses: dict[str, Any] = {}
        unit = 1 / (self.scale * self._first_step_gain(f))
        for name, driving in self.trained.synapses.items():
            trained: Any = graph[name].synapse
            stored: Any = self.integer[name].synapse
            size = float(np.abs(trained.weight).sum(dtype=np.float64))
            means = float(np.abs(driving.weight).sum()) / size if size else 1.0
            weight = self._effective_weight(stored) / means
            bias = None if stored.bias is None else stored.bias / self.trained.bias_factors[name]
            in_chip_units = replace(
                self.trained, stored={name: replace(driving, weight=weight, bias=bias)}, weight_factors={name: 1.0}
            )
            converted = in_chip_units.multiply_synapses(unit)[name]
            new_bias = converted.bias if biases and "mem" not in f else trained.bias
            synapses[name] = replace(trained, weight=converted.weight, bias=new_bias)
        if biases and isinstance(self.neuron, (TrueNorthLIF, CatalystLIF)):
            first = next(iter(synapses))
            sign = 1 if isinstance(self.neuron, TrueNorthLIF) else -1
            per_step = np.broadcast_to(
                sign * self.neuron.leak / (self.scale * f["r"] * self.trained.bias_factors[first]), self.trained.shape
            )
            channels = len(synapses[first].weight)
            synapses[first] = replace(synapses[first], bias=per_step.reshape(channels, -1)[:, 0].copy())
        if biases and "mem" in f:
            first = next(iter(synapses))
            synapses[first] = replace(synapses[first], bias=self._first_bias(first, synapses, f))
        return synapses

    def _first_bias(self, first: str, synapses: Mapping[str, Any], f: Mapping[str, Array]) -> Array:
        """Return the bias of the first synapse with which the potential gets as much in a step as the chip adds to it."""
        syn, jump = (f["syn"], f["jump"]) if "syn" in f else (np.ones(()), np.ones(()))
        drive = f["mem"] * f["r"] * jump / syn
        per_step = f["mem"] * self.neuron.v_rest if isinstance(self.neuron, SpinnakerLIF) else getattr(self.neuron, "bias", 0)
        rest = per_step / self.scale - f["mem"] * (f["v_leak"] - self.trained.level)
        for name, synapse in synapses.items():
            if name != first and synapse.bias is not None:
                rest = rest - drive * synapse.bias * self.trained.bias_factors[name]
        per_neuron = np.broadcast_to(rest / (drive * self.trained.bias_factors[first]), self.trained.shape)
        return per_neuron.reshape(len(synapses[first].weight), -1)[:, 0].copy()

    def _effective_weight(self, stored: Any) -> Array:
        """Return the stored weights with their shifts, float64."""
        weight: Array = stored.weight * 2.0**stored.weight_exponent
        if isinstance(self.neuron, SpinnakerLIF):
            weight = weight * np.where(weight >= 0, 2.0**self.neuron.exc_shift, 2.0**self.neuron.inh_shift)
        return weight

    def _first_step_gain(self, f: Mapping[str, Array]) -> Array:
        """Return by how much a unit of input raises the potential in the first step, per unit of stored weight and scale.

        A Xylo current has fallen once before it reaches the potential: W arrives as W · (1 − 2^−dash_syn), and all that a spike
        brings in the end is the same as in the trained network.
        """
        if isinstance(self.trained.neuron, IF):
            return np.asarray(f["r"], np.float64)
        syn, jump = (f["syn"], f["jump"]) if "syn" in f else (np.ones(()), np.ones(()))
        if isinstance(self.neuron, ReckonLIF):
            read = self.neuron.keep / 2**7 if self.neuron.v_threshold is None else 1.0  # an output is read behind its decay
            return np.asarray(f["mem"] * f["r"] / read, np.float64)
        if isinstance(self.neuron, SpinnakerLIF):
            return np.asarray(f["r"] * jump / (1 if self.neuron.init_u is None else self.neuron.init_u / 2**32), np.float64)
        fallen = 2.0**-self.neuron.dash_syn
        return np.asarray(f["mem"] * f["r"] * jump / syn * fallen / (1 - fallen), np.float64)
