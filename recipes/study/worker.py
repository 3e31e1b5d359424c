"""A process that runs one cell, and what it tells the runner by its exit code."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from recipes.study import files
from recipes.study.cell import run_cell
from recipes.study.lock import owned
from recipes.study.training import Stopped
from recipes.study.versions import now

FINISHED, FAILED, STOPPED, TAKEN = 0, 1, 130, 75


def work(config: dict[str, Any], place: dict[str, Any], folder: str, progress: Any) -> None:
    """Run one cell in a process of its own; the exit code says how it ended.

    Args:
        config: the cell's config.
        place: ``task``, ``method`` and ``seed``.
        folder: the cell's folder.
        progress: shared array of two integers: updates at the start and by now.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # What libraries print goes to the cell's log, below Python's streams too.
    with (path / files.LOG).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # Ctrl-C is for the runner, which then tells its workers.
    os.setsid()
    _stop_with_parent()
    with owned(path) as held:
        if not held:
            raise SystemExit(TAKEN)
        code = FINISHED
        if files.read_result(path) is None:
            code = run_and_report(config, place, path, progress)
    raise SystemExit(code)


def run_and_report(config: dict[str, Any], place: dict[str, Any], path: Path, progress: Any) -> int:
    """Run one cell in this process; a failure is written into its folder.

    Args:
        config: the cell's config.
        place: ``task``, ``method`` and ``seed``.
        path: the cell's folder.
        progress: two integers, as in :func:`work`.

    Returns:
        the exit code.
    """
    print(f"--- {now()} process {os.getpid()}", flush=True)

    def on_update(step: int) -> None:
        if progress[0] < 0:
            progress[0] = step
        progress[1] = step

    try:
        run_cell(OmegaConf.create(config), place, path, on_update)
    except (Stopped, KeyboardInterrupt):
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        files.write_json(
            path / files.FAILURE,
            {
                "type": type(error).__name__,
                "message": str(error) + _hint(error),
                "traceback": traceback.format_exc(),
                "time": now(),
                "updates": max(progress[1], 0),
            },
        )
        return FAILED
    return FINISHED


def _hint(error: Exception) -> str:
    """How to mend what libraries report without saying it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return " Run fewer cells on the GPU by workers=..., or take a smaller batch."
    if isinstance(error, ModuleNotFoundError):
        return (
            f". Install {error.name}; simulators come with the extra sim of this project: "
            'pip install -e ".[sim,recipes]".'
        )
    return ""


def _stop_with_parent() -> None:
    """End this cell between two updates when the runner is gone, as SIGTERM does."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
