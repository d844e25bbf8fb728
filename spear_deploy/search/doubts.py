"""What makes pruning this network on this data doubtful? Said before, not found out after hours."""

from __future__ import annotations

import numpy as np

from spear_deploy.graph import SNNGraph
from spear_deploy.training import Evaluation

SILENT_RATE = 1e-4
"""Spikes per neuron and step below which a layer hardly tells anything."""


def doubts(graph: SNNGraph, found: Evaluation, classes: int) -> list[str]:
    """Return a sentence for each: a silent layer, accuracy at chance; with the rates of all layers.

    Args:
        graph: the network before pruning.
        found: what it made of validation.
        classes: of the data.
    """
    rates = found.counts.rates()
    told = ", ".join(f"{name} {rate:.4f}" for name, rate in rates.items())
    notes = []
    silent = [name for name, rate in rates.items() if rate < SILENT_RATE]
    if silent:
        names = ", ".join(f"'{name}'" for name in silent)
        notes.append(
            f"warning: of the given network {names} hardly spike{'s' * (len(silent) == 1)} (spikes per neuron and step: "
            f"{told}); check the scale of the input and the thresholds"
        )
    samples = len(found.labels)
    chance = 1 / classes
    if found.accuracy <= chance + 2 * np.sqrt(chance * (1 - chance) / samples):
        notes.append(
            f"warning: the given network is at chance, {found.accuracy:.1%} of {samples} validation samples with {classes} "
            f"classes (spikes per neuron and step: {told}); train it first, or check that data and network belong together"
        )
    return notes
