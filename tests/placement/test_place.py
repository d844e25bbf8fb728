"""Placement against the vendors' tables, and invariants on random networks and chips."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, SigmaDelta
from spear_deploy.network.graph import Layer, SNNGraph, chain
from spear_deploy.placement.core_needs import Core, group_targets_by_source
from spear_deploy.placement.place import Placement, count_cores, lower_bound, place, place_populations
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.splitting import cut_evenly
from spear_deploy.placement.weight_bits import stored_bits
from tests.conftest import shared
from tests.support.chips import conv, dense_net, matrix_onto, previous, random_net, small_chip
from tests.support.drawn_networks import draw_network
from tests.support.rich_graphs import _Rich
from tests.support.seeds import seeds
from tests.support.wild_graphs import wild_graph

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")

# layer, input axons, tile (W, H, C) or mean neurons, words (mean), cores, output axons (mean of AxonMap)
PILOTNET = [
    ("layer0", 1, (16, 66, 3), 3168, 0, 13, 1015),
    ("layer1", 2, (4, 32, 24), 3072, 81, 25, 253),
    ("layer2", 2, (4, 15, 36), 2160, 864, 13, 113),
    ("layer3", 2, (8, 7, 48), 2688, 1620, 3, 112),
    ("layer4", 1, (8, 4, 64), 2048, 2160, 3, 29),
    ("layer5", 1, (16, 2, 64), 2048, 2880, 2, 1280),
    ("layer7", 2560, None, 8, 7253, 12, 8),
    ("layer8", 100, None, 50, 1300, 1, 50),
    ("layer9", 50, None, 10, 150, 1, 10),
    ("layer10", 10, None, 1, 10, 1, 0),  # the table has 1: the network's output goes to the host
]

# the same network of sigma-delta neurons: stored bits that the printed words imply, words (mean), cores, AxonMap (mean)
SDNN = [
    (6, 81, 25, 253),
    (5, 864, 13, 113),
    (5, 1620, 3, 112),
    (5, 2592, 3, 29),
    (4, 2880, 2, 1280),
    (4, 7253, 12, 8),
    (6, 1500, 1, 50),
    (5, 150, 1, 10),
    (6, 10, 1, 0),
]


@pytest.fixture(scope="module")
def pilotnet() -> SNNGraph:
    return read_netx(shared("conformance/netx_pilotnet_lif/network.net"))


def tile_of(placement: Placement, layer: str) -> tuple[int, ...]:
    """The first core's tile, x first as the compiler prints it."""
    return tuple(stop - start for start, stop in reversed(placement.slices_of(layer)[0].box))


@pytest.mark.parametrize(("layer", "axons", "tile", "neurons", "words", "cores", "out"), PILOTNET)
def test_pilotnet_is_split_as_the_loihi2_compiler_splits_it(
    pilotnet: SNNGraph, layer: str, axons: int, tile: Any, neurons: int, words: int, cores: int, out: int
) -> None:
    """lava-nc/lava-dl: tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb, table "Per core distribution"."""
    placement = place(pilotnet, LOIHI2)
    parts = placement.slices_of(layer)
    assert len(parts) == cores
    assert {part.axons_in for part in parts} == {axons}
    assert sum(part.memory_words for part in parts) // cores == words
    assert sum(part.axons_out for part in parts) // cores == out
    if tile is None:
        assert sum(part.neurons for part in parts) // cores == neurons
    else:
        assert tile_of(placement, layer) == tile
        assert max(part.neurons for part in parts) == neurons


def test_pilotnet_takes_74_cores(pilotnet: SNNGraph) -> None:
    placement = place(pilotnet, LOIHI2)
    assert placement.cores_used == sum(row[5] for row in PILOTNET) == 74
    shares = [part.neurons for part in placement.slices_of("layer7")]
    assert shares == [9] * 11 + [1]


def test_pilotnet_of_sigma_delta_neurons_takes_61_cores(pilotnet: SNNGraph) -> None:
    """lava-nc/lava-dl: tutorials/lava/lib/dl/netx/pilotnet_sdnn/benchmark.ipynb; the host encodes the input, on no core."""
    neuron = SigmaDelta(v_threshold=np.array(1))
    layers = [layer if layer.neuron is None else replace(layer, neuron=neuron) for layer in pilotnet.layers]
    net = replace(pilotnet, layers=tuple(layers))
    populations = find_populations(net)
    assert [p.name for p in populations] == [row[0] for row in PILOTNET[1:]]
    bits = {p.projections[0].layer: row[0] for p, row in zip(populations, SDNN, strict=True)}
    placement = place_populations(populations, bits, LOIHI2)
    printed = []
    for name in placement.layers:
        parts = placement.slices_of(name)
        means = (sum(getattr(part, what) for part in parts) // len(parts) for what in ("memory_words", "axons_out"))
        words, out = means
        printed.append((words, len(parts), out))
    assert printed == [row[1:] for row in SDNN]
    assert placement.cores_used == 61


def test_pilotnet_has_room_left_beside_the_vendors_packing(pilotnet: SNNGraph) -> None:
    fewest = place(pilotnet, LOIHI2, packing="fewest")
    assert len(fewest.slices_of("layer7")) == 7  # by memory alone: 2560 lists of 15 neurons are 10240 of 12000 words
    assert lower_bound(fewest.populations, stored_bits(pilotnet, LOIHI2), LOIHI2) <= fewest.cores_used < 74


def test_oxford_takes_5_cores() -> None:
    """lava-nc/lava-dl: tutorials/lava/lib/dl/netx/oxford/run.ipynb: 2 cores of 8064 words, 3 of 5400, in the mean."""
    placement = place(read_netx(shared("conformance/netx_oxford/network.net")), LOIHI2)
    cores_and_words = [
        (len(parts := placement.slices_of(name)), sum(p.memory_words for p in parts) // len(parts)) for name in placement.layers
    ]
    assert cores_and_words == [(3, 5400), (2, 8064)]
    assert [part.neurons for part in placement.slices_of("layer0")] == [127, 127, 2]


# YOLO-KP (yolo_kp/run.ipynb, the later compiler: 16000 words): W, H, C, kernel, stride, bits that the words imply, tile, cores
YOLO = [
    (224, 224, 16, 3, 2, 5, (8, 28, 16), 224),
    (112, 112, 32, 3, 2, 6, (8, 14, 32), 112),
    (56, 56, 64, 3, 2, 5, (4, 14, 64), 56),
    (28, 28, 128, 3, 2, 5, (4, 7, 128), 28),
    (28, 28, 256, 3, 1, 5, (4, 7, 128), 56),
    (14, 14, 256, 3, 2, 4, (8, 7, 64), 16),
    (14, 14, 512, 3, 1, 5, (8, 7, 64), 32),
    (14, 14, 256, 1, 1, 5, (2, 7, 256), 14),
    (14, 14, 512, 3, 1, 5, (8, 7, 64), 32),
    (14, 14, 48, 1, 1, 7, (4, 14, 48), 4),
]


def test_yolo_is_split_as_the_later_loihi2_compiler_splits_it() -> None:
    """Its weights are not at hand; the stored bits are those that the printed words imply."""
    later = load_profile("loihi2@2023")
    layers, channels, bits = [], 3, {}
    for n, (_, _, out, kernel, stride, width, _, _) in enumerate(YOLO):
        weight = np.zeros((out, channels, kernel, kernel), np.float32)
        synapse = Conv2d(weight=weight, stride=(stride, stride), padding=(kernel // 2, kernel // 2))
        layers.append(Layer(name=f"conv{n}", synapse=synapse, neuron=IF()))
        channels, bits[f"conv{n}"] = out, width
    populations = find_populations(chain(layers, input_shape=(3, 448, 448)))
    placement = place_populations(populations, bits, later)
    assert [tile_of(placement, name) for name in placement.layers] == [row[6] for row in YOLO]
    assert [len(placement.slices_of(name)) for name in placement.layers] == [row[7] for row in YOLO]
    assert placement.cores_used == 574
    first_compiler = place_populations(populations, bits, override_facts(LOIHI2, {"core.synapse_memory": 16000}))
    assert first_compiler.cores_used == 574


def test_nengo_loihis_examples_of_splitting() -> None:
    """nengo_loihi/builder/tests: 1100 neurons make 2 blocks; 600 targets of 500 axons are too many bits for one."""
    assert [p.neurons for p in place(dense_net(1, 1100), LOIHI1).slices_of("fc1")] == [550, 550]
    assert len(place(dense_net(500, 600), LOIHI1).slices_of("fc1")) == 3


# ------------------------------------------------------------------------------------------------------------ properties


def covered(placement: Placement) -> bool:
    """Whether each neuron of each population lies on exactly one core."""
    for population in placement.populations:
        count = np.zeros(population.shape, int)
        for part in placement.slices_of(population.name):
            count[tuple(slice(*along) for along in part.box)] += 1
            assert part.neurons == np.prod([stop - start for start, stop in part.box])
        if (count != 1).any():
            return False
    return True


def random_chip(rng: np.random.Generator) -> Any:
    base = str(rng.choice(["loihi1", "loihi2"]))
    values = {
        "core__neurons": int(rng.integers(1, 120)),
        "core__synapse_memory": int(rng.integers(40, 2000)),
        "core__axons_in": int(rng.integers(1, 300)),
        "core__axons_out": int(rng.integers(1, 600)),
    }
    return small_chip(base, **values)


@pytest.mark.parametrize("packing", ["vendor", "fewest"])
@pytest.mark.parametrize("seed", seeds(7, 40))
def test_every_neuron_lies_on_exactly_one_core(seed: int, packing: Any) -> None:
    rng = np.random.default_rng(seed)
    net, chip = random_net(rng), random_chip(rng)
    placement = place(net, chip, packing=packing)
    assert covered(placement)
    cores = list(dict.fromkeys(part.core for part in placement.slices))
    assert sorted(cores) == list(range(placement.cores_used))
    if packing == "vendor":
        assert cores == sorted(cores) and len(cores) == len(placement.slices)
    assert place(net, chip, packing=packing) == placement


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_a_core_is_over_a_limit_only_where_one_neuron_is(seed: int) -> None:
    """What one neuron needs no cut undoes; the vendor's rule of Loihi 2 looks at neurons and memory only."""
    rng = np.random.default_rng(seed)
    net, chip = random_net(rng), random_chip(rng)
    for packing in ("vendor", "fewest"):
        placement = place(net, chip, packing=packing)
        rule_of_loihi2 = packing == "vendor" and chip.packing.rule.value == "divide"
        for part in placement.slices:
            assert part.neurons <= chip.core.neurons.value
            if part.memory_words > chip.core.synapse_memory.value:
                if rule_of_loihi2:
                    assert part.box[0][1] - part.box[0][0] == 1
                else:
                    assert part.memory_words <= max(min_needs(net, chip, part.layer, "memory_words"))
            if not rule_of_loihi2 and part.axons_in > chip.core.axons_in.value:
                assert part.axons_in <= max(min_needs(net, chip, part.layer, "axons_in"))


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_cores_counted_without_assignment_are_those_of_the_placement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chip, net = random_chip(rng), random_net(rng)
    populations, bits = find_populations(net), stored_bits(net, chip)
    counted = count_cores(populations, bits, chip)
    assert counted == place_populations(populations, bits, chip).cores_in_all or (
        counted is None and chip.packing.share_cores.value
    )
    assert count_cores(populations, bits, load_profile("speck2f")) is None


def min_needs(net: SNNGraph, chip: Any, layer: str, what: str) -> list[int]:
    """What each single neuron of a layer needs, alone on its core."""
    wide = override_facts(
        chip, {"core.neurons": 1, "core.synapse_memory": 10**9, "core.axons_in": 10**9, "packing.rule": "equal"}
    )
    return [getattr(part, what) for part in place(net, wide).slices_of(layer)]


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_the_tightest_packing_lies_between_the_lower_bound_and_the_vendors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng)
    chip = small_chip("loihi2", core__neurons=int(rng.integers(1, 120)), core__synapse_memory=int(rng.integers(300, 2000)))
    fewest, vendor = place(net, chip, packing="fewest"), place(net, chip)
    bound = lower_bound(fewest.populations, stored_bits(net, chip), chip)
    assert bound <= fewest.cores_used <= vendor.cores_used


@pytest.mark.parametrize("base", ["loihi1", "loihi2"])
@pytest.mark.parametrize("seed", seeds(6, 25))
def test_fewest_is_the_fewest_of_all_equal_splits(seed: int, base: str) -> None:
    """Brute force over every number of equal shares of a dense layer."""
    rng = np.random.default_rng(seed)
    inputs, outputs = int(rng.integers(1, 60)), int(rng.integers(1, 200))
    neurons, memory = int(rng.integers(1, 100)), int(rng.integers(60, 1500))
    chip = small_chip(base, core__neurons=neurons, core__synapse_memory=memory)
    wide = small_chip(base, core__neurons=10**6, core__synapse_memory=10**9)

    @lru_cache
    def words(n: int) -> int:
        return place(dense_net(inputs, n), wide).slices[0].memory_words

    fits = [k for k in range(1, outputs + 1) if -(-outputs // k) <= neurons and words(-(-outputs // k)) <= memory]
    if fits:
        assert place(dense_net(inputs, outputs), chip, packing="fewest").cores_used == fits[0]


@pytest.mark.parametrize("seed", seeds(6, 25))
def test_more_neurons_never_need_less(seed: int) -> None:
    """Memory of a core that holds all, and cores of the tightest packing, as a dense layer grows."""
    rng = np.random.default_rng(seed)
    inputs, outputs = int(rng.integers(1, 40)), int(rng.integers(1, 150))
    for base in ("loihi1", "loihi2"):
        tight = small_chip(base, core__neurons=int(rng.integers(1, 60)), core__synapse_memory=int(rng.integers(60, 900)))
        wide = small_chip(base, core__neurons=10**6, core__synapse_memory=10**9)
        less, more = dense_net(inputs, outputs), dense_net(inputs, outputs + 1)
        assert place(less, wide).slices[0].memory_words <= place(more, wide).slices[0].memory_words
        assert place(less, tight, packing="fewest").cores_used <= place(more, tight, packing="fewest").cores_used
        assert place(less, tight).slices[0].axons_in <= place(dense_net(inputs + 1, outputs), tight).slices[0].axons_in


def test_axons_of_loihi1_are_those_that_synapses_need() -> None:
    """Input axons: pixels with a synapse onto the core. Output axons: two for each pixel and core it goes to.

    To a core of dense neurons one for each neuron with synapses: not of positions outside all windows of a pool between.
    """
    rng = np.random.default_rng(3)
    for seed in range(12):
        net = random_net(np.random.default_rng(seed))
        chip = small_chip("loihi1", core__neurons=int(rng.integers(8, 60)), core__synapse_memory=10**6, core__axons_out=10**6)
        placement = place(net, chip)
        for population in placement.populations:
            source = previous(net, population.name)
            exists = matrix_onto(net, source, population.name)
            shape = net.shape_of(source)
            if population.is_map:
                by_pixel = exists.reshape(*population.shape, *shape).any(axis=3)
                for part in placement.slices_of(population.name):
                    box = tuple(slice(*along) for along in part.box)
                    assert part.axons_in == by_pixel[box].any(axis=(0, 1, 2)).sum()
            if source == "input":
                continue
            for here in placement.slices_of(source):
                box = tuple(slice(*along) for along in here.box)
                expected = 0
                for there in placement.slices_of(population.name):
                    target = tuple(slice(*along) for along in there.box)
                    if population.is_map:
                        expected += 2 * int(by_pixel[target].any(axis=(0, 1, 2))[box[1:]].sum())
                    else:
                        expected += int(exists.reshape(-1, *shape).any(axis=0)[box].sum())
                assert here.axons_out == expected


def test_output_axons_split_a_layer_further() -> None:
    """100 neurons to 5 cores need 500 output axons; cores of 40 neurons need 200 each."""
    chip = small_chip("loihi1", core__neurons=100, core__axons_out=200)
    placement = place(dense_net(4, 100, 500), chip)
    assert [part.neurons for part in placement.slices_of("fc1")] == [25, 25, 25, 25]
    assert all(part.axons_out == 125 for part in placement.slices_of("fc1"))


def test_chips_are_filled_in_order() -> None:
    chip = small_chip("loihi2", core__neurons=10, chip__usable_cores=4)
    placement = place(dense_net(3, 95), chip, chips=3)
    assert (placement.cores_used, placement.cores_limit, placement.chips_used) == (10, 12, 3)


def test_a_network_far_too_large_is_counted_but_not_laid_out() -> None:
    """Cores of one neuron: 25,000 of them are counted, and the slices are cut by neurons into pieces of two."""
    chip = small_chip("loihi1", core__neurons=1, core__axons_out=10**6)
    placement = place(dense_net(3, 25000), chip)
    assert placement.cores_used == placement.cores_in_all == 25000 and len(placement.slices) < 20000
    assert covered(placement) and placement.chips_used == -(-25000 // 128)
    assert place(dense_net(3, 25000), chip, chips=200).more_cores == 0


def test_limits_that_are_not_published_do_not_split() -> None:
    chip = small_chip("loihi2", core__neurons=None, core__synapse_memory=None, chip__usable_cores=None, chip__cores=None)
    placement = place(dense_net(3, 9000), chip)
    assert placement.cores_used == 1 and placement.cores_limit is None and placement.chips_used == 1


def test_a_map_higher_than_a_core_is_cut_along_y_too() -> None:
    chip = small_chip("loihi2", core__neurons=63)
    net = chain([Layer(name="c", synapse=conv(np.random.default_rng(0), 4, 1), neuron=IF())], input_shape=(1, 34, 10))
    placement = place(net, chip)
    assert covered(placement)
    assert tile_of(placement, "c") == (1, 8, 4)  # 32 rows of 4 channels are too many; in 4 parts, one column fits


def test_a_convolution_over_one_axis_is_cut_along_it() -> None:
    net = chain([Layer(name="c", synapse=Conv1d(weight=np.ones((6, 2, 3))), neuron=IF())], input_shape=(2, 102))
    placement = place(net, small_chip("loihi2", core__neurons=64))
    assert covered(placement) and tile_of(placement, "c") == (8, 6)


def test_a_layer_of_one_neuron_and_one_weight() -> None:
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((1, 1))), neuron=IF())], input_shape=(1,))
    for chip in (LOIHI1, LOIHI2):
        (part,) = place(net, chip).slices
        assert (part.neurons, part.memory_words, part.axons_in, part.axons_out) == (1, 1, 1, 0)


def test_the_most_output_axons_of_a_box_are_those_of_the_listed_boxes() -> None:
    profile = load_profile("truenorth")
    seen = 0
    for seed in range(12):
        populations = find_populations(random_net(np.random.default_rng(seed)))
        core, targets = Core(profile, {}), group_targets_by_source(populations)
        cuts = {p.name: cut_evenly(p.shape, [max(1, n // 2) for n in p.shape]) for p in populations}
        for population in populations:
            most = int(core.count_axons_from(population, cuts, targets).max())
            assert core.count_max_axons_from(population, cuts, targets) == most
            seen += most > 0
    assert seen > 12


@pytest.mark.parametrize("seed", [70012, 70017, 70042, 70065, 70407])
def test_the_order_of_layers_in_a_file_does_not_matter(seed: int) -> None:
    """Cores of Speck differ in memory: layers side by side took them in the order of the file."""
    graph = (wild_graph(seed), _Rich(seed, "float").graph(), draw_network(seed))[seed % 3]
    rng = np.random.default_rng(seed + 7)
    orders = [rng.permutation(len(graph.layers)) for _ in range(3)]
    for name in ("speck2f", "truenorth", "odin", "akd1000"):
        profile = load_profile(name)
        wanted, *found = (
            place(replace(graph, layers=tuple(graph.layers[n] for n in order)), profile)
            for order in (range(len(graph.layers)), *orders)
        )
        for other in found:
            assert other.slices == wanted.slices and other.unplaced == wanted.unplaced
