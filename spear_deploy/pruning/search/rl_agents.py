"""Agents of Stable-Baselines3, on widths and on all levers.

Where SPEAR is silent, AMC's settings stand: gamma 1, the terminal reward on every transition of the episode less a moving
baseline, networks of 300-300, exploration that decays after a warm-up of random plans. What differs: one learning rate
for actor and critic (Stable-Baselines3 has one), plain instead of truncated normal noise, more updates per episode (an
evaluation costs more than an update), and an episode is stored twice where the budget changed it: the proposal with this reward,
and the executed ratios with the same reward.

On all levers (`refine_policy`) few episodes are played around a recipe. There gamma is 0: the critic is the regression of the
episode's reward on the state and action of a layer, without bootstrapping. The policy's last layer begins at zero, so that its
first actions are the recipe's, its networks are small and its steps short.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from spear_deploy.network import Array
from spear_deploy.pruning.search.environment import PruningEnv
from spear_deploy.pruning.search.lever_environment import LeverEnv
from spear_deploy.pruning.search.lever_plan import remove_trend
from spear_deploy.training.optimizers import without_compiler

Agent: TypeAlias = Literal["ddpg", "td3", "sac"]
WARM_UP_SHARE = 0.25
"""Share of the episodes whose ratios are drawn at random."""
NOISE = 0.3
"""Standard deviation of exploration in units of the action, which Stable-Baselines3 scales to −1..1."""
FINAL_NOISE_SHARE = 0.1
BASELINE_DECAY = 0.95
MIN_UPDATES = 16
"""Minimum of gradient steps an episode."""
REFINING_NOISE, FINAL_REFINING_SHARE = 0.4, 0.5
"""Standard deviation of exploration around a recipe, in units of the action, and the share of it in the last episode."""
REFINING_RATE, REFINING_UNITS = 3e-4, 64
"""Learning rate, and units of a layer, around a recipe: the mean then moves by about 0.1 an episode."""


def train_agent(env: PruningEnv, *, groups: int, episodes: int, seed: int, agent: Agent = "ddpg") -> None:
    """Let an agent play whole episodes; the function that evaluates them keeps their results.

    Args:
        env: the environment.
        groups: number of coupled groups, the steps of an episode.
        episodes: how many.
        seed: of weights, exploration and replay.
        agent: "ddpg", "td3" or "sac".
    """
    warm_up = max(1, round(WARM_UP_SHARE * episodes))
    settings: dict[str, Any] = {
        "gamma": 1.0,
        "tau": 0.01,
        "learning_rate": 1e-3,
        "batch_size": 64,
        "buffer_size": 2 * episodes * groups,
        "learning_starts": warm_up * groups,
        "train_freq": (1, "episode"),
        "gradient_steps": max(groups, MIN_UPDATES),
        "policy_kwargs": {"net_arch": [300, 300], "optimizer_class": without_compiler(torch.optim.Adam)},
        "replay_buffer_class": EpisodeBroadcast,
        "seed": seed,
        "device": "cpu",
    }
    if agent != "sac":  # soft actor-critic explores by itself
        settings["action_noise"] = DecayingNoise(episodes - warm_up, seed)
    with _keep_global_random_state():
        kind: Any = {"ddpg": DDPG, "td3": TD3, "sac": SAC}[agent]
        _play(kind("MlpPolicy", env, **settings), episodes * groups)


def refine_policy(env: LeverEnv, *, episodes: int, seed: int) -> None:
    """Let TD3 play episodes around a recipe; the first one is the recipe.

    Args:
        env: the environment.
        episodes: how many.
        seed: of weights, exploration and replay.
    """
    layers = len(env.space.layers)
    noise = DecayingNoise(
        episodes - 1, seed, spread=REFINING_NOISE, final=FINAL_REFINING_SHARE, size=len(env.space.levers), quiet=1
    )
    settings: dict[str, Any] = {
        "gamma": 0.0,
        "learning_rate": REFINING_RATE,
        "batch_size": 64,
        "buffer_size": episodes * layers + 1,  # never full, so that transitions stay in order
        "learning_starts": 0,
        "train_freq": (1, "episode"),
        "gradient_steps": max(layers, MIN_UPDATES),
        "policy_kwargs": {"net_arch": [REFINING_UNITS] * 2, "optimizer_class": without_compiler(torch.optim.Adam)},
        "replay_buffer_class": LagrangianReplay,
        "action_noise": noise,
        "seed": seed,
        "device": "cpu",
    }
    with _keep_global_random_state():
        model = TD3("MlpPolicy", env, **settings)
        for actor in (model.actor, model.actor_target):
            last: Any = actor.mu[-2]
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
        _play(model, episodes * layers)


def _play(model: OffPolicyAlgorithm, steps: int) -> None:
    model.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a folder among the temporary files
    model.learn(total_timesteps=steps)


class EpisodeBroadcast(ReplayBuffer):
    """A replay buffer that gives each transition of an episode the episode's terminal reward, less a moving baseline.

    Transitions are held back until the episode ends, then stored once. Where the environment executed other ratios than
    were proposed, the transitions of those, which it hands over in `info`, are stored too. Without the broadcast an agent
    learns far more slowly from a reward that comes last.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.baseline: float | None = None
        self._episode: list[tuple[Array, Array, Array]] = []

    def add(self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[dict[str, Any]]) -> None:
        """Hold a transition back; at the last one store the episode."""
        self._episode.append((obs.copy(), action.copy(), next_obs.copy()))
        if not done[0]:
            return
        terminal = float(reward[0])
        self.baseline = terminal if self.baseline is None else BASELINE_DECAY * self.baseline + (1 - BASELINE_DECAY) * terminal
        executed = [(before[None], self._scale_action(a)[None], after[None]) for before, a, after in infos[0]["transitions"]]
        proposed, self._episode = self._episode, []
        same = all(np.allclose(a, b, atol=1e-4) for (_, a, _), (_, b, _) in zip(proposed, executed, strict=True))
        for episode in (proposed,) if same else (proposed, executed):
            for i, (before, acted, after) in enumerate(episode):
                last = np.array([i == len(episode) - 1])
                super().add(before, after, acted, np.array([terminal - self.baseline], np.float32), last, [{}])

    def _scale_action(self, action: Array) -> Array:
        """Scale to −1..1, as policies store actions."""
        low, high = self.action_space.low, self.action_space.high  # type: ignore[attr-defined]
        return np.asarray(2.0 * (action - low) / (high - low) - 1.0)


class LagrangianReplay(ReplayBuffer):
    """A replay buffer in which every transition of an episode has the episode's Lagrangian at the present multipliers.

    The last transition's `info` holds `measured`, (1 + m,): the objective of the plan and its use of each of m budgets; and
    `multipliers`, (m,). Whenever an episode ends, the reward of each transition so far becomes objective − Σ λ_i u_i, less the
    trend over the episodes: an old plan counts by what it costs now, and what all learn counts for none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._measured: list[Array] = []
        self._lengths: list[int] = []

    def add(self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[dict[str, Any]]) -> None:
        """Store a transition; at the last one of an episode set all rewards."""
        super().add(obs, next_obs, action, reward, done, infos)
        if not done[0]:
            return
        self._measured.append(np.asarray(infos[0]["measured"], np.float64))
        self._lengths.append(self.pos - sum(self._lengths))
        measured = np.array(self._measured)
        values: Array = measured[:, 0] - measured[:, 1:] @ np.asarray(infos[0]["multipliers"], np.float64)
        self.rewards[: self.pos, 0] = np.repeat(remove_trend(values), self._lengths)


class DecayingNoise(ActionNoise):
    """Normal noise whose spread falls geometrically, episode by episode, to a tenth unless chosen otherwise.

    Args:
        episodes: in which it falls.
        seed: of the draws.
        spread: standard deviation in the first of them.
        final: share of it that is left after them.
        size: numbers of an action.
        quiet: episodes without noise before.
    """

    def __init__(
        self, episodes: int, seed: int, *, spread: float = NOISE, final: float = FINAL_NOISE_SHARE, size: int = 1, quiet: int = 0
    ) -> None:
        super().__init__()
        self._sigma, self._size, self._quiet, self._called = spread, size, quiet, False
        self._decay = final ** (1 / max(episodes, 1))
        self._rng = np.random.default_rng(seed)

    def __call__(self) -> Array:
        """Return the noise of one action."""
        self._called = True
        spread = 0.0 if self._quiet > 0 else self._sigma
        return self._rng.normal(0.0, spread, self._size).astype(np.float32)

    def reset(self) -> None:
        """End an episode."""
        if self._quiet > 0:
            self._quiet -= self._called  # learning begins with a reset
        else:
            self._sigma *= self._decay


@contextmanager
def _keep_global_random_state() -> Iterator[None]:
    """Restore the global random state of torch, numpy and Python, which Stable-Baselines3 seeds."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
