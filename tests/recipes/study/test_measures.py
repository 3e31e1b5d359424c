from __future__ import annotations

import itertools

import numpy as np
import pytest

from recipes.study.measures import (
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
)
from recipes.study.results import CellResult, curve


def test_interquartile_mean_by_hand() -> None:
    # Eight scores: two at each end are cut.
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx(3.5)
    assert interquartile_mean([[1.0, 2.0], [4.0, 5.0]]) == pytest.approx(3.0)
    assert interquartile_mean([7.0]) == 7.0


def test_bootstrap_interval_is_that_of_all_draws() -> None:
    """Two tasks of two seeds have 16 equally likely draws, which can be listed."""
    tasks = [[0.0, 10.0], [20.0, 40.0]]
    means = [
        interquartile_mean([*first, *second])
        for first in itertools.product(tasks[0], repeat=2)
        for second in itertools.product(tasks[1], repeat=2)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    assert bootstrap_interval(tasks, resamples=20_000) == pytest.approx((low, high))
    # Tasks are not drawn: without spread within them there is none.
    assert bootstrap_interval([[1.0, 1.0], [5.0, 5.0]]) == pytest.approx((3.0, 3.0))
    assert bootstrap_interval([[1.0, 2.0], [5.0]]) is None
    assert bootstrap_interval([]) is None


def test_performance_profile_by_hand() -> None:
    scores = [[0.0, 50.0], [50.0, 100.0]]
    shares = performance_profile(scores, [-1.0, 0.0, 49.0, 50.0, 100.0])
    assert shares.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]


def test_mean_curve_by_hand(tmp_path) -> None:
    def cell(values: dict[int, float]) -> CellResult:
        rows = [
            {"step": step, "eval/return": value, "time/updates_per_second": 2.0}
            for step, value in values.items()
        ]
        return CellResult(tmp_path, {}, rows)

    steps, mean, deviation, seconds = curve(
        [cell({10: 1.0, 20: 2.0}), cell({10: 3.0, 20: 2.0, 30: 9.0})], "eval/return"
    )
    assert steps.tolist() == [10, 20]
    assert mean.tolist() == [2.0, 2.0]
    assert deviation.tolist() == pytest.approx([2**0.5, 0.0])
    assert seconds.tolist() == [5.0, 10.0]


@pytest.fixture
def scores() -> np.ndarray:
    """Scores [seeds, tasks]."""
    return np.random.default_rng(0).normal(50, 20, size=(5, 4))


def test_measures_agree_with_rliable(scores: np.ndarray) -> None:
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    assert interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores))
    thresholds = np.linspace(0, 100, 21)
    theirs = [library.run_score_deviation(scores, threshold) for threshold in thresholds]
    np.testing.assert_allclose(performance_profile(scores, thresholds), theirs)


def test_interval_agrees_with_rliable(scores: np.ndarray) -> None:
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    try:
        _, intervals = library.get_interval_estimates(
            {"method": scores}, lambda s: np.array([metrics.aggregate_iqm(s)]), reps=4000
        )
    except TypeError as error:
        pytest.skip(f"rliable's bootstrap does not run with the installed arch: {error}")
    ours = bootstrap_interval([scores[:, task].tolist() for task in range(4)], resamples=4000)
    theirs = intervals["method"].ravel()
    # Both are random: the ends of the percentile interval of 4,000 draws wander by a few percent.
    np.testing.assert_allclose(ours, theirs, atol=0.08 * np.ptp(theirs))
