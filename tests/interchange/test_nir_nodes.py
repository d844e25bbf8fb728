"""NIR nodes of every type and version."""

import itertools

import nir
import numpy as np
import pytest

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.nir.nodes import NODE_TYPES
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.network import LIF, Conv2d, Dense
from spear_deploy.network.graph import Edge
from spear_deploy.simulator import simulate
from tests.interchange.test_nir_file import CHAIN, INPUT, LIF_FIELDS, OUTPUT, lif, raw, written
from tests.interchange.test_nir_frameworks import flat_raw
from tests.support.reference import random_spikes


def test_all_primitives_of_nir_are_read():
    """A node type that a later nir brings must be added or be refused by name."""
    from nir import ir

    parts = [getattr(ir, name) for name in dir(ir)]
    primitives = {p.__name__ for p in parts if isinstance(p, type) and issubclass(p, ir.NIRNode) and p is not ir.NIRNode}
    assert primitives and primitives <= set(NODE_TYPES)


def test_a_threshold_has_no_memory(tmp_path):
    nodes = {"n": nir.Threshold(threshold=np.array([0.5, 1.0]))}
    graph = read_nir(written(tmp_path / "a.nir", nodes, CHAIN))
    x = np.random.default_rng(0).integers(-8, 9, (40, 3, 2)) / 4
    emitted = simulate(graph, x, kind="current", record=("spikes",)).spikes["n"]
    assert np.array_equal(emitted, x > np.array([0.5, 1.0]))


def test_an_integrator_is_a_running_sum(tmp_path):
    nodes = {"n": nir.I(r=np.array([1.0, 0.5]))}
    graph = read_nir(written(tmp_path / "a.nir", nodes, CHAIN))
    x = np.random.default_rng(0).integers(-8, 9, (40, 3, 2)) / 4
    assert np.array_equal(simulate(graph, x, kind="current").output, np.cumsum(x * [1.0, 0.5], axis=0))
    assert "node 'n': an I node adds r · input each step, without dt, as an IF node does" in graph.metadata["assumptions"]


def test_delays_of_neurons_inside_a_cycle(tmp_path):
    """A neuron with delay d reaches itself d steps later, one with 0 by the step that closes the cycle."""
    nodes = {"n": lif(tau=1e-4, threshold=0.5), "d": nir.Delay(delay=np.array([0.0, 3e-4]))}
    graph = read_nir(written(tmp_path / "a.nir", nodes, [("input", "n"), ("n", "d"), ("d", "n"), ("n", "output")]))
    x = np.zeros((10, 1, 2), bool)
    x[0] = True
    emitted = simulate(graph, x, record=("spikes",)).spikes["n"][:, 0]
    assert np.flatnonzero(emitted[:, 0]).tolist() == list(range(10))
    assert np.flatnonzero(emitted[:, 1]).tolist() == [0, 3, 6, 9]


def test_too_many_delays_in_one_node(tmp_path):
    nodes = {"n": nir.Delay(delay=np.arange(70) * 1e-4)}
    with pytest.raises(UnsupportedError, match="node 'n': 70 different delays in one node, 64 are supported"):
        read_nir(written(tmp_path / "a.nir", nodes, CHAIN, n_in=70, n_out=70))


def flatten_file(path, behind, *, start=1, end=2, shape=(2, 2, 3), **fields):
    nodes = {"input": {**INPUT, "shape": list(shape)}, "f": {"type": "Flatten", "start_dim": start, "end_dim": end, **fields}}
    names = ["input", "f", *behind, "output"]
    return raw(path, {**nodes, **behind, "output": OUTPUT}, list(itertools.pairwise(names)))


def test_flattening_some_axes_keeps_the_order(tmp_path):
    """(2, 2, 3) → (2, 6) → a neuron each, parameters (2, 6) → all → weights."""
    threshold = np.arange(12.0).reshape(2, 6) / 8
    neuron = {"type": "LIF", "tau": 1e-4, "v_threshold": threshold}
    behind = {"n": neuron, "g": {"type": "Flatten", "start_dim": 0, "end_dim": -1}, "w": {"type": "Linear", "weight": np.eye(12)}}
    graph = read_nir(flatten_file(tmp_path / "a.nir", behind))
    x = np.random.default_rng(0).random((9, 2, 2, 2, 3)) * 2
    expected = x.reshape(9, 2, 12) > threshold.ravel()
    assert np.array_equal(simulate(graph, x, kind="current").output, expected)
    assert any("node 'f' flattens axes 1 to 2" in note for note in graph.metadata["assumptions"])
    conv = {"type": "Conv1d", "weight": np.ones((1, 2, 3))}
    with pytest.raises(UnsupportedError, match="node 'f': flattens axes 1 to 2 of an unstated shape in front of Conv1d; only"):
        read_nir(flatten_file(tmp_path / "b.nir", {"c": conv}))
    dense = {"w": {"type": "Linear", "weight": np.eye(6)}}
    with pytest.raises(GraphError, match="Dense takes 6 inputs, got 12"):
        read_nir(flatten_file(tmp_path / "c.nir", dense))


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, None), (0, 2, (2, 2, 3)), (-3, -1, (2, 2, 3)), (0, 3, (2, 2, 3)), (1, -1, (12,))]
)
def test_flattening_all_axes_in_every_spelling(start, end, shape, tmp_path):
    fields = {} if shape is None else {"input_type": np.array(shape)}
    behind = {"s": {"type": "Scale", "scale": np.arange(12.0)}}
    graph = read_nir(flatten_file(tmp_path / "a.nir", behind, start=start, end=end, shape=shape or (2, 2, 3), **fields))
    assert graph.shape_of(graph.output) == (12,)


@pytest.mark.parametrize("where", ["shape", "input_type", "input_shape"])
@pytest.mark.parametrize("form", ["array", "group", "number", "floats"])
def test_the_shape_of_the_input_in_every_form(where, form, tmp_path):
    value = {"array": np.array([2]), "group": {"input": np.array([2])}, "number": np.array(2), "floats": np.array([2.0])}[form]
    nodes = {"input": {"type": "Input", where: value}, "n": LIF_FIELDS, "output": {"type": "Output"}}
    assert read_nir(flat_raw(tmp_path / "a.nir", nodes, CHAIN)).input_shape == (2,)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"type": "Linear", "weight": np.ones((2, 3))}, (3,)),
        ({"type": "Scale", "scale": np.ones(4)}, (4,)),
        ({"type": "IF", "v_threshold": np.ones((2, 3))}, (2, 3)),
        ({"type": "I", "r": np.ones(3)}, (3,)),
        ({"type": "Delay", "delay": np.full(3, 1e-4)}, (3,)),
        ({"type": "Threshold", "threshold": np.ones(3)}, (3,)),
        ({"type": "Flatten", "start_dim": 0, "input_type": np.array([2, 3])}, (2, 3)),
        ({"type": "Conv2d", "weight": np.ones((4, 1, 3, 3)), "groups": 2, "input_shape": [5, 6]}, (2, 5, 6)),
    ],
)
def test_an_input_without_a_shape_takes_that_of_what_it_feeds(fields, shape, tmp_path):
    nodes = {"input": {"type": "Input"}, "n": fields, "output": {"type": "Output"}}
    graph = read_nir(raw(tmp_path / "a.nir", nodes, CHAIN))
    assert graph.input_shape == shape
    assert f"node 'input' states no shape: {shape} is taken, which node 'n' takes" in graph.metadata["assumptions"]


@pytest.mark.parametrize(
    ("stated", "note"),
    [
        ([1, 1, 3], "states (1, 1, 3): its axes of one value are taken to be time and batch"),
        ([1, 3], "states (1, 3): its first axis is taken to be the batch"),
        ([3], None),
    ],
)
def test_axes_of_one_value_in_front_of_linear_weights_are_the_batch(stated, note, tmp_path):
    nodes = {"input": {"type": "Input", "shape": np.array(stated)}, "n": {"type": "Linear", "weight": np.ones((2, 3))}}
    graph = read_nir(raw(tmp_path / "a.nir", {**nodes, "output": {"type": "Output"}}, CHAIN))
    assert graph.input_shape == (3,)
    notes = [text for text in graph.metadata["assumptions"] if "node 'input'" in text]
    assert notes == ([] if note is None else [f"node 'input' {note}"])


@pytest.mark.parametrize(
    ("nodes", "edges", "match"),
    [
        (
            {"n": {"type": "LIF", "tau": 0.1, "v_threshold": 1.0}},
            CHAIN,
            "node 'input' states no shape and 'n' does not tell its own",
        ),
        ({"n": LIF_FIELDS}, [("n", "output")], "node 'input' feeds nothing; add an edge from it"),
    ],
)
def test_an_input_that_nothing_tells_the_shape_of(nodes, edges, match, tmp_path):
    ends = {"input": {"type": "Input"}, "output": {"type": "Output"}}
    with pytest.raises(GraphError, match=match):
        read_nir(raw(tmp_path / "a.nir", {**ends, **nodes}, edges))


def test_former_names_of_parameters(tmp_path):
    fields = {"type": "LIF", "tau": 0.01, "R": np.array(2.0), "theta": np.array(0.5), "v_rest": np.zeros(2)}
    graph = read_nir(raw(tmp_path / "a.nir", {"input": INPUT, "n": fields, "output": OUTPUT}, CHAIN))
    assert graph["n"].neuron == LIF(tau_s=0.01, r=2.0, v_threshold=0.5, v_leak=0.0)
    assert "node 'n': 'theta' is taken to be 'v_threshold'" in graph.metadata["assumptions"]


def test_nodes_and_edges_by_number(tmp_path):
    nodes = {"0": INPUT, "1": LIF_FIELDS, "2": OUTPUT}
    import h5py

    with h5py.File(raw(tmp_path / "a.nir", nodes, [("0", "1"), ("1", "2")]), "a") as opened:
        del opened["node/edges"]
        opened["node/edges"] = np.array([[0, 1], [1, 2]])
    assert [layer.name for layer in read_nir(tmp_path / "a.nir").layers] == ["1"]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize(("kernel", "dilation"), [((2, 2), 1), ((4, 3), 1), ((3, 2), (2, 1)), ((3, 5), 2)])
def test_same_padding_as_torch_has_it(kernel, dilation, tmp_path):
    import torch

    weight = np.random.default_rng(0).integers(-8, 9, (3, 2, *kernel)).astype("f4")
    fields = {"type": "Conv2d", "weight": weight, "stride": 1, "padding": "same", "dilation": dilation, "groups": 1}
    nodes = {"input": {**INPUT, "shape": [2, 7, 6]}, "n": fields, "output": OUTPUT}
    graph = read_nir(raw(tmp_path / "a.nir", nodes, CHAIN))
    x = np.random.default_rng(1).integers(0, 2, (1, 4, 2, 7, 6)).astype("f4")
    expected = torch.nn.functional.conv2d(torch.from_numpy(x[0]), torch.from_numpy(weight), padding="same", dilation=dilation)
    assert isinstance(graph["n"].synapse, Conv2d)
    assert np.array_equal(simulate(graph, x.astype(bool)).output[0], expected.numpy())


def test_subgraphs_in_subgraphs_and_names_that_meet(tmp_path):
    def boxed(inner):
        nodes = {"input": INPUT, "inner": inner, "output": OUTPUT}
        return {"type": "NIRGraph", "nodes": nodes, "edges": np.array([("input", "inner"), ("inner", "output")], object)}

    nodes = {"input": INPUT, "a": boxed(boxed(LIF_FIELDS)), "output": OUTPUT}
    graph = read_nir(flat_raw(tmp_path / "a.nir", nodes, [("input", "a"), ("a", "output")]))
    assert [layer.name for layer in graph.layers] == ["a.inner.inner"] and graph.output == "a.inner.inner"
    nodes["a.inner"] = LIF_FIELDS
    nodes["a"] = boxed(LIF_FIELDS)
    with pytest.raises(GraphError, match="node 'a.inner' is there twice once nested graphs are laid out flat; rename one"):
        read_nir(flat_raw(tmp_path / "b.nir", nodes, [("input", "a"), ("a", "a.inner"), ("a.inner", "output")]))


def test_several_edges_into_one_node_add_up(tmp_path):
    eye = {"type": "Linear", "weight": np.eye(2, dtype="f4")}
    nodes = {"input": INPUT, "a": eye, "b": {**eye, "weight": 2 * np.eye(2, dtype="f4")}, "w": eye, "output": OUTPUT}
    edges = [("input", "a"), ("input", "b"), ("a", "w"), ("b", "w"), ("input", "w"), ("w", "output")]
    graph = read_nir(raw(tmp_path / "a.nir", nodes, edges))
    x = random_spikes(graph, 0, steps=5)
    assert np.array_equal(simulate(graph, x).output, 4.0 * x)
    assert isinstance(graph["w"].synapse, Dense) and len(graph.edges_into("w")) == 3


def test_an_edge_of_an_integrator_survives(tmp_path):
    graph = read_nir(written(tmp_path / "a.nir", {"n": nir.I(r=np.ones(2))}, CHAIN))
    assert Edge(source="n", target="n", delay=1) in graph.edges
