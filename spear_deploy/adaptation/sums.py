"""Weighted sums at a network's output, which no neuron takes.

exact    a weighted sum  → a readout with a time constant of one step, which holds the sum of its step
learnt   a weighted sum  → spikes of output neurons that integrate it, counted; of several a class if they fit
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.neurons import SPIKING, convert_neuron, offer_counts, shortest_current_steps
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.budget.unsupported import WEIGHTED_SUM
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import IF, LI, CubaLI
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.populations import ends_in_weighted_sum


def find_sums(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield what stands in for a weighted sum at the network's output: a readout of the chip, or spikes that are counted."""
    models = profile.neuron.models.value or ()
    if not ends_in_weighted_sum(graph) or graph.edges_from(graph.output):
        return
    one_step = LI(tau_s=np.asarray(graph.dt_s))
    readout = next((model for model in (LI, CubaLI) if model.__name__ in models), None)
    if readout is not None:
        neuron = one_step if readout is LI else convert_neuron(one_step, model=CubaLI, dt_s=graph.dt_s, profile=profile)
        yield Replacement(
            layers=(graph.output,), what=WEIGHTED_SUM, by=f"{readout.__name__} with a time constant of one step",
            kind="exact" if readout is LI or shortest_current_steps(profile) == 1 else "learnt", topic="readout",
            rewrite=partial(_end_in, neuron=neuron),
        )  # fmt: skip
        return
    model = next((model for model in SPIKING if model.__name__ in models), None)
    if model is not None:
        integrator = IF(reset="subtract" if "subtract" in (profile.neuron.resets.value or ()) else "value")
        neuron = integrator if model is IF else convert_neuron(integrator, model=model, dt_s=graph.dt_s, profile=profile)
        offer = Replacement(
            layers=(graph.output,), what=WEIGHTED_SUM, by=f"spikes of {model.__name__} output neurons, counted", kind="learnt",
            topic="readout", rewrite=partial(_end_in, neuron=neuron),
        )  # fmt: skip
        yield from offer_counts(offer, graph, profile)


def _end_in(graph: SNNGraph, *, neuron: Any) -> SNNGraph:
    """Return the network whose output layer has neurons."""
    return graph.with_layers({graph.output: replace(graph[graph.output], neuron=neuron)})
