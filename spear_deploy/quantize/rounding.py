"""Floating-point network with the values that a chip's integers stand for.

An integer network is read back into the units of the network that it was made of: decays and thresholds first, then weights and
biases, so that each neuron gets in a step what the chip's neuron gets, divided by the scale s of its layer:

    decays       as stored: mem = decay_v / 4096 on Loihi, 2^−dash on Xylo, 1 − keep / 2^15 on ReckOn; others as in the network,
                 and one that is stored as none: a time constant cannot be infinite
    v_min        level + n / s, where the chip has one: −v_threshold on Speck where the network has none
    threshold    level + n / s; a little below where the chip spikes at its threshold and not above it
    weights      n · 2^weight_exponent / (s · g), with the gain g of the family (`quantize.loihi`, `speck`, `xylo`, `chips`)
    biases       n / (s · g)

Learning on these grids (`training.fit` with `rounding=`) is quantisation-aware. Where the chip's update is in the simulator the
neurons emit what the chip's do (`norse.chip_cells`), so that it learns with the integers themselves. The network that comes out
carries its scales (`LEARNT`), and quantises to the integers that it learnt with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import (
    IF,
    LOIHI_UNIT,
    Array,
    CubaLI,
    CubaLIF,
    Layer,
    LoihiLIF,
    OdinLIF,
    ReckonLIF,
    Scale,
    SpeckIF,
    TrueNorthLIF,
    XyloLIF,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.stored_neurons import StoredBias, StoredNeurons
from spear_deploy.network.value_grid import ValueGrid
from spear_deploy.quantize import akida, rounded_weights
from spear_deploy.quantize.chip_scales import max_stored_weight
from spear_deploy.quantize.even_neurons import even_neurons
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm
from spear_deploy.quantize.loihi import GRADED_BITS, MAX_BIAS_MANTISSA, weight_format
from spear_deploy.quantize.weighted_inputs import NeuronInput, collect_neuron_inputs
from spear_deploy.quantize.xylo import convert_to_dense
from spear_deploy.quantize.xylo_scales import MAX_STATE
from spear_deploy.simulator import InputKind, neurons

BELOW = 1e-4
"""What a threshold at which the chip spikes lies lower, as a share: a network spikes above its threshold only."""
MAX_BELOW = 0.25
"""The same at most, in whole numbers, so that it is still rounded to the one it was."""
ABOVE = 1 / 32
"""What a threshold of Akida lies higher, in whole numbers: a sum that meets it sends no spike, and 15 times it stay below 1."""
ROUNDED = ("loihi", "speck", "xylo", "truenorth", "reckon", "odin", "spinnaker2", "brainscales", akida.FORMAT)
"""Formats whose values are known here; SpiNNaker 1 stores 16 bits, which need no learning."""
INTEGERS_COUNT = (
    "learnt in the chip's integers, whose neurons meet their threshold spike by spike: the accuracy of the integers counts, that "
    "in floating point does not"
)
"""Note of results whose network has no meaning in floating point."""
LEARNT = "learnt_rounding"
"""Name in a network's metadata of the format, bits and scales that it learnt with."""
SAME = 1e-3
"""Part of a step between stored weights by which a weight may be off the value that it stands for."""
HELD_BIAS: dict[type, tuple[str, int, tuple[int, int]]] = {
    LoihiLIF: ("bias_mantissa", LOIHI_UNIT, (-MAX_BIAS_MANTISSA, MAX_BIAS_MANTISSA)),
    XyloLIF: ("bias", 1, (-MAX_STATE - 1, MAX_STATE)),
    TrueNorthLIF: ("leak", 1, (-255, 255)),
}
"""By integer neuron that holds biases: the parameter, how many of its units are one of the weights, and its limits."""
UNITS: dict[type, float] = {LoihiLIF: LOIHI_UNIT, SpeckIF: 1.0, XyloLIF: 1.0, TrueNorthLIF: 1.0, ReckonLIF: 1.0, OdinLIF: 1.0}
"""By integer neuron that learning can run, the whole numbers of its potential per scale."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """A network with a chip's rounding.

    Attributes:
        graph: floating point, batch norm folded, with the values of the integers.
        latent: the same with weights and biases before rounding.
        grids: of its weights and biases, by layer and "weight" or "bias".
        input_scale: levels of an analogue input, as a factor on it; None for spikes.
        neurons: integer neurons that the network learns with, by layer; floating-point ones elsewhere.
    """

    graph: SNNGraph
    latent: SNNGraph
    grids: Mapping[tuple[str, str], ValueGrid]
    input_scale: float | None = None
    neurons: Mapping[str, StoredNeurons] = field(default_factory=dict)


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
    pair = _pair_up(graph, integer)
    inputs = [_take_stored_times(pair, each) for each in pair.inputs]
    values = _read_values(pair, inputs)
    stored_neurons = {each.name: each.neuron for each in inputs}
    return Rounding(
        graph=_write_back(pair, stored_neurons, {key: values.grids[key].snap(value) for key, value in values.latent.items()}),
        latent=_write_back(pair, stored_neurons, values.latent),
        grids=values.grids,
        input_scale=facts.get("input_scale"),
        neurons=values.neurons,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A floating-point network and its integers.

    Attributes:
        folded: the network without batch norm, its neurons in the units of the integers.
        inputs: its neuron layers with the weights of the integers, those of 1 that were added included.
        integer: the integers.
        scales: of each neuron layer that has one.
    """

    folded: SNNGraph
    inputs: Sequence[NeuronInput]
    integer: SNNGraph
    scales: Mapping[str, float]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the quantization states."""
        facts: Mapping[str, Any] = self.integer.metadata["quantization"]
        return facts

    def list_known(self, inputs: NeuronInput) -> dict[str, Any]:
        """Return the weights into a neuron layer that the network has of the same kind."""
        layers = {layer.name: layer for layer in self.folded.layers}
        return {n: s for n, s in inputs.stored.items() if n in layers and type(layers[n].synapse) is type(s)}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Values:
    """What learning takes from integers: values before rounding and grids, by layer and part, and stored neurons by layer."""

    latent: Mapping[tuple[str, str], Array]
    grids: Mapping[tuple[str, str], ValueGrid]
    neurons: Mapping[str, StoredNeurons]


def _pair_up(graph: SNNGraph, integer: SNNGraph) -> _Pair:
    """Return a network as its integers were made of it, with them."""
    facts = integer.metadata["quantization"]
    folded = even_neurons(fold_batchnorm(graph), facts["format"])
    prepared = add_missing_weights(folded)
    if facts["format"] == "xylo":
        prepared = convert_to_dense(prepared)
    kind: InputKind = "current" if "input_scale" in facts else "spikes"
    inputs = collect_neuron_inputs(prepared, kind, facts.get("input_scale", 1.0))
    return _Pair(folded=folded, inputs=inputs, integer=integer, scales=_read_scales(integer))


def _take_stored_times(pair: _Pair, inputs: NeuronInput) -> NeuronInput:
    """Return a neuron layer with the decays and the threshold of its integers.

    Its gain stays what it was where neurons share weights and have decays of their own: r takes what the decays change.
    Elsewhere weights take it.
    """
    dt_s, stored = pair.integer.dt_s, pair.integer[inputs.name].neuron
    neuron: Any = _read_neuron(inputs.name, inputs.neuron, pair.integer, pair.scales)
    after = replace(inputs, neuron=neuron, factors=neurons.factors(neuron, dt_s))
    if type(stored) in UNITS:
        drove, drives = (_read_gains(each, stored)[1] for each in (inputs, after))
        if not after.shares_gain(drives):
            neuron = replace(neuron, r=neuron.r * (drove / drives))
            after = replace(inputs, neuron=neuron, factors=neurons.factors(neuron, dt_s))
    return after


def _read_values(pair: _Pair, layers: Sequence[NeuronInput]) -> _Values:
    """Return the values of all weights, biases and neurons that learning takes from the integers."""
    facts, integer, scales = pair.facts, pair.integer, pair.scales
    weight_gains = {row["layer"]: row["stored"] for row in facts.get("findings", ()) if row["what"] == "gain"}
    latent: dict[tuple[str, str], Array] = {}
    grids: dict[tuple[str, str], ValueGrid] = {}
    stored_neurons: dict[str, StoredNeurons] = {}
    for before, inputs in zip(pair.inputs, layers, strict=True):
        if inputs.name not in scales:
            continue
        neuron, known = integer[inputs.name].neuron, pair.list_known(inputs)
        drove, drives = (_read_gains(each, neuron)[1] for each in (before, inputs))
        as_before = inputs.scale_synapses(drove / drives)  # drives the neuron with its new decays as it did
        for name, synapse in known.items():
            read = _read_grids(inputs, name, neuron, integer[name].synapse, facts, scales[inputs.name])
            grids |= {(name, part): grid for part, grid in read.items()}
            _, gain = as_before[name].factors
            latent[name, "weight"] = synapse.weight * gain
            if "bias" in read:
                latent[name, "bias"] = np.asarray(as_before[name].bias) / weight_gains.get(inputs.name, 1.0)
        if type(neuron) in UNITS and len(known) == len(inputs.stored):
            held = _store_neurons(inputs, integer, scales[inputs.name])
            stored_neurons |= {inputs.name: held} if held is not None else {}
    return _Values(latent=latent, grids=grids, neurons=stored_neurons)


def _write_back(pair: _Pair, stored_neurons: Mapping[str, Any], values: Mapping[tuple[str, str], Array]) -> SNNGraph:
    """Return the network with the neurons of its integers and these weights and biases; it states the scales it has them from."""
    facts = pair.facts
    learnt = {
        "format": facts["format"],
        "weight_bits": facts["weight_bits"],
        "scale": pair.scales,
        "shift": _read_shifts(pair.integer, pair.scales),
        **({"layer_bits": dict(facts["layer_bits"])} if "layer_bits" in facts else {}),
    }

    def write(layer: Layer) -> Layer:
        layer = replace(layer, neuron=stored_neurons.get(layer.name, layer.neuron))
        parts: dict[str, Any] = {
            part: values[layer.name, part].astype(np.float32) for part in ("weight", "bias") if (layer.name, part) in values
        }
        synapse: Any = layer.synapse
        return replace(layer, synapse=replace(synapse, **parts)) if parts else layer

    return pair.folded.with_layers(write, metadata={**pair.folded.metadata, LEARNT: learnt})


def find_learnt_scales(
    graph: SNNGraph, format: str, weight_bits: int, layer_bits: Mapping[str, int] = MappingProxyType({})
) -> dict[str, tuple[float, int]]:
    """Return the scale and shift of each neuron layer that a network learnt with; none where it was for other integers."""
    facts = graph.metadata.get(LEARNT, {})
    if (facts.get("format"), facts.get("weight_bits"), facts.get("layer_bits", {})) != (format, weight_bits, dict(layer_bits)):
        return {}
    return {name: (float(facts["scale"][name]), int(facts["shift"][name])) for name in facts["scale"]}


def stands_for(graph: SNNGraph, integer: SNNGraph) -> bool:
    """Return whether the weights of integers stand for those of a network: it learnt with them, and was not changed since."""
    rounding = read_rounding(graph, integer)
    for (name, part), grid in rounding.grids.items():
        latent, rounded = (getattr(each[name].synapse, part) for each in (rounding.latent, rounding.graph))
        if part == "weight" and (np.abs(latent - rounded) > SAME * grid.step * grid.unit).any():
            return False
    return True


def _read_scales(integer: SNNGraph) -> dict[str, float]:
    """Return the scale of each neuron layer: of a readout of ReckOn the one before the decay that it is read behind."""
    scales = dict(integer.metadata["quantization"]["scale"])
    for name in scales:
        neuron = integer[name].neuron
        if isinstance(neuron, ReckonLIF) and neuron.v_threshold is None:
            scales[name] *= 2**7 / float(np.mean(neuron.keep))
    return scales


def _read_shifts(integer: SNNGraph, scales: Mapping[str, float]) -> dict[str, int]:
    """Return the shift of the weights into each neuron layer; of graded spikes on Loihi the bits they are shifted down by."""
    is_loihi = integer.metadata["quantization"]["format"] == "loihi"
    shifts = dict.fromkeys(scales, GRADED_BITS if is_loihi else 0)
    for inputs in scales:
        for name in _list_driving(integer, inputs):
            exponent = getattr(integer[name].synapse, "weight_exponent", 0)
            if exponent:
                shifts[inputs] = -exponent if is_loihi else exponent
    return shifts


def _list_driving(graph: SNNGraph, name: str) -> list[str]:
    """Return the layers from the neurons before a neuron layer up to it."""
    sources = [edge.source for edge in graph.edges_into(name)]
    passive = [source for source in sources if source != INPUT and graph[source].neuron is None]
    return [name, *(other for source in passive for other in _list_driving(graph, source))]


def _store_neurons(inputs: NeuronInput, integer: SNNGraph, scale: float) -> StoredNeurons | None:
    """Return the integer neurons of a layer, and what drives them in floating point; None where biases are added to others."""
    neuron: Any = integer[inputs.name].neuron
    f = inputs.factors
    gain, bias_gain = _read_gains(inputs, neuron)
    biases: dict[str, StoredBias] = {}
    field_name, units, limits = HELD_BIAS.get(type(neuron), ("", 1, (0, 0)))
    if isinstance(neuron, LoihiLIF):
        units = units / 2**neuron.bias_exponent
    for name, synapse in inputs.stored.items():
        bias = getattr(synapse, "bias", None)
        if bias is None or getattr(integer[name].synapse, "bias", None) is not None or not field_name:
            continue
        sources = inputs.find_bias_sources(name, bias)
        if sources is None:
            return None
        biases[name] = StoredBias(gain=np.asarray(units * scale * bias_gain), index=sources[0], count=sources[1])
    return StoredNeurons(
        neuron=neuron,
        gain=np.asarray(scale * gain, np.float64),
        unit=UNITS[type(neuron)] * integer.metadata["quantization"]["scale"][inputs.name],
        level=np.asarray(inputs.level),
        bias_field=field_name,
        bias_limits=limits,
        leak=units * scale * f["mem"] * (f["v_leak"] - inputs.level) if "mem" in f else 0.0,
        biases=biases,
    )


def _read_neuron(name: str, neuron: Any, integer: SNNGraph, scales: Mapping[str, float]) -> Any:
    """Return the neuron of a layer with the decays and the threshold of its integers."""
    if name not in scales:
        return neuron
    stored: Any = integer[name].neuron
    if integer.metadata["quantization"]["format"] == akida.FORMAT:
        return _read_frame_neuron(neuron, stored, scales[name])
    dt = integer.dt_s
    level = neuron.v_reset if getattr(neuron, "reset", "") == "value" else 0.0
    changes: dict[str, Array] = {}
    if isinstance(stored, LoihiLIF) and not isinstance(neuron, IF):
        changes = _read_times(neuron, dt, np.asarray(stored.decay_v) / 4096, np.asarray(stored.decay_u) / 4096)
    if isinstance(stored, XyloLIF):
        changes = _read_times(neuron, dt, 2.0**-stored.dash_mem, 2.0**-stored.dash_syn)
    if isinstance(stored, ReckonLIF) and not isinstance(neuron, IF):
        one = 2**7 if stored.v_threshold is None else 2**15
        changes = _read_times(neuron, dt, 1 - np.asarray(stored.keep) / one, np.ones(()))
    if type(stored) not in UNITS:  # its states are no integers
        return neuron
    if stored.v_threshold is not None:
        threshold = np.asarray(stored.v_threshold, np.float64)
        below = 0.0 if isinstance(stored, LoihiLIF) else np.minimum(BELOW * threshold, MAX_BELOW)
        changes["v_threshold"] = np.asarray(level + (threshold - below) / scales[name])
    has_floor = isinstance(stored, SpeckIF) or (isinstance(stored, TrueNorthLIF) and neuron.v_min is not None)
    if has_floor:
        changes["v_min"] = np.asarray(level + np.asarray(stored.v_min) / scales[name])
    changes = {name: np.asarray(value, neuron.r.dtype) for name, value in changes.items()}
    return replace(neuron, **changes)


def _read_frame_neuron(neuron: Any, stored: Any, scale: float) -> Any:
    """Return a neuron with the threshold and the constant input of Akida's whole numbers."""
    changes = {"v_leak": stored.v_leak / scale}
    if hasattr(neuron, "v_threshold"):
        changes["v_threshold"] = (stored.v_threshold + ABOVE) / scale
    return replace(neuron, **{name: np.asarray(value, neuron.r.dtype) for name, value in changes.items()})


def _read_times(neuron: Any, dt: float, mem: Array, syn: Array) -> dict[str, Array]:
    """Return the time constants of these factors of decay; the jump of a current stays as it is.

    A factor of 0 has none: the time constant stays that of the network, which is rounded to no decay again.
    """

    def find_tau(factor: Array, own: Array) -> Array:
        return np.where(factor > 0, dt / np.where(factor > 0, factor, 1.0), own)

    if isinstance(neuron, (CubaLIF, CubaLI)):
        tau_syn = find_tau(syn, neuron.tau_syn_s)
        return {
            "tau_mem_s": find_tau(mem, neuron.tau_mem_s),
            "tau_syn_s": tau_syn,
            "w_in": neuron.w_in * tau_syn / neuron.tau_syn_s,
        }
    return {"tau_s": find_tau(mem, neuron.tau_s)}


def _read_grids(
    inputs: NeuronInput, name: str, neuron: Any, synapse: Any, facts: Mapping[str, Any], scale: float
) -> dict[str, ValueGrid]:
    """Return the grids of a layer's weights and, where it has one, bias."""
    stored, bits = inputs.stored[name], facts.get("layer_bits", {}).get(name, facts["weight_bits"])
    if facts["format"] in rounded_weights.RULES:
        largest = rounded_weights.max_weight(facts["format"], facts["weight_bits"])
        return {"weight": ValueGrid(unit=np.asarray(1 / scale), low=-largest, high=largest)}
    if facts["format"] == akida.FORMAT:
        scaled = inputs.scale_synapses(inputs.factors["r"])[name]
        largest = akida.max_weight(bits)
        weight_factor, gain = scaled.factors
        grids = {"weight": ValueGrid(unit=1 / (scale * (weight_factor * gain)), low=-largest, high=largest)}
        if stored.bias is not None:
            per_bias = gain.reshape(-1) if gain.ndim else gain
            grids["bias"] = ValueGrid(unit=1 / (scale * per_bias * inputs.bias_factors[name]), low=-np.inf, high=np.inf)
        return grids
    gain, bias_gain = _read_gains(inputs, neuron)
    factors: Any = np.ones(())
    for factor in inputs.scale_synapses(gain)[name].factors:
        factors = factors * factor
    step, low, high = _read_format(facts["format"], bits, type(neuron))
    exponent = synapse.weight_exponent
    if isinstance(synapse, Scale) and facts["format"] == "loihi" and name in inputs.analogue:
        exponent = -GRADED_BITS  # its weights hold the shift
    unit = 2.0**exponent / (scale * factors)
    palette = _read_palette(np.asarray(synapse.weight)) if isinstance(neuron, TrueNorthLIF) else None
    grids = {"weight": ValueGrid(unit=unit, step=step, low=low, high=high, palette=palette)}
    if stored.bias is not None:
        _, per_bias = inputs.scale_synapses(bias_gain)[name].factors
        per_bias = per_bias if np.ndim(stored.bias) != 1 else per_bias.reshape(-1)
        added_later = synapse.bias is None  # to v, behind the means on the way
        means = 1.0 if added_later else inputs.bias_factors[name]
        limits = (low, high) if isinstance(neuron, SpeckIF) else (-np.inf, np.inf) if type(neuron) in HELD_BIAS else (0, 0)
        grids["bias"] = ValueGrid(unit=1 / (scale * per_bias * means), low=limits[0], high=limits[1])
    return grids


def _read_palette(weight: Array) -> Array:
    """Return the values of each output, 0 among them, (O, K); repeated where an output has fewer than others."""
    rows = [np.union1d(row, 0) for row in weight.reshape(len(weight), -1)]
    return np.stack([np.pad(row, (0, max(map(len, rows)) - len(row)), mode="edge") for row in rows]).astype(np.float64)


def _read_format(format: str, bits: int, neuron: type) -> tuple[int, int, int]:
    """Return the step between stored weights, the smallest and the largest one."""
    if format == "loihi":
        step, largest = weight_format(bits)
        return step, -step * largest, step * largest
    if neuron in (TrueNorthLIF, ReckonLIF, OdinLIF):
        largest = max_stored_weight(neuron, bits)
        return 1, -largest, largest
    half = 2 ** (bits - 1)
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
