"""Error of one integer layer: its formula, its samples, and what counts as clipped."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from spear_deploy.network import IF, LI, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, chain
from spear_deploy.quantize import layer_error, quantize
from spear_deploy.quantize.layer_error import (
    NOT_MEASURED,
    STATE_LIMIT,
    FloatRun,
    LayerDrive,
    LayerError,
    _grade_clips,
    count_products,
    measure_layer_error,
    report_several_spikes,
    run_float_network,
)  # fmt: skip
from spear_deploy.quantize.weighted_inputs import collect_neuron_inputs
from spear_deploy.simulator import simulate


def network(neuron: Any) -> Any:
    return chain([Layer(name="fc", synapse=Dense(weight=np.array([[1.0, -0.5], [0.25, 0.5]])), neuron=neuron)], input_shape=(2,))


def test_products_of_a_step_are_those_of_each_weight_at_each_position():
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=np.ones((3, 2, 2, 3))), neuron=IF()),
        Layer(name="more", synapse=Conv2d(weight=np.ones((5, 3, 1, 1))), neuron=IF()),
    ]
    assert count_products(chain(layers, input_shape=(2, 5, 6))) == (3 * 2 * 2 * 3 + 5 * 3) * (4 * 4)
    assert count_products(network(IF())) == 4


@pytest.mark.parametrize(("products", "samples"), [(1e10, 32), (1.0, 1), (10 * 4 * 3, 3)])
def test_samples_follow_the_products_from_1_to_32(products, samples, monkeypatch):
    monkeypatch.setattr(layer_error, "MAX_PRODUCTS", products)
    x = np.zeros((10, 40, 2), bool)
    run = run_float_network(network(IF()), x, sent=x, kind="spikes")
    assert run.emitted["fc"].shape == (10, samples, 2) and run.emitted[INPUT].shape[1] == samples
    assert run.potentials == {} and set(run_float_network(network(LI(tau_s=0.004)), x, sent=x, kind="spikes").potentials) == {
        "fc"
    }


def test_the_error_of_a_readout_is_a_share_of_its_mean_potential():
    graph = network(LI(tau_s=0.004, v_leak=0.5))
    x = np.random.default_rng(0).random((20, 3, 2)) < 0.5
    run = run_float_network(graph, x, sent=x, kind="spikes")
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    integer: Any = quantize(graph)
    scale = 64 * integer.metadata["quantization"]["scale"]["fc"]
    sums = np.einsum("tbi,oi->tbo", x.astype(np.int64), integer["fc"].synapse.weight)
    error = measure_layer_error(run, layer, drive=LayerDrive(sums=sums), neuron=integer["fc"].neuron, scale=scale)
    wanted, got = simulate(graph, x, dtype=np.float64).output - 0.5, simulate(integer, x).output / scale
    assert error == LayerError(
        clips=0, difference=pytest.approx(np.abs(got - wanted).mean() / np.abs(wanted).mean()), max_spikes=0
    )
    assert 0 < error.difference < 0.1


def test_the_error_of_spikes_is_the_difference_of_their_numbers_so_far():
    graph = network(IF())
    x = np.random.default_rng(0).random((20, 3, 2)) < 0.5
    run = run_float_network(graph, x, sent=x, kind="spikes")
    (layer,) = collect_neuron_inputs(graph, "spikes", 1.0)
    late = FloatRun(graph=graph, emitted={**run.emitted, "fc": np.roll(run.emitted["fc"], 1, axis=0)}, potentials={})
    integer: Any = quantize(graph)
    sums = np.einsum("tbi,oi->tbo", x.astype(np.int64), integer["fc"].synapse.weight)
    errors = [
        measure_layer_error(each, layer, drive=LayerDrive(sums=sums), neuron=integer["fc"].neuron, scale=1.0)
        for each in (run, late)
    ]
    counts = [np.cumsum(each.emitted["fc"].astype(int), axis=0) for each in (run, late)]
    assert errors[0].difference == 0 and errors[1].difference == np.abs(counts[0] - counts[1]).mean() > 0


def test_clips_are_graded():
    """A current that may leave its bits within a step counts 2, a potential that clips 1."""
    nothing = MappingProxyType({})
    assert _grade_clips(nothing, None, None) == 0
    assert _grade_clips({"v_clipped": 4}, None, None) == 1
    assert _grade_clips({"u_wrapped": 1, "v_clipped": 4}, None, None) == 2
    current = np.array([[[10]], [[-STATE_LIMIT // 2]], [[7]]])
    for added, grade in ((STATE_LIMIT // 2, 2), (STATE_LIMIT // 2 - 1, 0)):
        assert _grade_clips(nothing, current, np.array([[[0]], [[0]], [[added]]])) == grade
    assert _grade_clips(nothing, current, np.array([[[2**15]], [[0]], [[0]]])) == 2
    assert _grade_clips(nothing, current, np.array([[[2**15 - 1]], [[0]], [[0]]])) == 0


def test_without_data_nothing_is_measured_and_one_spike_a_step_is_no_finding():
    assert NOT_MEASURED == LayerError(clips=0, difference=0.0, max_spikes=0)
    (layer,) = collect_neuron_inputs(network(IF()), "spikes", 1.0)
    found = [report_several_spikes(layer, LayerError(clips=0, difference=0.0, max_spikes=n)) for n in (0, 1, 2)]
    assert found == [[], [], [{"layer": "fc", "what": "spikes_per_step", "given": 1.0, "stored": 2.0}]]
