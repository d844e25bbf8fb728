"""Readout on the host: fitted to a chip's spikes, described, advised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.adaptation.host import can_move_readout, fit_readouts
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.network.classes import describe_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import HOST_READOUT, has_host_readout, merge_weights, read_host_readout
from spear_deploy.pipeline.preflight import CheckedInputs, grade_split
from spear_deploy.quantize import FORMATS
from spear_deploy.simulator import SpikeCounts
from spear_deploy.training.evaluation import evaluate


@dataclass(frozen=True, kw_only=True)
class FittedReadout:
    """A network whose readout on the host was fitted to the spikes that the chip sends.

    Attributes:
        graph: the network.
        accuracy: on validation, of the chip's integers where there are any.
        is_integer: whether the spikes are those of integers.
    """

    graph: SNNGraph
    accuracy: float
    is_integer: bool

    def describe(self, profile: HardwareProfile) -> str:
        """Return the step in words."""
        return f"readout fitted to the spikes of {f'the integers of {profile.name}' if self.is_integer else 'the network'}"


def fit_readout(inputs: CheckedInputs) -> FittedReadout | None:
    """Return the network with a readout fitted to the training split, if validation is better than before; else None.

    Args:
        inputs: the network, with the data that it takes; one without a readout on the host stays.
    """
    graph, dataset = inputs.network, inputs.dataset
    if not has_host_readout(graph):
        return None
    is_integer, sent = inputs.profile.meta.family in FORMATS, graph
    try:
        sent = inputs.quantize(graph) if is_integer else graph
    except (UnsupportedError, QuantizationError):  # the network has no integers of this chip
        return None
    train, val = (grade_split(sent, split) if is_integer else split for split in (dataset.train, dataset.val))

    def measure(network: SNNGraph) -> float:
        facts = {**sent.metadata, HOST_READOUT: network.metadata[HOST_READOUT]}
        return evaluate(sent.with_layers({}, metadata=facts), val).accuracy

    before = measure(graph)
    results = [(measure(fitted), fitted) for fitted in fit_readouts(graph, sent, train)]
    accuracy, best = max(results, key=lambda result: result[0])
    return FittedReadout(graph=best, accuracy=accuracy, is_integer=is_integer) if accuracy > before else None


def describe_host_readout(graph: SNNGraph, counts: SpikeCounts | None) -> dict[str, Any]:
    """Return what the host computes: a sentence, neurons whose spikes leave the chip, weights, spikes that leave it in a step.

    Args:
        graph: the adapted network.
        counts: of its run on data; None: not known.
    """
    host = read_host_readout(graph)
    assert host is not None, "there is a readout to describe"
    weight, _ = merge_weights(host)
    sent = None if counts is None else float(np.sum(counts.sent[graph.output])) / (counts.steps * counts.samples)
    return {"what": describe_classes(graph)[0], "outputs": weight.shape[1], "weights": weight.size, "spikes_per_step": sent}


def describe_traffic(facts: Mapping[str, Any]) -> str:
    """Return the facts of `describe_host_readout` in words.

    >>> describe_traffic({"what": "the host reads", "spikes_per_step": 3.3})
    'the host reads; 3.3 spikes leave the chip in a step'
    """
    sent = facts["spikes_per_step"]
    return str(facts["what"]) if sent is None else f"{facts['what']}; {sent:,.1f} spikes leave the chip in a step"


def advise_host(graph: SNNGraph) -> list[str]:
    """Return the advice to let the host integrate, where it can and does not yet."""
    if not can_move_readout(graph):
        return []
    return [
        "next to try is `--readout host`: the spikes of the last layer leave the chip, and the host integrates them with the "
        "trained readout, in real numbers"
    ]
