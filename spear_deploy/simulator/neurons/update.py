"""Start, step and run of neurons of every format.

`start` makes the state of a layer, `step` advances it in place and returns what the layer emits, `run` does so for all steps
of a block. Each format has its functions in a module: floating point, and the integers of a chip family.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spear_deploy.network import (
    CHIP_NEURONS,
    INTEGER_NEURONS,
    Array,
    CatalystLIF,
    CubaLI,
    CubaLIF,
    LoihiLIF,
    Neuron,
    OdinLIF,
    ReckonLIF,
    Shape,
    SigmaDelta,
    SpeckIF,
    SpinnakerLIF,
    TrueNorthLIF,
    UnroundedLIF,
    XyloLIF,
)
from spear_deploy.simulator.neurons import chips, floating, loihi, sigma_delta, speck, xylo
from spear_deploy.simulator.neurons.floating import factors
from spear_deploy.simulator.neurons.loihi import STATE_LIMIT
from spear_deploy.simulator.neurons.state import NeuronState

__all__ = ["STATE_LIMIT", "NeuronState", "count_overflows", "factors", "has_current", "run", "start", "step"]


FORMATS: dict[type, tuple[Callable[..., NeuronState], Callable[..., Array]]] = {
    LoihiLIF: (loihi.start, loihi.step),
    SpeckIF: (speck.start, speck.step),
    XyloLIF: (xylo.start, xylo.step),
    UnroundedLIF: (floating.start_unrounded, floating.step_unrounded),
    SigmaDelta: (sigma_delta.start, sigma_delta.step),
    **dict.fromkeys(CHIP_NEURONS, (chips.start, chips.step)),
}
"""`start` and `step` of each neuron type that has no time constants in seconds; all others are floating-point neurons."""


def start(neuron: Neuron, batch: int, shape: Shape, dt_s: float, dtype: type = np.float32) -> NeuronState:
    """Return the state before the first step, (batch, *shape)."""
    if type(neuron) in FORMATS:
        start_format, _ = FORMATS[type(neuron)]
        return start_format(neuron, batch, shape)
    return floating.start(neuron, batch, shape, dt_s, dtype)  # type: ignore[arg-type]  # all types that are not in FORMATS


def step(neuron: Neuron, state: NeuronState, x: Array) -> Array:
    """Advance one step with input `x` (B, *shape), in place.

    Returns:
        Spikes as bool, their number as int64 (`sends_several`), graded ones as int64 (sigma-delta), or v for a readout.
    """
    _, step_format = FORMATS.get(type(neuron), (floating.start, floating.step))
    return step_format(neuron, state, x)


def run(neuron: Neuron, state: NeuronState, drive: Array, emitted: Array, v: Array | None = None, u: Array | None = None) -> None:
    """Advance as many steps as `drive` holds, in place.

    Args:
        drive: (K, B, *shape); whole numbers, of any type, where the neuron is integer; spikes (K, B, inputs) for ODIN.
        emitted: (K, B, *shape), takes what the layer emits.
        v, u: (K, B, *shape), take the states after each step.
    """
    if isinstance(neuron, LoihiLIF):
        loihi.run(neuron, state, drive, emitted, v, u)
        return
    if isinstance(neuron, INTEGER_NEURONS):
        drive = drive.astype(np.int64, copy=False)
    for t, x in enumerate(drive):
        emitted[t] = step(neuron, state, x)
        if v is not None:
            v[t] = state.v
        if u is not None:
            u[t] = state.u


def has_current(neuron: Neuron) -> bool:
    """Return whether a neuron has a synaptic current u besides its membrane potential."""
    return isinstance(neuron, (CubaLIF, CubaLI, LoihiLIF, XyloLIF, UnroundedLIF)) or _has_spinnaker_current(neuron)


def _has_spinnaker_current(neuron: Neuron) -> bool:
    return isinstance(neuron, SpinnakerLIF) and neuron.keep_u is not None


def count_overflows(neuron: Neuron, state: NeuronState) -> dict[str, int]:
    """Count how often each integer state left its bits, by what happens then; empty if none did."""
    if isinstance(neuron, (SpeckIF, TrueNorthLIF, ReckonLIF, OdinLIF, CatalystLIF)):
        counts = {"v_saturated": state.saturations}
    elif isinstance(neuron, SigmaDelta):
        counts = {"v_beyond_24_bits": state.saturations}
    elif isinstance(neuron, SpinnakerLIF):
        counts = {"input_saturated": state.u_saturations, "v_saturated": state.saturations}
    elif isinstance(neuron, XyloLIF):
        counts = {"u_saturated": state.u_saturations, "v_saturated": state.saturations}
    else:
        counts = {"u_wrapped": state.wraps, "v_saturated": state.saturations}
    return counts if any(counts.values()) else {}
