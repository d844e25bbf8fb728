"""Findings about a run and about rounding, as sentences for the user.

Silent layers, dead neurons, states that overflow, numbers that rounding changed: the layer, the value, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.network import sends_several
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.explain.rounding import LayerRounding
from spear_deploy.quantize.integer_layers import MAX_SPIKES, RESET_DELAY
from spear_deploy.quantize.integrate_and_fire import FLOOR
from spear_deploy.quantize.loihi import BIAS_SATURATES
from spear_deploy.quantize.palette import AXONS
from spear_deploy.quantize.weight_levels import FEW_LEVELS, WEIGHTS_LOST, describe_levels
from spear_deploy.quantize.xylo import EARLY_STEPS
from spear_deploy.simulator import ChipRun, SpikeCounts
from spear_deploy.util.number_format import plural

DEAD_SHARE = 0.5
"""Share of a layer's neurons without a spike above which it is a finding."""
BUSY_RATE = 0.95
"""Spikes per neuron and step above which a layer carries little more than a bias."""
RATE_FACTOR = 2.0
MIN_SPIKES = 10
"""Rates of fewer spikes are not compared."""
THRESHOLD_ERROR = 0.05
ZEROED_SHARE = 0.25
CLIPPED_SHARE = 0.01
_OVERFLOWS = {
    "input_saturated": "what arrived in a step was clipped to 16 bits",
    "u_wrapped": "its current u wrapped around",
    "u_saturated": "its current u was clipped",
    "v_saturated": "its potential v was clipped",
}

_CHIP_FACTS = {
    AXONS: (
        "axons",
        "its {given:.0f} sources take {stored:.0f} axons, one for each of the four weights that a source's synapses have, and a "
        "neuron in front of each; train with fewer values, or with one sign and size for each source",
    ),
    BIAS_SATURATES: (
        "bias_saturates",
        "in the course of its time constant its biases alone lead its potential to {given:.3g} times what its state of 24 bits "
        "holds; quantise with data, lower the biases, or let it leak faster",
    ),
    FLOOR: (
        "floor",
        "its potential stops at 0 on the chip, where the trained network's goes below; train with v_min at the reset",
    ),
    EARLY_STEPS: (
        "early_steps",
        "on the chip, where all neurons start at once, its bias acts for {steps} before the first spikes of the input "
        "reach it; train without biases behind the first layer",
    ),
}
"""By what a finding of the quantization names: its code, and a sentence."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact that the user should know.

    Attributes:
        code: kind of the finding, for scripts.
        layer: name of the layer.
        value: the measured number.
        text: one sentence with layer, value and what to do.
    """

    code: str
    layer: str
    value: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))


def find_in_run(graph: SNNGraph, run: ChipRun) -> Iterator[Finding]:
    """Find layers that are silent, mostly dead or always on, and states that overflowed."""
    counts = run.counts
    extent = f"{counts.samples} sample{'s' if counts.samples != 1 else ''} of {counts.steps} steps"
    for layer in graph.layers:
        if layer.name in counts.sent:
            one_spike = not sends_several(layer.neuron)
            yield from _find_in_activity(layer.name, counts.sent[layer.name], counts, extent, one_spike)
        if layer.name in run.overflows:
            yield from _find_in_overflows(layer.name, run.overflows[layer.name], extent)


def _find_in_activity(name: str, sent: Any, counts: SpikeCounts, extent: str, one_spike: bool) -> Iterator[Finding]:
    if not sent.any():
        text = f"layer '{name}': not one spike in {extent}; lower its threshold, raise its weights, or check the input's scale"
        yield Finding(code="silent_layer", layer=name, value=0.0, text=text)
        return
    dead = int(np.count_nonzero(sent == 0))
    if dead > DEAD_SHARE * sent.size:
        share = f"{dead} of {sent.size} neurons ({dead / sent.size:.0%})"
        text = f"layer '{name}': {share} never spike in {extent}; prune dead channels, or lower the threshold"
        yield Finding(code="dead_neurons", layer=name, value=dead / sent.size, text=text)
    rate = float(sent.mean()) / (counts.steps * counts.samples)
    if one_spike and rate > BUSY_RATE:
        text = f"layer '{name}': its neurons spike in {rate:.0%} of all steps and say no more than a bias; raise its threshold"
        yield Finding(code="busy_layer", layer=name, value=rate, text=text)


def _find_in_overflows(name: str, overflows: Mapping[str, int], extent: str) -> Iterator[Finding]:
    for code, times in overflows.items():
        if times:
            text = (
                f"layer '{name}': {_OVERFLOWS.get(code, code)} {times} times in {extent}, beyond the bits of its state; "
                "train with smaller weights and biases or fewer spikes at its input, or, where these integers are from a file, "
                "quantise the trained network on this input"
            )
            yield Finding(code=code, layer=name, value=float(times), text=text)


def find_rate_changes(graph: SNNGraph, before: SpikeCounts, after: SpikeCounts) -> Iterator[Finding]:
    """Find layers whose rate changed by more than a factor of 2 between the trained network and the chip's."""
    for layer in graph.layers:
        if layer.name not in before.sent or layer.name not in after.sent:
            continue
        spikes = [int(counts.sent[layer.name].sum()) for counts in (before, after)]
        if max(spikes) < MIN_SPIKES or max(spikes) <= RATE_FACTOR * min(spikes):
            continue
        factor = spikes[1] / spikes[0] if spikes[0] else float(spikes[1])
        text = (
            f"layer '{layer.name}': {spikes[1]} spikes on the chip, {spikes[0]} in the trained network; see which step of the "
            "lowering changed them, and fine-tune with it"
        )
        yield Finding(code="rate_changed", layer=layer.name, value=factor, text=text)


def find_changed_parameters(integer: SNNGraph) -> Iterator[Finding]:
    """Find the parameters that the quantization reports as changed by its format."""
    for reported in integer.metadata.get("quantization", {}).get("findings", ()):
        name, what, given, stored = (reported[key] for key in ("layer", "what", "given", "stored"))
        if what in (RESET_DELAY, MAX_SPIKES):
            continue
        if what in (WEIGHTS_LOST, FEW_LEVELS):
            yield Finding(code=what, layer=name, value=float(given), text=describe_levels(reported))
            continue
        if what == "spikes_per_step":
            text = (
                f"layer '{name}': a neuron that meets {stored:.0f} thresholds in a step sends {stored:.0f} spikes on the chip, "
                f"where the trained network sends {given:.0f} and keeps or drops the rest; spread the input over more "
                "steps, raise the threshold, or train with neurons that send several"
            )
            yield Finding(code="several_spikes", layer=name, value=float(stored), text=text)
            continue
        if what in _CHIP_FACTS:
            code, text = _CHIP_FACTS[what]
            text = f"layer '{name}': {text.format(given=given, stored=stored, steps=plural(int(stored), 'step'))}"
            yield Finding(code=code, layer=name, value=float(stored), text=text)
            continue
        text = (
            f"layer '{name}': {what} is {stored:.4g} on the chip, {given:.4g} in the trained network; "
            "train with the chip's value, or choose one that its format has"
        )
        yield Finding(code="parameter_rounded", layer=name, value=float(stored), text=text)


def find_changed_rules(integer: SNNGraph, *, explained: bool = False) -> Iterator[Finding]:
    """Find the layers whose reset came one step late and comes in the step of the spike on the chip, or that may send more spikes
    in a step than the chip.

    Args:
        integer: the network.
        explained: whether what each change costs is measured beside the findings; else they name the option that does.
    """
    measure = "" if explained else "see what that changes with --explain, or "
    for reported in integer.metadata.get("quantization", {}).get("findings", ()):
        name = reported["layer"]
        if reported["what"] == RESET_DELAY:
            text = (
                f"layer '{name}': subtracts its threshold one step after the spike, the chip in the same step, "
                f"where the threshold decays with the potential; {measure}train with a "
                "reset of the chip (snnTorch: reset_mechanism='zero', reset_delay=False where it resets by value)"
            )
            yield Finding(code="reset_moved", layer=name, value=1.0, text=text)
        if reported["what"] == MAX_SPIKES:
            most = "any number of spikes" if reported["given"] is None else f"up to {reported['given']:,} spikes"
            text = (
                f"layer '{name}': sends {most} in a step, the chip at most {reported['stored']}; {measure}train with as "
                "many (sinabs: SingleSpike or MaxSpike, Rockpool: max_spikes_per_dt)"
            )
            yield Finding(code="fewer_spikes", layer=name, value=float(reported["stored"]), text=text)


def find_rounding_errors(rounding: Mapping[str, LayerRounding]) -> Iterator[Finding]:
    """Find thresholds, decays and weights with a large rounding error, and scales below what the weights allow."""
    for name, layer in rounding.items():
        yield from _find_in_neuron(name, layer)
        yield from _find_in_weights(name, layer)


def _find_in_neuron(name: str, layer: LayerRounding) -> Iterator[Finding]:
    error = layer.threshold_error
    if error is not None and abs(error) > THRESHOLD_ERROR:
        text = (
            f"layer '{name}': a threshold of {layer.threshold_real:.3g} units becomes {layer.threshold_integer} ({error:+.1%}) "
            f"at scale {layer.scale:.4g}, which the largest weight sets; clip outlying weights or raise the threshold"
        )
        yield Finding(code="threshold_rounded", layer=name, value=error, text=text)
    for state, lost in (layer.decays_lost or {}).items():
        for end, (neurons, real) in lost.items():
            effect, step = ("never fades", "longer") if end == 0 else ("is forgotten in every step", "shorter")
            text = (
                f"layer '{name}': {state} of {real:.4g}/4096 rounds to {end} in {neurons} neurons, whose state {effect}; "
                f"choose another time constant, or a {step} time step"
            )
            yield Finding(code="decay_lost", layer=name, value=real, text=text)
    if layer.headroom is not None and layer.headroom < 1:
        text = (
            f"layer '{name}': its scale was cut to {layer.headroom:.3g} of what the weights allow, or a state would overflow; "
            "use smaller biases and inputs, or a lower threshold"
        )
        yield Finding(code="scale_cut", layer=name, value=layer.headroom, text=text)


def _find_in_weights(name: str, layer: LayerRounding) -> Iterator[Finding]:
    if layer.weights_clipped > CLIPPED_SHARE * layer.weights:
        clipped = f"{layer.weights_clipped} of {layer.weights} weights ({layer.weights_clipped / layer.weights:.0%})"
        text = f"layer '{name}': {clipped} are clipped, lest the others be rounded more; bound the largest weights in training"
        yield Finding(code="weights_clipped", layer=name, value=float(layer.weights_clipped), text=text)
    if layer.weights and layer.weights_zeroed > ZEROED_SHARE * layer.weights:
        share = layer.weights_zeroed / layer.weights
        text = (
            f"layer '{name}': {layer.weights_zeroed} of {layer.weights} weights ({share:.0%}) round to 0; clip the few largest, "
            "which set the scale, or train with the chip's weights"
        )
        yield Finding(code="weights_zeroed", layer=name, value=share, text=text)
