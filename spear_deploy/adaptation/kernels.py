"""Kernels, groups and dilation in sizes of the chip, exactly.

Zeros around a kernel, between its taps and between its groups change no sum. With a zeros in front and b behind, the padding
grows by a, so that each window begins at the same position; the last window still has to fit, which decides whether a may differ
from b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.budget.geometry import check_geometry
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Conv2d, Layer, Scale, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize.fuse_weights import drop_positions
from spear_deploy.util.number_format import format_shape

MAX_ZEROS = 4
"""Zeros that may be added at one end of a kernel."""


def find_kernels(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the convolutions whose kernel, groups or dilation the chip lacks and zeros bring to a size that it has."""
    for layer in graph.layers:
        if _merges_first(graph, layer, profile):
            continue
        shapes = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
        synapse = _as_convolution(layer.synapse, shapes[0])
        if not isinstance(synapse, CONVS) or not any(check_geometry(layer, *shapes, profile)):
            continue
        fitted = fit_kernel(outline := _outline(synapse), *shapes, profile)
        if fitted is not None and (fitted is not outline or synapse is not layer.synapse):
            yield Replacement(
                layers=(layer.name,),
                what=_describe(layer.synapse),
                by=f"{_describe(fitted)}, filled with zeros",
                kind="exact",
                topic="kernel",
                rewrite=partial(_fit_layer, name=layer.name, profile=profile),
            )


def _merges_first(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> bool:
    """Return whether currents of a layer of weights meet others, which a core has no room for: `skips` makes them one layer."""
    limit, out = profile.layers.kernels_into_layer.max_value, graph.edges_from(layer.name)
    if limit is None or layer.neuron is not None or len(out) != 1:
        return False
    behind = out[0].target
    return graph[behind].synapse is None and len(graph.edges_into(behind)) > limit


def _fit_layer(graph: SNNGraph, *, name: str, profile: HardwareProfile) -> SNNGraph:
    layer, shapes = graph[name], (graph.input_shape_of(name), graph.shape_of(name))
    fitted = fit_kernel(_as_convolution(layer.synapse, shapes[0]), *shapes, profile)
    assert fitted is not None, "a rewrite that was offered is possible"
    return graph.with_layers({name: replace(layer, synapse=fitted)})


def fit_kernel(synapse: Any, before: Shape, after: Shape, profile: HardwareProfile) -> Any:
    """Return the smallest convolution with the same sums that the chip has, or None; itself where the chip has it.

    Sizes are tried on an outline without weights, so that a large kernel is written once.

    Args:
        synapse: a convolution.
        before, after: shapes of its input and output.
        profile: the chip.
    """
    kinds = profile.layers.kinds.value
    if kinds is not None and type(synapse).__name__ not in kinds:
        return None
    outline = _outline(synapse)
    joined = replace(outline, groups=1)
    spread, wide = spread_taps(outline), spread_taps(joined)
    ways: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (outline, lambda whole: whole),
        (spread, spread_taps),
        (joined, join_groups),
        (wide, lambda whole: join_groups(spread_taps(whole))),
    )
    for tried, write in ways:
        if _is_possible(tried, before, after, profile):
            return write(synapse)
    ends = [(front, behind) for front in range(MAX_ZEROS + 1) for behind in range(MAX_ZEROS + 1)]
    axes = [[pair for pair in ends if _keeps_outputs(wide, axis, pair, before, after)] for axis in range(wide.weight.ndim - 2)]
    for zeros in sorted(product(*axes), key=lambda pairs: sum(map(sum, pairs))):
        if _is_possible(_outline(wide, zeros), before, after, profile):
            return _add_zeros(join_groups(spread_taps(synapse)), zeros)
    return None


def _outline(synapse: Any, zeros: Sequence[tuple[int, int]] = ()) -> Any:
    """Return a convolution of the same geometry with one input a group and one output each: what a chip's sizes are read from.

    Args:
        synapse: the convolution.
        zeros: that are added in front of and behind its kernel, by axis.
    """
    sizes, added = synapse.weight.shape[2:], zeros or [(0, 0)] * len(synapse.padding)
    weight = np.zeros((synapse.groups, 1, *(k + sum(ends) for k, ends in zip(sizes, added, strict=True))))
    return replace(synapse, weight=weight, bias=None, padding=_pad_more(synapse, added))


def _add_zeros(synapse: Any, zeros: Sequence[tuple[int, int]]) -> Any:
    """Return a convolution with zeros in front of and behind its kernel, by axis."""
    return replace(synapse, weight=np.pad(synapse.weight, ((0, 0), (0, 0), *zeros)), padding=_pad_more(synapse, zeros))


def _pad_more(synapse: Any, zeros: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(p + front for p, (front, _) in zip(synapse.padding, zeros, strict=True))


def spread_taps(synapse: Any) -> Any:
    """Return a convolution without dilation: zeros lie between its taps."""
    if max(synapse.dilation) == 1:
        return synapse
    sizes = [d * (k - 1) + 1 for d, k in zip(synapse.dilation, synapse.weight.shape[2:], strict=True)]
    weight = np.zeros((*synapse.weight.shape[:2], *sizes), synapse.weight.dtype)
    taps = tuple(slice(None, None, d) for d in synapse.dilation)
    weight[(slice(None), slice(None)) + taps] = synapse.weight  # noqa: RUF005
    return replace(synapse, weight=weight, dilation=(1,) * len(sizes))


def join_groups(synapse: Any) -> Any:
    """Return a convolution without groups: zeros lie between channels of different groups."""
    groups = synapse.groups
    if groups == 1:
        return synapse
    outputs, inputs = synapse.weight.shape[0] // groups, synapse.weight.shape[1]
    weight = np.zeros((synapse.weight.shape[0], inputs * groups, *synapse.weight.shape[2:]), synapse.weight.dtype)
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        weight[rows, g * inputs : (g + 1) * inputs] = synapse.weight[rows]
    return replace(synapse, weight=weight, groups=1)


def _as_convolution(synapse: Any, before: Shape) -> Any:
    """Return weights per channel of a map as a convolution; any other synapse as it is."""
    return _as_pointwise(synapse, before[0]) if isinstance(synapse, Scale) and len(before) == 3 else synapse


def _as_pointwise(synapse: Scale, channels: int) -> Any:
    """Return one weight per channel as a depthwise convolution of one position, or the synapse where positions differ."""
    alone = [None if values is None else drop_positions(values, 3) for values in (synapse.weight, synapse.bias)]
    if alone[0] is None or (alone[1] is None and synapse.bias is not None):
        return synapse
    weight, bias = (None if values is None else np.broadcast_to(values, (channels, 1, 1)).copy() for values in alone)
    assert weight is not None
    return Conv2d(weight=weight[:, None], bias=None if bias is None else bias.reshape(-1), groups=channels)


def _keeps_outputs(synapse: Any, axis: int, zeros: tuple[int, int], before: Shape, after: Shape) -> bool:
    """Return whether an axis keeps its outputs with zeros in front of and behind the kernel."""
    front, behind = zeros
    size = before[1 + axis] + 2 * (synapse.padding[axis] + front) - (synapse.weight.shape[2 + axis] + front + behind)
    return size >= 0 and size // synapse.stride[axis] + 1 == after[1 + axis]


def _is_possible(synapse: Any, before: Shape, after: Shape, profile: HardwareProfile) -> bool:
    return not any(check_geometry(Layer(name="layer", synapse=synapse), before, after, profile))


def _describe(synapse: Any) -> str:
    name = type(synapse).__name__
    if not isinstance(synapse, CONVS):
        return name
    extra = [f"{what} {n}" for what, n in (("groups", synapse.groups), ("dilation", max(synapse.dilation))) if n > 1]
    return " with ".join([name, ", ".join([f"kernel {format_shape(synapse.weight.shape[2:])}", *extra])])
