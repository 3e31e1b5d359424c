"""The package as a user meets it: imports, version, names, and the README's script."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torchrl_gtp
from torchrl_gtp.data import make_point_maze_dataset

ROOT = Path(__file__).parents[1]


def test_import_adds_no_simulator_and_no_plotting():
    """TorchRL itself imports MuJoCo where it finds it; nothing may come on top."""
    code = (
        "import sys, torchrl.envs, torchrl.objectives; before = set(sys.modules);"
        "import torchrl_gtp, torchrl_gtp.data, torchrl_gtp.envs;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(new & {'mujoco', 'gymnasium_robotics', 'matplotlib', 'hydra', 'tqdm', 'recipes'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_version_is_that_of_the_distribution():
    assert torchrl_gtp.__version__ == version("torchrl_gtp")


def test_public_names_exist_and_are_documented():
    for name in torchrl_gtp.__all__:
        assert getattr(torchrl_gtp, name).__doc__, name


def test_script_of_the_readme_runs(tmp_path, monkeypatch):
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    lines = [line for line in script.splitlines() if line]
    assert len(lines) <= 15
    assert "range(10_000)" in script
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make_point_maze_dataset("umaze", num_steps=600)
    scope: dict = {}
    exec(script.replace("range(10_000)", "range(2)"), scope)
    assert scope["policy"].num_steps == 2
    assert all(scope["losses"][f"loss_{name}"].isfinite() for name in ("flow", "qvalue"))
