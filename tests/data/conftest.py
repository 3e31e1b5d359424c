from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from torchrl_gtp.data import make_point_maze_dataset

DatasetFactory = Callable[..., minari.MinariDataset]


@pytest.fixture
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of Minari's own."""
    root = tmp_path / "minari"
    root.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root


def _observations(space: spaces.Space, length: int, rng: np.random.Generator):
    if isinstance(space, spaces.Dict):
        return {key: _observations(child, length, rng) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Box):
        values = rng.normal(size=(length, *space.shape))
        return values.clip(space.low, space.high).astype(space.dtype)
    return [space.sample() for _ in range(length)]


@pytest.fixture
def make_dataset(minari_root: Path) -> DatasetFactory:
    """Makes a small local dataset of random numbers; `edit` may change its episodes."""

    def make(
        dataset_id: str = "test/small-v0",
        *,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        lengths: tuple[int, ...] = (4, 1, 6),
        terminated: tuple[bool, ...] = (True, False, False),
        truncated: tuple[bool, ...] = (False, True, True),
        data_format: str = "hdf5",
        edit: Callable[[list[dict]], None] | None = None,
        env: gym.Env | str | None = None,
        **metadata,
    ) -> minari.MinariDataset:
        rng = np.random.default_rng(0)
        observation_space = observation_space or spaces.Box(-np.inf, np.inf, (3,), np.float64)
        action_space = action_space or spaces.Box(-1.0, 1.0, (2,), np.float32)
        episodes = []
        for length, ends, cut in zip(lengths, terminated, truncated, strict=False):
            last = np.arange(length) == length - 1
            if isinstance(action_space, spaces.Box):
                actions = rng.uniform(-1, 1, (length, *action_space.shape)).astype(np.float32)
            else:
                actions = np.zeros((length, *action_space.shape), dtype=np.int64)
            episodes.append(
                {
                    "observations": _observations(observation_space, length + 1, rng),
                    "actions": actions,
                    "rewards": rng.normal(size=length),
                    "terminations": last & ends,
                    "truncations": last & cut,
                }
            )
        if edit is not None:
            edit(episodes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari asks for author, e-mail, permalink ...
            return minari.create_dataset_from_buffers(
                dataset_id,
                [EpisodeBuffer(**episode) for episode in episodes],
                env=env,
                observation_space=observation_space,
                action_space=action_space,
                data_format=data_format,
                **metadata,
            )

    return make


@pytest.fixture(scope="session")
def point_maze_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a PointMaze dataset of 1,000 steps, made once."""
    root = tmp_path_factory.mktemp("point_maze")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        make_point_maze_dataset("umaze", num_steps=1_000, seed=0)
    return root


@pytest.fixture
def point_maze_id(point_maze_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(point_maze_root))
    return "gtp/pointmaze/umaze-v0"
