"""What a chip would need for the parts that nothing replaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.adaptation.needs import list_needs
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain

SPECK = load_profile("speck2f")


def loop() -> SNNGraph:
    """Return neurons that the input and their own spikes drive, through a layer of weights each."""
    layers = [
        Layer(name="in", synapse=Dense(weight=np.ones((3, 4)))),
        Layer(name="loop", synapse=Dense(weight=np.ones((3, 3)))),
        Layer(name="hidden", neuron=IF(reset="subtract")),
    ]
    edges = [("hidden", "loop", 1), (INPUT, "in", 0), ("in", "hidden", 0), ("loop", "hidden", 0)]
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in edges]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(4,), output="hidden")


def conv() -> SNNGraph:
    """Return a convolution with dilation."""
    layer = Layer(name="c", synapse=Conv2d(weight=np.ones((1, 1, 2, 2)), dilation=(2, 2)), neuron=IF(reset="subtract"))
    return chain([layer], input_shape=(1, 5, 5))


@pytest.mark.parametrize(
    ("graph", "facts", "need"),
    [
        (
            loop(),
            {"connectivity.recurrent": True},
            "layer 'hidden': currents of 'in' and 'loop' that add up; a core of speck2f holds 1 layer of weights, it would need "
            "several layers of weights on a core",
        ),
        (
            conv(),
            {"layers.conv_dilation_max": 1},
            "layer 'c': Conv2d with dilation 2; speck2f allows dilation up to 1, it would need Conv2d with dilation 2, or Dense "
            "with room for its weights written out",
        ),
    ],
)
def test_a_need_says_what_the_chip_lacks_in_its_own_words(graph: SNNGraph, facts: dict[str, Any], need: str) -> None:
    chip = override_facts(SPECK, facts)
    assert need in list(list_needs(check(graph, chip, remedies=False), graph, chip))
