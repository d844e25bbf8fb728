"""Constrained reinforcement learning over all levers: recipe first, multipliers, learning that is kept, resume."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from spear_deploy.errors import BudgetError
from spear_deploy.network import IF, Dense, Layer, SparseMatrix, make_sparse
from spear_deploy.network.graph import chain
from spear_deploy.pruning.candidates import Evaluator
from spear_deploy.pruning.plan import PruningPlan, prune, restore_channels
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search import constrained_rl, recipes
from spear_deploy.pruning.search.constrained_rl import RATE, search_levers
from spear_deploy.pruning.search.lever_environment import LeverEnv
from spear_deploy.pruning.search.lever_plan import LeverPlan, LeverSpace, list_layers
from spear_deploy.pruning.search.rl_agents import LagrangianReplay
from spear_deploy.pruning.search.settings import get_searcher
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.thin_weights import LayerWeightRemoval, list_densities, thin_layers
from spear_deploy.report.search_charts import draw_search
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from tests.training.test_fit import quick, toy_data, toy_network

SETTINGS = PruneSettings(synops="30%", method="rl", epochs=40, episodes=4)


@pytest.fixture(scope="module")
def task():
    data = toy_data()
    return train(toy_network(hidden=16), data, recipe=quick(12)), data


@pytest.fixture(scope="module")
def result(task):
    return prune_to_budget(*task, SETTINGS)


def test_the_first_episode_is_the_recipe_and_multipliers_follow_the_measured_excess(task, result):
    rows = result.search.history
    recipe = recipes.search_recipes(*task, replace(SETTINGS, method="recipe", episodes=1))
    first = rows[0]
    assert first["widths"] == recipe.history[0]["widths"] == list(recipe.score.widths)
    thinned = recipe.removal(recipe.graph, 1.0)
    assert first["densities"] == list_densities(thinned) and min(first["densities"].values()) < 1
    assert len({tuple(row["densities"].values()) for row in rows}) == len(rows) == 4
    price = 0.0
    for row in rows:
        assert row["multipliers"]["synops"] == pytest.approx(price)
        assert row["reward"] == pytest.approx(row["certainty"] - price * (row["use"]["synops"] - 1))
        assert row["feasible"] == (row["use"]["synops"] <= 1.1)
        price = max(0.0, price + RATE * (row["use"]["synops"] - 1))
    assert rows[0]["use"]["synops"] > 1 and rows[1]["multipliers"]["synops"] > 0


def test_search_and_fine_tuning_together_learn_as_long_as_the_settings_say(task, result):
    an_epoch = -(-len(task[1].train) // 64)
    assert result.batches["search"] == 40 * an_epoch // 4
    assert len(result.history) >= 30 and result.history[29]["epoch"] == 30
    limit = 0.3 * evaluate(task[0], task[1].test).synops.total
    assert result.met and evaluate(result.graph, task[1].test).synops.total <= limit
    assert [stage.name for stage in result.stages] == ["trained", "channels", "weights", "rates"]
    page = draw_search(result.to_json())
    assert any("Multiplier" in chart["title"] for chart in page["charts"])


def test_a_stopped_search_goes_on_to_the_same_network(task, tmp_path, monkeypatch):
    whole = search_levers(*task, SETTINGS)
    path = tmp_path / "checkpoint.json"

    def stop(facts):
        if facts["done"] == 2:
            raise KeyboardInterrupt

    part = search_levers(*task, SETTINGS, checkpoint=path, progress=stop)
    assert part.interrupted and part.history == whole.history[:2]
    assert sum(key.startswith("rl ") for key in json.loads(path.read_text())["measured"]) == 2
    again = search_levers(*task, SETTINGS, checkpoint=path)
    assert (again.graph, again.history, again.batches) == (whole.graph, whole.history, whole.batches)
    third = search_levers(*task, SETTINGS, checkpoint=path)  # measurements alone: the episodes learn again
    assert third.graph == whole.graph and third.removal.densities == whole.removal.densities
    monkeypatch.setattr(constrained_rl._Episodes, "play", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        search_levers(*task, SETTINGS)


def test_what_an_episode_has_learnt_goes_on_and_what_it_left_out_stays(task):
    graph, data = task
    evaluator = Evaluator(graph, data)
    plan = evaluator.plan((9, 7))
    learnt = prune(graph, plan).with_layers(
        lambda layer: replace(layer, synapse=replace(layer.synapse, weight=layer.synapse.weight + 1))
    )
    back = restore_channels(graph, plan, learnt)
    assert [layer.synapse for layer in prune(back, plan).layers] == [layer.synapse for layer in learnt.layers]
    changed = sum(
        int(np.sum(after.synapse.weight != before.synapse.weight))
        for after, before in zip(back.layers, graph.layers, strict=True)
    )
    assert changed == sum(layer.synapse.weight.size for layer in learnt.layers) < sum(x.synapse.weight.size for x in graph.layers)


def test_sparse_weights_learn_in_place_as_full_ones_do():
    weight = np.where(np.random.default_rng(0).random((6, 4)) < 0.5, 1.5, 0)
    nets = [
        chain(
            [Layer(name=name, synapse=Dense(weight=form(part)), neuron=IF()) for name, part in (("a", weight), ("b", weight.T))],
            input_shape=(4,),
        )
        for form in (np.asarray, make_sparse)
    ]
    plan = PruningPlan(kept={"a": (1, 4, 5)})
    backs = []
    for net in nets:
        learnt = prune(net, plan).with_layers(
            lambda layer: replace(layer, synapse=replace(layer.synapse, weight=layer.synapse.weight * 2))
        )
        backs.append(restore_channels(net, plan, learnt))
    assert isinstance(backs[1]["a"].synapse.weight, SparseMatrix)
    assert backs[0] == backs[1]
    assert np.count_nonzero(backs[1]["b"].synapse.weight == 3) == np.count_nonzero(weight.T[:, [1, 4, 5]])


@pytest.mark.parametrize(("levers", "kinds"), [("channels", ("width",)), ("weights", ("density",))])
def test_a_lever_alone_is_searched_alone(task, levers, kinds):
    found = search_levers(*task, replace(SETTINGS, levers=levers, episodes=3))
    if kinds == ("width",):
        assert found.removal is None and all(row["densities"] == {} for row in found.history)
        assert len({tuple(row["widths"]) for row in found.history}) > 1
    else:
        assert all(row["widths"] == [16, 16] for row in found.history) and found.removal is not None


def test_budgets_of_size_are_kept_by_every_plan(task):
    found = search_levers(*task, PruneSettings(synops="40%", parameters="35%", method="rl", epochs=20, episodes=4))
    limit = found.limits["parameters"]
    evaluator = Evaluator(*task)
    assert all(evaluator.sizes(tuple(row["widths"]))["parameters"] <= limit for row in found.history)
    assert all(set(row["multipliers"]) == {"synops"} for row in found.history)
    alone = search_levers(*task, PruneSettings(parameters="35%", method="rl", epochs=20, episodes=2))
    assert alone.removal is None and alone.history[0]["multipliers"] == {}


def test_a_budget_below_all_levers_names_the_lowest(task):
    with pytest.raises(BudgetError, match="raise it to that or more; SynOps that the levers leave"):
        search_levers(*task, replace(SETTINGS, synops=0.01))
    with pytest.raises(BudgetError, match="method 'rl': shares the budget between levers .*; call `search_levers`"):
        get_searcher("rl")
    with pytest.raises(BudgetError, match="method 'spear' removes channels alone; choose method 'recipe' or 'rl'"):
        PruneSettings(synops="50%", method="spear", levers="weights")


def test_the_environment_follows_gymnasium_and_actions_of_zero_are_the_recipe(task):
    evaluator = Evaluator(*task)
    recipe = LeverPlan(widths=(8, 9), densities={"second": 0.5, "out": 0.8})
    layers = list_layers(evaluator, recipe.densities)
    assert layers == ("hidden", "second", "out")
    space = LeverSpace(evaluator=evaluator, recipe=recipe, layers=layers, levers=("width", "density"))
    assert space.make_plan([(0.0, 0.0)] * 3) == recipe
    wide = space.make_plan([(1.0, 1.0), (-1.0, -1.0), (1.0, 1.0)])
    assert wide == LeverPlan(widths=(11, 6), densities={"second": 0.25, "out": 1.0})
    assert space.estimate(recipe) < space.estimate(replace(recipe, densities={})) == pytest.approx(evaluator.estimate((8, 9)))
    check_env(LeverEnv(space, lambda actions: (1.0, [1.0, 2.0]), lambda: [3.0]), skip_render_check=True)


def test_rewards_of_all_episodes_follow_the_present_multipliers():
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    buffer = LagrangianReplay(20, box, box, device="cpu")
    measured, prices = [(0.5, 1.4), (0.6, 1.2), (0.9, 1.3), (0.8, 1.0)], (0.4, 0.6, 0.9, 0.9)
    for values, price in zip(measured, prices, strict=True):
        for last in (False, True):
            info = {"measured": values, "multipliers": [price]} if last else {}
            buffer.add(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), np.array([last]), [info])
    values = [objective - 0.9 * use for objective, use in measured]
    expected = np.array(values) - np.polyval(np.polyfit(range(4), values, 1), range(4))
    np.testing.assert_allclose(buffer.rewards[:8, 0], np.repeat(expected, 2), atol=1e-6)


def test_layers_lose_their_smallest_weights(task):
    graph, data = task
    thin = thin_layers(graph, {"second": 0.25})
    before, after = graph["second"].synapse.weight, thin["second"].synapse.weight
    assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min() and np.mean(after != 0) == 0.25
    assert thin["hidden"].synapse == graph["hidden"].synapse
    removal = LayerWeightRemoval(data.val, densities={"second": 0.25})
    assert list_densities(removal(graph, 0.5))["second"] == 0.5 and removal.unthinned == graph
