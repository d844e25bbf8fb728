"""Energy against sums by hand, traffic against counts by neuron."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.core_work import measure_core_work
from spear_deploy.budget.energy import estimate_energy, unknown_energy
from spear_deploy.budget.latency import count_core_neurons
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.profile import HardwareProfile, load_profile, override_facts
from spear_deploy.network import IF, Conv1d, Dense, Flatten, SumPool
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.place import place
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.simulator.synops import count_synops
from spear_deploy.util.number_format import join_names
from tests.support.chips import dense_net, matrix_onto, previous, random_net, small_chip
from tests.support.seeds import seeds

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")


def resolve_activity(graph: SNNGraph, seed: int, steps: int = 4, samples: int = 3) -> SpikeCounts:
    rng = np.random.default_rng(seed)
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    sent = {name: rng.integers(0, steps * samples + 1, graph.shape_of(name)) for name in names}
    return SpikeCounts(sent=sent, steps=steps, samples=samples)


def run(graph: SNNGraph, chip: HardwareProfile, counts: SpikeCounts):
    placement = place(graph, chip)
    return estimate_energy(graph, chip, placement, counts, count_synops(graph, counts))


def test_the_terms_of_a_small_network_by_hand() -> None:
    """3 inputs → 4 → 2 neurons on Loihi 1; 5 steps, one sample; 6 input spikes and 7 spikes of the first layer."""
    net = dense_net(3, 4, 2)
    sent = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 0, 1, 2]), "fc2": np.array([5, 5])}
    energy, latency = run(net, LOIHI1, SpikeCounts(sent=sent, steps=5, samples=1))
    joules = {term.name: term.joules for term in energy.terms}
    assert joules["synapse"] == pytest.approx((6 * 4 + 7 * 2) * 23.6e-12)
    assert joules["neuron update"] == pytest.approx(6 * 5 * 81e-12)
    assert joules["spike"] == pytest.approx(7 * 1.7e-12)  # to the one core of fc2; nobody takes fc2's spikes
    assert joules["hop"] == 0  # both cores are on the first tile
    busy_ns = max(24 / 5 * 3.5 + 4 * 8.4, 14 / 5 * 3.5 + 2 * 8.4)
    step_s = (busy_ns + 113) * 1e-9
    assert latency.seconds == pytest.approx((5 + 2) * step_s)
    assert joules["static"] == pytest.approx(0.104 * 7 * step_s)
    assert energy.total == pytest.approx(sum(joules.values())) and energy.missing == ()
    assert energy.partial == energy.total


def test_hops_cross_the_mesh_in_order_of_the_cores() -> None:
    """fc1 takes cores 0..7 (tiles 0, 1), fc2 cores 8, 9 (tile 2): 2 tiles east from the first four, 1 from the others."""
    chip = small_chip("loihi1", core__neurons=1)
    net = dense_net(1, 8, 2)
    sent = {INPUT: np.array([0]), "fc1": np.full(8, 10), "fc2": np.zeros(2, int)}
    counts = SpikeCounts(sent=sent, steps=10, samples=2)
    flow = count_traffic(net, chip, place(net, chip), counts)
    assert flow.messages == 8 * 5 * 2
    assert (flow.hops_ew, flow.hops_ns) == (4 * 5 * 2 * 2 + 4 * 5 * 2 * 1, 0)
    assert (flow.longest_ew, flow.longest_ns) == (2, 0)
    two_rows = small_chip("loihi1", core__neurons=1, topology__mesh_columns=2, topology__mesh_rows=16)
    flow = count_traffic(net, two_rows, place(net, two_rows), counts)
    assert (flow.hops_ew, flow.hops_ns) == (4 * 5 * 2 * 1, 8 * 5 * 2)


def test_the_energy_of_hops_is_that_of_both_directions() -> None:
    """80 messages cross 40 tiles east-west and 80 north-south on two columns; each direction has its own price."""
    chip = small_chip("loihi1", core__neurons=1, topology__mesh_columns=2, topology__mesh_rows=16)
    chip = override_facts(chip, {"energy.hop_ew_pj": 3.0, "energy.hop_ns_pj": 5.0})
    net = dense_net(1, 8, 2)
    sent = {INPUT: np.array([0]), "fc1": np.full(8, 10), "fc2": np.zeros(2, int)}
    energy, _ = run(net, chip, SpikeCounts(sent=sent, steps=10, samples=2))
    (hop,) = [term for term in energy.terms if term.name == "hop"]
    assert hop.joules == pytest.approx((40 * 3.0 + 80 * 5.0) * 1e-12, rel=1e-12)


def test_the_next_tile_is_a_neighbour_at_the_end_of_a_row_too() -> None:
    """32 cores of fc1 fill the first row of 8 tiles; the only one of fc2 lies below the last of them, not below the first."""
    chip = small_chip("loihi1", core__neurons=1)
    net = dense_net(1, 32, 1)
    sent = {INPUT: np.array([0]), "fc1": np.ones(32), "fc2": np.zeros(1)}
    flow = count_traffic(net, chip, place(net, chip), SpikeCounts(sent=sent, steps=1, samples=1))
    assert flow.hops_ew == sum(4 * (7 - column) for column in range(8)) and flow.hops_ns == 32


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_core_synops_add_up_to_the_networks(seed: int) -> None:
    net = random_net(np.random.default_rng(seed))
    chip = small_chip("loihi1", core__neurons=int(np.random.default_rng(seed).integers(5, 60)))
    counts = resolve_activity(net, seed)
    flow = count_traffic(net, chip, place(net, chip), counts)
    assert flow.core_synops.sum() == pytest.approx(count_synops(net, counts).total)


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_messages_and_core_synops_are_those_of_every_neuron(seed: int) -> None:
    """A spike goes once to each core that holds one of its targets."""
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    chip = small_chip("loihi1", core__neurons=int(rng.integers(4, 40)), core__synapse_memory=10**6)
    placement, counts = place(net, chip), resolve_activity(net, seed)
    messages = 0.0
    for population in placement.populations:
        source = previous(net, population.name)
        if source == INPUT:
            continue
        exists = matrix_onto(net, source, population.name).reshape(*population.shape, -1)
        for part in placement.slices_of(population.name):
            taken = exists[tuple(slice(*along) for along in part.box)].reshape(part.neurons, -1).any(axis=0)
            messages += counts.sent[source].ravel()[taken].sum() / counts.samples
    assert count_traffic(net, chip, placement, counts).messages == pytest.approx(messages)


def test_traffic_of_convolutions_over_one_axis_and_in_groups() -> None:
    layers = [
        Layer(name="a", synapse=Conv1d(weight=np.ones((4, 2, 3))), neuron=IF()),
        Layer(name="b", synapse=Conv1d(weight=np.ones((4, 1, 3)), groups=4), neuron=IF()),
    ]
    net = chain(layers, input_shape=(2, 12))
    chip = small_chip("loihi1", core__neurons=8)
    placement, counts = place(net, chip), resolve_activity(net, 1, samples=1)
    exists = matrix_onto(net, "a", "b").reshape(4, 8, -1)
    expected = sum(
        counts.sent["a"].ravel()[exists[tuple(slice(*along) for along in part.box)].any(axis=(0, 1))].sum()
        for part in placement.slices_of("b")
    )
    assert count_traffic(net, chip, placement, counts).messages == expected


@pytest.mark.parametrize("delay", [0, 2])
def test_weights_without_neurons_and_residual_sums_reach_the_neurons(delay: int) -> None:
    """Both currents of a sum, and the identity, are SynOps of the cores that hold the sum, also behind a delay."""
    net = SNNGraph(
        layers=(
            Layer(name="a", synapse=Dense(weight=np.ones((4, 3))), neuron=IF()),
            Layer(name="w", synapse=Dense(weight=np.ones((4, 4)))),
            Layer(name="sum", neuron=IF()),
        ),
        edges=(
            Edge(source="input", target="a"),
            Edge(source="a", target="w"),
            Edge(source="w", target="sum", delay=delay),
            Edge(source="a", target="sum"),
        ),
        input_shape=(3,),
    )
    x = np.ones((5, 2, 3), bool)
    counts = simulate(net, x).counts
    flow = count_traffic(net, LOIHI1, place(net, LOIHI1), counts)
    a = counts.sent["a"].sum() / 2
    np.testing.assert_allclose(flow.core_synops, [15 * 4, a * 4 + a])
    assert flow.messages == 2 * a  # two projections, each with its own axon


def test_nothing_is_summed_while_a_term_is_unknown() -> None:
    """Intel published no energy per event for Loihi 2; what a board drew stands beside."""
    net = dense_net(3, 4, 2)
    energy, latency = run(net, LOIHI2, resolve_activity(net, 0))
    assert energy.total is None and energy.terms == ()
    assert energy.missing == ("synapse", "neuron update", "spike", "hop", "static")
    assert "0.679 W" in energy.measured[0]
    assert latency.seconds is None and "timing.synop_ns" in latency.missing
    own = small_chip("loihi2", energy__synop_pj=23.6, timing__step_s=1e-3)
    energy, latency = run(net, own, resolve_activity(net, 0))
    assert [term.name for term in energy.terms] == ["synapse", "static"]
    assert energy.total is None and energy.partial > 0
    assert energy.terms[0].evidence == "user"
    assert latency.seconds == pytest.approx((4 + 2) * 1e-3)


def test_an_all_in_figure_is_used_alone() -> None:
    net = dense_net(3, 4, 2)
    counts = resolve_activity(net, 0)
    energy, _ = run(net, small_chip("loihi1", energy__all_in_pj_per_synop=26), counts)
    assert energy.total == pytest.approx(count_synops(net, counts).total * 26e-12)
    assert [term.name for term in energy.terms] == ["all in"]


def test_copies_of_neurons_take_synops_and_updates_too() -> None:
    """Spikes of 2 neurons go to two cores of 6, so they stand in two copies: 6 spikes of the input meet four of them."""
    net, chip = dense_net(3, 2, 12), small_chip("truenorth", core__neurons=6)
    placement = place(net, chip)
    assert [(part.layer, part.neurons, part.copies) for part in placement.slices] == [("fc1", 2, 2), ("fc2", 6, 1), ("fc2", 6, 1)]
    sent = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 1]), "fc2": np.zeros(12)}
    counts = SpikeCounts(sent=sent, steps=5, samples=1)
    flow = count_traffic(net, chip, placement, counts)
    assert flow.copied_synops == 6 * 2 and flow.core_synops.tolist() == [6 * 2 * 2, 5 * 6, 5 * 6]
    energy, _ = run(net, chip, counts)
    assert energy.total == pytest.approx(26e-12 * (6 * 2 * 2 + 5 * 12), rel=1e-12)
    assert energy.terms[0].how == "84 SynOps at 26 pJ, 12 of them onto copies of neurons, everything else included"
    prices = {"energy.all_in_pj_per_synop": None, "energy.synop_pj": 2.0, "energy.neuron_active_pj": 3.0}
    energy, _ = run(net, override_facts(chip, {**prices, "energy.neuron_inactive_pj": 1.0}), counts)
    joules = {term.name: term.joules for term in energy.terms}
    assert joules["synapse"] == pytest.approx(84 * 2e-12) and joules["neuron update"] == pytest.approx((4 + 12) * 5 * 3e-12)
    assert energy.dynamic is not None and energy.dynamic.low == pytest.approx(sum(joules.values()) - (4 + 12) * 5 * 2e-12)
    copies = {"fc1": np.array([2, 3]), "fc2": np.repeat([1, 2], 6)}  # one in front of each axon
    more = replace(placement, neuron_copies=copies)
    assert count_core_neurons(more).tolist() == [5, 6, 12]
    assert count_traffic(net, chip, more, counts).core_synops.tolist() == [6 * 5, 5 * 6, 5 * 12]
    work = measure_core_work(chip, placement, flow, counts.steps, {})
    assert work.updates.tolist() == [4, 6, 6] and work.memory_reads is not None
    assert work.memory_reads.tolist() == [6 * 4 / 5, 5 * 6 / 5, 5 * 6 / 5]


@pytest.mark.parametrize("chip", ["generic45nm", "spinnaker2"])
def test_sums_that_two_layers_of_neurons_read_are_paid_by_each(chip: str) -> None:
    """3 inputs meet 4 weights each, which two layers read; 10 spikes an input, 5 and 2 of a neuron onto 2 outputs."""
    layers = [
        Layer(name="w", synapse=Dense(weight=np.ones((4, 3)))),
        *(Layer(name=name, neuron=IF(reset="subtract")) for name in ("a", "b")),
        Layer(name="out", synapse=Dense(weight=np.ones((2, 4))), neuron=IF(reset="subtract")),
    ]
    ways = ((INPUT, "w"), ("w", "a"), ("w", "b"), ("a", "out"), ("b", "out"))
    net = SNNGraph(layers=layers, edges=[Edge(source=s, target=t) for s, t in ways], input_shape=(3,), output="out")
    sent = {INPUT: np.full(3, 10), "a": np.full(4, 5), "b": np.full(4, 2), "out": np.zeros(2)}
    counts = SpikeCounts(sent=sent, steps=10, samples=1)
    report = check(net, load_profile(chip), activity=counts, remedies=False)
    assert report.synops == 30 * 4 + (20 + 8) * 2 and report.work.synops.sum() * 10 == report.synops + 30 * 4
    term = next(term for term in report.energy.terms if term.name == "synapse")
    price = load_profile(chip).energy.synop_pj.value
    assert term.joules == pytest.approx(296 * price * 1e-12, rel=1e-12)
    assert term.how == f"296 SynOps at {price:g} pJ, 120 of them since neurons read the same sums"
    values = replace(counts, input_kind="current")
    priced = override_facts(load_profile(chip), {"energy.mac_pj": 2.0})
    macs = next(term for term in run(net, priced, values)[0].terms if term.name == "mac")
    assert macs.joules == pytest.approx(30 * 4 * 2 * 2e-12, rel=1e-12)


def test_synapses_that_reach_no_neuron_are_not_paid() -> None:
    """A pool over 2 of 3 positions drops the last, on which 6 of 15 spikes arrive."""
    layers = [
        Layer(name="w", synapse=Conv1d(weight=np.ones((1, 1, 1)))),
        Layer(name="pool", synapse=SumPool(kernel_size=(2,), stride=(2,))),
        Layer(name="out", neuron=IF(reset="subtract")),
    ]
    net = chain(layers, input_shape=(1, 3))
    sent = {INPUT: np.array([[4, 5, 6]]), "out": np.zeros((1, 1))}
    energy, _ = run(net, load_profile("generic45nm"), SpikeCounts(sent=sent, steps=6, samples=1))
    assert energy.terms[0].how == "9 SynOps at 0.9 pJ, 6 of the network reach no neuron"
    assert energy.terms[0].joules == pytest.approx(9 * 0.9e-12, rel=1e-12)


def test_several_chips_leave_hops_and_time_unknown() -> None:
    chip = small_chip("loihi1", core__neurons=1, chip__usable_cores=4)
    energy, latency = run(dense_net(1, 8, 2), chip, resolve_activity(dense_net(1, 8, 2), 0))
    assert energy.missing == ("hop", "static")
    assert latency.missing == ("timing between chips", "topology")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"timing__mode": "fixed_tick"}, ("timing.step_s",)),
        ({"timing__mode": "async"}, ("timing.speedup",)),
        ({"timing__mode": None}, ("timing.mode",)),
        ({"timing__mode": None, "timing__synop_ns": None}, ("timing.step_s",)),
    ],
)
def test_a_chip_without_a_barrier_lacks_the_time_that_its_mode_can_have(changes: dict[str, Any], missing: tuple[str]) -> None:
    """What is missing can be given: a chip without steps may have no time of a step."""
    net = dense_net(3, 4)
    counts = resolve_activity(net, 0)
    _, latency = run(net, small_chip("loihi1", **changes), counts)
    assert latency.missing == missing
    given = {"timing.step_s": 1e-3, "timing.speedup": 2, "timing.mode": "barrier"}[missing[0]]
    _, latency = run(net, small_chip("loihi1", **{**changes, missing[0].replace(".", "__"): given}), counts)
    assert latency.seconds is not None


@pytest.mark.parametrize(
    ("changes", "unstated"),
    [
        ({"energy__synop_pj": None, "topology__mesh_rows": None}, ("energy.synop_pj", "topology.mesh_rows")),
        ({"energy__packet_pj": 1, "topology__mesh_rows": None}, ("topology.mesh_rows",)),
        ({"energy__static_w_per_chip": None, "timing__mode": "fixed_tick"}, ("energy.static_w_per_chip", "timing.step_s")),
        ({"energy__hop_ew_pj": None}, ("energy.hop_ew_pj",)),
    ],
)
def test_what_is_missing_has_the_keys_to_set(changes: dict[str, Any], unstated: tuple[str, ...]) -> None:
    """With values for these keys there is a total; the names of the terms alone did not say where to write them."""
    net, chip = dense_net(1, 8, 2), small_chip("loihi1", **{"core__neurons": 1, "energy__spike_local_pj": None, **changes})
    if "energy__packet_pj" not in changes:
        chip = override_facts(chip, {"energy.spike_local_pj": 1.7})
    counts = resolve_activity(net, 0)
    energy, _ = run(net, chip, counts)
    assert energy.total is None and energy.unstated == unstated
    energy, _ = run(net, override_facts(chip, dict.fromkeys(unstated, 8)), counts)
    assert energy.total is not None and energy.unstated == ()
    report = check(net, chip, activity=counts)
    assert f"; loihi1 has no value for {join_names(unstated)}" in " ".join(str(report).split())


def test_a_limit_of_an_energy_that_is_not_known_names_the_keys() -> None:
    net, chip = dense_net(3, 4), small_chip("loihi1", energy__synop_pj=None, energy__neuron_active_pj=None, timing__mode="async")
    rows = check(net, chip, activity=resolve_activity(net, 0), limits=UserLimits(energy_j=1)).rows
    (row,) = (row for row in rows if row.resource == "energy")
    assert row.status == "unchecked" and row.remedy == "not known: energy.synop_pj, energy.neuron_active_pj, timing.speedup"


def test_a_chip_of_one_core_needs_no_mesh_and_no_barrier() -> None:
    chip = small_chip(
        "loihi1", chip__usable_cores=1, topology__mesh_rows=None, timing__barrier_ns_by_tiles=None, packing__share_cores=True
    )
    net = dense_net(3, 4, 2)
    counts = resolve_activity(net, 0)
    energy, latency = run(net, chip, counts)
    timing, synops = chip.timing, count_synops(net, counts).total / counts.steps
    step_ns = synops * timing.synop_ns.value + 6 * timing.neuron_active_ns.value
    assert energy.missing == () and latency.missing == ()
    assert latency.seconds == pytest.approx((counts.steps + 2) * step_ns * 1e-9, rel=1e-12)


def test_an_unlimited_tile_holds_all_cores_and_an_unlimited_row_all_tiles() -> None:
    net = dense_net(3, 4, 2)
    counts = resolve_activity(net, 0)
    hops = {}
    for key in ("cores_per_tile", "mesh_columns", "mesh_rows"):
        chip = small_chip("loihi1", **{"topology__cores_per_tile": 1, f"topology__{key}": "unlimited"})
        energy, latency = run(net, chip, counts)
        assert latency.seconds is not None
        hops[key] = next(term.joules for term in energy.terms if term.name == "hop")
    spikes = counts.sent["fc1"].sum() / counts.samples
    assert hops["cores_per_tile"] == 0 and hops["mesh_columns"] == hops["mesh_rows"] == pytest.approx(spikes * 3e-12)


def test_energy_is_per_sample_and_scales_with_spikes() -> None:
    net = dense_net(3, 4, 2)
    counts = resolve_activity(net, 0)
    doubled = replace(counts, sent={name: 2 * n for name, n in counts.sent.items()}, samples=2 * counts.samples)
    one, two = (run(net, LOIHI1, c)[0] for c in (counts, doubled))
    assert two.total == pytest.approx(one.total)


@pytest.mark.parametrize("before", [(), (Layer(name="flat", synapse=Flatten()),)], ids=["at once", "reshaped"])
def test_an_analogue_input_makes_no_synops(before: tuple[Layer, ...]) -> None:
    net = chain([*before, *dense_net(3, 4, 2).layers], input_shape=(3,))
    counts = replace(resolve_activity(net, 0), input_kind="current")
    flow = count_traffic(net, LOIHI1, place(net, LOIHI1), counts)
    assert flow.core_synops[0] == 0 and flow.core_synops[1] > 0


def test_energy_as_plain_data() -> None:
    energy = unknown_energy(LOIHI2).to_json()
    assert energy["total"] is None and energy["missing"] == ["activity"] and energy["terms"] == []


def test_an_analogue_first_layer_costs_multiplications() -> None:
    """3 analogue values on 4 neurons for 5 steps: 60 MACs; without their price there is no total."""
    net = dense_net(3, 4, 2)
    counts = SpikeCounts(
        sent={INPUT: np.full(3, 5), "fc1": np.zeros(4, int), "fc2": np.zeros(2, int)}, steps=5, samples=1, input_kind="current"
    )
    energy, _ = run(net, small_chip("loihi1", energy__mac_pj=4.6), counts)
    mac = next(term for term in energy.terms if term.name == "mac")
    assert mac.joules == pytest.approx(60 * 4.6e-12) and mac.evidence == "user"
    energy, _ = run(net, LOIHI1, counts)
    assert energy.total is None and energy.missing == ("mac",)


def test_packets_and_cores_at_work() -> None:
    """7 spikes to one core at 1 nJ; two cores at 34 mW for as long as an inference takes."""
    net = dense_net(3, 4, 2)
    chip = small_chip("loihi1", energy__spike_local_pj=None, energy__packet_pj=1000, energy__active_w_per_core=0.034)
    sent = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 0, 1, 2]), "fc2": np.array([5, 5])}
    energy, latency = run(net, chip, SpikeCounts(sent=sent, steps=5, samples=1))
    joules = {term.name: term.joules for term in energy.terms}
    assert joules["spike"] == pytest.approx(7e-9)
    assert joules["active cores"] == pytest.approx(2 * 0.034 * latency.seconds)
    assert energy.static is not None and energy.static.how.startswith("1 chip at 0.104 W and 0.068 W of its cores for ")
    assert latency.interval is not None
    assert energy.static.ends() == pytest.approx([(0.104 + 0.068) * end for end in latency.interval.ends()])
    idle, _ = run(net, LOIHI1, SpikeCounts(sent=sent, steps=5, samples=1))
    assert idle.static is not None and "of its cores" not in idle.static.how
    wide, _ = run(net, LOIHI2, SpikeCounts(sent=sent, steps=5, samples=1))
    assert wide.static is not None and wide.static.how.startswith("1 chip at 0.23 to 1.78 W for ")


def test_terms_name_their_sources_and_remarks() -> None:
    net = dense_net(3, 4, 2)
    sent = {INPUT: np.array([1, 2, 3]), "fc1": np.array([4, 0, 1, 2]), "fc2": np.array([5, 5])}
    terms = {term.name: term for term in run(net, LOIHI1, SpikeCounts(sent=sent, steps=5, samples=1))[0].terms}
    prices = LOIHI1.energy
    assert terms["synapse"].source == prices.synop_pj.source and terms["synapse"].how == "38 SynOps at 23.6 pJ"
    assert terms["static"].source == prices.static_w_per_chip.source
    assert terms["neuron update"].how == "30 updates at 81 pJ, all counted as active; 52 pJ each if none were"
    silent = SpikeCounts(sent={name: 0 * counts for name, counts in sent.items()}, steps=5, samples=1)
    free = {term.name: term for term in run(net, small_chip("loihi1", energy__synop_pj=None), silent)[0].terms}
    assert (free["synapse"].joules, free["synapse"].how) == (0.0, "0 SynOps")
    effective = run(net, LOIHI2, SpikeCounts(sent=sent, steps=5, samples=1))[0].effective_ops
    assert effective is not None and effective.source == LOIHI2.energy.neuron_op_synops.source != ""


def test_hops_need_a_price_and_none_on_one_core() -> None:
    net = dense_net(1, 8, 2)
    sent = {INPUT: np.array([0]), "fc1": np.full(8, 10), "fc2": np.zeros(2, int)}
    counts = SpikeCounts(sent=sent, steps=10, samples=2)
    energy, _ = run(net, small_chip("loihi1", core__neurons=1, energy__hop_ew_pj=None), counts)
    assert energy.missing == ("hop",)
    one_core = dense_net(3, 4)
    alone, _ = run(one_core, LOIHI1, SpikeCounts(sent={INPUT: np.ones(3, int), "fc1": np.ones(4, int)}, steps=5, samples=1))
    hop = next(term for term in alone.terms if term.name == "hop")
    assert hop.joules == 0 and hop.how.startswith("0 tiles") and hop.how.endswith(", one core")
