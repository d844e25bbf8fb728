"""A smaller network, or a larger chip, never takes a resource over its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import HardwareProfile, override_facts
from spear_deploy.network import WEIGHTED
from spear_deploy.network.channel_groups import couple_channels
from spear_deploy.network.graph import Layer, SNNGraph
from spear_deploy.placement.chip_populations import COUNTED
from spear_deploy.pruning.plan import PruningPlan, prune
from tests.support.chips import random_net, small_chip

SIZES = ("neurons", "synapse_memory", "axons_in", "axons_out")
RESOURCES = ("cores", "neuron_memory", "bias_memory", "fan_out_cores", *SIZES, *COUNTED)
CHIPS = ("akd1500", "brainscales2", "loihi1", "odin", "reckon", "speck2f", "spinnaker1", "spinnaker2", "truenorth", "xylo_audio3")
"""Loihi 2 is not among them: its compiler's rule may cut finer where a core holds more. Nor is Catalyst N1, whose compiler packs
layers in a row: behind a narrower layer another one begins on the core before, and its synapses then leave that core."""


def draw_chip(rng: np.random.Generator, base: str) -> HardwareProfile:
    """Return a chip with small cores, and no limits of connections but those of a core."""
    values: dict[str, Any] = {f"connectivity__{name}": "unlimited" for name in COUNTED}
    profile = small_chip(base)
    spans = {"neurons": (16, 200), "synapse_memory": (400, 9000), "axons_in": (80, 700), "axons_out": (80, 700)}
    for name, span in spans.items():
        if isinstance(getattr(profile.core, name).value, int):
            values[f"core__{name}"] = int(rng.integers(*span))
    return small_chip(base, **values)


def find_over(net: SNNGraph, chip: HardwareProfile, cores: int | None) -> set[tuple[str, str]]:
    """Return what is over in a check of a network, with a limit of cores."""
    report = check(net, chip, limits=UserLimits(cores=cores), remedies=False)
    return {(row.resource, row.where) for row in report.over if row.resource in RESOURCES}


def zero_weights(net: SNNGraph, rng: np.random.Generator) -> SNNGraph:
    """Return a network of which some weights are 0."""
    share = rng.random()

    def thin(layer: Layer) -> Layer:
        if not isinstance(layer.synapse, WEIGHTED):
            return layer
        weight = layer.synapse.weight
        return replace(layer, synapse=replace(layer.synapse, weight=weight * (rng.random(weight.shape) < share)))

    return net.with_layers(thin)


@pytest.mark.parametrize(
    "base", [pytest.param(chip, marks=pytest.mark.slow if chip in ("truenorth", "reckon", "akd1500") else ()) for chip in CHIPS]
)
def test_fewer_channels_fewer_weights_and_larger_cores_take_nothing_over_its_limit(base: str) -> None:
    fitting = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        net, chip = random_net(rng), draw_chip(rng, base)
        cores = check(net, chip, remedies=False).cores_used
        if find_over(net, chip, cores):
            continue
        fitting += 1
        for name in SIZES:
            if isinstance(value := getattr(chip.core, name).value, int):
                for more in (value + 1, 2 * value):
                    assert not find_over(net, override_facts(chip, {f"core.{name}": more}), cores), (seed, name, more)
        assert not find_over(zero_weights(net, rng), chip, cores), seed
        for group in couple_channels(net).prunable:
            for left in {max(1, group.channels - 1), (group.channels + 1) // 2}:
                narrow = prune(net, PruningPlan(kept={group.name: tuple(range(left))}))
                assert not find_over(narrow, chip, cores), (seed, group.name, left)
    assert fitting > 2
