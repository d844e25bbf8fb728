"""How active is the network? Spike counts that were measured, or a rate that is assumed and said."""

from __future__ import annotations

import numpy as np

from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import SpikeCounts
from spear_deploy.util.number_format import plural


def resolve_activity(
    graph: SNNGraph, activity: SpikeCounts | float | None, steps: int | None
) -> tuple[SpikeCounts | None, tuple[str, ...]]:
    """Return spike counts, and in words what was assumed for them.

    Args:
        graph: the network.
        activity: counts of a run, a rate (spikes per step of every neuron and input), or None where nobody knows.
        steps: of an inference, for a rate; else the network's `metadata["steps"]`, or 1.
    """
    if activity is None:
        return None, ()
    if isinstance(activity, SpikeCounts):
        return activity, (f"activity: measured, {activity.samples} samples of {activity.steps} steps",)
    used = steps or int(graph.metadata.get("steps", 0)) or 1
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    sent = {name: np.full(graph.shape_of(name), activity * used) for name in names}
    note = f"activity: assumed, {activity:g} spikes per step of every neuron and input, {plural(used, 'step')} per inference"
    return SpikeCounts(sent=sent, steps=used, samples=1), (note,)
