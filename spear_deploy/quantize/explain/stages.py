"""Which networks lie between the trained one and the chip's integers? One change at a time, in a stated order.

    trained ─► 64-bit ─► batch norm folded ─► means to sums ─► units of the chip ─► input ─► weights ─► decays ─► thresholds
            ─► biases ─► truncation ─► integers of 24 bits                                    (Loihi family)

Each is a network that the simulator runs, and the last is the integer network itself: what the steps change adds up to the
whole difference. What a single step changes depends on those before it, since a spike that is lost early cannot be lost again.
    trained ─► 64-bit ─► batch norm folded ─► weights ─► input ─► thresholds ─► biases ─► decays ─► integers   (Speck, Xylo)

Where a Speck layer has thresholds by channel, which its weights take, the weights and all after them are one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import WEIGHTED, Array, AvgPool, Layer, UnroundedLIF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.partial_networks import (
    input_scale_of,
    is_loihi,
    partly_stored,
    scales_known,
    units,
    unrounded,
    with_sums,
)
from spear_deploy.quantize.fold import fold_batchnorm, with_weights_everywhere
from spear_deploy.quantize.network import graded
from spear_deploy.quantize.weighted_inputs import targets
from spear_deploy.simulator import InputKind


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One network of the chain.

    Attributes:
        name: of the change that made it of the one before.
        what: the change in a sentence.
        graph, x: what runs, on (T, B, *input).
        dtype: type of a floating-point run.
        units: by layer, (factor, level): a potential of the trained network is v / factor + level.
        changed: whether network or input differ from those of the step before at all.
    """

    name: str
    what: str
    graph: SNNGraph
    x: Array
    dtype: type = np.float64
    units: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    changed: bool = True


def steps(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind = "spikes") -> list[Step]:
    """Return the chain of networks.

    Args:
        graph: the floating-point network as stored.
        integer: what the quantiser made of it.
        x: (T, B, *input) as the trained network takes it.
        kind: of `x`.
    """
    found = [
        Step(name="trained", what="the network as stored, in 32 bits", graph=graph, x=x, dtype=np.float32),
        Step(name="arithmetic", what="64-bit floating point instead of 32-bit", graph=graph, x=x),
    ]
    prepared = with_weights_everywhere(fold_batchnorm(graph))
    normed = any(layer.norm is not None for layer in graph.layers)
    what = "batch norm becomes weights and biases" if normed else "there is no batch norm"
    found.append(Step(name="batch_norm", what=what, graph=prepared, x=x, changed=normed))
    if is_loihi(integer):
        return [*found, *_loihi_steps(prepared, integer, x, kind)]
    return [*found, *_event_steps(prepared, integer, x, kind)]


def _event_steps(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind) -> Iterator[Step]:
    sent, known = graded(integer, x, kind), units(targets(graph, kind, input_scale_of(integer)), integer)
    if scales_known(graph, integer, kind):
        before = partly_stored(graph, integer, kind)
        yield _stored("weights", graph, before, x)
        given = sent if sent is x else sent / input_scale_of(integer)
        moved = sent is not x and not np.array_equal(given, x)
        what = "values become numbers of events" if moved else "the input is whole numbers already"
        yield Step(name="input", what=what, graph=before, x=given, changed=moved)
        parts: dict[str, bool] = {}
        for name in ("thresholds", "biases", "decays"):
            parts[name] = True
            after = partly_stored(graph, integer, kind, **parts)
            yield _stored(name, before, after, given)
            before = after
    what = "states become integers of 16 bits that start at 0, biases reach v at once, a neuron may send several spikes a step"
    yield Step(name="integers", what=what, graph=integer, x=sent, units=known)


def _stored(name: str, before: SNNGraph, after: SNNGraph, x: Array) -> Step:
    changed = _differ(before, after)
    what = f"{name} become those that the chip stores" if changed else f"{name} are those that the chip stores"
    return Step(name=name, what=what, graph=after, x=x, changed=changed)


def _loihi_steps(graph: SNNGraph, integer: SNNGraph, x: Array, kind: InputKind) -> Iterator[Step]:
    sums, real = with_sums(graph, kind), unrounded(graph, integer, kind)
    pools = any(isinstance(layer.synapse, AvgPool) for layer in graph.layers)
    what = "means over windows become sums" if pools else "there is no average pool"
    yield Step(name="average_pool", what=what, graph=sums, x=x, changed=pools)

    known = units(targets(graph, kind, 1.0), integer)
    sent = graded(integer, x, kind)
    given = x if sent is x else np.asarray(x, np.float64) * input_scale_of(integer)
    yield Step(name="scale", what="one scale a layer: the units of the chip", graph=real, x=given, units=known)
    moved = sent is not x and not np.array_equal(given, sent)
    what = "the current becomes graded spikes" if moved else "the input is whole numbers already"
    yield Step(name="input", what=what, graph=real, x=sent, units=known, changed=moved)

    before = real
    for name, change, numbers in _ROUNDINGS:
        after = before.with_layers({layer.name: change(layer, integer[layer.name]) for layer in before.layers})
        changed = _differ(before, after)
        what = f"{numbers} become integers" if changed else f"{numbers} were integers already"
        yield Step(name=name, what=what, graph=after, x=sent, units=known, changed=changed)
        before = after
    what = "states lose their fraction in each decay"
    yield Step(name="truncation", what=what, graph=before.with_layers(_truncating), x=sent, units=known)
    shifted = any(layer.synapse.weight_exponent < 0 for layer in integer.layers if isinstance(layer.synapse, WEIGHTED))
    what = "sums are shifted down, and states have 24 bits" if shifted else "states have 24 bits: u wraps, v saturates"
    yield Step(name="state_bits", what=what, graph=integer, x=sent, units=known)


def _differ(a: SNNGraph, b: SNNGraph) -> bool:
    """Say whether two networks of the same layers hold different numbers; a bias of 0 is no bias."""
    return any(
        type(one) is not type(other) or not _equal(one, other)
        for p, q in zip(a.layers, b.layers, strict=True)
        for one, other in ((p.synapse, q.synapse), (p.neuron, q.neuron))
    )


def _equal(a: Any, b: Any) -> bool:
    for part in fields(a) if is_dataclass(a) else ():
        one, other = (0 if value is None else value for value in (getattr(a, part.name), getattr(b, part.name)))
        same = one == other
        if not (same.all() if isinstance(same, np.ndarray) else same):
            return False
    return True


def _with_weights(layer: Layer, integer: Layer) -> Layer:
    synapse: Any = integer.synapse
    if not isinstance(synapse, WEIGHTED):
        return layer
    weight = synapse.weight.astype(np.float64) * 2.0**synapse.weight_exponent
    return replace(layer, synapse=replace(layer.synapse, weight=weight))  # type: ignore[type-var]


def _with_decays(layer: Layer, integer: Layer) -> Layer:
    return _with_neuron(layer, integer, "decay_u", "decay_v")


def _with_thresholds(layer: Layer, integer: Layer) -> Layer:
    return _with_neuron(layer, integer, "v_threshold", "v_reset")


def _with_biases(layer: Layer, integer: Layer) -> Layer:
    changed = _with_neuron(layer, integer, "bias", "v_init")
    synapse: Any = integer.synapse
    if not isinstance(synapse, WEIGHTED):
        return changed
    bias = None if synapse.bias is None else synapse.bias.astype(np.float64)
    return replace(changed, synapse=replace(changed.synapse, bias=bias))  # type: ignore[type-var]


def _with_neuron(layer: Layer, integer: Layer, *names: str) -> Layer:
    if not isinstance(layer.neuron, UnroundedLIF):
        return layer
    taken: dict[str, Any] = {name: getattr(integer.neuron, name) for name in names}
    taken = {name: None if value is None else value.astype(np.float64) for name, value in taken.items()}
    return replace(layer, neuron=replace(layer.neuron, **taken))


def _truncating(layer: Layer) -> Layer:
    return layer if not isinstance(layer.neuron, UnroundedLIF) else replace(layer, neuron=replace(layer.neuron, truncates=True))


_ROUNDINGS = (
    ("weights", _with_weights, "weights"),
    ("decays", _with_decays, "decays"),
    ("thresholds", _with_thresholds, "thresholds"),
    ("biases", _with_biases, "biases and starting states"),
)
