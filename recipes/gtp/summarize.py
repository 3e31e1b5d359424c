"""One table over the seeds of several runs.

python recipes/gtp/train.py -m seed=0,1,2 compare_bc=true
python recipes/gtp/summarize.py multirun/gtp/gtp/pointmaze/umaze-v0/<date>
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.common.tables import markdown_table, number


def find_results(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read every ``results.json`` in and below the folders, in the order of dataset and seed.

    Args:
        folders: output folders of runs or of sweeps.

    Raises:
        FileNotFoundError: if a folder has none.
    """
    results = []
    for folder in folders:
        files = sorted(folder.rglob("results.json"))
        if not files:
            raise FileNotFoundError(
                f"No results.json in or below {folder}: give the output folders of finished runs."
            )
        results += [json.loads(file.read_text()) for file in files]
    return sorted(results, key=lambda run: (run["dataset"], run["seed"]))


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Lay out one row a seed and one of means for each dataset, number of updates and method.

    Args:
        results: what :func:`find_results` returns.

    Raises:
        ValueError: if runs of one dataset and number of updates differ in more than their seed, or
            have the same one: a mean over them would mean nothing.

    Returns:
        a Markdown table; the ± of a mean row is the standard deviation over seeds, that of a
        single seed the one over its episodes.
    """
    groups: dict[tuple[str, int, str], list[tuple[int, dict[str, Any]]]] = {}
    seen: dict[tuple[str, int], tuple[dict[str, Any], set[int]]] = {}
    for run in results:
        config, seeds = seen.setdefault((run["dataset"], run["updates"]), (run["config"], set()))
        if run["config"] != config:
            raise ValueError(
                f"The runs on {run['dataset']} differ in more than their seed (that with seed "
                f"{run['seed']} from the first): make a table of each setting on its own."
            )
        if run["seed"] in seeds:
            raise ValueError(f"There are two runs with seed {run['seed']} on {run['dataset']}.")
        seeds.add(run["seed"])
        for row in run["results"].values():
            key = (run["dataset"], run["updates"], row["name"])
            groups.setdefault(key, []).append((run["seed"], row))
    rows = []
    for (dataset, updates, name), runs in groups.items():
        # The data are the same for every seed.
        runs = runs[:1] if all(row == runs[0][1] for _, row in runs) else runs
        for seed, row in runs:
            label = "-" if len(runs) == 1 else str(seed)
            rows.append([dataset, f"{updates:,}", name, label, *_cells([row], row["return_std"])])
        if len(runs) > 1:
            means = [row for _, row in runs]
            deviation = statistics.stdev(row["return_mean"] for row in means)
            rows.append([dataset, f"{updates:,}", name, "mean", *_cells(means, deviation)])
    titles = ["dataset", "updates", "policy", "seed", "return", "success", "normalised score"]
    return markdown_table([*titles, "updates/s", "ms/action"], rows)


def _cells(rows: Sequence[dict[str, Any]], deviation: float) -> list[str]:
    def mean(key: str) -> float | None:
        values = [row[key] for row in rows]
        return None if None in values else statistics.fmean(values)

    return [
        f"{number(mean('return_mean'))} ± {number(deviation)}",
        number(mean("success_rate"), 2),
        number(mean("normalized_score")),
        number(mean("updates_per_second")),
        number(mean("milliseconds_per_action"), 2),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Make one table of the results of several runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="output folders of runs or sweeps")
    print(summary(find_results(parser.parse_args(arguments).folders)))


if __name__ == "__main__":
    main()
