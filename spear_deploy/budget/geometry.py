"""Geometry of connections: kinds, kernels, strides and windows that a chip lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spear_deploy.hardware.schema import HardwareProfile, LayerKinds
from spear_deploy.network import CONVS, WEIGHTED, Layer, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.populations import Population
from spear_deploy.util.number_format import format_shape, join_names

WEIGHTLESS = "spikes without weights"
ADDED_UP = "currents of "
"""What a finding begins with: layers of weights whose currents add up in one layer of neurons."""
LIMITED = ("dilation", "groups", "stride", "kernel", "padding")
INSTEAD = {
    "Conv1d": ("Conv2d", "a Conv2d whose kernel is 1 high"),
    "AvgPool": ("SumPool", "a SumPool, its factor in the weights behind it"),
    "Dense": ("Conv2d", "a Conv2d whose kernel is the map"),
    "Flatten": ("Conv2d", "a Conv2d whose kernel is the map"),
}
"""By kind of connection, the kind that does the same, and how."""
WRITTEN_OUT = "a Dense of the same weights, written out, as `adapt` does"
"""What a chip without maps has in place of a convolution."""


def check_geometry(layer: Layer, before: Shape, after: Shape, profile: HardwareProfile) -> Iterator[tuple[str, str, str]]:
    """Yield what a layer's connection has that the chip does not have, what that has instead, and what to do.

    Args:
        layer: of the network.
        before, after: shapes of its input and its output.
        profile: the chip; what is not published restricts nothing.
    """
    synapse, sizes = layer.synapse, profile.layers
    if synapse is None:
        return
    kind = type(synapse).__name__
    if sizes.kinds.value is not None and kind not in sizes.kinds.value:
        yield kind, f"{profile.name} maps {', '.join(sizes.kinds.value)}", _suggest(kind, sizes)
    if isinstance(synapse, CONVS):
        geometry = {
            "dilation": max(synapse.dilation),
            "groups": synapse.groups,
            "stride": max(synapse.stride),
            "kernel": max(synapse.weight.shape[2:]),
            "padding": max(synapse.padding),
        }
        yield from _exceed(kind, geometry, profile)
        yield from _differ(kind, synapse.weight.shape[2:], synapse.stride, sizes, profile.name)
        same = tuple(-(-n // s) for n, s in zip(before[1:], synapse.stride, strict=True))
        if sizes.conv_padding_same.value and after[1:] != same:
            what = f"{kind} that gives {format_shape(after[1:])} positions of {format_shape(before[1:])}"
            yield what, f"{profile.name} pads so that {format_shape(same)} come out", "train with padding 'same'"


def check_dense_maps(populations: Sequence[Population], profile: HardwareProfile) -> Iterator[tuple[str, str, str, str]]:
    """Yield (layer, what, reason, remedy) of dense layers behind maps, where the chip makes each a convolution of its map."""
    if profile.synapse_memory.format.value != "pow2_kernel":
        return
    for projection in {p.layer: p for population in populations for p in population.projections if p.kind == "dense"}.values():
        kernel = projection.kernel
        if len(kernel) == 2 and max(kernel) > 1:
            start = f"Dense behind a map of {format_shape(kernel)}, a convolution with"
            larger = _exceed(start, {"kernel": max(kernel)}, profile)
            for lack in (*larger, *_differ(start, kernel, (), profile.layers, profile.name)):
                yield projection.layer, *lack


def check_kernels(populations: Sequence[Population], profile: HardwareProfile) -> Iterator[tuple[str, str, str, str]]:
    """Yield (layer, what, reason, remedy) of neurons on which currents of more layers of weights add up than a core has."""
    limit = profile.layers.kernels_into_layer.max_value
    for population in populations:
        names = list(dict.fromkeys(projection.layer for projection in population.projections))
        if limit is not None and len(names) > limit:
            what = f"{ADDED_UP}{join_names([repr(name) for name in names])} that add up"
            yield population.name, what, f"a core of {profile.name} holds {limit} layer of weights", "merge them into one"


def check_weightless(
    graph: SNNGraph, populations: Sequence[Population], profile: HardwareProfile
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (layer, what, reason, remedy) of spikes that reach neurons through no weights: in integers each has a weight of 1."""
    kinds = profile.layers.kinds.value
    if graph.is_integer or kinds is None or "Scale" in kinds:
        return
    for population in populations:
        if any(not isinstance(graph[projection.layer].synapse, WEIGHTED) for projection in population.projections):
            yield population.name, WEIGHTLESS, f"{profile.name} maps {', '.join(kinds)}", "put weights of 1 in between"


def find_unchecked_geometry(layer: Layer, profile: HardwareProfile) -> list[str]:
    """Return the dilation and groups of a layer for which the chip's maker publishes no limit."""
    if not isinstance(layer.synapse, CONVS):
        return []
    geometry = {"dilation": max(layer.synapse.dilation), "groups": layer.synapse.groups}
    unlimited = [name for name, n in geometry.items() if n > 1 and getattr(profile.layers, f"conv_{name}_max").value is None]
    return [f"{name} {geometry[name]}" for name in unlimited]


def _exceed(kind: str, geometry: dict[str, int], profile: HardwareProfile) -> Iterator[tuple[str, str, str]]:
    for name in LIMITED:
        leaf = getattr(profile.layers, f"conv_{name}_max")
        limit = leaf.value if isinstance(leaf.value, int) else None
        if limit is not None and geometry.get(name, 0) > limit:
            joint = "" if kind.endswith("with") else " with"
            yield f"{kind}{joint} {name} {geometry[name]}", f"{profile.name} allows {name} up to {limit}", ""


def _differ(kind: str, kernel: Shape, stride: Shape, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str, str]]:
    joint = "" if kind.endswith("with") else " with"
    for name, values, allowed in (
        ("kernel", kernel, sizes.conv_kernel_sizes.value),
        ("stride", stride, sizes.conv_stride_sizes.value),
    ):
        limit = getattr(sizes, f"conv_{name}_max").value
        exceeds = isinstance(limit, int) and any(value > limit for value in values)
        if allowed is not None and not exceeds and any(value not in allowed for value in values):
            yield f"{kind}{joint} {name} {format_shape(values)}", f"{chip} has {name}s of {', '.join(map(str, allowed))}", ""
    strided = sizes.conv_strided_kernels.value
    if strided is not None and max(stride, default=1) > 1 and any(value not in strided for value in kernel):
        yield (
            f"{kind}{joint} stride {format_shape(stride)} and kernel {format_shape(kernel)}",
            f"{chip} has strides above 1 for kernels of {', '.join(map(str, strided))} alone",
            "use one of them",
        )
    if sizes.conv_kernel_square.value and len(set(kernel)) > 1:
        yield (
            f"{kind}{joint} kernel {format_shape(kernel)}",
            f"{chip} has square kernels",
            f"pad the kernel with zeros to {format_shape((max(kernel),) * 2)}",
        )


def _suggest(kind: str, sizes: LayerKinds) -> str:
    """Return what to use in place of a connection."""
    kinds, other = sizes.kinds.value or (), INSTEAD.get(kind)
    if other is not None and other[0] in kinds:
        return f"use {other[1]}"
    return f"use {WRITTEN_OUT}" if kind in ("Conv1d", "Conv2d") and "Dense" in kinds else "replace the layer"
