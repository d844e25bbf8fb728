"""Integers of ReckOn and SpiNNaker 1, whose neurons decay.

With the scale s of a layer (`chip_scales`) and the factors of `neurons.factors` (mem = dt / tau_mem, syn = dt / tau_syn, ...) it
becomes

    ReckOn      W ← s · m · r · W / 2^shift               no bias                          keep ← 2^15 (1 − m), LI 2^7 (1 − m)
    SpiNNaker   W ← s · r · jump · W / 2^shift            v_rest ← s (v_leak + r · jump / syn · b)   keep_v ← 2^15 (1 − mem)

rounded to whole numbers of the widths that the neuron's `FORMAT` names; m is mem, for IF 0 in a decay and 1 in a weight. W of
SpiNNaker is the sum of the weights that lead from a source to a neuron on one way (`fuse_pools`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, Refusal
from spear_deploy.network import IF, Array, CubaLI, CubaLIF, ReckonLIF, SpinnakerLIF, Synapse, find_start
from spear_deploy.quantize.chip_scales import (
    ROUNDING,
    ScaleChoice,
    list_scales,
    list_thresholds,
    max_stored_weight,
    round_synapses,
)
from spear_deploy.quantize.even_neurons import find_current_gain, find_initial_share
from spear_deploy.quantize.integer_layers import IntegerLayer, build_neuron, round_to_int
from spear_deploy.quantize.layer_error import FloatRun, drive_layer
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput
from spear_deploy.simulator.neurons.chips import RING_BUFFER_MAX
from spear_deploy.simulator.synapse_math import sum_by_neuron
from spear_deploy.util.number_format import write_steps

SPINNAKER_ROOM = 2**14
"""Potential, of 2^16, that the largest input reaches: four times as much still fits s16.15."""
START_ROOM = 2
"""Times the largest input that a potential may start at: the input on top still fits s16.15."""
RECKON_ROOM = 8
"""Times one spike of every input that a ReckOn potential holds where there are no data: they add up over steps."""


def propose_reckon(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    """Yield ReckOn's integers at each shift of the weights."""
    mem = np.zeros(()) if isinstance(layer.neuron, IF) else layer.factors["mem"]
    gain = layer.factors["r"] * (np.ones(()) if isinstance(layer.neuron, IF) else mem)
    one = 2**7 if layer.readout else 2**15
    keep = round_to_int(one * (1 - mem))
    if not layer.readout and (keep < 7 * 2**12).any():
        steps = float((1 / mem).min())
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"tau_mem_s is {write_steps(steps, 3)}",
                why="ReckOn's neurons keep 0.875 to 1 of v in a step",
                remedy="use 8 steps or more",
            )
        )
    if not keep.all():
        raise QuantizationError(
            Refusal(
                layer=layer.name, what="tau_s is one step", why="ReckOn reads an output behind its decay, 0", remedy="lengthen it"
            )
        )
    _check_pairs(layer, "tau_s", keep)
    synapses = layer.multiply_synapses(gain)
    for shift in range(ReckonLIF.FORMAT.max_shift, -1, -1):
        for scale in list_scales(layer, synapses, ReckonLIF, settings, (), on_data=float_run is not None, shift=shift, tried=2):
            rounded = round_synapses(synapses, scale, max_stored_weight(ReckonLIF, settings.weight_bits), shift)
            is_learnt = layer.name in settings.learnt_scales
            if (
                float_run is None
                and shift
                and not is_learnt
                and _sum_of_all(layer, rounded) * RECKON_ROOM > ReckonLIF.FORMAT.v[1]
            ):
                continue
            for threshold in [None] if layer.readout else list_thresholds(layer, scale):
                if threshold is not None:
                    _check_pairs(layer, "v_threshold", threshold)
                values = {"keep": keep, "v_threshold": threshold, "reset": getattr(layer.neuron, "reset", "value")}
                neuron = build_neuron(layer.name, lambda values=values: ReckonLIF(**values))  # type: ignore[misc]
                read = scale * float(np.mean(keep)) / one if layer.readout else scale  # an output is read behind its decay
                yield ScaleChoice(scale=read, shift=shift, integers=IntegerLayer(synapses=rounded, neuron=neuron))


def propose_spinnaker(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    """Yield SpiNNaker's integers at the scale that its 16 bits hold, with a shift for weights of each sign."""
    f, unit = layer.factors, SpinnakerLIF.FORMAT.unit
    current = isinstance(layer.neuron, (CubaLIF, CubaLI))
    syn, jump = (f["syn"], f["jump"]) if current else (np.ones(()), np.ones(()))
    initial = find_initial_share(syn) if current else np.ones(())
    synapses = layer.multiply_synapses(find_current_gain(layer.factors))
    rest = f["v_leak"] - layer.level
    for name, stored in layer.scale_synapses(np.ones(())).items():
        if stored.bias is not None:  # it reaches v behind the means on the way, whatever the current of a spike is
            rest = rest + f["r"] * jump / syn * layer.broadcast_bias(name, stored.bias)
    largest = {name: _largest_sum(layer, synapses, sign, float_run) for name, sign in (("exc", 1), ("inh", -1))}
    reach = max(largest.values()) / float(syn.min()) + float(np.abs(rest).max())
    start = find_start(layer.neuron) - layer.level
    highest = max(reach, 0.0 if layer.readout else float(layer.threshold.max()), float(np.abs(start).max()) / START_ROOM, 1e-12)
    scale = unit * SPINNAKER_ROOM / highest * settings.headroom.get(layer.name, 1.0)
    factor = 2.0**32
    constants: dict[str, Any] = {
        "keep_v": round_to_int(unit * (1 - f["mem"])),
        "keep_u": round_to_int(np.minimum(factor * (1 - syn), factor - 1)) if current else None,
        "init_u": round_to_int(np.minimum(factor * initial, factor - 1)) if current else None,
        "v_threshold": None if layer.readout else round_to_int(np.floor(scale * layer.threshold + ROUNDING) + 1),
        "v_rest": round_to_int(scale * rest),
        "v_reset": 0 if layer.readout else round_to_int(scale * (f["v_reset"] - layer.level)),
        "v_init": round_to_int(scale * start),
    }
    shifts = {name: int(np.ceil(np.log2(max(most * scale / (RING_BUFFER_MAX - 1), 1.0)))) for name, most in largest.items()}
    rounded: dict[str, Synapse] = {}
    for name, s in synapses.items():
        exc, inh = np.maximum(s.weight, 0) * scale / 2.0 ** shifts["exc"], np.minimum(s.weight, 0) * scale / 2.0 ** shifts["inh"]
        weight = np.clip(np.rint(exc + inh), -RING_BUFFER_MAX, RING_BUFFER_MAX).astype(np.int32)
        rounded[name] = replace(s, weight=weight, bias=None)
    constants |= {"exc_shift": shifts["exc"], "inh_shift": shifts["inh"]}
    neuron = build_neuron(layer.name, lambda: SpinnakerLIF(**constants))
    yield ScaleChoice(scale=scale, integers=IntegerLayer(synapses=rounded, neuron=neuron))


def _check_pairs(layer: NeuronInput, name: str, values: Array) -> None:
    """Refuse values that differ between the neurons 2N and 2N + 1, which share them on ReckOn."""
    flat = np.broadcast_to(values, layer.shape).reshape(-1)
    even = flat[: len(flat) // 2 * 2].reshape(-1, 2)
    if (even[:, 0] != even[:, 1]).any():
        raise QuantizationError(
            Refusal(
                layer=layer.name,
                what=f"{name} differs inside a pair of neurons",
                why="which share it on ReckOn",
                remedy="make it equal",
            )
        )


def _largest_sum(layer: NeuronInput, synapses: Mapping[str, Any], sign: int, float_run: FloatRun | None) -> float:
    """Return what weights of a sign bring to a neuron in a step at most: on data, else one spike of every input."""
    parts = {name: replace(s, weight=np.maximum(sign * s.weight, 0), bias=None) for name, s in synapses.items()}
    grain = max(float(s.weight.max()) for s in parts.values()) / 2**20
    if float_run is None or not grain:
        return sum(layer.count_summed(name) * float(sum_by_neuron(s).max()) for name, s in parts.items())
    whole = {name: replace(s, weight=np.ceil(s.weight / grain).astype(np.int64)) for name, s in parts.items()}
    return float(drive_layer(float_run, layer, synapses=whole, spike_by_spike=False).sums.max()) * grain


def _sum_of_all(layer: NeuronInput, synapses: Mapping[str, Any]) -> int:
    """Return what one spike of every input brings to a neuron at most, either way."""
    return sum(
        layer.count_summed(name) * int(sum_by_neuron(replace(s, weight=abs(s.weight.astype(np.int64)))).max())
        << s.weight_exponent
        for name, s in synapses.items()
    )
