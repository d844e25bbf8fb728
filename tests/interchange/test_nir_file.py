"""NIR files of other frameworks, and of spear-deploy."""

import random

import h5py
import nir
import numpy as np
import pytest

from spear_deploy.budget import check
from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Scale,
    SumPool,
    make_sparse,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from spear_deploy.util import memory
from tests.conftest import shared
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds


def same_runs(a: SNNGraph, b: SNNGraph, *, seed: int = 0, steps: int = 8):
    """Check that two networks spike alike in every layer, and give the same output."""
    x = random_spikes(a, seed, steps=steps)
    one, two = (simulate(g, x, record=("spikes",)) for g in (a, b))
    assert np.array_equal(one.output, two.output)
    assert one.spikes.keys() == two.spikes.keys()
    for name, spikes in one.spikes.items():
        assert np.array_equal(spikes, two.spikes[name]), name


def lif(n=2, *, tau=0.01, threshold=1.0, kind=nir.LIF, **more):
    full = {"r": 1.0, "v_leak": 0.0, "v_threshold": threshold, **more}
    if kind is nir.LIF:
        full["tau"] = tau
    else:
        full |= {"tau_mem": tau, "tau_syn": tau}
    return kind(**{name: np.full(n, value, np.float32) for name, value in full.items()})


def written(path, nodes, edges, n_in=2, n_out=2, type_check=False):
    nodes = {"input": nir.Input(input_type={"input": np.array(n_in).reshape(-1)}), **nodes}
    if n_out is not None:
        nodes["output"] = nir.Output(output_type={"output": np.array(n_out).reshape(-1)})
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=type_check))
    return path


# ------------------------------------------------------------------------------------------------- files of others


def test_one_lif_neuron_gives_norses_trace():
    graph = read_nir(shared("conformance/nir_lif/lif_norse.nir"))
    current, voltage, spikes = np.loadtxt(shared("conformance/nir_lif/lif_norse.csv"), delimiter=",").T
    run = simulate(graph, current[:, None, None], kind="current", record=("spikes", "v"))
    assert np.array_equal(run.spikes["1"].ravel(), spikes == 1)
    assert np.flatnonzero(run.spikes["1"]).tolist() == [460, 510, 710, 760]
    np.testing.assert_allclose(run.v["1"].ravel(), voltage, rtol=0, atol=2**-27)  # half a unit in float32's last place at 0.1
    assert [layer.name for layer in graph.layers] == ["1"]  # Affine and LIF are one layer, named after the neuron
    assert graph.dt_s == 1e-4 and "NIR has no time step: 0.0001 s is taken" in graph.metadata["assumptions"]


def test_two_lif_neurons():
    """v_leak = 1.2 above the threshold of 1: the first neuron spikes by itself, with the period of the equation."""
    graph = read_nir(shared("conformance/nir_lif/two_lif_neurons.nir"), dt_s=1e-3)
    run = simulate(graph, np.zeros((100, 1, 1), bool), record=("spikes",))
    period = next(n for n in range(100) if 1.2 * (1 - 0.9**n) > 1)
    # it starts at v_leak, so it spikes at once; then from v_reset = 0
    assert np.flatnonzero(run.spikes["lif1"]).tolist() == list(range(0, 100, period))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("braille_subtract_55", ["fc1", "lif1.lif", "lif1.w_rec", "lif2"]),
        ("nirtorch_braille", ["fc1", "lif1.lif", "lif1.w_rec", "lif2"]),
        ("nirviz_srnn_2_2", ["affine1", "affine_rec", "cu1", "cu2"]),
        ("norse_braille", ["fc1", "lif1.lif", "lif1.w_rec", "lif2"]),
        ("spyx_scnn_mnist", ["1", "10", "12", "3", "4", "6", "7"]),
    ],
)
def test_files_of_other_frameworks_load_and_run(name, names):
    graph = read_nir(shared(f"conformance/nir_extra_valid/{name}.nir"))
    assert sorted(layer.name for layer in graph.layers) == names
    run = simulate(graph, random_spikes(graph, 0, steps=30, rate=0.3))
    assert np.isfinite(run.output.astype(float)).all()
    if name != "nirviz_srnn_2_2":  # its weights are all zero
        assert run.output.any()


def test_a_recurrent_weight_gets_its_spikes_one_step_later():
    graph = read_nir(shared("conformance/nir_extra_valid/norse_braille.nir"))
    assert [e for e in graph.edges if e.delay] == [Edge(source="lif1.lif", target="lif1.w_rec", delay=1)]
    assert any("'lif1.lif' -> 'lif1.w_rec' is closed by one step" in text for text in graph.metadata["assumptions"])


def test_cubalif_is_the_discrete_equation_of_its_framework():
    """The Braille network's tau, r and w_in undo dt = 1e-4: syn = 0.55 syn + x, mem = 0.9 mem + syn."""
    graph = read_nir(shared("conformance/nir_extra_valid/norse_braille.nir"), source="nir")
    neuron = graph["lif1.lif"].neuron
    assert isinstance(neuron, CubaLIF)
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(50, 1, 38)).astype(np.float32) / 4
    single = chain([Layer(name="n", neuron=neuron)], input_shape=(38,), dt_s=1e-4)
    run = simulate(single, drive, kind="current", record=("v", "spikes"))
    syn = mem = np.zeros(38)
    for t in range(50):
        syn = 0.55 * syn + drive[t, 0]
        mem = 0.9 * mem + syn
        spikes = mem > 1
        np.testing.assert_array_equal(run.spikes["n"][t, 0], spikes)
        mem = np.where(spikes, 0, mem)
        np.testing.assert_allclose(run.v["n"][t, 0], mem, atol=2e-5)


# --------------------------------------------------------------------------------------------- what files may leave out


def raw(path, nodes, edges):
    """Write nodes as plain HDF5, as files of old versions and careless tools have them."""
    with h5py.File(path, "w") as file:
        file["version"] = "0.1.0"
        file["node/type"] = "NIRGraph"
        file["node/edges"] = np.array(edges, dtype=h5py.string_dtype())
        for name, fields in nodes.items():
            for key, value in fields.items():
                file[f"node/nodes/{name}/{key}"] = value
    return path


INPUT, OUTPUT = {"type": "Input", "shape": np.array([2])}, {"type": np.bytes_(b"Output"), "shape": np.array([2])}
LIF_FIELDS = {"type": np.array([b"LIF"]), "tau": 0.01, "r": np.float32(1), "v_leak": np.zeros(2), "v_threshold": 0.5}
CHAIN = [("input", "n"), ("n", "output")]


def test_scalars_bytes_and_a_missing_v_reset(tmp_path):
    graph = read_nir(raw(tmp_path / "a.nir", {"input": INPUT, "n": LIF_FIELDS, "output": OUTPUT}, CHAIN))
    assert graph["n"].neuron == LIF(tau_s=0.01, r=np.float32(1), v_leak=0.0, v_threshold=0.5)


def test_missing_input_and_output_nodes(tmp_path):
    affine = {"type": "Linear", "weight": np.ones((2, 3))}
    graph = read_nir(raw(tmp_path / "a.nir", {"w": affine, "n": LIF_FIELDS}, [("w", "n")]))
    assert graph.input_shape == (3,) and graph.output == "n"
    assert "the file has no Input node: it is taken to be at 'w'" in graph.metadata["assumptions"]
    with pytest.raises(GraphError, match="node 'input' states no shape and 'w' does not tell its own; add an Input node"):
        read_nir(raw(tmp_path / "a.nir", {"w": {"type": "Scale", "scale": 2.0}, "n": LIF_FIELDS}, [("w", "n")]))
    with pytest.raises(GraphError, match="there is no Output node and 2 nodes could be it"):
        read_nir(raw(tmp_path / "a.nir", {"input": INPUT, "m": LIF_FIELDS, "n": LIF_FIELDS}, [("input", "n"), ("input", "m")]))


def conv_fields(**more):
    plain = {"type": "Conv2d", "weight": np.ones((3, 2, 3, 3), np.float32), "stride": 1.0, "padding": np.array([1.0, 1.0])}
    return {**plain, "dilation": 1, "groups": 1, "bias": np.zeros(3), **more}


def conv_file(path, fields):
    nodes = {"input": {**INPUT, "shape": [2, 6, 6]}, "n": fields, "output": OUTPUT}
    return raw(path, nodes, CHAIN)


def test_convolutions_as_others_write_them(tmp_path):
    graph = read_nir(conv_file(tmp_path / "a.nir", conv_fields()))  # float strides, no input_shape
    assert graph["n"].synapse == Conv2d(weight=np.ones((3, 2, 3, 3), np.float32), padding=(1, 1), bias=np.zeros(3))
    same = read_nir(conv_file(tmp_path / "a.nir", conv_fields(padding="same", dilation=[2, 1])))
    assert same["n"].synapse.padding == (2, 1) and same.shape_of("n") == (3, 6, 6)
    assert read_nir(conv_file(tmp_path / "a.nir", conv_fields(padding=np.array([b"valid"])))).shape_of("n") == (3, 4, 4)
    bare = {"type": "Conv2d", "weight": np.ones((3, 2, 3, 3), np.float32)}
    graph = read_nir(conv_file(tmp_path / "a.nir", bare))
    assert graph["n"].synapse.bias is None and "node 'n' states no stride: 1 is taken" in graph.metadata["assumptions"]


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        (
            conv_fields(padding="same", stride=2),
            UnsupportedError,
            "node 'n': padding 'same' .* is not even on both sides; pad by number",
        ),
        (conv_fields(padding="around"), UnsupportedError, "node 'n': padding 'around'"),
        (conv_fields(stride=1.5), GraphError, "node 'n'.stride: expected whole numbers from 1"),
        (conv_fields(padding=2**40), GraphError, "node 'n'.padding: expected whole numbers from 0 to 2147483648"),
        (conv_fields(stride=[1, 1, 1]), GraphError, "node 'n'.stride: .1, 1, 1. given, expected one number or 2"),
        (conv_fields(weight=np.ones((3, 2, 3))), GraphError, "node 'n': weight of shape .3, 2, 3., expected 4 axes"),
        (conv_fields(bias=np.zeros(4)), GraphError, "node 'n': bias of shape .4,. for 3 outputs"),
        (conv_fields(input_shape=[9, 9]), GraphError, "node 'n': states an input of .9, 9. positions and gets .6, 6."),
        (conv_fields(weight=np.full((3, 2, 3, 3), np.nan)), GraphError, "node 'n': 'weight' holds NaN or infinite values"),
        (conv_fields(groups=2), GraphError, "node 'n'.*3 output channels in 2 groups do not divide"),
        ({"type": "MaxPool2d"}, UnsupportedError, "node 'n': unknown kind 'MaxPool2d'; known are Affine, AvgPool2d"),
        ({"type": "Threshold", "threshold": "high"}, GraphError, "node 'n': 'threshold' is missing or holds no numbers"),
        ({"type": "Threshold"}, GraphError, "node 'n': Threshold has no 'threshold'"),
        ({"type": "LIF", "tau": 0.0, "v_threshold": 1.0}, GraphError, "node 'n': LIF.tau_s: .*0.* s"),
        ({"type": "LIF", "v_threshold": 1.0}, GraphError, "node 'n': LIF has no 'tau'"),
        ({"type": "IF", "v_threshold": np.ones(5)}, GraphError, "node 'n'"),
        (
            {"type": "IF", "v_threshold": np.arange(5.0)},
            GraphError,
            "node 'n': v_threshold of shape .5,. for neurons of shape .2, 6, 6.",
        ),
        (
            {"type": "Affine", "weight": np.ones((2, 3, 4)), "bias": 0.0},
            UnsupportedError,
            "node 'n': weight of shape .2, 3, 4., two axes",
        ),
        ({"type": "Affine", "weight": "text", "bias": 0.0}, GraphError, "node 'n': 'weight' is missing or holds no numbers"),
        ({"weight": np.ones(2)}, GraphError, "node 'n' states no type"),
    ],
)
def test_an_error_names_its_node(fields, error, match, tmp_path):
    if "IF" in str(fields.get("type")) and np.size(fields.get("v_threshold")) == 5 and not np.diff(fields["v_threshold"]).any():
        graph = read_nir(conv_file(tmp_path / "a.nir", fields))  # all the same: a shape does not matter
        assert graph["n"].neuron == IF(v_threshold=1.0)
        return
    with pytest.raises(error, match=match) as caught:
        read_nir(conv_file(tmp_path / "a.nir", fields))
    assert str(caught.value).startswith(f"file '{tmp_path / 'a.nir'}': ")


def test_a_parameter_per_channel_is_not_laid_along_the_rows(tmp_path):
    """(C,) on (C, H, W) with C = W would spread along W without a word."""
    fields = {"type": "IF", "v_threshold": np.array([1.0, 2.0]), "r": 1.0}
    graph = read_nir(raw(tmp_path / "a.nir", {"input": {**INPUT, "shape": [2, 2, 2]}, "n": fields, "output": OUTPUT}, CHAIN))
    assert graph["n"].neuron.v_threshold.shape == (2, 1, 1)
    assert "node 'n': v_threshold of shape (2,) is taken per channel of (2, 2, 2)" in graph.metadata["assumptions"]


# -------------------------------------------------------------------------------------------------- graphs and edges


def test_nested_graphs_lie_flat(tmp_path):
    inner = nir.NIRGraph(
        {
            "input": nir.Input(input_type={"input": np.array([2])}),
            "w": nir.Linear(weight=np.eye(2, dtype="f4") * 3),
            "lif.a": lif(),
            "output": nir.Output(output_type={"output": np.array([2])}),
        },
        [("input", "w"), ("w", "lif.a"), ("lif.a", "output")],
    )
    path = written(
        tmp_path / "a.nir",
        {"block": inner, "last": lif(threshold=0.1)},
        [("input", "block"), ("block", "last"), ("last", "output")],
    )
    graph = read_nir(path)
    assert [layer.name for layer in graph.layers] == ["block.lif.a", "last"]
    assert graph["block.lif.a"].synapse == Dense(weight=np.eye(2, dtype="f4") * 3)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (-1.0, "a delay of -1 s is -10000 steps of 0.0001 s, expected 0 s or more; export the network again"),
        (500.0, r"is 5e\+06 steps of 0.0001 s; choose another time step \(dt_s\), one with which it is at most 65,536"),
        (6.5537, r"is 65537 steps of 0.0001 s; choose another time step \(dt_s\), one with which it is at most 65,536"),
        (1.5e-4, r"is 1.5 steps of 0.0001 s; choose another time step \(dt_s\), one that it is a multiple of"),
    ],
)
def test_a_delay_that_is_no_number_of_steps_is_refused_with_what_to_do(seconds, message, tmp_path):
    nodes = {"d": nir.Delay(delay=np.full(2, seconds)), "n": lif()}
    path = written(tmp_path / "a.nir", nodes, [("input", "d"), ("d", "n"), ("n", "output")])
    with pytest.raises(UnsupportedError, match=message):
        read_nir(path)


def test_delays_become_steps(tmp_path):
    delay = nir.Delay(delay=np.full(2, 3e-4))
    path = written(tmp_path / "a.nir", {"d": delay, "n": lif()}, [("input", "d"), ("d", "n"), ("n", "output")])
    assert read_nir(path).edges == (Edge(source="input", target="n", delay=3),)
    with pytest.raises(UnsupportedError, match="node 'd': a delay of 0.0003 s is 1.5 steps of 0.0002 s; choose another"):
        read_nir(path, dt_s=2e-4)
    path = written(
        tmp_path / "b.nir",
        {"d": nir.Delay(delay=np.array([0.0, 3e-4])), "n": lif()},
        [("input", "d"), ("d", "n"), ("n", "output")],
    )
    graph = read_nir(path)
    x = random_spikes(graph, 0, steps=12)
    late = np.concatenate([np.zeros_like(x[:3]), x[:-3]])
    direct = chain([Layer(name="n", neuron=graph["n"].neuron)], input_shape=(2,), dt_s=1e-4)
    expected = simulate(direct, np.stack([x[..., 0], late[..., 1]], axis=-1), record=("spikes", "v"))
    assert np.array_equal(simulate(graph, x, record=("v",)).v["n"], expected.v["n"])
    assert "node 'd': its 2 different delays are 2 layers that add up" in graph.metadata["assumptions"]
    raw(tmp_path / "c.nir", {"input": INPUT, "n": {"type": "Delay", "delay": "late"}, "output": OUTPUT}, CHAIN)
    with pytest.raises(GraphError, match="node 'n': delay is missing or no number"):
        read_nir(tmp_path / "c.nir")


def test_a_delay_before_the_output_and_a_sum_into_it(tmp_path):
    nodes = {"a": lif(), "b": lif(), "d": nir.Delay(delay=np.full(2, 1e-4))}
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "d"), ("d", "output")]
    graph = read_nir(written(tmp_path / "a.nir", nodes, edges))
    assert graph.output == "output" and Edge(source="b", target="output", delay=1) in graph.edges


def test_two_equal_paths_count_twice(tmp_path):
    """x → n directly and through an undelayed Delay: one edge would count it once."""
    nodes = {"d": nir.Delay(delay=np.zeros(2)), "n": lif(threshold=10.0)}
    graph = read_nir(written(tmp_path / "a.nir", nodes, [("input", "d"), ("d", "n"), ("input", "n"), ("n", "output")]))
    run = simulate(graph, np.ones((1, 1, 2), bool), record=("v",))
    np.testing.assert_allclose(run.v["n"], 2 * 1e-4 / 0.01, rtol=1e-6)


def test_feedback_over_two_layers_is_late_where_the_last_neuron_sends(tmp_path):
    weight = nir.Linear(weight=np.eye(2, dtype="f4"))
    nodes = {"lif1": lif(), "fc": weight, "lif2": lif(), "back": weight}
    edges = [("input", "lif1"), ("lif1", "fc"), ("fc", "lif2"), ("lif2", "output"), ("lif2", "back"), ("back", "lif1")]
    graph = read_nir(written(tmp_path / "a.nir", nodes, edges))
    assert [e for e in graph.edges if e.delay] == [Edge(source="lif2", target="back", delay=1)]
    edges = [("input", "lif1"), ("lif1", "lif1"), ("lif1", "output")]
    graph = read_nir(written(tmp_path / "b.nir", {"lif1": lif()}, edges))
    assert Edge(source="lif1", target="lif1", delay=1) in graph.edges


def test_a_forward_path_stays_in_its_step(tmp_path):
    """lif → w → lif and w → out: a step on lif → w would make the output late as well."""
    nodes = {"lif": lif(), "w": nir.Linear(weight=np.eye(2, dtype="f4")), "out": lif()}
    edges = [("input", "lif"), ("lif", "w"), ("w", "lif"), ("w", "out"), ("out", "output")]
    graph = read_nir(written(tmp_path / "a.nir", nodes, edges))
    assert [e for e in graph.edges if e.delay] == [Edge(source="w", target="lif", delay=1)]


@pytest.mark.parametrize(
    ("nodes", "edges", "error", "match"),
    [
        (
            {"input": INPUT, "n": LIF_FIELDS, "output": OUTPUT},
            [("input", "n"), ("m", "output")],
            GraphError,
            "there is no node 'm'",
        ),
        (
            {"input": INPUT, "n": LIF_FIELDS, "output": OUTPUT},
            [*CHAIN, CHAIN[0]],
            GraphError,
            "'n' is there 2 times; remove all but one",
        ),
        (
            {"input": INPUT, "i2": INPUT, "n": LIF_FIELDS, "output": OUTPUT},
            [*CHAIN, ("i2", "n")],
            UnsupportedError,
            "2 Input nodes .'i2', 'input'., one is supported; give the network one input that holds the values of all, such as",
        ),
        (
            {"input": INPUT, "n": LIF_FIELDS, "output": OUTPUT, "o": OUTPUT},
            [*CHAIN, ("n", "o")],
            UnsupportedError,
            "2 Output nodes .'o', 'output'., one is supported; export the network with one of its heads, or with a layer behind",
        ),
        (
            {"input": INPUT, "n": LIF_FIELDS, "m": LIF_FIELDS, "output": OUTPUT},
            [*CHAIN, ("m", "n")],
            GraphError,
            "node 'm': nothing feeds it",
        ),
        (
            {"input": INPUT, "n": {"type": "Delay", "delay": 1e-4}, "output": OUTPUT},
            [*CHAIN, ("n", "n")],
            GraphError,
            "'n': feeds itself",
        ),
        (
            {"input": {"type": "Input", "shape": np.array([0.5])}, "n": LIF_FIELDS, "output": OUTPUT},
            CHAIN,
            GraphError,
            "node 'input'.shape: expected whole numbers",
        ),
    ],
)
def test_graphs_that_contradict_themselves(nodes, edges, error, match, tmp_path):
    with pytest.raises(error, match=match):
        read_nir(raw(tmp_path / "a.nir", nodes, edges))


def test_of_several_outputs_the_one_that_all_others_feed_is_the_networks(tmp_path):
    """A file that shows a hidden layer too was refused; two heads side by side are."""
    nodes = {"input": INPUT, "n": LIF_FIELDS, "m": LIF_FIELDS, "output": OUTPUT, "shown": OUTPUT}
    ends = [("input", "n"), ("n", "m"), ("n", "shown"), ("m", "output")]
    one = read_nir(raw(tmp_path / "a.nir", nodes, ends))
    assert one.output == "m" and [layer.name for layer in one.layers] == ["n", "m"]
    assert "the file has 2 Output nodes: that of 'output' is the network's, which the others feed" in one.metadata["assumptions"]
    alone = {name: node for name, node in nodes.items() if name != "shown"}
    two = read_nir(raw(tmp_path / "b.nir", alone, [end for end in ends if end[1] != "shown"]))
    assert one.layers == two.layers and one.edges == two.edges
    side_by_side, through = [("input", "n"), ("input", "m")], [("input", "n"), ("shown", "m")]
    for heads in ([*side_by_side, *ends[2:]], [*ends, ("m", "n")], [*through, *ends[2:]]):
        with pytest.raises(UnsupportedError, match="2 Output nodes .'output', 'shown'., one is supported; export the network"):
            read_nir(raw(tmp_path / "c.nir", nodes, heads))


def test_a_cycle_closed_twice_and_subgraphs_with_two_ends(tmp_path):
    nodes = {"lif": lif(), "d": nir.Delay(delay=np.full(2, 1e-4))}
    edges = [("input", "lif"), ("lif", "d"), ("d", "lif"), ("lif", "lif"), ("lif", "output")]
    with pytest.raises(UnsupportedError, match="edge 'lif' -> 'lif': closes a cycle twice, once by a Delay"):
        read_nir(written(tmp_path / "a.nir", nodes, edges))
    end = nir.Output(output_type={"output": np.array([2])})
    inner = nir.NIRGraph(
        {"input": nir.Input(input_type={"input": np.array([2])}), "n": lif(), "o1": end, "o2": end},
        [("input", "n"), ("n", "o1"), ("n", "o2")],
        type_check=False,
    )
    with pytest.raises(UnsupportedError, match="nested graph 'block' has 2 Output nodes, expected one"):
        read_nir(written(tmp_path / "b.nir", {"block": inner}, [("input", "block"), ("block", "output")]))


def test_flatten_from_axis_one(tmp_path):
    """Norse and others count a batch axis that NIR's shapes do not have."""
    flatten = {"type": "Flatten", "start_dim": 1, "end_dim": -1, "input_type": np.array([2, 3, 3])}
    nodes = {
        "input": {**INPUT, "shape": [2, 3, 3]},
        "f": flatten,
        "w": {"type": "Linear", "weight": np.ones((2, 18))},
        "output": OUTPUT,
    }
    graph = read_nir(raw(tmp_path / "a.nir", nodes, [("input", "f"), ("f", "w"), ("w", "output")]))
    assert [layer.name for layer in graph.layers] == ["w"]
    assert any("flattens from axis 1: axis 0 is taken to be the batch" in text for text in graph.metadata["assumptions"])


# ----------------------------------------------------------------------------------------------------------- options


def test_reset_and_time_step_are_options_or_assumed(tmp_path):
    path = written(tmp_path / "a.nir", {"n": lif()}, CHAIN)
    assert read_nir(path)["n"].neuron.reset == "value"
    explicit = read_nir(path, dt_s=1e-3, reset="subtract")
    assert explicit["n"].neuron.reset == "subtract" and explicit.dt_s == 1e-3 and explicit.metadata["assumptions"] == []
    with pytest.raises(GraphError, match="reset: 'soft' given, expected 'value' or 'subtract'"):
        read_nir(path, reset="soft")


# ----------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("seed", seeds(8, 15))
def test_random_networks_come_back_equal(seed, tmp_path):
    graph = random_graph(seed)
    write_nir(graph, tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")
    assert again.dt_s == graph.dt_s and again.metadata["assumptions"] == []
    same_runs(graph, again, seed=seed)


def net(*layers, shape, **more):
    return chain(layers, input_shape=shape, **more)


CASES = {
    "conv1d and pool over one axis": net(
        Layer(name="c", synapse=Conv1d(weight=np.ones((4, 1, 3), "f4") / 2, groups=4, padding=(2,), dilation=(2,)), neuron=IF()),
        Layer(name="p", synapse=SumPool(kernel_size=(2,), stride=(1,))),
        Layer(name="a", synapse=AvgPool(kernel_size=(2,)), neuron=LIF(tau_s=2e-3, r=2.0)),
        Layer(name="f", synapse=Dense(weight=np.ones((2, 16), "f4") / 4), neuron=LI(tau_s=4e-3)),
        shape=(4, 9),
    ),
    "kernel that is not square": net(
        Layer(
            name="c",
            synapse=Conv2d(weight=np.ones((2, 1, 3, 2), "f4"), padding=(1, 0), stride=(1, 2)),
            neuron=IF(v_threshold=2.0),
        ),
        shape=(1, 5, 6),
    ),
    "scale and shift": net(
        Layer(name="s", synapse=Scale(weight=np.float32(2), bias=np.array([[[0.5]], [[1.0]]], "f4")), neuron=IF(v_threshold=3.0)),
        shape=(2, 3, 3),
    ),
    "norm behind a pool": net(
        Layer(
            name="p",
            synapse=AvgPool(kernel_size=2),
            norm=BatchNorm(weight=np.full(2, 2.0), bias=np.ones(2), mean=np.zeros(2), var=np.ones(2), eps=0.0),
            neuron=IF(v_threshold=1.5),
        ),
        shape=(2, 4, 4),
    ),
    "norm of one axis": net(
        Layer(
            name="n",
            norm=BatchNorm(weight=np.full(3, 2.0), bias=np.ones(3), mean=np.zeros(3), var=np.ones(3), eps=0.0),
            neuron=IF(),
        ),
        shape=(3,),
    ),
    "layers without parts": SNNGraph(
        layers=(Layer(name="sum"), Layer(name="output", neuron=IF(v_threshold=1.5)), Layer(name="flat", synapse=Flatten())),
        edges=(
            Edge(source="input", target="sum"),
            Edge(source="input", target="output"),
            Edge(source="sum", target="output"),
            Edge(source="output", target="flat"),
        ),
        input_shape=(2, 2),
        output="flat",
    ),
    "all kinds of delay": SNNGraph(
        layers=(
            Layer(name="a", neuron=IF(v_threshold=1.5)),
            Layer(name="b", neuron=IF(v_threshold=2.5)),
            Layer(name="c", neuron=IF()),
        ),
        edges=(
            Edge(source="input", target="a", delay=2),
            Edge(source="input", target="a"),
            Edge(source="a", target="b"),
            Edge(source="a", target="b", delay=1),
            Edge(source="b", target="a", delay=1),
            Edge(source="b", target="b", delay=3),
            Edge(source="b", target="c"),
            Edge(source="a", target="c", delay=2),
        ),
        input_shape=(3,),
        output="c",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_facts_that_nir_has_no_field_for_come_back_equal(name, tmp_path):
    graph = CASES[name]
    write_nir(graph, tmp_path / "a.nir")
    same_runs(graph, read_nir(tmp_path / "a.nir"), steps=12)


def test_a_pool_over_one_axis_comes_back_as_the_pool_that_it_is(tmp_path):
    """NIR has none: the file has a convolution, of which chips count weights and miss the pool. Its metadata name the pool."""
    graph = CASES["conv1d and pool over one axis"]
    write_nir(graph, tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")
    for name in ("p", "a"):
        assert type(again[name].synapse) is type(graph[name].synapse) and vars(again[name].synapse) == vars(graph[name].synapse)
    for chip in ("akd1000", "loihi2", "brainscales2", "xylo_audio2"):
        reports = [check(either, load_profile(chip)) for either in (graph, again)]
        assert len({report.verdict for report in reports}) == len({report.cores_used for report in reports}) == 1
        assert reports[0].unsupported == reports[1].unsupported


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", np.full((4, 1, 2), 0.75, "f4")), ("bias", np.ones(4, "f4")), ("groups", 2), ("metadata/pool", "MaxPool")],
)
def test_a_convolution_that_names_a_pool_with_other_numbers_stays_a_convolution(field, value, tmp_path):
    write_nir(CASES["conv1d and pool over one axis"], path := tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        node = file["node/nodes/a.synapse"]
        assert node["metadata/pool"][()] == b"AvgPool" and field in node
        for name, changed in {field: value, **({"weight": np.full((4, 2, 2), 0.5, "f4")} if field == "groups" else {})}.items():
            del node[name]
            node[name] = changed
    assert isinstance(read_nir(path)["a"].synapse, Conv1d)


def test_numbers_in_the_file_are_nirs(tmp_path):
    """A tau of 10 ms is 0.01, in full shape, and nir itself accepts the file."""
    conv = Conv2d(weight=np.ones((2, 1, 3, 3), "f4"), padding=(1, 1))
    graph = net(
        Layer(name="conv", synapse=conv, neuron=LIF(tau_s=0.01, reset="subtract")),
        Layer(name="fc", synapse=Dense(weight=np.ones((3, 32), "f4")), neuron=LI(tau_s=0.005)),
        shape=(1, 4, 4),
        dt_s=1e-3,
        metadata={"kept": [1, 2]},
    )
    assert write_nir(graph, tmp_path / "a.nir") == []
    stored = nir.read(tmp_path / "a.nir")
    assert stored.nodes["conv"].tau.shape == (2, 4, 4) and stored.nodes["fc"].r.dtype == np.float32
    assert np.unique(stored.nodes["conv"].tau).tolist() == [0.01]  # float64, since float32 would change it
    assert tuple(stored.nodes["conv.synapse"].input_shape) == (4, 4)
    assert stored.metadata["dt_s"] == 1e-3 and stored.nodes["conv"].metadata["reset"] == "subtract"
    assert set(stored.edges) == {
        ("input", "conv.synapse"),
        ("conv.synapse", "conv"),
        ("conv", "fc.flatten"),
        ("fc.flatten", "fc.synapse"),
        ("fc.synapse", "fc"),
        ("fc", "output"),
    }
    again = read_nir(tmp_path / "a.nir")
    assert again.metadata["kept"] == [1, 2] and again["conv"].neuron.reset == "subtract"
    assert again["conv"].neuron.tau_s.shape == ()


def test_batch_norm_is_folded_and_noted(tmp_path):
    norm = BatchNorm(weight=np.array([2.0, 3.0]), bias=np.ones(2), mean=np.array([0.5, 0.25]), var=np.array([4.0, 1.0]), eps=0.0)
    graph = net(
        Layer(name="fc", synapse=Dense(weight=np.ones((2, 2), "f4"), bias=np.ones(2)), norm=norm, neuron=IF()), shape=(2,)
    )
    assert write_nir(graph, tmp_path / "a.nir") == ["layer 'fc': batch norm is folded into the weights and rounded to float32"]
    affine = nir.read(tmp_path / "a.nir").nodes["fc.synapse"]
    assert affine.weight.tolist() == [[1, 1], [3, 3]] and affine.bias.tolist() == [1.5, 3.25]


def test_floats_that_nir_cannot_express_are_refused(tmp_path):
    graph = SNNGraph(
        layers=(Layer(name="a", neuron=IF()), Layer(name="b", neuron=IF())),
        edges=(Edge(source="input", target="a"), Edge(source="input", target="b")),
        input_shape=(2,),
        output="a",
    )
    with pytest.raises(UnsupportedError, match="layer 'b': feeds nothing and is not the output"):
        write_nir(graph, tmp_path / "a.nir")
    shift = np.arange(4, dtype="f4").reshape(1, 2, 2)
    with pytest.raises(UnsupportedError, match="layer 's': a bias per position has no place in NIR; use one per channel"):
        write_nir(
            net(Layer(name="s", synapse=Scale(weight=np.float32(1), bias=shift), neuron=IF()), shape=(1, 2, 2)),
            tmp_path / "a.nir",
        )
    norm = BatchNorm(weight=np.ones(2), bias=np.ones(2), mean=np.ones(2), var=np.ones(2))
    with pytest.raises(UnsupportedError, match="layer 'n': a scale and shift of 4 axes has no place in NIR"):
        write_nir(net(Layer(name="n", norm=norm, neuron=IF()), shape=(2, 2, 2, 2)), tmp_path / "a.nir")


# ------------------------------------------------------------------------------------------------------- wrong input


def test_files_that_are_no_nir_are_refused(tmp_path):
    bad = tmp_path / "a.nir"
    with pytest.raises(FileError, match="there is no such NIR file; check the path"):
        read_nir(bad)
    bad.write_bytes(b"")
    with pytest.raises(FileError, match="is empty, expected a NIR file"):
        read_nir(bad)
    bad.write_text("not HDF5")
    with pytest.raises(FileError, match="is not HDF5, a NIR file is"):
        read_nir(bad)
    with h5py.File(bad, "w") as file:
        file["layer/0/type"] = "dense"
    with pytest.raises(FileError, match="holds no NIR graph; expected a group 'node' of type NIRGraph"):
        read_nir(bad)
    raw(bad, {"input": INPUT}, np.zeros((0, 2)))
    with h5py.File(bad, "a") as file:
        del file["node/nodes"]
    with pytest.raises(GraphError, match="graph 'node' holds no nodes"):
        read_nir(bad)
    raw(bad, {"input": INPUT}, np.zeros((0, 2)))
    with h5py.File(bad, "a") as file:
        del file["node/edges"]
    with pytest.raises(GraphError, match="graph 'node': edges are missing or no pairs"):
        read_nir(bad)
    written(bad, {"n": lif()}, CHAIN)
    with h5py.File(bad, "a") as file:
        file["node/metadata/closing_edges"] = "[1]"
    with pytest.raises(GraphError, match="metadata 'closing_edges' is damaged"):
        read_nir(bad)
    with h5py.File(bad, "a") as file:
        del file["node/metadata/closing_edges"]
        file["node/metadata/spear_deploy"] = "{"
    with pytest.raises(GraphError, match="metadata 'spear_deploy' is damaged"):
        read_nir(bad)
    with h5py.File(bad, "a") as file:
        del file["node/metadata/spear_deploy"]
        file["node/metadata/spear_deploy"] = "[]"
    with pytest.raises(GraphError, match="metadata 'spear_deploy' is no dictionary"):
        read_nir(bad)


def test_hdf5_that_reaches_out_or_claims_too_much(tmp_path):
    path = written(tmp_path / "a.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file["node/nodes/n/extra"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(FileError, match="'node/nodes/n/extra' points to another place"):
        read_nir(path)
    path = written(tmp_path / "b.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file.create_dataset("node/nodes/n/huge", shape=(10**9, 100), dtype="f8", chunks=(1000, 100))
    with pytest.raises(FileError, match="'node/nodes/n/huge' declares 800000000000 bytes and stores 0"):
        read_nir(path)
    path = written(tmp_path / "c.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file["node/nodes/n/loop"] = file["node"]
    with pytest.raises(FileError, match="groups are nested more than 32 deep"):
        read_nir(path)
    path = written(tmp_path / "d.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file.create_dataset("node/nodes/n/out", (10,), "f8", external=[("other.bin", 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(FileError, match="'node/nodes/n/out' lies in another file"):
        read_nir(path)
    path = written(tmp_path / "e.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file["node/nodes/n/empty"] = h5py.Empty("f4")
    with pytest.raises(FileError, match="'node/nodes/n/empty' is empty"):
        read_nir(path)
    path = written(tmp_path / "f.nir", {"n": lif()}, CHAIN)
    with h5py.File(path, "a") as file:
        file.create_dataset("node/nodes/n/mixed", (2,), np.dtype([("a", "f4"), ("b", "i4")]))
    with pytest.raises(FileError, match="'node/nodes/n/mixed' holds .*, expected numbers or text"):
        read_nir(path)


def test_too_large_graphs_are_refused(tmp_path, monkeypatch):
    from spear_deploy.interchange.nir import reader
    from spear_deploy.util.hdf5 import tree as hdf5_tree

    path = written(tmp_path / "a.nir", {"n": lif()}, CHAIN)
    monkeypatch.setattr(reader, "MAX_NODES", 2)
    with pytest.raises(UnsupportedError, match="3 nodes in one network, 2 are supported; split it"):
        read_nir(path)
    monkeypatch.setattr(hdf5_tree, "MAX_ENTRIES", 2)
    with pytest.raises(FileError, match="holds more than 2 entries"):
        read_nir(path)


def test_truncated_files_raise_our_errors_only(tmp_path):
    data = written(tmp_path / "a.nir", {"n": lif()}, CHAIN).read_bytes()
    bad = tmp_path / "b.nir"
    for seed in range(60):
        bad.write_bytes(data[: random.Random(seed).randrange(1, len(data))])
        with pytest.raises(SpearError) as caught:
            read_nir(bad)
        assert "\n" not in str(caught.value)


def test_sparse_weights_beyond_the_memory_in_full_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    layers = [Layer(name="fc", synapse=Dense(weight=make_sparse(np.eye(300, dtype=np.float32))), neuron=IF())]
    graph = chain(layers, input_shape=(300,), dt_s=1e-3)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    with pytest.raises(GraphError, match="sparse weights of 300x300: written out 5 times they take .* a .snn file keeps them"):
        write_nir(graph, tmp_path / "a.nir")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**7)
    write_nir(graph, tmp_path / "a.nir")
    assert read_nir(tmp_path / "a.nir")["fc"].synapse == graph["fc"].synapse
