"""Plans for whole chips: what is replaced, what is left, which alternative comes first."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.adaptation import reach as reach_module
from spear_deploy.adaptation.learn import MORE_EPOCHS, LearnSettings, list_stages
from spear_deploy.adaptation.neurons import change_reset, convert_neuron, longest_tau_steps, round_tau, shortest_current_steps
from spear_deploy.adaptation.plan import follow, make_plans
from spear_deploy.adaptation.pools import find_pools, pool_currents
from spear_deploy.adaptation.reach import find_reach
from spear_deploy.budget.check import check
from spear_deploy.cli.app import main
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, SpeckIF, SumPool
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.simulator import simulate

DIGITS = shipped_network("digits")
TWO_CROSSBARS = override_facts(load_profile("odin"), {"chip.cores": 2, "chip.usable_cores": 2})
"""A crossbar that keeps the layers of a network: one hidden layer in place of all is offered on a single one alone."""


def rows(plan):
    return [(row["layer"], row["what"], row["kind"]) for step in plan.steps for row in step.to_rows()]


def test_nothing_is_replaced_on_a_chip_that_has_all():
    (plan,) = make_plans(DIGITS, load_profile("loihi2"))
    assert plan.steps == () and plan.graph == DIGITS and plan.lacking == []


def test_digits_on_speck():
    (plan,) = make_plans(DIGITS, load_profile("speck2f"))
    assert rows(plan) == [("conv1", "LIF", "learnt"), ("conv2", "LIF", "learnt"), ("readout", "LI", "learnt")]
    assert {type(layer.neuron) for layer in plan.graph.layers if layer.neuron} == {IF}
    assert {layer.neuron.reset for layer in plan.graph.layers if layer.neuron} == {"subtract"}
    assert plan.report.verdict == "fits"


def test_a_pool_that_akida_lacks_has_alternatives_and_each_leaves_nothing_lacking():
    plans = make_plans(DIGITS, load_profile("akd1000"))
    assert {plan.options.get("pool") for plan in plans} >= {"stride before", "stride behind"}
    assert all(plan.lacking == [] and not any(type(p.synapse).__name__ == "AvgPool" for p in plan.graph.layers) for plan in plans)


def pooled(pool, kernel: int = 5, **neuron):
    """Return a convolution, a pool and a convolution whose kernels Akida does not stride."""
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=np.full((2, 1, kernel, kernel), 0.3), padding=(2, 2)), neuron=IF(**neuron)),
        Layer(name="pool", synapse=pool(kernel_size=(2, 2))),
        Layer(name="back", synapse=Conv2d(weight=np.full((1, 2, kernel, kernel), 0.125), padding=(2, 2)), neuron=IF()),
    ]
    return chain(layers, input_shape=(1, 8, 8))


@pytest.mark.parametrize("pool", [AvgPool, SumPool])
def test_a_pool_that_nothing_else_stands_in_for_gets_neurons_that_send_the_means(pool):
    """An integrator sends as many spikes as means of one have arrived, but for what is left in it."""
    graph = pooled(pool, reset="subtract")
    best = make_plans(graph, load_profile("akd1000"))[0]
    assert best.lacking == [] and ("pool", f"{pool.__name__} of 2 x 2", "learnt") in rows(best)
    facts = {"layers.kinds": ["Dense", "Conv2d", "Flatten"], "layers.conv_kernel_max": 5, "layers.conv_strided_kernels": [2]}
    (offer,) = find_pools(graph, override_facts(load_profile("generic45nm"), facts))
    changed = offer.rewrite(graph)
    assert offer.option == "neurons of its own" and changed.shape_of("pool") == graph.shape_of("pool") and changed["pool"].spikes
    assert changed["back"].synapse.weight.max() == graph["back"].synapse.weight.max() * (4 if pool is SumPool else 1)
    x = (np.random.default_rng(0).random((40, 2, 1, 8, 8)) < 0.3).astype(np.float32)
    run = simulate(changed, x, record=("spikes",))
    sent = run.spikes["conv"].reshape(40, 2, 2, 4, 2, 4, 2).mean(axis=(4, 6)).sum(axis=0)
    passed = run.spikes["pool"].sum(axis=0)
    assert passed.any() and (passed >= np.floor(sent)).all() and (passed <= np.ceil(sent / (1 - 0.5 / 4))).all()


@pytest.mark.parametrize("neuron", [IF(), None])
def test_neurons_of_a_pool_of_its_own_and_a_pool_at_the_output_stay(neuron):
    graph = pooled(AvgPool)
    layers = [*graph.layers[:1], Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2)), neuron=neuron)]
    facts = {"layers.kinds": ["Dense", "Conv2d", "Flatten"], "layers.conv_kernel_max": 5, "layers.conv_stride_max": 1}
    chip = override_facts(load_profile("generic45nm"), facts)
    assert not [offer for offer in find_pools(chain(layers, input_shape=(1, 8, 8)), chip) if offer.option == "neurons of its own"]


@pytest.mark.slow
def test_pools_that_would_need_too_many_axons_become_means_of_currents_in_larger_kernels():
    best = make_plans(DIGITS, load_profile("truenorth"))[0]
    assert best.options == {"pool": "mean of currents"} and best.report.verdict != "does_not_fit"
    assert [best.graph[name].synapse.weight.shape[2:] for name in ("conv1", "conv2")] == [(4, 4), (4, 4)]
    assert [best.graph.shape_of(name) for name in ("conv1", "conv2")] == [(16, 4, 4), (32, 2, 2)]


@pytest.mark.parametrize("seed", range(10))
def test_a_mean_of_currents_is_the_mean_of_a_convolution_without_neurons(seed):
    rng = np.random.default_rng(seed)

    def eighths(*shape):  # no sum is rounded
        return rng.integers(-8, 9, shape) / 8

    layers = [
        Layer(name="conv", synapse=Conv2d(weight=eighths(3, 2, 3, 3), bias=eighths(3), padding=(1, 1))),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=eighths(4, 3 * 3 * 3)), neuron=LI(tau_s=0.002)),
    ]
    graph = chain(layers, input_shape=(2, 6, 6))
    moved = pool_currents(graph, "pool", profile=load_profile("generic45nm"))
    assert moved is not None and moved[1]["conv"].synapse.stride == (2, 2)
    x = (rng.random((5, 2, 2, 6, 6)) < 0.5).astype(np.float32)
    np.testing.assert_array_equal(simulate(moved[1], x).output, simulate(graph, x).output)


def test_a_sum_has_no_mean_of_currents():
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1)), neuron=IF()),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
    ]
    assert pool_currents(chain(layers, input_shape=(1, 4, 4)), "pool", profile=load_profile("generic45nm")) is None


def test_on_a_chip_that_is_too_small_strides_stand_in_for_pools_that_it_has():
    small = override_facts(load_profile("generic45nm"), {"connectivity.fan_out": 256})
    assert any(row.status == "over" for row in make_plans(DIGITS, small, learns=False)[0].report.rows)
    best = make_plans(DIGITS, small)[0]
    assert best.report.verdict != "does_not_fit" and [step.replacement.topic for step in best.steps] == ["pool", "pool"]
    assert best.graph.neurons < DIGITS.neurons


def test_without_learning_only_exact_replacements_are_made():
    plan = make_plans(DIGITS, load_profile("brainscales2"), learns=False)[0]
    assert {step.replacement.kind for step in plan.steps} == {"exact"}
    assert {type(layer.neuron) for layer in plan.graph.layers} == {CubaLIF, CubaLI}


def test_what_comes_after_learning_is_deferred():
    deferred, _ = follow(DIGITS, load_profile("brainscales2"), {}, defers=True)
    assert all(step.replacement.topic != "map" for step in deferred.steps)
    final, _ = follow(deferred.graph, load_profile("brainscales2"), {})
    assert [step.replacement.topic for step in final.steps] == ["map"]


def test_too_many_inputs_are_nothing_that_a_replacement_changes():
    small = override_facts(load_profile("xylo_audio3"), {"connectivity.input_channels": 8})
    reach = find_reach(DIGITS, small)
    assert reach is not None and not reach.within and reach.describe() == ""
    assert "input: 64 channels; xylo_audio3 has 8, so that the input has to be smaller" in reach.to_json()["missing"]
    assert find_reach(DIGITS, load_profile("xylo_audio3")).within  # sums of 2 x 2 inputs are 16


def test_a_short_time_constant_of_a_neuron_that_spikes_is_lengthened_and_that_of_a_readout_stays():
    reckon = load_profile("reckon")
    findings = [row for row in check(DIGITS, reckon, remedies=False).unsupported if row.resource == "time_constant"]
    what = "membrane time constant of 2 steps"
    assert [(row.layer, row.what) for row in findings] == [("conv1", what), ("conv2", what)]
    graph = make_plans(DIGITS, reckon)[0].graph
    assert [float(graph[name].neuron.tau_s) for name in ("conv1", "conv2", "readout")] == [0.008, 0.008, 0.002]


def test_learning_has_a_stage_for_each_kind_of_loss_and_the_exact_ones_come_with_the_last():
    stages = list_stages(make_plans(DIGITS, TWO_CROSSBARS)[0])
    assert [stage[-1] for stage in stages] == ["pool", "readout", "bias", "palette"]
    assert all(set(before) < set(after) for before, after in pairwise(stages))
    (only,) = list_stages(make_plans(DIGITS, load_profile("speck2f"))[0])
    assert {"pool", "neuron", "sign"} <= set(only)


def test_of_a_network_far_too_large_the_first_plan_stands_for_all():
    weight = np.random.default_rng(0).standard_normal((4352, 64)).astype(np.float32)
    net = chain(
        [Layer(name="fc", synapse=Dense(weight=weight), neuron=CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01))], input_shape=(64,)
    )
    odin, loihi1 = load_profile("odin"), load_profile("loihi1")
    far = check(net, odin, remedies=False)
    assert max(row.share for row in far.over) > reach_module.FAR
    assert find_reach(net, odin, report=far).to_json()["replaced"] == [
        row for step in follow(net, odin, {})[0].steps for row in step.to_rows()
    ]
    assert find_reach(net, loihi1, report=far) is None  # nothing to replace


def test_reach_counts_kinds_and_cost():
    reach = find_reach(DIGITS, load_profile("speck2f"))
    assert reach is not None and reach.describe() == "within reach: adapt (3 to learn)" and reach.neurons == 30
    assert reach.to_json()["cores_used"] == 3
    assert find_reach(DIGITS, load_profile("loihi2")) is None


def test_a_plan_that_fails_leaves_the_verdicts(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    chips = ["speck2f", "xylo_audio2"]
    before = [sd.check("digits", "speck2f").verdict, *sorted(entry.verdict for entry in sd.rank("digits", chips))]
    monkeypatch.setattr(reach_module, "make_plans", fail)
    after = sd.rank("digits", chips)
    assert [sd.check("digits", "speck2f").verdict, *sorted(entry.verdict for entry in after)] == before
    assert [entry.reach for entry in after] == ["", ""]


def test_an_integer_network_has_no_plan():
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((2, 3), np.int64)), neuron=SpeckIF(v_threshold=3))
    with pytest.raises(UnsupportedError, match="a quantised network is of one chip already; give the floating-point network"):
        make_plans(chain([layer], input_shape=(3,)), load_profile("speck2f"))


def test_a_matrix_beyond_all_cores_is_not_written_out(monkeypatch):
    monkeypatch.setattr("spear_deploy.adaptation.unroll.MAX_WEIGHTS", 1000)
    plan = make_plans(DIGITS, load_profile("brainscales2"), learns=False)[0]
    assert any("Conv2d" in sentence for sentence in plan.lacking)


# ------------------------------------------------------------------------------------------------------------ neurons


def test_an_integrator_as_a_leaky_neuron_of_the_longest_time_constant_is_bounded():
    chip = override_facts(load_profile("generic45nm"), {"neuron.models": "[LIF, LI]", "neuron.tau_max_steps": 1024})
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF(r=0.5))], input_shape=(3,))
    (plan,) = make_plans(graph, chip)
    row = plan.steps[0].to_rows()[0]
    assert (row["kind"], row["bound"]) == ("bounded", "v loses at most 1/1024 of itself a step")
    neuron = plan.graph["fc"].neuron
    assert isinstance(neuron, LIF) and float(neuron.tau_s) == 1.024 and float(neuron.r) == 512  # adds 0.5 an input


def test_an_input_adds_as_much_to_an_integrator_as_to_the_leaky_neuron_before():
    speck = load_profile("speck2f")
    lif = convert_neuron(LIF(tau_s=0.004, r=2.0), model=IF, dt_s=1e-3, profile=speck)
    assert float(lif.r) == 0.5 and lif.reset == "subtract"
    cuba = convert_neuron(CubaLIF(tau_mem_s=0.004, tau_syn_s=0.002, w_in=3.0), model=IF, dt_s=1e-3, profile=speck)
    assert float(cuba.r) == 0.75


def test_time_constants_become_powers_of_two_above_one_step():
    xylo = load_profile("xylo_audio3")
    steps = round_tau(np.array([0.0005, 0.001, 0.0029, 0.006, 1e9]), 1e-3, xylo) / 1e-3
    np.testing.assert_allclose(steps, [2, 2, 4, 8, 32768])
    assert shortest_current_steps(xylo) == 2 and longest_tau_steps(xylo) == 32768
    assert round_tau(np.array(0.0123), 1e-3, load_profile("loihi2")) == 0.0123


def test_resets_exchange_and_keep_where_potentials_are_measured_from():
    neuron = LIF(tau_s=0.01, v_threshold=2.0, v_reset=0.5, v_leak=1.0)
    subtracting = change_reset(neuron, "subtract")
    assert (float(subtracting.v_threshold), float(subtracting.v_leak), float(subtracting.v_reset)) == (1.5, 0.5, 0.0)
    late = LIF(tau_s=0.01, reset="subtract", reset_delay=1)
    assert change_reset(late, "subtract").reset_delay == 0
    assert change_reset(late, "value").reset == "value"


def test_resets_that_the_chip_lacks_are_replaced_late_ones_too():
    chip = override_facts(load_profile("generic45nm"), {"neuron.resets": "[subtract]", "neuron.late_reset": False})
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=0.002)),
        Layer(name="b", synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=0.002, reset="subtract", reset_delay=1)),
        Layer(name="c", synapse=Dense(weight=np.ones((3, 3))), neuron=LI(tau_s=0.002)),
    ]
    (plan,) = make_plans(chain(layers, input_shape=(3,)), chip)
    assert rows(plan) == [("a", "reset by value", "learnt"), ("b", "a reset one step late", "learnt")]
    assert [getattr(layer.neuron, "reset", "") for layer in plan.graph.layers] == ["subtract", "subtract", ""]


def test_biases_are_taken_off_thresholds_where_neurons_have_none():
    chip = override_facts(load_profile("generic45nm"), {"neuron.bias": False})
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((2, 3)), bias=np.array([0.5, 100.0])), neuron=IF(r=0.5)),
        Layer(name="b", synapse=Dense(weight=np.ones((2, 2)), bias=np.array([1.0, 0.0])), neuron=LI(tau_s=0.002)),
    ]
    (plan,) = make_plans(chain(layers, input_shape=(3,)), chip)
    assert rows(plan) == [("a", "a bias", "learnt"), ("b", "a bias", "learnt")]
    np.testing.assert_allclose(plan.graph["a"].neuron.v_threshold, [0.75, 0.25])
    assert plan.graph["a"].synapse.bias is None and plan.graph["b"].synapse.bias is None


def test_a_crossbar_that_takes_event_after_event_gets_lists_and_potentials_that_stop_at_the_reset():
    plan = make_plans(DIGITS, TWO_CROSSBARS)[0]
    assert {type(layer.synapse) for layer in plan.graph.layers} == {Dense}
    assert all(float(layer.neuron.v_min) == 0 for layer in plan.graph.layers)
    assert all(layer.synapse.bias is None for layer in plan.graph.layers)


def test_networks_between_the_steps_of_a_plan_are_not_kept():
    seen, last = [], []

    def watch(offer, before, after):
        seen.append((offer.topic, weakref.ref(before)))
        last[:] = [after]

    plan, _ = follow(DIGITS, TWO_CROSSBARS, {}, watch=watch)
    assert [topic for topic, _ in seen] == [step.replacement.topic for step in plan.steps] and len(seen) > 2
    assert last == [plan.graph]
    gc.collect()
    assert [before() for _, before in seen[1:]] == [None] * (len(seen) - 1)


@pytest.mark.parametrize(("neuron", "more"), [(IF(), True), (IF(reset="subtract"), False), (LIF(tau_s=0.002), False)])
def test_integrators_that_lose_what_lies_above_their_threshold_learn_longer(neuron, more):
    layers = [
        Layer(name=name, synapse=Dense(weight=np.eye(2)), neuron=each) for name, each in (("a", neuron), ("out", LI(tau_s=1.0)))
    ]
    settings = LearnSettings(epochs=4).for_plan(chain(layers, input_shape=(2,)))
    assert settings.epochs == (4 * MORE_EPOCHS if more else 4)


def test_catalyst_n1_keeps_biases_and_potentials_below_the_reset():
    graph = shipped_network("digits")
    topics = {step.replacement.topic for plan in make_plans(graph, load_profile("catalyst_n1")) for step in plan.steps}
    assert topics == {"pool", "neuron", "readout"}


def test_a_check_names_the_file_and_data_where_narrower_layers_are_learnt(tmp_path):
    """LIF becomes CubaLIF exactly, and 700 neurons do not fit 512: the command that makes them fewer learns."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="fc", synapse=Dense(weight=rng.normal(size=(700, 20)).astype(np.float32)), neuron=LIF(tau_s=0.016)),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 700)).astype(np.float32)), neuron=LI(tau_s=0.016)),
    ]
    path = tmp_path / "my net.snn"
    write_snn(chain(layers, input_shape=(20,)), path)
    (note,) = (note for note in api.check(path, "brainscales2").notes if note.startswith("adapt: "))
    assert note.startswith(f"adapt: `spear-deploy adapt '{path}' --chip brainscales2 --data DATA --out adapted` replaces what")
    assert note.endswith("; then it has to become smaller, which the same command tries")
    result = CliRunner().invoke(main, ["check", str(path), "--chip", "brainscales2"], env={"COLUMNS": "500"})
    assert result.exit_code == 3 and "adapt NET" not in result.output
    assert result.output.count(f"spear-deploy adapt '{path}' --chip brainscales2 --data DATA --out adapted") == 2
