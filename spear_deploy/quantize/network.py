"""Which integers go on the chip? Weights, thresholds, decays and biases, in one format for each family of chips.

Each format is a module (`loihi`, `speck`, `xylo`) with its equations. All start from the same: batch norm folded, one weighted
layer on each way into a neuron (`fold`), what drives each layer of neurons in floating point (`targets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import DataError, QuantizationError, did_you_mean
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize import loihi, speck, xylo
from spear_deploy.quantize.fold import fold_batchnorm, with_weights_everywhere
from spear_deploy.quantize.layer_error import gathered
from spear_deploy.simulator import InputKind, check_input, simulate

__all__ = ["FORMATS", "Format", "fold_batchnorm", "graded", "quantize"]

Format: TypeAlias = Literal["loihi", "speck", "xylo"]
FORMATS: tuple[Format, ...] = get_args(Format)


def quantize(
    graph: SNNGraph,
    *,
    format: Format = "loihi",
    weight_bits: int = 8,
    calibration: Array | None = None,
    kind: InputKind = "spikes",
    headroom: Mapping[str, float] | None = None,
    max_spikes: int = 31,
    input_events: int = 15,
) -> SNNGraph:
    """Return the integer network for a family of chips.

    Args:
        graph: a floating-point network; batch norm is folded.
        format: whose integers.
        weight_bits: bits of a signed weight, 2..8.
        calibration: input (T, B, *input). The scale of each layer is the one whose spikes differ least from the floating-point
            network's on it; on Loihi that of a layer whose 24-bit state overflows is halved until none does.
        kind: of `calibration` and of the input the network will get; a "current" is sent as graded spikes or as a number of
            events, `round(metadata["input_scale"] · x)`, see `graded`.
        headroom: by layer, a factor in 0..1 on the scale that the format would allow.
        max_spikes, input_events: what a hidden neuron sends, and an input channel takes, in a step; on Xylo.

    `metadata["quantization"]` has the format, the scale and offset of each layer (a readout's floating-point value is
    v / (unit · scale) + offset), and for Speck and Xylo what changed by rounding as `findings`.

    Raises:
        UnsupportedError: what has no integer counterpart, by layer.
        QuantizationError: a value outside its format, by layer.
        DataError: a calibration that the network, or the chip, does not take.
    """
    if format not in FORMATS:
        raise QuantizationError(f"format '{format}': expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if not 2 <= weight_bits <= 8:
        raise QuantizationError(f"weight_bits: {weight_bits} given, the format holds 2..8")
    if graph.is_integer:
        return graph
    calibration = None if calibration is None else check_input(graph, calibration, kind)
    room = dict(headroom or {})
    if format == "loihi":
        return _for_loihi(graph, weight_bits, calibration, kind, room)
    prepared = with_weights_everywhere(fold_batchnorm(graph))
    options: dict[str, Any] = {"bits": weight_bits, "kind": kind, "room": room}
    lower: Callable[..., SNNGraph] = speck.lower
    levels = speck.INPUT_LEVELS
    if format == "xylo":
        prepared, lower, levels = xylo.dense_only(prepared), xylo.lower, input_events
        options |= {"max_spikes": max_spikes, "input_events": input_events}
    options["input_scale"] = input_scale(calibration, kind, levels)
    return _on_data(prepared, lower, calibration, kind, options)


def _on_data(
    graph: SNNGraph, lower: Callable[..., SNNGraph], calibration: Array | None, kind: InputKind, options: Mapping[str, Any]
) -> SNNGraph:
    """Lower a network by its ranges, or once more with what it does on data."""
    integer = lower(graph, **options)
    if calibration is None:
        return integer
    return lower(graph, evidence=gathered(graph, calibration, graded(integer, calibration, kind), kind), **options)


def _for_loihi(graph: SNNGraph, bits: int, calibration: Array | None, kind: InputKind, room: dict[str, float]) -> SNNGraph:
    prepared = with_weights_everywhere(fold_batchnorm(graph))
    lower = partial(
        loihi.lower, prepared, bits=bits, kind=kind, room=room, input_scale=input_scale(calibration, kind, loihi.MOST_GRADED)
    )
    integer = lower()
    if calibration is None:
        return integer
    sent = graded(integer, calibration, kind)
    integer = lower(evidence=(evidence := gathered(prepared, calibration, sent, kind)))
    first = integer.metadata["quantization"]["scale"]
    most: dict[str, float] = {}
    while overflows := simulate(integer, sent, kind=kind).overflows:
        for name in overflows:
            most[name] = integer.metadata["quantization"]["scale"][name] / 2
            if most[name] < first[name] * 2**-6:
                raise QuantizationError(
                    f"layer '{name}': its 24-bit state overflows at every scale tried; check its weights and bias"
                )
        integer = lower(most=most, evidence=evidence)
    return integer


# FOLDED from spear_deploy/quantize/network.py
# In what form does an integer network take its input? Spikes as they are, a current as a number of events.
#
# A chip of the Loihi family takes graded spikes of 8 bits. Speck and Xylo take events without a size: a value is sent as that many
# events in one step, without a sign. What was sent how is in the network's `metadata["quantization"]`.


def input_scale(calibration: Array | None, kind: InputKind, levels: int) -> float:
    """Return what a current is multiplied with, so that the largest value of the calibration is sent as `levels`."""
    if kind == "spikes":
        return 1.0
    largest = 1.0 if calibration is None else float(np.abs(calibration).max())
    return levels / largest if largest else 1.0


def graded(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return an input in the form that an integer network takes: spikes as they are, a current as graded spikes or events.

    A network that has an input layer of its own (netx) takes the current itself.

    Raises:
        DataError: more events in a step than the chip takes, or events below 0.
    """
    facts = graph.metadata.get("quantization", {})
    scale = facts.get("input_scale")
    sent = x if kind == "spikes" or scale is None else np.rint(np.asarray(x, np.float64) * scale).astype(np.int64)
    if facts.get("format") in ("speck", "xylo"):
        _check_events(sent, facts)
    return sent


def _check_events(sent: Array, facts: dict[str, Any]) -> None:
    chip, most = facts["format"], facts.get("input_events_max")
    low, high = float(np.min(sent, initial=0)), float(np.max(sent, initial=0))
    if low < 0:
        value = low / facts.get("input_scale", 1.0)
        raise DataError(
            f"input: {value:.3g} given, {chip} takes events, which have no sign; give negative values channels of their own"
        )
    if most is not None and high > most:
        raise DataError(f"input: {high:.0f} events of one channel in one step, {chip} takes {most}; spread them over more steps")
