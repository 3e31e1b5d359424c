"""Kept figures of the benchmark, and what the pages call their data sets."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ENERGY", "FACTORS", "SHARE", "Row", "digits_of", "read_rows", "sets_of"]

Row = Mapping[str, str]
"""A row of a CSV of the benchmark."""

ENERGY, SHARE = "energy_distance", "share_on_mode"
FACTORS = {ENERGY: 1_000.0, SHARE: 1.0, "spearman": 1.0}
"""What the measures are multiplied with on the pages."""

_NAMES = {"gtp/pointmaze/umaze-v0": "maze", "like/adroit/door-human-v0": "door"}
_PLANAR = ("ring", "turned_ring", "grid", "checkerboard", "moons", "spiral")
_SHAPES = ("line", "weighted_ring", "chunks")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a CSV of the benchmark."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sets_of(rows: Sequence[Row], measure: str) -> dict[str, str]:
    """The sets that have a measure, by the names on the pages, in the order of the pages."""
    there = {row["data"] for row in rows if row[measure]}
    ordered = (*_PLANAR, *_NAMES, *_SHAPES)
    return {_NAMES.get(data, data): data for data in ordered if data in there}


def digits_of(data: str, measure: str, fine: int, coarse: int) -> int:
    """The digits of a figure behind the point."""
    # The distances of the sets with states are a hundred times as large.
    if measure == SHARE:
        return 3
    return coarse if data in _NAMES else fine
