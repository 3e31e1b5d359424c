"""The tables of ``docs/few_step_quality.md`` and ``docs/number_of_steps.md`` from kept figures.

The first page is made of the ``results.csv`` of the methods gtp, diffusion and consistency, the
second of the ``steps.csv`` of GTP::

    python -m benchmarks.few_step.page quality docs/results/few_step/three_methods.csv
    python -m benchmarks.few_step.page steps docs/results/few_step/steps.csv
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.few_step.report import mean_and_spread
from benchmarks.few_step.steps import FITTED, GRID, NOISED, interpolated
from recipes.common.tables import markdown_table, number

__all__ = ["quality_tables", "read_rows", "steps_tables", "verdict"]

Row = Mapping[str, str]

_NAMES = {"gtp/pointmaze/umaze-v0": "maze", "like/adroit/door-human-v0": "door"}
_ENERGY, _SHARE = "energy_distance", "share_on_mode"
_FACTORS = {_ENERGY: 1_000.0, _SHARE: 1.0, "spearman": 1.0}


class _Way(NamedTuple):
    """A way to sample: one column."""

    title: str
    method: str
    sampler: str
    num_steps: int


def _ways(title: str, method: str, sampler: str, *num_steps: int) -> list[_Way]:
    # The title stands once, before the first K.
    titles = [f"{title} K = {num_steps[0]}", *(f"K = {steps}" for steps in num_steps[1:])]
    return [
        _Way(text, method, sampler, steps) for text, steps in zip(titles, num_steps, strict=True)
    ]


_COLUMNS = [
    *_ways("GTP", "gtp", "jumps", 1, 2, 5),
    *_ways("`gamma=0.9`", "gtp", "gamma=0.9", 2, 5),
    *_ways("diffusion", "diffusion", "heun", 10, 40),
    *_ways("consistency", "consistency", "consistency", 1, 2, 5),
]
_JUMPS = {"deterministic": "jumps", "- `gamma=0.9`": "gamma=0.9"}
_NOISED_STEPS = (2, 3, 5, 10, 40)
_COMPARISONS = [
    ("two jumps, consistency policy K = 2", 2, _Way("", "consistency", "consistency", 2)),
    ("two jumps, diffusion K = 10", 2, _Way("", "diffusion", "heun", 10)),
    ("five jumps, diffusion K = 40", 5, _Way("", "diffusion", "heun", 40)),
    ("one jump, consistency policy K = 1", 1, _Way("", "consistency", "consistency", 1)),
]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a CSV of the benchmark."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def verdict(first: Sequence[float], second: Sequence[float]) -> str:
    """Says whether the first of two methods is ahead, where smaller figures are better.

    They are level if their means differ by no more than the root of the summed squares of both
    standard deviations, of a sample (n - 1).

    Args:
        first: the figures of the first method, at least two seeds.
        second: those of the second.

    Examples:
        >>> verdict([1.0, 2.0], [2.0, 3.0]), verdict([1.0, 1.2], [2.0, 2.2])
        ('level', 'ahead')
    """
    difference = statistics.fmean(first) - statistics.fmean(second)
    if abs(difference) <= math.hypot(statistics.stdev(first), statistics.stdev(second)):
        return "level"
    return "ahead" if difference < 0 else "behind"


def quality_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``results.csv``, of three seeds.
    """
    return {
        "The sets": _sets_table(rows, _ENERGY),
        "The sets, share on a mode": _sets_table(rows, _SHARE),
        "Ahead, level and behind": _verdicts_table(rows),
        "Jumps with fresh noise": _noise_table(rows),
        "Seeds that gain by fresh noise": _gains_table(rows),
    }


def _figures(rows: Sequence[Row], data: str, way: _Way, measure: str) -> list[float]:
    """The figures of all seeds, in the order of the seeds."""
    key = (data, way.method, way.sampler, str(way.num_steps))
    found = [
        _FACTORS[measure] * float(row[measure])
        for row in sorted(rows, key=lambda row: int(row["seed"]))
        if (row["data"], row["method"], row["sampler"], row["num_steps"]) == key and row[measure]
    ]
    if not found:
        raise ValueError(f"The rows hold no {measure} of {key}.")
    return found


def _sets(rows: Sequence[Row], measure: str) -> dict[str, str]:
    """The sets that have a measure, by the names on the pages, in the order of the rows' cells."""
    order = ["ring", "turned_ring", "grid", "checkerboard", "moons", "spiral", *_NAMES]
    there = {row["data"] for row in rows if row[measure]}
    return {_NAMES.get(data, data): data for data in order if data in there}


def _digits(data: str, measure: str, fine: int, coarse: int) -> int:
    # The distances of the sets with states are a hundred times as large.
    if measure == _SHARE:
        return 3
    return coarse if data in _NAMES else fine


def _sets_table(rows: Sequence[Row], measure: str) -> str:
    lines = []
    for name, data in _sets(rows, measure).items():
        digits = _digits(data, measure, 2, 0)
        floor = statistics.fmean(_figures(rows, data, _Way("", "data", "-", 0), measure))
        columns = [_figures(rows, data, way, measure) for way in _COLUMNS]
        figures = [mean_and_spread(values, digits) for values in columns]
        lines.append([name, number(floor, digits), *figures])
    return markdown_table(["set", "data", *(way.title for way in _COLUMNS)], lines)


def _noise_table(rows: Sequence[Row]) -> str:
    lines = []
    shares = _sets(rows, _SHARE)
    for name, data in _sets(rows, _ENERGY).items():
        for label, sampler in _JUMPS.items():
            ways = [_Way("", "gtp", sampler, steps) for steps in _NOISED_STEPS]
            digits = _digits(data, _ENERGY, 2, 0)
            line = [mean_and_spread(_figures(rows, data, way, _ENERGY), digits) for way in ways]
            line += [
                number(statistics.fmean(_figures(rows, data, way, _SHARE)), 3)
                if name in shares
                else ""
                for way in ways
            ]
            lines.append([f"{name}, {label}" if sampler == "jumps" else label, *line])
    steps = [f"K = {number}" for number in _NOISED_STEPS]
    header = ["energy distance x 1000", *steps, f"share, {steps[0]}", *steps[1:]]
    return markdown_table(header, lines)


def _gains_table(rows: Sequence[Row]) -> str:
    """The number of seeds whose network is better with fresh noise: the networks are the same."""
    lines = []
    for name, data in _sets(rows, _ENERGY).items():
        line = [name]
        for steps in _NOISED_STEPS:
            plain, noised = (
                _figures(rows, data, _Way("", "gtp", sampler, steps), _ENERGY)
                for sampler in _JUMPS.values()
            )
            gains = sum(one < other for one, other in zip(noised, plain, strict=True))
            line.append(f"{gains} of {len(plain)}, {verdict(noised, plain)}")
        lines.append(line)
    return markdown_table(["set", *(f"K = {steps}" for steps in _NOISED_STEPS)], lines)


def _verdicts_table(rows: Sequence[Row]) -> str:
    lines = []
    for title, num_steps, other in _COMPARISONS:
        for label, sampler in zip((title, "- `gamma=0.9`"), _JUMPS.values(), strict=True):
            if num_steps == 1 and sampler != "jumps":
                continue  # A single jump leaves no level for fresh noise.
            places: dict[str, list[str]] = {"ahead": [], "level": [], "behind": []}
            for name, data in _sets(rows, _ENERGY).items():
                mine = _figures(rows, data, _Way("", "gtp", sampler, num_steps), _ENERGY)
                places[verdict(mine, _figures(rows, data, other, _ENERGY))].append(name)
            lines.append([label, *(", ".join(names) for names in places.values())])
    return markdown_table(["energy distance", "ahead", "level", "behind"], lines)


def steps_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of ``docs/number_of_steps.md`` by title.

    Args:
        rows: those of ``steps.csv``.
    """
    return {
        "Energy distance x 1000": _ways_table(rows, _ENERGY),
        "Share on a mode": _ways_table(rows, _SHARE),
        "Adaptive": _adaptive_table(rows),
        "Rank correlation": _estimates_table(rows),
    }


def _of_way(rows: Sequence[Row], data: str, way: str, setting: str) -> list[Row]:
    key = (data, way, setting)
    return [row for row in rows if (row["data"], row["way"], row["setting"]) == key]


def _settings(rows: Sequence[Row], way: str) -> list[str]:
    return list(dict.fromkeys(row["setting"] for row in rows if row["way"] == way))


def _spread(rows: Sequence[Row], measure: str, digits: int) -> str:
    return mean_and_spread([_FACTORS[measure] * float(row[measure]) for row in rows], digits)


def _ways_table(rows: Sequence[Row], measure: str) -> str:
    # The last number of the grid is for the adaptive sampler to be compared with.
    numbers = {"grid": GRID[:-1], "fitted": FITTED, "noised": NOISED}
    ways = [(way, steps) for way, of_way in numbers.items() for steps in of_way]
    lines = []
    for name, data in _sets(rows, measure).items():
        digits = _digits(data, measure, 2, 1)
        figures = [_spread(_of_way(rows, data, "data", "-"), measure, digits)]
        figures += [
            _spread(_of_way(rows, data, way, f"K = {steps}"), measure, digits)
            for way, steps in ways
        ]
        lines.append([name, *figures])
    return markdown_table(["set", "data", *(f"{way} {steps}" for way, steps in ways)], lines)


def _adaptive_table(rows: Sequence[Row]) -> str:
    shares = _sets(rows, _SHARE)
    lines = []
    for name, data in _sets(rows, _ENERGY).items():
        for setting in _settings(rows, "adaptive"):
            of_way = _of_way(rows, data, "adaptive", setting)
            evaluations = statistics.fmean(float(row["evaluations"]) for row in of_way)
            line = [name, setting.removeprefix("tolerance "), number(evaluations, 2)]
            for measure in (_ENERGY, _SHARE):
                if measure == _SHARE and name not in shares:
                    line += ["-", "-"]
                    continue
                digits = _digits(data, measure, 2, 1)
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
            (float(row["evaluations"]), _FACTORS[measure] * float(row[measure]))
            for row in rows
            if (row["data"], row["seed"], row["way"]) == (one["data"], one["seed"], "grid")
        ]
        found.append(interpolated(grid, float(one["evaluations"])))
    return found


def _estimates_table(rows: Sequence[Row]) -> str:
    settings = _settings(rows, "estimate")
    lines = [
        [name, *(_spread(_of_way(rows, data, "estimate", one), "spearman", 2) for one in settings)]
        for name, data in _sets(rows, _ENERGY).items()
    ]
    return markdown_table(["set", *settings], lines)


_PAGES: dict[str, Callable[[Sequence[Row]], dict[str, str]]] = {
    "quality": quality_tables,
    "steps": steps_tables,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables of a page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("page", choices=_PAGES)
    parser.add_argument("figures", type=Path, help="the CSV")
    options = parser.parse_args(arguments)
    for title, table in _PAGES[options.page](read_rows(options.figures)).items():
        sys.stdout.write(f"### {title}\n\n{table}\n\n")


if __name__ == "__main__":
    main()
