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


# What the authors' rliable 1.2.0 gives (arch 7.2.0, numpy 2.4.6, scipy 1.17.1, Python 3.11.7) for
# scores [seeds, tasks]: aggregate_iqm, create_performance_profile, get_interval_estimates with 2000
# draws, repeated with random_state 0 to 29: mean and standard deviation of both ends.
RLIABLE = {
    "tasks alike": {
        "scores": [
            [52.5, 47.4, 62.8, 52.1],
            [39.3, 57.2, 76.1, 68.9],
            [35.9, 24.7, 37.5, 50.8],
            [3.5, 45.6, 25.1, 35.4],
            [39.1, 43.7, 58.2, 70.8],
        ],
        "iqm": 46.52,
        "profile": [1.0, 0.9, 0.45, 0.05, 0.0],
        "ends": [39.86126667, 53.24820833],
        "deviations": [0.24289983, 0.1781435],
    },
    # Drawn without regard to tasks, these would give a far wider interval.
    "an easy and a hard task": {
        "scores": [
            [0.0, 96.3],
            [12.5, 101.2],
            [3.1, 88.0],
            [80.2, 110.7],
            [5.9, 97.4],
            [41.0, 20.6],
            [7.7, 104.9],
            [2.2, 99.5],
        ],
        "iqm": 55.4625,
        "profile": [0.9375, 0.5625, 0.5, 0.5, 0.1875],
        "ends": [30.836625, 78.80369792],
        "deviations": [0.98869132, 0.74227576],
    },
}


@pytest.mark.parametrize("case", RLIABLE)
def test_measures_agree_with_rliable(case: str) -> None:
    theirs = RLIABLE[case]
    assert interquartile_mean(theirs["scores"]) == pytest.approx(theirs["iqm"])
    shares = performance_profile(theirs["scores"], [0.0, 25.0, 50.0, 75.0, 100.0])
    assert shares.tolist() == theirs["profile"]


@pytest.mark.parametrize("case", RLIABLE)
def test_interval_agrees_with_rliable(case: str) -> None:
    theirs, repetitions = RLIABLE[case], 30
    tasks = np.array(theirs["scores"]).T.tolist()
    ours = np.array(
        [bootstrap_interval(tasks, resamples=2000, seed=seed) for seed in range(repetitions)]
    )
    # Both ends are random. The difference of two means of 30 repetitions has this standard error;
    # four of them are exceeded by chance once in 16,000 times.
    variances = np.square(theirs["deviations"]) + ours.var(0, ddof=1)
    error = np.sqrt(variances / repetitions)
    assert (np.abs(ours.mean(0) - theirs["ends"]) < 4 * error).all()
    # The bound means something: it is below a twentieth of the interval.
    assert (4 * error < 0.05 * np.ptp(theirs["ends"])).all()
