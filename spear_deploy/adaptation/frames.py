"""Potentials over steps on chips that keep none, by one frame of whole numbers.

learnt   steps of spikes     → the host counts the spikes of each input over all steps, one frame of whole numbers
         a potential         → forgotten after a step; a neuron sends as many spikes in it as thresholds lie below the potential

What such a neuron sends is a quantised ReLU of its input: 0 to 15 on Akida, whose activations have four bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data.input_sums import INPUT_FRAME
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import IF, LI, LIF, READOUTS, CubaLI, CubaLIF, Layer
from spear_deploy.network.classes import read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import change_joined
from spear_deploy.network.neurons import SAME_TAU


def forgets(profile: HardwareProfile) -> bool:
    """Return whether a chip keeps no potential from one step to the next."""
    return profile.neuron.tau_max_steps.max_value == 1


def keeps_potential(neuron: Any, dt_s: float) -> bool:
    """Return whether what a neuron sends depends on steps before."""
    if not isinstance(neuron, (LIF, LI)):
        return neuron is not None
    return bool((np.abs(np.asarray(neuron.tau_s) / dt_s - 1) > SAME_TAU).any()) or bool(getattr(neuron, "reset_delay", 0))


def find_frames(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield one frame in place of all steps where the chip keeps no potential and the network does."""
    if not forgets(profile) or not all(isinstance(layer.neuron, (IF, LIF, LI, CubaLIF, CubaLI)) or layer.neuron is None
                                       for layer in graph.layers):  # fmt: skip
        return
    if read_decision(graph) == "each":  # one frame has one answer
        return
    names = tuple(layer.name for layer in graph.layers if keeps_potential(layer.neuron, graph.dt_s))
    if not names or any(edge.delay for edge in graph.edges):
        return
    spikes, inputs = profile.neuron.max_spikes_per_step.max_value, profile.neuron.max_input_events_per_step.max_value
    most, largest = int(spikes or 1), int(inputs or 1)
    yield Replacement(
        layers=names,
        what="a potential over steps",
        by=f"one frame of spikes that the host counts, up to {largest} of an input and {most} of a neuron",
        kind="learnt",
        topic="time_constant",
        rewrite=change_joined(partial(forget_steps, most=most, largest=largest)),
    )


def forget_steps(graph: SNNGraph, *, most: int, largest: int) -> SNNGraph:
    """Return the network of one frame: neurons with a time constant of one step, which an input drives as in all steps before.

    Args:
        graph: of floating-point neurons.
        most: spikes that a neuron sends at most.
        largest: value of an input at most.
    """

    def forget(layer: Layer) -> Layer:
        neuron: Any = layer.neuron
        if neuron is None:
            return layer
        one_step = np.full(np.shape(getattr(neuron, "tau_s", 0.0)), graph.dt_s)
        tau = getattr(neuron, "tau_s", getattr(neuron, "tau_mem_s", graph.dt_s))
        gain = neuron.r * getattr(neuron, "w_in", 1.0) * (graph.dt_s / tau)
        level = neuron.v_reset if getattr(neuron, "reset", "") == "value" else 0.0
        if isinstance(neuron, READOUTS):
            return replace(layer, neuron=LI(tau_s=one_step, r=gain))
        threshold = neuron.v_threshold - level
        return replace(layer, neuron=LIF(tau_s=one_step, r=gain, v_threshold=threshold, max_spikes=most))

    return graph.with_layers(forget, metadata={**graph.metadata, INPUT_FRAME: largest})
