"""Facts beside the layers of a network, as files state them: which values each may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

from spear_deploy.errors import GraphError
from spear_deploy.network.classes import DECISION, OUTPUTS_PER_CLASS, Decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import HOST_LAYERS

MAX_WHOLE = 2**53
"""Largest whole number of a fact."""
MAX_NUMBER = 1e300
"""Largest number of a fact."""


class _Values(NamedTuple):
    is_one: Callable[[Any], bool]
    expected: str


def check_metadata(graph: SNNGraph) -> None:
    """Refuse facts that a file states and no command can read; keys that are not known here may hold anything.

    Bits by layer and a readout on the host are checked where they are read.

    Raises:
        GraphError: names the key, the value and what it may be.
    """
    for key, value in graph.metadata.items():
        if key in VALUES and not VALUES[key].is_one(value):
            raise GraphError(f"metadata '{key}': {repr(value)[:60]} given, expected {VALUES[key].expected}; correct or remove it")
    host = set(graph.metadata.get(HOST_LAYERS, ())) & {layer.name for layer in graph.layers}
    behind = [edge.target for edge in graph.edges if edge.source in host and edge.target not in host]
    if host and (behind or graph.output not in host):
        last = behind[0] if behind else graph.output
        raise GraphError(
            f"metadata '{HOST_LAYERS}': layer '{last}' lies behind layers of the host and is none; correct or remove it"
        )
    shape = graph.metadata.get("input_twice", graph.input_shape)
    if len(graph.metadata.get("input_sums", ())) > len(shape):
        raise GraphError(f"metadata 'input_sums': a window has at most the {len(shape)} axes of the input; correct or remove it")


def _is_whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= MAX_WHOLE


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER


def _is_count(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MAX_WHOLE


def _is_list(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_one, value))


def _is_shape(value: Any) -> bool:
    return _is_list(value, _is_whole) and len(value) > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_channels(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_list(kept, lambda n: _is_whole(n, 0)) for kept in value.values())


def _are_scales(value: Any) -> bool:
    """Return whether a value holds scales and shifts of the same layers."""
    if not isinstance(value, Mapping):
        return False
    scales, shifts = value.get("scale"), value.get("shift")
    if not isinstance(scales, Mapping) or not isinstance(shifts, Mapping) or not isinstance(value.get("layer_bits", {}), Mapping):
        return False
    return all(_is_number(scale) and _is_whole(shifts.get(name), -MAX_WHOLE) for name, scale in scales.items())


def _are_integers(value: Any) -> bool:
    """Return whether a value holds facts on integers: scales, events that they take, and what changed beside weights."""
    if not isinstance(value, Mapping) or not isinstance(value.get("scale", {}), Mapping):
        return False
    events, findings = value.get("input_events_max"), value.get("findings", ())
    takes = _is_count(value.get("input_scale", 1)) and (events is None or _is_whole(events))
    return takes and all(map(_is_number, value.get("scale", {}).values())) and _is_list(findings, _is_finding)


def _is_finding(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(_is_text(value.get(key)) for key in ("layer", "what")):
        return False
    has_no_limit = value["what"] == "max_spikes" and "given" in value and value["given"] is None
    return _is_number(value.get("stored")) and (has_no_limit or _is_number(value.get("given")))


VALUES: dict[str, _Values] = {
    "assumptions": _Values(lambda value: _is_list(value, _is_text), "a list of sentences"),
    "quantization": _Values(_are_integers, "what quantising a network writes (scale, input_scale, findings, ...)"),
    "learnt_rounding": _Values(_are_scales, "a table with a scale and a shift of each layer"),
    "kept_channels": _Values(_are_channels, "a table with a list of channels of each group"),
    "steps": _Values(_is_whole, "a whole number of at least 1"),
    "trained_steps": _Values(_is_whole, "a whole number of at least 1"),
    "input_sums": _Values(_is_shape, "a list of whole numbers of at least 1"),
    "input_sums_max": _Values(_is_count, "a number above 0"),
    "input_frame": _Values(_is_count, "a number above 0"),
    "input_twice": _Values(_is_shape, "a list of whole numbers of at least 1"),
    DECISION: _Values(lambda value: value in get_args(Decision), f"one of {', '.join(get_args(Decision))}"),
    OUTPUTS_PER_CLASS: _Values(_is_whole, "a whole number of at least 1"),
    HOST_LAYERS: _Values(lambda value: _is_list(value, _is_text), "a list of names"),
}
"""What a fact may be, by its key."""
