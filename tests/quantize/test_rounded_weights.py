"""Weights of SpiNNaker 2 and BrainScaleS-2, and accuracies over chips whose neurons differ."""

import numpy as np
import pytest

from spear_deploy.data import Split
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import IF, LI, Conv2d, CubaLI, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize, rounded_weights
from spear_deploy.quantize.explain import explain
from spear_deploy.quantize.rounded_weights import draw_mismatch
from spear_deploy.quantize.weight_levels import FEW_LEVELS
from spear_deploy.quantize.weighted_inputs import LoweringSettings, collect_neuron_inputs
from spear_deploy.simulator import simulate
from spear_deploy.training.mismatch import evaluate_mismatch


def cuba(**options):
    return CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0, r=10.0, **options)


def network(seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.normal(size=(8, 6)), bias=rng.normal(size=8) / 10), neuron=cuba()),
        Layer(
            name="out", synapse=Dense(weight=rng.normal(size=(3, 8))), neuron=CubaLI(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0)
        ),
    ]
    return chain(layers, input_shape=(6,), dt_s=1e-3)


def spikes(shape, seed=0, steps=20, batch=4):
    return np.random.default_rng(seed).random((steps, batch, *shape)) < 0.4


@pytest.mark.parametrize(("chip", "largest"), [("brainscales2", 63), ("spinnaker2", 127)])
def test_weights_are_multiples_of_one_number(chip, largest):
    rng = np.random.default_rng(0)
    graph = network() if chip == "brainscales2" else chain(
        [Layer(name="a", synapse=Conv2d(weight=rng.normal(size=(4, 1, 3, 3))), neuron=IF())], input_shape=(1, 6, 6)
    )  # fmt: skip
    rounded = api.quantize_for_chip(graph, chip)
    assert not rounded.is_integer and api.quantize_for_chip(rounded, chip) is rounded
    for layer in rounded.layers:
        whole = layer.synapse.weight * rounded.metadata["quantization"]["scale"][layer.name]
        assert np.abs(whole - np.rint(whole)).max() < 1e-9 and largest / 2 < np.abs(whole).max() <= largest + 1e-9
        assert (
            np.abs(layer.synapse.weight - graph[layer.name].synapse.weight).max() <= np.abs(layer.synapse.weight).max() / largest
        )
        assert layer.neuron == graph[layer.name].neuron


def test_weights_of_zero_have_a_scale_of_1():
    rounded = quantize(chain([Layer(name="a", synapse=Dense(weight=np.zeros((2, 3))), neuron=cuba())], input_shape=(3,)),
                       format="brainscales")  # fmt: skip
    assert rounded.metadata["quantization"]["scale"] == {"a": 1.0} and not rounded["a"].synapse.weight.any()


def test_weights_of_few_values_are_a_finding_with_the_values_that_the_bits_hold():
    """A weight far above the others leaves one value of the six that two bits beside a sign hold."""
    weight = np.random.default_rng(0).normal(size=(10, 10))
    weight[0, 0] = 20
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=cuba())], input_shape=(10,))
    (row,) = quantize(graph, format="brainscales", weight_bits=2).metadata["quantization"]["findings"]
    assert (row["what"], row["stored"], row["held"]) == (FEW_LEVELS, 1.0, 6)
    assert "findings" not in quantize(graph, format="brainscales", weight_bits=6).metadata["quantization"]


@pytest.mark.parametrize("held", [True, False])
def test_a_learnt_scale_is_kept_where_cells_hold_the_sums_of_the_weights_at_it(held, monkeypatch):
    weight = np.random.default_rng(0).normal(size=(3, 4))
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=cuba())], input_shape=(4,))
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    seen = []
    monkeypatch.setattr(rounded_weights, "holds_shared_cells", lambda shared, whole: seen.append(whole["a"].weight) or held)
    settings = LoweringSettings(weight_bits=6, kind="spikes", learnt_scales={"a": (7.0, 0)})
    assert (rounded_weights._choose_scale(layer, 63, settings) == 7.0) == held
    assert np.array_equal(seen, [np.rint(weight * 7)])


def test_explain_has_the_weights_as_its_only_stage():
    graph, x = network(), spikes((6,))
    steps = explain(graph, quantize(graph, format="brainscales", calibration=x), x).to_json()["steps"]
    assert [step["step"] for step in steps] == ["trained", "arithmetic", "batch_norm", "weights"]


@pytest.mark.parametrize(
    ("family", "neuron", "message"),
    [
        ("spinnaker2", LI(tau_s=0.01), "layer 'a': LI, SpiNNaker 2 has IF, LIF, CubaLIF; use one of them"),
        ("brainscales", IF(), "layer 'a': IF, BrainScaleS-2 has CubaLIF, CubaLI; use one of them"),
    ],
)
def test_other_neurons_are_refused(family, neuron, message):
    graph = chain([Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=neuron)], input_shape=(2,))
    with pytest.raises(UnsupportedError, match=message):
        quantize(graph, format=family)


def test_a_chip_is_drawn_by_its_seed_and_none_without_spread():
    graph, x = network(), spikes((6,))
    spread = {"weight": 0.1, "tau_mem_s": 0.2, "tau_syn_s": 0.2, "v_threshold": 0.1}
    first, again, other = (draw_mismatch(graph, spread, seed) for seed in (0, 0, 1))
    assert first["a"].neuron == again["a"].neuron != other["a"].neuron
    ratios = np.concatenate([draw_mismatch(graph, spread, s)["a"].neuron.tau_mem_s.ravel() / 0.01 for s in range(100)])
    assert ratios.shape == (800,) and ratios.std() == pytest.approx(0.2, rel=0.1) and ratios.mean() == pytest.approx(1, abs=0.03)
    assert np.array_equal(simulate(draw_mismatch(graph, {}, 0), x).output, simulate(graph, x).output)


def test_accuracy_is_a_distribution_over_chips():
    graph, x = network(), spikes((6,), steps=30, batch=60)
    labels = simulate(graph, x).output.sum(axis=0).argmax(axis=1)
    split = Split(x=np.moveaxis(x, 1, 0).astype(np.uint8), y=labels, kind="spikes")
    result = evaluate_mismatch(graph, split, {"weight": 0.2, "v_threshold": 0.2}, chips=5)
    assert result["same"] == 1 and len(result["accuracies"]) == 5
    assert 0.4 < result["mean"] < 1 and result["sd"] > 0
    assert evaluate_mismatch(graph, split, {"weight": 0.05}, chips=1)["sd"] == 0


@pytest.mark.parametrize("spread", [{"weights": 0.1}, {"weight": -0.1}, {"weight": 0.6}])
def test_a_spread_that_is_none_is_refused(spread):
    with pytest.raises(DataError, match=r"spread 'weights?': .* given, expected 0\.\.0\.5 for weight, tau_mem_s, "):
        draw_mismatch(network(), spread, 0)


def test_a_spread_of_0_leaves_the_network_as_it_is():
    graph = network()
    same = draw_mismatch(graph, {"weight": 0.0, "v_threshold": 0.0}, seed=1)
    assert all((a.synapse.weight == b.synapse.weight).all() for a, b in zip(same.layers, graph.layers, strict=True))
