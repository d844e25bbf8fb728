"""Which widths may be tried, and what does an agent see while it chooses them?

One episode chooses a plan, one step the preserve ratio of one coupled group, in the order of the layers, as in AMC. The
environment holds the state of a plan and nothing else: what a plan costs and what it is worth are functions passed in.

Observation, 10 numbers, the first seven of which are scaled to 0..1 over the groups (0 where they are all equal):

    0 index      position of the group
    1 dense      1 if it is made by a dense layer, 0 by a convolution
    2 inputs     input channels of the layer that makes it
    3 channels   its channels
    4 stride     stride of that layer
    5 kernel     kernel size of that layer
    6 weights    number of its weights
    7 reduced    share of the SynOps that the ratios chosen so far remove, all else whole
    8 rest       share of the SynOps that arrive at and are caused by the groups still to be chosen
    9 previous   ratio chosen in the step before, 1 at the start

AMC counts FLOPs where we count SynOps at the firing rates of the unpruned network: after pruning rates move, so SynOps
cannot be told in advance, only measured (`score`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np

from spear_deploy.network import CONVS, WEIGHTED, Array
from spear_deploy.network.channel_groups import Group
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.candidates import Ratios, Trial

OBSERVATION = ("index", "dense", "inputs", "channels", "stride", "kernel", "weights", "reduced", "rest", "previous")


class PruningEnv(gymnasium.Env[Array, Array]):
    """Choose the preserve ratio of each group, then see what the plan is worth.

    The reward is 0 until the last step. The last step's `info` holds `trial`, and `transitions`: what the agent would have
    seen and done had it chosen the executed ratios, a list of (observation, action, next observation).

    Args:
        features: (groups, 7), the fixed part of the observations, `static_features`.
        shares: (groups,) share of the SynOps that belongs to each group.
        cost: ratios → SynOps relative to the unpruned network, at its rates.
        score: ratios → `Trial`.
        floor: the least ratio.
        worth: importance of the channels of each group, for searchers that rank them.
        affordable: whether ratios are within the budget by estimate; everything is unless given.
        starts: proposals to begin with, e.g. the best of a search for another budget.
        projects: whether `score` brings every proposal into the budget.
    """

    def __init__(
        self,
        features: Array,
        shares: Sequence[float],
        cost: Callable[[Ratios], float],
        score: Callable[[Ratios], Trial],
        *,
        floor: float,
        worth: Sequence[Array] = (),
        affordable: Callable[[Ratios], bool] = lambda ratios: True,
        starts: Sequence[Array] = (),
        projects: bool = False,
    ) -> None:
        self.action_space = gymnasium.spaces.Box(np.float32(floor), np.float32(1.0), (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (len(OBSERVATION),), np.float32)
        self._features, self._shares, self._cost, self._score = features, tuple(shares), cost, score
        self.worth, self.affordable, self.starts, self.projects = tuple(worth), affordable, tuple(starts), projects
        self.bounds = (float(np.float32(floor)), 1.0)
        self._chosen: Ratios = ()

    def play(self, ratios: Array) -> Trial:
        """Play an episode at once, without observations: for searchers that choose all ratios together."""
        low, high = self.bounds
        return self._score(tuple(float(r) for r in np.clip(ratios, low, high)))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a new plan."""
        super().reset(seed=seed)
        self._chosen = ()
        return self.observe(()), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Choose the ratio of the next group."""
        low, high = self.bounds
        self._chosen = (*self._chosen, min(max(float(np.asarray(action).reshape(-1)[0]), low), high))
        if len(self._chosen) < len(self._shares):
            return self.observe(self._chosen), 0.0, False, False, {}
        trial = self._score(self._chosen)
        info = {"trial": trial, "transitions": self.transitions(trial.executed)}
        return self.observe(self._chosen), float(trial.reward), True, False, info

    def observe(self, chosen: Ratios) -> Array:
        """Return what an agent sees after these choices; pure."""
        groups = len(self._shares)
        index = min(len(chosen), groups - 1)
        whole = (*chosen, *(1.0,) * (groups - len(chosen)))
        live = (1.0 - self._cost(whole), float(sum(self._shares[len(chosen) :])), chosen[-1] if chosen else 1.0)
        return np.clip(np.concatenate([self._features[index], live]), -1.0, 1.0).astype(np.float32)

    def transitions(self, ratios: Ratios) -> list[tuple[Array, Array, Array]]:
        """Return (observation, action, next observation) of an episode that chooses these ratios."""
        seen = [self.observe(ratios[:i]) for i in range(len(ratios) + 1)]
        return [(seen[i], np.array([ratio], np.float32), seen[i + 1]) for i, ratio in enumerate(ratios)]


def static_features(graph: SNNGraph, groups: Sequence[Group]) -> Array:
    """Return the first seven numbers of the observation for each group: (groups, 7) float64 in 0..1."""
    rows = []
    for index, group in enumerate(groups):
        synapse: Any = graph[group.name].synapse
        conv = isinstance(synapse, CONVS)
        inputs = synapse.weight.shape[1] * (synapse.groups if conv else 1)
        stride = max(synapse.stride) if conv else 1
        kernel = max(synapse.weight.shape[2:]) if conv else 1
        weights = sum(_weights(graph[name].synapse) for name in group.producers)
        rows.append((index, float(not conv), inputs, group.channels, stride, kernel, weights))
    table = np.array(rows, np.float64).reshape(-1, 7)
    low, high = table.min(axis=0), table.max(axis=0)
    return np.asarray((table - low) / np.where(high > low, high - low, 1.0))


def _weights(synapse: Any) -> int:
    return int(synapse.weight.size) if isinstance(synapse, WEIGHTED) else 0


# FOLDED from spear_deploy/pruning/search/environment.py
# What is a candidate worth? SPEAR's target-aware reward (TAR), in the forms it may have had.
#
# The paper's formula is not known beyond "converts hard constraints to soft penalties"; these are the four forms of its
# field. `accuracy` is 0..1, `synops` the predicted SynOps after fine-tuning, `budget` the limit, `dense` what the unpruned
# network costs. Where every proposal is projected into the budget first, all of them reward accuracy alone; they differ
# for searches that are not.

Reward: TypeAlias = Callable[[float, float, float, float], float]
"""(accuracy, synops, budget, dense) → reward."""


def hinge(accuracy: float, synops: float, budget: float, dense: float, *, weight: float = 1.0) -> float:
    """Subtract the relative excess over the budget: `accuracy − weight · max(0, synops / budget − 1)`. Ours by default.

    It is continuous at the budget and keeps telling better from worse beyond it.

    >>> hinge(0.9, 100, 100, 200), round(hinge(0.9, 120, 100, 200), 3)
    (0.9, 0.7)
    """
    return accuracy - weight * max(0.0, synops / budget - 1.0)


def punish(accuracy: float, synops: float, budget: float, dense: float) -> float:
    """Give the accuracy within the budget, else only the (negative) distance to it: `(budget − synops) / dense`.

    >>> punish(0.9, 100, 100, 200), punish(0.9, 120, 100, 200)
    (0.9, -0.1)
    """
    return accuracy if synops <= budget else (budget - synops) / dense


def cliff(accuracy: float, synops: float, budget: float, dense: float, *, tolerance: float = 0.002) -> float:
    """Give `1 + accuracy` up to `(1 + tolerance) · budget`, else `−3 − synops / dense`.

    >>> cliff(0.9, 100, 100, 200), cliff(0.9, 120, 100, 200)
    (1.9, -3.6)
    """
    return 1.0 + accuracy if synops <= (1.0 + tolerance) * budget else -3.0 - synops / dense


def power(accuracy: float, synops: float, budget: float, dense: float, *, exponent: float = -0.5) -> float:
    """Scale the accuracy by `(synops / budget) ** exponent` (MnasNet): cheaper than the budget is better still.

    >>> power(0.9, 100, 100, 200), round(power(0.9, 400, 100, 200), 3)
    (0.9, 0.45)
    """
    return float(accuracy * (max(synops, 1e-9 * budget) / budget) ** exponent)


TAR: dict[str, Reward] = {"hinge": hinge, "punish": punish, "cliff": cliff, "power": power}
DEFAULT_TAR = "hinge"
