"""Run a study: every method on every task with every seed, in parallel processes.

Studies are YAML files in ``studies/``; any other file may be given by its path::

    python recipes/study/run.py smoke
    python recipes/study/run.py cpu workers=2 only='[*/gtp/*,*/iql/*]'
    python recipes/study/run.py my_study.yaml overrides.optim.steps=1000
    python recipes/study/report.py outputs/study/smoke

Run it again after an interruption: finished cells are left alone, others go on from their last
checkpoint, failed ones are tried again. Two runs of the same study at once share its cells.
The exit code is 1 if a cell failed, and 130 or 143 after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recipes.study import files
from recipes.study.grid import Cell, make_cells, read_study, selected, study_file
from recipes.study.runner import Outcome, Runner

# Names in a message of cells that may be many.
NAMED = 3


def run(study: str, overrides: Sequence[str] = ()) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        study: its name or the path of its file.
        overrides: of the form ``key=value``, of the fields of a study.

    Raises:
        FileNotFoundError: if there is no such study.
        ValueError: if the study cannot be read, or its folder holds cells with other settings or
            budgets.
    """
    path = study_file(study)
    plan = read_study(path, overrides)
    folder = Path(plan.folder or f"outputs/study/{plan.name}")
    cells = make_cells(plan, extra=path.parent)
    chosen = selected(cells, plan.only)
    runner = Runner(chosen, folder, plan.workers, plan=cells)
    write_listing(folder, plan.name, cells)
    print(
        f"Study {plan.name}: {len(chosen)} cells in {folder}, {len(runner.slots)} at a time.",
        flush=True,
    )
    outcome = runner.run()
    print(f"\nFinished: {len(outcome.finished)} of {len(chosen)} cells.")
    if outcome.failed:
        print(f"Failed: {len(outcome.failed)}. Run again to try them again.")
        for name, message in outcome.failed.items():
            print(f"  {name}: {message.splitlines()[0]}")
    print(f"Report: python recipes/study/report.py {folder}")
    return outcome


def write_listing(folder: Path, name: str, cells: Sequence[Cell]) -> None:
    """Write down the cells that the report is about, those of former runs among them.

    The whole grid is listed, so that the report knows what is still to come; after it, in their
    former order, cells that this grid lacks and that have something in their folder.

    Args:
        folder: the study's folder.
        name: title of the study.
        cells: the whole grid.

    Raises:
        ValueError: if such a cell is finished, with another number of updates than the grid has on
            its task: side by side their scores would mislead.
    """
    planned = {cell.name: cell for cell in cells}
    kept = [c for c in _listed(folder) if c not in planned and any((folder / c).glob("*"))]
    budgets: dict[str, set[int]] = {}
    for cell in cells:
        budgets.setdefault(cell.task, set()).add(cell.updates)
    for former in kept:
        result = files.read_result(folder / former)
        if result is None:
            continue
        here = budgets.get(result["task"], {result["updates"]})
        if result["updates"] not in here:
            raise ValueError(
                f"{folder / former} was made with another budget than this grid has on "
                f"{result['task']} (there and now):\n  optim.steps: {result['updates']} and "
                f"{', '.join(map(str, sorted(here)))}\nChoose another folder=... for this grid, or "
                "remove that one."
            )
    if kept:
        names = ", ".join(kept[:NAMED]) + (", ..." if len(kept) > NAMED else "")
        print(
            f"Kept in {folder / files.STUDY}, though not in this grid: {len(kept)} cells, {names}"
        )
    grid = {"name": name, "cells": [*planned, *kept], "notes": _notes(cells)}
    files.write_text(folder / files.STUDY, OmegaConf.to_yaml(OmegaConf.create(grid)))


def _notes(cells: Sequence[Cell]) -> dict[str, dict[str, str | None]]:
    """What readers must know of methods and tasks, as the files say now; results keep what was."""
    return {
        "methods": {cell.method: cell.settings["method"]["note"] for cell in cells},
        "tasks": {cell.task: cell.settings["study"]["note"] for cell in cells},
    }


def _listed(folder: Path) -> list[str]:
    """The cells that the study's folder lists; where the list is damaged, those that it holds."""
    path = folder / files.STUDY
    if not path.exists():
        return []
    try:
        listed: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not (isinstance(listed, dict) and isinstance(listed.get("cells"), list)):
            raise ValueError("it lists no cells")
        return [str(name) for name in listed["cells"]]
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        print(
            f"{path} is damaged ({' '.join(str(error).split())}); it is written anew, with the "
            "cells whose folders are there."
        )
        return sorted(str(f.parent.relative_to(folder)) for f in folder.glob("*/*/*/config.yaml"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description="Run a study; finished cells of an earlier run are left alone."
    )
    parser.add_argument("study", help="name of a file in recipes/study/studies, or a path")
    parser.add_argument("overrides", nargs="*", help="fields of the study, as workers=2")
    options = parser.parse_args(arguments)
    outcome = run(options.study, options.overrides)
    if outcome.interrupted is not None:
        sys.exit(128 + outcome.interrupted)
    sys.exit(1 if outcome.failed else 0)


if __name__ == "__main__":
    main()
