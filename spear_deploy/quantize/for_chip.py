"""Quantization for the profile of a chip: its widths and limits, and what its integers refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import ChipError, DataError, Refusal, SpearError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits
from spear_deploy.quantize.network import FAMILIES, FORMATS, NETWORK, Format, choose_input_scale, is_quantized, quantize
from spear_deploy.simulator import InputKind


def quantize_for_profile(
    graph: SNNGraph, profile: HardwareProfile, *, calibration: Array | None = None, kind: InputKind = "spikes"
) -> SNNGraph:
    """Return the integers of a network for a chip whose family is one of `FORMATS`.

    Args:
        graph: the network; one that is quantised to the chip's format is returned as it is.
        profile: names widths and limits.
        calibration, kind: of `quantize`.

    Raises:
        ChipError: the integers of the family have none of the widths that the profile names, or the input is a current, which the
            chip cannot be sent.
        UnsupportedError, QuantizationError, DataError: those of `quantize`.
    """
    require_values(profile, kind)
    family: Any = profile.meta.family
    limits: dict[str, Any] = {
        "max_spikes": profile.neuron.max_spikes_per_step.max_value,
        "input_events": profile.neuron.max_input_events_per_step.max_value,
    }
    return quantize(
        graph,
        format=family,
        weight_bits=_choose_weight_bits(profile, family),
        layer_bits=_choose_layer_bits(graph, profile),
        calibration=calibration,
        kind=kind,
        **{name: limit for name, limit in limits.items() if limit is not None and family == "xylo"},
    )


def require_own_numbers(graph: SNNGraph, profile: HardwareProfile) -> None:
    """Raise where a network is quantised for another chip; a chip without a format of its own takes any.

    Raises:
        UnsupportedError: it is quantised for another chip.
    """
    if profile.meta.family in FORMATS:
        is_quantized(graph, profile.meta.family, profile.name)


def takes_current(profile: HardwareProfile) -> bool:
    """Return whether a current can be sent: as spikes that carry a value, or as several events a step; yes where not known."""
    family = FAMILIES.get(profile.meta.family)
    carries = profile.meta.family != "loihi" or profile.neuron.graded_spike_bits.max_value != 1
    return family is None or (family.input_levels > 1 and carries)


def require_values(profile: HardwareProfile, kind: InputKind) -> None:
    """Raise where the input is a current and the chip's spikes carry no value, and come one a step.

    Raises:
        ChipError: so it is.
    """
    if kind != "current" or takes_current(profile):
        return
    is_loihi = profile.meta.family == "loihi"
    raise ChipError(
        Refusal(
            layer=INPUT,
            place=INPUT,
            what="a current is sent as spikes that carry a value" + ("" if is_loihi else " or come several a step"),
            why=f"those of {profile.name} {'carry none' if is_loihi else 'do neither'}",
            remedy="code it as spikes (`spear_deploy.data.rate_code`)" + (", or take loihi2" if is_loihi else ""),
        )
    )


def require_unsigned(profile: HardwareProfile, x: Array, kind: InputKind, where: str) -> None:
    """Raise where a current has negative values that do not round to 0, and the chip is sent its values as events.

    Args:
        profile: the chip.
        x: values of any shape.
        kind: of the input.
        where: for the message.

    Raises:
        DataError: so it is; what a chip is sent at all is for `require_values`.
    """
    family = FAMILIES.get(profile.meta.family)
    if kind != "current" or family is None or profile.meta.family == "loihi" or not takes_current(profile):
        return
    lowest = float(np.min(x, initial=0))
    if np.rint(lowest * choose_input_scale(x, kind, family.input_levels)) < 0:
        raise DataError(
            f"{where}: {lowest:.3g} given, {profile.name} takes a current as events, which have no sign; give negative values "
            "channels of their own"
        )


def ask_integers(graph: SNNGraph, profile: HardwareProfile, kind: InputKind = "spikes") -> SNNGraph | Refusal | None:
    """Return a chip's integers of a floating-point network, or the first part that they cannot hold.

    None where the chip has none, and of a network that holds them.

    It is asked by quantizing, so that a check and the integers answer alike.

    Args:
        graph, profile: the network and the chip.
        kind: of the network's input.
    """
    if profile.meta.family not in FORMATS:
        return None
    try:
        if is_quantized(graph, profile.meta.family, profile.name):
            return None
        return quantize_for_profile(graph, profile, kind=kind)
    except SpearError as error:
        return _read_refusal(graph, error)


def _read_refusal(graph: SNNGraph, error: SpearError) -> Refusal:
    """Return the parts of an error at a layer of the network: at the output where it names none, or one that integers add."""
    parts = error.refusal
    if parts is None:
        return Refusal(layer=graph.output, what="no integers", why=str(error), remedy="")
    others = tuple(_read_parts(graph, other) for other in parts.others)
    return replace(_read_parts(graph, parts), others=others)


def _read_parts(graph: SNNGraph, parts: Refusal) -> Refusal:
    """Return a refusal at a layer of the network."""
    is_own = parts.layer in {INPUT, *(layer.name for layer in graph.layers)}
    names_place = parts.place != NETWORK and not (is_own and parts.place in ("", parts.layer))
    what = f"{parts.where}: {parts.what}" if names_place else parts.what
    return replace(parts, layer=parts.layer if is_own else graph.output, place="", what=what)


def _choose_weight_bits(profile: HardwareProfile, family: Format) -> int:
    """Return the most bits of a weight that the profile names; where it names none, those of the family.

    Raises:
        ChipError: the integers of the family do not have them.
    """
    from spear_deploy.hardware.profile import list_profiles, load_profile

    low, high = FAMILIES[family].weight_bits
    most = max(profile.weight_bits, default=high)
    if low <= most <= high:
        return most
    shipped = load_profile(profile.name).weight_bits if profile.name in list_profiles() else range(low, high + 1)
    widths = ", ".join(str(bits) for bits in shipped if low <= bits <= high)
    raise ChipError(
        Refusal(
            place=f"profile '{profile.name}', key 'weights.bits'",
            what=f"{most} given",
            why="a width that the integers of this chip do not have",
            remedy=f"name none, or of {widths}",
        )
    )


def _choose_layer_bits(graph: SNNGraph, profile: HardwareProfile) -> dict[str, int]:
    """Return the widths in which the chip stores the layers that a network states bits for; none where all layers are alike."""
    stated = read_layer_bits(graph) if profile.weights.bits_by_layer.value else {}
    return {name: profile.store_bits(bits) for name, bits in stated.items()}
