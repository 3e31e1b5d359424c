from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from recipes.study import files, results
from recipes.study.grid import Cell, make_cells, read_study
from recipes.study.run import run
from recipes.study.runner import Runner

LAST = {"returns": [1.0], "scores": [1.0], "score": 1.0}


@pytest.fixture
def finish(write_study, tmp_path: Path) -> Callable[..., list[str]]:
    """Leaves the cells of a study as if they had run, and says their names."""

    def finish_all(methods: Sequence[str], *overrides: str) -> list[str]:
        cells = make_cells(read_study(write_study(methods), overrides))
        for cell in cells:
            finish_cell(cell, tmp_path / "cells" / cell.name)
        return [cell.name for cell in cells]

    return finish_all


def finish_cell(cell: Cell, folder: Path) -> None:
    files.write_config(folder, cell.config)
    place = {"task": cell.task, "method": cell.method, "seed": cell.seed}
    files.write_json(folder / files.RESULT, {**place, "updates": cell.updates, "last": LAST})


def listed(folder: Path) -> list[str]:
    return OmegaConf.to_container(OmegaConf.load(folder / files.STUDY))["cells"]


def test_a_narrower_grid_keeps_the_cells_of_former_runs(
    write_study, finish, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "cells"
    bc, gtp, iql = finish(["bc", "gtp", "iql"])
    path = write_study(["bc", "gtp", "iql", "cql"])
    run(str(path), ["only=[*/bc/*]"])
    assert listed(folder)[:3] == [bc, gtp, iql] and len(listed(folder)) == 4

    capsys.readouterr()
    run(str(path), ["grids.0.methods=[gtp]"])
    # This grid first; nothing is left of a cell that was never started.
    assert listed(folder) == [gtp, bc, iql]
    assert f"not in this grid: 2 cells, {bc}, {iql}\n" in capsys.readouterr().out
    assert [cell.folder for cell in results.read_study(folder).cells] == [
        folder / name for name in (gtp, bc, iql)
    ]
    run(str(path), ["grids.0.methods=[bc,iql,gtp]"])
    assert listed(folder) == [bc, iql, gtp]
    assert "not in this grid" not in capsys.readouterr().out


def test_notes_may_be_mended_after_the_cells_have_run(write_study, finish, tmp_path: Path) -> None:
    """The list of cells has them as they are now; of a cell that left the grid those of then."""
    folder = tmp_path / "cells"
    finish(["bc", "gtp"])
    for name in ("bc", "gtp"):
        path = folder / f"pointmaze_umaze/{name}/seed_0" / files.RESULT
        files.write_json(path, {**files.read_json(path), "method_note": "Of then.", "note": None})
    run(str(write_study(["bc", "gtp"])))
    run(str(write_study(["gtp"])))
    notes = {c.result["method"]: c.result["method_note"] for c in results.read_study(folder).cells}
    assert notes["gtp"].startswith("The library's default") and notes["bc"] == "Of then."
    tasks = {cell.result["note"] for cell in results.read_study(folder).cells}
    assert len(tasks) == 1 and "D4RL" in tasks.pop()


@pytest.mark.parametrize(
    "damage", ["cells: [a", "- 1\n", "cells: 3\n", "\0", "${", b"\xff\xfe\x00"]
)
def test_a_damaged_list_of_cells_is_written_anew(
    write_study, finish, tmp_path: Path, capsys, damage: str | bytes
) -> None:
    folder = tmp_path / "cells"
    bc, gtp = finish(["bc", "gtp"])
    path = folder / files.STUDY
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    run(str(write_study(["gtp"])))
    assert listed(folder) == [gtp, bc]
    assert f"{path} is damaged (" in capsys.readouterr().out


def test_cells_with_other_budgets_do_not_mix(write_study, finish, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    bc, gtp = finish(["bc", "gtp"])
    path = str(write_study(["bc", "gtp"]))
    run(path)
    before = (folder / files.STUDY).read_text()
    steps = "overrides.optim.steps=20"
    # Of a cell that is in the grid, but not in this run; and of one that is not in the grid.
    for overrides in (["grids.0.seeds=[0,1]", "only=[*/seed_1]"], ["grids.0.methods=[iql]"]):
        with pytest.raises(ValueError, match=r"optim\.steps: 12 and 20\n.*another folder") as error:
            run(path, [steps, *overrides])
        assert str(folder / bc) in str(error.value)
    assert (folder / files.STUDY).read_text() == before
    # A damaged config of a cell that is not in this run is none of its business.
    (folder / bc / files.CONFIG).write_text("${")
    assert run(path, ["only=[*/gtp/*]"]).finished == [gtp]


def test_only_cells_with_a_folder_are_resolved(
    write_study, finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bc,) = finish(["bc"])
    resolved, config = [], Cell.config.func

    def noted(cell: Cell) -> DictConfig:
        resolved.append(cell.name)
        return config(cell)

    monkeypatch.setattr(Cell, "config", property(noted))
    cells = make_cells(read_study(write_study(["bc", "gtp", "iql"], seeds=range(50))))
    Runner(cells, tmp_path / "cells", workers=1)
    assert resolved == [bc]
