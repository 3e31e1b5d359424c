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

from omegaconf import OmegaConf

from recipes.study import files
from recipes.study.grid import make_cells, read_study, selected, study_file
from recipes.study.runner import Outcome, Runner


def run(study: str, overrides: Sequence[str] = ()) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        study: its name or the path of its file.
        overrides: of the form ``key=value``, of the fields of a study.

    Raises:
        FileNotFoundError: if there is no such study.
        ValueError: if the study cannot be read, or its folder holds cells with other settings.
    """
    path = study_file(study)
    plan = read_study(path, overrides)
    folder = Path(plan.folder or f"outputs/study/{plan.name}")
    cells = make_cells(plan, extra=path.parent)
    chosen = selected(cells, plan.only)
    runner = Runner(chosen, folder, plan.workers)
    # The whole grid, so that the report knows what is still to come.
    grid = {"name": plan.name, "cells": [cell.name for cell in cells]}
    files.write_text(folder / files.STUDY, OmegaConf.to_yaml(OmegaConf.create(grid)))
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
