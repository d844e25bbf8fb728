"""Fan-in and fan-out against a matrix of every synapse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.what_if import _select_outputs, _split_reader
from spear_deploy.errors import GraphError
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, AvgPool, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool, make_sparse, sparse_matrix
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement import projections
from spear_deploy.placement.populations import (
    add_counts,
    count_synapses_into,
    count_synapses_out_of,
    find_populations,
)
from spear_deploy.placement.projections import SpikeSource
from spear_deploy.placement.synapse_memory import count_axons, count_synapses
from tests.placement.test_brute_force import sparse
from tests.support.chips import matrix_onto, previous, random_net
from tests.support.seeds import seeds


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", seeds(6, 25))
def test_counts_are_those_of_a_matrix_of_all_synapses(seed: int, zeros: bool) -> None:
    rng = np.random.default_rng(seed)
    net = sparse(random_net(rng), rng) if zeros else random_net(rng)
    for population in find_populations(net, zeros=True):
        (projection,) = population.projections
        exists = matrix_onto(net, previous(net, population.name), population.name)
        np.testing.assert_array_equal(projection.fan_in.reshape(-1), exists.sum(axis=1))
        np.testing.assert_array_equal(projection.fan_out.reshape(-1), exists.sum(axis=0))


def test_windows_that_lie_in_the_padding_alone_read_nothing() -> None:
    """Weights behind them divided by no positions; the source feeds other weights too, and its synapses add up."""
    conv = Conv1d(weight=np.ones((2, 2, 1)), stride=(2,), padding=(1,))
    layers = [Layer(name="a", neuron=IF()), Layer(name="c", synapse=conv), Layer(name="d", synapse=Dense(weight=np.ones((3, 4))))]
    layers += [Layer(name="e", synapse=Dense(weight=np.ones((3, 2)))), Layer(name="out", neuron=IF())]
    ends = (INPUT, "a"), ("a", "c"), ("c", "d"), ("d", "out"), ("a", "e"), ("e", "out")
    net = SNNGraph(layers=layers, edges=[Edge(source=a, target=b) for a, b in ends], input_shape=(2, 1))
    for zeros in (False, True):
        a, out = find_populations(net, zeros=zeros)
        assert [p.source_channels for p in out.projections] == [2, 2] and count_synapses_into(out).total == 6
        counts = count_synapses_out_of("a", [a, out])
        assert (counts.largest, counts.total, counts.connected) == (3, 6, 2)
    for chip in list_profiles():
        assert check(net, load_profile(chip), remedies=False).rows


def test_weights_of_zero_count_where_nobody_asked_for_them() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    net = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(3,))
    for zeros, into, out in ((False, [3, 3], [2, 2, 2]), (True, [2, 1], [1, 0, 2])):
        populations = find_populations(net, zeros=zeros)
        assert populations[0].projections[0].fan_in.tolist() == into
        assert populations[0].projections[0].fan_out.tolist() == out


def test_a_convolution_in_groups_and_one_behind_a_pool_with_zeros() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 2, (4, 2, 3, 3)).astype(float)
    net = chain(
        [
            Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="c", synapse=Conv2d(weight=weight, groups=2, stride=(2, 1), padding=(1, 0)), neuron=IF()),
        ],
        input_shape=(4, 12, 10),
    )
    (population,) = find_populations(net, zeros=True)
    exists = matrix_onto(net, INPUT, "c")
    np.testing.assert_array_equal(population.projections[0].fan_in.reshape(-1), exists.sum(axis=1))
    np.testing.assert_array_equal(population.projections[0].fan_out.reshape(-1), exists.sum(axis=0))
    assert count_synapses_into(population).total == exists.sum()
    assert count_synapses_out_of(INPUT, [population]).largest == exists.sum(axis=0).max()


def test_a_pool_behind_the_weights_and_a_kernel_of_one_axis() -> None:
    rng = np.random.default_rng(1)
    net = chain(
        [
            Layer(name="c", synapse=Conv1d(weight=rng.integers(0, 2, (3, 2, 3)).astype(float), dilation=(2,))),
            Layer(name="p", synapse=SumPool(kernel_size=(2,))),
            Layer(name="n", neuron=IF()),
        ],
        input_shape=(2, 14),
    )
    (population,) = find_populations(net, zeros=True)
    exists = matrix_onto(net, INPUT, "n")
    np.testing.assert_array_equal(population.projections[0].fan_in.reshape(-1), exists.sum(axis=1))
    np.testing.assert_array_equal(population.projections[0].fan_out.reshape(-1), exists.sum(axis=0))
    assert count_synapses_into(population).total == exists.sum()
    assert count_synapses_out_of(INPUT, [population]).largest == exists.sum(axis=0).max()


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_added_counts_are_those_of_every_neuron(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 4)))
    flat = [rng.integers(0, 3, shape[1:]) for _ in range(rng.integers(1, 4))]
    parts = [np.broadcast_to(one, shape) if rng.random() < 0.7 else rng.integers(0, 3, shape) for one in flat]
    factors = [int(factor) for factor in rng.integers(1, 4, len(parts))]
    total = sum(part * factor for part, factor in zip(parts, factors, strict=True))
    counts = add_counts(parts, factors)
    assert (counts.largest, counts.total, counts.connected) == (total.max(), total.sum(), np.count_nonzero(total))


def test_counts_that_are_equal_in_each_channel_are_added_once() -> None:
    row, column = np.array([1, 2, 3]), np.array([4, 5])
    alike = add_counts([np.broadcast_to(row, (2, 3)), np.broadcast_to(row, (2, 3))])
    assert (alike.counts.tolist(), alike.alike, alike.total) == ([2, 4, 6], 2, 24)
    mixed = add_counts([np.broadcast_to(row, (2, 3)), np.broadcast_to(column, (3, 2))])
    assert (mixed.counts.tolist(), mixed.alike) == ([5, 7, 7, 6, 6, 8], 1)
    assert add_counts([]).total == 0


def test_sparse_weights_behind_a_map_and_its_pool_count_as_the_full_ones(monkeypatch):
    rng = np.random.default_rng(4)
    weight = rng.integers(1, 9, (12, 3 * 4 * 2)) * (rng.random((12, 24)) < 0.3)
    pool = Layer(name="pool", synapse=SumPool(kernel_size=(3, 2), stride=(2, 2), padding=(1, 0)))

    def project(form):
        graph = chain([pool, Layer(name="fc", synapse=Dense(weight=form(weight)), neuron=IF())], input_shape=(3, 7, 4))
        (population,) = find_populations(graph, zeros=True)
        return population.projections[0]

    full = project(np.asarray)
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
    few = project(make_sparse)
    for part in (lambda p: p, lambda p: p.narrow("fc", 12, 5), lambda p: _select_outputs(p, 2, 9, 12)):
        assert np.array_equal(part(few).fan_in, part(full).fan_in)
        assert np.array_equal(part(few).fan_out, part(full).fan_out)
    readers = [_split_reader(replace(p, sources=(SpikeSource(name="a", delay_steps=0),)), "a", 3, 3) for p in (full, few)]
    for a, b in zip(*readers, strict=True):
        assert np.array_equal(a.fan_in, b.fan_in)
        assert np.array_equal(a.fan_out, b.fan_out)


def one_layer(*synapses: Any, shape: tuple[int, ...]) -> SNNGraph:
    """Synapses behind each other, with neurons behind the last alone."""
    layers = [Layer(name=f"l{n}", synapse=synapse) for n, synapse in enumerate(synapses)]
    return chain([*layers, Layer(name="out", neuron=IF())], input_shape=shape)


def random_geometry(rng: np.random.Generator, channels: int, axes: int) -> list[Any]:
    """A convolution (maybe depthwise) among up to two pools, whose windows overlap, leave gaps and hang over the edges."""

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(low, high, axes))

    def draw_pool() -> SumPool | AvgPool:
        size = draw(1, 5)
        padding = tuple(int(rng.integers(0, n // 2 + 1)) for n in size)
        return (SumPool, AvgPool)[rng.integers(2)](kernel_size=size, stride=draw(1, 4), padding=padding)

    groups = channels if rng.random() < 0.4 else 1
    weight = np.ones((int(rng.integers(1, 3)) * groups, channels // groups, *draw(1, 4)))
    kind = Conv1d if axes == 1 else Conv2d
    conv = kind(weight=weight, stride=draw(1, 4), padding=draw(0, 3), dilation=draw(1, 3), groups=groups)
    pools = [draw_pool() for _ in range(2)]
    return [pools[0], conv, pools[1]] if rng.random() < 0.5 else [conv, *pools]


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_pools_and_kernels_behind_each_other_count_as_the_matrix_of_all_synapses(seed: int) -> None:
    """Padding of a map in between holds no neuron: what a window finds there reaches none."""
    rng = np.random.default_rng(seed)
    for _ in range(8):
        axes = int(rng.integers(1, 3))
        shape = tuple(int(n) for n in (rng.integers(1, 4), *rng.integers(3, 9, axes)))
        try:
            net = one_layer(*random_geometry(rng, shape[0], axes), shape=shape)
        except GraphError:
            continue  # a kernel is larger than its map
        (population,) = find_populations(net)
        (projection,) = population.projections
        exists = matrix_onto(net, INPUT, "out")
        np.testing.assert_array_equal(projection.fan_in.reshape(-1), exists.sum(axis=1))
        np.testing.assert_array_equal(projection.fan_out.reshape(-1), exists.sum(axis=0))
        assert count_axons(projection, tuple((0, n) for n in population.shape)) == exists.any(axis=0).sum()
        first = tuple((0, -(-n // 2)) for n in population.shape)
        here = np.zeros(population.shape, bool)
        here[tuple(slice(*along) for along in first)] = True
        assert count_synapses(projection, first) == exists[here.reshape(-1)].sum()
        assert count_axons(projection, first) == exists[here.reshape(-1)].any(axis=0).sum()


def test_a_window_over_the_edge_of_a_convolution_reads_no_place_of_its_padding() -> None:
    """2 outputs read inputs 0 and 2, 1 and 3; windows of 2 at padding 1 hold one of them each, and so 2 inputs, not 3."""
    conv, pool = Conv1d(weight=np.ones((1, 1, 2)), dilation=(2,)), AvgPool(kernel_size=(2,), padding=(1,))
    (population,) = find_populations(one_layer(conv, pool, shape=(1, 4)))
    assert count_synapses_into(population).counts.reshape(-1).tolist() == [2, 2]


def test_a_convolution_for_each_channel_behind_another_one_reads_all_that_it_reads() -> None:
    first, second = Conv1d(weight=np.ones((6, 3, 1))), Conv1d(weight=np.ones((6, 1, 1)), groups=6)
    (population,) = find_populations(one_layer(first, second, shape=(3, 2)))
    (projection,) = population.projections
    assert projection.groups == 1 and projection.fan_in.max() == 3 and projection.fan_out.max() == 6
    nested = [Conv1d(weight=np.ones((4, 4 // g, 1)), groups=g) for g in (2, 4)]
    for order in (nested, nested[::-1]):
        (population,) = find_populations(one_layer(*order, shape=(4, 2)))
        assert population.projections[0].fan_in.tolist() == [[2, 2]] * 4


@pytest.mark.parametrize(
    ("synapses", "shape"),
    [
        ([Scale(weight=np.array([1.0, 0.0, 2.0]))], (3,)),
        ([Scale(weight=np.array([1.0, 0.0, 2.0])), Dense(weight=np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))], (3,)),
        ([Scale(weight=np.arange(8.0).reshape(2, 2, 2) % 3), Flatten(), Dense(weight=np.ones((3, 8)))], (2, 2, 2)),
        ([Dense(weight=np.ones((3, 2))), Scale(weight=np.array([0.0, 1.0, 0.0]))], (2,)),
        ([Scale(weight=np.array([[0.0], [1.0]])), Conv1d(weight=np.ones((4, 1, 2)), groups=2)], (2, 5)),
        ([Scale(weight=np.array([[0.0], [1.0]])), AvgPool(kernel_size=(2,)), Conv1d(weight=np.ones((3, 2, 2)))], (2, 6)),
        ([Conv1d(weight=np.ones((2, 2, 2))), Scale(weight=np.array([[0.0], [1.0]])), SumPool(kernel_size=(2,))], (2, 7)),
        ([Scale(weight=np.zeros(1))], (4,)),
        ([Scale(weight=np.array([[0.0], [1.0]])), SumPool(kernel_size=(2,))], (2, 6)),
    ],
)
def test_a_weight_of_zero_to_each_neuron_is_no_synapse(synapses: list[Any], shape: tuple[int, ...]) -> None:
    net = one_layer(*synapses, shape=shape)
    ((projection,),) = (population.projections for population in find_populations(net, zeros=True))
    exists = matrix_onto(net, INPUT, "out")
    assert not exists.all()
    np.testing.assert_array_equal(projection.fan_in.reshape(-1), exists.sum(axis=1))
    np.testing.assert_array_equal(projection.fan_out.reshape(-1), exists.sum(axis=0))


def test_a_map_of_which_a_weight_of_zero_stops_some_values_counts_as_whole(monkeypatch) -> None:
    """Which positions a kernel does not need is not kept; sparse weights and full ones count alike."""
    gate = Scale(weight=np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    (population,) = find_populations(one_layer(gate, Conv1d(weight=np.ones((1, 2, 2))), shape=(2, 3)), zeros=True)
    assert population.projections[0].fan_in.tolist() == [[2, 2]]
    rng, counts = np.random.default_rng(0), []
    weight, mask = rng.normal(size=(5, 12)) * (rng.random((5, 12)) < 0.5), rng.integers(0, 2, 12).astype(float)
    for form in (np.asarray, make_sparse):
        monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
        net = one_layer(Scale(weight=mask), Dense(weight=form(weight)), Scale(weight=np.arange(5.0)), shape=(12,))
        counts.append(find_populations(net, zeros=True)[0].projections[0])
    assert (
        counts[0].fan_in.tolist() == counts[1].fan_in.tolist() == ((weight * mask != 0).sum(axis=1) * (np.arange(5) > 0)).tolist()
    )
    assert counts[0].fan_out.tolist() == counts[1].fan_out.tolist()


@pytest.mark.parametrize("form", [np.asarray, make_sparse])
@pytest.mark.parametrize("seed", range(8))
def test_windows_that_overlap_connect_two_neurons_once(seed: int, form: Any, monkeypatch) -> None:
    """Weights of 0 never make synapses more, also where several windows lead from a neuron to another."""
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
    monkeypatch.setattr(projections, "MAX_PAIRS", 200)  # so that the pairs are listed in parts
    rng = np.random.default_rng(seed)
    pool = AvgPool(kernel_size=(3, 2), stride=(1, int(rng.integers(1, 3))), padding=(1, 0))
    shape = (2, 5, 6)
    weight = rng.integers(0, 2, (7, int(np.prod(pool.output_shape(shape))))) * rng.normal(size=(7, 1))
    net = one_layer(pool, Flatten(), Dense(weight=form(weight)), shape=shape)
    ((some,),) = (population.projections for population in find_populations(net, zeros=True))
    ((whole,),) = (population.projections for population in find_populations(net))
    exists = matrix_onto(one_layer(pool, Flatten(), Dense(weight=weight), shape=shape), INPUT, "out")
    np.testing.assert_array_equal(some.fan_in, exists.sum(axis=1))
    np.testing.assert_array_equal(some.fan_out.reshape(-1), exists.sum(axis=0))
    assert (some.fan_in <= whole.fan_in).all() and (some.fan_out <= whole.fan_out).all()
