"""Make the report of a study from its folder alone.

python recipes/study/report.py outputs/study/smoke

It writes ``report/report.html``, one page without any other file, ``report/report.md`` with its
pictures beside it, and ``report/scores.csv``, a line a seed. Unfinished studies have one as well.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from recipes.study import figures, tables
from recipes.study.document import Block, Heading, Picture, Table, Text, to_html, to_markdown
from recipes.study.files import write_text
from recipes.study.measures import RESAMPLES
from recipes.study.results import StudyResults, read_study
from recipes.study.versions import now

_COLUMNS = ("task", "method", "seed", "label", "suite", "dataset", "score_kind")
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


def write_report(folder: Path) -> Path:
    """Write the report of a study.

    Args:
        folder: the study's folder.

    Returns:
        the HTML file.

    Raises:
        FileNotFoundError: if it is no folder of a study.
        ValueError: if no cell is finished.
    """
    study = read_study(folder)
    if not study.cells:
        states = "\n  ".join(f"{name}: {state}" for name, state in study.open.items())
        raise ValueError(f"No cell of {folder} is finished:\n  {states}")
    blocks = make_blocks(study)
    target = folder / "report"
    write_text(target / "report.html", to_html(f"Study {study.name}", blocks))
    write_text(target / "report.md", to_markdown(blocks, Path("figures")))
    write_text(target / "scores.csv", scores_csv(study))
    _write_pictures(target / "figures", [block for block in blocks if isinstance(block, Picture)])
    return target / "report.html"


def _write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    # A picture of an earlier report, of fewer cells, would pass for one of this.
    for stale in set(folder.glob("*.png")) - {folder / f"{p.name}.png" for p in pictures}:
        stale.unlink()


def make_blocks(study: StudyResults) -> list[Block]:
    """The content of the report."""
    command = f"python recipes/study/report.py {study.folder}"
    blocks: list[Block] = [Heading(f"Study {study.name}", 1), *preface(study)]
    blocks += _aggregates(study, command)

    blocks.append(Heading("Scores by task"))
    blocks.append(Text("Mean ± standard deviation over seeds (number of seeds), last checkpoint."))
    for suite in dict.fromkeys(study.of_task(task, "suite") for task in study.tasks):
        tasks = [task for task in study.tasks if study.of_task(task, "suite") == suite]
        blocks += [Heading(suite, 3), tables.overview_table(study, tasks)]
    for task in study.tasks:
        first = study.of(task, study.methods_of(task)[0])[0].result
        blocks.append(Heading(first["task_name"], 3))
        note = "" if first["note"] is None else f" {first['note']}"
        blocks.append(
            Text(
                f"Dataset {first['dataset']}; {first['updates']:,} updates, {first['episodes']} "
                f"fresh episodes a seed; {_score_text(first['score_kind'])}.{note}"
            )
        )
        blocks.append(tables.task_table(study, task))

    for base in study.methods:
        ablation = tables.ablation_table(study, base)
        if ablation is not None:
            blocks.append(Heading(f"Ablation of {study.label(base)}"))
            blocks.append(Text("Last checkpoint; differences of means to the first row."))
            blocks.append(ablation)

    pictures = [
        (
            "Learning curves",
            "learning_curves",
            figures.learning_curves(study),
            "Evaluations during training: mean and standard deviation over seeds.",
        ),
        (
            "Score against training time",
            "training_time",
            figures.learning_curves(study, against_time=True),
            "The same against seconds of training, evaluation left out.",
        ),
        (
            "Score against K",
            "steps",
            figures.score_against_steps(study),
            "Last checkpoint with other numbers of steps: mean and deviation over the seeds that "
            "have such a sweep.",
        ),
        (
            "Score against inference time",
            "action_time",
            figures.score_against_steps(study, against_time=True),
            "The same against the median time of one action for one observation.",
        ),
    ]
    for title, name, png, caption in pictures:
        if png is not None:
            blocks += [Heading(title), Picture(name, png, caption, command)]
    blocks += [Heading("Cost"), tables.cost_table(study), *_versions(study), *_open_cells(study)]
    return blocks


def _score_text(kind: str) -> str:
    if kind == "normalised score":
        return "scores are normalised, 0 a random policy and 100 the reference policy"
    return "scores are returns: there are no reference scores"


def preface(study: StudyResults) -> list[Block]:
    """What readers must know before any table."""
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
    blocks += [Text(f"Warning: {warning}") for warning in study.warnings]
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


def _aggregates(study: StudyResults, command: str) -> list[Block]:
    """Tables and figures over tasks, of the methods that have all of these tasks."""
    scored = [t for t in study.tasks if study.of_task(t, "score_kind") == "normalised score"]
    suites = list(dict.fromkeys(study.of_task(task, "suite") for task in scored))
    groups = {suite: [t for t in scored if study.of_task(t, "suite") == suite] for suite in suites}
    if len(groups) > 1:
        # The tables by task say all about a suite of one task.
        several = {suite: tasks for suite, tasks in groups.items() if len(tasks) > 1}
        groups = {"all suites": scored, **several}
    # A method that was left out of one costly task would else be in no table over tasks.
    present = [set(study.methods_of(task)) for task in scored]
    shared = [t for t, has in zip(scored, present, strict=True) if has == set.union(*present)]
    if 1 < len(shared) < len(scored) and shared not in groups.values():
        groups["all methods"] = shared
    blocks: list[Block] = []
    for name, tasks in groups.items():
        methods, partial = tables.comparable(study, tasks)
        names = ", ".join(study.of_task(task, "task_name") for task in tasks)
        blocks += [Heading(f"Over the tasks of {name}"), Text(f"Tasks: {names}.")]
        if partial:
            missing = ", ".join(study.label(method) for method in partial)
            blocks.append(
                Text(f"Left out, because they have no finished cell on some of them: {missing}.")
            )
        if not methods:
            continue
        blocks.append(
            Text(
                "Interquartile mean of the normalised scores of all tasks and seeds; interval by "
                f"{RESAMPLES} draws of seeds within each task, none where a task has one seed."
            )
        )
        blocks.append(tables.aggregate_table(study, tasks, methods))
        slug = name.lower().replace(" ", "_")
        caption = f"Interquartile means of the last checkpoints, {name}."
        blocks.append(
            Picture(f"aggregate_{slug}", figures.aggregate(study, tasks, methods), caption, command)
        )
        caption = f"Performance profile of the last checkpoints, {name}."
        blocks.append(
            Picture(f"profile_{slug}", figures.profiles(study, tasks, methods), caption, command)
        )
    return blocks


def _versions(study: StudyResults) -> list[Block]:
    """Every set of versions that finished cells ran with."""
    sets: dict[tuple[tuple[str, str], ...], int] = {}
    for cell in study.cells:
        found = cell.result["versions"]
        key = tuple((name, found[name] or "-") for name in found if name != "pid")
        sets[key] = sets.get(key, 0) + 1
    names = [name for name, _ in next(iter(sets))]
    rows = [[name, *(dict(key).get(name, "-") for key in sets)] for name in names]
    return [
        Heading("Versions"),
        Table(["", *(f"{count} cells" for count in sets.values())], rows),
    ]


def _open_cells(study: StudyResults) -> list[Block]:
    if not study.open:
        return []
    rows = [[name, " ".join(state.split())] for name, state in study.open.items()]
    return [Heading("Not finished"), Table(["cell", "state"], rows)]


def scores_csv(study: StudyResults) -> str:
    """A line a finished seed."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *_COLUMNS,
            *_BUDGET,
            *(f"{part}_{name}" for part in ("last", "best") for name in _PARTS),
            *(f"single_{name}" for name in _SINGLE),
            *_COSTS,
        ]
    )
    for cell in study.cells:
        result = cell.result
        row = [result[name] for name in (*_COLUMNS, *_BUDGET)]
        for part in ("last", "best"):
            row += [(result[part] or {}).get(name) for name in _PARTS]
        row += [(cell.part("single") or {}).get(name) for name in _SINGLE]
        writer.writerow([*row, *(result[name] for name in _COSTS)])
    return file.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Make the report of a study from its folder.")
    parser.add_argument("folder", type=Path, help="folder of a study, as outputs/study/smoke")
    options = parser.parse_args(arguments)
    path = write_report(options.folder)
    print(
        f"Report: {path}\nMarkdown: {path.with_suffix('.md')}\nScores: {path.parent / 'scores.csv'}"
    )


if __name__ == "__main__":
    main()
