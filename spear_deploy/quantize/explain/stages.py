"""Networks between the trained one and the chip's integers.

One change at a time, in this order:

    trained ─► 64-bit ─► batch norm folded ─► means to sums ─► units of the chip ─► input ─► weights ─► decays ─► thresholds
            ─► biases ─► truncation ─► integers of 24 bits                                    (Loihi family)

    trained ─► 64-bit ─► batch norm folded ─► weights ─► input ─► thresholds ─► biases ─► decays ─► integers   (all others)

Where the network resets one step late, the chips' reset in the step of the spike is the stage behind the batch norm. Where
potentials take what differs between neurons that share weights (`even_neurons`), that stage comes before it.

Each is a network that the simulator runs, and the last is the integer network itself: the changes of all stages add up to the
whole difference. What a single stage changes depends on those before it, since a spike that is lost early cannot be lost again.
Where a Speck layer has thresholds by channel, which its weights take, the weights and all after them are one stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import WEIGHTED, Array, AvgPool, Layer, SparseMatrix, UnroundedLIF
from spear_deploy.network.delayed_reset import reset_in_same_step
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.even_neurons import even_neurons
from spear_deploy.quantize.explain.partial_networks import (
    find_units,
    has_scale_per_layer,
    is_loihi,
    replace_means_by_sums,
    scale_to_chip,
    stored_input_scale,
    substitute_stored_numbers,
)
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm
from spear_deploy.quantize.fuse_pools import fuse_pools
from spear_deploy.quantize.integer_layers import limit_spikes
from spear_deploy.quantize.network import quantize_input
from spear_deploy.quantize.weighted_inputs import collect_neuron_inputs
from spear_deploy.simulator import InputKind


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One network of the chain.

    Attributes:
        name: of the change that turns the network before it into this one.
        what: the change in a sentence.
        graph, x: what runs, on (T, B, *input).
        dtype: type of a floating-point run.
        units: by layer, (factor, level): a potential of the trained network is v / factor + level.
        changed: whether network or input differ from those of the stage before at all.
    """

    name: str
    what: str
    graph: SNNGraph
    x: Array
    dtype: type = np.float64
    units: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    changed: bool = True


def build_stages(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind = "spikes") -> list[Stage]:
    """Return the chain of networks.

    Args:
        graph: the floating-point network as stored.
        integer: the same network quantized.
        x: (T, B, *input) as the trained network takes it.
        kind: of `x`.
    """
    folded = fold_batchnorm(graph)
    format = integer.metadata.get("quantization", {}).get("format", "loihi")
    evened = even_neurons(folded, format)
    prepared = add_missing_weights(evened)
    prepared = fuse_pools(prepared) if format == "spinnaker" else prepared
    has_norm = any(layer.norm is not None for layer in graph.layers)
    what = "batch norm becomes weights and biases" if has_norm else "there is no batch norm"
    factors = {
        layer.name: layer.neuron.r / np.asarray(folded[layer.name].neuron.r, np.float64)  # type: ignore[union-attr]
        for layer in evened.layers
        if layer.neuron is not folded[layer.name].neuron
    }
    sentence = "potentials take what differs between neurons that share weights"
    scaled = [Stage(name="potentials", what=sentence, graph=prepared, x=x)] if factors else []
    moved = reset_in_same_step(prepared)
    sentence = "the threshold is subtracted in the step of the spike, no longer one step late"
    reset = [] if moved is prepared else [Stage(name="reset", what=sentence, graph=moved, x=x)]
    limited = limit_spikes(moved, integer)
    sentence = "neurons send no more spikes in a step than the chip's"
    reset += [] if limited is moved else [Stage(name="max_spikes", what=sentence, graph=limited, x=x)]
    lowering = _loihi_stages if is_loihi(integer) else _event_chip_stages if integer.is_integer else _rounded_stages
    later = _undo_scaling([*scaled, *reset, *lowering(limited, integer, x, kind)], factors)
    return [
        Stage(name="trained", what="the network as stored, in 32 bits", graph=graph, x=x, dtype=np.float32),
        Stage(name="arithmetic", what="64-bit floating point instead of 32-bit", graph=graph, x=x),
        Stage(name="batch_norm", what=what, graph=add_missing_weights(folded), x=x, changed=has_norm),
        *later,
    ]


def _undo_scaling(stages: list[Stage], factors: Mapping[str, Array]) -> list[Stage]:
    """Return stages whose units lead to the trained network, before its potentials took factors by layer."""
    if not factors:
        return stages
    read: dict[int, dict[str, tuple[Any, Any]]] = {}  # stages that share their units go on sharing them
    for units in {id(stage.units): stage.units for stage in stages}.values():
        taken = {name: units.get(name, (1.0, 0.0)) for name in factors}
        read[id(units)] = {**units, **{n: (unit * factors[n], level / factors[n]) for n, (unit, level) in taken.items()}}
    return [replace(stage, units=read[id(stage.units)]) for stage in stages]


def _rounded_stages(graph: SNNGraph, rounded: SNNGraph, x: Array, kind: InputKind) -> Iterator[Stage]:
    """Yield the only stage of a chip whose states are no integers."""
    yield Stage(name="weights", what="weights become those that the chip stores", graph=rounded, x=x)


def _event_chip_stages(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind) -> Iterator[Stage]:
    sent = quantize_input(integer, x, kind)
    if has_scale_per_layer(graph, integer, kind):
        before = substitute_stored_numbers(graph, integer, kind)
        yield _stored_stage("weights", graph, before, x)
        float_sent = sent if sent is x else sent / stored_input_scale(integer)
        moved = sent is not x and not np.array_equal(float_sent, x)
        what = "values become numbers of events" if moved else "the input is whole numbers already"
        yield Stage(name="input", what=what, graph=before, x=float_sent, changed=moved)
        parts: dict[str, bool] = {}
        for name in ("thresholds", "biases", "decays"):
            parts[name] = True
            after = substitute_stored_numbers(graph, integer, kind, **parts)
            yield _stored_stage(name, before, after, float_sent)
            before = after
    what = "states become integers, and neurons act in the chip's own order"
    if integer.metadata.get("quantization", {}).get("format") in ("speck", "xylo"):
        what = (
            "states become integers of 16 bits that start at 0, biases reach v at once, a neuron may send several spikes a step"
        )
    neuron_inputs = collect_neuron_inputs(graph, kind, stored_input_scale(integer))
    yield Stage(name="integers", what=what, graph=integer, x=sent, units=find_units(neuron_inputs, integer))


def _stored_stage(name: str, before: SNNGraph, after: SNNGraph, x: Array) -> Stage:
    changed = _differ(before, after)
    what = f"{name} become those that the chip stores" if changed else f"{name} are those that the chip stores"
    return Stage(name=name, what=what, graph=after, x=x, changed=changed)


def _loihi_stages(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind) -> Iterator[Stage]:
    sums, in_chip_units = replace_means_by_sums(graph, kind), scale_to_chip(graph, integer, kind)
    has_mean = any(isinstance(layer.synapse, AvgPool) for layer in graph.layers)
    what = "means over windows become sums" if has_mean else "there is no average pool"
    yield Stage(name="average_pool", what=what, graph=sums, x=x, changed=has_mean)

    units = find_units(collect_neuron_inputs(graph, kind, 1.0), integer)
    sent = quantize_input(integer, x, kind)
    scaled = x if sent is x else np.asarray(x, np.float64) * stored_input_scale(integer)
    yield Stage(name="scale", what="one scale a layer: the units of the chip", graph=in_chip_units, x=scaled, units=units)
    moved = sent is not x and not np.array_equal(scaled, sent)
    what = "the current becomes graded spikes" if moved else "the input is whole numbers already"
    yield Stage(name="input", what=what, graph=in_chip_units, x=sent, units=units, changed=moved)

    before = in_chip_units
    for name, round_layer, numbers in _ROUNDINGS:
        after = before.with_layers({layer.name: round_layer(layer, integer[layer.name]) for layer in before.layers})
        changed = _differ(before, after)
        what = f"{numbers} become integers" if changed else f"{numbers} were integers already"
        yield Stage(name=name, what=what, graph=after, x=sent, units=units, changed=changed)
        before = after
    what = "states lose their fraction in each decay"
    yield Stage(name="truncation", what=what, graph=before.with_layers(_truncate_states), x=sent, units=units)
    shifted = any(layer.synapse.weight_exponent < 0 for layer in integer.layers if isinstance(layer.synapse, WEIGHTED))
    what = "sums are shifted down, and states have 24 bits" if shifted else "states have 24 bits: u wraps, v saturates"
    yield Stage(name="state_bits", what=what, graph=integer, x=sent, units=units)


def _differ(a: SNNGraph, b: SNNGraph) -> bool:
    """Say whether two networks of the same layers hold different numbers; a bias of 0 is no bias."""
    pairs = [parts for p, q in zip(a.layers, b.layers, strict=True) for parts in ((p.synapse, q.synapse), (p.neuron, q.neuron))]
    return any(type(part) is not type(other) or not _equal(part, other) for part, other in pairs)


def _equal(a: Any, b: Any) -> bool:
    for part in fields(a) if is_dataclass(a) else ():
        value, other = (0 if number is None else number for number in (getattr(a, part.name), getattr(b, part.name)))
        if isinstance(value, SparseMatrix) and isinstance(other, SparseMatrix):
            same: Any = np.array_equal(value, other)
        else:
            same = value == other
        if not (same.all() if isinstance(same, np.ndarray) else same):
            return False
    return True


# ------------------------------------------------------------------------------------------- rounding of Loihi's layers


def _round_weights(layer: Layer, integer: Layer) -> Layer:
    synapse: Any = integer.synapse
    if not isinstance(synapse, WEIGHTED):
        return layer
    weight = synapse.weight.astype(np.float64) * 2.0**synapse.weight_exponent
    return replace(layer, synapse=replace(layer.synapse, weight=weight))  # type: ignore[type-var]


def _round_decays(layer: Layer, integer: Layer) -> Layer:
    return _round_neuron(layer, integer, "decay_u", "decay_v")


def _round_thresholds(layer: Layer, integer: Layer) -> Layer:
    return _round_neuron(layer, integer, "v_threshold", "v_reset")


def _round_biases(layer: Layer, integer: Layer) -> Layer:
    rounded = _round_neuron(layer, integer, "bias", "v_init")
    synapse: Any = integer.synapse
    if not isinstance(synapse, WEIGHTED):
        return rounded
    bias = None if synapse.bias is None else synapse.bias.astype(np.float64)
    return replace(rounded, synapse=replace(rounded.synapse, bias=bias))  # type: ignore[type-var]


def _round_neuron(layer: Layer, integer: Layer, *names: str) -> Layer:
    """Return the layer with some numbers of the integer neuron in its floating-point neuron."""
    if not isinstance(layer.neuron, UnroundedLIF):
        return layer
    values: dict[str, Any] = {name: getattr(integer.neuron, name) for name in names}
    values = {name: None if value is None else value.astype(np.float64) for name, value in values.items()}
    return replace(layer, neuron=replace(layer.neuron, **values))


def _truncate_states(layer: Layer) -> Layer:
    return layer if not isinstance(layer.neuron, UnroundedLIF) else replace(layer, neuron=replace(layer.neuron, truncates=True))


_ROUNDINGS: tuple[tuple[str, Callable[[Layer, Layer], Layer], str], ...] = (
    ("weights", _round_weights, "weights"),
    ("decays", _round_decays, "decays"),
    ("thresholds", _round_thresholds, "thresholds"),
    ("biases", _round_biases, "biases and starting states"),
)
