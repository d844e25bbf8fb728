"""Integers of the Loihi family against the floating-point network."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import DataError, QuantizationError, UnsupportedError
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    SumPool,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import fold_batchnorm, layer_error, loihi, quantize, quantize_input
from spear_deploy.quantize.explain.findings import find_changed_parameters
from spear_deploy.quantize.fold import add_missing_weights
from spear_deploy.quantize.weighted_inputs import LoweringSettings, collect_neuron_inputs
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds
from tests.support.wild_graphs import wild_graph


def dense(weight, neuron, bias=None, **layer):
    return Layer(name=layer.pop("name", "fc"), synapse=Dense(weight=np.array(weight), bias=bias), neuron=neuron, **layer)


def only_if(graph: SNNGraph) -> SNNGraph:
    """Exchange every neuron by one without decay: nothing is truncated, so the grid of the weights is met exactly."""

    def change(layer):
        if layer.neuron is None:
            return layer
        reset = getattr(layer.neuron, "reset", "value")
        return replace(layer, neuron=IF(v_threshold=getattr(layer.neuron, "v_threshold", 1.0), reset=reset))

    return graph.with_layers(change)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_a_network_on_the_format_grid_is_quantised_exactly(seed):
    graph = only_if(random_graph(seed))
    graph = graph.with_layers(lambda layer: replace(layer, norm=None))
    x = random_spikes(graph, seed, steps=12)
    wanted, got = simulate(graph, x, record=("spikes",)), simulate(quantize(graph, calibration=x), x, record=("spikes",))
    for name, spikes in wanted.spikes.items():
        np.testing.assert_array_equal(got.spikes[name], spikes, err_msg=name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cuba", [False, True])
def test_spikes_with_real_weights_stay_close(seed, cuba):
    rng = np.random.default_rng(seed)
    common = dict(v_leak=0.125, v_reset=0.125)
    neuron = CubaLIF(tau_mem_s=0.004, tau_syn_s=0.003, w_in=3.0, **common) if cuba else LIF(tau_s=0.002, r=2.0, **common)
    norm = BatchNorm(
        weight=rng.uniform(0.5, 2, 8), bias=rng.normal(size=8) / 4, mean=rng.normal(size=8), var=rng.uniform(0.5, 2, 8)
    )
    layers = [
        Layer(
            name="conv", synapse=Conv2d(weight=rng.normal(size=(8, 2, 3, 3)), bias=rng.normal(size=8)), norm=norm, neuron=neuron
        ),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(
            name="out",
            synapse=Dense(weight=rng.normal(size=(3, 72)), bias=rng.normal(size=3)),
            neuron=LI(tau_s=0.002, v_leak=0.25),
        ),
    ]
    graph = chain(layers, input_shape=(2, 8, 8))
    x = random_spikes(graph, seed, steps=20, batch=4, rate=0.3)
    integer = quantize(graph, calibration=x)
    wanted, got = simulate(graph, x, record=("spikes",)), simulate(integer, x, record=("spikes",))
    assert np.mean(wanted.spikes["conv"]) > 0.05
    assert np.mean(wanted.spikes["conv"] != got.spikes["conv"]) < 0.02
    facts = integer.metadata["quantization"]
    value = got.output / (64 * facts["scale"]["out"]) + facts["offset"]["out"]
    assert np.abs(value - wanted.output).mean() < 0.2 * np.abs(wanted.output).mean()
    assert got.overflows == {}


def test_stored_numbers_of_a_worked_example():
    graph = chain([dense([[1.0, -0.5]], LIF(tau_s=0.002, v_threshold=0.75), bias=np.array([0.25]))], input_shape=(2,))
    layer = quantize(graph)["fc"]
    scale = quantize(graph).metadata["quantization"]["scale"]["fc"]
    assert scale * 0.5 == layer.synapse.weight[0, 0] == -2 * layer.synapse.weight[0, 1]
    assert layer.neuron.v_threshold == scale * 0.75
    assert (int(layer.neuron.decay_u), int(layer.neuron.decay_v)) == (4096, 2048)
    assert layer.neuron.bias == 64 * round(scale * 0.125)
    assert layer.synapse.bias is None


def test_the_bias_of_a_neuron_with_a_current_goes_into_the_current():
    layer = quantize(
        chain([dense([[1.0]], CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0), bias=np.array([0.5]))], input_shape=(1,))
    )["fc"]
    assert layer.synapse.bias[0] * 2 == layer.synapse.weight[0, 0]
    assert layer.neuron.bias == 0


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_have_the_asked_number_of_bits(bits):
    weight = np.random.default_rng(0).normal(size=(20, 20))
    stored = quantize(chain([dense(weight, IF())], input_shape=(20,)), weight_bits=bits)["fc"].synapse.weight
    assert len(np.unique(stored)) <= 2**bits
    assert np.abs(stored).max() <= 254 and (stored % 2 ** (9 - bits) == 0).all()


def test_analogue_input_becomes_graded_spikes():
    rng = np.random.default_rng(0)
    graph = chain([dense(rng.normal(size=(30, 10)), LIF(tau_s=0.002))], input_shape=(10,))
    x = np.repeat(rng.random((1, 8, 10)) * 3, 10, axis=0)
    integer = quantize(graph, calibration=x, kind="current")
    sent = quantize_input(integer, x, "current")
    assert sent.max() == 255 and sent.dtype == np.int64
    wanted = simulate(graph, x, kind="current").output
    got = simulate(integer, sent, kind="current").output
    assert np.mean(wanted) > 0.05 and np.mean(wanted != got) < 0.02


def analogue(seed, neuron):
    """A convolution of images and what it is trained to say: little in each step, so that half a unit of its sums counts."""
    rng = np.random.default_rng(seed)
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(6, 1, 3, 3)) / 3), neuron=neuron),
        Layer(name="flatten", synapse=Flatten()),
        dense(rng.normal(size=(4, 216)) / 10, LI(tau_s=0.004), name="out"),
    ]
    return chain(layers, input_shape=(1, 8, 8)), np.repeat(rng.random((1, 12, 1, 8, 8)), 10, axis=0)


def spikes_off(graph, integer, x, name, kind="current"):
    wanted, got = simulate(graph, x, kind=kind, record=("spikes",)), quantize_input(integer, x, kind)
    return np.mean(wanted.spikes[name] != simulate(integer, got, kind=kind, record=("spikes",)).spikes[name])


@pytest.mark.parametrize("neuron", [IF(reset="subtract"), LIF(tau_s=0.003), CubaLIF(tau_mem_s=0.004, tau_syn_s=0.002, w_in=2.0)])
def test_shifts_chosen_on_data_have_less_than_75_percent_of_the_error(neuron):
    errors = []
    for seed in range(4):
        graph, x = analogue(seed, neuron)
        chosen = quantize(graph, calibration=x, kind="current")
        settings = LoweringSettings(weight_bits=8, kind="current", input_scale=255 / x.max())
        always = loihi.lower(add_missing_weights(fold_batchnorm(graph)), settings)
        assert always["conv"].synapse.weight_exponent == -8 <= chosen["conv"].synapse.weight_exponent
        errors.append([spikes_off(graph, integer, x, "conv") for integer in (chosen, always)])
        assert simulate(chosen, quantize_input(chosen, x, "current"), kind="current").overflows == {}
    chosen_error, always_error = np.mean(errors, axis=0)
    assert chosen_error < 0.75 * always_error


def test_scales_chosen_on_data_clip_weights_and_have_less_than_75_percent_of_the_error():
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        graph = chain([dense(rng.normal(size=(40, 60)) / 4, LIF(tau_s=0.003, r=2.0))], input_shape=(60,))
        x = random_spikes(graph, seed, steps=20, batch=16, rate=0.2)
        chosen, blind = (quantize(graph, calibration=given, weight_bits=3) for given in (x, None))
        facts = [integer.metadata["quantization"] for integer in (chosen, blind)]
        assert facts[0]["scale"]["fc"] > facts[1]["scale"]["fc"] and facts[0]["headroom"]["fc"] == 1
        errors.append([spikes_off(graph, integer, x, "fc", "spikes") for integer in (chosen, blind)])
    chosen_error, blind_error = np.mean(errors, axis=0)
    assert chosen_error < 0.75 * blind_error


def test_a_large_network_is_measured_on_7_of_20_samples(monkeypatch):
    monkeypatch.setattr(layer_error, "MAX_PRODUCTS", 10 * 12 * 7)
    graph = chain([dense(np.ones((3, 4)), IF())], input_shape=(4,))
    x = random_spikes(graph, 0, steps=10, batch=20)
    assert layer_error.run_float_network(graph, x, sent=x, kind="spikes").emitted["fc"].shape[1] == 7


def test_overflow_on_calibration_data_lowers_the_scale():
    graph = chain([dense(np.ones((1, 4000)), LI(tau_s=0.002))], input_shape=(4000,))
    x = np.ones((40, 1, 4000), bool)
    assert simulate(quantize(graph), x).overflows["fc"]["u_wrapped"] > 0
    integer = quantize(graph, calibration=x)
    assert simulate(integer, x).overflows == {}
    assert integer.metadata["quantization"]["headroom"]["fc"] < 0.6


def test_identity_skips_get_weights_at_the_scale_of_their_target():
    layers = (
        dense(np.eye(3), IF(), name="a"),
        Layer(name="b", synapse=Dense(weight=np.eye(3) * 0.5)),
        Layer(name="sum", neuron=IF()),
    )
    pairs = [("input", "a"), ("a", "b"), ("b", "sum"), ("a", "sum")]
    graph = SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(3,))
    integer = quantize(graph)
    assert integer["a_to_sum"].synapse.weight[0] == 2 * integer["b"].synapse.weight[0, 0]


def test_folding_a_norm_keeps_the_function():
    graph = random_graph(3)
    folded = fold_batchnorm(graph)
    assert all(layer.norm is None for layer in folded.layers)
    x = random_spikes(graph, 3)
    np.testing.assert_allclose(simulate(folded, x, dtype=np.float64).output, simulate(graph, x, dtype=np.float64).output)


def test_an_integer_network_is_returned_as_it_is():
    graph = chain([dense(np.ones((1, 1), int), LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1))], input_shape=(1,))
    assert quantize(graph) is graph


def test_layers_without_integer_counterpart_are_refused_by_name():
    one = np.ones((1, 1))
    with pytest.raises(QuantizationError, match=r"weight_bits: 9 given, the format holds 2\.\.8"):
        quantize(chain([dense(one, IF())], input_shape=(1,)), weight_bits=9)
    with pytest.raises(UnsupportedError, match="layers 'a' -> 'b': two weighted layers with no neuron between them"):
        conv = Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1))  # whose borders no one convolution has
        quantize(chain([Layer(name="a", synapse=conv), Layer(name="b", synapse=conv, neuron=IF())], input_shape=(1, 4, 4)))
    with pytest.raises(UnsupportedError, match="layer 'end': weights whose sums no neuron takes; end the network in a readout"):
        quantize(chain([dense(one, IF()), dense(one, None, name="end")], input_shape=(1,)))
    with pytest.raises(UnsupportedError, match="layers 'li' -> 'fc': a readout's value feeds a layer"):
        quantize(chain([dense(one, LI(tau_s=0.1), name="li"), dense(one, IF())], input_shape=(1,)))
    with pytest.raises(QuantizationError, match="layer 'fc': a time constant is below the time step"):
        quantize(chain([dense(one, LIF(tau_s=1e-4))], input_shape=(1,)))
    with pytest.raises(QuantizationError, match="layer 'fc': a time constant is below 0, its state grows"):
        quantize(chain([dense(one, LIF(tau_s=-1.0))], input_shape=(1,)))
    with pytest.raises(QuantizationError, match="layer 'fc': v_threshold is below v_reset"):
        quantize(chain([dense(one, IF(v_threshold=-1.0))], input_shape=(1,)))
    conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=LI(tau_s=0.01, r=np.array([[[1.0, 2.0]]])))
    with pytest.raises(UnsupportedError, match="layer 'conv': time constants, thresholds or r differ inside a channel"):
        quantize(chain([conv], input_shape=(1, 1, 2)))


def test_a_mean_and_spikes_cannot_share_weights():
    conv = Layer(name="c", synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=IF())
    wide = Layer(name="p", synapse=AvgPool(kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
    end = Layer(name="end", synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=IF())
    pairs = [("input", "c"), ("c", "p"), ("p", "end"), ("c", "end")]
    graph = SNNGraph(layers=(conv, wide, end), edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(1, 4, 4))
    with pytest.raises(UnsupportedError, match="layer 'end': adds spikes and means of spikes"):
        quantize(graph)


def test_currents_shared_by_two_neuron_layers_are_refused():
    layers = (
        dense(np.eye(2), None, name="w"),
        Layer(name="a", neuron=IF()),
        Layer(name="b", neuron=IF(v_threshold=2.0)),
        dense(np.eye(2), IF(), name="end"),
    )
    pairs = [("input", "w"), ("w", "a"), ("w", "b"), ("a", "end"), ("b", "end")]
    graph = SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(2,))
    with pytest.raises(UnsupportedError, match="layer 'w': its current feeds several neuron layers"):
        quantize(graph)


def test_a_state_that_overflows_at_every_scale_is_an_error():
    graph = chain([dense(np.ones((1, 1)), IF())], input_shape=(1,))
    message = (
        "layer 'fc': its 24-bit state overflows at every scale tried, down to 5.99, weights of up to 1 add up over 2 steps; "
        "lower them, let its neurons leak faster, or run fewer steps"
    )
    with pytest.raises(QuantizationError, match=message):
        quantize(graph, calibration=np.full((2, 1, 1), 200_000))
    biased = chain([dense(np.ones((1, 1)), IF(), bias=np.array([-100.0]))], input_shape=(1,))
    message = "weights of up to 1 and a bias of up to 100 add up over 1,000 steps; lower them, let its neurons leak"
    with pytest.raises(QuantizationError, match=message):
        quantize(biased, calibration=np.ones((1000, 1, 1)))


def test_more_than_exact_sums_hold_names_the_layer():
    graph = chain([dense(np.ones((1, 1)), IF())], input_shape=(1,))
    with pytest.raises(DataError, match="^layer 'fc': 20320000000 arrives in one step, exact sums hold 17179869184; scale"):
        quantize(graph, calibration=np.full((2, 1, 1), 80_000_000))


@pytest.mark.parametrize("neuron", [CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005), CubaLI(tau_mem_s=0.01, tau_syn_s=0.005)])
def test_a_current_that_biases_lead_to_stays_within_the_state(neuron):
    """Of a bias of 10^6, 64 · scale · bias · 5 steps are at most 2^23 − 1, with data and without."""
    synapse = Dense(weight=np.eye(3), bias=np.array([1e6, -1e6, 0]))
    graph = chain([Layer(name="fc", synapse=synapse, neuron=neuron)], input_shape=(3,), dt_s=1e-3)
    x = np.zeros((60, 1, 3), np.uint8)
    for integer in (quantize(graph), quantize(graph, calibration=x)):
        run = simulate(integer, x, record=("u",))
        assert run.overflows.get("fc", {}).get("u_wrapped", 0) == 0
        assert np.abs(run.u["fc"]).max() < 2**23
    first = quantize(graph)
    assert np.abs(simulate(first, x, record=("u",)).u["fc"]).max() > 0.49 * 2**23, "the rounding takes at least half of it"


def test_the_largest_scale_of_biases_leads_to_the_last_current_with_each_of_them_rounded():
    """Of 40 and 500, a tenth of 1/4 reach the current in a step, each rounded, and stay for 4 steps."""
    layers = [
        Layer(name="a", synapse=Dense(weight=np.eye(3) / 9, bias=np.array([3.0, -40.0, 0.0]))),
        Layer(name="b", synapse=Dense(weight=np.eye(3) / 9, bias=np.array([500.0, 1.0, 0.0]))),
        Layer(name="c", neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=0.004)),
    ]
    edges = tuple(Edge(source=a, target=b) for a, b in [("input", "a"), ("input", "b"), ("a", "c"), ("b", "c")])
    graph = SNNGraph(layers=tuple(layers), edges=edges, input_shape=(3,), output="c", dt_s=1e-3)
    (inputs,) = collect_neuron_inputs(graph, "spikes", 1.0)
    scale = loihi._current_limit(inputs)
    assert 64 * (scale * 0.025 * (40 + 500) + 2) * 4 == pytest.approx(2**23 - 1, rel=1e-12)


@pytest.mark.parametrize("stride", [(2, 2), (1, 1)])
@pytest.mark.parametrize("pool", [AvgPool, SumPool])
def test_a_bias_in_front_of_a_pool_counts_for_each_value_of_its_window(pool, stride):
    """Windows of four add a bias of 10^6 up to four times, also without data."""
    conv = Conv2d(weight=np.ones((2, 1, 1, 1)), bias=np.array([1e6, -3e5]))
    neuron = CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005)
    layers = [
        Layer(name="conv", synapse=conv),
        Layer(name="pool", synapse=pool(kernel_size=(2, 2), stride=stride), neuron=neuron),
    ]
    graph = chain(layers, input_shape=(1, 4, 4), dt_s=1e-3)
    x = np.zeros((60, 1, 1, 4, 4), np.uint8)
    for integer in (quantize(graph), quantize(graph, calibration=x)):
        run = simulate(integer, x, record=("u",))
        assert run.overflows.get("pool", {}).get("u_wrapped", 0) == 0
    assert np.abs(simulate(quantize(graph), x, record=("u",)).u["pool"]).max() > 0.49 * 2**23, "rounding takes half at most"
    (inputs,) = collect_neuron_inputs(graph, "spikes", 1.0)
    brought = 1e6 / 5 / 10 * (1 if pool is AvgPool else 4)
    assert 64 * (loihi._current_limit(inputs) * brought + 4) * 4096 / 819 == pytest.approx(2**23 - 1, rel=1e-12)


@pytest.mark.parametrize(("tau_syn", "size"), [(1.0, 1), (1.0, 4), (3.0, 8)])
def test_a_current_of_thousands_of_steps_that_biases_lead_to_stays_within_the_state(tau_syn, size):
    """Decays are the stored ones, 4 and 1 of 4096; sums of 64 rounded biases would leave no room for roundings up by 1."""
    conv = Conv2d(weight=np.full((1, 1, 1, 1), 0.1), bias=np.array([1e6]))
    layers = [
        Layer(name="conv", synapse=conv),
        Layer(
            name="pool",
            synapse=SumPool(kernel_size=(size, size)),
            neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=tau_syn, v_threshold=1e6),
        ),
    ]
    graph = chain(layers, input_shape=(1, size, size), dt_s=1e-3)
    integer = quantize(graph)
    assert integer["pool"].neuron.decay_u == round(4.096 / tau_syn) and integer.metadata["quantization"]["scale"]["pool"] > 0
    (inputs,) = collect_neuron_inputs(graph, "spikes", 1.0)
    rounded = np.rint(loihi._current_limit(inputs) * 1e6 * 0.1 * 0.001 / tau_syn)  # mem and the jump of a current
    assert 0 <= 64 * rounded * size**2 * 4096 / integer["pool"].neuron.decay_u <= 2**23 - 1
    steady, brought = (2**23 - 1) / 64 * round(4.096 / tau_syn) / 4096, 1e6 * 0.1 * 0.001 / tau_syn * size**2
    assert loihi._current_limit(inputs) * brought == pytest.approx(max(steady - size**2, steady / 2), rel=1e-12)
    run = simulate(integer, np.zeros((9000, 1, 1, size, size), np.uint8), record=("u",))
    assert run.overflows.get("pool", {}).get("u_wrapped", 0) == 0


READOUTS = {
    "LI": LI(tau_s=0.02, r=1.0),
    "slow LI": LI(tau_s=0.5),
    "CubaLI": CubaLI(tau_mem_s=0.02, tau_syn_s=0.005),
    "slow CubaLI": CubaLI(tau_mem_s=0.05, tau_syn_s=0.05),
}


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("pool", [None, AvgPool, SumPool])
def test_a_readout_that_biases_lead_to_stays_within_the_state_without_data(name, pool):
    """Biases take half of it, so that spikes have room, and the largest value stays that of the network."""
    rng = np.random.default_rng(3)
    bias = np.array([1.0, 0.8, -1.0, -0.9]) * (5 if name.startswith("slow") else 50)
    conv = Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(4, 2, 1, 1)), bias=bias))
    pools = [] if pool is None else [Layer(name="pool", synapse=pool(kernel_size=(2, 2), padding=(1, 1)))]
    graph = chain([conv, *pools, Layer(name="out", neuron=READOUTS[name])], input_shape=(2, 2, 2), dt_s=1e-3)
    steps = 200 if "slow" not in name else 4000
    integer, x = quantize(graph), rng.random((steps, 1, 2, 2, 2)) < 0.3
    assert integer.metadata["quantization"]["headroom"]["out"] < 0.8 and "findings" not in integer.metadata["quantization"]
    run, wanted = simulate(integer, x), simulate(graph, x)
    assert run.overflows.get("out", {}).get("v_saturated", 0) == 0
    assert np.array_equal(run.output[-1].argmax(axis=1), wanted.output[-1].argmax(axis=1))
    alone = np.abs(simulate(integer, np.zeros_like(x)).output).max()
    assert 0.2 * 2**23 < alone < 0.51 * 2**23


def test_the_largest_scale_of_a_readouts_biases_leads_to_the_last_potential():
    """Signs count: 40 less 10 in a current of 4 steps, a tenth of 1/4 of it, and 8 from a leak at 80; v keeps 9/10 of itself."""
    layers = [
        Layer(name="a", synapse=Dense(weight=np.eye(3) / 9, bias=np.array([40.0, 0.0, 0.0]))),
        Layer(name="b", synapse=Dense(weight=np.eye(3) / 9, bias=np.array([-10.0, 1.0, 0.0]))),
        Layer(name="c", neuron=CubaLI(tau_mem_s=0.01, tau_syn_s=0.004, v_leak=np.array([80.0, -40.0, -40.0]))),
    ]
    edges = [Edge(source=a, target=b) for a, b in [("input", "a"), ("input", "b")]]
    edges += [Edge(source="a", target="c"), Edge(source="b", target="c", delay=2)]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(3,), output="c", dt_s=1e-3)
    (inputs,) = collect_neuron_inputs(graph, "spikes", 1.0)
    leak = round(409.6) / 4096
    scale = loihi._potential_limit(inputs)
    assert 64 * scale * ((40 - 10) * 0.1 * 0.25 * 4 + 8) / leak == pytest.approx(2**23 - 1, rel=1e-12)


def test_a_decay_of_a_readout_that_is_stored_as_none_is_that_of_the_network():
    (inputs,) = collect_neuron_inputs(chain([dense(np.eye(3), LI(tau_s=20.0), np.full(3, 5.0))], input_shape=(3,)), "spikes", 1.0)
    assert 64 * loihi._potential_limit(inputs) * 5 == pytest.approx(2**23 - 1, rel=1e-12)
    for stored in (10, 11):  # of 4096, from just below and just above the half between them
        neuron = LI(tau_s=1e-3 * 4096 / (stored - 0.4995 if stored == 11 else stored + 0.4995))
        (inputs,) = collect_neuron_inputs(chain([dense(np.eye(3), neuron)], input_shape=(3,), dt_s=1e-3), "spikes", 1.0)
        assert loihi._stored_leak(inputs, "mem") == stored / 4096


def test_neurons_that_spike_and_readouts_without_bias_need_no_room_for_biases():
    for neuron, bias in ((CubaLIF(tau_mem_s=0.01, tau_syn_s=0.004), np.full(3, 5.0)), (LI(tau_s=0.01, v_leak=2.0), None)):
        (inputs,) = collect_neuron_inputs(chain([dense(np.eye(3), neuron, bias)], input_shape=(3,)), "spikes", 1.0)
        assert loihi._potential_limit(inputs) is None


@pytest.mark.parametrize("size", [1.0, pytest.param(1000.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("bias", "bits", "least"), [(1000.0, 8, None), (150.0, 8, 8), (150.0, 2, None), (9.0, 4, 128), (9.0, 3, 128)]
)
def test_biases_that_would_leave_a_readout_too_little_of_its_weights_are_a_finding(bias, bits, least, size):
    """With time constants of 100 steps, and the largest weight at 4 of its steps or half of them, v holds 163 times 8 weights."""
    graph = chain([dense(size * np.eye(3), LI(tau_s=0.1), np.array([size * bias, 0, 0]))], input_shape=(3,), dt_s=1e-3)
    x = np.zeros((1500, 1, 3), np.uint8)
    integer = quantize(graph, weight_bits=bits)
    facts, saturates = integer.metadata["quantization"], simulate(integer, x).overflows.get("fc", {}).get("v_saturated", 0) > 0
    findings = [finding for finding in find_changed_parameters(integer) if finding.code == "bias_saturates"]
    assert saturates is (least is None) and len(findings) == saturates
    if least is not None:
        assert facts["headroom"]["fc"] == pytest.approx(
            least / {8: 8190 / bias, 4: 224, 3: 192}[bits]
        )  # of what bias and weights allow
    for finding in findings:
        times = facts["scale"]["fc"] * size * bias / (2**23 - 1) * 64 * 0.01 / (round(40.96) / 4096)
        assert finding.layer == "fc" and f"biases alone lead its potential to {times:.3g} times" in finding.text
    on_data = quantize(graph, calibration=x)
    assert not simulate(on_data, x).overflows and "bias_saturates" not in [f.code for f in find_changed_parameters(on_data)]


def test_the_largest_scale_of_a_start_makes_it_the_last_state():
    neuron = LIF(tau_s=0.01, v_init=np.array([50.0, -700.5, 0.0]))
    (inputs,) = collect_neuron_inputs(chain([dense(np.eye(3), neuron)], input_shape=(3,)), "spikes", 1.0)
    assert 64 * loihi._start_limit(inputs) * 700.5 == pytest.approx(2**23 - 1, rel=1e-12)


def norm_of(channels, seed=0):
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=channels) for name in ("weight", "bias", "mean")}
    return BatchNorm(**made, var=rng.uniform(0.5, 2, channels), eps=1e-5)


def same_function(graph, folded, seed=0):
    assert all(layer.norm is None for layer in folded.layers)
    x = random_spikes(graph, seed)
    here, there = simulate(graph, x, dtype=np.float64), simulate(folded, x, dtype=np.float64)
    assert here.spikes.keys() == there.spikes.keys()
    np.testing.assert_allclose(there.output, here.output, rtol=1e-9, atol=1e-12)
    assert {name: count.tolist() for name, count in here.counts.sent.items()} == {
        name: count.tolist() for name, count in there.counts.sent.items()
    }


@pytest.mark.parametrize("neuron", [None, LIF(tau_s=2e-3)], ids=["then weights", "then neurons"])
def test_a_norm_behind_a_flatten_has_a_gain_for_each_value(neuron):
    rng = np.random.default_rng(1)
    layers = (
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 2, 2, 2))), neuron=LIF(tau_s=2e-3)),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="norm", norm=norm_of(27), neuron=neuron),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(4, 27)), bias=rng.normal(size=4)), neuron=LI(tau_s=4e-3)),
    )
    graph = chain(layers, input_shape=(2, 4, 4))
    folded = fold_batchnorm(graph)
    same_function(graph, folded)
    if neuron is None:
        assert [(layer.name, type(layer.synapse)) for layer in folded.layers] == [("conv", Conv2d), ("out", Dense)]
    x = random_spikes(graph, 0)
    assert quantize(graph).is_integer
    for name, spikes in simulate(quantize(graph), x, record=("spikes",)).spikes.items():
        assert np.mean(spikes != simulate(graph, x, record=("spikes",)).spikes[name]) < 0.02


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 3), (2, 1, 1), (2, 3, 3)])
def test_a_scale_of_any_shape_takes_a_norm(shape):
    weight, bias = np.random.default_rng(2).normal(size=(2, *shape))
    layers = [
        Layer(name="scale", synapse=Scale(weight=weight, bias=bias), norm=norm_of(2), neuron=LIF(tau_s=2e-3)),
        Layer(name="out", synapse=Dense(weight=np.random.default_rng(3).normal(size=(4, 18))), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(2, 3, 3))
    same_function(graph, fold_batchnorm(graph))
    assert quantize(graph).is_integer


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_folding_keeps_the_function_of_random_networks(seed):
    graph = wild_graph(seed)
    same_function(graph, fold_batchnorm(graph), seed)


@pytest.mark.parametrize("kind", [SumPool, AvgPool])
@pytest.mark.parametrize("behind", [None, Conv2d])
def test_a_norm_behind_a_pool_becomes_a_weight_for_each_channel(kind, behind):
    """With the padding of the pool, and as one kernel with the convolution before it; integers exist."""
    rng = np.random.default_rng(5)
    layers = [] if behind is None else [Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(2, 2, 3, 3)), bias=np.ones(2)))]
    pool = kind(kernel_size=(2, 2), stride=(1, 2), padding=(1 if behind is None else 0, 0))
    layers += [
        Layer(name="pool", synapse=pool, norm=norm_of(2), neuron=LIF(tau_s=2e-3)),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(4, 28 if behind is None else 12))), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(2, 6, 4 if behind is None else 6))
    folded = fold_batchnorm(graph)
    same_function(graph, folded)
    assert all(layer.norm is None for layer in folded.layers) and quantize(graph).is_integer


@pytest.mark.parametrize("tau", ["one", "each"])
@pytest.mark.parametrize("first", [Conv2d, Scale])
def test_a_flatten_may_lie_between_weights_and_their_neurons(first, tau):
    """The bias of a channel, and what a neuron's constants do to the weights, pass the flatten."""
    rng = np.random.default_rng(4)
    if first is Conv2d:
        synapse = Conv2d(weight=rng.normal(size=(3, 2, 1, 1)), bias=rng.normal(size=3))
        taus = np.repeat([2e-3, 4e-3, 8e-3], 9)
    else:
        synapse = Scale(weight=rng.normal(size=(2, 1, 1)), bias=rng.normal(size=(2, 3, 3)))
        taus = rng.choice([2e-3, 4e-3], 18)
    layers = (
        Layer(name="weights", synapse=synapse),
        Layer(name="flat", synapse=Flatten(), neuron=LIF(tau_s=np.array(2e-3) if tau == "one" else taus)),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(4, len(taus)))), neuron=IF()),
    )
    graph = chain(layers, input_shape=(2, 3, 3))
    x = random_spikes(graph, 0)
    integer = quantize(graph)
    assert integer.shape_of("flat") == (len(taus),)
    here, there = (simulate(net, x, record=("spikes",)).spikes["flat"] for net in (graph, integer))
    assert here.any() and np.mean(here != there) < 0.02


def test_a_readout_whose_constants_differ_inside_a_channel_behind_a_flatten_is_refused():
    """Its value is read, so it cannot be in other units."""
    taus = np.linspace(2e-3, 4e-3, 27)
    layers = (
        Layer(name="conv", synapse=Conv2d(weight=np.ones((3, 2, 1, 1)))),
        Layer(name="flat", synapse=Flatten(), neuron=LI(tau_s=taus)),
    )
    with pytest.raises(UnsupportedError, match="layer 'conv': time constants, thresholds or r differ inside a channel"):
        quantize(chain(layers, input_shape=(2, 3, 3)))


@pytest.mark.parametrize("seed", seeds(6, 100))
def test_random_networks_become_integers_or_are_refused_by_name(seed):
    graph = wild_graph(seed)
    try:
        integer = quantize(graph)
    except (UnsupportedError, QuantizationError) as error:
        assert str(error).startswith(("layer", "loop", "the network"))
        return
    assert integer.is_integer
    assert integer.shape_of(integer.output) == graph.shape_of(graph.output)


@pytest.mark.parametrize("format", ["loihi", "spinnaker", pytest.param("xylo", marks=pytest.mark.slow)])
def test_a_readout_keeps_the_leaks_of_its_neurons(format):
    """Its values are compared with each other: neurons that rest at 0, 5 and -2 do so in integers, within their rounding."""
    readout = LI(tau_s=0.008, v_leak=np.array([0.0, 5.0, -2.0]))
    graph = chain([Layer(name="o", synapse=Dense(weight=np.full((3, 4), 0.5)), neuron=readout)], input_shape=(4,), dt_s=1e-3)
    x = (np.random.default_rng(0).random((120, 2, 4)) < 0.3).astype(np.uint8)
    integer = quantize(graph, format=format, calibration=x)
    facts = integer.metadata["quantization"]
    values = simulate(integer, x).output / (facts["unit"] * facts["scale"]["o"]) + facts["offset"]["o"]
    wanted = simulate(graph, x).output
    assert np.abs(values - wanted)[60:].max() < (0.15 if format == "xylo" else 0.01), "Xylo starts at 0 and is driven a step late"
    starts = [row for row in facts.get("findings", ()) if row["what"] == "start"]
    assert [(row["given"], row["stored"]) for row in starts] == ([(-1.0, 0.0)] if format == "xylo" else [])


@pytest.mark.parametrize("neuron", [LIF(tau_s=0.01, v_init=np.array([50, -0.5])), LI(tau_s=0.01, v_leak=np.array([-80.0, 3.0]))])
def test_a_potential_at_the_start_fits_the_state(neuron):
    """64 · 254 · 50 / 0.01 are more than 24 bits: the scale is the one at which the start is the largest state."""
    layer = Layer(name="fc", synapse=Dense(weight=np.array([[0.01, -0.005], [0.003, 0.01]])), neuron=neuron)
    graph = chain([layer], input_shape=(2,))
    x = np.ones((5, 1, 2), np.uint8)
    for calibration in (None, x):
        integer = quantize(graph, calibration=calibration)
        start = np.abs(integer["fc"].neuron.v_init)  # type: ignore[union-attr]
        assert 2**22 < start.max() < 2**23
        simulate(integer, x)
