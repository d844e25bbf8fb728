"""Populations and projections of a floating-point network, in sPyNNaker's units.

With dt the step in ms and the factors of `simulator.neurons.factors` (mem = dt / tau_mem, syn = dt / tau_syn, jump), all in
float32 as the network computes with them, and a scale s, a power of two for each layer, a population is

    tau_m   ← −dt / ln(1 − mem)        exp(−dt / tau_m) is then what the network's membrane keeps
    cm      ← tau_m                    a resistance of 1
                                       a membrane that keeps nothing: dt / 1024
    v_rest  ← s · v_leak               v_reset, v_thresh likewise; v starts at v_rest, tau_refrac is 0
    LIF     IF_curr_delta, which acts as a current of one step: weight ← s · r · dt · W
    CubaLIF IF_curr_exp, tau_syn ← −dt / ln(1 − syn);  weight ← s · r · jump / ((tau_syn / dt) · syn) · W

A bias is the weight of a source that spikes in every step. Layers without neurons are unrolled into lists of single weights,
those of 0 left out. Where pools let a source reach a neuron through several weights, one synapse has their sum if a kernel or a
matrix does (`quantize.fuse_pools`), else each is a synapse: so sPyNNaker rounds what the chip's integers here have rounded. A
spike takes one step at least: a layer acts `offset` steps later than in the network.

Before its first step a neuron has to be quiet. One that starts elsewhere than at v_rest gets the difference in that step, from a
source that spikes once. One whose v_leak is not below its threshold has a lower v_rest, and the difference as a bias.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.reset_words import name_one_spike, name_resets
from spear_deploy.network import (
    LI,
    LIF,
    POOLS,
    READOUTS,
    WEIGHTED,
    Array,
    CubaLI,
    CubaLIF,
    Flatten,
    Layer,
    find_start,
    sends_several,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.spike_paths import SpikePath, find_spike_paths
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.quantize.fuse_pools import fuse_pools
from spear_deploy.simulator import neurons as neuron_models
from spear_deploy.simulator.synapse_math import make_weigher
from spear_deploy.util.files import replace_file

MODELS = (LIF, CubaLIF, LI, CubaLI)
HIGHEST = 2.0**14
"""Potential that a layer reaches at most, in mV, of the 2^16 that sPyNNaker holds."""
OUT_OF_REACH = 2.0**16 - 1
"""Threshold of a readout."""
CHUNK = 256
"""Sources whose weights are unrolled at a time."""
BIAS = "bias"
"""Name of the source that spikes in every step."""
START = "start"
"""Name of the source that spikes once."""
MEMBRANE_SHARE = 2.0**-10
"""Time constant, in steps, of a membrane that keeps nothing: exp(−1024) is 0 in float64 and in sPyNNaker's `expk`."""
CURRENT_SHARE = 2.0**-5
"""Time constant, in steps, of a current of one step beside longer ones: exp(−32) is below all bounds, weights grow 32 times."""


def write_pynn(graph: SNNGraph, path: str | os.PathLike[str], *, chip: str = "spinnaker1") -> list[str]:
    """Write the populations and projections of a network, whole or not at all.

    Args:
        graph: floating-point LIF, CubaLIF, LI and CubaLI neurons.
        path: the `.npz`.
        chip: profile of the chip.

    Returns:
        What acts otherwise than in the network, one sentence each.

    Raises:
        UnsupportedError: what the neurons of sPyNNaker cannot express, by layer.
        FileError: the place is not writable.
    """
    description, arrays = build_document(graph, chip=chip)
    text = np.array(json.dumps(description, allow_nan=False))
    with replace_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays, description=text)
    steps = ", ".join(f"'{row['name']}' {row['offset']}" for row in description["populations"])
    return [f"every connection takes a step on the chip: layers act later than in the network, in steps: {steps}"]


def limit_spikes(graph: SNNGraph) -> tuple[SNNGraph, list[str]]:
    """Return the network with one spike a neuron and step, as sPyNNaker's send, and a sentence for each layer that sent more."""
    sentences: list[str] = []

    def limit(layer: Layer) -> Layer:
        if not isinstance(layer.neuron, (LIF, CubaLIF)) or not sends_several(layer.neuron):
            return layer
        sentences.append(f"layer '{layer.name}': the network sends several spikes in a step; one is written, as the chip does")
        return replace(layer, neuron=replace(layer.neuron, max_spikes=1))

    return graph.with_layers(limit), sentences


def build_document(graph: SNNGraph, *, chip: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description as plain data, and the arrays.

    Raises:
        UnsupportedError: what the neurons of sPyNNaker cannot express, by layer.
    """
    require_neurons_of_pynn(graph)
    graph = _fold(graph)
    neurons = [layer for layer in graph.layers if layer.neuron is not None]
    paths = find_spike_paths(graph)
    offsets = _find_offsets(graph, paths)
    numbers = {layer.name: number for number, layer in enumerate(neurons)}
    populations: list[dict[str, Any]] = []
    projections: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for layer in neurons:
        built = _build_population(graph, layer, [path for path in paths if path.target == layer.name])
        arrays |= {f"population{len(populations)}.{name}": value for name, value in built.values.items()}
        for part in built.lists:
            number = f"projection{len(projections)}"
            arrays |= {f"{number}.source": part.sources.astype(np.int32), f"{number}.target": part.targets.astype(np.int32)}
            arrays[f"{number}.weight"] = part.weights * built.scale
            start = offsets.get(part.source, 0)
            row = {"source": numbers.get(part.source, part.source), "target": numbers[layer.name]}
            projections.append({**row, "delay": offsets[layer.name] - start + part.delay})
        populations.append(_describe_population(layer, built, offsets[layer.name]))
    description = {
        "format": "pynn",
        "version": 1,
        "chip": chip,
        "timestep_ms": graph.dt_s * 1000,
        "inputs": int(np.prod(graph.input_shape)),
        "input_shape": list(graph.input_shape),
        "output": graph.output,
        "populations": populations,
        "projections": projections,
    }
    return description, arrays


def require_neurons_of_pynn(graph: SNNGraph) -> None:
    """Check that a network can be written, without a list of its synapses.

    Raises:
        UnsupportedError: what the neurons of sPyNNaker cannot express, by layer.
    """
    neurons = [layer for layer in graph.layers if layer.neuron is not None]
    for layer in neurons:
        _check_neuron(layer, graph)
    if graph[graph.output].neuron is None:
        raise UnsupportedError(f"layer '{graph.output}': the output has no neurons; end the network with neurons, e.g. LI")
    folded = _fold(graph)
    _find_offsets(folded, find_spike_paths(folded))
    for layer in neurons:
        _convert_neuron(layer, folded, graph.dt_s * 1000)
        _find_bias(folded, layer.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Connections:
    """Synapses from one source, as lists.

    Attributes:
        source: a layer, the input, `BIAS` or `START`.
        delay: steps beyond those that each connection takes.
        sources, targets, weights: of each synapse; weights at scale 1.
    """

    source: str
    delay: int
    sources: Array
    targets: Array
    weights: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class _Population:
    """The neurons of a layer: their parameters by name, the scale of weights and potentials, and what drives them."""

    values: Mapping[str, Array]
    scale: float
    is_delta: bool
    lists: Sequence[_Connections]


def _build_population(graph: SNNGraph, layer: Layer, ways: Sequence[SpikePath]) -> _Population:
    """Return the neurons of a layer at the scale that suits what its ways bring."""
    step_ms = graph.dt_s * 1000
    values, gain, is_delta = _convert_neuron(layer, graph, step_ms)
    values, drive = _keep_quiet(layer, values, _spread(find_start(layer.neuron), graph.shape_of(layer.name)), step_ms)
    lists = []
    for path in ways:
        sources, targets, weights = _unroll(graph, path)
        weights = weights * gain[targets]
        lists.append(_Connections(source=path.source, delay=path.delay, sources=sources, targets=targets, weights=weights))
    bias = _find_bias(graph, layer.name) * gain + drive.always
    parts = [(part.targets, part.weights) for part in lists]
    scale = _choose_scale(values, parts, np.abs(bias) + np.abs(drive.first), step_ms, is_delta=is_delta)
    values = {name: value * scale if name.startswith("v_") else value for name, value in values.items()}
    if isinstance(layer.neuron, READOUTS):
        values["v_thresh"] = np.full(len(gain), OUT_OF_REACH)
    for source, delay, weights in ((BIAS, 0, bias), (START, 0, drive.first), (START, 1, drive.second)):
        if weights.any():
            target = np.flatnonzero(weights)
            one = np.zeros(len(target), np.int64)
            lists.append(_Connections(source=source, delay=delay, sources=one, targets=target, weights=weights[target]))
    return _Population(values=values, scale=scale, is_delta=is_delta, lists=lists)


def _describe_population(layer: Layer, built: _Population, offset: int) -> dict[str, Any]:
    return {
        "name": layer.name,
        "size": len(built.values["v_rest"]),
        "cell": "IF_curr_delta" if built.is_delta else "IF_curr_exp",
        "readout": isinstance(layer.neuron, READOUTS),
        "offset": offset,
        "scale": built.scale,
    }


# ------------------------------------------------------------------------------------------------------------ neurons


def _check_neuron(layer: Layer, graph: SNNGraph) -> None:
    neuron = layer.neuron
    if not isinstance(neuron, MODELS):
        raise UnsupportedError(
            f"layer '{layer.name}': {type(neuron).__name__}, sPyNNaker's neurons leak and take real numbers; use LIF or CubaLIF "
            "in floating point, or write NIR"
        )
    if not isinstance(neuron, READOUTS) and (neuron.reset != "value" or neuron.reset_delay):
        how = f"reset '{neuron.reset}'" + (" a step late" if neuron.reset_delay else "")
        raise UnsupportedError(
            f"layer '{layer.name}': {how}, sPyNNaker's neurons are set to v_reset at once; train with "
            f"{name_resets(graph, ['value'])}"
        )
    if sends_several(neuron):
        raise UnsupportedError(
            f"layer '{layer.name}': sends several spikes in a step, sPyNNaker's neurons one; train with {name_one_spike(graph)}"
        )


def _convert_neuron(layer: Layer, graph: SNNGraph, step_ms: float) -> tuple[dict[str, Array], Array, bool]:
    """Return the parameters at scale 1, what a weight is multiplied by at each neuron, and whether a current lasts one step."""
    neuron, size = layer.neuron, int(np.prod(graph.shape_of(layer.name)))
    assert isinstance(neuron, MODELS)
    f = {name: _spread(value, graph.shape_of(layer.name)) for name, value in neuron_models.factors(neuron, graph.dt_s).items()}
    for name in {"mem", "syn"} & set(f):
        if (f[name] > 1).any():
            raise UnsupportedError(
                f"layer '{layer.name}': a time constant of {float((1 / f[name]).min()):.3g} steps, what PyNN's neurons keep from "
                "step to step is 0 or more; give it one step or more"
            )
    tau_m = _find_tau(f["mem"], step_ms, MEMBRANE_SHARE)
    values = {"tau_m": tau_m, "cm": tau_m.copy(), "v_rest": f["v_leak"]}
    values |= {"v_reset": f.get("v_reset", f["v_leak"]), "v_thresh": f.get("v_threshold", np.zeros(size))}
    if isinstance(neuron, (LIF, LI)):
        return values, f["r"] * step_ms, True
    if not (f["syn"] < 1).any():
        return values, f["r"] * f["jump"] * step_ms, True
    values["tau_syn"] = _find_tau(f["syn"], step_ms, CURRENT_SHARE)
    return values, f["r"] * f["jump"] / (values["tau_syn"] / step_ms * f["syn"]), False


def _find_tau(lost: Array, step_ms: float, shortest: float) -> Array:
    """Return the time constant, in ms, at which a share is lost in a step; `shortest` steps where all of it is."""
    lasts = lost < 1
    return np.where(lasts, -step_ms / np.log1p(-np.where(lasts, lost, 0.5)), shortest * step_ms)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drive:
    """Weights at scale 1 of what a neuron takes beside its synapses: in every step, and in the first and the second as well."""

    always: Array
    first: Array
    second: Array


def _keep_quiet(layer: Layer, values: Mapping[str, Array], start: Array, step_ms: float) -> tuple[dict[str, Array], _Drive]:
    """Return the parameters of neurons that do not spike before their first step, and what makes up for it from then on.

    A spike of weight 1 brings i = c, of which the share e is left a step later. In the first step i has to be higher by
    keep / (1 − keep) · (start − v_rest), in every step by v_leak − v_rest.
    """
    leak, threshold, keep = values["v_rest"], values["v_thresh"], np.exp(-step_ms / values["tau_m"])
    rest = leak if isinstance(layer.neuron, READOUTS) else np.where(leak < threshold, leak, threshold - 1 - np.abs(threshold))
    steps = values["tau_syn"] / step_ms if "tau_syn" in values else None
    left = np.zeros(len(leak)) if steps is None else np.exp(-1 / steps)
    brought = 1 / step_ms if steps is None else steps * (1 - left)
    held, first = leak - rest, keep / (1 - keep) * (start - rest)
    drive = _Drive(always=held * (1 - left) / brought, first=(first + held * left) / brought, second=-first * left / brought)
    return {**values, "v_rest": rest}, drive


def _choose_scale(values: Mapping[str, Array], parts: list[Any], bias: Array, step_ms: float, *, is_delta: bool) -> float:
    """Return the largest power of two at which no potential is above `HIGHEST` when each source spikes in every step."""
    highest = np.abs(bias)
    for target, weight in parts:
        highest = highest + np.bincount(target, weights=np.abs(weight), minlength=len(bias))
    highest = highest / step_ms if is_delta else highest * values["tau_syn"] / step_ms
    levels = [np.abs(values[name]) for name in ("v_rest", "v_reset", "v_thresh")]
    reach = max(float((highest + levels[0]).max()), *(float(level.max()) for level in levels), 2.0**-60)
    return float(2.0 ** np.floor(np.log2(HIGHEST / reach)))


def _spread(value: Array, shape: tuple[int, ...]) -> Array:
    """Return a parameter in float32 for each neuron, as float64."""
    return np.broadcast_to(value.astype(np.float32).astype(np.float64), shape).reshape(-1).copy()


# ------------------------------------------------------------------------------------------------------------ weights


def _fold(graph: SNNGraph) -> SNNGraph:
    """Return the network with weights of float32, norms and pools folded into them as in the integers of the chip."""

    def convert(layer: Layer) -> Layer:
        synapse = layer.synapse
        if synapse is None or isinstance(synapse, (Flatten, *POOLS)):
            return layer
        bias = None if synapse.bias is None else synapse.bias.astype(np.float32).astype(np.float64)
        return replace(layer, synapse=replace(synapse, weight=synapse.weight.astype(np.float32).astype(np.float64), bias=bias))

    graph = replace(graph, layers=tuple(convert(layer) for layer in graph.layers))
    return fuse_pools(fold_batchnorm(graph))


def _find_offsets(graph: SNNGraph, paths: list[SpikePath]) -> dict[str, int]:
    """Return by how many steps each layer acts later: the longest way, each connection one step less its delay.

    Raises:
        UnsupportedError: a loop whose connections take more steps than it has delay.
    """
    offsets: dict[str, int] = {}
    for _ in range(len(graph.layers) + 1):
        before = dict(offsets)
        for path in paths:
            if path.source == INPUT or path.source in offsets:
                start = 0 if path.source == INPUT else offsets[path.source]
                offsets[path.target] = max(offsets.get(path.target, 1), start + 1 - path.delay)
        if offsets == before:
            break
    else:
        names = ", ".join(f"'{path.target}'" for path in paths if path.delay)
        raise UnsupportedError(
            f"layers {names}: spikes come back in fewer steps than their loop has connections, each of which takes one on "
            "SpiNNaker; give the way back more delay"
        )
    return offsets


Lists: TypeAlias = tuple[Array, Array, Array]
"""Source, target and weight of every synapse."""


def _unroll(graph: SNNGraph, path: SpikePath) -> Lists:
    """Return the synapses of a way, without those of 0: one for each weight, as often as pools read it."""
    weighted = [k for k, layer in enumerate(path.layers) if isinstance(layer.synapse, WEIGHTED)] or [0]
    parts = (path.layers[: weighted[0]], path.layers[weighted[0] : weighted[-1] + 1], path.layers[weighted[-1] + 1 :])
    lists = [_list_synapses(graph, part) for part in parts if any(not isinstance(layer.synapse, Flatten) for layer in part)]
    every = np.arange(prod(graph.shape_of(path.source)))
    return reduce(_join, lists) if lists else (every, every, np.ones(len(every)))


def _list_synapses(graph: SNNGraph, layers: Sequence[Layer]) -> Lists:
    """Return what layers in a row make of each of their inputs, without what is 0."""
    shape = graph.input_shape_of(layers[0].name)
    size = prod(shape)
    weighers = [make_weigher(_without_bias(layer), dtype=np.float64) for layer in layers]
    blocks: list[Lists] = []
    for start in range(0, size, CHUNK):
        value = np.zeros((min(CHUNK, size - start), size))
        np.fill_diagonal(value[:, start:], 1.0)
        value = value.reshape(-1, *shape)
        for weigh, layer in zip(weighers, layers, strict=True):
            value = weigh(value.reshape(-1, *graph.input_shape_of(layer.name)))
        value = value.reshape(len(value), -1)
        source, target = np.nonzero(value)
        blocks.append((source + start, target, value[source, target]))
    source, target, weight = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return source, target, weight


def _join(first: Lists, second: Lists) -> Lists:
    """Return the synapses over every pair of which the second, in the order of its sources, begins where the first ends."""
    source, between, weight = first
    from_source, target, weight_behind = second
    counts = np.bincount(from_source, minlength=int(between.max(initial=-1)) + 1)
    number = counts[between]
    index = np.repeat(np.cumsum(counts)[between] - np.cumsum(number), number) + np.arange(int(number.sum()))
    return np.repeat(source, number), target[index], np.repeat(weight, number) * weight_behind[index]


def _without_bias(layer: Layer) -> Any:
    synapse = layer.synapse
    return replace(synapse, bias=None) if getattr(synapse, "bias", None) is not None else synapse  # type: ignore[type-var]


def _find_bias(graph: SNNGraph, name: str, *, is_late: bool = False) -> Array:
    """Return what a layer gives to neurons in a step without spikes, flat.

    Args:
        graph: the network.
        name: of the layer, whose weights and those before it are counted.
        is_late: whether what it gives arrives later than in its step.

    Raises:
        UnsupportedError: a bias would arrive late.
    """
    synapse = graph[name].synapse
    value = np.zeros(graph.input_shape_of(name))
    for edge in graph.edges_into(name):
        if edge.source != INPUT and graph[edge.source].neuron is None:
            before = _find_bias(graph, edge.source, is_late=is_late or edge.delay > 0)
            value = value + before.reshape(value.shape)
    if synapse is None:
        return value.reshape(-1)
    bias = getattr(synapse, "bias", None)
    if is_late and bias is not None and bias.any():
        raise UnsupportedError(f"layer '{name}': a bias that arrives with a delay; put the delay before the weights")
    return np.asarray(make_weigher(synapse, dtype=np.float64)(value[None]).reshape(-1))
