"""Convolutions without padding on chips that pad to the size of the input, exactly.

exact    a smaller map behind a convolution  → a map as large as the input, of which what is behind reads the same positions

A window that reaches over the border gives a neuron of its own, which nothing reads: dense weights of its spikes are 0, and
windows behind it that read it belong to such neurons again. Zeros at one end of a kernel move its outputs to where a pool or a
stride behind meets them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.kernels import join_groups, spread_taps
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.budget.geometry import check_geometry
from spear_deploy.errors import GraphError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Dense, Flatten, Layer, Shape, has_positions
from spear_deploy.network.graph import INPUT, SNNGraph

MAX_SIDE = 11
"""Largest kernel that is tried where the chip names no limit."""


def find_paddings(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield all convolutions whose outputs are fewer than those of the chip, which pads, with maps as large as the chip's."""
    if not profile.layers.conv_padding_same.value:
        return
    names = tuple(layer.name for layer in graph.layers if isinstance(layer.synapse, CONVS) and not _is_same(graph, layer))
    if names and pad_maps(graph, profile) is not None:
        yield Replacement(
            layers=names, what="a convolution without padding",
            by="one with maps as large as its input; their border is not read",
            kind="exact", topic="kernel", rewrite=partial(_require_padded, profile=profile),
        )  # fmt: skip


def _require_padded(graph: SNNGraph, *, profile: HardwareProfile) -> SNNGraph:
    padded = pad_maps(graph, profile)
    assert padded is not None, "a rewrite that was offered is possible"
    return padded


def _is_same(graph: SNNGraph, layer: Layer) -> bool:
    synapse: Any = layer.synapse
    before, after = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
    return after[1:] == tuple(-(-size // step) for size, step in zip(before[1:], synapse.stride, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Where the positions of a map lie in a larger one.

    Attributes:
        old: shape of the map before; of a flattened map that of the map.
        new: shape of the map that holds it.
        start: by axis, the position of the first.
    """

    old: Shape
    new: Shape
    start: Shape

    @property
    def is_whole(self) -> bool:
        """Whether the map is as before."""
        return self.old == self.new


def pad_maps(graph: SNNGraph, profile: HardwareProfile) -> SNNGraph | None:
    """Return the network whose convolutions pad to the size of their input; None where a part of it cannot read larger maps.

    Args:
        graph: a network of floating point.
        profile: the chip, for sizes of kernels.
    """
    whole = graph.input_shape
    placed = {INPUT: _Placed(old=whole, new=whole, start=(0,) * len(whole[1:]))}
    changes: dict[str, Layer] = {}
    for layer in graph.layers:
        shape = graph.input_shape_of(layer.name)
        before = {placed[edge.source] for edge in graph.edges_into(layer.name) if edge.source in placed}
        before = before or {_Placed(old=shape, new=shape, start=(0,) * len(shape[1:]))}  # what comes back over a loop
        made = None
        if len(before) == 1:
            made = _place(layer, before.pop(), graph.shape_of(layer.name), _step_behind(graph, layer.name), profile)
        if made is None:
            return None
        changes[layer.name], placed[layer.name] = made
    loops = [edge for edge in graph.edges if edge.delay and edge.source != INPUT]
    if not placed[graph.output].is_whole or any(not placed[edge.source].is_whole for edge in loops):
        return None
    try:
        return graph.with_layers(changes)
    except GraphError:  # a neuron's parameters by position
        return None


def _step_behind(graph: SNNGraph, name: str) -> Shape:
    """Return the step by axis in which pools behind a layer take its positions; ones where there are none."""
    steps: Any = (1,) * len(graph.shape_of(name)[1:])
    out = graph.edges_from(name)
    while len(out) == 1 and isinstance(graph[out[0].target].synapse, POOLS):
        pool: Any = graph[out[0].target].synapse
        steps = tuple(a * b for a, b in zip(steps, pool.stride, strict=True))
        out = graph.edges_from(out[0].target)
    return steps


def _place(layer: Layer, before: _Placed, shape: Shape, step: Shape, profile: HardwareProfile) -> tuple[Layer, _Placed] | None:
    """Return a layer that reads larger maps, and where what it emits lies; None where it cannot."""
    synapse: Any = layer.synapse
    after = before
    if isinstance(synapse, CONVS):
        conv = _place_kernel(synapse, before, shape, step, profile)
        if conv is None:
            return None
        synapse, after = conv
    elif isinstance(synapse, POOLS):
        pads: Any = synapse.padding
        strides: Any = synapse.stride
        if not before.is_whole and (max(pads) or any(at % side for at, side in zip(before.start, strides, strict=True))):
            return None
        start = tuple(at // side for at, side in zip(before.start, strides, strict=True))
        after = _Placed(old=shape, new=synapse.output_shape(before.new), start=start)
    elif isinstance(synapse, Dense):
        if not before.is_whole:
            wide = np.zeros((len(synapse.weight), *before.new), synapse.weight.dtype)
            inside = tuple(slice(at, at + size) for at, size in zip(before.start, before.old[1:], strict=True))
            held: tuple[Any, ...] = (slice(None), slice(None), *inside)
            wide[held] = np.asarray(synapse.weight).reshape(-1, *before.old)
            synapse = replace(synapse, weight=wide.reshape(len(wide), -1))
        after = _Placed(old=shape, new=shape, start=())
    elif isinstance(synapse, WEIGHTED) and not before.is_whole:
        return None  # a weight per position
    elif isinstance(synapse, Flatten):
        after = before if not before.is_whole else _Placed(old=shape, new=shape, start=())
    if not after.is_whole and has_positions(layer.neuron):
        return None
    return replace(layer, synapse=synapse), after


def _place_kernel(
    synapse: Any, before: _Placed, shape: Shape, step: Shape, profile: HardwareProfile
) -> tuple[Any, _Placed] | None:
    """Return a convolution of the smallest kernel that pads to the size of its input, and where its outputs lie."""
    pads, strides = synapse.padding, synapse.stride
    outputs = tuple(-(-size // side) for size, side in zip(before.new[1:], strides, strict=True))
    if before.is_whole and shape[1:] == outputs:
        return synapse, _Placed(old=shape, new=shape, start=(0,) * len(outputs))
    if max(pads) and not before.is_whole:
        return None  # it reads zeros where the border of a larger map is
    conv = spread_taps(join_groups(synapse))
    spans = conv.weight.shape[2:]
    largest = profile.layers.conv_kernel_max.max_value
    for pad in range(int(MAX_SIDE if largest is None else largest) // 2 + 1):
        side = 2 * pad + 1
        starts = tuple(
            _find_start(before.start[axis] - pads[axis] + pad, strides[axis], spans[axis], side, outputs[axis] - shape[1 + axis],
                        step[axis])
            for axis in range(len(spans))
        )  # fmt: skip
        if None in starts:
            continue
        at: Any = starts
        front = [before.start[axis] - pads[axis] + pad - at[axis] * strides[axis] for axis in range(len(spans))]
        zeros = [(first, side - first - span) for first, span in zip(front, spans, strict=True)]
        padded = replace(conv, weight=np.pad(conv.weight, ((0, 0), (0, 0), *zeros)), padding=(pad,) * len(spans))
        placed = _Placed(old=shape, new=(shape[0], *outputs), start=at)
        if not any(check_geometry(Layer(name="layer", synapse=padded), before.new, placed.new, profile)):
            return padded, placed
    return None


def _find_start(shift: int, stride: int, span: int, side: int, room: int, step: int) -> int | None:
    """Return the first position of the outputs along an axis: a multiple of `step` at which the taps lie within the kernel.

    Args:
        shift: taps lie so far behind the start of the kernel where outputs begin at 0.
        stride: of the convolution, by which they move to the front with each position.
        span: of the taps.
        side: of the kernel.
        room: positions that the larger map has more.
        step: of pools behind.
    """
    return next((at for at in range(0, room + 1, step) if 0 <= shift - at * stride <= side - span), None)
