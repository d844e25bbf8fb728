"""Inputs beyond a chip's channels, summed over windows by the host.

learnt   pools and strides of maps      → the host sums over windows of that size, in front of everything
         dense weights behind a window  → for each sum the mean of the weights of its values

The maps in front of the pools become as small as those behind them: the window moves to the input. What of it no pool and no
stride takes, the dense weights behind take. Sums beyond the events that a channel takes in a step stay at that number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data.input_sums import INPUT_FRAME, INPUT_SUMS, INPUT_SUMS_MAX, INPUT_TWICE
from spear_deploy.errors import GraphError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Dense, Flatten, Layer, Shape, SumPool, has_positions
from spear_deploy.network.classes import count_classes
from spear_deploy.network.graph import INPUT, SNNGraph, merge_parts
from spear_deploy.network.sparse_matrix import SparseMatrix, make_sparse
from spear_deploy.util.number_format import format_shape, plural


def find_inputs(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield sums over windows of the input where it has more channels than the chip: those of the smallest window that helps.

    Fewer sums than classes say too little.
    """
    channels = profile.connectivity.input_channels.max_value
    count = int(np.prod(graph.input_shape))
    if channels is None or count <= channels or any(key in graph.metadata for key in (INPUT_SUMS, INPUT_FRAME, INPUT_TWICE)):
        return
    events = profile.neuron.max_input_events_per_step.max_value
    for window in list_windows(graph.input_shape, int(channels)):
        if count < count_classes(graph) * prod(window):
            return
        most = None if events is None or prod(window) <= events else int(events)
        if move_window_to_input(graph, window, most) is None:
            continue
        limit = "" if most is None else f", {most} at most"
        yield Replacement(
            layers=tuple(edge.target for edge in graph.edges_from(INPUT)),
            what=plural(count, "input"),
            by=f"sums over windows of {format_shape(window)} inputs{limit}, which the host forms",
            kind="learnt",
            topic="input",
            rewrite=partial(_require_window, window=window, most=most),
        )
        return


def list_windows(shape: Shape, channels: int) -> list[Shape]:
    """Return the windows whose sums are `channels` or fewer, the smallest first, of these the most alike along its axes.

    >>> list_windows((1, 8, 8), 16)[:2], list_windows((24,), 16)[0]
    ([(2, 2), (1, 4)], (2,))
    """
    axes = shape[1:] or shape
    sides = [[side for side in range(1, size + 1) if size % side == 0] for size in axes]
    windows = [window for window in product(*sides) if np.prod(shape) <= channels * prod(window)]
    return sorted(windows, key=lambda window: (prod(window), max(window) - min(window), window))


@dataclass(frozen=True, kw_only=True)
class _Coarse:
    """What a layer emits where the input is summed over windows.

    Attributes:
        left: window by axis that its map is smaller by; () where it is as before.
        shape: of its map in the network before; of a flattened map that of the map.
        factor: that the next weights take.
    """

    left: Shape
    shape: Shape
    factor: float = 1.0


def move_window_to_input(graph: SNNGraph, window: Shape, most: int | None = None) -> SNNGraph | None:
    """Return the network whose input is summed over windows; None where sizes do not come out even, or its output would change.

    Args:
        graph: a network of floating point.
        window: by axis of the input.
        most: a sum is at most that; None: no limit.
    """
    shape = graph.input_shape
    lead = shape[: len(shape) - len(window)]
    axes = shape[len(lead) :]
    if max(window) == 1 or any(size % width for size, width in zip(axes, window, strict=True)):
        return None
    made = {INPUT: _Coarse(left=window, shape=shape, factor=1 / prod(window))}
    changes: dict[str, Layer] = {}
    for layer in graph.layers:
        before = {made[edge.source] for edge in graph.edges_into(layer.name) if edge.source in made}
        before = before or {_Coarse(left=(), shape=graph.input_shape_of(layer.name))}  # what comes back over a loop
        coarse = _coarsen(layer, before.pop(), graph.shape_of(layer.name)) if len(before) == 1 else None
        if coarse is None:
            return None
        changes[layer.name], made[layer.name] = coarse
    if any(edge.delay and made[edge.source].left != made[edge.target].left for edge in graph.edges):
        return None  # a loop that comes back with another size
    if made[graph.output].left or made[graph.output].factor != 1:
        return None
    summed = (*lead, *(size // width for size, width in zip(axes, window, strict=True)))
    facts: dict[str, Any] = {INPUT_SUMS: list(window), **({} if most is None else {INPUT_SUMS_MAX: most})}
    try:
        smaller = graph.with_layers(changes, input_shape=summed, metadata={**graph.metadata, **facts})
    except GraphError:  # a kernel larger than the smaller map
        return None
    if any(not _is_as_expected(smaller.shape_of(name), graph.shape_of(name), made[name]) for name in changes):
        return None
    return merge_parts(smaller)


def _is_as_expected(small: Shape, before: Shape, made: _Coarse) -> bool:
    """Return whether a layer is smaller by the window that is left."""
    return int(np.prod(small)) * prod(made.left) == int(np.prod(before))


def _coarsen(layer: Layer, before: _Coarse, shape: Shape) -> tuple[Layer, _Coarse] | None:
    """Return a layer that reads smaller maps, and what it emits; None where it cannot.

    Args:
        layer: of the network.
        before: what it reads.
        shape: of what the layer emitted before.
    """
    synapse: Any = layer.synapse
    left, factor = before.left, before.factor
    if isinstance(synapse, Dense) and left:
        lead = len(before.shape) - len(left)
        if any(size % width for size, width in zip(before.shape[lead:], left, strict=True)):
            return None  # positions that a pool dropped
        weight = _sum_columns(synapse.weight, before.shape, left) * factor
        synapse = replace(synapse, weight=weight.astype(synapse.weight.dtype))
        left, factor = (), 1.0
    elif isinstance(synapse, CONVS) and left:
        taken = tuple(gcd(*pair) for pair in zip(left, synapse.stride, strict=True))
        stride: Any = _divide(synapse.stride, taken)
        synapse = replace(synapse, weight=(synapse.weight * factor).astype(synapse.weight.dtype), stride=stride)
        left, factor = _divide(left, taken), 1.0
    elif isinstance(synapse, POOLS) and left:
        pads: Any = synapse.padding
        if max(pads) or synapse.stride != synapse.kernel_size:
            return None
        taken = tuple(gcd(*pair) for pair in zip(left, synapse.kernel_size, strict=True))
        factor *= prod(taken) if isinstance(synapse, SumPool) else 1
        size: Any = _divide(synapse.kernel_size, taken)
        synapse = replace(synapse, kernel_size=size, stride=size) if max(size) > 1 else None
        left = _divide(left, taken)
    elif isinstance(synapse, WEIGHTED) and factor != 1 and not left:
        synapse, factor = replace(synapse, weight=(synapse.weight * factor).astype(synapse.weight.dtype)), 1.0
    elif isinstance(synapse, WEIGHTED) and left:
        return None  # a weight per value
    left = left if max(left, default=1) > 1 else ()
    is_reshaped = isinstance(synapse, Flatten) and bool(left)
    after = _Coarse(left=left, shape=before.shape if is_reshaped else shape, factor=factor)
    if layer.neuron is not None and (factor != 1 or (left and has_positions(layer.neuron))):
        return None
    if layer.norm is not None and factor != 1:
        return None
    return replace(layer, synapse=synapse), after


def _divide(sizes: Shape, by: Shape) -> Shape:
    return tuple(size // part for size, part in zip(sizes, by, strict=True))


def _sum_columns(weight: Any, shape: Shape, window: Shape) -> Any:
    """Return the sums of a matrix over windows of the last axes of its columns, (outputs, inputs) to (outputs, sums).

    Args:
        weight: full or sparse.
        shape: of the inputs, whose product is the number of columns.
        window: by axis, of the last ones.
    """
    lead = len(shape) - len(window)
    small = (*shape[:lead], *(size // width for size, width in zip(shape[lead:], window, strict=True)))
    if isinstance(weight, SparseMatrix):
        sums = np.arange(prod(small)).reshape(small)
        for axis, width in enumerate(window, lead):
            sums = np.repeat(sums, width, axis=axis)
        matrix, inputs = weight.to_scipy(), np.arange(prod(shape))
        ones = np.ones(len(inputs), weight.dtype)
        return make_sparse(matrix @ type(matrix)((ones, (inputs, sums.ravel())), (len(inputs), prod(small))))
    pairs = [part for size, width in zip(small[lead:], window, strict=True) for part in (size, width)]
    axes = tuple(1 + lead + 2 * axis + 1 for axis in range(len(window)))
    return weight.reshape(len(weight), *shape[:lead], *pairs).sum(axis=axes).reshape(len(weight), -1)


def _require_window(graph: SNNGraph, *, window: Shape, most: int | None) -> SNNGraph:
    summed = move_window_to_input(graph, window, most)
    assert summed is not None, "a rewrite that was offered is possible"
    return summed
