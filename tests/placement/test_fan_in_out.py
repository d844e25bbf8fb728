"""Fan-in and fan-out against a matrix of every synapse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.what_if import _select_outputs, _split_reader
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, AvgPool, Conv1d, Conv2d, Dense, SumPool, make_sparse, sparse_matrix
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.populations import (
    add_counts,
    count_synapses_into,
    count_synapses_out_of,
    find_populations,
)
from spear_deploy.placement.projections import SpikeSource
from tests.placement.test_brute_force import sparse
from tests.support.chips import matrix_onto, previous, random_net


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", range(25))
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


@pytest.mark.parametrize("seed", range(20))
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
