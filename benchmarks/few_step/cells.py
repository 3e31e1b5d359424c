"""Cells of the benchmark: one method on one data set with one seed, each in a file of its own."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
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
from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.evaluation import measure, measure_floor
from benchmarks.few_step.methods import ALL_METHODS
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.training import Trained, Training, train, train_side_by_side
from recipes.study.versions import commit, now

__all__ = [
    "Cell",
    "finished",
    "read_origin",
    "run_cell",
    "run_cells",
    "run_cells_side_by_side",
    "versions",
    "write_record",
]


_CPU = torch.device("cpu")
# PyTorch has 32 streams for a device.
_MOST_AT_ONCE = 24


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
    asked = _settings(cell), _definition(cell)
    if there != asked:
        raise ValueError(
            f"{path} is of a run with other settings, {there}; asked for are {asked}. "
            "Choose another folder, or remove the file."
        )
    return True


def _settings(cell: Cell) -> dict[str, Any]:
    """The cell as its file has it, where the rate of Muon is noted if it has one alone."""
    settings = asdict(cell)
    if cell.training.muon_lr is None:
        del settings["training"]["muon_lr"]
    return settings


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
        ``None`` where the code lay in no git repository. The ``device`` is there for a GPU alone,
        ``compiled`` where it is true alone.
    """
    origin: dict[str, Any] | None = json.loads(path.read_text()).get("origin")
    return origin


def run_cell(cell: Cell, folder: Path, compiled: bool = False) -> None:
    """Trains and measures a cell on a CPU, and writes its file: whole, or not at all.

    Beside it lie the weights of the actor, for the pictures.
    """
    torch.set_num_threads(1)
    origin = _origin({"compiled": True} if compiled else {})
    torch.manual_seed(cell.seed)
    begin = time.process_time()
    data = make_set(cell.data)
    trained = train(ALL_METHODS[cell.method], data, cell.training, compiled=compiled)
    seconds = round(time.process_time() - begin, 1)
    _finish(cell, data, folder, trained, {"origin": origin, "cpu_seconds": seconds})


def run_cells_side_by_side(cells: Sequence[Cell], folder: Path, device: torch.device) -> None:
    """Does what :func:`run_cell` does for cells of one method and training, on a GPU and at once.

    They are trained together, and then measured and written one by one.
    """
    torch.set_num_threads(1)
    origin = _origin({"device": torch.cuda.get_device_name(device)})
    sets = {name: make_set(name) for name in dict.fromkeys(cell.data for cell in cells)}
    # Streams, graph and generator are those of the current device.
    with torch.cuda.device(device):
        trained = train_side_by_side(
            ALL_METHODS[cells[0].method],
            [sets[cell.data] for cell in cells],
            [cell.seed for cell in cells],
            cells[0].training,
            device,
        )
        for cell, one in zip(cells, trained, strict=True):
            _finish(cell, sets[cell.data], folder, one, {"origin": origin, "cpu_seconds": None})


def _origin(how: Mapping[str, Any]) -> dict[str, Any]:
    # Of the begin: the code may change while it runs.
    return {"date": now(), "commit": commit(), "versions": versions(), **how}


def _finish(
    cell: Cell, data: DataSet, folder: Path, trained: Trained, about: Mapping[str, Any]
) -> None:
    actor, num_updates, evaluations = trained
    record = {
        "cell": _settings(cell),
        "definition": _definition(cell),
        **about,
        "num_updates": num_updates,
        "network_evaluations": evaluations,
        "floor": _floor(cell.data, cell.num_samples, actor.low.device),
        "rows": measure(actor, ALL_METHODS[cell.method], data, cell.num_samples, cell.seed),
    }
    path = cell.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.cpu() for key, value in actor.state_dict().items()}
    # The weights come first: an interrupted cell is not finished.
    _write_whole(cell.weights(folder), lambda to: torch.save(weights, to))
    write_record(record, path)


@functools.cache
def _floor(data: str, num_samples: int, device: torch.device) -> dict[str, float]:
    """The floor of a data set, which all of its cells share: measured once in a process."""
    return measure_floor(make_set(data), num_samples, device)


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Writes the file of a finished cell: whole, or not at all.

    Args:
        record: what the file has.
        path: the file.
    """
    _write_whole(path, lambda to: to.write_text(json.dumps(record, indent=1) + "\n"))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    num_jobs: int = 1,
    device: torch.device = _CPU,
    compiled: bool = False,
) -> None:
    """Runs the cells that have not been run, in ``num_jobs`` processes.

    Interrupted, it goes on where it was when it is called again, without the cells whose files
    are there. On a CPU they run in their order.

    Args:
        cells: the cells.
        folder: where their files are.
        num_jobs: the number of processes. Defaults to ``1``.
        device: a CPU, with a thread for each process; or a GPU, where cells of one method and
            training are trained together, up to 24 of them. Defaults to the CPU.
        compiled: whether losses are compiled, on a CPU. Defaults to ``False``.
    """
    missing = [cell for cell in cells if not finished(cell, folder)]
    torchrl_logger.info(f"{len(cells) - len(missing)} of {len(cells)} cells are there already.")
    jobs: list[tuple[Sequence[Cell], Callable[[], None]]]
    if device.type == "cpu":
        jobs = [([cell], functools.partial(run_cell, cell, folder, compiled)) for cell in missing]
    else:
        jobs = [
            (group, functools.partial(run_cells_side_by_side, group, folder, device))
            for group in _groups(missing)
        ]
    if num_jobs == 1:
        for group, job in jobs:
            job()
            _say_finished(group, folder)
        return
    # Forked processes would inherit torch's threads in an unknown state.
    with ProcessPoolExecutor(num_jobs, get_context("spawn")) as pool:
        futures = {pool.submit(job): group for group, job in jobs}
        for future in as_completed(futures):
            future.result()
            _say_finished(futures[future], folder)


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells by method and training, in parts that a GPU trains at once."""
    by_method: dict[tuple[str, Training], list[Cell]] = {}
    for cell in cells:
        by_method.setdefault((cell.method, cell.training), []).append(cell)
    return [
        group[start : start + _MOST_AT_ONCE]
        for group in by_method.values()
        for start in range(0, len(group), _MOST_AT_ONCE)
    ]


def _say_finished(cells: Sequence[Cell], folder: Path) -> None:
    for cell in cells:
        torchrl_logger.info(f"Finished {cell.path(folder).stem}.")
