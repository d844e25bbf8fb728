"""What would other tools' rules say for the same run?

SynOps of two tools do not compare unless their rules do. Each rule here is evaluated on the same spike counts:

    exact           spikes × existing synapses (ours)
    all_weights     spikes × synapses, zero weights included (sinabs' connection map)
    kernel          spikes × out_channels · kernel positions / groups: stride and borders ignored (Norse's counter)
    mean_rate       mean spikes per input × weights × output positions: borders charged (syops-counter)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy import linear
from spear_deploy.graph import SNNGraph, carries_spikes
from spear_deploy.layers import CONVS, WEIGHTED, Array, Layer, Scale
from spear_deploy.simulator import SpikeCounts
from spear_deploy.synops import arriving, has_synapses, through_pool

RULES = ("exact", "all_weights", "kernel", "mean_rate")


def count_by_rules(graph: SNNGraph, counts: SpikeCounts) -> dict[str, float]:
    """Return the total of each rule per inference, for spikes only (no MACs of an analogue input)."""
    totals = dict.fromkeys(RULES, 0.0)
    for layer in graph.layers:
        edges = [edge for edge in graph.incoming(layer.name) if carries_spikes(graph, edge.source)]
        if counts.input_kind == "current":
            edges = [edge for edge in edges if edge.source != "input"]
        if has_synapses(layer) and edges:
            spikes = sum(through_pool(layer, arriving(graph, counts, edge)) for edge in edges)
            for rule, value in _by_rules(graph, layer, np.asarray(spikes, np.float64)).items():
                totals[rule] += value / counts.samples
    return totals


def _by_rules(graph: SNNGraph, layer: Layer, spikes: Array) -> dict[str, float]:
    total = float(spikes.sum())
    synapse: Any = layer.synapse
    if not isinstance(synapse, WEIGHTED) or isinstance(synapse, Scale):
        return dict.fromkeys(RULES, total)
    shape = graph.input_shape_of(layer.name)
    exact = linear.fan_out(synapse, shape)
    full = linear.fan_out(replace(synapse, weight=np.ones_like(synapse.weight)), shape)
    outputs = len(synapse.weight)
    positions = int(np.prod(synapse.output_shape(shape)[1:]))
    kernel = int(np.prod(synapse.weight.shape[2:])) / synapse.groups if isinstance(synapse, CONVS) else 1
    return {
        "exact": float(np.vdot(spikes, exact)),
        "all_weights": float(np.vdot(spikes, full)),
        "kernel": total * outputs * kernel,
        "mean_rate": total / spikes.size * synapse.weight.size * positions,
    }
