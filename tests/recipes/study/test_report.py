from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from recipes.study import figures, files, tables
from recipes.study.document import Table, Text
from recipes.study.figures import score_against_steps
from recipes.study.preface import preface
from recipes.study.report import main, write_report
from recipes.study.results import curve, read_study
from recipes.study.tabular import scores_csv, steps_csv

TASKS = {
    "maze": "normalised score",
    "hopper": "normalised score",
    "ant": "normalised score",
    "walker": "return",
}


def result(task: str, method: str, seed: int, score: float, best: float | None) -> dict[str, Any]:
    def part(value: float, update: int, steps: int | None) -> dict[str, Any]:
        return {
            "update": update,
            "num_steps": steps,
            "returns": [value, value],
            "scores": [value, value],
            "success": [True, False],
            "return": 2 * value,
            "score": value,
            "success_rate": 0.5,
            "milliseconds_per_action": 1.5,
        }

    steps = None if method == "iql" else 5
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "label": method.upper(),
        "ablation_of": "gtp" if method == "gtp_ema" else None,
        "task_name": task.title(),
        "suite": "Gym" if task != "maze" else "Maze",
        "note": "-like data are not D4RL." if task == "hopper" else None,
        "dataset": f"like/{task}-v0",
        "score_kind": TASKS[task],
        "behaviour": {"normalized_score": 7.0, "return_mean": 14.0, "success_rate": None},
        "updates": 20,
        "episodes": 2,
        "num_candidates": 50 if method == "iql" else 1,
        "last": part(score, 20, steps),
        "single": part(score - 5, 20, steps) if method == "iql" else None,
        "best": None if best is None else part(best, 10, steps),
        "sweep": {} if steps is None else {str(k): part(score + k, 20, k) for k in (1, 5)},
        "parameters": 1234,
        "updates_per_second": 10.0,
        "train_seconds": 120.0,
        "wall_seconds": 180.0,
        "peak_memory_mib": 700.0,
        "peak_gpu_memory_mib": None,
        "device": "CPU",
        "finished": f"2026-11-2{seed}T10:00:00+00:00",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "commit": "abc", "pid": str(seed)},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of three tasks and three methods, with a failed and an unfinished cell."""
    scores = {
        ("maze", "gtp"): [(10.0, 12.0), (20.0, 22.0)],
        ("maze", "gtp_ema"): [(4.0, 4.0)],
        ("maze", "iql"): [(30.0, 31.0), (50.0, 51.0)],
        ("hopper", "gtp"): [(60.0, 70.0), (100.0, None)],
        ("hopper", "iql"): [(80.0, 90.0)],
        ("walker", "gtp"): [(1000.0, 1000.0)],
    }
    names = []
    for (task, method), values in scores.items():
        for seed, (score, best) in enumerate(values):
            name = f"{task}/{method}/seed_{seed}"
            names.append(name)
            files.write_json(
                tmp_path / name / files.RESULT, result(task, method, seed, score, best)
            )
            key = "eval/normalized_score"
            rows = [
                {"step": 5, "train/loss_flow": 0.5},
                *(
                    {
                        "step": s,
                        "eval/return": 2.0 * s,
                        key: score + s,
                        "time/updates_per_second": 5.0,
                    }
                    for s in (10, 20)
                ),
            ]
            files.write_curves(tmp_path / name / files.CURVES, rows)
            if method == "gtp":
                config = OmegaConf.create({"compile": {"compile": task == "maze" and seed == 1}})
                files.write_config(tmp_path / name, config)
    failure = {"type": "FileNotFoundError", "message": "no <data>\nget it", "time": "now"}
    files.write_json(tmp_path / "walker/iql/seed_0" / files.FAILURE, failure)
    files.write_curves(tmp_path / "hopper/iql/seed_1" / files.CURVES, [{"step": 8}])
    names += ["walker/iql/seed_0", "hopper/iql/seed_1", "hopper/gtp_ema/seed_0"]
    study = OmegaConf.create({"name": "hand-made", "cells": names})
    OmegaConf.save(study, tmp_path / files.STUDY)
    return tmp_path


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def markdown_of(folder: Path) -> str:
    """The report of a study as Markdown."""
    write_report(folder)
    return (folder / "report/report.md").read_text()


def table_after(markdown: str, title: str) -> dict[str, list[str]]:
    """The first table below a title: its rows by their first cell."""
    return first_table(markdown.split(f"# {title}\n", 1)[1])


def first_table(markdown: str) -> dict[str, list[str]]:
    """The first table of a text: its rows by their first cell."""
    lines = markdown.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return {row[0]: row[1:] for row in rows}


def test_numbers_of_the_report(folder: Path) -> None:
    write_report(folder)
    markdown = (folder / "report/report.md").read_text()

    by_task = markdown.split("## Scores by task")[1]
    overview = table_after(by_task, "Gym")
    assert overview["Hopper"] == ["80.0 ± 28.3 (2)", "-", "80.0 (1)"]
    assert overview["Walker"] == ["1,000.0 (1)", "-", "-"]

    hopper = table_after(by_task, "Hopper")
    assert hopper["method"][2:4] == ["normalised score, last", "normalised score, best"]
    assert hopper["behaviour data"] == ["-", "-", "7.0", "-", "-", "14.0", "-"]
    assert hopper["GTP"] == ["2", "5", "80.0 ± 28.3", "70.0", "-", "160.0 ± 56.6", "0.50 ± 0.00"]
    assert hopper["IQL"] == ["1", "-", "80.0", "90.0", "75.0", "160.0", "0.50"]
    walker = table_after(by_task, "Walker")
    assert walker["method"][2] == "return, last"
    assert walker["behaviour data"][2] == "14.0"

    # The middle half of 10, 20, 60, 100 and of 30, 50, 80
    # (nothing is cut from three scores); one seed on a task gives no interval.
    everything = table_after(markdown, "Over the tasks of all suites")
    assert everything["GTP"][:2] == ["4", "40.0"]
    low, high = map(float, everything["GTP"][2].split(" to "))
    assert 10 <= low < 40 < high <= 100
    # The best checkpoint of one of its runs is missing.
    assert everything["GTP"][3:] == ["-", "-", "40.0"]
    assert everything["IQL"] == ["3", "53.3", "-", "57.3", "-", "48.3"]
    assert everything["method"][-1] == "IQM, one candidate"
    assert "Left out, because they have no finished cell on some of them: GTP_EMA." in markdown
    # Suites of one task are not summed up beside all of them.
    assert "Over the tasks of Maze" not in markdown

    # The scores of result() are those of the last checkpoint plus K.
    below = by_task.split("### Hopper\n")[1].split("other numbers of steps")[1]
    steps = first_table(below)
    assert steps["method"] == ["seeds", "K = 1", "K = 5"]
    assert steps["GTP"] == ["2", "81.0 ± 28.3 (0.50)", "85.0 ± 28.3 (0.50)"]

    ablation = table_after(markdown, "Ablation of GTP")
    assert ablation["GTP"][:2] == ["15.0 ± 7.1", "-"]
    assert ablation["GTP_EMA"] == ["4.0", "-11.0", "-", "-", "-", "-"]

    cost = markdown.split("## Cost")[1]
    first = cells(next(line for line in cost.splitlines() if line.startswith("| Maze")))
    assert first[1:] == [
        "GTP",
        "CPU",
        "no, yes",
        "1,234",
        "20",
        "10.0 ± 0.0",
        "2.0 ± 0.0",
        "3.0 ± 0.0",
        "1.50 ± 0.00",
        "700 ± 0",
        "-",
    ]
    lines = [cells(line) for line in cost.split("## Versions")[0].splitlines() if "CPU" in line]
    compiled = {(line[0], line[1]): line[3] for line in lines}
    assert compiled["Hopper", "GTP"] == "no"
    assert compiled["Maze", "IQL"] == "-"  # there is no config
    assert table_after(markdown, "Versions")["torch"] == ["2.13.0"]
    unfinished = table_after(markdown, "Not finished")
    assert unfinished["walker/iql/seed_0"] == ["failed: FileNotFoundError: no <data> get it"]
    assert unfinished["hopper/iql/seed_1"] == ["unfinished, at update 8 or later"]
    assert unfinished["hopper/gtp_ema/seed_0"] == ["not started"]

    assert "9 of 12 cells are finished, the last at 2026-11-21T10:00:00+00:00" in markdown
    assert "IQL on Maze: one of 50" in markdown
    # A note of one task alone names it, one of a whole suite is said once.
    assert "\n\nHopper: -like data are not D4RL.\n" in markdown


def test_the_only_suite_is_summed_up_even_with_one_task(folder: Path) -> None:
    study = OmegaConf.load(folder / files.STUDY)
    study.cells = [name for name in study.cells if name.startswith("maze/")]
    OmegaConf.save(study, folder / files.STUDY)
    write_report(folder)
    maze = table_after((folder / "report/report.md").read_text(), "Over the tasks of Maze")
    assert [maze[name][1] for name in ("GTP", "GTP_EMA", "IQL")] == ["15.0", "4.0", "40.0"]


def add_cells(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write finished cells into a study's folder and its list."""
    study = OmegaConf.load(folder / files.STUDY)
    for content in results:
        name = f"{content['task']}/{content['method']}/seed_{content['seed']}"
        files.write_json(folder / name / files.RESULT, content)
        study.cells = [*study.cells, *([] if name in study.cells else [name])]
    OmegaConf.save(study, folder / files.STUDY)


def test_tasks_that_all_methods_have_are_summed_up_too(folder: Path) -> None:
    """One costly task with some methods and one seed takes no method out of the report."""
    assert "Over the tasks of all methods" not in markdown_of(folder)
    costly = result("ant", "gtp", 0, 1.0, None)
    others = [result("hopper", "gtp_ema", seed, 8.0 + 4 * seed, None) for seed in (0, 1)]
    others += [result("maze", "gtp_ema", 1, 6.0, None), result("hopper", "iql", 1, 90.0, None)]
    add_cells(folder, [costly, *others])
    markdown = markdown_of(folder)
    assert "Left out, because they have no finished cell on some of them: GTP_EMA, IQL." in markdown
    shared = table_after(markdown, "Over the tasks of all methods")
    assert "Tasks: Maze, Hopper." in markdown.split("# Over the tasks of all methods\n")[1]
    assert {name: row[:2] for name, row in shared.items() if name in ("GTP", "GTP_EMA", "IQL")} == {
        "GTP": ["4", "40.0"],
        "GTP_EMA": ["4", "7.0"],
        "IQL": ["4", "65.0"],
    }
    assert all(" to " in shared[name][2] for name in ("GTP", "GTP_EMA", "IQL"))
    assert (folder / "report/figures/aggregate_all_methods.png").exists()


def test_no_column_of_one_candidate_where_no_method_chooses(folder: Path) -> None:
    study = OmegaConf.load(folder / files.STUDY)
    study.cells = [name for name in study.cells if "iql" not in name]
    OmegaConf.save(study, folder / files.STUDY)
    markdown = markdown_of(folder)
    assert "IQM, best" in markdown and "IQM, one candidate" not in markdown


def test_every_figure_has_its_command_and_is_a_picture(folder: Path) -> None:
    write_report(folder)
    markdown = (folder / "report/report.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", markdown)
    assert {Path(name).stem for name in pictures} == {
        "aggregate_all_suites",
        "profile_all_suites",
        "learning_curves",
        "training_time",
        "steps",
        "action_time",
    }
    for name in pictures:
        assert min(Image.open(folder / "report" / name).size) > 100
    assert markdown.count(f"`python recipes/study/report.py {folder}`") == len(pictures)


def test_the_page_stands_alone(folder: Path, capsys) -> None:
    main([str(folder)])
    page = (folder / "report/report.html").read_text()
    assert str(folder / "report/report.html") in capsys.readouterr().out
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 6
    assert not re.search(r"https?://|href=|<script|<link", page)
    assert page.count("<table>") == page.count("</table>")
    assert "no &lt;data&gt; get it" in page


def test_scores_of_every_seed(folder: Path) -> None:
    write_report(folder)
    assert (folder / "report/steps.csv").read_text() == steps_csv(read_study(folder))
    with (folder / "report/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    second = next(r for r in rows if (r["task"], r["method"], r["seed"]) == ("hopper", "gtp", "1"))
    assert (second["last_score"], second["best_score"]) == ("100.0", "")
    assert (second["last_num_steps"], second["updates_per_second"]) == ("5", "10.0")
    # Without choice among candidates; of one candidate that is the last checkpoint itself.
    assert (second["single_score"], second["single_return"]) == ("100.0", "200.0")
    iql = next(r for r in rows if (r["task"], r["method"]) == ("hopper", "iql"))
    assert (iql["num_candidates"], iql["last_score"]) == ("50", "80.0")
    assert (iql["single_score"], iql["single_return"]) == ("75.0", "150.0")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-4],
        lambda text: text.replace("0.5", "half"),
        lambda text: text.replace("step", "update"),
        lambda text: text + "1,2,3,4,5,6,7,8\n",
    ],
    ids=["cut", "no number", "no steps", "long row"],
)
def test_damaged_curves_are_left_out_with_a_warning(folder: Path, damage) -> None:
    path = folder / "maze/gtp/seed_1" / files.CURVES
    path.write_text(damage(path.read_text()))
    study = read_study(folder)
    (warning,) = study.warnings
    assert warning.startswith(f"maze/gtp/seed_1 has no learning curve: {path} is damaged (")
    texts = [block.text for block in preface(study) if isinstance(block, Text)]
    assert f"Warning: {warning}" in texts
    # The scores stay, and so do the curves of the other seed.
    assert study.scores("maze", "gtp") == [10.0, 20.0]
    steps, mean, deviation, _ = curve(study.of("maze", "gtp"), "eval/normalized_score")
    assert (steps.tolist(), mean.tolist()) == ([10, 20], [20.0, 30.0])
    assert not deviation.any()
    # Of an unfinished cell its state says so.
    path = folder / "hopper/iql/seed_1" / files.CURVES
    path.write_text("step\nmany\n")
    state = read_study(folder).open["hopper/iql/seed_1"]
    assert state.startswith(f"unfinished: {path} is damaged (")


def test_a_report_with_damaged_curves(folder: Path) -> None:
    for path in folder.glob("maze/*/*/curves.csv"):
        path.write_bytes(b"\xff\xfe")
    markdown = markdown_of(folder)
    assert markdown.count("Warning: maze/") == 5
    scores = table_after(markdown.split("## Scores by task")[1], "Maze")
    assert scores["Maze"][0] == "15.0 ± 7.1 (2)"


def test_notes_of_methods_and_suites_are_in_the_preface(folder: Path) -> None:
    noted = {**result("maze", "gtp", 0, 10.0, 12.0), "method_note": "The defaults."}
    walker = {**result("walker", "gtp", 0, 1.0, None), "note": "-like data are not D4RL."}
    add_cells(folder, [noted, walker])
    texts = [block.text for block in preface(read_study(folder)) if isinstance(block, Text)]
    assert texts[-3].startswith("Actions chosen among several by Q: ")
    assert texts[-2:] == ["GTP: The defaults.", "Gym: -like data are not D4RL."]


def test_seeds_without_a_sweep_are_left_out_of_the_figures_over_k(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "maze/gtp/seed_0" / files.RESULT
    files.write_json(path, {**files.read_json(path), "sweep": {}})
    drawn: dict[str, list[float]] = {}
    titles: set[str] = set()

    def recorded(self: Axes, x: Any, y: Any, spread: Any, label: str, **look: Any) -> None:
        drawn[label] = [*x, *y, *spread]

    monkeypatch.setattr(Axes, "errorbar", recorded)
    monkeypatch.setattr(Axes, "set_title", lambda self, title: titles.add(title))
    # One panel, so that a label is drawn once.
    study = read_study(folder)
    elsewhere = [cell for cell in study.cells if cell.result["task"] == "hopper"]
    in_the_maze = [cell for cell in study.cells if cell.result["task"] == "maze"]
    study = dataclasses.replace(study, cells=in_the_maze)
    score_against_steps(study)
    # The other seed's scores of 20 + K at K = 1 and 5; a policy without steps is not drawn.
    assert drawn == {"GTP": [1, 5, 21, 25, 0, 0], "GTP_EMA": [1, 5, 5, 9, 0, 0]}
    score_against_steps(study, against_time=True)
    assert drawn["IQL"][1] == 40
    # A task without any sweep has no panel over K.
    for cell in study.cells:
        cell.result["sweep"] = {}
    study = dataclasses.replace(read_study(folder), cells=[*study.cells, *elsewhere])
    titles.clear()
    score_against_steps(study)
    assert titles == {"Hopper"}


def test_legends_with_many_long_labels_lie_inside_the_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read_study(folder)
    cell = next(c for c in study.cells if c.result["method"] == "gtp")
    many = [
        dataclasses.replace(
            cell,
            result={**cell.result, "method": f"m{i}", "label": f"GTP, a variant with a name {i}"},
        )
        for i in range(18)
    ]
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    score_against_steps(dataclasses.replace(study, cells=many))
    (figure,) = drawn
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width
    # The panel keeps most of its height.
    assert figure.axes[0].get_window_extent().height > 2.2 * figure.dpi


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="study.yaml"):
        write_report(tmp_path)
    study = {"name": "empty", "cells": ["maze/gtp/seed_0"]}
    OmegaConf.save(OmegaConf.create(study), tmp_path / files.STUDY)
    with pytest.raises(ValueError, match="maze/gtp/seed_0: not started"):
        write_report(tmp_path)


def test_no_picture_of_an_earlier_report_is_left(folder: Path) -> None:
    write_report(folder)
    pictures = folder / "report/figures"
    drawn = {path.name for path in pictures.iterdir()}
    (pictures / "aggregate_of_another_time.png").write_bytes(b"")
    write_report(folder)
    assert {path.name for path in pictures.iterdir()} == drawn


def test_scores_of_every_number_of_steps(folder: Path) -> None:
    rows = list(csv.DictReader(steps_csv(read_study(folder)).splitlines()))
    # Two for each seed of a method with steps: K = 1 and 5.
    assert len(rows) == 12 and {row["method"] for row in rows} == {"gtp", "gtp_ema"}
    row = next(r for r in rows if (r["task"], r["seed"], r["num_steps"]) == ("hopper", "1", "5"))
    assert (row["score"], row["return"], row["success_rate"]) == ("105.0", "210.0", "0.5")


def rows_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {row[0]: list(row[1:]) for row in [table.headers, *table.rows]}


def test_a_table_over_k_where_only_some_numbers_or_seeds_were_swept(folder: Path) -> None:
    first, second = (folder / f"maze/gtp/seed_{seed}" / files.RESULT for seed in (0, 1))
    swept = files.read_json(first)
    part = {**swept["last"], "score": 7.0, "success_rate": None}
    files.write_json(first, {**swept, "sweep": {"10": part, "2": part}})
    files.write_json(second, {**files.read_json(second), "sweep": {}})
    steps = rows_of(tables.steps_table(read_study(folder), "maze"))
    assert steps["method"] == ["seeds", "K = 1", "K = 2", "K = 5", "K = 10"]
    assert steps["GTP"] == ["1", "-", "7.0", "-", "7.0"]
    assert steps["GTP_EMA"] == ["1", "5.0 (0.50)", "-", "9.0 (0.50)", "-"]
    assert "IQL" not in steps


def test_critics_and_weights_of_the_last_tenth(folder: Path) -> None:
    assert tables.diagnostics_table(read_study(folder)) is None
    for seed, value in enumerate((4.0, 6.0)):
        rows = [{"step": step, "train/qvalue": value * step} for step in (18, 19, 20)]
        rows[0]["train/weight_max"] = 100.0
        files.write_curves(folder / f"maze/gtp/seed_{seed}" / files.CURVES, rows)
    table = rows_of(tables.diagnostics_table(read_study(folder)))
    # Of 20 updates 19 and 20 are the last tenth.
    assert table["Maze"] == ["GTP", "97.5 ± 27.6", "-", "-", "-", "-", "-"]


def test_two_views_of_one_dataset_are_not_averaged(folder: Path) -> None:
    view = {**result("ant", "gtp", 0, 40.0, None), "dataset": "like/hopper-v0"}
    add_cells(folder, [view, {**view, "method": "iql", "label": "IQL"}])
    markdown = markdown_of(folder)
    everything = table_after(markdown, "Over the tasks of all suites")
    assert everything["GTP"][:2] == ["4", "40.0"] and everything["IQL"][0] == "3"
    assert "Tasks: Maze, Hopper." in markdown


def test_intervals_of_few_seeds_come_with_a_caution(folder: Path) -> None:
    caution = "seeds a task it is too narrow"
    assert f"With no more than 2 {caution}" in markdown_of(folder)
    add_cells(folder, [result("maze", "iql", seed, 40.0, None) for seed in range(2, 5)])
    assert caution not in markdown_of(folder)


def texts_of_preface(folder: Path) -> list[str]:
    return [block.text for block in preface(read_study(folder)) if isinstance(block, Text)]


def test_cells_of_other_budgets_are_named(folder: Path) -> None:
    assert not any("Warning" in text for text in texts_of_preface(folder))
    add_cells(folder, [{**result("maze", "iql", 0, 40.0, None), "updates": 2000, "episodes": 5}])
    assert {text for text in texts_of_preface(folder) if text.startswith("Warning")} == {
        "Warning: the cells of Maze do not compare: their updates are 20 and 2,000.",
        "Warning: the cells of Maze do not compare: their episodes of the last evaluation are 2 "
        "and 5.",
    }


def test_restored_cells_are_named(folder: Path) -> None:
    source = "a table of May: means only"
    restored = [("maze", "gtp", 0), ("maze", "iql", 1), ("hopper", "iql", 0)]
    for task, method, seed in restored:
        path = folder / f"{task}/{method}/seed_{seed}" / files.RESULT
        files.write_json(path, {**files.read_json(path), "restored_from": source})
    assert (
        "3 cells (2 of Maze, 1 of Hopper) were restored from a table of May: means only; "
        "scores.csv marks them."
    ) in texts_of_preface(folder)
    rows = csv.DictReader(scores_csv(read_study(folder)).splitlines())
    marked = [row for row in rows if row["restored_from"] == source]
    assert [(r["task"], r["method"], int(r["seed"])) for r in marked] == restored


def test_what_really_ran_compiled(folder: Path) -> None:
    """By the result; else by the config, whose group compile TorchRL's losses leave aside."""
    path = folder / "maze/iql/seed_0"
    learner = {"learner": {"_target_": files.EAGER_LEARNER}}
    config = {"compile": {"compile": True}, "method": learner}
    files.write_config(path, OmegaConf.create(config))
    study = read_study(folder)
    by_name = {cell.folder: cell.compiled for cell in study.cells}
    assert by_name[path] is False and by_name[folder / "maze/gtp/seed_1"] is True
    files.write_json(
        path / files.RESULT, {**files.read_json(path / files.RESULT), "compiled": True}
    )
    assert {cell.folder: cell.compiled for cell in read_study(folder).cells}[path] is True


def test_notes_of_the_list_of_cells_are_newer_than_those_of_results(folder: Path) -> None:
    study = OmegaConf.load(folder / files.STUDY)
    study.notes = {"methods": {"gtp": "Mended since.", "iql": None}, "tasks": {"hopper": "New."}}
    OmegaConf.save(study, folder / files.STUDY)
    texts = texts_of_preface(folder)
    assert "GTP: Mended since." in texts and "Hopper: New." in texts
    assert not any("D4RL" in text for text in texts)
