"""Quantization for the profile of a chip: its widths and limits, and what its integers refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from spear_deploy.errors import ChipError, SpearError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits
from spear_deploy.quantize.network import FAMILIES, FORMATS, Format, quantize
from spear_deploy.simulator import InputKind


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A part of a network that the integers of a chip cannot hold.

    Attributes:
        layer: where it is; the output where no single layer is named.
        what: what the network has.
        why: what the chip has instead, and behind the last "; " what to do.
    """

    layer: str
    what: str
    why: str


def quantize_for_profile(
    graph: SNNGraph, profile: HardwareProfile, *, calibration: Array | None = None, kind: InputKind = "spikes"
) -> SNNGraph:
    """Return the integers of a network for a chip whose family is one of `FORMATS`.

    Args:
        graph: the network; integers are returned as they are.
        profile: names widths and limits.
        calibration, kind: of `quantize`.

    Raises:
        ChipError: the integers of the family have none of the widths that the profile names.
        UnsupportedError, QuantizationError, DataError: those of `quantize`.
    """
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


def ask_integers(graph: SNNGraph, profile: HardwareProfile) -> SNNGraph | Refusal | None:
    """Return a chip's integers of a floating-point network, or the first part that they cannot hold; None where it has none.

    It is asked by quantizing, so that a check and the integers answer alike.
    """
    if graph.is_integer or profile.meta.family not in FORMATS:
        return None
    try:
        return quantize_for_profile(graph, profile)
    except SpearError as error:
        return _read_refusal(graph, str(error))


def _read_refusal(graph: SNNGraph, sentence: str) -> Refusal:
    """Return a sentence "layer 'a': what, what the chip has; what to do" in its parts."""
    names = {layer.name for layer in graph.layers}
    place = re.match(r"layers? '(.+?)'(?: -> '(.+?)')?: ", sentence)
    named = [name for name in (place.groups() if place else ()) if name in names]
    if place is not None and named:
        sentence = sentence[place.end() :] if len(named) == place.lastindex else sentence
    head, has_remedy, remedy = sentence.partition("; ")
    what, has_reason, reason = head.rpartition(", ")
    if not has_reason:
        what, reason = head, f"the integers of the chip hold none{has_remedy}{remedy}"
    else:
        reason += has_remedy + remedy
    return Refusal(layer=named[-1] if named else graph.output, what=what, why=reason)


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
        f"profile '{profile.name}', key 'weights.bits': {most} given, a width that the integers of this chip do not have; name "
        f"none, or of {widths}"
    )


def _choose_layer_bits(graph: SNNGraph, profile: HardwareProfile) -> dict[str, int]:
    """Return the widths in which the chip stores the layers that a network states bits for; none where all layers are alike."""
    stated = read_layer_bits(graph) if profile.weights.bits_by_layer.value else {}
    return {name: profile.store_bits(bits) for name, bits in stated.items()}
