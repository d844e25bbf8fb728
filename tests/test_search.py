"""The search and the closed loop on a small real task; scoring against slow answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

import torch

from spear_deploy.data import load_data
from spear_deploy.errors import BudgetError, DataError
from spear_deploy.graph import chain
from spear_deploy.layers import LI, Dense, Layer
from spear_deploy.pruning import PruningPlan, coupled_groups, prune
from spear_deploy.search import METHODS, SearchSettings, closed_loop, prune_to_budget, search
from spear_deploy.search.score import Scorer
from spear_deploy.simulator import simulate
from spear_deploy.synops import synops
from spear_deploy.training import Evaluation, digits_network, evaluate, train
from tests.test_training import quick, toy_data, toy_network

FAST = SearchSettings(episodes=10, lre_samples=4, lre_epochs=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task():
    """A trained toy network, its data, and half of its SynOps."""
    data = toy_data()
    graph = train(toy_network(hidden=16), data, recipe=quick(12))
    return graph, data, 0.6 * evaluate(graph, data.test).synops.total


# -------------------------------------------------------------------------------------------------------------- score


def masked(graph, plan):
    """The same network with the weights of removed channels at zero, and the neurons that are left."""
    groups = {group.name: group for group in coupled_groups(graph)}
    left = {}
    for name, kept in plan.kept.items():
        gone = sorted(set(range(groups[name].channels)) - set(kept))
        for layer in graph.layers:
            synapse = layer.synapse
            if layer.name in groups[name].producers:
                weight = synapse.weight.copy()
                weight[gone] = 0
                graph = graph.with_layers({layer.name: replace(graph[layer.name], synapse=replace(synapse, weight=weight))})
                left[layer.name] = kept
        for consumer in groups[name].consumers:
            synapse = graph[consumer].synapse
            weight = synapse.weight.copy()
            per = weight.shape[1] // groups[name].channels
            weight[:, [g * per + i for g in gone for i in range(per)]] = 0
            graph = graph.with_layers({consumer: replace(graph[consumer], synapse=replace(synapse, weight=weight))})
    return graph, left


@pytest.mark.parametrize("widths", [(16, 32), (9, 20), (1, 1), (5, 32)])
def test_estimate_is_the_count_on_the_masked_network(widths):
    graph, data = digits_network(0), load_data("digits")
    scorer = Scorer(graph, replace(data, val=data.val.head(40)))
    plan = scorer.plan(widths)
    without, left = masked(graph, plan)
    counts = scorer.dense.counts
    sent = dict(counts.sent)
    for name, kept in left.items():
        sent[name] = np.where(np.isin(np.arange(len(sent[name])), kept)[:, None, None], sent[name], 0)
    assert scorer.estimate(widths) == pytest.approx(synops(without, replace(counts, sent=sent)).total, rel=1e-12)


def test_estimate_grows_with_every_channel(task):
    graph, data, _ = task
    scorer = Scorer(graph, data)
    for w in range(1, 16):
        assert scorer.estimate((w, 8)) <= scorer.estimate((w + 1, 8))
        assert scorer.estimate((8, w)) <= scorer.estimate((8, w + 1))
    assert scorer.estimate((16, 16)) == pytest.approx(scorer.dense.synops.total)


def test_a_score_is_what_the_pruned_network_does_and_is_remembered(task):
    graph, data, _ = task
    scorer = Scorer(graph, data)
    found, candidate = scorer.score((9, 7)), scorer.candidate((9, 7))
    exact = evaluate(candidate, data.val)
    assert (found.accuracy, found.synops) == pytest.approx((exact.accuracy, exact.synops.total))
    sliced = prune(graph, scorer.plan((9, 7)))
    assert [layer.synapse for layer in candidate.layers] == [layer.synapse for layer in sliced.layers]
    assert scorer.score((9, 7)) is found and scorer.evaluations == 1


def test_batch_norm_is_re_estimated_before_scoring():
    graph, data = digits_network(0), load_data("digits")
    scorer = Scorer(graph, replace(data, val=data.val.head(20)))
    candidate = scorer.candidate((8, 16))
    conv = replace(candidate["conv1"], norm=None, neuron=None)
    drive = simulate(chain((conv,), input_shape=(1, 8, 8)), np.moveaxis(data.train.x[:256], 0, 1)).output
    np.testing.assert_allclose(candidate["conv1"].norm.mean, drive.mean(axis=(0, 1, 3, 4)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(candidate["conv1"].norm.var, drive.var(axis=(0, 1, 3, 4)), rtol=2e-3)
    assert not np.allclose(candidate["conv1"].norm.mean, 0) and not np.allclose(candidate["conv2"].norm.mean, 0)


def test_a_network_without_prunable_channels_is_refused(task):
    _, data, _ = task
    only = chain((Layer(name="out", synapse=Dense(weight=np.ones((2, 6), np.float32)), neuron=LI(tau_s=2e-3)),), input_shape=(6,))
    with pytest.raises(DataError, match="no channels that could be removed"):
        Scorer(only, data)


# ------------------------------------------------------------------------------------------------------------- search


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_a_plan_within_the_budget(task, method):
    graph, data, budget = task
    told = []
    found = search(graph, data, synops_budget=budget, method=method, seed=0, settings=FAST, progress=told.append)
    assert len(found.history) == 10 == told[-1]["of"] and all(row["feasible"] for row in found.history)
    assert found.lre.upper(found.score.synops, FAST.confidence) <= budget
    assert found.predicted <= budget and evaluate(found.graph, data.val).synops.total == pytest.approx(found.score.synops)
    assert found.widths == {name: (16, len(kept)) for name, kept in found.plan.kept.items()}
    assert found.score.accuracy == max(row["accuracy"] for row in found.history)
    assert found.evaluations < 4 + 1 + 10 * 4 and not found.interrupted
    json.dumps([*found.history, found.lre.to_json(), found.seconds])


def test_the_same_seed_gives_the_same_search(task):
    graph, data, budget = task
    few = replace(FAST, episodes=5)
    first, again = (search(graph, data, synops_budget=budget, seed=2, settings=few) for _ in range(2))
    assert first.history == again.history and first.plan == again.plan and first.lre == again.lre
    other = search(graph, data, synops_budget=budget, method="random", seed=3, settings=few)
    assert other.history != search(graph, data, synops_budget=budget, method="random", seed=4, settings=few).history


def test_ctrl_c_keeps_the_best_so_far(task):
    graph, data, budget = task

    def stop(facts):
        if facts["stage"] == "search" and facts["done"] == 5:
            raise KeyboardInterrupt

    found = search(graph, data, synops_budget=budget, method="random", settings=FAST, progress=stop)
    assert found.interrupted and len(found.history) == 5
    assert found.score.accuracy == max(row["accuracy"] for row in found.history)


def test_ctrl_c_before_the_first_plan_is_passed_on(task):
    graph, data, budget = task

    def stop(facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(graph, data, synops_budget=budget, settings=FAST, progress=stop)


def test_an_unreachable_budget_names_the_least(task):
    graph, data, _ = task
    least = Scorer(graph, data).score((1, 1)).synops
    with pytest.raises(
        BudgetError, match=rf"budget {least / 2:.0f} is below {least:.0f}, what this network costs with one"
    ) as error:
        search(graph, data, synops_budget=least / 2, settings=FAST)
    assert error.value.least == least


def test_floors_give_way_where_only_that_reaches_the_budget(task):
    graph, data, _ = task
    scorer = Scorer(graph, data)
    between = (scorer.score((1, 1)).synops + scorer.score((8, 8)).synops) / 2
    assert between < scorer.score((8, 8)).synops
    found = search(graph, data, synops_budget=between, method="random", settings=replace(FAST, floor=0.5))
    assert min(width for _, width in found.widths.values()) < 8 and found.predicted <= between


def test_other_limits_of_the_chip_are_kept(task):
    graph, data, budget = task

    def narrow(candidate):
        return max(0.0, candidate.shape_of("hidden")[0] / 9 - 1)

    found = search(graph, data, synops_budget=budget, method="random", settings=FAST, constraint=narrow)
    assert found.widths["hidden"][1] <= 9 and {row["feasible"] for row in found.history} == {True, False}
    with pytest.raises(BudgetError, match="none of 10 plans was within it and the chip's limits"):
        search(graph, data, synops_budget=budget, method="random", settings=FAST, constraint=lambda candidate: 1.0)


@pytest.mark.parametrize("budget", [0.0, -1.0, np.nan, np.inf])
def test_a_budget_is_a_number_above_zero(task, budget):
    graph, data, _ = task
    with pytest.raises(BudgetError, match="expected a number above 0"):
        search(graph, data, synops_budget=budget)


def test_an_unknown_method_is_refused(task):
    graph, data, budget = task
    with pytest.raises(BudgetError, match="method 'speer': expected one of spear, td3, .*; did you mean 'spear'"):
        search(graph, data, synops_budget=budget, method="speer")


# -------------------------------------------------------------------------------------------------------- closed loop


def test_the_budget_holds_on_unseen_data_and_the_plan_says_what_is_left(task):
    graph, data, budget = task
    told = []
    found = prune_to_budget(graph, data, synops_budget=budget, epochs=20, settings=FAST, progress=told.append)
    test = evaluate(found.graph, data.test)
    assert test.synops.total <= budget and found.met and found.synops <= found.aim < budget
    assert found.synops == evaluate(found.graph, data.val).synops.total
    assert test.accuracy >= evaluate(graph, data.test).accuracy - 0.1
    sliced = prune(graph, found.plan)
    assert [sliced.shape_of(layer.name) for layer in sliced.layers] == [
        found.graph.shape_of(layer.name) for layer in found.graph.layers
    ]
    assert found.widths == {name: [16, len(kept)] for name, kept in found.plan.kept.items()}
    assert {facts["stage"] for facts in told} == {"estimate", "search", "fine-tune"}
    assert json.loads(json.dumps(found.to_json()))["met"]


def test_a_network_within_its_budget_is_left_alone(task):
    graph, data, _ = task
    found = prune_to_budget(graph, data, synops_budget=10 * evaluate(graph, data.val).synops.total)
    assert (
        found.graph == graph and found.search is None and found.met and found.widths == {"hidden": [16, 16], "second": [16, 16]}
    )
    assert "within the budget as it is" in found.notes[0]


def test_what_is_measured_is_what_is_deployed(task):
    """The deployed form here costs a tenth more than the network that learns."""
    graph, data, budget = task

    def measure(network):
        found = evaluate(network, data.val)
        return replace(
            found, synops=replace(found.synops, total=1.1 * found.synops.total), synops_per_sample=1.1 * found.synops_per_sample
        )

    found = prune_to_budget(graph, data, synops_budget=budget, epochs=12, settings=FAST, measure=measure)
    assert found.met and 1.1 * evaluate(found.graph, data.val).synops.total == pytest.approx(found.synops)
    assert 1.1 * evaluate(found.graph, data.test).synops.total <= budget


def test_trimming_takes_whole_channels_until_enough_is_gone(task):
    graph, data, _ = task
    before = evaluate(graph, data.val).synops.total
    after = closed_loop.trimmed(graph, data, 0.1)
    assert evaluate(after, data.val).synops.total <= 0.9 * before
    assert sum(group.channels for group in coupled_groups(after)) < 32
    bare = prune(graph, PruningPlan(kept={"hidden": (0,), "second": (0,)}))
    assert closed_loop.trimmed(bare, data, 0.5) == bare


def test_a_budget_that_cannot_be_held_is_said(task, monkeypatch):
    graph, data, budget = task
    monkeypatch.setattr(closed_loop, "ROUNDS", 0)

    def dear(network):
        return evaluate(network, data.val) if network is graph else replace(evaluate(network, data.val), synops=before.synops)

    before = evaluate(graph, data.val)
    found = prune_to_budget(graph, data, synops_budget=budget, epochs=1, settings=FAST, measure=dear)
    assert not found.met and "the budget could not be held with its margin" in found.notes[0]


def test_the_margin_covers_what_two_splits_differ_by():
    rng = np.random.default_rng(0)
    held = []
    labels = np.arange(200) % 10
    for _ in range(400):
        level = 1000 + 100 * labels
        measured, unseen = (level + rng.normal(0, 80, 200) for _ in range(2))
        found = Evaluation(accuracy=1.0, synops=None, counts=None, synops_per_sample=measured, labels=labels)
        held.append(unseen.mean() <= measured.mean() * (1 + closed_loop.margin(found, labels, 200)))
    assert 0.95 <= np.mean(held) <= 0.995


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, spear_deploy.search, spear_deploy.training, spear_deploy.data\n"
        "sys.exit(', '.join({'torch', 'norse', 'gymnasium', 'stable_baselines3', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_from_dense_to_half_the_synops(seed):
    data = load_data("digits", seed=seed)
    dense = train(digits_network(seed), data, seed=seed)
    before = evaluate(dense, data.test)
    found = prune_to_budget(dense, data, synops_budget=before.synops.total / 2, seed=seed)
    after = evaluate(found.graph, data.test)
    assert before.accuracy >= 0.98 and after.accuracy >= before.accuracy - 0.015
    assert 0.95 * found.budget <= after.synops.total <= found.budget
