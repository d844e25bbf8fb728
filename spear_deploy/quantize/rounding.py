"""Floating-point network with the values that a chip's integers stand for.

An integer network is read back into the units of the network that it was made of: decays and thresholds first, then weights and
biases, so that each neuron gets in a step what the chip's neuron gets, divided by the scale s of its layer:

    decays       as stored: mem = decay_v / 4096 on Loihi, 2^−dash on Xylo; others as in the floating-point network
    v_min        level + n / s, which a core of Speck has: −v_threshold where the network has none
    threshold    level + n / s; a little below where the chip spikes at its threshold and not above it
    weights      n · 2^weight_exponent / (s · g), with the gain g of the family (`quantize.loihi`, `speck`, `xylo`)
    biases       n / (s · g)

Learning on these grids (`training.fit` with `rounding=`) is quantisation-aware: the network that comes out quantises to the
integers that it learnt with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import IF, Array, CubaLI, CubaLIF, Layer, LoihiLIF, SpeckIF, XyloLIF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.value_grid import ValueGrid
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm
from spear_deploy.quantize.loihi import weight_format
from spear_deploy.quantize.weighted_inputs import NeuronInput, collect_neuron_inputs
from spear_deploy.quantize.xylo import convert_to_dense
from spear_deploy.simulator import InputKind

BELOW = 1 - 1e-4
"""Factor on a threshold at which the chip spikes: a network spikes above its threshold only."""
ROUNDED = ("loihi", "speck", "xylo")
"""Formats whose values are known here."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """A network with a chip's rounding.

    Attributes:
        graph: floating point, batch norm folded, with the values of the integers.
        latent: the same with weights and biases before rounding.
        grids: of its weights and biases, by layer and "weight" or "bias".
        input_scale: levels of an analogue input, as a factor on it; None for spikes.
    """

    graph: SNNGraph
    latent: SNNGraph
    grids: Mapping[tuple[str, str], ValueGrid]
    input_scale: float | None = None


RoundNetwork: TypeAlias = Callable[[SNNGraph], Rounding]
"""Chooses the grids of a floating-point network for one chip, e.g. by `read_rounding` of its integers."""


def read_rounding(graph: SNNGraph, integer: SNNGraph) -> Rounding:
    """Return a floating-point network with the values of its integers.

    Args:
        graph: floating point.
        integer: `quantize(graph, ...)`, of a format of `ROUNDED`. Weights of 1 that it has in addition are left out, and layers
            whose weights were divided by thresholds of their own keep their values.

    Raises:
        UnsupportedError: another format.
    """
    facts = integer.metadata["quantization"]
    if facts["format"] not in ROUNDED:
        raise UnsupportedError(
            f"learning with the rounding of format '{facts['format']}' is not built yet, there are {', '.join(ROUNDED)}; learn "
            "without it"
        )
    scales: Mapping[str, float] = facts["scale"]
    folded = fold_batchnorm(graph)
    prepared = add_missing_weights(folded)
    if facts["format"] == "xylo":
        prepared = convert_to_dense(prepared)
    stored_in = {layer.name: type(layer.synapse).__name__ for layer in folded.layers}
    kind: InputKind = "current" if "input_scale" in facts else "spikes"
    input_scale = facts.get("input_scale", 1.0)
    with_times = prepared.with_layers(lambda layer: _read_neuron(layer, integer, scales))
    before = {inputs.name: inputs for inputs in collect_neuron_inputs(prepared, kind, input_scale)}
    latent: dict[str, dict[str, Array]] = {}
    grids: dict[tuple[str, str], ValueGrid] = {}
    for inputs in collect_neuron_inputs(with_times, kind, input_scale):
        if inputs.name not in scales:
            continue
        neuron = integer[inputs.name].neuron
        stored: Mapping[str, Any] = inputs.stored
        for name, synapse in stored.items():
            if stored_in.get(name) != type(synapse).__name__:
                continue
            grids_of_layer = _read_grids(inputs, name, neuron, integer[name].synapse, facts)
            gains = (_read_gains(each, neuron) for each in (before[inputs.name], inputs))
            ratio = [np.divide(*pair) for pair in zip(*gains, strict=True)]  # of what drove a neuron to what drives it now
            scaled = inputs.scale_synapses(ratio[0])[name]
            latent[name] = {"weight": synapse.weight * scaled.factors[-1]}
            if synapse.bias is not None:
                latent[name]["bias"] = np.asarray(inputs.scale_synapses(ratio[1])[name].bias)
            grids |= {(name, part): grid for part, grid in grids_of_layer.items()}

    def build(rounded: bool) -> SNNGraph:
        def read_layer(layer: Layer) -> Layer:
            layer = _read_neuron(layer, integer, scales)
            values: dict[str, Any] = {
                part: (grids[layer.name, part].snap(value) if rounded else value).astype(np.float32)
                for part, value in latent.get(layer.name, {}).items()
            }
            synapse: Any = layer.synapse
            return replace(layer, synapse=replace(synapse, **values)) if values else layer

        return folded.with_layers(read_layer)

    scale = input_scale if kind == "current" else None
    return Rounding(graph=build(True), latent=build(False), grids=grids, input_scale=scale)


def _read_neuron(layer: Layer, integer: SNNGraph, scales: Mapping[str, float]) -> Layer:
    """Return a layer with the decays and the threshold of its integers."""
    neuron: Any = layer.neuron
    if neuron is None or layer.name not in scales:
        return layer
    stored: Any = integer[layer.name].neuron
    dt = integer.dt_s
    level = neuron.v_reset if getattr(neuron, "reset", "") == "value" else 0.0
    changes: dict[str, Array] = {}
    if isinstance(stored, LoihiLIF) and not isinstance(neuron, IF):
        changes = _read_times(neuron, dt, np.asarray(stored.decay_v) / 4096, np.asarray(stored.decay_u) / 4096)
    if isinstance(stored, XyloLIF):
        changes = _read_times(neuron, dt, 2.0**-stored.dash_mem, 2.0**-stored.dash_syn)
    if stored.v_threshold is not None and hasattr(neuron, "v_threshold"):
        factor = 1.0 if isinstance(stored, LoihiLIF) else BELOW
        changes["v_threshold"] = np.asarray(level + factor * np.asarray(stored.v_threshold) / scales[layer.name])
    if isinstance(stored, SpeckIF):
        changes["v_min"] = np.asarray(level + np.asarray(stored.v_min) / scales[layer.name])
    changes = {name: np.asarray(value, neuron.r.dtype) for name, value in changes.items()}
    return replace(layer, neuron=replace(neuron, **changes))


def _read_times(neuron: Any, dt: float, mem: Array, syn: Array) -> dict[str, Array]:
    """Return the time constants of these factors of decay; the jump of a current stays as it is."""
    if isinstance(neuron, (CubaLIF, CubaLI)):
        tau_syn = dt / syn
        return {"tau_mem_s": dt / mem, "tau_syn_s": tau_syn, "w_in": neuron.w_in * tau_syn / neuron.tau_syn_s}
    return {"tau_s": dt / mem}


def _read_grids(inputs: NeuronInput, name: str, neuron: Any, synapse: Any, facts: Mapping[str, Any]) -> dict[str, ValueGrid]:
    """Return the grids of a layer's weights and, where it has one, bias."""
    scale, stored = facts["scale"][inputs.name], inputs.stored[name]
    gain, bias_gain = _read_gains(inputs, neuron)
    factors: Any = np.ones(())
    for factor in inputs.scale_synapses(gain)[name].factors:
        factors = factors * factor
    step, low, high = _read_format(facts)
    unit = 2.0 ** getattr(synapse, "weight_exponent", 0) / (scale * factors)
    grids = {"weight": ValueGrid(unit=unit, step=step, low=low, high=high)}
    if stored.bias is not None:
        per_bias = inputs.scale_synapses(bias_gain)[name].factors[-1]
        per_bias = per_bias if np.ndim(stored.bias) != 1 else per_bias.reshape(-1)
        added_later = isinstance(neuron, LoihiLIF) and "jump" not in inputs.factors  # to v, behind the means on the way
        means = 1.0 if added_later else inputs.bias_factors[name]
        limits = {"low": low, "high": high} if isinstance(neuron, SpeckIF) else {}
        grids["bias"] = ValueGrid(unit=1 / (scale * per_bias * means), **limits)
    return grids


def _read_format(facts: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the step between stored weights, the smallest and the largest one."""
    if facts["format"] == "loihi":
        step, largest = weight_format(facts["weight_bits"])
        return step, -step * largest, step * largest
    half = 2 ** (facts["weight_bits"] - 1)
    return 1, -half, half - 1


def _read_gains(inputs: NeuronInput, neuron: Any) -> tuple[Array, Array]:
    """Return the gain of the weights, and that of the biases."""
    f = inputs.factors
    one = np.ones(())
    unit = one if isinstance(inputs.neuron, IF) else f["mem"]
    jump, syn = f.get("jump", one), f.get("syn", one)
    if isinstance(neuron, XyloLIF):
        fallen = 2.0 ** -np.asarray(neuron.dash_syn, np.float64)
        drive = f["mem"] * f["r"] * jump / syn
        return drive * fallen / (1 - fallen), drive
    gain = f["r"] * unit * jump
    return gain, gain
