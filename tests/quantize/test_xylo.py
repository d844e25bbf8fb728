"""Integers of Xylo against the floating-point network, findings and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import load_data
from spear_deploy.errors import DataError, QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense, Layer, SumPool, XyloLIF
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize, quantize_input
from spear_deploy.quantize.rounding import LEARNT, read_rounding
from spear_deploy.quantize.xylo_scales import UnscaledLayer, _max_potential
from spear_deploy.simulator import simulate
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train


def dense(weight, neuron, bias=None, name="fc"):
    return Layer(name=name, synapse=Dense(weight=np.array(weight), bias=bias), neuron=neuron)


def one_layer(weight, neuron, bias=None):
    return chain([dense(weight, neuron, bias)], input_shape=(np.shape(weight)[1],))


def cuba(mem=4, syn=2, **options):
    return CubaLIF(tau_mem_s=mem * 1e-3, tau_syn_s=syn * 1e-3, w_in=float(syn), reset="subtract", **options)


def spikes(shape, seed, rate=0.4, steps=40, batch=4):
    return np.random.default_rng(seed).random((steps, batch, *shape)) < rate


def findings(graph):
    return {(f["layer"], f["what"]): (f["given"], f["stored"]) for f in graph.metadata["quantization"]["findings"]}


CONSTANTS = [
    pytest.param(mem, syn, marks=() if (mem, syn) in ((1, 2), (2, 16)) else pytest.mark.slow)
    for mem in (1, 2, 8, 32)
    for syn in (2, 4, 16)
]


@pytest.mark.parametrize(("mem", "syn"), CONSTANTS)
@pytest.mark.parametrize("readout", [False, True])
def test_time_constants_that_are_powers_of_two_are_stored_exactly(mem, syn, readout):
    rng = np.random.default_rng(mem * syn)
    neuron = CubaLI(tau_mem_s=mem * 1e-3, tau_syn_s=syn * 1e-3, w_in=2.0) if readout else cuba(mem, syn, v_threshold=1.5)
    graph = one_layer(rng.normal(size=(20, 10)), neuron)
    x = spikes((10,), 0)
    integer = quantize(graph, format="xylo", calibration=x)
    layer, facts = integer["fc"], integer.metadata["quantization"]
    assert (int(layer.neuron.dash_mem), int(layer.neuron.dash_syn)) == (np.log2(mem), np.log2(syn))
    assert {f["what"] for f in facts["findings"]} <= {"spikes_per_step"}
    wanted, got = simulate(graph, x, record=("v",), dtype=np.float64), simulate(integer, x, record=("v",))
    assert got.overflows == {}
    if readout:
        error = np.abs(got.output / facts["scale"]["fc"] - wanted.output).mean()
        assert error < 0.03 * np.abs(wanted.output).mean()
    else:
        assert wanted.output.mean() > 0.01
        assert np.abs(got.output.sum(0) - wanted.output.sum(0)).mean() < 0.05 * wanted.output.sum(0).mean() + 0.05


@pytest.mark.parametrize("neuron", [LIF(tau_s=0.016, reset="subtract", v_threshold=100.0), LI(tau_s=0.016)])
def test_a_current_delivers_the_whole_input_over_time(neuron):
    """A LIF has no current, the chip's shortest halves in a step: late, but nothing is lost."""
    graph = one_layer([[16.0]], neuron)
    x = np.ones((200, 1, 1), bool)
    integer = quantize(graph, format="xylo")
    scale = integer.metadata["quantization"]["scale"]["fc"]
    got, wanted = simulate(integer, x, record=("v",)).v["fc"] / scale, simulate(graph, x, record=("v",)).v["fc"]
    assert got[-1, 0, 0] == pytest.approx(wanted[-1, 0, 0], rel=0.02)
    assert (got[:20] < wanted[:20]).all()
    assert findings(integer)["fc", "tau_syn_s"] == (0.0, 0.002)


def test_bias_and_leak_go_into_the_membrane():
    for neuron in (
        cuba(8, 4, v_threshold=100.0, v_leak=0.5),
        LIF(tau_s=0.008, r=2.0, v_leak=0.5, v_threshold=100.0, reset="subtract"),
        CubaLI(tau_mem_s=0.008, tau_syn_s=0.004, v_leak=0.5),
    ):
        graph = one_layer([[1.0]], neuron, bias=np.array([0.75]))
        integer = quantize(graph, format="xylo")
        facts = integer.metadata["quantization"]
        x = np.zeros((200, 1, 1), bool)
        got = simulate(integer, x, record=("v",)).v["fc"] / facts["scale"]["fc"] + facts["offset"]["fc"]
        assert got[-1, 0, 0] == pytest.approx(simulate(graph, x, record=("v",)).v["fc"][-1, 0, 0], rel=0.03)
        assert integer["fc"].synapse.bias is None
        if not isinstance(neuron, CubaLI):
            assert findings(integer)["fc", "start"] == (0.5, 0.0)


def test_time_constants_between_powers_are_findings():
    integer = quantize(one_layer(np.eye(2), cuba(5.5, 3)), format="xylo")
    assert findings(integer) == {("fc", "tau_mem_s"): (pytest.approx(0.0055), 0.004), ("fc", "tau_syn_s"): (0.003, 0.004)}
    each = CubaLIF(tau_mem_s=np.array([0.004, 0.011]), tau_syn_s=0.002, w_in=2.0, reset="subtract")
    layer = quantize(one_layer(np.eye(2), each), format="xylo")["fc"]
    assert layer.neuron.dash_mem.tolist() == [2, 3]


@pytest.mark.slow
def test_gains_chosen_on_data_reduce_the_error_of_rounded_time_constants():
    graph = one_layer(np.random.default_rng(0).normal(size=(30, 12)), cuba(5.5, 3))
    x = spikes((12,), 1, steps=100)
    wanted = simulate(graph, x, dtype=np.float64).output
    plain, chosen = (quantize(graph, format="xylo", calibration=given) for given in (None, x))
    assert findings(chosen)["fc", "gain"][1] != 1
    errors = [np.abs(simulate(integer, x).output.sum(0) - wanted.sum(0)).mean() for integer in (plain, chosen)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.slow
def test_no_scale_is_chosen_at_which_states_clip():
    graph = one_layer(np.ones((1, 400)), LI(tau_s=0.016))
    x = np.ones((60, 2, 400), bool)
    assert simulate(quantize(graph, format="xylo", calibration=x), x).overflows == {}
    mixed = one_layer(np.concatenate([np.ones((1, 200)), -np.ones((1, 200))], axis=1), LI(tau_s=0.016))
    shift = quantize(mixed, format="xylo", calibration=x)["fc"].synapse.weight_exponent
    weights = 200 * 127 * 2**shift  # what excitation brings before inhibition takes it away, in the worst order
    assert weights < 2**15


def network(seed=0):
    """Two hidden layers, one with feedback, and an output."""
    rng = np.random.default_rng(seed)
    layers = (
        dense(rng.normal(size=(8, 6)), cuba(), name="a"),
        dense(10 * rng.normal(size=(8, 8)), None, name="into_b"),
        dense(rng.normal(size=(8, 8)) / 10, None, name="back"),
        Layer(name="b", neuron=cuba()),
        dense(rng.normal(size=(3, 8)), cuba(), name="out"),
    )
    pairs = (("input", "a", 0), ("a", "into_b", 0), ("into_b", "b", 0), ("b", "back", 1), ("back", "b", 0), ("b", "out", 0))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(6,), output="out")


def test_the_farthest_potential_is_that_of_all_exciting_or_all_inhibiting_inputs():
    """v decays by 2^-mem, the current by 2^-syn: a drive d in every step goes to d (2^syn - 1) 2^mem, a bias b to b 2^mem."""
    synapse = Dense(weight=np.array([[3.0, -1.0], [0.5, -8.0]]))
    unscaled = UnscaledLayer(
        layer=None, dash_mem=np.array([1, 3]), dash_syn=np.array([1, 3]), synapses={"fc": synapse}, bias=np.array([1.0, -2.0]),
        max_spikes=1, findings=(),
    )  # fmt: skip
    np.testing.assert_array_equal(_max_potential(unscaled), [(3 + 1) * 2, (8 * 7 + 2) * 8])


@pytest.mark.parametrize("data", [False, True])
def test_hidden_layers_have_one_shift_and_outputs_send_one_spike(data):
    x = spikes((6,), 0)
    integer = quantize(network(), format="xylo", calibration=x if data else None, max_spikes=20)
    assert len({integer[name].synapse.weight_exponent for name in ("a", "into_b", "back")}) == 1
    assert [integer[name].neuron.max_spikes for name in ("a", "b", "out")] == [20, 20, 1]
    assert all(np.abs(layer.synapse.weight).max() <= 128 for layer in integer.layers if layer.synapse is not None)
    assert simulate(integer, x).output.max() == 1
    restored = {name: integer[name].synapse.weight * 2.0 ** integer[name].synapse.weight_exponent for name in ("into_b", "back")}
    ratio = np.abs(restored["into_b"]).max() / np.abs(restored["back"]).max()
    given = np.abs(network()["into_b"].synapse.weight).max() / np.abs(network()["back"].synapse.weight).max()
    assert ratio == pytest.approx(given, rel=0.5)  # two paths into a neuron keep their ratio as far as 8 bits go


def test_an_identity_becomes_a_matrix():
    layers = (dense(np.eye(3), cuba(), name="a"), Layer(name="b", neuron=cuba()))
    integer = quantize(chain(layers, input_shape=(3,)), format="xylo")
    identity = integer.layers[1].synapse
    assert isinstance(identity, Dense) and np.count_nonzero(identity.weight) == 3


def test_a_current_is_sent_as_events_and_too_many_are_refused():
    graph = one_layer(np.random.default_rng(0).normal(size=(5, 4)), cuba())
    x = np.random.default_rng(1).random((20, 3, 4)) * 2
    integer = quantize(graph, format="xylo", calibration=x, kind="current")
    assert quantize_input(integer, x, "current").max() == 15
    with pytest.raises(
        DataError, match="input: 30 events of one channel in one step, xylo takes 15; spread them over more steps"
    ):
        quantize_input(integer, np.full((1, 1, 4), 2 * x.max()), "current")
    with pytest.raises(DataError, match="input: 16 events of one channel in one step, xylo takes 15"):
        api.simulate(graph, np.full((2, 1, 4), 16), chip="xylo_imu")


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (dense([[1.0]], IF(reset="subtract")), UnsupportedError, "layer 'fc': IF does not leak, Xylo's membranes do; use LIF"),
        (
            dense([[1.0]], LIF(tau_s=0.01)),
            UnsupportedError,
            "layer 'fc': resets to a value, Xylo's neurons subtract the threshold",
        ),
        (dense([[1.0]], cuba(v_threshold=-1.0)), QuantizationError, "layer 'fc': v_threshold -1, Xylo's thresholds are above 0"),
        (
            dense([[1.0]], cuba(v_threshold=1e-6)),
            QuantizationError,
            "layer 'fc': v_threshold 1e-06 rounds to 0 where its weights",
        ),
        (dense([[1.0]], cuba(mem=1e5)), QuantizationError, r"layer 'fc': tau_mem_s is 100000 steps, Xylo holds up to 2\^15"),
        (dense([[1.0]], cuba(mem=0.5)), QuantizationError, "layer 'fc': a time constant is below the time step"),
    ],
)
def test_neurons_and_values_outside_the_format_are_refused_by_name(layer, error, message):
    with pytest.raises(error, match=message):
        quantize(chain([layer], input_shape=(1,)), format="xylo")


def test_only_dense_weights_lie_between_neurons():
    conv = Layer(name="c", synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=cuba())
    with pytest.raises(
        UnsupportedError, match="'c': Conv2d, Xylo has dense weights between neurons only; use Dense, as `adapt` does"
    ):
        quantize(chain([conv], input_shape=(1, 2, 2)), format="xylo")
    pool = Layer(name="p", synapse=SumPool(kernel_size=(2, 2)))
    with pytest.raises(
        UnsupportedError, match="'p': SumPool, Xylo has dense weights between neurons only; use Dense, as `adapt`"
    ):
        quantize(chain([pool, dense([[1.0]], cuba())], input_shape=(1, 2, 2)), format="xylo")


def test_the_profile_names_the_format():
    graph = one_layer(np.eye(2), cuba())
    for name in ("xylo_audio2", "xylo_audio3", "xylo_imu"):
        integer = api.quantize_for_chip(graph, name)
        assert isinstance(integer["fc"].neuron, XyloLIF) and integer.metadata["quantization"]["input_events_max"] == 15
        assert api.quantize_for_chip(integer, name) is integer
    profile = load_profile("loihi2")
    other = profile.model_copy(update={"meta": profile.meta.model_copy(update={"family": "generic"})})
    with pytest.raises(
        UnsupportedError, match="no integers of the family .generic. are known; known are those of loihi, speck, xylo, truenorth"
    ):
        api.quantize_for_chip(graph, other)


def dense_network(neuron, end, seed=0):
    rng = np.random.default_rng(seed)

    def uniform(*shape):
        return (3 * rng.uniform(-1, 1, shape) / np.sqrt(shape[1])).astype(np.float32)

    return chain([dense(uniform(64, 64), neuron, name="fc1"), dense(uniform(10, 64), end, name="out")], input_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("neuron", "end", "chip", "loss"),
    [
        (cuba(), cuba(), "xylo_imu", 0.03),  # measured: 85.6 % in floating point, 85.3 % on the chip
        pytest.param(cuba(5.5, 3), cuba(5.5, 3), "xylo_audio3", 0.03, marks=pytest.mark.slow),  # 75.8 %, 76.4 %
        pytest.param(  # 95.0 %, 94.4 %
            LIF(tau_s=4e-3, r=2.0, reset="subtract"), LI(tau_s=4e-3), "xylo_audio2", 0.03, marks=pytest.mark.slow
        ),
    ],
    ids=["powers of two", "between", "no current"],
)
def test_digits_keep_their_accuracy_on_xylo(neuron, end, chip, loss):
    pytest.importorskip("torch")
    data = load_data("digits")
    graph = train(dense_network(neuron, end), data, epochs=6)
    integer = api.quantize_for_chip(graph, chip, calibration=np.moveaxis(data.train.x[:64], 0, 1))
    before, after = evaluate(graph, data.test).accuracy, evaluate(integer, data.test).accuracy
    assert before > 0.7
    assert after > before - loss, (before, after)


def make_two_ways():
    """Two layers from the input to one neuron layer; each fills 8 bits by itself."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 7))
    weight[0, 0] = 3 * np.abs(weight).max()
    layers = [
        Layer(name="a", synapse=Dense(weight=weight)),
        Layer(name="b", synapse=Dense(weight=weight * rng.uniform(0.8, 1.0, (6, 7)))),
        Layer(name="c", neuron=cuba()),
        dense(rng.normal(size=(3, 6)), cuba(), name="d"),
    ]
    edges = [Edge(source=s, target=t) for s, t in (("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "d"))]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(7,))


@pytest.mark.parametrize("calibrated", [False, True])
def test_weights_of_two_ways_from_one_source_are_scaled_for_their_sum(calibrated):
    """The chip's array holds one weight from an input to a neuron."""
    integer = quantize(make_two_ways(), format="xylo", calibration=spikes((7,), 1) if calibrated else None)
    total = integer["a"].synapse.weight + integer["b"].synapse.weight
    assert 120 <= np.abs(total).max() <= 127


def test_weights_of_two_ways_from_one_source_are_exported_as_their_sum(tmp_path):
    graph, x = make_two_ways(), spikes((7,), 1)
    assert api.export(graph, tmp_path / "net.npz", to="xylo", x=x)["mismatches"] == 0


@pytest.mark.parametrize("grows", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_learnt_scale_is_kept_where_the_chip_holds_the_sums_of_two_ways_that_were_learnt(tmp_path, grows):
    """Where weights grew beyond 8 bits in sum, `check` said that it fits, and the export was refused."""
    rng, x = np.random.default_rng(0), spikes((7,), 1)
    weight = rng.normal(size=(6, 7))
    weight[0, 0] = 3 * np.abs(weight).max()
    layers = (
        Layer(name="a", synapse=Dense(weight=weight)),
        Layer(name="b", synapse=Dense(weight=0.1 * weight)),
        Layer(name="c", neuron=cuba()),
        dense(rng.normal(size=(3, 6)), cuba(), name="d"),
    )
    edges = tuple(Edge(source=s, target=t) for s, t in (("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "d")))
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(7,))
    learnt = read_rounding(graph, quantize(graph, format="xylo", calibration=x)).graph
    scales = learnt.metadata[LEARNT]["scale"]
    grown = learnt["a" if grows else "b"].synapse
    learnt = learnt.with_layers(lambda layer: replace(layer, synapse=grown) if layer.name == "b" else layer)
    integer = quantize(learnt, format="xylo")
    total = np.abs(integer["a"].synapse.weight + integer["b"].synapse.weight).max()
    assert (integer.metadata["quantization"]["scale"]["c"] != scales["c"]) == grows and total <= 127
    assert api.check(learnt, "xylo_audio2").verdict == "fits"
    assert api.export(learnt, tmp_path / "net.npz", to="xylo", x=x)["mismatches"] == 0
