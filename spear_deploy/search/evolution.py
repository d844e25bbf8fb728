"""Which plans descend from the best ones? Regularised evolution: the oldest dies, not the worst.

Real et al. (arXiv 1802.01548), on the ratios of the groups: a parent is the best of a few that are drawn, its child has
some ratios moved, and takes the place of the oldest. The first plans are given: one ratio for all, and thresholds of
importance; the rest of the first population is drawn at random.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from spear_deploy.search.baselines import threshold_ratios
from spear_deploy.search.environment import PruningEnv

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
