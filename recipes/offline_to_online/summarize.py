"""One table and one picture of several seeds, with the switch marked.

python recipes/offline_to_online/train.py -m seed=0,1
python recipes/offline_to_online/summarize.py multirun/... --picture curves.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.common.plots import plot_learning_curves
from recipes.common.tables import markdown_table, number
from recipes.gtp.summarize import find_results
from torchrl_gtp.data import load_minari


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Lay out the policies before and after online training, one row a seed.

    Args:
        results: what ``find_results`` returns.

    Returns:
        a Markdown table; the ± is the standard deviation over episodes.
    """
    rows = []
    for run in results:
        cells = [str(run["seed"])]
        for key in ("offline", "online"):
            row = run["results"][key]
            cells.append(f"{row['return_mean']:,.1f} ± {row['return_std']:,.1f}")
            cells += [number(row["success_rate"], 2), number(row["normalized_score"])]
        rows.append([*cells, f"{run['env_steps']:,}"])
    titles = ["return", "success", "score"]
    before, after = ([f"{title} {when}" for title in titles] for when in ("before", "after"))
    return markdown_table(["seed", *before, *after, "environment steps"], rows)


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read the evaluations of a run back from its CSV curves.

    Args:
        folder: the run's output folder.

    Raises:
        FileNotFoundError: if there are no CSV curves.
    """
    rows: dict[int, dict[str, float]] = {}
    for name in ("eval/return", "eval/success_rate"):
        for file in sorted(folder.glob(f"*/scalars/{name}.csv")):
            for line in file.read_text().splitlines():
                step, value = line.split(",")
                rows.setdefault(int(step), {"step": int(step)})[name] = float(value)
    if not rows:
        raise FileNotFoundError(f"No CSV curves in {folder}: train with logger.backend=csv.")
    return [rows[step] for step in sorted(rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Table and picture of fine-tuning runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="output folders of runs or sweeps")
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    options = parser.parse_args(arguments)
    results = find_results(options.folders)
    print(summary(results))
    if options.picture is None:
        return
    switches = {run["offline_updates"] for run in results}
    datasets = {run["dataset"] for run in results}
    if len(switches) > 1 or len(datasets) > 1:
        raise ValueError(
            "One picture shows runs on one dataset with one number of offline updates, got "
            f"{sorted(datasets)} and {sorted(switches)}."
        )
    metadata = load_minari(datasets.pop()).metadata
    references = {"behaviour data": metadata.behavior_returns.mean().item()}
    if metadata.ref_max_score is not None:
        references["reference policy"] = metadata.ref_max_score
    files = [file for folder in options.folders for file in sorted(folder.rglob("results.json"))]
    seeds = [json.loads(file.read_text())["seed"] for file in files]
    plot_learning_curves(
        options.picture,
        {
            f"seed {seed}": read_history(file.parent)
            for seed, file in zip(seeds, files, strict=True)
        },
        references,
        {"switch to online": switches.pop()},
    )


if __name__ == "__main__":
    main()
