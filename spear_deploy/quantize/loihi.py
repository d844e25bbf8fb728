"""Which integers go on a chip of the Loihi family?

Each neuron layer gets one scale s: its integer membrane potential is 64 · s times the floating-point one, measured from
the level (`Target.level`). With the factors of `neurons.factors` (mem = dt / tau_mem, ...) a layer becomes

    weight       W ← s · g · W       g = r (IF), mem · r (LIF), jump · mem · r (CubaLIF); `weight_bits` and a sign
    v_threshold  ← round(s · (v_threshold − level))
    decay_v      ← round(4096 · mem);  decay_u ← round(4096 · syn), or 4096 where there is no current
    bias         ← 64 · round(s · (mem · (v_leak − level) + g · b));  with a current, g · b goes into u instead

Stored weights are even numbers of −256..254: Loihi keeps 8 bits and a sign for a list of mixed signs by dropping the lowest.
A bias is a multiple of 64, the unit of the weights, although the chip could hold finer ones: netx files cannot, and finer ones
leave 3 % fewer spikes that differ.

An analogue input is sent as graded spikes of 8 bits, and the sums of the weights behind it are shifted down, by 8 bits where
there are no data. A shift by less leaves more of each sum, in a state of 24 bits that must not overflow: on data the shift with
the least error is taken. (Adding half a unit to what is shifted down helps less, and drives neurons that nothing reaches.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import QuantizationError
from spear_deploy.network import IF, LOIHI_UNIT, READOUTS, Array, CubaLI, CubaLIF, LoihiLIF, Synapse
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.layer_error import UNKNOWN, Evidence, Verdict, driven, judged
from spear_deploy.quantize.weighted_inputs import Lowered, Target, assembled, ranked_scales, targets, whole
from spear_deploy.simulator import InputKind

MAX_THRESHOLD = 2**17 - 1
MAX_BIAS_MANTISSA = 2**12 - 1
MAX_BIAS_EXPONENT = 7
BIAS_EXPONENT = 6
GRADED_BITS = 8
"""An analogue input is sent as graded spikes of this many bits, and the weights behind it are shifted back by at most as many."""
MOST_GRADED = 2**GRADED_BITS - 1
MOST_ARRIVING = 2**24
"""What graded spikes may bring in a step, were all at their most: half of what Lava's 32-bit numbers hold."""
TRIED = 3
"""Scales tried on data: those with the least rounding error."""
BEYOND = (1.1, 1.25, 1.5, 2.0)
"""Factors on the largest scale tried on data as well: a few large weights are clipped there, and all others are rounded less."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Integers of a layer, and what they were chosen by.

    Attributes:
        scale, shift: s, and the bits by which sums of graded spikes are shifted down.
        headroom: what the scale is of the one that the format would allow.
        lowered: the integers.
        verdict: on data.
    """

    scale: float
    shift: int
    headroom: float
    lowered: Lowered
    verdict: Verdict


def lower(
    graph: SNNGraph,
    *,
    bits: int,
    kind: InputKind,
    input_scale: float,
    room: Mapping[str, float],
    most: Mapping[str, float] | None = None,
    evidence: Evidence | None = None,
) -> SNNGraph:
    """Return the integer network.

    Args:
        graph: see `targets.targets`.
        bits: of a signed weight.
        kind, input_scale: of the input.
        room: by layer, a factor in 0..1 on the scale that the format would allow.
        most: by layer, the largest scale at which its state is known not to overflow.
        evidence: a run of `graph`, which shifts and scales are chosen on.
    """
    found: dict[str, Choice] = {}
    offsets: dict[str, float] = {}
    for target in targets(graph, kind, input_scale):
        limit = (most or {}).get(target.name, np.inf)
        found[target.name] = _chosen(target, bits, room.get(target.name, 1.0), limit, evidence)
        offsets[target.name] = float(np.mean(target.level))
    facts: dict[str, Any] = {"format": "loihi", "weight_bits": bits, "unit": LOIHI_UNIT}
    facts["scale"] = {name: choice.scale for name, choice in found.items()}
    facts |= {"offset": offsets, "headroom": {name: choice.headroom for name, choice in found.items()}}
    if kind == "current":
        facts["input_scale"] = input_scale
    return assembled(graph, {name: choice.lowered for name, choice in found.items()}, facts)


def _chosen(target: Target, bits: int, room: float, limit: float, evidence: Evidence | None) -> Choice:
    """Return the integers with the least error: in spikes if there is evidence, else in rounding."""
    best: Choice | None = None
    for shift in range(GRADED_BITS, 0, -1) if target.graded and evidence is not None else (GRADED_BITS,):
        choice = next(_choices(target, bits, shift, room, limit, evidence))
        if best is not None and (choice.scale <= best.scale or _arriving(choice) > MOST_ARRIVING):
            break
        if best is None or choice.verdict < best.verdict:
            best = choice
        if choice.verdict.clips:
            break
    assert best is not None
    if evidence is None:
        return best
    return min(_choices(target, bits, best.shift, room, limit, evidence), key=lambda choice: choice.verdict)


def _choices(target: Target, bits: int, shift: int, room: float, limit: float, evidence: Evidence | None) -> Iterator[Choice]:
    """Yield the integers at the scales with the least rounding error, that one first."""
    allowed, scales = _scales(target, bits, shift, room, limit, known=evidence is not None)
    for scale in scales:
        synapses, neuron = _synapses(target, scale, shift, bits), _neuron(target, scale)
        verdict = UNKNOWN
        if evidence is not None:
            given = driven(evidence, target, synapses, one_by_one=False)
            verdict = judged(evidence, target, given, neuron, scale=LOIHI_UNIT * scale)
        headroom = min(1.0, room, limit / allowed)
        yield Choice(scale=float(scale), shift=shift, headroom=headroom, lowered=(synapses, neuron), verdict=verdict)


def _arriving(choice: Choice) -> float:
    """Return what graded spikes bring to a neuron in a step, were all at their most, borders aside."""
    synapses: Mapping[str, Any] = choice.lowered[0]
    graded = [s for s in synapses.values() if s.weight_exponent]
    reach = sum(float(np.abs(s.weight.reshape(len(s.weight), -1)).sum(axis=1).max()) for s in graded)
    return reach * MOST_GRADED / 2.0**choice.shift


def _has_current(target: Target) -> bool:
    return isinstance(target.neuron, (CubaLIF, CubaLI))


def _mem(target: Target) -> Array:
    return target.f.get("mem", np.zeros(()))


def _float_synapses(target: Target, shift: int) -> dict[str, Any]:
    """Return the effective synapses: gain and the shift of graded input are in them."""
    unit = np.ones(()) if isinstance(target.neuron, IF) else _mem(target)
    found = target.gained(target.f["r"] * unit * target.f.get("jump", np.ones(())))
    return {name: replace(s, weight=s.weight * 2.0**shift) if name in target.graded else s for name, s in found.items()}


def _float_bias(target: Target) -> Array:
    """Return what is added to v per step, in units of v: leak, and the synapses' bias where there is no current."""
    bias = _mem(target) * (target.f["v_leak"] - target.level) if "v_leak" in target.f else np.zeros(())
    if not _has_current(target):
        for name, synapse in _float_synapses(target, 0).items():
            if synapse.bias is not None:
                bias = bias + target.spread(name, synapse)
    return np.asarray(bias, np.float64)


def _scales(target: Target, bits: int, shift: int, room: float, limit: float, *, known: bool) -> tuple[float, Array]:
    """Return the largest scale that the format allows, and those to try.

    These use at least half of the weight format and have the least rounding error, that one first; with data (`known`) some
    that clip the largest weights follow.
    """
    weights = np.abs(np.concatenate([s.weight.ravel() for s in _float_synapses(target, shift).values()]))
    step, high = weight_format(bits)
    others = min([found for found in (_threshold_limit(target), _bias_limit(target)) if found], default=np.inf)
    largest = float(weights.max())
    allowed = min(step * high / largest if largest else 1.0, others)
    most = min(allowed * room, limit)
    if not largest:
        return allowed, np.array([most])
    levels = np.zeros(1) if target.readout else target.threshold
    ranked = ranked_scales([(weights, step), (levels, 1)], most, np.arange(high, high // 2, -1) / high)[:TRIED]
    beyond = [most * factor for factor in BEYOND if known and most * factor <= min(others, limit)]
    return allowed, np.append(ranked, beyond)


def _threshold_limit(target: Target) -> float | None:
    if target.readout:
        return None
    if (target.threshold < 0).any():
        raise QuantizationError(f"layer '{target.name}': v_threshold is below v_reset, the neuron would never rest; check them")
    return MAX_THRESHOLD / float(target.threshold.max()) if target.threshold.max() > 0 else None


def _bias_limit(target: Target) -> float | None:
    bias = float(np.abs(_float_bias(target)).max())
    return MAX_BIAS_MANTISSA * 2**MAX_BIAS_EXPONENT / (LOIHI_UNIT * bias) if bias else None


def _synapses(target: Target, scale: float, shift: int, bits: int) -> dict[str, Synapse]:
    step, limit = weight_format(bits)
    found: dict[str, Synapse] = {}
    for name, synapse in _float_synapses(target, shift).items():
        bias = None
        if synapse.bias is not None and _has_current(target):
            bias = whole(synapse.bias * (scale * target.behind[name]))
        weight = (step * np.clip(np.rint(synapse.weight * scale / step), -limit, limit)).astype(np.int32)
        exponent = -shift if name in target.graded else 0
        found[name] = replace(synapse, weight=weight, bias=bias, weight_exponent=exponent)
    return found


def _neuron(target: Target, scale: float) -> LoihiLIF:
    bias = scale * _float_bias(target)
    exponent = BIAS_EXPONENT if np.abs(np.rint(bias)).max() <= MAX_BIAS_MANTISSA else MAX_BIAS_EXPONENT
    start = target.f["v_reset" if isinstance(target.neuron, IF) else "v_leak"] - target.level
    return LoihiLIF(
        decay_u=whole(4096 * target.f["syn"]) if _has_current(target) else np.array(4096),
        decay_v=whole(4096 * _mem(target)),
        v_threshold=None if isinstance(target.neuron, READOUTS) else whole(scale * target.threshold),
        bias_mantissa=whole(bias * LOIHI_UNIT / 2**exponent),
        bias_exponent=exponent,
        v_init=whole(LOIHI_UNIT * scale * start),
        reset=getattr(target.neuron, "reset", "value"),
    )


def weight_format(bits: int) -> tuple[int, int]:
    """Return (step between stored weights, largest multiple of it): 8 bits store -254, -252, ..., 254."""
    return 2 ** (9 - bits), 2 ** (bits - 1) - 1
