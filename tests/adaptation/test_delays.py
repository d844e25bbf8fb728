"""Delays beyond those of a chip: shortened, but not in loops."""

import numpy as np
import pytest

from spear_deploy.adaptation.delays import find_delays
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph

GENERIC = load_profile("generic45nm")


def delayed(forwards: int, back: int) -> SNNGraph:
    """Return two layers and a loop, with these delays between them and back."""
    layers = (
        Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=np.eye(2)), neuron=IF()),
        Layer(name="loop", synapse=Dense(weight=np.eye(2))),
        Layer(name="sum", neuron=IF()),
    )
    pairs = ((INPUT, "a", 0), ("a", "b", forwards), ("b", "sum", 0), ("sum", "loop", back), ("loop", "sum", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="sum")


def test_a_delay_becomes_the_longest_of_the_chip():
    chip = override_facts(GENERIC, {"timing.mode": "async", "weights.delay_max_steps": 2})
    (offer,) = find_delays(delayed(5, 1), chip)
    assert (offer.layers, offer.what, offer.by, offer.kind) == (("b",), "a delay of 5 steps", "2 steps at most", "learnt")
    short = offer.rewrite(delayed(5, 1))
    assert {(edge.source, edge.delay) for edge in short.edges if edge.delay} == {("a", 2), ("sum", 1)}
    assert not list(find_delays(short, chip))
    assert not check(short, chip, remedies=False).unsupported


@pytest.mark.parametrize(("forwards", "back", "limit"), [(2, 1, 2), (0, 5, 2), (0, 1, 0)])
def test_delays_of_loops_and_those_that_the_chip_has_stay(forwards, back, limit):
    chip = override_facts(GENERIC, {"timing.mode": "async", "weights.delay_max_steps": limit})
    assert not list(find_delays(delayed(forwards, back), chip))


@pytest.mark.parametrize("name", ["speck2f", "akd1000", "reckon", "xylo_audio3"])
def test_chips_without_delays_take_the_network_without_them(name):
    layers = (
        Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=np.ones((2, 2))), neuron=IF()),
        Layer(name="c", synapse=Dense(weight=np.eye(2))),
        Layer(name="d", synapse=Dense(weight=np.eye(2))),
        Layer(name="sum", neuron=IF()),
    )
    pairs = ((INPUT, "a", 0), ("a", "b", 0), ("b", "c", 0), ("a", "d", 3), ("c", "sum", 0), ("d", "sum", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="sum")
    best = make_plans(graph, load_profile(name))[0]
    assert best.lacking == [] and {"delay", "skip"} <= {step.replacement.topic for step in best.steps}
