"""Synapses onto other cores against counts by neuron."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.remote_rows import check_remote_synapses
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv2d, Dense
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.place import Placement, place
from tests.placement.test_brute_force import sparse
from tests.support.chips import dense_net, matrix_onto, previous, random_net, small_chip
from tests.support.seeds import seeds

CATALYST = load_profile("catalyst_n1")


def count_by_neuron(net: SNNGraph, placement: Placement, source: str) -> int:
    """The most synapses of a neuron onto cores other than its own."""
    most = 0
    for part in placement.slices_of(source):
        total = np.zeros(part.neurons, int)
        for name in placement.layers:
            if previous(net, name) != source:
                continue
            exists = matrix_onto(net, source, name).reshape(*net.shape_of(name), *net.shape_of(source))
            for other in placement.slices_of(name):
                if other.core != part.core:
                    rows = exists[tuple(slice(*along) for along in other.box)]
                    block = rows[(Ellipsis, *(slice(*along) for along in part.box))]
                    total += block.reshape(-1, part.neurons).sum(axis=0)
        most = max(most, int(total.max()))
    return most


@pytest.mark.parametrize("neurons", [4, 7, 20, 100])
def test_dense_layers_are_counted_exactly(neurons: int) -> None:
    chip = small_chip("catalyst_n1", core__neurons=neurons)
    net = dense_net(5, 12, 9, 4)
    rows = {row.where: row for row in check_remote_synapses(place(net, chip), chip)}
    assert {name: row.used for name, row in rows.items()} == {name: count_by_neuron(net, place(net, chip), name) for name in rows}
    assert {row.limit for row in rows.values()} == {8}


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_convolutions_pools_and_zero_weights_are_counted_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = sparse(random_net(rng), rng) if seed % 2 else random_net(rng)
    chip = small_chip("catalyst_n1", core__neurons=int(rng.integers(5, 60)))
    placement = place(net, chip)
    rows = {row.where: row for row in check_remote_synapses(placement, chip)}
    assert {name: row.used for name, row in rows.items()} == {name: count_by_neuron(net, placement, name) for name in rows}


def test_neighbours_of_a_map_that_is_cut_reach_few_neurons_of_the_other_core() -> None:
    """Of the nine neurons around it, a neuron at the cut reaches a row of three on the other core."""
    layers = (
        Layer(name="in", synapse=Conv2d(weight=np.ones((1, 1, 1, 1)))),
        Layer(name="around", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1))),
        Layer(name="map", neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "map", 0), ("map", "around", 1), ("around", "map", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(1, 40, 40), output="map"), CATALYST, remedies=False)
    row = next(row for row in report.rows if row.resource == "fan_out_remote")
    assert (report.cores_used, report.verdict, row.used, row.limit) == (2, "fits", 3, 8)


def test_pruned_dense_layers_have_as_many_synapses_onto_other_cores_as_weights_are_left() -> None:
    rng = np.random.default_rng(0)
    weight = np.zeros((1500, 1500))
    for row in weight:
        row[rng.choice(1500, 2, replace=False)] = 1.0
    weight[:, weight.astype(bool).sum(axis=0) > 8] = 0.0
    first = Layer(name="a", synapse=Dense(weight=np.ones((1500, 16))), neuron=IF())
    net = chain([first, Layer(name="b", synapse=Dense(weight=weight), neuron=IF())], input_shape=(16,))
    report = check(net, CATALYST, remedies=False)
    row = next(row for row in report.rows if (row.resource, row.where) == ("fan_out_remote", "a"))
    assert row.used == count_by_neuron(net, place(net, CATALYST), "a") <= 8
    assert (report.cores_used, report.verdict) == (4, "fits")


def test_dense_layers_on_one_core_fit_and_on_two_do_not() -> None:
    one, two = (check(dense_net(16, width, 10), CATALYST) for width in (1000, 1200))
    assert one.cores_used == 1 and not [row for row in one.over if row.resource == "fan_out_remote"]
    assert two.verdict == "does_not_fit" and "fan_out_remote" in {row.resource for row in two.over}


def test_chips_without_such_a_limit_have_no_row() -> None:
    net = dense_net(5, 12, 4)
    assert not list(check_remote_synapses(place(net, load_profile("loihi1")), load_profile("loihi1")))
    chip = small_chip("catalyst_n1", connectivity__fan_out_remote=None)
    assert not list(check_remote_synapses(place(net, chip), chip))
