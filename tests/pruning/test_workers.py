"""Searches on workers: the same networks for any number of them, also where one is killed."""

from __future__ import annotations

import os
import signal

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from spear_deploy.pruning.search.problem import Problem
from spear_deploy.pruning.search.recipes import search_recipes
from spear_deploy.pruning.search.search import search
from spear_deploy.pruning.search.settings import SearchSettings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.fit import train
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.workers import Workers, map_jobs
from tests.training.test_fit import quick, toy_data, toy_network

HALVING = SearchSettings(episodes=8, samples=2, rounds=(4,), finalists=3)
RECIPES = SearchSettings(episodes=2, samples=0, rounds=(10, 4), confidence=0.0)


@pytest.fixture(scope="module")
def task():
    data = toy_data()
    return train(toy_network(hidden=16), data, recipe=quick(6)), data


def outcome(result):
    return result.graph, result.plan, result.history, result.rounds, result.evaluations, result.batches


@pytest.mark.slow
def test_a_search_finds_the_same_network_with_none_one_and_two_workers(task):
    settings = PruneSettings(synops="60%", seed=1, search=HALVING)
    seen = []
    runs = [
        outcome(search(*task, PruneSettings(**{**vars(settings), "workers": workers}), progress=seen.append))
        for workers in (None, Workers(count=1), Workers(count=2))
    ]
    assert runs[0] == runs[1] == runs[2]
    stages = {row["stage"] for row in seen if "worker" in row}
    assert stages == {"estimate", "search", "halving, round 1"}


def test_recipes_learn_the_same_on_workers(task):
    settings = PruneSettings(synops="60%", method="recipe", levers="channels,weights", search=RECIPES)
    here = search_recipes(*task, settings)
    there = search_recipes(*task, PruneSettings(**{**vars(settings), "workers": Workers(count=2)}))
    assert outcome(here) == outcome(there) and here.unthinned == there.unthinned


def kill_first(shared, ratios):
    """Measure a proposal; the first one kills its worker once."""
    problem, mark = shared
    if ratios[0] == 1.0 and not mark.exists():
        mark.write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    with limit_threads(problem.evaluator.graph):
        return problem.scale_into_budget(ratios)


@pytest.mark.slow
def test_a_worker_killed_while_it_measures_changes_nothing(task, tmp_path):
    from spear_deploy.pruning.search.search import make_evaluator

    settings = PruneSettings(synops="60%", search=HALVING)
    evaluator = make_evaluator(*task, settings)
    problem = Problem(evaluator, settings.budgets.resolve(evaluator.dense_use()), HALVING)
    proposals = [(1.0 - 0.2 * i,) * len(evaluator.groups) for i in range(4)]
    killed = map_jobs(kill_first, proposals, shared=(problem, tmp_path / "mark"), workers=Workers(count=2))
    assert (tmp_path / "mark").read_text() == "killed"
    assert killed == [problem.scale_into_budget(ratios) for ratios in proposals]
