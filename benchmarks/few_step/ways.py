"""Ways to sample, which are the columns of the pages' tables, and their kept figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.few_step.kept import ENERGY, FACTORS, Row, digits_of, sets_of
from benchmarks.few_step.report import mean_and_spread
from recipes.common.tables import markdown_table, number

__all__ = [
    "COMPARISONS",
    "DISTILLED_COMPARISONS",
    "Comparison",
    "Way",
    "columns_of",
    "figures_of",
    "sets_table",
    "verdict",
    "verdict_line",
    "ways",
]


class Way(NamedTuple):
    """A way to sample: one column."""

    title: str
    method: str
    sampler: str
    num_steps: int


class Comparison(NamedTuple):
    """Samples of GTP after a number of jumps, and the way that they are compared with."""

    title: str
    num_steps: int
    other: Way


def ways(title: str, method: str, sampler: str, *num_steps: int) -> list[Way]:
    """The columns of a sampler, whose title stands once, before the first K."""
    titles = [f"{title} K = {num_steps[0]}", *(f"K = {steps}" for steps in num_steps[1:])]
    return [
        Way(text, method, sampler, steps) for text, steps in zip(titles, num_steps, strict=True)
    ]


COMPARISONS = [
    Comparison("two jumps, consistency policy K = 2", 2, Way("", "consistency", "consistency", 2)),
    Comparison("two jumps, diffusion K = 10", 2, Way("", "diffusion", "heun", 10)),
    Comparison("five jumps, diffusion K = 40", 5, Way("", "diffusion", "heun", 40)),
    Comparison("one jump, consistency policy K = 1", 1, Way("", "consistency", "consistency", 1)),
]
"""What GTP is to reach, and a single jump."""

DISTILLED_COMPARISONS = [
    Comparison(
        f"{words}, consistency distillation K = {num_steps}",
        num_steps,
        Way("", "consistency_distillation", "consistency", num_steps),
    )
    for words, num_steps in (("two jumps", 2), ("five jumps", 5), ("one jump", 1))
]
"""The consistency policy that a denoiser is distilled into."""


def columns_of(gtp: str) -> list[Way]:
    """The columns of GTP, or a variant of it by that name, and of what it is compared with."""
    return [
        *ways("GTP", gtp, "jumps", 1, 2, 5),
        *ways("`gamma=0.9`", gtp, "gamma=0.9", 2, 5),
        *ways("diffusion", "diffusion", "heun", 10, 40),
        *ways("consistency", "consistency", "consistency", 1, 2, 5),
    ]


def figures_of(rows: Sequence[Row], data: str, way: Way, measure: str) -> list[float]:
    """The figures of all seeds, in the order of the seeds.

    Raises:
        ValueError: if there are none.
    """
    key = (data, way.method, way.sampler, str(way.num_steps))
    found = [
        FACTORS[measure] * float(row[measure])
        for row in sorted(rows, key=lambda row: int(row["seed"]))
        if (row["data"], row["method"], row["sampler"], row["num_steps"]) == key and row[measure]
    ]
    if not found:
        raise ValueError(f"The rows hold no {measure} of {key}.")
    return found


def sets_table(rows: Sequence[Row], measure: str, columns: Sequence[Way]) -> str:
    """A line for each data set that has a measure, a column for each way."""
    lines = []
    for name, data in sets_of(rows, measure).items():
        digits = digits_of(data, measure, 2, 0)
        floor = statistics.fmean(figures_of(rows, data, Way("", "data", "-", 0), measure))
        figures = [mean_and_spread(figures_of(rows, data, way, measure), digits) for way in columns]
        lines.append([name, number(floor, digits), *figures])
    return markdown_table(["set", "data", *(way.title for way in columns)], lines)


def verdict(first: Sequence[float], second: Sequence[float]) -> str:
    """Says whether the first of two methods is ahead, where smaller figures are better.

    They are level if their means differ by no more than the root of the summed squares of both
    standard deviations, of a sample (n - 1).

    Args:
        first: the figures of the first method, at least two seeds.
        second: those of the second.

    Raises:
        ValueError: for fewer seeds.

    Examples:
        >>> verdict([1.0, 2.0], [2.0, 3.0]), verdict([1.0, 1.2], [2.0, 2.2])
        ('level', 'ahead')
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"A verdict needs at least two seeds, got {len(first)} and {len(second)}: the spread "
            "of one is not known."
        )
    difference = statistics.fmean(first) - statistics.fmean(second)
    if abs(difference) <= math.hypot(statistics.stdev(first), statistics.stdev(second)):
        return "level"
    return "ahead" if difference < 0 else "behind"


def verdict_line(
    rows: Sequence[Row], label: str, sampler: str, comparison: Comparison, method: str = "gtp"
) -> list[str]:
    """A line with the sets where a sampler of GTP is ahead, level and behind by energy distance."""
    places: Mapping[str, list[str]] = {"ahead": [], "level": [], "behind": []}
    for name, data in sets_of(rows, ENERGY).items():
        mine = figures_of(rows, data, Way("", method, sampler, comparison.num_steps), ENERGY)
        places[verdict(mine, figures_of(rows, data, comparison.other, ENERGY))].append(name)
    return [label, *(", ".join(names) for names in places.values())]
