"""Cores of random networks, recounted from the synapses that unit impulses show."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.core_rows import measure_core_use
from spear_deploy.hardware.profile import HardwareProfile, load_profile
from spear_deploy.network.graph import INPUT
from spear_deploy.placement.place import place
from spear_deploy.quantize.shared_cells import ONE_CELL
from tests.support.chips import small_chip
from tests.support.seeds import seeds
from tests.support.single_synapses import Way, draw_graph, find_neurons, find_ways

CROSSBARS = {
    "truenorth": {"axons_out": (2, 100), "axons_in": (4, 120), "neurons": (2, 60), "synapse_memory": (30, 4000)},
    "brainscales2": {"axons_in": (4, 120), "neurons": (2, 60), "synapse_memory": (30, 4000)},
    "odin": {"axons_in": (4, 120), "neurons": (2, 60), "synapse_memory": (30, 4000)},
    "reckon": {},
}
LISTS = {"catalyst_n1": {"neurons": (2, 60), "synapse_memory": (20, 1000)}, "xylo_audio3": {}, "spinnaker1": {"neurons": (2, 60)}}
CHIPS = CROSSBARS | LISTS


def draw_chip(rng: np.random.Generator, name: str) -> HardwareProfile:
    return small_chip(name, **{f"core__{key}": int(rng.integers(*ends)) for key, ends in CHIPS[name].items()})


def count_slice(ways: list[Way], here: np.ndarray, chip: HardwareProfile, copies: int) -> tuple[int, int]:
    """Return rows and words of a slice."""
    form = chip.synapse_memory.format.value
    exists = [way.exists[here] for way in ways]
    if chip.meta.family in ONE_CELL:
        by_source: dict[str, np.ndarray] = {}
        for way, own in zip(ways, exists, strict=True):
            by_source[way.source] = by_source.get(way.source, False) | own
        exists = list(by_source.values())
    rows = [int(own.any(axis=0).sum()) for own in exists]
    if form == "sdram_rows":
        stored = [way.stored[here] for way in ways]
        return sum(rows), sum(3 * int(own.any(axis=0).sum()) + int(own.sum()) for own in stored)
    if form == "word_per_weight":
        return sum(rows), sum(int(own.sum()) for own in exists)
    if chip.meta.family in ONE_CELL:
        return sum(rows), sum(rows) * len(here)
    cells = [int(chip.synapse_memory.cells_per_weight.value) if way.signed else 1 for way in ways]
    return sum(rows), copies * len(here) * sum(n * size for n, size in zip(rows, cells, strict=True))


def count_rows_of_core(parts: list[tuple[list[Way], np.ndarray]], chip: HardwareProfile) -> int:
    """Return the rows of a core: a source neuron has as many of one delay as it has ways with that delay into any layer."""
    is_async, adds = chip.timing.mode.value == "async", chip.meta.family in ONE_CELL
    by_row: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    for ways, here in parts:
        own: dict[tuple[str, int], Any] = defaultdict(int)
        for way in ways:
            marks = way.exists[here].any(axis=0)
            key = way.source, 0 if adds else way.delays[is_async]
            own[key] = own[key] | marks if adds else own[key] + marks
        for key, count in own.items():
            by_row[key].append(count)
    return sum(int(np.max(counts, axis=0).sum()) for counts in by_row.values())


@pytest.mark.parametrize("seed", seeds(6, 24))
def test_every_core_holds_what_single_synapses_need(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = draw_graph(rng)
    names = [layer.name for layer in graph.layers if layer.neuron is not None]
    ways = {name: find_ways(graph, name) for name in names}
    for name in CHIPS:
        chip = draw_chip(rng, name) if rng.random() < 0.7 else load_profile(name)
        placement = place(graph, chip)
        if any(p.is_bound for population in placement.populations for p in (*population.projections, *population.merged)):
            continue  # zeros are not counted one by one
        cores: dict[int, list[tuple[list[Way], np.ndarray]]] = defaultdict(list)
        read = {layer: np.zeros(int(np.prod(graph.shape_of(layer))), int) for layer in (INPUT, *names)}
        covered = {layer: np.zeros_like(read[layer]) for layer in names}
        for part in placement.slices:
            here = find_neurons(placement, part)
            covered[part.layer][here] += 1
            cores[part.core].append((ways[part.layer], here))
            if chip.meta.family == "xylo" and any(way.delays[0] for way in ways[part.layer]):
                continue  # a chip without delays, which such a network does not fit
            rows, words = count_slice(ways[part.layer], here, chip, part.copies)
            assert part.memory_words == words, (name, part)
            if name in CROSSBARS:
                assert part.axons_in == rows, (name, part)
                for way in ways[part.layer]:
                    read[way.source] += way.exists[here].any(axis=0)
        assert all((count == 1).all() for count in covered.values())
        if name not in CROSSBARS:
            continue
        used = [use.amounts["axons_in"] for use in measure_core_use(placement)]
        assert used == [count_rows_of_core(parts, chip) for parts in cores.values()], name
        for part in placement.slices:
            if name != "reckon":  # which counts a source's ways of several delays apart, and takes none
                sent = read[part.layer][find_neurons(placement, part)]
                assert (part.axons_out, part.target_cores) == (sent.sum(), read[part.layer].max()), (name, part)
