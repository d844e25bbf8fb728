"""Bits of a layer's weights, as users name them for a chip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from spear_deploy.errors import ChipError, DataError, UnsupportedError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import WEIGHTED
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import BITS, read_layer_bits, state_layer_bits
from spear_deploy.pipeline.inputs import Chip, Net, load, profile
from spear_deploy.quantize.network import list_layer_widths
from spear_deploy.util.number_format import join_names

Bits: TypeAlias = int | str | Mapping[str, int]
"""Bits by layer; or one number for all; or either as text, "fc1=4,conv2=8" or "4"."""


def parse_bits(bits: Bits) -> int | dict[str, int]:
    """Return one number of bits for all layers, or bits by layer.

    Raises:
        DataError: it is neither, or a layer is named twice.

    >>> parse_bits("4"), parse_bits("fc1=4, conv2=8"), parse_bits({"fc1": 4})
    (4, {'fc1': 4, 'conv2': 8}, {'fc1': 4})
    """
    if isinstance(bits, Mapping):
        return dict(bits)
    if isinstance(bits, int):
        return bits
    named: dict[str, int] = {}
    for part in bits.split(","):
        name, separator, width = (text.strip() for text in part.rpartition("="))
        if not width.isdecimal() or bool(name) != bool(separator) or (not name and "," in bits):
            raise DataError(f"bits '{bits}': expected LAYER=BITS, e.g. fc1=4,conv2=8, or one number for all layers, e.g. 4")
        if not name:
            return int(width)
        if name in named:
            raise DataError(f"bits '{bits}': layer '{name}' is named twice; name it once")
        named[name] = int(width)
    return named


def state_bits(net: Net, chip: Chip, bits: Bits, *, overrides: Mapping[str, Any] | None = None) -> SNNGraph:
    """Return a network that states bits of its weights, so that the chip's check, integers, pruning and files take them.

    Args:
        net, chip: see `pipeline.inputs`.
        bits: by layer, or one number for all. Layers that are not named keep what the network states, else the chip's default.
        overrides: facts of the profile to replace, by dotted key.

    Raises:
        DataError: the bits are no such text, or no weight of any network may have them.
        GraphError: there is no such layer with weights.
        ChipError: the chip lacks a width, or its layers are all alike.
        UnsupportedError: a quantised network, whose weights are rounded already.

    >>> read_layer_bits(state_bits("digits", "loihi2", "conv2=4"))
    {'conv2': 4}
    """
    graph, target, named = load(net), profile(chip, overrides), parse_bits(bits)
    if find_chip_format(graph):
        raise UnsupportedError("bits: the network is quantised already; give the floating-point network that it was made of")
    if isinstance(named, int):
        named = {layer.name: named for layer in graph.layers if isinstance(layer.synapse, WEIGHTED)}
    default = target.weights.default_bits.value
    state_layer_bits(graph, dict.fromkeys(named, BITS[1]))  # checks the names of the layers
    for name, width in named.items():
        if not BITS[0] <= width <= BITS[1]:
            raise DataError(f"bits: layer '{name}': {width} given, expected a number of bits from {BITS[0]} to {BITS[1]}")
    if any(width != default for width in named.values()):
        _require_widths(target, named)
    stated = {**read_layer_bits(graph), **named}
    return state_layer_bits(graph, {name: width for name, width in stated.items() if width != default})


def _require_widths(target: HardwareProfile, named: Mapping[str, int]) -> None:
    """Refuse bits of a chip whose layers are alike, and widths that a chip lacks."""
    widths = list_layer_widths(target)
    if len(widths) < 2:
        others = [name for name in list_profiles() if len(list_layer_widths(load_profile(name))) > 1]
        raise ChipError(
            f"bits: on chip '{target.name}' the weights of all layers have {target.weights.default_bits.value} bits; leave the "
            f"bits out, or take a chip whose layers may differ: {join_names(others)}"
        )
    for name, width in named.items():
        if width not in widths:
            raise ChipError(
                f"bits: layer '{name}': {width} given, weights of {target.name} have "
                f"{join_names([str(w) for w in widths])} bits; take one of them"
            )
