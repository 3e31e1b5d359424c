"""The tables of the section on the aim of few jumps from a kept ``aim.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.few_step.aim import COMPARED
from benchmarks.few_step.kept import ENERGY, SHARE, Row, digits_of, sets_of
from benchmarks.few_step.matched import MATCHED
from benchmarks.few_step.report import mean_and_spread
from benchmarks.few_step.ways import (
    Way,
    figures_of,
    sets_table,
    verdict_line,
    ways,
)
from recipes.common.tables import markdown_table

__all__ = ["aim_tables"]

_FROM_DENOISER = "gtp_distillation"
_OTHER_TIMES = "gtp_distillation:end=cubic,std=1.6,lr=2e-3"


def _columns(gtp: str) -> list[Way]:
    return [
        *ways("GTP, matched", gtp, f"jumps{MATCHED}", 2, 5),
        *ways("`gamma=0.7`", gtp, f"gamma=0.7{MATCHED}", 2, 5),
        *ways("`gamma=0.9`", gtp, f"gamma=0.9{MATCHED}", 2, 5),
        *ways("diffusion", "diffusion", "heun", 10, 40),
        *ways("consistency", "consistency", "consistency", 2),
    ]


_BESIDE_DATA = [
    *ways("from a denoiser", _FROM_DENOISER, f"jumps{MATCHED}", 1, 2, 5),
    *ways("from data", "gtp", f"jumps{MATCHED}", 1, 2, 5),
    *ways("consistency", "consistency", "consistency", 1, 2),
]
_BESIDE_DISTILLED = [
    *ways("GTP, matched", _FROM_DENOISER, f"jumps{MATCHED}", 1, 2, 5),
    *ways("`gamma=0.7`", _FROM_DENOISER, f"gamma=0.7{MATCHED}", 2, 5),
    *ways("other times, matched", _OTHER_TIMES, f"jumps{MATCHED}", 1, 2, 5),
    *ways("`gamma=0.7`", _OTHER_TIMES, f"gamma=0.7{MATCHED}", 2, 5),
    *ways("consistency", "consistency_distillation", "consistency", 1, 2, 5),
]


def aim_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of the aim in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``aim.csv``, of three seeds.
    """
    return {
        "The aim": sets_table(rows, ENERGY, _columns("gtp")),
        "Ahead, level and behind": _verdicts_table(rows, "gtp"),
        "Differences by seed": _differences_table(rows, "gtp"),
        "From a trained denoiser": sets_table(rows, ENERGY, _columns(_FROM_DENOISER)),
        "From a denoiser and from data": sets_table(rows, ENERGY, _BESIDE_DATA),
        "Ahead, level and behind from a denoiser": _verdicts_table(rows, _FROM_DENOISER),
        "Differences by seed from a denoiser": _differences_table(rows, _FROM_DENOISER),
        "Distilled": sets_table(rows, ENERGY, _BESIDE_DISTILLED),
        "Distilled, share on a mode": sets_table(rows, SHARE, _BESIDE_DISTILLED),
        "Ahead, level and behind with other times": _verdicts_table(rows, _OTHER_TIMES),
    }


def _verdicts_table(rows: Sequence[Row], method: str) -> str:
    lines = []
    for comparison, samplers in COMPARED:
        lines.append([f"**{comparison.title}**", "", "", ""])
        for sampler, title in samplers.items():
            lines.append(verdict_line(rows, title, sampler, comparison, method))
    return markdown_table(["energy distance", "ahead", "level", "behind"], lines)


def _differences_table(rows: Sequence[Row], method: str) -> str:
    """GTP less the other, seed by seed: both meet the same draw of data and first noise."""
    sets = sets_of(rows, ENERGY)
    lines = []
    for comparison, samplers in COMPARED:
        lines.append([f"**{comparison.title}**", *("" for _ in sets)])
        for sampler, title in samplers.items():
            way = Way("", method, sampler, comparison.num_steps)
            figures = [_difference(rows, data, way, comparison.other) for data in sets.values()]
            lines.append([title, *figures])
    return markdown_table(["GTP less the other", *sets], lines)


def _difference(rows: Sequence[Row], data: str, way: Way, other: Way) -> str:
    pairs = zip(*(figures_of(rows, data, one, ENERGY) for one in (way, other)), strict=True)
    return mean_and_spread([mine - theirs for mine, theirs in pairs], digits_of(data, ENERGY, 2, 0))
