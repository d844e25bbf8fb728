"""Update equations of floating-point neurons and of the chips' integers."""

from spear_deploy.simulator.neurons.update import (
    STATE_LIMIT,
    NeuronState,
    count_overflows,
    factors,
    has_current,
    run,
    start,
    step,
)

__all__ = ["STATE_LIMIT", "NeuronState", "count_overflows", "factors", "has_current", "run", "start", "step"]
