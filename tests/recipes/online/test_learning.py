"""DIPO learns to swing up a pendulum, which random actions never do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from recipes.online import train as recipe


@pytest.mark.slow
def test_pendulum(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    with initialize_config_dir(str(Path(recipe.__file__).parent), version_base="1.3"):
        overrides = ["actor.num_levels=5", "online.frames=5000", "env.eval_interval=0"]
        cfg = compose("config", overrides=overrides)
    rows = recipe.run(cfg, tmp_path)
    torch.set_num_threads(threads)
    # 200 steps that hang down or circle; a swing up costs 100 to 300, by the start.
    assert rows["behaviour"].return_mean < -1000
    assert rows["dipo"].return_mean > -500
