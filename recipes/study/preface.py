"""What readers of a report must know before any table."""

from __future__ import annotations

from recipes.study.document import Block, Text
from recipes.study.results import CellResult, StudyResults
from recipes.study.versions import now

# What all cells of a task must share to be compared.
_BUDGET = {"updates": "updates", "episodes": "episodes of the last evaluation"}


def preface(study: StudyResults) -> list[Block]:
    """Paragraphs on what is finished, what is missing, and what the methods and data are."""
    count, total = len(study.cells), len(study.cells) + len(study.open)
    finished = max(cell.result["finished"] for cell in study.cells)
    blocks: list[Block] = [
        Text(
            f"{count} of {total} cells are finished, the last at {finished}; this report was made "
            f"at {now()}."
            + (
                ""
                if not study.open
                else " The others are listed at the end; nothing of them is in any table or figure."
            )
        ),
        Text(
            "The headline is the last checkpoint. The best one was chosen by its return in the "
            "evaluations during training, so it needs the environment; it is shown beside, "
            "evaluated on the same fresh episodes as the last."
        ),
    ]
    warnings = [*study.warnings, *_other_budgets(study)]
    blocks += [Text(f"Warning: {warning}") for warning in warnings]
    blocks += _restored(study)
    candidates = sorted(
        {
            f"{cell.result['label']} on {cell.result['task_name']}: one of "
            f"{cell.result['num_candidates']}"
            for cell in study.cells
            if cell.result["num_candidates"] > 1
        }
    )
    if candidates:
        blocks.append(Text("Actions chosen among several by Q: " + "; ".join(candidates) + "."))
    # Results of an earlier version have no note of their method.
    notes = dict.fromkeys((c.result["label"], c.result.get("method_note")) for c in study.cells)
    blocks += [Text(f"{label}: {note}") for label, note in notes if note is not None]
    return blocks + _task_notes(study)


def _other_budgets(study: StudyResults) -> list[str]:
    """Tasks whose cells were not trained or evaluated alike."""
    warnings = []
    for task in study.tasks:
        cells = [cell for cell in study.cells if cell.result["task"] == task]
        for field, title in _BUDGET.items():
            found = sorted({cell.result[field] for cell in cells})
            if len(found) > 1:
                warnings.append(
                    f"the cells of {cells[0].result['task_name']} do not compare: their {title} "
                    f"are {' and '.join(f'{value:,}' for value in found)}."
                )
    return warnings


def _restored(study: StudyResults) -> list[Block]:
    """Cells whose files were lost and made again of what had been published."""
    cells: dict[str, list[CellResult]] = {}
    for cell in study.cells:
        if cell.restored_from is not None:
            cells.setdefault(cell.restored_from, []).append(cell)
    blocks: list[Block] = []
    for source, of_source in cells.items():
        tasks = dict.fromkeys(cell.result["task"] for cell in of_source)
        names = [
            f"{sum(cell.result['task'] == task for cell in of_source)} of "
            f"{study.of_task(task, 'task_name')}"
            for task in tasks
        ]
        blocks.append(
            Text(
                f"{len(of_source)} cells ({', '.join(names)}) were restored from {source}; "
                "scores.csv marks them."
            )
        )
    return blocks


def _task_notes(study: StudyResults) -> list[Block]:
    """What readers must know of the data: a line a suite, or where its tasks differ a line each."""
    notes: dict[str, dict[str, str | None]] = {}
    for task in study.tasks:
        of_suite = notes.setdefault(study.of_task(task, "suite"), {})
        of_suite[study.of_task(task, "task_name")] = study.of_task(task, "note")
    lines: list[Block] = []
    for suite, of_suite in notes.items():
        shared = {suite: next(iter(of_suite.values()))}
        named = shared if len(set(of_suite.values())) == 1 else of_suite
        lines += [Text(f"{name}: {note}") for name, note in named.items() if note is not None]
    return lines
