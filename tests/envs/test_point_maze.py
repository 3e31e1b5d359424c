from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from torchrl_gtp.envs import FixedGoalPointMaze, point_maze_spec

pytest.importorskip("gymnasium_robotics")


@pytest.mark.filterwarnings("ignore")  # the checker would like finite observation bounds
def test_gymnasium_accepts_it():
    check_env(FixedGoalPointMaze("umaze"), skip_render_check=True)


@pytest.mark.parametrize(
    ("maze", "cell", "goal", "free"),
    [
        ("umaze", (1, 1), (-1.0, 1.0), 7),
        ("medium", (6, 6), (2.5, -2.5), 26),
        ("large", (7, 9), (3.5, -3.0), 46),
    ],
)
def test_goal_is_d4rls_and_free(maze, cell, goal, free):
    env = FixedGoalPointMaze(maze)
    assert env.goal_cell == cell
    assert env.goal.tolist() == list(goal)
    assert cell in env.free_cells
    assert len(env.free_cells) == free


def test_starts_anywhere_but_at_the_goal():
    env = FixedGoalPointMaze("umaze")
    cells = set()
    for seed in range(100):
        observation, info = env.reset(seed=seed)
        cell = tuple(env.maze.cell_xy_to_rowcol(observation[:2]).tolist())
        centre = env.maze.cell_rowcol_to_xy(np.array(cell))
        assert np.abs(observation[:2] - centre).max() <= 0.25
        assert (observation[2:] == 0).all()
        assert info == {"success": False}
        cells.add(cell)
    assert cells == set(env.free_cells) - {env.goal_cell}


def test_reward_and_success_within_the_radius():
    env = FixedGoalPointMaze("umaze")
    rewards, near = [], []
    observation, _ = env.reset(seed=0)
    while len(rewards) < 300:
        # Straight at the goal, once round the wall.
        target = env.goal if observation[1] > 0.4 else np.array([1.0, 1.0])
        if observation[1] < -0.6 and observation[0] < 0.9:
            target = np.array([1.0, -1.0])
        action = np.clip(10 * (target - observation[:2]) - observation[2:], -1, 1)
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        assert not truncated
        assert info["success"] == (reward == 1.0)
        rewards.append(reward)
        near.append(np.linalg.norm(observation[:2] - env.goal) <= 0.45)
    assert rewards == [float(flag) for flag in near]
    assert 0 < sum(rewards) < 300
    assert rewards[-1] == 1.0


def test_deterministic():
    def run() -> np.ndarray:
        env = FixedGoalPointMaze("umaze")
        rng = np.random.default_rng(0)
        env.reset(seed=5)
        return np.stack([env.step(rng.uniform(-1, 1, 2))[0] for _ in range(200)])

    first = run()
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, run())


def test_physics_are_those_of_gymnasium_robotics():
    """The same actions from the same start move its own PointMaze in the same way."""
    gymnasium_robotics = pytest.importorskip("gymnasium_robotics")
    gym.register_envs(gymnasium_robotics)
    theirs = gym.make("PointMaze_Medium-v3").unwrapped
    ours = FixedGoalPointMaze("medium")
    start, _ = ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.point_env.set_state(ours._point.init_qpos.copy(), np.zeros(2))
    rng = np.random.default_rng(0)
    for _ in range(100):
        action = rng.uniform(-1, 1, 2)
        observation, *_ = ours.step(action)
        expected, *_ = theirs.step(action)
        np.testing.assert_allclose(observation, expected["observation"], rtol=1e-6, atol=1e-6)
    assert np.linalg.norm(observation[:2] - start[:2]) > 0.1


@pytest.mark.parametrize(("maze", "steps"), [("umaze", 300), ("medium", 600), ("large", 800)])
def test_spec_round_trips_through_json_and_truncates(maze, steps):
    spec = EnvSpec.from_json(point_maze_spec(maze).to_json())
    assert spec.id not in gym.registry
    env = gym.make(spec)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(steps)]
    assert ends == [(False, False)] * (steps - 1) + [(False, True)]


def test_unknown_maze():
    for make in (FixedGoalPointMaze, point_maze_spec):
        with pytest.raises(ValueError, match=r"\['umaze', 'medium', 'large'\], got 'tiny'"):
            make("tiny")


def test_missing_simulator_names_the_extra(monkeypatch):
    monkeypatch.setattr("torchrl_gtp.envs.point_maze._has_sim", False)
    with pytest.raises(ImportError, match=r'pip install "torchrl_gtp\[sim\]"'):
        FixedGoalPointMaze()


def test_importing_loads_no_simulator():
    code = (
        "import sys, torchrl_gtp.envs.point_maze; "
        "assert not {'gymnasium_robotics', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_leaves_no_file_behind(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    FixedGoalPointMaze("umaze").close()
    assert not list(tmp_path.iterdir())
