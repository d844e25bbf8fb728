"""Storage formats against vendors' figures and lists written out by synapse."""

from __future__ import annotations

import itertools
from math import ceil
from typing import Any

import numpy as np
import pytest

from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, LoihiLIF, Scale, SumPool
from spear_deploy.network.graph import Edge, Layer, SNNGraph, chain
from spear_deploy.placement.axes import Axis, identity_axis
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.projections import Projection, SpikeSource
from spear_deploy.placement.synapse_memory import (
    count_listed_rows,
    count_max_targets,
    count_memory_words,
    count_neurons,
    count_padded_rows,
)
from spear_deploy.placement.weight_bits import kernel_bits, list_bits, stored_bits
from tests.conftest import shared
from tests.support.seeds import seeds

LOIHI1 = load_profile("loihi1").synapse_memory
LOIHI2 = load_profile("loihi2").synapse_memory


def dense(inputs: int, outputs: int, wait: int = 0) -> Projection:
    source = SpikeSource(name="input", delay_steps=wait)
    return Projection(layer="fc", kind="dense", sources=(source,), channels=inputs, outputs=outputs)


def conv(i: int, o: int, k: int = 3, groups: int = 1) -> Projection:
    axis = Axis(inputs=20, outputs=20, used=20, taps=tuple(range(k)), padding=k // 2)
    return Projection(layer="c", kind="conv", sources=(), channels=i, outputs=o, groups=groups, axes=(axis, axis))


# (network, inputs, targets on the core, bits, words as the compiler prints them)
PRINTED_DENSE = [
    ("PilotNet LIF", 2560, 100, 3, 61440),
    ("PilotNet LIF", 2560, 18, 3, 12800),
    ("PilotNet LIF", 100, 50, 4, 1300),
    ("PilotNet LIF", 50, 10, 5, 150),
    ("PilotNet LIF", 10, 1, 6, 10),
    ("PilotNet SDNN", 2560, 100, 4, 66560),
    ("PilotNet SDNN", 2560, 18, 4, 12800),
    ("PilotNet SDNN", 100, 50, 6, 1500),
    ("Oxford", 200, 256, 8, 16200),
    ("Oxford", 200, 255, 8, 16000),
    ("Oxford", 256, 200, 8, 16128),
]


@pytest.mark.parametrize(("network", "inputs", "targets", "bits", "words"), PRINTED_DENSE)
def test_loihi2_dense_words_are_those_that_the_compiler_prints(
    network: str, inputs: int, targets: int, bits: int, words: int
) -> None:
    """lava-nc/lava-dl: tutorials/lava/lib/dl/netx/{pilotnet_snn,pilotnet_sdnn}/benchmark.ipynb, oxford/run.ipynb."""
    assert count_memory_words(dense(inputs, targets), ((0, targets),), bits, LOIHI2) == words


# (input channels, output channels on the core, kernel, bits, words): bits of PilotNet LIF are those of its weights
PRINTED_CONV = [
    (3, 24, 3, 6, 81),
    (24, 36, 3, 5, 864),
    (36, 48, 3, 5, 1620),
    (48, 64, 3, 4, 2160),
    (64, 64, 3, 4, 2880),
    (48, 64, 3, 5, 2592),  # PilotNet SDNN
    (64, 128, 3, 5, 6336),  # YOLO-KP, as percentages of 16000 words
    (128, 128, 3, 5, 12672),
    (256, 64, 3, 4, 11520),
    (256, 64, 3, 5, 13824),
    (512, 256, 1, 5, 10752),
    (512, 48, 1, 7, 3072),
]


@pytest.mark.parametrize(("into", "out", "kernel", "bits", "words"), PRINTED_CONV)
def test_loihi2_convolution_words_are_those_that_the_compiler_prints(
    into: int, out: int, kernel: int, bits: int, words: int
) -> None:
    assert count_memory_words(conv(into, out, kernel), ((0, out), (0, 2), (0, 7)), bits, LOIHI2) == words


def test_loihi2_convolution_lists_do_not_grow_with_the_tile() -> None:
    small, large = (count_memory_words(conv(8, 16), ((0, 16), (0, n), (0, n)), 8, LOIHI2) for n in (1, 20))
    assert small == large


def test_loihi1_dense_bits_are_nengo_loihis() -> None:
    """forum.nengo.ai/t/927: 'Total synapse bits (1881600) exceeded max (1048576)' for 4200 axons of 50 targets."""
    assert count_memory_words(dense(4200, 50), ((0, 50),), 8, LOIHI1) * 64 == 1881600
    # nengo-loihi's test_validate.py: 500 axons to 600 targets are too many
    assert count_memory_words(dense(500, 600), ((0, 600),), 8, LOIHI1) * 64 > 1048576


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_loihi1_blocks_are_those_written_out_bit_by_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, bits, wait = int(rng.integers(1, 300)), int(rng.integers(1, 9)), int(rng.integers(0, 9))
    word_bits = 0
    for start in range(0, n, 64):
        block = sum(bits + (ceil(np.log2(wait + 1)) if wait else 0) for _ in range(start, min(n, start + 64))) + 4 + 6
        while block % 64:
            block += 1
        word_bits += block
    assert count_memory_words(dense(7, n, wait), ((0, n),), bits, LOIHI1) * 64 == 7 * word_bits


def nengo_conv_bits(p: Projection, box: tuple[tuple[int, int], ...], bits: int) -> int:
    """Shared lists of a tile, by looking at every input position; channels are the slowest index, as in nengo-loihi."""
    (c0, c1), *ranges = box
    patterns: dict[tuple, int] = {}
    largest = 0
    for position in itertools.product(*(range(axis.inputs) for axis in p.axes)):
        key, targets, reach = [], [], []
        for axis, x, (a, b) in zip(p.axes, position, ranges, strict=True):
            meets = [
                (x + axis.padding - tap) % axis.stride == 0 and a <= (x + axis.padding - tap) // axis.stride < b
                for tap in axis.taps
            ]
            key.append(tuple(meets))
            targets.append(sum(meets))
            met = [(x + axis.padding - tap) // axis.stride for tap, is_met in zip(axis.taps, meets, strict=True) if is_met]
            reach.append(max(met, default=0) - min(met, default=0))
        if min(targets) == 0:
            continue
        into, out = p.channels // p.groups, p.outputs // p.groups
        pairs = sum(1 for c in range(p.channels) for o in range(c0, c1) if o // out == c // into)
        patterns[tuple(key)] = pairs * int(np.prod(targets))
        index = c1 - c0 - 1
        for steps, (a, b) in zip(reach, ranges, strict=True):  # from the first target to the last
            index = index * (b - a) + steps
        largest = max(largest, index)
    need = int(np.ceil(np.log2(largest + 1)))
    width = next(w for w in (0, 6, 7, 8, 9, 10, 11, 12) if w >= need)
    total = 0
    for n in patterns.values():
        for start in range(0, n, 64):
            block = min(64, n - start) * (bits + width) + 10
            total += -(-block // 64) * 64
    return total


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_loihi1_convolution_bits_are_those_of_every_position_looked_at(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2]))
    i, o, k = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 5)), int(rng.integers(1, 4))
    synapse = Conv2d(
        weight=np.ones((o, i // groups, k, k)),
        stride=tuple(rng.integers(1, 4, 2)),
        padding=tuple(rng.integers(0, 3, 2)),
        dilation=tuple(rng.integers(1, 3, 2)),
        groups=groups,
    )
    net = chain(
        [Layer(name="c", synapse=synapse, neuron=IF())], input_shape=(i, int(rng.integers(6, 11)), int(rng.integers(6, 11)))
    )
    (population,) = find_populations(net)
    box = tuple((a := int(rng.integers(0, n)), int(rng.integers(a + 1, n + 1))) for n in population.shape)
    bits = count_memory_words(population.projections[0], box, 8, LOIHI1) * 64
    assert bits == nengo_conv_bits(population.projections[0], box, 8)


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_indices_of_loihi1_are_as_wide_as_their_targets_need(seed: int) -> None:
    """From one target, which needs no index, to thousands."""
    rng = np.random.default_rng(seed)
    groups, wide = int(rng.choice([1, 1, 2])), int(rng.choice([2, 8, 60]))
    synapse = Conv1d(
        weight=np.ones((groups * int(rng.integers(1, wide)), int(rng.integers(1, 3)), int(rng.integers(1, 5)))),
        stride=(int(rng.integers(1, 4)),), padding=(int(rng.integers(0, 3)),), dilation=(int(rng.integers(1, 9)),), groups=groups,
    )  # fmt: skip
    net = chain(
        [Layer(name="c", synapse=synapse, neuron=IF())], input_shape=(groups * synapse.weight.shape[1], int(rng.integers(40, 90)))
    )
    (population,) = find_populations(net)
    box = tuple((a := int(rng.integers(0, n)), int(rng.integers(a + 1, n + 1))) for n in population.shape)
    words = count_memory_words(population.projections[0], box, 8, LOIHI1)
    assert words * 64 == nengo_conv_bits(population.projections[0], box, 8)


def test_an_index_reaches_the_last_target_of_a_list_that_a_dilation_spreads() -> None:
    """Two targets 70 apart need 7 bits: lists of 4, 4 and 8 synapses of 15 bits, and 10 bits a block, are 2 + 2 + 3 words."""
    synapse = Conv1d(weight=np.ones((1, 4, 2)), dilation=(70,))
    (population,) = find_populations(chain([Layer(name="c", synapse=synapse, neuron=IF())], input_shape=(4, 200)))
    (projection,) = population.projections
    assert count_memory_words(projection, ((0, 1), (0, 130)), 8, LOIHI1) == 7
    assert nengo_conv_bits(projection, ((0, 1), (0, 130)), 8) == 7 * 64


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_loihi2_words_are_those_of_lists_written_out(seed: int) -> None:
    """One list for each input channel and kernel position: channels of its group that lie on the core."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 5))
    i, o, k, bits = (
        groups * int(rng.integers(1, 4)),
        groups * int(rng.integers(1, 40)),
        int(rng.integers(1, 4)),
        int(rng.integers(1, 9)),
    )
    c0 = int(rng.integers(0, o))
    c1 = int(rng.integers(c0 + 1, o + 1))
    words = 0
    for channel in range(i):
        group = channel // (i // groups)
        here = sum(1 for c in range(c0, c1) if c // (o // groups) == group)
        if here:
            words += k * k * ceil((here * bits + 32) / 64)
    assert count_memory_words(conv(i, o, k, groups), ((c0, c1), (3, 9), (0, 20)), bits, LOIHI2) == words


def test_groups_that_begin_and_end_inside_a_core_have_shorter_lists() -> None:
    """Of groups of 40 channels 30, 40, 40 and 10 lie on the core: each position has a list for each input of a group."""
    box = ((50, 170), (0, 2), (0, 2))
    assert count_memory_words(conv(12, 240, 1, 6), box, 8, LOIHI2) == 2 * sum(ceil((n * 8 + 32) / 64) for n in (30, 40, 40, 10))


def test_delays_take_bits_of_every_synapse() -> None:
    assert count_memory_words(dense(1, 50, wait=0), ((0, 50),), 8, LOIHI2) == ceil((50 * 20 + 10) / 64)
    assert count_memory_words(dense(1, 50, wait=1), ((0, 50),), 8, LOIHI2) == ceil((50 * 21 + 10) / 64)
    assert count_memory_words(dense(1, 50, wait=62), ((0, 50),), 8, LOIHI2) == ceil((50 * 26 + 10) / 64)


def test_one_weight_for_each_neuron_is_one_list_each() -> None:
    projection = Projection(layer="s", kind="one_to_one", sources=(), channels=2, outputs=2, groups=2, axes=(identity_axis(3),))
    assert count_memory_words(projection, ((0, 2), (0, 3)), 8, LOIHI2) == 6
    assert count_memory_words(projection, ((0, 2), (0, 3)), 8, LOIHI1) == 6


def netx_bits(weight: np.ndarray) -> int:
    """lava-dl's documented rule, bit by bit: the sign mode, the scale that still fits, the zeros at the end."""
    values = [int(w) for w in weight.ravel()]
    signed = min(values) < 0 <= max(values)
    low, high = (-128, 127) if signed else (-256, 255)
    scale_bits = -20
    while all(low <= v * 2.0 ** (scale_bits + 1) <= high for v in values):
        scale_bits += 1
    zeros = max(n for n in range(9) if all(v % 2**n == 0 for v in values))
    return 8 - (scale_bits + signed) - (zeros - signed)


@pytest.mark.parametrize("seed", seeds(22, 200))
def test_bits_of_a_list_are_netx_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    span = int(rng.choice([1, 2, 3, 7, 8, 30, 127, 128, 200, 254]))
    low = int(rng.choice([-span, -span, 0, 1, -span // 2]))
    weight = rng.integers(low, span + 1, 20) * int(rng.choice([1, 1, 2]))
    weight = np.clip(weight, -256, 254)
    weight[0] = weight[0] or 1
    assert list_bits(weight) == max(1, netx_bits(weight))
    inhibitory = -np.abs(weight) - (weight == 0)
    assert list_bits(inhibitory) == max(1, netx_bits(inhibitory))


def test_bits_of_quantised_weights_are_those_they_were_quantised_to() -> None:
    """Loihi stores b bits as multiples of 2^(9 − b); 7 is stored as 8, as in the Oxford network."""
    for bits in range(2, 9):
        step, largest = 2 ** (9 - bits), 2 ** (bits - 1) - 1
        assert list_bits(np.arange(-largest, largest + 1) * step) == bits
    assert list_bits(np.zeros(3)) == 1


def test_bits_of_a_kernel() -> None:
    assert [kernel_bits(np.array([-n, 1])) for n in (1, 2, 3, 8, 9, 16, 128, 256)] == [2, 2, 3, 4, 5, 5, 8, 9]


def test_stored_bits_of_the_published_networks() -> None:
    """3 and 4 bits are what PilotNet's printed words imply; Oxford's 7 bits are stored as 8."""
    from spear_deploy.interchange.netx.reader import read_netx

    pilot = read_netx(shared("conformance/netx_pilotnet_lif/network.net"))
    bits = stored_bits(pilot, load_profile("loihi2"))
    assert [bits[f"layer{n}"] for n in (1, 2, 3, 4, 5, 7, 8, 9, 10)] == [6, 5, 5, 4, 4, 3, 4, 5, 6]
    oxford = read_netx(shared("conformance/netx_oxford/network.net"))
    assert list_bits(oxford["layer1"].synapse.weight) == 7
    assert stored_bits(oxford, load_profile("loihi2")) == {"layer0": 8, "layer1": 8}


def test_a_floating_point_network_has_the_default_bits() -> None:
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    assert stored_bits(net, load_profile("loihi1")) == {"fc": 8}


def test_a_convolution_over_one_axis_is_stored_like_one_over_two() -> None:
    net = chain([Layer(name="c", synapse=Conv1d(weight=np.ones((6, 2, 3))), neuron=IF())], input_shape=(2, 12))
    (population,) = find_populations(net)
    assert count_memory_words(population.projections[0], ((0, 6), (0, 10)), 8, LOIHI2) == 2 * 3 * ceil((6 * 8 + 32) / 64)
    assert count_neurons(((0, 6), (0, 10))) == population.neurons


def test_weights_per_neuron_differ_from_weights_per_channel() -> None:
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1)
    for weight, kind in ((np.ones((2, 1, 1)), "conv"), (np.arange(18).reshape(2, 3, 3), "one_to_one")):
        net = SNNGraph(
            layers=(
                Layer(name="a", synapse=Scale(weight=np.array(1)), neuron=neuron),
                Layer(name="b", synapse=Scale(weight=weight), neuron=neuron),
            ),
            edges=(Edge(source="input", target="a"), Edge(source="a", target="b")),
            input_shape=(2, 3, 3),
        )
        assert find_populations(net)[1].projections[0].kind == kind


def test_an_index_of_loihi_1_reaches_targets_by_their_number_not_by_the_inputs_between_them() -> None:
    """Two targets 35 apart, of inputs 70 apart, need 6 bits: lists of 4, 4 and 8 synapses of 14 bits are 2 words each."""
    synapse = Conv1d(weight=np.ones((1, 4, 2)), dilation=(70,), stride=(2,))
    (population,) = find_populations(chain([Layer(name="c", synapse=synapse, neuron=IF())], input_shape=(4, 200)))
    assert population.shape == (1, 65)
    assert count_memory_words(population.projections[0], ((0, 1), (0, 65)), 8, LOIHI1) == 6


def test_weights_one_to_one_are_a_kernel_of_the_map_of_speck() -> None:
    """18 weights, one for each neuron of 2 maps of 3 x 3, take 32 words, the next power of two; one for each channel 2."""
    speck = load_profile("speck2f").synapse_memory
    for weight, words in ((np.arange(1.0, 19).reshape(2, 3, 3), 32), (np.array([1.0, 2]).reshape(2, 1, 1), 2)):
        net = chain([Layer(name="s", synapse=Scale(weight=weight), neuron=IF())], input_shape=(2, 3, 3))
        (population,) = find_populations(net)
        assert count_memory_words(population.projections[0], ((0, 2), (0, 3), (0, 3)), 8, speck) == words


def reach(*synapses: Any, shape: tuple[int, ...]) -> int:
    *inner, last = synapses
    layers = [Layer(name=f"s{k}", synapse=synapse) for k, synapse in enumerate(inner)]
    (population,) = find_populations(chain([*layers, Layer(name="n", synapse=last, neuron=IF())], input_shape=shape))
    return count_max_targets(population.projections[0])


def test_a_source_reaches_the_targets_of_its_group_at_the_positions_that_its_kernel_meets() -> None:
    assert reach(Dense(weight=np.ones((7, 5))), shape=(5,)) == 7
    kernel = np.ones((6, 2, 3, 2))  # two groups of 3 channels
    assert reach(Conv2d(weight=kernel, groups=2), shape=(4, 8, 8)) == 3 * 3 * 2
    assert reach(Conv2d(weight=kernel, groups=2, stride=(2, 1)), shape=(4, 8, 8)) == 3 * 2 * 2
    assert reach(Conv2d(weight=kernel, groups=2), shape=(4, 3, 2)) == 3 * 1 * 1
    assert reach(Scale(weight=np.arange(1.0, 6)), shape=(5,)) == 1
    in_padding = SumPool(kernel_size=(1,), stride=(9,), padding=(2,))  # its one window lies in front of the map
    assert reach(in_padding, Conv1d(weight=np.ones((3, 2, 1))), shape=(2, 6)) == 0


def test_rows_of_spinnaker_are_those_of_a_list_or_of_a_matrix_for_each_sign() -> None:
    """A row has 3 words and one for each synapse; of a matrix each source has one, as long as the longest."""
    memory = load_profile("spinnaker1").synapse_memory

    def count(weight: np.ndarray, largest: int) -> tuple[int, int]:
        net = chain([Layer(name="n", synapse=Dense(weight=weight), neuron=IF())], input_shape=(weight.shape[1],))
        (population,) = find_populations(net, zeros=True)
        (projection,) = population.projections
        listed = count_listed_rows(projection, ((0, len(weight)),), memory)
        return listed, count_padded_rows(projection, largest, memory)

    assert count(np.ones((4, 10)), 4) == (10 * (3 + 4), 10 * (3 + 4))
    assert count(np.ones((4, 10)), 2) == (10 * (3 + 4), 10 * (3 + 2))
    assert count(np.tile([1.0, -1.0], (4, 5)), 4) == (10 * (3 + 4), 2 * 10 * (3 + 4))
    first = np.zeros((4, 10))
    first[:2, 0] = 1.0  # one source reaches two neurons: a list of two synapses, of which each may have a row
    assert count(first, 4) == (2 + 3 * 2, 10 * (3 + 2))
    assert count(np.zeros((4, 10)), 4) == (0, 0)
