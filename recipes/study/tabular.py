"""The numbers of a study as CSV: a line a seed, and a line a seed and number of steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from recipes.study.results import StudyResults

_CELL = ("task", "method", "seed")
_COLUMNS = (*_CELL, "label", "suite", "dataset", "score_kind")
_BUDGET = ("updates", "num_candidates")
_PARTS = ("score", "return", "success_rate", "num_steps", "milliseconds_per_action")
_SINGLE = ("score", "return")
_COSTS = (
    "parameters",
    "updates_per_second",
    "train_seconds",
    "wall_seconds",
    "peak_memory_mib",
    "peak_gpu_memory_mib",
    "device",
    "finished",
)
_STEPS = ("score", "return", "success_rate", "milliseconds_per_action")


def scores_csv(study: StudyResults) -> str:
    """A line a finished seed."""
    headers = [
        *_COLUMNS,
        *_BUDGET,
        *(f"{part}_{name}" for part in ("last", "best") for name in _PARTS),
        *(f"single_{name}" for name in _SINGLE),
        *_COSTS,
        "restored_from",
    ]
    rows = []
    for cell in study.cells:
        result = cell.result
        row = [result[name] for name in (*_COLUMNS, *_BUDGET)]
        for part in ("last", "best"):
            row += [(result[part] or {}).get(name) for name in _PARTS]
        row += [(cell.part("single") or {}).get(name) for name in _SINGLE]
        rows.append([*row, *(result[name] for name in _COSTS), cell.restored_from])
    return _csv(headers, rows)


def steps_csv(study: StudyResults) -> str:
    """A line for each number of steps K that the last checkpoint of a seed was evaluated with."""
    rows = [
        [*(cell.result[name] for name in _CELL), steps, *(part.get(name) for name in _STEPS)]
        for cell in study.cells
        for steps, part in cell.result["sweep"].items()
    ]
    return _csv([*_CELL, "num_steps", *_STEPS], rows)


def _csv(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    return file.getvalue()
