"""Simulator: a network on a batch, step by step, with its spikes counted."""

from spear_deploy.simulator.run import (
    ChipRun,
    InputKind,
    Record,
    Simulation,
    SpikeCounts,
    added,
    check_input,
    check_record,
    counted,
    evaluation_groups,
    simulate,
)

__all__ = [
    "ChipRun",
    "InputKind",
    "Record",
    "Simulation",
    "SpikeCounts",
    "added",
    "check_input",
    "check_record",
    "counted",
    "evaluation_groups",
    "simulate",
]
