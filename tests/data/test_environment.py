"""The environment's observation is made as the buffer's."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from torchrl.envs.utils import check_env_specs

from torchrl_gtp.data import load_minari, make_minari_env

gymnasium_robotics = pytest.importorskip("gymnasium_robotics")


@pytest.fixture
def dict_metadata(make_dataset):
    """The metadata of a dataset of gymnasium-robotics' own PointMaze, with Dict observations."""
    gym.register_envs(gymnasium_robotics)
    spec = gym.spec("PointMaze_UMaze-v3")
    spec.max_episode_steps = 7
    space = gym.make(spec).observation_space

    def load(**kwargs):
        make_dataset(observation_space=space, env=spec)
        return load_minari("test/small-v0", **kwargs).metadata

    return load


@pytest.mark.parametrize(
    "keys", [None, ["desired_goal", "observation"], ["achieved_goal"], ["observation"]]
)
def test_reset_equals_the_concatenated_gym_observation(dict_metadata, keys):
    metadata = dict_metadata(observation_keys=keys)
    env = make_minari_env(metadata, num_envs=2, seed=3)
    for index in range(2):
        gym_env = gym.make(metadata.env_spec)
        # TorchRL seeds by a reset; the environment is reset once more for the rollout.
        gym_env.reset(seed=3 + index)
        parts, _ = gym_env.reset()
        wanted = np.concatenate([parts[key] for key in keys or ("observation", "desired_goal")])
        if index == 0:
            observation = env.reset()["observation"]
        np.testing.assert_array_equal(observation[index].numpy(), wanted.astype(np.float32))


def test_only_what_policies_need_is_left(dict_metadata):
    env = make_minari_env(dict_metadata(), num_envs=3, seed=0)
    check_env_specs(env)
    keys = set(env.observation_spec.keys(include_nested=True, leaves_only=True))
    assert keys == {"observation", "success"}
    rollout = env.rollout(10, break_when_any_done=False)
    assert rollout["observation"].dtype == torch.float32
    assert rollout["observation"].shape == (3, 10, 6)
    assert rollout["next", "success"].dtype == torch.bool
    assert rollout["next", "success"].shape == (3, 10, 1)
    assert env.action_spec.dtype == torch.float32


def test_time_limit_truncates(dict_metadata):
    metadata = dict_metadata()
    assert metadata.max_episode_steps == 7
    rollout = make_minari_env(metadata, num_envs=2, seed=0).rollout(15, break_when_any_done=False)
    expected = torch.zeros(15, dtype=torch.bool)
    expected[[6, 13]] = True
    for row in rollout["next", "truncated"].squeeze(-1):
        assert torch.equal(row, expected)
    assert not rollout["next", "terminated"].any()
    # The observation after the end is that of a new episode, the one before it is not.
    assert not torch.equal(rollout["next", "observation"][:, 6], rollout["observation"][:, 7])


def test_seeds(dict_metadata):
    metadata = dict_metadata()
    first, again, other = (
        make_minari_env(metadata, num_envs=3, seed=seed).reset()["observation"]
        for seed in (0, 0, 10)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_normalization_is_that_of_the_data(dict_metadata):
    metadata = dict_metadata(normalize_observations=True)
    raw = dataclasses.replace(metadata, observation_loc=None, observation_scale=None)
    observation = make_minari_env(metadata, num_envs=2, seed=0).reset()["observation"]
    plain = make_minari_env(raw, num_envs=2, seed=0).reset()["observation"]
    expected = (plain - metadata.observation_loc) / metadata.observation_scale
    assert torch.equal(observation, expected)


def test_point_maze_reports_success_where_it_rewards(point_maze_id):
    metadata = load_minari(point_maze_id).metadata
    env = make_minari_env(metadata, num_envs=4, seed=0)
    rollout = env.rollout(metadata.max_episode_steps, break_when_any_done=False)
    assert rollout["next", "done"][:, -1].all()
    assert torch.equal(rollout["next", "success"], rollout["next", "reward"] > 0)


def test_flat_environment_without_success_that_terminates(make_dataset):
    """Hopper: float64 observations, episodes of different lengths."""
    spec = gym.spec("Hopper-v5")
    make_dataset(
        observation_space=gym.make(spec).observation_space,
        action_space=gym.make(spec).action_space,
        env=spec,
    )
    env = make_minari_env(load_minari("test/small-v0").metadata, num_envs=3, seed=0)
    check_env_specs(env)
    torch.manual_seed(0)
    rollout = env.rollout(100, break_when_any_done=False)
    assert "success" not in rollout["next"].keys()
    terminated = rollout["next", "terminated"].squeeze(-1)
    first = [int(row.nonzero()[0]) for row in terminated]
    assert len(set(first)) > 1
    for row, step in enumerate(first):  # the next episode starts from a standing hopper
        assert rollout["observation"][row, step + 1, 0] > 1.2
    running = ~rollout["next", "done"].squeeze(-1)[:, :-1]
    assert torch.equal(
        rollout["next", "observation"][:, :-1][running], rollout["observation"][:, 1:][running]
    )


class NestedEnv(gym.Env):
    """Nested observations and an action in float64; counts its steps."""

    observation_space = gym.spaces.Dict(
        {
            "goal": gym.spaces.Dict({"burner": gym.spaces.Box(-9, 9, (2,), np.float64)}),
            "observation": gym.spaces.Box(-9, 9, (1,), np.float32),
            "other": gym.spaces.Box(-9, 9, (4,), np.float64),
        }
    )
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.action, self.steps = np.zeros(2), 0
        return self._observe(), {}

    def step(self, action):
        assert action.dtype == np.float64
        self.action, self.steps = action, self.steps + 1
        return self._observe(), 0.0, False, False, {"success": self.steps > 1}

    def _observe(self):
        steps = np.array([self.steps], dtype=np.float32)
        return {"goal": {"burner": self.action}, "observation": steps, "other": np.zeros(4)}


def test_nested_observations_and_float64_actions(make_dataset):
    make_dataset(observation_space=NestedEnv.observation_space, action_space=NestedEnv.action_space)
    keys = ["observation", ("goal", "burner")]
    metadata = dataclasses.replace(
        load_minari("test/small-v0", observation_keys=keys).metadata,
        env_spec=EnvSpec("Nested-v0", entry_point=NestedEnv, max_episode_steps=4),
    )
    env = make_minari_env(metadata, num_envs=2, seed=0)
    check_env_specs(env)
    assert env.action_spec.dtype == torch.float32
    rollout = env.rollout(4)
    after = rollout["next", "observation"]
    assert torch.equal(after[..., 0], torch.arange(1.0, 5.0).expand(2, 4))
    assert torch.equal(after[..., 1:], rollout["action"])
    # Reported from the first step on, though not at a reset.
    assert rollout["next", "success"].squeeze(-1).tolist() == [[False, True, True, True]] * 2
    assert set(rollout["next"].keys()) == {
        "observation",
        "success",
        "reward",
        "done",
        "terminated",
        "truncated",
    }


def test_errors(dict_metadata):
    metadata = dict_metadata()
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_minari_env(metadata, num_envs=0)
    with pytest.raises(ValueError, match="names no environment"):
        make_minari_env(dataclasses.replace(metadata, env_spec=None))


def test_missing_simulator_names_the_extra(point_maze_id, monkeypatch):
    monkeypatch.setattr("torchrl_gtp.envs.point_maze._has_sim", False)
    with pytest.raises(ImportError, match=r'pip install "torchrl_gtp\[sim\]"'):
        make_minari_env(load_minari(point_maze_id).metadata)


class EpisodicEnv(NestedEnv):
    """Ends after the second step if it is told to."""

    def __init__(self, ends: bool = False, colour: str = "red"):
        self.ends, self.colour = ends, colour

    def step(self, action):
        observation, _, _, truncated, info = super().step(action)
        return observation, 1.0, self.ends and self.steps == 2, truncated, info


def test_arguments_of_the_environment_and_its_scores_can_be_replaced(make_dataset):
    spec = EnvSpec(
        "Episodic-v0",
        entry_point="tests.data.test_environment:EpisodicEnv",
        max_episode_steps=4,
        kwargs={"ends": False, "colour": "blue"},
    )
    make_dataset(
        observation_space=NestedEnv.observation_space, action_space=NestedEnv.action_space, env=spec
    )
    options = {"env_kwargs": {"ends": True}, "reference_scores": (0.0, 2.0)}
    metadata = load_minari("test/small-v0", **options).metadata
    assert metadata.env_spec.kwargs == {"ends": True, "colour": "blue"}
    assert (metadata.ref_min_score, metadata.ref_max_score) == (0.0, 2.0)
    rollout = make_minari_env(metadata, num_envs=1, seed=0).rollout(3, break_when_any_done=False)
    assert rollout["next", "terminated"].flatten().tolist() == [False, True, False]
    assert load_minari("test/small-v0").metadata.env_spec.kwargs["ends"] is False


def test_arguments_for_no_environment(make_dataset):
    make_dataset()
    with pytest.raises(ValueError, match=r"env_kwargs=\{'ends': True\}.*names no environment"):
        load_minari("test/small-v0", env_kwargs={"ends": True})


@pytest.mark.parametrize("missing", [ImportError, gym.error.DependencyNotInstalled])
def test_simulator_that_cannot_be_imported(point_maze_id, monkeypatch, missing):
    def make(spec):
        raise missing("no module named mujoco")

    metadata = load_minari(point_maze_id).metadata
    monkeypatch.setattr(gym, "make", make)
    with pytest.raises(ImportError, match=r'no module named mujoco.*"torchrl_gtp\[sim\]"'):
        make_minari_env(metadata)


def test_a_position_that_only_the_goal_entry_holds_is_warned_of(make_dataset, monkeypatch):
    warnings = []
    monkeypatch.setattr("torchrl_gtp.data.minari.logger.warning", warnings.append)
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    space = gym.spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})

    def repeat_position(episodes):
        for episode in episodes:
            parts = episode["observations"]
            parts["observation"][:, 1] = parts["achieved_goal"][:, 0]
            parts["achieved_goal"][:, 1] = parts["observation"][:, 0]

    make_dataset("test/seen-v0", observation_space=space, edit=repeat_position)
    make_dataset("test/unseen-v0", observation_space=space)
    load_minari("test/seen-v0")
    load_minari("test/unseen-v0", observation_keys=["observation"])
    assert warnings == []
    load_minari("test/unseen-v0")
    assert "observation_keys=['achieved_goal', 'observation', 'desired_goal']" in warnings[0]
