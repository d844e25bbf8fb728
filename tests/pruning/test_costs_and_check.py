"""What pruning measures of a plan on a chip against a check of the network that it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.budget.check import check
from spear_deploy.budget.intervals import upper_end
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import HardwareProfile, list_profiles, load_profile
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.pruning.chip_costs import ChipCosts, build_measured_costs, measure_sizes
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.quantize.for_chip import ask_integers
from spear_deploy.simulator import SpikeCounts
from tests.support.chips import random_net, small_chip
from tests.support.drawn_networks import draw_network
from tests.support.seeds import seeds

SPANS = {"neurons": (8, 80), "synapse_memory": (60, 4000)}
AXON_TYPES = "truenorth"
"""Of a plan the axons of each type are not counted, of a network that is measured they are."""
BITS = ("loihi1", "loihi2", "brainscales2", "akd1000", "akd1500")
"""A narrower network may store its weights in fewer bits than a plan has, which is that much smaller."""

NO_SIZES = ("delay", "clock", "events", "weight_palette", "weight_sign", "weight_bits", "bias_bits")
"""Rows that no plan changes, or that are budgets of their own."""


def draw_chip(rng: np.random.Generator, name: str) -> HardwareProfile:
    core = load_profile(name).core
    cut = {key: span for key, span in SPANS.items() if isinstance(getattr(core, key).value, int) and rng.random() < 0.5}
    opened: dict[str, Any] = {"neuron__models": None, "layers__kinds": None, "weights__sign": None}
    return small_chip(name, **opened, **{f"core__{key}": int(rng.integers(*span)) for key, span in cut.items()})


def draw_counts(graph: SNNGraph, rng: np.random.Generator) -> SpikeCounts:
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    return SpikeCounts(sent={name: rng.integers(0, 11, graph.shape_of(name)) for name in names}, steps=5, samples=2)


def measure(report: BudgetReport) -> dict[str, float | None]:
    """Return the use that a check finds, by the names of pruning."""
    loads = [row.used / row.limit for row in report.rows if row.resource in ("clock", "events")]
    use = {**measure_sizes(report.placement), "energy_j": upper_end(report.energy.total, report.energy.interval)}
    use["latency_s"] = upper_end(report.latency.seconds, report.latency.interval)
    return {**use, "step_load": max(loads)} if loads else use


def compare(costs: ChipCosts, widths: tuple[int, ...], graph: SNNGraph, chip: HardwareProfile, counts: SpikeCounts) -> bool:
    """Compare a plan with its network, and return whether all of it is comparable."""
    report = check(graph, chip, activity=counts, remedies=False)
    is_bound = any(
        p.is_bound for population in report.placement.populations for p in (*population.projections, *population.merged)
    )
    if is_bound or (report.unsupported and chip.name == AXON_TYPES):  # then check leaves open what pruning takes for over
        return False
    placement, over = costs.place(widths, graph)
    found, expected = {**measure_sizes(placement), **costs.activity(graph, widths, counts)}, measure(report)
    if chip.name in BITS and found["memory_words"] != expected["memory_words"]:
        assert (found["memory_words"] or 0) >= (expected["memory_words"] or 0)
        return False
    assert found == pytest.approx(expected), chip.name
    rows = {(row.resource, row.where) for row in report.over if row.resource not in NO_SIZES}
    assert {(row.resource, row.where) for row in over} == rows, chip.name
    return True


@pytest.mark.parametrize("seed", seeds(1, 60))
def test_costs_of_a_network_and_of_a_plan_are_those_of_a_check(seed: int) -> None:
    rng, compared = np.random.default_rng([seed, 5]), 0
    drawn = random_net(rng) if seed % 2 else draw_network(seed)
    for name in rng.permutation(list_profiles())[:5].tolist():
        chip = draw_chip(rng, name)
        for graph in (drawn, ask_integers(drawn, chip)):
            if not isinstance(graph, SNNGraph):
                continue
            costs = build_measured_costs(graph, chip)
            whole = tuple(group.channels for group in costs.groups)
            compared += compare(costs, whole, graph, chip, draw_counts(graph, rng))
            wide = [group for group in list_prunable_groups(graph) if group.channels > 1]
            if not wide or name == AXON_TYPES:
                continue
            group = wide[int(rng.integers(len(wide)))]
            kept = tuple(sorted(rng.permutation(group.channels)[: int(rng.integers(1, group.channels))].tolist()))
            narrow = prune(graph, PruningPlan(kept={group.name: kept}))
            widths = tuple(len(kept) if other.name == group.name else other.channels for other in costs.groups)
            compared += compare(costs, widths, narrow, chip, draw_counts(narrow, rng))
    assert compared
