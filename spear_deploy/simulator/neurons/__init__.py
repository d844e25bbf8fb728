"""Update equations of neurons: floating point, and the integers of each chip family."""

from spear_deploy.simulator.neurons.update import (
    STATE_LIMIT,
    NeuronState,
    factors,
    has_current,
    overflows,
    run,
    start,
    step,
)

__all__ = ["STATE_LIMIT", "NeuronState", "factors", "has_current", "overflows", "run", "start", "step"]
