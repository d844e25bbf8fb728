"""Which shift and which scale suit the layers of a Xylo network?

The states want large numbers, since a shift by `dash` rounds, and below 2^dash decays by 1 a step; but they clip at 16 bits.
Without data the shift is the largest at which one spike of every input fits; with data the one with the least error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError
from spear_deploy.network import Array, Dense, Neuron, Synapse, XyloLIF
from spear_deploy.quantize.layer_error import UNKNOWN, Evidence, Verdict, driven, judged
from spear_deploy.quantize.weighted_inputs import Lowered, Target, made, ranked_scales, whole

MAX_STATE = 2**15 - 1
ROUNDING = 1e-9
"""What a product in float64 may be off."""
MAX_SHIFT = 7
"""Shifts that keep an 8-bit weight within 16 bits, with a bit to spare."""
TRIED = 3
"""Scales tried on data for each shift: those with the least rounding error."""
HALVINGS = 6
"""Of the largest scale, where it clips on data even without a shift."""
GAINS = (1.0, 1.1, 0.9, 1.2, 0.8, 1.35, 0.7, 1.5)
"""Factors on weights against threshold tried on data where the chip's time constants are not the layer's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What is settled of a layer before its scale is: shifts for decays, and the weights as they drive v."""

    target: Target
    dash_mem: Array
    dash_syn: Array
    synapses: Mapping[str, Any]
    bias: Array
    max_spikes: int
    findings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Integers of a layer, and what they were chosen by."""

    scale: float
    shift: int
    lowered: Lowered
    gain: float
    verdict: Verdict


def chosen(group: Sequence[Plan], bits: int, room: Mapping[str, float], evidence: Evidence | None) -> Sequence[Choice]:
    """Choose the shift that layers have in common, and the scale of each.

    Raises:
        QuantizationError: a threshold that rounds to 0 at every shift.
    """
    possible: list[list[Choice]] = []
    for shift in range(MAX_SHIFT, -1, -1):
        choices = [_best(plan, bits, shift, room.get(plan.target.name, 1.0), None) for plan in group]
        for plan, choice in zip(group, choices, strict=True):
            if choice is None and shift == MAX_SHIFT:
                threshold = float(plan.target.threshold.min())
                raise QuantizationError(
                    f"layer '{plan.target.name}': v_threshold {threshold:g} rounds to 0 where its weights take {bits} bits, "
                    f"Xylo holds 1..{MAX_STATE}; raise it or bound the weights"
                )
        if all(choice is not None for choice in choices):
            possible.append([choice for choice in choices if choice is not None])
    roomy = [choices for choices in possible if all(_has_room(choice, 2 ** (bits - 2)) for choice in choices)]
    first = (roomy or possible[-1:])[0]
    if evidence is None or not group:
        return first
    tried = []
    for one in sorted(possible, key=lambda one: one is not first):
        each = [_best(p, bits, c.shift, room.get(p.target.name, 1.0), evidence) for p, c in zip(group, one, strict=True)]
        tried.append([choice for choice in each if choice is not None])
    return min(tried, key=lambda choices: (sum(c.verdict.clips for c in choices), sum(c.verdict.error for c in choices)))


def _has_room(choice: Choice, least: int) -> bool:
    """Say whether weights use their bits, and states theirs without clipping.

    Some stored weight is at least `least`, one spike of every input keeps the current within 16 bits, and the threshold lies in
    the lower half.
    """
    synapses, neuron = choice.lowered
    assert isinstance(neuron, XyloLIF)
    stored = [np.abs(s.weight.astype(np.int64)) for s in synapses.values() if isinstance(s, Dense)]
    arriving = sum(weight.sum(axis=1) << choice.shift for weight in stored)
    threshold = 0 if neuron.v_threshold is None else int(neuron.v_threshold.max())
    used = max(int(weight.max()) for weight in stored) >= least
    return bool(used and np.max(arriving) <= MAX_STATE and threshold <= MAX_STATE // 2)


def _best(plan: Plan, bits: int, shift: int, room: float, evidence: Evidence | None) -> Choice | None:
    """Return the scale of a layer at a shift: the least error, in spikes if there is evidence, else in rounding.

    None where a threshold rounds to 0 at every scale.
    """
    high = 2 ** (bits - 1) - 1
    scales = _scales(plan, high, shift, known=evidence is not None) * room
    if not plan.target.readout:
        scales = scales[[bool((np.rint(scale / max(GAINS) * plan.target.threshold) >= 1).all()) for scale in scales]]
    best: Choice | None = None
    for number, scale in enumerate(scales):
        if best is not None and (evidence is None or (number >= TRIED and not best.verdict.clips)):
            break
        choice = _choice(plan, float(scale), shift, high, (1.0,), evidence)
        best = choice if best is None or choice.verdict < best.verdict else best
    if best is None or evidence is None or best.verdict.clips == 2 or plan.target.readout or not plan.findings:
        return best
    return _choice(plan, best.scale, shift, high, GAINS, evidence)


def _choice(plan: Plan, scale: float, shift: int, high: int, gains: Sequence[float], evidence: Evidence | None) -> Choice:
    """Return the integers at a scale, with the gain that has the least error; the first one without evidence."""
    synapses = _synapses(plan, scale, shift, high)
    found = [(gain, _neuron(plan, scale, gain)) for gain in gains]
    if evidence is None:
        verdicts = [UNKNOWN for _ in found]
    else:
        given = driven(evidence, plan.target, synapses)
        verdicts = [judged(evidence, plan.target, given, neuron, scale) for _, neuron in found]
    number = min(range(len(found)), key=lambda n: verdicts[n])
    gain, neuron = found[number]
    return Choice(scale=scale, shift=shift, lowered=(synapses, neuron), gain=gain, verdict=verdicts[number])


def _scales(plan: Plan, high: int, shift: int, *, known: bool) -> Array:
    """Return the scales that fit weights, threshold and bias, those with the least rounding error first.

    Where no data tell how far a readout goes (`known`), it must hold a spike of every input in every step. At the end stand
    halves of the largest scale, for states that clip even without a shift.
    """
    weights = [synapse.weight for synapse in plan.synapses.values()]
    levels = np.zeros(1) if plan.target.readout else plan.target.threshold
    largest = max(float(np.abs(weight).max()) for weight in weights)
    reach = _reach(plan) if plan.target.readout and not known else np.zeros(1)
    limits = [MAX_STATE / float(v.max()) for v in (np.abs(levels), np.abs(plan.bias), reach) if v.max() > 0]
    most = min([*limits, high * 2.0**shift / largest if largest else np.inf])
    most = most if np.isfinite(most) else 1.0
    shrink = np.arange(high, max(high // 2, 1), -1) / high if high > 1 else np.ones(1)
    grids = [*((weight, 2.0**shift) for weight in weights), (levels, 1.0)]
    ranked = ranked_scales(grids, most, shrink)
    return np.concatenate([ranked[:TRIED], most * 2.0 ** -np.arange(1, HALVINGS)]) if known and not shift else ranked


def _reach(plan: Plan) -> Array:
    """Return how far v goes where all exciting or all inhibiting inputs send a spike in every step: (neurons,)."""
    total: Array = np.zeros(1)
    for sign in (1, -1):
        each_step: Array = np.maximum(sign * plan.bias, 0)
        for synapse in plan.synapses.values():
            each_step = each_step + np.maximum(sign * synapse.weight, 0).sum(axis=1) * (2.0**plan.dash_syn - 1)
        total = np.maximum(total, each_step * 2.0**plan.dash_mem)
    return total


def _synapses(plan: Plan, scale: float, shift: int, high: int) -> dict[str, Synapse]:
    found: dict[str, Synapse] = {}
    for name, synapse in plan.synapses.items():
        weight = np.clip(np.rint(synapse.weight * scale / 2.0**shift), -high - 1, high).astype(np.int32)
        found[name] = replace(synapse, weight=weight, bias=None, weight_exponent=shift)
    return found


def _neuron(plan: Plan, scale: float, gain: float) -> Neuron:
    """Return the integer neuron; a gain on the weights is had by a lower threshold and bias."""
    target = plan.target
    threshold = None if target.readout else np.floor(scale / gain * target.threshold + ROUNDING) + 1
    return made(
        target.name,
        lambda: XyloLIF(
            dash_mem=plan.dash_mem,
            dash_syn=plan.dash_syn,
            v_threshold=None if threshold is None else whole(np.minimum(threshold, MAX_STATE)),
            bias=whole(np.clip(scale / gain * plan.bias, -MAX_STATE - 1, MAX_STATE)),
            max_spikes=plan.max_spikes,
        ),
    )
