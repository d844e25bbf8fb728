"""Error of one integer layer on the spikes of the floating-point network.

Each layer runs alone on what the floating-point neurons before it sent. So no error of an earlier layer hides that of a later
one, and the integers of each layer can be chosen separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import CONVS, WEIGHTED, Array, Neuron, Synapse, find_max_spikes
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.quantize.weighted_inputs import NeuronInput
from spear_deploy.simulator import InputKind, neurons, simulate
from spear_deploy.simulator.stepper import synaptic_input

MAX_SAMPLES = 32
"""Samples that a layer's error is measured on: every candidate of every layer runs on them."""
MAX_PRODUCTS = 1e10
"""Multiplications of one candidate of every layer, some seconds on a core: a large network is measured on fewer samples."""
STATE_LIMIT = 2**15
"""A current of 16 bits stays below this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatRun:
    """A run of the floating-point network.

    Attributes:
        graph: the network, with sums in place of means.
        emitted: spikes of its layers, (T, B, *shape), and the input in the form that the integer network takes.
        potentials: v of its readouts.
    """

    graph: SNNGraph
    emitted: Mapping[str, Array]
    potentials: Mapping[str, Array]


class LayerError(NamedTuple):
    """Error of a layer in integers; errors are compared in the order of the fields, and the smaller is the better.

    Attributes:
        clips: 2 where a current leaves its bits, or could while the spikes of a step are added up in some order (a chip clips
            after each spike, the simulator after all); 1 where a potential does, which is the same in both; else 0.
        difference: mean difference to floating point: of spikes, in their number so far, so that a spike a step late counts for
            one step, and one too many for every step from there; of a readout, in its potential, as a share of the mean.
        max_spikes: the largest number of spikes of a neuron in a step; 0 for a readout.
    """

    clips: int
    difference: float
    max_spikes: int


NOT_MEASURED = LayerError(clips=0, difference=0.0, max_spikes=0)
"""The error of a layer without data."""


def report_several_spikes(layer: NeuronInput, error: LayerError) -> list[dict[str, Any]]:
    """Return a finding where a neuron sent more spikes in a step than the floating-point neuron may."""
    most = find_max_spikes(layer.neuron)
    if most is None or error.max_spikes <= most:
        return []
    return [{"layer": layer.name, "what": "spikes_per_step", "given": float(most), "stored": float(error.max_spikes)}]


def run_float_network(graph: SNNGraph, x: Array, *, sent: Array, kind: InputKind) -> FloatRun:
    """Run the floating-point network on the first samples of the calibration.

    Args:
        graph: see `weighted_inputs.collect_neuron_inputs`.
        x: (T, B, *input) as the floating-point network takes it.
        sent: the same input as the integer network takes it.
        kind: of the input.
    """
    samples = int(np.clip(MAX_PRODUCTS / max(len(x) * count_products(graph), 1), 1, MAX_SAMPLES))
    run = simulate(graph, x[:, :samples], kind=kind, record=("spikes", "v"), dtype=np.float64)
    readouts = {layer.name: run.v[layer.name] for layer in graph.layers if layer.neuron is not None and not layer.spikes}
    emitted = {INPUT: sent[:, :samples], **run.spikes}
    return FloatRun(graph=graph.with_layers(replace_mean_by_sum), emitted=emitted, potentials=readouts)


def count_products(graph: SNNGraph) -> int:
    """Return the multiplications of one step of one sample, without the borders of convolutions."""
    total = 0
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED):
            positions = int(np.prod(graph.shape_of(layer.name)[1:])) if isinstance(layer.synapse, CONVS) else 1
            total += layer.synapse.weight.size * positions
    return total


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerDrive:
    """Sums of integer weights over the spikes that reach them.

    Attributes:
        sums: (T, B, *shape).
        magnitudes: sums of the weights' magnitudes, where each spike is added by itself to a current of 16 bits.
    """

    sums: Array
    magnitudes: Array | None = None


def drive_layer(
    float_run: FloatRun, layer: NeuronInput, *, synapses: Mapping[str, Synapse], spike_by_spike: bool = True
) -> LayerDrive:
    """Pass the spikes of the floating-point network through the integer synapses of one layer.

    Args:
        float_run, layer, synapses: the run, the layer, its integers.
        spike_by_spike: whether the chip clips while it adds up the spikes of a step.
    """

    def add_up(synapses: Mapping[str, Synapse]) -> Array:
        graph = float_run.graph
        graph = graph.with_layers({name: replace(graph[name], synapse=synapse) for name, synapse in synapses.items()})
        return synaptic_input(graph, layer.name, float_run.emitted)

    if not spike_by_spike:
        return LayerDrive(sums=add_up(synapses))
    known: Mapping[str, Any] = synapses
    magnitudes = {name: replace(synapse, weight=np.abs(synapse.weight)) for name, synapse in known.items()}
    return LayerDrive(sums=add_up(synapses), magnitudes=add_up(magnitudes))


def measure_layer_error(
    float_run: FloatRun,
    layer: NeuronInput,
    *,
    drive: LayerDrive,
    neuron: Neuron,
    scale: float,
    constants: Mapping[str, Array] | None = None,
) -> LayerError:
    """Run one layer in integers and compare it with the floating-point layer.

    Args:
        float_run, layer: the floating-point run, and the layer.
        drive: what reaches the neuron.
        neuron: the integer neuron.
        scale: its potential over the floating-point one.
        constants: further constants of its update.

    Raises:
        DataError: more arrives than exact sums hold; names the layer.
    """
    shape = (*drive.sums.shape[:2], *layer.shape)
    emitted, u = np.empty(shape, np.int64), np.zeros(shape, np.int64) if neurons.has_current(neuron) else None
    state = neurons.start(neuron, shape[1], shape[2:], 1.0, np.int64)
    state.constants |= constants or {}
    try:
        neurons.run(neuron, state, drive.sums, emitted, u=u)
    except DataError as error:
        raise DataError(f"layer '{layer.name}': {error}") from None
    clips = _grade_clips(neurons.count_overflows(neuron, state), u, drive.magnitudes)
    if not layer.readout:
        difference = float(np.abs(np.cumsum(emitted - float_run.emitted[layer.name], axis=0)).mean())
        return LayerError(clips=clips, difference=difference, max_spikes=int(emitted.max()))
    wanted = float_run.potentials[layer.name] - layer.level
    difference = float(np.abs(emitted / scale - wanted).mean() / max(float(np.abs(wanted).mean()), 1e-12))
    return LayerError(clips=clips, difference=difference, max_spikes=0)


def _grade_clips(overflows: Mapping[str, int], u: Array | None, magnitudes: Array | None) -> int:
    """Return `LayerError.clips` from the counted overflows, the current, and the magnitudes that are added to it."""
    if u is not None and magnitudes is not None:
        before = np.concatenate([np.zeros_like(u[:1]), np.abs(u[:-1])])
        if (magnitudes + before).max() >= STATE_LIMIT:
            return 2
    return 2 if overflows.get("u_wrapped") else int(bool(overflows))
