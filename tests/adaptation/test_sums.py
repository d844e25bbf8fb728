"""Networks that end in a weighted sum: verdicts, replacements by readouts or by counted spikes, integers."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.needs import list_needs
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.adaptation.reach import find_reach, name_replacements
from spear_deploy.adaptation.sums import find_sums
from spear_deploy.budget.check import check
from spear_deploy.budget.unsupported import WEIGHTED_SUM
from spear_deploy.errors import ChipError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer
from spear_deploy.network.classes import DECISION, average_classes, count_classes, count_per_class, read_decision, word_answer
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide
from tests.adaptation.random_networks import DT_S, count_differing_spikes, eighths, random_map_network, random_neuron
from tests.support.seeds import seeds

SPIKES_ALONE = ("catalyst_n1", "odin", "speck2f", "spinnaker2", "truenorth")
LONGER_READOUTS = ("reckon", "xylo_audio2", "xylo_audio3", "xylo_imu")
SEEDS = seeds(8, 300)


def ends_in_sum(neuron=None, hidden=IF(), end=None) -> SNNGraph:  # noqa: B008
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.uniform(0.1, 1, (8, 4))), neuron=hidden),
        Layer(name="out", synapse=Dense(weight=rng.standard_normal((3, 8))), neuron=neuron),
    ]
    return chain([*layers, *([end] if end else [])], input_shape=(4,), dt_s=DT_S)


def sums(graph: SNNGraph, profile) -> list:
    return [row for row in check(graph, profile, remedies=False).unsupported if row.what == WEIGHTED_SUM]


def test_no_integers_hold_a_weighted_sum_and_each_check_says_so():
    found = {name: sums(ends_in_sum(), load_profile(name)) for name in list_profiles()}
    lacking = {name for name, rows in found.items() if rows}
    assert lacking == {*list_profiles()} - {"generic45nm"}, "it has no integers"
    by_neurons = {name for name in lacking if "hold values in neurons alone" in found[name][0].why}
    assert by_neurons == lacking - {*SPIKES_ALONE, *LONGER_READOUTS}
    assert not any(sums(ends_in_sum(neuron), load_profile(name)) for name in lacking for neuron in (IF(), LI(tau_s=0.01)))


def test_the_verdict_of_a_weighted_sum_names_what_stands_in_and_the_command():
    graph, speck = ends_in_sum(), load_profile("speck2f")
    report = check(graph, speck)
    assert report.verdict == "does_not_fit" and not any(note.startswith("readout: ") for note in report.notes)
    named = name_replacements(report, find_reach(graph, speck), net="my.nir")
    (row,) = (row for row in named.rows if row.status == "over")
    assert (row.resource, row.where, row.used, row.limit) == ("neuron_model", "out", 1, 0)
    assert row.detail == (
        "a weighted sum as output: speck2f has IF, SpeckIF, of which spikes are read alone; end the network in neurons whose "
        "spikes are counted"
    )
    assert "; `adapt` puts in its place: spikes of 4 IF output neurons a class, counted (learnt)" in row.remedy
    assert row.remedy.endswith("; or with `--readout host` the host integrates the spikes in front of it (exact)")
    assert any(
        "`spear-deploy adapt my.nir --chip speck2f --data DATA --out adapted` replaces what" in note for note in named.notes
    )


@pytest.mark.parametrize("end", [Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))), Layer(name="flat", synapse=Flatten())])
def test_a_pool_or_a_flatten_behind_weights_is_a_weighted_sum_and_behind_spikes_it_is_none(end):
    for neuron, count in ((None, 1), (IF(), 0)):
        conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 3, 3))), neuron=neuron)
        graph = chain([conv, end], input_shape=(1, 6, 6), dt_s=DT_S)
        found = sums(graph, load_profile("speck2f"))
        assert [row.layer for row in found] == [end.name] * count
        assert len([*find_sums(graph, load_profile("speck2f"))]) == count


@pytest.mark.parametrize("seed", SEEDS)
def test_a_weighted_sum_is_a_readout_of_one_step(seed):
    graph = random_map_network(seed)
    graph = graph.with_layers({"readout": Layer(name="readout", synapse=graph["readout"].synapse)})
    for models, readout in (("[IF, LIF, LI]", LI), ("[IF, CubaLI]", CubaLI)):
        (offer,) = find_sums(graph, override_facts(load_profile("generic45nm"), {"neuron.models": models}))
        adapted = offer.rewrite(graph)
        assert (
            offer.kind == "exact"
            and type(adapted["readout"].neuron) is readout
            and not [*find_sums(adapted, load_profile("odin"))]
        )
        assert count_differing_spikes(graph, adapted, seed) == 0


@pytest.mark.parametrize("chip", ["catalyst_n1", "speck2f", "spinnaker2", "truenorth"])
def test_where_spikes_are_read_alone_integrators_count_for_a_class(chip):
    plan = make_plans(ends_in_sum(), load_profile(chip))[0]
    replacement = plan.steps[0].replacement
    assert (replacement.what, replacement.kind, replacement.topic) == (WEIGHTED_SUM, "learnt", "readout")
    assert replacement.by == "spikes of 4 IF output neurons a class, counted" and plan.graph.shape_of("out") == (12,)
    assert isinstance(plan.graph["out"].neuron, IF) and plan.lacking == []
    assert make_plans(ends_in_sum(), load_profile(chip), learns=False)[0].lacking


def test_where_neurons_leak_alone_output_neurons_have_the_longest_time_constant():
    leaky = override_facts(load_profile("spinnaker2"), {"neuron.models": "[LIF]", "neuron.tau_max_steps": 64})
    plan = make_plans(ends_in_sum(hidden=LIF(tau_s=0.01)), leaky)[0]
    assert plan.graph["out"].neuron.tau_s == pytest.approx(64 * DT_S) and plan.lacking == []


@pytest.mark.parametrize(("chip", "steps"), [("reckon", 2), ("xylo_audio3", 2)])
def test_where_readouts_keep_longer_the_shortest_of_these_is_learnt(chip, steps):
    hidden = LIF(tau_s=16 * DT_S, reset="subtract")
    graph, profile = ends_in_sum(hidden=hidden), load_profile(chip)
    plan = make_plans(graph, profile)[0]
    made = [(step.replacement.what, step.replacement.kind) for step in plan.steps]
    assert made == [(WEIGHTED_SUM, "exact"), ("membrane time constant of 1 step", "learnt")] and plan.lacking == []
    assert plan.graph["out"].neuron.tau_s == pytest.approx(steps * DT_S)
    assert quantize(plan.graph, format=profile.meta.family).is_integer


def test_integers_of_a_weighted_sum_are_refused_with_the_command_and_made_of_its_replacement():
    for chip, hidden in (("loihi2", IF()), ("spinnaker2", IF()), ("brainscales2", CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005))):
        graph, profile = ends_in_sum(hidden=hidden), load_profile(chip)
        with pytest.raises(
            ChipError, match=rf"layer 'out': weights whose sums no neuron takes; .*`spear-deploy adapt NET --chip {chip}"
        ):
            api.quantize_for_chip(graph, profile)
        adapted = make_plans(graph, profile)[0].graph
        assert api.quantize_for_chip(adapted, profile).metadata["quantization"]


def test_a_weighted_sum_that_other_layers_read_needs_a_readout():
    graph = ends_in_sum(end=Layer(name="behind", neuron=IF()))
    graph = SNNGraph(layers=graph.layers, edges=graph.edges, input_shape=graph.input_shape, dt_s=graph.dt_s, output="out")
    truenorth = load_profile("truenorth")
    assert not [*find_sums(graph, truenorth)]
    (need,) = list_needs(check(graph, truenorth, remedies=False), graph, truenorth)
    assert need.startswith(
        "layer 'out': a weighted sum as output; truenorth has IF, TrueNorthLIF, of which spikes are read alone"
    )
    assert need.endswith("it would need LI or CubaLI or LIF or CubaLIF or IF")


def votes(voters=5, *, weight=None, hidden=LIF(tau_s=2 * DT_S), bias=None) -> SNNGraph:  # noqa: B008
    """Four classes of as many neurons each, whose spikes are averaged, as by SpikingJelly's VotingLayer."""
    rng = np.random.default_rng(0)
    mean = np.kron(np.eye(4), np.full((1, voters), 1 / voters)) if weight is None else weight
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.uniform(-0.5, 1, (4 * voters, 6))), neuron=hidden),
        Layer(name="vote", synapse=Dense(weight=mean, bias=bias)),
    ]
    return chain(layers, input_shape=(6,), dt_s=DT_S)


@pytest.mark.parametrize("chip", ["speck2f", "spinnaker2", "truenorth"])
def test_votes_of_neighbouring_neurons_are_counted_spikes_without_learning(chip):
    graph = votes()
    (offer,) = find_sums(graph, load_profile(chip))
    assert (offer.kind, offer.by) == ("exact", "spikes of 5 output neurons a class, counted")
    ended = offer.rewrite(graph)
    assert ended.output == "a" and count_per_class(ended) == 5 and count_classes(ended) == 4
    x = np.random.default_rng(1).random((30, 4, 6)) < 0.4
    before, after = simulate(graph, x).output, average_classes(simulate(ended, x).output, 5)
    assert np.ptp(before.mean(0)) > 0.05
    np.testing.assert_allclose(after, before, rtol=1e-6)
    plan = make_plans(graph, load_profile(chip))[0]
    assert not any(step.replacement.topic == "readout" for step in plan.learnt) and count_per_class(plan.graph) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_votes_behind_random_networks_decide_alike_without_their_layer(seed):
    rng, graph = np.random.default_rng(seed), random_map_network(seed)
    voters, classes, inputs = int(rng.integers(2, 6)), int(rng.integers(2, 5)), graph["readout"].synapse.weight.shape[1]
    end = Layer(
        name="readout",
        synapse=Dense(weight=eighths(rng, (classes * voters, inputs))),
        neuron=random_neuron(rng, (classes * voters,)),
    )
    mean = Layer(name="vote", synapse=Dense(weight=np.kron(np.eye(classes), np.full((1, voters), 1 / voters))))
    edges = (*graph.edges, Edge(source="readout", target="vote"))
    graph = replace(
        graph, layers=(*(end if one.name == "readout" else one for one in graph.layers), mean), edges=edges, output="vote"
    )
    (offer,) = find_sums(graph, load_profile("speck2f"))
    ended, x = offer.rewrite(graph), rng.random((12, 5, *graph.input_shape)) < 0.4
    before, after = (simulate(each, x, record=("spikes",)) for each in (graph, ended))
    assert offer.kind == "exact" and set(before.spikes) == set(after.spikes)
    assert not any((before.spikes[name] != after.spikes[name]).any() for name in after.spikes)
    np.testing.assert_array_equal(decide(after.output, ended), decide(before.output, graph))


def test_fixed_votes_stay_fixed_where_nothing_learns():
    graph = replace(votes(), metadata={FIXED_WEIGHTS: ["vote"]})
    kept, learnt = (make_plans(graph, load_profile(chip))[0] for chip in ("loihi2", "speck2f"))
    assert not kept.learnt and kept.graph.metadata[FIXED_WEIGHTS] == ["vote"] and isinstance(kept.graph["vote"].neuron, LI)
    assert learnt.learnt and FIXED_WEIGHTS not in learnt.graph.metadata


def test_other_sums_and_too_many_voters_for_a_chip_are_no_votes():
    speck, uneven = load_profile("speck2f"), np.kron(np.eye(4), [[0.2, 0.2, 0.2, 0.2, 0.3]])
    others = [
        votes(weight=uneven), votes(weight=-np.kron(np.eye(4), np.full((1, 5), 0.2))), votes(1), votes(bias=np.ones(4)),
        votes(weight=np.kron(np.eye(4), np.full((1, 5), 0.2))[:, ::-1]), votes(hidden=None), ends_in_sum(),
    ]  # fmt: skip
    assert all(offer.kind == "learnt" for graph in others for offer in find_sums(graph, speck))
    few = override_facts(speck, {"connectivity.output_channels": "16"})
    assert all(offer.kind == "learnt" for offer in find_sums(votes(), few))
    (kept,) = find_sums(votes(), load_profile("loihi2"))
    assert kept.by == "LI with a time constant of one step", "a chip with a readout keeps it"


@pytest.mark.parametrize(
    ("chip", "decision"), [("loihi2", "maximum"), ("speck2f", "mean"), ("truenorth", "mean"), ("odin", "mean")]
)
def test_the_decision_stays_with_a_readout_and_spikes_in_its_place_are_counted(chip, decision):
    notes = ["a note", f"the forward returns the maximum of its outputs over time, and {word_answer('maximum')}"]
    graph = replace(ends_in_sum(LI(tau_s=0.01)), metadata={DECISION: "maximum", "assumptions": notes})
    plan = make_plans(graph, load_profile(chip))[0]
    assert plan.graph[plan.graph.output].spikes == (decision == "mean") and read_decision(plan.graph) == decision
    assert plan.graph.metadata["assumptions"] == ([notes[0], notes[1].split(",")[0]] if decision == "mean" else notes)


def test_votes_without_their_layer_decide_by_the_same_maximum():
    graph = replace(votes(), metadata={DECISION: "maximum"})
    plan = make_plans(graph, load_profile("speck2f"))[0]
    (offer,) = find_sums(graph, load_profile("speck2f"))
    assert read_decision(plan.graph) == "maximum" and count_per_class(plan.graph) == 5
    x = np.random.default_rng(1).random((30, 40, 6)) < 0.4
    before, after = (simulate(each, x).output for each in (graph, offer.rewrite(graph)))
    np.testing.assert_array_equal(decide(after, offer.rewrite(graph)), decide(before, graph))
    assert (decide(before, graph) != decide(before)).any()
