"""Which integers go on Speck and DYNAP-CNN?

Each neuron layer gets one scale s: its 16-bit membrane potential is s times the floating-point one, measured from the level
(`Target.level`).

    weight       W ← round(s · r · W), 8 bits with a sign
    bias         b ← round(s · r · b), 8 bits with a sign; the chip adds it at the ticks of a slow clock, here once a step
    v_threshold  ← round(s · (v_threshold − level)), or the next whole number above it; 1..32767

The chip spikes where v reaches the threshold, a network where v exceeds it: the next number above says the same of whole numbers.
It is taken where reset is to a value. Where it is by subtraction it would take away too much, so it is taken only where v can
meet the threshold exactly, since weights and threshold lie on a common grid; with data, the one with the least error.

One threshold holds for a layer: where channels have thresholds of their own, their weights are divided by them instead. A mean
over a window becomes a sum, and the weights behind it take the factor. A dense layer stays one here; on the chip it is a
convolution whose kernel is the whole map, which computes the same. This is how sinabs scales a layer (`discretize_conv_spike`);
in addition s is chosen so that rounding, or with data the spikes, suffer least.

The chip's neurons only integrate: what leaks is refused. They send as many spikes a step as they are driven to, while the
floating-point ones send one at most and keep the rest: data that drive a layer so hard make the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.network import IF, Array, SpeckIF, Synapse
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.layer_error import UNKNOWN, Evidence, Verdict, driven, judged, several_spikes
from spear_deploy.quantize.weighted_inputs import Lowered, Target, assembled, made, ranked_scales, targets, whole
from spear_deploy.simulator import InputKind

MAX_THRESHOLD = 2**15 - 1
INPUT_LEVELS = 15
"""An analogue input is sent as up to this many events a step: the chip sets no limit, but each one costs its time."""
TRIED = 12
"""Scales tried on data: those with the least rounding error."""
ROUNDING = 1e-9
"""What a product in float64 may be off."""
NOTABLE = 0.02
"""Share by which a threshold may be rounded before it is told."""


def lower(
    graph: SNNGraph,
    *,
    bits: int,
    kind: InputKind,
    input_scale: float,
    room: Mapping[str, float],
    evidence: Evidence | None = None,
) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `targets.targets`.
        bits: of a signed weight, up to 8.
        kind, input_scale: of the input.
        room: by layer, a factor in 0..1 on the scale that the format would allow.
        evidence: a run of `graph`, which the scales are chosen on.

    Raises:
        UnsupportedError: a neuron that leaks or does not spike.
        QuantizationError: a threshold outside the format.
    """
    lowered: dict[str, Lowered] = {}
    facts: dict[str, Any] = {"format": "speck", "weight_bits": bits, "unit": 1, "scale": {}, "offset": {}, "findings": []}
    if kind == "current":
        facts["input_scale"] = input_scale
    for target in targets(graph, kind, input_scale):
        scale, lowered[target.name], verdict = _best(target, bits, room.get(target.name, 1.0), evidence)
        norm = _norm(target)
        if norm.size == 1:
            facts["scale"][target.name], facts["offset"][target.name] = scale / float(norm), float(np.mean(target.level))
        facts["findings"] += _findings(target, lowered[target.name], scale) + several_spikes(target, verdict)
    return assembled(graph, lowered, facts)


def _norm(target: Target) -> Array:
    """Return what weights and potentials are divided by: 1, or the thresholds where a layer has several.

    Raises:
        UnsupportedError: not an IF neuron.
        QuantizationError: a threshold that is not above the level.
    """
    if not isinstance(target.neuron, IF):
        model = type(target.neuron).__name__
        why = "does not spike" if target.readout else "leaks"
        raise UnsupportedError(
            f"layer '{target.name}': {model} {why}, Speck's neurons integrate and fire; use IF (a constant leak is a bias)"
        )
    if (target.threshold <= 0).any():
        low = float(target.threshold.min())
        raise QuantizationError(
            f"layer '{target.name}': v_threshold lies {low:g} above the reset, Speck's thresholds are above 0; raise it"
        )
    return np.ones(()) if np.ptp(target.threshold) == 0 else target.threshold


def _best(target: Target, bits: int, room: float, evidence: Evidence | None) -> tuple[float, Lowered, Verdict]:
    """Return the scale with the least error, in spikes if there is evidence, else in rounding; and what it gives."""
    norm = _norm(target)
    synapses = target.gained(target.f["r"] / norm)
    threshold = float((target.threshold / norm).max())
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = [s.weight for s in synapses.values()]
    values += [s.bias * target.behind[name] for name, s in synapses.items() if s.bias is not None]
    most = min([MAX_THRESHOLD / threshold, *(_fitting(value, low, high) for value in values)])
    shrink = np.arange(high, max(high // 2, 1), -1) / high if high > 1 else np.ones(1)
    grids = [(value, 1.0) for value in (*values, np.array(threshold))]
    scales = ranked_scales(grids, most, shrink) * room
    scales = scales[np.rint(scales * threshold) >= 1]
    if not len(scales):
        largest = max(float(np.abs(value).max()) for value in values)
        raise QuantizationError(
            f"layer '{target.name}': v_threshold {threshold:g} rounds to 0 beside weights and bias up to {largest:g} of {bits} "
            f"bits, Speck holds 1..{MAX_THRESHOLD}; raise it or bound the weights"
        )
    make = partial(_lowered, target, synapses, low, high)
    if evidence is None:
        return float(scales[0]), make(scales[0])[0], UNKNOWN
    best: tuple[float, Lowered, Verdict] | None = None
    for scale in scales[:TRIED]:
        each = make(scale)
        given = driven(evidence, target, each[0][0])
        for lowered in each:
            verdict = judged(evidence, target, given, lowered[1], scale)
            if best is None or verdict < best[2]:
                best = (float(scale), lowered, verdict)
    assert best is not None
    return best


def _fitting(value: Array, low: int, high: int) -> float:
    """Return the largest scale at which values fit low..high."""
    limits = [bound / extreme for bound, extreme in ((high, value.max()), (low, value.min())) if bound * extreme > 0]
    return float(min(limits, default=np.inf))


def _lowered(target: Target, synapses: Mapping[str, Any], low: int, high: int, scale: float) -> list[Lowered]:
    """Return the integers at a scale, with one or two thresholds; the better one, as far as can be told without data, first."""
    norm = _norm(target)
    found: dict[str, Synapse] = {}
    for name, synapse in synapses.items():
        bias = None if synapse.bias is None else whole(np.clip(np.rint(synapse.bias * scale * target.behind[name]), low, high))
        found[name] = replace(synapse, weight=np.clip(np.rint(synapse.weight * scale), low, high).astype(np.int32), bias=bias)
    start = whole(scale * (target.f["v_reset"] - target.level) / norm)
    threshold = scale * float((target.threshold / norm).max())
    nearest, above = round(threshold), min(int(np.floor(threshold + ROUNDING)) + 1, MAX_THRESHOLD)
    if target.neuron.reset == "value":
        thresholds = [above]
    else:
        met = abs(threshold - nearest) < ROUNDING and nearest % _grid(found, start) == 0
        thresholds = [above, nearest] if met else [nearest, above]

    def neuron(value: int) -> SpeckIF:
        return SpeckIF(v_threshold=np.array(value), v_init=start, reset=target.neuron.reset)

    return [(found, made(target.name, partial(neuron, value))) for value in dict.fromkeys(thresholds)]


def _grid(synapses: Mapping[str, Any], start: Array) -> int:
    """Return the largest number of which all that can be added to v is a multiple."""
    arrays = [start, *(array for s in synapses.values() for array in (s.weight, s.bias) if array is not None)]
    return int(np.gcd.reduce([int(np.gcd.reduce(np.abs(array), axis=None)) for array in arrays])) or 1


def _findings(target: Target, lowered: Lowered, scale: float) -> list[dict[str, Any]]:
    neuron = lowered[1]
    assert isinstance(neuron, SpeckIF)
    given = float((target.threshold / _norm(target)).max())
    stored = float(neuron.v_threshold) / scale
    if abs(stored / given - 1) <= NOTABLE:
        return []
    return [{"layer": target.name, "what": "v_threshold", "given": given, "stored": stored}]
