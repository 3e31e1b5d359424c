"""The shipped studies, run for seconds: ``smoke`` as it is, ``gpu`` in its form."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from recipes.study.grid import make_cells, read_study, study_file
from recipes.study.report import write_report
from recipes.study.run import run
from tests.recipes.study.conftest import run_here

# One seed, where the tests run.
HERE = ("overrides.device=cpu", "overrides.num_threads=1", "overrides.replay_buffer.download=false")


def smoke() -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(study_file("smoke")))


def assert_all_finish(name: str, overrides: Sequence[str], folder: Path) -> None:
    """Every method of the smoke study finishes in a study, and stands in its report."""
    overrides = [*overrides, *HERE, f"folder='{folder}'"]
    cells = make_cells(read_study(study_file(name), overrides))
    methods = smoke()["grids"][0]["methods"]
    assert sorted(cell.method for cell in cells) == sorted(methods) and len(methods) == 13
    for cell in cells:
        # In this process: to start others takes longer than the cells.
        run_here(cell, folder / cell.name)
    outcome = run(name, overrides)
    assert (len(outcome.finished), outcome.failed) == (13, {})
    write_report(folder)
    with (folder / "report/scores.csv").open() as scores:
        assert [row["method"] for row in csv.DictReader(scores)] == [c.method for c in cells]


def test_the_smoke_study(tmp_path: Path) -> None:
    assert_all_finish("smoke", ["grids.0.seeds=[0]"], tmp_path)


@pytest.mark.slow
def test_the_methods_of_the_gpu_study(tmp_path: Path) -> None:
    study, overrides = read_study(study_file("gpu")), []
    for number, grid in enumerate(study.grids):
        tasks = [task for task in grid.tasks if task == "pointmaze_umaze"]
        overrides += [f"grids.{number}.tasks={tasks}", f"grids.{number}.seeds=[0]"]
        overrides.append(f"grids.{number}.overrides.optim.steps=30")
    overrides += [
        f"overrides.{group}.{key}={value}".replace(" ", "")
        for group, fields in smoke()["overrides"].items()
        for key, value in fields.items()
    ]
    assert_all_finish("gpu", overrides, tmp_path)
