"""Which connections of a network are of a kind or a size that the chip cannot map?"""

from __future__ import annotations

from collections.abc import Iterator

from spear_deploy.layers import CONVS, POOLS, Dense, Layer, Shape
from spear_deploy.profile_schema import HardwareProfile, LayerKinds

LIMITED = ("dilation", "groups", "stride", "kernel", "padding")
INSTEAD = {
    "Conv1d": "a Conv2d whose kernel is 1 high",
    "Conv2d": "a Dense of the same weights, written out",
    "Scale": "fold it into the weights behind it",
    "SumPool": "a convolution with a stride",
    "AvgPool": "a SumPool, its factor in the weights behind it",
    "Dense": "a Conv2d whose kernel is the map",
    "Flatten": "a Conv2d whose kernel is the map",
}


def geometry_findings(layer: Layer, before: Shape, after: Shape, profile: HardwareProfile) -> Iterator[tuple[str, str]]:
    """Yield what a layer's connection is that the chip does not have, and why.

    Args:
        layer: a row of the network.
        before, after: shapes of what it takes and of what it gives.
        profile: the chip; what is not published restricts nothing.
    """
    synapse, sizes = layer.synapse, profile.layers
    if synapse is None:
        return
    kind = type(synapse).__name__
    if sizes.kinds.value is not None and kind not in sizes.kinds.value:
        yield kind, f"{profile.name} maps {', '.join(sizes.kinds.value)}; {_instead(kind, sizes)}"
    if isinstance(synapse, CONVS):
        given = {
            "dilation": max(synapse.dilation),
            "groups": synapse.groups,
            "stride": max(synapse.stride),
            "kernel": max(synapse.weight.shape[2:]),
            "padding": max(synapse.padding),
        }
        yield from _beyond(kind, given, profile)
        yield from _sets(kind, synapse.weight.shape[2:], synapse.stride, sizes, profile.name)
        same = tuple(-(-n // s) for n, s in zip(before[1:], synapse.stride, strict=True))
        if sizes.conv_padding_same.value and after[1:] != same:
            what = f"{kind} that gives {_by(after[1:])} positions of {_by(before[1:])}"
            yield what, f"{profile.name} pads so that {_by(same)} come out; train with padding 'same'"
    elif isinstance(synapse, Dense) and profile.synapse_memory.format.value == "pow2_kernel" and len(before) == 3:
        given = {"kernel": max(before[1:])}
        what = f"Dense behind a map of {_by(before[1:])}, a convolution with"
        yield from _beyond(what, given, profile)
        yield from _sets(what, before[1:], (), sizes, profile.name)
    elif isinstance(synapse, POOLS):
        yield from _pool(kind, synapse.kernel_size, synapse.stride or synapse.kernel_size, sizes, profile.name)


def unchecked_geometry(layer: Layer, profile: HardwareProfile) -> list[str]:
    """Return what a layer has out of the ordinary that the chip's maker says nothing about: dilation, groups."""
    if not isinstance(layer.synapse, CONVS):
        return []
    given = {"dilation": max(layer.synapse.dilation), "groups": layer.synapse.groups}
    unsaid = [name for name, value in given.items() if value > 1 and getattr(profile.layers, f"conv_{name}_max").value is None]
    return [f"{name} {given[name]}" for name in unsaid]


# ------------------------------------------------------------------------------------------------------------ inside


def _beyond(kind: str, given: dict[str, int], profile: HardwareProfile) -> Iterator[tuple[str, str]]:
    for name in LIMITED:
        leaf = getattr(profile.layers, f"conv_{name}_max")
        most = leaf.value if isinstance(leaf.value, int) else None
        if most is not None and given.get(name, 0) > most:
            joint = "" if kind.endswith("with") else " with"
            yield f"{kind}{joint} {name} {given[name]}", f"{profile.name} allows {name} up to {most}"


def _sets(kind: str, kernel: Shape, stride: Shape, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str]]:
    joint = "" if kind.endswith("with") else " with"
    for name, values, allowed in (
        ("kernel", kernel, sizes.conv_kernel_sizes.value),
        ("stride", stride, sizes.conv_stride_sizes.value),
    ):
        most = getattr(sizes, f"conv_{name}_max").value
        beyond = isinstance(most, int) and any(value > most for value in values)
        if allowed is not None and not beyond and any(value not in allowed for value in values):
            yield f"{kind}{joint} {name} {_by(values)}", f"{chip} has {name}s of {', '.join(map(str, allowed))}"
    if sizes.conv_kernel_square.value and len(set(kernel)) > 1:
        yield (
            f"{kind}{joint} kernel {_by(kernel)}",
            f"{chip} has square kernels; pad the kernel with zeros to {_by((max(kernel),) * 2)}",
        )


def _pool(kind: str, window: Shape, stride: Shape, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str]]:
    allowed = sizes.pool_sizes.value
    if allowed is not None and any(n not in allowed for n in window):
        yield f"{kind} of {_by(window)}", f"{chip} pools over {', '.join(map(str, allowed))}; use one of them, or a stride"
    elif sizes.pool_square.value and (len(set(window)) > 1 or tuple(stride) != tuple(window)):
        yield f"{kind} of {_by(window)} at stride {_by(stride)}", f"{chip} has square windows that do not overlap"


def _instead(kind: str, sizes: LayerKinds) -> str:
    """Say what may stand in place of a connection."""
    other = INSTEAD.get(kind, "")
    named = [name for name in INSTEAD if f"a {name}" in other]
    possible = sizes.kinds.value or ()
    return f"use {other}" if other.startswith("a ") and all(n in possible for n in named) and named else "replace the layer"


def _by(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)
