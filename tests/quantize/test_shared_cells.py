"""Weights of several ways from one source, which chips with one weight from a neuron to another hold as their sum."""

import math
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    CatalystLIF,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    ReckonLIF,
    Scale,
    SumPool,
    make_sparse,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize, shared_cells
from spear_deploy.quantize.palette import AXONS
from spear_deploy.quantize.rounding import LEARNT, read_rounding
from spear_deploy.quantize.shared_cells import find_shared_cells
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synapse_math import apply_synapse
from tests.simulator.test_synapse_math import random_conv
from tests.support.chip_reference import step_reckon

RESETS = ("value", "subtract")


def lif(rng):
    return LIF(tau_s=float(rng.uniform(10, 40)) * 1e-3, reset=str(rng.choice(RESETS)))


def wire(layers, *pairs, size, output=""):
    edges = tuple(Edge(source=source, target=target, delay=delay[0] if delay else 0) for source, target, *delay in pairs)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=size, output=output or layers[-1].name)


def two_ways(neuron, end, share=0.9):
    """Return two layers of weights that read the input and add up in neurons; the largest weights lie in one cell."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 7))
    weight[0, 0] = 3 * np.abs(weight).max()
    layers = [
        Layer(name="a", synapse=Dense(weight=weight)),
        Layer(name="b", synapse=Dense(weight=share * weight)),
        Layer(name="c", neuron=neuron),
        Layer(name="d", synapse=Dense(weight=rng.normal(size=(3, 6))), neuron=end),
    ]
    return wire(layers, ("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "d"), size=(7,))


def draw(seed):
    """Return a random network for ReckOn in which ways from one source meet: dense layers, skips, loops, pools and maps."""
    rng = np.random.default_rng(seed)
    n, m, k = (int(v) for v in rng.integers(2, 7, 3))

    def dense(name, out, into):
        weight = rng.normal(size=(out, into)) * rng.choice([0.3, 1.0, 4.0])
        return Layer(name=name, synapse=Dense(weight=weight * (rng.random((out, into)) < 0.8)))

    layers = [dense("a", m, n), dense("b", m, n), Layer(name="c", neuron=lif(rng)), dense("d", k, m), dense("e", k, m)]
    out = replace(dense("out", 3, k), neuron=LI(tau_s=0.02))
    layers += [Layer(name="f", neuron=lif(rng)), dense("g", k, k), dense("h", k, k), out]
    pairs = [("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "d"), ("c", "e"), ("d", "f"), ("e", "f")]
    pairs += [("f", "g", 1), ("f", "h", 1), ("g", "f"), ("h", "f"), ("f", "out")]
    return wire(layers, *pairs, size=(n,), output="out")


def draw_map(seed):
    """Return a random convolution in front of a pool, behind a pool whose windows overlap, that a dense layer reads."""
    rng = np.random.default_rng(seed)
    length, kernel, window = int(rng.integers(6, 10)), int(rng.integers(2, 4)), int(rng.integers(2, 4))
    layers = [
        Layer(name="before", synapse=SumPool(kernel_size=(2,), stride=(1,))),
        Layer(name="conv", synapse=Conv1d(weight=rng.normal(size=(2, 1, kernel)))),
        Layer(name="behind", synapse=SumPool(kernel_size=(window,), stride=(1,))),
        Layer(name="n", neuron=lif(rng)),
        Layer(name="flat", synapse=Flatten()),
    ]
    size = 2 * (length - 1 - kernel + 1 - window + 1)
    layers.append(Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, size))), neuron=LI(tau_s=0.02)))
    return chain(layers, input_shape=(1, length))


def fill_crossbar(integer):
    """Return the sums of stored weights between neuron layers by (source, target), loop by loop, and the shift of the sums."""
    cells, shifts = {}, {}
    for layer in integer.layers:
        if layer.neuron is not None:
            for source, names in list_ways(integer, layer.name):
                size = int(np.prod(integer.shape_of(source)))
                matrix = np.eye(size, dtype=np.int64).reshape(size, *integer.shape_of(source))
                for name in names:
                    synapse = integer[name].synapse
                    matrix = np.stack([pass_on(synapse, row) for row in matrix])
                    if isinstance(synapse, (Dense, Conv1d)):
                        shifts[layer.name] = synapse.weight_exponent
                cells[source, layer.name] = cells.get((source, layer.name), 0) + matrix.reshape(size, -1)
    return cells, shifts


def list_ways(graph, name):
    own = () if graph[name].synapse is None else (name,)
    for edge in graph.edges_into(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            yield edge.source, own
        else:
            yield from ((source, (*names, *own)) for source, names in list_ways(graph, edge.source))


def pass_on(synapse, x):
    if isinstance(synapse, Dense):
        return synapse.weight.astype(np.int64) @ x.reshape(-1)
    if isinstance(synapse, Scale):
        return synapse.weight.astype(np.int64) * x
    if isinstance(synapse, Flatten):
        return x.reshape(-1)
    if isinstance(synapse, SumPool):
        k, s = synapse.kernel_size[0], synapse.stride[0]
        return np.stack([x[:, i : i + k].sum(axis=1) for i in range(0, x.shape[1] - k + 1, s)], axis=1)
    k = synapse.weight.shape[2]
    return np.stack([(synapse.weight * x[:, i : i + k]).sum(axis=(1, 2)) for i in range(x.shape[1] - k + 1)], axis=1)


def run_crossbar(integer, cells, shifts, x):
    """Run ReckOn's neurons on a crossbar of bytes; spikes that come back arrive in the next step."""
    names = [layer.name for layer in integer.layers if layer.neuron is not None]
    sizes = {name: int(np.prod(integer.shape_of(name))) for name in names}
    state = {name: [{} for _ in range(size)] for name, size in sizes.items()}
    last = {name: np.zeros(size, np.int64) for name, size in sizes.items()}
    rows = []
    for row in x:
        sent = {INPUT: row.reshape(-1).astype(np.int64)}
        for name in names:
            arriving = np.zeros(sizes[name], np.int64)
            for (source, target), weight in cells.items():
                if target == name:
                    arriving += (sent[source] if source in sent else last[source]) @ weight.astype(np.int64) << shifts[name]
            pairs = enumerate(zip(state[name], arriving.tolist(), strict=True))
            sent[name] = np.array([step_reckon(integer[name].neuron, cell, [total], j) for j, (cell, total) in pairs])
        last = {name: sent[name] for name in names}
        rows.append(sent)
    return {name: np.stack([row[name] for row in rows]) for name in names}


@pytest.mark.parametrize("on_data", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [draw, draw_map])
def test_drawn_networks_lie_in_cells_of_a_byte_that_send_the_spikes_of_the_integers(make, on_data):
    filled = 0
    for seed in range(25):
        graph = make(seed)
        x = np.random.default_rng(seed).random((20, 2, *graph.input_shape)) < 0.4
        integer = quantize(graph, format="reckon", calibration=x if on_data else None)
        cells, shifts = fill_crossbar(integer)
        stored = {pair: total.astype(np.int8) for pair, total in cells.items()}
        assert all(np.array_equal(stored[pair], total) for pair, total in cells.items()), (seed, cells)
        filled += max(int(np.abs(total).max()) for total in cells.values()) > 64
        run = simulate(integer, x, record=("spikes", "v"))
        crossbar = run_crossbar(integer, stored, shifts, x[:, 0])
        for name, sent in crossbar.items():
            emitted = (run.spikes if integer[name].spikes else run.v)[name][:, 0]
            assert np.array_equal(sent, emitted.reshape(len(x), -1)), (seed, name)
    assert filled > 15, filled  # a byte is used, not only held


@pytest.mark.parametrize("on_data", [False, True])
def test_weights_of_two_ways_fit_a_cell_of_reckon_as_their_sum(on_data):
    """Each layer filled 8 bits by itself: the sum of two was up to 254, and `check` said that the network fits."""
    graph = two_ways(LIF(tau_s=0.02), LI(tau_s=0.02))
    x = np.random.default_rng(1).random((40, 4, 7)) < 0.4
    integer = quantize(graph, format="reckon", calibration=x if on_data else None)
    total = integer["a"].synapse.weight + integer["b"].synapse.weight
    assert 100 <= np.abs(total).max() <= 127
    assert api.check(graph, "reckon").verdict == api.check(integer, "reckon").verdict == "fits"


@pytest.mark.parametrize("grows", [False, True])
def test_a_learnt_scale_is_kept_on_reckon_where_a_cell_holds_the_sums_that_were_learnt(grows):
    graph = two_ways(LIF(tau_s=0.02), LI(tau_s=0.02), share=0.1)
    x = np.random.default_rng(1).random((40, 4, 7)) < 0.4
    learnt = read_rounding(graph, quantize(graph, format="reckon", calibration=x)).graph
    scale = learnt.metadata[LEARNT]["scale"]["c"]
    grown = learnt["a" if grows else "b"].synapse
    learnt = learnt.with_layers(lambda layer: replace(layer, synapse=grown) if layer.name == "b" else layer)
    for calibration in (None, x):
        integer = quantize(learnt, format="reckon", calibration=calibration)
        total = integer["a"].synapse.weight + integer["b"].synapse.weight
        assert (integer.metadata["quantization"]["scale"]["c"] != scale) == grows
        assert np.abs(total).max() <= 127
    assert api.check(learnt, "reckon").verdict == "fits"


@pytest.mark.parametrize("grows", [False, True])
def test_a_learnt_scale_without_a_shift_is_kept_on_reckon_where_a_cell_holds_the_sums(grows):
    """Grown sums are 1.8 times as large: a bit less than a cell would hold of weights with a shift of 1."""
    weight = np.random.default_rng(0).uniform(0.5, 1.0, size=(4, 20))
    weight[0, 0] = 1.5
    layers = [Layer(name="a", synapse=Dense(weight=weight)), Layer(name="b", synapse=Dense(weight=0.1 * weight))]
    layers.append(Layer(name="c", neuron=LI(tau_s=0.1)))
    graph = wire(layers, ("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), size=(20,))
    x = np.ones((60, 2, 20), bool)
    integer = quantize(graph, format="reckon", calibration=x)
    scale, learnt = integer.metadata["quantization"]["scale"]["c"], read_rounding(graph, integer).graph
    assert learnt.metadata[LEARNT]["shift"] == {"c": 0}
    grown = learnt["a" if grows else "b"].synapse
    learnt = learnt.with_layers(lambda layer: replace(layer, synapse=grown) if layer.name == "b" else layer)
    integer = quantize(learnt, format="reckon", calibration=x)
    assert (integer.metadata["quantization"]["scale"]["c"] != pytest.approx(scale)) == grows
    assert 100 < (integer["a"].synapse.weight + integer["b"].synapse.weight).max() <= 127


@pytest.mark.parametrize(
    ("chip", "neuron", "end"),
    [
        ("reckon", LIF(tau_s=0.02), LI(tau_s=0.02)),
        ("xylo_audio2", CubaLIF(tau_mem_s=0.004, tau_syn_s=0.002, reset="subtract"), None),
    ],
)
def test_check_names_sums_that_a_cell_of_a_quantised_network_cannot_hold(chip, neuron, end):
    """A file may come from elsewhere, or from a version that rounded each layer by itself."""
    integer = api.quantize_for_chip(two_ways(neuron, end or neuron), chip)
    assert api.check(integer, chip).verdict == "fits"
    rest = 128 - integer["b"].synapse.weight[0, 0]
    more = np.array(integer["a"].synapse.weight)
    more[0, 0] = rest
    bad = integer.with_layers(lambda n: replace(n, synapse=replace(n.synapse, weight=more)) if n.name == "a" else n)
    report = check(bad, load_profile(chip))
    assert [(found.layer, found.what, found.why) for found in report.unsupported] == [
        (
            "c",
            "weights of 'a' and 'b' from the input that add up to 128",
            f"{chip} has one weight of -128 to 127 from a neuron to another; quantise the floating-point network again, "
            "or merge the layers",
        )
    ]
    assert report.verdict == "does_not_fit" and "integers" in {row.resource for row in report.rows if row.status == "over"}


def test_only_cells_with_several_weights_are_shared():
    pooled = chain(
        [
            Layer(name="p", synapse=SumPool(kernel_size=(2,))),
            Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 1)))),
            Layer(name="q", synapse=SumPool(kernel_size=(2,)), neuron=IF()),
        ],
        input_shape=(1, 8),
    )
    assert find_shared_cells(pooled, "reckon") == {}  # windows that meet nowhere
    split = two_ways(LIF(tau_s=0.02), LI(tau_s=0.02))
    odd = np.arange(42).reshape(6, 7) % 2
    masks = {"a": odd, "b": 1 - odd}
    split = split.with_layers(
        lambda n: replace(n, synapse=replace(n.synapse, weight=n.synapse.weight * masks[n.name])) if n.name in masks else n
    )
    assert find_shared_cells(split, "reckon") == {}  # weights that never meet
    (cells,) = find_shared_cells(two_ways(LIF(tau_s=0.02), LI(tau_s=0.02)), "reckon")["c"]
    assert (cells.source, cells.count, cells.weighted) == (INPUT, 2, ("a", "b"))


@pytest.mark.parametrize("seed", range(12))
def test_axons_of_a_convolution_are_those_of_its_sources_weight_by_weight(seed):
    """On TrueNorth a source takes an axon for each type of its weights; strides and borders leave some without a target."""
    rng, (conv, shape) = np.random.default_rng(seed), random_conv(seed)
    conv = replace(conv, weight=rng.integers(-2, 3, conv.weight.shape).astype(float), bias=None)
    graph = chain([Layer(name="c", synapse=conv, neuron=IF(reset="subtract"))], input_shape=shape)
    (cells,) = find_shared_cells(graph, "truenorth")["c"]
    types = np.where(conv.weight == 0, -1, rng.integers(0, 4, conv.weight.shape))
    numbered = replace(conv, weight=types + 1.0)
    met = apply_synapse(numbered, np.eye(math.prod(shape)).reshape(-1, *shape)).reshape(math.prod(shape), -1)  # one at a time
    assert cells.count_axons({"c": types}) == sum(len(set(row) - {0.0}) for row in met.tolist())


def test_a_shift_that_only_weights_by_value_hold_is_read_from_them():
    """A `Scale` has no exponent of its own: it holds the shifted numbers."""
    layers = [Layer(name=n, synapse=Scale(weight=np.full(3, w))) for n, w in (("a", 97 << 3), ("b", 40 << 3))]
    layers += [Layer(name="n", neuron=ReckonLIF(keep=32000, v_threshold=200))]
    layers += [Layer(name="out", synapse=Dense(weight=np.ones((2, 3), int)), neuron=ReckonLIF(keep=100, v_threshold=None))]
    graph = wire(layers, ("input", "a"), ("input", "b"), ("a", "n"), ("b", "n"), ("n", "out"), size=(3,))
    (cells,) = find_shared_cells(graph, "reckon")["n"]
    assert cells.find_shift() == 3 and cells.find_range({}, 3) == (0, 137)


@pytest.mark.parametrize("family", ["catalyst", "brainscales"])
def test_sums_of_a_convolution_in_front_of_a_pool_fit_an_entry_or_a_row(family):
    """An entry of Catalyst N1 has 16 bits, a row of BrainScaleS-2 6: four weights of its largest were 130,000, and 252."""
    neuron = IF() if family == "catalyst" else CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)
    weight = np.full((1, 1, 4), 1.0)
    layers = [
        Layer(name="conv", synapse=Conv1d(weight=weight)),
        Layer(name="pool", synapse=SumPool(kernel_size=(4,), stride=(1,))),
        Layer(name="n", neuron=neuron),
    ]
    graph = chain(layers, input_shape=(1, 12))
    assert find_shared_cells(two_ways(neuron, neuron), family) == {}  # each way has its own
    (cells,) = find_shared_cells(graph, family)["n"]
    assert cells.count == 4
    rounded = quantize(graph, format=family)
    unit = 1.0 if family == "catalyst" else rounded.metadata["quantization"]["scale"]["n"]
    whole = unit * np.asarray(rounded["conv"].synapse.weight, np.float64)
    assert np.allclose(whole, np.rint(whole))
    most = 4 * float(whole.max())
    assert (most <= 32767 and whole.max() > 400) if family == "catalyst" else 52 <= most <= 63


def test_check_names_an_entry_of_catalyst_that_cannot_hold_a_sum():
    layers = [
        Layer(name="conv", synapse=Conv1d(weight=np.full((1, 1, 4), 9000))),
        Layer(name="pool", synapse=SumPool(kernel_size=(4,), stride=(1,))),
        Layer(name="n", neuron=CatalystLIF(v_threshold=10000, resting=20000)),
    ]
    (found,) = api.check(chain(layers, input_shape=(1, 12)), "catalyst_n1").unsupported
    assert (found.layer, found.what) == ("n", "weights of 'conv' from the input that add up to 36000")
    assert found.reason == "catalyst_n1 has one weight of -32768 to 32767 from a neuron to another on each way"


@pytest.mark.parametrize("grows", [False, True])
def test_a_learnt_scale_of_brainscales_is_kept_where_a_row_holds_the_sums(grows):
    layers = [
        Layer(name="conv", synapse=Conv1d(weight=np.array([[[1.0, 0.2, 0.2, 0.2]]]))),
        Layer(name="pool", synapse=SumPool(kernel_size=(4,), stride=(1,))),
        Layer(name="n", neuron=CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)),
    ]
    graph = chain(layers, input_shape=(1, 12))
    learnt = read_rounding(graph, quantize(graph, format="brainscales")).graph
    if grows:
        grown = Conv1d(weight=np.full((1, 1, 4), learnt["conv"].synapse.weight.max()))
        learnt = learnt.with_layers(lambda layer: replace(layer, synapse=grown) if layer.name == "conv" else layer)
    rounded = quantize(learnt, format="brainscales")
    scale = rounded.metadata["quantization"]["scale"]["n"]
    assert (scale != learnt.metadata[LEARNT]["scale"]["n"]) == grows
    assert np.rint(scale * rounded["conv"].synapse.weight).sum() <= 63


def build_axons(weight, ways):
    """Return by axon its source, its type and the neurons with a synapse; `ways` lists the weights by (source, neuron)."""
    palette = sorted(set(weight.reshape(-1).tolist()) - {0})
    axons = []
    for source in sorted({source for source, _ in ways}):
        for kind, value in enumerate(palette):
            number = 0
            while neurons := {n for (s, n), values in ways.items() if s == source and values.count(value) > number}:
                axons.append((source, kind, neurons))
                number += 1
    return palette, axons


@pytest.mark.parametrize("seed", range(8))
def test_a_truenorth_source_takes_an_axon_for_each_weight_that_a_pool_adds_up(seed):
    """Each cell is a bit, so a neuron that reads a source through several weights needs as many axons of it."""
    rng = np.random.default_rng(seed)
    length, kernel, window = 9, int(rng.integers(2, 4)), int(rng.integers(2, 4))
    weight = rng.choice([-2.0, 1.0, 3.0, 0.0][: 4 - seed % 2], (1, 1, kernel))
    weight[0, 0, 0] = 3.0
    layers = [
        Layer(name="conv", synapse=Conv1d(weight=weight)),
        Layer(name="pool", synapse=SumPool(kernel_size=(window,), stride=(1,))),
        Layer(name="n", neuron=IF()),
    ]
    integer = quantize(chain(layers, input_shape=(1, length)), format="truenorth")
    stored = integer["conv"].synapse.weight
    ways = {}
    for n in range(length - kernel + 1 - window + 1):
        for position in range(n, n + window):
            for tap in range(kernel):
                ways.setdefault((position + tap, n), []).append(int(stored[0, 0, tap]))
    palette, axons = build_axons(stored, ways)
    cells = {
        pair: sum(palette[kind] for source, kind, neurons in axons if source == pair[0] and pair[1] in neurons) for pair in ways
    }
    assert cells == {pair: sum(values) for pair, values in ways.items()}  # the crossbar holds the sums
    found = [row for row in integer.metadata["quantization"]["findings"] if row["what"] == AXONS]
    expected = [{"layer": "conv", "what": AXONS, "given": float(length), "stored": float(len(axons))}]
    assert found == (expected if len(axons) > length else [])
    assert len(axons) > length or seed % 2 == 0


def test_axons_of_a_sparse_matrix_behind_pools_that_overlap_and_of_single_weights_are_counted():
    pool = Layer(name="pool", synapse=SumPool(kernel_size=(2,), stride=(1,)))
    flat = Layer(name="flat", synapse=Flatten())
    full = np.array([[1.0, 1.0, 0.0, 2.0], [0.0, 2.0, 2.0, 0.0]])
    counts = []
    for weight in (full, make_sparse(full)):
        layers = [pool, flat, Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())]
        integer = quantize(chain(layers, input_shape=(1, 5)), format="truenorth")
        counts += [(row["given"], row["stored"]) for row in integer.metadata["quantization"]["findings"]]
    assert counts == [(5.0, counts[0][1])] * 2 and counts[0][1] == sum(count_by_hand(full, 5))
    single = [
        pool,
        Layer(name="n", synapse=Scale(weight=np.full((1, 4), 2.0))),
        Layer(name="q", synapse=pool.synapse, neuron=IF()),
    ]
    integer = quantize(chain(single, input_shape=(1, 5)), format="truenorth")
    found = [(row["given"], row["stored"]) for row in integer.metadata["quantization"]["findings"] if row["what"] == AXONS]
    assert found == [(5.0, 8.0)]  # the three in the middle lie in two windows of windows


@pytest.mark.parametrize("very_many", [False, True])
def test_weights_of_a_neuron_each_are_one_type_and_those_of_0_take_no_axon(very_many, monkeypatch):
    """Of five sources the first and last reach one window, the second and fourth a window twice; of very many a bound holds."""
    if very_many:
        monkeypatch.setattr(shared_cells, "MAX_CELLS", 0)
    pool = Layer(name="pool", synapse=SumPool(kernel_size=(2,), stride=(1,)))
    layers = [pool, replace(pool, name="again"), Layer(name="n", synapse=Scale(weight=np.array([[2.0, 0.0, 3.0]])), neuron=IF())]
    integer = quantize(chain(layers, input_shape=(1, 5)), format="truenorth")
    found = [(row["given"], row["stored"]) for row in integer.metadata["quantization"]["findings"] if row["what"] == AXONS]
    assert found == [(5.0, 5.0 * 2 if very_many else 1.0 + 2.0 + 1.0 + 2.0 + 1.0)]


def count_by_hand(weight, size):
    """Yield the axons of each source in front of a pool of two."""
    for source in range(size):
        total = 0
        for kind in range(2):
            most = 0
            for row in weight:
                palette = sorted(set(row.tolist()) - {0})
                read = [row[window] for window in (source - 1, source) if 0 <= window < size - 1]
                most = max(most, sum(kind < len(palette) and value == palette[kind] for value in read))
            total += most
        yield total


@pytest.mark.parametrize("make", [draw, draw_map])
def test_of_very_many_cells_a_bound_holds_that_is_no_lower_than_their_sums(make, monkeypatch):
    for seed in range(20):
        graph = make(seed)
        exact = {name: {c.source: c for c in cells} for name, cells in find_shared_cells(graph, "reckon").items()}
        with monkeypatch.context() as patch:
            patch.setattr(shared_cells, "MAX_CELLS", 0)
            bounded = {name: {c.source: c for c in cells} for name, cells in find_shared_cells(graph, "reckon").items()}
            integer = quantize(graph, format="reckon")
            types = {
                layer.name: np.zeros(layer.synapse.weight.shape, int)
                for layer in graph.layers
                if hasattr(layer.synapse, "weight")
            }
        for name, cells in exact.items():
            for source, shared in cells.items():
                bound = bounded[name][source]
                assert bound.count >= shared.count
                low, high = shared.find_range({})
                assert bound.find_range({})[0] <= low <= high <= bound.find_range({})[1]
                assert bound.count_axons(types) >= shared.count_axons(types)
        cells, _ = fill_crossbar(integer)
        assert all(np.abs(total).max() <= 128 for total in cells.values())


def test_the_bound_of_a_convolution_in_front_of_a_pool_is_met():
    """Strides, dilation and a dense layer behind pools; none of the windows overlaps in the last."""

    def bound(*synapses):
        return shared_cells.bound_count(synapses)

    wide, pool = Conv2d(weight=np.ones((2, 1, 3, 3))), SumPool(kernel_size=(2, 2))
    assert bound(wide, pool) == 4 and bound(pool, wide) == 1
    assert bound(Conv2d(weight=np.ones((2, 1, 3, 3)), stride=(2, 2)), SumPool(kernel_size=(3, 3))) == 4
    assert bound(Conv2d(weight=np.ones((2, 1, 3, 3)), stride=(2, 2), dilation=(2, 2)), SumPool(kernel_size=(5, 5))) == 9
    overlap = SumPool(kernel_size=(3, 3), stride=(1, 1))
    assert bound(overlap, Flatten(), Dense(weight=np.ones((1, 4)))) == 9
    assert bound(pool, Flatten(), Dense(weight=np.ones((1, 4)))) == 1


def test_sources_of_a_convolution_take_their_axons_at_each_position():
    """They were those of one kernel: 2 sources with 4 axons, where 2 channels of 6 positions take 4 at each."""
    weight = np.array([[[3.0, -1.0], [1.0, -2.0]]])
    integer = quantize(
        chain([Layer(name="c", synapse=Conv1d(weight=weight), neuron=IF())], input_shape=(2, 6)), format="truenorth"
    )
    stored = integer["c"].synapse.weight
    ways = {((c, n + tap), n): [int(stored[0, c, tap])] for c in range(2) for n in range(5) for tap in range(2)}
    _, axons = build_axons(stored, ways)
    (found,) = [row for row in integer.metadata["quantization"]["findings"] if row["what"] == AXONS]
    assert (found["given"], found["stored"]) == (12.0, float(len(axons))) and len(axons) == 4 * 4 + 4
