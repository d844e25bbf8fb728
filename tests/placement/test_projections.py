"""Synapses onto parts of a layer, against matrices."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool, make_sparse
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.axes import identity_axis
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.projections import Projection, split_row
from spear_deploy.placement.synapse_memory import (
    Box,
    count_axons,
    count_memory_words,
    count_neuron_words,
    count_rows,
    count_synapses,
)
from tests.support.chips import matrix_onto, small_chip
from tests.support.seeds import seeds


def project(net: SNNGraph, *, zeros: bool) -> Projection:
    (population,) = find_populations(net, zeros=zeros)
    (projection,) = population.projections
    return projection


def draw_conv(rng: np.random.Generator, *, zeros: bool) -> SNNGraph:
    axes, groups = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    into, out = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 4))
    kernel = tuple(int(n) for n in rng.integers(1, 4, axes))
    weight = rng.uniform(1, 2, (out, into // groups, *kernel)) * (
        rng.random((out, into // groups, *kernel)) < (0.5 if zeros else 2)
    )
    geometry = {
        name: tuple(int(n) for n in rng.integers(low, 3, axes)) for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    synapse = (Conv1d if axes == 1 else Conv2d)(weight=weight, groups=groups, **geometry)
    shape = (into, *(int(n) for n in rng.integers(6, 9, axes)))
    return chain([Layer(name="n", synapse=synapse, neuron=IF())], input_shape=shape)


def draw_box(rng: np.random.Generator, shape: tuple[int, ...]) -> Box:
    return tuple((a := int(rng.integers(0, n)), int(rng.integers(a + 1, n + 1))) for n in shape)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", seeds(7, 40))
def test_synapses_of_a_convolution_onto_a_part_of_its_map_or_of_its_neurons_in_a_row(seed: int, zeros: bool) -> None:
    rng = np.random.default_rng([seed, zeros])
    net = draw_conv(rng, zeros=zeros)
    projection, exists = project(net, zeros=zeros), matrix_onto(net, INPUT, "n")
    shape = net.shape_of("n")
    for box in (draw_box(rng, shape), draw_box(rng, (int(np.prod(shape)),))):
        here = np.zeros(shape if len(box) > 1 else int(np.prod(shape)), bool)
        here[tuple(slice(*along) for along in box)] = True
        rows = exists[here.reshape(-1)]
        assert projection.count_fan_out(box).reshape(-1).tolist() == rows.sum(axis=0).tolist()
        assert count_rows(projection, box) == rows.any(axis=0).sum()
        assert count_synapses(projection, box) == rows.sum()
        if not zeros:
            assert count_axons(projection, box) == rows.any(axis=0).sum()
    stored = project(net, zeros=False)
    flat = draw_box(rng, (int(np.prod(shape)),))
    assert count_axons(projection, flat) == count_axons(stored, flat)  # zeros too


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("seed", seeds(7, 40))
def test_synapses_of_a_dense_layer_onto_some_of_its_neurons(seed: int, zeros: bool) -> None:
    rng = np.random.default_rng([seed, zeros])
    size = tuple(int(n) for n in rng.integers(5, 8, 2))
    pool = SumPool(kernel_size=(2, 3), stride=tuple(int(n) for n in rng.integers(1, 4, 2)))  # some inputs in no window
    pooled = pool.output_shape((2, *size))
    weight = rng.uniform(1, 2, (7, int(np.prod(pooled)))) * (rng.random((7, int(np.prod(pooled)))) < (0.4 if zeros else 2))
    layers = [
        Layer(name="pool", synapse=pool),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="n", synapse=Dense(weight=make_sparse(weight) if seed % 2 and zeros else weight), neuron=IF()),
    ]
    net = chain(layers, input_shape=(2, *size))
    dense = net.with_layers(
        lambda layer: Layer(name="n", synapse=Dense(weight=weight), neuron=IF()) if layer.name == "n" else layer
    )
    projection, exists = project(net, zeros=zeros), matrix_onto(dense, INPUT, "n")
    (box,) = (draw_box(rng, (7,)),)
    rows = exists[slice(*box[0])]
    assert projection.count_fan_out(box).reshape(-1).tolist() == rows.sum(axis=0).tolist()
    assert (count_rows(projection, box), count_synapses(projection, box)) == (rows.any(axis=0).sum(), rows.sum())


def test_what_a_piece_reads_is_a_part_of_what_the_whole_axis_reads() -> None:
    """Also where windows hang over the edge of a map in between, which holds nothing there."""
    axis = identity_axis(9).compose(7, (0, 1, 2), 1, 0).compose(6, (0,), 2, 2)
    assert axis.cut
    whole = axis.match_inputs()
    reaching = np.zeros((9, 6, len(axis.taps)), bool)
    for output in range(6):
        reaching[:, output] = axis.match_outputs(output, output + 1)
    assert (reaching.any(axis=1) == axis.match_outputs()).all() and (reaching.sum(axis=(0, 2)) == whole.sum(axis=1)).all()
    for start in range(5):
        for stop in range(start + 1, 6):
            assert (axis.match_inputs(start, stop) == whole[start:stop]).all()
            read = axis.mark_inputs(start, stop)
            assert not read[: axis.find_window(start, stop).start].any() and not read[axis.find_window(start, stop).stop :].any()


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (4, 1, 3)])
def test_places_in_a_row_are_boxes(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    for start in range(size + 1):
        for stop in range(start, size + 1):
            count = np.zeros(shape, int)
            for box in split_row(shape, start, stop):
                assert len(box) == len(shape)
                count[tuple(slice(*along) for along in box)] += 1
            assert count.reshape(-1).tolist() == [int(start <= n < stop) for n in range(size)]


def test_each_synapse_of_loihi_1_holds_the_bits_of_its_tag() -> None:
    net = chain([Layer(name="n", synapse=Dense(weight=np.ones((60, 5))), neuron=IF())], input_shape=(5,))
    for tag in (0, 3):
        memory = small_chip("loihi1", synapse_memory__tag_bits=tag).synapse_memory
        assert count_memory_words(project(net, zeros=False), ((0, 60),), 8, memory) == 5 * ceil((60 * (8 + tag) + 10) / 64)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_words_of_speck_are_those_of_the_channels_on_the_core(seed: int) -> None:
    rng = np.random.default_rng(seed)
    out, into = int(rng.integers(2, 40)), int(rng.integers(1, 4))
    net = chain([Layer(name="n", synapse=Conv2d(weight=np.ones((out, into, 3, 3))), neuron=IF())], input_shape=(into, 9, 9))
    box, memory = draw_box(rng, (out, 7, 7)), load_profile("speck2f").synapse_memory

    def power(n: int) -> int:
        return next(1 << k for k in range(20) if 1 << k >= n)

    channels, *positions = (stop - start for start, stop in box)
    assert count_memory_words(project(net, zeros=False), box, 8, memory) == into * 16 * power(channels)
    assert count_neuron_words(box, memory) == channels * power(positions[0]) * power(positions[1])


def test_lists_of_loihi_are_as_long_as_their_targets_and_indices() -> None:
    def count(net: SNNGraph, chip: str) -> int | None:
        shape = net.shape_of("n")
        return count_memory_words(project(net, zeros=False), tuple((0, n) for n in shape), 8, load_profile(chip).synapse_memory)

    def map_of(into: int, out: int, length: int) -> SNNGraph:
        return chain([Layer(name="n", synapse=Conv1d(weight=np.ones((out, into, 1))), neuron=IF())], input_shape=(into, length))

    assert count(map_of(6, 1, 5), "loihi1") == 1  # 6 synapses of 8 bits, none for the index of the only target
    assert count(map_of(1, 64, 1), "loihi1") == 15  # the last of 64 targets has the index 63: 6 bits
    assert count(map_of(1, 65, 1), "loihi1") == 16 + 1  # 7 bits; a second block holds the last synapse
    for blocks in (1, 2):
        net = chain([Layer(name="n", synapse=Dense(weight=np.ones((64 * blocks, 3))), neuron=IF())], input_shape=(3,))
        assert count(net, "loihi1") == 3 * 9 * blocks
    layers = [
        Layer(name="pool", synapse=SumPool(kernel_size=(3,), stride=(1,))),
        Layer(name="n", synapse=Scale(weight=np.array([[1.0, 2, 3]])), neuron=IF()),
    ]
    each = chain(layers, input_shape=(1, 5))  # five sources reach 1, 2, 3, 2 and 1 targets of 20 bits, and 10 bits a list
    assert count(each, "loihi2") == 1 + 1 + 2 + 1 + 1


@pytest.mark.parametrize("size", [(3, 1), (1, 3)])
def test_axes_of_one_position_are_left_out_beside_dense_weights_with_the_zeros_of_the_others(size: tuple[int, int]) -> None:
    """A column and a row of pixels, flattened, onto neurons that dense weights reach too: the same synapses as a list has."""
    weight = np.array([1.0, 0, 2, 0, 3, 0]).reshape(2, 1, *size)
    extent = tuple(8 if n > 1 else 1 for n in size)
    layers = (
        Layer(name="conv", synapse=Conv2d(weight=weight)),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="all", synapse=Flatten()),
        Layer(name="dense", synapse=Dense(weight=np.ones((12, 8)))),
        Layer(name="n", neuron=IF()),
    )
    pairs = (INPUT, "conv"), ("conv", "flat"), ("flat", "n"), (INPUT, "all"), ("all", "dense"), ("dense", "n")
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    net = SNNGraph(layers=layers, edges=edges, input_shape=(1, *extent), output="n")
    (population,) = find_populations(net, zeros=True)
    (projection,) = (p for p in population.projections if p.kind == "conv")
    exists = matrix_onto(net, INPUT, "flat")
    assert len(projection.axes) == 1
    assert projection.fan_in.reshape(-1).tolist() == exists.sum(axis=1).tolist()
    assert projection.fan_out.reshape(-1).tolist() == exists.sum(axis=0).tolist()
