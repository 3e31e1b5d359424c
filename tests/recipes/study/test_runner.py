from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recipes.study import files
from recipes.study.grid import make_cells, read_study
from recipes.study.lock import is_taken, owned, owner
from recipes.study.results import read_study as read_results
from recipes.study.run import main, run
from recipes.study.runner import Runner, _Job, slots
from recipes.study.worker import FAILED, STOPPED, run_and_report
from tests.recipes.study.conftest import run_here, starts
from torchrl_gtp.data import make_point_maze_dataset


def test_failed_cells_do_not_stop_others_and_are_tried_again(
    write_study, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "cells"
    # The large maze was not made.
    path = write_study(["bc"], tasks=["pointmaze_large", "pointmaze_umaze"])
    with pytest.raises(SystemExit) as end:
        main([str(path)])
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "python -m torchrl_gtp.data.point_maze large" in printed
    assert "pointmaze_large/bc/seed_0: FileNotFoundError" in printed
    assert "Finished: 1 of 2 cells." in printed
    failure = files.read_json(folder / "pointmaze_large/bc/seed_0" / files.FAILURE)
    assert (failure["type"], failure["updates"]) == ("FileNotFoundError", 0)
    assert "Traceback" in failure["traceback"]
    assert files.read_json(folder / files.FAILURE) is None
    finished = folder / "pointmaze_umaze/bc/seed_0"
    result = (finished / files.RESULT).read_text()

    # Again, with a result that was cut short: both cells run, this one from its checkpoint.
    (finished / files.RESULT).write_text(result[: len(result) // 2])
    outcome = run(str(path))
    assert list(outcome.failed) == ["pointmaze_large/bc/seed_0"]
    again = files.read_result(finished)
    assert again["last"]["returns"] == json.loads(result)["last"]["returns"]
    assert "Going on from" in (finished / files.LOG).read_text()
    assert starts(folder) == {
        "pointmaze_large/bc/seed_0": 2,
        "pointmaze_umaze/bc/seed_0": 2,
    }


def test_finished_cells_are_left_alone(write_study, make_cell, tmp_path: Path) -> None:
    path = write_study(["bc"], seeds=[0])
    cell = tmp_path / "cells/pointmaze_umaze/bc/seed_0"
    run_here(make_cell("bc"), cell)
    # Nor do they need what a folder is kept without.
    kept = (files.CONFIG, files.RESULT, files.CURVES, files.STARTS)
    for other in [file for file in cell.iterdir() if file.name not in kept]:
        other.unlink()
    outcome = run(str(path), ["overrides.compile.compile=true"])
    assert outcome.finished == ["pointmaze_umaze/bc/seed_0"]
    assert starts(tmp_path / "cells") == {"pointmaze_umaze/bc/seed_0": 1}
    grid = (tmp_path / "cells" / files.STUDY).read_text()
    with pytest.raises(ValueError, match=r"batch_size: 16 and 8"):
        run(str(path), ["overrides.replay_buffer.batch_size=8", "grids.0.seeds=[0,1]"])
    assert (tmp_path / "cells" / files.STUDY).read_text() == grid


def test_the_runner_says_which_fields_its_cells_are_older_than(
    make_cell, tmp_path: Path, capsys
) -> None:
    cell = make_cell("bc")
    former = cell.config
    del former["env"]["candidate_selection"]
    files.write_config(tmp_path / cell.name, former)
    Runner([make_cell("bc")], tmp_path, workers=1)
    assert "made with the defaults: env.candidate_selection=softmax\n" in capsys.readouterr().out


def test_a_missing_simulator_or_dataset_fails_its_cells_alone(
    write_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    make_point_maze_dataset("umaze", num_steps=300)
    # The same data of an environment whose package nobody has.
    shutil.copytree(root / "gtp/pointmaze/umaze-v0", root / "gtp/pointmaze/absent-v0")
    metadata = root / "gtp/pointmaze/absent-v0/data/metadata.json"
    text = metadata.read_text().replace("torchrl_gtp.envs.point_maze", "simulator_of_nowhere.envs")
    metadata.write_text(text.replace("umaze-v0", "absent-v0"))
    (tmp_path / "task").mkdir()
    for name, dataset in {
        "simulator": "gtp/pointmaze/absent-v0",
        "dataset": "mujoco/nowhere/medium-v0",
    }.items():
        task = {"dataset": dataset, "study": {"name": name}}
        OmegaConf.save(OmegaConf.create(task), tmp_path / "task" / f"{name}.yaml")

    tasks = ["simulator", "dataset", "pointmaze_umaze"]
    outcome = run(str(write_study(["bc"], tasks=tasks)))
    assert outcome.finished == ["pointmaze_umaze/bc/seed_0"]
    assert set(outcome.failed) == {"simulator/bc/seed_0", "dataset/bc/seed_0"}
    failures = {
        name: files.read_json(tmp_path / "cells" / name / files.FAILURE) for name in outcome.failed
    }
    simulator = failures["simulator/bc/seed_0"]
    assert (simulator["type"], simulator["updates"]) == ("ImportError", 0)
    assert "No module named 'simulator_of_nowhere'" in simulator["message"]
    assert 'pip install "torchrl_gtp[sim]"' in simulator["message"]
    dataset = failures["dataset/bc/seed_0"]
    assert dataset["type"] == "FileNotFoundError"
    assert "mujoco/nowhere/medium-v0" in dataset["message"]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (
            ModuleNotFoundError("No module named 'h5py'", name="h5py"),
            r'No module named .h5py.\. Install h5py; .*pip install -e "\.\[sim,recipes\]"',
        ),
        (torch.cuda.OutOfMemoryError("Out of memory."), r"^Out of memory\. Run fewer cells on the"),
        (ZeroDivisionError("division by zero"), "^division by zero$"),
    ],
    ids=["module", "memory", "other"],
)
def test_failures_say_what_to_do(
    make_cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, hint: str
) -> None:
    def missing(config: object) -> None:
        raise error

    monkeypatch.setattr("recipes.study.cell.make_buffer", missing)
    cell = make_cell("bc")
    assert run_and_report(OmegaConf.to_container(cell.config), {}, tmp_path, [-1, -1]) == FAILED
    failure = files.read_json(tmp_path / files.FAILURE)
    assert failure["type"] == type(error).__name__
    assert re.search(hint, failure["message"])
    assert files.read_result(tmp_path) is None


def test_a_damaged_config_is_an_error_of_its_cell_alone(
    write_study, make_cell, tmp_path: Path
) -> None:
    folder = tmp_path / "cells"
    path = write_study(["bc", "gtp_bc"], seeds=[0, 1])
    names = [f"pointmaze_umaze/{m}/seed_{s}" for s in (0, 1) for m in ("bc", "gtp_bc")]
    cells = dict(zip(names, make_cells(read_study(path)), strict=True))
    for name in names[:3]:
        run_here(cells[name], folder / name)
    # Of a finished cell in the middle of a line, which YAML cannot read, ...
    finished, unfinished = (folder / name / files.CONFIG for name in names[:2])
    whole = finished.read_text()
    quoted = whole.index("_target_") + 3
    finished.write_text(whole[:quoted])
    # ... and of an unfinished one between two lines, which leaves another config.
    lines = unfinished.read_text().splitlines(keepends=True)
    unfinished.write_text("".join(lines[: len(lines) // 2]))
    (unfinished.parent / files.RESULT).unlink()

    outcome = run(str(path))
    assert sorted(outcome.finished) == sorted(names[2:])
    assert set(outcome.failed) == set(names[:2])
    for config in (finished, unfinished):
        failure = files.read_json(config.parent / files.FAILURE)
        assert failure["type"] == "DamagedFileError"
        assert f"{config} is damaged (" in failure["message"]
        assert f"Restore the file, or delete the folder {config.parent}" in failure["message"]
    # Restored, the finished cell is left alone; deleted, the other one starts anew.
    finished.write_text(whole)
    shutil.rmtree(unfinished.parent)
    outcome = run(str(path))
    assert sorted(outcome.finished) == sorted(names) and not outcome.failed
    assert starts(folder) == dict.fromkeys(names, 1)
    assert files.read_json(finished.parent / files.FAILURE) is None


class EndedProcess:
    """A worker that a signal from outside stopped, with its checkpoint written."""

    exitcode = STOPPED

    def join(self) -> None:
        pass


def test_a_worker_stopped_from_outside_goes_on(make_cell, tmp_path: Path) -> None:
    cell = make_cell("bc")
    runner = Runner([cell], tmp_path, workers=1)
    job = _Job(cell, EndedProcess(), None, 0)
    runner.jobs.append(job)
    runner._end(job)
    assert runner.waiting == [cell] and not runner.outcome.failed


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, time, filelock\n"
        "from pathlib import Path\n"
        "lock = filelock.FileLock(Path(sys.argv[1]) / '.lock')\n"
        "lock.acquire(blocking=False)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_taken(tmp_path)
    with owned(tmp_path) as held:
        assert not held
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_taken(tmp_path)
    with owned(tmp_path) as held:
        assert held
        assert owner(tmp_path).startswith(f"process {os.getpid()} on ")
        assert is_taken(tmp_path)


def test_a_lock_that_may_not_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> None:
        raise PermissionError("Permission denied")

    (tmp_path / files.LOCK).touch()
    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    assert not is_taken(tmp_path)


def test_a_cell_that_is_tried_again_is_running(make_cell, tmp_path: Path) -> None:
    """Its failure stays until it ends."""
    cell = make_cell("bc")
    folder = tmp_path / cell.name
    study = {"name": "tiny", "cells": [cell.name]}
    OmegaConf.save(OmegaConf.create(study), tmp_path / files.STUDY)
    states = []
    with owned(folder):
        states.append(read_results(tmp_path).open[cell.name])
        files.write_json(folder / files.FAILURE, {"type": "OSError", "message": "no disk"})
        states.append(read_results(tmp_path).open[cell.name])
        files.write_curves(folder / files.CURVES, [{"step": 5, "loss": 1.0}])
        states.append(read_results(tmp_path).open[cell.name])
    states.append(read_results(tmp_path).open[cell.name])
    at = "running, at update 5 or later"
    assert states == ["running", "running", at, "failed: OSError: no disk"]


def test_workers_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert slots(3) == [{"OMP_NUM_THREADS": "1"}] * 3
    assert len(slots(None)) == len(os.sched_getaffinity(0))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(None)] == ["0", "1"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(None)] == ["4", "7"]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        slots(0)


def test_cells_on_the_cpu_take_no_gpu(
    make_cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    cores = len(os.sched_getaffinity(0))
    on_cpu, elsewhere = make_cell("bc"), make_cell("bc", "overrides.device=null")
    assert Runner([on_cpu], tmp_path).slots == [{"OMP_NUM_THREADS": "1"}] * cores
    assert Runner([on_cpu], tmp_path, workers=3).slots == [{"OMP_NUM_THREADS": "1"}] * 3
    for cells in ([elsewhere], [on_cpu, elsewhere]):
        assert [slot["CUDA_VISIBLE_DEVICES"] for slot in Runner(cells, tmp_path).slots] == ["0"]
