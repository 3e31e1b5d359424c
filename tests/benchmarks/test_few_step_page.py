"""The tables of the pages are those of the kept figures."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.few_step.cells import Cell, finished
from benchmarks.few_step.kept import read_rows
from benchmarks.few_step.page import (
    main,
    methods_tables,
    quality_tables,
    shapes_tables,
    targets_tables,
)
from benchmarks.few_step.page_aim import aim_tables
from benchmarks.few_step.page_muon import muon_tables
from benchmarks.few_step.page_steps import steps_tables
from benchmarks.few_step.report import read_rows as read_cells
from benchmarks.few_step.report import write_csv
from benchmarks.few_step.training import Training
from benchmarks.few_step.ways import verdict

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = DOCS / "results" / "few_step"


@pytest.mark.parametrize(
    ("page", "make", "figures"),
    [
        ("few_step_quality.md", quality_tables, "three_methods.csv"),
        ("few_step_quality.md", methods_tables, "all_methods.csv"),
        ("few_step_quality.md", targets_tables, "targets.csv"),
        ("few_step_quality.md", muon_tables, "muon.csv"),
        ("few_step_quality.md", aim_tables, "aim.csv"),
        ("few_step_quality.md", shapes_tables, "shapes.csv"),
        ("number_of_steps.md", steps_tables, "steps.csv"),
    ],
)
def test_a_page_has_the_tables_of_its_figures(page, make, figures):
    text = (DOCS / page).read_text()
    for title, table in make(read_rows(FIGURES / figures)).items():
        assert table in text, f"{title}: python -m benchmarks.few_step.page"


@pytest.mark.parametrize(
    ("figures", "folder", "training"),
    [
        ("three_methods.csv", "", Training(num_updates=4_000)),
        ("all_methods.csv", "", Training(num_updates=4_000)),
        ("shapes.csv", "", Training(num_updates=4_000)),
        ("targets.csv", "targets", Training()),
        ("muon.csv", "muon", Training(lr=1e-3, muon_lr=0.02)),
        ("aim.csv", "aim", Training(lr=1e-3, muon_lr=0.02)),
        ("two_methods_h200.csv", "h200", Training(num_updates=4_000)),
    ],
)
def test_figures_are_those_of_the_cells(tmp_path, figures, folder, training):
    rows = read_rows(FIGURES / figures)
    keys = dict.fromkeys((row["method"], row["data"], row["seed"]) for row in rows)
    cells = []
    for method, data, seed in keys:
        if method == "data":
            continue
        cell = Cell(method, data, int(seed), training)
        settings = json.loads(cell.path(FIGURES / folder).read_text())["cell"]
        cells.append(dataclasses.replace(cell, num_samples=settings["num_samples"]))
        # It raises if the cell is there with other settings.
        assert finished(cells[-1], FIGURES / folder)
    write_csv(read_cells(cells, FIGURES / folder), tmp_path / "figures.csv")
    with (tmp_path / "figures.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert sorted(map(str, found)) == sorted(map(str, rows))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Both have a deviation of 1, of a sample: the root of the summed squares is 1.41.
        ([0.0, 1.0, 2.0], [1.4, 2.4, 3.4], "level"),
        ([0.0, 1.0, 2.0], [1.5, 2.5, 3.5], "ahead"),
        ([1.5, 2.5, 3.5], [0.0, 1.0, 2.0], "behind"),
    ],
)
def test_verdicts(first, second, expected):
    assert verdict(first, second) == expected


def test_one_seed_gives_no_verdict():
    with pytest.raises(ValueError, match="needs at least two seeds, got 1 and 2"):
        verdict([1.0], [1.0, 2.0])


def test_figures_that_are_missing_are_named():
    rows = [row for row in read_rows(FIGURES / "three_methods.csv") if row["method"] != "gtp"]
    with pytest.raises(ValueError, match=r"no energy_distance of \('ring', 'gtp', 'jumps', '1'\)"):
        quality_tables(rows)


def test_the_command_prints_the_tables(capsys):
    main(["steps", str(FIGURES / "steps.csv")])
    assert capsys.readouterr().out.count("### ") == 4
