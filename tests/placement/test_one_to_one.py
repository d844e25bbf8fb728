"""Weights of single positions with pools beside them, against a matrix of every synapse."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.network import IF, AvgPool, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.synapse_memory import count_axons, count_memory_words, count_rows, count_synapses
from tests.placement.test_brute_force import brute_force, random_chip
from tests.support.chips import matrix_onto, small_chip
from tests.support.seeds import seeds

CHIPS = ("truenorth", "brainscales2", "odin", "spinnaker1", "xylo_audio3", "loihi1", "loihi2")
SHARES = ("one value", "channels", "rows", "positions", "neurons")


def random_pool(rng: np.random.Generator, shape: tuple[int, ...]) -> SumPool | AvgPool:
    """A pool of one or two axes that may have a stride of its own and padding."""
    kernel = tuple(int(rng.integers(1, min(3, n) + 1)) for n in shape[1:])
    stride = tuple(int(rng.integers(1, 4)) for _ in kernel) if rng.random() < 0.5 else None
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    return (SumPool, AvgPool)[rng.integers(2)](kernel_size=kernel, stride=stride, padding=padding)


def random_scale(rng: np.random.Generator, shape: tuple[int, ...]) -> Scale:
    """Weights above 0 that differ between channels, rows, positions or neurons, or not at all."""
    parts = dict(zip(SHARES, ((), (shape[0], *(1 for _ in shape[1:])), shape[-1:], (1, *shape[1:]), shape), strict=True))
    size = parts[SHARES[rng.integers(len(SHARES))]]
    return Scale(weight=1.0 + rng.permutation(prod(size)).reshape(size))


def random_scaled_net(rng: np.random.Generator) -> SNNGraph:
    """Neurons, then pools, a flatten and weights one to one in any order, then neurons that a dense layer reads."""
    shape: tuple[int, ...] = (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(2, 8, rng.integers(1, 3))))
    conv = (Conv1d, Conv2d)[len(shape) - 2](weight=np.ones((shape[0], shape[0], *(1 for _ in shape[1:]))))
    layers = [Layer(name="a", synapse=conv, neuron=IF())]
    inputs, flat = shape, False
    for n in range(int(rng.integers(1, 4))):
        synapse: Any = random_scale(rng, shape) if rng.random() < 0.5 or flat else random_pool(rng, shape)
        if not flat and rng.random() < 0.2:
            synapse, flat = Flatten(), True
        layers.append(Layer(name=f"way{n}", synapse=synapse))
        shape = synapse.output_shape(shape)
    layers.append(Layer(name="b", synapse=random_scale(rng, shape), neuron=IF()))
    layers.append(Layer(name="fc", synapse=Dense(weight=np.ones((3, prod(shape)))), neuron=IF()))
    return chain(layers, input_shape=inputs)


def random_box(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """A part of a layer."""
    cuts = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in shape]
    return tuple((start, stop) for start, stop in cuts)


def write_lists(exists: np.ndarray, bits: int, header: int, word: int) -> int:
    """Words of a list for each source neuron, in whole words."""
    return sum(ceil((int(n) * bits + header) / word) for n in exists.sum(axis=0) if n)


def test_a_pool_in_front_of_a_weight_for_each_position_is_counted() -> None:
    """fan_in was 1, and 16 axons were counted for 64."""
    layers = [Layer(name="pool", synapse=SumPool(kernel_size=(2, 2)))]
    layers += [Layer(name="s", synapse=Scale(weight=np.arange(1.0, 17).reshape(4, 2, 2)), neuron=IF())]
    first = Layer(name="a", synapse=Scale(weight=np.array(1.0)), neuron=IF())
    net = chain([first, *layers], input_shape=(4, 4, 4))
    rows = {(row.resource, row.where): row.used for row in check(net, small_chip("truenorth")).rows}
    assert rows["fan_in", "s"] == 4
    (projection,) = find_populations(net)[1].projections
    box = ((0, 4), (0, 2), (0, 2))
    assert (projection.kind, count_axons(projection, box), count_synapses(projection, box)) == ("one_to_one", 64, 64)


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_counts_are_those_of_a_matrix_of_all_synapses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_scaled_net(rng)
    (_, population, _) = find_populations(net)
    (projection,) = population.projections
    exists = matrix_onto(net, "a", "b")
    np.testing.assert_array_equal(projection.fan_in.reshape(-1), exists.sum(axis=1))
    np.testing.assert_array_equal(projection.fan_out.reshape(-1), exists.sum(axis=0))
    loihi = {name: small_chip(name).synapse_memory for name in ("loihi1", "loihi2")}
    for _ in range(4):
        box = random_box(rng, population.shape)
        marks = np.zeros(population.shape, bool)
        marks[tuple(slice(*along) for along in box)] = True
        here = exists[marks.reshape(-1)]
        assert count_synapses(projection, box) == here.sum()
        assert count_axons(projection, box) == count_rows(projection, box) == here.any(axis=0).sum()
        if projection.kind == "one_to_one":
            for memory in loihi.values():
                indexed, header, word = (
                    int(leaf.value or 0) for leaf in (memory.index_bits, memory.header_bits, memory.word_bits)
                )
                bits = 8 + indexed + int(memory.tag_bits.value or 0)
                assert count_memory_words(projection, box, 8, memory) == write_lists(here, bits, header, word)


@pytest.mark.parametrize("base", CHIPS)
@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_what_single_synapses_add_up_to(seed: int, base: str) -> None:
    rng = np.random.default_rng([seed, CHIPS.index(base), 7])
    net, chip = random_scaled_net(rng), random_chip(rng, base)
    report = check(net, chip)
    rows = {(row.resource, row.where): row for row in report.rows}
    for key, expected in brute_force(net, chip, report).items():
        if key[0] in ("neurons", "axons_in", "fan_in", "fan_out", "fan_out_mean"):
            assert rows[key].share == pytest.approx(expected), key


def test_a_flat_layer_reads_the_windows_of_its_map() -> None:
    """A pool and a dense layer add up on neurons without positions: each neuron reads a window, not one source."""
    ends = (INPUT, "a"), ("a", "pool"), ("pool", "flat"), ("flat", "b"), (INPUT, "fc"), ("fc", "b")
    layers = [Layer(name="a", synapse=Scale(weight=np.array(1.0)), neuron=IF())]
    layers += [Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))), Layer(name="flat", synapse=Flatten())]
    layers += [Layer(name="fc", synapse=Dense(weight=np.ones((8, 32)))), Layer(name="b", neuron=IF())]
    net = SNNGraph(layers=layers, edges=[Edge(source=a, target=b) for a, b in ends], input_shape=(2, 4, 4), output="b")
    (pooled,) = (p for p in find_populations(net)[-1].projections if p.kind != "dense")
    assert [count_axons(pooled, ((0, n),)) for n in (1, 3, 8)] == [4, 12, 32]
