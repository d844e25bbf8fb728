"""Which neurons are there? Each with its update as computed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.layers.parts import Array, Part, Reset

LOIHI_UNIT = 64
"""Loihi aligns thresholds and synaptic input 6 bits up: a stored integer state is 64 times the mantissa's unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IF(Part):
    """Integrate and fire. Starts at `v_reset`.

    v ← v + r · x                  no time step in it
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    r: Array = 1.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LIF(Part):
    """Leaky integrate and fire without a synaptic current; Norse calls it LIFBox. Starts at `v_leak`.

    v ← v + dt_s / tau_s · ((r · x + v_leak) − v)          in this order of operations
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    tau_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubaLIF(Part):
    """Leaky integrate and fire with a synaptic current; Norse calls it LIF. Starts at u = 0, `v_leak`.

    Norse's order: jump, membrane, current decay.

    u ← u + w_in · dt_s / tau_syn_s · x                    Norse itself has w_in = tau_syn_s / dt_s: a jump by x
    v ← v + dt_s / tau_mem_s · ((v_leak − v) + r · u)
    u ← u − dt_s / tau_syn_s · u                           u is recorded after this line
    spike where v > v_threshold, then v ← v_reset ("value") or v − v_threshold ("subtract")
    """

    tau_mem_s: Array
    tau_syn_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LI(Part):
    """Leaky integrator, the usual readout: a membrane which never spikes; its output is v. Starts at `v_leak`.

    v ← v + dt_s / tau_s · ((v_leak − v) + r · x)          in this order of operations
    """

    tau_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubaLI(Part):
    """Leaky integrator with a synaptic current: the membrane of `CubaLIF`, which never spikes; its output is v."""

    tau_mem_s: Array
    tau_syn_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoihiLIF(Part):
    """The integer neuron of the Loihi family, bit for bit. Starts at u = 0, v = `v_init`. All values are integers.

    u ← trunc(u · (4096 − decay_u) / 4096) + 64 · x                      wraps beyond ±2^23
    v ← trunc(v · (4096 − decay_v) / 4096) + u + bias                    saturates at ±(2^23 − 1)
    bias = bias_mantissa · 2^bias_exponent                               unshifted; netx and nx files mean 64 · bias
    spike where v > 64 · v_threshold, then v ← 0 ("value") or v − 64 · v_threshold ("subtract")

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

    def __post_init__(self) -> None:
        self._freeze(integer=True)
        _check_reset(self)
        for name in ("decay_u", "decay_v"):
            value = getattr(self, name)
            if (value < 0).any() or (value > 4096).any():
                raise GraphError(f"LoihiLIF.{name}: {value.min()}..{value.max()} given, the format holds 0..4096")
        if self.v_threshold is not None and ((self.v_threshold < 0).any() or (self.v_threshold >= 2**17).any()):
            low, high = self.v_threshold.min(), self.v_threshold.max()
            raise GraphError(f"LoihiLIF.v_threshold: {low}..{high} given, the format holds 0..131071")
        if self.refractory_steps < 0:
            raise GraphError(f"LoihiLIF.refractory_steps: {self.refractory_steps} given, expected 0 or more")

    @property
    def bias(self) -> Array:
        """What is added to v each step: int64."""
        mantissa = self.bias_mantissa.astype(np.int64)
        return mantissa << self.bias_exponent if self.bias_exponent >= 0 else mantissa >> -self.bias_exponent


Neuron: TypeAlias = IF | LIF | CubaLIF | LI | CubaLI | LoihiLIF
FLOAT_NEURONS = (IF, LIF, CubaLIF, LI, CubaLI)
READOUTS = (LI, CubaLI)


def spikes(neuron: Neuron | None) -> bool:
    """Say whether a neuron emits spikes (a readout emits its membrane potential)."""
    if isinstance(neuron, LoihiLIF):
        return neuron.v_threshold is not None
    return neuron is not None and not isinstance(neuron, READOUTS)


def parameters(neuron: Neuron) -> dict[str, Array]:
    """Return the array parameters of a neuron by name."""
    values = {f.name: getattr(neuron, f.name) for f in fields(neuron)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _check_neuron(neuron: Any) -> None:
    neuron._freeze()
    _check_reset(neuron)
    for name, value in parameters(neuron).items():
        # below 0 a state grows instead of fading: learnt files of others hold that, so it can be read and run
        if name.startswith("tau") and (value == 0).any():
            raise GraphError(f"{type(neuron).__name__}.{name}: holds 0 s, a time constant is above 0 s; an IF neuron has none")


def _check_reset(neuron: Any) -> None:
    if getattr(neuron, "reset", "value") not in ("value", "subtract"):
        raise GraphError(f"{type(neuron).__name__}.reset: '{neuron.reset}' given, expected 'value' or 'subtract'")
