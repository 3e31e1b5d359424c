"""Noise levels that are fitted to data, and the sampler that takes them."""

from __future__ import annotations

import pytest
import torch

from tests.flow_map.closed_form import MEAN, STD, GaussianFlowMap
from torchrl_gtp.flow_map import JumpSampler, energy_score, few_step_sample, fit_times
from torchrl_gtp.flow_map.samplers import sampling_times


class NarrowFlowMap(GaussianFlowMap):
    """Exact jumps, but that those far across the level 1 lose all their spread."""

    def forward(self, action_t, t, s, condition=None):
        crosses = (t > 1.3) & (s < 1 / 1.3)
        reached = super().forward(action_t, t, s)
        return torch.where(crosses, MEAN + 0 * reached, reached)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def with_nan(*shape):
    values = normal(*shape)
    values.view(-1)[0] = float("nan")
    return values


def fit(action=None, noise=None, condition=None, flow_map=None, **options):
    """Fits the time of two jumps, by default to three sound actions."""
    action = normal(3, 2) if action is None else action
    noise = normal(2, *action.shape) if noise is None else noise
    return fit_times(flow_map or GaussianFlowMap(), action, noise, condition, 2, **options)


def test_energy_score_of_a_gaussian():
    """E|X - a| and E|X - X'| of scalars; the score is least for the data's own spread."""
    torch.manual_seed(0)
    action = normal(50_000, 1)
    scores = [
        energy_score(spread * normal(4, 50_000, 1), action).mean().item()
        for spread in (0.5, 1.0, 2.0)
    ]
    root = (2 / torch.pi) ** 0.5
    # E|X - a| = sqrt(2 / pi) sqrt(1 + spread^2), E|X - X'| = sqrt(2 / pi) sqrt(2) spread.
    expected = [root * ((1 + d**2) ** 0.5 - d / 2**0.5) for d in (0.5, 1.0, 2.0)]
    assert scores == pytest.approx(expected, abs=0.01)
    assert scores[1] == min(scores)


@pytest.mark.parametrize("num_steps", [2, 3])
def test_a_time_moves_to_where_the_map_needs_it(num_steps):
    torch.manual_seed(0)
    flow_map = NarrowFlowMap()
    grid = flow_map.noise_levels.jump_times(num_steps)
    assert not ((grid > 1 / 1.3) & (grid < 1.3)).any()
    action = MEAN + STD * normal(1_000, 1)
    times = fit_times(flow_map, action, normal(2, 1_000, 1), None, num_steps)
    assert len(times) == num_steps - 1
    assert any(1 / 1.3 <= time <= 1.3 for time in times)
    noise = normal(20_000, 1)
    fitted = JumpSampler(times=times)(flow_map, noise, None, num_steps)
    assert fitted.std().item() == pytest.approx(STD, rel=0.05)
    assert JumpSampler()(flow_map, noise, None, num_steps).std().item() < 0.1


def test_the_search_begins_with_the_given_spacing():
    """The exact map gains nothing by other levels."""
    torch.manual_seed(0)
    flow_map, action = GaussianFlowMap(), MEAN + STD * normal(50, 2)
    for spacing in ("karras", "linear"):
        times = fit_times(flow_map, action, normal(2, 50, 2), None, 4, spacing=spacing)
        grid = sampling_times(spacing, flow_map.noise_levels, 4, None, normal(1))
        assert times == pytest.approx(grid[1:-1].tolist())


def test_chance_moves_nothing():
    """Where a jump lands mirrors the samples around their mean: others, but no better ones."""

    class MirroringFlowMap(GaussianFlowMap):
        def forward(self, action_t, t, s, condition=None):
            apart = super().forward(action_t, t, s) - MEAN
            return MEAN + torch.where(((100 * s) % 2 < 1) & (s > 0), -apart, apart)

    torch.manual_seed(0)
    flow_map, action = MirroringFlowMap(), MEAN + STD * normal(500, 2)
    noise = normal(2, 500, 2)
    times = fit_times(flow_map, action, noise, None, 5)
    grid = tuple(flow_map.noise_levels.jump_times(5)[1:-1].tolist())
    assert times == pytest.approx(grid)


def test_conditions_and_bounds_are_those_of_the_samples():
    torch.manual_seed(0)
    seen = []

    class Watched(GaussianFlowMap):
        def forward(self, action_t, t, s, condition=None):
            seen.append(condition)
            return super().forward(action_t, t, s) + 5.0

    condition, bound = normal(30, 3), torch.ones(2, dtype=torch.float64)
    actions = torch.ones(30, 2, dtype=torch.float64)
    arguments = (Watched(), actions, normal(2, 30, 2), condition, 2)
    # Clamped to the bounds all samples equal the data: no placement is better than the first.
    times = fit_times(*arguments, bounds=(-bound, bound))
    assert times == pytest.approx((GaussianFlowMap().noise_levels.jump_times(2)[1].item(),))
    assert all(torch.equal(one, condition.expand(2, 30, 3)) for one in seen)


def test_given_times_are_the_times_of_the_jumps():
    flow_map, noise = GaussianFlowMap(error=0.1), normal(6, 2)
    times = torch.tensor([10.0, 3.0, 0.4, 0.0], dtype=torch.float64)
    expected = few_step_sample(flow_map, noise, None, times)
    sampler = JumpSampler(times=[3.0, 0.4])
    torch.testing.assert_close(sampler(flow_map, noise, None, 3), expected)
    assert sampler == JumpSampler(times=(3.0, 0.4)) and hash(sampler) is not None
    assert sampler.evaluations(3) == 3


def test_a_warm_start_below_leaves_times_out():
    flow_map, noise, start = GaussianFlowMap(error=0.1), normal(2, 2), normal(2, 2)
    level = torch.tensor([[5.0], [1.0]], dtype=torch.float64)
    got = JumpSampler(times=(3.0, 0.4))(flow_map, noise, None, 3, start=start, start_level=level)
    for row, times in enumerate(([5.0, 3.0, 0.4, 0.0], [1.0, 0.4, 0.0])):
        times = torch.tensor(times, dtype=torch.float64)
        expected = few_step_sample(flow_map, noise[row], None, times, start[row])
        torch.testing.assert_close(got[row], expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: JumpSampler(times=(0.4, 3.0)), "strictly decreasing"),
        (lambda: JumpSampler(times=(0.4, 0.4)), "strictly decreasing"),
        (lambda: JumpSampler(times=(0.4, 0.0)), "strictly decreasing"),
        (lambda: JumpSampler(times=(float("inf"),)), "strictly decreasing"),
        (lambda: JumpSampler(times=(float("nan"),)), "strictly decreasing"),
        (lambda: JumpSampler("linear", times=(0.4,)), "take the place"),
        (lambda: JumpSampler(times=(0.4,))(GaussianFlowMap(), normal(1, 2), None, 3), "is for"),
        (
            lambda: JumpSampler(times=(10.0,))(GaussianFlowMap(), normal(1, 2), None, 2),
            "below sigma_max",
        ),
        (lambda: fit_times(GaussianFlowMap(), normal(3, 2), normal(2, 3, 2), None, 1), "num_steps"),
        (lambda: fit_times(GaussianFlowMap(), normal(3, 2), normal(3, 2), None, 2), "noise must"),
        (lambda: fit_times(GaussianFlowMap(), normal(3, 2), normal(1, 3, 2), None, 2), "2 samples"),
        (lambda: fit(normal(0, 2)), r"at least 2 rows.* got the shape \(0, 2\)"),
        (lambda: fit(normal(1, 2)), r"at least 2 rows.* got the shape \(1, 2\)"),
        (lambda: fit(normal(2)), r"action must be \[N, A\]"),
        (lambda: fit(with_nan(3, 2)), "action must be finite, but 1 of 6 values are not: drop"),
        (lambda: fit(noise=with_nan(2, 3, 2)), "noise must be finite, but 1 of 12"),
        (lambda: fit(condition=with_nan(3, 4)), "condition must be finite, but 1 of 12"),
        (
            lambda: fit(flow_map=GaussianFlowMap(error=float("nan"))),
            "samples must be finite, but 3 of 3 .* look at the weights",
        ),
        (lambda: fit(spacing="edm"), r"spacing must be one of \('karras', 'linear'\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
