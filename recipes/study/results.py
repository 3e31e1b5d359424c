"""What a study's folder holds: finished cells with their curves, and those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from omegaconf import OmegaConf

from recipes.study import files
from recipes.study.lock import is_taken

Part = Literal["last", "best", "single"]


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        folder: where it lies.
        result: what ``result.json`` holds.
        curves: what ``curves.csv`` holds.
        compiled: whether its last start was compiled; ``None`` where its config does not say.
    """

    folder: Path
    result: dict[str, Any]
    curves: list[dict[str, float]]
    compiled: bool | None = None

    @property
    def restored_from(self) -> str | None:
        """What a lost result was restored from; ``None`` for one that a run has written."""
        return self.result.get("restored_from")

    def part(self, name: Part = "last") -> dict[str, Any] | None:
        """What the evaluations on fresh episodes gave; ``None`` where there was none.

        Args:
            name: ``"last"`` or ``"best"`` checkpoint; ``"single"`` is the last one with one
                candidate action, where there are several; else the last one itself.
        """
        if name == "single" and self.result["num_candidates"] == 1:
            name = "last"
        found: dict[str, Any] | None = self.result[name]
        return found

    def score(self, part: Part = "last") -> float | None:
        """Mean score of a :meth:`part`; ``None`` where there is none."""
        found = self.part(part)
        return None if found is None else found["score"]

    def late(self, key: str) -> list[float]:
        """What was logged of a quantity in the last tenth of the updates.

        Args:
            key: column of the curves, as ``"train/qvalue"``.
        """
        start = 0.9 * self.result["updates"]
        return [row[key] for row in self.curves if row["step"] > start and key in row]


@dataclass(frozen=True)
class StudyResults:
    """All that the report is made of.

    Attributes:
        name: of the study.
        folder: of the study.
        cells: the finished cells, in the study's order.
        open: names of the others, with the state of each.
        warnings: what of the finished cells cannot be read.
    """

    name: str
    folder: Path
    cells: list[CellResult]
    open: dict[str, str]
    warnings: list[str]

    @property
    def tasks(self) -> list[str]:
        """Tasks with a finished cell."""
        return _unique(cell.result["task"] for cell in self.cells)

    @property
    def methods(self) -> list[str]:
        """Methods with a finished cell."""
        return _unique(cell.result["method"] for cell in self.cells)

    def of(self, task: str, method: str) -> list[CellResult]:
        """The finished seeds of a method on a task."""
        return [
            cell
            for cell in self.cells
            if (cell.result["task"], cell.result["method"]) == (task, method)
        ]

    def label(self, method: str) -> str:
        """Title of a method."""
        return next(c.result["label"] for c in self.cells if c.result["method"] == method)

    def of_task(self, task: str, field: str) -> Any:
        """A field of a task, which all of its cells share."""
        return next(c.result[field] for c in self.cells if c.result["task"] == task)

    def methods_of(self, task: str) -> list[str]:
        """Methods with a finished cell on a task."""
        return [method for method in self.methods if self.of(task, method)]

    def scores(self, task: str, method: str, part: Part = "last") -> list[float]:
        """Scores of the finished seeds, where they have one."""
        found = [cell.score(part) for cell in self.of(task, method)]
        return [score for score in found if score is not None]


def read_study(folder: Path) -> StudyResults:
    """Read a study's folder.

    Args:
        folder: the folder that ``run.py`` filled.

    Raises:
        FileNotFoundError: if it is no folder of a study.
    """
    if not (folder / files.STUDY).exists():
        raise FileNotFoundError(
            f"{folder} holds no {files.STUDY}: give the folder of a study, as "
            "outputs/study/smoke; recipes/study/run.py makes one."
        )
    study = OmegaConf.load(folder / files.STUDY)
    cells, open_cells, warnings = [], {}, []
    for name in study.cells:
        result = files.read_result(folder / name)
        failure = files.read_json(folder / name / files.FAILURE)
        damaged = failure is not None and failure["type"] == files.DamagedFileError.__name__
        if result is None or damaged:
            # Where the settings are unknown, a result says nothing.
            open_cells[name] = _state(folder / name)
        else:
            curves = []
            try:
                curves = files.read_curves(folder / name / files.CURVES)
            except files.DamagedFileError as error:
                warnings.append(f"{name} has no learning curve: {error}")
            compiled = result.get("compiled", files.read_compiled(folder / name))
            notes = OmegaConf.select(study, "notes", default={})
            result |= _present_notes(notes, result)
            cells.append(CellResult(folder / name, result, curves, compiled))
    return StudyResults(study.name, folder, cells, open_cells, warnings)


def _present_notes(notes: Any, result: dict[str, Any]) -> dict[str, Any]:
    """The notes of a result's method and task, which may have been mended since it was written."""
    of_methods, of_tasks = notes.get("methods", {}), notes.get("tasks", {})
    return {
        "method_note": of_methods.get(result["method"], result.get("method_note")),
        "note": of_tasks.get(result["task"], result.get("note")),
    }


def _state(folder: Path) -> str:
    # Until a cell that is tried again ends, its folder tells why it failed before.
    taken = is_taken(folder)
    failure = files.read_json(folder / files.FAILURE)
    if failure is not None and not taken:
        return f"failed: {failure['type']}: {failure['message']}"
    state = "running" if taken else "unfinished"
    try:
        curves = files.read_curves(folder / files.CURVES)
    except files.DamagedFileError as error:
        return f"{state}: {error}"
    if curves:
        return f"{state}, at update {max(row['step'] for row in curves)} or later"
    return state if taken or (folder / files.STARTS).exists() else "not started"


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation (n - 1 in the denominator); ``None`` for what does not exist.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.4142135623730951)
        >>> mean_and_deviation([1.0])
        (1.0, None)
    """
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def curve(
    cells: Sequence[CellResult], key: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean learning curve of several seeds.

    Args:
        cells: the seeds; those without curves are left out.
        key: column of the curves, as ``"eval/return"``.

    Returns:
        updates that all seeds have, and for each the mean, the standard deviation (0 for one seed)
        and the mean of the seconds of training until then.
    """
    rows = [{r["step"]: r for r in cell.curves if key in r} for cell in cells if cell.curves]
    steps = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    values = np.array([[row[step][key] for step in steps] for row in rows])
    seconds = np.array(
        [
            [step / row[step].get("time/updates_per_second", np.nan) for step in steps]
            for row in rows
        ]
    )
    if not steps:
        empty = np.zeros(0)
        return empty, empty, empty, empty
    deviation = values.std(0, ddof=1) if len(rows) > 1 else np.zeros(len(steps))
    return np.array(steps), values.mean(0), deviation, seconds.mean(0)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
