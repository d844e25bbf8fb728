"""Core assignment: matching against every permutation, first fit against its limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import check_cores
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.axes import identity_axis
from spear_deploy.placement.axon_sets import AxonSet
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.core_assignment import (
    MAX_OPEN,
    CoreAssignment,
    CoreBins,
    CoreSupply,
    Slice,
    competing_for_cores,
)
from spear_deploy.placement.core_needs import Core
from spear_deploy.placement.place import lower_bound, place, place_populations
from spear_deploy.placement.weight_bits import stored_bits
from tests.support.chips import conv, dense_net, small_chip
from tests.support.seeds import seeds

SPECK = load_profile("speck2f")
KERNEL_KI = (16, 16, 16, 32, 32, 64, 64, 16, 16)
NEURON_KI = (64, 64, 64, 32, 32, 16, 16, 16, 16)


def speck_layer(rng: np.random.Generator, into: int, name: str) -> tuple[Layer, int]:
    """A 1 x 1 or 3 x 3 convolution that keeps its map, of a random number of channels."""
    out, k = int(rng.choice([4, 8, 16, 33, 64, 100])), int(rng.choice([1, 3]))
    synapse = conv(rng, out, into, k, padding=(k // 2, k // 2))
    return Layer(name=name, synapse=synapse, neuron=IF()), out


def speck_net(rng: np.random.Generator) -> SNNGraph:
    layers, channels = [], 2
    for n in range(int(rng.integers(2, 7))):
        layer, channels = speck_layer(rng, channels, f"c{n}")
        layers.append(layer)
    size = int(rng.choice([8, 16, 17, 32]))
    return chain(layers, input_shape=(2, size, size))


def needs(net: SNNGraph) -> list[tuple[int, int]]:
    """Kernel and neuron words of each layer, by sinabs' formulas."""
    needs = []
    for layer in net.layers:
        f, c, kx, ky = layer.synapse.weight.shape
        _, fy, fx = net.shape_of(layer.name)
        kernel = c * 2 ** (int(np.ceil(np.log2(kx * ky))) + int(np.ceil(np.log2(f))))
        needs.append((kernel, f * 2 ** (int(np.ceil(np.log2(fy))) + int(np.ceil(np.log2(fx))))))
    return needs


@pytest.mark.parametrize("seed", seeds(6, 40))
def test_as_many_layers_find_a_core_as_in_the_best_permutation(seed: int) -> None:
    net = speck_net(np.random.default_rng(seed))
    layers = needs(net)
    kinds = list(zip(KERNEL_KI, NEURON_KI, strict=True))
    fits = [[k <= 1024 * kernel and n <= 1024 * neuron for kernel, neuron in kinds] for k, n in layers]
    best = max(sum(fits[i][core] for i, core in enumerate(chosen)) for chosen in set(permutations(range(9), len(layers))))
    placement = place(net, SPECK)
    placed = [part for part in placement.slices if part.slot is not None]
    assert len(placed) == best
    assert len({part.slot for part in placed}) == best
    for part in placed:
        kernel, neuron = layers[placement.layers.index(part.layer)]
        assert kernel <= 1024 * KERNEL_KI[part.slot] and neuron <= 1024 * NEURON_KI[part.slot]
        assert (part.memory_words, part.neuron_words) == (kernel, neuron)
    assert placement == place(net, SPECK)


def test_a_greedy_choice_would_fail_where_the_matching_does_not() -> None:
    """The small layer fits anywhere; in order it would take a wide core, and the three wide layers need all three."""
    rng = np.random.default_rng(0)
    layers = [Layer(name="small", synapse=conv(rng, 2, 2, 1), neuron=IF())]
    layers += [Layer(name=f"wide{n}", synapse=conv(rng, 16, 2 if n == 0 else 16, 1), neuron=IF()) for n in range(3)]
    net = chain(layers, input_shape=(2, 64, 64))
    report = check(net, SPECK)
    assert report.verdict == "fits"
    slots = {part.layer: part.slot for part in report.placement.slices}
    assert {slots[f"wide{n}"] for n in range(3)} == {0, 1, 2} and slots["small"] not in (0, 1, 2)


def test_layers_that_compete_for_too_few_cores_are_named() -> None:
    """Four maps of 64 Ki neuron words; three cores hold one each."""
    rng = np.random.default_rng(0)
    layers = [Layer(name=f"wide{n}", synapse=conv(rng, 16, 2 if n == 0 else 16, 1), neuron=IF()) for n in range(4)]
    report = check(chain(layers, input_shape=(2, 64, 64)), SPECK)
    assert report.verdict == "does_not_fit" and report.cores_used == 4
    (row,) = report.over
    assert (row.resource, row.where, row.used, row.limit) == ("cores", "wide0 + wide1 + wide2 + wide3", 4, 3)
    assert "drop 8 of 16 channels of wide" in row.remedy


def test_a_layer_that_no_core_holds_is_held_against_the_nearest() -> None:
    """64 Ki kernel words lie on cores of 16 Ki neuron words: a layer that needs both fits none."""
    net = chain([Layer(name="c", synapse=conv(np.random.default_rng(0), 64, 64), neuron=IF())], input_shape=(64, 34, 34))
    report = check(net, SPECK)
    (row,) = report.over
    assert (row.resource, row.used, row.limit) == ("synapse_memory", 65536, 16384)
    assert row.detail == "on a core of kind wide_maps"
    assert "split c into 2 layers of 32 channels, a core each" in row.remedy


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_slices_that_share_a_core_are_within_its_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [int(n) for n in rng.integers(2, 60, int(rng.integers(2, 6)))]
    chip = small_chip("truenorth", core__neurons=64, core__axons_in=60, core__layers=int(rng.integers(1, 4)))
    report = check(dense_net(*widths), chip)
    on: dict[int, list] = {}
    for part in report.placement.slices:
        on.setdefault(part.core, []).append(part)
    for parts in on.values():
        assert sum(part.neurons * part.copies for part in parts) <= 64
        assert len({part.layer for part in parts}) <= chip.core.layers.value
    assert report.cores_used == len(on)
    assert report.bound <= report.fewest_cores.cores_used <= report.cores_used


def test_layers_of_one_source_share_its_axons() -> None:
    """Two layers read the same 200 inputs: one core has 200 axons for both, not 400."""

    def layer(name: str) -> Layer:
        return Layer(name=name, synapse=Dense(weight=np.ones((100, 200))), neuron=IF())

    net = SNNGraph(
        layers=(layer("a"), layer("b")),
        edges=(Edge(source="input", target="a"), Edge(source="input", target="b")),
        input_shape=(200,),
    )
    report = check(net, load_profile("truenorth"))
    assert report.cores_used == 1
    row = next(row for row in report.rows if row.resource == "axons_in")
    assert (row.where, row.used) == ("a + b", 200)


@pytest.mark.parametrize(("chip", "rows"), [("truenorth", 2 * 20 + 6), ("brainscales2", 2 * 20 + 6), ("reckon", 20 + 6)])
def test_each_way_from_a_source_into_a_layer_has_rows_of_its_own_where_a_chip_has_several(chip: str, rows: int) -> None:
    """Two ways into one layer read 20 inputs, a second layer reads them on one way: their rows are shared by all three.

    ReckOn has one row for each input, whose cells hold the sums of both ways.
    """
    neuron = {"truenorth": IF(), "reckon": LIF(tau_s=0.02), "brainscales2": CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)}[chip]
    end = neuron if chip == "truenorth" else LI(tau_s=0.02) if chip == "reckon" else CubaLI(tau_mem_s=0.02, tau_syn_s=0.01)
    layers = [Layer(name=name, synapse=Dense(weight=np.ones((6, 20)))) for name in "ab"]
    layers += [Layer(name="c", neuron=neuron), Layer(name="d", synapse=Dense(weight=np.ones((5, 20))), neuron=neuron)]
    layers += [
        Layer(name="e", synapse=Dense(weight=np.ones((4, 6))), neuron=neuron),
        Layer(name="f", synapse=Dense(weight=np.ones((2, 4))), neuron=end),
    ]
    pairs = ("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("input", "d"), ("c", "e"), ("e", "f")
    edges = tuple(Edge(source=source, target=target) for source, target in pairs)
    net = SNNGraph(layers=tuple(layers), edges=edges, input_shape=(20,), output="f")
    report = check(net, load_profile(chip))
    parts = {part.layer: part for part in report.placement.slices}
    assert parts["c"].axons_in == (20 if chip == "reckon" else 40) and parts["d"].axons_in == 20
    assert parts["c"].memory_words == parts["c"].axons_in * 6 * (1 if chip == "reckon" else parts["c"].copies)
    row = next(row for row in report.rows if row.resource == "axons_in" and row.where.startswith("c + d + e"))
    assert row.used == rows + (0 if row.where == "c + d + e" else 4)


def test_layers_that_read_parts_of_one_map_share_the_axons_of_what_both_read() -> None:
    """One reads rows 0 to 3 of six pixels each, the other rows 0, 2 and 4: together five rows, not seven."""
    top = Conv2d(weight=np.ones((1, 1, 4, 6)), stride=(9, 1))
    bottom = Conv2d(weight=np.ones((1, 1, 3, 6)), stride=(9, 1), dilation=(2, 1))
    net = SNNGraph(
        layers=(
            Layer(name="top", synapse=top, neuron=IF()),
            Layer(name="bottom", synapse=bottom, neuron=IF()),
            Layer(name="out", neuron=IF()),
        ),
        edges=(
            Edge(source="input", target="top"),
            Edge(source="input", target="bottom"),
            Edge(source="bottom", target="out"),
        ),
        input_shape=(1, 6, 6),
        output="out",
    )
    report = check(net, load_profile("truenorth"))
    axons = {part.layer: part.axons_in for part in report.placement.slices}
    assert axons == {"top": 24, "bottom": 18, "out": 1}
    row = next(row for row in report.rows if row.resource == "axons_in")
    assert (row.where, row.used) == ("top + bottom + out", 5 * 6 + 1)


def test_passes_hold_layers_in_order() -> None:
    """Cores of one layer each, 5 of them; layers of 2, 2, 2 and 5 cores run in 3 passes."""
    chip = small_chip(
        "loihi1", core__neurons=10, chip__usable_cores=5, chip__cores=5, chip__multi_pass=True,
        topology__cores_per_tile=None,
    )  # fmt: skip
    report = check(dense_net(3, 20, 20, 20, 50), chip)
    assert report.verdict == "fits" and report.passes == 3
    assert [part.run for part in report.placement.slices] == [0] * 4 + [1] * 2 + [2] * 5
    assert (report.cores_used, report.cores_limit, report.placement.cores_in_all) == (5, 5, 11)
    assert report.headline.startswith("FITS loihi1 IN 3 PASSES: 5 of 5 cores (100 %)")
    assert report.to_json()["packing"] == {"vendor": 11, "fewest": 11, "lower_bound": 11, "balanced": None}
    too_big = check(dense_net(3, 20, 60), chip)
    assert too_big.verdict == "does_not_fit" and too_big.cores_used == 6
    assert check(dense_net(3, 20), chip).passes == 1 and check(dense_net(3, 20), load_profile("loihi1")).passes is None


def role_net() -> SNNGraph:
    layers = [Layer(name=f"c{n}", synapse=Conv2d(weight=np.ones((2, 2, 1, 1))), neuron=IF()) for n in range(3)]
    return chain(layers, input_shape=(2, 4, 4))


@pytest.mark.parametrize(
    ("roles", "groups"),
    [
        ({"wide_maps": "hidden"}, ["wide_maps", "wide_maps", "balanced"]),
        ({"wide_maps": "readout"}, ["balanced", "balanced", "wide_maps"]),
        ({"wide_maps": "readout", "balanced": "hidden", "small": "any"}, ["balanced", "balanced", "wide_maps"]),
        ({"wide_maps": "hidden", "balanced": "any", "many_weights": "readout"}, ["wide_maps", "wide_maps", "balanced"]),
    ],
)
def test_a_core_takes_the_layers_of_its_role(roles: dict[str, str], groups: list[str]) -> None:
    """`readout` takes the last layer, `hidden` the others, `any` both, whatever roles other cores have."""
    chip = small_chip("speck2f", **{f"core_groups__{name}__role": role for name, role in roles.items()})
    placement = place(role_net(), chip)
    assert [chip.core_groups[part.group].name for part in placement.slices] == groups and placement.unplaced == ()


@pytest.mark.parametrize(("role", "layers"), [("hidden", ("c2",)), ("readout", ("c0", "c1"))])
@pytest.mark.parametrize("share", [False, True])
def test_layers_that_no_core_has_the_role_for_do_not_fit(role: str, layers: tuple[str, ...], share: bool) -> None:
    names = [group.name for group in SPECK.core_groups]
    chip = small_chip("speck2f", packing__share_cores=share, **{f"core_groups__{name}__role": role for name in names})
    report = check(role_net(), chip)
    rows = [row for row in report.over if row.resource == "cores"]
    assert [(row.layers, row.used, row.limit, row.detail) for row in rows] == [
        ((layer,), 1, 0, "no core has the role for it") for layer in layers
    ]
    assert report.verdict == "does_not_fit"


def test_slices_that_compete_for_the_same_cores_are_one_row() -> None:
    """64 neurons on cores of 4 and 8: 3 of 4 take 12, 2 of 8 take 16; the layer is cut into 8s, for which 2 cores are left."""
    chip = small_chip(
        "speck2f", packing__rule="equal", core__neurons=4, core_groups__balanced__neurons=8,
        **{f"core_groups__{name}__neurons": 4 for name in ("wide_maps", "many_weights", "small")},
    )  # fmt: skip
    (row,) = [row for row in check(dense_net(2, 64), chip).over if row.resource == "cores" and row.where == "fc1"]
    assert (row.used, row.limit, row.detail) == (8, 2, "only 2 of the chip's cores can hold any of them")


@pytest.mark.parametrize(("role", "bound"), [("hidden", 2), ("any", 1), (None, 1)])
def test_a_chip_that_cuts_no_layer_needs_two_cores_where_roles_part_them(role: str | None, bound: int) -> None:
    chip = small_chip("xylo_audio2", core_groups__hidden__role=role)
    neuron = CubaLIF(tau_mem_s=0.01, tau_syn_s=0.01)
    layers = [Layer(name=name, synapse=Dense(weight=np.ones((3, 3))), neuron=neuron) for name in ("a", "b")]
    placement = place(chain(layers, input_shape=(3,)), chip)
    assert lower_bound(placement.populations, {"a": 8, "b": 8}, chip) == bound <= placement.cores_used


def test_a_memory_of_the_chip_ends_a_chip_before_its_cores_do() -> None:
    """SpiNNaker: 100 inputs to 256 neurons are 100 · (3 + 256) = 25900 words; two such cores fill a chip of 60000."""
    chip = small_chip("spinnaker1", chip__memory_words=60000)
    dense = Dense(weight=np.ones((1024, 100), np.float32))
    net = chain([Layer(name="fc", synapse=dense, neuron=LIF(tau_s=0.01))], input_shape=(100,))
    report = check(net, chip)
    (row,) = report.over
    assert (row.resource, row.where, row.used, row.limit) == ("synapse_memory", "chip", 4 * 25900, 60000)
    assert "2 chips instead of 1" in row.remedy
    two = check(net, chip, chips=2)
    assert two.verdict == "fits" and [part.chip for part in two.placement.slices] == [0, 0, 1, 1]
    assert two.to_json()["chips_used"] == 2


def test_a_convolution_has_no_core_twice() -> None:
    net = chain([Layer(name="c", synapse=Conv2d(weight=np.ones((8, 2, 3, 3))), neuron=IF())], input_shape=(2, 12, 12))
    placement = place(net, small_chip("brainscales2", core__neurons=64, core__axons_in=100, core__synapse_memory=4000))
    assert all(part.memory_words <= 4000 and part.axons_in <= 100 for part in placement.slices)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_first_fit_that_skips_cores_an_equal_slice_did_not_fit_is_plain_first_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [
        Slice(
            layer=f"l{k % 3}",
            needs={name: int(rng.integers(0, 6)) for name in ("neurons", "synapse_memory", "axons_out")} | {"axons_in": 3},
            axons=(AxonSet(sources=("in",), channels=(0, 3), ranges=((identity_axis(4), k % 2, 4),), count=3),),
        )
        for k in range(5)
    ]
    items = [kinds[k] for k in rng.integers(0, len(kinds), 200)]
    core = Core(small_chip(), {})
    core.limits |= {"neurons": 12, "synapse_memory": 14, "axons_out": 10, "axons_in": 7, "layers": 2}
    fast, plain = CoreBins(core, items, len(items)), CoreBins(core, items, len(items))
    assert [fast.put_first(item) for item in items] == [plain.put(item, plain.open) for item in items]
    assert fast.used > 20


def read_in_parts(rng: np.random.Generator, layers: int) -> SNNGraph:
    """Return layers side by side that read the same inputs, each some of them, and a layer that reads the first."""
    inputs, sizes = int(rng.integers(4, 12)), [int(n) for n in rng.integers(1, 5, layers)]
    masks = rng.random((layers, inputs)) < 0.6
    masks[:, 0] = True
    made = [
        Layer(name=f"l{k}", synapse=Dense(weight=masks[k] * rng.uniform(0.5, 1, (size, inputs))), neuron=IF())
        for k, size in enumerate(sizes)
    ]
    made.append(Layer(name="out", synapse=Dense(weight=np.ones((2, sizes[0]))), neuron=IF()))
    edges = [Edge(source=INPUT, target=layer.name) for layer in made[:-1]] + [Edge(source="l0", target="out")]
    return SNNGraph(layers=made, edges=edges, input_shape=(inputs,), output="out")


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_a_core_has_a_row_for_each_source_that_any_of_its_layers_reads(seed: int) -> None:
    """Layers that leave out other sources, but as many, need more rows together than each alone."""
    rng = np.random.default_rng(seed)
    net = read_in_parts(rng, int(rng.integers(2, 5)))
    chip = small_chip("odin", core__neurons=int(rng.integers(4, 30)), core__axons_in=int(rng.integers(12, 24)))
    placement = place_populations(find_chip_populations(net, chip), stored_bits(net, chip), chip)
    rows: dict[int, set[tuple[str, int]]] = {}
    for part in placement.slices:
        read = np.flatnonzero(net[part.layer].synapse.weight.any(axis=0))
        rows.setdefault(part.core, set()).update((net.edges_into(part.layer)[0].source, int(n)) for n in read)
        assert part.axons_in == len(read)
    most = max(len(sources) for sources in rows.values())
    assert max(row.used for row in check_cores(placement, chip) if row.resource == "axons_in") == most
    assert most <= chip.core.axons_in.value


def test_sources_that_layers_on_a_core_leave_out_count_where_another_layer_reads_them() -> None:
    """Two layers read 150 of 300 inputs each, not the same ones: 300 rows, more than the 256 of a core."""
    weight = np.ones((10, 300))
    weight[:, :150] = 0
    layers = [Layer(name=name, synapse=Dense(weight=w), neuron=IF()) for name, w in (("a", weight), ("b", weight[:, ::-1]))]
    net = SNNGraph(layers=layers, edges=[Edge(source=INPUT, target=name) for name in "ab"], input_shape=(300,), output="b")
    odin = small_chip("odin")
    report = check(net, odin, remedies=False)
    assert [part.axons_in for part in report.placement.slices] == [150, 150]
    assert (report.verdict, report.cores_used) == ("does_not_fit", 2)
    whole = net.with_layers(lambda layer: replace(layer, synapse=Dense(weight=weight)))
    report = check(whole, odin, remedies=False)
    assert report.cores_used == 1 and {row.used for row in report.rows if row.resource == "axons_in"} == {150}


def test_layers_that_leave_out_sources_share_the_axons_of_a_core_as_whole_ones_do() -> None:
    """Two layers that read 150 of 200 inputs each, 300 in all, have no more rows than the 200 of layers that read them all."""
    weight = np.ones((10, 200))
    weight[:, :50] = 0
    for first in (weight, np.ones((10, 200))):
        layers = [Layer(name=name, synapse=Dense(weight=w), neuron=IF()) for name, w in (("a", first), ("b", weight[:, ::-1]))]
        net = SNNGraph(layers=layers, edges=[Edge(source=INPUT, target=name) for name in "ab"], input_shape=(200,), output="b")
        report = check(net, small_chip("odin"), remedies=False)
        assert report.cores_used == 1 and {row.used for row in report.rows if row.resource == "axons_in"} == {200}


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_axons_on_a_core_are_the_union_of_the_sources_that_its_slices_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sources, items, reads = 20, [], []
    for k in range(12):
        read = rng.random(sources) < rng.choice([0.2, 0.6, 1.0])
        read[0] = True
        used = b"" if read.all() else np.packbits(read).tobytes()
        way = int(rng.integers(0, 2))
        axons = AxonSet(
            sources=("in",), channels=(0, sources), ranges=(), count=int(read.sum()), way=way, used=used,
            whole_count=sources if used else 0,
        )  # fmt: skip
        items.append(Slice(layer=f"l{k}", needs={"neurons": 1, "axons_in": axons.count}, axons=(axons,)))
        reads.append({(way, int(n)) for n in np.flatnonzero(read)})
    core = Core(small_chip(), {})
    core.limits |= {"neurons": 12, "layers": 12, "axons_in": int(rng.integers(sources, 2 * sources))}
    bins, rows = CoreBins(core, items, len(items)), [set() for _ in items]  # type: ignore[var-annotated]
    for item, read in zip(items, reads, strict=True):
        first = next(k for k, had in enumerate(rows) if len(had | read) <= core.limits["axons_in"])
        assert bins.put_first(item) == first
        rows[first] |= read
        assert bins.left[first, -2] == core.limits["axons_in"] - len(rows[first])


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_a_chip_takes_cores_until_their_rows_fill_its_memory(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = dense_net(*(int(n) for n in rng.integers(10, 60, 5)))
    cores, memory = int(rng.integers(2, 6)), int(rng.integers(2000, 6000))
    chip = small_chip(
        "spinnaker1",
        core__neurons=int(rng.integers(8, 40)),
        chip__memory_words=memory,
        chip__cores=cores,
        chip__usable_cores=cores,
    )
    chips = int(rng.integers(1, 9))
    placement = place(net, chip, chips=chips)
    words: dict[int, int] = {}
    where: dict[int, int] = {}
    for part in placement.slices:
        words[part.core] = words.get(part.core, 0) + (part.memory_words or 0)
        where[part.core] = part.chip
    expected, filled, there, here = {}, 0, 0, 0
    for core in sorted(words):
        if there == cores or (there and filled + words[core] > memory and here + 1 < chips):
            here, filled, there = here + 1, 0, 0
        expected[core], filled, there = here, filled + words[core], there + 1
    assert where == expected


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_layers_that_are_not_cut_take_the_first_core_with_room_or_the_emptiest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [int(n) for n in rng.integers(2, 14, int(rng.integers(3, 8)))]
    cores, room, chips = int(rng.integers(1, 4)), int(rng.integers(8, 20)), int(rng.integers(1, 3))
    facts = {
        "chip__cores": cores + 1,
        "chip__usable_cores": cores + 1,
        "core_groups__hidden__count": cores,
        "core_groups__hidden__neurons": room,
        "core_groups__readout__neurons": 50,
    }
    placement = place(dense_net(5, *widths), small_chip("xylo_audio3", **facts), chips=chips)
    left = dict.fromkeys(((chip, slot) for chip in range(chips) for slot in range(cores)), room)
    expected: list[tuple[int, int]] = []
    for width in widths[:-1]:
        where = next((core for core, n in left.items() if n >= width), None) or max(left, key=lambda core: left[core])
        left[where] -= width
        expected.append(where)
    assert [(part.chip, part.slot) for part in placement.slices[:-1]] == expected
    assert (placement.slices[-1].chip, placement.slices[-1].slot, placement.slices[-1].group) == (0, cores, 1)
    order = list(dict.fromkeys((part.chip, part.slot) for part in placement.slices))
    assert [part.core for part in placement.slices] == [order.index((part.chip, part.slot)) for part in placement.slices]


def test_layers_that_compete_for_other_cores_are_rows_of_their_own() -> None:
    """Four maps of 64 Ki neuron words and three cores; three kernels of 64 Ki words and two cores."""
    rng = np.random.default_rng(0)
    layers = [Layer(name=f"wide{n}", synapse=conv(rng, 16, 2 if n == 0 else 16, 1), neuron=IF()) for n in range(4)]
    layers.append(Layer(name="small", synapse=conv(rng, 64, 16, 1, stride=(4, 4)), neuron=IF()))
    layers += [Layer(name=f"deep{n}", synapse=conv(rng, 64, 64, 3, padding=(1, 1)), neuron=IF()) for n in range(3)]
    report = check(chain(layers, input_shape=(2, 64, 64)), SPECK, remedies=False)
    rows = [(row.where, row.used, row.limit) for row in report.over if row.resource == "cores"]
    assert rows == [("wide0 + wide1 + wide2 + wide3", 4, 3), ("deep0 + deep1 + deep2", 3, 2)]
    assert sorted(part.core for part in report.placement.slices) == list(range(8))
    assert report.cores_used == 8 and report.placement.chips_used == 1


def test_empty_cores_that_a_rival_could_take_are_cores_for_all_of_them() -> None:
    """A layer of 10 neurons has no core left: three of 6 lie on those that hold 10, and six cores that hold 6 are empty."""
    chip = small_chip(
        "speck2f", packing__share_cores=True, core_groups__wide_maps__neurons=10,
        **{f"core_groups__{name}__neurons": 6 for name in ("balanced", "many_weights", "small")},
    )  # fmt: skip
    supply = CoreSupply(profile=chip, cores=tuple(Core(chip, {}, group) for group in range(4)), chips=1, share=True)
    items = [Slice(layer=f"l{k}", needs={"neurons": n}) for k, n in enumerate((6, 6, 6, 10))]
    assignments = [CoreAssignment(core=k, group=0, slot=k) for k in range(3)] + [CoreAssignment(core=3, group=0)]
    assert competing_for_cores(items, assignments, supply, 3) == ([0, 1, 2, 3], 9)


def test_a_group_whose_cores_are_not_counted_has_no_core() -> None:
    counts = {f"core_groups__{name}__count": None for name in ("balanced", "many_weights", "small")}
    chip = small_chip("speck2f", chip__cores=3, chip__usable_cores=3, **counts)
    supply = CoreSupply(profile=chip, cores=(), chips=2, share=False)
    assert [(place.group, place.slot, place.chip) for place in supply.list_places()] == [
        (0, slot, chip) for chip in range(2) for slot in range(3)
    ]


def test_a_small_layer_takes_the_first_core_whatever_kinds_follow() -> None:
    chip = small_chip("speck2f", packing__share_cores=True, core__layers=3)
    assert [(part.slot, part.core) for part in place(role_net(), chip).slices] == [(0, 0)] * 3


@pytest.mark.parametrize(
    ("roles", "kind"),
    [
        ({}, "wide_maps"),
        ({"wide_maps": "hidden", "many_weights": "readout", "balanced": "hidden", "small": "hidden"}, "many_weights"),
        ({"wide_maps": "hidden", "many_weights": "hidden", "balanced": "hidden", "small": "readout"}, "small"),
    ],
)
def test_a_layer_that_no_core_holds_is_held_against_a_core_of_its_role(roles: dict[str, str], kind: str) -> None:
    """64 Ki kernel words and 64 Ki neuron words."""
    net = chain([Layer(name="c", synapse=conv(np.random.default_rng(0), 64, 64), neuron=IF())], input_shape=(64, 34, 34))
    chip = small_chip("speck2f", **{f"core_groups__{name}__role": role for name, role in roles.items()})
    report = check(net, chip, remedies=False)
    assert report.verdict == "does_not_fit"
    assert {row.detail for row in report.over if "memory" in row.resource} == {f"on a core of kind {kind}"}


@pytest.mark.parametrize(
    ("memory", "chips", "expected"),
    [
        (2 * 25900, 3, [0, 0, 1, 1]),
        (2 * 25900 - 1, 4, [0, 1, 2, 3]),
        (30000, 4, [0, 1, 2, 3]),
        (4 * 25900, 4, [0, 0, 0, 0]),
    ],
)
def test_a_chip_holds_cores_up_to_the_last_word_of_its_memory(memory: int, chips: int, expected: list[int]) -> None:
    """Four cores of SpiNNaker with 100 rows of 3 + 256 words each."""
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((1024, 100))), neuron=LIF(tau_s=0.01))], input_shape=(100,))
    placement = place(net, small_chip("spinnaker1", chip__memory_words=memory), chips=chips)
    assert [(part.memory_words, part.chip) for part in placement.slices] == [(25900, chip) for chip in expected]


@pytest.mark.parametrize(("chips", "expected"), [(4, [0, 1, 2, 3]), (2, [0, 1, 1, 1])])
def test_a_core_that_needs_more_than_a_chip_has_stands_alone(chips: int, expected: list[int]) -> None:
    """Single neurons that 100 inputs reach take 100 rows of 4 words, of the 300 that a chip has."""
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((4, 100))), neuron=LIF(tau_s=0.01))], input_shape=(100,))
    placement = place(net, small_chip("spinnaker1", chip__memory_words=300), chips=chips)
    assert [(part.memory_words, part.chip) for part in placement.slices] == [(400, chip) for chip in expected]


def test_of_too_many_open_cores_the_oldest_takes_no_more() -> None:
    core = Core(small_chip(), {})
    core.limits |= {"neurons": 10}
    items = [Slice(layer="l", needs={"neurons": n}) for n in [6] * (MAX_OPEN + 1) + [4, 4]]
    bins = CoreBins(core, items, len(items))
    assert [bins.put_first(item) for item in items] == [*range(MAX_OPEN + 1), 1, 2]


@pytest.mark.parametrize(("sizes", "verdict"), [((6, 6, 6, 10), "fits"), ((10, 6, 10, 10, 10), "does_not_fit")])
def test_no_layer_is_left_without_a_core_where_slices_share_cores(sizes: tuple[int, ...], verdict: str) -> None:
    """Three cores hold 10 neurons, the others 6: in order the small layers take the three, and the last layer fitted nowhere."""
    names = [group.name for group in SPECK.core_groups]
    widths = {f"core_groups__{name}__neurons": 10 if name == "wide_maps" else 6 for name in names}
    chip = small_chip("speck2f", packing__rule="equal", packing__share_cores=True, core__neurons=10, **widths)
    layers = [
        Layer(name=f"fc{k}", synapse=Dense(weight=np.ones((out, into))), neuron=IF())
        for k, (into, out) in enumerate(zip((4, *sizes[:-1]), sizes, strict=True))
    ]
    report = check(chain(layers, input_shape=(4,)), chip)
    assert report.verdict == verdict
    rows = [(row.used, row.limit) for row in report.rows if row.resource == "cores" and row.where != "chip"]
    placed = all(part.slot is not None for part in report.placement.slices)
    assert (placed and not rows) if verdict == "fits" else (not placed and rows == [(4, 3)])
