"""Environment, replay buffer and searchers on a toy with a known optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from spear_deploy.network.channel_groups import list_prunable_groups  # noqa: E402
from spear_deploy.pipeline.demo import digits_network  # noqa: E402
from spear_deploy.pruning.candidates import ProposalResult  # noqa: E402
from spear_deploy.pruning.search import baselines, rl_agents  # noqa: E402
from spear_deploy.pruning.search.environment import OBSERVATION, PruningEnv, compute_static_features  # noqa: E402

BEST = (0.9, 0.35, 0.6)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Toy:
    """Reward −Σ (ratio − best)²; ratios above 0.95 in sum of 2.2 are scaled down, as a budget would."""

    def __init__(self, limit=np.inf):
        self.limit, self.played = limit, []

    def score(self, ratios):
        executed = np.array(ratios) * min(1.0, self.limit / sum(ratios))
        executed = tuple(float(r) for r in np.clip(executed, 0.2, 1.0))
        reward = -float(np.sum((np.array(executed) - BEST) ** 2))
        self.played.append((tuple(ratios), executed, reward))
        return ProposalResult(executed=executed, reward=reward)

    def env(self):
        rng = np.random.default_rng(0)
        return PruningEnv(rng.random((3, 7)), (0.5, 0.3, 0.2), lambda ratios: float(np.mean(ratios)), self.score, floor=0.2)


def test_the_environment_follows_gymnasium():
    check_env(Toy().env(), skip_render_check=True)

    def worth(ratios):
        return ProposalResult(executed=ratios, reward=1.0)

    check_env(PruningEnv(np.zeros((1, 7)), (1.0,), lambda ratios: ratios[0], worth, floor=0.2), skip_render_check=True)


def test_an_episode_asks_each_group_once_and_rewards_at_the_end():
    toy = Toy()
    env = toy.env()
    first, _ = env.reset()
    assert first.shape == (len(OBSERVATION),) and first[-3:] == pytest.approx([0.0, 1.0, 1.0])
    seen, reward, done, _, _ = env.step(np.array([0.5], np.float32))
    assert (reward, done) == (0.0, False) and seen[-3:] == pytest.approx([1 - (0.5 + 2) / 3, 0.5, 0.5])
    env.step(np.array([0.4], np.float32))
    last, reward, done, _, info = env.step(np.array([7.0], np.float32))  # beyond the range: clipped
    assert done and reward == pytest.approx(toy.played[-1][2]) and info["result"].executed == pytest.approx((0.5, 0.4, 1.0))
    assert last[-2] == 0.0 and env.observation_space.contains(last)


def test_transitions_are_the_observations_of_the_executed_ratios():
    env = Toy(limit=1.5).env()
    env.reset()
    for ratio in (0.9, 0.9, 0.9):
        _, _, _, _, info = env.step(np.array([ratio], np.float32))
    executed = info["result"].executed
    assert sum(executed) == pytest.approx(1.5)
    seen, _ = env.reset()
    for (before, action, after), ratio in zip(info["transitions"], executed, strict=True):
        np.testing.assert_array_equal(before, seen)
        assert action == pytest.approx([ratio])
        seen, *_ = env.step(action)
        np.testing.assert_allclose(after, seen, atol=1e-6)


def test_static_features_are_those_of_the_layers():
    graph = digits_network(0)
    table = compute_static_features(graph, list_prunable_groups(graph))
    # index, dense, inputs, channels, stride, kernel, weights of conv1 and conv2, scaled: equal columns are 0
    np.testing.assert_array_equal(table, [[0, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0, 1]])


def test_the_buffer_gives_every_transition_the_terminal_reward_once():
    env = Toy(limit=1.5).env()
    buffer = rl_agents.EpisodeBroadcast(100, env.observation_space, env.action_space, device="cpu")
    total = []
    for ratios in ((0.3, 0.3, 0.3), (0.9, 0.9, 0.9)):
        seen, _ = env.reset()
        for ratio in ratios:
            after, reward, done, _, info = env.step(np.array([ratio], np.float32))
            scaled = np.array([[2 * (ratio - 0.2) / 0.8 - 1]], np.float32)
            buffer.add(seen[None], after[None], scaled, np.array([reward]), np.array([done]), [info])
            seen = after
        total.append(reward)
    # the first proposal was executed as it was (3 transitions), the second was scaled down (3 proposed, 3 executed)
    assert buffer.pos == 9
    baseline = 0.95 * total[0] + 0.05 * total[1]
    np.testing.assert_allclose(buffer.rewards[:9, 0], [0.0] * 3 + [total[1] - baseline] * 6, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(buffer.dones[:9, 0], [0, 0, 1] * 3)
    np.testing.assert_allclose(buffer.actions[3:6, 0, 0], 2 * (0.9 - 0.2) / 0.8 - 1, rtol=1e-6)
    np.testing.assert_allclose(buffer.actions[6:9, 0, 0], 2 * (0.5 - 0.2) / 0.8 - 1, rtol=1e-6)
    assert (buffer.next_observations[0, 0] == buffer.observations[1, 0]).all()


def played(agent, seed, episodes=60, **kw):
    toy = Toy(**kw)
    rl_agents.train_agent(toy.env(), groups=3, episodes=episodes, seed=seed, agent=agent)
    assert len(toy.played) == episodes
    return toy.played


@pytest.mark.slow
def test_ddpg_learns_the_known_optimum_and_beats_uniform():
    history = played("ddpg", seed=0, episodes=60)
    late = np.mean([reward for _, _, reward in history[-15:]])
    early = np.mean([reward for _, _, reward in history[:15]])
    uniform = Toy()
    baselines.uniform_search(uniform.env(), groups=3, episodes=60, seed=0)
    best_uniform = max(reward for _, _, reward in uniform.played)
    assert late > early + 0.1
    assert max(reward for _, _, reward in history) > -0.04 > best_uniform


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["td3", "sac"])
def test_td3_and_sac_play_eight_episodes(agent):
    played(agent, seed=0, episodes=8)


def test_an_agent_repeats_under_one_seed_and_leaves_the_global_state_alone():
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.RandomState(5).random(), torch.Generator().manual_seed(5).get_state()
    first, again, other = (played("ddpg", seed=seed, episodes=12) for seed in (3, 3, 4))
    assert first == again and first != other
    assert np.random.random() == expected[0] and torch.equal(torch.random.get_rng_state(), expected[1])


def test_random_repeats_and_stays_in_range():
    first, again = Toy(), Toy()
    for toy in (first, again):
        baselines.random_search(toy.env(), groups=3, episodes=20, seed=1)
    assert first.played == again.played and len(first.played) == 20
    assert all(0.2 <= r <= 1.0 for proposed, _, _ in first.played for r in proposed)


def test_uniform_tries_one_ratio_for_all():
    toy = Toy()
    baselines.uniform_search(toy.env(), groups=3, episodes=5, seed=0)
    assert [proposed[0] for proposed, _, _ in toy.played] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert all(len(set(proposed)) == 1 for proposed, _, _ in toy.played)


def test_noise_falls_to_a_tenth():
    noise = rl_agents.DecayingNoise(10, 0)
    first = noise._sigma
    for _ in range(10):
        noise()
        noise.reset()
    assert noise._sigma == pytest.approx(first / 10)


def test_an_agent_leaves_nothing_among_the_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rl_agents.train_agent(Toy().env(), groups=3, episodes=2, seed=0)
    assert list(tmp_path.iterdir()) == []
