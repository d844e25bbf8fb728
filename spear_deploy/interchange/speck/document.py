"""JSON of a network for Speck and DYNAP-CNN, an entry a core.

input_shape, input_pool       (C, H, W); window that the DVS layer pools ahead of the first weights, 1 for none
layers[].name, core           core: number on the chip, as sinabs counts them
layers[].reads_input          whether the network's input is one of its sources
layers[].in_shape, out_shape  (C, H, W) in front of the weights; (O, H, W) of the neurons
layers[].weight, bias         (O, C, k, k) and (O,) whole numbers of 8 bits; a dense layer is a convolution of its whole map
layers[].stride, padding      [rows, columns]
layers[].threshold, min_v_mem one number for all neurons: spikes at v ≥ threshold, v stops at min_v_mem
layers[].reset                "subtract" or "zero"
layers[].v_init               a number, or one for each neuron, (O, H, W)
layers[].destinations         [{layer, pool}]: windows of 1, 2, 4 that its spikes are summed over on the way
output, output_pool           the last layer; window that is not on the chip: the host sums its spikes, 1 for none
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Array, AvgPool, Conv2d, Dense, Layer, Shape, SpeckIF
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.spike_paths import SpikePath, find_spike_paths
from spear_deploy.util.files import replace_file


def write_speck(
    graph: SNNGraph, path: str | os.PathLike[str], *, chip: str = "speck2f", cores: Mapping[str, int | None] | None = None
) -> list[str]:
    """Write a network for Speck, whole or not at all.

    Args:
        graph: integers of the Speck family.
        path: the `.json`.
        chip: profile of the chip.
        cores: by layer, the number of its core, None where it has none.

    Returns:
        What is not in the chip's configuration, one sentence each.

    Raises:
        UnsupportedError: what a core cannot hold, by layer.
        FileError: the place is not writable.
    """
    document = build_document(graph, chip=chip, cores=cores or {})
    with replace_file(path) as aside:
        aside.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    notes = []
    if document["input_pool"] != 1:
        window = document["input_pool"]
        notes.append(f"the input is pooled by {window} x {window} in the DVS layer, which is set up apart from the cores")
    if document["output_pool"] != 1:
        window = document["output_pool"]
        notes.append(
            f"the pool of {window} x {window} behind '{document['output']}' is not on the chip; the host sums its spikes"
        )
    return notes


def build_document(graph: SNNGraph, *, chip: str, cores: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the document as plain data.

    Raises:
        UnsupportedError: what a core cannot hold, by layer.
    """
    if len(graph.input_shape) != 3:
        shape = (int(np.prod(graph.input_shape)), 1, 1)
    else:
        shape = graph.input_shape
    paths = find_spike_paths(graph)
    neurons = [layer for layer in graph.layers if layer.neuron is not None]
    shapes: dict[str, Shape] = {INPUT: shape}
    entries = []
    windows: dict[tuple[str, str], int] = {}
    for layer in neurons:
        ways = [path for path in paths if path.target == layer.name]
        _check_ways(layer, ways, shapes)
        for path in ways:
            windows[path.source, layer.name] = _pool_window(layer.name, path)
        entry = _describe_core(layer, ways[0], windows[ways[0].source, layer.name], shapes)
        shapes[layer.name] = tuple(entry["out_shape"])
        reads_input = any(path.source == INPUT for path in ways)
        entries.append({**entry, "core": cores.get(layer.name), "reads_input": reads_input})
    entries = [
        {**entry, "destinations": [{"layer": t, "pool": w} for (s, t), w in windows.items() if s == entry["name"]]}
        for entry in entries
    ]
    output, output_pool = _find_output(graph)
    from_input = {window for (source, _), window in windows.items() if source == INPUT}
    if len(from_input) != 1:
        raise UnsupportedError("input: layers that read it pool it differently; the DVS layer has one window for all")
    return {
        "format": "speck",
        "version": 1,
        "chip": chip,
        "dt_s": graph.dt_s,
        "input_shape": list(shape),
        "input_pool": from_input.pop(),
        "layers": entries,
        "output": output,
        "output_pool": output_pool,
        "quantization": {
            name: value
            for name, value in graph.metadata.get("quantization", {}).items()
            if name in ("scale", "offset", "input_scale")
        },
    }


# ------------------------------------------------------------------------------------------------------------ inside


def _check_ways(layer: Layer, ways: Sequence[SpikePath], shapes: Mapping[str, Shape]) -> None:
    if not isinstance(layer.neuron, SpeckIF):
        raise UnsupportedError(
            f"layer '{layer.name}': {type(layer.neuron).__name__} neurons, Speck holds SpeckIF; quantise the network for Speck"
        )
    for path in ways:
        if path.delay or path.source not in shapes:
            raise UnsupportedError(
                f"layer '{layer.name}': spikes from '{path.source}' wait {path.delay} steps; events on Speck do not wait, so "
                "feedback has no step"
            )
        weighted = [step for step in path.layers if isinstance(step.synapse, WEIGHTED)]
        if len(weighted) != 1 or not isinstance(weighted[0].synapse, (Conv2d, Dense)):
            raise UnsupportedError(
                f"layer '{layer.name}': the way from '{path.source}' needs exactly one Conv2d or Dense, as a core has one kernel"
            )
    if len({_weighted(path).name for path in ways}) > 1:
        names = ", ".join(f"'{_weighted(path).name}'" for path in ways)
        raise UnsupportedError(
            f"layer '{layer.name}': currents of {names} add up in it; a core has one kernel, merge the weights"
        )


def _weighted(path: SpikePath) -> Layer:
    return next(step for step in path.layers if isinstance(step.synapse, WEIGHTED))


def _pool_window(name: str, path: SpikePath) -> int:
    """Return the window of all pools ahead of the weights of a way.

    Raises:
        UnsupportedError: a pool behind the weights, a mean, or windows that are not square, overlap or pad.
    """
    window, passed_weights = np.ones(2, np.int64), False
    for step in path.layers:
        passed_weights |= isinstance(step.synapse, WEIGHTED)
        if not isinstance(step.synapse, POOLS):
            continue
        pool = step.synapse
        kernel = tuple(pool.kernel_size)
        padding = pool.padding if isinstance(pool.padding, tuple) else (pool.padding,)
        if (
            passed_weights
            or isinstance(pool, AvgPool)
            or len(kernel) != 2
            or tuple(pool.stride or kernel) != kernel
            or any(padding)
        ):
            raise UnsupportedError(
                f"layer '{step.name}': Speck sums spikes over windows that neither overlap nor pad, ahead of the weights; use "
                "such a SumPool"
            )
        window *= kernel
    if window[0] != window[1]:
        raise UnsupportedError(
            f"layer '{name}': its pools are {window[0]} x {window[1]} together; Speck pools over square windows"
        )
    return int(window[0])


def _describe_core(layer: Layer, path: SpikePath, window: int, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Return the entry of a layer: weights as a convolution, neuron, shapes."""
    channels, height, width = shapes[path.source]
    after: Shape
    before: Shape = (channels, height // window, width // window)
    synapse, neuron = _weighted(path).synapse, layer.neuron
    assert isinstance(neuron, SpeckIF)
    if isinstance(synapse, Dense):
        weight, after = synapse.weight.reshape(-1, *before), (synapse.weight.shape[0], 1, 1)
        stride, padding = (1, 1), (0, 0)
    else:
        assert isinstance(synapse, Conv2d)
        if synapse.groups != 1 or max(synapse.dilation) != 1:
            raise UnsupportedError(
                f"layer '{layer.name}': groups or dilation, for which Speck's configuration has no field; write the kernel out"
            )
        weight, stride, padding = synapse.weight, synapse.stride, synapse.padding
        after = synapse.output_shape(before)
    if weight.shape[2] != weight.shape[3]:
        size = f"{weight.shape[2]} x {weight.shape[3]}"
        raise UnsupportedError(f"layer '{layer.name}': a kernel of {size}, Speck's are square; pad it with zeros")
    values = {"weight": _shift(weight, synapse.weight_exponent, layer.name), "bias": synapse.bias}
    for name, value in values.items():
        if value is not None and (value.min() < -128 or value.max() > 127):
            raise UnsupportedError(
                f"layer '{layer.name}': {name} {value.min()}..{value.max()}, Speck holds -128..127; quantise the network"
            )
    return {
        "name": layer.name,
        "in_shape": list(before),
        "out_shape": list(after),
        "weight": values["weight"].tolist(),  # type: ignore[union-attr]
        "bias": None if values["bias"] is None else values["bias"].tolist(),
        "stride": list(stride),
        "padding": list(padding),
        "threshold": int(neuron.v_threshold.reshape(-1)[0]),
        "min_v_mem": int(neuron.v_min.reshape(-1)[0]),
        "reset": "subtract" if neuron.reset == "subtract" else "zero",
        "v_init": _describe_start(neuron.v_init, after),
    }


def _shift(weight: Array, exponent: int, name: str) -> Array:
    """Return weights · 2^exponent, which is the shift of their sum where no weight loses a bit.

    Raises:
        UnsupportedError: one does.
    """
    whole = weight.astype(np.int64)
    shifted = whole << exponent if exponent >= 0 else whole >> -exponent
    if exponent < 0 and (shifted << -exponent != whole).any():
        raise UnsupportedError(
            f"layer '{name}': its sum is shifted down by {-exponent} bits, Speck shifts nothing; quantise the network for Speck"
        )
    return shifted


def _describe_start(v_init: Array, shape: Shape) -> Any:
    if v_init.size == 1:
        return int(v_init.reshape(-1)[0])
    full = v_init.reshape(shape) if v_init.size == int(np.prod(shape)) else np.broadcast_to(v_init, shape)
    return full.astype(np.int64).tolist()


def _find_output(graph: SNNGraph) -> tuple[str, int]:
    """Return the last layer of neurons and the window of the pools behind it."""
    name = graph.output
    layers: list[Layer] = []
    while graph[name].neuron is None:
        layer = graph[name]
        sources = [edge.source for edge in graph.edges_into(name)]
        if isinstance(layer.synapse, (*CONVS, *WEIGHTED)) or len(sources) != 1 or sources[0] == INPUT:
            raise UnsupportedError(
                f"layer '{name}': the output has no neurons of its own; Speck sends spikes of neurons, add them"
            )
        layers.insert(0, layer)
        name = sources[0]
    path = SpikePath(source=name, target=graph.output, delay=0, layers=tuple(layers))
    return name, _pool_window(graph.output, path)
