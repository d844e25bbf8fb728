"""Weights and biases that drive neurons against the network's own sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize, quantize_input, xylo
from spear_deploy.quantize.explain.findings import find_changed_parameters
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.quantize.weight_levels import WEIGHTS_LOST
from spear_deploy.quantize.weighted_inputs import LoweringSettings, NeuronInput, collect_neuron_inputs
from spear_deploy.simulator import simulate

CHANNELS = np.array([0.5, 1.0, 2.0])
"""A gain for each of three channels."""
rng = np.random.default_rng(0)
CONV = Conv2d(weight=rng.normal(size=(3, 2, 2, 2)), bias=rng.normal(size=3))
SCALES = {
    "one": Scale(weight=np.array(1.5), bias=np.array(0.25)),
    "channel": Scale(weight=rng.normal(size=(3, 1, 1)), bias=rng.normal(size=(3, 1, 1))),
    "neuron": Scale(weight=rng.normal(size=(3, 4, 4)), bias=rng.normal(size=(3, 4, 4))),
    "both": Scale(weight=rng.normal(size=(3, 1, 1)), bias=rng.normal(size=(3, 4, 4))),
    "rows": Scale(weight=rng.normal(size=(3, 1, 1)), bias=rng.normal(size=(3, 4, 1))),
}
NEXT: dict[str, list[Layer]] = {
    "": [],
    "flat": [Layer(name="flat", synapse=Flatten())],
    "means": [Layer(name="means", synapse=AvgPool(kernel_size=(2, 2)))],
    "means, flat": [Layer(name="means", synapse=AvgPool(kernel_size=(2, 2))), Layer(name="flat", synapse=Flatten())],
}


def network(weights: Any, way: str, gain: np.ndarray, shape: tuple[int, ...]) -> SNNGraph:
    """Return weights, what lies behind them, and neurons whose potential is `gain` times their input."""
    layers = [Layer(name="w", synapse=weights), *NEXT[way]]
    layers.append(Layer(name="n", neuron=IF(r=gain, v_threshold=1e9)))
    return chain(layers, input_shape=shape)


def gain_of(shape: tuple[int, ...], channels: np.ndarray) -> np.ndarray:
    """Return the gain of each channel in a shape that broadcasts to neurons of a map, or of its flattened values."""
    if len(shape) == 3:
        return channels.reshape(-1, 1, 1)
    return np.repeat(channels, shape[0] // len(channels))


def drive(graph: SNNGraph, x: np.ndarray) -> np.ndarray:
    """Return what reaches the neurons in a step, times their gain."""
    return simulate(graph, x, record=("v",), dtype=np.float64).v["n"][0]


CASES = [("conv", way) for way in NEXT] + [
    (kind, way) for kind in SCALES for way in NEXT if kind != "neuron" or "means" not in way
]


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_synapses_times_the_gain_of_the_neurons_drive_them_as_the_gain_does(kind: str, way: str):
    weights: Any = CONV if kind == "conv" else SCALES[kind]
    shape = (2, 5, 5) if kind == "conv" else (3, 4, 4)
    out = network(weights, way, np.ones(()), shape).shape_of("n")
    channels = CHANNELS if kind != "one" else np.full(3, 1.75)
    graph = network(weights, way, gain_of(out, channels), shape)
    x = (np.random.default_rng(1).random((1, 2, *shape)) < 0.5).astype(np.uint8)
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    scaled = layer.multiply_synapses(layer.factors["r"])["w"]
    alone = replace(scaled, bias=scaled.bias * layer.bias_factors["w"])
    summed = network(alone, way, np.ones(()), shape).with_layers(replace_mean_by_sum)
    np.testing.assert_allclose(drive(summed, x), drive(graph, x), atol=1e-12)
    bias = drive(graph, np.zeros_like(x))  # the mean of a bias is the bias
    held = layer.broadcast_bias("w", np.asarray(scaled.bias))
    np.testing.assert_allclose(np.broadcast_to(held, bias.shape), bias, atol=1e-12)
    if kind in ("conv", "channel") and "flat" not in way:
        assert held.shape == (3, 1, 1)  # what is equal in a channel stays one number


@pytest.mark.parametrize("kind", ["conv", "one", "channel", "both"])
@pytest.mark.parametrize("pool", [None, SumPool(kernel_size=(2, 2)), AvgPool(kernel_size=(2, 2), padding=(1, 1))])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_a_bias_reaches_the_neurons_along_every_way_as_often_as_it_is_added(kind: str, pool: Any, flat: bool, twice: bool):
    """`w` drives the neurons along one way or two equal ones; what they get without a spike is the bias."""
    shape = (2, 5, 5) if kind == "conv" else (3, 4, 4)
    layers = [Layer(name="w", synapse=CONV if kind == "conv" else SCALES[kind])]
    layers += [Layer(name=name, synapse=pool) for name in (("p", "q") if twice else ("p",))]
    layers.append(Layer(name="n", synapse=Flatten() if flat else None, neuron=IF(v_threshold=1e9)))
    edges = [Edge(source="input", target="w")]
    edges += [
        edge for layer in layers[1:-1] for edge in (Edge(source="w", target=layer.name), Edge(source=layer.name, target="n"))
    ]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, output="n")
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    wanted = drive(graph, np.zeros((1, 2, *shape), np.uint8))
    bias = np.asarray(layer.stored["w"].bias)
    np.testing.assert_allclose(np.broadcast_to(layer.broadcast_bias("w", bias), wanted.shape), wanted, atol=1e-12)
    sources = layer.find_bias_sources("w", bias)
    if sources is None:
        assert pool is not None and kind == "both"
    else:
        index, count = sources
        assert pool is None or kind != "both"
        np.testing.assert_allclose(np.broadcast_to(bias.reshape(-1)[index] * count, wanted.shape), wanted, atol=1e-12)
    assert layer.count_summed("w") == (2 if twice else 1) * (1 if pool is None else 4)


def test_a_gain_that_differs_inside_a_channel_is_refused():
    gain = np.linspace(1, 2, 48).reshape(3, 4, 4)
    (layer,) = collect_neuron_inputs(network(CONV, "", gain, (2, 5, 5)), "spikes", 1.0)
    with pytest.raises(UnsupportedError, match="layer 'w': time constants, thresholds or r differ inside a channel"):
        layer.multiply_synapses(gain)


@pytest.mark.parametrize("kind", ["spikes", "current"])
def test_means_and_a_scaled_input_go_into_the_weights(kind: Any):
    """Sums in place of means, and an input of four times the values, drive the neurons as before."""
    layers = [
        Layer(name="before", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="w", synapse=replace(CONV, bias=None)),
        Layer(name="means", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="n", neuron=IF(v_threshold=1e9)),
    ]
    graph = chain(layers, input_shape=(2, 6, 6))
    x = np.random.default_rng(1).integers(0, 2, (1, 2, 2, 6, 6))
    (layer,) = collect_neuron_inputs(graph, kind, 4.0)
    (other,) = collect_neuron_inputs(graph, kind, 1.0)
    summed = graph.with_layers(replace_mean_by_sum)
    weights = summed.with_layers({"w": replace(summed["w"], synapse=layer.synapses["w"])})
    sent = x * (4 if kind == "current" else 1)
    np.testing.assert_allclose(
        simulate(weights, sent.astype(float), kind="current", record=("v",), dtype=np.float64).v["n"],
        simulate(graph, x.astype(float), kind="current", record=("v",), dtype=np.float64).v["n"],
        atol=1e-12,
    )
    assert layer.analogue == (frozenset({"w"}) if kind == "current" else frozenset())
    assert layer.weight_factors["w"] * (4 if kind == "current" else 1) == other.weight_factors["w"] == 1 / 16
    assert layer.bias_factors["w"] == 1 / 4


@pytest.mark.parametrize("family", ["loihi", "truenorth", "spinnaker"])
@pytest.mark.parametrize("pool", [AvgPool, SumPool])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", ["conv", "both"])
def test_a_bias_before_a_pool_reaches_the_neurons_as_often_as_the_pool_adds_it(family, pool, padding, flat, kind):
    """Spikes of the integers are those of the network, but for a few where weights are rounded."""
    draw = np.random.default_rng(1)
    if kind == "conv":
        weights: Any = Conv2d(weight=draw.normal(size=(3, 2, 2, 2)) / 4, bias=np.array([0.1, -0.05, 0.2]))
    else:
        weights = Scale(weight=np.full((2, 1, 1), 0.3), bias=draw.normal(size=(2, 5, 5)) / 4)
    neuron = LIF(tau_s=0.005, r=9.0) if family == "spinnaker" else IF()
    layers = [Layer(name="w", synapse=weights), Layer(name="pool", synapse=pool(kernel_size=(2, 2), padding=padding))]
    layers += [Layer(name="flat", synapse=Flatten())] if flat else []
    graph = chain([*layers, Layer(name="n", neuron=neuron)], input_shape=(2, 5, 5))
    x = draw.random((10, 4, 2, 5, 5)) < 0.3
    integer = quantize(graph, format=family)
    ours, theirs = simulate(graph, x, dtype=np.float64), simulate(integer, x)
    assert theirs.overflows == {} and ours.output.mean() > 0.02
    assert np.mean(ours.output != theirs.output) <= (0.11 if family == "truenorth" else 0.01)


ONE_TO_ONE: dict[str, Any] = {
    "none": None,
    "one": Scale(weight=np.array(0.7)),
    "each": Scale(weight=np.random.default_rng(7).uniform(0.5, 1, (2, 3, 3))),
}
SPIKING: dict[str, Any] = {
    "loihi": IF(reset="subtract"),
    "speck": IF(reset="subtract"),
    "truenorth": IF(),
    "spinnaker": LIF(tau_s=0.004, r=3.0),
    "reckon": LIF(tau_s=0.01, r=10.0),
}


@pytest.mark.parametrize("family", SPIKING)
@pytest.mark.parametrize("weights", ONE_TO_ONE)
@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.parametrize("kind", ["spikes", "current"])
def test_inputs_that_reach_neurons_one_by_one_are_quantised_and_run(family: Any, weights: str, on_data: bool, kind: Any):
    """Without weights, with one for all and with one each: a shift of the chip is in the weights of a `Scale`."""
    if kind == "current" and (family in ("truenorth", "reckon") or not on_data):
        return  # refused; the levels of a current are chosen on data
    graph = chain([Layer(name="n", synapse=ONE_TO_ONE[weights], neuron=SPIKING[family])], input_shape=(2, 3, 3))
    draw = np.random.default_rng(1)
    x = draw.random((10, 4, 2, 3, 3)) if kind == "current" else draw.random((10, 4, 2, 3, 3)) < 0.4
    integer = quantize(graph, format=family, calibration=x if on_data else None, kind=kind)
    assert integer["n"].synapse.weight_exponent == 0  # type: ignore[union-attr]
    run = simulate(integer, quantize_input(integer, x, kind), kind=kind)
    wanted = simulate(graph, x, kind=kind, dtype=np.float64).output
    assert run.overflows == {} and wanted.mean() > 0.05
    assert np.mean(run.output != wanted) < (0.08 if family == "speck" and kind == "current" else 0.03)


def test_options_that_are_not_given_are_those_of_the_chip():
    """Without a scale of the input a current is sent as it is; Xylo's hidden neurons send 31 spikes and an input takes 15."""
    hidden = Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=LIF(tau_s=0.004, reset="subtract", max_spikes=None))
    readout = Layer(name="b", synapse=Dense(weight=np.eye(2)), neuron=LI(tau_s=0.004))
    integer = xylo.lower(chain([hidden, readout], input_shape=(2,)), LoweringSettings(weight_bits=8, kind="current"))
    facts: Any = integer.metadata["quantization"]
    assert (facts["input_scale"], facts["input_events_max"], integer["a"].neuron.max_spikes) == (1.0, 15, 31)  # type: ignore[union-attr]


def test_potentials_are_measured_from_the_reset_the_leak_or_zero():
    def levels(neuron: Any) -> NeuronInput:
        (layer,) = collect_neuron_inputs(network_of(neuron), "spikes", 1.0)
        return layer

    def network_of(neuron: Any) -> SNNGraph:
        return chain(
            [Layer(name="n", synapse=SumPool(kernel_size=(1, 1))), Layer(name="fc", synapse=CONV, neuron=neuron)],
            input_shape=(2, 5, 5),
        )

    lif: dict[str, Any] = {"tau_s": 0.004, "v_leak": 0.25, "v_reset": 0.5, "v_threshold": 2.0}
    for neuron, level, threshold in ((LIF(**lif), 0.5, 1.5), (LIF(**lif, reset="subtract"), 0.0, 2.0)):
        layer = levels(neuron)
        assert (float(layer.level), float(layer.threshold), layer.readout) == (level, threshold, False)
    assert (float(levels(LI(tau_s=0.004, v_leak=0.25)).level), levels(LI(tau_s=0.004)).readout) == (0.25, True)


@pytest.mark.parametrize("format", ["loihi", "truenorth"])
def test_a_bias_that_arrives_late_is_refused_and_weights_that_arrive_late_are_not(format: Any) -> None:
    weights = np.eye(3, dtype=np.float32)
    edges = (Edge(source="input", target="w"), Edge(source="w", target="n", delay=3))

    def late(bias: float) -> SNNGraph:
        dense = Dense(weight=weights, bias=np.full(3, bias, np.float32))
        layers = (Layer(name="w", synapse=dense), Layer(name="n", neuron=IF(v_threshold=0.9)))
        return SNNGraph(layers=layers, edges=edges, input_shape=(3,), dt_s=1e-3)

    x = np.ones((6, 1, 3), np.float32)
    integers = quantize(late(0.0), format=format)
    spikes = [simulate(graph, x, record=("spikes",)).spikes["n"].sum((1, 2)).tolist() for graph in (late(0.0), integers)]
    assert spikes == [[0, 0, 0, 3, 3, 3]] * 2
    with pytest.raises(UnsupportedError, match="'w': its bias reaches 'n' 3 steps late, the chip's neurons hold it"):
        quantize(late(0.5), format=format)


@pytest.mark.parametrize(("leaks", "level"), [([0.0, 1.0], 0.5), ([0.25, 0.25], 0.25), ([-1.0, 2.0], 0.5)])
def test_the_zero_of_a_readout_is_the_mean_of_its_leaks(leaks, level):
    layer = Layer(
        name="out", synapse=Dense(weight=np.ones((2, 3), np.float32)), neuron=LI(tau_s=4e-3, v_leak=np.array(leaks, np.float32))
    )
    (inputs,) = collect_neuron_inputs(chain([layer], input_shape=(3,)), "spikes", 1.0)
    assert np.unique(inputs.level).tolist() == [level]


def biased(bias: float, neuron: Any, weight: float = 1.0) -> SNNGraph:
    synapse = Dense(weight=np.full((2, 3), weight), bias=np.array([bias, 0.0]))
    return chain([Layer(name="fc", synapse=synapse, neuron=neuron)], input_shape=(3,))


LOST: list[tuple[Any, Any]] = [
    ("loihi", IF()),
    ("loihi", LIF(tau_s=0.02)),
    ("loihi", CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)),
    ("loihi", LI(tau_s=0.02)),
    ("xylo", CubaLI(tau_mem_s=0.02, tau_syn_s=0.01)),
]


@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.parametrize(("format", "neuron"), LOST)
def test_weights_of_which_a_bias_leaves_nothing_are_a_finding_and_a_note(format: Any, neuron: Any, on_data: bool):
    """All weights were 0, the neurons took no spike, and nothing said so."""
    x = np.random.default_rng(0).random((8, 2, 3)) < 0.5
    for bias in (1e6, 1e-3):
        graph = biased(bias, neuron)
        integer = quantize(graph, format=format, calibration=x if on_data else None)
        lost = [finding for finding in integer.metadata["quantization"].get("findings", ()) if finding["what"] == WEIGHTS_LOST]
        assert integer["fc"].synapse.weight.any() == (not lost) == (bias < 1), bias  # type: ignore[union-attr]
        if lost:
            assert lost == [{"layer": "fc", "what": WEIGHTS_LOST, "given": 1.0, "stored": 0.0, "bias": 1e6}]
            text = (
                "layer 'fc': all its weights, of up to 1, round to 0 at the scale of its bias of up to 1e+06, so that its "
                "neurons take no spikes; lower the bias"
            )
            assert [found.text for found in find_changed_parameters(integer) if found.code == WEIGHTS_LOST] == [text]
            assert f"weights: {text}" in check(integer, load_profile("loihi2" if format == "loihi" else "xylo_audio2")).notes
            if format == "loihi":  # a network of one layer reads Xylo's input at its outputs, and is not quantised
                assert f"weights: {text}" in check(graph, load_profile("loihi2")).notes


def test_weights_far_below_those_beside_them_are_a_finding_too():
    layers = [Layer(name=name, synapse=Dense(weight=np.full((2, 3), w))) for name, w in (("a", 1.0), ("b", 1e-6))]
    edges = tuple(Edge(source=s, target=t) for s, t in (("input", "a"), ("input", "b"), ("a", "n"), ("b", "n")))
    graph = SNNGraph(layers=(*layers, Layer(name="n", neuron=IF())), edges=edges, input_shape=(3,))
    integer = quantize(graph, format="loihi")
    (found,) = (found for found in find_changed_parameters(integer) if found.code == WEIGHTS_LOST)
    assert found.text == (
        "layer 'b': all its weights, of up to 1e-06, round to 0 at the scale of its neurons, so that its neurons take no spikes; "
        "bring them to one size, or merge layers of weights whose sums add up"
    )


@pytest.mark.parametrize(
    ("format", "neuron", "message"),
    [
        ("truenorth", IF(), "is outside what TrueNorth holds beside weights of 9 bits with a bias of up to 1e.06; raise it or "
         "bound the weights and the bias"),
        ("xylo", LIF(tau_s=0.02, reset="subtract"), "rounds to 0 where its weights take 8 bits with a bias of up to 1e.06, "
         "Xylo holds 1..32767; raise it or bound the weights and the bias"),
        ("speck", IF(reset="subtract"), "rounds to 0 beside weights and bias up to 1e.06 of 8 bits"),
    ],
)  # fmt: skip
def test_a_threshold_that_a_bias_leaves_no_room_for_is_refused_with_the_bias(format: Any, neuron: Any, message: str):
    with pytest.raises(QuantizationError, match=f"layer 'fc': v_threshold 1 {message}"):
        quantize(biased(1e6, neuron), format=format)


@pytest.mark.parametrize(("bias", "words"), [(None, ""), (0.4, ""), (0.5, ""), (0.6, " with a bias of up to 0.6")])
def test_a_threshold_is_named_beside_a_bias_that_is_above_it(bias: float | None, words: str):
    synapse = Dense(weight=np.ones((2, 3)), bias=None if bias is None else np.array([-bias, 0.0]))
    graph = chain([Layer(name="fc", synapse=synapse, neuron=IF(v_threshold=np.asarray(0.5)))], input_shape=(3,))
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    assert layer.beside_bias == words


def test_the_potential_that_is_0_in_integers_is_one_number_or_one_of_each_neuron():
    neurons = [
        (IF(v_reset=np.asarray(-0.5)), -0.5),
        (IF(v_reset=np.array([-0.5, -0.5])), -0.5),
        (IF(v_reset=np.array([-0.5, -0.25])), [-0.5, -0.25]),
    ]
    for neuron, offset in neurons:
        graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=neuron)], input_shape=(3,))
        (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
        assert layer.offset == offset and type(layer.offset) is type(offset)
