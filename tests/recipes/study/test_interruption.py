"""Runners that are started twice or killed: their cells are finished once, and wholly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recipes.study import files
from recipes.study.lock import is_taken
from tests.recipes.study.conftest import starts
from tests.recipes.study.forking import start_runner

ROOT = Path(__file__).parents[3]
SECONDS = 300


def end_of(runner: Any) -> int | None:
    runner.join(SECONDS)
    return runner.exitcode


def test_a_study_that_is_started_twice_at_once(write_study, tmp_path: Path) -> None:
    path = write_study(["bc"], seeds=[0, 1])
    runners = [start_runner(str(path)) for _ in range(2)]
    assert [end_of(runner) for runner in runners] == [0, 0]
    folder = tmp_path / "cells"
    assert starts(folder) == {f"pointmaze_umaze/bc/seed_{seed}": 1 for seed in range(2)}
    assert all(files.read_result(folder / name) for name in starts(folder))


def test_a_study_whose_runner_is_killed(write_study, tmp_path: Path) -> None:
    path = write_study(["bc"])
    cell = tmp_path / "cells/pointmaze_umaze/bc/seed_0"
    # Long enough to be met in the middle.
    lengths = {"optim.steps": 600, "env.eval_interval": 300, "checkpoint.interval": 20}
    command = [str(path), *(f"overrides.{name}={value}" for name, value in lengths.items())]
    runner = start_runner(*command)
    wait_until((cell / "last.pt").exists)
    runner.kill()
    assert end_of(runner) == -signal.SIGKILL
    # The worker notices that its runner is gone and ends as well.
    wait_until(lambda: not is_taken(cell))
    assert files.read_result(cell) is None
    assert end_of(start_runner(*command)) == 0
    assert starts(tmp_path / "cells") == {"pointmaze_umaze/bc/seed_0": 2}
    assert "Going on from" in (cell / files.LOG).read_text()
    evaluated = [r["step"] for r in files.read_curves(cell / files.CURVES) if "eval/return" in r]
    assert evaluated == [300, 600]


def wait_until(happened: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_two_runners_share_the_cells(write_study, tmp_path: Path) -> None:
    path = write_study(["gtp_bc", "bc"], seeds=[0, 1])
    command = [sys.executable, "recipes/study/run.py", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runners = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    printed = [runner.communicate(timeout=600)[0].decode() for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], printed
    assert all("Finished: 4 of 4 cells." in text for text in printed)
    assert starts(tmp_path / "cells") == {
        f"pointmaze_umaze/{method}/seed_{seed}": 1 for method in ("bc", "gtp_bc") for seed in (0, 1)
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_study_goes_on_after_its_runner_was_killed(
    write_study, tmp_path: Path, number: signal.Signals
) -> None:
    path = write_study(["gtp_bc"])
    cell = tmp_path / "cells/pointmaze_umaze/gtp_bc/seed_0"
    # Long enough to be met in the middle.
    command = [sys.executable, "recipes/study/run.py", str(path), "overrides.optim.steps=2000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not (cell / "last.pt").exists():
        assert runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(number)
    assert runner.wait(timeout=120) == (-number if number == signal.SIGKILL else 128 + number)
    # The worker notices that its runner is gone and ends as well.
    deadline = time.monotonic() + 120
    while is_taken(cell):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert files.read_result(cell) is None
    again = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert b"Finished: 1 of 1 cells." in again.stdout
    assert "Going on from" in (cell / files.LOG).read_text()
    steps = [r["step"] for r in files.read_curves(cell / files.CURVES) if "eval/return" in r]
    assert steps == sorted(set(steps)) == list(range(6, 2001, 6))
