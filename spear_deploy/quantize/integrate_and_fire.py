"""Integers of TrueNorth, ODIN and Catalyst N1, whose neurons add and spike.

With the scale s of a layer (`chip_scales`) and the factors of `neurons.factors` (r, ...) it becomes

    TrueNorth   W ← s · r · W, four values a neuron       leak ← s · r · b
    ODIN        W ← s · r · W, 3 bits                     no bias
    Catalyst    W ← s · r · W, 16 bits                    leak ← −s · r · b

rounded to whole numbers of the widths that the neuron's `FORMAT` names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from spear_deploy.errors import Refusal, UnsupportedError
from spear_deploy.network import Array, CatalystLIF, OdinLIF, Scale, SparseMatrix, TrueNorthLIF, Weights, write_out
from spear_deploy.quantize.chip_scales import ScaleChoice, list_scales, list_thresholds, max_stored_weight, round_synapses
from spear_deploy.quantize.integer_layers import IntegerLayer, build_neuron, round_to_int
from spear_deploy.quantize.layer_error import FloatRun
from spear_deploy.quantize.palette import AXONS, cluster_together, count_axons, find_axon_types
from spear_deploy.quantize.shared_cells import limit_shared_cells
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput

CATALYST_ROOM = 16
"""Thresholds of Catalyst N1 that its numbers hold where v may fall below the reset: v may fall by 15 of them."""
PALETTE = 4
"""Weights of a TrueNorth neuron: one for each axon type."""
MAP_AXES = 3
"""Axes of a map: channels, rows, columns."""
FLOOR = "floor"
"""What a finding names: a potential that stops at 0."""


def propose_truenorth(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    """Yield TrueNorth's integers: up to four values of weights a neuron, over all layers of weights into it."""
    synapses = layer.multiply_synapses(layer.factors["r"])
    own = {
        n for n, s in synapses.items() if isinstance(s, Scale) and (layer.count_summed(n) == 1 or not s.weight.ndim)
    }  # a value
    synapses = _cluster_values(layer, synapses, own)
    findings = [finding for name, s in synapses.items() for finding in _report_axons(layer, name, s, is_own=name in own)]
    bias = _sum_biases(layer, synapses)
    limits = [(float(np.abs(bias).max()), 255.0)]
    for scale in list_scales(layer, synapses, TrueNorthLIF, settings, limits, on_data=float_run is not None):
        rounded = round_synapses(synapses, scale, max_stored_weight(TrueNorthLIF, settings.weight_bits))
        start = round_to_int(scale * (layer.factors["v_reset"] - layer.level))
        lowest = -(2**18 - 1)
        v_min = (
            np.maximum(round_to_int(scale * (layer.factors["v_min"] - layer.level)), lowest)
            if "v_min" in layer.factors
            else lowest
        )
        leak = round_to_int(np.clip(scale * bias, -255, 255))
        for threshold in list_thresholds(layer, scale):
            values = {"v_threshold": threshold, "leak": leak, "v_min": v_min, "v_init": start, "reset": layer.neuron.reset}
            neuron = build_neuron(layer.name, lambda values=values: TrueNorthLIF(**values))  # type: ignore[misc]
            integers = IntegerLayer(synapses=rounded, neuron=neuron)
            yield ScaleChoice(scale=scale, integers=integers, findings=tuple(findings))


def _cluster_values(layer: NeuronInput, synapses: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Return the synapses with the values of a neuron's types: one palette for layers with the same rows, else one for each.

    Args:
        layer, synapses: what is clustered.
        own: the layers of which a neuron has one value.
    """
    clustered = [name for name in synapses if name not in own]
    count = PALETTE - len(own)
    is_one_value = all(synapses[name].weight.size == len(synapses[name].weight) for name in own if synapses[name].weight.ndim)
    rows = {name: s.weight if name in own else _list_by_neuron(s, layer) for name, s in synapses.items()}
    have_same_rows = len({weight.shape[:1] for weight in rows.values()}) == 1 and is_one_value
    palettes = [clustered] if have_same_rows and clustered else [[name] for name in clustered]
    if count < len(palettes):
        raise UnsupportedError(
            Refusal(
                layer=layer.name,
                what=f"currents of {len(synapses)} layers of weights add up",
                why=f"a TrueNorth neuron has {PALETTE} weights",
                remedy="merge the layers",
            )
        )
    found = dict(synapses)
    for names in palettes:
        weights = cluster_together([rows[name] for name in names], count // len(palettes))
        for name, weight in zip(names, weights, strict=True):
            shape = synapses[name].weight.shape
            found[name] = replace(synapses[name], weight=weight if weight.shape == shape else weight.reshape(shape))
    return found


def _list_by_neuron(synapse: Any, layer: NeuronInput) -> Weights:
    """Return weights with a row for each channel or neuron; of a `Scale` by positions, which a pool sums, one row of all."""
    weight: Weights = synapse.weight
    if not isinstance(synapse, Scale) or weight.ndim == MAP_AXES or weight.ndim == len(layer.shape) > 1:
        return weight
    return weight.reshape(1, -1)


def _report_axons(layer: NeuronInput, name: str, synapse: Any, *, is_own: bool) -> list[dict[str, Any]]:
    """Return a finding where sources take more axons than one: for weights of several types, or several weights of one neuron."""
    shared = [cells for cells in layer.shared if name in cells.weighted]
    sources, axons = int(np.prod(synapse.weight.shape[1:])), 0
    if shared:
        weight = write_out(synapse.weight) if isinstance(synapse.weight, SparseMatrix) else synapse.weight
        types = np.where(weight != 0, 0, -1) if is_own else find_axon_types(weight)
        sources, axons = (sum(n) for n in zip(*((prod(c.shape), c.count_axons({name: types})) for c in shared), strict=True))
    elif not is_own:
        axons = count_axons(synapse.weight)
    return [{"layer": name, "what": AXONS, "given": float(sources), "stored": float(axons)}] if axons > sources else []


def propose_odin(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    """Yield ODIN's integers."""
    synapses = layer.multiply_synapses(layer.factors["r"])
    findings = _find_floor(layer)
    for scale in list_scales(layer, synapses, OdinLIF, settings, (), on_data=float_run is not None):
        rounded = round_synapses(synapses, scale, max_stored_weight(OdinLIF, settings.weight_bits))
        for threshold in list_thresholds(layer, scale):
            neuron = build_neuron(layer.name, lambda value=threshold: OdinLIF(v_threshold=value))  # type: ignore[misc]
            yield ScaleChoice(scale=scale, integers=IntegerLayer(synapses=rounded, neuron=neuron), findings=findings)


def propose_catalyst(layer: NeuronInput, settings: LoweringSettings, float_run: FloatRun | None) -> Iterator[ScaleChoice]:
    """Yield Catalyst N1's integers at the largest scale that its 16 bits hold, if they hold the threshold at it."""
    synapses = layer.multiply_synapses(layer.factors["r"])
    bias = _sum_biases(layer, synapses)
    largest = max(float(np.abs(s.weight).max()) for s in synapses.values())
    limits = CatalystLIF.FORMAT
    floor = layer.factors.get("v_min")
    stops = floor is not None and (floor == layer.level).all()
    highest = limits.thresholds[1] if stops else limits.thresholds[1] // CATALYST_ROOM
    pairs: list[tuple[float, float]] = [(largest, limits.weights[1]), (float(layer.threshold.max()), highest - 1)]
    pairs.append((float(np.abs(bias).max()), limits.weights[1]))
    pairs += limit_shared_cells(layer.shared, synapses)
    scale = min([stored / value for value, stored in pairs if value], default=1.0) * settings.headroom.get(layer.name, 1.0)
    if (np.rint(scale * layer.threshold) < 1).any():
        return
    rounded = round_synapses(synapses, scale, limits.weights[1])
    leak = -round_to_int(scale * bias)
    for threshold in list_thresholds(layer, scale):
        resting = np.asarray(0 if stops else limits.thresholds[1] - int(threshold.max()))
        values = {"v_threshold": threshold, "leak": leak, "resting": resting}
        neuron = build_neuron(layer.name, lambda values=values: CatalystLIF(**values))  # type: ignore[misc]
        integers = IntegerLayer(synapses=rounded, neuron=neuron)
        yield ScaleChoice(scale=scale, integers=integers, findings=() if floor is None else _find_floor(layer))


def _find_floor(layer: NeuronInput) -> tuple[dict[str, Any], ...]:
    """Return a finding where the potential of a chip stops at 0 and that of the network does not."""
    floor = layer.factors.get("v_min")
    stops = floor is not None and (floor == layer.level).all()
    return () if stops else ({"layer": layer.name, "what": FLOOR, "given": 0, "stored": 0},)


def _sum_biases(layer: NeuronInput, synapses: Mapping[str, Any]) -> Array:
    """Return what the biases of a layer add to v in a step, behind the means on the way."""
    bias = np.zeros(())
    for name, synapse in synapses.items():
        if synapse.bias is not None:
            bias = bias + layer.broadcast_bias(name, synapse.bias)
    return bias
