"""Samplers against closed forms: Gaussian data, and the order of the ODE solvers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchrl_gtp.flow_map import (
    NoiseLevels,
    few_step_sample,
    noise_level,
    ode_sample,
    solve_ode,
)

MEAN, STD = 0.3, 0.4


def gaussian_map(action_t, t, s):
    """Phi for data ~ N(MEAN, STD^2), in closed form."""
    return MEAN + ((STD**2 + s**2) / (STD**2 + t**2)).sqrt() * (action_t - MEAN)


class GaussianFlowMap(nn.Module):
    def forward(self, action_t, t, s, condition=None):
        return gaussian_map(action_t, t, s)

    def denoise(self, action_t, t, condition=None):
        return MEAN + STD**2 / (STD**2 + t**2) * (action_t - MEAN)


POINTS = torch.tensor([[-0.8, 0.1], [0.5, 0.7], [0.2, -0.6]], dtype=torch.float64)


def points_denoiser(action_t, t):
    """E[a | a_t] for data on a few points: a softmax-weighted mean."""
    square = (action_t.unsqueeze(-2) - POINTS).square().sum(-1)
    return (-square / (2 * t**2)).softmax(-1) @ POINTS


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_jumps_of_the_exact_map_are_exact(num_steps, shape):
    noise = torch.randn(*shape, 2, dtype=torch.float64)
    times = NoiseLevels(sigma_max=80.0).jump_times(num_steps, dtype=torch.float64)
    sample = few_step_sample(GaussianFlowMap(), noise, None, times)
    expected = gaussian_map(80.0 * noise, torch.tensor(80.0, dtype=torch.float64), torch.zeros(()))
    torch.testing.assert_close(sample, expected)


def test_heun_sampler_approaches_the_exact_map():
    noise = torch.randn(100, 2, dtype=torch.float64)
    levels = NoiseLevels(sigma_max=10.0)
    exact = gaussian_map(10.0 * noise, torch.tensor(10.0), torch.zeros(()))
    errors = [
        (
            ode_sample(GaussianFlowMap(), noise, None, levels.jump_times(n, dtype=torch.float64))
            - exact
        )
        .abs()
        .max()
        for n in (10, 40)
    ]
    assert errors[1] < 0.01 and errors[1] < errors[0] / 4


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("linear_heun", 2)])
def test_solver_order_on_a_mixture_of_points(method, order):
    """Theorem 1: a solver of order p errs by O(h^p)."""
    torch.manual_seed(0)
    start = POINTS[torch.randint(3, (64,))] + 2.0 * torch.randn(64, 2, dtype=torch.float64)

    def solve(num_steps, method=method):
        # From 2 to 0.3 at equal distances on the linear path.
        times = noise_level(torch.linspace(2 / 3, 3 / 13, num_steps + 1, dtype=torch.float64))
        return solve_ode(points_denoiser, start, times, method)

    reference = solve(8_000, "heun")
    errors = torch.stack([(solve(n) - reference).norm(dim=-1).mean() for n in (80, 160, 320, 640)])
    observed = (errors[:-1] / errors[1:]).log2()
    torch.testing.assert_close(
        observed, torch.full((3,), float(order), dtype=torch.float64), atol=0.1, rtol=0
    )


def test_last_step_to_data_is_an_euler_step():
    action = torch.ones(3, 1, dtype=torch.float64)
    times = torch.tensor([0.5, 0.0], dtype=torch.float64)
    denoiser = GaussianFlowMap().denoise
    expected = denoiser(action, torch.full((3, 1), 0.5, dtype=torch.float64))
    for method in ("euler", "heun", "linear_heun"):
        torch.testing.assert_close(solve_ode(denoiser, action, times, method), expected)


def test_unknown_method():
    with pytest.raises(ValueError, match="'heun', 'linear_heun'\\), got 'rk4'"):
        solve_ode(points_denoiser, POINTS, torch.tensor([1.0, 0.5]), "rk4")
