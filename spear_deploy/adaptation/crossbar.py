"""One hidden layer on a crossbar of few rows, learnt anew.

learnt   all layers of a network  → one hidden layer, which reads each input as a source that excites and one that inhibits

On a crossbar a source takes a row, and where a row has one sign for all its weights, an input with weights of both takes two:
a network of several layers has few left. What is offered in its place has the size that the rows and neurons leave; where the
input has too many values, the host sums over windows of it. No weight of the network is kept: the layer learns the labels and the
outputs of the trained network, with the chip's own integers from the first batch on (`learn_anew`). Every other of its
neurons inhibits: spikes meet a threshold one after another, so that excitation and inhibition have to take turns. Where the host
reads the neurons, they need neither rows nor a sign: the layer has all neurons of the chip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from spear_deploy.adaptation.few_values import find_few_values
from spear_deploy.adaptation.maps import takes_lists
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data.input_sums import INPUT_FRAME, INPUT_SUMS, INPUT_TWICE
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, IF, WEIGHTED, Array, Dense, Layer, Shape
from spear_deploy.network.classes import OUTPUTS_PER_CLASS, count_classes, read_decision, state_decision
from spear_deploy.network.graph import INPUT, SNNGraph, chain
from spear_deploy.network.host_readout import HOST_READOUT, has_host_readout, read_host_readout, state_readout
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.weight_bits import count_mixed_sign_inputs
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.util.number_format import format_shape

ANEW = "one hidden layer"
"""Name of the alternative."""
MIN_HIDDEN = 16
"""Neurons of the hidden layer below which it is not offered."""
ROWS_OF_INPUT = 0.5
"""Part of the rows that the input may take before it is summed over windows, where the hidden neurons need rows too."""
WINDOWS = (1, 2, 4, 8)
"""Sides of windows that are tried."""
LARGEST = 0.4375
"""Value that the largest stored weight of the chip stands for: learning takes steps of 1e-2."""
THRESHOLD = 30 / 7
"""Threshold over the largest weight: five strong spikes or more."""
BELOW = 1e-3
"""What a threshold that the chip spikes at lies lower, in whole numbers: a network spikes above its threshold only."""
SPREAD = 2 / 7
"""Standard deviation of the first weights over the largest."""


def find_hidden_layer(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield one hidden layer in place of all where the input needs weights of both signs and the chip's sources have one.

    Also where currents of several layers of weights add up, as in a loop or a skip: neurons that take spike after spike read one
    layer.
    """
    if profile.weights.sign.value != "presynaptic" or not takes_lists(profile) or INPUT_TWICE in graph.metadata:
        return
    few, (rows, neurons) = find_few_values(profile), (profile.core.axons_in.max_value, profile.core.neurons.max_value)
    is_one_core = profile.chip.usable_cores.max_value == 1
    has_models = profile.neuron.models.value is None or "IF" in profile.neuron.models.value
    is_on_host = has_host_readout(graph)
    if few is None or rows is None or neurons is None or not (is_one_core and has_models):
        return
    if len(graph.shape_of(graph.output)) > 1 and not is_on_host:
        return
    has_mixed_input = _has_mixed_input(graph)
    if read_decision(graph) == "each" and not is_on_host:  # output neurons learnt anew count spikes over all steps
        return
    if INPUT_SUMS in graph.metadata or INPUT_FRAME in graph.metadata or not (has_mixed_input or _adds_currents(graph)):
        return
    events, axes = profile.neuron.max_input_events_per_step.max_value, len(graph.input_shape) - 1
    windows = [(side,) * axes for side in WINDOWS]
    if is_on_host:  # no other source needs rows, so that every row more is an input more
        windows = sorted(product(WINDOWS, repeat=axes), key=lambda window: (np.prod(window), max(window, default=1)))
    window = _choose_window(graph.input_shape, windows, int(rows if is_on_host else ROWS_OF_INPUT * rows), events)
    if window is None:
        return
    classes, inputs = count_classes(graph), int(np.prod(_sum_shape(graph.input_shape, window)))
    hidden = int(neurons) if is_on_host else min(int(rows) - 2 * inputs, int(neurons) - classes)
    if hidden < MIN_HIDDEN:
        return
    summed = f", of sums over windows of {format_shape(window)} that the host forms," if window else ""
    names = tuple(layer.name for layer in graph.layers if isinstance(layer.synapse, WEIGHTED))
    what = "currents of several layers of weights that add up"
    if has_mixed_input:
        of = "a layer whose inputs have" if len(names) == 1 else "layers whose sources have"
        what = f"{of} weights of both signs"
    yield Replacement(
        layers=names,
        what=what,
        by=f"one hidden layer of {hidden} neurons; each input{summed} sent on two addresses, one for each sign; all weights anew",
        kind="learnt",
        topic="input",
        option=ANEW,
        rewrite=partial(make_hidden_layer, hidden=hidden, window=window, levels=few.levels),
    )


def _has_mixed_input(graph: SNNGraph) -> bool:
    """Return whether a value of the input has weights of both signs, directly or in the kernel that passes over it."""
    folded = fold_batchnorm(graph) if any(layer.norm is not None for layer in graph.layers) else graph
    synapses: list[Any] = [folded[edge.target].synapse for edge in folded.edges_from(INPUT)]
    return any(isinstance(synapse, (Dense, *CONVS)) and count_mixed_sign_inputs(synapse.weight) for synapse in synapses)


def _adds_currents(graph: SNNGraph) -> bool:
    """Return whether currents of several layers of weights drive the same neurons."""
    return any(len({projection.layer for projection in population.projections}) > 1 for population in find_populations(graph))


def _choose_window(shape: Shape, windows: Sequence[Shape], rows: int, events: float | None) -> Shape | None:
    """Return the first window of the input whose sums take so many rows at most, () for none; None where no window does."""
    for window in windows:
        window = window if np.prod(window) > 1 else ()
        is_even = not any(size % side for size, side in zip(shape[1:], window, strict=False))
        is_sent = events is None or int(np.prod(window)) <= events
        if is_even and is_sent and 2 * int(np.prod(_sum_shape(shape, window))) <= rows:
            return window
    return None


def _sum_shape(shape: Shape, window: Shape) -> Shape:
    """Return the shape of an input after sums over windows of its last axes."""
    return (*shape[:1], *(size // side for size, side in zip(shape[1:], window, strict=True))) if window else shape


def make_hidden_layer(graph: SNNGraph, *, hidden: int, window: Shape, levels: int) -> SNNGraph:
    """Return a network of one hidden layer with random weights, on the values that the chip stores.

    Args:
        graph: names the shapes of input and output, and the readout if it is on the host.
        hidden: neurons of the hidden layer; every other inhibits the output neurons, where the chip has these.
        window: of the input that the host sums, or ().
        levels: the largest stored weight.
    """
    rng, shape = np.random.default_rng(0), _sum_shape(graph.input_shape, window)
    inputs, classes, unit = int(np.prod(shape)), count_classes(graph), LARGEST / levels
    first = levels * SPREAD * rng.standard_normal((hidden, inputs))
    pairs = np.stack([np.maximum(first, 0), np.minimum(first, 0)], axis=2).reshape(hidden, 2 * inputs)
    threshold = np.asarray((np.rint(levels * THRESHOLD) - BELOW) * unit)

    def make_layer(name: str, weight: Array) -> Layer:
        stored = np.clip(np.rint(weight), -levels, levels) * unit
        neuron = IF(v_threshold=threshold, reset="value", v_min=np.zeros(()), max_spikes=None)
        return Layer(name=name, synapse=Dense(weight=stored.astype(np.float32)), neuron=neuron)

    host = read_host_readout(graph)
    dropped = ("kept_channels", OUTPUTS_PER_CLASS, HOST_READOUT)
    kept = graph if host is not None else state_decision(graph, "mean")  # spikes are counted
    metadata = {key: value for key, value in kept.metadata.items() if key not in dropped}
    metadata |= {INPUT_TWICE: list(shape), **({INPUT_SUMS: list(window)} if window else {})}
    layers = [make_layer("hidden", pairs)]
    if host is not None:
        alone = chain(layers, input_shape=(2 * inputs,), dt_s=graph.dt_s, metadata=metadata)
        weight = (rng.random((classes, hidden)) * 2 - 1) / np.sqrt(hidden)
        return state_readout(alone, replace(host.layers[-1], synapse=Dense(weight=weight.astype(np.float32)), norm=None))
    signs = np.where(np.arange(hidden) % 2, -1.0, 1.0)
    layers.append(make_layer(graph.output, 2 * levels * SPREAD * rng.random((classes, hidden)) * signs))
    return chain(layers, input_shape=(2 * inputs,), dt_s=graph.dt_s, metadata=metadata)
