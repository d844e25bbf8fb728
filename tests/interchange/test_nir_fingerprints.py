"""The framework that wrote a NIR file is told by its numbers and names, stated, and never guessed in silence."""

from itertools import pairwise

import numpy as np
import pytest

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.nir.reader import read_nir, read_nir_graph
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from tests.conftest import shared
from tests.interchange.test_nir_file import raw

SIZE = 2


def written(path, *neurons, source="input", prefix="n"):
    """Write a chain of neurons, each with the given fields spread over its size."""
    nodes = {source: {"type": "Input", "shape": np.array([SIZE])}, "output": {"type": "Output", "shape": np.array([SIZE])}}
    for number, fields in enumerate(neurons):
        kind = fields.pop("type")
        defaults = {"v_threshold": 1.0, "v_reset": 0.0} | ({} if kind == "IF" else {"v_leak": 0.0})
        nodes[f"{prefix}{number}"] = {
            "type": kind, **{name: np.broadcast_to(value, (SIZE,)) for name, value in (defaults | fields).items()}
        }  # fmt: skip
    names = [source, *(f"{prefix}{number}" for number in range(len(neurons))), "output"]
    return raw(path, nodes, list(pairwise(names)))


def lif(tau, r=1.0, **more):
    return {"type": "LIF", "tau": tau, "r": r, **more}


def rockpool_r(tau, dt=1e-3):
    return tau * np.exp(-dt / tau) / dt


@pytest.mark.parametrize(
    ("neurons", "names", "note", "dt_s"),
    [
        ((lif(1e-3, 10.0),), {}, "read as snnTorch's: r · 1e-4 equals tau in every neuron", 1e-4),
        (
            ({"type": "CubaLIF", "tau_mem": 1e-3, "r": 10.0, "tau_syn": 3e-4, "w_in": 3.0},), {},
            "read as snnTorch's: r · 1e-4 equals tau", 1e-4,
        ),
        (({"type": "IF", "r": 1e4},), {}, "read as SpikingJelly's: r of its IF neurons is 1e4", 1e-4),
        (({"type": "IF", "r": 1e4}, lif(2e-4)), {}, "read as SpikingJelly's: r of its IF neurons is 1e4", 1e-4),
        ((lif(2e-4),), {"source": "input_1", "prefix": "_"}, "read as SpikingJelly's: nodes are named as by its exporter", 1e-4),
        ((lif(2e-4, 2.0),), {"source": "x", "prefix": "layer_"}, "read as SpikingJelly's: nodes are named", 1e-4),
        (
            (lif(0.02, rockpool_r(0.02)), lif(0.01, rockpool_r(0.01))), {},
            "read as Rockpool's: r equals tau · exp(-dt / tau) / dt with dt = 0.001 s", 1e-3,
        ),
        ((lif(20.0),), {}, "read as sinabs's: r is 1 and every tau is 1 or more, a number of steps", 1e-4),
        ((lif(1e-5),), {}, "read as Norse's: r is 1 and every tau is below 0.1 ms", 1e-3),
    ],
)  # fmt: skip
def test_a_framework_is_told_by_its_traces_and_stated(neurons, names, note, dt_s, tmp_path):
    path = written(tmp_path / "a.nir", *(dict(fields) for fields in neurons), **names)
    graph = read_nir(path)
    (stated,) = [text for text in graph.metadata["assumptions"] if text.startswith("read as")]
    assert stated.startswith(note) and stated.endswith("; --source overrules")
    assert graph.dt_s == pytest.approx(dt_s)
    plain = read_nir(path, source="nir").metadata["assumptions"]
    assert not any(text.startswith("read as") for text in plain)


@pytest.mark.parametrize(
    "neurons",
    [
        (lif(0.01),),  # NIR's own numbers
        (lif(0.01, 10.0),),  # another time step
        (lif(1e-3, 10.0), lif(0.01)),  # one of two
        (lif(1e-3, 10.0, v_leak=0.5),),  # snnTorch has no leak
        ({"type": "IF", "r": 3.0},),
        ({"type": "IF", "r": 1e4}, {"type": "IF", "r": 1.0}),
        (lif(0.02, rockpool_r(0.02)), lif(0.01, rockpool_r(0.01, dt=2e-3))),
    ],
)
def test_without_traces_nothing_is_claimed(neurons, tmp_path):
    assumptions = read_nir(written(tmp_path / "a.nir", *(dict(fields) for fields in neurons))).metadata["assumptions"]
    assert not any("read as" in text or " fit" in text for text in assumptions)
    assert "NIR states no kind of reset: neurons are set to v_reset" in assumptions


def test_several_frameworks_that_fit_are_named_and_none_is_taken(tmp_path):
    path = written(tmp_path / "a.nir", {"type": "IF", "r": 1.0})
    graph = read_nir(path)
    (note,) = [text for text in graph.metadata["assumptions"] if " fit " in text]
    assert "Norse (v above the threshold" in note and "sinabs (v at or above" in note and "name one by --source" in note
    x = np.full((8, 1, SIZE), 0.25)
    spikes = {
        source: np.flatnonzero(simulate(read_nir(path, source=source), x, kind="current").output[:, 0, 0]).tolist()
        for source in (None, "nir", "norse", "sinabs")
    }
    assert spikes[None] == spikes["nir"] == spikes["norse"] == [4] and spikes["sinabs"] == [3, 7]


@pytest.mark.parametrize(
    ("names", "bias", "note", "source"),
    [
        (("0", "1", "2"), True, "read as sinabs's: IF neurons with r = 1, pools as sums", "sinabs"),
        (("layer_0", "layer_1", "layer_2"), True, "read as Spyx's: nodes are called layer_0, layer_1, ...", "spyx"),
        (("0", "1", "2"), False, "IF neurons with r = 1 fit Norse", "nir"),
    ],
)
def test_neurons_that_add_their_input_are_told_by_the_nodes_around_them(names, bias, note, source, tmp_path):
    shape, conv, neuron, pool = np.array([1, 4, 4]), *names
    weights = {"weight": np.full((1, 1, 1, 1), 0.25), "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    spread = {name: np.full((1, 4, 4), value) for name, value in (("r", 1.0), ("v_threshold", 1.0), ("v_reset", 0.0))}
    nodes = {
        "input": {"type": "Input", "shape": shape},
        conv: {"type": "Conv2d", "input_shape": shape[1:], **weights, **({"bias": np.zeros(1)} if bias else {})},
        neuron: {"type": "IF", **spread},
        pool: {"type": "SumPool2d", "kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])},
        "output": {"type": "Output", "shape": np.array([1, 2, 2])},
    }
    path = raw(tmp_path / "a.nir", nodes, list(pairwise(nodes)))
    graph, x = read_nir(path), np.ones((12, 1, 1, 4, 4))
    assert any(text.startswith(note) for text in graph.metadata["assumptions"])
    told = read_nir(path, source=source)
    np.testing.assert_array_equal(simulate(graph, x).output, simulate(told, x).output)
    assert simulate(graph, x).output.any()


def test_two_frameworks_whose_traces_all_neurons_bear_are_named(tmp_path):
    (note, *_) = read_nir(written(tmp_path / "a.nir", lif(20.0), source="x", prefix="layer_")).metadata["assumptions"]
    assert note.startswith("fits SpikingJelly (nodes are named") and " and sinabs (r is 1 and every tau is 1 or more" in note
    assert note.endswith("which give different spikes: NIR's own equations are taken; name one by --source")


def test_spikingjellys_integrate_and_fire_adds_its_input_as_it_is(tmp_path):
    path = written(tmp_path / "a.nir", {"type": "IF", "r": 1e4, "v_reset": -0.5})
    x = np.full((12, 1, SIZE), 0.25)
    spikes = np.flatnonzero(simulate(read_nir(path), x, kind="current").output[:, 0, 0]).tolist()
    v, expected = -0.5, []
    for step in range(12):
        v += 0.25
        if v >= 1:
            expected.append(step)
            v = -0.5
    assert spikes == expected == [5, 11]
    slower = written(tmp_path / "b.nir", {"type": "IF", "r": 1e3})
    assert read_nir(slower, source="spikingjelly").dt_s == 1e-3  # r of its exporter with dt=1e-3


def test_neurobenchs_network_needs_no_flag():
    assert "read as snnTorch's" in " ".join(read_nir(shared("conformance/neurobench_gsc/network.nir")).metadata["assumptions"])


def test_a_nir_graph_is_taken_as_its_file(tmp_path):
    nir = pytest.importorskip("nir")
    path = written(tmp_path / "a.nir", lif(1e-3, 10.0), lif(2e-3, 20.0))
    graph = nir.read(path)
    ours, theirs = read_nir_graph(graph), read_nir(path)
    assert ours.metadata == theirs.metadata and ours.edges == theirs.edges and ours.dt_s == theirs.dt_s
    x = np.random.default_rng(0).random((30, 2, SIZE))
    np.testing.assert_array_equal(simulate(ours, x, kind="current").output, simulate(theirs, x, kind="current").output)
    assert simulate(ours, x, kind="current").output.any()
    assert api.check(graph, "loihi2").verdict == "fits"
    assert api.count(graph, x, kind="current").steps == 30
    with pytest.raises(UnsupportedError, match="source 'snnorch': expected one of .*nir"):
        api.load(graph, source="snnorch")


def test_arrays_of_torch_in_a_nir_graph_are_taken():
    nir, torch = pytest.importorskip("nir"), pytest.importorskip("torch")
    node = nir.IF(r=torch.ones(2), v_threshold=torch.ones(2))
    graph = nir.NIRGraph(
        nodes={"input": nir.Input({"input": np.array([2])}), "n": node, "output": nir.Output({"output": np.array([2])})},
        edges=[("input", "n"), ("n", "output")],
        type_check=False,
    )
    assert read_nir_graph(graph)["n"].neuron.v_threshold == 1
