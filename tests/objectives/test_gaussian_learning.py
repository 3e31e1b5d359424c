"""A network trained with GTPLoss reproduces the closed-form flow map of Gaussian data."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from torchrl_gtp import GTPActor, GTPLoss, make_gtp_actor

STD = torch.tensor([0.15, 0.4])


def mean_of(observation):
    return 0.4 * torch.cat([observation, -observation], -1)


@pytest.fixture(scope="module")
def trained_actor() -> GTPActor:
    """Clones ``a ~ N(mean(o), STD^2)`` without ever touching the schedule."""
    torch.manual_seed(0)
    actor = make_gtp_actor(1, Bounded(-3, 3, (2,)), sigma_data=0.4, hidden_sizes=(64, 64))
    loss = GTPLoss(actor)
    updater = SoftUpdate(loss, tau=0.01)
    num_updates = 3_000
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    for _ in range(num_updates):
        observation = torch.rand(256, 1) * 2 - 1
        action = mean_of(observation) + STD * torch.randn(256, 2)
        losses = loss(TensorDict({"observation": observation, "action": action}, [256]))
        (losses["loss_consistency"] + losses["loss_flow"]).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        updater.step()
    return loss.target_actor()


def exact_map(action_t, t, s, observation):
    mean = mean_of(observation)
    return mean + ((STD**2 + s**2) / (STD**2 + t**2)).sqrt() * (action_t - mean)


@pytest.fixture
def draws():
    torch.manual_seed(1)
    return torch.rand(4_000, 1) * 2 - 1, torch.randn(4_000, 2)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_jumps_follow_the_closed_form(trained_actor, draws, num_steps):
    observation, noise = draws
    sample = trained_actor.sample(observation, noise, num_steps)
    start = trained_actor.flow_map.noise_levels.sigma_max
    exact = exact_map(start * noise, torch.tensor(start), torch.tensor(0.0), observation)
    error = (sample - exact).square().mean(0).sqrt()
    # Root mean square of the error over the spread of the data; a collapsed map would give 1.
    assert (error / STD).max() < 0.2
    residual = sample - mean_of(observation)
    torch.testing.assert_close(residual.std(0), STD, rtol=0.15, atol=0)


@pytest.mark.parametrize(("t", "s"), [(3.0, 1.0), (1.0, 0.3), (0.5, 0.1), (0.5, 0.0)])
def test_intermediate_jumps_follow_the_closed_form(trained_actor, draws, t, s):
    observation, noise = draws
    t, s = torch.full((4_000, 1), t), torch.full((4_000, 1), s)
    action_t = mean_of(observation) + (STD**2 + t**2).sqrt() * noise
    jump = trained_actor.flow_map(action_t, t, s, observation)
    exact = exact_map(action_t, t, s, observation)
    assert ((jump - exact).square().mean().sqrt() / STD.max()) < 0.1


def test_denoiser_is_the_posterior_mean(trained_actor, draws):
    observation, noise = draws
    t = torch.full((4_000, 1), 0.5)
    action_t = mean_of(observation) + (STD**2 + t**2).sqrt() * noise
    mean = mean_of(observation)
    posterior = mean + STD**2 / (STD**2 + t**2) * (action_t - mean)
    denoised = trained_actor.flow_map.denoise(action_t, t, observation)
    assert (denoised - posterior).square().mean().sqrt() < 0.1 * STD.max()
