"""Layers of which rounding leaves few levels of weights."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, BatchNorm, CubaLI, CubaLIF, Dense, Layer, Scale, make_sparse, sparse_matrix
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize, weight_levels
from spear_deploy.quantize.explain.findings import find_changed_parameters
from spear_deploy.quantize.weight_levels import FEW_LEVELS, WEIGHTS_LOST, report_levels
from tests.support.seeds import seeds


def two_sizes(neuron, share, weight=None, end=None):
    """Return two layers of weights that add up in neurons, of which the second has the share of the sizes of the first."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 20)) if weight is None else weight
    layers = [
        Layer(name="a", synapse=Dense(weight=weight)),
        Layer(name="b", synapse=Dense(weight=share * weight[:, ::-1])),
        Layer(name="n", neuron=neuron),
    ]
    pairs = [("input", "a"), ("input", "b"), ("a", "n"), ("b", "n")]
    if end is not None:
        layers.append(Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 6))), neuron=end))
        pairs.append(("n", "out"))
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=(20,), output=layers[-1].name)


def few(graph, format, **options):
    findings = quantize(graph, format=format, **options).metadata["quantization"].get("findings", ())
    return {row["layer"]: row["stored"] for row in findings if row["what"] == FEW_LEVELS}


XYLO = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01, reset="subtract")
FAMILIES = [
    ("loihi", "loihi2", IF(), None),
    ("reckon", "reckon", LIF(tau_s=0.02), LI(tau_s=0.02)),
    ("xylo", "xylo_audio3", XYLO, CubaLI(tau_mem_s=0.02, tau_syn_s=0.01)),
    ("spinnaker2", "spinnaker2", LIF(tau_s=0.02), LIF(tau_s=0.02)),
    ("brainscales", "brainscales2", CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01), CubaLI(tau_mem_s=0.02, tau_syn_s=0.01)),
]


@pytest.mark.parametrize(("format", "chip", "neuron", "end"), FAMILIES)
def test_weights_of_which_two_values_are_left_are_a_note_and_a_finding(format, chip, neuron, end):
    largest = 63 if format == "brainscales" else 127
    graph = two_sizes(neuron, 1.2 / largest, end=end)
    assert few(graph, format) == {"b": 2.0}
    assert few(two_sizes(neuron, 1.0, end=end), format) == {}
    integer = quantize(graph, format=format)
    (found,) = (found for found in find_changed_parameters(integer) if found.code == FEW_LEVELS)
    assert found.text == (
        f"layer 'b': its 120 different weights round to 2 values beside 0, of {2 * largest} that the chip's bits hold; bring the "
        "weights, biases and thresholds of its neurons nearer to one size, or train with the chip's rounding"
    )
    assert f"weights: {found.text}" in check(integer, load_profile(chip)).notes


def test_check_of_the_trained_network_says_it_too():
    notes = check(two_sizes(IF(), 0.01), load_profile("loihi2")).notes
    assert any(note.startswith("weights: layer 'b': its 120 different weights round to 2 values beside 0") for note in notes)


def test_a_bias_far_above_the_weights_leaves_few_levels():
    weight = np.random.default_rng(0).normal(size=(4, 30))
    layer = Layer(name="fc", synapse=Dense(weight=weight, bias=np.full(4, 8000.0)), neuron=IF())
    said = {}
    for bias in (1.0, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6):
        synapse = replace(layer.synapse, bias=np.full(4, bias))
        integer = quantize(chain([replace(layer, synapse=synapse)], input_shape=(30,)), format="loihi")
        levels = len(set(integer["fc"].synapse.weight.reshape(-1).tolist()) - {0})
        what = [row["what"] for row in integer.metadata["quantization"].get("findings", ())]
        assert what == ([WEIGHTS_LOST] if levels == 0 else [FEW_LEVELS] if levels <= 2 else []), bias
        said[bias] = what
    assert said[1.0] == [] and [FEW_LEVELS] in said.values() and said[1e6] == [WEIGHTS_LOST]


@pytest.mark.parametrize("format", ["loihi", "spinnaker2", "reckon"])
def test_networks_that_learnt_with_few_values_are_no_finding(format):
    rng = np.random.default_rng(1)
    neuron = IF() if format == "loihi" else LIF(tau_s=0.02)
    end = None if format == "loihi" else LI(tau_s=0.02) if format == "reckon" else LIF(tau_s=0.02)
    for values in ((-1.0, 1.0), (-1.0, 0.0, 1.0), (0.0, 0.5), (0.499, 0.5, 0.501)):
        weight = rng.choice(values, (6, 20))
        for share in (1.0, 0.01):
            assert few(two_sizes(neuron, share, weight, end), format) == {}, (values, share)


def test_signs_times_a_factor_of_each_row_are_no_finding():
    """A batch norm behind binary weights makes many values of two."""
    rng = np.random.default_rng(2)
    weight = rng.choice([-1.0, 1.0], (8, 40))
    norm = BatchNorm(weight=rng.uniform(0.8, 1.2, 8), bias=np.zeros(8), mean=np.zeros(8), var=np.ones(8))
    layer = Layer(name="fc", synapse=Dense(weight=weight), norm=norm, neuron=IF())
    graph = chain([layer], input_shape=(40,))
    assert few(graph, "loihi", headroom={"fc": 0.008}) == {}
    unlike = replace(layer, synapse=Dense(weight=rng.normal(size=(8, 40))))
    assert few(chain([unlike], input_shape=(40,)), "loihi", headroom={"fc": 0.008}) == {"fc": 2.0}


def test_layers_whose_bits_hold_no_more_are_no_finding():
    graph = chain(
        [Layer(name="fc", synapse=Dense(weight=np.random.default_rng(0).normal(size=(6, 30))), neuron=IF())], input_shape=(30,)
    )
    for bits, levels in ((2, 2), (3, 6), (8, 100)):
        integer = quantize(graph, format="loihi", weight_bits=bits)
        assert len(set(integer["fc"].synapse.weight.reshape(-1).tolist()) - {0}) >= min(levels, 6)
        assert few(graph, "loihi", weight_bits=bits) == {}
    assert few(graph, "loihi", weight_bits=3, headroom={"fc": 0.3}) == {"fc": 2.0}
    assert few(graph, "loihi", layer_bits={"fc": 2}) == {}


def test_bits_beside_a_sign_of_its_own_hold_values_of_each_sign():
    """ODIN stores 3 bits beside the sign of the source: 7 values of each sign."""
    weight = np.abs(np.random.default_rng(0).normal(size=(6, 30))) * np.where(np.arange(30) % 2, 1, -1)
    neuron = IF(v_threshold=np.asarray(700.0))
    integer = quantize(chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(30,)), format="odin")
    (row,) = (row for row in integer.metadata["quantization"]["findings"] if row["what"] == FEW_LEVELS)
    assert (row["stored"], row["held"]) == (2.0, 14)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_sparse_weights_are_reported_as_the_full_ones(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(7, 30)) * (rng.random((7, 30)) < 0.4)
    stored = np.rint(weight * rng.choice([0.1, 0.6, 1.0, 30.0]))
    full = list(report_levels("a", Dense(weight=weight), Dense(weight=stored), 8))
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
    sparse = list(report_levels("a", Dense(weight=make_sparse(weight)), Dense(weight=make_sparse(stored)), 8))
    assert sparse == full


def test_few_levels_are_found_wherever_they_lie_among_many_weights():
    weight = np.random.default_rng(0).normal(size=(3, 5000))
    stored = np.ones((3, 5000))
    stored[-1, -1] = -1
    (row,) = report_levels("a", Dense(weight=weight), Dense(weight=stored), 8)
    assert (row["stored"], row["held"]) == (2.0, 254)
    stored[1, 0] = 5
    assert not list(report_levels("a", Dense(weight=weight), Dense(weight=stored), 8))


def test_single_weights_of_neurons_are_no_finding():
    weight = np.linspace(0.5, 1.5, 40)
    assert not list(report_levels("a", Scale(weight=weight), Scale(weight=np.rint(weight)), 8))


@pytest.mark.parametrize("zeros", [0, 5000])
@pytest.mark.parametrize("values", [[], [3.0], [-1.0, 2.0], [-1.0, 2.0, 4.0], [5.0, 5.0, 1.0]])
def test_levels_behind_many_weights_of_one_value_are_found(values: list[float], zeros: int):
    found = weight_levels._list_levels(np.array([0.0] * zeros + values[:1] * 5000 + values))
    expected = sorted(set(values))
    assert found == (None if len(expected) > 2 else expected)
