"""Integer networks whose neurons send fewer spikes than those they come from may."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.network import LI, LIF, Dense, Flatten, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.quantize.integer_layers import limit_spikes


def several(max_spikes: int | None, readout: Any) -> SNNGraph:
    layers = [
        Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=LIF(tau_s=0.004, reset="subtract", max_spikes=max_spikes)),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="b", synapse=Dense(weight=np.eye(2)), neuron=readout),
    ]
    return chain(layers, input_shape=(2,))


@pytest.mark.parametrize(("given", "held", "limited"), [(None, 20, 20), (40, 20, 20), (20, 20, 20), (5, 20, 5), (1, 20, 1)])
def test_neurons_send_no_more_spikes_than_their_integers(given: int | None, held: int, limited: int):
    """A finding names them; the network is itself where none sends fewer. The output of Xylo sends one a step."""
    for end, sent in ((LIF(tau_s=0.004, reset="subtract", max_spikes=None), 1), (LI(tau_s=0.004), None)):
        graph = several(given, end)
        integer = quantize(graph, format="xylo", max_spikes=held)
        after = limit_spikes(graph, integer)
        assert after["a"].neuron.max_spikes == limited and getattr(after["b"].neuron, "max_spikes", None) == sent  # type: ignore[union-attr]
        rows = {row["layer"]: row for row in integer.metadata["quantization"]["findings"] if row["what"] == "max_spikes"}
        assert rows.keys() == ({"a"} if given != limited else set()) | ({"b"} if sent else set())
        if given != limited:
            assert (rows["a"]["given"], rows["a"]["stored"]) == (given, held)
            assert after is not graph
        elif sent is None:
            assert after is graph
