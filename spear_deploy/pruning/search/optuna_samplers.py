"""What do model-based searchers propose? Gaussian processes, CMA-ES and TPE of Optuna, asked and told.

Each proposal is projected into the budget, and the proposal is told the reward of what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from spear_deploy.pruning.search.baselines import threshold_ratios
from spear_deploy.pruning.search.environment import PruningEnv


def gp(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Model the reward as a Gaussian process, and propose where it promises most."""
    _play(env, groups, episodes, lambda optuna: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True))


def cma_es(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Adapt the covariance of a normal distribution of proposals."""
    _play(env, groups, episodes, lambda optuna: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=4))


def tpe(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Model good and bad proposals by densities, and propose where their quotient is largest."""
    sampler = {"seed": seed, "multivariate": True, "n_startup_trials": max(4, episodes // 6)}
    _play(env, groups, episodes, lambda optuna: optuna.samplers.TPESampler(**sampler))


def _play(env: PruningEnv, groups: int, episodes: int, sampler: Callable[[Any], Any]) -> None:
    low, high = env.bounds
    names = [f"ratio{i}" for i in range(groups)]
    with _silent() as optuna:
        study = optuna.create_study(direction="maximize", sampler=sampler(optuna))
        for start in (np.full(groups, high), *threshold_ratios(env, 1), *env.starts)[:episodes]:
            study.enqueue_trial({name: float(np.clip(r, low, high)) for name, r in zip(names, start, strict=True)})
        for _ in range(episodes):
            asked = study.ask()
            ratios = np.array([asked.suggest_float(name, low, high) for name in names])
            study.tell(asked, env.play(ratios).reward)


@contextmanager
def _silent() -> Iterator[Any]:
    """Yield optuna, silent for a while, and leave torch's and Python's global random state alone."""
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
