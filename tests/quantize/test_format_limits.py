"""Scales and integers at the limits of the formats: the tightest of weights, threshold and bias decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    ReckonLIF,
    Scale,
    SumPool,
    XyloLIF,
)
from spear_deploy.network.graph import INPUT, MAX_DELAY, Edge, SNNGraph, chain
from spear_deploy.quantize import chip_scales, chips, loihi, quantize, speck, xylo, xylo_scales
from spear_deploy.quantize.fold import add_missing_weights, drop_identities, fold_batchnorm
from spear_deploy.quantize.integer_layers import IntegerLayer
from spear_deploy.quantize.layer_error import NOT_MEASURED
from spear_deploy.quantize.loihi import LoihiCandidate, _graded_sum
from spear_deploy.quantize.speck import _common_divisor, _integers_at
from spear_deploy.quantize.weighted_inputs import LoweringSettings, collect_neuron_inputs
from spear_deploy.quantize.xylo_scales import (
    UnscaledLayer,
    XyloCandidate,
    _has_room,
    _integer_neuron,
    _integer_synapses,
    _scales_to_try,
)
from spear_deploy.simulator import simulate


def one_layer(weight: Any, neuron: Any, bias: Any = None) -> SNNGraph:
    bias = None if bias is None else np.array(bias)
    layer = Layer(name="fc", synapse=Dense(weight=np.array(weight, float), bias=bias), neuron=neuron)
    return chain([layer], input_shape=(np.shape(weight)[1],), dt_s=1e-3)


def scale_of(integer: SNNGraph) -> float:
    return float(integer.metadata["quantization"]["scale"]["fc"])


# ---------------------------------------------------------------------------------------------------------------- Loihi


@pytest.mark.parametrize(
    ("threshold", "bias", "scale", "stored", "mantissa", "exponent"),
    [
        (1.0, 0.0, 2**16, 2**16, 0, 6),
        (0.75, 0.25, 2**14, 3 * 2**12, 2**11, 7),
        (0.0, 0.0, 1.0, 0, 0, 6),
        (1e6, 0.0, 2**-3, 125_000, 0, 6),
        (1.0, 4095.0, 2.0, 2, 4095, 7),
        (1.0, 4096.0, 1.0, 1, 2048, 7),
        (1.0, 1e5, 2**-4, 0, 3125, 7),
    ],
)
def test_threshold_and_bias_of_weights_that_are_zero(threshold, bias, scale, stored, mantissa, exponent):
    """Weights of zero take any scale: the largest power of two that threshold (2^17 − 1) and bias (4095 · 2^7 / 64) allow."""
    integer = quantize(one_layer([[0.0, 0.0]], IF(v_threshold=threshold), [bias]))
    neuron: Any = integer["fc"].neuron
    assert scale_of(integer) == pytest.approx(scale, rel=1e-12)
    assert (int(neuron.v_threshold), int(neuron.bias_mantissa.max()), int(neuron.bias_exponent)) == (stored, mantissa, exponent)


@pytest.mark.parametrize("weight", [0.0, 1e-3])
def test_neurons_that_a_bias_alone_drives_spike_as_in_floating_point(weight):
    graph = one_layer([[weight]] * 3, LIF(tau_s=0.004, r=4.0, v_threshold=0.4), [0.125, 0.25, 0.5])
    x = np.zeros((40, 1, 1))
    spikes = simulate(graph, x).output
    assert spikes.sum(axis=0).tolist() == [[6, 20, 40]]
    np.testing.assert_array_equal(simulate(quantize(graph), x).output, spikes)


@pytest.mark.parametrize("threshold", [0.5, 3.0])
def test_a_threshold_beside_tiny_weights_uses_at_least_half_of_its_format(threshold):
    neuron: Any = quantize(one_layer([[1e-6, -3e-7]], IF(v_threshold=threshold)))["fc"].neuron
    assert 2**16 - 1 <= int(neuron.v_threshold) <= 2**17 - 1


def test_the_bias_of_a_current_is_scaled_with_its_weights():
    layer: Any = quantize(one_layer([[1.0]], CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0), [2.0]))["fc"]
    assert layer.synapse.bias.tolist() == (2 * layer.synapse.weight[0]).tolist()


@pytest.mark.parametrize(
    ("threshold", "max_scale", "clipping"),
    [
        (1.0, np.inf, [1.1, 1.25, 1.5, 2.0]),
        (1.0, 1.25 * 254, [1.1, 1.25]),
        (1.0, 254.0, []),
        (500.0, np.inf, []),
        (450.0, np.inf, [1.1]),
    ],
)
def test_scales_that_clip_weights_are_tried_as_far_as_threshold_and_state_allow(threshold, max_scale, clipping):
    """A weight of 1 is 254 at the first scale; a threshold of 500 fits up to 262 and one of 450 up to 291."""
    (layer,) = collect_neuron_inputs(one_layer([[1.0, -0.3, 0.77]], IF(v_threshold=threshold)), "spikes", 1.0)
    settings = LoweringSettings(weight_bits=8, kind="spikes")
    headroom, scales = loihi._scales_to_try(layer, settings, 8, max_scale, on_data=True)
    assert headroom == 1 and scales[3:] == pytest.approx([254 * factor for factor in clipping])
    assert loihi._scales_to_try(layer, settings, 8, max_scale, on_data=False)[1].tolist() == scales[:1].tolist()


def test_a_weight_counts_once_with_either_sign_where_scales_are_ranked():
    def rank(weight: Any) -> list[float]:
        (layer,) = collect_neuron_inputs(one_layer(weight, IF()), "spikes", 1.0)
        settings = LoweringSettings(weight_bits=4, kind="spikes")
        return loihi._scales_to_try(layer, settings, 8, np.inf, on_data=True)[1].tolist()  # type: ignore[no-any-return]

    for seed in range(10):
        weight = np.random.default_rng(seed).normal(size=(1, 12))
        assert rank(weight) == rank(np.concatenate([weight, -weight[:, :3]], axis=1))


def test_graded_spikes_of_few_inputs_are_shifted_back_by_a_bit():
    graph = one_layer([[1.0, -0.35]], LI(tau_s=0.004))
    x = np.random.default_rng(0).uniform(0, 1, (30, 4, 2))
    assert quantize(graph, calibration=x, kind="current")["fc"].synapse.weight_exponent == -1  # type: ignore[union-attr]


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("shift", [3, 8])
def test_graded_spikes_at_their_largest_add_up_by_row_and_by_window(shift, window):
    kernels = np.array([[100, -50], [20, 20]])[..., None]
    weights: dict[str, Any] = {"a": Conv1d(weight=kernels, weight_exponent=-shift), "b": Conv1d(weight=np.full((2, 2, 1), 1000))}
    layers = [
        *(Layer(name=name, synapse=replace(synapse, weight_exponent=0)) for name, synapse in weights.items()),
        Layer(name="pool", synapse=SumPool(kernel_size=(window,))),
        Layer(name="n", neuron=IF()),
    ]
    ends = [("input", "a"), ("input", "b"), ("a", "pool"), ("b", "pool"), ("pool", "n")]
    edges = tuple(Edge(source=source, target=target) for source, target in ends)
    graph = SNNGraph(layers=tuple(layers), edges=edges, input_shape=(2, 6), output="n")
    (inputs,) = collect_neuron_inputs(graph, "current", 1.0)
    integers = IntegerLayer(synapses=weights, neuron=IF())
    candidate = LoihiCandidate(scale=1.0, shift=shift, headroom=1.0, integers=integers, error=NOT_MEASURED)
    assert _graded_sum(inputs, candidate) == 150 * window * 255 / 2**shift


def test_a_current_that_is_pooled_before_its_weights_is_graded():
    layers = [
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 2, 2))), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=np.ones((2, 8))), neuron=IF()),
    ]
    integer: Any = quantize(chain(layers, input_shape=(1, 6, 6)), kind="current")
    assert (integer["conv"].synapse.weight_exponent, integer["out"].synapse.weight_exponent) == (-8, 0)


def test_graded_spikes_are_shifted_back_as_little_as_their_largest_sum_allows():
    """600 weights of up to 254 and spikes of 255 make 2^24 where they are shifted by 1 bit, half of it by 2."""
    graph = one_layer(np.ones((1, 600)), LI(tau_s=0.004))
    x = np.zeros((12, 2, 600))
    x[np.arange(12), :, np.arange(12)] = np.array([255, *range(1, 12)])[:, None] / 255
    integer: Any = quantize(graph, calibration=x, kind="current")["fc"]
    assert integer.synapse.weight_exponent == -2
    assert np.abs(integer.synapse.weight).sum() * 255 / 4 <= 2**24 < np.abs(integer.synapse.weight).sum() * 255 / 2


@pytest.mark.parametrize(
    ("lower", "shift", "neuron"),
    [(loihi.lower, 8, LIF(tau_s=0.002)), (speck.lower, 0, IF()), (xylo.lower, 3, LIF(tau_s=0.004, reset="subtract"))],
)
def test_scales_that_a_network_learnt_with_are_taken_and_values_beyond_the_format_clipped(lower, shift, neuron):
    """At this scale the largest weights are beyond 8 bits; the others are rounded as they are."""
    graph = one_layer([[2.0, 0.5, -2.0]], neuron)
    scale = {loihi.lower: 400.0, speck.lower: 120.0, xylo.lower: 3200.0}[lower]
    integer = lower(graph, LoweringSettings(weight_bits=8, kind="spikes", learnt_scales={"fc": (scale, shift)}))
    facts, weight = integer.metadata["quantization"], integer["fc"].synapse.weight[0].tolist()
    assert facts["scale"]["fc"] == scale and facts.get("headroom", {"fc": 1.0}) == {"fc": 1.0}
    gain = {loihi.lower: 0.5, speck.lower: 1.0, xylo.lower: 0.25 / 2**3}[lower]
    step, low, high = (2, -254, 254) if lower is loihi.lower else (1, -128, 127)
    assert weight == [high, step * round(scale * gain * 0.5 / step), low]


# ---------------------------------------------------------------------------------------------------------------- Speck


def test_a_threshold_beside_tiny_weights_fits_the_format_of_speck():
    neuron: Any = quantize(one_layer([[1e-5, 3e-6]], IF(v_threshold=100.0)), format="speck")["fc"].neuron
    assert 2**14 - 1 <= int(neuron.v_threshold) <= 2**15 - 1
    assert scale_of(quantize(one_layer([[1e-5, 3e-6]], IF(v_threshold=100.0)), format="speck")) * 100 <= 2**15 - 1


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_scales_of_few_bits_use_at_least_half_of_them(bits):
    largest = 2 ** (bits - 1) - 1
    for weight in ([[1.0, -0.3, 0.1]], [[0.77, 0.5, -0.2]]):
        stored = quantize(one_layer(weight, IF(v_threshold=50.0)), format="speck", weight_bits=bits)["fc"].synapse.weight
        assert largest / 2 < stored.max() <= largest


def test_a_scale_that_is_exact_but_at_which_the_threshold_rounds_to_0_is_left_out():
    """64 would hold every weight; 64 · 0.006 rounds to 0, which no threshold is. With headroom the same holds half as far."""
    for headroom, threshold in ((1.0, 0.006), (0.5, 0.012)):
        graph = one_layer([[1.0, 0.5, 1 / 64]], IF(v_threshold=threshold, reset="subtract"))
        integer = quantize(graph, format="speck", headroom={"fc": headroom})
        assert scale_of(integer) * threshold >= 0.5 and int(integer["fc"].neuron.v_threshold) == 1  # type: ignore[union-attr]


def test_weights_and_biases_beyond_the_format_are_clipped_at_its_ends():
    graph = one_layer([[1.0, -1.0, 0.25]], IF(v_threshold=1.0), bias=[-3.0])
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    (integers, *_) = _integers_at(layer, layer.scale_synapses(np.ones(())), 127, 200.0)
    synapse: Any = integers.synapses["fc"]
    assert synapse.weight.tolist() == [[127, -128, 50]] and synapse.bias.tolist() == [-128]


def test_the_lower_bound_of_the_neuron_that_is_furthest_off_is_reported():
    """At a scale of 127 the bound ends at −258: of −300 and −250 the first is further off, of −300 and −200 the second."""
    for bounds, given in (((-300.0, -250.0), -300.0), ((-300.0, -200.0), -200.0)):
        neuron = IF(v_threshold=1.0, v_min=np.array(bounds))
        facts = quantize(one_layer([[1.0], [1.0]], neuron), format="speck").metadata["quantization"]
        (row,) = [row for row in facts["findings"] if row["what"] == "v_min"]
        assert (row["given"], row["stored"]) == (given, pytest.approx(-(2**15) / facts["scale"]["fc"]))


def test_weights_of_zero_and_tiny_ones_limit_the_scale_of_speck_by_their_extremes():
    integer: Any = quantize(one_layer([[0.005, 0.0]], IF(v_threshold=1.0)), format="speck")
    assert scale_of(integer) <= 127 / 0.005 and integer["fc"].synapse.weight.tolist() == [[127, 0]]


def test_scales_at_which_a_threshold_rounds_to_0_are_left_out():
    """127 · 0.006 rounds to 1; half of it would round to 0."""
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 40))
    weight.flat[0] = 1.0
    neuron: Any = quantize(one_layer(weight, IF(v_threshold=0.006, reset="subtract")), format="speck")["fc"].neuron
    assert int(neuron.v_threshold) == 1


@pytest.mark.parametrize(("bound", "stored"), [(-1e9, -(2**15)), (-1.0, -127)])
def test_the_lower_bound_of_speck_stops_at_its_format(bound, stored):
    neuron: Any = quantize(one_layer([[1.0]], IF(v_threshold=1.0, v_min=bound)), format="speck")["fc"].neuron
    assert int(neuron.v_min) == stored


def test_a_threshold_at_the_reset_is_refused():
    for family, neuron, words in (
        ("speck", IF(v_threshold=0.0), "v_threshold lies 0 above the reset, Speck's"),
        ("xylo", LIF(tau_s=0.01, v_threshold=0.0, reset="subtract"), "v_threshold 0, Xylo's thresholds are above 0"),
        ("truenorth", IF(v_threshold=0.0), "v_threshold lies 0 above the reset, TrueNorth's"),
    ):
        with pytest.raises(QuantizationError, match=words):
            quantize(one_layer([[1.0]], neuron), format=family)  # type: ignore[arg-type]


@pytest.mark.parametrize(("weights", "start", "divisor"), [((4, 6), 0, 2), ((2, 3), 0, 1), ((9, 6), 3, 3), ((0, 0), 0, 1)])
def test_what_can_be_added_is_a_multiple_of_the_common_divisor(weights, start, divisor):
    synapses = {"a": Dense(weight=np.array([weights])), "b": Dense(weight=np.array([[0, 36]]))}
    if not any(weights):
        synapses = {"a": synapses["a"]}
    assert _common_divisor(synapses, np.array([start])) == divisor


# ----------------------------------------------------------------------------------------------------------------- Xylo


def test_the_longest_time_constant_of_xylo_is_2_to_the_15_steps():
    neuron: Any = quantize(one_layer([[1.0]], LIF(tau_s=32.768, reset="subtract")), format="xylo")["fc"].neuron
    assert int(neuron.dash_mem) == 15
    with pytest.raises(QuantizationError, match=r"tau_mem_s is 65536 steps, Xylo holds up to 2\^15"):
        quantize(one_layer([[1.0]], LIF(tau_s=65.536, reset="subtract")), format="xylo")


def test_the_finding_is_about_the_neuron_that_is_furthest_off_in_relation():
    """0.0055 → 0.004 s is off by 27 %, 0.110 → 0.128 s by 14 %, though by more seconds."""
    neuron = LIF(tau_s=np.array([0.0055, 0.110]), reset="subtract")
    integer = quantize(one_layer(np.eye(2), neuron), format="xylo")
    found = [row for row in integer.metadata["quantization"]["findings"] if row["what"] == "tau_mem_s"]
    assert [(row["given"], row["stored"]) for row in found] == [(pytest.approx(0.0055), pytest.approx(0.004))]


def test_a_readout_of_xylo_without_weights_has_a_scale_of_1():
    assert scale_of(quantize(one_layer([[0.0]], LI(tau_s=0.004)), format="xylo")) == 1.0


def unscaled_layer(weight: Any, threshold: Any, bias: Any = 0.0, *, readout: bool = False) -> UnscaledLayer:
    """Return a layer whose weights drive v as they are; dashes of 1."""
    neuron = LI(tau_s=0.002) if readout else LIF(tau_s=0.002, reset="subtract", v_threshold=threshold)
    (layer,) = collect_neuron_inputs(one_layer(weight, neuron), "spikes", 1.0)
    return UnscaledLayer(
        layer=layer, dash_mem=np.array(1), dash_syn=np.array(1), synapses={"fc": Dense(weight=np.array(weight))},
        bias=np.atleast_1d(bias), max_spikes=31, findings=(),
    )  # fmt: skip


def test_thresholds_of_xylo_are_the_next_whole_number_above():
    """Xylo spikes at its threshold, the network above it; 3 · 0.1 is 3 · 2^-55 more than 0.3, which is no reason for a step."""
    layer = unscaled_layer([[1.0], [1.0], [1.0]], np.array([1.0, 0.3, 0.25]), bias=[1.0, -1e6, 1e6])
    neuron: Any = _integer_neuron(layer, 10.0, 1.0)
    assert neuron.v_threshold.tolist() == [11, 4, 3] and neuron.bias.tolist() == [10, -(2**15), 2**15 - 1]
    exact: Any = _integer_neuron(unscaled_layer([[1.0]], 0.1 * 3), 1.0 / 0.1, 1.0)
    assert int(exact.v_threshold) == 4
    below: Any = _integer_neuron(unscaled_layer([[1.0]], 0.29), 100.0, 1.0)  # 100 · 0.29 is 28.999999999999996
    assert int(below.v_threshold) == 30
    assert int(_integer_neuron(unscaled_layer([[1.0]], 1.0), 1e9, 1.0).v_threshold) == 2**15 - 1  # type: ignore[union-attr]
    gained: Any = _integer_neuron(unscaled_layer([[1.0]], 1.0, bias=4.0), 10.0, 2.0)
    assert int(gained.v_threshold) == 6 and gained.bias.tolist() == [20]


def test_weights_of_xylo_end_at_their_format():
    (stored,) = _integer_synapses(unscaled_layer([[1.0, -1.0, 0.5]], 1.0), 600.0, 2, 127).values()
    assert stored.weight.tolist() == [[127, -128, 75]] and stored.weight_exponent == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("readout", [False, True])
@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("tightest", ["weight", "threshold", "bias", "none"])
def test_the_scales_of_xylo_fit_weights_threshold_bias_and_the_potential_of_a_readout(readout, on_data, shift, tightest):
    largest = {"weight": 1.0, "none": 0.0}.get(tightest, 1e-6)
    bias = 100.0 if tightest == "bias" else 0.0
    threshold = 50.0 if tightest == "threshold" else 1e-9
    layer = unscaled_layer([[largest, -largest / 3]], threshold, bias, readout=readout)
    scales = _scales_to_try(layer, 127, shift, on_data=on_data)
    limits = [127 * 2**shift / largest] if largest else []
    limits += [32767 / bias] if bias else []
    limits += [32767 / threshold] if not readout else []
    if readout and not on_data and (largest or bias):
        limits.append(32767 / (2 * (largest + bias)))  # a current d 2^1 − d, summed over 2^1 steps, beside the bias
    greatest = min(limits, default=1.0)
    count = 3 if on_data and not shift else 64
    assert scales[:count].max() <= greatest * (1 + 1e-12) and scales[:count].min() >= greatest * 64 / 127 * (1 - 1e-12)
    if count == 64:
        assert sorted(scales) == pytest.approx([greatest * n / 127 for n in range(64, 128)])
    else:
        assert scales[3:] == pytest.approx([greatest / 2, greatest / 4, greatest / 8, greatest / 16, greatest / 32])


@pytest.mark.parametrize("shift", [0, 3])
def test_xylo_scales_hold_the_sums_of_weights_that_lie_in_one_cell(shift, monkeypatch):
    """Sums of 2 that may be 100 allow a scale of 50; sums of 0 limit nothing."""
    monkeypatch.setattr(xylo_scales, "limit_shared_cells", lambda shared, synapses: [(2.0, 100.0), (0.0, 3.0)])
    layer = unscaled_layer([[1.0, -1 / 3]], 1e-9, 0.0, readout=False)
    assert _scales_to_try(layer, 127, shift, on_data=False).max() == pytest.approx(50 * 2**shift)


@pytest.mark.parametrize(
    ("weight", "shift", "threshold", "room"),
    [
        ([[64, 0]], 0, 100, True),
        ([[63, 0]], 0, 100, False),
        ([[127, 128]], 7, 100, True),
        ([[128, 128]], 7, 100, False),
        ([[127] * 258 + [1]], 0, 100, True),
        ([[127] * 258 + [2]], 0, 100, False),
        ([[64, 0]], 0, 2**14 - 1, True),
        ([[64, 0]], 0, 2**14, False),
    ],
)
def test_a_layer_has_room_where_it_uses_its_bits_and_one_spike_of_each_input_fits(weight, shift, threshold, room):
    """64 · 2 = 2^14 / 128 uses a bit of seven; 255 · 2^7 = 32640 is the largest sum that a current holds."""
    neuron = XyloLIF(dash_mem=1, dash_syn=1, v_threshold=threshold, bias=0)
    integers = IntegerLayer(synapses={"fc": Dense(weight=np.array(weight), weight_exponent=shift)}, neuron=neuron)
    candidate = XyloCandidate(scale=1.0, shift=shift, gain=1.0, integers=integers, error=NOT_MEASURED)
    assert _has_room(candidate, 64) is room


@pytest.mark.parametrize(("inputs", "shift"), [(1, 7), (3, 6), (100, 1), (250, 0), (400, 0)])
def test_the_shift_of_xylo_is_the_largest_at_which_a_spike_of_each_input_fits(inputs, shift):
    """127 · inputs · 2^shift is at most 2^15 − 1; where none is small enough there is no shift."""
    neuron = LIF(tau_s=0.004, reset="subtract", v_threshold=0.1)
    integer: Any = quantize(one_layer(np.ones((1, inputs)), neuron), format="xylo")["fc"]
    assert integer.synapse.weight_exponent == shift


def test_a_threshold_that_some_shifts_cannot_hold_is_taken_at_the_others():
    """Beside weights of 1, 127 · 0.005 is no threshold; with a shift of 7 it is 81."""
    neuron = LIF(tau_s=0.001, reset="subtract", v_threshold=0.005)
    integer: Any = quantize(one_layer([[1.0, 0.5]], neuron), format="xylo")["fc"]
    assert integer.synapse.weight_exponent > 0 and int(integer.neuron.v_threshold) > 10


def test_a_shift_at_which_a_threshold_rounds_to_0_with_the_largest_gain_is_left_out():
    """250 inputs have room at a shift of 0 alone, where 508 · 0.001 / 1.5 is 0; at a shift of 1 it is 1."""
    neuron = LIF(tau_s=0.004, reset="subtract", v_threshold=0.001)
    integer: Any = quantize(one_layer(np.ones((1, 250)), neuron), format="xylo")["fc"]
    assert integer.synapse.weight_exponent == 1 and int(integer.neuron.v_threshold) == 2


# ------------------------------------------------------------------------------- TrueNorth, SpiNNaker, ReckOn and ODIN


def findings_of(integer: SNNGraph, what: str) -> list[dict[str, Any]]:
    return [row for row in integer.metadata["quantization"]["findings"] if row["what"] == what]


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_the_largest_input_of_spinnaker_reaches_2_to_the_14_and_thresholds_are_the_next_whole_number(level):
    """Of 2^15 units each: a weight of 1 is 2^29, a threshold half as high 2^28 + 1; the reset is the level, 0."""
    lif = LIF(tau_s=0.004, v_threshold=0.5 + level, v_reset=level, v_leak=level)
    integer = quantize(one_layer([[1.0, -0.5]], lif), format="spinnaker")
    neuron: Any = integer["fc"].neuron
    weight: Any = integer["fc"].synapse.weight  # type: ignore[union-attr]
    assert scale_of(integer) == 2.0**29 and int(neuron.v_threshold) == 2**28 + 1 and int(neuron.v_reset) == 0
    assert (int(neuron.exc_shift), int(neuron.inh_shift)) == (14, 13)
    assert (weight[0, 0] << 14, weight[0, 1] << 13) == (2**29, -(2**28))


def test_a_threshold_of_spinnaker_that_is_whole_but_for_rounding_takes_the_next_number():
    """Beside a weight of 1024 the scale is 2^19: a threshold of 0.5 is 2^18 + 1. Without inhibition its shift is 0."""
    neuron: Any = quantize(one_layer([[1024.0]], LIF(tau_s=0.004, v_threshold=0.5)), format="spinnaker")["fc"].neuron
    assert int(neuron.v_threshold) == 2**18 + 1 and int(neuron.inh_shift) == 0 < int(neuron.exc_shift)


def test_a_small_readout_of_spinnaker_uses_the_whole_room():
    assert scale_of(quantize(one_layer([[1e-3]], LI(tau_s=0.004)), format="spinnaker")) == pytest.approx(2.0**29 * 1e3)


@pytest.mark.parametrize(("largest", "shift"), [(65534, 13), (65535, 14)])
def test_the_largest_input_of_spinnaker_leaves_its_ring_buffer_room_for_rounding(largest, shift):
    """With headroom the weights add up to `largest` · 2^13; a buffer holds 65535, one of them for what rounding adds."""
    graph = one_layer([[1.0]], LIF(tau_s=0.004, v_threshold=0.5))
    integer: Any = quantize(graph, format="spinnaker", headroom={"fc": largest / 2**16})["fc"]
    assert int(integer.neuron.exc_shift) == shift


@pytest.mark.parametrize(
    ("steps", "keep", "initial"), [(1, 0, round(2**32 / (32 * np.log(2)))), (10**10, 2**32 - 1, 2**32 - 1), (2, 2**31, None)]
)
def test_currents_of_spinnaker_from_one_step_to_ten_thousand_million(steps, keep, initial):
    neuron: Any = quantize(one_layer([[1.0]], CubaLIF(tau_mem_s=0.01, tau_syn_s=steps * 1e-3, w_in=1.0)), format="spinnaker")[
        "fc"
    ].neuron
    assert int(neuron.keep_u) == keep and int(neuron.init_u) == (round(2**32 * 0.5 / np.log(2)) if initial is None else initial)


@pytest.mark.parametrize("bias", [1.0, -1.0])
def test_a_bias_of_truenorth_limits_the_scale_and_ends_at_255(bias):
    graph = one_layer([[0.0]], IF(v_threshold=1.0), [bias])
    integer = quantize(graph, format="truenorth")
    assert scale_of(integer) == 255 and int(integer["fc"].neuron.leak.max()) == 255 * bias  # type: ignore[union-attr]
    settings = LoweringSettings(weight_bits=9, kind="spikes", learnt_scales={"fc": (300.0, 0)})
    beyond = chips.lower(graph, settings, "truenorth")
    assert scale_of(beyond) == 300 and int(beyond["fc"].neuron.leak.max()) == 255 * bias  # type: ignore[union-attr]


def test_scales_that_reckon_learnt_with_have_their_shift():
    graph = one_layer([[0.5, -0.25]], LIF(tau_s=0.01, r=10.0))
    settings = LoweringSettings(weight_bits=8, kind="spikes", learnt_scales={"fc": (800.0, 3)})
    integer: Any = chips.lower(graph, settings, "reckon")
    assert scale_of(integer) == 800 and integer["fc"].synapse.weight.tolist() == [[50, -25]]
    assert integer["fc"].synapse.weight_exponent == 3


def test_one_scale_is_tried_without_data():
    (layer,) = collect_neuron_inputs(one_layer([[0.5, -0.3]], LIF(tau_s=0.01, r=10.0)), "spikes", 1.0)
    settings = LoweringSettings(weight_bits=8, kind="spikes")
    tried = [
        chip_scales.list_scales(layer, layer.stored, ReckonLIF, settings, (), on_data=data, tried=2) for data in (False, True)
    ]
    assert [len(scales) for scales in tried] == [1, 2 + len(chip_scales.CLIPPING_FACTORS)] and tried[0] == tried[1][:1]


def test_events_of_a_map_are_chosen_on_as_those_of_its_flattened_values():
    weight = np.random.default_rng(0).integers(0, 8, (3, 18)) * np.random.default_rng(1).choice([-1.0, 1.0], 18)
    x = np.random.default_rng(2).random((30, 4, 18)) < 0.2
    flat = one_layer(weight, IF(v_threshold=9.0, v_min=0.0))
    onto_map = chain(list(flat.layers), input_shape=(2, 3, 3), dt_s=1e-3)
    chosen = [quantize(graph, format="odin", calibration=x.reshape(30, 4, *graph.input_shape)) for graph in (flat, onto_map)]
    assert chosen[0].metadata["quantization"] == chosen[1].metadata["quantization"]
    assert chosen[0]["fc"].neuron == chosen[1]["fc"].neuron


def test_the_threshold_of_a_neuron_that_subtracts_is_the_nearest_from_1_on():
    neuron: Any = quantize(one_layer([[1.0]], IF(v_threshold=0.003, reset="subtract")), format="truenorth")["fc"].neuron
    assert int(neuron.v_threshold) == 1  # 255 · 0.003 = 0.77


def test_sources_that_need_one_axon_each_are_no_finding():
    assert not findings_of(quantize(one_layer([[1.0, 0.5]], IF()), format="truenorth"), "axons")
    (row,) = findings_of(quantize(one_layer([[1.0, 0.5], [0.25, 1.0]], IF()), format="truenorth"), "axons")
    assert (row["given"], row["stored"]) == (2, 4)


def test_weights_one_a_neuron_are_no_palette_of_a_channel():
    weight = np.linspace(0.2, 1.0, 18).reshape(2, 3, 3)
    layer = Layer(name="fc", synapse=Scale(weight=weight), neuron=IF())
    integer = quantize(chain([layer], input_shape=(2, 3, 3)), format="truenorth")
    stored: Any = integer["fc"].synapse.weight  # type: ignore[union-attr]
    assert np.abs(stored / scale_of(integer) - weight).max() <= 0.5 / scale_of(integer) + 1e-12
    layers = [
        Layer(name="one", synapse=Scale(weight=np.array(0.5))),
        Layer(name="fc", synapse=SumPool(kernel_size=(1, 3)), neuron=IF()),
    ]
    pooled = quantize(chain(layers, input_shape=(2, 3, 3)), format="truenorth")
    assert pooled["fc"].synapse.weight.item() == round(scale_of(pooled) * 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(("v_min", "stops"), [(0.0, False), (-1.0, True), (None, True)])
def test_odin_says_where_potentials_stop_that_a_network_lets_fall(v_min, stops):
    rows = findings_of(quantize(one_layer([[1.0, -0.5]], IF(v_min=v_min)), format="odin"), "floor")
    assert rows == ([{"layer": "fc", "what": "floor", "given": 0, "stored": 0}] if stops else [])


def test_odin_takes_the_spikes_of_one_layer():
    layers = (
        Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=IF()),
        Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF()),
    )
    edges = (Edge(source="input", target="a"), Edge(source="a", target="fc"), Edge(source="input", target="fc"))
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="fc")
    with pytest.raises(UnsupportedError, match="layer 'fc': currents of fc that add up, ODIN's neurons take each spike"):
        quantize(graph, format="odin")


def test_biases_of_zero_are_none_and_a_decay_of_an_eighth_is_reckons_fastest():
    for family in ("reckon", "odin"):
        neuron = LIF(tau_s=0.008) if family == "reckon" else IF()
        integer: Any = quantize(one_layer([[1.0]], neuron, [0.0]), format=family)  # type: ignore[arg-type]
        assert integer["fc"].synapse.bias is None
    assert int(quantize(one_layer([[1.0]], LIF(tau_s=0.008)), format="reckon")["fc"].neuron.keep) == 7 * 2**12  # type: ignore[union-attr]


def test_windows_behind_weights_lower_the_shift_of_reckon():
    """Without data eight spikes of every input fit 16 bits: 127 · 2^5 · 8, of four in a window 127 · 4 · 2^3 · 8."""
    for kernel, shift in (((1, 1), 5), ((2, 2), 3)):
        layers = [
            Layer(name="w", synapse=Conv2d(weight=np.ones((1, 1, 1, 1)))),
            Layer(name="fc", synapse=SumPool(kernel_size=kernel), neuron=LIF(tau_s=0.01, r=10.0)),
        ]
        integer: Any = quantize(chain(layers, input_shape=(1, 4, 4)), format="reckon")
        assert integer["w"].synapse.weight_exponent == shift


def test_a_readout_of_reckon_without_weights_has_a_scale_of_1_behind_its_decay():
    integer = quantize(one_layer([[0.0]], LI(tau_s=0.01)), format="reckon")
    assert scale_of(integer) == float(integer["fc"].neuron.keep) / 2**7  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------------------------- folded layers


def test_a_layer_without_weights_gets_them_itself_and_its_pool_or_flatten_a_layer_before():
    def names(*layers: Layer, shape: tuple[int, ...]) -> list[str]:
        return [layer.name for layer in add_missing_weights(chain(list(layers), input_shape=shape)).layers]

    assert names(Layer(name="only", neuron=IF()), shape=(3,)) == ["only"]
    pooled = Layer(name="n", synapse=SumPool(kernel_size=(2, 2)), neuron=IF())
    assert names(pooled, shape=(1, 4, 4)) == ["n_pool", "n"]
    assert names(Layer(name="n", synapse=Flatten(), neuron=IF()), shape=(1, 4, 4)) == ["n_flatten", "n"]


def test_sums_that_feed_each_other_without_weights_are_followed_once():
    """`one` and `two` hold no weights and feed each other: no current reaches `fc`."""
    layers = (Layer(name="one"), Layer(name="two"), Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF()))
    edges = (
        Edge(source="input", target="one"),
        Edge(source="one", target="two", delay=1),
        Edge(source="two", target="one"),
        Edge(source="one", target="fc"),
    )
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,))
    assert [layer.name for layer in fold_batchnorm(graph).layers] == [layer.name for layer in graph.layers]


def test_a_scale_with_a_bias_takes_a_norm_and_computes_the_same():
    rng = np.random.default_rng(0)
    norm = BatchNorm(weight=rng.uniform(0.5, 2, 3), bias=rng.normal(size=3), mean=rng.normal(size=3), var=rng.uniform(0.5, 2, 3))
    scale = Scale(weight=rng.normal(size=(3, 4, 4)), bias=rng.normal(size=(3, 1, 1)))
    graph = chain([Layer(name="a", synapse=scale, norm=norm, neuron=IF())], input_shape=(3, 4, 4))
    x = rng.random((6, 2, 3, 4, 4)) < 0.5
    runs = [simulate(g, x, record=("v",), dtype=np.float64).v["a"] for g in (graph, fold_batchnorm(graph))]
    np.testing.assert_allclose(*runs, atol=1e-12)


def _branch(*pairs: tuple[str, str, int], outputs: tuple[str, ...]) -> SNNGraph:
    """Return spiking neurons `a`, weights `w` without neurons, a sum `s`, and neurons without weights."""
    neuron = LIF(tau_s=0.004, v_threshold=0.5, reset="subtract")
    layers = [Layer(name="a", synapse=Dense(weight=2 * np.eye(3)), neuron=neuron)]
    if any("s" in pair[:2] for pair in pairs):
        layers += [Layer(name="w", synapse=Dense(weight=np.eye(3) / 2)), Layer(name="s")]
    layers += [Layer(name=name, neuron=neuron) for name in outputs]
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in pairs]
    return SNNGraph(layers=tuple(layers), edges=(Edge(source=INPUT, target="a"), *edges), input_shape=(3,), output=outputs[-1])


@pytest.mark.parametrize("source", [INPUT, "a"])
def test_spikes_that_a_sum_adds_to_currents_get_weights_of_1_where_several_neurons_read_the_sum(source: str) -> None:
    """What drives neurons was looked for behind neurons and at the input, too: wrong layers, a wrong name, or no end."""
    pairs = ((INPUT, "w", 0), (source, "s", 0), ("w", "s", 0), ("s", "o", 0), ("s", "p", 0))
    graph = _branch(*pairs, outputs=("o", "p"))
    written = add_missing_weights(graph)
    assert [layer.name for layer in written.layers] == ["a", "w", f"{source}_to_s", "s", "o", "p"]
    x = np.random.default_rng(0).random((30, 2, 3)) < 0.4
    spikes = simulate(graph, x, record=("spikes",)).spikes
    for made in (written, quantize(graph, format="spinnaker2")):
        again = simulate(made, x, record=("spikes",)).spikes
        assert all(np.array_equal(again[name], spikes[name]) for name in ("a", "o", "p"))
    with pytest.raises(UnsupportedError, match="its current feeds several neuron layers"):
        quantize(graph, format="loihi")


def test_a_sum_of_spikes_and_currents_in_a_loop_through_its_neurons_is_quantised() -> None:
    graph = _branch((INPUT, "w", 0), ("w", "s", 0), ("o", "s", 2), ("s", "o", 0), ("a", "o", 0), outputs=("o",))
    x = np.random.default_rng(0).random((30, 2, 3)) < 0.4
    spikes = simulate(graph, x, record=("spikes",)).spikes["o"]
    assert spikes.any()
    assert np.array_equal(simulate(quantize(graph, format="loihi"), x, record=("spikes",)).spikes["o"], spikes)


def test_the_same_spikes_over_two_delays_get_weights_of_1_each() -> None:
    """Both layers had one name, which no network takes: check said that the chip lacks something."""
    graph = _branch(("a", "o", 0), ("a", "o", 2), outputs=("o",))
    x = np.random.default_rng(0).random((30, 2, 3)) < 0.4
    integer = quantize(graph, format="loihi")
    assert [layer.name for layer in integer.layers] == ["a", "a_to_o", "a_to_o_2", "o"]
    spikes = simulate(graph, x, record=("spikes",)).spikes["o"]
    assert spikes.any()
    assert np.array_equal(simulate(integer, x, record=("spikes",)).spikes["o"], spikes)
    assert check(graph, load_profile("loihi2"), remedies=False).verdict == "fits"


# ------------------------------------------------------------------------------------------ layers that hand on what they take


def test_pools_of_one_position_and_reshapes_of_lists_need_nothing_on_a_chip() -> None:
    rng = np.random.default_rng(0)
    pool = Layer(name="pool", synapse=AvgPool(kernel_size=(1, 1)))
    flat, again = Layer(name="flat", synapse=Flatten()), Layer(name="again", synapse=Flatten())
    layers = [
        pool,
        flat,
        again,
        Layer(name="fc", synapse=Dense(weight=rng.normal(size=(3, 18))), neuron=LIF(tau_s=0.01, reset="subtract")),
    ]
    graph = chain(layers, input_shape=(2, 3, 3))
    assert [layer.name for layer in drop_identities(graph).layers] == ["flat", "fc"]
    assert [layer.name for layer in fold_batchnorm(graph).layers] == ["fc"]
    assert quantize(graph, format="xylo") == quantize(drop_identities(graph), format="xylo")
    pooled = chain([Layer(name="n", synapse=SumPool(kernel_size=(1, 1)), neuron=IF())], input_shape=(2, 3, 3))
    before = chain([pool, *pooled.layers, Layer(name="p", synapse=AvgPool(kernel_size=(1, 1)))], input_shape=(2, 3, 3))
    dropped = drop_identities(before)
    assert [(layer.name, layer.synapse is None) for layer in dropped.layers] == [("n", True), ("p", False)]
    stride = chain([Layer(name="s", synapse=AvgPool(kernel_size=(1, 1), stride=(2, 2))), pool], input_shape=(2, 3, 3))
    assert drop_identities(stride) == stride


def test_a_second_way_between_two_layers_and_a_meeting_of_two_stay_as_sums() -> None:
    """One edge would count once; a delay that no edge has stays on two."""
    pool, neuron = AvgPool(kernel_size=(1,)), Layer(name="n", neuron=IF())

    def drop(*pairs: tuple[str, str, int]) -> SNNGraph:
        edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
        return drop_identities(SNNGraph(layers=(Layer(name="p", synapse=pool), neuron), edges=edges, input_shape=(2, 3)))

    twice = drop((INPUT, "p", 1), (INPUT, "n", 1), ("p", "n", 0))
    assert [layer.name for layer in twice.layers] == ["p", "n"] and twice["p"].synapse is None
    meeting = drop((INPUT, "p", 0), ("n", "p", 1), ("p", "n", 0))
    assert [layer.name for layer in meeting.layers] == ["p", "n"] and meeting["p"].synapse is None
    latest = drop((INPUT, "p", MAX_DELAY - 1), ("p", "n", 1))
    assert [layer.name for layer in latest.layers] == ["n"] and latest.edges[0].delay == MAX_DELAY
    late = drop((INPUT, "p", MAX_DELAY), ("p", "n", 1))
    assert [layer.name for layer in late.layers] == ["p", "n"]
    delayed = drop((INPUT, "p", 2), ("p", "n", 1))
    assert delayed.edges == (Edge(source=INPUT, target="n", delay=3),)
