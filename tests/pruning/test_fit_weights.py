"""Weights that are removed until a chip's limits of synapses hold, besides channels or alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.budget.check import check
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import LIF
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.pipeline.prune import prune
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.tune.fit_weights import (
    ALONG,
    ChipWeightRemoval,
    LayerCut,
    cut_weights,
    find_cuts,
    keep_largest,
    list_rows_over,
)
from spear_deploy.pruning.tune.thin_weights import count_zero_weights
from spear_deploy.training.fit import train
from tests.benchmarks.fit import perceptron
from tests.training.test_fit import quick, toy_data

NEURON = LIF(tau_s=4e-3, reset="subtract")
FAN_OUT = {"connectivity.fan_out": 4, "connectivity.fan_out_mean": 4}
MEAN = {"core_groups.hidden.neurons": 30, "connectivity.fan_out_mean": 5}
MEMORY = {"core_groups.hidden.synapse_memory": 150}


def network(*hidden):
    """A perceptron of six inputs and two classes that spikes before it has learnt."""
    graph = perceptron(0, (6, *hidden, 2), NEURON)
    return graph.with_layers(lambda layer: replace(layer, synapse=replace(layer.synapse, weight=3 * layer.synapse.weight)))


def chip(facts, name="xylo_audio2"):
    return override_facts(load_profile(name), facts)


@pytest.mark.parametrize("along", ["inputs", "outputs", "all"])
@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 3, 3)])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.77, 1.0])
def test_as_many_of_the_largest_stay_along_an_axis(along, shape, share):
    weight = np.random.default_rng(0).normal(size=shape)
    left = keep_largest(weight, along, share)
    groups = {"inputs": shape[1], "outputs": shape[0], "all": 1}[along]
    each = weight.size // groups
    kept = max(1, int(share * each + 1e-9))
    assert np.array_equal(left[left != 0], weight[left != 0]) and np.count_nonzero(left) == groups * kept
    first = [np.swapaxes(array, 0, 1) if along == "inputs" else array for array in (left, weight)]
    for after, before in zip(*(array.reshape(groups, -1) for array in first), strict=True):
        rest = np.abs(before[after == 0])
        assert np.count_nonzero(after) == kept and (not rest.size or rest.max() <= np.abs(after[after != 0]).min())


@pytest.mark.parametrize(
    ("facts", "resource"),
    [(FAN_OUT, "fan_out"), (MEMORY, "synapse_memory"), ({"connectivity.fan_in": 5}, "fan_in"), (MEAN, "fan_out_mean")],
)
def test_the_most_weights_stay_with_which_the_limit_holds(facts, resource):
    graph = network(16, 12)
    costs = build_chip_costs(graph, chip(facts))
    assert {row.resource for row in list_rows_over(graph, costs)} == {resource}
    cuts = find_cuts(graph, costs)
    assert not list_rows_over(cut_weights(graph, cuts), costs) and {cut.along for cut in cuts} == {ALONG[resource]}
    for cut in cuts:
        step = 1.01 / 10  # one weight more of an input or output of at most 16; of a layer some more
        more = [replace(other, kept=min(1.0, other.kept + step)) if other.layer == cut.layer else other for other in cuts]
        assert list_rows_over(cut_weights(graph, more), costs)


@pytest.mark.parametrize("name", ["loihi1", "spinnaker1"])
def test_chips_that_store_zeros_gain_nothing(name):
    graph = network(16, 12)
    words = sum(part.memory_words for part in build_chip_costs(graph, load_profile(name)).place((16, 12))[0].slices)
    thin = cut_weights(graph, [LayerCut(layer="fc2", along="all", kept=0.1)])
    costs = build_chip_costs(thin, chip({"core.synapse_memory": words // 4, "chip.usable_cores": 2, "chip.cores": 2}, name))
    assert list_rows_over(thin, costs) and find_cuts(graph, costs) is None
    assert sum(part.memory_words for part in build_chip_costs(thin, load_profile(name)).place((16, 12))[0].slices) == words


@pytest.fixture(scope="module")
def learnt():
    data = toy_data()
    return train(network(16, 12), data, recipe=quick(8)), data


@pytest.mark.parametrize(
    ("facts", "widths"),
    [
        (FAN_OUT, (16, 12)),
        pytest.param({"connectivity.fan_out": 2, "connectivity.fan_out_mean": 2}, (16, 5), marks=pytest.mark.slow),
        pytest.param(MEMORY, (16, 12), marks=pytest.mark.slow),
    ],
)
def test_weights_make_a_network_fit_with_more_channels_than_channels_alone(learnt, facts, widths, tmp_path):
    graph, data = learnt
    profile = chip(facts)
    assert check(graph, profile).verdict == "does_not_fit"
    both = prune(graph, profile, data, out=tmp_path / "both", levers="channels,weights", epochs=6)
    pruned = read_snn(tmp_path / "both" / "pruned.snn")
    for result in (pruned, quantize_for_chip(pruned, profile)):
        assert check(result, profile).verdict != "does_not_fit"
    assert both["met"] and both["verdict"] != "does_not_fit" and count_zero_weights(pruned)[0] > 0
    assert tuple(left for _, left in both["widths"].values()) == widths
    stages = ["trained", *(["channels"] if widths != (16, 12) else []), "weights", "rates"]
    assert [row["lever"] for row in both["levers"]] == stages
    assert both["accuracy"]["dense"] > 0.8
    if widths == (16, 12):
        assert min(both["accuracy"].values()) > 0.6


@pytest.mark.slow
def test_weights_alone_make_a_network_fit_or_that_is_refused(learnt, tmp_path):
    graph, data = learnt
    facts = prune(graph, chip(FAN_OUT), data, out=tmp_path / "alone", levers="weights", epochs=2)
    assert facts["verdict"] != "does_not_fit" and all(before == after for before, after in facts["widths"].values())
    few = chip({"core_groups.hidden.neurons": 10})
    with pytest.raises(BudgetError, match="levers: weights alone do not make this network fit the chip; name channels too"):
        prune(graph, few, data, out=tmp_path / "few", levers="weights", epochs=2)


@pytest.mark.slow
def test_where_one_channel_is_too_much_weights_make_it_fit_and_are_named(learnt, tmp_path):
    graph, data = learnt
    tiny = chip({"core_groups.hidden.synapse_memory": 5})
    with pytest.raises(
        BudgetError, match=r"one channel left in every layer \(.*\); remove weights too \(`--levers channels,weights`\)"
    ):
        prune(graph, tiny, data, out=tmp_path / "alone", epochs=1)
    facts = prune(graph, tiny, data, out=tmp_path / "both", levers="channels,weights", epochs=1)
    assert facts["verdict"] != "does_not_fit" and "weights" in [row["lever"] for row in facts["levers"]]
    none = chip({"core.synapse_memory": 1, "chip.usable_cores": 1, "chip.cores": 1}, "loihi2")
    with pytest.raises(
        BudgetError, match="chip 'loihi2': neither fewer channels nor fewer weights make this network fit; with one"
    ):
        prune(graph, none, data, out=tmp_path / "none", levers="channels,weights", epochs=1)


def test_a_removal_that_no_longer_makes_a_network_fit_is_refused():
    graph, data = network(16, 12), toy_data()
    costs = build_chip_costs(graph, chip({"core_groups.hidden.neurons": 10}))
    removal = ChipWeightRemoval(data.val, chip=costs, cuts=())
    assert removal(graph, 0.5) == graph
    with pytest.raises(BudgetError, match=r"chip 'xylo_audio2': no removal of weights makes this network fit \(.*\); `--levers"):
        removal(graph, 1.0)
