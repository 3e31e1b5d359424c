"""Scores of several tasks and seeds as one number with its uncertainty.

The measures are those of "Deep RL at the Edge of the Statistical Precipice" (arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores.

    Args:
        scores: of all tasks and seeds, any shape.

    Example:
        >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
        1.5
    """
    return float(stats.trim_mean(np.asarray(scores, dtype=float).ravel(), 0.25))


def bootstrap_interval(
    scores: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of the interquartile mean by the stratified bootstrap.

    Seeds are drawn with replacement within each task, tasks stay as they are: the interval says how
    far other seeds on the same tasks may lead, not what other tasks would give.

    Args:
        scores: for each task the scores of its seeds.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        its two ends (percentiles); ``None`` if a task has a single seed, which says nothing about
        the spread.
    """
    if any(len(task) < 2 for task in scores) or not scores:
        return None

    def statistic(*samples: np.ndarray, axis: int) -> Any:
        return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    with np.errstate(all="ignore"):
        interval = stats.bootstrap(
            [np.asarray(task, dtype=float) for task in scores],
            statistic,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Share of runs with a score above each threshold.

    Args:
        scores: of all tasks and seeds, any shape.
        thresholds: the scores to compare with, shape ``[T]``.

    Returns:
        shares in [0, 1], shape ``[T]``.

    Example:
        >>> performance_profile([10.0, 20.0, 30.0, 40.0], [5.0, 20.0, 50.0]).tolist()
        [1.0, 0.5, 0.0]
    """
    flat = np.asarray(scores, dtype=float).ravel()
    return (flat[None, :] > np.asarray(thresholds, dtype=float)[:, None]).mean(-1)
