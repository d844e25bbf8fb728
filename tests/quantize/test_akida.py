"""Whole numbers of Akida against loops, and against akida's software back end."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, Dense, Layer, SumPool
from spear_deploy.network.graph import Edge, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.support.akida_networks import DT, network
from tests.support.framework_environments import NotInstalled, install
from tests.support.seeds import seeds

SCRIPT = Path(__file__).parents[1] / "support" / "akida_frames.py"


def read_layers(integer):
    """Yield (layer, weights, thresholds h, steps a) as akida has them; the last layer has neither."""
    for layer in integer.layers:
        if layer.neuron is None:
            continue
        weight = layer.synapse.weight
        bias = 0 if layer.synapse.bias is None else layer.synapse.bias
        if isinstance(layer.neuron, LI):
            yield layer, weight, bias, None
            continue
        step = np.broadcast_to(layer.neuron.v_threshold.reshape(-1), len(weight))
        yield layer, weight, step - bias - layer.neuron.v_leak, step


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_dense_networks_send_what_a_loop_over_whole_numbers_gives(seed):
    integer = quantize(network(seed), format="akida")
    x = np.random.default_rng(seed).integers(0, 16, (5, 4, 7))  # each step is a frame: nothing is kept
    run = simulate(integer, x, record=("spikes",))
    for t in range(len(x)):
        for b in range(x.shape[1]):
            values = [int(v) for v in x[t, b]]
            for layer, weight, threshold, step in read_layers(integer):
                sums = [sum(int(w) * v for w, v in zip(row, values, strict=True)) for row in weight]
                if step is None:
                    assert run.output[t, b].tolist() == [p + int(n) for p, n in zip(sums, threshold, strict=True)]
                    continue
                values = [min(max(-((int(h) - p) // int(a)), 0), 15) for p, h, a in zip(sums, threshold, step, strict=True)]
                assert run.spikes[layer.name][t, b].tolist() == values


@pytest.mark.parametrize("bits", [2, 4])
def test_numbers_are_whole_and_of_the_width(bits):
    integer = quantize(network(3, convolves=True), format="akida", weight_bits=bits)
    for layer, weight, threshold, step in read_layers(integer):
        assert np.abs(weight).max() == 2 ** (bits - 1) - 1 and (weight == np.rint(weight)).all()
        assert (threshold == np.rint(threshold)).all() and (step is None or ((step >= 1) & (step == np.rint(step))).all())
        assert layer.name in integer.metadata["quantization"]["scale"]
    assert quantize(integer, format="akida") is integer


def one(neuron, **options):
    return chain([Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=neuron, **options)], input_shape=(2,), dt_s=DT)


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (one(IF()), UnsupportedError, "layer 'a': IF keeps a potential from one step to the next, .*; use LIF or LI with ta"),
        (one(LIF(tau_s=2e-3)), UnsupportedError, "layer 'a': LIF keeps a potential"),
        (one(LIF(tau_s=DT, max_spikes=16)), UnsupportedError, "layer 'a': 16 spikes a step, Akida sends up to 15; set"),
        (one(LIF(tau_s=DT, max_spikes=None)), UnsupportedError, "layer 'a': any number of spikes a step"),
        (one(LIF(tau_s=DT, v_threshold=-1.0)), QuantizationError, "layer 'a': v_threshold -1, a step of Akida lies above 0"),
        (one(LIF(tau_s=DT, v_threshold=0.0)), QuantizationError, "layer 'a': v_threshold 0, a step of Akida lies above 0"),
        (one(LIF(tau_s=DT, v_threshold=74_898.3)), QuantizationError, "layer 'a': a threshold of 524,288 .* holds 1..524,287"),
        (one(LIF(tau_s=DT, v_threshold=1e6)), QuantizationError, "layer 'a': a threshold of 7,000,000 .* holds 1..524,287"),
    ],
)  # fmt: skip
def test_what_akida_lacks_is_refused_by_name(graph, error, message):
    with pytest.raises(error, match=message):
        quantize(graph, format="akida")


def biased(bias, v_leak=0.0, pool=None):
    """Return a network whose scale is 7, or 28 behind a mean of four."""
    neuron = LIF(tau_s=DT, v_leak=v_leak, max_spikes=15)
    conv = Conv2d(weight=np.ones((2, 1, 1, 1)), bias=np.array([bias, 0.0]))
    if pool is None:
        layers = [Layer(name="a", synapse=conv, neuron=neuron)]
    else:
        layers = [Layer(name="w", synapse=conv), Layer(name="a", synapse=pool(kernel_size=(2, 2)), neuron=neuron)]
    return chain(layers, input_shape=(1, 4, 4), dt_s=DT)


@pytest.mark.parametrize(
    ("held", "beyond", "message"),
    [
        (biased(-74_897.0), biased(-74_898.0), "layer 'a': a threshold less bias and leak of 524,293 beside weights of 4 bits"),
        (biased(-74_897.15), biased(-74_897.3), "of 524,288 "),
        (biased(74_899.0), biased(74_900.0), "of -524,293 .* holds -524,287..524,287"),
        (biased(-70_000.0, -4_897.0), biased(-70_000.0, -4_898.0), "of 524,293"),
        (biased(-18_724.0, pool=SumPool), biased(-18_725.0, pool=SumPool), "of 524,307"),
        (biased(-18_723.0, pool=AvgPool), biased(-18_724.0, pool=AvgPool), "of 524,300"),
        (biased(-74_897.0), biased(0.0, -74_898.0), "of 524,293 .*; bring bias and v_leak closer to 0"),
    ],
)
def test_a_threshold_has_20_bits_with_the_bias_and_the_leak_that_it_holds(held, beyond, message):
    integer = quantize(held, format="akida")
    assert integer["a"].neuron.v_threshold.max() <= 28
    with pytest.raises(QuantizationError, match=message):
        quantize(beyond, format="akida")


def test_thresholds_are_whole_numbers_from_1_to_20_bits():
    for threshold, stored in ((0.05, 1), (0.5, 4), (74_898.15, 2**19 - 1)):
        neuron = quantize(one(LIF(tau_s=DT, v_threshold=threshold, max_spikes=15)), format="akida")["a"].neuron
        assert neuron.v_threshold.tolist() == stored and neuron.max_spikes == 15


def layer_of(weight):
    layer = Layer(name="a", synapse=Dense(weight=np.array(weight)), neuron=LIF(tau_s=DT, max_spikes=3))
    return chain([layer], input_shape=(len(weight[0]),), dt_s=DT)


@pytest.mark.parametrize(("bits", "largest"), [(4, 7), (3, 3), (2, 1)])
def test_the_scale_is_the_largest_of_those_with_the_smallest_squared_error(bits, largest):
    """Of sixteenths of the one at which the largest weight is the largest number."""
    for seed in range(20):
        weight = np.random.default_rng(seed).normal(size=(2, 3 + seed % 4))
        integer = quantize(layer_of(weight), format="akida", weight_bits=bits)
        scales = [k / (16 * np.abs(weight).max()) for k in range(1, 16 * largest + 1)]
        errors = [((np.clip(np.rint(weight * s), -largest, largest) / s - weight) ** 2).sum() for s in scales]
        best = max(s for s, error in zip(scales, errors, strict=True) if error <= min(errors) * (1 + 1e-9))
        assert integer.metadata["quantization"]["scale"]["a"] == pytest.approx(best, rel=1e-12)
        np.testing.assert_array_equal(integer["a"].synapse.weight, np.clip(np.rint(weight * best), -largest, largest))


def test_weights_that_are_whole_numbers_times_one_stay_and_weights_of_zero_have_scale_1():
    integer = quantize(layer_of([[1.0, -1.0, 3 / 7, 0.0]]), format="akida")
    assert integer["a"].synapse.weight.tolist() == [[7, -7, 3, 0]]
    facts = integer.metadata["quantization"]
    assert (facts["unit"], facts["offset"], facts["input_events_max"]) == (1, {"a": 0.0}, 15) and "input_scale" not in facts
    assert quantize(layer_of([[0.0, 0.0]]), format="akida").metadata["quantization"]["scale"] == {"a": 1.0}
    assert quantize(layer_of([[1.0]]), format="akida", kind="current").metadata["quantization"]["input_scale"] == 15


def test_currents_that_add_up_are_refused():
    layers = [Layer(name=name, synapse=Dense(weight=np.eye(2))) for name in ("a", "b")]
    graph = chain([*layers[:1], Layer(name="sum", neuron=LIF(tau_s=DT))], input_shape=(2,), dt_s=DT)
    edges = (*graph.edges, Edge(source="input", target="b"), Edge(source="b", target="sum"))
    graph = type(graph)(layers=(layers[0], layers[1], graph["sum"]), edges=edges, input_shape=(2,), output="sum", dt_s=DT)
    with pytest.raises(UnsupportedError, match="layer 'sum': currents of a, b that add up, Akida adds none; merge them"):
        quantize(graph, format="akida")


def test_an_integrator_does_not_fit_and_adapt_is_named():
    report = api.check("digits", "akd1000")
    assert {row.resource for row in report.unsupported} >= {"time_constant"}


def run_in_akida(python, environment, folder, integer, x):
    """Return the potentials (N, outputs) of akida's software back end for frames."""
    job = {"x": x}
    for k, (layer, weight, threshold, step) in enumerate(read_layers(integer)):
        job[f"weights{k}"] = weight
        if isinstance(layer.synapse, Conv2d):
            job[f"stride{k}"] = layer.synapse.stride
        if step is not None:
            job |= {f"threshold{k}": threshold, f"act_step{k}": step}
    np.savez(folder / "job.npz", **job)
    command = [python, SCRIPT, folder / "job.npz", folder / "out.npz"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as theirs:
        return theirs["potentials"] + threshold


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_akida_s_software_back_end_has_the_same_potentials(tmp_path):
    try:
        python, environment = install("akida", tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"akida: {reason}")
    compared = 0
    for seed in range(30):
        integer = quantize(network(seed, convolves=seed % 3 > 0), format="akida")
        x = np.random.default_rng(seed).integers(0, 16, (20, *integer.input_shape))
        ours = simulate(integer, x[None]).output[0]
        np.testing.assert_array_equal(ours, run_in_akida(python, environment, tmp_path, integer, x))
        compared += ours.size
    assert compared == 1800
