"""Widths and input scales of each family of integers."""

import re
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.plan import make_plans
from spear_deploy.errors import DataError, QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, LIF, AvgPool, CubaLIF, Dense, Layer
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import INPUT, Edge, chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.bits import state_bits
from spear_deploy.pipeline.preflight import check_inputs
from spear_deploy.quantize import FAMILIES, quantize, quantize_input
from spear_deploy.quantize.integer_layers import RESET_DELAY
from spear_deploy.quantize.network import _name_own_layers, choose_input_scale
from spear_deploy.simulator import simulate
from tests.support.seeds import few_first

WIDTHS = {
    "loihi": (2, 8), "speck": (2, 8), "xylo": (2, 8), "truenorth": (2, 9), "spinnaker": (16, 16), "reckon": (2, 8),
    "odin": (1, 3), "spinnaker2": (2, 8), "brainscales": (2, 6), "akida": (2, 4), "catalyst": (16, 16),
}  # fmt: skip
LEVELS = {"loihi": 255, "speck": 15, "xylo": 15, "spinnaker": 15, "odin": 15, "akida": 15, "catalyst": 15}
"""Value, or number of events, of the largest current; other families take no current."""


CHIPS = {
    "loihi": "loihi2", "speck": "speck2f", "xylo": "xylo_audio2", "truenorth": "truenorth", "spinnaker": "spinnaker1",
    "reckon": "reckon", "odin": "odin", "spinnaker2": "spinnaker2", "brainscales": "brainscales2", "akida": "akd1000",
    "catalyst": "catalyst_n1",
}  # fmt: skip
"""A chip of each family."""


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


def network_of(family):
    """Return a network that the chips of a family hold."""
    graph = network(family)
    if family == "brainscales":
        return graph.with_layers(lambda layer: replace(layer, neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0)))
    if family == "xylo":
        return graph.with_layers(lambda layer: replace(layer, neuron=LIF(tau_s=0.004, reset="subtract")))
    return graph


@pytest.mark.parametrize("family", few_first(WIDTHS, 5))
def test_a_network_of_one_family_is_refused_by_all_others_and_returned_by_its_own(family, tmp_path):
    """By quantize, simulate, check, and export with a chip; no run, and no file, of another chip's numbers."""
    rounded = quantize(network_of(family), format=family)
    write_snn(rounded, tmp_path / "n.snn")
    stored, x = read_snn(tmp_path / "n.snn"), np.ones((4, 1, 2), np.uint8)
    assert quantize(stored, format=family) is stored and find_chip_format(network_of(family)) is None
    own = api.check(stored, CHIPS[family])
    assert not [found for found in own.unsupported if "quantised for" in found.what]
    assert api.simulate(stored, x, chip=CHIPS[family]).output.shape == (4, 1, 2)
    for other in WIDTHS.keys() - {family}:
        chip = CHIPS[other]
        remedy = "give the floating-point network that it was made of"
        refusal = f"network: quantised for {family}, numbers of {chip} differ; {remedy}"
        with pytest.raises(UnsupportedError, match=f"^network: quantised for {family}, numbers of {other} differ; give the"):
            quantize(stored, format=other)
        with pytest.raises(UnsupportedError, match=f"^{refusal}$"):
            api.simulate(stored, x, chip=chip)
        with pytest.raises(UnsupportedError, match=f"^{refusal}$"):
            api.export(stored, tmp_path / "n.nir", to="nir", chip=chip)
        report = api.check(stored, chip)
        first = report.unsupported[0]
        assert (report.verdict, f"{first.what}, {first.why}") == ("does_not_fit", refusal.removeprefix("network: "))
        assert not [note for note in report.notes if note.startswith("adapt: ")]
        assert api.suggest_command("n.snn", chip, report, quantized_for=family) == ("", "")
    if family != "loihi":
        with pytest.raises(UnsupportedError, match=f"^network: quantised for {family}, numbers of loihi2 differ; give the"):
            api.export(stored, tmp_path / "n.net", to="netx")


@pytest.mark.parametrize("family", ["spinnaker2", "brainscales", "akida"])
def test_rounded_networks_of_real_numbers_are_not_changed_again(family, tmp_path):
    """No search, no adaptation, no other bits, and no explanation of what rounding changed."""
    rounded, chip = quantize(network_of(family), format=family), CHIPS[family]
    with pytest.raises(UnsupportedError, match="a quantised network is of one chip already; give the floating-point network"):
        make_plans(rounded, load_profile(chip))
    with pytest.raises(UnsupportedError, match="the network is quantised already; give the floating-point network"):
        api.explain(rounded, chip, np.ones((4, 1, 2), np.uint8))
    with pytest.raises(UnsupportedError, match="bits: the network is quantised already; give the floating-point network"):
        state_bits(rounded, chip, "2")
    np.savez(tmp_path / "d.npz", x=np.ones((40, 4, 2), np.uint8), y=np.arange(40) % 2)
    with pytest.raises(UnsupportedError, match="a quantised network can be neither searched nor fine-tuned; give the floating"):
        check_inputs(rounded, chip, tmp_path / "d.npz")


@pytest.mark.parametrize("family", WIDTHS)
def test_the_narrowest_weights_of_a_family_use_their_bits(family):
    graph, low = network_of(family), WIDTHS[family][0]
    integer = quantize(graph, format=family, weight_bits=low)
    for layer in integer.layers:
        assert np.abs(layer.synapse.weight).max() > 0 and len(np.unique(layer.synapse.weight)) <= 2**low


@pytest.mark.parametrize("family", WIDTHS)
def test_neurons_without_reset_are_those_of_truenorth(family):
    graph = network_of(family).with_layers(lambda layer: replace(layer, neuron=replace(layer.neuron, reset="none")))
    if family == "truenorth":
        assert quantize(graph, format=family)["a"].neuron.reset == "none"
        return
    message = f"layer 'a': has no reset after a spike, neurons of the format {family} have one; train with reset="
    with pytest.raises(UnsupportedError, match=message) as refused:
        quantize(graph, format=family)
    resets = re.findall("reset='(\\w+)'", str(refused.value))
    for reset in resets:
        trained = graph.with_layers(lambda layer, reset=reset: replace(layer, neuron=replace(layer.neuron, reset=reset)))
        assert quantize(trained, format=family).metadata["quantization"]["format"] == family
    expected = {"value"} if family in ("spinnaker", "odin", "catalyst", "brainscales") else {"value", "subtract"}
    assert set(resets) == ({"subtract"} if family == "xylo" else expected)


def test_a_missing_reset_is_named_in_the_words_of_the_framework():
    layer = Layer(name="a", synapse=Dense(weight=np.ones((2, 3))), neuron=LIF(tau_s=0.02, reset="none"))
    graph = replace(chain([layer], input_shape=(3,)), metadata={"source": "snntorch"})
    with pytest.raises(UnsupportedError, match="train with reset_mechanism='zero' or reset_mechanism='subtract'$"):
        quantize(graph, format="loihi")


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


def test_a_refusal_of_weights_that_integers_add_names_the_layer_that_they_lead_to():
    layers = [
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2)), neuron=CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)),
        Layer(name="fc", synapse=Dense(weight=np.ones((2, 4))), neuron=CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)),
    ]
    with pytest.raises(UnsupportedError, match="^layer 'pool': AvgPool, Xylo has dense weights between neurons only; "):
        quantize(chain(layers, input_shape=(1, 4, 4)), format="xylo")
    layers = [Layer(name="out", synapse=Dense(weight=np.ones((2, 2))), neuron=LI(tau_s=0.02)), Layer(name="next", neuron=IF())]
    graph = chain(layers, input_shape=(2,))
    graph = replace(graph, edges=(*graph.edges, Edge(source=INPUT, target="next")))
    with pytest.raises(UnsupportedError, match="^layers 'out' -> 'next': a readout's value feeds a layer; "):
        quantize(graph, format="catalyst")


def test_a_refusal_without_a_place_is_passed_on():
    graph = chain([Layer(name="a", synapse=Dense(weight=np.ones((2, 2))), neuron=IF())], input_shape=(2,))
    with pytest.raises(QuantizationError, match="^of no layer$"), _name_own_layers(graph, graph):
        raise QuantizationError("of no layer")
