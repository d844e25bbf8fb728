"""Inputs beyond a chip's channels, summed over windows by the host.

learnt   a pool behind the first convolution, or its stride  → the host sums over windows of that size, in front of everything

The maps behind the first convolution keep their size: the window moves from behind it to the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.pools import stride_before
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data.input_sums import INPUT_SUMS
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, POOLS
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.util.number_format import format_shape, plural


def find_inputs(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield sums over windows of the input where it has more channels than the chip, and the sums have few enough."""
    channels = profile.connectivity.input_channels.max_value
    count = int(np.prod(graph.input_shape))
    if channels is None or count <= channels or graph.metadata.get(INPUT_SUMS):
        return
    summed = move_window_to_input(graph)
    if summed is None or int(np.prod(summed.input_shape)) > channels:
        return
    window = summed.metadata[INPUT_SUMS]
    events = profile.neuron.max_input_events_per_step.max_value
    if events is not None and np.prod(window) > events:
        return
    reader = graph.edges_from(INPUT)[0].target
    yield Replacement(
        layers=(reader,),
        what=plural(count, "input"),
        by=f"sums over windows of {format_shape(window)} inputs, which the host forms",
        kind="learnt",
        topic="input",
        rewrite=_require_window,
    )


def move_window_to_input(graph: SNNGraph) -> SNNGraph | None:
    """Return the network whose input is summed over the windows that its first convolution skips or a pool behind it takes.

    None where the input has no map that a convolution alone reads, or the sizes do not come out even. The weights are those of
    the mean over a window.
    """
    edges = graph.edges_from(INPUT)
    if len(edges) != 1 or not isinstance(graph[edges[0].target].synapse, CONVS):
        return None
    name = edges[0].target
    behind = graph.edges_from(name)
    conv: Any = graph[name].synapse
    if max(conv.stride) == 1 and len(behind) == 1 and isinstance(graph[behind[0].target].synapse, POOLS):
        moved = stride_before(graph, behind[0].target)
        graph = graph if moved is None else moved[1]
        conv = graph[name].synapse
    window, before, after = conv.stride, graph.input_shape, graph.shape_of(name)
    if max(window) == 1 or any(size % width for size, width in zip(before[1:], window, strict=True)):
        return None
    weight = (conv.weight / np.prod(window)).astype(conv.weight.dtype)
    summed = replace(conv, weight=weight, stride=(1,) * len(window))
    shape = (before[0], *(size // width for size, width in zip(before[1:], window, strict=True)))
    if summed.output_shape(shape) != after:
        return None
    layers = tuple(replace(layer, synapse=summed) if layer.name == name else layer for layer in graph.layers)
    metadata = {**graph.metadata, INPUT_SUMS: list(window)}
    return replace(graph, layers=layers, input_shape=shape, metadata=metadata)


def _require_window(graph: SNNGraph) -> SNNGraph:
    summed = move_window_to_input(graph)
    assert summed is not None, "a rewrite that was offered is possible"
    return summed
