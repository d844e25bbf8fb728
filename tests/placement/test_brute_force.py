"""Verdicts of every storage format, against synapses listed one by one."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.network import WEIGHTED, Dense
from spear_deploy.network.graph import INPUT, SNNGraph
from tests.support.chips import matrix_onto, previous, random_net, small_chip
from tests.support.seeds import seeds

CHIPS = ("truenorth", "brainscales2", "odin", "spinnaker1", "xylo_audio3", "akd1500", "speck2f", "loihi1", "loihi2")
OPEN = {
    "neuron__models": None,
    "neuron__resets": None,
    "layers__kinds": None,
    "layers__conv_kernel_square": None,
    "layers__conv_padding_same": None,
    "layers__conv_stride_sizes": None,
    "layers__conv_kernel_sizes": None,
    "connectivity__weight_palette": "unlimited",
    "weights__sign": None,
}


def sparse(net: SNNGraph, rng: np.random.Generator) -> SNNGraph:
    """The network with some weights of zero, and only positive ones in some layers."""
    layers = []
    for layer in net.layers:
        if isinstance(layer.synapse, WEIGHTED):
            weight = np.where(rng.random(layer.synapse.weight.shape) < 0.3, 0.0, layer.synapse.weight)
            weight = np.abs(weight) if rng.random() < 0.3 else weight
            weight.flat[0] = 1.0
            layer = replace(layer, synapse=replace(layer.synapse, weight=weight))
        layers.append(layer)
    return replace(net, layers=tuple(layers))


def whole(net: SNNGraph) -> SNNGraph:
    """The network in which every weight exists."""
    layers = [
        replace(layer, synapse=replace(layer.synapse, weight=np.ones_like(layer.synapse.weight)))
        if isinstance(layer.synapse, WEIGHTED)
        else layer
        for layer in net.layers
    ]
    return replace(net, layers=tuple(layers))


def random_chip(rng: np.random.Generator, base: str) -> HardwareProfile:
    values: dict[str, Any] = dict(OPEN)
    profile = small_chip(base)
    values["core__neurons"] = int(rng.integers(4, 120))
    values["core__synapse_memory"] = int(rng.integers(40, 3000))
    if base in ("truenorth", "brainscales2", "odin", "loihi1"):
        values["core__axons_in"] = int(rng.integers(20, 250))
    for group in profile.core_groups:
        values |= {f"core_groups__{group.name}__{key}": int(rng.integers(20, 3000)) for key in ("neurons", "synapse_memory")}
        if group.neuron_memory.value is not None:
            values[f"core_groups__{group.name}__neuron_memory"] = int(rng.integers(20, 600))
    values["connectivity__fan_in"] = int(rng.integers(5, 200))
    values["connectivity__fan_out"] = int(rng.integers(5, 200))
    values["connectivity__fan_out_mean"] = 1
    if base == "spinnaker1":
        values["chip__memory_words"] = int(rng.integers(3000, 60000))
    return small_chip(base, **values)


class Synapses:
    """Every synapse of a network: the neurons of a layer by those of its source, bool."""

    def __init__(self, net: SNNGraph) -> None:
        full = whole(net)
        self.source = {layer.name: previous(net, layer.name) for layer in net.layers if layer.neuron is not None}
        self.exists = {name: matrix_onto(net, source, name) for name, source in self.source.items()}
        self.stored = {name: matrix_onto(full, source, name) for name, source in self.source.items()}
        self.weights = {name: next(net[n].synapse.weight for n in path(net, name)) for name in self.source}


def path(net: SNNGraph, name: str) -> list[str]:
    """The weighted layer that feeds a layer of neurons."""
    while not isinstance(net[name].synapse, WEIGHTED):
        name = net.edges_into(name)[0].source
    return [name]


def rows_of(report: BudgetReport, part: Any) -> np.ndarray:
    """Which neurons of its layer lie in a slice: bool."""
    population = next(p for p in report.placement.populations if p.name == part.layer)
    here = np.zeros(population.shape, bool)
    here[tuple(slice(*along) for along in part.box)] = True
    return here.reshape(-1)


def reaching(part: Any, here: np.ndarray, synapses: Synapses, chip: HardwareProfile) -> np.ndarray:
    """Which sources reach a slice: bool; on a crossbar none whose weights onto its neurons are all 0."""
    is_crossbar = str(chip.synapse_memory.format.value) == "crossbar"
    return np.asarray((synapses.exists if is_crossbar else synapses.stored)[part.layer][here].any(axis=0))


def words(net: SNNGraph, part: Any, here: np.ndarray, synapses: Synapses, chip: HardwareProfile) -> int | None:
    """The synapse memory of a slice, by its format's rule over single synapses; None for lists, which have tests of their own."""
    stored, exists, weight = synapses.stored[part.layer][here], synapses.exists[part.layer][here], synapses.weights[part.layer]
    memory, kind = chip.synapse_memory, str(chip.synapse_memory.format.value)
    outputs = int(here.sum()) if isinstance(net[path(net, part.layer)[0]].synapse, Dense) else part.box[0][1] - part.box[0][0]
    if kind == "crossbar":
        cells = memory.cells_per_weight.value if (weight < 0).any() else 1
        return int(reaching(part, here, synapses, chip).sum() * here.sum() * cells)
    if kind == "word_per_weight":
        return int(exists.sum())
    if kind == "sdram_rows":
        return int(3 * stored.any(axis=0).sum() + stored.sum())
    if kind == "packed_weights":
        bits = int(chip.weights.default_bits.value or 0)
        return ceil(outputs * weight[0].size * bits / int(memory.word_bits.value or 0))
    if kind == "pow2_kernel":
        inputs, taps = weight.shape[1], int(np.prod(weight.shape[2:]))
        if weight.ndim == 2:
            inputs, taps = dense_kernel(net, path(net, part.layer)[0])
        return inputs * 2 ** (ceil(log2(taps)) + ceil(log2(outputs)))
    return None


def dense_kernel(net: SNNGraph, name: str) -> tuple[int, int]:
    """Channels and positions of the map that a dense layer reads."""
    before = net.edges_into(name)[0].source
    shape = net.input_shape_of(before) if before != INPUT else net.input_shape
    return shape[0], int(np.prod(shape[1:]))


def brute_force(net: SNNGraph, chip: HardwareProfile, report: BudgetReport) -> dict[tuple[str, str], float]:
    """The largest share of a limit by resource and place."""
    synapses = Synapses(net)
    cores: dict[tuple[int, int], list[Any]] = {}
    for part in report.placement.slices:
        cores.setdefault((part.run, part.core), []).append(part)
    share: dict[tuple[str, str], float] = {}
    by_chip: dict[tuple[int, int], int] = {}
    neuronwise = chip.axons.conv.value is None
    for parts in cores.values():
        where = " + ".join(dict.fromkeys(part.layer for part in parts))
        limits = chip.core_limits(parts[0].group)
        used: dict[str, int | None] = {"neurons": 0, "synapse_memory": 0}
        axons: set[tuple[str, int]] = set()
        for part in parts:
            here = rows_of(report, part)
            used["neurons"] += part.copies * int(here.sum())  # type: ignore[operator]
            part_words = words(net, part, here, synapses, chip)
            used["synapse_memory"] = None if part_words is None else used["synapse_memory"] + part.copies * part_words  # type: ignore[operator]
            axons |= {(synapses.source[part.layer], int(i)) for i in np.flatnonzero(reaching(part, here, synapses, chip))}
            by_chip[part.run, part.chip] = by_chip.get((part.run, part.chip), 0) + (part_words or 0)
        if neuronwise:
            used["axons_in"] = len(axons)
        if chip.synapse_memory.scope.value == "chip":
            del used["synapse_memory"]
        for name, amount in used.items():
            limit = limits[name].max_value
            if amount is not None and limit is not None:
                share[name, where] = max(share.get((name, where), 0.0), amount / limit)
    if chip.synapse_memory.scope.value == "chip":
        share["synapse_memory", "chip"] = max(by_chip.values()) / int(chip.chip.memory_words.value or 0)
    share |= fans(net, chip, synapses)
    return share


def fans(net: SNNGraph, chip: HardwareProfile, synapses: Synapses) -> dict[tuple[str, str], float]:
    share: dict[tuple[str, str], float] = {}
    rules = chip.connectivity
    cells = chip.synapse_memory.cells_per_weight.max_value or 1
    readout = any(group.role.value == "readout" for group in chip.core_groups)
    total = 0
    for name, source in synapses.source.items():
        per_weight = cells if (synapses.weights[name] < 0).any() else 1
        share["fan_in", name] = int(synapses.exists[name].sum(axis=1).max()) * per_weight / int(rules.fan_in.value or 0)
        share.setdefault(("fan_out", name), 0.0)
        if readout and name == net.output:
            continue
        if source != INPUT:
            leaving = int(synapses.exists[name].sum(axis=0).max())
            share["fan_out", source] = leaving / int(rules.fan_out.value or 0)
            total += int(synapses.exists[name].sum())
    capacity = sum(
        int(chip.core_limits(n)["neurons"].value) * int(group.count.value or 0)
        for n, group in enumerate(chip.core_groups)
        if group.role.value != "readout"
    ) or int(chip.core.neurons.value or 0) * int(chip.chip.usable_cores.value or 0)
    share["fan_out_mean", "chip"] = total / capacity
    return share


@pytest.mark.parametrize("base", CHIPS)
@pytest.mark.parametrize("seed", seeds(6, 12))
def test_every_row_is_what_single_synapses_add_up_to(seed: int, base: str) -> None:
    rng = np.random.default_rng([seed, CHIPS.index(base)])
    net, chip = sparse(random_net(rng), rng), random_chip(rng, base)
    report = check(net, chip)
    share = brute_force(net, chip, report)
    rows = {(row.resource, row.where): row for row in report.rows}
    for key, expected in share.items():
        assert rows[key].share == pytest.approx(expected), key
        assert (rows[key].status == "over") is (expected > 1), key
    resources = {resource for resource, _ in share}
    seen = {(row.resource, row.where) for row in report.rows if row.resource in resources and row.limit is not None}
    if chip.synapse_memory.format.value not in ("list_words", "list_blocks"):
        assert seen == set(share)
    if any(expected > 1 for expected in share.values()):
        assert report.verdict == "does_not_fit"


@pytest.mark.parametrize("base", CHIPS)
@pytest.mark.parametrize("seed", seeds(6, 12))
def test_every_neuron_is_placed_once_and_no_core_is_over_that_could_be_cut(seed: int, base: str) -> None:
    rng = np.random.default_rng([seed, CHIPS.index(base), 1])
    net, chip = random_net(rng), random_chip(rng, base)
    report = check(net, chip)
    for placement in (report.placement, report.fewest_cores):
        for population in placement.populations:
            count = np.zeros(population.shape, int)
            for part in placement.slices_of(population.name):
                count[tuple(slice(*along) for along in part.box)] += 1
            assert (count == 1).all()
    again = check(net, chip)
    assert again.to_json() == report.to_json()
    assert report.bound <= report.fewest_cores.cores_in_all <= report.placement.cores_in_all
