"""Biases on chips whose neurons have none, by thresholds of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED, Layer
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fold import fold_batchnorm

LOWEST = 0.25
"""Part of a threshold that a shift leaves at least."""


def find_biases(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers whose weights have a bias, or a batch norm that becomes one, where neurons of the chip have none."""
    if profile.neuron.bias.value is not False:
        return
    names = tuple(layer.name for layer in graph.layers if layer.norm is not None or _has_bias(layer))
    if names:
        yield Replacement(
            layers=names, what="a bias", by="a threshold lower by the bias", kind="learnt", topic="bias",
            rewrite=partial(shift_thresholds),
        )  # fmt: skip


def _has_bias(layer: Layer) -> bool:
    bias = getattr(layer.synapse, "bias", None)
    return bias is not None and bool(np.any(bias))


def shift_thresholds(graph: SNNGraph) -> SNNGraph:
    """Return the network without biases: what a step's bias adds to v is taken off the threshold, at most three quarters of it.

    The bias of weights whose neurons lie in another layer, or do not spike, is left out. Weights keep the type that they have:
    those of a norm are folded in float64, and learnt and run in float32.
    """
    types = {layer.synapse.weight.dtype for layer in graph.layers if isinstance(layer.synapse, WEIGHTED)}
    graph = fold_batchnorm(graph)
    dtype = np.result_type(*types) if types else np.dtype(np.float32)

    def shift(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, WEIGHTED) or synapse.bias is None:
            return layer
        neuron: Any = layer.neuron
        bare = replace(synapse, weight=synapse.weight.astype(dtype, copy=False), bias=None)
        if neuron is None or not layer.spikes:
            return replace(layer, synapse=bare)
        shape = graph.shape_of(layer.name)
        bias = np.asarray(synapse.bias, np.float64)
        bias = bias.reshape(-1, *(1 for _ in shape[1:])) if bias.ndim == 1 else bias
        rate = graph.dt_s / getattr(neuron, "tau_s", getattr(neuron, "tau_mem_s", graph.dt_s))
        lowered = np.maximum(neuron.v_threshold - rate * neuron.r * bias, LOWEST * neuron.v_threshold)
        return replace(layer, synapse=bare, neuron=replace(neuron, v_threshold=lowered))

    return graph.with_layers(shift)
