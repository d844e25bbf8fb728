"""Norse to SNNGraph to Norse: the same states on the same input."""

from dataclasses import replace

import norse.torch as norse
import numpy as np
import pytest
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model, run_model
from spear_deploy.norse.network import to_graph, to_norse
from spear_deploy.simulator import simulate
from tests.frameworks import test_norse_importer as models
from tests.frameworks.test_norse_importer import dyadic
from tests.support.wild_graphs import wild_graph, wild_spikes

torch.set_num_threads(1)

WHOLE_MODELS = ("MobileNetV2", "ConvNet", "ConvNet4", "VGG")  # hundreds of layers; their outputs are compared elsewhere
NO_WEIGHTS = ("Lift", "LConv2d", "LILinearCell", "LIFRecurrent", "LIFRecurrentCell", "RegularizationCell")


def states_of(network, name, drive):
    """Step the neurons of a rebuilt layer by hand, drive (T, B, *shape); return v and u of every step."""
    neuron = network.module_of(name).neuron
    state, v, u = neuron.start(drive[0]), [], []
    for x in drive:
        _, state = neuron.step(x, state)
        v.append(state.v.numpy().copy())
        u.append(getattr(state, "i", state.v).numpy().copy())
    return np.stack(v), np.stack(u)


@pytest.mark.parametrize("name", sorted(set(models.MAPPED) - set(WHOLE_MODELS)))
def test_states_come_back_equal_to_the_bit(name):
    """For every mapped module: Norse's own, the graph's, and those of the Norse cell that is built from the graph."""
    model, shape, _ = models.MAPPED[name]()
    dyadic(model)
    graph = read_model(model, shape)
    drive = np.random.default_rng(3).integers(-8, 17, (40, 3, *shape)).astype(np.float32) / 8
    run = simulate(graph, drive, kind="current", record=("v", "u", "spikes"))
    assert np.array_equal(run_model(model, drive), run.output)
    network = to_norse(graph).eval()
    assert read_model(network, shape) == graph
    with torch.no_grad():
        assert np.array_equal(network(drive).numpy(), run.output)
        layer = graph[graph.output]
        if layer.neuron is None or name in NO_WEIGHTS:
            return
        feeds_back = any(edge.delay for edge in graph.edges)
        assert feeds_back == (name == "RecurrentSequential")
        if not feeds_back:
            v, u = states_of(network, graph.output, torch.from_numpy(drive))
            assert np.array_equal(v, run.v[graph.output])
            if graph.output in run.u:
                assert np.array_equal(u, run.u[graph.output])


def test_any_floating_point_network_runs_in_norse_and_comes_back():
    for seed in range(25):
        graph = wild_graph(seed)
        network = to_norse(graph).eval()
        x = wild_spikes(graph, seed)
        run = simulate(graph, x, record=("spikes",))
        with torch.no_grad():
            output, spikes = network(x, record=True)
        # potentials that pass through several layers need more than 24 bits: there the order of a sum shows
        np.testing.assert_allclose(output.numpy(), run.output * np.float32(1), rtol=1e-5, atol=1e-4, err_msg=str(seed))
        for name, expected in run.spikes.items():
            assert np.array_equal(spikes[name].numpy() > 0, expected), (seed, name)
        again = to_graph(network)
        assert again.edges == graph.edges and again.output == graph.output
        assert [replace(a, synapse=None, norm=None) for a in again.layers] == [
            replace(b, synapse=None, norm=None) for b in graph.layers
        ]
        np.testing.assert_array_equal(simulate(again, x).output, run.output)


@pytest.mark.parametrize("numbers", ["loihi", "speck", "xylo"])
def test_integer_networks_are_refused_by_norse(numbers):
    with pytest.raises(UnsupportedError, match="an integer network has no gradient to learn with"):
        to_norse(wild_graph(1, numbers))


def test_norses_cell_is_what_is_rebuilt():
    """No cell of our own where Norse has one."""
    network = to_norse(read_model(norse.SequentialState(norse.LIFCell(), norse.LIFBoxCell(), norse.LICell()), (3,)))
    kinds = [type(network.module_of(name).neuron.cell) for name in ("0", "1", "2")]
    assert kinds == [norse.LIFCell, norse.LIFBoxCell, norse.LICell]
