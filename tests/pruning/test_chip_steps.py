"""A chip's own steps as budgets: layers grow to the end of their steps; networks that do not fit are made to fit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.budget.check import check
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline.preflight import check_inputs
from spear_deploy.pipeline.prune import prune
from spear_deploy.pruning.budgets import Amount, Budgets
from spear_deploy.pruning.candidates import Evaluator
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.plan import prune as prune_channels
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.projection import fill_ratios, project_ratios
from spear_deploy.pruning.search.settings import default_settings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.measure import BudgetMonitor, deploy_float
from spear_deploy.quantize import quantize
from spear_deploy.simulator import SpikeCounts
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from tests.benchmarks.fit import CASES, METHODS, write_tables
from tests.support.seeds import seeds
from tests.training.test_fit import quick, toy_data, toy_network


def stepped(rng):
    """Return groups, and limits of a chip: words in powers of two for each group, and words of all groups together."""
    channels = tuple(int(n) for n in rng.integers(2, 40, int(rng.integers(2, 5))))
    words = rng.integers(1, 30, len(channels))
    own = rng.integers(60, 800, len(channels))
    most = int(rng.integers(100, 2500))

    def fits(widths):
        used = [2 ** int(np.ceil(np.log2(max(width * size, 1)))) for width, size in zip(widths, words, strict=True)]
        return all(part <= limit for part, limit in zip(used, own, strict=True)) and sum(used) <= most

    return channels, fits


@pytest.mark.parametrize("given", [False, True])
def test_synapses_onto_other_cores_are_a_limit_that_pruning_sees(given):
    """12 neurons on cores of 4 reach 5 others on their own core or next to it; Catalyst has room for 8 onto other cores."""
    chip = override_facts(load_profile("catalyst_n1"), {"core.neurons": 4})
    widths, layers = (12, 10), []
    for name, outputs, inputs in zip("abc", (*widths, 3), (5, *widths), strict=True):
        weight = np.ones((outputs, inputs))
        weight[0, 0] = 0  # a weight of 0 that the chip does not hold
        layers.append(Layer(name=name, synapse=Dense(weight=weight), neuron=IF()))
    graph = chain(layers, input_shape=(5,))
    costs = build_chip_costs(graph, chip)
    for kept in ((12, 10), (12, 8), (8, 10)):
        plan = PruningPlan(kept={group.name: tuple(range(n)) for group, n in zip(costs.groups, kept, strict=True)})
        narrow = prune_channels(graph, plan)
        over = {(row.resource, row.where) for row in costs.place(kept, narrow if given else None)[1]}
        assert over == {(row.resource, row.where) for row in check(narrow, chip).over}
        assert (("fan_out_remote", "a") in over) == (kept[1] > 8)


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_no_group_can_grow_after_filling_and_none_is_narrower_than_by_one_scale(seed):
    rng = np.random.default_rng(seed)
    channels, fits = stepped(rng)
    least = (1,) * len(channels)
    ratios = tuple(rng.uniform(0.2, 1, len(channels)))
    if not fits(least):
        assert fill_ratios(ratios, channels, least, fits) == least
        return
    scaled, filled = project_ratios(ratios, channels, least, fits), fill_ratios(ratios, channels, least, fits)
    assert fits(filled) and all(type(width) is int for width in scaled + filled)
    assert all(after >= before for after, before in zip(filled, scaled, strict=True))
    for index, (width, most) in enumerate(zip(filled, channels, strict=True)):
        wider = tuple(width + 1 if n == index else other for n, other in enumerate(filled))
        assert width == most or not fits(wider)


@pytest.mark.parametrize(
    ("name", "alike", "filled"),
    [("truenorth", (107, 256), (160, 256)), ("speck", None, (32, 128)), ("xylo", (82, 64), (160, 64))],
)
def test_only_the_layer_that_exceeds_the_chip_becomes_narrower(name, alike, filled):
    case = CASES[name]
    costs = build_chip_costs(case.network(0), load_profile(case.chip))
    channels = tuple(group.channels for group in costs.groups)

    def fits(widths):
        return not costs.place(widths)[1]

    assert not fits(channels)
    ones = (1,) * len(channels)
    assert fill_ratios(ones, channels, ones, fits) == filled
    scaled = project_ratios(ones, channels, ones, fits)
    assert all(width <= most for width, most in zip(scaled, filled, strict=True)) and scaled != filled
    assert alike is None or max(abs(a - b) for a, b in zip(scaled, alike, strict=True)) <= 1


def test_a_budget_of_cores_holds_for_the_axons_of_each_type_of_the_integers():
    """40 neurons in front of two stand once for each type of their weights: 42 neurons are more than a core of 48 holds."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(size=size).astype(np.float32)), neuron=IF(reset="subtract"))
        for name, size in (("a", (40, 6)), ("b", (2, 40)))
    ]
    graph, chip = chain(layers, input_shape=(6,)), override_facts(load_profile("truenorth"), {"core.neurons": 48})

    def deploy(network, split):
        return quantize(network, format="truenorth"), split

    integer = quantize(graph, format="truenorth")
    costs, report = build_chip_costs(graph, chip), check(integer, chip)
    assert costs.sizes((40,))["cores"] == 1 and report.verdict == "fits" and report.cores_used > 1
    words = sum(row.used for row in report.rows if row.resource == "synapse_memory")
    for cores, met in ((report.cores_used, True), (report.cores_used - 1, False)):
        budgets = Budgets(cores=Amount(value=float(cores)), memory_words=Amount(value=1e6))
        for forms in ((deploy,), (deploy_float, deploy), (deploy, deploy_float)):
            use = BudgetMonitor(graph, toy_data(), budgets, forms, costs).measure(graph)
            assert (use.values["cores"], use.met) == (report.cores_used, met) and use.values["memory_words"] >= words
    one_core = override_facts(chip, {"chip.usable_cores": 1})
    assert not build_chip_costs(graph, one_core).place((40,))[1]
    assert "cores" in {row.resource for row in build_chip_costs(integer, one_core).place((40,))[1]}


def test_a_search_places_a_plan_on_truenorth_with_the_axons_of_its_integers():
    """A core of 48 neurons has room for 40 in front of two, but not for their copies in front of each type of axon."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(size=size).astype(np.float32)), neuron=IF(reset="subtract"))
        for name, size in (("a", (40, 6)), ("b", (2, 40)))
    ]
    graph, chip = chain(layers, input_shape=(6,)), override_facts(load_profile("truenorth"), {"core.neurons": 48})
    evaluator = Evaluator(graph, toy_data(), chip=build_chip_costs(graph, chip))
    cores = []
    for width in (40, 20, 4):
        report = check(prune_channels(graph, evaluator.plan((width,))), chip, remedies=False)
        assert evaluator.place((width,))[0] == report.placement
        assert evaluator.sizes((width,))["cores"] == report.cores_used
        cores.append(report.cores_used)
    assert cores[0] > cores[-1] == 1
    one_core = override_facts(chip, {"chip.usable_cores": 1})
    limited = evaluator.with_chip(build_chip_costs(graph, one_core))
    assert [bool(limited.place((width,))[1]) for width in (40, 4)] == [
        check(prune_channels(graph, evaluator.plan((width,))), one_core, remedies=False).verdict != "fits" for width in (40, 4)
    ]


def test_shares_of_a_budget_are_those_of_what_a_check_of_the_network_says():
    """On TrueNorth 12 neurons in front of two stand in copies for the types of their integers' weights, as in a check."""
    rng, data = np.random.default_rng(0), toy_data()
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(size=size).astype(np.float32)), neuron=IF())
        for name, size in (("a", (12, 6)), ("b", (2, 12)))
    ]
    graph, chip = chain(layers, input_shape=(6,)), load_profile("truenorth")
    half = Amount(value=0.5, relative=True)
    monitor = BudgetMonitor(graph, data, Budgets(energy_j=half, memory_words=half), chip=build_chip_costs(graph, chip))
    report = check(graph, chip, activity=evaluate(graph, data.val).counts)
    assert monitor.limits["energy_j"] == pytest.approx(report.energy.total / 2)
    words = sum(row.used for row in report.rows if row.resource == "synapse_memory")
    assert monitor.limits["memory_words"] == words / 2 > 12 * 6 / 2
    assert report.work.updates.sum() > 14


def test_messages_of_a_pruned_network_are_those_of_the_zeros_of_the_channels_that_are_kept():
    """4 neurons of 4 spikes: two on one core of 2 kept readers have no weights, where the first two readers have all."""
    weight = np.ones((4, 4), np.float32)
    weight[2:, :2] = 0
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((4, 3), np.float32)), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=weight), neuron=IF()),
        Layer(name="c", synapse=Dense(weight=np.ones((2, 4), np.float32)), neuron=IF()),
    ]
    prices = {"core.neurons": 2, "energy.synop_pj": 0.0, "energy.neuron_active_pj": 0.0, "energy.packet_pj": 1e12}
    chip = override_facts(load_profile("catalyst_n1"), {**prices, "energy.static_w_per_chip": 0.0, "timing.step_s": 1e-3})
    graph = chain(layers, input_shape=(3,))
    costs, kept = build_chip_costs(graph, chip), prune_channels(graph, PruningPlan(kept={"b": (2, 3)}))
    counts = SpikeCounts(
        sent={"input": np.zeros(3), "a": np.full(4, 4.0), "b": np.zeros(2), "c": np.zeros(2)}, steps=1, samples=1
    )
    widths = tuple(2 if group.name == "b" else group.channels for group in costs.groups)
    exact = build_chip_costs(kept, chip)
    expected = exact.activity(kept, tuple(group.channels for group in exact.groups), counts)
    assert costs.activity(kept, widths, counts) == expected and expected["energy_j"] == 2 * 4


def test_cores_memory_and_limits_of_a_plan_are_those_of_the_zeros_of_the_channels_that_are_kept():
    """Of 8 channels the last 4, of weights 9, are kept. They read 2 inputs, the first 4 all six: 16 words, not 32."""
    first = np.ones((8, 6), np.float32)
    first[4:] = [9, 9, 0, 0, 0, 0]
    layers = [
        Layer(name="a", synapse=Dense(weight=first), neuron=IF(v_threshold=4.0)),
        Layer(name="b", synapse=Dense(weight=np.ones((2, 8), np.float32)), neuron=IF()),
    ]
    graph, data = chain(layers, input_shape=(6,)), toy_data()
    for name, facts, words, over in (
        ("xylo_audio3", {"connectivity.fan_in": 4}, 4 * 2 + 4 * 2, set()),
        ("truenorth", {"core.axons_in": 3, "core.neurons": 4}, 4 * 2 + 4 * 2, {"axons_in"}),
    ):
        costs = build_chip_costs(graph, override_facts(load_profile(name), facts))
        evaluator = Evaluator(graph, data, chip=costs)
        kept = prune_channels(graph, evaluator.plan((4,)))
        assert kept["a"].synapse.weight.max(axis=1).tolist() == [9] * 4
        exact = build_chip_costs(kept, costs.profile)
        rows = {row.resource for row in evaluator.place((4,))[1]}
        assert evaluator.sizes((4,)) == {"parameters": 32.0, **exact.sizes((4,))} and exact.sizes((4,))["memory_words"] == words
        assert rows == {row.resource for row in exact.place((4,))[1]} == over
        problem = Problem(evaluator, {}, default_settings("evolution"), seed=0, fit=True)
        assert problem._rows_over((4,)) == evaluator.place((4,))[1]
        assert costs.sizes((4,))["memory_words"] == 4 * 6 + 4 * 2 and costs.place((4,), kept)[1] == exact.place((4,))[1]
    other = evaluator.with_chip(build_chip_costs(graph, override_facts(load_profile("truenorth"), {"core.axons_in": 4})))
    assert not other.place((4,))[1] and other.place((4,)) is other.place((4,))


def test_pruning_for_a_chip_fills_it_unless_widths_are_uniform():
    assert default_settings("evolution").fills and default_settings("recipe").fills and not default_settings("uniform").fills
    data = toy_data()
    graph = train(toy_network(hidden=16), data, recipe=quick(8))
    evaluator = Evaluator(graph, data)
    for method in ("evolution", "uniform"):
        problem = Problem(evaluator, {"parameters": 250.0}, default_settings(method))
        narrow = tuple(0.3 if index else 1.0 for index in range(len(evaluator.groups)))
        widths, _ = problem.scale_into_budget(narrow)
        wider = [tuple(w + (n == i) for n, w in enumerate(widths)) for i in range(len(widths))]
        can_grow = [wide[i] <= evaluator.channels[i] and problem._fits(wide, 1.0) for i, wide in enumerate(wider)]
        assert not any(can_grow) or method == "uniform"


@pytest.mark.parametrize("name", CASES)
def test_the_networks_of_the_benchmark_do_not_fit_and_others_of_their_kind_do(name):
    case = CASES[name]
    graph, chip = case.network(0), load_profile(case.chip)
    report = check(graph, chip)
    assert report.verdict == "does_not_fit" and not report.unsupported
    costs = build_chip_costs(graph, chip)
    assert not costs.place((1,) * len(costs.groups))[1]
    data = case.data(0)
    data.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))


def test_the_table_says_how_often_each_method_fits():
    row = {"task": "xylo", "chip": "xylo_audio2", "seed": 0, "why": "targets", "epochs": 1, "seconds": 1.0}
    good = {
        **row, "fits": True, "accuracy": {"dense": 0.9, "quantised": 0.8}, "batches": {"all": 7}, "widths": {"fc1": [8, 4]},
    }  # fmt: skip
    rows = [{**good, "method": "default"}, {**row, "method": "uniform", "fits": False, "error": "no"}]
    text = write_tables(rows)
    assert "| xylo, xylo_audio2 | targets | 0 | 90.0 | 80.0 (7) | does not fit | 8→4 |  |" in text
    assert (
        "`default` makes 1 of 1 fit." in text
        and "`uniform` makes 0 of 1 fit." in text
        and list(METHODS) == ["default", "uniform"]
    )


def busiest_core(graph, profile, data):
    """Return mean events of a step on the busiest core, floating point and integers, by the check."""
    inputs = check_inputs(graph, profile, data)
    integer, split = inputs.deploy_integers(graph, data.test)
    runs = ((graph, evaluate(graph, data.test)), (integer, evaluate(integer, split)))
    reports = [check(network, profile, activity=run.counts) for network, run in runs]
    return max(row.used for report in reports for row in report.rows if row.resource == "events")


@pytest.fixture(scope="module")
def busy():
    """A trained network with twice the events in a step that its chip can do, the chip, and data."""
    data = toy_data()
    graph = train(toy_network(hidden=16), data, recipe=quick(12))
    events = busiest_core(graph, load_profile("spinnaker1"), data)
    return graph, override_facts(load_profile("spinnaker1"), {"timing.events_per_core_and_step": int(events / 2)}), data


def test_a_network_that_overloads_a_step_is_pruned_until_the_busiest_core_is_done_in_time(busy, tmp_path):
    graph, profile, data = busy
    limit = profile.timing.events_per_core_and_step.max_value
    assert busiest_core(graph, profile, data) > limit
    facts = prune(graph, profile, data, out=tmp_path / "fit", method="uniform", epochs=4)
    assert set(facts["budgets"]) == {"step_load"} and facts["budgets"]["step_load"]["met"]
    assert busiest_core(read_snn(tmp_path / "fit" / "pruned.snn"), profile, data) <= limit
    assert facts["verdict"] != "does_not_fit"
    idle = override_facts(profile, {"timing.events_per_core_and_step": 1000 * limit})
    assert prune(graph, idle, data, out=tmp_path / "idle")["budgets"] == {}


def test_a_step_load_is_a_budget_of_its_own(busy, tmp_path):
    graph, profile, data = busy
    limit = profile.timing.events_per_core_and_step.max_value
    prune(graph, profile, data, out=tmp_path / "half", step_load=1.5, method="uniform", epochs=4)
    assert busiest_core(read_snn(tmp_path / "half" / "pruned.snn"), profile, data) <= 1.5 * limit
    with pytest.raises(BudgetError, match="step load budget 0.001 of a step is below .* of a step, what this network costs with"):
        prune(graph, profile, data, out=tmp_path / "none", step_load=0.001, method="uniform", epochs=4)
    with pytest.raises(BudgetError, match="step load budget: this chip has no limit of the work in a step; give a latency"):
        prune(graph, "loihi2", data, out=tmp_path / "unknown", step_load="50%", method="uniform", epochs=4)
    with pytest.raises(
        BudgetError,
        match="step load budget 'full': expected a number of parts of a step or a share such as 50%; give one of them",
    ):
        PruneSettings(step_load="full")
