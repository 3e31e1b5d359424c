"""Cells of the benchmark: one method on one data set with one seed, each in a file of its own."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tensordict
import torch
import torchrl
from torchrl import torchrl_logger

import torchrl_gtp
from benchmarks.few_step.evaluation import measure, measure_floor
from benchmarks.few_step.methods import ALL_METHODS
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.training import Training, train
from recipes.study.versions import commit, now

__all__ = ["Cell", "finished", "read_origin", "run_cell", "run_cells", "versions"]


@dataclass(frozen=True)
class Cell:
    """One cell: what is trained, how long, and what it is compared with.

    Attributes:
        method: a name of ``METHODS``.
        data: name of the data set.
        seed: seed of network and training.
        training: how it is trained.
        num_samples: samples that are compared with data, for each condition of a set in the plane.
    """

    method: str
    data: str
    seed: int
    training: Training = field(default_factory=Training)
    num_samples: int = 12_000

    def path(self, folder: Path) -> Path:
        """The file of the finished cell."""
        # Neither a Minari id nor the name of a variant is a name of a file everywhere.
        name = re.sub("[/:]", "_", f"{self.data}-{self.method}-{self.seed}.json")
        return folder / "cells" / name

    def weights(self, folder: Path) -> Path:
        """The file of the actor's weights; without them the cell still counts as finished."""
        return self.path(folder).with_suffix(".pt")


def finished(cell: Cell, folder: Path) -> bool:
    """Whether the cell has been run before.

    Raises:
        ValueError: if it was run with other settings: a table must not mix them.
    """
    path = cell.path(folder)
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    there = record["cell"], record.get("definition")
    asked = asdict(cell), _definition(cell)
    if there != asked:
        raise ValueError(
            f"{path} is of a run with other settings, {there}; asked for are {asked}. "
            "Choose another folder, or remove the file."
        )
    return True


def _definition(cell: Cell) -> str:
    """What the name of the method stands for now: its objective, noise levels and samplers."""
    return repr(ALL_METHODS[cell.method])


def versions() -> dict[str, str]:
    """The versions of the packages whose code makes a cell's figures."""
    packages = (torch, torchrl, tensordict, torchrl_gtp)
    return {package.__name__: package.__version__ for package in packages}


def read_origin(path: Path) -> dict[str, Any] | None:
    """Reads when and with what a cell was made: ``date``, ``commit`` and :func:`versions`.

    Returns:
        dict, optional: ``None`` for cells that were made before it was noted; the ``commit`` is
        ``None`` where the code lay in no git repository.
    """
    origin: dict[str, Any] | None = json.loads(path.read_text()).get("origin")
    return origin


def run_cell(cell: Cell, folder: Path) -> None:
    """Trains and measures a cell, and writes its file: whole, or not at all.

    Beside it lie the weights of the actor, for the pictures.
    """
    torch.set_num_threads(1)
    # Of the begin: the code may change while it runs.
    origin = {"date": now(), "commit": commit(), "versions": versions()}
    method, data = ALL_METHODS[cell.method], make_set(cell.data)
    torch.manual_seed(cell.seed)
    begin = time.process_time()
    actor, num_updates, evaluations = train(method, data, cell.training)
    record = {
        "cell": asdict(cell),
        "definition": _definition(cell),
        "origin": origin,
        "num_updates": num_updates,
        "network_evaluations": evaluations,
        "cpu_seconds": round(time.process_time() - begin, 1),
        "floor": _floor(cell.data, cell.num_samples),
        "rows": measure(actor, method, data, cell.num_samples, cell.seed),
    }
    path = cell.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The weights come first: an interrupted cell is not finished.
    _write_whole(cell.weights(folder), lambda to: torch.save(actor.state_dict(), to))
    _write_whole(path, lambda to: to.write_text(json.dumps(record, indent=1) + "\n"))


@functools.cache
def _floor(data: str, num_samples: int) -> dict[str, float]:
    """The floor of a data set, which all of its cells share: measured once in a process."""
    return measure_floor(make_set(data), num_samples)


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run_cells(cells: Sequence[Cell], folder: Path, num_jobs: int = 1) -> None:
    """Runs the cells that have not been run, in their order, in ``num_jobs`` processes.

    Interrupted, it goes on where it was when it is called again: a cell is the unit.
    """
    missing = [cell for cell in cells if not finished(cell, folder)]
    torchrl_logger.info(f"{len(cells) - len(missing)} of {len(cells)} cells are there already.")
    if num_jobs == 1:
        for cell in missing:
            run_cell(cell, folder)
            torchrl_logger.info(f"Finished {cell.path(folder).stem}.")
        return
    # Forked processes would inherit torch's threads in an unknown state.
    with ProcessPoolExecutor(num_jobs, get_context("spawn")) as pool:
        jobs = {pool.submit(run_cell, cell, folder): cell for cell in missing}
        for job in as_completed(jobs):
            job.result()
            torchrl_logger.info(f"Finished {jobs[job].path(folder).stem}.")
