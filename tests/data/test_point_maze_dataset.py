from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import minari
import numpy as np
import pytest
import torch

from torchrl_gtp.data import load_minari, make_point_maze_dataset, normalized_score
from torchrl_gtp.data.point_maze import main
from torchrl_gtp.envs import FixedGoalPointMaze

pytest.importorskip("gymnasium_robotics")


def arrays(dataset: minari.MinariDataset) -> list[np.ndarray]:
    return [
        array
        for episode in dataset.iterate_episodes()
        for array in (
            episode.observations,
            episode.actions,
            episode.rewards,
            episode.terminations,
            episode.truncations,
        )
    ]


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def test_same_seed_same_arrays(minari_root):
    first, again, other = (
        arrays(make_point_maze_dataset("umaze", 700, seed, f"test/{name}-v0"))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_noise_of_the_controller(minari_root):
    calm, usual, wild = (
        make_point_maze_dataset("umaze", 1000, dataset_id=f"test/n{index}-v0", action_noise=noise)
        for index, noise in enumerate((0.0, 0.5, 2.0))
    )
    jumps = [
        np.abs(np.diff(next(dataset.iterate_episodes()).actions, axis=0)).mean()
        for dataset in (calm, usual, wild)
    ]
    assert 3 * jumps[0] < jumps[1] < jumps[2] - 0.2
    assert [d.storage.metadata["generator"]["action_noise"] for d in (calm, wild)] == [0.0, 2.0]


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_one_walk_cut_into_episodes(minari_root, data_format):
    dataset = make_point_maze_dataset("umaze", 700, data_format=data_format)
    assert dataset.id == "gtp/pointmaze/umaze-v0"
    assert dataset.storage.metadata["data_format"] == data_format
    episodes = list(dataset.iterate_episodes())
    assert [len(episode) for episode in episodes] == [300, 300, 100]
    for before, after in itertools.pairwise(episodes):
        np.testing.assert_array_equal(before.observations[-1], after.observations[0])
    for episode in episodes:
        assert episode.truncations.nonzero()[0].tolist() == [len(episode) - 1]
        assert not episode.terminations.any()
        assert np.abs(episode.actions).max() <= 1.0
    assert dataset.storage.metadata["description"]
    assert dataset.storage.metadata["author"] == {"torchrl_gtp contributors"}


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_reward_is_that_of_the_fixed_goal(minari_root, monkeypatch, maze):
    monkeypatch.setattr(
        "torchrl_gtp.data.point_maze_dataset._reference_scores", lambda maze: (0.0, 1.0)
    )
    env = FixedGoalPointMaze(maze)
    dataset = make_point_maze_dataset(maze, 4_000)
    rewarded = 0
    for episode in dataset.iterate_episodes():
        assert len(episode) <= {"umaze": 300, "medium": 600, "large": 800}[maze]
        near = np.linalg.norm(episode.observations[1:, :2] - env.goal, axis=-1) <= 0.45
        np.testing.assert_array_equal(episode.rewards, near)
        rewarded += near.sum()
        cells = [
            tuple(env.maze.cell_xy_to_rowcol(position).tolist())
            for position in episode.observations[::10, :2]
        ]
        assert set(cells) <= set(env.free_cells)
    if maze == "umaze":
        assert 0 < rewarded < 1_000


def test_reference_scores(point_maze_id):
    metadata = load_minari(point_maze_id).metadata
    # Random forces hardly ever reach the goal; the controller is there after about a third.
    assert 0.0 <= metadata.ref_min_score < 10.0
    assert 150.0 < metadata.ref_max_score < 300.0
    score = normalized_score(metadata.behavior_returns.mean(), metadata)
    assert -5.0 < score < 50.0


def test_environment_is_recovered_in_a_fresh_process(point_maze_id):
    code = (
        f"import minari; env = minari.load_dataset({point_maze_id!r}).recover_environment("
        "eval_env=True); env.reset(seed=0); print(env.spec.max_episode_steps, env.unwrapped)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "300 <FixedGoalPointMaze" in run.stdout


def test_existing_id(minari_root):
    make_point_maze_dataset("umaze", 50)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        make_point_maze_dataset("umaze", 60)
    assert minari.load_dataset("gtp/pointmaze/umaze-v0").total_steps == 50
    assert make_point_maze_dataset("umaze", 60, overwrite=True).total_steps == 60
    assert not list(minari_root.glob(".*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("place", ["write", "rename"])
def test_interruption_leaves_nothing_half_written(minari_root, monkeypatch, error, place):
    make_point_maze_dataset("umaze", 50)
    make_point_maze_dataset("umaze", 50, dataset_id="test/other-v0")
    before = files(minari_root)

    def fail(*_):
        raise error

    def fail_on_the_new_one(source: Path, destination: Path) -> None:
        if Path(source).name == "new":
            raise error
        rename(source, destination)

    rename = os.replace
    if place == "rename":
        monkeypatch.setattr(os, "replace", fail_on_the_new_one)
    else:
        monkeypatch.setattr(
            "minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", fail
        )
    for dataset_id in (None, "test/new-v0"):
        with pytest.raises(error):
            make_point_maze_dataset("umaze", 60, dataset_id=dataset_id, overwrite=True)
    assert files(minari_root) == before
    assert minari.load_dataset("gtp/pointmaze/umaze-v0").total_steps == 50


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"maze": "tiny"}, "maze must be one of"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"dataset_id": "no-version"}, "name-v0"),
        ({"dataset_id": "what is this?-v0"}, "name-v0"),
        ({"data_format": "csv"}, "data_format"),
        ({"action_noise": -0.5}, r"action_noise must be finite and at least 0, got -0\.5"),
        ({"action_noise": float("inf")}, "action_noise must be finite"),
    ],
)
def test_bad_arguments(minari_root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_point_maze_dataset(**{"num_steps": 10, **kwargs})
    assert not files(minari_root)


def test_command_line(minari_root):
    arguments = ["umaze", "--steps", "50", "--seed", "1"]
    path = minari_root / "gtp/pointmaze/umaze-v0/data/main_data.hdf5"
    assert main(arguments) == 0
    made = path.stat().st_mtime_ns
    assert main(arguments) == 0  # there already, with the same settings
    assert main(["umaze", "--steps", "60"]) == 1  # others
    assert path.stat().st_mtime_ns == made
    assert main([*arguments, "--noise", "1"]) == 1
    assert main(["umaze", "--steps", "60", "--overwrite"]) == 0
    assert minari.load_dataset("gtp/pointmaze/umaze-v0").total_steps == 60


def test_the_walk_covers_the_maze(minari_root):
    make_point_maze_dataset("umaze", 5_000)
    env = FixedGoalPointMaze("umaze")
    position = load_minari("gtp/pointmaze/umaze-v0")[:]["observation"][:, :2]
    for cell in env.free_cells:
        centre = torch.as_tensor(env.maze.cell_rowcol_to_xy(np.array(cell))).float()
        assert ((position - centre).abs().amax(-1) < 0.5).float().mean() > 0.03
