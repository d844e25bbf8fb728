"""Verdicts that are open where zeros are not counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool
from spear_deploy.network.graph import Layer, SNNGraph, chain
from spear_deploy.network.layer import Synapse
from spear_deploy.placement.populations import find_populations
from tests.support.chips import matrix_onto, small_chip
from tests.support.seeds import seeds


def build(*synapses: Synapse, shape: tuple[int, ...]) -> SNNGraph:
    layers = [Layer(name=f"s{k}", synapse=synapse) for k, synapse in enumerate(synapses)]
    return chain([*layers, Layer(name="n", neuron=IF())], input_shape=shape)


def edge_of_a_pool() -> SNNGraph:
    """The first of five neurons reads a sum of inputs by a weight of 0 alone: its other weight lies on the padding."""
    kernel = Conv1d(weight=np.array([[[1.0, 0.0]]]), padding=(1,))
    return build(SumPool(kernel_size=(3,), stride=(1,)), kernel, shape=(1, 6))


def part_of_a_map() -> SNNGraph:
    """One of six inputs is left out."""
    return build(Scale(weight=np.array([[0.0, 1, 1, 1, 1, 1]])), shape=(1, 6))


def check_reach(net: SNNGraph, limit: int) -> BudgetReport:
    return check(net, small_chip("catalyst_n1", connectivity__input_reaches=limit), remedies=False)


@pytest.mark.parametrize(("make", "low", "high"), [(edge_of_a_pool, 4, 5), (part_of_a_map, 0, 6)])
def test_a_limit_between_the_fewest_and_all_synapses_leaves_the_verdict_open(make, low: int, high: int) -> None:
    net = make()
    reached = int(matrix_onto(net, "input", "n").any(axis=1).sum())
    assert low <= reached < high
    assert check_reach(net, high).verdict == "fits"
    report = check_reach(net, high - 1)
    (row,) = (row for row in report.rows if row.status == "unchecked")
    assert (report.verdict, row.resource, row.used) == ("unchecked", "input_reaches", None)
    assert f"that are not counted one by one: {low} to {high}, and the limit is {high - 1}" in row.remedy
    if low > 1:
        report = check_reach(net, low - 1)
        assert report.verdict == "does_not_fit"
        assert [row.used for row in report.over if row.resource == "input_reaches"] == [high]


def test_without_zeros_synapses_are_counted_one_by_one() -> None:
    kernel = Conv1d(weight=np.ones((1, 1, 2)), padding=(1,))
    net = build(SumPool(kernel_size=(3,), stride=(1,)), kernel, shape=(1, 6))
    for fewest in (False, True):
        (population,) = find_populations(net, zeros=True, fewest=fewest)
        assert not population.projections[0].is_bound
        assert population.projections[0].fan_in.tolist() == [matrix_onto(net, "input", "n").sum(axis=1).tolist()]


def test_cores_are_open_where_the_fewest_synapses_take_fewer_of_them() -> None:
    chip = small_chip("catalyst_n1", core__synapse_memory=13, chip__cores=1, chip__usable_cores=1)
    report = check(edge_of_a_pool(), chip, remedies=False)  # 10 to 14 synapses, and 12 are there
    (row,) = (row for row in report.rows if row.status == "unchecked")
    assert (report.verdict, row.resource) == ("unchecked", "cores") and "1 to 2, and the limit is 1" in row.remedy


def test_what_is_counted_exactly_is_over_and_other_limits_stay() -> None:
    """Weights of 0 behind a flatten, and of whole channels, are counted one by one."""
    flat = build(Flatten(), Scale(weight=np.array([0.0, 1, 1, 1, 1, 1])), Dense(weight=np.eye(6)), shape=(1, 6))
    row = next(row for row in check_reach(flat, 4).over)
    assert (row.resource, row.used) == ("input_reaches", 5)
    chip = small_chip("catalyst_n1", connectivity__input_reaches=5, core__neurons=5, chip__usable_cores=1)
    report = check(part_of_a_map(), chip, remedies=False)
    assert {row.resource for row in report.over} == {"cores"} and report.verdict == "does_not_fit"


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_synapses_lie_between_the_fewest_and_all(seed: int) -> None:
    """Pools whose windows overlap, kernels with zeros that pad, and zeros at some places of a map, against matrices."""
    rng = np.random.default_rng(seed)

    def few(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * (rng.random(shape) < 0.6)

    shape = (2, *(int(n) for n in rng.integers(7, 10, 2)))
    pool = SumPool(kernel_size=(3, 3), stride=(int(rng.integers(1, 3)),) * 2, padding=(int(rng.integers(0, 2)),) * 2)
    kernel = Conv2d(weight=few(4, 2, 2, 3), padding=(1, int(rng.integers(0, 3))), stride=(1, int(rng.integers(1, 3))))
    synapses: list[Synapse] = [pool, kernel] if seed % 2 else [kernel, pool]
    if seed % 3 == 0:
        place = int(rng.integers(0, 3))
        before = shape
        for synapse in synapses[:place]:
            before = synapse.output_shape(before)
        synapses.insert(place, Scale(weight=few(*before)))
    net = build(*synapses, shape=shape)
    exists = matrix_onto(net, "input", "n")
    for fewest in (False, True):
        (population,) = find_populations(net, zeros=True, fewest=fewest)
        (projection,) = population.projections
        into, out = projection.fan_in.reshape(-1) - exists.sum(axis=1), projection.fan_out.reshape(-1) - exists.sum(axis=0)
        assert (into <= 0).all() and (out <= 0).all() if fewest else (into >= 0).all() and (out >= 0).all()
        assert projection.is_bound or not (into.any() or out.any())
