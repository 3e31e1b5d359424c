"""The tables of Muon, matched starts and a trained denoiser from a kept ``muon.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.few_step.kept import ENERGY, SHARE, Row
from benchmarks.few_step.matched import MATCHED
from benchmarks.few_step.ways import columns_of, sets_table, ways

__all__ = ["muon_tables"]

_STARTS = [
    *ways("GTP", "gtp", "jumps", 1, 2, 5),
    *ways("matched", "gtp", f"jumps{MATCHED}", 1, 2, 5),
    *ways("matched, `gamma=0.9`", "gtp", f"gamma=0.9{MATCHED}", 2, 5),
    *ways("diffusion", "diffusion", "heun", 10, 40),
    *ways("matched", "diffusion", f"heun{MATCHED}", 10, 40),
]
_FROM_DENOISER = [
    *ways("from a denoiser", "gtp_distillation", f"jumps{MATCHED}", 1, 2, 5),
    *ways("`gamma=0.7`", "gtp_distillation", f"gamma=0.7{MATCHED}", 2, 5),
    *ways("diffusion", "diffusion", "heun", 10, 40),
    *ways("matched", "diffusion", f"heun{MATCHED}", 10, 40),
    *ways("consistency", "consistency", "consistency", 1, 2),
    *ways("distilled", "consistency_distillation", "consistency", 1, 2),
]


def muon_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Makes the tables of that budget in ``docs/few_step_quality.md`` by title.

    Args:
        rows: those of ``muon.csv``, of three seeds, with those from a matched start and those of
            GTP from a trained denoiser.
    """
    return {
        "With Muon": sets_table(rows, ENERGY, columns_of("gtp")),
        "With Muon, share on a mode": sets_table(rows, SHARE, columns_of("gtp")),
        "A matched start": sets_table(rows, ENERGY, _STARTS),
        "A matched start, share on a mode": sets_table(rows, SHARE, _STARTS),
        "From a trained denoiser": sets_table(rows, ENERGY, _FROM_DENOISER),
    }
