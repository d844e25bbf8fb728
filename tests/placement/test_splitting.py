"""Cuts of layers against slow loops, and where no cut helps."""

from __future__ import annotations

from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Layer, Scale
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.placement import splitting
from spear_deploy.placement.axes import count_inputs
from spear_deploy.placement.core_needs import Core, group_targets_by_source
from spear_deploy.placement.place import place
from spear_deploy.placement.populations import Population, find_populations
from spear_deploy.placement.splitting import (
    SplitNetwork,
    _find_share,
    _fullest_tile,
    _largest_tile,
    _order_axes,
    _part_sizes,
    _refine_tile,
    find_largest,
    refine_for_axons_out,
    split_by_neurons,
    split_population,
)
from tests.support.chips import dense_net, small_chip


def map_layer(channels: int, positions: tuple[int, int], kernel: int = 1, **geometry: Any) -> SNNGraph:
    weight = np.ones((channels, 1, kernel, kernel), np.float32)
    return chain([Layer(name="map", synapse=Conv2d(weight=weight, **geometry), neuron=IF())], input_shape=(1, *positions))


def first_population(net: SNNGraph) -> Population:
    return find_populations(net)[0]


def boxes(cuts: Any) -> list[tuple[tuple[int, int], ...]]:
    return list(product(*cuts))


def size(box: Any) -> int:
    return prod(stop - start for start, stop in box)


def test_the_largest_that_fits_is_that_of_a_search_one_by_one() -> None:
    for limit in range(6):
        for fitting in range(8):
            numbers = [n for n in range(1, limit + 1) if n <= fitting]
            assert find_largest(limit, lambda n, fitting=fitting: n <= fitting) == (max(numbers) if numbers else None)  # type: ignore[misc]


def test_sizes_of_parts_are_those_of_every_number_of_parts() -> None:
    for n in range(1, 40):
        assert set(_part_sizes(n)) == {size for size in range(1, n + 1) if any(-(-n // k) == size for k in range(1, n + 1))}


def test_axes_are_cut_from_the_longest_on_and_the_channels_of_a_map_last() -> None:
    assert _order_axes((8, 3, 5), is_map=True) == [2, 1, 0]
    assert _order_axes((8, 5, 5), is_map=True) == [1, 2, 0]
    assert _order_axes((8, 1, 1), is_map=True) == [0]
    assert _order_axes((3, 8, 1), is_map=False) == [1, 0]
    assert _order_axes((1, 1), is_map=True) == []


def test_a_layer_is_halved_along_its_longest_axis_until_few_neurons_are_left() -> None:
    cuts = split_by_neurons(first_population(dense_net(3, 16)), 4)
    assert cuts == (((0, 4), (4, 8), (8, 12), (12, 16)),)
    assert split_by_neurons(first_population(dense_net(3, 16)), 16) == (((0, 16),),)
    assert max(map(size, boxes(split_by_neurons(first_population(map_layer(3, (10, 6))), 20)))) == 18


@pytest.mark.parametrize(
    ("extent", "limit", "expected"),
    [
        ((4, 8, 2), 16, (4, 2, 2)),
        ((4, 2, 8), 16, (4, 2, 2)),
        ((4, 4, 4), 64, (4, 4, 4)),
        ((4, 4, 4), 4, (4, 1, 1)),
        ((4, 4, 4), 2, (2, 1, 1)),
        ((4, 4, 4), 0, (1, 1, 1)),
    ],
)
def test_a_tile_is_halved_until_each_of_its_boxes_fits(extent: tuple[int, ...], limit: int, expected: tuple[int, ...]) -> None:
    population = first_population(map_layer(extent[0], (8, 8)))
    core = Core(small_chip("loihi1"), {})
    assert not core.has_uniform_tiles
    cuts = _refine_tile(population, core, lambda box: size(box) <= limit, extent)
    assert tuple(along[0][1] for along in cuts) == expected


def test_tiles_of_a_chip_that_counts_no_borders_are_measured_once() -> None:
    population, core = first_population(map_layer(4, (8, 8))), Core(small_chip("loihi2"), {})
    cuts = _refine_tile(population, core, lambda box: False, (4, 4, 4))
    assert core.has_uniform_tiles and tuple(along[0][1] for along in cuts) == (4, 4, 4)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_the_fullest_tile_reads_as_many_inputs_as_any_inside_the_map(padding: tuple[int, int], stride: tuple[int, int]) -> None:
    net = map_layer(2, (9, 8), kernel=3, padding=padding, stride=stride)
    population = first_population(net)
    axes = population.projections[0].axes
    core = Core(small_chip("loihi1"), {})
    for extent in product(range(1, 5), range(1, 5)):
        tile = _fullest_tile(population, core, extent)
        for axis, n, step, piece in zip(axes, population.shape[1:], extent, tile, strict=True):
            pieces = [(a, min(a + step, n)) for a in range(0, n, step)]
            assert piece in pieces and count_inputs(axis, *piece) == max(count_inputs(axis, *each) for each in pieces)


def test_neurons_of_which_no_two_fit_lie_alone() -> None:
    population, core = first_population(dense_net(3, 6)), Core(small_chip("loihi1"), {})
    assert [_find_share(population, core, lambda box, n=n: size(box) <= n, (), 6) for n in (0, 1, 2, 3)] == [1, 1, 2, 3]


def test_a_network_of_too_many_parts_is_cut_by_its_neurons_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 neurons in at most 4 parts: 26 at most, by halves 14 of 54 and 23 of 46, each once, whatever cores they lead to."""
    monkeypatch.setattr(splitting, "MAX_BOXES", 4)
    chip = small_chip("truenorth", core__neurons=10, chip__usable_cores=1)
    split = SplitNetwork(find_populations(dense_net(5, 54, 46)), [Core(chip, {})], "vendor", {}, 1)
    assert {name: max(map(size, boxes(cuts))) for name, cuts in split.cuts.items()} == {"fc1": 14, "fc2": 23}
    assert split.copies == {"fc1": 1, "fc2": 1} and split.total_boxes > 4 and split._is_in_order


@pytest.mark.parametrize("in_row", [False, True])
def test_every_part_of_a_map_has_the_axons_of_its_place(in_row: bool) -> None:
    """Parts along both axes of a map read other pixels, those of its neurons in a row too."""
    conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 3, 3)), padding=(1, 1)), neuron=None if in_row else IF())
    layers, edges = [conv], [Edge(source=INPUT, target="conv")]
    if in_row:
        layers += [
            Layer(name="flat", synapse=Flatten()),
            Layer(name="few", synapse=Flatten()),
            Layer(name="dense", synapse=Dense(weight=np.ones((72, 36)))),
        ]
        layers.append(Layer(name="row", neuron=IF()))
        pairs = ("conv", "flat"), (INPUT, "few"), ("few", "dense"), ("flat", "row"), ("dense", "row")
        edges += [Edge(source=source, target=target) for source, target in pairs]
    net = SNNGraph(layers=layers, edges=edges, input_shape=(1, 6, 6), output=layers[-1].name)
    core = Core(small_chip("truenorth", core__neurons=9), {})
    split = SplitNetwork(find_populations(net), [core], "vendor", {}, 1)
    assert len(split.items) == 8 and len({item.axons for item in split.items}) == 4
    for (population, box), item in zip(split.boxes, split.items, strict=True):
        sets = [core.find_axon_set(p, box, axons.way) for p, axons in zip(population.projections, item.axons, strict=True)]
        assert item.axons == tuple(sets)


def test_a_map_of_which_not_one_neuron_fits_is_cut_into_its_neurons() -> None:
    population = first_population(map_layer(2, (3, 3), kernel=3, padding=(1, 1)))
    assert _largest_tile(population, Core(small_chip("loihi1"), {}), lambda box: False, 100) == (1, 1, 1)


def test_weights_one_a_neuron_are_cut_along_channels_and_positions() -> None:
    net = chain([Layer(name="s", synapse=Scale(weight=np.ones((3, 4, 4))), neuron=IF())], input_shape=(3, 4, 4))
    cuts = split_population(first_population(net), Core(small_chip("loihi1", core__neurons=8), {}), "vendor")
    assert len(boxes(cuts)) == 6 and max(map(size, boxes(cuts))) == 8


@pytest.mark.parametrize(("limit", "most"), [(100, 32), (31, 16), (8, 8), (4, 4), (1, 4)])
def test_output_axons_are_cut_along_every_axis_that_makes_them_fewer(limit: int, most: int) -> None:
    """Of four columns the layer behind reads two, which lie in one half: there rows are cut, though they are shorter."""
    layers = [
        Layer(name="map", synapse=Conv2d(weight=np.ones((2, 1, 1, 1))), neuron=IF()),
        Layer(name="next", synapse=Conv2d(weight=np.ones((2, 2, 1, 2)), stride=(1, 4)), neuron=IF()),
    ]
    placed = place(chain(layers, input_shape=(1, 4, 8)), small_chip("loihi1", core__axons_out=limit))
    assert max(part.axons_out for part in placed.slices_of("map")) == most


def test_a_cut_that_leaves_the_axons_as_many_as_they_were_is_not_made() -> None:
    """The row of pixels that `next` reads has one axon each to its one core, however the other rows are cut."""
    layers = [
        Layer(name="map", synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=IF()),
        Layer(name="next", synapse=Conv2d(weight=np.ones((1, 1, 1, 1)), stride=(8, 1)), neuron=IF()),
    ]
    populations = find_populations(chain(layers, input_shape=(1, 8, 1)))
    core, targets = Core(small_chip("loihi1", core__axons_out=1), {}), group_targets_by_source(populations)
    cuts = {p.name: tuple(((0, n),) for n in p.shape) for p in populations}
    assert core.count_max_axons_from(populations[0], cuts, targets) > 1
    assert refine_for_axons_out(populations[0], core, cuts, targets) == cuts["map"]


def test_orders_of_first_fit_are_that_of_the_layers_and_by_the_share_of_a_core() -> None:
    net = dense_net(4, 10, 60, 30, 60)
    split = SplitNetwork(find_populations(net), [Core(small_chip("loihi1", core__neurons=100), {})], "vendor", {}, 1)
    assert [item.layer for item in split.items] == ["fc1", "fc2", "fc3", "fc4"]
    assert split.list_orders() == [[0, 1, 2, 3], [1, 3, 2, 0]]


@pytest.mark.parametrize("names", list(permutations("abc")))
def test_names_of_layers_do_not_decide_which_ways_share_rows(names: tuple[str, ...]) -> None:
    """Two ways from 40 neurons, one of which leaves some unread, into neurons beside others that read all 40.

    The way that reads all shares its 40 rows with the others: 40 from the input, 40, and 30 of the second way.
    """
    whole, part = np.ones((6, 40)), np.ones((6, 40))
    part[:, 30:] = 0
    first, *ways = names
    layers = [Layer(name="source", synapse=Dense(weight=np.ones((40, 40))), neuron=IF())]
    layers += [Layer(name=first, synapse=Dense(weight=np.ones((5, 40))), neuron=IF())]
    layers += [Layer(name=n, synapse=Dense(weight=w)) for n, w in zip(ways, (whole, part), strict=True)]
    layers.append(Layer(name="end", neuron=IF()))
    ends = [(INPUT, "source"), *(("source", name) for name in names), *((name, "end") for name in ways)]
    net = SNNGraph(layers=layers, edges=[Edge(source=a, target=b) for a, b in ends], input_shape=(40,), output="end")
    odin = override_facts(load_profile("odin"), {"core.axons_in": 110})
    few = override_facts(odin, {"core.axons_in": 109})
    assert [check(net, chip, remedies=False).cores_used for chip in (odin, few)] == [1, 2]


def grouped(groups: int, outputs: int, inputs: int) -> SNNGraph:
    """Groups of channels of one position, of which one weight is 0: all channels of a group are read even so."""
    weight = np.ones((groups * outputs, inputs, 1))
    weight[0, 0] = 0
    return chain([Layer(name="c", synapse=Conv1d(weight=weight, groups=groups), neuron=IF())], input_shape=(groups * inputs, 1))


@pytest.mark.parametrize(
    ("groups", "outputs", "limits", "size", "axons"),
    [
        (7, 3, (25, 5), 4, [20, 20, 20, 20, 20, 10]),  # the second five would read three groups
        (2, 10, (15, 8), 5, [10] * 4),  # of sixes the second would read both groups
        (5, 3, (25, 6), 4, [20, 20, 20, 10]),  # sixes fit, but in three equal parts of 5 the second reads three groups
    ],
)
def test_equal_shares_of_groups_with_zeros_are_as_large_as_the_fullest_allows(
    groups: int, outputs: int, limits: tuple[int, int], size: int, axons: list[int]
) -> None:
    """Each group reads 10 channels; a core has so many axons and neurons."""
    chip = small_chip("truenorth", core__axons_in=limits[0], core__neurons=limits[1])
    parts = place(grouped(groups, outputs, 10), chip).slices
    total = groups * outputs
    assert [part.box[0] for part in parts] == [(n, min(n + size, total)) for n in range(0, total, size)]
    assert [part.axons_in for part in parts] == axons


def test_a_map_in_a_row_with_a_zero_is_cut_by_its_middle_not_by_its_border() -> None:
    """A kernel of 5 of 40 pixels, padded by 2: 6 neurons read 8 at the border and 10 inside, where a core has 8 and 2 rows."""
    weight = np.ones((1, 1, 5))
    weight[0, 0, 1] = 0  # other neurons read the pixel
    layers = (
        Layer(name="conv", synapse=Conv1d(weight=weight, padding=(2,))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="dense", synapse=Dense(weight=np.ones((40, 2)))),
        Layer(name="few", synapse=Dense(weight=np.ones((2, 40))), neuron=IF()),
        Layer(name="all", synapse=Flatten()),
        Layer(name="row", neuron=IF()),
    )
    pairs = (INPUT, "conv"), ("conv", "flat"), (INPUT, "all"), ("all", "few"), ("few", "dense"), ("flat", "row"), ("dense", "row")
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    net = SNNGraph(layers=layers, edges=edges, input_shape=(1, 40), output="row")
    row = next(population for population in find_populations(net, zeros=True) if population.name == "row")
    core = Core(small_chip("odin", core__axons_in=10), {})
    assert split_population(row, core, "vendor") == (tuple((n, n + 4) for n in range(0, 40, 4)),)
    assert [core.count_axons_into(row, (piece,)) for piece in ((0, 6), (6, 12), (4, 8))] == [10, 12, 10]


def test_parts_of_a_layer_that_read_other_inputs_share_the_rows_that_each_reads() -> None:
    """Of 20 inputs the first six neurons of `a` and those of `b` read ten, the other six and those of `c` the other ten.

    A core of 10 neurons and 12 rows holds two parts of `a`, three neurons each, and the four that read the same.
    """
    first, second = np.repeat([[1.0, 0]], 10, axis=1), np.repeat([[0, 1.0]], 10, axis=1)
    weights = {
        "a": np.concatenate([np.tile(first, (6, 1)), np.tile(second, (6, 1))]),
        "b": np.tile(first, (4, 1)),
        "c": np.tile(second, (4, 1)),
    }
    layers = [Layer(name=name, synapse=Dense(weight=weight), neuron=IF()) for name, weight in weights.items()]
    net = SNNGraph(layers=layers, edges=[Edge(source=INPUT, target=name) for name in "abc"], input_shape=(20,), output="c")
    placement = place(net, small_chip("odin", core__neurons=10, core__axons_in=12))
    assert [(part.layer, part.core) for part in placement.slices] == [
        ("a", 0), ("a", 0), ("a", 1), ("a", 1), ("b", 0), ("c", 1),
    ]  # fmt: skip
