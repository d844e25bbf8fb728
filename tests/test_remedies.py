"""Remedies: each is carried out on the network itself, and must remove the violation it is offered for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from spear_deploy.budget import Row, check
from spear_deploy.graph import SNNGraph
from spear_deploy.profile import HardwareProfile, with_overrides
from spear_deploy.pruning import PruningPlan, coupled_groups, prune
from tests.chips import dense_net, random_net, small_chip


def row(graph: SNNGraph, chip: HardwareProfile, resource: str, where: str, chips: int = 1) -> Row:
    return next(r for r in check(graph, chip, chips=chips).rows if (r.resource, r.where) == (resource, where))


def narrower(graph: SNNGraph, remedy: str) -> tuple[SNNGraph, SNNGraph]:
    """Carry out "drop d of n channels of 'x'", and the same with one channel fewer dropped."""
    dropped, channels, name = re.search(r"drop (\d+) of (\d+) channels of '(\w+)'", remedy).groups()
    group = next(g for g in coupled_groups(graph) if name in g.producers)
    assert group.channels == int(channels)
    left = group.channels - int(dropped)
    done, almost = (prune(graph, PruningPlan(kept={group.name: tuple(range(n))})) for n in (left, left + 1))
    return done, almost


def test_channels_to_drop_are_as_few_as_bring_the_cores_down() -> None:
    net, chip = dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=8)
    over = row(net, chip, "cores", "chip")
    assert (over.used, over.limit, over.status) == (11, 8, "over")
    assert "drop 30 of 100 channels of 'fc1'" in over.remedy
    done, almost = narrower(net, over.remedy)
    assert row(done, chip, "cores", "chip").status != "over"
    assert row(almost, chip, "cores", "chip").status == "over"


def test_chips_are_as_few_as_hold_the_cores() -> None:
    net, chip = dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=5)
    assert "3 chips instead of 1" in row(net, chip, "cores", "chip").remedy
    assert row(net, chip, "cores", "chip", chips=3).status != "over"
    assert row(net, chip, "cores", "chip", chips=2).status == "over"


def test_fewer_weight_bits_are_offered_where_they_help() -> None:
    """64 inputs to 100 neurons: 8 bits take 2048 words in all, 4 bits 1664; a core holds 900."""
    net, chip = dense_net(64, 100), small_chip("loihi2", core__synapse_memory=1700, chip__usable_cores=1)
    over = row(net, chip, "cores", "chip")
    bits = int(re.search(r"weights of (\d) bits", over.remedy).group(1))
    for width, status in ((bits, False), (bits + 1, True)):
        allowed = with_overrides(chip, {"weights.bits": [1, 2, 3, 4, 5, 6, 7, 8], "weights.default_bits": width})
        assert (row(net, allowed, "cores", "chip").status == "over") is status


def test_packing_by_hand_is_offered_where_it_is_enough() -> None:
    net = dense_net(200, 256)  # the compiler's rule takes 3 cores, 2 are enough
    chip = small_chip("loihi2", chip__usable_cores=2)
    assert "the tightest packing takes 2 cores: place the layers by hand" in row(net, chip, "cores", "chip").remedy


def test_inputs_that_a_core_cannot_take() -> None:
    """The example of the reference: 5120 input axons, Loihi 1 allows 4096."""
    net, chip = dense_net(5120, 4), small_chip("loihi1")
    over = row(net, chip, "axons_in", "fc1")
    assert (over.used, over.limit, over.remedy) == (5120, 4096, "1024 of 5120 inputs fewer")
    assert row(dense_net(4096, 4), chip, "axons_in", "fc1").status == "tight"
    hidden = row(dense_net(3, 5120, 4), chip, "axons_in", "fc2")
    assert hidden.remedy == "drop 1024 of 5120 channels of 'fc1'"


def test_memory_that_one_neuron_overfills() -> None:
    net, chip = dense_net(3, 500, 2), small_chip("loihi2", core__synapse_memory=300)
    over = row(net, chip, "synapse_memory", "fc2")
    assert (over.used, over.status) == (500, "over")
    assert "drop 200 of 500 channels of 'fc1'" in over.remedy
    assert row(narrower(net, over.remedy)[0], chip, "synapse_memory", "fc2").status != "over"


def test_where_nothing_helps_that_is_said() -> None:
    net, chip = dense_net(3, 50, 50, 50), small_chip("loihi1", core__neurons=10, chip__usable_cores=2, chip__cores=2)
    limited = check(net, chip, cores=2)
    assert limited.rows[0].remedy.startswith("8 chips instead of 1")
    silent = check(net, small_chip("loihi1", core__neurons=10), cores=2)
    assert silent.rows[0].remedy == "no single layer, weight width or chip count lowers cores enough; prune several layers"


@pytest.mark.parametrize("seed", range(30))
def test_every_remedy_offered_removes_its_violation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    base = str(rng.choice(["loihi1", "loihi2"]))
    chip = small_chip(
        base,
        core__neurons=int(rng.integers(6, 60)),
        core__synapse_memory=int(rng.integers(30, 400)),
        chip__usable_cores=int(rng.integers(1, 8)),
    )
    for violation in check(net, chip).over:
        for remedy in violation.remedy.split("; "):
            place = (violation.resource, violation.where)
            if remedy.startswith("drop"):
                assert row(narrower(net, remedy)[0], chip, *place).status != "over"
            elif match := re.match(r"(\d+) chips instead of 1", remedy):
                assert row(net, chip, *place, chips=int(match.group(1))).status != "over"
            elif match := re.match(r"weights of (\d) bits", remedy):
                fewer = with_overrides(chip, {"weights.default_bits": int(match.group(1))})
                assert row(net, fewer, *place).status != "over"
            elif match := re.match(r"the tightest packing takes (\d+) cores", remedy):
                assert int(match.group(1)) <= violation.limit
