"""Remedies carried out on the network: each removes its violation."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget import remedies as remedies_module
from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.what_if import Change, build_what_if
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import HardwareProfile, load_profile, override_facts
from spear_deploy.network import IF, LIF, Conv2d, Dense, Scale
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.pruning.plan import PruningPlan, prune
from tests.placement.test_brute_force import random_chip
from tests.support.chips import conv, dense_net, random_net, small_chip
from tests.support.seeds import seeds
from tests.support.wild_graphs import wild_graph


def row(graph: SNNGraph, chip: HardwareProfile, resource: str, where: str, chips: int = 1) -> BudgetRow:
    return next(r for r in check(graph, chip, chips=chips).rows if (r.resource, r.where) == (resource, where))


def narrower(graph: SNNGraph, remedy: str) -> tuple[SNNGraph, SNNGraph]:
    """Carry out "drop d of n channels of x", and the same with one channel fewer dropped."""
    dropped, channels, name = re.search(r"drop (\d+) of (\d+) channels of (\w+)", remedy).groups()
    group = next(g for g in list_prunable_groups(graph) if name in g.producers)
    assert group.channels == int(channels)
    left = group.channels - int(dropped)
    done, almost = (prune(graph, PruningPlan(kept={group.name: tuple(range(n))})) for n in (left, left + 1))
    return done, almost


def test_channels_to_drop_are_as_few_as_bring_the_cores_down() -> None:
    net, chip = dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=8)
    over = row(net, chip, "cores", "chip")
    assert (over.used, over.limit, over.status) == (11, 8, "over")
    assert "drop 30 of 100 channels of fc1: −3 cores" in over.remedy
    done, almost = narrower(net, over.remedy)
    assert row(done, chip, "cores", "chip").status != "over"
    assert row(almost, chip, "cores", "chip").status == "over"


def test_chips_are_as_few_as_hold_the_cores() -> None:
    net, chip = dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=5)
    assert "3 chips instead of 1" in row(net, chip, "cores", "chip").remedy
    assert row(net, chip, "cores", "chip", chips=3).status != "over"
    assert row(net, chip, "cores", "chip", chips=2).status == "over"


def test_fewer_weight_bits_are_offered_where_they_help() -> None:
    """64 inputs to 100 neurons: 8 bits take 2048 words in all, 4 bits 1664; a core holds 900."""
    net, chip = dense_net(64, 100), small_chip("loihi2", core__synapse_memory=1700, chip__usable_cores=1)
    over = row(net, chip, "cores", "chip")
    bits = int(re.search(r"(\d)-bit weights", over.remedy).group(1))
    for width, status in ((bits, False), (bits + 1, True)):
        allowed = override_facts(chip, {"weights.bits": [1, 2, 3, 4, 5, 6, 7, 8], "weights.default_bits": width})
        assert (row(net, allowed, "cores", "chip").status == "over") is status


def test_packing_by_hand_is_offered_where_it_is_enough() -> None:
    net = dense_net(200, 256)  # the compiler's rule takes 3 cores, 2 are enough
    chip = small_chip("loihi2", chip__usable_cores=2)
    assert "the tightest packing takes 2 cores: place the layers by hand" in row(net, chip, "cores", "chip").remedy


def test_1024_of_5120_inputs_go_where_a_core_takes_4096() -> None:
    """The example of the reference: 5120 input axons, Loihi 1 allows 4096."""
    net, chip = dense_net(5120, 4), small_chip("loihi1")
    over = row(net, chip, "axons_in", "fc1")
    assert (over.used, over.limit, over.remedy) == (5120, 4096, "prune 1024 of 5120 inputs")
    assert row(dense_net(4096, 4), chip, "axons_in", "fc1").status == "tight"
    hidden = row(dense_net(3, 5120, 4), chip, "axons_in", "fc2")
    assert hidden.remedy == "drop 1024 of 5120 channels of fc1: −1 core"


def test_200_of_500_channels_go_where_one_neuron_overfills_a_core() -> None:
    net, chip = dense_net(3, 500, 2), small_chip("loihi2", core__synapse_memory=300)
    over = row(net, chip, "synapse_memory", "fc2")
    assert (over.used, over.status) == (500, "over")
    assert "drop 200 of 500 channels of fc1" in over.remedy
    assert row(narrower(net, over.remedy)[0], chip, "synapse_memory", "fc2").status != "over"


def test_without_a_remedy_the_row_names_what_was_tried() -> None:
    net, chip = dense_net(3, 50, 50, 50), small_chip("loihi1", core__neurons=10, chip__usable_cores=2, chip__cores=2)
    assert check(net, chip).rows[0].remedy == "8 chips instead of 1"
    silent = check(net, small_chip("loihi1", core__neurons=10), limits=UserLimits(cores=2))
    assert silent.rows[0].remedy == "no layer, weight width, chip count or uniform width lowers cores enough"


def test_all_layers_narrower_where_none_alone_is_enough() -> None:
    """3 layers of 50 on cores of 10 take 15 cores, the outputs 5 of them; at 40 % of their width the hidden ones take 2 each."""
    net, chip = dense_net(3, 50, 50, 50), small_chip("loihi1", core__neurons=10)
    over = check(net, chip, limits=UserLimits(cores=9)).rows[0]
    assert over.remedy == "all layers at 40 % of their width: −6 cores"
    for share, status in ((20, "tight"), (21, "over")):
        plan = PruningPlan(kept={group.name: tuple(range(share)) for group in list_prunable_groups(net)})
        assert check(prune(net, plan), chip, limits=UserLimits(cores=9)).rows[0].status == status


def narrower_input(graph: SNNGraph, left: int) -> SNNGraph:
    """A chain whose first layer reads only the first channels of the input."""
    first, *others = graph.layers
    weight = first.synapse.weight
    inputs = left * weight.shape[1] // graph.input_shape[0]
    fed = replace(first, synapse=replace(first.synapse, weight=weight[:, :inputs]))
    return chain([fed, *others], input_shape=(left, *graph.input_shape[1:]))


def carried_out(graph: SNNGraph, chip: HardwareProfile, remedy: str) -> tuple[SNNGraph, HardwareProfile, int] | None:
    """The network, chip and number of chips that a remedy asks for; None for what a person does by hand."""
    if remedy.startswith("drop"):
        return narrower(graph, remedy)[0], chip, 1
    if match := re.match(r"prune (\d+) of (\d+) input", remedy):
        return narrower_input(graph, int(match.group(2)) - int(match.group(1))), chip, 1
    if match := re.match(r"(\d+) chips instead of 1", remedy):
        return graph, chip, int(match.group(1))
    if match := re.match(r"(\d)-bit weights", remedy):
        return graph, override_facts(chip, {"weights.default_bits": int(match.group(1))}), 1
    if match := re.match(r"all layers at (\d+) % of their width(?: with (\d+)-bit weights)?", remedy):
        kept = {g.name: tuple(range(max(1, g.channels * int(match.group(1)) // 100))) for g in list_prunable_groups(graph)}
        bits = {"weights.default_bits": int(match.group(2))} if match.group(2) else {}
        return prune(graph, PruningPlan(kept=kept)), override_facts(chip, bits), 1
    return None


BASES = ("loihi1", "loihi2", "truenorth", "brainscales2", "spinnaker1", "xylo_audio3", "akd1500", "speck2f")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("seed", seeds(2, 10))
def test_every_remedy_offered_removes_its_violation(seed: int, base: str) -> None:
    rng = np.random.default_rng([seed, BASES.index(base)])
    net = random_net(rng) if rng.random() < 0.6 else dense_net(*(int(n) for n in rng.integers(8, 90, 4)))
    chip = override_facts(random_chip(rng, base), {} if base == "speck2f" or "xylo" in base else {"chip.usable_cores": 2})
    report = check(net, chip)
    tried = 0
    for violation in report.over:
        for remedy in violation.remedy.split("; "):
            place = (violation.resource, violation.where)
            done = carried_out(net, chip, remedy)
            if done is not None:
                again = check(done[0], done[1], chips=done[2])
                layers = set(violation.layers)
                left = [r for r in again.over if r.resource == violation.resource and layers & set(r.layers)]
                assert not left, (remedy, place)
                tried += 1
            elif match := re.match(r"the tightest packing takes (\d+) cores?:", remedy):
                assert int(match.group(1)) <= violation.limit and report.fewest_cores.cores_used == int(match.group(1))
            else:
                assert re.match(r"split |no layer|no narrower|let |too large", remedy), remedy
    assert tried or not report.over or report.over[0].remedy


def test_most_violations_have_a_remedy() -> None:
    """Of random networks on random chips; what is left is too small a chip for any width."""
    violations = helped = 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 7])
        chip = random_chip(rng, str(rng.choice(BASES)))
        for violation in check(random_net(rng), chip).over:
            violations += 1
            helped += not violation.remedy.startswith("no layer")
    assert violations > 40 and helped > 0.7 * violations


def test_a_layer_in_two_halves_fits_where_the_whole_does_not() -> None:
    """60 channels of 32 x 32 are 60 Ki neuron words; where three cores hold 32 Ki, two layers of 30 channels take two of them."""
    one_kernel = override_facts(load_profile("speck2f"), {"core_groups.wide_maps.neuron_memory": 32768})
    chip = override_facts(one_kernel, {"layers.kernels_into_layer": 2})
    rng = np.random.default_rng(0)
    first, second = conv(rng, 60, 2, 1), conv(rng, 4, 60, 1)
    net = chain(
        [Layer(name="a", synapse=first, neuron=IF()), Layer(name="b", synapse=second, neuron=IF())], input_shape=(2, 32, 32)
    )
    over = row(net, chip, "neuron_memory", "a")
    assert (over.used, over.limit) == (61440, 32768)
    assert "split a into 2 layers of 30 channels, a core each" in over.remedy.split("; ")
    assert "split a" not in row(net, one_kernel, "neuron_memory", "a").remedy  # b would add up two layers of weights
    halves = [Layer(name=f"a{k}", synapse=Conv2d(weight=first.weight[30 * k : 30 * k + 30]), neuron=IF()) for k in (0, 1)]
    reads = [Layer(name=f"w{k}", synapse=Conv2d(weight=second.weight[:, 30 * k : 30 * k + 30])) for k in (0, 1)]
    edges = [Edge(source="input", target=f"a{k}") for k in (0, 1)] + [Edge(source=f"a{k}", target=f"w{k}") for k in (0, 1)]
    edges += [Edge(source=f"w{k}", target="b") for k in (0, 1)]
    split = SNNGraph(
        layers=(*halves, *reads, Layer(name="b", neuron=IF())), edges=tuple(edges), input_shape=(2, 32, 32), output="b"
    )
    report = check(split, chip)
    assert report.verdict == "fits" and report.cores_used == 3
    offered = build_what_if(net, find_chip_populations(net, chip), stored_bits(net, chip), chip, chips=1)
    placed = offered.evaluate(Change(parts=("a", 2))).placement
    words = [[part.memory_words for part in of.slices_of("b")] for of in (placed, report.placement)]
    assert words == [[2 * 30 * 2**2]] * 2  # b holds the weights of both halves


def test_a_network_too_large_for_trials_still_gets_its_number_of_chips() -> None:
    net, chip = dense_net(10, 30000, 10), small_chip("loihi1", core__neurons=2)
    over = row(net, chip, "cores", "chip")
    assert over.remedy.startswith("118 chips instead of 1; too large to try narrower layers one by one")


def test_cheap_remedies_come_first() -> None:
    """Packing by hand costs nothing; chips are bought last."""
    net = dense_net(200, 256)
    chip = small_chip("loihi2", chip__usable_cores=2, chip__cores=128)
    remedies = row(net, chip, "cores", "chip").remedy.split("; ")
    assert remedies[0].startswith("the tightest packing takes 2 cores")
    assert remedies[-1] == "2 chips instead of 1"
    assert remedies[1] == "3-bit weights: −1 core"


# ------------------------------------------------------------------------------------------- what is tied to a narrower layer


def wide(outputs: int, inputs: int) -> Dense:
    return Dense(weight=np.random.default_rng(outputs).normal(size=(outputs, inputs)))


def rows_over(graph: SNNGraph, chip: HardwareProfile) -> list[BudgetRow]:
    """The rows over their limit that depend on sizes; no remedies are sought."""
    populations, bits = find_chip_populations(graph, chip), stored_bits(graph, chip)
    return [r for r in build_what_if(graph, populations, bits, chip, chips=1).evaluate().rows if r.status == "over"]


def with_reset_loop() -> SNNGraph:
    """The form of snnTorch's exports: a soft reset as a connection of each neuron with itself."""
    lif = LIF(tau_s=1e-3, r=10.0, v_threshold=1.0)
    layers = (
        Layer(name="a", synapse=wide(300, 20)),
        Layer(name="b", neuron=lif),
        Layer(name="reset", synapse=Scale(weight=-np.ones(300))),
        Layer(name="out", synapse=wide(4, 300), neuron=lif),
    )
    edges = [(INPUT, "a", 0), ("a", "b", 0), ("b", "reset", 1), ("reset", "b", 0), ("b", "out", 0)]
    return SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t, delay=d) for s, t, d in edges), input_shape=(20,))


def residual(*, from_input: bool) -> SNNGraph:
    """Two layers of 300, whose sum with the network's input or with the first goes to the next neurons."""
    layers = (
        Layer(name="a", synapse=wide(300, 300), neuron=IF()),
        Layer(name="b", synapse=wide(300, 300)),
        Layer(name="sum", neuron=IF()),
        Layer(name="out", synapse=wide(4, 300), neuron=IF()),
    )
    skip = INPUT if from_input else "a"
    ways = [(INPUT, "a"), ("a", "b"), ("b", "sum"), (skip, "sum"), ("sum", "out")]
    return SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in ways), input_shape=(300,))


TIED = {
    "loop": with_reset_loop(),
    "residual": residual(from_input=False),
    "residual from the input": residual(from_input=True),
}


LONG = ("odin", "truenorth")
"""Chips of many small cores, on which these networks are placed some dozen times."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in list_profiles()])
@pytest.mark.parametrize("net", TIED.values(), ids=TIED)
def test_what_is_tied_to_a_layer_is_narrowed_with_it(net: SNNGraph, name: str) -> None:
    """Each "drop" is carried out: the violation is gone with that many channels, and is there with one more."""
    chip = load_profile(name)
    over: dict[str, tuple[list[BudgetRow], ...]] = {}
    for violation in check(net, chip).over:
        for remedy in violation.remedy.split("; "):
            if remedy.startswith("drop"):
                drop = remedy.split(":")[0]
                if drop not in over:
                    over[drop] = tuple(rows_over(graph, chip) for graph in narrower(net, drop))
                layers = set(violation.layers)
                done, almost = (
                    any(r.resource == violation.resource and layers & set(r.layers) for r in rows) for rows in over[drop]
                )
                assert (done, almost) == (False, True), (remedy, violation)


def test_a_loop_is_narrowed_with_its_layer() -> None:
    """A neuron of ODIN takes 256 synapses: 44 of the 300 have to go, and their own connections with them."""
    over = row(with_reset_loop(), load_profile("odin"), "fan_in", "out")
    assert (over.used, over.limit) == (300, 256)
    assert over.remedy == "drop 44 of 300 channels of a"


@pytest.mark.parametrize("seed", seeds(6, 12))
def test_random_networks_with_loops_and_sums_are_checked_on_every_chip(seed: int) -> None:
    """Limits are drawn so small that remedies are sought; one that fails is an error here (`conftest`)."""
    net, rng = wild_graph(seed), np.random.default_rng(seed)
    for name in list_profiles():
        assert check(net, random_chip(rng, name), activity=0.1).verdict in ("fits", "does_not_fit", "unchecked")


def test_a_remedy_that_fails_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net, chip = dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=8, chip__cores=8)
    whole = row(net, chip, "cores", "chip").remedy

    def fail(*_: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(remedies_module, "_related_groups", fail)
    with pytest.raises(MemoryError, match="too large"):
        check(net, chip)  # tests are loud
    records: list[logging.LogRecord] = []
    for handler in list(remedies_module.LOG.handlers):
        monkeypatch.setattr(handler, "emit", records.append)
    over = row(net, chip, "cores", "chip")
    assert (over.used, over.status) == (11, "over")
    assert [part for part in whole.split("; ") if not part.startswith("drop")] == over.remedy.split("; ")
    logged = "\n".join(logging.Formatter().format(record) for record in records)
    assert "a remedy of cores at chip failed" in logged and "MemoryError: too large" in logged
