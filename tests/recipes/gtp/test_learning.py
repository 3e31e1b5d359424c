"""The recipe at its full budget: value guidance solves what cloning cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recipes.gtp import train as recipe
from torchrl_gtp.data import make_point_maze_dataset


@pytest.mark.slow
def test_gtp_learns_the_maze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "minari").mkdir()
    make_point_maze_dataset("umaze")
    with initialize_config_dir(str(Path(recipe.__file__).parent), version_base="1.3"):
        cfg = compose("config", overrides=["compare_bc=true", "env.eval_interval=0"])
    rows = recipe.run(cfg, tmp_path / "run")
    assert rows["gtp"].success_rate >= 0.9
    assert rows["gtp"].return_mean >= 3 * rows["gtp_bc"].return_mean
