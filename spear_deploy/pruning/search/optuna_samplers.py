"""Optuna's searches: Gaussian processes, CMA-ES, TPE, and halving of recipes.

Where a proposal is scaled into the budget, Optuna gets the reward of the scaled plan for the proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from spear_deploy.pruning.search.baselines import find_threshold_ratios
from spear_deploy.pruning.search.environment import PruningEnv


def gaussian_process(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Model the reward as a Gaussian process, and propose where its acquisition function is largest."""
    _run_study(env, groups, episodes, lambda optuna: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True))


def cma_es(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Adapt the covariance of a normal distribution of proposals."""
    _run_study(env, groups, episodes, lambda optuna: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=4))


def tree_parzen_estimator(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Model good and bad proposals by densities, and propose where their quotient is largest."""
    sampler = {"seed": seed, "multivariate": True, "n_startup_trials": max(4, episodes // 6)}
    _run_study(env, groups, episodes, lambda optuna: optuna.samplers.TPESampler(**sampler))


def _run_study(env: PruningEnv, groups: int, episodes: int, sampler: Callable[[Any], Any]) -> None:
    low, high = env.bounds
    names = [f"ratio{i}" for i in range(groups)]
    with _silent_optuna() as optuna:
        study = optuna.create_study(direction="maximize", sampler=sampler(optuna))
        for start in (np.full(groups, high), *find_threshold_ratios(env, 1), *env.hints.starts)[:episodes]:
            study.enqueue_trial({name: float(np.clip(r, low, high)) for name, r in zip(names, start, strict=True)})
        for _ in range(episodes):
            trial = study.ask()
            ratios = np.array([trial.suggest_float(name, low, high) for name in names])
            study.tell(trial, env.play(ratios).reward)


class RecipeStudy:
    """A study of recipes: shares of channels and weights by TPE, asynchronous successive halving over rounds.

    It has no memory of its own: asked again with the same values it proposes the same recipes, so that a search goes on from the
    measurements of its checkpoint.

    Args:
        study: of Optuna.
        reduction: one of so many recipes goes on from a round.
        weights: bounds of the weights' share.
    """

    def __init__(self, study: Any, reduction: int, weights: tuple[float, float]) -> None:
        self._study, self._reduction, self._weights = study, reduction, weights
        self._values: dict[int, float] = {}

    def ask(self) -> Any:
        """Return a new trial."""
        return self._study.ask()

    def suggest(self, trial: Any) -> dict[str, float]:
        """Return the shares of a trial: {"channels", "weights"}."""
        low, high = self._weights
        return {"channels": trial.suggest_float("channels", 0.0, 1.0), "weights": trial.suggest_float("weights", low, high)}

    def goes_on(self, trial: Any, number: int, value: float) -> bool:
        """Report the value of a trial after a round, from 1, and return whether it is good enough for the next."""
        self._values[trial.number] = value
        trial.report(value, self._reduction ** (number - 1))
        return not trial.should_prune()

    def end(self, trial: Any) -> None:
        """End a trial with its last value, or as failed without one."""
        import optuna

        value = self._values.get(trial.number)
        if value is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)


@contextmanager
def create_recipe_study(
    seed: int, reduction: int, first: Sequence[dict[str, float]], weights: tuple[float, float]
) -> Iterator[RecipeStudy]:
    """Yield a study that begins with given recipes.

    Args:
        seed: of the proposals.
        reduction: one of so many recipes goes on from a round.
        first: shares of the first recipes.
        weights: bounds of the weights' share.
    """
    with _silent_optuna() as optuna:
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=max(4, len(first)))
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        for shares in first:
            study.enqueue_trial(shares)
        yield RecipeStudy(study, reduction, weights)


@contextmanager
def _silent_optuna() -> Iterator[Any]:
    """Yield optuna without its messages, and leave torch's global random state as it was."""
    import warnings

    import optuna
    import torch

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)
