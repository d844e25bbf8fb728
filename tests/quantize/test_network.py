"""Widths and input scales of each family of integers."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import DataError, QuantizationError, UnsupportedError
from spear_deploy.network import IF, LI, LIF, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.quantize import FAMILIES, quantize, quantize_input
from spear_deploy.quantize.network import choose_input_scale
from spear_deploy.quantize.weighted_inputs import RESET_DELAY
from spear_deploy.simulator import simulate

WIDTHS = {
    "loihi": (2, 8), "speck": (2, 8), "xylo": (2, 8), "truenorth": (2, 9), "spinnaker": (16, 16), "reckon": (2, 8),
    "odin": (1, 3), "spinnaker2": (2, 8), "brainscales": (2, 6), "akida": (2, 4), "catalyst": (16, 16),
}  # fmt: skip
LEVELS = {"loihi": 255, "speck": 15, "xylo": 15, "spinnaker": 15, "odin": 15, "akida": 15, "catalyst": 15}
"""Value, or number of events, of the largest current; other families take no current."""


def network(family):
    leaks = family in ("spinnaker", "reckon", "brainscales", "akida")
    neuron = LIF(tau_s=1e-3 if family == "akida" else 0.01, v_threshold=1.5) if leaks else IF(v_threshold=1.5)
    weight = np.array([[0.5, 1.0], [1.0, 0.25]])
    layers = [Layer(name=name, synapse=Dense(weight=weight), neuron=neuron) for name in ("a", "b")]
    return chain(layers, input_shape=(2,), dt_s=1e-3)


def test_the_table_names_each_family():
    assert WIDTHS.keys() == FAMILIES.keys() and LEVELS.keys() <= WIDTHS.keys()
    assert {family: rule.weight_bits for family, rule in FAMILIES.items()} == WIDTHS
    assert {family: rule.input_levels for family, rule in FAMILIES.items()} == {
        family: LEVELS.get(family, 1) for family in WIDTHS
    }


@pytest.mark.parametrize("family", WIDTHS)
def test_widths_outside_a_format_are_refused(family):
    low, high = WIDTHS[family]
    for bits in (low - 1, high + 1):
        with pytest.raises(QuantizationError, match=rf"weight_bits: {bits} given, the format holds {low}\.\.{high}$"):
            quantize(network(family), format=family, weight_bits=bits)


@pytest.mark.parametrize(
    ("calibration", "kind", "scale"),
    [
        (np.array([0.25, -0.5]), "current", 30.0),
        (np.array([0.0]), "current", 1.0),
        (None, "current", 15.0),
        (np.array([3]), "spikes", 1.0),
    ],
)
def test_the_largest_value_of_a_current_is_sent_as_all_levels(calibration, kind, scale):
    assert choose_input_scale(calibration, kind, 15) == scale


@pytest.mark.parametrize("family", ["loihi", "speck", "spinnaker"])
def test_a_current_is_scaled_by_the_levels_of_its_family(family):
    x = np.random.default_rng(0).random((6, 2, 2)) * 0.5
    integer = quantize(network(family), format=family, calibration=x, kind="current")
    assert integer.metadata["quantization"]["input_scale"] == pytest.approx(LEVELS[family] / x.max())


def test_a_reset_one_step_late_is_a_finding():
    """The chips reset in the step of the spike: one step was given, none is stored."""
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((2, 2))), neuron=LIF(tau_s=0.01, reset="subtract", reset_delay=1))]
    integer = quantize(chain(layers, input_shape=(2,), dt_s=1e-3), format="loihi")
    found = [row for row in integer.metadata["quantization"]["findings"] if row["what"] == RESET_DELAY]
    assert [(row["layer"], row["given"], row["stored"]) for row in found] == [("a", 1, 0)]


@pytest.mark.parametrize("family", WIDTHS)
def test_the_narrowest_weights_of_a_family_use_their_bits(family):
    graph, low = network(family), WIDTHS[family][0]
    if family == "brainscales":
        graph = graph.with_layers(lambda layer: replace(layer, neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0)))
    if family == "xylo":
        graph = graph.with_layers(lambda layer: replace(layer, neuron=LIF(tau_s=0.004, reset="subtract")))
    integer = quantize(graph, format=family, weight_bits=low)
    for layer in integer.layers:
        assert np.abs(layer.synapse.weight).max() > 0 and len(np.unique(layer.synapse.weight)) <= 2**low


@pytest.mark.parametrize("family", WIDTHS)
def test_neurons_without_reset_are_those_of_truenorth(family):
    graph = network(family).with_layers(lambda layer: replace(layer, neuron=replace(layer.neuron, reset="none")))
    if family == "truenorth":
        assert quantize(graph, format=family)["a"].neuron.reset == "none"
        return
    with pytest.raises(UnsupportedError, match=f"layer 'a': has no reset after a spike, neurons of the format {family} have one"):
        quantize(graph, format=family)


def test_a_scale_whose_state_overflows_is_halved():
    """A potential of 300 · 250 · 64 · 2 is more than 2^23, half of it is not."""
    graph = chain([Layer(name="a", synapse=Dense(weight=np.ones((1, 300))), neuron=LI(tau_s=0.002))], input_shape=(300,))
    x = np.ones((40, 1, 300), bool)
    assert simulate(quantize(graph), x).overflows
    integer = quantize(graph, calibration=x)
    assert not simulate(integer, x).overflows and 0.45 < integer.metadata["quantization"]["headroom"]["a"] <= 0.5


def test_an_input_is_sent_as_spikes_unless_it_is_a_current_of_a_network_with_levels():
    x = np.array([[[0, 1]]])
    current = quantize(network("loihi"), calibration=x, kind="current")
    assert current.metadata["quantization"]["input_scale"] == 255
    assert quantize_input(current, x, "current").tolist() == [[[0, 255]]] and quantize_input(current, x, "spikes") is x
    assert quantize_input(network("loihi"), x, "current") is x


def test_events_have_no_sign_and_one_of_a_channel_is_never_too_many():
    speck = quantize(network("speck"), format="speck")
    with pytest.raises(DataError, match="input: -2 given, speck takes events, which have no sign"):
        quantize_input(speck, np.array([[[-2, 1]]]))
    reckon, none, one = quantize(network("reckon"), format="reckon"), np.zeros((0, 1, 2), int), np.ones((1, 1, 2), int)
    assert quantize_input(reckon, none) is none and quantize_input(reckon, one) is one
