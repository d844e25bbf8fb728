"""Copies of neurons on crossbars, where the spikes of a neuron go to one core and one layer."""

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Conv1d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline.api import suggest_command
from spear_deploy.placement.place import CoreSlice, place
from spear_deploy.simulator import simulate
from tests.adaptation.random_networks import DT_S, eighths, random_neuron
from tests.placement.test_brute_force import Synapses, sparse
from tests.support.chips import random_net, small_chip
from tests.support.seeds import seeds

TRUENORTH = load_profile("truenorth")
SEEDS = seeds(6, 300)


def recurrent(seed: int, hidden: int | None = None) -> SNNGraph:
    """Return hidden neurons that read the input and themselves, and an output that reads them."""
    rng = np.random.default_rng(seed)
    size = hidden or int(rng.integers(2, 9))
    layers = (
        Layer(name="in", synapse=Dense(weight=eighths(rng, (size, 4)))),
        Layer(name="loop", synapse=Dense(weight=eighths(rng, (size, size)))),
        Layer(name="hidden", neuron=random_neuron(rng, (1,), (IF,))),
        Layer(name="out", synapse=Dense(weight=eighths(rng, (3, size))), neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0), ("hidden", "out", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(4,), dt_s=DT_S, output="out")


def lay_out(graph: SNNGraph, copies: int) -> SNNGraph:
    """Return the network as the chip holds it: each hidden neuron stands `copies` times and each copy feeds one layer."""
    size = graph.shape_of("hidden")[0]

    def synapse(name: str, outputs: int, feeds: int | None) -> Layer:
        weight = np.tile(np.asarray(graph[name].synapse.weight), (outputs, 1))  # type: ignore[union-attr]
        if feeds is not None:
            weight = np.concatenate([weight * (copy == feeds) for copy in range(copies)], axis=1)
        return Layer(name=name, synapse=Dense(weight=weight), neuron=graph[name].neuron)

    layers = (synapse("in", copies, None), synapse("loop", copies, 0), graph["hidden"], synapse("out", 1, 1))
    assert graph.shape_of("hidden") == (size,)
    return SNNGraph(layers=layers, edges=graph.edges, input_shape=graph.input_shape, dt_s=graph.dt_s, output="out")


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_neurons_that_read_themselves_stand_once_for_each_destination_and_send_the_same_spikes(seed: int) -> None:
    graph = recurrent(seed)
    (part,) = (part for part in check(graph, TRUENORTH, remedies=False).placement.slices if part.layer == "hidden")
    assert (part.copies, part.destinations) == (2, 1)
    laid_out, size = lay_out(graph, part.copies), graph.shape_of("hidden")[0]
    x = (np.random.default_rng(seed).random((8, 3, 4)) < 0.4).astype(np.float32)
    before, after = (simulate(each, x, record=("spikes",)) for each in (graph, laid_out))
    hidden = after.spikes["hidden"].reshape(8, 3, part.copies, size)
    assert int((hidden != before.spikes["hidden"].reshape(8, 3, 1, size)).sum()) == 0
    assert int((before.output != after.output).sum()) == 0


@pytest.mark.parametrize(
    ("hidden", "cores", "copies"), [(8, 1, 2), (126, 1, 2), (127, 2, 2), (128, 2, 2), (129, 2, 3), (192, 4, 5)]
)
def test_a_recurrent_layer_takes_as_many_copies_as_cores_read_it(hidden: int, cores: int, copies: int) -> None:
    """Weights of four values take more axons, and so more cores, than these of a network that is not rounded."""
    graph = recurrent(0, hidden)
    placement = place(graph, TRUENORTH)
    parts = placement.slices_of("hidden")
    assert {part.copies for part in parts} == {copies} and placement.cores_used == cores
    assert all(part.copies * part.neurons <= 256 for part in parts)
    report = check(graph, TRUENORTH, remedies=False)
    assert report.verdict == "fits" and report.cores_used == {8: 1, 126: 64, 127: 65, 128: 65, 129: 66, 192: 195}[hidden]


def test_layers_beyond_the_destinations_of_a_core_are_over_where_neurons_have_no_copies_and_no_pruning_is_advised() -> None:
    lists = override_facts(
        TRUENORTH, {"synapse_memory.format": "word_per_weight", "synapse_memory.word_bits": 9, "weights.zero_memory": False}
    )
    report = check(recurrent(0), lists, remedies=False)
    assert {(row.resource, row.where) for row in report.over} == {("destinations", "hidden + out"), ("fan_out_cores", "hidden")}
    assert suggest_command("my.nir", "truenorth", report) == ("spear-deploy rank my.nir", "which chip takes it")
    small = override_facts(lists, {"chip.cores": 1, "chip.usable_cores": 1, "core.neurons": 4})
    assert "prune my.nir" in suggest_command("my.nir", "truenorth", check(recurrent(0, 8), small, remedies=False))[0]


@pytest.mark.parametrize("seed", seeds(4, 40))
def test_neurons_stand_once_for_each_core_that_reads_them_also_over_a_delay(seed: int) -> None:
    """Layers that are read over a delay alone act as early as those that read them, and may be cut in front of them."""
    rng = np.random.default_rng(seed)
    sizes, layers, edges = [int(n) for n in rng.integers(2, 12, 5)], [], [Edge(source=INPUT, target="n1")]
    for k in range(1, 5):
        layers.append(Layer(name=f"n{k}", synapse=Dense(weight=rng.uniform(0.5, 1, (sizes[k], sizes[k - 1]))), neuron=IF()))
        edges += [Edge(source=f"n{k - 1}", target=f"n{k}", delay=int(rng.integers(0, 3)))] if k > 1 else []
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(sizes[0],), output="n4")
    for _ in range(5):
        limits = {"core.neurons": int(rng.integers(3, 16)), "core.synapse_memory": int(rng.integers(60, 250))}
        chip = override_facts(TRUENORTH, limits)
        placement = place(graph, chip)
        for k in range(1, 4):
            readers = len(placement.slices_of(f"n{k + 1}"))
            assert {(part.copies, part.target_cores) for part in placement.slices_of(f"n{k}")} == {(readers, readers)}
        assert not any(row.resource == "fan_out_cores" for row in check(graph, chip, remedies=False).over)


def test_a_layer_that_reads_itself_is_cut_until_its_copies_are_enough_for_its_own_cores() -> None:
    """Cut for the 2 cores that read a neuron, it has cores of 8 neurons, and 3 of them read one: cores of 5 it has in the end."""
    layers = (
        Layer(name="in", synapse=Conv1d(weight=np.ones((1, 1, 1)))),
        Layer(name="loop", synapse=Conv1d(weight=np.ones((1, 1, 11)), padding=(5,))),
        Layer(name="hidden", neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1, 40), output="hidden")
    parts = place(graph, small_chip("truenorth", core__neurons=16, core__axons_in=64)).slices
    core = np.repeat(np.arange(len(parts)), [part.neurons for part in parts])
    readers = [len(set(core[max(0, neuron - 5) : neuron + 6])) for neuron in range(40)]
    assert max(readers) == 3 and {part.copies for part in parts} == {3}
    assert max(part.neurons * part.copies for part in parts) == 15


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_weights_of_0_take_no_row_of_a_core_and_no_copy_of_a_neuron(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = sparse(random_net(rng), rng)
    limits = {"core__neurons": int(rng.integers(10, 60)), "core__axons_in": int(rng.integers(30, 120))}
    placement = place(net, small_chip("truenorth", **limits))
    synapses = Synapses(net)
    for name in placement.layers:
        targets = {target: exists for target, exists in synapses.exists.items() if synapses.source[target] == name}
        cores = np.zeros(net.shape_of(name), int).reshape(-1)
        for target, exists in targets.items():
            for part in placement.slices_of(target):
                read = exists[neurons_of(net, part)].any(axis=0)
                assert part.axons_in == read.sum()
                cores += read
        for part in placement.slices_of(name):
            assert (part.target_cores, part.copies) == (cores.max(), max(1, cores.max()))
            assert part.axons_out == cores[neurons_of(net, part)].sum()


def neurons_of(net: SNNGraph, part: CoreSlice) -> np.ndarray:
    """Which neurons of its layer lie in a slice: bool."""
    here = np.zeros(net.shape_of(part.layer), bool)
    here[tuple(slice(*along) for along in part.box)] = True
    return here.reshape(-1)


def test_a_pruned_layer_is_cut_until_its_cores_have_rows_for_what_their_neurons_read() -> None:
    """Twenty neurons that read 100 of 784 inputs each: two read at most 200 together, three read more than 256."""
    rng = np.random.default_rng(0)
    weight = np.zeros((20, 784))
    for row in weight:
        row[rng.choice(784, 100, replace=False)] = 1.0
    layers = [Layer(name=name, synapse=Dense(weight=w), neuron=IF()) for name, w in (("a", weight), ("b", np.ones((10, 20))))]
    report = check(chain(layers, input_shape=(784,)), TRUENORTH, remedies=False)
    assert report.verdict == "fits"
    pairs = (weight[0::2] + weight[1::2] > 0).sum(axis=1)
    assert [part.axons_in for part in report.placement.slices_of("a")] == pairs.tolist()


def test_neurons_that_read_their_neighbours_have_copies_for_the_cores_of_these() -> None:
    """Of 400 neurons in a row each reads three on either side: four cores hold 100, and a neuron at a cut feeds two cores."""
    band = sum(np.eye(400, k=k) for k in range(-3, 4))
    layers = (
        Layer(name="in", synapse=Dense(weight=np.ones((400, 64)))),
        Layer(name="hidden", neuron=IF()),
        Layer(name="loop", synapse=Dense(weight=band)),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(64,), output="hidden"), TRUENORTH, remedies=False)
    assert report.verdict == "fits"
    parts = report.placement.slices
    assert [(part.neurons, part.copies, part.axons_in) for part in parts] == [
        (100, 2, 167), (100, 2, 170), (100, 2, 170), (100, 2, 167),
    ]  # fmt: skip


def test_a_neuron_that_reads_more_than_a_core_has_rows_for_leaves_the_others_their_cores() -> None:
    """The fourth of eight neurons reads 30 sources, of which a core has rows for 20; all others read 4 of their own."""
    weight = np.zeros((8, 60))
    for n in range(8):
        weight[n, 4 * n : 4 * n + 4] = 1.0
    weight[3, 30:] = 1.0
    weight[3, 12:16] = 0.0
    net = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(60,))
    report = check(net, small_chip("truenorth", core__axons_in=20), remedies=False)
    assert [(row.used, row.limit) for row in report.over if row.resource == "axons_in"] == [(30, 20)]


@pytest.mark.parametrize("seed", seeds(6, 10))
def test_tiles_of_a_map_with_weights_of_0_have_the_rows_that_their_places_read(seed: int) -> None:
    """Pieces of one length need as many rows as others only where they meet the same places of the kernel."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 1, (4, 2, 3)) * (rng.random((4, 2, 3)) < 0.5)
    weight[0, 0, 0] = 1.0
    synapse = Conv1d(weight=weight, padding=(1,), stride=(int(rng.integers(1, 3)),))
    net = chain([Layer(name="m", synapse=synapse, neuron=IF())], input_shape=(2, 30))
    placement = place(
        net, small_chip("truenorth", core__neurons=int(rng.integers(4, 30)), core__axons_in=int(rng.integers(6, 16)))
    )
    exists = Synapses(net).exists["m"]
    assert len(placement.slices) > 3
    for part in placement.slices:
        assert part.axons_in == exists[neurons_of(net, part)].any(axis=0).sum()


def test_each_share_of_a_layer_has_room_not_the_first_alone() -> None:
    """Of eight neurons the first four read 2 inputs each and the last four 10 of their own: with 20 rows a core takes two."""
    weight = np.zeros((8, 60))
    for n in range(8):
        weight[n, slice(2 * n, 2 * n + 2) if n < 4 else slice(8 + 10 * (n - 4), 18 + 10 * (n - 4))] = 1.0
    net = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=IF())], input_shape=(60,))
    report = check(net, small_chip("truenorth", core__axons_in=20), remedies=False)
    assert [part.axons_in for part in report.placement.slices] == [4, 4, 20, 20]
    assert not [row for row in report.over if row.resource == "axons_in"]
