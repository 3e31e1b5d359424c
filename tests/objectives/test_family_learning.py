"""Networks trained with each objective of the family act like the closed form."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from benchmarks.gaussian import STD, draw, exact_map, mean_of
from tests.objectives.contract.case import total_of
from torchrl_gtp import GTPActor, GTPLoss, make_gtp_actor
from torchrl_gtp.flow_map import family


class ExactMap(nn.Module):
    """The flow map of the data, in closed form, for the samplers."""

    def __init__(self, noise_levels):
        super().__init__()
        self.noise_levels = noise_levels

    def forward(self, action_t, t, s, observation):
        return exact_map(action_t, t, s, observation)

    def denoise(self, action_t, t, observation):
        mean = mean_of(observation)
        return mean + STD**2 / (STD**2 + t**2) * (action_t - mean)


def train(
    name: str, num_updates: int, denoiser: GTPActor | None = None, batch_size: int = 256
) -> GTPActor:
    torch.manual_seed(0)
    objective, sampler, noise_levels = family(name)
    actor = make_gtp_actor(
        1,
        Bounded(-3, 3, (2,)),
        sigma_data=0.4,
        hidden_sizes=(64, 64),
        activation=nn.SiLU,  # ReLU is too coarse in so small a network
        sampler=sampler,
        noise_levels=noise_levels,
    )
    loss = GTPLoss(actor, objective=objective, denoiser_network=denoiser)
    updater = SoftUpdate(loss, tau=0.01)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    for update in range(num_updates):
        loss.progress = update / num_updates
        observation = torch.rand(batch_size, 1) * 2 - 1
        action = mean_of(observation) + STD * torch.randn(batch_size, 2)
        total_of(
            loss(TensorDict({"observation": observation, "action": action}, [batch_size]))
        ).backward()
        nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        updater.step()
    return loss.target_actor()


@torch.no_grad()
def error_of(actor: GTPActor, num_steps: int) -> float:
    """The distance to the same sampler on the exact map, in units of the data's spread.

    With the same noise, root-mean-square, the larger dimension's; a policy collapsed to the mean
    would give about 1.
    """
    observation, noise = draw()
    samples = []
    for flow_map in (actor.flow_map, ExactMap(actor.flow_map.noise_levels)):
        torch.manual_seed(2)
        samples.append(actor.sampler(flow_map, noise, observation, num_steps))
    return ((samples[0] - samples[1]).square().mean(0).sqrt() / STD).max().item()


@pytest.mark.parametrize(
    ("name", "num_steps", "bound"),
    [("flow_matching", 5, 0.25), ("consistency", 1, 0.4), ("mean_flow", 2, 0.7)],
)
def test_a_few_hundred_updates_learn(name, num_steps, bound):
    """Untrained, the errors are 2.1, 1.8 and 1.5."""
    assert error_of(train(name, 400, batch_size=128), num_steps) < bound


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_steps", "bound"),
    [
        ("diffusion", 10, 0.05),
        ("ddpm", 5, 0.06),
        ("flow_matching", 10, 0.06),
        ("consistency", 1, 0.15),
        ("ctm", 2, 0.15),
        ("gtp", 2, 0.2),
        ("paper", 5, 0.4),
        ("shortcut", 1, 0.25),
        ("shortcut", 4, 0.2),
        ("mean_flow", 5, 0.5),
    ],
)
def test_training_reaches_the_closed_form(name, num_steps, bound):
    assert error_of(train(name, 2_000), num_steps) < bound


@pytest.mark.slow
@pytest.mark.parametrize("name", ["consistency_distillation", "gtp_distillation"])
def test_distillation_reaches_the_closed_form(name):
    distilled = train(name, 2_000, train("diffusion", 2_000))
    for num_steps in (1, 2, 5):
        assert error_of(distilled, num_steps) < 0.1
