"""Levelled cuts against every combination of cuts."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
import pytest

from spear_deploy.placement.leveling import level_cuts
from spear_deploy.placement.place import place, place_populations
from spear_deploy.placement.weight_bits import stored_bits
from tests.support.chips import dense_net, random_net, small_chip
from tests.support.seeds import seeds


def largest(loads: dict[str, np.ndarray], placement) -> float:
    return max(loads[part.layer][tuple(slice(*along) for along in part.box)].sum() for part in placement.slices)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_equal_neurons_of_dense_layers_are_cut_as_well_as_any_combination_of_equal_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [int(n) for n in rng.integers(2, 13, 4)]
    net, chip = dense_net(*widths), small_chip("loihi2")
    placement = place(net, chip)
    loads = {name: np.full(net.shape_of(name), float(rng.integers(1, 20))) for name in placement.layers}
    max_cores = int(rng.integers(3, 16))
    cuts = level_cuts(placement, loads, max_cores=max_cores)
    pieces = {name: len(cuts[name][0]) if name in cuts else 1 for name in placement.layers}
    assert sum(pieces.values()) <= max_cores
    reached = max(float(loads[name][0]) * ceil(loads[name].size / pieces[name]) for name in pieces)
    combinations = product(*(range(1, loads[name].size + 1) for name in pieces))
    best = min(
        max(float(loads[name][0]) * ceil(loads[name].size / m) for name, m in zip(pieces, parts, strict=True))
        for parts in combinations
        if sum(parts) <= max_cores
    )
    assert reached == best


@pytest.mark.parametrize("seed", range(15))
def test_levelled_cores_hold_every_neuron_once_and_the_fullest_has_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net, chip = random_net(rng), small_chip("loihi2", core__neurons=int(rng.integers(20, 200)))
    placement = place(net, chip)
    shapes = {population.name: population.shape for population in placement.populations}
    loads = {name: rng.random(shape) for name, shape in shapes.items()}
    cuts = level_cuts(placement, loads, max_cores=placement.cores_used + 12)
    levelled = place_populations(placement.populations, stored_bits(net, chip), chip, own_cuts=cuts)
    for name, shape in shapes.items():
        seen = np.zeros(shape, int)
        for part in levelled.slices_of(name):
            seen[tuple(slice(*along) for along in part.box)] += 1
        assert (seen == 1).all()
    assert levelled.cores_used <= placement.cores_used + 12
    assert largest(loads, levelled) < largest(loads, placement)


def test_it_ends_where_the_work_is_small_enough_or_nothing_is_left_to_cut() -> None:
    net, chip = dense_net(3, 8, 4), small_chip("loihi2")
    placement = place(net, chip)
    loads = {"fc1": np.full(8, 2.0), "fc2": np.full(4, 1.0)}
    assert level_cuts(placement, loads, max_cores=100, enough=16) == {}
    assert {name: len(cut[0]) for name, cut in level_cuts(placement, loads, max_cores=100, enough=8).items()} == {"fc1": 2}
    assert {name: len(cut[0]) for name, cut in level_cuts(placement, loads, max_cores=100).items()} == {"fc1": 8, "fc2": 2}
