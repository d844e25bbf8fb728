"""Integer neurons of the chips, each with its update equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Part, Reset, check_range, check_reset

LOIHI_UNIT = 64
"""Loihi aligns thresholds and synaptic input 6 bits up: a stored integer state is 64 times the mantissa's unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoihiLIF(Part):
    """The integer neuron of the Loihi family, bit for bit. Starts at u = 0, v = `v_init`. All values are integers.

    u ← trunc(u · (4096 − decay_u) / 4096) + 64 · x                      wraps beyond ±2^23
    v ← trunc(v · (4096 − decay_v) / 4096) + u + bias                    saturates at ±(2^23 − 1)
    bias = bias_mantissa · 2^bias_exponent                               unshifted; netx and nx files mean 64 · bias
    spike where v > 64 · v_threshold, then v ← v_reset ("value") or v − 64 · v_threshold ("subtract")

    `v_init` and `v_reset` are states: 64 of them are one unit of the threshold.

    Other tools' names: netx `iDecay` = decay_u, `vDecay` = decay_v, `vThMant` = v_threshold; Lava `du` = decay_u − 1,
    `dv` = decay_v. `v_threshold=None` is a readout that never spikes: its output is v.
    After a spike v rests for `refractory_steps` steps (u goes on), as in Lava's LIFRefractory.
    """

    decay_u: Array
    decay_v: Array
    v_threshold: Array | None
    bias_mantissa: Array = 0  # type: ignore[assignment]
    bias_exponent: int = 0
    v_init: Array = 0  # type: ignore[assignment]
    reset: Reset = "value"
    refractory_steps: int = 0
    v_reset: Array = 0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        check_reset(self)
        for name in ("decay_u", "decay_v"):
            check_range(self, name, 0, 4096)
        if self.v_threshold is not None:
            check_range(self, "v_threshold", 0, 2**17 - 1)
        if (np.abs(self.v_reset) >= 2**23).any():
            low, high = self.v_reset.min(), self.v_reset.max()
            raise GraphError(f"LoihiLIF.v_reset: {low}..{high} given, a 24-bit state holds ±8388607")
        if self.refractory_steps < 0:
            raise GraphError(f"LoihiLIF.refractory_steps: {self.refractory_steps} given, expected 0 or more")

    @property
    def bias(self) -> Array:
        """What is added to v each step: int64."""
        mantissa = self.bias_mantissa.astype(np.int64)
        return mantissa << self.bias_exponent if self.bias_exponent >= 0 else mantissa >> -self.bias_exponent


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeckIF(Part):
    """The integer neuron of DYNAP-CNN and Speck, in steps. Starts at `v_init`. All values are integers.

    v ← v + x                                           x: the weights of the step's events, and the bias
    n = ⌊v / v_threshold⌋ where v ≥ v_threshold, else 0 spikes are sent, several in one step if need be
    v ← v − n · v_threshold ("subtract"), or 0 where n > 0 ("value")
    v ← max(v, v_min)                                   sinabs' min_v_mem; its NIR reader sets it to −v_threshold

    The chip has no steps: it takes event by event, sends a spike whenever v reaches the threshold, and adds the bias at
    the ticks of a slow clock, here once a step. Taking the events of a step together is sinabs' model of it (`IAFSqueeze`
    with `MultiSpike`); the two differ where v crosses the threshold or `v_min` on the way and comes back within the step.
    A state has 16 bits; after its spikes v lies below the threshold, so only `v_min` can clip: as a part of the neuron where it
    lies above −2^15, as an overflow, which is counted, where v leaves the 16 bits. Both limits hold for a whole layer: the chip
    has one pair of them a core.
    """

    v_threshold: Array
    v_min: Array = -(2**15)  # type: ignore[assignment]
    v_init: Array = 0  # type: ignore[assignment]
    reset: Reset = "subtract"

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        check_reset(self)
        for name, low, high in (("v_threshold", 1, 2**15 - 1), ("v_min", -(2**15), 0), ("v_init", -(2**15), 2**15 - 1)):
            check_range(self, name, low, high)
        for name in ("v_threshold", "v_min"):
            if getattr(self, name).size != 1:
                raise GraphError(f"SpeckIF.{name}: {getattr(self, name).size} values given, a core holds one for the whole layer")


@dataclass(frozen=True, kw_only=True, eq=False)
class XyloLIF(Part):
    """The integer neuron of the Xylo family, as SynSense's `xylosim` computes it. Starts at u = v = 0. All values are integers.

    fall(a, dash) = a >> dash, or 1 where that is 0 and a > 0             the shift rounds down, so −1 goes to 0 too
    u ← clip(u + x);  u ← u − fall(u, dash_syn)                           clip: to −2^15 .. 2^15 − 1, counted
    v ← clip(v + clip(clip(u − fall(v, dash_mem)) + bias))
    n = min(⌊v / v_threshold⌋, max_spikes) where v ≥ v_threshold, else 0  spikes are sent
    v ← v − n · v_threshold                                               always reset by subtraction

    A current falls before it reaches v: with dash_syn = 0 it never arrives. Hidden neurons of the chip send up to 31 spikes
    a step, output neurons one. `v_threshold=None` is a readout whose output is v: its threshold is the highest, 2^15 − 1, from
    which v falls to 0. The chip clips after each single spike it takes, here after the sum of a step: the same unless a part of
    the sum leaves the 16 bits. The second current that neurons of Xylo Audio have is left at 0.

    All neurons of the chip start at once, while spikes take a step from layer to layer: a layer behind others has run some steps
    on its bias, and on spikes that biases sent, when what the network's first step sent arrives. `early_steps` is their number:
    the layer starts so many steps before the network, in which there is no input.
    """

    dash_mem: Array
    dash_syn: Array
    v_threshold: Array | None
    bias: Array = 0  # type: ignore[assignment]
    max_spikes: int = 31
    early_steps: int = 0

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        for name, low, high in (("dash_mem", 0, 15), ("dash_syn", 0, 15), ("bias", -(2**15), 2**15 - 1)):
            check_range(self, name, low, high)
        if self.v_threshold is not None:
            check_range(self, "v_threshold", 1, 2**15 - 1)
        if not 1 <= self.max_spikes <= 31:
            raise GraphError(f"XyloLIF.max_spikes: {self.max_spikes} given, the format holds 1..31")
        if self.early_steps < 0:
            raise GraphError(f"XyloLIF.early_steps: {self.early_steps} given, expected 0 or more")

    @property
    def reset(self) -> Reset:
        """How it resets: always by subtraction."""
        return "subtract"


@dataclass(frozen=True, kw_only=True, eq=False)
class UnroundedLIF(Part):
    """`LoihiLIF` in float64: values between the integers, states without limit. Starts at u = 0, v = `v_init`.

    u ← u · (4096 − decay_u) / 4096 + 64 · x
    v ← v · (4096 − decay_v) / 4096 + u + bias
    spike where v > 64 · v_threshold + 2^−20, then v ← v_reset ("value") or v − 64 · v_threshold ("subtract")

    The 2^−20 keeps potentials that meet the threshold exactly, as integers often do, from passing it by float64's rounding.
    With `truncates` the products lose their fraction, towards zero. Parameters that a `LoihiLIF` could hold then give exactly
    its states and spikes, as long as no 24-bit state overflows. It measures the cost of a chip's rounding; no chip runs it.
    """

    decay_u: Array
    decay_v: Array
    v_threshold: Array | None
    bias: Array = 0.0  # type: ignore[assignment]
    v_init: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"
    truncates: bool = False

    def __post_init__(self) -> None:
        self._freeze()
        check_reset(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class SigmaDelta(Part):
    """The integer sigma-delta neuron of lava-dl's SDNN, as Lava computes it. Starts at 0. All values are integers.

    one = 2^(spike_exponent + state_exponent)
    sigma ← sigma + x;  act = max(sigma + bias · one, 0)          "unit" has no max; `takes="values"` (an encoder): act = x · one
    change = act − act of the step before + rest
    where |change| ≥ v_threshold · one it is sent as change >> state_exponent, and rest ← 0; else rest ← change

    It sends a graded change, which its targets add up again. `v_threshold=None` is a decoder: it never sends, its output is
    sigma. v is sigma, or what an encoder took. States are kept beyond 24 bits, as in Lava's CPU models, and counted.
    """

    v_threshold: Array | None
    bias: Array = 0  # type: ignore[assignment]
    activation: Literal["relu", "unit"] = "relu"
    takes: Literal["changes", "values"] = "changes"
    spike_exponent: int = 6
    state_exponent: int = 6

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        for name, choices in (("activation", ("relu", "unit")), ("takes", ("changes", "values"))):
            if getattr(self, name) not in choices:
                expected = " or ".join(map(repr, choices))
                raise GraphError(f"SigmaDelta.{name}: '{getattr(self, name)}' given, expected {expected}")
        for name in ("spike_exponent", "state_exponent"):
            if not 0 <= getattr(self, name) <= 7:
                raise GraphError(f"SigmaDelta.{name}: {getattr(self, name)} given, the format holds 0..7")
        if self.v_threshold is not None:
            check_range(self, "v_threshold", 0, 2**17 - 1)
        if self.takes == "values" and (self.v_threshold is None or self.bias.any()):
            raise GraphError("SigmaDelta.takes: 'values' given, an encoder has a threshold and no bias; give 'changes'")
        if self.v_threshold is None and self.bias.any():
            raise GraphError("SigmaDelta.bias: given to a decoder, which has none; give it a threshold or drop the bias")
