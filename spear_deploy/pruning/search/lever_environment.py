"""Environment of the constrained search: width, density and bits of each layer.

One episode chooses a plan of all levers, one step the factors of one layer, in the order of the layers:

    width      channels of the group that the layer makes, relative to the recipe's
    density    share of the layer's weights that stay, relative to the recipe's
    bits       of a weight of the layer, relative to the recipe's, the nearest that the chip has

An action a of −1..1 stands for the factor 2^(span · a), so that actions of zero are the recipe. A lever that a layer does not
have (channels that another layer's group owns, weights without SynOps, bits that save nothing) ignores its number.

Observation: the seven fixed numbers of `environment.OBSERVATION`, then

    8 reduced      share of the SynOps that the plan so far removes by estimate, the layers still to come as in the recipe
    9 rest         share of the SynOps that arrive at the layers still to come
   10 …            the action of the step before, 0 at the start
   …               λ / (1 + λ) of each multiplier
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from spear_deploy.network import CONVS, Array, Dense
from spear_deploy.network.channel_groups import ChannelGroup
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.search.environment import compute_static_features
from spear_deploy.pruning.search.lever_plan import Actions, LeverSpace


class LeverEnv(gymnasium.Env[Array, Array]):
    """Choose the factors of each layer, then get the reward of the plan.

    The reward is 0 until the last step, whose `info` holds `measured` and `multipliers` (see `rl_agents.LagrangianReplay`).

    Args:
        space: the plans.
        evaluate: actions of all layers → reward of their plan, and its objective and use of each budget with a multiplier.
        multipliers: → the present multipliers, one or more numbers of at least 0.
    """

    def __init__(
        self,
        space: LeverSpace,
        evaluate: Callable[[Actions], tuple[float, Sequence[float]]],
        multipliers: Callable[[], Sequence[float]],
    ) -> None:
        size = len(space.levers)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (9 + size + len(multipliers()),), np.float32)
        self.space, self._evaluate, self._multipliers = space, evaluate, multipliers
        self._features = _compute_features(space)
        self._dense = max(space.evaluator.dense.synops.total, 1e-12)
        arriving = space.evaluator.dense.synops.per_layer
        self._shares = [arriving.get(name, 0.0) / self._dense for name in space.layers]
        self._chosen: Actions = ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a new plan."""
        super().reset(seed=seed)
        self._chosen = ()
        return self.observe(()), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Choose the factors of the next layer."""
        self._chosen = (*self._chosen, tuple(float(a) for a in np.clip(np.asarray(action).ravel(), -1.0, 1.0)))
        if len(self._chosen) < len(self.space.layers):
            return self.observe(self._chosen), 0.0, False, False, {}
        reward, measured = self._evaluate(self._chosen)
        info = {"measured": list(measured), "multipliers": list(self._multipliers())}
        return self.observe(self._chosen), float(reward), True, False, info

    def observe(self, chosen: Actions) -> Array:
        """Return the observation after these choices, float32. It does not change the state."""
        index = min(len(chosen), len(self.space.layers) - 1)
        before = chosen[-1] if chosen else (0.0,) * len(self.space.levers)
        reduced = 1.0 - self.space.estimate(self.space.make_plan(chosen)) / self._dense
        prices = [price / (1.0 + price) for price in self._multipliers()]
        live = (reduced, float(sum(self._shares[len(chosen) :])), *before, *prices)
        return np.clip(np.concatenate([self._features[index], live]), -1.0, 1.0).astype(np.float32)


def _compute_features(space: LeverSpace) -> Array:
    """Return the fixed numbers of the observations: (layers, 7)."""
    graph = space.evaluator.graph
    as_groups = [
        ChannelGroup(name=name, channels=_count_outputs(graph, name), producers=(name,), consumers=()) for name in space.layers
    ]
    return compute_static_features(graph, as_groups)


def _count_outputs(graph: SNNGraph, name: str) -> int:
    synapse: Any = graph[name].synapse
    assert isinstance(synapse, (Dense, *CONVS))  # groups and densities are of weights
    return len(synapse.weight)
