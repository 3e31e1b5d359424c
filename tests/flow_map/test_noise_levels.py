"""Noise levels: Karras spacing, jump times and the doubling curriculum."""

from __future__ import annotations

import math

import pytest
import torch

from torchrl_gtp.flow_map import NoiseLevels, doubling_curriculum


def test_karras_levels_follow_the_published_formula():
    levels = NoiseLevels(sigma_min=0.002, sigma_max=80.0, rho=7.0).karras(18, dtype=torch.float64)
    expected = [
        (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)
    ]
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("num_steps", [1, 2, 5, 40])
def test_jump_times_fall_from_noise_to_data(num_steps):
    times = NoiseLevels().jump_times(num_steps)
    assert times.shape == (num_steps + 1,)
    assert times[0] == pytest.approx(3.0)
    assert times[-1] == 0
    assert (times[:-1] > times[1:]).all()


def test_edm_times_are_the_karras_levels_and_then_0():
    levels = NoiseLevels(sigma_max=80.0)
    times = levels.edm_times(18, dtype=torch.float64)
    torch.testing.assert_close(times[:-1], levels.karras(18, dtype=torch.float64))
    assert times.shape == (19,) and times[-2] == pytest.approx(0.002) and times[-1] == 0
    # A single step starts where jumps do.
    torch.testing.assert_close(levels.edm_times(1), torch.tensor([80.0, 0.0]))


def test_edm_times_from_a_start_below():
    start = torch.tensor([[0.0], [0.001], [1.0], [99.0]], dtype=torch.float64)
    times = NoiseLevels().edm_times(3, start=start, dtype=torch.float64)
    # Midway in the roots of order rho.
    middle = [((t ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7 for t in (1.0, 3.0)]
    for row, expected in enumerate(
        ([0.0] * 4, [0.001] * 3 + [0.0], [1.0, middle[0], 0.002, 0.0], [3.0, middle[1], 0.002, 0.0])
    ):
        torch.testing.assert_close(times[:, row, 0], torch.tensor(expected, dtype=torch.float64))
    assert NoiseLevels().edm_times(3, start=1.0).tolist() == pytest.approx(times[:, 2, 0].tolist())


@pytest.mark.parametrize("num_steps", [0, -1])
def test_times_need_a_step(num_steps):
    for times in (NoiseLevels().jump_times, NoiseLevels().edm_times):
        with pytest.raises(ValueError, match="num_steps must be at least 1"):
            times(num_steps)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma_min": 0.0},
        {"sigma_min": 11.0},
        {"rho": 0.5},
        {"sigma_max": math.nan},
        {"sigma_max": math.inf},
        {"rho": math.nan},
    ],
)
def test_bad_ranges(options):
    with pytest.raises(ValueError, match="NoiseLevels needs"):
        NoiseLevels(**options)


@pytest.mark.parametrize("total", [10_000, 2_000_000])
def test_curriculum_at_every_doubling(total):
    interval = math.floor(total / (math.log2(1280 / 10) + 1))
    updates = [0, total]
    for stage in range(1, 8):
        updates += [stage * interval - 1, stage * interval]
    expected = [min(10 * 2 ** (k // interval), 1280) + 1 for k in updates]
    progress = torch.tensor(updates, dtype=torch.float64) / (8 * interval)
    assert doubling_curriculum(progress).tolist() == expected
    assert sorted(set(expected)) == [11, 21, 41, 81, 161, 321, 641, 1281]


def test_curriculum_beyond_the_ends_and_with_other_bounds():
    assert doubling_curriculum(torch.tensor([-1.0, 2.0])).tolist() == [11, 1281]
    assert doubling_curriculum(torch.tensor([0.0, 0.5, 1.0]), 4, 8).tolist() == [5, 9, 9]
    with pytest.raises(ValueError, match="power of two"):
        doubling_curriculum(torch.tensor(0.0), 10, 30)
