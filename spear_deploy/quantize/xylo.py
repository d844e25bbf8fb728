"""Integers of the Xylo family.

Each neuron layer gets one scale s: its 16-bit membrane potential is s times the floating-point one, measured from the level
(`NeuronInput.level`). With mem = dt / tau_mem, syn = dt / tau_syn and fallen = 2^−dash_syn a layer becomes

    dash         ← round(log2(tau / dt)), 0..15: a state keeps 1 − 2^−dash of itself in a step
    weight       W ← round(s · g · W / 2^shift), 8 bits with a sign, shifted up again by `weight_exponent` = shift
    g            = mem · r · jump / syn · fallen / (1 − fallen): a current falls before it reaches v, and all that it brings in
                   the course of time stays the same
    v_threshold  ← ⌊s · v_threshold⌋ + 1, 1..32767: the chip spikes where v reaches it, a network where v exceeds it
    bias         ← round(s · (mem · (v_leak − level) + mem · r · jump / syn · b)), 16 bits, straight into v
    early_steps  ← steps that spikes of the input take to the layer, for so long its bias acts before (where there are biases)

A neuron without a current (LIF, LI) has jump = syn = 1; the chip has no such neuron, and its shortest current, dash_syn = 1,
halves in a step. The chip has one shift for the weights into hidden neurons (for input and recurrent weights one each, here the
same) and one for those into the outputs. Reset is by subtraction only. What each rounding changed is among the findings.
Shift and scale are chosen in `xylo_scales`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal, UnsupportedError
from spear_deploy.frameworks.reset_words import name_resets
from spear_deploy.network import IF, RESET_WORDS, Array, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale, find_start
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.spike_paths import find_offsets, find_spike_paths
from spear_deploy.quantize.integer_layers import IntegerLayer, assemble_network, round_to_int
from spear_deploy.quantize.layer_error import FloatRun, report_several_spikes
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs
from spear_deploy.quantize.xylo_scales import UnscaledLayer, choose_scales
from spear_deploy.util.number_format import write_steps

MAX_DASH = 15
EARLY_STEPS = "early_steps"
"""What a finding of the quantization names where a bias acts before the network's first step."""


def lower(graph: SNNGraph, settings: LoweringSettings, *, float_run: FloatRun | None = None) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`, and `convert_to_dense`.
        settings: bits of a weight (up to 8), input, headroom, spikes of a hidden neuron (an output neuron sends one) and events
            of an input channel in a step.
        float_run: a run of `graph`, which shifts and scales are chosen on.

    Raises:
        UnsupportedError: IF, or a reset to a value.
        QuantizationError: a time constant or threshold outside the format.
    """
    facts: dict[str, Any] = {"format": "xylo", "weight_bits": settings.weight_bits, "unit": 1}
    facts |= {"scale": {}, "offset": {}, "findings": [], "input_events_max": settings.input_events}
    if settings.kind == "current":
        facts["input_scale"] = settings.input_scale
    inputs = collect_neuron_inputs(graph, settings.kind, settings.input_scale, family="xylo")
    layers = [_prepare_layer(layer, graph, settings.max_spikes) for layer in inputs]
    hidden = [unscaled for unscaled in layers if unscaled.layer.name != graph.output]
    outputs = [unscaled for unscaled in layers if unscaled.layer.name == graph.output]
    integers: dict[str, IntegerLayer] = {}
    for group in (hidden, outputs):
        for unscaled, candidate in zip(group, choose_scales(group, settings, float_run), strict=True):
            name = unscaled.layer.name
            integers[name] = candidate.integers
            facts["scale"][name], facts["offset"][name] = candidate.scale, unscaled.layer.offset
            facts["findings"] += unscaled.findings
            if candidate.gain != 1:
                facts["findings"].append({"layer": name, "what": "gain", "given": 1.0, "stored": candidate.gain})
            facts["findings"] += report_several_spikes(unscaled.layer, candidate.error)
    return _start_with_the_chip(assemble_network(graph, integers, facts))


def _start_with_the_chip(graph: SNNGraph) -> SNNGraph:
    """Return the integers with the steps that each layer runs before the network, where a bias makes them matter.

    A network that the chip's neurons cannot hold in step, and which no export takes, stays as it is.
    """
    try:
        offsets = find_offsets(graph, find_spike_paths(graph), input_steps=0, chip="Xylo")
    except UnsupportedError:
        return graph
    neurons: dict[str, Any] = {name: graph[name].neuron for name in offsets}
    early = {name: steps for name, steps in offsets.items() if steps and neurons[name].bias.any()}
    if not early:
        return graph
    facts = graph.metadata["quantization"]
    findings = [{"layer": name, "what": EARLY_STEPS, "given": 0, "stored": steps} for name, steps in early.items()]

    def start(layer: Layer) -> Layer:
        name = layer.name
        return replace(layer, neuron=replace(neurons[name], early_steps=offsets[name])) if name in offsets else layer

    graph = graph.with_layers(start)
    return replace(graph, metadata={**graph.metadata, "quantization": {**facts, "findings": [*facts["findings"], *findings]}})


def convert_to_dense(graph: SNNGraph) -> SNNGraph:
    """Return the network with a dense layer in place of each weight per value (`Scale`).

    Raises:
        UnsupportedError: a convolution or a pool, for which Xylo has no layer.
    """

    def convert(layer: Layer) -> Layer:
        synapse = layer.synapse
        if isinstance(synapse, Scale) and len(graph.input_shape_of(layer.name)) == 1:
            shape = graph.input_shape_of(layer.name)
            bias = None if synapse.bias is None else np.broadcast_to(synapse.bias, shape)
            return replace(layer, synapse=Dense(weight=np.diag(np.broadcast_to(synapse.weight, shape)), bias=bias))
        if synapse is not None and not isinstance(synapse, (Dense, Flatten)):
            raise UnsupportedError(
                Refusal(
                    layer=layer.name,
                    what=type(synapse).__name__,
                    why="Xylo has dense weights between neurons only",
                    remedy="use Dense, as `adapt` does",
                )
            )
        return layer

    return graph.with_layers(convert)


def _prepare_layer(layer: NeuronInput, graph: SNNGraph, max_spikes: int) -> UnscaledLayer:
    """Return a layer with Xylo's decays, and with weights and bias as they drive v, before its scale is chosen."""
    f = layer.factors
    if isinstance(layer.neuron, IF):
        raise UnsupportedError(
            Refusal(layer=layer.name, what="IF does not leak", why="Xylo's membranes do", remedy="use LIF or CubaLIF")
        )
    if not layer.readout:
        _check_reset_and_threshold(layer, graph)
    has_current = isinstance(layer.neuron, (CubaLIF, CubaLI))
    syn, jump = (f["syn"], f["jump"]) if has_current else (np.ones(()), np.ones(()))
    dash_mem = _round_decay(layer, "mem")
    dash_syn = np.maximum(_round_decay(layer, "syn"), 1) if has_current else np.ones((), np.int64)
    fallen = 2.0**-dash_syn
    drive = f["mem"] * f["r"] * jump / syn
    bias = f["mem"] * (f["v_leak"] - layer.level)
    for name, synapse in layer.multiply_synapses(drive).items():
        if synapse.bias is not None:
            bias = bias + layer.broadcast_bias(name, synapse.bias)
    return UnscaledLayer(
        layer=layer,
        dash_mem=dash_mem,
        dash_syn=dash_syn,
        synapses=layer.multiply_synapses(drive * fallen / (1 - fallen)),
        bias=np.asarray(bias, np.float64),
        max_spikes=1 if layer.name == graph.output else max_spikes,
        findings=tuple(_report_decays_and_start(layer, graph.dt_s, dash_mem, dash_syn)),
    )


def _check_reset_and_threshold(layer: NeuronInput, graph: SNNGraph) -> None:
    if layer.neuron.reset != "subtract":
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"resets {RESET_WORDS[layer.neuron.reset]}",
                why="Xylo's neurons subtract the threshold",
                remedy=f"train with {name_resets(graph, ['subtract'])}",
            )
        )
    if (layer.threshold <= 0).any():
        low = float(layer.threshold.min())
        raise QuantizationError(
            Refusal(layer=layer.name, what=f"v_threshold {low:g}", why="Xylo's thresholds are above 0", remedy="raise it")
        )


def _round_decay(layer: NeuronInput, state: str) -> Array:
    """Return the dash of "mem" or "syn"."""
    dash = round_to_int(-np.log2(layer.factors[state]))
    if (dash > MAX_DASH).any():
        steps = float((1 / layer.factors[state]).max())
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"tau_{state}_s is {write_steps(steps)}",
                why=f"Xylo holds up to 2^{MAX_DASH}",
                remedy="shorten it",
            )
        )
    return dash


def _report_decays_and_start(layer: NeuronInput, dt_s: float, dash_mem: Array, dash_syn: Array) -> list[dict[str, Any]]:
    """Return findings where time constants, or the start, are not those of the layer: of the neuron that is furthest off."""
    syn = layer.factors.get("syn")
    pairs = [("tau_mem_s", dt_s / layer.factors["mem"], dt_s * 2.0**dash_mem)]
    pairs.append(("tau_syn_s", np.zeros(()) if syn is None else dt_s / syn, dt_s * 2.0**dash_syn))
    pairs.append(("start", find_start(layer.neuron) - (layer.level if layer.readout else 0.0), np.zeros(())))
    findings = []
    for what, trained, stored in pairs:
        trained, stored = np.broadcast_arrays(trained, stored)
        off = np.abs(trained - stored) / np.maximum(np.abs(trained), np.abs(stored) + (trained == stored))
        worst = np.unravel_index(int(off.argmax()), off.shape)
        if off[worst] > 1e-6:
            values = {"given": float(trained[worst]), "stored": float(stored[worst])}
            findings.append({"layer": layer.name, "what": what, **values})
    return findings
