"""The tables of the sections on Muon and matched starts from a kept ``muon.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.few_step.kept import ENERGY, SHARE, Row, digits_of, sets_of
from benchmarks.few_step.matched import MATCHED
from benchmarks.few_step.report import mean_and_spread
from benchmarks.few_step.ways import (
    COMPARISONS,
    Comparison,
    Way,
    columns_of,
    figures_of,
    sets_table,
    verdict_line,
    ways,
)
from recipes.common.tables import markdown_table

__all__ = ["muon_tables"]

_STARTS = [
    *ways("GTP", "gtp", "jumps", 1, 2, 5),
    *ways("matched", "gtp", f"jumps{MATCHED}", 1, 2, 5),
    *ways("matched, `gamma=0.9`", "gtp", f"gamma=0.9{MATCHED}", 2, 5),
    *ways("diffusion", "diffusion", "heun", 10, 40),
    *ways("matched", "diffusion", f"heun{MATCHED}", 10, 40),
]
_PLAIN = {"jumps": "jumps", "gamma=0.9": "`gamma=0.9`"}
_FROM_MATCHED = {
    f"jumps{MATCHED}": "matched",
    f"gamma=0.7{MATCHED}": "matched, `gamma=0.7`",
    f"gamma=0.9{MATCHED}": "matched, `gamma=0.9`",
}
_COMPARED: list[tuple[Comparison, dict[str, str]]] = [
    *((one, {**_PLAIN, **_FROM_MATCHED}) for one in COMPARISONS),
    *(
        (
            one._replace(
                title=f"{one.title}, matched",
                other=one.other._replace(sampler=f"{one.other.sampler}{MATCHED}"),
            ),
            _FROM_MATCHED,
        )
        for one in COMPARISONS
        if one.other.method == "diffusion"
    ),
]


def muon_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of Muon and matched starts in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``muon.csv``, of three seeds, with those from a matched start.
    """
    return {
        "With Muon": sets_table(rows, ENERGY, columns_of("gtp")),
        "With Muon, share on a mode": sets_table(rows, SHARE, columns_of("gtp")),
        "A matched start": sets_table(rows, ENERGY, _STARTS),
        "A matched start, share on a mode": sets_table(rows, SHARE, _STARTS),
        "Ahead, level and behind": _verdicts_table(rows),
        "Differences by seed": _differences_table(rows),
    }


def _verdicts_table(rows: Sequence[Row]) -> str:
    lines = []
    for comparison, samplers in _COMPARED:
        lines.append([f"**{comparison.title}**", "", "", ""])
        for sampler, title in samplers.items():
            if _is_sampled(sampler, comparison):
                lines.append(verdict_line(rows, title, sampler, comparison))
    return markdown_table(["energy distance", "ahead", "level", "behind"], lines)


def _differences_table(rows: Sequence[Row]) -> str:
    """GTP less the other, seed by seed: both meet the same draw of data and first noise."""
    sets = sets_of(rows, ENERGY)
    lines = []
    for comparison, samplers in _COMPARED:
        lines.append([f"**{comparison.title}**", *("" for _ in sets)])
        for sampler, title in samplers.items():
            if _is_sampled(sampler, comparison):
                way = Way("", "gtp", sampler, comparison.num_steps)
                figures = [_difference(rows, data, way, comparison.other) for data in sets.values()]
                lines.append([title, *figures])
    return markdown_table(["GTP less the other", *sets], lines)


def _difference(rows: Sequence[Row], data: str, way: Way, other: Way) -> str:
    pairs = zip(*(figures_of(rows, data, one, ENERGY) for one in (way, other)), strict=True)
    return mean_and_spread([mine - theirs for mine, theirs in pairs], digits_of(data, ENERGY, 2, 0))


def _is_sampled(sampler: str, comparison: Comparison) -> bool:
    # A single jump leaves no level for fresh noise.
    return comparison.num_steps > 1 or "gamma" not in sampler
