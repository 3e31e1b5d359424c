"""The data sets by name."""

from __future__ import annotations

from functools import lru_cache

from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.demonstrations import MinariSet
from benchmarks.few_step.planar import PLANAR_SETS, PlanarSet
from benchmarks.few_step.shapes import SHAPES

__all__ = ["DEFAULT_SETS", "is_known", "make_set"]

DEFAULT_SETS = (*PLANAR_SETS, "gtp/pointmaze/umaze-v0", "D4RL/door/human-v2")
"""The planar sets, and Minari datasets: the maze data of the demo, and human demonstrations as
Minari's server has them; other copies of these go by their own ids."""


def is_known(name: str) -> bool:
    """Whether a name is that of a set, or may be the id of a Minari dataset: those have a slash."""
    return name in PLANAR_SETS or name in SHAPES or "/" in name


@lru_cache(maxsize=1)
def make_set(name: str) -> DataSet:
    """Makes a data set.

    Args:
        name: a name of ``PLANAR_SETS`` or ``SHAPES``, or the id of a Minari dataset, which has a
            slash.

    Raises:
        ValueError: for another name, or a Minari dataset that is too small.
        FileNotFoundError: for a Minari dataset that is not on this machine.
    """
    if name in PLANAR_SETS:
        return PlanarSet(name)
    if name in SHAPES:
        return SHAPES[name]()
    if "/" in name:
        return MinariSet(name)
    raise ValueError(
        f"There is no data set {name!r}: choose one of {sorted({*PLANAR_SETS, *SHAPES})}, or give "
        "the id of a Minari dataset, such as 'D4RL/door/human-v2'."
    )
