"""Source neurons that boxes read, against the synapses of each."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from spear_deploy.network import IF, AvgPool, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, SumPool, make_sparse
from spear_deploy.network.graph import INPUT, chain
from spear_deploy.network.sparse_matrix import SparseMatrix
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.projections import Projection, pack_bits
from spear_deploy.placement.read_sources import MAX_TAPS, count_boxes_that_read, count_read, mark_read
from tests.support.chips import matrix_onto
from tests.support.seeds import seeds


def random_projection(rng: np.random.Generator) -> Projection:
    """Return the way into a convolution with zeros, of random size, behind and in front of pools."""
    groups, pool = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    into, out = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 5))
    shape = (out, into // groups, *rng.integers(1, 4, 2))
    weight = rng.normal(size=shape) * (rng.random(shape) < rng.choice([0.1, 0.5]))
    stride, padding, dilation = ((int(rng.integers(*ends)), int(rng.integers(*ends))) for ends in ((1, 4), (0, 3), (1, 3)))
    window = SumPool(kernel_size=(pool, pool), stride=(min(pool, 2), min(pool, 2)), padding=(pool // 2, 0))
    layers = [Layer(name="first", neuron=IF())]
    if pool > 1:
        layers.append(Layer(name="pool", synapse=window))
    conv = Conv2d(weight=weight, groups=groups, stride=stride, padding=padding, dilation=dilation)
    behind = AvgPool(kernel_size=(1, 2), padding=(0, 1))
    layers += [Layer(name="conv", synapse=conv), Layer(name="behind", synapse=behind, neuron=IF())]
    graph = chain(layers, input_shape=(into, *map(int, rng.integers(12, 17, 2))))
    return next(p for p in find_populations(graph, zeros=True) if p.name == "behind").projections[0]


def cut(rng: np.random.Generator, length: int) -> tuple[tuple[int, int], ...]:
    """Return the pieces of an axis, cut at random places."""
    places = [0, *sorted(set(map(int, rng.integers(1, length, 2)))), length] if length > 1 else [0, length]
    return tuple(pairwise(places))


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_sources_of_boxes_are_those_with_a_synapse_onto_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = random_projection(rng)
    pieces = [cut(rng, n) for n in (p.outputs, *(axis.outputs for axis in p.axes))]
    total = np.zeros((p.channels, *(axis.inputs for axis in p.axes)), np.int64)
    for box in product(*pieces):
        slow = p.count_fan_out(box) > 0
        assert np.array_equal(mark_read(p, box), slow) and count_read(p, box) == slow.sum()
        total += slow
    assert np.array_equal(count_boxes_that_read(p, pieces), total)


def test_some_of_these_layers_have_groups_zeros_and_windows_that_overlap() -> None:
    found = [random_projection(np.random.default_rng(seed)) for seed in range(60)]
    assert sum(p.groups > 1 and p.nonzero is not None for p in found) > 10
    assert sum(p.passes_several for p in found) > 10 and sum(any(axis.cut for axis in p.axes) for p in found) > 5


def test_weights_are_not_counted_where_bits_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.zeros((3, 2, MAX_TAPS))
    weight[:, :, 7] = 1
    layers = [Layer(name="first", neuron=IF()), Layer(name="conv", synapse=Conv1d(weight=weight), neuron=IF())]
    p = find_populations(chain(layers, input_shape=(2, 70)), zeros=True)[1].projections[0]
    monkeypatch.setattr(Projection, "count_fan_out", lambda *_: pytest.fail("weights are counted"))
    assert count_read(p, ((0, 3), (1, 4))) == 6 and np.flatnonzero(mark_read(p, ((1, 2), (0, 7)))[1]).tolist() == [*range(7, 14)]
    assert count_boxes_that_read(p, [((0, 3),), ((0, 4), (4, 7))]).sum() == 14


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_dense_weights_full_or_sparse_read_the_columns_that_they_hold(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    pools = [[], [AvgPool(kernel_size=(2, 3), stride=(1, 2), padding=(1, 0))], [SumPool(kernel_size=(2, 2))]]
    synapses = pools[seed % 3]
    shape = (3, *map(int, rng.integers(4, 7, 2))) if seed % 4 else (7,) if not synapses else (2, 5, 5)
    inputs = int(np.prod(synapses[0].output_shape(shape) if synapses else shape))
    weight = rng.normal(size=(9, inputs)) * (rng.random((9, inputs)) < rng.choice([0.05, 0.3]))
    monkeypatch.setattr(SparseMatrix, "__getitem__", lambda *_: pytest.fail("rows are copied"))
    pieces = [cut(rng, 9)]
    for form in (np.asarray, make_sparse):
        layers = [Layer(name=f"s{k}", synapse=synapse) for k, synapse in enumerate(synapses)]
        layers += [Layer(name="flat", synapse=Flatten()), Layer(name="fc", synapse=Dense(weight=form(weight)), neuron=IF())]
        graph = chain(layers, input_shape=shape)
        p = find_populations(graph, zeros=True)[0].projections[0]
        exists = matrix_onto(
            chain([*layers[:-1], replace(layers[-1], synapse=Dense(weight=weight))], input_shape=shape), INPUT, "fc"
        )
        total = np.zeros(exists.shape[1], np.int64)
        for box in product(*pieces):
            read = exists[slice(*box[0])].any(axis=0)
            assert np.array_equal(mark_read(p, box).reshape(-1), read)
            assert count_read(p, box) == count_read(p, box) == read.sum()
            total += read
        assert np.array_equal(count_boxes_that_read(p, pieces).reshape(-1), total)


@pytest.mark.parametrize("taps", [MAX_TAPS, MAX_TAPS + 1])
def test_kernels_of_more_positions_than_a_number_has_bits_are_counted_too(taps: int) -> None:
    weight = np.zeros((2, 1, taps))
    weight[0, 0, -1], weight[1, 0, 0] = 1, 1
    layers = [Layer(name="first", neuron=IF()), Layer(name="conv", synapse=Conv1d(weight=weight), neuron=IF())]
    p = find_populations(chain(layers, input_shape=(1, taps + 5)), zeros=True)[1].projections[0]
    marks = [mark_read(p, ((k, k + 1), (0, 3)))[0] for k in (0, 1)]
    assert np.flatnonzero(marks[0]).tolist() == [taps - 1, taps, taps + 1] and np.flatnonzero(marks[1]).tolist() == [0, 1, 2]
    assert count_read(p, ((0, 2), (0, 3))) == 6
    assert count_boxes_that_read(p, [((0, 1), (1, 2)), ((0, 3), (3, 6))]).sum() == 12


def test_neurons_in_a_row_are_those_of_the_boxes_that_they_make_up() -> None:
    weight = np.zeros((2, 1, 3))
    weight[0, 0, 0], weight[1, 0, 2] = 1, 1
    layers = [
        Layer(name="first", neuron=IF()),
        Layer(name="conv", synapse=Conv1d(weight=weight)),
        Layer(name="flat", synapse=Flatten(), neuron=IF()),
    ]
    p = find_populations(chain(layers, input_shape=(1, 6)), zeros=True)[1].projections[0]
    assert np.flatnonzero(mark_read(p, ((2, 5),))).tolist() == [2, 3] and count_read(p, ((2, 5),)) == 2
    assert count_boxes_that_read(p, [((0, 3), (3, 8))]).reshape(-1).tolist() == [1, 1, 2, 1, 1, 1]


def test_weights_one_to_one_have_a_position_each() -> None:
    layers = [Layer(name="first", neuron=IF()), Layer(name="scale", synapse=Scale(weight=np.array([1.0, 0, 2, 0])), neuron=IF())]
    p = find_populations(chain(layers, input_shape=(4,)), zeros=True)[1].projections[0]
    p = replace(p, nonzero=np.array([[True], [False], [True], [False]]))
    assert count_read(p, ((0, 4),)) == 2 and mark_read(p, ((1, 3),)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 63, 64])
def test_bits_are_those_of_the_number(length: int) -> None:
    marks = np.random.default_rng(length).random((3, 5, length)) < 0.5
    numbers = [[sum(1 << k for k in range(length) if row[k]) for row in rows] for rows in marks]
    assert pack_bits(marks).tolist() == numbers
