"""What do searches without a memory find? The controls that any learning search has to beat at equal cost."""

from __future__ import annotations

from collections import deque

import numpy as np

from spear_deploy.pruning.search.environment import PruningEnv


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


# FOLDED from spear_deploy/pruning/search/baselines.py
# Which plans descend from the best ones? Regularised evolution: the oldest dies, not the worst.
#
# Real et al. (arXiv 1802.01548), on the ratios of the groups: a parent is the best of a few that are drawn, its child has
# some ratios moved, and takes the place of the oldest. The first plans are given: one ratio for all, and thresholds of
# importance; the rest of the first population is drawn at random.

POPULATION, TOURNAMENT = 12, 4
STEP = 0.2
"""Standard deviation of a move, as a factor: ratios are proportions, since they are scaled into the budget."""
FINAL_STEP_SHARE = 0.4
SEEDS = 3
"""Thresholds of importance among the first plans."""


def evolution(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Evolve plans for so many episodes."""
    rng = np.random.default_rng(seed)
    low, high = env.bounds
    first = [np.full(groups, high), *threshold_ratios(env, SEEDS), *env.starts]
    first += [rng.uniform(low, high, groups) for _ in range(POPULATION - len(first))]
    living: deque[tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = deque(maxlen=POPULATION)
    for ratios in first[:episodes]:
        trial = env.play(ratios)
        living.append((trial.reward, np.array(trial.executed)))
    for episode in range(len(first), episodes):
        drawn = rng.choice(len(living), min(TOURNAMENT, len(living)), replace=False)
        parent = max((living[i] for i in drawn), key=lambda one: one[0])[1]
        step = STEP * FINAL_STEP_SHARE ** (episode / max(episodes - 1, 1))
        moved = rng.random(groups) < max(0.3, 1.5 / groups)
        moved[rng.integers(groups)] = True
        child = np.clip(np.where(moved, parent * np.exp(rng.normal(0, step, groups)), parent), low, high)
        trial = env.play(child)
        living.append((trial.reward, np.array(trial.executed)))
