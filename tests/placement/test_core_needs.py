"""Needs of boxes at their places: of a map whose neurons stand in a row, beside dense weights onto the same neurons."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import measure_core_use
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.placement.axon_sets import count_union
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.core_needs import BOX_RESOURCES, Core, group_targets_by_source
from spear_deploy.placement.place import place
from spear_deploy.placement.populations import find_populations
from tests.support.chips import matrix_onto, small_chip
from tests.support.seeds import seeds
from tests.support.single_synapses import find_ways


def row_of_a_map(conv: Conv1d | Conv2d, shape: tuple[int, ...], dense_inputs: int = 4) -> SNNGraph:
    """A layer that reads a map through a convolution that is flattened, and some neurons through dense weights."""
    positions = [
        (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1
        for n, k, pad, dilation, stride in zip(
            shape[1:], conv.weight.shape[2:], conv.padding, conv.dilation, conv.stride, strict=True
        )
    ]
    neurons = len(conv.weight) * int(np.prod(positions))
    layers = (
        Layer(name="map", neuron=IF()),
        Layer(name="mapflat", synapse=Flatten()),
        Layer(name="few", synapse=Dense(weight=np.ones((dense_inputs, int(np.prod(shape))))), neuron=IF()),
        Layer(name="conv", synapse=conv),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="dense", synapse=Dense(weight=np.ones((neurons, dense_inputs)))),
        Layer(name="row", neuron=IF()),
    )
    pairs = (INPUT, "map"), ("map", "mapflat"), ("mapflat", "few"), ("map", "conv"), ("conv", "flat"), ("few", "dense")
    edges = tuple(Edge(source=source, target=target) for source, target in (*pairs, ("flat", "row"), ("dense", "row")))
    return SNNGraph(layers=layers, edges=edges, input_shape=shape, output="row")


def draw_row(rng: np.random.Generator) -> SNNGraph:
    groups, channels, rank = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    size = tuple(map(int, rng.integers(2, 4, rank)))
    weight = rng.uniform(0.5, 1, (groups * int(rng.integers(1, 3)), channels, *size))
    if rng.random() < 0.5:
        weight[rng.random(weight.shape) < 0.4] = 0
        weight.flat[0] = 1.0
    kind: Any = Conv1d if rank == 1 else Conv2d
    draw = [tuple(map(int, rng.integers(*ends, rank))) for ends in ((1, 3), (0, 2), (1, 3))]
    conv = kind(weight=weight, groups=groups, stride=draw[0], padding=draw[1], dilation=draw[2])
    length = 40 if rank == 1 else 12
    return row_of_a_map(conv, (groups * channels, *[length] * rank), dense_inputs=int(rng.integers(1, 5)))


def chip(rng: np.random.Generator, base: str) -> Any:
    values: dict[str, Any] = {"core__neurons": int(rng.integers(8, 60))}
    if base in ("truenorth", "odin", "brainscales2"):
        values["core__axons_in"] = int(rng.integers(20, 120))
    if base == "catalyst_n1":
        values["core__synapse_memory"] = int(rng.integers(100, 1000))
    return small_chip(base, **values)


@pytest.mark.parametrize("base", ["truenorth", "odin", "brainscales2", "spinnaker1", "catalyst_n1"])
@pytest.mark.parametrize("seed", seeds(6, 12))
def test_neurons_of_a_map_in_a_row_need_what_their_places_read(base: str, seed: int) -> None:
    """Those at the border of the map read less: the needs of the first of equal pieces are not those of all."""
    rng = np.random.default_rng(seed)
    net, profile = draw_row(rng), chip(rng, base)
    placement, few = place(net, profile), len(net["few"].synapse.weight)
    exists = matrix_onto(net, "map", "flat")
    weight = net["conv"].synapse.weight
    stored = matrix_onto(net.with_layers({"conv": _fill(net)}), "map", "flat") if (weight == 0).any() else exists
    for part in placement.slices_of("row"):
        here = slice(*part.box[0])
        is_crossbar = base in ("truenorth", "odin", "brainscales2")
        axons = few + int((exists if is_crossbar else stored)[here].any(axis=0).sum())
        words = {"spinnaker1": 3 * axons + stored[here].sum(), "catalyst_n1": exists[here].sum()}
        words = {name: int(n + part.neurons * few) for name, n in words.items()}
        assert part.axons_in == axons and part.memory_words == words.get(base, axons * part.neurons)
        limits = profile.core_limits(None)
        one = max(few + int(row.sum()) for row in exists)
        if is_crossbar:
            assert part.axons_in <= max(limits["axons_in"].max_value or 0, one)


def _fill(net: SNNGraph) -> Layer:
    layer: Any = net["conv"]
    values = {**vars(layer.synapse), "weight": np.ones_like(layer.synapse.weight)}
    return Layer(name="conv", synapse=type(layer.synapse)(**values))


def count_list_words(targets: int, base: str, bits: int = 8) -> int:
    """Return the words of a list: on Loihi 1 without an index in blocks of 64, on Loihi 2 with one of 12 bits."""
    if base == "loihi2":
        return ceil(((bits + 12) * targets + 10) / 64)
    return sum(ceil((bits * min(64, targets - start) + 10) / 64) for start in range(0, targets, 64))


@pytest.mark.parametrize("base", ["loihi1", "loihi2"])
@pytest.mark.parametrize("seed", range(8))
def test_lists_onto_neurons_in_a_row_are_those_of_their_axons(seed: int, base: str) -> None:
    """A source neuron that reaches no neuron of a core has neither an axon nor a list there; that of the map waits a step."""
    rng = np.random.default_rng(seed)
    net = draw_row(rng)
    values: Any = {"weight": np.ones_like(net["conv"].synapse.weight)}  # type: ignore[union-attr]
    net = net.with_layers({"conv": replace(net["conv"], synapse=replace(net["conv"].synapse, **values))})  # type: ignore[type-var]
    placement, few = place(net, chip(rng, base)), len(net["few"].synapse.weight)  # type: ignore[union-attr]
    reads = matrix_onto(net, "map", "flat")
    for part in placement.slices_of("row"):
        axons = int(reads[slice(*part.box[0])].any(axis=0).sum())
        words = axons * count_list_words(part.neurons, base, 8 + 1) + few * count_list_words(part.neurons, base)
        assert (part.axons_in, part.memory_words) == (few + axons, words)


@pytest.mark.parametrize("base", ["loihi1", "loihi2"])
@pytest.mark.parametrize("seed", range(4))
def test_every_way_onto_neurons_in_a_row_has_its_own_lists(seed: int, base: str) -> None:
    """A second convolution of the same map, its spikes a step later: counted synapse by synapse, weights of 0 too."""
    rng = np.random.default_rng(seed)
    net = draw_row(rng)
    again = [replace(net["conv"], name="again"), replace(net["flat"], name="againflat")]
    more = ("map", "again", 1 + seed % 3), ("again", "againflat", 0), ("againflat", "row", 0)
    edges = [*net.edges, *(Edge(source=source, target=target, delay=delay) for source, target, delay in more)]
    net = replace(net, layers=(*net.layers[:-1], *again, net.layers[-1]), edges=tuple(edges))
    values = {"core__neurons": int(rng.integers(3, 30)), "core__synapse_memory": int(rng.integers(100, 600))}
    placement, ways = place(net, small_chip(base, **values)), find_ways(net, "row")
    assert len(placement.slices_of("row")) > 1 and len(ways) == 3
    for part in placement.slices_of("row"):
        axons = [int(way.stored[slice(*part.box[0])].any(axis=0).sum()) for way in ways]
        bits = [8 + int(way.delays[0]).bit_length() for way in ways]
        words = sum(n * count_list_words(part.neurons, base, b) for n, b in zip(axons, bits, strict=True))
        assert (part.axons_in, part.memory_words) == (sum(axons), words)


@pytest.mark.parametrize("base", ["loihi1", "loihi2"])
def test_weights_one_to_one_onto_neurons_in_a_row_have_a_list_of_one_target_each(base: str) -> None:
    """Each of 2 x 4 x 4 neurons has a weight onto the one at its place, beside dense weights of 3: 8 cores of 4."""
    layers = (
        Layer(name="map", neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="few", synapse=Dense(weight=np.ones((3, 32))), neuron=IF()),
        Layer(name="dense", synapse=Dense(weight=np.ones((32, 3)))),
        Layer(name="each", synapse=Scale(weight=np.arange(1.0, 33).reshape(2, 4, 4))),
        Layer(name="all", synapse=Flatten()),
        Layer(name="row", neuron=IF()),
    )
    line = (INPUT, "map"), ("map", "flat"), ("flat", "few"), ("few", "dense"), ("dense", "row")
    pairs = *line, ("map", "each"), ("each", "all"), ("all", "row")
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    net = SNNGraph(layers=layers, edges=edges, input_shape=(2, 4, 4), output="row")
    parts = place(net, small_chip(base, core__neurons=8, core__synapse_memory=10**6)).slices_of("row")
    words = 3 * count_list_words(8, base) + 8 * count_list_words(1, base, 8 + 1)
    assert [(part.axons_in, part.memory_words) for part in parts] == [(3 + 8, words)] * 4


def test_shares_of_loihi_2_are_divided_by_the_words_of_the_fullest() -> None:
    """Of 24 positions those at the ends read 2 to 4 of 24 pixels, those in the middle 5; 8 neurons need 10 or 12 lists."""
    net = row_of_a_map(Conv1d(weight=np.ones((1, 1, 5)), padding=(2,)), (1, 24), dense_inputs=1)
    words = 12 * count_list_words(8, "loihi2", 8 + 1) + count_list_words(8, "loihi2")
    for memory, shares in ((words, [8, 8, 8]), (words - 1, [4] * 6)):
        parts = place(net, small_chip("loihi2", core__neurons=8, core__synapse_memory=memory)).slices_of("row")
        assert [part.neurons for part in parts] == shares and all(part.memory_words <= memory for part in parts)


@pytest.mark.parametrize("center", [1.0, 0.0])
def test_a_core_without_room_for_neurons_in_the_middle_of_a_map_is_cut_further(center: float) -> None:
    """The first five of 12 rows of a map read six rows of the map in front, five in the middle read seven."""
    weight = np.ones((1, 4, 3, 3))
    weight[0, 0, 1, 1] = center  # 0 leaves each source some other weight
    net = row_of_a_map(Conv2d(weight=weight, padding=(1, 1)), (4, 12, 12))
    placement, reads = place(net, load_profile("truenorth")), matrix_onto(net, "map", "flat")
    rows = [int(reads[slice(*part.box[0])].any(axis=0).sum()) + 4 for part in placement.slices_of("row")]
    assert [part.axons_in for part in placement.slices_of("row")] == rows and max(rows) <= 256
    over = [row.where for row in check(net, load_profile("truenorth"), remedies=False).over if row.resource == "axons_in"]
    assert over == ["few"]  # which reads all 576


def test_pieces_of_a_row_with_as_many_sources_share_those_alone_that_both_read() -> None:
    net = row_of_a_map(Conv1d(weight=np.ones((1, 1, 3))), (1, 22))
    row = next(p for p in find_populations(net) if p.name == "row")
    conv = next(p for p in row.projections if p.kind == "conv")
    core = Core(load_profile("truenorth"), {})
    sets = [core.find_axon_set(conv, (piece,)) for piece in ((0, 5), (5, 10), (10, 15))]
    assert [axons.count for axons in sets] == [7, 7, 7]
    assert count_union(sets[:2]) == 12 and count_union(sets[::2]) == 14 and count_union([sets[0], sets[0]]) == 7


def test_groups_that_a_share_in_the_middle_reads_more_of_are_measured() -> None:
    """Seven groups of 10 channels to 3: of shares of 5 the first reads two groups, the second three."""
    net = row_of_a_map(Conv1d(weight=np.ones((21, 10, 1)), groups=7), (70, 1))
    placement = place(net, small_chip("truenorth", core__axons_in=25, core__neurons=5))
    parts = placement.slices_of("row")
    assert [part.box for part in parts] == [((n, min(n + 4, 21)),) for n in range(0, 21, 4)]
    assert [part.axons_in for part in parts] == [24] * 5 + [14]


def test_shares_of_two_groups_do_not_read_both() -> None:
    """Two groups of 10 channels to 9, of which a core with 19 rows reads one beside 4 others: shares of 5 would cross them."""
    net = row_of_a_map(Conv1d(weight=np.ones((18, 10, 1)), groups=2), (20, 1))
    parts = place(net, small_chip("truenorth", core__axons_in=19, core__neurons=5)).slices_of("row")
    assert [(part.neurons, part.axons_in) for part in parts] == [(3, 14)] * 6


def axons_out(net: SNNGraph, name: str, **values: Any) -> list[int]:
    return [part.axons_out for part in place(net, small_chip("loihi1", **values)).slices_of(name)]


def test_a_neuron_of_loihi_1_has_an_axon_to_each_core_that_holds_one_of_its_targets() -> None:
    """Of weights one to one each neuron has one target, on one of the cores of the layer behind, however many there are."""
    line = [Layer(name="a", synapse=Dense(weight=np.ones((30, 5))), neuron=IF())]
    line.append(Layer(name="b", synapse=Scale(weight=np.arange(1.0, 31)), neuron=IF()))
    assert axons_out(chain(line, input_shape=(5,)), "a", core__neurons=10) == [10, 10, 10]
    layers = [Layer(name="a", synapse=Conv2d(weight=np.ones((2, 1, 1, 1))), neuron=IF())]
    layers.append(Layer(name="b", synapse=Scale(weight=np.arange(1.0, 73).reshape(2, 6, 6)), neuron=IF()))
    assert sum(axons_out(chain(layers, input_shape=(1, 6, 6)), "a", core__neurons=16)) == 72


def test_a_map_whose_targets_stand_in_a_row_has_axons_to_the_cores_of_the_row_and_to_no_more_than_its_targets() -> None:
    """A kernel of 3 from one channel to 2 meets 6 of 36 neurons, on 6 of 12 cores or on 2; `few` is on one more."""
    net = row_of_a_map(Conv1d(weight=np.ones((2, 1, 3))), (1, 20), dense_inputs=4)
    populations = find_populations(net)
    core, targets = Core(load_profile("loihi1"), {}), group_targets_by_source(populations)
    for size, cores in ((3, 6), (18, 2)):
        row = tuple((start, start + size) for start in range(0, 36, size))
        cuts = {"map": (((0, 1),), ((0, 20),)), "few": (((0, 4),),), "row": (row,)}
        assert core.count_axons_from(populations[0], cuts, targets).tolist() == [[20 * cores + 20]]


@pytest.mark.parametrize("size", [5, 4])
def test_a_position_outside_all_windows_of_a_pool_has_no_axon_to_dense_targets(size: int) -> None:
    """Pools of 2 x 2 read 4 x 4 positions of 5 x 5, as of 4 x 4; 250 dense neurons stand on 3 cores."""
    layers = [
        Layer(name="a", synapse=Conv2d(weight=np.ones((4, 1, 1, 1))), neuron=IF()),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="b", synapse=Dense(weight=np.ones((250, 16))), neuron=IF()),
    ]
    assert axons_out(chain(layers, input_shape=(1, size, size)), "a", core__neurons=100) == [4 * 4 * 4 * 3]


@pytest.mark.parametrize("full", [1, 5])
def test_one_neuron_that_needs_more_rows_than_a_core_has_does_not_cut_the_map_into_single_neurons(full: int) -> None:
    """One of five channels, or each, reads 9 pixels: a core of 4 rows is too full with it, and takes a position of all."""
    weight = np.zeros((5, 1, 3, 3))
    weight[:, 0, 1, 1] = 1.0
    weight[1 if full == 1 else slice(None)] = 1.0
    net = chain([Layer(name="c", synapse=Conv2d(weight=weight), neuron=IF())], input_shape=(1, 6, 6))
    placement = place(net, small_chip("odin", core__axons_in=4))
    assert [(part.neurons, part.axons_in) for part in placement.slices] == [(5, 9)] * 16


def test_channels_of_a_group_on_two_cores_read_the_same_sources() -> None:
    """Two groups of 2 channels, each of which reads 2 of 4 channels at 5 positions: 10 axons, and 20 of both."""
    net = chain([Layer(name="c", synapse=Conv1d(weight=np.ones((4, 2, 1)), groups=2), neuron=IF())], input_shape=(4, 5))
    ((projection,),) = (population.projections for population in find_populations(net))
    core = Core(load_profile("truenorth"), {})
    sets = {box: core.find_axon_set(projection, (box, (0, 5))) for box in ((0, 1), (0, 2), (2, 3), (3, 4), (2, 4))}
    assert {axons.count for axons in sets.values()} == {10}
    for pair, rows in ((((0, 1), (2, 3)), 20), (((2, 3), (3, 4)), 10), (((0, 2), (3, 4)), 20), (((0, 2), (2, 4)), 20)):
        assert count_union([sets[box] for box in pair]) == rows


def test_sets_of_sources_that_zeros_leave_out_begin_at_the_first_channel() -> None:
    """The first neuron reads channels 0 and 1 of three, the second 0 and 2, each at 4 positions: 12 axons of both."""
    weight = np.array([[1.0, 1, 0], [1, 0, 1]])[:, :, None]
    net = chain([Layer(name="c", synapse=Conv1d(weight=weight), neuron=IF())], input_shape=(3, 4))
    ((projection,),) = (population.projections for population in find_populations(net, zeros=True))
    core = Core(load_profile("truenorth"), {})
    first, second = (core.find_axon_set(projection, ((n, n + 1), (0, 4))) for n in range(2))
    assert (first.count, second.count, count_union([first, second])) == (8, 8, 12)


def read_twice(conv: Conv1d, dense: np.ndarray, shape: tuple[int, ...]) -> SNNGraph:
    """A map that a convolution and dense weights read."""
    layers = (
        Layer(name="map", neuron=IF()),
        Layer(name="conv", synapse=conv, neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="dense", synapse=Dense(weight=dense), neuron=IF()),
    )
    pairs = (INPUT, "map"), ("map", "conv"), ("map", "flat"), ("flat", "dense")
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=shape, output="dense")


def test_a_convolution_and_dense_weights_with_zeros_share_the_rows_of_a_map() -> None:
    """20 inputs, and 20 neurons of 2 maps that both layers read: 40 rows of a core, of which neither layer reads all."""
    conv = Conv1d(weight=np.array([[[1.0], [0]], [[1.0], [0]], [[1.0], [1]]]))
    dense = np.ones((4, 20))
    dense[:, 5:] = 0
    net = read_twice(conv, dense, (2, 10))
    assert [check(net, small_chip("odin", core__axons_in=rows), remedies=False).cores_used for rows in (40, 39)] == [1, 2]


def test_a_map_of_one_position_has_the_rows_of_a_list() -> None:
    """60 inputs, 60 neurons that two layers read, one of them through a convolution, and 4 neurons: 124 rows of a core."""
    net = row_of_a_map(Conv1d(weight=np.ones((10, 60, 1))), (60, 1))
    assert [check(net, small_chip("odin", core__axons_in=rows), remedies=False).cores_used for rows in (124, 123)] == [1, 2]


def test_the_sources_of_a_map_of_one_position_are_those_of_a_list() -> None:
    """`few` reads them through dense weights, `row` through a convolution: one set of 60 rows."""
    net = row_of_a_map(Conv1d(weight=np.ones((10, 60, 1))), (60, 1))
    core, populations = Core(load_profile("odin"), {}), find_populations(net)
    ways = [(p, population) for population in populations for p in population.projections if p.sources[0].name == "map"]
    sets = [core.find_axon_set(p, tuple((0, n) for n in population.shape)) for p, population in ways]
    assert [axons.count for axons in sets] == [60, 60] and sets[0] == sets[1]


@pytest.mark.parametrize(
    ("chip", "delay", "rows"), [("truenorth", 1, 10), ("truenorth", 3, 15), ("odin", 0, 10), ("odin", 3, 15)]
)
def test_layers_that_take_spikes_in_other_steps_share_no_rows(chip: str, delay: int, rows: int) -> None:
    """5 inputs, and 5 neurons that `a` and `b` read: a row of a neuron has one delay. TrueNorth's layers take a step each."""
    layers = (
        Layer(name="x", synapse=Dense(weight=np.ones((5, 5))), neuron=IF()),
        Layer(name="a", synapse=Dense(weight=np.ones((3, 5))), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=np.ones((4, 5))), neuron=IF()),
    )
    edges = (Edge(source=INPUT, target="x"), Edge(source="x", target="a"), Edge(source="x", target="b", delay=delay))
    net = SNNGraph(layers=layers, edges=edges, input_shape=(5,), output="b")
    placement = place(net, load_profile(chip))
    assert [use.amounts["axons_in"] for use in measure_core_use(placement)] == [rows]
    assert [place(net, small_chip(chip, core__axons_in=limit)).cores_used for limit in (rows, rows - 1)] == [1, 2]


@pytest.mark.parametrize(("delay", "ways"), [(0, [0, 1]), (2, [0, 0])])
def test_the_ways_from_one_source_are_numbered_by_delay(delay: int, ways: list[int]) -> None:
    layers = [Layer(name=name, synapse=Dense(weight=np.ones((3, 5)))) for name in ("p", "q")]
    edges = [Edge(source=INPUT, target="p"), Edge(source=INPUT, target="q", delay=delay)]
    edges += [Edge(source=name, target="n") for name in ("p", "q")]
    net = SNNGraph(layers=[*layers, Layer(name="n", neuron=IF())], edges=edges, input_shape=(5,), output="n")
    (item,) = place(net, load_profile("truenorth")).items
    assert [axons.way for axons in item.axons] == ways and item.amount("axons_in") == 10
    assert len({axons.row for axons in item.axons}) == 2


def test_pieces_inside_a_map_with_zeros_are_one_kind() -> None:
    """Of five pieces of a line of 20 the first and the last lie at a border."""
    net = chain(
        [Layer(name="c", synapse=Conv1d(weight=np.array([[[1.0, 0, 1]]]), padding=(1,)), neuron=IF())], input_shape=(1, 20)
    )
    (population,) = find_populations(net, zeros=True)
    along = tuple((n, n + 4) for n in range(0, 20, 4))
    found = list(Core(small_chip("truenorth"), {}).iterate_distinct_boxes(population, (((0, 1),), along)))
    assert sorted(box[1] for box in found) == [(0, 4), (4, 8), (16, 20)]


def test_dense_neurons_need_the_same_at_every_place() -> None:
    (population,) = find_populations(
        chain([Layer(name="d", synapse=Dense(weight=np.ones((6, 4))), neuron=IF())], input_shape=(4,))
    )
    assert not Core(small_chip("truenorth"), {}).differs_by_place(population)
    assert Core(small_chip("odin"), {}).find_delay(population.projections[0]) == 0


def test_sources_that_are_all_read_are_not_listed_one_by_one() -> None:
    """A weight of 0 that leaves each of four inputs another one: the set is that of the whole layer, as without zeros."""
    weight = np.ones((2, 4))
    weight[0, 0] = 0
    sets = []
    for of in (weight, np.ones((2, 4))):
        net = chain([Layer(name="d", synapse=Dense(weight=of), neuron=IF())], input_shape=(4,))
        ((projection,),) = (population.projections for population in find_populations(net, zeros=True))
        core = Core(small_chip("truenorth"), {})
        sets.append(core.find_axon_set(projection, ((0, 2),)))
        few = core.find_axon_set(projection, ((0, 1),))
        assert few.whole == sets[-1]
    assert sets[0] == sets[1] and not sets[0].used


@pytest.mark.parametrize("chip", ["truenorth", "odin", "reckon", "brainscales2"])
@pytest.mark.parametrize("seed", range(4))
def test_limits_are_raised_to_what_any_neuron_of_lists_with_zeros_needs(seed: int, chip: str) -> None:
    """Two ways, one of them behind a pool with some seeds: neurons that read as many sources as others are not measured again."""
    rng, pools = np.random.default_rng(seed), seed % 2
    weights = [np.where(rng.random((9, n)) < 0.4, 1.0, 0.0) for n in (6 if pools else 12, 12)]
    layers = [
        Layer(name="pool", synapse=SumPool(kernel_size=(2,), stride=(2,))), Layer(name="flat", synapse=Flatten()),
        Layer(name="near", synapse=Dense(weight=weights[0])),
        Layer(name="whole", synapse=Flatten()), Layer(name="far", synapse=Dense(weight=weights[1])),
        Layer(name="out", neuron=IF()),
    ]  # fmt: skip
    pairs = [(INPUT, "pool"), ("pool", "flat"), ("flat", "near"), ("near", "out")]
    if not pools:
        layers[:2], pairs[:3] = layers[1:2], [(INPUT, "flat"), ("flat", "near")]
    edges = [Edge(source=a, target=b) for a, b in (*pairs, (INPUT, "whole"), ("whole", "far"), ("far", "out"))]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(3, 4), output="out")
    profile = load_profile(chip)
    (population,) = find_chip_populations(graph, profile)
    core = Core(profile, {"near": 2, "far": 2})
    for name in BOX_RESOURCES:
        core.limits[name] = 1
    needs = [core.count_needs(population, ((n, n + 1),)) for n in range(9)]
    assert core.relax_limits(population) == {name: max(1, *(need[name] or 0 for need in needs)) for name in BOX_RESOURCES}
