"""What do searches without a memory find? The controls that any learning search has to beat at equal cost."""

from __future__ import annotations

import numpy as np

from spear_deploy.search.environment import PruningEnv


def uniform(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Try one ratio for all groups, from whole to the floor in equal steps.

    Where proposals are projected into the budget they all come to the same plan: that is the baseline, and one is enough.
    """
    low, high = env.bounds
    for ratio in np.linspace(high, low, 1 if env.projects else episodes):
        env.play(np.full(groups, ratio))


def at_random(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Draw each ratio evenly between its floor and 1."""
    rng = np.random.default_rng(seed)
    low, high = env.bounds
    for _ in range(episodes):
        env.play(rng.uniform(low, high, groups))


def threshold(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Keep the channels whose importance is above one threshold for the whole network.

    What channels of different groups are worth is not on one scale; each episode compares them on another:
    `worth / mean(worth of the group) ^ exponent`, the exponent from 1 (every group alike) to 0 (raw), by itself the published
    global rankings. The threshold is the one that comes closest to the budget.
    """
    for ratios in threshold_ratios(env, episodes):
        env.play(ratios)


def threshold_ratios(env: PruningEnv, count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Return the ratios of global thresholds for `count` ways to compare groups."""
    low, _ = env.bounds
    found = []
    for exponent in np.linspace(1.0, 0.0, count) if count > 1 else (1.0,):
        worth = [w / max(float(np.mean(w)), 1e-12) ** exponent for w in env.worth]
        levels = np.unique(np.concatenate(worth))
        first, last = 0, len(levels) - 1
        while first < last:  # the lowest threshold that is affordable
            middle = (first + last) // 2
            ratios = _kept(worth, levels[middle], low)
            first, last = (first, middle) if env.affordable(tuple(ratios)) else (middle + 1, last)
        found.append(_kept(worth, levels[first], low))
    return found


def _kept(
    worth: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]], level: float, least: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([max(float(np.mean(w >= level)), least) for w in worth])
