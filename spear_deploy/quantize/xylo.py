"""Which integers go on a chip of the Xylo family?

Each neuron layer gets one scale s: its 16-bit membrane potential is s times the floating-point one, measured from the level
(`Target.level`). With mem = dt / tau_mem, syn = dt / tau_syn and fallen = 2^−dash_syn a layer becomes

    dash         ← round(log2(tau / dt)), 0..15: a state keeps 1 − 2^−dash of itself in a step
    weight       W ← round(s · g · W / 2^shift), 8 bits with a sign, shifted up again by `weight_exponent` = shift
    g            = mem · r · jump / syn · fallen / (1 − fallen): a current falls before it reaches v, and all that it brings in
                   the course of time stays the same
    v_threshold  ← ⌊s · v_threshold⌋ + 1, 1..32767: the chip spikes where v reaches it, a network where v exceeds it
    bias         ← round(s · (mem · (v_leak − level) + mem · r · jump / syn · b)), 16 bits, straight into v

A neuron without a current (LIF, LI) has jump = syn = 1; the chip has none such, and the shortest current there is, dash_syn = 1,
halves in a step. The chip has one shift for the weights into hidden neurons (for input and recurrent weights one each, here the
same) and one for those into the outputs. Reset is by subtraction alone. What each rounding changed is among the findings.
Shift and scale are chosen in `xylo_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.network import IF, Array, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.layer_error import Evidence, several_spikes
from spear_deploy.quantize.weighted_inputs import Lowered, Target, assembled, targets, whole
from spear_deploy.quantize.xylo_scales import Plan, chosen
from spear_deploy.simulator import InputKind

MAX_DASH = 15


def lower(
    graph: SNNGraph,
    *,
    bits: int,
    kind: InputKind,
    input_scale: float,
    room: Mapping[str, float],
    evidence: Evidence | None = None,
    max_spikes: int = 31,
    input_events: int = 15,
) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `targets.targets`, and `dense_only`.
        bits: of a signed weight, up to 8.
        kind, input_scale: of the input.
        room: by layer, a factor in 0..1 on the scale that the format would allow.
        evidence: a run of `graph`, which shifts and scales are chosen on.
        max_spikes: of a hidden neuron in a step; an output neuron sends one.
        input_events: of an input channel in a step.

    Raises:
        UnsupportedError: IF, or a reset to a value.
        QuantizationError: a time constant or threshold outside the format.
    """
    facts: dict[str, Any] = {"format": "xylo", "weight_bits": bits, "unit": 1, "scale": {}, "offset": {}, "findings": []}
    facts["input_events_max"] = input_events
    if kind == "current":
        facts["input_scale"] = input_scale
    plans = [_plan(target, graph, max_spikes) for target in targets(graph, kind, input_scale)]
    lowered: dict[str, Lowered] = {}
    for group in ([p for p in plans if p.target.name != graph.output], [p for p in plans if p.target.name == graph.output]):
        for plan, choice in zip(group, chosen(group, bits, room, evidence), strict=True):
            name = plan.target.name
            lowered[name] = choice.lowered
            facts["scale"][name], facts["offset"][name] = choice.scale, float(np.mean(plan.target.level))
            facts["findings"] += plan.findings
            if choice.gain != 1:
                facts["findings"].append({"layer": name, "what": "gain", "given": 1.0, "stored": choice.gain})
            facts["findings"] += several_spikes(plan.target, choice.verdict)
    return assembled(graph, lowered, facts)


def dense_only(graph: SNNGraph) -> SNNGraph:
    """Return the network with a dense layer for each weight of one's own (`Scale`); refuse what Xylo has no layer for.

    Raises:
        UnsupportedError: a convolution or a pool.
    """

    def dense(layer: Layer) -> Layer:
        synapse = layer.synapse
        if isinstance(synapse, Scale) and len(graph.input_shape_of(layer.name)) == 1:
            shape = graph.input_shape_of(layer.name)
            bias = None if synapse.bias is None else np.broadcast_to(synapse.bias, shape)
            return replace(layer, synapse=Dense(weight=np.diag(np.broadcast_to(synapse.weight, shape)), bias=bias))
        if synapse is not None and not isinstance(synapse, (Dense, Flatten)):
            raise UnsupportedError(
                f"layer '{layer.name}': {type(synapse).__name__}, Xylo has dense weights between neurons only; use Dense"
            )
        return layer

    return graph.with_layers(dense)


def _plan(target: Target, graph: SNNGraph, max_spikes: int) -> Plan:
    neuron, f = target.neuron, target.f
    if isinstance(neuron, IF):
        raise UnsupportedError(f"layer '{target.name}': IF does not leak, Xylo's membranes do; use LIF or CubaLIF")
    if not target.readout:
        _check_reset_and_threshold(target)
    current = isinstance(neuron, (CubaLIF, CubaLI))
    syn, jump = (f["syn"], f["jump"]) if current else (np.ones(()), np.ones(()))
    dash_mem, dash_syn = _dash(target, "mem"), np.maximum(_dash(target, "syn"), 1) if current else np.ones((), np.int64)
    fallen = 2.0**-dash_syn
    drive = f["mem"] * f["r"] * jump / syn
    bias = f["mem"] * (f["v_leak"] - target.level)
    for name, synapse in target.gained(drive).items():
        if synapse.bias is not None:
            bias = bias + target.spread(name, synapse) * target.behind[name]
    return Plan(
        target=target,
        dash_mem=dash_mem,
        dash_syn=dash_syn,
        synapses=target.gained(drive * fallen / (1 - fallen)),
        bias=np.asarray(bias, np.float64),
        max_spikes=1 if target.name == graph.output else max_spikes,
        findings=tuple(_findings(target, graph.dt_s, dash_mem, dash_syn)),
    )


def _check_reset_and_threshold(target: Target) -> None:
    if target.neuron.reset != "subtract":
        raise UnsupportedError(
            f"layer '{target.name}': resets to a value, Xylo's neurons subtract the threshold; train with reset='subtract'"
        )
    if (target.threshold <= 0).any():
        low = float(target.threshold.min())
        raise QuantizationError(f"layer '{target.name}': v_threshold {low:g}, Xylo's thresholds are above 0; raise it")


def _dash(target: Target, which: str) -> Array:
    dash = whole(-np.log2(target.f[which]))
    if (dash > MAX_DASH).any():
        steps = float((1 / target.f[which]).max())
        raise QuantizationError(
            f"layer '{target.name}': tau_{which}_s is {steps:.6g} steps, Xylo holds up to 2^{MAX_DASH}; shorten it"
        )
    return dash


def _findings(target: Target, dt_s: float, dash_mem: Array, dash_syn: Array) -> list[dict[str, Any]]:
    """Return where time constants, and the start, are not those of the layer: the neuron that is furthest off."""
    syn = target.f.get("syn")
    pairs = [("tau_mem_s", dt_s / target.f["mem"], dt_s * 2.0**dash_mem)]
    pairs.append(("tau_syn_s", np.zeros(()) if syn is None else dt_s / syn, dt_s * 2.0**dash_syn))
    if not target.readout:
        pairs.append(("start", target.f["v_leak"], np.zeros(())))
    found = []
    for what, given, stored in pairs:
        given, stored = np.broadcast_arrays(given, stored)
        off = np.abs(given - stored) / np.maximum(np.abs(given), np.abs(stored) + (given == stored))
        worst = np.unravel_index(int(off.argmax()), off.shape)
        if off[worst] > 1e-6:
            found.append({"layer": target.name, "what": what, "given": float(given[worst]), "stored": float(stored[worst])})
    return found
