"""Constants written out for each neuron or channel: the same verdict, rows, plan and integers as one value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, SpearError
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, LIF, WEIGHTED, Conv2d, Dense, Layer, Scale
from spear_deploy.network.equal_values import collapse, collapse_equal_values
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.quantize import FORMATS, quantize
from tests.support.rewritten_layers import write_each_value
from tests.support.varied_networks import KINDS, vary_network
from tests.support.wild_graphs import wild_graph

PROFILES = {name: load_profile(name) for name in list_profiles()}


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (np.ones((2, 3, 4)), ()),
        (np.ones(5), ()),
        (np.ones((1, 1, 1)), ()),
        (np.array(2.0), ()),
        (np.arange(2).repeat(12).reshape(2, 3, 4), (2, 1, 1)),
        (np.broadcast_to(np.arange(4), (2, 3, 4)), (1, 1, 4)),
        (np.broadcast_to(np.arange(3)[:, None], (2, 3, 4)), (1, 3, 1)),
        (np.arange(12).reshape(3, 4), (3, 4)),
        (np.array([1.0, 1.0, 2.0]), (3,)),
    ],
)
def test_axes_of_equal_values_go(values: np.ndarray, shape: tuple[int, ...]) -> None:
    collapsed = collapse(values)
    assert collapsed.shape == shape and collapsed.dtype == values.dtype
    np.testing.assert_array_equal(np.broadcast_to(collapsed, values.shape), values)


def test_one_value_for_a_large_map_is_not_compared_with_itself() -> None:
    assert collapse(np.broadcast_to(np.float32(3), (1 << 10, 1 << 10, 1 << 10))) == 3


def test_a_network_that_is_not_written_out_is_returned_itself() -> None:
    conv = Conv2d(weight=np.ones((2, 1, 3, 3)), bias=np.ones(2))
    layers = [Layer(name="a", synapse=conv, neuron=LIF(tau_s=np.array(0.01), v_threshold=np.array([1.0, 2]).reshape(2, 1, 1)))]
    net = chain([*layers, Layer(name="b", synapse=Scale(weight=np.array(2.0)))], input_shape=(1, 6, 6))
    assert collapse_equal_values(net) is net


def test_a_bias_of_zeros_goes_and_another_stays() -> None:
    scale = Scale(weight=np.ones((4, 1, 1)), bias=np.zeros((4, 6, 6)))
    conv = Conv2d(weight=np.ones((4, 4, 1, 1)), bias=np.zeros(4))
    dense = Dense(weight=np.ones((3, 144)), bias=np.array([0.0, 0, 1]))
    layers = [Layer(name=name, synapse=synapse, neuron=IF()) for name, synapse in zip("abc", (scale, conv, dense), strict=True)]
    synapses: list[Any] = [layer.synapse for layer in collapse_equal_values(chain(layers, input_shape=(4, 6, 6))).layers]
    assert [synapse.bias is None for synapse in synapses] == [True, True, False]
    assert synapses[0].weight.shape == () and synapses[2] is dense


def test_a_bias_of_zeros_takes_no_bias_memory() -> None:
    def count(bias: np.ndarray | None) -> Any:
        layers = [Layer(name="a", synapse=Conv2d(weight=np.ones((4, 2, 3, 3)), bias=bias), neuron=IF(reset="subtract"))]
        report = check(chain(layers, input_shape=(2, 8, 8)), PROFILES["speck2f"])
        return [(row.resource, row.used) for row in report.rows if row.resource == "bias_memory" and row.used]

    assert count(np.zeros(4)) == count(None) == [] and count(np.ones(4)) == [("bias_memory", 4)]


def write_zero_biases(graph: SNNGraph) -> SNNGraph:
    """The network with a bias of zeros where weights have none."""

    def change(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, WEIGHTED) or synapse.bias is not None:
            return layer
        zeros = np.zeros(() if isinstance(synapse, Scale) else len(synapse.weight), synapse.weight.dtype)
        return replace(layer, synapse=replace(synapse, bias=zeros))

    return graph.with_layers(change)


def judge(graph: SNNGraph, chip: str, family: Any) -> dict[str, Any]:
    """Verdict and rows on a chip, the steps of the best plan, and the integers of a family."""
    report = check(graph, PROFILES[chip])
    seen: dict[str, Any] = {"verdict": report.verdict, "rows": report.rows, "lacking": report.unsupported}
    plan = make_plans(graph, PROFILES[chip])[0]
    seen |= {"plan": [step.replacement.to_rows(step.neurons) for step in plan.steps], "of plan": plan.report.rows}
    try:
        integer = quantize(graph, format=family)
    except SpearError as error:
        return seen | {"integers": str(error)}
    return seen | {"integers": collapse_equal_values(integer).layers, "facts": str(integer.metadata)}


def count_equal(seeds: range) -> int:
    """Return how many networks were judged as those that are written out."""
    count = 0
    for seed in seeds:
        chip, family = list(PROFILES)[seed % len(PROFILES)], FORMATS[seed % len(FORMATS)]
        try:
            graph = wild_graph(seed) if seed % 3 == 0 else vary_network(seed, list(KINDS)[seed % 12])
            expected = judge(graph, chip, family)
        except (GraphError, SpearError):  # no network, or one of a chip already
            continue
        written = write_zero_biases(write_each_value(graph, np.random.default_rng(seed)).graph)
        seen = judge(written, chip, family)
        for name, value in expected.items():
            assert seen[name] == value, f"{seed} {chip} {family}: {name}"
        count += 1
    return count


def test_networks_written_out_are_judged_as_those_that_are_not() -> None:
    assert count_equal(range(600, 624)) >= 12


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_networks_written_out_are_judged_as_those_that_are_not() -> None:
    assert count_equal(range(94000, 94700)) >= 300


@pytest.mark.parametrize(("seed", "chip"), [(94536, "akd1000"), (94626, "reckon")])
def test_the_plan_of_a_network_written_out_is_that_of_the_other(seed: int, chip: str) -> None:
    """Its thresholds stood in the way of a pool behind them, and other layers were replaced."""
    graph = vary_network(seed, list(KINDS)[seed % len(KINDS)])
    written = write_each_value(graph, np.random.default_rng(0)).graph
    steps, others = ([step.replacement.what for step in make_plans(g, PROFILES[chip])[0].steps] for g in (graph, written))
    assert others == steps and steps
