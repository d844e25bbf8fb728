"""Attribution of the difference between a trained network and its integers, stage by stage."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.lava.schedule import schedule_on_chip
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Layer, LoihiLIF, UnroundedLIF
from spear_deploy.network.classes import count_classes, state_decision
from spear_deploy.network.delayed_reset import delay_resets, reset_in_same_step
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.quantize.explain.attribution import explain
from spear_deploy.quantize.explain.findings import find_changed_rules, find_in_run
from spear_deploy.quantize.explain.first_difference import (
    FirstDifference,
    RecordedRun,
    find_first_difference,
    measure_membrane,
    spike_distance,
    van_rossum,
)
from spear_deploy.quantize.explain.partial_networks import substitute_stored_numbers
from spear_deploy.quantize.explain.stages import build_stages
from spear_deploy.quantize.integer_layers import MAX_SPIKES, RESET_DELAY
from spear_deploy.quantize.xylo import EARLY_STEPS
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds

LOIHI = [
    "trained", "arithmetic", "batch_norm", "average_pool", "scale", "input", "weights", "decays", "thresholds", "biases",
    "truncation", "state_bits",
]  # fmt: skip


def mixed(seed):
    """Real weights, every kind of neuron, per-channel parameters, both resets, levels off 0, a loop with delay, a pool."""
    rng = np.random.default_rng(seed)

    def spread(low, high, *shape):
        return rng.uniform(low, high, shape)

    def weight(*shape):
        return rng.normal(0.1, 0.6, shape) / np.sqrt(shape[1])

    def neuron(shape=()):
        kind = int(rng.integers(3))
        reset = ("value", "subtract")[int(rng.integers(2))]
        levels = {"v_threshold": spread(0.4, 0.9, *shape), "v_reset": rng.choice([0.0, -0.2]), "reset": reset}
        if kind == 0:
            return IF(r=spread(0.7, 1.3, *shape), **levels)
        levels["v_leak"] = rng.choice([0.0, 0.1])
        if kind == 1:
            return LIF(tau_s=spread(0.002, 0.009, *shape), r=2.0, **levels)
        return CubaLIF(tau_mem_s=spread(0.002, 0.02, *shape), tau_syn_s=0.004, w_in=4.0, **levels)

    readout = LI(tau_s=0.004) if rng.random() < 0.5 else CubaLI(tau_mem_s=0.008, tau_syn_s=0.002, v_leak=0.3)
    layers = [
        Layer(name="currents", synapse=Conv2d(weight=weight(3, 2, 3, 3) * 1.5, bias=spread(-0.1, 0.1, 3), padding=1)),
        Layer(name="smooth", synapse=AvgPool(kernel_size=(2, 2), stride=(1, 1))),
        Layer(name="conv", neuron=neuron((3, 1, 1))),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="fc", synapse=Dense(weight=weight(8, 12) * 2, bias=spread(-0.1, 0.1, 8))),
        Layer(name="loop", synapse=Dense(weight=weight(8, 8))),
        Layer(name="hidden", neuron=neuron((8,))),
        Layer(name="out", synapse=Dense(weight=weight(4, 8)), neuron=readout),
    ]
    pairs = [
        ("input", "currents"),
        ("currents", "smooth"),
        ("smooth", "conv"),
        ("conv", "pool"),
        ("pool", "fc"),
        ("fc", "hidden"),
    ]
    pairs += [("loop", "hidden"), ("hidden", "out")]
    edges = [Edge(source=s, target=t) for s, t in pairs] + [Edge(source="hidden", target="loop", delay=2)]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2, 6, 6), output="out")


def runs_of(graph, x, kind="spikes"):
    integer = quantize(graph, calibration=x, kind=kind)
    made = build_stages(graph, integer, x, kind)
    return integer, made, [simulate(s.graph, s.x, kind=kind, record=("spikes", "v"), dtype=s.dtype) for s in made]


def dense(weight, neuron, name="fc"):
    return Layer(name=name, synapse=Dense(weight=np.asarray(weight, float)), neuron=neuron)


def same(a, b):
    return all(np.array_equal(a.spikes[name], b.spikes[name]) for name in a.spikes)


# ------------------------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("seed", seeds(6, 12))
def test_the_unrounded_neuron_that_truncates_equals_the_integer_neuron(seed):
    graph = random_graph(seed, kind="integer")
    x = random_spikes(graph, seed, steps=20, batch=3)

    def real(layer):
        n = layer.neuron
        if n is None:
            return layer
        neuron = UnroundedLIF(
            decay_u=n.decay_u.astype(float),
            decay_v=n.decay_v.astype(float),
            v_threshold=None if n.v_threshold is None else n.v_threshold.astype(float),
            bias=n.bias.astype(float),
            v_init=n.v_init.astype(float),
            reset=n.reset,
            truncates=True,
        )
        return replace(layer, neuron=neuron)

    wanted = simulate(graph, x, record=("spikes", "v", "u"))
    run = simulate(graph.with_layers(real), x, record=("spikes", "v", "u"), dtype=np.float64)
    assert not wanted.overflows and any(spikes.any() for spikes in wanted.spikes.values())
    for what in ("spikes", "v", "u"):
        for name, value in getattr(wanted, what).items():
            np.testing.assert_array_equal(getattr(run, what)[name], value, err_msg=f"{what} of {name}")


def test_without_truncation_the_unrounded_neuron_keeps_fractions():
    layers = [
        Layer(name="n", synapse=Dense(weight=np.ones((1, 1))), neuron=UnroundedLIF(decay_u=1365.0, decay_v=0.0, v_threshold=None))
    ]
    x = np.array([1, 0, 0]).reshape(3, 1, 1)
    run = simulate(chain(layers, input_shape=(1,)), x, record=("u",), dtype=np.float64)
    np.testing.assert_allclose(run.u["n"].ravel(), 64 * (2731 / 4096) ** np.arange(3), rtol=1e-15)


@pytest.mark.parametrize("seed", seeds(6, 10))
def test_exact_stages_change_no_spike_and_the_last_stage_is_the_integer_network(seed):
    graph = mixed(seed)
    x = random_spikes(graph, seed, steps=40, batch=4)
    integer, made, runs = runs_of(graph, x)
    assert [step.name for step in made] == LOIHI
    assert made[-1].graph is integer and made[0].graph is graph
    by_name = dict(zip(LOIHI, runs, strict=True))
    assert all(0 < rate < 1 for rate in runs[0].counts.rates().values())
    for earlier, later in (("arithmetic", "batch_norm"), ("batch_norm", "average_pool"), ("average_pool", "scale")):
        assert same(by_name[earlier], by_name[later]), later
    assert integer.is_integer and not runs[-1].overflows
    assert not same(by_name["biases"], by_name["weights"])
    for layer in integer.layers:  # nothing overflowed: the states of the last two are equal too
        if layer.neuron is not None:
            np.testing.assert_array_equal(by_name["truncation"].v[layer.name], by_name["state_bits"].v[layer.name])
    for step, run, before in zip(made[1:], runs[1:], runs[:-1], strict=True):
        assert step.changed or same(run, before), step.name
    assert not same(runs[0], runs[-1])


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_an_analogue_input_changes_in_a_separate_stage(seed):
    graph = mixed(seed)
    x = np.random.default_rng(seed).random((30, 3, 2, 6, 6))
    _, made, runs = runs_of(graph, x, "current")
    by_name = dict(zip(LOIHI, runs, strict=True))
    assert same(by_name["arithmetic"], by_name["scale"])
    assert {step.name: step.changed for step in made}["input"] and "shifted down" in made[-1].what
    assert made[5].x.dtype == np.int64
    explanation = explain(graph, quantize(graph, calibration=x, kind="current"), x, kind="current")
    step = next(cost for cost in explanation.costs if cost.step == "input")
    assert step.first["conv"].upstream == ("input",) and "what 'input' sent had changed" in step.first["conv"].why


@pytest.mark.parametrize("seed", range(6))
def test_weights_on_the_format_grid_change_only_at_truncation(seed):
    graph = random_graph(seed)
    x = random_spikes(graph, seed, steps=20, batch=3)
    _, _, runs = runs_of(graph, x)
    by_name = dict(zip(LOIHI, runs, strict=True))
    assert same(by_name["arithmetic"], by_name["scale"])  # ties at the threshold stay ties in the chip's units
    assert same(by_name["truncation"], by_name["state_bits"])


EVENTS = ["trained", "arithmetic", "batch_norm", "weights", "input", "thresholds", "biases", "decays", "integers"]


def speck_network(rng):
    conv = Conv2d(weight=rng.normal(size=(3, 1, 3, 3)) / 2, bias=rng.normal(size=3) / 9)
    return chain(
        [
            Layer(name="conv", synapse=conv, neuron=IF(reset="subtract", r=1.3, v_threshold=0.9)),
            Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="fc", synapse=Dense(weight=rng.normal(size=(4, 12))), neuron=IF(reset="subtract")),
        ],
        input_shape=(1, 6, 6),
    )


def xylo_network(rng):
    neuron = CubaLIF(tau_mem_s=rng.uniform(0.003, 0.02, 8), tau_syn_s=0.005, w_in=5.0, v_leak=0.05, reset="subtract", r=1.5)
    return chain(
        [
            Layer(name="fc", synapse=Dense(weight=rng.normal(size=(8, 5)) / 2, bias=rng.normal(size=8) / 20), neuron=neuron),
            Layer(name="hidden", synapse=Dense(weight=rng.normal(size=(6, 8))), neuron=LIF(tau_s=0.004, reset="subtract")),
            Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 6))), neuron=LI(tau_s=0.006)),
        ],
        input_shape=(5,),
    )


@pytest.mark.parametrize(("chip", "network"), [("speck", speck_network), ("xylo", xylo_network)])
@pytest.mark.parametrize("kind", ["spikes", "current"])
def test_speck_and_xylo_stages_store_one_kind_of_number_at_a_time(chip, network, kind):
    rng = np.random.default_rng(5)
    graph = network(rng)
    x = random_spikes(graph, 0, steps=25, batch=6)
    x = x if kind == "spikes" else np.abs(x * rng.random(x.shape))
    integer = quantize(graph, format=chip, calibration=x, kind=kind)
    explanation = explain(graph, integer, x, kind=kind)
    assert [cost.step for cost in explanation.costs] == EVENTS
    assert explanation.costs[-1].layers["fc"].spikes[1] == int(
        simulate(integer, build_stages(graph, integer, x, kind)[-1].x).counts.sent["fc"].sum()
    )
    changed = {step.name: step.changed for step in build_stages(graph, integer, x, kind)}
    assert changed["weights"] and changed["thresholds"] and changed["input"] == (kind == "current")
    assert changed["decays"] == (chip == "xylo") and changed["biases"]
    assert not explanation.rounding


@pytest.mark.parametrize(("chip", "stages"), [("loihi", LOIHI), ("xylo", EVENTS)])
def test_a_reset_that_moves_to_the_step_of_the_spike_is_a_stage_and_a_finding(chip, stages):
    """Its cost is the difference of the trained network's spikes from those with the chip's reset, and nothing else is in it."""
    rng = np.random.default_rng(7)
    graph = xylo_network(rng).with_layers(
        lambda layer: replace(layer, synapse=Dense(weight=np.abs(layer.synapse.weight) * 1.5, bias=layer.synapse.bias))
    )
    graph = delay_resets(graph, {"fc", "hidden"})
    x = random_spikes(graph, 0, steps=25, batch=6)
    integer = quantize(graph, format=chip, calibration=x)
    assert quantize(reset_in_same_step(graph), format=chip).layers == quantize(graph, format=chip).layers
    explanation = explain(graph, integer, x)
    place = stages.index("batch_norm") + 1
    assert [cost.step for cost in explanation.costs] == [*stages[:place], "reset", *stages[place:]]
    cost = explanation.costs[place]
    runs = [simulate(net, x, record=("spikes",), dtype=np.float64).spikes for net in (graph, reset_in_same_step(graph))]
    for name in ("fc", "hidden"):
        assert cost.layers[name] == spike_distance(*(run[name] for run in runs)) and cost.layers[name].differ > 0
    first = cost.first["fc"]
    assert (
        first.upstream == () and (first.margin_before > 0) == bool(first.before) and (first.margin_after > 0) == bool(first.after)
    )
    moved = [finding for finding in explanation.findings if finding.code == "reset_moved"]
    assert [finding.layer for finding in moved] == ["fc", "hidden"] and "reset_delay=False" in moved[0].text
    assert not list(find_changed_rules(quantize(reset_in_same_step(graph), format=chip)))


@pytest.mark.parametrize(("chip", "network", "name"), [("speck", speck_network, "conv"), ("xylo", xylo_network, "fc")])
@pytest.mark.parametrize("seed", range(4))
def test_stored_numbers_in_floats_differ_from_the_chip_by_its_rounding_only(chip, network, name, seed):
    graph = network(np.random.default_rng(seed))
    if chip == "xylo":  # the chip starts at 0, not at the leak, and adds a bias to the potential, not to the current
        bare = replace(graph[name].synapse, bias=None)
        graph = graph.with_layers({name: replace(graph[name], synapse=bare, neuron=replace(graph[name].neuron, v_leak=0.0))})
    integer = quantize(graph, format=chip)
    x = random_spikes(graph, seed, steps=1, batch=8)
    stored = substitute_stored_numbers(graph, integer, "spikes", thresholds=True, biases=True, decays=True)
    ours = simulate(stored, x, record=("v", "spikes"), dtype=np.float64)
    theirs = simulate(integer, x, record=("v", "spikes"))
    silent = (ours.spikes[name] == 0) & (theirs.spikes[name] == 0)
    scaled = ours.v[name] * integer.metadata["quantization"]["scale"][name]
    if chip == "speck":  # what lies below the chip's lower bound is held there
        scaled = np.maximum(scaled, integer[name].neuron.v_min)
    off = np.abs(scaled - theirs.v[name])[silent]
    assert silent.mean() > 0.3 and np.abs(theirs.v[name][silent]).max() > 20
    assert off.max() <= (1e-6 if chip == "speck" else 1.0)


def test_a_speck_layer_with_thresholds_by_channel_is_one_stage():
    rng = np.random.default_rng(0)
    neuron = IF(reset="subtract", v_threshold=rng.uniform(0.5, 1.0, (3, 1, 1)))
    layer = Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 1, 3, 3)) / 2), neuron=neuron)
    graph = chain([layer], input_shape=(1, 6, 6))
    x = random_spikes(graph, 0, steps=12, batch=5)
    assert [s.name for s in build_stages(graph, quantize(graph, format="speck", calibration=x), x)] == [*EVENTS[:3], "integers"]


# --------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("seed", [1, 2])
def test_accuracy_changes_of_the_stages_add_up_to_the_whole_difference(seed):
    graph = mixed(seed)
    x = random_spikes(graph, seed, steps=30, batch=20)
    labels = np.random.default_rng(seed).integers(0, 4, 20)
    integer = quantize(graph, calibration=x)
    explanation = explain(graph, integer, x, labels=labels)
    trained, chip = simulate(graph, x, record=("spikes",)), simulate(integer, x, record=("spikes",))
    accuracies = [float(np.mean(decide(run.output) == labels)) for run in (trained, chip)]
    assert explanation.costs[0].accuracy == accuracies[0] and explanation.costs[-1].accuracy == accuracies[1]
    assert sum(cost.accuracy_change for cost in explanation.costs) == pytest.approx(accuracies[1] - accuracies[0])
    assert explanation.costs[-1].agreement == float(np.mean(decide(trained.output) == decide(chip.output)))
    for name in trained.spikes:
        whole = explanation.costs[-1].since_start[name]
        assert whole.differ == np.count_nonzero(trained.spikes[name] != chip.spikes[name]) > 0
        assert whole.differ <= sum(cost.layers[name].differ for cost in explanation.costs)
        changes = sum(cost.layers[name].spikes[1] - cost.layers[name].spikes[0] for cost in explanation.costs)
        assert changes == chip.spikes[name].sum() - trained.spikes[name].sum()
    assert {"order", "steps", "numbers", "alignment"} <= set(explanation.to_json())
    assert explanation.rounding["hidden"].scale == pytest.approx(integer.metadata["quantization"]["scale"]["hidden"])


def test_without_labels_there_is_no_accuracy():
    graph = random_graph(5)
    x = random_spikes(graph, 5, batch=3)
    explanation = explain(graph, quantize(graph), x)
    assert explanation.costs[-1].accuracy is None and explanation.costs[-1].accuracy_change is None
    assert 0 <= explanation.costs[-1].agreement <= 1


def test_integer_networks_and_wrong_labels_are_refused():
    graph = random_graph(5)
    x = random_spikes(graph, 5, batch=3)
    with pytest.raises(UnsupportedError, match="is quantised already; give the floating-point network"):
        explain(quantize(graph), quantize(graph), x)
    with pytest.raises(DataError, match="2 labels for 3 samples; give one label a sample"):
        explain(graph, quantize(graph), x, labels=np.zeros(2, int))
    last = count_classes(graph) - 1
    with pytest.raises(DataError, match=rf"labels go up to {last + 1}, the network has outputs 0..{last}; check the labels"):
        explain(graph, quantize(graph), x, labels=np.array([0, last + 1, 0]))
    assert explain(graph, quantize(graph), x, labels=np.array([0, last, 0])).costs[-1].accuracy is not None
    each, steps = state_decision(graph, "each"), np.zeros((3, len(x)), int)
    with pytest.raises(DataError, match="the input: has a label at each step, and the network decides once a sample"):
        explain(graph, quantize(graph), x, labels=steps)
    with pytest.raises(DataError, match="the input: has one label a sample, and the network decides in each step"):
        explain(each, quantize(each), x, labels=np.zeros(3, int))
    with pytest.raises(DataError, match=rf"the input: labels have shape \(3, {len(x) + 1}\), expected \(N,\)"):
        explain(each, quantize(each), x, labels=np.zeros((3, len(x) + 1), int))
    with pytest.raises(DataError, match="the input: sample 0 has no label at any step; leave it out"):
        explain(each, quantize(each), x, labels=steps - 1)
    assert explain(each, quantize(each), x, labels=steps).costs[-1].accuracy is not None


def test_a_skip_gets_extra_delay_and_the_output_is_later_by_the_depth():
    graph = SNNGraph(
        layers=(dense(np.eye(2), IF(), "a"), dense(np.eye(2), IF(), "b"), dense(np.eye(2), IF(), "c")),
        edges=tuple(Edge(source=s, target=t) for s, t in (("input", "a"), ("a", "b"), ("b", "c"), ("a", "c"))),
        input_shape=(2,),
    )
    assert schedule_on_chip(quantize(graph)) == {"later_steps": 3, "delays": {"a -> c": 1}, "problem": None}
    schedule = schedule_on_chip(quantize(mixed(0)))
    assert schedule == {"later_steps": 3, "delays": {"hidden -> hidden": 1}, "problem": None}
    loop = replace(graph, edges=(*graph.edges, Edge(source="c", target="a", delay=1)))
    schedule = schedule_on_chip(quantize(loop))
    assert schedule["later_steps"] is None and "closes a cycle with fewer steps of delay" in schedule["problem"]


# ------------------------------------------------------------------------------------------------------------ distance


@pytest.mark.parametrize("seed", range(4))
def test_van_rossum_equals_the_sum_over_a_long_smoothed_trace(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((15, 2, 3)) < 0.3, rng.random((15, 2, 3)) < 0.3
    q = np.exp(-1 / 4)
    total = 0.0
    for neuron in np.ndindex(2, 3):
        trace = np.zeros(600)
        for t in range(600):
            trace[t] = (q * trace[t - 1] if t else 0) + (float(a[t][neuron]) - float(b[t][neuron]) if t < 15 else 0)
        total += float((1 - q**2) * (trace**2).sum())
    assert van_rossum(a, b, 4.0) == pytest.approx(total)
    assert van_rossum(a, a) == 0 and van_rossum(a, b) == pytest.approx(van_rossum(b, a))


def test_spike_distance_counts_the_spikes_that_differ():
    a = np.zeros((4, 1, 2), bool)
    b = a.copy()
    b[1, 0, 1] = True
    distance = spike_distance(a, b)
    assert (distance.differ, distance.share, distance.spikes) == (1, 1 / 8, (0, 1)) and distance.van_rossum == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------- first difference


@pytest.mark.parametrize("seed", range(6))
def test_margins_have_the_sign_of_the_spike_change_and_changed_sources_are_named(seed):
    graph = mixed(seed)
    x = random_spikes(graph, seed, steps=40, batch=4)
    explanation = explain(graph, quantize(graph, calibration=x), x)
    firsts = [(cost, first) for cost in explanation.costs for first in cost.first.values()]
    assert firsts
    for cost, first in firsts:
        assert first.before != first.after
        if cost.step != "arithmetic":  # float32 sums of one sample may round otherwise than those of a batch
            assert (first.margin_before > 0, first.margin_after > 0) == (bool(first.before), bool(first.after)), first.why
        assert set(first.upstream) <= ({"conv", "hidden"} if first.layer == "hidden" else set())
        assert f"layer '{first.layer}'" in first.why and "v − threshold" in first.why
    weights = next(cost for cost in explanation.costs if cost.step == "weights")
    assert weights.first["conv"].upstream == ()


def test_the_margin_of_a_worked_example():
    """v: 0.6, then 1.2 > 1 in the trained network; a weight of 0.5 gives 1.0, which does not exceed 1."""

    def recorded(weight):
        graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[weight]])), neuron=IF())], input_shape=(1,))
        x = np.ones((3, 2, 1), bool)
        run = simulate(graph, x, record=("spikes",), dtype=np.float64)
        return RecordedRun(graph=graph, x=x, kind="spikes", dtype=np.float64, spikes=run.spikes, units={})

    first = find_first_difference("n", recorded(0.6), recorded(0.5))
    assert (first.step, first.sample, first.neuron, first.before, first.after) == (1, 0, (0,), 1, 0)
    assert first.margin_before == pytest.approx(0.2) and first.margin_after == 0
    assert first.why == (
        "layer 'n', neuron 0, sample 0, step 1 spikes no more: v − threshold is +0 (threshold 1), was +0.2 (1); "
        "what reached it was the same"
    )
    assert find_first_difference("n", recorded(0.6), recorded(0.6)) is None


def test_margins_have_as_many_digits_as_tell_them_apart():
    """Several spikes in a step: v of 2.0000001 above the threshold of 1 is two thresholds, 1.9999999 one."""
    known = {
        "layer": "n",
        "step": 1,
        "sample": 0,
        "neuron": (0,),
        "upstream": (),
        "threshold_before": 1.0,
        "threshold_after": 1.0,
    }
    first = FirstDifference(**known, before=2, after=1, margin_before=1.0, margin_after=0.9999999)
    assert first.why == (
        "layer 'n', neuron 0, sample 0, step 1 sends 1 spike instead of 2: v − threshold is +0.9999999 (threshold 1), was +1 "
        "(1); what reached it was the same"
    )


def test_a_neuron_with_refractory_time_has_no_margin():
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1, refractory_steps=2)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[2]])), neuron=neuron)], input_shape=(1,))
    run = RecordedRun(graph=graph, x=np.ones((3, 1, 1), bool), kind="spikes", dtype=np.float64, spikes={}, units={})
    assert measure_membrane(run, "n", 1, 0, (0,)) is None


# ------------------------------------------------------------------------------------------------------------- findings


def codes(findings):
    return {(finding.code, finding.layer): finding for finding in findings}


def test_silent_dead_and_busy_layers_are_findings():
    layers = [
        dense([[1.0], [1.0], [0.0], [0.0], [0.0]], IF(v_threshold=0.5), "mostly"),
        dense(np.ones((2, 5)), IF(v_threshold=0.5), "busy"),
        dense(np.ones((3, 2)), IF(v_threshold=1e6), "silent"),
    ]
    graph = chain(layers, input_shape=(1,))
    run = simulate(graph, np.ones((20, 2, 1), bool))
    findings = codes(find_in_run(graph, run))
    assert set(findings) == {("dead_neurons", "mostly"), ("busy_layer", "busy"), ("silent_layer", "silent")}
    assert findings["dead_neurons", "mostly"].value == 0.6
    assert "3 of 5 neurons (60%) never spike in 2 samples of 20 steps" in findings["dead_neurons", "mostly"].text
    assert "not one spike" in findings["silent_layer", "silent"].text


def test_states_that_overflow_are_findings():
    neuron = LoihiLIF(decay_u=1, decay_v=1, v_threshold=2**17 - 1)
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.array([[30000]])), neuron=neuron)], input_shape=(1,))
    run = simulate(graph, np.ones((20, 1, 1), bool))
    findings = codes(find_in_run(graph, run))
    assert findings["u_wrapped", "fc"].value == run.overflows["fc"]["u_wrapped"] > 0
    assert "train with smaller weights and biases or fewer spikes at its input, or" in findings["u_wrapped", "fc"].text
    assert "its current u wrapped around" in findings["u_wrapped", "fc"].text
    assert ("v_saturated", "fc") in findings


def test_large_rounding_errors_are_findings():
    rng = np.random.default_rng(0)
    outlier = rng.normal(0, 0.1, (20, 30))
    outlier[0, 0] = 100.0
    layers = [
        dense(outlier, LIF(tau_s=np.full(20, 20.0), r=20000.0, v_threshold=0.25), "slow"),
        dense(rng.normal(size=(3, 20)), LIF(tau_s=0.0010001), "fast"),
        dense(rng.normal(size=(2, 3)), LI(tau_s=0.002), "out"),
    ]
    graph = chain(layers, input_shape=(30,))
    x = random_spikes(graph, 0, steps=60, batch=4)
    explanation = explain(graph, quantize(graph), x)
    named = codes(explanation.findings)
    assert "rounds to 0 in 20 neurons, whose state never fades" in named["decay_lost", "slow"].text
    assert "rounds to 4096 in 3 neurons" in named["decay_lost", "fast"].text
    assert abs(named["threshold_rounded", "slow"].value) > 0.05
    assert "clip outlying weights or raise the threshold" in named["threshold_rounded", "slow"].text
    share = named["weights_zeroed", "slow"].value
    scale = explanation.rounding["slow"].scale * 20000 * 0.001 / 20
    assert share == pytest.approx(np.mean(np.abs(outlier * scale) < 1), abs=0.01)
    assert explanation.rounding["slow"].decays["decay_v"]["real"] == pytest.approx([0.2048, 0.2048])
    assert all(finding.layer in finding.text for finding in explanation.findings)


def test_a_changed_rate_a_cut_scale_and_clipped_weights_are_findings():
    graph = chain([dense([[1.0, 1.0]], IF(v_threshold=3.9)), dense([[1.0]], LI(tau_s=0.002), "out")], input_shape=(2,))
    x = np.ones((60, 1, 2), bool)
    other = quantize(graph)
    neuron = replace(other["fc"].neuron, v_threshold=other["fc"].neuron.v_threshold * 4)
    other = other.with_layers({"fc": replace(other["fc"], neuron=neuron)})
    findings = codes(explain(graph, other, x).findings)
    assert findings["rate_changed", "fc"].value < 0.5 and "in the trained network" in findings["rate_changed", "fc"].text
    strong = np.full((12, 1, 2), 400)
    cut = codes(explain(graph, quantize(graph, calibration=strong), strong).findings)
    assert cut["scale_cut", "fc"].value < 1 and "its scale was cut to" in cut["scale_cut", "fc"].text
    weight = np.array([[254, 100]])
    clipped = other.with_layers({"fc": replace(other["fc"], synapse=replace(other["fc"].synapse, weight=weight))})
    assert codes(explain(graph, clipped, x).findings)["weights_clipped", "fc"].value == 1


def test_parameters_that_the_quantization_changed_are_findings():
    graph = chain([dense([[1.0]], IF())], input_shape=(1,))
    integer = quantize(graph)
    facts = {
        **integer.metadata["quantization"],
        "findings": [{"layer": "fc", "what": "tau_mem_s", "given": 0.0051, "stored": 0.004}],
    }
    integer = replace(integer, metadata={"quantization": facts})
    reported = codes(explain(graph, integer, np.ones((4, 1, 1), bool)).findings)
    assert "layer 'fc': tau_mem_s is 0.004 on the chip, 0.0051 in the trained network" in reported["parameter_rounded", "fc"].text


def test_findings_beside_an_explanation_do_not_send_to_it_and_count_a_step_in_the_singular():
    graph = chain([dense([[1.0]], IF())], input_shape=(1,))
    integer = quantize(graph)
    names = {"reset_moved": RESET_DELAY, "fewer_spikes": MAX_SPIKES, "early_steps": EARLY_STEPS}
    changed = [{"layer": "fc", "what": what, "given": 3, "stored": 1} for what in names.values()]
    integer = replace(integer, metadata={"quantization": {**integer.metadata["quantization"], "findings": changed}})
    reported = codes(explain(graph, integer, np.ones((4, 1, 1), bool)).findings)
    assert all("--explain" not in reported[code, "fc"].text for code in names)
    assert "its bias acts for 1 step before" in reported["early_steps", "fc"].text
    assert all("see what that changes with --explain, or train" in finding.text for finding in find_changed_rules(integer))
