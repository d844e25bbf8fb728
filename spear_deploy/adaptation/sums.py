"""Weighted sums at a network's output, which no neuron takes.

exact    a weighted sum  → a readout with a time constant of one step, which holds the sum of its step
exact    votes: the sums of neighbouring neurons, one sum a class  → the spikes of these neurons, counted by the host
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
from spear_deploy.network import IF, LI, CubaLI, Dense
from spear_deploy.network.classes import OUTPUTS_PER_CLASS, count_per_class
from spear_deploy.network.graph import INPUT, SNNGraph
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
    if (voters := _count_voters(graph)) and _sends(graph, voters, profile):
        yield Replacement(
            layers=(graph.output,), what=WEIGHTED_SUM, by=f"spikes of {voters} output neurons a class, counted", kind="exact",
            topic="readout", rewrite=partial(_end_before, voters=voters),
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


def _count_voters(graph: SNNGraph) -> int:
    """Return how many neighbouring neurons each output adds up, with one weight for all; 0 where it does anything else."""
    layer, into = graph[graph.output], graph.edges_into(graph.output)
    weight = np.asarray(layer.synapse.weight) if isinstance(layer.synapse, Dense) else np.zeros((1, 1))
    outputs, inputs = weight.shape
    source = graph[into[0].source] if len(into) == 1 and into[0].source != INPUT else None
    if source is None or not source.spikes or into[0].delay or len(graph.edges_from(source.name)) > 1:
        return 0
    if layer.norm is not None or np.any(layer.synapse.bias if layer.synapse.bias is not None else 0):  # type: ignore[union-attr]
        return 0
    if graph.shape_of(source.name) != (inputs,) or inputs % outputs or inputs == outputs or count_per_class(graph) > 1:
        return 0
    voters, factor = inputs // outputs, weight[0, 0]
    return voters if factor > 0 and np.array_equal(weight, np.kron(np.eye(outputs), np.full((1, voters), factor))) else 0


def _sends(graph: SNNGraph, voters: int, profile: HardwareProfile) -> bool:
    """Return whether a chip sends the spikes of all neurons that vote."""
    limit = profile.connectivity.output_channels.max_value
    return limit is None or voters * graph.shape_of(graph.output)[0] <= limit


def _end_before(graph: SNNGraph, *, voters: int) -> SNNGraph:
    """Return the network without its output layer: it ends in the neurons that vote."""
    (edge,) = graph.edges_into(graph.output)
    return replace(
        graph,
        layers=tuple(layer for layer in graph.layers if layer.name != graph.output),
        edges=tuple(each for each in graph.edges if each != edge),
        output=edge.source,
        metadata={**graph.metadata, OUTPUTS_PER_CLASS: voters},
    )


def _end_in(graph: SNNGraph, *, neuron: Any) -> SNNGraph:
    """Return the network whose output layer has neurons."""
    return graph.with_layers({graph.output: replace(graph[graph.output], neuron=neuron)})
