"""The tables of ``docs/few_step_quality.md`` and ``docs/number_of_steps.md`` from kept figures.

The parts are made of a ``results.csv`` each, the last of the ``steps.csv`` of GTP::

    python -m benchmarks.few_step.page targets docs/results/few_step/targets.csv
    python -m benchmarks.few_step.page muon docs/results/few_step/muon.csv
    python -m benchmarks.few_step.page aim docs/results/few_step/aim.csv
    python -m benchmarks.few_step.page quality docs/results/few_step/three_methods.csv
    python -m benchmarks.few_step.page methods docs/results/few_step/all_methods.csv
    python -m benchmarks.few_step.page shapes docs/results/few_step/shapes.csv
    python -m benchmarks.few_step.page steps docs/results/few_step/steps.csv
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.few_step.evaluation import NUM_STEPS
from benchmarks.few_step.kept import ENERGY, SHARE, Row, digits_of, read_rows, sets_of
from benchmarks.few_step.page_aim import aim_tables
from benchmarks.few_step.page_muon import muon_tables
from benchmarks.few_step.page_steps import steps_tables
from benchmarks.few_step.report import mean_and_spread
from benchmarks.few_step.ways import (
    COMPARISONS,
    Way,
    columns_of,
    figures_of,
    sets_table,
    verdict,
    verdict_line,
    ways,
)
from recipes.common.tables import markdown_table, number

__all__ = ["methods_tables", "quality_tables", "shapes_tables", "targets_tables"]


_LOWER_RATE = "gtp:lr=2e-3"
_BOTH_RATES = [
    *ways("`lr=3e-3`", "gtp", "jumps", 1, 2, 5),
    *ways("`gamma=0.9`", "gtp", "gamma=0.9", 2, 5),
    *ways("`lr=2e-3`", _LOWER_RATE, "jumps", 1, 2, 5),
    *ways("`gamma=0.9`", _LOWER_RATE, "gamma=0.9", 2, 5),
]
# With Heun's method 2 K - 1 evaluations.
_SAMPLERS = {
    "gtp": "jumps",
    "gtp_distillation": "jumps",
    "paper": "jumps",
    "diffusion": "heun",
    "ddpm": "ddpm",
    "flow_matching": "heun",
    "consistency": "consistency",
    "consistency_distillation": "consistency",
    "ctm": "jumps",
    "shortcut": "jumps",
    "mean_flow": "jumps",
}
_VARIANT_WAYS = {
    "GTP": ("gtp", "jumps"),
    "GTP, `gamma=0.9`": ("gtp", "gamma=0.9"),
    "GTP from a denoiser": ("gtp_distillation", "jumps"),
    "GTP from a denoiser, `gamma=0.9`": ("gtp_distillation", "gamma=0.9"),
    "GTP, `semigroup_every=none`": ("gtp:semigroup_every=none", "jumps"),
    "GTP, `lambda_flow=10`": ("gtp:lambda_flow=10", "jumps"),
    "consistency": ("consistency", "consistency"),
    "diffusion": ("diffusion", "heun"),
}
_JUMPS = {"deterministic": "jumps", "- `gamma=0.9`": "gamma=0.9"}
_NOISED_STEPS = (2, 3, 5, 10, 40)


def quality_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``results.csv``, of three seeds.
    """
    return {
        "The sets": sets_table(rows, ENERGY, columns_of("gtp")),
        "The sets, share on a mode": sets_table(rows, SHARE, columns_of("gtp")),
        "Ahead, level and behind": _verdicts_table(rows),
        "Jumps with fresh noise": _noise_table(rows),
        "Seeds that gain by fresh noise": _gains_table(rows),
    }


def _noise_table(rows: Sequence[Row]) -> str:
    lines = []
    shares = sets_of(rows, SHARE)
    for name, data in sets_of(rows, ENERGY).items():
        for label, sampler in _JUMPS.items():
            columns = [Way("", "gtp", sampler, steps) for steps in _NOISED_STEPS]
            digits = digits_of(data, ENERGY, 2, 0)
            line = [mean_and_spread(figures_of(rows, data, way, ENERGY), digits) for way in columns]
            line += [
                number(statistics.fmean(figures_of(rows, data, way, SHARE)), 3)
                if name in shares
                else ""
                for way in columns
            ]
            lines.append([f"{name}, {label}" if sampler == "jumps" else label, *line])
    steps = [f"K = {number}" for number in _NOISED_STEPS]
    header = ["energy distance x 1000", *steps, f"share, {steps[0]}", *steps[1:]]
    return markdown_table(header, lines)


def _gains_table(rows: Sequence[Row]) -> str:
    """The number of seeds whose network is better with fresh noise: the networks are the same."""
    lines = []
    for name, data in sets_of(rows, ENERGY).items():
        line = [name]
        for steps in _NOISED_STEPS:
            plain, noised = (
                figures_of(rows, data, Way("", "gtp", sampler, steps), ENERGY)
                for sampler in _JUMPS.values()
            )
            gains = sum(one < other for one, other in zip(noised, plain, strict=True))
            line.append(f"{gains} of {len(plain)}, {verdict(noised, plain)}")
        lines.append(line)
    return markdown_table(["set", *(f"K = {steps}" for steps in _NOISED_STEPS)], lines)


def _verdicts_table(rows: Sequence[Row]) -> str:
    lines = []
    for comparison in COMPARISONS:
        for label, sampler in zip(
            (comparison.title, "- `gamma=0.9`"), _JUMPS.values(), strict=True
        ):
            # A single jump leaves no level for fresh noise.
            if comparison.num_steps > 1 or sampler == "jumps":
                lines.append(verdict_line(rows, label, sampler, comparison))
    return markdown_table(["energy distance", "ahead", "level", "behind"], lines)


def methods_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of all methods in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``results.csv``.
    """
    return {f"K = {num_steps}": _methods_table(rows, num_steps) for num_steps in (1, 2, 5)}


def _methods_table(rows: Sequence[Row], num_steps: int) -> str:
    columns = [Way("", method, sampler, num_steps) for method, sampler in _SAMPLERS.items()]
    lines = []
    for measure in (ENERGY, SHARE):
        for name, data in sets_of(rows, measure).items():
            digits = digits_of(data, measure, 2, 0)
            figures = [
                mean_and_spread(figures_of(rows, data, way, measure), digits) for way in columns
            ]
            lines.append([f"{name}, share" if measure == SHARE else name, *figures])
    return markdown_table([f"K = {num_steps}", *_SAMPLERS], lines)


def targets_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of the whole training in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``results.csv``; all sets but the ring have seed 0 alone.
    """
    first = [row for row in rows if row["seed"] == "0"]
    default = {row["data"] for row in first if row["method"] == "gtp"}
    both = [row for row in first if row["data"] in default]
    return {
        "Against the targets": _rows_of_ways(rows, "ring"),
        "Three times as many updates": sets_table(first, ENERGY, columns_of(_LOWER_RATE)),
        "Three times as many updates, share on a mode": sets_table(
            first, SHARE, columns_of(_LOWER_RATE)
        ),
        "Two rates": sets_table(both, ENERGY, _BOTH_RATES),
        "Two rates, share on a mode": sets_table(both, SHARE, _BOTH_RATES),
    }


def shapes_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of other shapes in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``results.csv``.
    """
    return {name: _rows_of_ways(rows, data) for name, data in sets_of(rows, ENERGY).items()}


def _rows_of_ways(rows: Sequence[Row], data: str) -> str:
    """A row for each way that there is, and each of both measures; a column for each K."""
    there = {(row["method"], row["sampler"]) for row in rows if row["data"] == data}
    lines = []
    for measure, title, digits in ((SHARE, "share on a mode", 3), (ENERGY, "energy distance", 2)):
        floor = figures_of(rows, data, Way("", "data", "-", 0), measure)
        lines.append([f"**{title}**, data", number(statistics.fmean(floor), digits)])
        lines[-1] += [""] * (len(NUM_STEPS) - 1)
        for name, way in _VARIANT_WAYS.items():
            if way not in there:
                continue
            figures = [figures_of(rows, data, Way("", *way, steps), measure) for steps in NUM_STEPS]
            lines.append([name, *(mean_and_spread(values, digits) for values in figures)])
    return markdown_table([data, *(f"K = {steps}" for steps in NUM_STEPS)], lines)


_PAGES: dict[str, Callable[[Sequence[Row]], dict[str, str]]] = {
    "quality": quality_tables,
    "methods": methods_tables,
    "targets": targets_tables,
    "muon": muon_tables,
    "aim": aim_tables,
    "shapes": shapes_tables,
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
