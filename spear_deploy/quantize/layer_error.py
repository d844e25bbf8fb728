"""How well does one layer do in integers, on data? Alone, on what the floating-point network's neurons sent it.

So layers are judged one by one, and no error of an earlier layer hides that of a later one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from spear_deploy.network import CONVS, WEIGHTED, Array, Neuron, Synapse
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fold import summed
from spear_deploy.quantize.weighted_inputs import Target
from spear_deploy.simulator import InputKind, neurons, simulate
from spear_deploy.simulator.stepper import value_of

MOST_SAMPLES = 32
"""Samples that layers are judged on: every candidate of every layer runs on them."""
MOST_PRODUCTS = 1e10
"""What one candidate of every layer may multiply, some seconds on a core: a large network is judged on fewer samples."""
STATE_LIMIT = 2**15
"""A current of 16 bits stays below this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """A run of the floating-point network.

    Attributes:
        graph: it, with sums in place of means.
        emitted: spikes of its layers, (T, B, *shape), and the input in the form that the integer network takes.
        potentials: v of its readouts.
    """

    graph: SNNGraph
    emitted: Mapping[str, Array]
    potentials: Mapping[str, Array]


class Verdict(NamedTuple):
    """How a layer in integers did; the lesser is the better.

    Attributes:
        clips: 2 where a current leaves its bits, or could while the spikes of a step are added up one by one, in whatever order
            (a chip clips after each, the simulator after all); 1 where a potential does, which is the same in both; else 0.
        error: mean difference to floating point: of spikes, in their number so far, so that a spike a step late costs a step's
            worth, and one too many costs every step from there; of a readout, in its potential, as a share of the mean.
        most: the largest number of spikes in a step, or 0.
    """

    clips: int
    error: float
    most: int


UNKNOWN = Verdict(clips=0, error=0.0, most=0)
"""Without evidence."""


def several_spikes(target: Target, verdict: Verdict) -> list[dict[str, Any]]:
    """Return a finding where a neuron sent several spikes in a step, of which the floating-point network sends one at most."""
    if verdict.most <= 1:
        return []
    return [{"layer": target.name, "what": "spikes_per_step", "given": 1.0, "stored": float(verdict.most)}]


def gathered(graph: SNNGraph, x: Array, sent: Array, kind: InputKind) -> Evidence:
    """Run the floating-point network on the first samples of the calibration.

    Args:
        graph: see `targets.targets`.
        x: (T, B, *input) as the floating-point network takes it.
        sent: the same as the integer network takes it.
        kind: of the input.
    """
    samples = int(np.clip(MOST_PRODUCTS / max(len(x) * _products(graph), 1), 1, MOST_SAMPLES))
    run = simulate(graph, x[:, :samples], kind=kind, record=("spikes", "v"), dtype=np.float64)
    readouts = {layer.name: run.v[layer.name] for layer in graph.layers if layer.neuron is not None and not layer.spikes}
    emitted = {INPUT: sent[:, :samples], **run.spikes}
    return Evidence(graph=graph.with_layers(summed), emitted=emitted, potentials=readouts)


def _products(graph: SNNGraph) -> int:
    """Return how many weights one step of one sample is multiplied with, borders aside."""
    total = 0
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED):
            positions = int(np.prod(graph.shape_of(layer.name)[1:])) if isinstance(layer.synapse, CONVS) else 1
            total += layer.synapse.weight.size * positions
    return total


@dataclass(frozen=True, kw_only=True, eq=False)
class Driven:
    """What integer weights make of the spikes that reach them.

    Attributes:
        drive: their sums, (T, B, *shape).
        most: the sums of their magnitudes, where each spike is added by itself to a current of 16 bits.
    """

    drive: Array
    most: Array | None = None


def driven(evidence: Evidence, target: Target, synapses: Mapping[str, Synapse], *, one_by_one: bool = True) -> Driven:
    """Pass what the floating-point network's neurons sent through the integer synapses of one layer.

    Args:
        evidence, target, synapses: the run, the layer, its integers.
        one_by_one: whether the chip clips while it adds up the spikes of a step.
    """

    def sums(of: Mapping[str, Synapse]) -> Array:
        graph = evidence.graph
        graph = graph.with_layers({name: replace(graph[name], synapse=synapse) for name, synapse in of.items()})
        return value_of(graph, target.name, evidence.emitted)

    most = sums({name: _absolute(synapse) for name, synapse in synapses.items()}) if one_by_one else None
    return Driven(drive=sums(synapses), most=most)


def judged(evidence: Evidence, target: Target, given: Driven, neuron: Neuron, scale: float) -> Verdict:
    """Run one layer in integers and hold it against the floating-point one.

    Args:
        evidence, target: the floating-point run, and the layer.
        given: what reaches the neuron.
        neuron: the integer neuron.
        scale: how much larger its potential is than the floating-point one.
    """
    shape = given.drive.shape
    emitted, u = np.empty(shape, np.int64), np.zeros(shape, np.int64) if neurons.has_current(neuron) else None
    state = neurons.start(neuron, shape[1], shape[2:], 1.0, np.int64)
    neurons.run(neuron, state, given.drive, emitted, u=u)
    clips = _clips(neurons.overflows(neuron, state), u, given.most)
    if not target.readout:
        error = float(np.abs(np.cumsum(emitted - evidence.emitted[target.name], axis=0)).mean())
        return Verdict(clips=clips, error=error, most=int(emitted.max()))
    wanted = evidence.potentials[target.name] - target.level
    error = float(np.abs(emitted / scale - wanted).mean() / max(float(np.abs(wanted).mean()), 1e-12))
    return Verdict(clips=clips, error=error, most=0)


def _clips(found: Mapping[str, int], u: Array | None, most: Array | None) -> int:
    """Return `Verdict.clips` from the counted overflows, the current, and what is added to it one by one."""
    if u is not None and most is not None:
        before = np.concatenate([np.zeros_like(u[:1]), np.abs(u[:-1])])
        if (most + before).max() >= STATE_LIMIT:
            return 2
    return 2 if found.get("u_wrapped") else int(bool(found))


def _absolute(synapse: Any) -> Any:
    return replace(synapse, weight=np.abs(synapse.weight))
