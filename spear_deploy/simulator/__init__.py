"""Simulator of a network on a batch, with spike counts."""

from spear_deploy.simulator.run import (
    ChipRun,
    InputKind,
    Record,
    Simulation,
    SpikeCounts,
    add_values,
    check_input,
    check_record,
    count_spikes,
    evaluation_groups,
    simulate,
)

__all__ = [
    "ChipRun",
    "InputKind",
    "Record",
    "Simulation",
    "SpikeCounts",
    "add_values",
    "check_input",
    "check_record",
    "count_spikes",
    "evaluation_groups",
    "simulate",
]
