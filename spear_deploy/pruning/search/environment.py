"""Environment of the search: preserve ratios, observations and transitions.

One episode chooses a plan, one step the preserve ratio of one coupled group, in the order of the layers, as in AMC. The
environment holds the state of a plan and nothing else: cost and reward of a plan are functions passed in.

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
can only be measured (`evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from spear_deploy.network import CONVS, WEIGHTED, Array
from spear_deploy.network.channel_groups import ChannelGroup
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.candidates import ProposalResult, Ratios

OBSERVATION = ("index", "dense", "inputs", "channels", "stride", "kernel", "weights", "reduced", "rest", "previous")


@dataclass(frozen=True, kw_only=True)
class SearchHints:
    """Knowledge that searchers without observations use.

    Attributes:
        channel_scores: importance of the channels of each group.
        affordable: whether ratios are within the budget by estimate; everything is unless given.
        starts: proposals to begin with, e.g. the best of a search for another budget.
        projects: whether every proposal is scaled into the budget.
        measure_ahead: is called with proposals that will be played, so that workers measure them at the same time.
    """

    channel_scores: tuple[Array, ...] = ()
    affordable: Callable[[Ratios], bool] = lambda ratios: True
    starts: tuple[Array, ...] = ()
    projects: bool = False
    measure_ahead: Callable[[Sequence[Ratios]], None] = lambda proposals: None


class PruningEnv(gymnasium.Env[Array, Array]):
    """Choose the preserve ratio of each group, then get the reward of the plan.

    The reward is 0 until the last step. The last step's `info` holds `result`, and `transitions`: what the agent would have
    observed and done had it chosen the executed ratios, a list of (observation, action, next observation).

    Args:
        features: (groups, 7), the fixed part of the observations, `compute_static_features`.
        shares: (groups,) share of the SynOps that belongs to each group.
        cost: ratios → SynOps relative to the unpruned network, at its rates.
        evaluate: ratios → `ProposalResult`.
        floor: the lowest ratio.
        hints: for searchers that use no observations.
    """

    def __init__(
        self,
        features: Array,
        shares: Sequence[float],
        cost: Callable[[Ratios], float],
        evaluate: Callable[[Ratios], ProposalResult],
        *,
        floor: float,
        hints: SearchHints | None = None,
    ) -> None:
        self.action_space = gymnasium.spaces.Box(np.float32(floor), np.float32(1.0), (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (len(OBSERVATION),), np.float32)
        self._features, self._shares, self._cost, self._evaluate = features, tuple(shares), cost, evaluate
        self.hints = hints or SearchHints()
        self.bounds = (float(np.float32(floor)), 1.0)
        self._chosen: Ratios = ()

    def play(self, ratios: Array) -> ProposalResult:
        """Play an episode at once, without observations: for searchers that choose all ratios together."""
        low, high = self.bounds
        return self._evaluate(tuple(float(r) for r in np.clip(ratios, low, high)))

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
        result = self._evaluate(self._chosen)
        info = {"result": result, "transitions": self.transitions(result.executed)}
        return self.observe(self._chosen), float(result.reward), True, False, info

    def observe(self, chosen: Ratios) -> Array:
        """Return the observation after these choices: (10,) float32. It does not change the state."""
        groups = len(self._shares)
        index = min(len(chosen), groups - 1)
        ratios = (*chosen, *(1.0,) * (groups - len(chosen)))
        live = (1.0 - self._cost(ratios), float(sum(self._shares[len(chosen) :])), chosen[-1] if chosen else 1.0)
        return np.clip(np.concatenate([self._features[index], live]), -1.0, 1.0).astype(np.float32)

    def transitions(self, ratios: Ratios) -> list[tuple[Array, Array, Array]]:
        """Return (observation, action, next observation) of an episode that chooses these ratios."""
        observations = [self.observe(ratios[:i]) for i in range(len(ratios) + 1)]
        return [(observations[i], np.array([ratio], np.float32), observations[i + 1]) for i, ratio in enumerate(ratios)]


def compute_static_features(graph: SNNGraph, groups: Sequence[ChannelGroup]) -> Array:
    """Return the first seven numbers of the observation for each group: (groups, 7) float64 in 0..1."""
    rows = []
    for index, group in enumerate(groups):
        synapse: Any = graph[group.name].synapse
        conv = isinstance(synapse, CONVS)
        inputs = synapse.weight.shape[1] * (synapse.groups if conv else 1)
        stride = max(synapse.stride) if conv else 1
        kernel = max(synapse.weight.shape[2:]) if conv else 1
        producers: list[Any] = [graph[name].synapse for name in group.producers]
        weights = sum(int(producer.weight.size) for producer in producers if isinstance(producer, WEIGHTED))
        rows.append((index, float(not conv), inputs, group.channels, stride, kernel, weights))
    table = np.array(rows, np.float64).reshape(-1, 7)
    low, high = table.min(axis=0), table.max(axis=0)
    return np.asarray((table - low) / np.where(high > low, high - low, 1.0))
