from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from torchrl_gtp.data import make_point_maze_dataset

# Makes a run of seconds out of the recipe's defaults.
TINY = [
    "num_threads=1",
    "optim.steps=6",
    "replay_buffer.batch_size=16",
    "actor.hidden_sizes=[16]",
    "critic.hidden_sizes=[16]",
    "env.num_envs=2",
    "env.eval_interval=3",
    "env.eval_episodes=2",
    "env.final_episodes=3",
    "env.max_steps=20",
    "logger.interval=2",
    "checkpoint.interval=2",
]


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Minari folder with a tiny ``gtp/pointmaze/umaze-v0``."""
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        make_point_maze_dataset("umaze", num_steps=1500)
        yield folder


@pytest.fixture(autouse=True)
def own_minari_folder(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of the recipes share one folder of datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))


@pytest.fixture
def config(datasets: Path) -> Iterator[Callable[..., DictConfig]]:
    """Composes the tiny config with further overrides."""
    threads = torch.get_num_threads()
    folder = Path(__file__).parents[2] / "recipes" / "gtp"

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(folder), version_base="1.3"):
            return compose("config", overrides=[*TINY, *overrides])

    yield make
    torch.set_num_threads(threads)
