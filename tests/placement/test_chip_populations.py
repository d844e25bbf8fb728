"""Synapses as a chip stores them, against crossbars that are filled synapse by synapse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, Conv1d, Conv2d, CubaLIF, Dense, Flatten, Layer, Scale, SumPool, make_sparse
from spear_deploy.network import sparse_matrix as sparse_matrix_module
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.placement import chip_populations
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import place
from spear_deploy.placement.populations import count_synapses_into, count_synapses_out_of, find_populations, narrow_populations
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.simulator.synapse_math import apply_synapse
from tests.support.seeds import seeds

ONE_CELL = ("reckon", "xylo_audio3")
NEURON = IF()


def wire(layers, *pairs, size, output=""):
    edges = tuple(Edge(source=source, target=target, delay=delay[0] if delay else 0) for source, target, *delay in pairs)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=size, output=output or layers[-1].name)


def draw_dense(seed, neuron=NEURON):
    """Return a network in which ways from one source meet, sources are added in front of weights, and a layer reads itself."""
    rng = np.random.default_rng(seed)
    n, m, k = (int(v) for v in rng.integers(2, 7, 3))

    def dense(name, out, into, neuron=None):
        return Layer(
            name=name, synapse=Dense(weight=rng.normal(size=(out, into)) * (rng.random((out, into)) < 0.6)), neuron=neuron
        )

    layers = [dense("a", m, n), dense("b", m, n), Layer(name="c", neuron=neuron), dense("c2", m, n, neuron)]
    layers += [Layer(name="sum"), dense("d", k, m), dense("e", k, m), Layer(name="f", neuron=neuron)]
    layers += [dense("g", k, k), Layer(name="h", synapse=Scale(weight=rng.uniform(1, 2, k))), dense("out", 3, k, neuron)]
    pairs = [("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("input", "c2"), ("c", "sum"), ("c2", "sum")]
    pairs += [("sum", "d"), ("c", "e"), ("d", "f"), ("e", "f"), ("f", "g", 1), ("f", "h", 1), ("g", "f"), ("h", "f")]
    return wire(layers, *pairs, ("f", "out"), size=(n,), output="out")


def draw_map(seed, neuron=NEURON):
    """Return a map that convolutions, pools that overlap, weights of single neurons and dense weights read on several ways."""
    rng = np.random.default_rng(seed)
    length, channels = int(rng.integers(5, 9)), int(rng.integers(1, 4)) * 2

    def few(*shape):
        return rng.normal(size=shape) * (rng.random(shape) < 0.6)

    groups = int(rng.choice([1, 2]))
    layers = [
        Layer(name="m", synapse=Conv1d(weight=few(channels, 1, 3), padding=(1,)), neuron=neuron),
        Layer(name="k3", synapse=Conv1d(weight=few(channels, channels // groups, 3), padding=(1,), groups=groups)),
        Layer(name="k1", synapse=Conv1d(weight=few(channels, channels, 1))),
        Layer(name="each", synapse=Scale(weight=rng.uniform(1, 2, (channels, length)))),
        Layer(name="n", neuron=neuron),
        Layer(name="pool", synapse=SumPool(kernel_size=(3,), stride=(int(rng.integers(1, 4)),))),
    ]
    pooled = layers[-1].synapse.output_shape((channels, length))
    layers += [
        Layer(name="flat", synapse=Flatten()),
        Layer(name="p", synapse=Dense(weight=few(4, int(np.prod(pooled))))),
        Layer(name="flat2", synapse=Flatten()),
        Layer(name="q", synapse=Dense(weight=few(4, channels * length))),
        Layer(name="o", neuron=neuron),
    ]
    pairs = [("input", "m"), ("m", "k3"), ("m", "k1"), ("m", "each"), ("k3", "n"), ("k1", "n"), ("each", "n"), ("n", "pool")]
    pairs += [("pool", "flat"), ("flat", "p"), ("n", "flat2"), ("flat2", "q"), ("p", "o"), ("q", "o"), ("m", "flat2")]
    return wire(layers, *pairs, size=(1, length))


def draw_plane(seed, neuron=NEURON):
    """Return a map of two axes that kernels of several sizes read, and dense weights, some of them sparse, through pools."""
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(4, 6, 2))

    def few(*shape):
        return rng.normal(size=shape) * (rng.random(shape) < 0.6)

    pool = SumPool(kernel_size=(2, 3), stride=(1, int(rng.integers(1, 4))))
    inputs, pooled = 2 * size[0] * size[1], int(np.prod(pool.output_shape((2, *size))))
    layers = [
        Layer(name="k3", synapse=Conv2d(weight=few(2, 2, 3, 1), padding=(1, 0))),
        Layer(name="k2", synapse=Conv2d(weight=few(2, 1, 1, 3), padding=(0, 1), groups=2)),
        Layer(name="n", neuron=neuron),
        Layer(name="pool", synapse=pool),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="p", synapse=Dense(weight=few(3, pooled))),
        Layer(name="flat2", synapse=Flatten()),
        Layer(name="q", synapse=Dense(weight=make_sparse(few(3, inputs)) if seed % 2 else few(3, inputs))),
        Layer(name="z", synapse=Conv2d(weight=few(1, 2, 2, 2)), neuron=neuron),
        Layer(name="flat3", synapse=Flatten()),
        Layer(name="s", synapse=Dense(weight=few(3, (size[0] - 1) * (size[1] - 1)))),
        Layer(name="o", neuron=neuron),
    ]
    pairs = [("input", "k3"), ("input", "k2"), ("k3", "n"), ("k2", "n"), ("n", "pool"), ("pool", "flat"), ("flat", "p")]
    pairs += [("n", "z"), ("z", "flat3"), ("flat3", "s"), ("s", "o")]
    return wire(layers, *pairs, ("n", "flat2"), ("flat2", "q"), ("p", "o"), ("q", "o"), size=(2, *size))


def list_ways(graph, name):
    own = () if graph[name].synapse is None else (graph[name].synapse,)
    for edge in graph.edges_into(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            yield edge.source, own
        else:
            yield from ((source, (*synapses, *own)) for source, synapses in list_ways(graph, edge.source))


def fill(graph):
    """Return for each pair of layers the matrices of which synapses exist, one for each way: bool (sources, targets)."""
    cells = {}
    for layer in graph.layers:
        if layer.neuron is not None:
            for source, synapses in list_ways(graph, layer.name):
                size = int(np.prod(graph.shape_of(source)))
                value = np.eye(size).reshape(size, *graph.shape_of(source))
                for synapse in synapses:
                    if hasattr(synapse, "weight"):
                        synapse = replace(synapse, weight=(np.asarray(synapse.weight) != 0).astype(float), bias=None)
                    value = apply_synapse(synapse, value)
                cells.setdefault((source, layer.name), []).append(value.reshape(size, -1) > 0)
    return cells


@pytest.mark.parametrize("make", [draw_dense, draw_map, draw_plane])
@pytest.mark.parametrize("chip", ONE_CELL)
@pytest.mark.parametrize("seed", seeds(6, 25))
def test_two_neurons_have_one_synapse_where_the_chip_adds_their_ways(make, chip, seed):
    graph = make(seed)
    cells = {pair: np.any(ways, axis=0) for pair, ways in fill(graph).items()}
    profile = load_profile(chip)
    populations = find_chip_populations(graph, profile)
    for population in populations:
        into = sum(cell.sum(axis=0) for (_, target), cell in cells.items() if target == population.name)
        counts = count_synapses_into(population)
        assert counts.total == into.sum() and counts.largest == into.max()
    for source in {source for source, _ in cells}:
        out = sum(cell.sum(axis=1) for (name, _), cell in cells.items() if name == source)
        counts = count_synapses_out_of(source, populations)
        assert (counts.total, counts.largest, counts.connected) == (out.sum(), out.max(), np.count_nonzero(out))
    if chip == "xylo_audio3":
        placement = place(graph, profile)
        words = {part.layer: part.memory_words for part in placement.slices}
        assert words == {p.name: sum(c.sum() for (_, target), c in cells.items() if target == p.name) for p in populations}


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_a_crossbar_of_reckon_has_a_row_for_each_source_that_reaches_it(seed):
    for make in (draw_dense, draw_map, draw_plane):
        graph = make(seed)
        graph = graph.with_layers(lambda layer: replace(layer, synapse=fill_weights(layer.synapse)))
        cells = {pair: np.any(ways, axis=0) for pair, ways in fill(graph).items()}
        placement = place(graph, load_profile("reckon"))
        for part in placement.slices:
            rows = sum(cell.any(axis=1).sum() for (_, target), cell in cells.items() if target == part.layer)
            assert (part.axons_in, part.memory_words) == (rows, rows * part.neurons)


def fill_weights(synapse):
    return replace(synapse, weight=np.ones_like(synapse.weight)) if hasattr(synapse, "weight") else synapse


@pytest.mark.parametrize("chip", ["truenorth", "brainscales2", "odin", "catalyst_n1", "spinnaker1"])
@pytest.mark.parametrize("seed", seeds(6, 10))
def test_each_of_the_sources_that_are_added_in_front_of_weights_has_its_own(chip, seed):
    graph, profile = draw_dense(seed), load_profile(chip)
    cells = fill(graph)
    populations = find_chip_populations(graph, profile)
    assert all(len(p.sources) == 1 for population in populations for p in population.projections)
    if chip != "spinnaker1":  # it stores weights of zero, and limits no fan-in
        for population in populations:
            into = sum(way.sum(axis=0) for (_, target), ways in cells.items() if target == population.name for way in ways)
            assert count_synapses_into(population).counts.reshape(-1).tolist() == into.tolist()
    for part in place(graph, profile).slices:
        if part.layer in ("c", "f"):
            ways = [way[:, slice(*part.box[0])] for (_, target), ways in cells.items() if target == part.layer for way in ways]
            rows = sum(len(way) if chip == "spinnaker1" else int(way.any(axis=1).sum()) for way in ways)
            if chip == "catalyst_n1":
                assert part.memory_words == sum(int(way.sum()) for way in ways)
                continue
            assert part.axons_in == rows
            if part.layer == "c":  # in front of the other one some weights lead from neuron to neuron
                cells_of_row = 3 + part.neurons if chip == "spinnaker1" else part.copies * part.neurons
                assert part.memory_words == rows * cells_of_row * (2 if chip == "brainscales2" else 1)


def test_a_sum_in_front_of_weights_that_takes_too_many_words_of_xylo_is_over():
    """Three layers of 190 neurons are added in front of weights to 60: 3 · 190 · (1 + 60) words, not 3 · 190 + 190 · 60."""
    neuron = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01, reset="subtract")

    def dense(name, out, into, neuron=None):
        return Layer(name=name, synapse=Dense(weight=np.ones((out, into))), neuron=neuron)

    layers = [dense(name, 190, 1, neuron) for name in "abc"]
    layers += [dense("w", 60, 190), Layer(name="n", neuron=neuron), dense("out", 2, 60, neuron)]
    pairs = [("input", name) for name in "abc"] + [(name, "w") for name in "abc"] + [("w", "n"), ("n", "out")]
    report = check(wire(layers, *pairs, size=(1,)), load_profile("xylo_audio3"), remedies=False)
    row = next(row for row in report.rows if row.resource == "synapse_memory" and row.where == "a + b + c + n")
    assert (row.used, row.limit, row.status, report.verdict) == (3 * 190 * 61, 33792, "over", "does_not_fit")


def test_two_ways_of_one_source_that_fit_as_one_are_not_refused():
    """130 neurons read 120 on two ways: 130 synapses leave each, of the 256 that ReckOn has, not 260."""
    layers = [
        Layer(name="a", synapse=Dense(weight=np.ones((120, 10))), neuron=LIF(tau_s=0.02)),
        Layer(name="b", synapse=Dense(weight=np.ones((130, 120)))),
        Layer(name="c", synapse=Dense(weight=np.ones((130, 120)))),
        Layer(name="d", neuron=LIF(tau_s=0.02)),
        Layer(name="out", synapse=Dense(weight=np.ones((4, 130))), neuron=LI(tau_s=0.02)),
    ]
    pairs = ("input", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "out")
    report = check(wire(layers, *pairs, size=(10,)), load_profile("reckon"), remedies=False)
    assert not [row for row in report.rows if row.status == "over"]
    assert next(row.used for row in report.rows if (row.resource, row.where) == ("fan_out", "a")) == 130


@pytest.mark.parametrize("chip", ONE_CELL)
@pytest.mark.parametrize("seed", range(8))
def test_narrowed_populations_have_the_synapses_of_the_pruned_network(chip, seed):
    profile = load_profile(chip)
    for make in (draw_dense, draw_map):
        graph = make(seed)
        populations = find_chip_populations(graph, profile)
        for group in list_prunable_groups(graph):
            left = max(1, group.channels // 2)
            pruned = find_chip_populations(prune(graph, PruningPlan(kept={group.name: tuple(range(left))})), profile)
            narrowed = narrow_populations(populations, group.name, group.channels, left)
            for here, there in zip(narrowed, pruned, strict=True):
                own = [count_synapses_into(each) for each in (here, there)]
                assert own[0].total == own[1].total and own[0].largest == own[1].largest
            for name in (INPUT, *(population.name for population in pruned)):
                own = [count_synapses_out_of(name, each) for each in (narrowed, pruned)]
                assert own[0].total == own[1].total and own[0].largest == own[1].largest


def test_ways_between_very_large_layers_stay_apart_and_count_no_synapse_too_few(monkeypatch):
    graph, profile = draw_map(3), load_profile("reckon")
    exact = {p.name: count_synapses_into(p).total for p in find_chip_populations(graph, profile)}
    monkeypatch.setattr(chip_populations, "MAX_PAIRS", 0)
    apart = {p.name: count_synapses_into(p).total for p in find_chip_populations(graph, profile)}
    assert all(apart[name] >= total for name, total in exact.items()) and apart != exact


def test_sparse_weights_are_merged_as_the_full_ones(monkeypatch):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(6, 9)) * (rng.random((6, 9)) < 0.3) for _ in range(2)]

    def count(form):
        layers = [Layer(name=name, synapse=Dense(weight=form(w))) for name, w in zip("ab", weights, strict=True)]
        graph = wire([*layers, Layer(name="n", neuron=IF())], ("input", "a"), ("input", "b"), ("a", "n"), ("b", "n"), size=(9,))
        (population,) = find_chip_populations(graph, load_profile("reckon"))
        return count_synapses_into(population).counts.tolist()

    full = count(np.asarray)
    monkeypatch.setattr(sparse_matrix_module, "FULL_NUMBERS", 0)
    assert count(make_sparse) == full == (np.array(weights) != 0).any(axis=0).sum(axis=1).tolist()


@pytest.mark.parametrize("chip", [*ONE_CELL, "loihi2", "odin"])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("disjoint", [False, True])
def test_sparse_and_full_weights_side_by_side_take_what_two_full_ones_take(chip, delay, disjoint):
    """Two layers of weights from one map: the marks of full weights have axes of positions, those of sparse weights have none."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(4, 6)) * (rng.random((4, 6)) < 0.5)
    second = rng.normal(size=(4, 6)) * ((first == 0) if disjoint else rng.random((4, 6)) < 0.5)

    def judge(a, b):
        layers = [
            Layer(name="a", synapse=Dense(weight=a)),
            Layer(name="b", synapse=Dense(weight=b)),
            Layer(name="n", neuron=NEURON),
        ]
        net = wire(layers, (INPUT, "a"), (INPUT, "b", delay), ("a", "n"), ("b", "n"), size=(2, 3))
        report = check(net, load_profile(chip), remedies=False)
        return report.verdict, [(row.resource, row.where, row.used, row.status) for row in report.rows]

    expected = judge(first, second)
    assert judge(make_sparse(first), second) == expected
    assert judge(first, make_sparse(second)) == expected
    assert judge(make_sparse(first), make_sparse(second)) == expected


def test_a_chip_whose_lists_sources_may_share_keeps_the_projections_of_the_network():
    graph = draw_dense(0)
    profile = load_profile("loihi2")
    assert find_chip_populations(graph, profile) == find_populations(graph)


@pytest.mark.parametrize("chip", ["truenorth", "odin", "reckon"])
@pytest.mark.parametrize("axes", [1, 2])
def test_zeros_around_a_kernel_take_no_axons_on_a_crossbar(chip, axes):
    """A ring of zeros with as much more padding; zeros on one side, or without padding, stay."""
    rng = np.random.default_rng(axes)
    make = Conv1d if axes == 1 else Conv2d
    for seed in range(12):
        dilation, padding = int(rng.integers(1, 3)), int(rng.integers(0, 2))
        kernel = rng.normal(size=(6, 3, *(3,) * axes))
        kernel[..., 0] *= seed % 3 > 0  # its first line may be zero too
        common = {"stride": (1 + seed % 2,) * axes, "dilation": (dilation,) * axes}
        ringed = np.pad(kernel, ((0, 0), (0, 0), *((1, 1),) * axes))
        kernels = [(kernel, padding), (ringed, padding + dilation)]
        graphs = [
            wire(
                [
                    Layer(name="c", synapse=make(weight=weight, padding=(pad,) * axes, **common), neuron=IF()),
                    Layer(name="f", synapse=Flatten()),
                ],
                ("input", "c"),
                ("c", "f"),
                size=(3, *((90,) if axes == 1 else (16, 16))),
            )
            for weight, pad in kernels
        ]
        plain, wide = (place(graph, load_profile(chip)) for graph in graphs)
        assert plain.slices == wide.slices
        x = np.random.default_rng(seed).random((1, *graphs[0].input_shape))
        trimmed = chip_populations._trim_kernel(graphs[1]["c"]).synapse
        assert trimmed.weight.shape == kernel.shape and trimmed.padding == (padding,) * axes
        np.testing.assert_allclose(apply_synapse(trimmed, x), apply_synapse(graphs[1]["c"].synapse, x))


def test_zeros_around_a_kernel_that_no_padding_makes_up_for_stay():
    ringed = Layer(
        name="c", synapse=Conv2d(weight=np.pad(np.ones((1, 1, 1, 1)), ((0, 0), (0, 0), (1, 1), (2, 0))), padding=(0, 1))
    )
    assert chip_populations._trim_kernel(ringed).synapse.weight.shape == (1, 1, 3, 3)
    nothing = Layer(name="c", synapse=Conv2d(weight=np.zeros((1, 1, 3, 3)), padding=(1, 1)))
    assert chip_populations._trim_kernel(nothing).synapse.weight.shape == (1, 1, 3, 3)


def test_zeros_around_a_kernel_whose_dilation_is_wider_than_its_padding_stay():
    kernel = np.pad(np.ones((1, 1, 1)), ((0, 0), (0, 0), (1, 1)))
    layer = Layer(name="c", synapse=Conv1d(weight=kernel, padding=(1,), dilation=(2,)))
    assert chip_populations._trim_kernel(layer).synapse.padding == (1,)
    uneven = Layer(name="c", synapse=Conv1d(weight=np.array([[[0.0, 0, 1, 2, 0]]]), padding=(2,)))
    trimmed = chip_populations._trim_kernel(uneven).synapse
    assert (trimmed.weight.tolist(), trimmed.padding) == ([[[0, 1, 2]]], (1,))
    point = Layer(name="c", synapse=Conv1d(weight=np.array([[[0.0, 0, 1, 0, 0]]]), padding=(2,)))
    trimmed = chip_populations._trim_kernel(point).synapse
    assert (trimmed.weight.tolist(), trimmed.padding) == ([[[1]]], (0,))


def test_weights_that_no_one_synapse_sums_are_several_on_spinnaker_alone():
    """A pool that pads behind a kernel lets three weights of a row connect two neurons, each a synapse of its own."""
    layers = [
        Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 3)))),
        Layer(name="p", synapse=SumPool(kernel_size=(3,), stride=(1,), padding=1), neuron=NEURON),
    ]
    graph = wire(layers, ("input", "c"), ("c", "p"), size=(1, 8))
    counts = {}
    for chip in ("spinnaker1", "catalyst_n1", "truenorth"):
        ((projection,),) = (population.projections for population in find_chip_populations(graph, load_profile(chip)))
        counts[chip] = projection.synapses_per_pair
    assert counts == {"spinnaker1": 3, "catalyst_n1": 1, "truenorth": 1}


def test_ways_that_are_one_synapse_are_counted_exactly():
    """A convolution and dense weights from 6 inputs to 6 neurons are 36 synapses of ReckOn, none of which is left open."""
    layers = [
        Layer(name="c", synapse=Conv1d(weight=np.ones((1, 1, 3)), padding=(1,))),
        Layer(name="cf", synapse=Flatten()),
        Layer(name="f", synapse=Flatten()),
        Layer(name="d", synapse=Dense(weight=np.ones((6, 6)))),
        Layer(name="n", neuron=NEURON),
    ]
    pairs = ("input", "c"), ("c", "cf"), ("cf", "n"), ("input", "f"), ("f", "d"), ("d", "n")
    (population,) = find_chip_populations(wire(layers, *pairs, size=(1, 6)), load_profile("reckon"))
    (merged,) = population.merged
    assert (merged.is_bound, merged.mixed_delays, merged.synapses_per_pair, merged.nonzero) == (False, False, 1, None)
    assert count_synapses_into(population).total == 36
