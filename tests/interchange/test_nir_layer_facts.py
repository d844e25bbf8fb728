"""Order of layers, scales and missing biases in NIR files."""

import nir
import numpy as np
import pytest

from spear_deploy.errors import GraphError
from spear_deploy.interchange.nir.dialect_writer import make_dialect_graph
from spear_deploy.interchange.nir.reader import read_nir, read_nir_graph
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import IF, LIF, Conv1d, Dense, Layer, Scale
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate


def test_layers_come_back_in_their_order_without_a_bias_that_they_lack(tmp_path):
    """Behind a delay a layer came back in front of those that feed it, by its name; a bias of zeros takes memory on a chip."""
    conv = Conv1d(weight=np.ones((2, 2, 1), np.float32))
    zeros = Conv1d(weight=conv.weight, bias=np.zeros(2, np.float32))
    layers = [Layer(name=name, synapse=synapse, neuron=IF()) for name, synapse in (("b", conv), ("c", zeros))]
    layers += [Layer(name="weights", synapse=conv), Layer(name="a", neuron=IF())]
    edges = [("input", "b", 0), ("b", "c", 0), ("c", "weights", 1), ("weights", "a", 0)]
    graph = SNNGraph(layers=layers, edges=[Edge(source=s, target=t, delay=d) for s, t, d in edges], input_shape=(2, 5))
    write_nir(graph, tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")
    assert [layer.name for layer in again.layers] == ["b", "c", "a"] and again.output == "a"
    assert [layer.synapse.bias is None for layer in again.layers] == [True, False, True]


@pytest.mark.parametrize(("size", "bias"), [(3, None), (1500, None), (3, np.array([0.5, 0, 1], np.float32))])
def test_a_scale_that_an_importer_takes_as_a_matrix_comes_back(size, bias):
    scale = Scale(weight=np.arange(size, dtype=np.float32), bias=bias)
    graph = chain([Layer(name="n", synapse=scale, neuron=LIF(tau_s=np.asarray(5e-3), r=np.asarray(5.0)))], input_shape=(size,))
    built, _ = make_dialect_graph(graph, "snntorch")
    assert read_nir_graph(built)["n"].synapse == scale
    built.nodes["n.synapse"].weight[0, 1] = 2.0  # by another tool
    assert isinstance(read_nir_graph(built)["n"].synapse, Dense)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2)])
def test_sums_and_scales_with_a_bias_come_back(shape, tmp_path):
    """A sum came back as a scale by 1, and a scale with a bias as two layers, the second with weights, which chips count."""
    per_channel = np.arange(1, 4, dtype=np.float32).reshape(3, *(1 for _ in shape[1:]))
    layers = [Layer(name="n", neuron=IF(v_threshold=np.asarray(0.5))), Layer(name="sum")]
    layers += [
        Layer(name="s", synapse=Scale(weight=np.float32(2), bias=per_channel)),
        Layer(name="out", neuron=IF()),
    ]
    edges = [("input", "n", 0), ("n", "sum", 0), ("input", "sum", 1), ("sum", "s", 0), ("s", "out", 0), ("sum", "out", 2)]
    graph = SNNGraph(layers=layers, edges=[Edge(source=s, target=t, delay=d) for s, t, d in edges], input_shape=shape)
    write_nir(graph, tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")
    assert [layer.name for layer in again.layers] == ["n", "sum", "s", "out"] and again.edges == graph.edges
    assert again["sum"].synapse is None and again["s"].synapse == graph["s"].synapse
    for weight in (per_channel, np.broadcast_to(per_channel, shape)):
        one = chain([Layer(name="s", synapse=Scale(weight=weight)), Layer(name="n", neuron=IF())], input_shape=shape)
        write_nir(one, tmp_path / "b.nir")
        assert read_nir(tmp_path / "b.nir")["n"].synapse == Scale(weight=weight)
    x = np.random.default_rng(0).random((10, 2, *shape)) < 0.5
    assert np.array_equal(simulate(again, x).output, simulate(graph, x).output)


@pytest.mark.parametrize("stated", ["[", "3", '{"n": 1}', '{"n": {"scale": ["a"]}}'])
def test_a_damaged_order_of_layers_is_refused(stated, tmp_path):
    write_nir(chain([Layer(name="n", neuron=LIF(tau_s=np.asarray(5e-3)))], input_shape=(3,)), tmp_path / "a.nir")
    stored = nir.read(tmp_path / "a.nir")
    stored.metadata["spear_layers"] = stated
    with pytest.raises(GraphError, match=r"metadata 'spear_layers' is damaged \(.*\); export the network again"):
        read_nir_graph(stored)
