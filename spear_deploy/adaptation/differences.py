"""First spikes that differ after a replacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spear_deploy.data import Split
from spear_deploy.data.input_sums import sum_split
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize import quantize_input
from spear_deploy.simulator import ChipRun, simulate
from spear_deploy.simulator.spike_comparison import compare_arrays

SAMPLES = 32
"""Samples that spikes are compared on."""


def find_first_difference(before: SNNGraph, after: SNNGraph, split: Split) -> dict[str, Any] | None:
    """Return where the spikes of two networks differ first, along the layers: {layer, step, share of its values that differ}.

    Layers that one of them lacks, or that have other neurons, are not compared. None where all spikes are equal.

    Args:
        before, after: floating-point networks, or the integers of one.
        split: the first `SAMPLES` are used, as a floating-point network takes them.
    """
    samples = split.head(SAMPLES)

    def run(graph: SNNGraph) -> ChipRun:
        own = sum_split(samples, graph)
        x = quantize_input(graph, own.x, own.kind) if graph.is_integer else own.x
        return simulate(graph, np.moveaxis(x, 0, 1), kind=own.kind, record=("spikes",))

    old, new = run(before).spikes, run(after).spikes
    for layer in after.layers:
        name = layer.name
        if name not in new or name not in old or new[name].size != old[name].size:
            continue
        difference = compare_arrays(name, old[name], new[name])
        if difference.first is not None:
            share = difference.mismatches / difference.compared
            return {"layer": name, "step": difference.first["step"], "share": share}
    return None


def describe_difference(difference: Mapping[str, Any] | None, labels: Mapping[str, str] | None = None) -> str:
    """Return a difference in words, its layer under the label of `label_layers`; empty where there is none.

    >>> describe_difference({"layer": "conv1", "step": 2, "share": 0.0312})
    'conv1 from step 2 (3.1 %)'
    """
    if difference is None:
        return ""
    layer = (labels or {}).get(difference["layer"], difference["layer"])
    return f"{layer} from step {difference['step']} ({100 * difference['share']:.1f} %)"
