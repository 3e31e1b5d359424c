"""A network trained with GTPLoss reproduces the closed-form flow map of Gaussian data."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gaussian import STD, draw, exact_map, jump_error, mean_of, train
from torchrl_gtp import GTPActor


@pytest.fixture(scope="module")
def trained_actor() -> GTPActor:
    """Trained without ever touching the schedule."""
    return train()


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_jumps_follow_the_closed_form(trained_actor, num_steps):
    assert jump_error(trained_actor, num_steps) < 0.2
    observation, noise = draw()
    residual = trained_actor.sample(observation, noise, num_steps) - mean_of(observation)
    torch.testing.assert_close(residual.std(0), STD, rtol=0.15, atol=0)


@pytest.mark.parametrize(("t", "s"), [(3.0, 1.0), (1.0, 0.3), (0.5, 0.1), (0.5, 0.0)])
def test_intermediate_jumps_follow_the_closed_form(trained_actor, t, s):
    observation, noise = draw()
    t, s = torch.full((4_000, 1), t), torch.full((4_000, 1), s)
    action_t = mean_of(observation) + (STD**2 + t**2).sqrt() * noise
    jump = trained_actor.flow_map(action_t, t, s, observation)
    exact = exact_map(action_t, t, s, observation)
    assert ((jump - exact).square().mean().sqrt() / STD.max()) < 0.1


def test_denoiser_is_the_posterior_mean(trained_actor):
    observation, noise = draw()
    t = torch.full((4_000, 1), 0.5)
    mean = mean_of(observation)
    action_t = mean + (STD**2 + t**2).sqrt() * noise
    posterior = mean + STD**2 / (STD**2 + t**2) * (action_t - mean)
    denoised = trained_actor.flow_map.denoise(action_t, t, observation)
    assert (denoised - posterior).square().mean().sqrt() < 0.1 * STD.max()
