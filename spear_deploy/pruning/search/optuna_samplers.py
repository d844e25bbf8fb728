"""Model-based searches by Optuna: Gaussian processes, CMA-ES and TPE.

Where a proposal is scaled into the budget, Optuna gets the reward of the scaled plan for the proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
