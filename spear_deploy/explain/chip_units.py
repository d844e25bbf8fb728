"""What is the trained network in the units of a Loihi chip, before anything is rounded?

Each neuron layer has one scale s (`quantize.loihi`). In its units the network computes the same spikes, and every number
stands beside the integer that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.graph import SNNGraph
from spear_deploy.layers import IF, LOIHI_UNIT, Array, Layer, LoihiLIF, UnroundedLIF
from spear_deploy.quantize.fold import summed
from spear_deploy.quantize.targets import Target, targets
from spear_deploy.simulator import InputKind


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
