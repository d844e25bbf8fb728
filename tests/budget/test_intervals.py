"""Intervals of energy and time: sums by hand, measured networks, order of chips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.chip_ranking import rank
from spear_deploy.budget.energy import BETWEEN_CHIPS, STATIC_TERMS, Energy, estimate_energy
from spear_deploy.budget.intervals import Interval, describe_energy, describe_time, rank_by_overlap
from spear_deploy.errors import DataError
from spear_deploy.hardware.profile import HardwareProfile, list_profiles, load_profile
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import place
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_synops
from tests.conftest import shared
from tests.support.chips import dense_net, random_net, small_chip
from tests.support.seeds import seeds

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
SENT = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 0, 1, 2]), "fc2": np.array([5, 5])}
"""Spikes of 3 → 4 → 2 neurons in 5 steps: 6 of the input, 7 of fc1; 6 · 4 + 7 · 2 = 38 SynOps, 30 neuron updates."""


def estimate(graph: SNNGraph, chip: HardwareProfile, counts: SpikeCounts, **options):
    return estimate_energy(graph, chip, place(graph, chip, **options), counts, count_synops(graph, counts))


def test_loihi_2_by_hand() -> None:
    energy, latency = estimate(dense_net(3, 4, 2), LOIHI2, SpikeCounts(sent=SENT, steps=5, samples=1))
    assert energy.effective_ops.total == 38 + 10 * 30
    assert energy.dynamic.ends() == pytest.approx([338 * 14e-12, 338 * 107e-12])
    low_s = 7 * max(24 / 5 * 0.7, 14 / 5 * 0.7, 4 * 4.2, 2 * 4.2) * 1e-9
    high_s = 7 * (max(24 / 5 * 3.5 + 4 * 8.4, 14 / 5 * 3.5 + 2 * 8.4) + 200) * 1e-9
    assert latency.interval.ends() == pytest.approx([low_s, high_s])
    assert energy.static.ends() == pytest.approx([0.23 * low_s, 1.78 * high_s])
    assert energy.total is None and energy.missing == ("synapse", "neuron update", "spike", "hop", "static")
    assert {energy.dynamic.evidence, energy.static.evidence, latency.interval.evidence} == {"derived"}


def test_an_analogue_input_counts_as_operations() -> None:
    counts = SpikeCounts(sent={**SENT, INPUT: np.full(3, 5)}, steps=5, samples=1, input_kind="current")
    energy, _ = estimate(dense_net(3, 4, 2), LOIHI2, counts)
    assert energy.effective_ops.total == 14 + 60 + 300 and "60 MACs" in energy.dynamic.how


def test_the_price_of_an_effective_operation_is_that_of_the_measured_networks() -> None:
    """Energy by SynOps + 10 updates of each run with both counts: the interval holds them, rounded outwards to whole pJ."""
    runs = [run for run in LOIHI2.energy.measured if run.synops.value and run.neuron_ops.value]
    assert len(runs) == 2
    prices = []
    for run in runs:
        updates = LOIHI2.energy.neuron_op_synops.value * run.neuron_ops.value
        prices += [1e9 * e / (s + updates) for e, s in zip(run.dynamic_energy_mj.value, run.synops.value[::-1], strict=True)]
    assert LOIHI2.energy.effective_op_pj_range.value == (np.floor(min(prices)), np.ceil(max(prices)))


def test_pilotnet_lies_where_it_was_measured() -> None:
    """Intel counted 2.54 million updates in 16 steps, 1.07 to 1.09 mJ dynamic, 153 µs a step; activity as its SynOps say."""
    net = read_netx(shared("conformance/netx_pilotnet_lif/network.net"))
    per_spike = check(net, LOIHI2, activity=1.0, steps=16).synops
    for synops in (4.17e7, 4.93e7):
        report = check(net, LOIHI2, activity=synops / per_spike, steps=16)
        assert report.neuron_ops == 2_536_144 and report.synops == pytest.approx(synops)
        assert report.energy.dynamic.low <= 1.094e-3 and report.energy.dynamic.high >= 1.071e-3
        steps = 16 + max(net.depths.values())
        low, high = report.latency.interval.ends()
        assert low / steps <= 153e-6 <= high / steps


def test_loihi_1_lies_between_idle_and_active_neurons() -> None:
    energy, latency = estimate(dense_net(3, 4, 2), LOIHI1, SpikeCounts(sent=SENT, steps=5, samples=1))
    assert energy.dynamic.high - energy.dynamic.low == pytest.approx(30 * (81 - 52) * 1e-12)
    assert latency.interval.high == latency.seconds
    assert latency.seconds - latency.interval.low == pytest.approx(7 * 4 * (8.4 - 5.3) * 1e-9)
    assert energy.interval.high == pytest.approx(energy.total)


def test_a_missing_price_leaves_the_upper_end_open() -> None:
    energy, _ = estimate(dense_net(3, 4, 2), small_chip("loihi1", energy__spike_local_pj=None), counts())
    assert energy.total is None and energy.dynamic.high is None and energy.dynamic.low > 0
    assert energy.dynamic.how.endswith("without spike")
    assert energy.to_json()["interval_j"]["dynamic"][1] is None


def counts() -> SpikeCounts:
    return SpikeCounts(sent=SENT, steps=5, samples=1)


def test_a_packet_that_goes_anywhere_needs_no_hops() -> None:
    chip = small_chip("loihi1", energy__spike_local_pj=None, energy__packet_pj=1000, core__neurons=1, topology__mesh_rows=None)
    energy, _ = estimate(dense_net(3, 4, 2), chip, counts())
    assert [term.name for term in energy.terms] == ["synapse", "neuron update", "spike"] and energy.missing == ("static",)
    assert energy.dynamic.high == pytest.approx(sum(term.joules for term in energy.terms))
    energy, _ = estimate(dense_net(3, 4, 2), small_chip("loihi1", energy__packet_pj=1000, timing__step_s=1e-3), counts())
    assert energy.missing == () and energy.total == pytest.approx(sum(term.joules for term in energy.terms))
    packets = {"energy__packet_pj": 1000, "energy__spike_local_pj": None, "timing__step_s": 1e-3}
    for neurons, chips in ((1, 3), (2, 2)):
        cores = {"core__neurons": neurons, "chip__cores": 2, "chip__usable_cores": 2, "topology__mesh_rows": None}
        energy, _ = estimate(dense_net(3, 4, 2), small_chip("loihi1", **cores, **packets), counts(), chips=chips)
        assert energy.missing == ("packets between chips",) and energy.total is None
        assert energy.dynamic.low > 0 and energy.dynamic.high is None  # a budget is not kept by a part


def test_prices_of_events_stay_where_packets_between_chips_have_none() -> None:
    """Loihi 2 has a price of effective operations, for which events without a price make room; here all on a chip have one."""
    prices = {"synop_pj": 8, "neuron_active_pj": 80, "neuron_inactive_pj": 50, "packet_pj": 1000}
    cores = {"core__neurons": 1, "chip__cores": 2, "chip__usable_cores": 2, "topology__mesh_rows": None}
    chip = small_chip("loihi2", timing__step_s=1e-3, **cores, **{f"energy__{key}": price for key, price in prices.items()})
    energy, _ = estimate(dense_net(3, 4, 2), chip, counts(), chips=3)
    known = sum(term.joules for term in energy.terms if term.name not in STATIC_TERMS)
    assert energy.missing == (BETWEEN_CHIPS,)
    assert energy.dynamic.low == pytest.approx(known - 30 * (80 - 50) * 1e-12) and energy.dynamic.high is None


def test_a_packet_replaces_no_other_price() -> None:
    chip = small_chip("loihi1", energy__spike_local_pj=None, energy__packet_pj=1000, energy__synop_pj=None)
    energy, _ = estimate(dense_net(3, 4, 2), chip, counts())
    assert energy.dynamic.high is None and "without synapse" in energy.dynamic.how


def test_the_interval_of_both_is_open_where_one_part_is_unknown_or_open() -> None:
    part = Interval(low=1.0, high=2.0, evidence="vendor", source="", how="")
    both = Energy(total=None, missing=(), dynamic=part, static=part)
    assert both.interval is not None and both.interval.ends() == [2.0, 4.0]
    for other in (None, replace(part, high=None)):
        open_above = Energy(total=None, missing=(), dynamic=part, static=other).interval
        assert open_above is not None and open_above.high is None and open_above.low == (1.0 if other is None else 2.0)
    assert Energy(total=None, missing=()).interval is None


def test_an_all_in_figure_holds_both_parts() -> None:
    energy, _ = estimate(dense_net(3, 4, 2), small_chip("loihi1", energy__all_in_pj_per_synop=26), counts())
    assert energy.dynamic.ends() == energy.static.ends() == [0.0, energy.total]
    assert energy.interval.ends() == [energy.total, energy.total]


def test_several_chips_leave_the_upper_end_of_the_time_open() -> None:
    chip = small_chip("loihi2", core__neurons=1, chip__usable_cores=4)
    energy, latency = estimate(dense_net(3, 4, 2), chip, counts())
    assert latency.interval.low > 0 and latency.interval.high is None
    assert energy.static.high is None and energy.static.low == pytest.approx(2 * 0.23 * latency.interval.low)


def test_a_power_of_the_user_is_used_instead_of_the_range() -> None:
    energy, latency = estimate(dense_net(3, 4, 2), small_chip("loihi2", energy__static_w_per_chip=0.5), counts())
    assert energy.static.ends() == pytest.approx([0.5 * end for end in latency.interval.ends()])


@pytest.mark.parametrize("name", list_profiles())
def test_every_chip_counts_updates_and_has_intervals_in_order(name: str) -> None:
    net = random_net(np.random.default_rng(1))
    report = check(net, load_profile(name), activity=0.2, steps=3)
    data = report.to_json()
    assert data["neuron_ops"] == 3 * sum(population.neurons for population in report.placement.populations) > 0
    parts = data["energy"]["interval_j"] or {}
    for part in ("dynamic", "static"):
        if parts.get(part):
            low, high = parts[part]
            assert 0 <= low and (high is None or low <= high) and parts["evidence"][part] and parts["source"][part]
    if data["latency_interval_s"]:
        assert data["latency_interval_s"][0] <= data["latency_interval_s"][1] and data["latency_evidence"]
    total, bounds = data["energy"]["total"], report.energy.interval
    assert total is None or (bounds.low <= total * (1 + 1e-12) and total <= bounds.upper * (1 + 1e-12))


def test_updates_are_known_without_activity_where_the_steps_are() -> None:
    net = dense_net(3, 4, 2)
    assert check(net, LOIHI2).neuron_ops is None
    assert check(net, LOIHI2, steps=5).neuron_ops == 30
    assert check(net, LOIHI2).to_json()["energy"]["interval_j"] is None


def test_the_pruner_keeps_the_upper_ends() -> None:
    net = dense_net(3, 4, 2)
    energy, latency = estimate(net, LOIHI2, counts())
    use = build_chip_costs(net, LOIHI2).activity(net, (4,), counts())
    assert use == {"energy_j": energy.interval.high, "latency_s": latency.interval.high}
    speck = load_profile("speck2f")
    assert build_chip_costs(net, speck).activity(net, (4,), counts()) == {"energy_j": None, "latency_s": None}


# ------------------------------------------------------------------------------------------------------- order of chips


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_overlap_ranks_agree_with_every_pair(seed: int) -> None:
    """An interval wholly below another has the lower rank; rank 1 has nothing wholly below it."""
    rng = np.random.default_rng(seed)
    lows = rng.integers(0, 20, 8)
    ends = [(int(low), None if rng.random() < 0.2 else int(low + rng.integers(0, 9))) for low in lows]
    intervals = [Interval(low=low, high=high, evidence="derived") for low, high in ends]
    ranks = rank_by_overlap([*intervals, None])
    assert ranks[-1] is None
    for a, first in zip(intervals, ranks, strict=False):
        below = [b for b in intervals if b.high is not None and b.high < a.low]
        assert first == 1 + len(below)
        assert all(rank < first for b, rank in zip(intervals, ranks, strict=False) if b in below)


def test_sorted_by_energy_ties_keep_the_order_of_fit() -> None:
    """Loihi 2's interval holds Loihi 1's: a tie. One with a tenth of the price comes before both."""
    net = dense_net(30, 40, 10)
    cheap = small_chip("loihi1", energy__synop_pj=0, energy__neuron_active_pj=0, energy__neuron_inactive_pj=0,
                       energy__static_w_per_chip=1e-6)  # fmt: skip
    targets = [(chip, 1) for chip in (LOIHI2, LOIHI1, cheap)]
    by_fit = rank(net, targets, activity=0.1)
    by_energy = rank(net, targets, activity=0.1, sort="energy")
    assert [entry.energy_rank for entry in by_energy] == [1, 2, 2]
    assert [
        entry.to_json()["energy_rank"] for entry in by_fit if entry.report.energy.interval == by_energy[0].report.energy.interval
    ]
    rest = [entry.profile for entry in by_energy[1:]]
    assert rest == [entry.profile for entry in by_fit if entry.report.energy.interval != by_energy[0].report.energy.interval]


def test_a_sort_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="sort: 'price' given, expected one of fit, energy"):
        rank(dense_net(3, 4), [(LOIHI2, 1)], activity=0.1, sort="price")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sort: 'energy' given without activity, which energy depends on"):
        rank(dense_net(3, 4), [(LOIHI2, 1)], sort="energy")


def test_words() -> None:
    data = check(dense_net(3, 4), LOIHI2, activity=0.1).to_json()
    assert describe_energy(data["energy"])[1] == "derived" and " dynamic, " in describe_energy(data["energy"])[0]
    assert describe_time(data)[0].count("–") == 1
    old = {"energy": {"total": None, "missing": ["synapse"]}, "latency_s": None}
    assert describe_energy(old["energy"]) == ("", "") and describe_time(old) == ("", "")
    assert describe_time({"latency_s": 2e-3}) == ("2 ms", "")
