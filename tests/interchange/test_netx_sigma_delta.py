"""Sigma-delta networks of netx: read, run, written, placed as in Lava."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.interchange.netx.writer import write_netx
from spear_deploy.network import Dense, Layer, LoihiLIF, Scale, SigmaDelta
from spear_deploy.network.graph import Edge, chain
from spear_deploy.simulator import neurons, simulate
from tests.support.netx_files import bare, raw, row

SDNN = {"neuron/type": "SDNN", "neuron/activation": "relu"}


def entry(kind, shape, threshold=5, **more):
    fields = {key: value for key, value in row(kind, shape, **more).items() if not key.startswith("neuron/")}
    return fields | SDNN | {"neuron/vThMant": threshold}


def steps(xs, *, threshold, bias, takes="changes", exponents=(6, 6), relu=True):
    """One neuron in Python's integers, line by line."""
    one = 2 ** sum(exponents)
    sigma = act = rest = 0
    sent, states = [], []
    for x in xs:
        sigma = int(x) if takes == "values" else sigma + int(x)
        new = int(x) * one if takes == "values" else sigma + bias * one
        if relu and takes == "changes":
            new = max(new, 0)
        change = new - act + rest
        act = new
        goes = abs(change) >= threshold * one
        sent.append(change >> exponents[1] if goes else 0)
        rest = 0 if goes else change
        states.append(sigma)
    return sent, states


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**18), 2**18), min_size=1, max_size=12),
    st.integers(0, 40),
    st.integers(-60, 60),
    st.sampled_from([("changes", True), ("changes", False), ("values", True)]),
)
def test_a_neuron_equals_the_written_loop(xs, threshold, bias, kind):
    takes, relu = kind
    neuron = SigmaDelta(
        v_threshold=np.array(threshold),
        bias=np.array(0 if takes == "values" else bias),
        activation="relu" if relu else "unit",
        takes=takes,
    )
    state = neurons.start(neuron, 1, (1,), 1e-3)
    result = [(int(neurons.step(neuron, state, np.array([[x]]))[0, 0]), int(state.v[0, 0])) for x in xs]
    sent, states = steps(xs, threshold=threshold, bias=0 if takes == "values" else bias, takes=takes, relu=relu)
    assert result == list(zip(sent, states, strict=True))


LAVA = """
import sys, numpy as np
from spear_deploy.lava.worker.guard import make_lava_importable
make_lava_importable()
from lava.proc.sdn.models import AbstractSigmaDeltaModel
from lava.proc.sdn.process import ActivationMode
given = np.load(sys.argv[1])
model = AbstractSigmaDeltaModel.__new__(AbstractSigmaDeltaModel)
model.act_mode, model.cum_error = ActivationMode[sys.argv[2].upper()], False
model.vth, model.bias = given["threshold"] << 12, given["bias"] << 12
model.sigma = model.act = model.residue = np.zeros(given["x"].shape[1], np.int64)
sent = [np.right_shift(model.dynamics(x), 6) for x in given["x"]]
np.savez(sys.argv[1], sent=sent, sigma=model.sigma)
"""
"""Lava's own fixed-point dynamics on the arrays of its model, without its runtime; in a process of its own, for it forks."""


@pytest.mark.parametrize("activation", ["relu", "unit"])
def test_a_neuron_equals_lavas(activation, tmp_path):
    rng = np.random.default_rng(0)
    x, bias = rng.integers(-(2**16), 2**16, (60, 7)), rng.integers(-40, 40, 7)
    np.savez(tmp_path / "a.npz", x=x, bias=bias, threshold=9)
    subprocess.run([sys.executable, "-W", "ignore", "-c", LAVA, tmp_path / "a.npz", activation], check=True)
    truth = np.load(tmp_path / "a.npz")
    neuron = SigmaDelta(v_threshold=np.array(9), bias=bias, activation=activation)
    state = neurons.start(neuron, 1, (7,), 1e-3)
    result = np.array([neurons.step(neuron, state, row[None])[0] for row in x])
    assert np.array_equal(result, truth["sent"]) and np.array_equal(state.v[0], truth["sigma"]) and (result == 0).any()


def network(tmp_path, name="a.net"):
    rng = np.random.default_rng(2)
    return raw(
        tmp_path / name,
        entry("input", [1, 4, 4], 3),
        entry("conv", [2, 3, 3], 7, weight=rng.integers(-9, 20, (2, 1, 2, 2)) * 2.0, bias=np.array([4.0, -3]), **GEOMETRY),
        bare("flatten", [18, 1, 1]),
        entry("dense", [5], 4, weight=rng.integers(-9, 20, (5, 18)) * 2.0, bias=np.arange(5.0)),
        entry("dense", [2], weight=rng.integers(-9, 20, (2, 5)) * 2.0) | {"neuron/sigma_output": True},
    )


GEOMETRY = {"stride": np.array([1, 1]), "padding": np.array([0, 0]), "dilation": np.array([1, 1]), "groups": 1}


def test_a_network_adds_up_what_changes(tmp_path):
    """The loop above layer by layer: input 64 · current, convolution and dense by hand, decoder at the end."""
    graph = read_netx(network(tmp_path))
    assert [type(layer.neuron) for layer in graph.layers] == [SigmaDelta] * 4 and graph.is_integer
    current = np.cumsum(np.random.default_rng(3).integers(-20, 20, (9, 1, 1, 4, 4)), axis=0) / 16
    run = simulate(graph, current, kind="current", record=("spikes", "v"))

    def through(drive, threshold, bias, takes="changes"):
        flat = drive.reshape(len(drive), -1)
        spread = np.broadcast_to(bias, drive.shape[1:]).reshape(-1)
        columns = [steps(flat[:, n], threshold=threshold, bias=int(spread[n]), takes=takes)[0] for n in range(flat.shape[1])]
        return np.array(columns).T.reshape(drive.shape)

    sent = through(np.rint(64 * current[:, 0]), 3, 0, "values")
    assert np.array_equal(run.spikes["layer0"][:, 0], sent) and (sent < 0).any()
    kernel = graph["layer1"].synapse.weight
    drive = np.zeros((9, 2, 3, 3))
    for o, y, x, j, i in np.ndindex(2, 3, 3, 2, 2):
        drive[:, o, y, x] += kernel[o, 0, j, i] * sent[:, 0, y + j, x + i]
    sent = through(drive, 7, np.array([4, -3]).reshape(2, 1, 1))
    assert np.array_equal(run.spikes["layer1"][:, 0], sent) and sent.any()
    sent = through(sent.reshape(9, 18) @ graph["layer3"].synapse.weight.T, 4, np.arange(5))
    assert np.array_equal(run.spikes["layer3"][:, 0], sent) and sent.any()
    assert np.array_equal(run.output[:, 0], np.cumsum(sent @ graph["layer4"].synapse.weight.T, axis=0))
    assert np.array_equal(run.counts.sent["layer3"], np.count_nonzero(sent, axis=0))  # messages, not what they carry


def test_a_still_input_is_the_network_of_relus(tmp_path):
    """With a threshold of 0 nothing is held back: the decoder holds the ReLU network's value from the first step on."""
    rng = np.random.default_rng(7)
    weights = [rng.integers(-9, 10, shape) for shape in ((6, 8), (3, 6))]
    graph = chain(
        [
            Layer(name="in", synapse=Scale(weight=np.array(64.0)), neuron=SigmaDelta(v_threshold=np.array(0), takes="values")),
            Layer(
                name="a",
                synapse=Dense(weight=weights[0]),
                neuron=SigmaDelta(v_threshold=np.array(0), bias=rng.integers(-9, 9, 6)),
            ),
            Layer(name="out", synapse=Dense(weight=weights[1]), neuron=SigmaDelta(v_threshold=None)),
        ],
        input_shape=(8,),
    )
    current = np.broadcast_to(rng.integers(-64, 64, (1, 3, 8)) / 64, (4, 3, 8))
    run = simulate(graph, current, kind="current", record=("spikes",))
    hidden = np.maximum(current[0] * 64 * 64 @ weights[0].T + graph["a"].neuron.bias * 4096, 0)
    truth = np.floor(hidden / 64) @ weights[1].T
    assert np.array_equal(run.output, np.broadcast_to(truth, run.output.shape)) and truth.any()
    assert not run.spikes["a"][1:].any()  # and nothing is sent while nothing changes


def test_a_network_comes_back(tmp_path):
    graph = read_netx(network(tmp_path))
    assert write_netx(graph, tmp_path / "b.net") == []
    again = read_netx(tmp_path / "b.net")
    current = np.random.default_rng(3).random((9, 2, 1, 4, 4)) * 2
    one, two = (simulate(g, current, kind="current", record=("spikes", "v")) for g in (graph, again))
    assert np.array_equal(one.output, two.output) and one.output.any()
    for name in one.spikes:
        assert np.array_equal(one.spikes[name], two.spikes[name])


def test_states_beyond_24_bits_are_counted():
    neuron = SigmaDelta(v_threshold=np.array(0))
    graph = chain([Layer(name="a", synapse=Dense(weight=np.array([[2**22]])), neuron=neuron)], input_shape=(1,))
    run = simulate(graph, np.ones((4, 1, 1), bool))
    assert run.overflows == {"a": {"v_beyond_24_bits": 3}} and run.output[-1, 0, 0] == 2**16


def test_delays_and_joins_hold_for_sigma_delta(tmp_path):
    graph = read_netx(
        raw(
            tmp_path / "a.net",
            entry("input", [3], 0),
            entry("dense", [2], 0, weight=np.ones((2, 3)) * 4, delay=np.array([0, 2])),
            bare("concat", [5], layers=np.array([0])),
            entry("dense", [1], 0, weight=np.ones((1, 5)) * 2) | {"neuron/sigma_output": True},
        )
    )
    run = simulate(graph, np.ones((4, 1, 3)), kind="current")
    sent = 64 * 64 * 3  # of the input, all steps together
    first, second = sent * 4 // 64, sent * 4 // 64
    early = 2 * (first + sent)
    assert run.output[:, 0, 0].tolist() == [early, early, early + 2 * second, early + 2 * second]


BAD = [
    ({"v_threshold": np.array(-1)}, "SigmaDelta.v_threshold: -1..-1 given, the format holds 0..131071"),
    ({"v_threshold": np.array(1), "activation": "tanh"}, "SigmaDelta.activation: 'tanh' given, expected 'relu' or 'unit'"),
    ({"v_threshold": np.array(1), "takes": "spikes"}, "SigmaDelta.takes: 'spikes' given, expected 'changes' or 'values'"),
    ({"v_threshold": np.array(1), "spike_exponent": 8}, "SigmaDelta.spike_exponent: 8 given, the format holds 0..7"),
    ({"v_threshold": np.array(1), "takes": "values", "bias": np.array(1)}, "an encoder has a threshold and no bias"),
    ({"v_threshold": None, "bias": np.array(1)}, "SigmaDelta.bias: given to a decoder, which has none"),
    ({"v_threshold": np.array(0.5)}, "SigmaDelta.v_threshold: expected whole numbers"),
]


@pytest.mark.parametrize(("fields", "match"), BAD)
def test_parameters_outside_the_format_raise(fields, match):
    with pytest.raises(GraphError, match=match):
        SigmaDelta(**fields)


def sigma_delta(**more):
    return SigmaDelta(**{"v_threshold": np.array(1)} | more)


REFUSED = [
    (sigma_delta(spike_exponent=0), "layer 'a': netx's sigma-delta neurons have exponents of 6 and a ReLU"),
    (sigma_delta(activation="unit"), "layer 'a': netx's sigma-delta neurons have exponents of 6 and a ReLU"),
    (sigma_delta(takes="values"), "layer 'a': an encoder takes the network's input, scaled"),
    (sigma_delta(v_threshold=np.array([1, 2])), r"'a': its threshold differs between neurons, .* \(vThMant\); give .* the same$"),
]


@pytest.mark.parametrize(("neuron", "match"), REFUSED)
def test_neurons_without_a_form_in_netx_raise(neuron, match, tmp_path):
    graph = chain([Layer(name="a", synapse=Dense(weight=np.array([[2, 4], [6, 8]])), neuron=neuron)], input_shape=(2,))
    with pytest.raises(UnsupportedError, match=match):
        write_netx(graph, tmp_path / "a.net")
    assert list(tmp_path.iterdir()) == []


def test_silent_layers_of_sigma_delta_are_refused(tmp_path):
    layer = Layer(name="a", synapse=Dense(weight=np.zeros((2, 2), int)), neuron=sigma_delta())
    with pytest.raises(UnsupportedError, match="layer 'a': all weights are zero, which lava-dl cannot load"):
        write_netx(chain([layer], input_shape=(2,)), tmp_path / "a.net")


def test_an_input_layer_of_a_hidden_neuron_is_refused(tmp_path):
    layer = Layer(name="a", synapse=Scale(weight=np.array(64.0)), neuron=sigma_delta())
    with pytest.raises(UnsupportedError, match="layer 'a': input neurons take a current without decay"):
        write_netx(chain([layer], input_shape=(2,)), tmp_path / "a.net")


def test_sigma_delta_and_lif_do_not_mix():
    lif = LoihiLIF(decay_u=np.array(4096), decay_v=np.array(0), v_threshold=np.array(5))
    layers = [Layer(name=n, synapse=Dense(weight=np.eye(2, dtype=int)), neuron=m) for n, m in (("a", lif), ("b", sigma_delta()))]
    with pytest.raises(GraphError, match="integers of several chips are mixed .LoihiLIF and SigmaDelta."):
        chain(layers, input_shape=(2,))


def test_a_network_survives_the_snn_file(tmp_path):
    from spear_deploy.interchange.snn_file import read_snn, write_snn

    graph = read_netx(network(tmp_path))
    write_snn(graph, tmp_path / "a.snn")
    assert read_snn(tmp_path / "a.snn") == graph


def test_other_formats_refuse_it_by_name(tmp_path):
    from spear_deploy.interchange.nir.writer import write_nir
    from spear_deploy.interchange.onnx.model_file import write_onnx

    graph = chain([Layer(name="a", synapse=Dense(weight=np.array([[2, 4]])), neuron=sigma_delta())], input_shape=(2,))
    for write in (write_nir, write_onnx):
        with pytest.raises(UnsupportedError, match="layer 'a': .*SigmaDelta"):
            write(graph, tmp_path / "a.out")


def test_feeding_a_delayed_edge_is_lavas_pipeline(tmp_path):
    """With a step on every edge the network is what Lava's processes make of it, one step later per layer."""
    graph = read_netx(network(tmp_path))
    late = replace(
        graph, edges=tuple(Edge(source=e.source, target=e.target, delay=int(e.source != "input")) for e in graph.edges)
    )
    current = np.random.default_rng(3).random((30, 1, 1, 4, 4)) * 2
    current[8:] = current[8]
    one, two = (simulate(g, current, kind="current").output for g in (graph, late))
    assert one[-1].any() and not np.array_equal(one, two)
