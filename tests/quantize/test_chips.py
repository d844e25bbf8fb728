"""Integers of TrueNorth, SpiNNaker, ReckOn, ODIN and Catalyst N1 against the floating-point network, findings and refusals."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from spear_deploy.errors import DataError, QuantizationError, UnsupportedError
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.sparse_matrix import SparseMatrix, make_sparse
from spear_deploy.pipeline import api
from spear_deploy.placement.weight_bits import measure_width
from spear_deploy.quantize import FAMILIES, quantize, quantize_input
from spear_deploy.quantize.chips import RULES
from spear_deploy.quantize.explain import explain
from spear_deploy.quantize.palette import cluster_together, count_axons
from spear_deploy.simulator import simulate
from tests.support.seeds import few_first

CHIPS = {"truenorth": "truenorth", "spinnaker": "spinnaker1", "reckon": "reckon", "odin": "odin", "catalyst": "catalyst_n1"}


def dense(weight, neuron, bias=None, name="fc"):
    return Layer(name=name, synapse=Dense(weight=np.array(weight, float), bias=bias), neuron=neuron)


def one_layer(weight, neuron, bias=None):
    return chain([dense(weight, neuron, bias)], input_shape=(np.shape(weight)[1],), dt_s=1e-3)


def neuron_for(family, **options):
    if family in ("truenorth", "odin", "catalyst"):
        return IF(v_threshold=1.5, v_min=None if family == "truenorth" else 0.0, **options)
    return LIF(tau_s=0.01, r=10.0, v_threshold=1.5, **options)


def weights_for(family, shape, seed=0):
    """Return weights that the family can store exactly: few values, or one sign for each source."""
    rng = np.random.default_rng(seed)
    if family == "truenorth":
        return rng.choice([-1.0, -0.5, 0.0, 0.25, 1.0], shape)
    if family == "odin":
        return rng.integers(0, 8, shape) / 8 * rng.choice([-1.0, 1.0], shape[1])
    return rng.normal(size=shape)


def network(family, seed=0):
    layers = [
        dense(weights_for(family, (12, 9), seed), neuron_for(family), name="a"),
        dense(weights_for(family, (5, 12), seed + 1), neuron_for(family), name="out"),
    ]
    return chain(layers, input_shape=(9,), dt_s=1e-3)


def spikes(shape, seed=0, rate=0.4, steps=40, batch=4):
    return np.random.default_rng(seed).random((steps, batch, *shape)) < rate


def findings(graph):
    return {f["what"] for f in graph.metadata["quantization"]["findings"]}


def test_each_rule_is_a_family():
    assert set(RULES) == set(CHIPS) <= set(FAMILIES)


def test_exact_weights_on_truenorth_give_the_floating_spikes():
    graph, x = network("truenorth"), spikes((9,))
    for reset in ("value", "subtract"):
        graph = graph.with_layers({layer.name: dense(layer.synapse.weight, neuron_for("truenorth", reset=reset), name=layer.name)
                                   for layer in graph.layers})  # fmt: skip
        integer = quantize(graph, format="truenorth", calibration=x)
        wanted, got = simulate(graph, x, record=("spikes",), dtype=np.float64), simulate(integer, x, record=("spikes",))
        assert wanted.counts.rates()["out"] > 0.02
        assert all(np.array_equal(got.spikes[name], wanted.spikes[name]) for name in ("a", "out"))


@pytest.mark.parametrize("family", ["reckon", "spinnaker"])
@pytest.mark.parametrize("data", [False, True])
def test_chips_that_leak_follow_the_floating_network(family, data):
    graph, x = network(family), spikes((9,))
    integer = quantize(graph, format=family, calibration=x if data else None)
    wanted, got = simulate(graph, x, record=("spikes",), dtype=np.float64), simulate(integer, x, record=("spikes",))
    assert got.overflows == {}
    differ = sum(int((got.spikes[name] != wanted.spikes[name]).sum()) for name in ("a", "out"))
    assert differ <= (0 if family == "spinnaker" and data else 0.03 * sum(s.sum() for s in wanted.spikes.values()))


@pytest.mark.parametrize(
    ("family", "neuron"),
    [
        ("reckon", LI(tau_s=0.01, r=2.0)),
        ("spinnaker", LI(tau_s=0.01, r=2.0, v_leak=0.5)),
        ("spinnaker", CubaLI(tau_mem_s=0.01, tau_syn_s=0.004, w_in=4.0)),
        ("spinnaker", CubaLIF(tau_mem_s=0.01, tau_syn_s=0.004, w_in=4.0, v_threshold=100.0)),
    ],
)
def test_potentials_in_trained_units(family, neuron):
    graph, x = one_layer(weights_for(family, (4, 6)), neuron), spikes((6,))
    integer = quantize(graph, format=family, calibration=x)
    facts = integer.metadata["quantization"]
    wanted, got = simulate(graph, x, record=("v",), dtype=np.float64).v["fc"], simulate(integer, x, record=("v",)).v["fc"]
    error = got / facts["scale"]["fc"] + facts["offset"]["fc"] - wanted
    assert np.abs(error).max() < (0.05 if family == "reckon" else 2e-3) * np.abs(wanted).max()


def test_a_bias_on_spinnaker_arrives_in_full():
    for neuron in (LI(tau_s=0.005, r=2.0), CubaLI(tau_mem_s=0.005, tau_syn_s=0.004, w_in=4.0)):
        graph = one_layer([[1.0]], neuron, bias=np.array([0.75]))
        integer = quantize(graph, format="spinnaker")
        x = np.zeros((200, 1, 1), bool)
        got = simulate(integer, x, record=("v",)).v["fc"] / integer.metadata["quantization"]["scale"]["fc"]
        assert got[-1, 0, 0] == pytest.approx(simulate(graph, x, record=("v",)).v["fc"][-1, 0, 0], rel=1e-3)


def test_a_bias_on_truenorth_is_its_leak():
    integer = quantize(one_layer([[1.0], [0.5]], IF(v_threshold=1.0), bias=np.array([0.25, -0.5])), format="truenorth")
    scale = integer.metadata["quantization"]["scale"]["fc"]
    assert np.abs(integer["fc"].neuron.leak / scale - [0.25, -0.5]).max() < 0.01


def test_thresholds_differ_by_neuron():
    graph = one_layer([[1.0], [1.0]], IF(v_threshold=np.array([1.0, 2.5])))
    threshold = quantize(graph, format="truenorth")["fc"].neuron.v_threshold
    assert threshold[1] / threshold[0] == pytest.approx(2.5, rel=0.02)


def test_odin_counts_events_and_says_where_v_stops():
    graph, x = network("odin"), spikes((9,), rate=0.2)
    integer = quantize(graph, format="odin", calibration=x)
    assert "floor" not in findings(integer)
    unbounded = one_layer([[0.5, -0.25]], IF(v_threshold=1.0))
    assert "floor" in findings(quantize(unbounded, format="odin"))
    assert np.abs(integer["a"].synapse.weight).max() <= 7 and integer["a"].neuron.v_threshold.max() <= 255
    wanted, got = simulate(graph, x, dtype=np.float64).counts, simulate(integer, x).counts
    assert got.sent["out"].sum() == pytest.approx(wanted.sent["out"].sum(), rel=0.5)


def test_catalyst_spikes_as_floating_point_with_its_biases():
    """16 bits hold the network's numbers but for a few roundings at the threshold."""
    rng, x = np.random.default_rng(4), spikes((9,), rate=0.3)
    weight, bias = rng.normal(size=(12, 9)), rng.normal(size=12) / 8
    for v_min in (0.125, None):
        neuron = IF(v_threshold=rng.uniform(1.0, 2.0, 12), v_reset=0.125, v_min=v_min)
        graph = one_layer(weight, neuron, bias=bias)
        integer = quantize(graph, format="catalyst", calibration=x)
        assert "floor" not in findings(integer)
        stored = integer["fc"].neuron
        assert (stored.resting == 0).all() if v_min else (stored.resting + stored.v_threshold).max() == 2**15 - 1
        assert (np.sign(stored.leak) == -np.sign(bias)).all()
        wanted, got = simulate(graph, x, dtype=np.float64).output, simulate(integer, x).output
        assert wanted.mean() > 0.05 and np.count_nonzero(got != wanted) <= 2 * (v_min is None)


def test_catalyst_says_where_v_stops_and_refuses_a_threshold_below_a_unit():
    assert "floor" in findings(quantize(one_layer([[0.5]], IF(v_threshold=1.0, v_min=-0.5)), format="catalyst"))
    with pytest.raises(QuantizationError, match="v_threshold 1e-06 is outside what Catalyst N1 holds beside weights of 16 bits"):
        quantize(one_layer([[1.0]], IF(v_threshold=1e-6, v_min=0.0)), format="catalyst")


@pytest.mark.parametrize(
    ("weight", "bias", "options", "scale"),
    [
        (0.5, None, {"v_threshold": 1.0, "v_min": 0.0}, 2**15 - 2),  # the threshold fills the range, a step below its end
        (0.5, None, {"v_threshold": 1.0, "v_min": -0.5}, 2**11 - 2),  # room for 15 thresholds below
        (0.5, None, {"v_threshold": 1.0}, 2**11 - 2),
        (4.0, None, {"v_threshold": 0.5, "v_min": 0.0}, (2**15 - 1) / 4),
        (0.5, [-8.0], {"v_threshold": 1.0, "v_min": 0.0}, (2**15 - 1) / 8),
        (2.0**15 - 1, None, {"v_threshold": 1.0, "v_min": 0.0}, 1),  # a threshold of one unit is the smallest
        (0.0, None, {"v_threshold": 1.0, "v_min": 0.0}, 2**15 - 2),
    ],
)
@pytest.mark.parametrize("headroom", [1.0, 1.25])
def test_catalyst_takes_the_largest_scale_that_weights_bias_and_threshold_hold(weight, bias, options, scale, headroom):
    layer = one_layer([[weight]], IF(**options), bias=bias)
    integer = quantize(layer, format="catalyst", headroom={"fc": 1 / headroom} if headroom != 1 and scale > 1 else None)
    wanted = scale / headroom if scale > 1 else scale
    assert integer.metadata["quantization"]["scale"]["fc"] == pytest.approx(wanted)
    assert integer["fc"].synapse.weight == np.rint(wanted * weight)
    assert integer["fc"].neuron.v_threshold == pytest.approx(wanted * options["v_threshold"], abs=1)


@pytest.mark.parametrize("family", list(CHIPS))
def test_weights_use_the_bits_of_the_profile_and_check_counts_them(family):
    graph, x = network(family), spikes((9,))
    integer = api.quantize_for_chip(graph, CHIPS[family], calibration=x)
    bits = max(api.profile(CHIPS[family]).weight_bits)
    for layer in integer.layers:
        assert bits - 2 <= measure_width(integer, layer.synapse) <= bits or family == "spinnaker"
    report = api.check(integer, CHIPS[family])
    assert not [
        row
        for row in report.rows
        if row.resource in ("weight_bits", "neuron_model", "reset", "weight_palette") and row.status == "over"
    ]


@pytest.mark.parametrize("family", list(CHIPS))
def test_explain_adds_up_and_ends_in_the_integers(family):
    graph, x = network(family), spikes((9,), steps=12)
    integer = quantize(graph, format=family, calibration=x)
    result = explain(graph, integer, x)
    names = [cost.to_json()["step"] for cost in result.costs]
    assert names[-1] == "integers" and len(names) == 9


def cluster_rows(weight, count):
    return cluster_together([weight], count)[0]


def test_k_means_keeps_rows_of_few_values_and_lowers_the_error():
    few = np.array([[1.0, -2.0, 0.0, 3.0, 4.0, 1.0]])
    assert np.array_equal(cluster_rows(few, 4), few)
    weight = np.random.default_rng(0).normal(size=(5, 3, 4, 4))
    clustered = cluster_rows(weight, 4)
    assert clustered.shape == weight.shape
    for values, row in zip(weight.reshape(5, -1), clustered.reshape(5, -1), strict=True):
        assert len(np.setdiff1d(row, 0)) <= 4
        off = np.abs(values[:, None] - np.union1d(row, 0))  # each value has the nearest of the row's centres and 0
        np.testing.assert_allclose(np.abs(values - row), off.min(axis=1))
    equal_steps = np.rint(weight / 1.2) * 1.2
    assert np.mean((clustered - weight) ** 2) < np.mean((equal_steps - weight) ** 2)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sparse_weights_are_clustered_and_counted_as_full_ones(count):
    rng = np.random.default_rng(count)
    for rows, columns in ((7, 5), (3, 40), (1, 1), (4, 9)):
        full = rng.integers(-2, 3, (rows, columns)) * 0.5
        full[0], full[-1, :] = 0, np.arange(columns)
        sparse = make_sparse(csr_array(full))
        clustered = cluster_rows(sparse, count)
        assert isinstance(clustered, SparseMatrix) and np.array_equal(clustered.to_full(), cluster_rows(full, count))
        types = {(n, (np.unique(row[row != 0]) < value).sum()) for row in full for n, value in enumerate(row) if value}
        assert count_axons(sparse) == count_axons(full) == len(types)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_zeros_are_no_values_of_a_neuron(count):
    weight = np.random.default_rng(count).normal(size=(6, 9))
    padded = np.concatenate([np.zeros((6, 30)), weight, np.zeros((6, 30))], axis=1)
    clustered = cluster_rows(padded, count)
    np.testing.assert_array_equal(clustered[:, 30:-30], cluster_rows(weight, count))
    assert not clustered[:, :30].any() and not clustered[:, -30:].any()


@pytest.mark.parametrize("family", few_first(["truenorth", "spinnaker", "catalyst", "reckon"], 3))
def test_a_ring_of_zeros_around_a_kernel_changes_no_integer(family):
    rng = np.random.default_rng(11)
    for seed in range(24):
        kernel = rng.normal(size=(3, 2, 2, 2) if seed % 2 else (2, 2, 1, 1))  # among few values one more weighs much
        x = rng.random((6, 2, 2, 5, 5)) < 0.4
        conv = Conv2d(weight=kernel)
        padded = Conv2d(weight=np.pad(kernel, ((0, 0), (0, 0), (1, 1), (1, 1))), padding=(1, 1))
        graphs = [chain([Layer(name="c", synapse=s, neuron=neuron_for(family))], input_shape=(2, 5, 5)) for s in (conv, padded)]
        plain, ringed = (quantize(graph, format=family, calibration=x if seed % 4 else None) for graph in graphs)
        assert plain.metadata["quantization"]["scale"] == ringed.metadata["quantization"]["scale"]
        assert np.array_equal(ringed["c"].synapse.weight[:, :, 1:-1, 1:-1], plain["c"].synapse.weight)
        assert np.array_equal(simulate(ringed, x).output, simulate(plain, x).output)


def test_axons_of_several_types():
    assert count_axons(np.array([[1, 0], [2, 0]])) == 1  # each neuron's only value is its first type
    assert count_axons(np.array([[1, 2], [2, 1]])) == 4
    assert count_axons(np.zeros((2, 3))) == 0
    graph = one_layer(np.random.default_rng(0).normal(size=(20, 10)), IF())
    facts = quantize(graph, format="truenorth").metadata["quantization"]["findings"]
    assert [(f["what"], f["given"]) for f in facts] == [("axons", 10.0)] and 30 < facts[0]["stored"] <= 40


def recurrent(neuron):
    layers = (
        dense(np.eye(3), None, name="into"),
        dense(np.eye(3), None, name="back"),
        Layer(name="a", neuron=neuron),
    )
    pairs = (("input", "into", 0), ("into", "a", 0), ("a", "back", 1), ("back", "a", 0))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(3,), output="a", dt_s=1e-3)


@pytest.mark.parametrize("family", ["truenorth", "reckon", "spinnaker"])
def test_feedback_shares_a_neuron_with_the_input(family):
    graph, x = recurrent(neuron_for(family)), spikes((3,))
    integer = quantize(graph, format=family, calibration=x)
    wanted, got = simulate(graph, x, dtype=np.float64).output, simulate(integer, x).output
    assert wanted.mean() > 0.05 and (got != wanted).mean() < 0.02


CONV = Layer(name="c", synapse=Conv2d(weight=np.ones((1, 1, 2, 2))), neuron=IF())


@pytest.mark.parametrize(
    ("family", "graph", "message"),
    [
        (
            "truenorth",
            one_layer([[1.0]], LIF(tau_s=0.01)),
            "LIF, TrueNorth's neurons add and spike, their leak is a constant; use IF",
        ),
        ("odin", one_layer([[1.0]], LIF(tau_s=0.01)), "LIF, ODIN's neurons add and spike, their leak is a constant; use IF"),
        (
            "odin",
            one_layer([[1.0]], IF(reset="subtract")),
            "reset 'subtract', ODIN's neurons reset to a value; train with reset='value'",
        ),
        (
            "odin",
            one_layer([[1.0], [-1.0]], IF()),
            "1 source with weights of both signs, a source on ODIN has one; send each twice",
        ),
        (
            "odin",
            one_layer([[1.0]], IF(), np.ones(1)),
            "a bias, ODIN's neurons have none; give it an input that spikes in every step",
        ),
        (
            "odin",
            chain([CONV], input_shape=(1, 3, 3)),
            "Conv2d or a pool, ODIN's crossbar takes spikes through Dense alone; unroll it, as `adapt` does",
        ),
        ("odin", recurrent(IF()), "currents of back, into that add up, ODIN's neurons take each spike by itself from one layer"),
        ("spinnaker", one_layer([[1.0]], IF()), "IF, sPyNNaker's models leak; use LIF with a long time constant"),
        (
            "spinnaker",
            one_layer([[1.0]], LIF(tau_s=0.01, reset="subtract")),
            "reset 'subtract', SpiNNaker's neurons reset to a value",
        ),
        (
            "reckon",
            one_layer([[1.0]], CubaLIF(tau_mem_s=0.01, tau_syn_s=0.01)),
            "CubaLIF, ReckOn's neurons have no synaptic current",
        ),
        (
            "reckon",
            one_layer([[1.0]], LIF(tau_s=0.01, v_leak=0.5)),
            "v_leak differs from its reset, ReckOn's potentials fall to the reset",
        ),
    ],
)
def test_what_a_chip_lacks_is_refused_by_name(family, graph, message):
    with pytest.raises(UnsupportedError, match=f"layer '[a-z]+': {message}"):
        quantize(graph, format=family)


@pytest.mark.parametrize(
    ("family", "graph", "message"),
    [
        (
            "reckon",
            one_layer([[1.0]], LIF(tau_s=0.002)),
            "tau_mem_s is 2 steps, ReckOn's neurons keep 0.875 to 1 of v in a step; use 8 steps",
        ),
        (
            "reckon",
            one_layer([[1.0]], LI(tau_s=0.001)),
            "tau_s is one step, ReckOn reads an output behind its decay, 0; lengthen it",
        ),
        (
            "reckon",
            one_layer([[1.0], [1.0]], LIF(tau_s=np.array([0.01, 0.02]))),
            "tau_s differs inside a pair of neurons, which share it on ReckOn",
        ),
        (
            "truenorth",
            one_layer([[1.0]], IF(v_threshold=1e-9)),
            "v_threshold 1e-09 is outside what TrueNorth holds beside weights of 9 bits",
        ),
        (
            "truenorth",
            one_layer([[1.0]], IF(v_threshold=-1.0)),
            "v_threshold lies -1 above the reset, TrueNorth's lie above 0; raise it",
        ),
    ],
)
def test_values_outside_a_format_are_refused(family, graph, message):
    with pytest.raises(QuantizationError, match=f"layer 'fc': {message}"):
        quantize(graph, format=family)


def test_layers_that_share_no_shift_are_refused_on_reckon():
    """Of the first layer's many equal weights the sum leaves no room for a shift; the second's low threshold needs one."""
    many = dense(np.ones((8, 256)), LIF(tau_s=0.01, v_threshold=100.0), name="many")
    low = dense(np.ones((8, 8)), LIF(tau_s=0.01, v_threshold=0.04 / 127), name="low")
    graph = chain([many, low, dense(np.ones((2, 8)), LI(tau_s=0.01), name="out")], input_shape=(256,), dt_s=1e-3)
    with pytest.raises(QuantizationError, match="layers many, low: no shift that ReckOn has fits them all; rescale"):
        quantize(graph, format="reckon")


def test_layers_into_the_same_neurons_have_one_palette_of_four_values():
    """Values of both layers that lie together share a centre, and the weights are missed less than with two values a layer."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 9)), 2 * rng.normal(size=(6, 6))
    together, apart = cluster_together([first, second], 4), [cluster_rows(first, 2), cluster_rows(second, 2)]
    for row in range(6):
        assert len(np.union1d(together[0][row], together[1][row])) <= 5  # 0 besides
    missed = [((found[0] - first) ** 2).sum(axis=1) + ((found[1] - second) ** 2).sum(axis=1) for found in (together, apart)]
    assert (missed[0] <= missed[1]).all() and missed[0].sum() < 0.8 * missed[1].sum()
    few = [rng.choice([-1.0, 0.0, 0.5], (6, 9)), rng.choice([0.0, 2.0, 0.5], (6, 6))]
    for found, given in zip(cluster_together(few, 3), few, strict=True):
        np.testing.assert_array_equal(found, given)
    sparse, full = cluster_together([make_sparse(few[0]), first], 3), cluster_together([few[0], first], 3)
    np.testing.assert_array_equal(sparse[0].to_full(), full[0])
    np.testing.assert_array_equal(sparse[1], full[1])


def test_values_of_each_layer_by_itself_are_taken_where_they_miss_the_weights_less():
    """k-means from quantiles of them all has no centre among few large weights."""
    small, large = np.linspace(0.9, 1.1, 400)[None], np.array([[-50.0, 80.0]])
    found = cluster_together([small, large], 4)
    np.testing.assert_array_equal(found[1], large)
    assert ((found[0] - small) ** 2).sum() <= ((cluster_rows(small, 2) - small) ** 2).sum() + 1e-12


@pytest.mark.parametrize(("large", "count"), [([-50.0], 2), ([-50.0, -50.1, 80.0], 4)])
def test_a_layer_of_as_many_values_as_its_part_of_the_palette_keeps_them(large, count):
    """50 weights of 1 hide all others from k-means over both layers; each layer by itself keeps what is one value of it."""
    most = np.ones((1, 50))
    if count == 4:
        most[0, 0] = 9.0
    else:
        most[0, 0] = 1.1
    found = cluster_together([most, np.array([large])], count)
    if count == 4:
        np.testing.assert_array_equal(found[0], most)
        np.testing.assert_allclose(found[1], [[-50.05, -50.05, 80.0]])
    else:
        np.testing.assert_allclose(found[0], most.mean())
        np.testing.assert_array_equal(found[1], [large])


def test_rare_values_of_a_layer_with_as_many_as_its_part_are_not_lost():
    """From quantiles of 50 weights of 1, a 9 and a -9, k-means would have no centre below 0."""
    most = np.array([[*[1.0] * 50, 9.0, -9.0]])
    found = cluster_together([most, np.array([[100.0, 101.0, 102.0, 103.0]])], 6)
    np.testing.assert_array_equal(found[0], most)
    assert len(np.unique(found[1])) == 3


def test_more_layers_than_values_have_them_in_common():
    found = cluster_together([np.array([[value, value + 0.1]]) for value in (1.0, 1.0, 3.0)], 2)
    assert [part.round(2).tolist() for part in found] == [[[1.05, 1.05]]] * 2 + [[[3.05, 3.05]]]


def several_layers(synapses, neuron, shape):
    """Return synapses side by side from the input into neurons."""
    layers = [*(Layer(name=f"w{n}", synapse=synapse) for n, synapse in enumerate(synapses)), Layer(name="a", neuron=neuron)]
    names = [layer.name for layer in layers[:-1]]
    edges = [Edge(source="input", target=name) for name in names] + [Edge(source=name, target="a") for name in names]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape, output="a", dt_s=1e-3)


def test_weights_of_several_layers_that_are_four_values_of_each_neuron_are_stored_exactly():
    rng = np.random.default_rng(4)
    values = [rng.choice([-1.0, -0.5, 0.0, 0.25, 1.0], (6, 9)) for _ in range(5)]
    graph = several_layers([Dense(weight=value) for value in values], IF(v_threshold=2.0), (9,))
    integer, x = quantize(graph, format="truenorth"), spikes((9,))
    scale = integer.metadata["quantization"]["scale"]["a"]
    for n, value in enumerate(values):
        np.testing.assert_array_equal(integer[f"w{n}"].synapse.weight, scale * value)
    assert np.array_equal(simulate(integer, x).output, simulate(graph, x).output)
    assert api.check(integer, "truenorth").verdict == "fits"


@pytest.mark.parametrize(("beside", "values"), [((3,), 3), ((3, 1, 1), 3), ((3, 2, 2), 1), ((), 3)])
def test_a_weight_per_value_beside_several_layers_is_one_of_the_four_values(beside, values):
    """Where it differs inside a channel its rows are no neurons, and each other layer has values of its own."""
    rng = np.random.default_rng(5)
    shape = (3, 2, 2) if len(beside) != 1 else (3,)
    weights = [rng.normal(size=(3, 3, 3, 3)), rng.normal(size=(3, 3, 3, 3))]
    others = [Conv2d(weight=w, padding=(1, 1)) if len(shape) > 1 else Dense(weight=w[..., 0, 0]) for w in weights]
    graph = several_layers([Scale(weight=rng.uniform(0.5, 1, beside)), *others], IF(), shape)
    integer = quantize(graph, format="truenorth")
    scale = integer.metadata["quantization"]["scale"]["a"]
    np.testing.assert_array_equal(integer["w0"].synapse.weight, np.rint(scale * graph["w0"].synapse.weight))
    rows = [[set(row.ravel().tolist()) - {0} for row in integer[name].synapse.weight] for name in ("w1", "w2")]
    assert max(map(len, rows[0] + rows[1])) <= values
    assert max(len(a | b) for a, b in zip(*rows, strict=True)) <= max(values, 2)


@pytest.mark.parametrize(
    ("shape", "alone"),
    [((8, 1, 1), False), *((shape, alone) for shape in [(8, 1), (1, 8), (8, 8), (8, 8, 8)] for alone in (False, True))],
)
def test_weights_of_positions_in_front_of_a_pool_leave_a_neuron_four_values(shape, alone):
    """Rows of a map were taken as channels, and neurons of TrueNorth had up to eight values."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="scale", synapse=Scale(weight=rng.normal(size=shape))),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2), stride=(2, 2))),
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(8, 8, 2, 2)), stride=(2, 2))),
        Layer(name="out", neuron=IF(reset="subtract")),
    ]
    edges = [(INPUT, "scale"), ("scale", "pool"), ("pool", "out"), (INPUT, "conv"), ("conv", "out")]
    if alone:
        layers, edges = [layer for layer in layers if layer.name != "conv"], edges[:3]
    graph = SNNGraph(
        layers=tuple(layers), edges=tuple(Edge(source=a, target=b) for a, b in edges), input_shape=(8, 8, 8), output="out"
    )
    integer = quantize(graph, format="truenorth")
    scale = np.broadcast_to(integer["scale"].synapse.weight, (8, 8, 8))
    for channel, row, column in np.ndindex(8, 4, 4):
        window = scale[channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        kernel = [] if alone else integer["conv"].synapse.weight[channel]
        assert len({*np.ravel(window), *np.ravel(kernel)} - {0}) <= 4


@pytest.mark.parametrize("shape", [(8, 1), (1, 8)])
def test_a_neuron_that_sums_a_whole_map_has_four_values_of_its_rows_and_columns(shape):
    layers = [
        Layer(name="scale", synapse=Scale(weight=np.random.default_rng(0).normal(size=shape))),
        Layer(name="pool", synapse=SumPool(kernel_size=(8, 8))),
        Layer(name="out", neuron=IF(reset="subtract")),
    ]
    integer = quantize(chain(layers, input_shape=(2, 8, 8)), format="truenorth")
    assert len({*np.ravel(integer["scale"].synapse.weight)} - {0}) <= 4


@pytest.mark.parametrize(("shape", "kernel", "behind"), [((2, 8), (2,), []), ((2, 4, 4), (2, 2), [Flatten()])])
def test_four_values_of_each_channel_in_front_of_a_pool_stay_as_they_are(shape, kernel, behind):
    weight = np.stack([np.resize(values, shape[1:]) for values in ([1.0, 2, 3, 4], [5.0, 6, 7, 8])])
    synapses = [Scale(weight=weight), SumPool(kernel_size=kernel), *behind]
    layers = [Layer(name=f"l{n}", synapse=synapse) for n, synapse in enumerate(synapses)]
    graph = chain([*layers, Layer(name="out", neuron=IF(reset="subtract"))], input_shape=shape)
    steps = quantize(graph, format="truenorth")["l0"].synapse.weight / weight
    assert np.allclose(steps, steps.flat[0], rtol=1e-12)


def test_as_many_palettes_as_values_are_left_have_one_value_each():
    rng = np.random.default_rng(6)
    scales = [Scale(weight=rng.uniform(0.5, 1, (3, 2, 2))) for _ in range(2)]
    convs = [Conv2d(weight=rng.normal(size=(3, 3, 3, 3)), padding=(1, 1)) for _ in range(2)]
    integer = quantize(several_layers([*scales, *convs], IF(), (3, 2, 2)), format="truenorth")
    assert [max(len(set(row.ravel().tolist()) - {0}) for row in integer[name].synapse.weight) for name in ("w2", "w3")] == [1, 1]
    with pytest.raises(UnsupportedError, match="layer 'a': currents of 5 layers of weights add up"):
        quantize(several_layers([*scales, *convs, convs[0]], IF(), (3, 2, 2)), format="truenorth")


def test_more_layers_than_values_are_refused_on_truenorth():
    graph = several_layers([Scale(weight=np.full(2, 0.5 + n)) for n in range(5)], IF(), (2,))
    with pytest.raises(UnsupportedError, match="currents of 5 layers of weights add up, a TrueNorth neuron has 4 weights"):
        quantize(graph, format="truenorth")


def test_reckon_has_one_shift_for_all_hidden_layers():
    layers = [
        dense(np.ones((2, 1)), LIF(tau_s=0.02), name="a"),
        dense(np.ones((2, 2)) / 50, LIF(tau_s=0.02, v_threshold=0.1), name="b"),
        dense(np.ones((1, 2)), LI(tau_s=0.02), name="out"),
    ]
    integer = quantize(chain(layers, input_shape=(1,), dt_s=1e-3), format="reckon")
    assert integer["a"].synapse.weight_exponent == integer["b"].synapse.weight_exponent


def test_weights_beyond_what_spynnaker_adds_up_are_scaled_and_none_is_clipped():
    graph = one_layer(1000 * np.ones((1, 500)), LI(tau_s=0.02))
    integer = quantize(graph, format="spinnaker")
    x = np.ones((30, 1, 500), bool)
    run = simulate(integer, x, record=("v",))
    assert run.overflows == {} and integer["fc"].neuron.exc_shift > 10
    assert run.output[-1] / integer.metadata["quantization"]["scale"]["fc"] == pytest.approx(
        simulate(graph, x).output[-1], rel=0.01
    )


@pytest.mark.parametrize("family", ["truenorth", "reckon"])
def test_inputs_that_spike_or_do_not(family):
    graph = network(family)
    with pytest.raises(
        DataError, match="a current is sent as spikes that carry a value or come several a step, those of .* do neither"
    ):
        quantize(graph, format=family, kind="current")
    integer = quantize(graph, format=family)
    with pytest.raises(DataError, match="input: 2 events of one channel in one step, .* takes 1; spread them over more steps"):
        quantize_input(integer, np.full((1, 1, 9), 2))


def test_a_current_becomes_events_on_chips_that_take_several():
    x = np.random.default_rng(0).random((20, 2, 9))
    graph = network("spinnaker")
    integer = quantize(graph, format="spinnaker", calibration=x, kind="current")
    sent = quantize_input(integer, x, "current")
    assert sent.max() == 15
    wanted, got = simulate(graph, x, kind="current").output, simulate(integer, sent).output
    assert (got != wanted).mean() < 0.05


def test_pools_and_convolutions_on_truenorth():
    rng = np.random.default_rng(0)
    layers = [
        Layer(
            name="c", synapse=Conv2d(weight=rng.choice([-1.0, 0.5, 1.0], (4, 1, 3, 3)), bias=rng.normal(size=4) / 10), neuron=IF()
        ),
        Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="d", synapse=Conv2d(weight=rng.choice([-1.0, 0.5], (3, 4, 2, 2))), neuron=IF(v_threshold=2.0)),
    ]
    graph, x = chain(layers, input_shape=(1, 8, 8)), spikes((1, 8, 8), steps=10)
    integer = quantize(graph, format="truenorth", calibration=x)
    assert integer["c"].neuron.leak.shape == (4, 1, 1)
    wanted, got = simulate(graph, x, dtype=np.float64).output, simulate(integer, x).output
    assert (got != wanted).mean() < 0.02


@pytest.mark.parametrize("start", [-50.0, 50.0])
def test_spinnaker_holds_a_start_far_beyond_what_the_input_of_the_data_reaches(start):
    """A scale for the input alone would put it beyond the 32 bits of a potential."""
    graph = one_layer(np.full((2, 3), 0.1), LIF(tau_s=4e-3, v_threshold=0.5, v_init=np.asarray(start)))
    x = np.random.default_rng(0).random((20, 4, 3)) < 0.2
    integer = quantize(graph, format="spinnaker", calibration=x)
    scale = integer.metadata["quantization"]["scale"]["fc"]
    assert integer["fc"].neuron.v_init == np.rint(start * scale) == np.sign(start) * 2**30, "half of 32 bits, the rest for input"
    run, wanted = simulate(integer, x, record=("v",)), simulate(graph, x, record=("v",), dtype=np.float64)
    assert run.overflows == {} and np.array_equal(run.output, wanted.output)
    assert np.allclose(run.v["fc"] / scale, wanted.v["fc"], atol=1e-3)
