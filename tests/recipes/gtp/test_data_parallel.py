"""The recipe under torchrun: one run, whatever the number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp import train as recipe
from tests.recipes.conftest import TINY

ROOT = Path(recipe.__file__).parents[2]
COMMAND = [
    sys.executable,
    *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    str(ROOT / "recipes" / "gtp" / "train.py"),
]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments, f"hydra.run.dir={folder}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_run_is_stopped_and_resumed_with_two_processes(datasets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *TINY, "optim.steps=1000000", "env.eval_interval=0", "device=cpu")
    checkpoint = folder / "gtp" / "last.pt"
    deadline = time.monotonic() + 90
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert f"resume={folder}" in output, output
    stopped = load_checkpoint(checkpoint)
    # All processes stop after the same update.
    assert stopped["learner"]["step"] % 20 == 0

    steps = stopped["learner"]["step"] + 6
    process = start(folder, f"resume={folder}", f"optim.steps={steps}", "env.eval_interval=3")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("| GTP ") == 1
    finished = load_checkpoint(checkpoint)
    assert finished["learner"]["step"] == steps
    assert json.loads((folder / "results.json").read_text())["updates"] == steps
    changed = [
        not torch.equal(value, finished["learner"]["loss"][name])
        for name, value in stopped["learner"]["loss"].items()
        if name.startswith("actor_network_params") and name.endswith("weight")
    ]
    assert changed and all(changed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
