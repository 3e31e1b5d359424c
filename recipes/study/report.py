"""Make the report of a study from its folder alone.

python recipes/study/report.py outputs/study/smoke

It writes ``report/report.html``, one page without any other file, ``report/report.md`` with its
pictures beside it, ``report/scores.csv``, a line a seed, and ``report/steps.csv``, a line a seed
and number of steps. Unfinished studies have one as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipes.study import figures, tables
from recipes.study.document import Block, Heading, Picture, Table, Text, to_html, to_markdown
from recipes.study.files import write_text
from recipes.study.measures import RESAMPLES
from recipes.study.preface import preface
from recipes.study.results import StudyResults, read_study
from recipes.study.tabular import scores_csv, steps_csv

# Draws from fewer seeds repeat the same few scores (docs/study.md).
_ENOUGH_SEEDS = 5
_DIAGNOSTICS_TEXT = (
    "Means over what was logged in the last tenth of the updates, in the rewards that the method's "
    "critic sees: on some tasks these differ between methods."
)
_COST_TEXT = (
    "Wall-clock times, as the machine was: with other cells or other work beside them cells take "
    "longer, so times of cells that did not run together do not compare."
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
    write_text(target / "steps.csv", steps_csv(study))
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
        steps = tables.steps_table(study, task)
        if steps is not None:
            blocks.append(Text("The last checkpoint with other numbers of steps:"))
            blocks.append(steps)

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
    diagnostics = tables.diagnostics_table(study)
    if diagnostics is not None:
        blocks += [Heading("Critics and weights"), Text(_DIAGNOSTICS_TEXT), diagnostics]
    blocks += [Heading("Cost"), Text(_COST_TEXT), tables.cost_table(study)]
    return [*blocks, *_versions(study), *_open_cells(study)]


def _score_text(kind: str) -> str:
    if kind == "normalised score":
        return "scores are normalised, 0 a random policy and 100 the reference policy"
    return "scores are returns: there are no reference scores"


def _own_tasks(study: StudyResults) -> list[str]:
    """Tasks with normalised scores; of several views of one dataset the first."""
    own: dict[str, str] = {}
    for task in study.tasks:
        if study.of_task(task, "score_kind") == "normalised score":
            own.setdefault(study.of_task(task, "dataset"), task)
    return list(own.values())


def _aggregates(study: StudyResults, command: str) -> list[Block]:
    """Tables and figures over tasks, of the methods that have all of these tasks."""
    scored = _own_tasks(study)
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
                + _caution(study, tasks)
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


def _caution(study: StudyResults, tasks: Sequence[str]) -> str:
    most = max(len(study.of(task, method)) for task in tasks for method in study.methods_of(task))
    # Of one seed there is no interval.
    if not 1 < most < _ENOUGH_SEEDS:
        return ""
    return f" With no more than {most} seeds a task it is too narrow: do not lean on it."


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Make the report of a study from its folder.")
    parser.add_argument("folder", type=Path, help="folder of a study, as outputs/study/smoke")
    options = parser.parse_args(arguments)
    path = write_report(options.folder)
    print(
        f"Report: {path}\nMarkdown: {path.with_suffix('.md')}\n"
        f"Scores: {path.parent / 'scores.csv'}, {path.parent / 'steps.csv'}"
    )


if __name__ == "__main__":
    main()
