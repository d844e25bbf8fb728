"""Fused weights: the network computes the same, and can be quantised."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.unroll import unroll_synapse
from spear_deploy.errors import GraphError
from spear_deploy.network import IF, AvgPool, BatchNorm, Conv1d, Conv2d, CubaLIF, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.equal_values import collapse_equal_values
from spear_deploy.network.graph import MAX_DELAY, Edge, SNNGraph, chain
from spear_deploy.quantize import fuse_weights as fuse
from spear_deploy.quantize import quantize
from spear_deploy.quantize.fuse_weights import compose_synapses, find_chained_weights, fuse_weights
from spear_deploy.simulator import simulate, synapse_math
from tests.support.wild_graphs import wild_graph, wild_spikes


def grid(rng, *shape):
    return rng.integers(-8, 9, shape).astype(np.float32) / 4


def a_map(rng, shape):
    """Return a random synapse for inputs of a shape."""
    channels, dims = shape[0], len(shape) - 1
    kinds = ["dense", "scale", *(["conv", "conv", "pool", "channels", "flatten"] if dims else [])]
    kind = kinds[rng.integers(len(kinds))]
    if kind == "dense":
        return Dense(weight=grid(rng, 3, int(np.prod(shape))), bias=grid(rng, 3) if rng.random() < 0.5 else None)
    if kind in ("scale", "channels"):
        weight = grid(rng, *(shape if kind == "scale" else (channels, *(1 for _ in shape[1:]))))
        return Scale(weight=weight, bias=grid(rng, *weight.shape) if rng.random() < 0.5 else None)
    if kind == "flatten":
        return Flatten()
    kernel = tuple(int(n) for n in rng.integers(1, 4, dims))
    padding = tuple(int(n) for n in rng.integers(0, 3, dims) * (rng.random() < 0.5))
    stride = tuple(int(n) for n in rng.integers(1, 3, dims))
    if kind == "pool":
        return (SumPool, AvgPool)[rng.integers(2)](kernel_size=tuple(min(k, 2) for k in kernel), stride=stride, padding=padding)
    groups = int(rng.choice([1, channels, 2 if channels % 2 == 0 else 1]))
    return (Conv1d, Conv2d)[dims - 1](
        weight=grid(rng, groups * int(rng.integers(1, 3)), channels // groups, *kernel), stride=stride, padding=padding,
        dilation=tuple(int(n) for n in rng.integers(1, 3, dims)), groups=groups,
    )  # fmt: skip


def biased(rng, synapse):
    if isinstance(synapse, (Conv1d, Conv2d)) and rng.random() < 0.5:
        return replace(synapse, bias=grid(rng, synapse.weight.shape[0]))
    return synapse


def test_two_synapses_in_a_row_equal_the_composed_one():
    """Every pair of kinds, strides, dilations, groups and paddings: equal on random input, or no single map."""
    made: dict[str, int] = {}
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        shape = ((4,), (2, 11), (4, 11), (2, 10, 9), (4, 9, 9))[seed % 5]
        try:
            first = biased(rng, a_map(rng, shape))
            middle = first.output_shape(shape)
            second = biased(rng, a_map(rng, middle))
            out = second.output_shape(middle)
        except GraphError:  # a window that does not fit
            continue
        both = compose_synapses(first, second, shape)
        name = f"{type(first).__name__} {type(second).__name__}"
        if both is None:
            made.setdefault(name, 0)
            continue
        made[name] = made.get(name, 0) + 1
        assert both.output_shape(shape) == out
        x = rng.integers(-4, 5, (3, *shape)).astype(np.float64)
        expected = synapse_math.apply_synapse(second, synapse_math.apply_synapse(first, x))
        np.testing.assert_allclose(synapse_math.apply_synapse(both, x), expected, rtol=1e-5, atol=1e-5, err_msg=f"{seed} {name}")
    for pair in ("Conv2d Conv2d", "Conv2d Dense", "Dense Dense", "AvgPool Conv2d", "Scale Conv1d", "Conv1d Scale", "Dense Scale"):
        assert made[pair] > 0, pair


def test_products_of_binary_fractions_are_exact():
    rng = np.random.default_rng(0)
    first, second = Dense(weight=grid(rng, 5, 4), bias=grid(rng, 5)), Dense(weight=grid(rng, 3, 5), bias=grid(rng, 3))
    both = compose_synapses(first, second, (4,))
    assert np.array_equal(both.weight, second.weight @ first.weight)
    assert np.array_equal(both.bias, second.weight @ first.bias + second.bias)
    assert both.weight.dtype == np.float32


def test_pairs_that_no_single_synapse_computes_are_not_composed():
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=grid(rng, 2, 2, 3, 3), padding=(1, 1))
    point = Conv2d(weight=grid(rng, 2, 2, 1, 1))
    assert compose_synapses(conv, conv, (2, 6, 6)) is None  # the border of the second sees no positions beyond the first
    assert compose_synapses(point, conv, (2, 6, 6)) is not None
    assert compose_synapses(replace(point, bias=np.ones(2)), conv, (2, 6, 6)) is None  # nor its bias
    assert compose_synapses(Scale(weight=grid(rng, 2, 6, 6)), conv, (2, 6, 6)) is None  # one weight per position
    assert compose_synapses(None, point, (2, 6, 6)) is point and compose_synapses(point, None, (2, 6, 6)) is point


def test_matrices_are_multiplied_up_to_the_largest_product(monkeypatch):
    monkeypatch.setattr(fuse, "MAX_WEIGHTS", 100)
    first = Dense(weight=np.ones((1, 20)))
    composed = [compose_synapses(first, Dense(weight=np.ones((outputs, 1))), (20,)) for outputs in (5, 6)]
    assert composed[0].weight.shape == (5, 20) and composed[1] is None


def test_random_networks_with_chained_weights_compute_the_same():
    merged = 0
    for seed in range(200):
        graph = wild_graph(seed)
        graph = graph.with_layers(lambda layer: replace(layer, norm=None))
        again = fuse_weights(graph)
        merged += again is not graph
        assert len(find_chained_weights(again)) <= len(find_chained_weights(graph))
        x = wild_spikes(graph, seed)
        before, after = (simulate(g, x, record=("spikes",), dtype=np.float64) for g in (graph, again))
        np.testing.assert_allclose(after.output * 1.0, before.output * 1.0, atol=1e-9, err_msg=str(seed))
        for name in after.spikes:
            assert np.array_equal(after.spikes[name], before.spikes[name]), (seed, name)
    assert merged > 30


def recurrent(weights):
    """Return Linear, then the input weights of a recurrent cell: two weighted layers in a row."""
    rng = np.random.default_rng(1)
    neuron = CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0)
    layers = (
        Layer(name="fc", synapse=Dense(weight=grid(rng, 6, 4), bias=grid(rng, 6))),
        Layer(name="in", synapse=Dense(weight=grid(rng, 5, 6) / 8)),
        Layer(name="back", synapse=Dense(weight=weights)),
        Layer(name="cell", neuron=neuron),
    )
    pairs = (("input", "fc", 0), ("fc", "in", 0), ("in", "cell", 0), ("cell", "back", 1), ("back", "cell", 0))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(4,), output="cell")


def test_a_linear_layer_before_a_recurrent_cell_can_be_quantised():
    graph = recurrent(grid(np.random.default_rng(2), 5, 5) / 8)
    merged = fuse_weights(graph)
    assert [layer.name for layer in merged.layers if layer.synapse is not None] == ["in", "back"]
    x = np.random.default_rng(3).random((40, 8, 4)) < 0.4
    expected = simulate(graph, x).output
    assert np.array_equal(simulate(merged, x).output, expected) and 0.02 < expected.mean() < 0.9
    integer = quantize(graph)
    assert integer.is_integer and {layer.name for layer in integer.layers} == {"in", "back", "cell"}
    assert (simulate(integer, x).output == expected).mean() > 0.9


def test_weights_that_neurons_feed_back_are_fused():
    """The way from `fc` back to it leads through `cell`, whose spikes take their weights too: no loop of weights alone."""
    graph = recurrent(grid(np.random.default_rng(2), 5, 5) / 8)
    around = Layer(name="around", synapse=Dense(weight=grid(np.random.default_rng(5), 4, 5) / 8))
    edges = (*graph.edges, Edge(source="cell", target="around", delay=1), Edge(source="around", target="fc"))
    graph = replace(graph, layers=(*graph.layers, around), edges=edges, output="cell")
    merged = fuse_weights(graph)
    assert find_chained_weights(graph) and not find_chained_weights(merged)
    x = np.random.default_rng(3).random((40, 8, 4)) < 0.4
    expected = simulate(graph, x, dtype=np.float64).output
    assert np.array_equal(simulate(merged, x, dtype=np.float64).output, expected) and 0.02 < expected.mean() < 0.9


def test_currents_that_add_up_before_weights_get_a_copy_of_the_weights_each():
    rng = np.random.default_rng(4)
    layers = [Layer(name=n, synapse=Conv2d(weight=grid(rng, 2, 2, 3, 3), bias=grid(rng, 2))) for n in ("a", "b")]
    layers += [Layer(name="sum"), Layer(name="out", synapse=Dense(weight=grid(rng, 3, 32), bias=grid(rng, 3)), neuron=IF())]
    edges = [("input", "a", 0), ("input", "b", 0), ("a", "sum", 0), ("b", "sum", 0), ("sum", "out", 0)]
    graph = SNNGraph(
        layers=tuple(layers), edges=tuple(Edge(source=s, target=t, delay=d) for s, t, d in edges), input_shape=(2, 6, 6)
    )
    merged = fuse_weights(graph)
    assert not find_chained_weights(merged) and merged["out"].synapse is None
    x = rng.random((10, 2, 2, 6, 6)) < 0.4
    assert np.array_equal(simulate(merged, x).output, simulate(graph, x).output)


def test_weights_whose_fusion_is_not_exact_stay():
    integer = quantize(chain([Layer(name="a", synapse=Dense(weight=np.ones((1, 1))), neuron=IF())], input_shape=(1,)))
    assert fuse_weights(integer) is integer
    graph = recurrent(np.zeros((5, 5)))
    late = replace(graph, edges=tuple(replace(e, delay=2) if e.source == "fc" else e for e in graph.edges))
    assert fuse_weights(late) is late and find_chained_weights(late)
    around = Layer(name="around", synapse=Dense(weight=np.ones((4, 6))))
    edges = (*graph.edges, Edge(source="fc", target="around", delay=1), Edge(source="around", target="fc"))
    loop = replace(graph, layers=(*graph.layers, around), edges=edges, output="cell")
    assert fuse_weights(loop) is loop


def scaled_pools(scale, behind, reader):
    """Return a network of neurons whose spikes pass a `Scale`, pools or flattens, and weights."""
    rng = np.random.default_rng(3)
    first = Layer(name="c", synapse=Conv2d(weight=grid(rng, 2, 2, 3, 3)), neuron=IF())
    between = [Layer(name=f"p{n}", synapse=synapse) for n, synapse in enumerate(behind)]
    layers = [first, Layer(name="s", synapse=scale), *between, Layer(name="n", synapse=reader, neuron=IF(reset="subtract"))]
    return chain(layers, input_shape=(2, 8, 8))


SUM, FLAT = SumPool(kernel_size=(2, 2)), Flatten()
PADDED = Conv2d(weight=grid(np.random.default_rng(4), 3, 2, 3, 3), padding=(1, 1))
LIST = Scale(weight=grid(np.random.default_rng(5), 72))


@pytest.mark.parametrize(
    ("behind", "reader", "weight"),
    [
        ((SUM,), PADDED, np.ones(())),
        ((SUM,), PADDED, np.array([[[0.5]], [[-2.0]]])),
        ((AvgPool(kernel_size=(2, 2), padding=(1, 1)),), PADDED, np.array([[[0.5]], [[2.0]]])),
        ((SumPool(kernel_size=(1, 2)), SumPool(kernel_size=(2, 1))), PADDED, np.array([[[0.5]], [[2.0]]])),
        ((FLAT,), LIST, np.array(0.5)),
        ((FLAT,), LIST, grid(np.random.default_rng(6), 2, 6, 6)),
        ((SUM, FLAT), Scale(weight=np.ones(18)), np.array([[[0.5]], [[2.0]]])),
    ],
)
@pytest.mark.parametrize("delays", [(0, 0), (2, 3)])
def test_a_scale_before_a_pool_or_a_flatten_is_one_of_the_weights_behind_it(behind, reader, weight, delays):
    graph = scaled_pools(Scale(weight=weight), behind, reader)
    late = {("c", "s"): delays[0], ("s", "p0"): delays[1]}
    graph = replace(graph, edges=tuple(replace(e, delay=late.get((e.source, e.target), 0)) for e in graph.edges))
    fused = fuse_weights(graph)
    assert not find_chained_weights(fused) and [layer.name for layer in fused.layers if layer.name == "s"] == []
    x = np.random.default_rng(0).random((12, 3, 2, 8, 8)) < 0.4
    before, after = (simulate(g, x, record=("spikes",), dtype=np.float64) for g in (graph, fused))
    assert before.spikes["n"].any() and np.array_equal(before.spikes["n"], after.spikes["n"])
    assert quantize(graph, format="loihi")["n"].neuron is not None


def test_a_scale_that_others_read_stays_beside_the_one_behind_the_pool():
    graph = scaled_pools(Scale(weight=np.array([[[0.5]], [[2.0]]])), (SUM,), PADDED)
    beside = Layer(name="beside", neuron=IF())
    edges = (*graph.edges, Edge(source="s", target="beside"))
    graph = replace(graph, layers=(*graph.layers, beside), edges=edges, output="n")
    fused = fuse_weights(graph)
    assert not find_chained_weights(fused) and fused["s"].synapse is not None
    x = np.random.default_rng(0).random((12, 3, 2, 8, 8)) < 0.4
    before, after = (simulate(g, x, record=("spikes",), dtype=np.float64).spikes for g in (graph, fused))
    assert all(before[name].any() and np.array_equal(before[name], after[name]) for name in ("n", "beside"))


def test_a_scale_stays_before_a_pool_where_its_weights_differ_in_a_window_or_a_bias_is_added_up():
    by_position = Scale(weight=grid(np.random.default_rng(6), 2, 6, 6))
    biased = Scale(weight=np.ones((2, 1, 1)), bias=np.ones((2, 1, 1)))
    for scale in (by_position, biased):
        graph = scaled_pools(scale, (SUM,), PADDED)
        assert fuse_weights(graph) is graph and find_chained_weights(graph)
    graph = scaled_pools(Scale(weight=np.ones(())), (SUM,), PADDED)
    delays = {("c", "s"): MAX_DELAY, ("s", "p0"): 1}
    late = replace(graph, edges=tuple(replace(e, delay=delays.get((e.source, e.target), 0)) for e in graph.edges))
    assert fuse_weights(late) is late
    read = replace(graph, output="p0")
    assert fuse_weights(read) is read


def test_a_scale_stays_before_a_pool_that_adds_up_another_way_too():
    """Behind the pool it would be a factor on both ways."""
    graph = scaled_pools(Scale(weight=np.array([[[0.5]], [[-2.0]]])), (SUM,), PADDED)
    beside = Layer(name="w", synapse=Conv2d(weight=grid(np.random.default_rng(8), 2, 2, 3, 3)))
    edges = (*graph.edges, Edge(source="input", target="w"), Edge(source="w", target="p0"))
    both = replace(graph, layers=(graph.layers[0], beside, *graph.layers[1:]), edges=edges)
    assert fuse_weights(both) is both and find_chained_weights(both)


def test_a_bias_of_zeros_is_none_and_equal_weights_of_all_positions_are_one_a_channel():
    factor = np.array([[[0.5]], [[-2.0]]])
    zeros = Scale(weight=factor, bias=np.zeros((2, 1, 1)))
    filled = Scale(weight=np.broadcast_to(factor, (2, 6, 6)), bias=np.zeros((2, 6, 6)))
    for scale in (zeros, filled):
        assert compose_synapses(scale, PADDED, (2, 6, 6)) == compose_synapses(Scale(weight=factor), PADDED, (2, 6, 6))
        assert compose_synapses(replace(scale, bias=np.ones((2, 1, 1))), PADDED, (2, 6, 6)) is None
        pooled = scaled_pools(scale, (SUM,), PADDED)
        late = replace(pooled, edges=tuple(replace(e, delay=2 * (e.source == "s")) for e in pooled.edges))
        assert not find_chained_weights(fuse_weights(late))
    graph = recurrent(np.zeros((5, 5)))
    fc = graph["fc"]
    graph = graph.with_layers({"fc": replace(fc, synapse=replace(fc.synapse, bias=np.zeros_like(fc.synapse.bias)))})
    late = replace(graph, edges=tuple(replace(e, delay=2) if e.source == "fc" else e for e in graph.edges))
    assert not find_chained_weights(fuse_weights(late))


def test_a_plain_pool_is_repeated_into_dense_weights_as_its_unrolled_matrix_has_them():
    rng = np.random.default_rng(0)
    for pool, shape in (
        (AvgPool(kernel_size=(2, 3)), (3, 9, 8)), (SumPool(kernel_size=(3, 2)), (3, 9, 8)), (AvgPool(kernel_size=(3,)), (2, 8)),
        (AvgPool(kernel_size=(2, 2), stride=(1, 1)), (3, 5, 5)), (SumPool(kernel_size=(2, 2), padding=(1, 1)), (3, 4, 4)),
    ):  # fmt: skip
        weight = rng.standard_normal((5, int(np.prod(pool.output_shape(shape))))).astype(np.float32)
        fused = compose_synapses(pool, Dense(weight=weight), shape)
        unit = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        pooled = synapse_math.apply_synapse(pool, unit).reshape(len(unit), -1)
        assert np.array_equal(fused.weight, (weight.astype(np.float64) @ pooled.T).astype(np.float32))


def test_a_pool_written_out_is_multiplied_by_its_values_alone():
    """One value a column gives each product as it is; windows that overlap differ from the product by rounding alone."""
    rng = np.random.default_rng(0)
    for stride, padding in (((2, 2), (0, 0)), ((1, 1), (1, 1))):
        pool = unroll_synapse(AvgPool(kernel_size=(2, 2), stride=stride, padding=padding), (3, 6, 6)).weight
        weights = rng.normal(size=(300, len(pool))).astype(np.float32)
        wanted = weights.astype(np.float64) @ pool
        got = fuse._multiply(weights, pool)
        assert got.dtype == np.float64 and 0 < np.count_nonzero(pool, axis=0).max() <= fuse.FEW
        if stride == (2, 2):
            np.testing.assert_array_equal(got, wanted)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-15 * np.abs(wanted).max() * 4)


def test_a_matrix_of_many_values_is_multiplied_as_one():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(fuse.FEW + 1, 5)), rng.normal(size=(4, fuse.FEW + 1)).astype(np.float32)
    np.testing.assert_array_equal(fuse._multiply(second, first), second.astype(np.float64) @ first)
    assert not fuse._multiply(second, np.zeros_like(first)).any()


@pytest.mark.parametrize("delays", [(0, 0), (2, 1)])
@pytest.mark.parametrize("weight", [np.array(0.5), np.array([0.5, 2.0]).reshape(2, 1, 1), np.full((2, 4, 4), 0.25)])
@pytest.mark.parametrize("pool", [AvgPool(kernel_size=(2, 2)), SumPool(kernel_size=(3, 2), stride=(1, 2), padding=(1, 0))])
def test_a_scale_before_a_pool_with_neurons_is_the_one_behind_it(pool, weight, delays):
    """The integers of both ways to write it are the same; SpiNNaker rounded the one with half of the steps of the other."""
    neuron = CubaLIF(tau_mem_s=0.004, tau_syn_s=0.002, r=5.0)
    ahead = [Layer(name="s", synapse=Scale(weight=weight)), Layer(name="n", synapse=pool, neuron=neuron)]
    factor = fuse.drop_positions(weight, 3)
    behind = [Layer(name="p", synapse=pool), Layer(name="n", synapse=Scale(weight=factor), neuron=neuron)]
    nets = []
    for layers in (ahead, behind):
        (first, second), names = delays, [layer.name for layer in layers]
        edges = [Edge(source="input", target=names[0], delay=first), Edge(source=names[0], target="n", delay=second)]
        nets.append(SNNGraph(layers=layers, edges=edges, input_shape=(2, 4, 4)))
    x = (np.random.default_rng(0).random((20, 3, 2, 4, 4)) < 0.4).astype(np.float64)
    fused = fuse_weights(nets[0])
    assert [type(layer.synapse).__name__ for layer in fused.layers if layer.neuron is None] == [type(pool).__name__, "Scale"]
    assert sum(edge.delay for edge in fused.edges) == sum(delays)
    expected, seen = (simulate(net, x, record=("spikes", "v"), dtype=np.float64) for net in (nets[0], fused))
    np.testing.assert_array_equal(seen.spikes["n"], expected.spikes["n"])
    np.testing.assert_allclose(seen.v["n"], expected.v["n"], atol=1e-12)
    for format in ("loihi", "spinnaker"):
        one, other = (collapse_equal_values(quantize(net, format=format)) for net in nets)
        assert one["n"] == other["n"]
        assert one.metadata["quantization"]["scale"] == other.metadata["quantization"]["scale"]


def test_a_scale_before_a_pool_with_neurons_stays_where_that_is_not_exact():
    def fused(scale, **parts):
        layers = [Layer(name="s", synapse=scale, **parts), Layer(name="n", synapse=AvgPool(kernel_size=(2, 2)), neuron=IF())]
        net = chain(layers, input_shape=(2, 4, 4))
        return fuse_weights(net) is net

    ones = np.ones(2)
    assert fused(Scale(weight=np.arange(16.0).reshape(1, 4, 4))) and fused(Scale(weight=np.array(2.0), bias=np.array(1.0)))
    assert fused(Scale(weight=np.array(2.0)), norm=BatchNorm(weight=ones, bias=ones, mean=ones, var=ones))
    assert fused(Scale(weight=np.array(2.0)), neuron=IF()) and not fused(Scale(weight=np.array(2.0)))


def test_a_scale_that_others_read_stays_beside_the_one_between_pool_and_neurons():
    layers = [Layer(name="s", synapse=Scale(weight=np.array(2.0))), Layer(name="m", neuron=IF())]
    layers += [Layer(name="n", synapse=SumPool(kernel_size=(2, 2)), neuron=IF(v_threshold=5.0))]
    ends = ("input", "s"), ("s", "m"), ("s", "n")
    net = SNNGraph(layers=layers, edges=[Edge(source=a, target=b) for a, b in ends], input_shape=(2, 4, 4), output="n")
    fused, x = fuse_weights(net), np.ones((5, 1, 2, 4, 4))
    assert {layer.name for layer in fused.layers} == {"s", "m", "n", "n_pool", "s_2"}
    for name in "mn":
        spikes = [simulate(each, x, record=("spikes",)).spikes[name] for each in (net, fused)]
        np.testing.assert_array_equal(*spikes)


@pytest.mark.parametrize(("first", "moves"), [(MAX_DELAY - 1, True), (MAX_DELAY, False)])
def test_a_scale_passes_a_pool_with_neurons_up_to_the_longest_delay(first, moves):
    layers = [Layer(name="s", synapse=Scale(weight=np.array(2.0))), Layer(name="n", synapse=SUM, neuron=IF())]
    edges = [Edge(source="input", target="s", delay=first), Edge(source="s", target="n", delay=1)]
    net = SNNGraph(layers=layers, edges=edges, input_shape=(2, 8, 8))
    assert (fuse_weights(net) is not net) is moves


def test_a_scale_with_a_norm_stays_before_a_pool():
    graph, ones = scaled_pools(Scale(weight=np.array(2.0)), (SUM,), PADDED), np.ones(2)
    norm = BatchNorm(weight=ones, bias=ones, mean=ones, var=ones)
    graph = graph.with_layers({"s": replace(graph["s"], norm=norm)})
    assert fuse_weights(graph) is graph
