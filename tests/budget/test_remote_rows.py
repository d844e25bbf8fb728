"""Synapses onto other cores against counts by neuron."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.remote_rows import check_remote_synapses
from spear_deploy.hardware.profile import load_profile
from spear_deploy.placement.place import place
from tests.support.chips import dense_net, matrix_onto, random_net, small_chip

CATALYST = load_profile("catalyst_n1")


def count_by_neuron(net, chip, source: str) -> int:
    """The most synapses of a neuron onto cores other than its own."""
    placement, most = place(net, chip), 0
    for part in placement.slices_of(source):
        total = np.zeros(part.neurons, int)
        for name in placement.layers:
            if source not in {edge.source for edge in net.edges_into(name)}:
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
    assert {name: row.used for name, row in rows.items()} == {name: count_by_neuron(net, chip, name) for name in rows}
    assert {row.limit for row in rows.values()} == {8}


@pytest.mark.parametrize("seed", range(15))
def test_convolutions_are_never_counted_too_low(seed: int) -> None:
    net = random_net(np.random.default_rng(seed))
    chip = small_chip("catalyst_n1", core__neurons=int(np.random.default_rng(seed).integers(5, 60)))
    for row in check_remote_synapses(place(net, chip), chip):
        layer = net[row.where]
        if layer.spikes and all(net[edge.target].neuron is not None for edge in net.edges_from(row.where)):
            assert row.used >= count_by_neuron(net, chip, row.where)


def test_dense_layers_on_one_core_fit_and_on_two_do_not() -> None:
    one, two = (check(dense_net(16, width, 10), CATALYST) for width in (1000, 1200))
    assert one.cores_used == 1 and not [row for row in one.over if row.resource == "fan_out_remote"]
    assert two.verdict == "does_not_fit" and "fan_out_remote" in {row.resource for row in two.over}


def test_chips_without_such_a_limit_have_no_row() -> None:
    net = dense_net(5, 12, 4)
    assert not list(check_remote_synapses(place(net, load_profile("loihi1")), load_profile("loihi1")))
    chip = small_chip("catalyst_n1", connectivity__fan_out_remote=None)
    assert not list(check_remote_synapses(place(net, chip), chip))
