"""Populations and projections of networks, and of narrower networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.lava.schedule import schedule_on_chip
from spear_deploy.network import IF, LI, AvgPool, BatchNorm, Conv2d, Dense, Flatten, LoihiLIF, Scale, SumPool
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.axes import Axis
from spear_deploy.placement.populations import Population, find_populations, narrow_populations
from spear_deploy.pruning.plan import PruningPlan, prune
from tests.placement.test_brute_force import sparse
from tests.support.chips import conv, matrix_onto, previous, random_net
from tests.support.seeds import seeds
from tests.support.wild_graphs import wild_graph

RNG = np.random.default_rng(0)


def split_net() -> SNNGraph:
    """Weights, norm, pools and neurons each in a row of their own."""
    ones = np.ones(16)
    return chain(
        [
            Layer(name="conv1", synapse=conv(RNG, 16, 1, padding=(1, 1))),
            Layer(name="norm1", norm=BatchNorm(weight=ones, bias=ones, mean=ones, var=ones)),
            Layer(name="lif1", neuron=IF()),
            Layer(name="pool1", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="conv2", synapse=conv(RNG, 32, 16, padding=(1, 1))),
            Layer(name="lif2", neuron=IF()),
            Layer(name="pool2", synapse=SumPool(kernel_size=(2, 2))),
            Layer(name="flat", synapse=Flatten()),
            Layer(name="fc", synapse=Dense(weight=np.ones((10, 128)))),
            Layer(name="out", neuron=LI(tau_s=0.02)),
        ],
        input_shape=(1, 8, 8),
    )


def recurrent_net() -> SNNGraph:
    """A residual sum, a loop over a weighted layer, and weights at the end without neurons."""
    return SNNGraph(
        layers=(
            Layer(name="a", synapse=conv(RNG, 8, 8, padding=(1, 1)), neuron=IF()),
            Layer(name="b", synapse=conv(RNG, 8, 8, padding=(1, 1))),
            Layer(name="sum", neuron=IF()),
            Layer(name="fc", synapse=Dense(weight=np.ones((20, 288)))),
            Layer(name="loop", synapse=Dense(weight=np.ones((20, 20)))),
            Layer(name="h", neuron=IF()),
            Layer(name="out", synapse=Dense(weight=np.ones((3, 20)))),
        ),
        edges=(
            Edge(source="input", target="a"),
            Edge(source="a", target="b"),
            Edge(source="b", target="sum"),
            Edge(source="input", target="sum"),
            Edge(source="sum", target="fc"),
            Edge(source="fc", target="h"),
            Edge(source="h", target="loop", delay=1),
            Edge(source="loop", target="h"),
            Edge(source="h", target="out"),
        ),
        input_shape=(8, 6, 6),
        output="out",
    )


def test_weights_lie_with_the_neurons_that_receive_them() -> None:
    populations = find_populations(split_net())
    assert [p.name for p in populations] == ["lif1", "lif2", "out"]
    assert [p.shape for p in populations] == [(16, 8, 8), (32, 4, 4), (10,)]
    assert [q.layer for p in populations for q in p.projections] == ["conv1", "conv2", "fc"]


def test_a_pool_is_part_of_the_convolution_behind_it() -> None:
    """3 × 3 behind 2 × 2 reaches 6 × 6 positions, at stride 2."""
    _, second, out = find_populations(split_net())
    (projection,) = second.projections
    assert projection.taps == 36
    assert projection.axes[0] == Axis(inputs=8, outputs=4, used=8, taps=(0, 1, 2, 3, 4, 5), stride=2, padding=2)
    assert out.projections[0].channels == 32 * 4 * 4  # each spike in front of the pool has a list of its own


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_axes_reach_the_inputs_that_have_synapses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    for population in find_populations(net):
        if not population.is_map:
            continue
        (projection,) = population.projections
        source = previous(net, population.name)
        # weights of random_net are not zero, so synapses are geometry alone
        exists = matrix_onto(net, source, population.name).reshape(*population.shape, *net.shape_of(source))
        box = tuple((a := int(rng.integers(0, n)), int(rng.integers(a + 1, n + 1))) for n in population.shape)
        there = exists[tuple(slice(*along) for along in box)].any(axis=(0, 1, 2)).any(axis=0)
        masks = [axis.mark_inputs(*along) for axis, along in zip(projection.axes, box[1:], strict=True)]
        np.testing.assert_array_equal(there, np.outer(*masks))


def test_residual_sums_loops_and_weights_at_the_end() -> None:
    populations = {p.name: p for p in find_populations(recurrent_net())}
    assert list(populations) == ["a", "sum", "h", "out"]
    weights, identity = populations["sum"].projections
    assert (weights.layer, identity.layer, identity.groups, identity.is_elementwise) == ("b", "sum", 8, True)
    assert [q.layer for q in populations["h"].projections] == ["fc", "loop"]
    assert populations["out"].readout and not populations["h"].readout


def test_delays_count_beyond_the_step_of_each_layer() -> None:
    """`sum` is the second layer: the input has to wait a step for it; a loop of one layer and one step waits for none."""
    populations = {p.name: p for p in find_populations(recurrent_net())}
    assert populations["sum"].projections[1].delay_steps == 1
    assert [q.delay_steps for q in populations["h"].projections] == [0, 0]
    waits = {name: [s.async_delay_steps for q in p.projections for s in q.sources] for name, p in populations.items()}
    assert waits == {"a": [0], "sum": [0, 0], "h": [0, 0], "out": [0]}


def test_a_flatten_behind_the_weights_keeps_the_map() -> None:
    net = chain(
        [Layer(name="c", synapse=conv(RNG, 4, 1)), Layer(name="f", synapse=Flatten()), Layer(name="n", neuron=IF())],
        input_shape=(1, 8, 8),
    )
    (population,) = find_populations(net)
    assert population.shape == (4, 6, 6) and population.is_map


def test_a_layer_that_turns_the_input_into_spikes_is_an_input_layer() -> None:
    first, second = find_populations(
        chain([Layer(name="in", neuron=IF()), Layer(name="c", synapse=conv(RNG, 4, 2), neuron=IF())], input_shape=(2, 8, 8))
    )
    assert first.is_input_layer and not second.is_input_layer
    depthwise = Conv2d(weight=np.ones((2, 1, 1, 1)), groups=2)
    (third,) = find_populations(chain([Layer(name="d", synapse=depthwise, neuron=IF())], input_shape=(2, 8, 8)))
    assert not third.is_input_layer


@pytest.mark.parametrize(
    "net",
    [
        split_net(),
        recurrent_net(),
        *(random_net(np.random.default_rng(s)) for s in range(12)),
        *(wild_graph(s) for s in range(150)),
    ],
)
def test_narrowed_populations_are_those_of_the_pruned_network(net: SNNGraph) -> None:
    populations = find_populations(net)
    for group in list_prunable_groups(net):
        for left in {1, max(1, group.channels // 2), group.channels - 1} - {0}:
            pruned = find_populations(prune(net, PruningPlan(kept={group.name: tuple(range(left))})))
            assert narrow_populations(populations, group.name, group.channels, left) == pruned


@pytest.mark.parametrize("seed", seeds(6, 24))
def test_nonzero_weights_are_narrowed_with_the_rest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = sparse(random_net(rng) if seed < 12 else wild_graph(seed), rng)
    populations = find_populations(net, zeros=True)
    for group in list_prunable_groups(net):
        left = max(1, group.channels // 2)
        pruned = find_populations(prune(net, PruningPlan(kept={group.name: tuple(range(left))})), zeros=True)
        for here, there in zip(narrow_populations(populations, group.name, group.channels, left), pruned, strict=True):
            for narrowed, exact in zip(here.projections, there.projections, strict=True):
                assert narrowed.fan_in.tolist() == exact.fan_in.tolist()


def delayed_net(overlap: bool) -> SNNGraph:
    """Three Dense layers between input and neurons, each of another delay: a third of the synapses each."""
    rng = np.random.default_rng(0)
    weight, which = rng.integers(1, 100, (20, 30)), rng.integers(0, 3, (20, 30))
    parts = [np.where((which == d) | (overlap & (d == 2)), weight, 0) for d in range(3)]
    layers = [Layer(name=f"delay{d}", synapse=Dense(weight=part)) for d, part in enumerate(parts)]
    layers.append(Layer(name="neurons", neuron=LoihiLIF(decay_u=4096, decay_v=0, v_threshold=10)))
    edges = [Edge(source=INPUT, target=f"delay{d}", delay=d) for d in range(3)]
    edges += [Edge(source=f"delay{d}", target="neurons") for d in range(3)]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(30,), output="neurons", dt_s=1e-3)


def test_delays_of_single_synapses_are_one_list_with_the_longest_delay() -> None:
    [population] = find_populations(delayed_net(overlap=False), zeros=True)
    [projection] = population.projections
    assert (projection.channels, projection.outputs, projection.delay_steps) == (30, 20, 2)
    assert projection.nonzero is None or projection.nonzero.all()


def test_synapses_that_stand_in_two_layers_stay_two() -> None:
    [population] = find_populations(delayed_net(overlap=True))
    assert [p.delay_steps for p in population.projections] == [0, 1, 2]


def skipped(blocks: int, *, delay: int = 0) -> SNNGraph:
    """Currents that are summed block by block and never spike themselves: each neuron layer reads all weights before it."""
    layers, edges = [Layer(name="s0", synapse=Dense(weight=np.ones((4, 4))))], [Edge(source=INPUT, target="s0")]
    for i in range(blocks):
        weight = Dense(weight=np.ones((4, 4)))
        layers += [Layer(name=f"n{i}", neuron=IF()), Layer(name=f"w{i}", synapse=weight), Layer(name=f"s{i + 1}")]
        edges += [Edge(source=f"s{i}", target=f"n{i}"), Edge(source=f"n{i}", target=f"w{i}")]
        edges += [Edge(source=f"w{i}", target=f"s{i + 1}", delay=delay), Edge(source=f"s{i}", target=f"s{i + 1}")]
    layers.append(Layer(name="last", neuron=IF()))
    return SNNGraph(layers=tuple(layers), edges=(*edges, Edge(source=f"s{blocks}", target="last")), input_shape=(4,))


def diamonds(count: int) -> SNNGraph:
    """2^count ways through weights and around them."""
    layers, edges = [Layer(name="s0", neuron=IF())], [Edge(source=INPUT, target="s0")]
    for i in range(count):
        layers += [Layer(name=f"a{i}", synapse=Dense(weight=np.ones((4, 4)))), Layer(name=f"s{i + 1}")]
        edges += [Edge(source=f"s{i}", target=f"a{i}"), Edge(source=f"a{i}", target=f"s{i + 1}")]
        edges.append(Edge(source=f"s{i}", target=f"s{i + 1}"))
    layers.append(Layer(name="last", neuron=IF()))
    return SNNGraph(layers=tuple(layers), edges=(*edges, Edge(source=f"s{count}", target="last")), input_shape=(4,))


def test_all_ways_through_sums_are_projections_with_their_delays() -> None:
    last = find_populations(skipped(30))[-1]
    assert {p.layer: p.sources[0].delay_steps for p in last.projections} == {"s0": 30} | {f"w{i}": 29 - i for i in range(30)}
    late = find_populations(skipped(30, delay=2))[-1]
    assert {p.layer: p.sources[0].delay_steps for p in late.projections} == {"s0": 0} | {f"w{i}": 1 for i in range(30)}
    ways = find_populations(diamonds(10))[-1]
    assert sum(len(projection.sources) for projection in ways.projections) == 2**10


def test_a_loop_without_neurons_is_followed_once() -> None:
    """`a` and `b` have no neurons and feed each other; `a` feeds `out`."""
    layers = tuple(Layer(name=name, synapse=Dense(weight=np.eye(4))) for name in "ab")
    edges = (
        Edge(source=INPUT, target="a"), Edge(source=INPUT, target="b", delay=5), Edge(source="a", target="b", delay=2),
        Edge(source="b", target="a", delay=1), Edge(source="a", target="out"),
    )  # fmt: skip
    graph = SNNGraph(layers=(*layers, Layer(name="out", neuron=IF())), edges=edges, input_shape=(4,), output="out")
    sources = [source for projection in find_populations(graph)[-1].projections for source in projection.sources]
    assert [(source.name, source.delay_steps) for source in sources] == [(INPUT, 6), (INPUT, 0)]
    assert {projection.layer for projection in find_populations(graph)[-1].projections} == {"a"}


def test_more_ways_than_can_be_listed_are_counted_and_refused() -> None:
    assert sum(len(p.sources) for p in find_populations(diamonds(12))[-1].projections) == 4096
    with pytest.raises(UnsupportedError, match="layer 'last': more than 4096 ways lead to it through layers without neurons"):
        find_populations(diamonds(400))


def test_a_way_over_a_delay_may_come_from_a_layer_that_stands_later():
    """`late` has no neurons and stands behind `out`, which it feeds three steps later."""
    layers = (
        Layer(name="out", synapse=Dense(weight=np.ones((2, 3))), neuron=IF()),
        Layer(name="fc", synapse=Dense(weight=np.ones((4, 4))), neuron=IF()),
        Layer(name="late", synapse=Dense(weight=np.ones((3, 4)))),
    )

    def build(before, after):
        fc, late = Edge(source=INPUT, target="fc"), Edge(source="fc", target="late", delay=before)
        edges = (fc, late, Edge(source="late", target="out", delay=after))
        return SNNGraph(layers=layers, edges=edges, input_shape=(4,), output="out")

    assert [layer.name for layer in build(0, 3).layers] == ["out", "fc", "late"]
    early, late = ({p.name: p.projections for p in find_populations(build(*delays))} for delays in ((3, 0), (0, 3)))
    assert late == early and [source.name for source in late["out"][0].sources] == ["fc"]


def only(*layers: Layer, inputs: tuple[int, ...] = (4,)) -> Population:
    return find_populations(chain(list(layers), input_shape=inputs))[-1]


def test_a_population_has_a_bias_by_weights_norm_or_neuron() -> None:
    weight = np.eye(4)
    norm = BatchNorm(weight=np.ones(4), bias=np.zeros(4), mean=np.zeros(4), var=np.ones(4))
    integers = np.eye(4, dtype=int)

    def loihi(bias: int) -> LoihiLIF:
        return LoihiLIF(decay_u=4096, decay_v=400, v_threshold=64, bias_mantissa=np.full(4, bias))

    assert not only(Layer(name="a", synapse=Dense(weight=weight), neuron=IF())).biased
    assert only(Layer(name="a", synapse=Dense(weight=weight, bias=np.zeros(4)), neuron=IF())).biased
    assert only(Layer(name="a", synapse=Dense(weight=weight), norm=norm, neuron=IF())).biased
    silent, driven = (only(Layer(name="a", synapse=Dense(weight=integers), neuron=loihi(bias))) for bias in (0, 1))
    assert not silent.biased and driven.biased


def test_signs_output_and_readout_of_populations() -> None:
    unsigned, signed = (
        only(Layer(name="a", synapse=Dense(weight=w), neuron=IF())) for w in (np.diag([0.0, 1, 2, 3]), -np.eye(4))
    )
    assert [p.projections[0].signed for p in (unsigned, signed)] == [False, True]
    first = Layer(name="a", synapse=Dense(weight=np.eye(4)), neuron=IF())
    a, end = find_populations(chain([first, Layer(name="end", synapse=Dense(weight=np.ones((2, 4))))], input_shape=(4,)))
    assert (a.output, a.readout, end.output, end.readout) == (False, False, True, True)
    a, again = find_populations(chain([first, Layer(name="again", neuron=IF())], input_shape=(4,)))
    assert (a.output, again.output, again.readout) == (False, True, False)
    assert [p.projections[0].sources[0].delay_steps for p in (a, end)] == [0, 0]


def test_only_layers_whose_positions_share_weights_are_maps() -> None:
    first = Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 3, 3))), neuron=IF())
    shared = only(first, inputs=(1, 6, 6))
    assert shared.is_map and shared.shape == (2, 4, 4)
    whole = only(Layer(name="fc", synapse=Dense(weight=np.ones((8, 4))), neuron=IF()))
    assert not whole.is_map and whole.shape == (8,)
    mixed = SNNGraph(
        layers=(
            first, Layer(name="flat", synapse=Flatten()), Layer(name="fc", synapse=Dense(weight=np.ones((32, 36)))),
            Layer(name="all", synapse=Flatten()), Layer(name="out", neuron=IF()),
        ),
        edges=(
            Edge(source=INPUT, target="conv"), Edge(source=INPUT, target="flat"), Edge(source="flat", target="fc"),
            Edge(source="conv", target="all"), Edge(source="all", target="out"), Edge(source="fc", target="out"),
        ),
        input_shape=(1, 6, 6), output="out",
    )  # fmt: skip
    assert find_populations(mixed)[-1].shape == (32,) and not find_populations(mixed)[-1].is_map


def test_a_row_of_neurons_with_a_weight_each_is_no_map() -> None:
    line = only(Layer(name="a", synapse=Scale(weight=np.ones((4,))), neuron=IF()))
    assert not line.is_map and line.shape == (4,)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((), "conv"), ((3, 1, 1), "conv"), ((2,), "one_to_one"), ((1, 1, 2), "one_to_one"), ((3, 4, 2), "one_to_one")],
)
def test_a_scale_shares_weights_between_positions_unless_they_differ_inside_a_channel(shape: tuple[int, ...], kind: str) -> None:
    for weight, expected in ((np.arange(np.prod(shape)).reshape(shape), kind), (np.ones(shape), "conv")):
        scale = Layer(name="s", synapse=Scale(weight=weight), neuron=IF())
        assert only(scale, inputs=(3, 4, 2)).projections[0].kind == expected


def test_only_what_weights_lie_behind_is_a_readout() -> None:
    first = Layer(name="a", synapse=Conv2d(weight=np.ones((2, 1, 3, 3))), neuron=IF())
    sums = [Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))), Layer(name="flat", synapse=Flatten())]
    (spikes,) = find_populations(chain([first, *sums], input_shape=(1, 6, 6)))
    assert (spikes.name, spikes.readout, spikes.output) == ("a", False, True)
    weights = Layer(name="b", synapse=Conv2d(weight=np.ones((2, 2, 1, 1))))
    a, end = find_populations(chain([first, weights, *sums], input_shape=(1, 6, 6)))
    assert (a.output, end.name, end.readout, end.output) == (False, "flat", True, True)


def test_more_ways_than_can_be_followed_through_a_loop_are_refused() -> None:
    net = diamonds(13)
    loop = Layer(name="loop", synapse=Dense(weight=np.eye(4)))
    edges = (*net.edges, Edge(source="a0", target="loop", delay=1), Edge(source="loop", target="a0", delay=1))
    graph = SNNGraph(layers=(*net.layers, loop), edges=edges, input_shape=(4,), output="last")
    with pytest.raises(UnsupportedError, match="layer 'last': more than 4096 ways lead to it"):
        find_populations(graph)


@pytest.mark.parametrize("seed", range(0, 120, 2))
def test_spikes_arrive_too_early_only_in_loops_that_no_schedule_runs(seed):
    """The wait of each connection is not negative exactly where Lava's schedule has a solution."""
    graph = wild_graph(seed)
    waits = [s.delay_steps for p in find_populations(graph) for q in p.projections for s in q.sources if not p.readout]
    assert (min(waits, default=0) >= 0) == (schedule_on_chip(graph)["problem"] is None)


def test_a_delay_on_the_way_forward_is_no_feedback():
    graph = chain([Layer(name=n, synapse=Dense(weight=np.eye(2)), neuron=IF()) for n in "abc"], input_shape=(2,))
    graph = replace(graph, edges=tuple(replace(e, delay=int(e.target == "c")) for e in graph.edges))
    assert find_populations(graph)[2].projections[0].sources[0].delay_steps == 0
    assert find_populations(graph)[2].projections[0].sources[0].async_delay_steps == 1
    assert check(graph, load_profile("loihi2")).unsupported == ()


@pytest.mark.parametrize("chip", ["loihi1", "loihi2", "truenorth", "spinnaker1"])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("spiking", ["ab", "b"])
def test_weights_one_to_one_from_a_map_of_one_position_are_those_from_a_list(chip: str, axes: int, spiking: str) -> None:
    """Beside others from a list, or dense ones, they counted as lists of all neurons, 3 words in place of 2."""

    def build(shape: tuple[int, ...]) -> SNNGraph:
        scale = Scale(weight=np.array([1.0, 2]).reshape(shape))
        synapses = {"flat": Flatten(), "a": Dense(weight=np.eye(2) + 1), "s": scale, "t": Flatten(), "b": None}
        layers = [Layer(name=n, synapse=synapse, neuron=IF() if n in spiking else None) for n, synapse in synapses.items()]
        ends = (INPUT, "flat"), ("flat", "a"), ("a", "b"), (INPUT, "s"), ("s", "t"), ("t", "b")
        return SNNGraph(layers=layers, edges=[Edge(source=x, target=y) for x, y in ends], input_shape=shape, output="b")

    amounts = ("neurons", "synapse_memory", "axons_in", "fan_in")
    placed = [
        [(row.resource, row.used) for row in check(build(shape), load_profile(chip), remedies=False).rows if "b" in row.where]
        for shape in ((2,), (2, *(1,) * axes))
    ]
    listed, mapped = ([row for row in rows if row[0] in amounts] for rows in placed)
    assert mapped == listed and listed
