"""What do searches without a memory find? The controls that any learning search has to beat at equal cost."""

from __future__ import annotations

import numpy as np

from spear_deploy.search.environment import PruningEnv


def uniform(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Try one ratio for all groups, from whole to the floor in equal steps.

    Where proposals are projected into the budget they all come to the same plan: that is the baseline.
    """
    low, high = _bounds(env)
    for ratio in np.linspace(high, low, episodes):
        _play(env, np.full(groups, ratio))


def at_random(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Draw each ratio evenly between its floor and 1."""
    rng = np.random.default_rng(seed)
    low, high = _bounds(env)
    for _ in range(episodes):
        _play(env, rng.uniform(low, high, groups))


def _bounds(env: PruningEnv) -> tuple[float, float]:
    return float(env.action_space.low[0]), float(env.action_space.high[0])  # type: ignore[attr-defined]


def _play(env: PruningEnv, ratios: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    env.reset()
    for ratio in ratios:
        env.step(np.array([ratio], np.float32))
