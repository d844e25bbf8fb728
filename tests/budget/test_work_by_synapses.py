"""Work of the cores and the time of an inference on every chip, recounted from single synapses."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import HardwareProfile, list_profiles, load_profile
from spear_deploy.network import WEIGHTED
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import SpikeCounts
from tests.budget.test_traffic import find_messages
from tests.support.chips import small_chip
from tests.support.seeds import seeds
from tests.support.single_synapses import _send, draw_graph, find_neurons, find_ways, list_ways

SPANS = {"neurons": (2, 60), "synapse_memory": (30, 3000)}
WHOLE = ("reckon", "xylo_audio2", "xylo_audio3", "xylo_imu")
"""Chips whose cores keep their size."""


def draw_chip(rng: np.random.Generator, name: str) -> HardwareProfile:
    core = load_profile(name).core
    cut = {key: span for key, span in SPANS.items() if isinstance(getattr(core, key).value, int) and name not in WHOLE}
    return small_chip(name, **{f"core__{key}": int(rng.integers(*span)) for key, span in cut.items()})


def count_arrivals(graph: SNNGraph, name: str, sent: dict[str, np.ndarray], *, zeros: bool) -> np.ndarray:
    """Return how many spikes meet a weight of each neuron, one for each way, with `zeros` weights of 0, too."""
    total = np.zeros(prod(graph.shape_of(name)))
    for source, _, layers in list_ways(graph, name):
        size = prod(graph.shape_of(source))
        x = np.eye(size, dtype=int).reshape(size, *graph.shape_of(source))
        for layer in layers:
            x = _send(layer.synapse, x, full=zeros and isinstance(layer.synapse, WEIGHTED))
        total += sent[source].reshape(-1) @ x.reshape(size, -1)
    return total


def count_work(graph: SNNGraph, report: BudgetReport, sent: dict[str, np.ndarray], *, zeros: bool) -> np.ndarray:
    """Return SynOps and updated neurons of each core, (2, cores), copies too; SynOps of all steps and samples."""
    work = np.zeros((2, report.placement.cores_used))
    for name in report.placement.layers:
        onto = count_arrivals(graph, name, sent, zeros=zeros)
        for part in report.placement.slices_of(name):
            copies = report.placement.copies_on_core(part).reshape(-1)
            work[:, part.core] += (onto[find_neurons(report.placement, part)] * copies).sum(), copies.sum()
    return work


def measure_longest_way(
    graph: SNNGraph, chip: HardwareProfile, report: BudgetReport, sent: dict[str, np.ndarray]
) -> tuple[int, int]:
    """Return the tiles east-west and north-south that a message crosses, the most of any."""
    per_tile, columns = int(chip.topology.cores_per_tile.value or 1), int(chip.topology.mesh_columns.value or 1)
    placement, longest = report.placement, np.zeros(2, int)

    def find_tile(core: int) -> tuple[int, int]:
        row, column = divmod(core // per_tile, columns)
        return (columns - 1 - column if row % 2 else column), row

    ways = {name: find_ways(graph, name) for name in placement.layers}
    for (source, core), per_spike in find_messages(ways, chip, placement).items():
        for part in placement.slices_of(source) if source != INPUT else ():
            if (sent[source].reshape(-1) * per_spike)[find_neurons(placement, part)].any():
                longest = np.maximum(longest, np.abs(np.subtract(find_tile(part.core), find_tile(core))))
    return int(longest[0]), int(longest[1])


def time_inference(chip: HardwareProfile, work: np.ndarray, way: tuple[int, int], steps: int) -> tuple[float, float] | None:
    """Return the ends of the time by the module's equations; `steps` counts those of the layers."""
    t, (synops, neurons) = chip.timing, work
    if t.step_s.value is not None:
        return (steps * t.step_s.value,) * 2
    if t.mode.value != "barrier":
        return None
    if t.synop_ns_range.value is not None:
        ends = zip(t.synop_ns_range.value, t.neuron_ns_range.value, t.barrier_ns_range.value, strict=True)
        (synop, neuron, barrier), (most_synop, most_neuron, most_barrier) = ends
        low = max(max(a * synop, b * neuron) for a, b in zip(synops, neurons, strict=True)) + barrier
        return steps * low * 1e-9, steps * ((synops * most_synop + neurons * most_neuron).max() + most_barrier) * 1e-9
    tiles = -(-len(synops) // int(chip.topology.cores_per_tile.value or 1))
    table = t.barrier_ns_by_tiles.value
    rest = way[0] * t.hop_ew_ns.value + way[1] * t.hop_ns_ns.value + table[min(n for n in table if n >= tiles)]
    ends = (t.neuron_inactive_ns.value or t.neuron_active_ns.value, t.neuron_active_ns.value)
    low, high = (steps * ((synops * t.synop_ns.value + neurons * each).max() + rest) * 1e-9 for each in ends)
    return low, high


@pytest.mark.parametrize("seed", seeds(1, 40))
def test_work_and_time_are_those_of_single_synapses(seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    graph = draw_graph(rng)
    while any(layer.neuron is None and len(graph.edges_from(layer.name)) > 1 for layer in graph.layers):
        graph = draw_graph(rng)  # weights that several layers read are counted once, and are synapses of each
    names = [INPUT, *(layer.name for layer in graph.layers if layer.spikes)]
    steps, samples = int(rng.integers(1, 20)), int(rng.integers(1, 4))
    sent = {name: rng.integers(0, 9, graph.shape_of(name)) for name in names}
    for name in list_profiles():
        chip = draw_chip(rng, name)
        report = check(graph, chip, activity=SpikeCounts(sent=sent, steps=steps, samples=samples), remedies=False)
        if any(p.is_bound for population in report.placement.populations for p in (*population.projections, *population.merged)):
            continue  # zeros are not counted one by one
        work = count_work(graph, report, sent, zeros=bool(chip.weights.zero_synops.value))
        work[0] /= steps * samples
        assert report.work is not None
        np.testing.assert_allclose((report.work.synops, report.work.updates), work, err_msg=name)
        if chip.timing.speedup.value or (report.latency.missing and chip.timing.synop_ns_range.value is None):
            continue
        way = measure_longest_way(graph, chip, report, sent) if name == "loihi1" else (0, 0)
        ends, found = time_inference(chip, work, way, steps + max(graph.depths.values())), report.latency.interval
        if ends is None or found is None:
            assert (ends, found) == (None, None), name
            continue
        assert found.low == pytest.approx(ends[0]), name
        is_open = report.placement.chips_used > 1 and chip.timing.step_s.value is None  # messages between chips
        assert found.high == (None if is_open else pytest.approx(ends[1])), name
