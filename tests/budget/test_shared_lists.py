"""Layers of weights behind the sum of several layers' spikes, whose lists of synapses Loihi's cores may hold once or twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.network import LIF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from tests.support.chips import small_chip


def summed(neurons: int, outputs: int, sources: int, *, is_sum: bool = True) -> SNNGraph:
    """Return layers of which all feed one layer of weights, or each a layer of weights of its own."""
    names = [f"s{k}" for k in range(sources)]
    layers = [Layer(name=name, synapse=Dense(weight=np.ones((neurons, 5))), neuron=LIF(tau_s=0.02)) for name in names]
    edges = [Edge(source=INPUT, target=name) for name in names]
    dense = Dense(weight=np.ones((outputs, neurons)))
    if is_sum:
        layers.append(Layer(name="out", synapse=dense, neuron=LIF(tau_s=0.02)))
        edges += [Edge(source=name, target="out") for name in names]
    else:
        layers += [Layer(name=f"{name}.out", synapse=dense) for name in names]
        layers.append(Layer(name="out", neuron=LIF(tau_s=0.02)))
        edges += [Edge(source=name, target=f"{name}.out") for name in names]
        edges += [Edge(source=f"{name}.out", target="out") for name in names]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(5,), output="out")


def find(graph: SNNGraph, chip: Any, **more: Any) -> tuple[str, dict[str, str]]:
    report = check(graph, chip, remedies=False, **more)
    return report.verdict, {
        f"{row.resource} {row.where}": row.remedy for row in report.rows if row.status in ("unchecked", "over")
    }


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_a_core_of_layers_that_share_none_with_one_list_for_all_is_open(chip: str) -> None:
    """With a list for all sources three layers share a core; with one for each the last has too many axons for any core."""
    shares = {"packing__share_cores": True, "core__layers": "unlimited", "core__axons_in": 60, "core__synapse_memory": 100_000}
    own = small_chip(chip, **shares, chip__usable_cores=200, chip__cores=200, topology__cores_per_tile=None)
    assert find(summed(40, 30, 2, is_sum=False), own)[0] == "does_not_fit"
    verdict, rows = find(summed(40, 30, 2), own)
    assert verdict == "unchecked" and list(rows) == ["axons_in out"]
    assert "for each source it is 80 of 60; whether they share one is not published" in rows["axons_in out"]


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
@pytest.mark.parametrize("sources", [2, 3])
def test_a_list_for_each_source_decides_where_one_for_all_fits(chip: str, sources: int) -> None:
    """With weights of its own each source has its own lists: as many cores as the open end, of one core too few they are over."""
    shared, apart = summed(40, 300, sources), summed(40, 300, sources, is_sum=False)
    small = {"core__synapse_memory": 600, "chip__usable_cores": 200, "chip__cores": 200, "topology__cores_per_tile": None}
    cores, cores_apart = (check(each, small_chip(chip, **small), remedies=False).cores_used for each in (shared, apart))
    assert cores < cores_apart
    for limit, verdict in (
        (cores_apart, "fits"),
        (cores_apart - 1, "unchecked"),
        (cores, "unchecked"),
        (cores - 1, "does_not_fit"),
    ):
        found, open_rows = find(shared, small_chip(chip, **{**small, "chip__usable_cores": limit}))
        assert found == verdict and list(open_rows) == ([] if verdict == "fits" else ["cores chip"])
        told = f"for each source it is {cores_apart} of {limit}; whether they share one is not published"
        assert (told in open_rows.get("cores chip", "")) == (verdict == "unchecked")
    assert find(shared, small_chip(chip, **small), limits=UserLimits(cores=cores))[0] == "unchecked"


def test_a_chip_that_holds_a_row_for_each_source_counts_them_at_once() -> None:
    graph = summed(40, 30, 2)
    report = check(graph, small_chip("truenorth"), remedies=False)
    assert max(part.axons_in for part in report.placement.slices if part.layer == "out") == 80
    assert not [row for row in report.rows if "added in front" in row.remedy]
