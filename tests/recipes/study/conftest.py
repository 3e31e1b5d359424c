from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from recipes.study.cell import run_cell
from recipes.study.grid import Cell, make_cells, read_study

TINY: dict[str, Any] = {
    "num_threads": 1,
    "device": "cpu",
    "optim": {"steps": 12},
    "replay_buffer": {"batch_size": 16, "download": False},
    "actor": {"hidden_sizes": [16]},
    "critic": {"hidden_sizes": [16]},
    "env": {
        "num_envs": 2,
        "eval_interval": 6,
        "eval_episodes": 2,
        "final_episodes": 3,
        "max_steps": 20,
    },
    "final": {"num_steps": [1, 2]},
    "logger": {"interval": 2},
    "checkpoint": {"interval": 4},
}

WriteStudy = Callable[..., Path]


@pytest.fixture
def write_study(tmp_path: Path) -> WriteStudy:
    """Writes a study of seconds: one grid, any further fields."""

    def write(methods: Sequence[str], *, tasks=("pointmaze_umaze",), seeds=(0,), **fields) -> Path:
        study = {
            "name": "tiny",
            "folder": str(tmp_path / "cells"),
            "workers": 1,
            "overrides": TINY,
            "grids": [{"tasks": list(tasks), "methods": list(methods), "seeds": list(seeds)}],
            **fields,
        }
        path = tmp_path / "tiny.yaml"
        OmegaConf.save(OmegaConf.create(study), path)
        return path

    return write


@pytest.fixture
def make_cell(write_study: WriteStudy) -> Callable[..., Cell]:
    """Makes the one cell of a study with one method."""

    def make(method: str, *overrides: str) -> Cell:
        (cell,) = make_cells(read_study(write_study([method]), overrides))
        return cell

    return make


def run_here(cell: Cell, folder: Path, **options: Any) -> dict[str, Any]:
    """Run a cell in this process."""
    place = {"task": cell.task, "method": cell.method, "seed": cell.seed}
    return run_cell(cell.config, place, folder, **options)


def starts(folder: Path) -> dict[str, int]:
    """How often each cell was started."""
    files_ = sorted(folder.glob("*/*/*/starts.json"))
    return {f"{f.parent.relative_to(folder)}": len(json.loads(f.read_text())) for f in files_}
