"""Candidates, search and pruning to budgets on a small trained network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

import torch

from spear_deploy.data import load_data
from spear_deploy.errors import BudgetError, DataError, FileError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import LI, Dense, Layer
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.classes import COUNTED_BY_MEAN, state_decision, state_outputs_per_class
from spear_deploy.network.graph import chain
from spear_deploy.network.host_readout import move_to_host
from spear_deploy.pipeline.demo import digits_network
from spear_deploy.pruning import notes as notes_module
from spear_deploy.pruning.candidates import Checkpoint, Evaluator, tool_version
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.notes import MAX_STATED_SLACK, preflight_warnings, warn_of_loss
from spear_deploy.pruning.plan import prune
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.projection import compute_min_widths
from spear_deploy.pruning.search.search import make_evaluator, search, search_front
from spear_deploy.pruning.search.settings import LEVER_METHODS, METHODS, SearchSettings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune import last_adjustments
from spear_deploy.pruning.tune.measure import TRAINING_SAMPLES, deploy_float
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops
from spear_deploy.training.evaluation import LOGIT_SCALE, evaluate
from spear_deploy.training.fit import train
from tests.training.test_fit import quick, toy_data, toy_network

FAST = SearchSettings(episodes=10, estimator="lre", samples=4, sample_epochs=1)
FASTEST = replace(FAST, samples=2)
RECORDED = Path(__file__).parents[1] / "recorded" / "checkpoint.json"
"""Written by version 0.1.0: `search(toy_network(), toy_data(), synops_budget="60%", episodes=8, seed=1, checkpoint=...)`."""


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


# -------------------------------------------------------------------------------------------------------------- candidates


def masked(graph, plan):
    """The same network with the weights of removed channels at zero, and the neurons that are left."""
    groups = {group.name: group for group in list_prunable_groups(graph)}
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
    evaluator = Evaluator(graph, replace(data, val=data.val.head(40)))
    plan = evaluator.plan(widths)
    without, left = masked(graph, plan)
    counts = evaluator.dense.counts
    sent = dict(counts.sent)
    for name, kept in left.items():
        sent[name] = np.where(np.isin(np.arange(len(sent[name])), kept)[:, None, None], sent[name], 0)
    assert evaluator.estimate(widths) == pytest.approx(count_synops(without, replace(counts, sent=sent)).total, rel=1e-12)


def test_estimate_grows_with_every_channel(task):
    graph, data, _ = task
    evaluator = Evaluator(graph, data)
    for w in range(1, 16):
        assert evaluator.estimate((w, 8)) <= evaluator.estimate((w + 1, 8))
        assert evaluator.estimate((8, w)) <= evaluator.estimate((8, w + 1))
    assert evaluator.estimate((16, 16)) == pytest.approx(evaluator.dense.synops.total)


def test_a_score_is_the_exact_evaluation_and_is_measured_once(task):
    graph, data, _ = task
    evaluator = Evaluator(graph, data)
    result, candidate = evaluator.score((9, 7)), evaluator.build((9, 7))
    exact = evaluate(candidate, data.val)
    assert (result.accuracy, result.synops) == pytest.approx((exact.accuracy, exact.synops.total))
    sliced = prune(graph, evaluator.plan((9, 7)))
    assert [layer.synapse for layer in candidate.layers] == [layer.synapse for layer in sliced.layers]
    assert evaluator.score((9, 7)) is result and evaluator.evaluations == 1


def test_batch_norm_is_re_estimated_before_scoring():
    graph, data = digits_network(0), load_data("digits")
    evaluator = Evaluator(graph, replace(data, val=data.val.head(20)))
    candidate = evaluator.build((8, 16))
    conv = replace(candidate["conv1"], norm=None, neuron=None)
    drive = simulate(chain((conv,), input_shape=(1, 8, 8)), np.moveaxis(data.train.x[:256], 0, 1)).output
    np.testing.assert_allclose(candidate["conv1"].norm.mean, drive.mean(axis=(0, 1, 3, 4)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(candidate["conv1"].norm.var, drive.var(axis=(0, 1, 3, 4)), rtol=2e-3)
    assert not np.allclose(candidate["conv1"].norm.mean, 0) and not np.allclose(candidate["conv2"].norm.mean, 0)


def test_a_network_without_prunable_channels_is_refused(task):
    _, data, _ = task
    only = chain((Layer(name="out", synapse=Dense(weight=np.ones((2, 6), np.float32)), neuron=LI(tau_s=2e-3)),), input_shape=(6,))
    with pytest.raises(DataError, match="no channels that could be removed: "):
        Evaluator(only, data)


# ------------------------------------------------------------------------------------------------------------- search


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(m, marks=pytest.mark.slow if m in ("sac", "td3") else ())
        for m in METHODS
        if m not in ("spear", *LEVER_METHODS)
    ],
)
def test_every_method_finds_a_plan_within_the_budget(task, method):
    graph, data, budget = task
    reported = []
    result = search(graph, data, PruneSettings(synops=budget, method=method, seed=0, search=FAST), progress=reported.append)
    assert len(result.history) == (1 if method == "uniform" else 10) and reported[-1]["of"] == 10
    assert all(row["feasible"] for row in result.history)
    assert result.estimator.upper(result.score.synops, FAST.confidence) <= budget
    assert result.predicted <= budget and evaluate(result.graph, data.val).synops.total == pytest.approx(result.score.synops)
    assert result.widths == {name: (16, len(kept)) for name, kept in result.plan.kept.items()}
    assert result.score.accuracy == max(row["accuracy"] for row in result.history)
    assert result.evaluations < 2 * 4 + 1 + 10 * 4 and not result.interrupted
    json.dumps([*result.history, result.estimator.to_json(), result.seconds])


def test_spear_punishes_what_is_above_the_budget_and_ends_within_it(task):
    graph, data, budget = task
    soft = replace(FAST, projects=False, objective="accuracy", tar="cliff")
    result = search(graph, data, PruneSettings(synops=budget, method="spear", search=soft))
    feasible = [row["feasible"] for row in result.history]
    assert set(feasible) == {True, False} and result.estimator.upper(result.score.synops) <= budget
    for row in result.history:
        assert (row["reward"] == row["accuracy"]) if row["feasible"] else (row["reward"] < -3)
    tight = search(graph, data, PruneSettings(synops=budget / 2, method="spear", search=replace(soft, episodes=2)))
    assert not any(row["feasible"] for row in tight.history) and tight.predicted <= budget / 2


def test_the_same_seed_gives_the_same_search(task):
    graph, data, budget = task
    few = replace(FASTEST, episodes=5)
    for method in ("spear", "evolution", "gp", "cma-es", "tpe"):
        first, again = (search(graph, data, PruneSettings(synops=budget, method=method, seed=2, search=few)) for _ in range(2))
        assert first.history == again.history and first.plan == again.plan and first.estimator == again.estimator
    other = search(graph, data, PruneSettings(synops=budget, method="random", seed=3, search=few))
    assert other.history != search(graph, data, PruneSettings(synops=budget, method="random", seed=4, search=few)).history


def test_searchers_leave_the_global_random_state_alone(task):
    graph, data, budget = task
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    for method in ("gp", "cma-es", "tpe"):
        search(graph, data, PruneSettings(synops=budget, method=method, search=replace(FASTEST, samples=0, episodes=12)))
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.random.get_rng_state(), before[1])


def test_ctrl_c_keeps_the_best_plan_so_far(task):
    graph, data, budget = task

    def stop(facts):
        if facts["stage"] == "search" and facts["done"] == 5:
            raise KeyboardInterrupt

    result = search(graph, data, PruneSettings(synops=budget, method="random", search=FAST), progress=stop)
    assert result.interrupted and len(result.history) == 5
    assert result.score.accuracy == max(row["accuracy"] for row in result.history)


def test_ctrl_c_before_the_first_plan_is_passed_on(task):
    graph, data, budget = task

    def stop(facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(graph, data, PruneSettings(synops=budget, search=FAST), progress=stop)


def test_an_unreachable_budget_names_the_smallest_that_can_be_reached(task):
    graph, data, _ = task
    smallest = Evaluator(graph, data).score((1, 1)).synops
    with pytest.raises(
        BudgetError,
        match=rf"budget [\d.]+ is below {np.ceil(smallest):.0f}, what this network costs with one.*; raise it to that or more;",
    ) as error:
        search(graph, data, PruneSettings(synops=smallest / 2, search=FAST))
    assert error.value.min_value == smallest
    with pytest.raises(BudgetError, match=rf"budget 0\.00123 is below {np.ceil(smallest):.0f}, what"):  # not "0"
        search(graph, data, PruneSettings(synops=0.001234, search=FAST))
    rest = re.search(
        r"removing weights too would leave (\d+) \(.--levers channels,weights.\), and fewer time steps less "
        r"\(`--steps auto` of prune and deploy\)",
        str(error.value),
    )
    assert rest and 0 < int(rest[1]) < smallest


@pytest.mark.parametrize(
    ("proposals", "said"),
    [
        (1, r"the only plan was not within the budget \(SynOps .*\), the best exceeds it by 100\.0%; raise the budget$"),
        (2, r"none of 2 plans was within the budget .*; raise the budget or evaluate more plans \(`.*prune --episodes`\)$"),
    ],
)
def test_a_search_without_a_plan_within_the_budget_says_what_may_help(task, proposals, said):
    graph, data, _ = task
    settings = PruneSettings(synops="50%", search=SearchSettings(samples=0))
    evaluator = make_evaluator(graph, data, settings)
    smallest = evaluator.score(compute_min_widths(evaluator.channels, settings.search_settings.floor)).synops
    problem = Problem(evaluator, {"synops": smallest / 2}, settings.search_settings)
    for _ in range(proposals):
        problem.evaluate((0.5,) * len(evaluator.groups))
    with pytest.raises(BudgetError, match=said) as caught:
        problem.ensure_feasible()
    assert caught.value.min_value == smallest


def test_floors_are_lowered_where_only_that_reaches_the_budget(task):
    graph, data, _ = task
    evaluator = Evaluator(graph, data)
    between = (evaluator.score((1, 1)).synops + evaluator.score((8, 8)).synops) / 2
    assert between < evaluator.score((8, 8)).synops
    result = search(graph, data, PruneSettings(synops=between, method="random", search=replace(FASTEST, floor=0.5)))
    assert min(width for _, width in result.widths.values()) < 8 and result.predicted <= between


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(0.0, "more than 0"), (-1.0, "more than 0"), (np.nan, "a number of SynOps"), (np.inf, "a number of SynOps")],
)
def test_a_budget_is_a_number_above_zero(budget, expected):
    with pytest.raises(BudgetError, match=f"SynOps budget '{budget}': expected {expected}"):
        PruneSettings(synops=budget)


def test_a_search_without_a_budget_is_refused(task):
    graph, data, _ = task
    with pytest.raises(BudgetError, match="no budget is given; expected at least one, or a chip to fit"):
        search(graph, data, PruneSettings())


def test_an_unknown_method_is_refused(task):
    graph, data, budget = task
    with pytest.raises(BudgetError, match="method 'speer': expected one of spear, ddpg, .*; did you mean 'spear'"):
        search(graph, data, PruneSettings(synops=budget, method="speer"))


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"floor": 0.0}, {"samples": -1}, {"tar": "hinges"}])
def test_search_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BudgetError, match="search settings: .* given; expected at least 1, above 0 and at most 1"):
        SearchSettings(**wrong)
    with pytest.raises(BudgetError, match="LRE is a line through 1 sample; expected 0, or at least 2"):
        SearchSettings(estimator="lre", samples=1)
    with pytest.raises(BudgetError, match="search settings: objective 'loss' given; expected one of accuracy, certainty"):
        SearchSettings(objective="loss")


def test_successive_halving_fine_tunes_the_best_plans_and_takes_the_winner(task):
    graph, data, budget = task
    settings = replace(FASTEST, episodes=8, rounds=(3, 6), finalists=6)
    result = search(graph, data, PruneSettings(synops=budget, method="random", search=settings))
    rungs = [[row for row in result.rounds if row["rung"] == rung] for rung in (1, 2)]
    climbed = len(rungs[0])
    assert 2 <= climbed <= 6 and len(rungs[1]) == (round(climbed / 3) if round(climbed / 3) > 1 else 0)
    ranked = sorted(result.history, key=lambda row: -row["reward"])
    first = list(dict.fromkeys(tuple(row["widths"]) for row in ranked))[:6]
    assert [tuple(row["widths"]) for row in rungs[0]] == first
    last = rungs[1] or rungs[0]
    winner = max(last, key=lambda row: row["certainty"])
    assert winner["certainty"] == next(r["certainty"] for r in last if tuple(r["widths"]) == result.score.widths)


def test_the_first_proposal_is_a_finalist_even_with_a_lower_reward(task):
    graph, data, budget = task
    settings, stood_back = replace(FASTEST, episodes=12, rounds=(2,), finalists=3), 0
    for seed in range(4):
        result = search(graph, data, PruneSettings(synops=budget, method="random", search=settings, seed=seed))
        feasible = [tuple(row["widths"]) for row in result.history if row["feasible"]]
        rewards = {tuple(row["widths"]): row["reward"] for row in result.history}
        ranked = sorted(dict.fromkeys(feasible), key=lambda widths: -rewards[widths])
        climbed = [tuple(row["widths"]) for row in result.rounds]
        assert set(climbed) <= {*ranked[:3], feasible[0]} and feasible[0] in climbed
        stood_back += feasible[0] not in ranked[:3]
    assert stood_back


def test_certainty_is_the_geometric_mean_of_the_probability_of_the_right_labels(task):
    graph, data, budget = task
    for objective in ("accuracy", "certainty"):
        result = search(graph, data, PruneSettings(synops=budget, method="random", search=replace(FASTEST, objective=objective)))
        assert all(row["reward"] == row[objective] for row in result.history if row["feasible"])
    outputs = simulate(result.graph, np.moveaxis(data.val.x, 0, 1)).output
    logits = LOGIT_SCALE * outputs.reshape(*outputs.shape[:2], -1).mean(0)
    right = np.exp(logits[np.arange(len(data.val.y)), data.val.y]) / np.exp(logits).sum(axis=1)
    assert result.score.certainty == pytest.approx(np.exp(np.mean(np.log(right))), rel=1e-4)


# --------------------------------------------------------------------------------------------------------- checkpoint


def test_a_search_that_was_stopped_goes_on_to_the_same_end(task, tmp_path):
    graph, data, budget = task
    settings = PruneSettings(synops=budget, method="evolution", search=replace(FASTEST, episodes=16), seed=1)
    whole = search(graph, data, settings)
    path = tmp_path / "checkpoint.json"

    def stop(facts):
        if facts["stage"] == "search" and facts["done"] == 9:
            raise KeyboardInterrupt

    stopped = search(graph, data, settings, checkpoint=path, progress=stop)
    assert stopped.interrupted and len(stopped.history) == 9
    again = search(graph, data, settings, checkpoint=path)
    assert again.history == whole.history and again.plan == whole.plan and again.estimator == whole.estimator
    assert again.evaluations == whole.evaluations - stopped.evaluations
    assert search(graph, data, settings, checkpoint=path).evaluations == 0


def test_a_checkpoint_of_another_network_data_or_version_is_refused(task, tmp_path):
    graph, data, budget = task
    path = tmp_path / "checkpoint.json"
    settings = PruneSettings(synops=budget, method="uniform", search=replace(FASTEST, samples=0))
    search(graph, data, settings, checkpoint=path)
    other = graph.with_layers({"out": replace(graph["out"], synapse=Dense(weight=graph["out"].synapse.weight * 2))})
    with pytest.raises(FileError, match="checkpoint '.*': is of another network, other data or other settings; choose another"):
        search(other, data, settings, checkpoint=path)
    with pytest.raises(FileError, match="is of another network, other data"):
        search(graph, toy_data(seed=5), settings, checkpoint=path)
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "version": "0.0.1"}))
    with pytest.raises(FileError, match="was written by version 0.0.1, this is"):
        search(graph, data, settings, checkpoint=path)
    path.write_text("{")
    with pytest.raises(FileError, match="cannot be read"):
        search(graph, data, settings, checkpoint=path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("accuracy",), 0.999, "was changed after it was written; choose another folder, or remove the file to start anew"),
        (("accuracy",), 1.5, r"'score .*' accuracy: input should be less than or equal to 1"),
        (("certainty",), None, r"'score .*' certainty: input should be a valid number"),
        (("by_source", "input"), -1.0, r"'score .*' by_source.input: input should be greater than or equal to 0"),
        (("activity",), [], r"'score .*' activity: input should be a valid dictionary"),
        (("more",), 1, r"'score .*' more: extra inputs are not permitted"),
    ],
)
def test_an_edited_checkpoint_is_refused(task, tmp_path, place, value, message):
    graph, data, budget = task
    path = tmp_path / "checkpoint.json"
    settings = PruneSettings(synops=budget, method="uniform", search=replace(FASTEST, samples=0))
    search(graph, data, settings, checkpoint=path)
    held = json.loads(path.read_text())
    row = next(row for key, row in held["measured"].items() if key.startswith("score"))
    for key in place[:-1]:
        row = row[key]
    row[place[-1]] = value
    if "changed after" not in message:
        del held["digest"]
    path.write_text(json.dumps(held))
    with pytest.raises(FileError, match=message):
        search(graph, data, settings, checkpoint=path)


def test_500_damaged_checkpoints_are_refused_with_a_sentence(tmp_path):
    path = tmp_path / "checkpoint.json"
    first = Checkpoint(path, "x")
    first.begin()
    first.get("score 1", lambda: {"accuracy": 0.5, "certainty": 0.5, "by_source": {"input": 1.0}, "activity": {}})
    whole, refused = path.read_bytes(), 0
    for seed in range(500):
        rng, content = np.random.default_rng(seed), bytearray(whole)
        for where in rng.integers(0, len(whole), rng.integers(1, 4)):
            content[where] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert Checkpoint(path, "x")._rows == first._rows
        except FileError:
            refused += 1
    assert refused >= 400


def test_a_checkpoint_that_version_0_1_0_wrote_gives_its_plan_again(tmp_path):
    """The recording holds the measurements of this search; only the winner is fine-tuned again, for its weights."""
    recorded, path = json.loads(RECORDED.read_text()), tmp_path / "checkpoint.json"
    path.write_text(json.dumps({**recorded, "version": tool_version()}))
    settings = PruneSettings(synops="60%", episodes=8, seed=1)
    result = search(toy_network(), toy_data(), settings, checkpoint=path)
    assert result.evaluations == 1 and json.loads(path.read_text())["measured"] == recorded["measured"]
    assert result.widths == {"hidden": (12, 7), "second": (12, 8)}
    assert [row["widths"] for row in result.rounds] == [[5, 12], [7, 8]]


def test_a_checkpoint_of_another_chip_fact_is_refused(task, tmp_path):
    graph, data, _ = task
    settings, path = PruneSettings(cores=5, method="uniform", search=replace(FASTEST, samples=0)), tmp_path / "checkpoint.json"
    chip = load_profile("loihi2")
    search(graph, data, settings, chip=build_chip_costs(graph, chip), checkpoint=path)
    assert search(graph, data, settings, chip=build_chip_costs(graph, chip), checkpoint=path).evaluations == 0
    with pytest.raises(FileError, match="is of another network, other data or other settings"):
        search(graph, data, settings, chip=build_chip_costs(graph, override_facts(chip, {"core.neurons": 16})), checkpoint=path)


def test_a_budget_that_cannot_be_reached_leaves_no_checkpoint(task, tmp_path):
    graph, data, _ = task
    with pytest.raises(BudgetError):
        search(graph, data, PruneSettings(synops=1.0), checkpoint=tmp_path / "out" / "checkpoint.json")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- several budgets


def test_one_search_serves_several_budgets_for_less(task):
    graph, data, _budget = task
    shares = [0.8, 0.6, 0.5]
    total = evaluate(graph, data.val).synops.total
    budgets = [f"{share:.0%}" for share in shares]
    settings = PruneSettings(method="evolution", search=replace(FASTEST, episodes=12))
    front = search_front(graph, data, settings, budgets)
    alone = [search(graph, data, replace(settings, synops=budget)) for budget in budgets]
    assert [len(result.history) for result in front] == [12, 6, 6]
    assert all(result.predicted <= share * total for result, share in zip(front, shares, strict=True))
    assert sum(result.evaluations for result in front) < sum(result.evaluations for result in alone)


# -------------------------------------------------------------------------------------------------------- prune_to_budget


def test_the_budget_holds_on_unseen_data_and_the_plan_gives_the_widths(task):
    graph, data, _budget = task
    reported = []
    result = prune_to_budget(
        graph, data, PruneSettings(synops="60%", method="random", epochs=20, search=FAST), progress=reported.append
    )
    test, limit = evaluate(result.graph, data.test), 0.6 * evaluate(graph, data.test).synops.total
    assert 0.93 * limit <= test.synops.total <= limit and result.met and result.synops <= result.aim < result.budget
    splits = (data.val, data.train.head(TRAINING_SAMPLES))
    before, after = ([evaluate(net, split).synops_per_sample for split in splits] for net in (graph, result.graph))
    ratio = np.concatenate(after).sum() / np.concatenate(before).sum()
    assert result.synops == pytest.approx(ratio * before[0].mean())
    assert result.budgets["synops"]["measured_on"] == "validation and training"
    assert test.accuracy >= evaluate(graph, data.test).accuracy - 0.1
    sliced = prune(graph, result.plan)
    assert [sliced.shape_of(layer.name) for layer in sliced.layers] == [
        result.graph.shape_of(layer.name) for layer in result.graph.layers
    ]
    assert result.widths == {name: [16, len(kept)] for name, kept in result.plan.kept.items()}
    assert {facts["stage"] for facts in reported} == {"estimate", "search", "fine-tune"}
    assert json.loads(json.dumps(result.to_json()))["met"]


def test_an_absolute_budget_holds_with_a_wider_margin_that_a_note_states(task):
    graph, data, budget = task
    settings = PruneSettings(synops=budget, method="uniform", epochs=6, search=replace(FASTEST, samples=0))
    absolute = prune_to_budget(graph, data, settings)
    relative = prune_to_budget(graph, data, replace(settings, synops="60%"))
    assert evaluate(absolute.graph, data.test).synops.total <= budget
    assert MAX_STATED_SLACK / 2 < relative.margin < absolute.margin  # so that either may leave more unused than is promised
    reported = [next(note for note in result.notes if "kept with a margin" in note) for result in (relative, absolute)]
    for result, note in zip((relative, absolute), reported, strict=True):
        assert (
            f"a margin of {result.margin:.1%}, by which" in note
            and f"up to {2 * result.margin:.1%} of it may stay unused" in note
        )
    assert ["a budget in per cent" in note for note in reported] == [False, True]


def test_a_margin_below_the_stated_slack_has_no_note(task, monkeypatch):
    graph, data, budget = task
    monkeypatch.setattr(notes_module, "MAX_STATED_SLACK", 1.0)
    result = prune_to_budget(
        graph, data, PruneSettings(synops=budget, method="uniform", epochs=2, search=replace(FASTEST, samples=0))
    )
    assert 2 * result.margin <= 1 and not any("kept with a margin" in note for note in result.notes)


def test_a_network_within_its_budget_is_left_alone(task):
    graph, data, _ = task
    result = prune_to_budget(graph, data, PruneSettings(synops=10 * evaluate(graph, data.val).synops.total))
    assert result.graph == graph and result.search is None and result.met
    assert result.widths == {"hidden": [16, 16], "second": [16, 16]}
    assert "within the budget as it is: nothing was changed" in result.notes[-1]


def test_the_deployed_form_is_measured(task):
    """The deployed form here has lower thresholds, and so more spikes, than the network that learns."""
    graph, data, _ = task

    def deployed(network, split):
        return last_adjustments.multiply_thresholds(network, 0.9), split

    settings = PruneSettings(synops="60%", method="uniform", epochs=12, search=replace(FASTEST, samples=0))
    result = prune_to_budget(graph, data, settings, deployed=(deploy_float, deployed))
    running = last_adjustments.multiply_thresholds(result.graph, 0.9)
    after, before = ([evaluate(net, split).synops_per_sample for split in (data.val, data.train)] for net in (running, graph))
    ratio = sum(part.sum() for part in after) / sum(part.sum() for part in before)  # training samples narrow the margin
    assert result.met and result.synops == pytest.approx(max(after[0].mean(), ratio * before[0].mean()))
    assert evaluate(result.graph, data.val).synops.total < result.synops
    assert evaluate(running, data.test).synops.total <= 0.6 * evaluate(graph, data.test).synops.total


def test_ctrl_c_while_fine_tuning_keeps_the_best_and_its_budget(task):
    graph, data, _ = task

    def stop(facts):
        if facts["stage"] == "fine-tune" and facts["done"] == 6:
            raise KeyboardInterrupt

    settings = PruneSettings(synops="60%", method="uniform", epochs=30, search=replace(FASTEST, samples=0))
    result = prune_to_budget(graph, data, settings, progress=stop)
    assert result.interrupted and len(result.history) == 6 and result.met
    assert any("fine-tuning was interrupted after 6 epochs" in note for note in result.notes)


def test_a_budget_that_cannot_be_held_has_a_note(task, monkeypatch):
    graph, data, _ = task

    def dear(network, split):
        return (network if network is graph else graph), split

    settings = PruneSettings(synops="60%", method="uniform", epochs=1, search=replace(FASTEST, samples=0))
    result = prune_to_budget(graph, data, settings, deployed=(dear,))
    assert not result.met and any("the SynOps budget could not be held with its margin" in note for note in result.notes)


def test_a_silent_network_and_one_at_chance_are_warned_about(task):
    graph, data, _ = task
    quiet = graph.with_layers({"hidden": replace(graph["hidden"], synapse=Dense(weight=graph["hidden"].synapse.weight * 0.01))})
    reported, settings = [], replace(FASTEST, samples=0)
    notes = prune_to_budget(
        quiet, data, PruneSettings(synops="99%", method="uniform", epochs=1, search=settings), progress=reported.append
    ).notes
    assert [facts.get("note") for facts in reported[:3]] == [*notes[:2], None]  # before anything is searched
    assert re.search(r"'hidden', 'second' hardly spike \(spikes per neuron and step: hidden 0.0000", notes[0])
    assert "the given network is at chance" in notes[1] and notes[1].endswith("that data and network belong together")
    otherwise = f"the forward returns the maximum of its outputs over time: ..., and {COUNTED_BY_MEAN}"
    maximum = replace(quiet, metadata={"assumptions": [otherwise]})
    (_, warning) = preflight_warnings(maximum, evaluate(maximum, data.val), data.classes)
    assert warning.endswith("; its forward does not decide by the mean over the steps, as is done here: train it so")
    end = quiet[quiet.output]
    wide = quiet.with_layers({end.name: replace(end, synapse=Dense(weight=np.repeat(end.synapse.weight, 5, axis=0)))})
    (_, warning) = preflight_warnings(wide, evaluate(wide, data.val), data.classes)
    assert warning.endswith(
        "; it has 10 outputs for 2 classes: where groups of 5 neurons stand for a class together, the first 5 for class 0, state "
        "--outputs-per-class 5 (outputs_per_class=5)"
    )
    together = state_outputs_per_class(wide, 5)
    assert evaluate(together, data.val).accuracy == evaluate(quiet, data.val).accuracy
    (_, warning) = preflight_warnings(together, evaluate(together, data.val), data.classes)
    assert warning.endswith("that data and network belong together")


def test_the_outputs_of_a_class_that_a_warning_names_are_those_of_the_network(task):
    graph, data, _ = task
    end = graph[graph.output]
    blind = replace(end, synapse=Dense(weight=np.zeros((8, end.synapse.weight.shape[1]), np.float32)))
    wide = graph.with_layers({end.name: blind})
    halves = state_outputs_per_class(wide, 2)
    (warning,) = preflight_warnings(halves, evaluate(halves, data.val), data.classes)
    assert "it has 8 outputs for 2 classes" in warning and warning.endswith("--outputs-per-class 4 (outputs_per_class=4)")
    on_host = move_to_host(wide)  # which has an output a class
    (warning,) = preflight_warnings(on_host, evaluate(on_host, data.val), data.classes)
    assert "outputs-per-class" not in warning


def test_the_accuracy_of_a_warning_is_of_steps_where_they_are_decided(task):
    graph, data, _ = task
    each = state_decision(graph, "each")
    split = replace(data.val, y=np.zeros(data.val.x.shape[:2], int))
    silent = each.with_layers({"hidden": replace(each["hidden"], synapse=Dense(weight=0 * each["hidden"].synapse.weight - 1))})
    bad = evaluate(silent, replace(split, y=split.y + 1))
    (warning,) = warn_of_loss(evaluate(silent, split), bad, 2)
    assert f"{bad.accuracy:.1%} of the labelled steps of {len(split)} validation samples" in warning


def test_a_pruned_network_at_chance_is_warned_about_where_the_given_one_was_not(task):
    graph, data, _ = task
    good = evaluate(graph, data.val)
    silent = graph.with_layers({"hidden": replace(graph["hidden"], synapse=Dense(weight=graph["hidden"].synapse.weight * 0.01))})
    lost = evaluate(silent, data.val)
    (warning,) = warn_of_loss(good, lost, data.classes)
    assert warning.startswith(
        f"warning: the pruned network is at chance, {lost.accuracy:.1%} of {len(data.val)} validation samples"
    )
    assert f"{good.accuracy:.1%} before" in warning
    assert warn_of_loss(good, good, data.classes) == warn_of_loss(lost, lost, data.classes) == []


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, spear_deploy.pruning.search.search, spear_deploy.training, spear_deploy.data\n"
        "sys.exit(', '.join({'torch', 'norse', 'gymnasium', 'stable_baselines3', 'sklearn', 'optuna'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_from_dense_to_half_the_synops(seed):
    data = load_data("digits", seed=seed)
    dense = train(digits_network(seed), data, seed=seed)
    before = evaluate(dense, data.test)
    result = prune_to_budget(dense, data, PruneSettings(synops="50%", seed=seed))
    after = evaluate(result.graph, data.test)
    assert before.accuracy >= 0.98 and after.accuracy >= before.accuracy - 0.015
    unused = 1 - after.synops.total / (before.synops.total / 2)
    stated = [note for note in result.notes if f"up to {2 * result.margin:.1%} of it may stay unused" in note]
    assert bool(stated) == (2 * result.margin > MAX_STATED_SLACK)
    assert result.met and 0 <= unused <= max(MAX_STATED_SLACK, 2 * result.margin)
