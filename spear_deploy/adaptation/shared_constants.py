"""Thresholds, time constants and r that the neurons of a chip share, learnt anew.

    θ, tau, r of each neuron → the mean of those that share them        learnt, in units in which they have one threshold

Where other units are enough, quantization takes them by itself (`quantize.even_neurons`), and nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.even_neurons import GROUP_WORDS, Uneven, average_shared, find_uneven


def find_shared_constants(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers whose neurons have constants that differ where those of the chip share them, with their mean."""
    sharing = profile.neuron.constants_of.value or "neuron"
    for layer in graph.layers:
        uneven = find_uneven(graph, layer, sharing, profile.meta.family)
        if uneven is not None:
            yield Replacement(
                layers=(layer.name,),
                what=uneven.describe(),
                by=f"their mean over {GROUP_WORDS[uneven.sharing]}",
                kind="learnt",
                topic="constants",
                rewrite=partial(_average, name=layer.name, uneven=uneven),
            )


def _average(graph: SNNGraph, *, name: str, uneven: Uneven) -> SNNGraph:
    return graph.with_layers({name: replace(graph[name], neuron=average_shared(graph, graph[name], uneven))})
