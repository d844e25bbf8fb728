"""Searches without a learnt model: uniform, random, thresholds, regularized evolution.

Uniform, random and threshold search are the controls that a learning search has to beat at equal cost.

Regularized evolution (Real et al., arXiv 1802.01548) works on the ratios of the groups: a parent is the best of a few drawn
plans, its child has some ratios moved, and takes the place of the oldest plan, not of the worst. The first plans are one ratio
for all groups and thresholds of importance; the rest of the first population is drawn at random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from spear_deploy.network import Array
from spear_deploy.pruning.search.environment import PruningEnv

POPULATION, TOURNAMENT = 12, 4
STEP = 0.2
"""Standard deviation of a move, as a factor: ratios are proportions, since they are scaled into the budget."""
FINAL_STEP_SHARE = 0.4
SEEDS = 3
"""Thresholds of importance among the first plans."""


def uniform_search(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Try one ratio for all groups, from 1 to the floor in equal steps.

    Where proposals are projected into the budget they all come to the same plan, so that one is enough.
    """
    low, high = env.bounds
    for ratio in np.linspace(high, low, 1 if env.hints.projects else episodes):
        env.play(np.full(groups, ratio))


def random_search(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Draw each ratio evenly between its floor and 1."""
    rng = np.random.default_rng(seed)
    low, high = env.bounds
    _play_all(env, [rng.uniform(low, high, groups) for _ in range(episodes)])


def threshold_search(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Keep the channels whose importance is above one threshold for the whole network.

    Importance of channels of different groups is not on one scale; each episode compares them on another one:
    `score / mean(score of the group) ^ exponent`, the exponent from 1 (every group alike) to 0 (raw); both ends are published
    global rankings. The threshold is the one that comes closest to the budget.
    """
    _play_all(env, find_threshold_ratios(env, episodes))


def find_threshold_ratios(env: PruningEnv, count: int) -> list[Array]:
    """Return the ratios of global thresholds for `count` ways to compare groups."""
    floor, _ = env.bounds
    proposals = []
    for exponent in np.linspace(1.0, 0.0, count) if count > 1 else (1.0,):
        scores = [score / max(float(np.mean(score)), 1e-12) ** exponent for score in env.hints.channel_scores]
        levels = np.unique(np.concatenate(scores))
        first, last = 0, len(levels) - 1
        while first < last:  # the lowest threshold that is affordable
            middle = (first + last) // 2
            affordable = env.hints.affordable(tuple(_kept_shares(scores, levels[middle], floor)))
            first, last = (first, middle) if affordable else (middle + 1, last)
        proposals.append(_kept_shares(scores, levels[first], floor))
    return proposals


def _kept_shares(scores: list[Array], level: float, floor: float) -> Array:
    """Return the share of channels of each group whose score is at least a level."""
    return np.array([max(float(np.mean(score >= level)), floor) for score in scores])


def regularized_evolution(env: PruningEnv, *, groups: int, episodes: int, seed: int) -> None:
    """Evolve plans, one evaluation an episode."""
    rng = np.random.default_rng(seed)
    low, high = env.bounds
    first = [np.full(groups, high), *find_threshold_ratios(env, SEEDS), *env.hints.starts]
    first += [rng.uniform(low, high, groups) for _ in range(POPULATION - len(first))]
    population: deque[tuple[float, Array]] = deque(maxlen=POPULATION)
    _measure_ahead(env, first[:episodes])
    for ratios in first[:episodes]:
        result = env.play(ratios)
        population.append((result.reward, np.array(result.executed)))
    for episode in range(len(first), episodes):
        drawn = rng.choice(len(population), min(TOURNAMENT, len(population)), replace=False)
        parent = max((population[i] for i in drawn), key=lambda member: member[0])[1]
        step = STEP * FINAL_STEP_SHARE ** (episode / max(episodes - 1, 1))
        moved = rng.random(groups) < max(0.3, 1.5 / groups)
        moved[rng.integers(groups)] = True
        child = np.clip(np.where(moved, parent * np.exp(rng.normal(0, step, groups)), parent), low, high)
        result = env.play(child)
        population.append((result.reward, np.array(result.executed)))


def _measure_ahead(env: PruningEnv, proposals: Sequence[Array]) -> None:
    """Let workers measure proposals at the same time: none depends on the result of another."""
    low, high = env.bounds
    env.hints.measure_ahead([tuple(np.clip(ratios, low, high).tolist()) for ratios in proposals])


def _play_all(env: PruningEnv, proposals: Sequence[Array]) -> None:
    _measure_ahead(env, proposals)
    for ratios in proposals:
        env.play(ratios)
