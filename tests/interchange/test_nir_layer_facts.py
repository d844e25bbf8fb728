"""Order of layers, sums, scales, batch norms and missing biases in NIR files."""

import h5py
import nir
import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.dialect_writer import make_dialect_graph
from spear_deploy.interchange.nir.reader import read_nir, read_nir_graph
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import IF, LIF, AvgPool, BatchNorm, Conv1d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain, merge_parts
from spear_deploy.simulator import simulate

SCALES = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2)
BIASED = Scale(weight=SCALES, bias=np.ones((2, 1, 1), np.float32))


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


@pytest.mark.parametrize(
    "before",
    [
        None,
        Flatten(),
        AvgPool(kernel_size=(1, 2)),
        SumPool(kernel_size=(1, 2)),
        Scale(weight=SCALES),
        BIASED,
    ],
    ids=["nothing", "flatten", "mean", "sum", "scale", "scale with a bias"],
)
def test_a_batch_norm_behind_no_weights_comes_back_in_its_layer(before, tmp_path):
    """It came back as weights of a layer behind, which no core holds: check said that the network does not fit."""
    channels = 12 if isinstance(before, Flatten) else 2
    gain, mean = np.arange(1, channels + 1, dtype=np.float32), np.full(channels, 0.5, np.float32)
    norm = BatchNorm(weight=gain, bias=mean, mean=mean, var=np.full(channels, 4, np.float32), eps=0.0)
    layers = [Layer(name="a", neuron=IF()), Layer(name="n", synapse=before, norm=norm, neuron=IF())]
    graph = chain(layers, input_shape=(2, 3, 2))
    what = "written as a factor and a shift per channel and rounded to float32"
    assert write_nir(graph, tmp_path / "a.nir") == [f"layer 'n': batch norm is {what}"]
    again = read_nir(tmp_path / "a.nir")
    assert again.edges == graph.edges and again["n"].synapse == before
    assert np.array_equal(again["n"].norm.weight, gain / 2) and np.array_equal(again["n"].norm.bias, mean - mean * gain / 2)
    one, two = (check(g, load_profile("loihi2"), remedies=False) for g in (graph, again))
    assert one.verdict == two.verdict and one.rows == two.rows
    x = np.random.default_rng(0).random((10, 2, 2, 3, 2)) < 0.5
    assert np.array_equal(simulate(again, x).output, simulate(graph, x).output) and simulate(graph, x).output.any()
    with h5py.File(tmp_path / "a.nir", "a") as file:  # by another tool: no factors any more where the input has one axis
        weight = file["node/nodes/n.norm/weight"]
        weight[...] = weight[...] + 1
    assert (read_nir(tmp_path / "a.nir")["n"].norm is None) == isinstance(before, Flatten)


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "norse"])
def test_a_scale_of_a_flattened_map_comes_back_from_the_matrix_of_an_importer(framework):
    """The file could not be read: its scale had the values of the flattened map, and lay in front of it."""
    scale = Scale(weight=np.arange(1, 13, dtype=np.float32))
    layers = [Layer(name="flat", synapse=Flatten()), Layer(name="n", synapse=scale, neuron=IF())]
    again = read_nir_graph(make_dialect_graph(chain(layers, input_shape=(2, 3, 2)), framework)[0])
    assert [type(layer.synapse) for layer in again.layers] == [Flatten, Scale] and again["n"].synapse.weight.shape == (12,)


def test_a_sum_of_one_way_leaves_no_weights(tmp_path):
    """Behind weights, in front of weights and in front of neurons; a scale by 1 was counted as weights behind weights."""
    dense = Dense(weight=np.eye(2, dtype=np.float32))
    names = ["weights", "behind", "before", "more", "neurons"]
    parts = [{"synapse": dense}, {}, {}, {"synapse": dense}, {"neuron": IF()}]
    layers = [Layer(name=name, **part) for name, part in zip(names, parts, strict=True)]
    ends = zip(["input", *names], names, [0, 0, 1, 0, 1], strict=False)
    graph = SNNGraph(layers=layers, edges=[Edge(source=s, target=t, delay=d) for s, t, d in ends], input_shape=(2,))
    write_nir(graph, tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")
    merged = merge_parts(graph)
    assert [layer.name for layer in again.layers] == ["behind", "more", "neurons"] and again.edges == merged.edges
    assert [layer.synapse for layer in again.layers] == [layer.synapse for layer in merged.layers] == [dense, dense, None]


@pytest.mark.parametrize("stated", ["[", "3", '{"n": 1}', '{"n": {"scale": ["a"]}}'])
def test_a_damaged_order_of_layers_is_refused(stated, tmp_path):
    write_nir(chain([Layer(name="n", neuron=LIF(tau_s=np.asarray(5e-3)))], input_shape=(3,)), tmp_path / "a.nir")
    stored = nir.read(tmp_path / "a.nir")
    stored.metadata["spear_layers"] = stated
    with pytest.raises(GraphError, match=r"metadata 'spear_layers' is damaged \(.*\); export the network again"):
        read_nir_graph(stored)
