"""The schedule and the sampler of Consistency-AC's published code, written out independently."""

from __future__ import annotations

import math

import pytest
import torch

from torchrl_gtp.flow_map import (
    ConsistencySampler,
    FlowMap,
    KarrasGridTimes,
    LogNormalTimes,
    MLPBackbone,
    NoiseLevels,
    RestartedTimes,
    square_root_curriculum,
)

LEVELS = NoiseLevels(sigma_max=80.0)


def test_number_of_nodes():
    total = 997  # a prime, so that no root is an integer up to rounding
    for step in range(total):
        published = math.ceil(math.sqrt(step * (150**2 - 4) / total + 4) - 1) + 1
        progress = torch.tensor(step / total, dtype=torch.float64)
        assert square_root_curriculum(progress) == published, step
    ends = square_root_curriculum(torch.tensor([-1.0, 0.0, 1.0, 2.0]), first=3, last=8)
    assert ends.tolist() == [4.0, 4.0, 9.0, 9.0]
    with pytest.raises(ValueError, match="1 <= first <= last is needed, got first=5 and last=4"):
        square_root_curriculum(torch.zeros(()), 5, 4)


@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
def test_times_are_neighbouring_boundaries_with_equal_chances(progress):
    times = KarrasGridTimes(1, 149, end="data", growth="square_root")
    number = math.ceil(math.sqrt(progress * (150**2 - 4) + 4))
    root = [bound ** (1 / 7) for bound in (0.002, 80.0)]
    boundaries = torch.tensor(
        [(root[0] + i / (number - 1) * (root[1] - root[0])) ** 7 for i in range(number)]
    ).double()
    # Every interval once: the middles of as many parts of the unit interval.
    middles = (torch.arange(number - 1.0, dtype=torch.float64) + 0.5) / (number - 1)
    uniform = torch.stack([middles, middles], -1)
    t, u, s = times(uniform, torch.tensor(progress, dtype=torch.float64), LEVELS)
    torch.testing.assert_close(t.flatten().sort().values, boundaries[1:], rtol=1e-6, atol=0)
    torch.testing.assert_close(u.flatten().sort().values, boundaries[:-1], rtol=1e-6, atol=0)
    assert (s == 0).all()


def test_growth_is_checked():
    with pytest.raises(ValueError, match="growth must be 'doubling' or 'square_root'"):
        KarrasGridTimes(growth="linear")
    with pytest.raises(ValueError, match="1 <= first <= last"):
        KarrasGridTimes(9, 3, growth="square_root")


@pytest.mark.parametrize("inner", [KarrasGridTimes(), LogNormalTimes()], ids=["grid", "gap"])
def test_the_schedule_starts_again(inner):
    restarted, uniform = RestartedTimes(inner, periods=4.0), torch.rand(9, 2)
    for progress, within in ((0.0, 0.0), (0.1, 0.4), (0.25, 0.0), (0.9, 0.6), (1.0, 1.0)):
        got = restarted(uniform, torch.tensor(progress), LEVELS)
        for name, expected in inner(uniform, torch.tensor(within), LEVELS)._asdict().items():
            torch.testing.assert_close(getattr(got, name), expected, rtol=1e-5, atol=0)
        start = restarted.start(uniform[:, :1], torch.tensor(progress), LEVELS)
        torch.testing.assert_close(start, got.t)
    once = RestartedTimes(inner)(uniform, torch.tensor(0.3), LEVELS)
    torch.testing.assert_close(once.t, inner(uniform, torch.tensor(0.3), LEVELS).t)


@pytest.mark.parametrize("num_updates", [2_000_000, 500_000, 130_000, 50_000, 10_000])
def test_a_period_in_updates(num_updates):
    """The published program counts from 0 in every period, also in one that is cut short."""
    inner = KarrasGridTimes(1, 149, end="data", growth="square_root")
    restarted = RestartedTimes(inner, period_updates=50_000, num_updates=num_updates)
    by_number = RestartedTimes(inner, periods=num_updates / 50_000)
    uniform = torch.rand(9, 2, dtype=torch.float64)
    for step in (0, 1, num_updates // 3, num_updates // 2 + 1, num_updates - 1, num_updates):
        # The end of training is that of its last period.
        in_period = (step % 50_000 or 50_000) if step == num_updates else step % 50_000
        progress, within = (
            torch.tensor(share, dtype=torch.float64)
            for share in (step / num_updates, in_period / 50_000)
        )
        expected = inner(uniform, within, LEVELS)
        for times in (restarted, by_number):
            torch.testing.assert_close(times(uniform, progress, LEVELS).t, expected.t)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": 0.0}, "periods must be positive and finite, got 0.0"),
        ({"periods": math.inf}, "periods must be positive and finite"),
        ({"period_updates": 10}, "go together and are at least 1.*num_updates=None"),
        ({"num_updates": 10}, "go together and are at least 1.*period_updates=None"),
        ({"period_updates": 0, "num_updates": 10}, "at least 1, got period_updates=0"),
        ({"periods": 2.0, "period_updates": 5, "num_updates": 10}, "leave it or them out"),
    ],
)
def test_periods_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        RestartedTimes(**options)


def test_sampler_of_two_levels():
    """Jump from 80, noise again to 2, jump."""
    torch.manual_seed(0)
    flow_map = FlowMap(MLPBackbone(action_dim=2, condition_dim=3), noise_levels=LEVELS)
    noise, condition = torch.randn(8, 2), torch.randn(8, 3)
    torch.manual_seed(1)
    got = ConsistencySampler(levels=[80.0, 2.0])(flow_map, noise, condition, num_steps=2)
    torch.manual_seed(1)
    high, low, zero = (torch.full((8, 1), level) for level in (80.0, 2.0, 0.0))
    first = flow_map(80.0 * noise, high, zero, condition)
    renoised = first + math.sqrt(2.0**2 - 0.002**2) * torch.randn(8, 2)
    torch.testing.assert_close(got, flow_map(renoised, low, zero, condition), rtol=1e-5, atol=1e-5)


def test_levels_of_the_sampler_are_checked():
    assert ConsistencySampler(levels=[80.0, 2.0]) == ConsistencySampler(levels=(80, 2))
    for levels in ((), (2.0, 80.0), (2.0, 2.0), (2.0, 0.0), (float("inf"), 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="levels must be finite, positive and decreasing"):
            ConsistencySampler(levels=levels)
    flow_map, noise = FlowMap(MLPBackbone(action_dim=2)), torch.zeros(1, 2)
    sampler = ConsistencySampler(levels=(80.0, 2.0))
    with pytest.raises(ValueError, match="num_steps must be 2, the number of levels"):
        sampler(flow_map, noise, None, 5)
    with pytest.raises(ValueError, match="no warm start"):
        sampler(flow_map, noise, None, 2, start=noise, start_level=1.0)
