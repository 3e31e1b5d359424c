"""The runner: cells in parallel processes, in order, until all are finished or failed."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from recipes.common.interrupt import Interrupt
from recipes.study import files
from recipes.study.grid import Cell
from recipes.study.lock import is_taken, owner
from recipes.study.progress import Progress
from recipes.study.versions import now
from recipes.study.worker import FAILED, FINISHED, STOPPED, TAKEN, work

POLL_SECONDS = 0.5


@dataclass
class Outcome:
    """What a run of the runner left.

    Attributes:
        finished: names of the cells with a result.
        failed: names of the cells that failed, with the message of each.
        interrupted: number of the signal that ended the run, if one did.
    """

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: int | None = None


@dataclass
class _Job:
    cell: Cell
    process: Any
    progress: Any
    slot: int


def slots(workers: int | None, *, on_cpu: bool = False) -> list[dict[str, str]]:
    """The environment variables of each worker: one a GPU, or without GPU one a core.

    Args:
        workers: number of workers; more than there are GPUs share them in turn. ``None`` for one on
            each.
        on_cpu: whether no cell uses a GPU, also where there is one.

    Raises:
        ValueError: if ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [] if on_cpu else [str(index) for index in range(torch.cuda.device_count())]
    if gpus and visible:
        gpus = visible.split(",")[: len(gpus)]
    count = workers or len(gpus) or _cores()
    # The networks are small: threads only pay on an idle machine, and here every core has a cell.
    threads = {"OMP_NUM_THREADS": "1"}
    return [
        {**threads, **({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})}
        for slot in range(count)
    ]


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runner:
    """Runs cells, each in a process of its own.

    Args:
        cells: the cells, most urgent first.
        folder: the study's folder.
        workers: number of processes; see :func:`slots`.
        plan: all cells of the study, of which ``cells`` may be a part; they stand in one report, so
            that the settings of all that have a folder must be the plan's. Defaults to ``cells``.

    Raises:
        ValueError: if the folder of a cell was made with other settings.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        folder: Path,
        workers: int | None = None,
        *,
        plan: Sequence[Cell] | None = None,
    ) -> None:
        self.cells, self.folder = list(cells), folder
        # In the order of the first cell that has each.
        added: dict[str, None] = {}
        self.damaged: dict[str, files.DamagedFileError] = {}
        for cell in self.cells if plan is None else plan:
            # To resolve a config takes long, as there are thousands of cells.
            if not (folder / cell.name / files.CONFIG).exists():
                continue
            try:
                added |= dict.fromkeys(files.check_config(folder / cell.name, cell.config))
            except files.DamagedFileError as error:
                self.damaged[cell.name] = error
        if added:
            print(
                f"Cells older than these fields count as made with the defaults: {', '.join(added)}"
            )
        on_cpu = all(cell.settings["device"] == "cpu" for cell in self.cells)
        self.slots = slots(workers, on_cpu=on_cpu)
        self.context = multiprocessing.get_context("spawn")
        self.started = now()
        self.outcome = Outcome()
        self.waiting: list[Cell] = []
        self.jobs: list[_Job] = []

    def run(self) -> Outcome:
        """Run all cells that have no result; a cell that failed before is tried again."""
        with Progress(self.cells) as self.progress, Interrupt() as interrupt:
            for cell in self.cells:
                if cell.name in self.damaged:
                    # Even a result would say nothing where its settings are unknown.
                    error = self.damaged[cell.name]
                    self._write_failure(cell, type(error).__name__, str(error))
                    self._fail(cell)
                elif files.read_result(self.folder / cell.name) is None:
                    self.waiting.append(cell)
                else:
                    self._finish(cell, was_here=True)
            while self.waiting or self.jobs:
                if interrupt:
                    self._stop()
                    self.outcome.interrupted = interrupt.signal_number
                    return self.outcome
                if len(self.jobs) < len(self.slots):
                    self._start_cells()
                if self.jobs:
                    connection.wait([job.process.sentinel for job in self.jobs], POLL_SECONDS)
                else:
                    time.sleep(POLL_SECONDS)
                for job in list(self.jobs):
                    self.progress.update(job.cell.name, *job.progress)
                    if not job.process.is_alive():
                        self._end(job)
        return self.outcome

    def _start_cells(self) -> None:
        """Fill the free slots with the next cells that nobody else works on."""
        taken = []
        for cell in list(self.waiting):
            free = set(range(len(self.slots))) - {job.slot for job in self.jobs}
            if not free:
                break
            path = self.folder / cell.name
            if files.read_result(path) is not None:
                self.waiting.remove(cell)
                self._finish(cell, was_here=True)
            elif is_taken(path):
                taken.append(cell)
            elif self._failed_elsewhere(cell):
                self.waiting.remove(cell)
                self._fail(cell)
            else:
                self.waiting.remove(cell)
                self._start(cell, min(free))
        if taken and not self.jobs:
            places = ", ".join(f"{c.name} ({owner(self.folder / c.name)})" for c in taken)
            self.progress.say_once(f"Waiting for cells that others run: {places}")

    def _start(self, cell: Cell, slot: int) -> None:
        progress = self.context.Array("q", [-1, -1], lock=False)
        place = {"task": cell.task, "method": cell.method, "seed": cell.seed}
        config = OmegaConf.to_container(cell.config)
        arguments = (config, place, str(self.folder / cell.name), progress)
        process = self.context.Process(target=work, args=arguments, name=cell.name)
        with _environment(self.slots[slot]):
            process.start()
        self.jobs.append(_Job(cell, process, progress, slot))

    def _end(self, job: _Job) -> None:
        self.jobs.remove(job)
        job.process.join()
        code, cell = job.process.exitcode, job.cell
        if code == FINISHED:
            self._finish(cell)
        elif code == FAILED:
            self._fail(cell)
        elif code in (TAKEN, STOPPED):
            # Stopped from outside it has a checkpoint to go on from; where this runner was told to
            # stop as well, it does so before it starts another cell.
            self.waiting.insert(0, cell)
        else:
            # Killed, by the kernel for want of memory for instance: it wrote nothing itself.
            message = (
                f"The process ended with code {code} without a message"
                + (", killed by a signal; was there enough memory?" if code < 0 else ".")
                + f" Its log is {self.folder / cell.name / files.LOG}."
            )
            self._write_failure(cell, "ProcessEnded", message)
            self._fail(cell)

    def _write_failure(self, cell: Cell, kind: str, message: str) -> None:
        """Write down for a cell what no process of its own could."""
        failure = {"type": kind, "message": message, "time": now(), "traceback": ""}
        files.write_json(self.folder / cell.name / files.FAILURE, failure)

    def _finish(self, cell: Cell, *, was_here: bool = False) -> None:
        self.outcome.finished.append(cell.name)
        # Of a config that was damaged and is restored.
        (self.folder / cell.name / files.FAILURE).unlink(missing_ok=True)
        result = files.read_result(self.folder / cell.name) or {}
        self.progress.finish(cell.name, result, was_here=was_here)

    def _fail(self, cell: Cell) -> None:
        failure = files.read_json(self.folder / cell.name / files.FAILURE) or {}
        message = f"{failure.get('type', 'Error')}: {failure.get('message', 'no message')}"
        self.outcome.failed[cell.name] = message
        self.progress.fail(cell.name, message)

    def _failed_elsewhere(self, cell: Cell) -> bool:
        """Whether another runner saw the cell fail since this one started."""
        failure = files.read_json(self.folder / cell.name / files.FAILURE)
        return bool(failure) and failure["time"] > self.started

    def _stop(self) -> None:
        """Let every worker end between two updates, with a checkpoint."""
        self.progress.say("Stopping: the cells write their checkpoints. Run again to go on.")
        for job in self.jobs:
            job.process.terminate()
        for job in self.jobs:
            job.process.join()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that a process started meanwhile inherits."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
