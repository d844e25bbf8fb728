"""Messages to cores and hops of random networks, recounted spike by spike from the listed placement."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.profile import HardwareProfile, load_profile
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import INPUT, chain
from spear_deploy.placement.place import Placement, place
from spear_deploy.quantize.shared_cells import ONE_CELL
from spear_deploy.simulator import SpikeCounts
from tests.support.chips import small_chip
from tests.support.single_synapses import Way, draw_graph, find_neurons, find_ways

CHIPS = (
    "truenorth", "brainscales2", "odin", "reckon", "catalyst_n1", "xylo_imu", "spinnaker1", "spinnaker2", "akd1500",
    "generic45nm",
)  # fmt: skip


def find_messages(ways: dict[str, list[Way]], chip: HardwareProfile, placement: Placement) -> dict[tuple[str, int], np.ndarray]:
    """Return how many messages a spike of each neuron of a source is to a core, by (source, core)."""
    form, is_async = chip.synapse_memory.format.value, chip.timing.mode.value == "async"
    skips_zeros, has_rows = form in ("crossbar", "word_per_weight"), form == "crossbar" and chip.meta.family not in ONE_CELL
    by_core: dict[tuple[str, int, Any], dict[int, np.ndarray]] = defaultdict(dict)
    for number, part in enumerate(placement.slices):
        here = find_neurons(placement, part)
        for way in ways[part.layer]:
            marks = (way.exists if skips_zeros else way.stored)[here].any(axis=0)
            counts = by_core[way.source, part.core, (part.run, way.delays[is_async] if has_rows else 0)]
            counts[number] = counts.get(number, 0) + marks if has_rows else counts.get(number, False) | marks
    found: dict[tuple[str, int], np.ndarray] = {}
    for (source, core, _), of_slices in by_core.items():
        found[source, core] = found.get((source, core), 0) + np.max([*of_slices.values()], axis=0).astype(int)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_messages_are_those_of_every_spike_to_every_core(seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    graph = draw_graph(rng)
    names = [INPUT, *(layer.name for layer in graph.layers if layer.neuron is not None)]
    sent = {name: rng.integers(0, 9, graph.shape_of(name)) for name in names}
    ways = {name: find_ways(graph, name) for name in names[1:]}
    for name in CHIPS:
        limits = {"core__neurons": int(rng.integers(2, 60)), "core__synapse_memory": int(rng.integers(30, 3000))}
        chip = load_profile(name) if name in ("reckon", "xylo_imu", "generic45nm") else small_chip(name, **limits)
        placement = place(graph, chip)
        if any(p.is_bound for population in placement.populations for p in population.projections):
            continue  # zeros are not counted one by one
        flow = count_traffic(graph, chip, placement, SpikeCounts(sent=sent, steps=3, samples=2))
        into, messages, hops = np.zeros(placement.cores_used), 0.0, np.zeros(2)
        for (source, core), per_spike in find_messages(ways, chip, placement).items():
            spikes = sent[source].reshape(-1) * per_spike / 2
            into[core] += spikes.sum()
            if source == INPUT:
                continue
            messages += spikes.sum()
            for part in placement.slices_of(source):
                apart = np.abs(np.subtract(find_tile(part.core), find_tile(core)))
                hops += spikes[find_neurons(placement, part)].sum() * apart
        np.testing.assert_allclose(flow.core_messages, into, err_msg=name)
        assert flow.messages == pytest.approx(messages), name
        if flow.hops_ew is not None:
            assert (flow.hops_ew, flow.hops_ns) == pytest.approx(tuple(hops)), name


def find_tile(core: int) -> tuple[int, int]:
    """Return the column and row of a core of TrueNorth, whose rows of 64 run to and fro."""
    row, column = divmod(core, 64)
    return (63 - column if row % 2 else column), row


@pytest.mark.parametrize(("name", "messages"), [("truenorth", 13), ("catalyst_n1", 13), ("spinnaker1", 20), ("loihi1", 20)])
def test_no_spike_goes_to_a_core_whose_weights_are_all_0_where_zeros_take_no_list(name: str, messages: int) -> None:
    """4 neurons of 1, 2, 3 and 4 spikes feed two cores: one has no weights of the last, the other none of the first two."""
    weight = np.ones((4, 4))
    weight[:2, 3], weight[2:, :2] = 0, 0
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((4, 4))), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=weight), neuron=IF()),
    ]
    graph, chip = chain(layers, input_shape=(4,)), small_chip(name, core__neurons=2)
    sent = {INPUT: np.zeros(4), "a": np.array([1, 2, 3, 4]), "b": np.zeros(4)}
    flow = count_traffic(graph, chip, place(graph, chip), SpikeCounts(sent=sent, steps=1, samples=1))
    assert flow.messages == messages
