"""One frame in place of all steps, for chips that keep no potential."""

import numpy as np
import pytest

from spear_deploy.adaptation.frames import find_frames, forget_steps, forgets, keeps_potential
from spear_deploy.data import Split
from spear_deploy.data.input_sums import INPUT_FRAME, sum_split, sum_steps
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, LI, LIF, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate

AKIDA = load_profile("akd1000")
NEURONS = {
    "IF": IF(r=2.0, v_threshold=1.5, reset="subtract"),
    "LIF": LIF(tau_s=4e-3, r=8.0, v_threshold=2.5, v_reset=1.0),
    "CubaLIF": CubaLIF(tau_mem_s=4e-3, tau_syn_s=2e-3, w_in=2.0, r=4.0, v_threshold=1.5),
    "late": LIF(tau_s=1e-3, r=2.0, v_threshold=1.5, reset="subtract", reset_delay=1),
}


def network(neuron, seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.normal(size=(6, 5))), neuron=neuron),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 6))), neuron=LI(tau_s=5e-3, r=3.0)),
    ]
    return chain(layers, input_shape=(5,), dt_s=1e-3)


def test_akida_alone_forgets():
    assert [name for name in list_profiles() if forgets(load_profile(name))] == ["akd1000", "akd1500"]


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_of_a_frame_counts_the_thresholds_below_its_input(name):
    graph = network(NEURONS[name])
    (offer,) = find_frames(graph, AKIDA)
    assert (offer.kind, offer.layers) == ("learnt", ("a", "out"))
    frame = offer.rewrite(graph)
    assert frame.metadata[INPUT_FRAME] == 15 and not list(find_frames(frame, AKIDA))
    x = np.random.default_rng(1).integers(0, 16, (3, 4, 5))
    run = simulate(frame, x, record=("spikes",))
    drive = x @ graph["a"].synapse.weight.T.astype(np.float64)
    # every model here gets 2 times its input in a step, and has its threshold 1.5 above the reset
    expected = np.clip(np.ceil(2.0 * drive / 1.5) - 1, 0, 15)
    np.testing.assert_array_equal(run.spikes["a"], expected)
    np.testing.assert_allclose(run.output, 0.6 * expected @ graph["out"].synapse.weight.T, rtol=1e-4, atol=1e-4)


def test_a_network_of_one_step_stays():
    graph = network(LIF(tau_s=1e-3))
    assert [layer.name for layer in graph.layers if keeps_potential(layer.neuron, 1e-3)] == ["out"]
    assert not list(find_frames(graph, load_profile("speck2f")))


def test_steps_are_summed_once_and_scaled_beyond_the_largest_value():
    graph = forget_steps(network(IF()), most=15, largest=15)
    x = (np.random.default_rng(0).random((2, 8, 5)) < 0.5).astype(np.uint8)
    split = Split(x=x, y=np.zeros(2, np.int64))
    once = sum_split(split, graph)
    np.testing.assert_array_equal(once.x, x.sum(axis=1, keepdims=True))
    assert sum_split(once, graph) is once and once.x.dtype == np.uint8
    long = np.ones((1, 300, 2), np.uint8) * np.array([1, 0], np.uint8)
    assert sum_steps(long, 15).tolist() == [[[15, 0]]]
    assert sum_steps(np.full((1, 4, 1), 0.125, np.float32), 15).tolist() == [[[0.5]]]
