"""What does each layer hold and do? Shape, weights, SynOps, spikes and rate, as plain data for the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import WEIGHTED
from spear_deploy.training import Evaluation


def layer_facts(graph: SNNGraph, found: Evaluation) -> dict[str, Any]:
    """Return what an evaluation says of a network.

    Returns:
        {accuracy, synops, macs, steps, samples, input {name, shape, neurons, spikes, rate}, layers [{name, synapse, neuron,
        shape, neurons, weights, synops, spikes, rate}]}: `synops` and `spikes` per inference, mean over samples; `rate` in
        spikes per neuron and step; `weights` are those that are not zero; None where a layer has no such thing.
    """
    counts = found.counts
    rates = counts.rates()

    def active(name: str) -> dict[str, Any]:
        shape = graph.shape_of(name)
        sent = counts.sent.get(name)
        total = None if sent is None else float(sent.sum()) / counts.samples
        neurons = int(np.prod(shape))
        rate = rates.get(name) if name != INPUT or total is None else total / (neurons * counts.steps)
        return {"name": name, "shape": list(shape), "neurons": neurons, "spikes": total, "rate": rate}

    def row(layer: Any) -> dict[str, Any]:
        weighted = isinstance(layer.synapse, WEIGHTED)
        return {
            **active(layer.name),
            "synapse": None if layer.synapse is None else type(layer.synapse).__name__,
            "neuron": None if layer.neuron is None else type(layer.neuron).__name__,
            "weights": int(np.count_nonzero(layer.synapse.weight)) if weighted else None,
            "synops": found.synops.per_layer.get(layer.name),
        }

    return {
        "accuracy": found.accuracy,
        "synops": found.synops.total,
        "macs": found.synops.macs_first_layer,
        "steps": counts.steps,
        "samples": counts.samples,
        "input_kind": counts.input_kind,
        "input": active(INPUT),
        "layers": [row(layer) for layer in graph.layers],
    }
