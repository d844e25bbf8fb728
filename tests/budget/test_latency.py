"""Latency and load of a step, counted neuron by neuron."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.chip_ranking import _rank_one
from spear_deploy.budget.latency import estimate_latency, find_step_loads
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.fields import Number
from spear_deploy.hardware.profile import HardwareProfile, override_facts
from spear_deploy.hardware.schema import CycleModel
from spear_deploy.network import IF, Dense, make_sparse
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.pipeline.adaptation.results import _list_exceeded
from spear_deploy.placement.place import place
from spear_deploy.pruning.chip_costs import describe_rows
from spear_deploy.simulator import SpikeCounts, simulate
from tests.support.chips import dense_net, matrix_onto, previous, random_net, small_chip

XYLO = {
    "per_input_event_and_neuron": 3.5,
    "per_input_channel": 1,
    "per_recurrent_synapse": 7,
    "per_output_synapse": 8,
    "per_hidden_neuron": 19,
    "per_hidden_loop": 3,
    "per_hidden_spike": 1,
    "per_output_neuron": 12,
}
"""SynSense rockpool, devices/xylo/syns61201/power_cycles_model.py."""


def xylo(clock_hz: float) -> HardwareProfile:
    chip = small_chip("loihi2", timing__clock_hz=clock_hz)
    leaf = {"source": "rockpool", "evidence": "vendor"}
    cycles = CycleModel(
        **{name: Number(value=value, unit="cycle", **leaf) for name, value in XYLO.items()},
        margin=Number(value=1.2, unit="factor", **leaf),
    )
    return chip.model_copy(update={"timing": chip.timing.model_copy(update={"cycles": cycles})})


def by_vendor(n_in: int, n_hid: int, n_out: int, fan_out: float, p_in: float, p_hid: float) -> float:
    """The sum as published, with its terms of aliases left out."""
    input_synapses = n_in * (p_in * n_hid * 3.5 + 1)
    recurrent = n_hid * (fan_out * 7 * p_hid + 3)
    output = n_hid * p_hid * (1 + n_out * 8)
    return input_synapses + recurrent + output + n_hid * (19 + 3 * p_hid) + n_out * 12


def recurrent_net(n_in: int, n_hid: int, n_out: int) -> SNNGraph:
    layers = [
        Layer(name="in", synapse=Dense(weight=np.ones((n_hid, n_in)))),
        Layer(name="rec", synapse=Dense(weight=np.ones((n_hid, n_hid)))),
        Layer(name="hid", neuron=IF()),
        Layer(name="out", synapse=Dense(weight=np.ones((n_out, n_hid))), neuron=IF()),
    ]
    edges = [Edge(source=INPUT, target="in"), Edge(source="hid", target="rec", delay=1)]
    edges += [Edge(source=name, target="hid") for name in ("in", "rec")] + [Edge(source="hid", target="out")]
    return SNNGraph(layers=layers, edges=edges, input_shape=(n_in,), output="out", dt_s=1e-2)


def test_the_cycles_of_xylo_are_the_published_sum() -> None:
    graph, chip = recurrent_net(4, 20, 3), xylo(50e6)
    counts = SpikeCounts(sent={INPUT: np.full(4, 10), "hid": np.full(20, 6), "out": np.zeros(3)}, steps=10, samples=2)
    pace = next(p for p in find_step_loads(graph, chip, place(graph, chip), counts) if p.resource == "clock")
    assert pace.used == pytest.approx(by_vendor(4, 20, 3, 20, 0.5, 0.3) * 1.2 / 1e-2)
    assert pace.worst == pytest.approx(by_vendor(4, 20, 3, 20, 1.0, 1.0) * 1.2 / 1e-2)
    assert (pace.limit, pace.unit) == (50e6, "Hz")


def test_a_clock_that_is_too_slow_has_its_unit_and_both_remedies_wherever_it_is_named() -> None:
    graph, chip = recurrent_net(4, 20, 3), xylo(1e5)
    report = check(graph, chip, activity=0.5, steps=10)
    (row,) = [row for row in report.over if row.resource == "clock"]
    text = f"{row.used / 1e3:.4g} kHz of 100 kHz"
    share = f"prune: {100 * (1 - 1e5 / row.used):.1f} % of the work of a step has to go, or give a step more time"
    assert f"clock of chip: {text}" in str(report) and share in str(report)
    assert f"clock of chip: {text}; {share}" in _list_exceeded(report)
    assert describe_rows((row,)) == f"clock {text} (chip)"
    assert any(f"clock {text}" in missing for missing in _rank_one(graph, report, chip).missing)


@pytest.mark.parametrize(("size", "last"), [(5, "out"), (2, "to")])
def test_a_hidden_layer_that_stands_behind_the_output_is_none_of_its_neurons(size: int, last: str) -> None:
    """Hidden neurons that the first ones read a step later may stand anywhere in the graph; of one depth the fewest come last."""
    graph, chip = recurrent_net(4, 20, 3), xylo(50e6)
    layers = [Layer(name="to", synapse=Dense(weight=np.ones((size, 20))), neuron=IF())]
    layers += [Layer(name="fro", synapse=Dense(weight=np.ones((20, size))))]
    pairs = [("hid", "to", 0), ("to", "fro", 1), ("fro", "hid", 0)]
    edges = [*graph.edges, *(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)]
    sent = {INPUT: np.full(4, 10), "hid": np.full(20, 6), "to": np.full(size, 6), "out": np.full(3, 20)}
    counts = SpikeCounts(sent=sent, steps=10, samples=2)
    for ordered in ((*graph.layers, *layers), (*graph.layers[:3], *layers, graph["out"])):
        net = replace(graph, layers=ordered, edges=edges)
        placement = place(net, chip)
        assert placement.populations[-1].name == last
        (load,) = find_step_loads(net, chip, placement, counts)
        fan_out = (20 * 20 + 2 * size * 20) / (20 + size)
        assert load.used == pytest.approx(by_vendor(4, 20 + size, 3, fan_out, 0.5, 0.3) * 1.2 / 1e-2)


def test_an_output_of_two_layers_that_are_added_has_the_neurons_of_both() -> None:
    graph, chip = recurrent_net(4, 20, 3), xylo(50e6)
    layers = [Layer(name="out2", synapse=Dense(weight=np.ones((3, 20))), neuron=IF()), Layer(name="sum")]
    edges = [*graph.edges, Edge(source="hid", target="out2"), *(Edge(source=name, target="sum") for name in ("out", "out2"))]
    net = replace(graph, layers=(*graph.layers, *layers), edges=edges, output="sum")
    (load,) = find_step_loads(net, chip, place(net, chip), None)
    assert load.worst == pytest.approx(by_vendor(4, 20, 6, 20, 1.0, 1.0) * 1.2 / 1e-2)


def test_weights_of_zero_take_no_cycles_of_xylo() -> None:
    """rockpool's Nhid_fanout_avg is the mean of abs(sign(weights)): 1.5 of 20 recurrent synapses a neuron here."""
    graph, chip = recurrent_net(4, 20, 3), xylo(50e6)
    weight = np.zeros((20, 20))
    weight.flat[np.random.default_rng(0).permutation(400)[:30]] = -1.0
    for stored in (weight, make_sparse(weight)):
        rec = replace(graph["rec"], synapse=Dense(weight=stored))
        net = replace(graph, layers=tuple(rec if layer.name == "rec" else layer for layer in graph.layers))
        (load,) = find_step_loads(net, chip, place(net, chip), None)
        assert load.worst == pytest.approx(by_vendor(4, 20, 3, 1.5, 1.0, 1.0) * 1.2 / 1e-2)


def test_without_activity_only_the_worst_case_is_known() -> None:
    graph, chip = recurrent_net(4, 20, 3), xylo(1e6)
    pace = next(p for p in find_step_loads(graph, chip, place(graph, chip), None) if p.resource == "clock")
    assert pace.used is None and pace.worst > 0


@pytest.mark.parametrize(("own", "chip", "spikes"), [(1, 31, 1), (4, 31, 4), (None, 31, 31), (None, "unlimited", np.inf)])
def test_in_the_worst_case_all_spike_as_often_as_they_can(own: int | None, chip: Any, spikes: float) -> None:
    """4 inputs of up to 15 events and 20 hidden neurons of up to 31 spikes on Xylo, where once each would be in time."""
    graph = recurrent_net(4, 20, 3).with_layers(
        lambda layer: replace(layer, neuron=IF(max_spikes=own)) if layer.name == "hid" else layer
    )
    values = {"neuron.max_spikes_per_step": chip, "neuron.max_input_events_per_step": 15}
    (load,) = find_step_loads(graph, profile := override_facts(xylo(50e6), values), place(graph, profile), None)
    assert load.worst == pytest.approx(np.inf if spikes == np.inf else by_vendor(4, 20, 3, 20, 15, spikes) * 1.2 / 1e-2)
    notes = [note for note in check(graph, override_facts(profile, {"timing.clock_hz": 1e6})).notes if note.startswith("pace: ")]
    end = "neurons or inputs may spike any number of times in a step, and the limit is 1,000,000 Hz"
    assert len(notes) == (spikes > 1) and all(note.endswith(end) == (spikes == np.inf) for note in notes)


def test_inputs_without_limit_have_no_worst_case() -> None:
    graph = recurrent_net(4, 20, 3)
    profile = override_facts(xylo(50e6), {"neuron.max_input_events_per_step": "unlimited"})
    (load,) = find_step_loads(graph, profile, place(graph, profile), None)
    assert load.worst == np.inf


@pytest.mark.parametrize("seed", range(6))
def test_events_of_the_busiest_core_counted_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net, chip = random_net(rng), small_chip("loihi1", core__neurons=40, timing__events_per_core_and_step=1000)
    x = rng.random((5, 2, *net.input_shape)) < 0.3
    run, placement = simulate(net, x, record=("spikes",)), place(net, chip)
    sent = {INPUT: x, **run.spikes}
    events = np.zeros(placement.cores_used)
    for part in placement.slices:
        source = previous(net, part.layer)
        onto = np.zeros(net.shape_of(part.layer), bool)
        onto[tuple(slice(*along) for along in part.box)] = True
        matrix = matrix_onto(net, source, part.layer)[onto.ravel()]
        events[part.core] += sum(matrix[:, spikes.ravel() > 0].sum() for step in sent[source] for spikes in step)
    pace = next(p for p in find_step_loads(net, chip, placement, run.counts) if p.resource == "events")
    assert pace.used == pytest.approx(events.max() / 10)
    assert pace.worst >= pace.used and pace.limit == 1000


def test_an_analogue_chip_runs_faster_than_the_network() -> None:
    net = dense_net(3, 4)
    chip = small_chip("loihi1", timing__mode=None, timing__speedup=1000)
    counts = SpikeCounts(sent={INPUT: np.ones(3), "fc1": np.ones(4)}, steps=20, samples=1)
    placement = place(net, chip)
    latency = estimate_latency(net, chip, placement, counts, count_traffic(net, chip, placement, counts))
    assert latency.seconds == pytest.approx(20 * net.dt_s / 1000)
    assert "1000 times as fast" in latency.how


def test_a_chip_without_a_fixed_tick_has_no_load() -> None:
    net = chain([Layer(name="a", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    chip = small_chip("loihi2")
    assert list(find_step_loads(net, chip, place(net, chip), None)) == []


@pytest.mark.parametrize(
    ("limit", "activity", "used", "status"), [(1000, None, 80, "ok"), (50, 0.5, 40, "ok"), (50, 1.0, 80, "over")]
)
def test_a_step_whose_work_is_too_much_is_a_row_of_the_check(limit: int, activity: float | None, used: int, status: str) -> None:
    """8 inputs to 10 neurons are 80 events if all spike: the worst case settles it where it is within the limit."""
    chip = small_chip("loihi1", timing__events_per_core_and_step=limit)
    report = check(dense_net(8, 10), chip, activity=activity, steps=4)
    row = next(row for row in report.rows if row.resource == "events")
    assert (row.used, row.limit, row.status) == (used, limit, status)
    assert report.verdict == ("does_not_fit" if status == "over" else "fits")
    assert (row.remedy == "prune: 37.5 % of the work of a step has to go, or give a step more time") == (status == "over")


def test_without_activity_an_undecided_load_is_a_note() -> None:
    """80 events if all spike are too many for 50; the network is placed, and the note says what is open."""
    report = check(dense_net(8, 10), small_chip("loihi1", timing__events_per_core_and_step=50))
    assert report.verdict == "fits" and not [row for row in report.rows if row.resource == "events"]
    pace = next(note for note in report.notes if note.startswith("pace: "))
    assert "depends on the activity (`--activity`); " in pace and pace.endswith(
        "if all spiked at every step, as often as they can, it would be 80 events of 50"
    )


@pytest.mark.parametrize(
    ("timing", "remedy"), [("timing__step_s", "75.0 % of the steps have to go: run fewer"), (None, "prune: ")]
)
def test_pruning_is_no_remedy_where_a_step_takes_its_time_whatever_is_done_in_it(timing: str | None, remedy: str) -> None:
    chip = small_chip("loihi1", **({timing: 0.001} if timing else {}))
    report = check(dense_net(8, 10), chip, activity=0.5, steps=3, limits=UserLimits(latency_s=0.001 if timing else 1e-9))
    (row,) = [row for row in report.rows if row.resource == "latency"]
    assert row.status == "over" and row.remedy.startswith(remedy)


def test_spikes_of_an_output_that_no_synapse_takes_need_no_limit() -> None:
    """8 inputs to 8 outputs that may send any number of spikes: 64 events, a row of the check; fed back there is no largest."""
    chip = override_facts(small_chip("loihi1", timing__events_per_core_and_step=100), {"neuron.max_spikes_per_step": "unlimited"})
    net = dense_net(8, 8).with_layers(lambda layer: replace(layer, neuron=IF(max_spikes=None)))
    (row,) = (row for row in check(net, chip).rows if row.resource == "events")
    assert (row.used, row.status) == (64, "ok")
    fed_back = replace(net, edges=(*net.edges, Edge(source="fc1", target="fc1", delay=1)))
    (load,) = find_step_loads(fed_back, chip, place(fed_back, chip), None)
    assert load.worst == np.inf
