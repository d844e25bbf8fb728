"""Verdicts of a check: three values, all violations, against brute force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import OF_INTEGERS, _decide_by_integers, _read_refusal, check
from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.intervals import Interval
from spear_deploy.budget.latency import StepLoad
from spear_deploy.budget.limit_rows import _decide_by_interval
from spear_deploy.budget.notes import note_open_loads, note_replaced
from spear_deploy.budget.report import BudgetReport
from spear_deploy.budget.unsupported import LATE_RESET, SEVERAL_SPIKES, Replaced
from spear_deploy.errors import DataError, Refusal
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.network import IF, LI, LIF, CubaLIF, Dense, Neuron
from spear_deploy.network.delayed_reset import reset_in_same_step
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.simulator.synops import count_synops
from tests.conftest import shared
from tests.support.chips import dense_net, random_net, small_chip
from tests.support.seeds import seeds

LOIHI1, LOIHI2, SPECK, TRUENORTH = (load_profile(name) for name in ("loihi1", "loihi2", "speck2f", "truenorth"))
KEYS = ["profile", "verdict", "cores_used", "cores_limit", "rows", "synops", "energy", "latency_s", "unsupported"]
MORE = ["passes", "chips_used", "packing", "replaced", "chip_synops", "neuron_ops", "latency_interval_s", "latency_evidence",
        "fullest_core", "headline", "notes"]  # fmt: skip


def rows(report: BudgetReport, status: str) -> set[tuple[str, str]]:
    return {(row.resource, row.where) for row in report.rows if row.status == status}


def test_pilotnet_fits_loihi2_and_needs_two_loihi1() -> None:
    net = read_netx(shared("conformance/netx_pilotnet_lif/network.net"))
    two = check(net, LOIHI2)
    assert (two.verdict, two.cores_used, two.cores_limit, two.over, two.unsupported) == ("fits", 74, 120, (), ())
    assert two.headline == "FITS loihi2: 74 of 120 cores (62 %), synapse memory 64 % on the fullest core"
    single = check(net, LOIHI1)
    assert single.verdict == "does_not_fit" and rows(single, "over") == {("cores", "chip")}
    assert single.rows[0].remedy == "2 chips instead of 1"
    assert check(net, LOIHI1, chips=2).verdict == "fits"


def test_json_has_the_keys_of_the_contract_and_no_nan() -> None:
    net = dense_net(3, 40, 2)
    for report in (
        check(net, LOIHI2),
        check(net, LOIHI1, limits=UserLimits(synops=5, energy_j=1, latency_s=1), activity=0.5, steps=4),
    ):
        data = report.to_json()
        assert list(data) == [*KEYS, *MORE]
        assert list(data["rows"][0]) == ["resource", "where", "used", "limit", "unit", "status", "remedy"]
        assert {"total", "missing", "terms"} <= set(data["energy"])
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert check(net, LOIHI2).to_json()["synops"] is None


def test_every_layer_has_a_row_for_every_resource() -> None:
    report = check(dense_net(3, 40, 2), LOIHI2)
    for layer in ("fc1", "fc2"):
        resources = [row.resource for row in report.rows if row.where == layer]
        cores = ["neurons", "synapse_memory", "axons_in", "axons_out", "neuron_groups"]
        assert resources == [*cores, "weight_bits", "neuron_model", "reset", "layer_kind"]
    assert [row.resource for row in report.rows if row.where == "chip"] == ["cores"]


def test_all_violations_are_found_at_once() -> None:
    chip = small_chip("loihi1", core__synapse_memory=30, core__axons_in=40, chip__usable_cores=3)
    net = dense_net(50, 60, 2)
    report = check(net, chip, limits=UserLimits(synops=1), activity=1.0)
    assert rows(report, "over") == {
        ("cores", "chip"),
        ("synops", "chip"),
        ("synapse_memory", "fc1"),
        ("synapse_memory", "fc2"),
        ("axons_in", "fc1"),
        ("axons_in", "fc2"),
    }
    assert all(row.remedy for row in report.over)
    assert "6 limits exceeded" in report.headline


def test_tight_is_above_nine_tenths() -> None:
    for neurons, status in ((9, "ok"), (10, "tight")):
        report = check(dense_net(1, neurons), small_chip("loihi1", core__neurons=10))
        assert next(row for row in report.rows if row.resource == "neurons").status == status


def test_unsupported_means_does_not_fit() -> None:
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF(reset="subtract"))], input_shape=(3,))
    report = check(net, LOIHI1)
    assert report.verdict == "does_not_fit" and not report.over
    assert report.to_json()["unsupported"] == [
        {
            "layer": "fc",
            "what": "reset by subtraction",
            "why": "the stock neuron of loihi1 resets to a value; train with reset='value'",
        }
    ]
    assert "1 thing the chip does not have" in report.headline
    assert "layer 'fc': reset by subtraction" in str(report)


@pytest.mark.parametrize(
    ("key", "unchecked"),
    [
        ("core__axons_in", {("axons_in", "fc1"), ("axons_in", "fc2")}),
        ("core__synapse_memory", {("synapse_memory", "fc1"), ("synapse_memory", "fc2")}),
        ("core__neurons", {("neurons", "fc1"), ("neurons", "fc2")}),
        ("chip__usable_cores", {("cores", "chip")}),
    ],
)
def test_a_number_that_is_not_published_is_never_a_pass(key: str, unchecked: set[tuple[str, str]]) -> None:
    report = check(dense_net(3, 40, 2), small_chip("loihi1", **{key: None}))
    assert report.verdict == "unchecked" and rows(report, "unchecked") == unchecked
    over = check(dense_net(3, 40, 2), small_chip("loihi1", **{key: None}), limits=UserLimits(synops=0), activity=1.0)
    assert over.verdict == "does_not_fit"


def test_budgets_without_a_number_are_unchecked() -> None:
    net = dense_net(3, 4)
    report = check(net, LOIHI2, limits=UserLimits(synops=100))
    assert report.verdict == "unchecked"
    assert next(row for row in report.rows if row.resource == "synops").remedy == "not known: activity"
    report = check(net, SPECK, limits=UserLimits(energy_j=1e-3, latency_s=1), activity=0.1)
    assert {("energy", "chip"), ("latency", "chip")} <= rows(report, "unchecked")
    assert check(net, LOIHI1, limits=UserLimits(energy_j=1e-3, latency_s=1), activity=0.1).verdict == "fits"
    assert rows(check(net, LOIHI1, limits=UserLimits(energy_j=1e-12, latency_s=1e-9), activity=0.1), "over") == {
        ("energy", "chip"),
        ("latency", "chip"),
    }


def test_an_interval_decides_where_it_lies_on_one_side_of_a_limit() -> None:
    """Loihi 2: 3 → 4 neurons, one step: 1.2 SynOps and 4 updates are 41.2 effective operations of 14 to 107 pJ."""
    net = dense_net(3, 4)
    bounds = check(net, LOIHI2, activity=0.1).energy.interval
    low, high = bounds.low, bounds.high
    wide, inside, narrow = (
        next(row for row in check(net, LOIHI2, limits=UserLimits(energy_j=limit), activity=0.1).rows if row.resource == "energy")
        for limit in (2 * high, (low + high) / 2, low / 2)
    )
    assert (wide.status, wide.used) == ("ok", high) and wide.detail.startswith("upper end of ")
    assert (inside.status, inside.used) == ("unchecked", None) and inside.remedy.startswith("the limit lies within ")
    assert (narrow.status, narrow.used) == ("over", low) and narrow.remedy == "prune: 50.0 % has to go"


def latency_row(report: BudgetReport) -> BudgetRow:
    return next(row for row in report.rows if row.resource == "latency")


@pytest.mark.parametrize(
    ("share", "verdict", "status"),
    [(1.5, "fits", "ok"), (0.5, "unchecked", "unchecked"), (0.0, "unchecked", "unchecked"), (-0.01, "does_not_fit", "over")],
)
def test_a_budget_of_time_is_held_against_the_interval_of_the_fullest_core(share: float, verdict: str, status: str) -> None:
    """A share of 0 is the lower end, of 1 the upper end; in between nothing decides."""
    net = dense_net(40, 300, 10)
    bounds = check(net, LOIHI2, activity=0.2, steps=16).latency.interval
    assert bounds is not None and bounds.high is not None and bounds.low < bounds.high
    limit = bounds.low + share * (bounds.high - bounds.low)
    report = check(net, LOIHI2, activity=0.2, steps=16, limits=UserLimits(latency_s=limit))
    row = latency_row(report)
    assert (report.verdict, row.status) == (verdict, status)
    assert row.used == {"ok": bounds.high, "over": bounds.low, "unchecked": None}[status]
    assert (row.detail or row.remedy).endswith(f"{bounds.write('s')}, derived")


def test_a_budget_of_time_without_activity_is_unchecked() -> None:
    report = check(dense_net(3, 4), LOIHI2, limits=UserLimits(latency_s=1.0))
    assert report.verdict == "unchecked" and latency_row(report).remedy == "not known: activity"


def test_synops_over_the_budget_say_how_much_has_to_go() -> None:
    report = check(dense_net(10, 10), LOIHI2, limits=UserLimits(synops=75), activity=1.0)
    (row,) = report.over
    assert (row.used, row.limit, row.remedy) == (100, 75, "prune: 25.0 % has to go")


@pytest.mark.parametrize(
    ("chip", "latency", "passes", "packing"),
    [
        ("truenorth", "100.0 % of the steps have to go: run fewer", None, "packing: 1 core, 1.00 times the lower bound of 1"),
        ("spinnaker1", "100.0 % of the steps have to go: run fewer", None, "packing: 2 cores, 1.00 times the lower bound of 2"),
        ("loihi1", "prune: 100.0 % has to go", None, "packing: 2 cores as the chip's tool packs; 1 at the tightest, 1.00 times"),
        ("akd1000", "not known: timing.step_s", 1, "packing: 2 cores, 1.00 times the lower bound of 2"),
    ],
)
def test_remedies_passes_and_packing_by_chip(chip: str, latency: str, passes: int | None, packing: str) -> None:
    """Time is saved by fewer steps where a step takes a time of its own, else by fewer SynOps."""
    limits = UserLimits(latency_s=1e-9, synops=1.0)
    report = check(dense_net(10, 5, 4), load_profile(chip), activity=0.2, steps=10, limits=limits)
    rows = {row.resource: row for row in report.rows}
    assert rows["latency"].remedy.startswith(latency) and rows["synops"].remedy == "prune: 99.3 % has to go"
    assert report.passes == passes and report.neuron_ops == 90
    assert any(note.startswith(packing) for note in report.notes)


def test_a_rate_is_stated_and_counts_every_neuron_and_input() -> None:
    net = dense_net(10, 5, 4)
    report = check(net, LOIHI1, activity=0.2, steps=10)
    assert report.synops == pytest.approx(2 * (10 * 5 + 5 * 4))
    assert "activity: assumed, 0.2 spikes per step of every neuron and input, 10 steps per inference" in report.notes
    stated = SNNGraph(layers=net.layers, edges=net.edges, input_shape=(10,), metadata={"steps": 5})
    assert check(stated, LOIHI1, activity=0.2).synops == pytest.approx(70)
    assert check(net, LOIHI1, activity=0).synops == 0


def test_measured_activity_is_used_as_it_is() -> None:
    net = dense_net(10, 5, 4)
    counts = simulate(net, np.random.default_rng(0).random((6, 3, 10)) < 0.5).counts
    report = check(net, LOIHI1, activity=counts)
    assert report.synops == count_synops(net, counts).total
    assert report.energy.total is not None and report.latency_s is not None
    assert "activity: measured, 3 samples of 6 steps" in report.notes[0]
    other = SpikeCounts(sent={INPUT: np.zeros(10, int)}, steps=1, samples=1)
    with pytest.raises(DataError, match="layer 'fc1': the spike counts do not have it"):
        check(net, LOIHI1, activity=other)


def test_long_delays_on_loihi1_are_unchecked() -> None:
    """They leave fewer compartments; how many is not published. One step of an edge's delay is the chip's own."""

    def net(delay: int) -> SNNGraph:
        layers = tuple(Layer(name=name, synapse=Dense(weight=np.ones((2, 2))), neuron=IF()) for name in "ab")
        return SNNGraph(
            layers=layers,
            edges=(Edge(source="input", target="a"), Edge(source="a", target="b", delay=delay)),
            input_shape=(2,),
        )

    assert check(net(9), LOIHI1).verdict == "fits"
    assert check(net(10), LOIHI1).verdict == "unchecked"
    assert rows(check(net(10), LOIHI1), "unchecked") == {("delay", "b")}
    assert check(net(10), LOIHI2).verdict == "fits"
    assert check(net(64), LOIHI2).verdict == "does_not_fit"


def test_a_readout_is_placed_and_needs_no_output_axons() -> None:
    net = chain([Layer(name="out", synapse=Dense(weight=np.ones((3, 4))), neuron=LI(tau_s=0.01))], input_shape=(4,))
    report = check(net, LOIHI1)
    assert report.verdict == "fits" and report.cores_used == 1
    assert next(row for row in report.rows if row.resource == "axons_out").used == 0


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_the_verdict_is_that_of_a_brute_force_check(seed: int) -> None:
    """Every core of the placement against every limit, one by one."""
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    limits = {
        "core__neurons": int(rng.integers(4, 80)),
        "core__synapse_memory": int(rng.integers(30, 1500)),
        "core__axons_in": int(rng.integers(4, 200)),
        "core__axons_out": int(rng.integers(20, 900)),
        "chip__usable_cores": int(rng.integers(1, 40)),
    }
    chip = small_chip(str(rng.choice(["loihi1", "loihi2"])), **limits)
    report = check(net, chip)
    broken: set[tuple[str, str]] = set()
    if len(report.placement.slices) > limits["chip__usable_cores"]:
        broken.add(("cores", "chip"))
    for part in report.placement.slices:
        used = {
            "neurons": part.neurons,
            "synapse_memory": part.memory_words,
            "axons_in": part.axons_in,
            "axons_out": part.axons_out,
        }
        broken |= {(name, part.layer) for name, n in used.items() if n > limits[f"core__{name}"]}
    assert rows(report, "over") == broken
    assert report.verdict == ("does_not_fit" if broken else "fits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chips": 0}, "chips: 0 given, expected a whole number of 1 to 9007199254740992"),
        ({"chips": 10**400}, r"chips: 10{56}\.\.\. given, expected a whole number of 1 to 9007199254740992"),
        ({"limits": UserLimits(cores=10**400)}, r"cores: 10{56}\.\.\. given, expected a whole number of 1 to"),
        ({"limits": UserLimits(synops=10**400)}, r"synops: 10{56}\.\.\. given, expected a finite number"),
        ({"activity": 10**400}, r"activity: 10{56}\.\.\. given, expected spikes per neuron and step"),
        ({"steps": 1.5}, "steps: 1.5 given, expected a whole number"),
        ({"chips": True}, "chips: True given, expected a whole number of 1 to"),
        ({"chips": "two"}, "chips: 'two' given, expected a whole number of 1 to"),
        ({"limits": UserLimits(synops="50%")}, "synops: '50%' given, expected a finite number of at least 0"),
        ({"activity": [0.1]}, r"activity: \[0.1\] given, expected spikes per neuron and step"),
        ({"limits": UserLimits(synops=-1)}, "synops: -1 given, expected a finite number of at least 0"),
        ({"limits": UserLimits(energy_j=float("nan"))}, "energy_j: nan given, expected a finite number"),
        ({"limits": UserLimits(latency_s=float("inf"))}, "latency_s: inf given, expected a finite number of at least 0"),
        ({"activity": -0.1}, "activity: -0.1 given, expected spikes per neuron and step"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(dense_net(2, 2), LOIHI2, **arguments)


def test_a_check_imports_neither_torch_nor_lava_nor_networkx() -> None:
    code = (
        "import sys; from tests.support.chips import dense_net; from spear_deploy.hardware.profile import load_profile\n"
        "from spear_deploy.budget import check; check(dense_net(9, 5000, 4), load_profile('loihi1'), activity=0.1)\n"
        "print([m for m in ('torch', 'lava', 'networkx', 'matplotlib', 'onnx', 'nir', 'norse') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ}, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_network_of_ten_million_synapses_is_checked_without_copies() -> None:
    report = check(dense_net(1000, 10000), LOIHI2, chips=20)
    assert report.verdict == "fits" and report.cores_used == len(report.placement.slices)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["loihi2", "loihi1", "truenorth", "xylo_audio2", "spinnaker1", "speck2f"])
def test_a_hundred_million_synapses_take_five_seconds_and_a_gigabyte_and_a_half(chip: str) -> None:
    """A tenth of the weights are zero, which chips that count synapses have to see."""
    code = (
        "import resource, time, numpy as np\n"
        "from spear_deploy.network.graph import Layer, chain\n"
        "from spear_deploy.network import IF, Dense\n"
        "from spear_deploy.hardware.profile import load_profile\n"
        "from spear_deploy.budget import check\n"
        "weight = np.ones((10000, 10000), np.float32)\n"
        "weight[:, ::10] = 0\n"
        "net = chain([Layer(name='fc', synapse=Dense(weight=weight), neuron=IF())], input_shape=(10000,))\n"
        "start = time.process_time()\n"
        f"check(net, load_profile('{chip}'))\n"
        "print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ}, capture_output=True, text=True, timeout=300)
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds <= 5 and kilobytes <= 1.5e6


def late_net() -> SNNGraph:
    neuron = LIF(tau_s=4e-3, reset="subtract", reset_delay=1)
    layers = [Layer(name=name, synapse=Dense(weight=np.ones((3, 3))), neuron=neuron) for name in ("a", "b")]
    return chain(layers, input_shape=(3,))


def test_a_late_reset_is_the_chips_reset_in_the_same_step_and_the_verdict_names_it() -> None:
    report = check(late_net(), load_profile("loihi2"))
    assert report.verdict == "fits" and "reset of 2 layers one step earlier than trained" in report.headline
    what = {"what": "a reset one step late", "by": "a reset in the step of the spike"}
    assert report.to_json()["replaced"] == [{"layer": "a", **what}, {"layer": "b", **what}]
    (reset,) = (note for note in report.notes if note.startswith("reset: "))
    assert "`simulate NET --chip loihi2 --explain --data DATA` measures how many" in reset and "or `adapt` avoids it" in reset
    (row,) = [row for row in report.rows if (row.resource, row.where) == ("late_reset", "a")]
    assert row.status == "ok" and row.detail == "in the step of the spike, where the network resets one step late"
    assert report.placement.cores_used == check(reset_in_same_step(late_net()), load_profile("loihi2")).placement.cores_used
    assert check(quantize(late_net()), load_profile("loihi2")).replaced == report.replaced


@pytest.mark.parametrize(("chip", "verdict"), [("generic45nm", "fits"), ("spinnaker2", "unchecked"), ("loihi1", "does_not_fit")])
def test_a_late_reset_fits_where_the_chip_has_it_and_is_open_where_nobody_says(chip: str, verdict: str) -> None:
    """Loihi 1 does not subtract at all, so that there is no reset to move."""
    report = check(late_net(), load_profile(chip))
    assert report.replaced == () and report.verdict == verdict
    status = {row.status for row in report.rows if row.resource == "late_reset"}
    assert status == {"unchecked" if verdict == "unchecked" else "ok"}


def test_an_interval_that_ends_at_the_limit_is_within_it() -> None:
    bounds = Interval(low=1.0, high=2.0, evidence="derived", source="", how="")
    assert _decide_by_interval(bounds, 2.0, "J")[0] == 2.0 and _decide_by_interval(bounds, 1.0, "J")[0] is None
    assert _decide_by_interval(bounds, 0.999, "J")[0] == 1.0


def test_a_limit_that_is_kept_needs_no_remedy() -> None:
    report = check(dense_net(3, 4), LOIHI1, limits=UserLimits(synops=1000, energy_j=1, latency_s=1), activity=0.1)
    kept = [row for row in report.rows if row.resource in ("synops", "energy", "latency")]
    assert [row.remedy for row in kept] == ["", "", ""] and all(row.used is not None for row in kept)


@pytest.mark.parametrize(("used", "worst", "notes"), [(None, 11.0, 1), (None, 10.0, 0), (12.0, 13.0, 0), (9.0, 11.0, 0)])
def test_a_load_is_open_where_only_its_worst_case_is_too_much(used: float | None, worst: float, notes: int) -> None:
    load = StepLoad(resource="events", where="fc", used=used, worst=worst, limit=10.0, unit="event")
    found = list(note_open_loads([load], LOIHI2))
    assert len(found) == notes
    assert all(note.endswith("every step, as often as they can, it would be 11 events of 10") for note in found)


LOWER_BOUND = (
    "cores: one axon is counted for each source; integers for truenorth take one for each type of its weights, so that cores and "
    "axons are a lower bound"
)


def test_cores_of_a_network_that_truenorth_refuses_are_a_lower_bound() -> None:
    """100 sources of 100 neurons with currents: 1 core; of neurons without, which the chip has, the axons take more."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(100, 100)), "b": rng.normal(size=(10, 100))}

    def build(neuron: Neuron) -> BudgetReport:
        layers = [Layer(name=name, synapse=Dense(weight=weight), neuron=neuron) for name, weight in weights.items()]
        return check(chain(layers, input_shape=(100,)), load_profile("truenorth"), remedies=False)

    refused, fits = build(CubaLIF(tau_mem_s=4e-3, tau_syn_s=4e-3)), build(IF(reset="subtract"))
    assert (refused.verdict, fits.verdict) == ("does_not_fit", "fits") and refused.cores_used == 1 and fits.cores_used > 1
    assert LOWER_BOUND in refused.notes and LOWER_BOUND not in fits.notes
    assert LOWER_BOUND not in check(dense_net(300, 300), LOIHI2, remedies=False).notes


def test_a_load_without_a_largest_worst_case_names_the_limit() -> None:
    load = StepLoad(resource="events", where="fc", used=None, worst=np.inf, limit=10.0, unit="event")
    (note,) = note_open_loads([load], LOIHI2)
    assert note.endswith("; neurons or inputs may spike any number of times in a step, and the limit is 10 events")


def test_notes_name_the_layers_that_reset_late_and_those_that_send_several_spikes_by_what_the_chip_sends() -> None:
    replaced = [
        Replaced(layer="a", what=LATE_RESET, by="a reset in the step of the spike"),
        Replaced(layer="b", what=SEVERAL_SPIKES, by="one spike"),
        Replaced(layer="c", what=SEVERAL_SPIKES, by="up to 31 spikes"),
        Replaced(layer="d", what=SEVERAL_SPIKES, by="one spike"),
        Replaced(layer="e", what="another part", by="nothing"),
    ]
    late, one, many = note_replaced(replaced, "loihi2")
    assert late.startswith("reset: 'a' subtracts the threshold one step after the spike, loihi2 in the same step")
    assert one.startswith("spikes per step: 'b' and 'd' may send several spikes in a step, loihi2 sends one spike,")
    assert many.startswith("spikes per step: 'c' may send several spikes in a step, loihi2 sends up to 31 spikes,")
    assert list(note_replaced(replaced[4:], "loihi2")) == []


@pytest.mark.parametrize("neuron", [None, LI(tau_s=0.01)])
def test_an_output_without_neurons_is_placed_and_named(neuron: LI | None) -> None:
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((4, 3))), neuron=IF()),
        Layer(name="out", synapse=Dense(weight=np.ones((2, 4))), neuron=neuron),
    ]
    report = check(chain(layers, input_shape=(3,)), LOIHI1)
    other = check(chain(layers, input_shape=(3,)), load_profile("generic45nm"))
    notes = [note for note in other.notes if note.startswith("readout: 'out' is a weighted sum without neurons; it is placed")]
    assert report.cores_used == 2 and len(notes) == (neuron is None), "a profile without integers has a note"
    assert [finding.what for finding in report.unsupported] == (["a weighted sum as output"] if neuron is None else [])
    assert (report.verdict, other.verdict) == ("fits" if neuron else "does_not_fit", "fits")


@pytest.mark.parametrize(("distinct", "status"), [(8, []), (9, ["unchecked"])])
def test_more_thresholds_than_a_core_surely_holds_are_open(distinct: int, status: list[str]) -> None:
    def find(neuron: Any, chip: str) -> tuple[str, list[BudgetRow]]:
        graph = chain([Layer(name="a", synapse=Dense(weight=np.ones((24, 3))), neuron=neuron)], input_shape=(3,))
        report = check(graph, load_profile(chip))
        return report.verdict, [row for row in report.rows if row.resource == "distinct_constants"]

    thresholds = IF(v_threshold=np.arange(24) % distinct + 1.0)
    verdict, rows = find(thresholds, "loihi1")
    assert [row.status for row in rows] == status and verdict == ("unchecked" if status else "fits")
    assert all(row.remedy.startswith("9 distinct thresholds, of which a core of loihi1 surely holds 8") for row in rows)
    assert find(thresholds, "loihi2") == ("fits", [])
    (row,) = find(LIF(tau_s=np.linspace(0.01, 0.02, 24)), "loihi1")[1]
    assert row.remedy.startswith("24 distinct time constants")


def test_integers_decide_how_many_values_the_weights_of_a_neuron_have() -> None:
    """On TrueNorth, four: open before weights are rounded. What is over a limit then is over in the report."""
    weight = np.random.default_rng(0).normal(size=(8, 10))
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(10,))
    report = check(graph, TRUENORTH)
    (row,) = (row for row in report.rows if row.resource == "weight_palette")
    assert (row.used, row.limit, row.status, row.detail) == (4, 4, "ok", "of its integers, rounded without data")
    assert report.verdict == "fits" and not any(note.startswith("open: ") for note in report.notes)
    assert (
        "axons: the 10 sources of 'a' take 37 axons on one core, one for each type of their weights; rows have these axons as "
        "cores are cut"
    ) in report.notes
    assert {row.resource: row.used for row in report.rows if row.resource in ("neurons", "axons_in", "synapse_memory")} == {
        "neurons": 8, "axons_in": 37, "synapse_memory": 37 * 8
    }  # fmt: skip
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(10,))
    two = override_facts(TRUENORTH, {"connectivity.weight_palette": 2})
    report = check(graph, two)
    (row,) = (row for row in report.rows if row.resource == "weight_palette")
    assert (row.used, row.limit, row.status, report.verdict) == (4, 2, "over", "does_not_fit")


def test_integers_of_a_large_network_are_asked_only_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds; a network that is too large as it is gets its rows at once."""
    asked: list[int] = []
    monkeypatch.setattr(sys.modules[check.__module__], "ask_integers", lambda graph, *_: asked.append(graph.weights))
    small, wide, narrow = dense_net(10, 300, 10), dense_net(1000, 1200, 10), small_chip("loihi2", core__neurons=2)
    for net, profile in ((small, LOIHI2), (wide, narrow), (small, narrow), (wide, LOIHI2)):
        assert (check(net, profile).verdict == "does_not_fit") is (profile is narrow)
    assert asked == [small.weights, small.weights, wide.weights]


def test_values_of_truenorths_integers_are_counted_where_another_limit_is_exceeded() -> None:
    """One core is too few for 300 neurons; each has one value of weights, which floating point does not say."""
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((300, 4))), neuron=IF())], input_shape=(4,), dt_s=1e-3)
    report = check(graph, TRUENORTH, limits=UserLimits(cores=1))
    assert ("cores", "chip") in rows(report, "over")
    (row,) = (row for row in report.rows if row.resource == "weight_palette")
    assert (row.used, row.status, row.detail) == (1, "ok", OF_INTEGERS)


def test_integers_are_checked_besides_only_where_they_decide_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,), dt_s=1e-3)
    taken: list[str] = []
    monkeypatch.setattr(sys.modules[check.__module__], "check", lambda *a, **b: taken.append(a[1].name) or check(*a, **b))
    assert [check(graph, profile).verdict for profile in (LOIHI1, LOIHI2, TRUENORTH)] == ["fits"] * 3
    assert taken == ["truenorth"]


@pytest.mark.parametrize(("chip", "verdict"), [("loihi1", "does_not_fit"), ("truenorth", "does_not_fit"), ("loihi2", "fits")])
def test_a_current_is_no_input_of_a_chip_whose_spikes_carry_no_value(chip: str, verdict: str) -> None:
    """What the integers refuse for the data does not fit with the counts of these data; without counts the note says so."""
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,))
    x, profile = np.full((2, 1, 4), 0.5), load_profile(chip)
    report = check(net, profile, activity=simulate(net, x, kind="current").counts)
    assert report.verdict == verdict
    found = [(finding.layer, finding.what.partition(" as spikes that carry a value")[0]) for finding in report.unsupported]
    assert found == ([("input", "a current is sent")] if verdict == "does_not_fit" else [])
    assert [row.where for row in report.rows if row.status == "over"] == (["input"] if found else [])
    spikes = check(net, profile, activity=simulate(net, np.ones((2, 1, 4), np.uint8)).counts)
    assert not spikes.unsupported and not [note for note in spikes.notes if note.startswith("input: ")]
    notes = [note for note in check(net, profile).notes if note.startswith("input: taken as spikes; values")]
    assert len(notes) == len(found)


def delayed(kind: str) -> SNNGraph:
    """Return two layers of weights from the input, of which one arrives three steps late: by source, or by synapse."""
    weight = np.arange(1.0, 61.0).reshape(6, 10) % 2 + 1
    late = np.zeros((6, 10), bool)
    if kind == "sources":
        late[:, :4] = True
    else:
        late[:3, :4] = True
    layers = [Layer(name=name, synapse=Dense(weight=weight * part)) for name, part in (("now", ~late), ("late", late))]
    edges = [Edge(source=INPUT, target="now"), Edge(source=INPUT, target="late", delay=3)]
    edges += [Edge(source=name, target="n") for name in ("now", "late")]
    return SNNGraph(layers=(*layers, Layer(name="n", neuron=IF())), edges=tuple(edges), input_shape=(10,), output="n")


@pytest.mark.parametrize("kind", ["sources", "synapses"])
def test_synapses_of_one_source_that_differ_in_delay_take_axons_of_a_crossbar(kind: str) -> None:
    """Their number is that of the integers: open in floating point, where no integers are asked."""
    report = check(delayed(kind), TRUENORTH)
    (row,) = (row for row in report.rows if row.resource == "delay")
    assert (row.where, row.used, row.limit, row.status, report.verdict) == ("n", 3, 14, "ok", "fits")
    assert (row.detail == "of its integers, rounded without data") == (kind == "synapses")
    unlimited = override_facts(TRUENORTH, {"connectivity.weight_palette": "unlimited"})
    (row,) = (row for row in check(delayed(kind), unlimited).rows if row.resource == "delay")
    assert row.status == ("ok" if kind == "sources" else "unchecked")
    assert ("takes an axon, and a copy of its neuron, for each delay; one is placed" in row.remedy) == (kind == "synapses")
    (row,) = (row for row in check(delayed(kind), LOIHI2).rows if row.resource == "delay")
    assert row.status == "ok"


@pytest.mark.parametrize(("limit", "layers"), [(0, "3 layers that pass"), (2, "a layer that passes")])
def test_a_delay_beyond_the_limit_names_the_layers_that_stand_in_for_it(limit: int, layers: str) -> None:
    chip = override_facts(small_chip("loihi2"), {"weights.delay_max_steps": limit})
    (row,) = (row for row in check(delayed("sources"), chip).rows if row.resource == "delay")
    assert row.remedy.startswith(f"let {layers} spikes on lie in between, one for each step too many")


def test_an_input_is_sent_to_each_axon_of_a_crossbar_that_reads_it() -> None:
    layers = tuple(Layer(name=name, synapse=Dense(weight=np.ones((9, 7))), neuron=IF()) for name in "ab")
    edges = tuple(Edge(source=INPUT, target=name) for name in "ab")
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(7,), output="b"), TRUENORTH)
    assert not [row for row in report.rows if row.resource == "destinations" and row.where == INPUT] and not report.over


@pytest.mark.parametrize(
    ("why", "remedy", "parts"),
    [
        ("it leaks; it counts; use IF", "", ("it leaks; it counts", "use IF")),
        ("it leaks; it counts", "use IF", ("it leaks; it counts", "use IF")),
        ("it leaks", "", ("it leaks", "")),
        ("", "use IF", ("the integers of the chip hold none", "use IF")),
    ],
)
def test_a_refusal_of_the_integers_has_a_reason_and_a_remedy(why: str, remedy: str, parts: tuple[str, str]) -> None:
    found = _read_refusal(Refusal(layer="fc", what="LIF leaks", why=why, remedy=remedy))
    assert (found.reason, found.remedy) == parts and (found.layer, found.what, found.resource) == ("fc", "LIF leaks", "integers")


def test_energy_is_of_the_cores_that_axons_of_each_type_take() -> None:
    """Weights of four values: a core has axons for a fourth of the sources, so that layers of a core each take many."""
    rng = np.random.default_rng(0)
    sizes = {"a": (200, 200), "b": (100, 200)}
    layers = [Layer(name=name, synapse=Dense(weight=rng.choice([1.0, 2.0, 3.0, 4.0], size)), neuron=IF(v_threshold=90.0))
              for name, size in sizes.items()]  # fmt: skip
    chip = override_facts(TRUENORTH, {"energy.active_w_per_core": 0.001, "energy.synop_pj": 1.0})
    report = check(chain(layers, input_shape=(200,)), chip, activity=0.1, steps=4)
    (term,) = (term for term in report.energy.terms if term.name == "active cores")
    assert report.latency_s is not None and report.cores_used > 100
    assert term.joules == pytest.approx(0.001 * report.cores_used * report.latency_s)


def test_integers_decide_open_rows_and_add_what_is_over_under_another_name() -> None:
    def row(resource: str, where: str, status: Any) -> BudgetRow:
        return BudgetRow(resource=resource, where=where, used=1, limit=1, unit="", status=status)

    network = [row("delay", "a", "ok"), row("delay", "b", "over"), row("delay", "c", "unchecked"), row("delay", "d", "ok"),
               row("weight_palette", "a", "unchecked"), row("weight_palette", "b", "unchecked")]  # fmt: skip
    integers = [row("delay", "a", "over"), row("delay", "b", "ok"), row("delay", "c", "ok"), row("delay", "d", "ok"),
                row("delay", "n", "over"), row("delay", "m", "ok"), row("weight_palette", "a", "ok"),
                row("weight_palette", "n", "ok")]  # fmt: skip
    decided = [
        (each.resource, each.where, each.status, each.detail == OF_INTEGERS) for each in _decide_by_integers(network, integers)
    ]
    assert decided == [
        ("delay", "a", "over", True), ("delay", "b", "over", False), ("delay", "c", "ok", True), ("delay", "d", "ok", False),
        ("weight_palette", "a", "ok", True), ("delay", "n", "over", True), ("weight_palette", "n", "ok", True),
    ]  # fmt: skip


def test_rows_that_a_chip_leaves_open_are_not_those_of_its_integers() -> None:
    weight = np.random.default_rng(0).choice([1.0, 2.0, 3.0, 4.0], (30, 40))
    chip = override_facts(TRUENORTH, {"core.neurons": None})
    report = check(chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(40,)), chip)
    unchecked = [row for row in report.rows if row.status == "unchecked"]
    assert "neurons" in {row.resource for row in unchecked} and {row.detail for row in unchecked} == {""}
