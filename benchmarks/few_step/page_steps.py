"""The tables of ``docs/number_of_steps.md`` from a kept ``steps.csv``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.few_step.kept import ENERGY, FACTORS, SHARE, Row, digits_of, sets_of
from benchmarks.few_step.report import mean_and_spread
from benchmarks.few_step.steps import FITTED, GRID, NOISED, interpolated
from recipes.common.tables import markdown_table, number

__all__ = ["steps_tables"]


def steps_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of ``docs/number_of_steps.md`` by title.

    Args:
        rows: those of ``steps.csv``.
    """
    return {
        "Energy distance x 1000": _ways_table(rows, ENERGY),
        "Share on a mode": _ways_table(rows, SHARE),
        "Adaptive": _adaptive_table(rows),
        "Rank correlation": _estimates_table(rows),
    }


def _of_way(rows: Sequence[Row], data: str, way: str, setting: str) -> list[Row]:
    key = (data, way, setting)
    return [row for row in rows if (row["data"], row["way"], row["setting"]) == key]


def _settings(rows: Sequence[Row], way: str) -> list[str]:
    return list(dict.fromkeys(row["setting"] for row in rows if row["way"] == way))


def _spread(rows: Sequence[Row], measure: str, digits: int) -> str:
    return mean_and_spread([FACTORS[measure] * float(row[measure]) for row in rows], digits)


def _ways_table(rows: Sequence[Row], measure: str) -> str:
    # The last number of the grid is for the adaptive sampler to be compared with.
    numbers = {"grid": GRID[:-1], "fitted": FITTED, "noised": NOISED}
    ways = [(way, steps) for way, of_way in numbers.items() for steps in of_way]
    lines = []
    for name, data in sets_of(rows, measure).items():
        digits = digits_of(data, measure, 2, 1)
        figures = [_spread(_of_way(rows, data, "data", "-"), measure, digits)]
        figures += [
            _spread(_of_way(rows, data, way, f"K = {steps}"), measure, digits)
            for way, steps in ways
        ]
        lines.append([name, *figures])
    return markdown_table(["set", "data", *(f"{way} {steps}" for way, steps in ways)], lines)


def _adaptive_table(rows: Sequence[Row]) -> str:
    shares = sets_of(rows, SHARE)
    lines = []
    for name, data in sets_of(rows, ENERGY).items():
        for setting in _settings(rows, "adaptive"):
            of_way = _of_way(rows, data, "adaptive", setting)
            evaluations = statistics.fmean(float(row["evaluations"]) for row in of_way)
            line = [name, setting.removeprefix("tolerance "), number(evaluations, 2)]
            for measure in (ENERGY, SHARE):
                if measure == SHARE and name not in shares:
                    line += ["-", "-"]
                    continue
                digits = digits_of(data, measure, 2, 1)
                line.append(_spread(of_way, measure, digits))
                line.append(mean_and_spread(_at_equal_cost(rows, of_way, measure), digits))
            lines.append(line)
    header = ["set", "tolerance", "evaluations", "energy distance", "grid at equal cost"]
    return markdown_table([*header, "share on a mode", "grid at equal cost"], lines)


def _at_equal_cost(rows: Sequence[Row], of_way: Sequence[Row], measure: str) -> list[float]:
    """The grid's figures of each seed at the evaluations of a way."""
    found = []
    for one in of_way:
        grid = [
            (float(row["evaluations"]), FACTORS[measure] * float(row[measure]))
            for row in rows
            if (row["data"], row["seed"], row["way"]) == (one["data"], one["seed"], "grid")
        ]
        found.append(interpolated(grid, float(one["evaluations"])))
    return found


def _estimates_table(rows: Sequence[Row]) -> str:
    settings = _settings(rows, "estimate")
    lines = [
        [name, *(_spread(_of_way(rows, data, "estimate", one), "spearman", 2) for one in settings)]
        for name, data in sets_of(rows, ENERGY).items()
    ]
    return markdown_table(["set", *settings], lines)
