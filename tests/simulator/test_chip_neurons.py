"""Neurons of chip families against loops over single weights, and values that their formats refuse."""

import numpy as np
import pytest

from spear_deploy.errors import DataError, GraphError
from spear_deploy.network import (
    CHIP_NEURONS,
    CatalystLIF,
    Conv2d,
    Dense,
    Layer,
    OdinLIF,
    ReckonLIF,
    Scale,
    SpinnakerLIF,
    TrueNorthLIF,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.chip_reference import random_network, run_network
from tests.support.seeds import seeds

SEEDS = seeds(6, 110)


def spikes(graph, seed, steps=12, batch=2):
    rng = np.random.default_rng(1000 + seed)
    if isinstance(graph.layers[0].neuron, OdinLIF):  # sources may send several spikes in a step
        return rng.integers(0, 3, (steps, batch, *graph.input_shape))
    return rng.random((steps, batch, *graph.input_shape)) < 0.5


@pytest.mark.parametrize("kind", CHIP_NEURONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_and_potentials_equal_a_loop_over_weights(kind, seed):
    graph = random_network(kind, seed)
    x = spikes(graph, seed)
    run = simulate(graph, x, record=("spikes", "v"))
    sent, potentials = run_network(graph, x)
    for name, wanted in sent.items():
        got = run.spikes[name] if graph[name].spikes else run.output
        assert np.count_nonzero(got != wanted) == 0
        assert np.count_nonzero(run.v[name] != potentials[name]) == 0


@pytest.mark.parametrize("kind", CHIP_NEURONS)
def test_random_networks_spike(kind):
    """Otherwise the comparison above would show nothing."""
    rates = []
    for seed in range(10):
        graph = random_network(kind, seed)
        rates += list(simulate(graph, spikes(graph, seed)).counts.rates().values())
    assert 0.1 < np.mean(rates) < 0.9 and np.mean(np.array(rates) > 0) > 0.6
    # blocks of steps and samples change nothing
    from spear_deploy.simulator.run import Simulation

    run = Simulation(graph, spikes(graph, 9), record=("v",), max_steps=5)
    for _ in range(len(run)):
        run.advance()
    whole = simulate(graph, spikes(graph, 9), record=("v",))
    for name, v in run.result().v.items():
        assert np.array_equal(v, whole.v[name])


def one(neuron, weight):
    return chain([Layer(name="a", synapse=Dense(weight=np.array(weight)), neuron=neuron)], input_shape=(np.shape(weight)[1],))


def test_potentials_beyond_their_bits_are_clipped_and_counted():
    x = np.ones((30, 1, 200), bool)
    never = TrueNorthLIF(v_threshold=2**18 - 1, reset="none")
    run = simulate(one(never, np.full((1, 200), 255)), x, record=("v",))
    assert run.v["a"].max() == 2**19 - 1 and run.overflows == {"a": {"v_saturated": 20}}
    run = simulate(one(ReckonLIF(keep=128, v_threshold=None), np.full((1, 200), -128)), x, record=("v",))
    assert run.v["a"].min() == -(2**15) and run.overflows == {"a": {"v_saturated": 29}}
    spinnaker = SpinnakerLIF(keep_v=0, v_threshold=None, exc_shift=15)
    run = simulate(one(spinnaker, np.full((1, 200), 400)), x, record=("v",))
    assert (run.v["a"] == 65535 << 15).all() and run.overflows == {"a": {"input_saturated": 30, "v_saturated": 0}}
    x = np.ones((30, 1, 257), bool)
    for value, counted in ((32767, 30), (-32768, 30), (32639, 0)):
        run = simulate(one(CatalystLIF(v_threshold=32767), np.full((1, 257), value)), x)
        assert run.overflows == ({"a": {"v_saturated": counted}} if counted else {})


def test_catalyst_keeps_what_is_above_0_and_loses_what_is_above_the_threshold():
    x = np.array([1, 0, 1, 1, 0]).reshape(5, 1, 1)
    run = simulate(one(CatalystLIF(v_threshold=20, leak=3), [[12]]), x, record=("v",))
    assert run.v["a"].ravel().tolist() == [9, 6, 15, 0, 0] and run.output.ravel().tolist() == [0, 0, 0, 1, 0]
    run = simulate(one(CatalystLIF(v_threshold=20, leak=-8), [[-30]]), x, record=("v",))
    assert run.v["a"].ravel().tolist() == [0, 8, 0, 0, 8] and not run.overflows
    run = simulate(one(CatalystLIF(v_threshold=20, resting=40), [[-15]]), x, record=("v",))
    assert run.v["a"].ravel().tolist() == [-15, -15, -30, 0, 0] and run.overflows == {"a": {"v_saturated": 1}}


def test_a_leak_counts_once_a_step_and_the_lower_bound_holds():
    run = simulate(one(TrueNorthLIF(v_threshold=90, leak=-7, v_min=-20), [[10]]), np.zeros((5, 1, 1), bool), record=("v",))
    assert run.v["a"].ravel().tolist() == [-7, -14, -20, -20, -20]
    x = np.array([1, 0, 1, 0, 1]).reshape(5, 1, 1)
    run = simulate(one(TrueNorthLIF(v_threshold=90, leak=100, reset="subtract"), [[5]]), x, record=("v",))
    assert run.v["a"].ravel().tolist() == [15, 25, 40, 50, 65] and run.output.all()


def test_events_meet_threshold_and_zero_one_by_one():
    """A sum would be −1; the chip stops at 0 and then spikes."""
    graph = one(OdinLIF(v_threshold=3), [[-4, 3]])
    assert simulate(graph, np.ones((1, 1, 2), bool)).output.item() == 1
    graph = one(OdinLIF(v_threshold=3), [[3, -4]])
    run = simulate(graph, np.ones((1, 1, 2), bool), record=("v",))
    assert run.output.item() == 1 and run.v["a"].item() == 0


def test_layers_of_weights_without_neurons_are_recorded_as_their_sum():
    graph = random_network(SpinnakerLIF, 3)
    x = spikes(graph, 3)
    run = simulate(graph, x, record=("v", "spikes"))
    assert np.array_equal(run.v["skip"], x.astype(int) @ graph["skip"].synapse.weight.T)


def test_a_chip_that_takes_spike_by_spike_refuses_other_layers():
    conv = Layer(name="a", synapse=Conv2d(weight=np.ones((1, 1, 2, 2), int)), neuron=OdinLIF(v_threshold=3))
    with pytest.raises(DataError, match="layer 'a': Conv2d, this chip takes spike by spike: Dense in front of its own neurons"):
        simulate(chain([conv], input_shape=(1, 3, 3)), np.ones((1, 1, 1, 3, 3), bool))

    for change in ({"bias": [1]}, {"weight_exponent": 1}):
        layer = Layer(name="a", synapse=Dense(weight=[[1]], **change), neuron=OdinLIF(v_threshold=3))
        with pytest.raises(DataError, match="layer 'a': a bias or a weight_exponent, this chip takes spike by spike: weights"):
            simulate(chain([layer], input_shape=(1,)), np.ones((1, 1, 1), bool))
    with pytest.raises(DataError, match="layer 'a': neurons without weights, this chip takes spike by spike: Dense in front"):
        simulate(chain([Layer(name="a", neuron=OdinLIF(v_threshold=3))], input_shape=(1,)), np.ones((1, 1, 1), bool))
    with pytest.raises(DataError, match="layer 'a': takes spikes, -1 arrives; give whole numbers from 0"):
        simulate(one(OdinLIF(v_threshold=3), [[1]]), np.full((1, 1, 1), -1), kind="current")


def test_sums_by_sign_beyond_their_bits_are_refused():
    hold = "sums by sign hold 67108863; scale them down"
    graph = one(SpinnakerLIF(keep_v=0, v_threshold=None), np.full((1, 1100), 65535))
    with pytest.raises(DataError, match=f"layer 'a': weights of a neuron add up to 72088500, {hold}"):
        simulate(graph, np.ones((1, 1, 1100), bool))
    many = f"layer 'a': weights of a step add up to as many as {2000 * 60000}, {hold}"
    with pytest.raises(DataError, match=many):
        simulate(one(SpinnakerLIF(keep_v=0, v_threshold=None), [[60000]]), np.full((1, 1, 1), 2000))
    heads = [Layer(name=name, synapse=Dense(weight=np.full((1, 600), -65535))) for name in ("b", "c")]
    layers = [*heads, Layer(name="a", neuron=SpinnakerLIF(keep_v=0, v_threshold=None))]
    edges = [Edge(source=s, target=t) for s, t in (("input", "b"), ("input", "c"), ("b", "a"), ("c", "a"))]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(600,))
    with pytest.raises(DataError, match=f"layer 'a': weights of a step add up to as many as {1200 * 65535}, {hold}"):
        simulate(graph, np.ones((1, 1, 600), bool))


def test_sums_by_sign_take_neither_values_below_0_nor_shifts():
    graph = one(SpinnakerLIF(keep_v=0, v_threshold=None), [[7]])
    with pytest.raises(DataError, match="layer 'a': takes spikes and sums of weights, -2 arrives; this chip adds up"):
        simulate(graph, np.full((1, 1, 1), -2), kind="current")
    layer = Layer(name="a", synapse=Dense(weight=[[4]], weight_exponent=-1), neuron=SpinnakerLIF(keep_v=0, v_threshold=None))
    with pytest.raises(DataError, match="layer 'a': weight_exponent -1, sums by sign take 0; shift the weights themselves"):
        simulate(chain([layer], input_shape=(1,)), np.ones((1, 1, 1), bool))
    layer = Layer(name="a", synapse=Scale(weight=[0.5, 1.0]), neuron=SpinnakerLIF(keep_v=0, v_threshold=None))
    with pytest.raises(DataError, match="layer 'a': weight 0.5 is no whole number, as integers of a chip are; quantise it again"):
        simulate(chain([layer], input_shape=(2,)), np.ones((1, 1, 2), bool))


@pytest.mark.parametrize(("first", "second"), [(-2, -7), (-2, 7), (2, -7), (2, 7)])
@pytest.mark.parametrize("bias", [-3, 3])
def test_a_bias_and_weights_behind_weights_are_summed_by_sign(first, second, bias):
    neuron = SpinnakerLIF(keep_v=0, v_threshold=None, exc_shift=1)
    layers = [
        Layer(name="w", synapse=Dense(weight=[[first]])),
        Layer(name="a", synapse=Dense(weight=[[second]], bias=[bias]), neuron=neuron),
    ]
    run = simulate(chain(layers, input_shape=(1,)), np.ones((1, 1, 1), bool), record=("v",))
    assert run.v["w"].item() == first
    assert run.v["a"].item() == sum(2 * n if n > 0 else n for n in (first * second, bias)) and not run.overflows


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TrueNorthLIF(v_threshold=0), r"TrueNorthLIF.v_threshold: 0..0 given, the format holds 1..262143"),
        (lambda: TrueNorthLIF(v_threshold=5, leak=256), r"TrueNorthLIF.leak: 256..256 given, the format holds -255..255"),
        (lambda: TrueNorthLIF(v_threshold=5, v_min=1), r"TrueNorthLIF.v_min: 1..1 given, the format holds -262143..0"),
        (
            lambda: TrueNorthLIF(v_threshold=5, reset="x"),
            r"TrueNorthLIF.reset: 'x' given, expected 'value' or 'subtract' or 'none'",
        ),
        (lambda: TrueNorthLIF(v_threshold=5, bounces=2), r"TrueNorthLIF.bounces: 2 given, expected 0 \(v stops at v_min\) or 1"),
        (lambda: ReckonLIF(v_threshold=5, keep=4), r"ReckonLIF.keep: 4..4 given, the format holds 28672..32768"),
        (lambda: CatalystLIF(v_threshold=2**15), r"CatalystLIF.v_threshold: 32768..32768 given, the format holds 1..32767"),
        (
            lambda: CatalystLIF(v_threshold=2**14, resting=2**14),
            r"CatalystLIF.resting: 32768 with the threshold, the format holds 32767; lower one of them",
        ),
        (lambda: CatalystLIF(v_threshold=5, leak=2**15), r"CatalystLIF.leak: 32768..32768 given, the format holds -32768..32767"),
        (lambda: OdinLIF(v_threshold=256), r"OdinLIF.v_threshold: 256..256 given, the format holds 1..255"),
        (lambda: SpinnakerLIF(v_threshold=5, keep_v=2**15 + 1), r"SpinnakerLIF.keep_v: .* the format holds 0..32768"),
        (
            lambda: SpinnakerLIF(v_threshold=5, keep_v=1, exc_shift=16),
            r"SpinnakerLIF.exc_shift: 16 given, the format holds 0..15",
        ),
        (lambda: SpinnakerLIF(v_threshold=5, keep_v=1, keep_u=1), r"SpinnakerLIF.init_u: a neuron has both keep_u and init_u"),
    ],
)
def test_values_outside_a_format_are_refused(build, message):
    with pytest.raises(GraphError, match=message):
        build()
