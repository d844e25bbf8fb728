"""Output neurons that never spike."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import Split
from spear_deploy.network import IF, LI, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate
from spear_deploy.training.silent_outputs import revive_outputs

SPLIT = Split(x=(np.random.default_rng(0).random((64, 6, 8)) < 0.4).astype(np.uint8), y=np.arange(64) % 4)


def network(rows, neuron=None):
    layer = Layer(name="out", synapse=Dense(weight=np.array(rows, np.float32)), neuron=neuron or IF(reset="subtract"))
    return chain([layer], input_shape=(8,), dt_s=1e-3)


def spikes(graph):
    return simulate(graph, np.moveaxis(SPLIT.x, 0, 1)).output.sum(axis=(0, 1))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_silent_output_spikes_as_often_as_the_others(scale):
    rng = np.random.default_rng(1)
    rows = np.abs(rng.normal(size=(4, 8))) / 4
    rows[2] = -np.abs(rng.normal(size=8))
    rows[2, 3] = 0.0
    graph = network(scale * rows, IF(reset="subtract", v_threshold=scale))
    before, after = spikes(graph), revive_outputs(graph, SPLIT)
    assert before[2] == 0 and before[[0, 1, 3]].min() > 0
    counts = spikes(after)
    assert counts[[0, 1, 3]].tolist() == before[[0, 1, 3]].tolist()
    assert counts[2] == pytest.approx(before[[0, 1, 3]].mean(), rel=0.15)
    added = after["out"].synapse.weight[2] - graph["out"].synapse.weight[2]
    assert added[3] == 0 and np.ptp(np.delete(added, 3)) < 1e-5 * scale


def test_sources_of_one_sign_keep_it():
    """Excitatory weights rise, inhibitory ones end at 0, as learning keeps them."""
    rng = np.random.default_rng(2)
    rows = np.abs(rng.normal(size=(4, 8))) * np.where(np.arange(8) < 4, 1, -0.25)
    rows[2] *= np.where(np.arange(8) < 4, 0.01, 8)
    graph = replace(network(rows), metadata={"one_sign": ["out"]})
    before, after = spikes(graph), revive_outputs(graph, SPLIT)
    weight = after["out"].synapse.weight
    assert before[2] == 0 and spikes(after)[2] > 0
    assert weight[:, :4].min() > 0 and weight[:, 4:].max() <= 0
    assert revive_outputs(replace(graph, metadata={}), SPLIT)["out"].synapse.weight[2, 4:].max() > 0


@pytest.mark.parametrize(
    "graph",
    [
        network(np.ones((3, 8)) / 4),  # none is silent
        network(-np.ones((3, 8))),  # all are
        network([[1] * 8, [0] * 8]),  # the silent one has no weights
        network([[0.25] * 8] * 4 + [[-1] * 8]),  # no sample is of its class
        network(-np.ones((3, 8)), LI(tau_s=5e-3)),
    ],
)
def test_other_networks_stay(graph):
    assert revive_outputs(graph, SPLIT) == graph
