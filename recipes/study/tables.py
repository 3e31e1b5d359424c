"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipes.common.tables import number
from recipes.study.document import Table
from recipes.study.measures import bootstrap_interval, interquartile_mean
from recipes.study.results import CellResult, StudyResults, mean_and_deviation

_COMPILED = {True: "yes", False: "no", None: "-"}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation; without the latter for one value, a dash for none.

    Example:
        >>> spread([1.0, 3.0]), spread([1.0]), spread([])
        ('2.0 ± 1.4', '1.0', '-')
    """
    mean, deviation = mean_and_deviation(values)
    text = number(mean, digits)
    return text if deviation is None else f"{text} ± {number(deviation, digits)}"


def task_table(study: StudyResults, task: str) -> Table:
    """All methods on one task: last checkpoint first, the best one beside it."""
    kind = study.of_task(task, "score_kind")
    behaviour = study.of_task(task, "behaviour")
    key = "normalized_score" if kind == "normalised score" else "return_mean"
    rows = [["behaviour data", "-", "-", number(behaviour[key]), "-", "-"]]
    rows[0] += [number(behaviour["return_mean"]), number(behaviour["success_rate"], 2)]
    for method in study.methods_of(task):
        cells = study.of(task, method)
        last = [cell.result["last"] for cell in cells]
        success = [part["success_rate"] for part in last if part["success_rate"] is not None]
        steps = last[0]["num_steps"]
        rows.append(
            [
                study.label(method),
                str(len(cells)),
                "-" if steps is None else str(steps),
                spread(study.scores(task, method)),
                spread(study.scores(task, method, "best")),
                spread([cell.result["single"]["score"] for cell in cells if cell.result["single"]]),
                spread([part["return"] for part in last]),
                spread(success, 2),
            ]
        )
    headers = ["method", "seeds", "K", f"{kind}, last", f"{kind}, best"]
    headers += ["last, one candidate", "return, last", "success"]
    return Table(headers, rows)


def overview_table(study: StudyResults, tasks: Sequence[str]) -> Table:
    """Last scores of all methods, a row a task."""
    methods = study.methods
    rows = [
        [
            study.of_task(task, "task_name"),
            *(
                f"{spread(study.scores(task, method))} ({len(study.of(task, method))})"
                if study.of(task, method)
                else "-"
                for method in methods
            ),
        ]
        for task in tasks
    ]
    return Table(["task", *map(study.label, methods)], rows)


def comparable(study: StudyResults, tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Methods with a finished seed on each of the tasks, and those without."""
    whole = [m for m in study.methods if all(study.of(task, m) for task in tasks)]
    some = [m for m in study.methods if any(study.of(task, m) for task in tasks)]
    return whole, [method for method in some if method not in whole]


def aggregate_table(study: StudyResults, tasks: Sequence[str], methods: Sequence[str]) -> Table:
    """Interquartile means over tasks and seeds with their intervals, last checkpoint and best.

    Where a method chooses among candidates, the last column has all methods without that choice.
    """
    cells = [cell for task in tasks for method in methods for cell in study.of(task, method)]
    choosing = any(cell.result["single"] for cell in cells)
    rows = []
    for method in methods:
        row = [study.label(method), str(sum(len(study.of(task, method)) for task in tasks))]
        for part in ("last", "best"):
            scores = [study.scores(task, method, part) for task in tasks]
            if sum(map(len, scores)) < int(row[1]):
                row += ["-", "-"]
                continue
            interval = bootstrap_interval(scores)
            row.append(number(interquartile_mean([s for task in scores for s in task])))
            row.append("-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}")
        if choosing:
            single = [s for task in tasks for s in study.scores(task, method, "single")]
            whole = len(single) == int(row[1])
            row.append(number(interquartile_mean(single)) if whole else "-")
        rows.append(row)
    headers = ["method", "runs", "IQM, last", "95 % interval", "IQM, best", "95 % interval"]
    return Table([*headers, "IQM, one candidate"] if choosing else headers, rows)


def ablation_table(study: StudyResults, base: str) -> Table | None:
    """Variants of a method and what each changes on each task; ``None`` without variants."""
    variants = [
        method
        for method in study.methods
        if any(c.result["ablation_of"] == base for c in study.cells if c.result["method"] == method)
    ]
    tasks = [task for task in study.tasks if study.of(task, base)]
    if not variants or not tasks:
        return None
    rows = []
    for method in [base, *variants]:
        row = [study.label(method)]
        for task in tasks:
            mean, _ = mean_and_deviation(study.scores(task, method))
            reference, _ = mean_and_deviation(study.scores(task, base))
            row.append(spread(study.scores(task, method)))
            known = mean is not None and reference is not None and method != base
            row.append(f"{mean - reference:+.1f}" if known else "-")  # type: ignore[operator]
        rows.append(row)
    titles = [[study.of_task(task, "task_name"), "difference"] for task in tasks]
    return Table(["method", *(title for pair in titles for title in pair)], rows)


def steps_table(study: StudyResults, task: str) -> Table | None:
    """Last scores with other numbers of steps K, a column each; ``None`` without any sweep.

    In brackets the share of successes, where the task has one.
    """
    cells = [cell for cell in study.cells if cell.result["task"] == task]
    numbers = sorted({int(steps) for cell in cells for steps in cell.result["sweep"]})
    rows = []
    for method in study.methods_of(task):
        swept = [cell for cell in study.of(task, method) if cell.result["sweep"]]
        if swept:
            row = [study.label(method), str(len(swept))]
            rows.append([*row, *(_at_steps(swept, steps) for steps in numbers)])
    if not rows:
        return None
    return Table(["method", "seeds", *(f"K = {steps}" for steps in numbers)], rows)


def _at_steps(cells: Sequence[CellResult], steps: int) -> str:
    parts = [cell.result["sweep"].get(str(steps)) for cell in cells]
    found = [part for part in parts if part is not None]
    success = [part["success_rate"] for part in found if part["success_rate"] is not None]
    text = spread([part["score"] for part in found])
    return f"{text} ({mean_and_deviation(success)[0]:.2f})" if success else text


# Columns of the curves, with their titles and digits.
_DIAGNOSTICS = {
    "train/qvalue": ("Q of the data", 1),
    "train/policy_qvalue": ("Q of the policy", 1),
    "train/weight_mean": ("mean weight", 1),
    "train/weight_max": ("largest weight", 0),
    "train/clipped_share": ("share clipped", 3),
    "train/positive_share": ("share of positive advantages", 2),
}


def diagnostics_table(study: StudyResults) -> Table | None:
    """What critics and weights were at the end of training; ``None`` if no curve tells."""
    rows = []
    for task in study.tasks:
        for method in study.methods_of(task):
            cells = study.of(task, method)
            values = {
                key: [float(np.mean(logged)) for cell in cells if (logged := cell.late(key))]
                for key in _DIAGNOSTICS
            }
            if any(values.values()):
                row = [study.of_task(task, "task_name"), study.label(method)]
                digits = [digits for _, digits in _DIAGNOSTICS.values()]
                row += [spread(v, d) for v, d in zip(values.values(), digits, strict=True)]
                rows.append(row)
    headers = ["task", "method", *(title for title, _ in _DIAGNOSTICS.values())]
    return Table(headers, rows) if rows else None


def cost_table(study: StudyResults) -> Table:
    """What training and acting cost, a row a task and method."""
    rows = []
    for task in study.tasks:
        for method in study.methods_of(task):
            cells = study.of(task, method)
            gpu = _values(cells, "peak_gpu_memory_mib")
            rows.append(
                [
                    study.of_task(task, "task_name"),
                    study.label(method),
                    ", ".join(sorted({cell.result["device"] for cell in cells})),
                    ", ".join(sorted({_COMPILED[cell.compiled] for cell in cells})),
                    f"{cells[0].result['parameters']:,}",
                    f"{cells[0].result['updates']:,}",
                    spread(_values(cells, "updates_per_second")),
                    spread([value / 60 for value in _values(cells, "train_seconds")]),
                    spread([value / 60 for value in _values(cells, "wall_seconds")]),
                    spread([c.result["last"]["milliseconds_per_action"] for c in cells], 2),
                    spread(_values(cells, "peak_memory_mib"), 0),
                    spread(gpu, 0),
                ]
            )
    headers = ["task", "method", "device", "compiled", "parameters", "updates", "updates/s"]
    headers += ["training, min", "with evaluation, min", "ms/action"]
    return Table([*headers, "memory, MiB", "GPU memory, MiB"], rows)


def _values(cells: Sequence[CellResult], key: str) -> list[float]:
    return [cell.result[key] for cell in cells if cell.result[key] is not None]
