"""Floating-point neurons with their update equations, and the sets of neuron types.

A neuron sends one spike in a step, or none, unless its `max_spikes` is larger. sinabs' `MultiSpike` has no limit, Rockpool's
LIFTorch one of 65,536. n spikes are n events for the synapses behind, and n SynOps each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Part, Reset, check_reset
from spear_deploy.network.chip_neurons import CHIP_NEURONS, CatalystLIF, OdinLIF, ReckonLIF, SpinnakerLIF, TrueNorthLIF
from spear_deploy.network.integer_neurons import LoihiLIF, SigmaDelta, SpeckIF, UnroundedLIF, XyloLIF

SAME_TAU = 1e-6
"""Relative difference below which two time constants are one: files of frameworks hold them with 24 bits."""
TIME_CONSTANT_WORDS = {
    "tau_s": "membrane time constant", "tau_mem_s": "membrane time constant", "tau_syn_s": "synaptic time constant",
}  # fmt: skip
"""Names of time constants in messages: `tau_s` reads as that of a synapse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IF(Part):
    """Integrate and fire. Starts at `v_reset`.

    v ← v + r · x                  no time step
    v ← max(v, v_min)              unless v_min is None; sinabs' min_v_mem
    n spikes: the largest n ≤ max_spikes with v > n · v_threshold; one unless given, None has no limit
    where n > 0: v ← v_reset ("value"), v − n · v_threshold ("subtract") or v ("none")
    """

    r: Array = 1.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"
    v_min: Array | None = None
    max_spikes: int | None = 1

    def __post_init__(self) -> None:
        _check_neuron(self)
        highest = np.minimum(self.v_reset, 0.0) if self.reset == "subtract" else self.v_reset
        if self.v_min is not None and (self.v_min > highest).any():
            raise GraphError(
                f"IF.v_min: {self.v_min.max():g} given, expected at most {highest.min():g}, where v starts or lies after a spike"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LIF(Part):
    """Leaky integrate and fire without a synaptic current; Norse calls it LIFBox. Starts at `v_init`, by default `v_leak`.

    v ← v + dt_s / tau_s · ((r · x + v_leak) − v)          in this order of operations
    n spikes: the largest n ≤ max_spikes with v > n · v_threshold; one unless given, None has no limit
    where n > 0: v ← v_reset ("value"), v − n · v_threshold ("subtract") or v ("none")

    With a `reset_delay` of 1 the threshold is subtracted in the next step, undecayed, and v is recorded before that (snnTorch):
    v ← v + dt_s / tau_s · (…) − v_threshold · [v > v_threshold before the step]
    """

    tau_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"
    reset_delay: int = 0
    max_spikes: int | None = 1
    v_init: Array | None = None

    def __post_init__(self) -> None:
        _check_neuron(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class CubaLIF(Part):
    """Leaky integrate and fire with a synaptic current; Norse calls it LIF. Starts at u = 0, `v_init`, by default `v_leak`.

    Norse's order: jump, membrane, current decay.

    u ← u + w_in · dt_s / tau_syn_s · x                    Norse itself has w_in = tau_syn_s / dt_s: a jump by x
    v ← v + dt_s / tau_mem_s · ((v_leak − v) + r · u)
    u ← u − dt_s / tau_syn_s · u                           u is recorded after this line
    n spikes: the largest n ≤ max_spikes with v > n · v_threshold; one unless given, None has no limit
    where n > 0: v ← v_reset ("value"), v − n · v_threshold ("subtract") or v ("none")

    `reset_delay`: as in `LIF`.
    """

    tau_mem_s: Array
    tau_syn_s: Array
    r: Array = 1.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_threshold: Array = 1.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: Reset = "value"
    reset_delay: int = 0
    max_spikes: int | None = 1
    v_init: Array | None = None

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


ChipNeurons: TypeAlias = TrueNorthLIF | SpinnakerLIF | ReckonLIF | OdinLIF | CatalystLIF
Neuron: TypeAlias = IF | LIF | CubaLIF | LI | CubaLI | LoihiLIF | SpeckIF | XyloLIF | UnroundedLIF | SigmaDelta | ChipNeurons
FLOAT_NEURONS = (IF, LIF, CubaLIF, LI, CubaLI)
INTEGER_NEURONS = (LoihiLIF, SpeckIF, XyloLIF, SigmaDelta, *CHIP_NEURONS)
GRADED_NEURONS = (SigmaDelta,)
"""Neurons whose spikes carry a whole number of either sign."""
READOUTS = (LI, CubaLI)


def emits_spikes(neuron: Neuron | None) -> bool:
    """Return whether a neuron emits spikes (a readout emits its membrane potential)."""
    if isinstance(neuron, (*INTEGER_NEURONS, UnroundedLIF)):
        return neuron.v_threshold is not None
    return neuron is not None and not isinstance(neuron, READOUTS)


def find_max_spikes(neuron: Neuron | None) -> int | None:
    """Return the largest number of spikes that a neuron sends in one step, or None where there is no limit."""
    return None if isinstance(neuron, (SpeckIF, OdinLIF)) else getattr(neuron, "max_spikes", 1)


def sends_several(neuron: Neuron | None) -> bool:
    """Return whether a neuron sends a number of spikes in one step, not one or none; one of Xylo always does, be it at most 1."""
    return isinstance(neuron, XyloLIF) or find_max_spikes(neuron) != 1


def find_start(neuron: Any) -> Array:
    """Return the potential of a floating-point neuron before the first step, float64."""
    stated = getattr(neuron, "v_init", None)
    start = stated if stated is not None else neuron.v_reset if isinstance(neuron, IF) else neuron.v_leak
    return np.asarray(start, np.float64)


def is_bounded(neuron: Neuron | None) -> bool:
    """Return whether a floating-point neuron keeps v at or above a lower bound."""
    return isinstance(neuron, IF) and neuron.v_min is not None


def lasts_one_step(tau_syn_s: Array, dt_s: float) -> Array:
    """Return where a synaptic current is the input of its step alone: a `CubaLIF` that has it is a `LIF`."""
    marks: Array = np.abs(np.asarray(tau_syn_s, np.float64) / dt_s - 1) <= SAME_TAU
    return marks


def needs_no_current(neuron: Neuron, dt_s: float, models: Sequence[str] | None) -> Array:
    """Return where a chip with these `models` holds the synaptic current of a neuron by having none.

    >>> needs_no_current(CubaLIF(tau_mem_s=0.02, tau_syn_s=[0.001, 0.002]), 0.001, ("LIF", "CubaLIF"))
    array([ True, False])
    """
    same = {CubaLIF: "LIF", CubaLI: "LI"}.get(type(neuron))
    return lasts_one_step(neuron.tau_syn_s, dt_s) if same in (models or ()) else np.zeros((), bool)  # type: ignore[union-attr]


def resets_late(neuron: Neuron | None) -> bool:
    """Return whether a neuron subtracts its threshold one step after the spike."""
    return isinstance(neuron, (LIF, CubaLIF)) and neuron.reset_delay == 1


def array_parameters(neuron: Neuron) -> dict[str, Array]:
    """Return the array parameters of a neuron by name."""
    values = {field.name: getattr(neuron, field.name) for field in fields(neuron)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def has_positions(neuron: Neuron | None) -> bool:
    """Return whether a parameter of a neuron differs between the positions of a map, (C, H, W), or the places of a list, (N,).

    >>> has_positions(IF(v_threshold=np.ones((4, 1, 1)))), has_positions(IF(v_threshold=np.ones((4, 8, 8)))), has_positions(None)
    (False, True, False)
    """
    values = array_parameters(neuron).values() if neuron is not None else ()
    return any((value.ndim > 1 and max(value.shape[1:]) > 1) or (value.ndim == 1 and value.size > 1) for value in values)


def _check_neuron(neuron: Any) -> None:
    neuron._freeze()
    check_reset(neuron, get_args(Reset))
    _check_reset_delay(neuron)
    _check_max_spikes(neuron)
    for name, value in array_parameters(neuron).items():
        # below 0 a state grows instead of decaying: trained networks of other tools hold that, so it can be read and run
        if name.startswith("tau") and (value == 0).any():
            raise GraphError(f"{type(neuron).__name__}.{name}: holds 0 s, a time constant is above 0 s; an IF neuron has none")


def _check_reset_delay(neuron: Any) -> None:
    delay = getattr(neuron, "reset_delay", 0)
    if delay not in (0, 1):
        raise GraphError(f"{type(neuron).__name__}.reset_delay: {delay} given, expected 0 (the spike's step) or 1 (the next)")
    if hasattr(neuron, "reset_delay"):
        object.__setattr__(neuron, "reset_delay", int(delay))
    if delay and neuron.reset != "subtract":
        raise GraphError(
            f"{type(neuron).__name__}.reset_delay: 1 is for reset 'subtract'; a reset to a value has the same spikes one step "
            "later, take 0"
        )


def _check_max_spikes(neuron: Any) -> None:
    most, name = getattr(neuron, "max_spikes", 1), type(neuron).__name__
    if most == 1:
        return
    if most is not None and (isinstance(most, bool) or int(most) != most or most < 1):
        raise GraphError(f"{name}.max_spikes: {most} given, expected a whole number from 1, or None for no limit")
    if most is not None:
        object.__setattr__(neuron, "max_spikes", int(most))
    if (neuron.v_threshold <= 0).any():
        raise GraphError(
            f"{name}.v_threshold: {neuron.v_threshold.min():g} given, several spikes a step take one above 0; take max_spikes 1"
        )
    if getattr(neuron, "reset_delay", 0):
        raise GraphError(f"{name}.reset_delay: 1 is for one spike a step; take 0, or max_spikes 1")
