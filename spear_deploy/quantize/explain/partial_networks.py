"""What is the trained network in the units of a Loihi chip, before anything is rounded?

Each neuron layer has one scale s (`quantize.loihi`). In its units the network computes the same spikes, and every number
stands beside the integer that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import IF, LI, LOIHI_UNIT, Array, CubaLI, CubaLIF, Layer, LoihiLIF, UnroundedLIF, XyloLIF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fold import summed
from spear_deploy.quantize.weighted_inputs import Target, targets
from spear_deploy.simulator import InputKind, neurons


def with_sums(graph: SNNGraph, kind: InputKind) -> SNNGraph:
    """Return a floating-point network with sums over windows in place of means; the weights around them take the factor.

    Args:
        graph: see `quantize.targets.targets`.
        kind: of its input.
    """
    layers = {layer.name: summed(layer) for layer in graph.layers}
    for target in targets(graph, kind, 1.0):
        for name, synapse in target.synapses.items():
            layers[name] = replace(layers[name], synapse=_behind(target, name, synapse))
    return graph.with_layers(layers)


def unrounded(graph: SNNGraph, integer: SNNGraph, kind: InputKind) -> SNNGraph:
    """Return a floating-point network in the units of the integers that it became.

    Args:
        graph: see `quantize.targets.targets`.
        integer: of the Loihi family, with its scales in the metadata.
        kind: of its input.
    """
    layers = {layer.name: summed(layer) for layer in graph.layers}
    for target in targets(graph, kind, input_scale_of(integer)):
        scale = float(integer.metadata["quantization"]["scale"][target.name])
        for name, synapse in target.gained(_gain(target) * scale).items():
            layers[name] = replace(layers[name], synapse=_behind(target, name, synapse))
        layers[target.name] = replace(layers[target.name], neuron=_neuron(target, scale))
    return graph.with_layers(layers)


def units(of: Iterable[Target], integer: SNNGraph) -> dict[str, tuple[float, Array]]:
    """Return (unit · scale, level) by layer of neurons: an integer potential v is v / (unit · scale) + level in trained units."""
    facts = integer.metadata.get("quantization", {})
    scales = facts.get("scale", {})
    unit = float(facts.get("unit", LOIHI_UNIT))
    return {target.name: (unit * scales[target.name], target.level) for target in of if target.name in scales}


def input_scale_of(integer: SNNGraph) -> float:
    """Return what a current is multiplied with before it is sent; 1 where it is not."""
    return float(integer.metadata.get("quantization", {}).get("input_scale", 1.0))


def is_loihi(integer: SNNGraph) -> bool:
    """Say whether a network is integers of the Loihi family whose scales are known."""
    scales = integer.metadata.get("quantization", {}).get("scale", {})
    layers: list[Layer] = [layer for layer in integer.layers if layer.neuron is not None]
    return all(isinstance(layer.neuron, LoihiLIF) and layer.name in scales for layer in layers)


def _behind(target: Target, name: str, synapse: Any) -> Any:
    """Return a synapse whose bias takes the factor of the means behind it, as its weights do."""
    return synapse if synapse.bias is None else replace(synapse, bias=np.asarray(synapse.bias, np.float64) * target.behind[name])


def _gain(target: Target) -> Array:
    """Return by how much a unit of input raises the potential: r, r · mem, or r · mem · jump."""
    return np.asarray(target.f["r"] * target.f.get("mem", 1.0) * target.f.get("jump", 1.0), np.float64)


def _neuron(target: Target, scale: float) -> UnroundedLIF:
    f, state = target.f, LOIHI_UNIT * scale
    mem = f.get("mem", np.zeros(()))
    start = f["v_reset" if isinstance(target.neuron, IF) else "v_leak"]
    return UnroundedLIF(
        decay_u=4096 * f["syn"] if "syn" in f else np.array(4096.0),
        decay_v=4096 * mem,
        v_threshold=None if target.readout else scale * target.threshold,
        bias=state * mem * (f["v_leak"] - target.level) if "v_leak" in f else np.zeros(()),
        v_init=state * (start - target.level),
        v_reset=np.zeros(()) if target.readout else state * (f["v_reset"] - target.level),
        reset=getattr(target.neuron, "reset", "value"),
    )


# FOLDED from spear_deploy/quantize/explain/partial_networks.py
# What is the trained network with some of its numbers as Speck or Xylo store them, and the rest as trained?
#
# The numbers go back into the trained network's own units: a stored potential v is v / scale + level there (`quantize.speck`,
# `quantize.xylo`). So each change can be run alone, in floating point, before the states become integers too.


def scales_known(graph: SNNGraph, integer: SNNGraph, kind: InputKind) -> bool:
    """Say whether each layer has one scale: on Speck a layer whose channels have thresholds of their own has none."""
    known = integer.metadata.get("quantization", {}).get("scale", {})
    return all(target.name in known for target in targets(graph, kind, input_scale_of(integer)))


def partly_stored(
    graph: SNNGraph,
    integer: SNNGraph,
    kind: InputKind,
    *,
    thresholds: bool = False,
    biases: bool = False,
    decays: bool = False,
) -> SNNGraph:
    """Return the floating-point network with the weights that the chip stores, and more of its numbers if asked for.

    Args:
        graph: the trained network, see `quantize.targets.targets`.
        integer: what it became, of Speck or Xylo, with its scales in the metadata.
        kind: of its input.
        thresholds, biases, decays: whether these too are the stored ones. With the decays comes Xylo's neuron, whose input
            always passes through a current.
    """
    layers = {layer.name: layer for layer in graph.layers}
    for target in targets(graph, kind, input_scale_of(integer)):
        view = _View(target, integer, float(integer.metadata["quantization"]["scale"][target.name]))
        neuron = view.with_decays(graph.dt_s) if decays else target.neuron
        if thresholds and not target.readout:
            neuron = replace(neuron, v_threshold=target.level + view.stored.v_threshold / view.scale)
        layers[target.name] = replace(layers[target.name], neuron=neuron)
        for name, synapse in view.synapses(graph, neurons.factors(neuron, graph.dt_s), biases=biases).items():
            layers[name] = replace(layers[name], synapse=synapse)
    return graph.with_layers(layers)


@dataclass(frozen=True)
class _View:
    """One neuron layer, as trained and as stored."""

    target: Target
    integer: SNNGraph
    scale: float

    @property
    def stored(self) -> Any:
        return self.integer[self.target.name].neuron

    def with_decays(self, dt_s: float) -> Any:
        """Return the neuron with Xylo's powers of two in place of its time constants; Speck has none."""
        own = self.target.neuron
        if not isinstance(self.stored, XyloLIF):
            return own
        mem, syn = dt_s * 2.0**self.stored.dash_mem, dt_s * 2.0**self.stored.dash_syn
        constants = {"tau_mem_s": mem, "tau_syn_s": syn, "w_in": 2.0**self.stored.dash_syn, "v_leak": own.v_leak}
        if isinstance(own, (LI, CubaLI)):
            return CubaLI(**constants)
        return CubaLIF(**constants, v_threshold=own.v_threshold, v_reset=own.v_reset, reset=own.reset)

    def synapses(self, graph: SNNGraph, f: Mapping[str, Array], *, biases: bool) -> dict[str, Any]:
        """Return the synapses with the stored weights, in the units of the trained network.

        Args:
            graph: the trained network.
            f: factors of the neuron that they drive.
            biases: whether the biases are the stored ones too.
        """
        found: dict[str, Any] = {}
        unit = 1 / (self.scale * self._effect(f))
        for name, given in self.target.synapses.items():
            trained: Any = graph[name].synapse
            stored: Any = self.integer[name].synapse
            size = float(np.abs(trained.weight).sum(dtype=np.float64))
            means = float(np.abs(given.weight).sum()) / size if size else 1.0
            weight = stored.weight * 2.0**stored.weight_exponent / means
            bias = None if stored.bias is None else stored.bias / self.target.behind[name]
            back = replace(self.target, synapses={name: replace(given, weight=weight, bias=bias)}).gained(unit)[name]
            found[name] = replace(trained, weight=back.weight, bias=back.bias if biases and "mem" not in f else trained.bias)
        if biases and "mem" in f:
            first = next(iter(found))
            found[first] = replace(found[first], bias=self._first_bias(first, found, f))
        return found

    def _first_bias(self, first: str, synapses: Mapping[str, Any], f: Mapping[str, Array]) -> Array:
        """Return the bias of the first synapse with which the potential gets as much in a step as Xylo's neuron adds to it."""
        syn, jump = (f["syn"], f["jump"]) if "syn" in f else (np.ones(()), np.ones(()))
        drive = f["mem"] * f["r"] * jump / syn
        rest = self.stored.bias / self.scale - f["mem"] * (f["v_leak"] - self.target.level)
        for name, synapse in synapses.items():
            if name != first and synapse.bias is not None:
                rest = rest - drive * synapse.bias * self.target.behind[name]
        return np.broadcast_to(rest / (drive * self.target.behind[first]), self.target.shape).copy()

    def _effect(self, f: Mapping[str, Array]) -> Array:
        """Return what a unit of input raises the potential by in the first step, per unit of stored weight and scale.

        A Xylo current has fallen once before it reaches the potential: W arrives as W · (1 − 2^−dash_syn), and all of what a
        spike brings in the end is the same as in the trained network.
        """
        if isinstance(self.target.neuron, IF):
            return np.asarray(f["r"], np.float64)
        syn, jump = (f["syn"], f["jump"]) if "syn" in f else (np.ones(()), np.ones(()))
        fallen = 2.0**-self.stored.dash_syn
        return np.asarray(f["mem"] * f["r"] * jump / syn * fallen / (1 - fallen), np.float64)
