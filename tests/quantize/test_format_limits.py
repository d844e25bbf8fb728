"""Scales and integers at the limits of the formats: the tightest of weights, threshold and bias decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.errors import QuantizationError
from spear_deploy.network import IF, LI, LIF, BatchNorm, Conv2d, CubaLIF, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm
from spear_deploy.quantize.layer_error import NOT_MEASURED
from spear_deploy.quantize.loihi import LoihiCandidate, _graded_sum
from spear_deploy.quantize.speck import _common_divisor
from spear_deploy.quantize.weighted_inputs import IntegerLayer
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
        (1.0, 0.0, 1.0, 1, 0, 6),
        (0.0, 0.0, 1.0, 0, 0, 6),
        (1e6, 0.0, 0.131071, 2**17 - 1, 0, 6),
        (1.0, 4095.0, 1.0, 1, 4095, 6),
        (1.0, 4096.0, 1.0, 1, 2048, 7),
        (1.0, 1e5, 0.0819, 0, 4095, 7),
    ],
)
def test_threshold_and_bias_of_weights_that_are_zero(threshold, bias, scale, stored, mantissa, exponent):
    """Weights of zero take any scale: it is 1, or what threshold (2^17 − 1) and bias (4095 · 2^7 / 64) allow."""
    integer = quantize(one_layer([[0.0, 0.0]], IF(v_threshold=threshold), [bias]))
    neuron: Any = integer["fc"].neuron
    assert scale_of(integer) == pytest.approx(scale, rel=1e-12)
    assert (int(neuron.v_threshold), int(neuron.bias_mantissa.max()), int(neuron.bias_exponent)) == (stored, mantissa, exponent)


@pytest.mark.parametrize("threshold", [0.5, 3.0])
def test_a_threshold_beside_tiny_weights_uses_at_least_half_of_its_format(threshold):
    neuron: Any = quantize(one_layer([[1e-6, -3e-7]], IF(v_threshold=threshold)))["fc"].neuron
    assert 2**16 - 1 <= int(neuron.v_threshold) <= 2**17 - 1


def test_the_bias_of_a_current_is_scaled_with_its_weights():
    layer: Any = quantize(one_layer([[1.0]], CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0), [2.0]))["fc"]
    assert layer.synapse.bias.tolist() == (2 * layer.synapse.weight[0]).tolist()


@pytest.mark.parametrize("shift", [3, 8])
def test_graded_spikes_at_their_largest_add_up_by_row(shift):
    weights = {
        "a": Dense(weight=np.array([[100, -50], [20, 20]]), weight_exponent=-shift),
        "b": Dense(weight=np.array([[1000, 1000], [1000, 1000]])),
    }
    integers = IntegerLayer(synapses=weights, neuron=IF())
    candidate = LoihiCandidate(scale=1.0, shift=shift, headroom=1.0, integers=integers, error=NOT_MEASURED)
    assert _graded_sum(candidate) == 150 * 255 / 2**shift


def test_a_current_that_is_pooled_before_its_weights_is_graded():
    layers = [
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 2, 2))), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=np.ones((2, 8))), neuron=IF()),
    ]
    integer: Any = quantize(chain(layers, input_shape=(1, 6, 6)), kind="current")
    assert (integer["conv"].synapse.weight_exponent, integer["out"].synapse.weight_exponent) == (-8, 0)


# ---------------------------------------------------------------------------------------------------------------- Speck


def test_a_threshold_beside_tiny_weights_fits_the_format_of_speck():
    neuron: Any = quantize(one_layer([[1e-5, 3e-6]], IF(v_threshold=100.0)), format="speck")["fc"].neuron
    assert 2**14 - 1 <= int(neuron.v_threshold) <= 2**15 - 1


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
