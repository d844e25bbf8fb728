"""Levers: weights by magnitude per spike, held zeros, recipes, what each lever did, and the margin with training samples."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")

from rich.console import Console

import spear_deploy as sd
from spear_deploy.cli.prune import _show
from spear_deploy.cli.tables import show_aims, show_levers
from spear_deploy.errors import BudgetError, DataError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import CONVS, IF, LIF, Dense, SparseMatrix, sparse_matrix
from spear_deploy.network.labels import label_layers
from spear_deploy.pipeline import api
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.prune import prune_front
from spear_deploy.pruning.budgets import Amount, Budgets
from spear_deploy.pruning.candidates import Evaluator
from spear_deploy.pruning.levers import choose_levers, note_reward_of_zeros, parse_levers
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search import recipes
from spear_deploy.pruning.search.recipe_builder import RecipeBuilder, choose_kept_synops
from spear_deploy.pruning.search.settings import default_settings, get_searcher
from spear_deploy.pruning.settings import PruneSettings, settle_method
from spear_deploy.pruning.tune import last_adjustments, rounded_learning
from spear_deploy.pruning.tune.fine_tuning import FineTuning
from spear_deploy.pruning.tune.margins import accuracy_error
from spear_deploy.pruning.tune.measure import BudgetMonitor, deploy_float
from spear_deploy.pruning.tune.rounded_learning import TOLERANCE, IntegerForm, learn_with_rounding
from spear_deploy.pruning.tune.thin_weights import (
    WeightRemoval,
    count_arriving_spikes,
    count_zero_weights,
    note_unused_weights,
    thin_layers,
    thin_to_synops,
    zero_weight_share,
)
from spear_deploy.quantize import quantize
from spear_deploy.quantize.rounding import read_rounding
from spear_deploy.report.search_charts import describe_levers
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit, train
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import REMOVAL_END, REMOVAL_START, REMOVALS, Fit, Recipe, schedule_removals
from tests.pipeline.test_deploy import network
from tests.pipeline.test_deploy import task as deploy_task
from tests.support.reference import random_graph, random_spikes
from tests.training.test_fit import quick, toy_data, toy_network

SHORT = replace(default_settings("recipe"), rounds=(24,), episodes=3)


@pytest.fixture(scope="module")
def task():
    data = toy_data()
    return train(toy_network(hidden=16), data, recipe=quick(12)), data


def weights_of(graph):
    return {layer.name: layer.synapse.weight for layer in graph.layers if isinstance(layer.synapse, (Dense, *CONVS))}


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("seed", range(8))
def test_a_share_of_the_weights_goes_by_lost_energy_per_synop(seed):
    graph = random_graph(seed)
    counts = simulate(graph, random_spikes(graph, seed), record=["spikes"]).counts
    costs, thin = count_synops(graph, counts).per_layer, zero_weight_share(graph, counts, 0.4)
    scores, present = [], 0
    for name, weight in weights_of(graph).items():
        if not costs[name]:
            np.testing.assert_array_equal(weights_of(thin)[name], weight)
            continue
        arriving = np.broadcast_to(count_arriving_spikes(graph, graph[name], counts), weight.shape) + 1e-9
        left = [(abs(weight[i]), k, float(arriving[i])) for k, i in enumerate(np.ndindex(*weight.shape)) if weight[i]]
        left.sort()
        present += len(left)
        for rank in range(min(len(left) - 1, int(0.995 * len(left)))):
            energy = sum(n * float(w) ** 2 for w, _, n in left[rank:])
            scores.append((float(left[rank][0]) ** 2 / energy, name, left[rank][1]))
    gone = sorted(scores)[: int(0.4 * present)]
    for name, weight in weights_of(graph).items():
        expected = weight.ravel().copy()
        expected[[k for _, of, k in gone if of == name]] = 0
        np.testing.assert_array_equal(weights_of(thin)[name].ravel(), expected)
        assert not weight.any() or weights_of(thin)[name].any()


@pytest.mark.parametrize("seed", range(8))
def test_arriving_spikes_times_weights_are_the_synops_of_a_dense_layer(seed):
    graph = random_graph(seed)
    counts = simulate(graph, random_spikes(graph, seed), record=["spikes"]).counts
    graph = zero_weight_share(graph, counts, 0.3)
    costs = count_synops(graph, counts).per_layer
    for layer in graph.layers:
        if isinstance(layer.synapse, Dense):
            expected = np.sum(count_arriving_spikes(graph, layer, counts) * (layer.synapse.weight != 0)) / counts.samples
            assert costs[layer.name] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.7, 0.3, 0.1])
def test_thinning_removes_no_more_weights_than_needed(task, share):
    graph, data = task
    counts = evaluate(graph, data.val).counts
    budget = share * count_synops(graph, counts).total
    thin = thin_to_synops(graph, counts, budget)
    largest = max(float(arriving.max()) for arriving in (count_arriving_spikes(graph, layer, counts) for layer in graph.layers))
    # one weight more in each of the three layers would exceed it
    assert budget - 3 * largest / counts.samples <= count_synops(thin, counts).total <= budget
    assert thin_to_synops(thin, counts, budget) is thin
    zeros, weights = count_zero_weights(thin)
    assert 0 < zeros < weights == sum(weight.size for weight in weights_of(graph).values())
    with pytest.raises(BudgetError, match="below .*, what 0.5% of the weights cost; raise it to that or more") as error:
        thin_to_synops(graph, counts, 1e-6)
    assert error.value.min_value > 1e-6


def test_zeros_are_held_through_learning_only_where_that_is_chosen(task):
    graph, data = task
    thin = zero_weight_share(graph, evaluate(graph, data.val).counts, 0.5)
    held = fit(thin, data, replace(quick(4), keeps_zeros=True, synops_budget=10.0)).graph
    free = fit(thin, data, quick(4)).graph
    for name, weight in weights_of(thin).items():
        np.testing.assert_array_equal(weights_of(held)[name] == 0, weight == 0)
        assert (weights_of(held)[name] != weight).any() and weights_of(free)[name][weight == 0].any()


def test_hints_of_another_shape_are_refused(task):
    graph, data = task
    hints = score_outputs(graph, data.train)
    with pytest.raises(DataError, match=r"hints: of shape \(119, 2\), expected \(120, 2\)"):
        fit(graph, data, quick(1), hints=hints[1:])
    assert fit(graph, data, replace(quick(3), steps=11), hints=hints).batches == 11


@pytest.mark.parametrize("kind", ["snn", "nir", "netx"])
def test_zeros_survive_in_files_and_count_the_same(task, tmp_path, kind):
    graph, data = task
    thin = zero_weight_share(graph, evaluate(graph, data.val).counts, 0.6)
    if kind == "netx":  # the format of Loihi's integers
        thin = api.quantize_for_chip(thin, load_profile("loihi2"))
    path = tmp_path / f"net.{'net' if kind == 'netx' else kind}"
    if kind == "snn":
        write_snn(thin, path)
        back = read_snn(path)
    else:
        sd.export(thin, path, to=kind)
        back = api.load(path)
    x = np.moveaxis(data.val.x, 0, 1)
    before, after = (count_synops(net, simulate(net, x, record=["spikes"]).counts) for net in (thin, back))
    assert after.total == before.total > 0
    pairs = list(zip(weights_of(thin).values(), weights_of(back).values(), strict=True))
    assert len(pairs) == 3 and all(np.array_equal(a == 0, b == 0) and 0 < np.mean(b == 0) < 1 for a, b in pairs)
    zeros, weights = count_zero_weights(back)
    assert 0.59 * weights < zeros < 0.7 * weights


# ------------------------------------------------------------------------------------------------------------ recipes


@pytest.fixture(scope="module")
def recipe_result(task):
    graph, data = task
    return prune_to_budget(graph, data, PruneSettings(synops="30%", method="recipe", epochs=4, search=SHORT))


def test_recipes_learn_equally_and_the_network_keeps_its_budget(task, recipe_result):
    graph, data = task
    result = recipe_result.to_json()
    assert [row["recipe"]["channels"] for row in result["search"]] == [0.5, 0.0, 1.0]
    assert result["batches"]["search"] == 3 * 24 and result["batches"]["all"] == 72 + result["batches"]["fine_tune"]
    widths = [row["widths"] for row in result["search"]]
    assert widths[1] == [16, 16] and all(a <= b <= 16 for a, b in zip(widths[2], widths[0], strict=True))
    limit = 0.3 * evaluate(graph, data.test).synops.total
    assert recipe_result.met and evaluate(recipe_result.graph, data.test).synops.total <= limit
    best = max(result["search"], key=lambda row: row["certainty"])
    assert list(recipe_result.search.score.widths) == best["widths"]


def test_stages_lead_from_the_trained_to_the_pruned_network(task, recipe_result):
    graph, data = task
    stages = recipe_result.stages
    assert stages[0].graph == graph and stages[-1].graph == recipe_result.graph and stages[-1].name == "rates"
    for stage in stages:
        measured = evaluate(stage.graph, data.val)
        assert (stage.synops, stage.accuracy) == (measured.synops.total, measured.accuracy)
    assert sum(stage.batches for stage in stages[1:-1]) == 24 and stages[-1].batches == recipe_result.batches["fine_tune"]
    other = prune_to_budget(graph, data, PruneSettings(synops="60%", method="uniform", epochs=3))
    assert [stage.name for stage in other.stages] == ["trained", "channels", "rates"]


def test_weights_alone_keep_all_channels(task):
    graph, data = task
    settings = PruneSettings(synops="40%", method="recipe", levers="weights", epochs=4, search=replace(SHORT, rounds=(20,)))
    result = prune_to_budget(graph, data, settings)
    assert result.widths == {"hidden": [16, 16], "second": [16, 16]} and result.met
    assert [stage.name for stage in result.stages] == ["trained", "weights", "rates"]
    zeros, weights = count_zero_weights(result.graph)
    assert f"{zeros:,} of {weights:,} weights are zero" in result.notes and zeros > weights / 4


def test_few_weights_that_are_left_are_stored_sparse(task, monkeypatch):
    graph, data = task
    few = thin_layers(graph, {"hidden": 0.08})
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 1)
    result = prune_to_budget(few.with_compact_weights(), data, PruneSettings(synops="100%", method="uniform", epochs=1))
    assert isinstance(result.graph["hidden"].synapse.weight, SparseMatrix)
    assert isinstance(result.graph["second"].synapse.weight, np.ndarray)
    assert result.graph.layers == few.layers
    assert count_zero_weights(result.graph) == count_zero_weights(few)
    result = prune_to_budget(few.with_compact_weights(), data, PruneSettings(synops="80%", method="uniform", epochs=1))
    assert result.met and result.widths != {"hidden": [16, 16], "second": [16, 16]}


def test_weights_go_while_the_network_learns_to_the_share_that_is_kept(task):
    graph, data = task
    removal, shares = WeightRemoval(data.val, 0.4), []

    def remove(network, share):
        shares.append(share)
        before = count_zero_weights(network)[0]
        thin = removal(network, share)
        whole = count_synops(removal.unthinned, counts := evaluate(network, data.val).counts).total
        assert 0.9 * 0.4**share < count_synops(thin, counts).total / whole <= 0.4**share and count_zero_weights(thin)[0] > before
        return thin

    learnt = fit(graph, data, replace(quick(6), synops_budget=20.0), remove=remove)
    assert shares == [i / REMOVALS for i in range(1, REMOVALS + 1)] and learnt.batches == 48
    for name, weight in weights_of(removal.thinned).items():
        after = weights_of(learnt.graph)[name]
        np.testing.assert_array_equal(after == 0, weight == 0)
        assert (weights_of(removal.unthinned)[name] != 0).all() and (after != weight).any()
    steps = sorted(schedule_removals(48))
    assert (steps[0], steps[-1], len(steps)) == (round(REMOVAL_START * 48), round(REMOVAL_END * 48), REMOVALS)


def test_a_removed_weight_comes_back_at_its_last_value(task):
    graph, data = task
    removal = WeightRemoval(data.val, 0.5)
    thin = removal(graph, 0.5)
    weak = thin.with_layers(lambda layer: replace(layer, synapse=replace(layer.synapse, weight=0.01 * layer.synapse.weight)))
    back = removal(weak, 1.0)
    returned = [(weights_of(thin)[name] == 0) & (weight != 0) for name, weight in weights_of(back).items()]
    assert all(each.any() for each in returned)
    for (name, weight), mask in zip(weights_of(back).items(), returned, strict=True):
        np.testing.assert_array_equal(weight[mask], weights_of(graph)[name][mask])


def test_one_recipe_learns_in_one_cycle_of_fine_tuning(task):
    graph, data = task
    result = prune_to_budget(graph, data, PruneSettings(synops="30%", method="recipe", epochs=6))
    assert result.met and result.batches["search"] == 0 and [row["recipe"]["channels"] for row in result.search.history] == [0.5]
    assert [stage.name for stage in result.stages] == ["trained", "channels", "weights", "rates"]
    assert sum(stage.batches for stage in result.stages) == result.batches["fine_tune"] > result.stages[2].batches > 0
    again = prune_to_budget(graph, data, PruneSettings(synops="30%", method="recipe", epochs=6))
    assert again.graph == result.graph
    wide = recipes.search_recipes(graph, data, PruneSettings(synops="99%", method="recipe"))
    assert 0.9 < wide.removal.kept <= 1


def test_weights_take_what_no_price_can_lower_of_the_input(task):
    graph, data = task
    evaluator, kept = Evaluator(graph, data), {}
    dense = evaluator.dense.synops
    by_input = dense.per_layer[graph.edges_from("input")[0].target]
    builder = RecipeBuilder(
        evaluator, PruneSettings(synops="20%"), {"synops": 0.2 * dense.total}, score_outputs(graph, data.train)
    )
    for count in (1, 4, 16):
        by_source = {"input": count * by_input, "neurons": dense.total - by_input}
        kept[count] = choose_kept_synops(0.2, by_source)
        rates = 0.2**0.4
        after = kept[count] * (by_source["input"] + by_source["neurons"] * rates)
        assert after == pytest.approx(0.2 * sum(by_source.values()))
    assert 0.2**0.6 > kept[1] > kept[4] > kept[16] > 0.2
    assert builder.make_removal(0.0, builder.evaluator.channels).kept == pytest.approx(kept[1], rel=1e-6)
    assert choose_kept_synops(1e-4, {"input": 8.0}) == pytest.approx(0.005)  # no more than `MAX_SHARE` goes


def test_removed_weights_come_back_where_the_budget_has_room(task):
    graph, data = task
    thin = zero_weight_share(graph, evaluate(graph, data.val).counts, 0.9)
    monitor = BudgetMonitor(graph, data, Budgets(synops=Amount(value=0.9, relative=True)))
    tuning = FineTuning(thin, monitor, unthinned=graph)
    tuning.run(3)
    before, after = count_zero_weights(thin)[0], count_zero_weights(tuning.graph)[0]
    assert after < before / 2 and 0.9 < tuning.use.active_use <= 1
    back = [(weights_of(tuning.graph)[name] != 0) & (weight == 0) for name, weight in weights_of(thin).items()]
    assert sum(int(each.sum()) for each in back) >= before - after


def test_above_the_aim_weights_go_and_the_target_stays(task):
    graph, data = task
    thin = zero_weight_share(graph, evaluate(graph, data.val).counts, 0.1)
    tuning = FineTuning(thin, BudgetMonitor(graph, data, Budgets(synops=Amount(value=0.2, relative=True))), unthinned=graph)
    tuning.run(2)
    assert len(tuning.history) > 2 and len({row["target"] for row in tuning.history}) == 1
    assert count_zero_weights(tuning.graph)[0] > 2 * count_zero_weights(thin)[0] and tuning.use.active_use <= 1


def test_a_search_of_recipes_that_was_stopped_goes_on_to_the_same_network(task, tmp_path, monkeypatch):
    graph, data = task
    settings = PruneSettings(synops="30%", method="recipe", search=SHORT)
    whole = recipes.search_recipes(graph, data, settings)

    def stop(facts):
        if facts["done"] == 2:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.json"
    part = recipes.search_recipes(graph, data, settings, checkpoint=path, progress=stop)
    assert part.interrupted and len(part.history) == 2
    assert sum(key.startswith("recipe") for key in json.loads(path.read_text())["measured"]) == 2
    again = recipes.search_recipes(graph, data, settings, checkpoint=path)
    assert again.graph == whole.graph and again.history == whole.history and not again.interrupted
    assert again.batches == whole.batches == 72
    third = recipes.search_recipes(graph, data, settings, checkpoint=path)  # measurements alone: the winner learns again
    assert third.graph == whole.graph and third.batches == 72
    with pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(recipes._Recipes, "learn", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        recipes.search_recipes(graph, data, settings)


@pytest.mark.slow
def test_later_rounds_learn_on_with_the_zeros_held(task):
    graph, data = task
    details = replace(SHORT, rounds=(20, 6))
    result = recipes.search_recipes(
        graph, data, PruneSettings(synops="30%", method="recipe", levers=("channels", "weights"), search=details)
    )
    assert [row["rung"] for row in result.rounds] == [1, 2, 1, 1, 2] and result.batches == 26 + 20 + 26
    last = [row for row in result.rounds if row["rung"] == 2]
    assert max(last, key=lambda row: row["certainty"])["widths"] == list(result.score.widths)
    settings = PruneSettings(synops="30%", method="recipe", search=details)
    evaluator = recipes.make_evaluator(graph, data, settings)
    work = recipes._Recipes(recipes.RecipeBuilder(evaluator, settings, dict(result.limits), score_outputs(graph, data.train)))
    weights_alone = recipes.Shares(0.0)
    first, second = work.learn(weights_alone, 1), work.learn(weights_alone, 2)
    assert (first.batches, second.batches) == (20, 26)
    for name, weight in weights_of(first.stages[-1].graph).items():
        np.testing.assert_array_equal(weights_of(second.stages[-1].graph)[name] == 0, weight == 0)


@pytest.mark.slow
def test_later_recipes_are_proposed_and_all_learning_is_that_of_the_settings(task, tmp_path):
    graph, data = task
    settings = PruneSettings(synops="30%", method="recipe", levers="channels,weights", epochs=40, episodes=6)
    result = prune_to_budget(graph, data, settings)
    history, an_epoch = result.search.history, -(-len(data.train) // 64)
    tried = list(dict.fromkeys(tuple(row["recipe"].values()) for row in history))
    assert len(tried) == 6 and [shares[0] for shares in tried[:3]] == [0.5, 0.0, 1.0]
    assert all(0 < channels < 1 and 0.3 <= of_weights <= 0.9 for channels, _, of_weights in tried[3:])
    units = [sum(row["steps"] for row in result.search.rounds)]
    assert result.batches["search"] == units[0] < 40 * an_epoch
    left = 40 - round(result.batches["search"] / an_epoch)
    assert [row["epoch"] for row in result.history[:left]] == list(range(1, left + 1)) and result.met

    def stop(facts):
        if facts["done"] == 4:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.json"
    part = recipes.search_recipes(graph, data, settings, checkpoint=path, progress=stop)
    assert part.interrupted
    again, whole = (recipes.search_recipes(graph, data, settings, checkpoint=each) for each in (path, None))
    assert again.history == whole.history and again.graph == whole.graph and again.batches == whole.batches


def test_a_budget_below_every_recipe_names_the_lowest(task):
    graph, data = task
    least = r"one channel in every layer \d+, 0.5% of the weights \d+, both \d+$"
    with pytest.raises(BudgetError, match="raise it to that or more; SynOps that the levers leave .*: " + least) as error:
        prune_to_budget(graph, data, PruneSettings(synops=0.01, method="recipe", search=SHORT))
    assert error.value.min_value > 0.01


def test_without_a_synops_budget_channels_alone_are_removed(task):
    graph, data = task
    result = recipes.search_recipes(graph, data, PruneSettings(parameters="50%", method="recipe", search=SHORT))
    assert [row["recipe"]["channels"] for row in result.history] == [1.0] and result.unthinned is None
    assert sum(weight.size for weight in weights_of(result.graph).values()) <= sum(w.size for w in weights_of(graph).values()) / 2


# ------------------------------------------------------------------------------------------------------ levers, chips


def test_levers_are_those_that_the_chip_rewards():
    both, alone = ("channels", "weights", "steps", "bits"), ("channels", "steps", "bits")
    assert choose_levers(None) == both
    rewarded = [name for name in list_profiles() if choose_levers(load_profile(name)) == both]
    assert {"generic45nm", "xylo_audio3", "truenorth"} <= set(rewarded) and not {"odin", "speck2f", "loihi2"} & set(rewarded)
    chip = load_profile("xylo_audio3")
    for synops, memory, levers in ((None, True, alone), (True, True, alone), (False, True, both), (None, None, alone)):
        facts = {
            name: getattr(chip.weights, name).model_copy(update={"value": value})
            for name, value in (("zero_synops", synops), ("zero_memory", memory))
        }
        other = chip.model_copy(update={"weights": chip.weights.model_copy(update=facts)})
        assert choose_levers(other) == levers and bool(note_reward_of_zeros(both, other)) == (levers == alone)
        assert not note_reward_of_zeros(alone, other)
    note = note_reward_of_zeros(both, load_profile("speck2f"))[0]
    assert "chip 'speck2f' is not known to reward the removal of weights (a zero weight: SynOps, costs; memory, costs)" in note


def test_levers_that_there_are_not_or_that_the_method_lacks_are_refused():
    with pytest.raises(BudgetError, match="lever 'weight': expected .* channels, weights, steps, bits; did you mean 'weights'"):
        parse_levers("weight")
    with pytest.raises(BudgetError, match="levers: none named"):
        parse_levers(())
    with pytest.raises(BudgetError, match="method 'evolution' removes channels alone; choose method 'recipe'"):
        PruneSettings(synops="50%", method="evolution", levers="channels,weights")
    with pytest.raises(
        BudgetError,
        match="levers: bits alone reaches budgets of memory and cores, not of --synops; name channels or "
        "weights too, or give --memory or --cores",
    ):
        PruneSettings(synops="50%", levers="bits")
    with pytest.raises(BudgetError, match="bits alone leaves all channels, and a deployment prunes to a budget of SynOps"):
        DeploySettings(levers="bits")
    assert PruneSettings(synops="50%", levers="weights,bits").chosen_method == "recipe"
    assert DeploySettings(levers="channels,weights").chosen_method == "recipe" and DeploySettings().chosen_method == "evolution"
    with pytest.raises(BudgetError, match="levers: steps alone reaches no budget"):
        DeploySettings(levers="steps")
    assert PruneSettings(synops="50%", levers="channels").chosen_method == "evolution"
    with pytest.raises(BudgetError, match="method 'recipe': shares the budget between levers and plays no episodes"):
        get_searcher("recipe")


def test_chips_that_reward_zeros_get_half_widths_and_half_weights_unless_something_is_named():
    truenorth, loihi, plain = load_profile("truenorth"), load_profile("loihi2"), PruneSettings(synops="50%")
    assert settle_method(plain, truenorth).chosen_method == "recipe" and settle_method(plain, loihi) is plain
    for named in ({"method": "uniform"}, {"levers": "channels"}, {"episodes": 5}, {"search": default_settings("evolution")}):
        settings = replace(plain, **named)
        assert settle_method(settings, truenorth) is settings
    parameters = PruneSettings(parameters="50%")
    assert settle_method(parameters, truenorth) is parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "method"), [pytest.param("xylo_audio2", "recipe", marks=pytest.mark.slow), ("loihi2", "evolution")]
)
def test_prune_takes_the_method_for_the_chip(tmp_path, chip, method):
    neuron = LIF(tau_s=4e-3, reset="subtract", v_threshold=0.5)
    net = network(IF(), hidden=20).with_layers(lambda layer: replace(layer, neuron=neuron if layer.neuron else None))
    facts = sd.prune(net, chip, deploy_task(), out=tmp_path / "one", synops="60%", epochs=2)
    assert facts["method"] == method and ("weights" in [row["lever"] for row in facts["levers"]]) == (method == "recipe")
    front = prune_front(net, chip, deploy_task(), ["70%"], out=tmp_path / "front", settings=PruneSettings(epochs=1))
    assert front["front"][0]["method"] == method


def test_a_lever_that_the_chip_does_not_reward_is_stated_with_what_it_would_save(task):
    graph, data = task
    counts = evaluate(graph, data.val).counts
    (note,) = note_unused_weights(graph, counts, load_profile("loihi2"))
    saved = 1 - count_synops(zero_weight_share(graph, counts, 0.5), counts).total / count_synops(graph, counts).total
    assert 0.2 < saved < 0.8 and f"half of them would be {saved:.0%} of the counted SynOps" in note and "'loihi2'" in note
    assert note_unused_weights(graph, counts, load_profile("truenorth")) == []


def test_prune_writes_what_each_lever_did(tmp_path):
    net, data = network(IF(), hidden=20), deploy_task()
    facts = sd.prune(net, "loihi2", data, out=tmp_path, synops="50%", method="recipe", epochs=2, levers="channels,weights")
    pruned = api.load(tmp_path / "pruned.snn")
    last, first = facts["levers"][-1], facts["levers"][0]
    assert (first["lever"], first["synops"]) == ("trained", evaluate(net, data.test).synops.total)
    assert last["synops"] == evaluate(pruned, data.test).synops.total == facts["synops"]["achieved"]
    assert facts["batches"]["all"] == facts["batches"]["search"] + facts["batches"]["fine_tune"]
    page = (tmp_path / "prune.html").read_text()
    assert "fine-tuning, firing rates" in page and "<td>trained</td>" in page
    assert describe_levers([]) == []
    console = Console(record=True, width=120, file=io.StringIO())
    _show(console, facts, label_layers(net), "out")
    lines = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    shown = {line[0]: line[1:] for line in lines if line and line[0] in {row["lever"] for row in facts["levers"]}}
    assert [*shown] == [row["lever"] for row in facts["levers"]]
    assert shown["rates"][-2:] == [f"{last['accuracy']:.2%}", str(last["batches"])]


# --------------------------------------------------------------------------------------------------------------- bits


def low_bits(graph, data, bits):
    """The integers of Loihi with few bits, as a form that is learnt for."""
    x = np.moveaxis(data.train.x[:64], 0, 1)
    integers = partial(quantize, weight_bits=bits, calibration=x)
    return IntegerForm(deploy=lambda net, split: (integers(net), split), rounding=lambda net: read_rounding(net, integers(net)))


def test_a_network_learns_with_rounding_where_its_integers_lose_accuracy(task, monkeypatch):
    graph, data = task
    form = low_bits(graph, data, 3)
    settings = PruneSettings(synops="30%", method="uniform", epochs=6, seed=1)
    result = prune_to_budget(graph, data, settings, deployed=(deploy_float, form))
    assert [stage.name for stage in result.stages] == ["trained", "channels", "rates", "bits"]
    assert result.batches["bits"] == result.stages[-1].batches > 0
    before, after = (evaluate(*form(stage.graph, data.val)).accuracy for stage in result.stages[-2:])
    assert before < result.stages[-2].accuracy - TOLERANCE and after > before
    limit = 0.3 * evaluate(graph, data.test).synops.total
    assert result.met and max(evaluate(*each(result.graph, data.test)).synops.total for each in (deploy_float, form)) <= limit
    assert any("points of accuracy on validation; after" in note for note in result.notes)
    without = prune_to_budget(graph, data, replace(settings, levers="channels"), deployed=(deploy_float, form))
    assert "bits" not in without.batches and [stage.name for stage in without.stages][-1] == "rates"
    enough = low_bits(graph, data, 8)
    monitor = BudgetMonitor(graph, data, settings.budgets, (deploy_float, enough))
    assert learn_with_rounding(without.graph, monitor, enough, epochs=1) is None
    monkeypatch.setattr(rounded_learning, "PEAK", 1e-12)  # nothing is learnt, and of the scales those of other integers
    other = replace(form, rounding=enough.rounding)
    monitor = BudgetMonitor(graph, data, PruneSettings(parameters="100%").budgets, (deploy_float, other))
    idle = learn_with_rounding(without.graph, monitor, other, epochs=1)
    assert idle is not None and not idle.kept and idle.graph is without.graph and idle.lost > TOLERANCE
    assert idle.note.startswith(f"the integers lose {100 * idle.lost:.1f} points")
    assert idle.note.endswith(
        f"{idle.batches} batches with the chip's rounding gained nothing, so the network from before is kept"
    )


def test_learning_with_rounding_goes_on_while_the_integers_lose_more_than_enough(task, monkeypatch):
    graph, data = task
    form = low_bits(graph, data, 2)
    monitor = BudgetMonitor(graph, data, PruneSettings(parameters="100%").budgets, (deploy_float, form))
    an_epoch = Recipe(epochs=1).count_batches(len(data.train))
    monkeypatch.setattr(rounded_learning, "TOLERANCE", -1.0)
    monkeypatch.setattr(rounded_learning, "ENOUGH", 1.0)
    once = learn_with_rounding(graph, monitor, form, epochs=1)
    monkeypatch.setattr(rounded_learning, "ENOUGH", -1.0)
    thrice = learn_with_rounding(graph, monitor, form, epochs=1)
    assert once is not None and thrice is not None
    assert (once.batches, thrice.batches) == (an_epoch, rounded_learning.CYCLES * an_epoch)
    assert thrice.left <= once.left
    shown = evaluate(*form(thrice.graph, data.val)).accuracy
    assert thrice.left == pytest.approx(evaluate(graph, data.val).accuracy - shown)


@pytest.mark.parametrize(("much", "speed"), [(1.0, 1.0), (-1.0, rounded_learning.FASTER)])
def test_a_cycle_with_rounding_is_faster_where_the_integers_lose_much(task, monkeypatch, much, speed):
    graph, data = task
    form, rates = low_bits(graph, data, 3), []

    def note_rate(start, dataset, recipe, **options):
        rates.append(recipe.learning_rate)
        return Fit(graph=start, history=(), last=None, dual=0.0, batches=1, interrupted=False)

    for name, value in (("TOLERANCE", -1.0), ("ENOUGH", -1.0), ("MUCH", much), ("fit", note_rate)):
        monkeypatch.setattr(rounded_learning, name, value)
    monitor = BudgetMonitor(graph, data, PruneSettings(parameters="100%").budgets, (form,))
    learn_with_rounding(graph, monitor, form, epochs=1, rate_scale=0.5)
    assert rates == [pytest.approx(0.5 * speed * rounded_learning.PEAK)] * rounded_learning.CYCLES


def test_weights_are_removed_where_thresholds_do_not_hold_what_was_learnt_with_rounding(task, monkeypatch):
    graph, data = toy_network(hidden=16), task[1]  # not trained, so that learning gains
    form = low_bits(graph, data, 3)
    for owner, name, value in (
        (last_adjustments, "SPAN", 1e-6), (rounded_learning, "TOLERANCE", -1.0), (rounded_learning, "PEAK", 3e-2)
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, value)  # thresholds hold nothing
    monitor = BudgetMonitor(graph, data, PruneSettings(synops="80%").budgets, (form,))
    held = learn_with_rounding(graph, monitor, form, epochs=12)
    assert held is not None and held.kept and held.use.met and not held.exceeded and held.left < -0.1
    monkeypatch.setattr(rounded_learning, "zero_weights", lambda network, counts, use: network)
    lost = learn_with_rounding(graph, monitor, form, epochs=12)
    assert lost is not None and lost.exceeded and not lost.kept and lost.graph is graph


def test_a_gain_over_the_budget_is_named_though_a_later_cycle_lost_it(task, monkeypatch):
    graph, data = toy_network(hidden=16), task[1]
    form, starts = low_bits(graph, data, 3), []

    def learn_once(start, *args, **options):
        starts.append(start)
        tuned = fit(start, *args, **options)
        return tuned if len(starts) == 1 else replace(tuned, graph=graph)

    for name, value in (
        ("TOLERANCE", -1.0), ("PEAK", 3e-2), ("CYCLES", 2), ("fit", learn_once), ("_hold_budget", rounded_learning._measure)
    ):  # fmt: skip
        monkeypatch.setattr(rounded_learning, name, value)
    monkeypatch.setattr(rounded_learning, "ENOUGH", -1.0)
    monitor = BudgetMonitor(graph, data, PruneSettings(synops="80%").budgets, (form,))
    lost = learn_with_rounding(graph, monitor, form, epochs=12)
    assert lost is not None and len(starts) == 2 and lost.graph is graph
    assert lost.exceeded and lost.left < lost.lost - 0.1 and lost.batches == 2 * lost.batches_to_best
    assert f"but exceed a budget, and {lost.batches_to_best} batches after them gained no more, so" in lost.note


def test_the_note_on_rounding_names_the_batches_of_the_cycle_that_is_kept(task, monkeypatch):
    graph, data = toy_network(hidden=16), task[1]
    form, starts = low_bits(graph, data, 3), []

    def learn_once(start, *args, **options):
        starts.append(start)
        tuned = fit(start, *args, **options)
        return tuned if len(starts) == 1 else replace(tuned, graph=graph)

    for name, value in (("TOLERANCE", -1.0), ("ENOUGH", -1.0), ("PEAK", 3e-2), ("fit", learn_once)):
        monkeypatch.setattr(rounded_learning, name, value)
    monitor = BudgetMonitor(graph, data, PruneSettings(parameters="100%").budgets, (form,))
    kept = learn_with_rounding(graph, monitor, form, epochs=12)
    a_cycle = Recipe(epochs=12).count_batches(len(data.train))
    assert kept is not None and kept.kept and (kept.batches, kept.batches_to_best) == (3 * a_cycle, a_cycle)
    assert f"after {a_cycle} batches with the chip's rounding they have" in kept.note
    assert kept.note.endswith(f"; {2 * a_cycle} batches after them gained no more within the budgets")


def test_lower_thresholds_after_rounding_stay_unless_the_accuracy_of_the_integers_falls_by_more_than_chance(task, monkeypatch):
    graph, data = task
    form = low_bits(graph, data, 4)
    used = evaluate(*form(graph, data.val)).synops.total
    above, below = (
        BudgetMonitor(graph, data, PruneSettings(synops=str(factor * used)).budgets, (form,)) for factor in (0.7, 1.5)
    )
    learnt = rounded_learning._measure(graph, below, form, 1)
    taken = rounded_learning._hold_budget(graph, below, form, 1)
    assert learnt.use.active_use < taken.use.active_use <= 1
    assert taken.accuracy >= learnt.accuracy - accuracy_error(learnt.right)
    monkeypatch.setattr(rounded_learning, "scale_thresholds", lambda net, _: last_adjustments.multiply_thresholds(net, 20.0))
    assert rounded_learning._hold_budget(graph, below, form, 1).graph is graph
    silent = rounded_learning._hold_budget(graph, above, form, 1)
    assert silent.accuracy < learnt.accuracy and silent.use.active_use <= 1 < above.measure(graph).active_use


def test_of_the_cycles_of_rounding_one_within_the_budgets_comes_first(task):
    graph, data = task
    tight, wide = (BudgetMonitor(graph, data, PruneSettings(synops=share).budgets) for share in ("50%", "150%"))
    over, within = tight.measure(graph), wide.measure(graph)

    def measured(use, accuracy):
        return rounded_learning._Measured(graph=graph, use=use, right=np.arange(10) < 10 * accuracy, batches=1)

    first, better, best = measured(over, 0.5), measured(within, 0.6), measured(over, 0.7)
    assert not over.met and within.met
    assert rounded_learning._choose_best([first, better, best]) is better
    assert rounded_learning._choose_best([first, best]) is best
    assert rounded_learning._choose_best([measured(within, 0.5), best]).accuracy == 0.5
    assert rounded_learning._choose_best([first, measured(within, 0.4)]) is first


@pytest.mark.slow
def test_ctrl_c_while_learning_with_rounding_is_noted_or_raised(task):
    graph, data = task

    def stop(facts):
        if (facts["stage"], facts.get("done")) == ("learn with rounding", 1):
            raise KeyboardInterrupt

    settings = PruneSettings(synops="30%", method="uniform", epochs=6, seed=1)
    forms = (deploy_float, low_bits(graph, data, 3))
    result = prune_to_budget(graph, data, settings, deployed=forms, progress=stop)
    assert result.interrupted
    assert any(note.startswith("learning with the chip's rounding was interrupted") for note in result.notes)
    with pytest.raises(KeyboardInterrupt):
        prune_to_budget(graph, data, replace(settings, completes=False), deployed=forms, progress=stop)


@pytest.mark.slow
def test_a_deployment_stopped_in_a_later_cycle_of_rounding_ends_as_one_without_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(rounded_learning, "TOLERANCE", -1.0)
    monkeypatch.setattr(rounded_learning, "ENOUGH", -1.0)
    net, data, stages = network(IF(), hidden=20), deploy_task(), []

    def stop(facts):
        stages.append(facts["stage"])
        if facts["stage"] == "learn with rounding, cycle 2":
            raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    sd.deploy(net, "loihi2", data, out=whole, lava_samples=1)
    with pytest.raises(KeyboardInterrupt, match=r"what is done \(evaluate\) is kept"):
        sd.deploy(net, "loihi2", data, out=stopped, lava_samples=1, progress=stop)
    assert "learn with rounding" in stages
    sd.deploy(net, "loihi2", data, out=stopped, lava_samples=1)
    for name in ("pruned.snn", "quantised.snn"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.slow
def test_deploy_takes_levers_and_shows_what_each_did(tmp_path):
    net, data = network(IF(), hidden=20), deploy_task()
    options = {"synops": "50%", "levers": "channels,weights", "lava_samples": 1}
    facts = sd.deploy(net, "loihi2", data, out=tmp_path, **options)
    names = [row["lever"] for row in facts.levers]
    assert names[:2] == ["trained", "channels"] and "weights" in names and facts.to_json()["levers"] == facts.levers
    console = Console(record=True, width=120, file=io.StringIO())
    show_levers(console, facts.levers, "validation")
    show_aims(console, facts.budgets)
    shown = console.export_text()
    assert "After each step of pruning, in floating point, on validation" in shown and "bits: " not in shown
    rounded = Console(record=True, width=120, file=io.StringIO())
    show_levers(rounded, [*facts.levers, {**facts.levers[-1], "lever": "bits"}], "validation")
    assert "the chip's integers, which keep the budget, may spike more or less often" in " ".join(rounded.export_text().split())
    assert facts.budgets == facts.to_json()["budgets"]
    row = facts.budgets["synops"]
    aim = f"SynOps while pruning, on {row['measured_on']}: {row['used']:,.0f}; aim at most {row['aim']:,.0f}, budget"
    assert aim in " ".join(shown.split())
    assert all(name in shown for name in names)
    again = sd.deploy(net, "loihi2", data, out=tmp_path, **options)
    assert "prune" in again.resumed and again.levers == facts.levers
    other = sd.deploy(net, "loihi2", data, out=tmp_path, **{**options, "levers": "channels"})
    assert "prune" not in other.resumed and "weights" not in [row["lever"] for row in other.levers]
