"""Networks read back from their integers: the same sums, the same biases, the same grids."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale
from spear_deploy.network.graph import INPUT, SNNGraph, chain
from spear_deploy.quantize import quantize, quantize_input
from spear_deploy.quantize.rounding import _read_format, find_learnt_scales, read_rounding, stands_for
from spear_deploy.simulator import simulate
from spear_deploy.simulator.stepper import synaptic_input
from spear_deploy.simulator.synapse_math import apply_synapse
from tests.support.akida_networks import network as akida_network

CUBA: dict[str, Any] = {"tau_mem_s": 4.7e-3, "tau_syn_s": 2.6e-3, "w_in": 2.6}
LEAKS: dict[str, Any] = {"tau_s": 9.3e-3, "r": 4.0}
LEVELS: dict[str, Any] = {"v_leak": 0.125, "v_reset": 0.25}


def dense(neuron: Any, readout: Any, bias: float, seed: int = 0) -> SNNGraph:
    """Return six inputs, five hidden neurons, two outputs."""
    rng = np.random.default_rng(seed)

    def layer(name: str, shape: tuple[int, int], neuron: Any) -> Layer:
        biases = rng.normal(0, bias, shape[0]).astype(np.float32)
        return Layer(
            name=name,
            synapse=Dense(weight=rng.normal(0, 0.6, shape).astype(np.float32), bias=biases if bias else None),
            neuron=neuron,
        )

    return chain([layer("hidden", (5, 6), neuron), layer("out", (2, 5), readout)], input_shape=(6,))


def pooled(neuron: Any, readout: Any, seed: int = 1) -> SNNGraph:
    """Return a convolution with a bias whose means drive the neurons, and a dense layer behind a flatten."""
    rng = np.random.default_rng(seed)
    conv = Conv2d(weight=rng.normal(0, 0.6, (3, 1, 3, 3)).astype(np.float32), bias=np.array([0.3, -0.2, 0.5], np.float32))
    layers = [
        Layer(name="conv", synapse=conv),
        Layer(name="hidden", synapse=AvgPool(kernel_size=(2, 2)), neuron=neuron),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=rng.normal(0, 0.6, (2, 12)).astype(np.float32)), neuron=readout),
    ]
    return chain(layers, input_shape=(1, 6, 6))


CASES: dict[str, SNNGraph] = {
    "loihi": dense(LIF(tau_s=2.3e-3, **LEVELS), LI(tau_s=2e-3, v_leak=0.5), 0.2),
    "loihi, large biases": dense(LIF(tau_s=2.3e-3, reset="subtract", v_leak=0.5), LI(tau_s=2e-3), 40.0),
    "loihi, subtract": dense(LIF(tau_s=2.3e-3, reset="subtract", **LEVELS), IF(), 0.2),
    "loihi, current": dense(CubaLIF(**CUBA, **LEVELS), CubaLI(**CUBA, v_leak=0.25), 0.2),
    "loihi, each": dense(LIF(tau_s=2.3e-3, r=np.linspace(1, 2, 5), v_leak=0.125), CubaLI(**CUBA, r=np.array([1.0, 3.0])), 0.2),
    "loihi, means": pooled(LIF(tau_s=2.3e-3, v_leak=0.125), LI(tau_s=2e-3)),
    "speck": dense(IF(reset="subtract", v_reset=0.25), IF(reset="subtract"), 0.2),
    "speck, means": pooled(IF(reset="subtract"), IF()),
    "xylo": dense(CubaLIF(**CUBA, reset="subtract", v_leak=0.125), CubaLI(**CUBA, v_leak=0.5), 0.2),
    "xylo, without a current": dense(LIF(tau_s=4e-3, reset="subtract", v_leak=0.125), LI(tau_s=5e-3), 0.2),
    "truenorth": dense(IF(reset="subtract"), IF(v_reset=0.25), 0.2),
    "truenorth, means": pooled(IF(reset="subtract"), IF()),
    "reckon": dense(LIF(**LEAKS), LI(**LEAKS), 0.0),
    "reckon, without leak": dense(IF(), IF(reset="subtract"), 0.0),
    "reckon, leaks stored as none": dense(LIF(tau_s=100.0, r=4e4), LI(tau_s=0.3, r=100.0), 0.0),
    "loihi, leaks stored as none": dense(LIF(tau_s=20.0, r=8e3), CubaLI(tau_mem_s=4e-3, tau_syn_s=20.0, w_in=2e4), 0.2),
    "loihi, leaks of some stored as none": dense(
        LIF(tau_s=np.array([2e-3, 20, 3e-3, 20, 30]), r=np.array([1, 8e3, 1, 8e3, 8e3])), LI(tau_s=2e-3), 0.2
    ),
}


@pytest.mark.parametrize(
    ("bits", "on_data"),
    [(8, True), (4, False), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(8, False), (4, True)])],
)
@pytest.mark.parametrize("name", CASES)
def test_sums_and_neurons_of_what_is_read_are_those_of_the_integers(name: str, bits: int, on_data: bool):
    """gain · (sum in floating point − biases of the neurons) is the sum of the integers, and with the biases their neurons."""
    graph, family, rng = CASES[name], name.split(",")[0], np.random.default_rng(2)
    x = rng.random((12, 3, *graph.input_shape)) < 0.4
    options: Any = {"format": family, "weight_bits": bits, "calibration": x if on_data else None}
    learnt = read_rounding(graph, quantize(graph, **options)).graph
    integer = quantize(learnt, **options)
    rounding = read_rounding(learnt, integer)
    assert set(rounding.neurons) == {"hidden", "out"} and rounding.input_scale is None
    emitted = {INPUT: x.astype(np.int64)} | {"hidden": rng.integers(0, 2, (12, 3, *graph.shape_of("hidden")))}
    for layer, stored in rounding.neurons.items():
        biases = {source: np.asarray(rounding.graph[source].synapse.bias) for source in stored.biases}  # type: ignore[union-attr]
        held, theirs = stored.hold_biases(biases), integer[layer].neuron
        for field in fields(held):
            np.testing.assert_array_equal(getattr(held, field.name), getattr(theirs, field.name), err_msg=field.name)
        ours = floating_input(rounding.graph, layer, emitted) - stored.sum_biases(biases)
        wanted = synaptic_input(integer, layer, emitted)
        np.testing.assert_allclose(ours * stored.gain, wanted, atol=1e-3 * max(1.0, float(np.abs(wanted).max()) / 100))
    assert stands_for(rounding.graph, integer)
    moved = {layer.name: _shift_weights(layer) for layer in rounding.graph.layers if layer.name == "out"}
    assert not stands_for(rounding.graph.with_layers(moved), integer)


def floating_input(graph: SNNGraph, name: str, emitted: dict[str, np.ndarray]) -> np.ndarray:
    """Return what drives a layer in floating point: (T, B, *shape)."""
    (edge,) = graph.edges_into(name)
    source = edge.source
    spikes = emitted[source] if source in emitted else floating_input(graph, source, emitted)
    flat = apply_synapse(graph[name].synapse, spikes.reshape(-1, *spikes.shape[2:]).astype(np.float64))
    return flat.reshape(*spikes.shape[:2], *flat.shape[1:])


def _shift_weights(layer: Layer) -> Layer:
    synapse: Any = layer.synapse
    steps = np.diff(np.unique(np.abs(synapse.weight)))
    return replace(layer, synapse=replace(synapse, weight=synapse.weight + 0.4 * float(steps[steps > 1e-7].min())))


@pytest.mark.parametrize("name", ["reckon, leaks stored as none", "loihi, leaks stored as none"])
def test_a_decay_that_is_stored_as_none_keeps_the_time_constant_of_the_network(name: str):
    """A readout of ReckOn holds 7 bits of its decay: 300 steps keep all 128 of 128 in a step."""
    graph = CASES[name]
    integer: Any = quantize(graph, format=name.split(",")[0])  # type: ignore[arg-type]
    read: Any = read_rounding(graph, integer).graph
    if name.startswith("reckon"):
        assert integer["out"].neuron.keep == 2**7 and integer["hidden"].neuron.keep == 2**15
        assert [read[layer].neuron.tau_s for layer in ("hidden", "out")] == pytest.approx([100.0, 0.3])
    else:
        assert integer["hidden"].neuron.decay_v == 0 and integer["out"].neuron.decay_u == 0
        assert read["hidden"].neuron.tau_s == 20 and read["out"].neuron.tau_syn_s == 20
        assert read["out"].neuron.w_in == 2e4 and read["out"].neuron.tau_mem_s == 4e-3
    again: Any = quantize(read, format=name.split(",")[0])  # type: ignore[arg-type]
    x = np.random.default_rng(3).random((40, 2, 6)) < 0.4
    for layer in ("hidden", "out"):
        np.testing.assert_array_equal(again[layer].synapse.weight, integer[layer].synapse.weight)
    np.testing.assert_array_equal(simulate(again, x).output, simulate(integer, x).output)


@pytest.mark.parametrize("name", ["loihi, current", "xylo"])
def test_a_spike_is_as_large_a_current_with_the_time_constants_of_the_chip(name: str):
    """A step of the current is w_in · dt / tau_syn; between powers of two Xylo's time constants differ from the network's."""
    graph = CASES[name]
    read = read_rounding(graph, quantize(graph, format=name.split(",")[0])).graph  # type: ignore[arg-type]
    for layer in ("hidden", "out"):
        before, after = graph[layer].neuron, read[layer].neuron
        assert after.tau_syn_s != before.tau_syn_s  # type: ignore[union-attr]
        assert after.w_in / after.tau_syn_s == pytest.approx(before.w_in / before.tau_syn_s, rel=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["loihi", "loihi, subtract", "speck", "xylo", "truenorth", "reckon"])
def test_scales_that_are_read_are_those_that_the_integers_are_made_with_again(name: str):
    graph, family = CASES[name], name.split(",")[0]
    x = np.random.default_rng(2).random((12, 3, *graph.input_shape)) < 0.4
    options: Any = {"format": family, "weight_bits": 4, "calibration": x}
    first = quantize(graph, **options)
    learnt = read_rounding(graph, first).graph
    assert set(find_learnt_scales(learnt, family, 4)) == {"hidden", "out"} and find_learnt_scales(learnt, family, 5) == {}
    integer = quantize(learnt, **options)
    again = quantize(read_rounding(learnt, integer).graph, **options)
    scales = [each.metadata["quantization"]["scale"] for each in (first, integer, again)]
    assert scales[0] == scales[1] == scales[2]
    for layer in integer.layers:
        np.testing.assert_array_equal(again[layer.name].synapse.weight, layer.synapse.weight)  # type: ignore[union-attr]
        assert again[layer.name].neuron == layer.neuron


def test_levels_of_a_current_are_part_of_the_sums():
    rng = np.random.default_rng(0)
    graph = CASES["loihi"]
    x = rng.uniform(-1, 1, (12, 3, 6))
    integer = quantize(graph, calibration=x, kind="current")
    rounding = read_rounding(graph, integer)
    sent = quantize_input(integer, x, "current")
    assert rounding.input_scale == pytest.approx(255 / np.abs(x).max()) and np.abs(sent).max() == 255
    stored = rounding.neurons["hidden"]
    biases = {"hidden": np.asarray(rounding.graph["hidden"].synapse.bias)}  # type: ignore[union-attr]
    ours = floating_input(rounding.graph, "hidden", {INPUT: sent / rounding.input_scale}) - stored.sum_biases(biases)
    wanted = synaptic_input(integer, "hidden", {INPUT: sent})
    assert np.abs(np.rint(ours * stored.gain) - wanted).max() <= 1


@pytest.mark.parametrize(("family", "neuron"), [("reckon", LIF(**LEAKS)), ("odin", IF(v_min=0.0))])
def test_biases_that_no_neuron_holds_stay_zero(family: Any, neuron: Any):
    layer = Layer(name="fc", synapse=Dense(weight=np.array([[1.0, 0.5], [0.25, 1.0]]), bias=np.zeros(2)), neuron=neuron)
    graph = chain([layer], input_shape=(2,))
    grid = read_rounding(graph, quantize(graph, format=family)).grids["fc", "bias"]
    assert (grid.low, grid.high) == (0, 0) and grid.snap(np.array([0.7, -1e9])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("family", "bound", "read_back"),
    [("truenorth", None, False), ("truenorth", -1.25, True), ("speck", None, True), ("speck", -0.5, True)],
)
def test_lower_bounds_are_read_where_the_network_has_one_or_the_chip_has_another(
    family: Any, bound: float | None, read_back: bool
):
    graph = dense(IF(reset="subtract", v_min=bound), IF(), 0.2)
    integer = quantize(graph, format=family)
    read, stored = read_rounding(graph, integer).graph["hidden"].neuron, integer["hidden"].neuron
    scale = integer.metadata["quantization"]["scale"]["hidden"]
    assert (read.v_min is not None) is read_back  # type: ignore[union-attr]
    assert not read_back or float(read.v_min) == pytest.approx(float(stored.v_min) / scale)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["loihi", "loihi, means", "xylo", "truenorth, means"])
def test_biases_that_neurons_hold_are_whole_numbers_of_theirs(name: str):
    graph = CASES[name]
    integer = quantize(graph, format=name.split(",")[0])  # type: ignore[arg-type]
    rounding, neuron = read_rounding(graph, integer), integer["hidden"].neuron
    unit = 64 / 2**neuron.bias_exponent if name.startswith("loihi") else 1  # type: ignore[union-attr]
    biases = rounding.neurons["hidden"].biases
    for source, each in biases.items():
        before, numbers = (
            np.asarray(net[source].synapse.bias) * each.gain / unit  # type: ignore[union-attr]
            for net in (rounding.latent, rounding.graph)
        )
        np.testing.assert_allclose(numbers, np.rint(before), atol=1e-3)
    assert len(biases) == 1


@pytest.mark.parametrize(("family", "largest"), [("spinnaker2", 127), ("brainscales", 63)])
def test_chips_whose_states_are_no_integers_change_weights_alone(family: Any, largest: int):
    graph = dense(CubaLIF(**CUBA, v_leak=0.0), CubaLIF(**CUBA), 0.2)
    rounded = quantize(graph, format=family)
    rounding = read_rounding(graph, rounded)
    assert rounding.neurons == {} and rounding.input_scale is None
    for name in ("hidden", "out"):
        before, after, theirs = (each[name] for each in (graph, rounding.graph, rounded))
        assert after.neuron == before.neuron == theirs.neuron
        np.testing.assert_array_equal(after.synapse.bias, before.synapse.bias)  # type: ignore[union-attr]
        np.testing.assert_allclose(after.synapse.weight, theirs.synapse.weight, rtol=1e-6)  # type: ignore[union-attr]
        grid, scale = rounding.grids[name, "weight"], rounded.metadata["quantization"]["scale"][name]
        assert (grid.low, grid.high, float(grid.unit)) == (-largest, largest, pytest.approx(1 / scale))
    assert stands_for(rounding.graph, rounded)


@pytest.mark.parametrize("seed", range(8))
def test_a_network_read_back_from_akida_sends_what_its_whole_numbers_send(seed: int):
    """A sum that meets a threshold sends nothing; weights end at 7, biases nowhere."""
    rng = np.random.default_rng(seed)

    def gain_channels(layer: Layer) -> Layer:
        if layer.neuron is None:
            return layer
        channels = layer.synapse.weight.shape[0]  # type: ignore[union-attr]
        shape = (channels, 1, 1) if isinstance(layer.synapse, Conv2d) else (channels,)
        return replace(layer, neuron=replace(layer.neuron, r=rng.uniform(1, 3, shape), v_leak=0.8))

    graph = akida_network(seed, convolves=seed % 2 == 1).with_layers(gain_channels)
    integer = quantize(graph, format="akida")
    rounding, scale = read_rounding(graph, integer), integer.metadata["quantization"]["scale"]["out"]
    x = rng.integers(0, 16, (5, 4, *graph.input_shape))
    wanted, ours = (simulate(each, x, record=("spikes",), dtype=np.float64) for each in (integer, rounding.graph))
    for name, spikes in wanted.spikes.items():
        np.testing.assert_array_equal(ours.spikes[name], spikes, err_msg=name)
    np.testing.assert_allclose(ours.output * scale, wanted.output, atol=1e-3)
    weights = [grid for (_, part), grid in rounding.grids.items() if part == "weight"]
    assert {(grid.low, grid.high) for grid in weights} == {(-7, 7)} and len(weights) == (4 if seed % 2 else 3)
    assert stands_for(rounding.graph, integer)


@pytest.mark.parametrize("name", ["xylo", "speck", "truenorth", "reckon", "loihi"])
def test_thresholds_lie_below_those_of_chips_that_spike_at_them(name: str):
    """By a ten-thousandth, at most by a quarter of a whole number; Loihi's lie where they are, since it spikes above."""
    graph, family = CASES[name], name.split(",")[0]
    integer = quantize(graph, format=family)  # type: ignore[arg-type]
    rounding, scale = read_rounding(graph, integer), integer.metadata["quantization"]["scale"]["hidden"]
    trained, read, stored = graph["hidden"].neuron, rounding.graph["hidden"].neuron, integer["hidden"].neuron
    level = float(trained.v_reset) if trained.reset == "value" else 0.0  # type: ignore[union-attr]
    below = float(stored.v_threshold) - (float(read.v_threshold) - level) * scale  # type: ignore[union-attr]
    expected = 0.0 if family == "loihi" else min(1e-4 * float(stored.v_threshold), 0.25)  # type: ignore[union-attr]
    assert below == pytest.approx(expected, abs=2e-3 * max(1.0, float(stored.v_threshold) / 1e4))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "bias", "low", "high", "unit"),
    [
        ("loihi", "bias_mantissa", -4095, 4095, 64),
        ("xylo", "bias", -(2**15), 2**15 - 1, 1),
        ("truenorth", "leak", -255, 255, 1),
        ("speck", "", 0, 0, 1),
        ("reckon", "", 0, 0, 1),
    ],
)
def test_biases_that_neurons_hold_end_at_the_format_and_potentials_have_its_unit(
    name: str, bias: str, low: int, high: int, unit: int
):
    graph = CASES[name]
    integer = quantize(graph, format=name)  # type: ignore[arg-type]
    for layer, stored in read_rounding(graph, integer).neurons.items():
        assert stored.unit == unit * integer.metadata["quantization"]["scale"][layer]
        assert (stored.bias_field, stored.bias_limits) == (bias, (low, high))
        if not bias:
            assert stored.hold_biases({}) is stored.neuron
            continue
        for value, end in ((1e9, high), (-1e9, low)):
            biases = {source: np.full(graph.shape_of(source), value) for source in stored.biases}
            assert (getattr(stored.hold_biases(biases), bias) == end).all()


def test_the_shift_of_graded_spikes_is_learnt_with():
    rng = np.random.default_rng(0)
    graph = CASES["loihi"]
    x = rng.uniform(0, 1, (12, 3, 6))
    integer = quantize(graph, calibration=x, kind="current")
    exponent = integer["hidden"].synapse.weight_exponent  # type: ignore[union-attr]
    learnt = read_rounding(graph, integer).graph
    assert {name: shift for name, (_, shift) in find_learnt_scales(learnt, "loihi", 8).items()} == {"hidden": -exponent, "out": 8}
    again = quantize(learnt, calibration=x, kind="current")
    assert again["hidden"].synapse.weight_exponent == exponent < 0  # type: ignore[union-attr]
    np.testing.assert_array_equal(again["hidden"].synapse.weight, integer["hidden"].synapse.weight)  # type: ignore[union-attr]


def test_a_weight_for_each_value_of_a_current_is_read_with_the_shift_that_it_holds():
    weight = np.random.default_rng(0).uniform(0.5, 1, 6)
    graph = chain([Layer(name="n", synapse=Scale(weight=weight), neuron=IF())], input_shape=(6,))
    x = np.random.default_rng(1).uniform(0, 1, (12, 3, 6))
    integer = quantize(graph, calibration=x, kind="current")
    rounding = read_rounding(graph, integer)
    read: Any = rounding.graph["n"].synapse
    assert np.abs(read.weight - weight).max() < 0.005 and np.abs(read.weight - weight).max() > 0
    scale = integer.metadata["quantization"]["scale"]["n"]
    ours = np.asarray(read.weight) * scale / rounding.input_scale
    np.testing.assert_allclose(ours, integer["n"].synapse.weight, rtol=1e-6)  # type: ignore[union-attr]


def test_a_gain_of_the_weights_divides_the_biases_that_are_learnt():
    """Between powers of two Xylo's weights take a gain against threshold and bias, which integers hold and learning has to."""
    graph = dense(CubaLIF(tau_mem_s=5.5e-3, tau_syn_s=3e-3, w_in=3.0, reset="subtract"), CubaLI(**CUBA), 0.3, seed=3)
    x = np.random.default_rng(1).random((60, 4, 6)) < 0.4
    integer = quantize(graph, format="xylo", calibration=x)
    (gain,) = [row["stored"] for row in integer.metadata["quantization"]["findings"] if row["what"] == "gain"]
    assert gain != 1
    rounding = read_rounding(graph, integer)
    bias = np.asarray(rounding.latent["hidden"].synapse.bias)  # type: ignore[union-attr]
    held = rounding.neurons["hidden"].hold_biases({"hidden": bias}).bias
    assert np.abs(held - integer["hidden"].neuron.bias).max() <= 1  # type: ignore[union-attr]


def test_a_bias_is_read_back_where_weights_gained_against_the_threshold():
    constants: dict[str, Any] = {"tau_mem_s": 6e-3, "tau_syn_s": 2.8e-3, "w_in": 2.6}  # between those of Xylo
    graph = dense(CubaLIF(**constants, reset="subtract", v_leak=0.125), CubaLI(**constants, v_leak=0.5), 0.2)
    integer = quantize(graph, format="xylo", calibration=(np.random.default_rng(0).random((20, 8, 6)) < 0.5).astype(np.uint8))
    findings = integer.metadata["quantization"]["findings"]
    assert [row["stored"] for row in findings if row["what"] == "gain"] == [0.8]
    rounding = read_rounding(graph, integer)
    for name, stored in rounding.neurons.items():  # up to what the rounded decays change in a bias of up to 19
        held = stored.hold_biases({name: np.asarray(rounding.graph[name].synapse.bias)})  # type: ignore[union-attr]
        np.testing.assert_allclose(held.bias, integer[name].neuron.bias, atol=2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("format", "bits", "stored"), [("speck", 8, (1, -128, 127)), ("xylo", 8, (1, -128, 127)), ("speck", 4, (1, -8, 7))]
)
def test_stored_weights_are_signed_numbers_of_their_bits(format, bits, stored):
    assert _read_format(format, bits, IF) == stored


@pytest.mark.parametrize("format", ["loihi", "xylo"])
def test_weights_that_only_the_integers_have_are_not_learnt(format: str):
    """Neurons without weights get weights of 1, and Xylo's factors of each input a matrix: neither is a value of the network."""
    lif = LIF(tau_s=4e-3, reset="subtract")
    factors = Scale(weight=np.array([1.0, 0.5, 2.0], np.float32))
    layers = [
        Layer(name="alone", neuron=lif),
        Layer(name="factors", synapse=factors, neuron=lif),
        Layer(name="out", synapse=Dense(weight=np.array([[0.5, -1.0, 0.25]], np.float32)), neuron=LI(tau_s=4e-3)),
    ]
    graph = chain(layers, input_shape=(3,))
    rounding = read_rounding(graph, quantize(graph, format=format))  # type: ignore[arg-type]
    kept = ["out"] if format == "xylo" else ["factors", "out"]
    assert sorted(rounding.grids) == [(name, "weight") for name in kept] and sorted(rounding.neurons) == kept
    assert rounding.graph["alone"].synapse is None and rounding.latent["alone"].synapse is None
    if format == "xylo":
        assert rounding.graph["factors"].synapse is factors
