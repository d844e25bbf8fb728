"""What should a person know about a run? Silent layers, dead neurons, states that leave their bits, numbers that rounding bent.

Each is one sentence: the layer, the value, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.network import COUNTING_NEURONS
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.numbers import Numbers
from spear_deploy.simulator import ChipRun, SpikeCounts

DEAD_SHARE = 0.5
"""More neurons of a layer than this without a spike are named."""
BUSY_RATE = 0.95
"""A layer above this many spikes per neuron and step says little more than a bias would."""
RATE_FACTOR = 2.0
LEAST_SPIKES = 10
"""Rates of fewer spikes than this are not compared."""
THRESHOLD_ERROR = 0.05
ZEROED_SHARE = 0.25
CLIPPED_SHARE = 0.01
_OVERFLOWS = {
    "u_wrapped": "its current u wrapped around",
    "u_saturated": "its current u was clipped",
    "v_saturated": "its potential v was clipped",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        code: what kind of thing, for a script.
        layer: where.
        value: the number that it is about.
        text: one sentence with all of it, and what to do.
    """

    code: str
    layer: str
    value: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


def of_run(graph: SNNGraph, run: ChipRun) -> Iterator[Finding]:
    """Find layers that are silent, mostly dead or always on, and states that left their bits."""
    counts = run.counts
    seen = f"{counts.samples} sample{'s' if counts.samples != 1 else ''} of {counts.steps} steps"
    for layer in graph.layers:
        if layer.name in counts.sent:
            once = not isinstance(layer.neuron, COUNTING_NEURONS)
            yield from _of_activity(layer.name, counts.sent[layer.name], counts, seen, once)
        if layer.name in run.overflows:
            yield from _of_overflows(layer.name, run.overflows[layer.name], seen)


def _of_activity(name: str, sent: Any, counts: SpikeCounts, seen: str, once: bool) -> Iterator[Finding]:
    if not sent.any():
        text = f"layer '{name}': not one spike in {seen}; lower its threshold, raise its weights, or check the input's scale"
        yield Finding(code="silent_layer", layer=name, value=0.0, text=text)
        return
    dead = int(np.count_nonzero(sent == 0))
    if dead > DEAD_SHARE * sent.size:
        share = f"{dead} of {sent.size} neurons ({dead / sent.size:.0%})"
        text = f"layer '{name}': {share} never spike in {seen}; prune dead channels, or lower the threshold"
        yield Finding(code="dead_neurons", layer=name, value=dead / sent.size, text=text)
    rate = float(sent.mean()) / (counts.steps * counts.samples)
    if once and rate > BUSY_RATE:
        text = f"layer '{name}': its neurons spike in {rate:.0%} of all steps and say no more than a bias; raise its threshold"
        yield Finding(code="busy_layer", layer=name, value=rate, text=text)


def _of_overflows(name: str, found: Mapping[str, int], seen: str) -> Iterator[Finding]:
    for code, times in found.items():
        if times:
            text = (
                f"layer '{name}': {_OVERFLOWS.get(code, code)} {times} times in {seen}, beyond the bits of its state; "
                "give it a smaller scale (quantise with this input as calibration), or smaller weights and biases"
            )
            yield Finding(code=code, layer=name, value=float(times), text=text)


def of_change(graph: SNNGraph, before: SpikeCounts, after: SpikeCounts) -> Iterator[Finding]:
    """Find layers whose rate changed by more than a factor of 2 between the trained network and the chip's."""
    for layer in graph.layers:
        if layer.name not in before.sent or layer.name not in after.sent:
            continue
        spikes = [int(counts.sent[layer.name].sum()) for counts in (before, after)]
        if max(spikes) < LEAST_SPIKES or max(spikes) <= RATE_FACTOR * min(spikes):
            continue
        factor = spikes[1] / spikes[0] if spikes[0] else float(spikes[1])
        text = (
            f"layer '{layer.name}': {spikes[1]} spikes on the chip, {spikes[0]} in the trained network; see which step of the "
            "lowering changed them, and fine-tune with it"
        )
        yield Finding(code="rate_changed", layer=layer.name, value=factor, text=text)


def of_quantiser(integer: SNNGraph) -> Iterator[Finding]:
    """Find what the quantiser itself says that its format bent."""
    for found in integer.metadata.get("quantization", {}).get("findings", ()):
        name, what, given, stored = (found[key] for key in ("layer", "what", "given", "stored"))
        if what == "spikes_per_step":
            text = (
                f"layer '{name}': a neuron that meets {stored:.0f} thresholds in a step sends {stored:.0f} spikes on the chip, "
                "where the trained network sends one and keeps or drops the rest; spread the input over more steps, raise the "
                "threshold, or train with neurons that send several"
            )
            yield Finding(code="several_spikes", layer=name, value=float(stored), text=text)
            continue
        text = (
            f"layer '{name}': {what} is {stored:.4g} on the chip, {given:.4g} in the trained network; "
            "train with the chip's value, or choose one that its format has"
        )
        yield Finding(code="parameter_rounded", layer=name, value=float(stored), text=text)


def of_numbers(numbers: Mapping[str, Numbers]) -> Iterator[Finding]:
    """Find numbers that rounding bent: thresholds, decays, weights; and scales that had to give way."""
    for name, found in numbers.items():
        yield from _of_neuron(name, found)
        yield from _of_weights(name, found)


def _of_neuron(name: str, found: Numbers) -> Iterator[Finding]:
    error = found.threshold_error
    if error is not None and abs(error) > THRESHOLD_ERROR:
        text = (
            f"layer '{name}': a threshold of {found.threshold_real:.3g} units becomes {found.threshold_integer} ({error:+.1%}) "
            f"at scale {found.scale:.4g}, which the largest weight sets; clip outlying weights or raise the threshold"
        )
        yield Finding(code="threshold_rounded", layer=name, value=error, text=text)
    for state, lost in (found.decays_lost or {}).items():
        for end, (neurons, real) in lost.items():
            effect, step = ("never fades", "longer") if end == 0 else ("is forgotten in every step", "shorter")
            text = (
                f"layer '{name}': {state} of {real:.4g}/4096 rounds to {end} in {neurons} neurons, whose state {effect}; "
                f"choose another time constant, or a {step} time step"
            )
            yield Finding(code="decay_lost", layer=name, value=real, text=text)
    if found.headroom is not None and found.headroom < 1:
        text = (
            f"layer '{name}': its scale was cut to {found.headroom:.3g} of what the weights allow, or a state would overflow; "
            "use smaller biases and inputs, or a lower threshold"
        )
        yield Finding(code="scale_cut", layer=name, value=found.headroom, text=text)


def _of_weights(name: str, found: Numbers) -> Iterator[Finding]:
    if found.weights_clipped > CLIPPED_SHARE * found.weights:
        clipped = f"{found.weights_clipped} of {found.weights} weights ({found.weights_clipped / found.weights:.0%})"
        text = f"layer '{name}': {clipped} are clipped, lest the others be rounded more; bound the largest weights in training"
        yield Finding(code="weights_clipped", layer=name, value=float(found.weights_clipped), text=text)
    if found.weights and found.weights_zeroed > ZEROED_SHARE * found.weights:
        share = found.weights_zeroed / found.weights
        text = (
            f"layer '{name}': {found.weights_zeroed} of {found.weights} weights ({share:.0%}) round to 0; clip the few largest, "
            "which set the scale, or train with the chip's weights"
        )
        yield Finding(code="weights_zeroed", layer=name, value=share, text=text)
