"""In what form does an integer network take its input? Spikes as they are, a current as a number of events.

A chip of the Loihi family takes graded spikes of 8 bits. Speck and Xylo take events without a size: a value is sent as that many
events in one step, without a sign. What was sent how is in the network's `metadata["quantization"]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.simulator import InputKind


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
