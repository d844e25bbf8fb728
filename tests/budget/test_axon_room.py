"""Axons of each type on TrueNorth's cores, beside a count that lists every synapse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget import axon_cuts, axon_room
from spear_deploy.budget.axon_cuts import fit_axons
from spear_deploy.budget.axon_room import counts_axons, find_crowded, measure_core_rooms
from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.latency import count_core_neurons
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.budget.what_if import PLACED
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Conv2d, Dense, Flatten, Layer, Scale, SumPool, TrueNorthLIF, make_sparse, write_out
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.spike_paths import find_spike_paths
from spear_deploy.pipeline.report_facts import describe_cores
from spear_deploy.placement.place import place
from spear_deploy.quantize import quantize, shared_cells
from spear_deploy.quantize.for_chip import ask_integers
from spear_deploy.simulator import SpikeCounts
from tests.adaptation.random_networks import random_map_network
from tests.support.drawn_networks import draw_network
from tests.support.seeds import seeds

TRUENORTH = load_profile("truenorth")
Synapses = list[tuple[str, int, int, str, int, int]]
"""Of a neuron: source, neuron of the source, delay, layer of weights, row and value of each weight that is not 0."""


def list_synapses(graph: SNNGraph, name: str) -> list[Synapses]:
    """Return the synapses into each unit of a layer, followed back to neurons and the input one by one."""
    layer, shape = graph[name], graph.input_shape_of(name)
    before: list[Synapses] = [[] for _ in range(int(np.prod(shape)))]
    for edge in graph.edges_into(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            for unit, into in enumerate(before):
                into.append((edge.source, unit, edge.delay, "", 0, 1))
        else:
            for into, passed in zip(before, list_synapses(graph, edge.source), strict=True):
                into += [(source, unit, delay + edge.delay, *rest) for source, unit, delay, *rest in passed]
    return pass_on(layer, shape, before)


def pass_on(layer: Layer, shape: tuple[int, ...], before: list[Synapses]) -> list[Synapses]:
    """Return the synapses into the units behind a layer's synapse."""
    synapse: Any = layer.synapse

    def weigh(unit: int, row: int, value: float) -> Synapses:
        assert all(not name for *_, name, _, _ in before[unit]), "weights behind weights"
        return [(source, k, delay, layer.name, row, int(value)) for source, k, delay, *_ in before[unit] if value]

    if synapse is None or isinstance(synapse, Flatten):
        return before
    if isinstance(synapse, Dense):
        weight = write_out(synapse.weight)
        return [[s for i, value in enumerate(row) for s in weigh(i, o, value)] for o, row in enumerate(weight)]
    if isinstance(synapse, Scale):
        weight = np.broadcast_to(
            synapse.weight.reshape(-1, *[1] * (len(shape) - 1)) if synapse.weight.ndim == 1 else synapse.weight, shape
        )
        return [weigh(unit, unit // int(np.prod(shape[1:])), value) for unit, value in enumerate(weight.reshape(-1))]
    number = np.arange(int(np.prod(shape))).reshape(shape)
    out_shape = synapse.output_shape(shape)
    kernel = synapse.kernel_size if isinstance(synapse, SumPool) else synapse.weight.shape[2:]
    stride = synapse.stride or kernel
    dilation = (1,) * len(kernel) if isinstance(synapse, SumPool) else synapse.dilation
    padding = (synapse.padding,) * len(kernel) if isinstance(synapse.padding, int) else synapse.padding
    after: list[Synapses] = []
    for channel, *where in product(*map(range, out_shape)):
        into: Synapses = []
        for taps in product(*map(range, kernel)):
            at = tuple(p * s + t * d - pad for p, s, t, d, pad in zip(where, stride, taps, dilation, padding, strict=True))
            if all(0 <= n < size for n, size in zip(at, shape[1:], strict=True)):
                if isinstance(synapse, SumPool):
                    into += before[number[(channel, *at)]]
                    continue
                per = synapse.weight.shape[1]
                for k in range(per):
                    source = channel // (out_shape[0] // synapse.groups) * per + k
                    into += weigh(number[(source, *at)], channel, synapse.weight[(channel, k, *taps)])
        after.append(into)
    return after


def find_by_hand(
    graph: SNNGraph, placement: Any, quiet: Collection[str] = ()
) -> tuple[dict[int, int], dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """Return the axons of each core, and by neuron its core and its copies there; `quiet` sources left out."""
    synapses = {
        p.name: [[one for one in unit if one[0] not in quiet] for unit in list_synapses(graph, p.name)]
        for p in placement.populations
    }
    core_of: dict[tuple[str, int], int] = {}
    for part in placement.slices:
        (shape,) = (p.shape for p in placement.populations if p.name == part.layer)
        for at in product(*(range(*along) for along in part.box)):
            core_of[part.layer, int(np.ravel_multi_index(at, shape))] = part.core
    needs: dict[tuple[Any, ...], int] = {}
    palette: dict[tuple[str, int, int], int] = {}
    for name, units in synapses.items():
        layers = list(dict.fromkeys(order_weights(graph, name)))
        first = {layer: sum(most_values(graph, other) for other in layers[:k]) for k, layer in enumerate(layers)}
        in_common = sum(most_values(graph, layer) for layer in layers) > 4
        for n, into in enumerate(units):
            read: dict[tuple[Any, ...], int] = {}
            for source, unit, delay, layer, row, value in into:
                steps = graph.depths[name] - graph.depths[source] + delay
                kind = rank_in_common(graph, layers, row, value) if in_common else first[layer] + rank(graph, layer, row, value)
                axon = (source, unit, steps, kind)
                assert kind < 4 and palette.setdefault((name, n, kind), value) == value  # a neuron has one weight for each type
                read[axon] = read.get(axon, 0) + 1
            for axon, number in read.items():
                key = (core_of[name, n], axon)
                needs[key] = max(needs.get(key, 0), number)
    axons, driven = dict.fromkeys(core_of.values(), 0), dict.fromkeys(core_of, 0)
    for (core, (source, unit, *_)), number in needs.items():
        axons[core] += number
        if source != INPUT:
            driven[source, unit] += number
    return axons, core_of, {neuron: max(1, number + (neuron[0] == graph.output)) for neuron, number in driven.items()}


def count_by_hand(graph: SNNGraph, placement: Any, quiet: Collection[str] = ()) -> dict[int, tuple[int, int]]:
    """Return the axons and neurons of each core, counted axon by axon; `quiet` sources left out."""
    axons, core_of, copies = find_by_hand(graph, placement, quiet)
    neurons = dict.fromkeys(axons, 0)
    for neuron, number in copies.items():
        neurons[core_of[neuron]] += number
    return {core: (axons[core], neurons[core]) for core in axons}


def rooms_of(graph: SNNGraph) -> tuple[axon_room.CoreRoom, ...]:
    """Return what each core of TrueNorth takes of a network in its integers."""
    rooms = measure_core_rooms(graph, find_spike_paths(graph), place(graph, TRUENORTH), TRUENORTH)
    assert rooms is not None
    return rooms.cores


def count_from_input(graph: SNNGraph, placement: Any) -> int:
    """Return the axons that the network's input takes on all cores: what the count has of it alone."""
    return sum(axons for axons, _ in count_by_hand(graph, placement, placement.layers).values())


def order_weights(graph: SNNGraph, name: str) -> list[str]:
    """Return the layers of weights into a neuron layer in the order of its ways."""
    return [
        next((layer.name for layer in path.layers if hasattr(layer.synapse, "weight")), "")
        for path in find_spike_paths(graph)
        if path.target == name
    ]


def values_of(graph: SNNGraph, layer: str, row: int) -> list[int]:
    weight = write_out(graph[layer].synapse.weight)  # type: ignore[union-attr]
    return sorted({int(v) for v in np.atleast_1d(weight[row] if weight.ndim else weight).reshape(-1)} - {0})


def rank(graph: SNNGraph, layer: str, row: int, value: int) -> int:
    single = not layer or isinstance(graph[layer].synapse, Scale)
    return 0 if single else values_of(graph, layer, row).index(value)


def rank_in_common(graph: SNNGraph, layers: Sequence[str], row: int, value: int) -> int:
    """Return the number of a value among those of a neuron in all layers of weights into it."""
    return sorted({v for layer in layers for v in values_of(graph, layer, row)}).index(value)


def most_values(graph: SNNGraph, layer: str) -> int:
    if not layer or isinstance(graph[layer].synapse, Scale):
        return 1
    return max(len(values_of(graph, layer, row)) for row in range(len(graph[layer].synapse.weight)))  # type: ignore[union-attr]


def as_if(graph: SNNGraph) -> SNNGraph:
    """Return a network with TrueNorth's neurons."""
    return graph.with_layers(lambda layer: layer if layer.neuron is None else replace(layer, neuron=IF()))


def draw(seed: int) -> SNNGraph:
    graph = random_map_network(seed, axes=1 + seed % 2, plain=seed % 3 == 0) if seed % 2 else draw_network(seed)
    return as_if(graph)


@pytest.mark.parametrize("seed", seeds(6, 200))
def test_axons_and_neurons_of_each_core_are_those_counted_one_by_one(seed: int) -> None:
    graph = draw(seed)
    chip = override_facts(TRUENORTH, {"core.neurons": 24, "core.axons_in": 40, "connectivity.fan_in": 40})
    integer = ask_integers(graph, chip, "spikes")
    if not isinstance(integer, SNNGraph):
        pytest.skip("refused")
    for profile in (TRUENORTH, chip):
        placement = place(integer, profile)
        rooms = measure_core_rooms(integer, find_spike_paths(integer), placement, profile)
        assert rooms is not None
        by_hand = count_by_hand(integer, placement)
        assert {k: (room.axons, room.neurons) for k, room in enumerate(rooms.cores)} == by_hand
        counted = axon_room.count_on_cores(placement, rooms, profile)
        assert dict(enumerate(count_core_neurons(counted))) == {core: neurons for core, (_, neurons) in by_hand.items()}
        sent = {name: np.ones(integer.shape_of(name), int) for name in (INPUT, *counted.layers)}
        traffic = count_traffic(integer, profile, counted, SpikeCounts(sent=sent, steps=1, samples=1))
        _, core_of, copies = find_by_hand(integer, placement)
        onto, more = dict.fromkeys(by_hand, 0), 0
        for name in counted.layers:
            for unit, into in enumerate(list_synapses(integer, name)):
                onto[core_of[name, unit]] += len(into) * copies[name, unit]
                more += len(into) * (copies[name, unit] - 1)
        assert dict(enumerate(traffic.core_synops)) == onto and traffic.copied_synops == more


@pytest.mark.parametrize("seed", range(8))
def test_axons_of_layers_with_one_palette_are_those_counted_one_by_one(seed: int) -> None:
    """Two or three layers of weights into the same neurons, among them a weight per value, and sources that they share."""
    rng = np.random.default_rng(seed)
    maps = seed % 2 == 0

    def weights(inputs: int) -> Any:
        return (
            Conv2d(weight=rng.normal(size=(4, inputs, 3, 3)), padding=(1, 1))
            if maps
            else Dense(weight=rng.normal(size=(4, inputs)))
        )

    layers = [
        Layer(name="a", synapse=weights(3), neuron=IF()),
        Layer(name="b", synapse=weights(4)),
        Layer(name="c", synapse=weights(3)),
        Layer(name="d", synapse=Scale(weight=rng.uniform(0.5, 1, (4, 1, 1) if maps else (4,)))),
        Layer(name="n", neuron=IF()),
    ]
    taken = ["b", "c", *["d"] * (seed % 4 < 2)]
    ways = [("input", "a"), ("a", "b"), ("input", "c"), *[("a", "d")] * ("d" in taken), *((name, "n") for name in taken)]
    graph = SNNGraph(
        layers=tuple(layer for layer in layers if layer.name in ("a", "n", *taken)),
        edges=tuple(Edge(source=source, target=target) for source, target in ways),
        input_shape=(3, 4, 4) if maps else (3,),
        output="n",
    )
    integer = ask_integers(graph, TRUENORTH, "spikes")
    assert isinstance(integer, SNNGraph) and sum(most_values(integer, name) for name in taken) > 4
    for chip in (TRUENORTH, override_facts(TRUENORTH, {"core.neurons": 24, "core.axons_in": 256})):
        placement = place(integer, chip)
        rooms = measure_core_rooms(integer, find_spike_paths(integer), placement, chip)
        assert rooms is not None
        assert {k: (room.axons, room.neurons) for k, room in enumerate(rooms.cores)} == count_by_hand(integer, placement)


def truenorth(name: str, weight: Any, neuron: bool = True) -> Layer:
    return Layer(name=name, synapse=Dense(weight=np.asarray(weight)), neuron=TrueNorthLIF(v_threshold=9) if neuron else None)


def find_open(graph: SNNGraph) -> list[str]:
    """Return the layers of weights whose axons have no room on cores that are cut by one axon for each source."""
    return list(find_crowded(graph, place(graph, TRUENORTH), TRUENORTH))


def two_values(outputs: int, inputs: int, unread: int = 0) -> np.ndarray:
    """Return weights of which every source has both values, but for the last ones, which have none."""
    weight = np.where((np.arange(outputs)[:, None] + np.arange(inputs)) % 2, 3, 1)
    weight[:, inputs - unread :] = 0
    return weight


def test_sources_without_weights_hide_no_shortage_of_their_neighbours() -> None:
    """200 neurons of which 100 have no weights: 200 axons of two types are no more than the sources, but need 300 neurons."""
    graph = chain([truenorth("a", np.ones((200, 3), int)), truenorth("b", two_values(4, 200, 100))], input_shape=(3,))
    assert not graph.metadata.get("quantization", {}).get("findings")
    assert find_open(graph) == ["a", "b"]
    report = check(graph, TRUENORTH)
    assert report.verdict == "fits" and report.cores_used > place(graph, TRUENORTH).cores_used == 1
    few = chain([truenorth("a", np.ones((200, 3), int)), truenorth("b", two_values(4, 200, 150))], input_shape=(3,))
    assert find_open(few) == [] and check(few, TRUENORTH).cores_used == 1


@pytest.mark.parametrize("make", [np.asarray, make_sparse])
@pytest.mark.parametrize("is_integer", [True, False])
def test_sources_whose_weights_are_all_0_take_no_axon(is_integer: bool, make: Any) -> None:
    """300 inputs, 44 of them unread: 256 axons, which is all that a core has."""
    weight = np.ones((4, 300), int)
    weight[:, 100:144] = 0
    neuron: Any = TrueNorthLIF(v_threshold=9) if is_integer else IF()
    for unread, verdict in ((44, "fits"), (43, "does_not_fit")):
        weight[0, 100] = unread == 43
        dense = Dense(weight=make(weight if is_integer else weight * 0.5))
        report = check(chain([Layer(name="a", synapse=dense, neuron=neuron)], input_shape=(300,)), TRUENORTH)
        (row,) = (row for row in report.rows if row.resource == "axons_in")
        assert (report.verdict, row.used) == (verdict, 300 - unread)
        (row,) = (row for row in report.rows if row.resource == "synapse_memory")
        assert row.used == 4 * (300 - unread)


def test_a_shortage_is_told_with_its_numbers_where_no_cut_has_room() -> None:
    """Each of 200 neurons reads all others through two types, and has a copy for each neuron that reads it."""
    size = 200
    weight = np.where((np.arange(size)[:, None] * 7 + np.arange(size)) % 2, 3, 1)
    layers = (
        truenorth("in", np.ones((size, 2), int), neuron=False),
        truenorth("loop", weight, neuron=False),
        Layer(name="n", neuron=TrueNorthLIF(v_threshold=9)),
    )
    graph = SNNGraph(layers=layers, edges=loop_of(size, "n").edges, input_shape=(2,), output="n")
    one = override_facts(
        TRUENORTH, {"chip.cores": 3, "chip.usable_cores": 3, "topology.mesh_columns": None, "topology.mesh_rows": None}
    )
    report = check(graph, one)
    assert report.verdict == "unchecked"
    (row,) = (row for row in report.rows if row.status == "unchecked" and row.where == "loop")
    assert row.remedy == (
        "with an axon for each type of a source's weights and a neuron in front of each axon a core of n takes 402 axons of 256, "
        "600 neurons of 256 and 241,200 cells of 65,536; no finer cut that was tried has room"
    )


@pytest.mark.parametrize("seed", seeds(6, 16))
def test_layers_are_cut_until_the_axons_counted_one_by_one_have_room(seed: int) -> None:
    """The report of a network in floating point has the cores of its integers."""
    graph = draw(seed)
    chip = override_facts(TRUENORTH, {"core.neurons": 24, "core.axons_in": 40, "connectivity.fan_in": 40})
    integer = ask_integers(graph, chip, "spikes")
    assert isinstance(integer, SNNGraph)
    report, decided = check(graph, chip), check(integer, chip)
    placement = fit_axons(integer, place(integer, chip), {}, chip, max_cores=4096)
    counts = count_by_hand(integer, place(integer, chip))
    is_full = any(axons > 40 or neurons > 24 for axons, neurons in counts.values())
    if report.over or report.unsupported:
        return
    assert (report.verdict == "fits") == (placement is not None) and report.verdict == decided.verdict
    if placement is not None:
        assert all(axons <= 40 and neurons <= 24 for axons, neurons in count_by_hand(integer, placement).values())
        assert report.cores_used == decided.cores_used == placement.cores_used
        assert (placement.cores_used > place(integer, chip).cores_used) == is_full
        (row,) = (row for row in report.rows if row.resource == "cores")
        assert row.used == placement.cores_used


@pytest.mark.parametrize(("seed", "neurons", "axons", "cores"), [(47, 28, 44, 16), (85, 24, 40, 4)])
def test_a_finer_cut_may_take_as_many_cores_as_there_are(seed: int, neurons: int, axons: int, cores: int) -> None:
    """A cut without room that takes all cores is cut further: the finer pieces may need no more of them."""
    facts = {"core.neurons": neurons, "core.axons_in": axons, "connectivity.fan_in": axons}
    chip = override_facts(TRUENORTH, facts)
    integer = ask_integers(draw(seed), chip, "spikes")
    assert isinstance(integer, SNNGraph)
    placed = place(integer, chip)
    free = fit_axons(integer, placed, {}, chip)
    assert free is not None and free.cores_used == cores == placed.cores_used
    limited = fit_axons(integer, placed, {}, chip, max_cores=cores)
    assert limited is not None and limited.cores_used == cores
    assert all(a <= axons and n <= neurons for a, n in count_by_hand(integer, limited).values())
    assert fit_axons(integer, placed, {}, chip, max_cores=cores - 1) is None


@pytest.mark.parametrize("seed", seeds(6, 16))
def test_rows_and_floor_plan_have_the_axons_and_neurons_that_are_counted_one_by_one(seed: int) -> None:
    graph = draw(seed)
    chip = override_facts(TRUENORTH, {"core.neurons": 64, "core.axons_in": 128, "connectivity.fan_in": 64})
    integer = ask_integers(graph, chip, "spikes")
    assert isinstance(integer, SNNGraph)
    report, decided = check(graph, chip), check(integer, chip)
    if report.verdict != "fits":
        return
    counts = count_by_hand(integer, decided.placement)
    cores = describe_cores(decided.placement, chip)
    place_of = {name: k for k, name in enumerate(cores["resources"])}
    shown = [
        tuple(core["amounts"][place_of[name]] for name in ("axons_in", "neurons", "synapse_memory")) for core in cores["cores"]
    ]
    assert shown == [(axons, neurons, axons * neurons) for axons, neurons in counts.values()]
    for resource, most in zip(("axons_in", "neurons", "synapse_memory"), map(max, zip(*shown, strict=True)), strict=True):
        assert max(row.used or 0 for row in decided.rows if row.resource == resource) == most
    driven = [core["amounts"][place_of["axons_out"]] for core in cores["cores"]]
    sent = sum(counts[core][0] for core in counts) - count_from_input(integer, decided.placement)
    assert sum(driven) == sent and all(out <= neurons for out, (_, neurons, _) in zip(driven, shown, strict=True))

    def list_placed(rows: Any) -> list[Any]:
        return sorted((row.resource, row.where, row.used) for row in rows if row.resource in PLACED and row.where != INPUT)

    assert list_placed(report.rows) == list_placed(decided.rows)


@pytest.mark.parametrize(("values", "cores"), [(2, 4), (1, 3)])
def test_the_tightest_packing_has_room_for_axons_of_each_type(values: int, cores: int) -> None:
    """Three layers of 90 and three of 166 neurons fill three cores, of which each then takes the axons of two layers.

    One has 60 sources of two values, the other 90: 300 axons.
    """

    def build(name: str, size: int, first: int, count: int, values: int) -> Layer:
        weight = np.zeros((size, 150), int)
        weight[:, first : first + count] = 1 + (np.arange(size)[:, None] + np.arange(count)) % values
        return truenorth(name, weight)

    layers = [build(name, 90, 0, 60, most) for name, most in zip("abc", (values, values, 1), strict=True)]
    layers += [build(name, 166, 60, 90, values) for name in "def"]
    edges = tuple(Edge(source=INPUT, target=name) for name in "abcdef")
    report = check(SNNGraph(layers=tuple(layers), edges=edges, input_shape=(150,), output="f"), TRUENORTH)
    assert (report.verdict, report.cores_used, report.fewest_cores.cores_in_all) == ("fits", cores, cores)


def test_layers_share_cores_with_the_axons_of_each_type() -> None:
    """40 layers of 8 neurons, each with up to 4 axons in front of it: 32 of a core of 256, where one axon each were 2 cores."""
    rng = np.random.default_rng(0)
    layers = [Layer(name=f"l{k}", synapse=Dense(weight=rng.normal(size=(8, 8))), neuron=IF()) for k in range(40)]
    graph = chain(layers, input_shape=(8,))
    integer = ask_integers(graph, TRUENORTH, "spikes")
    report = check(graph, TRUENORTH)
    assert report.verdict == "fits" and place(integer, TRUENORTH).cores_used == 2 and report.cores_used == 5
    counts = count_by_hand(integer, report.placement).values()
    assert all(axons <= 256 and neurons <= 256 for axons, neurons in counts)
    assert sum(neurons for _, neurons in counts) > 4 * 256 * 0.75
    assert check(graph, TRUENORTH, limits=UserLimits(cores=5)).verdict == "fits"
    assert check(graph, TRUENORTH, limits=UserLimits(cores=4)).verdict == "unchecked"


def test_pieces_of_a_map_share_cores_with_the_copies_that_their_neurons_need() -> None:
    """A neuron of a map is read by the cores around it: with a copy for each core that reads its layer it were 96 cores."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="a", synapse=Conv2d(weight=rng.normal(size=(6, 1, 3, 3)), padding=(1, 1)), neuron=IF()),
        Layer(name="b", synapse=Conv2d(weight=rng.normal(size=(12, 6, 3, 3)), stride=(2, 2), padding=(1, 1)), neuron=IF()),
    ]
    graph = chain(layers, input_shape=(1, 8, 8))
    report = check(graph, TRUENORTH)
    counts = count_by_hand(ask_integers(graph, TRUENORTH, "spikes"), report.placement)
    assert report.verdict == "fits" and all(axons <= 256 and neurons <= 256 for axons, neurons in counts.values())
    assert report.cores_used == len(counts) <= 48


def test_weights_without_neurons_of_their_own_are_decided_by_the_integers_of_the_next_layer() -> None:
    dense = Dense(weight=np.random.default_rng(0).normal(size=(5, 9)))
    graph = chain([Layer(name="fc", synapse=dense), Layer(name="n", neuron=IF())], input_shape=(9,))
    report = check(graph, TRUENORTH)
    assert report.verdict == "fits"
    assert [(row.where, row.used) for row in report.rows if row.resource == "weight_palette"] == [("n", 4)]


def test_single_weights_in_front_of_a_pool_take_axons_though_no_values_are_open() -> None:
    """Each neuron reads a source through up to two windows of windows: an axon for each, and more cores."""
    pool = SumPool(kernel_size=(2,), stride=(1,))
    scale = Scale(weight=np.full((4, 69), 2.0))
    layers = [Layer(name="p", synapse=pool), Layer(name="n", synapse=scale), Layer(name="q", synapse=pool, neuron=IF())]
    graph = chain(layers, input_shape=(4, 70))
    integer = ask_integers(graph, TRUENORTH, "spikes")
    report, decided = check(graph, TRUENORTH), check(integer, TRUENORTH)
    assert report.cores_used == decided.cores_used > place(graph, TRUENORTH).cores_used and report.verdict == "fits"


def test_what_an_inference_costs_is_of_the_copies_that_its_axons_need() -> None:
    """Both neurons of a layer drive axons of two types: two copies each, so that 30 spikes of 3 inputs reach 4 neurons."""
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((2, 3))), neuron=IF(v_threshold=np.asarray(9.0)))]
    layers.append(Layer(name="b", synapse=Dense(weight=two_values(4, 2) * 1.0), neuron=IF(v_threshold=np.asarray(9.0))))
    graph, synops = chain(layers, input_shape=(3,)), 30 * 4 + 8 * 4
    counts = SpikeCounts(sent={INPUT: np.full(3, 10), "a": np.full(2, 4), "b": np.zeros(4, int)}, steps=10, samples=1)
    price = float(TRUENORTH.energy.all_in_pj_per_synop.value or 0) * 1e-12
    for limit, status in ((1.001 * synops * price, "ok"), (0.999 * synops * price, "over")):
        report = check(graph, TRUENORTH, activity=counts, limits=UserLimits(energy_j=limit))
        assert report.work is not None and report.work.updates.tolist() == [2 * 2 + 4]
        assert report.work.synops.sum() * 10 == synops and report.energy.total == pytest.approx(synops * price)
        (row,) = [row for row in report.rows if row.resource == "energy"]
        assert row.status in (status, "tight" if status == "ok" else status) and row.used == pytest.approx(report.energy.total)


def test_a_limit_of_cores_below_those_of_all_axons_is_open() -> None:
    graph = chain(
        [Layer(name="a", synapse=Dense(weight=np.random.default_rng(0).normal(size=(60, 200))), neuron=IF())], input_shape=(200,)
    )
    assert check(graph, TRUENORTH).cores_used == 60
    report = check(graph, TRUENORTH, limits=UserLimits(cores=59))
    assert report.verdict == "unchecked" and report.cores_used == 1


def test_axons_of_two_layers_that_share_a_core_and_a_source_are_counted_once() -> None:
    """Both read 120 inputs through two types: 240 axons for both, not 480."""
    layers = (truenorth("a", two_values(8, 120)), truenorth("b", two_values(9, 120)), truenorth("c", np.ones((1, 8), int)))
    edges = [Edge(source=INPUT, target="a"), Edge(source=INPUT, target="b"), Edge(source="a", target="c")]
    graph = SNNGraph(layers=layers, edges=tuple(edges), input_shape=(120,), output="c")
    (room,) = rooms_of(graph)
    assert (room.layers, room.axons, room.neurons) == (("b", "a", "c"), 240 + 8, 8 + 9 + 1)
    assert find_open(graph) == []
    late = replace(edges[1], delay=1)
    assert find_open(SNNGraph(layers=layers, edges=(edges[0], late, edges[2]), input_shape=(120,), output="c")) == ["a", "b", "c"]


def loop_of(size: int, output: str) -> SNNGraph:
    layers = (
        truenorth("in", np.ones((size, 2), int), neuron=False),
        truenorth("loop", np.ones((size, size), int), neuron=False),
        Layer(name="n", neuron=TrueNorthLIF(v_threshold=9)),
    )
    pairs = ((INPUT, "in", 0), ("in", "n", 0), ("n", "loop", 1), ("loop", "n", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(2,), output=output)


def test_an_output_that_reads_itself_stands_once_more_for_its_way_out() -> None:
    """128 neurons with a copy each fill the core; a neuron sends to its own core or out of the chip."""
    assert find_open(loop_of(128, "n")) == []
    assert find_open(loop_of(129, "n")) == ["in", "loop"]


def test_a_neuron_has_four_values_of_all_layers_of_weights_into_it() -> None:
    """Each layer has three; together they are four, or six: over."""

    def build(*values: int) -> SNNGraph:
        weights = [np.tile(values[:3], (2, 1)), np.tile(values[3:], (2, 1))]
        layers = [truenorth(name, weight, neuron=False) for name, weight in zip("ab", weights, strict=True)]
        layers.append(Layer(name="n", neuron=TrueNorthLIF(v_threshold=9)))
        edges = [Edge(source=source, target=target) for source, target in ((INPUT, "a"), (INPUT, "b"), ("a", "n"), ("b", "n"))]
        return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(3,), output="n")

    graph = build(1, 2, 3, 2, 3, 4)
    (room,) = rooms_of(graph)
    assert (room.axons, room.neurons) == (6, 2) and check(graph, TRUENORTH).verdict == "fits"
    report = check(build(1, 2, 3, 4, 5, 6), TRUENORTH)
    assert [(row.resource, row.where, row.used, row.limit) for row in report.over] == [
        ("weight_palette", name, 6, 4) for name in "ab"
    ]


def test_a_network_of_very_many_pairs_of_neurons_is_not_cut_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain([truenorth("a", np.ones((200, 3), int)), truenorth("b", two_values(4, 200, 100))], input_shape=(3,))
    assert check(graph, TRUENORTH).verdict == "fits"
    monkeypatch.setattr(axon_cuts, "MAX_SEARCHED_PAIRS", 1)
    assert check(graph, TRUENORTH).verdict == "unchecked"


def test_what_is_not_counted_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights behind weights have no type of their own, and very many pairs of neurons are not listed."""
    graph = chain([truenorth("a", [[1, 2]]), truenorth("b", [[1]])], input_shape=(2,))
    behind = chain([truenorth("a", [[1, 2]], neuron=False), truenorth("b", [[1]])], input_shape=(2,))
    assert measure_core_rooms(behind, find_spike_paths(behind), place(behind, TRUENORTH), TRUENORTH) is None
    assert find_open(graph) == []
    monkeypatch.setattr(axon_room, "MAX_PAIRS", 1)
    assert find_open(graph) == ["a", "b"]
    rows = check(graph, TRUENORTH).rows
    assert all(row.remedy.startswith(axon_room.NOT_COUNTED) for row in rows if row.resource == "weight_palette")


def test_a_sparse_matrix_takes_the_axons_of_the_array() -> None:
    weight = two_values(6, 9, 2)
    rooms = [rooms_of(graph) for graph in (chain([truenorth("a", each)], input_shape=(9,)) for each in (weight,))]
    sparse = chain(
        [Layer(name="a", synapse=Dense(weight=make_sparse(weight)), neuron=TrueNorthLIF(v_threshold=9))], input_shape=(9,)
    )
    assert rooms == [rooms_of(sparse)] and rooms[0][0].axons == 14


def test_axons_are_counted_of_the_chips_own_integers_alone() -> None:
    graph = chain([Layer(name="a", synapse=Dense(weight=two_values(3, 5) * 0.1), neuron=IF())], input_shape=(5,))
    counted = {format: counts_axons(quantize(graph, format=format), TRUENORTH) for format in ("truenorth", "loihi")}
    assert counted == {"truenorth": True, "loihi": False} and not counts_axons(graph, TRUENORTH)
    assert not counts_axons(
        quantize(graph, format="truenorth"), override_facts(TRUENORTH, {"connectivity.weight_palette": "unlimited"})
    )


# ------------------------------------------------------------------------------------------------- parts by themselves


def into_one(weights: dict[str, Any], inputs: tuple[int, ...] = (3,)) -> SNNGraph:
    """Layers of weights (or other synapses) from the input into one layer of neurons."""
    synapses = {name: Dense(weight=np.array(w)) if isinstance(w, list) else w for name, w in weights.items()}
    layers = [Layer(name=name, synapse=synapse) for name, synapse in synapses.items()]
    edges = [Edge(source=INPUT, target=name) for name in synapses] + [Edge(source=name, target="n") for name in synapses]
    neurons = Layer(name="n", neuron=TrueNorthLIF(v_threshold=9))
    return SNNGraph(layers=(*layers, neurons), edges=tuple(edges), input_shape=inputs, output="n")


def find_types_of(graph: SNNGraph) -> Any:
    """Types of the weights into the neurons, by layer; None where they are more than four."""
    types = axon_room.find_weight_types(graph, find_spike_paths(graph), TRUENORTH)
    return None if types is None else {name: own.tolist() for name, own in types["n"].items()}


def test_five_types_are_one_too_many() -> None:
    assert find_types_of(into_one({"a": [[1, 2, 3, 4]]}, (4,))) == {"a": [[0, 1, 2, 3]]}
    assert find_types_of(into_one({"a": [[1, 2, 3, 4, 5]]}, (5,))) is None


def test_layers_with_five_types_one_after_another_are_numbered_together() -> None:
    """Two and three values, one of which both have, are four; of one neuron and of several."""
    for rows in (1, 2):
        graph = into_one({"a": [[1, 2, 0]] * rows, "b": [[2, 3, 4]] * rows})
        assert find_types_of(graph) == {"a": [[0, 1, -1]] * rows, "b": [[1, 2, 3]] * rows}
    three = into_one({"a": [[1, 2]], "b": [[2, 3]], "c": [[3, 4]]}, (2,))
    assert find_types_of(three) == {"a": [[0, 1]], "b": [[1, 2]], "c": [[2, 3]]}


def test_ways_whose_rows_are_not_the_same_neurons_are_numbered_one_after_another() -> None:
    """A way without weights has a type of its own; the rows of a convolution are channels, and a single number has none."""
    conv = Conv2d(weight=np.arange(1, 4).reshape(1, 1, 1, 3))
    flat = [Layer(name="c", synapse=conv), Layer(name="f", synapse=Flatten())]
    flat += [Layer(name="d", synapse=Dense(weight=np.array([[1, 2, 3, 0, 0], [3, 1, 2, 0, 0], [0, 0, 0, 0, 1]])))]
    ends = (INPUT, "c"), ("c", "f"), ("f", "n"), (INPUT, "d"), ("d", "n")
    neurons = Layer(name="n", neuron=TrueNorthLIF(v_threshold=9))
    beside = SNNGraph(layers=(*flat, neurons), edges=[Edge(source=a, target=b) for a, b in ends], input_shape=(1, 1, 5))
    assert find_types_of(beside) is None
    without = replace(into_one({"a": [[1, 2, 3, 4], [1, 2, 3, 4], [0] * 4, [0] * 4], "sum": None}, (4,)), output="n")
    assert find_types_of(without) is None
    scales = into_one({name: Scale(weight=np.array(k)) for k, name in enumerate("abcd", 1)})
    assert find_types_of(scales) == {name: k for k, name in enumerate("abcd")}
    assert find_types_of(into_one({name: Scale(weight=np.array(k)) for k, name in enumerate("abcde", 1)})) is None


def test_a_neuron_reads_one_weight_of_a_scale_and_several_through_a_pool() -> None:
    values = np.arange(1, 5).reshape(1, 2, 2)
    pool, flat = Layer(name="p", synapse=SumPool(kernel_size=(2, 2))), Layer(name="f", synapse=Flatten())

    def rank(weight: Any, *behind: Layer) -> Any:
        return axon_room._rank_weights([Layer(name="s", synapse=Scale(weight=np.array(weight))), *behind]).tolist()

    assert rank(values) == rank(values, flat) == [[[0, 0], [0, 0]]]
    assert rank(values, pool) == rank(values, pool, flat) == [[[0, 1], [2, 3]]]
    assert rank([3, 0, 2]) == [0, -1, 0]
    assert rank(3) == rank(3, pool) == 0 and rank(0, pool) == -1


def test_pairs_are_all_sources_times_all_targets() -> None:
    graph = chain([truenorth("a", np.ones((5, 6), int))], input_shape=(6,))
    assert [axon_room.count_pairs(graph, path) for path in find_spike_paths(graph)] == [30]


def test_values_are_counted_of_the_layers_of_weights_with_the_same_rows() -> None:
    """A flatten beside them has none."""
    dense = into_one({"a": [[1, 2, 0]] * 3, "b": [[2, 3, 4]] * 3, "none": Flatten()})
    assert [axon_room.count_values(dense, name) for name in "ab"] == [4, 4]
    conv = Conv2d(weight=np.arange(1, 13).reshape(4, 1, 1, 3), padding=(0, 1))
    point = Conv2d(weight=np.arange(4).reshape(4, 1, 1, 1) % 2)
    maps = into_one({"a": conv, "b": point}, (1, 1, 3))
    assert [axon_room.count_values(maps, name) for name in "ab"] == [4, 4]


def test_the_fullest_core_is_told_of_layers_on_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights out of the neurons of a full core are crowded as those into it."""
    layers = [truenorth(name, np.ones((2, 2), int)) for name in "abc"]
    graph = chain(layers, input_shape=(2,))
    for amounts in (((300, 10), (400, 10)), ((400, 10), (300, 10)), ((300, 300), (300, 500)), ((300, 500), (300, 300))):
        rooms = [
            axon_room.CoreRoom(core=(0, k), layers=("a",), group=None, axons=axons, neurons=neurons, driven=0)
            for k, (axons, neurons) in enumerate(amounts)
        ]
        monkeypatch.setattr(
            axon_room, "measure_core_rooms", lambda *_, rooms=rooms: axon_room.CoreRooms(cores=tuple(rooms), copies={})
        )
        crowded = find_crowded(graph, place(graph, TRUENORTH), TRUENORTH)
        assert crowded == dict.fromkeys("ab", axon_room.find_shortage(max(rooms, key=lambda r: (r.axons, r.neurons)), TRUENORTH))


def test_sources_that_are_looked_at_in_several_parts_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cells, "CHUNK", 1)
    layers = [Layer(name="p", synapse=SumPool(kernel_size=(2,), stride=(1,))), truenorth("a", np.arange(1, 4).reshape(1, 3))]
    graph = chain(layers, input_shape=(1, 4))
    (room,) = rooms_of(graph)
    assert (room.axons, room.neurons) == (6, 1)


def test_a_layer_is_halved_along_its_longest_axis() -> None:
    assert axon_cuts._halve(((((0, 9)),),), (9,)) == (((0, 5), (5, 9)),)
    cuts = ((0, 2),), ((0, 4), (4, 7))
    assert [[stop - start for start, stop in along] for along in axon_cuts._halve(cuts, (2, 7))] == [[2], [2, 2, 2, 1]]


def test_all_layers_are_cut_where_a_limit_other_than_room_for_axons_is_exceeded() -> None:
    graph = chain([truenorth("a", np.ones((6, 3), int)), truenorth("b", np.ones((2, 6), int))], input_shape=(3,))

    def find(**limits: Any) -> set[str]:
        chip = override_facts(TRUENORTH, {key.replace("__", "."): value for key, value in limits.items()})
        placement = place(graph, TRUENORTH)
        rooms = measure_core_rooms(graph, find_spike_paths(graph), placement, chip)
        assert rooms is not None
        return axon_cuts._find_crowded_layers(rooms, axon_room.count_on_cores(placement, rooms, chip), chip)

    assert find() == set()
    assert find(core__axons_out=5) == {"a", "b"}


@pytest.mark.parametrize("seed", seeds(6, 16))
def test_a_limit_of_the_cores_that_a_network_takes_is_none(seed: int) -> None:
    chip = override_facts(TRUENORTH, {"core.neurons": 24, "core.axons_in": 40, "connectivity.fan_in": 40})
    integer = ask_integers(draw(seed), chip, "spikes")
    assert isinstance(integer, SNNGraph)
    placement = place(integer, chip)
    free = fit_axons(integer, placement, {}, chip)
    if free is not None:
        same = fit_axons(integer, placement, {}, chip, max_cores=free.cores_used)
        assert same is not None and same.slices == free.slices
        assert fit_axons(integer, placement, {}, chip, max_cores=free.cores_used - 1) is None
